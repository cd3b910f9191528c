"""FIP, the FCoE Initialization Protocol: PDUs and descriptors (FC-BB-5 7.10, with the VN2VN operation of FC-BB-6).

Two tables say all there is to say: :data:`LAYOUTS` how each descriptor looks, :data:`CONTENTS` which ones each operation has.
:func:`decode` gives PDUs that hold what their operation requires, each descriptor once unless it may repeat; anything else is a
:class:`FipError`, whose ``counter`` names the statistic it belongs to.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, TypeVar

VERSION = 1
WORD = 4
"""Bytes of the unit that lengths are counted in."""
CRITICAL = 128
"""Descriptor types below: a PDU with one that is not known, or not expected, is discarded; others are ignored (7.10.6)."""
HEADER = struct.Struct(">BxHxBHH")
"""Version in the upper four bits, operation, subcode, length of the descriptors in words, flags."""
MIN_PAYLOAD = 46
"""Bytes that an Ethernet frame carries at least."""
ETHERTYPE = b"\x89\x14"


class Pdu(enum.Enum):
    """Operation code and subcode (7.10.5)."""

    SOLICITATION = (1, 1)
    ADVERTISEMENT = (1, 2)
    VIRTUAL_LINK_REQUEST = (2, 1)
    """FLOGI, FDISC, LOGO or ELP."""
    VIRTUAL_LINK_REPLY = (2, 2)
    """LS_ACC or LS_RJT to them."""
    KEEP_ALIVE = (3, 1)
    CLEAR_VIRTUAL_LINKS = (3, 2)
    VLAN_REQUEST = (4, 1)
    VLAN_NOTIFICATION = (4, 2)
    VN2VN_VLAN_NOTIFICATION = (4, 3)
    PROBE_REQUEST = (5, 1)
    PROBE_REPLY = (5, 2)
    CLAIM_NOTIFICATION = (5, 3)
    CLAIM_RESPONSE = (5, 4)
    BEACON = (5, 5)


_PDUS = {pdu.value: pdu for pdu in Pdu}


class Flag(enum.IntFlag):
    """Flags of the header (7.10.5)."""

    FPMA = 0x8000
    """Fabric-provided MAC addresses are supported (in a solicitation), used or granted."""
    SPMA = 0x4000
    """The same of server-provided ones."""
    REC_P2P = 0x0008
    """VN2VN: the address that a probe or a claim is about has been recorded; in a beacon: point-to-point."""
    AVAILABLE = 0x0004
    """A: the FCF takes FLOGIs."""
    SOLICITED = 0x0002
    """S: the advertisement answers a solicitation."""
    FCF = 0x0001
    """F: an FCF's, not an ENode's."""


NO_FLAGS = Flag(0)


class FipError(Exception):
    """A FIP frame that is discarded.

    :param counter: the name of the statistic that counts it.
    """

    def __init__(self, counter: str, text: str) -> None:
        super().__init__(text)
        self.counter = counter


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What all descriptors have: a type code."""

    code: ClassVar[int]


@dataclass(frozen=True, slots=True)
class Priority(Descriptor):
    """Of an FCF: the least is preferred (7.10.6.2)."""

    code: ClassVar[int] = 1
    priority: int = 128


@dataclass(frozen=True, slots=True)
class MacAddress(Descriptor):
    """Six bytes: the sender's, or what is proposed or granted (7.10.6.3)."""

    code: ClassVar[int] = 2
    address: bytes


@dataclass(frozen=True, slots=True)
class FcMap(Descriptor):
    """The 24 bits that fabric-provided MAC addresses begin with (7.10.6.4)."""

    code: ClassVar[int] = 3
    fc_map: int


@dataclass(frozen=True, slots=True)
class NameIdentifier(Descriptor):
    """Eight bytes: node or switch name (7.10.6.5)."""

    code: ClassVar[int] = 4
    name: bytes


@dataclass(frozen=True, slots=True)
class Fabric(Descriptor):
    """What fabric an FCF belongs to (7.10.6.6)."""

    code: ClassVar[int] = 5
    vf_id: int
    fc_map: int
    name: bytes


