"""What a fabric is to the core: SAM-5's transport protocol services (clause 5.4), and a life cycle.

A fabric makes an :class:`~tcm.target.nexus.ITNexus` for each initiator that logs in
(``target_portal_group.establish_nexus(...)``), hands it tasks (``nexus.submit``) and task management functions
(``nexus.manage``), and is called back through :class:`TransportServices`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskStatus

    from tcm.fabric_statistics import FabricStatistics
    from tcm.target.device import TargetDevice
    from tcm.target.task import Task
    from tcm.target.task_management import TaskManagementRequest
    from tcm.target.unit_attention import UnitAttention


class TransportServices(Protocol):
    """What the core asks of a fabric, for one I_T nexus. All calls are synchronous and must not block or raise."""

    def receive_data_out(self, task: Task) -> None:
        """Get ``task.data_out_wanted`` bytes into ``task.data_out``, then call ``task.nexus.data_out_received(task)``.

        Called at most once a task, after every check that can fail without the data has passed, and only if what was
        submitted with the task is shorter. Bytes the initiator sends beyond ``data_out_wanted`` are the fabric's to drop.
        If the data cannot be had, the fabric calls ``task.nexus.data_out_failed(task, sense)`` instead.
        """

    def send_command_complete(self, task: Task) -> None:
        """Send ``task.data_in`` and the status block (status, sense, residual, overflow) together.

        Called once a task, unless the task was aborted without a response; the task is the fabric's from then on. May be
        called from inside ``submit``.
        """

    def task_aborted(self, task: Task) -> None:
        """The task is gone and has no response: forget it, and drop Data-Out still on its way."""

    def task_management_executed(self, request: TaskManagementRequest) -> None:
        """Send the service response in ``request.response``. May be called from inside ``manage``."""

    def asynchronous_event(self, lun: bytes, attention: UnitAttention) -> None:
        """A unit attention condition was established for this nexus: report it if the protocol has a way to.

        If omitted: (by a class that inherits from this one) nothing is reported; the condition waits for the next command.
        """


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where initiators reach one logical unit."""

    url: str
    """What an initiator takes as it is: ``iscsi://127.0.0.1:3260/iqn.../0``."""
    hints: tuple[str, ...] = ()
    """Lines that say how to attach, each one a command to paste."""


class Fabric(ABC):
    """A running fabric: all its targets, portals and sessions."""

    @abstractmethod
    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Listen and serve until cancelled. Calls ``task_status.started()`` once initiators can log in.

        Raises :class:`tcm.backstore.ConfigError` before that if it cannot listen (port taken: say so, and what to write).
        """

    @abstractmethod
    def endpoints(self) -> Sequence[Endpoint]:
        """One entry per LUN and portal, valid once :meth:`run` has started."""

    @abstractmethod
    async def drain(self) -> None:
        """Stop accepting, ask initiators to leave, wait until they have.

        The runtime bounds the time, and then cancels :meth:`run`.
        """

    def sessions(self) -> Sequence[str]:
        """One line per session for people.

        If omitted: nothing is listed.
        """
        return ()

    def targets(self) -> Sequence[TargetDevice]:
        """The target devices this fabric serves.

        If omitted: none are listed.
        """
        return ()

    def statistics(self) -> FabricStatistics | None:
        """What the fabric counts.

        If omitted: nothing; what the core counts of its logical units and I_T nexuses is shown all the same.
        """
        return None
