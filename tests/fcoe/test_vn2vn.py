"""VN2VN mode (FC-BB-6): addresses, claims, beacons, logins; LIO and Linux's initiator as the golden trace has them.

Longer than most files because one table of states has all its stories in one place.
"""

from __future__ import annotations

import itertools
import random

import pytest
from support.fcoe_capture import FIP, captured
from support.fcoe_segment import Port, Segment, Station, decoded, mac_of, port_of
from tcm_fcoe.protocol import ethernet, fip
from tcm_fcoe.protocol import vn2vn_tables as tables
from tcm_fcoe.protocol.controller import FCP_INITIATOR, FCP_TARGET, STRANGERS_BURST, els_reply, els_request
from tcm_fcoe.protocol.els import Logo, Plain, Reject
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.els_login import Login
from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3, encapsulate
from tcm_fcoe.protocol.fip import FipPdu, Flag, Pdu
from tcm_fcoe.protocol.frame import Frame, pack_header
from tcm_fcoe.protocol.names import VN2VN_FC_MAP, fabric_provided_mac
from tcm_fcoe.protocol.state_table import drawing
from tcm_fcoe.protocol.vn2vn import Vn2vnController
from tcm_fcoe.protocol.vn2vn_neighbours import MAX_NEIGHBOURS, concern_each_other, fc4_attributes, fcp_features
from tcm_fcoe.protocol.vn2vn_tables import AddressEvent, AddressState, LinkEvent, LinkState

T_MAC, I_MAC = bytes.fromhex("5254002ffc00"), bytes.fromhex("525400f59700")
UP_TIME = 1.1
"""Seconds in which a VN_Port comes up if nobody objects."""


def station(mac: bytes, *, ports: int = 1, parameters: int = FCP_INITIATOR | FCP_TARGET, **options: int) -> Station:
    made = Station(Vn2vnController, mac, **options)
    made.ports = [port_of(mac, qualifier=number, parameters=parameters) for number in range(ports)]
    return made


def pair(**options: int) -> tuple[Segment, Station, Station]:
    one, other = station(mac_of(0x0100), **options), station(mac_of(0x0200), seed=2)
    return Segment(one, other), one, other


def logged_in(*stations: Station) -> bool:
    """Each port with each of the others'."""
    everybody = {port.fc_id: (port.port_name, port.node_name) for each in stations for port in each.ports}
    return all(
        port.remotes == {fc_id: names for fc_id, names in everybody.items() if fc_id not in [p.fc_id for p in each.ports]}
        for each in stations
        for port in each.ports
    )


def vn_descriptors(mac: bytes, port: Port, fc_id: int, *more: fip.Descriptor) -> tuple[fip.Descriptor, ...]:
    vn_mac = fabric_provided_mac(fc_id, VN2VN_FC_MAP)
    return fip.MacAddress(mac), fip.NameIdentifier(port.node_name), fip.VxPort(vn_mac, fc_id, port.port_name), *more


def message(
    pdu: Pdu,
    mac: bytes,
    fc_id: int,
    *,
    port: Port | None = None,
    destination: bytes = ethernet.ALL_VN2VN_ENODE_MACS,
    flags: Flag = fip.NO_FLAGS,
) -> bytes:
    port = port or port_of(mac)
    more = (fc4_attributes(3), fip.MaxFcoeSize(2158)) if pdu in (Pdu.CLAIM_NOTIFICATION, Pdu.CLAIM_RESPONSE) else ()
    return destination + mac + fip.ETHERTYPE + fip.encode(FipPdu(pdu, vn_descriptors(mac, port, fc_id, *more), flags))


def els(mac: bytes, to: Station, request: bytes, kind: type[fip.Encapsulated], *, pdu: Pdu = Pdu.VIRTUAL_LINK_REQUEST) -> bytes:
    s_id = int.from_bytes(request[5:8], "big")
    descriptors = (kind(request), fip.MacAddress(fabric_provided_mac(s_id, VN2VN_FC_MAP)))
    return to.mac + mac + fip.ETHERTYPE + fip.encode(FipPdu(pdu, descriptors))


def flogi(port: Port, s_id: int, d_id: int, ox_id: int = 7) -> bytes:
    return els_request(d_id, s_id, ox_id, Login(command=ElsCommand.FLOGI, port_name=port.port_name, node_name=port.node_name))


def fcoe(destination: bytes, source: bytes, d_id: int, s_id: int) -> bytes:
    header = pack_header(0x06, d_id, s_id, 0x08, 0x290000, 0, 0, 0, 1, 0xFFFF, 0)
    return encapsulate(destination + source + b"\x89\x06", SOF_I3, header, bytes(32), EOF_T)


# The golden trace


