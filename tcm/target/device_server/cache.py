"""SYNCHRONIZE CACHE and PRE-FETCH (SBC-4 5.10, 5.11, 5.29, 5.30)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import CommandTerminated
from tcm.scsi.sense import Status
from tcm.target.device_server.blocks import check_range, lba_and_blocks
from tcm.target.device_server.handler import Handler
from tcm.target.medium import CHUNK

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

IMMED = 0x02
PRE_FETCH_BYTES = 16 << 20
"""What a PRE-FETCH reads at most: the capacity of the cache, as far as the command is concerned."""


def _prepare(task: Task) -> int:
    """An LBA range whose length may be zero for "to the end of the medium"."""
    lu = task.logical_unit
    assert lu is not None
    lba, blocks = lba_and_blocks(task.cdb)
    check_range(lu, lba, blocks)
    task.parameters = lba, blocks or lu.blocks - lba
    return 0


def _synchronize_cache(task: Task) -> Coroutine[Any, Any, None] | None:
    """The whole cache is flushed, whatever range is named: that is allowed, and there is no other way."""
    lu = task.logical_unit
    assert lu is not None
    if not lu.medium.has_cache:
        return None
    if task.cdb[1] & IMMED:
        lu.medium.flush_soon(lu.running.spawn_alone)
        return None
    return lu.medium.flush()


def _pre_fetch(task: Task) -> Coroutine[Any, Any, None] | None:
    """CONDITION MET if all of it fits the cache (SBC-4, PRE-FETCH (10) command), GOOD if not all of it is read, or cached."""
    lu = task.logical_unit
    assert lu is not None
    lba, wanted = task.parameters
    blocks = min(wanted, PRE_FETCH_BYTES >> lu.block_shift)
    immediate = bool(task.cdb[1] & IMMED)
    if immediate and lu.reading_ahead:  # one at a time: nobody waits for them, so nobody would stop asking
        return None
    if blocks == wanted and lu.medium.nowait:  # a backstore that answers at once does so from a cache, or is memory
        task.status = Status.CONDITION_MET
    if not immediate:
        return _read_ahead(lu, lba, blocks)
    lu.reading_ahead = True
    lu.running.spawn_alone(_read_ahead_quietly(lu, lba, blocks))
    return None


async def _read_ahead(lu: LogicalUnit, lba: int, blocks: int) -> None:
    step = CHUNK >> lu.block_shift
    buffer = memoryview(bytearray(min(blocks, step) << lu.block_shift))
    for start in range(lba, lba + blocks, step):
        await lu.medium.read([buffer[: min(step, lba + blocks - start) << lu.block_shift]], start)


async def _read_ahead_quietly(lu: LogicalUnit, lba: int, blocks: int) -> None:
    """A read error that PRE-FETCH with IMMED meets is met again by the read that follows."""
    try:
        await _read_ahead(lu, lba, blocks)
    except CommandTerminated:
        return
    finally:
        lu.reading_ahead = False


HANDLERS = {
    "synchronize_cache": Handler(_prepare, _synchronize_cache),
    "pre_fetch": Handler(_prepare, _pre_fetch),
}
