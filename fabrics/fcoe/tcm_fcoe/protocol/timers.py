"""Timers of a sans-IO machine: a heap of moments, run by whoever has the clock."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer:
    """One that was set; it runs once."""

    __slots__ = ("_timers", "action", "when")

    def __init__(self, timers: Timers, when: float, action: Callable[[float], None] | None) -> None:
        self._timers = timers
        self.when = when
        self.action = action

    def cancel(self) -> None:
        """It does not run any more; one that has run, or was cancelled, is left alone."""
        if self.action is not None:
            self.action = None
            self._timers._cancelled_one()


class Timers:
    """All those of one machine."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = count()
        self._cancelled = 0

    def __len__(self) -> int:
        """How many are to run yet."""
        return len(self._heap) - self._cancelled

    def set(self, when: float, action: Callable[[float], None]) -> Timer:
        """Call ``action(now)`` at the first :meth:`run` that is not before ``when`` (seconds)."""
        timer = Timer(self, when, action)
        heappush(self._heap, (when, next(self._count), timer))
        return timer

    @property
    def next(self) -> float:
        """When the next is due; ``inf``: none is set."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else inf

    def run(self, now: float) -> None:
        """Run what is due. What is set meanwhile for a moment that has passed runs at the next call."""
        last = next(self._count)
        while self.next <= now and self._heap[0][1] < last:
            timer = heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is not None:
                action(now)

    def _cancelled_one(self) -> None:
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [each for each in self._heap if each[2].action is not None]
            heapify(self._heap)
            self._cancelled = 0
