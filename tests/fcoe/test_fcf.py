"""Mode fcf: an FCF as ENodes see it (FC-BB-5 7.9), Linux's libfcoe above all; and ENodes as an FCF has to bear them.

Longer than most files because one table of states has all its stories in one place.
"""

from __future__ import annotations

import random

import pytest
from support.fcoe_segment import Port, Segment, Station, decoded, mac_of, port_of
from support.fcoe_stations import INITIATOR, TARGET, NotingFc4, station_of
from support.fcoe_stations import Segment as Stations
from tcm_fcoe.protocol import ethernet, fip
from tcm_fcoe.protocol import fcf_tables as tables
from tcm_fcoe.protocol.controller import FCP_TARGET, STRANGERS_BURST, els_request
from tcm_fcoe.protocol.els import LinkErrorStatus, Logo, Plain
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import Login
from tcm_fcoe.protocol.fcf import MAX_PORTS_PER_ENODE, FcfController
from tcm_fcoe.protocol.fcf_errors import REMEMBERED, VirtualLinkErrors
from tcm_fcoe.protocol.fcf_tables import VirtualLinkEvent, VirtualLinkState
from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3, encapsulate
from tcm_fcoe.protocol.fip import FipPdu, Flag, Pdu
from tcm_fcoe.protocol.frame import Frame, pack_header
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import DEFAULT_FC_MAP, fabric_provided_mac
from tcm_fcoe.protocol.station import Station as Station_
from tcm_fcoe.protocol.switch import MAX_PORTS

F_PORT = 0xFFFFFE
ENODE, OTHER = mac_of(0x100), mac_of(0x200)


def fcf(**options: object) -> tuple[Segment, Station, Port]:
    """An FCF with a target port of ours."""
    one = Station(FcfController, mac_of(0xFCF), **options)
    one.services.strict = False
    one.ports = [port_of(one.mac, parameters=FCP_TARGET)]
    segment = Segment(one)
    segment.up()
    segment.run(0.1)
    return segment, one, one.ports[0]


def to_fcf(
    mac: bytes,
    pdu: Pdu,
    *descriptors: fip.Descriptor,
    flags: Flag = Flag.FPMA,
    source: bytes = b"",
    to: bytes = ethernet.ALL_FCF_MACS,
) -> bytes:
    return to + (source or mac) + fip.ETHERTYPE + fip.encode(FipPdu(pdu, descriptors, flags))


def login(
    mac: bytes,
    port: Port,
    *,
    kind: type[fip.Encapsulated] = fip.Flogi,
    s_id: int = 0,
    ox_id: int = 5,
    size: int = 2112,
    **options,
) -> bytes:
    command = ElsCommand.FLOGI if kind is fip.Flogi else ElsCommand.FDISC
    payload = Login(command=command, port_name=port.port_name, node_name=port.node_name, receive_size=size, features=0x8000)
    request = kind(els_request(F_PORT, s_id, ox_id, payload))
    proposed = options.pop("proposed", bytes(6))
    return to_fcf(mac, Pdu.VIRTUAL_LINK_REQUEST, request, fip.MacAddress(proposed), **options)


def logo(mac: bytes, port: Port, s_id: int, vn_mac: bytes | None = None) -> bytes:
    request = fip.Logo(els_request(F_PORT, s_id, 6, Logo(n_port_id=s_id, port_name=port.port_name)))
    return to_fcf(mac, Pdu.VIRTUAL_LINK_REQUEST, request, fip.MacAddress(vn_mac or fabric_provided_mac(s_id)))


def answer(segment: Segment) -> tuple[FipPdu, Frame]:
    """The ELS in the last frame."""
    pdu = decoded(segment.frames[-1])
    return pdu, Frame.unpack(memoryview(pdu.get(fip.Encapsulated).frame), SOF_I3, EOF_T)


def logged_in(segment: Segment, mac: bytes, port: Port, **options) -> int:
    """FC_ID of a port that logs in."""
    segment.inject(login(mac, port, **options))
    pdu, frame = answer(segment)
    assert frame.payload[0] == ElsCommand.LS_ACC, frame.payload[:8].hex()
    assert segment.frames[-1][:6] == mac
    assert pdu.get(fip.MacAddress).address == segment.stations[0].controller.switch.ports[frame.d_id].mac
    return frame.d_id


