"""Mode fabric: an ENode behind our own FCF, and behind FCFs that are not as they should be (FC-BB-5 7.9).

Longer than most files because one table of states has all its stories in one place.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from support.fcoe_segment import Port, Segment, Station, decoded, mac_of, port_of
from tcm_fcoe.protocol import enode_tables as tables
from tcm_fcoe.protocol import ethernet, fip
from tcm_fcoe.protocol.controller import FCP_TARGET, els_reply, els_request
from tcm_fcoe.protocol.els import Logo, Plain, Reject
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import Login
from tcm_fcoe.protocol.enode import ENodeController
from tcm_fcoe.protocol.enode_fcfs import MAX_FCFS, advertised, choose
from tcm_fcoe.protocol.enode_tables import FabricEvent, FabricState, LoginEvent, LoginState
from tcm_fcoe.protocol.fcf import FcfController
from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3, encapsulate
from tcm_fcoe.protocol.fip import FipPdu, Flag, Pdu
from tcm_fcoe.protocol.frame import Frame, pack_header
from tcm_fcoe.protocol.names import DEFAULT_FC_MAP, WellKnownAddress, fabric_provided_mac

FCF_MAC, ENODE_MAC = mac_of(0xFCF), mac_of(0x100)
USABLE = Flag.FPMA | Flag.AVAILABLE | Flag.FCF


def enode(mac: bytes = ENODE_MAC, *, ports: int = 1, **options: object) -> Station:
    made = Station(ENodeController, mac, **options)
    made.ports = [port_of(mac, qualifier=number) for number in range(ports)]
    return made


def forwarder(mac: bytes = FCF_MAC, **options: object) -> Station:
    made = Station(FcfController, mac, seed=3, **options)
    made.services.strict = False
    made.ports = [port_of(mac, parameters=FCP_TARGET)]
    return made


def site(*, ports: int = 1, **options: object) -> tuple[Segment, Station, Station]:
    one, other = enode(ports=ports, **options), forwarder()
    segment = Segment(one, other)
    segment.up()
    segment.run(3)
    return segment, one, other


def alone(**options: object) -> tuple[Segment, Station, Port]:
    one = enode(**options)
    segment = Segment(one)
    segment.up()
    segment.run(0.01)
    return segment, one, one.ports[0]


def advertisement(
    mac: bytes = FCF_MAC,
    *,
    flags: Flag = USABLE | Flag.SOLICITED,
    priority: int = 128,
    period: int = 8000,
    no_keep_alives: bool = False,
    fabric: int = 1,
    fc_map: int = DEFAULT_FC_MAP,
    source: bytes | None = None,
    name: bytes | None = None,
) -> bytes:
    descriptors = (
        fip.Priority(priority),
        fip.MacAddress(mac),
        fip.NameIdentifier(b"\x20\0" + mac if name is None else name),
        fip.Fabric(0, fc_map, fabric.to_bytes(8, "big")),
        fip.FkaAdvPeriod(period, no_keep_alives),
    )
    return ethernet.ALL_ENODE_MACS + (source or mac) + fip.ETHERTYPE + fip.encode(FipPdu(Pdu.ADVERTISEMENT, descriptors, flags))


def requests(segment: Segment, kind: type[fip.Encapsulated] = fip.Flogi) -> list[tuple[bytes, Frame]]:
    """(FCF, FLOGI) of all that were sent."""
    found = []
    for frame in segment.frames:
        pdu = decoded(frame)
        if pdu.pdu is Pdu.VIRTUAL_LINK_REQUEST and (descriptor := pdu.find(kind)):
            found.append((frame[:6], Frame.unpack(memoryview(descriptor.frame), SOF_I3, EOF_T)))
    return found


def reply(
    segment: Segment,
    *,
    mac: bytes = FCF_MAC,
    fc_id: int = 0x010203,
    granted: bytes | None = None,
    features: int = 0x3000,
    size: int = 2112,
    kind: type[fip.Encapsulated] = fip.Flogi,
    reject: bool = False,
    ox_id: int | None = None,
    more: tuple[fip.Descriptor, ...] = (),
    destination: bytes = ENODE_MAC,
) -> bytes:
    request = requests(segment, kind)[-1][1]
    payload = (
        Reject(reason=9)
        if reject
        else Login(command=ElsCommand.LS_ACC, port_name=bytes(8), node_name=bytes(8), features=features, receive_size=size)
    )
    if ox_id is not None:
        request.ox_id = ox_id
    els = kind(els_reply(request, payload, d_id=0 if reject else fc_id))
    descriptors = (els,) if reject else (els, fip.MacAddress(fabric_provided_mac(fc_id) if granted is None else granted), *more)
    return destination + mac + fip.ETHERTYPE + fip.encode(FipPdu(Pdu.VIRTUAL_LINK_REPLY, descriptors, Flag.FPMA))


def logged_in() -> tuple[Segment, Station, Port]:
    segment, one, port = alone()
    segment.inject(advertisement())
    segment.run(tables.SELECT_DELAY)
    segment.inject(reply(segment))
    assert port.fc_id == 0x010203
    return segment, one, port


def fcoe(destination: bytes, source: bytes, d_id: int) -> bytes:
    header = pack_header(0x06, d_id, 0x010999, 0x08, 0x290000, 0, 0, 0, 1, 0xFFFF, 0)
    return encapsulate(destination + source + b"\x89\x06", SOF_I3, header, bytes(32), EOF_T)


# With our own FCF


def test_login():
    segment, one, other = site()
    (port,) = one.ports
    assert port.fabric
    assert other.controller.switch.by_name[port.port_name].fc_id == port.fc_id
    assert one.controller.route(port, 0xFFFFFC) == FCF_MAC + fabric_provided_mac(port.fc_id)
    assert fabric_provided_mac(port.fc_id) in one.controller.addresses()
    assert not one.services.counters
    assert not other.services.counters
    order = [pdu.pdu for pdu in segment.pdus(one)]
    assert order[0] is Pdu.SOLICITATION
    assert Pdu.VIRTUAL_LINK_REQUEST in order


def test_npiv():
    """The first port sends FLOGI, the others FDISC; all have addresses of their own."""
    segment, one, other = site(ports=3)
    assert len({port.fc_id for port in one.ports} - {0}) == 3
    assert len(requests(segment)) == 1
    assert len(requests(segment, fip.Fdisc)) == 2
    last = port_of(one.mac, qualifier=9)
    one.controller.add_port(last, segment.now)
    segment.run(1)
    assert last.fc_id
    one.controller.remove_port(last, segment.now)
    segment.deliver()
    assert len(other.controller.switch.ports) == 4
    # without the first all begin anew
    one.controller.remove_port(one.ports[0], segment.now)
    segment.run(1)
    assert [bool(port.fc_id) for port in one.ports] == [False, True, True]
    assert one.ports[1].events[-2:] == [("down", "the ENode's first port has logged out"), ("up", one.ports[1].fc_id)]


def test_keep_alives():
    """For an hour: the FCF never misses them."""
    segment, one, other = site(ports=2)
    events = [list(port.events) for port in one.ports]
    segment.run(3600)
    assert [port.events for port in one.ports] == events
    assert not other.services.counters
    alive = [pdu for pdu in segment.pdus() if pdu.pdu is Pdu.KEEP_ALIVE]
    assert sum(pdu.find(fip.VxPort) is None for pdu in alive) == pytest.approx(450, abs=5)
    assert sum(pdu.find(fip.VxPort) is not None for pdu in alive) == pytest.approx(80, abs=2)


def test_fcf_goes_and_comes():
    segment, one, other = site()
    (port,) = one.ports
    segment.stations.remove(other)
    segment.run(25)
    assert port.events[-1] == ("down", "no advertisements of the FCF")
    assert one.services.counters == {"missed_advertisements": 1, "virtual_link_failures": 1}
    segment.stations.append(other)
    other.controller.link_down(segment.now)
    segment.up(other)
    segment.run(10)
    assert port.fc_id


def test_fcf_stops_and_starts():
    """Clear Virtual Links, at once; it does not try an FCF that is not available."""
    segment, one, other = site(ports=2)
    other.controller.stop(segment.now)
    segment.deliver()
    assert not any(port.fc_id for port in one.ports)
    logins = len(requests(segment))
    segment.run(15)
    assert len(requests(segment)) == logins
    segment.up(other)
    segment.run(10)
    assert all(port.fc_id for port in one.ports)


def test_enode_stops():
    segment, one, other = site(ports=2)
    one.controller.stop(segment.now)
    segment.deliver()
    assert len(other.controller.switch.ports) == 1
    assert one.controller.next_timer == float("inf")
    assert [port.events[-1] for port in one.ports] == [("down", "stopped")] * 2


def test_link_down_and_up():
    segment, one, other = site()
    fc_id = one.ports[0].fc_id
    one.controller.link_down(segment.now)
    assert one.ports[0].events[-1] == ("down", "link down")
    segment.run(1)
    segment.up(one)
    segment.run(5)
    assert one.ports[0].fc_id == fc_id
    assert len(other.controller.switch.ports) == 2


def test_spma():
    _segment, one, _other = site(spma=True)
    assert one.controller.route(one.ports[0], 1)[6:] == fabric_provided_mac(one.ports[0].fc_id)  # ours prefers FPMA
    segment, one, port = alone(spma=True)
    segment.inject(advertisement(flags=USABLE | Flag.SPMA | Flag.SOLICITED))
    segment.run(tables.SELECT_DELAY)
    pdu = decoded(segment.frames[-1])
    assert pdu.flags == Flag.FPMA | Flag.SPMA
    assert pdu.get(fip.MacAddress).address == ENODE_MAC
    segment.inject(reply(segment, granted=ENODE_MAC))
    assert one.controller.route(port, 1) == FCF_MAC + ENODE_MAC


@pytest.mark.parametrize("seed", range(10))
def test_lossy_segment(seed):
    one, other = enode(ports=2), forwarder()
    segment, rng = Segment(one, other), random.Random(seed)
    segment.lose = lambda _frame: rng.random() < 0.3
    segment.up()
    segment.run(60)
    segment.lose = None
    segment.run(60)
    assert all(port.fc_id for port in one.ports)
    assert len(other.controller.switch.ports) == 3


def test_several_enodes():
    stations = [enode(mac_of(0x200 + number)) for number in range(8)]
    other = forwarder()
    segment = Segment(*stations, other)
    segment.up()
    segment.run(60)
    assert len({each.ports[0].fc_id for each in stations} - {0}) == 8


# VLAN discovery


def test_vlan_discovery():
    one, other = enode(discover_vlan=True), forwarder(vlan=42)
    segment = Segment(one, other)
    segment.up()
    segment.run(3)
    assert one.services.vlan == 42
    assert decoded(one.services.untagged[0]).pdu is Pdu.VLAN_REQUEST
    assert one.services.untagged[0][:6] == ethernet.ALL_FCF_MACS
    assert one.ports[0].fc_id


def test_nobody_knows_a_vlan():
    """Three requests, then it goes on where it is; advertisements that come meanwhile are of another VLAN."""
    segment, one, port = alone(discover_vlan=True)
    segment.inject(advertisement())
    assert not one.controller.fcfs
    segment.run(5)
    assert [pdu.pdu for pdu in segment.pdus()[:4]] == [*[Pdu.VLAN_REQUEST] * 3, Pdu.SOLICITATION]
    segment.inject(advertisement())
    segment.run(1)
    assert len(requests(segment)) == 1
    empty = FipPdu(Pdu.VLAN_NOTIFICATION, (fip.MacAddress(FCF_MAC),))
    segment.inject(ENODE_MAC + FCF_MAC + fip.ETHERTYPE + fip.encode(empty))
    assert one.services.counters == {"fip_unexpected": 1}
    assert not port.fc_id


def vlan_notification(*vlans: int, source: bytes = mac_of(0x666)) -> bytes:
    pdu = FipPdu(Pdu.VLAN_NOTIFICATION, (fip.MacAddress(source), *map(fip.Vlan, vlans)))
    return ENODE_MAC + source + fip.ETHERTYPE + fip.encode(pdu)


def test_a_vlan_without_an_fcf():
    """The next one of the notification is tried, then the first again; when nobody knows one any more, none."""
    segment, one, _port = alone(discover_vlan=True)
    tried = []
    for _ in range(4):
        segment.inject(vlan_notification(7, 8, 9))
        tried.append(one.services.vlan)
        segment.run(tables.SOLICIT_TRIES * tables.SOLICIT_PERIOD + 0.1)
        assert one.controller.state is FabricState.VLAN
    assert tried == [7, 8, 9, 7]
    segment.run(tables.VLAN_TRIES * tables.VLAN_TIMEOUT)
    assert one.services.vlan == 0, "the interface's own"
    assert one.controller.state is FabricState.SOLICIT
    assert one.services.reports == ["no FCF has answered yet; solicitations go on"]
    assert len(segment.frames) < 60


def test_a_false_vlan_notification():
    """It costs some seconds: the FCF's own is asked for again."""
    segment, one, port = alone(discover_vlan=True)
    segment.inject(vlan_notification(7))
    segment.run(tables.SOLICIT_TRIES * tables.SOLICIT_PERIOD + 0.1)
    segment.inject(vlan_notification(7))
    segment.inject(vlan_notification(42, source=FCF_MAC))
    assert one.services.vlan == 7, "the first answer counts"
    segment.run(tables.SOLICIT_TRIES * tables.SOLICIT_PERIOD + 0.1)
    segment.inject(vlan_notification(42, source=FCF_MAC))
    segment.inject(advertisement())
    segment.run(tables.SELECT_DELAY)
    segment.inject(reply(segment))
    assert one.services.vlan == 42
    assert port.fc_id == 0x010203


