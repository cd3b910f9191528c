"""iSNS PDUs and the messages that are made of them (RFC 4171 clauses 5.1 to 5.5)."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_PORT = 3205
"""TCP and UDP, assigned by IANA."""
VERSION = 1
HEADER_LENGTH = 12
MAX_PAYLOAD = 0xFFFC
"""Bytes of payload of one PDU: its length has 16 bits and is a multiple of 4."""
MAX_MESSAGE = 1 << 20
"""Bytes of payload of one message that is received, all its PDUs together."""
MAX_AUTHENTICATION_BLOCK = 4096
"""Bytes of an authentication block, which is skipped: unicast messages should have none (clause 5.5)."""

_HEADER = struct.Struct(">HHHHHH")
_BLOCK = struct.Struct(">II")


class Function(enum.IntEnum):
    """FUNCTION ID (clause 4.1.3); a response has :data:`RESPONSE` set besides."""

    DEV_ATTR_REG = 0x0001
    DEV_ATTR_QRY = 0x0002
    DEV_GET_NEXT = 0x0003
    DEV_DEREG = 0x0004
    SCN_REG = 0x0005
    SCN_DEREG = 0x0006
    SCN_EVENT = 0x0007
    SCN = 0x0008
    DD_REG = 0x0009
    DD_DEREG = 0x000A
    DDS_REG = 0x000B
    DDS_DEREG = 0x000C
    ESI = 0x000D
    HEARTBEAT = 0x000E


RESPONSE = 0x8000
"""Set in the FUNCTION ID of responses."""


class Flag(enum.IntFlag):
    """FLAGS (clause 5.1.4); the RFC counts its bits from the left."""

    CLIENT = 0x8000
    SERVER = 0x4000
    AUTHENTICATION = 0x2000
    REPLACE = 0x1000
    LAST = 0x0800
    FIRST = 0x0400


NO_FLAGS = Flag(0)


class Status(enum.IntEnum):
    """Status codes of responses (clause 5.4)."""

    SUCCESSFUL = 0
    UNKNOWN_ERROR = 1
    MESSAGE_FORMAT_ERROR = 2
    INVALID_REGISTRATION = 3
    INVALID_QUERY = 5
    SOURCE_UNKNOWN = 6
    SOURCE_ABSENT = 7
    SOURCE_UNAUTHORIZED = 8
    NO_SUCH_ENTRY = 9
    VERSION_NOT_SUPPORTED = 10
    INTERNAL_ERROR = 11
    BUSY = 12
    OPTION_NOT_UNDERSTOOD = 13
    INVALID_UPDATE = 14
    MESSAGE_NOT_SUPPORTED = 15
    SCN_EVENT_REJECTED = 16
    SCN_REGISTRATION_REJECTED = 17
    ATTRIBUTE_NOT_IMPLEMENTED = 18
    FC_DOMAIN_ID_NOT_AVAILABLE = 19
    FC_DOMAIN_ID_NOT_ALLOCATED = 20
    ESI_NOT_AVAILABLE = 21
    INVALID_DEREGISTRATION = 22
    REGISTRATION_FEATURE_NOT_SUPPORTED = 23


def status_text(status: int) -> str:
    """``invalid registration (3)``, for people."""
    try:
        name = Status(status).name.lower().replace("_", " ")
    except ValueError:
        name = "reserved"
    return f"{name} ({status})"


class IsnsError(Exception):
    """What came is no iSNS message. The stream cannot be followed any further, unless it was one message's attributes."""

    status = Status.MESSAGE_FORMAT_ERROR
    """What a response would say."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, whole: what its PDUs carry together."""

    function: int
    """FUNCTION ID, with :data:`RESPONSE` in a response."""
    transaction_id: int
    payload: bytes = b""
    flags: Flag = NO_FLAGS
    """Of the first PDU, without FIRST and LAST."""

    @property
    def is_response(self) -> bool:
        """It answers a request of the same transaction ID."""
        return bool(self.function & RESPONSE)


