"""LOG SENSE (SPC-5 6.11) and the log pages (SPC-5 7.3, SBC-4 6.4)."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from support.memory import GatedMemory
from support.scsi import SIZE, logical_unit, one_initiator, pattern, two_initiators
from tcm_backstores.null import NullBackstore
from tcm_loopback.commands import ApplicationClient

from tcm.backstore import BackstoreError, BackstoreErrorKind
from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InternalTargetFailure,
    InvalidFieldInCdb,
    LogicalUnitFailedSelfTest,
    NotReady,
    UnrecoveredReadError,
    WriteError,
)
from tcm.scsi.log_pages import parse_parameters
from tcm.scsi.sense import Status
from tcm.target.directory_store import DirectoryStore
from tcm.target.log_page_table import IDLE_TIME, TIME_INTERVAL
from tcm.target.store import key
from tcm.target.task_management import TaskManagementFunction

pytestmark = pytest.mark.anyio
Pair = tuple[ApplicationClient, ApplicationClient]
THRESHOLD, CUMULATIVE, DEFAULT_THRESHOLD, DEFAULT_CUMULATIVE = range(4)


async def log_page(disk: ApplicationClient, page: int, subpage: int = 0) -> bytes:
    data = (await disk.execute(cdb.log_sense(page, subpage, allocation_length=0xFFFF), read_length=0xFFFF)).data_in
    assert data[0] & 0x3F == page
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    return data


async def parameters(disk: ApplicationClient, page: int, subpage: int = 0, control: int = CUMULATIVE) -> dict[int, bytes]:
    command = cdb.log_sense(page, subpage, control=control, allocation_length=0xFFFF)
    data = (await disk.execute(command, read_length=0xFFFF)).data_in
    return {code: value for code, _, value in parse_parameters(data)}


async def statistics(disk: ApplicationClient) -> list[int]:
    """Read commands, write commands, blocks received, blocks transmitted; then the intervals."""
    value = (await parameters(disk, 0x19))[1]
    return [int.from_bytes(value[at : at + 8], "big") for at in range(0, len(value), 8)]


async def test_log_sense_supported_pages(disk: ApplicationClient) -> None:
    """SPC-5 7.3.20: page 00h lists the pages; each of them can be had and no other."""
    listed = list((await log_page(disk, 0))[4:])
    assert listed == sorted(listed)
    assert 0 in listed
    for page in range(0x3F):
        if page in listed:
            await log_page(disk, page)
        else:
            await disk.execute(cdb.log_sense(page), read_length=512, expect=InvalidFieldInCdb)


async def test_log_sense_supported_subpages(disk: ApplicationClient) -> None:
    """SPC-5 7.3.21: subpage FFh of page 00h lists pages with their subpages."""
    data = await log_page(disk, 0, 0xFF)
    pairs = [(data[i], data[i + 1]) for i in range(4, len(data), 2)]
    assert pairs == sorted(pairs)
    assert {page for page, _ in pairs} >= set((await log_page(disk, 0))[4:])


async def test_log_sense_parameters(disk: ApplicationClient) -> None:
    """SPC-5 7.3.2: the parameters of every page fill it, in ascending order of their codes."""
    for page in (await log_page(disk, 0))[5:]:
        data, at, codes = await log_page(disk, page), 4, []
        while at < len(data):
            codes.append(int.from_bytes(data[at : at + 2], "big"))
            at += 4 + data[at + 3]
        assert at == len(data)
        assert codes == sorted(set(codes))


async def test_log_sense_allocation_length(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.6."""
    full = await log_page(disk, 0)
    for length in (0, 3, 4, 5, 4096):
        result = await disk.execute(cdb.log_sense(0, allocation_length=length), read_length=length)
        assert result.data_in == full[:length]


async def test_log_sense_parameter_pointer(disk: ApplicationClient) -> None:
    """SPC-5 6.11: a PARAMETER POINTER beyond the last parameter is INVALID FIELD IN CDB."""
    for page in (await log_page(disk, 0))[5:]:
        result = await disk.execute(cdb.log_sense(page, pointer=0xFFFF), read_length=512, expect=None)
        assert result.status is Status.CHECK_CONDITION
        assert result.sense is not None
        assert (result.sense.asc, result.sense.ascq) == (0x24, 0)


async def test_log_sense_general_statistics(disk: ApplicationClient) -> None:
    """SPC-5, General Statistics and Performance log page: read and write commands, and the logical blocks they moved."""
    before = await statistics(disk)
    for _ in range(3):
        await disk.read(16, 0, 4)
    await disk.write(10, 0, pattern(1024))
    await disk.test_unit_ready()
    await disk.execute(cdb.inquiry(), read_length=96)
    after = await statistics(disk)
    assert [new - old for old, new in zip(before, after, strict=True)] == [3, 1, 2, 12, 0, 0, 0, 0]


