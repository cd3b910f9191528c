"""WRITE USING TOKEN (SBC-4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import pytest
from support.memory import GatedMemory
from support.scsi import SIZE, logical_unit, pattern
from support.tokens import Bench, bench, pointer, underrun, write_data
from tcm_backstores.fileio import FileBackstore

from tcm.backstore import BackstoreError, BackstoreErrorKind
from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    CommandsClearedByDeviceServer,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    LbaOutOfRange,
    OperationInProgress,
    ParameterListLengthError,
    TooManySegmentDescriptors,
    WriteProtected,
)
from tcm.scsi.copy_results import CopyStatus
from tcm.scsi.rod_token_commands import MAXIMUM_RANGES
from tcm.scsi.rod_token_sense import (
    CopyTargetDeviceDataUnderrun,
    InvalidTokenLength,
    NothingTransferred,
    TokenCancelled,
    TokenCorrupt,
    TokenDeleted,
    TokenUnknown,
    UnsupportedTokenType,
)
from tcm.scsi.rod_tokens import zero_token
from tcm.scsi.sense import Status
from tcm.target import copier
from tcm.target.task_management import TaskManagementFunction

pytestmark = pytest.mark.anyio
BLOCKS = SIZE // 512


@pytest.fixture
async def units() -> AsyncIterator[Bench]:
    async with bench() as clients:
        yield clients


async def fill(units: Bench) -> bytes:
    """Every block of the source has contents of its own. Returns all of it."""
    data = pattern(SIZE)
    await units.source.write(16, 0, data)
    return data


def blocks_of(data: bytes, *ranges: tuple[int, int]) -> bytes:
    return b"".join(data[lba * 512 : (lba + blocks) * 512] for lba, blocks in ranges)


async def test_write_using_token_copies(units: Bench) -> None:
    """SBC-4, Block device ROD token operations: the ranges of both sides, in the order in which they stand there."""
    data = await fill(units)
    token = await units.source.populate((100, 10), (5, 3), (0, 0), (4000, 50))
    await units.destination.write_token(token, (64, 20), (10, 0), (3, 43))
    wanted = blocks_of(data, (100, 10), (5, 3), (4000, 50))
    assert await units.destination.contents(64, 20) + await units.destination.contents(3, 43) == wanted
    found = await units.destination.information(2)
    assert (found.service_action, found.status, found.units, found.count) == (0x11, CopyStatus.COMPLETED, 0xF1, 63)
    for lba, blocks in ((0, 3), (46, 18), (84, BLOCKS - 84)):
        assert not any(await units.destination.contents(lba, blocks))


@pytest.mark.parametrize("offset", [0, 1, 9, 10, 12, 62])
async def test_write_using_token_offset_into_rod(units: Bench, offset: int) -> None:
    """SBC-4, WRITE USING TOKEN: OFFSET INTO ROD, in blocks of the destination."""
    data = await fill(units)
    token = await units.source.populate((100, 10), (5, 3), (4000, 50))
    wanted = blocks_of(data, (100, 10), (5, 3), (4000, 50))[offset * 512 :][: 4 * 512]
    count = len(wanted) // 512
    await units.destination.write_token(token, (7, count), offset=offset)
    assert await units.destination.contents(7, count) == wanted


@pytest.mark.parametrize("offset", [63, 64, 1 << 63, (1 << 64) - 1])
async def test_write_using_token_offset_beyond_the_rod(units: Bench, offset: int) -> None:
    """SBC-4, WRITE USING TOKEN: an offset at the end of the data or behind it."""
    token = await units.source.populate((100, 63))
    result = await units.destination.write_token(token, (0, 1), offset=offset, expect=InvalidFieldInParameterList)
    assert pointer(result.sense) == (8, None)


async def test_write_using_token_more_than_there_is(units: Bench) -> None:
    """SBC-4, WRITE USING TOKEN: as much as there is is written; the rest ends in DATA UNDERRUN, with the transfer count."""
    data = await fill(units)
    await units.destination.write(16, 0, b"x" * 4096 * 2)
    token = await units.source.populate((8, 4))
    result = await units.destination.write_token(token, (0, 2), (4, 8), offset=1, expect=CopyTargetDeviceDataUnderrun)
    underrun(result, 3)
    wanted = data[9 * 512 : 11 * 512] + b"x" * 1024 + data[11 * 512 : 12 * 512] + b"x" * 512 * 11
    assert await units.destination.contents(0, 16) == wanted
    found = await units.destination.information(2)
    assert (found.status, found.completion, found.count) == (CopyStatus.PARTIAL_TOKEN, Status.CHECK_CONDITION, 3)
    assert (found.sense[2] & 0xF, found.sense[3:7].hex(), found.sense[12:14].hex()) == (0xA, "00000003", "0d04")


async def test_write_using_token_onto_its_own_unit(units: Bench) -> None:
    """SBC-4, WRITE USING TOKEN: the destination may be the unit that made the token, but not what the token stands for."""
    data = await fill(units)
    token = await units.source.populate((100, 10), (200, 10))
    await units.source.write_token(token, (110, 20))
    assert await units.source.contents(110, 20) == blocks_of(data, (100, 10), (200, 10))
    for ranges, byte in (((0, 10), (209, 10)), 552), (((100, 20),), 536), (((0, 0), (95, 20)), 552):
        result = await units.source.write_token(token, *ranges, expect=InvalidFieldInParameterList)
        assert pointer(result.sense) == (byte, None)
    assert await units.source.contents(0, 100) == data[: 100 * 512]
    await units.destination.write_token(token, (0, 20))


async def test_write_using_token_by_another_nexus(units: Bench) -> None:
    """SPC-5, RODs and ROD related tokens: whoever has the token may use it, wherever it has been handed on to."""
    data = await fill(units)
    token = await units.source.populate((8, 8))
    await units.other_destination.write_token(token, (0, 8))
    await units.other_source.write_token(token, (64, 8))
    assert await units.destination.contents(0, 8) == await units.source.contents(64, 8) == data[4096:8192]
    await units.destination.execute(cdb.receive_rod_token_information(2), read_length=4096, expect=InvalidFieldInCdb)


@pytest.mark.parametrize("sizes", [(512, 4096), (4096, 512)])
async def test_write_using_token_between_block_sizes(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """SBC-4, WRITE USING TOKEN: blocks are cut up and put together; what a last one is short of is zeroes."""
    monkeypatch.setattr(copier, "WINDOW", 16384)
    monkeypatch.setattr(copier, "CHUNK", 8192)
    memories = [GatedMemory(1 << 20, block_size=size) for size in sizes]
    async with bench(*memories) as units:
        memories[0].data[:] = data = pattern(1 << 20)
        if sizes[0] == 512:
            token = await units.source.populate((15, 6), (40, 61))  # 67 blocks of 512 bytes: 8 of 4096 and 3/8
            wanted = (blocks_of(data, (15, 6), (40, 61)) + bytes(5 * 512))[4096:]
            result = await units.destination.write_token(token, (20, 10), offset=1, expect=CopyTargetDeviceDataUnderrun)
            underrun(result, 8)
            assert memories[1].data[20 * 4096 : 30 * 4096] == wanted + bytes(2 * 4096)
        else:
            token = await units.source.populate((15, 6), (40, 3))
            wanted = (data[15 * 4096 : 21 * 4096] + data[40 * 4096 : 43 * 4096])[3 * 512 :]
            await units.destination.write_token(token, (11, 50), (100, 19), offset=3)
            assert memories[1].data[11 * 512 : 61 * 512] + memories[1].data[100 * 512 : 119 * 512] == wanted


@pytest.mark.parametrize("same", [False, True])
async def test_write_using_token_between_files(tmp_path: Path, same: bool) -> None:
    """SBC-4, WRITE USING TOKEN: files on one file system copy among themselves, token or not."""
    stores = [FileBackstore(str(tmp_path / name), 8 << 20) for name in ("a", "b")]
    async with bench(*stores) as units:
        data = pattern(3 << 20)
        await units.source.write(16, 0, data)
        token = await units.source.populate((1, 16383))
        client = units.source if same else units.destination
        if same:
            token = await units.source.populate((1, 6000))
            await client.write_token(token, (8000, 6000))
            assert await client.contents(8000, 6000) == data[512 : 512 + 6000 * 512]
        else:
            await client.write_token(token, (0, 16383))
            assert await client.contents(0, 6143) == data[512:]
            assert not any(await client.contents(6143, 10240))


async def test_write_using_token_holes_stay_holes(units: Bench) -> None:
    """SBC-4, Logical block provisioning: what is not mapped in the ROD need not be mapped by it."""
    await units.source.write(16, 1024, pattern(4096))
    await units.destination.write(16, 0, pattern(SIZE, 2))
    token = await units.source.populate((0, BLOCKS))
    await units.destination.write_token(token, (0, BLOCKS))
    statuses = await units.destination.get_lba_status(0)
    assert [each[0] for each in statuses if not each[2]] == [1024]


# the block device zero ROD token


async def test_write_using_token_zero(units: Bench) -> None:
    """SBC-4, Block device zero ROD token: the ranges read as zeroes, unmapped where that does it."""
    await units.destination.write(16, 0, pattern(SIZE))
    await units.destination.write_token(zero_token(), (8, 64), (1024, 1024), offset=1 << 40)
    assert await units.destination.contents(0, 8) == pattern(SIZE)[:4096]
    assert not any(await units.destination.contents(8, 64))
    assert not any(await units.destination.contents(1024, 1024))
    assert await units.destination.contents(72, 8) == pattern(SIZE)[72 * 512 : 80 * 512]
    assert (1024, 1024, 1) in await units.destination.get_lba_status(1024)
    found = await units.destination.information(2)
    assert (found.status, found.count, found.tokens) == (CopyStatus.COMPLETED, 64 + 1024, [])


async def test_write_using_token_zero_without_unmap() -> None:
    """SBC-4, Block device zero ROD token: zeroes are written where a unit is fully provisioned."""
    async with bench(None, GatedMemory(thin=False)) as units:
        await units.destination.write(16, 0, pattern(8192))
        await units.destination.write_token(zero_token(), (1, 3))
        assert await units.destination.contents(0, 16) == pattern(8192)[:512] + bytes(1536) + pattern(8192)[2048:]


# lists and tokens that are wrong


async def test_write_using_token_lists_cut_anywhere(units: Bench) -> None:
    """SBC-4, WRITE USING TOKEN: no list is no error, one without a header is; a range that is cut off is ignored."""
    data = write_data(zero_token(), (0, 8), (16, 8))
    await units.destination.send_write(b"")
    for length in range(1, 536):
        await units.destination.send_write(data[:length], expect=ParameterListLengthError)
    for length in range(536, len(data) + 1):
        await units.destination.send_write(data[:length])
        assert (await units.destination.information(2)).count == (length - 536) // 16 * 8


async def test_write_using_token_bad_lists(units: Bench) -> None:
    """SBC-4, WRITE USING TOKEN parameter list: each field that is wrong is pointed at, and nothing is written."""
    await units.destination.write(16, 0, pattern(8192))
    good = write_data(zero_token(), (0, 8))

    async def wrong(byte: int, bit: int | None = None, *, data: bytes) -> None:
        result = await units.destination.send_write(data, expect=InvalidFieldInParameterList)
        assert pointer(result.sense) == (byte, bit)

    await wrong(0, data=(549).to_bytes(2) + good[2:])
    await wrong(0, data=(551).to_bytes(2) + good[2:])
    await wrong(2, 2, data=good[:2] + b"\x04" + good[3:])
    await wrong(7, 0, data=good[:7] + b"\x01" + good[8:])
    await wrong(528, 7, data=good[:528] + b"\x80" + good[529:])
    await wrong(0, data=good[:535] + b"\x0f" + good[536:])
    await wrong(551, 0, data=good[:551] + b"\x01")
    await wrong(552, data=write_data(zero_token(), (0, 8), (4, 8)))
    many = [(2 * lba, 1) for lba in range(MAXIMUM_RANGES + 1)]
    await units.destination.write_token(zero_token(), *many, expect=TooManySegmentDescriptors)
    await units.destination.write_token(zero_token(), (0, 1), (BLOCKS - 1, 2), expect=LbaOutOfRange)
    assert await units.destination.contents(0, 16) == pattern(8192)
    await units.destination.execute(cdb.receive_rod_token_information(2), read_length=4096, expect=InvalidFieldInCdb)


async def test_write_using_token_forged(units: Bench) -> None:
    """SPC-5, Validating generic ROD tokens: not a bit of a token may be changed, and nobody else can make one."""
    token = await units.source.populate((0, 8))
    for byte in (0, 3, 6, 7, 8, 16, 63, 64, 100, 255, 256, 479, 480, 511):
        forged = bytearray(token)
        forged[byte] ^= 0x40
        expect = {0: UnsupportedTokenType, 3: UnsupportedTokenType, 6: InvalidTokenLength, 7: InvalidTokenLength}.get(
            byte, TokenUnknown if byte == 8 else TokenCorrupt
        )
        await units.destination.write_token(bytes(forged), (0, 8), expect=expect)
    await units.destination.write_token(token[:8] + pattern(504), (0, 8), expect=TokenUnknown)
    await units.destination.write_token(bytes(512), (0, 8), expect=InvalidTokenLength)
    await units.destination.write_token(bytes(6) + b"\x01\xf8" + bytes(504), (0, 8), expect=UnsupportedTokenType)
    await units.destination.write_token(token, (0, 8))


async def test_write_using_token_deletes(units: Bench) -> None:
    """SBC-4, WRITE USING TOKEN: DEL_TKN, when the command has been processed."""
    token = await units.source.populate((0, 8))
    await units.destination.write_token(token, (0, 8), offset=8, flags=2, expect=InvalidFieldInParameterList)
    await units.destination.write_token(token, (0, 8), flags=2)
    await units.destination.write_token(token, (0, 8), expect=TokenDeleted)
    await units.destination.write_token(zero_token(), (0, 8), flags=2)
    await units.destination.write_token(zero_token(), (0, 8))


# in the middle of it


async def test_write_using_token_source_changes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPC-5, Point in time copy - change vulnerable: what may not be the token's data does not count as transferred."""
    monkeypatch.setattr(copier, "WINDOW", 8192)
    memory, target = GatedMemory(), GatedMemory()
    async with bench(memory, target) as units, anyio.create_task_group() as tasks:
        memory.data[:] = data = pattern(1 << 20)
        token = await units.source.populate((0, 48))
        target.shut()

        async def write(count: int) -> None:
            expect = CopyTargetDeviceDataUnderrun if count else TokenCancelled
            result = await units.destination.write_token(token, (0, 48), expect=expect)
            if count:
                underrun(result, count)

        tasks.start_soon(write, 16)
        await target.until_waiting(1)
        target.release()
        target.shut()
        await anyio.wait_all_tasks_blocked()
        await target.until_waiting(1)
        assert target.data[:8192] == data[:8192]
        assert not any(target.data[8192:])
        await units.other_source.write(10, 47, bytes(512))
        target.release()
        await anyio.wait_all_tasks_blocked()
        found = await units.destination.information(2)
        assert (found.status, found.count) == (CopyStatus.PARTIAL_TOKEN, 16)
        await write(0)


