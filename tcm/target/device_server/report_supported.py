"""REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5 6.36, 6.37)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.command import ADDITIONAL_LENGTH_BYTE, VARIABLE_LENGTH
from tcm.scsi.command_table import COMMANDS, rows
from tcm.scsi.protection import PROTECTED_COMMANDS, ProtectionType
from tcm.scsi.report_supported import (
    ReportingOptions,
    TaskManagementSupport,
    all_commands,
    one_command,
    task_management_functions,
)
from tcm.target.device_server.blocks import flags_byte
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from tcm.scsi.command import Command
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

_RCTD = _REPD = 0x80
_FMTPINFO = 0xC0
_LEAST = 4
"""The smallest ALLOCATION LENGTH of REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36)."""

_DPO_FUA = {
    "read": 0x18,
    "write": 0x18,
    "write_atomic": 0x18,
    "orwrite": 0x18,
    "compare_and_write": 0x18,
    "verify": 0x10,
    "write_and_verify": 0x10,
}
"""Bits of byte 1 (10 in 32-byte CDBs) that a logical unit without DPOFUA refuses."""
_UNMAP = {"write_same": 0x08}
"""Bits of the same byte that one without LBPWS refuses."""

_FUNCTIONS = (
    TaskManagementSupport.ABORT_TASK
    | TaskManagementSupport.ABORT_TASK_SET
    | TaskManagementSupport.CLEAR_TASK_SET
    | TaskManagementSupport.LOGICAL_UNIT_RESET
    | TaskManagementSupport.QUERY_TASK
    | TaskManagementSupport.TARGET_RESET
    | TaskManagementSupport.QUERY_ASYNCHRONOUS_EVENT
    | TaskManagementSupport.QUERY_TASK_SET
    | TaskManagementSupport.I_T_NEXUS_RESET
)


def _offered(lu: LogicalUnit, command: Command) -> bool:
    return command.feature is None or command.feature in lu.features


def _usage(lu: LogicalUnit, command: Command) -> bytes:
    """The table's usage data without the bits that this logical unit refuses."""
    if command.handler == "format_unit" and not lu.protection.supported:
        return command.usage[:1] + bytes((command.usage[1] & ~_FMTPINFO,)) + command.usage[2:]
    if command.length == 6:
        return command.usage
    if lu.protection.kind in {ProtectionType.TYPE_1, ProtectionType.TYPE_3}:
        command = PROTECTED_COMMANDS.get(command.name, command)
    handler = command.handler
    refused = 0 if lu.fua else _DPO_FUA.get(handler, 0)
    if not lu.provisioning.write_same_unmaps:
        refused |= _UNMAP.get(handler, 0)
    usage = bytearray(command.usage)
    usage[flags_byte(usage)] &= ~refused
    if command.operation_code == VARIABLE_LENGTH:
        usage[ADDITIONAL_LENGTH_BYTE] = 0xFF  # a field that is evaluated; only codes stand there as they are (SPC-4 6.35.3)
    return bytes(usage)


def _operation_codes(task: Task) -> None:
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    timeouts = bool(cdb[2] & _RCTD)
    option = cdb[2] & 0x07
    if option == ReportingOptions.ALL:
        data = all_commands((command for command in COMMANDS if _offered(lu, command)), timeouts=timeouts)
    else:
        command = _requested(lu, option, cdb[3], cdb[4] << 8 | cdb[5])
        data = one_command(command, _usage(lu, command) if command else b"", timeouts=timeouts)
    give(task, data, int.from_bytes(cdb[6:10]))


def _requested(lu: LogicalUnit, option: int, code: int, action: int) -> Command | None:
    """The command that is asked about, or ``None`` if it is not supported (SPC-5 table 269)."""
    found = [command for command in rows(code) if _offered(lu, command)]
    with_actions = any(command.service_action is not None for command in rows(code))
    if option == ReportingOptions.OPERATION_CODE:
        if with_actions:
            raise InvalidFieldInCdb.at(2, 2)
        return found[0] if found else None
    if option == ReportingOptions.SERVICE_ACTION:
        if found and not with_actions:
            raise InvalidFieldInCdb.at(2, 2)
    elif option != ReportingOptions.EITHER:
        raise InvalidFieldInCdb.at(2, 2)
    return next((command for command in found if (command.service_action or 0) == action), None)


def _task_management(task: Task) -> None:
    cdb = task.cdb
    length = int.from_bytes(cdb[6:10])
    if length < _LEAST:
        raise InvalidFieldInCdb.at(6)
    give(task, task_management_functions(_FUNCTIONS, extended=bool(cdb[2] & _REPD)), length)


HANDLERS = {
    "report_supported_operation_codes": Handler(no_data_out, _operation_codes),
    "report_supported_task_management_functions": Handler(no_data_out, _task_management),
}
