"""Several connections in a session, and error recovery level 2 (RFC 7143 4.2.5.1, 7.1.5, 7.2.2). No socket, and no clock."""

from __future__ import annotations

import struct
from typing import Any

import anyio
import pytest
from support.iscsi_session import Initiator, connected
from support.memory import GatedMemory
from support.pdus import Pdu
from support.scsi import pattern
from tcm_iscsi.protocol.pdu import RESERVED_TAG
from tcm_iscsi.protocol.session import LOST_CONNECTIONS

pytestmark = pytest.mark.anyio

TEST_UNIT_READY = bytes(6)
TASK_REASSIGN = 8
COMPLETE, DOES_NOT_EXIST, STILL_ALLEGIANT, NOT_SUPPORTED = 0, 1, 3, 4
CLOSED, CID_NOT_FOUND, RECOVERY_NOT_SUPPORTED = 0, 1, 2
CLOSE_SESSION, CLOSE_CONNECTION, REMOVE = 0, 1, 2
LEVEL_2: dict[str, Any] = {"error_recovery_level": 2, "max_connections": 4, "default_time2wait": 2, "default_time2retain": 20}
SOLICITED = {**LEVEL_2, "initial_r2t": True, "immediate_data": False, "max_burst_length": 2048, "max_outstanding_r2t": 2}


def level_2(backstore: Any = None, **session: Any) -> Any:
    return connected(backstore, session={**LEVEL_2, **session}, initiator_max_recv_data_segment_length=1024)


def read10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


async def until_answered(i: Initiator) -> list[Pdu]:
    """What comes by itself, once something has come."""
    with anyio.fail_after(60):
        while not (answers := i.answers()):
            await anyio.sleep(0.001)
    return answers


async def outcome(i: Initiator, *pdus: bytes) -> list[Pdu]:
    """What comes of requests, at once or later."""
    return i.feed(*pdus) or await until_answered(i)


