"""The iSNS client against a server without a socket: registration and its upkeep (RFC 4171 5.6.5, 6.2.6, 6.3.4).

Longer than most files because it tells the whole life of one registration.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.isns_server import Entity, IsnsServer
from tcm_iscsi.protocol import isns_messages as messages
from tcm_iscsi.protocol.isns_attributes import Attribute, Tag, encode_attributes
from tcm_iscsi.protocol.isns_client import ANSWER_SECONDS, LONGEST_RETRY, SUBSCRIPTION, IsnsClient
from tcm_iscsi.protocol.isns_events import Deregistered, Event, Refused, Registered, RegistrationLost, State
from tcm_iscsi.protocol.isns_messages import Node, Portal, Registration, Scn
from tcm_iscsi.protocol.isns_notifications import StateChanged
from tcm_iscsi.protocol.isns_pdu import RESPONSE, Flag, Function, IsnsError, Message, Status, encode

ONE, TWO = "iqn.2003-01.org.example:one", "iqn.2003-01.org.example:two"
P1, P2 = Portal("192.0.2.1", 3260, scn_port=7000), Portal("2001:db8::1", 3260, scn_port=7001)
REG, QRY, DEREG, SCN = Function.DEV_ATTR_REG, Function.DEV_ATTR_QRY, Function.DEV_DEREG, Function.SCN_REG
WANTED = Registration(
    "entity",
    (P1, P2),
    (Node(ONE, "disk", ((P1.key, 1), (P2.key, None))), Node(TWO, "", ((P1.key, None), (P2.key, 7)))),
)


class Pair:
    """A client and a server, and a clock that goes when it is told to."""

    def __init__(self, wanted: Registration | None = WANTED, server: IsnsServer | None = None, **options: int) -> None:
        self.now = 1000.0
        self.server = server or IsnsServer()
        self.client = IsnsClient(period=options.get("period", 300), jitter=lambda: 1.0)
        self.client.update(wanted, self.now)
        self.seen: list[Event] = []

    def connect(self) -> list[Function]:
        self.server.connect()
        self.client.connected(self.now)
        return self.talk()

    def talk(self) -> list[Function]:
        """Until neither has anything to say; returns what was asked."""
        while data := self.client.data_to_send():
            answer = self.server.receive(data)
            if answer:
                self.client.receive_data(answer, self.now)
        while (event := self.client.next_event()) is not None:
            self.seen.append(event)
        return self.server.functions()

    def wait(self, seconds: float) -> list[Function]:
        """Time goes by; timers are looked at when they want to be."""
        end = self.now + seconds
        asked = []
        while (timer := self.client.next_timer()) is not None and timer <= end:
            self.now = max(self.now, timer)
            self.client.handle_timer(self.now)
            if self.client.must_disconnect:
                break
            asked += self.talk()
        self.now = end
        return asked

    def update(self, wanted: Registration | None) -> list[Function]:
        self.client.update(wanted, self.now)
        return self.talk()

    def events(self) -> list[Event]:
        seen, self.seen = self.seen, []
        return seen

    def holds(self, wanted: Registration) -> None:
        entity = self.server.entities[wanted.entity_identifier]
        assert set(entity.nodes) == {node.name for node in wanted.nodes}
        assert set(entity.portals) == {portal.key for portal in wanted.portals}
        for node in wanted.nodes:
            assert {key: tag for (name, key), tag in entity.groups.items() if name == node.name} == dict(node.groups)
            assert entity.nodes[node.name].get(Tag.ISCSI_ALIAS, "") == node.alias
            assert entity.nodes[node.name][Tag.ISCSI_NODE_TYPE] == 1
        for portal in wanted.portals:
            assert entity.portals[portal.key].get(Tag.SCN_PORT, 0) == portal.scn_port
            assert entity.portals[portal.key].get(Tag.ESI_PORT, 0) == portal.esi_port


def registered(**options: int) -> Pair:
    pair = Pair(**options)
    pair.connect()
    pair.events()
    pair.holds(WANTED)
    return pair


# registration


def test_registers_and_subscribes() -> None:
    """5.6.5.1, 5.6.5.5: all in one message, then a subscription for each target."""
    pair = Pair()
    assert pair.connect() == [REG, SCN, SCN]
    pair.holds(WANTED)
    assert pair.server.subscribed == dict.fromkeys((ONE, TWO), SUBSCRIPTION)
    assert pair.client.state is State.REGISTERED
    assert pair.events() == [Registered(2, 2, 600)]
    assert pair.client.period == 600, "the server's word counts (6.2.6)"


def test_takes_the_place_of_what_an_earlier_process_left() -> None:
    """The first registration replaces (5.6.5.1); later ones do not: that would disturb initiators."""
    server = IsnsServer(entities={"entity": Entity({("203.0.113.1", 1): {}}, {"iqn.2003-01.org.example:old": {}})})
    pair = Pair(server=server)
    pair.connect()
    pair.holds(WANTED)
    pair.update(replace(WANTED, nodes=WANTED.nodes[:1]))
    pair.update(WANTED)
    sent = [message.flags & Flag.REPLACE for message in server.requests if message.function == REG]
    assert not any(sent)
    pair.holds(WANTED)


def test_nothing_to_register() -> None:
    pair = Pair(None)
    assert not pair.client.has_work
    assert pair.connect() == []
    assert pair.events() == []
    assert pair.wait(1000) == []


def test_no_subscription_without_a_port_for_it() -> None:
    """5.6.5.5: the server would reject it."""
    bare = Portal("192.0.2.1", 3260)
    pair = Pair(Registration("entity", (bare,), (Node(ONE, "", ((bare.key, 1),)),)))
    assert pair.connect() == [REG]


# changes


def test_a_new_target() -> None:
    """Only what is new is sent, and nothing is replaced."""
    pair = registered()
    three = Node("iqn.2003-01.org.example:three", "", ((P1.key, 1), (P2.key, 1)))
    wanted = replace(WANTED, nodes=(*WANTED.nodes, three))
    assert pair.update(wanted) == [REG, SCN]
    pair.holds(wanted)
    assert pair.events() == [Registered(3, 2, 600)]
    assert pair.update(wanted) == []


def test_a_target_that_goes() -> None:
    """Even the first one, whose name the requests had as their source."""
    pair = registered()
    wanted = replace(WANTED, nodes=WANTED.nodes[1:])
    assert pair.update(wanted) == [DEREG]
    pair.holds(wanted)


def test_all_targets_are_others() -> None:
    """New ones are registered first: the source of a request has to be a node of the entity (5.6.1)."""
    pair = registered()
    three = Node("iqn.2003-01.org.example:three", "", ((P1.key, 1), (P2.key, 1)))
    wanted = replace(WANTED, nodes=(three,))
    assert pair.update(wanted) == [REG, DEREG, SCN]
    pair.holds(wanted)


def test_a_portal_that_comes_and_one_that_goes() -> None:
    pair = registered()
    new = Portal("198.51.100.1", 3261, scn_port=7002)
    nodes = (Node(ONE, "disk", ((P1.key, 1), (new.key, 2))), Node(TWO, "", ((P1.key, None), (new.key, None))))
    wanted = replace(WANTED, portals=(P1, new), nodes=nodes)
    assert pair.update(wanted) == [REG, DEREG]
    pair.holds(wanted)


def test_a_tag_an_alias_and_a_port_that_change() -> None:
    pair = registered()
    nodes = (Node(ONE, "other", ((P1.key, 5), (P2.key, 5))), WANTED.nodes[1])
    wanted = replace(WANTED, portals=(replace(P1, scn_port=7777), P2), nodes=nodes)
    assert pair.update(wanted) == [REG]
    pair.holds(wanted)


def test_the_last_target_goes_and_another_comes() -> None:
    pair = registered()
    assert pair.update(None) == [DEREG]
    assert pair.server.entities == {}
    assert pair.events() == [Deregistered()]
    assert pair.update(None) == []
    assert pair.update(WANTED) == [REG, SCN, SCN]
    pair.holds(WANTED)


def test_changes_while_a_request_is_under_way() -> None:
    """What was wanted when it began is not what is wanted when it ends."""
    pair = Pair()
    pair.server.connect()
    pair.client.connected(pair.now)
    wanted = replace(WANTED, nodes=WANTED.nodes[1:])
    pair.client.update(wanted, pair.now)
    assert pair.talk() == [REG, DEREG, SCN]
    pair.holds(wanted)


PORTALS = st.lists(
    st.builds(Portal, st.ip_addresses(v=4).map(str), st.integers(1, 65535), scn_port=st.sampled_from([0, 7000])),
    max_size=4,
    unique_by=lambda portal: portal.key,
)
NAMES = st.lists(st.sampled_from([f"iqn.2003-01.org.example:t{n}" for n in range(5)]), max_size=4, unique=True)


@st.composite
def registrations(draw: st.DrawFn) -> Registration | None:
    portals, names = draw(PORTALS), draw(NAMES)
    if not portals or not names:
        return None
    tags = st.one_of(st.none(), st.integers(0, 65535))
    nodes = [Node(name, draw(st.sampled_from(["", "alias"])), tuple((p.key, draw(tags)) for p in portals)) for name in names]
    kept = [node if node.alias else replace(node, alias="x") for node in nodes]
    return Registration("entity", tuple(portals), tuple(kept))


@settings(deadline=None)
@given(st.lists(st.tuples(registrations(), st.sampled_from(["", "", "cut", "restart", "lose"])), min_size=1, max_size=6))
def test_any_history_ends_in_what_is_wanted(history: list[tuple[Registration | None, str]]) -> None:
    """Whatever changes, breaks or is lost: in the end the server holds what is wanted, and nothing else."""
    pair = Pair(None)
    pair.connect()
    for wanted, accident in history:
        pair.update(wanted)
        if accident == "cut":  # in the middle of a request
            pair.client.update(wanted, pair.now)
            pair.server.receive(pair.client.data_to_send())
            pair.client.disconnected(pair.now)
            pair.connect()
        elif accident == "restart":
            pair.client.disconnected(pair.now)
            pair.server.restart()
            pair.connect()
        elif accident == "lose":
            for entity in pair.server.entities.values():
                for name in list(entity.nodes)[:1]:
                    del entity.nodes[name]
                    entity.groups = {pair_: tag for pair_, tag in entity.groups.items() if pair_[0] != name}
            if any(not entity.nodes for entity in pair.server.entities.values()):
                pair.server.restart()
            pair.wait(300)
        if wanted is None:
            assert pair.server.entities == {}
        else:
            pair.holds(wanted)


@pytest.mark.parametrize(("targets", "portals", "length"), [(300, 1, 60), (40, 32, 20), (3, 32, 223), (1, 200, 223)])
def test_large_registrations_come_in_pieces(targets: int, portals: int, length: int) -> None:
    """open-isns drops connections for more than 8 KiB; the pieces together are everything."""
    ports = tuple(Portal(f"192.0.2.{n}", 3260, 60, 7000 + n, 7000 + n) for n in range(portals))
    names = [f"iqn.2003-01.org.example:{n}:".ljust(length, "x") for n in range(targets)]
    tags = [None if n % 3 else n for n in range(portals)]
    groups = tuple((port.key, tag) for port, tag in zip(ports, tags, strict=True))
    wanted = Registration("x" * 255, ports, tuple(Node(name, "y" * 200, groups) for name in names))
    pair = Pair(wanted)
    pair.connect()
    pair.holds(wanted)
    assert pair.server.largest <= 8192
    assert pair.client.state is State.REGISTERED
    assert pair.events() == [Registered(targets, portals, 600)]


# upkeep


def test_refreshes_within_the_period() -> None:
    """6.2.6: any message refreshes; a target's query for its own attributes does."""
    pair = registered()
    pair.wait(199)
    assert pair.wait(2) == [QRY, QRY]
    pair.holds(WANTED)
    assert pair.wait(600) == [QRY, QRY] * 3
    assert pair.events() == []


