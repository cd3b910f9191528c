"""SCSI-MIB (RFC 4455), read from the registry: our SCSI target devices are its devices, target portal groups its ports.

The tables of SCSI initiator devices are there, and empty.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcm.scsi import lun as lun_codec
from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.statistics.lio import PROTOCOLS, commands, mapped_totals, nexuses_of
from tcm.statistics.mib import ZERO_DOT_ZERO, Module, Notification, Oid, Syntax, Table, columns, constant, nowhere
from tcm.target.device import Lun, NodeAcl, TargetPortalGroup
from tcm.target.device_designators import unit_designators
from tcm.target.logical_unit import LogicalUnit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tcm.scsi.designators import Designator
    from tcm.statistics.registry import Statistics
    from tcm.target.device import MappedLun, TargetDevice
    from tcm.target.nexus import ITNexus

SCSI_MIB: Oid = (1, 3, 6, 1, 2, 1, 139)
INSTANCE = 1
"""scsiInstIndex: there is one, the process."""
TARGET_ROLE = b"\x80"
"""BITS: target(0)."""
EXPOSED = b"\x20\x00"
"""BITS of scsiLuState: exposed(2)."""
TRUE, READ_ONLY, ACTIVE, DEVICE = 1, 5, 1, 1
"""TruthValue; StorageType; RowStatus; ScsiDeviceOrPort."""
_TRANSPORT = (*SCSI_MIB, 1, 1, 1)
TRANSPORT_TYPES = {ProtocolIdentifier.FCP: 3, ProtocolIdentifier.ISCSI: 5, ProtocolIdentifier.SAS: 7}
"""Below scsiTransportTypes; others are scsiTransportOther."""

INTEGER, OCTETS, IDENTIFIER = Syntax.INTEGER, Syntax.OCTET_STRING, Syntax.OBJECT_IDENTIFIER
COUNTER, GAUGE, TICKS, COUNTER_64 = Syntax.COUNTER_32, Syntax.GAUGE_32, Syntax.TIME_TICKS, Syntax.COUNTER_64


@dataclass(frozen=True, slots=True)
class UnitOfTarget:
    """A logical unit as one target device exports it."""

    unit: LogicalUnit
    luns: list[Lun]

    def totals(self) -> Counter[str]:
        """What came by way of this device."""
        return functools.reduce(lambda found, lun: found + lun.totals(), self.luns, Counter())


@dataclass(frozen=True, slots=True)
class Authorized:
    """A node ACL, and where it is."""

    group: TargetPortalGroup
    acl: NodeAcl

    def totals(self) -> Counter[str]:
        """What the initiator has done at all LUNs."""
        nexuses = nexuses_of(self.group, self.acl)
        found: Counter[str] = Counter()
        for mapped in self.acl.mapped_luns.values():
            found += mapped_totals(mapped, nexuses)
        return found


def group_totals(group: TargetPortalGroup) -> Counter[str]:
    """Of a target port."""
    return functools.reduce(lambda found, lun: found + lun.totals(), group.luns.values(), Counter())


def units_of(target: TargetDevice) -> list[UnitOfTarget]:
    """In the order of their indexes."""
    found: dict[int, UnitOfTarget] = {}
    for group in target.portal_groups.values():
        for lun in group.luns.values():
            unit = lun.logical_unit
            found.setdefault(unit.index, UnitOfTarget(unit, [])).luns.append(lun)
    return [found[index] for index in sorted(found)]


def port_name(group: TargetPortalGroup) -> bytes:
    """ScsiName of a target port: for iSCSI the target's name, portal group tag included."""
    target = group.target
    iscsi = PROTOCOLS.get(target.fabric_name) is ProtocolIdentifier.ISCSI
    return (f"{target.name},t,0x{group.tag:04x}" if iscsi else target.name).encode()


def initiator_port_name(nexus: ITNexus) -> bytes:
    """ScsiName of an initiator port, ISID included."""
    port = nexus.initiator_port
    return (f"{port.name},i,0x{port.isid.hex()}" if port.isid else port.name).encode()


def unit_status(unit: LogicalUnit) -> int:
    """ScsiLuStatus: available(2), notAvailable(3), broken(4)."""
    if unit.failed:
        return 4
    return 2 if unit.ready else 3


def _wwn(unit: LogicalUnit) -> bytes:
    """ScsiLuNameOrZero has eight bytes, or none; names of sixteen, such as ours, stand in scsiLuIdTable only."""
    name = unit_designators(unit)[0].data
    return name if len(name) == 8 else b""


