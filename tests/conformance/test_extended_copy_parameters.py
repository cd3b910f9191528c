"""EXTENDED COPY parameter lists that are wrong: SPC-4 6.4.1 to 6.4.6, 5.17.7.3. Nothing is copied then."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support import copies
from support.copies import LID, OPERATING_PARAMETERS, STATUS_LID4, cscd_of, extended_copy, parameters, receive, send
from support.scsi import pattern, target
from tcm_loopback.commands import ApplicationClient, Expected

from tcm.scsi import copy_cdb
from tcm.scsi.check_condition import (
    InlineDataLengthExceeded,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    ParameterListLengthError,
    TooManySegmentDescriptors,
    TooManyTargetDescriptors,
    UnsupportedSegmentDescriptorTypeCode,
    UnsupportedTargetDescriptorTypeCode,
)
from tcm.scsi.copy_cdb import THIS_UNIT, block_to_block, block_to_block_with_offsets
from tcm.scsi.copy_sense import CopyAborted, CopyFieldInvalid, UnreachableCopyTarget
from tcm.scsi.sense import Sense, SenseKey

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("lid4", LID)]
Two = tuple[ApplicationClient, ApplicationClient]


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    async with target(None, None) as port:
        first, second = copies.clients(port)
        for client in (first, second):
            await client.identify()
        await first.write(16, 0, pattern(1 << 20))
        yield first, second
        assert not any((await second.read(16, 0, second.blocks)).data_in)
        await receive(first, STATUS_LID4, 1, expect=InvalidFieldInCdb)


def good(two: Two, *, lid4: bool, **fields: object) -> bytearray:
    """A list with one CSCD and two segments, one of each kind."""
    segments = [
        block_to_block(THIS_UNIT, 0, int(lid4), 0, 8),
        block_to_block_with_offsets(THIS_UNIT, 0, 0, int(lid4), 8, 0, 512),
    ]
    return bytearray(parameters([cscd_of(two[1])], segments, lid4=lid4, **fields))


def pointer(sense: Sense | None) -> tuple[int, int | None]:
    """Byte and bit of a field pointer into the parameter list."""
    assert sense is not None
    field = sense.sense_key_specific
    assert field is not None
    assert field[0] & 0xC0 == 0x80
    return int.from_bytes(field[1:3]), field[0] & 7 if field[0] & 8 else None


async def test_extended_copy_truncated(two: Two, lid4: bool) -> None:
    """SPC-4 6.4.1: a parameter list length that cuts the list anywhere is PARAMETER LIST LENGTH ERROR; so is less data."""
    data = good(two, lid4=lid4)
    for length in range(1, len(data)):
        await send(two[0], bytes(data[:length]), lid4=lid4, expect=ParameterListLengthError)
        cdb = copy_cdb.extended_copy(len(data), lid4=lid4)
        await two[0].execute(cdb, bytes(data[:length]), expect=ParameterListLengthError)


async def test_extended_copy_reserved_bits(two: Two, lid4: bool) -> None:
    """SPC-4 4.2.1, 6.4: a reserved bit is INVALID FIELD IN PARAMETER LIST, with a pointer to it."""
    data = good(two, lid4=lid4)
    header = 48 if lid4 else 16
    cscd, first, second = header, header + 32, header + 60
    reserved = [(1, 0xC0), (cscd + 4, 0xF0), (cscd + 5, 0xC0), (cscd + 6, 0xFF), (cscd + 28, 0xFB)]
    reserved += [(first + 1, 0xFC), (first + 8, 0xFF), (first + 9, 0xFF), (second + 1, 0xFC)]
    if lid4:
        reserved += [(15, 0xFC), *((byte, 0xFF) for byte in (*range(4, 15), *range(17, 20), *range(24, 42)))]
    else:
        reserved += [(byte, 0xFF) for byte in range(4, 8)]
    for byte, mask in reserved:
        for bit in range(8):
            if mask >> bit & 1:
                wrong = bytearray(data)
                wrong[byte] |= 1 << bit
                result = await send(two[0], bytes(wrong), lid4=lid4, expect=InvalidFieldInParameterList)
                assert pointer(result.sense) == (byte, bit)


async def test_extended_copy_lengths_that_lie(two: Two, lid4: bool) -> None:
    """SPC-4 6.4.3.4 to 6.4.3.6: lists longer than the data, or too long; CSCDs that are torn; inline data, of which there is
    none; segments that reach beyond their list."""
    data = good(two, lid4=lid4)
    (cscds, width), (segments, segment_width), (inline, inline_width) = (
        ((42, 2), (44, 2), (46, 2)) if lid4 else ((2, 2), (8, 4), (12, 4))
    )

    async def refused(byte: int, size: int, value: int, expect: Expected, at: int | None = None) -> None:
        wrong = bytearray(data)
        wrong[byte : byte + size] = value.to_bytes(size)
        result = await send(two[0], bytes(wrong), lid4=lid4, expect=expect)
        if at is not None:
            assert pointer(result.sense) == (at, None)

    header = 48 if lid4 else 16
    await refused(cscds, width, 33, ParameterListLengthError)
    await refused(cscds, width, 0xFFFF, ParameterListLengthError)
    await refused(segments, segment_width, 61, ParameterListLengthError)
    await refused(segments, segment_width, (1 << 8 * segment_width) - 1, ParameterListLengthError)
    await refused(inline, inline_width, 1, InlineDataLengthExceeded)
    await refused(cscds, width, 31, InvalidFieldInParameterList, cscds)
    await refused(segments, segment_width, 59, InvalidFieldInParameterList, segments)
    await refused(segments, segment_width, 29, InvalidFieldInParameterList, segments)
    for length in (0, 0x17, 0x19, 0xFFFF):
        await refused(header + 34, 2, length, InvalidFieldInParameterList, header + 34)
    for length in (0x18, 0x1D):
        await refused(header + 62, 2, length, InvalidFieldInParameterList, header + 62)
    await refused(header + 7, 1, 21, InvalidFieldInParameterList, header + 7)
    await refused(cscds, width, 0, UnsupportedSegmentDescriptorTypeCode, header)


async def test_extended_copy_descriptor_types(two: Two, lid4: bool) -> None:
    """SPC-4 6.4.5.1, 6.4.6.1: descriptor types that are not supported."""
    data = good(two, lid4=lid4)
    header = 48 if lid4 else 16
    for byte, known, error in (
        (header, {0xE4}, UnsupportedTargetDescriptorTypeCode),
        (header + 32, {0x02, 0x0A}, UnsupportedSegmentDescriptorTypeCode),
    ):
        for code in set(range(256)) - known:
            wrong = bytearray(data)
            wrong[byte] = code
            result = await send(two[0], bytes(wrong), lid4=lid4, expect=error)
            assert pointer(result.sense) == (byte, None)


async def test_extended_copy_limits(two: Two, lid4: bool) -> None:
    """SPC-4 6.4.3.4, 6.4.3.5, 6.22: as many descriptors as the operating parameters say are taken, one more is too many."""
    limits = await receive(two[0], OPERATING_PARAMETERS, 0)
    cscds, segments, length = (int.from_bytes(limits[i:j]) for i, j in ((8, 10), (10, 12), (12, 16)))
    cscd, segment = cscd_of(two[0]), block_to_block(THIS_UNIT, 0, THIS_UNIT, 0, 0)
    assert cscds * 32 + segments * 32 <= length
    await extended_copy(two[0], [cscd] * cscds, *[segment] * segments, lid4=lid4, usage=3, list_identifier=0)
    await extended_copy(two[0], [cscd] * (cscds + 1), segment, lid4=lid4, expect=TooManyTargetDescriptors)
    await extended_copy(two[0], [cscd], *[segment] * (segments + 1), lid4=lid4, expect=TooManySegmentDescriptors)
    longest = parameters([], [segment] * (length // 28), lid4=lid4)
    await send(two[0], longest, lid4=lid4, expect=TooManySegmentDescriptors)
    await send(two[0], parameters([cscd], [segment] * (length // 28), lid4=lid4), lid4=lid4, expect=ParameterListLengthError)
    for much in (0x7FFFFFFF, 0xFFFFFFFF):
        await two[0].execute(copy_cdb.extended_copy(much, lid4=lid4), bytes(100), expect=ParameterListLengthError)


async def test_extended_copy_list_id_usage(two: Two, lid4: bool) -> None:
    """SPC-4 tables 128, 129: 01b is reserved; with 11b the list identifier is zero."""
    result = await send(two[0], bytes(good(two, lid4=lid4, usage=1)), lid4=lid4, expect=InvalidFieldInParameterList)
    assert pointer(result.sense) == (1, 4)
    result = await send(two[0], bytes(good(two, lid4=lid4, usage=3)), lid4=lid4, expect=InvalidFieldInParameterList)
    assert pointer(result.sense) == (20 if lid4 else 0, None)


async def test_extended_copy_header_fields(two: Two, lid4: bool) -> None:
    """SPC-4 6.4.2: the fields that say which form the list has; what IMMED excludes. LID1 has none of them."""
    if not lid4:
        return
    for byte, value, at in ((0, 0x00, 0), (0, 0x02, 0), (2, 0x01, 2), (3, 0x00, 2), (16, 0xE4, 16)):
        wrong = good(two, lid4=True)
        wrong[byte] = value
        result = await send(two[0], bytes(wrong), lid4=True, expect=InvalidFieldInParameterList)
        assert pointer(result.sense) == (at, None)
    for fields in ({"g_sense": True}, {"usage": 3, "list_identifier": 0}):
        await send(two[0], bytes(good(two, lid4=True, immed=True, **fields)), lid4=True, expect=InvalidFieldInCdb)


async def test_extended_copy_cscd_ids(two: Two, lid4: bool) -> None:
    """SPC-4 table 148, 6.4.5.2: an ID that no CSCD has is UNREACHABLE COPY TARGET; in LID4 the ID 0 is part of the header."""
    cscd = cscd_of(two[1])
    for number in (2, 0x7FF, 0x800, 0xC000, 0xC001, 0xF800, 0xFFFE):
        for segment, field in (
            (block_to_block(number, 0, int(lid4), 0, 1), 4),
            (block_to_block(THIS_UNIT, 0, number, 0, 1), 6),
        ):
            result = await extended_copy(
                two[0], [cscd], segment, lid4=lid4, usage=3, list_identifier=0, expect=UnreachableCopyTarget
            )
            assert result.sense is not None
            assert result.sense.sense_key_specific == bytes((0xA0, 0, field))
    if lid4:
        segment = block_to_block(0, 0, 1, 0, 1)
        await extended_copy(two[0], [cscd], segment, lid4=True, usage=3, list_identifier=0, expect=CopyFieldInvalid)


async def test_extended_copy_out_of_range(two: Two, lid4: bool) -> None:
    """SPC-4 5.17.7.4 g: an error in a segment descriptor: COPY ABORTED, the segment's number, and a pointer into it (SD)."""
    cscd, blocks = cscd_of(two[1]), two[0].blocks
    fine = block_to_block(THIS_UNIT, 0, THIS_UNIT, 0, 1)
    here, there = THIS_UNIT, int(lid4)
    for segment, field in (
        (block_to_block(here, blocks, there, 0, 1), 12),
        (block_to_block(here, blocks - 1, there, 0, 2), 12),
        (block_to_block(here, (1 << 64) - 1, there, 0, 2), 12),
        (block_to_block(here, 0, there, blocks, 1), 20),
        (block_to_block(here, 0, there, blocks - 7, 8), 20),
        (block_to_block_with_offsets(here, 0, 512, there, 0, 0, 1), 28),
        (block_to_block_with_offsets(here, 0, 0, there, 0, 0xFFFF, 1), 30),
        (block_to_block_with_offsets(here, blocks - 1, 1, there, 0, 0, 512), 12),
        (block_to_block_with_offsets(here, 0, 0, there, blocks - 1, 511, 2), 20),
        (block_to_block_with_offsets(here, 0, 0, there, 0, 0, 0xFFFFFFFF), 8),
    ):
        result = await extended_copy(two[0], [cscd], fine, segment, lid4=lid4, usage=3, list_identifier=0, expect=CopyAborted)
        assert result.sense_data[0] == 0x70
        assert result.sense_data[2] == SenseKey.COPY_ABORTED
        assert result.sense_data[8:12] == bytes((0, 0, 0, 1))
        assert result.sense_data[15:18] == bytes((0xA0, 0, field))


async def test_extended_copy_block_length(two: Two, lid4: bool) -> None:
    """SPC-4 6.4.5.3: a DISK BLOCK LENGTH that is not the unit's, and a device type that is another."""
    wrong = bytearray(cscd_of(two[1]))
    wrong[29:32] = (4096).to_bytes(3)
    segment = block_to_block(THIS_UNIT, 0, int(lid4), 0, 8)
    result = await extended_copy(
        two[0], [bytes(wrong)], segment, lid4=lid4, usage=3, list_identifier=0, expect=CopyFieldInvalid
    )
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0x80, 0, (48 if lid4 else 16) + 29))
