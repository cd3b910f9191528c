"""The UNH-IOL full feature phase test suite for iSCSI targets 0.1 (2003): each test that applies to one connection at
ErrorRecoveryLevel 0, named after its number. The clauses are those of RFC 7143, which replaced the draft it was written for.

Not here: 5.1, 12.x and 14.2 need ErrorRecoveryLevel 1; 6.1, 11.2.x, 11.3.2, 13.1 and 13.2 need two connections in a session.
Longer than most files because it is one test plan.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pytest
from support.iscsi_session import LUN_0, Initiator, Pdu, connected
from support.scsi import pattern
from tcm_iscsi.protocol.discovery import PortalRecord, TargetRecord, TextPhase
from tcm_iscsi.protocol.full_feature import ConnectionFailed
from tcm_iscsi.protocol.pdu import RESERVED_TAG, TEXT_REQUEST

pytestmark = pytest.mark.anyio

SOLICITED: dict[str, Any] = {"initial_r2t": True, "immediate_data": False, "max_burst_length": 1024}
TEST_UNIT_READY = bytes(6)
INQUIRY = b"\x12\0\0\0\x60\0"
READ_CAPACITY = b"\x25".ljust(10, b"\0")
NAMES = ("iqn.2003-01.org.example:t", "iqn.2003-01.org.example:other")
RECORDS = [TargetRecord(name, (PortalRecord("192.0.2.1", 3260, 1),)) for name in NAMES]
R2T, RESPONSE, DATA_IN, TMF_RESPONSE, NOP_IN, REJECT = 0x31, 0x21, 0x25, 0x22, 0x20, 0x3F
EXP_CMD_SN, MAX_CMD_SN, DATA_SN, OFFSET, LENGTH, TTT = 28, 32, 36, 40, 44, 20


def read10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def start_write(i: Initiator, itt: int, length: int = 1024, *, lba: int = 0, **how: Any) -> Pdu:
    """A WRITE without data; the one R2T it is answered with."""
    (r2t,) = i.feed(i.command(write10(lba, length // 512), itt=itt, write=length, **how))
    assert (r2t.opcode, r2t.itt) == (R2T, itt)
    return r2t


def solicited(i: Initiator, r2t: Pdu, data: bytes) -> list[Pdu]:
    """What comes of the data that one R2T asks for."""
    at, length = r2t.word(OFFSET), r2t.word(LENGTH)
    return i.feed(i.data_out(r2t.itt, r2t.word(TTT), at, data[at : at + length]))


def write(i: Initiator, itt: int, data: bytes, lba: int = 0) -> list[Pdu]:
    """A whole WRITE; everything the target sent."""
    sent = [start_write(i, itt, len(data), lba=lba)]
    while sent[-1].opcode == R2T:
        sent += solicited(i, sent[-1], data)
    return sent


def read(i: Initiator, blocks: int = 4, itt: int = 2, lba: int = 0) -> list[Pdu]:
    return i.feed(i.command(read10(lba, blocks), itt=itt, read=blocks * 512))


def settle(i: Initiator) -> list[Pdu]:
    """INQUIRY, TEST UNIT READY and READ CAPACITY, as most procedures of the suite begin."""
    return [
        *i.feed(i.command(INQUIRY, itt=0xA1, read=96)),
        *i.feed(i.command(TEST_UNIT_READY, itt=0xA2)),
        *i.feed(i.command(READ_CAPACITY, itt=0xA3, read=8)),
    ]


def text(i: Initiator, *pairs: str, itt: int = 7, ttt: int = RESERVED_TAG, final: bool = True, more: bool = False) -> Pdu:
    """A Text Request and its one answer."""
    flags = (0x80 if final else 0) | (0x40 if more else 0)
    data = "".join(pair + ("" if more and pair is pairs[-1] else "\0") for pair in pairs).encode()
    (answer,) = i.feed(i.pdu(TEXT_REQUEST.pack(0x04, flags, 0, LUN_0, itt, ttt, i.next_cmd_sn(), 0), data))
    return answer


def negotiating(i: Initiator, *, discovery: bool = False) -> Initiator:
    """Give the connection its text phase."""
    i.phase.text = TextPhase(lambda: RECORDS, i.phase.parameters, target_name=None if discovery else NAMES[0])
    if discovery:
        i.phase.session.port = None
    return i


def segments(answers: list[Pdu]) -> set[int]:
    return {len(a.data) for a in answers if a.opcode == DATA_IN}


async def test_1_1_max_cmd_sn() -> None:
    """Test 1.1, clause 4.2.2.1: MaxCmdSN is never less than ExpCmdSN - 1."""
    async with connected(session=SOLICITED) as i:
        sent = settle(i)
        for n in range(10):
            sent += write(i, n, pattern(1024, n))
        for before, pdu in pairwise(sent):
            assert pdu.word(MAX_CMD_SN) >= before.word(EXP_CMD_SN) - 1
            assert pdu.word(MAX_CMD_SN) >= before.word(MAX_CMD_SN)


@pytest.mark.parametrize("which", ["beyond MaxCmdSN", "before ExpCmdSN", "the same again"])
async def test_1_2_and_1_3_cmd_sn_outside_the_window(which: str) -> None:
    """Tests 1.2 and 1.3, clause 4.2.2.1: a command outside the window or with a CmdSN used before is ignored."""
    async with connected(session=SOLICITED) as i:
        settle(i)
        for n in range(10):
            if n == 6:
                session = i.phase.session
                sn = {"beyond MaxCmdSN": session.max_cmd_sn + 1, "before ExpCmdSN": 0}.get(which, i.cmd_sn - 1)
                assert not i.feed(i.command(write10(0, 2), itt=99, write=1024, cmd_sn=sn))
            assert write(i, n, pattern(1024, n))[-1].status == 0


async def test_2_1_stat_sn() -> None:
    """Test 2.1, clause 4.2.2.2: StatSN goes up by one with each response."""
    async with connected(session=SOLICITED) as i:
        sent = settle(i)
        for n in range(10):
            sent += write(i, n, pattern(1024, n))
        numbered = [p.stat_sn for p in sent if p.opcode != R2T]
        assert numbered == list(range(numbered[0], numbered[0] + 13))


async def test_3_1_and_9_4_data_sn() -> None:
    """Tests 3.1 and 9.4, clause 11.7.5: DataSN begins with 0 in every command and goes up by one."""
    async with connected(initiator_max_recv_data_segment_length=512) as i:
        for itt in (5, 6, 7):
            assert [p.word(DATA_SN) for p in read(i, 8, itt)] == list(range(8))


async def test_4_1_r2t_sn() -> None:
    """Test 4.1, clause 11.8.3: R2TSN begins with 0 in every command and goes up by one."""
    async with connected(session=SOLICITED) as i:
        for itt in (5, 6, 7):
            assert [p.word(DATA_SN) for p in write(i, itt, pattern(4096)) if p.opcode == R2T] == [0, 1, 2, 3]


async def test_7_1_more_solicited_data_than_asked_for() -> None:
    """Test 7.1, clause 11.8.4: the connection is dropped, nothing is written."""
    async with connected(session=SOLICITED) as i:
        r2t = start_write(i, 5)
        with pytest.raises(ConnectionFailed):
            i.feed(i.data_out(5, r2t.word(TTT), 0, b"x" * 1536))
        assert [p.opcode for p in i.answers()] == [REJECT]


@pytest.mark.parametrize("pdus", [1, 3])
async def test_7_2_more_unsolicited_data_than_first_burst_length(pdus: int) -> None:
    """Test 7.2, clause 11.4.7.2: CHECK CONDITION, in one PDU or in several."""
    async with connected(session={"initial_r2t": False, "immediate_data": False, "first_burst_length": 512}) as i:
        stream = [i.command(write10(0, 4), itt=5, write=2048, final=False)]
        size = 1536 // pdus
        stream += [i.data_out(5, RESERVED_TAG, n * size, b"x" * size, data_sn=n, final=n == pdus - 1) for n in range(pdus)]
        (answer,) = i.feed(*stream)
        assert (answer.status, answer.sense) == (2, (0xB, 0x0C, 0x0D))
        assert b"".join(p.data for p in read(i)) == bytes(2048)


async def test_8_1_target_transfer_tag_of_r2t() -> None:
    """Test 8.1, clause 11.8.5: R2T has a TTT of its own, and the LUN of its command."""
    async with connected(session=SOLICITED) as i:
        r2t = start_write(i, 5)
        assert r2t.word(TTT) != RESERVED_TAG
        assert r2t.bhs[8:16] == LUN_0


async def test_8_2_target_transfer_tag_of_data_in() -> None:
    """Test 8.2, clause 11.7.4: without the A bit the TTT and the LUN of Data-In are reserved."""
    async with connected(initiator_max_recv_data_segment_length=512) as i:
        for pdu in [*read(i, 1), *read(i, 4)]:
            assert (pdu.flags & 0x40, pdu.word(TTT), pdu.bhs[8:16]) == (0, RESERVED_TAG, bytes(8))


async def test_9_1_status_in_data_in() -> None:
    """Test 9.1, clause 11.7.2: S only together with F, and only for GOOD."""
    async with connected(initiator_max_recv_data_segment_length=512) as i:
        answers = read(i)
        assert [p.flags & 0x81 for p in answers[:-1]] == [0, 0, 0]
        assert (answers[-1].flags & 0x81, answers[-1].status) == (0x81, 0)
        (failed,) = i.feed(i.command(read10(1 << 30, 4), read=2048))
        assert (failed.opcode, failed.status) == (RESPONSE, 2)


async def test_9_2_f_bit_of_data_in() -> None:
    """Test 9.2, clause 11.7.1: the last PDU of a sequence has F."""
    async with connected(initiator_max_recv_data_segment_length=512, session={"max_burst_length": 1024}) as i:
        assert [bool(p.flags & 0x80) for p in read(i)] == [False, True, False, True]


async def test_9_3_1_data_segment_length_of_data_in() -> None:
    """Test 9.3.1, clause 13.12: no longer than the initiator's MaxRecvDataSegmentLength."""
    async with connected(initiator_max_recv_data_segment_length=512) as i:
        assert segments(read(i, 64)) == {512}


