"""The express lane: it opens only while nothing could make an ordinary READ or WRITE behave otherwise, and opens again."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from support.memory import GatedMemory
from support.scsi import SIZE, logical_unit, one_initiator, pattern, ramdisk, two_initiators
from tcm_loopback.commands import ApplicationClient

from tcm.backstore import Capabilities, Extent, Support
from tcm.scsi import cdb
from tcm.scsi.check_condition import SpaceAllocationFailed, UnrecoveredReadError, WriteError
from tcm.target import unit_attention
from tcm.target.nexus import ITLNexus
from tcm.target.task import TaskAttribute
from tcm.target.task_management import TaskManagementFunction

pytestmark = pytest.mark.anyio
BLOCK = pattern(512)


def itl_of(client: ApplicationClient) -> ITLNexus:
    assert client.initiator.nexus is not None
    itl = client.initiator.nexus.luns[bytes(8)]
    assert itl.block_shift == 9
    return itl


def reads(itl: ITLNexus, lba: int = 0, blocks: int = 1) -> bool:
    return itl.express_read is not None and itl.express_read(lba, blocks, [memoryview(bytearray(blocks * 512))])


def writes(itl: ITLNexus, lba: int = 0, blocks: int = 1) -> bool:
    return itl.express_write is not None and itl.express_write(lba, blocks, [pattern(blocks * 512)])


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[ApplicationClient, ITLNexus]]:
    async with one_initiator(ramdisk(), **options) as disk:
        itl = itl_of(disk)
        assert reads(itl)
        assert writes(itl)
        yield disk, itl
        assert reads(itl)
        assert writes(itl)


def closed(itl: ITLNexus) -> bool:
    return not reads(itl) and not writes(itl)


async def test_data_and_counters() -> None:
    """What one lane writes the other reads; both count."""
    async with opened() as (disk, itl):
        before = itl.num_cmds, itl.read_bytes, itl.write_bytes
        assert itl.express_write is not None
        assert itl.express_read is not None
        data = pattern(4096)
        assert itl.express_write(8, 8, [data[:100], data[100:]])
        one, two = bytearray(512), bytearray(3584)
        assert itl.express_read(8, 8, [memoryview(one), memoryview(two)])
        assert one + two == data
        assert (itl.num_cmds, itl.read_bytes, itl.write_bytes) == (before[0] + 2, before[1] + 4096, before[2] + 4096)
        assert (await disk.read(10, 8, 8)).data_in == data
        assert logical_unit(disk).num_cmds == itl.num_cmds


async def test_range_and_length() -> None:
    """Out of range or too long: not the express lane's business; nothing is touched or counted."""
    async with one_initiator(ramdisk(), hw_max_sectors=64) as disk:
        itl = itl_of(disk)
        commands = itl.num_cmds
        for lba, blocks in ((disk.blocks, 1), (disk.blocks - 1, 2), ((1 << 64) - 1, 1), (0, 65)):
            assert not reads(itl, lba, blocks)
            assert not writes(itl, lba, blocks)
        assert itl.num_cmds == commands
        assert reads(itl, disk.blocks - 64, 64)


async def test_unit_attention_closes() -> None:
    async with opened() as (disk, itl):
        logical_unit(disk).establish_attention(unit_attention.MODE_PARAMETERS_CHANGED)
        assert itl.express_read is itl.express_write is None
        await disk.test_unit_ready(expect=unit_attention.MODE_PARAMETERS_CHANGED)


async def test_a_new_nexus_starts_closed_and_a_lost_one_stays_so() -> None:
    async with one_initiator(ramdisk()) as disk:
        old = itl_of(disk)
        disk.initiator.reconnect()
        new = itl_of(disk)
        assert closed(new)
        assert closed(old)
        await disk.identify()
        assert reads(new)
        assert writes(new)
        assert closed(old)


async def test_reservation_closes_for_others() -> None:
    async with two_initiators(ramdisk()) as (one, two):
        await one.reserve()
        assert reads(itl_of(one))
        assert writes(itl_of(one))
        assert closed(itl_of(two))
        await one.release()
        assert reads(itl_of(two))
        assert writes(itl_of(two))


async def test_stop_closes() -> None:
    async with opened() as (disk, itl):
        await disk.start_stop_unit()
        assert itl.express_read is itl.express_write is None
        await disk.start_stop_unit(start=True)


async def test_ejecting_closes() -> None:
    async with opened(removable=True) as (disk, itl):
        await disk.start_stop_unit(loej=True)
        assert itl.express_read is itl.express_write is None
        await disk.start_stop_unit(loej=True, start=True)


async def test_write_protection_closes_for_writes() -> None:
    async with opened() as (disk, itl):
        unit = logical_unit(disk)
        unit.read_only = True
        unit.update_express()
        assert itl.express_write is None
        assert reads(itl)
        unit.read_only = False
        itl.write_protect = True
        itl.update_express()
        assert itl.express_write is None
        itl.write_protect = False
        unit.update_express()


async def test_software_write_protect_closes_for_writes() -> None:
    """SWP of the Control mode page."""
    async with opened() as (disk, itl):
        page = bytearray((await disk.mode_sense(6, 0x0A, dbd=True))[4:])
        page[0] &= 0x7F
        for swp in (0x08, 0):
            page[4] = page[4] & ~0x08 | swp
            await disk.execute(cdb.mode_select(6, 4 + len(page)), bytes(4) + page)
            assert writes(itl) is not bool(swp)
            assert reads(itl)


