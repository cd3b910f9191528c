"""fallocate(2) with the modes that the os module leaves out. Calls release the GIL and sleep: worker threads only."""

from __future__ import annotations

import ctypes
import errno
import os

KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10

UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.ENOTTY})
"""Errors that say that the file system or device has no such mode, rather than that it failed."""

_libc = ctypes.CDLL(None, use_errno=True)
# fallocate64 takes 64-bit offsets on 32-bit systems too; musl has only fallocate, with 64-bit offsets everywhere.
_fallocate = getattr(_libc, "fallocate64", None) or _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int


def _call(fd: int, mode: int, offset: int, length: int) -> bool:
    while _fallocate(fd, mode | KEEP_SIZE, offset, length):
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in UNSUPPORTED:
            return False
        raise OSError(number, os.strerror(number))
    return True


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Make ``length`` bytes at ``offset`` a hole that reads as zeroes; False if that is not supported here.

    :raises OSError: if it is supported and failed.
    """
    return _call(fd, PUNCH_HOLE, offset, length)


def zero_range(fd: int, offset: int, length: int) -> bool:
    """Make ``length`` bytes at ``offset`` read as zeroes and keep them allocated; False if that is not supported here.

    :raises OSError: if it is supported and failed.
    """
    return _call(fd, ZERO_RANGE, offset, length)