async def test_9_3_2_empty_data_out() -> None:
    """Test 9.3.2, clause 11.7.6: a Data-Out without data is no error, and counts in DataSN."""
    async with connected(session=SOLICITED) as i:
        r2t = start_write(i, 5)
        assert not i.feed(i.data_out(5, r2t.word(TTT), 0, b"", final=False))
        (done,) = i.feed(i.data_out(5, r2t.word(TTT), 0, pattern(1024), data_sn=1))
        assert (done.opcode, done.status) == (RESPONSE, 0)


async def test_9_3_3_data_segments_fill_words() -> None:
    """Test 9.3.3, clause 11.7.7: every data segment but the last is a whole number of words."""
    async with connected(initiator_max_recv_data_segment_length=1024) as i:
        assert all(len(p.data) % 4 == 0 for p in read(i, 7))


async def test_9_5_buffer_offset_of_data_in() -> None:
    """Test 9.5, clause 11.7.5: with DataPDUInOrder offsets go up without gaps."""
    async with connected(initiator_max_recv_data_segment_length=512) as i:
        assert [p.word(OFFSET) for p in read(i, 6)] == [0, 512, 1024, 1536, 2048, 2560]


async def test_10_1_r2t() -> None:
    """Test 10.1, clause 11.8: contiguous ranges within MaxBurstLength, R2TSN from 0, StatSN set and not advanced."""
    async with connected(session={**SOLICITED, "max_burst_length": 512, "max_outstanding_r2t": 2}) as i:
        data = pattern(2048)
        sent = i.feed(i.command(write10(0, 4), itt=0xA2A2A2A2, write=2048))
        for r2t in sent:  # grows as it is served
            if r2t.opcode == R2T:
                sent += solicited(i, r2t, data)
        r2ts, (done,) = sent[:-1], sent[-1:]
        assert [(p.itt, p.word(DATA_SN), p.word(OFFSET), p.word(LENGTH)) for p in r2ts] == [
            (0xA2A2A2A2, n, n * 512, 512) for n in range(4)
        ]
        assert RESERVED_TAG not in {p.word(TTT) for p in r2ts}
        assert {p.stat_sn for p in r2ts} == {done.stat_sn}


