"""FDMI (FC-GS clause 6.7): HBAs that say what they are, and the switch that keeps it, within bounds."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fcoe_port import a_port, accept, plogi
from support.fcoe_stations import INITIATOR, TARGET, Segment, station_of
from tcm_fcoe.protocol import fdmi
from tcm_fcoe.protocol.ct import CtError, CtIu, CtReason, parse_iu, reject
from tcm_fcoe.protocol.els import Logo, Reject
from tcm_fcoe.protocol.els_codes import ElsCommand, Reason
from tcm_fcoe.protocol.fcf import FcfController
from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, SOF_I3, SOF_N3
from tcm_fcoe.protocol.fdmi import FdmiCommand, FdmiExplanation, FdmiRequest, HbaAttribute, PortAttribute, text
from tcm_fcoe.protocol.fdmi_server import HBA_BYTES, FdmiServer
from tcm_fcoe.protocol.frame import Frame, pack_header
from tcm_fcoe.protocol.ladder import Ladder
from tcm_fcoe.protocol.management_client import MANAGEMENT, STEPS, HbaDescription
from tcm_fcoe.protocol.name_client import CONTROLLER, DIRECTORY
from tcm_fcoe.protocol.station import Station

ONE, TWO, THREE = (b"\x20\0RT\0\0\0" + bytes((number,)) for number in (1, 2, 3))
NODE = b"\x10\0RT\0\0\0\x01"
HBA = {HbaAttribute.NODE_NAME: NODE, HbaAttribute.MODEL: text("card")}
RHBA = FdmiRequest(FdmiCommand.RHBA, ONE, ports=(ONE,), attributes=HBA)


def linux_rhba() -> bytes:
    """As libfc puts it together (FDMI version 1): fixed lengths, zeros behind each text, one port, the HBA by its name."""
    attributes = [
        (1, NODE),
        (2, b"Intel Corporation".ljust(64, b"\0")),
        (3, b"5254002FFC00".ljust(64, b"\0")),
        (4, b"82599".ljust(256, b"\0")),
        (5, b"Intel(R) 82599 10 Gigabit Network Connection".ljust(256, b"\0")),
        (6, b"Rev 01".ljust(256, b"\0")),
        (7, b"ixgbe v6.1".ljust(256, b"\0")),
        (8, b"unknown".ljust(256, b"\0")),
        (9, b"0x1".ljust(256, b"\0")),
        (10, b"Linux v6.1.0-18-amd64".ljust(256, b"\0")),
        (11, (2048).to_bytes(4, "big")),
    ]
    block = b"".join(struct.pack(">HH", kind, 4 + len(value)) + value for kind, value in attributes)
    preamble = bytes.fromhex("01000000 fa100000 02000000 00000000")
    return preamble + ONE + struct.pack(">I", 1) + ONE + struct.pack(">I", len(attributes)) + block


def linux_rpa() -> bytes:
    attributes = [
        (1, bytes(2) + b"\x01" + bytes(29)),
        (2, (4).to_bytes(4, "big")),
        (3, (4).to_bytes(4, "big")),
        (4, (2112).to_bytes(4, "big")),
        (5, b"host5".ljust(256, b"\0")),
        (6, b"guest".ljust(256, b"\0")),
    ]
    block = b"".join(struct.pack(">HH", kind, 4 + len(value)) + value for kind, value in attributes)
    return bytes.fromhex("01000000 fa100000 02110000 00000000") + ONE + struct.pack(">I", len(attributes)) + block


class Site:
    """A server, and who is logged in."""

    def __init__(self) -> None:
        self.there = {ONE, TWO, THREE}
        self.server = FdmiServer(self.there.__contains__)

    def ask(self, request: FdmiRequest | bytes, by: bytes = ONE, *, size: int = 0) -> CtIu:
        data = request if isinstance(request, bytes) else request.iu(size=size).pack()
        answer = parse_iu(self.server.request(by, data).pack())
        assert (answer.gs_type, answer.gs_subtype) == (0xFA, 0x10)
        return answer

    def body(self, request: FdmiRequest | bytes, by: bytes = ONE) -> bytes:
        answer = self.ask(request, by)
        assert answer.accepted, FdmiExplanation(answer.explanation)
        return answer.body

    def refused(self, request: FdmiRequest | bytes, by: bytes = ONE) -> FdmiExplanation:
        answer = self.ask(request, by)
        assert not answer.accepted
        assert answer.reason == CtReason.UNABLE_TO_PERFORM
        return FdmiExplanation(answer.explanation)


def test_what_linux_sends():
    """DHBA and DPRT, which find nothing; RHBA; RPA (libfc's order)."""
    site = Site()
    assert len(linux_rhba()) == 2016
    assert site.refused(FdmiRequest(FdmiCommand.DHBA, ONE)) is FdmiExplanation.HBA_NOT_REGISTERED
    assert site.refused(FdmiRequest(FdmiCommand.DPRT, port=ONE)) is FdmiExplanation.PORT_NOT_REGISTERED
    assert site.body(linux_rhba()) == b""
    assert site.body(linux_rpa()) == b""
    (hba,) = site.server.hbas.values()
    assert hba.describe() == (
        "20:00:52:54:00:00:00:01, Intel Corporation, 82599, Intel(R) 82599 10 Gigabit Network Connection, ixgbe v6.1, "
        "Linux v6.1.0-18-amd64, guest, host5"
    )
    # and what was registered is what is told
    assert site.body(FdmiRequest(FdmiCommand.GHAT, ONE), TWO) == linux_rhba()[24:]
    assert site.body(FdmiRequest(FdmiCommand.GPAT, port=ONE), TWO) == linux_rpa()[24:]
    assert site.body(FdmiRequest(FdmiCommand.DHBA, ONE)) == b""
    assert site.server.hbas == {}


def test_lists():
    """GRHL in order, GRPL as registered; an answer has no more words than it may, and says how many are missing."""
    site = Site()
    assert fdmi.parse_names(site.body(FdmiRequest(FdmiCommand.GRHL))) == ()
    for name in (TWO, ONE):
        site.body(FdmiRequest(FdmiCommand.RHBA, name, ports=(name, THREE, name)), name)
    assert fdmi.parse_names(site.body(FdmiRequest(FdmiCommand.GRHL))) == (ONE, TWO)
    assert fdmi.parse_names(site.body(FdmiRequest(FdmiCommand.GRPL, TWO))) == (TWO, THREE)
    short = site.ask(FdmiRequest(FdmiCommand.GRHL), size=3)
    assert (len(short.body), short.size) == (12, 2)
    assert site.refused(FdmiRequest(FdmiCommand.GRPL, THREE)) is FdmiExplanation.HBA_NOT_REGISTERED


def test_hba_registration():
    site = Site()
    assert site.refused(RHBA, TWO) is FdmiExplanation.PORT_NOT_IN_LIST
    site.body(RHBA)
    assert site.refused(RHBA) is FdmiExplanation.HBA_ALREADY_REGISTERED
    other = FdmiRequest(FdmiCommand.RHBA, THREE, ports=(ONE,))
    assert site.refused(other) is FdmiExplanation.HBA_ALREADY_REGISTERED
    more = FdmiRequest(FdmiCommand.RHAT, ONE, attributes={HbaAttribute.MODEL: text("other card")})
    assert site.refused(more, TWO) is FdmiExplanation.PORT_NOT_IN_LIST
    site.body(more)
    assert fdmi.plain(site.server.hbas[ONE].attributes[HbaAttribute.MODEL]) == "other card"
    assert site.server.hbas[ONE].attributes[HbaAttribute.NODE_NAME] == NODE
    assert site.refused(FdmiRequest(FdmiCommand.DHAT, ONE), TWO) is FdmiExplanation.PORT_NOT_IN_LIST
    site.body(FdmiRequest(FdmiCommand.DHAT, ONE))
    assert site.server.hbas[ONE].attributes == {}
    assert site.refused(FdmiRequest(FdmiCommand.DHAT, ONE)) is FdmiExplanation.HBA_ATTRIBUTES_NOT_REGISTERED
    assert site.refused(FdmiRequest(FdmiCommand.DHBA, ONE), TWO) is FdmiExplanation.PORT_NOT_IN_LIST


def test_port_registration():
    site = Site()
    attributes = {PortAttribute.HOST_NAME: text("there")}
    rprt = FdmiRequest(FdmiCommand.RPRT, ONE, TWO, attributes=attributes)
    rpa = FdmiRequest(FdmiCommand.RPA, port=TWO, attributes={PortAttribute.OS_DEVICE_NAME: text("eth1")})
    assert site.refused(rprt, TWO) is FdmiExplanation.HBA_NOT_IN_LIST
    assert site.refused(rpa, TWO) is FdmiExplanation.PORT_NOT_REGISTERED
    site.body(RHBA)
    assert site.refused(rprt, THREE) is FdmiExplanation.PORT_NOT_IN_LIST
    site.body(rprt, TWO)
    assert site.refused(rprt, TWO) is FdmiExplanation.PORT_ALREADY_REGISTERED
    assert fdmi.parse_names(site.body(FdmiRequest(FdmiCommand.GRPL, ONE))) == (ONE, TWO)
    assert site.refused(rpa, THREE) is FdmiExplanation.PORT_NOT_REGISTERED
    site.body(rpa, TWO)
    assert fdmi.parse_attributes(site.body(FdmiRequest(FdmiCommand.GPAT, port=TWO))) == {**attributes, **rpa.attributes}
    assert "ports 20:00:52:54:00:00:00:02" in site.server.hbas[ONE].describe()
    site.body(FdmiRequest(FdmiCommand.DPA, port=TWO), TWO)
    assert site.refused(FdmiRequest(FdmiCommand.DPA, port=TWO), TWO) is FdmiExplanation.PORT_ATTRIBUTES_NOT_REGISTERED
    assert fdmi.parse_attributes(site.body(FdmiRequest(FdmiCommand.GPAT, port=TWO))) == {}
    site.body(FdmiRequest(FdmiCommand.DPRT, port=TWO), TWO)
    assert site.refused(FdmiRequest(FdmiCommand.GPAT, port=TWO)) is FdmiExplanation.PORT_NOT_REGISTERED
    site.body(FdmiRequest(FdmiCommand.DPRT, port=ONE))
    assert site.server.hbas == {}


def test_a_port_speaks_for_itself():
    """An HBA that lists another's port does not hide what that has registered."""
    site = Site()
    site.body(FdmiRequest(FdmiCommand.RHBA, TWO, ports=(TWO, ONE)), TWO)
    site.body(RHBA)
    site.body(linux_rpa())
    assert site.server.hbas[TWO].port_attributes == {}
    assert site.body(FdmiRequest(FdmiCommand.GPAT, port=ONE), THREE) == linux_rpa()[24:]


def test_it_goes_with_the_login():
    site = Site()
    site.body(RHBA)
    site.body(FdmiRequest(FdmiCommand.RPRT, ONE, TWO, attributes={PortAttribute.HOST_NAME: text("there")}), TWO)
    site.there.remove(TWO)
    site.server.remove(TWO)
    assert site.server.hbas[ONE].port_attributes == {}
    site.there.remove(ONE)
    site.server.remove(ONE)
    assert site.server.hbas == {}


@pytest.mark.parametrize(
    "block, explanation",
    [
        ("00000002 0004 0008 61000000 0004 0008 62000000", FdmiExplanation.HBA_ATTRIBUTE_TWICE),
        ("00000001 0004 0004", FdmiExplanation.HBA_ATTRIBUTE_LENGTH),
        ("00000001 0004 0007 610000", FdmiExplanation.HBA_ATTRIBUTE_LENGTH),
        ("00000001 0004 0108" + "00" * 260, FdmiExplanation.HBA_ATTRIBUTE_LENGTH),
        ("ffffffff", FdmiExplanation.NONE),
    ],
)
def test_attributes_that_cannot_be(block, explanation):
    site = Site()
    head = bytes.fromhex("01000000 fa100000 02000000 00000000") + ONE + b"\0\0\0\1" + ONE
    assert site.refused(head + bytes.fromhex(block)) is explanation
    assert site.server.hbas == {}


def test_cut_short_or_unknown():
    site = Site()
    whole = linux_rhba()
    for length in range(16, len(whole), 7):
        assert site.ask(whole[:length]).reason == CtReason.INVALID_IU_SIZE
    assert site.ask(CtIu(0x0999, gs_type=0xFA, gs_subtype=0x10).pack()).reason == CtReason.COMMAND_NOT_SUPPORTED
    assert site.ask(CtIu(FdmiCommand.GRHL).pack()).reason == CtReason.SERVER_NOT_AVAILABLE


def test_bounded():
    """One port fills one HBA, and no more of it than there is room for."""
    site = Site()
    site.body(RHBA)
    block = {kind: bytes(256) for kind in range(1, 41)}
    site.body(FdmiRequest(FdmiCommand.RHAT, ONE, attributes=block))
    assert site.refused(FdmiRequest(FdmiCommand.RPA, port=ONE, attributes=block)) is FdmiExplanation.NONE
    assert site.server.hbas[ONE].port_attributes == {}
    kinds = iter(range(0x100, 0x10000))
    for _ in range(200):
        site.ask(FdmiRequest(FdmiCommand.RHAT, ONE, attributes={next(kinds): bytes(256)}))
    assert site.server.hbas[ONE].size <= HBA_BYTES
    names = [b"\x30" + number.to_bytes(7, "big") for number in range(200)]
    for name in names:
        site.ask(FdmiRequest(FdmiCommand.RPRT, ONE, name, attributes={}))
    assert len(site.server.hbas[ONE].ports) == fdmi.MAX_PORTS
    many = FdmiRequest(FdmiCommand.RHBA, TWO, ports=(TWO, *names))
    assert site.refused(many, TWO) is FdmiExplanation.NONE


@given(st.binary(max_size=200), st.sampled_from(list(FdmiCommand)))
def test_any_payload_has_an_answer(body, command):
    site = Site()
    site.body(RHBA)
    site.ask(CtIu(command, body, gs_type=0xFA, gs_subtype=0x10).pack())
    assert len(site.server.hbas) <= 1


@given(st.dictionaries(st.integers(0, 65535), st.binary(min_size=1, max_size=64).map(lambda b: b * 4), max_size=8))
def test_attributes_round_trip(attributes):
    assert fdmi.parse_attributes(fdmi.pack_attributes(attributes)) == attributes
    with pytest.raises(CtError):
        fdmi.parse_attributes(fdmi.pack_attributes(attributes)[:-1])


@pytest.mark.parametrize(
    ("value", "packed"), [("", b"\0\0\0\0"), ("abc", b"abc\0"), ("abcd", b"abcd\0\0\0\0"), ("ü", b"?\0\0\0")]
)
def test_texts(value, packed):
    assert text(value) == packed
    assert len(text("x" * 1000)) == fdmi.TEXT
    assert fdmi.plain(packed) == value.replace("ü", "?")
    assert fdmi.plain(b"a\nb\x80") == "a?b?"


# The switch


def switch_of(station: Station) -> FcfController:
    assert isinstance(station.controller, FcfController)
    return station.controller


def site_of_stations(mtu: int = 2500) -> tuple[Segment, Station, Station]:
    fcf, port, _ = station_of(0x10, TARGET, mode="fcf", mtu=mtu)
    enode, other, _ = station_of(0x20, INITIATOR, mode="fabric", mtu=mtu)
    port.hba = HbaDescription(description="switch", host="here")
    other.hba = HbaDescription(description="x" * 250, driver_version="y" * 250, os="z" * 250, host="there", device="eth1")
    return Segment(fcf, enode), fcf, enode


@pytest.mark.parametrize("mtu", [2500, 600])
def test_ports_register_with_our_switch(mtu):
    """At both ends of a wire, and without one; in several frames if one has no room for it."""
    segment, fcf, enode = site_of_stations(mtu)
    segment.up(5.0)
    server = switch_of(fcf).switch.fdmi
    for station in (fcf, enode):
        (port,) = station.ports.values()
        assert port.management_client.step == "registered"
        hba = server.hbas[port.port_name]
        assert hba.attributes[HbaAttribute.NODE_NAME] == port.node_name
        assert hba.port_attributes[port.port_name][PortAttribute.MAXIMUM_FRAME_SIZE] == port.receive_size.to_bytes(4, "big")
    assert server.hbas[port.port_name].describe().endswith(", there, eth1")
    assert fcf.counters.fcoe_unexpected == 0
    rhba = [each for each in segment.fc_frames() if each.d_id == MANAGEMENT and each.r_ctl == 2 and each.ox_id]
    assert any(frame.sof == SOF_N3 for frame in rhba) == (mtu == 600)
    enode.stop(segment.now)
    segment.run(1.0)
    assert port.port_name not in server.hbas
    enode.link_up(segment.now)
    segment.run(5.0)
    assert port.port_name in server.hbas


def test_requests_that_never_end():
    """They are forgotten after E_D_TOV, and do not keep others from being heard; ABTS ends one at once."""
    segment, fcf, enode = site_of_stations()
    segment.up(5.0)
    (port,) = enode.ports.values()
    switch = switch_of(fcf).switch
    attached = switch.ports[port.fc_id]

    def begin(ox_id: int, *, r_ctl: int = 2, fc_type: int = 0x20) -> None:
        header = pack_header(r_ctl, MANAGEMENT, port.fc_id, fc_type, 0x200000, 7, 0, 0, ox_id, 0xFFFF, 0)
        switch.receive(attached, Frame.unpack(memoryview(header + linux_rhba()), SOF_I3, EOF_N), segment.now)

    for ox_id in range(100):
        begin(ox_id)
    assert fcf.counters.fcoe_unexpected == 98
    header = pack_header(0x81, MANAGEMENT, port.fc_id, 0, 0x090000, 7, 0, 1, 0, 0xFFFF, 0)
    for r_ctl in (0x84, 0x85):
        fcf.outbox.clear()
        switch.receive(attached, Frame.unpack(memoryview(header), SOF_N3, EOF_T), segment.now)
        assert fcf.outbox[0][28] == r_ctl
    segment.run(3.0)
    assert fcf.counters.fcoe_unexpected == 99
    begin(1)
    begin(2)
    assert fcf.counters.fcoe_unexpected == 99
    # an ELS in pieces is none
    begin(3, r_ctl=0x22, fc_type=1)
    assert fcf.counters.fcoe_unexpected == 100


def test_each_service_has_its_address():
    """The name server is no management server, and the fabric controller neither."""
    segment, fcf, enode = site_of_stations()
    segment.up(5.0)
    (port,) = enode.ports.values()
    switch = switch_of(fcf).switch
    answers = []

    def ask(d_id: int, iu: CtIu) -> None:
        port.exchanges.request(
            d_id, iu.pack(), lambda reply, _now: answers.append(parse_iu(reply)), segment.now, r_ctl=2, fc_type=0x20
        )
        segment.run(0.1)

    switch.ports[port.fc_id].logins.add(CONTROLLER)
    ask(DIRECTORY, FdmiRequest(FdmiCommand.GRHL).iu())
    ask(MANAGEMENT, CtIu(0x0171, bytes(4)))
    ask(CONTROLLER, FdmiRequest(FdmiCommand.GRHL).iu())
    assert [each.reason for each in answers] == [CtReason.SERVER_NOT_AVAILABLE] * 3
    ask(MANAGEMENT, FdmiRequest(FdmiCommand.GRHL).iu())
    assert len(fdmi.parse_names(answers[-1].body)) == 2


# A switch that is not ours


def told(refuse: tuple[str, ...] = (), *, plogi_refused: bool = False):
    """A port that has registered, and the commands that it has sent to the management server."""
    wire, port, _fc4 = a_port(TARGET, fabric=True)
    port.hba = HbaDescription()
    commands = []
    for _ in range(20):
        frames = wire.take()
        if not frames:
            break
        (frame,) = frames
        if frame.type == 1:
            is_plogi = frame.payload[0] == ElsCommand.PLOGI
            if is_plogi and frame.d_id == MANAGEMENT and plogi_refused:
                accept(wire, frame, Reject(Reason.COMMAND_NOT_SUPPORTED).pack())
            else:
                login = b"\x02" + plogi().pack()[1:]
                accept(wire, frame, login if is_plogi else b"\x02\0\0\0")
            continue
        if frame.d_id == MANAGEMENT:
            commands.append(port.management_client.step)
            asked = fdmi.parse_request(parse_iu(frame.payload))
            assert asked.command == STEPS[commands[-1]].command
        refused = frame.d_id == MANAGEMENT and commands[-1] in refuse
        answer = reject(CtReason.UNABLE_TO_PERFORM, FdmiExplanation.HBA_ALREADY_REGISTERED) if refused else CtIu(0x8002)
        accept(wire, frame, answer.pack())
    assert port.name_client.registered
    return wire, port, commands


@pytest.mark.parametrize(
    ("refuse", "commands", "end"),
    [
        ((), ["RHBA", "RPA"], "registered"),
        (("RHBA",), ["RHBA", "DHBA", "RHBA again", "RPA"], "registered"),
        (("RHBA", "DHBA", "RHBA again"), ["RHBA", "DHBA", "RHBA again", "RPRT"], "registered"),
        (tuple(STEPS), ["RHBA", "DHBA", "RHBA again", "RPRT"], "refused"),
        (("RPA",), ["RHBA", "RPA"], "refused"),
    ],
)
def test_whatever_the_switch_refuses(refuse, commands, end):
    """Nothing depends on it."""
    wire, port, sent = told(refuse)
    assert sent == commands
    assert port.management_client.step == end
    assert wire.counters.ct_refused == len([each for each in sent if each in refuse])


def test_a_switch_without_management_server():
    _wire, port, sent = told(plogi_refused=True)
    assert sent == []
    assert port.management_client.step == "refused"


def test_the_management_server_logs_out():
    wire, port, _sent = told()
    wire.give(MANAGEMENT, Logo(MANAGEMENT, bytes(8)).pack())
    answer, frame = wire.take()
    assert answer.payload[0] == ElsCommand.LS_ACC
    assert (frame.d_id, frame.payload[0]) == (MANAGEMENT, ElsCommand.PLOGI)
    port.down("link down", wire.now)
    assert port.management_client.step == ""


def test_nobody_is_told_without_a_description():
    wire, port, _fc4 = a_port(TARGET, fabric=True)
    port.management_client.start(wire.now)
    assert port.management_client.step == ""


def test_captures_name_the_commands():
    """By GS_Type and GS_Subtype: their numbers are the name server's too."""
    segment, _fcf, _enode = site_of_stations()
    segment.up(5.0)
    made = Ladder()
    rows = [made.take(frame, at) for at, frame in enumerate(segment.seen)]
    told = [row.what for row in rows if row is not None and "management" in (row.left, row.right)]
    assert told == ["PLOGI", "LS_ACC (PLOGI)", "RHBA", "CT accept (RHBA)", "RPA", "CT accept (RPA)"]
