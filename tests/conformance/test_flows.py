"""What happens to a unit while initiators are there: resize, full disks, filters, many LUNs, Data-Out that comes late."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from support.memory import GatedMemory
from support.scsi import SECOND, SIZE, logical_unit, make_lu, make_target, one_initiator, pattern, ramdisk, two_initiators
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.filters import readonly
from tcm_loopback.commands import ApplicationClient, check
from tcm_loopback.transport import CommandAborted

from tcm.scsi import cdb
from tcm.scsi import lun as lun_codec
from tcm.scsi.check_condition import LbaOutOfRange, SpaceAllocationFailed, WriteProtected
from tcm.scsi.sense import Status
from tcm.target import unit_attention
from tcm.target.task import TaskAttribute
from tcm.target.task_management import TaskManagementFunction as Function
from tcm.target.task_management import TaskManagementResponse as Response

pytestmark = pytest.mark.anyio
BLOCK = pattern(512)

WRITES = {
    "WRITE (6)": (cdb.write(6, 8, 1), BLOCK),
    "WRITE (10)": (cdb.write(10, 8, 1), BLOCK),
    "WRITE (12)": (cdb.write(12, 8, 1), BLOCK),
    "WRITE (16)": (cdb.write(16, 8, 1, fua=True), BLOCK),
    "WRITE AND VERIFY (10)": (cdb.write_and_verify(10, 8, 1, bytchk=1), BLOCK),
    "WRITE ATOMIC (16)": (cdb.write_atomic(8, 1), BLOCK),
    "ORWRITE (16)": (cdb.orwrite(8, 1), BLOCK),
    "COMPARE AND WRITE": (cdb.compare_and_write(8, 1), bytes(512) + BLOCK),
    "WRITE SAME (10)": (cdb.write_same(10, 8, 1), BLOCK),
    "WRITE SAME (16)": (cdb.write_same(16, 8, 1, unmap=True), BLOCK),
}


@pytest.mark.parametrize("name", WRITES)
async def test_data_out_withheld(disk: ApplicationClient, name: str) -> None:
    """SAM-5 5.4.3.3: every command that writes does the same with data that come later, in pieces."""
    command, data = WRITES[name]
    handle = disk.initiator.start(0, command, data, withheld=True)
    with anyio.fail_after(60):
        await handle.requested.wait()
        assert not any((await disk.read(10, 8, 1)).data_in)
        assert handle.deliver(100) == len(data) - 100
        assert handle.deliver() == 0
        check(await handle.wait(), Status.GOOD)
    assert (await disk.read(10, 0, 24)).data_in == bytes(8 * 512) + BLOCK + bytes(15 * 512)


@pytest.mark.parametrize("name", WRITES)
async def test_data_out_aborted(disk: ApplicationClient, name: str) -> None:
    """SAM-5 7.2: every command that writes can be aborted while it waits for data; late data change nothing."""
    command, data = WRITES[name]
    handle = disk.initiator.start(0, command, data, withheld=True)
    with anyio.fail_after(60):
        await handle.requested.wait()
        handle.deliver(len(data) - 1)
        await disk.initiator.task_management(Function.ABORT_TASK_SET)
        with pytest.raises(CommandAborted):
            await handle.wait()
        handle.deliver()
        assert not any((await disk.read(10, 0, 24)).data_in)
        await disk.execute(command, data)


@pytest.mark.parametrize("attribute", [TaskAttribute.ORDERED, TaskAttribute.HEAD_OF_QUEUE])
async def test_attribute_on_every_write(disk: ApplicationClient, attribute: TaskAttribute) -> None:
    """SAM-5 8.5: the attribute changes nothing for a command that is alone."""
    for command, data in WRITES.values():
        await disk.unmap((0, 16))
        await disk.execute(command, data, attribute=attribute)
        assert (await disk.read(10, 8, 1)).data_in == BLOCK


async def test_capacity_changed(tmp_path: Path) -> None:
    """SBC-4 4.10: a grown medium is CAPACITY DATA HAS CHANGED for everybody, and the new blocks are there, in both lanes."""
    path = tmp_path / "disk"
    async with two_initiators(FileBackstore(str(path), SIZE)) as (one, two):
        one.initiator.express = True
        await one.read(10, SIZE // 512, 1, expect=LbaOutOfRange)
        with path.open("r+b") as file:
            file.truncate(2 * SIZE)
        assert logical_unit(one).check_size()
        assert not logical_unit(one).check_size()
        for client in (one, two):
            await client.test_unit_ready(expect=unit_attention.CAPACITY_DATA_HAS_CHANGED)
            await client.identify()
            assert client.blocks == 2 * SIZE // 512
        await one.write(16, one.blocks - 1, BLOCK)
        assert (await one.read(10, one.blocks - 1, 1)).data_in == BLOCK
        await one.read(10, one.blocks, 1, expect=LbaOutOfRange)


async def test_capacity_shrunk(tmp_path: Path) -> None:
    """SBC-4 4.10: after a smaller medium has been noticed, nothing beyond it is accessed."""
    path = tmp_path / "disk"
    async with one_initiator(FileBackstore(str(path), SIZE), express=True) as disk:
        with path.open("r+b") as file:
            file.truncate(SIZE // 2)
        assert logical_unit(disk).check_size()
        await disk.identify()
        assert disk.blocks == SIZE // 1024
        await disk.read(10, disk.blocks, 1, expect=LbaOutOfRange)
        await disk.write(10, disk.blocks, BLOCK, expect=LbaOutOfRange)
        await disk.read(10, disk.blocks - 1, 1)


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("noticed", [False, True])
async def test_capacity_shrunk_while_data_are_on_their_way(tmp_path: Path, name: str, noticed: bool) -> None:
    """SBC-4 4.10: a write whose LBA was in range when it came neither succeeds nor makes the file longer again."""
    path = tmp_path / "disk"
    command, data = WRITES[name]
    async with two_initiators(FileBackstore(str(path), SIZE)) as (disk, other):
        handle = disk.initiator.start(0, command, data, withheld=True)
        with anyio.fail_after(60):
            await handle.requested.wait()
            os.truncate(path, 8 * 512)
            if noticed:
                assert logical_unit(disk).check_size()
            handle.deliver()
            result = check(await handle.wait(), LbaOutOfRange)
        assert result.sense is not None
        assert result.sense.information == 8
        assert path.stat().st_size == 8 * 512
        for client in (disk, other):
            await client.test_unit_ready(expect=unit_attention.CAPACITY_DATA_HAS_CHANGED)
            await client.identify()
            assert client.blocks == 8


@pytest.mark.parametrize("express", [False, True])
async def test_capacity_shrunk_and_nobody_has_noticed(tmp_path: Path, express: bool) -> None:
    """SBC-4 4.10: the first access beyond the new end is out of range and says so to all; the file stays as it is."""
    path = tmp_path / "disk"
    accesses: list[tuple[bytes, bytes, int]] = [(*each, 0) for each in WRITES.values()]
    accesses += [
        (cdb.read(16, 8, 1), b"", 512),
        (cdb.verify(16, 8, 1), b"", 0),
        (cdb.unmap(24), cdb.unmap_parameters((8, 1)), 0),
    ]
    async with one_initiator(FileBackstore(str(path), SIZE), express=express) as disk:
        for command, data, length in accesses:
            os.truncate(path, SIZE)
            logical_unit(disk).check_size()
            await disk.identify()
            os.truncate(path, 8 * 512)
            await disk.execute(command, data, read_length=length, expect=LbaOutOfRange)
            await disk.test_unit_ready(expect=unit_attention.CAPACITY_DATA_HAS_CHANGED)
            assert path.stat().st_size == 8 * 512
        await disk.write(16, 7, BLOCK)


async def test_capacity_tail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SBC-4 4.3.2: what does not fill a block is not there; the log says so once for each size."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE + 100))
    async with one_initiator(FileBackstore(str(path))) as disk:
        assert disk.blocks == SIZE // 512
        assert not logical_unit(disk).check_size()
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            "disk0: the last 100 bytes, less than a block of 512, are out of reach"
        ]
        os.truncate(path, 2 * SIZE + 7)
        assert logical_unit(disk).check_size()
        assert "the last 7 bytes" in caplog.text


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Files of this process cannot be written beyond ``limit`` bytes: a file system that is full there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("express", [False, True])
async def test_disk_full_file(tmp_path: Path, express: bool) -> None:
    """SBC-4 4.7.3.6: a real file that cannot grow: SPACE ALLOCATION FAILED; what fits still works, and all again later."""
    size, limit = 8 << 20, 4 << 20
    async with one_initiator(FileBackstore(str(tmp_path / "disk"), size), express=express) as disk:
        with file_size_limit(limit):
            await disk.write(10, 0, BLOCK)
            await disk.write(10, limit // 512, BLOCK, expect=SpaceAllocationFailed)
            await disk.write(10, limit // 512 - 1, BLOCK * 4, expect=SpaceAllocationFailed)
            await disk.write_same(16, limit // 512, 64, BLOCK, expect=SpaceAllocationFailed)
            assert (await disk.read(10, 0, 1)).data_in == BLOCK
        await disk.write(10, limit // 512, BLOCK)
        assert (await disk.read(10, limit // 512, 1)).data_in == BLOCK


async def test_filter_readonly() -> None:
    """SBC-4 4.16: a unit behind the readonly filter is write protected, and says so."""
    filtered = readonly.ReadonlyFilter(ramdisk())
    async with one_initiator(filtered, express=True) as disk:
        await disk.write(10, 0, BLOCK, expect=WriteProtected)
        await disk.unmap((0, 8), expect=None)
        assert (await disk.mode_sense(6, 0x3F))[2] & 0x80
        assert not any((await disk.read(10, 0, 1)).data_in)


@pytest.mark.parametrize("number", [0, 1, 255, 256, 300, 16383, 16384, 70000])
async def test_lun_numbers(number: int) -> None:
    """SAM-5 4.7: LUNs in peripheral, flat space and extended flat space addressing."""
    async with make_lu() as unit:
        port = make_target()
        port.target_portal_group.add_lun(number, unit)
        disk = ApplicationClient(port.connect(express=True), number)
        await disk.identify()
        assert await disk.report_luns() == [lun_codec.encode(number)]
        assert (await disk.write(10, 0, BLOCK)).express
        assert (await disk.read(10, 0, 1)).data_in == BLOCK
        assert await disk.initiator.task_management(Function.LOGICAL_UNIT_RESET, number) is Response.FUNCTION_COMPLETE
        await disk.test_unit_ready(expect=unit_attention.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
        disk.initiator.disconnect()


async def test_completes_inline(disk: ApplicationClient) -> None:
    """The fast path is a rule: what a ramdisk can do at once has its status before the call that sends it returns."""
    for command, data, length in (
        (cdb.read(10, 0, 8), b"", 4096),
        (cdb.read(6, 0, 8), b"", 4096),
        (cdb.write(16, 0, 8), bytes(4096), 0),
        (cdb.write(10, 0, 8, dpo=True), bytes(4096), 0),
        (cdb.test_unit_ready(), b"", 0),
        (cdb.inquiry(), b"", 4096),
        (cdb.mode_sense(10, 0x3F), b"", 252),
        (cdb.report_supported_operation_codes(), b"", 65536),
    ):
        handle = disk.initiator.start(0, command, data, read_length=length)
        assert handle.done, command.hex()
        check(await handle.wait(), Status.GOOD)


async def test_lun_read_only_in_demo_mode() -> None:
    """LIO's demo_mode_write_protect, the default: whoever has no node ACL may only read."""
    async with make_lu() as unit:
        port = make_target(unit)
        group = port.target_portal_group
        group.access = type(group.access)(generate_node_acls=True)
        stranger = ApplicationClient(port.connect(SECOND, express=True))
        await stranger.identify()
        await stranger.write(10, 0, BLOCK, expect=WriteProtected)
        assert (await stranger.mode_sense(6, 0x3F))[2] & 0x80
        stranger.initiator.disconnect()


