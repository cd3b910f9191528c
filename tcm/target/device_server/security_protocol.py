"""SECURITY PROTOCOL IN (SPC-4 6.40): that there is nothing but the list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.security_protocol import INCREMENT, INFORMATION, SECURITY_PROTOCOL_INFORMATION
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from tcm.target.task import Task

_INC_512 = 0x80


def _security_protocol_in(task: Task) -> None:
    cdb = task.cdb
    if cdb[1] != SECURITY_PROTOCOL_INFORMATION:
        raise InvalidFieldInCdb.at(1)
    build = INFORMATION.get(cdb[2] << 8 | cdb[3])
    if build is None:
        raise InvalidFieldInCdb.at(2)
    data, length = build(), int.from_bytes(cdb[6:10])
    if cdb[4] & _INC_512:
        length *= INCREMENT
        data = data.ljust(INCREMENT, b"\0")
    give(task, data, length)


HANDLERS = {"security_protocol_in": Handler(no_data_out, _security_protocol_in)}
