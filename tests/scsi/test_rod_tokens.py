"""ROD tokens and the parameter data of the commands that make and use them (SPC-5, SBC-4)."""

from __future__ import annotations

import pytest
from support.tokens import pointer, populate_data, write_data

from tcm.scsi.check_condition import (
    InvalidFieldInParameterList,
    LbaOutOfRange,
    ParameterListLengthError,
    TooManySegmentDescriptors,
)
from tcm.scsi.designators import naa_6
from tcm.scsi.rod_token_commands import (
    MAXIMUM_RANGES,
    POPULATE_HEADER,
    WRITE_HEADER,
    Range,
    check_ranges,
    parse_populate_token,
    parse_write_using_token,
    report_all_rod_tokens_data,
    rod_token_descriptors,
)
from tcm.scsi.rod_token_limits import block_device_rod_limits, rod_token_features, supported_rod_types
from tcm.scsi.rod_token_sense import InvalidTokenLength, UnsupportedTokenType
from tcm.scsi.rod_tokens import (
    RodType,
    TokenFields,
    check_header,
    creator_descriptor,
    identifier_of,
    target_descriptor,
    zero_token,
)

SERIAL = "11111111-2222-3333-4444-555555555555"


def token_fields(name: str = "iqn.2003-01.org.example:disk") -> TokenFields:
    return TokenFields(
        rod_type=RodType.POINT_IN_TIME_CHANGE_VULNERABLE,
        identifier=0x0102030405060708,
        creator=creator_descriptor(naa_6(SERIAL), 512),
        represented=1 << 33,
        device_data=bytes.fromhex("00000200 00 03 c000"),
        target=target_descriptor(name),
    )


def test_token_format():
    token = token_fields().pack(bytes(range(256)))
    assert len(token) == 512
    assert token[:16].hex() == "00800001000001f80102030405060708"
    # Identification Descriptor CSCD descriptor: binary, NAA, 16 bytes; block length 512
    assert token[16:20].hex() == "e4000000"
    assert token[20:24].hex() == "01030010"
    assert token[24:40] == naa_6(SERIAL).data
    assert token[40:48].hex() == "0000000000000200"
    assert int.from_bytes(token[48:64]) == 1 << 33
    assert token[64:96] == bytes(32)
    assert token[96:128].hex() == "000002000003c000".ljust(64, "0")
    # SCSI name string of the target device
    assert token[128:132].hex() == "03280020"
    assert token[132:164] == b"iqn.2003-01.org.example:disk".ljust(32, b"\0")
    assert token[256:] == bytes(range(256))
    assert identifier_of(token) == 0x0102030405060708
    assert check_header(token) == RodType.POINT_IN_TIME_CHANGE_VULNERABLE


@pytest.mark.parametrize("length", [124, 223, 400])
def test_a_target_name_too_long_for_the_token_becomes_an_naa(length):
    name = "iqn." + "x" * (length - 4)
    descriptor = target_descriptor(name)
    assert descriptor[:4].hex() == "01230008"
    assert descriptor[4] >> 4 == 3, "locally assigned"
    assert descriptor != target_descriptor(name + "y")


def test_zero_token():
    token = zero_token()
    assert len(token) == 512
    assert token[:8].hex() == "ffff0001000001f8"
    assert check_header(token) == RodType.BLOCK_DEVICE_ZERO


@pytest.mark.parametrize(
    "rod_type", [0, 0x00010000, RodType.POINT_IN_TIME_PERSISTENT, RodType.POINT_IN_TIME_ANY, 0xFFFF0002, 0xFFFFFFFF]
)
def test_types_that_are_not_taken(rod_type):
    with pytest.raises(UnsupportedTokenType):
        check_header(rod_type.to_bytes(4) + zero_token()[4:])


def test_token_length_comes_first():
    with pytest.raises(InvalidTokenLength):
        check_header(bytes(512))


def test_populate_token():
    asked = parse_populate_token(populate_data((1, 2), (1 << 40, 0), flags=0x01, timeout=7), 600)
    assert asked == (True, 7, RodType.POINT_IN_TIME_CHANGE_VULNERABLE, ((1, 2), (1 << 40, 0)))