def refused(segment: Segment, frame: bytes) -> tuple[int, int]:
    """Reason and explanation of the LS_RJT to a login."""
    segment.inject(frame)
    pdu, reply = answer(segment)
    assert pdu.pdu is Pdu.VIRTUAL_LINK_REPLY
    assert reply.payload[0] == ElsCommand.LS_RJT
    assert pdu.find(fip.MacAddress) is None
    return reply.payload[5], reply.payload[6]


# Advertisements


def test_advertisements():
    """At once, then every 8 s or a little more; what Linux demands of one is in it."""
    segment, one, _port = fcf(priority=3)
    segment.run(40)
    advertisements = [decoded(frame) for frame in segment.frames]
    assert [each.pdu for each in advertisements] == [Pdu.ADVERTISEMENT] * 5
    assert all(frame[:6] == ethernet.ALL_ENODE_MACS and frame[6:12] == one.mac for frame in segment.frames)
    first = advertisements[0]
    assert first.flags == Flag.FPMA | Flag.SPMA | Flag.AVAILABLE | Flag.FCF
    assert first.get(fip.Priority).priority == 3
    assert first.get(fip.FkaAdvPeriod) == fip.FkaAdvPeriod(8000)
    assert first.get(fip.Fabric).fc_map == DEFAULT_FC_MAP
    assert any(first.get(fip.NameIdentifier).name)


@pytest.mark.parametrize(("size", "length"), [(2158, 2172), (1500, 1514), (9000, 2172)])
def test_solicitation(size, length):
    """The answer is unicast, as long as the ENode's frames may get: it shows that they arrive."""
    segment, one, _port = fcf()
    descriptors = (fip.MacAddress(ENODE), fip.NameIdentifier(bytes(8)), fip.MaxFcoeSize(size))
    segment.inject(to_fcf(ENODE, Pdu.SOLICITATION, *descriptors))
    frame = segment.frames[-1]
    assert frame[:6] == ENODE
    assert len(frame) == length
    assert decoded(frame).flags & (Flag.SOLICITED | Flag.AVAILABLE) == Flag.SOLICITED | Flag.AVAILABLE
    sent = len(segment.frames)
    segment.inject(to_fcf(ENODE, Pdu.SOLICITATION, *descriptors, flags=Flag.FPMA | Flag.FCF))  # another FCF's
    segment.inject(to_fcf(ENODE, Pdu.SOLICITATION, *descriptors, flags=fip.NO_FLAGS))
    segment.inject(to_fcf(ENODE, Pdu.SOLICITATION, *descriptors, source=OTHER))
    assert len(segment.frames) == sent
    assert one.services.counters == {"fip_unexpected": 2, "fip_spoofed": 1}


@pytest.mark.parametrize("vlan", [0, 7])
def test_vlan_notification(vlan):
    segment, one, _port = fcf(vlan=vlan)
    segment.inject(to_fcf(ENODE, Pdu.VLAN_REQUEST, fip.MacAddress(ENODE)))
    (frame,) = one.services.untagged
    assert frame[:6] == ENODE
    assert decoded(frame).get(fip.Vlan).vlan == vlan


# Logins


def test_flogi():
    """LS_ACC with F_Port, NPIV, time-outs and an FPMA, as libfc takes it apart."""
    segment, one, _port = fcf()
    fc_id = logged_in(segment, ENODE, port_of(ENODE))
    pdu, frame = answer(segment)
    assert pdu.flags & Flag.FPMA
    assert pdu.descriptors[1] == fip.MacAddress(fabric_provided_mac(fc_id))
    assert isinstance(pdu.descriptors[0], fip.Flogi)
    assert (frame.s_id, frame.ox_id, frame.f_ctl) == (F_PORT, 5, 0x980000)
    accept = Login.parse(frame.payload)
    assert accept.features & 0x1000
    assert accept.features & 0x2000
    assert (accept.r_a_tov, accept.e_d_tov) == (10.0, 2.0)
    assert accept.receive_size == 2112
    assert accept.class_3_parameters.valid
    assert one.services.counters == {}
    assert fc_id >> 16 == 1


def test_same_name_has_the_same_address():
    segment, _one, _port = fcf()
    first = logged_in(segment, ENODE, port_of(ENODE))
    second = logged_in(segment, OTHER, port_of(OTHER))
    segment.inject(logo(ENODE, port_of(ENODE), first))
    assert logged_in(segment, mac_of(0x300), port_of(mac_of(0x300))) not in (first, second)
    assert logged_in(segment, ENODE, port_of(ENODE)) == first