# Choice of an FCF


def test_solicitations_go_on():
    segment, one, _port = alone()
    segment.run(21)
    assert one.services.reports == ["no FCF has answered yet; solicitations go on"]
    assert [pdu.pdu for pdu in segment.pdus()] == [Pdu.SOLICITATION] * 6
    assert all(frame[:6] == ethernet.ALL_FCF_MACS for frame in segment.frames)


def test_unsolicited_advertisement_is_solicited():
    """Only an answer of full size shows that frames of that size arrive."""
    segment, one, _port = alone()
    segment.run(1)
    segment.inject(advertisement(flags=USABLE))
    frame = segment.frames[-1]
    assert decoded(frame).pdu is Pdu.SOLICITATION
    assert frame[:6] == FCF_MAC
    assert decoded(frame).get(fip.MaxFcoeSize).size == 2158
    assert one.controller.state is FabricState.SOLICIT
    segment.inject(advertisement())
    assert one.controller.state is FabricState.SELECT


def test_priority():
    """The least value is preferred, of those that take logins."""
    segment, one, _port = alone()
    segment.inject(advertisement(mac_of(1), priority=100))
    segment.inject(advertisement(mac_of(2), priority=20))
    segment.inject(advertisement(mac_of(3), priority=10, flags=Flag.FPMA | Flag.FCF | Flag.SOLICITED))
    segment.inject(advertisement(mac_of(4), priority=5, flags=Flag.AVAILABLE | Flag.FCF | Flag.SOLICITED))
    segment.run(tables.SELECT_DELAY)
    assert [mac for mac, _ in requests(segment)] == [mac_of(2)]
    segment.inject(advertisement(mac_of(5), priority=0))
    segment.run(0.1)
    assert one.controller.fcf.mac == mac_of(2)


