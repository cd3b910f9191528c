"""I_T nexuses and I_T_L nexuses (SAM-5 4.8): where commands and task management functions enter the core."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tcm.scsi import lun as lun_codec
from tcm.scsi.check_condition import CheckCondition, CommandTerminated, OverlappedCommandsAttempted
from tcm.scsi.sense import Sense, SenseKey, Status
from tcm.target import router, task_manager
from tcm.target.counters import retire, totals
from tcm.target.express import express_read, express_write
from tcm.target.task import TaskAttribute, TaskState
from tcm.target.unit_attention import (
    I_T_NEXUS_LOSS_OCCURRED,
    POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED,
    REPORTED_LUNS_DATA_HAS_CHANGED,
    AttentionQueue,
    UnitAttention,
)
from tcm.target.unsubmitted import take_over

if TYPE_CHECKING:
    from tcm.backstore import Buffer
    from tcm.fabric import TransportServices
    from tcm.target.initiator_port import InitiatorPort
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.lun import Lun
    from tcm.target.portal_group import TargetPortalGroup
    from tcm.target.task import Task
    from tcm.target.task_management import TaskManagementRequest

_identifiers = itertools.count(1)
RESERVED = 32
"""One part in so many of a task set's depth is each I_T nexus's own, whatever others do: 8 tasks of 256."""
_NO_ACA = Sense(key=SenseKey.ILLEGAL_REQUEST, asc=0x49, ascq=0x00)
"""ILLEGAL REQUEST, INVALID MESSAGE ERROR: the ACA task attribute while there is no ACA condition (SAM-5 8.5.6)."""

ExpressRead = Callable[[int, int, Sequence[memoryview]], bool]
ExpressWrite = Callable[[int, int, "Sequence[Buffer]"], bool]


class ITLNexus:
    """An initiator port's way to one logical unit."""

    __slots__ = (
        "_express_read",
        "_express_write",
        "attentions",
        "block_shift",
        "draining",
        "exported",
        "express_read",
        "express_write",
        "gated",
        "logical_unit",
        "lun",
        "lun_number",
        "nexus",
        "other_cmds",
        "parameter_bytes_in",
        "parameter_bytes_out",
        "protected",
        "read_bytes",
        "read_cmds",
        "task_cmds",
        "write_bytes",
        "write_cmds",
        "write_protect",
    )

    express_read: ExpressRead | None
    """``express_read(lba, blocks, buffers)``: True, and a READ is done; False or None: use :meth:`ITNexus.submit`.

    For an ordinary READ (10) or (16), SIMPLE or untagged, whose tag is not in use: all other CDB bits zero, TRANSFER LENGTH not
    zero, and the expected length equal to ``blocks << block_shift``. Never raises."""
    express_write: ExpressWrite | None
    """The same for a WRITE, all of whose data is there. The buffers are the caller's again when it returns."""

    def __init__(self, nexus: ITNexus, lun_number: int, exported: Lun, *, write_protect: bool) -> None:
        self.nexus: ITNexus = nexus
        self.lun_number = lun_number
        self.lun = lun_codec.encode(lun_number)
        self.exported = exported
        """What of the target port it leads to."""
        self.logical_unit: LogicalUnit = exported.logical_unit
        self.gated = True
        """Commands have to be checked against reservations or access states: what :meth:`update_express` found last."""
        self.draining: frozenset[Task] | None = frozenset() if exported.draining or nexus.draining else None
        """New commands end in BUSY, but for these, which were there before; ``None``: they do not."""
        self.write_protect = write_protect
        """By the node ACL."""
        self.protected = True
        """By whatever: what :meth:`update_express` found last."""
        self.block_shift = self.logical_unit.block_shift
        self.attentions = AttentionQueue()
        self.read_cmds = 0
        self.write_cmds = 0
        self.other_cmds = 0
        self.task_cmds = 0
        """Of all of them those that had a task."""
        self.read_bytes = 0
        """Data-In, logical blocks or not."""
        self.write_bytes = 0
        """Data-Out, likewise."""
        self.parameter_bytes_in = 0
        """Of it what is not logical blocks."""
        self.parameter_bytes_out = 0
        self.express_read = self.express_write = None
        self._express_read: ExpressRead | None = None
        self._express_write: ExpressWrite | None = None

    @property
    def num_cmds(self) -> int:
        """Commands completed."""
        return self.read_cmds + self.write_cmds + self.other_cmds

    def establish_attention(self, attention: UnitAttention) -> None:
        """A unit attention condition for this I_T_L nexus; nothing happens if it is pending already."""
        if self.attentions.establish(attention):
            self.update_express()
            self.nexus.services.asynchronous_event(self.lun, attention)

    def clear_attention(self, attention: UnitAttention) -> None:
        """A condition has been told in another way than by CHECK CONDITION."""
        if self.attentions.clear(attention):
            self.update_express()

    def take_attention(self) -> UnitAttention | None:
        """The condition to report next, cleared (REQUEST SENSE)."""
        attention = self.attentions.first()
        if attention is not None:
            self._told(attention)
        return attention

    def _told(self, attention: UnitAttention) -> None:
        """It is pending no more; REPORTED LUNS DATA HAS CHANGED is told once for all units of the I_T nexus (LUICLR)."""
        for itl in list(self.nexus.luns.values()) if attention is REPORTED_LUNS_DATA_HAS_CHANGED else (self,):
            itl.clear_attention(attention)

    def report_attention(self) -> CheckCondition:
        """CHECK CONDITION for the condition to report next, cleared unless UA_INTLCK_CTRL says otherwise (SPC-5 7.5.10)."""
        attention = self.attentions.first()
        assert attention is not None
        if not self.logical_unit.mode_parameters.unit_attention_interlock:
            self._told(attention)
        return attention.check_condition()

    def drain(self) -> None:
        """New commands end in BUSY, since this is about to go; those that are there go on."""
        if self.draining is None:
            late = tuple(self.nexus.services.unsubmitted(self.lun))
            for task in late:
                if task.write_length:
                    self.nexus.submit(task)  # its data is on its way: it was here before
            self.draining = frozenset(task for task in self.nexus.tasks.values() if task.itl is self)
            self.update_express()
            for task in late:
                if not task.write_length:
                    self.nexus.submit(task)

    def end_drain(self) -> None:
        """Commands are taken again, unless the LUN or the I_T nexus is drained for another reason."""
        if not (self.exported.draining or self.nexus.draining):
            self.draining = None
            self.update_express()

    def rebuild_express(self) -> None:
        """Make the express functions anew: capacity, block size or write protection have changed."""
        self.block_shift = self.logical_unit.block_shift
        self._express_read = express_read(self)
        self._express_write = express_write(self)
        self.update_express()

    def update_express(self) -> None:
        """Open or close the express lane; call after every change of this nexus's state."""
        lu = self.logical_unit
        self.protected = self.write_protect or lu.write_protected
        restricted = self.exported.restricted or self.draining is not None
        self.gated = lu.reserved or restricted
        if (
            self.attentions
            or restricted
            or not lu.ready
            or not lu.medium.nowait
            or lu.spc2_reservation.excludes(self)
            or self not in lu.itl_nexuses
        ):
            self.express_read = self.express_write = None
            return
        reads, writes = lu.persistent_reservations.admits(self.nexus) if lu.reserved else (True, True)
        self.express_read = self._express_read if reads else None
        self.express_write = self._express_write if writes and lu.medium.inline_writes and not self.protected else None


