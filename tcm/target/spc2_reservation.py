"""RESERVE and RELEASE of one logical unit (SPC-2 5.5.1): which I_T nexus holds it, and what the others may do meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import ReservationConflict

if TYPE_CHECKING:
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task


class Spc2Reservation:
    """The logical unit as a whole, for one I_T nexus or none."""

    def __init__(self, logical_unit: LogicalUnit) -> None:
        self._logical_unit = logical_unit
        self.holder: ITLNexus | None = None

    def excludes(self, itl: ITLNexus) -> bool:
        """Another nexus holds it."""
        return self.holder is not None and self.holder is not itl

    def check(self, task: Task) -> None:
        """Raises :class:`ReservationConflict` if the command is not for others than the holder, and comes from another.

        ``task.command`` is ``None`` for an operation code that is not known.
        """
        holder = self.holder
        if holder is None or holder is task.itl:
            return
        if task.command is None or task.command.conflicts(task.cdb):
            raise ReservationConflict

    def reserve(self, itl: ITLNexus) -> None:
        """RESERVE by a nexus that may; one's own reservation is renewed. Raises :class:`ReservationConflict`."""
        if self.excludes(itl):
            raise ReservationConflict
        self.holder = itl
        self._logical_unit.update_reserved()

    def release(self, itl: ITLNexus | None = None) -> None:
        """RELEASE: nothing happens if another nexus holds the reservation; ``None`` releases anybody's."""
        if self.holder is not None and itl in {None, self.holder}:
            self.holder = None
            self._logical_unit.update_reserved()