def test_npiv():
    """FDISC needs a FLOGI; LOGO of the first port ends all, LOGO of another only that one."""
    segment, one, port = fcf()
    ports = [port_of(ENODE, qualifier=number) for number in range(3)]
    assert refused(segment, login(ENODE, ports[1], kind=fip.Fdisc)) == (Reason.LOGICAL_ERROR, Explanation.N_PORT_LOGIN_REQUIRED)
    ids = [logged_in(segment, ENODE, each, kind=fip.Fdisc if index else fip.Flogi) for index, each in enumerate(ports)]
    assert len(set(ids)) == 3
    assert logged_in(segment, ENODE, ports[1], kind=fip.Fdisc) == ids[1]
    segment.inject(logo(ENODE, ports[2], ids[2]))
    assert answer(segment)[1].payload[0] == ElsCommand.LS_ACC
    assert set(one.controller.switch.ports) == {port.fc_id, *ids[:2]}
    segment.inject(logo(ENODE, ports[0], ids[0]))
    assert set(one.controller.switch.ports) == {port.fc_id}
    assert not one.controller.enodes
    assert refused(segment, logo(ENODE, ports[0], ids[0])) == (Reason.LOGICAL_ERROR, Explanation.N_PORT_LOGIN_REQUIRED)


def test_whose_logo_is_accepted():
    """The VN_Port's own: by its ENode, with its address and its MAC address."""
    segment, one, _port = fcf()
    port = port_of(ENODE)
    fc_id, other = logged_in(segment, ENODE, port), logged_in(segment, OTHER, port_of(OTHER))
    assert refused(segment, logo(OTHER, port, fc_id)) == (Reason.LOGICAL_ERROR, Explanation.N_PORT_LOGIN_REQUIRED)
    assert refused(segment, logo(ENODE, port, other, fabric_provided_mac(fc_id))) == (
        Reason.LOGICAL_ERROR,
        Explanation.INVALID_N_PORT_ID,
    )
    sent = len(segment.frames)
    segment.inject(logo(ENODE, port, fc_id, fabric_provided_mac(other)))
    assert len(segment.frames) == sent
    assert one.services.counters["fip_spoofed"] == 1
    assert fc_id in one.controller.switch.ports
    segment.inject(logo(ENODE, port, fc_id))
    pdu, accept = answer(segment)
    assert accept.payload[0] == ElsCommand.LS_ACC
    assert pdu.get(fip.MacAddress).address == fabric_provided_mac(fc_id)
    assert fc_id not in one.controller.switch.ports


def test_flogi_again():
    """It ends all that the ENode had."""
    segment, one, port = fcf()
    first = logged_in(segment, ENODE, port_of(ENODE))
    logged_in(segment, ENODE, port_of(ENODE, qualifier=1), kind=fip.Fdisc)
    friend = logged_in(segment, OTHER, port_of(OTHER))
    assert logged_in(segment, ENODE, port_of(ENODE)) == first
    assert set(one.controller.switch.ports) == {port.fc_id, first, friend}
    again = logged_in(segment, ENODE, port_of(ENODE, qualifier=7))
    assert set(one.controller.switch.ports) == {port.fc_id, again, friend}


def test_refused_logins():
    segment, one, port = fcf()
    logged_in(segment, ENODE, port_of(ENODE))
    other = port_of(OTHER)
    logical, fip_error = Reason.LOGICAL_ERROR, Reason.FIP_ERROR
    assert refused(segment, login(OTHER, port_of(ENODE))) == (logical, Explanation.INVALID_PORT_NAME)
    assert refused(segment, login(OTHER, port)) == (logical, Explanation.INVALID_PORT_NAME)
    assert refused(segment, login(OTHER, Port(bytes(8), bytes(8)))) == (logical, Explanation.INVALID_PORT_NAME)
    assert refused(segment, login(OTHER, other, s_id=0x010002)) == (logical, Explanation.INVALID_ORIGINATOR_S_ID)
    assert refused(segment, login(OTHER, other, size=128)) == (logical, Explanation.RECEIVE_DATA_FIELD_SIZE)
    assert refused(segment, login(OTHER, other, flags=fip.NO_FLAGS)) == (fip_error, Explanation.NONE)
    request = fip.Flogi(els_request(F_PORT, 0, 1, Login(command=ElsCommand.FLOGI, port_name=bytes(8), node_name=bytes(8)))[:60])
    assert refused(segment, to_fcf(OTHER, Pdu.VIRTUAL_LINK_REQUEST, request, fip.MacAddress(bytes(6)))) == (
        Reason.PROTOCOL_ERROR,
        Explanation.INVALID_PAYLOAD_LENGTH,
    )
    assert one.services.counters == {"fip_logins_refused": 7}
    assert len(one.services.reports) == 7
    assert len(one.controller.switch.ports) == 2
    assert not one.controller.enodes.get(OTHER)


