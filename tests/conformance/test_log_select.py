"""LOG SELECT (SPC-5 6.10): general usage parameters that application clients store, counters that they reset."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scsi import logical_unit, one_initiator, pattern, two_initiators
from tcm_loopback.commands import ApplicationClient, Expected

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InternalTargetFailure,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    ParameterListLengthError,
)
from tcm.scsi.log_pages import Change, LogParameter, ParameterFormat, page, parse_parameters
from tcm.scsi.log_select import parse_log_select
from tcm.scsi.sense import Status
from tcm.target.directory_store import DirectoryStore
from tcm.target.task_management import TaskManagementFunction
from tcm.target.unit_attention import LOG_PARAMETERS_CHANGED

pytestmark = pytest.mark.anyio
APPLICATION, STATISTICS, SELF_TESTS = 0x0F, 0x19, 0x10
CUMULATIVE, DEFAULT_THRESHOLD, DEFAULT_CUMULATIVE = 1, 2, 3
EMPTY = bytes(252)


def written(**values: bytes) -> bytes:
    """A list with the Application Client page; ``p0`` is parameter 0."""
    return listed({int(name[1:], 16): value for name, value in values.items()})


def listed(values: Mapping[int, bytes], *, ds: bool = False, control: int = 0x03) -> bytes:
    body = b"".join(code.to_bytes(2, "big") + bytes((control, len(value))) + value for code, value in values.items())
    return page((APPLICATION, 0), body, saves=not ds)


async def select(
    disk: ApplicationClient, data: bytes, *, sp: bool = False, expect: Expected = Status.GOOD, length: int | None = None
) -> bytes | None:
    """LOG SELECT; the sense-key-specific bytes, if there are any."""
    command = cdb.log_select(len(data) if length is None else length, sp=sp)
    result = await disk.execute(command, data, expect=expect)
    return result.sense.sense_key_specific if result.sense is not None else None


async def stored(disk: ApplicationClient) -> dict[int, bytes]:
    """General usage parameters that are not empty."""
    data = (await disk.execute(cdb.log_sense(APPLICATION, allocation_length=0xFFFF), read_length=0xFFFF)).data_in
    found = {code: value for code, _, value in parse_parameters(data)}
    assert list(found) == list(range(64))
    return {code: value for code, value in found.items() if value != EMPTY}


async def reads(disk: ApplicationClient) -> int:
    data = (await disk.execute(cdb.log_sense(STATISTICS), read_length=512)).data_in
    return int.from_bytes(data[8:16], "big")


def at(byte: int, bit: int | None = None) -> bytes:
    """Sense-key-specific bytes of a field pointer into the parameter list."""
    return bytes((0x80 | (0 if bit is None else 0x08 | bit),)) + byte.to_bytes(2, "big")


async def test_log_select_application_client(disk: ApplicationClient) -> None:
    """SPC-5, Application Client log page: what was stored is returned; what is not named stays as it is."""
    one, two = pattern(252, 1), pattern(252, 2)
    await select(disk, written(p0=one, p3f=two))
    assert await stored(disk) == {0: one, 0x3F: two}
    await select(disk, written(p0=two))
    assert await stored(disk) == {0: two, 0x3F: two}
    await select(disk, written(p0=EMPTY))
    assert await stored(disk) == {0x3F: two}


async def test_log_select_all_parameters(disk: ApplicationClient) -> None:
    """SPC-5 6.10: what LOG SENSE returned can be sent back as it is."""
    values = {code: pattern(252, code) for code in range(64)}
    await select(disk, listed(values))
    data = (await disk.execute(cdb.log_sense(APPLICATION, allocation_length=0xFFFF), read_length=0xFFFF)).data_in
    await disk.execute(cdb.log_select(pcr=True))
    assert await stored(disk) == {}
    await select(disk, data)
    assert await stored(disk) == values


async def test_log_select_saves(tmp_path: Path) -> None:
    """SPC-5 6.10: with SP the parameters outlive a loss of power and a logical unit reset; without they do not."""
    one, two = pattern(252, 1), pattern(252, 2)
    async with one_initiator(store=DirectoryStore(str(tmp_path))) as disk:
        await select(disk, written(p1=one), sp=True)
        await select(disk, written(p1=two, p2=two))
        await disk.initiator.task_management(TaskManagementFunction.LOGICAL_UNIT_RESET, 0)
        await disk.identify()
        assert await stored(disk) == {1: one}
        await select(disk, written(p2=two))
    async with one_initiator(store=DirectoryStore(str(tmp_path))) as disk:
        assert await stored(disk) == {1: one}


async def test_log_select_disable_save(tmp_path: Path) -> None:
    """SPC-5 7.3.2: a page with DS is set, and not saved."""
    async with one_initiator(store=DirectoryStore(str(tmp_path))) as disk:
        await select(disk, listed({0: pattern(252)}, ds=True), sp=True)
        assert await stored(disk) == {0: pattern(252)}
    async with one_initiator(store=DirectoryStore(str(tmp_path))) as disk:
        assert await stored(disk) == {}


async def test_log_select_without_a_place_to_save() -> None:
    """SPC-5 6.10: SP is INVALID FIELD IN CDB for a logical unit that cannot save."""
    async with one_initiator() as disk:
        for data in (b"", written(p0=pattern(252))):
            assert await select(disk, data, sp=True, expect=InvalidFieldInCdb) == bytes((0xC8, 0, 1))
        assert await stored(disk) == {}
        await select(disk, written(p0=pattern(252)))


async def test_log_select_that_cannot_be_saved(disk: ApplicationClient) -> None:
    """A file that cannot be written is INTERNAL TARGET FAILURE, and nothing has changed."""

    class Full(DirectoryStore):
        async def put(self, key: str, value: str | None, revision: str) -> str:
            raise OSError(errno.ENOSPC, "no space left on device")

    logical_unit(disk).store = Full("unused")
    await disk.read(16, 0, 1)
    await select(disk, written(p0=pattern(252)), sp=True, expect=InternalTargetFailure)
    await disk.execute(cdb.log_select(pcr=True, sp=True), expect=InternalTargetFailure)
    assert await stored(disk) == {}
    assert await reads(disk) == 1


async def test_log_select_beside_another_node(tmp_path: Path) -> None:
    """A value that somebody else has saved meanwhile is replaced: the last one wins."""
    async with (
        one_initiator(store=DirectoryStore(str(tmp_path))) as disk,
        one_initiator(store=DirectoryStore(str(tmp_path))) as other,
    ):
        await select(disk, written(p0=pattern(252)), sp=True)
        await select(other, written(p1=pattern(252)), sp=True)
    async with one_initiator(store=DirectoryStore(str(tmp_path))) as disk:
        assert await stored(disk) == {1: pattern(252)}


async def test_log_select_attention() -> None:
    """SPC-5 6.10: LOG PARAMETERS CHANGED for every I_T nexus but the one that changed them, if they changed."""
    async with two_initiators() as (one, other):
        await select(one, written(p0=pattern(252)))
        await one.test_unit_ready()
        await other.test_unit_ready(expect=LOG_PARAMETERS_CHANGED)
        await select(one, written(p0=pattern(252)))
        await select(one, b"")
        await one.execute(cdb.log_select(control=DEFAULT_THRESHOLD))
        await other.test_unit_ready()
        await one.execute(cdb.log_select(pcr=True))
        await other.test_unit_ready(expect=LOG_PARAMETERS_CHANGED)


async def test_log_select_nothing(disk: ApplicationClient) -> None:
    """SPC-5 6.10: PARAMETER LIST LENGTH zero with PCR, SP zero and PC 0xb changes nothing, and is no error."""
    await select(disk, written(p0=pattern(252)))
    await disk.read(16, 0, 1)
    for control in range(3):
        await disk.execute(cdb.log_select(control=control))
    assert await reads(disk) == 1
    assert await stored(disk) == {0: pattern(252)}


async def test_log_select_default_values(disk: ApplicationClient) -> None:
    """SPC-5 6.10: PC 11b sets counters to their defaults, but not lists."""
    await select(disk, written(p0=pattern(252)))
    await disk.read(16, 0, 1)
    await disk.execute(cdb.log_select(control=DEFAULT_CUMULATIVE))
    assert await reads(disk) == 0
    assert await stored(disk) == {0: pattern(252)}
    await disk.read(16, 0, 1)
    assert await reads(disk) == 1


async def test_log_select_parameter_code_reset(disk: ApplicationClient) -> None:
    """SPC-5 6.10: PCR resets what can be reset of the pages that PAGE CODE and SUBPAGE CODE name; 00h names all."""
    await disk.execute(cdb.send_diagnostic(self_test=True))
    tests = (await disk.execute(cdb.log_sense(SELF_TESTS), read_length=512)).data_in
    await select(disk, written(p0=pattern(252)))
    await disk.read(16, 0, 1)
    await disk.execute(cdb.log_select(pcr=True, page=0x02))
    assert await reads(disk) == 1
    await disk.execute(cdb.log_select(pcr=True, page=STATISTICS, subpage=0xFF))
    assert await reads(disk) == 0
    assert await stored(disk) == {0: pattern(252)}
    await disk.execute(cdb.log_select(pcr=True))
    assert await stored(disk) == {}
    assert (await disk.execute(cdb.log_sense(SELF_TESTS), read_length=512)).data_in == tests


async def test_log_select_reset_is_saved(tmp_path: Path) -> None:
    """SPC-5 6.10: PCR with SP resets what has been saved, too; SP alone saves what is current."""
    async with one_initiator(store=DirectoryStore(str(tmp_path))) as disk:
        await select(disk, written(p0=pattern(252)))
        await disk.execute(cdb.log_select(sp=True))
        assert await stored(disk) == {0: pattern(252)}
    async with one_initiator(store=DirectoryStore(str(tmp_path))) as disk:
        assert await stored(disk) == {0: pattern(252)}
        await disk.execute(cdb.log_select(sp=True, pcr=True))
    async with one_initiator(store=DirectoryStore(str(tmp_path))) as disk:
        assert await stored(disk) == {}
        await disk.execute(cdb.log_select(sp=True, page=STATISTICS), expect=InvalidFieldInCdb)


async def test_log_select_fields_of_the_cdb(disk: ApplicationClient) -> None:
    """SPC-5 6.10: with a parameter list PCR, PAGE CODE and SUBPAGE CODE have to be zero; without, the page has to exist."""
    data = written(p0=pattern(252))
    for fields, pointer in (
        ({"pcr": True}, (0xC9, 0, 1)),
        ({"page": APPLICATION}, (0xCD, 0, 2)),
        ({"subpage": 1}, (0xC0, 0, 3)),
    ):
        result = await disk.execute(cdb.log_select(len(data), **fields), data, expect=InvalidFieldInCdb)  # type: ignore[arg-type]
        assert result.sense is not None
        assert result.sense.sense_key_specific == bytes(pointer)
    for code, subpage, pointer in ((0x2E, 0, (0xCD, 0, 2)), (APPLICATION, 1, (0xC0, 0, 3))):
        result = await disk.execute(cdb.log_select(page=code, subpage=subpage), expect=InvalidFieldInCdb)
        assert result.sense is not None
        assert result.sense.sense_key_specific == bytes(pointer)
    assert await stored(disk) == {}


async def test_log_select_truncated(disk: ApplicationClient) -> None:
    """SPC-5 6.10: a list that ends inside a page, or is shorter than PARAMETER LIST LENGTH, is PARAMETER LIST LENGTH ERROR."""
    data = written(p0=pattern(252), p1=pattern(252, 2))
    for length in range(1, len(data)):
        await select(disk, data[:length], expect=ParameterListLengthError)
        await select(disk, data[:length], length=len(data), expect=ParameterListLengthError)
    await select(disk, b"", length=len(data), expect=ParameterListLengthError)
    assert await stored(disk) == {}


async def test_log_select_lengths_that_lie(disk: ApplicationClient) -> None:
    """SPC-5 7.3.2: a PAGE LENGTH that cuts a parameter, or another PARAMETER LENGTH, is INVALID FIELD IN PARAMETER LIST."""
    good = written(p0=pattern(252))
    for length in range(1, 256):
        data = good[:2] + length.to_bytes(2, "big") + good[4 : 4 + length]
        assert await select(disk, data, expect=InvalidFieldInParameterList) == at(2)
    for length in (0, 1, 251):
        data = listed({0: bytes(length)})
        assert await select(disk, data, expect=InvalidFieldInParameterList) == at(7)
    assert await stored(disk) == {}


async def test_log_select_reserved_bits(disk: ApplicationClient) -> None:
    """SPC-5 7.3.2: SPF without a subpage, another FORMAT AND LINKING, and ETC or TMC, which only thresholds have."""
    good = written(p0=pattern(252))
    value = pattern(252)
    assert await select(disk, bytes((0x4F,)) + good[1:], expect=InvalidFieldInParameterList) == at(0, 6)
    assert await select(disk, good[:1] + b"\1" + good[2:], expect=InvalidFieldInParameterList) == at(0, 6)
    for control, pointer in ((0x00, at(6, 1)), (0x01, at(6, 1)), (0x02, at(6, 1)), (0x13, at(6, 4)), (0x07, at(6, 4))):
        assert await select(disk, listed({0: value}, control=control), expect=InvalidFieldInParameterList) == pointer
    assert await stored(disk) == {}
    for control in (0x83, 0x43, 0x23, 0xE3):  # DU is ignored in lists, bit 6 obsolete, TSD either
        await select(disk, listed({0: value}, control=control))


async def test_log_select_order(disk: ApplicationClient) -> None:
    """SPC-5 6.10: pages, and parameters in a page, come in ascending order, each once."""
    value = pattern(252)
    assert await select(disk, listed({1: value, 0: value}), expect=InvalidFieldInParameterList) == at(4 + 256)
    assert await select(disk, listed({0: value}) * 2, expect=InvalidFieldInParameterList) == at(260, 5)
    assert await stored(disk) == {}
    pages = page((0x02, 0), b"") + listed({0: value}) + page((STATISTICS, 0), b"")
    await select(disk, pages)
    assert await stored(disk) == {0: value}


async def test_log_select_what_cannot_be_set(disk: ApplicationClient) -> None:
    """SPC-5 7.3.2.3: counters and self-test results cannot be set, nor what does not exist; all or nothing is done."""
    value = pattern(252)
    counter = (await disk.execute(cdb.log_sense(STATISTICS), read_length=512)).data_in
    results = (await disk.execute(cdb.log_sense(SELF_TESTS), read_length=512)).data_in
    for data in (counter, results):
        assert await select(disk, data, expect=InvalidFieldInParameterList) == at(4)
    assert await select(disk, listed({64: value}), expect=InvalidFieldInParameterList) == at(4)
    assert await select(disk, page((0x2E, 0), b""), expect=InvalidFieldInParameterList) == at(0, 5)
    assert await select(disk, page((0, 0), b""), expect=InvalidFieldInParameterList) == at(0, 5)
    half = listed({0: value}) + page((0x3E, 0), b"")
    assert await select(disk, half, expect=InvalidFieldInParameterList) == at(260, 5)
    assert await stored(disk) == {}


PAGES = {
    (0x0F, 0): {code: LogParameter(code, ParameterFormat.BINARY_LIST, bytes(2), Change.ALWAYS) for code in range(2)},
    (0x19, 1): {1: LogParameter(1, ParameterFormat.UNBOUNDED_COUNTER, bytes(2))},
}


@given(st.binary(max_size=40) | st.lists(st.sampled_from([b"\x0f\0\0\6", b"\0\0\3\2ab", b"\x59\1\0\0"])).map(b"".join))
def test_log_select_any_parameters(data: bytes) -> None:
    """A list is understood or refused; what is understood can only be what may be set."""
    try:
        found = parse_log_select(data, PAGES)
    except (ParameterListLengthError, InvalidFieldInParameterList):
        return
    for wanted in found:
        assert all(PAGES[wanted.key][code].change is Change.ALWAYS and len(value) == 2 for code, value in wanted.values.items())