class ITNexus:
    """What joins an initiator port and a target port. Made by :meth:`TargetPortalGroup.establish_nexus`."""

    def __init__(
        self, initiator_port: InitiatorPort, target_portal_group: TargetPortalGroup, services: TransportServices
    ) -> None:
        self.identifier = next(_identifiers)
        """Unique in the process."""
        self.initiator_port = initiator_port
        self.target_portal_group = target_portal_group
        self.services = services
        self.luns: dict[bytes, ITLNexus] = {}
        """By LUN field, as :func:`tcm.scsi.lun.encode` makes it."""
        self.tasks: dict[int, Task] = {}
        """Unfinished ones, by tag."""
        self.lost = False
        self.draining = False
        """New commands end in BUSY: :meth:`drain`."""
        self.established = time.monotonic()
        """When that was, on the monotonic clock."""
        self._retired: Counter[str] = Counter()

    # called by the fabric

    def submit(self, task: Task) -> None:
        """SCSI Command Received (SAM-5 5.4.2). The fabric is called back, maybe before this returns."""
        tasks = self.tasks
        tag = task.tag
        if tag in tasks:
            self._overlapped(task)
            return
        itl = self.luns.get(task.lun) or self.find_lun(task.lun)
        tasks[tag] = task
        if itl is None:
            router.without_logical_unit(task)
            return
        task.itl = itl
        lu = task.logical_unit = itl.logical_unit
        task_set = lu.task_set
        if len(task_set.enabled) + len(task_set.dormant) >= task_set.depth and self._task_set_full(task, itl):
            return
        if task.attribute is TaskAttribute.ACA:
            router.terminate(task, CheckCondition(sense=_NO_ACA))
        elif task_set.add(task):
            router.begin(task)

    def data_out_received(self, task: Task) -> None:
        """All ``task.data_out_wanted`` bytes are in ``task.data_out``. Nothing happens if the task has been aborted."""
        if task.state is TaskState.AWAITING_DATA_OUT:
            router.execute(task)

    def data_out_failed(self, task: Task, sense: Sense) -> None:
        """The Data-Out cannot be had: the task ends in CHECK CONDITION with ``sense``."""
        if task.state is TaskState.AWAITING_DATA_OUT:
            router.terminate(task, CheckCondition(sense=sense))

    def refuse(self, task: Task, sense: Sense) -> None:
        """The fabric found fault with a command: it ends in CHECK CONDITION with ``sense`` and is not executed."""
        if task.tag in self.tasks:
            self._overlapped(task)
            return
        self.tasks[task.tag] = task
        itl = self.find_lun(task.lun)
        task.logical_unit = itl.logical_unit if itl is not None else None
        router.terminate(task, CheckCondition(sense=sense))

    def abort(self, tasks: Sequence[Task]) -> None:
        """The connection that the tasks came by is gone, but not the nexus: they are aborted without a response."""
        router.abort(tasks, respond=lambda _: False, then=lambda: None)

    def manage(self, request: TaskManagementRequest) -> None:
        """Task Management Request Received (SAM-5 7.12). ``task_management_executed`` follows, maybe before this returns."""
        task_manager.manage(self, request)

    def lose(self) -> None:
        """I_T nexus loss (SAM-5 6.3.4): its tasks are aborted without a response, its reservations released.

        ``task_aborted`` may still be called afterwards, for writes that were on their way to the medium; nobody else gets at
        those blocks before.
        """
        if self.lost:
            return
        self.lost = True
        router.abort(tuple(self.tasks.values()), respond=lambda _: False, then=lambda: None)
        for itl in tuple(self.luns.values()):
            itl.logical_unit.lost_ports.remember(self._port)
            self.remove_lun(itl)
        self.target_portal_group.nexus_lost(self)

    # called by the target portal group

    def drain(self) -> None:
        """New commands end in BUSY, since this is about to go; those that are there go on."""
        self.draining = True
        for itl in self.luns.values():
            itl.drain()

    def end_drain(self) -> None:
        """Commands are taken again."""
        self.draining = False
        for itl in self.luns.values():
            itl.end_drain()

    def add_lun(self, number: int, exported: Lun, *, write_protect: bool) -> ITLNexus:
        """Map a logical unit; its first unit attention says what brought the nexus about."""
        logical_unit = exported.logical_unit
        itl = ITLNexus(self, number, exported, write_protect=write_protect)
        known = logical_unit.lost_ports.take(self._port)
        itl.attentions.establish(I_T_NEXUS_LOSS_OCCURRED if known else POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
        self.luns[itl.lun] = itl
        logical_unit.attach(itl)
        changed = exported.changed_mode_pages
        if changed is not None:
            self.services.mode_pages_changed(itl.lun, changed)
        return itl

    def remove_lun(self, itl: ITLNexus) -> None:
        """Unmap a logical unit: the nexus's tasks there are aborted, by somebody else than the initiator (SAM-5 5.6.4: TAS)."""
        lu = itl.logical_unit
        tells = lu.mode_parameters.task_aborted_status
        router.abort((*lu.tasks_of(itl), *take_over((itl,))), respond=lambda _: tells, then=lambda: None)
        del self.luns[itl.lun]
        retire(self._retired, itl)
        self.target_portal_group.retire(itl)
        lu.detach(itl)
        itl.update_express()

    def totals(self) -> Counter[str]:
        """All of :data:`~tcm.target.counters.COUNTERS`, of all logical units there are and were."""
        return totals(self._retired, self.luns.values())

    @property
    def _port(self) -> tuple[object, ...]:
        port = self.initiator_port
        return port.name, port.isid, self.target_portal_group.relative_target_port_identifier

    def find_lun(self, field: bytes) -> ITLNexus | None:
        """The I_T_L nexus of a LUN field in any of its spellings."""
        number = lun_codec.decode(field)
        return None if number is None else self.luns.get(lun_codec.encode(number))

    # what is seldom

    def _task_set_full(self, task: Task, itl: ITLNexus) -> bool:
        """TASK SET FULL, or BUSY for an initiator that has nothing in the set whose end it could wait for (SAM-5 5.3.1).

        False: it is one of the few tasks that each initiator may have, whatever the others do.
        """
        task_set = itl.logical_unit.task_set
        own = sum(other.itl is itl for other in task_set)
        if own < task_set.depth // RESERVED:
            return False
        router.terminate(task, CommandTerminated(Status.TASK_SET_FULL if own else Status.BUSY))
        return True

    def _overlapped(self, task: Task) -> None:
        """A tag that is in use: all tasks of the I_T_L nexus are aborted, and this one is told (SAM-5 5.11)."""
        other = self.tasks[task.tag]
        doomed = [old for old in self.tasks.values() if old.lun == task.lun or old is other]

        def respond() -> None:
            task.itl = self.find_lun(task.lun)
            task.logical_unit = task.itl.logical_unit if task.itl else None
            if not self.lost:
                self.tasks.setdefault(task.tag, task)  # others may have waited for the same end
                router.terminate(task, OverlappedCommandsAttempted())

        router.abort(doomed, respond=lambda _: False, then=respond)
