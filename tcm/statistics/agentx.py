"""PDUs of AgentX (RFC 2741 clauses 5 and 6), sans-IO: what a master agent and a sub-agent say to each other."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from struct import Struct
from typing import TYPE_CHECKING

from tcm.statistics.mib import Oid, Syntax, Value

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER_LENGTH = 20
MAXIMUM_PAYLOAD = 1 << 20
"""Bytes that a PDU may have; a master agent sends a few hundred."""
MAXIMUM_RANGES = 1000
"""Names that a request may ask for or set; each is looked for while initiators wait."""
MAXIMUM_SUBIDENTIFIERS = 128
"""RFC 2578 3.5."""
VERSION = 1
NON_DEFAULT_CONTEXT = 0x08
NETWORK_BYTE_ORDER = 0x10
_INTERNET: Oid = (1, 3, 6, 1)
NO_SUCH_OBJECT, NO_SUCH_INSTANCE, END_OF_MIB_VIEW = 128, 129, 130
NULL, IP_ADDRESS, OPAQUE = 5, 64, 68
"""Types of values that none of our columns has."""
_SIGNED = Struct(">i").pack
_LONG = Struct(">I").pack
_LONG_LONG = Struct(">Q").pack
_HEADER = Struct(">BBBxIIII").pack


class PduType(enum.IntEnum):
    """Clause 6.1."""

    OPEN = 1
    CLOSE = 2
    REGISTER = 3
    UNREGISTER = 4
    GET = 5
    GET_NEXT = 6
    GET_BULK = 7
    TEST_SET = 8
    COMMIT_SET = 9
    UNDO_SET = 10
    CLEANUP_SET = 11
    NOTIFY = 12
    PING = 13
    RESPONSE = 18


REFUSALS = {
    256: "openFailed",
    257: "notOpen",
    262: "unsupportedContext",
    263: "duplicateRegistration: another sub-agent has it",
    266: "parseError",
    267: "requestDenied",
    268: "processingError",
}
"""Why a master agent does not do what it is asked to (clause 6.2.16)."""
UNANSWERED = frozenset({PduType.RESPONSE, PduType.CLOSE, PduType.CLEANUP_SET})
"""What nobody answers."""


class Error(enum.IntEnum):
    """Of a Response (clause 6.2.16), those that are said or understood here; up to 18 they are SNMP's (RFC 3416)."""

    NO_ERROR = 0
    GEN_ERR = 5
    WRONG_TYPE = 7
    WRONG_LENGTH = 8
    WRONG_VALUE = 10
    NO_CREATION = 11
    INCONSISTENT_VALUE = 12
    RESOURCE_UNAVAILABLE = 13
    COMMIT_FAILED = 14
    UNDO_FAILED = 15
    NOT_WRITABLE = 17
    INCONSISTENT_NAME = 18
    NOT_OPEN = 257
    PARSE_ERROR = 266


class CloseReason(enum.IntEnum):
    """Clause 6.2.2."""

    OTHER = 1
    PARSE_ERROR = 2
    PROTOCOL_ERROR = 3
    TIMEOUTS = 4
    SHUTDOWN = 5
    BY_MANAGER = 6


class AgentXError(Exception):
    """What came is no AgentX, or not what it may be; the message is for the log."""


class ParseError(AgentXError):
    """One PDU cannot be read; where the next one begins is known (clause 7.2.2)."""


@dataclass(frozen=True, slots=True)
class SearchRange:
    """Clause 5.2: from ``start``, itself included or not, to before ``end``; an empty ``end`` is no bound."""

    start: Oid
    end: Oid = ()
    include: bool = False


