"""What the kernel says of an open file's file system or block device."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

TMPFS_MAGIC = 0x01021994
RAMFS_MAGIC = 0x858458F6
BLKSSZGET = 0x1268
BLKPBSZGET = 0x127B

_libc = ctypes.CDLL(None, use_errno=True)


def in_memory(fd: int) -> bool:
    """Whether the file lives in RAM alone (tmpfs, ramfs), so that reading and writing it never waits for a disk."""
    statfs = ctypes.create_string_buffer(256)  # struct statfs is 120 bytes; its first member is the type, a long
    if _libc.fstatfs(fd, statfs):
        return False
    return ctypes.c_ulong.from_buffer(statfs).value & 0xFFFFFFFF in (TMPFS_MAGIC, RAMFS_MAGIC)


def logical_block_size(fd: int) -> int:
    """Of an open block device, in bytes."""
    return _ioctl_int(fd, BLKSSZGET)


def physical_block_size(fd: int) -> int:
    """Of an open block device, in bytes."""
    return _ioctl_int(fd, BLKPBSZGET)


def _ioctl_int(fd: int, request: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0])


def queue_limit(fd: int, name: str) -> int:
    """A number from the ``queue`` directory of an open block device in sysfs; 0 if it is not there."""
    device = os.fstat(fd).st_rdev
    base = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    for directory in ("queue", "../queue"):  # a partition has none of its own
        try:
            with open(f"{base}/{directory}/{name}", encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            continue
    return 0
