"""What comes of SCSI commands, and what goes wrong, whatever the transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tcm.failure import RuntimeFailure
from tcm.scsi.sense import SenseKey, Status, sense_codes

STATUSES: dict[int, str] = {status: status.name.replace("_", " ") for status in Status}
SENSE_KEYS: dict[int, str] = {key: key.name.replace("_", " ") for key in SenseKey}


class InitiatorError(RuntimeFailure):
    """Base of everything that an initiator raises at run time. One line, no secrets."""


class RequestFailed(InitiatorError):
    """A request has no response: what became of it at the target is not known, unless a subclass says so."""


class ScsiError(InitiatorError):
    """A SCSI command ended with another status than GOOD. Raised by the helpers that return data, never by ``execute``."""

    def __init__(self, result: Result) -> None:
        status = STATUSES.get(result.status, "an unknown status")
        super().__init__(f"{status} ({result.status:02X}h), {result.describe_sense()}")
        self.result = result


@dataclass(init=False)
class Result:
    """How a SCSI command ended. Made with any of its fields as keywords."""

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
    retries: int = 0
    """How often the command had to be sent again, or moved to another connection."""

    def __init__(self, **fields: Any) -> None:
        # one is made for every command: what nobody says stays with the class
        self.__dict__.update(fields)

    @property
    def completed(self) -> bool:
        """Completed at the target, so that ``status`` means something. A transport that can say no overrides this."""
        return True

    @property
    def good(self) -> bool:
        """Completed at the target, with status GOOD."""
        return self.completed and self.status == Status.GOOD

    @property
    def sense_key(self) -> int:
        """0 without sense data."""
        return sense_codes(self.sense)[0]

    @property
    def asc(self) -> tuple[int, int]:
        """Additional sense code and its qualifier; zeros without sense data."""
        return sense_codes(self.sense)[1:]

    def describe_sense(self) -> str:
        """For people: key and additional sense code."""
        if not self.sense:
            return "no sense data"
        key, asc, ascq = sense_codes(self.sense)
        return f"{SENSE_KEYS.get(key, 'reserved')} ({key:X}h), ASC {asc:02X}h/{ascq:02X}h"
