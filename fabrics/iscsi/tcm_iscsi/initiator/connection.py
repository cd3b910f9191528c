"""One connection in full feature phase, initiator side, sans-IO: bytes in, buffers out (RFC 7143 clauses 4, 7, 11).

This file is longer than most because a PDU's way, from its bytes to the task that it belongs to, is kept in one place.

The owner appends what it receives to a buffer of its own and calls :meth:`Connection.process`, then sends what is in ``out``.
Time is ``session.now``, which the owner sets before either.
"""

from __future__ import annotations

from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING, Any

from tcm_iscsi.initiator.numbers import Numbers
from tcm_iscsi.initiator.results import (
    AsyncMessage,
    Rejected,
    RejectReceived,
    RequestFailed,
    TaskAborted,
)
from tcm_iscsi.initiator.tasks import Logout, Nop, ScsiTask, TaskManagement, Text
from tcm_iscsi.protocol.digest import crc32c
from tcm_iscsi.protocol.keys import BY_NAME
from tcm_iscsi.protocol.pdu import (
    ACKNOWLEDGE,
    BHS_LENGTH,
    DATA_IN,
    DATA_OUT,
    FINAL,
    IMMEDIATE,
    LUN_NONE,
    NOP_IN,
    NOP_OUT,
    OPCODE_MASK,
    PAD,
    R2T,
    RESERVED_TAG,
    RESIDUAL_OVERFLOW,
    RESIDUAL_UNDERFLOW,
    SCSI_RESPONSE,
    STATUS_PRESENT,
    TASK_MANAGEMENT_RESPONSE,
    AsyncEvent,
    Buffer,
    Opcode,
    RejectReason,
    SnackType,
)
from tcm_iscsi.protocol.serial import HALF, SERIAL_BITS
from tcm_iscsi.protocol.text import TextError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_iscsi.initiator.login import LoggedIn
    from tcm_iscsi.initiator.session import Session
    from tcm_iscsi.initiator.tasks import Request

LENGTHS = Struct(">I").unpack_from
NUMBERS = Struct(">III").unpack_from
"""StatSN, ExpCmdSN, MaxCmdSN at offset 24 of every PDU of the target."""
WORD = Struct(">I").unpack_from
SNACK_REQUEST = Struct(">BB2xI8sII4xI8xII")
ASYNC_TAIL = Struct(">BBHHH").unpack_from
LOGOUT_TIMES = Struct(">HH").unpack_from
SENSE_LENGTH = Struct(">H").unpack_from
MAX_QUEUED = 64 << 20
"""Bytes that may wait to be sent before a target that asks for more is held to be mad."""
MAX_UNACKNOWLEDGED = 32
"""Responses that may wait behind a missing one. LIO keeps about 130 commands, and is silent for good when they are used up."""


class ConnectionFailed(Exception):
    """The connection cannot go on; the session decides what comes next."""