async def test_11_1_immediate_abort_task() -> None:
    """Test 11.1, clause 11.5: ABORT TASK of the first of two writes; the second, immediate, is carried out."""
    async with connected(session=SOLICITED) as i:
        first = start_write(i, 5)
        second = start_write(i, 6, lba=2, immediate=True)
        (response,) = i.feed(i.task_management(1, referenced=5, ref_cmd_sn=i.cmd_sn - 1))
        assert (response.opcode, response.bhs[2]) == (TMF_RESPONSE, 0)
        assert not solicited(i, first, b"x" * 1024)
        (done,) = solicited(i, second, pattern(1024))
        assert (done.itt, done.status) == (6, 0)
        assert b"".join(p.data for p in read(i)) == bytes(1024) + pattern(1024)


async def test_11_3_1_abort_task_set() -> None:
    """Test 11.3.1, clauses 4.2.2.1, 11.5: an immediate request does not use its CmdSN up; nothing of the task follows it."""
    async with connected(session=SOLICITED) as i:
        r2t = start_write(i, 5)
        request, ping = i.task_management(2), i.nop_out(8, immediate=False)
        answers = i.feed(request, ping)
        assert [p.opcode for p in answers] == [TMF_RESPONSE, NOP_IN]
        assert not solicited(i, r2t, bytes(1024))


