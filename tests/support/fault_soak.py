"""A session at error recovery level 2 that loses, damages and delays PDUs and connections: every byte is verified.

Run for minutes by ``tools/fault-soak``, and for less by a test. The target is a tcm-run of its own.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from support.daemon import Daemon, running, wait_until
from tcm_iscsi.initiator import Faults, InitiatorSession, Options, Recovery, connect, read_16, write_16

BLOCK = 512
REGION = 1024
"""Blocks that one worker has to itself."""
SIZES = (1, 1, 7, 8, 8, 16, 64, 129, 256, 512)
"""Blocks of one command, chosen by chance: less than a segment, more than a burst."""
LIMITS = {"MaxBurstLength": "65536", "FirstBurstLength": "32768", "MaxRecvDataSegmentLength": "8192"}
TARGET = (
    "--param=ErrorRecoveryLevel=2", "--param=MaxConnections=8", "--param=DefaultTime2Wait=0",
    "--param=MaxRecvDataSegmentLength=8192", "--attribute=dataout_timeout=2", "--attribute=dataout_timeout_retries=15",
    "--log-level=error",
)  # fmt: skip


@dataclass
class Tally:
    """What happened."""

    commands: Counter[str] = field(default_factory=Counter)
    octets: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    reconnections: int = 0
    rss: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        commands = ", ".join(f"{count} {name}" for name, count in sorted(self.commands.items()))
        return (
            f"{sum(self.commands.values())} commands ({commands}), "
            f"{self.octets >> 20} MiB verified; {self.reconnections} connections brought back, {self.retries} tasks retried or "
            f"reassigned; faults: {faults or 'none'}; target's memory {self.rss[0] >> 20} to {max(self.rss) >> 20} MiB"
        )


class Worker:
    """One command after the other on blocks of its own, and what they must hold."""

    def __init__(self, session: InitiatorSession, number: int, chance: random.Random, tally: Tally) -> None:
        self.session = session
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
        """Exactly once, and GOOD: nothing else is right, whatever the wire did."""
        result = await self.session.execute(cdb, data_out=data_out, read_length=read_length)
        assert result.good, f"{what}: status {result.status:#04x}, sense {bytes(result.sense or b'').hex()}"
        assert result.residual == 0, what
        self.tally.commands[what] += 1
        self.tally.retries += result.retries
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


async def counted(session: InitiatorSession) -> tuple[int, int]:
    """READs and WRITEs that the logical unit has carried out (General Statistics and Performance log page, SPC-5 7.3.9)."""
    cdb = bytes((0x4D, 0, 0x59, 0, 0, 0, 0, 1, 0, 0))
    page = bytes((await session.execute(cdb, read_length=256)).data)
    assert page[0] & 0x3F == 0x19
    return int.from_bytes(page[8:16], "big"), int.from_bytes(page[16:24], "big")


async def soak(daemon: Daemon, seconds: float, seed: int, *, rate: float, connections: int = 4, depth: int = 64) -> Tally:
    """``depth`` commands in flight; PDUs are dropped, damaged, late, or their connection cut, with chance ``rate`` each."""
    chance = random.Random(seed)
    tally = Tally()
    keys = {"ErrorRecoveryLevel": "2", "HeaderDigest": "CRC32C", "DataDigest": "CRC32C", "DefaultTime2Wait": "0", **LIMITS}
    recovery = Recovery(progress_timeout=0.3, connection_timeout=3.0, task_timeout=0)
    options = Options(keys=keys, recovery=recovery)
    faults = Faults.all(rate, delay_seconds=0.02)
    quiet = Options(keys={"HeaderDigest": "CRC32C"})
    async with connect(daemon.url.text, quiet) as observer:
        await observer.test_unit_ready()
        for number in range(depth):
            await observer.write(number * REGION, bytes(REGION * BLOCK))
        before = await counted(observer)
        async with connect(daemon.url.text, options, connections=connections, faults=faults, chance=chance) as session:
            await session.test_unit_ready()
            until = time.monotonic() + seconds
            workers = [Worker(session, n, random.Random(f"{seed}/{n}"), tally) for n in range(depth)]
            async with anyio.create_task_group() as group:
                group.start_soon(watch, daemon, tally, until)
                for worker in workers:
                    group.start_soon(worker.run, until)
            tally.reconnections = session.recoveries
            tally.faults = Counter(session.fault_counts)
            assert not session.core.requests
        after = await counted(observer)
    done = [tally.commands[what] for what in ("READ", "WRITE")]
    carried_out = [now - then for now, then in zip(after, before, strict=True)]
    assert carried_out[0] == done[0], f"{done[0]} READs were answered, {carried_out[0]} carried out"
    assert carried_out[1] in (done[1], done[1] + tally.commands["COMPARE AND WRITE"]), (
        f"{done} answered, {carried_out} carried out"
    )
    return tally


async def watch(daemon: Daemon, tally: Tally, until: float) -> None:
    """The target's memory, every few seconds."""
    while time.monotonic() < until:
        tally.rss.append(daemon.rss())
        await anyio.sleep(2)


def run(seconds: float, seed: int, rate: float) -> Tally:
    """One soak with a tcm-run of its own; AssertionError for anything that is not as it should be."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), "--lun", f"ramdisk:size={64 * REGION * BLOCK}", *TARGET) as daemon,
    ):
        files = daemon.file_descriptors()
        tally = anyio.run(lambda: soak(daemon, seconds, seed, rate=rate))
        wait_until(lambda: daemon.file_descriptors() <= files, 10, "all connections are closed")
        early, late = tally.rss[len(tally.rss) // 4], tally.rss[-1]
        assert late < early * 1.3 + (32 << 20), f"the target grew from {early >> 20} to {late >> 20} MiB"
        return tally


def main() -> None:
    """The command line of ``tools/fault-soak``."""
    parser = argparse.ArgumentParser(prog="tools/fault-soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of each soak (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="one soak each (1 2)")
    parser.add_argument("--rate", type=float, default=0.01, help="chance of each fault, per PDU (%(default)s)")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        print(f"seed {seed}: {run(arguments.seconds, seed, arguments.rate)}", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