def test_golden_trace():
    """Linux's initiator as it talked to LIO talks to us with LIO's names: our FIP frames are LIO's, byte for byte."""
    target = station(T_MAC)
    segment = Segment(target)
    golden = [each for each in captured() if each.ether_type == FIP]
    segment.up()
    start = segment.now
    for each in golden[5:13]:
        segment.run(max(0.0, start + each.time - segment.now))
        if each.ethernet[6:12] in (I_MAC, fabric_provided_mac(0x9700, VN2VN_FC_MAP)):
            frame = bytearray(each.ethernet)
            if frame[16:20] == b"\0\2\0\2":  # LS_ACC to the FLOGI: ours has its own OX_ID
                frame[44:46] = segment.frames[-1][44:46]
            segment.inject(bytes(frame))
    theirs = [
        bytearray(each.ethernet) for each in golden if each.ethernet[6:12] in (T_MAC, fabric_provided_mac(0xFC00, VN2VN_FC_MAP))
    ]
    ours = [bytearray(frame) for frame in segment.frames]
    for frame in ours + theirs:
        if frame[16:18] == b"\0\2":
            frame[44:48] = bytes(4)  # OX_ID and RX_ID
    assert [bytes(frame) for frame in ours] == [bytes(frame) for frame in theirs[: len(ours)]]
    assert len(ours) == 7  # two probes, claim, two beacons, claim response, FLOGI
    (port,) = target.ports
    assert port.events == [("up", 0x00FC00), ("remote up", 0x009700)]
    assert target.controller.route(port, 0x009700) == bytes.fromhex("0efd00009700") + bytes.fromhex("0efd0000fc00")
    # the initiator leaves
    segment.inject(golden[13].ethernet)
    reply, theirs_reply = bytearray(segment.frames[-1]), bytearray(golden[14].ethernet)
    for frame in (reply, theirs_reply):
        frame[37] = 0  # F_CTL: Linux hands over the sequence initiative of an exchange that is over
    assert reply == theirs_reply
    assert port.events[-1] == ("remote down", 0x009700, "LOGO")
    assert not target.services.counters


def test_times():
    """Probe twice, 100 ms apart; 400 ms later claim, beacon, beacon; then a beacon about every 8 s."""
    one = station(mac_of(1))
    segment = Segment(one)
    segment.up()
    moments = []
    end = segment.now + 30
    while (following := one.controller.next_timer) < end:
        before = len(segment.frames)
        segment.run(following - segment.now)
        moments += [(decoded(frame).pdu, segment.now) for frame in segment.frames[before:]]
    names, times = zip(*moments, strict=True)
    assert names == (Pdu.PROBE_REQUEST, Pdu.PROBE_REQUEST, Pdu.CLAIM_NOTIFICATION, *[Pdu.BEACON] * 5)
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert steps[:4] == pytest.approx([0.1, 0.4, 0.4, 0.4])
    assert all(8.0 <= step <= 8.1 for step in steps[4:])
    assert times[0] - 100.0 <= 0.1


# Logins


def test_two_log_in():
    segment, one, other = pair()
    segment.up()
    segment.run(10)
    assert logged_in(one, other)
    (a,), (b,) = one.ports, other.ports
    assert segment.pdus(one).count(segment.pdus(one)[0]) >= 1
    frame = fcoe(one.controller.route(a, b.fc_id)[:6], one.controller.route(a, b.fc_id)[6:], b.fc_id, a.fc_id)
    assert other.receive(frame, segment.now) is b
    assert one.controller.route(a, 0x123456) is None


@pytest.mark.parametrize("late", [0.0, 0.05, 0.3, 0.7, 1.5, 9.0])
def test_second_comes_later(late):
    segment, one, other = pair()
    segment.up(one)
    segment.run(late)
    segment.up(other)
    segment.run(10)
    assert logged_in(one, other)


def test_many_log_in():
    stations = [station(mac_of(0x1000 + 0x10 * number), seed=number) for number in range(12)]
    segment = Segment(*stations)
    for each in stations:
        segment.up(each)
        segment.run(0.03)
    segment.run(10)
    assert logged_in(*stations)


def test_several_ports_of_one():
    """They know of each other without a word, and do not log in with each other."""
    segment, one, other = pair(ports=1)
    one.ports += [port_of(one.mac, qualifier=0x100), port_of(one.mac, qualifier=0x200)]  # the same low 16 bits
    segment.up()
    segment.run(20)
    assert len({port.fc_id for port in one.ports}) == 3
    assert len(other.ports[0].remotes) == 3
    assert all(list(port.remotes) == [other.ports[0].fc_id] for port in one.ports)
    one.controller.remove_port(one.ports[1], segment.now)
    segment.deliver()
    assert len(other.ports[0].remotes) == 2
    assert not one.ports[1].fc_id
    with pytest.raises(ValueError, match="in use"):
        one.controller.add_port(one.ports[0], segment.now)


