"""One N_Port at a line: logins both ways and at once, every ELS with its answer, what is refused and why (FC-LS-2).

Longer than most files because every ELS has its rows in one table.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from support.fcoe_port import (
    GREATER,
    LESSER,
    NAME,
    NODE,
    OTHER,
    OWN,
    THEIR_NODE,
    Wire,
    a_port,
    accept,
    log_in,
    pair,
    plogi,
    prli,
    rejection,
)
from support.fcoe_stations import INITIATOR, TARGET, NotingFc4
from tcm_fcoe.protocol.els import (
    E_STAT_RESPONDER,
    RNID_TOPOLOGY,
    Adisc,
    Echo,
    ExchangeQuery,
    ExchangeStatus,
    LinkErrorStatus,
    Logo,
    NodeIdentification,
    Plain,
    Reject,
    Rls,
    Rnid,
    Rscn,
    Scr,
    Srr,
    TimeoutValues,
)
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import (
    CLASS_VALID,
    FEATURE_E_D_TOV_NANOSECONDS,
    ClassParameters,
    Login,
    PrliResponse,
    ProcessLogin,
    ServicePage,
)
from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, SOF_I3, SOF_N3
from tcm_fcoe.protocol.frame import F_CTL_END_SEQUENCE, F_CTL_REQUEST, FcType, RCtl
from tcm_fcoe.protocol.limits import Limits
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import WellKnownAddress
from tcm_fcoe.protocol.remote_port import LOGGED_IN, TABLE, Event, RemotePort, State

# The table


def test_every_action_of_the_table_exists():
    _wire, port, _fc4 = a_port()
    for step in TABLE.values():
        assert not step.action or callable(getattr(port.logins, f"_{step.action}"))


def test_a_logged_in_port_can_always_be_logged_out():
    for state in LOGGED_IN:
        assert TABLE[state, Event.LOGO_RECEIVED].state is State.IDLE
        assert TABLE[state, Event.LOGOUT].state is State.IDLE
        assert TABLE[state, Event.PLOGI_RECEIVED].state is State.LOGGED_IN


@pytest.mark.parametrize("state, event", list(itertools.product(State, Event)))
def test_a_pair_that_is_not_in_the_table_changes_nothing(state, event):
    remote = RemotePort(OTHER)
    remote.state = state
    action = remote.enter(event)
    step = TABLE.get((state, event))
    assert remote.state is (step.state if step else state)
    assert action == (step.action if step else None)
    assert remote.history[-1] == (state, event, step.state if step else None)


# PLOGI, received


def test_plogi_is_accepted_with_our_parameters():
    wire, port, _fc4 = a_port()
    reply = Login.parse(wire.ask(OTHER, plogi().pack()))
    assert (reply.port_name, reply.node_name) == (NAME, NODE)
    assert reply.class_3_parameters.valid
    assert reply.data_field_size == 2112
    assert reply.e_d_tov == 2.0
    remote = port.remotes[OTHER]
    assert remote.state is State.LOGGED_IN
    assert remote.max_frame == 2048
    assert (remote.port_name, remote.node_name, remote.e_d_tov) == (LESSER, THEIR_NODE, 2.0)


def test_e_d_tov_in_nanoseconds():
    assert plogi(features=FEATURE_E_D_TOV_NANOSECONDS, word_3=1_500_000_000).e_d_tov == 1.5


@pytest.mark.parametrize(
    "said, features, agreed, r_a_tov",
    [
        (500, 0, 2.0, 10.0),
        (4000, 0, 4.0, 10.0),
        (20_000, 0, 20.0, 40.0),
        (3_000_000_000, FEATURE_E_D_TOV_NANOSECONDS, 3.0, 10.0),
        (0xFFFFFFFF, 0, 60.0, 120.0),
    ],
)
def test_the_greater_e_d_tov_holds_without_a_fabric(said, features, agreed, r_a_tov):
    """FC-LS-2 6.6.2: of both in PLOGI; R_A_TOV is twice that at least. A sequence waits so long for its next frame."""
    wire, port, _fc4 = a_port()
    assert wire.ask(OTHER, plogi(word_3=said, features=features).pack())[0] == ElsCommand.LS_ACC
    assert port.remotes[OTHER].e_d_tov == agreed
    assert port.longer_r_a_tov.get(OTHER, port.r_a_tov) == r_a_tov
    wire.give(OTHER, Echo(bytes(100)).pack(), f_ctl=F_CTL_REQUEST & ~F_CTL_END_SEQUENCE, eof=EOF_N)
    assert len(port.sequences) == 1
    wire.pass_time(agreed - 0.1)
    assert len(port.sequences) == 1
    wire.pass_time(0.2)
    assert len(port.sequences) == 0
    assert wire.counters.sequences_timed_out == 1
    assert wire.ask(OTHER, plogi(word_3=2000).pack())[0] == ElsCommand.LS_ACC
    assert (port.remotes[OTHER].e_d_tov, port.sequences.longer, port.longer_r_a_tov) == (2.0, {}, {})


def test_a_fabric_says_what_e_d_tov_is():
    """FC-LS-2 6.6.2: PLOGI does not change what LS_ACC to FLOGI has said."""
    wire, port, _fc4 = a_port()
    port.fabric = True
    assert wire.ask(OTHER, plogi(word_3=20_000).pack())[0] == ElsCommand.LS_ACC
    assert (port.remotes[OTHER].e_d_tov, port.sequences.longer) == (2.0, {})


def of_class_3(size: int) -> bytes:
    return ClassParameters(CLASS_VALID, receive_size=size).pack()


WRONG_SIZE = (Reason.LOGICAL_ERROR, Explanation.RECEIVE_DATA_FIELD_SIZE)
BAD_PLOGI = [
    ({"class_3": bytes(16)}, (Reason.LOGICAL_ERROR, Explanation.OPTIONS)),
    ({"class_3": of_class_3(128)}, WRONG_SIZE),
    ({"class_3": of_class_3(258)}, WRONG_SIZE),
    ({"class_3": of_class_3(0), "receive_size": 0}, WRONG_SIZE),
    ({"class_3": of_class_3(0), "receive_size": 4095}, WRONG_SIZE),
    ({"port_name": bytes(8)}, (Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME)),
    ({"port_name": NAME}, (Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME)),
    ({"node_name": bytes(8)}, (Reason.LOGICAL_ERROR, Explanation.INVALID_NODE_NAME)),
]


@pytest.mark.parametrize("changes, expected", BAD_PLOGI)
def test_plogi_that_cannot_be(changes, expected):
    wire, port, _fc4 = a_port()
    payload = dataclasses.replace(plogi(), **changes).pack()
    assert rejection(wire.ask(OTHER, payload)) == expected
    assert port.remotes == {}
    assert wire.counters.plogi_refused == wire.counters.els_rejected == 1


@pytest.mark.parametrize("s_id", [0, 0xFFFFFC, 0xFFFC01, OWN])
def test_plogi_from_an_address_that_no_n_port_has(s_id):
    wire, port, _fc4 = a_port()
    assert rejection(wire.ask(s_id, plogi().pack())) == (Reason.LOGICAL_ERROR, Explanation.INVALID_N_PORT_ID)
    assert port.remotes == {}


@pytest.mark.parametrize("length", range(116))
def test_plogi_cut_at_every_byte(length):
    wire, port, _fc4 = a_port()
    reason, explanation = rejection(wire.ask(OTHER, plogi().pack()[:length]))
    assert (reason, explanation) == (Reason.PROTOCOL_ERROR, Explanation.INVALID_PAYLOAD_LENGTH)
    assert port.remotes == {}


def test_a_payload_of_256_bytes_is_taken():
    wire, port, _fc4 = a_port()
    assert wire.ask(OTHER, plogi(extension=bytes(140)).pack())[0] == ElsCommand.LS_ACC
    assert port.remotes[OTHER].logged_in


def test_plogi_again_is_an_implicit_logout():
    wire, port, fc4 = a_port()
    pair(wire)
    log_in(wire)
    assert fc4.events == [("login", OTHER, INITIATOR), ("logout", OTHER, "logged in again")]
    assert port.remotes[OTHER].state is State.LOGGED_IN


def test_a_name_at_another_address_logs_the_old_one_out():
    wire, port, fc4 = a_port()
    pair(wire)
    pair(wire, OTHER + 1)
    assert [event[:2] for event in fc4.events] == [("login", OTHER), ("logout", OTHER), ("login", OTHER + 1)]
    assert list(port.remotes) == [OTHER + 1]


def test_another_name_at_an_address_logs_the_old_one_out():
    wire, port, fc4 = a_port()
    pair(wire)
    pair(wire, OTHER, GREATER)
    assert [event[0] for event in fc4.events] == ["login", "logout", "login"]
    assert port.remotes[OTHER].port_name == GREATER


def test_too_many_remote_ports():
    """Those with an image pair stay; who logged in and did nothing more makes room for a new one."""
    wire, port, fc4 = a_port(limits=Limits(remote_ports=4))
    for number in range(3):
        pair(wire, 0x20000 + number, LESSER[:-1] + bytes((number + 0x10,)))
    log_in(wire, 0x20003)
    reply = wire.ask(OTHER, plogi(GREATER).pack())
    assert rejection(reply) == (Reason.UNABLE_TO_PERFORM, Explanation.INSUFFICIENT_RESOURCES)
    assert wire.counters.remote_ports_refused == 1
    wire.pass_time(5.0)
    log_in(wire, OTHER, GREATER)
    assert sorted(port.remotes) == [OTHER, 0x20000, 0x20001, 0x20002]
    assert [event[0] for event in fc4.events] == ["login"] * 3


def test_a_storm_of_plogi_leaves_others_alone():
    """From 10,000 addresses: the table is bounded, most are told to come later, and image pairs stay."""
    wire, port, fc4 = a_port(limits=Limits(remote_ports=64))
    pair(wire)
    payload = plogi().pack()
    for number in range(1, 10_001):
        wire.now += 0.001
        wire.give(0x20000 + number, payload[:20] + number.to_bytes(8, "big") + payload[28:])
        assert len(wire.take()) == 1
    assert 256 + 2000 < wire.counters.plogi_in < 256 + 3000
    assert wire.counters.plogi_in + wire.counters.logins_put_off == 10_001
    # it can log in again, whatever strangers do
    pair(wire)
    assert [event[0] for event in fc4.events] == ["login", "logout", "login"]
    assert len(port.remotes) == 64
    assert port.remotes[OTHER].ready
    assert len(port.timers) == 0


@pytest.mark.parametrize("payload", [plogi().pack(), prli().pack()])
def test_a_storm_of_logins_of_one_port(payload):
    """Each ends what went before; after some they are told to come later."""
    wire, _port, fc4 = a_port()
    pair(wire)
    answers = []
    for _ in range(1000):
        wire.now += 0.001
        answers.append(wire.ask(OTHER, payload)[0])
        if answers[-1] == ElsCommand.LS_ACC and payload[0] == ElsCommand.PLOGI:
            wire.ask(OTHER, prli().pack())
    assert answers[0] == ElsCommand.LS_ACC
    assert answers[-1] == ElsCommand.LS_RJT
    assert 8 <= answers.count(ElsCommand.LS_ACC) < 600
    assert len(fc4.events) < 2000


# PLOGI, sent


def test_the_greater_name_logs_in():
    wire, port, _fc4 = a_port()
    port.remote_up(OTHER, LESSER, THEIR_NODE, wire.now)
    (request,) = wire.take()
    assert Login.parse(request.payload).command == ElsCommand.PLOGI
    assert (request.d_id, request.s_id, request.f_ctl, request.rx_id) == (OTHER, OWN, F_CTL_REQUEST, 0xFFFF)
    accept(wire, request, dataclasses.replace(plogi(), command=ElsCommand.LS_ACC).pack())
    assert port.remotes[OTHER].state is State.LOGGED_IN
    assert wire.take() == []  # a target waits for PRLI


def test_the_lesser_name_waits():
    wire, port, _fc4 = a_port(INITIATOR)
    port.remote_up(OTHER, GREATER, THEIR_NODE, wire.now)
    assert wire.take() == []
    assert port.next_timer > 1e9
    log_in_reply = wire.give(OTHER, plogi(GREATER).pack())
    assert log_in_reply is None
    answer, request = wire.take()
    assert answer.payload[0] == ElsCommand.LS_ACC
    assert request.payload[0] == ElsCommand.PRLI  # an initiator does not wait for that


def test_plogi_is_repeated_in_new_exchanges():
    """Three times, E_D_TOV after each failed; then after R_A_TOV again, as long as discovery says that the port is there."""
    wire, port, _fc4 = a_port()
    port.remote_up(OTHER, LESSER, THEIR_NODE, wire.now)
    wire.pass_time(65.0)
    sent = wire.take()
    plogis = [frame for frame in sent if frame.r_ctl == RCtl.EXTENDED_LINK_REQUEST]
    aborts = [frame for frame in sent if frame.r_ctl == RCtl.BASIC_ABTS]
    assert len(plogis) == 3
    assert len({frame.ox_id for frame in plogis}) == 3
    assert {frame.ox_id for frame in aborts} <= {frame.ox_id for frame in plogis}
    wire.pass_time(8.0)
    assert port.remotes[OTHER].state is State.WAIT
    wire.pass_time(2.0)
    assert [frame.payload[0] for frame in wire.take() if frame.r_ctl == RCtl.EXTENDED_LINK_REQUEST] == [ElsCommand.PLOGI]
    port.remote_down(OTHER, "gone", wire.now)
    assert len(port.exchanges) == len(port.aborts) == len(port.timers) == 0


def test_one_that_nobody_speaks_for_is_forgotten():
    wire, port, _fc4 = a_port(INITIATOR)
    port.login(OTHER, wire.now)
    wire.pass_time(200.0)
    assert port.remotes == {}


@pytest.mark.parametrize(
    "reason, attempts", [(Reason.LOGICAL_BUSY, 3), (Reason.UNABLE_TO_PERFORM, 3), (Reason.COMMAND_NOT_SUPPORTED, 1)]
)
def test_plogi_that_is_refused(reason, attempts):
    wire, port, _fc4 = a_port()
    port.remote_up(OTHER, LESSER, THEIR_NODE, wire.now)
    for _ in range(attempts):
        (request,) = wire.take()
        accept(wire, request, Reject(reason).pack())
        wire.pass_time(3.0)
    assert wire.take() == []
    assert port.remotes[OTHER].state is (State.IDLE if attempts == 1 else State.WAIT)
    assert wire.counters.els_refused == attempts
    wire.pass_time(10.0)
    assert len(wire.take()) == (attempts > 1)


@pytest.mark.parametrize("payload", [b"", b"\x02", b"\x02\0\0\0", bytes(116), b"\x02" + bytes(115)])
def test_plogi_with_an_answer_that_cannot_be(payload):
    wire, port, _fc4 = a_port()
    port.remote_up(OTHER, LESSER, THEIR_NODE, wire.now)
    (request,) = wire.take()
    accept(wire, request, payload)
    assert port.remotes[OTHER].state is State.WAIT
    wire.pass_time(3.0)
    assert wire.take()[0].payload[0] == ElsCommand.PLOGI


def test_plogis_that_cross_ours_counts():
    """The greater name's PLOGI goes on, the other is refused (FC-LS-2 clause 6.2)."""
    wire, port, _fc4 = a_port()
    port.remote_up(OTHER, LESSER, THEIR_NODE, wire.now)
    (ours,) = wire.take()
    assert rejection(wire.ask(OTHER, plogi(LESSER).pack())) == (
        Reason.COMMAND_ALREADY_IN_PROGRESS,
        Explanation.COMMAND_ALREADY_IN_PROGRESS,
    )
    accept(wire, ours, dataclasses.replace(plogi(), command=ElsCommand.LS_ACC).pack())
    assert port.remotes[OTHER].state is State.LOGGED_IN
    assert wire.counters.plogi_collisions == 1


