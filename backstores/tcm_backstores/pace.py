"""Keeps writes that may sleep out of the event loop for a while after one has slept."""

from __future__ import annotations

SLOW = 0.005
"""Seconds. A cached 4 KiB write takes 4 us and one of 1 MiB 0.3 ms: this one waited for something (dirty page throttling)."""
REST = 20
"""Pause after a slow write, in multiples of the time it took: the event loop sleeps for a twentieth of the time at most."""


class Pace:
    """In proportion: one stall (this process may just have been preempted) costs little, a slow disk is left alone."""

    __slots__ = ("resume",)

    def __init__(self) -> None:
        self.resume = 0.0
        """Time before which writes belong in a worker thread."""

    def took(self, start: float, end: float) -> None:
        """A write in the event loop ran from ``start`` to ``end``, in seconds of any one monotonic clock."""
        if end - start >= SLOW:
            self.resume = end + (end - start) * REST
