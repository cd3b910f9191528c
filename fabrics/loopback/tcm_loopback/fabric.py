"""The loopback fabric: target ports that initiator ports of the same process log in to."""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from typing import TYPE_CHECKING

import anyio

from tcm.fabric import Endpoint, Fabric
from tcm.fabric_statistics import FabricStatistics, InitiatorRow
from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.transport_id import TransportId
from tcm.target.initiator_port import InitiatorPort
from tcm_loopback.attributes import DEFAULT_INITIATOR, LoopbackOptions, check_name
from tcm_loopback.initiator import LoopbackInitiator, TransportDisrupted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anyio.abc import TaskStatus

    from tcm.target.device import TargetDevice
    from tcm.target.nexus import ITNexus
    from tcm.target.portal_group import TargetPortalGroup
    from tcm_loopback.transport import LoopbackTransport


class TransportStatus(enum.Enum):
    """LIO's ``transport_status``."""

    ONLINE = "online"
    OFFLINE = "offline"


class LoopbackPort:
    """The target port of one target portal group (LIO's ``tpgt_N`` of ``tcm_loop``).

    It needs no running fabric: tests make one around a portal group and connect.
    """

    def __init__(self, target_portal_group: TargetPortalGroup, address: str = "0:0:0") -> None:
        self.target_portal_group = target_portal_group
        self.address = address
        """``host:channel:target``."""
        self.initiators: list[LoopbackInitiator] = []
        self._transport_status = TransportStatus.ONLINE

    @property
    def transport_status(self) -> TransportStatus:
        """OFFLINE loses every nexus, and no initiator gets one until it is ONLINE again."""
        return self._transport_status

    @transport_status.setter
    def transport_status(self, status: TransportStatus) -> None:
        self._transport_status = status
        if status is TransportStatus.OFFLINE:
            for initiator in self.initiators:
                initiator.disconnect()

    def connect(self, name: str = DEFAULT_INITIATOR, *, express: bool = False) -> LoopbackInitiator:
        """A new initiator port, logged in.

        Raises :class:`ConfigError` for a name that is none, :class:`TransportDisrupted` when offline, and
        :class:`tcm.target.portal_group.NexusRefused` if the portal group does not admit it.
        """
        name = check_name(name)
        port = InitiatorPort(
            name=name,
            isid=None,
            transport_id=TransportId(ProtocolIdentifier.SAS, name.removeprefix("naa.")).pack(),
            address="loopback",
        )

        def establish(transport: LoopbackTransport) -> ITNexus:
            if self._transport_status is TransportStatus.OFFLINE:
                raise TransportDisrupted(port.name)
            return self.target_portal_group.establish_nexus(port, transport)

        initiator = LoopbackInitiator(port.name, establish, express=express)
        self.initiators.append(initiator)
        return initiator


class LoopbackStatistics(FabricStatistics):
    """Tells of the initiator ports, which are in this process."""

    def __init__(self, ports: Collection[LoopbackPort]) -> None:
        self._ports = ports

    def initiators(self) -> Sequence[InitiatorRow]:
        """Those that are logged in somewhere."""
        resets: Counter[str] = Counter()
        for port in self._ports:
            for initiator in port.initiators:
                if initiator.nexus is not None:
                    resets[initiator.name] += initiator.resets
        return [InitiatorRow(name=name, resets=count) for name, count in resets.items()]


class LoopbackFabric(Fabric):
    """Serves target devices to initiators in this process. See :meth:`port`."""

    def __init__(self, targets: Sequence[TargetDevice], options: LoopbackOptions) -> None:
        self._targets = targets
        self._options = options
        self._hosts = itertools.count()
        self._host_of: dict[str, int] = {}
        self._ports: dict[tuple[str, int], LoopbackPort] = {}
        for target in targets:
            self.target_added(target)
            for _, group in sorted(target.portal_groups.items()):
                self.portal_group_added(group)

    def port(self, target: str | None = None, tag: int = 1) -> LoopbackPort:
        """The target port of a target (the first one, if None) and its portal group. Raises KeyError."""
        return self._ports[target or self._targets[0].name, tag]

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Log the initiator port named in the options in to every portal group, and serve until cancelled."""
        try:
            for port in self._ports.values():
                port.transport_status = TransportStatus.ONLINE
                if self._options.nexus:
                    port.connect(self._options.nexus)
            task_status.started()
            await anyio.sleep_forever()
        finally:
            await self.drain()

    def endpoints(self) -> Sequence[Endpoint]:
        return [
            Endpoint(f"loopback://{name}/{tag}/{lun}", ("no network: only initiator ports in this process reach it",))
            for (name, tag), port in self._ports.items()
            for lun in sorted(port.target_portal_group.luns)
        ]

    async def drain(self) -> None:
        """Take every port offline. Nobody is asked: the initiators live in this process."""
        for port in self._ports.values():
            port.transport_status = TransportStatus.OFFLINE

    def sessions(self) -> Sequence[str]:
        return [
            f"{initiator.name} to {name} tag {tag} at {port.address}"
            for (name, tag), port in self._ports.items()
            for initiator in port.initiators
            if initiator.nexus is not None
        ]

    def targets(self) -> Sequence[TargetDevice]:
        return tuple(self._targets)

    def statistics(self) -> FabricStatistics:
        return LoopbackStatistics(self._ports.values())

    # changes while it runs

    def target_added(self, target: TargetDevice) -> None:
        self._host_of[target.name] = next(self._hosts)

    def target_removed(self, target: TargetDevice) -> None:
        del self._host_of[target.name]

    def portal_group_added(self, group: TargetPortalGroup) -> None:
        """Its port has no nexus until somebody connects."""
        name = group.target.name
        self._ports[name, group.tag] = LoopbackPort(group, address=f"{self._host_of[name]}:0:{group.tag}")

    def portal_group_removed(self, group: TargetPortalGroup) -> None:
        self._ports.pop((group.target.name, group.tag)).transport_status = TransportStatus.OFFLINE

    def drop(self, nexus: ITNexus) -> None:
        port = self._ports[nexus.target_portal_group.target.name, nexus.target_portal_group.tag]
        for initiator in [each for each in port.initiators if each.nexus is nexus]:
            initiator.disconnect()
        nexus.lose()
