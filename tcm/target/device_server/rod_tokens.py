"""POPULATE TOKEN (SBC-4), RECEIVE ROD TOKEN INFORMATION and REPORT ALL ROD TOKENS (SPC-5)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import ParameterListLengthError
from tcm.scsi.rod_token_commands import (
    MAXIMUM_LIST,
    POPULATE_HEADER,
    check_list_length,
    check_ranges,
    parse_populate_token,
    report_all_rod_tokens_data,
    rod_token_descriptors,
)
from tcm.scsi.rod_tokens import TokenFields, creator_descriptor, target_descriptor
from tcm.target.device_designators import device_name, protocol_of, unit_designators
from tcm.target.device_server.capacity import capacity_data
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler
from tcm.target.device_server.receive_copy import (
    POPULATE_TOKEN,
    allocation_length,
    find_operation,
    status_data,
)
from tcm.target.rod_tokens import MAXIMUM_BYTES, MAXIMUM_INACTIVITY_TIMEOUT
from tcm.target.segments import check_segments

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from tcm.scsi.rod_token_commands import PopulateToken, Range
    from tcm.target.copy_manager import CopyOperation
    from tcm.target.nexus import ITLNexus
    from tcm.target.rods import Rod
    from tcm.target.task import Task

_LIST_IDENTIFIER = slice(6, 10)
_ATTEMPTS = 3
"""A long write that is under way ends the ROD with its next step; if that goes on, so be it."""


def prepare_list(header: int) -> Callable[[Task], int]:
    """``prepare`` of a command with a PARAMETER LIST LENGTH in bytes 10 to 13, and ``header`` bytes at least or no list."""

    def prepare(task: Task) -> int:
        length = int.from_bytes(task.cdb[10:14])
        check_list_length(length, header)
        if task.write_length < length:
            raise ParameterListLengthError
        return min(length, MAXIMUM_LIST)

    return prepare


def check_token_ranges(itl: ITLNexus, ranges: Sequence[Range], first: int) -> None:
    """See :func:`tcm.scsi.rod_token_commands.check_ranges`; also, the target port has to reach all of the blocks."""
    lu = itl.logical_unit
    check_ranges(ranges, first, capacity=lu.blocks, maximum=MAXIMUM_BYTES >> lu.block_shift)
    if itl.gated:
        for each in ranges:
            if each.blocks:
                check_segments(itl, *each)


def originate(
    task: Task, service_action: int, work: Callable[[CopyOperation], Coroutine[Any, Any, None]], *, immed: bool
) -> Coroutine[Any, Any, None] | None:
    """Begin the copy operation of a command whose list has been found good; goes on in the background if ``immed``."""
    lu = task.logical_unit
    assert lu is not None
    operation = lu.copies.begin(task, int.from_bytes(task.cdb[_LIST_IDENTIFIER]), service_action, background=immed)
    begun = partial(work, operation)
    if not immed:
        return operation.run(begun)
    lu.running.spawn_alone(lu.copies.run_in_background(operation, begun))
    return None


def _populate_token(task: Task) -> Coroutine[Any, Any, None] | None:
    lu, itl = task.logical_unit, task.itl
    assert lu is not None
    assert itl is not None
    data = memoryview(task.data_out)[: task.data_out_wanted]
    if not data:
        return None
    asked = parse_populate_token(data, MAXIMUM_INACTIVITY_TIMEOUT)
    check_token_ranges(itl, asked.ranges, POPULATE_HEADER)
    return originate(task, POPULATE_TOKEN, partial(_populate, itl, asked), immed=asked.immed)


async def _populate(itl: ITLNexus, asked: PopulateToken, operation: CopyOperation) -> None:
    """No token comes of ranges without blocks."""
    lu = itl.logical_unit
    ranges = [each for each in asked.ranges if each.blocks]
    if not ranges:
        return
    fields = _fields(itl, asked)
    for _ in range(_ATTEMPTS):
        rod = lu.rod_tokens.create(lu, ranges, fields, asked.inactivity_timeout)
        await _until_settled(operation, rod)
        if rod.ended is None:
            break
    operation.transferred = rod.length
    operation.result = rod.token


async def _until_settled(operation: CopyOperation, rod: Rod) -> None:
    """Return when what was being written as the ROD was made has been: what begins after that ends the ROD."""
    lu = rod.logical_unit
    try:
        for each in rod.ranges:
            async with lu.extents.lock(operation, each.lba, each.blocks, exclusive=True):
                pass
    except BaseException:
        lu.rod_tokens.discard(rod)
        raise


def _fields(itl: ITLNexus, asked: PopulateToken) -> TokenFields:
    lu, name, protocol = itl.logical_unit, itl.nexus.target_portal_group.target.name, protocol_of(itl.nexus)
    return TokenFields(
        rod_type=asked.rod_type,
        identifier=0,
        creator=creator_descriptor(unit_designators(lu)[0], lu.block_size),
        represented=sum(each.blocks for each in asked.ranges) << lu.block_shift,
        device_data=capacity_data(lu)[8:],
        target=target_descriptor(device_name(name, protocol), protocol),
    )


def _receive_information(task: Task) -> None:
    lu = task.logical_unit
    assert lu is not None
    operation = find_operation(task, int.from_bytes(task.cdb[2:6]))
    length = allocation_length(task.cdb)
    tokens = [operation.result] if operation.result is not None else []
    data = status_data(lu, operation, rod_token_descriptors(tokens))
    give(task, data, length)
    if not length or min(length, task.read_length) >= len(data):
        operation.result = None  # not wanted, or told once


def _report_all(task: Task) -> None:
    lu = task.logical_unit
    assert lu is not None
    data = report_all_rod_tokens_data(lu.rod_tokens.management_tokens(lu))
    give(task, data, allocation_length(task.cdb))


HANDLERS = {
    "populate_token": Handler(prepare_list(POPULATE_HEADER), _populate_token),
    "receive_rod_token_information": Handler(no_data_out, _receive_information),
    "report_all_rod_tokens": Handler(no_data_out, _report_all),
}