@pytest.mark.parametrize(
    "asked_for, made",
    [
        (RodType.POINT_IN_TIME_DEFAULT, RodType.POINT_IN_TIME_DEFAULT),
        (RodType.POINT_IN_TIME_CHANGE_VULNERABLE, RodType.POINT_IN_TIME_CHANGE_VULNERABLE),
        (RodType.POINT_IN_TIME_ANY, RodType.POINT_IN_TIME_CHANGE_VULNERABLE),
    ],
)
def test_rod_types(asked_for, made):
    assert parse_populate_token(populate_data((0, 1), flags=2, rod_type=asked_for), 600).rod_type == made


@pytest.mark.parametrize(
    "rod_type", [0, RodType.ACCESS_UPON_REFERENCE, RodType.POINT_IN_TIME_PERSISTENT, RodType.BLOCK_DEVICE_ZERO]
)
def test_rod_types_that_are_not_made(rod_type):
    with pytest.raises(InvalidFieldInParameterList) as caught:
        parse_populate_token(populate_data((0, 1), flags=2, rod_type=rod_type), 600)
    assert pointer(caught.value) == (8, None)
    parse_populate_token(populate_data((0, 1), rod_type=rod_type), 600)  # RTV is zero: not looked at


def test_write_using_token():
    asked = parse_write_using_token(write_data(zero_token(), (5, 6), flags=0x02, offset=9))
    assert asked == (False, True, 9, zero_token(), ((5, 6),))


def _populate(data: bytes) -> object:
    return parse_populate_token(data, 600)


LISTS = [
    pytest.param(_populate, populate_data((1, 2), (8, 2)), POPULATE_HEADER, id="populate"),
    pytest.param(parse_write_using_token, write_data(zero_token(), (1, 2), (8, 2)), WRITE_HEADER, id="write"),
]