def test_no_period() -> None:
    """A server that has none is looked after all the same."""
    pair = registered()
    pair.server.period = 0
    pair.client.disconnected(pair.now)
    pair.server.restart()
    pair.connect()
    assert pair.wait(250) == [QRY, QRY]


@pytest.mark.parametrize("shorter", [1, 2, 6])
def test_short_periods(shorter: int) -> None:
    pair = Pair(server=IsnsServer(period=shorter))
    pair.connect()
    asked = pair.wait(60)
    assert len(asked) >= 2 * 60 / max(shorter / 3, 1) - 2
    assert len(asked) <= 2 * 60 + 2, "no more than one look a second"


def test_what_was_lost_is_registered_again() -> None:
    """One target that somebody has removed; the other is left alone."""
    pair = registered()
    entity = pair.server.entities["entity"]
    del entity.nodes[ONE]
    entity.groups = {pair_: tag for pair_, tag in entity.groups.items() if pair_[0] != ONE}
    assert pair.wait(201) == [QRY, QRY, REG, SCN]
    pair.holds(WANTED)
    assert pair.events() == [RegistrationLost((ONE,)), Registered(2, 2, 600)]


def test_a_portal_that_was_dropped_comes_back() -> None:
    """As a server does that got no answer to a status inquiry (6.3.4)."""
    pair = registered()
    entity = pair.server.entities["entity"]
    del entity.portals[P2.key]
    entity.groups = {pair_: tag for pair_, tag in entity.groups.items() if pair_[1] != P2.key}
    assert pair.wait(201) == [QRY, QRY, REG, SCN]
    pair.holds(WANTED)