async def test_write_using_token_immed() -> None:
    """SBC-4, WRITE USING TOKEN: with IMMED the progress is to be asked for, and what went wrong."""
    target = GatedMemory()
    async with bench(None, target) as units:
        data = await fill(units)
        token = await units.source.populate((8, 8))
        target.shut()
        await units.destination.write_token(token, (0, 8), flags=1)
        await target.until_waiting(1)
        found = await units.destination.information(2)
        assert (found.status, found.count, found.sense) == (CopyStatus.BACKGROUND, 0, b"")
        assert found.delay < 1000
        await units.destination.write_token(token, (0, 8), expect=OperationInProgress)
        target.release()
        found = await units.destination.ended(2)
        assert (found.status, found.count, found.delay) == (CopyStatus.COMPLETED, 8, 0xFFFFFFFE)
        assert target.data[:4096] == data[4096:8192]
        target.failure = BackstoreError(BackstoreErrorKind.MEDIUM_WRITE)
        await units.destination.write_token(token, (0, 8), flags=1)
        found = await units.destination.ended(2)
        assert (found.status, found.completion, found.count) == (CopyStatus.PARTIAL_TOKEN, Status.CHECK_CONDITION, 0)
        assert (found.sense[2] & 0xF, found.sense[12:14].hex()) == (0x5, "0d04")
        await units.destination.write_token(token, (0, 8), expect=NothingTransferred)


