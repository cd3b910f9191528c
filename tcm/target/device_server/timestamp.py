"""REPORT TIMESTAMP and SET TIMESTAMP (SPC-4 6.38, 6.46)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import ParameterListLengthError
from tcm.scsi.timestamp import PARAMETER_LIST_LENGTH, parse_set_timestamp, timestamp_data
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler
from tcm.target.unit_attention import TIMESTAMP_CHANGED

if TYPE_CHECKING:
    from tcm.target.task import Task


def _report(task: Task) -> None:
    lu = task.logical_unit
    assert lu is not None
    clock = lu.clock
    give(task, timestamp_data(clock.timestamp(), clock.origin), int.from_bytes(task.cdb[6:10]))


def _prepare_set(task: Task) -> int:
    """No parameter list at all sets nothing, and that is no error."""
    length = int.from_bytes(task.cdb[6:10])
    if length not in {0, PARAMETER_LIST_LENGTH}:
        raise ParameterListLengthError
    task.parameters = length
    return length


def _set(task: Task) -> None:
    lu = task.logical_unit
    assert lu is not None
    if not task.parameters:
        return
    data = bytes(task.data_out[: task.data_out_wanted])
    if len(data) < PARAMETER_LIST_LENGTH:
        raise ParameterListLengthError
    lu.clock.set(parse_set_timestamp(data))
    lu.establish_attention(TIMESTAMP_CHANGED, except_for=task.itl)


HANDLERS = {
    "report_timestamp": Handler(no_data_out, _report),
    "set_timestamp": Handler(_prepare_set, _set),
}