def test_a_server_that_has_forgotten_everything() -> None:
    pair = registered()
    pair.server.restart()
    assert pair.wait(201) == [QRY, QRY, REG, SCN, SCN]
    pair.holds(WANTED)
    assert pair.events() == [RegistrationLost((ONE, TWO)), Registered(2, 2, 600)]


def test_a_removal_that_is_notified_is_mended_at_once() -> None:
    """5.6.5.8, and no forged notification makes more than one look a second."""
    pair = registered()
    entity = pair.server.entities["entity"]
    del entity.nodes[ONE]
    entity.groups = {pair_: tag for pair_, tag in entity.groups.items() if pair_[0] != ONE}
    pair.wait(5)
    pair.client.notified(StateChanged(TWO, ONE, Scn.OBJECT_REMOVED), pair.now)
    assert pair.wait(0) == [QRY, QRY, REG, SCN]
    pair.holds(WANTED)
    pair.events()
    asked = []
    for _ in range(500):
        pair.client.notified(StateChanged(TWO, ONE, Scn.OBJECT_REMOVED), pair.now)
        asked += pair.wait(0.01)
    assert len(asked) <= 2 * 6
    assert asked.count(REG) == 0


@pytest.mark.parametrize(
    "change",
    [
        StateChanged(TWO, ONE, Scn.OBJECT_UPDATED),
        StateChanged(TWO, "iqn.2003-01.org.example:initiator", Scn.OBJECT_REMOVED),
    ],
)
def test_other_notifications_are_only_told(change: StateChanged) -> None:
    pair = registered()
    pair.client.notified(change, pair.now)
    assert pair.wait(10) == []
    assert pair.events() == [] or pair.events() == [change]
    pair.talk()
    assert pair.events() == [change]