def device_status(target: TargetDevice) -> int:
    """ScsiTgtDeviceStatus: available(2) if all its units are, broken(3) if all are broken, abnormal(5) otherwise."""
    statuses = {unit_status(each.unit) for each in units_of(target)}
    return 2 if statuses <= {2} else 3 if statuses == {4} else 5


def transport_type(target: TargetDevice) -> Oid:
    """One of scsiTransportTypes."""
    return (*_TRANSPORT, TRANSPORT_TYPES.get(PROTOCOLS.get(target.fabric_name, ProtocolIdentifier.NONE), 1))


def transport_instance(target: TargetDevice) -> Oid:
    """RowPointer to a device's row of scsiTransportTable."""
    return (*SCSI_MIB, 2, 1, 5, 1, 2, INSTANCE, target.index, 1)


def _counted(name: str, first: int, *, initiator: bool = False) -> tuple[tuple[int, str, Syntax, Callable[[Any], Any]], ...]:
    """Commands and megabytes of a row that has ``totals()``."""
    reads = (first + 1, f"{name}ReadMegaBytes", COUNTER, lambda row: row.totals()["read_bytes"] >> 20)
    writes = (first + 2, f"{name}WrittenMegaBytes", COUNTER, lambda row: row.totals()["write_bytes"] >> 20)
    out = "Out" if initiator else "In"
    return ((first, f"{name}{out}Commands", COUNTER, lambda row: commands(row.totals())), reads, writes)