def test_two_targets_leave_each_other_alone():
    one, other = station(mac_of(1), parameters=FCP_TARGET), station(mac_of(2), parameters=FCP_TARGET)
    segment = Segment(one, other)
    segment.up()
    segment.run(30)
    assert not any(pdu.pdu is Pdu.VIRTUAL_LINK_REQUEST for pdu in segment.pdus())
    assert not concern_each_other(FCP_TARGET >> 4, FCP_TARGET >> 4)


@pytest.mark.parametrize("seed", range(20))
def test_lossy_segment(seed):
    """A third of all frames get lost; when they do no longer, all are logged in and stay so."""
    stations = [station(mac_of(0x100 + number), seed=number) for number in range(3)]
    segment, rng = Segment(*stations), random.Random(seed)
    segment.lose = lambda _frame: rng.random() < 0.33
    segment.up()
    segment.run(60)
    segment.lose = None
    segment.run(60)
    assert logged_in(*stations)


def test_claim_response_has_full_size():
    segment, one, other = pair(mtu=2500)
    other.controller.max_fcoe_size = 1500
    segment.up(one)
    segment.run(2)
    segment.up(other)
    segment.run(2)
    lengths = [len(frame) for frame in segment.frames if decoded(frame).pdu is Pdu.CLAIM_RESPONSE]
    assert lengths == [1514]


def test_a_day():
    """Nothing is sent but beacons, nothing changes, nothing is counted."""
    segment, one, other = pair()
    segment.up()
    segment.run(10)
    events = [list(each.ports[0].events) for each in (one, other)]
    del segment.frames[:]
    segment.run(86400)
    assert [each.ports[0].events for each in (one, other)] == events
    assert {pdu.pdu for pdu in segment.pdus()} == {Pdu.BEACON}
    assert len(segment.frames) == pytest.approx(2 * 86400 / 8.05, rel=0.01)
    assert not one.services.counters
    assert not other.services.counters


# Addresses


def same_address() -> tuple[Segment, Station, Station]:
    one, other = station(mac_of(0x010203)), station(mac_of(0x020203), seed=5)
    return Segment(one, other), one, other


@pytest.mark.parametrize("first", ["lesser", "greater"])
def test_conflict_while_probing(first):
    """Of two that probe for one address at the same time, the greater port name gets it, whoever was first."""
    segment, lesser, greater = same_address()
    one, two = (lesser, greater) if first == "lesser" else (greater, lesser)
    segment.up(one)
    segment.run(one.controller.next_timer - segment.now)
    segment.up(two)
    (vn_port,) = two.controller.vn_ports.values()
    vn_port.timer = segment.now + 0.01
    two.controller._next = vn_port.timer
    segment.run(20)
    assert greater.ports[0].fc_id == 0x0203
    assert lesser.ports[0].fc_id not in (0, 0x0203)
    assert logged_in(lesser, greater)


def test_address_that_is_in_use():
    """Whoever came first keeps it: a probe reply makes the other choose another."""
    segment, lesser, greater = same_address()
    segment.up(lesser)
    segment.run(UP_TIME)
    segment.up(greater)
    segment.run(20)
    assert lesser.ports[0].fc_id == 0x0203
    assert logged_in(lesser, greater)


def twins() -> tuple[Segment, Station, Station]:
    """Two interfaces whose ports have one name."""
    one, other = station(mac_of(0x0203)), station(mac_of(0x0302), seed=5)
    other.ports = [port_of(one.mac)]
    return Segment(one, other), one, other


@pytest.mark.parametrize("first", [0, 1])
def test_name_that_is_in_use(first):
    """Who comes second has another address, and both say what is wrong: frames to the first do not go astray."""
    segment, *both = twins()
    one, two = both[first], both[1 - first]
    segment.up(one)
    segment.run(UP_TIME)
    segment.up(two)
    segment.run(20)
    assert one.ports[0].fc_id == 0x0203
    assert one.ports[0].events == [("up", 0x0203)]
    assert two.ports[0].fc_id not in (0, 0x0203)
    for each, other in ((one, two), (two, one)):
        assert f"{other.mac.hex(':')} has port name {one.ports[0].port_name.hex(':')}, which is ours" in each.services.reports


def test_segments_with_one_name_become_one():
    segment, one, two = twins()
    segment.lose = lambda _frame: True
    segment.up()
    segment.run(5)
    segment.lose = None
    segment.run(30)
    assert two.ports[0].fc_id == 0x0203
    assert one.ports[0].fc_id not in (0, 0x0203)
    assert len(segment.frames) < 100


def test_segments_become_one():
    """Two that have claimed one address out of each other's hearing: the lesser gives it up."""
    segment, lesser, greater = same_address()
    segment.lose = lambda _frame: True
    segment.up()
    segment.run(5)
    assert lesser.ports[0].fc_id == greater.ports[0].fc_id == 0x0203
    segment.lose = None
    segment.run(30)
    assert greater.ports[0].fc_id == 0x0203
    assert ("down", "address conflict") in lesser.ports[0].events
    assert any("FC_ID 00.02.03" in text for text in lesser.services.reports)
    assert logged_in(lesser, greater)


