"""FCoE encapsulation (FC-BB-5 clause 7.7): what goes in comes out, and nothing that was damaged does."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_fcoe.protocol.counters import Counters
from tcm_fcoe.protocol.fcoe import (
    COUNTERS,
    EOF_N,
    EOF_T,
    MAX_DATA_FIELD,
    MAX_PDU_LENGTH,
    MIN_PDU_LENGTH,
    SOF_I3,
    SOF_N3,
    Eof,
    FcoeError,
    Sof,
    decapsulate,
    encapsulate,
)

PREFIX = bytes.fromhex("0efd0000fc000efd000097008906")
HEADER = bytes(range(24))


def test_the_layout():
    frame = encapsulate(PREFIX, SOF_I3, HEADER, b"payload", EOF_T)
    assert frame[:14] == PREFIX
    assert frame[14:27] == bytes(13)
    assert frame[27] == 0x2E
    assert frame[28:52] == HEADER
    assert frame[52:60] == b"payload\0"
    assert frame[60:64] == struct.pack("<I", zlib.crc32(HEADER + b"payload\0"))
    assert frame[64:] == b"\x42\0\0\0"


@given(
    st.binary(min_size=24, max_size=24),
    st.binary(max_size=2112),
    st.sampled_from([SOF_I3, SOF_N3]),
    st.sampled_from([EOF_N, EOF_T]),
)
def test_what_goes_in_comes_out(header, payload, sof, eof):
    frame = encapsulate(PREFIX, sof, header, payload, eof)
    assert len(frame) % 4 == 0
    got_sof, fc, got_eof = decapsulate(memoryview(frame)[14:])
    assert (got_sof, got_eof) == (sof, eof)
    assert bytes(fc) == header + payload + bytes(-len(payload) & 3)
    assert fc.obj is frame  # a view, no copy


@pytest.mark.parametrize("payload", [bytearray(b"abcd"), memoryview(b"abcd"), memoryview(bytearray(b"abcdef"))[1:6]])
def test_payloads_of_any_kind(payload):
    frame = encapsulate(PREFIX, SOF_I3, HEADER, payload, EOF_T)
    _sof, fc, _eof = decapsulate(memoryview(frame)[14:])
    assert bytes(fc[24 : 24 + len(payload)]) == bytes(payload)


def test_the_largest_and_what_is_larger():
    largest = encapsulate(b"", SOF_I3, HEADER, bytes(MAX_DATA_FIELD), EOF_T)
    assert len(largest) == MAX_PDU_LENGTH == 2158
    decapsulate(memoryview(largest))
    with pytest.raises(FcoeError, match="2162 bytes") as caught:
        decapsulate(memoryview(encapsulate(b"", SOF_I3, HEADER, bytes(MAX_DATA_FIELD + 4), EOF_T)))
    assert caught.value.counter == "bad_length"


@pytest.mark.parametrize("length", range(MIN_PDU_LENGTH + 36))
def test_cut_at_every_byte(length):
    whole = encapsulate(b"", SOF_I3, HEADER, bytes(range(36)), EOF_T)
    with pytest.raises(FcoeError) as caught:
        decapsulate(memoryview(whole)[:length])
    assert caught.value.counter in COUNTERS


@given(st.binary(max_size=2300))
def test_any_bytes_are_an_error_of_a_known_name(data):
    with pytest.raises(FcoeError) as caught:
        decapsulate(memoryview(data))
    assert caught.value.counter in COUNTERS
    assert str(caught.value)


@given(st.binary(max_size=64), st.integers(0), st.integers(1, 255))
def test_every_damage_is_seen(payload, place, change):
    frame = bytearray(encapsulate(b"", SOF_I3, HEADER, payload, EOF_T))
    place %= len(frame) - 3  # what is reserved after EOF is not looked at
    if 0 < place < 13:
        place = 13  # nor is what is reserved in the header
    frame[place] ^= change
    if place == 0 and not change & 0xF0:
        return  # reserved too
    if place == 13 and change == SOF_I3 ^ SOF_N3:
        return
    if place == len(frame) - 4 and change == EOF_T ^ EOF_N:
        return  # the other delimiter of the class: only the sequence can tell
    with pytest.raises(FcoeError):
        decapsulate(memoryview(frame))


def test_reserved_bytes_are_ignored():
    frame = bytearray(encapsulate(b"", SOF_I3, HEADER, b"", EOF_T))
    frame[0] |= 0x0F
    frame[1:13] = b"\xff" * 12
    frame[-3:] = b"\xff" * 3
    assert decapsulate(memoryview(frame))[0] == SOF_I3


@pytest.mark.parametrize("sof", list(Sof))
def test_start_of_frame(sof):
    frame = encapsulate(b"", sof, HEADER, b"", EOF_T)
    if sof in (Sof.I3, Sof.N3):
        assert decapsulate(memoryview(frame))[0] == sof
    else:
        with pytest.raises(FcoeError) as caught:
            decapsulate(memoryview(frame))
        assert caught.value.counter == "unsupported_class"


@pytest.mark.parametrize("eof", list(Eof))
def test_end_of_frame(eof):
    frame = encapsulate(b"", SOF_I3, HEADER, b"", eof)
    if eof in (Eof.N, Eof.T):
        assert decapsulate(memoryview(frame))[2] == eof
    else:
        with pytest.raises(FcoeError) as caught:
            decapsulate(memoryview(frame))
        assert caught.value.counter == ("aborted_frames" if eof in (Eof.NI, Eof.DTI, Eof.RTI, Eof.A) else "bad_eof")


def test_every_error_has_its_counter():
    assert set(COUNTERS) <= Counters().as_dict().keys()