class ScsiMib:
    """The module's rows.

    :param statistics: where they come from.
    """

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics

    # rows

    def _targets(self) -> Iterator[tuple[Oid, TargetDevice]]:
        for target in self.statistics.targets:
            yield (INSTANCE, target.index), target

    def _groups(self) -> Iterator[tuple[Oid, TargetPortalGroup]]:
        for group in self.statistics.groups():
            yield (INSTANCE, group.target.index, group.relative_target_port_identifier), group

    def _transports(self) -> Iterator[tuple[Oid, TargetDevice]]:
        for index, target in self._targets():
            yield (*index, 1), target

    def _authorized(self) -> Iterator[tuple[Oid, Authorized]]:
        for index, group in self._groups():
            for acl in group.node_acls.values():
                yield (*index, acl.index), Authorized(group, acl)

    def _attached(self) -> Iterator[tuple[Oid, ITNexus]]:
        for index, group in self._groups():
            for nexus in group.nexuses:
                yield (*index, nexus.identifier), nexus

    def _units(self) -> Iterator[tuple[Oid, UnitOfTarget]]:
        for index, target in self._targets():
            for each in units_of(target):
                yield (*index, each.unit.index), each

    def _identifiers(self) -> Iterator[tuple[Oid, Designator]]:
        for index, each in self._units():
            for number, designator in enumerate(unit_designators(each.unit), 1):
                yield (*index, number), designator

    def _maps(self) -> Iterator[tuple[Oid, MappedLun]]:
        for index, target in self._targets():
            for group in target.portal_groups.values():
                for acl in group.node_acls.values():
                    for mapped in acl.mapped_luns.values():
                        yield (*index, acl.index, *lun_codec.encode(mapped.number)), mapped

    def _transport_pointer(self, target: TargetDevice) -> Oid:
        own = self.statistics.of_fabric(target.fabric_name)
        return own.transport_row(target) if own is not None else ZERO_DOT_ZERO

    # tables

    def module(self) -> Module:
        """The whole of it."""
        devices = self._target_devices()
        units = self._logical_units()
        return Module(
            "SCSI-MIB",
            SCSI_MIB,
            (*self._general(), *INITIATOR_TABLES, *devices, *units),
            (
                Notification(
                    "scsiTgtDeviceStatusChanged",
                    (*SCSI_MIB, 0, 0, 1),
                    devices[0],
                    "scsiTgtDeviceStatus",
                    ("scsiTgtDeviceStatus",),
                ),
                Notification("scsiLuStatusChanged", (*SCSI_MIB, 0, 0, 2), units[0], "scsiLuStatus", ("scsiLuStatus",)),
            ),
        )

    def _general(self) -> tuple[Table, ...]:
        general = (*SCSI_MIB, 2, 1)
        version = f"tcm {importlib.metadata.version('tcm-target')}".encode()
        return (
            Table(
                "scsiInstanceTable",
                (*general, 1),
                lambda: [((INSTANCE,), None)],
                columns(
                    (2, "scsiInstAlias", OCTETS, constant(b"")),
                    (3, "scsiInstSoftwareIndex", INTEGER, constant(0)),
                    (4, "scsiInstVendorVersion", OCTETS, constant(version)),
                    (5, "scsiInstScsiNotificationsEnable", INTEGER, constant(TRUE)),
                    (6, "scsiInstStorageType", INTEGER, constant(READ_ONLY)),
                ),
            ),
            Table(
                "scsiDeviceTable",
                (*general, 2),
                self._targets,
                columns(
                    (2, "scsiDeviceAlias", OCTETS, constant(b"")),
                    (3, "scsiDeviceRole", OCTETS, constant(TARGET_ROLE)),
                    (4, "scsiDevicePortNumber", GAUGE, lambda target: len(target.portal_groups)),
                ),
            ),
            Table(
                "scsiPortTable",
                (*general, 3),
                self._groups,
                columns(
                    (2, "scsiPortRole", OCTETS, constant(TARGET_ROLE)),
                    (3, "scsiPortTransportPtr", IDENTIFIER, lambda group: transport_instance(group.target)),
                    (4, "scsiPortBusyStatuses", COUNTER, lambda group: group.busy_statuses),
                ),
            ),
            Table(
                "scsiTransportTable",
                (*general, 5),
                self._transports,
                columns(
                    (2, "scsiTransportType", IDENTIFIER, transport_type),
                    (3, "scsiTransportPointer", IDENTIFIER, self._transport_pointer),
                    (4, "scsiTransportDevName", OCTETS, lambda target: target.name.encode()),
                ),
            ),
        )

    def _target_devices(self) -> tuple[Table, ...]:
        device = (*SCSI_MIB, 2, 3)
        return (
            Table(
                "scsiTgtDevTable",
                (*device, 1),
                self._targets,
                columns(
                    (1, "scsiTgtDevNumberOfLUs", GAUGE, lambda target: len(units_of(target))),
                    (2, "scsiTgtDeviceStatus", INTEGER, device_status),
                    (
                        3,
                        "scsiTgtDevNonAccessibleLUs",
                        GAUGE,
                        lambda target: sum(not each.unit.ready for each in units_of(target)),
                    ),
                    (4, "scsiTgtDevResets", COUNTER, lambda target: target.resets),
                ),
            ),
            Table(
                "scsiTgtPortTable",
                (*device, 2),
                self._groups,
                columns(
                    (1, "scsiTgtPortName", OCTETS, port_name),
                    (2, "scsiTgtPortIdentifier", OCTETS, constant(b"")),
                    (3, "scsiTgtPortInCommands", COUNTER, lambda group: commands(group_totals(group))),
                    (4, "scsiTgtPortWrittenMegaBytes", COUNTER, lambda group: group_totals(group)["write_bytes"] >> 20),
                    (5, "scsiTgtPortReadMegaBytes", COUNTER, lambda group: group_totals(group)["read_bytes"] >> 20),
                    (6, "scsiTgtPortHSInCommands", COUNTER_64, lambda group: commands(group_totals(group))),
                ),
            ),
            Table(
                "scsiAuthorizedIntrTable",
                (*device, 3, 1),
                self._authorized,
                columns(
                    (3, "scsiAuthIntrDevOrPort", INTEGER, constant(DEVICE)),
                    (4, "scsiAuthIntrName", OCTETS, lambda row: row.acl.initiator_name.encode()),
                    (5, "scsiAuthIntrLunMapIndex", GAUGE, lambda row: row.acl.index),
                    (6, "scsiAuthIntrAttachedTimes", COUNTER, lambda row: row.acl.attached),
                    *_counted("scsiAuthIntr", 7, initiator=True),
                    (10, "scsiAuthIntrHSOutCommands", COUNTER_64, lambda row: commands(row.totals())),
                    (11, "scsiAuthIntrLastCreation", TICKS, lambda row: row.acl.created),
                    (12, "scsiAuthIntrRowStatus", INTEGER, constant(ACTIVE)),
                ),
            ),
            Table(
                "scsiAttIntrPortTable",
                (*device, 3, 2),
                self._attached,
                columns(
                    (2, "scsiAttIntrPortAuthIntrIdx", GAUGE, _authorized_index),
                    (3, "scsiAttIntrPortName", OCTETS, initiator_port_name),
                    (4, "scsiAttIntrPortIdentifier", OCTETS, constant(b"")),
                ),
            ),
        )

    def _logical_units(self) -> tuple[Table, ...]:
        units = (*SCSI_MIB, 2, 4)
        return (
            Table(
                "scsiLuTable",
                (*units, 1),
                self._units,
                columns(
                    (2, "scsiLuDefaultLun", OCTETS, lambda row: lun_codec.encode(min(lun.number for lun in row.luns))),
                    (3, "scsiLuWwnName", OCTETS, lambda row: _wwn(row.unit)),
                    (4, "scsiLuVendorId", OCTETS, lambda row: row.unit.identity.vendor.encode()),
                    (5, "scsiLuProductId", OCTETS, lambda row: row.unit.identity.product.encode()),
                    (6, "scsiLuRevisionId", OCTETS, lambda row: row.unit.identity.revision.encode()),
                    (7, "scsiLuPeripheralType", GAUGE, constant(0)),
                    (8, "scsiLuStatus", INTEGER, lambda row: unit_status(row.unit)),
                    (9, "scsiLuState", OCTETS, constant(EXPOSED)),
                    *_counted("scsiLu", 10),
                    (13, "scsiLuInResets", COUNTER, lambda row: row.unit.resets),
                    (14, "scsiLuOutTaskSetFullStatus", COUNTER, lambda row: row.unit.task_set_full_statuses),
                    (15, "scsiLuHSInCommands", COUNTER_64, lambda row: commands(row.totals())),
                    (16, "scsiLuLastCreation", TICKS, lambda row: row.unit.created),
                ),
            ),
            Table(
                "scsiLuIdTable",
                (*units, 2),
                self._identifiers,
                columns(
                    (2, "scsiLuIdCodeSet", GAUGE, lambda designator: int(designator.code_set)),
                    (3, "scsiLuIdAssociation", GAUGE, lambda designator: int(designator.association)),
                    (4, "scsiLuIdType", GAUGE, lambda designator: int(designator.type)),
                    (5, "scsiLuIdValue", OCTETS, lambda designator: designator.data),
                ),
            ),
            Table(
                "scsiLunMapTable",
                (*units, 3),
                self._maps,
                columns(
                    (3, "scsiLunMapLuIndex", GAUGE, lambda mapped: mapped.lun.logical_unit.index),
                    (4, "scsiLunMapRowStatus", INTEGER, constant(ACTIVE)),
                ),
            ),
        )


