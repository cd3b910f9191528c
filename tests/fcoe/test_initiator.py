"""The FCP initiator against a target that is played by hand: commands, data both ways, responses, task management (FCP-4)."""

from __future__ import annotations

import pytest
from support.fcp_by_hand import OURS, THEIRS, ByHand
from tcm_fcoe.initiator.options import Options
from tcm_fcoe.initiator.results import ProtocolViolation, TargetLost, TaskAborted
from tcm_fcoe.initiator.tasks import FcpTask
from tcm_fcoe.protocol import link_service_layers as services
from tcm_fcoe.protocol.fcp import Command, TaskManagementFlag
from tcm_fcoe.protocol.layers import FcpXferRdy

from tcm.scsi.cdb import read_16, write_16

DATA = bytes(range(256)) * 32


@pytest.fixture
def hand():
    return ByHand()


def test_a_command_without_data(hand):
    """FCP-4 9.2: FCP_CMND, then FCP_RSP."""
    done = []
    task = hand.start(bytes(6), 5, done=done.append)
    command = hand.take_one()
    assert (command.r_ctl, command.s_id, command.d_id, command.f_ctl) == (6, OURS, THEIRS, 0x290000)
    assert command.ox_id >= 0x1000
    assert command.rx_id == 0xFFFF
    unpacked = Command.unpack(command.payload)
    assert (unpacked.lun, unpacked.cdb, unpacked.data_length) == (bytes((0, 5)) + bytes(6), bytes(16), 0)
    hand.respond(command)
    assert done == [task]
    assert task.result.good
    assert not hand.fcp.tasks
    assert hand.take() == []


def test_a_read_puts_data_together(hand):
    task = hand.start(read_16(0, 8), read_length=4096)
    command = hand.take_one()
    assert Command.unpack(command.payload).read_data
    hand.data(command, 0, DATA[:2112])
    hand.data(command, 2112, DATA[2112:4096], last=True, seq_cnt=1)
    assert not task.finished
    hand.respond(command)
    assert bytes(task.result.data) == DATA[:4096]


def test_late_and_doubled_data(hand):
    """Frames of a read in any order, FCP_RSP before the last."""
    task = hand.start(read_16(0, 8), read_length=4096)
    command = hand.take_one()
    hand.data(command, 1024, DATA[1024:2048])
    hand.data(command, 3072, DATA[3072:4096], last=True)
    hand.data(command, 1024, DATA[1024:2048])
    hand.data(command, 0, DATA[:1024])
    hand.respond(command, flags="conf_req")
    assert not task.finished
    assert hand.take() == []
    hand.data(command, 2048, DATA[2048:3072])
    assert bytes(task.result.data) == DATA[:4096]
    assert hand.fcp.counters.duplicate_frames == 1
    confirmation = hand.take_one()
    assert (confirmation.r_ctl, confirmation.f_ctl, confirmation.rx_id, len(confirmation.payload)) == (3, 0x190000, 7, 0)


def test_data_without_a_relative_offset_follows_what_is_there(hand):
    task = hand.start(read_16(0, 2), read_length=1024)
    command = hand.take_one()
    hand.data(command, 0, DATA[:512], f_ctl=0x800000)
    hand.data(command, 0, DATA[512:1024], f_ctl=0x880000)
    hand.respond(command)
    assert bytes(task.result.data) == DATA[:1024]


def test_a_write_in_several_bursts(hand):
    """FCP-4 9.3: each FCP_XFER_RDY is answered by one sequence, with its own SEQ_ID and SEQ_CNT from 0."""
    data = DATA[:8000]
    task = hand.start(write_16(0, 16), data_out=data)
    command = hand.take_one()
    assert Command.unpack(command.payload).write_data
    received = bytearray(len(data))
    seq_ids = set()
    for number, (offset, length) in enumerate(((0, 4096), (4096, 3904))):
        hand.ready(command, offset, length, seq_id=1 + number)
        frames = hand.take()
        assert [frame.seq_cnt for frame in frames] == list(range(len(frames)))
        assert [frame.sof for frame in frames] == [0x2E, *[0x36] * (len(frames) - 1)]
        assert [frame.eof for frame in frames] == [*[0x41] * (len(frames) - 1), 0x42]
        assert [frame.f_ctl & ~3 for frame in frames] == [*[0x000008] * (len(frames) - 1), 0x090008]
        assert {frame.rx_id for frame in frames} == {7}
        (seq_id,) = {frame.seq_id for frame in frames}
        seq_ids.add(seq_id)
        for frame in frames:
            received[frame.parameter : frame.parameter + len(frame.payload)] = frame.payload
        assert sum(len(frame.payload) for frame in frames) == length
    assert len(seq_ids) == 2
    hand.respond(command)
    assert received == data
    assert task.result.good