def test_reserved_addresses_are_not_used():
    for low in (0x0000, 0xFFFF):
        one = station(bytes.fromhex("52540001") + low.to_bytes(2, "big"))
        segment = Segment(one)
        segment.up()
        segment.run(5)
        assert 0 < one.ports[0].fc_id < 0xFFFF


def test_nobody_gets_an_address():
    """All probes are answered: it tries ten addresses at once, then one every 10 s."""
    one = station(mac_of(7))
    segment = Segment(one)
    segment.up()
    for _ in range(30):
        segment.run(0.11)
        segment.inject(
            message(Pdu.PROBE_REPLY, mac_of(9), one.controller.vn_ports[one.ports[0].port_name].fc_id, destination=one.mac)
        )
    probes = len(segment.frames)
    assert probes <= 2 * (tables.PROBE_TRIES + 1)
    segment.run(6)
    assert len(segment.frames) == probes
    segment.run(10)
    assert one.ports[0].fc_id


@pytest.mark.parametrize("state", AddressState)
@pytest.mark.parametrize("event", AddressEvent)
def test_address_table(state, event):
    """Every pair, from the wire: state and answer are the table's."""
    one = station(mac_of(0x5000))
    segment = Segment(one)
    segment.up()
    (vn_port,) = one.controller.vn_ports.values()
    while vn_port.state is not state:
        segment.run(one.controller.next_timer - segment.now)
    segment.run(0.01)
    step = tables.ADDRESS.get((state, event))
    lesser, greater = mac_of(0x1000), mac_of(0x9000)
    stimulus = {
        AddressEvent.PROBED_BY_LESSER: message(Pdu.PROBE_REQUEST, lesser, 0x5000),
        AddressEvent.PROBED_BY_GREATER: message(Pdu.PROBE_REQUEST, greater, 0x5000),
        AddressEvent.REFUSED: message(Pdu.PROBE_REPLY, greater, 0x5000, destination=one.mac),
        AddressEvent.CLAIMED_BY_LESSER: message(Pdu.CLAIM_NOTIFICATION, lesser, 0x5000),
        AddressEvent.CLAIMED_BY_GREATER: message(Pdu.BEACON, greater, 0x5000),
    }
    sent = len(segment.frames)
    if event is AddressEvent.TIMER:
        segment.run(one.controller.next_timer - segment.now)
    else:
        segment.inject(stimulus[event])
    assert vn_port.state is (step.state if step else state)
    answers = {
        "send_probe": Pdu.PROBE_REQUEST,
        "send_probe_reply": Pdu.PROBE_REPLY,
        "claim": Pdu.CLAIM_NOTIFICATION,
        "send_claim": Pdu.CLAIM_NOTIFICATION,
        "come_up": Pdu.BEACON,
        "send_beacon": Pdu.BEACON,
    }
    expected = [answers[step.action]] if step and step.action in answers else []
    assert [decoded(frame).pdu for frame in segment.frames[sent:]] == expected
    assert (vn_port.fc_id == 0x5000) is not bool(step and step.action in ("choose_another", "give_up_address"))
    assert bool(one.ports[0].fc_id) is (vn_port.state in (AddressState.CLAIM, AddressState.UP))


def test_recorded_address_wins_a_probe():
    one = station(mac_of(0x5000))
    segment = Segment(one)
    segment.up()
    segment.run(0.15)
    segment.inject(message(Pdu.PROBE_REQUEST, mac_of(0x1000), 0x5000, flags=Flag.REC_P2P))
    assert one.controller.vn_ports[one.ports[0].port_name].fc_id != 0x5000


@pytest.mark.parametrize("pdu", [Pdu.CLAIM_NOTIFICATION, Pdu.BEACON])
def test_point_to_point_neighbour(pdu):
    """A probe tells it that there are more than two, at most one in 400 ms."""
    one = station(mac_of(0x5000))
    segment = Segment(one)
    segment.up()
    segment.run(2)
    sent = len(segment.frames)
    for _ in range(50):
        segment.inject(message(pdu, mac_of(0x1000), 0x1000, flags=Flag.REC_P2P))
    assert [decoded(frame).pdu for frame in segment.frames[sent:]] == [Pdu.PROBE_REQUEST]
    assert not len(one.controller.neighbours)


# Ends


def test_beacons_stop():
    segment, one, other = pair()
    segment.up()
    segment.run(10)
    a, b = one.ports[0], other.ports[0]
    address = b.fc_id
    other.controller.link_up = lambda now: None
    segment.stations.remove(other)
    segment.run(tables.BEACON_LOST + 0.2)
    assert a.events[-1] == ("remote down", address, "no beacons")
    assert one.services.counters["virtual_link_failures"] == 1
    assert one.controller.route(a, address) is None
    assert not len(one.controller.neighbours)


