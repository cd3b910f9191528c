"""Reads and writes of a unit with protection information: what their protect field means (SBC-4 4.21).

With a protect field of zero a command transfers what it does without protection information; otherwise its eight bytes follow
each block, and all lengths count them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidOpcode, MiscompareDuringVerify
from tcm.scsi.command import VARIABLE_LENGTH
from tcm.scsi.protection import (
    CHECKS,
    INITIAL,
    LENGTH,
    NO_CHECKS,
    PROTECT_SHIFT,
    Checks,
    ProtectionType,
    Tags,
    guards_of,
    interleave,
    replicate,
    separate,
    with_guards,
)
from tcm.target.device_server.blocks import (
    check_data_out,
    check_fua,
    check_length,
    check_range,
    check_whole_blocks,
    flags_byte,
    lba_and_blocks,
    length_field,
)
from tcm.target.device_server.compare import first_difference
from tcm.target.device_server.handler import Handler
from tcm.target.device_server.write_same import NDOB, UNMAP
from tcm.target.medium import CHUNK
from tcm.target.protected_medium import ProtectedMedium

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

_SIX_BYTES = 0x1F
"""The last operation code of 6-byte CDBs."""


class Access(NamedTuple):
    """What a read or write was asked to do."""

    lba: int
    blocks: int
    fua: bool
    protect: int
    """RDPROTECT, WRPROTECT, VRPROTECT or ORPROTECT."""
    tags: Tags
    step: int
    """Bytes that a block has when it is transferred."""


def medium_of(lu: LogicalUnit) -> ProtectedMedium:
    """The medium of a unit with protection information: while another has these handlers, commands are kept out."""
    assert isinstance(lu.medium, ProtectedMedium)
    return lu.medium


def access(task: Task, lba: int, blocks: int, *, fua: bool = False, writes: bool = False) -> Access:
    """Check the protect field and the range, and leave an :class:`Access`.

    :param writes: the Data-Out is written, so RWWP demands protection information in it.
    """
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    byte = flags_byte(cdb)
    protect = cdb[byte] >> PROTECT_SHIFT if cdb[0] > _SIX_BYTES else 0
    if protect and lu.protection.kind is ProtectionType.TYPE_2 and cdb[0] != VARIABLE_LENGTH:
        raise InvalidOpcode
    if protect not in CHECKS or (writes and not protect and lu.mode_parameters.rejects_unprotected):
        raise InvalidFieldInCdb.at(byte, 7) if cdb[0] > _SIX_BYTES else InvalidFieldInCdb()
    check_range(lu, lba, blocks)
    found = Access(lba, blocks, fua, protect, _tags(lu, cdb, lba), lu.block_size + (LENGTH if protect else 0))
    task.parameters = found
    return found


def _tags(lu: LogicalUnit, cdb: bytes, lba: int) -> Tags:
    """Only 32-byte CDBs tell; the application tag is none of their business unless they own it (ATO)."""
    if cdb[0] != VARIABLE_LENGTH:
        return lu.protection.tags(lba)
    application = int.from_bytes(cdb[24:26]) if lu.mode_parameters.application_tag_owner else None
    return Tags(int.from_bytes(cdb[20:24]), application, int.from_bytes(cdb[26:28]))


def checks_of(lu: LogicalUnit, protect: int) -> Checks:
    """What a read operation checks; DPICZ is about a protect field of zero."""
    return CHECKS[protect] if protect or lu.protection.checks_by_default else NO_CHECKS


def sent_blocks(task: Task, lu: LogicalUnit, found: Access, blocks: int) -> tuple[memoryview | bytes, bytes | None]:
    """The whole blocks that have arrived, ``blocks`` at most: data, and protection information if any came; checked."""
    size = min(len(task.data_out) // found.step, blocks) * found.step
    view = memoryview(task.data_out)[:size]
    if not found.protect:
        return view, None
    data, protection = separate(view, lu.block_size)
    medium_of(lu).check(data, protection, found.lba, CHECKS[found.protect], found.tags)
    return data, protection


# READ


def _prepare_read(task: Task) -> int:
    lu, cdb = task.logical_unit, task.cdb
    assert lu is not None
    lba, blocks = lba_and_blocks(cdb)
    found = access(task, lba, blocks, fua=check_fua(lu, cdb) if cdb[0] > _SIX_BYTES else False)
    check_length(cdb, found.blocks, lu.limits.maximum_transfer_length)
    return 0


def _read(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    return _read_later(task, lu, task.parameters) if task.parameters.blocks else None


async def _read_later(task: Task, lu: LogicalUnit, found: Access) -> None:
    medium = medium_of(lu)
    data = bytearray(found.blocks << lu.block_shift)
    async with lu.extents.lock(task, found.lba, found.blocks, exclusive=False):
        if found.fua:
            await medium.flush()
        protection = await medium.read_protected([memoryview(data)], found.lba, found.blocks)
    medium.check(data, protection, found.lba, checks_of(lu, found.protect), found.tags)
    task.data_in = [interleave(data, protection, lu.block_size) if found.protect else data]


# WRITE, WRITE ATOMIC, ORWRITE


def _prepare_write(task: Task) -> int:
    lu, cdb = task.logical_unit, task.cdb
    assert lu is not None
    lba, blocks = lba_and_blocks(cdb)
    found = access(task, lba, blocks, fua=check_fua(lu, cdb) if cdb[0] > _SIX_BYTES else False, writes=True)
    check_length(cdb, blocks, lu.limits.maximum_transfer_length)
    return check_whole_blocks(task, blocks * found.step, found.step)


def _prepare_write_atomic(task: Task) -> int:
    """ATOMIC BOUNDARY is refused by the command table."""
    lu, cdb = task.logical_unit, task.cdb
    assert lu is not None
    if cdb[0] == VARIABLE_LENGTH:
        lba, blocks, field = int.from_bytes(cdb[12:20]), int.from_bytes(cdb[28:32]), 28
    else:
        lba, blocks, field = int.from_bytes(cdb[2:10]), int.from_bytes(cdb[12:14]), 12
    found = access(task, lba, blocks, fua=check_fua(lu, cdb), writes=True)
    if blocks > lu.limits.maximum_atomic_transfer_length:
        raise InvalidFieldInCdb.at(field)
    wanted = blocks * found.step
    return check_data_out(task, wanted) if task.write_length < wanted else wanted


async def _write(
    task: Task, lu: LogicalUnit, found: Access, data: memoryview | bytes, protection: bytes | None, *, exclusive: bool
) -> None:
    async with lu.extents.lock(task, found.lba, found.blocks, exclusive=exclusive):
        await put(lu, found, data, protection, fua=found.fua)


def with_sent_blocks(
    work: Callable[[Task, LogicalUnit, Access, memoryview | bytes, bytes | None], Coroutine[Any, Any, None]],
) -> Callable[[Task], Coroutine[Any, Any, None] | None]:
    """The second half of a handler that needs the blocks that have arrived; without any there is nothing to do."""

    def execute(task: Task) -> Coroutine[Any, Any, None] | None:
        lu, found = task.logical_unit, task.parameters
        assert lu is not None
        data, protection = sent_blocks(task, lu, found, found.blocks)
        return work(task, lu, found, data, protection) if data else None

    return execute


async def put(lu: LogicalUnit, found: Access, data: memoryview | bytes, protection: bytes | None, *, fua: bool) -> None:
    """Write blocks with the protection information that came, or with some of their own."""
    if protection is None:
        await lu.medium.write([data], found.lba, fua=fua)
    else:
        await medium_of(lu).write_protected([data], protection, found.lba, fua=fua)


async def _orwrite(task: Task, lu: LogicalUnit, found: Access, data: memoryview | bytes, protection: bytes | None) -> None:
    """The result has guards of its own, and the tags that came (SBC-4 4.27.4)."""
    medium, size = medium_of(lu), len(data)
    async with lu.extents.lock(task, found.lba, found.blocks, exclusive=True):
        current = bytearray(size)
        there = await medium.read_protected([memoryview(current)], found.lba, size >> lu.block_shift)
        medium.check(current, there, found.lba, checks_of(lu, found.protect), found.tags)
        merged = (int.from_bytes(current, "little") | int.from_bytes(data, "little")).to_bytes(size, "little")
        if protection is not None:
            protection = with_guards(protection, guards_of(merged, lu.block_size))
        await put(lu, found, merged, protection, fua=found.fua)


# COMPARE AND WRITE


def _prepare_compare_and_write(task: Task) -> int:
    """Both instances have protection information, or neither; NUMBER OF LOGICAL BLOCKS is one byte."""
    lu, cdb = task.logical_unit, task.cdb
    assert lu is not None
    found = access(task, int.from_bytes(cdb[2:10]), cdb[13], fua=check_fua(lu, cdb), writes=True)
    wanted = 2 * found.blocks * found.step
    if found.blocks > lu.limits.maximum_compare_and_write_length or task.write_length != wanted:
        raise InvalidFieldInCdb.at(13)
    return wanted


def _compare_and_write(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    return _compare_then_write(task, lu, task.parameters) if task.parameters.blocks else None


async def _compare_then_write(task: Task, lu: LogicalUnit, found: Access) -> None:
    """Only user data is compared; the write instance is checked once it matches (SBC-4 5.3)."""
    medium, half = medium_of(lu), found.blocks * found.step
    both = memoryview(task.data_out)
    compared = separate(both[:half], lu.block_size)[0] if found.protect else both[:half]
    async with lu.extents.lock(task, found.lba, found.blocks, exclusive=True):
        current = bytearray(found.blocks << lu.block_shift)
        await medium.read_protected([memoryview(current)], found.lba, found.blocks)
        check_same(lu, found, current, compared)
        task.data_out = both[half:]
        data, protection = sent_blocks(task, lu, found, found.blocks)
        await put(lu, found, data, protection, fua=found.fua)


def check_same(
    lu: LogicalUnit, found: Access, medium: bytearray | memoryview, sent: memoryview | bytes, first: int = 0
) -> None:
    """Raises MISCOMPARE DURING VERIFY OPERATION for user data that differs; INFORMATION is an offset in the Data-Out.

    :param first: bytes of user data that were compared before.
    """
    difference = first_difference(medium, sent)
    if difference is not None:
        block, byte = divmod(first + difference, lu.block_size)
        raise MiscompareDuringVerify(information=block * found.step + byte)


# WRITE SAME


def _prepare_write_same(task: Task) -> int:
    """ANCHOR is a reserved bit, and refused before this."""
    lu, cdb = task.logical_unit, task.cdb
    assert lu is not None
    byte = flags_byte(cdb)
    if cdb[byte] & UNMAP and not lu.provisioning.write_same_unmaps:
        raise InvalidFieldInCdb.at(byte, 3)
    lba, blocks = lba_and_blocks(cdb)
    found = access(task, lba, blocks, writes=True)
    if not blocks:
        if lu.limits.write_same_non_zero:
            raise InvalidFieldInCdb.at(length_field(cdb))
        task.parameters = found = found._replace(blocks=lu.blocks - lba)
    check_length(cdb, found.blocks, lu.limits.maximum_write_same_length)
    return 0 if cdb[byte] & NDOB else check_data_out(task, found.step)


def _write_same(task: Task) -> Coroutine[Any, Any, None]:
    lu, found = task.logical_unit, task.parameters
    assert lu is not None
    flags = task.cdb[flags_byte(task.cdb)]
    if flags & NDOB:
        return _fill(task, lu, found, bytes(lu.block_size), INITIAL if found.protect else None, unmaps=bool(flags & UNMAP))
    data, protection = sent_blocks(task, lu, found, 1)
    return _fill(task, lu, found, bytes(data), protection, unmaps=bool(flags & UNMAP))


async def _fill(task: Task, lu: LogicalUnit, found: Access, block: bytes, protection: bytes | None, *, unmaps: bool) -> None:
    """Blocks are unmapped only if they then read as what was to be written (SBC-4 4.7.3.4.4)."""
    lba, blocks = found.lba, found.blocks
    async with lu.extents.lock(task, lba, blocks, exclusive=True):
        if unmaps and lu.provisioning.unmapped_reads_zero and not any(block) and protection in {None, INITIAL}:
            await lu.medium.unmap(lba, blocks)
        elif protection is None and not any(block):
            await lu.medium.write_zeroes(lba, blocks, may_unmap=False)
        else:
            await _repeat(lu, found, block, protection)
        await lu.medium.settle()


async def _repeat(lu: LogicalUnit, found: Access, block: bytes, protection: bytes | None) -> None:
    step = min(found.blocks, CHUNK >> lu.block_shift)
    buffer = memoryview(block * step)
    for start in range(0, found.blocks, step):
        count = min(step, found.blocks - start)
        piece = buffer[: count << lu.block_shift]
        if protection is None:
            await lu.medium.write_uncommitted([piece], found.lba + start)
        else:
            there = replicate(lu.protection.kind, protection, count, start)
            await medium_of(lu).write_protected([piece], there, found.lba + start, settle=False)
        await lu.breathe()


HANDLERS = {
    "read": Handler(_prepare_read, _read),
    "write": Handler(_prepare_write, with_sent_blocks(partial(_write, exclusive=False))),
    "write_atomic": Handler(_prepare_write_atomic, with_sent_blocks(partial(_write, exclusive=True))),
    "orwrite": Handler(_prepare_write, with_sent_blocks(_orwrite)),
    "compare_and_write": Handler(_prepare_compare_and_write, _compare_and_write),
    "write_same": Handler(_prepare_write_same, _write_same),
}
