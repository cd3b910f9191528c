"""Exchanges and sequences: replies, retransmission, ABTS both ways, RRQ, what never ends (FC-FS-3 clauses 12, 13, 16, 22).

Longer than most files because one table of states has all its stories in one place.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fcoe_port import OTHER, OWN, Wire, a_port, pair, rejection
from support.fcoe_stations import INITIATOR
from tcm_fcoe.protocol.basic import UNKNOWN_EXCHANGE, Abts, BasicAccept, BasicReject
from tcm_fcoe.protocol.counters import Counters
from tcm_fcoe.protocol.els import Echo, ExchangeQuery, Plain, Reject
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.exchange import FC4_OX_IDS, LINK_SERVICE_OX_IDS
from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, SOF_I3, SOF_N3
from tcm_fcoe.protocol.frame import (
    F_CTL_END_SEQUENCE,
    F_CTL_EXCHANGE_RESPONDER,
    F_CTL_FIRST_SEQUENCE,
    F_CTL_RELATIVE_OFFSET,
    F_CTL_REPLY,
    F_CTL_REQUEST,
    NO_EXCHANGE,
    FcType,
    Frame,
    RCtl,
)
from tcm_fcoe.protocol.limits import Limits
from tcm_fcoe.protocol.sequence import Sequences
from tcm_fcoe.protocol.timers import Timers

ABTS_F_CTL = 0x090000
REPLY_F_CTL = 0x980000


def abts(wire: Wire, ox_id: int, *, parameter: int = 0) -> Frame:
    """ABTS from a remote port: the frame that answers it."""
    options = {"ox_id": ox_id, "seq_id": 5, "seq_cnt": 1, "parameter": parameter}
    wire.give(OTHER, b"", r_ctl=RCtl.BASIC_ABTS, fc_type=0, f_ctl=ABTS_F_CTL, **options)
    (frame,) = wire.take()
    return frame


# Requests and replies


def echo(wire: Wire, port, replies: list[bytes | None], **options: int) -> Frame:
    port.request(OTHER, Echo(b"data"), lambda reply, _now: replies.append(reply), wire.now, **options)
    (frame,) = wire.take()
    return frame


def test_a_reply_ends_the_exchange():
    wire, port, _fc4 = a_port()
    replies: list[bytes | None] = []
    frame = echo(wire, port, replies)
    assert frame.ox_id in LINK_SERVICE_OX_IDS
    assert (frame.rx_id, frame.f_ctl) == (NO_EXCHANGE, F_CTL_REQUEST)
    for _ in range(2):  # the second one is of an exchange that is not there
        wire.give(OTHER, b"\x02\0\0\0data", r_ctl=0x23, f_ctl=REPLY_F_CTL, ox_id=frame.ox_id)
    assert replies == [b"\x02\0\0\0data"]
    assert wire.counters.unknown_exchange == 1
    assert len(port.exchanges) == len(port.timers) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"ox_id": 0x0FFE},
        {"f_ctl": 0x180000},
        {"r_ctl": 0x33, "fc_type": 0x08},
        {"r_ctl": 0x03, "fc_type": 0x20},
        {"s_id": OTHER + 1},
    ],
)
def test_replies_to_nothing_that_was_asked(wrong):
    wire, port, _fc4 = a_port()
    replies: list[bytes | None] = []
    frame = echo(wire, port, replies)
    options = {"r_ctl": 0x23, "f_ctl": REPLY_F_CTL, "ox_id": frame.ox_id, **wrong}
    wire.give(options.pop("s_id", OTHER), b"\x02\0\0\0", **options)
    assert replies == []
    assert wire.counters.unknown_exchange == 1
    assert len(port.exchanges) == 1


def test_a_reply_of_several_frames():
    wire, port, _fc4 = a_port()
    replies: list[bytes | None] = []
    frame = echo(wire, port, replies)
    parts = [b"\x02\0\0\0", b"abcd", b"ef"]
    for seq_cnt, part in enumerate(parts):
        last = seq_cnt == len(parts) - 1
        wire.give(
            OTHER,
            part,
            r_ctl=0x23,
            f_ctl=REPLY_F_CTL if last else F_CTL_EXCHANGE_RESPONDER,
            ox_id=frame.ox_id,
            seq_id=9,
            seq_cnt=seq_cnt,
            sof=SOF_N3 if seq_cnt else SOF_I3,
            eof=EOF_T if last else EOF_N,
        )
    assert replies == [b"\x02\0\0\0abcdef"]


def test_a_request_without_a_reply_is_aborted_and_sent_again():
    wire, port, _fc4 = a_port()
    replies: list[bytes | None] = []
    first = echo(wire, port, replies)
    wire.pass_time(20.0)
    abort, second = wire.take()
    assert (abort.r_ctl, abort.type, abort.ox_id, abort.rx_id, abort.f_ctl) == (0x81, 0, first.ox_id, NO_EXCHANGE, ABTS_F_CTL)
    assert second.ox_id != first.ox_id
    assert bytes(second.payload) == Echo(b"data").pack()
    wire.give(OTHER, b"\x02\0\0\0", r_ctl=0x23, f_ctl=REPLY_F_CTL, ox_id=first.ox_id)  # too late
    assert replies == []
    wire.give(OTHER, b"\x02\0\0\0", r_ctl=0x23, f_ctl=REPLY_F_CTL, ox_id=second.ox_id)
    assert replies == [b"\x02\0\0\0"]
    assert (wire.counters.els_timed_out, wire.counters.els_retried, wire.counters.abts_out) == (1, 1, 1)


def test_nobody_answers():
    wire, port, _fc4 = a_port()
    replies: list[bytes | None] = []
    echo(wire, port, replies)
    wire.pass_time(59.0)
    assert replies == []
    wire.pass_time(2.0)
    assert replies == [None]
    wire.pass_time(100.0)
    assert len(port.exchanges) == len(port.aborts) == len(port.timers) == 0
    kinds = [frame.r_ctl for frame in wire.take()]
    assert kinds.count(RCtl.EXTENDED_LINK_REQUEST) == 2
    assert kinds.count(RCtl.BASIC_ABTS) == 6  # each twice


def test_more_requests_than_there_are_exchange_ids():
    """Nothing breaks, and each has its answer in the end."""
    wire, port, _fc4 = a_port()
    replies: list[bytes | None] = []
    for _ in range(5000):
        port.request(OTHER, Plain(ElsCommand.RTV), lambda reply, _now: replies.append(reply), wire.now, attempts=1)
        wire.outbox.clear()
    assert len(port.exchanges) == len(LINK_SERVICE_OX_IDS)
    wire.pass_time(200.0)
    assert replies == [None] * 5000
    assert len(port.exchanges) == len(port.aborts) == 0


def test_cancel():
    wire, port, _fc4 = a_port()
    replies: list[bytes | None] = []
    request = port.request(OTHER, Echo(b""), lambda reply, _now: replies.append(reply), wire.now)
    wire.take()
    port.exchanges.cancel(request, wire.now)
    assert [frame.r_ctl for frame in wire.take()] == [RCtl.BASIC_ABTS]
    port.exchanges.cancel(request, wire.now)
    wire.pass_time(200.0)
    assert replies == []


# ABTS that we send


def aborted(wire: Wire, port, ox_id: int = FC4_OX_IDS.start) -> tuple[list[object], list[float], Frame]:
    answers: list[object] = []
    released: list[float] = []
    port.aborts.abort(
        OTHER,
        ox_id,
        0x77,
        wire.now,
        seq_id=3,
        seq_cnt=4,
        answered=lambda reply, _now: answers.append(reply),
        released=released.append,
    )
    (frame,) = wire.take()
    return answers, released, frame


def basic(wire: Wire, payload: bytes, *, accept: bool = True, **options: int) -> None:
    values = {"f_ctl": REPLY_F_CTL, "ox_id": FC4_OX_IDS.start, "rx_id": 0x77, **options}
    wire.give(values.pop("s_id", OTHER), payload, r_ctl=RCtl.BASIC_ACC if accept else RCtl.BASIC_RJT, fc_type=0, **values)


def test_abts_accepted_then_rrq():
    """BA_ACC; R_A_TOV later RRQ; then the OX_ID is free (FC-FS-3 clause 22)."""
    wire, port, _fc4 = a_port(INITIATOR)
    answers, released, frame = aborted(wire, port)
    assert (frame.seq_id, frame.seq_cnt, frame.rx_id, frame.sof, frame.eof) == (3, 4, 0x77, SOF_N3, EOF_T)
    accept = BasicAccept(FC4_OX_IDS.start, 0x77)
    basic(wire, accept.pack())
    assert answers == [accept]
    assert released == []
    wire.pass_time(9.9)
    assert wire.take() == []
    wire.pass_time(0.2)
    (rrq,) = wire.take()
    assert ExchangeQuery.parse(rrq.payload) == ExchangeQuery(OWN, FC4_OX_IDS.start, 0x77, ElsCommand.RRQ)
    assert released == []
    wire.give(OTHER, Plain().pack(), r_ctl=0x23, f_ctl=REPLY_F_CTL, ox_id=rrq.ox_id)
    assert len(released) == 1
    assert len(port.aborts) == len(port.timers) == 0


def test_rrq_without_an_answer_is_the_end_of_it():
    wire, port, _fc4 = a_port(INITIATOR)
    _answers, released, _frame = aborted(wire, port)
    basic(wire, BasicAccept(FC4_OX_IDS.start, 0x77).pack())
    wire.pass_time(200.0)
    assert [frame.r_ctl for frame in wire.take()] == [RCtl.EXTENDED_LINK_REQUEST]
    assert len(released) == 1
    assert len(port.aborts) == len(port.timers) == 0


def test_abts_refused():
    wire, port, _fc4 = a_port(INITIATOR)
    answers, released, _frame = aborted(wire, port)
    basic(wire, UNKNOWN_EXCHANGE.pack(), accept=False)
    assert answers == [UNKNOWN_EXCHANGE]
    wire.pass_time(11.0)
    assert wire.take() == []  # no RRQ
    assert len(released) == 1


def test_abts_without_an_answer():
    wire, port, _fc4 = a_port(INITIATOR)
    answers, released, _frame = aborted(wire, port)
    wire.pass_time(20.1)
    assert [frame.r_ctl for frame in wire.take()] == [RCtl.BASIC_ABTS]
    assert answers == []
    wire.pass_time(20.1)
    assert answers == [None]
    assert len(released) == 1


@pytest.mark.parametrize(
    "payload, options",
    [
        (b"", {}),
        (BasicAccept(FC4_OX_IDS.start, 0x77).pack()[:11], {}),
        (BasicAccept(FC4_OX_IDS.start + 1, 0x77).pack(), {}),
        (BasicAccept(FC4_OX_IDS.start, 0x77).pack(), {"s_id": OTHER + 1}),
        (BasicAccept(FC4_OX_IDS.start, 0x77).pack(), {"ox_id": 0x2000}),
        (BasicAccept(FC4_OX_IDS.start, 0x77).pack(), {"rx_id": 0x78}),
        (BasicAccept(FC4_OX_IDS.start, 0x77).pack(), {"f_ctl": 0x180000}),
        (b"\0\3\3", {"accept": False}),
    ],
)
def test_answers_to_abts_that_cannot_be(payload, options):
    wire, port, _fc4 = a_port(INITIATOR)
    answers, _released, _frame = aborted(wire, port)
    basic(wire, payload, **options)
    assert answers == []
    assert wire.counters.unknown_exchange == 1


def test_an_exchange_is_aborted_once():
    wire, port, _fc4 = a_port(INITIATOR)
    aborted(wire, port)
    port.aborts.abort(OTHER, FC4_OX_IDS.start, 0x77, wire.now)
    assert wire.take() == []


# ABTS that we get


def test_abts_goes_to_the_fc4():
    wire, port, fc4 = a_port()
    pair(wire)
    fc4.known.add(0x1234)
    frame = abts(wire, 0x1234)
    assert (frame.r_ctl, frame.f_ctl) == (RCtl.BASIC_ACC, REPLY_F_CTL)
    assert (frame.ox_id, frame.rx_id, frame.seq_id) == (0x1234, 0x77, 5)
    assert BasicAccept.parse(frame.payload) == BasicAccept(0x1234, 0x77)
    assert fc4.events[-1] == ("abort", OTHER, 0x1234)
    assert len(port.qualifiers) == 1


def test_abts_answered_later():
    wire, port, fc4 = a_port()
    pair(wire)
    fc4.known.add(0x1234)
    fc4.answers_late = True
    wire.give(OTHER, b"", r_ctl=RCtl.BASIC_ABTS, fc_type=0, f_ctl=ABTS_F_CTL, ox_id=0x1234)
    assert wire.take() == []
    fc4.late[0](BasicAccept(0x1234, 0x77))
    (frame,) = wire.take()
    assert frame.r_ctl == RCtl.BASIC_ACC
    assert len(port.qualifiers) == 1


def test_abts_answered_after_a_logout():
    """Nothing is sent any more, and nothing is kept."""
    wire, port, fc4 = a_port()
    pair(wire)
    fc4.known.add(0x1234)
    fc4.answers_late = True
    wire.give(OTHER, b"", r_ctl=RCtl.BASIC_ABTS, fc_type=0, f_ctl=ABTS_F_CTL, ox_id=0x1234)
    port.remote_down(OTHER, "gone", wire.now)
    fc4.late[0](BasicAccept(0x1234, 0x77))
    assert wire.take() == []
    assert len(port.qualifiers) == 0


def test_abts_once_more():
    """BA_ACC was lost: the same again, or the originator would use the OX_ID before the recovery qualifier has ended."""
    wire, port, fc4 = a_port()
    pair(wire)
    fc4.known.add(0x1234)
    first = abts(wire, 0x1234)
    fc4.known.clear()
    wire.pass_time(5)
    again = abts(wire, 0x1234)
    assert (again.r_ctl, bytes(again.payload), again.rx_id) == (RCtl.BASIC_ACC, bytes(first.payload), 0x77)
    assert len(port.qualifiers) == 1
    wire.give(OTHER, b"", r_ctl=RCtl.BASIC_ABTS, fc_type=0, f_ctl=ABTS_F_CTL, ox_id=0x1234, rx_id=0x78)
    assert [frame.r_ctl for frame in wire.take()] == [RCtl.BASIC_RJT]
    assert wire.ask(OTHER, ExchangeQuery(OTHER, 0x1234, 0x77, ElsCommand.RRQ).pack()) == Plain().pack()
    assert abts(wire, 0x1234).r_ctl == RCtl.BASIC_RJT


@pytest.mark.parametrize("logged_in", [True, False])
def test_abts_of_an_exchange_that_is_not_there(logged_in):
    wire, port, _fc4 = a_port()
    if logged_in:
        pair(wire)
    frame = abts(wire, 0x4321)
    assert frame.r_ctl == RCtl.BASIC_RJT
    assert BasicReject.parse(frame.payload) == UNKNOWN_EXCHANGE
    assert len(port.qualifiers) == 0
    assert wire.counters.abts_rejected == 1


def test_what_was_aborted_is_not_listened_to_until_rrq():
    wire, port, fc4 = a_port()
    pair(wire)
    fc4.known.add(0x1234)
    abts(wire, 0x1234)
    command = {"r_ctl": RCtl.UNSOLICITED_COMMAND, "fc_type": FcType.FCP}
    wire.give(OTHER, bytes(32), ox_id=0x1234, **command)
    assert fc4.frames == []
    assert wire.counters.recovery_qualifier == 1
    wire.give(OTHER, bytes(32), ox_id=0x1235, **command)
    assert len(fc4.frames) == 1
    wrong = ExchangeQuery(OTHER, 0x1234, 0x78, ElsCommand.RRQ).pack()
    assert rejection(wire.ask(OTHER, wrong)) == (Reason.LOGICAL_ERROR, Explanation.INVALID_OX_ID_RX_ID)
    anothers = ExchangeQuery(OTHER + 1, 0x1234, 0x77, ElsCommand.RRQ).pack()
    assert rejection(wire.ask(OTHER, anothers)) == (Reason.LOGICAL_ERROR, Explanation.INVALID_ORIGINATOR_S_ID)
    right = ExchangeQuery(OTHER, 0x1234, 0x77, ElsCommand.RRQ).pack()
    assert wire.ask(OTHER, right) == Plain().pack()
    wire.give(OTHER, bytes(32), ox_id=0x1234, **command)
    assert len(fc4.frames) == 2
    assert rejection(wire.ask(OTHER, right)) == (Reason.LOGICAL_ERROR, Explanation.INVALID_OX_ID_RX_ID)
    assert len(port.qualifiers) == len(port.timers) == 0


def test_a_recovery_qualifier_ends_without_rrq_too():
    wire, port, fc4 = a_port()
    pair(wire)
    fc4.known.add(0x1234)
    abts(wire, 0x1234)
    wire.pass_time(20.1)
    assert len(port.qualifiers) == 0


def test_abts_of_a_sequence_leaves_the_exchange():
    wire, port, fc4 = a_port()
    pair(wire)
    fc4.known.add(0x1234)
    assert abts(wire, 0x1234, parameter=1).r_ctl == RCtl.BASIC_ACC
    assert len(port.qualifiers) == 0


def test_ten_thousand_aborted_exchanges():
    wire, port, fc4 = a_port(limits=Limits(recovery_qualifiers=100))
    pair(wire)
    for ox_id in range(10_000):
        fc4.known.add(ox_id)
        assert abts(wire, ox_id).r_ctl == RCtl.BASIC_ACC
    assert len(port.qualifiers) == 100
    assert len(port.timers) == 100


def test_a_logout_ends_all_of_it():
    wire, port, fc4 = a_port()
    pair(wire)
    fc4.known.add(0x1234)
    abts(wire, 0x1234)
    wire.give(OTHER, b"half", f_ctl=F_CTL_FIRST_SEQUENCE, eof=EOF_N)
    port.request(OTHER, Echo(b""), lambda _reply, _now: None, wire.now)
    wire.take()
    assert len(port.sequences) == len(port.qualifiers) == len(port.exchanges) == 1
    port.remote_down(OTHER, "gone", wire.now)
    assert len(port.sequences) == len(port.qualifiers) == len(port.exchanges) == len(port.timers) == 0


# Sequences


def part(wire: Wire, data: bytes, seq_cnt: int, *, first: bool = False, last: bool = False, **options: int) -> None:
    values = {"seq_id": 1, "ox_id": 0x55, **options}
    wire.give(
        values.pop("s_id", OTHER),
        data,
        f_ctl=values.pop("f_ctl", F_CTL_REQUEST if last else F_CTL_FIRST_SEQUENCE),
        seq_cnt=seq_cnt,
        sof=SOF_I3 if first else SOF_N3,
        eof=EOF_T if last else EOF_N,
        **values,
    )


def test_a_request_of_several_frames():
    wire, _port, _fc4 = a_port()
    data = Echo(bytes(range(100))).pack()
    part(wire, data[:40], 0, first=True)
    part(wire, data[40:80], 1)
    part(wire, data[80:], 2, last=True)
    (reply,) = wire.take()
    assert bytes(reply.payload) == b"\x02" + data[1:]


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_frames_in_another_order(order):
    """The first one that comes has to begin the sequence; the others may come as they like."""
    wire, port, _fc4 = a_port()
    data = Echo(bytes(range(100))).pack()
    for index in order:
        part(wire, data[index * 40 : index * 40 + 40], index, first=index == 0, last=index == 2)
    if order[0] == 0:
        (reply,) = wire.take()
        assert bytes(reply.payload) == b"\x02" + data[1:]
    else:
        assert wire.take() == []
        assert wire.counters.unknown_sequence >= 1
        wire.pass_time(3.0)
    assert len(port.sequences) == len(port.timers) == 0


def test_a_sequence_that_goes_past_the_last_count():
    wire, _port, _fc4 = a_port()
    data = Echo(bytes(range(100))).pack()
    for index in range(3):
        part(wire, data[index * 40 : index * 40 + 40], 0xFFFE + index & 0xFFFF, first=index == 0, last=index == 2)
    assert len(wire.take()) == 1


def test_frames_that_go_on_with_nothing():
    wire, port, _fc4 = a_port()
    part(wire, b"data", 1)
    part(wire, b"data", 2, last=True)
    assert wire.counters.unknown_sequence == 2
    assert len(port.sequences) == 0


def test_a_sequence_that_is_never_completed():
    wire, port, _fc4 = a_port()
    part(wire, b"data", 0, first=True)
    wire.pass_time(1.9)
    part(wire, b"data", 1)
    wire.pass_time(1.9)
    assert len(port.sequences) == 1
    wire.pass_time(0.2)
    assert len(port.sequences) == 0
    assert wire.counters.sequences_timed_out == 1
    part(wire, b"data", 2, last=True)
    assert wire.take() == []


def test_a_sequence_that_never_ends():
    wire, port, _fc4 = a_port()
    part(wire, bytes(2112), 0, first=True)
    for seq_cnt in range(1, 1000):
        part(wire, bytes(2112), seq_cnt)
    assert wire.counters.sequences_too_long == 1
    assert wire.counters.unknown_sequence == 1000 - 32
    assert len(port.sequences) == len(port.timers) == 0


def test_a_sequence_of_empty_frames_that_never_ends():
    wire, port, _fc4 = a_port()
    part(wire, b"", 0, first=True)
    for seq_cnt in range(1, 5000):
        part(wire, b"", seq_cnt)
    assert wire.counters.sequences_too_long == 1
    assert len(port.sequences) == 0


def test_ten_thousand_open_sequences():
    """8 of a port, 64 of all; what is beyond is refused, and others' requests in one frame are answered all the same."""
    wire, port, _fc4 = a_port()
    for number in range(100):
        for seq_id in range(100):
            part(wire, b"data", 0, first=True, s_id=0x20000 + number, ox_id=seq_id, seq_id=seq_id)
    assert len(port.sequences) == 64
    assert wire.counters.sequences_refused == 10_000 - 64
    pair(wire)
    wire.pass_time(3.0)
    assert len(port.sequences) == 0