@pytest.mark.parametrize("theirs_to_ours", ["accepted", "refused", "lost"])
def test_plogis_that_cross_theirs_counts(theirs_to_ours):
    wire, port, _fc4 = a_port(INITIATOR)
    port.login(OTHER, wire.now)
    (ours,) = wire.take()
    wire.give(OTHER, plogi(GREATER).pack())
    answer, request = wire.take()
    assert (answer.payload[0], request.payload[0]) == (ElsCommand.LS_ACC, ElsCommand.PRLI)
    if theirs_to_ours == "accepted":
        accept(wire, ours, dataclasses.replace(plogi(GREATER), command=ElsCommand.LS_ACC).pack())
    elif theirs_to_ours == "refused":
        accept(wire, ours, Reject(Reason.COMMAND_ALREADY_IN_PROGRESS).pack())
    accept(
        wire,
        request,
        dataclasses.replace(
            prli(TARGET), command=ElsCommand.LS_ACC, pages=(ServicePage(flags=0x2100, parameters=TARGET),)
        ).pack(),
    )
    assert port.remotes[OTHER].state is State.READY
    wire.pass_time(60.0)
    assert port.remotes[OTHER].state is State.READY


@pytest.mark.parametrize("name", [GREATER, NAME])
def test_ls_acc_of_another_port_than_in_discovery(name):
    wire, port, _fc4 = a_port()
    port.remote_up(OTHER, LESSER, THEIR_NODE, wire.now)
    (request,) = wire.take()
    accept(wire, request, dataclasses.replace(plogi(name), command=ElsCommand.LS_ACC).pack())
    assert port.remotes[OTHER].state is State.WAIT
    assert port.remotes[OTHER].port_name == LESSER


