"""UNH-IOL full feature phase test suite, tests 11.1 to 14.3: task management, SNACK, logout, reject."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.ffp import CURRENT, DUTS, SOLICITED, STAT_SN, DeviceUnderTest, differing, not_copied
from support.pdus import (
    ABORT_TASK,
    ABORT_TASK_SET,
    CLOSE_CONNECTION,
    CLOSE_SESSION,
    COLD_RESET,
    DATA_IN,
    FOR_RECOVERY,
    GOOD,
    LOGOUT_RESPONSE,
    NO_TAG,
    NOP_IN,
    PROTOCOL_ERROR,
    R2T,
    REJECT,
    SNACK_DATA_ACK,
    SNACK_DATA_R2T,
    TASK_MANAGEMENT_RESPONSE,
    TASK_REASSIGN,
    TEST_UNIT_READY,
    WARM_RESET,
    Pdu,
    Request,
    read10,
)
from support.scsi import pattern

if TYPE_CHECKING:
    from support.pdu_initiator import Connection

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend, dut", DUTS, indirect=["dut"])]

RECOVERY = {**SOLICITED, "ErrorRecoveryLevel": "2", "MaxRecvDataSegmentLength": "512"}
LEVEL_1 = {**SOLICITED, "ErrorRecoveryLevel": "1", "MaxRecvDataSegmentLength": "1024"}
COMPLETE, NO_TASK, STILL_ALLEGIANT, NOT_SUPPORTED, NOT_AUTHORIZED, REJECTED = 0, 1, 3, 5, 6, 255


async def test_11_1_immediate_task_management(dut: DeviceUnderTest) -> None:
    """Test 11.1, clauses 4.2.2.1 and 11.5: an immediate command and an immediate ABORT TASK at once: the aborted WRITE has
    neither R2T nor status any more, whatever data comes for it; the immediate WRITE is carried out."""
    c = await dut.connect(**SOLICITED)
    await c.write(pattern(2048, 7))
    first, r2t = await c.start_write(1024)
    second, r2t_2 = await c.start_write(1024, lba=2, immediate=True)
    abort = c.task_management(ABORT_TASK, referenced=first.itt, ref_cmd_sn=first.cmd_sn)
    await c.send(abort)
    assert (await c.expect(TASK_MANAGEMENT_RESPONSE, abort.itt)).response == COMPLETE
    await c.send(*c.burst(r2t, b"x" * 1024))
    await c.send(*c.burst(r2t_2, pattern(1024)))
    assert (await c.finish(second.itt))[-1].status == GOOD
    assert not [pdu for pdu in await c.quiet() if pdu.itt == first.itt]
    assert await c.contents(0, 4) == pattern(2048, 7)[:1024] + pattern(1024)


async def start_read(c: Connection, data: bytes) -> tuple[int, Pdu]:
    """A READ whose status is not acknowledged; its tag and first Data-In."""
    await c.write(data)
    command = c.command(read10(0, len(data) // 512), read=len(data))
    await c.send(command)
    c.acknowledging = False
    return command.itt, await c.expect(DATA_IN, command.itt)


async def reassigned(c: Connection, itt: int, first: Pdu, data: bytes) -> None:
    """TASK REASSIGN from the second Data-In on: the rest of the data and the status come here."""
    reassign = c.task_management(TASK_REASSIGN, referenced=itt, ref_cmd_sn=0, exp_data_sn=1)
    await c.send(reassign)
    assert (await c.expect(TASK_MANAGEMENT_RESPONSE, reassign.itt)).response == COMPLETE
    answers = await c.finish(itt)
    assert answers[-1].status == GOOD
    rest = [pdu for pdu in answers if pdu.opcode == DATA_IN and pdu.data]
    assert [pdu.data_sn for pdu in rest] == list(range(1, len(rest) + 1))
    assert first.data + b"".join(pdu.data for pdu in rest) == data


async def test_11_2_1_task_reassign_after_logout(dut: DeviceUnderTest) -> None:
    """Test 11.2.1, clauses 7.2.2, 11.5 and 11.14: after a Logout for recovery of its connection a READ goes on at another one,
    from ExpDataSN on. The plan leaves the reason code open; clause 7.2.2 wants "remove the connection for recovery"."""
    first, second = await dut.pair(**RECOVERY)
    data = pattern(8192)
    itt, head = await start_read(first, data)
    await first.send(first.logout(FOR_RECOVERY, first.cid))
    logout = await first.expect(LOGOUT_RESPONSE)
    assert logout.response == 0
    await dut.target.elapse(logout.word(40) >> 16)  # Time2Wait
    await reassigned(second, itt, head, data)


async def test_11_2_2_task_reassign_of_an_allegiant_task(dut: DeviceUnderTest) -> None:
    """Test 11.2.2, clause 11.6.1: while its connection is there a task stays there: "task still allegiant"."""
    first, second = await dut.pair(**RECOVERY)
    itt, _ = await start_read(first, pattern(8192))
    command, r2t = await first.start_write(1024)
    for tag in (itt, command.itt):
        reassign = second.task_management(TASK_REASSIGN, referenced=tag)
        await second.send(reassign)
        assert (await second.expect(TASK_MANAGEMENT_RESPONSE, reassign.itt)).response == STILL_ALLEGIANT
    assert (await first.finish(itt))[-1].status == GOOD
    await first.send(*first.burst(r2t, pattern(1024)))
    assert (await first.finish(command.itt))[-1].status == GOOD


async def test_11_2_3_task_reassign_after_a_dropped_connection(dut: DeviceUnderTest) -> None:
    """Test 11.2.3, clause 7.2.2: after its connection has failed a READ goes on at another one. The plan takes the drop itself
    for an implicit Logout; by the RFC only a Login with that CID is one, so here the Logout for recovery comes first."""
    first, second = await dut.pair(**RECOVERY)
    data = pattern(8192)
    itt, head = await start_read(first, data)
    await first.drop()
    await dut.target.elapse(1)
    logout = second.logout(FOR_RECOVERY, first.cid)
    await second.send(logout)
    response = await second.expect(LOGOUT_RESPONSE, logout.itt)
    assert response.response == 0
    await dut.target.elapse(response.word(40) >> 16)  # Time2Wait
    await reassigned(second, itt, head, data)


async def test_11_3_1_abort_task_set(dut: DeviceUnderTest) -> None:
    """Test 11.3.1, clauses 4.2.3.3 and 11.6: what comes for the aborted READ comes before the response; the NOP-Out, which has
    the CmdSN that the immediate request carried too, is answered."""
    c = await dut.connect(**LEVEL_1)
    command = c.command(read10(0, 16), read=8192)
    abort = c.task_management(ABORT_TASK_SET)
    ping = c.nop_out(immediate=False)
    assert abort.cmd_sn == ping.cmd_sn
    await c.send(command, abort, ping)
    response = await c.expect(TASK_MANAGEMENT_RESPONSE, abort.itt)
    assert response.response == COMPLETE
    echoed = [pdu.itt for pdu in c.aside if pdu.opcode == NOP_IN]
    c.aside.clear()
    after = await c.quiet(1 - len(echoed))
    assert not [pdu for pdu in after if pdu.itt == command.itt]
    assert echoed + [pdu.itt for pdu in after if pdu.opcode == NOP_IN] == [ping.itt]


async def test_11_3_2_abort_task_set_ahead_of_a_command(dut: DeviceUnderTest) -> None:
    """Test 11.3.2, clauses 4.2.3.3 and 11.5.1: an ABORT TASK SET that overtakes a command of an earlier CmdSN waits for it, and
    aborts it. The plan wants no response to the first READ either; that one may have ended before the request came."""
    first, second = await dut.pair(**LEVEL_1)
    session = first.session
    read = first.command(read10(0, 4), read=2048)
    sn = session.number()
    abort = first.task_management(ABORT_TASK_SET)
    ping = first.nop_out(immediate=False)
    assert abort.cmd_sn == ping.cmd_sn == sn + 1
    await first.send(read, abort)
    assert (await first.finish(read.itt))[-1].status == GOOD
    assert not [pdu for pdu in await first.quiet() if pdu.itt == abort.itt]
    late = second.command(read10(0, 4), read=2048, cmd_sn=sn)
    await second.send(late)
    await first.send(ping)
    assert (await first.expect(TASK_MANAGEMENT_RESPONSE, abort.itt)).response == COMPLETE
    await first.expect(NOP_IN, ping.itt)
    answers = [*await first.quiet(), *await second.quiet()]
    assert not [pdu for pdu in answers if pdu.itt == late.itt]


async def test_11_3_3_abort_task_of_no_task(dut: DeviceUnderTest) -> None:
    """Test 11.3.3, clause 11.6.1: a Referenced Task Tag of no task with a RefCmdSN outside of the window: "task does not
    exist"; READ and NOP-Out are answered."""
    c = await dut.connect(**LEVEL_1)
    command = c.command(read10(0, 4), read=2048)
    abort = c.task_management(ABORT_TASK, referenced=0x7777, ref_cmd_sn=c.session.max_cmd_sn + 100)
    ping = c.nop_out(immediate=False)
    await c.send(command, abort, ping)
    assert (await c.expect(TASK_MANAGEMENT_RESPONSE, abort.itt)).response == NO_TASK
    assert (await c.finish(command.itt))[-1].status == GOOD
    assert (await c.expect(NOP_IN)).itt == ping.itt


