"""The FCoE fabric: interfaces, and the target devices on them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from tcm.fabric import Endpoint, Fabric
from tcm.failure import ConfigError
from tcm_fcoe.attributes import FcoeOptions, check_config, controller_options
from tcm_fcoe.link import open_link
from tcm_fcoe.memory import Memory
from tcm_fcoe.protocol.fcf import FcfController
from tcm_fcoe.protocol.names import colon_form, format_fc_id, parse_mac
from tcm_fcoe.server import InterfaceServer
from tcm_fcoe.statistics import FcoeStatistics
from tcm_fcoe.target_port import TargetPort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskStatus

    from tcm.target.device import TargetDevice
    from tcm.target.nexus import ITNexus
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import TargetPortalGroup
    from tcm.target.store import Store
    from tcm_fcoe.capture import CaptureFile
    from tcm_fcoe.protocol.n_port import NPort
    from tcm_fcoe.protocol.station import Station

log = logging.getLogger("tcm.fcoe")

START_SECONDS = 2.0
"""How long the start waits for ports to come up; in VN2VN mode that takes half a second."""
CREATE = {"vn2vn": "create_vn2vn", "fabric": "create", "fcf": "create", "p2p": "create"}
"""Parameter of libfcoe that makes a Linux initiator on an interface."""
_UNIX = "unix:"


class FcoeFabric(Fabric):
    """All targets of the configuration: the nth is a port of the nth interface, further ones of the last."""

    def __init__(self, targets: Sequence[TargetDevice], options: FcoeOptions) -> None:
        self._targets = targets
        self._options = options
        self._on_error = next((target.unhandled_error for target in targets), None)
        self.interfaces: list[InterfaceServer] = []
        """While it runs."""
        self.ports: dict[str, TargetPort] = {}
        """By the target's name."""
        self._statistics = FcoeStatistics(self)
        self._changed = anyio.Event()
        self._capture: CaptureFile | None = None
        self._memory: Memory | None = None

    def keep_in(self, store: Store) -> None:
        """See :class:`tcm.fabric.Fabric`: who the peer was, in mode ``p2p``."""
        self._memory = Memory(store)

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Open every interface, then serve."""
        options = self._options
        check_config(options)
        if options.mode == "p2p" and len(self._targets) > len(options.interface):
            raise ConfigError(
                f"--fabric fcoe: {len(self._targets)} targets, and in mode p2p an interface has one port; write fewer, or more"
                " interfaces"
            )
        try:
            if options.pcap is not None:
                self._capture = _open_capture(options.pcap)
            for name in options.interface:
                self._open(name)
            for target in self._targets:
                self.target_added(target)
            if self._memory is not None:
                for port in self.ports.values():
                    await self._memory.recall(port)
            async with anyio.create_task_group() as tasks:
                if self._memory is not None:
                    tasks.start_soon(self._memory.run)
                for server in self.interfaces:
                    tasks.start_soon(server.run)
                await self._until_up()
                task_status.started()
                await anyio.sleep_forever()
        finally:
            for port in self.ports.values():
                port.end("the fabric has ended")
            for server in self.interfaces:
                server.link.close()
            self.interfaces.clear()
            self.ports.clear()
            if self._capture is not None:
                self._capture.close()
                self._capture = None

    def _open(self, name: str) -> None:
        options = self._options
        address = parse_mac(options.mac) if options.mac is not None else None
        link = open_link(name, promiscuous=options.promiscuous, address=address)
        for notice in link.notices:
            log.warning("%s", notice)
        self.interfaces.append(
            InterfaceServer(
                link,
                options.mode,
                vlan=options.vlan,
                tag_priority=options.priority,
                poll=options.poll / 1e6,
                listener=self,
                on_error=self._on_error,
                capture=self._capture,
                **controller_options(options),
            )
        )

    async def _until_up(self) -> None:
        """Until every port has an address, or will not have one soon."""
        with anyio.move_on_after(START_SECONDS):
            while any(port.serving and not port.n_port.is_up and port.server.link.up for port in self.ports.values()):
                self._changed = anyio.Event()
                await self._changed.wait()

    # called by stations

    def notice(self, station: Station, text: str) -> None:
        """Something on a station's segment is not as it should be: say so."""
        server = next((each for each in self.interfaces if each.station is station), None)
        log.warning("%s: %s", server, text)

    def port_up(self, port: NPort) -> None:
        """A port has an address: say so."""
        server = self._server_of(port)
        log.info(
            "%s: %s (WWNN %s) is up: mode %s, MAC %s%s, FC_ID %s",
            server,
            colon_form(port.port_name),
            colon_form(port.node_name),
            self._options.mode,
            colon_form(server.link.address) if server is not None else "",
            f", VLAN {server.station.vlan}" if server is not None and server.station.vlan else "",
            format_fc_id(port.fc_id),
        )
        self._changed.set()
        own = self.ports.get(colon_form(port.port_name))
        if self._memory is not None and own is not None:
            self._memory.keep(own)

    def port_down(self, port: NPort, reason: str) -> None:
        """It has none any more."""
        log.info("%s: %s is down: %s", self._server_of(port), colon_form(port.port_name), reason)

    def _server_of(self, port: NPort) -> InterfaceServer | None:
        found = self.ports.get(colon_form(port.port_name))
        return found.server if found is not None else None

    # changes while it runs

    def target_added(self, target: TargetDevice) -> None:
        """See :class:`tcm.fabric.Fabric`. It is on the first interface without a target, or else on the last."""
        if not self.interfaces:
            return
        taken = {port.server for port in self.ports.values()}
        server = next((each for each in self.interfaces if each not in taken), self.interfaces[-1])
        if self._options.mode == "p2p" and server in taken:
            log.error("%s is not served: in mode p2p an interface has one port, and all are taken", target.name)
            return
        port = self.ports[target.name] = TargetPort(target, server, self._options)
        port.update()

    def target_removed(self, target: TargetDevice) -> None:
        """See :class:`tcm.fabric.Fabric`."""
        port = self.ports.pop(target.name, None)
        if port is not None:
            port.remove()

    def portal_group_added(self, group: TargetPortalGroup) -> None:
        """See :class:`tcm.fabric.Fabric`."""
        self._update(group)

    def portal_group_removed(self, group: TargetPortalGroup) -> None:
        """See :class:`tcm.fabric.Fabric`."""
        self._update(group)

    def portal_group_enabled(self, group: TargetPortalGroup) -> None:
        """See :class:`tcm.fabric.Fabric`."""
        self._update(group)

    def _update(self, group: TargetPortalGroup) -> None:
        port = self.ports.get(group.target.name)
        if port is not None:
            port.update()

    def node_acl_added(self, group: TargetPortalGroup, acl: NodeAcl) -> None:
        """See :class:`tcm.fabric.Fabric`: whoever was refused is told to come again."""
        port = self.ports.get(group.target.name)
        if port is not None:
            port.admit(acl.initiator_name)

    def demo_mode_entered(self, group: TargetPortalGroup) -> None:
        """See :class:`tcm.fabric.Fabric`: likewise."""
        port = self.ports.get(group.target.name)
        if port is not None:
            port.admit(None)

    def drop(self, nexus: ITNexus) -> None:
        """See :class:`tcm.fabric.Fabric`: LOGO."""
        port = self.ports.get(nexus.target_portal_group.target.name)
        if port is None:
            nexus.lose()
        else:
            port.drop(nexus)

    def request_logout(self, nexus: ITNexus, seconds: float) -> None:
        """See :class:`tcm.fabric.Fabric`. FCP cannot ask: LOGO, after the last command, is what there is (FC-LS-2 6.7)."""
        del seconds
        port = self.ports.get(nexus.target_portal_group.target.name)
        if port is not None:
            port.request_logout(nexus)

    # what there is

    def endpoints(self) -> Sequence[Endpoint]:
        """A URL per LUN."""
        found = []
        for target in self._targets:
            port = self.ports.get(target.name)
            group = port.group if port is not None else None
            if port is None or group is None:
                continue
            interface = port.server.link.name
            for lun in sorted(group.luns):
                url = f"fcoe://{interface}/{target.name}/{lun}"
                found.append(Endpoint(url, self._hints(interface, target.name, lun, port.server.station.vlan)))
        return found

    def _hints(self, interface: str, name: str, lun: int, vlan: int | None) -> tuple[str, ...]:
        mode = self._options.mode
        own = f"tcm's own:   python -m tcm_fcoe.initiator inquire --mode {_peer(mode)}" + (f" --vlan {vlan}" if vlan else "")
        if interface.startswith(_UNIX):
            ours, _, theirs = interface.removeprefix(_UNIX).partition(",")
            return (f"{own} fcoe://{_UNIX}{theirs},{ours}/{name}/{lun}",)
        where = f"eth1.{vlan}" if vlan else "eth1"  # Linux's kernel does no VLAN discovery, its fcoe-utils do
        tagged = f"ip link add link eth1 name {where} type vlan id {vlan}; ip link set {where} up; " if vlan else ""
        return (
            f"Linux:       modprobe fcoe; {tagged}echo {where} > /sys/module/libfcoe/parameters/{CREATE[mode]}",
            "             (on the initiator; eth1: its interface on the same segment)",
            f"{own} fcoe://eth1/{name}/{lun}",
        )

    async def drain(self) -> None:
        """Log out of every remote port and fabric; nobody has to answer."""
        async with anyio.create_task_group() as tasks:
            for server in self.interfaces:
                tasks.start_soon(server.stop)

    def sessions(self) -> Sequence[str]:
        """One line per initiator."""
        return [
            f"{nexus.port.nexus.initiator_port.name} (FC_ID {format_fc_id(nexus.d_id)}) to {name} on {port.server}"
            for name, port in self.ports.items()
            for nexus in port.fcp.nexuses.values()
        ]

    def hbas(self) -> Sequence[str]:
        """One line per HBA that has registered with a switch of ours (mode ``fcf``)."""
        controllers = [(server, server.station.controller) for server in self.interfaces]
        return [
            f"{server}: {hba.describe()}"
            for server, controller in controllers
            if isinstance(controller, FcfController)
            for hba in controller.switch.fdmi.hbas.values()
        ]

    def targets(self) -> Sequence[TargetDevice]:
        """As configured."""
        return self._targets

    def statistics(self) -> FcoeStatistics:
        """Ports, initiators and what interfaces have counted."""
        return self._statistics


def _open_capture(path: str) -> CaptureFile:
    from tcm_fcoe.capture import CaptureFile  # scapy is loaded by those who want it

    try:
        return CaptureFile(path)
    except OSError as e:
        raise ConfigError(f"--fabric fcoe: pcap: {path}: {e.strerror or e}") from None


def _peer(mode: str) -> str:
    """The mode of who talks to us."""
    return "fabric" if mode == "fcf" else mode


def make(targets: Sequence[TargetDevice], options: FcoeOptions) -> FcoeFabric:
    """The fabric. Raises :class:`ConfigError` for a target that is no port name."""
    for target in targets:
        if len(target.portal_groups) > 1:
            raise ConfigError(
                f"{target.name} has {len(target.portal_groups)} portal groups; an N_Port has one, leave the others out"
            )
    return FcoeFabric(targets, options)