def test_a_name_that_discovery_has_at_another_address():
    wire, port, fc4 = a_port()
    port.remote_up(OTHER, GREATER, THEIR_NODE, wire.now)
    pair(wire, OTHER, GREATER)
    reply = wire.ask(OTHER + 1, plogi(GREATER).pack())
    assert rejection(reply) == (Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME)
    assert port.remotes[OTHER].ready
    assert len(fc4.events) == 1


@pytest.mark.parametrize("r_ctl, fc_type", [(0x22, 0x01), (0x32, 0x08), (0x02, 0x20)])
def test_requests_of_the_responder_of_an_exchange(r_ctl, fc_type):
    wire, port, _fc4 = a_port()
    wire.give(OTHER, plogi().pack(), r_ctl=r_ctl, fc_type=fc_type, f_ctl=F_CTL_REQUEST | 0x800000)
    assert wire.take() == []
    assert port.remotes == {}
    assert wire.counters.unknown_exchange == 1


def test_discovery_and_plogi_have_to_agree():
    wire, port, _fc4 = a_port()
    port.remote_up(OTHER, GREATER, THEIR_NODE, wire.now)
    assert rejection(wire.ask(OTHER, plogi(LESSER).pack())) == (Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME)


# PRLI


def test_prli_makes_an_image_pair():
    wire, port, fc4 = a_port()
    log_in(wire)
    (page,) = ProcessLogin.parse(wire.ask(OTHER, prli().pack())).pages
    assert (page.type, page.flags, page.parameters) == (FcType.FCP, 0x2100, TARGET)
    assert fc4.events == [("login", OTHER, INITIATOR)]
    assert port.remotes[OTHER].parameters == INITIATOR