@pytest.mark.parametrize("function", [WARM_RESET, COLD_RESET], ids=["11.4", "11.5"])
async def test_11_4_and_11_5_target_reset(dut: DeviceUnderTest, function: int) -> None:
    """Tests 11.4 and 11.5, clause 11.5.1: what is pending is cancelled, and ends before the response if at all; after a cold
    reset the connections are closed. A target that does not do it says so (5, 6 or 255)."""
    c = await dut.connect(**LEVEL_1)
    other = await dut.connect()
    await c.write(pattern(1024, 7))
    pending, r2t = await c.start_write(1024)
    command = c.command(read10(0, 16), read=8192)
    reset = c.task_management(function, immediate=False)
    await c.send(command, reset, *c.burst(r2t, pattern(1024)))  # clause 4.2.3.3: R2Ts are served all the same
    response = await c.expect(TASK_MANAGEMENT_RESPONSE, reset.itt)
    if response.response != COMPLETE:
        assert response.response in (NOT_SUPPORTED, NOT_AUTHORIZED, REJECTED)
        assert (await c.finish(command.itt))[-1].status == GOOD
        assert (await c.finish(pending.itt))[-1].status == GOOD
        return
    c.aside.clear()
    if function == COLD_RESET:
        for connection in (c, other):
            assert not [pdu for pdu in await connection.closed() if pdu.ends_command]
    else:
        assert not [pdu for pdu in await c.quiet() if pdu.itt in (pending.itt, command.itt)]
        assert await c.is_open()
        assert await other.is_open()
    fresh = await dut.connect()
    assert await fresh.contents(0, 2) in (pattern(1024), pattern(1024, 7))


