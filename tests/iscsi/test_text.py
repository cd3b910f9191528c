"""Text format: RFC 7143 6.1."""

from __future__ import annotations

import sys
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_iscsi.protocol import text
from tcm_iscsi.protocol.text import TextAssembler, TextError


def test_parse_pairs() -> None:
    """In order; a value may be empty and may hold '='."""
    data = b"TargetAlias=a disk \xc3\xa9\0SendTargets=\0CHAP_C=0bAA==\0iSCSIProtocolLevel=2\0X#NodeArchitecture=x\0"
    pairs = [
        ("TargetAlias", "a disk é"),
        ("SendTargets", ""),
        ("CHAP_C", "0bAA=="),
        ("iSCSIProtocolLevel", "2"),
        ("X#NodeArchitecture", "x"),
    ]
    assert text.parse(data) == pairs
    assert text.parse(memoryview(bytearray(data))) == pairs
    assert text.encode(pairs) == data
    assert text.parse(b"") == []


@pytest.mark.parametrize(
    "data",
    [
        b"A",
        b"A=1",
        b"A=1\0B=2",
        b"A\0",
        b"=1\0",
        b"\0",
        b"A=1\0\0",
        b"\0A=1\0",
        b"9=1\0",
        b"A b=1\0",
        b" A=1\0",
        b"A,=1\0",
        b"A=1\0A=1\0",
        b"A=\xff\0",
        b"\xc3\xa9=1\0",
        b"A=1\n\0",
        b"A=\x7f\0",
        b"K" * 64 + b"=1\0",
        b"A=1\0" + b"".join(b"K%d=\0" % i for i in range(text.MAX_PAIRS)),
    ],
)
def test_parse_refuses(data: bytes) -> None:
    """RFC 7143 6.1: what is not a sequence of key=value pairs, each with a NUL."""
    with pytest.raises(TextError) as caught:
        text.parse(data)
    assert "\n" not in str(caught.value)


def test_parse_limits() -> None:
    """63 characters of key are allowed; duplicates only where they are wanted."""
    assert text.parse(b"K" * 63 + b"=1\0") == [("K" * 63, "1")]
    twice = b"TargetAddress=a\0TargetAddress=b\0"
    assert text.parse(twice, {"TargetAddress"}) == [("TargetAddress", "a"), ("TargetAddress", "b")]


@given(st.binary(max_size=300))
def test_parse_any_bytes(data: bytes) -> None:
    """Invariant: pairs that encode to the same bytes, or TextError."""
    try:
        pairs = text.parse(data)
    except TextError:
        return
    assert text.encode(pairs) == data


@given(st.lists(st.integers(0, 40), max_size=5))
def test_assembler_any_pieces(cuts: list[int]) -> None:
    """Text may be cut anywhere, whole and byte by byte included."""
    data = b"InitialR2T=No\0FirstBurstLength=65536\0"
    assembler = TextAssembler()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(bounds):
        assembler.add(data[start:end])
    assert assembler.take() == [("InitialR2T", "No"), ("FirstBurstLength", "65536")]
    assert assembler.empty
    for byte in data:
        assembler.add(bytes((byte,)))
    assert len(assembler.take()) == 2


def test_assembler_is_bounded() -> None:
    """10 MiB of text never takes more memory than 64 KiB of text."""
    piece = bytes(8192)
    assembler = TextAssembler()
    refused = 0
    tracemalloc.start()
    for _ in range(10 * 128):
        try:
            assembler.add(piece)
        except TextError:
            refused += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused >= 10 * 128 // 9 - 1
    assert peak < 3 * text.MAX_TEXT_LENGTH
    exact = TextAssembler()
    exact.add(bytes(text.MAX_TEXT_LENGTH))
    with pytest.raises(TextError):
        exact.add(b"1")
    assert exact.empty


@pytest.mark.parametrize(
    ("value", "number"), [("0", 0), ("10", 10), ("0x10", 16), ("0XfF", 255), ("18446744073709551615", 2**64 - 1)]
)
def test_number(value: str, number: int) -> None:
    """RFC 7143 6.1: decimal-constant, hex-constant."""
    assert text.parse_number(value) == number


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-1",
        "+1",
        "01",
        "1 ",
        " 1",
        "1.0",
        "0x",
        "0xg",
        "1e3",
        "1_0",
        "٣",
        "18446744073709551616",
        "0x1" + "0" * 16,
        "9" * 5000,
        "0b10",
    ],
)
def test_number_refused(value: str) -> None:
    """Nothing else is a number, whatever int() thinks."""
    with pytest.raises(TextError):
        text.parse_number(value)
    assert sys.get_int_max_str_digits() > 0


@pytest.mark.parametrize("value", ["yes", "YES", "1", "", "Yes ", "no", "true", "Irrelevant"])
def test_boolean_refused(value: str) -> None:
    """Yes and No, with just these letters."""
    with pytest.raises(TextError):
        text.parse_boolean(value)
    assert text.parse_boolean("Yes") is True
    assert text.parse_boolean("No") is False
    assert [text.format_boolean(v) for v in (True, False)] == ["Yes", "No"]


def test_range() -> None:
    """numeric-range: low~high."""
    assert text.parse_range("512~0x400") == (512, 1024)
    for wrong in ("512", "512~", "~512", "2~1", "1~2~3", "a~b"):
        with pytest.raises(TextError):
            text.parse_range(wrong)


def test_list() -> None:
    """list-of-values: no item empty, none twice."""
    assert text.parse_list("CRC32C,None") == ["CRC32C", "None"]
    assert text.parse_list("None") == ["None"]
    for wrong in ("", ",", "None,", ",None", "None,None", "None, CRC32C", "a=b"):
        with pytest.raises(TextError):
            text.parse_list(wrong)


@pytest.mark.parametrize(
    ("value", "data"), [("0x00", b"\0"), ("0XAbcd", b"\xab\xcd"), ("0bAQID", b"\1\2\3"), ("0BAQ==", b"\1"), ("0bAQI=", b"\1\2")]
)
def test_binary(value: str, data: bytes) -> None:
    """large-binary-value: hexadecimal and Base64."""
    assert text.parse_binary(value, 16) == data
    assert text.parse_binary(text.format_binary(data), 16) == data


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0x",
        "0b",
        "0x0",
        "0x000",
        "0xzz",
        "12",
        "0bA",
        "0bAQ=",
        "0b====",
        "0bAQ==AQ==",
        "0x" + "00" * 17,
        "0b" + "A" * 64,
        "x00",
    ],
)
def test_binary_refused(value: str) -> None:
    """Odd numbers of digits, empty, too long."""
    with pytest.raises(TextError):
        text.parse_binary(value, 16)


@given(st.binary(min_size=1, max_size=1024))
def test_binary_round_trip(data: bytes) -> None:
    """format and parse are inverses."""
    assert text.parse_binary(text.format_binary(data), 1024) == data
