"""What keeps the CmdSN window, the memory and the other sessions whole when an initiator is slow, wrong or hostile."""

from __future__ import annotations

import gc
import struct

import anyio
import pytest
from support.iscsi_session import connected
from support.memory import GatedMemory
from support.pdus import LUN_0
from support.scsi import pattern, ramdisk
from tcm_iscsi.protocol.command_flow import GRANT_LIMIT, HIGH_WATER
from tcm_iscsi.protocol.pdu import RESERVED_TAG
from tcm_iscsi.protocol.scsi_command import ScsiCommand
from tcm_iscsi.protocol.session import Session

from tcm.target.task import Task

pytestmark = pytest.mark.anyio

TEST_UNIT_READY = bytes(6)
SOLICITED = {"initial_r2t": True, "immediate_data": False}
UNSOLICITED = {"initial_r2t": False, "immediate_data": False}
NO_LUN = b"\0\x07" + bytes(6)
BIG = 1024
"""Blocks of reads of which three are more than HIGH_WATER."""


def read10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def is_whole(session: Session) -> bool:
    """Nothing is in progress, and the window is as wide as it ever was."""
    return not session.commands and not session.deferred and session.max_cmd_sn == session.exp_cmd_sn + session.depth - 1


async def test_overlapped_command_with_data_still_to_come() -> None:
    """SAM-5 5.11: a reused tag is answered after its unsolicited data, which finds it."""
    async with connected(session=UNSOLICITED) as i:
        i.feed(i.command(write10(0, 8), itt=9, write=4096, final=False))
        assert not i.feed(i.command(write10(0, 8), itt=9, write=4096, final=False))
        (answer,) = i.feed(i.data_out(9, RESERVED_TAG, 0, bytes(4096)))
        assert answer.sense == (0xB, 0x4E, 0)
        assert is_whole(i.phase.session)


async def test_unsolicited_data_of_a_command_ahead_of_its_turn() -> None:
    """RFC 7143 4.2.2.1, 4.2.5.2: the data of a command that waits for its CmdSN is kept with it."""
    data = pattern(4096)
    async with connected(session=UNSOLICITED) as i:
        first = i.command(TEST_UNIT_READY, itt=1)
        second = i.command(write10(0, 8), itt=2, write=4096, final=False)
        assert not i.feed(second, i.data_out(2, RESERVED_TAG, 0, data))
        assert [(a.itt, a.status) for a in i.feed(first)] == [(1, 0), (2, 0)]
        (answer,) = i.feed(i.command(read10(0, 8), read=4096))
        assert answer.data == data
        assert is_whole(i.phase.session)


async def test_abort_of_a_command_ahead_of_its_turn() -> None:
    """RFC 7143 11.5.5: function complete, it is not carried out, and its CmdSN counts."""
    async with connected() as i:
        first = i.command(TEST_UNIT_READY, itt=1)
        assert not i.feed(i.command(write10(0, 1), itt=2, write=512, data=b"x" * 512))
        assert i.feed(i.task_management(1, referenced=2, ref_cmd_sn=i.cmd_sn - 1))[0].bhs[2] == 0
        assert [a.itt for a in i.feed(first)] == [1]
        assert i.feed(i.command(read10(0, 1), read=512))[0].data == bytes(512)
        assert is_whole(i.phase.session)


@pytest.mark.parametrize("function", [2, 4, 5, 6])
async def test_abort_of_all_commands_ahead_of_their_turn(function: int) -> None:
    """RFC 7143 4.2.3.3: commands with a lower CmdSN are affected, those after the request and of other LUNs are not.

    One that has not arrived is waited for, except by target resets: its place counts as taken.
    """
    async with connected() as i:
        first = i.command(TEST_UNIT_READY, itt=1)
        assert not i.feed(i.command(write10(0, 1), itt=2, write=512, data=b"x" * 512))
        assert not i.feed(i.command(TEST_UNIT_READY, itt=3, lun=NO_LUN))
        request = i.task_management(function)
        assert not i.feed(i.command(write10(1, 1), itt=4, write=512, data=b"y" * 512))
        early, late = i.feed(request), i.feed(first)
        assert [a.itt for a in early] == ([100, 4] if function == 6 else [])
        assert [a.itt for a in late] == ([] if function == 6 else [100, 3, 4])
        assert next(a for a in early + late if a.itt == 100).bhs[2] == 0
        i.feed(i.command(TEST_UNIT_READY))
        assert i.feed(i.command(read10(0, 1), read=512))[0].data == bytes(512)
        assert is_whole(i.phase.session)