async def test_12_1_snack_of_r2t(dut: DeviceUnderTest) -> None:
    """Test 12.1, clause 11.16: an R2T that is asked for again comes as it was, with the current ExpCmdSN, MaxCmdSN and
    StatSN."""
    c = await dut.connect(**LEVEL_1)
    command, r2t = await c.start_write(1024)
    assert (await c.execute(TEST_UNIT_READY))[-1].status == GOOD  # so that there are new numbers
    await c.send(c.snack(SNACK_DATA_R2T, r2t.data_sn, 1, itt=command.itt))
    again = await c.expect(R2T, command.itt)
    assert not differing(again, r2t, CURRENT, STAT_SN)
    assert again.exp_cmd_sn == r2t.exp_cmd_sn + 1
    assert again.stat_sn == r2t.stat_sn + 1
    await c.send(*c.burst(again, pattern(1024)))
    assert (await c.finish(command.itt))[-1].status == GOOD
    assert not await c.quiet()
    assert await c.contents(0, 2) == pattern(1024)


async def received_three(c: Connection, blocks: int) -> tuple[int, list[Pdu]]:
    """A READ, all of its Data-In, and nothing acknowledged."""
    c.acknowledging = False
    answers = await c.read(0, blocks)
    data = [pdu for pdu in answers if pdu.opcode == DATA_IN and pdu.data]
    assert len(data) > 3
    return answers[0].itt, data


