"""VERIFY and WRITE AND VERIFY (SBC-4 5.34 to 5.36, 5.43 to 5.45)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.target.device_server.blocks import check_dpo, check_length, check_range, check_whole_blocks, lba_and_blocks
from tcm.target.device_server.compare import check_equal
from tcm.target.device_server.handler import Handler
from tcm.target.device_server.read_write import whole_blocks
from tcm.target.medium import CHUNK

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

MEDIUM_ONLY, COMPARE, COMPARE_ONE_BLOCK = 0, 1, 3
"""BYTCHK (SBC-4 table 101); 2 is reserved."""


def _bytchk(cdb: bytes) -> int:
    return cdb[1] >> 1 & 0x03


def _prepare_verify(task: Task) -> int:
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    bytchk = _bytchk(cdb)
    if bytchk not in {MEDIUM_ONLY, COMPARE, COMPARE_ONE_BLOCK}:
        raise InvalidFieldInCdb.at(1, 2)
    check_dpo(lu, cdb)
    lba, blocks = lba_and_blocks(cdb)
    check_range(lu, lba, blocks)
    task.parameters = lba, blocks
    if bytchk == MEDIUM_ONLY or not blocks:
        return 0
    if bytchk == COMPARE_ONE_BLOCK:
        return lu.block_size
    check_length(cdb, blocks, lu.limits.maximum_transfer_length)
    return blocks << lu.block_shift


def _verify(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    lba, blocks = task.parameters
    if not blocks:
        return None
    bytchk = _bytchk(task.cdb)
    sent = None
    if bytchk:
        sent = whole_blocks(task, lu, blocks if bytchk == COMPARE else 1)
        if not sent:
            return None
        if bytchk == COMPARE:
            blocks = len(sent) >> lu.block_shift
    return _verify_blocks(task, lu, lba, blocks, sent, repeat=bytchk == COMPARE_ONE_BLOCK)


async def _verify_blocks(task: Task, lu: LogicalUnit, lba: int, blocks: int, sent: memoryview | None, *, repeat: bool) -> None:
    if sent is None or repeat:  # a whole medium may be verified so: it is not kept from everybody meanwhile
        await compare_with_medium(lu, lba, blocks, sent, repeat=repeat, owner=task)
        return
    async with lu.extents.lock(task, lba, blocks, exclusive=False):
        await compare_with_medium(lu, lba, blocks, sent)


async def compare_with_medium(
    lu: LogicalUnit, lba: int, blocks: int, sent: memoryview | None, *, repeat: bool = False, owner: Task | None = None
) -> None:
    """Read the range piece by piece, and compare it with ``sent``, or each block with the one in ``sent`` if ``repeat``.

    :param owner: for whom each piece is locked; ``None``: the range is.
    """
    length = blocks << lu.block_shift
    buffer = memoryview(bytearray(min(length, CHUNK)))
    expected = memoryview(bytes(sent) * (len(buffer) >> lu.block_shift)) if sent is not None and repeat else sent
    for offset in range(0, length, CHUNK):
        piece = buffer[: min(CHUNK, length - offset)]
        first = lba + (offset >> lu.block_shift)
        async with lu.extents.lock(owner, first, len(piece) >> lu.block_shift, exclusive=False) if owner else nullcontext():
            await lu.medium.read([piece], first)
        if expected is not None:
            start = 0 if repeat else offset
            check_equal(piece, expected[start : start + len(piece)], offset)
        await lu.breathe()


def _prepare_write_and_verify(task: Task) -> int:
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    if _bytchk(cdb) not in {MEDIUM_ONLY, COMPARE}:
        raise InvalidFieldInCdb.at(1, 2)
    check_dpo(lu, cdb)
    lba, blocks = lba_and_blocks(cdb)
    check_range(lu, lba, blocks)
    check_length(cdb, blocks, lu.limits.maximum_transfer_length)
    task.parameters = lba, blocks
    return check_whole_blocks(task, blocks << lu.block_shift, lu.block_size)


def _write_and_verify(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    lba, blocks = task.parameters
    data = whole_blocks(task, lu, blocks)
    if not data:
        return None
    return _write_and_verify_blocks(task, lu, lba, data)


async def _write_and_verify_blocks(task: Task, lu: LogicalUnit, lba: int, data: memoryview) -> None:
    """Nobody writes there between the write and the verification; the write goes through to the medium first."""
    blocks = len(data) >> lu.block_shift
    async with lu.extents.lock(task, lba, blocks, exclusive=True):
        await lu.medium.write([data], lba, fua=True)
        await compare_with_medium(lu, lba, blocks, data if _bytchk(task.cdb) else None)


HANDLERS = {
    "verify": Handler(_prepare_verify, _verify),
    "write_and_verify": Handler(_prepare_write_and_verify, _write_and_verify),
}
