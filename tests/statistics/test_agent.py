"""``--agentx`` against master agents that are ill-behaved on purpose: it lets go of them, comes back, and keeps nothing."""

from __future__ import annotations

import itertools
import resource
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from anyio.abc import SocketStream
from support.statistics_site import Site, serving

from tcm.statistics import agentx, snmp, subagent
from tcm.statistics.agentx import HEADER_LENGTH, PduType
from tcm.statistics.mib import Oid
from tcm.statistics.snmp import Agent

SCSI: Oid = (1, 3, 6, 1, 2, 1, 139)
MODULES = 3
"""SCSI-MIB, IPS-AUTH-MIB and ISCSI-MIB are registered."""
pytestmark = pytest.mark.anyio


class Master:
    """One connection, from the master's side."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self._data = b""

    async def receive(self) -> tuple[int, bytes]:
        """Type and whole PDU. Raises :class:`anyio.EndOfStream`."""
        while len(self._data) < HEADER_LENGTH or len(self._data) < agentx.length_of(self._data[:HEADER_LENGTH]):
            self._data += await self.stream.receive(65536)
        length = agentx.length_of(self._data[:HEADER_LENGTH])
        pdu, self._data = self._data[:length], self._data[length:]
        return pdu[1], pdu

    async def say(self, kind: int, payload: bytes = b"", *, session: int = 5, packet: int = 77) -> None:
        await self.stream.send(agentx.pack(PduType(kind), payload, session=session, transaction=1, packet=packet))

    async def accept(self) -> Master:
        """Open and Register are answered."""
        for wanted in (PduType.OPEN, *[PduType.REGISTER] * MODULES):
            kind, pdu = await self.receive()
            assert kind == wanted
            await self.say(PduType.RESPONSE, struct.pack(">IHH", 100, 0, 0), packet=agentx.head_of(pdu).packet)
        return self

    async def get(self, oid: Oid) -> bytes:
        await self.say(PduType.GET, agentx.pack_oid(oid) + agentx.pack_oid(()))
        while True:
            kind, pdu = await self.receive()
            if kind == PduType.RESPONSE:
                return pdu


Behaviour = Callable[[Master], Awaitable[None]]
ALIAS = (*SCSI, 2, 1, 1, 1, 2, 1)


@asynccontextmanager
async def playing(folder: Path, *behaviours: Behaviour) -> AsyncIterator[tuple[Site, list[float]]]:
    """The connections, one after the other, are treated like that, the last kind for ever; and when they came."""
    came: list[float] = []
    path = str(folder / "master")

    async def serve(stream: SocketStream) -> None:
        came.append(anyio.current_time())
        behaviour = behaviours[min(len(came), len(behaviours)) - 1]
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await behaviour(Master(stream))

    async with serving() as site, await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        tasks.start_soon(Agent(path, site.statistics).run)
        try:
            with anyio.fail_after(30):
                yield site, came
        finally:
            tasks.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.sleep(0.02)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snmp, "TICK", 0.05)
    monkeypatch.setattr(snmp, "RECONNECT_SECONDS", (0.1, 0.8))
    monkeypatch.setattr(snmp, "SEND_SECONDS", 0.5)
    monkeypatch.setattr(subagent, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(subagent, "PING_SECONDS", 0.5)


async def test_one_that_hangs_up_is_asked_again_ever_more_seldom(tmp_path: Path) -> None:
    async def hang_up(master: Master) -> None:
        await master.receive()

    async with playing(tmp_path, hang_up) as (_, came):
        await until(lambda: len(came) == 6)
        waits = [later - earlier for earlier, later in itertools.pairwise(came)]
        # a busy machine may take longer
        for wait, least in zip(waits, (0.2, 0.4, 0.8, 0.8, 0.8), strict=True):
            assert wait > 0.9 * least
    assert [snmp.next_wait(before, connected=False) for before in (0.1, 0.2, 0.4, 0.8)] == [0.2, 0.4, 0.8, 0.8]
    assert snmp.next_wait(0.8, connected=True) == 0.1


@pytest.mark.parametrize("what", ["silence", "refused", "version", "length", "close", "half"])
async def test_one_that_is_ill_behaved_is_let_go(tmp_path: Path, what: str) -> None:
    async def ill(master: Master) -> None:
        _, opening = await master.receive()
        packet = agentx.head_of(opening).packet
        if what == "refused":
            await master.say(PduType.RESPONSE, struct.pack(">IHH", 0, 262, 0), packet=packet)
        elif what == "version":
            await master.stream.send(b"\x02" + bytes(19))
        elif what == "length":
            await master.stream.send(struct.pack(">BBBxIIII", 1, 18, 0x10, 0, 0, 0, 0xFFFFFFFC))
        elif what == "close":
            await master.say(PduType.RESPONSE, struct.pack(">IHH", 0, 0, 0), packet=packet)
            await master.say(PduType.CLOSE, b"\5\0\0\0")
        elif what == "half":
            await master.stream.send(struct.pack(">BBBxIIII", 1, 18, 0x10, 0, 0, 0, 8)[:13])
        await master.stream.send_eof() if what == "half" else None
        while True:
            await master.stream.receive()

    good = anyio.Event()

    async def serve(master: Master) -> None:
        await master.accept()
        await master.get(ALIAS)
        good.set()
        await served_for_ever(master)

    async with playing(tmp_path, ill, serve) as (_, came):
        await good.wait()
        assert len(came) == 2


async def served_for_ever(master: Master) -> None:
    while True:
        kind, pdu = await master.receive()
        if kind == PduType.PING:
            await master.say(PduType.RESPONSE, struct.pack(">IHH", 0, 0, 0), packet=agentx.head_of(pdu).packet)


async def test_one_that_never_reads_is_let_go(tmp_path: Path) -> None:
    """Answers do not pile up, and initiators are served meanwhile."""
    good = anyio.Event()
    asked = 0

    async def never_read(master: Master) -> None:
        nonlocal asked
        await master.accept()
        payload = b"\0\0\xff\xff" + (agentx.pack_oid(SCSI) + agentx.pack_oid(()))
        while True:
            await master.say(PduType.GET_BULK, payload)
            asked += 1

    async def serve(master: Master) -> None:
        await master.accept()
        good.set()
        await served_for_ever(master)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with playing(tmp_path, never_read, serve) as (site, _):

        def read() -> None:
            with site.login() as i:
                for n in range(50):
                    assert i.read(n, 1).status == 0

        await until(lambda: asked > 5)
        await to_thread.run_sync(read, abandon_on_cancel=True)
        await good.wait()
    assert asked < 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


async def test_bytes_that_come_one_by_one(tmp_path: Path) -> None:
    done = anyio.Event()

    async def drip(master: Master) -> None:
        await master.accept()
        request = agentx.pack(PduType.GET, agentx.pack_oid(ALIAS) + agentx.pack_oid(()), session=5, transaction=1, packet=9)
        for byte in request:
            await master.stream.send(bytes((byte,)))
        kind, pdu = await master.receive()
        assert (kind, pdu[20 + 4 : 20 + 8]) == (PduType.RESPONSE, bytes(4))
        done.set()
        await served_for_ever(master)

    async with playing(tmp_path, drip):
        await done.wait()


async def test_sets_that_only_begin_leave_nothing(tmp_path: Path) -> None:
    """A master that tests and goes away: nothing is set, and its next session begins afresh."""
    done = anyio.Event()
    bind = struct.pack(">HH", 4, 0) + agentx.pack_oid(ALIAS) + agentx.pack_octets(b"name")

    async def begin(master: Master) -> None:
        await master.accept()
        await master.say(PduType.TEST_SET, bind)
        while True:
            kind, pdu = await master.receive()
            if kind == PduType.RESPONSE:
                assert pdu[24:26] == b"\0\0"
                return

    async def commit(master: Master) -> None:
        await master.accept()
        await master.say(PduType.COMMIT_SET)
        while True:
            kind, pdu = await master.receive()
            if kind == PduType.RESPONSE:
                assert pdu[24:26] == b"\0\x0e"
                break
        assert b"name" not in await master.get(ALIAS)
        done.set()
        await served_for_ever(master)

    async with playing(tmp_path, begin, commit):
        await done.wait()