class Connection:
    """One connection of a session.

    Attributes that an owner uses: ``cid``, ``out`` (buffers to send, in order), ``dead`` (no more, with the ``reason``) and
    ``closing`` (to be closed once ``out`` is sent).
    """

    def __init__(self, session: Session, login: LoggedIn) -> None:
        parameters = login.connection_parameters
        self.session = session
        self.cid = login.cid
        self.parameters = parameters
        self.header_digest = parameters.header_digest
        self.data_digest = parameters.data_digest
        self.max_recv = parameters.max_recv_data_segment_length
        self.max_send = parameters.target_max_recv_data_segment_length
        self.out: list[Any] = []
        self.out_size = 0
        self.statuses = Numbers(login.exp_stat_sn)
        self.dead = False
        self.closing = False
        self.leaving = False
        """No new commands: it is about to be logged out."""
        self.reason = ""
        self.outstanding = 0
        """Tasks that are allegiant to it."""
        self.order = 0
        self.last_received = session.now
        self.ping: Nop | None = None
        """The probe that waits for its answer, if any."""
        self.asked_since: float | None = None
        """When a probe was sent that nothing has followed."""
        self.headers_lost = 0
        """Header digest errors in a row."""
        self.status_asked = login.exp_stat_sn
        """StatSN below which everything that is missing has been asked for."""
        self.status_asked_at = session.now
        self._rest = bytearray()

    def __str__(self) -> str:
        return f"connection {self.cid}"

    # receiving

    def receive_data(self, data: Buffer) -> None:
        """:meth:`process` for an owner without a buffer of its own: copies, and keeps what is not a whole PDU yet."""
        buf = self._rest
        buf += data
        view = memoryview(buf)
        done = self.process(buf, view, 0, len(buf))
        view.release()
        self._rest = buf[done:]

    def process(self, buf: bytearray, view: memoryview, off: int, end: int) -> int:
        """Deal with the whole PDUs in ``buf[off:end]``; return the offset of what is left. Nothing of it is kept.

        A failure of the connection is told to the session, and everything that is left is dropped.
        """
        session = self.session
        start = off
        try:
            digest = 4 if self.header_digest else 0
            data_digest = self.data_digest
            while end - off >= BHS_LENGTH + digest and not self.dead:
                (lengths,) = LENGTHS(buf, off + 4)
                length = lengths & 0xFFFFFF
                header_end = off + BHS_LENGTH + (lengths >> 22 & 0x3FC)
                data = header_end + digest
                if end < data:
                    break
                stop = data
                if length:
                    stop += (length + 3 & ~3) + (4 if data_digest else 0)
                if digest and crc32c(view[off:header_end]) != buf[header_end:data]:
                    if session.error_recovery_level == 0 or length > self.max_recv or self.headers_lost:
                        msg = "header digest error"
                        raise ConnectionFailed(msg)
                    if stop > end:
                        break
                    self.headers_lost += 1
                    session.header_digest_errors += 1
                    off = stop
                    continue
                self.headers_lost = 0
                if length > self.max_recv:
                    msg = f"a data segment of {length} bytes, more than the {self.max_recv} we accept"
                    raise ConnectionFailed(msg)
                if stop > end:
                    break
                intact = True
                if length and data_digest and crc32c(view[data : stop - 4]) != buf[stop - 4 : stop]:
                    intact = False
                    session.data_digest_errors += 1
                    if session.error_recovery_level == 0:
                        msg = "data digest error"
                        raise ConnectionFailed(msg)
                if session.observer is not None:
                    session.observer(self, "in", bytes(view[off:header_end]), bytes(view[data : data + length]))
                self._pdu(buf, off, view[data : data + length], intact)
                off = stop
        except ConnectionFailed as e:
            session.connection_lost(self, str(e))
        except ValueError as e:
            session.connection_lost(self, f"the target breaks the protocol: {e}")
        if off != start:
            self.last_received = session.now
            self.asked_since = None
        if session.waiting:
            session.pump()
        return end if self.dead else off

    def _pdu(self, buf: bytearray, off: int, data: memoryview, intact: bool) -> None:
        """One PDU whose header is right."""
        session = self.session
        opcode = buf[off] & OPCODE_MASK
        stat_sn, exp_cmd_sn, max_cmd_sn = NUMBERS(buf, off + 24)
        if max_cmd_sn != session.max_cmd_sn or exp_cmd_sn != session.exp_cmd_sn:
            session.window(exp_cmd_sn, max_cmd_sn)
        if opcode == 0x25:
            self._data_in(buf, off, data, intact)
        elif opcode == 0x21:
            self._response(buf, off, data, intact)
        elif opcode == 0x31:
            self._r2t(buf, off)
        else:
            handler = HANDLERS.get(opcode)
            if handler is None:
                msg = f"opcode {opcode:#04x} of the target"
                raise ConnectionFailed(msg)
            if intact:
                handler(self, bytes(buf[off : off + BHS_LENGTH]), data, stat_sn)
            else:  # as if it had not come; a NOP-In that is no answer has no number of its own
                unnumbered = opcode == Opcode.NOP_IN and WORD(buf, off + 16)[0] == RESERVED_TAG
                self._gap(stat_sn if unnumbered else stat_sn + 1)

    def _status(self, stat_sn: int, task: ScsiTask | None = None) -> bool:
        """A PDU that carries status has come; False: for the second time. ``task``: its data is not complete."""
        statuses = self.statuses
        if stat_sn == statuses.expected and task is None and not statuses.ahead:
            statuses.expected = stat_sn + 1 & SERIAL_BITS
            return True
        try:
            new = statuses.receive(stat_sn, withhold=task is not None)
        except ValueError as e:
            msg = f"StatSN: {e}"
            raise ConnectionFailed(msg) from None
        if new and task is not None:
            task.stat_sn = stat_sn
        if new and (stat_sn - statuses.expected) & SERIAL_BITS < HALF:
            self._gap(stat_sn)
        return new

    def takes(self, request: Request) -> bool:
        """No new commands behind a status that is missing for long: the target keeps all that come after it, and the
        difference of StatSN and ExpStatSN may tell it that the connection has failed (RFC 7143 4.2.2.2).
        """
        return request.immediate or len(self.statuses.ahead) < MAX_UNACKNOWLEDGED

    def _gap(self, stat_sn: int) -> None:
        """Everything below ``stat_sn`` has been sent: ask for what of it has not come."""
        runs = self.statuses.missing(stat_sn & SERIAL_BITS)
        if runs and (stat_sn - self.statuses.expected) & SERIAL_BITS < HALF:
            self.session.recovery.status_missing(self, runs)

    # SCSI: what comes in

    def _data_in(self, buf: bytearray, off: int, data: memoryview, intact: bool) -> None:
        """SCSI Data-In (clause 11.7)."""
        _, flags, status, _, lun, itt, ttt, stat_sn, _, _, data_sn, offset, residual = DATA_IN.unpack_from(buf, off)
        session = self.session
        task = session.requests.get(itt)
        if not isinstance(task, ScsiTask) or task.connection is not self:
            if flags & STATUS_PRESENT:
                self._status(stat_sn)
            return  # of a task that is aborted or done
        numbers = task.numbers
        task.progress = session.now
        length = len(data)
        if not intact:
            task.snacked = min(task.snacked, data_sn)  # damaged again, perhaps: it is asked for once more
            if not flags & STATUS_PRESENT:  # then it is asked for below
                session.recovery.data_missing(self, task, data_sn + 1)
        elif data_sn == numbers.expected and not numbers.ahead:
            numbers.expected = data_sn + 1
            self._place(task, data_sn, offset, data, length)
        elif numbers.receive(data_sn):
            self._place(task, data_sn, offset, data, length)
            if numbers.ahead:
                session.recovery.data_missing(self, task, data_sn)
        if flags & ACKNOWLEDGE and session.error_recovery_level:
            task.ack = data_sn, ttt, lun
        if task.ack is not None:
            self._acknowledge(task)
        if flags & STATUS_PRESENT:
            if flags & FINAL == 0:
                msg = "Data-In with status that is not final"
                raise ConnectionFailed(msg)
            self._ended(task, flags, 0, status, stat_sn, data_sn + 1, residual)
        elif task.status_known:
            self._check_complete(task)

    def _place(self, task: ScsiTask, data_sn: int, offset: int, data: memoryview, length: int) -> None:
        """Data-In that has not come before."""
        if offset + length > task.read_length:
            msg = f"Data-In beyond the {task.read_length} bytes that were asked for"
            raise ConnectionFailed(msg)
        if length:
            task.buffer[offset : offset + length] = data
        task.retries = 0
        task.received += length
        if self.session.error_recovery_level:
            task.lengths[data_sn] = length

    def _acknowledge(self, task: ScsiTask) -> None:
        """DataACK for the last A bit, once there are no holes before it (clause 11.16.2)."""
        assert task.ack is not None
        data_sn, ttt, lun = task.ack
        if (task.numbers.expected - data_sn - 1) & SERIAL_BITS < HALF and self.session.automatic:
            task.ack = None
            task.acked = task.numbers.expected
            self.snack(SnackType.DATA_ACK, RESERVED_TAG, task.acked, 0, ttt=ttt, lun=lun)

    def _response(self, buf: bytearray, off: int, data: memoryview, intact: bool) -> None:
        """SCSI Response (clause 11.4)."""
        fields = SCSI_RESPONSE.unpack_from(buf, off)
        _, flags, response, status, _, qualifier, itt, snack_tag, stat_sn, _, _, exp_data_sn, _, residual = fields
        session = self.session
        task = session.requests.get(itt)
        if not intact:
            self._gap(stat_sn + 1)
            return
        if not isinstance(task, ScsiTask) or task.connection is not self:
            self._status(stat_sn)
            return
        if task.snack_tag and snack_tag != task.snack_tag:
            task.progress = session.now
            self._status(stat_sn, task)
            return  # from before the R-Data SNACK (clause 11.4.4)
        result = task.result
        if len(data) >= 2:
            sense_length = SENSE_LENGTH(data)[0]
            result.sense = bytes(data[2 : 2 + sense_length])
        result.status_qualifier = qualifier
        self._ended(task, flags, response, status, stat_sn, exp_data_sn, residual)

    def _ended(self, task: ScsiTask, flags: int, response: int, status: int, stat_sn: int, end: int, residual: int) -> None:
        """The status of a command is known."""
        session = self.session
        task.progress = session.now
        result = task.result
        result.response, result.status = response, status
        if flags & (RESIDUAL_UNDERFLOW | RESIDUAL_OVERFLOW):
            result.residual = residual
            result.underflow = bool(flags & RESIDUAL_UNDERFLOW)
            result.overflow = bool(flags & RESIDUAL_OVERFLOW)
        task.status_known = True
        if task.read_length and not response:
            task.end = end
            task.wanted = 0 if status else task.read_length - (residual if result.underflow else 0)
            if task.incomplete():
                if session.error_recovery_level:
                    self._status(stat_sn, task)
                    session.recovery.data_missing(self, task, max(end, task.numbers.expected + 1))
                    return
                if task.numbers.expected < end and task.received < task.wanted:
                    msg = f"the target says that it sent {end} Data-In PDUs, and {task.numbers.expected} came"
                    raise ConnectionFailed(msg)
        self._status(stat_sn)
        session.finish(task)

    def _check_complete(self, task: ScsiTask) -> None:
        """A hole has been filled after the status had come."""
        if not task.incomplete():
            self.session.finish(task)

    def _r2t(self, buf: bytearray, off: int) -> None:
        """R2T (clause 11.8): answered at once."""
        _, _, _, _, itt, ttt, stat_sn, _, _, r2t_sn, offset, length = R2T.unpack_from(buf, off)
        session = self.session
        if session.error_recovery_level:
            self._gap(stat_sn)
        task = session.requests.get(itt)
        if not isinstance(task, ScsiTask) or task.connection is not self or task.status_known:
            return
        task.progress = session.now
        if offset + length > task.write_length or not length or length > session.parameters.max_burst_length:
            msg = f"an R2T for {length} bytes at {offset} of a command that writes {task.write_length}"
            raise ConnectionFailed(msg)
        if (r2t_sn, ttt) in task.served:
            return
        if task.resync:
            task.numbers = Numbers(r2t_sn + 1 & SERIAL_BITS)
            task.resync = False
        elif session.error_recovery_level and task.numbers.receive(r2t_sn) and task.numbers.ahead:
            session.recovery.data_missing(self, task, r2t_sn)
        task.served.add((r2t_sn, ttt))
        task.retries = 0
        self.send_data_out(task, ttt, offset, length)

    # SCSI: what goes out

    def unsolicited(self, data: memoryview) -> tuple[memoryview, int]:
        """What of a command's data goes with it: the immediate data, and how many bytes follow in unsolicited Data-Out."""
        session = self.session
        parameters = session.parameters
        if not session.options.unsolicited:
            return data[:0], 0
        first = min(len(data), parameters.first_burst_length)
        immediate = min(first, self.max_send) if parameters.immediate_data else 0
        return data[:immediate], 0 if parameters.initial_r2t else first - immediate

    def send_data_out(self, task: ScsiTask, ttt: int, offset: int, length: int) -> None:
        """One sequence of Data-Out PDUs (clause 11.7)."""
        if self.out_size > MAX_QUEUED:
            msg = "the target asks for more data than it takes"
            raise ConnectionFailed(msg)
        session = self.session
        data, limit, exp_stat_sn = task.data_out, self.max_send, self.statuses.expected
        end = offset + length
        pieces = [(at, min(at + limit, end)) for at in range(offset, end, limit)]
        if session.options.data_out_reversed and not session.parameters.data_pdu_in_order:
            pieces.reverse()
        last = len(pieces) - 1
        for data_sn, (at, to) in enumerate(pieces):
            flags = FINAL if data_sn == last else 0
            piece = data[at:to]
            if len(piece) != to - at:  # the command says that it writes more than it has
                piece = memoryview(bytes(piece).ljust(to - at, b"\0"))
            self.emit(DATA_OUT.pack(0x05, flags, to - at, task.lun, task.itt, ttt, exp_stat_sn, data_sn, at), piece)
        task.progress = session.now

    def emit(self, bhs: bytes, data: Buffer = b"", ahs: bytes = b"") -> None:
        """Queue one PDU whose lengths are filled in; ``data`` is passed through uncopied."""
        if self.dead:
            return
        session = self.session
        if session.observer is not None:
            session.observer(self, "out", bhs + ahs, bytes(data))
        out = self.out
        if ahs:
            bhs += ahs
        if self.header_digest:
            bhs += crc32c(bhs)
        out.append(bhs)
        length = len(data)
        if length:
            out.append(data)
            pad = PAD[length & 3]
            if self.data_digest:
                out.append(pad + crc32c(data, pad))
            elif pad:
                out.append(pad)
        self.out_size += length + BHS_LENGTH
        if not self.dirty:
            session.dirty(self)

    dirty = False
    """The owner knows that there is something to send."""

    def take(self) -> list[Any]:
        """Everything there is to send, in order; the owner has it now."""
        out, self.out = self.out, []
        self.out_size = 0
        self.dirty = False
        return out

    def snack(
        self, kind: SnackType, itt: int, beg_run: int, run_length: int, *, ttt: int = RESERVED_TAG, lun: bytes = LUN_NONE
    ) -> None:
        """SNACK Request (clause 11.16); ``ttt`` is the SNACK Tag of an R-Data SNACK."""
        if kind != SnackType.DATA_ACK:
            self.session.snacks += 1
        self.emit(SNACK_REQUEST.pack(0x10, FINAL | kind, 0, lun, itt, ttt, self.statuses.expected, beg_run, run_length))

    # everything else that comes in

    def _nop_in(self, bhs: bytes, data: memoryview, stat_sn: int) -> None:
        """NOP-In (clause 11.19): the answer to a ping, or a ping, or neither."""
        _, _, _, lun, itt, ttt, _, _, _ = NOP_IN.unpack(bhs)
        session = self.session
        if itt != RESERVED_TAG:
            self._status(stat_sn)
            request = session.requests.get(itt)
            if isinstance(request, Nop) and request.connection is self:
                request.answer = bytes(data)
                session.finish(request)
        elif session.error_recovery_level:
            self._gap(stat_sn)
        if ttt != RESERVED_TAG and session.automatic:
            self.emit(
                NOP_OUT.pack(IMMEDIATE, FINAL, len(data), lun, RESERVED_TAG, ttt, session.cmd_sn, self.statuses.expected),
                bytes(data),
            )

    def _task_management_response(self, bhs: bytes, _data: memoryview, stat_sn: int) -> None:
        _, _, response, _, information, itt, _, _, _ = TASK_MANAGEMENT_RESPONSE.unpack(bhs)
        self._status(stat_sn)
        request = self.session.requests.get(itt)
        if isinstance(request, TaskManagement) and request.connection is self:
            request.response, request.information = response, information
            self.session.managed(request)

    def _text_response(self, bhs: bytes, data: memoryview, stat_sn: int) -> None:
        _, flags, _, lun, itt, ttt, _, _, _ = NOP_IN.unpack(bhs)
        new = self._status(stat_sn)
        request = self.session.requests.get(itt)
        if not new or not isinstance(request, Text) or request.connection is not self:
            return
        try:
            more = request.receive(flags, lun, ttt, data)
        except TextError as e:
            self.session.finish(request, RequestFailed(f"the target's text: {e}"))
            return
        if more:
            self.session.again(request)
            return
        with suppress(TextError):
            for name, value in request.answers:
                if name == "MaxRecvDataSegmentLength":
                    self.max_send = BY_NAME[name].parse(value)
        self.session.finish(request)

    def _logout_response(self, bhs: bytes, _data: memoryview, stat_sn: int) -> None:
        self._status(stat_sn)
        request = self.session.requests.get(WORD(bhs, 16)[0])
        if isinstance(request, Logout) and request.connection is self:
            request.response = bhs[2]
            request.time2wait, request.time2retain = LOGOUT_TIMES(bhs, 40)
            self.session.logged_out(request)

    def _async_message(self, bhs: bytes, data: memoryview, stat_sn: int) -> None:
        if not self._status(stat_sn):
            return
        event, vcode, *parameters = ASYNC_TAIL(bhs, 36)
        first, second, third = parameters
        with suppress(ValueError):
            event = AsyncEvent(event)
        message = AsyncMessage(
            cid=self.cid, event=event, vcode=vcode, parameters=(first, second, third), lun=bhs[8:16], data=bytes(data)
        )
        self.session.async_message(self, message)

    def _reject(self, bhs: bytes, data: memoryview, stat_sn: int) -> None:
        """Reject (clause 11.17): ends the request that it is about, unless recovery deals with it."""
        new = self._status(stat_sn)
        if not new or len(data) < BHS_LENGTH:
            return
        session = self.session
        reason, rejected = bhs[2], bytes(data[:BHS_LENGTH])
        try:
            named: RejectReason | int = RejectReason(reason)
        except ValueError:
            named = reason
        session.events.append(RejectReceived(cid=self.cid, reason=named, bhs=rejected))
        opcode = rejected[0] & OPCODE_MASK
        if opcode == Opcode.SNACK_REQUEST:
            session.recovery.snack_rejected(self, rejected)
            return
        if reason == RejectReason.TASK_IN_PROGRESS:
            return
        if reason == RejectReason.DATA_DIGEST_ERROR and session.error_recovery_level:
            return  # the target asks again, or does not advance ExpCmdSN
        request = session.requests.get(WORD(rejected, 16)[0])
        if request is None or request.connection is not self or opcode not in (request.opcode, Opcode.DATA_OUT):
            return
        if opcode == Opcode.DATA_OUT and session.error_recovery_level:
            return
        session.finish(request, Rejected(reason))

    def terminated(self, lun: bytes) -> None:
        """The target has ended all tasks of a LUN (AsyncEvent 5)."""
        for request in [r for r in self.session.requests.values() if isinstance(r, ScsiTask) and r.lun == lun]:
            self.session.finish(request, TaskAborted("the target has terminated all tasks of the logical unit"))


HANDLERS: dict[int, Callable[[Connection, bytes, memoryview, int], None]] = {
    Opcode.NOP_IN: Connection._nop_in,
    Opcode.TASK_MANAGEMENT_RESPONSE: Connection._task_management_response,
    Opcode.TEXT_RESPONSE: Connection._text_response,
    Opcode.LOGOUT_RESPONSE: Connection._logout_response,
    Opcode.ASYNC_MESSAGE: Connection._async_message,
    Opcode.REJECT: Connection._reject,
}