def test_fcf_that_does_not_answer():
    """After three FLOGIs the next one is tried; after all of them, the first again."""
    segment, one, port = alone()
    for _ in range(10):
        for number in (1, 2):
            segment.inject(advertisement(mac_of(number), priority=number))
        segment.run(3)
    tried = [mac for mac, _ in requests(segment)]
    assert tried[:6] == [mac_of(1)] * 3 + [mac_of(2)] * 3
    assert tried[6:9] == [mac_of(1)] * len(tried[6:9])
    assert not port.fc_id
    assert len({frame.ox_id for _, frame in requests(segment)}) == len(tried)
    assert one.controller.history
    assert 2 <= len(one.services.reports) <= 5


def test_refused():
    """Tried again 10 s later."""
    segment, one, port = alone()
    segment.inject(advertisement())
    segment.run(tables.SELECT_DELAY)
    segment.inject(reply(segment, reject=True))
    segment.run(5)
    segment.inject(advertisement())
    segment.run(4)
    assert len(requests(segment)) == 1
    segment.run(2)
    assert len(requests(segment)) == 2
    assert one.services.counters["fip_logins_refused"] == 1
    assert len(one.services.reports) == 1
    segment.inject(reply(segment))
    assert port.fc_id


def test_no_npiv():
    """A fabric without it has one address for the ENode."""
    one = enode(ports=2)
    segment = Segment(one)
    segment.up()
    segment.run(0.01)
    segment.inject(advertisement())
    segment.run(tables.SELECT_DELAY)
    segment.inject(reply(segment, features=0x1000))
    segment.run(1)
    assert [bool(port.fc_id) for port in one.ports] == [True, False]
    assert not requests(segment, fip.Fdisc)
    assert "NPIV" in one.services.reports[0]


