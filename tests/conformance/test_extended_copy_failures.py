"""EXTENDED COPY that ends with COPY ABORTED because a unit would not: SPC-4 5.17.7.4; and what else runs beside a copy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from support import copies
from support.copies import STATUS_LID4, cscd_of, extended_copy, parameters, receive
from support.memory import GatedMemory
from support.scsi import FIRST, SECOND, SIZE, logical_unit, make_lu, make_target, pattern, target
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.fabric import LoopbackPort
from tcm_loopback.transport import CommandAborted

from tcm.scsi import cdb
from tcm.scsi.check_condition import CommandsClearedByDeviceServer, InvalidFieldInCdb
from tcm.scsi.copy_cdb import THIS_UNIT, block_to_block
from tcm.scsi.copy_cdb import extended_copy as extended_copy_cdb
from tcm.scsi.copy_sense import CopySense, IncorrectCopyTargetDeviceType, ThirdPartyDeviceFailure, UnexpectedInexactSegment
from tcm.scsi.persistent_reservations import OutAction, ReservationType
from tcm.scsi.sense import SenseKey, Status
from tcm.target import copier
from tcm.target.task_management import TaskManagementFunction as Function
from tcm.target.task_management import TaskManagementResponse

pytestmark = pytest.mark.anyio
DATA = pattern(SIZE)
Two = tuple[ApplicationClient, ApplicationClient]


@pytest.fixture
async def port() -> AsyncIterator[LoopbackPort]:
    """A target port with a full unit and an empty one, which can be held up."""
    full = RamdiskBackstore(SIZE)
    async with target(full, GatedMemory(SIZE)) as made:
        await full.writev([DATA], 0)
        yield made


@pytest.fixture
async def two(port: LoopbackPort) -> Two:
    first, second = copies.clients(port)
    for client in (first, second):
        await client.identify()
    return first, second


async def client_of(port: LoopbackPort, lun: int, name: str = SECOND) -> ApplicationClient:
    other = ApplicationClient(port.connect(name), lun)
    await other.identify()
    return other


async def persistent(client: ApplicationClient, action: OutAction, key: int = 0, new: int = 0, kind: int = 0) -> None:
    data = key.to_bytes(8) + new.to_bytes(8) + bytes(8)
    await client.execute(cdb.persistent_reserve_out(action, kind), data)


def copying(two: Two, blocks: int = 1000, *, segments: int = 1) -> Callable[..., Any]:
    async def run(**fields: Any) -> Any:
        each = block_to_block(0, 0, 1, 0, blocks)
        return await extended_copy(two[0], [cscd_of(client) for client in two], *[each] * segments, **fields)

    return run


def failed(result: Any, side: int, cscd: int) -> CopySense:
    """The sense data, which have to name the side and the CSCD descriptor."""
    sense = result.sense
    assert isinstance(sense, CopySense)
    assert sense.forwarded is not None
    assert sense.forwarded.side == side
    assert sense.sense_key_specific == bytes((0x80, 0, 16 + 32 * cscd))
    return sense


@pytest.mark.parametrize("kind", [ReservationType.WRITE_EXCLUSIVE, ReservationType.EXCLUSIVE_ACCESS])
@pytest.mark.parametrize("side", [1, 2])
async def test_extended_copy_reserved(port: LoopbackPort, two: Two, side: int, kind: ReservationType) -> None:
    """SPC-4 5.17.7.4, 5.13.1: what a reservation keeps an I_T nexus from doing itself, the copy manager does not do for it."""
    holder = await client_of(port, side - 1)
    await persistent(holder, OutAction.REGISTER, 0, 0xA)
    await persistent(holder, OutAction.RESERVE, 0xA, 0, kind)
    run = copying(two)
    if kind is ReservationType.WRITE_EXCLUSIVE and side == 1:
        # the unit that copies is reserved: the command itself conflicts; told elsewhere, it only reads here
        await run(expect=Status.RESERVATION_CONFLICT)
        await extended_copy(two[1], [cscd_of(two[0])], block_to_block(0, 0, THIS_UNIT, 0, 8))
        return
    teller = two[2 - side]
    result = await extended_copy(
        teller, [cscd_of(client) for client in two], block_to_block(0, 0, 1, 0, 8), expect=ThirdPartyDeviceFailure
    )
    sense = failed(result, side, side - 1)
    assert sense.forwarded is not None
    assert (sense.forwarded.status, sense.forwarded.sense) == (Status.RESERVATION_CONFLICT, None)
    await persistent(holder, OutAction.CLEAR, 0xA)
    await two[side - 1].request_sense()
    await extended_copy(teller, [cscd_of(client) for client in two], block_to_block(0, 0, 1, 0, 8))


async def test_extended_copy_reserved_spc2(port: LoopbackPort, two: Two) -> None:
    """SPC-2 5.5.1: RESERVE by another I_T nexus keeps copies away, too."""
    holder = await client_of(port, 1)
    await holder.reserve()
    failed(await copying(two)(expect=ThirdPartyDeviceFailure), 2, 1)
    await holder.release()
    await copying(two)()


async def test_extended_copy_write_protected(port: LoopbackPort, two: Two) -> None:
    """SBC-4 4.12: a write-protected unit is a source, not a destination."""
    page = (await two[1].mode_sense(6, 0x0A))[-12:]
    await two[1].mode_select(6, bytes(4) + page[:4] + bytes((page[4] | 0x08,)) + page[5:])
    sense = failed(await copying(two)(expect=ThirdPartyDeviceFailure), 2, 1)
    assert sense.forwarded is not None
    assert sense.forwarded.sense is not None
    assert sense.forwarded.sense.key is SenseKey.DATA_PROTECT
    await extended_copy(two[0], [cscd_of(client) for client in two], block_to_block(1, 0, 0, 0, 8))


@pytest.mark.parametrize("side", [1, 2])
async def test_extended_copy_not_ready(two: Two, side: int) -> None:
    """SBC-4 5.31: a unit that is stopped is neither."""
    await two[side - 1].start_stop_unit(start=False)
    sense = failed(await copying(two)(expect=ThirdPartyDeviceFailure), side, side - 1)
    assert sense.forwarded is not None
    assert sense.forwarded.sense is not None
    assert sense.forwarded.sense.key is SenseKey.NOT_READY


async def test_extended_copy_device_type(two: Two) -> None:
    """SPC-4 5.17.7.4: the unit's device type is not the CSCD descriptor's."""
    cscds = [cscd_of(two[0]), cscd_of(two[1], device_type=1)]
    result = await extended_copy(two[0], cscds, block_to_block(0, 0, 1, 0, 8), expect=IncorrectCopyTargetDeviceType)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0x80, 0, 48))


async def test_extended_copy_inexact() -> None:
    """SPC-4 5.17.7.2: a segment that is no whole number of destination blocks is UNEXPECTED INEXACT SEGMENT."""
    async with (
        make_lu(serial="00000001-2222-3333-4444-555555555555") as one,
        make_lu(serial="00000002-2222-3333-4444-555555555555", block_size=4096) as other,
    ):
        clients = copies.clients(make_target(one, other))
        for client in clients:
            await client.identify()
        cscds = [cscd_of(client) for client in clients]
        for segment in (block_to_block(0, 0, 1, 0, 9), block_to_block(0, 0, 1, 0, 7, cat=True)):
            result = await extended_copy(clients[0], cscds, segment, expect=UnexpectedInexactSegment)
            assert result.sense is not None
            assert result.sense.sense_key_specific == bytes((0xA0, 0, 10))
        clients[0].initiator.disconnect()


@pytest.mark.parametrize("descriptor", [False, True])
async def test_extended_copy_medium_error(two: Two, descriptor: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPC-4 5.17.7.4 b to f: number of the segment, blocks not written, what the destination said, and where it stands."""
    monkeypatch.setattr(copier, "WINDOW", 64 << 10)
    store = logical_unit(two[1]).backstore
    assert isinstance(store, GatedMemory)
    if descriptor:
        page = (await two[0].mode_sense(6, 0x0A))[-12:]
        await two[0].mode_select(6, bytes(4) + page[:2] + bytes((page[2] | 0x04,)) + page[3:])
    writev = store.writev

    async def broken(buffers: Any, offset: int, fua: bool = False) -> None:
        if offset >= 128 << 10:
            raise OSError(5, "broken")
        await writev(buffers, offset, fua)

    monkeypatch.setattr(store, "writev", broken)
    cscds = [cscd_of(client) for client in two]
    segments = [block_to_block(0, 0, 1, 0, 8), block_to_block(0, 0, 1, 0, 1000)]
    result = await extended_copy(two[0], cscds, *segments, expect=ThirdPartyDeviceFailure)
    sense = failed(result, 2, 1)
    assert sense.information == 1000 - 256
    assert sense.segment == 1
    data = result.sense_data
    if descriptor:
        assert data[:4] == bytes((0x72, SenseKey.COPY_ABORTED, 0x0D, 0x01))
        assert len(data) == 8 + data[7]
        found = {}
        offset = 8
        while offset < len(data):
            found[data[offset]] = data[offset + 2 : offset + 2 + data[offset + 1]]
            offset += 2 + data[offset + 1]
        assert int.from_bytes(found[0x00][2:]) == 1000 - 256
        assert found[0x01][2:] == bytes((0, 0, 0, 1, 0, 0, 0, 0))
        assert found[0x02][2:5] == bytes((0x80, 0, 48))
        assert found[0x0C][:2] == bytes((0x02, Status.CHECK_CONDITION))
        assert found[0x0C][2:6] == bytes((0x72, SenseKey.MEDIUM_ERROR, 0x0C, 0x00))
    else:
        assert data[0] == 0xF0
        assert data[7] == len(data) - 8
        assert int.from_bytes(data[3:7]) == 1000 - 256
        assert data[8:12] == bytes((0, 18, 0, 1))
        assert data[18] == Status.CHECK_CONDITION
        assert data[19:][2] == SenseKey.MEDIUM_ERROR


