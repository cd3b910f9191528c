"""What an initiator must not do to recovery, to several connections and to numbering (RFC 7143 clauses 4, 6, 7 and 11).

Each is answered as the RFC says, or the connection is dropped; memory stays bounded, and a session of another initiator, which
has a command in progress all the while, does not notice. The session keeper of every test sees to the last.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from support.ffp import DUTS, SOLICITED, DeviceUnderTest
from support.pdu_initiator import Closed, Connection, LoginRefused, Session, Silence
from support.pdus import (
    CLOSE_SESSION,
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
    TASK_MANAGEMENT_RESPONSE,
    TASK_REASSIGN,
    TEST_UNIT_READY,
    Pdu,
    Request,
    read10,
    write10,
)
from support.scsi import pattern

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend, dut", DUTS, indirect=["dut"])]

BYSTANDER = "iqn.2025-01.test.ffp:bystander"
LEVEL_1 = {**SOLICITED, "ErrorRecoveryLevel": "1", "MaxRecvDataSegmentLength": "1024"}
LEVEL_2 = {**LEVEL_1, "ErrorRecoveryLevel": "2"}
COMPLETE, NO_TASK, STILL_ALLEGIANT, REASSIGNMENT_NOT_SUPPORTED = 0, 1, 3, 4
IMMEDIATE_REJECTED = 0x06
TOO_MANY, CANNOT_INCLUDE, NO_SESSION = 0x0206, 0x0208, 0x020A
BOUND = 48 << 20
"""Bytes: the most that one connection may make the target hold in these tests, which ask for several times that."""
LOST_BOUND = 96 << 20
"""Likewise the connections that a session has lost."""
KEPT = 1000
"""Block address of the bystander's command."""


@asynccontextmanager
async def bystander(dut: DeviceUnderTest) -> AsyncIterator[Connection]:
    """Another initiator with a WRITE that waits for its data: it gets GOOD, and nothing unasked came in between."""
    c = await dut.connect(name=BYSTANDER, **SOLICITED)
    command, r2t = await c.start_write(1024, lba=KEPT)
    yield c
    assert not [pdu for pdu in await c.quiet() if not pdu.target_ping]
    await c.send(*c.burst(r2t, pattern(1024, 99)))
    assert (await c.finish(command.itt))[-1].status == GOOD
    assert await c.contents(KEPT, 2) == pattern(1024, 99)


@contextmanager
def bounded(dut: DeviceUnderTest, limit: int = BOUND) -> Iterator[None]:
    """The target does not take more than so many bytes meanwhile."""
    if dut.resident is not None:
        before = dut.resident()
        yield
        assert dut.resident() - before < limit
        return
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


async def rejected(c: Connection, pdu: Request, *reasons: int) -> Pdu:
    """A Reject with the header, and nothing else; the connection goes on."""
    await c.send(pdu)
    answers = await c.quiet(1)
    assert [each.opcode for each in answers] == [REJECT], answers
    assert answers[0].data[:48] == pdu.header
    assert answers[0].response in (reasons or (answers[0].response,))
    assert await c.is_open()
    return answers[0]


async def reassign(c: Connection, itt: int, **how: Any) -> int:
    """The response code of TASK REASSIGN."""
    pdu = c.task_management(TASK_REASSIGN, referenced=itt, **how)
    await c.send(pdu)
    return (await c.expect(TASK_MANAGEMENT_RESPONSE, pdu.itt)).response


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


# CIDs and reinstatement


async def test_two_connections_claim_one_cid(dut: DeviceUnderTest) -> None:
    """Clause 6.3.4: two logins with one CID, at once: the later to end takes the place of the other, which is closed."""
    async with bystander(dut):
        session = dut.session(**LEVEL_1)
        keeper = await session.connect(0)
        await keeper.settle()
        one, two = await session.open(1), await session.open(1)
        for c in (one, two):
            await c.login_exchange(c.login_request(0, 1, c.identification()))
        await one.login_exchange(one.login_request(1, 3))
        session.connections.append(one)
        assert await one.is_open()
        await two.login_exchange(two.login_request(1, 3))
        session.connections.append(two)
        await one.closed()
        assert (await two.execute(TEST_UNIT_READY))[-1].status == GOOD
        assert await keeper.is_open()


