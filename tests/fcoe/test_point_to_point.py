"""Mode p2p: two N_Ports without FIP, as libfc does it (captures/README, point to point).

Longer than most files because one table of states has all its stories in one place.
"""

from __future__ import annotations

import random

import pytest
from support.fcoe_segment import Port, Segment, Station, mac_of, port_of
from support.fcoe_stations import INITIATOR, TARGET, station_of
from support.fcoe_stations import Segment as Stations
from tcm_fcoe.protocol import ethernet, fip
from tcm_fcoe.protocol.controller import FCP_TARGET, els_reply, els_request
from tcm_fcoe.protocol.els import Logo, Plain, Reject
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import Login
from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3, decapsulate, encapsulate
from tcm_fcoe.protocol.fip import FipPdu, Flag, Pdu
from tcm_fcoe.protocol.frame import Frame, pack_header
from tcm_fcoe.protocol.names import fabric_provided_mac
from tcm_fcoe.protocol.point_to_point import (
    CROSSED,
    F_PORT_MAC,
    FLOGI_OX_ID,
    GREATER,
    LESSER,
    LINK,
    RECALL_DELAY,
    RECALL_PERIOD,
    RECALL_TRIES,
    SILENT,
    PointToPointController,
)

F_PORT = 0xFFFFFE
LINUX, OURS = mac_of(0x100), mac_of(0x200)


def station(mac: bytes, seed: int = 1) -> Station:
    made = Station(PointToPointController, mac, seed=seed)
    made.ports = [port_of(mac)]
    return made


def pair() -> tuple[Segment, Station, Station]:
    one, other = station(LINUX), station(OURS, 2)
    return Segment(one, other), one, other


def els(frame: bytes) -> Frame:
    sof, fc, eof = decapsulate(memoryview(frame)[14:])
    return Frame.unpack(fc, sof, eof)


def ethernet_frame(destination: bytes, source: bytes, fc: bytes) -> bytes:
    return encapsulate(destination + source + b"\x89\x06", SOF_I3, fc[:24], fc[24:], EOF_T)


def payload(command: int, port: Port, **more: int) -> Login:
    values = {"receive_size": 2112, "features": 0x8000, **more}
    return Login(command=command, port_name=port.port_name, node_name=port.node_name, **values)


def flogi(mac: bytes, port: Port | None = None, *, ox_id: int = 9, **more: int) -> bytes:
    return ethernet_frame(
        F_PORT_MAC, mac, els_request(F_PORT, 0, ox_id, payload(ElsCommand.FLOGI, port or port_of(mac), **more))
    )


def accept(
    to: bytes, mac: bytes, *, s_id: int, d_id: int, port: Port | None = None, ox_id: int | None = None, **more: int
) -> bytes:
    """LS_ACC to the FLOGI in a frame of ours."""
    request = els(to)
    if ox_id is not None:
        request.ox_id = ox_id
    reply = els_reply(request, payload(ElsCommand.LS_ACC, port or port_of(mac), **more), s_id=s_id, d_id=d_id)
    return ethernet_frame(to[6:12], mac, reply)


def alone() -> tuple[Segment, Station, Port]:
    one = station(OURS)
    segment = Segment(one)
    segment.up()
    segment.run(0.01)
    return segment, one, one.ports[0]


def fcp(destination: bytes, source: bytes, d_id: int, s_id: int) -> bytes:
    return ethernet_frame(destination, source, pack_header(0x06, d_id, s_id, 0x08, 0x290000, 0, 0, 0, 1, 0xFFFF, 0) + bytes(32))


def test_two_of_ours():
    """Both send FLOGI at the same time; the greater port name has 01.01.02."""
    segment, lesser, greater = pair()
    segment.up()
    segment.run(5)
    (a,), (b,) = lesser.ports, greater.ports
    assert (a.fc_id, b.fc_id) == (LESSER, GREATER)
    assert a.remotes == {GREATER: (b.port_name, b.node_name)}
    assert b.remotes == {LESSER: (a.port_name, a.node_name)}
    assert not a.fabric
    assert lesser.controller.route(a, GREATER) == OURS + LINUX
    assert lesser.controller.route(a, 0xFFFFFC) is None
    assert lesser.controller.next_timer == float("inf")
    segment.inject(fcp(OURS, LINUX, GREATER, LESSER))
    assert len(b.frames) == 1