def test_prli_again_is_a_new_image_pair():
    wire, _port, fc4 = a_port()
    pair(wire)
    wire.ask(OTHER, prli().pack())
    assert [event[0] for event in fc4.events] == ["login", "logout", "login"]


def test_prli_without_plogi():
    wire, port, fc4 = a_port()
    assert rejection(wire.ask(OTHER, prli().pack())) == (Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED)
    assert fc4.events == []
    assert port.remotes == {}


@pytest.mark.parametrize("answer, response", [(False, PrliResponse.NOT_POSSIBLE), (PrliResponse.NO_RESOURCES, 2)])
def test_prli_that_the_fc4_refuses(answer, response):
    wire, port, fc4 = a_port()
    fc4.answer = answer
    log_in(wire)
    (page,) = ProcessLogin.parse(wire.ask(OTHER, prli().pack())).pages
    assert page.response == response
    assert not page.flags & 0x2000
    assert port.remotes[OTHER].state is State.LOGGED_IN
    wire.give(OTHER, bytes(32), r_ctl=RCtl.UNSOLICITED_COMMAND, fc_type=FcType.FCP)
    assert fc4.frames == []
    assert wire.take()[0].payload[0] == ElsCommand.PRLO
    fc4.answer = True
    (page,) = ProcessLogin.parse(wire.ask(OTHER, prli().pack())).pages
    assert page.response == PrliResponse.EXECUTED


