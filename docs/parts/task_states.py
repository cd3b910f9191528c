"""The life of a task, for docs/state-machines.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.target.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Callable

TASK_STATES: tuple[tuple[TaskState, TaskState, str], ...] = (
    (TaskState.NEW, TaskState.ENABLED, "submit, nothing in its way"),
    (TaskState.NEW, TaskState.DORMANT, "submit, an ORDERED or HEAD OF QUEUE task is in its way"),
    (TaskState.DORMANT, TaskState.ENABLED, "what it waited for has left the task set"),
    (TaskState.ENABLED, TaskState.AWAITING_DATA_OUT, "prepare wants Data-Out that is not there: receive_data_out"),
    (TaskState.AWAITING_DATA_OUT, TaskState.ENABLED, "data_out_received"),
    (TaskState.AWAITING_DATA_OUT, TaskState.COMPLETED, "data_out_failed: CHECK CONDITION"),
    (TaskState.NEW, TaskState.COMPLETED, "no logical unit there, TASK SET FULL, overlapped command: send_command_complete"),
    (TaskState.ENABLED, TaskState.COMPLETED, "executed, or a check failed: send_command_complete"),
    (TaskState.DORMANT, TaskState.ABORTED, "task management, nexus loss"),
    (TaskState.AWAITING_DATA_OUT, TaskState.ABORTED, "task management, nexus loss"),
    (TaskState.ENABLED, TaskState.ABORTED, "task management, nexus loss: after what runs has ended"),
)
"""Every change of a task's state. tests/docs/test_state_machines.py watches tasks and finds these and no others."""


def task_states() -> list[str]:
    """The life of a task as a drawing."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> NEW"]
    lines += [f"    {before.name} --> {after.name}: {why}" for before, after, why in TASK_STATES]
    return [*lines, "    COMPLETED --> [*]", "    ABORTED --> [*]", "```"]


PARTS: dict[str, Callable[[], list[str]]] = {"task-states": task_states}
