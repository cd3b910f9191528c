"""Who wants to know of every change of a medium stands between it and its backstore, for as long as he wants to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.filter import PROTECTION, BackstoreFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tcm.backstore import Allocation, Backstore, Buffer


class WatchedBackstore(BackstoreFilter):
    """Tells of every change before it is made, whether or not it then succeeds. It is not opened or closed.

    :param changing: called with the byte offset and the length of what is about to change. Must not raise.
    """

    passed_through = frozenset({"size", "readv", "flush", "extents", "read_nowait", "capabilities"}) | PROTECTION

    def __init__(self, inner: Backstore, changing: Callable[[int, int], None]) -> None:
        super().__init__(inner)
        self._changing = changing

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        self._changing(offset, sum(map(len, buffers)))
        await self.inner.writev(buffers, offset, fua)

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        self._changing(offset, sum(map(len, buffers)))
        return self.inner.write_nowait(buffers, offset)

    async def unmap(self, offset: int, length: int) -> None:
        self._changing(offset, length)
        await self.inner.unmap(offset, length)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        self._changing(offset, length)
        await self.inner.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    async def copy_range(self, source: Backstore, source_offset: int, offset: int, length: int) -> int:
        self._changing(offset, length)
        return await self.inner.copy_range(source, source_offset, offset, length)

    async def allocation(self) -> Allocation | None:
        return await self.inner.allocation()

    async def erase_key(self) -> None:
        self._changing(0, self.inner.size())
        await self.inner.erase_key()