def test_pages_of_prli():
    """Of another FC-4: refused by page. Without the image pair bit: told, and nothing established."""
    wire, port, fc4 = a_port()
    log_in(wire)
    pages = (ServicePage(type=0x28), ServicePage(type_extension=1), ServicePage(flags=0, parameters=INITIATOR))
    replied = ProcessLogin.parse(wire.ask(OTHER, ProcessLogin(ElsCommand.PRLI, pages).pack())).pages
    assert [page.response for page in replied] == [PrliResponse.INVALID_PARAMETERS, PrliResponse.INVALID_PARAMETERS, 1]
    assert [page.flags & 0x2000 for page in replied] == [0, 0, 0]
    assert replied[2].parameters == TARGET
    assert fc4.events == []
    assert port.remotes[OTHER].state is State.LOGGED_IN


@pytest.mark.parametrize(
    "payload",
    [
        bytes((0x20, 0x10, 0, 20)),
        bytes((0x20, 0x10, 0, 4)) + bytes(16),
        bytes((0x20, 0x10, 0, 36)) + bytes(16),
        bytes((0x20, 0x0C, 0, 16)) + bytes(16),
        bytes((0x20, 0x10, 0, 19)) + bytes(16),
        bytes((0x20, 0x10, 0xFF, 0xFF)) + bytes(16),
    ],
)
def test_prli_with_lengths_that_lie(payload):
    wire, _port, fc4 = a_port()
    log_in(wire)
    assert rejection(wire.ask(OTHER, payload)) == (Reason.PROTOCOL_ERROR, Explanation.INVALID_PAYLOAD_LENGTH)
    assert fc4.events == []


def prli_sent() -> tuple[Wire, NPort, NotingFc4, object]:
    wire, port, fc4 = a_port(INITIATOR)
    port.login(OTHER, wire.now)
    (request,) = wire.take()
    accept(wire, request, dataclasses.replace(plogi(), command=ElsCommand.LS_ACC).pack())
    (request,) = wire.take()
    assert request.payload[0] == ElsCommand.PRLI
    assert ProcessLogin.parse(request.payload).pages == (ServicePage(parameters=INITIATOR),)
    return wire, port, fc4, request


def prli_accept(flags: int = 0x2100, **changes: int) -> bytes:
    return ProcessLogin(ElsCommand.LS_ACC, (ServicePage(flags=flags, parameters=TARGET, **changes),)).pack()


def test_prlis_that_cross_both_count():
    wire, port, fc4, request = prli_sent()
    (page,) = ProcessLogin.parse(wire.ask(OTHER, prli(TARGET).pack())).pages
    assert page.response == PrliResponse.EXECUTED
    assert port.remotes[OTHER].ready
    accept(wire, request, prli_accept())
    assert fc4.events == [("login", OTHER, TARGET)] * 2
    assert port.remotes[OTHER].ready


def test_prli_that_fails_after_theirs_changes_nothing():
    wire, port, fc4, request = prli_sent()
    wire.ask(OTHER, prli(TARGET).pack())
    accept(wire, request, Reject(Reason.UNABLE_TO_PERFORM).pack())
    wire.pass_time(60.0)
    assert port.remotes[OTHER].ready
    assert fc4.events == [("login", OTHER, TARGET)]


@pytest.mark.parametrize(
    "answer, attempts",
    [
        (prli_accept(0x0100), 1),
        (prli_accept(0x0500), 1),
        (prli_accept(0x0300), 3),
        (prli_accept(0x2100, type=0x28), 1),
        (Reject(Reason.LOGICAL_BUSY).pack(), 3),
        (Reject(Reason.LOGICAL_ERROR).pack(), 1),
        (b"\x02\0\0\0", 3),
    ],
)
def test_prli_that_is_refused(answer, attempts):
    wire, port, fc4, request = prli_sent()
    for attempt in range(attempts):
        accept(wire, request, answer)
        wire.pass_time(3.0)
        sent = wire.take()
        assert len(sent) == (attempt < attempts - 1)
        if sent:
            request = sent[0]
    assert port.remotes[OTHER].state is State.LOGGED_IN
    assert fc4.events == []


def test_prli_refused_since_they_have_forgotten_us():
    wire, port, _fc4, request = prli_sent()
    accept(wire, request, Reject(Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED).pack())
    assert port.remotes[OTHER].state is State.IDLE
    wire.pass_time(2.5)
    assert wire.take()[0].payload[0] == ElsCommand.PLOGI


def test_prli_accepted_but_not_by_our_fc4():
    wire, port, fc4, request = prli_sent()
    fc4.answer = False
    accept(wire, request, prli_accept())
    assert port.remotes[OTHER].state is State.LOGGED_IN
    assert port.logins.image_pairs == {}


# PRLO, LOGO


def test_prlo():
    wire, port, fc4 = a_port()
    pair(wire)
    prlo = ProcessLogin(ElsCommand.PRLO, (ServicePage(flags=0), ServicePage(type=0x28, flags=0)))
    replied = ProcessLogin.parse(wire.ask(OTHER, prlo.pack())).pages
    assert [page.response for page in replied] == [PrliResponse.EXECUTED, PrliResponse.NO_SUCH_IMAGE]
    assert fc4.events[-1] == ("logout", OTHER, "process logout")
    assert port.remotes[OTHER].state is State.LOGGED_IN
    (page,) = ProcessLogin.parse(wire.ask(OTHER, ProcessLogin(ElsCommand.PRLO, (ServicePage(flags=0),)).pack())).pages
    assert page.response == PrliResponse.NO_SUCH_IMAGE


