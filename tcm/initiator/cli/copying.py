"""``read`` and ``write``: logical blocks to and from a file, several requests at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import anyio

from tcm.failure import ConfigError
from tcm.initiator.results import InitiatorError

if TYPE_CHECKING:
    from tcm.initiator.commands import Commands

CHUNK = 256 << 10
"""Bytes of one READ or WRITE."""
DEPTH = 8
"""Of those at a time."""


async def copy_out(unit: Commands, lba: int, blocks: int | None, output: BinaryIO) -> None:
    """Logical blocks into a file; all from ``lba`` on if ``blocks`` is None. Raises ConfigError, InitiatorError."""
    total, size = await unit.capacity()
    if lba >= total or (blocks or 0) > total - lba:
        raise ConfigError(f"the logical unit has {total} blocks of {size} bytes: ask for less")
    end = total if blocks is None else lba + blocks
    step = max(1, CHUNK // size)
    for first in range(lba, end, step * DEPTH):
        pieces: dict[int, bytes] = {}

        async def fetch(at: int, pieces: dict[int, bytes] = pieces) -> None:
            pieces[at] = await unit.read(at, min(step, end - at))

        async with anyio.create_task_group() as group:
            for at in range(first, min(first + step * DEPTH, end), step):
                group.start_soon(fetch, at)
        for at in sorted(pieces):
            output.write(pieces[at])
    output.flush()


async def copy_in(unit: Commands, lba: int, source: BinaryIO) -> None:
    """A file into logical blocks, the last one filled up with zeros; flushed at the end. Raises InitiatorError."""
    total, size = await unit.capacity()
    step = max(1, CHUNK // size) * size
    while data := source.read(step * DEPTH):
        data = data.ljust(-(-len(data) // size) * size, b"\0")
        if lba + len(data) // size > total:
            raise InitiatorError(f"the logical unit has {total} blocks of {size} bytes: the data does not fit")
        async with anyio.create_task_group() as group:
            for offset in range(0, len(data), step):
                group.start_soon(unit.write, lba + offset // size, data[offset : offset + step])
        lba += len(data) // size
    await unit.synchronize_cache()