def test_two_mac_addresses_in_the_answer():
    """Some FCFs have FCoE frames go elsewhere than FIP."""
    segment, one, port = alone()
    segment.inject(advertisement())
    segment.run(tables.SELECT_DELAY)
    other = mac_of(0xFC0E)
    segment.inject(reply(segment, more=(fip.MacAddress(other),)))
    assert one.controller.route(port, 0x010999) == other + fabric_provided_mac(port.fc_id)
    segment.inject(fcoe(fabric_provided_mac(port.fc_id), other, port.fc_id))
    assert len(port.frames) == 1


# What is not as it should be


@pytest.mark.parametrize(
    "options",
    [
        {"fc_id": 0},
        {"fc_id": 0xFFFFFC},
        {"granted": mac_of(9)},
        {"granted": bytes(6)},
        {"granted": b"\1\0\0\0\0\0"},
        {"features": 0x2000},
        {"size": 100},
        {"mac": mac_of(0xBAD)},
        {"ox_id": 0x7777},
    ],
)
def test_bad_accept(options):
    segment, one, port = alone()
    segment.inject(advertisement())
    segment.run(tables.SELECT_DELAY)
    segment.inject(reply(segment, **options))
    assert not port.fc_id
    assert sum(one.services.counters.values()) == 1
    segment.inject(reply(segment))
    assert port.fc_id == 0x010203
    segment.inject(reply(segment))
    assert port.events == [("up", 0x010203)]