async def test_write_using_token_aborted() -> None:
    """SPC-5, Aborting third-party copy commands: nothing is written any more once the abort has been answered."""
    target = GatedMemory()
    async with bench(None, target) as units:
        await fill(units)
        token = await units.source.populate((0, 4000))
        target.shut()
        client = units.destination
        data = write_data(token, (0, 2000))
        command = client.initiator.start(1, cdb.write_using_token(2, len(data)), data)
        await target.until_waiting(1)
        assert command.task is not None
        tag = command.task.tag
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.initiator.task_management, TaskManagementFunction.ABORT_TASK, 1, tag)
            await anyio.wait_all_tasks_blocked()
            target.release()
        written = bytes(target.data)
        await anyio.wait_all_tasks_blocked()
        assert target.data == written
        assert (await client.information(2)).status == CopyStatus.TERMINATED
        await client.write_token(token, (0, 8))


@pytest.mark.parametrize("zeroes", [False, True])
async def test_write_using_token_destination_shrinks_meanwhile(monkeypatch: pytest.MonkeyPatch, zeroes: bool) -> None:
    """SBC-4, Logical block access: nothing is written beyond the capacity, whatever it was when the command came."""
    monkeypatch.setattr(copier, "WINDOW", 8192)
    monkeypatch.setattr(copier, "STRIDE", 8192)
    target = GatedMemory()
    async with bench(None, target) as units, anyio.create_task_group() as tasks:
        await fill(units)
        token = zero_token() if zeroes else await units.source.populate((0, 48))
        target.data[:] = pattern(1 << 20, 2)
        target.shut()
        copy = partial(units.destination.write_token, token, (0, 48), expect=CopyTargetDeviceDataUnderrun)
        tasks.start_soon(copy)
        await target.until_waiting(1)
        monkeypatch.setattr(target, "size", lambda: 32 * 512)
        logical_unit(units.destination).check_size()
        target.release()
        await anyio.wait_all_tasks_blocked()
        assert target.data[8192:] == pattern(1 << 20, 2)[8192:]
        assert target.data[:8192] != pattern(1 << 20, 2)[:8192]
        await units.destination.request_sense()
        await units.other_destination.request_sense()
        assert (await units.destination.information(2)).count == 16