@dataclass(frozen=True, slots=True)
class MaxFcoeSize(Descriptor):
    """Bytes of the greatest FCoE PDU, from version to EOF and what follows it (7.10.6.7)."""

    code: ClassVar[int] = 6
    size: int


@dataclass(frozen=True, slots=True)
class Encapsulated(Descriptor):
    """A Fibre Channel frame without SOF, CRC and EOF (7.10.6.8 and on)."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Flogi(Encapsulated):
    """FLOGI, or the response to one."""

    code: ClassVar[int] = 7


@dataclass(frozen=True, slots=True)
class Fdisc(Encapsulated):
    """Fabric discovery for one more N_Port, or the response to it."""

    code: ClassVar[int] = 8


@dataclass(frozen=True, slots=True)
class Logo(Encapsulated):
    """Logout, or the response to it."""

    code: ClassVar[int] = 9


@dataclass(frozen=True, slots=True)
class Elp(Encapsulated):
    """Exchange link parameters, between switches."""

    code: ClassVar[int] = 10


@dataclass(frozen=True, slots=True)
class VxPort(Descriptor):
    """A VN_Port, or a VF_Port (7.10.6.12)."""

    code: ClassVar[int] = 11
    address: bytes
    fc_id: int
    port_name: bytes


@dataclass(frozen=True, slots=True)
class FkaAdvPeriod(Descriptor):
    """Milliseconds between advertisements and between keep-alives (7.10.6.13)."""

    code: ClassVar[int] = 12
    period: int
    no_keep_alives: bool = False
    """D bit: the FCF does not look for keep-alives."""


@dataclass(frozen=True, slots=True)
class VendorId(Descriptor):
    """Eight bytes of a vendor's name, as in SPC's T10 vendor identification (7.10.6.14)."""

    code: ClassVar[int] = 13
    identifier: bytes


@dataclass(frozen=True, slots=True)
class Vlan(Descriptor):
    """A VLAN that carries FCoE; 0 is the untagged one (7.10.6.15)."""

    code: ClassVar[int] = 14
    vlan: int


@dataclass(frozen=True, slots=True)
class Fc4Attributes(Descriptor):
    """FC-4 types and features as the name server has them (FC-BB-6, FC-GS)."""

    code: ClassVar[int] = 15
    types: bytes
    """32 bytes, one bit a type."""
    features: bytes
    """128 bytes, four bits a type."""


@dataclass(frozen=True, slots=True)
class Unknown(Descriptor):
    """A descriptor that is not critical and is not looked at."""

    type: int
    body: bytes
    """Without type and length; two bytes more than a multiple of four."""


D = TypeVar("D", bound=Descriptor)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a descriptor looks on the wire."""

    kind: type[Descriptor]
    words: int
    """0: as long as the frame in it."""
    unpack: Callable[[memoryview], tuple[object, ...]]
    """From all bytes of the descriptor to the fields of ``kind``."""
    pack: Callable[..., bytes]
    """From the fields to the bytes after type and length."""


def _fc_id(data: memoryview) -> int:
    return int.from_bytes(data, "big")


def _vlan(data: memoryview) -> int:
    return ((data[2] << 8) | data[3]) & 0xFFF


_RESERVED = bytes(2)


def _encapsulated(kind: type[Encapsulated]) -> Layout:
    return Layout(kind, 0, lambda d: (bytes(d[4:]),), lambda frame: _RESERVED + frame)