@pytest.mark.parametrize(
    "options",
    [
        {"source": mac_of(0xBAD)},
        {"mac": b"\1\0\0\0\0\1"},
        {"fc_map": 0},
        {"fc_map": 0x010000},
        {"name": bytes(8)},
        {"flags": Flag.FPMA | Flag.AVAILABLE | Flag.SOLICITED},
    ],
)
def test_bad_advertisement(options):
    segment, one, _port = alone()
    segment.inject(advertisement(**options))
    segment.run(3)
    assert not one.controller.fcfs
    assert sum(one.services.counters.values()) == 1


def test_fcf_changes_its_fabric():
    segment, one, port = logged_in()
    segment.inject(advertisement(fabric=2))
    segment.inject(advertisement(fc_map=0x0EFC55))
    assert one.services.counters == {"fip_conflict": 2}
    assert port.fc_id


@pytest.mark.parametrize(("period", "seconds"), [(0, 0.25), (1, 0.25), (8000, 8.0), (0xFFFFFFFF, 90.0)])
def test_period(period, seconds):
    """An FCF cannot make us send keep-alives in a storm, or trust it for weeks."""
    segment, one, _port = logged_in()
    segment.inject(advertisement(period=period))
    assert one.controller.fcf.period == seconds


def test_no_keep_alives():
    """D bit: the FCF does not want any."""
    segment, one, _port = alone()
    for _ in range(40):
        segment.inject(advertisement(no_keep_alives=True))
        segment.run(5)
        if requests(segment) and not one.ports[0].fc_id:
            segment.inject(reply(segment))
    assert one.ports[0].fc_id
    assert not any(pdu.pdu is Pdu.KEEP_ALIVE for pdu in segment.pdus())


