"""The iSCSI tasks that an initiator has outstanding: SCSI commands, task management, NOP-Out, Text, Logout.

Each knows how its request looks on the wire, so that it can be sent again as it was; what comes back is put together here too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from struct import Struct
from typing import TYPE_CHECKING, Any

from tcm_iscsi.initiator.numbers import Numbers
from tcm_iscsi.initiator.results import InitiatorError, RequestFailed, Result, ScsiError
from tcm_iscsi.protocol.ahs import AdditionalHeaders, encode_ahs
from tcm_iscsi.protocol.pdu import (
    COMMAND_READ,
    COMMAND_WRITE,
    CONTINUE,
    FINAL,
    IMMEDIATE,
    LUN_NONE,
    NOP_OUT,
    RESERVED_TAG,
    SCSI_COMMAND,
    TASK_MANAGEMENT_REQUEST,
    TEXT_REQUEST,
    Buffer,
    Opcode,
)
from tcm_iscsi.protocol.text import MAX_PAIRS, MAX_TEXT_LENGTH, Pair, TextError, encode, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_iscsi.initiator.connection import Connection

LOGOUT_REQUEST = Struct(">BB2xI8xIH2xII16x")
NOTHING = memoryview(b"")
SIMPLE = 1
"""Task attribute (RFC 7143 11.3.1)."""
REPEATABLE_TEXT = frozenset({"TargetName", "TargetAddress"})


class Request(ABC):
    """One iSCSI task, from submit to response.

    ``done(request)`` is called once, when ``finished`` has become true: ``error`` says what went wrong, if anything.
    """

    opcode = Opcode.NOP_OUT
    # most of this is only ever touched by recovery: it stays with the class until then
    error: RequestFailed | None = None
    finished = False
    itt = RESERVED_TAG
    cmd_sn = 0
    connection: Connection | None = None
    """To which the task is allegiant; None: not sent yet."""
    queued = False
    """It waits for the command window, or for a connection."""
    order = 0
    """Position among all that was sent on that connection."""
    started = 0.0
    progress = 0.0
    """When something last happened that has to do with it."""
    retries = 0

    def __init__(self, *, immediate: bool = False, done: Callable[[Any], None] | None = None) -> None:
        self.immediate = immediate
        self.done = done

    @abstractmethod
    def send(self, connection: Connection) -> None:
        """Queue the request, as it was or for the first time."""


def sam_lun(lun: int) -> bytes:
    """The eight bytes of a LUN below 16384: peripheral device or flat space addressing (SAM-5 4.7)."""
    if not 0 <= lun < 0x4000:
        msg = f"LUN {lun} is not in 0 to 16383"
        raise ValueError(msg)
    return (lun if lun < 256 else 0x4000 | lun).to_bytes(2, "big") + bytes(6)


class ScsiTask(Request):
    """A SCSI command.

    :param lun: a number, or the eight bytes themselves.
    :param data_out: what is written; not copied, and must not change until the task is finished.
    :param read_length: Expected Data Transfer Length of a command that reads. In bytes, as all lengths here.
    :param buffer: where Data-In goes, of at least ``read_length``; made if None.
    """

    opcode = Opcode.SCSI_COMMAND
    received = 0
    """Bytes of Data-In."""
    ack: tuple[int, int, bytes] | None = None
    """DataSN, Target Transfer Tag and LUN of the last Data-In with the A bit that waits for its DataACK."""
    acked = 0
    """BegRun of the last DataACK."""
    status_known = False
    stat_sn: int | None = None
    """Of the status, while it is withheld from acknowledgement."""
    end = 0
    """ExpDataSN of the response: how many Data-In and R2T PDUs there were."""
    wanted = 0
    """Bytes of Data-In that there must be, by the status and its residual."""
    snack_tag = 0
    """Of the last R-Data SNACK; 0: none was sent on this connection."""
    snacked = 0
    """DataSN or R2TSN below which everything that is missing has been asked for."""
    resync = False
    """The next R2T says where R2TSN goes on."""
    max_recv = 0
    """MaxRecvDataSegmentLength when the command was sent (clause 11.16.3)."""

    def __init__(
        self,
        cdb: bytes,
        lun: int | bytes = 0,
        *,
        data_out: Buffer = b"",
        read_length: int = 0,
        write_length: int | None = None,
        attribute: int = SIMPLE,
        priority: int = 0,
        immediate: bool = False,
        buffer: bytearray | memoryview | None = None,
        done: Callable[[ScsiTask], None] | None = None,
    ) -> None:
        self.immediate = immediate
        self.done = done
        self.lun = sam_lun(lun) if isinstance(lun, int) else lun
        self.cdb = cdb
        self.data_out = memoryview(data_out) if data_out else NOTHING
        self.read_length = read_length
        self.write_length = len(data_out) if write_length is None else write_length
        self.attribute = attribute
        self.priority = priority
        self.buffer = memoryview(bytearray(read_length) if buffer is None else buffer) if read_length else NOTHING
        self.numbers = Numbers()
        """DataSN of Data-In and R2TSN: one sequence (clause 11.4.8)."""
        self.lengths: dict[int, int] = {}
        """Bytes of the Data-In PDUs that are ahead, by DataSN: they are discarded if the task moves."""
        self.served: set[tuple[int, int]] = set()
        """R2TSN and Target Transfer Tag of the R2Ts that were answered on this connection."""
        self.result = Result()

    def send(self, connection: Connection) -> None:
        """SCSI Command, with immediate and unsolicited data as negotiated (clauses 11.3, 13.10, 13.11)."""
        self.max_recv = connection.max_recv
        cdb, data = self.cdb, self.data_out
        flags = self.attribute
        if self.read_length:
            flags |= COMMAND_READ
        length = self.read_length
        immediate_data: Buffer = b""
        unsolicited = 0
        if self.write_length:
            flags |= COMMAND_WRITE
            length = self.write_length
            immediate_data, unsolicited = connection.unsolicited(data)
        ahs = encode_ahs(AdditionalHeaders(cdb[16:])) if len(cdb) > 16 else b""
        connection.emit(
            SCSI_COMMAND.pack(
                0x41 if self.immediate else 0x01,
                flags if unsolicited else flags | FINAL,
                self.priority << 4,
                len(ahs) << 22 | len(immediate_data),
                self.lun,
                self.itt,
                length,
                self.cmd_sn,
                connection.statuses.expected,
                cdb[:16] if len(cdb) >= 16 else cdb.ljust(16, b"\0"),
            ),
            immediate_data,
            ahs,
        )
        if unsolicited:
            connection.send_data_out(self, RESERVED_TAG, len(immediate_data), unsolicited)

    @property
    def failure(self) -> InitiatorError | None:
        """Why it did not end with status GOOD, once it is finished."""
        return self.error or (None if self.result.good else ScsiError(self.result))

    def incomplete(self) -> bool:
        """The status is known, and Data-In is missing: PDUs by ExpDataSN, or bytes (LIO's ExpDataSN is 0 after a SNACK)."""
        return self.numbers.expected < self.end or bool(self.numbers.ahead) or self.received < self.wanted

    def discard_unacknowledged(self, base: int) -> None:
        """Forget what came from DataSN ``base`` on: it is going to be sent again (clauses 11.5.6, 11.16.3)."""
        self.received -= sum(length for number, length in self.lengths.items() if number >= base)
        self.lengths = {number: length for number, length in self.lengths.items() if number < base}
        self.numbers = Numbers(base)
        self.snacked = base
        self.ack = None
        self.status_known = False
        self.stat_sn = None
        self.end = self.wanted = 0


class TaskManagement(Request):
    """A task management function request (clause 11.5). ``response`` is a TaskManagementResponseCode."""

    opcode = Opcode.TASK_MANAGEMENT_REQUEST

    def __init__(
        self,
        function: int,
        lun: int | bytes = 0,
        *,
        referenced: int = RESERVED_TAG,
        ref_cmd_sn: int | None = None,
        exp_data_sn: int = 0,
        immediate: bool = True,
        done: Callable[[TaskManagement], None] | None = None,
    ) -> None:
        super().__init__(immediate=immediate, done=done)
        self.function = function
        self.lun = sam_lun(lun) if isinstance(lun, int) else lun
        self.referenced = referenced
        self.ref_cmd_sn = ref_cmd_sn
        """None: that of the request itself, as for a referenced task that was immediate."""
        self.exp_data_sn = exp_data_sn
        self.response = -1
        self.information = b""
        """Additional response information (RFC 7144)."""

    def send(self, connection: Connection) -> None:
        """Queue the request."""
        connection.emit(
            TASK_MANAGEMENT_REQUEST.pack(
                IMMEDIATE | self.opcode if self.immediate else self.opcode,
                FINAL | self.function,
                0,
                self.lun,
                self.itt,
                self.referenced,
                self.cmd_sn,
                connection.statuses.expected,
                self.cmd_sn if self.ref_cmd_sn is None else self.ref_cmd_sn,
                self.exp_data_sn,
            )
        )


class Nop(Request):
    """A ping: NOP-Out that asks for a NOP-In (clause 11.18)."""

    opcode = Opcode.NOP_OUT

    def __init__(self, data: bytes = b"", *, immediate: bool = True, done: Callable[[Nop], None] | None = None) -> None:
        super().__init__(immediate=immediate, done=done)
        self.data = data
        self.answer = b""

    def send(self, connection: Connection) -> None:
        """Queue the request."""
        connection.emit(
            NOP_OUT.pack(
                IMMEDIATE | self.opcode if self.immediate else self.opcode,
                FINAL,
                len(self.data),
                LUN_NONE,
                self.itt,
                RESERVED_TAG,
                self.cmd_sn,
                connection.statuses.expected,
            ),
            self.data,
        )


class Text(Request):
    """A text negotiation of full feature phase (clause 11.10): as many Text Requests as it takes, one task.

    ``answers`` are the target's pairs, in order, once it is finished.
    """

    opcode = Opcode.TEXT_REQUEST

    def __init__(self, pairs: list[Pair], *, immediate: bool = False, done: Callable[[Text], None] | None = None) -> None:
        super().__init__(immediate=immediate, done=done)
        self.text = encode(pairs)
        self.outgoing = self.text
        """What has not been sent."""
        self.piece: bytes | None = None
        """What the current request carries."""
        self.ttt = RESERVED_TAG
        self.lun = LUN_NONE
        self.answers: list[Pair] = []
        self._parts = bytearray()

    def send(self, connection: Connection) -> None:
        """Queue the request: the current piece again, or the next."""
        if self.piece is None:
            limit = connection.max_send
            self.piece, self.outgoing = self.outgoing[:limit], self.outgoing[limit:]
        connection.emit(
            TEXT_REQUEST.pack(
                IMMEDIATE | self.opcode if self.immediate else self.opcode,
                CONTINUE if self.outgoing else FINAL,
                len(self.piece),
                self.lun,
                self.itt,
                self.ttt,
                self.cmd_sn,
                connection.statuses.expected,
            ),
            self.piece,
        )

    def receive(self, flags: int, lun: bytes, ttt: int, data: Buffer) -> bool:
        """Take a Text Response; True: another request has to be sent. Raises TextError."""
        self._parts += data
        if len(self._parts) > 16 * MAX_TEXT_LENGTH:
            raise TextError("the target's text has no end")
        self.piece, self.lun, self.ttt = None, lun, ttt
        if self.outgoing or flags & CONTINUE or not flags & FINAL:
            return True
        items = bytes(self._parts).split(b"\0")
        if items.pop():
            raise TextError("the last key=value pair does not end in NUL")
        for at in range(0, len(items), MAX_PAIRS):  # targets may be many
            self.answers += parse(b"\0".join(items[at : at + MAX_PAIRS]) + b"\0", REPEATABLE_TEXT)
        return False


class Logout(Request):
    """A Logout (clause 11.14). ``response``, ``time2wait`` and ``time2retain`` (seconds) are the target's."""

    opcode = Opcode.LOGOUT_REQUEST

    def __init__(
        self, reason: int, cid: int = 0, *, immediate: bool = True, done: Callable[[Logout], None] | None = None
    ) -> None:
        super().__init__(immediate=immediate, done=done)
        self.reason = reason
        self.cid = cid
        self.response = -1
        self.time2wait = 0
        self.time2retain = 0

    def send(self, connection: Connection) -> None:
        """Queue the request."""
        connection.emit(
            LOGOUT_REQUEST.pack(
                IMMEDIATE | self.opcode if self.immediate else self.opcode,
                FINAL | self.reason,
                0,
                self.itt,
                self.cid,
                self.cmd_sn,
                connection.statuses.expected,
            )
        )