@pytest.mark.parametrize("function", [1, 2, 5])
async def test_abort_of_a_command_whose_response_waits_for_data(function: int) -> None:
    """RFC 7143 11.5.1: an initiator that aborts stops sending data; the response that waited for it is dropped."""
    async with connected() as i:
        assert not i.feed(i.command(write10(1 << 30, 16), itt=8, write=8192, data=bytes(512), final=False))
        assert i.feed(i.task_management(function, referenced=8, ref_cmd_sn=i.cmd_sn - 1))[0].bhs[2] == 0
        assert not i.feed(i.data_out(8, RESERVED_TAG, 512, bytes(7680)))
        assert is_whole(i.phase.session)


async def test_task_beyond_the_window_does_not_exist() -> None:
    """RFC 7143 11.6.1: function complete only if RefCmdSN is within the window and before the request."""
    async with connected() as i:
        beyond = i.phase.session.max_cmd_sn + 1
        request = bytearray(i.task_management(1, referenced=77, ref_cmd_sn=beyond))
        request[24:28] = (beyond + 5).to_bytes(4, "big")
        assert i.feed(bytes(request))[0].bhs[2] == 1


async def test_reject_gives_the_window_slot_back_at_once() -> None:
    """RFC 7143 4.2.2.1: with a window of one, the Reject itself must say that it is open."""
    async with connected(depth=1) as i:
        (reject,) = i.feed(i.command(TEST_UNIT_READY, final=False))
        assert reject.opcode == 0x3F
        assert reject.word(28) == reject.word(32) == i.cmd_sn
        (reject,) = i.feed(i.command(TEST_UNIT_READY, itt=RESERVED_TAG))
        assert reject.word(28) == reject.word(32) == i.cmd_sn


async def test_immediate_commands_are_bounded() -> None:
    """RFC 7143 11.17.1: too many immediate commands are rejected with reason 06h; each would cost memory."""
    async with connected(depth=4, session=UNSOLICITED) as i:
        answers = i.feed(
            *(i.command(write10(0, 1), itt=n, write=512, final=False, immediate=True, lun=NO_LUN) for n in range(100))
        )
        assert {(a.opcode, a.bhs[2]) for a in answers} == {(0x3F, 0x06)}
        assert len(i.phase.session.commands) <= 8


async def test_task_management_in_progress_is_bounded() -> None:
    """A function that waits for a task to end costs memory: too many at once are rejected."""
    memory = GatedMemory()
    async with connected(memory, depth=4) as i:
        memory.shut()
        i.feed(i.command(write10(0, 1), itt=1, write=512, data=bytes(512)))
        await memory.until_waiting(1)
        answers = i.feed(*(i.task_management(2, itt=n) for n in range(100, 200)))
        rejected = [a for a in answers if a.opcode == 0x3F]
        assert {a.bhs[2] for a in rejected} == {0x06}
        memory.release()
        with anyio.fail_after(60):
            while len(answers) < 100:
                await anyio.sleep(0.001)
                answers += i.answers()
        assert len({a.itt for a in answers if a.opcode == 0x22}) == 100 - len(rejected)
        assert i.feed(i.task_management(2))[0].bhs[2] == 0


