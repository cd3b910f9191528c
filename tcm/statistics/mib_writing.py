"""What a column takes, and how rows are made: from the values of an SNMP SET to edits of a configuration (RFC 3416, RFC 2579).

Nothing is changed here. An edit changes a copy of the configuration, which is then applied whole or not at all.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tcm.statistics.agentx import Error
from tcm.statistics.mib import Oid, Pending, Value

Document = dict[str, Any]
PENDING_SECONDS = 300.0
"""After which a row that nobody goes on making is forgotten (RFC 2579: 5 minutes)."""
MAXIMUM_PENDING = 100
"""Rows of a table that are being made."""


class Place(enum.Enum):
    """Which document an edit is of."""

    TREE = "tree"
    """The content of a saveconfig.json."""
    OWN = "own"
    """What the MIB modules keep for themselves: see :mod:`tcm.statistics.mib_state`."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a document. ``apply`` raises :class:`Refused`."""

    place: Place
    apply: Callable[[Document], None]
    targets: frozenset[str] = frozenset()
    """Names of the target devices that it is about, if it is of the tree."""


@dataclass(frozen=True, slots=True)
class Assign:
    """A row that is made gets the index that the manager has chosen: see :meth:`tcm.statistics.mib_state.Indexes.assign`."""

    kind: str
    name: str
    index: int


Edit = Change | Assign


class Refused(Exception):
    """A SET cannot be; ``error`` goes to the manager, the message to the log."""

    def __init__(self, error: Error, message: str = "", column: str = "") -> None:
        super().__init__(message or error.name)
        self.error = error
        self.column = column
        """Whose value it is about; empty: that of the whole row."""


@dataclass(frozen=True, slots=True)
class Writer:
    """What a column may be set to.

    :param edits: called with a row and a value that ``check`` has let through; raises :class:`Refused`. ``None``: it can be
        given only while the row is made; afterwards no other value is taken.
    """

    edits: Callable[[Any, Any], list[Edit]] | None = None
    minimum: int = 0
    """Of a number; of bytes, how many."""
    maximum: int = 0xFFFFFFFF
    choices: frozenset[int] | None = None
    text: bool = False
    """SnmpAdminString: UTF-8."""

    def check(self, value: Value, column: str) -> None:
        """Raises :class:`Refused` for what the column's syntax does not allow."""
        if isinstance(value, bytes):
            if not self.minimum <= len(value) <= self.maximum:
                raise Refused(Error.WRONG_LENGTH, f"{len(value)} bytes", column)
            if self.text and not _is_text(value):
                raise Refused(Error.WRONG_VALUE, "no UTF-8, or control characters", column)
        elif isinstance(value, (int, float)) and (
            value not in self.choices if self.choices is not None else not self.minimum <= value <= self.maximum
        ):
            raise Refused(Error.WRONG_VALUE, f"{value}", column)


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


TRUTH = frozenset({1, 2})
"""TruthValue."""


def unchanging(minimum: int = 0, maximum: int = 0xFFFFFFFF, choices: frozenset[int] | None = None) -> Writer:
    """A column of a row that is made by SNMP."""
    return Writer(None, minimum, maximum, choices)


# rows


class RowStatus(enum.IntEnum):
    """RFC 2579."""

    ACTIVE = 1
    NOT_IN_SERVICE = 2
    NOT_READY = 3
    CREATE_AND_GO = 4
    CREATE_AND_WAIT = 5
    DESTROY = 6


STATUS = Writer(choices=frozenset({1, 2, 4, 5, 6}))
"""Of a column with a RowStatus: nobody sets notReady."""


@dataclass(slots=True)
class Creation:
    """How a manager makes and removes rows of a table.

    :param status: the column that has the RowStatus.
    :param needs: columns without which there is no row.
    :param make: edits that make the row of an index and the values that were given; raises :class:`Refused`. ``None``: rows can
        only be removed.
    :param remove: edits that remove a row that there is; likewise.
    """

    status: str
    needs: tuple[str, ...]
    make: Callable[[Oid, Mapping[str, Any]], list[Edit]] | None
    remove: Callable[[Oid, Any], list[Edit]]
    pending: dict[Oid, Pending] = field(default_factory=dict)

    def expire(self, now: float) -> None:
        """Forget what nobody goes on making."""
        for index in [index for index, row in self.pending.items() if now - row.touched >= PENDING_SECONDS]:
            del self.pending[index]

    def missing(self, values: Mapping[str, Value]) -> list[str]:
        """Of :attr:`needs`."""
        return [name for name in self.needs if name not in values]


@dataclass(slots=True)
class RowPlan:
    """What a SET makes of one row."""

    edits: list[Edit]
    pending: Pending | None = None
    """The row as it is being made from now on; ``None``: it is not (any more)."""


def plan_row(creation: Creation, index: Oid, row: Any, values: Mapping[str, Value], now: float) -> RowPlan | None:
    """What values for a row of a table with a RowStatus come to (RFC 2579, the table of RowStatus).

    :param row: what is there: a row, a :class:`Pending`, or ``None``.

    ``None``: the row is there and its status stays; its columns are written one by one. Raises :class:`Refused`.
    """
    status = creation.status
    wanted = values.get(status)
    if wanted is None and not isinstance(row, Pending):
        if row is None:
            raise Refused(Error.INCONSISTENT_NAME, "there is no such row")
        return None
    if wanted == RowStatus.DESTROY:
        return RowPlan([] if row is None or isinstance(row, Pending) else creation.remove(index, row))
    if row is not None and not isinstance(row, Pending):
        if wanted == RowStatus.ACTIVE:
            return None
        raise Refused(Error.INCONSISTENT_VALUE, "the row is active", status)
    if (row is None) != (wanted in {RowStatus.CREATE_AND_GO, RowStatus.CREATE_AND_WAIT}):
        raise Refused(Error.INCONSISTENT_VALUE, "there is such a row" if row is not None else "there is no such row", status)
    if creation.make is None:
        raise Refused(Error.NO_CREATION, "no such row can be made", status)
    given = {**(row.values if row is not None else {}), **values}
    given.pop(status, None)
    missing = creation.missing(given)
    if wanted in {RowStatus.ACTIVE, RowStatus.CREATE_AND_GO}:
        if missing:
            raise Refused(Error.INCONSISTENT_VALUE, f"{missing[0]} is missing", status)
        return RowPlan(creation.make(index, given))
    if wanted == RowStatus.NOT_IN_SERVICE and missing:
        raise Refused(Error.INCONSISTENT_VALUE, f"{missing[0]} is missing", status)
    given[status] = RowStatus.NOT_READY if missing else RowStatus.NOT_IN_SERVICE
    return RowPlan([], Pending(given, now))
