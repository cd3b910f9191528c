"""MIB tables as data: what a column is, and how a table finds the value of an object identifier or the next one (RFC 2578)."""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tcm.statistics.mib_writing import Creation, Writer  # noqa: TC004  # that module wants this one; annotations are text

Oid = tuple[int, ...]
Value = int | float | bytes | Oid
"""Of an INTEGER, a counter or a gauge; of TimeTicks, a moment of the monotonic clock; of an OCTET STRING; an identifier."""

T = TypeVar("T")
Pieces = Generator[None, None, T]
"""Work that takes a while, and what comes out: whoever does it may do something else at each ``yield``."""

ZERO_DOT_ZERO: Oid = (0, 0)
"""What a RowPointer or AutonomousType says that points nowhere."""
CACHED = 1.0
"""Seconds that a table's rows stay as they were read, so that a walk is not a thousand walks; values are always read anew."""
ROWS_A_SECOND = 20_000
"""How many rows are read in a second: those of a table that has more stay for longer."""
PIECE = 100
"""Rows of a table that are read in one go; initiators are served in between."""


class Syntax(enum.IntEnum):
    """By the numbers that AgentX gives them (RFC 2741 5.4)."""

    INTEGER = 2
    OCTET_STRING = 4
    OBJECT_IDENTIFIER = 6
    COUNTER_32 = 65
    GAUGE_32 = 66
    """Unsigned32 too."""
    TIME_TICKS = 67
    COUNTER_64 = 70


@dataclass(frozen=True, slots=True)
class Column:
    """A column that can be read, and maybe written."""

    number: int
    name: str
    syntax: Syntax
    read: Callable[[Any], Value | None]
    """Of a row; ``None``: it has none (noSuchInstance)."""
    write: Writer | None = None
    """``None``: it can only be read."""


@dataclass(slots=True)
class Pending:
    """A row that a manager has begun to make: RowStatus notReady or notInService (RFC 2579)."""

    values: dict[str, Value]
    """By column, the status among them."""
    touched: float
    """When it was written last, on the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Table:
    """A conceptual table; its rows are objects of any kind.

    A column of which nothing is known is left out of the table altogether: who asks gets noSuchObject.
    """

    name: str
    oid: Oid
    """Of the table; its entries are ``oid + (1,)``."""
    rows: Callable[[], Iterable[tuple[Oid, Any]]]
    """Index and row, in any order."""
    columns: tuple[Column, ...]
    creation: Creation | None = None
    """``None``: a manager can neither make nor remove rows."""

    def rows_in_pieces(self) -> Pieces[dict[Oid, Any]]:
        """Those there are now, or a moment ago."""
        rows: dict[Oid, Any] = {}
        try:
            for count, (index, row) in enumerate(self.rows(), 1):
                rows[index] = row
                if count % PIECE == 0:
                    yield
        except RuntimeError:  # a dictionary has changed in between
            rows = dict(self.rows())
        return rows

    def instance(self, column: str, index: Oid) -> Oid:
        """The identifier of one cell, or of a row by its first column."""
        number = next(each.number for each in self.columns if each.name == column)
        return (*self.oid, 1, number, *index)


def columns(
    *specs: tuple[int, str, Syntax, Callable[[Any], Any]] | tuple[int, str, Syntax, Callable[[Any], Any], Writer],
) -> tuple[Column, ...]:
    """A table's columns."""
    return tuple(Column(*spec) for spec in specs)


def nowhere(name: str, oid: Oid, specs: Iterable[tuple[int, str, Syntax]]) -> Table:
    """A table that has no rows, as what it is about is not there."""
    return Table(name, oid, lambda: (), tuple(Column(*spec, _unreachable) for spec in specs))


def _unreachable(row: object) -> int:
    raise AssertionError(row)


def constant(value: Any) -> Callable[[Any], Any]:
    """The same in every row."""
    return lambda _: value


@dataclass(frozen=True, slots=True)
class Notification:
    """What is told without being asked for, when a column of a row has changed."""

    name: str
    oid: Oid
    table: Table
    watched: str
    """The column."""
    objects: tuple[str, ...]
    """Columns of the same row that go with it."""
    tells: Callable[[Value | None], bool] = lambda _: True
    """Whether a change to this value is one to tell."""
    each: bool = False
    """How many may be sent is bounded for each row, not for all together."""
    enabled: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class Module:
    """A MIB module: its tables, and its notifications."""

    name: str
    oid: Oid
    """All its objects are below."""
    tables: tuple[Table, ...]
    notifications: tuple[Notification, ...] = ()


def finish(pieces: Pieces[T]) -> T:
    """All of it, and what comes out."""
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            found: T = done.value
            return found


