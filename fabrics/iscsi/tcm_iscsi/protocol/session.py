"""An iSCSI session, apart from its connections: CmdSN ordering, the commands in progress, the I_T nexus (RFC 7143 4.2, 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.target.nexus import ITNexus
    from tcm.target.task import Task
    from tcm.target.task_management import TaskManagementRequest
    from tcm.target.unit_attention import UnitAttention
    from tcm_iscsi.protocol.full_feature import FullFeaturePhase
    from tcm_iscsi.protocol.parameters import SessionParameters

SERIAL_BITS = 0xFFFFFFFF
RESERVED_TAG = 0xFFFFFFFF


def serial_less(a: int, b: int) -> bool:
    """RFC 1982 comparison of two 32-bit serial numbers: a < b."""
    return a != b and (b - a) & SERIAL_BITS < 0x80000000


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


@dataclass(slots=True, eq=False)
class SessionIdentity:
    """What names a session (RFC 7143 4.2.7.1 and 6.3.1)."""

    initiator_name: str
    isid: bytes
    tsih: int
    target_name: str
    portal_group_tag: int
    initiator_alias: str = ""

    def __str__(self) -> str:
        return f"{self.initiator_name},i,0x{self.isid.hex()} -> {self.target_name or 'discovery'},t,{self.portal_group_tag}"


class Session:
    """A normal or discovery session; implements :class:`tcm.fabric.TransportServices` for its nexus.

    :param port: the way to the core; ``None`` in a discovery session.
    :param depth: how many commands may be in progress at once: the width of the CmdSN window.
    """

    __slots__ = (
        "closed",
        "commands",
        "connections",
        "deferred",
        "delivering",
        "depth",
        "exp_cmd_sn",
        "identity",
        "managing",
        "max_cmd_sn",
        "next_ttt",
        "parameters",
        "port",
    )

    def __init__(
        self,
        identity: SessionIdentity,
        parameters: SessionParameters,
        port: ScsiPort | None,
        *,
        exp_cmd_sn: int,
        depth: int,
    ) -> None:
        self.identity = identity
        self.parameters = parameters
        self.port = port
        self.depth = depth
        self.exp_cmd_sn = exp_cmd_sn
        self.max_cmd_sn = (exp_cmd_sn + depth - 1) & SERIAL_BITS
        self.connections: dict[int, FullFeaturePhase] = {}
        self.commands: dict[int, Any] = {}
        self.deferred: dict[int, Callable[[], None] | None] = {}
        """By CmdSN: what arrived ahead of its turn, or while too much was in progress; ``None``: counts, and nothing else."""
        self.delivering = False
        self.managing = 0
        """Task management functions in progress."""
        self.next_ttt = 1
        self.closed = False

    def new_ttt(self) -> int:
        """A target transfer tag that is not the reserved one."""
        ttt = self.next_ttt
        self.next_ttt = ttt + 1 if ttt < RESERVED_TAG - 1 else 1
        return ttt

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
            while self.exp_cmd_sn in self.deferred and not any(c.overloaded for c in self.connections.values()):
                run = self.deferred.pop(self.exp_cmd_sn)
                self.advance()
                if run is None:
                    self.command_done()
                else:
                    run()
        finally:
            self.delivering = False

    def abort_commands(self, connection: FullFeaturePhase) -> None:
        """The connection goes, the session may stay: its commands are aborted without a response."""
        assert self.port is not None
        connection.grant_queue.clear()
        commands = [c for c in self.commands.values() if c.connection is connection]
        for command in commands:
            command.forget()
        self.port.nexus.abort([command.task for command in commands if not command.done])

    def void(self, cmd_sn: int) -> None:
        """Take CmdSN as received although it never will be (RFC 7143 11.5.5: an aborted command that was still on its way)."""
        if self.in_window(cmd_sn):
            self.deferred[cmd_sn] = None

    # TransportServices
    def receive_data_out(self, task: Task) -> None:
        """The core wants the command's data."""
        task.context.receive_data_out()

    def send_command_complete(self, task: Task) -> None:
        """The core is done with the command."""
        task.context.complete()

    def task_aborted(self, task: Task) -> None:
        """The command is gone without a response."""
        task.context.abandon()

    def task_management_executed(self, request: TaskManagementRequest) -> None:
        """The core has carried out a task management function."""
        request.context.executed(request)

    def asynchronous_event(self, lun: bytes, attention: UnitAttention) -> None:
        """SCSI asynchronous events are not reported by Async Message: the condition waits for the next command."""