@pytest.mark.parametrize("zeroes", [False, True])
async def test_unmap_zeroes_data(zeroes: bool) -> None:
    """SBC-4 5.20.2, 6.6.6: LBPRZ of READ CAPACITY (16) and of VPD page B2h agree with each other."""
    async with one_initiator(unmap_zeroes_data=zeroes) as disk:
        capacity = (await disk.execute(cdb.read_capacity16(), read_length=32)).data_in
        assert bool(capacity[14] & 0x40) is zeroes
        assert bool((await disk.inquiry(0xB2))[5] & 0x04) is zeroes
        await disk.write(10, 0, b"\xff" * 4096)
        await disk.write_same(16, 0, 8, bytes(512), unmap=True)
        assert not any((await disk.read(10, 0, 8)).data_in)


@pytest.mark.parametrize(("attribute", "lbpu", "lbpws"), [("emulate_tpu", False, True), ("emulate_tpws", True, False)])
async def test_provisioning_attributes(attribute: str, lbpu: bool, lbpws: bool) -> None:
    """LIO's emulate_tpu and emulate_tpws: VPD page B2h says what works, and nothing else does."""
    async with one_initiator(**{attribute: False}) as disk:
        flags = (await disk.inquiry(0xB2))[5]
        assert (bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20)) == (lbpu, lbpws, lbpws)
        result = await disk.unmap((0, 8), expect=None)
        assert (result.status is Status.GOOD) is lbpu
        result = await disk.write_same(16, 0, 8, bytes(512), unmap=True, expect=None)
        assert (result.status is Status.GOOD) is lbpws
        assert bool((await disk.inquiry(0xB0))[20:28] != bytes(8)) is lbpu


