"""A logical unit's medium: logical blocks, with sense data for errors, durability and shielding looked after.

Writes are shielded from cancellation: once a write is on its way, an aborted task still waits for it, so that an aborted task
never touches the medium later (SAM-5 7.2).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from tcm.backstore import Backstore, Buffer, Capabilities, Extent, Support
from tcm.scsi.check_condition import CommandTerminated, InternalTargetFailure
from tcm.target.errors import is_backstore_failure, to_check_condition
from tcm.target.watched_backstore import WatchedBackstore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

log = logging.getLogger(__name__)

CHUNK = 1 << 20
"""Bytes that one step of a long operation holds in memory."""
STRIDE = 256 << 20
"""Bytes that the backstore unmaps or zeroes in one call, cut at multiples of it: no granule is torn in two."""

_ZEROES = bytes(CHUNK)


class Medium:
    """An open backstore in logical blocks. What a backstore raises becomes a :class:`CommandTerminated`.

    :param write_cache: whether writes may be acknowledged before they are durable (WCE).
    """

    def __init__(self, backstore: Backstore, capabilities: Capabilities, block_size: int, *, write_cache: bool) -> None:
        self.backstore = backstore
        self.capabilities = capabilities
        self.block_size = block_size
        self.shift = block_size.bit_length() - 1
        self.nowait = capabilities.nowait
        self._flushes = capabilities.flush is Support.NATIVE
        self._native_fua = capabilities.fua is Support.NATIVE
        self._write_cache = write_cache
        self.written_through = 0
        """How many want writes to be durable as if there were no write cache."""
        self._flush_failure: CommandTerminated | None = None
        """Of a flush in the background: the next one reports it."""
        self._flushing_soon = False
        self._flush_again = False
        self.watched = False

    def watch(self, watcher: Callable[[int, int], None] | None) -> None:
        """Have ``watcher`` called with the byte offset and the length of every change before it is made; ``None``: no longer.

        It must not raise. The caller then has the logical unit update the express lane, which nobody can watch.
        """
        backstore = self.unwatched
        self.watched = watcher is not None
        self.backstore = backstore if watcher is None else WatchedBackstore(backstore, watcher)

    @property
    def unwatched(self) -> Backstore:
        """The backstore, to read from: another one may know it better than who watches it."""
        return self.backstore.inner if isinstance(self.backstore, WatchedBackstore) else self.backstore

    def succeed(self, before: Medium) -> None:
        """Take the place of another way to look at the same backstore."""
        self.backstore = before.backstore
        self.watched = before.watched
        self._write_cache = before._write_cache
        self.written_through = before.written_through

    @property
    def has_cache(self) -> bool:
        """There is something that a flush does."""
        return self._flushes

    @property
    def write_cache(self) -> bool:
        """WCE: writes may be acknowledged before they are durable."""
        return self._write_cache

    @write_cache.setter
    def write_cache(self, enabled: bool) -> None:
        self._write_cache = enabled

    @property
    def inline_writes(self) -> bool:
        """An ordinary write is good enough as soon as ``write_nowait`` has taken it, and nobody wants to know of it."""
        return self.nowait and not self.watched and not self.durable(False)

    def durable(self, fua: bool) -> bool:
        """Whether a write has to do more than be taken: FUA, or no write cache, and the backstore has one."""
        return self._flushes and (fua or not self._write_cache or self.written_through > 0)

    def read_now(self, buffers: Sequence[memoryview], lba: int) -> bool:
        """Fill ``buffers`` at once and return True; or return False."""
        if not self.nowait:
            return False
        try:
            return self.backstore.read_nowait(buffers, lba << self.shift)
        except Exception as error:
            raise self._failure(error, write=False) from error

    def write_now(self, buffers: Sequence[Buffer], lba: int, *, fua: bool = False) -> bool:
        """Write at once and return True; or return False, whereupon all is to be written again."""
        if not self.nowait or self.durable(fua):
            return False
        try:
            return self.backstore.write_nowait(buffers, lba << self.shift)
        except Exception as error:
            raise self._failure(error, write=True) from error

    async def read(self, buffers: Sequence[memoryview], lba: int, *, tried: bool = False) -> None:
        """Fill all ``buffers`` from ``lba`` on.

        :param tried: :meth:`read_now` has said no a moment ago.
        """
        if not tried and self.read_now(buffers, lba):
            return
        try:
            await self.backstore.readv(buffers, lba << self.shift)
        except Exception as error:
            raise self._failure(error, write=False) from error

    async def write(self, buffers: Sequence[Buffer], lba: int, *, fua: bool = False) -> None:
        """Write all ``buffers``; returns when they are durable if ``fua`` or there is no write cache."""
        if self.write_now(buffers, lba, fua=fua):
            return
        native = self._native_fua and self.durable(fua)
        await self._shielded(self.backstore.writev(buffers, lba << self.shift, native))
        if not native and self.durable(fua):  # asked again: the write cache may have been switched off meanwhile
            await self.flush(write=True)

    async def write_zeroes(self, lba: int, blocks: int, *, may_unmap: bool) -> None:
        """Make the range read as zeroes, natively or by writing them; the caller calls :meth:`settle` when all is done."""
        if self.capabilities.write_zeroes is Support.NATIVE:
            for offset, length in self._strides(lba, blocks):
                await self._shielded(self.backstore.write_zeroes(offset, length, may_unmap=may_unmap))
                await checkpoint()
            return
        left = blocks << self.shift
        while left:
            step = min(left, CHUNK)
            await self.write_uncommitted([memoryview(_ZEROES)[:step]], lba)
            left -= step
            lba += step >> self.shift
            await checkpoint()

    async def write_uncommitted(self, buffers: Sequence[Buffer], lba: int) -> None:
        """A step of a long write; the caller calls :meth:`settle` when all is done."""
        if self.nowait:
            try:
                if self.backstore.write_nowait(buffers, lba << self.shift):
                    return
            except Exception as error:
                raise self._failure(error, write=True) from error
        await self._shielded(self.backstore.writev(buffers, lba << self.shift))

    async def copy_range(self, source: Medium, source_offset: int, offset: int, length: int) -> int:
        """Have the backstores copy among themselves, as a step of a long write.

        :returns: how many of the ``length`` bytes they have copied, from the first on; 0 if they cannot.
        """
        copied = 0
        plain = type(self) is Medium and type(source) is Medium  # any other looks after more than bytes
        if plain and self.capabilities.copy_range is Support.NATIVE:
            try:
                with anyio.CancelScope(shield=True):
                    copied = await self.backstore.copy_range(source.unwatched, source_offset, offset, length)
            except Exception as error:
                raise self._failure(error, write=True) from error
        return copied

    async def unmap(self, lba: int, blocks: int) -> None:
        """Give the range back; the caller calls :meth:`settle` when all is done."""
        for offset, length in self._strides(lba, blocks):
            await self._shielded(self.backstore.unmap(offset, length))
            await checkpoint()

    async def erase_key(self) -> None:
        """What was on the medium is unreadable for good."""
        await self._shielded(self.backstore.erase_key())

    def _strides(self, lba: int, blocks: int) -> Iterator[tuple[int, int]]:
        """Byte offset and length of each piece of a range; an aborted task ends between two pieces."""
        offset, end = lba << self.shift, lba + blocks << self.shift
        while offset < end:
            stop = min(end, (offset // STRIDE + 1) * STRIDE)
            yield offset, stop - offset
            offset = stop

    async def settle(self, *, fua: bool = False) -> None:
        """After :meth:`write_uncommitted` and its like: make durable what has to be."""
        if self.durable(fua):
            await self.flush(write=True)

    async def flush(self, *, write: bool = False) -> None:
        """Everything acknowledged so far becomes durable.

        :param write: part of a write: being cancelled does not stop it.
        """
        if not self._flushes:
            return
        try:
            with anyio.CancelScope(shield=write):
                await self.backstore.flush()
        except Exception as error:
            self._flush_failure = None  # this one tells of that one, too
            raise self._failure(error, write=True) from error
        failure, self._flush_failure = self._flush_failure, None
        if failure is not None:
            raise failure

    def flush_soon(self, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Flush in the background (IMMED); if that fails, the next :meth:`flush` says so.

        However often it is asked for, one flush runs at a time, and one after it for all that were asked for meanwhile.
        """
        self._flush_again = True
        if not self._flushing_soon:
            self._flushing_soon = True
            run(self._flush_in_background())

    async def _flush_in_background(self) -> None:
        try:
            while self._flush_again:
                self._flush_again = False
                try:
                    await self.flush()
                except CommandTerminated as error:
                    log.error("flushing in the background failed: %s", error.__cause__)
                    self._flush_failure = error
                except Exception:
                    self._flush_failure = InternalTargetFailure()
                    raise
        finally:
            self._flushing_soon = False

    async def extents(self, lba: int, blocks: int) -> list[Extent]:
        """Mapped and unmapped runs of the range, in bytes, or a prefix of it."""
        offset, length = lba << self.shift, blocks << self.shift
        if self.capabilities.extents is not Support.NATIVE:
            return [Extent(offset, length, True)]
        try:
            return await self.backstore.extents(offset, length)
        except Exception as error:
            raise self._failure(error, write=False) from error

    async def _shielded(self, operation: Awaitable[None]) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await operation
        except Exception as error:
            raise self._failure(error, write=True) from error

    def _failure(self, error: Exception, *, write: bool) -> Exception:
        """What to raise: itself, if it is nobody's failure but a programmer's."""
        if is_backstore_failure(error):
            return to_check_condition(error, write=write, block_size=self.block_size)
        return error