@dataclass(frozen=True, slots=True)
class VarBind:
    """Clause 5.4. Its value has been made into bytes; see :func:`varbind`."""

    name: Oid
    type: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Clause 5.4 as it arrives in a TestSet: what an instance shall be."""

    name: Oid
    type: int
    value: Value | None
    """``None``: a type without a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pdu:
    """One that has arrived, as far as anybody here looks into it."""

    type: int
    session: int
    transaction: int
    packet: int
    context: bytes = b""
    """Empty: the default one, in which all that we have is."""
    ranges: tuple[SearchRange, ...] = ()
    """Of Get, GetNext and GetBulk."""
    wanted: tuple[Wanted, ...] = ()
    """Of TestSet."""
    too_many: bool = False
    """It has more than :data:`MAXIMUM_RANGES`, of which the rest were not read."""
    non_repeaters: int = 0
    max_repetitions: int = 0
    uptime: int = 0
    """Of a Response: the master's sysUpTime, 1/100 s."""
    error: int = 0
    index: int = 0
    reason: int = 0
    """Of a Close."""


# making


def pack_oid(oid: Oid, *, include: bool = False) -> bytes:
    """Clause 5.1. The prefix saves 16 bytes of what begins with 1.3.6.1."""
    prefix = 0
    if oid[:4] == _INTERNET and len(oid) > 4 and 0 < oid[4] <= 0xFF:
        prefix, oid = oid[4], oid[5:]
    return bytes((len(oid), prefix, include, 0)) + b"".join(map(_LONG, oid))


def pack_octets(data: bytes) -> bytes:
    """Clause 5.3."""
    return _LONG(len(data)) + data + bytes(-len(data) % 4)


def varbind(name: Oid, syntax: Syntax, value: int | bytes | Oid) -> VarBind:
    """With a value of that syntax; counters wrap, gauges stay at their maximum."""
    if isinstance(value, tuple):
        return VarBind(name, syntax, pack_oid(value))
    if isinstance(value, bytes):
        return VarBind(name, syntax, pack_octets(value))
    if syntax is Syntax.INTEGER:
        return VarBind(name, syntax, _SIGNED(value))
    if syntax is Syntax.COUNTER_64:
        return VarBind(name, syntax, _LONG_LONG(value & 0xFFFFFFFFFFFFFFFF))
    if syntax is Syntax.GAUGE_32:
        return VarBind(name, syntax, _LONG(min(value, 0xFFFFFFFF)))
    return VarBind(name, syntax, _LONG(value & 0xFFFFFFFF))


def pack_varbinds(binds: Iterable[VarBind]) -> bytes:
    """Clause 5.4."""
    return b"".join(bytes((0, bind.type, 0, 0)) + pack_oid(bind.name) + bind.data for bind in binds)


def pack(kind: PduType, payload: bytes = b"", *, session: int = 0, transaction: int = 0, packet: int = 0) -> bytes:
    """A PDU, in network byte order."""
    return _HEADER(VERSION, kind, NETWORK_BYTE_ORDER, session, transaction, packet, len(payload)) + payload


def open_payload(oid: Oid, description: str, timeout: int) -> bytes:
    """Clause 6.2.1: who we are; ``timeout`` seconds is how long an answer may take."""
    return bytes((timeout, 0, 0, 0)) + pack_oid(oid) + pack_octets(description.encode())


def register_payload(subtree: Oid, priority: int = 127) -> bytes:
    """Clause 6.2.3: what we answer for."""
    return bytes((0, priority, 0, 0)) + pack_oid(subtree)


def close_payload(reason: CloseReason) -> bytes:
    """Clause 6.2.2."""
    return bytes((reason, 0, 0, 0))


def response(request: Pdu, binds: Iterable[VarBind] = (), *, error: Error = Error.NO_ERROR, index: int = 0) -> bytes:
    """Clause 6.2.16, to a request of the master's."""
    payload = bytes(4) + error.to_bytes(2, "big") + index.to_bytes(2, "big") + pack_varbinds(binds)
    return pack(PduType.RESPONSE, payload, session=request.session, transaction=request.transaction, packet=request.packet)


# reading