@pytest.mark.parametrize("target_is_greater", [True, False])
def test_target_and_initiator(target_is_greater):
    numbers = (0x200, 0x100) if target_is_greater else (0x100, 0x200)
    target, target_port, target_fc4 = station_of(numbers[0], TARGET, mode="p2p")
    initiator, initiator_port, initiator_fc4 = station_of(numbers[1], INITIATOR, mode="p2p")
    segment = Stations(target, initiator)
    segment.up(10.0)
    assert target_fc4.events == [("login", initiator_port.fc_id, INITIATOR)]
    assert initiator_fc4.events == [("login", target_port.fc_id, TARGET)]
    initiator.link_down(segment.now)
    segment.run(10.0)
    initiator.link_up(segment.now)
    segment.run(10.0)
    assert [event[0] for event in initiator_fc4.events] == ["login", "logout", "login"]
    assert target_fc4.events[-1][0] == "login"
    target.stop(segment.now)
    segment.run(1.0)
    assert initiator_fc4.events[-1][0] == "logout"


@pytest.mark.parametrize("seed", range(10))
def test_lossy_segment(seed):
    segment, one, other = pair()
    rng = random.Random(seed)
    segment.lose = lambda _frame: rng.random() < 0.4
    segment.up()
    segment.run(60)
    segment.lose = None
    segment.run(10)
    assert {one.ports[0].fc_id, other.ports[0].fc_id} == {LESSER, GREATER}


def test_flogi_goes_on():
    """To the F_Port's address, every 2 s, by the interface's own address."""
    segment, one, _port = alone()
    segment.run(10)
    assert len(segment.frames) == 6
    for frame in segment.frames:
        assert (frame[:6], frame[6:12]) == (F_PORT_MAC, OURS)
        request = els(frame)
        assert (request.d_id, request.s_id, request.r_ctl, request.payload[0]) == (F_PORT, 0, 0x22, ElsCommand.FLOGI)
        login = Login.parse(request.payload)
        assert not login.features & 0x1000
        assert login.e_d_tov == 2.0
    assert F_PORT_MAC in one.controller.addresses()


def test_linux_accepts():
    """libfc's LS_ACC: S_ID its own, D_ID ours; its MAC address changes to one made of its FC_ID."""
    segment, one, port = alone()
    segment.inject(accept(segment.frames[0], LINUX, s_id=LESSER, d_id=GREATER))
    assert port.events == [("up", GREATER), ("remote up", LESSER)]
    for source in (LINUX, fabric_provided_mac(LESSER)):
        for destination in (OURS, fabric_provided_mac(GREATER)):
            segment.inject(fcp(destination, source, GREATER, LESSER))
    assert len(port.frames) == 4
    assert one.controller.route(port, LESSER) == LINUX + OURS
    segment.inject(accept(segment.frames[0], LINUX, s_id=LESSER, d_id=GREATER))  # once more
    assert len(port.events) == 2
    assert fabric_provided_mac(GREATER) in one.controller.addresses()


def test_linux_asks():
    """FLOGI of libfc, of which it sends several: each is answered, and only the first changes anything."""
    segment, _one, port = alone()
    for ox_id in range(3):
        sent = len(segment.frames)
        segment.inject(flogi(LINUX, ox_id=ox_id))
        (frame,) = segment.frames[sent:]
        assert (frame[:6], frame[6:12]) == (LINUX, OURS)
        answer = els(frame)
        assert (answer.s_id, answer.d_id, answer.ox_id) == (GREATER, LESSER, ox_id)
        assert answer.payload[0] == ElsCommand.LS_ACC
        assert not Login.parse(answer.payload).features & 0x1000
    assert port.events == [("up", GREATER), ("remote up", LESSER)]


