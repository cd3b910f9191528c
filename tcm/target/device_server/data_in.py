"""Data-In of commands that have an allocation length."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcm.target.task import Task


def give(task: Task, data: bytes, allocation_length: int) -> None:
    """Return ``data``, or what of it the allocation length has room for: that is not an error (SPC-5 4.2.5.6)."""
    data = data[:allocation_length]
    if data:
        task.data_in = [data]


def no_data_out(task: Task) -> int:  # noqa: ARG001  # the signature of Handler.prepare
    """Nothing to check beforehand, and no Data-Out: a ``prepare``."""
    return 0
