"""Full feature phase of one connection, target side, sans-IO (RFC 7143 clause 4.2 to 4.6, 7, 11).

Bytes come in with :meth:`FullFeaturePhase.process`; the sending half is :class:`Outbound`. This file is longer than most
because the receive loop and the express lane must stay one function each: at 150,000 commands a second every call shows.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from tcm_iscsi.protocol.ahs import AhsError, parse_ahs
from tcm_iscsi.protocol.data_out_timer import DataOutTimer
from tcm_iscsi.protocol.digest import crc32c
from tcm_iscsi.protocol.failure import ConnectionFailed, Failure
from tcm_iscsi.protocol.outbound import Outbound
from tcm_iscsi.protocol.pdu import DATA_OUT, FINAL, RESERVED_TAG, SCSI_COMMAND, RejectReason
from tcm_iscsi.protocol.requests import BASIC, REQUESTS
from tcm_iscsi.protocol.scsi_command import UNEXPECTED_UNSOLICITED_DATA, ScsiCommand
from tcm_iscsi.protocol.serial import SERIAL_BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tcm_iscsi.protocol.arena import DataInArena
    from tcm_iscsi.protocol.discovery import TextPhase
    from tcm_iscsi.protocol.parameters import ConnectionParameters
    from tcm_iscsi.protocol.session import Session

# SCSI Command with a READ or WRITE (10) / (16) CDB: flags, lengths, LUN, ITT, EDTL, CmdSN, CDB fields
CMD_SN = struct.Struct(">24xII").unpack_from
COMMAND_10 = struct.Struct(">xB2xI8sIII4xBBIBHB").unpack_from
COMMAND_16 = struct.Struct(">xB2xI8sIII4xBBQIBB").unpack_from
EXPRESS_DATA_IN = struct.Struct(">HxxI8xIIIII8xI").pack
EXPRESS_RESPONSE = struct.Struct(">HxxI8xIIIII12x").pack

HIGH_WATER = 1 << 20
"""Bytes queued, or being read for commands in progress, beyond which no further PDU of this connection is taken."""
GRANT_LIMIT = 8 << 20
"""Bytes of Data-Out that R2Ts of one connection may have asked for, of commands that have not ended."""
PAYLOAD_MINIMUM = 8192
"""A data segment at least this long that is not there yet is received straight into a buffer of its own."""


class FullFeaturePhase(Outbound):
    """The target's end of one connection after login.

    :param session: the session it belongs to; the connection enters itself there.
    :param stat_sn: the next StatSN.
    :param arena: shared by all connections of one event loop; whoever sends resets it.
    :param wake: called when there is something to send that :meth:`process` did not cause.
    """

    __slots__ = (
        "arena", "cid", "closed", "closing", "data_out_timer", "express", "expressible", "failure", "grant_queue", "granted",
        "last_received", "logout", "max_segment", "parameters", "payload", "payload_bhs", "payload_filled", "peer",
        "pending_read", "reassignments", "send_limit", "suspended", "text",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        cid: int,
        parameters: ConnectionParameters,
        *,
        stat_sn: int,
        arena: DataInArena,
        text: TextPhase,
        wake: Callable[[], None],
        now: float,
        peer: str = "",
    ) -> None:
        super().__init__(session, parameters, stat_sn, wake)
        self.cid = cid
        self.parameters = parameters
        self.arena = arena
        self.text = text
        self.peer = peer
        self.max_segment = parameters.max_recv_data_segment_length
        self.limit_sending()
        recovers = self.unacknowledged is not None
        self.expressible = session.port is not None and not (self.header_digest or self.data_digest or recovers)
        self.express = self.expressible and not (session.fences or session.barriers)
        self.pending_read = 0
        self.granted = 0
        self.grant_queue: deque[ScsiCommand] = deque()
        self.payload: memoryview | None = None
        self.payload_bhs = b""
        self.payload_filled = 0
        self.last_received = now
        self.data_out_timer = DataOutTimer()
        self.reassignments: deque[Callable[[], None]] = deque()
        """TASK REASSIGN that waits, as commands do, until less is kept for retransmission."""
        self.suspended = False
        """Gone, but its tasks can be reassigned."""
        self.closing = False
        self.closed = False
        self.failure: Failure | None = None
        self.logout: int | None = None
        session.connections[cid] = self

    # receiving

    def process(self, buf: bytearray, view: memoryview, off: int, end: int) -> int:
        """Take PDUs out of ``buf[off:end]``; return the offset of the first byte not taken.

        Stops early when the arena is full or more than HIGH_WATER bytes wait to be sent: send, then call again. What is
        left over belongs before the next bytes, unless :attr:`payload` is set: then the next bytes go there first, and
        nothing is left over. ``view`` is a memoryview of ``buf``; neither is kept. Nothing is taken once :attr:`closing`.

        :raises ConnectionFailed: the connection must be dropped, after sending what is queued.
        """
        if self.closing:
            return end
        session = self.session
        luns = session.port.nexus.luns if session.port is not None else {}
        commands = session.commands
        arena = self.arena
        out = self.out
        limit = self.send_limit
        express = self.express
        stat_sn, exp_cmd_sn, max_cmd_sn = self.stat_sn, session.exp_cmd_sn, session.max_cmd_sn
        window_open = max_cmd_sn != exp_cmd_sn - 1 & SERIAL_BITS
        while end - off >= 48:
            if express and buf[off] == 1:
                op = buf[off + 32]
                if op == 0x88:
                    flags, lengths, lun, itt, edtl, cmd_sn, _, bits, lba, blocks, group, control = COMMAND_16(buf, off)
                elif op == 0x28:
                    flags, lengths, lun, itt, edtl, cmd_sn, _, bits, lba, group, blocks, control = COMMAND_10(buf, off)
                else:
                    blocks = 0
                if (
                    blocks
                    and cmd_sn == exp_cmd_sn
                    and not lengths
                    and (flags == 0xC1 or flags == 0xC0)  # noqa: PLR1714  (faster than a tuple)
                    and not bits
                    and not group
                    and not control
                    and edtl <= limit
                    and itt not in commands
                    and itt != 0xFFFFFFFF
                    and window_open
                ):
                    itl = luns.get(lun)
                    if itl is not None and itl.express_read is not None and blocks << itl.block_shift == edtl:
                        start = arena.free
                        stop = start + edtl
                        if stop > arena.size:
                            if start:
                                break
                            stop = 0
                        elif itl.express_read(lba, blocks, (piece := arena.view[start:stop],)):
                            arena.free = stop
                            exp_cmd_sn = exp_cmd_sn + 1 & SERIAL_BITS
                            max_cmd_sn = max_cmd_sn + 1 & SERIAL_BITS
                            out.append(EXPRESS_DATA_IN(0x2581, edtl, itt, 0xFFFFFFFF, stat_sn, exp_cmd_sn, max_cmd_sn, 0))
                            out.append(piece)
                            stat_sn = stat_sn + 1 & SERIAL_BITS
                            off += 48
                            if session.deferred:
                                self.stat_sn, session.exp_cmd_sn, session.max_cmd_sn = stat_sn, exp_cmd_sn, max_cmd_sn
                                session.deliver_deferred()
                                if self.closing:
                                    return end
                                express = self.express
                                stat_sn, exp_cmd_sn, max_cmd_sn = self.stat_sn, session.exp_cmd_sn, session.max_cmd_sn
                                window_open = max_cmd_sn != exp_cmd_sn - 1 & SERIAL_BITS
                            continue
            # everything else: the general path works on the attributes
            if self.stat_sn != stat_sn:
                self.stat_sn, session.exp_cmd_sn, session.max_cmd_sn = stat_sn, exp_cmd_sn, max_cmd_sn
            taken = self.general_pdu(buf, view, off, end)
            if not taken:
                return off
            off += taken
            if self.closing or self.out_size > HIGH_WATER:
                return off
            express = self.express
            stat_sn, exp_cmd_sn, max_cmd_sn = self.stat_sn, session.exp_cmd_sn, session.max_cmd_sn
            window_open = max_cmd_sn != exp_cmd_sn - 1 & SERIAL_BITS
        if self.stat_sn != stat_sn:
            self.stat_sn, session.exp_cmd_sn, session.max_cmd_sn = stat_sn, exp_cmd_sn, max_cmd_sn
        return off

    def general_pdu(self, buf: bytearray, view: memoryview, off: int, end: int) -> int:
        """One PDU of any kind at ``off``. Returns its length, or 0 if it is not all there."""
        ahs_length = buf[off + 4] << 2
        segment = buf[off + 5] << 16 | buf[off + 6] << 8 | buf[off + 7]
        head = 48 + ahs_length
        if end - off < head + (4 if self.header_digest else 0):
            return 0
        if self.header_digest:
            if crc32c(view[off : off + head]) != view[off + head : off + head + 4]:
                self.note_failure(Failure.DIGEST)
                msg = "header digest error"
                raise ConnectionFailed(msg)
            head += 4
        if segment > self.max_segment:
            msg = f"DataSegmentLength {segment} exceeds MaxRecvDataSegmentLength {self.max_segment}"
            self.reject(RejectReason.PROTOCOL_ERROR, bytes(view[off : off + 48]))
            raise ConnectionFailed(msg)
        tail = (segment + 3 & ~3) + (4 if self.data_digest and segment else 0)
        have = end - off - head
        if have < tail:
            if tail >= PAYLOAD_MINIMUM:
                self.payload_bhs = bytes(view[off : off + 48 + ahs_length])
                payload = memoryview(bytearray(tail))
                payload[:have] = view[off + head : end]
                self.payload, self.payload_filled = payload, have
                return end - off
            return 0
        data_start = off + head
        if self.data_digest and segment:
            digest_at = data_start + tail - 4
            if crc32c(view[data_start:digest_at]) != view[digest_at : digest_at + 4]:
                self.data_digest_error(bytes(view[off : off + 48]), segment)
                return head + tail
        self.dispatch(buf, view, off, ahs_length, view[data_start : data_start + segment])
        return head + tail

    def payload_received(self, count: int) -> None:
        """``count`` more bytes of :attr:`payload` are there; deals with the PDU once it is whole."""
        self.payload_filled += count
        payload = self.payload
        assert payload is not None
        if self.payload_filled < len(payload):
            return
        self.payload = None
        bhs = bytearray(self.payload_bhs)
        segment = bhs[5] << 16 | bhs[6] << 8 | bhs[7]
        if self.data_digest:
            padded = segment + 3 & ~3
            if crc32c(payload[:padded]) != payload[padded : padded + 4]:
                self.data_digest_error(bytes(bhs[:48]), segment)
                return
        self.dispatch(bhs, memoryview(bhs), 0, len(bhs) - 48, payload[:segment])

    def data_digest_error(self, bhs: bytes, segment: int) -> None:
        """RFC 7143 7.8: reject and discard. Lost Data-Out is its command's concern; at ERL 0 nothing else comes again."""
        self.session.digest_errors += 1
        self.reject(RejectReason.DATA_DIGEST_ERROR, bhs)
        self.insist_on_acknowledgement()
        if bhs[0] & 0x3F != 0x05:
            if self.session.parameters.error_recovery_level:
                return
            self.failure = Failure.DIGEST
            msg = "data digest error"
            raise ConnectionFailed(msg)
        self.data_out(bhs, memoryview(bhs), 0, memoryview(bytes(segment)), intact=False)

    def dispatch(self, buf: bytearray, view: memoryview, off: int, ahs_length: int, data: memoryview) -> None:
        """A whole PDU whose digests are right."""
        opcode = buf[off] & 0x3F
        if opcode == 0x01:
            if not (self.express and ahs_length == 0 and self.express_write(buf, off, data)):
                self.sequenced_command(buf, view, off, ahs_length, data)
        elif opcode == 0x05:
            self.data_out(buf, view, off, data)
        else:
            self.other_pdu(opcode, bytes(view[off : off + 48 + ahs_length]), data)

    def express_write(self, buf: bytearray, off: int, data: memoryview) -> bool:
        """A WRITE (10) or (16) whose data is all immediate, done at once if the core can."""
        op = buf[off + 32]
        if op == 0x8A:
            flags, _, lun, itt, edtl, cmd_sn, _, bits, lba, blocks, group, control = COMMAND_16(buf, off)
        elif op == 0x2A:
            flags, _, lun, itt, edtl, cmd_sn, _, bits, lba, group, blocks, control = COMMAND_10(buf, off)
        else:
            return False
        session = self.session
        if (
            (flags == 0xA1 or flags == 0xA0)  # noqa: PLR1714  # a set costs more
            and cmd_sn == session.exp_cmd_sn
            and blocks
            and buf[off] == 1
            and not bits
            and not group
            and not control
            and len(data) == edtl
            and itt not in session.commands
            and itt != 0xFFFFFFFF
            and session.max_cmd_sn != (cmd_sn - 1) & SERIAL_BITS
            and session.parameters.immediate_data
            and edtl <= session.parameters.first_burst_length
        ):
            itl = session.port.nexus.luns.get(lun)  # type: ignore[union-attr]  # express implies a port
            if (
                itl is not None
                and itl.express_write is not None
                and blocks << itl.block_shift == edtl
                and itl.express_write(lba, blocks, (data,))
            ):
                session.exp_cmd_sn = exp_cmd_sn = cmd_sn + 1 & SERIAL_BITS
                session.max_cmd_sn = max_cmd_sn = session.max_cmd_sn + 1 & SERIAL_BITS
                stat_sn = self.stat_sn
                self.stat_sn = stat_sn + 1 & SERIAL_BITS
                self.out.append(EXPRESS_RESPONSE(0x2180, 0, itt, 0, stat_sn, exp_cmd_sn, max_cmd_sn))
                if session.deferred:
                    session.deliver_deferred()
                return True
        return False

    # SCSI Command and Data-Out

    @property
    def overloaded(self) -> bool:
        """Too much is queued, being read or kept: commands wait, whatever else there is is still dealt with."""
        kept = self.unacknowledged
        return self.out_size + self.pending_read > HIGH_WATER or (kept is not None and kept.full)

    def sequenced_command(self, buf: bytearray, view: memoryview, off: int, ahs_length: int, data: memoryview) -> None:
        """A SCSI Command on the general path: in CmdSN order, or kept until its turn."""
        cmd_sn, exp_stat_sn = CMD_SN(buf, off)
        if exp_stat_sn != self.exp_stat_sn:
            self.acknowledge(exp_stat_sn)
        session = self.session
        bhs = bytes(view[off : off + 48])
        if bhs[0] & 0x40:
            made: ScsiCommand | RejectReason = RejectReason.IMMEDIATE_COMMAND_REJECT
            if not self.overloaded and len(session.commands) < 2 * session.depth:
                made = self.make_command(buf, off, ahs_length, data)
            if isinstance(made, ScsiCommand):
                made.submit()
            else:
                self.insist_on_acknowledgement()
                self.reject(made, bhs)
        elif session.in_window(cmd_sn) and cmd_sn not in session.deferred:
            made = self.make_command(buf, off, ahs_length, data)
            if not isinstance(made, ScsiCommand):
                session.void(cmd_sn)
                session.deliver_deferred()
                self.reject(made, bhs)
                self.insist_on_acknowledgement()
            elif cmd_sn == session.exp_cmd_sn and not (self.overloaded or session.fences or session.barriers):
                session.advance()
                made.submit()
            else:
                session.deferred[cmd_sn] = self, made.submit
                if self.unacknowledged is not None and self.unacknowledged.full:
                    self.solicit()
                if session.barriers:
                    session.lift_barriers()
        # outside the window, or a duplicate: silently ignored (RFC 7143 4.2.2.1)
        if session.deferred:
            session.deliver_deferred()

    def make_command(self, buf: bytearray, off: int, ahs_length: int, data: memoryview) -> ScsiCommand | RejectReason:
        """Make a task of it, which is to be submitted in its turn, or say why not."""
        b0, flags, priority, _, lun, itt, edtl, cmd_sn, _, cdb = SCSI_COMMAND.unpack_from(buf, off)
        read, write, final = flags & 0x40, flags & 0x20, flags & FINAL
        session = self.session
        p = session.parameters
        session.cmd_pdus += 1
        if session.port is None:
            return RejectReason.PROTOCOL_ERROR
        if ahs_length:
            try:
                cdb += parse_ahs(buf[off + 48 : off + 48 + ahs_length]).extended_cdb
            except AhsError:
                return RejectReason.INVALID_PDU_FIELD
        if read and write:
            return RejectReason.COMMAND_NOT_SUPPORTED
        if itt == RESERVED_TAG or ((len(data) or not final) and not write):
            return RejectReason.INVALID_PDU_FIELD
        command = ScsiCommand(self, itt, lun, cmd_sn, edtl if write else 0, immediate=bool(b0 & 0x40))
        if write:
            may = min(edtl, p.first_burst_length)
            if (len(data) and not p.immediate_data) or len(data) > p.first_burst_length:
                command.refusal = UNEXPECTED_UNSOLICITED_DATA
            elif len(data) > edtl:
                return RejectReason.INVALID_PDU_FIELD
            elif not final and not p.initial_r2t:
                command.expect_unsolicited(data, may)
            elif not final and len(data) < may:
                command.refusal = UNEXPECTED_UNSOLICITED_DATA
        kept = bytes(data) if len(data) and command.refusal is None else b""
        command.task = task = session.port.make_task(
            lun, itt, cdb, flags & 7, edtl if read else 0, edtl if write else 0, kept, command
        )
        task.priority = priority >> 4
        session.commands.setdefault(itt, command)
        return command

    def data_out(self, buf: bytearray | bytes, view: memoryview, off: int, data: memoryview, *, intact: bool = True) -> None:
        """SCSI Data-Out (RFC 7143 11.7)."""
        _, flags, _, lun, itt, ttt, exp_stat_sn, data_sn, offset = DATA_OUT.unpack_from(buf, off)
        self.acknowledge(exp_stat_sn)
        command = self.session.commands.get(itt)
        if command is None or command.connection is not self:
            return  # of a command that was aborted: dropped (RFC 7143 11.5.1)
        if ttt != RESERVED_TAG and lun != command.lun:  # 11.7.4: consistent with the command, and reserved if unsolicited
            wrong: str | None = f"Data-Out for LUN field {lun.hex()} of a command for {command.lun.hex()}"
        else:
            wrong = command.receive(ttt, data_sn, offset, data, final=bool(flags & FINAL), intact=intact)
        if wrong:
            self.reject(RejectReason.PROTOCOL_ERROR, bytes(view[off : off + 48]))
            raise ConnectionFailed(wrong)

    def request_data(self, command: ScsiCommand) -> None:
        """R2Ts for the command, now if the connection's bound on solicited data allows, otherwise in its turn."""
        if self.closed:
            return
        if not command.granted:
            if self.granted and self.granted + command.wanted > GRANT_LIMIT:
                if command not in self.grant_queue:
                    self.grant_queue.append(command)
                return
            command.granted = command.wanted
            self.granted += command.wanted
        assert command.data_out is not None
        command.data_out.send_r2ts()
        self.wake()

    def release(self, command: ScsiCommand) -> None:
        """The command has ended, and its data with it: others may have their turn."""
        self.pending_read -= command.reading
        self.granted -= command.granted
        command.reading = command.granted = 0
        queue = self.grant_queue
        if queue and command in queue:
            queue.remove(command)
        while queue and (not self.granted or self.granted + queue[0].wanted <= GRANT_LIMIT):
            self.request_data(queue.popleft())

    def resume(self) -> None:
        """There may be room again: go on with commands that wait for it."""
        session = self.session
        if session.deferred and not session.delivering and not self.closed:
            session.deliver_deferred()
            if self.out:
                self.wake()

    # everything else

    def other_pdu(self, opcode: int, pdu: bytes, data: memoryview) -> None:
        """NOP-Out, task management, Text, Logout, and what is no PDU of ours: in CmdSN order like commands."""
        handler = REQUESTS.get(opcode)
        session = self.session
        if handler is None:
            self.reject(RejectReason.COMMAND_NOT_SUPPORTED, pdu[:48])
            self.insist_on_acknowledgement()
            return
        b0, _, _, _, itt, _, cmd_sn, exp_stat_sn = BASIC(pdu)
        if opcode == 0x10:
            self.acknowledge(int.from_bytes(pdu[28:32], "big"))
            handler(self, pdu, data)
            self.insist_on_acknowledgement()
            return
        self.acknowledge(exp_stat_sn)
        self.insist_on_acknowledgement()
        if b0 & 0x40 or (opcode == 0x00 and itt == RESERVED_TAG):
            handler(self, pdu, data)
            if self.reassignments:
                self.go_on_reassigning()
        elif session.in_window(cmd_sn) and cmd_sn not in session.deferred:
            kept = memoryview(bytes(data))

            def run() -> None:
                session.command_done()
                if not self.closing:
                    handler(self, pdu, kept)
                    self.wake()  # its turn may have come by another connection

            session.deferred[cmd_sn] = self, run
            if session.barriers:
                session.lift_barriers()
            session.deliver_deferred()

    def go_on_reassigning(self) -> None:
        """Something may have been acknowledged."""
        kept, waiting = self.unacknowledged, self.reassignments
        while waiting and not self.closing and not (kept is not None and kept.full):
            waiting.popleft()()
        if waiting:
            self.solicit()

    def response_queued(self) -> None:
        """A command's response is in ``out``."""
        self.wake()
        self.resume()

    def limit_sending(self) -> None:
        """:attr:`parameters` have changed."""
        self.send_limit = min(self.parameters.send_limit, self.session.parameters.max_burst_length)

    def redeclare(self, values: Mapping[str, str], seconds: int) -> None:
        """What we declare by text keys may have changed: if so, the initiator is asked to negotiate, once until it does."""
        if not self.closing and self.logout is None and self.text.declare(values):
            self.request_negotiation(seconds)

    # time

    def handle_timer(self, now: float, nopin_timeout: float, nopin_response_timeout: float) -> None:
        """Keep-alive: ping an initiator that is silent, drop one that stays so.

        :raises ConnectionFailed: no answer within ``nopin_response_timeout`` seconds.
        """
        silent = now - self.last_received
        if not nopin_timeout:
            return
        if self.ping and silent < nopin_timeout:  # the ping or its answer was lost, or the answer is on its way: it is alive
            self.ping = 0
        if self.ping and silent >= nopin_timeout + nopin_response_timeout:
            self.note_failure(Failure.TIMEOUT)
            msg = f"no NOP-Out for {silent:.0f} s"
            raise ConnectionFailed(msg)
        if not self.ping and silent >= nopin_timeout:
            self.solicit()
            self.wake()

    def note_failure(self, failure: Failure) -> None:
        """The connection is about to fail, because of a digest or of time."""
        self.failure = failure
        if failure is Failure.DIGEST:
            self.session.digest_errors += 1
        else:
            self.session.timeout_errors += 1

    def close(self) -> None:
        """The connection is gone: nothing more is sent on it."""
        self.closed = self.closing = True
        self.out.clear()
        self.out_size = 0
        self.payload = None
        self.grant_queue.clear()
        self.reassignments.clear()
        self.data_out_timer.owed.clear()
        connections = self.session.connections
        if connections.get(self.cid) is self:  # not so if it has been reinstated
            del connections[self.cid]
