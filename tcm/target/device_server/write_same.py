"""WRITE SAME (10) and (16) (SBC-4 5.48, 5.49)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.target.device_server.blocks import check_data_out, check_length, check_range, lba_and_blocks, length_field
from tcm.target.device_server.handler import Handler
from tcm.target.medium import CHUNK

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

UNMAP, NDOB = 0x08, 0x01


def _prepare(task: Task) -> int:
    """ANCHOR (ANC_SUP is zero), and NDOB of WRITE SAME (10), are reserved bits and refused before this."""
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    flags = cdb[1]
    if flags & UNMAP and not lu.provisioning.write_same_unmaps:
        raise InvalidFieldInCdb.at(1, 3)
    lba, blocks = lba_and_blocks(cdb)
    check_range(lu, lba, blocks)
    if not blocks:
        if lu.limits.write_same_non_zero:
            raise InvalidFieldInCdb.at(length_field(cdb))
        blocks = lu.blocks - lba
    check_length(cdb, blocks, lu.limits.maximum_write_same_length)
    task.parameters = lba, blocks
    return 0 if flags & NDOB else check_data_out(task, lu.block_size)


def _write_same(task: Task) -> Coroutine[Any, Any, None]:
    lu = task.logical_unit
    assert lu is not None
    return _fill(task, lu, *task.parameters)


async def _fill(task: Task, lu: LogicalUnit, lba: int, blocks: int) -> None:
    """Blocks are unmapped only if they then read as what was to be written (SBC-4 4.7.3.4.4)."""
    flags = task.cdb[1]
    block = bytes(lu.block_size) if flags & NDOB else bytes(task.data_out[: lu.block_size])
    unmaps = bool(flags & UNMAP)
    async with lu.extents.lock(task, lba, blocks, exclusive=True):
        if any(block):
            await _repeat(lu, block, lba, blocks)
        elif unmaps and lu.provisioning.unmapped_reads_zero:
            await lu.medium.unmap(lba, blocks)
        else:
            await lu.medium.write_zeroes(lba, blocks, may_unmap=unmaps)
        await lu.medium.settle()


async def _repeat(lu: LogicalUnit, block: bytes, lba: int, blocks: int) -> None:
    step = min(blocks, CHUNK >> lu.block_shift)
    buffer = memoryview(block * step)
    for start in range(lba, lba + blocks, step):
        await lu.medium.write_uncommitted([buffer[: min(step, lba + blocks - start) << lu.block_shift]], start)
        await lu.breathe()


HANDLERS = {"write_same": Handler(_prepare, _write_same)}
