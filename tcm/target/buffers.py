"""A logical unit's two buffers of READ BUFFER and WRITE BUFFER: memory that has nothing to do with the medium."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import CommandSequenceError, EchoBufferOverwritten

if TYPE_CHECKING:
    from tcm.target.nexus import ITLNexus

DATA_BUFFER_CAPACITY = 64 << 10
ECHO_BUFFER_CAPACITY = 4 << 10


class DataBuffer:
    """What any I_T nexus wrote, every other can read; zeroes at first. It costs nothing before it is written."""

    def __init__(self) -> None:
        self._data = bytearray()

    def read(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes, up to the end of the buffer."""
        length = min(length, DATA_BUFFER_CAPACITY - offset)
        return bytes(self._data[offset : offset + length]).ljust(length, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        """Within the capacity."""
        if not self._data:
            self._data = bytearray(DATA_BUFFER_CAPACITY)
        self._data[offset : offset + len(data)] = data


class EchoBuffer:
    """What an I_T nexus wrote, only that one can read, until another one writes (SPC-4 6.18.7)."""

    def __init__(self) -> None:
        self._data = b""
        self._owner: ITLNexus | None = None
        self._overwritten: set[ITLNexus] = set()

    def read(self, itl: ITLNexus) -> bytes:
        """The data. Raises ECHO BUFFER OVERWRITTEN, or COMMAND SEQUENCE ERROR if the nexus has written none."""
        if itl is self._owner:
            return self._data
        raise EchoBufferOverwritten if itl in self._overwritten else CommandSequenceError

    def write(self, itl: ITLNexus, data: bytes) -> None:
        """Within the capacity."""
        if self._owner is not None:
            self._overwritten.add(self._owner)
        self._overwritten.discard(itl)
        self._owner, self._data = itl, data

    def forget(self, itl: ITLNexus) -> None:
        """The nexus is lost, and its data with it."""
        self._overwritten.discard(itl)
        if itl is self._owner:
            self._owner, self._data = None, b""

    def clear(self) -> None:
        """Logical unit reset: nobody has written any data."""
        self._overwritten.clear()
        self._owner, self._data = None, b""
