"""iSNS attributes in their tag, length, value form (RFC 4171 clauses 5.3, 6.1)."""

from __future__ import annotations

import enum
import ipaddress
import struct
from typing import TYPE_CHECKING, NamedTuple

from tcm_iscsi.protocol.isns_pdu import IsnsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_ATTRIBUTES = 16384
"""Of one message that is received."""

_TLV = struct.Struct(">II")
_LENGTHS = {"uint32": 4, "uint64": 8, "address": 16}


class Tag(enum.IntEnum):
    """Attribute tags of what iSCSI has to do with (clause 6.1)."""

    DELIMITER = 0
    ENTITY_IDENTIFIER = 1
    ENTITY_PROTOCOL = 2
    MANAGEMENT_IP_ADDRESS = 3
    TIMESTAMP = 4
    PROTOCOL_VERSION_RANGE = 5
    REGISTRATION_PERIOD = 6
    ENTITY_INDEX = 7
    PORTAL_IP_ADDRESS = 16
    PORTAL_PORT = 17
    PORTAL_SYMBOLIC_NAME = 18
    ESI_INTERVAL = 19
    ESI_PORT = 20
    PORTAL_INDEX = 22
    SCN_PORT = 23
    PORTAL_SECURITY_BITMAP = 27
    ISCSI_NAME = 32
    ISCSI_NODE_TYPE = 33
    ISCSI_ALIAS = 34
    ISCSI_SCN_BITMAP = 35
    ISCSI_NODE_INDEX = 36
    WWNN_TOKEN = 37
    ISCSI_AUTH_METHOD = 42
    PG_ISCSI_NAME = 48
    PG_PORTAL_IP_ADDRESS = 49
    PG_PORTAL_PORT = 50
    PG_TAG = 51
    PG_INDEX = 52
    DDS_ID = 2049
    DD_ID = 2065
    DD_SYMBOLIC_NAME = 2066
    DD_MEMBER_ISCSI_NAME = 2068


_TEXTS = (
    *(Tag.ENTITY_IDENTIFIER, Tag.PORTAL_SYMBOLIC_NAME, Tag.ISCSI_NAME, Tag.ISCSI_ALIAS, Tag.ISCSI_AUTH_METHOD),
    *(Tag.PG_ISCSI_NAME, Tag.DD_SYMBOLIC_NAME, Tag.DD_MEMBER_ISCSI_NAME),
)
_NUMBERS = (
    *(Tag.ENTITY_PROTOCOL, Tag.PROTOCOL_VERSION_RANGE, Tag.REGISTRATION_PERIOD, Tag.ENTITY_INDEX),
    *(Tag.PORTAL_PORT, Tag.ESI_INTERVAL, Tag.ESI_PORT, Tag.PORTAL_INDEX, Tag.SCN_PORT, Tag.PORTAL_SECURITY_BITMAP),
    *(Tag.ISCSI_NODE_TYPE, Tag.ISCSI_SCN_BITMAP, Tag.ISCSI_NODE_INDEX),
    *(Tag.PG_PORTAL_PORT, Tag.PG_TAG, Tag.PG_INDEX, Tag.DDS_ID, Tag.DD_ID),
)
KINDS: dict[int, str] = {
    **dict.fromkeys(_TEXTS, "text"),
    **dict.fromkeys(_NUMBERS, "uint32"),
    **dict.fromkeys((Tag.MANAGEMENT_IP_ADDRESS, Tag.PORTAL_IP_ADDRESS, Tag.PG_PORTAL_IP_ADDRESS), "address"),
    **dict.fromkeys((Tag.TIMESTAMP, Tag.WWNN_TOKEN), "uint64"),
}
"""How the values of each tag are written; what is not here is taken as bytes."""
MAX_TEXT = 256
"""Bytes of a text with its end; names have 224 (clause 6.4.1)."""
MAX_LENGTHS: dict[int, int] = {Tag.ISCSI_NAME: 224, Tag.PG_ISCSI_NAME: 224, Tag.DD_MEMBER_ISCSI_NAME: 224}

