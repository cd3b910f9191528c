"""Names and addresses: every spelling that is one, and what is none (FC-FS-3 clauses 11, 15; FC-BB-5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_fcoe.protocol.names import (
    DEFAULT_FC_MAP,
    NO_NAME,
    VN2VN_FC_MAP,
    InvalidName,
    WellKnownAddress,
    colon_form,
    fabric_provided_mac,
    fc_id_of_mac,
    format_fc_id,
    is_multicast,
    is_valid_name,
    name_from_mac,
    parse_fc_id,
    parse_mac,
    parse_name,
)

NAME = bytes.fromhex("20005254002ffc00")
MAC = bytes.fromhex("5254002ffc00")


@pytest.mark.parametrize(
    "text",
    [
        "20:00:52:54:00:2f:fc:00",
        "20:00:52:54:00:2F:FC:00",
        "20-00-52-54-00-2f-fc-00",
        "naa.20005254002ffc00",
        "NAA.20005254002FFC00",
        "0x20005254002ffc00",
        "20005254002ffc00",
        " 20005254002ffc00 ",
    ],
)
def test_spellings_of_a_name(text):
    assert parse_name(text) == NAME


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20:00:52:54:00:2f:fc",
        "20:00:52:54:00:2f:fc:00:00",
        "20:00:52:54:00:2f:fc:0",
        "naa.20005254002ffc0",
        "naa.20005254002ffc000",
        "eui.20005254002ffc00",
        "0x20:00:52:54:00:2f:fc:00",
        "20005254002ffc0g",
        "iqn.2003-01.org.example:x",
        "\u0662" * 16,
        "20:00:52:54:00:2f:fc:00\n20",
    ],
)
def test_no_names(text):
    with pytest.raises(InvalidName, match="write eight pairs"):
        parse_name(text)


def test_zero_names_nobody():
    with pytest.raises(InvalidName, match="names nobody"):
        parse_name("00:00:00:00:00:00:00:00")
    assert not is_valid_name(NO_NAME)
    assert not is_valid_name(NAME[:7])
    assert is_valid_name(NAME)


@given(st.binary(min_size=8, max_size=8).filter(any))
def test_what_is_written_is_read(name: bytes):
    assert parse_name(colon_form(name)) == parse_name(f"naa.{name.hex()}") == parse_name(f"0x{name.hex()}") == name


def test_names_from_a_mac():
    """As Linux makes them: see the golden trace."""
    assert name_from_mac(MAC) == NAME
    assert name_from_mac(MAC, naa=1) == bytes.fromhex("10005254002ffc00")
    assert name_from_mac(MAC, qualifier=0x123) == bytes.fromhex("21235254002ffc00")
    for naa, qualifier in ((3, 0), (2, 0x1000), (2, -1), (1, 1)):
        with pytest.raises(InvalidName):
            name_from_mac(MAC, naa=naa, qualifier=qualifier)


def test_macs():
    assert parse_mac("52:54:00:2F:fc:00") == parse_mac("52-54-00-2f-fc-00") == MAC
    assert colon_form(MAC) == "52:54:00:2f:fc:00"
    for text in ("", "52:54:00:2f:fc", "5254.002f.fc00", "52:54:00:2f:fc:0g"):
        with pytest.raises(InvalidName, match="write six pairs"):
            parse_mac(text)
    assert is_multicast(bytes.fromhex("011018010004"))
    assert not is_multicast(MAC)


def test_fc_ids():
    assert parse_fc_id("00.fc.00") == parse_fc_id("0x00fc00") == parse_fc_id("00FC00") == 0x00FC00
    assert format_fc_id(0x00FC00) == "00.fc.00"
    for text in ("", "fc00", "00.fc.00.00", "zz.zz.zz", "0x00fc0"):
        with pytest.raises(InvalidName, match="write six hex digits"):
            parse_fc_id(text)


@given(st.integers(0, 0xFFFFFF))
def test_fabric_provided_macs(fc_id: int):
    assert fc_id_of_mac(fabric_provided_mac(fc_id)) == fc_id
    assert fabric_provided_mac(fc_id)[:3] == DEFAULT_FC_MAP.to_bytes(3, "big")
    assert fabric_provided_mac(fc_id, VN2VN_FC_MAP)[:3] == bytes.fromhex("0efd00")
    assert not is_multicast(fabric_provided_mac(fc_id))
    assert parse_fc_id(format_fc_id(fc_id)) == fc_id


def test_well_known_addresses():
    assert WellKnownAddress.FABRIC_LOGIN_SERVER == 0xFFFFFE
    assert fabric_provided_mac(WellKnownAddress.FABRIC_LOGIN_SERVER) == bytes.fromhex("0efc00fffffe")
