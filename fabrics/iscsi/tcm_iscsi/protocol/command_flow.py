"""SCSI commands of one connection on the general path: in CmdSN order, and within bounds (RFC 7143 4.2.2.1, 11.3, 11.7)."""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from tcm_iscsi.protocol.ahs import AhsError, parse_ahs
from tcm_iscsi.protocol.failure import ConnectionFailed
from tcm_iscsi.protocol.outbound import Outbound
from tcm_iscsi.protocol.pdu import DATA_OUT, FINAL, RESERVED_TAG, SCSI_COMMAND, RejectReason
from tcm_iscsi.protocol.scsi_command import UNEXPECTED_UNSOLICITED_DATA, ScsiCommand

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_iscsi.protocol.parameters import ConnectionParameters
    from tcm_iscsi.protocol.session import Session

CMD_SN = struct.Struct(">24xII").unpack_from

HIGH_WATER = 1 << 20
"""Bytes queued, or being read for commands in progress, beyond which no further PDU of this connection is taken."""
GRANT_LIMIT = 8 << 20
"""Bytes of Data-Out that R2Ts of one connection may have asked for, of commands that have not ended."""


class CommandFlow(Outbound):
    """What has come as SCSI Command and Data-Out PDUs, and what is asked for with R2Ts.

    :param stat_sn: the next StatSN.
    :param wake: called when there is something to send that the receiving half did not cause.
    """

    __slots__ = ("cid", "closed", "closing", "grant_queue", "granted", "parameters", "pending_read", "send_limit", "suspended")

    def __init__(
        self, session: Session, cid: int, parameters: ConnectionParameters, stat_sn: int, wake: Callable[[], None]
    ) -> None:
        super().__init__(session, parameters, stat_sn, wake)
        self.cid = cid
        self.parameters = parameters
        self.limit_sending()
        self.pending_read = 0
        """Bytes of Data-In that commands in progress read."""
        self.granted = 0
        """Bytes of Data-Out that R2Ts have asked for."""
        self.grant_queue: deque[ScsiCommand] = deque()
        """Whose R2Ts wait for others' data."""
        self.suspended = False
        """Gone, but its tasks can be reassigned."""
        self.closing = False
        """Nothing more is taken from it."""
        self.closed = False
        """Nothing more is sent on it."""

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

    def response_queued(self) -> None:
        """A command's response is in ``out``."""
        self.wake()
        self.resume()

    def limit_sending(self) -> None:
        """:attr:`parameters` have changed."""
        self.send_limit = min(self.parameters.send_limit, self.session.parameters.max_burst_length)
