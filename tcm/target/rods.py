"""What ROD tokens stand for, and which of them a change of the medium concerns."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from tcm.scsi.rod_tokens import identifier_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tcm.scsi.rod_token_commands import Range
    from tcm.scsi.rod_token_sense import InvalidTokenOperation
    from tcm.target.logical_unit import LogicalUnit


class Rod:
    """What a token stands for.

    :param ranges: of the logical unit, in the order in which they make up the data; none empty, none overlapping another.
    :param timeout: INACTIVITY TIMEOUT, seconds.
    :param until: when its lifetime is over.
    """

    __slots__ = ("ended", "expires", "identifier", "length", "logical_unit", "ranges", "timeout", "token", "until", "users")

    def __init__(
        self, logical_unit: LogicalUnit, ranges: Sequence[Range], token: bytes, *, timeout: float, until: float
    ) -> None:
        self.logical_unit = logical_unit
        self.ranges = tuple(ranges)
        self.length = sum(each.blocks for each in ranges) << logical_unit.block_shift
        """In bytes."""
        self.token = token
        self.identifier = identifier_of(token)
        self.timeout = timeout
        self.until = until
        self.expires = until
        """When it is over if nobody uses it before."""
        self.users = 0
        """Commands that are using it."""
        self.ended: type[InvalidTokenOperation] | None = None
        """Why it is not valid any more."""

    def overlaps(self, first: int, end: int) -> bool:
        """Whether a block of ``[first, end)`` belongs to it."""
        return any(each.lba < end and first < each.end for each in self.ranges)

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Where ``length`` bytes of the data are, ``offset`` bytes from its start on: byte offset on the medium, and length.

        Ends where the data ends.
        """
        shift = self.logical_unit.block_shift
        for each in self.ranges:
            size = each.blocks << shift
            if offset < size and length:
                step = min(length, size - offset)
                yield (each.lba << shift) + offset, step
                offset += step
                length -= step
            offset -= size

    def check(self) -> None:
        """Raises :class:`InvalidTokenOperation` if it has ended."""
        if self.ended is not None:
            raise self.ended


class WatchedRods:
    """The RODs of one logical unit.

    Sorted by where their ranges begin, with how far any range up to each one reaches: so a change that concerns none is known
    to after two comparisons and a bisection, however many there are. What has to be walked over ends with the change.
    """

    def __init__(self) -> None:
        self._rods: dict[int, Rod] = {}
        self._sorted: list[tuple[int, int, int]] = []
        """First block, end, identifier."""
        self._first: list[int] = []
        self._reach: list[int] = []
        self._stale = False
        self.ranges = 0
        """In all of them."""

    def __bool__(self) -> bool:
        return bool(self._rods)

    def __iter__(self) -> Iterator[Rod]:
        return iter(tuple(self._rods.values()))

    def add(self, rod: Rod) -> None:
        """Watch its ranges."""
        self._rods[rod.identifier] = rod
        self.ranges += len(rod.ranges)
        self._stale = True

    def remove(self, rod: Rod) -> None:
        """Do not watch them any more."""
        del self._rods[rod.identifier]
        self.ranges -= len(rod.ranges)
        self._stale = True

    def touched(self, first: int, end: int) -> list[Rod]:
        """Those that a block of ``[first, end)`` belongs to."""
        if self._stale:
            self._sort()
        index = bisect_left(self._first, end)
        found = {}
        while index and self._reach[index - 1] > first:
            index -= 1
            _, stop, identifier = self._sorted[index]
            if stop > first:
                found[identifier] = self._rods[identifier]
        return list(found.values())

    def _sort(self) -> None:
        self._sorted = sorted((each.lba, each.end, rod.identifier) for rod in self._rods.values() for each in rod.ranges)
        self._first = [first for first, _, _ in self._sorted]
        self._reach = list(accumulate((end for _, end, _ in self._sorted), max))
        self._stale = False