@pytest.mark.parametrize("parse, data, header", LISTS)
def test_cut_anywhere(parse, data, header):
    for length in range(header):
        with pytest.raises(ParameterListLengthError):
            parse(data[:length])
    for length in range(header, len(data) + 1):
        assert parse(data[:length]).ranges == ((1, 2), (8, 2))[: (length - header) // 16]
    assert parse(data + b"more").ranges == ((1, 2), (8, 2))


RESERVED = {
    "populate": [(2, 0xFC), (3, 0xFF), (12, 0xFF), (13, 0xFF), *((byte, 0xFF) for byte in range(28, 32))],
    "write": [
        (2, 0xFC),
        *((byte, 0xFF) for byte in (*range(3, 8), *range(528, 534), *range(548, 552), *range(564, 568))),
    ],
}


@pytest.mark.parametrize("parse, data, header", LISTS)
def test_reserved_bits(parse, data, header):
    for byte, mask in RESERVED["populate" if header == POPULATE_HEADER else "write"]:
        for bit in range(8):
            if mask & 1 << bit:
                wrong = bytearray(data)
                wrong[byte] |= 1 << bit
                with pytest.raises(InvalidFieldInParameterList) as caught:
                    parse(bytes(wrong))
                assert pointer(caught.value) == (byte, bit)


@pytest.mark.parametrize(
    "change, byte",
    [
        ({0: 0, 1: 29}, 0),  # too short for one range
        ({0: 0, 1: 45}, 14),  # shorter than the ranges
        ({14: 0, 15: 15}, 14),  # no complete range
        ({14: 0, 15: 0}, 14),
        ({14: 0xFF, 15: 0xFF}, 14),
        ({4: 0, 5: 0, 6: 0x02, 7: 0x59}, 4),  # 601 s
        ({4: 0xFF}, 4),
    ],
)
def test_populate_token_fields_that_lie(change, byte):
    data = bytearray(populate_data((1, 2), (8, 2)))
    for at, value in change.items():
        data[at] = value
    with pytest.raises(InvalidFieldInParameterList) as caught:
        parse_populate_token(bytes(data), 600)
    assert pointer(caught.value) == (byte, None)


@pytest.mark.parametrize("lengths", [(549, 15), (565, 32), (567, 32), (550, 32), (566, 16), (0, 0), (0xFFFF, 0xFFFF)])
def test_write_using_token_lengths_that_lie(lengths):
    data = bytearray(write_data(zero_token(), (1, 2), (8, 2)))
    data[:2], data[534:536] = lengths[0].to_bytes(2), lengths[1].to_bytes(2)
    with pytest.raises(InvalidFieldInParameterList) as caught:
        parse_write_using_token(bytes(data))
    assert pointer(caught.value) == (0, None)


def test_lengths_that_agree_and_promise_more_than_there_is():
    data = bytearray(write_data(zero_token(), (1, 2), (8, 2)))
    data[:2], data[534:536] = (534 + 64).to_bytes(2), (64).to_bytes(2)
    assert parse_write_using_token(bytes(data)).ranges == ((1, 2), (8, 2))


def test_too_many_ranges():
    many = [(2 * lba, 1) for lba in range(MAXIMUM_RANGES)]
    assert len(parse_populate_token(populate_data(*many), 600).ranges) == MAXIMUM_RANGES
    assert len(parse_write_using_token(write_data(zero_token(), *many)).ranges) == MAXIMUM_RANGES
    with pytest.raises(TooManySegmentDescriptors):
        parse_populate_token(populate_data(*many, (1 << 20, 1)), 600)
    with pytest.raises(TooManySegmentDescriptors):
        parse_write_using_token(write_data(zero_token(), *many, (1 << 20, 1)))


def test_ranges():
    def check(*ranges: tuple[int, int]) -> None:
        check_ranges([Range(*each) for each in ranges], 16, capacity=100, maximum=50)

    check((0, 10), (10, 10), (90, 10))
    check((5, 0), (1 << 60, 0), (0, 10), (5, 0))
    for ranges, information in (((0, 1), (99, 2)), 100), (((1 << 63, 1),), 1 << 63), (((100, 1),), 100):
        with pytest.raises(LbaOutOfRange) as beyond:
            check(*ranges)
        assert beyond.value.sense.information == information
    for ranges, byte in (
        (((0, 10), (20, 10), (9, 2)), 48),
        (((9, 2), (20, 10), (0, 10)), 48),
        (((0, 10), (0, 10)), 32),
        (((0, 30), (30, 20), (60, 1)), 56),
        (((0, 51),), 24),
    ):
        with pytest.raises(InvalidFieldInParameterList) as caught:
            check(*ranges)
        assert pointer(caught.value) == (byte, None)


def test_rod_token_descriptors():
    assert rod_token_descriptors([b"t" * 512]) == (514).to_bytes(4) + bytes(2) + b"t" * 512
    assert rod_token_descriptors([]) == bytes(4)


def test_all_rod_tokens():
    assert report_all_rod_tokens_data([]) == (4).to_bytes(4) + bytes(4)
    assert report_all_rod_tokens_data([b"a" * 96, b"b" * 96]) == (196).to_bytes(4) + bytes(4) + b"a" * 96 + b"b" * 96


def test_limits():
    limits = block_device_rod_limits(
        maximum_ranges=128, maximum_timeout=600, default_timeout=60, maximum_blocks=1 << 23, optimal_blocks=1 << 17
    )
    assert limits.hex() == (
        "00000020" "000000000000" "0080" "00000258" "0000003c" "0000000000800000" "0000000000020000"
    )  # fmt: skip
    features = rod_token_features(lifetime=3600, maximum_timeout=600, maximum_bytes=1 << 32, optimal_bytes=1 << 26)
    assert len(features) == 96
    assert features[:28].hex() == "0106005c" + "00" * 12 + "00000e1000000e1000000258"
    assert features[46:48].hex() == "0030"
    assert features[48:52].hex() == "0000002c"
    assert int.from_bytes(features[56:64]) == 1 << 32
    assert int.from_bytes(features[64:72]) == 1 << 26
    assert features[72:80] == b"\xff" * 8
    assert int.from_bytes(features[80:88]) == 1 << 26


def test_supported_types():
    data = supported_rod_types()
    assert data[:2].hex() == "0108"
    assert int.from_bytes(data[2:4]) == len(data) - 4
    assert int.from_bytes(data[6:8]) == len(data) - 8
    found = [(data[at : at + 4].hex(), data[at + 4]) for at in range(8, len(data), 64)]
    # TOKEN_IN is 02h, TOKEN_OUT 01h
    assert found == [("00800000", 3), ("00800001", 3), ("0080ffff", 0), ("ffff0001", 2)]
