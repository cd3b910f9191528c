"""UNMAP and GET LBA STATUS (SBC-4 5.32, 5.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.backstore import Extent, Support
from tcm.scsi.block_data import (
    DEALLOCATED,
    LBA_STATUS_DESCRIPTOR,
    LBA_STATUS_HEADER,
    MAPPED,
    MAXIMUM_STATUS_BLOCKS,
    UNMAP_HEADER,
    lba_status_data,
    parse_unmap_list,
)
from tcm.scsi.check_condition import InvalidFieldInParameterList, LbaOutOfRange, ParameterListLengthError
from tcm.target.device_server.blocks import check_range
from tcm.target.device_server.data_in import give
from tcm.target.device_server.handler import Handler
from tcm.target.segments import check_segments

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

MAXIMUM_DESCRIPTORS = 1024
"""LBA status descriptors in one answer, whatever the allocation length."""

Status = tuple[int, int, int]
"""LBA, number of blocks, provisioning status."""


def _prepare_unmap(task: Task) -> int:
    cdb = task.cdb
    length = cdb[7] << 8 | cdb[8]
    if 0 < length < UNMAP_HEADER:
        raise ParameterListLengthError
    task.parameters = length
    return length


def _unmap(task: Task) -> Coroutine[Any, Any, None] | None:
    """All descriptors are checked before the first is carried out."""
    lu = task.logical_unit
    assert lu is not None
    if task.data_out_wanted < task.parameters:
        raise ParameterListLengthError
    ranges = parse_unmap_list(memoryview(task.data_out)[: task.data_out_wanted])
    limits = lu.limits
    if len(ranges) > limits.maximum_unmap_block_descriptor_count:
        raise InvalidFieldInParameterList.at(2)
    if sum(blocks for _, blocks in ranges) > limits.maximum_unmap_lba_count:
        raise InvalidFieldInParameterList.at(UNMAP_HEADER)
    for lba, blocks in ranges:
        if lba + blocks > lu.blocks:
            raise LbaOutOfRange(information=max(lba, lu.blocks))
    if task.itl is not None and task.itl.gated:
        for lba, blocks in ranges:
            check_segments(task.itl, lba, blocks)
    ranges = [(lba, blocks) for lba, blocks in ranges if blocks]
    return _unmap_ranges(task, lu, ranges) if ranges else None


async def _unmap_ranges(task: Task, lu: LogicalUnit, ranges: list[tuple[int, int]]) -> None:
    for lba, blocks in ranges:
        async with lu.extents.lock(task, lba, blocks, exclusive=True):
            await lu.medium.unmap(lba, blocks)
        await lu.breathe()
    await lu.medium.settle()


def _prepare_get_lba_status(task: Task) -> int:
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    lba, allocation_length = int.from_bytes(cdb[2:10]), int.from_bytes(cdb[10:14])
    check_range(lu, lba, 0)
    task.parameters = lba, lu.blocks, allocation_length
    return 0


def _prepare_get_lba_status_32(task: Task) -> int:
    """SCAN LENGTH (SBC-4 5.7) bounds what is looked at; the table refuses element identifiers: there are no elements."""
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    lba, scan_length, allocation_length = int.from_bytes(cdb[12:20]), int.from_bytes(cdb[20:24]), int.from_bytes(cdb[28:32])
    check_range(lu, lba, 0)
    task.parameters = lba, min(lu.blocks, lba + (scan_length or lu.blocks)), allocation_length
    return 0


def _get_lba_status(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    lba, end, allocation_length = task.parameters
    room = (allocation_length - LBA_STATUS_HEADER) // LBA_STATUS_DESCRIPTOR
    wanted = max(1, min(room, MAXIMUM_DESCRIPTORS))
    if lu.provisioning.thin and lu.capabilities.extents is Support.NATIVE:
        return _status_from_extents(task, lu, lba, end, wanted, allocation_length)
    _answer(task, _limited([(lba, end - lba, MAPPED)], wanted), allocation_length)
    return None


async def _status_from_extents(task: Task, lu: LogicalUnit, lba: int, end: int, wanted: int, allocation_length: int) -> None:
    """Ask on until there is one run more than fits: only then is the last that fits complete."""
    runs: list[Status] = []
    position = lba
    while position < end and len(runs) <= wanted:
        extents = await lu.medium.extents(position, end - position)
        before = position
        for run in block_runs(extents, position, lu.block_shift, end):
            _append(runs, run)
            position = run[0] + run[1]
        if position == before:
            _append(runs, (position, end - position, MAPPED))
            break
        await lu.breathe()
    _answer(task, _limited(runs, wanted), allocation_length)


def block_runs(extents: Iterable[Extent], first: int, shift: int, end: int) -> list[Status]:
    """Runs of blocks from runs of bytes, from block ``first`` on: a block is deallocated if all its bytes are unmapped."""
    runs: list[Status] = []
    position = first
    for extent in _joined(extents):
        stop = min(extent.offset + extent.length + (1 << shift) - 1 >> shift, end)
        if not extent.mapped:
            hole = max(position, extent.offset + (1 << shift) - 1 >> shift)
            hole_end = min(extent.offset + extent.length >> shift, end)
            if hole < hole_end:
                if hole > position:
                    _append(runs, (position, hole - position, MAPPED))
                _append(runs, (hole, hole_end - hole, DEALLOCATED))
                position = hole_end
        if stop > position:
            _append(runs, (position, stop - position, MAPPED))
            position = stop
    return runs


def _joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Extents of one kind that follow each other, as one: a block may be made of several."""
    last: Extent | None = None
    for extent in extents:
        if last is not None and last.mapped is extent.mapped:
            last = Extent(last.offset, last.length + extent.length, last.mapped)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last


def _append(runs: list[Status], run: Status) -> None:
    """Add a run, as part of the last one if that is of its kind."""
    if runs and runs[-1][2] == run[2]:
        lba, blocks, status = runs[-1]
        runs[-1] = (lba, blocks + run[1], status)
    else:
        runs.append(run)


def _limited(runs: list[Status], wanted: int) -> list[Status]:
    """The first ``wanted`` descriptors; a run too long for the field is cut into several."""
    descriptors: list[Status] = []
    for lba, blocks, status in runs:
        for start in range(0, blocks, MAXIMUM_STATUS_BLOCKS):
            descriptors.append((lba + start, min(blocks - start, MAXIMUM_STATUS_BLOCKS), status))
            if len(descriptors) == wanted:
                return descriptors
    return descriptors


def _answer(task: Task, descriptors: list[Status], allocation_length: int) -> None:
    give(task, lba_status_data(descriptors), allocation_length)


HANDLERS = {
    "unmap": Handler(_prepare_unmap, _unmap),
    "get_lba_status": Handler(_prepare_get_lba_status, _get_lba_status),
    "get_lba_status_32": Handler(_prepare_get_lba_status_32, _get_lba_status),
}
