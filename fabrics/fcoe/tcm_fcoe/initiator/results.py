"""What comes of SCSI commands and task management over FCP, and what goes wrong."""

from __future__ import annotations

from typing import Any

GOOD, CHECK_CONDITION = 0x00, 0x02


class InitiatorError(Exception):
    """Base of everything that this package raises at run time. One line."""


class LoginFailed(InitiatorError):
    """There is no such target, or it does not let us in."""


class RequestFailed(InitiatorError):
    """A command has no response: what became of it at the target is not known, unless a subclass says so."""


class TargetLost(RequestFailed):
    """The login with the target has ended: logout, its port or the link is gone."""


class TaskAborted(RequestFailed):
    """ABTS or a task management function has ended the command."""


class ProtocolViolation(RequestFailed):
    """The target has sent what FCP-4 does not allow; the command was aborted."""


class ScsiError(InitiatorError):
    """A SCSI command ended with another status than GOOD. Raised by the helpers that return data, never by ``execute``."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"SCSI status {result.status:#04x}, {result.describe_sense()}")
        self.result = result


class Result:
    """How a SCSI command ended (FCP_RSP, FCP-4 9.5)."""

    status: int = 0
    """SCSI status."""
    code: int | None = None
    """RSP_CODE, if there was one: other than 0 the status means nothing."""
    data: bytes | bytearray | memoryview = b""
    """Data-In, as much as the target sent."""
    sense: bytes = b""
    residual: int = 0
    """Bytes; how to read it is in the next two."""
    overflow: bool = False
    """The target had ``residual`` bytes more than it was asked for."""
    underflow: bool = False
    """``residual`` bytes fewer than expected were transferred."""
    retries: int = 0
    """How often the command had to be sent again in a new exchange."""
    repeats: int = 0
    """How often of these the target had begun it already."""
    recoveries: int = 0
    """How often a part of it was asked for again (SRR)."""

    def __init__(self, **fields: Any) -> None:
        # what nobody says stays with the class
        self.__dict__.update(fields)

    @property
    def good(self) -> bool:
        """Status GOOD, and no RSP_CODE that says otherwise."""
        return self.status == GOOD and not self.code

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
        if self.code:
            return f"RSP_CODE {self.code:02X}h"
        if not self.sense:
            return "no sense data"
        return f"sense key {self.sense_key:X}h, ASC {self.asc[0]:02X}h/{self.asc[1]:02X}h"
