"""POPULATE TOKEN (SBC-4), and what ends a token (SPC-5, ROD token lifetime)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from support.memory import GatedMemory
from support.scsi import SIZE, logical_unit, pattern
from support.tokens import Bench, bench, pointer, populate_data

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    InvalidOpcode,
    LbaOutOfRange,
    MediumNotPresent,
    OperationInProgress,
    ParameterListLengthError,
    TooManySegmentDescriptors,
)
from tcm.scsi.copy_results import CopyStatus
from tcm.scsi.designators import naa_6
from tcm.scsi.rod_token_commands import MAXIMUM_RANGES
from tcm.scsi.rod_token_sense import (
    InsufficientResourcesToCreateRodToken,
    TokenCancelled,
    TokenExpired,
    TokenRevoked,
    TokenUnknown,
)
from tcm.scsi.rod_tokens import RodType
from tcm.scsi.sense import Status
from tcm.target import rod_tokens
from tcm.target.rod_tokens import RodTokens
from tcm.target.task_management import TaskManagementFunction

pytestmark = pytest.mark.anyio
BLOCKS = SIZE // 512


@pytest.fixture
async def units() -> AsyncIterator[Bench]:
    async with bench() as clients:
        yield clients


def share(tokens: RodTokens, units: Bench) -> None:
    """Have both logical units keep their tokens in ``tokens``."""
    for client in (units.source, units.destination):
        logical_unit(client).rod_tokens = tokens


async def test_populate_token_makes_one(units: Bench) -> None:
    """SPC-5, Generic ROD tokens: the token tells its type, its creator, how much it stands for and the block length."""
    token = await units.source.populate((8, 16), (100, 1), lid=0x01020304)
    assert len(token) == 512
    assert int.from_bytes(token[:4]) == RodType.POINT_IN_TIME_CHANGE_VULNERABLE
    assert token[4:8].hex() == "000001f8"
    unit = logical_unit(units.source)
    assert token[16:20].hex() == "e4000000"
    assert token[24:40] == naa_6(unit.serial).data
    assert int.from_bytes(token[48:64]) == 17 * 512
    capacity = (await units.source.execute(cdb.read_capacity16(), read_length=32)).data_in
    assert token[96:120] == capacity[8:]
    assert token[132:].startswith(b"naa.50014050000000aa\0")


@pytest.mark.parametrize(
    "rod_type", [RodType.POINT_IN_TIME_DEFAULT, RodType.POINT_IN_TIME_CHANGE_VULNERABLE, RodType.POINT_IN_TIME_ANY]
)
async def test_populate_token_types(units: Bench, rod_type: RodType) -> None:
    """SPC-5, Point in time copy - any: the token tells what has been made of it."""
    token = await units.source.populate((0, 1), flags=2, rod_type=rod_type)
    made = RodType.POINT_IN_TIME_CHANGE_VULNERABLE if rod_type is RodType.POINT_IN_TIME_ANY else rod_type
    assert int.from_bytes(token[:4]) == made


async def test_populate_token_lists_cut_anywhere(units: Bench) -> None:
    """SBC-4, POPULATE TOKEN: no list is no error, one without a header is; a range that is cut off is ignored."""
    data = populate_data((0, 8), (16, 8))
    await units.source.send_populate(b"")
    for length in range(1, 16):
        await units.source.send_populate(data[:length], expect=ParameterListLengthError)
    await units.source.execute(cdb.receive_rod_token_information(1), read_length=4096, expect=InvalidFieldInCdb)
    for length in range(16, len(data) + 1):
        await units.source.send_populate(data[:length])
        found = await units.source.information(1)
        assert found.count == (length - 16) // 16 * 8
        assert len(found.tokens) == (length >= 32)


async def test_populate_token_transport_short_of_data(units: Bench) -> None:
    """SAM-5 5.4.2: the initiator sends less than PARAMETER LIST LENGTH says; that is no list."""
    data = populate_data((0, 8), (16, 8))
    for length in (len(data) + 1, 0xFFFFFFFF):
        await units.source.execute(cdb.populate_token(1, length), data, expect=ParameterListLengthError)
    await units.source.execute(cdb.populate_token(1, 48), data[:15], expect=ParameterListLengthError)


async def test_populate_token_bad_lists(units: Bench) -> None:
    """SBC-4, POPULATE TOKEN parameter list: each field that is wrong is pointed at, and nothing is made."""

    async def wrong(byte: int, bit: int | None = None, *, data: bytes) -> None:
        result = await units.source.send_populate(data, expect=InvalidFieldInParameterList)
        assert pointer(result.sense) == (byte, bit)

    good = populate_data((0, 8))
    await wrong(0, data=bytes(2) + good[2:])
    await wrong(2, 7, data=good[:2] + b"\x80" + good[3:])
    await wrong(3, 0, data=good[:3] + b"\x01" + good[4:])
    await wrong(4, data=populate_data((0, 8), timeout=601))
    await wrong(8, data=populate_data((0, 8), flags=2, rod_type=RodType.ACCESS_UPON_REFERENCE))
    await wrong(8, data=populate_data((0, 8), flags=2, rod_type=RodType.POINT_IN_TIME_PERSISTENT))
    await wrong(12, 7, data=good[:12] + b"\x80\0" + good[14:])
    await wrong(14, data=good[:14] + b"\0\x0f" + good[16:])
    await wrong(28, 7, data=good[:28] + b"\x80" + good[29:])
    await wrong(32, data=populate_data((0, 8), (7, 8)))
    reported = (await units.source.execute(cdb.report_all_rod_tokens(), read_length=4096)).data_in
    assert reported == bytes((0, 0, 0, 4)) + bytes(4)


async def test_populate_token_too_many_ranges(units: Bench) -> None:
    """SBC-4, POPULATE TOKEN: more than MAXIMUM RANGE DESCRIPTORS."""
    many = [(2 * lba, 1) for lba in range(MAXIMUM_RANGES)]
    await units.source.populate(*many)
    await units.source.send_populate(populate_data(*many, (1000, 1)), expect=TooManySegmentDescriptors)


async def test_populate_token_beyond_the_medium(units: Bench) -> None:
    """SBC-4, Block device range descriptor: a range beyond the capacity; one of no blocks is not looked at."""
    for ranges, information in (((BLOCKS - 1, 2),), BLOCKS), (((0, 1), (1 << 40, 1)), 1 << 40), (((BLOCKS, 1),), BLOCKS):
        result = await units.source.send_populate(populate_data(*ranges), expect=LbaOutOfRange)
        assert result.sense is not None
        assert result.sense.information in {information, None}
    await units.source.populate((BLOCKS - 1, 1), (1 << 60, 0))


async def test_populate_token_too_much(units: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """SBC-4, POPULATE TOKEN: more than MAXIMUM TOKEN TRANSFER SIZE in all."""
    from tcm.target.device_server import rod_tokens as handlers

    monkeypatch.setattr(handlers, "MAXIMUM_BYTES", 16 * 512)
    await units.source.populate((0, 8), (8, 8))
    result = await units.source.send_populate(populate_data((0, 8), (8, 9)), expect=InvalidFieldInParameterList)
    assert pointer(result.sense) == (16 + 16 + 8, None)


async def test_populate_token_of_nothing(units: Bench) -> None:
    """SBC-4, Block device range descriptor: no blocks are no error; no token comes of them."""
    await units.source.send_populate(populate_data((0, 0), (5, 0)))
    found = await units.source.information(1)
    assert (found.status, found.count, found.tokens) == (CopyStatus.COMPLETED, 0, [])


async def test_populate_token_immed(units: Bench) -> None:
    """SBC-4, POPULATE TOKEN: with IMMED the token is made in the background."""
    await units.destination.write(10, 0, pattern(4096))
    await units.source.write(10, 0, pattern(4096, 2))
    token = await units.source.populate((0, 8), flags=1)
    await units.destination.write_token(token, (8, 8))
    assert await units.destination.contents(0, 16) == pattern(4096) + pattern(4096, 2)


async def test_populate_token_list_identifier_in_use() -> None:
    """SPC-5, List identifiers: a copy operation under way keeps its list identifier to itself, on its I_T nexus."""
    memory = GatedMemory()
    async with bench(memory) as units, anyio.create_task_group() as tasks:
        memory.shut()
        tasks.start_soon(lambda: units.source.write(10, 0, bytes(512)))
        await memory.until_waiting(1)
        await units.source.send_populate(populate_data((0, 8), flags=1), lid=7)
        assert (await units.source.information(7)).status == CopyStatus.BACKGROUND
        await units.source.send_populate(populate_data((64, 8)), lid=7, expect=OperationInProgress)
        await units.source.send_populate(populate_data((64, 8)), lid=8)
        await units.other_source.send_populate(populate_data((64, 8)), lid=7)
        memory.release()
        assert len((await units.source.ended(7)).tokens) == 1


async def test_populate_token_waits_for_a_write_under_way() -> None:
    """SPC-5, Point in time copy RODs: a write that has begun before is in the token, or the token is not good."""
    memory = GatedMemory()
    async with bench(memory) as units, anyio.create_task_group() as tasks:
        memory.shut()
        tasks.start_soon(lambda: units.source.write(10, 4, pattern(512)))
        await memory.until_waiting(1)
        tokens: list[bytes] = []

        async def populate() -> None:
            tokens.append(await units.other_source.populate((0, 8)))

        tasks.start_soon(populate)
        await anyio.wait_all_tasks_blocked()
        assert not tokens
        memory.release()
        await anyio.wait_all_tasks_blocked()
        await units.destination.write_token(tokens[0], (0, 8))
        assert (await units.destination.contents(4, 1)) == pattern(512)


async def test_populate_token_waits_for_a_long_write_under_way() -> None:
    """SPC-5, Point in time copy RODs: so it is with one of many steps."""
    memory = GatedMemory(4 << 20)
    async with bench(memory) as units, anyio.create_task_group() as tasks:
        memory.shut()
        tasks.start_soon(lambda: units.source.write_same(16, 0, 6000, pattern(512)))
        await memory.until_waiting(1)
        tokens: list[bytes] = []

        async def populate() -> None:
            tokens.append(await units.other_source.populate((5000, 8)))

        tasks.start_soon(populate)
        await anyio.wait_all_tasks_blocked()
        assert not tokens
        memory.release()
        await anyio.wait_all_tasks_blocked()
        await units.destination.write_token(tokens[0], (0, 8))
        assert await units.destination.contents(0, 8) == pattern(512) * 8


async def test_populate_token_aborted() -> None:
    """SPC-5, Aborting third-party copy commands: nothing is left of a token that nobody hears of."""
    memory = GatedMemory()
    async with bench(memory) as units, anyio.create_task_group() as tasks:
        memory.shut()
        tasks.start_soon(lambda: units.source.write(10, 0, bytes(512)))
        await memory.until_waiting(1)
        command = units.other_source.initiator.start(0, cdb.populate_token(1, 32), populate_data((0, 8)))
        await anyio.wait_all_tasks_blocked()
        assert command.task is not None
        await units.other_source.initiator.task_management(TaskManagementFunction.ABORT_TASK, 0, command.task.tag)
        memory.release()
        await anyio.wait_all_tasks_blocked()
        assert (await units.other_source.information(1)).status == CopyStatus.TERMINATED
        assert logical_unit(units.source).rod_tokens.management_tokens(logical_unit(units.source)) == []


# what ends a token


@pytest.mark.parametrize("how", ["express", "write", "write_same", "unmap", "orwrite", "compare_and_write", "write_atomic"])
async def test_populate_token_a_write_cancels(how: str) -> None:
    """SPC-5, Point in time copy - change vulnerable: a change of its data ends the token; one beside it does not."""
    async with bench(express=how == "express") as units:
        source = units.source
        itl = next(each for each in logical_unit(source).itl_nexuses if each.nexus is source.initiator.nexus)
        assert itl.express_write is not None

        async def change(lba: int) -> None:
            block = pattern(512, lba)
            if how in {"express", "write"}:
                await source.write(10, lba, block)
            elif how == "unmap":
                await source.unmap((lba, 1))
            elif how == "compare_and_write":
                await source.compare_and_write(lba, bytes(512), block)
            elif how == "write_same":
                await source.write_same(16, lba, 1, block)
            elif how == "orwrite":
                await source.orwrite(lba, block)
            else:
                await source.write_atomic(lba, block)

        await change(100)
        token = await source.populate((8, 8), (32, 8))
        assert itl.express_write is None
        assert itl.express_read is not None
        for lba in (7, 16, 31, 40):
            await change(lba)
        await units.destination.write_token(token, (0, 16))
        await change(39)
        await units.destination.write_token(token, (0, 16), expect=TokenCancelled)
        assert itl.express_write is not None


async def test_populate_token_a_copy_over_it_cancels(units: Bench) -> None:
    """SPC-5, Point in time copy - change vulnerable: a third-party copy is a change, too."""
    ours, theirs = await units.source.populate((0, 8)), await units.destination.populate((0, 8))
    await units.destination.write_token(ours, (4, 1))
    await units.source.write_token(theirs, (64, 1), expect=TokenCancelled)
    await units.destination.write_token(ours, (4, 1))


async def test_populate_token_inactivity_timeout(units: Bench) -> None:
    """SPC-5, ROD token lifetime: as many seconds after the last use as INACTIVITY TIMEOUT says, or the default."""
    now = 0.0
    share(RodTokens(lambda: now), units)
    short, usual = await units.source.populate((0, 8), timeout=3), await units.source.populate((0, 8))
    now = 2.0
    await units.destination.write_token(short, (0, 8))
    now = 4.9
    await units.destination.write_token(short, (0, 8))
    now = 7.9
    await units.destination.write_token(short, (0, 8), expect=TokenExpired)
    await units.destination.write_token(usual, (0, 8))
    now = 67.9
    await units.destination.write_token(usual, (0, 8), expect=TokenExpired)


async def test_populate_token_as_many_as_there_may_be(units: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPC-5, ROD types: INSUFFICIENT RESOURCES TO CREATE ROD TOKEN."""
    share(RodTokens(), units)
    monkeypatch.setattr(rod_tokens, "MAXIMUM_TOKENS", 2)
    one, _ = await units.source.populate((0, 8)), await units.source.populate((0, 8))
    await units.source.send_populate(populate_data((0, 8)), expect=InsufficientResourcesToCreateRodToken)
    found = await units.source.information(1)
    assert (found.status, found.count, found.completion) == (CopyStatus.PARTIAL_TOKEN, 0, Status.CHECK_CONDITION)
    assert found.sense[12:14].hex() == "550d"
    await units.destination.write_token(one, (0, 8), flags=2)
    await units.source.populate((0, 8))


