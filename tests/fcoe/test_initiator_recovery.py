"""What the initiator does about lost frames, against a target that is played by hand (FCP-4 clause 12)."""

from __future__ import annotations

import pytest
from support.fcp_by_hand import OURS, ByHand
from tcm_fcoe.initiator.options import Options, Recovery
from tcm_fcoe.initiator.results import TargetLost, TaskAborted
from tcm_fcoe.protocol import link_service_layers as services

from tcm.scsi.cdb import read_16, write_16

DATA = bytes(range(256)) * 32
PATIENCE = Recovery(rec_timeout=1.0, gap_timeout=0.1, command_timeout=0)
COMPLETE, THEIR_INITIATIVE = 0xA0000000, 0xC0000000
OUR_INITIATIVE = 0x80000000


@pytest.fixture
def hand():
    return ByHand(Options(recovery=PATIENCE))


def rec_answer(hand, rec, command, status, transferred=0):
    body = services.RecAccept(
        ox_id=command.ox_id, rx_id=7, originator=OURS, responder=0xFC00, transferred=transferred, status=status
    )
    hand.answer(rec, body)


def asked(hand, seconds=1.2):
    """The REC that comes after so long."""
    hand.wait(seconds)
    rec = hand.take_one()
    assert (rec.r_ctl, rec.type, rec.payload[0]) == (0x22, 1, 0x13)
    return rec


def requested(hand):
    """The SRR that follows: R_CTL and offset."""
    srr = hand.take_one()
    assert (srr.r_ctl, srr.type, srr.payload[0]) == (0x32, 8, 0x14)
    assert int.from_bytes(srr.payload[6:8], "big") == 7
    hand.answer(srr, services.Els(code=2))
    return srr.payload[12], int.from_bytes(srr.payload[8:12], "big")


def test_who_is_at_work_is_left_alone(hand):
    task = hand.start(read_16(0, 1), read_length=512)
    command = hand.take_one()
    rec = asked(hand)
    assert (rec.payload[5:8], int.from_bytes(rec.payload[8:10], "big")) == (OURS.to_bytes(3, "big"), command.ox_id)
    rec_answer(hand, rec, command, THEIR_INITIATIVE)
    assert hand.take() == []
    rec_answer(hand, asked(hand), command, THEIR_INITIATIVE)
    hand.data(command, 0, DATA[:512], last=True)
    hand.respond(command)
    assert bytes(task.result.data) == DATA[:512]
    assert (hand.fcp.counters.recs, hand.fcp.counters.srrs) == (2, 0)


def test_a_lost_response_is_asked_for(hand):
    task = hand.start(read_16(0, 1), read_length=512)
    command = hand.take_one()
    hand.data(command, 0, DATA[:512], last=True)
    rec_answer(hand, asked(hand), command, COMPLETE, 512)
    assert requested(hand) == (7, 0)
    hand.respond(command)
    assert task.result.good
    assert task.result.recoveries == 1


def test_lost_data_and_response(hand):
    """The first gap decides where the target begins again."""
    task = hand.start(read_16(0, 4), read_length=2048)
    command = hand.take_one()
    hand.data(command, 0, DATA[:512])
    hand.data(command, 1024, DATA[1024:1536])
    rec_answer(hand, asked(hand), command, COMPLETE, 2048)
    assert requested(hand) == (1, 512)
    hand.data(command, 512, DATA[512:1024])
    hand.data(command, 1024, DATA[1024:1536])
    hand.data(command, 1536, DATA[1536:2048], last=True)
    hand.respond(command)
    assert bytes(task.result.data) == DATA[:2048]


def test_lost_data_shows_in_the_response(hand):
    """No REC is needed: what is missing once late frames have had their time is asked for at once."""
    task = hand.start(read_16(0, 2), read_length=1024)
    command = hand.take_one()
    hand.data(command, 512, DATA[512:1024], last=True)
    hand.respond(command, flags="conf_req")
    hand.wait(0.05)
    assert hand.take() == []
    hand.wait(0.15)
    assert requested(hand) == (1, 0)
    hand.data(command, 0, DATA[:512])
    assert bytes(task.result.data) == DATA[:1024]
    assert hand.take_one().r_ctl == 3
    assert hand.fcp.counters.recs == 0


def test_a_lost_transfer_ready(hand):
    task = hand.start(write_16(0, 2), data_out=DATA[:1024])
    command = hand.take_one()
    rec_answer(hand, asked(hand), command, OUR_INITIATIVE, 0)
    assert requested(hand) == (5, 0)
    hand.ready(command, 0, 1024)
    hand.take_one()
    hand.respond(command)
    assert task.result.good


