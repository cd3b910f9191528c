"""A logical unit's life: open, resize, flushes in the background, close; attributes, limits, counters, long commands."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.memory import GatedMemory
from support.scsi import ApplicationClient, logical_unit, make_target, one_initiator, pattern, two_initiators
from tcm_backstores.null import NullBackstore
from tcm_loopback.commands import check
from tcm_loopback.transport import CommandAborted

from tcm.backstore import Capabilities, Extent, Support
from tcm.failure import ConfigError
from tcm.scsi import cdb
from tcm.scsi.block_data import parse_unmap_list
from tcm.scsi.check_condition import InternalTargetFailure, InvalidFieldInCdb, NotReady, ParameterListLengthError, WriteError
from tcm.scsi.sense import Status
from tcm.target import unit_attention
from tcm.target.attributes import DeviceAttributes, Identity, block_limits
from tcm.target.device_server.unmap import block_runs
from tcm.target.logical_unit import LogicalUnit
from tcm.target.lost_ports import LOST_PORTS_KEPT

pytestmark = pytest.mark.anyio


class Closable(GatedMemory):
    """Notes its end."""

    closed = 0
    refuse: Exception | None = None

    async def open(self) -> None:
        if self.refuse is not None:
            raise self.refuse

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_backstore_that_does_not_open_is_closed() -> None:
    store = Closable()
    store.refuse = PermissionError(13, "denied")
    unit = LogicalUnit("disk", store, serial="1")
    with pytest.raises(PermissionError):
        await unit.open()
    with pytest.raises(NotReady):
        unit.check_ready()
    await unit.aclose()
    assert store.closed == 1
    assert not store.log


@pytest.mark.parametrize(
    ("size", "attributes", "message"),
    [
        (1 << 20, DeviceAttributes(block_size=512), "4096"),
        (1000, DeviceAttributes(block_size=4096), "smaller than one block"),
    ],
)
async def test_block_sizes_that_do_not_fit(size: int, attributes: DeviceAttributes, message: str) -> None:
    store = Closable(size, block_size=4096)
    unit = LogicalUnit("disk", store, serial="1", attributes=attributes)
    with pytest.raises(ConfigError, match=message):
        await unit.open()
    await unit.aclose()
    assert store.closed == 1


@pytest.mark.parametrize("read_only", [False, True])
async def test_closing_flushes_what_was_written(read_only: bool) -> None:
    store = Closable(read_only=read_only)
    async with one_initiator(store):
        store.log.clear()
    assert store.closed == 1
    assert (("flush", 0, 0) in store.log) is not read_only


async def test_closing_waits_for_tasks() -> None:
    store = Closable()
    async with anyio.create_task_group() as group:
        unit = LogicalUnit("disk", store, serial="1")
        unit.start(group)
        await unit.open()
        client = ApplicationClient(make_target(unit).connect())
        await client.identify()
        store.shut()
        client.initiator.start(0, cdb.write(10, 0, 1), pattern(512))
        await store.until_waiting(1)
        client.initiator.disconnect()
        group.start_soon(unit.aclose)
        await anyio.sleep(0.01)
        assert not store.closed
        store.release()
    assert store.closed == 1
    assert store.data[:512] == pattern(512)


async def test_the_runtime_ends_what_runs() -> None:
    """Cancelling the task group aborts reads, and the fabric is told; writes on their way to the medium end in good order."""
    store = Closable()
    async with anyio.create_task_group() as group:
        unit = LogicalUnit("disk", store, serial="1")
        unit.start(group)
        await unit.open()
        client = ApplicationClient(make_target(unit).connect())
        await client.identify()
        store.shut()
        read = client.initiator.start(0, cdb.read(10, 0, 1), read_length=512)
        write = client.initiator.start(0, cdb.write(10, 8, 1), pattern(512))
        await store.until_waiting(2)
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            with pytest.raises(CommandAborted):
                await read.wait()
            assert not write.done
            store.release()
            check(await write.wait(), Status.GOOD)
    await unit.aclose()
    assert store.closed == 1
    assert store.data[8 * 512 : 9 * 512] == pattern(512)
    assert len(unit.task_set) == 0


async def test_only_so_many_lost_ports_are_remembered() -> None:
    async with one_initiator() as disk:
        unit = logical_unit(disk)
        for number in range(LOST_PORTS_KEPT + 5):
            unit.lost_ports.remember((f"naa.{number}", None, 1))
        assert len(unit.lost_ports) == LOST_PORTS_KEPT
        assert ("naa.4", None, 1) not in unit.lost_ports


async def test_resize() -> None:
    """SPC-5 table 54: CAPACITY DATA HAS CHANGED for every nexus; the new blocks are there at once."""
    store = GatedMemory(1 << 20)
    async with two_initiators(store) as clients:
        unit = logical_unit(clients[0])
        assert not unit.check_size()
        store.data.extend(bytes(1 << 20))
        assert unit.check_size()
        for client in clients:
            await client.test_unit_ready(expect=unit_attention.CAPACITY_DATA_HAS_CHANGED)
            await client.read(10, 4095, 1)
            await client.identify()
            assert client.blocks == 4096


async def test_counters_outlive_the_nexus() -> None:
    async with one_initiator() as disk:
        unit = logical_unit(disk)
        await disk.write(10, 0, pattern(4096))
        await disk.read(10, 0, 2)
        before = unit.totals()
        assert before["write_bytes"] == 4096
        disk.initiator.disconnect()
        assert unit.totals() == before


@pytest.mark.parametrize("command", [cdb.synchronize_cache(10, immed=True), cdb.start_stop_unit(immed=True)])
async def test_a_background_flush_that_fails_is_told_by_the_next(command: bytes) -> None:
    """SBC-4 5.29: IMMED has its status before the flush is done; the failure is not lost."""
    store = GatedMemory()
    async with one_initiator(store, removable=True) as disk:
        store.shut()
        await disk.execute(command)
        await store.until_waiting(1)
        store.failure = OSError(5, "input/output error")
        store.release()
        with anyio.fail_after(60):
            await logical_unit(disk).running.until_idle()
        store.failure = None
        await disk.execute(cdb.synchronize_cache(10), expect=WriteError)
        await disk.execute(cdb.synchronize_cache(10))


async def test_what_is_told_late_is_flushed_all_the_same() -> None:
    """At the end nobody asks twice: telling of the failure in the background must not take the flush's place."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        unit = logical_unit(disk)
        store.failure = OSError(5, "input/output error")
        await disk.execute(cdb.synchronize_cache(10, immed=True))
        await unit.running.until_idle()
        store.failure = None
        await disk.write(10, 0, pattern(512))
        store.log.clear()
        with pytest.raises(WriteError):
            await unit.medium.flush()
        assert store.log == [("flush", 0, 0)]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("command", [cdb.read(10, 0, 1), cdb.synchronize_cache(10), cdb.write_same(10, 0, 1)])
