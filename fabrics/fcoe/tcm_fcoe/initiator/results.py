"""What comes of SCSI commands and task management over FCP, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass

from tcm.initiator import results
from tcm.initiator.results import InitiatorError, RequestFailed, ScsiError

__all__ = [
    "InitiatorError",
    "LoginFailed",
    "ProtocolViolation",
    "RequestFailed",
    "Result",
    "ScsiError",
    "TargetLost",
    "TaskAborted",
]


class LoginFailed(InitiatorError):
    """There is no such target, or it does not let us in."""


class TargetLost(RequestFailed):
    """The login with the target has ended: logout, its port or the link is gone."""


class TaskAborted(RequestFailed):
    """ABTS or a task management function has ended the command."""


class ProtocolViolation(RequestFailed):
    """The target has sent what FCP-4 does not allow; the command was aborted."""


@dataclass(init=False)
class Result(results.Result):
    """How a SCSI command ended (FCP_RSP, FCP-4 9.5)."""

    code: int | None = None
    """RSP_CODE, if there was one: other than 0 the status means nothing."""
    recoveries: int = 0
    """How often a part of it was asked for again (SRR)."""

    @property
    def completed(self) -> bool:
        """No RSP_CODE says otherwise."""
        return not self.code

    def describe_sense(self) -> str:
        """For people: RSP_CODE, or key and additional sense code."""
        return f"RSP_CODE {self.code:02X}h" if self.code else super().describe_sense()
