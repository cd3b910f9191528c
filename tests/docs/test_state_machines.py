"""docs/state-machines.md: the drawing of a task's states is what tasks do, no more and no less."""

from __future__ import annotations

import anyio
import pytest
import tcm_loopback.initiator
from parts.iscsi_tables import login_states
from parts.task_states import TASK_STATES
from support.memory import GatedMemory
from support.scsi import logical_unit, one_initiator
from tcm_iscsi.protocol import login

from tcm.scsi.sense import Sense, SenseKey
from tcm.target.task import Task, TaskAttribute
from tcm.target.task_management import TaskManagementFunction

READ = bytes.fromhex("28000000000000000100")
WRITE = bytes.fromhex("2a000000000000000100")

DRAWN = {(before, after) for before, after, _ in TASK_STATES}


@pytest.fixture
def seen(monkeypatch):
    """Pairs of states that tasks of loopback initiators go through."""
    pairs = set()

    class WatchedTask(Task):
        __slots__ = ("_state",)

        @property
        def state(self):
            return self._state

        @state.setter
        def state(self, state):
            before = getattr(self, "_state", state)
            if before is not state:
                pairs.add((before, state))
            self._state = state

    monkeypatch.setattr(tcm_loopback.initiator, "Task", WatchedTask)
    return pairs


@pytest.mark.anyio
async def test_tasks_go_through_the_drawn_states_only(seen):
    store = GatedMemory()
    abort = TaskManagementFunction.ABORT_TASK
    no_data = Sense(key=SenseKey.ABORTED_COMMAND, asc=0x4B)
    async with one_initiator(store) as disk:
        initiator = disk.initiator
        await initiator.execute(9, READ, read_length=512)
        initiator.start(0, WRITE, bytes(512), withheld=True).deliver()
        initiator.start(0, WRITE, bytes(512), withheld=True).fail_data_out(no_data)
        await initiator.execute(0, b"\xff" + bytes(9))
        unfinished = initiator.start(0, WRITE, bytes(512), withheld=True)
        await initiator.task_management(abort, 0, unfinished.task.tag)
        store.shut()
        blocked = initiator.start(0, READ, read_length=512)
        dormant = [
            initiator.start(0, READ, read_length=512, attribute=TaskAttribute.ORDERED),
            initiator.start(0, READ, read_length=512),
        ]
        await store.until_waiting(1)
        await initiator.task_management(abort, 0, dormant[1].task.tag)
        await initiator.task_management(abort, 0, blocked.task.tag)
        store.release()
        with anyio.fail_after(60):
            await dormant[0].wait()
        assert not logical_unit(disk).task_set
    assert seen - DRAWN == set(), "states that are not drawn"
    assert DRAWN - seen == set(), "drawn, but not seen"


def test_the_login_drawing_has_every_row():
    drawing = "\n".join(login_states())
    for (state, _, _), after in login.TRANSITIONS.items():
        assert f"{state.name} --> {after.name}: CSG" in drawing
    assert len([line for line in drawing.splitlines() if ": CSG" in line]) == len(login.TRANSITIONS)
