"""The copy engine of third-party copies: moves logical blocks from one logical unit to another, beside other commands.

It goes window by window. A window's blocks are locked, shared where they are read and exclusively where they are written, and
made durable if there is no write cache; between windows others get in, and the copy is asked whether it may still go on. In a
window, holes are not moved but made again, and the rest is copied by the backstores if they can (``copy_range``), otherwise
through one buffer: a copy takes at most ``CHUNK`` bytes of memory.
"""

from __future__ import annotations

import enum
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tcm.backstore import Support
from tcm.scsi.check_condition import CommandTerminated
from tcm.target.medium import CHUNK, STRIDE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tcm.target.copy_manager import CopyOperation
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITNexus

T = TypeVar("T")

WINDOW = 16 << 20
"""Bytes that are locked, and copied, at a time."""


class Side(enum.IntEnum):
    """Which end of a copy; the values are those of SENSE DATA SOURCE (SPC-4 4.5.2.7)."""

    SOURCE = 1
    DESTINATION = 2


class CopyFailed(Exception):
    """What a command to the source or the destination would have ended with.

    :param error: its status, and sense data if it has any.
    """

    def __init__(self, side: Side, error: CommandTerminated) -> None:
        super().__init__(f"{side.name.lower()}: {error}")
        self.side = side
        self.error = error


class Place(NamedTuple):
    """Where a copy begins to read or to write."""

    logical_unit: LogicalUnit
    nexus: ITNexus
    """In whose name: if it is preempted with PREEMPT AND ABORT, the copy is aborted."""
    offset: int
    """Bytes."""

    def span(self, start: int, length: int) -> tuple[int, int]:
        """First block and number of blocks that have any of ``length`` bytes, ``start`` bytes further on."""
        lead, tail = self.edges(start, length)
        shift = self.logical_unit.block_shift
        return self.offset + start >> shift, lead + length + tail >> shift

    def edges(self, start: int, length: int) -> tuple[int, int]:
        """Bytes of the first of these blocks that come before, and of the last that come after."""
        mask = self.logical_unit.block_size - 1
        first = self.offset + start
        return first & mask, -(first + length) & mask


async def copy(
    operation: CopyOperation, source: Place, destination: Place, length: int, *, admit: Callable[[], None] = lambda: None
) -> None:
    """Copy ``length`` bytes within both media. What else is in the first and the last block stays. Ranges that overlap come out
    as if all was read before the first byte was written.

    ``operation.transferred`` counts the bytes that have been written, without gap from the start.

    :param admit: called before each window; raises if the copy may not go on.

    Raises :class:`CopyFailed`, and whatever ``admit`` raises.
    """
    overlaps = source.logical_unit is destination.logical_unit and _intersect(
        source.span(0, length), destination.span(0, length)
    )
    backwards = overlaps and source.offset < destination.offset
    windows = range(0, length, WINDOW)
    with operation.touching(source.logical_unit, source.nexus), operation.touching(destination.logical_unit, destination.nexus):
        for start in reversed(windows) if backwards else windows:
            admit()
            size = min(WINDOW, length - start)
            if overlaps:
                async with _held_together(operation, source, destination, start, size):
                    await _move(source, destination, start, size, backwards=backwards)
                    await _settle(destination)
            else:
                async with _held(operation, source, destination, start, size):
                    await _copy_window(source, destination, start, size)
                    await _settle(destination)
            operation.steps += 1
            if not backwards:
                operation.transferred += size
            await destination.logical_unit.breathe()
    if backwards:
        operation.transferred += length


async def zero(operation: CopyOperation, destination: Place, length: int, *, admit: Callable[[], None] = lambda: None) -> None:
    """Make ``length`` bytes read as zeroes, unmapped where that does it. Otherwise as :func:`copy`."""
    unit = destination.logical_unit
    with operation.touching(unit, destination.nexus):
        for start in range(0, length, STRIDE):
            admit()
            size = min(STRIDE, length - start)
            async with unit.extents.lock(operation, *destination.span(start, size), exclusive=True):
                await _zero(destination, start, size)
                await _settle(destination)
            operation.steps += 1
            operation.transferred += size
            await unit.breathe()


async def write(operation: CopyOperation, destination: Place, data: bytes) -> None:
    """Write a few bytes, of one block at most. Otherwise as :func:`copy`."""
    unit = destination.logical_unit
    with operation.touching(unit, destination.nexus):
        async with unit.extents.lock(operation, *destination.span(0, len(data)), exclusive=True):
            await _of(Side.DESTINATION, _write(destination, 0, memoryview(data)))
            await _settle(destination)
        operation.steps += 1
        operation.transferred += len(data)