async def test_log_sense_statistics_of_the_express_lane() -> None:
    """What takes the express lane is counted like anything else, and what lost nexuses have done is not forgotten."""
    async with one_initiator(express=True) as disk:
        for _ in range(5):
            await disk.read(16, 0, 2)
        await disk.write(16, 0, pattern(512))
        assert (await statistics(disk))[:4] == [5, 1, 1, 10]
        disk.initiator.disconnect()
        disk.initiator.reconnect()
        await disk.identify()
        assert (await statistics(disk))[:4] == [5, 1, 1, 10]


@pytest.mark.parametrize("page", [0x02, 0x03, 0x05, 0x06, 0x19])
async def test_log_sense_page_control(disk: ApplicationClient, page: int) -> None:
    """SPC-5 6.11: PC: thresholds nobody can reach, and counters that start at zero."""
    await disk.read(16, 0, 1)
    await disk.write(16, 0, pattern(512))
    thresholds = await parameters(disk, page, control=THRESHOLD)
    assert thresholds == await parameters(disk, page, control=DEFAULT_THRESHOLD)
    lists = {TIME_INTERVAL} if page == 0x19 else set()
    assert {byte for code, value in thresholds.items() if code not in lists for byte in value} == {0xFF}
    defaults = await parameters(disk, page, control=DEFAULT_CUMULATIVE)
    assert {byte for code, value in defaults.items() if code not in lists for byte in value} == {0}
    assert set(defaults) == set(await parameters(disk, page))


async def test_log_sense_statistics_parameters(disk: ApplicationClient) -> None:
    """SPC-4 table 374: 0001h to 0003h are mandatory; sg_logs passes over a page without them. An interval is a millisecond."""
    found = await parameters(disk, 0x19)
    assert {code: len(value) for code, value in found.items()} == {1: 64, IDLE_TIME: 8, TIME_INTERVAL: 8}
    assert found[TIME_INTERVAL] == bytes((0, 0, 0, 3, 0, 0, 0, 1)), "EXPONENT, INTEGER"


async def test_log_sense_list_parameters(disk: ApplicationClient) -> None:
    """SPC-5 6.11: PC is ignored for list parameters."""
    for page in (0x0F, 0x10, 0x2F):
        pages = [await parameters(disk, page, control=control) for control in range(4)]
        assert pages == [pages[0]] * 4


async def test_log_sense_parameter_pointer_starts_the_page(disk: ApplicationClient) -> None:
    """SPC-5 6.11: PARAMETER POINTER: the parameters from that code on, in PAGE LENGTH too."""
    data = (await disk.execute(cdb.log_sense(0x0F, pointer=62), read_length=4096)).data_in
    assert [code for code, _, _ in parse_parameters(data)] == [62, 63]
    await disk.execute(cdb.log_sense(0x0F, pointer=64), read_length=4096, expect=InvalidFieldInCdb)


async def test_log_sense_unknown_subpage(disk: ApplicationClient) -> None:
    """SPC-5 6.11: an unknown subpage is INVALID FIELD IN CDB at SUBPAGE CODE, an unknown page at PAGE CODE."""
    for page, subpage, pointer in ((0x19, 0x77, 3), (0x00, 0x01, 3), (0x2E, 0, 2)):
        result = await disk.execute(cdb.log_sense(page, subpage), read_length=64, expect=InvalidFieldInCdb)
        assert result.sense is not None
        assert result.sense.sense_key_specific is not None
        assert result.sense.sense_key_specific[2] == pointer


async def test_log_sense_save(disk: ApplicationClient) -> None:
    """SPC-5 6.11: SP saves what can be saved."""
    lu = logical_unit(disk)
    lu.log_parameters.set({3: b"x" * 252})
    await disk.execute(cdb.log_sense(0x19, sp=True), read_length=512)
    lu.log_parameters.set({3: bytes(252)})
    lu.log_parameters.reset(())
    assert lu.log_parameters.application == {3: b"x" * 252}


async def test_log_sense_save_without_a_place() -> None:
    """SPC-5 6.11: a logical unit that cannot save refuses SP; the pages say so in DS."""
    async with one_initiator() as disk:
        result = await disk.execute(cdb.log_sense(0x0F, sp=True), read_length=512, expect=InvalidFieldInCdb)
        assert result.sense is not None
        assert result.sense.sense_key_specific == bytes((0xC8, 0, 1))
        assert (await log_page(disk, 0x0F))[0] == 0x8F


async def test_log_sense_disable_save(disk: ApplicationClient) -> None:
    """SPC-5 7.3.2: DS is zero only in the page whose parameters can be saved."""
    for page in (await log_page(disk, 0))[5:]:
        assert (await log_page(disk, page))[0] == (page if page == 0x0F else 0x80 | page)


