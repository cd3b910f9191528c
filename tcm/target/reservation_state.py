"""What a logical unit has of persistent reservations: the present state, what it admits, and where it is kept (SPC-5 5.14)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from tcm.scsi.persistent_reservations import OutAction
from tcm.scsi.sense import InvalidFieldInCdb, PersistentReservationInformationLost, ReservationConflict
from tcm.target import aptpl
from tcm.target.persistent_reservations import NexusName, State

if TYPE_CHECKING:
    from tcm.target.nexus import ITNexus
    from tcm.target.reservation_store import ReservationStore
    from tcm.target.task import Task

log = logging.getLogger(__name__)


class PersistentReservations:
    """The persistent reservations of one logical unit.

    :param enforce_isids: iSCSI: an initiator's sessions with different ISIDs register separately (LIO: ``enforce_pr_isids``).
    """

    def __init__(self, *, enforce_isids: bool = True) -> None:
        self.state = State()
        self.enforce_isids = enforce_isids
        self.lost = False
        """What had been kept could not be read back: nothing is let through until REPLACE LOST RESERVATION."""
        self.store: ReservationStore | None = None
        """Where APTPL is kept; ``None``: APTPL is refused."""
        self.changing = anyio.Lock()
        """Held while a change waits for the store."""
        self._revision = 0

    async def keep(self, state: State) -> None:
        """Make a state durable if it has to be, before it takes effect. Raises ``OSError``."""
        if self.store is not None:
            text = aptpl.to_text(state) if state.aptpl else aptpl.NOTHING
            self._revision = await to_thread.run_sync(self.store.put, text, self._revision)

    async def load(self) -> None:
        """Power on: what was kept is there again; if it cannot be read, that is said in the log and to every initiator."""
        if self.store is None:
            return
        try:
            text, self._revision = await to_thread.run_sync(self.store.get)
            self.state = State() if text is None else aptpl.from_text(text)
        except (OSError, ValueError) as error:
            self.lost = True
            log.error("%s: persistent reservations are lost: %s", self.store, error)  # nobody's mistake here

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
        if self.lost and (command is None or command.conflicts_persistently(cdb, exclusive_access=True)):
            raise PersistentReservationInformationLost
        kind = self.state.kind
        if kind is None or self.state.has_part(self.name_of(task.nexus)):
            return
        if command is None or command.conflicts_persistently(cdb, exclusive_access=kind.exclusive_access):
            raise ReservationConflict

    def check_replacement(self, action: OutAction) -> None:
        """REPLACE LOST RESERVATION is for what was lost, and then nothing else is. Raises ``CheckCondition``."""
        if self.lost and action is not OutAction.REPLACE_LOST_RESERVATION:
            raise PersistentReservationInformationLost
        if not self.lost and action is OutAction.REPLACE_LOST_RESERVATION:
            raise InvalidFieldInCdb.at(1, 4)
