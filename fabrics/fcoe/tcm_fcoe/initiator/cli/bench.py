"""``bench``: requests one after the other in many places, with a callback each and no task."""

from __future__ import annotations

import random
import time
from array import array
from typing import TYPE_CHECKING

import anyio

from tcm_fcoe.initiator.cli.arguments import Usage
from tcm_fcoe.initiator.cli.output import table
from tcm_fcoe.initiator.commands import read_16, write_16
from tcm_fcoe.initiator.results import InitiatorError, ScsiError
from tcm_fcoe.initiator.tasks import FcpTask

if TYPE_CHECKING:
    from tcm_fcoe.initiator.cli.arguments import WorkloadOptions
    from tcm_fcoe.initiator.driver import Target

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Bench:
    """One measurement of a logical unit."""

    def __init__(self, target: Target, work: WorkloadOptions) -> None:
        self.target = target
        self.work = work
        self.chance = random.Random(work.seed)
        self.latencies = array("d")
        """Seconds of each request."""
        self.seconds = 0.0
        self.error: InitiatorError | None = None
        self._end = 0.0
        self._running = 0
        self._done = anyio.Event()
        self._blocks = self._places = self._next = 0
        self._data = memoryview(b"")
        self._frames = self._processor = 0.0

    async def run(self) -> None:
        """Measure. Raises InitiatorError if a request fails."""
        total, size = await self.target.capacity()
        work = self.work
        self._blocks, rest = divmod(work.block_size, size)
        if rest or not self._blocks or self._blocks > total:
            raise Usage(f"--block-size {work.block_size}: the logical unit has {total} blocks of {size} bytes")
        self._places = total // self._blocks
        self._data = memoryview(self.chance.randbytes(work.block_size))
        counters = self.target.initiator.link.counters
        frames, processor = counters.frames_in + counters.frames_out, time.process_time()
        begin = time.perf_counter()
        self._end = begin + work.seconds
        for _ in range(work.depth):
            self._begin(memoryview(bytearray(work.block_size)))
        await self._done.wait()
        self.seconds = time.perf_counter() - begin
        self._frames = counters.frames_in + counters.frames_out - frames
        self._processor = time.process_time() - processor
        if self.error is not None:
            raise self.error

    def _begin(self, buffer: memoryview) -> None:
        """The next request of one of the places."""
        work, target = self.work, self.target
        if work.sequential:
            lba = self._next * self._blocks
            self._next = (self._next + 1) % self._places
        else:
            lba = int(self.chance.random() * self._places) * self._blocks
        writes = work.workload == "write" or (work.workload == "mixed" and self.chance.random() < 0.5)
        begin = time.perf_counter()

        def done(task: FcpTask) -> None:
            now = time.perf_counter()
            self._running -= 1
            if task.error is not None or task.status or task.code:
                self.error = task.error or ScsiError(task.result)
            else:
                self.latencies.append(now - begin)
                if now < self._end and self.error is None:
                    self._begin(buffer)
            if not self._running:
                self._done.set()

        self._running += 1
        lun = target.default_lun
        if writes:
            target.submit(FcpTask(write_16(lba, self._blocks), lun, data_out=self._data, done=done))
        else:
            target.submit(FcpTask(read_16(lba, self._blocks), lun, read_length=work.block_size, buffer=buffer, done=done))

    def report(self) -> str:
        """What came out, as a table."""
        count = len(self.latencies)
        ordered = sorted(self.latencies)
        counters = self.target.initiator.fcp.counters
        rows = [
            ("requests", str(count)),
            ("requests/s", f"{count / self.seconds:.0f}"),
            ("MB/s", f"{count * self.work.block_size / self.seconds / 1e6:.1f}"),
            ("frames/s", f"{self._frames / self.seconds:.0f}"),
            ("processor, this side", f"{self._processor / max(self._frames, 1) * 1e6:.2f} us a frame"),
            ("recoveries", f"{counters.recs} REC, {counters.srrs} SRR, {counters.aborts} ABTS, {counters.retries} retries"),
            ("latency, mean", f"{sum(ordered) / max(count, 1) * 1e6:.0f} us"),
        ]
        for percentile in PERCENTILES:
            if ordered:
                at = min(count - 1, int(count * percentile / 100))
                rows.append((f"latency, {percentile:g}%", f"{ordered[at] * 1e6:.0f} us"))
        return table(None, rows)