async def store(i: Initiator, data: bytes) -> None:
    (answer,) = await outcome(i, i.command(write10(0, len(data) // 512), itt=900, write=len(data), data=data))
    assert answer.status == 0
    i.acknowledge(i.phase.stat_sn)


def reassign(i: Initiator, itt: int, exp_data_sn: int = 0) -> tuple[int, list[Pdu]]:
    """TASK REASSIGN: the response, and what follows it."""
    first, *rest = i.feed(i.task_management(TASK_REASSIGN, referenced=itt, exp_data_sn=exp_data_sn))
    assert first.opcode == 0x22
    return first.bhs[2], rest


def log_out(i: Initiator, reason: int, cid: int) -> int:
    answer = i.feed(i.logout(reason, cid))[-1]
    assert answer.opcode == 0x26
    return answer.bhs[2]


def after_failure(i: Initiator, cid: int = 1) -> Initiator:
    """The first connection breaks; another one has logged it out for recovery."""
    other = i.join(cid, initiator_max_recv_data_segment_length=1024)
    i.fail()
    assert [(a.opcode, a.bhs[36]) for a in other.answers()] == [(0x32, 2)]
    assert log_out(other, REMOVE, i.phase.cid) == CLOSED
    return other


# commands over several connections


async def test_commands_take_their_turn_across_connections() -> None:
    """4.2.2.1: CmdSN orders the commands of all connections; each is answered where it came (4.2.5.1: allegiance)."""
    async with level_2() as i:
        j, k = i.join(1), i.join(2)
        commands = [i.command(TEST_UNIT_READY, itt=n) for n in range(6)]
        assert not k.feed(commands[2], commands[5])
        assert not j.feed(commands[1], commands[4])
        assert [a.itt for a in i.feed(commands[0])] == [0]
        assert [a.itt for a in j.answers()] == [1]
        assert [a.itt for a in k.answers()] == [2]
        assert [a.itt for a in i.feed(commands[3])] == [3]
        assert [a.itt for a in j.answers()] == [4]
        (last,) = k.answers()
        assert last.itt == 5
        assert last.word(28) == i.cmd_sn


async def test_stat_sn_is_each_connections_own() -> None:
    """4.2.2.2: StatSN counts per connection."""
    async with level_2() as i:
        j = i.join(1)
        first = i.phase.stat_sn
        for n in range(3):
            i.feed(i.command(TEST_UNIT_READY, itt=n))
        assert (i.phase.stat_sn, j.phase.stat_sn) == (first + 3, 1)


async def test_a_connection_that_does_not_read_holds_only_its_own_commands_back() -> None:
    """What waits is the first command in order, not one whose connection has room."""
    async with level_2(GatedMemory(8 << 20)) as i:
        j = i.join(1)
        j.phase.out_size = 64 << 20
        first, second = i.command(TEST_UNIT_READY, itt=1), i.command(TEST_UNIT_READY, itt=2)
        assert not j.feed(second)
        assert [a.itt for a in i.feed(first)] == [1]
        j.phase.out_size = 0
        assert [a.itt for a in j.answers()] == [2]


async def test_data_out_by_another_connection_is_dropped() -> None:
    """4.2.5.1: data goes by the command's own connection."""
    async with connected(session=SOLICITED) as i:
        j = i.join(1)
        (r2t,) = i.feed(i.command(write10(0, 4), itt=1, write=2048))
        assert not j.feed(j.data_out(1, r2t.word(20), 0, b"x" * 2048))
        assert i.feed(i.data_out(1, r2t.word(20), 0, bytes(2048)))[0].status == 0


@pytest.mark.parametrize("level", [0, 1, 2])
async def test_a_connection_dies_and_the_others_live(level: int) -> None:
    """7.6, 11.9.1: its tasks end, at ERL 2 after a while; the others are told; the first command after that too."""
    memory = GatedMemory(1 << 20)
    async with level_2(memory, error_recovery_level=level) as i:
        j = i.join(1)
        memory.shut()
        i.feed(i.command(read10(0, 8), itt=1, read=4096))
        await memory.until_waiting(1)
        i.fail()
        (dropped,) = j.answers()
        assert (dropped.opcode, dropped.bhs[36]) == (0x32, 2)
        assert [int.from_bytes(dropped.bhs[n : n + 2], "big") for n in (38, 40, 42)] == [i.phase.cid, 2, 20]
        session = i.phase.session
        if level == 2:
            session.expire(0.0)
            session.expire(21.9)
            assert list(session.lost) == [i.phase]
            session.expire(22.0)
        memory.release()
        await anyio.sleep(0.01)
        assert not session.lost
        assert not session.commands
        j.cmd_sn = i.cmd_sn
        (answer,) = await outcome(j, j.command(read10(0, 1), itt=2, read=512))
        assert (answer.status, answer.sense) == (2, (6, 0x47, 0x7F))
        assert (await outcome(j, j.command(read10(0, 1), itt=3, read=512)))[-1].status == 0


# logout


async def test_logout_of_one_connection_by_another() -> None:
    """11.14.1: reason 1 closes the connection with the CID, and its tasks end."""
    async with connected(session=SOLICITED) as i:
        j = i.join(1)
        i.feed(i.command(write10(0, 4), itt=1, write=2048))
        assert log_out(j, CLOSE_CONNECTION, 7) == CID_NOT_FOUND
        assert log_out(j, CLOSE_CONNECTION, i.phase.cid) == CLOSED
        assert i.phase.closing
        assert not j.phase.closing
        assert not i.phase.session.commands
        j.cmd_sn = i.cmd_sn
        assert j.feed(j.command(TEST_UNIT_READY, itt=5))[0].sense == (6, 0x47, 0x7F)


async def test_logout_of_the_session() -> None:
    """11.14.1: reason 0 closes all connections."""
    async with level_2() as i:
        j, k = i.join(1), i.join(2)
        k.fail()
        assert log_out(j, CLOSE_SESSION, 0) == CLOSED
        assert i.phase.closing
        assert j.phase.closing
        assert not i.phase.session.lost


@pytest.mark.parametrize("level", [0, 1])
async def test_logout_for_recovery_below_level_2(level: int) -> None:
    """11.15.1: response 2, and nothing has changed; 11.6.1: nor can tasks be reassigned."""
    async with level_2(error_recovery_level=level) as i:
        j = i.join(1)
        assert log_out(j, REMOVE, i.phase.cid) == RECOVERY_NOT_SUPPORTED
        assert not i.phase.closing
        assert reassign(j, 1)[0] == NOT_SUPPORTED


# reassignment


async def test_reassignment_of_a_read_in_progress() -> None:
    """7.2.2: the data and the status come by the new connection, after the response to the request."""
    memory = GatedMemory(1 << 20)
    async with level_2(memory) as i:
        data = pattern(4096)
        await store(i, data)
        memory.shut()
        i.feed(i.command(read10(0, 8), itt=1, read=4096))
        await memory.until_waiting(1)
        j = after_failure(i)
        assert reassign(j, 1) == (COMPLETE, [])
        memory.release()
        answers = await until_answered(j)
        assert b"".join(a.data for a in answers) == data
        assert (answers[-1].opcode, answers[-1].status) == (0x21, 0)
        assert not i.phase.session.lost


async def test_reassignment_of_a_read_that_ended_meanwhile() -> None:
    """7.2.2: what ended while no connection was there is answered by the new one."""
    memory = GatedMemory(1 << 20)
    async with level_2(memory) as i:
        data = pattern(4096)
        await store(i, data)
        memory.shut()
        i.feed(i.command(read10(0, 8), itt=1, read=4096))
        await memory.until_waiting(1)
        j = after_failure(i)
        memory.release()
        await anyio.sleep(0.01)
        code, answers = reassign(j, 1)
        assert code == COMPLETE
        assert b"".join(a.data for a in answers) == data
        assert reassign(j, 1)[0] == STILL_ALLEGIANT
        j.acknowledge(j.phase.stat_sn)
        assert reassign(j, 1)[0] == DOES_NOT_EXIST


@pytest.mark.parametrize(("exp_data_sn", "begins"), [(0, 0), (2, 2), (4, 4), (5, 0)])
async def test_reassignment_of_a_read_whose_status_was_lost(exp_data_sn: int, begins: int) -> None:
    """11.5.6: from the data acknowledgement reference number on; one that cannot be is ignored."""
    async with level_2() as i:
        data = pattern(4096)
        await store(i, data)
        assert len(i.feed(i.command(read10(0, 8), itt=1, read=4096))) == 5
        j = after_failure(i)
        code, (*again, response) = reassign(j, 1, exp_data_sn)
        assert code == COMPLETE
        assert [a.word(36) for a in again] == list(range(begins, 4))
        assert b"".join(a.data for a in again) == data[begins * 1024 :]
        assert (response.opcode, response.status, response.word(36)) == (0x21, 0, 4)
        assert response.stat_sn == j.phase.stat_sn - 1


async def test_reassignment_to_a_connection_with_smaller_segments() -> None:
    """7.2.2: what is sent again fits the new connection."""
    async with level_2() as i:
        data = pattern(4096)
        await store(i, data)
        i.feed(i.command(read10(0, 8), itt=1, read=4096))
        i.fail()
        j = i.join(1, initiator_max_recv_data_segment_length=512)
        log_out(j, REMOVE, i.phase.cid)
        _, (*again, response) = reassign(j, 1, 2)
        assert [(a.word(36), len(a.data)) for a in again] == [(n, 512) for n in range(2, 6)]
        assert b"".join(a.data for a in again) == data[2048:]
        assert response.word(36) == 6


async def test_reassignment_of_a_write_that_waits_for_data() -> None:
    """7.2.2: what has not come is asked for by the new connection, what has come is not."""
    async with connected(session=SOLICITED) as i:
        data = pattern(6144)
        first, second = i.feed(i.command(write10(0, 12), itt=1, write=6144))
        i.feed(i.data_out(1, second.word(20), 2048, data[2048:4096]))
        i.feed(i.data_out(1, first.word(20), 0, data[:512], final=False))
        j = after_failure(i)
        code, r2ts = reassign(j, 1)
        assert code == COMPLETE
        assert [(a.word(36), a.word(40), a.word(44)) for a in r2ts] == [(0, 512, 1536), (1, 4096, 2048)]
        assert not j.feed(j.data_out(1, r2ts[0].word(20), 512, data[512:2048]))
        (answer,) = j.feed(j.data_out(1, r2ts[1].word(20), 4096, data[4096:]))
        assert answer.status == 0
        j.cmd_sn = i.cmd_sn
        read = j.feed(j.command(read10(0, 12), itt=2, read=6144))
        assert b"".join(a.data for a in read) == data


async def test_reassignment_of_a_write_with_unsolicited_data() -> None:
    """7.2.2: unsolicited data that has not come is solicited."""
    async with level_2(initial_r2t=False) as i:
        data = pattern(4096)
        i.feed(i.command(write10(0, 8), itt=1, write=4096, data=data[:1024], final=False))
        i.feed(i.data_out(1, RESERVED_TAG, 1024, data[1024:2048], final=False))
        j = after_failure(i)
        code, (r2t,) = reassign(j, 1)
        assert (code, r2t.word(40), r2t.word(44)) == (COMPLETE, 2048, 2048)
        assert j.feed(j.data_out(1, r2t.word(20), 2048, data[2048:]))[0].status == 0


async def test_a_write_is_done_once_however_often_its_status_is_lost() -> None:
    """7.2.2: a task that was reassigned goes on; it does not begin again."""
    async with level_2() as i:
        (answer,) = i.feed(i.command(write10(0, 1), itt=1, write=512, data=b"a" * 512))
        assert answer.status == 0
        before = i.phase.session.port.nexus.luns[bytes(8)].write_cmds  # type: ignore[union-attr]  # a normal session has a port
        current = i
        for cid in range(1, 4):
            current = after_failure(current, cid)
            code, (again,) = reassign(current, 1)
            assert (code, again.status) == (COMPLETE, 0)
        assert i.phase.session.port.nexus.luns[bytes(8)].write_cmds == before  # type: ignore[union-attr]  # likewise


async def test_commands_that_were_not_acknowledged_come_again() -> None:
    """11.14: a logout for recovery discards what ExpCmdSN does not acknowledge; it is retried with the same CmdSN."""
    async with level_2() as i:
        first, second = i.command(TEST_UNIT_READY, itt=1), i.command(write10(0, 1), itt=2, write=512, data=b"b" * 512)
        assert not i.feed(second)
        j = after_failure(i)
        assert reassign(j, 2)[0] == DOES_NOT_EXIST
        assert [a.itt for a in j.feed(first)] == [1]
        assert [(a.itt, a.status) for a in j.feed(second)] == [(2, 0)]


async def test_reassignment_before_the_logout() -> None:
    """11.6.1: the task is still allegiant until its connection has been logged out for recovery."""
    async with level_2() as i:
        i.feed(i.command(TEST_UNIT_READY, itt=1))
        j = i.join(1)
        assert reassign(j, 1)[0] == STILL_ALLEGIANT
        i.fail()
        j.answers()
        assert reassign(j, 1)[0] == STILL_ALLEGIANT
        assert log_out(j, REMOVE, i.phase.cid) == CLOSED
        assert reassign(j, 1)[0] == COMPLETE


async def test_reassignment_of_what_is_not_there() -> None:
    """11.6.1: no such task, or one that is acknowledged; the LUN is reserved (11.5.3)."""
    async with level_2() as i:
        (answer,) = i.feed(i.command(TEST_UNIT_READY, itt=1))
        i.acknowledge(answer.stat_sn + 1)
        i.feed(i.command(TEST_UNIT_READY, itt=2))
        j = after_failure(i)
        assert reassign(j, 1)[0] == DOES_NOT_EXIST
        assert reassign(j, 99)[0] == DOES_NOT_EXIST
        other = j.task_management(TASK_REASSIGN, referenced=2, lun=b"\0\1" + bytes(6))
        assert j.feed(other)[0].bhs[2] == COMPLETE


async def test_reassignment_after_the_time() -> None:
    """7.6: Time2Wait and Time2Retain after the logout the tasks are gone."""
    async with level_2() as i:
        i.feed(i.command(TEST_UNIT_READY, itt=1))
        j = after_failure(i)
        i.phase.session.expire(100.0)
        i.phase.session.expire(121.9)
        assert i.phase.session.lost
        i.phase.session.expire(122.0)
        assert reassign(j, 1)[0] == DOES_NOT_EXIST


async def test_removal_of_a_connection_that_still_lives() -> None:
    """11.14: transfers of its tasks are suspended, and it is closed."""
    async with connected(session=SOLICITED) as i:
        (r2t,) = i.feed(i.command(write10(0, 4), itt=1, write=2048))
        j = i.join(1)
        assert log_out(j, REMOVE, i.phase.cid) == CLOSED
        assert i.phase.closing
        assert not i.feed(i.data_out(1, r2t.word(20), 0, bytes(2048)))
        code, (again,) = reassign(j, 1)
        assert (code, again.word(40), again.word(44)) == (COMPLETE, 0, 2048)


async def test_abort_of_a_task_whose_connection_is_gone() -> None:
    """11.5.1: ABORT TASK and LOGICAL UNIT RESET reach tasks that wait for reassignment."""
    memory = GatedMemory(1 << 20)
    for function in (1, 5):
        async with level_2(memory) as i:
            memory.shut()
            i.feed(i.command(read10(0, 8), itt=1, read=4096))
            await memory.until_waiting(1)
            j = after_failure(i)
            memory.release()
            await anyio.sleep(0.01)
            j.cmd_sn = i.cmd_sn
            (answer,) = j.feed(j.task_management(function, referenced=1, ref_cmd_sn=i.cmd_sn - 1))
            assert answer.bhs[2] == 0
            assert reassign(j, 1)[0] == DOES_NOT_EXIST


async def test_lost_connections_are_bounded() -> None:
    """An initiator that loses one connection after another is not remembered for ever: the oldest gives way."""
    async with level_2() as i:
        current = i
        for cid in range(1, LOST_CONNECTIONS + 10):
            current.cmd_sn = i.cmd_sn
            current.feed(current.command(TEST_UNIT_READY, itt=cid))
            i.cmd_sn = current.cmd_sn
            following = i.join(cid)
            current.fail()
            current = following
        assert len(i.phase.session.lost) == LOST_CONNECTIONS


async def test_a_connection_that_is_lost_again_and_again() -> None:
    """A CID without tasks is remembered once, so that it can be logged out."""
    async with level_2() as i:
        for _ in range(5):
            again = i.join(1)
            again.fail()
            i.answers()
        assert [lost.cid for lost in i.phase.session.lost] == [1]
        assert log_out(i, REMOVE, 1) == CLOSED


async def test_nothing_is_retained_without_time2retain() -> None:
    """13.16: with DefaultTime2Retain 0 the tasks end with their connection."""
    async with level_2(default_time2retain=0) as i:
        i.feed(i.command(TEST_UNIT_READY, itt=1))
        i.join(1)
        i.fail()
        assert not i.phase.session.lost


# task management over connections


@pytest.mark.parametrize("task_reporting", ["RFC3720", "ResponseFence", "FastAbort"])
async def test_response_fence(task_reporting: str) -> None:
    """4.2.2.3.3: with ResponseFence the response to a reset waits until those of other connections are acknowledged."""
    async with level_2(error_recovery_level=0, task_reporting=task_reporting) as i:
        j = i.join(1)
        i.feed(i.command(TEST_UNIT_READY, itt=1))
        j.cmd_sn = i.cmd_sn
        answers = j.feed(j.task_management(5))
        if task_reporting == "RFC3720":
            assert [a.opcode for a in answers] == [0x22]
            return
        assert not answers
        behind = j.command(TEST_UNIT_READY, itt=2)
        assert not j.feed(behind)
        (ping,) = i.answers()
        i.feed(i.nop_out(RESERVED_TAG, ttt=ping.word(20), ack=ping.stat_sn))
        assert [(a.opcode, a.itt) for a in j.answers()] == [(0x22, 100), (0x21, 2)]


async def test_fast_abort_tells_the_other_connections() -> None:
    """4.2.3.4, 11.9.1: Async Message 5 with the LUN, once, on those that have tasks and did not ask."""
    async with connected(session={**SOLICITED, "error_recovery_level": 0, "task_reporting": "FastAbort"}) as i:
        j = i.join(1)
        for n in range(2):
            i.feed(i.command(write10(0, 4), itt=n, write=2048))
        j.cmd_sn = i.cmd_sn
        j.feed(j.command(write10(0, 4), itt=5, write=2048))
        i.cmd_sn = j.cmd_sn
        answers = j.feed(j.task_management(5))
        told = [a for a in i.answers() if a.opcode == 0x32]
        assert [(a.bhs[36], a.bhs[8:16]) for a in told] == [(5, bytes(8))]
        assert not [a for a in answers if a.opcode == 0x32]
        i.feed(i.nop_out(RESERVED_TAG, ack=i.phase.stat_sn))
        assert [a.opcode for a in j.answers()] == [0x22]
