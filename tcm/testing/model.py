"""A backstore in a bytearray that remembers what was asked of it: what filters are tested around."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.backstore import Backstore, Buffer, Capabilities, Concurrency, Extent, Support

if TYPE_CHECKING:
    from collections.abc import Sequence


class ModelBackstore(Backstore):
    """``data`` is the medium; ``calls`` has ``(method, offset, length, ...)`` of each request that got here."""

    concurrency = Concurrency.PARALLEL

    def __init__(self, size: int = 1 << 20, *, nowait: bool = True, fails: Exception | None = None) -> None:
        self.data = bytearray(size)
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails
        """Raised by every request, if set."""
        self._nowait = nowait
        self.protection = bytearray()
        self.label = b""

    def _called(self, *call: object) -> None:
        self.calls.append(call)
        if self.fails is not None:
            raise self.fails

    async def open(self) -> None:
        self.calls.append(("open",))

    def size(self) -> int:
        return len(self.data)

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self._called("readv", offset, sum(map(len, buffers)))
        self._read(buffers, offset)

    async def aclose(self) -> None:
        self.calls.append(("aclose",))

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        self._called("writev", offset, sum(map(len, buffers)), fua)
        self._write(buffers, offset)

    async def flush(self) -> None:
        self._called("flush")

    async def unmap(self, offset: int, length: int) -> None:
        self._called("unmap", offset, length)
        self.data[offset : offset + length] = bytes(length)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        self._called("write_zeroes", offset, length, may_unmap, fua)
        self.data[offset : offset + length] = bytes(length)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        self._called("extents", offset, length)
        return [Extent(offset, length, any(self.data[offset : offset + length]))]

    async def read_protection(self, buffer: memoryview, offset: int) -> None:
        self._called("read_protection", offset, len(buffer))
        buffer[:] = self.protection[offset : offset + len(buffer)]

    async def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        self._called("write_protection", offset, len(data), fua)
        self.protection[offset : offset + len(data)] = data

    async def set_protection(self, length: int, label: bytes) -> None:
        self._called("set_protection", length, label)
        self.protection = self.protection[:length].ljust(length, b"\0")
        self.label = label

    def protection_label(self) -> bytes:
        return self.label

    async def copy_range(self, source: Backstore, source_offset: int, offset: int, length: int) -> int:
        self._called("copy_range", source_offset, offset, length)
        if not isinstance(source, ModelBackstore):
            return 0
        self.data[offset : offset + length] = source.data[source_offset : source_offset + length]
        return length

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        if not self._nowait or self.fails is not None:
            return False
        self._called("read_nowait", offset, sum(map(len, buffers)))
        self._read(buffers, offset)
        return True

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        if not self._nowait or self.fails is not None:
            return False
        self._called("write_nowait", offset, sum(map(len, buffers)))
        self._write(buffers, offset)
        return True

    def _read(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)

    def _write(self, buffers: Sequence[Buffer], offset: int) -> None:
        for buffer in buffers:
            self.data[offset : offset + len(buffer)] = buffer
            offset += len(buffer)

    def capabilities(self) -> Capabilities:
        native = Support.NATIVE
        return Capabilities(
            flush=native,
            fua=native,
            unmap=native,
            write_zeroes=native,
            extents=native,
            protection=native,
            copy_range=native,
            nowait=self._nowait,
        )