async def test_populate_token_ejected() -> None:
    """SBC-4, ROD token device type specific data: the data cannot be reached any more; another medium has other data."""
    async with bench(removable=True) as units:
        token = await units.source.populate((0, 8))
        await units.source.start_stop_unit(start=False)
        await units.destination.write_token(token, (0, 8))
        await units.source.start_stop_unit(start=False, loej=True)
        await units.destination.write_token(token, (0, 8), expect=TokenCancelled)
        await units.source.send_populate(populate_data((0, 8)), expect=MediumNotPresent)


async def test_populate_token_sanitized(units: Bench) -> None:
    """SBC-4, Sanitize operations: nothing of the data is to be had any more."""
    token = await units.source.populate((0, 8))
    await units.source.execute(bytes((0x48, 0x02)) + bytes(8))
    await units.destination.write_token(token, (0, 8), expect=TokenCancelled)


async def test_populate_token_unit_removed() -> None:
    """SPC-5, ROD token lifetime: the administrator takes the unit away."""
    async with bench() as units:
        token = await units.source.populate((0, 8))
        await logical_unit(units.source).aclose()
        await units.destination.write_token(token, (0, 8), expect=TokenRevoked)
        await logical_unit(units.source).open()


async def test_populate_token_before_a_restart(units: Bench) -> None:
    """SPC-5, Validating generic ROD tokens: a process does not know the tokens of the one before it."""
    token = await units.source.populate((0, 8))
    share(RodTokens(), units)
    await units.destination.write_token(token, (0, 8), expect=TokenUnknown)


