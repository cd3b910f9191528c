"""Rows of SCSI-MIB (RFC 4455): what its values are made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.statistics.lio import PROTOCOLS, commands, nexuses_of
from tcm.statistics.mib import Oid, Syntax
from tcm.statistics.mib_edits import device_index
from tcm.target.counters import totals
from tcm.target.device_designators import unit_designators
from tcm.target.logical_unit import LogicalUnit
from tcm.target.lun import Lun, MappedLun
from tcm.target.node_acl import NodeAcl
from tcm.target.portal_group import TargetPortalGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from tcm.statistics.mib_state import Indexes
    from tcm.target.device import TargetDevice
    from tcm.target.nexus import ITNexus

SCSI_MIB: Oid = (1, 3, 6, 1, 2, 1, 139)
INSTANCE = 1
"""scsiInstIndex: there is one, the process."""
TARGET_ROLE = b"\x80"
"""BITS: target(0)."""
EXPOSED = b"\x20\x00"
"""BITS of scsiLuState: exposed(2)."""
INITIATOR_ROLE = b"\x40"
"""BITS: initiator(1)."""
TRUE, FALSE, ACTIVE, DEVICE, PORT = 1, 2, 1, 1, 2
"""TruthValue; RowStatus; ScsiDeviceOrPort."""
AVAILABLE = 2
"""ScsiTgtDeviceStatus."""
_TRANSPORT = (*SCSI_MIB, 1, 1, 1)
TRANSPORTS = (*SCSI_MIB, 2, 1, 5)
"""scsiTransportTable."""
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
        return totals_of(self.luns)


@dataclass(frozen=True, slots=True)
class Authorized:
    """A node ACL, and where it is."""

    group: TargetPortalGroup
    acl: NodeAcl

    def totals(self) -> Counter[str]:
        """What the initiator has done at all LUNs."""
        maps = self.acl.mapped_luns
        there = (itl for nexus in nexuses_of(self.group, self.acl) for itl in nexus.luns.values())
        return totals(
            _retired(maps.values()),
            (itl for itl in there if itl.lun_number in maps and itl.exported is maps[itl.lun_number].lun),
        )


@dataclass(frozen=True, slots=True)
class Mapped:
    """A mapped LUN, and whose it is."""

    group: TargetPortalGroup
    acl: NodeAcl
    mapped: MappedLun


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A SCSI device of either role."""

    key: str
    """What its alias is kept under."""
    role: bytes
    ports: int
    transport: Oid
    """Its type."""
    pointer: Oid
    """Where the fabric's own MIB tells of it."""
    name: bytes


@dataclass(frozen=True, slots=True)
class PortRow:
    """A SCSI port of either role."""

    role: bytes
    transport: Oid
    """RowPointer to its device's row of scsiTransportTable."""
    group: TargetPortalGroup | None
    """``None``: of an initiator port nobody counts what ended in BUSY."""


def device_key(target: TargetDevice) -> str:
    """What a target device's alias is kept under."""
    return f"{target.fabric_name} {target.name}"


def group_totals(group: TargetPortalGroup) -> Counter[str]:
    """Of a target port."""
    return totals_of(group.luns.values())


def totals_of(luns: Collection[Lun]) -> Counter[str]:
    """Of some LUNs together: there may be thousands."""
    there = ((lun, itl) for lun in luns for itl in lun.logical_unit.itl_nexuses)
    return totals(_retired(luns), (itl for lun, itl in there if itl.exported is lun))


def _retired(places: Iterable[Lun | MappedLun]) -> Counter[str]:
    found: Counter[str] = Counter()
    for place in places:
        found.update(place.retired)
    return found


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


def wwn_name(unit: LogicalUnit) -> bytes:
    """ScsiLuNameOrZero has eight bytes, or none; names of sixteen, such as ours, stand in scsiLuIdTable only."""
    name = unit_designators(unit)[0].data
    return name if len(name) == 8 else b""


def device_status(target: TargetDevice) -> int:
    """ScsiTgtDeviceStatus: available(2) if all its units are, broken(3) if all are broken, abnormal(5) otherwise."""
    # of all portal groups: a unit that is there twice has one status
    statuses = {unit_status(lun.logical_unit) for group in target.portal_groups.values() for lun in group.luns.values()}
    return 2 if statuses <= {2} else 3 if statuses == {4} else 5


def transport_type(fabric_name: str) -> Oid:
    """One of scsiTransportTypes."""
    return (*_TRANSPORT, TRANSPORT_TYPES.get(PROTOCOLS.get(fabric_name, ProtocolIdentifier.NONE), 1))


def transport_instance(indexes: Indexes, target: TargetDevice) -> Oid:
    """RowPointer to a device's row of scsiTransportTable."""
    return (*TRANSPORTS, 1, 2, INSTANCE, device_index(indexes, target), 1)


def counted(name: str, first: int, *, initiator: bool = False) -> tuple[tuple[int, str, Syntax, Callable[[Any], Any]], ...]:
    """Commands and megabytes of a row that has ``totals()``."""
    reads = (first + 1, f"{name}ReadMegaBytes", COUNTER, lambda row: row.totals()["read_bytes"] >> 20)
    writes = (first + 2, f"{name}WrittenMegaBytes", COUNTER, lambda row: row.totals()["write_bytes"] >> 20)
    out = "Out" if initiator else "In"
    return ((first, f"{name}{out}Commands", COUNTER, lambda row: commands(row.totals())), reads, writes)