def _intersect(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two ranges of blocks have one in common."""
    return first[0] < sum(second) and second[0] < sum(first)


@asynccontextmanager
async def _held(operation: CopyOperation, source: Place, destination: Place, start: int, length: int) -> AsyncGenerator[None]:
    """The source shared and the destination exclusively.

    Never one while waiting for the other: two copies in opposite directions would wait for each other for ever.
    """
    read, written = source.logical_unit.extents, destination.logical_unit.extents
    from_first, from_blocks = source.span(start, length)
    to_first, to_blocks = destination.span(start, length)
    while True:
        hold = await written.acquire(operation, to_first, to_blocks, exclusive=True)
        if read.is_free(from_first, from_blocks, exclusive=False):
            break
        written.release(hold)
        async with read.lock(operation, from_first, from_blocks, exclusive=False):
            pass
    try:
        async with read.lock(operation, from_first, from_blocks, exclusive=False):
            yield
    finally:
        written.release(hold)


@asynccontextmanager
async def _held_together(
    operation: CopyOperation, source: Place, destination: Place, start: int, length: int
) -> AsyncGenerator[None]:
    """Both ranges of one logical unit, and what is between them."""
    (low, low_blocks), (high, high_blocks) = sorted((source.span(start, length), destination.span(start, length)))
    blocks = max(low + low_blocks, high + high_blocks) - low
    async with destination.logical_unit.extents.lock(operation, low, blocks, exclusive=True):
        yield


async def _copy_window(source: Place, destination: Place, start: int, length: int) -> None:
    if any(source.edges(start, length)) or any(destination.edges(start, length)):
        await _move(source, destination, start, length, backwards=False)
        return
    position, end = start, start + length
    for offset, run, mapped in await _runs(source, destination, start, length):
        if mapped:
            await _transfer(source, destination, offset, run)
        else:
            await _zero(destination, offset, run)
        position = offset + run
    if position < end:
        await _transfer(source, destination, position, end - position)


async def _runs(source: Place, destination: Place, start: int, length: int) -> list[tuple[int, int, bool]]:
    """Position, length and whether it holds data, of runs without gaps from ``start`` on, in whole blocks of both units."""
    unit = source.logical_unit
    if unit.capabilities.extents is not Support.NATIVE or not unit.capabilities.unmap_zeroes:
        return []
    mask = max(unit.block_size, destination.logical_unit.block_size) - 1
    extents = await _of(Side.SOURCE, unit.medium.extents(*source.span(start, length)))
    runs: list[tuple[int, int, bool]] = []
    position = start
    for extent in extents:
        first = max(extent.offset - source.offset, start)
        last = min(extent.offset + extent.length - source.offset, start + length)
        if extent.mapped:
            continue
        first, last = start + (first - start + mask & ~mask), start + (last - start & ~mask)
        if first < last:
            if position < first:
                runs.append((position, first - position, True))
            runs.append((first, last - first, False))
            position = last
    return runs


async def _transfer(source: Place, destination: Place, position: int, length: int) -> None:
    """By the backstores themselves as far as they can; the rest is read and written."""
    unit, mask = destination.logical_unit, max(source.logical_unit.block_size, destination.logical_unit.block_size) - 1
    read = unit.medium.copy_range(source.logical_unit.medium, source.offset + position, destination.offset + position, length)
    done = await _of(Side.DESTINATION, read) & ~mask
    if done < length:
        await _move(source, destination, position + done, length - done, backwards=False)


async def _move(source: Place, destination: Place, position: int, length: int, *, backwards: bool) -> None:
    """Read and write, chunk by chunk."""
    buffer = memoryview(bytearray(min(length, CHUNK)))
    chunks = range(position, position + length, CHUNK)
    for start in reversed(chunks) if backwards else chunks:
        piece = buffer[: min(CHUNK, position + length - start)]
        await _of(Side.SOURCE, _read(source, start, piece))
        await _of(Side.DESTINATION, _write(destination, start, piece))
        await destination.logical_unit.breathe()


async def _read(source: Place, start: int, piece: memoryview) -> None:
    lead, tail = source.edges(start, len(piece))
    buffers = [memoryview(bytearray(lead)), piece, memoryview(bytearray(tail))]
    await source.logical_unit.medium.read([buffer for buffer in buffers if buffer], source.span(start, len(piece))[0])


async def _write(destination: Place, start: int, piece: memoryview) -> None:
    """What of the first and the last block is not to be changed is read first."""
    unit = destination.logical_unit
    lba, blocks = destination.span(start, len(piece))
    lead, tail = destination.edges(start, len(piece))
    first, last = memoryview(bytearray(unit.block_size)), memoryview(bytearray(unit.block_size))
    if lead:
        await unit.medium.read([first], lba)
    if tail:
        await unit.medium.read([last], lba + blocks - 1)
    buffers = [first[:lead], piece, last[unit.block_size - tail :]]
    await unit.medium.write_uncommitted([buffer for buffer in buffers if buffer], lba)


async def _zero(destination: Place, position: int, length: int) -> None:
    unit = destination.logical_unit
    lba, blocks = destination.span(position, length)
    await _of(Side.DESTINATION, unit.medium.write_zeroes(lba, blocks, may_unmap=unit.provisioning.thin))


async def _settle(destination: Place) -> None:
    await _of(Side.DESTINATION, destination.logical_unit.medium.settle())


async def _of(side: Side, action: Awaitable[T]) -> T:
    try:
        return await action
    except CommandTerminated as error:
        raise CopyFailed(side, error) from error
