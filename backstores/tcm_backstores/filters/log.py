"""``log``: a line for every request, to the logger ``tcm.filter.log``. Never the data."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tcm.backstore import Allocation, Backstore, Buffer, Concurrency, Extent
from tcm.filter import BackstoreFilter
from tcm.plugin_types import API_VERSION, FilterType, option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

log = logging.getLogger("tcm.filter.log")


@dataclass(frozen=True)
class LogOptions:
    """Options of ``log``."""

    label: str = option("put first in each line, to tell LUNs apart", "")
    level: Literal["debug", "info"] = option("at which level", "info")


class LogFilter(BackstoreFilter):
    """Logs each request when it has ended: what, offset and length in bytes, flags, microseconds, ok or the error.

    A request that was answered at once says ``nowait``; an attempt that would have blocked is not a request and is not logged.

    :param clock: seconds, monotonic.
    """

    concurrency = Concurrency.PARALLEL
    passed_through = frozenset({"size", "capabilities", "protection_label"})

    def __init__(self, inner: Backstore, options: LogOptions, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(inner)
        self._label = f"{options.label} " if options.label else ""
        self._level = logging.DEBUG if options.level == "debug" else logging.INFO
        self._clock = clock

    def _line(self, request: str, start: float, end: str) -> None:
        log.log(self._level, "%s%s %d us %s", self._label, request, round((self._clock() - start) * 1e6), end)

    @contextmanager
    def _logged(self, request: str) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        except Exception as error:
            self._line(request, start, f"failed: {error}")
            raise
        except BaseException:
            self._line(request, start, "cancelled")
            raise
        self._line(request, start, "ok")

    async def open(self) -> None:
        with self._logged("open"):
            await self.inner.open()

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        with self._logged(f"read offset={offset} length={sum(map(len, buffers))}"):
            await self.inner.readv(buffers, offset)

    async def aclose(self) -> None:
        with self._logged("close"):
            await self.inner.aclose()

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        with self._logged(f"write offset={offset} length={sum(map(len, buffers))}{' fua' if fua else ''}"):
            await self.inner.writev(buffers, offset, fua)

    async def flush(self) -> None:
        with self._logged("flush"):
            await self.inner.flush()

    async def unmap(self, offset: int, length: int) -> None:
        with self._logged(f"unmap offset={offset} length={length}"):
            await self.inner.unmap(offset, length)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        flags = (" may_unmap" if may_unmap else "") + (" fua" if fua else "")
        with self._logged(f"write_zeroes offset={offset} length={length}{flags}"):
            await self.inner.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        with self._logged(f"extents offset={offset} length={length}"):
            return await self.inner.extents(offset, length)

    async def allocation(self) -> Allocation | None:
        return await self.inner.allocation()

    async def read_protection(self, buffer: memoryview, offset: int) -> None:
        with self._logged(f"read_protection offset={offset} length={len(buffer)}"):
            await self.inner.read_protection(buffer, offset)

    async def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        with self._logged(f"write_protection offset={offset} length={len(data)}{' fua' if fua else ''}"):
            await self.inner.write_protection(data, offset, fua)

    async def set_protection(self, length: int, label: bytes) -> None:
        with self._logged(f"set_protection length={length}"):
            await self.inner.set_protection(length, label)

    async def erase_key(self) -> None:
        with self._logged("erase_key"):
            await self.inner.erase_key()

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        start = self._clock()
        done = self.inner.read_nowait(buffers, offset)
        if done:
            self._line(f"read offset={offset} length={sum(map(len, buffers))} nowait", start, "ok")
        return done

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        start = self._clock()
        done = self.inner.write_nowait(buffers, offset)
        if done:
            self._line(f"write offset={offset} length={sum(map(len, buffers))} nowait", start, "ok")
        return done


LOG = FilterType(
    name="log",
    api_version=API_VERSION,
    options=LogOptions,
    factory=LogFilter,
    description="logs every request to tcm.filter.log",
)
