"""When tasks may start, as SAM-5 8.6 says it: a model that follows a logical unit's task set from outside.

It is told what was accepted, what got to the medium and what left the task set, and says what is wrong with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tcm.backstore import Backstore, Buffer, Capabilities, Concurrency
from tcm.filter import BackstoreFilter
from tcm.target.task import TaskAttribute

SLOT = 8 * 512
"""Bytes of the medium that belong to one task."""


@dataclass(eq=False)
class Entry:
    """A task in the set, in order of acceptance."""

    number: int
    attribute: TaskAttribute
    enabled: bool = False


class OrderModel:
    """One task set for all I_T nexuses (TST 000b)."""

    def __init__(self) -> None:
        self.tasks: list[Entry] = []
        self.faults: list[str] = []
        """What was wrong. Not raised: what a backstore raises is answered with sense data, or tried again."""

    def accept(self, number: int, attribute: TaskAttribute) -> None:
        self.tasks.append(Entry(number, attribute))
        self._enable()

    def touch(self, number: int) -> None:
        """The backstore is asked for something on behalf of a task."""
        entry = self._find(number)
        if entry is None:
            self.faults.append(f"task {number} gets to the medium, and is not in the task set")
        elif not entry.enabled:
            self.faults.append(
                f"{entry.attribute.name} task {number} gets to the medium before {self._before(entry)} have ended"
            )

    def leave(self, number: int) -> None:
        """A task has ended or was aborted."""
        entry = self._find(number)
        assert entry is not None
        self.tasks.remove(entry)
        self._enable()

    @property
    def dormant(self) -> list[int]:
        """Tasks that have to be waiting."""
        return [entry.number for entry in self.tasks if not entry.enabled]

    def _find(self, number: int) -> Entry | None:
        return next((entry for entry in self.tasks if entry.number == number), None)

    def _enable(self) -> None:
        for entry in self.tasks:
            entry.enabled = entry.enabled or not self._before(entry)

    def _before(self, entry: Entry) -> list[int]:
        """What a task that is not enabled has to wait for."""
        if entry.attribute is TaskAttribute.HEAD_OF_QUEUE:
            return []
        older = self.tasks[: self.tasks.index(entry)]
        heads = [each for each in self.tasks if each.attribute is TaskAttribute.HEAD_OF_QUEUE]
        if entry.attribute is not TaskAttribute.ORDERED:
            older = [each for each in older if each.attribute is TaskAttribute.ORDERED]
        return [each.number for each in dict.fromkeys((*heads, *older))]


class Watched(BackstoreFilter):
    """Tells the model of each request before it goes on; a task is known by the part of the medium that it uses."""

    concurrency = Concurrency.PARALLEL
    passed_through = frozenset({"size", "flush", "unmap", "write_zeroes", "extents"})

    def __init__(self, inner: Backstore, model: OrderModel) -> None:
        super().__init__(inner)
        self._model = model

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self._model.touch(offset // SLOT)
        await self.inner.readv(buffers, offset)

    async def writev(self, buffers: Sequence[Buffer], offset: int, fua: bool = False) -> None:
        self._model.touch(offset // SLOT)
        await self.inner.writev(buffers, offset, fua)

    def read_nowait(self, buffers: Sequence[memoryview], offset: int) -> bool:
        done = self.inner.read_nowait(buffers, offset)
        if done:
            self._model.touch(offset // SLOT)
        return done

    def write_nowait(self, buffers: Sequence[Buffer], offset: int) -> bool:
        done = self.inner.write_nowait(buffers, offset)
        if done:
            self._model.touch(offset // SLOT)
        return done

    def capabilities(self) -> Capabilities:
        return self.inner.capabilities()