@pytest.mark.parametrize(
    "frames",
    [
        [(0, "first"), (1, ""), (1, "")],
        [(0, "first"), (1, "first")],
        [(0, "first"), (2, "last"), (3, "last")],
        [(0, "first"), (5, ""), (2, "last"), (1, "")],
    ],
)
def test_counts_that_contradict_each_other(frames):
    wire, port, _fc4 = a_port()
    for seq_cnt, place in frames:
        part(wire, b"data", seq_cnt, first=place == "first", last=place == "last")
    wire.pass_time(3.0)
    assert wire.counters.sequences_wrong + wire.counters.sequences_timed_out == 1
    assert wire.take() == []
    assert len(port.sequences) == len(port.timers) == 0


def test_a_sequence_id_that_is_used_again():
    wire, port, _fc4 = a_port()
    part(wire, b"data", 0, first=True)
    part(wire, Echo(b"new!").pack(), 0, first=True, last=True)
    assert len(wire.take()) == 1
    assert len(port.sequences) == 0


@pytest.mark.parametrize(
    "offsets, good", [((0, 40, 80), True), ((7, 47, 87), True), ((0, 40, 84), False), ((0, 44, 80), False)]
)
def test_relative_offsets_have_to_fit(offsets, good):
    wire, _port, _fc4 = a_port()
    data = Echo(bytes(range(100))).pack()
    for index, offset in enumerate(offsets):
        f_ctl = (F_CTL_REQUEST if index == 2 else F_CTL_FIRST_SEQUENCE) | F_CTL_RELATIVE_OFFSET
        part(wire, data[index * 40 : index * 40 + 40], index, first=index == 0, last=index == 2, f_ctl=f_ctl, parameter=offset)
    assert len(wire.take()) == good
    assert wire.counters.sequences_wrong == (not good)


