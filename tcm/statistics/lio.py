"""LIO's ``statistics/`` directories of devices, LUNs and mapped LUNs, as SCSI-MIB has them (lio-configfs 3.6 and 4.3)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from tcm.fabric_statistics import LioGroup
from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.target.access_metadata import FABRICS
from tcm.target.counters import totals

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.lun import Lun, MappedLun
    from tcm.target.nexus import ITNexus
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import TargetPortalGroup

PROTOCOLS = {
    "iscsi": ProtocolIdentifier.ISCSI,
    "fcoe": ProtocolIdentifier.FCP,
    "loopback": ProtocolIdentifier.SAS,
}
"""SPC-5 table 453, by the names of our fabrics."""


def commands(counted: Counter[str]) -> int:
    """Of all kinds."""
    return counted["read_cmds"] + counted["write_cmds"] + counted["other_cmds"]


def hundredths(moment: float) -> int:
    """A moment of the monotonic clock as LIO writes it: in 1/100 s since the machine's start."""
    return int(moment * 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiDev(LioGroup):
    """``scsi_dev/``."""

    GROUP: ClassVar[str] = "scsi_dev"
    inst: int
    indx: int
    role: str
    ports: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiTgtDev(LioGroup):
    """``scsi_tgt_dev/``."""

    GROUP: ClassVar[str] = "scsi_tgt_dev"
    inst: int
    indx: int
    num_lus: int
    status: str
    non_access_lus: int
    resets: int
    aborts_complete: int
    aborts_no_task: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiLu(LioGroup):
    """``scsi_lu/``."""

    GROUP: ClassVar[str] = "scsi_lu"
    inst: int
    dev: int
    indx: int
    lun: int
    lu_name: str
    vend: str
    prod: str
    rev: str
    dev_type: int
    status: str
    state_bit: str
    num_cmds: int
    read_mbytes: int
    write_mbytes: int
    resets: int
    full_stat: int
    hs_num_cmds: int
    creation_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiPort(LioGroup):
    """``scsi_port/``."""

    GROUP: ClassVar[str] = "scsi_port"
    inst: int
    dev: int
    indx: int
    role: str
    busy_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiTgtPort(LioGroup):
    """``scsi_tgt_port/``."""

    GROUP: ClassVar[str] = "scsi_tgt_port"
    inst: int
    dev: int
    indx: int
    name: str
    port_index: str
    in_cmds: int
    write_mbytes: int
    read_mbytes: int
    hs_in_cmds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiTransport(LioGroup):
    """``scsi_transport/``."""

    GROUP: ClassVar[str] = "scsi_transport"
    inst: int
    device: str
    indx: int
    dev_name: str
    proto_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiAuthIntr(LioGroup):
    """``scsi_auth_intr/``."""

    GROUP: ClassVar[str] = "scsi_auth_intr"
    inst: int
    dev: int
    port: int
    indx: int
    dev_or_port: int
    intr_name: str
    map_indx: int
    att_count: int
    num_cmds: int
    read_mbytes: int
    write_mbytes: int
    hs_num_cmds: int
    creation_time: int
    row_status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScsiAttIntrPort(LioGroup):
    """``scsi_att_intr_port/``: of the initiator's last session; without one, two values cannot be read."""

    GROUP: ClassVar[str] = "scsi_att_intr_port"
    inst: int
    dev: int
    port: int
    indx: int | None
    port_auth_indx: int
    port_ident: str | None


def device_groups(unit: LogicalUnit, inst: int) -> tuple[LioGroup, ...]:
    """``core/<HBA>/<DEV>/statistics/``; ``inst``: the HBA's number."""
    counted = unit.totals()
    exported = bool(unit.ports)
    identity = unit.identity
    return (
        ScsiDev(inst=inst, indx=unit.index, role="Target", ports=len(unit.ports)),
        ScsiTgtDev(
            inst=inst,
            indx=unit.index,
            num_lus=1,
            status="activated" if exported else "deactivated",
            non_access_lus=0 if unit.ready else 1,
            resets=unit.resets,
            aborts_complete=unit.aborts_complete,
            aborts_no_task=unit.aborts_without_task,
        ),
        ScsiLu(
            inst=inst,
            dev=unit.index,
            indx=1,
            lun=0,
            lu_name=unit.serial or "None",
            # padded as in INQUIRY data, which is what LIO shows
            vend=f"{identity.vendor:8}",
            prod=f"{identity.product:16}",
            rev=f"{identity.revision:4}",
            dev_type=0,
            status="available" if exported else "notavailable",
            state_bit="exposed",
            num_cmds=commands(counted),
            read_mbytes=counted["read_bytes"] >> 20,
            write_mbytes=counted["write_bytes"] >> 20,
            resets=unit.resets,
            full_stat=unit.task_set_full_statuses,
            hs_num_cmds=commands(counted),
            creation_time=hundredths(unit.created),
        ),
    )


def lun_groups(lun: Lun, inst: int) -> tuple[LioGroup, ...]:
    """``tpgt_N/lun/lun_M/statistics/``."""
    port, unit = lun.port, lun.logical_unit
    counted = lun.totals()
    target = port.target
    fabric = FABRICS.get(target.fabric_name, target.fabric_name)
    rtpi = port.relative_target_port_identifier
    return (
        ScsiPort(inst=inst, dev=unit.index, indx=rtpi, role=f"Device{unit.index}", busy_count=port.busy_statuses),
        ScsiTgtPort(
            inst=inst,
            dev=unit.index,
            indx=rtpi,
            name=f"{fabric}Port#{rtpi}",
            port_index=f"{target.name}+t+{port.tag}",
            in_cmds=commands(counted),
            write_mbytes=counted["write_bytes"] >> 20,
            read_mbytes=counted["read_bytes"] >> 20,
            hs_in_cmds=commands(counted),
        ),
        ScsiTransport(
            inst=inst,
            device=f"scsiTransport{fabric}",
            indx=target.index,
            dev_name=f"{target.name}+{unit.serial}",
            proto_id=PROTOCOLS.get(target.fabric_name, ProtocolIdentifier.NONE).value,
        ),
    )


def nexuses_of(group: TargetPortalGroup, acl: NodeAcl) -> list[ITNexus]:
    """An initiator's, oldest first."""
    found = [nexus for nexus in group.nexuses if nexus.initiator_port.name == acl.initiator_name]
    return sorted(found, key=lambda nexus: nexus.identifier)


def mapped_totals(mapped: MappedLun, nexuses: Iterable[ITNexus]) -> Counter[str]:
    """What an initiator has done there since it was mapped.

    :param nexuses: those that it has now.
    """
    there = (itl for nexus in nexuses for itl in nexus.luns.values())
    return totals(mapped.retired, (itl for itl in there if itl.lun_number == mapped.number and itl.exported is mapped.lun))


def mapped_lun_groups(group: TargetPortalGroup, acl: NodeAcl, mapped: MappedLun) -> tuple[LioGroup, ...]:
    """``acls/<initiator>/lun_K/statistics/``."""
    nexuses = nexuses_of(group, acl)
    counted = mapped_totals(mapped, nexuses)
    inst, dev, rtpi = group.target.index, mapped.lun.logical_unit.index, group.relative_target_port_identifier
    port = nexuses[-1].initiator_port if nexuses else None
    return (
        ScsiAuthIntr(
            inst=inst,
            dev=dev,
            port=rtpi,
            indx=acl.index,
            dev_or_port=1,
            intr_name=acl.initiator_name,
            map_indx=mapped.number,
            att_count=mapped.attached,
            num_cmds=commands(counted),
            read_mbytes=counted["read_bytes"] >> 20,
            write_mbytes=counted["write_bytes"] >> 20,
            hs_num_cmds=commands(counted),
            creation_time=hundredths(mapped.created),
            row_status="Ready",
        ),
        ScsiAttIntrPort(
            inst=inst,
            dev=dev,
            port=rtpi,
            indx=nexuses[-1].identifier if nexuses else None,
            port_auth_indx=acl.index,
            port_ident=f"{port.name}+i+{port.isid.hex() if port.isid else ''}" if port is not None else None,
        ),
    )


def texts(groups: Iterable[LioGroup]) -> dict[str, dict[str, str | None]]:
    """Directory to file to content, without a newline; ``None``: cannot be read now (ENODEV)."""
    return {
        group.GROUP: {each.name: None if (value := getattr(group, each.name)) is None else str(value) for each in fields(group)}
        for group in groups
    }
