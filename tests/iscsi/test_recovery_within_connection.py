"""Error recovery level 1 (RFC 7143 7.1.4): what was lost on a connection is asked for again on it. No socket, and no clock."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

import pytest
from support.iscsi_session import Initiator, connected
from support.pdus import Pdu
from support.scsi import pattern, ramdisk
from tcm_iscsi.protocol.data_out import RECOVERY_LIMIT
from tcm_iscsi.protocol.failure import ConnectionFailed
from tcm_iscsi.protocol.pdu import RESERVED_TAG
from tcm_iscsi.protocol.unacknowledged import KEPT_RESPONSES

pytestmark = pytest.mark.anyio

DATA_OR_R2T, STATUS, DATA_ACK, R_DATA = range(4)
SNACK_REJECT, PROTOCOL_ERROR, INVALID_DATA_ACK, INVALID_FIELD = 0x03, 0x04, 0x08, 0x09
TEST_UNIT_READY = bytes(6)
SOLICITED: dict[str, Any] = {
    "error_recovery_level": 1, "initial_r2t": True, "immediate_data": False, "max_burst_length": 2048, "max_outstanding_r2t": 2,
}  # fmt: skip
UNSOLICITED: dict[str, Any] = {"error_recovery_level": 1, "initial_r2t": False, "first_burst_length": 4096}


def level_1(**session: Any) -> Any:
    return connected(session={"error_recovery_level": 1, **session}, initiator_max_recv_data_segment_length=1024)


def read10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def store(i: Initiator, data: bytes) -> None:
    (answer,) = i.feed(i.command(write10(0, len(data) // 512), itt=900, write=len(data), data=data))
    assert answer.status == 0
    i.acknowledge(answer.stat_sn + 1)


def stored(i: Initiator, length: int) -> bytes:
    return b"".join(a.data for a in i.feed(i.command(read10(0, length // 512), itt=901, read=length)) if a.opcode == 0x25)


def read(i: Initiator, length: int = 4096, itt: int = 2) -> tuple[list[Pdu], Pdu]:
    """A READ: its Data-In PDUs and its SCSI Response."""
    *data, response = i.feed(i.command(read10(0, length // 512), itt=itt, read=length))
    return data, response


def same(before: list[Pdu], after: list[Pdu]) -> bool:
    """Exact replicas, but for ExpCmdSN and MaxCmdSN (clause 11.16)."""
    return [(a.bhs[:28], a.bhs[36:], a.data) for a in before] == [(a.bhs[:28], a.bhs[36:], a.data) for a in after]


def rejected(answers: list[Pdu]) -> int:
    (reject,) = answers
    assert reject.opcode == 0x3F
    return reject.bhs[2]


async def test_status_comes_by_itself_and_counts_the_data() -> None:
    """11.4.8: ExpDataSN says how many Data-In PDUs there were, so that one that is lost is missed."""
    async with level_1() as i:
        store(i, pattern(4096))
        data, response = read(i)
        assert [a.opcode for a in data] == [0x25] * 4
        assert not any(a.flags & 1 for a in data)
        assert (response.opcode, response.word(36)) == (0x21, 4)


@pytest.mark.parametrize(("first", "count", "expected"), [(1, 2, [1, 2]), (2, 0, [2, 3]), (0, 0, [0, 1, 2, 3]), (3, 1, [3])])
async def test_data_snack(first: int, count: int, expected: list[int]) -> None:
    """11.16: the run is sent again as it was."""
    async with level_1() as i:
        store(i, pattern(4096))
        data, _ = read(i)
        again = i.feed(i.snack(DATA_OR_R2T, first, count, itt=2))
        assert same([data[n] for n in expected], again)


async def test_data_snack_of_what_was_never_sent_or_is_acknowledged() -> None:
    """11.16: Reject, Protocol Error."""
    async with level_1() as i:
        _, response = read(i)
        assert rejected(i.feed(i.snack(DATA_OR_R2T, 4, 1, itt=2))) == PROTOCOL_ERROR
        assert rejected(i.feed(i.snack(DATA_OR_R2T, 2, 3, itt=2))) == PROTOCOL_ERROR
        assert rejected(i.feed(i.snack(DATA_OR_R2T, 0, 1, itt=77))) == PROTOCOL_ERROR
        assert rejected(i.feed(i.snack(9, 0, 1, itt=2))) == INVALID_FIELD
        i.acknowledge(response.stat_sn + 1)
        assert rejected(i.feed(i.snack(DATA_OR_R2T, 0, 1, itt=2))) == PROTOCOL_ERROR


async def test_snack_at_level_0() -> None:
    """11.16: it needs ERL 1."""
    async with connected() as i:
        read(i)
        for kind in range(4):
            assert rejected(i.feed(i.snack(kind, 0, 1, itt=2))) == SNACK_REJECT


async def test_status_snack() -> None:
    """11.16: responses again, with the StatSN they had, until they are acknowledged."""
    async with level_1() as i:
        sent = [i.feed(i.command(TEST_UNIT_READY, itt=n))[0] for n in range(5)]
        sent += i.feed(i.nop_out(50, data=b"ping"))
        first = sent[0].stat_sn
        assert same(sent[1:3], i.feed(i.snack(STATUS, first + 1, 2)))
        assert same(sent[3:], i.feed(i.snack(STATUS, first + 3)))
        i.acknowledge(first + 2)
        assert same(sent[2:], i.feed(i.snack(STATUS)))
        assert rejected(i.feed(i.snack(STATUS, first + 1, 1))) == PROTOCOL_ERROR
        assert rejected(i.feed(i.snack(STATUS, first + 100, 1))) == PROTOCOL_ERROR
        assert rejected(i.feed(i.snack(STATUS, first + 2, 1, itt=3))) == INVALID_FIELD


async def test_a_ping_shows_what_was_lost() -> None:
    """11.19: the StatSN of a NOP-In is the next one, and not used up."""
    async with level_1() as i:
        (sent,) = i.feed(i.command(TEST_UNIT_READY, itt=1))
        i.phase.handle_timer(20.0, 15, 30)
        (ping,) = i.answers()
        assert (ping.opcode, ping.stat_sn) == (0x20, sent.stat_sn + 1)
        assert same([sent], i.feed(i.snack(STATUS, sent.stat_sn, 1)))


async def test_data_ack() -> None:
    """11.7.2, 11.16: the A bit once a burst, never on the last; what is acknowledged is not sent again."""
    async with level_1(max_burst_length=2048) as i:
        store(i, pattern(6144))
        data, response = read(i, 6144)
        asks = [a for a in data if a.flags & 0x40]
        assert [a.word(36) for a in asks] == [1, 3]
        assert all(a.bhs[8:16] == bytes(8) and a.word(20) != RESERVED_TAG for a in asks)
        assert all(a.word(20) == RESERVED_TAG for a in data if a not in asks)
        assert same(data, i.feed(i.snack(DATA_OR_R2T, 0, 0, itt=2)))
        assert not i.feed(i.snack(DATA_ACK, 4, 0, tag=asks[1].word(20)))
        assert rejected(i.feed(i.snack(DATA_OR_R2T, 3, 1, itt=2))) == PROTOCOL_ERROR
        assert same(data[4:], i.feed(i.snack(DATA_OR_R2T, 0, 0, itt=2)))
        # late, but harmless: an initiator may acknowledge by status first
        assert not i.feed(i.snack(DATA_ACK, 2, 0, tag=asks[0].word(20)))
        assert rejected(i.feed(i.snack(DATA_ACK, 4, 0, tag=0x7FFFFFFF))) == INVALID_DATA_ACK
        i.acknowledge(response.stat_sn + 1)
        assert i.phase.unacknowledged is not None
        assert not i.phase.unacknowledged.by_itt


async def test_r_data_snack() -> None:
    """11.16.3: after a smaller MaxRecvDataSegmentLength all comes again, cut anew, and the response with the SNACK Tag."""
    async with level_1() as i:
        whole = pattern(4096)
        store(i, whole)
        _, response = read(i)
        i.phase.parameters.initiator_max_recv_data_segment_length = 512
        assert rejected(i.feed(i.snack(DATA_OR_R2T, 0, 1, itt=2))) == SNACK_REJECT
        *data, again = i.feed(i.snack(R_DATA, itt=2, tag=0x1234))
        assert [len(a.data) for a in data] == [512] * 8
        assert [a.word(36) for a in data] == list(range(8))
        assert b"".join(a.data for a in data) == whole
        assert (again.opcode, again.stat_sn, again.word(20), again.word(36)) == (0x21, response.stat_sn, 0x1234, 8)
        assert same([again], i.feed(i.snack(STATUS, response.stat_sn, 1)))
        assert rejected(i.feed(i.snack(R_DATA, itt=2, tag=0))) == INVALID_FIELD
        assert rejected(i.feed(i.snack(R_DATA, 1, itt=2, tag=5))) == INVALID_FIELD
        assert rejected(i.feed(i.snack(R_DATA, itt=78, tag=5))) == PROTOCOL_ERROR


async def test_r_data_snack_after_a_data_ack_starts_there() -> None:
    """11.16.3: DataSN begins with the BegRun of the last DataACK."""
    async with level_1(max_burst_length=2048) as i:
        whole = pattern(6144)
        store(i, whole)
        data, _ = read(i, 6144)
        i.feed(i.snack(DATA_ACK, 2, 0, tag=data[1].word(20)))
        i.phase.parameters.initiator_max_recv_data_segment_length = 600
        *rest, response = i.feed(i.snack(R_DATA, itt=2, tag=7))
        assert rest[0].word(36) == 2
        assert [a.word(40) for a in rest][:5] == [2048, 2648, 3248, 3848, 4096]
        assert b"".join(a.data for a in rest) == whole[2048:]
        assert response.word(36) == 2 + len(rest)


async def test_lost_solicited_data_is_asked_for_again() -> None:
    """7.2.1, 11.8: a hole in a sequence becomes a recovery R2T with the next R2TSN for just that."""
    async with connected(session=SOLICITED) as i:
        whole = pattern(4096)
        first, second = i.feed(i.command(write10(0, 8), itt=1, write=4096))
        at, ttt = first.word(40), first.word(20)
        assert not i.feed(i.data_out(1, ttt, at, whole[:512], final=False))
        (again,) = i.feed(i.data_out(1, ttt, at + 1024, whole[1024:2048], data_sn=2))
        assert (again.word(36), again.word(40), again.word(44)) == (2, 512, 512)
        assert not i.feed(i.data_out(1, second.word(20), 2048, whole[2048:]))
        (response,) = i.feed(i.data_out(1, again.word(20), 512, whole[512:1024]))
        assert (response.status, response.word(36)) == (0, 3)
        assert stored(i, 4096) == whole


async def test_damaged_data_is_rejected_and_asked_for_again() -> None:
    """7.8: Reject, Data Digest Error; then a recovery R2T."""
    async with connected(session=SOLICITED, data_digest=True) as i:
        whole = pattern(2048)
        (r2t,) = i.feed(i.command(write10(0, 4), itt=1, write=2048))
        pdu = bytearray(i.data_out(1, r2t.word(20), 0, whole))
        pdu[100] ^= 0x40
        reject, again = i.feed(bytes(pdu))
        assert (reject.opcode, reject.bhs[2]) == (0x3F, 0x02)
        assert (again.opcode, again.word(40), again.word(44)) == (0x31, 0, 2048)
        assert i.feed(i.data_out(1, again.word(20), 0, whole))[0].status == 0
        assert stored(i, 2048) == whole


async def test_damaged_data_without_end() -> None:
    """An initiator that never gets it right does not go on for ever: its command fails."""
    async with connected(session={**SOLICITED, "max_outstanding_r2t": 1}, data_digest=True) as i:
        answers = i.feed(i.command(write10(0, 4), itt=1, write=2048))
        for _ in range(RECOVERY_LIMIT + 1):
            assert answers[-1].opcode == 0x31
            pdu = bytearray(i.data_out(1, answers[-1].word(20), 0, bytes(2048)))
            pdu[100] ^= 0x40
            answers = i.feed(bytes(pdu))
        assert (answers[-1].opcode, answers[-1].sense) == (0x21, (0xB, 0x47, 0x05))


async def test_damaged_command_is_retried_with_the_same_cmd_sn() -> None:
    """7.8, 7.2.1: the command is as if it had never come; those behind wait for it."""
    async with connected(session=UNSOLICITED, data_digest=True) as i:
        data = pattern(512)
        command = i.command(write10(0, 1), itt=1, write=512, data=data)
        pdu = bytearray(command)
        pdu[-10] ^= 1
        assert rejected(i.feed(bytes(pdu))) == 0x02
        assert not i.feed(i.command(TEST_UNIT_READY, itt=2))
        assert [(a.itt, a.status) for a in i.feed(command)] == [(1, 0), (2, 0)]
        assert stored(i, 512) == data


async def test_retry_of_a_command_that_has_been_received() -> None:
    """7.2.1: ignored; what the initiator misses is its status."""
    async with level_1() as i:
        command = i.command(write10(0, 1), itt=1, write=512, data=pattern(512))
        (answer,) = i.feed(command)
        assert not i.feed(command)
        assert same([answer], i.feed(i.snack(STATUS, answer.stat_sn, 1)))


async def test_lost_unsolicited_data() -> None:
    """7.2.1: it is solicited then."""
    async with connected(session=UNSOLICITED) as i:
        whole = pattern(4096)
        assert not i.feed(i.command(write10(0, 8), itt=1, write=4096, data=whole[:1024], final=False))
        assert not i.feed(i.data_out(1, RESERVED_TAG, 1024, whole[1024:2048], final=False))
        (r2t,) = i.feed(i.data_out(1, RESERVED_TAG, 3072, whole[3072:], data_sn=2))
        assert (r2t.word(40), r2t.word(44)) == (2048, 1024)
        assert i.feed(i.data_out(1, r2t.word(20), 2048, whole[2048:3072]))[0].status == 0
        assert stored(i, 4096) == whole


async def test_too_little_unsolicited_data_is_no_loss() -> None:
    """11.4.7.2: an initiator that sends less than it has to is told so; nothing was lost."""
    async with connected(session=UNSOLICITED) as i:
        i.feed(i.command(write10(0, 8), itt=1, write=4096, final=False))
        (answer,) = i.feed(i.data_out(1, RESERVED_TAG, 0, bytes(1024)))
        assert (answer.status, answer.sense) == (2, (0xB, 0x0C, 0x0D))


async def test_r2t_snack() -> None:
    """11.16: R2Ts again, with the tags they had; those whose data has come are acknowledged."""
    async with connected(session=SOLICITED) as i:
        r2ts = i.feed(i.command(write10(0, 8), itt=1, write=4096))
        assert same(r2ts, i.feed(i.snack(DATA_OR_R2T, 0, 0, itt=1)))
        assert same(r2ts[1:], i.feed(i.snack(DATA_OR_R2T, 1, 1, itt=1)))
        assert rejected(i.feed(i.snack(DATA_OR_R2T, 2, 1, itt=1))) == PROTOCOL_ERROR
        i.feed(i.data_out(1, r2ts[0].word(20), 0, bytes(2048)))
        assert rejected(i.feed(i.snack(DATA_OR_R2T, 0, 1, itt=1))) == PROTOCOL_ERROR
        assert i.feed(i.data_out(1, r2ts[1].word(20), 2048, bytes(2048)))[0].status == 0


async def test_lost_r2t_or_data_is_asked_for_after_a_while() -> None:
    """7.9: the same R2T first, since it may be what was lost; then another; then the connection is given up."""
    async with connected(session={**SOLICITED, "max_outstanding_r2t": 1}) as i:
        (r2t,) = i.feed(i.command(write10(0, 4), itt=1, write=2048))
        check = partial(i.phase.data_out_timer.handle_timer, i.phase)
        check(0.0, 3, 3)
        check(2.9, 3, 3)
        assert not i.answers()
        check(3.0, 3, 3)
        assert same([r2t], i.answers())
        check(6.0, 3, 3)
        (other,) = i.answers()
        assert (other.word(36), other.word(40), other.word(44)) == (1, 0, 2048)
        assert other.word(20) != r2t.word(20)
        # what comes late for the first is dropped, and is no fault
        assert not i.feed(i.data_out(1, r2t.word(20), 0, bytes(2048)))
        check(9.0, 3, 3)
        assert same([other], i.answers())
        with pytest.raises(ConnectionFailed, match="no Data-Out"):
            check(12.0, 3, 3)


async def test_a_sequence_whose_end_is_lost() -> None:
    """7.9: what is missing of it is asked for."""
    async with connected(session=SOLICITED) as i:
        whole = pattern(2048)
        (r2t,) = i.feed(i.command(write10(0, 4), itt=1, write=2048))
        i.feed(i.data_out(1, r2t.word(20), 0, whole[:1024], final=False))
        i.phase.data_out_timer.handle_timer(i.phase, 0.0, 3, 5)
        i.phase.data_out_timer.handle_timer(i.phase, 3.0, 3, 5)
        (again,) = i.answers()
        assert (again.word(36), again.word(40), again.word(44)) == (1, 1024, 1024)
        assert i.feed(i.data_out(1, again.word(20), 1024, whole[1024:]))[0].status == 0
        assert stored(i, 2048) == whole


async def test_a_response_that_waits_for_data_which_is_lost() -> None:
    """11.4.2: it waits for the F bit, but not for ever."""
    async with connected(session=UNSOLICITED) as i:
        assert not i.feed(i.command(write10(1 << 30, 8), itt=1, write=4096, final=False))
        i.phase.data_out_timer.handle_timer(i.phase, 0.0, 3, 5)
        i.phase.data_out_timer.handle_timer(i.phase, 3.0, 3, 5)
        (answer,) = i.answers()
        assert (answer.status, answer.sense) == (2, (5, 0x21, 0))


async def test_forged_target_transfer_tag() -> None:
    """7.13: Reject, and the connection ends; others of the target know nothing of it."""
    async with connected(session=SOLICITED) as i:
        i.feed(i.command(write10(0, 4), itt=1, write=2048))
        with pytest.raises(ConnectionFailed, match="not outstanding"):
            i.feed(i.data_out(1, 0x55555555, 0, bytes(2048)))
        assert rejected(i.answers()) == PROTOCOL_ERROR


async def test_an_initiator_that_acknowledges_nothing() -> None:
    """What is kept is bounded: commands wait, the initiator is asked, and goes on when it answers."""
    async with level_1() as i:
        answers = []
        for n in range(KEPT_RESPONSES + 10):
            answers += i.feed(i.command(TEST_UNIT_READY, itt=n))
        assert i.phase.unacknowledged is not None
        assert len(i.phase.unacknowledged.responses) <= KEPT_RESPONSES + 1
        (ping,) = [a for a in answers if a.opcode == 0x20]
        i.feed(i.nop_out(RESERVED_TAG, ttt=ping.word(20)))
        late = i.acknowledge(i.phase.stat_sn) + i.answers()
        assert [a.status for a in answers + late if a.opcode == 0x21] == [0] * (KEPT_RESPONSES + 10)


@pytest.mark.parametrize("jump", [1, 1000, 0x80000000, 0xFFFFFFFF])
async def test_exp_stat_sn_beyond_what_was_sent(jump: int) -> None:
    """4.2.2.2: it acknowledges nothing."""
    async with level_1() as i:
        (answer,) = i.feed(i.command(TEST_UNIT_READY, itt=1))
        i.acknowledge(i.phase.stat_sn + jump & 0xFFFFFFFF)
        assert same([answer], i.feed(i.snack(STATUS, answer.stat_sn, 1)))


async def test_data_out_of_order_as_agreed() -> None:
    """13.18: with DataPDUInOrder=No the PDUs of a sequence come in any order, at every level."""
    for level in (0, 1):
        limits = {**SOLICITED, "error_recovery_level": level, "data_pdu_in_order": False}
        async with connected(session=limits) as i:
            whole = pattern(2048)
            (r2t,) = i.feed(i.command(write10(0, 4), itt=1, write=2048))
            ttt = r2t.word(20)
            order = [1024, 0, 1536, 512]
            for n, at in enumerate(order):
                answers = i.feed(i.data_out(1, ttt, at, whole[at : at + 512], data_sn=n, final=at == 512))
            assert answers[0].status == 0
            assert stored(i, 2048) == whole


async def test_data_out_of_order_with_a_hole_at_level_0() -> None:
    """11.4.7.2: nothing brings it back: INCORRECT AMOUNT OF DATA."""
    async with connected(session={**SOLICITED, "error_recovery_level": 0, "data_pdu_in_order": False}) as i:
        (r2t,) = i.feed(i.command(write10(0, 4), itt=1, write=2048))
        i.feed(i.data_out(1, r2t.word(20), 1024, bytes(1024), final=False))
        (answer,) = i.feed(i.data_out(1, r2t.word(20), 0, bytes(512), data_sn=1))
        assert (answer.status, answer.sense) == (2, (0xB, 0x0C, 0x0D))


async def test_solicited_data_counts_when_it_is_asked_for_again() -> None:
    """A large write that loses one PDU in each of its bursts ends as it should."""
    whole = pattern(65536)
    session = {**SOLICITED, "max_burst_length": 8192, "max_outstanding_r2t": 4}
    async with connected(ramdisk(1 << 20), session=session) as i:
        todo = i.feed(i.command(write10(0, 128), itt=1, write=65536))
        lost: set[int] = set()
        answer = None
        while todo:
            r2t = todo.pop(0)
            if r2t.opcode == 0x21:
                answer = r2t
                continue
            start, size = r2t.word(40), r2t.word(44)
            pieces = range(start, start + size, 1024)
            for n, at in enumerate(pieces):
                if at == start + 2048 and at not in lost:
                    lost.add(at)
                    continue
                todo += i.feed(i.data_out(1, r2t.word(20), at, whole[at : at + 1024], data_sn=n, final=at == pieces[-1]))
        assert answer is not None
        assert answer.status == 0
        assert len(lost) == 8
        assert stored(i, 65536) == whole
