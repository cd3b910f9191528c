"""Unit attention conditions and their queue (SAM-5 5.14, SPC-5 table 54)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tcm.scsi.check_condition import CheckCondition
from tcm.scsi.sense import Sense, SenseKey

MAXIMUM_PENDING = 16
"""Conditions that one I_T_L nexus keeps; beyond it the oldest that is not a reset is forgotten (SAM-5 5.14.1 allows it)."""

_OTHER = 6


@dataclass(frozen=True, slots=True)
class UnitAttention:
    """One unit attention condition."""

    asc: int
    ascq: int
    name: str
    """The standard's name of the additional sense code."""
    precedence: int = _OTHER
    """SAM-5 table 46: 1 is the highest; establishing one clears those of lower levels above 6 (the resets)."""

    information: int | None = None
    """INFORMATION of the sense data."""

    @property
    def is_reset(self) -> bool:
        """It outranks RESERVATION CONFLICT (SAM-5 5.3.3) and clears lower resets."""
        return self.precedence < _OTHER

    def sense(self) -> Sense:
        """The sense data that reports the condition."""
        return Sense(key=SenseKey.UNIT_ATTENTION, asc=self.asc, ascq=self.ascq, information=self.information)

    def check_condition(self) -> CheckCondition:
        """CHECK CONDITION status with :meth:`sense`."""
        return CheckCondition(sense=self.sense())


POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED = UnitAttention(0x29, 0x00, "POWER ON, RESET, OR BUS DEVICE RESET OCCURRED", 1)
POWER_ON_OCCURRED = UnitAttention(0x29, 0x01, "POWER ON OCCURRED", 1)
DEVICE_INTERNAL_RESET = UnitAttention(0x29, 0x04, "DEVICE INTERNAL RESET", 1)
SCSI_BUS_RESET_OCCURRED = UnitAttention(0x29, 0x02, "SCSI BUS RESET OCCURRED", 2)
BUS_DEVICE_RESET_FUNCTION_OCCURRED = UnitAttention(0x29, 0x03, "BUS DEVICE RESET FUNCTION OCCURRED", 3)
I_T_NEXUS_LOSS_OCCURRED = UnitAttention(0x29, 0x07, "I_T NEXUS LOSS OCCURRED", 4)
MEDIUM_CHANGED = UnitAttention(0x28, 0x00, "NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED")
MODE_PARAMETERS_CHANGED = UnitAttention(0x2A, 0x01, "MODE PARAMETERS CHANGED")
LOG_PARAMETERS_CHANGED = UnitAttention(0x2A, 0x02, "LOG PARAMETERS CHANGED")
RESERVATIONS_PREEMPTED = UnitAttention(0x2A, 0x03, "RESERVATIONS PREEMPTED")
RESERVATIONS_RELEASED = UnitAttention(0x2A, 0x04, "RESERVATIONS RELEASED")
REGISTRATIONS_PREEMPTED = UnitAttention(0x2A, 0x05, "REGISTRATIONS PREEMPTED")
ASYMMETRIC_ACCESS_STATE_CHANGED = UnitAttention(0x2A, 0x06, "ASYMMETRIC ACCESS STATE CHANGED")
IMPLICIT_ASYMMETRIC_ACCESS_STATE_TRANSITION_FAILED = UnitAttention(
    0x2A, 0x07, "IMPLICIT ASYMMETRIC ACCESS STATE TRANSITION FAILED"
)
CAPACITY_DATA_HAS_CHANGED = UnitAttention(0x2A, 0x09, "CAPACITY DATA HAS CHANGED")
TIMESTAMP_CHANGED = UnitAttention(0x2A, 0x10, "TIMESTAMP CHANGED")
PREVIOUS_BUSY_STATUS = UnitAttention(0x2C, 0x07, "PREVIOUS BUSY STATUS")
PREVIOUS_TASK_SET_FULL_STATUS = UnitAttention(0x2C, 0x08, "PREVIOUS TASK SET FULL STATUS")
PREVIOUS_RESERVATION_CONFLICT_STATUS = UnitAttention(0x2C, 0x09, "PREVIOUS RESERVATION CONFLICT STATUS")
COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = UnitAttention(0x2F, 0x00, "COMMANDS CLEARED BY ANOTHER INITIATOR")
THIN_PROVISIONING_SOFT_THRESHOLD_REACHED = UnitAttention(0x38, 0x07, "THIN PROVISIONING SOFT THRESHOLD REACHED")
INQUIRY_DATA_HAS_CHANGED = UnitAttention(0x3F, 0x03, "INQUIRY DATA HAS CHANGED")
DEVICE_IDENTIFIER_CHANGED = UnitAttention(0x3F, 0x05, "DEVICE IDENTIFIER CHANGED")
REPORTED_LUNS_DATA_HAS_CHANGED = UnitAttention(0x3F, 0x0E, "REPORTED LUNS DATA HAS CHANGED")


def threshold_reached(descriptor: int) -> UnitAttention:
    """THIN PROVISIONING SOFT THRESHOLD REACHED, of the descriptor at that byte of the Logical Block Provisioning mode page."""
    return replace(THIN_PROVISIONING_SOFT_THRESHOLD_REACHED, information=descriptor)


class AttentionQueue:
    """The conditions pending for one I_T_L nexus, the one to report first in front. False when there are none."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: list[UnitAttention] = []

    def __bool__(self) -> bool:
        return bool(self._pending)

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, attention: UnitAttention) -> bool:
        return attention in self._pending

    def establish(self, attention: UnitAttention) -> bool:
        """Add a condition; returns False if it is pending already or a reset of the same or a higher level is."""
        pending = self._pending
        if attention in pending:
            return False
        if attention.is_reset:
            if any(other.precedence <= attention.precedence for other in pending):
                return False
            pending[:] = [attention, *(other for other in pending if not other.is_reset)]
        else:
            if len(pending) >= MAXIMUM_PENDING:
                del pending[1 if pending[0].is_reset else 0]
            pending.append(attention)
        return True

    def first(self) -> UnitAttention | None:
        """The condition to report next; it stays pending."""
        return self._pending[0] if self._pending else None

    def clear(self, attention: UnitAttention) -> bool:
        """Remove one condition; returns False if it was not pending."""
        try:
            self._pending.remove(attention)
        except ValueError:
            return False
        return True
