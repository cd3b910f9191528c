"""The task set of a logical unit and its ordering rules (SAM-5 8.6; one task set for all I_T nexuses: TST 000b).

What a task waits for before it is enabled, by the attributes of the tasks that are in the set already:

    newcomer         SIMPLE                        ORDERED           HEAD OF QUEUE
    SIMPLE           those that are dormant (*)    older ones        all
    ORDERED          older ones                    older ones        all
    HEAD OF QUEUE    none                          none              none

(*) Follows from the rest: what keeps the older one dormant keeps the younger. So the dormant tasks are a queue, and only its
first has to be looked at.
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
        self._barriers = 0
        """ORDERED and HEAD OF QUEUE tasks that are enabled."""
        self._on_order = on_order

    def __len__(self) -> int:
        return len(self.enabled) + len(self.dormant)

    def __iter__(self) -> Iterator[Task]:
        """All tasks; the set may change meanwhile."""
        return iter((*self.enabled, *self.dormant))

    def add(self, task: Task) -> bool:
        """Take a task in; True if it is enabled at once, False if it is dormant. The caller has looked at :attr:`depth`."""
        attribute = task.attribute
        if attribute is _ORDERED or attribute is _HEAD_OF_QUEUE:
            self._set_strict(True)
        elif not self.strict:
            self.enabled[task] = None
            return True
        if attribute is _HEAD_OF_QUEUE or (not self.dormant and self._may_start(attribute)):
            self._enable(task)
            return True
        task.state = TaskState.DORMANT
        self.dormant.append(task)
        return False

    def remove(self, task: Task) -> None:
        """Take a task out, finished or aborted, if it is in. If :attr:`strict`, start what :meth:`runnable` yields next."""
        if task in self.enabled:
            del self.enabled[task]
            if self.strict and task.attribute in {_ORDERED, _HEAD_OF_QUEUE}:
                self._barriers -= 1
        elif task in self.dormant:
            self.dormant.remove(task)

    def runnable(self) -> Iterator[Task]:
        """Dormant tasks that may start now, each enabled as it is yielded; looks again after each."""
        dormant = self.dormant
        while dormant and self._may_start(dormant[0].attribute):
            task = dormant.popleft()
            self._enable(task)
            yield task
        if not dormant and not self._barriers:
            self._set_strict(False)

    def _may_start(self, attribute: TaskAttribute) -> bool:
        """Whether the oldest dormant task may start; enabled ones are older than it, or HEAD OF QUEUE."""
        return not self.enabled if attribute is _ORDERED else not self._barriers

    def _enable(self, task: Task) -> None:
        self.enabled[task] = None
        if task.attribute in {_ORDERED, _HEAD_OF_QUEUE}:
            self._barriers += 1

    def _set_strict(self, strict: bool) -> None:
        if strict is not self.strict:
            self.strict = strict
            self._on_order(strict)
