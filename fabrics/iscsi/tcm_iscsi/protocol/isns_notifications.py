"""What an iSNS server sends of itself: State Change Notifications, Entity Status Inquiries and heartbeats.

RFC 4171 clauses 5.6.5.8, 5.6.5.13 and 5.6.5.14, and 5.7.5.8 and 5.7.5.13 for the answers.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm_iscsi.protocol.isns_attributes import Attribute, Tag, decode_attributes
from tcm_iscsi.protocol.isns_messages import Scn, respond
from tcm_iscsi.protocol.isns_pdu import RESPONSE, Flag, Function, IsnsError, Message, MessageReader, Status, encode
from tcm_iscsi.protocol.names import InvalidName, normalize

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NOTIFICATION = 64 << 10
"""Bytes of one message that a server sends of itself."""

_HEARTBEAT_LENGTH = 32


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A storage node has changed (SCN)."""

    destination: str
    """The node that is told, normalised."""
    name: str
    """The node that has changed, normalised."""
    changes: Scn
    """What has happened to it."""


@dataclass(frozen=True, slots=True)
class StatusInquired:
    """The server wanted to know whether a portal is reached, and has its answer (ESI)."""

    entity_identifier: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """The active server lives."""

    address: str
    """Of the active server."""
    tcp_port: int
    interval: int
    """Seconds between two heartbeats."""
    counter: int
    """Heartbeats before this one since the server became active."""
    backup_servers: int


Notification = StateChanged | StatusInquired | HeartbeatReceived


def handle(message: Message) -> tuple[Message | None, list[Notification]]:
    """The answer to a request of a server, and what it said. Raises nothing: what is malformed is answered by a status."""
    try:
        status, attributes, found = _HANDLERS.get(message.function, _not_supported)(message.payload)
    except IsnsError as e:
        status, attributes, found = e.status, [], []
    if message.function == Function.HEARTBEAT:
        return None, found  # has no response
    answer = Message(message.function | RESPONSE, message.transaction_id, respond(status, attributes), Flag.CLIENT)
    return answer, found


def _not_supported(_payload: bytes) -> tuple[Status, list[Attribute], list[Notification]]:
    return Status.MESSAGE_NOT_SUPPORTED, [], []


def _state_change(payload: bytes) -> tuple[Status, list[Attribute], list[Notification]]:
    """Destination, timestamp, then bitmaps, each followed by what it is about."""
    attributes = decode_attributes(payload)
    if len(attributes) < 4 or [each.tag for each in attributes[:2]] != [Tag.ISCSI_NAME, Tag.TIMESTAMP]:
        return Status.SCN_EVENT_REJECTED, [], []
    found: list[Notification] = []
    changes: int | None = None
    try:
        destination = _name(attributes[0])
        for attribute in attributes[2:]:
            if attribute.tag == Tag.ISCSI_SCN_BITMAP and isinstance(attribute.value, int):
                changes = attribute.value
            elif changes is None:
                return Status.SCN_EVENT_REJECTED, [], []
            elif attribute.tag == Tag.ISCSI_NAME:
                found.append(StateChanged(destination, _name(attribute), Scn(changes & 0xFF)))
    except InvalidName:
        return Status.SCN_EVENT_REJECTED, [], []
    return Status.SUCCESSFUL, attributes[:1], found


def _name(attribute: Attribute) -> str:
    return normalize(str(attribute.value or ""))


def _status_inquiry(payload: bytes) -> tuple[Status, list[Attribute], list[Notification]]:
    """Timestamp, entity, portal; the answer repeats them."""
    attributes = decode_attributes(payload)
    values = {attribute.tag: attribute.value for attribute in attributes}
    entity, address, port = (values.get(tag) for tag in (Tag.ENTITY_IDENTIFIER, Tag.PORTAL_IP_ADDRESS, Tag.PORTAL_PORT))
    if len(attributes) != 4 or not isinstance(entity, str) or not isinstance(address, str) or not isinstance(port, int):
        return Status.MESSAGE_FORMAT_ERROR, [], []
    return Status.SUCCESSFUL, attributes, [StatusInquired(entity, address, port & 0xFFFF)]


def _heartbeat(payload: bytes) -> tuple[Status, list[Attribute], list[Notification]]:
    """Has no attributes (clause 5.6.5.14)."""
    if len(payload) < _HEARTBEAT_LENGTH:
        raise IsnsError(f"a heartbeat of {len(payload)} bytes")
    address = ipaddress.IPv6Address(payload[:16])
    tcp_port, interval, counter, backups = (
        int.from_bytes(payload[start:end], "big") for start, end in ((16, 18), (20, 24), (24, 28), (30, 32))
    )
    heartbeat = HeartbeatReceived(str(address.ipv4_mapped or address), tcp_port, interval, counter, backups)
    return Status.SUCCESSFUL, [], [heartbeat]


_HANDLERS: dict[int, Callable[[bytes], tuple[Status, list[Attribute], list[Notification]]]] = {
    Function.SCN: _state_change,
    Function.ESI: _status_inquiry,
    Function.HEARTBEAT: _heartbeat,
}


class NotificationConnection:
    """A connection that a server has made to our SCN or ESI port: bytes in, answers out."""

    def __init__(self) -> None:
        self._reader = MessageReader(max_message=MAX_NOTIFICATION)

    @property
    def unfinished(self) -> bool:
        """A message has begun and not ended."""
        return self._reader.unfinished

    def receive_data(self, data: bytes) -> tuple[bytes, list[Notification]]:
        """What to send, and what was said. Raises :class:`IsnsError` if the connection has to be closed."""
        self._reader.receive_data(data)
        out, found = b"", []
        for message in self._reader.messages():
            if message.is_response:
                raise IsnsError("a response to what was never asked")
            answer, notifications = handle(message)
            found += notifications
            if answer is not None:
                out += encode(answer)
        return out, found
