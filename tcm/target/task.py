"""A task: one command on its way through the target (SAM-5 5.1)."""

from __future__ import annotations

import enum
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from tcm.scsi.sense import Status

if TYPE_CHECKING:
    import anyio

    from tcm.backstore import Buffer
    from tcm.scsi.command import Command
    from tcm.scsi.sense import Sense
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus, ITNexus


class TaskAttribute(enum.IntEnum):
    """SAM-5 8.5.1; the values are those of iSCSI (RFC 7143 11.3.1) and FCP."""

    UNTAGGED = 0
    SIMPLE = 1
    ORDERED = 2
    HEAD_OF_QUEUE = 3
    ACA = 4


class TaskState(enum.Enum):
    """Where a task is (SAM-5 8.8, and what the transport still owes it)."""

    NEW = "new"
    DORMANT = "dormant"
    AWAITING_DATA_OUT = "awaiting data-out"
    ENABLED = "enabled"
    COMPLETED = "completed"
    ABORTED = "aborted"


class Task:
    """One command.

    Set by the fabric before :meth:`ITNexus.submit`: nexus, lun, tag, cdb, attribute, read_length, write_length, data_out if all
    or some of it is there already, context. Set by the core: everything else. The fabric reads the status block when it is
    handed the task in ``send_command_complete``.
    """

    __slots__ = (
        "attribute",
        "began",
        "cdb",
        "command",
        "context",
        "data_in",
        "data_out",
        "data_out_wanted",
        "itl",
        "logical_unit",
        "lun",
        "nexus",
        "overflow",
        "parameters",
        "priority",
        "read_length",
        "residual",
        "scope",
        "sense",
        "state",
        "status",
        "tag",
        "write_length",
    )

    # command
    nexus: ITNexus
    lun: bytes
    """The LUN field as it came, 8 bytes (SAM-5 4.7)."""
    tag: int
    """The initiator's task tag: unique within the nexus among unfinished tasks (command identifier, SAM-5 4.8.2)."""
    cdb: bytes
    attribute: TaskAttribute
    priority: int
    read_length: int
    """Bytes the initiator can take: Data-In buffer size."""
    write_length: int
    """Bytes the initiator can give: Data-Out buffer size."""
    context: Any
    """The fabric's own; the core never looks at it."""
    # data
    data_out: Buffer
    """What has arrived. Complete when the core has been told so (or if it is ``data_out_wanted`` long when submitted)."""
    data_out_wanted: int
    """Bytes of Data-Out that the command uses: min(what the CDB asks for, write_length)."""
    data_in: list[Buffer]
    """What goes back; at most ``read_length`` bytes by the time the fabric sees it."""
    # status
    status: Status
    sense: Sense | None
    residual: int
    """Bytes, never negative; which way, ``overflow`` says (SAM-5 5.4.2; RFC 7143 11.4.5)."""
    overflow: bool
    # the core's own
    began: int
    """When it was made, by the performance counter, ns."""
    itl: ITLNexus | None
    logical_unit: LogicalUnit | None
    command: Command | None
    parameters: Any
    """What the handler's ``prepare`` worked out, for its ``execute``."""
    state: TaskState
    scope: anyio.CancelScope | None

    def __init__(
        self,
        nexus: ITNexus,
        lun: bytes,
        tag: int,
        cdb: bytes,
        attribute: TaskAttribute = TaskAttribute.SIMPLE,
        read_length: int = 0,
        write_length: int = 0,
        data_out: Buffer = b"",
        context: Any = None,
        priority: int = 0,
    ) -> None:
        self.began = perf_counter_ns()
        self.nexus = nexus
        self.lun = lun
        self.tag = tag
        self.cdb = cdb
        self.attribute = attribute
        self.priority = priority
        self.read_length = read_length
        self.write_length = write_length
        self.context = context
        self.data_out = data_out
        self.data_out_wanted = 0
        self.data_in = []
        self.status = Status.GOOD
        self.sense = None
        self.residual = 0
        self.overflow = False
        self.itl = None
        self.logical_unit = None
        self.command = None
        self.parameters = None
        self.state = TaskState.NEW
        self.scope = None

    def sense_data(self) -> bytes:
        """Sense data as the fabric sends it, in the format that D_SENSE chooses; empty if there is none (SPC-5 4.5)."""
        if self.sense is None:
            return b""
        lu = self.logical_unit
        return self.sense.pack(descriptor=lu is not None and not lu.failed and lu.mode_parameters.descriptor_sense)