def test_frames_are_as_long_as_the_target_takes(hand):
    small = ByHand(max_frame=1000)
    small.start(write_16(0, 8), data_out=DATA[:4096])
    command = small.take_one()
    small.ready(command, 0, 4096)
    assert [len(frame.payload) for frame in small.take()] == [1000, 1000, 1000, 1000, 96]


def test_a_doubled_transfer_ready_is_answered_once(hand):
    hand.start(write_16(0, 1), data_out=DATA[:512])
    command = hand.take_one()
    hand.ready(command, 0, 512)
    hand.ready(command, 0, 512)
    assert len(hand.take()) == 1


def test_the_first_burst_comes_unasked_where_both_agree():
    """FCP-4 6.3.2.7, WRITE FCP_XFER_RDY DISABLED: the command keeps the initiative."""
    hand = ByHand(Options(first_burst=1024), parameters=0x593)
    task = hand.start(write_16(0, 4), data_out=DATA[:2048])
    command, burst = hand.take()
    assert command.f_ctl == 0x280000
    assert (burst.r_ctl, burst.parameter, len(burst.payload), burst.rx_id) == (1, 0, 1024, 0xFFFF)
    hand.ready(command, 1024, 1024)
    (rest,) = hand.take()
    assert rest.parameter == 1024
    hand.respond(command)
    assert task.result.good


def test_no_first_burst_if_the_target_does_not_agree():
    hand = ByHand(Options(first_burst=1024))
    hand.start(write_16(0, 4), data_out=DATA[:2048])
    assert hand.take_one().f_ctl == 0x290000


def test_residual_and_sense(hand):
    task = hand.start(bytes((0x12, 0, 0, 0, 255, 0)), read_length=255)
    command = hand.take_one()
    hand.data(command, 0, DATA[:36], last=True)
    hand.respond(command, flags="under", residual=219)
    assert (task.result.residual, task.result.underflow, task.result.overflow) == (219, True, False)
    assert bytes(task.result.data) == DATA[:36]

    failed = hand.start(read_16(1 << 40, 8), read_length=4096)
    command = hand.take_one()
    sense = bytes.fromhex("70000500000000 0a00000000 2100 00000000".replace(" ", ""))
    hand.respond(command, status=2, flags="under+sns_len", residual=4096, sense=sense)
    result = failed.result
    assert (result.status, result.sense_key, result.asc) == (2, 5, (0x21, 0))
    assert bytes(result.data) == b""
    assert "ILLEGAL REQUEST (5h), ASC 21h/00h" in result.describe_sense()

    more = hand.start(read_16(0, 1), read_length=512)
    command = hand.take_one()
    hand.data(command, 0, DATA[:512], last=True)
    hand.respond(command, flags="over", residual=100)
    assert (more.result.overflow, more.result.residual, len(more.result.data)) == (True, 100, 512)


def test_a_response_code_is_told(hand):
    task = hand.start(write_16(0, 1), data_out=DATA[:512])
    command = hand.take_one()
    hand.respond(command, flags="rsp_len", response=bytes((0, 0, 0, 2, 0, 0, 0, 0)))
    assert (task.result.code, task.result.good) == (2, False)


def test_long_and_bidirectional_cdbs(hand):
    cdb = bytes((0x7F, 0, 0, 0, 0, 0, 0, 24)) + bytes(24)
    hand.start(cdb, read_length=512, data_out=DATA[:1024])
    command = Command.unpack(hand.take_one().payload)
    assert (command.cdb, command.data_length, command.bidirectional_read_length) == (cdb, 1024, 512)


def test_task_attribute_and_priority(hand):
    hand.start(attribute=2, priority=5)
    command = Command.unpack(hand.take_one().payload)
    assert (command.attribute, command.priority) == (2, 5)