@pytest.mark.parametrize("f_ctl, eof", [(F_CTL_REQUEST, EOF_N), (F_CTL_FIRST_SEQUENCE, EOF_T)])
def test_end_of_sequence_and_eof_have_to_agree(f_ctl, eof):
    """EOFt ends a sequence, and nothing else does (FC-FS-3 clause 12)."""
    wire, port, _fc4 = a_port()
    wire.give(OTHER, Echo(b"").pack(), f_ctl=f_ctl, eof=eof)
    assert wire.take() == []
    assert wire.counters.bad_eof == 1
    assert len(port.sequences) == 0


def test_abts_of_a_request_that_is_not_complete():
    wire, port, _fc4 = a_port()
    part(wire, b"data", 0, first=True)
    frame = abts(wire, 0x55)
    assert frame.r_ctl == RCtl.BASIC_ACC
    assert len(port.sequences) == 0
    part(wire, b"data", 1, last=True)
    assert wire.take() == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.integers(4, 64), st.integers(0, 0xFFFF), st.randoms(use_true_random=False))
def test_any_sequence_is_put_together(data: bytes, size: int, first: int, rng: random.Random):
    """In any order that begins with the first frame, with others' frames in between."""
    timers, counters = Timers(), Counters()
    sequences = Sequences(timers, counters, Limits())
    parts = [data[start : start + size] for start in range(0, len(data), size)] or [b""]

    def frame(index: int) -> Frame:
        made = Frame()
        made.s_id, made.ox_id, made.seq_id = 1, 2, 3
        made.seq_cnt = first + index & 0xFFFF
        last = index == len(parts) - 1
        made.f_ctl = F_CTL_END_SEQUENCE if last else 0
        made.sof = SOF_N3 if index else SOF_I3
        made.eof = EOF_T if last else EOF_N
        made.parameter = 0
        made.payload = memoryview(parts[index])
        return made

    order = list(range(1, len(parts)))
    rng.shuffle(order)
    found = []
    for index in [0, *order]:
        joined = sequences.receive(frame(index), 0.0)
        if joined is not None:
            found.append(joined)
    assert found == [data]
    assert len(sequences) == len(timers) == 0


