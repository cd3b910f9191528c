"""TaskSet against a model that reads SAM-5 8.6 word by word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tcm.target.task import TaskAttribute, TaskState
from tcm.target.task_set import TaskSet

SIMPLE, ORDERED, HEAD = TaskAttribute.SIMPLE, TaskAttribute.ORDERED, TaskAttribute.HEAD_OF_QUEUE
UNTAGGED = TaskAttribute.UNTAGGED


class FakeTask(SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


def make(attribute: TaskAttribute) -> Any:
    return FakeTask(attribute=attribute, state=TaskState.NEW)


class Model:
    """All tasks in order of arrival, and which of them are enabled."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []
        self.enabled: set[Any] = set()

    def settle(self) -> None:
        for task in self.tasks:
            older = self.tasks[: self.tasks.index(task)]
            heads = [other for other in self.tasks if other.attribute is HEAD and other is not task]
            if task.attribute is HEAD:
                may = True
            elif task.attribute is ORDERED:
                may = not older and not heads
            else:
                may = not heads and not any(other.attribute is ORDERED for other in older)
            if may:
                self.enabled.add(task)


@given(st.lists(st.one_of(st.sampled_from([SIMPLE, ORDERED, HEAD, UNTAGGED]), st.integers(0, 30))))
def test_task_set_follows_the_model(steps: list[TaskAttribute | int]) -> None:
    """SAM-5 8.6.2 to 8.6.4: whatever comes and ends in whatever order, the same tasks are enabled, and nobody starves."""
    strict: list[bool] = []
    task_set, model = TaskSet(1000, strict.append), Model()
    for step in steps:
        if isinstance(step, TaskAttribute):
            task = make(step)
            model.tasks.append(task)
            model.settle()
            assert task_set.add(task) is (task in model.enabled)
        elif model.tasks:
            # any task may leave: an enabled one ends, a dormant one is aborted
            task = model.tasks.pop(step % len(model.tasks))
            model.enabled.discard(task)
            model.settle()
            task_set.remove(task)
            if task_set.strict:
                list(task_set.runnable())
        assert set(task_set.enabled) == model.enabled
        assert set(task_set) == set(model.tasks)
        assert len(task_set) == len(model.tasks)
        unordered = all(task.attribute in {SIMPLE, UNTAGGED} for task in model.tasks)
        assert task_set.strict or unordered
        if unordered:
            list(task_set.runnable())
            assert not task_set.strict
    assert strict == [index % 2 == 0 for index in range(len(strict))]


def test_dormant_state() -> None:
    """SAM-5 8.8: what does not start is dormant; it starts in order of arrival."""
    task_set = TaskSet(10)
    first, ordered, behind = make(SIMPLE), make(ORDERED), make(SIMPLE)
    assert task_set.add(first)
    assert not task_set.add(ordered)
    assert not task_set.add(behind)
    assert ordered.state is behind.state is TaskState.DORMANT
    task_set.remove(first)
    assert list(task_set.runnable()) == [ordered]
    task_set.remove(ordered)
    assert list(task_set.runnable()) == [behind]
    assert not task_set.strict


def test_a_task_that_ends_while_others_start() -> None:
    """runnable() looks again after each task: an ORDERED task that ends at once lets the next one start in the same round."""
    task_set = TaskSet(10)
    head = make(HEAD)
    task_set.add(head)
    others = [make(ORDERED), make(SIMPLE), make(ORDERED), make(SIMPLE)]
    assert [task_set.add(task) for task in others] == [False] * 4
    task_set.remove(head)
    started = []
    for task in task_set.runnable():
        started.append(task)
        task_set.remove(task)
    assert started == others
    assert len(task_set) == 0
