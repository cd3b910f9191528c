"""An initiator's session and a real target, without a socket: bytes go to and fro, and time passes, when the test says so."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from anyio.lowlevel import checkpoint
from support.iscsi_login import TARGET
from support.iscsi_site import HERE, THERE, Site
from support.scsi import make_lu
from tcm_iscsi.connection import Connection as TargetConnection
from tcm_iscsi.initiator import Faults, FaultyWire, Login, Options, Recovery, ScsiTask, Session, read_16, write_16
from tcm_iscsi.initiator.connection import Connection
from tcm_iscsi.initiator.login import LoggedIn
from tcm_iscsi.initiator.options import INITIATOR_NAME
from tcm_iscsi.initiator.results import ConnectionLost, Event, LoginFailed
from tcm_iscsi.protocol.arena import DataInArena
from tcm_iscsi.protocol.failure import ConnectionFailed
from tcm_iscsi.protocol.pdu import OPCODE_MASK, Opcode

DIGESTS = {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"}
SMALL = {"MaxRecvDataSegmentLength": "1024", "MaxBurstLength": "4096"}
SOLICITED = {"InitialR2T": "Yes", "ImmediateData": "No"}
BLOCK = 512
PARAMETERS = {"ErrorRecoveryLevel": 2, "MaxConnections": 8, "DefaultTime2Wait": 2, "DefaultTime2Retain": 20}


class Chance:
    """A random generator with its own sequence, the same on every Python."""

    def __init__(self, seed: int = 0) -> None:
        self.state = seed.to_bytes(8, "big")

    def bytes(self, length: int) -> bytes:
        self.state = hashlib.sha256(self.state).digest()
        return hashlib.shake_128(self.state).digest(length)

    def random(self) -> float:
        return int.from_bytes(self.bytes(6), "big") / (1 << 48)

    def randrange(self, stop: int) -> int:
        return int.from_bytes(self.bytes(6), "big") % stop


class Line:
    """One TCP connection that is none: the target's end, the initiator's end, and what may happen in between."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.target = TargetConnection(
            pair.site.registry,
            pair.site.binding,
            local=HERE,
            peer=THERE,
            arena=DataInArena(1 << 20),
            wake=lambda: None,
            now=pair.now,
        )
        self.connection: Connection | None = None
        self.faults: FaultyWire | None = None
        self.rest = bytearray()
        self.cut = False

    def to_target(self, data: bytes) -> None:
        """The target receives."""
        if self.cut or not data:
            return
        target = self.target
        target.last_received = self.pair.now
        self.rest += data
        try:
            while self.rest and not target.closing:
                room = target.payload_room()
                if room is not None:
                    count = min(len(room), len(self.rest))
                    room[:count] = self.rest[:count]
                    target.payload_received(count)
                    del self.rest[:count]
                    continue
                buf = bytearray(self.rest)
                done = target.process(buf, memoryview(buf), 0, len(buf))
                if not done:
                    break
                self.collect_early()
                del self.rest[:done]
        except ConnectionFailed as e:
            target.failed(str(e))

    def collect_early(self) -> None:
        """What the target has queued may point into its arena and into our buffer: copy it."""
        target = self.target
        target.out[:] = [bytes(piece) for piece in target.out]
        target.arena.free = 0

    def from_target(self) -> bytes:
        """Everything the target wants to send."""
        target = self.target
        data = b""
        while target.out:
            data += b"".join(bytes(piece) for piece in target.out)
            target.sent(sum(map(len, target.out)))
            target.arena.free = 0
            target.resume()
        return data

    def end(self, reason: str = "cut") -> None:
        """Both ends find the connection gone."""
        if not self.cut:
            self.cut = True
            self.target.close()
            if self.connection is not None:
                self.pair.session.connection_lost(self.connection, reason)


