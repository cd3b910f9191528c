"""One exchange of FCP on the target's side: a command from FCP_CMND to FCP_RSP, or a task management function (FCP-4 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.sense import Sense, SenseKey, Status
from tcm_fcoe.protocol.data_out import DataOut
from tcm_fcoe.protocol.fcp import CDB_AT, CDB_END, GOOD_RESPONSE, Response, ResponseCode
from tcm_fcoe.protocol.frame import F_CTL_END_SEQUENCE

if TYPE_CHECKING:
    from tcm.target.task import Task
    from tcm.target.task_management import TaskManagementRequest
    from tcm_fcoe.protocol.fcp_nexus import FcpNexus
    from tcm_fcoe.protocol.frame import Frame

WRONG_DATA = {
    ResponseCode.DATA_LENGTH_DIFFERENT_THAN_BURST_LENGTH: Sense(key=SenseKey.ABORTED_COMMAND, asc=0x4B, ascq=0x00),
    ResponseCode.DATA_PARAMETER_MISMATCH: Sense(key=SenseKey.ABORTED_COMMAND, asc=0x4B, ascq=0x05),
}
"""DATA PHASE ERROR and DATA OFFSET ERROR, which go with the RSP_CODE."""


class Exchange:
    """A command.

    :param command: the payload of its FCP_CMND, to know it again should it come twice.
    :param cdb: if it is not in the usual place there.
    :param blocks: logical blocks of an ordinary WRITE, which may take the express lane; 0: it may not.
    """

    # what stays with the class is that of an ordinary one
    task: Task | None = None
    submitted = False
    """The core has it."""
    done = False
    """Out of the nexus's books: answered, or aborted."""
    # data
    wanted = -1
    """Bytes of Data-Out that are to be asked for; -1: it is not known yet."""
    data_out: DataOut | None = None
    granted = 0
    """Bytes of memory that it holds for Data-Out."""
    reading = 0
    """Bytes of memory that it holds for Data-In."""
    discarding = False
    """What is left of the burst is dropped."""
    held = False
    """The response waits for the end of the burst: until then the initiator has the sequence initiative."""
    # response
    code: int | None = None
    """RSP_CODE that goes with the status."""
    sequences = 1
    """SEQ_ID of our next sequence."""
    data_in: memoryview | None = None
    borrowed = False
    """It is one of the target's buffers, which has it back if it is not to be remembered."""
    sent = 0
    """Of it, bytes."""
    burst_end = 0
    """Where the sequence that is being sent ends, bytes."""
    seq_cnt = 0
    response = b""
    """The payload of FCP_RSP."""

    def __init__(
        self,
        nexus: FcpNexus,
        ox_id: int,
        rx_id: int,
        seq_id: int = 0,
        command: bytes = b"",
        lun: bytes = b"",
        write_length: int = 0,
        lba: int = 0,
        blocks: int = 0,
        *,
        cdb: bytes | None = None,
        attribute: int = 0,
        priority: int = 0,
        read_length: int = 0,
    ) -> None:
        self.nexus = nexus
        self.ox_id = ox_id
        self.rx_id = rx_id
        self.seq_id = seq_id
        """Of FCP_CMND."""
        self.command = command
        self.lun = lun
        self.write_length = write_length
        self.lba = lba
        self.blocks = blocks
        self.cdb = command[CDB_AT:CDB_END] if cdb is None else cdb
        self.attribute = attribute
        self.priority = priority
        self.read_length = read_length

    def submit(self, data_out: Any = b"") -> None:
        """Hand it to the core, with the Data-Out that is there."""
        nexus = self.nexus
        nexus.leave_queues(self)
        self.submitted = True
        self.wanted = -1
        self.task = task = nexus.make_task(self, data_out)
        self.reading = self.read_length
        nexus.data_in.take(self.reading)
        if self.code is None:
            nexus.port.nexus.submit(task)
        else:
            nexus.port.nexus.refuse(task, WRONG_DATA[ResponseCode(self.code)])

    def hand_over(self) -> Task:
        """The core, which does not have it yet, will abort it: out of all queues; what data still comes is for nobody."""
        nexus = self.nexus
        nexus.leave_queues(self)
        if self in nexus.backlog:
            nexus.backlog.remove(self)
        self.submitted = True
        self.wanted = -1
        self.task = task = nexus.make_task(self, b"")
        return task

    # Data-Out

    def want(self, wanted: int) -> None:
        """So many bytes are to be had, those of an unsolicited burst included."""
        self.wanted = wanted
        data_out = self.data_out
        if data_out is None:
            self.nexus.grant(self, wanted)
        elif not data_out.active:
            self.advance()

    def granted_memory(self, size: int, *, unsolicited: int = 0) -> None:
        """There is memory for Data-Out; go on, unless it comes by itself."""
        self.data_out = DataOut(size, unsolicited=unsolicited)
        if unsolicited:
            self.data_out.since = self.nexus.target.now
        else:
            self.advance()

    def advance(self) -> None:
        """No burst is on its way: ask for the next, or go on with what is there."""
        data_out = self.data_out
        assert data_out is not None
        start, wanted = data_out.filled, self.wanted
        if start < wanted:
            nexus = self.nexus
            length = min(wanted - start, nexus.burst_sizes(self.lun).maximum or wanted)
            data_out.begin(start, length, nexus.target.now)
            nexus.send_transfer_ready(self, start, length)
        elif self.submitted:
            task = self.task
            assert task is not None
            task.data_out = data_out.view[:wanted]
            task.nexus.data_out_received(task)
        elif not (self.blocks and self.express_write()):
            self.submit(data_out.view[: data_out.filled])

    def express_write(self) -> bool:
        """All data of an ordinary WRITE is there: done at once if the core can."""
        nexus, data_out = self.nexus, self.data_out
        assert data_out is not None
        if data_out.filled != self.write_length:
            return False
        itl = nexus.luns.get(self.lun)
        if itl is None or itl.express_write is None or self.blocks << itl.block_shift != self.write_length:
            return False
        target = nexus.target
        if not nexus.watched:
            target.watch(nexus)
        if not itl.express_write(self.lba, self.blocks, (data_out.view,)):
            return False
        target.counters.express_writes += 1
        target.buffers.give_back(data_out.view)
        self.done = True
        nexus.end_write(self)
        return True

    def receive_data(self, frame: Frame) -> None:
        """FCP_DATA of this exchange."""
        data_out, counters = self.data_out, self.nexus.target.counters
        if data_out is None or not data_out.active:
            counters.unexpected_frames += 1
            return
        if self.discarding:
            self.discard(frame)
            return
        counters.data_frames_received += 1
        result = data_out.receive(frame, self.nexus.target.now)
        if result is True:
            counters.data_out_bytes += data_out.filled - data_out.burst_start
            if self.wanted < 0 and not self.submitted:
                # an unsolicited burst: what is lacking is for the core to want
                self.wanted = data_out.filled
            if self.wanted >= 0:
                self.advance()
        elif result is None:
            counters.duplicate_frames += 1
        elif result is not False:
            counters.wrong_data += 1
            self.code = result
            self.discarding = True
            self.discard(frame)

    def discard(self, frame: Frame) -> None:
        """Nothing of the burst is wanted any more; its end gives us the sequence initiative."""
        data_out = self.data_out
        assert data_out is not None
        if not (frame.f_ctl & F_CTL_END_SEQUENCE or data_out.ended):
            return
        data_out.active = self.discarding = False
        if self.held:
            self.held = False
            self.send()
        elif not self.submitted:
            self.submit()
        elif self.code is not None and self.task is not None:
            self.task.nexus.data_out_failed(self.task, WRONG_DATA[ResponseCode(self.code)])

    def can_retry_data(self, offset: int) -> bool:
        """Whether the burst that is on its way can be asked for again from ``offset`` on."""
        data_out = self.data_out
        if data_out is None or not data_out.active or self.discarding or (self.submitted and self.wanted < 0):
            return False
        return offset <= data_out.filled

    def retry_data(self, offset: int) -> None:
        """SRR for FCP_XFER_RDY (FCP-4 12.4): ask for it again."""
        assert self.data_out is not None
        self.data_out.give_up(offset)
        if self.wanted < 0:
            # a first burst: the rest of it is asked for with all that follows
            self.wanted = self.write_length
        self.advance()

    def retry_data_in(self, offset: int) -> None:
        """SRR for FCP_DATA that is being sent: from ``offset`` on in a sequence of its own, as the link takes it."""
        self.sent = self.burst_end = offset
        self.sequences = self.sequences + 1 & 0xFF
        self.seq_cnt = 0

    # response

    def complete(self) -> None:
        """The core has a status. It is sent once we have the sequence initiative."""
        task, data_out = self.task, self.data_out
        assert task is not None
        if self.nexus.exchanges.get(self.ox_id) is not self:  # another command has its OX_ID
            self.finish()
            return
        self.response = self.make_response(task)
        if data_out is not None and data_out.active:
            self.held = self.discarding = True
            return
        self.send()

    def make_response(self, task: Task) -> bytes:
        """FCP_RSP."""
        status = task.status
        if status is Status.GOOD and not task.residual and self.code is None:
            return GOOD_RESPONSE
        return Response(
            status=status,
            residual=task.residual,
            overflow=task.overflow,
            sense=task.sense_data(),
            code=self.code,
            confirm=self.nexus.confirms and status is not Status.GOOD,
        ).pack()

    def send(self) -> None:
        """FCP_DATA, if there is any, and FCP_RSP: at once, or as the link takes them."""
        task = self.task
        assert task is not None
        buffers, nexus = task.data_in, self.nexus
        if buffers:
            whole: Any = buffers[0] if len(buffers) == 1 else b"".join(buffers)
            self.data_in = memoryview(whole)
            nexus.target.send_data(self)
        else:
            self.finish()
            nexus.send_response(self)

    def abandon(self) -> None:
        """It is gone and has no response; what data still comes is dropped."""
        self.finish()

    def finish(self) -> None:
        """Out of the nexus's books."""
        if self.done:
            return
        self.done = True
        if self.task is not None:
            # or its data would stay until the cyclic collector finds them
            self.task.context = None
        self.nexus.finished(self)

    def abort(self) -> bool:
        """ABTS: whether it is gone at once. Otherwise the core has it, and tells when it is."""
        if self.task is not None and self.nexus.port.nexus.tasks.get(self.ox_id) is self.task:
            return False
        self.abandon()
        return True

    def is_like(self, frame: Frame) -> bool:
        """The same FCP_CMND once more."""
        return self.seq_id == frame.seq_id and self.command == frame.payload

    @property
    def has_initiative(self) -> bool:
        """We hold the sequence initiative."""
        return self.data_out is None or not self.data_out.active


