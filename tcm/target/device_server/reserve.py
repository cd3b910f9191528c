"""RESERVE and RELEASE (SPC-2 7.21, 7.22, 7.17, 7.18): the whole logical unit, for the I_T nexus itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.target.device_server.data_in import no_data_out
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from tcm.target.task import Task


def _reserve(task: Task) -> None:
    """Another nexus's reservation is a conflict; one's own is renewed."""
    assert task.itl is not None
    task.itl.logical_unit.reserve(task.itl)


def _release(task: Task) -> None:
    """Releasing what one does not hold is no error."""
    assert task.itl is not None
    task.itl.logical_unit.release(task.itl)


HANDLERS = {
    "reserve": Handler(no_data_out, _reserve),
    "release": Handler(no_data_out, _release),
}