def test_link_down_and_up():
    segment, one, other = pair()
    segment.up()
    segment.run(10)
    one.controller.link_down(segment.now)
    assert one.ports[0].events[-1] == ("down", "link down")
    assert one.controller.next_timer == float("inf")
    segment.run(1)
    segment.up(one)
    segment.run(20)
    assert logged_in(one, other)


@pytest.mark.parametrize("late", [0, 0.01, 0.15])
def test_reboot_is_noticed_at_once(late):
    """A neighbour that has lost its memory is logged in again as soon as it is up, even if that is a little later."""
    segment, one, other = pair()
    segment.up()
    segment.run(10)
    segment.stations.remove(other)
    again = station(other.mac, seed=9)
    segment.stations.append(again)
    segment.up(again)
    (vn_port,) = again.controller.vn_ports.values()
    while vn_port.state is not AddressState.CLAIM:
        segment.run(0.001)
    vn_port.timer += late
    again.controller._next += late
    segment.run(1.0)
    assert logged_in(one, again)
    assert ("remote down", other.ports[0].fc_id, "FLOGI again") in one.ports[0].events


def test_we_have_lost_our_memory():
    """A neighbour that thinks it is logged in is told by LOGO, once in 2 s however many frames it sends."""
    segment, one, port = alone()
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x6000), 0x6000))
    own, theirs = fabric_provided_mac(port.fc_id, VN2VN_FC_MAP), fabric_provided_mac(0x6000, VN2VN_FC_MAP)
    for _ in range(3):
        sent = len(segment.frames)
        for _ in range(10):
            segment.inject(fcoe(own, theirs, port.fc_id, 0x6000))
        (frame,) = segment.frames[sent:]
        assert frame[:6] == mac_of(0x6000)
        assert decoded(frame).get(fip.Logo).frame[24] == ElsCommand.LOGO
        segment.run(2.0)
    assert not port.frames
    assert one.services.counters == {"fcoe_unexpected": 30}
    segment.inject(fcoe(own, mac_of(0x6000), port.fc_id, 0x6000))
    assert one.services.counters["fcoe_spoofed"] == 1


def test_stop():
    segment, one, other = pair()
    segment.up()
    segment.run(10)
    address = one.ports[0].fc_id
    one.controller.stop(segment.now)
    segment.deliver()
    assert one.ports[0].events[-1] == ("down", "stopped")
    assert other.ports[0].events[-1] == ("remote down", address, "LOGO")
    assert one.controller.next_timer == float("inf")
    segment.run(100)
    assert not one.ports[0].fc_id


def test_port_logs_out():
    """LOGO of a port goes in FIP, its LS_ACC comes back to the port; later the neighbour logs in again."""
    segment, one, other = pair()
    segment.up()
    segment.run(10)
    a, b = one.ports[0], other.ports[0]
    request = els_request(b.fc_id, a.fc_id, 0x55, Logo(n_port_id=a.fc_id, port_name=a.port_name))
    assert one.controller.send_link_service(a, request[:24], request[24:], segment.now)
    del a.remotes[b.fc_id]
    segment.deliver()
    assert b.events[-1] == ("remote down", a.fc_id, "LOGO")
    assert [(frame.ox_id, frame.payload[0]) for frame in a.frames] == [(0x55, ElsCommand.LS_ACC)]
    assert one.controller.route(a, b.fc_id) is None
    assert not one.controller.send_link_service(a, request[:24], request[24:], segment.now)
    rtv = els_request(b.fc_id, a.fc_id, 0x56, Plain(command=ElsCommand.RTV))
    assert not one.controller.send_link_service(a, rtv[:24], rtv[24:], segment.now)
    segment.run(10)
    assert logged_in(one, other)


# Hostile neighbours


def alone() -> tuple[Segment, Station, Port]:
    one = station(mac_of(0x5000))
    segment = Segment(one)
    segment.up()
    segment.run(2)
    return segment, one, one.ports[0]


def introduce(segment: Segment, mac: bytes, fc_id: int, one: Station) -> Port:
    """A neighbour that is logged in."""
    port = port_of(mac)
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac, fc_id))
    segment.inject(els(mac, one, flogi(port, fc_id, one.ports[0].fc_id), fip.Flogi))
    assert fc_id in one.ports[0].remotes
    return port


def test_flogi_of_a_stranger():
    segment, one, port = alone()
    segment.inject(els(mac_of(1), one, flogi(port_of(mac_of(1)), 1, port.fc_id), fip.Flogi))
    assert one.services.counters == {"fip_unexpected": 1}
    assert not port.remotes