@dataclass(slots=True)
class _Reader:
    data: bytes
    order: str
    place: int = 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.place : self.place + count]
        if len(piece) != count:
            raise ParseError("a PDU ends in the middle of a field")
        self.place += count
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big" if self.order == ">" else "little")

    def oid(self) -> tuple[Oid, bool]:
        count, prefix, include, _ = self.take(4)
        if count > MAXIMUM_SUBIDENTIFIERS:
            raise ParseError(f"an object identifier of {count} sub-identifiers")
        found = Struct(f"{self.order}{count}I").unpack(self.take(4 * count))
        return ((*_INTERNET, prefix, *found) if prefix else found), bool(include)

    def signed(self) -> int:
        return int.from_bytes(self.take(4), "big" if self.order == ">" else "little", signed=True)

    def value(self, kind: int) -> Value | None:
        """Of a type of clause 5.4. Raises :class:`ParseError` for one that there is not."""
        if kind == Syntax.INTEGER:
            return self.signed()
        if kind in {Syntax.OCTET_STRING, IP_ADDRESS, OPAQUE}:
            return self.octets()
        if kind == Syntax.OBJECT_IDENTIFIER:
            return self.oid()[0]
        if kind in {Syntax.COUNTER_32, Syntax.GAUGE_32, Syntax.TIME_TICKS}:
            return self.number(4)
        if kind == Syntax.COUNTER_64:
            return self.number(8)
        if kind in {NULL, NO_SUCH_OBJECT, NO_SUCH_INSTANCE, END_OF_MIB_VIEW}:
            return None
        raise ParseError(f"a value of type {kind}")

    def wanted(self) -> Wanted:
        kind = self.number(2)
        self.take(2)
        name, _ = self.oid()
        return Wanted(name, kind, self.value(kind))

    def octets(self) -> bytes:
        length = self.number(4)
        data = self.take(length)
        self.take(-length % 4)
        return data

    @property
    def left(self) -> int:
        return len(self.data) - self.place


def length_of(head: bytes) -> int:
    """Of the PDU that begins with these :data:`HEADER_LENGTH` bytes, header included. Raises :class:`AgentXError`."""
    if head[0] != VERSION:
        raise AgentXError(f"AgentX version {head[0]}")
    length = int.from_bytes(head[16:20], "big" if head[2] & NETWORK_BYTE_ORDER else "little")
    if length > MAXIMUM_PAYLOAD or length % 4:
        raise AgentXError(f"a payload of {length} bytes")
    return HEADER_LENGTH + length


def unpack(data: bytes) -> Pdu:
    """A whole PDU. Raises :class:`ParseError`; types that nobody here knows come back without their content."""
    kind, flags = data[1], data[2]
    head = head_of(data)
    reader = _Reader(data[HEADER_LENGTH:], ">" if flags & NETWORK_BYTE_ORDER else "<")
    if flags & NON_DEFAULT_CONTEXT and kind != PduType.RESPONSE:
        head = replace(head, context=reader.octets())
    if kind in {PduType.GET, PduType.GET_NEXT, PduType.GET_BULK}:
        bulk = (reader.number(2), reader.number(2)) if kind == PduType.GET_BULK else (0, 0)
        ranges: list[SearchRange] = []
        while reader.left and len(ranges) < MAXIMUM_RANGES:
            start, include = reader.oid()
            end, _ = reader.oid()
            ranges.append(SearchRange(start, end, include))
        return replace(head, ranges=tuple(ranges), non_repeaters=bulk[0], max_repetitions=bulk[1], too_many=bool(reader.left))
    if kind == PduType.TEST_SET:
        wanted: list[Wanted] = []
        while reader.left and len(wanted) < MAXIMUM_RANGES:
            wanted.append(reader.wanted())
        return replace(head, wanted=tuple(wanted), too_many=bool(reader.left))
    if kind == PduType.RESPONSE:
        return replace(head, uptime=reader.number(4), error=reader.number(2), index=reader.number(2))
    if kind == PduType.CLOSE:
        return replace(head, reason=reader.number(1))
    return head


def head_of(data: bytes) -> Pdu:
    """What the :data:`HEADER_LENGTH` bytes that a PDU begins with say of it."""
    order = ">" if data[2] & NETWORK_BYTE_ORDER else "<"
    session, transaction, packet = Struct(f"{order}III").unpack(data[4:16])
    return Pdu(type=data[1], session=session, transaction=transaction, packet=packet)
