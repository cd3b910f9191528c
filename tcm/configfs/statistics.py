"""``statistics/`` and ``fabric_statistics/``: the groups of :mod:`tcm.statistics.lio` and of the fabrics as directories."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from tcm.configfs.table import FixedGroup
from tcm.statistics.lio import (
    ScsiAttIntrPort,
    ScsiAuthIntr,
    ScsiDev,
    ScsiLu,
    ScsiPort,
    ScsiTgtDev,
    ScsiTgtPort,
    ScsiTransport,
)
from tcm.tree_types import Table, TreeAttribute

if TYPE_CHECKING:
    from tcm.configfs.node import Group
    from tcm.fabric_statistics import LioGroup

Read = Callable[[], "Sequence[LioGroup]"]

DEVICE = (ScsiDev, ScsiLu, ScsiTgtDev)
LUN = (ScsiPort, ScsiTgtPort, ScsiTransport)
MAPPED_LUN = (ScsiAttIntrPort, ScsiAuthIntr)


def _value(kind: type[LioGroup], name: str) -> Callable[[Read], str]:
    def show(read: Read) -> str:
        group = next((each for each in read() if isinstance(each, kind)), None)
        value = getattr(group, name, None)
        if value is None:
            raise OSError(errno.ENODEV, "there is nothing that this would be told of")
        return str(value)

    return show


_TABLES: dict[type[LioGroup], Table] = {}


def table_of(kind: type[LioGroup]) -> Table:
    """A directory's files, alphabetically."""
    if kind not in _TABLES:
        names = sorted(field.name for field in fields(kind))
        _TABLES[kind] = {name: TreeAttribute(_value(kind, name)) for name in names}
    return _TABLES[kind]


class StatisticsGroup(FixedGroup):
    """A directory of such directories.

    :param read: what they show, now.
    """

    def __init__(self, name: str, parent: Group, kinds: Sequence[type[LioGroup]], read: Read) -> None:
        super().__init__(name, parent)
        for kind in sorted(kinds, key=lambda each: each.GROUP):
            self.attach(FixedGroup(kind.GROUP, self, table_of(kind), read))
