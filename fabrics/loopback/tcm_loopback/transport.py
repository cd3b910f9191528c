"""The loopback's transport protocol services: what travels between an initiator port and a target port in one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from tcm.scsi.sense import Sense, Status

if TYPE_CHECKING:
    from tcm.backstore import Buffer
    from tcm.scsi.mode_pages import ModePageValues
    from tcm.target.task import Task
    from tcm.target.task_management import TaskManagementRequest
    from tcm.target.unit_attention import UnitAttention


class CommandAborted(Exception):
    """The command was aborted and has no status: by task management, or with its I_T nexus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A completed command, as its initiator sees it."""

    status: Status
    sense: Sense | None = None
    sense_data: bytes = b""
    """The sense data as they would go over a wire: in the format that D_SENSE chooses."""
    data_in: bytes = b""
    residual: int = 0
    """Bytes that were not transferred; which way, ``overflow`` says."""
    overflow: bool = False
    """The command wanted to move more than the initiator's buffer; otherwise ``residual`` is an underflow."""
    express: bool = False
    """It went through the express lane."""


class LoopbackCommand:
    """A command in flight, on the initiator's side.

    :param data_out: all that the initiator has for the command.
    :param withheld: none of it goes with the command; :meth:`deliver` sends it once the target has asked.
    """

    def __init__(self, data_out: Buffer = b"", *, withheld: bool = False) -> None:
        self.data_out = data_out
        self.withheld = withheld
        self.task: Task | None = None
        self.result: Result | None = None
        self.requested = anyio.Event()
        """Set once the target has asked for the Data-Out."""
        self._finished = anyio.Event()
        self._delivered = bytearray()

    @property
    def done(self) -> bool:
        """It has completed, or was aborted."""
        return self._finished.is_set()

    async def wait(self) -> Result:
        """The result. Raises :class:`CommandAborted` if there is none to come."""
        await self._finished.wait()
        if self.result is None:
            raise CommandAborted
        return self.result

    def deliver(self, length: int | None = None) -> int:
        """Send the next ``length`` bytes of Data-Out (all that is asked for, if None); returns how many are still owed."""
        task = self._awaiting()
        wanted = task.data_out_wanted
        start = len(self._delivered)
        end = wanted if length is None else min(start + length, wanted)
        self._delivered += self.data_out[start:end]
        if end == wanted and not self.done:
            task.data_out = self._delivered
            task.nexus.data_out_received(task)
        return wanted - end

    def fail_data_out(self, sense: Sense) -> None:
        """The Data-Out will never come, and ``sense`` says why."""
        task = self._awaiting()
        task.nexus.data_out_failed(task, sense)

    def _awaiting(self) -> Task:
        assert self.requested.is_set(), "nobody has asked for data"
        assert self.task is not None
        return self.task

    def finish(self, result: Result | None) -> None:
        """Called by the transport: the command is over; without a result it was aborted."""
        self.result = result
        self._finished.set()


class LoopbackTransport:
    """:class:`tcm.fabric.TransportServices` of one nexus. ``task.context`` is the :class:`LoopbackCommand`."""

    def __init__(self) -> None:
        self.events: list[tuple[bytes, UnitAttention]] = []
        """Asynchronous events: the LUN field and the unit attention, the oldest first; the last 64 are kept."""

    def receive_data_out(self, task: Task) -> None:
        task.context.requested.set()

    def send_command_complete(self, task: Task) -> None:
        task.context.finish(
            Result(
                status=task.status,
                sense=task.sense,
                sense_data=task.sense_data(),
                data_in=b"".join(task.data_in),
                residual=task.residual,
                overflow=task.overflow,
            )
        )

    def task_aborted(self, task: Task) -> None:
        task.context.finish(None)

    def task_management_executed(self, request: TaskManagementRequest) -> None:
        request.context.set()

    def unsubmitted(self, lun: bytes) -> tuple[()]:
        del lun
        return ()

    def mode_pages_changed(self, lun: bytes, values: ModePageValues) -> None:
        pass

    def asynchronous_event(self, lun: bytes, attention: UnitAttention) -> None:
        self.events.append((lun, attention))
        del self.events[:-64]
