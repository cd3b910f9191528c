"""RECEIVE COPY STATUS, OPERATING PARAMETERS and FAILURE DETAILS, COPY OPERATION ABORT (SPC-4 6.3, 6.22 to 6.25)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.copy_results import (
    NO_FAILURE_DETAILS,
    CopyStatus,
    CountUnits,
    copy_status_lid1,
    copy_status_lid4,
    failure_details,
)
from tcm.scsi.third_party_copy import operating_parameters
from tcm.target.copy_manager import MAXIMUM_COPIES, until_ended
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.copy_manager import CopyOperation
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

_LIST_IDENTIFIER = 2
POPULATE_TOKEN, WRITE_USING_TOKEN = 0x10, 0x11
TOKEN_OPERATIONS = frozenset({POPULATE_TOKEN, WRITE_USING_TOKEN})
"""Service actions of the commands whose copy operations are about ROD tokens."""


def allocation_length(cdb: bytes) -> int:
    """ALLOCATION LENGTH of all RECEIVE COPY commands."""
    return int.from_bytes(cdb[10:14])


def find_operation(task: Task, list_identifier: int) -> CopyOperation:
    """The copy operation that a CDB names. Raises INVALID FIELD IN CDB if there is none."""
    lu = task.logical_unit
    assert lu is not None
    operation = lu.copies.find(task.nexus, list_identifier)
    if operation is None:
        raise InvalidFieldInCdb.at(_LIST_IDENTIFIER)
    return operation


def packed_sense(lu: LogicalUnit, operation: CopyOperation) -> bytes:
    """The sense data that an operation ended with, as its command would have returned it."""
    if operation.sense is None:
        return b""
    return operation.sense.pack(descriptor=lu.mode_parameters.descriptor_sense)


def _status_lid1(task: Task) -> None:
    """Once it has told that the operation has ended, the status is discarded."""
    operation = find_operation(task, task.cdb[_LIST_IDENTIFIER])
    if operation.status_told:
        raise InvalidFieldInCdb.at(_LIST_IDENTIFIER)
    operation.status_told = not operation.under_way
    data = copy_status_lid1(status=operation.status, transferred=operation.transferred, segments=operation.segments)
    give(task, data, allocation_length(task.cdb))


def status_data(lu: LogicalUnit, operation: CopyOperation, more: bytes = b"") -> bytes:
    """The parameter data of RECEIVE COPY STATUS (LID4); ``more`` follows the sense data.

    A token operation is counted in blocks, and one that falls short is a partial use of a token (SBC-4, RECEIVE ROD TOKEN
    INFORMATION).
    """
    status, count, units = operation.status, operation.transferred, CountUnits.BYTES
    if operation.service_action in TOKEN_OPERATIONS:
        count, units = count >> lu.block_shift, CountUnits.BLOCKS
        if status is CopyStatus.FAILED:
            status = CopyStatus.PARTIAL_TOKEN
    return copy_status_lid4(
        service_action=operation.service_action,
        status=status,
        completion=operation.completion,
        sense=packed_sense(lu, operation),
        count=count,
        units=units,
        segments=operation.segments,
        operations=operation.steps,
        more=more,
    )


def _status_lid4(task: Task) -> None:
    lu = task.logical_unit
    assert lu is not None
    operation = find_operation(task, int.from_bytes(task.cdb[2:6]))
    give(task, status_data(lu, operation), allocation_length(task.cdb))


def _operating_parameters(task: Task) -> None:
    give(task, operating_parameters(MAXIMUM_COPIES), allocation_length(task.cdb))


def _failure_details(task: Task) -> None:
    """Discarded once all of them have been told, or if the allocation length is zero."""
    lu = task.logical_unit
    assert lu is not None
    operation = find_operation(task, task.cdb[_LIST_IDENTIFIER])
    if operation.under_way:
        raise InvalidFieldInCdb.at(_LIST_IDENTIFIER)
    data = NO_FAILURE_DETAILS
    if operation.status is not CopyStatus.COMPLETED and not operation.details_told:
        data = failure_details(operation.completion, packed_sense(lu, operation))
    length = allocation_length(task.cdb)
    if not length or min(length, task.read_length) >= len(data):
        operation.details_told = True
    give(task, data, length)


def _abort(task: Task) -> Coroutine[Any, Any, None]:
    """Good once the operation does not touch any medium any more."""
    operation = find_operation(task, int.from_bytes(task.cdb[2:6]))
    if not operation.under_way:
        raise InvalidFieldInCdb.at(_LIST_IDENTIFIER)
    operation.abort()
    return until_ended((operation,))


HANDLERS = {
    "receive_copy_status_lid1": Handler(no_data_out, _status_lid1),
    "receive_copy_status_lid4": Handler(no_data_out, _status_lid4),
    "receive_copy_operating_parameters": Handler(no_data_out, _operating_parameters),
    "receive_copy_failure_details": Handler(no_data_out, _failure_details),
    "copy_operation_abort": Handler(no_data_out, _abort),
}
