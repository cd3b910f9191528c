"""One SCSI command of a session: its Data-Out transfer, and its response (RFC 7143 4.2.5, 11.3 to 11.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.sense import Sense, SenseKey, Status
from tcm_iscsi.protocol.pdu import (
    DATA_IN,
    FINAL,
    LUN_NONE,
    R2T,
    RESERVED_TAG,
    RESIDUAL_OVERFLOW,
    RESIDUAL_UNDERFLOW,
    SCSI_RESPONSE,
    STATUS_PRESENT,
)

if TYPE_CHECKING:
    from tcm.target.task import Task
    from tcm_iscsi.protocol.full_feature import FullFeaturePhase

UNEXPECTED_UNSOLICITED_DATA = Sense(key=SenseKey.ABORTED_COMMAND, asc=0x0C, ascq=0x0C)
INCORRECT_AMOUNT_OF_DATA = Sense(key=SenseKey.ABORTED_COMMAND, asc=0x0C, ascq=0x0D)
PROTOCOL_SERVICE_CRC_ERROR = Sense(key=SenseKey.ABORTED_COMMAND, asc=0x47, ascq=0x05)


class Sequence:
    """A run of Data-Out PDUs: the unsolicited one, or what one R2T asked for."""

    __slots__ = ("data_sn", "end", "offset")

    def __init__(self, offset: int, end: int) -> None:
        self.offset = offset
        self.end = end
        self.data_sn = 0


class ScsiCommand:
    """Allegiance of a command to the connection it came by, its data transfer and its response."""

    __slots__ = (
        "buffer",
        "cmd_sn",
        "connection",
        "done",
        "failure",
        "granted",
        "held",
        "immediate",
        "itt",
        "lun",
        "next_offset",
        "r2t_sn",
        "reading",
        "refusal",
        "sequences",
        "submitted",
        "task",
        "wanted",
        "write_length",
    )

    task: Task

    def __init__(
        self, connection: FullFeaturePhase, itt: int, lun: bytes, cmd_sn: int, write_length: int, *, immediate: bool
    ) -> None:
        self.connection = connection
        self.itt = itt
        self.cmd_sn = cmd_sn
        self.lun = lun
        self.write_length = write_length
        self.immediate = immediate
        self.sequences: dict[int, Sequence] = {}
        self.buffer: bytearray | None = None
        self.next_offset = 0
        self.wanted = 0
        self.granted = 0
        self.reading = 0
        self.done = False
        self.r2t_sn = 0
        self.refusal: Sense | None = None
        """What is wrong with it as a whole."""
        self.failure: Sense | None = None
        """What is wrong with its data."""
        self.submitted = False
        self.held = False
        """The response waits for the end of data that is on its way."""

    def submit(self) -> None:
        """Its turn has come: hand it to the core."""
        connection, task = self.connection, self.task
        session = connection.session
        if self.done:  # aborted before its turn: it has only its place in the window to give back
            session.command_done()
            return
        self.submitted = True
        session.commands.setdefault(self.itt, self)  # an overlapped command: the core ends both (SAM-5 5.11)
        if self.refusal is not None:
            task.nexus.refuse(task, self.refusal)
            return
        self.reading = task.read_length
        connection.pending_read += self.reading
        task.nexus.submit(task)

    # Data-Out

    def expect_unsolicited(self, received: memoryview, first_burst: int) -> None:
        """Unsolicited Data-Out PDUs follow the command, which carried ``received``."""
        end = min(self.write_length, first_burst)
        self.buffer = bytearray(end)
        self.buffer[: len(received)] = received
        self.sequences[RESERVED_TAG] = Sequence(len(received), end)
        self.next_offset = end

    def receive_data_out(self) -> None:
        """The core wants the data now; the rest of it is asked for with R2Ts."""
        self.wanted = self.task.data_out_wanted
        if self.buffer is None:
            self.next_offset = len(self.task.data_out)
        if RESERVED_TAG not in self.sequences:
            self.advance_transfer()

    def advance_transfer(self) -> None:
        """Ask for more, or tell the core that everything is there, or send the response that had to wait."""
        task = self.task
        if self.held:
            if not self.sequences:
                self.held = False
                self.send_response()
            return
        if self.failure is not None:
            if not self.sequences and self.wanted:
                self.wanted = 0
                task.nexus.data_out_failed(task, self.failure)
            return
        if not self.wanted:
            return
        if self.next_offset < self.wanted:
            self.connection.request_data(self)
        elif not self.sequences:
            assert self.buffer is not None
            task.data_out = memoryview(self.buffer)[: self.wanted]
            self.wanted = 0
            task.nexus.data_out_received(task)

    def send_r2ts(self) -> None:
        """R2Ts up to MaxOutstandingR2T, each for up to MaxBurstLength (RFC 7143 11.8)."""
        connection = self.connection
        session = connection.session
        p = session.parameters
        had = self.task.data_out if self.buffer is None else self.buffer
        if self.buffer is None or len(had) < self.wanted:
            self.buffer = bytearray(self.wanted)
            self.buffer[: len(had)] = had
        while self.next_offset < self.wanted and len(self.sequences) < p.max_outstanding_r2t:
            length = min(p.max_burst_length, self.wanted - self.next_offset)
            ttt = session.new_ttt()
            self.sequences[ttt] = Sequence(self.next_offset, self.next_offset + length)
            connection.emit(
                R2T.pack(
                    0x31, FINAL, 0, self.lun, self.itt, ttt, connection.stat_sn, session.exp_cmd_sn, session.max_cmd_sn,
                    self.r2t_sn, self.next_offset, length,
                )
            )  # fmt: skip
            self.r2t_sn += 1
            self.next_offset += length

    def data_out(self, ttt: int, data_sn: int, offset: int, data: Any, *, final: bool, intact: bool = True) -> str | None:
        """One Data-Out PDU (RFC 7143 11.7). Returns why the connection must be dropped, or ``None``.

        Data that is lost or not what was agreed fails the command, once all that is on its way has come (RFC 7143 7.8,
        11.4.7.2): at ERL 0 nothing brings it back.
        """
        sequence = self.sequences.get(ttt)
        if sequence is None:
            return "Data-Out with a Target Transfer Tag that is not outstanding"
        length = len(data)
        fits = offset + length <= sequence.end
        if offset != sequence.offset or not (fits or ttt == RESERVED_TAG):
            return f"Data-Out at offset {offset} length {length}, expected {sequence.offset} up to {sequence.end}"
        if not intact:
            self.failure = self.failure or PROTOCOL_SERVICE_CRC_ERROR
        elif data_sn != sequence.data_sn or not fits or (final and offset + length != sequence.end):
            self.failure = self.failure or INCORRECT_AMOUNT_OF_DATA
        sequence.data_sn = (data_sn + 1) & 0xFFFFFFFF
        if self.buffer is not None and self.failure is None:
            self.buffer[offset : offset + length] = data
        sequence.offset = offset + length
        if final:
            del self.sequences[ttt]
            self.advance_transfer()
        elif sequence.offset == sequence.end and ttt != RESERVED_TAG:
            return "Data-Out fills its sequence without the F bit"
        return None

    # response

    def complete(self) -> None:
        """The core has a status. Wait for the end of data that is on its way (RFC 7143 11.4.2), then answer."""
        self.wanted = 0
        if self.sequences:
            self.held = True
            self.buffer = None
            self.connection.session.commands.setdefault(self.itt, self)
        else:
            self.send_response()

    def abandon(self) -> None:
        """The task was aborted without a response; what data still comes is dropped."""
        self.sequences.clear()
        self.buffer = None
        self.finish()
        self.connection.resume()

    def forget(self) -> None:
        """Aborted where the core has nothing to abort: before its turn, or with its response held."""
        if self.held or not self.submitted:
            self.abandon()

    def finish(self) -> None:
        """Out of the session's books; the place in the window of a command whose turn has not come is given back then."""
        if self.done:
            return
        self.done = True
        self.task.context = None  # or its data would stay until the cyclic collector, which is seldom, finds the two
        connection = self.connection
        session = connection.session
        if session.commands.get(self.itt) is self:
            del session.commands[self.itt]
        if self.submitted and not self.immediate:
            session.command_done()
        connection.release(self)

    def send_response(self) -> None:
        """Data-In PDUs and the status: in the last of them if it is GOOD, in a SCSI Response otherwise."""
        task, connection = self.task, self.connection
        session = connection.session
        self.finish()
        if connection.closed:
            return
        flags = 0
        if task.residual:
            flags = RESIDUAL_OVERFLOW if task.overflow else RESIDUAL_UNDERFLOW
        data_sn = 0
        if task.data_in:
            collapse = task.status == Status.GOOD
            data_sn = self.send_data_in(task.data_in, flags if collapse else 0, collapse=collapse)
            if collapse and data_sn:
                connection.response_queued()
                return
        sense = task.sense_data()
        segment = len(sense).to_bytes(2, "big") + sense if sense else b""
        header = SCSI_RESPONSE.pack(
            0x21, FINAL | flags, 0, task.status, len(segment), 0, self.itt, 0, connection.next_stat_sn(), session.exp_cmd_sn,
            session.max_cmd_sn, data_sn or self.r2t_sn, 0, task.residual,
        )  # fmt: skip
        connection.emit(header, segment)
        connection.response_queued()

    def send_data_in(self, buffers: list[Any], flags: int, *, collapse: bool) -> int:
        """Data-In PDUs of at most the initiator's MaxRecvDataSegmentLength, in sequences of at most MaxBurstLength.

        Buffers are passed through uncopied. Returns how many PDUs were made.
        """
        connection = self.connection
        session = connection.session
        task = self.task
        views = [memoryview(b).cast("B") for b in buffers if len(b)]
        left = sum(map(len, views))
        limit, burst = connection.parameters.send_limit, session.parameters.max_burst_length
        offset, data_sn, burst_left = 0, 0, burst
        while left:
            length = min(left, limit, burst_left)
            pieces = []
            need = length
            while need:
                view = views[0]
                if len(view) <= need:
                    pieces.append(view)
                    need -= len(view)
                    del views[0]
                else:
                    pieces.append(view[:need])
                    views[0] = view[need:]
                    need = 0
            left -= length
            burst_left -= length
            bits, stat_sn, residual = 0, 0, 0
            if not left:
                bits = FINAL
                if collapse:
                    bits |= STATUS_PRESENT | flags
                    stat_sn, residual = connection.next_stat_sn(), task.residual
            elif not burst_left:
                bits = FINAL
                burst_left = burst
            header = DATA_IN.pack(
                0x25, bits, 0, length, LUN_NONE, self.itt, RESERVED_TAG, stat_sn, session.exp_cmd_sn, session.max_cmd_sn,
                data_sn, offset, residual,
            )  # fmt: skip
            connection.emit(header, *pieces)
            offset += length
            data_sn += 1
        return data_sn
