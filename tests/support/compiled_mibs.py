"""SCSI-MIB, ISCSI-MIB and IPS-AUTH-MIB as PyPI's pysnmp-mibs has compiled them: what our tables are held against."""

from __future__ import annotations

import functools
import os
import warnings
from dataclasses import dataclass
from typing import Any

Oid = tuple[int, ...]
NOT_ACCESSIBLE = {"read-only"}
"""How these files show an index: the real ones are written without a hyphen."""
_BASES = (
    ("Counter32", "COUNTER_32"),
    ("Counter64", "COUNTER_64"),
    ("TimeTicks", "TIME_TICKS"),
    ("Gauge32", "GAUGE_32"),
    ("Unsigned32", "GAUGE_32"),
    ("ObjectIdentifier", "OBJECT_IDENTIFIER"),
    ("OctetString", "OCTET_STRING"),
    ("Integer", "INTEGER"),
)


@dataclass(frozen=True)
class MibColumn:
    """A column that can be read."""

    name: str
    oid: Oid
    syntax: str
    """As :class:`tcm.statistics.mib.Syntax` calls it."""
    type: Any
    """Takes a value, and raises if that is none."""
    access: str
    """MAX-ACCESS, without hyphens."""


@dataclass(frozen=True)
class MibNotification:
    """A notification."""

    oid: Oid
    objects: tuple[str, ...]


def _syntax(syntax: Any) -> str:
    names = {cls.__name__ for cls in type(syntax).__mro__}
    return next(ours for theirs, ours in _BASES if theirs in names)


@functools.cache
def load(module: str) -> tuple[dict[str, MibColumn], dict[str, MibNotification], dict[str, int]]:
    """Columns, notifications, and how many sub-identifiers the index of each table has at least."""
    columns, notifications, indexes = {}, {}, {}
    for name, each in _symbols(module).items():
        kind = type(each).__name__
        if kind == "MibTableColumn" and each.maxAccess not in NOT_ACCESSIBLE:
            columns[name] = MibColumn(name, tuple(each.name), _syntax(each.syntax), each.syntax, each.maxAccess)
        elif kind == "NotificationType":
            notifications[name] = MibNotification(tuple(each.name), tuple(text for _, text in each.getObjects()))
        elif kind == "MibTableRow":
            indexes[name.removesuffix("Entry") + "Table"] = len(each.getIndexNames())
    return columns, notifications, indexes


def groups(module: str) -> dict[str, set[str]]:
    """Conformance groups, and the objects or notifications in each."""
    return {
        name: {text for _, text in each.getObjects()}
        for name, each in _symbols(module).items()
        if type(each).__name__ in {"ObjectGroup", "NotificationGroup"}
    }


@functools.cache
def _symbols(module: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package is old
        import pysnmp_mibs
        from pysnmp.smi import builder

        mibs = builder.MibBuilder()
        mibs.add_mib_sources(builder.DirMibSource(os.path.dirname(pysnmp_mibs.__file__)))
        mibs.load_modules(module)
        found: dict[str, Any] = mibs.mibSymbols[module]
        return found