def clear(mac: bytes, ports: tuple[fip.VxPort, ...], *, name: bytes | None = None, source: bytes | None = None) -> bytes:
    descriptors = (fip.MacAddress(mac), fip.NameIdentifier(b"\x20\0" + mac if name is None else name), *ports)
    pdu = FipPdu(Pdu.CLEAR_VIRTUAL_LINKS, descriptors, Flag.FCF)
    return ENODE_MAC + (source or mac) + fip.ETHERTYPE + fip.encode(pdu)


def test_clear_virtual_links():
    segment, one, port = logged_in()
    mine = fip.VxPort(fabric_provided_mac(0x010203), 0x010203, port.port_name)
    for wrong in (
        clear(FCF_MAC, (mine,), source=mac_of(9)),
        clear(mac_of(9), (mine,)),
        clear(FCF_MAC, (mine,), name=bytes(8)),
        clear(FCF_MAC, (fip.VxPort(mine.address, 0x010204, port.port_name),)),
        clear(FCF_MAC, (fip.VxPort(mac_of(9), 0x010203, port.port_name),)),
        clear(FCF_MAC, (fip.VxPort(mine.address, 0x010203, bytes(8)),)),
    ):
        segment.inject(wrong)
    assert port.fc_id
    assert one.services.counters == {"fip_spoofed": 3, "fip_unexpected": 3}
    segment.inject(clear(FCF_MAC, (fip.VxPort(mac_of(9), 9, bytes(8)), mine)))
    assert port.events[-1] == ("down", "Clear Virtual Links")
    assert decoded(segment.frames[-1]).pdu is Pdu.SOLICITATION
    segment.inject(advertisement())
    segment.run(tables.SELECT_DELAY)
    segment.inject(reply(segment))
    assert port.fc_id
    segment.inject(clear(FCF_MAC, ()))
    assert not port.fc_id


def test_one_port_is_cleared():
    """Another than the first logs in again alone."""
    segment, one, other = site(ports=2)
    first, second = one.ports
    attached = other.controller.switch.by_name[second.port_name]
    identity = fip.VxPort(attached.mac, attached.fc_id, attached.port_name)
    other.controller._clear_virtual_links(one.mac, (identity,))
    segment.run(5)
    assert first.events == [("up", first.fc_id)]
    assert [event[0] for event in second.events] == ["up", "down", "up"]


def fabric_logo(
    fc_id: int = 0x010203,
    *,
    source: bytes = FCF_MAC,
    s_id: int = WellKnownAddress.FABRIC_LOGIN_SERVER,
    mac: bytes | None = None,
    kind: type[fip.Encapsulated] = fip.Logo,
) -> bytes:
    """LOGO of an F_Port."""
    payload = Logo(n_port_id=s_id, port_name=b"\x2f\xfe" + FCF_MAC)
    descriptors = (kind(els_request(fc_id, s_id, 0x77, payload)), fip.MacAddress(mac or fabric_provided_mac(0x010203)))
    return ENODE_MAC + source + fip.ETHERTYPE + fip.encode(FipPdu(Pdu.VIRTUAL_LINK_REQUEST, descriptors, Flag.FCF))


def logo_answers(segment: Segment) -> list[tuple[FipPdu, Frame]]:
    return [
        (pdu, Frame.unpack(memoryview(pdu.get(fip.Logo).frame), SOF_I3, EOF_T))
        for pdu in map(decoded, segment.frames)
        if pdu.pdu is Pdu.VIRTUAL_LINK_REPLY and pdu.find(fip.Logo)
    ]