@pytest.mark.parametrize("flags", [0, 1])
async def test_write_using_token_copy_operation_abort(flags: int) -> None:
    """SPC-5, The COPY OPERATION ABORT command: in the foreground or in the background, nothing is written afterwards."""
    target = GatedMemory()
    async with bench(None, target) as units, anyio.create_task_group() as tasks:
        await fill(units)
        token = await units.source.populate((0, 4000))
        client = units.destination
        target.shut()
        expect = CommandsClearedByDeviceServer if not flags else Status.GOOD
        tasks.start_soon(partial(client.write_token, token, (0, 2000), flags=flags, expect=expect))
        await target.until_waiting(1)
        tasks.start_soon(client.execute, bytes((0x83, 0x1C)) + (2).to_bytes(4) + bytes(10))
        await anyio.wait_all_tasks_blocked()
        target.release()
        await anyio.wait_all_tasks_blocked()
        written = bytes(target.data)
        found = await client.information(2)
        assert (found.status, found.completion, found.sense) == (CopyStatus.TERMINATED, Status.TASK_ABORTED, b"")
        assert target.data == written
        await client.write_token(token, (0, 8))


async def test_write_using_token_reset() -> None:
    """SPC-5, Responses to SCSI events: a logical unit reset of the destination aborts, and only what is kept goes."""
    target = GatedMemory()
    async with bench(None, target) as units, anyio.create_task_group() as tasks:
        data = await fill(units)
        token = await units.source.populate((0, 4000))
        client = units.destination
        target.shut()
        await client.write_token(token, (0, 2000), flags=1)
        await target.until_waiting(1)
        tasks.start_soon(client.initiator.task_management, TaskManagementFunction.LOGICAL_UNIT_RESET, 1)
        await anyio.wait_all_tasks_blocked()
        target.release()
        await anyio.wait_all_tasks_blocked()
        await client.request_sense()
        await client.execute(cdb.receive_rod_token_information(2), read_length=4096, expect=InvalidFieldInCdb)
        await client.write_token(token, (0, 8))
        assert target.data[:4096] == data[:4096]


