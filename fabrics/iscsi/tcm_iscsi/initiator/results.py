"""What comes out of it: results of SCSI commands, events, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass

from tcm.initiator import results
from tcm.initiator.results import InitiatorError, RequestFailed, ScsiError
from tcm_iscsi.protocol.pdu import AsyncEvent, LoginStatus, LogoutResponse, RejectReason

__all__ = [
    "AsyncMessage",
    "ConnectionClosed",
    "ConnectionLost",
    "ConnectionUp",
    "Event",
    "InitiatorError",
    "LoginFailed",
    "RejectReceived",
    "Rejected",
    "RequestFailed",
    "Result",
    "ScsiError",
    "SessionEnded",
    "SessionFailed",
    "TaskAborted",
    "TaskLost",
]


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


@dataclass(init=False)
class Result(results.Result):
    """How a SCSI command ended (RFC 7143 11.4)."""

    response: int = 0
    """0: completed at the target; otherwise the status means nothing (clause 11.4.3)."""
    status_qualifier: int = 0
    """RFC 7144."""

    @property
    def completed(self) -> bool:
        """As the response says."""
        return not self.response


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