def test_spma():
    segment, one, _port = fcf()
    proposed = bytes.fromhex("020000000001")
    fc_id = logged_in(segment, ENODE, port_of(ENODE), flags=Flag.SPMA, proposed=proposed)
    assert decoded(segment.frames[-1]).flags & (Flag.SPMA | Flag.FPMA) == Flag.SPMA
    assert one.controller.route(one.ports[0], fc_id) == proposed + one.mac
    for wrong in (proposed, bytes(6), bytes.fromhex("030000000001"), one.mac, fabric_provided_mac(0x010005)):
        assert refused(segment, login(OTHER, port_of(OTHER), flags=Flag.SPMA, proposed=wrong)) == (Reason.FIP_ERROR, 0)
    wrong = ENODE  # frames to the one would go to the other, and the other's would pass for its own
    assert refused(segment, login(OTHER, port_of(OTHER), flags=Flag.SPMA, proposed=wrong)) == (Reason.FIP_ERROR, 0)
    # FPMA is preferred of an ENode that takes both
    other = logged_in(segment, OTHER, port_of(OTHER), flags=Flag.SPMA | Flag.FPMA, proposed=proposed)
    assert one.controller.route(one.ports[0], other) == fabric_provided_mac(other) + one.mac
    segment, _one, _port = fcf(spma=False)
    assert refused(segment, login(ENODE, port_of(ENODE), flags=Flag.SPMA, proposed=proposed)) == (Reason.FIP_ERROR, 0)


def test_what_is_no_login():
    segment, one, _port = fcf()
    sent = len(segment.frames)
    rtv = els_request(F_PORT, 0, 1, Plain(command=ElsCommand.RTV))
    flogi = els_request(0x010001, 0, 1, Login(command=ElsCommand.FLOGI, port_name=ENODE + b"\0\1", node_name=bytes(8)))
    for kind, frame in ((fip.Flogi, rtv), (fip.Elp, rtv), (fip.Flogi, flogi), (fip.Fdisc, flogi)):
        segment.inject(to_fcf(ENODE, Pdu.VIRTUAL_LINK_REQUEST, kind(frame), fip.MacAddress(bytes(6))))
    assert one.services.counters == {"fip_unexpected": 4}
    reply = bytearray(flogi)
    reply[0] = 0x23
    segment.inject(to_fcf(ENODE, Pdu.VIRTUAL_LINK_REQUEST, fip.Flogi(bytes(reply)), fip.MacAddress(bytes(6))))
    segment.inject(to_fcf(ENODE, Pdu.VIRTUAL_LINK_REPLY, fip.Flogi(bytes(reply)), fip.MacAddress(bytes(6))))
    segment.inject(login(bytes.fromhex("010000000001"), port_of(ENODE)))
    assert len(segment.frames) == sent
    assert not one.controller.enodes


# Keep-alives


def keep_alive(mac: bytes, *, source: bytes = b"") -> bytes:
    return to_fcf(mac, Pdu.KEEP_ALIVE, fip.MacAddress(mac), source=source)


def vn_keep_alive(mac: bytes, port: Port, fc_id: int, *, source: bytes = b"") -> bytes:
    vn_mac = fabric_provided_mac(fc_id)
    identity = fip.VxPort(vn_mac, fc_id, port.port_name)
    return to_fcf(mac, Pdu.KEEP_ALIVE, fip.MacAddress(mac), identity, source=source or vn_mac)


def clears(segment: Segment) -> list[FipPdu]:
    return [pdu for pdu in segment.pdus() if pdu.pdu is Pdu.CLEAR_VIRTUAL_LINKS]


def test_silent_enode():
    """20 s without keep-alives: all its virtual links are cleared, others stay."""
    segment, one, port = fcf()
    first = logged_in(segment, ENODE, port_of(ENODE))
    second = logged_in(segment, ENODE, port_of(ENODE, qualifier=1), kind=fip.Fdisc)
    friend = logged_in(segment, OTHER, port_of(OTHER))
    for _ in range(3):
        segment.run(7)
        segment.inject(keep_alive(OTHER))
    assert set(one.controller.switch.ports) == {port.fc_id, friend}
    assert [each.all(fip.VxPort)[0].fc_id for each in clears(segment)] == [first, second]
    cleared = clears(segment)[0]
    assert cleared.get(fip.MacAddress).address == one.mac
    assert cleared.get(fip.NameIdentifier).name == one.controller.name
    assert ("remote down", first, "no keep-alives of the ENode") in port.events
    assert one.services.counters == {"missed_keep_alives": 1, "virtual_link_failures": 1}


