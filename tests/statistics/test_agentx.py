"""The sub-agent against a master agent that the test plays byte by byte (RFC 2741)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.statistics import agentx
from tcm.statistics.agentx import AgentXError, PduType
from tcm.statistics.mib import Column, Module, Notification, Oid, Syntax, Table, View
from tcm.statistics.subagent import (
    ANSWER_SECONDS,
    MAXIMUM_BINDS,
    MAXIMUM_SETS,
    PING_SECONDS,
    SNMP_TRAP_OID,
    State,
    SubAgent,
)

BASE: Oid = (1, 3, 6, 1, 2, 1, 4711)
ENTRY = (*BASE, 1, 1)


@dataclass
class Row:
    number: int
    text: bytes


ROWS = {(1,): Row(5, b"one"), (2,): Row(-7, b"two!"), (10, 0): Row(1 << 40, b"")}
TABLE = Table(
    "table",
    (*BASE, 1),
    lambda: list(ROWS.items()),
    (
        Column(2, "number", Syntax.INTEGER, lambda row: row.number % 1000),
        Column(3, "text", Syntax.OCTET_STRING, lambda row: row.text),
        Column(5, "big", Syntax.COUNTER_64, lambda row: row.number),
        Column(6, "small", Syntax.COUNTER_32, lambda row: row.number),
        Column(7, "when", Syntax.TIME_TICKS, lambda row: 103.5),
        Column(8, "where", Syntax.OBJECT_IDENTIFIER, lambda row: (1, 3, 6, 1, 2, 1)),
        Column(9, "gauge", Syntax.GAUGE_32, lambda row: max(row.number, 0)),
    ),
)
EVENT = Notification("event", (*BASE, 0, 1), TABLE, "number", ("number", "text"))
MODULE = Module("TEST-MIB", BASE, (TABLE,), (EVENT,))


@dataclass
class Bind:
    name: Oid
    type: int
    value: object


@dataclass
class Sent:
    """A PDU of the sub-agent's, in network byte order as it says."""

    type: int
    session: int
    transaction: int
    packet: int
    payload: bytes
    error: int = 0
    index: int = 0

    @property
    def binds(self) -> list[Bind]:
        return list(read_binds(self.payload[8:] if self.type == PduType.RESPONSE else self.payload))


def read_oid(data: bytes) -> tuple[Oid, bytes]:
    count, prefix = data[0], data[1]
    oid = struct.unpack(f">{count}I", data[4 : 4 + 4 * count])
    return ((1, 3, 6, 1, prefix, *oid) if prefix else oid), data[4 + 4 * count :]


def read_binds(data: bytes) -> Iterator[Bind]:
    while data:
        kind = int.from_bytes(data[:2], "big")
        name, data = read_oid(data[4:])
        value: object = None
        if kind in {2, 65, 66, 67}:
            value, data = int.from_bytes(data[:4], "big", signed=kind == 2), data[4:]
        elif kind == 70:
            value, data = int.from_bytes(data[:8], "big"), data[8:]
        elif kind == 4:
            length = int.from_bytes(data[:4], "big")
            value, data = data[4 : 4 + length], data[4 + length + -length % 4 :]
        elif kind == 6:
            value, data = read_oid(data)
        yield Bind(name, kind, value)