async def test_unit_attentions_one_at_a_time() -> None:
    """SAM-5 5.14: each command reports one condition; a reset first, the others in the order of their coming; none twice."""
    async with two_initiators() as (one, two):
        unit = logical_unit(one)
        unit.establish_attention(unit_attention.INQUIRY_DATA_HAS_CHANGED)
        unit.establish_attention(unit_attention.CAPACITY_DATA_HAS_CHANGED)
        unit.establish_attention(unit_attention.INQUIRY_DATA_HAS_CHANGED)
        await two.inquiry()
        await two.test_unit_ready(expect=unit_attention.INQUIRY_DATA_HAS_CHANGED)
        await two.read(10, 0, 1, expect=unit_attention.CAPACITY_DATA_HAS_CHANGED)
        await two.test_unit_ready()
        unit.establish_attention(unit_attention.MODE_PARAMETERS_CHANGED)
        await one.initiator.task_management(Function.LOGICAL_UNIT_RESET)
        await two.test_unit_ready(expect=unit_attention.BUS_DEVICE_RESET_FUNCTION_OCCURRED)


async def test_unit_attention_before_reservation_conflict() -> None:
    """SAM-5 5.3.3: a reset's condition is reported before RESERVATION CONFLICT, another condition after it."""
    async with two_initiators() as (one, two):
        await one.reserve()
        logical_unit(one).establish_attention(unit_attention.INQUIRY_DATA_HAS_CHANGED, except_for=None)
        await two.test_unit_ready(expect=Status.RESERVATION_CONFLICT)
        await one.test_unit_ready(expect=unit_attention.INQUIRY_DATA_HAS_CHANGED)
        await one.release()
        await two.test_unit_ready(expect=unit_attention.INQUIRY_DATA_HAS_CHANGED)