def test_silent_port():
    """225 s without keep-alives of a VN_Port, whose ENode is there."""
    segment, one, port = fcf()
    first = logged_in(segment, ENODE, port_of(ENODE))
    second = logged_in(segment, ENODE, port_of(ENODE, qualifier=1), kind=fip.Fdisc)
    for step in range(33):
        segment.run(7)
        segment.inject(keep_alive(ENODE))
        if step % 10 == 5:
            segment.inject(vn_keep_alive(ENODE, port_of(ENODE), first))
    assert set(one.controller.switch.ports) == {port.fc_id, first}
    assert [each.all(fip.VxPort)[0].fc_id for each in clears(segment)] == [second]


def test_errors_of_virtual_links():
    """RLS tells what the F_Port that a VN_Port is attached to has seen (FC-BB-5 7.10); they stay over logins."""
    segment, one, port = fcf()
    switch = one.controller.switch
    enode, other = port_of(ENODE), port_of(OTHER)

    def errors(name: bytes) -> LinkErrorStatus:
        return one.controller.errors(switch.by_name[name])

    logged_in(segment, ENODE, enode)
    logged_in(segment, OTHER, other)
    assert errors(enode.port_name) == errors(port.port_name) == LinkErrorStatus(7, 0, 0, 0, 0, 3)
    for _ in range(3):
        segment.run(7)
        segment.inject(keep_alive(OTHER))
    assert enode.port_name not in switch.by_name
    logged_in(segment, ENODE, enode)
    assert errors(enode.port_name) == LinkErrorStatus(7, 1, 1, 0, 0, 3)
    logged_in(segment, ENODE, enode)
    assert errors(enode.port_name) == LinkErrorStatus(7, 2, 1, 0, 0, 3), "FLOGI without LOGO before it"
    one.controller.link_down(segment.now)
    segment.up()
    logged_in(segment, OTHER, other)
    assert errors(other.port_name) == LinkErrorStatus(7, 1, 0, 0, 0, 3)
    assert errors(port.port_name) == LinkErrorStatus(7, 0, 0, 0, 0, 3), "no wire, nothing that could be lost"


def test_errors_of_many_are_bounded():
    errors = VirtualLinkErrors()
    for number in range(REMEMBERED + 5):
        errors.failed(number.to_bytes(8, "big"))
    errors.failed((5).to_bytes(8, "big"), silent=True)
    assert errors.status((4).to_bytes(8, "big"), (0, 0, 0, 0)) == LinkErrorStatus()
    assert errors.status((5).to_bytes(8, "big"), (1 << 32, 0, 0, 5)) == LinkErrorStatus(0, 2, 1, 0, 0, 5)


def test_keep_alives_of_strangers():
    """An ENode that thinks it is logged in is told that it is not."""
    segment, one, _port = fcf()
    segment.inject(keep_alive(ENODE))
    assert decoded(segment.frames[-1]).all(fip.VxPort) == []
    segment.inject(vn_keep_alive(ENODE, port_of(ENODE), 0x010009))
    assert decoded(segment.frames[-1]).all(fip.VxPort)[0].fc_id == 0x010009
    assert len(clears(segment)) == 2
    assert segment.frames[-1][:6] == ENODE
    fc_id = logged_in(segment, ENODE, port_of(ENODE))
    segment.inject(keep_alive(ENODE, source=OTHER))
    segment.inject(vn_keep_alive(ENODE, port_of(ENODE), fc_id, source=OTHER))
    segment.inject(vn_keep_alive(ENODE, port_of(ENODE), fc_id + 1))
    assert one.services.counters == {"fip_spoofed": 3}
    assert len(clears(segment)) == 2


def test_stop():
    """Clear Virtual Links to each VN_Port, and an advertisement that says that the FCF takes no logins."""
    segment, one, port = fcf()
    ids = {logged_in(segment, mac, port_of(mac)) for mac in (ENODE, OTHER)}
    one.controller.stop(segment.now)
    segment.deliver()
    assert {each.all(fip.VxPort)[0].fc_id for each in clears(segment)} == ids
    last = decoded(segment.frames[-1])
    assert last.pdu is Pdu.ADVERTISEMENT
    assert not last.flags & Flag.AVAILABLE
    assert port.events[-1] == ("down", "stopped")
    assert one.controller.next_timer == float("inf")
    segment.inject(login(ENODE, port_of(ENODE)))
    assert not one.controller.enodes