class Master:
    """The other end."""

    def __init__(self, order: str = ">") -> None:
        self.order = order
        self.agent = SubAgent(View([MODULE]), 100.0)
        self.sent: list[Sent] = []
        self.gather()

    def gather(self) -> list[Sent]:
        """What it has sent since the last look."""
        new = []
        data = b"".join(self.agent.data_to_send())
        while data:
            version, kind, flags, session, transaction, packet, length = struct.unpack(">BBBxIIII", data[:20])
            assert (version, flags) == (1, 0x10)
            assert length % 4 == 0
            payload, data = data[20 : 20 + length], data[20 + length :]
            pdu = Sent(kind, session, transaction, packet, payload)
            if kind == PduType.RESPONSE:
                pdu.error, pdu.index = struct.unpack(">HH", payload[4:8])
            new.append(pdu)
        self.sent += new
        return new

    def pdu(self, kind: int, payload: bytes = b"", *, packet: int = 99, flags: int = 0, session: int = 7) -> bytes:
        flags |= 0x10 if self.order == ">" else 0
        return struct.pack(f"{self.order}BBBxIIII", 1, kind, flags, session, 3, packet, len(payload)) + payload

    def say(self, *data: bytes, now: float = 100.0) -> list[Sent]:
        self.agent.receive_data(b"".join(data), now)
        return self.gather()

    def answer(self, packet: int, *, error: int = 0, uptime: int = 350, now: float = 100.0) -> list[Sent]:
        return self.say(self.pdu(18, struct.pack(f"{self.order}IHH", uptime, error, 0), packet=packet), now=now)

    def running(self) -> Master:
        (register,) = self.answer(self.sent[0].packet)
        assert register.type == PduType.REGISTER
        assert self.answer(register.packet) == []
        assert self.agent.state is State.RUNNING
        return self

    def oid(self, oid: Oid, include: int = 0) -> bytes:
        prefix = 0
        if oid[:4] == (1, 3, 6, 1) and len(oid) > 5 and self.order == ">":
            prefix, oid = oid[4], oid[5:]
        return struct.pack(f"{self.order}BBBB{len(oid)}I", len(oid), prefix, include, 0, *oid)

    def ask(self, kind: PduType, *ranges: tuple[Oid, Oid, int], head: bytes = b"", flags: int = 0) -> list[Bind]:
        payload = head + b"".join(self.oid(start, include) + self.oid(end) for start, end, include in ranges)
        (answer,) = self.say(self.pdu(kind, payload, flags=flags))
        assert (answer.type, answer.packet, answer.session, answer.error) == (PduType.RESPONSE, 99, 7, 0)
        return answer.binds


@pytest.fixture(params=[">", "<"])
def master(request: pytest.FixtureRequest) -> Master:
    return Master(request.param).running()


def test_it_opens_and_registers() -> None:
    master = Master()
    opening = master.sent[0]
    assert opening.type == PduType.OPEN
    assert opening.payload[0] == ANSWER_SECONDS
    assert b"tcm" in opening.payload
    (register,) = master.answer(opening.packet)
    assert register.session == 7
    assert read_oid(register.payload[4:])[0] == BASE
    assert master.agent.state is State.REGISTERING
    master.answer(register.packet)
    assert master.agent.state is State.RUNNING


@pytest.mark.parametrize("step", [0, 1])
def test_a_master_that_refuses(step: int) -> None:
    master = Master()
    if step:
        master.answer(master.sent[0].packet)
    with pytest.raises(AgentXError, match=f"refuses to {('open', f'register {MODULE.name}')[step]}: duplicateRegistration"):
        master.answer(master.sent[-1].packet, error=263)


def test_get(master: Master) -> None:
    names = [(*ENTRY, column, *index) for column, index in ((2, (1,)), (2, (2,)), (5, (10, 0)), (6, (10, 0)), (9, (10, 0)))]
    assert [bind.value for bind in master.ask(PduType.GET, *((name, (), 0) for name in names))] == [
        5, 993, 1 << 40, 0, 0xFFFFFFFF,
    ]  # fmt: skip
    assert [(bind.type, bind.value) for bind in master.ask(PduType.GET, ((*ENTRY, 3, 2), (), 0), ((*ENTRY, 8, 1), (), 0))] == [
        (4, b"two!"),
        (6, (1, 3, 6, 1, 2, 1)),
    ]


def test_moments_are_told_on_the_masters_clock(master: Master) -> None:
    """Its sysUpTime was 3.5 s when we heard at 100.0: 103.5 is 7 s after its start."""
    (bind,) = master.ask(PduType.GET, ((*ENTRY, 7, 1), (), 0))
    assert (bind.type, bind.value) == (67, 700)


def test_what_is_not_there(master: Master) -> None:
    binds = master.ask(PduType.GET, ((*ENTRY, 2, 3), (), 0), ((*ENTRY, 1, 1), (), 0), (BASE, (), 0), ((1, 3), (), 0))
    assert [bind.type for bind in binds] == [129, 128, 128, 128]


def test_get_next_walks_column_by_column(master: Master) -> None:
    at, seen = BASE, []
    end = (*BASE[:-1], BASE[-1] + 1)
    while True:
        (bind,) = master.ask(PduType.GET_NEXT, (at, end, 0))
        if bind.type == 130:
            assert bind.name == at
            break
        at = bind.name
        seen.append(at)
    assert seen == [(*ENTRY, column.number, *index) for column in TABLE.columns for index in sorted(ROWS)]
    assert master.ask(PduType.GET_NEXT, ((*ENTRY, 2, 1), (), 1))[0].name == (*ENTRY, 2, 1)
    assert master.ask(PduType.GET_NEXT, ((*ENTRY, 2, 1), (*ENTRY, 2, 2), 0))[0].type == 130


