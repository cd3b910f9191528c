"""LBA-range locks: what makes COMPARE AND WRITE and its like atomic to every other command.

Shared for ordinary reads and writes that take their time, exclusive for the atomic ones; first come, first served where ranges
overlap. While nothing exclusive is held or waited for, whoever finishes without awaiting needs no lock at all.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


class Hold:
    """A range ``[first, end)`` that is held or waited for."""

    __slots__ = ("end", "exclusive", "first", "granted", "owner")

    def __init__(self, owner: object, first: int, end: int, exclusive: bool) -> None:
        self.owner = owner
        self.first = first
        self.end = end
        self.exclusive = exclusive
        self.granted: anyio.Event | None = None
        """Set only while it waits."""

    def conflicts(self, other: Hold) -> bool:
        """Whether the two must not be held at once."""
        return (self.exclusive or other.exclusive) and self.first < other.end and other.first < self.end


class ExtentLocks:
    """The ranges of one logical unit.

    :param on_exclusive: called with True when the first exclusive hold is asked for, with False when the last is gone.
    """

    def __init__(self, on_exclusive: Callable[[bool], None] = lambda _: None) -> None:
        self._held: list[Hold] = []
        self._waiting: deque[Hold] = deque()
        self._on_exclusive = on_exclusive
        self.exclusive = 0
        """Exclusive ranges held or waited for; while 0, a shared access that does not await may go ahead."""

    def is_free(self, first: int, blocks: int, *, exclusive: bool) -> bool:
        """Whether :meth:`acquire` would not have to wait."""
        wanted = Hold(None, first, first + blocks, exclusive)
        return not any(hold.conflicts(wanted) for hold in self._held) and not any(
            hold.conflicts(wanted) for hold in self._waiting
        )

    async def acquire(self, owner: object, first: int, blocks: int, *, exclusive: bool) -> Hold:
        """Hold ``blocks`` from ``first`` on; waits for every earlier conflicting holder and waiter."""
        hold = Hold(owner, first, first + blocks, exclusive)
        free = self.is_free(first, blocks, exclusive=exclusive)
        if exclusive:
            self._count(1)
        if free:
            self._held.append(hold)
            return hold
        hold.granted = anyio.Event()
        self._waiting.append(hold)
        try:
            await hold.granted.wait()
        except BaseException:
            self.release(hold)
            raise
        return hold

    def release(self, hold: Hold) -> None:
        """Give a range back, held or still waited for."""
        if hold in self._held:
            self._held.remove(hold)
        else:
            self._waiting.remove(hold)
        if hold.exclusive:
            self._count(-1)
        self._grant()

    def strand(self, owner: object) -> None:
        """``owner`` was aborted while it is in its ranges: let nobody new in, whatever they want, until it is out."""
        for hold in self._held:
            if hold.owner is owner and not hold.exclusive:
                hold.exclusive = True
                self._count(1)

    @asynccontextmanager
    async def lock(self, owner: object, first: int, blocks: int, *, exclusive: bool) -> AsyncGenerator[Hold]:
        """Hold a range for the length of a ``with`` block."""
        hold = await self.acquire(owner, first, blocks, exclusive=exclusive)
        try:
            yield hold
        finally:
            self.release(hold)

    def _count(self, step: int) -> None:
        before = self.exclusive
        self.exclusive = before + step
        if not before or not self.exclusive:
            self._on_exclusive(bool(self.exclusive))

    def _grant(self) -> None:
        still: deque[Hold] = deque()
        for hold in self._waiting:
            if any(hold.conflicts(other) for other in self._held) or any(hold.conflicts(other) for other in still):
                still.append(hold)
            else:
                self._held.append(hold)
                assert hold.granted is not None
                hold.granted.set()
        self._waiting = still
