"""What an initiator must not do to sessions of several connections (RFC 7143 clauses 4.2, 6 and 7.2).

Each is answered as the RFC says, or the connection is dropped; memory stays bounded, and a session of another initiator, which
has a command in progress all the while, does not notice.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from support.ffp import DUTS, DeviceUnderTest
from support.ffp_bad_input import (
    CANNOT_INCLUDE,
    COMPLETE,
    LEVEL_1,
    LEVEL_2,
    NO_SESSION,
    REASSIGNMENT_NOT_SUPPORTED,
    TOO_MANY,
    bounded,
    bystander,
    reassign,
)
from support.pdu_initiator import Closed, LoginRefused, Session
from support.pdus import (
    CLOSE_SESSION,
    GOOD,
    R2T,
    REJECT,
    TEST_UNIT_READY,
    write10,
)
from support.scsi import pattern

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend, dut", DUTS, indirect=["dut"])]


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