async def test_extended_copy_beside_others(port: LoopbackPort, two: Two) -> None:
    """SPC-4 5.17.2: others read and write while a copy goes on; only the blocks that it is writing have to wait."""
    store = logical_unit(two[1]).backstore
    assert isinstance(store, GatedMemory)
    other = [await client_of(port, lun) for lun in (0, 1)]
    store.shut()
    async with anyio.create_task_group() as group:
        group.start_soon(copying(two, 8))
        await store.until_waiting(1)
        assert (await other[0].read(10, 0, 8)).data_in == DATA[:4096]
        await other[0].write(10, 0, DATA[:4096])
        group.start_soon(other[1].write, 10, 4, b"w" * 4096)
        group.start_soon(other[1].write, 10, 100, b"w" * 4096)
        await store.until_waiting(2)
        assert sorted(offset for _, offset, _ in store.waiting) == [0, 100 * 512]
        store.release()
    assert store.data[:2048] == DATA[:2048]
    assert store.data[4 * 512 : 12 * 512] == b"w" * 4096


@pytest.mark.parametrize("background", [False, True])
async def test_extended_copy_aborted(two: Two, background: bool) -> None:
    """SPC-4 5.17.4.6, 5.17.5: a task management function ends when nothing is written any more, whichever unit is written;
    logical unit reset aborts what goes on in the background, too."""
    store = logical_unit(two[1]).backstore
    assert isinstance(store, GatedMemory)
    store.shut()
    functions = [Function.LOGICAL_UNIT_RESET] if background else [Function.ABORT_TASK_SET, Function.LOGICAL_UNIT_RESET]
    data = parameters([cscd_of(two[1])], [block_to_block(THIS_UNIT, 0, 1, 0, 8)] * 2, lid4=True, immed=background)
    for function in functions:
        written = len(store.log)
        store.shut()
        command = two[0].initiator.start(0, extended_copy_cdb(len(data), lid4=True), data)
        await store.until_waiting(1)
        ended = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(manage, two[0], function, ended)
            await anyio.wait_all_tasks_blocked()
            assert not ended.is_set()
            store.release()
            await ended.wait()
        assert len(store.log) == written + 1
        if not background:
            with pytest.raises(CommandAborted):
                await command.wait()
        await anyio.wait_all_tasks_blocked()
        assert len(store.log) == written + 1
        while (await two[0].test_unit_ready(expect=None)).status is not Status.GOOD:
            pass
        forgotten = function is Function.LOGICAL_UNIT_RESET
        await receive(two[0], STATUS_LID4, 1, expect=InvalidFieldInCdb if forgotten else Status.GOOD)