def test_notification_on_the_registrations_own_connection() -> None:
    """6.3.5, 6.3.7: a server may use it, even in the middle of an answer's wait."""
    pair = registered()
    name = Attribute(Tag.ISCSI_NAME, ONE)
    payload = encode_attributes([name, Attribute(Tag.TIMESTAMP, 1), Attribute(Tag.ISCSI_SCN_BITMAP, Scn.OBJECT_UPDATED), name])
    pair.client.receive_data(encode(Message(Function.SCN, 99, payload, Flag.SERVER)), pair.now)
    answer = pair.client.data_to_send()
    assert answer[2:4] == b"\x80\x08"
    assert answer[8:10] == (99).to_bytes(2, "big")
    assert pair.client.next_event() == StateChanged(ONE, ONE, Scn.OBJECT_UPDATED)


# refusals


def test_server_without_status_inquiries() -> None:
    """6.3.4: ESI Not Available; the registration is made without them."""
    wanted = replace(WANTED, portals=(replace(P1, esi_interval=60, esi_port=7000), P2))
    pair = Pair(wanted, IsnsServer(esi=False))
    assert pair.connect() == [REG, REG, SCN, SCN]
    pair.holds(WANTED)
    assert pair.events() == [Refused(State.REGISTERING, Status.ESI_NOT_AVAILABLE), Registered(2, 2, 600)]


