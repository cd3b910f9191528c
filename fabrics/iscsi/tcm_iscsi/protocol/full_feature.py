"""Full feature phase of one connection, target side, sans-IO (RFC 7143 clause 4.2 to 4.6, 7, 11).

Bytes come in with :meth:`FullFeaturePhase.process`; what takes the general path goes on in :class:`CommandFlow`, and what is
sent piles up in :class:`Outbound`. The receive loop and the express lane are one function each: at 150,000 commands a second
every call shows.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from tcm_iscsi.protocol.command_flow import HIGH_WATER, CommandFlow
from tcm_iscsi.protocol.data_out_timer import DataOutTimer
from tcm_iscsi.protocol.digest import crc32c
from tcm_iscsi.protocol.failure import ConnectionFailed, Failure
from tcm_iscsi.protocol.pdu import RESERVED_TAG, RejectReason
from tcm_iscsi.protocol.requests import BASIC, REQUESTS
from tcm_iscsi.protocol.serial import SERIAL_BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tcm_iscsi.protocol.arena import DataInArena
    from tcm_iscsi.protocol.discovery import TextPhase
    from tcm_iscsi.protocol.parameters import ConnectionParameters
    from tcm_iscsi.protocol.session import Session

# SCSI Command with a READ or WRITE (10) / (16) CDB: flags, lengths, LUN, ITT, EDTL, CmdSN, CDB fields
COMMAND_10 = struct.Struct(">xB2xI8sIII4xBBIBHB").unpack_from
COMMAND_16 = struct.Struct(">xB2xI8sIII4xBBQIBB").unpack_from
EXPRESS_DATA_IN = struct.Struct(">HxxI8xIIIII8xI").pack
EXPRESS_RESPONSE = struct.Struct(">HxxI8xIIIII12x").pack

PAYLOAD_MINIMUM = 8192
"""A data segment at least this long that is not there yet is received straight into a buffer of its own."""


class FullFeaturePhase(CommandFlow):
    """The target's end of one connection after login.

    :param session: the session it belongs to; the connection enters itself there.
    :param stat_sn: the next StatSN.
    :param arena: shared by all connections of one event loop; whoever sends resets it.
    :param wake: called when there is something to send that :meth:`process` did not cause.
    """

    __slots__ = (
        "arena", "data_out_timer", "express", "expressible", "failure", "last_received", "logout",
        "max_segment", "payload", "payload_bhs", "payload_filled", "peer", "reassignments", "text",
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
        super().__init__(session, cid, parameters, stat_sn, wake)
        self.arena = arena
        self.text = text
        self.peer = peer
        self.max_segment = parameters.max_recv_data_segment_length
        recovers = self.unacknowledged is not None
        self.expressible = session.port is not None and not (self.header_digest or self.data_digest or recovers)
        self.express = self.expressible and not (session.fences or session.barriers)
        self.payload: memoryview | None = None
        self.payload_bhs = b""
        self.payload_filled = 0
        self.last_received = now
        self.data_out_timer = DataOutTimer()
        self.reassignments: deque[Callable[[], None]] = deque()
        """TASK REASSIGN that waits, as commands do, until less is kept for retransmission."""
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