async def manage(client: ApplicationClient, function: Function, ended: anyio.Event) -> None:
    assert await client.initiator.task_management(function, 0) is TaskManagementResponse.FUNCTION_COMPLETE
    ended.set()


async def test_extended_copy_preempted(port: LoopbackPort, two: Two) -> None:
    """SPC-4 5.17.4.6: PREEMPT AND ABORT ends the copies that the loser has write to the unit, told to another unit though."""
    store = logical_unit(two[1]).backstore
    assert isinstance(store, GatedMemory)
    other = await client_of(port, 1)
    await persistent(two[1], OutAction.REGISTER, 0, 0xA)
    await persistent(two[1], OutAction.RESERVE, 0xA, 0, ReservationType.WRITE_EXCLUSIVE)
    await persistent(other, OutAction.REGISTER, 0, 0xB)
    store.shut()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: copying(two, segments=2)(expect=CommandsClearedByDeviceServer))
        await store.until_waiting(1)
        group.start_soon(persistent, other, OutAction.PREEMPT_AND_ABORT, 0xB, 0xA, ReservationType.WRITE_EXCLUSIVE)
        await anyio.wait_all_tasks_blocked()
        store.release()
    assert len(store.log) == 1


async def test_extended_copy_sanitized(port: LoopbackPort, two: Two) -> None:
    """SBC-4 4.11: nothing is written to a unit that is being sanitized; copies from other units end."""
    store = logical_unit(two[1]).backstore
    assert isinstance(store, GatedMemory)
    other = await client_of(port, 1)
    store.shut()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: copying(two, segments=2)(expect=CommandsClearedByDeviceServer))
        await store.until_waiting(1)
        group.start_soon(other.execute, cdb.sanitize(2))
        await anyio.wait_all_tasks_blocked()
        store.release()
    assert not any(store.data)
    assert [entry[0] for entry in store.log].count("write") >= 1


