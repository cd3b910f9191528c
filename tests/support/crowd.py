"""Many initiators at one logical unit, whose commands really interleave: the crowd that atomicity is proved with."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from support.scsi import make_lu, make_target
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.filters.delay import DelayFilter, DelayOptions
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.transport import CommandAborted, Result

from tcm.adapters import adapt
from tcm.backstore import Backstore, BlockingBackstore, Buffer, Capabilities, Concurrency
from tcm.filter import BackstoreFilter
from tcm.scsi import cdb
from tcm.target.store import Store
from tcm.target.task_management import TaskManagementFunction

BLOCKS = 256
INITIATORS = 64


class Piecemeal(BackstoreFilter):
    """Hands on block by block what it is asked for, so that a request is half done for a while.

    :param quick: what answers about half of the ``nowait`` calls, as a file does that is cached in part; ``None``: nobody.
    """

    concurrency = Concurrency.PARALLEL
    passed_through = frozenset(
        {"size", "flush", "unmap", "write_zeroes", "extents", "read_protection", "write_protection", "protection_label"}
    )

    def __init__(self, inner: Backstore, quick: Backstore | None, seed: int) -> None:
        super().__init__(inner)
        self._quick = quick
        self._chance = random.Random(seed)

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            for at in range(0, len(buffer), 512):
                await self.inner.readv([buffer[at : at + 512]], offset + at)
            offset += len(buffer)

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        for buffer in map(memoryview, buffers):
            for at in range(0, len(buffer), 512):
                await self.inner.writev([buffer[at : at + 512]], offset + at, fua)
            offset += len(buffer)

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        return self._quick is not None and self._chance.random() < 0.5 and self._quick.read_nowait(buffers, offset)

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        return self._quick is not None and self._chance.random() < 0.5 and self._quick.write_nowait(buffers, offset)

    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities(), nowait=self._quick is not None)


def delayed(inner: Backstore | BlockingBackstore, *, fickle: bool = False, seed: int = 1) -> Backstore:
    """The delay filter before each block; its milliseconds are turns of the event loop: others run meanwhile, no time is lost.

    :param fickle: half of the requests are answered inline.
    """

    async def turns(seconds: float) -> None:
        for _ in range(round(seconds * 1000)):
            await checkpoint()

    store = adapt(inner)
    slow = DelayFilter(store, DelayOptions(all=1, jitter=4, seed=seed), sleep=turns)
    return Piecemeal(slow, store if fickle else None, seed)


STORES: dict[str, Callable[[Path], Backstore | BlockingBackstore]] = {
    "ramdisk": lambda _: RamdiskBackstore(BLOCKS * 512),
    "fileio": lambda path: FileBackstore(str(path / "disk"), BLOCKS * 512),
    "delayed fileio": lambda path: delayed(FileBackstore(str(path / "disk"), BLOCKS * 512)),
    "fickle ramdisk": lambda _: delayed(RamdiskBackstore(BLOCKS * 512), fickle=True),
    "fickle fileio": lambda path: delayed(FileBackstore(str(path / "disk"), BLOCKS * 512), fickle=True),
}
"""Backstores by name; the delayed ones never answer inline, so every command can meet every other halfway; the fickle ones
do so half of the time, so that the express lane opens and closes between them."""


@asynccontextmanager
async def crowd(
    backstore: Backstore | BlockingBackstore, count: int = INITIATORS, *, store: Store | None = None, **attributes: Any
) -> AsyncIterator[list[ApplicationClient]]:
    """``count`` initiators over two target ports of one logical unit, every other one with the express lane.

    Whatever is done with them has to be over within a minute.
    """
    async with make_lu(backstore, store=store, queue_depth=4 * count, **attributes) as unit:
        ports = [make_target(unit, name=f"naa.500140500000001{i}") for i in range(2)]
        clients = [
            ApplicationClient(ports[i % 2].connect(f"naa.50014050{i + 1:08x}", express=bool(i & 2))) for i in range(count)
        ]
        for client in clients:
            await client.identify()
        try:
            with anyio.fail_after(60):
                yield clients
        finally:
            for client in clients:
                client.initiator.disconnect()


async def together(function: Callable[[int], Awaitable[None]], count: int) -> None:
    """Run ``function(0)`` to ``function(count - 1)`` at once."""
    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(function, number)


async def aborted(client: ApplicationClient, command: bytes, data: bytes, chance: random.Random) -> Result | None:
    """A command that ABORT TASK may catch at any point of its way: its result, or ``None`` if it was aborted in time.

    When this returns, the command is over either way (SAM-5 7.2).
    """
    tag = chance.randrange(1 << 31, 1 << 32)
    withheld = chance.random() < 0.5
    sent = client.initiator.start(client.lun, command, data, tag=tag, withheld=withheld)
    if withheld and sent.requested.is_set() and not sent.done:
        await checkpoint()
        if chance.random() < 0.5:
            sent.deliver()
    for _ in range(chance.randrange(12)):
        await checkpoint()
    await client.initiator.task_management(TaskManagementFunction.ABORT_TASK, client.lun, tag)
    try:
        return await sent.wait()
    except CommandAborted:
        return None


@dataclass(eq=False)
class Stamp:
    """A write of some blocks, each of which says which write it is; and when it can have happened."""

    number: int
    first: int
    blocks: int
    begun: int
    ended: int | None = None
    """``None``: still under way."""

    @property
    def data(self) -> bytes:
        return self.number.to_bytes(8, "big") * 64 * self.blocks

    def covers(self, block: int) -> bool:
        return self.first <= block < self.first + self.blocks


class History:
    """Stamps, and whether what reads saw of them can have come about by whole writes, one after the other."""

    def __init__(self) -> None:
        self.stamps: list[Stamp] = [Stamp(0, 0, BLOCKS, 0, 0)]
        self._now = 0

    def tick(self) -> int:
        """A moment later than all before."""
        self._now += 1
        return self._now

    def begin(self, first: int, blocks: int) -> Stamp:
        """A write that is about to be sent."""
        stamp = Stamp(len(self.stamps), first, blocks, self.tick())
        self.stamps.append(stamp)
        return stamp

    def end(self, stamp: Stamp) -> None:
        """It is over: done, or aborted, whereupon it may have happened or not, but does not any more."""
        stamp.ended = self.tick()

    def check(self, first: int, data: bytes) -> None:
        """What one read returned: no write is seen both over and under another, nor after one that began when it was over."""
        seen: dict[int, Stamp] = {}
        for at in range(0, len(data), 512):
            block = data[at : at + 512]
            number = int.from_bytes(block[:8], "big")
            assert block == block[:8] * 64, f"block {first + at // 512} is torn"
            seen[first + at // 512] = self.stamps[number]
        over: set[tuple[int, int]] = set()
        for block, top in seen.items():
            assert top.covers(block), f"block {block} shows write {top.number} of blocks {top.first} and on"
            over |= {(top.number, below.number) for below in seen.values() if below is not top and below.covers(block)}
        for top, below in over:
            assert (below, top) not in over, f"writes {top} and {below} are torn: {sorted({s.number for s in seen.values()})}"
            ended = self.stamps[top].ended
            late = ended is not None and ended < self.stamps[below].begun
            assert not late, f"write {top} is on the medium over write {below}, which began after it had ended"


def write_command(chance: random.Random, stamp: Stamp) -> bytes:
    """WRITE ATOMIC, or an ordinary WRITE if it is a single block."""
    if stamp.blocks == 1 and chance.random() < 0.7:
        return cdb.write(chance.choice((10, 16)), stamp.first, 1)
    return cdb.write_atomic(stamp.first, stamp.blocks)