def test_link_down():
    segment, one, port = fcf()
    logged_in(segment, ENODE, port_of(ENODE))
    sent = len(segment.frames)
    one.controller.link_down(segment.now)
    segment.deliver()
    assert len(segment.frames) == sent
    assert not one.controller.switch.ports
    assert port.events[-1] == ("down", "link down")
    segment.up()
    assert port.fc_id


# Frames


def command(s_id: int, d_id: int, destination: bytes, source: bytes, payload: bytes = b"1234567") -> bytes:
    header = pack_header(0x06, d_id, s_id, 0x08, 0x290000 | -len(payload) & 3, 0, 0, 0, 0x1234, 0xFFFF, 0)
    return encapsulate(destination + source + b"\x89\x06", SOF_I3, header, payload, EOF_T)


def test_frames():
    """To a port of ours, to another VN_Port by way of the FCF, and to nobody."""
    segment, one, port = fcf()
    a, b = logged_in(segment, ENODE, port_of(ENODE)), logged_in(segment, OTHER, port_of(OTHER))
    a_mac, b_mac = fabric_provided_mac(a), fabric_provided_mac(b)
    segment.inject(command(a, port.fc_id, one.mac, a_mac))
    assert [bytes(frame.payload) for frame in port.frames] == [b"1234567"]
    segment.inject(command(a, b, one.mac, a_mac))
    assert segment.frames[-1] == command(a, b, b_mac, one.mac)
    sent = len(segment.frames)
    segment.inject(command(a, 0x010999, one.mac, a_mac))
    segment.inject(command(a, 0xFFFFFB, one.mac, a_mac))
    assert one.services.counters == {"fcoe_no_route": 2}
    assert len(segment.frames) == sent


def test_spoofed_frames():
    segment, one, port = fcf()
    a = logged_in(segment, ENODE, port_of(ENODE))
    logged_in(segment, OTHER, port_of(OTHER))
    for frame in (
        command(a, port.fc_id, one.mac, ENODE),
        command(a, port.fc_id, one.mac, OTHER),
        command(0x010888, port.fc_id, one.mac, fabric_provided_mac(0x010888)),
        command(port.fc_id, a, one.mac, fabric_provided_mac(port.fc_id)),
        command(0, port.fc_id, one.mac, fabric_provided_mac(a)),
    ):
        segment.inject(frame)
    segment.inject(command(a, port.fc_id, ethernet.ALL_FCF_MACS, fabric_provided_mac(a)))
    assert one.services.counters == {"fcoe_spoofed": 5, "fcoe_not_for_us": 1}
    assert not port.frames


# Floods


def test_login_storm():
    """More ENodes than there is room for are refused; those that are there stay."""
    segment, one, port = fcf()
    friend = logged_in(segment, ENODE, port_of(ENODE))
    refusals = 0
    for number in range(1, MAX_PORTS + 500):
        mac = mac_of(0x100000 + number)
        segment.inject(login(mac, port_of(mac)))
        refusals += answer(segment)[1].payload[0] == ElsCommand.LS_RJT
        segment.now += 0.002
    assert len(one.controller.switch.ports) == MAX_PORTS
    assert refusals == 501
    assert len(one.services.reports) < 12
    assert {friend, port.fc_id} <= set(one.controller.switch.ports)
    for _ in range(3):
        segment.inject(keep_alive(ENODE))
        segment.run(8)
    assert set(one.controller.switch.ports) == {friend, port.fc_id}


def test_one_enode_does_not_take_all_the_room():
    segment, one, _port = fcf()
    logged_in(segment, ENODE, port_of(ENODE))
    for number in range(1, MAX_PORTS):
        segment.now += 0.02
        segment.inject(login(ENODE, port_of(ENODE, qualifier=number), kind=fip.Fdisc))
    assert len(one.controller.enodes[ENODE].ports) == MAX_PORTS_PER_ENODE
    assert answer(segment)[1].payload[6] == Explanation.INSUFFICIENT_RESOURCES
    segment.now += 1
    assert logged_in(segment, ENODE, port_of(ENODE, qualifier=1), kind=fip.Fdisc)
    assert logged_in(segment, OTHER, port_of(OTHER))