def test_lost_write_data(hand):
    """The target has 512 bytes of 1024, and not the end of the burst: it asks again from there."""
    task = hand.start(write_16(0, 2), data_out=DATA[:1024])
    command = hand.take_one()
    hand.ready(command, 0, 1024)
    hand.take()
    rec_answer(hand, asked(hand), command, OUR_INITIATIVE, 512)
    assert requested(hand) == (5, 512)
    hand.ready(command, 512, 512, seq_id=2)
    again = hand.take_one()
    assert (again.parameter, bytes(again.payload)) == (512, DATA[512:1024])
    hand.respond(command)
    assert task.result.good


def test_a_lost_response_to_a_write(hand):
    task = hand.start(write_16(0, 2), data_out=DATA[:1024])
    command = hand.take_one()
    hand.ready(command, 0, 1024)
    hand.take()
    rec_answer(hand, asked(hand), command, COMPLETE, 1024)
    assert requested(hand) == (7, 0)
    hand.respond(command)
    assert task.result.good


def test_a_lost_command_is_sent_again_in_a_new_exchange(hand):
    """REC is refused: the target knows nothing of it. The old exchange is aborted first, should it only be late."""
    task = hand.start(write_16(0, 1), data_out=DATA[:512])
    command = hand.take_one()
    hand.answer(asked(hand), services.LsRjt(reason=3, explanation=0x17))
    abts = hand.take_one()
    assert (abts.r_ctl, abts.ox_id) == (0x81, command.ox_id)
    body = services.BaRjt(reason=3, explanation=3)
    hand.send(body, r_ctl=0x85, type=0, f_ctl=0x990000, ox_id=abts.ox_id, rx_id=0xFFFF)
    again = hand.take_one()
    assert again.ox_id != command.ox_id
    assert again.payload[9:] == command.payload[9:]
    assert (command.payload[8], again.payload[8]) == (2, 3)
    hand.ready(again, 0, 512)
    hand.take_one()
    hand.respond(again)
    assert (task.result.good, task.result.retries) == (True, 1)


def test_a_response_that_crosses_the_question(hand):
    """LS_RJT to REC for a command whose response is already here, or about to be, changes nothing."""
    task = hand.start(read_16(0, 1), read_length=512)
    command = hand.take_one()
    rec = asked(hand)
    hand.data(command, 0, DATA[:512], last=True)
    hand.answer(rec, services.LsRjt(reason=3, explanation=0x17))
    assert hand.take() == []
    hand.respond(command)
    assert task.result.good
    other = hand.start(read_16(0, 1), read_length=512)
    command = hand.take_one()
    rec = asked(hand)
    hand.data(command, 0, DATA[:512], last=True)
    hand.respond(command)
    hand.answer(rec, services.LsRjt(reason=3, explanation=0x17))
    assert other.result.good
    assert hand.take() == []


def test_a_lost_rec_or_srr_is_sent_again(hand):
    task = hand.start(read_16(0, 1), read_length=512)
    command = hand.take_one()
    hand.data(command, 0, DATA[:512], last=True)
    asked(hand)
    for patience in (4.5, 20):
        hand.wait(patience)
        rec = [frame for frame in hand.take() if frame.r_ctl == 0x22][-1]
        rec_answer(hand, rec, command, COMPLETE, 512)
        (srr,) = [frame for frame in hand.take() if frame.r_ctl == 0x32]
    hand.answer(srr, services.Els(code=2))
    hand.respond(command)
    assert task.result.good


def test_an_answer_that_was_overtaken_says_nothing(hand):
    """REC told what was, and then FCP_XFER_RDY came: nothing is lost. Nor does a refusal of SRR mean that."""
    task = hand.start(write_16(0, 2), data_out=DATA[:1024])
    command = hand.take_one()
    rec = asked(hand)
    hand.wait(0.1)
    hand.ready(command, 0, 1024)
    hand.take_one()
    rec_answer(hand, rec, command, OUR_INITIATIVE, 0)
    assert hand.take() == []
    rec_answer(hand, asked(hand, 2.2), command, OUR_INITIATIVE, 512)
    hand.answer(hand.take_one(), services.LsRjt(reason=9, explanation=0x2A))
    assert hand.take() == []
    rec_answer(hand, asked(hand, 9), command, COMPLETE, 1024)
    assert requested(hand) == (7, 0)
    hand.respond(command)
    assert task.result.good


