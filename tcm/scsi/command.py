"""What a row of the command table says (architecture: one command table)."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Direction(enum.Enum):
    """Which way a command's data goes, seen from the initiator."""

    NONE = "none"
    DATA_IN = "data-in"
    DATA_OUT = "data-out"


class Access(enum.Enum):
    """What a command does to the medium: the basis of reservation rules, write protection and readiness."""

    NONE = "none"
    """Does not touch the medium (INQUIRY, REPORT LUNS, MODE SENSE ...)."""
    READ = "read"
    WRITE = "write"


class Reservation(enum.Enum):
    """What happens when another I_T nexus holds an SPC-2 reservation (SPC-2 5.5.1, SBC-4 4.17 for block commands)."""

    ALLOWED = "allowed"
    CONFLICT = "conflict"


class Attention(enum.Enum):
    """What a pending unit attention condition does to the command (SAM-5 5.14.2)."""

    REPORT = "report"
    """The command is not executed and ends in CHECK CONDITION, UNIT ATTENTION."""
    IGNORE = "ignore"
    """The command is executed and the condition stays (INQUIRY, REPORT LUNS)."""
    SENSE_DATA = "sense-data"
    """The command is executed and itself returns the condition as its data (REQUEST SENSE)."""


class Readiness(enum.Enum):
    """Whether the command needs a unit that is started and has its medium."""

    ANY = "any"
    READY = "ready"


class Extent(enum.Enum):
    """Which other commands must not overlap this one's logical blocks while it runs."""

    NONE = "none"
    SHARED = "shared"
    """An ordinary read or write: waits only for exclusive ones."""
    EXCLUSIVE = "exclusive"
    """Atomic to every other command (COMPARE AND WRITE, ORWRITE, WRITE ATOMIC, WRITE SAME ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One operation code, or one service action of it."""

    name: str
    """The standard's name: ``READ (10)``."""
    operation_code: int
    service_action: int | None = None
    usage: bytes
    """CDB usage data as REPORT SUPPORTED OPERATION CODES returns it (SPC-5 6.29.3): its length is the CDB's; bits that are zero
    (other than in byte 0) are reserved and must be zero in a CDB. The service action stands in its field."""
    direction: Direction = Direction.NONE
    handler: str
    """Name of the pair of functions in :data:`tcm.target.device_server.HANDLERS`."""
    access: Access = Access.NONE
    reservation: Reservation = Reservation.CONFLICT
    attention: Attention = Attention.REPORT
    readiness: Readiness = Readiness.ANY
    extent: Extent = Extent.NONE
    timeout: int = 30
    """Recommended timeout, seconds, for the timeouts descriptor (SPC-5 6.29.4)."""

    @property
    def length(self) -> int:
        """Bytes of the CDB."""
        return len(self.usage)
