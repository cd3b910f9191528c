"""What commands cost both sides of FCoE, station to station in memory: no kernel, no link, no event loop (tools/fcoe-cost).

Best of many batches, so that a busy machine shows least. Frames are made in buffers of their own, and copied for the other side
to where a link has them; where they are made in the link's memory, as in the rings of AF_PACKET, the sender's side is less.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from typing import Any

import anyio
from support.fcoe_pair import End, Pair, fcoe_pair
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_fcoe.initiator.tasks import FcpTask
from tcm_fcoe.link.base import BATCH, ROOM

from tcm.scsi.cdb import read_16, write_16

BLOCK = 512
WORKLOADS = {
    "4 KiB reads, 32 at a time": ("read", 8, 32),
    "4 KiB writes, 32 at a time": ("write", 8, 32),
    "256 KiB reads, 8 at a time": ("read", 512, 8),
    "256 KiB writes, 8 at a time": ("write", 512, 8),
}
"""Command, blocks, depth."""
clock = time.perf_counter


class Batches:
    """Commands of one workload between the two."""

    def __init__(self, pair: Pair, command: str, blocks: int, depth: int) -> None:
        self.pair = pair
        self.rooms = [memoryview(bytearray(ROOM)) for _ in range(BATCH)]
        self.buffers = [memoryview(bytearray(blocks * BLOCK)) for _ in range(depth)]
        self.command, self.blocks, self.depth = command, blocks, depth
        self.spent = {pair.initiator: 0.0, pair.target: 0.0}
        self.frames = self.left = 0

    def task(self, number: int) -> FcpTask:
        lba, buffer = number * self.blocks, self.buffers[number]
        if self.command == "read":
            return FcpTask(read_16(lba, self.blocks), read_length=len(buffer), buffer=buffer, done=self.ended)
        return FcpTask(write_16(lba, self.blocks), data_out=buffer, done=self.ended)

    def ended(self, task: Any) -> None:
        assert task.failure is None
        self.left -= 1

    def move(self, sender: End, receiver: End) -> None:
        """As many frames as a link gives at a time."""
        pair, outbox = self.pair, sender.station.outbox
        begin = clock()
        sender.station.resume(pair.now)
        self.spent[sender] += clock() - begin
        batch = []
        while outbox and len(batch) < BATCH:
            frame, room = outbox.popleft(), self.rooms[len(batch)]
            room[: len(frame)] = frame
            batch.append(room[: len(frame)])
        if batch:
            begin = clock()
            receiver.station.receive(batch, pair.now)
            self.spent[receiver] += clock() - begin
            self.frames += len(batch)
            pair.now += 1e-6

    def run(self) -> tuple[float, float, int]:
        """Seconds of the target and of the initiator, and frames, of one batch."""
        pair = self.pair
        initiator, target = pair.initiator, pair.target
        self.spent[initiator] = self.spent[target] = 0.0
        self.frames, self.left = 0, self.depth
        begin = clock()
        for number in range(self.depth):
            pair.fcp.submit(pair.nexus, self.task(number), pair.now)
        self.spent[initiator] += clock() - begin
        while self.left or initiator.station.outbox:
            self.move(initiator, target)
            self.move(target, initiator)
        return self.spent[target], self.spent[initiator], self.frames


async def main(rounds: int) -> None:
    """Print a table."""
    async with fcoe_pair(RamdiskBackstore(64 << 20)) as pair:
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)  # as the daemon has it
        print("| workload | frames a command | target, us a command | initiator | target, us a frame | initiator |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, (command, blocks, depth) in WORKLOADS.items():
            batches = Batches(pair, command, blocks, depth)
            costs = [math.inf, math.inf]
            for _ in range(rounds if blocks < 64 else rounds // 8):
                target, initiator, frames = batches.run()
                costs = [min(costs[0], target), min(costs[1], initiator)]
            each = [f"{cost / depth * 1e6:.1f}" for cost in costs] + [f"{cost / frames * 1e6:.2f}" for cost in costs]
            print(f"| {name} | {frames / depth:g} | {' | '.join(each)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tools/fcoe-cost", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=800, help="batches of short commands (default 800); of long ones an eighth"
    )
    anyio.run(main, parser.parse_args().rounds)
