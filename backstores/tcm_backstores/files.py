"""Whole reads and writes at an offset, and where a file's holes are. Every function here may sleep."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from tcm.backstore import BackstoreError, BackstoreErrorKind, Buffer, Extent

if TYPE_CHECKING:
    from collections.abc import Sequence

IOV_MAX = 1024
"""Buffers in one system call, on every Linux."""
MAX_EXTENTS = 1024
ZEROES = memoryview(bytes(1 << 20))


def total(buffers: Sequence[Buffer]) -> int:
    """Bytes in all the buffers together."""
    return len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))


def _rest(buffers: Sequence[Buffer], done: int) -> list[memoryview]:
    """What is left of ``buffers`` after their first ``done`` bytes."""
    left = []
    for buffer in buffers:
        if done < len(buffer):
            left.append(memoryview(buffer)[done:])
            done = 0
        else:
            done -= len(buffer)
    return left


def read_all(fd: int, buffers: Sequence[memoryview], offset: int) -> None:
    """Fill every buffer.

    :raises BackstoreError: the file ends inside the range (somebody has cut it).
    """
    left: Sequence[memoryview] = buffers
    while left:
        done = os.preadv(fd, left[:IOV_MAX], offset)
        if not done:
            raise BackstoreError(BackstoreErrorKind.RESIZED, "the file has become shorter than the disk", offset)
        offset += done
        left = _rest(left, done)


def write_all(fd: int, buffers: Sequence[Buffer], offset: int, flags: int = 0) -> None:
    """Write every byte of every buffer. With ``RWF_DSYNC`` in ``flags`` each byte is durable when this returns.

    :raises OSError: some prefix has been written.
    """
    left: Sequence[Buffer] = buffers
    while left:
        done = os.pwritev(fd, left[:IOV_MAX], offset, flags)
        if not done:
            raise OSError(errno.EIO, "a write took no bytes")
        offset += done
        left = _rest(left, done)


def write_zero_bytes(fd: int, offset: int, length: int) -> None:
    """Zero the range by writing, where the file system knows no better way."""
    for start in range(offset, offset + length, len(ZEROES)):
        write_all(fd, (ZEROES[: offset + length - start],), start)


def copy_all(source: int, source_offset: int, destination: int, offset: int, length: int) -> int:
    """Copy between files in the kernel, by sharing the storage where the file system can.

    :returns: bytes copied; fewer than ``length`` if the files or their systems cannot do it, or if it failed.
    """
    done = 0
    while done < length:
        try:
            step = os.copy_file_range(source, destination, length - done, source_offset + done, offset + done)
        except OSError:
            break
        if not step:
            break
        done += step
    return done


def data_extents(fd: int, offset: int, length: int) -> list[Extent]:
    """The range's runs of data and holes, by SEEK_DATA and SEEK_HOLE; at most ``MAX_EXTENTS``, so perhaps only a prefix.

    The file's own position moves: fit for descriptors that are only used with explicit offsets.
    """
    runs: list[Extent] = []
    end = offset + length
    while offset < end and len(runs) < MAX_EXTENTS:
        try:
            data = min(os.lseek(fd, offset, os.SEEK_DATA), end)
            stop = min(os.lseek(fd, offset, os.SEEK_HOLE), end) if data == offset else data
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end of the file
                data = stop = end
            elif error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # cannot tell: a block device
                data, stop = offset, end
            else:
                raise
        runs.append(Extent(offset, stop - offset, data == offset))
        offset = stop
    return runs
