"""READ, WRITE, WRITE ATOMIC and ORWRITE (SBC-4 5.11 to 5.52).

Ordinary reads and writes are answered inline if the backstore can; with an atomic command about, or a backstore that blocks,
they take their range shared and go to the task group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.target.device_server.blocks import (
    check_data_out,
    check_fua,
    check_length,
    check_range,
    check_whole_blocks,
    lba_and_blocks,
)
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

_FLAGS = 0x18
"""DPO and FUA."""


class Access(NamedTuple):
    """What a read or write was asked to do."""

    lba: int
    blocks: int
    fua: bool


def prepare_access(task: Task) -> int:
    """LBA range, length and flags of a read or write; leaves an :class:`Access`, returns the length in bytes."""
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    lba, blocks = lba_and_blocks(cdb)
    fua = check_fua(lu, cdb) if cdb[1] & _FLAGS and cdb[0] > 0x1F else False
    if lba + blocks > lu.blocks or lba >= lu.blocks:
        check_range(lu, lba, blocks)
    if blocks > lu.limits.maximum_transfer_length:
        check_length(cdb, blocks, 0)
    task.parameters = Access(lba, blocks, fua)
    return blocks << lu.block_shift


def _prepare_read(task: Task) -> int:
    prepare_access(task)
    return 0


def _prepare_write(task: Task) -> int:
    wanted = prepare_access(task)
    if task.write_length < wanted:
        assert task.logical_unit is not None
        check_whole_blocks(task, wanted, task.logical_unit.block_size)
    return wanted


def _read(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    access = task.parameters
    lba, blocks, fua = access
    if not blocks:
        return None
    buffer = memoryview(bytearray(blocks << lu.block_shift))
    extents = lu.extents
    if (
        not fua
        and (not extents.exclusive or extents.is_free(lba, blocks, exclusive=False))
        and lu.medium.read_now((buffer,), lba)
    ):
        task.data_in = [buffer]
        return None
    return _read_later(task, lu, access, buffer)


async def _read_later(task: Task, lu: LogicalUnit, access: Access, buffer: memoryview) -> None:
    async with lu.extents.lock(task, access.lba, access.blocks, exclusive=False):
        if access.fua:
            # what a write cache holds has to reach the medium before it is read (SBC-4 5.11, FUA)
            await lu.medium.flush()
        await lu.medium.read([buffer], access.lba, tried=not access.fua)
    task.data_in = [buffer]


def whole_blocks(task: Task, lu: LogicalUnit, blocks: int) -> memoryview:
    """The Data-Out, cut to the whole blocks that have arrived, ``blocks`` at most."""
    data = memoryview(task.data_out)
    size = min(len(data) >> lu.block_shift, blocks) << lu.block_shift
    return data if len(data) == size else data[:size]


def _write(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    access = task.parameters
    lba, blocks, fua = access
    data = whole_blocks(task, lu, blocks)
    if not data:
        return None
    extents = lu.extents
    if (not extents.exclusive or extents.is_free(lba, blocks, exclusive=False)) and lu.medium.write_now((data,), lba, fua=fua):
        return None
    return _write_later(task, lu, access, data)


async def _write_later(task: Task, lu: LogicalUnit, access: Access, data: memoryview, *, exclusive: bool = False) -> None:
    async with lu.extents.lock(task, access.lba, access.blocks, exclusive=exclusive):
        await lu.medium.write([data], access.lba, fua=access.fua)


def _prepare_write_atomic(task: Task) -> int:
    """WRITE ATOMIC (16) (SBC-4 5.48): ATOMIC BOUNDARY in bytes 10 and 11, TRANSFER LENGTH in bytes 12 and 13."""
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    fua = check_fua(lu, cdb)
    if cdb[10] or cdb[11]:
        raise InvalidFieldInCdb.at(10)
    lba, blocks = int.from_bytes(cdb[2:10]), cdb[12] << 8 | cdb[13]
    check_range(lu, lba, blocks)
    if blocks > lu.limits.maximum_atomic_transfer_length:
        raise InvalidFieldInCdb.at(12)
    task.parameters = Access(lba, blocks, fua)
    wanted = blocks << lu.block_shift
    return check_data_out(task, wanted) if task.write_length < wanted else wanted


def _write_atomic(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    access: Access = task.parameters
    data = whole_blocks(task, lu, access.blocks)
    if not data:
        return None
    return _write_later(task, lu, access, data, exclusive=True)


def _orwrite(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    access: Access = task.parameters
    data = whole_blocks(task, lu, access.blocks)
    return _orwrite_later(task, lu, access, data) if data else None


async def _orwrite_later(task: Task, lu: LogicalUnit, access: Access, data: memoryview) -> None:
    """What is on the medium, OR what was sent (SBC-4 5.10)."""
    async with lu.extents.lock(task, access.lba, access.blocks, exclusive=True):
        current = bytearray(len(data))
        await lu.medium.read([memoryview(current)], access.lba)
        merged = (int.from_bytes(current, "little") | int.from_bytes(data, "little")).to_bytes(len(data), "little")
        await lu.medium.write([merged], access.lba, fua=access.fua)


HANDLERS = {
    "read": Handler(_prepare_read, _read),
    "write": Handler(_prepare_write, _write),
    "write_atomic": Handler(_prepare_write_atomic, _write_atomic),
    "orwrite": Handler(_prepare_write, _orwrite),
}
