"""How long commands take: of each that has a task, and of some on the express lane, a batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcm.target.nexus import ITLNexus, ITNexus

BUCKETS = 64
"""Enough for any number of microseconds."""
SAMPLE_INTERVAL = 64
"""Of so many batches at least one is timed."""
_PER_NEXUS = 4
"""An I_T nexus with many logical units costs more to look at, and is looked at less often: so many batches for each unit."""


class Latency:
    """A histogram whose buckets double: bucket ``n`` counts what took less than ``2 ** n`` us, and not less than half of it."""

    __slots__ = ("buckets", "microseconds")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.microseconds = 0
        """The sum of all."""

    def note(self, microseconds: int) -> None:
        """One more."""
        self.buckets[microseconds.bit_length()] += 1
        self.microseconds += microseconds

    @property
    def count(self) -> int:
        """How many there have been."""
        return sum(self.buckets)

    def quantile(self, share: float) -> float | None:
        """Seconds that this share of commands did not exceed, by the upper end of a bucket; ``None`` if there were none."""
        count = self.count
        if not count:
            return None
        seen = 0
        for n, each in enumerate(self.buckets):
            seen += each
            if seen >= share * count:
                return (1 << n) / 1e6
        raise AssertionError


class UnitLatency:
    """What a logical unit keeps of it."""

    __slots__ = ("express_read", "express_write", "other", "read", "write")

    def __init__(self) -> None:
        self.read = Latency()
        """Tasks, from the command's arrival until its data and status were handed to the fabric."""
        self.write = Latency()
        self.other = Latency()
        self.express_read = Latency()
        """Samples of the express lane, from the arrival of a batch of PDUs until the socket had taken the answers."""
        self.express_write = Latency()


class ExpressSample:
    """One batch is timed: what the express lane of an I_T nexus had done before it."""

    __slots__ = ("_before", "interval")

    def __init__(self, nexus: ITNexus) -> None:
        self._before: list[tuple[ITLNexus, int, int, int]] = [
            (itl, itl.read_cmds, itl.write_cmds, itl.task_cmds) for itl in nexus.luns.values()
        ]
        self.interval = max(SAMPLE_INTERVAL, _PER_NEXUS * len(self._before))
        """How many batches later the next one is due."""

    def finish(self, seconds: float) -> int:
        """The batch has been answered after ``seconds``: noted once for each unit that had express commands and no tasks in it.

        :returns: :attr:`interval`.
        """
        microseconds = int(seconds * 1e6)
        for itl, reads, writes, tasks in self._before:
            if itl.task_cmds == tasks:
                latency = itl.logical_unit.latency
                if itl.read_cmds != reads:
                    latency.express_read.note(microseconds)
                if itl.write_cmds != writes:
                    latency.express_write.note(microseconds)
        return self.interval