async def test_11_3_3_abort_of_a_task_that_is_not_there() -> None:
    """Test 11.3.3, clause 11.6.1: response 1, task does not exist, if RefCmdSN is outside the window."""
    async with connected() as i:
        assert read(i)[-1].flags & 1
        (response,) = i.feed(i.task_management(1, referenced=0xBAD, ref_cmd_sn=i.phase.session.max_cmd_sn + 10))
        assert response.bhs[2] == 1
        assert i.feed(i.nop_out(8, immediate=False))[0].opcode == NOP_IN


async def test_11_4_target_warm_reset() -> None:
    """Test 11.4, clause 11.5.1: what is in progress is cancelled. (11.5, cold reset, ends sessions: test_server.py)"""
    async with connected(session=SOLICITED) as i:
        r2t = start_write(i, 5)
        (response,) = i.feed(i.task_management(6))
        assert response.bhs[2] == 0
        assert not solicited(i, r2t, bytes(1024))
        assert i.feed(i.command(TEST_UNIT_READY))[0].sense[0] == 6


async def test_13_3_logout_of_another_connection() -> None:
    """Test 13.3, clause 11.15.1: response 1, CID not found; the connection and its task stay."""
    async with connected(session=SOLICITED) as i:
        r2t = start_write(i, 5)
        assert i.feed(i.logout(1, cid=99))[0].bhs[2] == 1
        assert solicited(i, r2t, pattern(1024))[0].status == 0


async def test_14_1_and_16_5_data_out_with_another_task_tag() -> None:
    """Tests 14.1 and 16.5, clause 11.7: it belongs to nobody and is dropped; the write ends with its own F bit."""
    async with connected(session=SOLICITED) as i:
        r2t = start_write(i, 5)
        assert not i.feed(i.data_out(77, r2t.word(TTT), 0, b"x" * 512, final=False))
        assert not i.feed(i.data_out(5, r2t.word(TTT), 0, pattern(512), final=False))
        (done,) = i.feed(i.data_out(5, r2t.word(TTT), 512, pattern(512), data_sn=1))
        assert (done.opcode, done.status) == (RESPONSE, 0)


async def test_14_3_reject() -> None:
    """Test 14.3, clauses 11.16, 11.17: SNACK is rejected with its header; the Reject has a StatSN of its own."""
    async with connected(session=SOLICITED) as i:
        r2t = start_write(i, 5)
        snack = bytearray(48)
        snack[:2] = b"\x10\x80"
        struct.pack_into(">IIIIIII", snack, 16, 5, RESERVED_TAG, 0, 0, 0, 0, 1)
        (reject,) = i.feed(bytes(snack))
        assert (reject.opcode, reject.itt, reject.data) == (REJECT, RESERVED_TAG, bytes(snack))
        assert reject.stat_sn == r2t.stat_sn
        (done,) = solicited(i, r2t, pattern(1024))
        assert done.stat_sn == reject.stat_sn + 1
        assert (reject.word(EXP_CMD_SN), reject.word(MAX_CMD_SN)) == (r2t.word(EXP_CMD_SN), r2t.word(MAX_CMD_SN))