async def test_write_using_token_nexus_loss() -> None:
    """SPC-5, Responses to SCSI events: what runs in the background outlives its I_T nexus."""
    target = GatedMemory()
    async with bench(None, target) as units:
        data = await fill(units)
        token = await units.source.populate((0, 4000))
        target.shut()
        await units.destination.write_token(token, (0, 2000), flags=1)
        await target.until_waiting(1)
        units.destination.initiator.disconnect()
        target.release()
        await anyio.wait_all_tasks_blocked()
        assert target.data[: 2000 * 512] == data[: 2000 * 512]


async def test_write_using_token_source_sanitized_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """SBC-4, Sanitize operations: a copy that reads a unit ends before the unit is erased."""
    monkeypatch.setattr(copier, "WINDOW", 8192)
    target = GatedMemory()
    async with bench(None, target) as units, anyio.create_task_group() as tasks:
        data = await fill(units)
        token = await units.source.populate((0, 4000))
        target.shut()
        await units.destination.write_token(token, (0, 2000), flags=1)
        await target.until_waiting(1)
        tasks.start_soon(units.other_source.execute, bytes((0x48, 0x02)) + bytes(8))
        await anyio.wait_all_tasks_blocked()
        target.release()
        found = await units.destination.ended(2)
        assert found.status in {CopyStatus.TERMINATED, CopyStatus.PARTIAL_TOKEN}
        count = found.count
        assert count < 2000
        assert target.data[: count * 512] == data[: count * 512]
    assert not any(target.data[8192 + count * 512 :])