def _authorized_index(nexus: ITNexus) -> int:
    """0 if the node ACL is gone."""
    acl = nexus.target_portal_group.node_acls.get(nexus.initiator_port.name)
    return acl.index if acl is not None else 0


_INITIATOR = (*SCSI_MIB, 2, 2)
_REMOTE = (*_INITIATOR, 3)
INITIATOR_TABLES = (
    nowhere(
        "scsiIntrDevTable", (*_INITIATOR, 1), ((1, "scsiIntrDevTgtAccessMode", INTEGER), (2, "scsiIntrDevOutResets", COUNTER))
    ),
    nowhere(
        "scsiIntrPortTable",
        (*_INITIATOR, 2),
        (
            (1, "scsiIntrPortName", OCTETS),
            (2, "scsiIntrPortIdentifier", OCTETS),
            (3, "scsiIntrPortOutCommands", COUNTER),
            (4, "scsiIntrPortWrittenMegaBytes", COUNTER),
            (5, "scsiIntrPortReadMegaBytes", COUNTER),
            (6, "scsiIntrPortHSOutCommands", COUNTER_64),
        ),
    ),
    nowhere(
        "scsiDscTgtTable",
        (*_REMOTE, 1),
        (
            (3, "scsiDscTgtDevOrPort", INTEGER),
            (4, "scsiDscTgtName", OCTETS),
            (5, "scsiDscTgtConfigured", INTEGER),
            (6, "scsiDscTgtDiscovered", INTEGER),
            (7, "scsiDscTgtInCommands", COUNTER),
            (8, "scsiDscTgtWrittenMegaBytes", COUNTER),
            (9, "scsiDscTgtReadMegaBytes", COUNTER),
            (10, "scsiDscTgtHSInCommands", COUNTER_64),
            (11, "scsiDscTgtLastCreation", TICKS),
            (12, "scsiDscTgtRowStatus", INTEGER),
        ),
    ),
    nowhere("scsiDscLunTable", (*_REMOTE, 2), ((2, "scsiDscLunLun", OCTETS),)),
    nowhere(
        "scsiDscLunIdTable",
        (*_REMOTE, 3),
        (
            (2, "scsiDscLunIdCodeSet", GAUGE),
            (3, "scsiDscLunIdAssociation", GAUGE),
            (4, "scsiDscLunIdType", GAUGE),
            (5, "scsiDscLunIdValue", OCTETS),
        ),
    ),
    nowhere(
        "scsiAttTgtPortTable",
        (*_REMOTE, 4),
        (
            (2, "scsiAttTgtPortDscTgtIdx", GAUGE),
            (3, "scsiAttTgtPortName", OCTETS),
            (4, "scsiAttTgtPortIdentifier", OCTETS),
        ),
    ),
)
