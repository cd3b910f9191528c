"""What the fabric tells of itself: interfaces, initiators, logins; what links, stations and FCP targets have counted."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from tcm.fabric_statistics import CountsRow, FabricStatistics, LioGroup, LoginRow, PortalRow, SessionRow
from tcm_fcoe.protocol.fcoe import COUNTERS
from tcm_fcoe.protocol.fcp_counters import FcpCounters
from tcm_fcoe.protocol.names import colon_form, format_fc_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcm.target.device import TargetDevice
    from tcm_fcoe.fabric import FcoeFabric
    from tcm_fcoe.target_port import TargetPort


@dataclass(frozen=True, slots=True, kw_only=True)
class FcPort(LioGroup):
    """``fc_port/``: the N_Port, in the words of Linux's ``fc_host``."""

    GROUP: ClassVar[str] = "fc_port"
    interface: str
    mode: str
    port_state: str
    port_id: str
    node_name: str
    initiators: int
    fcp_commands: int
    fcp_express_reads: int
    fcp_express_writes: int
    fcp_input_bytes: int
    """To the initiators: Data-In."""
    fcp_output_bytes: int
    logins: int
    logins_refused: int
    logouts: int
    invalid_crc_count: int
    link_failure_count: int
    dropped_frames: int
    """Frames that came to the interface and were for nobody, or not what they should be."""


DROPPED = (
    *COUNTERS,
    *("unsupported_headers", "unknown_type", "fcoe_not_for_us", "fcoe_spoofed", "fcoe_unexpected", "not_logged_in"),
    *("no_image_pair", "unknown_exchange", "unknown_sequence", "recovery_qualifier"),
)
"""Of a station's counters, those that count frames that were dropped."""


class FcoeStatistics(FabricStatistics):
    """Reads the counters of what runs."""

    def __init__(self, fabric: FcoeFabric) -> None:
        self._fabric = fabric

    def portals(self) -> Sequence[PortalRow]:
        """By interface: connections are initiators that are logged in."""
        rows = []
        for server in self._fabric.interfaces:
            ports = [port for port in self._fabric.ports.values() if port.server is server]
            rows.append(
                PortalRow(
                    portal=server.link.name,
                    connections=sum(len(port.fcp.nexuses) for port in ports),
                    accepted=sum(port.fcp.counters.logins for port in ports),
                )
            )
        return rows

    def sessions(self) -> Sequence[SessionRow]:
        """Image pairs."""
        return [
            SessionRow(
                target=port.target.name,
                tag=nexus.port.nexus.target_portal_group.tag,
                initiator=nexus.port.nexus.initiator_port.name,
                isid="",
                addresses=(format_fc_id(nexus.d_id),),
                established=nexus.since,
                cmd_pdus=nexus.cmd_ius,
                rsp_pdus=nexus.rsp_ius,
                txdata_octets=nexus.tx_bytes,
                rxdata_octets=nexus.rx_bytes,
            )
            for port in self._fabric.ports.values()
            for nexus in list(port.fcp.nexuses.values())
        ]

    def logins(self) -> Sequence[LoginRow]:
        """PRLI, by target."""
        return [
            LoginRow(
                target=port.target.name,
                accepted=port.fcp.counters.logins,
                refused={"prli": port.fcp.counters.logins_refused},
                logouts={"logout": port.fcp.counters.logouts},
            )
            for port in self._fabric.ports.values()
        ]

    def counts(self) -> Sequence[CountsRow]:
        """Of each interface what its link and its station count (FIP, FC-2, link services); of each port what FCP does."""
        rows = []
        for server in self._fabric.interfaces:
            server.link.refresh()
            link = server.link.counters
            counts = {f"link_{each.name}": getattr(link, each.name) for each in fields(link)}
            rows.append(CountsRow(part=server.link.name, counts=counts | server.station.counters.as_dict()))
        for port in self._fabric.ports.values():
            counters = port.fcp.counters
            rows.append(
                CountsRow(part=port.target.name, counts={f"fcp_{name}": getattr(counters, name) for name in FcpCounters.NAMES})
            )
        return rows

    def target_groups(self, target: TargetDevice) -> Sequence[LioGroup]:
        """See :class:`tcm.fabric_statistics.FabricStatistics`."""
        port = self._fabric.ports.get(target.name)
        return () if port is None else (_fc_port(port),)


def _fc_port(port: TargetPort) -> FcPort:
    counters, n_port, station = port.fcp.counters, port.n_port, port.server.station
    return FcPort(
        interface=port.server.link.name,
        mode=port.server.mode,
        port_state="Online" if n_port.is_up else "Offline" if port.server.link.up else "Linkdown",
        port_id=format_fc_id(n_port.fc_id),
        node_name=colon_form(n_port.node_name),
        initiators=len(port.fcp.nexuses),
        fcp_commands=counters.commands,
        fcp_express_reads=counters.express_reads,
        fcp_express_writes=counters.express_writes,
        fcp_input_bytes=counters.data_in_bytes,
        fcp_output_bytes=counters.data_out_bytes,
        logins=counters.logins,
        logins_refused=counters.logins_refused,
        logouts=counters.logouts,
        invalid_crc_count=station.counters.crc_errors,
        link_failure_count=station.counters.link_failures,
        dropped_frames=sum(getattr(station.counters, name) for name in DROPPED),
    )