def test_spoofed_mac():
    """Neither FIP nor FCoE frames of one neighbour come from another."""
    segment, one, port = alone()
    friend, foe = mac_of(0x6000), mac_of(0x6666)
    introduce(segment, friend, 0x6000, one)
    events = list(port.events)
    logo = els_request(port.fc_id, 0x6000, 9, Logo(n_port_id=0x6000, port_name=port_of(friend).port_name))
    for frame in (
        els(foe, one, logo, fip.Logo),
        els(foe, one, flogi(port_of(friend), 0x6000, port.fc_id), fip.Flogi),
        message(Pdu.BEACON, friend, 0x6000).replace(
            ethernet.ALL_VN2VN_ENODE_MACS + friend, ethernet.ALL_VN2VN_ENODE_MACS + foe, 1
        ),
        message(Pdu.CLAIM_NOTIFICATION, one.mac, 0x6001),
    ):
        segment.inject(frame)
    assert one.services.counters["fip_spoofed"] + one.services.counters["fip_not_for_us"] == 4
    segment.inject(fcoe(fabric_provided_mac(port.fc_id, VN2VN_FC_MAP), foe, port.fc_id, 0x6000))
    segment.inject(
        fcoe(fabric_provided_mac(port.fc_id, VN2VN_FC_MAP), fabric_provided_mac(0x6666, VN2VN_FC_MAP), port.fc_id, 0x6000)
    )
    segment.inject(fcoe(fabric_provided_mac(port.fc_id, VN2VN_FC_MAP), fabric_provided_mac(0x6000, VN2VN_FC_MAP), 0x1, 0x6000))
    assert one.services.counters["fcoe_spoofed"] == 2
    assert one.services.counters["fcoe_not_for_us"] == 1
    assert port.events == events
    assert not port.frames
    segment.inject(
        fcoe(fabric_provided_mac(port.fc_id, VN2VN_FC_MAP), fabric_provided_mac(0x6000, VN2VN_FC_MAP), port.fc_id, 0x6000)
    )
    assert len(port.frames) == 1


def test_stolen_name():
    """Another ENode with a neighbour's port name, or with ours, gets nothing."""
    segment, one, port = alone()
    friend = mac_of(0x6000)
    introduce(segment, friend, 0x6000, one)
    events = list(port.events)
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x6666), 0x6000, port=port_of(friend)))
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x6666), 0x7000, port=port_of(friend)))
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x6666), 0x7000, port=port))
    segment.inject(message(Pdu.BEACON, mac_of(0x6666), 0x6000, port=port_of(friend)))
    assert one.services.counters["fip_conflict"] == 4
    assert one.services.reports[2] == f"{mac_of(0x6666).hex(':')} has port name {port.port_name.hex(':')}, which is ours"
    assert port.events == events
    # with its own name it does if that is greater: both have the address
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x1111), 0x6000))
    assert port.events == events
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x7777), 0x6000))
    assert port.events[len(events) :] == [("remote down", 0x6000, "its address has changed")]


def test_claims_come_from_the_enode():
    """Whoever has a VN_Port MAC address does not move a neighbour to it: claims and probes come from the ENode."""
    segment, one, port = alone()
    friend = mac_of(0x6000)
    introduce(segment, friend, 0x6000, one)
    events = list(port.events)
    foe = fabric_provided_mac(0x6666, VN2VN_FC_MAP)
    for pdu in (Pdu.PROBE_REQUEST, Pdu.PROBE_REPLY, Pdu.CLAIM_NOTIFICATION, Pdu.CLAIM_RESPONSE):
        frame = message(pdu, friend, 0x6666, port=port_of(friend))
        segment.inject(frame[:6] + foe + frame[12:])
    assert one.services.counters["fip_spoofed"] == 4
    assert port.events == events
    assert [each.fc_id for each in one.controller.neighbours] == [0x6000]


def test_address_is_not_taken_behind_its_owners_back():
    """A greater port name gets an address by telling everybody, its owner too, who then gives it up."""
    segment, one, port = alone()
    introduce(segment, mac_of(0x6000), 0x6000, one)
    events = list(port.events)
    for fc_id in (0x6000, port.fc_id):
        segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x7777), fc_id, destination=one.mac))
        segment.inject(message(Pdu.CLAIM_RESPONSE, mac_of(0x7777), fc_id, destination=one.mac))
        segment.inject(message(Pdu.BEACON, mac_of(0x7777), fc_id, destination=one.mac))
    assert (one.services.counters["fip_unexpected"], one.services.counters["fip_conflict"]) == (4, 1)
    assert port.events == events
    assert port.fc_id
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x7777), 0x6000))
    assert port.events[len(events) :] == [("remote down", 0x6000, "its address has changed")]


def test_neighbour_moves():
    """The same ENode with another address: the old one is gone."""
    segment, one, port = alone()
    friend = mac_of(0x6000)
    introduce(segment, friend, 0x6000, one)
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, friend, 0x6001))
    assert port.events[-1] == ("remote down", 0x6000, "its address has changed")
    assert [each.fc_id for each in one.controller.neighbours] == [0x6001]


