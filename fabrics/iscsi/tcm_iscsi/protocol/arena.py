"""Memory for Data-In on the express lane (RFC 7143 11.7)."""

from __future__ import annotations

SPARE_ARENAS = 4
"""Arenas kept for when a socket does not take all at once."""


class DataInArena:
    """Memory that express reads fill: handed out piece by piece, all of it free again once sent."""

    __slots__ = ("free", "size", "spare", "view")

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))
        self.size = size
        self.free = 0
        self.spare: list[memoryview] = []

    def lend(self) -> memoryview:
        """What has been filled is still to be sent: go on with other memory, until :meth:`take_back`."""
        lent = self.view
        self.view = self.spare.pop() if self.spare else memoryview(bytearray(self.size))
        self.free = 0
        return lent

    def take_back(self, lent: memoryview) -> None:
        """Everything in it has been sent."""
        if len(self.spare) < SPARE_ARENAS:
            self.spare.append(lent)
