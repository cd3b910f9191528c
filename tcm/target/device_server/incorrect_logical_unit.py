"""What is answered for a LUN without a logical unit (SPC-5 4.6.3, SAM-5 5.11.3), and by the REPORT LUNS well-known one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcm.target.task import Task


def answer(task: Task) -> None:
    """Give a task its status and data; it has no logical unit."""