class Pair:
    """A session of the initiator with a target that has one RAM disk."""

    def __init__(self, site: Site, options: Options, faults: Faults | None, chance: Chance) -> None:
        self.site = site
        self.options = options
        self.faults = faults
        self.chance = chance
        self.now = 1000.0
        self.session: Session
        self.lines: dict[int, Line] = {}
        self.events: list[Event] = []
        self.observer: Callable[[Any, str, bytes, bytes], None] | None = None
        self.fault_counts: dict[str, int] = {}
        self.reconnect = True
        """Bring lost connections back when their time has come."""

    def log_in(self, cid: int, *, tsih: int | None = None, exp_stat_sn: int = 0) -> tuple[Line, LoggedIn]:
        line = Line(self)
        session = getattr(self, "session", None)
        login = Login(
            self.options,
            isid=self.options.isid or b"\x80\1\2\3\4\5",
            cid=cid,
            tsih=(session.tsih if session else 0) if tsih is None else tsih,
            cmd_sn=session.cmd_sn if session else None,
            exp_stat_sn=exp_stat_sn,
            joined=session.parameters if session else None,
            random_bytes=self.chance.bytes,
        )
        for _ in range(100):
            for data in login.data_to_send():
                line.to_target(data)
            login.receive_data(line.from_target())
            event = login.next_event()
            if isinstance(event, LoginFailed):
                raise event
            if event is not None:
                return line, event
        raise AssertionError("no end of the login")

    def add(self, cid: int) -> Connection:
        """One more connection, or one that replaces another."""
        lost = self.session.recovery.lost.get(cid) if hasattr(self, "session") else None
        line, event = self.log_in(cid, exp_stat_sn=lost.exp_stat_sn if lost else 0)
        if not hasattr(self, "session"):
            self.session = Session(self.options, event, now=self.now)
            self.session.observer = self.observer
        if self.faults is not None:
            parameters = event.connection_parameters
            line.faults = FaultyWire(
                self.faults,
                self.chance,
                header_digest=parameters.header_digest,
                data_digest=parameters.data_digest,
            )
        self.lines[cid] = line
        line.connection = connection = self.session.attach(event)
        return connection

    async def settle(self) -> None:
        """Move bytes until nobody has anything more to say."""
        quiet = 0
        while quiet < 6:
            await checkpoint()
            if not self.move():
                quiet += 1
            else:
                quiet = 0
            self.take_events()

    def move(self) -> bool:
        """One round; whether there was anything."""
        session, moved = self.session, False
        session.now = self.now
        session.take_dirty()
        for line in list(self.lines.values()):
            connection = line.connection
            assert connection is not None
            out = b"".join(bytes(piece) for piece in connection.take())
            if line.faults is not None:
                out = line.faults.outgoing(out, self.now)
            if out and not connection.dead:
                line.to_target(out)
                moved = True
            if line.target.phase is not None:
                line.target.resume()
            back = line.from_target()
            if line.faults is not None:
                back = line.faults.incoming(back, self.now)
            if back and not line.cut:
                connection.receive_data(back)
                moved = True
            if not line.cut and ((line.faults is not None and line.faults.cut) or line.target.closing or connection.dead):
                line.end("cut" if line.faults is not None and line.faults.cut else line.target.reason or "closed")
                moved = True
        return moved

    def take_events(self) -> None:
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, ConnectionLost):
                line = self.lines.pop(event.cid, None)
                if line is not None:
                    self.tally(line)
                    line.end()

    def tally(self, line: Line) -> None:
        for name, count in line.faults.done.items() if line.faults is not None else ():
            self.fault_counts[name] = self.fault_counts.get(name, 0) + count

    async def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass, for both sides."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            for line in list(self.lines.values()):
                if line.faults is not None:
                    out, back = line.faults.handle_timer(self.now)
                    line.to_target(out)
                    if back and line.connection is not None and not line.cut:
                        line.connection.receive_data(back)
                try:
                    if not line.cut:
                        line.target.handle_timer(self.now)
                except ConnectionFailed as e:
                    line.target.failed(str(e))
            self.session.handle_timer(self.now)
            await self.settle()
            if self.reconnect:
                for lost in list(self.session.recovery.lost.values()):
                    by_logout = self.options.recovery.by_logout and self.session.choose() is not None
                    if self.now >= lost.wait_until and not by_logout and self.session.ended is None:
                        self.add(lost.cid)
                        await self.settle()

    # requests

    def start(self, task: ScsiTask) -> ScsiTask:
        self.session.now = self.now
        self.session.submit(task)
        return task

    async def run(self, task: ScsiTask, patience: float = 60.0) -> ScsiTask:
        """Submit, and wait."""
        self.start(task)
        await self.until(lambda: task.finished, patience)
        return task

    async def until(self, condition: Callable[[], bool], patience: float = 60.0) -> None:
        await self.settle()
        waited = 0.0
        while not condition():
            assert waited < patience, f"not within {patience} s; {self.events[-5:]}"
            await self.advance(0.25)
            waited += 0.25

    async def write(self, lba: int, data: bytes) -> ScsiTask:
        task = await self.run(ScsiTask(write_16(lba, len(data) // BLOCK), data_out=data))
        assert task.error is None, task.error
        assert task.result.good, task.result
        return task

    async def read(self, lba: int, blocks: int) -> bytes:
        task = await self.run(ScsiTask(read_16(lba, blocks), read_length=blocks * BLOCK))
        assert task.error is None, task.error
        assert task.result.good, task.result
        return bytes(task.buffer)


@asynccontextmanager
async def paired(
    *,
    level: int = 0,
    connections: int = 1,
    faults: Faults | None = None,
    seed: int = 1,
    recovery: Recovery | None = None,
    parameters: dict[str, Any] | None = None,
    backstore: Any = None,
    observer: Callable[[Any, str, bytes, bytes], None] | None = None,
    acl: dict[str, Any] | None = None,
    **keys: str,
) -> AsyncIterator[Pair]:
    """Logged in, with that many connections; unit attentions are out of the way.

    :param acl: attributes of a node ACL for the initiator.
    """
    site = Site({**PARAMETERS, **(parameters or {})})
    options = Options(
        target_name=TARGET,
        keys={"ErrorRecoveryLevel": str(level), **keys},
        recovery=recovery or Recovery(progress_timeout=1.0, connection_timeout=10.0),
    )
    async with make_lu(backstore) as unit:
        site.group.enabled = True
        site.group.add_lun(0, unit)
        if acl is not None:
            site.group.map_lun(site.acl(INITIATOR_NAME, **acl), 0, 0)
        pair = Pair(site, options, None, Chance(seed))
        pair.observer = observer
        for cid in range(connections):
            pair.add(cid)
        for _ in range(4):
            if (await pair.run(ScsiTask(bytes(6)))).result.good:
                break
        pair.faults = faults
        if faults is not None:
            for line in pair.lines.values():
                assert line.connection is not None
                line.faults = FaultyWire(
                    faults,
                    pair.chance,
                    header_digest=line.connection.header_digest,
                    data_digest=line.connection.data_digest,
                )
        try:
            yield pair
        finally:
            for line in pair.lines.values():
                pair.tally(line)
                line.target.close()


async def exercise(pair: Pair, *, count: int = 40, blocks: int = 64) -> None:
    """Writes and reads, many at a time, each in a place of its own; every byte is compared."""
    chance = Chance(99)
    data = {n: chance.bytes((1 + chance.randrange(blocks)) * BLOCK) for n in range(count)}
    writes = [pair.start(ScsiTask(write_16(n * blocks, len(data[n]) // BLOCK), data_out=data[n])) for n in data]
    await pair.until(lambda: all(task.finished for task in writes))
    assert [task.error for task in writes if task.error] == []
    assert all(task.result.good for task in writes)
    reads = {n: pair.start(ScsiTask(read_16(n * blocks, len(data[n]) // BLOCK), read_length=len(data[n]))) for n in data}
    await pair.until(lambda: all(task.finished for task in reads.values()))
    for n, task in reads.items():
        assert task.error is None, task.error
        assert bytes(task.buffer) == data[n], f"place {n}"


class Seen:
    """Every PDU, for a test to look at."""

    def __init__(self) -> None:
        self.pdus: list[tuple[int, str, bytes, bytes]] = []

    def __call__(self, connection: Any, direction: str, bhs: bytes, data: bytes) -> None:
        self.pdus.append((connection.cid, direction, bhs, data))

    def of(self, direction: str, opcode: Opcode) -> list[bytes]:
        return [bhs for _, way, bhs, _ in self.pdus if way == direction and bhs[0] & OPCODE_MASK == opcode]


def word(bhs: bytes, at: int) -> int:
    return int.from_bytes(bhs[at : at + 4], "big")