class Management:
    """A task management function."""

    __slots__ = ("code", "command", "done", "flag", "lun", "nexus", "ox_id", "response", "rx_id", "seq_id", "sequences")

    submitted = True
    has_initiative = True
    data_out = None
    data_in = None
    borrowed = False

    def __init__(self, nexus: FcpNexus, frame: Frame, rx_id: int, lun: bytes, flag: int) -> None:
        self.nexus = nexus
        self.ox_id = frame.ox_id
        self.rx_id = rx_id
        self.command = bytes(frame.payload)
        self.seq_id = frame.seq_id
        self.lun = lun
        self.flag = flag
        self.done = False
        self.sequences = 1
        self.response = b""

    def executed(self, request: TaskManagementRequest) -> None:
        """The core has answered."""
        code, additional = self.nexus.port.response_code(request)
        self.respond(code, additional)

    def respond(self, code: int, additional: bytes = bytes(3)) -> None:
        """FCP_RSP, unless the exchange was aborted meanwhile."""
        if self.done:
            return
        self.response = Response(code=code, additional=additional).pack()
        self.finish()
        self.nexus.send_response(self)

    def receive_data(self, frame: Frame) -> None:
        """There is none."""
        del frame
        self.nexus.target.counters.unexpected_frames += 1

    def abort(self) -> bool:
        """The function goes on; nobody is told what comes of it."""
        self.finish()
        return True

    def finish(self) -> None:
        """Out of the nexus's books."""
        if not self.done:
            self.done = True
            self.nexus.forget(self)

    def is_like(self, frame: Frame) -> bool:
        """The same FCP_CMND once more."""
        return self.seq_id == frame.seq_id and self.command == frame.payload