def test_server_without_portal_groups() -> None:
    """5.6.5.1: Registration Feature Not Supported."""
    pair = Pair(server=IsnsServer(refuse={REG: [Status.REGISTRATION_FEATURE_NOT_SUPPORTED]}))
    assert pair.connect() == [REG, REG, SCN, SCN]
    assert set(pair.server.entities["entity"].groups.values()) == {1}
    assert pair.client.state is State.REGISTERED


def test_server_without_notifications() -> None:
    pair = Pair(server=IsnsServer(refuse={SCN: [Status.SCN_REGISTRATION_REJECTED] * 2}))
    assert pair.connect() == [REG, SCN, SCN]
    assert pair.client.state is State.REGISTERED
    assert pair.wait(201) == [QRY, QRY]


def test_a_refused_registration_is_tried_again_ever_more_seldom() -> None:
    pair = Pair(server=IsnsServer(refuse={REG: [Status.INVALID_REGISTRATION] * 10}))
    assert pair.connect() == [REG]
    assert pair.client.state is State.REFUSED
    assert len(pair.wait(60)) == 5  # after 1, 2, 4, 8, 16 seconds
    assert len(pair.wait(180)) in (3, 4)
    pair.server.refuse.clear()
    assert pair.wait(LONGEST_RETRY) == [REG, SCN, SCN]
    pair.holds(WANTED)


def test_a_change_is_tried_at_once_after_a_refusal() -> None:
    pair = Pair(server=IsnsServer(refuse={REG: [Status.INVALID_REGISTRATION] * 3}))
    pair.connect()
    pair.wait(3)
    assert pair.update(WANTED) == [], "the same again is no change"
    wanted = replace(WANTED, nodes=WANTED.nodes[:1])
    assert pair.update(wanted) == [REG, DEREG, SCN], "of the other target it is not known whether the server has it"
    pair.holds(wanted)


def test_a_refused_deregistration() -> None:
    pair = registered()
    pair.server.refuse[DEREG] = [Status.SOURCE_UNAUTHORIZED]
    wanted = replace(WANTED, nodes=WANTED.nodes[:1])
    assert pair.update(wanted) == [DEREG]
    assert pair.wait(2) == [REG, DEREG, SCN]
    pair.holds(wanted)


# connections


def test_reconnects_ever_more_seldom_and_verifies() -> None:
    """Nothing is registered twice when only the connection was lost."""
    pair = registered()
    waits = []
    for _ in range(9):
        pair.client.disconnected(pair.now)
        waits.append(pair.client.retry_at - pair.now)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pair.client.next_timer() is None
    assert pair.connect() == [QRY, QRY]
    assert pair.events() == []
    pair.client.disconnected(pair.now)
    assert pair.client.retry_at - pair.now == 1


def test_clients_do_not_come_back_all_at_once() -> None:
    client = IsnsClient(period=300, jitter=lambda: 0.0)
    client.disconnected(0)
    assert client.retry_at == 0.5


def test_changes_while_there_is_no_connection() -> None:
    pair = registered()
    pair.client.disconnected(pair.now)
    wanted = replace(WANTED, nodes=WANTED.nodes[1:])
    assert pair.update(wanted) == []
    assert pair.connect() == [QRY, QRY, DEREG]
    pair.holds(wanted)


def test_an_answer_that_never_comes() -> None:
    pair = Pair()
    pair.client.connected(pair.now)
    assert pair.client.next_timer() == pair.now + ANSWER_SECONDS
    pair.client.handle_timer(pair.now + ANSWER_SECONDS - 1)
    assert not pair.client.must_disconnect
    pair.client.handle_timer(pair.now + ANSWER_SECONDS)
    assert pair.client.must_disconnect == "no answer within 10 s while registering"
    pair.client.disconnected(pair.now)
    assert pair.connect() == [REG, SCN, SCN]


