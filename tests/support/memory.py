"""A backstore in memory that tests can hold up, make fail and ask what it was told to do, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import anyio

from tcm.backstore import Backstore, Buffer, Capabilities, Concurrency, Extent, Support


class GatedMemory(Backstore):
    """Bytes in a bytearray. While ``shut``, requests wait; every request that gets through is in ``log``."""

    concurrency: ClassVar[Concurrency] = Concurrency.PARALLEL

    def __init__(self, size: int = 1 << 20, *, thin: bool = True, read_only: bool = False, block_size: int = 512) -> None:
        self.data = bytearray(size)
        self.log: list[tuple[str, int, int]] = []
        self.waiting: list[tuple[str, int, int]] = []
        self.failure: BaseException | None = None
        self._capabilities = Capabilities(
            read_only=read_only,
            block_size=block_size,
            flush=Support.NATIVE,
            fua=Support.NATIVE,
            unmap=Support.NATIVE if thin else Support.NONE,
            unmap_granularity=4096,
        )
        self._gate = anyio.Event()
        self._gate.set()
        self._arrival = anyio.Event()

    def shut(self) -> None:
        self._gate = anyio.Event()

    def release(self) -> None:
        self._gate.set()

    async def until_waiting(self, count: int) -> None:
        """Return once ``count`` requests wait at the gate."""
        with anyio.fail_after(60):
            while len(self.waiting) < count:
                self._arrival = anyio.Event()
                await self._arrival.wait()

    async def _pass(self, operation: str, offset: int, length: int) -> None:
        entry = (operation, offset, length)
        self.waiting.append(entry)
        self._arrival.set()
        try:
            await self._gate.wait()
        finally:
            self.waiting.remove(entry)
        if self.failure is not None:
            raise self.failure
        self.log.append(entry)

    async def open(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def size(self) -> int:
        return len(self.data)

    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        await self._pass("read", offset, sum(len(buffer) for buffer in buffers))
        for buffer in buffers:
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        data = b"".join(buffers)
        await self._pass("write fua" if fua else "write", offset, len(data))
        self.data[offset : offset + len(data)] = data

    async def flush(self) -> None:
        await self._pass("flush", 0, 0)

    async def unmap(self, offset: int, length: int) -> None:
        await self._pass("unmap", offset, length)
        self.data[offset : offset + length] = bytes(length)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        return [Extent(offset, length, True)]