async def test_log_sense_errors() -> None:
    """SPC-5, error counter log pages: what the backstore could not read or write, by what the command was about."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.failure = OSError(errno.EIO, "input/output error")
        await disk.read(16, 0, 1, expect=UnrecoveredReadError)
        await disk.write(16, 0, pattern(512), expect=WriteError)
        await disk.write(16, 0, pattern(512), expect=WriteError)
        await disk.verify(16, 0, 1, expect=UnrecoveredReadError)
        store.failure = BackstoreError(BackstoreErrorKind.NOT_READY)
        await disk.read(16, 0, 1, expect=NotReady)
        store.failure = ValueError("a mistake")
        await disk.read(16, 0, 1, expect=InternalTargetFailure)
        for page, count in ((0x03, 1), (0x02, 2), (0x05, 1), (0x06, 2)):
            values = await parameters(disk, page)
            assert int.from_bytes(values[0 if page == 0x06 else 6], "big") == count


async def test_log_sense_bytes_processed(disk: ApplicationClient) -> None:
    """SPC-5, error counter log pages: total bytes processed are those of logical blocks."""
    await disk.write(16, 0, pattern(1024))
    await disk.read(16, 0, 3)
    assert int.from_bytes((await parameters(disk, 0x02))[5], "big") == 1024
    assert int.from_bytes((await parameters(disk, 0x03))[5], "big") == 1536


async def test_log_sense_self_test_results(disk: ApplicationClient) -> None:
    """SPC-5, Self-Test Results log page: twenty entries, the most recent first; those not in use are zero."""
    empty = await parameters(disk, 0x10)
    assert empty == dict.fromkeys(range(1, 21), bytes(16))
    for _ in range(2):
        await disk.execute(cdb.send_diagnostic(self_test=True))
    results = await parameters(disk, 0x10)
    assert results[1] == results[2] == bytes(4) + b"\xff" * 8 + bytes(4)
    assert results[3] == bytes(16)
    for _ in range(30):
        await disk.execute(cdb.send_diagnostic(self_test=True))
    assert set((await parameters(disk, 0x10)).values()) == {results[1]}


async def test_log_sense_failed_self_test() -> None:
    """SPC-5, Self-Test Results log page: what failed, and the first LBA where it did."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.failure = OSError(errno.EIO, "input/output error")
        await disk.execute(cdb.send_diagnostic(self_test=True), expect=LogicalUnitFailedSelfTest)
        value = (await parameters(disk, 0x10))[1]
        assert value[0] == 0x07
        assert int.from_bytes(value[4:12], "big") in {0, (len(store.data) >> 9) - 1}
        assert value[12:15] == bytes((0x03, 0x11, 0x00))


async def test_log_sense_informational_exceptions(disk: ApplicationClient) -> None:
    """SPC-5, Informational Exceptions log page: none is pending; the temperature is not known (FFh)."""
    assert await parameters(disk, 0x2F) == {0: bytes((0, 0, 0xFF, 0))}


async def test_log_sense_after_a_reset(disk: ApplicationClient) -> None:
    """SPC-5 6.10: after a logical unit reset counters are at their defaults, and lists as they were saved."""
    await disk.read(16, 0, 1)
    logical_unit(disk).log_parameters.set({0: b"x" * 252})
    await disk.initiator.task_management(TaskManagementFunction.LOGICAL_UNIT_RESET, 0)
    await disk.identify()
    assert (await statistics(disk))[0] == 0
    assert (await parameters(disk, 0x0F))[0] == bytes(252)


async def test_log_sense_reserved(pair: Pair) -> None:
    """SPC-4, table of commands allowed in the presence of reservations: LOG SENSE is allowed, LOG SELECT conflicts."""
    one, other = pair
    await one.reserve()
    await log_page(other, 0x19)
    await other.execute(cdb.log_select(), expect=Status.RESERVATION_CONFLICT)


async def test_log_sense_damaged(tmp_path: Path) -> None:
    """Saved parameters that cannot be understood are ignored, and replaced by the next that are saved."""
    store = DirectoryStore(str(tmp_path))
    saved = key("log", "00000000-2222-3333-4444-555555555555")
    for text in ("{", "[]", '{"a": ""}', '{"0": "00"}', f'{{"64": "{"00" * 252}"}}', '{"0": 1}', '"\udcff"', "[" * 100_000):
        await store.put(saved, text, (await store.get(saved)).revision)
        async with one_initiator(NullBackstore(SIZE), store=store) as disk:
            assert set((await parameters(disk, 0x0F)).values()) == {bytes(252)}
            await disk.execute(cdb.log_sense(0, sp=True), read_length=512)
            assert (await store.get(saved)).value == "{}"


async def test_log_sense_two_nexuses() -> None:
    """SPC-5 7.3: log parameters are the logical unit's, not the nexus's."""
    async with two_initiators() as (one, other):
        await one.read(16, 0, 1)
        await other.read(16, 0, 1)
        assert (await statistics(one))[0] == (await statistics(other))[0] == 2