def test_get_bulk(master: Master) -> None:
    head = struct.pack(f"{master.order}HH", 1, 3)
    binds = master.ask(PduType.GET_BULK, (BASE, (), 0), (BASE, (), 0), ((*ENTRY, 9, 2), (), 0), head=head)
    assert [bind.name for bind in binds] == [
        (*ENTRY, 2, 1), (*ENTRY, 2, 1), (*ENTRY, 9, 10, 0), (*ENTRY, 2, 2), (*ENTRY, 9, 10, 0), (*ENTRY, 2, 10, 0),
        (*ENTRY, 9, 10, 0),
    ]  # fmt: skip
    assert [bind.type for bind in binds][4::2] == [130, 130]


def test_get_bulk_is_bounded(master: Master) -> None:
    head = struct.pack(f"{master.order}HH", 0, 65535)
    assert len(master.ask(PduType.GET_BULK, (BASE, (), 0), head=head)) == len(ROWS) * len(TABLE.columns) + 1
    ranges = [(BASE, (), 0)] * 100
    assert len(master.ask(PduType.GET_BULK, *ranges, head=head)) <= MAXIMUM_BINDS
    # at least one of each, or whoever walks like this would not get on
    assert len(master.ask(PduType.GET_BULK, *ranges, *ranges, *ranges, head=head)) == 300


def test_nothing_is_in_other_contexts(master: Master) -> None:
    """What is registered in the default one is in no other (RFC 2741 clause 6.1.1)."""
    context = struct.pack(f"{master.order}I", 5) + b"other\0\0\0"
    wanted = ((*ENTRY, 2, 1), (), 0)
    for kind, head, answer in (
        (PduType.GET, b"", agentx.NO_SUCH_OBJECT),
        (PduType.GET_NEXT, b"", agentx.END_OF_MIB_VIEW),
        (PduType.GET_BULK, struct.pack(f"{master.order}HH", 0, 9), agentx.END_OF_MIB_VIEW),
    ):
        binds = master.ask(kind, wanted, wanted, head=context + head, flags=0x08)
        assert [(bind.name, bind.type) for bind in binds] == [(wanted[0], answer)] * 2
        # an empty name is the default one's
        assert master.ask(kind, wanted, head=bytes(4) + head, flags=0x08)[0].type == 2
    bind = struct.pack(f"{master.order}HH", 2, 0) + master.oid((*ENTRY, 2, 1)) + struct.pack(f"{master.order}i", -3)
    (answer,) = master.say(master.pdu(PduType.TEST_SET, context + bind, flags=0x08))
    assert (answer.error, answer.index) == (agentx.Error.NOT_WRITABLE, 1)
    assert not master.agent.sets


def test_steps_of_sets_wait_for_whoever_performs_them(master: Master) -> None:
    bind = struct.pack(f"{master.order}HH", 2, 0) + master.oid((*ENTRY, 2, 1)) + struct.pack(f"{master.order}i", -3)
    text = struct.pack(f"{master.order}HH", 4, 0) + master.oid((*ENTRY, 3, 1)) + struct.pack(f"{master.order}I", 3) + b"abc\0"
    null = struct.pack(f"{master.order}HH", 5, 0) + master.oid((*ENTRY, 3, 2))
    big = struct.pack(f"{master.order}HH", 70, 0) + master.oid((*ENTRY, 5, 1)) + struct.pack(f"{master.order}Q", 1 << 40)
    where = struct.pack(f"{master.order}HH", 6, 0) + master.oid((*ENTRY, 8, 1)) + master.oid((1, 3, 6, 1, 2, 1))
    assert master.say(master.pdu(PduType.TEST_SET, bind + text + null + big + where)) == []
    test = master.agent.sets.popleft()
    assert [(each.name, each.type, each.value) for each in test.wanted] == [
        ((*ENTRY, 2, 1), 2, -3), ((*ENTRY, 3, 1), 4, b"abc"), ((*ENTRY, 3, 2), 5, None), ((*ENTRY, 5, 1), 70, 1 << 40),
        ((*ENTRY, 8, 1), 6, (1, 3, 6, 1, 2, 1)),
    ]  # fmt: skip
    assert test.transaction == 3
    master.agent.answer_set(test, agentx.Error.WRONG_VALUE, 2)
    (answer,) = master.gather()
    assert (answer.type, answer.packet, answer.error, answer.index) == (PduType.RESPONSE, 99, 10, 2)
    for kind in (PduType.COMMIT_SET, PduType.UNDO_SET, PduType.CLEANUP_SET):
        master.say(master.pdu(kind))
        assert master.agent.sets[0].type == kind
        master.agent.answer_set(master.agent.sets.popleft(), agentx.Error.NO_ERROR, 0)
    master.gather()
    # CleanupSet has no answer
    assert [each.error for each in master.sent if each.type == PduType.RESPONSE] == [10, 0, 0]