def test_prlo_of_ours():
    wire, port, fc4 = a_port()
    pair(wire)
    port.process_logout(port.remotes[OTHER], wire.now)
    (request,) = wire.take()
    assert ProcessLogin.parse(request.payload).command == ElsCommand.PRLO
    assert fc4.events[-1] == ("logout", OTHER, "process logout")
    assert port.remotes[OTHER].state is State.LOGGED_IN


def test_the_fabric_logs_out_in_fip():
    """Outside of it LOGO of the F_Port is refused, and changes nothing (FC-BB-5 7.5)."""
    wire, port, _fc4 = a_port()
    pair(wire)
    rejected = Reject.parse(wire.ask(0xFFFFFE, Logo(0xFFFFFE, LESSER).pack()))
    assert rejected.reason == Reason.FIP_ERROR
    assert port.remotes[OTHER].ready


def test_an_initiator_pairs_again_after_prlo():
    wire, _port, _fc4, request = prli_sent()
    accept(wire, request, prli_accept())
    wire.ask(OTHER, ProcessLogin(ElsCommand.PRLO, (ServicePage(flags=0),)).pack())
    wire.pass_time(2.5)
    assert wire.take()[0].payload[0] == ElsCommand.PRLI


def test_logo():
    wire, port, fc4 = a_port()
    pair(wire)
    assert Plain.parse(wire.ask(OTHER, Logo(OTHER, LESSER).pack())).command == ElsCommand.LS_ACC
    assert fc4.events[-1] == ("logout", OTHER, "logged out")
    assert port.remotes == {}
    # a stranger's is accepted too: it is logged out
    assert wire.ask(OTHER, Logo(OTHER, LESSER).pack())[0] == ElsCommand.LS_ACC
    assert port.remotes == {}


def test_an_initiator_logs_in_again_after_logo():
    wire, port, fc4, request = prli_sent()
    accept(wire, request, prli_accept())
    wire.ask(OTHER, Logo(OTHER, LESSER).pack())
    assert fc4.events[-1][0] == "logout"
    wire.pass_time(2.5)
    assert wire.take()[0].payload[0] == ElsCommand.PLOGI
    assert port.remotes[OTHER].state is State.PLOGI


def test_logo_of_ours():
    wire, port, fc4 = a_port()
    pair(wire)
    port.logout(port.remotes[OTHER], wire.now)
    (request,) = wire.take()
    assert Logo.parse(request.payload) == Logo(OWN, NAME)
    assert fc4.events[-1] == ("logout", OTHER, "we log out")
    assert port.remotes == {}
    accept(wire, request, Plain().pack())
    wire.pass_time(100.0)
    assert wire.take() == []


def test_stop_logs_out_of_everybody():
    wire, port, fc4 = a_port()
    pair(wire)
    log_in(wire, OTHER + 1, GREATER)
    port.stop(wire.now)
    assert [(frame.d_id, frame.payload[0]) for frame in wire.take()] == [(OTHER, 5), (OTHER + 1, 5)]
    assert fc4.events[-1] == ("logout", OTHER, "we log out")


@pytest.mark.parametrize("state", [State.WAIT, State.IDLE])
def test_stop_tries_nothing_more(state):
    """Not the PLOGI that was to be repeated either."""
    wire, port, _fc4, request = prli_sent()
    if state is State.IDLE:
        wire.ask(OTHER, Logo(OTHER, LESSER).pack())
    else:
        port.remote_up(OTHER + 1, LESSER[:-1] + b"\x77", THEIR_NODE, wire.now)
        accept(wire, wire.take()[0], Reject(Reason.LOGICAL_BUSY).pack())
        accept(wire, request, Reject(Reason.LOGICAL_BUSY).pack())
    assert state in {remote.state for remote in port.remotes.values()}
    port.stop(wire.now)
    wire.take()
    wire.pass_time(100.0)
    assert wire.take() == []
    assert len(port.timers) == 0


def test_down_tells_nobody_and_leaves_nothing():
    wire, port, fc4, request = prli_sent()
    accept(wire, request, prli_accept())
    port.login(OTHER + 1, wire.now)
    assert len(wire.take()) == 1
    port.down("link down", wire.now)
    assert port.remotes == {}
    assert fc4.events[-1] == ("logout", OTHER, "link down")
    assert len(port.exchanges) == len(port.timers) == len(port.aborts) == len(port.sequences) == 0
    wire.pass_time(100.0)
    assert wire.take() == []


# FCP without login


def command(wire: Wire, s_id: int = OTHER, **options: int) -> None:
    wire.give(s_id, bytes(32), r_ctl=RCtl.UNSOLICITED_COMMAND, fc_type=FcType.FCP, **options)


def test_fcp_goes_to_the_fc4():
    wire, _port, fc4 = a_port()
    pair(wire)
    command(wire, ox_id=0x1234)
    assert fc4.frames == [(OTHER, 0x1234, bytes(32))]


def test_fcp_without_plogi_is_answered_with_logo():
    """FCP-4: discarded, and LOGO; but once in E_D_TOV."""
    wire, _port, fc4 = a_port()
    for _ in range(1000):
        command(wire)
    (request,) = wire.take()
    assert Logo.parse(request.payload) == Logo(OWN, NAME)
    assert wire.counters.not_logged_in == 1000
    assert fc4.frames == []
    wire.pass_time(2.5)
    command(wire)
    assert len(wire.take()) == 1


