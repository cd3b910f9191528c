"""``rate``: at most so many requests and so many bytes a second."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from tcm.backstore import Allocation, Backstore, Buffer, Capabilities, Concurrency
from tcm.failure import ConfigError
from tcm.filter import BackstoreFilter
from tcm.plugin_types import API_VERSION, FilterType, option

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

LIMITS = ("iops", "read_iops", "write_iops", "bandwidth", "read_bandwidth", "write_bandwidth")


@dataclass(frozen=True)
class RateOptions:
    """Options of ``rate``. A limit that is left out does not exist."""

    iops: float | None = option("requests a second, reads and writes together", None)
    read_iops: float | None = option("reads a second", None)
    write_iops: float | None = option("writes, unmaps and writes of zeroes a second", None)
    bandwidth: int | None = option("bytes a second, read and written together, for example 100M", None, kind="size")
    read_bandwidth: int | None = option("bytes read a second", None, kind="size")
    write_bandwidth: int | None = option("bytes written a second", None, kind="size")
    burst: float = option("seconds of unused allowance that are kept", 0.1)


def check_config(options: RateOptions) -> None:
    """:raises ConfigError: for a limit that lets nothing through, and if there is none."""
    given = {name: value for name in LIMITS if (value := getattr(options, name)) is not None}
    if not given:
        raise ConfigError(f"nothing is limited; write one of {', '.join(LIMITS)}, for example iops=1000")
    for name, value in given.items():
        if value <= 0:
            raise ConfigError(f"{name}={value} lets nothing through; write a number above 0")
    if options.burst < 0:
        raise ConfigError(f"burst={options.burst} is negative; write seconds, for example burst=0.1")


class Bucket:
    """A token bucket with a queue: first come, first served, and who gives up waiting has taken nothing.

    :param rate: tokens a second.
    :param burst: tokens it holds at most; a request that costs more waits for a full bucket and leaves a debt.
    :param clock: seconds, monotonic.
    :param sleep: takes seconds.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._clock = clock
        self._sleep = sleep
        self._filled = clock()
        self._queue = anyio.Lock()

    async def take(self, cost: float) -> None:
        """Wait for one's turn, then for the tokens."""
        async with self._queue:
            wanted = min(cost, self._burst)
            while (missing := wanted - self._fill()) > 0:
                # A nanosecond more than the tokens need, or rounding could make it sleep for ever shorter times.
                await self._sleep(missing / self._rate + 1e-9)
            self._tokens -= cost

    def _fill(self) -> float:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        return self._tokens


class RateFilter(BackstoreFilter):
    """Holds requests back. Flushes, questions about extents and the protection information that belongs to data are free."""

    concurrency = Concurrency.PARALLEL
    passed_through = frozenset(
        {"size", "flush", "extents", "read_protection", "write_protection", "set_protection", "protection_label"}
    )

    def __init__(
        self,
        inner: Backstore,
        options: RateOptions,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        super().__init__(inner)
        buckets = {
            name: Bucket(value, max(value * options.burst, 1.0), clock, sleep)
            for name in LIMITS
            if (value := getattr(options, name)) is not None
        }
        # Own limit first: a direction that waits for its own must not keep the other from the common one.
        self._read_requests = [buckets[name] for name in ("read_iops", "iops") if name in buckets]
        self._read_bytes = [buckets[name] for name in ("read_bandwidth", "bandwidth") if name in buckets]
        self._write_requests = [buckets[name] for name in ("write_iops", "iops") if name in buckets]
        self._write_bytes = [buckets[name] for name in ("write_bandwidth", "bandwidth") if name in buckets]

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        await self._wait(self._read_requests, self._read_bytes, sum(map(len, buffers)))
        await self.inner.readv(buffers, offset)

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        await self._wait(self._write_requests, self._write_bytes, sum(map(len, buffers)))
        await self.inner.writev(buffers, offset, fua)

    async def unmap(self, offset: int, length: int) -> None:
        await self._wait(self._write_requests, (), 0)
        await self.inner.unmap(offset, length)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        await self._wait(self._write_requests, (), 0)  # no bytes are moved
        await self.inner.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    async def _wait(self, requests: Sequence[Bucket], volumes: Sequence[Bucket], length: int) -> None:
        for bucket in requests:
            await bucket.take(1)
        for bucket in volumes:
            await bucket.take(length)

    async def allocation(self) -> Allocation | None:
        return await self.inner.allocation()

    async def erase_key(self) -> None:
        await self._wait(self._write_requests, (), 0)
        await self.inner.erase_key()

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        return not (self._read_requests or self._read_bytes) and self.inner.read_nowait(buffers, offset)

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        return not (self._write_requests or self._write_bytes) and self.inner.write_nowait(buffers, offset)

    def capabilities(self) -> Capabilities:
        inner = self.inner.capabilities()
        limited = (self._read_requests or self._read_bytes) and (self._write_requests or self._write_bytes)
        return replace(inner, nowait=inner.nowait and not limited)


RATE = FilterType(
    name="rate",
    api_version=API_VERSION,
    options=RateOptions,
    factory=RateFilter,
    check_config=check_config,
    description="limits requests and bytes a second",
)
