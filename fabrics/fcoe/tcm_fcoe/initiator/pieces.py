"""Which bytes of a transfer are there, when frames are late, lost or doubled."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Pieces:
    """Half-open ranges: disjoint, in order, not touching."""

    __slots__ = ("ranges",)

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> bool:
        """Bytes ``start`` to ``end``; whether any of them is new."""
        ranges = self.ranges
        first = bisect_left(ranges, start, key=lambda each: each[1])
        after = bisect_right(ranges, end, key=lambda each: each[0])
        if first < after:
            if ranges[first][0] <= start and end <= ranges[first][1]:
                return False
            start, end = min(start, ranges[first][0]), max(end, ranges[after - 1][1])
        ranges[first:after] = [(start, end)]
        return True

    def contiguous(self) -> int:
        """All bytes before are there."""
        return self.ranges[0][1] if self.ranges and self.ranges[0][0] == 0 else 0