async def test_a_cancellation_that_is_the_backstores_own(command: bytes, anyio_backend: str) -> None:
    """A library that a backstore uses lets asyncio.CancelledError out: a failure like others, which ends nobody else's task."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.failure = asyncio.CancelledError()
        for _ in range(2):
            with anyio.fail_after(60):
                await disk.execute(command, pattern(512) if command[0] == 0x41 else b"", expect=InternalTargetFailure)
        await disk.execute(cdb.synchronize_cache(10, immed=True))
        await disk.execute(cdb.pre_fetch(10, 0, 1, immed=True))
        await logical_unit(disk).running.until_idle()
        store.failure = None
        await disk.read(10, 0, 1)


async def test_without_a_cache_there_is_nothing_to_flush() -> None:
    class Durable(GatedMemory):
        def capabilities(self) -> Capabilities:
            return Capabilities()

    store = Durable()
    async with one_initiator(store) as disk:
        assert not logical_unit(disk).mode_parameters.write_cache
        await disk.write(10, 0, pattern(512), fua=True)
        await disk.execute(cdb.synchronize_cache(16))
    assert [entry[0] for entry in store.log] == ["write"]


async def test_fua_without_native_fua_flushes() -> None:
    class NoFua(GatedMemory):
        def capabilities(self) -> Capabilities:
            return Capabilities(flush=Support.NATIVE)

    store = NoFua()
    async with one_initiator(store) as disk:
        await disk.write(10, 0, pattern(512), fua=True)
        await disk.read(10, 0, 1, fua=True)
        await disk.write_same(10, 0, 4, pattern(512))
        assert [entry[0] for entry in store.log] == ["write", "flush", "flush", "read", "write"]


async def test_a_backstore_that_cannot_flush_offers_no_fua() -> None:
    class Volatile(GatedMemory):
        def capabilities(self) -> Capabilities:
            return Capabilities(flush=Support.NONE)

    async with one_initiator(Volatile()) as disk:
        await disk.write(10, 0, pattern(512), fua=True, expect=InvalidFieldInCdb)
        assert logical_unit(disk).medium.write_cache


LONG = (64 << 20) // 512
"""Blocks of a command that takes its time."""


class Measuring(NullBackstore):
    """A huge disk that remembers the largest request."""

    largest = 0

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.largest = max(self.largest, sum(map(len, buffers)))
        await super().readv(buffers, offset)

    def capabilities(self) -> Capabilities:
        return Capabilities(flush=Support.EMULATE)


async def test_long_commands_take_little_memory() -> None:
    """VERIFY of 1 GiB, WRITE SAME of as much as is allowed, PRE-FETCH of the whole disk: a few MiB at most."""
    store = Measuring(4 << 40)
    async with one_initiator(store, max_write_same_len=LONG) as disk:
        tracemalloc.start()
        try:
            await disk.verify(16, 0, 1 << 21)
            await disk.verify(16, 0, 1 << 19, bytes(512), bytchk=3)
            await disk.write_same(16, 0, LONG, pattern(512))
            await disk.write_same(16, 0, LONG, bytes(512))
            await disk.execute(cdb.pre_fetch(16, 0, 0))
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
    assert store.largest <= 1 << 20


async def test_a_long_command_lets_others_run() -> None:
    """A WRITE SAME that never waits for its backstore still gives way between two steps."""
    async with two_initiators(Measuring(1 << 40), max_write_same_len=LONG) as (one, two):
        long = one.initiator.start(0, cdb.write_same(16, 0, LONG), pattern(512))
        await two.read(10, 1 << 20, 1)
        assert not long.done
        check(await long.wait(), Status.GOOD)


async def test_aborting_a_long_command_ends_it() -> None:
    from tcm.target.task_management import TaskManagementFunction

    async with one_initiator(Measuring(1 << 40), max_write_same_len=LONG) as disk:
        long = disk.initiator.start(0, cdb.write_same(16, 0, LONG), pattern(512))
        with anyio.fail_after(60):
            await disk.initiator.task_management(TaskManagementFunction.ABORT_TASK_SET)
        assert long.result is None
        assert not logical_unit(disk).extents.exclusive


# attributes


@pytest.mark.parametrize(
    "wrong",
    [
        {"block_size": 520},
        {"queue_depth": 0},
        {"queue_depth": 70000},
        {"emulate_ua_intlck_ctrl": 3},
        {"max_write_same_len": -1},
        {"unmap_granularity": 1 << 32},
    ],
)
def test_attributes_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DeviceAttributes(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"vendor": "NINECHARS"}, {"product": "x" * 17}, {"revision": "12345"}, {"vendor": "Ünï"}, {"company_id": 1 << 24}]
)
def test_identity_is_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Identity(**wrong)  # type: ignore[arg-type]


def test_limits_of_a_thick_device() -> None:
    limits = block_limits(DeviceAttributes(), Capabilities(), 512, unmap=False)
    assert limits.maximum_unmap_lba_count == limits.maximum_unmap_block_descriptor_count == 0
    assert limits.optimal_unmap_granularity == 0
    assert limits.maximum_compare_and_write_length == 255
    assert (
        block_limits(DeviceAttributes(emulate_caw=False), Capabilities(), 512, unmap=False).maximum_compare_and_write_length
        == 0
    )


def test_attributes_choose_limits() -> None:
    attributes = DeviceAttributes(hw_max_sectors=64, optimal_sectors=4096, max_write_same_len=7, unmap_granularity=16)
    limits = block_limits(attributes, Capabilities(unmap=Support.NATIVE), 4096, unmap=True)
    assert limits.maximum_transfer_length == limits.optimal_transfer_length == limits.maximum_compare_and_write_length == 64
    assert limits.maximum_write_same_length == 7
    assert limits.optimal_unmap_granularity == 16
    assert limits.optimal_transfer_length_granularity == 1


# parameter data


@given(st.lists(st.tuples(st.integers(1, 5000), st.booleans()), min_size=1, max_size=20), st.sampled_from([9, 10, 12]))
def test_block_runs(lengths: list[tuple[int, bool]], shift: int) -> None:
    """SBC-4 5.6: runs are contiguous and alternate; a block is deallocated exactly if none of its bytes is mapped."""
    extents, offset = [], 0
    for length, mapped in lengths:
        extents.append(Extent(offset, length, mapped))
        offset += length
    end = (offset + (1 << shift) - 1) >> shift
    runs = block_runs(extents, 0, shift, end)
    assert runs[0][0] == 0
    assert all(a[0] + a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(runs))
    assert runs[-1][0] + runs[-1][1] == end
    for lba, blocks, status in runs:
        for block in range(lba, lba + blocks):
            first, last = block << shift, (block + 1) << shift
            touching = [extent for extent in extents if extent.offset < last and extent.offset + extent.length > first]
            whole = touching[0].offset <= first and touching[-1].offset + touching[-1].length >= last
            assert (status == 1) is (whole and not any(extent.mapped for extent in touching))


@given(st.binary(max_size=80))
def test_parse_unmap_list(data: bytes) -> None:
    """SBC-4 5.32.2: any bytes make a list of whole descriptors or PARAMETER LIST LENGTH ERROR."""
    try:
        ranges = parse_unmap_list(data)
    except ParameterListLengthError:
        assert 0 < len(data) < 8 or int.from_bytes(data[2:4], "big") > max(int.from_bytes(data[:2], "big") - 6, 0)
    else:
        assert len(ranges) <= max(len(data) - 8, 0) // 16
        for i, (lba, blocks) in enumerate(ranges):
            assert data[8 + 16 * i : 20 + 16 * i] == lba.to_bytes(8, "big") + blocks.to_bytes(4, "big")
