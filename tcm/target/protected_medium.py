"""A medium formatted with protection information: every block that is written gets its eight bytes, none is read past them.

Data and protection information are two writes to the backstore. They are one to whoever reads here: each range is held
exclusively while it is written, shared while it is read. The data goes first: it is what may find no room, and a write that has
changed nothing leaves protection information that fits.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from tcm.backstore import Backstore, BackstoreError, Buffer, Capabilities, Support
from tcm.scsi.protection import CHECKS, INITIAL, LENGTH, ProtectionType, check, generate, guards_of
from tcm.target.extents import ExtentLocks
from tcm.target.medium import CHUNK, Medium

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

    from tcm.scsi.protection import Checks, Tags
    from tcm.target.protection import Protection

PIECE = 64 << 20
"""Bytes of data that are unmapped or zeroed while their range is held; their protection information is at most 1 MiB."""
_ZEROES = bytes(CHUNK)


class ProtectedMedium(Medium):
    """What :class:`Medium` does, as commands do it whose protect field is zero; and the same with protection information.

    :param protection: what the logical unit knows of it.
    :param kind: the type of protection.
    """

    def __init__(
        self,
        backstore: Backstore,
        capabilities: Capabilities,
        block_size: int,
        *,
        write_cache: bool,
        protection: Protection,
        kind: ProtectionType,
    ) -> None:
        super().__init__(backstore, capabilities, block_size, write_cache=write_cache)
        self.kind = kind
        self._protection = protection
        self._ranges = ExtentLocks()
        self.nowait = False  # nothing is done at once: the express lane knows no protection information

    # with protection information

    async def read_protected(self, buffers: Sequence[memoryview], lba: int, blocks: int) -> bytes:
        """Fill ``buffers`` and return their protection information, unchecked."""
        protection = bytearray(blocks * LENGTH)
        async with self._ranges.lock(self, lba, blocks, exclusive=False):
            try:
                if not (self.capabilities.nowait and self.backstore.read_nowait(buffers, lba << self.shift)):
                    await self.backstore.readv(buffers, lba << self.shift)
            except Exception as error:
                raise self._failure(error, write=False) from error
            try:
                await self.backstore.read_protection(memoryview(protection), lba * LENGTH)
            except Exception as error:
                raise self._failure(self._relocated(error), write=False) from error
        return bytes(protection)

    async def write_protected(
        self, buffers: Sequence[Buffer], protection: Buffer, lba: int, *, fua: bool = False, settle: bool = True
    ) -> None:
        """Write blocks and their protection information.

        :param settle: return when they are as durable as they have to be; otherwise the caller calls :meth:`settle`.
        """
        durable = settle and self.durable(fua)
        native = durable and self._native_fua
        offset = lba << self.shift
        async with self._ranges.lock(self, lba, len(protection) // LENGTH, exclusive=True):
            with anyio.CancelScope(shield=True):
                if durable or not self._written_now(buffers, offset):
                    await self._shielded(self.backstore.writev(buffers, offset, native))
                await self._kept(self.backstore.write_protection(protection, lba * LENGTH, native))
        if settle and not native and self.durable(fua):
            await self.flush(write=True)

    def check(self, data: Buffer, protection: Buffer, lba: int, checks: Checks, tags: Tags) -> None:
        """See :func:`tcm.scsi.protection.check`."""
        check(self.kind, data, protection, self.block_size, lba, checks, tags)

    def generate(self, data: Buffer, lba: int) -> bytes:
        """Protection information for data that came without."""
        guards = guards_of(data, self.block_size)
        return generate(self.kind, guards, lba, len(guards), self._protection.application_tag)

    async def forget(self, lba: int, blocks: int) -> None:
        """All ones: the range is not checked until it is written again."""
        for first, count in self._pieces(lba, blocks):
            async with self._ranges.lock(self, first, count, exclusive=True):
                await self._kept(self.backstore.write_protection(INITIAL * count, first * LENGTH))
            await checkpoint()

    # without it

    async def read(self, buffers: Sequence[memoryview], lba: int, *, tried: bool = False) -> None:  # noqa: ARG002  it never was
        """See :meth:`Medium.read`; checked as a RDPROTECT of zero demands."""
        blocks = sum(map(len, buffers)) >> self.shift
        protection = await self.read_protected(buffers, lba, blocks)
        if self._protection.checks_by_default:
            data = buffers[0] if len(buffers) == 1 else b"".join(buffers)
            self.check(data, protection, lba, CHECKS[0], self._protection.tags(lba))

    async def write(self, buffers: Sequence[Buffer], lba: int, *, fua: bool = False) -> None:
        """See :meth:`Medium.write`."""
        data = _joined(buffers)
        await self.write_protected([data], self.generate(data, lba), lba, fua=fua)

    async def write_uncommitted(self, buffers: Sequence[Buffer], lba: int) -> None:
        """See :meth:`Medium.write_uncommitted`."""
        data = _joined(buffers)
        await self.write_protected([data], self.generate(data, lba), lba, settle=False)

    async def write_zeroes(self, lba: int, blocks: int, *, may_unmap: bool) -> None:
        """See :meth:`Medium.write_zeroes`. What may become deallocated is not checked."""
        for first, count in self._pieces(lba, blocks):
            protection = INITIAL * count
            if not may_unmap:  # the guard of zeroes is zero
                protection = generate(self.kind, repeat(0), first, count, self._protection.application_tag)
            async with self._ranges.lock(self, first, count, exclusive=True):
                with anyio.CancelScope(shield=True):
                    await self._zero(first, count, may_unmap=may_unmap)
                    await self._kept(self.backstore.write_protection(protection, first * LENGTH))
            await checkpoint()

    async def unmap(self, lba: int, blocks: int) -> None:
        """See :meth:`Medium.unmap`: deallocated blocks are not checked, and that before they are."""
        for first, count in self._pieces(lba, blocks):
            async with self._ranges.lock(self, first, count, exclusive=True):
                with anyio.CancelScope(shield=True):
                    await self._kept(self.backstore.write_protection(INITIAL * count, first * LENGTH))
                    await self._shielded(self.backstore.unmap(first << self.shift, count << self.shift))
            await checkpoint()

    async def erase_key(self) -> None:
        """See :meth:`Medium.erase_key`: guards tell of data too."""
        await super().erase_key()
        await self.forget(0, self._protection.blocks)

    async def _zero(self, lba: int, blocks: int, *, may_unmap: bool) -> None:
        offset, end = lba << self.shift, lba + blocks << self.shift
        if self.capabilities.write_zeroes is Support.NATIVE:
            await self._shielded(self.backstore.write_zeroes(offset, end - offset, may_unmap=may_unmap))
            return
        while offset < end:
            step = min(end - offset, CHUNK)
            await self._shielded(self.backstore.writev([memoryview(_ZEROES)[:step]], offset))
            offset += step

    def _written_now(self, buffers: Sequence[Buffer], offset: int) -> bool:
        try:
            return self.capabilities.nowait and self.backstore.write_nowait(buffers, offset)
        except Exception as error:
            raise self._failure(error, write=True) from error

    async def _kept(self, operation: Awaitable[None]) -> None:
        """Change the protection area."""
        try:
            with anyio.CancelScope(shield=True):
                await operation
        except Exception as error:
            raise self._failure(self._relocated(error), write=True) from error

    def _relocated(self, error: Exception) -> Exception:
        """The same, at the data that the place in the protection area belongs to."""
        if isinstance(error, BackstoreError) and error.offset is not None:
            error.offset = error.offset // LENGTH << self.shift
        return error

    def _pieces(self, lba: int, blocks: int) -> Iterator[tuple[int, int]]:
        """LBA and number of blocks of each piece, cut where granules end."""
        step, end = PIECE >> self.shift, lba + blocks
        while lba < end:
            stop = min(end, (lba // step + 1) * step)
            yield lba, stop - lba
            lba = stop


def _joined(buffers: Sequence[Buffer]) -> Buffer:
    return buffers[0] if len(buffers) == 1 else b"".join(buffers)
