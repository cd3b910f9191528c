"""An initiator and a target in memory, N_Port to N_Port, with a clock of their own and a path that may be faulty."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from support.fcp_by_hand import NAME, OURS, THEIR_NAME, THEIRS, Line
from support.fcp_session import fcp_site
from tcm_fcoe.initiator.faults import Faults, FaultyPath
from tcm_fcoe.initiator.fcp_initiator import FcpInitiator
from tcm_fcoe.initiator.nexus import TargetNexus
from tcm_fcoe.initiator.options import Options
from tcm_fcoe.initiator.tasks import FcpTask
from tcm_fcoe.protocol.fcoe import FcoeError, decapsulate
from tcm_fcoe.protocol.fcp_target import FcpTarget
from tcm_fcoe.protocol.frame import Frame
from tcm_fcoe.protocol.n_port import NPort

ETHERNET = 14
TURNS = 64
"""Empty turns of the event loop before the clock may move: what the core does in tasks has been done by then."""
NO_FAULTS = Faults()


class End:
    """One N_Port."""

    def __init__(self, name: bytes, fc_id: int, now: float, make: Callable[[NPort], Any]) -> None:
        self.port = NPort(name, b"\x10" + name[1:])
        self.line = Line()
        self.port.attach(self.line)
        self.port.up(fc_id, fabric=False, now=now, r_a_tov=1.0, e_d_tov=0.5)
        self.fc4 = self.port.fc4 = make(self.port)

    def receive(self, frames: Iterable[bytes | memoryview], now: float) -> None:
        """Those that are sound."""
        for ethernet in frames:
            try:
                sof, fc, eof = decapsulate(memoryview(ethernet)[ETHERNET:])
                frame = Frame.unpack(fc, sof, eof)
            except FcoeError as e:
                setattr(self.line.counters, e.counter, getattr(self.line.counters, e.counter) + 1)
                continue
            self.port.receive(frame, now)
        batch_ended = getattr(self.fc4, "batch_ended", None)
        if batch_ended is not None:
            batch_ended()

    def handle_timer(self, now: float) -> None:
        self.port.timers.run(now)
        self.fc4.handle_timer(now)

    @property
    def next_timer(self) -> float:
        return min(self.port.timers.next, self.fc4.next_timer)


class Pair:
    """Both ends. ``run`` moves frames, and time when there are none."""

    def __init__(self, site: Any, options: Options | None, faults: Faults, seed: int, target: dict[str, Any]) -> None:
        self.now = 1000.0
        self.chance = random.Random(seed)
        self.site = site
        self.initiator = End(NAME, OURS, self.now, lambda port: FcpInitiator(port, options))
        self.target = End(THEIR_NAME, THEIRS, self.now, lambda port: FcpTarget(port, site, **target))
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
        return self.fcp.nexuses[THEIRS]

    def _move(self, sender: End, receiver: End) -> bool:
        """A batch of frames, of any length, from one to the other."""
        outbox, path = sender.line.outbox, self.paths[sender]
        late = path.handle_timer(self.now)
        if late:
            receiver.receive(late, self.now)
        if not outbox:
            sender.fc4.resume(self.now)
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
        due = min(*(end.next_timer for end in ends), *(path.next_timer for path in self.paths.values()))
        assert due < inf, "nothing will ever happen"
        self.now = max(self.now + 1e-5, due)
        for end in ends:
            if end.next_timer <= self.now:
                end.handle_timer(self.now)

    async def execute(self, cdb: bytes = bytes(6), lun: int = 0, **fields: Any) -> FcpTask:
        """One command, to its end."""
        task = FcpTask(cdb, lun, **fields)
        self.fcp.submit(self.nexus, task, self.now)
        await self.run(lambda: task.finished)
        return task


@asynccontextmanager
async def fcoe_pair(
    *backstores: Any,
    options: Options | None = None,
    faults: Faults = NO_FAULTS,
    seed: int = 1,
    target: dict[str, Any] | None = None,
) -> AsyncIterator[Pair]:
    """Logged in, and the unit attention out of the way."""
    async with fcp_site(*backstores) as site:
        pair = Pair(site, options, faults, seed, target or {})
        pair.initiator.port.logins.login(THEIRS, pair.now)
        await pair.run(lambda: THEIRS in pair.fcp.nexuses)
        with anyio.fail_after(60):
            while not (await pair.execute(bytes(6))).result.good:
                pass
        yield pair
        assert not pair.fcp.tasks