async def test_both_buffers(disk: ApplicationClient) -> None:
    """SAM-5 5.4.2: a command is given buffers for both directions and uses the one that is its own."""
    await disk.execute(cdb.write(10, 0, 1), BLOCK, read_length=512)
    result = await disk.execute(cdb.read(10, 0, 1), bytes(512), read_length=512)
    assert result.data_in == BLOCK
    result = await disk.execute(cdb.read(10, 0, 1), read_length=0, write_length=0)
    assert (result.data_in, result.residual, result.overflow) == (b"", 512, True)


async def test_data_in_longer_than_the_buffer(disk: ApplicationClient) -> None:
    """RFC 7143 11.4.5: ALLOCATION LENGTH larger than the buffer: truncated, the rest is an overflow."""
    full = await disk.inquiry()
    result = await disk.execute(cdb.inquiry(None, 4096), read_length=36)
    assert (result.data_in, result.residual, result.overflow) == (full[:36], len(full) - 36, True)


async def test_stopped_while_data_out_is_awaited(disk: ApplicationClient) -> None:
    """SBC-4 5.28: a STOP UNIT does not lose a WRITE that has been accepted: it ends one way or the other."""
    handle = disk.initiator.start(0, cdb.write(10, 0, 1), BLOCK, withheld=True)
    await handle.requested.wait()
    await disk.start_stop_unit()
    handle.deliver()
    with anyio.fail_after(60):
        result = await handle.wait()
    await disk.start_stop_unit(start=True)
    assert any((await disk.read(10, 0, 1)).data_in) is (result.status is Status.GOOD)