@pytest.mark.parametrize("level", ["0", "1", "2"])
async def test_connection_reinstatement_with_a_task_in_progress(dut: DeviceUnderTest, level: str) -> None:
    """Clause 6.3.4: a login with the CID of a living connection is its implicit Logout, and closes it; its WRITE is aborted, or
    at level 2 may be reassigned to the new one. The session's other connection goes on."""
    async with bystander(dut):
        first, second = await dut.pair(**{**LEVEL_2, "ErrorRecoveryLevel": level})
        pending, _ = await first.start_write(1024)
        kept, r2t = await second.start_write(1024, lba=2)
        again = await first.session.connect(first.cid)
        assert not [pdu for pdu in await first.closed() if pdu.ends_command]
        code = await reassign(again, pending.itt)
        if level == "2":
            assert code == COMPLETE
            answers = await again.finish(pending.itt, pattern(1024))
            assert answers[-1].status == GOOD
        else:
            assert code == REASSIGNMENT_NOT_SUPPORTED
        await second.send(*second.burst(r2t, pattern(1024, 2)))
        assert (await second.finish(kept.itt))[-1].status == GOOD
        assert (await again.execute(TEST_UNIT_READY))[-1].status in (GOOD, 2)  # a unit attention tells of aborted tasks
        assert await again.is_open()


async def test_connection_reinstatement_over_and_over(dut: DeviceUnderTest) -> None:
    """Clause 6.3.4: a connection that is replaced 100 times, each time with a WRITE in progress: memory is bounded, the session
    lives."""
    async with bystander(dut):
        session = dut.session(**LEVEL_2)
        keeper = await session.connect(0)
        await keeper.settle()
        with bounded(dut):
            for _ in range(100):
                c = await session.connect(1)
                await c.send(c.command(write10(0, 128), write=65536, immediate=True))
        await keeper.quiet()
        assert await keeper.is_open()


async def test_session_reinstatement_with_tasks_in_progress(dut: DeviceUnderTest) -> None:
    """Clause 6.3.5: a login with TSIH 0 and the ISID of a living session ends that, with all its connections and tasks."""
    async with bystander(dut):
        first, second = await dut.pair(**LEVEL_2)
        for c in (first, second):
            await c.start_write(1024)
        session = dut.session(**LEVEL_1)
        session.isid = first.session.isid
        fresh = await session.connect(0)
        for c in (first, second):
            assert not [pdu for pdu in await c.closed() if pdu.ends_command]
        await fresh.settle()
        stale = Session(dut.target, isid=first.session.isid, tsih=first.session.tsih, cmd_sn=5)
        if stale.tsih != session.tsih:
            with pytest.raises(LoginRefused) as refused:
                await stale.connect(2)
            assert refused.value.status in (NO_SESSION, CANNOT_INCLUDE)


async def test_two_leading_logins_of_one_session(dut: DeviceUnderTest) -> None:
    """Clause 6.3.5: two leading logins with one ISID, at once: the later to end reinstates the session of the other."""
    async with bystander(dut):
        one, two = dut.session(**LEVEL_1), dut.session(**LEVEL_1)
        two.isid = one.isid
        c, d = await one.open(0), await two.open(0)
        for each in (c, d):
            await each.login_exchange(each.login_request(0, 1, each.identification()))
        await c.login_exchange(c.login_request(1, 3))
        assert await c.is_open()
        await d.login_exchange(d.login_request(1, 3))
        await c.closed()
        assert await d.is_open()
        d.session.connections.append(d)


async def test_connection_joins_a_session_that_ends(dut: DeviceUnderTest) -> None:
    """Clause 6.3.1: a session that is reinstated or closed while another connection logs in to it: that login fails."""
    async with bystander(dut):
        for how in ("reinstated", "logged out"):
            session = dut.session(**LEVEL_1)
            leading = await session.connect(0)
            joining = await session.open(1)
            await joining.login_exchange(joining.login_request(0, 1, joining.identification()))
            if how == "reinstated":
                other = dut.session(**LEVEL_1)
                other.isid = session.isid
                await other.connect(0)
            else:
                await leading.send(leading.logout(CLOSE_SESSION))
            await leading.closed()
            with suppress(LoginRefused, Closed):
                await joining.login_exchange(joining.login_request(1, 3))
            assert not await joining.is_open()


# joining


@pytest.mark.parametrize("what", ["target", "initiator", "portal group", "ISID", "TSIH"])
async def test_connection_joins_a_session_of_another(dut: DeviceUnderTest, what: str) -> None:
    """Clauses 6.3.1 and 11.13.5: a TSIH of a session of another target, initiator, portal group or ISID, or of none, is
    refused; that session does not notice."""
    async with bystander(dut) as other:
        own = await dut.connect(**LEVEL_1)
        session = Session(dut.target, dict(LEVEL_1), isid=own.session.isid, tsih=own.session.tsih)
        if what == "target":
            session.target_name = dut.target.names[1]
        elif what == "initiator":
            session.name, session.isid, session.tsih = own.session.name, other.session.isid, other.session.tsih
        elif what == "portal group":
            session.portal = 1
        elif what == "ISID":
            session.isid = b"\x80\1\2\3\4\5"
        else:
            session.tsih = own.session.tsih % 0xFFFF + 1000
        with pytest.raises(LoginRefused) as refused:
            await session.connect(1)
        assert refused.value.status in (CANNOT_INCLUDE, NO_SESSION)
        assert await own.is_open()


