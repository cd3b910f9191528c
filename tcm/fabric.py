"""What a fabric is to the core: SAM-5's transport protocol services (clause 5.4), and a life cycle.

A fabric makes an :class:`~tcm.target.nexus.ITNexus` for each initiator that logs in
(``target_portal_group.establish_nexus(...)``), hands it tasks (``nexus.submit``) and task management functions
(``nexus.manage``), and is called back through :class:`TransportServices`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tcm.failure import ConfigError
from tcm.scsi.mode_pages import Key, ModePage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from anyio.abc import TaskStatus

    from tcm.fabric_statistics import FabricStatistics
    from tcm.scsi.mode_pages import ModePageValues
    from tcm.target.device import TargetDevice
    from tcm.target.draining import Draining
    from tcm.target.nexus import ITNexus
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import NetworkPortal, TargetPortalGroup
    from tcm.target.store import Store
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

    def unsubmitted(self, lun: bytes) -> Iterable[Task]:  # noqa: ARG002  optional
        """A logical unit's task set is about to be cleared, maybe by another target port or another fabric, or is drained.

        Tasks of all commands that have arrived for ``lun`` (8 bytes, as :func:`tcm.scsi.lun.encode` makes it) and were not
        submitted yet, because their data is on its way or memory is short. They are the core's from now on and must not be
        submitted any more. The core aborts them (each ends in ``send_command_complete`` with TASK ABORTED, or in
        ``task_aborted``), or takes them as if they had just been submitted.

        If omitted: (by a class that inherits from this one) there are none: every command is submitted as it arrives.
        """
        return ()

    def mode_pages_changed(self, lun: bytes, values: ModePageValues) -> None:
        """Protocol-specific mode pages of a logical unit (8 bytes) at this target port have other values from now on.

        By MODE SELECT of any initiator there, or by a reset; and for a logical unit that is mapped after that. May be called
        while the nexus is being established.

        If omitted: (by a class that inherits from this one) nothing happens.
        """

    def asynchronous_event(self, lun: bytes, attention: UnitAttention) -> None:
        """A unit attention condition was established for this nexus: report it if the protocol has a way to.

        If omitted: (by a class that inherits from this one) nothing is reported; the condition waits for the next command.
        """


@dataclass(frozen=True, slots=True)
class ProtocolModePages:
    """Mode pages whose meaning is the protocol's (SPC-5 7.5: 02h, 18h, 19h): ``group.protocol_mode_pages`` of a target port.

    Each logical unit has values of its own at each such port (mode page policy 01b, VPD page 87h). They are not saved.
    """

    pages: tuple[ModePage, ...]
    defaults: Mapping[Key, Mapping[str, int]]
    """By page: values of fields that differ from the pages' own defaults."""


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

        Raises :class:`tcm.failure.ConfigError` before that if it cannot listen (port taken: say so, and what to write).
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

    def keep_in(self, store: Store) -> None:  # noqa: B027  optional
        """Where to keep what has to outlive the process, by keys that begin with the fabric's name. Called before :meth:`run`.

        Not called where there is no state directory. If omitted: nothing is kept.
        """

    # changes while it runs; the objects have been changed already unless it says otherwise

    def target_added(self, target: TargetDevice) -> None:  # noqa: B027  optional
        """There is one more target device, without portal groups.

        If omitted: the sequence that the factory got has it, which is enough.
        """

    def target_removed(self, target: TargetDevice) -> None:  # noqa: B027  optional
        """A target device is gone; its portal groups went before it.

        If omitted: the sequence that the factory got does not have it any more, which is enough.
        """

    def portal_group_added(self, group: TargetPortalGroup) -> None:  # noqa: B027  optional
        """There is one more portal group, without portals, LUNs and node ACLs.

        If omitted: the target device has it, which is enough.
        """

    def portal_group_removed(self, group: TargetPortalGroup) -> None:  # noqa: B027  optional
        """A portal group is gone; its nexuses and portals went before it.

        If omitted: the target device does not have it any more, which is enough.
        """

    def portal_group_enabled(self, group: TargetPortalGroup) -> None:  # noqa: B027  optional
        """``group.enabled`` has changed. When it was switched off, its nexuses are dropped next.

        If omitted: the core admits nobody to a group that is off, which is enough.
        """

    def reload(self) -> Callable[[], None] | None:
        """Read again what is in files that the options name, such as certificates; the result puts it in force.

        Raises :class:`tcm.failure.ConfigError`; then all is as it was.

        If omitted: the options name no such files.
        """
        return None

    def parameters_changed(self, group: TargetPortalGroup) -> None:  # noqa: B027  optional
        """``group.parameters`` have changed, or those of one of its node ACLs.

        If omitted: they hold for those who log in from now on.
        """

    def node_acl_added(self, group: TargetPortalGroup, acl: NodeAcl) -> None:  # noqa: B027  optional
        """There is one more node ACL, without LUNs: its initiator may log in from now on.

        If omitted: an initiator that was refused finds out when it tries again.
        """

    def demo_mode_entered(self, group: TargetPortalGroup) -> None:  # noqa: B027  optional
        """Initiators without a node ACL may log in from now on (``generate_node_acls``).

        If omitted: an initiator that was refused finds out when it tries again.
        """

    def drop(self, nexus: ITNexus) -> None:
        """The administrator takes an initiator's nexus away: end the session, and ``nexus.lose()``.

        If omitted: the nexus is lost, and the initiator finds out by itself.
        """
        nexus.lose()

    def request_logout(self, nexus: ITNexus, seconds: float) -> None:  # noqa: B027  optional
        """The nexus is about to go: ask the initiator to leave within so many seconds, if the protocol has a way to.

        If omitted: nobody is asked; its commands are waited for all the same.
        """

    def drain_portal(self, group: TargetPortalGroup, portal: NetworkPortal) -> Draining | None:  # noqa: ARG002  optional
        """A network portal of a group, to be taken out of service: no logins, and who came by it is asked to leave.

        If omitted: there is nothing to wait for.
        """
        return None

    async def add_portal(self, group: TargetPortalGroup, portal: NetworkPortal) -> NetworkPortal:  # noqa: ARG002  optional
        """Listen at one more portal of a group; other groups may be behind it already. Returns it with its real port.

        Raises :class:`tcm.failure.ConfigError`, caused by the ``OSError`` if there is one; nothing has changed then.

        If omitted: refused, the fabric has the portals that it began with.
        """
        raise ConfigError("this fabric cannot listen at other portals while it runs; write them where it is configured")

    async def remove_portal(self, group: TargetPortalGroup, portal: NetworkPortal) -> None:  # noqa: B027  optional
        """The group is not behind that portal any more; nobody listens there if no other is. Sessions that are there stay.

        If omitted: nothing happens; the fabric goes on listening there.
        """
