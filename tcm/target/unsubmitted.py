"""Commands that a fabric has and the core has not: taken over when the task set they were meant for is cleared (SAM-5 5.6).

To an initiator a command is in the task set once it has arrived. A fabric that fetches the data first, or is short of memory,
submits it later; until then only the fabric knows of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.target.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task


def take_over(itls: Iterable[ITLNexus]) -> list[Task]:
    """Tasks of all commands for some I_T_L nexuses that have not been submitted; for :func:`tcm.target.router.abort`."""
    taken = []
    for itl in tuple(itls):
        nexus = itl.nexus
        for task in nexus.services.unsubmitted(itl.lun):
            nexus.tasks[task.tag] = task
            task.itl, task.logical_unit, task.state = itl, itl.logical_unit, TaskState.DORMANT
            taken.append(task)
    return taken