def test_sets_that_nobody_waits_for_are_bounded(master: Master) -> None:
    for _ in range(MAXIMUM_SETS):
        master.say(master.pdu(PduType.CLEANUP_SET))
    with pytest.raises(AgentXError, match="nobody waits for"):
        master.say(master.pdu(PduType.CLEANUP_SET))


def test_more_names_than_may_be_are_refused_and_nothing_else(master: Master) -> None:
    one = struct.pack(f"{master.order}HH", 2, 0) + master.oid((*ENTRY, 2, 1)) + struct.pack(f"{master.order}i", 1)
    (answer,) = master.say(master.pdu(PduType.TEST_SET, one * (agentx.MAXIMUM_RANGES + 1)))
    assert (answer.error, answer.index) == (agentx.Error.RESOURCE_UNAVAILABLE, agentx.MAXIMUM_RANGES)
    (answer,) = master.say(master.pdu(PduType.GET, (master.oid((*ENTRY, 2, 1)) + master.oid(())) * 1001))
    assert answer.error == agentx.Error.GEN_ERR
    assert master.say(master.pdu(PduType.TEST_SET, one * agentx.MAXIMUM_RANGES)) == []
    assert len(master.agent.sets[0].wanted) == agentx.MAXIMUM_RANGES
    assert master.ask(PduType.GET, ((*ENTRY, 2, 1), (), 0))[0].value == 5


def test_what_is_of_another_session_is_refused(master: Master) -> None:
    for kind in (PduType.GET, PduType.TEST_SET, PduType.COMMIT_SET, 200):
        (answer,) = master.say(master.pdu(kind, session=8))
        assert answer.error == agentx.Error.NOT_OPEN
    assert master.say(master.pdu(PduType.CLEANUP_SET, session=8), master.pdu(PduType.CLOSE, b"\5\0\0\0", session=8)) == []
    assert not master.agent.sets
    assert master.agent.state is State.RUNNING


def test_nothing_is_answered_before_there_is_a_session() -> None:
    master = Master()
    (answer,) = master.say(master.pdu(PduType.GET, master.oid((*ENTRY, 2, 1)) + master.oid(()), session=0))
    assert answer.error == agentx.Error.NOT_OPEN


def test_what_nobody_knows_is_a_parse_error(master: Master) -> None:
    (answer,) = master.say(master.pdu(200, b""))
    assert answer.error == 266


def test_notifications(master: Master) -> None:
    master.agent.notify(EVENT, (2,), ROWS[2,])
    (sent,) = master.gather()
    assert sent.type == PduType.NOTIFY
    assert [(bind.name, bind.value) for bind in sent.binds] == [
        (SNMP_TRAP_OID, EVENT.oid),
        ((*ENTRY, 2, 2), 993),
        ((*ENTRY, 3, 2), b"two!"),
    ]


def test_no_notification_before_it_is_registered() -> None:
    master = Master()
    master.agent.notify(EVENT, (2,), ROWS[2,])
    assert master.gather() == []


def test_a_silent_master_is_asked_and_given_up(master: Master) -> None:
    master.agent.handle_timer(100 + PING_SECONDS - 1)
    assert master.gather() == []
    master.agent.handle_timer(100 + PING_SECONDS)
    (ping,) = master.gather()
    assert ping.type == PduType.PING
    master.answer(ping.packet, now=101 + PING_SECONDS)
    master.agent.handle_timer(101 + 2 * PING_SECONDS)
    (ping,) = master.gather()
    with pytest.raises(AgentXError, match="no answer to ping"):
        master.agent.handle_timer(101 + 2 * PING_SECONDS + ANSWER_SECONDS)


