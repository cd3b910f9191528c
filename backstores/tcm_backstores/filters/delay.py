"""``delay``: a slow disk."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from tcm.backstore import Allocation, Backstore, Buffer, Capabilities, Concurrency, Extent
from tcm.failure import ConfigError
from tcm.filter import BackstoreFilter
from tcm.plugin_types import API_VERSION, FilterType, option

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


@dataclass(frozen=True)
class DelayOptions:
    """Options of ``delay``."""

    read: float = option("milliseconds before each read", 0.0)
    write: float = option("milliseconds before each write, unmap and write of zeroes", 0.0)
    all: float = option("milliseconds before every request, flushes too; adds to read and write", 0.0)
    jitter: float = option("up to that many milliseconds more before each delayed request, evenly distributed", 0.0)
    seed: int | None = option("makes the jitter repeatable", None)


def check_config(options: DelayOptions) -> None:
    """:raises ConfigError: for a negative delay, and if nothing would be delayed."""
    for name in ("read", "write", "all", "jitter"):
        if getattr(options, name) < 0:
            raise ConfigError(f"{name}={getattr(options, name)} is negative; write milliseconds, for example {name}=5")
    if not (options.read or options.write or options.all):
        raise ConfigError("nothing is delayed; write read=5, write=5 or all=5 (milliseconds)")


class DelayFilter(BackstoreFilter):
    """Sleeps before it passes a request on. Requests sleep side by side: latency grows, queue depth does not shrink.

    :param sleep: takes seconds.
    """

    concurrency = Concurrency.PARALLEL
    passed_through = frozenset({"size", "set_protection", "protection_label"})

    def __init__(
        self, inner: Backstore, options: DelayOptions, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        super().__init__(inner)
        self._read = options.read + options.all
        self._write = options.write + options.all
        self._other = options.all
        self._jitter = options.jitter
        self._random = random.Random(options.seed)
        self._sleep = sleep

    async def _delay(self, milliseconds: float) -> None:
        if milliseconds:
            await self._sleep((milliseconds + self._random.uniform(0, self._jitter)) / 1000)

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        await self._delay(self._read)
        await self.inner.readv(buffers, offset)

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        await self._delay(self._write)
        await self.inner.writev(buffers, offset, fua)

    async def flush(self) -> None:
        await self._delay(self._other)
        await self.inner.flush()

    async def unmap(self, offset: int, length: int) -> None:
        await self._delay(self._write)
        await self.inner.unmap(offset, length)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        await self._delay(self._write)
        await self.inner.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        await self._delay(self._other)
        return await self.inner.extents(offset, length)

    async def allocation(self) -> Allocation | None:
        return await self.inner.allocation()

    async def read_protection(self, buffer: memoryview, offset: int) -> None:
        await self._delay(self._read)
        await self.inner.read_protection(buffer, offset)

    async def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        await self._delay(self._write)
        await self.inner.write_protection(data, offset, fua)

    async def erase_key(self) -> None:
        await self._delay(self._write)
        await self.inner.erase_key()

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        return not self._read and self.inner.read_nowait(buffers, offset)

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        return not self._write and self.inner.write_nowait(buffers, offset)

    def capabilities(self) -> Capabilities:
        inner = self.inner.capabilities()
        return replace(inner, nowait=inner.nowait and not (self._read and self._write))


DELAY = FilterType(
    name="delay",
    api_version=API_VERSION,
    options=DelayOptions,
    factory=DelayFilter,
    check_config=check_config,
    description="sleeps before requests",
)