async def test_write_buffer_is_not_kept(disk: ApplicationClient) -> None:
    """The initiator's buffer is its own again once the status is there."""
    data = bytearray(BLOCK)
    await disk.execute(cdb.write(10, 0, 1), data)
    data[:] = bytes(512)
    assert (await disk.read(10, 0, 1)).data_in == BLOCK


async def test_close_waits_for_what_runs() -> None:
    """A unit that is closed while commands run lets them end first."""
    store = GatedMemory()
    async with make_lu(store) as unit:
        disk = ApplicationClient(make_target(unit).connect())
        await disk.identify()
        store.shut()
        command = disk.initiator.start(0, cdb.write(10, 0, 1), BLOCK)
        await store.until_waiting(1)
    check(await command.wait(), Status.GOOD)
    assert store.data[:512] == BLOCK


@pytest.mark.parametrize("name", ["WRITE SAME (16)", "UNMAP"])
async def test_long_command_aborted_half_way(name: str) -> None:
    """SAM-5 7.2: a command of many steps stops after the step that is under way; the response comes after that step."""
    store = GatedMemory(8 << 20)
    ranges = cdb.unmap_parameters(*((i * 64, 8) for i in range(16)))
    command, data = {
        "WRITE SAME (16)": (cdb.write_same(16, 0, 16384), BLOCK),
        "UNMAP": (cdb.unmap(len(ranges)), ranges),
    }[name]
    async with one_initiator(store) as disk:
        store.log.clear()
        store.shut()
        handle = disk.initiator.start(0, command, data)
        await store.until_waiting(1)
        assert handle.task is not None
        tag = handle.task.tag
        answered = anyio.Event()

        async def abort() -> None:
            await disk.initiator.task_management(Function.ABORT_TASK, 0, tag)
            answered.set()

        async with anyio.create_task_group() as group:
            group.start_soon(abort)
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            assert not answered.is_set()
            store.release()
        with anyio.fail_after(60), pytest.raises(CommandAborted):
            await handle.wait()
        assert len([entry for entry in store.log if entry[0] != "flush"]) == 1
        await disk.execute(command, data)


async def test_long_command_lets_others_run() -> None:
    """A VERIFY or WRITE SAME of the whole medium does not keep the event loop: others' commands are answered meanwhile."""
    async with one_initiator(ramdisk(64 << 20)) as disk:
        longest = min(int.from_bytes((await disk.inquiry(0xB0))[36:44], "big"), disk.blocks - 8)
        assert longest >= 8192
        for command, data in ((cdb.verify(16, 0, disk.blocks), b""), (cdb.write_same(16, 8, longest), BLOCK)):
            handle = disk.initiator.start(0, command, data)
            done = 0
            with anyio.fail_after(60):
                while not handle.done:
                    await disk.read(10, 0, 1)
                    await anyio.lowlevel.checkpoint()
                    done += 1
                check(await handle.wait(), Status.GOOD)
            assert done > 3