async def test_populate_token_survives_resets_and_losses(units: Bench) -> None:
    """SPC-5, Responses to SCSI events: they end copy operations, not tokens."""
    await units.source.write(10, 0, pattern(4096))
    token = await units.source.populate((0, 8))
    units.source.initiator.disconnect()
    await units.other_destination.write_token(token, (0, 8))
    assert await units.other_destination.contents(0, 8) == pattern(4096)


# who may


async def test_populate_token_reservations(units: Bench) -> None:
    """SBC-4, Reservations: it reads, so that only the Exclusive Access types keep others off."""
    await units.source.execute(cdb.persistent_reserve_out(0), bytes(8) + (1).to_bytes(8) + bytes(8))
    for kind, expect in ((1, Status.GOOD), (3, Status.RESERVATION_CONFLICT)):
        await units.source.execute(cdb.persistent_reserve_out(1, kind), (1).to_bytes(8) + bytes(16))
        await units.source.send_populate(populate_data((0, 8)))
        await units.other_source.send_populate(populate_data((0, 8)), expect=expect)
        await units.source.execute(cdb.persistent_reserve_out(2, kind), (1).to_bytes(8) + bytes(16))
    await units.source.execute(cdb.persistent_reserve_out(3), (1).to_bytes(8) + bytes(16))
    await units.source.reserve()
    await units.other_source.send_populate(populate_data((0, 8)), expect=Status.RESERVATION_CONFLICT)


async def test_populate_token_write_protected() -> None:
    """SBC-4, POPULATE TOKEN: what is write protected can be read."""
    async with bench(read_only=True) as units:
        await units.source.populate((0, 8))


async def test_populate_token_not_offered() -> None:
    """LIO's ``emulate_3pc``: without third-party copies there are no such operation codes."""
    async with bench(emulate_3pc=False) as units:
        await units.source.send_populate(populate_data((0, 8)), expect=InvalidOpcode)
        await units.source.execute(cdb.receive_rod_token_information(1), read_length=64, expect=InvalidOpcode)