def test_flogi_storm():
    """Of one ENode, again and again: answered up to a limit, others undisturbed, nothing piles up."""
    segment, one, port = fcf()
    friend = logged_in(segment, OTHER, port_of(OTHER))
    sent = len(segment.frames)
    for _ in range(5000):
        segment.inject(login(ENODE, port_of(ENODE)))
    assert len(one.controller.switch.ports) == 3
    assert friend in one.controller.switch.ports
    assert len(segment.frames) - sent < 3000
    assert one.services.counters["fip_rate_limited"] > 2000
    segment.run(1)
    assert logged_in(segment, mac_of(0x300), port_of(mac_of(0x300)))
    assert port.events[0] == ("up", port.fc_id)


def test_solicitation_storm():
    segment, one, _port = fcf()
    descriptors = (fip.MacAddress(ENODE), fip.NameIdentifier(bytes(8)), fip.MaxFcoeSize(2158))
    for _ in range(10000):
        segment.inject(to_fcf(ENODE, Pdu.SOLICITATION, *descriptors))
    assert len(segment.frames) < 2100
    assert one.services.counters["fip_rate_limited"] > 7900


def test_storms_are_not_the_loss_of_others():
    """Whoever is logged in keeps its links, logs out and in again, in the middle of a storm of strangers."""
    segment, one, port = fcf()
    first = logged_in(segment, ENODE, port_of(ENODE))
    descriptors = (fip.MacAddress(OTHER), fip.NameIdentifier(bytes(8)), fip.MaxFcoeSize(2158))
    for step in range(10):
        for _ in range(1500):
            segment.inject(to_fcf(OTHER, Pdu.SOLICITATION, *descriptors))
        segment.inject(keep_alive(ENODE))
        if step == 5:
            assert logged_in(segment, ENODE, port_of(ENODE)) == first
        del segment.frames[:]
        segment.run(3.0)
    assert set(one.controller.switch.ports) == {port.fc_id, first}
    for _ in range(3000):
        segment.inject(keep_alive(mac_of(0x999)))
    assert one.services.counters["fip_rate_limited"] > 900


def test_flood_of_strangers_is_not_read():
    """The same before a frame is taken apart; ENodes and VN_Ports that are logged in are heard."""
    segment, one, port = fcf()
    fc_id = logged_in(segment, ENODE, port_of(ENODE))
    for number in range(10_000):
        segment.inject(ethernet.ALL_FCF_MACS + mac_of(0x100000 + number) + fip.ETHERTYPE + bytes(46))
    assert one.services.counters["fip_rate_limited"] > 10_000 - STRANGERS_BURST
    for _ in range(3):
        segment.inject(vn_keep_alive(ENODE, port_of(ENODE), fc_id))
        segment.inject(keep_alive(ENODE))
    segment.inject(logo(ENODE, port_of(ENODE), fc_id))
    assert answer(segment)[1].payload[0] == ElsCommand.LS_ACC
    assert set(one.controller.switch.ports) == {port.fc_id}


# The table


def test_table():
    assert all(hasattr(FcfController, f"_{step.action}") for step in tables.VIRTUAL_LINK.values())
    assert {state for state, _ in tables.VIRTUAL_LINK} == set(VirtualLinkState)
    assert {event for _, event in tables.VIRTUAL_LINK} == set(VirtualLinkEvent)


# With our own ENode


def test_two_ports_of_ours_cannot_have_one_name():
    _segment, one, port = fcf()
    with pytest.raises(ValueError, match="in use"):
        one.controller.add_port(Port(port.port_name, port.node_name), 0.0)


def test_ports_come_and_go():
    segment, one, port = fcf()
    another = port_of(one.mac, qualifier=5, parameters=FCP_TARGET)
    one.controller.add_port(another, segment.now)
    assert another.fc_id not in (0, port.fc_id)
    one.controller.remove_port(another, segment.now)
    assert another.events[-1] == ("down", "removed")
    assert set(one.controller.switch.ports) == {port.fc_id}


def test_name_of_a_new_port_is_in_use():
    """Ours has it; whoever had it before is logged out, and refused from then on."""
    segment, one, port = fcf()
    taken = port_of(ENODE)
    logged_in(segment, ENODE, taken)
    own = Port(taken.port_name, taken.node_name)
    one.controller.add_port(own, segment.now)
    segment.deliver()
    assert own.fc_id
    assert len(clears(segment)) == 1
    assert "which is ours" in one.services.reports[0]
    assert set(one.controller.switch.ports) == {port.fc_id, own.fc_id}
    assert refused(segment, login(ENODE, taken)) == (Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME)


