"""Many commands at once whose every byte is verified, while something goes wrong below: what the fault soaks share."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from support.daemon import Daemon

from tcm.initiator.commands import Commands
from tcm.initiator.results import Result
from tcm.scsi import cdb as cdbs

BLOCK = 512
REGION = 1024
"""Blocks that one worker has to itself."""
WORKERS = 64
SIZES = (1, 1, 7, 8, 8, 16, 64, 129, 256, 512)
"""Blocks of one command, chosen by chance: less than one piece on the wire, and more than a burst."""
DISK = f"ramdisk:size={WORKERS * REGION * BLOCK}"
COMPARE_AND_WRITE = "COMPARE AND WRITE"
STATISTICS_PAGE = 0x19


@dataclass
class Tally:
    """What happened."""

    commands: Counter[str] = field(default_factory=Counter)
    octets: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    rss: list[int] = field(default_factory=list)

    def take(self, result: Result) -> None:
        """A command has ended with GOOD."""

    def recovered(self) -> str:
        """What the transport did about the faults."""
        raise NotImplementedError

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        commands = ", ".join(f"{count} {name}" for name, count in sorted(self.commands.items()))
        return (
            f"{self.commands.total()} commands ({commands}), {self.octets >> 20} MiB verified; {self.recovered()}; "
            f"faults: {faults or 'none'}; target's memory {self.rss[0] >> 20} to {max(self.rss) >> 20} MiB"
        )


class Worker:
    """One command after the other on blocks of its own, and what they must hold."""

    def __init__(self, unit: Commands, number: int, chance: random.Random, tally: Tally) -> None:
        self.unit = unit
        self.start = number * REGION
        self.chance = chance
        self.tally = tally
        self.expected = bytearray(REGION * BLOCK)

    async def run(self, going_on: Callable[[], bool]) -> None:
        """As long as that is so."""
        while going_on():
            await self.chance.choices((self.write, self.read, self.compare_and_write), (5, 5, 1))[0]()
        # all of it once more
        for at in range(0, REGION, 256):
            await self.verify(at, 256)

    def place(self) -> tuple[int, int]:
        size = self.chance.choice(SIZES)
        return self.chance.randrange(REGION - size), size

    async def execute(self, cdb: bytes, what: str, *, data_out: bytes = b"", read_length: int = 0) -> bytes:
        """GOOD: nothing else is right, whatever the wire did."""
        result = await self.unit.execute(cdb, data_out=data_out, read_length=read_length)
        assert result.good, f"{what}: status {result.status:#04x}, {result.describe_sense()}"
        assert result.residual == 0, what
        self.tally.commands[what] += 1
        self.tally.take(result)
        return bytes(result.data)

    async def write(self) -> None:
        at, size = self.place()
        data = self.chance.randbytes(size * BLOCK)
        await self.execute(cdbs.write_16(self.start + at, size), "WRITE", data_out=data)
        self.expected[at * BLOCK : (at + size) * BLOCK] = data

    async def read(self) -> None:
        await self.verify(*self.place())

    async def verify(self, at: int, size: int) -> None:
        data = await self.execute(cdbs.read_16(self.start + at, size), "READ", read_length=size * BLOCK)
        assert data == self.expected[at * BLOCK : (at + size) * BLOCK], f"LBA {self.start + at}, {size} blocks: other bytes"
        self.tally.octets += len(data)

    async def compare_and_write(self) -> None:
        """Done twice, its second time would miscompare."""
        at = self.chance.randrange(REGION)
        old, new = bytes(self.expected[at * BLOCK : (at + 1) * BLOCK]), self.chance.randbytes(BLOCK)
        await self.execute(cdbs.compare_and_write(self.start + at, 1), COMPARE_AND_WRITE, data_out=old + new)
        self.expected[at * BLOCK : (at + 1) * BLOCK] = new


async def clear(unit: Commands) -> None:
    """Zeros, as every worker expects at first."""
    await unit.test_unit_ready()
    for number in range(WORKERS):
        await unit.write(number * REGION, bytes(REGION * BLOCK))


def always(_tally: Tally) -> bool:
    """Whatever was done is enough."""
    return True


async def churn(unit: Commands, daemon: Daemon, tally: Tally, *, seconds: float, seed: int, enough: Callable[[], bool]) -> None:
    """A command of each worker at a time. AssertionError for any byte or status that is not right.

    :param seconds: how long at least.
    :param enough: and until this is so, on a machine that does little in that time.
    """
    until = time.monotonic() + seconds

    def going_on() -> bool:
        return time.monotonic() < until or not enough()

    workers = [Worker(unit, number, random.Random(f"{seed}/{number}"), tally) for number in range(WORKERS)]
    async with anyio.create_task_group() as group:
        group.start_soon(_watch, daemon, tally, going_on)
        for worker in workers:
            group.start_soon(worker.run, going_on)


async def _watch(daemon: Daemon, tally: Tally, going_on: Callable[[], bool]) -> None:
    """The target's memory: once at least, and every few seconds."""
    tally.rss.append(daemon.rss())
    while going_on():
        await anyio.sleep(2)
        tally.rss.append(daemon.rss())


async def counted(unit: Commands) -> tuple[int, int]:
    """READs and WRITEs that the logical unit has carried out (General Statistics and Performance log page, SPC-5 7.3.9)."""
    result = await unit.execute(cdbs.log_sense(STATISTICS_PAGE, allocation_length=256), read_length=256)
    page = bytes(result.data)
    assert page[0] & 0x3F == STATISTICS_PAGE
    return int.from_bytes(page[8:16], "big"), int.from_bytes(page[16:24], "big")


def check_counts(before: tuple[int, int], after: tuple[int, int], tally: Tally, *, again: int = 0) -> None:
    """What was answered was carried out once, but for ``again`` READs. COMPARE AND WRITE may count as a WRITE."""
    reads, writes = (now - then for now, then in zip(after, before, strict=True))
    answered = tally.commands
    assert answered["READ"] <= reads <= answered["READ"] + again, f"{reads} READs were carried out: {tally}"
    allowed = (answered["WRITE"], answered["WRITE"] + answered[COMPARE_AND_WRITE])
    assert writes in allowed, f"{writes} WRITEs were carried out: {tally}"


def check_memory(tally: Tally) -> None:
    """The target does not grow, but for what may be outstanding at one of the two moments, in a few copies."""
    early, late = tally.rss[len(tally.rss) // 4], tally.rss[-1]
    assert late < early * 1.3 + 4 * WORKERS * max(SIZES) * BLOCK, f"the target grew from {early >> 20} to {late >> 20} MiB"


def command_line(
    tool: str,
    description: str | None,
    run: Callable[..., Tally],
    *,
    seeds: Sequence[int],
    unit: str,
    **more: dict[str, Any],
) -> None:
    """The command line of a soak: ``run(seconds, seed, rate, ...)`` for each seed.

    :param unit: what may go wrong, one of them.
    :param more: further options, by name, as ``add_argument`` takes them.
    """
    parser = argparse.ArgumentParser(prog=tool, description=description)
    parser.add_argument("--seconds", type=float, default=600, help="of each soak (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds, help=f"one soak each ({' '.join(map(str, seeds))})")
    parser.add_argument("--rate", type=float, default=0.01, help=f"chance of each fault, per {unit} (%(default)s)")
    for name, how in more.items():
        parser.add_argument(f"--{name}", **how)
    arguments = vars(parser.parse_args())
    for seed in arguments.pop("seeds"):
        print(f"seed {seed}: {run(seed=seed, **arguments)}", flush=True)
    sys.exit(0)