def test_answers_that_are_not_ours() -> None:
    """Another transaction's is ignored; one of another function ends the connection."""
    pair = Pair()
    pair.client.connected(pair.now)
    sent = pair.client.data_to_send()
    number = int.from_bytes(sent[8:10], "big")
    late = Message(REG | RESPONSE, number + 1, messages.respond(0), Flag.SERVER)
    pair.client.receive_data(encode(late), pair.now)
    assert pair.client.state is State.REGISTERING
    assert pair.client.data_to_send() == b""
    with pytest.raises(IsnsError, match="answers function"):
        pair.client.receive_data(encode(replace(late, transaction_id=number, function=QRY | RESPONSE)), pair.now)


@settings(deadline=None)
@given(st.binary(max_size=100), st.sampled_from([REG, QRY, DEREG, SCN]), st.booleans())
def test_any_answer_is_taken_or_an_error(payload: bytes, function: Function, good: bool) -> None:
    pair = Pair()
    pair.client.connected(pair.now)
    number = int.from_bytes(pair.client.data_to_send()[8:10], "big")
    payload = (bytes(4) if good else b"") + payload[: len(payload) & ~3]
    assume(payload[:4] != Status.REGISTRATION_FEATURE_NOT_SUPPORTED.to_bytes(4, "big"))  # it would be believed
    with contextlib.suppress(IsnsError):
        pair.client.receive_data(encode(Message(function | RESPONSE, number, payload, Flag.SERVER)), pair.now)
    pair.client.disconnected(pair.now)
    pair.connect()
    pair.wait(700)
    pair.holds(WANTED)


# the end


def test_stop_deregisters() -> None:
    """5.6.5.4: the entity, and with it all that is below it."""
    pair = registered()
    pair.client.stop(pair.now)
    assert pair.talk() == [DEREG]
    assert pair.server.entities == {}
    assert pair.server.subscribed == {}
    assert pair.client.state is State.LEFT
    assert pair.events() == [Deregistered()]
    pair.client.disconnected(pair.now)
    assert pair.client.state is State.LEFT


def test_stop_in_the_middle_of_a_request() -> None:
    pair = Pair()
    pair.server.connect()
    pair.client.connected(pair.now)
    pair.client.stop(pair.now)
    assert pair.talk() == [REG, DEREG]
    assert pair.server.entities == {}
    assert pair.client.state is State.LEFT


@pytest.mark.parametrize("wanted", [None, WANTED])
def test_stop_without_a_connection(wanted: Registration | None) -> None:
    pair = Pair(wanted)
    pair.client.stop(pair.now)
    assert pair.client.state is State.LEFT


def test_stop_between_two_connections() -> None:
    """One more is tried, at once; a server that is away is not waited for."""
    pair = registered()
    pair.client.disconnected(pair.now)
    pair.client.stop(pair.now)
    assert pair.client.state is State.DOWN
    assert pair.client.retry_at == pair.now
    assert pair.connect() == [DEREG]
    assert pair.client.state is State.LEFT
    pair = registered()
    pair.client.disconnected(pair.now)
    pair.client.stop(pair.now)
    pair.client.disconnected(pair.now)
    assert pair.client.state is State.LEFT


def test_stop_when_the_server_refuses_or_is_gone() -> None:
    pair = registered()
    pair.server.refuse[DEREG] = [Status.SOURCE_UNAUTHORIZED]
    pair.client.stop(pair.now)
    pair.talk()
    assert pair.client.state is State.LEFT
    pair = registered()
    pair.client.stop(pair.now)
    pair.client.disconnected(pair.now)
    assert (pair.client.state, pair.client.retry_at) == (State.DOWN, pair.now)
    pair.client.disconnected(pair.now)
    assert pair.client.state is State.LEFT


def test_history_says_what_happened_before() -> None:
    pair = registered()
    assert list(pair.client.history) == [
        "DOWN -> REGISTERED",
        "REGISTERED -> REGISTERING",
        "REGISTERING -> SUBSCRIBING",
        "SUBSCRIBING -> REGISTERED",
    ]
