"""What an I_T_L nexus counts, since it was established, and what sums it up: logical units, LUNs, mapped LUNs, I_T nexuses."""

from __future__ import annotations

from collections import Counter
from operator import attrgetter
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
"""Attributes of :class:`tcm.target.nexus.ITLNexus`: commands that have ended, aborted ones too, by what they move, and how many
of them had a task (the others took the express lane); bytes of Data-In and Data-Out, and how many were not logical blocks."""

_VALUES = attrgetter(*COUNTERS)


def totals(retired: Counter[str], nexuses: Iterable[ITLNexus]) -> Counter[str]:
    """What those have counted that are gone, and those that are there."""
    before = [retired[counter] for counter in COUNTERS]
    return Counter(dict(zip(COUNTERS, map(sum, zip(before, *map(_VALUES, nexuses), strict=True)), strict=True)))


def retire(retired: Counter[str], itl: ITLNexus) -> None:
    """An I_T_L nexus goes; what it has counted stays."""
    for counter in COUNTERS:
        retired[counter] += getattr(itl, counter)
