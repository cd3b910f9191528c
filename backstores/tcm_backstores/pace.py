"""Keeps writes that may sleep out of the event loop for a while after one has slept."""

from __future__ import annotations

SLOW = 0.005
"""Seconds. A cached 4 KiB write takes 4 us and one of 1 MiB 0.3 ms: this one waited for something (dirty page throttling)."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 32.0


class Pace:
    """Doubles the pause as long as the disk stays slow, so the event loop sleeps for a small part of the time at most."""

    __slots__ = ("_pause", "resume")

    def __init__(self) -> None:
        self.resume = 0.0
        """Time before which writes belong in a worker thread."""
        self._pause = FIRST_PAUSE

    def took(self, start: float, end: float) -> None:
        """A write in the event loop ran from ``start`` to ``end``, in seconds of any one monotonic clock."""
        if end - start < SLOW:
            return
        calm = start - self.resume > self._pause
        self._pause = FIRST_PAUSE if calm else min(self._pause * 2, LONGEST_PAUSE)
        self.resume = end + self._pause
