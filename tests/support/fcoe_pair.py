"""An initiator and a target in memory, station to station, with a clock of their own and a path that may be faulty."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from support.fcp_session import fcp_site
from tcm_fcoe.initiator.faults import Faults, FaultyPath
from tcm_fcoe.initiator.fcp_initiator import FcpInitiator
from tcm_fcoe.initiator.nexus import TargetNexus
from tcm_fcoe.initiator.options import Options
from tcm_fcoe.initiator.tasks import FcpTask
from tcm_fcoe.protocol.fcp_target import FcpTarget
from tcm_fcoe.protocol.n_port import NPort
from tcm_fcoe.protocol.names import name_from_mac
from tcm_fcoe.protocol.station import Station

TURNS = 64
"""Empty turns of the event loop before the clock may move: what the core does in tasks has been done by then."""
NO_FAULTS = Faults()


class End:
    """A station with one N_Port."""

    def __init__(self, mode: str, number: int, now: float, make: Callable[[NPort], Any], seed: int) -> None:
        address = b"\x52\x54\x00\x00\x00" + bytes((number,))
        self.station = Station(mode, address, rng=random.Random(f"{seed}/{number}/station"))
        self.port = NPort(name_from_mac(address), name_from_mac(address, naa=1))
        self.port.attach(self.station)
        self.fc4 = self.port.fc4 = make(self.port)
        self.station.add_port(self.port, now)

    def receive(self, frames: Iterable[bytes | memoryview], now: float) -> None:
        self.station.receive([memoryview(frame) for frame in frames], now)
        batch_ended = getattr(self.fc4, "batch_ended", None)
        if batch_ended is not None:
            batch_ended()


class Pair:
    """Both ends. ``run`` moves frames, and time when there are none."""

    def __init__(
        self, site: Any, modes: tuple[str, str], options: Options | None, faults: Faults, seed: int, target: dict[str, Any]
    ) -> None:
        self.now = 1000.0
        self.chance = random.Random(seed)
        self.site = site
        self.initiator = End(modes[0], 1, self.now, lambda port: FcpInitiator(port, options), seed)
        self.target = End(modes[1], 2, self.now, lambda port: FcpTarget(port, site, **target), seed)
        site.target = self.target.fc4
        self.seed = seed
        self.misbehave(faults)
        self.fcp: FcpInitiator = self.initiator.fc4
        self.idle = 0

    def misbehave(self, faults: Faults) -> None:
        """From now on, both ways."""
        self.paths = {
            end: FaultyPath(faults, random.Random(f"{self.seed}/{number}"))
            for number, end in enumerate((self.initiator, self.target))
        }

    @property
    def nexus(self) -> TargetNexus:
        (nexus,) = self.fcp.nexuses.values()
        return nexus

    def _move(self, sender: End, receiver: End) -> bool:
        """A batch of frames, of any length, from one to the other."""
        outbox, path = sender.station.outbox, self.paths[sender]
        late = path.handle_timer(self.now)
        if late:
            receiver.receive(late, self.now)
        if not outbox:
            sender.station.resume(self.now)
            if not outbox:
                return bool(late)
        count = min(len(outbox), self.chance.randrange(1, 64))
        receiver.receive(path.take([outbox.popleft() for _ in range(count)], self.now), self.now)
        return True

    async def run(self, until: Callable[[], bool], seconds: float = 600.0) -> None:
        """Until then; AssertionError if it takes longer, by this clock."""
        deadline = self.now + seconds
        while not until():
            assert self.now < deadline, f"nothing after {seconds:g} s"
            moved = self._move(self.initiator, self.target) | self._move(self.target, self.initiator)
            if moved:
                self.idle = 0
                self.now += 1e-5
                continue
            await checkpoint()
            self.idle += 1
            if self.idle > TURNS:
                self.idle = 0
                self.advance()

    def advance(self) -> None:
        """To the next timer."""
        ends = (self.initiator, self.target)
        due = min(*(end.station.next_timer for end in ends), *(path.next_timer for path in self.paths.values()))
        assert due < inf, "nothing will ever happen"
        self.now = max(self.now + 1e-5, due)
        for end in ends:
            if end.station.next_timer <= self.now:
                end.station.handle_timer(self.now)

    async def execute(self, cdb: bytes = bytes(6), lun: int = 0, **fields: Any) -> FcpTask:
        """One command, to its end."""
        task = FcpTask(cdb, lun, **fields)
        self.fcp.submit(self.nexus, task, self.now)
        await self.run(lambda: task.finished)
        return task


@asynccontextmanager
async def fcoe_pair(
    *backstores: Any,
    modes: tuple[str, str] = ("vn2vn", "vn2vn"),
    options: Options | None = None,
    faults: Faults = NO_FAULTS,
    seed: int = 1,
    target: dict[str, Any] | None = None,
) -> AsyncIterator[Pair]:
    """Logged in, and the unit attention out of the way."""
    async with fcp_site(*backstores) as site:
        pair = Pair(site, modes, options, faults, seed, target or {})
        for end in (pair.initiator, pair.target):
            end.station.link_up(pair.now)
        await pair.run(lambda: bool(pair.fcp.nexuses))
        with anyio.fail_after(60):
            while not (await pair.execute(bytes(6))).result.good:
                pass
        yield pair
        assert not pair.fcp.tasks