LAYOUTS: dict[int, Layout] = {
    layout.kind.code: layout
    for layout in (
        Layout(Priority, 1, lambda d: (d[3],), lambda priority: bytes((0, priority))),
        Layout(MacAddress, 2, lambda d: (bytes(d[2:8]),), lambda address: address),
        Layout(FcMap, 2, lambda d: (_fc_id(d[5:8]),), lambda fc_map: bytes(3) + fc_map.to_bytes(3, "big")),
        Layout(NameIdentifier, 3, lambda d: (bytes(d[4:12]),), lambda name: _RESERVED + name),
        Layout(
            Fabric,
            4,
            lambda d: (_fc_id(d[2:4]), _fc_id(d[5:8]), bytes(d[8:16])),
            lambda vf_id, fc_map, name: vf_id.to_bytes(2, "big") + b"\0" + fc_map.to_bytes(3, "big") + name,
        ),
        Layout(MaxFcoeSize, 1, lambda d: (_fc_id(d[2:4]),), lambda size: size.to_bytes(2, "big")),
        _encapsulated(Flogi),
        _encapsulated(Fdisc),
        _encapsulated(Logo),
        _encapsulated(Elp),
        Layout(
            VxPort,
            5,
            lambda d: (bytes(d[2:8]), _fc_id(d[9:12]), bytes(d[12:20])),
            lambda address, fc_id, name: address + b"\0" + fc_id.to_bytes(3, "big") + name,
        ),
        Layout(
            FkaAdvPeriod,
            2,
            lambda d: (_fc_id(d[4:8]), bool(d[3] & 1)),
            lambda period, none: bytes((0, none)) + period.to_bytes(4, "big"),
        ),
        Layout(VendorId, 3, lambda d: (bytes(d[4:12]),), lambda identifier: _RESERVED + identifier),
        Layout(Vlan, 1, lambda d: (_vlan(d),), lambda vlan: vlan.to_bytes(2, "big")),
        Layout(
            Fc4Attributes,
            41,
            lambda d: (bytes(d[4:36]), bytes(d[36:164])),
            lambda types, features: _RESERVED + types + features,
        ),
    )
}
"""By descriptor type."""

FC_HEADER = 24
ENCAPSULATED_MIN_WORDS = 1 + FC_HEADER // WORD + 1
"""Type and length, a frame header, and one word of payload, which has the ELS command code."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Which critical descriptors the PDUs of an operation have (7.10.7)."""

    required: frozenset[int]
    optional: frozenset[int] = frozenset()
    repeated: frozenset[int] = frozenset()
    """As many as there are, none included."""
    any_of: frozenset[int] = frozenset()
    """Exactly one of these."""


def _types(*kinds: type[Descriptor]) -> frozenset[int]:
    return frozenset(kind.code for kind in kinds)


_ELS = _types(Flogi, Fdisc, Logo, Elp)
_VN_PORT = _types(MacAddress, NameIdentifier, VxPort)
_CLAIM = _VN_PORT | _types(Fc4Attributes, MaxFcoeSize)

CONTENTS: dict[Pdu, Contents] = {
    Pdu.SOLICITATION: Contents(_types(MacAddress, NameIdentifier, MaxFcoeSize), _types(FcMap)),
    Pdu.ADVERTISEMENT: Contents(_types(Priority, MacAddress, NameIdentifier, Fabric, FkaAdvPeriod)),
    Pdu.VIRTUAL_LINK_REQUEST: Contents(_types(MacAddress), any_of=_ELS),
    # LS_RJT has no MAC address; some FCFs send two: the granted one, then the one that FCoE goes to
    Pdu.VIRTUAL_LINK_REPLY: Contents(frozenset(), repeated=_types(MacAddress), any_of=_ELS),
    Pdu.KEEP_ALIVE: Contents(_types(MacAddress), _types(VxPort)),
    Pdu.CLEAR_VIRTUAL_LINKS: Contents(_types(MacAddress, NameIdentifier), repeated=_types(VxPort)),
    Pdu.VLAN_REQUEST: Contents(_types(MacAddress), _types(NameIdentifier)),
    Pdu.VLAN_NOTIFICATION: Contents(_types(MacAddress), repeated=_types(Vlan)),
    Pdu.VN2VN_VLAN_NOTIFICATION: Contents(_types(MacAddress), repeated=_types(Vlan)),
    Pdu.PROBE_REQUEST: Contents(_VN_PORT),
    Pdu.PROBE_REPLY: Contents(_VN_PORT),
    Pdu.CLAIM_NOTIFICATION: Contents(_CLAIM),
    Pdu.CLAIM_RESPONSE: Contents(_CLAIM),
    Pdu.BEACON: Contents(_VN_PORT),
}