@pytest.mark.parametrize("immediate", [True, False])
@pytest.mark.parametrize("length", [0, 5, 512, 4096])
async def test_15_1_ping(immediate: bool, length: int) -> None:
    """Tests 15.1.1 to 15.1.6, clause 11.19: the echo, cut to what the initiator takes; its StatSN counts."""
    async with connected(initiator_max_recv_data_segment_length=512) as i:
        data = pattern(length)
        (echo,) = i.feed(i.nop_out(5, data=data, immediate=immediate))
        assert (echo.opcode, echo.itt, echo.word(TTT), echo.data) == (NOP_IN, 5, RESERVED_TAG, data[:512])
        assert echo.bhs[8:16] == bytes(8)
        assert i.feed(i.command(TEST_UNIT_READY))[0].stat_sn == echo.stat_sn + 1


async def test_15_2_ping_of_the_target() -> None:
    """Test 15.2, clause 11.19: ITT reserved, TTT valid, no data, StatSN not advanced; the answer takes no CmdSN."""
    async with connected() as i:
        i.phase.handle_timer(30.0, 15, 30)
        (ping,) = i.answers()
        assert (ping.opcode, ping.itt, ping.data) == (NOP_IN, RESERVED_TAG, b"")
        assert ping.word(TTT) != RESERVED_TAG
        assert not i.feed(i.nop_out(RESERVED_TAG, ping.word(TTT)))
        (answer,) = i.feed(i.command(TEST_UNIT_READY))
        assert answer.stat_sn == ping.stat_sn


async def test_15_3_closed_window_opens() -> None:
    """Test 15.3, clause 4.2.2.1: the responses to the commands that filled the window open it again."""
    async with connected(depth=4, session=SOLICITED) as i:
        r2ts = [start_write(i, n) for n in range(4)]
        assert r2ts[-1].word(MAX_CMD_SN) == r2ts[-1].word(EXP_CMD_SN) - 1
        for r2t in r2ts:
            (done,) = solicited(i, r2t, pattern(1024))
        assert done.word(MAX_CMD_SN) == done.word(EXP_CMD_SN) + 3
        assert i.feed(i.command(TEST_UNIT_READY))[0].status == 0


async def test_16_1_and_16_2_residuals() -> None:
    """Tests 16.1 and 16.2, clause 11.4.5: U or O, never both, with the count."""
    async with connected() as i:
        (under,) = i.feed(i.command(INQUIRY, read=4096))
        assert (under.flags & 6, under.word(LENGTH)) == (2, 4096 - len(under.data))
        (over,) = i.feed(i.command(READ_CAPACITY, read=4))
        assert (over.flags & 6, over.word(LENGTH), len(over.data)) == (4, 4, 4)


async def test_16_3_1_immediate_data_up_to_first_burst_length() -> None:
    """Test 16.3.1, clause 11.3.1: F 0 under InitialR2T=Yes is no error if no unsolicited data can follow."""
    data = pattern(1024)
    async with connected(session={"initial_r2t": True, "first_burst_length": 512}) as i:
        (r2t,) = i.feed(i.command(write10(0, 2), itt=5, write=1024, data=data[:512], final=False))
        assert (r2t.opcode, r2t.word(OFFSET), r2t.word(LENGTH)) == (R2T, 512, 512)
        assert solicited(i, r2t, data)[0].status == 0
        assert read(i, 2)[0].data == data


@pytest.mark.parametrize(
    ("session", "final"),
    [({"initial_r2t": True, "first_burst_length": 512}, False), ({"initial_r2t": True, "immediate_data": False}, True)],
    ids=["16.3.2", "16.3.4"],
)
async def test_16_3_2_and_16_3_4_unexpected_unsolicited_data(session: dict[str, Any], final: bool) -> None:
    """Tests 16.3.2 and 16.3.4, clause 11.4.7.2: more than FirstBurstLength, or any with ImmediateData=No: 0Ch 0Ch."""
    async with connected(session=session) as i:
        (answer,) = i.feed(i.command(write10(0, 2), write=1024, data=b"x" * 1024, final=final))
        assert (answer.status, answer.sense) == (2, (0xB, 0x0C, 0x0C))
        assert read(i, 2)[0].data == bytes(1024)


