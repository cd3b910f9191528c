"""An FCoE initiator whose link drops, doubles, reorders and damages frames both ways: every byte is verified.

Every command is carried out exactly once, READs excepted whose data the target has not kept until it was asked for again.

Run for minutes by ``tools/fcoe-fault-soak``, and for less by a test. The target is a tcm-run of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from support.fcoe_daemon import FcoeDaemon, fcoe_running
from tcm_fcoe.capture import CaptureFile
from tcm_fcoe.initiator import Faults, FaultyPath, InitiatorPort, Options, Recovery, Target, attach, read_16, write_16

BLOCK = 512
REGION = 1024
"""Blocks that one worker has to itself."""
SIZES = (1, 1, 7, 8, 8, 16, 64, 129, 256, 512)
"""Blocks of one command, chosen by chance: less than a frame, and many bursts."""
FRAMES_KEPT = 100_000
MODES = {"vn2vn": "vn2vn", "p2p": "p2p", "fcf": "fabric"}
"""The target's, and ours with it."""
PATIENCE = Recovery(rec_timeout=0.3, gap_timeout=0.03, command_timeout=0, attempts=1000, retries=1000)


@dataclass
class Tally:
    """What happened."""

    commands: Counter[str] = field(default_factory=Counter)
    octets: int = 0
    again: int = 0
    """READs that were sent again after the target had begun them, because it had not kept their data."""
    faults: Counter[str] = field(default_factory=Counter)
    counters: dict[str, int] = field(default_factory=dict)
    rss: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        commands = ", ".join(f"{count} {name}" for name, count in sorted(self.commands.items()))
        c = self.counters
        return (
            f"{self.commands.total()} commands ({commands}), {self.octets >> 20} MiB verified; "
            f"{c['recs']} REC, {c['srrs']} SRR, {c['aborts']} ABTS, "
            f"{c['retries']} sent again, {self.again} of them begun before; faults: {faults or 'none'}; "
            f"target's memory {self.rss[0] >> 20} to {max(self.rss) >> 20} MiB"
        )


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


class Worker:
    """One command after the other on blocks of its own, and what they must hold."""

    def __init__(self, target: Target, number: int, chance: random.Random, tally: Tally) -> None:
        self.target = target
        self.start = number * REGION
        self.chance = chance
        self.tally = tally
        self.expected = bytearray(REGION * BLOCK)

    async def run(self, until: float) -> None:
        """Until then."""
        while time.monotonic() < until:
            await self.chance.choices((self.write, self.read, self.compare_and_write), (5, 5, 1))[0]()
        # all of it once more
        for at in range(0, REGION, 256):
            await self.verify(at, 256)

    def place(self) -> tuple[int, int]:
        size = self.chance.choice(SIZES)
        return self.chance.randrange(REGION - size), size

    async def execute(self, cdb: bytes, what: str, *, data_out: bytes = b"", read_length: int = 0) -> bytes:
        """GOOD: nothing else is right, whatever the link did."""
        result = await self.target.execute(cdb, data_out=data_out, read_length=read_length)
        assert result.good, f"{what}: status {result.status:#04x}, {result.describe_sense()}"
        assert result.residual == 0, what
        self.tally.commands[what] += 1
        self.tally.again += result.repeats
        return bytes(result.data)

    async def write(self) -> None:
        at, size = self.place()
        data = self.chance.randbytes(size * BLOCK)
        await self.execute(write_16(self.start + at, size), "WRITE", data_out=data)
        self.expected[at * BLOCK : (at + size) * BLOCK] = data

    async def read(self) -> None:
        await self.verify(*self.place())

    async def verify(self, at: int, size: int) -> None:
        data = await self.execute(read_16(self.start + at, size), "READ", read_length=size * BLOCK)
        assert data == self.expected[at * BLOCK : (at + size) * BLOCK], f"LBA {self.start + at}, {size} blocks: other bytes"
        self.tally.octets += len(data)

    async def compare_and_write(self) -> None:
        """Done twice, its second time would miscompare."""
        at = self.chance.randrange(REGION)
        old, new = bytes(self.expected[at * BLOCK : (at + 1) * BLOCK]), self.chance.randbytes(BLOCK)
        cdb = bytes((0x89, 0)) + (self.start + at).to_bytes(8, "big") + bytes((0, 0, 0, 1, 0, 0))
        await self.execute(cdb, "COMPARE AND WRITE", data_out=old + new)
        self.expected[at * BLOCK : (at + 1) * BLOCK] = new


