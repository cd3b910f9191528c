"""SCSI commands and task management functions that an initiator has outstanding, each in an exchange of its own."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from tcm.scsi.lun import encode
from tcm_fcoe.initiator.results import InitiatorError, RequestFailed, Result, ScsiError
from tcm_fcoe.protocol.fcp import READ_DATA, SHORT_CDB, WRITE_DATA, Command, TaskAttribute
from tcm_fcoe.protocol.frame import NO_EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.initiator.nexus import TargetNexus
    from tcm_fcoe.initiator.pieces import Pieces
    from tcm_fcoe.protocol.fcoe import Buffer
    from tcm_fcoe.protocol.fcp import Response

NOTHING = memoryview(b"")
_LUNS = [encode(number) for number in range(256)]
_COMMAND = Struct(">8sBBBB16sI")


class FcpTask:
    """One of them, from submit to ``done``.

    ``done(task)`` is called once, when ``finished`` has become true: ``error`` says what went wrong, if anything.

    :param lun: a number, or the eight bytes of a LUN.
    :param data_out: what is written; not copied, and must not change until the task is finished.
    :param read_length: bytes of Data-In that are expected. In bytes, as all lengths here.
    :param write_length: FCP_DL of a command that writes, if it is to be another than there is data; what lacks is zeros.
    :param buffer: where Data-In goes, of at least ``read_length``; made if None.
    :param management: task management flags (:class:`~tcm_fcoe.protocol.fcp.TaskManagementFlag`); there is no command then.
    """

    # of the command: what stays with the class belongs to a good and ordinary one
    error: RequestFailed | None = None
    finished = False
    status = 0
    code: int | None = None
    sense = b""
    residual = 0
    overflow = False
    underflow = False
    # of the exchange
    nexus: TargetNexus | None = None
    ox_id = NO_EXCHANGE
    """NO_EXCHANGE: it has none, because it waits."""
    rx_id = NO_EXCHANGE
    identifier = 0
    """Task retry identifier, where the target has agreed on them."""
    seq_id = 0
    """Of the last sequence that was sent."""
    seq_cnt = 0
    """One more than that of the last frame that was sent."""
    started = 0.0
    """When it was submitted."""
    progress = 0.0
    """When a frame of it came last, or something was asked."""
    # of its data
    received = 0
    """All bytes of Data-In before this are there."""
    pieces: Pieces | None = None
    """What is there, once something did not come in order."""
    burst_at = 0
    """Relative offset of the next FCP_DATA of the burst that is being sent."""
    burst_end = 0
    written = 0
    """Bytes that FCP_XFER_RDY has asked for so far."""
    ready_seq_id = -1
    """SEQ_ID of the last FCP_XFER_RDY."""
    # of its end
    response: Response | None = None
    """FCP_RSP, while data is missing."""
    asking = False
    """A REC or SRR is under way."""
    attempts = 0
    retries = 0
    recoveries = 0

    def __init__(
        self,
        cdb: bytes = b"",
        lun: int | bytes = 0,
        *,
        data_out: Buffer = b"",
        read_length: int = 0,
        write_length: int | None = None,
        attribute: int = TaskAttribute.SIMPLE,
        priority: int = 0,
        management: int = 0,
        buffer: bytearray | memoryview | None = None,
        done: Callable[[FcpTask], None] | None = None,
    ) -> None:
        self.cdb = cdb
        self.lun = lun if isinstance(lun, bytes) else _LUNS[lun] if 0 <= lun < 256 else encode(lun)
        self.data_out = memoryview(data_out) if data_out else NOTHING
        self.read_length = read_length
        self.write_length = len(data_out) if write_length is None else write_length
        self.attribute = attribute
        self.priority = priority
        self.management = management
        if buffer is None:
            buffer = memoryview(bytearray(read_length)) if read_length else NOTHING
        self.buffer = buffer if type(buffer) is memoryview else memoryview(buffer)
        self.done = done
        if self.write_length > len(self.data_out):
            self.data_out = memoryview(bytes(data_out).ljust(self.write_length, b"\0"))

    def payload(self, reference_number: int = 0) -> bytes:
        """FCP_CMND; ``reference_number``: CRN."""
        read, write = self.read_length, self.write_length
        if len(self.cdb) > SHORT_CDB or (read and write):
            return Command(
                lun=self.lun, cdb=self.cdb, attribute=self.attribute, priority=self.priority,
                reference_number=reference_number, read_data=bool(read), write_data=bool(write), data_length=write or read,
                bidirectional_read_length=read if write else 0,
            ).pack()  # fmt: skip
        direction = READ_DATA if read else WRITE_DATA if write else 0
        return _COMMAND.pack(
            self.lun, reference_number, self.priority << 3 | self.attribute, self.management, direction, self.cdb, read or write
        )

    def reset(self) -> None:
        """As if it had never been sent: a new exchange begins from the start."""
        self.ox_id = self.rx_id = NO_EXCHANGE
        self.received = self.burst_at = self.burst_end = self.written = self.attempts = 0
        self.ready_seq_id = -1
        self.pieces = self.response = None
        self.asking = False

    @property
    def result(self) -> Result:
        """How the command ended, once it is finished without ``error``."""
        expected = self.read_length
        result = Result(
            status=self.status, code=self.code, sense=self.sense, residual=self.residual, overflow=self.overflow,
            underflow=self.underflow, retries=self.retries, recoveries=self.recoveries,
        )  # fmt: skip
        result.data = self.buffer[: max(0, expected - self.residual) if self.underflow else expected]
        return result

    @property
    def failure(self) -> InitiatorError | None:
        """Why it did not end with status GOOD, once it is finished."""
        return self.error or (ScsiError(self.result) if self.status or self.code else None)