@dataclass(frozen=True, slots=True)
class FipPdu:
    """One FIP PDU, without Ethernet header and padding."""

    pdu: Pdu
    descriptors: tuple[Descriptor, ...]
    flags: Flag = NO_FLAGS

    def find(self, kind: type[D]) -> D | None:
        """The first descriptor of a kind; its subclasses included."""
        for each in self.descriptors:
            if isinstance(each, kind):
                return each
        return None

    def get(self, kind: type[D]) -> D:
        """A descriptor that PDUs of this operation have."""
        found = self.find(kind)
        if found is None:
            raise FipError("fip_missing_descriptor", f"{self.pdu.name.lower()} without {kind.__name__}")
        return found

    def all(self, kind: type[D]) -> list[D]:
        """All descriptors of a kind, in order."""
        return [each for each in self.descriptors if isinstance(each, kind)]


def encode(pdu: FipPdu, size: int = MIN_PAYLOAD) -> bytes:
    """The PDU, with zeros behind it up to ``size`` bytes."""
    parts = []
    for each in pdu.descriptors:
        if isinstance(each, Unknown):
            kind, body = each.type, each.body
        else:
            kind = each.code
            layout = LAYOUTS[kind]
            body = layout.pack(*(getattr(each, field.name) for field in fields(each)))
        parts.append(bytes((kind, (2 + len(body)) // WORD)) + body)
    descriptors = b"".join(parts)
    operation, subcode = pdu.pdu.value
    header = HEADER.pack(VERSION << 4, operation, subcode, len(descriptors) // WORD, pdu.flags)
    return (header + descriptors).ljust(size, b"\0")


def _descriptor(data: memoryview) -> Descriptor:
    kind, words = data[0], data[1]
    layout = LAYOUTS.get(kind)
    if layout is None:
        if kind < CRITICAL:
            raise FipError("fip_unknown_descriptor", f"critical descriptor of unknown type {kind}")
        return Unknown(kind, bytes(data[2:]))
    if layout.words not in (0, words) or (not layout.words and words < ENCAPSULATED_MIN_WORDS):
        raise FipError("fip_malformed", f"{layout.kind.__name__} descriptor of {words} words")
    return layout.kind(*layout.unpack(data))


def decode(data: memoryview) -> FipPdu:
    """A PDU from what follows the EtherType; what comes after the descriptors is padding. Raises :class:`FipError`."""
    if len(data) < HEADER.size:
        raise FipError("fip_malformed", f"{len(data)} bytes are no FIP header")
    version, operation, subcode, words, flags = HEADER.unpack_from(data)
    if version >> 4 != VERSION:
        raise FipError("fip_version", f"FIP version {version >> 4}; we speak {VERSION}")
    pdu = _PDUS.get((operation, subcode))
    if pdu is None:
        raise FipError("fip_unsupported", f"operation {operation:04x}h, subcode {subcode:02x}h")
    end = HEADER.size + words * WORD
    if end > len(data):
        raise FipError("fip_malformed", f"descriptors of {words} words in {len(data) - HEADER.size} bytes")
    contents = CONTENTS[pdu]
    missing = set(contents.required)
    allowed = contents.required | contents.optional | contents.repeated | contents.any_of
    seen: set[int] = set()
    descriptors = []
    at = HEADER.size
    while at < end:
        kind, length = data[at], data[at + 1] * WORD
        if not length or at + length > end:
            raise FipError("fip_malformed", f"descriptor of type {kind} with {length} bytes, {end - at} are left")
        descriptor = _descriptor(data[at : at + length])
        if kind < CRITICAL:
            if kind not in allowed:
                raise FipError("fip_unexpected_descriptor", f"{type(descriptor).__name__} in {pdu.name.lower()}")
            if kind in seen and kind not in contents.repeated:
                raise FipError("fip_duplicate_descriptor", f"two {type(descriptor).__name__} in {pdu.name.lower()}")
            seen.add(kind)
            missing.discard(kind)
        descriptors.append(descriptor)
        at += length
    if missing:
        names = ", ".join(LAYOUTS[kind].kind.__name__ for kind in sorted(missing))
        raise FipError("fip_missing_descriptor", f"{pdu.name.lower()} without {names}")
    if contents.any_of and len(seen & contents.any_of) != 1:
        raise FipError("fip_missing_descriptor", f"{pdu.name.lower()} with {len(seen & contents.any_of)} frames in it")
    return FipPdu(pdu, tuple(descriptors), Flag(flags))
