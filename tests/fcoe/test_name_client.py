"""An N_Port behind a fabric: it registers, finds others, and hears of changes; our own FCF is the fabric."""

from __future__ import annotations

import dataclasses

import pytest
from support.fcoe_port import OTHER, OWN, a_port, accept, plogi
from support.fcoe_stations import INITIATOR, TARGET, Segment, station_of
from tcm_fcoe.protocol.ct import CtReason, parse_iu, reject
from tcm_fcoe.protocol.ct import accept as ct_accept
from tcm_fcoe.protocol.ct_names import (
    ByPort,
    Name,
    NameServerCommand,
    PortIds,
    RegisterFeatures,
    RegisterName,
    RegisterTypes,
    fc4_types,
    parse_request,
)
from tcm_fcoe.protocol.els import Adisc, Logo, Plain, Reject, Rscn
from tcm_fcoe.protocol.els_codes import ElsCommand, Reason
from tcm_fcoe.protocol.els_responder import LOGIN_BURST
from tcm_fcoe.protocol.name_client import CONTROLLER, DIRECTORY, STEPS, VERIFYING_LIMIT
from tcm_fcoe.protocol.remote_port import State

ACCEPTED = dataclasses.replace(plogi(), command=ElsCommand.LS_ACC).pack()


def registered(parameters: int = TARGET, *, refuse: frozenset[str] = frozenset()):
    """A port that has gone all the steps, and the requests that it has sent."""
    wire, port, fc4 = a_port(parameters, fabric=True)
    requests = []
    for step in STEPS:
        (frame,) = wire.take()
        assert frame.d_id == step.server
        requests.append(frame)
        if frame.type == 0x20:
            answer = reject(CtReason.UNABLE_TO_PERFORM) if step.name in refuse else ct_accept()
            accept(wire, frame, answer.pack())
        elif step.name == "PLOGI":
            accept(wire, frame, ACCEPTED)
        else:
            accept(wire, frame, (Reject(Reason.COMMAND_NOT_SUPPORTED) if step.name in refuse else Plain()).pack())
    return wire, port, fc4, requests


def test_a_target_registers():
    wire, port, _fc4, requests = registered()
    assert port.name_client.registered
    assert wire.take() == []
    asked = [parse_request(parse_iu(frame.payload)) for frame in requests if frame.type == 0x20]
    assert RegisterName(OWN, port.node_name) in asked
    assert RegisterTypes(OWN, fc4_types((8,))) in asked
    assert RegisterFeatures(OWN, 1) in asked
    assert [frame.r_ctl for frame in requests] == [0x22, 2, 2, 2, 2, 2, 0x22]
    assert wire.counters.ct_out == 5


def test_what_cannot_be_registered_is_not_missed():
    names = frozenset(step.name for step in STEPS if not step.required)
    wire, port, _fc4, _requests = registered(refuse=names)
    assert port.name_client.registered
    assert wire.counters.ct_refused == 5


@pytest.mark.parametrize("answer", ["refused", "none"])
def test_plogi_to_the_directory_server_is_insisted_on(answer):
    wire, port, _fc4 = a_port(fabric=True)
    for _ in range(5):
        frame = wire.take()[-1]
        assert (frame.d_id, frame.payload[0]) == (DIRECTORY, ElsCommand.PLOGI)
        if answer == "refused":
            accept(wire, frame, Reject(Reason.LOGICAL_BUSY).pack())
            wire.pass_time(10.1)
        else:
            wire.pass_time(70.1)
    assert port.name_client.step == "PLOGI"
    port.down("link down", wire.now)
    wire.take()
    wire.pass_time(200.0)
    assert wire.take() == []


def test_a_service_that_logs_us_out_is_logged_in_again():
    wire, port, _fc4, _requests = registered()
    wire.give(DIRECTORY, Logo(DIRECTORY, bytes(7) + b"\1").pack())
    acknowledged, request = wire.take()
    assert acknowledged.payload[0] == ElsCommand.LS_ACC
    assert (request.d_id, request.payload[0]) == (DIRECTORY, ElsCommand.PLOGI)
    assert port.name_client.step == "PLOGI"


def found(*fc_ids: int):
    """An initiator that was told of these ports, and its PLOGIs."""
    wire, port, fc4, _requests = registered(INITIATOR)
    (query,) = wire.take()
    assert parse_iu(query.payload).code == NameServerCommand.GID_FT
    accept(wire, query, ct_accept(PortIds(fc_ids).pack()).pack())
    return wire, port, fc4, wire.take()


def test_an_initiator_finds_others():
    wire, port, _fc4, logins = found(OTHER, OWN, OTHER + 1)
    assert [(frame.d_id, frame.payload[0]) for frame in logins] == [(OTHER, 3), (OTHER + 1, 3)]
    for frame in logins:
        accept(wire, frame, dataclasses.replace(plogi(frame.d_id.to_bytes(8, "big")), command=ElsCommand.LS_ACC).pack())
    assert [frame.payload[0] for frame in wire.take()] == [ElsCommand.PRLI] * 2
    assert port.remotes[OTHER].state is State.PRLI


