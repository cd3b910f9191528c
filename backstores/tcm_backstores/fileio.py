"""A file or a block device as a disk.

What can be done at once is done in the event loop, because a hop to a worker thread costs ten times a cached 4 KiB request:

* reads from the page cache, by ``preadv2(RWF_NOWAIT)``;
* writes into the page cache: by ``pwritev2(RWF_NOWAIT)`` where the file system knows it (XFS, btrfs), otherwise (ext4, block
  devices) by a plain ``pwritev`` as long as nothing makes it sleep: no page has to be read first, no thread is inside a
  call that holds the inode's lock, and no recent one was slow (see :class:`Pace`).

Durability: a flush is ``fdatasync``, FUA is ``RWF_DSYNC``. The kernel reports a lost write once and then forgets it, so
after a failed flush every later one fails too, until the file is opened anew.

Protection information is in ``FILE.protection`` (see :mod:`tcm_backstores.protection`); block devices have none.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from mmap import PAGESIZE
from typing import TYPE_CHECKING, Any

from tcm.backstore import (
    Allocation,
    Backstore,
    BackstoreError,
    BackstoreErrorKind,
    BlockingBackstore,
    Buffer,
    Capabilities,
    Concurrency,
    Extent,
    Support,
)
from tcm.plugin_types import API_VERSION, BackstoreType, option
from tcm_backstores import filesystem, opening
from tcm_backstores.fallocate import punch_hole, zero_range
from tcm_backstores.fileio_tree import FILEIO_TREE, IBLOCK_TREE
from tcm_backstores.files import copy_all, data_extents, read_all, total, write_all, write_zero_bytes
from tcm_backstores.pace import SLOW, Pace
from tcm_backstores.protection import ProtectionFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

log = logging.getLogger("tcm.backstores")

MAX_INLINE = 1 << 20
"""Bytes of a plain write in the event loop; copying more takes long enough to be noticed there."""
PARTIAL = PAGESIZE - 1
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class FileioOptions:
    """Options of ``fileio``."""

    path: str = option("file or block device; a missing file is created, sparse, if size is given", kind="path")
    size: int | None = option(
        "bytes, a multiple of 512, for example 1G; of an existing file: its size, or left out", None, kind="size"
    )
    write_back: bool = option("cache writes in memory until the initiator flushes; no: every write is durable at once", True)
    aio: bool = option("accepted because LIO's saveconfig.json has it; changes nothing", False)


class FileBackstore(BlockingBackstore):
    """A regular file or a block device.

    :param size: bytes, to create the file with or to insist on; ``None``: whatever it has.
    :param clock: seconds, monotonic.
    :param fdatasync: makes a descriptor's data durable.
    """

    concurrency = Concurrency.PARALLEL

    def __init__(
        self,
        path: str,
        size: int | None = None,
        *,
        write_back: bool = True,
        clock: Callable[[], float] = time.perf_counter,
        fdatasync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self._path = path
        self._wanted_size = size
        self._write_back = write_back
        self._clock = clock
        self._fdatasync = fdatasync
        self._fd = -1
        self._writable = True
        self._block_device = False
        self._in_memory = False
        self._can_punch = True
        self._read_flags = os.RWF_NOWAIT
        self._write_flags = os.RWF_NOWAIT
        self._pace = Pace()
        self._exclusive: list[None] = []
        """One item a thread inside a call that holds the inode's lock for long; append and pop are atomic."""
        self._sync_lock = threading.Lock()
        self._syncs = 0
        self._lost: OSError | None = None
        self._protection = ProtectionFile(path)

    # life cycle

    def open(self) -> None:
        opened = opening.open_file(self._path, self._wanted_size)
        self._fd, self._writable, self._block_device = opened.fd, opened.writable, opened.block_device
        if not self._writable:
            log.warning("%s cannot be written by this user: its LUN is read-only", self._path)
        self._in_memory = filesystem.in_memory(self._fd)
        if not self._block_device:
            self._protection.open(writable=self._writable)
        if self._in_memory:
            self._read_flags = self._write_flags = 0
        if self._block_device:
            self._can_punch = filesystem.queue_limit(self._fd, "write_zeroes_max_bytes") > 0
        elif self._writable:
            # Beyond the end there is nothing to lose: only whether it is supported is found out.
            with suppress(OSError):  # the largest file there can be: nothing is beyond it
                self._can_punch = punch_hole(self._fd, (self.size() + PARTIAL) & ~PARTIAL, PAGESIZE)

    def size(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_END)

    def close(self) -> None:
        self._protection.close()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def capabilities(self) -> Capabilities:
        logical, granularity = 512, os.fstat(self._fd).st_blksize
        physical = min(granularity, PAGESIZE)  # network file systems name their transfer size
        if self._block_device:
            logical, physical = filesystem.logical_block_size(self._fd), filesystem.physical_block_size(self._fd)
            granularity = filesystem.queue_limit(self._fd, "discard_granularity") or physical
        return Capabilities(
            read_only=not self._writable,
            block_size=logical,
            physical_block_size=physical,
            flush=Support.NATIVE if self._write_back else Support.EMULATE,
            fua=Support.NATIVE,
            unmap=Support.NATIVE if self._can_punch and self._writable else Support.NONE,
            unmap_granularity=granularity,
            write_zeroes=Support.NATIVE,
            extents=Support.EMULATE if self._block_device else Support.NATIVE,
            # a device is not a name to put a file beside
            protection=Support.NONE if self._block_device else Support.NATIVE,
            copy_range=Support.NONE if self._block_device else Support.NATIVE,
            rotational=self._block_device and bool(filesystem.queue_limit(self._fd, "rotational")),
            nowait=True,
        )

    # in the event loop

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        try:
            done = os.preadv(self._fd, buffers, offset, self._read_flags)
        except OSError:  # not in the cache; if it is a failure, readv meets it again
            return False
        return done == (len(buffers[0]) if len(buffers) == 1 else total(buffers))

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        if self._exclusive or not self._write_back:
            return False
        length = len(buffers[0]) if len(buffers) == 1 else total(buffers)
        fd = self._fd
        try:
            if not self._block_device and offset + length > os.lseek(fd, 0, 2):  # SEEK_END
                return False  # somebody has cut the file: writing there would make it longer again
            if self._write_flags:
                try:
                    return os.pwritev(fd, buffers, offset, self._write_flags) == length
                except OSError as error:
                    if error.errno != errno.EOPNOTSUPP:
                        return False
                    self._write_flags = 0  # not known here: plain writes from now on
            start = self._clock()
            if (
                start < self._pace.resume
                or length > MAX_INLINE
                or ((offset | length) & PARTIAL and self._must_read(offset, length))
            ):
                return False
            done = os.pwritev(fd, buffers, offset)
        except OSError:
            return False
        end = self._clock()
        if end - start >= SLOW:
            self._pace.took(start, end)
        return done == length

    def _must_read(self, offset: int, length: int) -> bool:
        """Whether a write has to read a page from the disk, because it changes a part of one that is not in the cache."""
        if self._in_memory:
            return False
        byte = [memoryview(bytearray(1))]
        last = offset + length - 1
        return bool(
            (offset & PARTIAL and not self.read_nowait(byte, offset))
            or ((last + 1) & PARTIAL and not self.read_nowait(byte, last))
        )

    # in worker threads

    @contextmanager
    def _holding_the_inode(self) -> Iterator[None]:
        self._exclusive.append(None)
        try:
            yield
        finally:
            self._exclusive.pop()

    def _refuse_beyond_the_end(self, offset: int, length: int) -> None:
        """A file that somebody has cut is not made longer again. (In the microsecond after this nobody looks.)"""
        size = self.size()
        if offset + length > size and not self._block_device:
            raise BackstoreError(BackstoreErrorKind.RESIZED, f"{self._path} has become shorter", max(offset, size))

    def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        read_all(self._fd, buffers, offset)

    def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        durable = fua or not self._write_back
        if durable:
            self._refuse_if_lost()
        self._refuse_beyond_the_end(offset, total(buffers))
        try:
            write_all(self._fd, buffers, offset, os.RWF_DSYNC if durable else 0)
        except OSError as error:
            # RWF_DSYNC reports, and clears, failures of earlier writes too. A full disk refuses before that.
            if durable and not (error.errno in FULL and self._still_full(buffers, offset)):
                self._lost = error
            raise
        if durable:
            self._refuse_if_lost()  # another thread may have been told of this write's failure

    def read_protection(self, buffer: memoryview, offset: int) -> None:
        self._protection.read(buffer, offset)

    def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        durable = fua or not self._write_back
        if durable:
            self._refuse_if_lost()
        try:
            self._protection.write(data, offset, os.RWF_DSYNC if durable else 0)
        except OSError as error:
            if durable:
                self._lost = error
            raise

    def set_protection(self, length: int, label: bytes) -> None:
        if not self._writable:
            raise BackstoreError(BackstoreErrorKind.READ_ONLY)
        self._protection.set(length, label)

    def protection_label(self) -> bytes:
        return self._protection.label

    def _still_full(self, buffers: Sequence[Buffer], offset: int) -> bool:
        try:
            write_all(self._fd, buffers, offset)
        except OSError as error:
            return error.errno in FULL
        return False

    def flush(self) -> None:
        before = self._syncs
        with self._sync_lock:
            self._refuse_if_lost()
            if self._syncs > before:  # one that began after this call did has ended meanwhile, and covers it
                return
            self._syncs += 1
            try:
                self._fdatasync(self._fd)
                self._protection.flush()
            except OSError as error:
                self._lost = error
                raise
            self._refuse_if_lost()  # a FUA write may have been told meanwhile

    def _refuse_if_lost(self) -> None:
        lost = self._lost
        if lost is not None:
            raise OSError(
                errno.EIO, f"{self._path}: writes were lost ({lost.strerror}); nothing is durable until it is opened anew"
            )

    def unmap(self, offset: int, length: int) -> None:
        self.write_zeroes(offset, length, may_unmap=True)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        self._refuse_beyond_the_end(offset, length)
        with self._holding_the_inode():
            done = (may_unmap and punch_hole(self._fd, offset, length)) or zero_range(self._fd, offset, length)
            if not done:
                write_zero_bytes(self._fd, offset, length)
        if fua or not self._write_back:
            self.flush()

    def allocation(self) -> Allocation | None:
        if self._block_device:
            return None
        space = os.fstatvfs(self._fd)
        return Allocation(os.fstat(self._fd).st_blocks * 512, space.f_bavail * space.f_frsize)

    def copy_range(self, source: Backstore | BlockingBackstore, source_offset: int, offset: int, length: int) -> int:
        if not isinstance(source, FileBackstore):
            return 0
        self._refuse_beyond_the_end(offset, length)
        with self._holding_the_inode():
            done = copy_all(source._fd, source_offset, self._fd, offset, length)
        if done and not self._write_back:
            self.flush()
        return done

    def extents(self, offset: int, length: int) -> list[Extent]:
        return data_extents(self._fd, offset, length)


