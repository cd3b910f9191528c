"""The iSNS messages that a target and its helpers send, and what their answers say (RFC 4171 clauses 5.6, 5.7)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm_iscsi.protocol.isns_attributes import (
    DELIMITER,
    Attribute,
    Tag,
    Value,
    decode_attributes,
    encode_attributes,
    split_at_delimiter,
)
from tcm_iscsi.protocol.isns_pdu import IsnsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROTOCOL_ISCSI = 2
"""Entity Protocol (clause 6.2.2)."""
PortalKey = tuple[str, int]
"""IP address and TCP port."""


class NodeType(enum.IntFlag):
    """iSCSI Node Type (clause 6.4.2)."""

    TARGET = 1
    INITIATOR = 2
    CONTROL = 4


class Scn(enum.IntFlag):
    """iSCSI Node SCN Bitmap (clause 6.4.4)."""

    INITIATOR_AND_SELF_ONLY = 0x80
    TARGET_AND_SELF_ONLY = 0x40
    MANAGEMENT = 0x20
    OBJECT_REMOVED = 0x10
    OBJECT_ADDED = 0x08
    OBJECT_UPDATED = 0x04
    MEMBER_REMOVED = 0x02
    MEMBER_ADDED = 0x01


@dataclass(frozen=True, slots=True)
class Portal:
    """A Portal object (clause 6.3)."""

    address: str
    port: int
    esi_interval: int = 0
    """Seconds between Entity Status Inquiries; 0: none."""
    esi_port: int = 0
    """TCP port at the same address that takes them; 0: none."""
    scn_port: int = 0
    """TCP port at the same address that takes State Change Notifications; 0: none."""

    @property
    def key(self) -> PortalKey:
        """What identifies it."""
        return self.address, self.port


@dataclass(frozen=True, slots=True)
class Node:
    """A Storage Node that is a target, with its Portal Groups (clauses 6.4, 6.5)."""

    name: str
    alias: str = ""
    groups: tuple[tuple[PortalKey, int | None], ...] = ()
    """The portal group tag of every portal of the entity; None: the target is not reached there."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A Network Entity as it is to be registered."""

    entity_identifier: str
    portals: tuple[Portal, ...]
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered."""

    status: int
    key: tuple[Attribute, ...] = ()
    operating: tuple[Attribute, ...] = ()

    def first(self, tag: int) -> Value:
        """The first value of an attribute among the operating ones; None if there is none."""
        return next((attribute.value for attribute in self.operating if attribute.tag == tag), None)


def register(source: str, registration: Registration, period: int) -> bytes:
    """DevAttrReg of an entity, with the objects that are in ``registration`` (clause 5.6.5.1).

    :param period: Registration Period in seconds; 0: the server's own.
    """
    identifier = Attribute(Tag.ENTITY_IDENTIFIER, registration.entity_identifier)
    attributes = [Attribute(Tag.ISCSI_NAME, source), identifier, DELIMITER, identifier]
    attributes.append(Attribute(Tag.ENTITY_PROTOCOL, PROTOCOL_ISCSI))
    if period:
        attributes.append(Attribute(Tag.REGISTRATION_PERIOD, period))
    for portal in registration.portals:
        attributes += portal_key(portal.key)
        if portal.esi_port:
            attributes += (Attribute(Tag.ESI_INTERVAL, portal.esi_interval), Attribute(Tag.ESI_PORT, portal.esi_port))
        if portal.scn_port:
            attributes.append(Attribute(Tag.SCN_PORT, portal.scn_port))
    for node in registration.nodes:
        attributes += (Attribute(Tag.ISCSI_NAME, node.name), Attribute(Tag.ISCSI_NODE_TYPE, NodeType.TARGET))
        if node.alias:
            attributes.append(Attribute(Tag.ISCSI_ALIAS, node.alias))
        for (address, port), tag in node.groups:
            attributes += (
                Attribute(Tag.PG_TAG, tag),
                Attribute(Tag.PG_PORTAL_IP_ADDRESS, address),
                Attribute(Tag.PG_PORTAL_PORT, port),
            )
    return encode_attributes(attributes)


def deregister(source: str, objects: Iterable[Attribute]) -> bytes:
    """DevDereg of the objects with these keys, and of all that is below them (clause 5.6.5.4)."""
    return encode_attributes((Attribute(Tag.ISCSI_NAME, source), DELIMITER, *objects))


def query(source: str, key: Iterable[Attribute], wanted: Iterable[int]) -> bytes:
    """DevAttrQry: the attributes with the tags ``wanted`` of the objects that ``key`` finds (clause 5.6.5.2).

    :param source: name of the node that asks; it sees what shares a discovery domain with it.
    :param key: an attribute without value stands for all objects of its type.
    """
    return encode_attributes((Attribute(Tag.ISCSI_NAME, source), *key, DELIMITER, *map(Attribute, wanted)))


def subscribe(node: str, bitmap: Scn) -> bytes:
    """SCNReg: what the node wants to be told of (clause 5.6.5.5)."""
    name = Attribute(Tag.ISCSI_NAME, node)
    return encode_attributes((name, name, DELIMITER, Attribute(Tag.ISCSI_SCN_BITMAP, bitmap)))


def portal_key(key: PortalKey) -> tuple[Attribute, Attribute]:
    """The two attributes that identify a portal."""
    return Attribute(Tag.PORTAL_IP_ADDRESS, key[0]), Attribute(Tag.PORTAL_PORT, key[1])


def respond(status: int, attributes: Iterable[Attribute] = ()) -> bytes:
    """The payload of a response."""
    return int(status).to_bytes(4, "big") + encode_attributes(attributes)


def parse_response(payload: bytes) -> Response:
    """A response's payload. Raises :class:`IsnsError`."""
    if len(payload) < 4:
        raise IsnsError("a response without a status")
    status = int.from_bytes(payload[:4], "big")
    if status:
        return Response(status)  # what follows, if anything, is not the same with all servers
    key, operating = split_at_delimiter(decode_attributes(payload[4:]))
    return Response(status, tuple(key), tuple(operating))


_FIRST_KEYS = frozenset({Tag.ENTITY_IDENTIFIER, Tag.PORTAL_IP_ADDRESS, Tag.ISCSI_NAME, Tag.PG_ISCSI_NAME, Tag.DD_ID})


def objects(attributes: Sequence[Attribute]) -> list[dict[int, Value]]:
    """The objects of a query's answer, each as its attributes by tag, in the order of the answer (clause 5.6.4)."""
    found: list[dict[int, Value]] = []
    for tag, value in attributes:
        if tag in _FIRST_KEYS or not found:
            found.append({})
        found[-1][tag] = value
    return found
