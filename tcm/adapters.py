"""Turns what a plug-in wrote into what the core calls: blocking code into worker threads, serialised code under a lock.

The order is fixed: ``adapt`` the backstore, then each filter around it (``adapt(type.factory(inner, options))``).
"""

from __future__ import annotations

import functools
from functools import partial
from inspect import iscoroutinefunction, isfunction
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio
from anyio.to_thread import run_sync

from tcm.backstore import Allocation, Backstore, BlockingBackstore, Buffer, Capabilities, Concurrency, Extent
from tcm.filter import BackstoreFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 32
"""Requests of one PARALLEL :class:`BlockingBackstore` that are in threads at once, unless a limiter is given."""


def adapt(backstore: Backstore | BlockingBackstore, *, limiter: anyio.CapacityLimiter | None = None) -> Backstore:
    """A backstore that the core may call with any number of requests at once.

    :param limiter: shared by several blocking backstores, to bound their threads together. Without it each has its own
        bound of ``MAX_THREADS``, so one that hangs starves no other.

    Raises ``TypeError`` for an async method where the contract has a plain one: it would do nothing, and be taken for done.
    """
    _check_plain(type(backstore))
    concurrency = backstore.concurrency
    adapted = ThreadedBackstore(backstore, limiter) if isinstance(backstore, BlockingBackstore) else backstore
    return SerializedBackstore(adapted) if concurrency is Concurrency.SERIALIZED else adapted


@functools.lru_cache(maxsize=64)
def _check_plain(cls: type[Backstore | BlockingBackstore]) -> None:
    """Once for a class: a configuration has many of one."""
    contract = BlockingBackstore if issubclass(cls, BlockingBackstore) else Backstore
    for name, method in vars(contract).items():
        if isfunction(method) and not iscoroutinefunction(method) and iscoroutinefunction(getattr(cls, name)):
            other = ", or inherit from Backstore" if contract is BlockingBackstore else ""
            raise TypeError(f"{cls.__name__}.{name} is an async function; write it without async{other}")


class ThreadedBackstore(Backstore):
    """Runs a :class:`BlockingBackstore` in worker threads.

    A thread cannot be interrupted, and it holds the caller's buffers: so a cancelled call waits for its thread to end and
    is cancelled then. ``size``, ``capabilities`` and the ``nowait`` methods are called directly.
    """

    concurrency = Concurrency.PARALLEL

    def __init__(self, blocking: BlockingBackstore, limiter: anyio.CapacityLimiter | None = None) -> None:
        self.blocking = blocking
        self._limiter = limiter
        # One Python call less on the hot path than a method that forwards.
        self.read_nowait = blocking.read_nowait  # type: ignore[method-assign]  # see above
        self.write_nowait = blocking.write_nowait  # type: ignore[method-assign]  # see above

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(MAX_THREADS)
        # Not abandoned on cancel (the default): anyio shields the wait for the thread on both of its backends.
        return await run_sync(partial(function, *args, **kwargs), limiter=self._limiter)

    async def open(self) -> None:
        await self._run(self.blocking.open)

    def size(self) -> int:
        return self.blocking.size()

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        await self._run(self.blocking.readv, buffers, offset)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._run(self.blocking.close)

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        await self._run(self.blocking.writev, buffers, offset, fua)

    async def flush(self) -> None:
        await self._run(self.blocking.flush)

    async def unmap(self, offset: int, length: int) -> None:
        await self._run(self.blocking.unmap, offset, length)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        await self._run(self.blocking.write_zeroes, offset, length, may_unmap=may_unmap, fua=fua)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        return await self._run(self.blocking.extents, offset, length)

    async def allocation(self) -> Allocation | None:
        return await self._run(self.blocking.allocation)

    async def read_protection(self, buffer: memoryview, offset: int) -> None:
        await self._run(self.blocking.read_protection, buffer, offset)

    async def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        await self._run(self.blocking.write_protection, data, offset, fua)

    async def set_protection(self, length: int, label: bytes) -> None:
        await self._run(self.blocking.set_protection, length, label)

    def protection_label(self) -> bytes:
        return self.blocking.protection_label()

    async def erase_key(self) -> None:
        await self._run(self.blocking.erase_key)

    async def copy_range(self, source: Backstore, source_offset: int, offset: int, length: int) -> int:
        inner = source.blocking if isinstance(source, ThreadedBackstore) else source
        return await self._run(self.blocking.copy_range, inner, source_offset, offset, length)

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        return self.blocking.read_nowait(buffers, offset)

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        return self.blocking.write_nowait(buffers, offset)

    def capabilities(self) -> Capabilities:
        return self.blocking.capabilities()


class SerializedBackstore(BackstoreFilter):
    """Lets one request at a time into ``inner``, in the order of arrival. A ``nowait`` call never waits: it says False."""

    concurrency = Concurrency.PARALLEL
    passed_through = frozenset({"size", "capabilities", "protection_label"})

    def __init__(self, inner: Backstore) -> None:
        super().__init__(inner)
        self._lock = anyio.Lock()

    async def open(self) -> None:
        async with self._lock:
            await self.inner.open()

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        async with self._lock:
            await self.inner.readv(buffers, offset)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await self.inner.aclose()

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        async with self._lock:
            await self.inner.writev(buffers, offset, fua)

    async def flush(self) -> None:
        async with self._lock:
            await self.inner.flush()

    async def unmap(self, offset: int, length: int) -> None:
        async with self._lock:
            await self.inner.unmap(offset, length)

    async def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        async with self._lock:
            await self.inner.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        async with self._lock:
            return await self.inner.extents(offset, length)

    async def allocation(self) -> Allocation | None:
        async with self._lock:
            return await self.inner.allocation()

    async def read_protection(self, buffer: memoryview, offset: int) -> None:
        async with self._lock:
            await self.inner.read_protection(buffer, offset)

    async def write_protection(self, data: Buffer, offset: int, fua: bool = False) -> None:
        async with self._lock:
            await self.inner.write_protection(data, offset, fua)

    async def set_protection(self, length: int, label: bytes) -> None:
        async with self._lock:
            await self.inner.set_protection(length, label)

    async def erase_key(self) -> None:
        async with self._lock:
            await self.inner.erase_key()

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        return not self._lock.locked() and self.inner.read_nowait(buffers, offset)

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        return not self._lock.locked() and self.inner.write_nowait(buffers, offset)