async def test_12_2_snack_of_data_in(dut: DeviceUnderTest) -> None:
    """Test 12.2, clause 11.16: one Data-In that is asked for again comes as it was, but for ExpCmdSN and MaxCmdSN."""
    c = await dut.connect(**LEVEL_1)
    await c.write(pattern(8192))
    itt, data = await received_three(c, 16)
    await c.send(c.snack(SNACK_DATA_R2T, data[1].data_sn, 1, itt=itt))
    again = await c.quiet(1)
    assert len(again) == 1
    assert not differing(again[0], data[1], CURRENT)


async def test_12_3_snack_of_all_data_in(dut: DeviceUnderTest) -> None:
    """Test 12.3, clause 11.16.1: BegRun 0 and RunLength 0 ask for all of it that is not acknowledged."""
    c = await dut.connect(**LEVEL_1)
    await c.write(pattern(8192))
    itt, data = await received_three(c, 16)
    await c.send(c.snack(SNACK_DATA_R2T, 0, 0, itt=itt))
    again = [pdu for pdu in await c.quiet(len(data)) if pdu.opcode == DATA_IN and pdu.data]
    assert len(again) == len(data)
    for copy, first in zip(again, data, strict=True):
        assert not differing(copy, first, CURRENT)
    assert b"".join(pdu.data for pdu in again) == pattern(8192)


async def test_12_4_snack_of_what_was_never_sent(dut: DeviceUnderTest) -> None:
    """Test 12.4, clauses 11.16 and 11.17: an R2T that was never sent: Reject, protocol error. The plan wants the last R2TSN
    that was sent in the DataSN field; by clause 11.17.2 it is the next one."""
    c = await dut.connect(**LEVEL_1)
    command, r2t = await c.start_write(1024)
    snack = c.snack(SNACK_DATA_R2T, 255, 1, itt=command.itt)
    reject = await c.ask(snack)
    assert (reject.opcode, reject.response) == (REJECT, PROTOCOL_ERROR)
    assert not not_copied(reject, snack)
    assert reject.data_sn == r2t.data_sn + 1
    await c.send(*c.burst(r2t, pattern(1024)))
    assert (await c.finish(command.itt))[-1].status == GOOD


async def two_writes(dut: DeviceUnderTest) -> tuple[tuple[Connection, Connection], list[tuple[int, Pdu]]]:
    """Two connections of a session, each with a WRITE that waits for its data."""
    pair = await dut.pair(**SOLICITED, MaxRecvDataSegmentLength="1024")
    writes = []
    for n, c in enumerate(pair):
        command, r2t = await c.start_write(1024, lba=2 * n)
        writes.append((command.itt, r2t))
    return pair, writes


async def test_13_1_logout_of_a_connection(dut: DeviceUnderTest) -> None:
    """Test 13.1, clauses 11.14 and 11.15: Logout "close the connection": response 0 and the end of this connection and its
    tasks; the other one goes on."""
    (first, second), writes = await two_writes(dut)
    await first.send(first.logout(CLOSE_CONNECTION, first.cid))
    assert [(pdu.opcode, pdu.response) for pdu in await first.closed()] == [(LOGOUT_RESPONSE, 0)]
    itt, r2t = writes[1]
    await second.send(*second.burst(r2t, pattern(1024)))
    assert (await second.finish(itt))[-1].status == GOOD
    assert await second.is_open()


async def test_13_2_logout_of_the_session(dut: DeviceUnderTest) -> None:
    """Test 13.2, clauses 11.14 and 11.15: Logout "close the session": response 0, and every connection is closed."""
    (first, second), _ = await two_writes(dut)
    await first.send(first.logout(CLOSE_SESSION))
    assert [(pdu.opcode, pdu.response) for pdu in await first.closed()] == [(LOGOUT_RESPONSE, 0)]
    assert not [pdu for pdu in await second.closed() if pdu.ends_command]