def test_restart():
    """FLOGI later on: the peer has lost its memory."""
    segment, _one, port = alone()
    segment.inject(flogi(LINUX))
    segment.run(CROSSED)
    segment.inject(flogi(LINUX))
    assert port.events[2:] == [("down", "FLOGI again"), ("up", GREATER), ("remote up", LESSER)]
    segment.run(CROSSED)
    segment.inject(flogi(LINUX, Port(b"\x30" + bytes(7), bytes(8))))  # another name, the same interface
    assert port.events[-2:] == [("up", LESSER), ("remote up", GREATER)]


def test_another_comes():
    """It has to wait until nothing has been heard of the peer for a while; so has one with the peer's name."""
    segment, _one, port = alone()
    segment.inject(flogi(LINUX))
    segment.run(SILENT - 1)
    segment.inject(fcp(OURS, LINUX, GREATER, LESSER))
    for impostor in (flogi(mac_of(0x300)), flogi(mac_of(0x300), port_of(LINUX))):
        assert refused(segment, impostor) == (Reason.LOGICAL_BUSY, 0)
    segment.run(SILENT)
    segment.inject(flogi(mac_of(0x300)))
    assert port.remotes == {GREATER: (port_of(mac_of(0x300)).port_name, port_of(mac_of(0x300)).node_name)}


def test_reply_of_the_port_is_not_ours():
    """Replies to the port's own exchanges go there."""
    segment, _one, port = alone()
    segment.inject(flogi(LINUX))
    request = els(segment.frames[0])
    request.ox_id, request.s_id, request.d_id = 1, GREATER, LESSER
    segment.inject(ethernet_frame(OURS, LINUX, els_reply(request, Reject(reason=3))))
    assert [frame.ox_id for frame in port.frames] == [1]
    assert FLOGI_OX_ID == 0


def refused(segment: Segment, frame: bytes) -> tuple[int, int]:
    segment.inject(frame)
    answer = els(segment.frames[-1])
    assert answer.payload[0] == ElsCommand.LS_RJT
    return answer.payload[5], answer.payload[6]


def test_refused():
    segment, one, port = alone()
    bad = (Reason.LOGICAL_ERROR, Explanation.INVALID_COMMON_SERVICE_PARAMETERS)
    assert refused(segment, flogi(LINUX, port)) == (Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME)
    assert refused(segment, flogi(LINUX, Port(bytes(8), bytes(8)))) == bad
    assert refused(segment, flogi(LINUX, receive_size=64)) == bad
    assert refused(segment, flogi(bytes(6), port_of(LINUX))) == bad
    short = els_request(F_PORT, 0, 1, payload(ElsCommand.FLOGI, port_of(LINUX)))[:80]
    assert refused(segment, ethernet_frame(F_PORT_MAC, LINUX, short))[0] == Reason.PROTOCOL_ERROR
    assert not port.events
    segment.inject(flogi(LINUX))
    assert refused(segment, flogi(mac_of(0x300))) == (Reason.LOGICAL_BUSY, 0)
    assert len(port.remotes) == 1
    assert one.services.counters == {"fip_logins_refused": 6, "fip_conflict": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"s_id": 0, "d_id": GREATER},
        {"s_id": LESSER, "d_id": 0},
        {"s_id": LESSER, "d_id": LESSER},
        {"s_id": LESSER, "d_id": F_PORT},
        {"s_id": LESSER, "d_id": GREATER, "features": 0x1000},
        {"s_id": LESSER, "d_id": GREATER, "ox_id": 77},
        {"s_id": LESSER, "d_id": GREATER, "port": port_of(OURS)},
    ],
)
def test_bad_accept(options):
    segment, one, port = alone()
    segment.inject(accept(segment.frames[0], LINUX, **options))
    assert not port.events
    assert sum(one.services.counters.values()) == 1


def test_rejected():
    """LS_RJT: tried again."""
    segment, _one, port = alone()
    segment.inject(ethernet_frame(OURS, LINUX, els_reply(els(segment.frames[0]), Reject(reason=9))))
    segment.run(2.1)
    assert len(segment.frames) == 2
    assert not port.events


