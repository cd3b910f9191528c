"""Memory that commands hold, within limits for each initiator and for the port: what is beyond waits its turn."""

from __future__ import annotations

RESERVE = 512 << 10
"""Bytes that each initiator may hold, whatever the others do."""
PORT_LIMIT = 64 << 20
"""Bytes that all initiators of a port may hold, beyond what is reserved for each."""

USED_AGAIN = 32 << 10
"""Bytes from which on a buffer is kept for the next command: fresh memory of that size has to be had from the kernel, page by
page, which costs more than filling it."""
KEPT_BUFFERS = 4 << 20
"""Bytes of all of them."""


class Buffers:
    """Buffers of long commands, used again by others of the same length. What is in a buffer is of the command before."""

    __slots__ = ("free", "kept")

    def __init__(self) -> None:
        self.free: dict[int, list[memoryview]] = {}
        """By length."""
        self.kept = 0
        """Bytes."""

    def take(self, length: int) -> memoryview:
        """One of that length."""
        free = self.free.get(length)
        if free:
            self.kept -= length
            return free.pop()
        return memoryview(bytearray(length))

    def give_back(self, buffer: memoryview) -> None:
        """It is whole, and nobody will look at it any more."""
        length = len(buffer)
        if length < USED_AGAIN or length > KEPT_BUFFERS:
            return
        if self.kept + length > KEPT_BUFFERS:  # of other lengths, which come no more, as likely as not
            self.free.clear()
            self.kept = 0
        self.free.setdefault(length, []).append(buffer)
        self.kept += length


class Pool:
    """What all initiators of a port share."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = PORT_LIMIT) -> None:
        self.limit = limit
        self.used = 0


class Memory:
    """What one initiator holds of a pool.

    :param limit: bytes that it may hold at a time. One command always may, however much it is.
    """

    __slots__ = ("limit", "pool", "used")

    def __init__(self, pool: Pool, limit: int) -> None:
        self.pool = pool
        self.limit = limit
        self.used = 0

    def has_room(self, size: int) -> bool:
        """Whether so much more may be taken now."""
        used, pool = self.used, self.pool
        if used and used + size > self.limit:
            return False
        return used + size <= RESERVE or not pool.used or pool.used + size <= pool.limit

    def take(self, size: int) -> None:
        """It is held from now on."""
        self.used += size
        self.pool.used += size

    def give_back(self, size: int) -> None:
        """It is not any more."""
        self.used -= size
        self.pool.used -= size