async def test_13_3_logout_of_an_unknown_connection(dut: DeviceUnderTest) -> None:
    """Test 13.3, clause 11.15.1: a CID of no connection: response 1, and both connections stay open."""
    pair, writes = await two_writes(dut)
    first = pair[0]
    response = await first.ask(first.logout(CLOSE_CONNECTION, 77))
    assert (response.opcode, response.response) == (LOGOUT_RESPONSE, 1)
    for c, (itt, r2t) in zip(pair, writes, strict=True):
        await c.send(*c.burst(r2t, pattern(1024)))
        assert (await c.finish(itt))[-1].status == GOOD
        assert await c.is_open()


def well_formed(reject: Pdu, request: Request) -> bool:
    """Clause 11.17: ITT reserved, F, the header of the rejected PDU."""
    return (reject.opcode, reject.flags, reject.itt, not_copied(reject, request)) == (REJECT, 0x80, NO_TAG, [])


async def test_14_1_reject_of_data_out(dut: DeviceUnderTest) -> None:
    """Test 14.1, clauses 7.7 and 11.17: Data-Out with the Initiator Task Tag of no task may be rejected; the command does not
    end by it, but after its own data. A Reject has a StatSN of its own and ExpCmdSN as it is."""
    c = await dut.connect(**SOLICITED, MaxRecvDataSegmentLength="1024")
    command, r2t = await c.start_write(1024)
    stray = c.data_out(command.itt + 0x100, r2t.ttt, 0, b"x" * 512, final=False)
    await c.send(stray)
    rejects = await c.quiet()
    assert not c.ended
    assert [well_formed(pdu, stray) for pdu in rejects] in ([], [True])
    await c.send(
        c.data_out(command.itt, r2t.ttt, 0, pattern(1024)[:512], final=False),
        c.data_out(command.itt, r2t.ttt, 512, pattern(1024)[512:], data_sn=1),
    )
    done = (await c.finish(command.itt))[-1]
    assert done.status == GOOD
    assert [pdu.stat_sn for pdu in (*rejects, done)] == list(range(r2t.stat_sn, done.stat_sn + 1))
    for reject in rejects:
        assert reject.exp_cmd_sn == r2t.exp_cmd_sn
    assert await c.contents(0, 2) == pattern(1024)


async def test_14_2_reject_of_a_data_ack(dut: DeviceUnderTest) -> None:
    """Test 14.2, clauses 11.16 and 11.17: DataACK with an Initiator Task Tag is rejected; StatSN, ExpCmdSN and MaxCmdSN of the
    Reject are those of the moment, and the READ is carried out. (The plan's R2T is a Data-In: a READ has no R2T.)"""
    c = await dut.connect(**LEVEL_1)
    command = c.command(read10(0, 4), read=2048)
    snack = c.snack(SNACK_DATA_ACK, 1, 0, itt=command.itt)
    await c.send(command, snack)
    reject = await c.expect(REJECT)
    assert well_formed(reject, snack)
    answers = [*c.aside, *await c.quiet()] if any(pdu.ends_command for pdu in c.aside) else await c.finish(command.itt)
    done = next(pdu for pdu in answers if pdu.ends_command)
    assert done.status == GOOD
    assert abs(done.stat_sn - reject.stat_sn) == 1
    assert reject.exp_cmd_sn == command.cmd_sn + 1


async def test_14_3_reject_of_snack(dut: DeviceUnderTest) -> None:
    """Test 14.3, clauses 11.16 and 11.17: at ErrorRecoveryLevel 0 a SNACK may be rejected; the WRITE goes on."""
    c = await dut.connect(**SOLICITED, MaxRecvDataSegmentLength="1024")
    command, r2t = await c.start_write(1024)
    snack = c.snack(SNACK_DATA_R2T, 0, 1, itt=command.itt)
    await c.send(snack)
    rejects = await c.quiet(1)
    assert [well_formed(pdu, snack) for pdu in rejects] in ([], [True])
    await c.send(*c.burst(r2t, pattern(1024)))
    done = (await c.finish(command.itt))[-1]
    assert done.status == GOOD
    assert [pdu.stat_sn for pdu in (*rejects, done)] == list(range(r2t.stat_sn, done.stat_sn + 1))
    for reject in rejects:
        assert (reject.exp_cmd_sn, reject.max_cmd_sn) == (r2t.exp_cmd_sn, r2t.max_cmd_sn)
