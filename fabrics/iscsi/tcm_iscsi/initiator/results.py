"""What comes out of it: results of SCSI commands, events, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tcm_iscsi.protocol.pdu import AsyncEvent, LoginStatus, LogoutResponse, RejectReason

GOOD, CHECK_CONDITION = 0x00, 0x02
STATUSES = {
    GOOD: "GOOD",
    CHECK_CONDITION: "CHECK CONDITION",
    0x04: "CONDITION MET",
    0x08: "BUSY",
    0x18: "RESERVATION CONFLICT",
    0x28: "TASK SET FULL",
    0x30: "ACA ACTIVE",
    0x40: "TASK ABORTED",
}
"""SAM-5 5.3.1."""
SENSE_KEYS = (
    "NO SENSE", "RECOVERED ERROR", "NOT READY", "MEDIUM ERROR", "HARDWARE ERROR", "ILLEGAL REQUEST", "UNIT ATTENTION",
    "DATA PROTECT", "BLANK CHECK", "VENDOR SPECIFIC", "COPY ABORTED", "ABORTED COMMAND", "reserved", "VOLUME OVERFLOW",
    "MISCOMPARE", "COMPLETED",
)  # fmt: skip
"""SPC-5 4.5.8, by their numbers."""


class InitiatorError(Exception):
    """Base of everything that this package raises at run time. One line, no secrets."""


class LoginFailed(InitiatorError):
    """The login did not reach full feature phase.

    ``status`` is the target's, or None if it is the initiator that gave up; ``target_address`` is set in a redirection
    (``host:port,tag``, RFC 7143 13.8).
    """

    def __init__(self, reason: str, status: LoginStatus | int | None = None, target_address: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.target_address = target_address


class RequestFailed(InitiatorError):
    """A request has no response: what became of it at the target is not known, unless a subclass says so."""


class SessionFailed(RequestFailed):
    """The session is over; all that was outstanding in it ends with this."""


class TaskLost(RequestFailed):
    """TASK REASSIGN was refused: the target knows no such task any more (RFC 7143 11.6.1)."""


class TaskAborted(RequestFailed):
    """A task management function, or an Asynchronous Message, has ended the task."""


class Rejected(RequestFailed):
    """The target answered with a Reject (RFC 7143 11.17)."""

    def __init__(self, reason: int) -> None:
        try:
            name = RejectReason(reason).name.replace("_", " ").lower()
        except ValueError:
            name = "unknown"
        super().__init__(f"the target rejected the request: {name} ({reason:#04x})")
        self.reason = reason


class ScsiError(InitiatorError):
    """A SCSI command ended with another status than GOOD. Raised by the helpers that return data, never by ``execute``."""

    def __init__(self, result: Result) -> None:
        status = STATUSES.get(result.status, "an unknown status")
        super().__init__(f"{status} ({result.status:02X}h), {result.describe_sense()}")
        self.result = result


@dataclass(init=False)
class Result:
    """How a SCSI command ended (RFC 7143 11.4). Made with any of its fields as keywords."""

    response: int = 0
    """0: completed at the target; otherwise the status means nothing (clause 11.4.3)."""
    status: int = 0
    """SCSI status."""
    data: bytes | bytearray | memoryview = b""
    """Data-In, as much as the target sent."""
    sense: bytes = b""
    """Sense data, without its length field."""
    residual: int = 0
    """Bytes; how to read it is in the next two."""
    overflow: bool = False
    """The target had ``residual`` bytes more than it was asked for."""
    underflow: bool = False
    """``residual`` bytes fewer than expected were transferred."""
    status_qualifier: int = 0
    """RFC 7144."""
    retries: int = 0
    """How often the command had to be sent again, or reassigned."""

    def __init__(self, **fields: Any) -> None:
        # one is made for every command: what nobody says stays with the class
        self.__dict__.update(fields)

    @property
    def good(self) -> bool:
        """Completed at the target, with status GOOD."""
        return not self.response and self.status == GOOD

    @property
    def sense_key(self) -> int:
        """0 without sense data."""
        sense = self.sense
        if len(sense) < 3:
            return 0
        return sense[2 if sense[0] & 0x7E == 0x70 else 1] & 0x0F

    @property
    def asc(self) -> tuple[int, int]:
        """Additional sense code and its qualifier; zeros without sense data."""
        at = 12 if self.sense and self.sense[0] & 0x7E == 0x70 else 2
        return (self.sense[at], self.sense[at + 1]) if len(self.sense) > at + 1 else (0, 0)

    def describe_sense(self) -> str:
        """For people: key and additional sense code."""
        if not self.sense:
            return "no sense data"
        return f"{SENSE_KEYS[self.sense_key]} ({self.sense_key:X}h), ASC {self.asc[0]:02X}h/{self.asc[1]:02X}h"


# events


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncMessage:
    """An Asynchronous Message (clause 11.9)."""

    cid: int
    event: AsyncEvent | int
    vcode: int
    parameters: tuple[int, int, int]
    lun: bytes
    data: bytes
    """Sense data and so on, as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectReceived:
    """A Reject, whatever became of the request (clause 11.17)."""

    cid: int
    reason: RejectReason | int
    bhs: bytes
    """The header that was rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLost:
    """A connection is gone without logout.

    At error recovery level 2 the owner is to log in again with the same CID from ``wait_until`` on and before ``deadline``
    (times of the owner's clock); below that the session is over.
    """

    cid: int
    reason: str
    wait_until: float
    deadline: float
    exp_stat_sn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionUp:
    """A connection is in full feature phase."""

    cid: int
    recovered: int = 0
    """Tasks that move to it from the one it replaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed:
    """A connection was logged out; the owner closes its socket."""

    cid: int
    response: LogoutResponse | int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """Nothing more comes. ``reason`` is empty after a logout."""

    reason: str = ""


Event = AsyncMessage | RejectReceived | ConnectionLost | ConnectionUp | ConnectionClosed | SessionEnded
