"""What an initiator must not do to recovery and numbering (RFC 7143 clauses 4.2, 7 and 11).

Each is answered as the RFC says, or the connection is dropped; memory stays bounded, and a session of another initiator, which
has a command in progress all the while, does not notice.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from support.ffp import DUTS, DeviceUnderTest
from support.ffp_bad_input import (
    COMPLETE,
    IMMEDIATE_REJECTED,
    KEPT,
    LEVEL_1,
    LEVEL_2,
    LOST_BOUND,
    NO_TASK,
    REASSIGNMENT_NOT_SUPPORTED,
    STILL_ALLEGIANT,
    bounded,
    bystander,
    reassign,
    rejected,
)
from support.pdu_initiator import Closed, Connection, Silence
from support.pdus import (
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
    SNACK_R_DATA,
    SNACK_STATUS,
    TEST_UNIT_READY,
    Pdu,
    Request,
    read10,
    write10,
)
from support.scsi import pattern

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend, dut", DUTS, indirect=["dut"])]


async def unacknowledged_read(c: Connection, blocks: int = 8) -> tuple[int, list[Pdu]]:
    """A READ that has ended for the target; its status stays unacknowledged."""
    c.acknowledging = False
    answers = await c.read(0, blocks)
    return answers[0].itt, [pdu for pdu in answers if pdu.opcode == DATA_IN and pdu.data]


# SNACK


@pytest.mark.parametrize(
    ("begin", "length"),
    [(8, 1), (0, 9), (7, 2), (0xFFFFFFFF, 1), (1, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (1 << 31, 0)],
)
async def test_snack_of_data_never_sent(dut: DeviceUnderTest, begin: int, length: int) -> None:
    """Clause 11.16: a run beyond what was sent is a protocol error as a whole; the Reject says what would be next (11.17.2)."""
    async with bystander(dut):
        c = await dut.connect(**LEVEL_1)
        itt, data = await unacknowledged_read(c)
        assert len(data) == 4
        begin, length = (begin - 4 if 4 <= begin <= 8 else begin), length
        reject = await rejected(c, c.snack(SNACK_DATA_R2T, begin, length, itt=itt), PROTOCOL_ERROR)
        assert reject.data_sn == 4


@pytest.mark.parametrize("begin", [1, 2, 255, 0xFFFFFFFF])
async def test_snack_of_r2t_never_sent(dut: DeviceUnderTest, begin: int) -> None:
    """Clause 11.16: an R2T that was never sent is a protocol error; the task goes on."""
    async with bystander(dut):
        c = await dut.connect(**LEVEL_1)
        command, r2t = await c.start_write(1024)
        await rejected(c, c.snack(SNACK_DATA_R2T, begin, 1, itt=command.itt), PROTOCOL_ERROR)
        await c.send(*c.burst(r2t, pattern(1024)))
        assert (await c.finish(command.itt))[-1].status == GOOD


@pytest.mark.parametrize("how", ["acknowledged", "of no task", "reserved", "of another session", "of another connection"])
async def test_snack_of_data_that_is_not_there(dut: DeviceUnderTest, how: str) -> None:
    """Clauses 4.2.5.1 and 11.16: data of a task that is acknowledged, unknown, or not of this connection is a protocol
    error."""
    async with bystander(dut):
        first, second = await dut.pair(**LEVEL_1)
        stranger = await dut.connect(name="iqn.2025-01.test.ffp:stranger", **LEVEL_1)
        itt, _ = await unacknowledged_read(first)
        asking = {"of another session": stranger, "of another connection": second}.get(how, first)
        if how == "acknowledged":
            first.acknowledging = True
            assert await first.is_open()  # the ping acknowledges
        tag = {"of no task": 0x7777, "reserved": NO_TAG}.get(how, itt)
        await rejected(asking, asking.snack(SNACK_DATA_R2T, 0, 1, itt=tag))


@pytest.mark.parametrize("ahead", [0, 1, 100, 0x7FFFFFFF, -50])
async def test_snack_of_status_that_is_not_there(dut: DeviceUnderTest, ahead: int) -> None:
    """Clause 11.16: a response that was never sent, or was acknowledged, is a protocol error."""
    async with bystander(dut):
        c = await dut.connect(**LEVEL_1)
        await c.execute(TEST_UNIT_READY)
        assert await c.is_open()
        await rejected(c, c.snack(SNACK_STATUS, (c.exp_stat_sn + ahead) & 0xFFFFFFFF, 1), PROTOCOL_ERROR)


async def test_snack_of_status_with_too_long_a_run(dut: DeviceUnderTest) -> None:
    """Clause 11.16: a run of responses that goes beyond what was sent is a protocol error as a whole."""
    c = await dut.connect(**LEVEL_1)
    c.acknowledging = False
    first = (await c.execute(TEST_UNIT_READY))[-1]
    await rejected(c, c.snack(SNACK_STATUS, first.stat_sn, 0xFFFF), PROTOCOL_ERROR)


@pytest.mark.parametrize("ttt", [0, 0x7777, NO_TAG])
async def test_snack_data_ack_of_a_forged_tag(dut: DeviceUnderTest, ttt: int) -> None:
    """Clause 11.16: DataACK has the Target Transfer Tag of a Data-In with the A bit; with any other it acknowledges nothing."""
    async with bystander(dut):
        c = await dut.connect(**LEVEL_1, MaxBurstLength="1024")
        c.answering = False
        itt, data = await unacknowledged_read(c)
        await rejected(c, c.snack(SNACK_DATA_ACK, 2, 0, ttt=ttt))
        c.answering = True
        await c.send(c.snack(SNACK_DATA_R2T, 0, 0, itt=itt))
        assert [pdu.data_sn for pdu in await c.quiet(len(data)) if pdu.opcode == DATA_IN] == [pdu.data_sn for pdu in data]


@pytest.mark.parametrize("tag", [0, NO_TAG])
async def test_snack_r_data_with_a_reserved_snack_tag(dut: DeviceUnderTest, tag: int) -> None:
    """Clause 11.16.4: a SNACK Tag is neither 0 nor reserved."""
    c = await dut.connect(**LEVEL_1)
    itt, _ = await unacknowledged_read(c)
    await rejected(c, c.snack(SNACK_R_DATA, 0, 0, itt=itt, ttt=tag))


@pytest.mark.parametrize("kind", [4, 7, 15])
async def test_snack_of_a_reserved_type(dut: DeviceUnderTest, kind: int) -> None:
    """Clause 11.16.1: types beyond 3 are reserved."""
    c = await dut.connect(**LEVEL_1)
    itt, _ = await unacknowledged_read(c)
    await rejected(c, c.snack(kind, 0, 0, itt=itt))


async def test_snack_floods(dut: DeviceUnderTest) -> None:
    """Clause 11.16: each SNACK of a long READ is answered with all of it; memory is bounded, and the connection goes on."""
    async with bystander(dut):
        c = await dut.connect(**{**LEVEL_1, "MaxRecvDataSegmentLength": "65536"})
        itt, data = await unacknowledged_read(c, 128)
        with bounded(dut):
            for _ in range(20):
                await c.send(*[c.snack(SNACK_DATA_R2T, 0, 0, itt=itt) for _ in range(64)])
                answers = await c.quiet(64 * len(data))
                count = sum(len(pdu.data) for pdu in answers if pdu.opcode == DATA_IN)
                assert count == 64 * sum(len(pdu.data) for pdu in data)
        assert await c.is_open()


# TASK REASSIGN


async def failed_connection(dut: DeviceUnderTest, *, logout: bool = True) -> tuple[Connection, int, bytes, list[Pdu]]:
    """A session that has lost the connection of an unacknowledged READ; what is left of it, the task, its data, its Data-In."""
    first, second = await dut.pair(**LEVEL_2)
    data = pattern(4096)
    await first.write(data)
    itt, sent = await unacknowledged_read(first)
    await first.drop()
    if logout:
        pdu = second.logout(FOR_RECOVERY, first.cid)
        await second.send(pdu)
        assert (await second.expect(LOGOUT_RESPONSE, pdu.itt)).response == 0
    second.aside.clear()  # an Async Message may have told of the lost connection
    return second, itt, data, sent


async def test_task_reassign_without_logout(dut: DeviceUnderTest) -> None:
    """Clause 7.2.2: before its connection is logged out a task is still allegiant, even if the connection has failed; the task
    is not lost by asking too early."""
    async with bystander(dut):
        c, itt, data, _ = await failed_connection(dut, logout=False)
        assert await reassign(c, itt) in (STILL_ALLEGIANT, COMPLETE)
        await c.quiet()
        await c.send(c.logout(FOR_RECOVERY, 0))
        await c.expect(LOGOUT_RESPONSE)
        if await reassign(c, itt) == COMPLETE:
            again = await c.finish(itt)
            assert b"".join(pdu.data for pdu in again if pdu.opcode == DATA_IN) == data


@pytest.mark.parametrize("exp_data_sn", [5, 1000, 0xFFFFFFFF])
async def test_task_reassign_with_an_impossible_exp_data_sn(dut: DeviceUnderTest, exp_data_sn: int) -> None:
    """Clause 11.5.6: an ExpDataSN beyond what was sent is ignored: all the data comes."""
    async with bystander(dut):
        c, itt, data, _ = await failed_connection(dut)
        assert await reassign(c, itt, exp_data_sn=exp_data_sn) == COMPLETE
        again = await c.finish(itt)
        assert b"".join(pdu.data for pdu in again if pdu.opcode == DATA_IN) == data


async def test_task_reassign_of_what_is_not_there(dut: DeviceUnderTest) -> None:
    """Clause 11.6.1: a task that is done, unknown or of another session does not exist."""
    async with bystander(dut) as other:
        pending, r2t = await other.start_write(1024, lba=KEPT + 8)
        first, second = await dut.pair(**LEVEL_2)
        done = (await first.execute(TEST_UNIT_READY))[-1]
        assert await first.is_open()
        for tag in (done.itt, 0x7777, NO_TAG, pending.itt):
            assert await reassign(second, tag) == NO_TASK
        await other.send(*other.burst(r2t, pattern(1024)))
        assert (await other.finish(pending.itt))[-1].status == GOOD


async def test_task_reassign_with_a_lun(dut: DeviceUnderTest) -> None:
    """Clause 11.5.4: the LUN field is reserved in TASK REASSIGN: whatever it holds, the tag finds the task."""
    c, itt, data, _ = await failed_connection(dut)
    assert await reassign(c, itt, lun=b"\0\5" + bytes(6)) == COMPLETE
    assert b"".join(pdu.data for pdu in await c.finish(itt) if pdu.opcode == DATA_IN) == data


async def test_task_reassign_twice(dut: DeviceUnderTest) -> None:
    """Clause 11.6.1: what has been reassigned is allegiant to its new connection."""
    async with bystander(dut):
        c, itt, _, _ = await failed_connection(dut)
        assert await reassign(c, itt) == COMPLETE
        await c.finish(itt)
        assert await reassign(c, itt) in (STILL_ALLEGIANT, NO_TASK)


@pytest.mark.parametrize("level", ["0", "1"])
async def test_task_reassign_below_level_2(dut: DeviceUnderTest, level: str) -> None:
    """Clause 11.6.1: without ErrorRecoveryLevel 2 reassignment is not supported, and Logout for recovery neither."""
    async with bystander(dut):
        first, second = await dut.pair(**{**LEVEL_1, "ErrorRecoveryLevel": level})
        command, r2t = await first.start_write(1024)
        assert await reassign(second, command.itt) == REASSIGNMENT_NOT_SUPPORTED
        response = await second.ask(second.logout(FOR_RECOVERY, first.cid))
        assert (response.opcode, response.response) == (LOGOUT_RESPONSE, 2)
        await first.send(*first.burst(r2t, pattern(1024)))
        assert (await first.finish(command.itt))[-1].status == GOOD


async def test_task_reassign_after_time2retain(dut: DeviceUnderTest) -> None:
    """Clauses 7.5 and 13.16: after Time2Wait and Time2Retain a task of a failed connection does not exist any more."""
    async with bystander(dut):
        first, second = await dut.pair(**LEVEL_2, DefaultTime2Retain="1")
        itt, _ = await unacknowledged_read(first)
        await first.drop()
        await dut.target.elapse(2.5)
        assert await reassign(second, itt) == NO_TASK
        assert await second.is_open()


async def test_lost_connections_are_bounded(dut: DeviceUnderTest) -> None:
    """Clause 7.2: one connection after the other is lost with unacknowledged data; what is kept of them is bounded, and the
    session goes on."""
    async with bystander(dut):
        session = dut.session(**{**LEVEL_2, "MaxRecvDataSegmentLength": "65536"})
        keeper = await session.connect(0)
        await keeper.settle()
        with bounded(dut, LOST_BOUND):
            for n in range(60):
                c = await session.connect(10 + n)
                c.acknowledging = False
                for _ in range(32):
                    await c.read(0, 128)
                await c.drop()
        await keeper.quiet()
        assert await keeper.is_open()
        assert (await keeper.execute(TEST_UNIT_READY))[-1].status == GOOD


# Target Transfer Tags


async def test_forged_target_transfer_tags(dut: DeviceUnderTest) -> None:
    """Clauses 7.7 and 11.7.4: Data-Out with a tag that no R2T gave, or that another task, connection or session got, writes
    nothing: it is rejected, discarded or ends its connection, and the task it aimed at goes on."""
    async with bystander(dut) as other:
        await other.write(pattern(4096, 3), lba=0)
        foreign, foreign_r2t = await other.start_write(1024, lba=KEPT + 8)
        for forge in ("unknown", "reserved", "another task", "another session", "another connection"):
            first, second = await dut.pair(**LEVEL_1)
            aim, r2t = await first.start_write(1024, lba=0)
            task, task_r2t = await first.start_write(1024, lba=2)
            beside, beside_r2t = await second.start_write(1024, lba=4)
            itt, ttt = {
                "unknown": (aim.itt, 0x12345678),
                "reserved": (aim.itt, NO_TAG),
                "another task": (aim.itt, task_r2t.ttt),
                "another session": (foreign.itt, foreign_r2t.ttt),
                "another connection": (beside.itt, beside_r2t.ttt),
            }[forge]
            await first.send(first.data_out(itt, ttt, 0, b"x" * 1024))
            answers = await first.quiet()
            assert not [pdu for pdu in answers if pdu.ends_command and pdu.status == GOOD], forge
            assert {pdu.opcode for pdu in answers} <= {REJECT, R2T, 0x21}, forge
            if not first.ended and not [pdu for pdu in answers if pdu.ends_command]:
                await first.send(*first.burst(r2t, pattern(1024, 4)), *first.burst(task_r2t, pattern(1024, 4)))
                assert (await first.finish(aim.itt))[-1].status == GOOD
                assert (await first.finish(task.itt))[-1].status == GOOD
                assert await first.contents(0, 4) == pattern(1024, 4) * 2
                await first.write(pattern(4096, 3)[:2048])
            await second.send(*second.burst(beside_r2t, pattern(4096, 3)[2048:3072]))
            assert (await second.finish(beside.itt))[-1].status == GOOD
            await second.settle()  # a unit attention tells of the tasks that ended with the first connection
            assert await second.contents(0, 8) == pattern(4096, 3), forge
        await other.send(*other.burst(foreign_r2t, pattern(1024, 5)))
        assert (await other.finish(foreign.itt))[-1].status == GOOD
        assert await other.contents(KEPT + 8, 2) == pattern(1024, 5)


async def test_data_out_floods(dut: DeviceUnderTest) -> None:
    """Clause 7.7: Data-Out of no task, over and over: each is rejected or discarded, or the connection ends; memory is
    bounded."""
    async with bystander(dut):
        c = await dut.connect(**LEVEL_1)
        with bounded(dut):
            for n in range(10):
                await c.send(*[c.data_out(0x9000 + n, 0x77, 0, b"x" * 8192, data_sn=k, final=False) for k in range(100)])
                answers = await c.quiet()
                assert {pdu.opcode for pdu in answers} <= {REJECT}
                if c.ended:
                    break


# StatSN


@pytest.mark.parametrize("jump", [1, 1000, 0x7FFFFFFF, 0x80000000, -1, -1000])
async def test_exp_stat_sn_jumps(dut: DeviceUnderTest, jump: int) -> None:
    """Clause 4.2.2.2: an ExpStatSN that acknowledges what was never sent, or takes back what was, frees nothing that is needed:
    the connection is dropped, or goes on with its own numbers."""
    async with bystander(dut):
        c = await dut.connect(**LEVEL_1)
        expected = c.exp_stat_sn
        ping = c.nop_out(b"jump")
        bhs = bytearray(ping.bhs)
        bhs[28:32] = ((expected + jump) & 0xFFFFFFFF).to_bytes(4, "big")
        await c.send(replace(ping, bhs=bytes(bhs)))
        answers = await c.quiet()
        if c.ended:
            return
        assert [(pdu.opcode, pdu.stat_sn) for pdu in answers] in ([(NOP_IN, expected)], [(REJECT, expected)], [])
        itt, data = await unacknowledged_read(c)
        await c.send(c.snack(SNACK_DATA_R2T, 0, 0, itt=itt))
        again = [pdu for pdu in await c.quiet(len(data)) if pdu.opcode == DATA_IN]
        assert [pdu.data for pdu in again if pdu.data] == [pdu.data for pdu in data]


# floods


async def immediate_flood(c: Connection, pdus: list[Request], kinds: set[int]) -> list[Pdu]:
    """All of it at once; each is answered by one of these, or the connection ends."""
    await c.send(*pdus)
    answers = await c.quiet(len(pdus))
    assert {pdu.opcode for pdu in answers} <= kinds | {REJECT}, {pdu.opcode for pdu in answers}
    if not c.ended:
        assert len(answers) >= len(pdus)
        assert {pdu.response for pdu in answers if pdu.opcode == REJECT} <= {IMMEDIATE_REJECTED}
    return answers


@pytest.mark.parametrize("kind", ["WRITE", "READ", "NOP-Out", "ABORT TASK SET", "QUERY"])
async def test_immediate_floods(dut: DeviceUnderTest, kind: str) -> None:
    """Clauses 4.2.2.1 and 11.17.1: immediate requests without end are carried out, end in BUSY or TASK SET FULL, or are
    rejected as immediate commands; memory is bounded, and the CmdSN window is as it was."""
    async with bystander(dut):
        c = await dut.connect(**LEVEL_1)
        window = c.session.max_cmd_sn - c.session.exp_cmd_sn
        with bounded(dut):
            for _ in range(4):
                pdus = {
                    "WRITE": lambda: c.command(write10(0, 128), write=65536, immediate=True),
                    "READ": lambda: c.command(read10(0, 8), read=4096, immediate=True),
                    "NOP-Out": lambda: c.nop_out(b"x" * 512),
                    "ABORT TASK SET": lambda: c.task_management(2),
                    "QUERY": lambda: c.task_management(1, referenced=0x7777),
                }[kind]
                await immediate_flood(c, [pdus() for _ in range(500)], {0x20, 0x21, 0x22, DATA_IN, R2T})
                if c.ended:
                    break
        if not c.ended:
            assert await c.is_open()
            assert c.session.max_cmd_sn - c.session.exp_cmd_sn == window
            assert (await c.execute(TEST_UNIT_READY))[-1].status in (GOOD, 0x08, 0x28)


@pytest.mark.parametrize("level", ["0", "1", "2"])
async def test_status_is_never_acknowledged(dut: DeviceUnderTest, level: str) -> None:
    """Clause 4.2.2.2: a session that reads and never acknowledges: what is kept for it is bounded, the target stops serving it
    or drops it; once it acknowledges, a living connection goes on."""
    async with bystander(dut):
        c = await dut.connect(**{**LEVEL_2, "ErrorRecoveryLevel": level, "MaxRecvDataSegmentLength": "65536"})
        c.acknowledging = False
        waiting: list[int] = []
        with bounded(dut), suppress(Closed):
            for _ in range(1500):
                command = c.command(read10(0, 128), read=65536)
                await c.send(command)
                waiting.append(command.itt)
                try:
                    while not (await c.next(dut.target.silence * 10)).ends_command:
                        pass
                    waiting.pop()
                except Silence:
                    break
        assert level == "0" or waiting or c.ended
        if not c.ended:
            c.acknowledging = True
            await c.send(c.nop_out())
            for itt in waiting:
                assert (await c.finish(itt))[-1].status == GOOD
            await c.quiet()
            assert (await c.execute(TEST_UNIT_READY))[-1].status == GOOD


async def test_pings_are_never_acknowledged(dut: DeviceUnderTest) -> None:
    """Clause 4.2.2.2: the same with pings, whose data is kept as well."""
    async with bystander(dut):
        c = await dut.connect(**{**LEVEL_1, "MaxRecvDataSegmentLength": "65536"})
        c.acknowledging = False
        with bounded(dut):
            for _ in range(3000):
                await c.send(c.nop_out(b"x" * 60000))
                with suppress(Silence, Closed):
                    await c.next(dut.target.silence * 10)
                if c.ended:
                    break
        if not c.ended:
            c.acknowledging = True
            await c.send(c.nop_out())
            await c.quiet()
            assert await c.is_open()