def test_fip_is_not_answered():
    """libfcoe would take an answer for an FCF."""
    segment, one, _port = alone()
    sent = len(segment.frames)
    descriptors = (fip.MacAddress(LINUX), fip.NameIdentifier(bytes(8)), fip.MaxFcoeSize(2158))
    solicitation = fip.encode(FipPdu(Pdu.SOLICITATION, descriptors, Flag.FPMA))
    for destination in (OURS, ethernet.ALL_FCF_MACS):
        segment.inject(destination + LINUX + fip.ETHERTYPE + solicitation)
    assert len(segment.frames) == sent
    assert one.services.counters["fip_not_for_us"] == 1


def test_spoofed():
    segment, one, port = alone()
    segment.inject(flogi(LINUX))
    segment.inject(fcp(OURS, mac_of(0x300), GREATER, LESSER))
    segment.inject(fcp(OURS, LINUX, GREATER, 0x010103))
    segment.inject(fcp(OURS, LINUX, LESSER, LESSER))
    assert one.services.counters == {"fcoe_spoofed": 1, "fcoe_not_for_us": 2}
    assert not port.frames


@pytest.mark.parametrize("learnt", [bytes(6), fabric_provided_mac(LESSER)])
def test_the_peers_mac_address_is_learnt(learnt):
    """That of its FLOGI, and one more: which, its first frame by another says. All others are counted."""
    segment, one, port = alone()
    segment.inject(flogi(LINUX))
    others = {bytes(6), fabric_provided_mac(LESSER), fabric_provided_mac(GREATER), mac_of(0x300)} - {learnt}
    segment.inject(fcp(OURS, fabric_provided_mac(GREATER), GREATER, LESSER))
    for source in (LINUX, learnt, LINUX):
        segment.inject(fcp(OURS, source, GREATER, LESSER))
    assert len(port.frames) == 3
    for source in others:
        segment.inject(fcp(OURS, source, GREATER, LESSER))
    assert len(port.frames) == 3
    assert one.services.counters == {"fcoe_spoofed": 4}
    # what it has learnt goes with the login
    segment.run(CROSSED)
    segment.inject(flogi(LINUX))
    segment.inject(fcp(OURS, next(iter({bytes(6), fabric_provided_mac(LESSER)} - {learnt})), GREATER, LESSER))
    assert len(port.frames) == 4


def listening() -> tuple[Segment, Station, Port]:
    """A target, logged in with Linux; the link has been down at our end only."""
    one = station(OURS)
    one.ports = [port_of(OURS, parameters=FCP_TARGET)]
    segment = Segment(one)
    segment.up()
    segment.inject(flogi(LINUX))
    segment.inject(fcp(OURS, bytes(6), GREATER, LINUX_ID))
    one.controller.link_down(segment.now)
    segment.frames.clear()
    segment.run(1)
    one.controller.link_up(segment.now)
    segment.deliver()
    return segment, one, one.ports[0]


LINUX_ID = int.from_bytes(LINUX[3:])


def logos(segment: Segment) -> list[Frame]:
    return [frame for frame in map(els, segment.frames) if frame.payload[0] == ElsCommand.LOGO]


def accept_logo(logo: Frame, *, source: bytes = bytes(6), s_id: int = LINUX_ID) -> bytes:
    return ethernet_frame(OURS, source, els_reply(logo, Plain(), s_id=s_id))


def test_a_peer_that_has_not_seen_the_link_go():
    """LOGO of the F_Port that it logged in with (FC-LS-2 4.2.5), sent once, to the MAC address of its FLOGI: it asks again."""
    segment, one, port = listening()
    assert not segment.frames
    segment.run(RECALL_DELAY)
    (frame,) = segment.frames
    assert (frame[:6], frame[6:12]) == (LINUX, OURS)
    (logo,) = logos(segment)
    assert (logo.s_id, logo.d_id, logo.ox_id) == (F_PORT, LINUX_ID, FLOGI_OX_ID)
    assert Logo.parse(logo.payload).port_name == port.port_name
    segment.inject(accept_logo(logo))
    segment.inject(fcp(OURS, bytes(6), GREATER, LINUX_ID))  # it has yet to log out of the port, too
    segment.run(60)
    assert len(segment.frames) == 1
    assert not port.fc_id
    segment.inject(flogi(LINUX))
    assert port.remotes.keys() == {LINUX_ID}
    assert one.services.counters == {"fcoe_not_for_us": 1}