def test_busy_is_asked_later(hand):
    hand.start(read_16(0, 1), read_length=512)
    hand.take_one()
    hand.answer(asked(hand), services.LsRjt(reason=5))
    hand.wait(0.9)
    assert hand.take() == []
    asked(hand, 0.3)


def test_a_refused_srr_aborts_and_begins_again(hand):
    task = hand.start(read_16(0, 2), read_length=1024)
    command = hand.take_one()
    hand.data(command, 512, DATA[512:1024], last=True)
    hand.respond(command)
    hand.wait(0.2)
    srr = hand.take_one()
    hand.answer(srr, services.LsRjt(reason=3, explanation=0x17))
    abts = hand.take_one()
    accept(hand, abts)
    again = hand.take_one()
    hand.data(again, 0, DATA[:1024], last=True)
    hand.respond(again)
    assert bytes(task.result.data) == DATA[:1024]
    assert task.result.retries == 1


def accept(hand, abts):
    body = services.BaAcc(ox_id=abts.ox_id, rx_id=7)
    hand.send(body, r_ctl=0x84, type=0, f_ctl=0x990000, ox_id=abts.ox_id, rx_id=7)


def test_without_retry_a_silent_exchange_is_aborted():
    """PRLI without RETRY: no REC, ABTS at once; the command again, as often as it may."""
    hand = ByHand(Options(recovery=Recovery(rec_timeout=1.0, command_timeout=0, retries=1)), parameters=0x12)
    task = hand.start(read_16(0, 1), read_length=512)
    hand.take_one()
    for left in (True, False):
        hand.wait(1.2)
        abts = hand.take_one()
        assert abts.r_ctl == 0x81
        accept(hand, abts)
        assert task.finished is not left
        if left:
            hand.take_one()
    assert isinstance(task.error, TaskAborted)


def test_patience_ends(hand):
    """REC after REC that brings nothing: the exchange is given up."""
    hand = ByHand(Options(recovery=Recovery(rec_timeout=1.0, command_timeout=0, attempts=3, retries=0)))
    task = hand.start(write_16(0, 1), data_out=DATA[:512])
    command = hand.take_one()
    frames = []
    for _ in range(60):
        hand.wait(0.5)
        for frame in hand.take():
            frames.append(frame)
            if frame.r_ctl == 0x22 and frame.payload[0] == 0x13:
                rec_answer(hand, frame, command, OUR_INITIATIVE)
            elif frame.r_ctl == 0x32:
                hand.answer(frame, services.Els(code=2))
            elif frame.r_ctl == 0x81:
                accept(hand, frame)
    assert isinstance(task.error, TaskAborted)
    assert sum(frame.r_ctl == 0x81 for frame in frames) == 1


def test_a_command_that_takes_too_long():
    hand = ByHand(Options(recovery=Recovery(rec_timeout=100.0, command_timeout=2.0)))
    task = hand.start()
    hand.take_one()
    hand.wait(2.2)
    accept(hand, hand.take_one())
    assert "no response within 2 s" in str(task.error)


def test_a_target_that_does_not_answer_abts(hand):
    """FC-FS-3 22.2: nobody is there."""
    hand = ByHand(Options(recovery=Recovery(rec_timeout=1.0, command_timeout=0)), parameters=0x12)
    task = hand.start()
    hand.take_one()
    hand.wait(150)
    assert isinstance(task.error, TargetLost)


def test_an_initiator_with_nothing_to_do_has_no_timer(hand):
    from math import inf

    assert hand.fcp.next_timer == inf
    hand.start()
    assert hand.fcp.next_timer < inf
    hand.respond(hand.take_one())
    hand.wait(1)
    assert hand.fcp.next_timer == inf


@pytest.mark.parametrize("repeat", [False, True])
def test_a_write_that_was_begun_is_done_twice_only_if_it_may(repeat):
    """PRLI without RETRY, and nothing comes after FCP_XFER_RDY."""
    recovery = Recovery(rec_timeout=1.0, command_timeout=0, repeat=repeat)
    hand = ByHand(Options(recovery=recovery), parameters=0x12)
    task = hand.start(write_16(0, 1), data_out=DATA[:512])
    command = hand.take_one()
    hand.ready(command, 0, 512)
    hand.take_one()
    hand.wait(1.2)
    accept(hand, hand.take_one())
    if repeat:
        assert hand.take_one().r_ctl == 6
        assert task.retries == 1
    else:
        assert isinstance(task.error, TaskAborted)