def test_nobody_is_registered_yet():
    wire, port, _fc4, _requests = registered(INITIATOR)
    (query,) = wire.take()
    accept(wire, query, reject(CtReason.UNABLE_TO_PERFORM).pack())
    assert wire.take() == []
    wire.give(CONTROLLER, Rscn(((0, OTHER),)).pack())
    acknowledged, query = wire.take()
    assert acknowledged.payload[0] == ElsCommand.LS_ACC
    accept(wire, query, ct_accept(PortIds((OTHER,)).pack()).pack())
    assert [frame.d_id for frame in wire.take()] == [OTHER]
    assert wire.counters.rscn_in == 1
    assert list(port.remotes) == [OTHER]


def test_a_query_without_an_answer_is_repeated():
    wire, _port, _fc4, _requests = registered(INITIATOR)
    wire.take()
    wire.pass_time(71.0)
    frame = wire.take()[-1]
    assert parse_iu(frame.payload).code == NameServerCommand.GID_FT


@pytest.mark.parametrize("answer", [ct_accept(b"\0").pack(), ct_accept(b"").pack(), b"", bytes(16)])
def test_answers_to_a_query_that_say_nothing(answer):
    wire, port, _fc4, _requests = registered(INITIATOR)
    (query,) = wire.take()
    accept(wire, query, answer)
    assert port.remotes == {}
    wire.pass_time(11.0)


def rscn(wire, fc_id: int, kind: int = 0):
    wire.give(CONTROLLER, Rscn(((kind, fc_id),)).pack())
    frames = wire.take()
    assert frames[0].payload[0] == ElsCommand.LS_ACC
    return {parse_iu(frame.payload).code: frame for frame in frames[1:]}


def paired_target():
    wire, port, fc4, _requests = registered()
    wire.give(OTHER, plogi().pack())
    (query,) = wire.take()
    accept(wire, query, ct_accept(Name(plogi().port_name).pack()).pack())
    wire.give(OTHER, bytes.fromhex("20100014 08002000 00000000 00000000 00000022"))
    assert len(wire.take()) == 2
    assert port.remotes[OTHER].ready
    return wire, port, fc4


def test_plogi_has_the_name_that_the_directory_says():
    """Who has the fabric's leave to come in as itself does not come in as another, logged in or not."""
    wire, port, _fc4 = paired_target()
    remote = port.remotes[OTHER]
    wire.give(OTHER + 1, plogi().pack())
    wire.give(OTHER + 1, plogi().pack())  # once more while the directory is being asked: one question, one answer
    (query,) = wire.take()
    assert parse_request(parse_iu(query.payload)) == ByPort(OTHER + 1)
    accept(wire, query, ct_accept(Name(plogi().port_name[::-1]).pack()).pack())
    (answer,) = wire.take()
    assert (answer.d_id, answer.payload[0]) == (OTHER + 1, ElsCommand.LS_RJT)
    assert list(port.remotes.values()) == [remote]
    assert remote.ready
    assert wire.counters.plogi_refused == 1


@pytest.mark.parametrize("answer", ["refused", "none"])
def test_plogi_when_the_directory_does_not_say(answer):
    wire, port, _fc4, _requests = registered()
    wire.give(OTHER, plogi().pack())
    if answer == "refused":
        accept(wire, wire.take()[0], reject(CtReason.UNABLE_TO_PERFORM).pack())
    else:
        wire.pass_time(3 * port.e_d_tov + 0.1)
    assert wire.take()[-1].payload[0] == ElsCommand.LS_ACC
    assert port.remotes[OTHER].logged_in


def test_a_storm_of_plogi_asks_within_limits():
    """Who is not asked about is told that we are busy; when the port goes down nothing is left of it."""
    wire, port, _fc4, _requests = registered()
    for number in range(LOGIN_BURST):
        wire.give(OTHER + number, plogi().pack())
        wire.pass_time(0.004)
    assert len(wire.take()) == VERIFYING_LIMIT
    wire.give(OTHER + VERIFYING_LIMIT, plogi().pack())
    (refusal,) = wire.take()
    assert refusal.payload[0] == ElsCommand.LS_RJT
    port.down("link down", wire.now)
    wire.pass_time(100)
    assert wire.take() == []
    assert not port.remotes


def test_rscn_of_a_port_that_is_gone():
    wire, port, fc4 = paired_target()
    asked = rscn(wire, OTHER)
    query = asked[NameServerCommand.GPN_ID]
    assert parse_request(parse_iu(query.payload)) == ByPort(OTHER)
    accept(wire, query, reject(CtReason.UNABLE_TO_PERFORM).pack())
    assert port.remotes == {}
    assert fc4.events[-1] == ("logout", OTHER, "the fabric says it is gone")


@pytest.mark.parametrize("same", [True, False])
def test_rscn_of_a_port_that_is_there(same):
    wire, port, _fc4 = paired_target()
    name = port.remotes[OTHER].port_name
    query = rscn(wire, 0x010000, kind=2)[NameServerCommand.GPN_ID]
    accept(wire, query, ct_accept(Name(name if same else name[::-1]).pack()).pack())
    assert (OTHER in port.remotes) is same
    assert wire.take() == []