Value = int | str | bytes | None


class Attribute(NamedTuple):
    """One attribute."""

    tag: int
    value: Value = None
    """An int, a text, an IP address as text, bytes of a tag that we do not know; None: it has length 0."""


DELIMITER = Attribute(Tag.DELIMITER)
"""Stands between the message key and the operating attributes (clause 5.6.3)."""


def encode_attributes(attributes: Iterable[Attribute]) -> bytes:
    """Their wire form. Raises :class:`ValueError` for a value that its tag cannot have."""
    wire = bytearray()
    for tag, value in attributes:
        data = _encode(tag, value)
        wire += _TLV.pack(tag, len(data)) + data
    return bytes(wire)


def _encode(tag: int, value: Value) -> bytes:
    kind = KINDS.get(tag, "bytes")
    if value is None:
        return b""
    if kind in ("uint32", "uint64") and isinstance(value, int):
        try:
            return value.to_bytes(_LENGTHS[kind], "big")
        except OverflowError:
            raise ValueError(f"{value} is no value of attribute {tag}") from None
    if kind == "address" and isinstance(value, str):
        address = ipaddress.ip_address(value.partition("%")[0])
        return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    if kind == "text" and isinstance(value, str):
        data = value.encode()
        longest = MAX_LENGTHS.get(tag, MAX_TEXT)
        if not data or b"\0" in data or len(data) >= longest:
            raise ValueError(f"attribute {tag} wants a text of 1 to {longest - 1} bytes without NUL, not {value!r}")
        return data + bytes(4 - len(data) % 4)
    if kind == "bytes" and isinstance(value, bytes) and len(value) % 4 == 0:
        return value
    raise ValueError(f"{value!r} is no value of attribute {tag}")


def decode_attributes(data: bytes | memoryview) -> list[Attribute]:
    """The attributes of a payload. Raises :class:`IsnsError` if they are not well formed, or more than we take."""
    view = memoryview(data)
    found: list[Attribute] = []
    position = 0
    while position < len(view):
        if len(view) - position < _TLV.size:
            raise IsnsError("the payload ends inside an attribute")
        tag, length = _TLV.unpack_from(view, position)
        position += _TLV.size
        if length % 4 or length > len(view) - position:
            raise IsnsError(f"attribute {tag} has length {length}, with {len(view) - position} bytes left")
        if len(found) >= MAX_ATTRIBUTES:
            raise IsnsError(f"more than {MAX_ATTRIBUTES} attributes")
        found.append(Attribute(tag, _decode(tag, bytes(view[position : position + length]))))
        position += length
    return found


def _decode(tag: int, data: bytes) -> Value:
    kind = KINDS.get(tag, "bytes")
    if not data:
        return None
    if kind == "bytes":
        return data
    if kind == "text":
        if len(data) > MAX_LENGTHS.get(tag, MAX_TEXT):
            raise IsnsError(f"attribute {tag} is a text of {len(data)} bytes")
        text, end, _ = data.partition(b"\0")
        if not end:
            raise IsnsError(f"attribute {tag} is a text that does not end in a zero")
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise IsnsError(f"attribute {tag} is not UTF-8") from None
    if len(data) != _LENGTHS[kind]:
        raise IsnsError(f"attribute {tag} has {len(data)} bytes instead of {_LENGTHS[kind]}")
    if kind == "address":
        address = ipaddress.IPv6Address(data)
        return str(address.ipv4_mapped or address)
    return int.from_bytes(data, "big")


def split_at_delimiter(attributes: Sequence[Attribute]) -> tuple[list[Attribute], list[Attribute]]:
    """What stands before the delimiter, and what after it; without one, all stands before it."""
    for position, attribute in enumerate(attributes):
        if attribute.tag == Tag.DELIMITER:
            return list(attributes[:position]), list(attributes[position + 1 :])
    return list(attributes), []
