"""The copy engine: what arrives, how it gets there, what it holds meanwhile."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from support.memory import GatedMemory
from support.scsi import make_lu, make_target, pattern
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.filters.log import LogFilter, LogOptions
from tcm_backstores.ramdisk import RamdiskBackstore

from tcm.adapters import adapt
from tcm.scsi.check_condition import CommandsClearedByDeviceServer, OperationInProgress, WriteError
from tcm.scsi.copy_results import CopyStatus
from tcm.target import copier
from tcm.target.copier import CopyFailed, Place, Side, copy, zero
from tcm.target.copy_manager import HOLD_TIME, MAXIMUM_KEPT, CopyManager, CopyOperation
from tcm.target.logical_unit import LogicalUnit
from tcm.target.nexus import ITNexus
from tcm.target.task import Task, TaskState

pytestmark = pytest.mark.anyio
SIZE = 1 << 20


class Bench:
    """Units that one I_T nexus reaches, and copy operations of the first one."""

    def __init__(self, units: list[LogicalUnit], nexus: ITNexus) -> None:
        self.units, self.nexus = units, nexus

    def begin(self, list_identifier: int | None = None, *, background: bool = False) -> CopyOperation:
        task = Task(self.nexus, bytes(8), 1, bytes(16))
        return self.units[0].copies.begin(task, list_identifier, 0, background=background)

    def place(self, unit: int, offset: int) -> Place:
        return Place(self.units[unit], self.nexus, offset)

    async def copy(self, source: tuple[int, int], destination: tuple[int, int], length: int) -> CopyOperation:
        operation = self.begin()
        await operation.run(lambda: copy(operation, self.place(*source), self.place(*destination), length))
        return operation

    async def write(self, unit: int, offset: int, data: bytes) -> None:
        medium = self.units[unit].medium
        await medium.write([data], offset >> medium.shift)

    async def read(self, unit: int, offset: int = 0, length: int = SIZE) -> bytes:
        buffer = bytearray(length)
        medium = self.units[unit].medium
        await medium.read([memoryview(buffer)], offset >> medium.shift)
        return bytes(buffer)


@asynccontextmanager
async def bench(first: Any, second: Any, *, block_size: int = 512) -> AsyncIterator[Bench]:
    serial = "2222-2222-3333-4444-555555555555"
    async with (
        make_lu(first, name="first", serial=f"1111{serial}") as one,
        make_lu(second, name="second", serial=f"2222{serial}", block_size=block_size) as two,
    ):
        initiator = make_target(one, two).connect("naa.5001405000000001")
        assert initiator.nexus is not None
        yield Bench([one, two], initiator.nexus)
        initiator.disconnect()


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "WINDOW", 64 << 10)
    monkeypatch.setattr(copier, "CHUNK", 16 << 10)
    monkeypatch.setattr(copier, "STRIDE", 64 << 10)


@pytest.mark.parametrize("block_size", [512, 4096])
async def test_all_arrives(block_size):
    data = pattern(SIZE)
    async with bench(RamdiskBackstore(SIZE), RamdiskBackstore(SIZE), block_size=block_size) as b:
        await b.write(0, 0, data)
        operation = await b.copy((0, 512), (1, 8192), 300 << 10)
        assert await b.read(1) == bytes(8192) + data[512 : 512 + (300 << 10)] + bytes(SIZE - 8192 - (300 << 10))
        assert (operation.transferred, operation.status) == (300 << 10, CopyStatus.COMPLETED)
        assert not b.units[0].copies.touching
        assert not b.units[1].extents.exclusive


async def test_holes_stay_holes():
    async with bench(RamdiskBackstore(SIZE), RamdiskBackstore(SIZE), block_size=4096) as b:
        await b.write(0, 256 << 10, pattern(8192))
        await b.write(1, 0, b"x" * SIZE)
        await b.copy((0, 0), (1, 0), SIZE)
        assert await b.read(1) == await b.read(0)
        mapped = [(each.offset, each.length) for each in await b.units[1].medium.extents(0, SIZE >> 12) if each.mapped]
        assert mapped == [(256 << 10, 8192)]


@pytest.mark.parametrize("distance", [-512, 512, -20480, 20480, 0])
async def test_overlap_is_as_if_all_was_read_first(distance):
    data = bytearray(pattern(SIZE))
    async with bench(RamdiskBackstore(SIZE), RamdiskBackstore(SIZE)) as b:
        await b.write(0, 0, data)
        start, length = 128 << 10, 333 << 9
        operation = await b.copy((0, start), (0, start + distance), length)
        data[start + distance : start + distance + length] = data[start : start + length]
        assert await b.read(0) == data
        assert operation.transferred == length


@pytest.mark.parametrize("unit", [0, 1])
@pytest.mark.parametrize(("source", "destination"), [(1, 300_001), (700_000, 5), (0, 1), (5000, 4000), (1, 4097), (4097, 700)])
@pytest.mark.parametrize("length", [1, 511, 4096, 100_003])
async def test_byte_offsets_leave_the_rest_of_the_blocks_alone(unit, source, destination, length):
    data, target = bytearray(pattern(SIZE)), bytearray(pattern(SIZE, 2))
    async with bench(RamdiskBackstore(SIZE), RamdiskBackstore(SIZE), block_size=4096) as b:
        await b.write(0, 0, data)
        await b.write(1, 0, target)
        await b.copy((0, source), (unit, destination), length)
        (target if unit else data)[destination : destination + length] = bytes(data[source : source + length])
        assert await b.read(0) == data
        assert await b.read(1) == target


async def test_files_are_copied_by_the_kernel(tmp_path, monkeypatch):
    calls = []
    real = os.copy_file_range

    def counting(*args):
        calls.append(args[2])
        return real(*args)

    monkeypatch.setattr(os, "copy_file_range", counting)
    data = pattern(SIZE)
    files = [FileBackstore(str(tmp_path / name), SIZE) for name in ("a", "b")]
    async with bench(*files) as b:
        await b.write(0, 0, data)
        await b.copy((0, 0), (1, 0), SIZE)
        assert await b.read(1) == data
        assert sum(calls) == SIZE
        await b.copy((0, 0), (0, SIZE // 2), SIZE // 2)
        assert await b.read(0) == data[: SIZE // 2] * 2
        assert sum(calls) == SIZE + SIZE // 2


async def test_a_filter_is_not_bypassed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "copy_file_range", lambda *_: pytest.fail("past the filter"))
    data = pattern(SIZE)
    for filtered in (0, 1):
        stores = [adapt(FileBackstore(str(tmp_path / f"{name}{filtered}"), SIZE)) for name in "ab"]
        stores[filtered] = LogFilter(stores[filtered], LogOptions())
        async with bench(*stores) as b:
            await b.write(0, 0, data)
            await b.copy((0, 0), (1, 0), SIZE)
            assert await b.read(1) == data


async def test_what_the_kernel_does_not_copy_is_read_and_written(tmp_path, monkeypatch):
    left = [100_000, 0]

    def short(source, destination, count, source_offset, offset):
        step = min(count, left[0])
        os.pwrite(destination, os.pread(source, step, source_offset), offset)
        left[0] -= step
        if not step:
            raise OSError(18, "cross-device")
        return step

    monkeypatch.setattr(os, "copy_file_range", short)
    data = pattern(SIZE)
    async with bench(*(FileBackstore(str(tmp_path / name), SIZE) for name in "ab")) as b:
        await b.write(0, 0, data)
        await b.copy((0, 0), (1, 0), SIZE)
        assert await b.read(1) == data


async def test_opposite_copies_do_not_wait_for_each_other_for_ever():
    first, second = GatedMemory(SIZE), GatedMemory(SIZE)
    async with bench(first, second) as b:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(b.copy, (0, 0), (1, 0), SIZE)
                    group.start_soon(b.copy, (1, 0), (0, 0), SIZE)
                    group.start_soon(b.copy, (0, 0), (0, SIZE // 2), SIZE // 2)
                    group.start_soon(b.copy, (0, SIZE // 2), (0, 0), SIZE // 2)


@pytest.mark.parametrize("side", list(Side))
async def test_a_failure_says_which_side(side):
    stores = [GatedMemory(SIZE), GatedMemory(SIZE)]
    async with bench(*stores) as b:
        operation = b.begin()

        def admit():
            if operation.transferred == 128 << 10:
                stores[side - 1].failure = OSError(5, "broken")

        with pytest.raises(CopyFailed) as caught:
            await operation.run(lambda: copy(operation, b.place(0, 0), b.place(1, 0), SIZE, admit=admit))
        assert caught.value.side is side
        assert isinstance(caught.value.error, WriteError) is (side is Side.DESTINATION)
        assert operation.transferred == 128 << 10
        assert operation.status is CopyStatus.FAILED


async def test_zero():
    async with bench(RamdiskBackstore(SIZE), RamdiskBackstore(SIZE)) as b:
        await b.write(1, 0, b"x" * SIZE)
        operation = b.begin()
        await operation.run(lambda: zero(operation, b.place(1, 4096), 200 << 10))
        assert await b.read(1) == b"x" * 4096 + bytes(200 << 10) + b"x" * (SIZE - 4096 - (200 << 10))
        assert operation.transferred == 200 << 10


async def test_abort():
    store = GatedMemory(SIZE)
    async with bench(RamdiskBackstore(SIZE), store) as b:
        await b.write(0, 0, pattern(SIZE))
        store.shut()
        operation = b.begin(7)
        async with anyio.create_task_group() as group:
            group.start_soon(until_waiting_then, store, operation.abort)
            with pytest.raises(CommandsClearedByDeviceServer):
                await operation.run(lambda: copy(operation, b.place(0, 0), b.place(1, 0), SIZE))
        assert operation.status is CopyStatus.TERMINATED
        assert b.units[0].copies.find(b.nexus, 7) is operation
        assert [entry[0] for entry in store.log] == ["write"]  # the one that was on its way


async def until_waiting_then(store: GatedMemory, then: Any) -> None:
    await store.until_waiting(1)
    then()
    store.release()


async def done() -> None:
    pass


async def test_list_identifiers():
    async with bench(RamdiskBackstore(SIZE), RamdiskBackstore(SIZE)) as b:
        copies = b.units[0].copies
        first = b.begin(1)
        with pytest.raises(OperationInProgress):
            b.begin(1)
        b.begin(2)
        await first.run(done)
        assert copies.find(b.nexus, 1) is first
        second = b.begin(1)
        assert copies.find(b.nexus, 1) is second
        await second.run(done)
        copies.forget(b.nexus)
        assert copies.find(b.nexus, 1) is None
        assert copies.find(b.nexus, 2) is not None


async def test_what_has_ended_is_kept_for_a_while():
    async with bench(RamdiskBackstore(SIZE), RamdiskBackstore(SIZE)) as b:
        now = [1000.0]
        copies = b.units[0].copies = CopyManager(lambda: now[0])
        for number in range(MAXIMUM_KEPT + 10):
            await b.begin(number).run(done)
        assert copies.find(b.nexus, 9) is None
        assert copies.find(b.nexus, 10) is not None
        now[0] += HOLD_TIME + 1
        assert copies.find(b.nexus, 10) is None


async def test_a_unit_that_closes_ends_the_copies_that_touch_it():
    store = GatedMemory(SIZE)
    async with bench(RamdiskBackstore(SIZE), store) as b:
        first, second = b.units
        await b.write(0, 0, pattern(SIZE))
        store.shut()
        operation = b.begin(7, background=True)
        work = partial(copy, operation, b.place(0, 0), b.place(1, 0), SIZE)
        first.running.spawn_alone(first.copies.run_in_background(operation, work))
        await store.until_waiting(1)
        async with anyio.create_task_group() as group:
            group.start_soon(second.aclose)
            await anyio.wait_all_tasks_blocked()
            assert not second.failed
            store.release()
        assert operation.status is CopyStatus.TERMINATED
        assert [entry[0] for entry in store.log] == ["write", "flush"]


async def test_a_command_that_is_aborted_before_its_turn_leaves_its_list_identifier_free():
    async with bench(RamdiskBackstore(SIZE), RamdiskBackstore(SIZE)) as b:
        task = Task(b.nexus, bytes(8), 1, bytes(16))
        operation = b.units[0].copies.begin(task, 1, 0)
        assert operation.status is CopyStatus.FOREGROUND
        task.state = TaskState.ABORTED
        assert operation.status is CopyStatus.TERMINATED
        assert b.begin(1) is not operation
