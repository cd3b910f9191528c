"""RESERVE and RELEASE (SPC-2 7.21, 7.22, 7.17, 7.18): the whole logical unit, for the I_T nexus itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import ReservationConflict
from tcm.target.device_server.data_in import no_data_out
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task


def _registrations_in_charge(itl: ITLNexus) -> bool:
    """Where something is registered nothing is reserved this way; who has part in a persistent reservation is told GOOD.

    SPC-4 5.12.3 (CRH). Raises :class:`ReservationConflict` for anybody else.
    """
    reservations = itl.logical_unit.persistent_reservations
    state = reservations.state
    if not (state.registrations or reservations.lost):
        return False
    if state.kind is None or not state.has_part(reservations.name_of(itl.nexus)):
        raise ReservationConflict
    return True


def _reserve(task: Task) -> None:
    """Another nexus's reservation is a conflict; one's own is renewed."""
    assert task.itl is not None
    if _registrations_in_charge(task.itl):
        return
    task.itl.logical_unit.spc2_reservation.reserve(task.itl)


def _release(task: Task) -> None:
    """Releasing what one does not hold is no error."""
    assert task.itl is not None
    if _registrations_in_charge(task.itl):
        return
    task.itl.logical_unit.spc2_reservation.release(task.itl)


HANDLERS = {
    "reserve": Handler(no_data_out, _reserve),
    "release": Handler(no_data_out, _release),
}