@pytest.mark.parametrize("initiators", [1, 5])
def test_any_number_of_initiators(initiators):
    """They find the FCF, log in, register, find the target, log in there, and hear of each other."""
    target, target_port, target_fc4 = station_of(0x100, TARGET, mode="fcf")
    others = [station_of(0x200 + number, INITIATOR, mode="fabric") for number in range(initiators)]
    segment = Stations(target, *(station for station, _, _ in others))
    segment.up(30.0)
    assert target_fc4.events == [
        ("login", port.fc_id, INITIATOR) for _, port, _ in sorted(others, key=lambda each: each[1].fc_id)
    ]
    for _station, _port, fc4 in others:
        assert [event[:2] for event in fc4.events if event[1] == target_port.fc_id] == [("login", target_port.fc_id)]
    station, port, _fc4 = others[0]
    fc_id = port.fc_id
    station.stop(segment.now)
    segment.run(1.0)
    assert target_fc4.events[-1][:2] == ("logout", fc_id)
    for _, other, fc4 in others[1:]:
        assert target_port.remotes[other.fc_id].ready
        assert ("logout", target_port.fc_id) not in [event[:2] for event in fc4.events]


def test_target_is_added_later():
    """RSCN: initiators find a port that is plugged in when they are there already."""
    target, _port, _fc4 = station_of(0x100, TARGET, mode="fcf")
    initiator, _other, fc4 = station_of(0x200, INITIATOR, mode="fabric")
    segment = Stations(target, initiator)
    segment.up(10.0)
    added_fc4 = NotingFc4(TARGET)
    added = NPort(b"\x21\0" + bytes(6), b"\x10\0" + bytes(5) + b"\1", added_fc4)
    target.add_port(added, segment.now)
    segment.run(5.0)
    assert ("login", added.fc_id, TARGET) in fc4.events
    assert added_fc4.events[0][:2] == ("login", _other.fc_id)
    gone = added.fc_id
    target.remove_port(added, segment.now)
    segment.run(5.0)
    assert fc4.events[-1][:2] == ("logout", gone)


def test_fcf_restarts():
    """An ENode whose FCF has lost its memory logs in again by itself."""
    target, _port, _fc4 = station_of(0x100, TARGET, mode="fcf")
    initiator, _other, fc4 = station_of(0x200, INITIATOR, mode="fabric")
    segment = Stations(target, initiator)
    segment.up(10.0)
    again, again_port, _again_fc4 = station_of(0x100, TARGET, mode="fcf")
    segment.stations[0] = again
    again.link_up(segment.now)
    segment.run(30.0)
    assert [event[0] for event in fc4.events] == ["login", "logout", "login"]
    assert fc4.events[-1][1] == again_port.fc_id


def test_target_and_initiator_behind_the_fcf():
    """Both are ENodes; frames go by way of the FCF, which has no port of its own, and ends everything when it stops."""
    forwarder = Station_("fcf", mac_of(0xFCF), rng=random.Random(1))
    target, target_port, target_fc4 = station_of(0x100, TARGET, mode="fabric")
    initiator, initiator_port, initiator_fc4 = station_of(0x200, INITIATOR, mode="fabric")
    segment = Stations(forwarder, target, initiator)
    segment.up(20.0)
    assert target_fc4.events == [("login", initiator_port.fc_id, INITIATOR)]
    assert initiator_fc4.events == [("login", target_port.fc_id, TARGET)]
    remote = initiator_port.remotes[target_port.fc_id]
    assert remote.prefix == forwarder.address + fabric_provided_mac(initiator_port.fc_id) + b"\x89\x06"
    for length in (0, 1, 2, 3, 2112):
        header = pack_header(
            0x06, target_port.fc_id, initiator_port.fc_id, 0x08, 0x290000 | -length & 3, 0, 0, 0, length, 0xFFFF, 0
        )
        initiator.outbox.append(encapsulate(remote.prefix, SOF_I3, header, bytes(length), EOF_T))
        segment.exchange()
    assert target_fc4.frames == [(initiator_port.fc_id, length, bytes(length)) for length in (0, 1, 2, 3, 2112)]
    target.stop(segment.now)
    segment.run(5.0)
    assert initiator_fc4.events[-1][:2] == ("logout", target_port.fc_id or remote.fc_id)
    target.link_up(segment.now)
    segment.run(20.0)
    assert initiator_fc4.events[-1][0] == "login"
    forwarder.stop(segment.now)
    segment.run(5.0)
    assert target_fc4.events[-1][0] == initiator_fc4.events[-1][0] == "logout"
    forwarder.link_up(segment.now)
    segment.run(20.0)
    assert target_fc4.events[-1][0] == initiator_fc4.events[-1][0] == "login"