@pytest.mark.parametrize("attribute", [TaskAttribute.ORDERED, TaskAttribute.HEAD_OF_QUEUE])
async def test_ordering_closes(attribute: TaskAttribute) -> None:
    async with opened() as (disk, itl):
        command = disk.initiator.start(0, cdb.write(10, 0, 1), BLOCK, attribute=attribute, withheld=True)
        assert closed(itl)
        command.deliver()
        await command.wait()


async def test_a_dormant_task_closes_until_the_last_has_gone() -> None:
    async with opened() as (disk, itl):
        first = disk.initiator.start(0, cdb.write(10, 0, 1), BLOCK, withheld=True)
        assert reads(itl)
        ordered = disk.initiator.start(0, cdb.write(10, 0, 1), BLOCK, attribute=TaskAttribute.ORDERED, withheld=True)
        behind = disk.initiator.start(0, cdb.write(10, 0, 1), BLOCK)
        assert closed(itl)
        assert ordered.task is not None
        await disk.initiator.task_management(TaskManagementFunction.ABORT_TASK, 0, ordered.task.tag)
        assert behind.done
        assert reads(itl)
        first.deliver()


class NowaitMemory(GatedMemory):
    """Answers at once what is plain; what must wait goes through the gate."""

    def capabilities(self) -> Capabilities:
        native = Support.NATIVE
        return Capabilities(flush=native, fua=native, unmap=native, extents=native, nowait=True)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        if self.failure is not None:
            raise self.failure
        return await super().extents(offset, length)

    def read_nowait(self, buffers: Any, offset: int) -> bool:
        if self.failure is not None:
            raise self.failure
        if not self._gate.is_set():
            return False
        for buffer in buffers:
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)
        return True

    def write_nowait(self, buffers: Any, offset: int) -> bool:
        if self.failure is not None:
            raise self.failure
        if not self._gate.is_set():
            return False
        data = b"".join(buffers)
        self.data[offset : offset + len(data)] = data
        return True


async def test_an_exclusive_extent_closes() -> None:
    """COMPARE AND WRITE under way: nobody else is inline anywhere on the unit."""
    store = NowaitMemory()
    async with one_initiator(store) as disk:
        itl = itl_of(disk)
        assert reads(itl)
        store.shut()
        command = disk.initiator.start(0, cdb.compare_and_write(0, 1), bytes(512) + BLOCK)
        await store.until_waiting(1)
        assert itl.logical_unit.closed_lane == {"exclusive extent"}
        store.release()
        assert closed(itl)
        with anyio.fail_after(60):
            await command.wait()
        assert not itl.logical_unit.closed_lane
        assert reads(itl)
        assert writes(itl)


async def test_no_write_cache_closes_for_writes() -> None:
    """WCE zero over a backstore that has to flush: a write is not done when it is taken."""
    async with one_initiator(NowaitMemory(), emulate_write_cache=False) as disk:
        itl = itl_of(disk)
        assert reads(itl)
        assert itl.express_write is None
    async with one_initiator(ramdisk(), emulate_write_cache=False) as disk:
        assert writes(itl_of(disk))


async def test_a_backstore_that_only_blocks_has_none() -> None:
    async with one_initiator(GatedMemory(SIZE)) as disk:
        assert itl_of(disk).express_read is itl_of(disk).express_write is None


async def test_failure_and_would_block_go_the_general_way() -> None:
    """Never raises; a failure is met again, and answered, by the general path."""
    store = NowaitMemory()
    async with one_initiator(store) as disk:
        itl = itl_of(disk)
        commands = itl.num_cmds
        store.failure = OSError(5, "input/output error")
        assert closed(itl)
        store.failure = None
        store.shut()
        assert closed(itl)
        assert itl.num_cmds == commands
        store.release()
        assert reads(itl)


@pytest.mark.parametrize(
    ("command", "data_out", "number", "expected"),
    [
        (cdb.read(10, 0, 1), b"", errno.EIO, UnrecoveredReadError),
        (cdb.verify(10, 0, 1), b"", errno.EIO, UnrecoveredReadError),
        (cdb.write(10, 0, 1), BLOCK, errno.ENOSPC, SpaceAllocationFailed),
        (cdb.write_same(10, 0, 8), BLOCK, errno.ENOSPC, SpaceAllocationFailed),
        (cdb.unmap(24), cdb.unmap_parameters((0, 8)), errno.EIO, WriteError),
        (cdb.get_lba_status(0, 24), b"", errno.EIO, UnrecoveredReadError),
    ],
)
async def test_failures_at_once(command: bytes, data_out: bytes, number: int, expected: Any) -> None:
    """What a nowait method raises is told as if the backstore had taken its time."""
    store = NowaitMemory()
    async with one_initiator(store) as disk:
        store.failure = OSError(number, "no")
        await disk.execute(command, data_out, read_length=512 if command[0] == 0x28 else 0, expect=expected)
        store.failure = None
        await disk.read(10, 0, 1)


async def test_resize_moves_the_end() -> None:
    async with opened() as (disk, itl):
        unit = logical_unit(disk)
        store = unit.backstore
        assert not reads(itl, disk.blocks)
        size = store.size()
        store.size = lambda: size // 2  # type: ignore[method-assign]  # a file that was truncated
        assert unit.check_size()
        await disk.test_unit_ready(expect=unit_attention.CAPACITY_DATA_HAS_CHANGED)
        assert not reads(itl, disk.blocks // 2)
        assert reads(itl, disk.blocks // 2 - 1)


async def test_reset_closes_until_it_is_told() -> None:
    async with opened() as (disk, itl):
        await disk.initiator.task_management(TaskManagementFunction.LOGICAL_UNIT_RESET)
        assert itl.express_read is itl.express_write is None
        await disk.test_unit_ready(expect=unit_attention.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
