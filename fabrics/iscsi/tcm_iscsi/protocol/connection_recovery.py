"""What outlives a connection at ERL 2: the tasks that were allegiant to it (RFC 7143 7.1.5, 7.2.2, clause 8.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcm_iscsi.protocol.command_flow import CommandFlow
    from tcm_iscsi.protocol.parameters import SessionParameters
    from tcm_iscsi.protocol.scsi_command import ScsiCommand


class LostConnection:
    """A connection that is gone, whose tasks can be reassigned."""

    __slots__ = ("connection", "deadline", "released", "seconds")

    def __init__(self, connection: CommandFlow, parameters: SessionParameters) -> None:
        self.connection = connection
        self.seconds = parameters.default_time2wait + parameters.default_time2retain
        """How long its tasks are kept, from its failure, and anew from its logout."""
        self.deadline: float | None = None
        """On the owner's clock; None: the time begins when it is asked for next."""
        self.released = False
        """It was removed for recovery (Logout, or a login with its CID): its tasks may go to another connection."""

    def expired(self, now: float) -> bool:
        """Whether the time is over."""
        if self.deadline is None:
            self.deadline = now + self.seconds
        return now >= self.deadline

    @property
    def kept(self) -> int:
        """Bytes of responses and their data."""
        return self.connection.unacknowledged.size if self.connection.unacknowledged is not None else 0

    def take(self, command: ScsiCommand) -> None:
        """The command is allegiant to another connection now."""
        if self.connection.unacknowledged is not None:
            self.connection.unacknowledged.take(command)