def encode(message: Message, max_payload: int = MAX_PAYLOAD) -> bytes:
    """The PDUs of a message, one after the other. Raises :class:`ValueError` if the payload's length is no multiple of 4.

    :param max_payload: bytes of payload in each PDU; a multiple of 4.
    """
    payload = message.payload
    if len(payload) % 4:
        raise ValueError(f"a payload of {len(payload)} bytes, which is no multiple of 4")
    pieces = [payload[start : start + max_payload] for start in range(0, len(payload), max_payload)] or [b""]
    wire = bytearray()
    for sequence_id, piece in enumerate(pieces):
        flags = message.flags
        if not sequence_id:
            flags |= Flag.FIRST
        if sequence_id == len(pieces) - 1:
            flags |= Flag.LAST
        wire += _HEADER.pack(VERSION, message.function, len(piece), flags, message.transaction_id, sequence_id)
        wire += piece
    return bytes(wire)


class MessageReader:
    """Bytes in with :meth:`receive_data`, messages out with :meth:`next_message`.

    Holds at most one PDU and ``max_message`` bytes of payload more than what was passed in and not taken out again.

    :param max_message: bytes of payload that all PDUs of a message may have together.
    """

    def __init__(self, *, max_message: int = MAX_MESSAGE) -> None:
        self._max_message = max_message
        self._buffer = bytearray()
        self._payload = bytearray()
        self._first: tuple[int, int, Flag] | None = None
        """Function, transaction ID and flags of a message of which some PDUs are here."""
        self._sequence_id = 0

    @property
    def unfinished(self) -> bool:
        """A message has begun and not ended."""
        return bool(self._buffer) or self._first is not None

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes, copied."""
        self._buffer += data

    def messages(self) -> Iterator[Message]:
        """All that are there. Raises :class:`IsnsError` after the last good one."""
        while (message := self.next_message()) is not None:
            yield message

    def next_message(self) -> Message | None:
        """The next message, or None if more bytes are needed. Raises :class:`IsnsError`."""
        while (pdu := self._next_pdu()) is not None:
            function, transaction_id, flags, sequence_id, payload = pdu
            self._check_order(function, transaction_id, flags, sequence_id)
            if len(self._payload) + len(payload) > self._max_message:
                raise IsnsError(f"a message of more than {self._max_message} bytes")
            self._payload += payload
            if flags & Flag.LAST:
                assert self._first is not None
                first = self._first[2] & ~(Flag.FIRST | Flag.LAST)
                message = Message(function, transaction_id, bytes(self._payload), first)
                self._first = None
                self._payload = bytearray()
                return message
        return None

    def _check_order(self, function: int, transaction_id: int, flags: Flag, sequence_id: int) -> None:
        """Clauses 5.1.6 and 5.2."""
        if self._first is None:
            if not flags & Flag.FIRST or sequence_id:
                raise IsnsError(f"a message begins with sequence ID {sequence_id}, flags {flags:04x}h")
            self._first = (function, transaction_id, flags)
        elif flags & Flag.FIRST or (function, transaction_id) != self._first[:2] or sequence_id != self._sequence_id + 1:
            raise IsnsError(f"a PDU of function {function:04x}h, transaction {transaction_id} inside another message")
        self._sequence_id = sequence_id

    def _next_pdu(self) -> tuple[int, int, Flag, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < HEADER_LENGTH:
            return None
        version, function, length, flags, transaction_id, sequence_id = _HEADER.unpack_from(buffer)
        if version != VERSION:
            raise IsnsError(f"iSNSP version {version}; we speak {VERSION}")
        if length % 4:
            raise IsnsError(f"a PDU length of {length}, which is no multiple of 4")
        end = payload_end = HEADER_LENGTH + length
        if flags & Flag.AUTHENTICATION:
            if len(buffer) < end + _BLOCK.size:
                return None
            block_length = _BLOCK.unpack_from(buffer, end)[1]
            if not _BLOCK.size <= block_length <= MAX_AUTHENTICATION_BLOCK:
                raise IsnsError(f"an authentication block of {block_length} bytes")
            end += block_length
        if len(buffer) < end:
            return None
        payload = bytes(buffer[HEADER_LENGTH:payload_end])
        del buffer[:end]
        return function, transaction_id, Flag(flags), sequence_id, payload