def test_more_commands_than_the_queue_depth_wait():
    hand = ByHand(Options(queue_depth=2))
    tasks = [hand.start() for _ in range(5)]
    first, second = hand.take()
    hand.respond(second)
    third = hand.take_one()
    assert [task.finished for task in tasks] == [False, True, False, False, False]
    for command in (first, third, *hand.take()):
        hand.respond(command)
    for command in hand.take():
        hand.respond(command)
    assert all(task.finished for task in tasks)
    assert hand.nexus.outstanding == 0


def test_ox_ids_are_not_used_twice_at_a_time(hand):
    first = hand.start()
    hand.fcp._next_ox_id = first.ox_id
    second = hand.start()
    assert first.ox_id != second.ox_id
    hand.fcp._next_ox_id = 0xFFFE
    assert hand.start().ox_id == 0xFFFE
    assert hand.start().ox_id == 0x1002


def test_frames_that_are_of_no_command(hand):
    task = hand.start(read_16(0, 1), read_length=512)
    command = hand.take_one()
    hand.data(command, 0, DATA[:512], ox_id=command.ox_id ^ 1)
    hand.data(command, 0, DATA[:512], f_ctl=0x080008)
    hand.data(command, 0, DATA[:256])
    hand.data(command, 256, DATA[:256], rx_id=8)
    assert hand.fcp.counters.unexpected_frames == 3
    assert task.received == 256
    hand.data(command, 256, DATA[256:512])
    hand.respond(command)
    assert bytes(task.result.data) == DATA[:512]
    hand.respond(command)
    assert hand.fcp.counters.unexpected_frames == 4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda hand, command: hand.data(command, 512, DATA[:512]),
        lambda hand, command: hand.data(command, 0, DATA[:1024]),
        lambda hand, command: hand.ready(command, 0, 512),
        lambda hand, command: hand.ready(command, 0, 0),
        lambda hand, command: hand.send(FcpXferRdy() / b"", r_ctl=5, f_ctl=0x890000, ox_id=command.ox_id, rx_id=7),
        lambda hand, command: hand.respond(command, flags="sns_len", sense_length=500),
        lambda hand, command: hand.send(None, r_ctl=7, f_ctl=0x980000, ox_id=command.ox_id, rx_id=7),
    ],
)
def test_what_the_standard_does_not_allow_aborts_the_command(hand, wrong):
    task = hand.start(read_16(0, 1), read_length=512)
    command = hand.take_one()
    wrong(hand, command)
    abts = hand.take_one()
    assert (abts.r_ctl, abts.ox_id, abts.rx_id) == (0x81, command.ox_id, 7)
    assert not task.finished
    accept(hand, abts)
    assert isinstance(task.error, ProtocolViolation)
    assert hand.nexus.outstanding == 0


def accept(hand, abts):
    """BA_ACC."""
    body = services.BaAcc(ox_id=abts.ox_id, rx_id=7)
    hand.send(body, r_ctl=0x84, type=0, f_ctl=0x990000, ox_id=abts.ox_id, rx_id=7)


def test_abort_task_is_abts(hand):
    """FCP-4 4.9: ABORT TASK. Its OX_ID is not used again before R_A_TOV and RRQ."""
    task = hand.start(read_16(0, 1), read_length=512)
    command = hand.take_one()
    hand.fcp.abort_task(task, hand.now)
    abts = hand.take_one()
    assert (abts.r_ctl, abts.type, abts.f_ctl) == (0x81, 0, 0x090000)
    hand.data(command, 0, DATA[:512])
    accept(hand, abts)
    assert isinstance(task.error, TaskAborted)
    hand.fcp._next_ox_id = command.ox_id
    assert hand.start().ox_id != command.ox_id
    hand.take()
    hand.wait(11)
    rrq = next(frame for frame in hand.take() if frame.payload[:1] == b"\x12")
    hand.answer(rrq, services.Els(code=2))
    hand.fcp._next_ox_id = command.ox_id
    assert hand.start().ox_id == command.ox_id