# who may


async def test_write_using_token_reservations(units: Bench) -> None:
    """SBC-4, Reservations: the destination's count as for a write; the source was read when the token was made."""
    token = await units.source.populate((0, 8))
    for client in (units.source, units.destination):
        await client.execute(cdb.persistent_reserve_out(0), bytes(8) + (1).to_bytes(8) + bytes(8))
        await client.execute(cdb.persistent_reserve_out(1, 1), (1).to_bytes(8) + bytes(16))
    await units.destination.write_token(token, (0, 8))
    await units.other_destination.write_token(token, (0, 8), expect=Status.RESERVATION_CONFLICT)
    await units.destination.execute(cdb.persistent_reserve_out(3), (1).to_bytes(8) + bytes(16))
    await units.other_destination.write_token(token, (0, 8))


async def test_write_using_token_write_protected() -> None:
    """SBC-4, Write protection: WRITE USING TOKEN is a write, whatever it writes."""
    async with bench(read_only=True) as units:
        token = await units.source.populate((0, 8))
        await units.destination.write_token(token, (0, 8), expect=WriteProtected)
        await units.destination.write_token(zero_token(), (0, 8), expect=WriteProtected)


async def test_write_using_token_capacity_of_a_shrunk_unit(units: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """SBC-4, Block device range descriptor: the capacity at the time of the command counts."""
    token = await units.source.populate((0, 8))
    unit = logical_unit(units.destination)
    monkeypatch.setattr(unit.backstore, "size", lambda: SIZE // 2)
    unit.check_size()
    await units.destination.request_sense()
    await units.destination.write_token(token, (BLOCKS // 2 - 4, 8), expect=LbaOutOfRange)
