"""FORMAT UNIT (SBC-4 5.3): zeroes everywhere, deallocated where there is provisioning; protection information all ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.format_unit import (
    FMTPINFO_SHIFT,
    LONG_HEADER,
    PROTECTION_TYPES,
    SHORT_HEADER,
    FormatParameters,
    parse_format,
)
from tcm.scsi.protection import ProtectionType
from tcm.target.device_server.handler import Handler
from tcm.target.device_server.sanitize import wait
from tcm.target.erasure_store import FORMAT, Erasure

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.task import Task

LONGLIST, FMTDATA, DEFECT_LIST_FORMAT = 0x20, 0x10, 0x07
_DEFECT_LIST_FORMATS = frozenset({0b000, 0b001, 0b010, 0b011, 0b100, 0b101})


def _prepare(task: Task) -> int:
    """FFMT is refused as reserved bits; LONGLIST, CMPLST and the format are ignored without FMTDATA, FMTPINFO is not."""
    lu = task.logical_unit
    assert lu is not None
    flags = task.cdb[1]
    fmtpinfo = flags >> FMTPINFO_SHIFT
    if fmtpinfo and not (fmtpinfo in PROTECTION_TYPES and flags & FMTDATA and lu.protection.supported):
        raise InvalidFieldInCdb.at(1, 7)
    if not flags & FMTDATA:
        return 0
    if flags & DEFECT_LIST_FORMAT not in _DEFECT_LIST_FORMATS:
        raise InvalidFieldInCdb.at(1, 2)
    return LONG_HEADER if flags & LONGLIST else SHORT_HEADER


def _format_unit(task: Task) -> Coroutine[Any, Any, None]:
    lu = task.logical_unit
    assert lu is not None
    flags = task.cdb[1]
    asked = FormatParameters(False, ProtectionType.NONE)
    if flags & FMTDATA:
        data = bytes(task.data_out[: task.data_out_wanted])
        asked = parse_format(data, long=bool(flags & LONGLIST), fmtpinfo=flags >> FMTPINFO_SHIFT)
    return wait(lu.eraser.begin(task, Erasure(kind=FORMAT, protection=asked.protection)), immed=asked.immed)


HANDLERS = {"format_unit": Handler(_prepare, _format_unit)}