def test_aborting_what_waits_or_is_done(hand):
    hand = ByHand(Options(queue_depth=1))
    first, second = hand.start(), hand.start()
    hand.fcp.abort_task(second, hand.now)
    assert isinstance(second.error, TaskAborted)
    hand.respond(hand.take_one())
    hand.fcp.abort_task(first, hand.now)
    assert first.error is None
    assert hand.take() == []


def test_lun_reset_ends_the_commands_of_its_logical_unit(hand):
    """FCP-4 4.10: their exchanges are aborted once the function has been executed."""
    at_0, at_1 = hand.start(lun=0), hand.start(lun=1)
    hand.take()
    reset = hand.start(b"", lun=1, management=TaskManagementFlag.LOGICAL_UNIT_RESET)
    frame = hand.take_one()
    command = Command.unpack(frame.payload)
    assert (command.management, command.lun[1], command.cdb) == (0x10, 1, bytes(16))
    hand.respond(frame, flags="rsp_len", response=bytes(8))
    assert (reset.finished, reset.code) == (True, 0)
    abts = hand.take_one()
    assert abts.ox_id == at_1.ox_id
    body = services.BaRjt(reason=3, explanation=3)
    hand.send(body, r_ctl=0x85, type=0, f_ctl=0x990000, ox_id=abts.ox_id, rx_id=7)
    assert "LOGICAL UNIT RESET" in str(at_1.error)
    assert not at_0.finished


def test_a_function_that_is_refused_ends_nothing(hand):
    there = hand.start()
    hand.take()
    reset = hand.start(b"", management=TaskManagementFlag.CLEAR_TASK_SET)
    hand.respond(hand.take_one(), flags="rsp_len", response=bytes((0, 0, 0, 4, 0, 0, 0, 0)))
    assert reset.code == 4
    assert hand.take() == []
    assert not there.finished


def test_a_logout_fails_what_is_outstanding():
    hand = ByHand(Options(queue_depth=1))
    nexus = hand.nexus
    tasks = [hand.start(), hand.start()]
    aborted = hand.start()
    hand.fcp.abort_task(tasks[0], hand.now)
    gone = []
    hand.fcp.on_logout = lambda nexus, reason: gone.append((nexus, reason))
    hand.port.down("link down", hand.now)
    assert gone == [(nexus, "link down")]
    for task in (*tasks, aborted):
        assert isinstance(task.error, TargetLost)
        assert "link down" in str(task.error)
    task = FcpTask(bytes(6))
    hand.fcp.submit(nexus, task, hand.now)
    assert isinstance(task.error, TargetLost)


def test_who_is_no_target_is_not_logged_in_to():
    with pytest.raises(KeyError):
        ByHand(parameters=0x22).nexus  # noqa: B018 - it raises


def test_data_is_made_as_the_link_takes_it():
    hand = ByHand()
    data = bytes(4 << 20)
    hand.start(write_16(0, 8192), data_out=data)
    command = hand.take_one()
    hand.ready(command, 0, len(data))
    assert len(hand.line.outbox) <= 512
    frames = hand.take()
    assert sum(len(frame.payload) for frame in frames) == len(data)
    assert [frame.parameter for frame in frames] == sorted(frame.parameter for frame in frames)


def test_writes_take_turns():
    hand = ByHand()
    for _ in range(2):
        hand.start(write_16(0, 4096), data_out=bytes(2 << 20))
    first, second = hand.take()
    hand.ready(first, 0, 2 << 20)
    hand.ready(second, 0, 2 << 20)
    turns = [frame.ox_id for frame in hand.take()]
    assert len({*turns[: len(turns) // 2]}) == 2


def test_targets_have_nothing_to_abort_or_recover(hand):
    """ABTS, REC and SRR of the other side are refused: it has originated no exchange."""
    hand.send(services.Abts(), r_ctl=0x81, type=0, f_ctl=0x090000, ox_id=5, rx_id=6)
    assert hand.take_one().r_ctl == 0x85
    hand.send(services.Rec(s_id=THEIRS, ox_id=5), r_ctl=0x22, type=1, f_ctl=0x290000, ox_id=9)
    assert hand.take_one().payload[0] == 1
    hand.send(services.Srr(ox_id=5), r_ctl=0x32, type=8, f_ctl=0x290000, ox_id=10)
    assert hand.take_one().payload[0] == 1
