"""Parameter data of REPORT SUPPORTED OPERATION CODES and of REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5 6.36, 6.37)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.scsi.command import Command


class ReportingOptions(enum.IntEnum):
    """REPORTING OPTIONS (SPC-5 table 269)."""

    ALL = 0b000
    OPERATION_CODE = 0b001
    """One that has no service actions."""
    SERVICE_ACTION = 0b010
    """One that has."""
    EITHER = 0b011


class Support(enum.IntEnum):
    """SUPPORT (SPC-5 table 275)."""

    UNKNOWN = 0b000
    NOT_SUPPORTED = 0b001
    STANDARD = 0b011


class TaskManagementSupport(enum.IntFlag):
    """The first two bytes of the task management functions' parameter data, as one number (SPC-5 table 277)."""

    ABORT_TASK = 0x8000
    ABORT_TASK_SET = 0x4000
    CLEAR_ACA = 0x2000
    CLEAR_TASK_SET = 0x1000
    LOGICAL_UNIT_RESET = 0x0800
    QUERY_TASK = 0x0400
    TARGET_RESET = 0x0200
    WAKEUP = 0x0100
    QUERY_ASYNCHRONOUS_EVENT = 0x0004
    QUERY_TASK_SET = 0x0002
    I_T_NEXUS_RESET = 0x0001


_TIMEOUTS_LENGTH = 0x0A
_EXTENDED_LENGTH = 0x0C
_ONE_COMMAND_CTDP = 0x80
_ALL_COMMANDS_CTDP = 0x02
_SERVACTV = 0x01
_TENTH_SECONDS = 10


def timeouts_descriptor(command: Command) -> bytes:
    """The nominal time is not indicated: it is nobody's to promise over a network."""
    return _TIMEOUTS_LENGTH.to_bytes(2, "big") + bytes(6) + command.timeout.to_bytes(4, "big")


def all_commands(commands: Iterable[Command], *, timeouts: bool) -> bytes:
    """A command descriptor for each command, with its timeouts descriptor if asked (RCTD)."""
    found = []
    for command in sorted(commands, key=lambda each: (each.operation_code, each.service_action or 0)):
        action = command.service_action
        flags = (_ALL_COMMANDS_CTDP if timeouts else 0) | (0 if action is None else _SERVACTV)
        found.append(
            bytes((command.operation_code, 0))
            + (action or 0).to_bytes(2, "big")
            + bytes((0, flags))
            + command.length.to_bytes(2, "big")
        )
        if timeouts:
            found.append(timeouts_descriptor(command))
    body = b"".join(found)
    return len(body).to_bytes(4, "big") + body


def one_command(command: Command | None, usage: bytes = b"", *, timeouts: bool) -> bytes:
    """Whether a command is supported, and its CDB usage data.

    :param command: ``None``: not supported.
    :param usage: the usage data to report instead of the table's, if the logical unit evaluates fewer bits.
    """
    if command is None:
        return bytes((0, Support.NOT_SUPPORTED, 0, 0))
    usage = usage or command.usage
    flags = Support.STANDARD | (_ONE_COMMAND_CTDP if timeouts else 0)
    descriptor = timeouts_descriptor(command) if timeouts else b""
    return bytes((0, flags)) + len(usage).to_bytes(2, "big") + usage + descriptor


def task_management_functions(supported: TaskManagementSupport, *, extended: bool, timeout: int = 30) -> bytes:
    """4 bytes, or with REPD 16.

    :param timeout: seconds within which each function is through.
    """
    first = int(supported).to_bytes(2, "big") + b"\0"
    if not extended:
        return first + b"\0"
    long_timeout = (timeout * _TENTH_SECONDS).to_bytes(4, "big")
    # TMFTMOV: the long timeout is valid and, all selectors being zero, that of every function
    return first + bytes((_EXTENDED_LENGTH, 0x01, 0, 0, 0)) + long_timeout + bytes(4)