def test_fcp_without_prli_is_answered_with_prlo():
    wire, _port, fc4 = a_port()
    log_in(wire)
    for _ in range(3):
        command(wire)
    (request,) = wire.take()
    assert request.payload[0] == ElsCommand.PRLO
    assert wire.counters.no_image_pair == 3
    assert fc4.frames == []


def test_strangers_are_answered_within_reason():
    """10,000 addresses that send FCP out of the blue: so many LOGOs, and no memory of the rest."""
    wire, port, _fc4 = a_port()
    pair(wire)
    for number in range(10_000):
        command(wire, 0x20000 + number)
    assert len(wire.take()) == 64
    assert len(port.exchanges) == 64
    wire.pass_time(100.0)
    assert len(port.exchanges) == len(port.aborts) == 0


# Other ELS


def test_requests_that_need_a_login():
    wire, _port, _fc4 = a_port()
    for request in (
        Adisc(LESSER, THEIR_NODE, OTHER),
        dataclasses.replace(plogi(), command=ElsCommand.PDISC),
        ProcessLogin(ElsCommand.PRLO, (ServicePage(flags=0),)),
        Plain(ElsCommand.RTV),
        Rls(),
        ExchangeQuery(OTHER, 1, 2, ElsCommand.RRQ),
        ExchangeQuery(OTHER, 1, 2, ElsCommand.REC),
    ):
        assert rejection(wire.ask(OTHER, request.pack())) == (Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED)


def test_adisc():
    wire, port, fc4 = a_port()
    pair(wire)
    assert Adisc.parse(wire.ask(OTHER, Adisc(LESSER, THEIR_NODE, OTHER).pack())) == Adisc(
        NAME, NODE, OWN, command=ElsCommand.LS_ACC
    )
    assert port.remotes[OTHER].ready
    assert rejection(wire.ask(OTHER, Adisc(GREATER, THEIR_NODE, OTHER).pack())) == (
        Reason.UNABLE_TO_PERFORM,
        Explanation.N_PORT_LOGIN_REQUIRED,
    )
    assert fc4.events[-1][0] == "logout"


def test_pdisc_changes_nothing():
    wire, port, fc4 = a_port()
    pair(wire)
    reply = Login.parse(wire.ask(OTHER, dataclasses.replace(plogi(), command=ElsCommand.PDISC).pack()))
    assert (reply.command, reply.port_name) == (ElsCommand.LS_ACC, NAME)
    assert port.remotes[OTHER].ready
    assert len(fc4.events) == 1
    wire.ask(OTHER, dataclasses.replace(plogi(GREATER), command=ElsCommand.PDISC).pack())
    assert fc4.events[-1][0] == "logout"


def test_rtv():
    wire, _port, _fc4 = a_port()
    log_in(wire)
    assert TimeoutValues.parse(wire.ask(OTHER, Plain(ElsCommand.RTV).pack())) == TimeoutValues(10_000, 2000)


def test_rls_tells_the_counters_of_fcoe():
    wire, _port, _fc4 = a_port()
    log_in(wire)
    wire.counters.link_failures = 3
    wire.counters.virtual_link_failures = 2
    wire.counters.missed_keep_alives = 1 << 32 | 5
    assert LinkErrorStatus.parse(wire.ask(OTHER, Rls().pack())) == LinkErrorStatus(3, 2, 5)
    assert wire.ask(OTHER, Rls(OWN).pack())[0] == ElsCommand.LS_ACC
    assert rejection(wire.ask(OTHER, Rls(OTHER).pack())) == (Reason.UNABLE_TO_PERFORM, Explanation.INVALID_N_PORT_ID)


def test_rnid():
    wire, _port, _fc4 = a_port()
    found = NodeIdentification.parse(wire.ask(OTHER, Rnid().pack()))
    assert (found.port_name, found.node_name, found.data_format, found.specific) == (NAME, NODE, 0, b"")
    found = NodeIdentification.parse(wire.ask(OTHER, Rnid(RNID_TOPOLOGY).pack()))
    assert (found.data_format, found.specific_length, len(found.specific)) == (RNID_TOPOLOGY, 52, 52)
    assert found.specific[16:20] == b"\0\0\0\x09"
    assert NodeIdentification.parse(wire.ask(OTHER, Rnid(0x42).pack())).data_format == 0


@pytest.mark.parametrize("length", [0, 1, 100, 2108])
def test_echo_comes_back(length):
    wire, _port, _fc4 = a_port()
    log_in(wire)
    data = bytes(index & 0xFF for index in range(length))
    wire.give(OTHER, Echo(data).pack())
    replies = wire.take()
    got = b"".join(bytes(frame.payload) for frame in replies)
    assert got == b"\x02\0\0\0" + data
    assert len(replies) == (2 if length > 2044 else 1)  # it takes 2048 bytes in a frame
    assert [frame.seq_cnt for frame in replies] == list(range(len(replies)))
    assert [(frame.sof, frame.eof) for frame in replies] == (
        [(SOF_I3, EOF_T)] if len(replies) == 1 else [(SOF_I3, EOF_N), (SOF_N3, EOF_T)]
    )
    assert len({frame.seq_id for frame in replies}) == 1


def test_test_is_not_answered():
    wire, _port, _fc4 = a_port()
    wire.give(OTHER, Echo(b"whatever", ElsCommand.TEST).pack())
    assert wire.take() == []
    assert wire.counters.els_in == 1