def from_saveconfig(storage_object: dict[str, Any]) -> dict[str, Any]:
    """LIO's ``fileio``: ``dev``, ``size`` (0 for a block device), ``write_back``, ``aio``."""
    names = {"dev": "path", "size": "size", "write_back": "write_back", "aio": "aio"}
    found = {option: storage_object[key] for key, option in names.items() if storage_object.get(key) is not None}
    size = found.get("size")
    if not size or _has_grown(found.get("path"), size):
        found.pop("size", None)
    return found


def _has_grown(path: Any, size: Any) -> bool:
    """Who enlarged the file while it was served, and did not save since, must not lose the target at the next start."""
    if not isinstance(path, str) or not isinstance(size, int):
        return False
    try:
        actual = os.stat(path)
    except (OSError, ValueError):
        return False
    if not stat.S_ISREG(actual.st_mode) or actual.st_size <= size:
        return False
    log.warning("%s has grown from %d to %d bytes since it was saved; all of it is served", path, size, actual.st_size)
    return True


FILEIO = BackstoreType(
    name="fileio",
    api_version=API_VERSION,
    options=FileioOptions,
    factory=lambda options: FileBackstore(options.path, options.size, write_back=options.write_back),
    check_config=lambda options: opening.check(options.path, options.size),
    description="a file (created sparse on demand) or a block device",
    saveconfig_plugin="fileio",
    from_saveconfig=from_saveconfig,
    trees=(FILEIO_TREE, IBLOCK_TREE),
)
