"""SCSI-MIB (RFC 4455), read from the registry: our SCSI target devices are its devices, target portal groups its ports.

Initiator ports of this very process (of the loopback fabric) are its initiator devices.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from tcm.scsi import lun as lun_codec
from tcm.statistics.lio import commands
from tcm.statistics.mib import ZERO_DOT_ZERO, Module, Notification, Oid, Table, columns, constant
from tcm.statistics.mib_edits import acl_index, device_index, port_index, unit_index
from tcm.statistics.mib_writing import STATUS, Writer, unchanging
from tcm.statistics.scsi_mib_initiators import InitiatorTables
from tcm.statistics.scsi_mib_rows import (
    ACTIVE,
    AVAILABLE,
    COUNTER,
    COUNTER_64,
    DEVICE,
    EXPOSED,
    GAUGE,
    IDENTIFIER,
    INSTANCE,
    INTEGER,
    OCTETS,
    SCSI_MIB,
    TARGET_ROLE,
    TICKS,
    TRANSPORTS,
    Authorized,
    DeviceRow,
    Mapped,
    PortRow,
    UnitOfTarget,
    counted,
    device_key,
    device_status,
    group_totals,
    initiator_port_name,
    port_name,
    transport_instance,
    transport_type,
    unit_status,
    units_of,
    wwn_name,
)
from tcm.statistics.scsi_mib_writing import NAME, ScsiWriting
from tcm.target.device_designators import unit_designators

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm.scsi.designators import Designator
    from tcm.statistics.mib_state import MibState
    from tcm.statistics.registry import Statistics
    from tcm.target.device import TargetDevice
    from tcm.target.nexus import ITNexus
    from tcm.target.portal_group import TargetPortalGroup


class ScsiMib:
    """The module's rows.

    :param statistics: where they come from.
    :param state: the indexes they have, and what managers have set.
    """

    def __init__(self, statistics: Statistics, state: MibState) -> None:
        self.statistics = statistics
        self.state = state
        self.indexes = state.indexes
        self.writing = ScsiWriting(statistics, state)
        self.initiators = InitiatorTables(statistics, state)

    # rows

    def _targets(self) -> Iterator[tuple[Oid, TargetDevice]]:
        for target in self.statistics.targets:
            yield (INSTANCE, device_index(self.indexes, target)), target

    def _groups(self) -> Iterator[tuple[Oid, TargetPortalGroup]]:
        for group in self.statistics.groups():
            yield (INSTANCE, device_index(self.indexes, group.target), port_index(self.indexes, group)), group

    def _devices(self) -> Iterator[tuple[Oid, DeviceRow]]:
        for index, target in self._targets():
            yield (
                index,
                DeviceRow(
                    device_key(target),
                    TARGET_ROLE,
                    len(target.portal_groups),
                    transport_type(target.fabric_name),
                    self._transport_pointer(target),
                    target.name.encode(),
                ),
            )
        yield from self.initiators.devices()

    def _ports(self) -> Iterator[tuple[Oid, PortRow]]:
        for index, group in self._groups():
            yield index, PortRow(TARGET_ROLE, transport_instance(self.indexes, group.target), group)
        yield from self.initiators.ports()

    def _transports(self) -> Iterator[tuple[Oid, DeviceRow]]:
        for index, device in self._devices():
            yield (*index, 1), device

    def _authorized(self) -> Iterator[tuple[Oid, Authorized]]:
        for index, group in self._groups():
            for acl in group.node_acls.values():
                yield (*index, acl_index(self.indexes, group, acl)), Authorized(group, acl)

    def _attached(self) -> Iterator[tuple[Oid, ITNexus]]:
        for index, group in self._groups():
            for nexus in group.nexuses:
                yield (*index, nexus.identifier), nexus

    def _units(self) -> Iterator[tuple[Oid, UnitOfTarget]]:
        for index, target in self._targets():
            for each in units_of(target):
                yield (*index, unit_index(self.indexes, each.unit)), each

    def _identifiers(self) -> Iterator[tuple[Oid, Designator]]:
        for index, each in self._units():
            for number, designator in enumerate(unit_designators(each.unit), 1):
                yield (*index, number), designator

    def _maps(self) -> Iterator[tuple[Oid, Mapped]]:
        for index, target in self._targets():
            for group in target.portal_groups.values():
                for acl in group.node_acls.values():
                    for mapped in acl.mapped_luns.values():
                        where = (*index, acl_index(self.indexes, group, acl), *lun_codec.encode(mapped.number))
                        yield where, Mapped(group, acl, mapped)

    def _transport_pointer(self, target: TargetDevice) -> Oid:
        own = self.statistics.of_fabric(target.fabric_name)
        return own.transport_row(target, device_index(self.indexes, target)) if own is not None else ZERO_DOT_ZERO

    def _authorized_index(self, nexus: ITNexus) -> int:
        """0 if the node ACL is gone."""
        group = nexus.target_portal_group
        acl = group.node_acls.get(nexus.initiator_port.name)
        return acl_index(self.indexes, group, acl) if acl is not None else 0

    # tables

    def module(self) -> Module:
        """The whole of it."""
        devices = self._target_devices()
        units = self._logical_units()

        def enabled() -> bool:
            return bool(self.state.own["notifications"])

        return Module(
            "SCSI-MIB",
            SCSI_MIB,
            (*self._general(), *self.initiators.tables(), *devices, *units),
            (
                Notification(
                    "scsiTgtDeviceStatusChanged",
                    (*SCSI_MIB, 0, 0, 1),
                    devices[0],
                    "scsiTgtDeviceStatus",
                    ("scsiTgtDeviceStatus",),
                    tells=lambda status: status != AVAILABLE,
                    each=True,
                    enabled=enabled,
                ),
                Notification(
                    "scsiLuStatusChanged",
                    (*SCSI_MIB, 0, 0, 2),
                    units[0],
                    "scsiLuStatus",
                    ("scsiLuStatus",),
                    each=True,
                    enabled=enabled,
                ),
            ),
        )

    def _general(self) -> tuple[Table, ...]:
        general = (*SCSI_MIB, 2, 1)
        version = f"tcm {importlib.metadata.version('tcm-target')}".encode()
        writing, state = self.writing, self.state
        return (
            Table(
                "scsiInstanceTable",
                (*general, 1),
                lambda: [((INSTANCE,), state)],
                columns(
                    (2, "scsiInstAlias", OCTETS, lambda row: row.own["alias"].encode(), writing.instance_alias),
                    (3, "scsiInstSoftwareIndex", INTEGER, constant(0)),
                    (4, "scsiInstVendorVersion", OCTETS, constant(version)),
                    (
                        5,
                        "scsiInstScsiNotificationsEnable",
                        INTEGER,
                        lambda row: 1 if row.own["notifications"] else 2,
                        writing.notifications,
                    ),
                    (6, "scsiInstStorageType", INTEGER, lambda row: row.storage, writing.storage),
                ),
            ),
            Table(
                "scsiDeviceTable",
                (*general, 2),
                self._devices,
                columns(
                    (
                        2,
                        "scsiDeviceAlias",
                        OCTETS,
                        lambda row: state.own["aliases"].get(row.key, "").encode(),
                        writing.device_alias,
                    ),
                    (3, "scsiDeviceRole", OCTETS, lambda row: row.role),
                    (4, "scsiDevicePortNumber", GAUGE, lambda row: row.ports),
                ),
            ),
            Table(
                "scsiPortTable",
                (*general, 3),
                self._ports,
                columns(
                    (2, "scsiPortRole", OCTETS, lambda row: row.role),
                    (3, "scsiPortTransportPtr", IDENTIFIER, lambda row: row.transport),
                    (4, "scsiPortBusyStatuses", COUNTER, lambda row: row.group.busy_statuses if row.group else None),
                ),
            ),
            Table(
                "scsiTransportTable",
                TRANSPORTS,
                self._transports,
                columns(
                    (2, "scsiTransportType", IDENTIFIER, lambda row: row.transport),
                    (3, "scsiTransportPointer", IDENTIFIER, lambda row: row.pointer),
                    (4, "scsiTransportDevName", OCTETS, lambda row: row.name),
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
                    (3, "scsiAuthIntrDevOrPort", INTEGER, constant(DEVICE), unchanging(choices=frozenset({1, 2, 3}))),
                    (
                        4,
                        "scsiAuthIntrName",
                        OCTETS,
                        lambda row: row.acl.initiator_name.encode(),
                        Writer(None, 0, NAME, text=True),
                    ),
                    (
                        5,
                        "scsiAuthIntrLunMapIndex",
                        GAUGE,
                        lambda row: acl_index(self.indexes, row.group, row.acl),
                        unchanging(),
                    ),
                    (6, "scsiAuthIntrAttachedTimes", COUNTER, lambda row: row.acl.attached),
                    *counted("scsiAuthIntr", 7, initiator=True),
                    (10, "scsiAuthIntrHSOutCommands", COUNTER_64, lambda row: commands(row.totals())),
                    (11, "scsiAuthIntrLastCreation", TICKS, lambda row: row.acl.created),
                    (12, "scsiAuthIntrRowStatus", INTEGER, constant(ACTIVE), STATUS),
                ),
                self.writing.authorized,
            ),
            Table(
                "scsiAttIntrPortTable",
                (*device, 3, 2),
                self._attached,
                columns(
                    (2, "scsiAttIntrPortAuthIntrIdx", GAUGE, self._authorized_index),
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
                    (3, "scsiLuWwnName", OCTETS, lambda row: wwn_name(row.unit)),
                    (4, "scsiLuVendorId", OCTETS, lambda row: row.unit.identity.vendor.encode()),
                    (5, "scsiLuProductId", OCTETS, lambda row: row.unit.identity.product.encode()),
                    (6, "scsiLuRevisionId", OCTETS, lambda row: row.unit.identity.revision.encode()),
                    (7, "scsiLuPeripheralType", GAUGE, constant(0)),
                    (8, "scsiLuStatus", INTEGER, lambda row: unit_status(row.unit)),
                    (9, "scsiLuState", OCTETS, constant(EXPOSED)),
                    *counted("scsiLu", 10),
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
                    (
                        3,
                        "scsiLunMapLuIndex",
                        GAUGE,
                        lambda row: unit_index(self.indexes, row.mapped.lun.logical_unit),
                        self.writing.map_unit,
                    ),
                    (4, "scsiLunMapRowStatus", INTEGER, constant(ACTIVE), STATUS),
                ),
                self.writing.maps,
            ),
        )
