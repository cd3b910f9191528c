"""``FILE.protection``: protection information beside a file, raw from its first byte on as LIO's fileio keeps it.

A trailer behind it holds the label. Its check sum covers the length of what is before it, so a file that was cut, that was
half made, or that LIO made has no label.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from typing import TYPE_CHECKING

from tcm_backstores.files import read_all, write_all
from tcm_backstores.opening import sync_directory

if TYPE_CHECKING:
    from tcm.backstore import Buffer

log = logging.getLogger("tcm.backstores")

SUFFIX = ".protection"
MAGIC = b"tcm protection 1"
TRAILER = 512
_HEAD = struct.Struct(">16sQHI")
"""Magic, length of the area, length of the label, check sum of these three (itself zero) and the label."""
MAXIMUM_LABEL = 256


def _trailer(length: int, label: bytes) -> bytes:
    check = zlib.crc32(_HEAD.pack(MAGIC, length, len(label), 0) + label)
    return (_HEAD.pack(MAGIC, length, len(label), check) + label).ljust(TRAILER, b"\0")


class ProtectionFile:
    """All methods may sleep, but :attr:`label`.

    :param path: the disk's.
    """

    def __init__(self, path: str) -> None:
        self.path = path + SUFFIX
        self.label = b""
        self._fd = -1

    def open(self, *, writable: bool) -> None:
        """Take up what is there; nothing is created. Raises ``OSError``."""
        try:
            self._fd = os.open(self.path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        self.label = self._read_label()
        if not self.label and os.fstat(self._fd).st_size:
            log.warning("%s is not complete or not ours: it counts as no protection information", self.path)

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def read(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``."""
        read_all(self._fd, [buffer], offset)

    def write(self, data: Buffer, offset: int, flags: int) -> None:
        """``flags``: ``RWF_DSYNC``."""
        write_all(self._fd, [data], offset, flags)

    def flush(self) -> None:
        """What was written is durable when this returns."""
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def set(self, length: int, label: bytes) -> None:
        """See :meth:`tcm.backstore.Backstore.set_protection`. A crash in the middle leaves no label."""
        if len(label) > MAXIMUM_LABEL:
            raise ValueError(f"a label of {len(label)} bytes")
        self.label = b""
        if not length and not label:
            self.close()
            if os.path.lexists(self.path):
                os.unlink(self.path)
                sync_directory(self.path)
            return
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            sync_directory(self.path)
        os.ftruncate(self._fd, length)
        os.fsync(self._fd)
        if label:
            write_all(self._fd, [_trailer(length, label)], length)
            os.fsync(self._fd)
        self.label = label

    def _read_label(self) -> bytes:
        length = os.fstat(self._fd).st_size - TRAILER
        if length < 0:
            return b""
        trailer = bytearray(TRAILER)
        read_all(self._fd, [memoryview(trailer)], length)
        label_length = _HEAD.unpack_from(trailer)[2]
        label = bytes(trailer[_HEAD.size : _HEAD.size + min(label_length, MAXIMUM_LABEL)])
        return label if trailer == _trailer(length, label) else b""
