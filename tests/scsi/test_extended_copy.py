"""Parameter lists of EXTENDED COPY: whatever comes is parsed or refused; COPY ABORTED sense data in both formats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi import copy_cdb, designators
from tcm.scsi.check_condition import CheckCondition
from tcm.scsi.copy_sense import CopyAborted, Forwarded, ThirdPartyDeviceFailure, segment_pointer
from tcm.scsi.extended_copy import ListIdUsage, header_length, parse
from tcm.scsi.sense import Sense, SenseKey, Status
from tcm.scsi.third_party_copy import MAXIMUM_CSCDS, MAXIMUM_DESCRIPTOR_LIST_LENGTH, MAXIMUM_SEGMENTS

NAA = designators.naa_6("11111111-2222-3333-4444-555555555555")
CSCD = copy_cdb.cscd(NAA, block_length=4096)
SEGMENTS = copy_cdb.block_to_block(0, 5, 1, 1 << 40, 65535, dc=True) + copy_cdb.block_to_block_with_offsets(
    0xFFFF, 1, 2, 1, 3, 4, 0xFFFFFFFF
)


def build(*, lid4: bool) -> bytes:
    if lid4:
        return copy_cdb.lid4_parameters(CSCD * 2, SEGMENTS, list_identifier=0x12345678, usage=2, g_sense=True)
    return copy_cdb.lid1_parameters(CSCD * 2, SEGMENTS, list_identifier=0x78, usage=2, priority=5, striped=True)


@pytest.mark.parametrize("lid4", [False, True])
def test_a_list_comes_out_as_it_was_built(lid4):
    found = parse(build(lid4=lid4) + b"more", lid4=lid4)
    assert found.list_identifier == (0x12345678 if lid4 else 0x78)
    assert found.usage is ListIdUsage.DISCARD
    assert (found.priority, found.sequential_striped) == ((1, False) if lid4 else (5, True))
    assert (found.immediate, found.good_sense) == (False, lid4)
    assert list(found.cscds) == ([1, 2] if lid4 else [0, 1])
    for cscd in found.cscds.values():
        assert (cscd.designator, cscd.block_length, cscd.device_type) == (NAA, 4096, 0)
    first, second = found.segments
    assert (first.source, first.destination, first.count, first.destination_count) == (0, 1, 65535, True)
    assert (first.source_lba, first.destination_lba, first.with_offsets) == (5, 1 << 40, False)
    assert (second.source, second.count, second.source_byte, second.destination_byte) == (0xFFFF, 0xFFFFFFFF, 2, 4)


def parse_or_refuse(data: bytes, *, lid4: bool) -> None:
    sense, found = None, None
    try:
        found = parse(data, lid4=lid4)
    except CheckCondition as error:
        sense = error.sense
    if found is not None:
        assert len(found.cscds) <= MAXIMUM_CSCDS
        assert len(found.segments) <= MAXIMUM_SEGMENTS
    if sense is not None:
        assert sense.key is SenseKey.ILLEGAL_REQUEST
        pointer = sense.sense_key_specific
        assert pointer is None or int.from_bytes(pointer[1:]) < max(len(data), header_length(lid4=lid4))


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(data, lid4):
    parse_or_refuse(data, lid4=lid4)


@given(st.data(), st.booleans())
def test_a_list_with_some_bytes_changed(data, lid4):
    built = bytearray(build(lid4=lid4))
    for _ in range(data.draw(st.integers(1, 4))):
        built[data.draw(st.integers(0, len(built) - 1))] = data.draw(st.integers(0, 255))
    parse_or_refuse(bytes(built[: data.draw(st.integers(0, len(built)))]), lid4=lid4)
    parse_or_refuse(bytes(built) + bytes(MAXIMUM_DESCRIPTOR_LIST_LENGTH), lid4=lid4)


def test_sense_data_of_the_longest_answer_fits():
    inner = Sense(
        key=SenseKey.MEDIUM_ERROR, asc=0x11, information=1 << 40, command_specific=1, sense_key_specific=b"\x80\x00\x01"
    )
    error = ThirdPartyDeviceFailure(
        0x1234,
        pointer=segment_pointer(16, in_segment=False),
        residual=7,
        forwarded=Forwarded(1, Status.CHECK_CONDITION, inner),
    )
    fixed = error.sense.pack()
    assert (fixed[0], fixed[2], fixed[7]) == (0xF0, SenseKey.COPY_ABORTED, len(fixed) - 8)
    assert fixed[8:12] == b"\x12\x00\x12\x34"
    assert fixed[18:] == bytes((Status.CHECK_CONDITION,)) + inner.pack()
    long = error.sense.pack(descriptor=True)
    assert len(long) == 8 + long[7] <= 252
    forwarded = inner.pack(descriptor=True)
    assert long.endswith(bytes((0x0C, 2 + len(forwarded), 1, Status.CHECK_CONDITION)) + forwarded)


def test_sense_data_without_anything_forwarded():
    error = CopyAborted(3, pointer=segment_pointer(12, 5, in_segment=True))
    assert error.sense.pack() == bytes((0x70, 0, SenseKey.COPY_ABORTED, 0, 0, 0, 0, 10, 0, 0, 0, 3, 0, 0, 0, 0xAD, 0, 12))
    assert error.sense.pack(descriptor=True)[8:20] == b"\x01\x0a\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00"
