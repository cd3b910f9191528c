"""``bench``: requests one after the other in many places, with a callback each and no task."""

from __future__ import annotations

import gc
import random
import time
from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from tcm.failure import ConfigError
from tcm.scsi.cdb import read_16, write_16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tcm.initiator.cli.workload import Workload
    from tcm.initiator.commands import Commands
    from tcm.initiator.results import InitiatorError

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Task(Protocol):
    """A command that has ended."""

    @property
    def failure(self) -> InitiatorError | None:
        """Why it did not end with status GOOD."""


@contextmanager
def quiet_collector() -> Iterator[None]:
    """What there is already is not collected, and what comes less often, so that it is not the collector that is measured."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


class Bench:
    """One measurement.

    :param task: makes a task: ``task(cdb, lun, data_out=... or read_length=..., buffer=..., done=...)``.
    """

    def __init__(self, unit: Commands, task: Callable[..., Any], work: Workload) -> None:
        self.unit = unit
        self.task = task
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

    async def run(self) -> None:
        """Measure. Raises InitiatorError if a request fails, and ConfigError if the block size does not fit."""
        total, size = await self.unit.capacity()
        work = self.work
        self._blocks, rest = divmod(work.block_size, size)
        if rest or not self._blocks or self._blocks > total:
            raise ConfigError(f"--block-size {work.block_size}: the logical unit has {total} blocks of {size} bytes")
        self._places = total // self._blocks
        self._data = memoryview(self.chance.randbytes(work.block_size))
        with quiet_collector():
            begin = time.perf_counter()
            self._end = begin + work.seconds
            for _ in range(work.depth):
                self._begin(memoryview(bytearray(work.block_size)))
            await self._done.wait()
            self.seconds = time.perf_counter() - begin
        if self.error is not None:
            raise self.error

    def _begin(self, buffer: memoryview) -> None:
        """The next request of one of the places."""
        work, unit = self.work, self.unit
        if work.sequential:
            lba = self._next * self._blocks
            self._next = (self._next + 1) % self._places
        else:
            lba = int(self.chance.random() * self._places) * self._blocks
        writes = work.workload == "write" or (work.workload == "mixed" and self.chance.random() < 0.5)
        begin = time.perf_counter()

        def done(task: Task) -> None:
            now = time.perf_counter()
            self._running -= 1
            failure = task.failure
            if failure is not None:
                self.error = failure
            else:
                self.latencies.append(now - begin)
                if now < self._end and self.error is None:
                    self._begin(buffer)
            if not self._running:
                self._done.set()

        self._running += 1
        if writes:
            unit.submit(self.task(write_16(lba, self._blocks), unit.default_lun, data_out=self._data, done=done))
        else:
            cdb = read_16(lba, self._blocks)
            unit.submit(self.task(cdb, unit.default_lun, read_length=work.block_size, buffer=buffer, done=done))

    def rows(self, more: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Name and value of what came out.

        :param more: what only the transport knows, in between.
        """
        count = len(self.latencies)
        ordered = sorted(self.latencies)
        percentiles = [
            (f"latency, {percentile:g}%", f"{ordered[min(count - 1, int(count * percentile / 100))] * 1e6:.0f} us")
            for percentile in PERCENTILES
            if ordered
        ]
        return [
            ("requests", str(count)),
            ("requests/s", f"{count / self.seconds:.0f}"),
            ("MB/s", f"{count * self.work.block_size / self.seconds / 1e6:.1f}"),
            *more,
            ("latency, mean", f"{sum(ordered) / max(count, 1) * 1e6:.0f} us"),
            *percentiles,
        ]
