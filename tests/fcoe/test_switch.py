"""Services behind well-known addresses (FC-LS, FC-GS): what libfc sends from FLOGI to Ready, state changes, bad frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tcm_fcoe.protocol import ct_names as names
from tcm_fcoe.protocol.ct import ACCEPT, REJECT, CtIu
from tcm_fcoe.protocol.ct_names import NameServerCommand as Command
from tcm_fcoe.protocol.els import (
    RNID_TOPOLOGY,
    TOPOLOGY,
    Adisc,
    Echo,
    LinkErrorStatus,
    Logo,
    NodeIdentification,
    Plain,
    Reject,
    Rls,
    Rnid,
    Rscn,
    Scr,
    ScrFunction,
    TimeoutValues,
)
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import Login, ProcessLogin, ServicePage
from tcm_fcoe.protocol.els_payload import ElsError, Payload
from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, SOF_I3, SOF_N3
from tcm_fcoe.protocol.frame import F_CTL_REPLY, F_CTL_REQUEST, Frame, pack_header
from tcm_fcoe.protocol.switch import (
    MAX_PORTS,
    REMEMBERED,
    RSCN_DELAY,
    RSCN_PAGES,
    RSCN_TIMEOUT,
    RSCN_TRIES,
    AttachedPort,
    Switch,
)

NAME = bytes.fromhex("2fff525400000fcf")
DIRECTORY, CONTROLLER, MANAGEMENT, F_PORT = 0xFFFFFC, 0xFFFFFD, 0xFFFFFA, 0xFFFFFE
ELS_REQUEST, ELS_REPLY, CT_REQUEST, CT_REPLY = (0x22, 0x01), (0x23, 0x01), (0x02, 0x20), (0x03, 0x20)


def port_name(number: int) -> bytes:
    return (0x2000 << 48 | number).to_bytes(8, "big")


class Fabric:
    """A switch whose frames are kept."""

    def __init__(self) -> None:
        self.sent: list[tuple[AttachedPort, Frame]] = []
        self.counters: list[str] = []
        self.switch = Switch(self, NAME, receive_size=2112)
        self.now = 10.0
        self._ox_id = 100

    def send(self, to: AttachedPort, header: bytes, payload, sof: int, eof: int) -> None:
        data = bytes(header) + bytes(payload) + bytes(-len(payload) & 3)
        self.sent.append((to, Frame.unpack(memoryview(data), sof, eof)))

    def errors(self, of: AttachedPort) -> LinkErrorStatus:
        return LinkErrorStatus(1, of.fc_id & 0xFF, 2)

    def count(self, counter: str) -> None:
        self.counters.append(counter)

    def attach(self, number: int, **options) -> AttachedPort:
        return self.switch.attach(port_name(number), port_name(number), self.now, receive_size=2112, **options)

    def give(
        self,
        source: AttachedPort,
        d_id: int,
        payload: bytes,
        kind: tuple[int, int] = ELS_REQUEST,
        *,
        f_ctl: int = F_CTL_REQUEST,
        s_id: int | None = None,
        ox_id: int | None = None,
        sof: int = SOF_I3,
        eof: int = EOF_T,
        seq_cnt: int = 0,
        df_ctl: int = 0,
    ) -> list[Frame]:
        """A frame of a port; what is sent because of it."""
        self._ox_id += 1
        header = pack_header(
            kind[0],
            d_id,
            source.fc_id if s_id is None else s_id,
            kind[1],
            f_ctl | -len(payload) & 3,
            0,
            df_ctl,
            seq_cnt,
            self._ox_id if ox_id is None else ox_id,
            0xFFFF,
            0,
        )
        frame = Frame.unpack(memoryview(header + payload + bytes(-len(payload) & 3)), sof, eof)
        before = len(self.sent)
        self.switch.receive(source, frame, self.now)
        return [frame for _, frame in self.sent[before:]]

    def els(self, source: AttachedPort, d_id: int, payload: Payload) -> memoryview:
        """The payload of the answer to an ELS."""
        (answer,) = self.give(source, d_id, payload.pack())
        assert (answer.r_ctl, answer.type) == ELS_REPLY
        assert (answer.d_id, answer.s_id, answer.ox_id) == (source.fc_id, d_id, self._ox_id)
        assert (answer.sof, answer.eof, answer.f_ctl & ~3) == (SOF_I3, EOF_T, F_CTL_REPLY)
        return answer.payload

    def accepted(self, source: AttachedPort, d_id: int, payload: Payload) -> memoryview:
        answer = self.els(source, d_id, payload)
        assert answer[0] == ElsCommand.LS_ACC, answer.hex()
        return answer

    def rejected(self, source: AttachedPort, d_id: int, payload: Payload) -> tuple[int, int]:
        reject = Reject.parse(self.els(source, d_id, payload))
        assert reject.command == ElsCommand.LS_RJT
        return reject.reason, reject.explanation

    def ct(self, source: AttachedPort, command: Command, request: names.Request) -> CtIu:
        frames = self.give(source, DIRECTORY, CtIu(command, request.pack()).pack(), CT_REQUEST)
        assert {(frame.r_ctl, frame.type) for frame in frames} == {CT_REPLY}
        return CtIu.parse(b"".join(frame.payload for frame in frames))

    def run(self, seconds: float) -> list[Frame]:
        """Let time pass; what is sent meanwhile."""
        before, end = len(self.sent), self.now + seconds
        while self.switch.next_timer <= end:
            self.now = max(self.now, self.switch.next_timer)
            self.switch.handle_timer(self.now)
        self.now = end
        return [frame for _, frame in self.sent[before:]]


def plogi(port: AttachedPort) -> Login:
    return Login(command=ElsCommand.PLOGI, port_name=port.port_name, node_name=port.node_name, receive_size=2112)


def registered(fabric: Fabric, number: int) -> AttachedPort:
    """A port after all that libfc does to be Ready."""
    port = fabric.attach(number)
    accept = Login.parse(fabric.accepted(port, DIRECTORY, plogi(port)))
    assert accept.data_field_size == 2112
    assert accept.class_3_parameters.valid
    for command, request in (
        (Command.RNN_ID, names.RegisterName(port.fc_id, port.node_name)),
        (Command.RSNN_NN, names.RegisterSymbolicNodeName(port.node_name, b"fcoe")),
        (Command.RSPN_ID, names.RegisterSymbolicPortName(port.fc_id, b"fcoe")),
        (Command.RFT_ID, names.RegisterTypes(port.fc_id, names.fc4_types([0x08, 0x20]))),
        (Command.RFF_ID, names.RegisterFeatures(port.fc_id, 2)),
    ):
        assert fabric.ct(port, command, request).code == ACCEPT
    fabric.accepted(port, CONTROLLER, Scr())
    return port


def test_libfc():
    """PLOGI to FFFFFCh, registrations, SCR, GPN_FT: the target of ours is found."""
    fabric = Fabric()
    target = fabric.attach(1, features={8: 1})
    port = registered(fabric, 2)
    found = names.PortsAndNames.parse(fabric.ct(port, Command.GPN_FT, names.ByType()).body)
    assert found.ports == ((target.fc_id, target.port_name), (port.fc_id, port.port_name))
    assert not fabric.counters


def test_answers_of_several_frames():
    """SEQ_CNT goes on, the last frame ends the sequence; libfc puts the rows together."""
    fabric = Fabric()
    for number in range(400):
        fabric.attach(100 + number, features={8: 1})
    port = registered(fabric, 2)
    frames = fabric.give(port, DIRECTORY, CtIu(Command.GPN_FT, names.ByType().pack()).pack(), CT_REQUEST)
    assert [frame.seq_cnt for frame in frames] == [0, 1, 2, 3]
    assert [frame.sof for frame in frames] == [SOF_I3, SOF_N3, SOF_N3, SOF_N3]
    assert [frame.eof for frame in frames] == [EOF_N, EOF_N, EOF_N, EOF_T]
    assert [bool(frame.f_ctl & 0x080000) for frame in frames] == [False, False, False, True]
    assert max(len(frame.payload) for frame in frames) == 2112
    iu = CtIu.parse(b"".join(frame.payload for frame in frames))
    assert len(names.PortsAndNames.parse(iu.body).ports) == 401


def test_answers_fit_the_port():
    fabric = Fabric()
    small = fabric.switch.attach(port_name(9), port_name(9), 0.0, receive_size=258)
    fabric.accepted(small, DIRECTORY, plogi(small))
    frames = fabric.give(small, DIRECTORY, CtIu(Command.GA_NXT, bytes(4)).pack(), CT_REQUEST)
    assert [len(frame.payload) for frame in frames] == [256, 256, 124]


# ELS


@pytest.mark.parametrize("service", [DIRECTORY, CONTROLLER, MANAGEMENT])
def test_plogi_and_logo(service):
    fabric = Fabric()
    port = fabric.attach(1)
    accept = Login.parse(fabric.accepted(port, service, plogi(port)))
    assert accept.node_name == NAME
    assert accept.port_name != NAME
    assert port.logins == {service}
    fabric.accepted(port, service, Logo(n_port_id=port.fc_id, port_name=port.port_name))
    assert not port.logins


def test_small_services():
    fabric = Fabric()
    port = fabric.attach(1)
    assert TimeoutValues.parse(fabric.accepted(port, F_PORT, Plain(command=ElsCommand.RTV))) == TimeoutValues(10000, 2000)
    assert bytes(fabric.accepted(port, DIRECTORY, Echo(data=b"hello"))[4:]) == b"hello"


def test_rls_of_any_port_of_the_switch():
    """The port identifier names the N_Port whose F_Port is meant; zero is whoever asks (FC-LS-2 4.3.12)."""
    fabric = Fabric()
    port, other = fabric.attach(1), fabric.attach(2)
    for service in (F_PORT, CONTROLLER):
        for of, fc_id in ((0, port.fc_id), (port.fc_id, port.fc_id), (other.fc_id, other.fc_id)):
            status = LinkErrorStatus.parse(fabric.accepted(port, service, Rls(of)))
            assert status == LinkErrorStatus(1, fc_id & 0xFF, 2)
        assert fabric.rejected(port, service, Rls(0x010099)) == (Reason.UNABLE_TO_PERFORM, Explanation.INVALID_N_PORT_ID)


@pytest.mark.parametrize("service", [DIRECTORY, CONTROLLER, MANAGEMENT])
def test_adisc_and_pdisc_of_services(service):
    """As of any N_Port, of those that have logged in there (FC-LS-2 4.3.6, 4.3.16)."""
    fabric = Fabric()
    port = fabric.attach(1)
    adisc, pdisc = Adisc(port.port_name, NAME, port.fc_id), replace(plogi(port), command=ElsCommand.PDISC)
    for request in (adisc, pdisc):
        assert fabric.rejected(port, service, request) == (Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED)
    accept = Login.parse(fabric.accepted(port, service, plogi(port)))
    found = Adisc.parse(fabric.accepted(port, service, adisc))
    assert (found.port_name, found.node_name, found.n_port_id) == (accept.port_name, NAME, service)
    assert Login.parse(fabric.accepted(port, service, pdisc)) == accept
    other = replace(adisc, port_name=port_name(9))
    assert fabric.rejected(port, service, other) == (Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED)
    assert service not in port.logins, "another port has the address: it has to log in anew"


def test_logo_of_the_fabric_goes_in_fip():
    """FC-BB-5 7.5: accepted, it would have ended nothing."""
    fabric = Fabric()
    port = fabric.attach(1)
    logo = Logo(n_port_id=port.fc_id, port_name=port.port_name)
    assert fabric.rejected(port, F_PORT, logo) == (Reason.FIP_ERROR, Explanation.NONE)
    assert port.fc_id in fabric.switch.ports


def test_rnid_of_a_switch():
    fabric = Fabric()
    port = fabric.attach(1)
    fabric.attach(2)
    names = NodeIdentification.parse(fabric.accepted(port, F_PORT, Rnid()))
    assert (names.node_name, names.data_format, names.specific) == (NAME, 0, b"")
    found = NodeIdentification.parse(fabric.accepted(port, CONTROLLER, Rnid(RNID_TOPOLOGY)))
    about = TOPOLOGY.parse(found.specific)
    assert (about.associated_type, about.attached_nodes, found.specific_length) == (4, 2, 52)


def test_rejected():
    fabric = Fabric()
    port, other = fabric.attach(1), fabric.attach(2)
    unsupported = (Reason.COMMAND_NOT_SUPPORTED, Explanation.REQUEST_NOT_SUPPORTED)
    assert fabric.rejected(port, F_PORT, plogi(port)) == unsupported
    assert fabric.rejected(port, DIRECTORY, plogi(other)) == (Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME)
    assert fabric.rejected(port, DIRECTORY, ProcessLogin(ElsCommand.PRLI, (ServicePage(),))) == unsupported
    assert fabric.rejected(port, DIRECTORY, Scr()) == (Reason.LOGICAL_ERROR, Explanation.INVALID_N_PORT_ID)
    assert fabric.rejected(port, CONTROLLER, Scr(function=9)) == (Reason.LOGICAL_ERROR, Explanation.REQUEST_NOT_SUPPORTED)
    flogi = Login(command=ElsCommand.FLOGI, port_name=port.port_name, node_name=NAME)
    assert fabric.rejected(port, F_PORT, flogi) == (Reason.FIP_ERROR, Explanation.NONE)
    (answer,) = fabric.give(port, CONTROLLER, b"\x99\0\0\0")
    assert answer.payload[0] == ElsCommand.LS_RJT
    (answer,) = fabric.give(port, DIRECTORY, plogi(port).pack()[:100])
    assert bytes(answer.payload[5:7]) == bytes((Reason.PROTOCOL_ERROR, Explanation.INVALID_PAYLOAD_LENGTH))
    assert not port.logins


def test_common_transport_without_plogi():
    """LOGO says that there is no login (FC-LS-2 6.2), up to a limit."""
    fabric = Fabric()
    port = fabric.attach(1)
    (answer,) = fabric.give(port, DIRECTORY, CtIu(Command.GPN_FT, bytes(4)).pack(), CT_REQUEST)
    assert (answer.r_ctl, answer.s_id, answer.payload[0]) == (0x22, DIRECTORY, ElsCommand.LOGO)
    for _ in range(1000):
        fabric.give(port, DIRECTORY, CtIu(Command.GPN_FT, bytes(4)).pack(), CT_REQUEST)
    assert len(fabric.sent) == 64


def test_management_server_has_nothing():
    """FDMI registrations are refused, which libfc puts up with."""
    fabric = Fabric()
    port = fabric.attach(1)
    fabric.accepted(port, MANAGEMENT, plogi(port))
    (answer,) = fabric.give(port, MANAGEMENT, CtIu(0x0200, bytes(100), gs_type=0xFA, gs_subtype=0x10).pack(), CT_REQUEST)
    assert CtIu.parse(answer.payload).code == REJECT


def test_bad_frames():
    fabric = Fabric()
    port = fabric.attach(1)
    fabric.accepted(port, DIRECTORY, plogi(port))
    rtv = Plain(command=ElsCommand.RTV).pack()
    for options in (
        {"sof": SOF_N3},
        {"eof": EOF_N},
        {"seq_cnt": 1},
        {"f_ctl": 0x200000},
        {"f_ctl": F_CTL_REQUEST | 0x800000},
        {"df_ctl": 0x20},
        {"kind": (0x06, 0x08)},
        {"kind": (0x01, 0x20)},
        {"kind": ELS_REPLY},
    ):
        assert fabric.give(port, DIRECTORY, rtv, **options) == []
    assert fabric.counters == ["fcoe_unexpected"] * 9
    assert fabric.give(port, 0xFFFFFB, rtv) == []
    assert fabric.give(port, DIRECTORY, rtv, s_id=0x010099) == []
    assert fabric.counters[9:] == ["fcoe_no_route"] * 2
    (answer,) = fabric.give(port, DIRECTORY, b"\1\2")
    assert answer.payload[0] == ElsCommand.LS_RJT
    (answer,) = fabric.give(port, DIRECTORY, bytes(3), CT_REQUEST)
    assert CtIu.parse(answer.payload).code == REJECT
    (answer,) = fabric.give(port, DIRECTORY, b"", (0x81, 0x00))
    assert (answer.r_ctl, answer.type, bytes(answer.payload)) == (0x85, 0, b"\0\3\3\0")


# State changes


def pages(frame: Frame) -> tuple[tuple[int, int], ...]:
    assert (frame.s_id, frame.r_ctl, frame.type) == (CONTROLLER, *ELS_REQUEST)
    return Rscn.parse(frame.payload).pages


def test_rscn():
    """Who has registered hears of others, and never of itself; changes at one time come in one notification."""
    fabric = Fabric()
    port, silent = registered(fabric, 1), fabric.attach(2)
    assert fabric.run(5) == []
    new, more = fabric.attach(3, features={8: 1}), fabric.attach(4, features={8: 1})
    (told,) = fabric.run(RSCN_DELAY)
    assert told.d_id == port.fc_id
    assert pages(told) == ((0, new.fc_id), (0, more.fc_id))
    assert fabric.run(RSCN_TIMEOUT / 2) == []
    fabric.switch.detach(new, fabric.now)
    assert fabric.run(RSCN_DELAY * 2) == []  # the first has no answer yet
    fabric.give(port, CONTROLLER, Plain().pack(), ELS_REPLY, f_ctl=0x980000, ox_id=told.ox_id)
    (told,) = fabric.run(RSCN_DELAY)
    assert pages(told) == ((0, new.fc_id),)
    fabric.give(port, CONTROLLER, Reject(reason=3).pack(), ELS_REPLY, f_ctl=0x980000, ox_id=told.ox_id)
    assert fabric.run(100) == []
    assert not silent.notified


def test_rscn_without_an_answer():
    """Sent three times, then given up; the next change is told of again."""
    fabric = Fabric()
    port = registered(fabric, 1)
    fabric.attach(3, features={8: 1})
    told = fabric.run(60)
    assert len(told) == RSCN_TRIES
    assert len({frame.ox_id for frame in told}) == RSCN_TRIES
    assert fabric.switch.next_timer == float("inf")
    fabric.give(port, CONTROLLER, Plain().pack(), ELS_REPLY, f_ctl=0x980000, ox_id=told[0].ox_id)
    assert fabric.counters == ["fcoe_unexpected"]
    fabric.attach(4, features={8: 1})
    assert len(fabric.run(1)) == 1


def test_rscn_of_many_changes():
    fabric = Fabric()
    registered(fabric, 1)
    for number in range(RSCN_PAGES + 1):
        fabric.attach(10 + number, features={8: 1})
    (told,) = fabric.run(1)
    assert pages(told) == ((3, 0),)


def test_changes_do_not_pile_up():
    """A port that has registered and answers nothing costs no more than a page of changes."""
    fabric = Fabric()
    port = registered(fabric, 1)
    fabric.attach(5, features={8: 1})
    fabric.run(RSCN_DELAY)
    for number in range(1000):
        fabric.switch.detach(fabric.attach(10 + number), fabric.now)
    assert len(port.affected) == RSCN_PAGES + 1


def test_registration_ends():
    fabric = Fabric()
    port = registered(fabric, 1)
    fabric.accepted(port, CONTROLLER, Scr(function=ScrFunction.CLEAR))
    fabric.attach(3, features={8: 1})
    assert fabric.run(10) == []
    fabric.accepted(port, CONTROLLER, Scr())
    fabric.accepted(port, CONTROLLER, Logo(n_port_id=port.fc_id, port_name=port.port_name))
    fabric.attach(4, features={8: 1})
    assert fabric.run(10) == []


# Addresses


def test_addresses_are_remembered_within_bounds():
    fabric = Fabric()
    for number in range(1, REMEMBERED + 100):
        port = fabric.attach(number)
        fabric.switch.detach(port, fabric.now)
    assert len(fabric.switch._addresses) == REMEMBERED
    assert not fabric.switch.ports
    assert not fabric.switch.name_server.entries
    assert fabric.attach(REMEMBERED + 99).fc_id == port.fc_id


def test_no_room():
    fabric = Fabric()
    for number in range(MAX_PORTS):
        fabric.attach(1 + number)
    with pytest.raises(ElsError) as caught:
        fabric.attach(99999)
    assert caught.value.explanation == Explanation.INSUFFICIENT_RESOURCES
    assert len({port.fc_id for port in fabric.switch.ports.values()}) == MAX_PORTS