def test_a_peer_that_has_seen_it():
    """It asks by itself, and is not told anything."""
    segment, _one, port = listening()
    segment.run(RECALL_DELAY / 2)
    segment.inject(flogi(LINUX))
    segment.run(60)
    assert not logos(segment)
    assert port.events[-2:] == [("up", GREATER), ("remote up", LINUX_ID)]


def test_nobody_hears_the_logo():
    """A few times; later on whoever still speaks as if it were logged in is told, once in a while. No other is."""
    segment, one, _port = listening()
    segment.run(10 * RECALL_PERIOD)
    assert len(logos(segment)) == RECALL_TRIES
    for source, s_id in ((mac_of(0x300), LINUX_ID), (bytes(6), 0x010103)):
        segment.inject(fcp(OURS, source, GREATER, s_id))
    assert one.services.counters == {"fcoe_not_for_us": 2}
    for _ in range(100):
        segment.inject(fcp(OURS, bytes(6), GREATER, LINUX_ID))
    assert len(logos(segment)) == RECALL_TRIES + 1
    assert one.services.counters["fcoe_unexpected"] == 100
    # an answer of another is none
    segment.inject(accept_logo(logos(segment)[-1], source=mac_of(0x300)))
    segment.inject(accept_logo(logos(segment)[-1], s_id=0x010103))
    assert one.services.counters["fcoe_spoofed"] == 2
    segment.run(RECALL_PERIOD)
    assert len(logos(segment)) == RECALL_TRIES + 2
    refusal = els_reply(logos(segment)[-1], Reject(reason=3), s_id=LINUX_ID)
    segment.inject(ethernet_frame(OURS, LINUX, refusal))
    segment.run(10 * RECALL_PERIOD)
    assert len(logos(segment)) == RECALL_TRIES + 2


@pytest.mark.parametrize("target_is_greater", [False, True])
def test_a_target_that_was_killed(target_is_greater):
    """The process that comes after it remembers its peer, and tells it that it is logged out: two ports of our own."""
    numbers = (0x300, 0x200) if target_is_greater else (0x100, 0x200)
    target, target_port, _fc4 = station_of(numbers[0], TARGET, mode="p2p")
    initiator, initiator_port, initiator_fc4 = station_of(numbers[1], INITIATOR, mode="p2p")
    segment = Stations(target, initiator)
    segment.up(5)
    before = target.controller.memory()
    assert initiator_port.remotes[target_port.fc_id].ready
    segment.stations[0], again_port, again_fc4 = target, _, _ = station_of(numbers[0], TARGET, mode="p2p")
    target.link_up(segment.now)
    segment.run(30)
    assert not again_fc4.events, "nobody has told it anything"
    segment.stations[0], again_port, again_fc4 = target, _, _ = station_of(numbers[0], TARGET, mode="p2p")
    target.controller.remember(before)
    target.link_up(segment.now)
    segment.run(RECALL_DELAY + 5)
    assert again_port.remotes[initiator_port.fc_id].ready
    assert [event[0] for event in initiator_fc4.events] == ["login", "logout", "login"]
    assert target.controller.memory() == before


@pytest.mark.parametrize(
    "memory",
    [
        "", "{", "[]", "7", "{}",
        '{"fc_id": 0, "own_fc_id": 65794, "port_name": "2000525400000100", "node_name": "", "mac": "525400000100"}',
        '{"fc_id": 256, "own_fc_id": "2", "port_name": "2000525400000100", "node_name": "", "mac": "525400000100"}',
        '{"fc_id": 256, "own_fc_id": 65794, "port_name": "20", "node_name": "", "mac": "525400000100"}',
        '{"fc_id": 256, "own_fc_id": 65794, "port_name": "2000525400000100", "node_name": "", "mac": "000000000000"}',
        '{"fc_id": 256, "own_fc_id": 65794, "port_name": "2000525400000100", "node_name": "", "mac": "ffffffffffff"}',
        '{"fc_id": 256, "own_fc_id": 65794, "port_name": 5, "node_name": "", "mac": "525400000100"}',
    ],
)  # fmt: skip
def test_a_memory_that_is_damaged(memory):
    """Then there was no peer."""
    one = station(OURS)
    one.ports = [port_of(OURS, parameters=FCP_TARGET)]
    one.controller.remember(memory)
    segment = Segment(one)
    segment.up()
    segment.run(60)
    assert not segment.frames


