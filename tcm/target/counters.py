"""What an I_T_L nexus counts, since it was established, and what sums it up: logical units, LUNs, mapped LUNs, I_T nexuses."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.target.nexus import ITLNexus

COUNTERS = (
    "read_cmds",
    "write_cmds",
    "other_cmds",
    "task_cmds",
    "read_bytes",
    "write_bytes",
    "parameter_bytes_in",
    "parameter_bytes_out",
)
"""Attributes of :class:`tcm.target.nexus.ITLNexus`: commands completed, by what they move, and how many of them had a task (the
others took the express lane); bytes of Data-In and Data-Out, and how many of them were not logical blocks."""


def totals(retired: Counter[str], nexuses: Iterable[ITLNexus]) -> Counter[str]:
    """What those have counted that are gone, and those that are there."""
    found = Counter(retired)
    for itl in nexuses:
        for counter in COUNTERS:
            found[counter] += getattr(itl, counter)
    return found


def retire(retired: Counter[str], itl: ITLNexus) -> None:
    """An I_T_L nexus goes; what it has counted stays."""
    for counter in COUNTERS:
        retired[counter] += getattr(itl, counter)
