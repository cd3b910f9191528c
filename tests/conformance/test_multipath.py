"""One logical unit behind two target ports: SPC-5 5.6, SAM-5 4.6; what iscsi-test-cu's MultipathIO family checks, and more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest
from support.memory import GatedMemory
from support.scsi import FIRST, SECOND, make_lu, one_initiator, pattern
from tcm_loopback.commands import ApplicationClient, check
from tcm_loopback.fabric import LoopbackPort
from tcm_loopback.transport import CommandAborted

from tcm.backstore import Buffer, Capabilities
from tcm.scsi import cdb
from tcm.scsi.check_condition import MiscompareDuringVerify
from tcm.scsi.sense import Status
from tcm.target.device import TargetDevice
from tcm.target.node_acl import AccessControl
from tcm.target.task_management import TaskManagementFunction as Function

pytestmark = pytest.mark.anyio
Paths = tuple[ApplicationClient, ApplicationClient]


@pytest.fixture
async def paths() -> AsyncIterator[Paths]:
    """The same initiator port on two target ports (portal groups 1 and 2) of one target device; the unit is LUN 0 and LUN 5."""
    async with make_lu() as unit:
        device = TargetDevice("naa.50014050000000cc", "loopback")
        ports = []
        for tag, number in ((1, 0), (2, 5)):
            group = device.add_portal_group(tag)
            group.access = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
            group.add_lun(number, unit)
            ports.append(LoopbackPort(group))
        one, two = ApplicationClient(ports[0].connect(FIRST), 0), ApplicationClient(ports[1].connect(FIRST), 5)
        for client in (one, two):
            await client.identify()
        yield one, two
        for client in (one, two):
            client.initiator.disconnect()


def designators(page: bytes, association: int) -> list[bytes]:
    found, at = [], 4
    while at < len(page):
        length = 4 + page[at + 3]
        if page[at + 1] >> 4 & 3 == association:
            found.append(page[at : at + length])
        at += length
    return found


async def test_multipath_identification(paths: Paths) -> None:
    """SPC-5 7.7.6: the same unit designators by either path, different target port designators."""
    one, two = [await path.inquiry(0x83) for path in paths]
    assert designators(one, 0) == designators(two, 0)
    assert designators(one, 1) != designators(two, 1)
    assert await paths[0].inquiry(0x80) == await paths[1].inquiry(0x80)


async def test_multipath_multip(paths: Paths) -> None:
    """SPC-5 6.6.2: MULTIP is set for a unit that more than one target port reaches, and only then."""
    for path in paths:
        assert (await path.inquiry())[6] & 0x10
    async with one_initiator() as alone:
        assert not (await alone.inquiry())[6] & 0x10


async def test_multipath_data(paths: Paths) -> None:
    """SAM-5 4.6: what is written by one path is read by the other, in either lane."""
    for express in (False, True):
        for i, (writer, reader) in enumerate((paths, paths[::-1])):
            writer.initiator.express = reader.initiator.express = express
            data = pattern(4096, i)
            await writer.write(10, 16, data)
            assert (await reader.read(10, 16, 8)).data_in == data


async def test_multipath_reset(paths: Paths) -> None:
    """SAM-5 6.3.3: a logical unit reset by one path is a unit attention by every path."""
    for path in paths:
        await path.initiator.task_management(Function.LOGICAL_UNIT_RESET, path.lun)
        for other in paths:
            result = await other.test_unit_ready(expect=None)
            assert result.sense is not None
            assert (result.sense.key, result.sense.asc) == (6, 0x29)
            await other.test_unit_ready()


async def test_multipath_reserve(paths: Paths) -> None:
    """SPC-2 7.22: a reservation is an I_T nexus's: the same initiator by another target port is somebody else."""
    one, two = paths
    await one.reserve()
    await two.test_unit_ready(expect=Status.RESERVATION_CONFLICT)
    await one.release()
    await two.test_unit_ready()


async def test_multipath_compare_and_write(paths: Paths) -> None:
    """SBC-4 5.3: by either path."""
    one, two = paths
    for i in range(4):
        await paths[i % 2].compare_and_write(3, bytes((i,)) * 512, bytes((i + 1,)) * 512)
        await paths[1 - i % 2].compare_and_write(3, bytes((i,)) * 512, bytes(512), expect=MiscompareDuringVerify)
    assert (await one.read(10, 3, 1)).data_in == (await two.read(10, 3, 1)).data_in == bytes((4,)) * 512


async def test_multipath_path_lost(paths: Paths) -> None:
    """SAM-5 6.3.4: a path that is lost takes its tasks with it; the other path's go on."""
    one, two = paths
    first = one.initiator.start(one.lun, cdb.write(10, 0, 1), pattern(512), withheld=True)
    second = two.initiator.start(two.lun, cdb.write(10, 1, 1), pattern(512), withheld=True)
    one.initiator.disconnect()
    with anyio.fail_after(60):
        with pytest.raises(CommandAborted):
            await first.wait()
        second.deliver()
        check(await second.wait(), Status.GOOD)
    assert (await two.read(10, 0, 2)).data_in == bytes(512) + pattern(512)


