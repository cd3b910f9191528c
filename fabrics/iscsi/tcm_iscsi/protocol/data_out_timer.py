"""Data-Out that does not come: it is asked for again, or the connection fails (RFC 7143 7.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_iscsi.protocol.failure import ConnectionFailed, Failure

if TYPE_CHECKING:
    from tcm_iscsi.protocol.full_feature import FullFeaturePhase
    from tcm_iscsi.protocol.scsi_command import ScsiCommand


class DataOutTimer:
    """Of the commands of one connection that wait for Data-Out, as others may wait for them (ORDERED)."""

    __slots__ = ("owed",)

    def __init__(self) -> None:
        self.owed: dict[ScsiCommand, tuple[object, float, int]] = {}
        """Whose Data-Out has yet to come: how far each was when looked at, since when, how often asked again."""

    def handle_timer(self, phase: FullFeaturePhase, now: float, timeout: float, retries: int) -> None:
        """At ERL 1 and 2 what has not come is asked for again.

        :param phase: the connection.
        :param timeout: seconds without any, after which that is done.
        :param retries: how often in a row; at ERL 0 the same time passes.
        :raises ConnectionFailed: nothing has come for one of the commands all the while.
        """
        recovers = phase.unacknowledged is not None
        before, self.owed = self.owed, {}
        for command in list(phase.session.commands.values()):
            data_out = command.data_out
            if data_out is None or not data_out.sequences or command.connection is not phase:
                continue
            progress = data_out.progress()
            seen, since, asked = before.get(command, (None, now, 0))
            if seen != progress:
                since, asked = now, 0
            elif recovers and now - since >= timeout and asked < retries:
                asked += 1
                phase.history.append(f"asked again for Data-Out of task {command.itt:#x}")
                data_out.recover(asked)
                phase.wake()
                since, progress = now, data_out.progress()
            elif now - since >= (timeout if recovers else timeout * retries):
                phase.note_failure(Failure.TIMEOUT)
                msg = f"no Data-Out for {timeout * retries:.0f} s"
                raise ConnectionFailed(msg)
            if data_out.sequences:
                self.owed[command] = progress, since, asked