async def test_16_3_3_solicited_data() -> None:
    """Test 16.3.3, clause 11.8: all the data in one PDU with F."""
    async with connected(session=SOLICITED) as i:
        assert write(i, 5, pattern(1024))[-1].status == 0


async def test_16_3_5_unsolicited_data() -> None:
    """Test 16.3.5, clause 4.2.5.2: all the data unsolicited, as long as FirstBurstLength."""
    async with connected(session={"initial_r2t": False, "immediate_data": False, "first_burst_length": 1024}) as i:
        start = i.command(write10(0, 2), itt=5, write=1024, final=False)
        (done,) = i.feed(start, i.data_out(5, RESERVED_TAG, 0, pattern(1024)))
        assert (done.opcode, done.status) == (RESPONSE, 0)


async def test_16_3_6_incorrect_amount_of_data() -> None:
    """Test 16.3.6, clause 11.4.7.2: unsolicited data that ends early: 0Ch 0Dh, and nothing is written."""
    async with connected(session={"initial_r2t": False, "immediate_data": False}) as i:
        start = i.command(write10(0, 2), itt=5, write=1024, final=False)
        (answer,) = i.feed(start, i.data_out(5, RESERVED_TAG, 0, b"x" * 512))
        assert (answer.status, answer.sense) == (2, (0xB, 0x0C, 0x0D))
        assert read(i, 2)[0].data == bytes(1024)


async def test_16_3_7_bad_operation_code() -> None:
    """Test 16.3.7, clause 11.4.2: CHECK CONDITION with sense data."""
    async with connected() as i:
        (answer,) = i.feed(i.command(b"\xd7" + bytes(5)))
        assert (answer.status, answer.sense) == (2, (5, 0x20, 0))


