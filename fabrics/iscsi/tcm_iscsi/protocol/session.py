"""An iSCSI session, apart from its connections: CmdSN ordering, the commands in progress, the I_T nexus (RFC 7143 4.2, 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tcm.scsi.sense import Status
from tcm_iscsi.protocol.connection_recovery import LostConnection
from tcm_iscsi.protocol.pdu import RESERVED_TAG, AsyncEvent
from tcm_iscsi.protocol.serial import SERIAL_BITS, serial_less

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.scsi.mode_pages import ModePageValues
    from tcm.target.nexus import ITNexus
    from tcm.target.task import Task
    from tcm.target.task_management import TaskManagementRequest
    from tcm.target.unit_attention import UnitAttention
    from tcm_iscsi.protocol.command_flow import CommandFlow
    from tcm_iscsi.protocol.faults import Faults
    from tcm_iscsi.protocol.full_feature import FullFeaturePhase
    from tcm_iscsi.protocol.parameters import SessionParameters
    from tcm_iscsi.protocol.pdu import LogoutReason
    from tcm_iscsi.protocol.scsi_command import ScsiCommand

LOST_CONNECTIONS = 64
"""Connections of a session whose tasks wait for reassignment; the oldest gives way."""
LOST_BYTES = 64 << 20
"""Data and responses that are kept for them, and data of commands in progress; likewise."""


class ScsiPort(Protocol):
    """How a session reaches the core without importing it."""

    nexus: ITNexus

    def make_task(
        self, lun: bytes, itt: int, cdb: bytes, attribute: int, read_length: int, write_length: int, data: Any, context: Any
    ) -> Task:
        """A task of this nexus; ``attribute`` is the ATTR field."""

    def manage(self, function: int, lun: bytes, referenced_tag: int, context: Any) -> bool:
        """Hand a task management function (RFC 7143 11.5.1 codes) to the core; False if the core knows none such."""

    def managed(self, request: TaskManagementRequest) -> None:
        """The response to a task management function is queued."""

    def response_code(self, request: TaskManagementRequest) -> tuple[int, bytes]:
        """Response field and additional response information of a TMF response (RFC 7143 11.6.1)."""

    def logout(self, reason: LogoutReason) -> None:
        """A Logout Request has come."""

    def terminate(self, tasks: list[Task], luns: set[bytes]) -> None:
        """Abort tasks without a response; SOME COMMANDS CLEARED BY ISCSI PROTOCOL EVENT for each of ``luns`` (RFC 7143 7.6)."""


@dataclass(slots=True, eq=False)
class SessionIdentity:
    """What names a session (RFC 7143 4.2.7.1 and 6.3.1)."""

    initiator_name: str
    isid: bytes
    tsih: int
    target_name: str
    portal_group_tag: int
    initiator_alias: str = ""
    chap_user: str = ""
    """By which the initiator has proved itself in the leading login; empty: it did not have to."""

    def __str__(self) -> str:
        return f"{self.initiator_name},i,0x{self.isid.hex()} -> {self.target_name or 'discovery'},t,{self.portal_group_tag}"


class Session:
    """A normal or discovery session; implements :class:`tcm.fabric.TransportServices` for its nexus.

    :param port: the way to the core; ``None`` in a discovery session.
    :param depth: how many commands may be in progress at once: the width of the CmdSN window.
    :param faults: what it sends out of order, on purpose.
    """

    __slots__ = (
        "barriers",
        "closed",
        "cmd_pdus",
        "commands",
        "connections",
        "deferred",
        "delivering",
        "depth",
        "digest_errors",
        "exp_cmd_sn",
        "faults",
        "fences",
        "identity",
        "issuing",
        "lost",
        "managing",
        "max_cmd_sn",
        "next_ttt",
        "nops_received",
        "nops_sent",
        "parameters",
        "port",
        "rsp_pdus",
        "timeout_errors",
    )

    def __init__(
        self,
        identity: SessionIdentity,
        parameters: SessionParameters,
        port: ScsiPort | None,
        *,
        exp_cmd_sn: int,
        depth: int,
        faults: Faults | None = None,
    ) -> None:
        self.identity = identity
        self.parameters = parameters
        self.port = port
        self.depth = depth
        self.faults = faults
        self.exp_cmd_sn = exp_cmd_sn
        self.max_cmd_sn = (exp_cmd_sn + depth - 1) & SERIAL_BITS
        self.connections: dict[int, FullFeaturePhase] = {}
        self.lost: dict[CommandFlow, LostConnection] = {}
        """Connections that have failed or were removed for recovery, and whose tasks wait for TASK REASSIGN (ERL 2)."""
        self.commands: dict[int, ScsiCommand] = {}
        self.deferred: dict[int, tuple[CommandFlow | None, Callable[[], None] | None]] = {}
        """By CmdSN: what arrived ahead of its turn, or while too much was in progress, and the connection it came by; nothing
        to run: counts, and nothing else."""
        self.delivering = False
        self.barriers: list[tuple[int, Callable[[], None]]] = []
        """Immediate requests that wait until all before their CmdSN have arrived."""
        self.fences: list[Callable[[], bool]] = []
        """Responses that wait until others are acknowledged; each says whether it could go. Commands wait behind them."""
        self.issuing: FullFeaturePhase | None = None
        """Whose task management function is being carried out."""
        self.managing = 0
        """Task management functions in progress, until their responses have gone."""
        self.next_ttt = 1
        self.closed = False
        self.cmd_pdus = 0
        """SCSI Command PDUs that did not take the express lane."""
        self.rsp_pdus = 0
        """Responses to them."""
        self.nops_received = 0
        self.nops_sent = 0
        self.digest_errors = 0
        self.timeout_errors = 0

    def new_ttt(self) -> int:
        """A target transfer tag that is not the reserved one."""
        ttt = self.next_ttt
        self.next_ttt = ttt + 1 if ttt < RESERVED_TAG - 1 else 1
        return ttt

    # CmdSN

    def in_window(self, cmd_sn: int) -> bool:
        """Whether a non-immediate command with this CmdSN may be taken (RFC 7143 4.2.2.1)."""
        return (cmd_sn - self.exp_cmd_sn) & SERIAL_BITS <= (self.max_cmd_sn - self.exp_cmd_sn) & SERIAL_BITS < self.depth

    def advance(self) -> None:
        """The command at ExpCmdSN has been taken."""
        self.exp_cmd_sn = (self.exp_cmd_sn + 1) & SERIAL_BITS

    def command_done(self) -> None:
        """A non-immediate command has left: the window opens by one."""
        self.max_cmd_sn = (self.max_cmd_sn + 1) & SERIAL_BITS

    def deliver_deferred(self) -> None:
        """Run what is deferred, as far as the order is unbroken and memory allows."""
        if self.delivering:  # a command that ends at once lets the next one in: by the loop, not by recursion
            return
        self.delivering = True
        try:
            while self.exp_cmd_sn in self.deferred and not self.fences:
                connection, run = self.deferred[self.exp_cmd_sn]
                if connection is not None and connection.overloaded:
                    break
                del self.deferred[self.exp_cmd_sn]
                self.advance()
                if run is None:
                    self.command_done()
                else:
                    run()
        finally:
            self.delivering = False

    def void(self, cmd_sn: int) -> None:
        """Take CmdSN as received although it never will be (RFC 7143 11.5.5: an aborted command that was still on its way)."""
        if self.in_window(cmd_sn):
            self.deferred[cmd_sn] = None, None
            if self.barriers:
                self.lift_barriers()

    def plug(self, cmd_sn: int) -> None:
        """Take everything before ``cmd_sn`` as received; nothing is run yet."""
        if serial_less(self.exp_cmd_sn, cmd_sn):
            for n in range(min(cmd_sn - self.exp_cmd_sn & SERIAL_BITS, self.depth)):
                missing = (self.exp_cmd_sn + n) & SERIAL_BITS
                if missing not in self.deferred:
                    self.void(missing)

    def arrived(self, cmd_sn: int) -> bool:
        """Whether everything before ``cmd_sn`` has arrived, in its turn or not."""
        missing = (cmd_sn - self.exp_cmd_sn) & SERIAL_BITS
        if missing > self.depth:  # not ahead of us, or nothing that a window could hold
            return True
        return all((self.exp_cmd_sn + n) & SERIAL_BITS in self.deferred for n in range(missing))

    def once_arrived(self, cmd_sn: int, run: Callable[[], None]) -> None:
        """``run`` as soon as everything before ``cmd_sn`` has arrived (4.2.3.3: a function waits for the tasks it affects)."""
        if not self.arrived(cmd_sn):
            self.barriers.append((cmd_sn, run))
            self.set_express()
            return
        # what is aborted makes room for what comes behind the request, which must not run before it
        before, self.delivering = self.delivering, True
        try:
            run()
        finally:
            self.delivering = before

    def lift_barriers(self) -> None:
        """Something has arrived."""
        waiting, self.barriers = self.barriers, []
        for cmd_sn, run in waiting:
            self.once_arrived(cmd_sn, run)
        self.set_express()

    def set_express(self) -> None:
        """The express lane looks neither for fences nor for barriers: it is closed while there are any."""
        hindered = bool(self.fences or self.barriers)
        for connection in self.connections.values():
            connection.express = connection.expressible and not hindered

    # connections

    def fence(self, go: Callable[[], bool]) -> None:
        """A response waits, and all commands behind it, until ``go`` says that it has gone (4.2.2.3.3: Response Fence)."""
        if not go():
            self.fences.append(go)
            self.set_express()

    def acknowledged(self) -> None:
        """An ExpStatSN has moved, or a connection is gone: responses behind a fence may go."""
        if self.fences:
            self.fences = [go for go in self.fences if not go()]
            if not self.fences:
                self.set_express()
                self.deliver_deferred()

    @property
    def recoverable(self) -> bool:
        """Tasks outlive their connection: ERL 2, and time to come back (13.16)."""
        return self.parameters.error_recovery_level >= 2 and self.parameters.default_time2retain > 0

    def allegiant(self, connection: CommandFlow) -> list[ScsiCommand]:
        """Unfinished commands of a connection."""
        return [command for command in self.commands.values() if command.connection is connection]

    def terminate(self, connection: CommandFlow) -> None:
        """The connection goes, the session may stay: its tasks end without a response (RFC 7143 7.6)."""
        if self.port is None:
            return
        connection.grant_queue.clear()
        connection.suspended = False
        commands = self.allegiant(connection)
        luns = {command.lun for command in commands}
        for command in commands:
            command.forget()
        for cmd_sn in [sn for sn, (owner, _) in self.deferred.items() if owner is connection]:
            self.deferred[cmd_sn] = None, None
        if commands:
            self.port.terminate([command.task for command in commands if not command.done], luns)
        self.deliver_deferred()

    def connection_failed(self, connection: CommandFlow) -> None:
        """A connection is gone without a logout: its tasks wait for another connection, or end with it."""
        p = self.parameters
        if self.recoverable:
            self.suspend(connection)
        else:
            self.terminate(connection)
        for other in self.connections.values():
            if not other.closing:
                other.async_message(AsyncEvent.CONNECTION_DROPPED, connection.cid, p.default_time2wait, p.default_time2retain)
                other.wake()
                break

    def suspend(self, connection: CommandFlow) -> LostConnection:
        """Its tasks keep their state for Time2Wait and Time2Retain (clause 8.2: CLEANUP_WAIT)."""
        connection.suspended = True
        connection.grant_queue.clear()
        for before in [each for each in self.lost.values() if each.connection.cid == connection.cid]:
            self.settle(before)
        lost = self.lost[connection] = LostConnection(connection, self.parameters)
        while len(self.lost) > LOST_CONNECTIONS or self.kept > LOST_BYTES:
            self.give_up(next(iter(self.lost)))
        return lost

    @property
    def kept(self) -> int:
        """Bytes that are held for lost connections, those that commands in progress are going to have included."""
        held = sum(c.reading + c.granted for c in self.commands.values() if c.connection in self.lost)
        return held + sum(lost.kept for lost in self.lost.values())

    def remove_for_recovery(self, cid: int) -> bool:
        """Logout with reason 2, or a login that takes the CID: its tasks may be reassigned now (11.14). False: no such CID."""
        connection = self.connections.get(cid)
        if connection is not None and connection not in self.lost:
            self.suspend(connection)
        found = [lost for lost in self.lost.values() if lost.connection.cid == cid]
        for lost in found:
            if not lost.released:
                lost.released = True
                lost.deadline = None
                self._discard(lost.connection)
        return bool(found)

    def _discard(self, connection: CommandFlow) -> None:
        """What is not acknowledged by ExpCmdSN comes again by another connection."""
        for cmd_sn in [sn for sn, (owner, _) in self.deferred.items() if owner is connection]:
            del self.deferred[cmd_sn]
        for command in self.allegiant(connection):
            if not command.submitted:
                command.abandon()

    def expire(self, now: float) -> None:
        """Time2Wait and Time2Retain are over for some (transition M1)."""
        for connection, lost in list(self.lost.items()):
            if lost.expired(now):
                self.give_up(connection)

    def give_up(self, connection: CommandFlow) -> None:
        """Nobody has reassigned its tasks in time: they end."""
        self.lost.pop(connection, None)
        connection.unacknowledged = None
        self.terminate(connection)

    def find_unacknowledged(self, itt: int) -> ScsiCommand | None:
        """A command whose status may not have arrived, of any connection there is or was.

        The newest: a tag is free again once the status has arrived, which the target may not know of the older ones.
        """
        newest: ScsiCommand | None = None
        for connection in (*self.lost, *self.connections.values()):
            kept = connection.unacknowledged
            command = kept.by_itt.get(itt) if kept is not None else None
            if command is not None and (newest is None or not serial_less(command.cmd_sn, newest.cmd_sn)):
                newest = command
        return newest

    def settle(self, lost: LostConnection) -> None:
        """Forget a lost connection that has no tasks any more."""
        kept = lost.connection.unacknowledged
        if not (kept and kept.by_itt) and not self.allegiant(lost.connection):
            self.lost.pop(lost.connection, None)

    # TransportServices
    def receive_data_out(self, task: Task) -> None:
        """The core wants the command's data."""
        task.context.receive_data_out()

    def send_command_complete(self, task: Task) -> None:
        """The core is done with the command."""
        if task.status is Status.TASK_ABORTED and self.parameters.task_reporting == "FastAbort":
            self.announce_termination(task.context)
        task.context.complete()

    def task_aborted(self, task: Task) -> None:
        """The command is gone without a response."""
        command: ScsiCommand = task.context
        if self.parameters.task_reporting == "FastAbort":
            self.announce_termination(command)
        command.abandon()

    def announce_termination(self, command: ScsiCommand) -> None:
        """FastAbort: whoever may still send data for the command is told to stop (RFC 7143 4.2.3.4, 11.9.1).

        Once a logical unit and connection until that is acknowledged, and never where the function itself came by.
        """
        connection = command.connection
        if connection.closing or connection is self.issuing:
            return
        if command.lun not in connection.terminations:
            connection.terminations[command.lun] = connection.stat_sn
            connection.async_message(AsyncEvent.TASK_TERMINATION, lun=command.lun)
            connection.wake()

    def task_management_executed(self, request: TaskManagementRequest) -> None:
        """The core has carried out a task management function."""
        request.context.executed(request)

    def unsubmitted(self, lun: bytes) -> tuple[()]:
        """None: what has arrived is with the core, whatever of its data has; before its turn (CmdSN) a command has not."""
        del lun
        return ()

    def mode_pages_changed(self, lun: bytes, values: ModePageValues) -> None:
        """There are none: what they would say is negotiated by text keys (RFC 7143 13)."""

    def asynchronous_event(self, lun: bytes, attention: UnitAttention) -> None:
        """SCSI asynchronous events are not reported by Async Message: the condition waits for the next command."""
