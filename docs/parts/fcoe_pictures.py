"""The drawings of docs/fcoe.md: state tables, and what an initiator and a target say to each other.

The latter is no sketch: the two are run in memory, with a clock that is set, and the frames that they send are decoded as
``python -m tcm_fcoe.decode`` does.
"""

from __future__ import annotations

import functools
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_fcoe.initiator import FcpInitiator, FcpTask, read_16, write_16
from tcm_fcoe.port import Port
from tcm_fcoe.protocol import enode_tables, fcf_tables, point_to_point, remote_port, vn2vn_tables
from tcm_fcoe.protocol.fcp_target import FcpTarget
from tcm_fcoe.protocol.ladder import Ladder, folded
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import name_from_mac
from tcm_fcoe.protocol.state_table import drawing
from tcm_fcoe.protocol.station import Station

from tcm.adapters import adapt
from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.transport_id import TransportId
from tcm.target.device import TargetDevice
from tcm.target.initiator_port import InitiatorPort
from tcm.target.logical_unit import LogicalUnit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tcm_fcoe.protocol.ladder import Row

    from tcm.target.portal_group import TargetPortalGroup

INITIATOR, TARGET = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
"""MAC addresses."""
BURST = 8192
STEP = 0.001
ENOUGH = 100_000
READ, WRITE = "READ (16)", "WRITE (16)"


class Core:
    """A target port with one logical unit: the services of its FCP target."""

    def __init__(self, group: TargetPortalGroup) -> None:
        self.group = group

    def establish(self, remote: Any, nexus: Any) -> Port:
        """Everybody is let in."""
        port = Port(self.group)
        name = remote.port_name.hex()
        transport_id = TransportId(ProtocolIdentifier.FCP, name).pack()
        port.nexus = self.group.establish_nexus(InitiatorPort(f"naa.{name}", None, transport_id), nexus)
        return port

    def ended(self, nexus: Any, reason: str) -> None:
        """The session is over."""

    def wake(self) -> None:
        """Frames are looked for all the time."""


class Wire:
    """Both stations, and all that they have sent."""

    def __init__(self, core: Core) -> None:
        self.now = 0.0
        self.frames: list[tuple[bytes, float]] = []
        self.stations = [Station("vn2vn", mac, rng=random.Random(1)) for mac in (INITIATOR, TARGET)]
        ports = [NPort(name_from_mac(mac), name_from_mac(mac, naa=1)) for mac in (INITIATOR, TARGET)]
        for port, station in zip(ports, self.stations, strict=True):
            port.attach(station)
        self.fcp = FcpInitiator(ports[0])
        ports[0].fc4 = self.fcp
        ports[1].fc4 = FcpTarget(ports[1], core, burst_length=BURST)
        # the target is there first, so that the pictures tell one thing after the other
        for port, station in reversed([*zip(ports, self.stations, strict=True)]):
            station.add_port(port, self.now)
            station.link_up(self.now)
            self.run(lambda port=port: port.is_up)  # type: ignore[misc]  # a port in each turn

    def run(self, until: Callable[[], bool]) -> None:
        """Move frames and time."""
        for _ in range(ENOUGH):
            if until():
                return
            for station, other in (self.stations, self.stations[::-1]):
                sent = list(station.outbox)
                station.outbox.clear()
                self.frames += ((frame, self.now) for frame in sent)
                other.receive([memoryview(frame) for frame in sent], self.now)
                station.resume(self.now)
            self.now += STEP
            for station in self.stations:
                if station.next_timer <= self.now:
                    station.handle_timer(self.now)
        raise AssertionError("the session does not go on")

    def execute(self, task: FcpTask) -> FcpTask:
        """A command, to its end."""
        (nexus,) = self.fcp.nexuses.values()
        self.fcp.submit(nexus, task, self.now)
        self.run(lambda: task.finished and not any(station.outbox for station in self.stations))
        assert task.error is None
        return task


async def _talk() -> list[tuple[bytes, float]]:
    unit = LogicalUnit("disk", adapt(RamdiskBackstore(1 << 20)), serial="0")
    device = TargetDevice("naa.2000020000000002", "fcoe")
    group = device.add_portal_group(1)
    group.access = replace(group.access, generate_node_acls=True, demo_mode_write_protect=False)
    group.add_lun(0, unit)
    async with anyio.create_task_group() as tasks:
        await unit.open()
        unit.start(tasks)
        wire = Wire(Core(group))
        wire.run(lambda: bool(wire.fcp.nexuses))
        while not wire.execute(FcpTask(bytes(6))).result.good:
            pass
        assert wire.execute(FcpTask(write_16(0, 32), data_out=bytes(2 * BURST))).result.good
        assert wire.execute(FcpTask(read_16(0, 8), read_length=4096)).result.good
        for nexus in list(wire.stations[1].ports.values()):
            nexus.down("the end", wire.now)
        await unit.aclose()
        tasks.cancel_scope.cancel()
    return wire.frames


@functools.cache
def session() -> tuple[Row, ...]:
    """All of it as a ladder: from the first probe to a WRITE and a READ."""
    ladder = Ladder()
    return tuple(folded(row for frame, time in anyio.run(_talk) if (row := ladder.take(frame, time)) is not None))


def sequence(rows: Sequence[Row]) -> list[str]:
    """A Mermaid sequence diagram."""
    lines = ["```mermaid", "sequenceDiagram", "    participant I as initiator", "    participant T as target"]
    ours = name_from_mac(INITIATOR).hex(":")
    for row in rows:
        from_initiator = (row.left_name == ours) is row.to_right
        detail = row.detail.split(", name ")[0].split(", node ")[0]
        arrow = "I->>T" if from_initiator else "T->>I"
        lines.append(f"    {arrow}: {row.what}{f' {detail}' if detail else ''}")
    return [*lines, "```"]


def login() -> list[str]:
    """Up to PRLI, in VN2VN mode."""
    rows = list(session())
    end = max(number for number, row in enumerate(rows) if "PRLI" in row.what)
    return sequence([row for row in rows[: end + 1] if not row.problem])


def command(name: str) -> list[str]:
    """The frames of one exchange."""
    (ox_id,) = {row.ox_id for row in session() if row.what == "FCP_CMND" and name in row.detail}
    return sequence([row for row in session() if row.ox_id == ox_id and row.what.startswith("FCP")])


def states(table: Any) -> list[str]:
    """A state table as a drawing."""
    return ["```mermaid", *drawing(table).splitlines(), "```"]


PARTS: dict[str, Callable[[], list[str]]] = {
    "fcoe-login": login,
    "fcoe-write": lambda: command(WRITE),
    "fcoe-read": lambda: command(READ),
    "fcoe-remote-port-states": lambda: states(remote_port.TABLE),
    "fcoe-vn2vn-address-states": lambda: states(vn2vn_tables.ADDRESS),
    "fcoe-vn2vn-link-states": lambda: states(vn2vn_tables.LINK),
    "fcoe-fabric-states": lambda: states(enode_tables.FABRIC),
    "fcoe-fabric-login-states": lambda: states(enode_tables.LOGIN),
    "fcoe-virtual-link-states": lambda: states(fcf_tables.VIRTUAL_LINK),
    "fcoe-point-to-point-states": lambda: states(point_to_point.LINK),
}
