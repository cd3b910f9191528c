"""The sending half of a connection in full feature phase: PDUs, their StatSN, and what is acknowledged (RFC 7143 4.2.2.2)."""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from tcm_iscsi.protocol.digest import crc32c
from tcm_iscsi.protocol.failure import ConnectionFailed
from tcm_iscsi.protocol.pdu import FINAL, LUN_NONE, NOP_IN, PAD, RESERVED_TAG, AsyncEvent, Opcode
from tcm_iscsi.protocol.serial import SERIAL_BITS, serial_less
from tcm_iscsi.protocol.unacknowledged import Unacknowledged

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_iscsi.protocol.parameters import ConnectionParameters
    from tcm_iscsi.protocol.scsi_command import ScsiCommand
    from tcm_iscsi.protocol.session import Session

REJECT = struct.Struct(">BBBxI8xI4xIIII8x").pack
WINDOW = struct.Struct(">II").pack
ASYNC = struct.Struct(">BBxxI8sI4xIIIBBHHH4x").pack


class Outbound:
    """What is sent piles up in ``out``.

    :param stat_sn: the next StatSN.
    :param wake: called when there is something to send that the receiving half did not cause.
    """

    __slots__ = (
        "data_digest", "exp_stat_sn", "header_digest", "history", "out", "out_size", "ping", "session", "stat_sn",
        "terminations", "unacknowledged", "wake",
    )  # fmt: skip

    def __init__(self, session: Session, parameters: ConnectionParameters, stat_sn: int, wake: Callable[[], None]) -> None:
        self.session = session
        self.stat_sn = stat_sn
        self.exp_stat_sn = stat_sn
        self.wake = wake
        self.header_digest = parameters.header_digest
        self.data_digest = parameters.data_digest
        recovers = session.parameters.error_recovery_level > 0 and session.port is not None
        self.unacknowledged: Unacknowledged | None = Unacknowledged() if recovers else None
        self.out: list[Any] = []
        self.out_size = 0
        self.ping = 0
        """Target Transfer Tag of a NOP-In whose answer has not come."""
        self.terminations: dict[bytes, int] = {}
        """LUNs whose termination was announced, and the StatSN of the Async Message (FastAbort)."""
        self.history: deque[str] = deque(maxlen=32)

    def next_stat_sn(self) -> int:
        """StatSN for a PDU that carries status."""
        stat_sn = self.stat_sn
        self.stat_sn = stat_sn + 1 & SERIAL_BITS
        return stat_sn

    def emit(self, bhs: bytes, *data: Any) -> None:
        """Queue one PDU; ``data`` buffers are passed through uncopied."""
        out = self.out
        out.append(bhs)
        self.out_size += 48
        if self.header_digest:
            out.append(crc32c(bhs))
        length = 0
        for piece in data:
            length += len(piece)
        if length:
            out.extend(data)
            pad = PAD[length & 3]
            if pad:
                out.append(pad)
            if self.data_digest:
                out.append(crc32c(*data, pad))
            self.out_size += length

    def emit_status(self, bhs: bytes, *data: Any, command: ScsiCommand | None = None) -> None:
        """Queue a PDU that carries status, and keep it until that is acknowledged if it may be asked for again."""
        if self.unacknowledged is not None:
            self.unacknowledged.keep(int.from_bytes(bhs[24:28], "big"), bhs, data, command)
        self.emit(bhs, *data)

    def emit_again(self, bhs: bytes, data: tuple[Any, ...]) -> None:
        """The same, with the command window of now (RFC 7143 11.16)."""
        session = self.session
        self.emit(bhs[:28] + WINDOW(session.exp_cmd_sn, session.max_cmd_sn) + bhs[36:], *data)

    def reject(self, reason: int, bhs: bytes, data_sn: int = 0) -> None:
        """Reject with the header of the offending PDU (RFC 7143 11.17).

        :param data_sn: of a SNACK of data or R2Ts that is a protocol error: the next DataSN or R2TSN of the task (11.17.2).
        """
        session = self.session
        self.history.append(f"Reject reason {reason:#04x} of opcode {bhs[0] & 0x3F:#04x}")
        self.emit_status(
            REJECT(
                Opcode.REJECT, FINAL, reason, 48, RESERVED_TAG, self.next_stat_sn(), session.exp_cmd_sn, session.max_cmd_sn,
                data_sn,
            ),
            bhs,
        )  # fmt: skip

    def async_message(
        self, event: int, parameter1: int = 0, parameter2: int = 0, parameter3: int = 0, *, lun: bytes = LUN_NONE
    ) -> None:
        """Async Message (RFC 7143 11.9)."""
        session = self.session
        self.history.append(f"Async Message, event {event}")
        self.emit_status(
            ASYNC(
                Opcode.ASYNC_MESSAGE, FINAL, 0, lun, RESERVED_TAG, self.next_stat_sn(), session.exp_cmd_sn, session.max_cmd_sn,
                event, 0, parameter1, parameter2, parameter3,
            )
        )  # fmt: skip

    def request_logout(self, seconds: int) -> None:
        """Ask the initiator to log this connection out within ``seconds``; otherwise it is dropped."""
        self.async_message(AsyncEvent.LOGOUT_REQUESTED, parameter3=seconds)
        self.wake()

    def request_negotiation(self, seconds: int) -> None:
        """Ask the initiator to send a Text Request on this connection within ``seconds``, empty if it has nothing to say."""
        self.async_message(AsyncEvent.NEGOTIATION_REQUESTED, parameter3=seconds)
        self.wake()

    # acknowledgement

    def acknowledge(self, exp_stat_sn: int) -> None:
        """The initiator has every status before ``exp_stat_sn`` (RFC 7143 4.2.2.2); one beyond what was sent says nothing."""
        before = self.exp_stat_sn
        if (exp_stat_sn - before) & SERIAL_BITS > (self.stat_sn - before) & SERIAL_BITS:
            return
        self.exp_stat_sn = exp_stat_sn
        kept = self.unacknowledged
        if kept is not None:
            kept.acknowledge(exp_stat_sn)
        if self.terminations:
            self.terminations = {lun: sn for lun, sn in self.terminations.items() if not serial_less(sn, exp_stat_sn)}
        if self.session.fences and exp_stat_sn != before:
            self.session.acknowledged()

    def insist_on_acknowledgement(self) -> None:
        """Requests that do not wait for room have responses too: beyond a bound the connection counts as failed (4.2.2.2)."""
        kept = self.unacknowledged
        if kept is not None and kept.full:
            self.solicit()
            if kept.hopeless:
                raise ConnectionFailed("responses pile up that the initiator does not acknowledge")

    def solicit(self) -> None:
        """NOP-In as a ping: its answer acknowledges, and its StatSN, not advanced, shows what was lost (RFC 7143 11.19)."""
        if self.ping:
            return
        session = self.session
        self.ping = session.new_ttt()
        session.nops_sent += 1
        self.emit(
            NOP_IN.pack(
                0x20, FINAL, 0, LUN_NONE, RESERVED_TAG, self.ping, self.stat_sn, session.exp_cmd_sn, session.max_cmd_sn
            )
        )  # fmt: skip
