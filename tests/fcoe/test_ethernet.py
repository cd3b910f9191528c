"""802.1Q tags and what a MTU carries."""

from __future__ import annotations

import pytest
from tcm_fcoe.protocol.ethernet import (
    ETHERTYPE_FCOE,
    ETHERTYPE_FIP,
    FULL_MTU,
    MAX_FRAME_LENGTH,
    MIN_MTU,
    insert_tag,
    receive_data_field_size,
    split,
    vlan_tag,
)

ADDRESSES = bytes.fromhex("011018010002525400aabbcc")


def test_full_frames() -> None:
    """2,112 bytes of data, FC header, CRC, FCoE's own 18 bytes: 2,158; 22 of Ethernet's around them."""
    assert FULL_MTU == 2158
    assert MAX_FRAME_LENGTH + 4 == 2180


@pytest.mark.parametrize(("mtu", "size"), [(9000, 2112), (2158, 2112), (2157, 2108), (1500, 1452), (302, 256)])
def test_receive_data_field_size(mtu: int, size: int) -> None:
    assert receive_data_field_size(mtu) == size


@pytest.mark.parametrize("mtu", [MIN_MTU - 1, 46, 0])
def test_receive_data_field_size_too_small(mtu: int) -> None:
    with pytest.raises(ValueError, match=f"MTU {mtu}.*302"):
        receive_data_field_size(mtu)


@pytest.mark.parametrize(("vlan", "priority"), [(1, 3), (4094, 7), (0, 0), (100, 5)])
@pytest.mark.parametrize("ethertype", [ETHERTYPE_FCOE, ETHERTYPE_FIP])
def test_tag(vlan: int, priority: int, ethertype: int) -> None:
    plain = ADDRESSES + ethertype.to_bytes(2, "big") + b"contents"
    tagged = insert_tag(plain, vlan_tag(vlan, priority))
    assert len(tagged) == len(plain) + 4
    assert tagged[14] >> 5 == priority
    assert split(memoryview(plain)) == (None, ethertype, 14)
    assert split(memoryview(tagged)) == (vlan, ethertype, 18)


def test_priority_and_drop_eligible_bits_are_not_part_of_the_vlan() -> None:
    assert split(memoryview(ADDRESSES + bytes.fromhex("8100f0658906"))) == (0x065, ETHERTYPE_FCOE, 18)


def test_frames_cut_anywhere() -> None:
    tagged = insert_tag(ADDRESSES + bytes.fromhex("8906"), vlan_tag(5))
    for length in range(len(tagged)):
        vlan, ethertype, begin = split(memoryview(tagged[:length]))
        assert (vlan, ethertype, begin) == (None, 0, length)


@pytest.mark.parametrize(("vlan", "priority"), [(4095, 3), (-1, 3), (5, 8)])
def test_tag_out_of_range(vlan: int, priority: int) -> None:
    with pytest.raises(ValueError, match="write a VLAN of 1 to 4094"):
        vlan_tag(vlan, priority)