async def test_multipath_report_luns(paths: Paths) -> None:
    """SPC-5 6.34: every target port has its own LUNs."""
    one, two = paths
    assert await one.report_luns() == [bytes(8)]
    assert await two.report_luns() == [bytes((0, 5)) + bytes(6)]


# Extents and aborts


async def test_abort_of_a_command_that_waits_for_its_extent() -> None:
    """SAM-5 7.2, SBC-4 5.3: a task that waits for another's blocks can be aborted, and those behind it go on."""
    store = GatedMemory()
    async with make_lu(store) as unit:
        device = TargetDevice("naa.50014050000000dd", "loopback")
        group = device.add_portal_group(1)
        group.access = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
        group.add_lun(0, unit)
        port = LoopbackPort(group)
        one, two = ApplicationClient(port.connect(FIRST)), ApplicationClient(port.connect(SECOND))
        await one.identify()
        await two.identify()
        store.shut()
        holder = one.initiator.start(0, cdb.compare_and_write(0, 4), bytes(2048) + pattern(2048))
        await store.until_waiting(1)
        waiting = one.initiator.start(0, cdb.write(10, 2, 4), pattern(2048, 2))
        behind = two.initiator.start(0, cdb.write(10, 5, 1), pattern(512, 3))
        assert waiting.task is not None
        with anyio.fail_after(60):
            await one.initiator.task_management(Function.ABORT_TASK, 0, waiting.task.tag)
            with pytest.raises(CommandAborted):
                await waiting.wait()
            store.release()
            check(await holder.wait(), Status.GOOD)
            check(await behind.wait(), Status.GOOD)
        assert (await one.read(10, 0, 6)).data_in == pattern(2048) + bytes(512) + pattern(512, 3)
        for client in (one, two):
            client.initiator.disconnect()


async def test_abort_of_an_atomic_command_under_way() -> None:
    """SAM-5 7.2, SBC-4 4.28: a COMPARE AND WRITE aborted while it reads writes nothing, and its blocks are free again."""
    store = GatedMemory()
    async with make_lu(store) as unit:
        device = TargetDevice("naa.50014050000000ee", "loopback")
        group = device.add_portal_group(1)
        group.access = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
        group.add_lun(0, unit)
        disk = ApplicationClient(LoopbackPort(group).connect(FIRST))
        await disk.identify()
        store.shut()
        command = disk.initiator.start(0, cdb.compare_and_write(0, 1), bytes(512) + pattern(512))
        await store.until_waiting(1)
        assert command.task is not None
        with anyio.fail_after(60):
            await disk.initiator.task_management(Function.ABORT_TASK, 0, command.task.tag)
            with pytest.raises(CommandAborted):
                await command.wait()
            store.release()
            await disk.compare_and_write(0, bytes(512), pattern(512, 2))
        assert not [entry for entry in store.log if entry[0] == "write"][1:]
        disk.initiator.disconnect()


async def test_extent_first_come_first_served() -> None:
    """SBC-4 5.3: reads that keep coming do not keep a COMPARE AND WRITE of the same blocks waiting for ever."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        early = disk.initiator.start(0, cdb.read(10, 0, 4), read_length=2048)
        await store.until_waiting(1)
        atomic = disk.initiator.start(0, cdb.compare_and_write(0, 4), bytes(2048) + pattern(2048))
        await anyio.lowlevel.checkpoint()
        late = disk.initiator.start(0, cdb.read(10, 0, 4), read_length=2048)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert len(store.waiting) == 1
        store.release()
        with anyio.fail_after(60):
            assert (await early.wait()).data_in == bytes(2048)
            check(await atomic.wait(), Status.GOOD)
            assert (await late.wait()).data_in == pattern(2048)


class GatedNowait(GatedMemory):
    """Answers inline whatever the gate; only what goes through ``readv`` and ``writev`` waits."""

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), nowait=True)

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        for buffer in buffers:
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)
        return True

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        data = b"".join(buffers)
        self.data[offset : offset + len(data)] = data
        return True


@pytest.mark.parametrize("express", [False, True])
async def test_extent_closes_the_express_lane(express: bool) -> None:
    """SBC-4 5.3: no inline write gets between the comparison and the write of a COMPARE AND WRITE, in either lane."""
    store = GatedNowait()
    async with one_initiator(store, express=express) as disk:
        assert (await disk.write(10, 0, bytes(512))).express is express
        store.shut()
        atomic = disk.initiator.start(0, cdb.compare_and_write(0, 1, fua=True), bytes(512) + pattern(512))
        await store.until_waiting(1)
        reader = disk.initiator.start(0, cdb.read(10, 0, 1), read_length=512)
        writer = disk.initiator.start(0, cdb.write(10, 0, 1), pattern(512, 2))
        assert not reader.done
        assert not writer.done
        assert store.data[:512] == bytes(512)
        store.release()
        with anyio.fail_after(60):
            check(await atomic.wait(), Status.GOOD)
            assert (await reader.wait()).data_in in {pattern(512), pattern(512, 2)}
            check(await writer.wait(), Status.GOOD)
        assert store.data[:512] == pattern(512, 2)
        assert (await disk.read(10, 0, 1)).express is express
