"""Ethernet as FCoE uses it: EtherTypes, group addresses (FC-BB-5, FC-BB-6), 802.1Q tags, and how much a MTU carries.

An Ethernet frame here begins with the destination address and ends before the frame check sequence. A tag stands in it as it
does on the wire, between source address and EtherType.
"""

from __future__ import annotations

from struct import Struct

from tcm_fcoe.protocol.fcoe import MAX_DATA_FIELD, MAX_PDU_LENGTH, MIN_DATA_FIELD, MIN_PDU_LENGTH

ETHERTYPE_FCOE = 0x8906
ETHERTYPE_FIP = 0x8914
ETHERTYPE_VLAN = 0x8100
"""802.1Q: four bytes, then the EtherType of what is inside."""

HEADER_LENGTH = 14
"""Destination, source, EtherType."""
TAG_LENGTH = 4
MIN_FRAME_LENGTH = 60
"""Without the frame check sequence; shorter ones are padded."""
MAX_FRAME_LENGTH = HEADER_LENGTH + TAG_LENGTH + MAX_PDU_LENGTH
"""A full FC frame, tagged: 2,176 bytes, 2,180 with the frame check sequence."""

ALL_FCOE_MACS = bytes.fromhex("011018010000")
ALL_ENODE_MACS = bytes.fromhex("011018010001")
ALL_FCF_MACS = bytes.fromhex("011018010002")
ALL_VN2VN_ENODE_MACS = bytes.fromhex("011018010004")
ALL_P2P_ENODE_MACS = bytes.fromhex("011018010005")
BROADCAST = b"\xff" * 6

DEFAULT_PRIORITY = 3
"""Priority code point that DCB networks keep for FCoE."""
MIN_VLAN_ID, MAX_VLAN_ID = 1, 4094

FULL_MTU = MAX_PDU_LENGTH
"""The MTU that carries full FC frames: 2158."""
MIN_MTU = MIN_PDU_LENGTH + MIN_DATA_FIELD
"""The MTU below which no FC frame of the least allowed size fits: 302."""

_TAG = Struct(">HH")
_WORD = Struct(">H")


def receive_data_field_size(mtu: int) -> int:
    """The largest data field that frames of an interface carry, in bytes: a multiple of 4, at most 2112.

    :raises ValueError: fewer than the 256 bytes that every port has to take (FC-FS-3 clause 14).
    """
    size = min(mtu - MIN_PDU_LENGTH, MAX_DATA_FIELD) & ~3
    if size < MIN_DATA_FIELD:
        raise ValueError(f"MTU {mtu} carries data fields of {max(size, 0)} bytes; FC needs {MIN_DATA_FIELD}, MTU {MIN_MTU}")
    return size


def vlan_tag(vlan: int, priority: int = DEFAULT_PRIORITY) -> bytes:
    """The four bytes of a tag.

    :param vlan: 1 to 4094; 0 makes a priority tag, which belongs to no VLAN.
    :param priority: priority code point, 0 to 7.
    """
    if not 0 <= vlan <= MAX_VLAN_ID or not 0 <= priority <= 7:
        raise ValueError(f"no tag has VLAN {vlan} and priority {priority}; write a VLAN of {MIN_VLAN_ID} to {MAX_VLAN_ID}")
    return _TAG.pack(ETHERTYPE_VLAN, priority << 13 | vlan)


def insert_tag(frame: bytes, tag: bytes) -> bytes:
    """An untagged frame with a tag from :func:`vlan_tag`."""
    return frame[:12] + tag + frame[12:]


def split(frame: memoryview) -> tuple[int | None, int, int]:
    """VLAN, EtherType and where the payload begins.

    :return: the VLAN is ``None`` for an untagged frame, 0 for one with a priority tag. A frame that ends too early has
        EtherType 0, which nothing uses.
    """
    if len(frame) < HEADER_LENGTH:
        return None, 0, len(frame)
    (ethertype,) = _WORD.unpack_from(frame, 12)
    if ethertype != ETHERTYPE_VLAN:
        return None, ethertype, HEADER_LENGTH
    if len(frame) < HEADER_LENGTH + TAG_LENGTH:
        return None, 0, len(frame)
    tci, ethertype = _TAG.unpack_from(frame, 14)
    return tci & 0xFFF, ethertype, HEADER_LENGTH + TAG_LENGTH
