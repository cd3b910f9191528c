"""PDUs out of a byte stream, and digests: RFC 7143 11.1, 11.2, 7.7, 7.8, appendix A.4."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcm_iscsi.protocol.ahs import AdditionalHeaders, AhsError, encode_ahs, parse_ahs
from tcm_iscsi.protocol.digest import crc32c
from tcm_iscsi.protocol.framer import Framer, FramingError, Pdu, frame

BHS = bytes(range(0x40, 0x44)) + bytes(4) + bytes(range(8, 48))


def take_all(framer: Framer) -> list[Pdu]:
    found = []
    while (pdu := framer.next_pdu()) is not None:
        found.append(pdu)
    return found


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (bytes(32), "aa36918a"),
        (b"\xff" * 32, "43aba862"),
        (bytes(range(32)), "4e79dd46"),
        (bytes(reversed(range(32))), "5cdb3f11"),
        (
            bytes.fromhex(
                "01c00000000000000000000000000000140000000000040000000014000000182800000000000000" + "0200000000000000"
            ),
            "563a96d9",
        ),
    ],
)
def test_digest_examples(data: bytes, crc: str) -> None:
    """RFC 7143 appendix A.4 (RFC 3720 B.4), the bytes as they stand on the wire."""
    assert crc32c(data) == bytes.fromhex(crc)
    assert crc32c(memoryview(bytearray(b"x" + data))[1:]) == bytes.fromhex(crc)
    assert crc32c(data[:7], bytearray(data[7:20]), memoryview(data)[20:]) == bytes.fromhex(crc)


@pytest.mark.parametrize("header_digest", [False, True])
@pytest.mark.parametrize("data_digest", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 8192])
@pytest.mark.parametrize("ahs", [b"", b"\0\x05\x02\0\0\0\x10\0"])
def test_framer_whole_and_byte_by_byte(header_digest: bool, data_digest: bool, length: int, ahs: bytes) -> None:
    """Three PDUs and the beginning of a fourth, cut in every way."""
    data = bytes(i & 0xFF for i in range(length))
    options = {"header_digest": header_digest, "data_digest": data_digest}
    wire = frame(BHS, data, ahs=ahs, **options)
    assert len(wire) % 4 == 0
    stream = wire * 3 + wire[:40]
    whole = Framer(**options)
    whole.receive_data(stream)
    pdus = take_all(whole)
    assert len(pdus) == 3
    assert all(pdu.data == data and pdu.ahs == ahs and pdu.data_digest_valid for pdu in pdus)
    assert pdus[0].bhs[8:] == BHS[8:]
    assert int.from_bytes(pdus[0].bhs[5:8], "big") == length
    assert whole.trailing_data() == wire[:40]
    assert whole.trailing_data() == b""
    if length < 100:
        slow = Framer(**options)
        found = []
        for i in range(len(stream)):
            slow.receive_data(stream[i : i + 1])
            found += take_all(slow)
        assert found == pdus


def test_framer_padding_is_not_checked_but_summed() -> None:
    """RFC 7143 11.1: padding should be zero; the data digest covers it."""
    wire = bytearray(frame(BHS, b"abcde", data_digest=True))
    wire[48 + 6] ^= 1
    framer = Framer(data_digest=True)
    framer.receive_data(wire)
    (pdu,) = take_all(framer)
    assert pdu.data == b"abcde"
    assert not pdu.data_digest_valid


def test_framer_data_digest_error_is_the_pdus() -> None:
    """RFC 7143 7.8: the stream goes on after a data digest error."""
    wire = bytearray(frame(BHS, b"abcd", data_digest=True))
    wire[-1] ^= 0x80
    framer = Framer(data_digest=True)
    framer.receive_data(bytes(wire) + frame(BHS, b"abcd", data_digest=True))
    assert [pdu.data_digest_valid for pdu in take_all(framer)] == [False, True]


def test_framer_header_digest_error_ends_the_stream() -> None:
    """RFC 7143 7.8: after a header digest error the length cannot be trusted."""
    wire = bytearray(frame(BHS, b"abcd", header_digest=True))
    wire[20] ^= 1
    framer = Framer(header_digest=True)
    framer.receive_data(wire)
    with pytest.raises(FramingError, match="header digest"):
        framer.next_pdu()


def test_framer_long_segment_is_refused_at_once() -> None:
    """RFC 7143 7.7, 13.12: more than we declared is a format error, known from the header alone."""
    framer = Framer()
    framer.receive_data(frame(BHS, bytes(8192)) + BHS[:4] + (8193).to_bytes(4, "big") + BHS[8:])
    assert framer.next_pdu() is not None
    with pytest.raises(FramingError) as caught:
        framer.next_pdu()
    assert len(caught.value.bhs) == 48


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=10), st.booleans(), st.booleans())
def test_framer_any_bytes(chunks: list[bytes], header_digest: bool, data_digest: bool) -> None:
    """Invariant: PDUs whose sizes add up to what was given and is not left over, or FramingError."""
    framer = Framer(max_data_segment_length=512, header_digest=header_digest, data_digest=data_digest)
    for chunk in chunks:
        framer.receive_data(chunk)
    taken = 0
    try:
        for pdu in take_all(framer):
            data = len(pdu.data) + 3 & ~3
            taken += 48 + len(pdu.ahs) + 4 * header_digest + data + 4 * (data_digest and data > 0)
    except FramingError:
        return
    assert taken + len(framer.trailing_data()) == sum(map(len, chunks))


@pytest.mark.parametrize(
    "headers",
    [
        AdditionalHeaders(),
        AdditionalHeaders(extended_cdb=bytes(range(16))),
        AdditionalHeaders(extended_cdb=b"x"),
        AdditionalHeaders(extended_cdb=bytes(244)),
        AdditionalHeaders(bidirectional_read_length=0),
        AdditionalHeaders(bidirectional_read_length=0xFFFFFFFF),
        AdditionalHeaders(bytes(16), 4096),
    ],
)
def test_ahs_round_trip(headers: AdditionalHeaders) -> None:
    """RFC 7143 11.2.2."""
    wire = encode_ahs(headers)
    assert len(wire) % 4 == 0
    assert parse_ahs(wire) == parse_ahs(memoryview(wire)) == headers


def test_ahs_layout() -> None:
    """RFC 7143 11.2.2.3: AHSLength is CDBLength - 15; 11.2.2.4: 0005h."""
    assert encode_ahs(AdditionalHeaders(bytes(16)))[:4] == bytes.fromhex("00110100")
    assert encode_ahs(AdditionalHeaders(b"", 512)) == bytes.fromhex("0005020000000200")


@pytest.mark.parametrize(
    "wire",
    [
        "00",
        "000001",
        "0000010000000000",
        "00010100",
        "0009010000000000",
        "fffe010000000000",
        "00f60100" + "00" * 248,
        "0004020000000000",
        "000602000000000000000000",
        "0005030000000000",
        "0005000000000000",
        "00050200000000000005020000000000",
        "00020100010000000002010001000000",
        "000502000000000000",
    ],
)
def test_ahs_refused(wire: str) -> None:
    """Cut off, unknown, twice, or of a length its type cannot have."""
    with pytest.raises(AhsError):
        parse_ahs(bytes.fromhex(wire))


@given(st.binary(max_size=64))
def test_ahs_any_bytes(wire: bytes) -> None:
    """Invariant: headers, or AhsError."""
    try:
        headers = parse_ahs(wire)
    except AhsError:
        return
    assert parse_ahs(encode_ahs(headers)) == headers