def test_a_master_that_has_forgotten_us(master: Master) -> None:
    master.agent.handle_timer(100 + PING_SECONDS)
    (ping,) = master.gather()
    with pytest.raises(AgentXError, match="does not know this session"):
        master.answer(ping.packet, error=257)


def test_a_close_of_either_side(master: Master) -> None:
    with pytest.raises(AgentXError, match="closed the session, reason 5"):
        master.say(master.pdu(PduType.CLOSE, b"\x05\0\0\0"))
    other = Master().running()
    other.agent.close()
    (sent,) = other.gather()
    assert (sent.type, sent.payload) == (PduType.CLOSE, b"\x05\0\0\0")


def test_byte_by_byte() -> None:
    master = Master().running()
    request = master.pdu(PduType.GET, master.oid((*ENTRY, 2, 1)) + master.oid(()))
    for byte in request[:-1]:
        assert master.say(bytes((byte,))) == []
    (answer,) = master.say(request[-1:] + master.pdu(PduType.CLEANUP_SET))
    assert answer.binds[0].value == 5


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x02" + bytes(19), "AgentX version 2"),
        (struct.pack(">BBBxIIII", 1, 5, 0x10, 0, 0, 0, 1 << 24), "a payload of"),
        (struct.pack(">BBBxIIII", 1, 5, 0x10, 0, 0, 0, 6), "a payload of"),
    ],
)
def test_what_is_no_agentx(data: bytes, why: str) -> None:
    """Where the next PDU begins cannot be known."""
    master = Master().running()
    with pytest.raises(AgentXError, match=why):
        master.agent.receive_data(data, 100.0)
    assert master.gather()[-1].payload[0] == agentx.CloseReason.PARSE_ERROR


@pytest.mark.parametrize(
    ("kind", "flags", "payload"),
    [
        (PduType.GET, 0, b"\x05\0\0\0"),
        (PduType.GET, 0, b"\xff\0\0\0"),
        (PduType.GET, 0x08, b"\xff\xff\xff\xff"),
        (PduType.GET_BULK, 0, b""),
        (PduType.TEST_SET, 0, b"\0\2\0\0"),
        (PduType.TEST_SET, 0, b"\0\x63\0\0\0\0\0\0"),
        (PduType.TEST_SET, 0, b"\0\4\0\0\0\0\0\0\xff\xff\xff\xff"),
    ],
)
def test_pdus_that_lie_are_parse_errors(kind: PduType, flags: int, payload: bytes) -> None:
    """And the next one is read (RFC 2741 7.2.2)."""
    master = Master().running()
    (answer,) = master.say(master.pdu(kind, payload, flags=flags))
    assert answer.error == agentx.Error.PARSE_ERROR
    assert master.ask(PduType.GET, ((*ENTRY, 2, 1), (), 0))[0].value == 5


def test_a_response_that_cannot_be_read_is_dropped() -> None:
    master = Master().running()
    assert master.say(master.pdu(PduType.RESPONSE, b"\0\0\0\0")) == []
    assert master.say(master.pdu(PduType.CLOSE)) == []
    assert master.agent.state is State.RUNNING


@given(st.integers(0, 30), st.integers(0, 255), st.binary(max_size=200))
def test_anything_may_come(kind: int, flags: int, payload: bytes) -> None:
    master = Master().running()
    payload += bytes(-len(payload) % 4)
    order = ">" if flags & 0x10 else "<"
    try:
        master.agent.receive_data(struct.pack(f"{order}BBBxIIII", 1, kind, flags, 7, 1, 2, len(payload)) + payload, 100.0)
    except AgentXError:
        assert master.agent.state is State.CLOSED
    for sent in master.gather():
        assert sent.type in {PduType.RESPONSE, PduType.CLOSE}
    assert len(master.agent.sets) <= 1
    assert not master.agent._received


@given(st.lists(st.integers(0, 0xFFFFFFFF), max_size=128).map(tuple), st.booleans())
def test_identifiers_survive(oid: Oid, include: bool) -> None:
    payload = agentx.pack_oid(oid, include=include) + agentx.pack_oid(())
    pdu = agentx.unpack(agentx.pack(PduType.GET, payload))
    assert pdu.ranges == (agentx.SearchRange(oid, (), include),)
