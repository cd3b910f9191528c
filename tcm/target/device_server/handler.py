"""What a command handler is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tcm.target.task import Task


class Handler(NamedTuple):
    """The two halves of a command.

    Both raise :class:`tcm.scsi.check_condition.CommandTerminated` to end the command; whatever else they raise is the
    backstore's failure or a bug.
    """

    prepare: Callable[[Task], int]
    """Checks all that can be checked without the Data-Out, leaves in ``task.parameters`` what ``execute`` needs, and returns
    how many bytes of Data-Out the command wants."""
    execute: Callable[[Task], Coroutine[Any, Any, None] | None]
    """Does it, and sets ``task.data_in``. Returns a coroutine if it would block."""