async def test_memory_for_solicited_data_comes_with_its_grant() -> None:
    """A command that waits for its grant holds no buffer for data that nobody has asked for."""
    size = GRANT_LIMIT // 2
    limits = {**SOLICITED, "max_burst_length": size}
    async with connected(ramdisk(8 << 20), session=limits, max_recv_data_segment_length=size) as i:
        for n in range(1, 11):
            i.feed(i.command(write10(0, size // 512), itt=n, write=size))
        transfers = [c.data_out for c in i.phase.session.commands.values() if c.data_out is not None]
        held = sum(len(transfer.buffer or b"") for transfer in transfers)
        assert len(transfers) == 10
        assert held <= GRANT_LIMIT


async def test_solicited_data_counts_until_its_command_has_ended() -> None:
    """Data that has come waits with its command, for a lock or a slow medium: no more is asked for meanwhile."""
    size = GRANT_LIMIT // 2
    memory = GatedMemory(8 << 20)
    limits = {**SOLICITED, "max_burst_length": size}
    async with connected(memory, session=limits, max_recv_data_segment_length=size) as i:
        memory.shut()
        for n in (1, 2):
            (r2t,) = i.feed(i.command(write10(0, size // 512), itt=n, write=size))
            i.feed(i.data_out(n, r2t.word(20), 0, bytes(size)))
        await memory.until_waiting(2)
        assert not i.feed(i.command(write10(0, size // 512), itt=3, write=size))
        memory.release()
        answers = i.answers()
        with anyio.fail_after(60):
            while len(answers) < 3:
                await anyio.sleep(0.001)
                answers += i.answers()
        assert sorted(answer.opcode for answer in answers) == [0x21, 0x21, 0x31]


async def test_an_ended_command_leaves_nothing_behind() -> None:
    """Its data go when it ends: they are not left to the cyclic collector, which hardly ever comes in tcm-run."""

    def left() -> int:
        return sum(isinstance(each, (ScsiCommand, Task)) for each in gc.get_objects())

    async with connected(session=SOLICITED, max_recv_data_segment_length=8192) as i:
        gc.collect()
        gc.disable()
        try:
            before = left()
            (r2t,) = i.feed(i.command(write10(0, 8), itt=1, write=4096))
            assert i.feed(i.data_out(1, r2t.word(20), 0, bytes(4096)))[0].status == 0
            assert [answer.status for answer in i.feed(i.command(read10(0, 8), itt=2, read=4096))][-1] == 0
            assert i.feed(i.command(read10(1 << 30, 8), itt=3, read=4096))[0].status == 2
            i.feed(i.command(write10(0, 8), itt=4, write=4096))
            assert i.feed(i.task_management(1, referenced=4, ref_cmd_sn=4))[0].opcode == 0x22
            assert left() == before
        finally:
            gc.enable()


async def test_nothing_is_asked_for_on_a_closed_connection() -> None:
    """The commands that waited for their grant get none while the others are aborted."""
    size = GRANT_LIMIT // 2
    limits = {**SOLICITED, "max_burst_length": size}
    async with connected(ramdisk(8 << 20), session=limits, max_recv_data_segment_length=size) as i:
        for n in (1, 2, 3):
            i.feed(i.command(write10(0, size // 512), itt=n, write=size))
        i.phase.close()
        i.phase.session.port.nexus.lose()  # type: ignore[union-attr]  # a normal session has a port
        assert not i.phase.out


async def test_logout_aborts_what_is_in_progress() -> None:
    """RFC 7143 11.15: the response says that the cleanup is done; nothing comes after it and nothing is written any more."""
    size = GRANT_LIMIT // 2
    async with connected(ramdisk(8 << 20), session={**SOLICITED, "max_burst_length": size}) as i:
        for n in (1, 2, 3):
            i.feed(i.command(write10(0, size // 512), itt=n, write=size))
        assert [a.opcode for a in i.feed(i.logout())] == [0x26]
        assert not i.phase.session.commands
        assert not i.phase.session.port.nexus.tasks  # type: ignore[union-attr]  # a normal session has a port


async def test_nothing_is_taken_after_logout() -> None:
    """PDUs behind a Logout Request are not carried out, nor what a connection receives after its end."""
    async with connected() as i:
        write = i.command(write10(0, 1), itt=2, write=512, data=b"x" * 512)
        answers = i.feed(i.logout(), write)
        buf = bytearray(write)
        assert i.phase.process(buf, memoryview(buf), 0, len(buf)) == len(buf)
        assert [a.opcode for a in answers + i.answers()] == [0x26]


async def test_requests_that_need_no_memory_pass_reads_that_wait() -> None:
    """Too many bytes being read hold further commands back, not pings and not task management."""
    memory = GatedMemory(8 << 20)
    async with connected(memory, depth=32) as i:
        memory.shut()
        for n in range(16):
            assert not i.feed(i.command(read10(0, BIG), itt=n, read=BIG * 512))
        assert i.phase.pending_read <= HIGH_WATER + BIG * 512
        assert i.feed(i.nop_out(50))[0].itt == 50
        assert i.feed(i.task_management(1, referenced=15, ref_cmd_sn=i.cmd_sn - 1))[0].bhs[2] == 0
        (late,) = (i.command(TEST_UNIT_READY, itt=60),)
        assert not i.feed(late)
        memory.release()
        answers = []
        with anyio.fail_after(60):
            while not is_whole(i.phase.session):
                await anyio.sleep(0.001)
                answers += i.answers()
        assert {a.itt for a in answers + i.answers()} == {*range(15), 60}
        assert i.phase.pending_read == 0


async def test_reads_behind_an_ordered_write_do_not_keep_its_data_out() -> None:
    """SAM-5 8.6: the reads are dormant until the write has its data, so they must not stop it."""
    async with connected(ramdisk(8 << 20), depth=32, session=SOLICITED) as i:
        (r2t,) = i.feed(i.command(write10(0, 1), itt=99, write=512, attribute=2))
        for n in range(16):
            assert not i.feed(i.command(read10(0, BIG), itt=n, read=BIG * 512))
        assert i.phase.overloaded
        answers = i.feed(i.data_out(99, r2t.word(20), 0, b"w" * 512))
        assert answers[0].itt == 99
        while not is_whole(i.phase.session):
            answers += i.answers()
        assert {a.itt for a in answers} == {99, *range(16)}


async def test_reads_aborted_from_elsewhere_let_the_next_ones_in() -> None:
    """Another session's CLEAR TASK SET ends the reads without a response; the commands held back behind them go on."""
    memory = GatedMemory(8 << 20)
    async with connected(memory, depth=32) as i:
        nexus = i.phase.session.port.nexus  # type: ignore[union-attr]  # a normal session has a port
        memory.shut()
        for n in range(3):
            i.feed(i.command(read10(0, BIG), itt=n, read=BIG * 512))
        assert not i.feed(i.command(TEST_UNIT_READY, itt=60))
        await memory.until_waiting(3)
        nexus.abort(list(nexus.tasks.values()))
        answers = i.answers()
        with anyio.fail_after(60):
            while not answers:
                await anyio.sleep(0.001)
                answers = i.answers()
        assert [a.itt for a in answers] == [60]


async def test_ping_answer_in_its_turn_is_sent() -> None:
    """A NOP-Out that was held back behind reads is answered when they end, with nothing else to send."""
    memory = GatedMemory(8 << 20)
    woken: list[int] = []
    async with connected(memory, depth=32) as i:
        i.phase.wake = lambda: woken.append(len(i.phase.out))
        nexus = i.phase.session.port.nexus  # type: ignore[union-attr]  # a normal session has a port
        memory.shut()
        for n in range(3):
            i.feed(i.command(read10(0, BIG), itt=n, read=BIG * 512))
        i.feed(i.command(TEST_UNIT_READY, itt=60), i.nop_out(61, immediate=False))
        await memory.until_waiting(3)
        nexus.abort(list(nexus.tasks.values()))
        with anyio.fail_after(60):
            while i.phase.session.deferred:
                await anyio.sleep(0.001)
        assert woken
        assert woken[-1] == len(i.phase.out)
        assert [a.itt for a in i.answers()] == [60, 61]


async def test_lost_data_out_fails_the_command() -> None:
    """RFC 7143 7.8: Reject for the PDU, then CHECK CONDITION, protocol service CRC error, once all data has come."""
    async with connected(session=SOLICITED, data_digest=True) as i:
        (r2t,) = i.feed(i.command(write10(0, 4), itt=4, write=2048))
        ttt = r2t.word(20)
        broken = bytearray(i.data_out(4, ttt, 0, b"x" * 1024, final=False))
        broken[60] ^= 1
        (reject,) = i.feed(bytes(broken))
        assert (reject.opcode, reject.bhs[2]) == (0x3F, 0x02)
        (answer,) = i.feed(i.data_out(4, ttt, 1024, b"x" * 1024, data_sn=1))
        assert (answer.status, answer.sense) == (2, (0xB, 0x47, 0x05))
        assert i.feed(i.command(read10(0, 4), read=2048))[0].data == bytes(2048)
        assert is_whole(i.phase.session)


async def test_lun_spelling_stays_off_the_express_lane() -> None:
    """SAM-5 4.7: flat addressing of LUN 0 gets the same data as the spelling that the express lane knows."""
    async with connected() as i:
        i.feed(i.command(write10(3, 1), write=512, data=b"z" * 512, lun=b"\x40\0" + bytes(6)))
        for lun in (LUN_0, b"\x40\0" + bytes(6)):
            assert i.feed(i.command(read10(3, 1), read=512, lun=lun))[0].data == b"z" * 512


async def test_what_was_held_back_is_not_carried_out_when_the_session_ends() -> None:
    """RFC 7143 7.1.4: commands that were never delivered go with their session."""
    store = ramdisk(8 << 20)
    async with connected(store, depth=32, session={"initial_r2t": True}) as i:
        i.feed(i.command(write10(0, 1), itt=99, write=512, attribute=2))
        for n in range(3):
            i.feed(i.command(read10(0, BIG), itt=n, read=BIG * 512))
        i.feed(i.command(write10(0, 1), itt=9, write=512, data=b"x" * 512))
        i.phase.close()
        i.phase.session.port.nexus.lose()  # type: ignore[union-attr]  # a normal session has a port
        assert not i.phase.out
        found = bytearray(512)
        assert store.read_nowait([memoryview(found)], 0)
        assert found == bytes(512)
