"""How long commands take: each that has a task, and those on the express lane a batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcm.target.nexus import ITLNexus, ITNexus

BUCKETS = 64
"""Enough for any number of microseconds."""
WATCHED = 4
"""Logical units that a connection uses at once of which every batch is timed; of others, one in :data:`LOOK_INTERVAL`."""
LOOK_INTERVAL = 64
"""Batches after which it is seen which units are used, at least."""
_PER_UNIT = 4
"""An I_T nexus with many logical units costs more to look at, and is looked at less often: so many batches for each unit."""


class Latency:
    """A histogram whose buckets double: bucket ``n`` counts what took less than ``2 ** n`` us, and not less than half of it."""

    __slots__ = ("buckets", "microseconds")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.microseconds = 0
        """The sum of all."""

    def note(self, microseconds: int, count: int = 1) -> None:
        """One more, or several that took equally long."""
        self.buckets[microseconds.bit_length()] += count
        self.microseconds += microseconds * count

    @property
    def count(self) -> int:
        """How many there have been."""
        return sum(self.buckets)


class UnitLatency:
    """What a logical unit keeps of it."""

    __slots__ = ("express_read", "express_write", "other", "read", "write")

    def __init__(self) -> None:
        self.read = Latency()
        """Tasks, from the command's arrival until its data and status were handed to the fabric."""
        self.write = Latency()
        self.other = Latency()
        self.express_read = Latency()
        """The express lane, from the arrival of the batch of PDUs that a command was in until its answers were sent."""
        self.express_write = Latency()


_Done = tuple["ITLNexus", int, int, int]
"""What one had done at a moment: reads, writes, and how many of all commands had a task."""


class ExpressTimer:
    """Times the batches of one connection, for the units whose express lane it uses.

    :meth:`begin` and :meth:`finish` are called for every batch. They look at the units that were used lately; at all that the
    nexus has now and then, and soon if none of those was used.
    """

    __slots__ = ("_before", "_countdown", "_itl", "_looked", "_nexus", "_reads", "_tasks", "_watched", "_writes")

    def __init__(self, nexus: ITNexus) -> None:
        self._nexus = nexus
        self._countdown = 0
        self._watched: tuple[ITLNexus, ...] = ()
        self._itl: ITLNexus | None = None
        """The only one that is watched: most sessions use one."""
        self._reads = self._writes = self._tasks = 0
        """What that one had done before the batch; of others:"""
        self._before: list[_Done] = []
        self._looked: list[_Done] = []
        """The same of all, when they were looked at last."""

    def begin(self) -> None:
        """A batch of PDUs has arrived."""
        self._countdown -= 1
        itl = self._itl
        if itl is not None and self._countdown > 0:
            self._reads, self._writes, self._tasks = itl.read_cmds, itl.write_cmds, itl.task_cmds
            return
        self._itl = None
        watched = self._watched if self._countdown > 0 else self._nexus.luns.values()
        self._before = [(each, each.read_cmds, each.write_cmds, each.task_cmds) for each in watched]

    def finish(self, seconds: float) -> None:
        """It has been answered after so many seconds: each command of the express lane is noted with that.

        Those of units that had tasks as well are not: it is not known which were which.
        """
        itl = self._itl
        if itl is not None:
            reads, writes = itl.read_cmds - self._reads, itl.write_cmds - self._writes
            if not (reads or writes):
                self._look_soon()
            elif itl.task_cmds == self._tasks:
                latency, microseconds = itl.logical_unit.latency, int(seconds * 1e6)
                if reads:
                    latency.express_read.note(microseconds, reads)
                if writes:
                    latency.express_write.note(microseconds, writes)
            return
        microseconds = int(seconds * 1e6)
        used = False
        for itl, reads, writes, tasks in self._before:
            if itl.read_cmds != reads or itl.write_cmds != writes:
                used = True
                if itl.task_cmds == tasks:
                    latency = itl.logical_unit.latency
                    latency.express_read.note(microseconds, itl.read_cmds - reads)
                    latency.express_write.note(microseconds, itl.write_cmds - writes)
        if self._countdown <= 0:
            self._look()
        if not used:
            self._look_soon()

    def _look(self) -> None:
        """From now on those are watched that were used most since the last time."""
        before = {itl: (reads, writes) for itl, reads, writes, _ in self._looked or self._before}
        since: list[tuple[int, ITLNexus]] = []
        for itl, *_ in self._before:
            reads, writes = before.get(itl, (0, 0))
            commands = itl.read_cmds + itl.write_cmds - reads - writes
            if commands:
                since.append((commands, itl))
        since.sort(key=_most)
        self._watched = tuple(each for _, each in since[:WATCHED])
        self._itl = self._watched[0] if len(self._watched) == 1 else None
        self._looked = self._before
        self._countdown = max(LOOK_INTERVAL, _PER_UNIT * len(self._before))

    def _look_soon(self) -> None:
        """Nothing that is watched was used; looking at many takes time, and is done the less often."""
        self._countdown = min(self._countdown, max(1, len(self._nexus.luns)))


def _most(used: tuple[int, ITLNexus]) -> int:
    return -used[0]