async def test_extended_copy_in_background(port: LoopbackPort, two: Two) -> None:
    """SPC-4 5.17.4.3, 5.17.5: with IMMED the copy goes on after the command, and after I_T nexus loss; what goes wrong is told
    by RECEIVE COPY STATUS (LID4) only."""
    store = logical_unit(two[1]).backstore
    assert isinstance(store, GatedMemory)
    cscds = [cscd_of(client) for client in two]
    store.shut()
    await extended_copy(two[0], cscds, block_to_block(1, 0, 2, 0, 1000), lid4=True, immed=True)
    status = await receive(two[0], STATUS_LID4, 1)
    assert status[4:6] == bytes((0x01, 0x12))
    await store.until_waiting(1)
    two[0].initiator.disconnect()
    store.release()
    await anyio.wait_all_tasks_blocked()
    assert store.data[: 1000 * 512] == DATA[: 1000 * 512]
    again = ApplicationClient(port.connect(FIRST))
    await again.identify()
    await extended_copy(again, cscds, block_to_block(1, 5000, 2, 0, 1000), lid4=True, immed=True)
    await anyio.wait_all_tasks_blocked()
    status = await receive(again, STATUS_LID4, 1)
    assert (status[5], status[12]) == (0x02, Status.CHECK_CONDITION)
    assert status[14]
    assert status[32 + 2] == SenseKey.COPY_ABORTED