@pytest.mark.parametrize("started", [True, False], ids=["16.4.1", "16.4.2"])
async def test_16_4_retry(started: bool) -> None:
    """Tests 16.4.1 and 16.4.2, clause 7.2.1: a command that has arrived and comes again is discarded without a word."""
    data = pattern(1024)
    async with connected(session=SOLICITED) as i:
        command = i.command(write10(0, 2), itt=5, write=1024)
        (r2t,) = i.feed(command)
        at = 512 if started else 0
        if started:
            assert not i.feed(i.data_out(5, r2t.word(TTT), 0, data[:512], final=False))
        assert not i.feed(command)
        (done,) = i.feed(i.data_out(5, r2t.word(TTT), at, data[at:], data_sn=at // 512))
        assert (done.itt, done.status) == (5, 0)
        assert read(i, 2)[0].data == data


async def test_17_1_1_and_17_2_1_text_response_to_send_targets() -> None:
    """Tests 17.1.1 and 17.2.1, clause 11.11: F 0 is answered with F 0 and a TTT, within what the initiator takes."""
    async with connected(initiator_max_recv_data_segment_length=512) as i:
        answer = text(negotiating(i, discovery=True), "SendTargets=All", final=False)
        assert (answer.opcode, answer.itt, answer.flags & 0x80) == (0x24, 7, 0)
        assert answer.word(TTT) != RESERVED_TAG
        assert 0 < len(answer.data) <= 512


async def test_17_1_2_and_17_2_2_declaration() -> None:
    """Tests 17.1.2 and 17.2.2, clauses 11.11, 13.12: F 0 first, then F 1 ends it, and the new length holds."""
    async with connected(initiator_max_recv_data_segment_length=8192) as i:
        negotiating(i)
        first = text(i, "MaxRecvDataSegmentLength=512", final=False)
        assert (first.itt, first.flags & 0x80) == (7, 0)
        last = text(i, ttt=first.word(TTT))
        assert (last.flags & 0x80, last.word(TTT)) == (0x80, RESERVED_TAG)
        assert segments(read(i)) == {512}


@pytest.mark.parametrize(
    ("discovery", "value", "expected"),
    [
        (True, "All", NAMES),
        (True, "", None),
        (False, "All", None),
        (False, "", NAMES[:1]),
        (True, NAMES[1], NAMES[1:]),
    ],
    ids=["17.3.1", "17.3.2", "17.3.3", "17.3.4", "17.3.5"],
)
async def test_17_3_send_targets(discovery: bool, value: str, expected: tuple[str, ...] | None) -> None:
    """Tests 17.3.1 to 17.3.5, appendix C: what may be asked in which kind of session. An empty value asks for the session's own
    target, and a discovery session has none, so 17.3.2 gets Reject."""
    async with connected() as i:
        answer = text(negotiating(i, discovery=discovery), f"SendTargets={value}")
        pairs = [pair.partition("=") for pair in answer.data.decode().split("\0")[:-1]]
        if expected is None:
            assert pairs == [("SendTargets", "=", "Reject")]
        else:
            assert tuple(v for k, _, v in pairs if k == "TargetName") == expected
            assert sum(k == "TargetAddress" for k, _, v in pairs) == len(expected)


async def test_17_4_discovery_session() -> None:
    """Tests 17.4.1 and 17.4.2, clauses 4.3, 11.15.1: other keys are irrelevant; no recovery of its connection."""
    async with connected() as i:
        negotiating(i, discovery=True)
        assert text(i, "MaxRecvDataSegmentLength=512").data == b"MaxRecvDataSegmentLength=Irrelevant\0"
        assert b"TargetName=" in text(i, "SendTargets=All").data
        (reject,) = i.feed(i.command(TEST_UNIT_READY))
        assert (reject.opcode, reject.bhs[2]) == (REJECT, 0x04)
        assert b"TargetName=" in text(i, "SendTargets=All").data  # the rejected command's CmdSN counts
        assert i.feed(i.logout(2))[0].bhs[2] == 2
        assert not i.phase.closing


async def test_17_5_text_with_another_task_tag() -> None:
    """Test 17.5, clause 11.10.4: the tag belongs to the sequence; Reject holds the header."""
    async with connected() as i:
        first = text(negotiating(i), "MaxRecvDataSegmentLength=512", final=False)
        reject = text(i, "InitiatorAlias=me", itt=8, ttt=first.word(TTT))
        assert (reject.opcode, reject.itt, len(reject.data)) == (REJECT, RESERVED_TAG, 48)


@pytest.mark.parametrize("other_tag", [False, True], ids=["17.6", "17.7.1"])
async def test_17_6_and_17_7_1_negotiation_starts_again(other_tag: bool) -> None:
    """Tests 17.6 and 17.7.1, clause 6.4: a key given twice or a wrong tag is a protocol error (04h); then all goes well."""
    async with connected(initiator_max_recv_data_segment_length=8192) as i:
        first = text(negotiating(i), "MaxRecvDataSegmentLength=512", final=False)
        key = "InitiatorAlias=me" if other_tag else "MaxRecvDataSegmentLength=512"
        reject = text(i, key, itt=8 if other_tag else 7, ttt=first.word(TTT), final=other_tag)
        assert (reject.opcode, reject.bhs[2]) == (REJECT, 0x04)
        assert segments(read(i)) == {2048}
        third = text(i, "MaxRecvDataSegmentLength=512", final=False)
        assert third.opcode == 0x24
        assert text(i, ttt=third.word(TTT)).flags & 0x80
        settle(i)
        assert segments(read(i)) == {512}


async def test_17_7_2_negotiation_abandoned() -> None:
    """Test 17.7.2, clause 6.4: what was declared in a sequence that never ended does not hold."""
    async with connected(initiator_max_recv_data_segment_length=1024) as i:
        text(negotiating(i), "MaxRecvDataSegmentLength=512", final=False)
        assert segments(read(i, 8)) == {1024}


async def test_17_7_3_illegal_declaration() -> None:
    """Test 17.7.3, clauses 11.17.1, 13.12: 511 is out of range: Reject, negotiation reset (0Bh); a legal one holds."""
    async with connected(initiator_max_recv_data_segment_length=8192) as i:
        reject = text(negotiating(i), "MaxRecvDataSegmentLength=511")
        assert (reject.opcode, reject.bhs[2]) == (REJECT, 0x0B)
        assert segments(read(i)) == {2048}
        assert text(i, "MaxRecvDataSegmentLength=1024").flags & 0x80
        assert segments(read(i)) == {1024}


async def test_17_8_1_text_over_two_pdus() -> None:
    """Test 17.8.1, clause 6.2: C 1 is answered without text; the key cut in two is read whole."""
    async with connected(initiator_max_recv_data_segment_length=512) as i:
        negotiating(i)
        first = text(
            i, "InitiatorAlias=" + "a" * 200, "X-cbit.ioliscsilab.test1=" + "b" * 200, "X-cbit.te", final=False, more=True
        )
        assert (first.flags & 0xC0, first.data) == (0, b"")
        second = text(i, "st2=1", ttt=first.word(TTT))
        assert second.data.count(b"=NotUnderstood\0") == 2


async def test_17_8_2_c_and_f() -> None:
    """Test 17.8.2, clause 11.10.2: C and F together are an error; the declaration does not hold."""
    async with connected(initiator_max_recv_data_segment_length=1024) as i:
        assert segments(read(i)) == {1024}
        assert text(negotiating(i), "MaxRecvDataSegmentLength=512", more=True).opcode == REJECT
        assert segments(read(i)) == {1024}


async def test_17_8_3_declaration_over_two_pdus() -> None:
    """Test 17.8.3, clause 6.2: a declaration that is cut in two holds once the sequence has ended."""
    async with connected(initiator_max_recv_data_segment_length=1024) as i:
        first = text(negotiating(i), "InitiatorAlias=" + "a" * 200, "MaxRecvDataSegment", final=False, more=True)
        assert text(i, "Length=512", ttt=first.word(TTT)).flags & 0x80
        assert segments(read(i)) == {512}


async def test_18_1_1_header_digest_error() -> None:
    """Test 18.1.1, clause 7.8: a PDU without its header digest is not carried out; the connection is dropped."""
    async with connected(header_digest=True) as i:
        pdu = i.command(write10(0, 1), write=512, data=b"x" * 512)
        with pytest.raises(ConnectionFailed, match="header digest"):
            i.feed(pdu[:48] + pdu[52:])
        assert not i.answers()


async def test_18_2_1_data_digest_error_of_a_command() -> None:
    """Test 18.2.1, clause 7.8: Reject, data digest error (02h), and no R2T; at ERL 0 the connection ends."""
    async with connected(data_digest=True) as i:
        pdu = bytearray(i.command(write10(0, 1), write=512, data=b"x" * 512))
        pdu[-1] ^= 0xFF
        with pytest.raises(ConnectionFailed, match="data digest"):
            i.feed(bytes(pdu))
        assert [(p.opcode, p.bhs[2]) for p in i.answers()] == [(REJECT, 0x02)]


async def test_18_2_2_data_digest_error_of_data_out() -> None:
    """Test 18.2.2, clause 7.8: Reject (02h) at once; CHECK CONDITION, protocol service CRC error, after the PDU with F."""
    async with connected(session=SOLICITED, data_digest=True) as i:
        r2t = start_write(i, 5)
        broken = bytearray(i.data_out(5, r2t.word(TTT), 0, b"x" * 512, final=False))
        broken[-1] ^= 0xFF
        assert [(p.opcode, p.bhs[2]) for p in i.feed(bytes(broken))] == [(REJECT, 0x02)]
        (answer,) = i.feed(i.data_out(5, r2t.word(TTT), 512, b"x" * 512, data_sn=1))
        assert (answer.status, answer.sense) == (2, (0xB, 0x47, 0x05))


async def test_19_1_expected_data_transfer_length_0() -> None:
    """Test 19.1, clause 11.3.4: READ CAPACITY with an EDTL of 0 sends no data and says what was left out."""
    async with connected() as i:
        (answer,) = i.feed(i.command(READ_CAPACITY))
        assert (answer.opcode, answer.status, answer.data) == (RESPONSE, 0, b"")
        assert (answer.flags & 6, answer.word(LENGTH)) == (4, 8)
