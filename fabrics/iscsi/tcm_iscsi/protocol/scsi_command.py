"""One SCSI command of a session: its connection allegiance, its data transfers, its response (RFC 7143 4.2.5, 11.3 to 11.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.sense import Sense, SenseKey, Status
from tcm_iscsi.protocol.data_in import DataIn
from tcm_iscsi.protocol.data_out import DataOut
from tcm_iscsi.protocol.pdu import (
    DATA_IN,
    FINAL,
    LUN_NONE,
    RESERVED_TAG,
    RESIDUAL_OVERFLOW,
    RESIDUAL_UNDERFLOW,
    SCSI_RESPONSE,
    STATUS_PRESENT,
)

if TYPE_CHECKING:
    from tcm.target.task import Task
    from tcm_iscsi.protocol.command_flow import CommandFlow

UNEXPECTED_UNSOLICITED_DATA = Sense(key=SenseKey.ABORTED_COMMAND, asc=0x0C, ascq=0x0C)


class ScsiCommand:
    """A command, from the PDU that brought it until its status is acknowledged."""

    __slots__ = (
        "cmd_sn",
        "connection",
        "data_in",
        "data_out",
        "done",
        "granted",
        "held",
        "immediate",
        "itt",
        "lun",
        "r2ts",
        "reading",
        "refusal",
        "snack_tag",
        "submitted",
        "task",
        "unanswered",
        "write_length",
    )

    task: Task

    def __init__(
        self, connection: CommandFlow, itt: int, lun: bytes, cmd_sn: int, write_length: int, *, immediate: bool
    ) -> None:
        self.connection = connection
        """Its allegiance (4.2.5.1). Only TASK REASSIGN changes it."""
        self.itt = itt
        self.cmd_sn = cmd_sn
        self.lun = lun
        self.write_length = write_length
        self.immediate = immediate
        self.data_out: DataOut | None = None
        self.data_in: DataIn | None = None
        self.granted = 0
        self.reading = 0
        self.r2ts = 0
        """How many there were, once it has ended."""
        self.done = False
        """Out of the session's books: answered, or aborted."""
        self.refusal: Sense | None = None
        """What is wrong with it as a whole."""
        self.submitted = False
        self.held = False
        """The response waits for the end of data that is on its way."""
        self.unanswered = False
        """The response waits for TASK REASSIGN, since the connection is gone."""
        self.snack_tag = 0
        """Of the last R-Data SNACK (11.16.1)."""

    def submit(self) -> None:
        """Its turn has come: hand it to the core."""
        connection, task = self.connection, self.task
        session = connection.session
        self.submitted = True
        other = session.commands.setdefault(self.itt, self)
        if other is not self:  # an overlapped command: the core ends both (SAM-5 5.11), but cannot end what it does not have
            other.forget()
            session.commands.setdefault(self.itt, self)
        if self.refusal is not None:
            task.nexus.refuse(task, self.refusal)
            return
        self.reading = task.read_length
        connection.pending_read += self.reading
        task.nexus.submit(task)

    # Data-Out

    @property
    def wanted(self) -> int:
        """Bytes of Data-Out that the core waits for."""
        return self.data_out.wanted if self.data_out is not None else 0

    def expect_unsolicited(self, received: memoryview, first_burst: int) -> None:
        """Unsolicited Data-Out PDUs follow the command, which carried ``received``."""
        self.data_out = DataOut(self)
        self.data_out.expect_unsolicited(received, min(self.write_length, first_burst))

    def receive_data_out(self) -> None:
        """The core wants the data now; the rest of it is asked for with R2Ts."""
        if self.data_out is None:
            self.data_out = DataOut(self)
        self.data_out.want(self.task.data_out_wanted)

    def advance_transfer(self) -> None:
        """A sequence has ended, or allegiance has moved: go on, with the response if that is what had to wait."""
        data_out = self.data_out
        assert data_out is not None
        if not self.held:
            data_out.advance()
        elif not data_out.sequences:
            self.held = False
            self.send_response()

    # response

    def complete(self) -> None:
        """The core has a status. Wait for the end of data that is on its way (RFC 7143 11.4.2), then answer."""
        data_out = self.data_out
        if data_out is not None:
            data_out.wanted = 0
            data_out.pending.clear()
            if data_out.sequences:
                self.held = True
                data_out.buffer = None
                self.connection.session.commands.setdefault(self.itt, self)
                return
        self.send_response()

    def abandon(self) -> None:
        """The task was aborted without a response; what data still comes is dropped."""
        if self.data_out is not None:
            self.data_out.sequences.clear()
            self.data_out.buffer = None
        self.finish()
        self.connection.resume()

    def forget(self) -> None:
        """Aborted where the core has nothing to abort: before its turn, or with its response held or unanswered."""
        if not self.submitted:
            self.connection.session.deferred[self.cmd_sn] = None, None  # received, whatever becomes of the connection (11.5.5)
        if self.held or self.unanswered or not self.submitted:
            self.abandon()

    def finish(self) -> None:
        """Out of the session's books."""
        if self.done:
            return
        self.done = True
        # or its data would stay until the cyclic collector, which is seldom, finds them
        self.task.context = None
        if self.data_out is not None:
            self.r2ts = self.data_out.r2t_sn
            self.data_out = None
        connection = self.connection
        session = connection.session
        if session.commands.get(self.itt) is self:
            del session.commands[self.itt]
        if self.submitted and not self.immediate:
            session.command_done()
        connection.release(self)

    def send_response(self) -> None:
        """Data-In PDUs and the status, or, if the connection is gone and can be recovered, wait for another."""
        connection = self.connection
        if connection.suspended:
            self.unanswered = True
            connection.session.commands.setdefault(self.itt, self)
            return
        self.finish()
        if connection.closed:
            return
        connection.session.rsp_pdus += 1
        buffers = self.task.data_in
        if connection.unacknowledged is not None:
            self.send_recoverably(buffers)
        elif not buffers:
            self.send_status(0)
        elif len(buffers) == 1 and 0 < len(buffers[0]) <= connection.send_limit and self.task.status is Status.GOOD:
            self.send_at_once(buffers[0])
        else:
            self.send_in_pieces(buffers)
        connection.response_queued()

    def send_at_once(self, data: Any) -> None:
        """All Data-In in one PDU, and the status GOOD with it (11.7.3)."""
        connection = self.connection
        session, residual = connection.session, self.task.residual
        flags = FINAL | STATUS_PRESENT | (self.residual_flags if residual else 0)
        header = DATA_IN.pack(
            0x25, flags, 0, len(data), LUN_NONE, self.itt, RESERVED_TAG, connection.next_stat_sn(), session.exp_cmd_sn,
            session.max_cmd_sn, 0, 0, residual,
        )  # fmt: skip
        connection.emit(header, data)

    def send_in_pieces(self, buffers: list[Any]) -> None:
        """Data-In at ERL 0: a status GOOD goes with the last PDU."""
        connection, task = self.connection, self.task
        session = connection.session
        data_in = DataIn(buffers)
        data_in.segment(connection.parameters.send_limit, session.parameters.max_burst_length, session.faults)
        count = len(data_in.pdus)
        collapse = task.status is Status.GOOD and count > 0
        flags = STATUS_PRESENT | self.residual_flags if collapse else 0
        data_in.send(connection, self.itt, self.lun, 0, count, final_flags=flags, residual=task.residual)
        if not collapse:
            self.send_status(count)

    def send_recoverably(self, buffers: list[Any]) -> None:
        """Data-In at ERL 1 and 2: the status by itself, so that each can be asked for again."""
        connection = self.connection
        session = connection.session
        count = 0
        if buffers:
            self.data_in = data_in = DataIn(buffers)
            burst = session.parameters.max_burst_length
            data_in.segment(connection.parameters.send_limit, burst, session.faults, acknowledge=True)
            count = len(data_in.pdus)
            data_in.send(connection, self.itt, self.lun, 0, count)
        self.send_status(count)

    @property
    def residual_flags(self) -> int:
        """O or U (11.4.5)."""
        task = self.task
        if not task.residual:
            return 0
        return RESIDUAL_OVERFLOW if task.overflow else RESIDUAL_UNDERFLOW

    def send_status(self, data_pdus: int) -> None:
        """SCSI Response (11.4), with the next StatSN."""
        connection = self.connection
        sense = self.task.sense_data()
        # SenseLength and sense data (11.4.7)
        segment = len(sense).to_bytes(2, "big") + sense if sense else b""
        header = self.response(connection.next_stat_sn(), data_pdus, len(segment))
        if connection.unacknowledged is None:
            connection.emit(header, segment)
        else:
            connection.emit_status(header, segment, command=self)

    def response(self, stat_sn: int, data_pdus: int, length: int) -> bytes:
        """The header of the SCSI Response: ExpDataSN counts Data-In PDUs, or R2Ts (11.4.8)."""
        task, session = self.task, self.connection.session
        flags = FINAL | self.residual_flags if task.residual else FINAL
        return SCSI_RESPONSE.pack(
            0x21, flags, 0, task.status, length, 0, self.itt, self.snack_tag, stat_sn,
            session.exp_cmd_sn, session.max_cmd_sn, data_pdus or self.r2ts, 0, task.residual,
        )  # fmt: skip

    # recovery

    @property
    def kept(self) -> int:
        """Bytes that are held until the status is acknowledged."""
        return self.data_in.kept if self.data_in is not None else 0

    def resend_data(self, first: int, count: int) -> bool | None:
        """Data or R2T SNACK (11.16): PDUs again. False: never sent, or acknowledged. None: cannot be cut alike.

        :param count: 0 for all from ``first`` on; with ``first`` 0 too, all that is not acknowledged.
        """
        data_in, connection = self.data_in, self.connection
        if data_in is None:
            return self.data_out is not None and self.data_out.resend_r2ts(first, count)
        first = first if first or count else data_in.acknowledged
        after = first + count if count else len(data_in.pdus)
        if not data_in.acknowledged <= first < after <= len(data_in.pdus):
            return False
        if not data_in.fits(connection.parameters.send_limit, first, after):
            return None
        data_in.send(connection, self.itt, self.lun, first, after)
        return True

    @property
    def next_data_sn(self) -> int:
        """DataSN of the next Data-In, or R2TSN of the next R2T (11.17.2)."""
        if self.data_in is not None:
            return len(self.data_in.pdus)
        return self.data_out.r2t_sn if self.data_out is not None else 0

    def resend_all_data(self, snack_tag: int) -> bool:
        """R-Data SNACK (11.16.3): all that is not acknowledged, cut anew. False: there is none.

        The response, which has been sent by then, follows with the same StatSN.
        """
        data_in, connection = self.data_in, self.connection
        if data_in is None:
            return False
        self.snack_tag = snack_tag
        data_in.resegment(connection.parameters.send_limit)
        data_in.send(connection, self.itt, self.lun, data_in.acknowledged, len(data_in.pdus))
        return True

    def reassign(self, connection: CommandFlow, exp_data_sn: int) -> None:
        """TASK REASSIGN (7.2.2): go on with it on ``connection``.

        :param exp_data_sn: acknowledges the Data-In before it; 0, or what cannot be, acknowledges nothing (11.5.6).
        """
        self.connection.release(self)
        self.connection = connection
        self.snack_tag = 0
        data_in = self.data_in
        if self.unanswered:
            self.unanswered = False
            self.send_response()
        elif self.done:
            if data_in is not None:
                if data_in.acknowledged < exp_data_sn <= len(data_in.pdus):
                    data_in.acknowledge(exp_data_sn)
                data_in.resegment(connection.parameters.send_limit)
                data_in.send(connection, self.itt, self.lun, data_in.acknowledged, len(data_in.pdus))
            self.send_status(len(data_in.pdus) if data_in is not None else 0)
            connection.response_queued()
        else:
            self.reading = self.task.read_length
            connection.pending_read += self.reading
            if self.data_out is not None:
                self.data_out.restart()

    def receive(self, ttt: int, data_sn: int, offset: int, data: Any, *, final: bool, intact: bool) -> str | None:
        """A Data-Out PDU: see :meth:`DataOut.receive`."""
        if self.data_out is None:
            return "Data-Out with a Target Transfer Tag that is not outstanding"
        return self.data_out.receive(ttt, data_sn, offset, data, final=final, intact=intact)
