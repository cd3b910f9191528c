"""SCSI-MIB's tables of initiator devices (RFC 4455 clause 9): the initiator ports that a fabric has in this very process.

Each of their names is a device of one port; the target ports that it is logged in to are what it has discovered.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm.scsi import lun as lun_codec
from tcm.statistics.lio import commands
from tcm.statistics.mib import ZERO_DOT_ZERO, Oid, Table, columns, constant
from tcm.statistics.mib_edits import port_index
from tcm.statistics.scsi_mib_rows import (
    ACTIVE,
    COUNTER,
    COUNTER_64,
    FALSE,
    GAUGE,
    INITIATOR_ROLE,
    INSTANCE,
    INTEGER,
    OCTETS,
    PORT,
    SCSI_MIB,
    TICKS,
    TRANSPORTS,
    TRUE,
    Authorized,
    DeviceRow,
    PortRow,
    port_name,
    transport_type,
)
from tcm.target.device_designators import unit_designators
from tcm.target.nexus import ITNexus
from tcm.target.portal_group import TargetPortalGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm.scsi.designators import Designator
    from tcm.statistics.mib_state import MibState
    from tcm.statistics.registry import Statistics
    from tcm.target.nexus import ITLNexus

_INITIATOR = (*SCSI_MIB, 2, 2)
_REMOTE = (*_INITIATOR, 3)
_PORT = 1
"""scsiPortIndex of an initiator device's only port."""
_AUTO_ENABLE = 2
"""scsiIntrDevTgtAccessMode: what is discovered may be used at once."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """A target port that an initiator port is logged in to."""

    group: TargetPortalGroup
    nexuses: list[ITNexus]

    def totals(self) -> Counter[str]:
        """What the initiator has done there since it is known there."""
        acl = self.group.node_acls.get(self.nexuses[0].initiator_port.name)
        return Authorized(self.group, acl).totals() if acl is not None else Counter()

    @property
    def created(self) -> float:
        """On the monotonic clock."""
        acl = self.group.node_acls.get(self.nexuses[0].initiator_port.name)
        return acl.created if acl is not None else min(each.established for each in self.nexuses)


@dataclass(frozen=True, slots=True)
class InitiatorDevice:
    """Initiator ports of one name."""

    fabric: str
    name: str
    resets: int
    discovered: list[Discovered]

    @property
    def key(self) -> str:
        """What its alias is kept under, and its index."""
        return f"{self.fabric} initiator {self.name}"

    def totals(self) -> Counter[str]:
        """At all targets."""
        found: Counter[str] = Counter()
        for each in self.discovered:
            found += each.totals()
        return found


class InitiatorTables:
    """Those of initiator devices."""

    def __init__(self, statistics: Statistics, state: MibState) -> None:
        self._statistics = statistics
        self._indexes = state.indexes

    # rows

    def _initiators(self) -> Iterator[tuple[Oid, InitiatorDevice]]:
        for name in self._statistics.fabrics:
            own = self._statistics.of_fabric(name)
            for row in own.initiators() if own is not None else ():
                device = InitiatorDevice(name, row.name, row.resets, self._discovered(name, row.name))
                yield (INSTANCE, self._indexes.of("device", device.key)), device

    def _discovered(self, fabric: str, name: str) -> list[Discovered]:
        found = []
        for group in self._statistics.groups():
            if group.target.fabric_name == fabric:
                nexuses = [each for each in group.nexuses if each.initiator_port.name == name]
                if nexuses:
                    found.append(Discovered(group, nexuses))
        return found

    def devices(self) -> Iterator[tuple[Oid, DeviceRow]]:
        """Of scsiDeviceTable."""
        for index, device in self._initiators():
            transport = transport_type(device.fabric)
            yield index, DeviceRow(device.key, INITIATOR_ROLE, 1, transport, ZERO_DOT_ZERO, device.name.encode())

    def ports(self) -> Iterator[tuple[Oid, PortRow]]:
        """Of scsiPortTable."""
        for index, _ in self._initiators():
            yield (*index, _PORT), PortRow(INITIATOR_ROLE, (*TRANSPORTS, 1, 2, *index, 1), None)

    def _ports(self) -> Iterator[tuple[Oid, InitiatorDevice]]:
        for index, device in self._initiators():
            yield (*index, _PORT), device

    def _targets(self) -> Iterator[tuple[Oid, Discovered]]:
        for index, device in self._ports():
            for each in device.discovered:
                yield (*index, port_index(self._indexes, each.group)), each

    def _luns(self) -> Iterator[tuple[Oid, ITLNexus]]:
        for index, target in self._targets():
            for itl in target.nexuses[0].luns.values():
                yield (*index, itl.lun_number + 1), itl

    def _identifiers(self) -> Iterator[tuple[Oid, Designator]]:
        for index, itl in self._luns():
            for number, designator in enumerate(unit_designators(itl.exported.logical_unit), 1):
                yield (*index, number), designator

    def _attached(self) -> Iterator[tuple[Oid, ITNexus]]:
        for index, device in self._ports():
            for each in device.discovered:
                for nexus in each.nexuses:
                    yield (*index, nexus.identifier), nexus

    # tables

    def tables(self) -> tuple[Table, ...]:
        """All of them."""
        return (
            Table(
                "scsiIntrDevTable",
                (*_INITIATOR, 1),
                self._initiators,
                columns(
                    (1, "scsiIntrDevTgtAccessMode", INTEGER, constant(_AUTO_ENABLE)),
                    (2, "scsiIntrDevOutResets", COUNTER, lambda row: row.resets),
                ),
            ),
            Table(
                "scsiIntrPortTable",
                (*_INITIATOR, 2),
                self._ports,
                columns(
                    (1, "scsiIntrPortName", OCTETS, lambda row: row.name.encode()),
                    (2, "scsiIntrPortIdentifier", OCTETS, constant(b"")),
                    (3, "scsiIntrPortOutCommands", COUNTER, lambda row: commands(row.totals())),
                    (4, "scsiIntrPortWrittenMegaBytes", COUNTER, lambda row: row.totals()["write_bytes"] >> 20),
                    (5, "scsiIntrPortReadMegaBytes", COUNTER, lambda row: row.totals()["read_bytes"] >> 20),
                    (6, "scsiIntrPortHSOutCommands", COUNTER_64, lambda row: commands(row.totals())),
                ),
            ),
            Table(
                "scsiDscTgtTable",
                (*_REMOTE, 1),
                self._targets,
                columns(
                    (3, "scsiDscTgtDevOrPort", INTEGER, constant(PORT)),
                    (4, "scsiDscTgtName", OCTETS, lambda row: port_name(row.group)),
                    (5, "scsiDscTgtConfigured", INTEGER, constant(FALSE)),
                    (6, "scsiDscTgtDiscovered", INTEGER, constant(TRUE)),
                    (7, "scsiDscTgtInCommands", COUNTER, lambda row: commands(row.totals())),
                    (8, "scsiDscTgtWrittenMegaBytes", COUNTER, lambda row: row.totals()["write_bytes"] >> 20),
                    (9, "scsiDscTgtReadMegaBytes", COUNTER, lambda row: row.totals()["read_bytes"] >> 20),
                    (10, "scsiDscTgtHSInCommands", COUNTER_64, lambda row: commands(row.totals())),
                    (11, "scsiDscTgtLastCreation", TICKS, lambda row: row.created),
                    (12, "scsiDscTgtRowStatus", INTEGER, constant(ACTIVE)),
                ),
            ),
            Table(
                "scsiDscLunTable",
                (*_REMOTE, 2),
                self._luns,
                columns((2, "scsiDscLunLun", OCTETS, lambda itl: lun_codec.encode(itl.lun_number))),
            ),
            Table(
                "scsiDscLunIdTable",
                (*_REMOTE, 3),
                self._identifiers,
                columns(
                    (2, "scsiDscLunIdCodeSet", GAUGE, lambda designator: int(designator.code_set)),
                    (3, "scsiDscLunIdAssociation", GAUGE, lambda designator: int(designator.association)),
                    (4, "scsiDscLunIdType", GAUGE, lambda designator: int(designator.type)),
                    (5, "scsiDscLunIdValue", OCTETS, lambda designator: designator.data),
                ),
            ),
            Table(
                "scsiAttTgtPortTable",
                (*_REMOTE, 4),
                self._attached,
                columns(
                    (
                        2,
                        "scsiAttTgtPortDscTgtIdx",
                        GAUGE,
                        lambda nexus: port_index(self._indexes, nexus.target_portal_group),
                    ),
                    (3, "scsiAttTgtPortName", OCTETS, lambda nexus: port_name(nexus.target_portal_group)),
                    (4, "scsiAttTgtPortIdentifier", OCTETS, constant(b"")),
                ),
            ),
        )
