"""REPORT TARGET PORT GROUPS, SET TARGET PORT GROUPS and REPORT REFERRALS (SPC-4 6.37, 6.45; SBC-4 5.28)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.asymmetric_access import (
    DESCRIPTOR_LENGTH,
    HEADER_LENGTH,
    MAXIMUM_DESCRIPTORS,
    SUPPORT_BITS,
    AccessState,
    AccessStatus,
    GroupDescriptor,
    SetTargetPortGroup,
    parse_set_target_port_groups,
    report_target_port_groups_data,
)
from tcm.scsi.check_condition import (
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    ParameterListLengthError,
    SetTargetPortGroupsCommandFailed,
)
from tcm.scsi.command import SERVICE_ACTION_BYTE
from tcm.scsi.referrals import report_referrals_data
from tcm.target.access_transition import Request, change
from tcm.target.device_server.blocks import check_range
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler
from tcm.target.segments import segments_from
from tcm.target.target_port_group import MAXIMUM_IDENTIFIER, port_identifiers

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task

_LENGTH_ONLY, _EXTENDED = 0b000, 0b001
_ONE_SEG = 0x01


def _report(task: Task) -> None:
    itl = task.itl
    assert itl is not None
    data_format = task.cdb[1] >> 5
    if data_format not in {_LENGTH_ONLY, _EXTENDED}:
        raise InvalidFieldInCdb.at(1, 7)
    seconds = itl.exported.target_port_group.attributes.implicit_trans_secs if data_format == _EXTENDED else None
    data = report_target_port_groups_data(_descriptors(itl.logical_unit), implicit_transition_time=seconds)
    give(task, data, int.from_bytes(task.cdb[6:10]))


def _descriptors(lu: LogicalUnit) -> list[GroupDescriptor]:
    """The primary target port groups, and the secondary one of all ports that are offline, if any are."""
    access = lu.asymmetric_access
    found = [group.descriptor() for group in access.reported_groups()]
    offline = [lun for lun in access.luns() if lun.offline]
    if offline:
        # nobody chooses this identifier: the last one that no primary group has
        identifier = next(number for number in range(MAXIMUM_IDENTIFIER, -1, -1) if access.by_identifier(number) is None)
        found.append(
            GroupDescriptor(
                identifier=identifier,
                state=AccessState.OFFLINE,
                supported=SUPPORT_BITS[AccessState.OFFLINE],
                status=max(lun.offline_status for lun in offline),
                ports=port_identifiers(offline),
            )
        )
    return found


def _prepare_set(task: Task) -> int:
    """No parameter list changes nothing, and that is no error; explicit changes are for ports whose group has them."""
    itl = task.itl
    assert itl is not None
    if not itl.exported.target_port_group.attributes.access_type.is_explicit:
        raise InvalidFieldInCdb.at(SERVICE_ACTION_BYTE, 4)
    length = int.from_bytes(task.cdb[6:10])
    if length % DESCRIPTOR_LENGTH or length > HEADER_LENGTH + MAXIMUM_DESCRIPTORS * DESCRIPTOR_LENGTH:
        raise InvalidFieldInCdb.at(6)
    if task.write_length < length:
        raise ParameterListLengthError
    return length


def _set(task: Task) -> Coroutine[Any, Any, None] | None:
    itl = task.itl
    assert itl is not None
    descriptors = parse_set_target_port_groups(bytes(task.data_out[: task.data_out_wanted]))
    request = _request(itl.logical_unit, descriptors)
    return _change(request, itl) if descriptors else None


def _request(lu: LogicalUnit, descriptors: list[SetTargetPortGroup]) -> Request:
    """What the descriptors ask for, all of it checked."""
    access = lu.asymmetric_access
    request = Request(lu)
    for each in descriptors:
        if each.state is AccessState.OFFLINE:
            luns = [lun for lun in access.luns() if lun.port.relative_target_port_identifier == each.identifier]
            groups = [lun.target_port_group for lun in luns]
            request.luns.update(dict.fromkeys(luns, True))
        else:
            group = access.by_identifier(each.identifier)
            groups = [group] if group is not None and group.members else []
            request.groups.update(dict.fromkeys(groups, each.state))
        if not groups or not all(group.attributes.access_type.is_explicit for group in groups):
            raise InvalidFieldInParameterList.at(each.offset + 2)
        if not all(group.attributes.supports(each.state) for group in groups):
            raise InvalidFieldInParameterList.at(each.offset, 3)
    return request


async def _change(request: Request, itl: ITLNexus) -> None:
    """GOOD status says that the new states are in force."""
    try:
        await change(request, AccessStatus.EXPLICIT, by=itl)
    except OSError as error:
        raise SetTargetPortGroupsCommandFailed from error


def _prepare_referrals(task: Task) -> int:
    lu = task.logical_unit
    assert lu is not None
    check_range(lu, int.from_bytes(task.cdb[2:10]), 0)
    return 0


def _report_referrals(task: Task) -> None:
    lu = task.logical_unit
    assert lu is not None
    lba_map = lu.asymmetric_access.lba_map
    assert lba_map is not None
    cdb = task.cdb
    lba = int.from_bytes(cdb[2:10])
    segments = segments_from(lba_map, lba, 1 if cdb[14] & _ONE_SEG else lu.blocks - lba)
    give(task, report_referrals_data(segments), int.from_bytes(cdb[10:14]))


HANDLERS = {
    "report_target_port_groups": Handler(no_data_out, _report),
    "set_target_port_groups": Handler(_prepare_set, _set),
    "report_referrals": Handler(_prepare_referrals, _report_referrals),
}
