"""An FCoE initiator whose link drops, doubles, reorders and damages frames both ways: every byte is verified.

Every command is carried out exactly once, but for READs: nothing of the answer to a short one may come, and the target does not
keep data for ever. Those are carried out once for each time that they were sent, at most.

Run for minutes by ``tools/fcoe-fault-soak``, and for less by a test. The target is a tcm-run of its own.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from support import soak
from support.fcoe_daemon import FcoeDaemon, fcoe_running
from tcm_fcoe.capture import CaptureFile
from tcm_fcoe.initiator import Faults, FaultyPath, InitiatorPort, Options, Recovery, attach
from tcm_fcoe.initiator.results import Result

FRAMES_KEPT = 100_000
MODES = {"vn2vn": "vn2vn", "p2p": "p2p", "fcf": "fabric"}
"""The target's, and ours with it."""
PATIENT = "fcoe:data_out_timeout=600"
"""The target's: p2p's 12 s are soon over if REC is lost a few times, or the machine stands still."""
PATIENCE = Recovery(rec_timeout=0.3, gap_timeout=0.03, command_timeout=0, attempts=1000, retries=1000)


@dataclass
class Tally(soak.Tally):
    """What happened."""

    again: int = 0
    """How often READs were sent again."""
    counters: dict[str, int] = field(default_factory=dict)

    def take(self, result: Result) -> None:
        self.again += result.retries if result.data else 0

    def recovered(self) -> str:
        c = self.counters
        return f"{c['recs']} REC, {c['srrs']} SRR, {c['aborts']} ABTS, {c['retries']} sent again, {self.again} of them READs"


class Recorder(CaptureFile):
    """The last frames of the link; a file only when something has gone wrong."""

    def __init__(self) -> None:
        self.last: deque[tuple[bytes, int]] = deque(maxlen=FRAMES_KEPT)

    def write(self, frame: Any, nanoseconds: int) -> None:
        self.last.append((bytes(frame), nanoseconds))

    def save(self, path: Path) -> None:
        with CaptureFile(str(path)) as capture:
            for frame, nanoseconds in self.last:
                capture.write(frame, nanoseconds)


def misbehave(port: InitiatorPort, faults: Faults, chance: random.Random) -> None:
    """From now on."""
    port.incoming, port.outgoing = FaultyPath(faults, chance), FaultyPath(faults, chance)


async def exercise(
    daemon: FcoeDaemon,
    seconds: float,
    seed: int,
    *,
    rate: float,
    mode: str,
    recorder: Recorder,
    enough: Callable[[Tally], bool],
) -> Tally:
    """Frames are lost, doubled, out of order or damaged, with chance ``rate`` each."""
    chance = random.Random(seed)
    tally = Tally()
    options, nothing = Options(recovery=PATIENCE), Faults(choose=lambda *_: "none")
    async with attach(daemon.link, mode=MODES[mode], options=options, faults=nothing, capture=recorder) as port:
        target = await port.target()
        await soak.clear(target)
        before = await soak.counted(target)
        misbehave(port, Faults.all(rate), chance)

        def satisfied() -> bool:
            tally.faults = Counter(port.fault_counts)
            tally.counters = port.fcp.counters.as_dict()
            return enough(tally)

        await soak.churn(target, daemon, tally, seconds=seconds, seed=seed, enough=satisfied)
        satisfied()
        misbehave(port, Faults(), chance)
        assert not port.fcp.tasks
        after = await soak.counted(target)
        assert port.fcp.counters.logouts == 0
    soak.check_counts(before, after, tally, again=tally.again)
    return tally


def run(seconds: float, seed: int, rate: float, mode: str = "vn2vn", *, enough: Callable[[Tally], bool] = soak.always) -> Tally:
    """One soak with a tcm-run of its own; AssertionError for anything that is not as it should be.

    :param seconds: how long at least; longer until ``enough`` of what happened.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        fcoe_running(Path(folder), "--lun", soak.DISK, "--log-level=info", mode=mode, fabric=PATIENT) as daemon,
    ):
        recorder = Recorder()
        try:
            tally = anyio.run(lambda: exercise(daemon, seconds, seed, rate=rate, mode=mode, recorder=recorder, enough=enough))
        except BaseException:
            path = Path(tempfile.gettempdir()) / f"fcoe-fault-soak-{mode}-{seed}-{os.getpid()}.pcap"
            recorder.save(path)
            print(f"target's log:\n{daemon.log()[-4000:]}\nlast frames: {path}", file=sys.stderr)
            raise
        soak.check_memory(tally)
        return tally


if __name__ == "__main__":
    mode = {"choices": MODES, "default": "vn2vn", "help": "of the target (%(default)s)"}
    soak.command_line("tools/fcoe-fault-soak", __doc__, run, seeds=[1], unit="frame", mode=mode)