async def counted(target: Target) -> tuple[int, int]:
    """READs and WRITEs that the logical unit has carried out (General Statistics and Performance log page, SPC-5 7.3.9)."""
    cdb = bytes((0x4D, 0, 0x59, 0, 0, 0, 0, 1, 0, 0))
    page = bytes((await target.execute(cdb, read_length=256)).data)
    assert page[0] & 0x3F == 0x19
    return int.from_bytes(page[8:16], "big"), int.from_bytes(page[16:24], "big")


def misbehave(port: InitiatorPort, faults: Faults, chance: random.Random) -> None:
    """From now on."""
    port.incoming, port.outgoing = FaultyPath(faults, chance), FaultyPath(faults, chance)


async def soak(
    daemon: FcoeDaemon, seconds: float, seed: int, *, rate: float, mode: str, recorder: Recorder, depth: int = 64
) -> Tally:
    """``depth`` commands in flight; frames are lost, doubled, out of order or damaged, with chance ``rate`` each."""
    chance = random.Random(seed)
    tally = Tally()
    options, nothing = Options(recovery=PATIENCE), Faults(choose=lambda *_: "none")
    async with attach(daemon.link, mode=MODES[mode], options=options, faults=nothing, capture=recorder) as port:
        target = await port.target()
        await target.test_unit_ready()
        for number in range(depth):
            await target.write(number * REGION, bytes(REGION * BLOCK))
        before = await counted(target)
        misbehave(port, Faults.all(rate), chance)
        until = time.monotonic() + seconds
        workers = [Worker(target, n, random.Random(f"{seed}/{n}"), tally) for n in range(depth)]
        async with anyio.create_task_group() as group:
            group.start_soon(watch, daemon, tally, until)
            for worker in workers:
                group.start_soon(worker.run, until)
        tally.faults = Counter(port.fault_counts)
        tally.counters = port.fcp.counters.as_dict()
        misbehave(port, Faults(), chance)
        assert not port.fcp.tasks
        after = await counted(target)
        assert port.fcp.counters.logouts == 0
    done = [tally.commands[what] for what in ("READ", "WRITE")]
    carried_out = [now - then for now, then in zip(after, before, strict=True)]
    assert done[0] <= carried_out[0] <= done[0] + tally.again, f"{done} answered, {carried_out} carried out: {tally}"
    assert carried_out[1] in (done[1], done[1] + tally.commands["COMPARE AND WRITE"]), (
        f"{done} answered, {carried_out} carried out: {tally}"
    )
    return tally


async def watch(daemon: FcoeDaemon, tally: Tally, until: float) -> None:
    """The target's memory, every few seconds."""
    while time.monotonic() < until:
        tally.rss.append(daemon.rss())
        await anyio.sleep(2)


def run(seconds: float, seed: int, rate: float, mode: str = "vn2vn") -> Tally:
    """One soak with a tcm-run of its own; AssertionError for anything that is not as it should be."""
    with (
        tempfile.TemporaryDirectory() as folder,
        fcoe_running(Path(folder), "--lun", f"ramdisk:size={64 * REGION * BLOCK}", "--log-level=info", mode=mode) as daemon,
    ):
        recorder = Recorder()
        try:
            tally = anyio.run(lambda: soak(daemon, seconds, seed, rate=rate, mode=mode, recorder=recorder))
        except BaseException:
            path = Path(tempfile.gettempdir()) / f"fcoe-fault-soak-{mode}-{seed}-{os.getpid()}.pcap"
            recorder.save(path)
            print(f"target's log:\n{daemon.log()[-4000:]}\nlast frames: {path}", file=sys.stderr)
            raise
        early, late = tally.rss[len(tally.rss) // 4], tally.rss[-1]
        assert late < early * 1.3 + (32 << 20), f"the target grew from {early >> 20} to {late >> 20} MiB"
        return tally


def main() -> None:
    """The command line of ``tools/fcoe-fault-soak``."""
    parser = argparse.ArgumentParser(prog="tools/fcoe-fault-soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of each soak (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one soak each (1)")
    parser.add_argument("--rate", type=float, default=0.01, help="chance of each fault, per frame (%(default)s)")
    parser.add_argument("--mode", choices=MODES, default="vn2vn", help="of the target (%(default)s)")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        print(f"seed {seed}: {run(arguments.seconds, seed, arguments.rate, arguments.mode)}", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
