"""SNMP SETs in AgentX's four steps (RFC 2741 clause 7.2.4): tested, committed, undone, cleaned up.

What managers set becomes a configuration, which is applied whole or not at all, with the validation that any other has.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint

from tcm.options import one_line
from tcm.statistics.agentx import Error
from tcm.statistics.mib import Oid, Pending, TableView, Value
from tcm.statistics.mib_state import NON_VOLATILE
from tcm.statistics.mib_writing import (
    MAXIMUM_PENDING,
    Assign,
    Change,
    Creation,
    Document,
    Edit,
    Place,
    Refused,
    RowPlan,
    plan_row,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from tcm.statistics.agentx import Wanted
    from tcm.statistics.mib import Column, View
    from tcm.statistics.mib_state import MibState

log = logging.getLogger(__name__)

MAXIMUM_PLANS = 16
"""SETs that have been tested and not committed yet; of more, the oldest is forgotten."""
PACE = 16
"""Rows of a SET that are looked at in one go; initiators are served in between."""
WHO = "SNMP"
Answer = tuple[Error, int]
"""And which of the variables it is about, from 1; 0: none."""
_FINE: Answer = (Error.NO_ERROR, 0)


class Configurator(Protocol):
    """The running configuration as a whole: :class:`tcm.configfs.settings.Settings`."""

    @property
    def revision(self) -> int:
        """Goes up with each change."""

    async def export(self, part: Collection[str] | None = None) -> Document: ...
    async def diff(self, config: Mapping[str, Any], part: Collection[str] | None = None) -> list[Document]: ...
    async def apply(
        self, config: Mapping[str, Any], *, revision: int | None, who: str, part: Collection[str] | None = None
    ) -> list[Document]: ...
    async def save(self, path: str = "") -> str: ...


@dataclass(slots=True)
class _Row:
    """What a SET wants of one row."""

    table: TableView
    index: Oid
    values: dict[str, Value] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    """Which variable each column is, from 1."""

    @property
    def first(self) -> int:
        return min(self.numbers.values())

    def number(self, column: str) -> int:
        return self.numbers.get(column, self.first)


@dataclass(slots=True)
class _Plan:
    """What a SET that has been tested comes to."""

    number: int = 1
    """The variable that is told of if it fails."""
    revision: int = 0
    part: frozenset[str] = frozenset()
    """The target devices that it is about."""
    tree: tuple[Document, Document] | None = None
    """Before and after; likewise:"""
    own: tuple[Document, Document] | None = None
    assigned: list[Assign] = field(default_factory=list)
    restored: list[Assign] = field(default_factory=list)
    """Who had those indexes, and had others, before."""
    pending: list[tuple[Creation, Oid, Pending | None, Pending | None]] = field(default_factory=list)
    """Rows that are being made: before and after."""
    committed: bool = False


class Setter:
    """Carries SETs out.

    :param view: what there is.
    :param state: what the MIB modules keep for themselves.
    :param configurator: says what changes the rest, each time; ``None``: nothing does.
    """

    def __init__(self, view: View, state: MibState, configurator: Callable[[], Configurator | None]) -> None:
        self._view = view
        self._state = state
        self._find_configurator = configurator
        self._plans: dict[int, _Plan] = {}

    @property
    def _configurator(self) -> Configurator | None:
        return self._find_configurator()

    async def test(self, transaction: int, wanted: Sequence[Wanted], now: float) -> Answer:
        """Whether it can be, and nothing else.

        :param now: seconds, on the monotonic clock.
        """
        self._plans.pop(transaction, None)
        number = 1
        try:
            plan = _Plan()
            edits: list[tuple[int, Edit]] = []
            self._view.forget()
            for count, row in enumerate(self._rows(wanted), 1):
                if count % PACE == 0:
                    await checkpoint()
                number = row.first
                try:
                    edits += self._of_row(row, plan, now)
                except Refused as refused:
                    number = row.number(refused.column)
                    raise
            plan.part = frozenset().union(*(edit.targets for _, edit in edits if isinstance(edit, Change)))
            for number, edit in edits:
                await self._edit(plan, number, edit)
            if plan.tree is not None:
                number = plan.number
                await self._check(plan)
        except _RefusedAt as refused:
            return refused.error, refused.number
        except Refused as refused:
            log.info("an SNMP SET is refused: %s: %s", refused.error.name, refused)
            return refused.error, number
        except Exception:
            log.exception("an SNMP SET could not be tested")
            return Error.GEN_ERR, number
        while len(self._plans) >= MAXIMUM_PLANS:
            del self._plans[next(iter(self._plans))]
        self._plans[transaction] = plan
        return _FINE

    def _rows(self, wanted: Sequence[Wanted]) -> list[_Row]:
        """Each column checked against its syntax."""
        rows: dict[tuple[Oid, Oid], _Row] = {}
        for number, each in enumerate(wanted, 1):
            found = self._view.find(each.name)
            if found is None or found[1].write is None:
                raise _RefusedAt(Error.NOT_WRITABLE, number)
            table, column, index = found
            if each.type != column.syntax or each.value is None:
                raise _RefusedAt(Error.WRONG_TYPE, number)
            try:
                found[1].write.check(each.value, column.name)
            except Refused as refused:
                raise _RefusedAt(refused.error, number) from None
            row = rows.setdefault((table.entry, index), _Row(table, index))
            if row.values.setdefault(column.name, each.value) != each.value:
                raise _RefusedAt(Error.INCONSISTENT_VALUE, number)
            row.numbers.setdefault(column.name, number)
        # whatever order they came in, they are meant at once; a row may need one of a table before its own
        return sorted(rows.values(), key=lambda each: each.table.entry)

    def _of_row(self, wanted: _Row, plan: _Plan, now: float) -> list[tuple[int, Edit]]:
        creation = wanted.table.table.creation
        row = wanted.table.row(wanted.index, now)
        if creation is None:
            if row is None:
                raise Refused(Error.NO_CREATION, "there is no such row, and none can be made")
        else:
            creation.expire(now)
            made = plan_row(creation, wanted.index, row, wanted.values, now)
            if made is not None:
                self._make(plan, creation, wanted, made)
                return [(wanted.number(creation.status), edit) for edit in made.edits]
        edits = []
        for column in wanted.table.columns.values():
            if column.name in wanted.values and (creation is None or column.name != creation.status):
                number = wanted.numbers[column.name]
                edits += [(number, edit) for edit in _of_column(column, row, wanted.values[column.name])]
        return edits

    @staticmethod
    def _make(plan: _Plan, creation: Creation, wanted: _Row, made: RowPlan) -> None:
        before = creation.pending.get(wanted.index)
        if before is None and made.pending is None:
            return
        plan.pending.append((creation, wanted.index, before, made.pending))
        begun = sum(each[0] is creation and each[2] is None for each in plan.pending)
        if before is None and len(creation.pending) + begun > MAXIMUM_PENDING:
            raise Refused(Error.RESOURCE_UNAVAILABLE, f"{MAXIMUM_PENDING} rows are being made", creation.status)

    async def _edit(self, plan: _Plan, number: int, edit: Edit) -> None:
        if isinstance(edit, Assign):
            plan.assigned.append(edit)
        elif edit.place is Place.OWN:
            if plan.own is None:
                plan.own = self._state.own, copy.deepcopy(self._state.own)
            edit.apply(plan.own[1])
        else:
            if plan.tree is None:
                if self._configurator is None:
                    raise Refused(Error.RESOURCE_UNAVAILABLE, "the configuration cannot be changed here")
                plan.number, plan.revision = number, self._configurator.revision
                before = await self._configurator.export(plan.part)
                # in a thread: of a thousand LUNs it takes a while
                plan.tree = before, await to_thread.run_sync(copy.deepcopy, before)
            edit.apply(plan.tree[1])

    async def _check(self, plan: _Plan) -> None:
        assert self._configurator is not None
        assert plan.tree is not None
        try:
            await self._configurator.diff(plan.tree[1], plan.part)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it, it cannot be
            raise Refused(Error.INCONSISTENT_VALUE, one_line(error)) from None

    async def commit(self, transaction: int) -> Answer:
        """All of it, or nothing."""
        plan = self._plans.get(transaction)
        if plan is None:
            return Error.COMMIT_FAILED, 0
        with anyio.CancelScope(shield=True):
            try:
                if plan.tree is not None and self._configurator is not None:
                    await self._configurator.apply(plan.tree[1], revision=plan.revision, who=WHO, part=plan.part)
            except Exception as error:  # noqa: BLE001  # whatever it is, it has taken back what it did
                log.warning("an SNMP SET could not be committed: %s", one_line(error))
                return Error.COMMIT_FAILED, plan.number
            plan.committed = True
            self._put(plan, 1)
            try:
                for each in plan.assigned:
                    self._assign(plan, each)
                await self._keep(plan)
            except Exception as error:  # noqa: BLE001  # the same
                log.error("what was set by SNMP could not be kept: %s", one_line(error))
                await self.undo(transaction)
                return Error.COMMIT_FAILED, plan.number
        return _FINE

    async def undo(self, transaction: int) -> Answer:
        """Takes back what was committed."""
        plan = self._plans.pop(transaction, None)
        if plan is None or not plan.committed:
            return _FINE
        with anyio.CancelScope(shield=True):
            self._put(plan, 0)
            for each in reversed(plan.restored):
                self._state.indexes.assign(each.kind, each.name, each.index, steal=True)
            try:
                if plan.tree is not None and self._configurator is not None:
                    await self._configurator.apply(plan.tree[0], revision=None, who=WHO, part=plan.part)
                await self._keep(plan)
            except Exception as error:  # noqa: BLE001  # there is an answer for it
                log.error("what was set by SNMP could not be taken back: %s", one_line(error))
                return Error.UNDO_FAILED, plan.number
        return _FINE

    def cleanup(self, transaction: int) -> None:
        """It is over, one way or the other."""
        self._plans.pop(transaction, None)

    def _put(self, plan: _Plan, which: int) -> None:
        """What is ours, as it was before (0) or as it is to be (1)."""
        if plan.own is not None:
            self._state.own = plan.own[which]
        for creation, index, *rows in plan.pending:
            row = rows[which]
            if row is None:
                creation.pending.pop(index, None)
            else:
                creation.pending[index] = row
        self._view.forget()

    def _assign(self, plan: _Plan, wanted: Assign) -> None:
        indexes = self._state.indexes
        holder = indexes.name(wanted.kind, wanted.index)
        before = indexes.given.get(wanted.kind, {}).get(wanted.name)
        if holder is not None and holder != wanted.name:
            plan.restored.append(Assign(wanted.kind, holder, wanted.index))
        if before is not None and before != wanted.index:
            plan.restored.append(Assign(wanted.kind, wanted.name, before))
        indexes.assign(wanted.kind, wanted.name, wanted.index, steal=True)

    async def _keep(self, plan: _Plan) -> None:
        """What is nonVolatile outlives the process."""
        if plan.own is not None or self._state.indexes.changed:
            await self._state.save()
        if plan.tree is not None and self._configurator is not None and self._state.storage == NON_VOLATILE:
            await self._configurator.save()


class _RefusedAt(Exception):
    """One variable is not what it may be."""

    def __init__(self, error: Error, number: int) -> None:
        super().__init__(error, number)
        self.error = error
        self.number = number


def _of_column(column: Column, row: Any, value: Value) -> list[Edit]:
    """Edits for a column of a row that is there. Raises :class:`Refused`."""
    assert column.write is not None
    if column.write.edits is None:
        if column.read(row) != value:
            raise Refused(Error.INCONSISTENT_VALUE, "it stays as it is while the row is active", column.name)
        return []
    try:
        return column.write.edits(row, value)
    except Refused as refused:
        raise Refused(refused.error, str(refused), column.name) from None
