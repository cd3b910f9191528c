"""FIP PDUs (FC-BB-5 7.10): the golden trace byte for byte, and everything that is none."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fcoe_capture import FIP, captured
from tcm_fcoe.protocol import fip
from tcm_fcoe.protocol.fip import (
    CONTENTS,
    LAYOUTS,
    Elp,
    Encapsulated,
    Fabric,
    Fc4Attributes,
    FcMap,
    Fdisc,
    FipError,
    FipPdu,
    FkaAdvPeriod,
    Flag,
    Flogi,
    Logo,
    MacAddress,
    MaxFcoeSize,
    NameIdentifier,
    Pdu,
    Priority,
    Unknown,
    VendorId,
    Vlan,
    VxPort,
)

GOLDEN = {number: each.ethernet for number, each in enumerate(captured(), 1) if each.ether_type == FIP}
MAC, OTHER_MAC = bytes.fromhex("5254002ffc00"), bytes.fromhex("525400f59700")
NODE, PORT = bytes.fromhex("10005254002ffc00"), bytes.fromhex("20005254002ffc00")
FRAME = bytes(24) + b"\4\0\0\0"

EXAMPLES = {
    each.code: each
    for each in (
        Priority(200),
        MacAddress(MAC),
        FcMap(0x0EFC00),
        NameIdentifier(NODE),
        Fabric(0x123, 0x0EFC00, NODE),
        MaxFcoeSize(2158),
        Flogi(FRAME),
        Fdisc(FRAME),
        Logo(FRAME),
        Elp(FRAME),
        VxPort(OTHER_MAC, 0x010203, PORT),
        FkaAdvPeriod(8000, no_keep_alives=True),
        VendorId(b"tcm     "),
        Vlan(0xFFE),
        Fc4Attributes(bytes(range(32)), bytes(range(128))),
    )
}


def decode(data: bytes) -> FipPdu:
    return fip.decode(memoryview(data))


def counter_of(data: bytes) -> str:
    with pytest.raises(FipError) as caught:
        decode(data)
    return caught.value.counter


def wire(pdu: Pdu, *descriptors: bytes, words: int | None = None, version: int = 0x10, flags: int = 0) -> bytes:
    body = b"".join(descriptors)
    return struct.pack(">BxHxBHH", version, *pdu.value, len(body) // 4 if words is None else words, flags) + body


def descriptor(kind: int, words: int, body: bytes = b"") -> bytes:
    return bytes((kind, words)) + body.ljust(words * 4 - 2, b"\0")


def pdus() -> list[FipPdu]:
    """One of each operation, with all that it may have."""
    found = []
    for pdu, contents in CONTENTS.items():
        for one in contents.any_of or [0]:
            kinds = sorted(contents.required | contents.optional | contents.repeated | ({one} - {0}))
            found.append(FipPdu(pdu, tuple(EXAMPLES[kind] for kind in kinds), Flag.FPMA | Flag.SOLICITED))
    return found


MAC_BYTES = descriptor(2, 2, MAC)


# The golden trace


@pytest.mark.parametrize("number", GOLDEN)
def test_golden_frame(number):
    payload = GOLDEN[number][14:]
    pdu = decode(payload)
    assert fip.encode(pdu, len(payload)) == payload


def test_golden_claim():
    pdu = decode(GOLDEN[3][14:])
    assert pdu.pdu is Pdu.CLAIM_NOTIFICATION
    assert pdu.get(MacAddress).address == MAC
    assert pdu.get(NameIdentifier).name == NODE
    assert pdu.get(VxPort) == VxPort(bytes.fromhex("0efd0000fc00"), 0x00FC00, PORT)
    assert pdu.get(MaxFcoeSize).size == 2158
    attributes = pdu.get(Fc4Attributes)
    assert attributes.types[2] == 1  # FCP, 08h: bit 0 of byte 2
    assert attributes.features[7] == 3  # target and initiator


def test_golden_flogi():
    pdu = decode(GOLDEN[11][14:])
    assert pdu.pdu is Pdu.VIRTUAL_LINK_REQUEST
    assert pdu.get(Encapsulated).frame[24] == 0x04
    assert len(pdu.get(Flogi).frame) == 140


# Every operation


@pytest.mark.parametrize("pdu", pdus(), ids=lambda pdu: pdu.pdu.name)
def test_round_trip(pdu):
    data = fip.encode(pdu)
    assert len(data) >= 46
    assert decode(data) == pdu
    assert decode(data + bytes(2000)) == pdu


def test_every_descriptor_has_an_example():
    assert LAYOUTS.keys() == EXAMPLES.keys()
    assert all(layout.kind is type(EXAMPLES[kind]) for kind, layout in LAYOUTS.items())


@pytest.mark.parametrize("pdu", pdus(), ids=lambda pdu: pdu.pdu.name)
def test_cut_at_every_byte(pdu):
    """What is cut is a FipError or, beyond the last descriptor, padding."""
    data = fip.encode(pdu, 0)
    for length in range(len(data)):
        assert counter_of(data[:length]) == "fip_malformed"


@pytest.mark.parametrize("pdu", pdus(), ids=lambda pdu: pdu.pdu.name)
def test_required_descriptors(pdu):
    contents = CONTENTS[pdu.pdu]
    for kind in contents.required | contents.any_of:
        rest = tuple(each for each in pdu.descriptors if each.code != kind)
        if len(rest) < len(pdu.descriptors):
            assert counter_of(fip.encode(FipPdu(pdu.pdu, rest))) == "fip_missing_descriptor"


@pytest.mark.parametrize("pdu", pdus(), ids=lambda pdu: pdu.pdu.name)
def test_duplicate_descriptors(pdu):
    for each in pdu.descriptors:
        data = fip.encode(FipPdu(pdu.pdu, (*pdu.descriptors, each)))
        if each.code in CONTENTS[pdu.pdu].repeated:
            assert len(decode(data).all(type(each))) == 2
        else:
            assert counter_of(data) == "fip_duplicate_descriptor"


@pytest.mark.parametrize("pdu", pdus(), ids=lambda pdu: pdu.pdu.name)
def test_descriptors_of_other_operations(pdu):
    contents = CONTENTS[pdu.pdu]
    allowed = contents.required | contents.optional | contents.repeated | contents.any_of
    for kind, example in EXAMPLES.items():
        if kind not in allowed:
            assert counter_of(fip.encode(FipPdu(pdu.pdu, (*pdu.descriptors, example)))) == "fip_unexpected_descriptor"


def test_two_kinds_of_frame():
    both = FipPdu(Pdu.VIRTUAL_LINK_REQUEST, (Flogi(FRAME), Fdisc(FRAME), MacAddress(MAC)))
    assert counter_of(fip.encode(both)) == "fip_missing_descriptor"


# What is none


def test_length_zero():
    assert counter_of(wire(Pdu.VLAN_REQUEST, MAC_BYTES, descriptor(200, 1)[:1] + bytes(3))) == "fip_malformed"
    assert counter_of(wire(Pdu.VLAN_REQUEST, bytes((2, 0)) + MAC)) == "fip_malformed"


def test_past_the_end():
    assert counter_of(wire(Pdu.VLAN_REQUEST, MAC_BYTES, bytes((4, 4)) + bytes(10))) == "fip_malformed"
    assert counter_of(wire(Pdu.VLAN_REQUEST, bytes((2, 255)) + MAC, words=2) + bytes(2000)) == "fip_malformed"
    assert counter_of(wire(Pdu.VLAN_REQUEST, MAC_BYTES, words=0xFFFF)) == "fip_malformed"


@pytest.mark.parametrize("kind", [kind for kind, layout in LAYOUTS.items() if layout.words])
def test_wrong_length(kind):
    words = LAYOUTS[kind].words
    for wrong in {1, words - 1, words + 1, 60} - {0, words}:
        assert counter_of(wire(Pdu.VLAN_REQUEST, descriptor(kind, wrong), MAC_BYTES)) == "fip_malformed"


def test_frames_too_short():
    for words in range(1, 8):
        assert counter_of(wire(Pdu.VIRTUAL_LINK_REQUEST, descriptor(7, words), MAC_BYTES)) == "fip_malformed"
    assert decode(wire(Pdu.VIRTUAL_LINK_REQUEST, descriptor(7, 8), MAC_BYTES)).get(Flogi).frame == bytes(28)


@pytest.mark.parametrize("kind", [0, 16, 127])
def test_unknown_critical(kind):
    assert counter_of(wire(Pdu.VLAN_REQUEST, MAC_BYTES, descriptor(kind, 1))) == "fip_unknown_descriptor"


@pytest.mark.parametrize("kind", [128, 241, 255])
def test_unknown_not_critical(kind):
    data = wire(Pdu.VLAN_REQUEST, MAC_BYTES, descriptor(kind, 3, b"1234567890"), descriptor(kind, 1))
    pdu = decode(data)
    assert pdu.descriptors[1] == Unknown(kind, b"1234567890")
    assert fip.encode(pdu, 0) == data


@pytest.mark.parametrize(("operation", "subcode"), [(0, 1), (1, 0), (1, 3), (4, 4), (5, 6), (6, 1), (0xFFF8, 1)])
def test_unknown_operation(operation, subcode):
    data = struct.pack(">BxHxBHH", 0x10, operation, subcode, 2, 0) + MAC_BYTES
    assert counter_of(data) == "fip_unsupported"


@pytest.mark.parametrize("version", [0x00, 0x20, 0xF0])
def test_version(version):
    assert counter_of(wire(Pdu.VLAN_REQUEST, MAC_BYTES, version=version)) == "fip_version"


def test_reserved_bits_are_ignored():
    data = bytearray(wire(Pdu.VLAN_REQUEST, MAC_BYTES, flags=0x3F00))
    data[0] |= 0x0F
    data[1] = data[4] = 0xFF
    assert decode(bytes(data)).get(MacAddress).address == MAC


def test_no_descriptors():
    assert counter_of(wire(Pdu.VLAN_REQUEST)) == "fip_missing_descriptor"


@given(st.binary(max_size=200))
def test_any_bytes(data):
    with contextlib.suppress(FipError):
        decode(data)


@given(st.sampled_from(pdus()), st.integers(0, 400), st.integers(0, 255))
def test_any_byte_changed(pdu, at, value):
    """A PDU with one wrong byte is refused, or encodes to the same descriptors again."""
    data = bytearray(fip.encode(pdu, 0))
    data[at % len(data)] = value
    with contextlib.suppress(FipError):
        assert decode(fip.encode(decode(bytes(data)), 0)) == decode(bytes(data))