def test_flogi_with_another_name():
    segment, one, port = alone()
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x6000), 0x6000))
    for request, kind in (
        (flogi(port_of(mac_of(0x6001)), 0x6000, port.fc_id), fip.Flogi),
        (flogi(port_of(mac_of(0x6000)), 0x6000, port.fc_id)[:100], fip.Flogi),
        (flogi(port_of(mac_of(0x6000)), 0x6000, port.fc_id), fip.Fdisc),
        (els_request(port.fc_id, 0x6000, 3, Plain(command=ElsCommand.RTV)), fip.Logo),
    ):
        segment.inject(els(mac_of(0x6000), one, request, kind))
        answer = decoded(segment.frames[-1])
        assert answer.pdu is Pdu.VIRTUAL_LINK_REPLY
        assert type(answer.descriptors[0]) is kind
        assert answer.get(fip.Encapsulated).frame[24] == ElsCommand.LS_RJT
    assert not port.remotes


def test_answers_to_no_flogi():
    segment, one, port = alone()
    other = port_of(mac_of(0x6000))
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x6000), 0x6000))
    reply = bytearray(flogi(other, 0x6000, port.fc_id, ox_id=1))
    reply[0], reply[24] = 0x23, ElsCommand.LS_ACC
    segment.inject(els(mac_of(0x6000), one, bytes(reply), fip.Flogi, pdu=Pdu.VIRTUAL_LINK_REPLY))
    assert one.services.counters["fip_unexpected"] == 1
    segment.inject(message(Pdu.BEACON, mac_of(0x6000), 0x6000))  # now it is one
    wrong = bytearray(reply)
    wrong[16:18] = b"\x77\x77"
    segment.inject(els(mac_of(0x6000), one, bytes(wrong), fip.Flogi, pdu=Pdu.VIRTUAL_LINK_REPLY))
    assert not port.remotes
    reply[16:18] = decoded(segment.frames[-1]).get(fip.Flogi).frame[16:18]
    segment.inject(els(mac_of(0x6000), one, bytes(reply), fip.Flogi, pdu=Pdu.VIRTUAL_LINK_REPLY))
    assert list(port.remotes) == [0x6000]


def test_no_answer_to_flogi():
    """Three FLOGIs, 2 s apart, after each beacon; a refusal ends them."""
    segment, one, port = alone()
    segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x6000), 0x6000))
    for _ in range(2):
        before = sum(pdu.pdu is Pdu.VIRTUAL_LINK_REQUEST for pdu in segment.pdus())
        segment.inject(message(Pdu.BEACON, mac_of(0x6000), 0x6000))
        segment.run(8)
        assert sum(pdu.pdu is Pdu.VIRTUAL_LINK_REQUEST for pdu in segment.pdus()) == before + 3
    segment.inject(message(Pdu.BEACON, mac_of(0x6000), 0x6000))
    request = decoded(segment.frames[-1]).get(fip.Flogi).frame
    refusal = Frame.unpack(memoryview(request), SOF_I3, EOF_T)
    segment.inject(els(mac_of(0x6000), one, els_reply(refusal, Reject(reason=3)), fip.Flogi, pdu=Pdu.VIRTUAL_LINK_REPLY))
    sent = len(segment.frames)
    segment.run(7)
    assert not [frame for frame in segment.frames[sent:] if decoded(frame).pdu is not Pdu.BEACON]
    assert one.services.counters["fip_logins_refused"] == 1
    assert not port.remotes


def test_flood_of_claims():
    """Neighbours that are not logged in give way; the one that is stays."""
    segment, one, port = alone()
    introduce(segment, mac_of(0x6000), 0x6000, one)
    for number in range(1, 5000):
        segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac_of(0x100000 + number), 0x7000 + number))
        segment.now += 0.001
    assert len(one.controller.neighbours) == MAX_NEIGHBOURS
    (vn_port,) = one.controller.vn_ports.values()
    assert len(vn_port.links) == MAX_NEIGHBOURS
    assert list(port.remotes) == [0x6000]
    assert one.services.counters["fip_table_full"] > 4000
    responses = sum(pdu.pdu is Pdu.CLAIM_RESPONSE for pdu in segment.pdus())
    assert responses < 2 * MAX_NEIGHBOURS + 5 * MAX_NEIGHBOURS + 2
    for _ in range(5):
        segment.inject(message(Pdu.BEACON, mac_of(0x6000), 0x6000))
        segment.run(8)
    assert [each.fc_id for each in one.controller.neighbours] == [0x6000]
    assert list(port.remotes) == [0x6000]


def test_flood_of_strangers_is_not_read():
    """FIP of 10,000 MAC addresses costs no time beyond a limit; who is logged in is heard."""
    segment, one, port = alone()
    introduce(segment, mac_of(0x6000), 0x6000, one)
    for number in range(10_000):
        segment.inject(ethernet.ALL_VN2VN_ENODE_MACS + mac_of(0x100000 + number) + fip.ETHERTYPE + bytes(46))
    counters = one.services.counters
    assert counters["fip_rate_limited"] == 10_000 - STRANGERS_BURST + 2  # two frames were of introducing the neighbour
    logo = els_request(port.fc_id, 0x6000, 9, Logo(n_port_id=0x6000, port_name=port_of(mac_of(0x6000)).port_name))
    segment.inject(els(mac_of(0x6000), one, logo, fip.Logo))
    assert not port.remotes
    limited = counters["fip_rate_limited"]
    segment.inject(els(mac_of(0x6000), one, logo, fip.Logo))  # it is a stranger now
    assert counters["fip_rate_limited"] == limited + 1


