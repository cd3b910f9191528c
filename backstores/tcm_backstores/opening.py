"""How ``fileio`` gets its file: what is accepted, what is created, what is refused, and how it says so."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from tcm.failure import ConfigError
from tcm.options import size_text
from tcm_backstores.locks import lock
from tcm_backstores.null import check_size

SECTOR = 512


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """An open and locked file or block device."""

    fd: int
    writable: bool
    block_device: bool


def check_existing(path: str, status: os.stat_result, size: int | None) -> None:
    """The rule for what is already there: it has the size that is written, or no size is written.

    An empty regular file counts as new. Nothing is grown or cut: a wrong size is more often a wrong path.

    :raises ConfigError: says what to write.
    """
    if stat.S_ISBLK(status.st_mode):
        return  # its size is known once it is open
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is neither a file nor a block device; write the path of one")
    check_length(path, status.st_size, size)


def check_length(path: str, actual: int, size: int | None) -> None:
    """:raises ConfigError: unless ``size`` is left out or ``actual``; says what to write."""
    if actual == 0:
        if size is None:
            raise ConfigError(f"{path} is empty; write size=1G, say, to make it that large (sparse)")
    elif actual < SECTOR:
        raise ConfigError(f"{path} has {actual} bytes, less than one block; write the path of a disk image")
    elif size is not None and size != actual:
        more = f", or enlarge it first: truncate -s {size_text(size)} {path}" if actual < size else ""
        raise ConfigError(f"{path} has {actual} bytes, not {size}; write size={size_text(actual)} or leave size out{more}")


def check(path: str, size: int | None) -> None:
    """Everything that can be said without changing anything.

    :raises ConfigError: in one line, what to write instead.
    """
    if not path:
        raise ConfigError("path is empty; write path=/some/where/disk.img")
    if size is not None:
        check_size(size)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if _names_a_device(path):
            raise ConfigError(f"{path}: there is no such device; attach it, or write the path of another") from None
        parent = os.path.dirname(path) or "."
        if not os.path.isdir(parent):
            raise ConfigError(f"{path}: there is no directory {parent}; make it, or write another path") from None
        if size is None:
            raise ConfigError(f"{path} does not exist; write size=1G, say, to create it (sparse)") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; write the path of a file that this user can reach") from error
    else:
        check_existing(path, status, size)


def _names_a_device(path: str) -> bool:
    """A file that were made there would be in memory, and in the place of the device once that is attached."""
    path = os.path.abspath(path)
    return path.startswith("/dev/") and not path.startswith(("/dev/shm/", "/dev/mqueue/"))  # noqa: S108  not a file of ours


def open_file(path: str, size: int | None) -> OpenedFile:
    """Open and lock ``path``; create it sparse, ``size`` bytes long and durably, if it is not there or empty.

    A file that this user may read but not write is opened read-only.

    :raises ConfigError: it cannot be what was asked for, or somebody else has it.
    """
    check(path, size)
    fd, writable = _open(path, create=size is not None)
    try:
        status = os.fstat(fd)
        block_device = stat.S_ISBLK(status.st_mode)
        lock(fd, path, exclusive=writable)
        if status.st_size == 0 and size is not None and not block_device and writable:
            _make(fd, path, size)
        length = os.lseek(fd, 0, os.SEEK_END)
        check_length(path, length, size)
        if not length:
            raise ConfigError(f"{path} is empty and cannot be enlarged; write the path of another file")
    except BaseException:
        os.close(fd)
        raise
    return OpenedFile(fd, writable, block_device)


def _make(fd: int, path: str, size: int) -> None:
    """Give a new file its size and make that, and its name, durable."""
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise ConfigError(f"{path} cannot become {size_text(size)} large ({error.strerror}); write a smaller size") from error
    os.fsync(fd)
    sync_directory(path)


def _open(path: str, *, create: bool) -> tuple[int, bool]:
    """A descriptor, and whether it can be written."""
    try:
        block = os.path.exists(path) and stat.S_ISBLK(os.stat(path).st_mode)
        # O_EXCL without O_CREAT: a block device that is mounted, or part of something that is, says EBUSY.
        flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_EXCL if block else os.O_CREAT if create else 0)
        try:
            return os.open(path, os.O_RDWR | flags, 0o600), True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not os.path.exists(path):
                raise
            return os.open(path, os.O_RDONLY | (flags & ~os.O_CREAT)), False
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ConfigError(f"{path} is in use (mounted, or another target's); write the path of a free one") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY, errno.ENOENT, errno.ENXIO, errno.EISDIR):
            raise ConfigError(f"{path}: {error.strerror}; write the path of a file that this user can open") from error
        raise


def sync_directory(path: str) -> None:
    """Make the name of a new file durable."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
