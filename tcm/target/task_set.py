"""The task set of a logical unit and its ordering rules (SAM-5 8.6, one task set for all I_T nexuses: TST 000b).

When a task may become enabled, by the attributes of the tasks that are in the set already:

    newcomer        waits for older                       waits for any
    SIMPLE          ORDERED                               HEAD OF QUEUE
    ORDERED         SIMPLE, ORDERED                       HEAD OF QUEUE
    HEAD OF QUEUE   nothing                               nothing
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tcm.target.task import TaskAttribute, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tcm.target.task import Task

_ORDERED = TaskAttribute.ORDERED
_HEAD_OF_QUEUE = TaskAttribute.HEAD_OF_QUEUE


class TaskSet:
    """Tasks that are enabled, in any order, and dormant, in order of arrival.

    :param depth: how many tasks the set holds.
    :param on_order: called with True when ordering begins to matter (a task other than SIMPLE came in), with False when all are
        SIMPLE and enabled again.
    """

    def __init__(self, depth: int, on_order: Callable[[bool], None] = lambda _: None) -> None:
        self.depth = depth
        self.enabled: dict[Task, None] = {}
        self.dormant: deque[Task] = deque()
        self.strict = False
        """Ordering matters: an ORDERED or HEAD OF QUEUE task is in the set, or somebody is dormant."""
        self._on_order = on_order

    def __len__(self) -> int:
        return len(self.enabled) + len(self.dormant)

    def __iter__(self) -> Iterator[Task]:
        """All tasks; the set may change meanwhile."""
        return iter((*self.enabled, *self.dormant))

    @property
    def full(self) -> bool:
        """There is no room for another task."""
        return len(self.enabled) + len(self.dormant) >= self.depth

    def add(self, task: Task) -> bool:
        """Take a task in; True if it is enabled at once, False if it is dormant. The caller has looked at :attr:`full`."""
        attribute = task.attribute
        if attribute is _ORDERED or attribute is _HEAD_OF_QUEUE:
            self._set_strict(True)
        if not self.strict or self._may_start(task, self.dormant):
            self.enabled[task] = None
            return True
        task.state = TaskState.DORMANT
        self.dormant.append(task)
        return False

    def remove(self, task: Task) -> None:
        """Take a task out, finished or aborted. If :attr:`strict`, the caller then starts what :meth:`runnable` yields."""
        if task in self.enabled:
            del self.enabled[task]
        elif task in self.dormant:
            self.dormant.remove(task)

    def runnable(self) -> Iterator[Task]:
        """Dormant tasks that may start now, each enabled as it is yielded; looks again after each."""
        while (task := self._next_runnable()) is not None:
            self.enabled[task] = None
            yield task
        if self.strict and not self.dormant and not any(task.attribute in {_ORDERED, _HEAD_OF_QUEUE} for task in self.enabled):
            self._set_strict(False)

    def _next_runnable(self) -> Task | None:
        older: deque[Task] = deque()
        for task in self.dormant:
            if self._may_start(task, older):
                self.dormant.remove(task)
                return task
            older.append(task)
        return None

    def _may_start(self, task: Task, older_dormant: deque[Task]) -> bool:
        """Enabled tasks count as older: a younger one is enabled before an older dormant one only if it is HEAD OF QUEUE."""
        attribute = task.attribute
        if attribute is _HEAD_OF_QUEUE:
            return True
        if attribute is _ORDERED:
            return not self.enabled and not older_dormant
        return not any(other.attribute in {_ORDERED, _HEAD_OF_QUEUE} for other in self.enabled) and not any(
            other.attribute is _ORDERED for other in older_dormant
        )

    def _set_strict(self, strict: bool) -> None:
        if strict is not self.strict:
            self.strict = strict
            self._on_order(strict)