async def test_more_connections_than_max_connections(dut: DeviceUnderTest) -> None:
    """Clauses 11.13.5 and 13.2: the fifth connection of a session with MaxConnections=4 is refused: too many connections."""
    async with bystander(dut):
        session = dut.session(**LEVEL_1)
        for cid in range(4):
            await session.connect(cid)
        with pytest.raises(LoginRefused) as refused:
            await session.connect(4)
        assert refused.value.status == TOO_MANY
        for c in session.connections:
            assert await c.is_open()


async def test_connection_joins_a_discovery_session(dut: DeviceUnderTest) -> None:
    """Clause 4.3: a discovery session has one connection."""
    c = await dut.connect(discovery=True)
    session = Session(dut.target, isid=c.session.isid, tsih=c.session.tsih or 1, discovery=True)
    with pytest.raises(LoginRefused):
        await session.connect(1)


async def test_joining_does_not_change_the_session(dut: DeviceUnderTest) -> None:
    """Clause 13: leading-only keys in the login of another connection are a protocol error or have no effect."""
    async with bystander(dut):
        first = await dut.connect(**LEVEL_1, MaxBurstLength="8192")
        c = await first.session.open(1)
        await c.login_exchange(c.login_request(0, 1, c.identification()))
        with suppress(LoginRefused, Closed):
            await c.login_exchange(c.login_request(1, 3, {"MaxBurstLength": "512", "ErrorRecoveryLevel": "0"}))
            first.session.connections.append(c)
        sent = await first.write(pattern(8192))
        assert [pdu.length for pdu in sent if pdu.opcode == R2T] == [8192]


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


# several connections, one command stream


async def test_initiator_task_tag_in_use(dut: DeviceUnderTest) -> None:
    """Clause 11.2.1.8 and SAM-5, overlapped commands: a new command with the tag of a task in progress, by whatever connection,
    ends both (OVERLAPPED COMMANDS ATTEMPTED); neither writes, and the session goes on."""
    async with bystander(dut):
        first, second = await dut.pair(**LEVEL_1)
        await first.write(pattern(2048, 3))
        for c in (first, second):
            pending, r2t = await first.start_write(1024)
            await c.send(c.command(write10(2, 2), write=1024, itt=pending.itt))
            answers = await c.quiet(1)
            assert [(pdu.itt, pdu.status, pdu.sense) for pdu in answers] == [(pending.itt, 2, (0xB, 0x4E, 0))]
            await first.send(*first.burst(r2t, b"x" * 1024))
            assert not [pdu for pdu in await first.quiet() if pdu.opcode != REJECT]
            assert await second.contents(0, 4) == pattern(2048, 3)


async def test_retry_by_another_connection(dut: DeviceUnderTest) -> None:
    """Clause 7.2.1: a command in progress that comes again by another connection is silently discarded: the CmdSN has been
    used."""
    async with bystander(dut):
        first, second = await dut.pair(**LEVEL_2)
        pending, r2t = await first.start_write(1024)
        await second.send(pending)
        assert not await second.quiet()
        await first.send(*first.burst(r2t, pattern(1024, 8)))
        assert (await first.finish(pending.itt))[-1].status == GOOD
        assert await second.contents(0, 2) == pattern(1024, 8)
        assert not await first.quiet()


async def test_gap_in_the_command_stream(dut: DeviceUnderTest) -> None:
    """Clause 4.2.2.1: commands behind a gap wait, as many as the window holds, and more are ignored; the gap filled by another
    connection, all are carried out, each answered where it came from."""
    async with bystander(dut):
        first, second = await dut.pair(**{**LEVEL_1, "ImmediateData": "Yes", "FirstBurstLength": "65536"})
        session = first.session
        gap = session.number()
        waiting = []
        with bounded(dut):
            while session.cmd_sn != (session.max_cmd_sn + 1) & 0xFFFFFFFF:
                waiting.append(first.command(write10(0, 2), write=1024, data=pattern(1024, len(waiting))))
            beyond = first.command(write10(0, 2), write=1024, data=b"x" * 1024)
            await first.send(*waiting, *waiting, beyond)
            assert not await first.quiet()
        await second.send(second.command(TEST_UNIT_READY, cmd_sn=gap))
        for command in waiting:
            assert (await first.finish(command.itt))[-1].status == GOOD
        assert (await second.next()).status == GOOD
        assert not await first.quiet()
        session.cmd_sn = session.exp_cmd_sn
        assert await first.contents(0, 2) == pattern(1024, len(waiting) - 1)
