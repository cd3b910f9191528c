"""Sessions at error recovery level 2 as the registry sees them: connections lost, all of them lost, and what ends then."""

from __future__ import annotations

import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support import iscsi_site
from support.iscsi_session import Initiator
from support.scsi import make_lu
from tcm_iscsi import sessions
from tcm_iscsi.connection import Connection
from tcm_iscsi.protocol.arena import DataInArena
from tcm_iscsi.protocol.failure import ConnectionFailed
from tcm_iscsi.protocol.full_feature import FullFeaturePhase
from tcm_iscsi.protocol.pdu import LOGIN_REQUEST, PAD
from tcm_iscsi.protocol.session import Session

from tcm.target.logical_unit import LogicalUnit

pytestmark = pytest.mark.anyio

ISID = b"\x80\0\0\0\0\1"
REMOVE = 2


class Portal:
    """A site with one logical unit, and connections to it without a socket."""

    def __init__(self, unit: LogicalUnit) -> None:
        self.site = iscsi_site.Site({"ErrorRecoveryLevel": 2, "MaxConnections": 2, "InitialR2T": True})
        self.site.group.enabled = True
        self.site.group.add_lun(0, unit)
        self.registry = self.site.registry
        self.arena = DataInArena(1 << 20)

    def log_in(self, cid: int = 0, *, tsih: int = 0, isid: bytes = ISID) -> Connection:
        """Straight to full feature phase."""
        connection = Connection(
            self.registry,
            self.site.binding,
            local=iscsi_site.HERE,
            peer=iscsi_site.THERE,
            arena=self.arena,
            wake=lambda: None,
            now=0.0,
        )
        keys = {
            "InitiatorName": iscsi_site.INITIATOR, "TargetName": iscsi_site.TARGET, "SessionType": "Normal",
        }  # fmt: skip
        if not tsih:
            keys |= {"ErrorRecoveryLevel": "2", "MaxConnections": "2", "InitialR2T": "Yes"}
        data = b"".join(f"{k}={v}\0".encode() for k, v in keys.items())
        bhs = LOGIN_REQUEST.pack(0x43, 0x87, 0, 0, len(data), isid, tsih, 1, cid, 1, 0)
        stream = bytearray(bhs + data + PAD[len(data) & 3])
        connection.process(stream, memoryview(stream), 0, len(stream))
        connection.out.clear()
        return connection

    def sessions(self) -> list[Session]:
        return list(self.registry.sessions.values())


@asynccontextmanager
async def portal() -> AsyncIterator[Portal]:
    async with make_lu() as unit:
        made = Portal(unit)
        yield made
        for session in made.sessions():
            made.registry.drop(session)


def phase_of(connection: Connection) -> FullFeaturePhase:
    assert connection.phase is not None
    return connection.phase


def initiator(connection: Connection) -> Initiator:
    return Initiator(phase_of(connection), cmd_sn=phase_of(connection).session.exp_cmd_sn)


def write10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def start_a_write(connection: Connection) -> None:
    """Its data never comes."""
    i = initiator(connection)
    while (answer := i.feed(i.command(bytes(6), itt=1)))[-1].status:
        pass
    (r2t,) = i.feed(i.command(write10(0, 8), itt=7, write=4096))
    assert r2t.opcode == 0x31
    del answer


async def test_a_session_without_connections_that_is_dismissed_ends() -> None:
    """A cold reset by somebody else, say: nobody is there to be told, and nobody can come back."""
    async with portal() as p:
        connection = p.log_in()
        start_a_write(connection)
        (session,) = p.sessions()
        unit = next(iter(session.port.nexus.luns.values())).logical_unit  # type: ignore[union-attr]  # a normal session has a port
        connection.failed("cut")
        connection.close()
        assert p.sessions() == [session]
        assert len(unit.task_set) == 1
        p.registry.dismiss(session)
        for now in (0.0, 1e6):
            p.registry.handle_timer(now)
        assert not p.sessions()
        assert not len(unit.task_set)


@pytest.mark.parametrize("how", ["disabled", "acl"])
async def test_rights_that_are_taken_from_a_session_without_connections(how: str) -> None:
    """Its tasks wait for nobody."""
    async with portal() as p:
        connection = p.log_in()
        start_a_write(connection)
        (session,) = p.sessions()
        unit = next(iter(session.port.nexus.luns.values())).logical_unit  # type: ignore[union-attr]  # likewise
        connection.failed("cut")
        connection.close()
        if how == "disabled":
            p.site.group.enabled = False
        else:
            session.port.nexus.lose()  # type: ignore[union-attr]  # likewise
        p.registry.handle_timer(0.0)
        assert not p.sessions()
        assert not len(unit.task_set)


async def test_a_lost_connection_does_not_make_room_for_more() -> None:
    """MaxConnections counts those that are there: coming back by the CID of a lost one is one more."""
    async with portal() as p:
        first = p.log_in(0)
        (session,) = p.sessions()
        tsih = session.identity.tsih
        for cid in (1, 2, 3):
            extra = p.log_in(cid, tsih=tsih)
            start_a_write(extra) if cid == 1 else None
            extra.failed("cut")
            extra.close()
        assert [lost.cid for lost in session.lost]
        for cid in (1, 2, 3):
            p.log_in(cid, tsih=tsih)
        assert len(session.connections) == 2
        assert not first.closing


async def test_all_connections_lost_and_back() -> None:
    """7.1.5: within the time a login with the TSIH finds the session; its tasks go on."""
    async with portal() as p:
        connection = p.log_in()
        start_a_write(connection)
        (session,) = p.sessions()
        connection.failed("cut")
        connection.close()
        p.registry.handle_timer(0.0)
        p.registry.handle_timer(10.0)
        back = p.log_in(0, tsih=session.identity.tsih)
        i = initiator(back)
        answers = i.feed(i.task_management(8, referenced=7))
        assert [(a.opcode, a.bhs[2]) for a in answers[:1]] == [(0x22, 0)]
        assert [a.opcode for a in answers[1:]] == [0x31]
        (done,) = i.feed(i.data_out(7, answers[1].word(20), 0, random.Random(1).randbytes(4096)))
        assert done.status == 0
        back.close()


async def test_a_connection_that_is_to_be_closed_and_takes_nothing() -> None:
    """What is queued is sent within a time; one that does not take it is closed nevertheless."""
    async with portal() as p:
        connection = p.log_in()
        connection.last_received = 0.0
        p.registry.dismiss(phase_of(connection).session)
        assert connection.closing
        connection.handle_timer(1.0)
        with pytest.raises(ConnectionFailed):
            connection.handle_timer(100.0)


@pytest.mark.parametrize("bound", ["LOST_SESSIONS", "LOST_TOTAL_BYTES"])
async def test_sessions_that_wait_are_bounded(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who logs in, starts something and vanishes, over and over, has one connection but leaves a session each time."""
    monkeypatch.setattr(sessions, bound, 5 if bound == "LOST_SESSIONS" else 6 * 4096 - 1)
    async with portal() as p:
        left = []
        for number in range(8):
            connection = p.log_in(isid=ISID[:5] + bytes((number,)))
            start_a_write(connection)
            left.append(phase_of(connection).session)
            connection.failed("cut")
            connection.close()
        assert p.sessions() == left[3:]
        assert all(session.closed for session in left[:3])
        for now in (0.0, 1e6):
            p.registry.handle_timer(now)
        assert not p.registry.waiting
