"""What a logical unit has of persistent reservations: the present state, what it admits, and where it is kept (SPC-5 5.14)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from tcm.scsi.check_condition import (
    InvalidReleaseOfPersistentReservation,
    PersistentReservationInformationLost,
    ReservationConflict,
)
from tcm.scsi.persistent_reservations import ALLOWED_WHILE_LOST, OutAction
from tcm.target import aptpl
from tcm.target.persistent_reservations import NexusName, State, attentions_between, next_generation, unregister, without_isids
from tcm.target.store import ABSENT, RevisionMismatch, Store, key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tcm.scsi.command import Command
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITNexus
    from tcm.target.portal_group import TargetPortalGroup
    from tcm.target.task import Task
    from tcm.target.unit_attention import UnitAttention

log = logging.getLogger(__name__)

_START_STOP_UNIT = 0x1B


class PersistentReservations:
    """The persistent reservations of one logical unit."""

    def __init__(self, logical_unit: LogicalUnit) -> None:
        self._logical_unit = logical_unit
        self.state = State()
        self.enforce_isids = logical_unit.attributes.enforce_pr_isids
        """iSCSI: an initiator's sessions with different ISIDs register separately (LIO: ``enforce_pr_isids``)."""
        self.lost = False
        """What had been kept could not be read back: nothing is let through until REPLACE LOST RESERVATION."""
        self.changing = anyio.Lock()
        """Held while a change waits for the store."""
        self._key = key("pr", f"aptpl_{logical_unit.serial}")
        self._revision = ABSENT
        self._unwatch: Callable[[], None] | None = None

    # what is kept

    @property
    def store(self) -> Store | None:
        """Where APTPL is kept; ``None``: APTPL is refused."""
        return self._logical_unit.store

    @property
    def keeps_all(self) -> bool:
        """Registrations are kept without APTPL too: LIO's ``force_pr_aptpl``, or other nodes have to know them."""
        return self.store is not None and (self.store.shared or self._logical_unit.attributes.force_pr_aptpl)

    async def keep(self, state: State) -> bool:
        """Make a state durable if it has to be, before it takes effect. Raises ``OSError``.

        Returns False if another node was faster: what it has made of the state has taken effect instead.
        """
        if self.store is None:
            return True
        text = aptpl.to_text(state) if state.aptpl else aptpl.NOTHING
        try:
            with anyio.CancelScope(shield=True):  # what is kept takes effect, whoever wanted it
                self._revision = await self.store.put(self._key, text, self._revision)
        except RevisionMismatch:
            await self._refresh(self.store)
            return False
        return True

    async def load(self) -> None:
        """Power on: what was kept is there again; if it cannot be read, that is said in the log and to every initiator."""
        if self.store is None:
            return
        try:
            text, self._revision = await self.store.get(self._key)
            self.state = self._parsed(text)
        except (OSError, ValueError) as error:
            self._lose(error)

    def _parsed(self, text: str | None) -> State:
        """Raises ``ValueError``."""
        state = State() if text is None else aptpl.from_text(text)
        return state if self.enforce_isids else without_isids(state)

    def watch(self) -> None:
        """From now on, take over what other nodes change."""
        if self.store is not None and self._unwatch is None:
            lu = self._logical_unit
            self._unwatch = self.store.watch(self._key, lambda _: lu.running.spawn_alone(self._changed()))

    def unwatch(self) -> None:
        """The end of :meth:`watch`."""
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    async def _changed(self) -> None:
        store = self.store
        assert store is not None
        async with self.changing:
            try:
                await self._refresh(store)
            except OSError as error:  # the next change by this node will find it out again
                log.error("%s: %s: what another node has changed cannot be read: %s", store, self._key, error)

    async def _refresh(self, store: Store) -> None:
        """Called with :attr:`changing` held. Raises ``OSError``."""
        text, revision = await store.get(self._key)
        if revision == self._revision:
            return
        self._revision = revision
        before = self.state
        try:
            after = self._parsed(text)
        except ValueError as error:
            self._lose(error)
            self._logical_unit.update_reserved()
            return
        changed = after.registrations != before.registrations
        generation = next_generation(before.generation) if changed else before.generation
        self.take_effect(replace(after, generation=generation), attentions_between(before, after))

    def _lose(self, error: Exception) -> None:
        self.state, self.lost = State(), True
        log.error(
            "%s: %s: persistent reservations are lost: %s; most commands are refused until REPLACE LOST RESERVATION",
            self.store,
            self._key,
            error,
        )

    def take_effect(self, state: State, attentions: Mapping[NexusName, UnitAttention]) -> None:
        """A new state, which is kept if it has to be, and what it means to the I_T nexuses."""
        lu = self._logical_unit
        self.state = state
        self.lost = False
        lu.update_reserved()
        if not attentions:
            return
        for itl in tuple(lu.itl_nexuses):
            attention = attentions.get(self.name_of(itl.nexus))
            if attention is not None:
                itl.establish_attention(attention)

    def forget(self, group: TargetPortalGroup, initiator: str | None = None) -> None:
        """An initiator (``None``: everybody) does not get here through a target port any more: unregister it, as LIO does."""
        port = group.target.name, group.tag

        def gone() -> list[NexusName]:
            names = self.state.registrations
            return [name for name in names if (name.target, name.tag) == port and initiator in {None, name.initiator}]

        if not gone():
            return
        if self.changing.locked() or (self.store is not None and self.state.aptpl):
            self._logical_unit.running.spawn_alone(self._forget(gone))
        else:
            self._unregister(gone())

    async def _forget(self, gone: Callable[[], list[NexusName]]) -> None:
        async with self.changing:
            try:
                while not await self.keep(unregister(self.state, gone()).state):
                    pass
            except OSError as error:  # it is the administrator's will nevertheless
                log.error("%s: %s: registrations that are gone stay there: %s", self.store, self._key, error)
            self._unregister(gone())

    def _unregister(self, names: list[NexusName]) -> None:
        if names:
            done = unregister(self.state, names)
            self.take_effect(done.state, done.attentions)

    # what it admits

    @property
    def matters(self) -> bool:
        """:meth:`check` has to be asked."""
        return self.lost or self.state.kind is not None

    def name_of(self, nexus: ITNexus) -> NexusName:
        """Under which name a nexus is registered."""
        port, group = nexus.initiator_port, nexus.target_portal_group
        return NexusName(port.name, port.isid if self.enforce_isids else None, group.target.name, group.tag)

    def admits(self, nexus: ITNexus) -> tuple[bool, bool]:
        """Whether a nexus may read, and whether it may write."""
        if self.lost:
            return False, False
        kind = self.state.kind
        if kind is None or self.state.has_part(self.name_of(nexus)):
            return True, True
        return not kind.exclusive_access, False

    def check(self, task: Task) -> None:
        """Raises :class:`ReservationConflict`, or :class:`PersistentReservationInformationLost`."""
        command, cdb = task.command, task.cdb
        if self.lost:
            if command is None or not _allowed_while_lost(command, cdb):
                raise PersistentReservationInformationLost
            return
        kind = self.state.kind
        if kind is None or self.state.has_part(self.name_of(task.nexus)):
            return
        if command is None or command.conflicts_persistently(cdb, exclusive_access=kind.exclusive_access):
            raise ReservationConflict

    def check_replacement(self, action: OutAction, nexus: ITNexus) -> None:
        """REPLACE LOST RESERVATION is for what was lost, and then no other service action is (SPC-4 5.13.11.3, table 66)."""
        replaces = action is OutAction.REPLACE_LOST_RESERVATION
        if replaces is self.lost:
            return
        if self.lost:
            raise PersistentReservationInformationLost
        if self.state.kind is not None and self.name_of(nexus) not in self.state.registrations:
            raise ReservationConflict
        raise InvalidReleaseOfPersistentReservation


def _allowed_while_lost(command: Command, cdb: bytes) -> bool:
    if (command.operation_code, command.service_action) in ALLOWED_WHILE_LOST:
        return True
    return command.operation_code == _START_STOP_UNIT and not command.conflicts(cdb)