def test_rec():
    wire, _port, fc4 = a_port()
    pair(wire)
    fc4.known.add(0x1234)
    reply = wire.ask(OTHER, ExchangeQuery(OTHER, 0x1234, 0xFFFF, ElsCommand.REC).pack())
    assert ExchangeStatus.parse(reply) == ExchangeStatus(0x1234, 0x77, OTHER, OWN, 4096, E_STAT_RESPONDER)
    unknown = ExchangeQuery(OTHER, 0x1235, 0xFFFF, ElsCommand.REC).pack()
    assert rejection(wire.ask(OTHER, unknown)) == (Reason.LOGICAL_ERROR, Explanation.INVALID_OX_ID_RX_ID)
    anothers = ExchangeQuery(OTHER + 1, 0x1234, 0xFFFF, ElsCommand.REC).pack()
    assert rejection(wire.ask(OTHER, anothers)) == (Reason.LOGICAL_ERROR, Explanation.INVALID_ORIGINATOR_S_ID)


def test_srr_is_the_fc4s():
    wire, _port, fc4 = a_port()
    request = Srr(1, 2, 4096, 1).pack()
    options = {"r_ctl": RCtl.FC4_LINK_REQUEST, "fc_type": FcType.FCP}
    assert rejection(wire.ask(OTHER, request, **options)) == (Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED)
    pair(wire)
    assert wire.ask(OTHER, request, **options) == Plain().pack()
    assert fc4.events[-1] == ("srr", OTHER, request)
    assert rejection(wire.ask(OTHER, b"\x55\0\0\0", **options)) == (
        Reason.COMMAND_NOT_SUPPORTED,
        Explanation.REQUEST_NOT_SUPPORTED,
    )


NOT_OURS = [0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x24, 0x54, 0x56, 0x57, 0x63, 0x70, 0x79, 0x7A, 0x90]


@pytest.mark.parametrize("code", NOT_OURS)
def test_commands_that_we_do_not_do(code):
    wire, _port, _fc4 = a_port()
    reply = wire.ask(OTHER, bytes((code,)) + bytes(63))
    assert rejection(reply) == (Reason.COMMAND_NOT_SUPPORTED, Explanation.REQUEST_NOT_SUPPORTED)


@pytest.mark.parametrize("payload", [dataclasses.replace(plogi(), command=ElsCommand.FLOGI), Scr(), Srr(1, 2, 0, 1)])
def test_commands_that_are_for_others(payload):
    wire, _port, _fc4 = a_port()
    reply = wire.ask(OTHER, payload.pack())
    assert rejection(reply) == (Reason.COMMAND_NOT_SUPPORTED, Explanation.REQUEST_NOT_SUPPORTED)


@pytest.mark.parametrize("code", [0x00, 0x01, 0x02, 0x4F, 0xFF])
def test_codes_that_are_no_request(code):
    wire, _port, _fc4 = a_port()
    assert rejection(wire.ask(OTHER, bytes((code,)) + bytes(63))) == (Reason.INVALID_COMMAND_CODE, Explanation.NONE)


REQUESTS = [
    plogi(),
    prli(),
    Adisc(LESSER, THEIR_NODE, OTHER),
    Logo(OTHER, LESSER),
    Rls(),
    Rnid(),
    ExchangeQuery(OTHER, 1, 2, ElsCommand.REC),
    ExchangeQuery(OTHER, 1, 2, ElsCommand.RRQ),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: f"{type(each).__name__}{each.command:x}")
def test_requests_cut_at_every_byte(request_):
    """What is shorter than its table is refused, and changes nothing."""
    whole = request_.pack()
    for length in range(len(whole)):
        wire, port, fc4 = a_port()
        pair(wire)
        reason, explanation = rejection(wire.ask(OTHER, whole[:length]))
        assert (reason, explanation) == (Reason.PROTOCOL_ERROR, Explanation.INVALID_PAYLOAD_LENGTH)
        assert port.remotes[OTHER].ready
        assert len(fc4.events) == 1


def test_ct_requests_are_for_servers():
    wire, _port, _fc4 = a_port()
    reply = wire.ask(OTHER, bytes(16), r_ctl=RCtl.UNSOLICITED_CONTROL, fc_type=FcType.COMMON_TRANSPORT)
    assert reply[8:10] == b"\x80\x01"
    assert reply[13] == 0x0D  # server not available


def test_rscn_without_a_fabric():
    wire, _port, _fc4 = a_port()
    log_in(wire)
    for s_id in (OTHER, WellKnownAddress.FABRIC_CONTROLLER):
        reply = wire.ask(s_id, Rscn(((0, OTHER),)).pack())
        assert rejection(reply) == (Reason.UNABLE_TO_PERFORM, Explanation.INVALID_ORIGINATOR_S_ID)


def test_nothing_is_sent_where_there_is_no_way():
    wire, port, _fc4 = a_port()
    wire.reachable = False
    wire.give(OTHER, plogi().pack())
    assert not wire.outbox
    assert wire.counters.fcoe_no_route == 1
    assert port.remotes == {}


def test_a_full_outbox_takes_no_more_answers():
    wire, _port, _fc4 = a_port()
    wire.outbox.extend([b""] * 8193)
    wire.give(OTHER, plogi().pack())
    assert len(wire.outbox) == 8193
    assert wire.counters.congested == 1
