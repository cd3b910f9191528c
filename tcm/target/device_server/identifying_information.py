"""REPORT IDENTIFYING INFORMATION and SET IDENTIFYING INFORMATION (SPC-4 6.32, 6.43)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import InvalidFieldInCdb, ParameterListLengthError
from tcm.scsi.identifying_information import (
    MAXIMUM_LENGTH,
    InformationType,
    check_information,
    identifying_information,
    supported_types,
)
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler
from tcm.target.unit_attention import DEVICE_IDENTIFIER_CHANGED

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task


def _settable(task: Task) -> InformationType:
    """The type that the CDB names, which is one that can be set."""
    code = task.cdb[10] >> 1
    if code not in MAXIMUM_LENGTH:
        raise InvalidFieldInCdb.at(10, 7)
    return InformationType(code)


def _report(task: Task) -> None:
    lu = task.logical_unit
    assert lu is not None
    if task.cdb[10] >> 1 == InformationType.SUPPORTED:
        data = supported_types()
    else:
        data = identifying_information(lu.identifying_information.get(_settable(task)))
    give(task, data, int.from_bytes(task.cdb[6:10]))


def _prepare_set(task: Task) -> int:
    length = int.from_bytes(task.cdb[6:10])
    code = _settable(task)
    if length > MAXIMUM_LENGTH[code]:
        raise InvalidFieldInCdb.at(6)
    task.parameters = code, length
    return length


def _set(task: Task) -> Coroutine[Any, Any, None]:
    itl = task.itl
    assert itl is not None
    code, length = task.parameters
    information = bytes(task.data_out[: task.data_out_wanted])
    if len(information) < length:
        raise ParameterListLengthError
    check_information(code, information)
    return _keep(itl, code, information)


async def _keep(itl: ITLNexus, code: int, information: bytes) -> None:
    lu = itl.logical_unit
    await lu.identifying_information.set(code, information)
    lu.establish_attention(DEVICE_IDENTIFIER_CHANGED, except_for=itl)


HANDLERS = {
    "report_identifying_information": Handler(no_data_out, _report),
    "set_identifying_information": Handler(_prepare_set, _set),
}