def test_rscn_of_another_area():
    wire, _port, _fc4 = paired_target()
    assert rscn(wire, 0x020000, kind=1) == {}


def test_an_initiator_asks_whether_it_is_known():
    """ADISC after RSCN: who has forgotten us is logged in again."""
    wire, port, fc4, logins = found(OTHER)
    accept(wire, logins[0], ACCEPTED)
    (request,) = wire.take()
    accept(wire, request, bytes.fromhex("02100014 08002100 00000000 00000000 00000012"))
    assert port.remotes[OTHER].ready
    for forgotten in (False, True):
        asked = rscn(wire, OTHER)
        accept(wire, asked[NameServerCommand.GID_FT], ct_accept(PortIds((OTHER,)).pack()).pack())
        remote = port.remotes[OTHER]
        accept(wire, asked[NameServerCommand.GPN_ID], ct_accept(Name(remote.port_name).pack()).pack())
        (adisc,) = wire.take()
        assert Adisc.parse(adisc.payload) == Adisc(port.port_name, port.node_name, OWN)
        if forgotten:
            accept(wire, adisc, Reject(Reason.UNABLE_TO_PERFORM, 0x1E).pack())
        else:
            accept(wire, adisc, Adisc(remote.port_name, remote.node_name, OTHER, command=ElsCommand.LS_ACC).pack())
            assert port.remotes[OTHER] is remote
            assert remote.ready
    assert fc4.events[-1][0] == "logout"
    assert [frame.payload[0] for frame in wire.take()] == [ElsCommand.PLOGI]


def test_a_storm_of_rscn_asks_no_more_than_it_has_to():
    """While one query is under way there is no second one; then there is one more."""
    wire, _port, _fc4, _requests = registered(INITIATOR)
    (query,) = wire.take()
    for _ in range(1000):
        wire.give(CONTROLLER, Rscn(((3, 0),)).pack())
    frames = wire.take()
    assert len(frames) == 1000  # each was accepted
    accept(wire, query, ct_accept(PortIds(()).pack()).pack())
    assert len(wire.take()) == 1


def test_a_storm_of_rscn_asks_of_eachport_once():
    wire, port, _fc4 = paired_target()
    for _ in range(1000):
        wire.give(CONTROLLER, Rscn(((3, 0),)).pack())
    asked = [frame for frame in wire.take() if frame.type == 0x20]
    assert len(asked) == 1
    accept(wire, asked[0], reject(CtReason.UNABLE_TO_PERFORM).pack())  # an answer from before the last change
    (query,) = wire.take()
    accept(wire, query, ct_accept(Name(port.remotes[OTHER].port_name).pack()).pack())
    assert wire.take() == []
    assert port.remotes[OTHER].ready


# With a fabric


def test_a_target_in_the_switch_and_an_initiator_behind_it():
    target, target_port, target_fc4 = station_of(0x100, TARGET, mode="fcf")
    initiator, initiator_port, initiator_fc4 = station_of(0x200, INITIATOR, mode="fabric")
    segment = Segment(target, initiator)
    segment.up(30.0)
    assert initiator_port.name_client.registered
    assert initiator_port.remotes[target_port.fc_id].ready
    assert target_port.remotes[initiator_port.fc_id].ready
    assert [event[0] for event in target_fc4.events] == ["login"]
    initiator.link_down(segment.now)
    target.controller.link_down(segment.now)
    assert [event[0] for event in target_fc4.events] == ["login", "logout"]
    assert [event[0] for event in initiator_fc4.events] == ["login", "logout"]


def test_two_behind_a_switch_and_one_leaves():
    switch, _port, _fc4 = station_of(0x100, TARGET, mode="fcf")
    target, target_port, target_fc4 = station_of(0x300, TARGET, mode="fabric")
    initiator, initiator_port, initiator_fc4 = station_of(0x200, INITIATOR, mode="fabric")
    segment = Segment(switch, target, initiator)
    segment.up(30.0)
    assert initiator_port.remotes[target_port.fc_id].ready
    gone = target_port.fc_id
    target.stop(segment.now)
    segment.run(5.0)
    assert gone not in initiator_port.remotes or not initiator_port.remotes[gone].ready
    assert initiator_fc4.events[-1][0] == "logout"
    target.link_down(segment.now)
    target.link_up(segment.now)
    segment.run(60.0)
    assert initiator_port.remotes[target_port.fc_id].ready
    assert target_fc4.events[-1][:2] == ("login", initiator_port.fc_id)


@pytest.mark.parametrize("numbers", [(0x100, 0x200), (0x200, 0x100)])
def test_point_to_point(numbers):
    target, target_port, _fc4 = station_of(numbers[0], TARGET, mode="p2p")
    initiator, initiator_port, _fc4_2 = station_of(numbers[1], INITIATOR, mode="p2p")
    segment = Segment(target, initiator)
    segment.up(30.0)
    assert initiator_port.remotes[target_port.fc_id].ready
    assert target_port.remotes[initiator_port.fc_id].ready