def test_logo_of_the_f_port():
    """Only the peer's own ends the login; it is accepted, and FLOGI is sent again."""
    segment, one, port = alone()
    segment.inject(flogi(LINUX))
    fc_id, theirs = port.fc_id, next(iter(port.remotes))
    logo = els_request(fc_id, F_PORT, 5, Logo(F_PORT, port_of(LINUX).port_name))
    segment.frames.clear()
    segment.inject(ethernet_frame(OURS, mac_of(0x300), logo))
    segment.inject(ethernet_frame(OURS, LINUX, els_request(fc_id + 1, F_PORT, 5, Logo(F_PORT, port_of(LINUX).port_name))))
    assert port.fc_id == fc_id
    assert not segment.frames
    segment.inject(ethernet_frame(OURS, LINUX, logo))
    assert not port.fc_id
    segment.run(0.01)
    accepted, asked = (els(frame) for frame in segment.frames)
    assert (accepted.payload[0], accepted.s_id, accepted.d_id) == (ElsCommand.LS_ACC, fc_id, F_PORT)
    assert asked.payload[0] == ElsCommand.FLOGI
    assert theirs not in port.remotes
    assert one.services.counters == {"fcoe_not_for_us": 2}


def test_who_was_logged_out_is_not_called_back():
    segment, one, _port = listening()
    segment.inject(flogi(LINUX))
    one.controller.stop(segment.now)
    one.controller.link_up(segment.now)
    segment.run(60)
    assert not logos(segment)


def test_flogi_storm():
    segment, one, port = alone()
    for number in range(2000):
        mac = mac_of(0x1000 + number)
        segment.inject(flogi(mac))
    assert len(port.remotes) == 1
    assert len(segment.frames) < 100
    assert one.services.counters["fip_rate_limited"] > 1900
    sent = len(segment.frames)
    segment.inject(flogi(mac_of(0x1000)))  # the peer's
    assert len(segment.frames) == sent + 1


def test_one_port():
    _segment, one, _port = alone()
    with pytest.raises(ValueError, match="one port"):
        one.controller.add_port(port_of(OURS, qualifier=1), 0.0)
    one.controller.remove_port(one.ports[0], 0.0)
    one.controller.add_port(one.ports[0], 0.0)


def test_link_down():
    segment, one, port = alone()
    segment.inject(flogi(LINUX))
    one.controller.link_down(segment.now)
    assert port.events[-1] == ("down", "link down")
    assert one.controller.next_timer == float("inf")
    assert one.controller.route(port, LESSER) is None
    segment.inject(flogi(LINUX))
    assert not port.fc_id


def test_table_names_methods():
    assert all(hasattr(PointToPointController, f"_{step.action}") for step in LINK.values())


def test_a_target_asks_nobody():
    """No FLOGI of its own; the other gets the address that its MAC address ends in, as Linux's receive check wants it."""
    one = station(OURS)
    one.ports = [port_of(OURS, parameters=FCP_TARGET)]
    segment = Segment(one)
    segment.up()
    segment.run(20)
    assert not segment.frames
    segment.inject(flogi(LINUX))
    answer = els(segment.frames[-1])
    assert segment.frames[-1][:6] == LINUX
    assert answer.d_id == int.from_bytes(LINUX[3:])
    assert one.ports[0].remotes.keys() == {answer.d_id}
    assert one.controller.route(one.ports[0], answer.d_id) == LINUX + OURS
    # Linux has lost its own address by then (seen with 6.1)
    segment.inject(fcp(OURS, bytes(6), answer.s_id, answer.d_id))
    assert [frame.ox_id for frame in one.ports[0].frames] == [1]