def test_flood_of_logins():
    """More neighbours log in than there is room for: those that are there stay."""
    segment, one, port = alone()
    for number in range(1, MAX_NEIGHBOURS + 50):
        mac, fc_id = mac_of(0x100000 + number), 0x7000 + number
        segment.now += 0.01
        segment.inject(message(Pdu.CLAIM_NOTIFICATION, mac, fc_id))
        segment.inject(els(mac, one, flogi(port_of(mac), fc_id, port.fc_id), fip.Flogi))
    assert len(port.remotes) == MAX_NEIGHBOURS
    assert not [event for event in port.events if event[0] == "remote down"]


def test_flood_of_probes():
    """Each is answered, up to a limit."""
    segment, one, port = alone()
    sent = len(segment.frames)
    for _ in range(5000):
        segment.inject(message(Pdu.PROBE_REQUEST, mac_of(0x9000), port.fc_id))
    assert len(segment.frames) - sent == 2 * MAX_NEIGHBOURS
    assert one.services.counters["fip_rate_limited"] == 5000 - 2 * MAX_NEIGHBOURS
    assert port.fc_id == 0x5000


def test_flogi_storm():
    segment, one, port = alone()
    introduce(segment, mac_of(0x6000), 0x6000, one)
    friend = introduce(segment, mac_of(0x6001), 0x6001, one)
    for number in range(3000):
        segment.inject(els(mac_of(0x6000), one, flogi(port_of(mac_of(0x6000)), 0x6000, port.fc_id, number), fip.Flogi))
    assert one.services.counters["fip_rate_limited"] > 2900
    assert port.remotes.keys() == {0x6000, 0x6001}
    segment.inject(els(mac_of(0x6001), one, flogi(port_of(mac_of(0x6001)), 0x6001, port.fc_id, 77), fip.Flogi))
    assert decoded(segment.frames[-1]).get(fip.Flogi).frame[24] == ElsCommand.LS_ACC
    assert [event[2] for event in port.events if event[:2] == ("remote down", 0x6001)] == ["FLOGI again"]
    assert friend.port_name == port.remotes[0x6001][0]
    (vn_port,) = one.controller.vn_ports.values()
    assert len(vn_port.links) == 2


def test_other_operations_are_dropped():
    segment, one, _port = alone()
    descriptors = (fip.MacAddress(mac_of(1)), fip.NameIdentifier(bytes(8)), fip.MaxFcoeSize(2158))
    segment.inject(one.mac + mac_of(1) + fip.ETHERTYPE + fip.encode(FipPdu(Pdu.SOLICITATION, descriptors)))
    assert one.services.counters["fip_unexpected"] == 1
    segment.inject(one.mac + mac_of(1) + fip.ETHERTYPE + bytes(46))
    assert one.services.counters["fip_version"] == 1


def test_vlan_request():
    one = station(mac_of(0x5000), vlan=100)
    segment = Segment(one)
    segment.up()
    request = FipPdu(Pdu.VLAN_REQUEST, (fip.MacAddress(mac_of(1)),))
    segment.inject(ethernet.ALL_VN2VN_ENODE_MACS + mac_of(1) + fip.ETHERTYPE + fip.encode(request))
    (answer,) = one.services.untagged
    assert answer[:6] == mac_of(1)
    assert decoded(answer) == FipPdu(Pdu.VN2VN_VLAN_NOTIFICATION, (fip.MacAddress(one.mac), fip.Vlan(100)))
    segment.inject(ethernet.ALL_VN2VN_ENODE_MACS + mac_of(2) + fip.ETHERTYPE + fip.encode(request))
    assert one.services.counters["fip_spoofed"] == 1


# The tables


@pytest.mark.parametrize("table", [tables.ADDRESS, tables.LINK])
def test_tables_name_methods(table):
    assert all(hasattr(Vn2vnController, f"_{step.action}") for step in table.values() if step.action)
    assert {step.state for step in table.values()} <= {state for state, _ in table}
    assert len(drawing(table).splitlines()) == len(table) + 1


def test_tables_use_all_events():
    assert {event for _, event in tables.ADDRESS} == set(AddressEvent)
    assert {event for _, event in tables.LINK} == set(LinkEvent)
    assert {state for state, _ in tables.LINK} == set(LinkState)


def test_fc4_attributes():
    assert [fcp_features(fc4_attributes(features)) for features in range(4)] == [0, 1, 2, 3]
