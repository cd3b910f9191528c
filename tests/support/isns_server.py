"""A small iSNS server without a socket, as RFC 4171 describes one: what the client's tests talk to in no time."""

from __future__ import annotations

from dataclasses import dataclass, field

from tcm_iscsi.protocol import isns_messages as messages
from tcm_iscsi.protocol.isns_attributes import DELIMITER, Attribute, Tag, decode_attributes, split_at_delimiter
from tcm_iscsi.protocol.isns_messages import PortalKey
from tcm_iscsi.protocol.isns_pdu import RESPONSE, Flag, Function, Message, MessageReader, Status, encode


@dataclass
class Entity:
    portals: dict[PortalKey, dict[int, object]] = field(default_factory=dict)
    nodes: dict[str, dict[int, object]] = field(default_factory=dict)
    groups: dict[tuple[str, PortalKey], int | None] = field(default_factory=dict)

    def default_groups(self) -> None:
        for name in self.nodes:
            for key in self.portals:
                self.groups.setdefault((name, key), 1)


@dataclass
class IsnsServer:
    """Bytes in, bytes out.

    ``refuse`` has the status codes that the next requests of a function are answered with; ``requests`` what came.
    """

    period: int = 600
    esi: bool = True
    entities: dict[str, Entity] = field(default_factory=dict)
    subscribed: dict[str, int] = field(default_factory=dict)
    refuse: dict[Function, list[Status]] = field(default_factory=dict)
    requests: list[Message] = field(default_factory=list)
    largest: int = 0
    reader: MessageReader = field(default_factory=MessageReader)

    def connect(self) -> None:
        self.reader = MessageReader()

    def restart(self) -> None:
        """It forgets everything."""
        self.entities.clear()
        self.subscribed.clear()
        self.connect()

    def functions(self) -> list[Function]:
        """What was asked since the last call."""
        found = [Function(message.function) for message in self.requests]
        self.requests.clear()
        return found

    def receive(self, data: bytes) -> bytes:
        self.largest = max(self.largest, len(data))
        self.reader.receive_data(data)
        return b"".join(map(self.answer, self.reader.messages()))

    def answer(self, message: Message) -> bytes:
        assert message.flags & Flag.CLIENT
        if message.is_response:
            return b""
        self.requests.append(message)
        refused = self.refuse.get(Function(message.function))
        if refused:
            payload = messages.respond(refused.pop(0))
        else:
            key, operating = split_at_delimiter(decode_attributes(message.payload))
            source = key.pop(0)
            assert source.tag == Tag.ISCSI_NAME
            payload = {
                Function.DEV_ATTR_REG: self.register,
                Function.DEV_ATTR_QRY: self.query,
                Function.DEV_DEREG: self.deregister,
                Function.SCN_REG: self.subscribe,
            }[Function(message.function)](str(source.value), key, operating, bool(message.flags & Flag.REPLACE))
        wire = encode(Message(message.function | RESPONSE, message.transaction_id, payload, Flag.SERVER))
        self.largest = max(self.largest, len(wire))
        return wire

    def register(self, source: str, key: list[Attribute], operating: list[Attribute], replace: bool) -> bytes:
        assert operating[0] == key[0]
        assert key[0].tag == Tag.ENTITY_IDENTIFIER
        identifier = str(key[0].value)
        if any(each.tag == Tag.ESI_PORT for each in operating) and not self.esi:
            return messages.respond(Status.ESI_NOT_AVAILABLE)
        if replace:
            self.entities.pop(identifier, None)
        entity = self.entities.setdefault(identifier, Entity())
        node = ""
        tag: object = None
        address = ""
        current: dict[int, object] = {}
        answer: list[Attribute] = []
        for attribute in operating:
            answer.append(attribute)
            match attribute:
                case (Tag.PORTAL_IP_ADDRESS | Tag.PG_PORTAL_IP_ADDRESS, str(value)):
                    address = value
                case (Tag.PORTAL_PORT, int(value)):
                    current = entity.portals[address, value] = {}
                case (Tag.ISCSI_NAME, str(value)):
                    node, current = value, entity.nodes.setdefault(value, {})
                case (Tag.PG_TAG, value):
                    tag = value
                case (Tag.PG_PORTAL_PORT, int(value)):
                    assert (address, value) in entity.portals, "a group of a portal that is not there"
                    entity.groups[node, (address, value)] = tag  # type: ignore[assignment]
                    answer.append(Attribute(Tag.PG_ISCSI_NAME, node))  # as open-isns does
                case (Tag.REGISTRATION_PERIOD, int()):
                    answer[-1] = Attribute(Tag.REGISTRATION_PERIOD, self.period)
                case (other, value):
                    current[other] = value
        assert entity.nodes, "an entity without a node"
        assert source in entity.nodes, "a source that is no node of the entity"
        entity.default_groups()
        return messages.respond(0, [*key, DELIMITER, *answer])

    def query(self, source: str, key: list[Attribute], operating: list[Attribute], _replace: bool) -> bytes:
        assert all(each.value is None for each in operating)
        found: list[Attribute] = []
        (wanted,) = key
        assert wanted.tag == Tag.ISCSI_NAME
        for entity in self.entities.values():
            if wanted.value in entity.nodes:
                found.append(Attribute(Tag.ISCSI_NAME, wanted.value))
                for (name, portal), tag in entity.groups.items():
                    if name == wanted.value and tag is not None and portal in entity.portals:
                        found += messages.portal_key(portal)
        return messages.respond(0, [*key, DELIMITER, *found])

    def deregister(self, source: str, key: list[Attribute], operating: list[Attribute], _replace: bool) -> bytes:
        assert not key  # clause 5.6.5.4
        address = ""
        for entity in [entity for entity in self.entities.values() if source in entity.nodes]:
            for attribute in operating:
                match attribute:
                    case (Tag.ENTITY_IDENTIFIER, value):
                        self.entities.pop(str(value))
                        for name in entity.nodes:
                            self.subscribed.pop(name, None)
                    case (Tag.PORTAL_IP_ADDRESS, value):
                        address = str(value)
                    case (Tag.PORTAL_PORT, int(value)):
                        entity.portals.pop((address, value), None)
                        entity.groups = {pair: tag for pair, tag in entity.groups.items() if pair[1] != (address, value)}
                    case (Tag.ISCSI_NAME, value):
                        assert value != source, "a source that deregisters itself"
                        entity.nodes.pop(str(value), None)
                        entity.groups = {pair: tag for pair, tag in entity.groups.items() if pair[0] != value}
        return messages.respond(0, [DELIMITER])

    def subscribe(self, source: str, key: list[Attribute], operating: list[Attribute], _replace: bool) -> bytes:
        assert [(each.tag, each.value) for each in key] == [(Tag.ISCSI_NAME, source)]
        ((tag, bitmap),) = operating
        assert tag == Tag.ISCSI_SCN_BITMAP
        assert isinstance(bitmap, int)
        self.subscribed[source] = bitmap
        return messages.respond(0, [DELIMITER])
