"""Responses of one connection that the initiator has not acknowledged yet, at ERL 1 and 2 (RFC 7143 4.2.2.2, 11.16)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from tcm_iscsi.protocol.serial import serial_less

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm_iscsi.protocol.scsi_command import ScsiCommand

KEPT_BYTES = 16 << 20
"""Data and responses kept for retransmission on one connection; beyond it commands wait until some are acknowledged."""
KEPT_RESPONSES = 1024
"""Likewise, their number."""


class Response(NamedTuple):
    """A PDU that carried status."""

    stat_sn: int
    bhs: bytes
    data: tuple[Any, ...]
    command: ScsiCommand | None
    """Of a SCSI Response: it has the Data-In that went before."""
    size: int


class Unacknowledged:
    """What may have to be sent again, oldest first."""

    __slots__ = ("by_itt", "responses", "size")

    def __init__(self) -> None:
        self.responses: deque[Response] = deque()
        self.by_itt: dict[int, ScsiCommand] = {}
        self.size = 0
        """Bytes."""

    @property
    def full(self) -> bool:
        """No more than this is kept: commands wait."""
        return self.size > KEPT_BYTES or len(self.responses) > KEPT_RESPONSES

    @property
    def hopeless(self) -> bool:
        """Twice as much: nobody can mean to acknowledge it."""
        return self.size > 2 * KEPT_BYTES or len(self.responses) > 2 * KEPT_RESPONSES

    def keep(self, stat_sn: int, bhs: bytes, data: tuple[Any, ...], command: ScsiCommand | None) -> None:
        """A response has been queued."""
        size = len(bhs) + sum(map(len, data)) + (command.kept if command is not None else 0)
        self.responses.append(Response(stat_sn, bhs, data, command, size))
        self.size += size
        if command is not None:
            self.by_itt[command.itt] = command

    def acknowledge(self, exp_stat_sn: int) -> None:
        """The initiator has everything before ``exp_stat_sn``."""
        responses = self.responses
        while responses and serial_less(responses[0].stat_sn, exp_stat_sn):
            response = responses.popleft()
            self.size -= response.size
            self._forget(response.command)

    def _forget(self, command: ScsiCommand | None) -> None:
        if command is not None and self.by_itt.get(command.itt) is command:
            del self.by_itt[command.itt]

    def take(self, command: ScsiCommand) -> None:
        """The command goes to another connection."""
        self._forget(command)
        at = self._find(command)
        if at is not None:
            self.size -= self.responses[at].size
            del self.responses[at]

    def renew(self, command: ScsiCommand) -> Response | None:
        """The SCSI Response of a command with the content of now, and the StatSN it had (11.16.3)."""
        at = self._find(command)
        if at is None:
            return None
        old = self.responses[at]
        assert command.data_in is not None
        self.responses[at] = new = old._replace(
            bhs=command.response(old.stat_sn, len(command.data_in.pdus), sum(map(len, old.data)))
        )
        return new

    def data_acknowledged(self, command: ScsiCommand, data_sn: int) -> None:
        """Data-In before ``data_sn`` has arrived."""
        at = self._find(command)
        assert at is not None
        assert command.data_in is not None
        before = command.kept
        command.data_in.acknowledge(data_sn)
        freed = before - command.kept
        self.size -= freed
        self.responses[at] = self.responses[at]._replace(size=self.responses[at].size - freed)

    def _find(self, command: ScsiCommand) -> int | None:
        return next((at for at, response in enumerate(self.responses) if response.command is command), None)

    def run(self, first: int, count: int) -> list[Response]:
        """Responses ``first`` to ``first + count - 1``; all from ``first`` on if ``count`` is 0. Empty if any is not here."""
        responses = self.responses
        if not responses:
            return []
        if not first and not count:  # all that is unacknowledged (11.16.5)
            return list(responses)
        start = (first - responses[0].stat_sn) & 0xFFFFFFFF
        stop = start + count if count else len(responses)
        return list(responses)[start:stop] if start < stop <= len(responses) else []

    def commands(self) -> Iterator[ScsiCommand]:
        """Those whose status is not acknowledged."""
        return (response.command for response in self.responses if response.command is not None)