def test_the_fcf_logs_a_port_out():
    """LS_ACC in FIP, to the F_Port; the virtual link is gone, and the port logs in again (FC-LS-2 4.2.5, FC-BB-5 7.9)."""
    segment, one, port = logged_in()
    segment.inject(fabric_logo())
    ((pdu, accept),) = logo_answers(segment)
    assert segment.frames[-1][:12] == FCF_MAC + ENODE_MAC
    assert pdu.get(fip.MacAddress).address == fabric_provided_mac(0x010203)
    assert (accept.d_id, accept.s_id, accept.ox_id) == (WellKnownAddress.FABRIC_LOGIN_SERVER, 0x010203, 0x77)
    assert accept.payload[0] == ElsCommand.LS_ACC
    assert port.events[-1] == ("down", "LOGO from the FCF")
    assert one.controller.route(port, 0x010999) is None
    assert "has logged" in one.services.reports[-1]
    segment.run(tables.SELECT_DELAY)
    segment.inject(reply(segment))
    assert port.fc_id == 0x010203


def test_a_logo_for_nobody_is_refused():
    """N_Port login required (FC-LS-2 table of LS_RJT explanations), without a MAC address; nothing changes."""
    segment, one, port = logged_in()
    segment.inject(fabric_logo(0x010204))
    ((pdu, refusal),) = logo_answers(segment)
    assert not pdu.find(fip.MacAddress)
    rejected = Reject.parse(refusal.payload)
    assert (rejected.reason, rejected.explanation) == (Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED)
    assert refusal.s_id == 0x010204
    assert port.fc_id
    assert not one.services.counters


def test_a_logo_that_cannot_be():
    segment, one, port = logged_in()
    segment.inject(fabric_logo(source=mac_of(9)))
    segment.inject(fabric_logo(mac=mac_of(9)))
    assert one.services.counters == {"fip_spoofed": 2}
    segment.inject(fabric_logo(s_id=0x010999))
    segment.inject(fabric_logo(kind=fip.Flogi))
    assert one.services.counters == {"fip_spoofed": 2, "fip_unexpected": 2}
    for _ in range(1000):
        segment.inject(fabric_logo(0x010204))
    assert len(logo_answers(segment)) < 100
    assert port.fc_id


def test_the_first_port_is_logged_out():
    """Those that FDISC made go with it; all log in again."""
    segment, one, other = site(ports=3)
    first, *rest = one.ports
    attached = other.controller.switch.by_name[first.port_name]
    frame = fabric_logo(first.fc_id, source=other.mac, mac=attached.mac)
    one.receive(one.mac + frame[6:], segment.now)
    segment.run(5)
    assert all([event[0] for event in port.events] == ["up", "down", "up"] for port in one.ports)
    assert len(other.controller.switch.ports) == 4
    # another goes alone
    frame = fabric_logo(rest[1].fc_id, source=other.mac, mac=other.controller.switch.by_name[rest[1].port_name].mac)
    one.receive(one.mac + frame[6:], segment.now)
    segment.run(5)
    assert [len(port.events) for port in one.ports] == [3, 3, 5]


def test_spoofed_frames():
    segment, one, port = logged_in()
    vn_mac = fabric_provided_mac(port.fc_id)
    segment.inject(fcoe(vn_mac, mac_of(9), port.fc_id))
    segment.inject(fcoe(vn_mac, FCF_MAC, 0x010204))
    segment.inject(fcoe(ENODE_MAC, FCF_MAC, port.fc_id))
    assert one.services.counters == {"fcoe_spoofed": 1, "fcoe_not_for_us": 2}
    assert not port.frames
    segment.inject(fcoe(vn_mac, FCF_MAC, port.fc_id))
    assert len(port.frames) == 1


def test_flood_of_fcfs():
    segment, one, port = logged_in()
    for number in range(1000):
        segment.inject(advertisement(mac_of(0x1000 + number)))
    assert len(one.controller.fcfs) == MAX_FCFS
    assert one.services.counters == {"fip_table_full": 1000 - MAX_FCFS + 1}
    segment.inject(advertisement())
    for _ in range(5):
        segment.run(7)
        segment.inject(advertisement())
    assert len(one.controller.fcfs) == 1
    assert port.events == [("up", 0x010203)]