class TableView:
    """A table, and the rows it had when last looked at."""

    __slots__ = ("_again", "_indexes", "_rows", "columns", "entry", "table")

    def __init__(self, table: Table) -> None:
        self.table = table
        self.entry = (*table.oid, 1)
        self.columns = {each.number: each for each in sorted(table.columns, key=lambda each: each.number)}
        self._indexes: list[Oid] = []
        self._rows: dict[Oid, Any] = {}
        self._again = float("-inf")
        """When it is time to look."""

    def refresh(self, now: float) -> Pieces[None]:
        """Look again, if it is time to."""
        if now < self._again:
            return
        rows = yield from self.table.rows_in_pieces()
        creation = self.table.creation
        self._rows = rows if creation is None else {**creation.pending, **rows}
        self._indexes = sorted(self._rows)
        self._again = now + max(CACHED, len(rows) / ROWS_A_SECOND)

    def get(self, oid: Oid, now: float) -> Pieces[tuple[Syntax, Value] | None]:
        """The value of an instance; ``None``: there is none."""
        depth = len(self.entry)
        column = self.columns.get(oid[depth]) if len(oid) > depth and oid[:depth] == self.entry else None
        if column is None:
            return None
        yield from self.refresh(now)
        index = oid[depth + 1 :]
        value = self._value(column, index) if index in self._rows else None
        return None if value is None else (column.syntax, value)

    def next(self, oid: Oid, now: float, *, include: bool = False) -> Pieces[tuple[Oid, Syntax, Value] | None]:
        """The first instance after ``oid``, or at it if ``include``."""
        yield from self.refresh(now)
        depth = len(self.entry)
        for number, column in self.columns.items():
            head = (*self.entry, number)
            if oid[: depth + 1] > head or not self._indexes:
                continue
            place = 0
            if oid[: depth + 1] == head:
                place = (bisect_left if include else bisect_right)(self._indexes, oid[depth + 1 :])
            while place < len(self._indexes):
                index = self._indexes[place]
                value = self._value(column, index)
                if value is not None:
                    return (*head, *index), column.syntax, value
                place += 1
        return None

    def row(self, index: Oid, now: float) -> Any:
        """As it was when last looked at; ``None``: there is none."""
        finish(self.refresh(now))
        return self._rows.get(index)

    def forget(self) -> None:
        """Rows are read anew when they are wanted next."""
        self._again = float("-inf")

    def _value(self, column: Column, index: Oid) -> Value | None:
        row = self._rows[index]
        return row.values.get(column.name) if isinstance(row, Pending) else column.read(row)


class View:
    """All tables of some modules, as one tree of instances."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.modules = tuple(modules)
        self.tables = sorted(
            (TableView(table) for module in self.modules for table in module.tables), key=lambda each: each.entry
        )

    def forget(self) -> None:
        """See :meth:`TableView.forget`."""
        for each in self.tables:
            each.forget()

    def find(self, oid: Oid) -> tuple[TableView, Column, Oid] | None:
        """Table, column and index of an instance that there may be."""
        for each in self.tables:
            depth = len(each.entry)
            if oid[:depth] == each.entry and len(oid) > depth + 1 and oid[depth] in each.columns:
                return each, each.columns[oid[depth]], oid[depth + 1 :]
        return None

    def has_object(self, oid: Oid) -> bool:
        """Whether ``oid`` is at or below a column (noSuchInstance), or not (noSuchObject)."""
        found = next((each for each in self.tables if oid[: len(each.entry)] == each.entry), None)
        return found is not None and len(oid) > len(found.entry) and oid[len(found.entry)] in found.columns

    def get(self, oid: Oid, now: float) -> tuple[Syntax, Value] | None:
        """See :meth:`TableView.get`."""
        return finish(self.get_in_pieces(oid, now))

    def get_in_pieces(self, oid: Oid, now: float) -> Pieces[tuple[Syntax, Value] | None]:
        """The same."""
        for each in self.tables:
            if oid[: len(each.entry)] == each.entry:
                return (yield from each.get(oid, now))
        return None

    def next(self, oid: Oid, end: Oid, now: float, *, include: bool = False) -> tuple[Oid, Syntax, Value] | None:
        """The first instance after ``oid`` (or at it) and before ``end``; an empty ``end`` is no bound."""
        return finish(self.next_in_pieces(oid, end, now, include=include))

    def next_in_pieces(
        self, oid: Oid, end: Oid, now: float, *, include: bool = False
    ) -> Pieces[tuple[Oid, Syntax, Value] | None]:
        """The same."""
        for each in self.tables:
            if oid[: len(each.entry)] > each.entry:
                continue
            found = yield from each.next(oid, now, include=include)
            if found is not None:
                return found if not end or found[0] < end else None
        return None
