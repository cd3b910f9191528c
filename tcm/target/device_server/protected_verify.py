"""VERIFY and WRITE AND VERIFY of a unit with protection information (SBC-4 5.36, 5.44; tables 125 to 128)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.protection import COMPARED, LENGTH, NO_CHECKS, Checks, ProtectionType, compare, replicate
from tcm.target.device_server.blocks import check_dpo, check_length, check_whole_blocks, flags_byte, lba_and_blocks
from tcm.target.device_server.handler import Handler
from tcm.target.device_server.protected import (
    Access,
    access,
    check_same,
    checks_of,
    medium_of,
    put,
    sent_blocks,
    with_sent_blocks,
)
from tcm.target.device_server.verify import COMPARE, COMPARE_ONE_BLOCK, MEDIUM_ONLY
from tcm.target.medium import CHUNK

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task


def _bytchk(cdb: bytes) -> int:
    return cdb[flags_byte(cdb)] >> 1 & 0x03


def _prepare_verify(task: Task) -> int:
    lu, cdb = task.logical_unit, task.cdb
    assert lu is not None
    bytchk = _bytchk(cdb)
    if bytchk not in {MEDIUM_ONLY, COMPARE, COMPARE_ONE_BLOCK}:
        raise InvalidFieldInCdb.at(flags_byte(cdb), 2)
    check_dpo(lu, cdb)
    found = access(task, *lba_and_blocks(cdb))
    if bytchk == MEDIUM_ONLY or not found.blocks:
        return 0
    if bytchk == COMPARE_ONE_BLOCK:
        return found.step
    check_length(cdb, found.blocks, lu.limits.maximum_transfer_length)
    return found.blocks * found.step


def _verify(task: Task) -> Coroutine[Any, Any, None] | None:
    lu, found = task.logical_unit, task.parameters
    assert lu is not None
    bytchk = _bytchk(task.cdb)
    if not found.blocks:
        return None
    if bytchk == MEDIUM_ONLY:
        return _verify_blocks(task, lu, found)
    data, protection = sent_blocks(task, lu, found, found.blocks if bytchk == COMPARE else 1)
    if not data:
        return None
    if bytchk == COMPARE:
        found = found._replace(blocks=len(data) >> lu.block_shift)
    return _verify_blocks(task, lu, found, data, protection, repeat=bytchk == COMPARE_ONE_BLOCK)


async def _verify_blocks(
    task: Task,
    lu: LogicalUnit,
    found: Access,
    data: memoryview | bytes | None = None,
    protection: bytes | None = None,
    *,
    repeat: bool = False,
) -> None:
    if data is None or repeat:  # a whole medium may be verified so: it is not kept from everybody meanwhile
        await _against_medium(lu, found, data, protection, repeat=repeat, owner=task)
        return
    async with lu.extents.lock(task, found.lba, found.blocks, exclusive=False):
        await _against_medium(lu, found, data, protection)


async def _against_medium(
    lu: LogicalUnit,
    found: Access,
    data: memoryview | bytes | None = None,
    protection: bytes | None = None,
    *,
    repeat: bool = False,
    owner: Task | None = None,
) -> None:
    """Read the blocks piece by piece: check them, or compare them with what was sent.

    :param repeat: one block was sent for all.
    :param owner: for whom each piece is locked; ``None``: the range is.
    """
    medium, shift, kind = medium_of(lu), lu.block_shift, lu.protection.kind
    step = min(found.blocks, CHUNK >> shift)
    buffer = memoryview(bytearray(step << shift))
    # with something to compare it with, what is read is checked only if no protection information was sent (table 126)
    checks = checks_of(lu, found.protect) if protection is None else NO_CHECKS
    compared = _compared(lu, found.protect)
    tags = found.tags
    if data is not None and repeat:
        data = memoryview(bytes(data) * step)
    for start in range(0, found.blocks, step):
        count = min(step, found.blocks - start)
        piece = buffer[: count << shift]
        async with lu.extents.lock(owner, found.lba + start, count, exclusive=False) if owner else nullcontext():
            there = await medium.read_protected([piece], found.lba + start, count)
        medium.check(piece, there, found.lba + start, checks, tags)
        if tags.reference is not None:
            tags = tags._replace(reference=tags.reference + count)
        if data is not None:
            first = 0 if repeat else start << shift
            check_same(lu, found, piece, data[first : first + len(piece)], first)
        if protection is not None:
            sent = (
                replicate(kind, protection, count, start) if repeat else protection[start * LENGTH : (start + count) * LENGTH]
            )
            first = lu.block_size + (0 if repeat else start * found.step)
            compare(kind, there, sent, compared, first=first, step=0 if repeat else found.step)
        await lu.breathe()


def _compared(lu: LogicalUnit, protect: int) -> Checks:
    """What of the protection information is compared: without ATO not what we might have changed (SBC-4 table 128)."""
    checks = COMPARED[protect]
    if lu.mode_parameters.application_tag_owner:
        return checks
    return Checks(checks.guard, False, checks.reference and lu.protection.kind is not ProtectionType.TYPE_3)


def _prepare_write_and_verify(task: Task) -> int:
    lu, cdb = task.logical_unit, task.cdb
    assert lu is not None
    if _bytchk(cdb) not in {MEDIUM_ONLY, COMPARE}:
        raise InvalidFieldInCdb.at(flags_byte(cdb), 2)
    check_dpo(lu, cdb)
    found = access(task, *lba_and_blocks(cdb), writes=True)
    check_length(cdb, found.blocks, lu.limits.maximum_transfer_length)
    return check_whole_blocks(task, found.blocks * found.step, found.step)


async def _write_and_verify(
    task: Task, lu: LogicalUnit, found: Access, data: memoryview | bytes, protection: bytes | None
) -> None:
    """Nobody writes there between the write and the verification; the write goes through to the medium first."""
    found = found._replace(blocks=len(data) >> lu.block_shift)
    if protection is None:  # what was written is of our own making, whatever tags the CDB expects
        found = found._replace(tags=lu.protection.tags(found.lba))
    async with lu.extents.lock(task, found.lba, found.blocks, exclusive=True):
        await put(lu, found, data, protection, fua=True)
        if _bytchk(task.cdb) == COMPARE:
            await _against_medium(lu, found, data, protection)
        else:
            await _against_medium(lu, found)


HANDLERS = {
    "verify": Handler(_prepare_verify, _verify),
    "write_and_verify": Handler(_prepare_write_and_verify, with_sent_blocks(_write_and_verify)),
}