def test_false_fcfs_do_not_keep_the_true_one_out():
    """Those that advertise and then answer nothing, no solicitation or no FLOGI, give way to others."""
    segment, one, port = alone()
    for number in range(200):
        segment.inject(advertisement(mac_of(0x1000 + number), flags=USABLE, priority=1))
    segment.inject(advertisement())
    segment.run(tables.SELECT_DELAY)
    segment.inject(reply(segment))
    assert port.fc_id == 0x010203
    segment, one, port = alone()
    for number in range(MAX_FCFS):
        segment.inject(advertisement(mac_of(0x1000 + number), priority=1))
    segment.run(tables.SELECT_DELAY + tables.LOGIN_TRIES * tables.LOGIN_TIMEOUT)
    segment.inject(advertisement())
    assert any(each.mac == FCF_MAC for each in one.controller.fcfs.values())


@pytest.mark.parametrize("refuse", [False, True])
def test_ever_new_fcfs_of_better_priority(refuse):
    """They cost one login each, and every other turn is of who has waited the longest: the true FCF has its turn soon."""
    segment, one, port = alone()
    segment.inject(advertisement(priority=255))
    turns = []
    for number in range(400):
        segment.inject(advertisement(priority=255))
        segment.inject(advertisement(mac_of(0x1000 + number), priority=0))
        before = len(requests(segment))
        segment.run(1)
        new = requests(segment)[before:]
        turns += [mac for mac, _ in new if turns[-1:] != [mac]]
        if new and new[-1][0] == FCF_MAC:
            segment.inject(reply(segment))
            break
        if new and refuse:
            segment.inject(reply(segment, mac=new[-1][0], reject=True))
    assert port.fc_id == 0x010203
    assert len(turns) == 2, "the best, which does not accept, and then who was there first"
    assert one.controller.fcf.mac == FCF_MAC


def test_who_waits_has_its_turn():
    """With a table full of better FCFs, whatever they do, the worst is tried within twice as many turns."""
    fcfs = []
    for number in range(MAX_FCFS):
        fcf = advertised(mac_of(number), fip.decode(advertisement(mac_of(number), priority=number)[14:]), float(number))
        fcf.full_size = True
        fcfs.append(fcf)
    last, turns = fcfs[-1], []
    for failures in range(2 * MAX_FCFS):
        turns.append(choose(fcfs, failures))
        turns[-1].tried, turns[-1].waiting = True, 1000.0 + failures
        if turns[-1] is not last:
            place = fcfs.index(turns[-1])  # another comes in its place, better than all others
            fcfs[place] = replace(turns[-1], priority=0, tried=False, waiting=1000.0 + failures)
    assert last in turns


def test_flood_of_solicited_advertisements():
    """Advertisements that were not solicited make us send few solicitations."""
    segment, _one, _port = logged_in()
    sent = len(segment.frames)
    for number in range(1000):
        segment.inject(advertisement(mac_of(0x1000 + number % 10), flags=USABLE))
    assert len(segment.frames) - sent <= 1


def test_operations_of_others():
    segment, one, _port = logged_in()
    for pdu in (
        FipPdu(Pdu.KEEP_ALIVE, (fip.MacAddress(FCF_MAC),)),
        FipPdu(Pdu.VLAN_NOTIFICATION, (fip.MacAddress(FCF_MAC), fip.Vlan(7))),
    ):
        segment.inject(ENODE_MAC + FCF_MAC + fip.ETHERTYPE + fip.encode(pdu))
    assert one.services.counters == {"fip_unexpected": 2}
    logo = fip.Logo(els_reply(requests(segment)[0][1], Plain()))
    segment.inject(
        ENODE_MAC + FCF_MAC + fip.ETHERTYPE + fip.encode(FipPdu(Pdu.VIRTUAL_LINK_REPLY, (logo, fip.MacAddress(bytes(6)))))
    )
    assert one.services.counters == {"fip_unexpected": 2}


# The tables


@pytest.mark.parametrize("table", [tables.FABRIC, tables.LOGIN])
def test_tables_name_methods(table):
    assert all(hasattr(ENodeController, f"_{step.action}") for step in table.values() if step.action)


def test_tables_use_all_states_and_events():
    assert {state for state, _ in tables.FABRIC} == set(FabricState)
    assert {event for _, event in tables.FABRIC} == set(FabricEvent)
    assert {state for state, _ in tables.LOGIN} == set(LoginState)
    assert {event for _, event in tables.LOGIN} == set(LoginEvent)
