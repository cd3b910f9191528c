"""REPORT and SET IDENTIFYING INFORMATION (SPC-4 6.32, 6.43)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scsi import one_initiator, two_initiators
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InternalTargetFailure,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    ParameterListLengthError,
)
from tcm.scsi.identifying_information import check_information
from tcm.scsi.sense import Status
from tcm.target.unit_attention import DEVICE_IDENTIFIER_CHANGED

pytestmark = pytest.mark.anyio
IDENTIFIER, TEXT, SUPPORTED = 0x00, 0x02, 0x7F


async def report(client: ApplicationClient, kind: int = IDENTIFIER) -> bytes:
    data = (await client.execute(cdb.report_identifying_information(kind), read_length=4096)).data_in
    assert data[:2] == bytes(2)
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    return data[4:]


async def test_report_identifying_information_is_empty_at_first(tmp_path: Path) -> None:
    """SPC-4 6.32: IDENTIFYING INFORMATION LENGTH is zero if none was set."""
    async with one_initiator(directory=tmp_path) as client:
        assert await report(client) == await report(client, TEXT) == b""


async def test_report_identifying_information_supported_types(tmp_path: Path) -> None:
    """SPC-4 6.32.3: type 7Fh: a descriptor for each type, ascending; its lengths are those that can be set."""
    async with one_initiator(directory=tmp_path) as client:
        data = await report(client, SUPPORTED)
        assert data == bytes.fromhex("00000040 04000100")
        for kind, maximum in ((IDENTIFIER, 64), (TEXT, 256)):
            full = b"x" * (maximum - 1) + b"\0"
            await client.execute(cdb.set_identifying_information(maximum, kind), full)
            assert await report(client, kind) == full
            refused = await client.execute(
                cdb.set_identifying_information(maximum + 1, kind), full + b"\0", expect=InvalidFieldInCdb
            )
            assert refused.sense is not None
            assert refused.sense.sense_key_specific == bytes.fromhex("c00006")


async def test_report_identifying_information_allocation_length(tmp_path: Path) -> None:
    """SPC-5 4.2.5.6: the allocation length truncates, and the length field does not follow."""
    async with one_initiator(directory=tmp_path) as client:
        await client.execute(cdb.set_identifying_information(5), b"hello")
        whole = b"\0\0\0\5hello"
        for length in range(12):
            result = await client.execute(cdb.report_identifying_information(0, length), read_length=64)
            assert result.data_in == whole[:length]


@pytest.mark.parametrize("kind", [1, 3, 4, 0x7E])
async def test_report_identifying_information_type(tmp_path: Path, kind: int) -> None:
    """SPC-4 table 279: other types are reserved, odd ones SCC-2's: INVALID FIELD IN CDB; so is setting 7Fh."""
    async with one_initiator(directory=tmp_path) as client:
        for command, data in (
            (cdb.report_identifying_information(kind), b""),
            (cdb.set_identifying_information(1, kind), b"x"),
            (cdb.set_identifying_information(1, SUPPORTED), b"x"),
        ):
            result = await client.execute(command, data, read_length=0 if data else 64, expect=InvalidFieldInCdb)
            assert result.sense is not None
            assert result.sense.sense_key_specific == bytes.fromhex("cf000a")


async def test_set_identifying_information_deletes(tmp_path: Path) -> None:
    """SPC-4 6.43: a PARAMETER LIST LENGTH of zero leaves no information of that type, and the other type alone."""
    async with one_initiator(directory=tmp_path) as client:
        await client.execute(cdb.set_identifying_information(2), b"ab")
        await client.execute(cdb.set_identifying_information(3, TEXT), b"cd\0")
        await client.execute(cdb.set_identifying_information(0))
        await client.execute(cdb.set_identifying_information(0))
        assert (await report(client), await report(client, TEXT)) == (b"", b"cd\0")


@pytest.mark.parametrize(("text", "byte"), [(b"a", 0), (b"ab\0c", 3), (b"ab\xff\0", 2), (b"\xc3\0", 0)])
async def test_set_identifying_information_text(tmp_path: Path, text: bytes, byte: int) -> None:
    """SPC-4 6.43: text is UTF-8 ended by a null; anything else is INVALID FIELD IN PARAMETER LIST and changes nothing."""
    async with one_initiator(directory=tmp_path) as client:
        await client.execute(cdb.set_identifying_information(3, TEXT), b"ab\0")
        command = cdb.set_identifying_information(len(text), TEXT)
        result = await client.execute(command, text, expect=InvalidFieldInParameterList)
        assert result.sense is not None
        assert result.sense.sense_key_specific == bytes((0x80, 0, byte))
        assert await report(client, TEXT) == b"ab\0"


