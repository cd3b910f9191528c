"""Blocking code in threads, serialised code one at a time, whatever is cancelled meanwhile."""

from __future__ import annotations

import threading

import anyio
import anyio.lowlevel
import pytest

from tcm.adapters import MAX_THREADS, SerializedBackstore, ThreadedBackstore, adapt
from tcm.backstore import Backstore, BackstoreError, BackstoreErrorKind, BlockingBackstore, Concurrency
from tcm.filter import NOT_FORWARDED, PROTECTION, BackstoreFilter, methods, unaccounted
from tcm.testing import ModelBackstore

pytestmark = pytest.mark.anyio


class Blocking(BlockingBackstore):
    """Counts how many requests are inside, and holds reads until ``go`` is set."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.lock = threading.Lock()
        self.go = threading.Event()
        self.entered = threading.Event()
        self.order: list[int] = []
        self.threads: set[int] = set()
        self.closed = False

    def open(self) -> None:
        self.threads.add(threading.get_ident())

    def size(self) -> int:
        return 1 << 20

    def readv(self, buffers, offset):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.order.append(offset)
        self.entered.set()
        assert self.go.wait(60)
        buffers[0][:] = b"r" * len(buffers[0])
        with self.lock:
            self.inside -= 1

    def read_nowait(self, buffers, offset):
        return self.go.is_set()

    def write_nowait(self, buffers, offset):
        return self.go.is_set()

    def close(self) -> None:
        self.closed = True
        self.threads.add(threading.get_ident())


class ParallelBlocking(Blocking):
    concurrency = Concurrency.PARALLEL


def buffers():
    return [memoryview(bytearray(512))]


async def entered(blocking: Blocking) -> None:
    with anyio.fail_after(60):
        while not blocking.entered.is_set():
            await anyio.sleep(0.001)


async def test_parallel_async_backstore_is_left_alone():
    model = ModelBackstore()
    assert adapt(model) is model


class AsyncRead(Blocking):
    async def readv(self, buffers, offset):
        pass


class AsyncFlush(Blocking):
    async def flush(self):
        pass


class AsyncNowait(ModelBackstore):
    async def write_nowait(self, buffers, offset):
        return True


async def test_what_would_never_be_awaited_is_refused():
    """A coroutine that nobody awaits would be a write that was not done."""
    with pytest.raises(TypeError, match=r"AsyncRead\.readv is an async function.*or inherit from Backstore"):
        adapt(AsyncRead())
    with pytest.raises(TypeError, match=r"AsyncFlush\.flush"):
        adapt(AsyncFlush())
    with pytest.raises(TypeError, match=r"AsyncNowait\.write_nowait is an async function; write it without async$"):
        adapt(AsyncNowait())


async def test_blocking_runs_in_threads():
    blocking = ParallelBlocking()
    backstore = adapt(blocking)
    assert isinstance(backstore, ThreadedBackstore)
    await backstore.open()
    await backstore.aclose()
    assert threading.get_ident() not in blocking.threads
    assert blocking.closed


async def test_parallel_requests_overlap():
    blocking = ParallelBlocking()
    backstore = adapt(blocking)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(backstore.readv, buffers(), number * 512)
            while blocking.inside < 4:
                await anyio.sleep(0.001)
            blocking.go.set()
    assert blocking.most == 4 <= MAX_THREADS


async def test_limiter_bounds_the_threads():
    blocking = ParallelBlocking()
    backstore = adapt(blocking, limiter=anyio.CapacityLimiter(2))
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(backstore.readv, buffers(), number * 512)
        with anyio.fail_after(60):
            while blocking.inside < 2:
                await anyio.sleep(0.001)
        await anyio.sleep(0.02)
        blocking.go.set()
    assert blocking.most == 2


async def test_serialised_requests_come_one_by_one_in_order():
    blocking = Blocking()
    backstore = adapt(blocking)
    assert isinstance(backstore, SerializedBackstore)
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(backstore.readv, buffers(), number)
            await anyio.wait_all_tasks_blocked()
        blocking.go.set()
    assert blocking.most == 1
    assert blocking.order == [0, 1, 2, 3, 4]


async def test_nowait_says_false_while_something_is_inside():
    blocking = Blocking()
    backstore = adapt(blocking)
    blocking.go.set()
    assert backstore.read_nowait(buffers(), 0)
    assert backstore.write_nowait(buffers(), 0)
    blocking.go.clear()
    async with anyio.create_task_group() as group:
        group.start_soon(backstore.readv, buffers(), 0)
        await entered(blocking)
        blocking.read_nowait = blocking.write_nowait = lambda *_: True
        assert not backstore.read_nowait(buffers(), 0)
        assert not backstore.write_nowait(buffers(), 0)
        blocking.go.set()
    assert backstore.read_nowait(buffers(), 0)


async def test_cancelled_request_ends_before_the_next_begins():
    blocking = Blocking()
    backstore = adapt(blocking)
    late = bytearray(512)
    async with anyio.create_task_group() as group:
        group.start_soon(backstore.readv, [memoryview(late)], 0)
        await entered(blocking)
        threading.Timer(0.05, blocking.go.set).start()
        group.cancel_scope.cancel()
    assert blocking.inside == 0
    assert late == b"r" * 512  # the thread had it until the end, and has it no more
    await backstore.readv(buffers(), 0)
    assert blocking.most == 1


async def test_cancelled_while_queueing_never_enters():
    blocking = Blocking()
    backstore = adapt(blocking)
    async with anyio.create_task_group() as group:
        group.start_soon(backstore.readv, buffers(), 1)
        await entered(blocking)
        with anyio.move_on_after(0.01) as scope:
            await backstore.readv(buffers(), 2)
        blocking.go.set()
    assert scope.cancelled_caught
    assert blocking.order == [1]


async def test_close_is_not_cancelled():
    blocking = Blocking()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await adapt(blocking).aclose()
    assert blocking.closed


async def test_event_loop_runs_on_while_a_thread_blocks():
    blocking = Blocking()
    backstore = adapt(blocking)
    async with anyio.create_task_group() as group:
        group.start_soon(backstore.readv, buffers(), 0)
        await entered(blocking)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert blocking.inside == 1
        blocking.go.set()


async def test_serialised_async_backstore():
    class Slow(ModelBackstore):
        concurrency = Concurrency.SERIALIZED
        inside = 0
        gate = anyio.Event()

        async def writev(self, buffers, offset, fua=False):
            assert self.inside == 0
            self.inside += 1
            await self.gate.wait()
            self.inside -= 1
            await super().writev(buffers, offset, fua)

    slow = Slow()
    backstore = adapt(slow)
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(backstore.writev, [bytes(512)], number * 512)
            await anyio.wait_all_tasks_blocked()
            if number == 5:
                slow.gate.set()
    assert [call[1] for call in slow.calls] == [number * 512 for number in range(10)]


async def test_failures_free_the_lock():
    class Broken(ModelBackstore):
        concurrency = Concurrency.SERIALIZED

    backstore = adapt(Broken(fails=BackstoreError(BackstoreErrorKind.NOT_READY)))
    for _ in range(2):
        with pytest.raises(BackstoreError):
            await backstore.flush()


async def test_filter_base_forwards_every_method():
    """A method that BackstoreFilter did not override would be answered by Backstore's default, not by the inner backstore."""
    assert methods() <= set(vars(BackstoreFilter))
    assert methods() <= set(vars(ThreadedBackstore))
    assert {name for name in vars(Backstore) if not name.startswith("_")} - methods() == {"concurrency", *NOT_FORWARDED}


async def test_unaccounted_methods_are_named():
    class Forgetful(BackstoreFilter):
        passed_through = frozenset({"size", "capabilities", "readv", "read_nowait", "extents", "flush"}) | PROTECTION

        async def writev(self, buffers, offset, fua=False):
            await self.inner.writev(buffers, offset, fua)

    assert unaccounted(Forgetful) == ["unmap", "write_nowait", "write_zeroes"]

    class Heir(Forgetful):
        def write_nowait(self, buffers, offset):
            return False

    assert unaccounted(Heir) == ["unmap", "write_zeroes"]
