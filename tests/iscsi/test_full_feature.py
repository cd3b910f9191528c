"""Full feature phase of the target (RFC 7143), without a socket, over the real core and a RAM disk."""

from __future__ import annotations

import struct

import anyio
import pytest
from support.iscsi_session import Initiator, connected
from support.memory import GatedMemory
from support.pdus import LUN_0
from support.scsi import pattern, ramdisk
from tcm_iscsi.protocol.command_flow import GRANT_LIMIT
from tcm_iscsi.protocol.failure import ConnectionFailed
from tcm_iscsi.protocol.pdu import RESERVED_TAG

pytestmark = pytest.mark.anyio

TEST_UNIT_READY = bytes(6)


def read10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def read16(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBQIBB", 0x88, 0, lba, blocks, 0, 0)


def write16(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBQIBB", 0x8A, 0, lba, blocks, 0, 0)


def write(i: Initiator, lba: int, data: bytes, itt: int = 1) -> None:
    """Immediate data, which must end GOOD."""
    (answer,) = i.feed(i.command(write10(lba, len(data) // 512), itt=itt, write=len(data), data=data))
    assert (answer.opcode, answer.status) == (0x21, 0)


def read(i: Initiator, lba: int, blocks: int, itt: int = 2) -> bytes:
    answers = i.feed(i.command(read10(lba, blocks), itt=itt, read=blocks * 512))
    assert answers[-1].flags & 0x81 == 0x81
    return b"".join(a.data for a in answers)


@pytest.mark.parametrize("chunk", [None, 1, 7, 48, 1000])
async def test_whole_and_in_pieces(chunk: int | None) -> None:
    """However TCP cuts the stream, the same PDUs come back, and trailing bytes wait for their rest."""
    data = pattern(8192)
    async with connected() as i:
        stream = [
            i.command(write16(8, 16), itt=1, write=8192, data=data),
            i.command(read16(8, 16), itt=2, read=8192),
            i.nop_out(3, data=b"ping!"),
            i.command(TEST_UNIT_READY, itt=4),
        ]
        tail = i.command(read10(8, 16), itt=5, read=8192)
        answers = i.feed(*stream, tail[:20], chunk=chunk)
        assert [(a.opcode, a.itt) for a in answers] == [(0x21, 1), (0x25, 2), (0x20, 3), (0x21, 4)]
        assert answers[1].data == data
        assert answers[2].data == b"ping!"
        assert [a.stat_sn for a in answers] == [2, 3, 4, 5]


@pytest.mark.parametrize(("header_digest", "data_digest"), [(True, False), (False, True), (True, True)])
async def test_digests(header_digest: bool, data_digest: bool) -> None:
    """RFC 7143 11.2.3: digests both ways, padding included in the data digest."""
    async with connected(header_digest=header_digest, data_digest=data_digest) as i:
        data = pattern(4096)
        write(i, 0, data)
        assert read(i, 0, 8) == data
        (nop,) = i.feed(i.nop_out(9, data=b"odd"), chunk=1)
        assert nop.data == b"odd"


async def test_wrong_header_digest_drops_the_connection() -> None:
    """RFC 7143 7.8: nothing after a broken header can be trusted at ERL 0."""
    async with connected(header_digest=True) as i:
        pdu = bytearray(i.command(TEST_UNIT_READY))
        pdu[20] ^= 1
        with pytest.raises(ConnectionFailed, match="header digest"):
            i.feed(bytes(pdu))


async def test_wrong_data_digest_is_rejected() -> None:
    """RFC 7143 7.8: Reject, reason data digest error; nothing is written."""
    async with connected(data_digest=True) as i:
        pdu = bytearray(i.command(write10(0, 1), write=512, data=bytes(512)))
        pdu[-10] ^= 1
        with pytest.raises(ConnectionFailed, match="data digest"):
            i.feed(bytes(pdu))
        (reject,) = i.answers()
        assert (reject.opcode, reject.bhs[2], reject.data) == (0x3F, 0x02, bytes(pdu[:48]))


async def test_data_segment_longer_than_declared() -> None:
    """A data segment above our MaxRecvDataSegmentLength ends the connection before a byte of it is kept."""
    async with connected(max_recv_data_segment_length=8192) as i:
        bhs = bytearray(i.command(write10(0, 1), write=512))
        bhs[5:8] = (1 << 20).to_bytes(3, "big")
        with pytest.raises(ConnectionFailed, match="exceeds"):
            i.feed(bytes(bhs))
        assert i.answers()[0].opcode == 0x3F
        assert i.phase.payload is None


async def test_data_in_is_cut_to_the_initiators_segment_length_and_bursts() -> None:
    """RFC 7143 11.7: MaxRecvDataSegmentLength bounds a PDU, MaxBurstLength a sequence, F ends each sequence."""
    async with connected(initiator_max_recv_data_segment_length=1536, session={"max_burst_length": 4096}) as i:
        data = pattern(10240)
        write(i, 0, data[:8192])
        write(i, 16, data[8192:])
        answers = i.feed(i.command(read10(0, 20), itt=7, read=10240))
        assert b"".join(a.data for a in answers) == data
        assert [len(a.data) for a in answers] == [1536, 1536, 1024, 1536, 1536, 1024, 1536, 512]
        assert [bool(a.flags & 0x80) for a in answers] == [False, False, True, False, False, True, False, True]
        assert [a.word(36) for a in answers] == list(range(8))
        assert [a.word(40) for a in answers] == [0, 1536, 3072, 4096, 5632, 7168, 8192, 9728]
        assert [a.flags & 1 for a in answers] == [0] * 7 + [1]


async def test_residuals_in_response_and_data_in() -> None:
    """RFC 7143 11.4.5: O and U with their counts, in the last Data-In or in the SCSI Response."""
    async with connected() as i:
        under = i.feed(i.command(read10(0, 1), itt=1, read=10000))
        assert (under[-1].flags & 7, under[-1].word(44), len(under[0].data)) == (3, 10000 - 512, 512)
        over = i.feed(i.command(read10(0, 2), itt=2, read=512))
        assert (over[-1].flags & 7, over[-1].word(44)) == (5, 512)
        (none,) = i.feed(i.command(read10(0, 1), itt=3))
        assert (none.opcode, none.flags & 6, none.word(44)) == (0x21, 4, 512)


async def test_check_condition_carries_sense() -> None:
    """RFC 7143 11.4.7: SenseLength, then sense data."""
    async with connected() as i:
        (answer,) = i.feed(i.command(read10(1 << 30, 1), read=512))
        assert (answer.opcode, answer.status, answer.sense) == (0x21, 2, (5, 0x21, 0))
        assert int.from_bytes(answer.data[:2], "big") == len(answer.data) - 2


async def test_solicited_data() -> None:
    """RFC 7143 11.8: R2Ts up to MaxOutstandingR2T, MaxBurstLength each; the next one follows a finished sequence."""
    data = pattern(20480)
    limits = {"initial_r2t": True, "immediate_data": False, "max_burst_length": 8192, "max_outstanding_r2t": 2}
    async with connected(session=limits) as i:
        r2ts = i.feed(i.command(write10(0, 40), itt=5, write=20480))
        assert [(p.opcode, p.word(36), p.word(40), p.word(44)) for p in r2ts] == [(0x31, 0, 0, 8192), (0x31, 1, 8192, 8192)]
        assert r2ts[0].stat_sn == r2ts[1].stat_sn == i.phase.stat_sn
        first, second = (p.word(20) for p in r2ts)
        (third,) = i.feed(
            i.data_out(5, first, 0, data[:4096], final=False), i.data_out(5, first, 4096, data[4096:8192], data_sn=1)
        )
        assert (third.word(36), third.word(40), third.word(44)) == (2, 16384, 4096)
        assert not i.feed(i.data_out(5, second, 8192, data[8192:16384]))
        (done,) = i.feed(i.data_out(5, third.word(20), 16384, data[16384:]))
        assert (done.opcode, done.status, done.word(36)) == (0x21, 0, 3)
        assert read(i, 0, 40) == data


async def test_immediate_then_unsolicited_then_solicited_data() -> None:
    """RFC 7143 4.2.5.2: all three kinds of data in one command."""
    data = pattern(32768)
    async with connected(session={"first_burst_length": 12288}) as i:
        start = i.command(write10(4, 64), itt=6, write=32768, data=data[:4096], final=False)
        assert not i.feed(start, i.data_out(6, RESERVED_TAG, 4096, data[4096:8192], final=False))
        (r2t,) = i.feed(i.data_out(6, RESERVED_TAG, 8192, data[8192:12288], data_sn=1))
        assert (r2t.opcode, r2t.word(40), r2t.word(44)) == (0x31, 12288, 20480)
        (done,) = i.feed(i.data_out(6, r2t.word(20), 12288, data[12288:]))
        assert (done.opcode, done.status) == (0x21, 0)
        assert read(i, 4, 64) == data


@pytest.mark.parametrize(
    ("session", "length", "final"),
    [({"immediate_data": False}, 512, True), ({"initial_r2t": True}, 0, False), ({"first_burst_length": 512}, 1024, True)],
)
async def test_unsolicited_data_that_was_not_agreed(session: dict[str, object], length: int, final: bool) -> None:
    """RFC 7143 11.4.7.2: ABORTED COMMAND, WRITE ERROR - UNEXPECTED UNSOLICITED DATA, and nothing is written."""
    async with connected(session=session) as i:
        (answer,) = i.feed(i.command(write10(0, 2), write=1024, data=b"x" * length, final=final))
        assert (answer.status, answer.sense) == (2, (0xB, 0x0C, 0x0C))
        assert i.phase.session.exp_cmd_sn == i.cmd_sn
        assert read(i, 0, 2) == bytes(1024)


async def test_response_waits_for_data_on_its_way() -> None:
    """RFC 7143 11.4.2: an error before all unsolicited data has come is answered after the PDU with F."""
    async with connected() as i:
        start = i.command(write10(1 << 30, 16), itt=8, write=8192, data=bytes(512), final=False)
        assert not i.feed(start)
        (answer,) = i.feed(i.data_out(8, RESERVED_TAG, 512, bytes(7680)))
        assert (answer.status, answer.sense) == (2, (5, 0x21, 0))


@pytest.mark.parametrize("data_sn", [1, 27, 0xFFFFFFFF])
async def test_missing_data_out_fails_the_command(data_sn: int) -> None:
    """RFC 7143 7.8: a gap in DataSN cannot be mended at ERL 0; the write does not end GOOD and does not reach the medium."""
    async with connected(session={"initial_r2t": True, "immediate_data": False}) as i:
        (r2t,) = i.feed(i.command(write10(0, 8), itt=4, write=4096))
        (answer,) = i.feed(i.data_out(4, r2t.word(20), 0, b"x" * 4096, data_sn=data_sn))
        assert (answer.status, answer.sense) == (2, (0xB, 0x0C, 0x0D))
        assert read(i, 0, 8) == bytes(4096)


@pytest.mark.parametrize(("offset", "length"), [(512, 4096), (0, 8192), (4096, 512)])
async def test_data_out_outside_its_sequence_drops_the_connection(offset: int, length: int) -> None:
    """RFC 7143 11.7: offsets that were not asked for are a protocol error."""
    async with connected(session={"initial_r2t": True, "immediate_data": False}) as i:
        (r2t,) = i.feed(i.command(write10(0, 8), itt=4, write=4096))
        with pytest.raises(ConnectionFailed, match="Data-Out"):
            i.feed(i.data_out(4, r2t.word(20), offset, bytes(length)))
        assert i.answers()[0].opcode == 0x3F


@pytest.mark.parametrize("level", [0, 2])
async def test_data_out_with_another_lun_than_the_command_is_a_protocol_error(level: int) -> None:
    """RFC 7143 11.7.4: solicited Data-Out has the command's LUN; nothing of it reaches either logical unit."""
    async with connected(session={"initial_r2t": True, "immediate_data": False, "error_recovery_level": level}) as i:
        (r2t,) = i.feed(i.command(write10(0, 1), itt=4, write=512))
        pdu = i.data_out(4, r2t.word(20), 0, b"x" * 512, lun=b"\0\1" + bytes(6))
        with pytest.raises(ConnectionFailed, match="Data-Out for LUN field 0001000000000000 of a command for 0000000000000000"):
            i.feed(pdu)
        (reject,) = i.answers()
        assert (reject.opcode, reject.bhs[2], reject.data) == (0x3F, 0x04, pdu[:48])
        i.fail()
        j = i.join(1)
        j.cmd_sn = i.phase.session.exp_cmd_sn
        j.feed(j.command(TEST_UNIT_READY, itt=9))  # which tells what became of the write
        answers = j.feed(j.command(read10(0, 1), itt=2, read=512))
        assert b"".join(answer.data for answer in answers if answer.opcode == 0x25) == bytes(512)


async def test_the_lun_of_unsolicited_data_out_is_reserved() -> None:
    """RFC 7143 11.7.4: whatever is in it, it is the command's data."""
    async with connected(session={"initial_r2t": False}) as i:
        assert not i.feed(i.command(write10(0, 1), itt=4, write=512, final=False))
        (answer,) = i.feed(i.data_out(4, RESERVED_TAG, 0, b"x" * 512, lun=b"\0\1" + bytes(6)))
        assert answer.status == 0
        assert read(i, 0, 1) == b"x" * 512


async def test_data_out_of_an_unknown_command_is_dropped() -> None:
    """RFC 7143 11.5.1: data of a command that was aborted may still be on its way."""
    async with connected() as i:
        assert not i.feed(i.data_out(77, 5, 0, bytes(512)))
        assert i.feed(i.command(TEST_UNIT_READY))[0].status == 0


async def test_commands_out_of_order_wait_for_their_turn() -> None:
    """RFC 7143 4.2.2.1: commands are delivered in CmdSN order."""
    async with connected() as i:
        first, second, third = (i.command(TEST_UNIT_READY, itt=n) for n in (11, 12, 13))
        assert not i.feed(third)
        assert not i.feed(second)
        assert [a.itt for a in i.feed(first)] == [11, 12, 13]


async def test_commands_outside_the_window_are_ignored() -> None:
    """RFC 7143 4.2.2.1: beyond MaxCmdSN, before ExpCmdSN and repeated ones: no answer, and the session goes on."""
    async with connected() as i:
        session = i.phase.session
        assert not i.feed(i.command(TEST_UNIT_READY, cmd_sn=session.max_cmd_sn + 1))
        assert not i.feed(i.command(read10(0, 1), read=512, cmd_sn=session.max_cmd_sn + 1))
        assert not i.feed(i.command(TEST_UNIT_READY, cmd_sn=session.exp_cmd_sn - 1))
        assert [a.itt for a in i.feed(i.command(TEST_UNIT_READY, itt=3))] == [3]


async def test_window_closes_with_commands_in_progress_and_opens_again() -> None:
    """RFC 7143 4.2.2.1: MaxCmdSN bounds what is in progress."""
    async with connected(depth=2, session={"initial_r2t": True, "immediate_data": False}) as i:
        r2ts = [i.feed(i.command(write10(n, 1), itt=n, write=512))[0] for n in (1, 2)]
        assert r2ts[1].word(32) == r2ts[1].word(28) - 1
        assert not i.feed(i.command(TEST_UNIT_READY, itt=3, cmd_sn=i.cmd_sn))
        (done,) = i.feed(i.data_out(1, r2ts[0].word(20), 0, bytes(512)))
        assert done.word(32) == done.word(28)
        assert [a.itt for a in i.feed(i.command(TEST_UNIT_READY, itt=4))] == [4]


async def test_cmd_sn_wraps() -> None:
    """Serial numbers go around (RFC 1982)."""
    async with connected() as i:
        session = i.phase.session
        session.exp_cmd_sn, session.max_cmd_sn, i.cmd_sn = 0xFFFFFFFE, 13, 0xFFFFFFFE
        i.phase.stat_sn = 0xFFFFFFFE
        answers = i.feed(*(i.command(read10(0, 1), itt=n, read=512) for n in range(5)))
        assert [a.word(28) for a in answers] == [0xFFFFFFFF, 0, 1, 2, 3]
        assert [a.stat_sn for a in answers] == [0xFFFFFFFE, 0xFFFFFFFF, 0, 1, 2]


async def test_immediate_command_takes_no_cmd_sn() -> None:
    """RFC 7143 4.2.2.1: immediate delivery."""
    async with connected() as i:
        before = i.phase.session.exp_cmd_sn
        (answer,) = i.feed(i.command(TEST_UNIT_READY, immediate=True))
        assert (answer.status, answer.word(28)) == (0, before)


async def test_nop_out_answers() -> None:
    """RFC 7143 11.18: echo with at most the initiator's segment length; the answer to our ping gets none."""
    async with connected(initiator_max_recv_data_segment_length=512) as i:
        (echo,) = i.feed(i.nop_out(5, data=pattern(600)))
        assert (echo.opcode, echo.itt, echo.word(20), echo.data) == (0x20, 5, RESERVED_TAG, pattern(600)[:512])
        i.phase.handle_timer(100.0, 15, 30)
        (ping,) = i.answers()
        assert (ping.opcode, ping.itt) == (0x20, RESERVED_TAG)
        assert ping.word(20) != RESERVED_TAG
        assert not i.feed(i.nop_out(RESERVED_TAG, ttt=ping.word(20)))
        assert i.phase.ping == 0


async def test_silent_initiator_is_dropped() -> None:
    """No bytes for nopin_timeout: a ping; none for nopin_response_timeout after that: the end."""
    async with connected() as i:
        i.phase.handle_timer(14.9, 15, 30)
        assert not i.answers()
        i.phase.handle_timer(15.1, 15, 30)
        assert i.answers()[0].opcode == 0x20
        i.phase.handle_timer(44.9, 15, 30)
        with pytest.raises(ConnectionFailed, match="no NOP-Out"):
            i.phase.handle_timer(45.1, 15, 30)
        i.phase.handle_timer(1000.0, 0, 30)


@pytest.mark.parametrize("solicited", [True, False])
async def test_data_out_that_does_not_come(solicited: bool) -> None:
    """The connection is dropped, whatever else the initiator does: all of the logical unit may wait for an ORDERED command."""
    limits = {"initial_r2t": solicited, "immediate_data": False, "max_burst_length": 1024}
    async with connected(session=limits) as i:
        answers = i.feed(i.command(write10(0, 4), itt=1, write=2048, final=solicited))
        ttt = answers[0].word(20) if solicited else RESERVED_TAG
        i.phase.data_out_timer.handle_timer(i.phase, 0.0, 3, 5)
        i.feed(i.data_out(1, ttt, 0, bytes(512), final=False))
        i.phase.data_out_timer.handle_timer(i.phase, 14.0, 3, 5)
        i.phase.data_out_timer.handle_timer(i.phase, 28.9, 3, 5)
        assert [a.itt for a in i.feed(i.command(TEST_UNIT_READY, itt=2))] == [2]
        with pytest.raises(ConnectionFailed, match="no Data-Out for 15 s"):
            i.phase.data_out_timer.handle_timer(i.phase, 29.0, 3, 5)


async def test_data_out_that_comes_slowly() -> None:
    """Each piece gives the command its whole time again; nothing is owed when all is there."""
    async with connected(session={"initial_r2t": True, "immediate_data": False, "max_burst_length": 512}) as i:
        answers = i.feed(i.command(write10(0, 3), itt=1, write=1536))
        for n in range(3):
            i.phase.data_out_timer.handle_timer(i.phase, 14.0 * n, 3, 5)
            answers = i.feed(i.data_out(1, answers[0].word(20), 512 * n, bytes(512)))
        assert answers[0].opcode == 0x21
        i.phase.data_out_timer.handle_timer(i.phase, 1000.0, 3, 5)
        assert not i.phase.data_out_timer.owed


@pytest.mark.parametrize("opcode", [0x07, 0x1F, 0x20, 0x3E])
async def test_unknown_opcode_is_rejected(opcode: int) -> None:
    """RFC 7143 11.17.1: command not supported, with the header that was wrong."""
    async with connected() as i:
        pdu = bytearray(i.nop_out(1))
        pdu[0] = opcode
        (reject,) = i.feed(bytes(pdu))
        assert (reject.opcode, reject.bhs[2], reject.data) == (0x3F, 0x05, bytes(pdu))


async def test_snack_is_rejected_at_erl_0() -> None:
    """RFC 7143 11.16: SNACK needs ErrorRecoveryLevel 1."""
    async with connected() as i:
        pdu = bytearray(i.nop_out(1))
        pdu[0] = 0x10
        assert i.feed(bytes(pdu))[0].bhs[2] == 0x03


async def test_bidirectional_command_is_rejected() -> None:
    """We offer no bidirectional commands; the window takes the command's CmdSN all the same."""
    async with connected() as i:
        pdu = bytearray(i.command(write10(0, 1), write=512, data=bytes(512)))
        pdu[1] |= 0x40
        assert i.feed(bytes(pdu))[0].opcode == 0x3F
        assert i.feed(i.command(TEST_UNIT_READY))[0].status == 0


async def test_abort_task() -> None:
    """RFC 7143 11.5, 11.6: complete for a task in progress, which is never answered; then its data is dropped."""
    async with connected(session={"initial_r2t": True, "immediate_data": False}) as i:
        (r2t,) = i.feed(i.command(write10(0, 1), itt=9, write=512))
        (response,) = i.feed(i.task_management(1, referenced=9, ref_cmd_sn=i.cmd_sn - 1))
        assert (response.opcode, response.itt, response.bhs[2]) == (0x22, 100, 0)
        assert not i.feed(i.data_out(9, r2t.word(20), 0, b"x" * 512))
        assert not i.phase.session.commands
        assert read(i, 0, 1) == bytes(512)
        (gone,) = i.feed(i.task_management(1, referenced=9, ref_cmd_sn=1))
        assert gone.bhs[2] == 1


async def test_abort_of_a_command_still_on_its_way() -> None:
    """RFC 7143 11.5.5: its CmdSN counts as received, the function is complete, and the command is ignored when it comes."""
    async with connected() as i:
        late = i.command(write10(0, 1), itt=20, write=512, data=b"x" * 512)
        (response,) = i.feed(i.task_management(1, referenced=20, ref_cmd_sn=i.cmd_sn - 1))
        assert response.bhs[2] == 0
        assert not i.feed(late)
        assert read(i, 0, 1) == bytes(512)


@pytest.mark.parametrize(("function", "response"), [(2, 0), (4, 0), (5, 0), (6, 0), (8, 4), (9, 5), (99, 5)])
async def test_task_management_responses(function: int, response: int) -> None:
    """RFC 7143 11.6.1; QUERY TASK needs iSCSIProtocolLevel 2, TASK REASSIGN needs ERL 2."""
    async with connected() as i:
        assert i.feed(i.task_management(function))[0].bhs[2] == response


async def test_protocol_level_2_functions() -> None:
    """RFC 7144 4.2 and 4.3: QUERY TASK says whether the task is there."""
    async with connected(level=2, session={"initial_r2t": True, "immediate_data": False}) as i:
        i.feed(i.command(write10(0, 1), itt=9, write=512))
        assert i.feed(i.task_management(9, referenced=9))[0].bhs[2] == 7
        assert i.feed(i.task_management(9, referenced=10))[0].bhs[2] == 0
        assert i.feed(i.task_management(10))[0].bhs[2] == 7


async def test_lun_reset_of_a_lun_that_is_not_there() -> None:
    """RFC 7143 11.6.1: LUN does not exist."""
    async with connected() as i:
        assert i.feed(i.task_management(5, lun=b"\0\7" + bytes(6)))[0].bhs[2] == 2


async def test_reused_task_tag() -> None:
    """SAM-5 5.11: a tag that is in use ends both commands; the window does not leak."""
    async with connected(session={"initial_r2t": True, "immediate_data": False}, depth=4) as i:
        for _ in range(6):
            i.feed(i.command(write10(0, 1), itt=9, write=512))
            answers = i.feed(i.command(TEST_UNIT_READY, itt=9))
            assert answers[-1].sense == (0xB, 0x4E, 0)
            assert not i.phase.session.commands


@pytest.mark.parametrize(("reason", "cid", "response"), [(0, 0, 0), (1, 0, 0), (1, 5, 1), (2, 0, 2)])
async def test_logout(reason: int, cid: int, response: int) -> None:
    """RFC 7143 11.14, 11.15."""
    async with connected() as i:
        (answer,) = i.feed(i.logout(reason, cid))
        assert (answer.opcode, answer.bhs[2]) == (0x26, response)
        assert i.phase.closing is (response == 0)


async def test_extended_cdb() -> None:
    """RFC 7143 11.2.2.3: the rest of a CDB longer than 16 bytes comes in an AHS; a broken AHS is rejected."""
    async with connected() as i:
        plain = i.command(bytes.fromhex("7f00 0000 0000 0018 ffff 0000 0000 0000"), itt=3)
        ahs = (17).to_bytes(2, "big") + bytes((1, 0)) + bytes(16)
        pdu = bytearray(plain[:48] + ahs)
        pdu[4] = len(ahs) // 4
        assert i.feed(bytes(pdu), chunk=5)[0].sense == (5, 0x24, 0)  # there is no such service action
        broken = bytearray(i.command(TEST_UNIT_READY, itt=4)[:48] + b"\xff\xff\x01\0")
        broken[4] = 1
        assert i.feed(bytes(broken))[0].bhs[2] == 0x09
        assert i.feed(i.command(TEST_UNIT_READY, itt=5))[0].status == 0


async def test_logout_request_by_async_message() -> None:
    """RFC 7143 11.9.1: event 1, Parameter3 says within how many seconds."""
    async with connected() as i:
        i.phase.request_logout(5)
        (message,) = i.answers()
        assert (message.opcode, message.bhs[36], int.from_bytes(message.bhs[42:44], "big")) == (0x32, 1, 5)


async def test_reads_that_block_are_answered_later() -> None:
    """A backstore that cannot answer at once: the response comes when it has, and commands behind it need not wait."""
    memory = GatedMemory()
    async with connected(memory) as i:
        memory.shut()
        assert not i.feed(i.command(read10(0, 8), itt=31, read=4096))
        assert [a.itt for a in i.feed(i.command(TEST_UNIT_READY, itt=32))] == [32]
        memory.release()
        with anyio.fail_after(60):
            while not (answers := i.answers()):
                await anyio.sleep(0.001)
        assert [(a.itt, len(a.data)) for a in answers] == [(31, 4096)]
        assert i.phase.pending_read == 0


async def test_solicited_data_is_bounded() -> None:
    """However many writes are in progress, R2Ts ask for no more than GRANT_LIMIT bytes (or one command's) at once."""
    size = GRANT_LIMIT // 2
    limits = {"initial_r2t": True, "immediate_data": False, "max_burst_length": size}
    async with connected(ramdisk(8 << 20), session=limits, max_recv_data_segment_length=size) as i:
        asked = [i.feed(i.command(write10(0, size // 512), itt=n, write=size)) for n in (1, 2, 3)]
        assert [len(r2ts) for r2ts in asked] == [1, 1, 0]
        done_and_next = i.feed(i.task_management(1, referenced=1, ref_cmd_sn=2))
        assert sorted(p.opcode for p in done_and_next) == [0x22, 0x31]


async def test_lun_0_spellings() -> None:
    """SAM-5 4.7: peripheral and flat addressing of one LUN are the same logical unit."""
    async with connected() as i:
        for field in (LUN_0, b"\x40\0" + bytes(6)):
            assert i.feed(i.command(TEST_UNIT_READY, itt=1, lun=field))[0].status == 0
