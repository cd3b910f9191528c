"""iSNS PDUs, attributes and what a server sends of itself: RFC 4171 5.1 to 5.7, 6.1."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_iscsi.protocol import isns_messages as messages
from tcm_iscsi.protocol.isns_attributes import (
    DELIMITER,
    KINDS,
    MAX_ATTRIBUTES,
    Attribute,
    Tag,
    decode_attributes,
    encode_attributes,
    split_at_delimiter,
)
from tcm_iscsi.protocol.isns_messages import Node, Portal, Registration, Scn
from tcm_iscsi.protocol.isns_notifications import (
    MAX_NOTIFICATION,
    HeartbeatReceived,
    NotificationConnection,
    StateChanged,
    StatusInquired,
    handle,
)
from tcm_iscsi.protocol.isns_pdu import (
    MAX_AUTHENTICATION_BLOCK,
    MAX_MESSAGE,
    MAX_PAYLOAD,
    RESPONSE,
    Flag,
    Function,
    IsnsError,
    Message,
    MessageReader,
    Status,
    encode,
    status_text,
)

TARGET, INITIATOR = "iqn.2003-01.org.example:target", "iqn.2003-01.org.example:initiator"


def read(wire: bytes, **options: int) -> list[Message]:
    reader = MessageReader(**options)
    reader.receive_data(wire)
    return list(reader.messages())


def header(function: int = 1, length: int = 0, flags: int = 0x0C00, transaction: int = 7, sequence: int = 0) -> bytes:
    return struct.pack(">HHHHHH", 1, function, length, flags, transaction, sequence)


# PDUs


def test_header_layout() -> None:
    """5.1: the bytes, written out."""
    wire = encode(Message(Function.DEV_ATTR_REG, 0x1234, b"abcd", Flag.CLIENT | Flag.REPLACE))
    assert wire == bytes.fromhex("0001 0001 0004 9c00 1234 0000") + b"abcd"


@pytest.mark.parametrize("size", [0, 4, 8, 12, 16, 40])
@pytest.mark.parametrize("max_payload", [4, 8, MAX_PAYLOAD])
def test_messages_whole_and_byte_by_byte(size: int, max_payload: int) -> None:
    """5.2: three messages and the beginning of a fourth, in one PDU or many, cut in every way."""
    message = Message(Function.DEV_ATTR_QRY | RESPONSE, 9, bytes(range(size)), Flag.SERVER)
    wire = encode(message, max_payload)
    assert len(wire) == size + 12 * max(1, -(-size // max_payload))
    stream = wire * 3 + wire[:11]
    assert read(stream) == [message] * 3
    reader = MessageReader()
    found = []
    for at in range(len(stream)):
        reader.receive_data(stream[at : at + 1])
        found += list(reader.messages())
    assert found == [message] * 3
    assert reader.unfinished
    reader.receive_data(wire[11:])
    assert reader.next_message() == message
    assert not reader.unfinished


def test_a_message_longer_than_a_pdu() -> None:
    """5.1.3: the length has 16 bits; longer messages have several PDUs, numbered from 0."""
    message = Message(Function.DEV_ATTR_REG, 1, bytes(MAX_PAYLOAD * 2 + 4), Flag.CLIENT)
    wire = encode(message)
    assert [struct.unpack_from(">HHHHHH", wire, at * (MAX_PAYLOAD + 12))[2:] for at in range(3)] == [
        (MAX_PAYLOAD, 0x8400, 1, 0),
        (MAX_PAYLOAD, 0x8000, 1, 1),
        (4, 0x8800, 1, 2),
    ]
    assert read(wire) == [message]


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"\0\2" + header()[2:], "iSNSP version 2"),
        (header(length=3) + bytes(3), "no multiple of 4"),
        (header(flags=0x0800), "a message begins with"),
        (header(sequence=1), "a message begins with"),
        (header(flags=0x0400) + header(flags=0x0800, sequence=2), "inside another message"),
        (header(flags=0x0400) + header(flags=0x0800, sequence=1, transaction=8), "inside another message"),
        (header(flags=0x0400) + header(flags=0x0800, sequence=1, function=2), "inside another message"),
        (header(flags=0x0400) + header(flags=0x0C00, sequence=1), "inside another message"),
        (header(flags=0x2C00) + struct.pack(">II", 2, MAX_AUTHENTICATION_BLOCK + 1), "an authentication block of"),
        (header(flags=0x2C00) + struct.pack(">II", 2, 4), "an authentication block of"),
        (b"GET / HTTP/1.0\r\n\r\n", "iSNSP version"),
    ],
)
def test_what_is_no_message(wire: bytes, why: str) -> None:
    with pytest.raises(IsnsError, match=why):
        read(wire)


def test_messages_before_a_bad_one_are_good() -> None:
    good = Message(Function.ESI, 1, b"1234", Flag.SERVER)
    reader = MessageReader()
    reader.receive_data(encode(good) + header(length=1))
    messages_found = reader.messages()
    assert next(messages_found) == good
    with pytest.raises(IsnsError):
        next(messages_found)


def test_authentication_block_is_skipped() -> None:
    """5.5: it follows the payload, and its length counts from its beginning."""
    block = struct.pack(">IIQI", 2, 24, 0, 4) + b"name"
    wire = header(flags=0x6C00, length=4) + b"1234" + block
    found = read(wire * 2)
    assert [message.payload for message in found] == [b"1234"] * 2
    assert read(wire[:-1]) == []


def test_endless_message_is_bounded() -> None:
    """A message of ever more PDUs ends at the bound, with no more than that in memory."""
    reader = MessageReader(max_message=1000)
    reader.receive_data(header(flags=0x0400, length=600) + bytes(600))
    assert reader.next_message() is None
    reader.receive_data(header(flags=0, length=600, sequence=1) + bytes(600))
    with pytest.raises(IsnsError, match="more than 1000 bytes"):
        reader.next_message()
    assert MAX_MESSAGE <= 1 << 20


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_an_error(data: bytes) -> None:
    """Nothing but IsnsError, and no byte that is not there."""
    for wire in (data, b"\0\1" + data, header(length=len(data) & ~3) + data):
        try:
            found = read(wire)
        except IsnsError:
            continue
        assert sum(len(message.payload) + 12 for message in found) <= len(wire)


@given(
    st.sampled_from(Function),
    st.integers(0, 0xFFFF),
    st.binary(max_size=300).map(lambda data: data[: len(data) & ~3]),
    st.sampled_from([4, 16, 64, MAX_PAYLOAD]),
    st.lists(st.integers(1, 50), max_size=20),
)
def test_round_trip_in_any_pieces(function: Function, number: int, payload: bytes, size: int, cuts: list[int]) -> None:
    message = Message(function, number, payload, Flag.CLIENT)
    wire = encode(message, size)
    reader = MessageReader()
    found = []
    for cut in cuts:
        reader.receive_data(wire[:cut])
        wire = wire[cut:]
        found += list(reader.messages())
    reader.receive_data(wire)
    assert found + list(reader.messages()) == [message]


# attributes


@pytest.mark.parametrize(
    ("attribute", "wire"),
    [
        (Attribute(Tag.ENTITY_IDENTIFIER, "abc"), "00000001 00000004 61626300"),
        (Attribute(Tag.ENTITY_IDENTIFIER, "abcd"), "00000001 00000008 61626364 00000000"),
        (Attribute(Tag.PORTAL_IP_ADDRESS, "192.0.2.1"), "00000010 00000010 00000000 00000000 0000ffff c0000201"),
        (Attribute(Tag.PORTAL_IP_ADDRESS, "2001:db8::1"), "00000010 00000010 20010db8 00000000 00000000 00000001"),
        (Attribute(Tag.PORTAL_PORT, 3260), "00000011 00000004 00000cbc"),
        (Attribute(Tag.TIMESTAMP, 1), "00000004 00000008 00000000 00000001"),
        (Attribute(Tag.PG_TAG, 7), "00000033 00000004 00000007"),
        (Attribute(Tag.PG_TAG, None), "00000033 00000000"),
        (DELIMITER, "00000000 00000000"),
        (Attribute(0x777, b"1234"), "00000777 00000004 31323334"),
    ],
)
def test_attribute_layout(attribute: Attribute, wire: str) -> None:
    """5.3, 6.1, and texts end in zeros (5.3.1)."""
    assert encode_attributes([attribute]) == bytes.fromhex(wire)
    assert decode_attributes(bytes.fromhex(wire)) == [attribute]


@pytest.mark.parametrize(
    "attribute",
    [
        Attribute(Tag.PORTAL_PORT, 1 << 32),
        Attribute(Tag.PORTAL_PORT, -1),
        Attribute(Tag.PORTAL_PORT, "80"),
        Attribute(Tag.PORTAL_IP_ADDRESS, "host"),
        Attribute(Tag.PORTAL_IP_ADDRESS, 1),
        Attribute(Tag.ISCSI_NAME, "x" * 224),
        Attribute(Tag.ENTITY_IDENTIFIER, "x" * 256),
        Attribute(Tag.ISCSI_NAME, ""),
        Attribute(Tag.ISCSI_NAME, "a\0b"),
        Attribute(0x777, b"123"),
    ],
)
def test_values_that_cannot_be_written(attribute: Attribute) -> None:
    with pytest.raises(ValueError):
        encode_attributes([attribute])


def test_the_longest_texts() -> None:
    """6.4.1: a name has 223 bytes; other texts 255, with 224 and 256 on the wire."""
    for tag, longest in ((Tag.ISCSI_NAME, 223), (Tag.ENTITY_IDENTIFIER, 255)):
        wire = encode_attributes([Attribute(tag, "x" * longest)])
        assert len(wire) == longest + 1 + 8
        assert decode_attributes(wire) == [Attribute(tag, "x" * longest)]


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        ("00000001", "ends inside"),
        ("00000001 00000004", "has length 4, with 0"),
        ("00000001 fffffffc 61616161", "has length"),
        ("00000001 00000003 616100", "has length 3"),
        ("00000001 00000004 61616161", "does not end in a zero"),
        ("00000001 00000004 ff000000", "not UTF-8"),
        ("00000020 000000e4" + "61" * 0xE0 + "00000000", "a text of 228 bytes"),
        ("00000010 00000004 c0000201", "has 4 bytes instead of 16"),
        ("00000011 00000008 00000000 00000000", "has 8 bytes instead of 4"),
    ],
)
def test_what_is_no_attribute(wire: str, why: str) -> None:
    with pytest.raises(IsnsError, match=why):
        decode_attributes(bytes.fromhex(wire))


def test_number_of_attributes_is_bounded() -> None:
    one = encode_attributes([Attribute(Tag.PG_TAG, None)])
    assert len(decode_attributes(one * MAX_ATTRIBUTES)) == MAX_ATTRIBUTES
    with pytest.raises(IsnsError, match="more than"):
        decode_attributes(one * (MAX_ATTRIBUTES + 1))


VALUES = {
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=55),
    "uint32": st.integers(0, 0xFFFFFFFF),
    "uint64": st.integers(0, (1 << 64) - 1),
    "address": st.ip_addresses().filter(lambda address: getattr(address, "ipv4_mapped", None) is None).map(str),
}


@given(
    st.lists(
        st.sampled_from(sorted(KINDS)).flatmap(
            lambda tag: st.one_of(st.none(), VALUES[KINDS[tag]]).map(lambda value: Attribute(tag, value))
        ),
        max_size=10,
    )
)
def test_attributes_round_trip(attributes: list[Attribute]) -> None:
    wire = encode_attributes(attributes)
    assert len(wire) % 4 == 0
    assert decode_attributes(wire) == attributes
    assert decode_attributes(memoryview(bytearray(wire))) == attributes
    for end in range(4, len(wire), 4):  # what is cut off is an error, or fewer attributes
        with contextlib.suppress(IsnsError):
            assert decode_attributes(wire[:end]) == attributes[: len(decode_attributes(wire[:end]))]


@given(st.binary(max_size=120))
def test_any_bytes_are_attributes_or_an_error(data: bytes) -> None:
    try:
        found = decode_attributes(data)
    except IsnsError:
        return
    assert len(found) * 8 <= len(data)


# messages


def test_registration_layout() -> None:
    """5.6.5.1: source, key, delimiter; entity, portals, nodes, each node followed by its groups (6.5.4: a NULL tag)."""
    one, two = Portal("192.0.2.1", 3260, 60, 7000, 7000), Portal("2001:db8::1", 3261)
    node = Node(TARGET, "disk", ((one.key, 1), (two.key, None)))
    payload = messages.register(TARGET, Registration("entity", (one, two), (node,)), 300)
    assert decode_attributes(payload) == [
        (Tag.ISCSI_NAME, TARGET),
        (Tag.ENTITY_IDENTIFIER, "entity"),
        DELIMITER,
        (Tag.ENTITY_IDENTIFIER, "entity"),
        (Tag.ENTITY_PROTOCOL, 2),
        (Tag.REGISTRATION_PERIOD, 300),
        (Tag.PORTAL_IP_ADDRESS, "192.0.2.1"),
        (Tag.PORTAL_PORT, 3260),
        (Tag.ESI_INTERVAL, 60),
        (Tag.ESI_PORT, 7000),
        (Tag.SCN_PORT, 7000),
        (Tag.PORTAL_IP_ADDRESS, "2001:db8::1"),
        (Tag.PORTAL_PORT, 3261),
        (Tag.ISCSI_NAME, TARGET),
        (Tag.ISCSI_NODE_TYPE, 1),
        (Tag.ISCSI_ALIAS, "disk"),
        (Tag.PG_TAG, 1),
        (Tag.PG_PORTAL_IP_ADDRESS, "192.0.2.1"),
        (Tag.PG_PORTAL_PORT, 3260),
        (Tag.PG_TAG, None),
        (Tag.PG_PORTAL_IP_ADDRESS, "2001:db8::1"),
        (Tag.PG_PORTAL_PORT, 3261),
    ]


def test_other_requests() -> None:
    """5.6.5.2, 5.6.5.4, 5.6.5.5."""
    name = Attribute(Tag.ISCSI_NAME, TARGET)
    assert decode_attributes(messages.deregister(TARGET, messages.portal_key(("192.0.2.1", 3260)))) == [
        name,
        DELIMITER,
        (Tag.PORTAL_IP_ADDRESS, "192.0.2.1"),
        (Tag.PORTAL_PORT, 3260),
    ]
    asked = messages.query(TARGET, [Attribute(Tag.ENTITY_IDENTIFIER, "entity")], (Tag.ISCSI_NAME,))
    assert decode_attributes(asked) == [name, (Tag.ENTITY_IDENTIFIER, "entity"), DELIMITER, (Tag.ISCSI_NAME, None)]
    assert decode_attributes(messages.subscribe(TARGET, Scn.OBJECT_REMOVED)) == [
        name,
        name,
        DELIMITER,
        (Tag.ISCSI_SCN_BITMAP, 16),
    ]


def test_responses() -> None:
    """5.4: the status comes first; nothing is made of what follows a failure."""
    key, period = Attribute(Tag.ENTITY_IDENTIFIER, "entity"), Attribute(Tag.REGISTRATION_PERIOD, 60)
    response = messages.parse_response(messages.respond(0, [key, DELIMITER, key, period]))
    assert (response.status, response.key, response.operating) == (0, (key,), (key, period))
    assert response.first(Tag.REGISTRATION_PERIOD) == 60
    assert response.first(Tag.PG_TAG) is None
    assert messages.parse_response(b"\0\0\0\x03junk").status == Status.INVALID_REGISTRATION
    with pytest.raises(IsnsError, match="without a status"):
        messages.parse_response(b"")
    assert split_at_delimiter([key]) == ([key], [])
    assert status_text(3) == "invalid registration (3)"
    assert status_text(4) == "reserved (4)"


def test_objects_of_an_answer() -> None:
    name, address, port = Attribute(Tag.ISCSI_NAME, TARGET), *messages.portal_key(("192.0.2.1", 3260))
    found = messages.objects([name, Attribute(Tag.ISCSI_NODE_TYPE, 1), address, port, address, port])
    assert found == [
        {Tag.ISCSI_NAME: TARGET, Tag.ISCSI_NODE_TYPE: 1},
        *[{Tag.PORTAL_IP_ADDRESS: "192.0.2.1", Tag.PORTAL_PORT: 3260}] * 2,
    ]


# what a server sends of itself


def scn(*attributes: Attribute) -> Message:
    return Message(Function.SCN, 5, encode_attributes(attributes), Flag.SERVER)


TO = Attribute(Tag.ISCSI_NAME, TARGET)
AT = Attribute(Tag.TIMESTAMP, 1_700_000_000)


def bitmap(changes: int) -> Attribute:
    return Attribute(Tag.ISCSI_SCN_BITMAP, changes)


def test_state_change_notification() -> None:
    """5.6.5.8: several changes in one message; 5.7.5.8: the answer has the destination."""
    other = Attribute(Tag.ISCSI_NAME, INITIATOR.upper())
    dd = Attribute(Tag.DD_ID, 3)
    answer, found = handle(scn(TO, AT, bitmap(0x08), other, dd, bitmap(0x10), TO))
    assert answer is not None
    assert (answer.function, answer.transaction_id, answer.flags) == (Function.SCN | RESPONSE, 5, Flag.CLIENT)
    assert decode_attributes(answer.payload[4:]) == [TO]
    assert answer.payload[:4] == bytes(4)
    assert found == [
        StateChanged(TARGET, INITIATOR, Scn.OBJECT_ADDED),
        StateChanged(TARGET, TARGET, Scn.OBJECT_REMOVED),
    ]


@pytest.mark.parametrize(
    "attributes",
    [
        (),
        (TO,),
        (TO, AT, bitmap(8)),
        (AT, TO, bitmap(8), TO),
        (TO, AT, TO, bitmap(8)),
        (TO, AT, bitmap(8), Attribute(Tag.ISCSI_NAME, "nonsense")),
        (Attribute(Tag.ISCSI_NAME, "nonsense"), AT, bitmap(8), TO),
        (TO, AT, bitmap(8), Attribute(Tag.ISCSI_NAME, "iqn.2003-01.org.example:x\n2026 forged log line")),
        (TO, AT, bitmap(8), Attribute(Tag.ISCSI_NAME)),
    ],
)
def test_bad_state_change_is_rejected(attributes: tuple[Attribute, ...]) -> None:
    answer, found = handle(scn(*attributes))
    assert answer is not None
    assert messages.parse_response(answer.payload).status == Status.SCN_EVENT_REJECTED
    assert found == []


def test_entity_status_inquiry() -> None:
    """5.6.5.13: the answer repeats the attributes after the status."""
    attributes = [AT, Attribute(Tag.ENTITY_IDENTIFIER, "entity"), *messages.portal_key(("192.0.2.1", 3260))]
    answer, found = handle(Message(Function.ESI, 6, encode_attributes(attributes), Flag.SERVER))
    assert answer is not None
    assert answer.function == 0x800D
    assert answer.payload == bytes(4) + encode_attributes(attributes)
    assert found == [StatusInquired("entity", "192.0.2.1", 3260)]
    answer, found = handle(Message(Function.ESI, 6, encode_attributes(attributes[1:]), Flag.SERVER))
    assert answer is not None
    assert messages.parse_response(answer.payload).status == Status.MESSAGE_FORMAT_ERROR
    assert found == []


def test_heartbeat() -> None:
    """5.6.5.14: no attributes, no answer."""
    address = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 9])
    payload = address + struct.pack(">HHIIHH", 3205, 0, 30, 77, 0, 1) + bytes(20)
    assert handle(Message(Function.HEARTBEAT, 0, payload)) == (None, [HeartbeatReceived("192.0.2.9", 3205, 30, 77, 1)])
    assert handle(Message(Function.HEARTBEAT, 0, payload[:28])) == (None, [])


def test_other_requests_of_a_server() -> None:
    answer, found = handle(Message(Function.DEV_ATTR_QRY, 3, b""))
    assert answer is not None
    assert messages.parse_response(answer.payload).status == Status.MESSAGE_NOT_SUPPORTED
    assert found == []


def test_notification_connection_byte_by_byte() -> None:
    wire = encode(scn(TO, AT, bitmap(0x10), TO)) * 2
    connection = NotificationConnection()
    whole = connection.receive_data(wire)
    assert len(whole[1]) == 2
    out, found = b"", []
    for at in range(len(wire)):
        answer, notifications = connection.receive_data(wire[at : at + 1])
        out += answer
        found += notifications
    assert (out, found) == whole
    assert not connection.unfinished


@pytest.mark.parametrize(
    "wire",
    [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0",
        encode(Message(Function.SCN | RESPONSE, 1, bytes(4))),
        encode(Message(Function.SCN, 1, bytes(MAX_NOTIFICATION + 4))),
    ],
)
def test_notification_connection_ends(wire: bytes) -> None:
    with pytest.raises(IsnsError):
        NotificationConnection().receive_data(wire)


@given(st.sampled_from([Function.SCN, Function.ESI, Function.HEARTBEAT, 0x77]), st.binary(max_size=120))
def test_any_notification_is_answered(function: int, payload: bytes) -> None:
    answer, _ = handle(Message(function, 1, payload))
    assert (answer is None) == (function == Function.HEARTBEAT)
    if answer is not None:
        encode(answer)