# Timers


@settings(max_examples=200)
@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=300))
def test_timers_run_once_in_order_unless_cancelled(wanted: list[tuple[float, bool]]):
    timers, ran = Timers(), []
    made = [timers.set(when, lambda _now, when=when: ran.append(when)) for when, _cancel in wanted]
    for timer, (_when, cancel) in zip(made, wanted, strict=True):
        if cancel:
            timer.cancel()
            timer.cancel()
    expected = sorted(when for when, cancel in wanted if not cancel)
    assert len(timers) == len(expected)
    assert timers.next == (expected[0] if expected else float("inf"))
    timers.run(50.0)
    assert ran == [when for when in expected if when <= 50.0]
    timers.run(100.0)
    assert ran == expected
    assert len(timers) == 0
    for timer in made:
        timer.cancel()
    assert len(timers) == 0


def test_a_timer_that_sets_itself_does_not_run_for_ever():
    timers, ran = Timers(), []

    def again(now: float) -> None:
        ran.append(now)
        timers.set(now, again)

    timers.set(1.0, again)
    timers.run(2.0)
    assert ran == [2.0]
    timers.run(3.0)
    assert ran == [2.0, 3.0]


def test_a_timer_may_cancel_another_that_is_due():
    timers, ran = Timers(), []
    other = timers.set(2.0, lambda _now: ran.append("other"))
    timers.set(1.0, lambda _now: other.cancel())
    timers.run(3.0)
    assert ran == []
    assert len(timers) == 0
    assert timers.next == float("inf")


# Codecs


SHORT = st.integers(0, 0xFFFF)


@given(SHORT, SHORT, SHORT, SHORT, st.booleans(), st.integers(0, 255))
def test_ba_acc_and_ba_rjt(ox_id, rx_id, low, high, valid, seq_id):
    accept = BasicAccept(ox_id, rx_id, low, high, valid, seq_id)
    assert BasicAccept.parse(accept.pack()) == accept
    assert len(accept.pack()) == 12
    reject = BasicReject(seq_id, 3, 7)
    assert BasicReject.parse(reject.pack()) == reject
    assert reject.pack() == bytes((0, seq_id, 3, 7))


def test_abts_has_a_key():
    assert Abts(1, 2, 3, 4, 5, from_responder=False).key == (1, 2, 3)
    assert F_CTL_REPLY == REPLY_F_CTL
    assert Reject(1).pack()[0] == 1