async def test_set_identifying_information_truncated(tmp_path: Path) -> None:
    """SPC-5 4.3.5.4: fewer bytes than PARAMETER LIST LENGTH says are PARAMETER LIST LENGTH ERROR."""
    async with one_initiator(directory=tmp_path) as client:
        for sent in range(5):
            await client.execute(cdb.set_identifying_information(5), b"hello"[:sent], expect=ParameterListLengthError)
        assert await report(client) == b""


async def test_set_identifying_information_attention(tmp_path: Path) -> None:
    """SPC-4 6.43: DEVICE IDENTIFIER CHANGED for every I_T nexus but the one that set it."""
    async with two_initiators(directory=tmp_path) as (one, other):
        await one.execute(cdb.set_identifying_information(2), b"ab")
        await one.test_unit_ready()
        await other.test_unit_ready(expect=DEVICE_IDENTIFIER_CHANGED)
        assert await report(other) == b"ab"


async def test_set_identifying_information_reserved(tmp_path: Path) -> None:
    """SPC-2 table 10 (as REPORT and SET DEVICE IDENTIFIER): reporting is allowed under a reservation, setting conflicts."""
    async with two_initiators(directory=tmp_path) as (one, other):
        await one.reserve()
        assert await report(other) == b""
        await other.execute(cdb.set_identifying_information(1), b"x", expect=Status.RESERVATION_CONFLICT)


async def test_set_identifying_information_survives(tmp_path: Path) -> None:
    """SPC-4 5.6: the information is kept through power loss; it is in its file before the status goes out."""
    async with one_initiator(directory=tmp_path) as client:
        await client.execute(cdb.set_identifying_information(3), b"\0\xff\1")
        await client.execute(cdb.set_identifying_information(3, TEXT), "ü".encode() + b"\0")
    async with one_initiator(directory=tmp_path) as client:
        assert (await report(client), await report(client, TEXT)) == (b"\0\xff\1", "ü\0".encode())


async def test_set_identifying_information_cannot_be_kept(tmp_path: Path) -> None:
    """SPC-4 5.6: what cannot be kept is not reported either."""
    (tmp_path / "information").write_text("in the way of a directory")
    async with one_initiator(directory=tmp_path) as client:
        await client.execute(cdb.set_identifying_information(1), b"x", expect=InternalTargetFailure)
        assert await report(client) == b""


@pytest.mark.parametrize("content", ["", "[]", "{", '{"0": 1}', '{"0": "xy"}', '{"7": "00"}', '{"2": "41"}', '{"a": "00"}'])
async def test_report_identifying_information_damaged(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    """SPC-4 5.6: a damaged file is said to be ignored, and the unit serves."""
    path = tmp_path / "information" / "00000000-2222-3333-4444-555555555555"
    path.parent.mkdir()
    path.write_text(content)
    async with one_initiator(directory=tmp_path) as client:
        assert f"{tmp_path}: information/{path.name}: identifying information is ignored: " in caplog.text
        assert await report(client) == b""
        assert path.read_text() == content
        await client.execute(cdb.set_identifying_information(1), b"x")
    async with one_initiator(directory=tmp_path) as client:
        assert await report(client) == b"x"


async def test_report_identifying_information_needs_a_place() -> None:
    """SPC-5 6.36: without a place to keep it, neither command is there."""
    async with one_initiator() as client:
        await client.execute(cdb.report_identifying_information(), read_length=64, expect=InvalidFieldInCdb)
        data = (await client.execute(cdb.report_supported_operation_codes(3, 0xA4, 6), read_length=64)).data_in
        assert data[1] & 7 == 1


async def test_set_identifying_information_supported(tmp_path: Path) -> None:
    """SPC-5 6.36: REPORT SUPPORTED OPERATION CODES has both, with their usage data."""
    async with one_initiator(directory=tmp_path) as client:
        for code, action in ((0xA3, 5), (0xA4, 6)):
            data = (await client.execute(cdb.report_supported_operation_codes(2, code, action), read_length=64)).data_in
            assert data[1] & 7 == 3
            assert data[4:] == bytes((code, action)) + bytes.fromhex("00000000fffffffffe00")


@given(st.binary(max_size=300))
def test_set_identifying_information_any_text(text: bytes) -> None:
    """SPC-4 6.43: any bytes are a text with its null at the end, or refused."""
    try:
        check_information(TEXT, text)
    except InvalidFieldInParameterList:
        return
    assert not text or text.decode().endswith("\0")
