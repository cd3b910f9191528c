"""iSCSI PDUs for tests (RFC 7143 clause 11): any PDU can be built, wrong ones too, and any PDU can be looked at.

Written apart from the target's code so that the two can disagree.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from support.raw_iscsi import (
    ASYNC,
    DATA_IN,
    DATA_OUT,
    IMMEDIATE,
    LOGIN,
    LOGIN_RESPONSE,
    LOGOUT,
    LOGOUT_RESPONSE,
    NO_TAG,
    NOP_IN,
    NOP_OUT,
    R2T,
    REJECT,
    SCSI_COMMAND,
    SCSI_RESPONSE,
    SNACK,
    TASK_MANAGEMENT,
    TASK_MANAGEMENT_RESPONSE,
    TEXT,
    TEXT_RESPONSE,
    crc32c,
)

NAMES = {
    NOP_IN: "NOP-In",
    SCSI_RESPONSE: "SCSI Response",
    TASK_MANAGEMENT_RESPONSE: "Task Management Function Response",
    LOGIN_RESPONSE: "Login Response",
    TEXT_RESPONSE: "Text Response",
    DATA_IN: "Data-In",
    LOGOUT_RESPONSE: "Logout Response",
    R2T: "R2T",
    ASYNC: "Async Message",
    REJECT: "Reject",
}
LUN_0 = bytes(8)
FINAL = 0x80
GOOD, CHECK_CONDITION = 0x00, 0x02
ABORT_TASK, ABORT_TASK_SET, LOGICAL_UNIT_RESET, WARM_RESET, COLD_RESET, TASK_REASSIGN = 1, 2, 5, 6, 7, 8
CLOSE_SESSION, CLOSE_CONNECTION, FOR_RECOVERY = 0, 1, 2
SNACK_DATA_R2T, SNACK_STATUS, SNACK_DATA_ACK, SNACK_R_DATA = 0, 1, 2, 3
DATA_DIGEST_ERROR, PROTOCOL_ERROR, INVALID_DATA_ACK, INVALID_FIELD, NEGOTIATION_RESET = 0x02, 0x04, 0x08, 0x09, 0x0B
TEST_UNIT_READY = bytes(6)
INQUIRY = b"\x12\0\0\0\x60\0"
READ_CAPACITY = b"\x25".ljust(10, b"\0")


def read10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def serial_less(a: int, b: int) -> bool:
    """RFC 1982: a < b."""
    return a != b and (b - a) & 0xFFFFFFFF < 0x80000000


@dataclass(frozen=True)
class Pdu:
    """A PDU of the target. Fields that a kind of PDU does not have read as what stands at their place."""

    bhs: bytes
    data: bytes = b""

    def __repr__(self) -> str:
        name = NAMES.get(self.opcode, f"opcode {self.opcode:#x}")
        return f"<{name} itt={self.itt:#x} flags={self.flags:#x} {self.bhs[2]:#x}/{self.bhs[3]:#x} data={len(self.data)}>"

    def word(self, offset: int) -> int:
        """The 32-bit field at ``offset``."""
        return int.from_bytes(self.bhs[offset : offset + 4], "big")

    @property
    def opcode(self) -> int:
        return self.bhs[0] & 0x3F

    @property
    def flags(self) -> int:
        return self.bhs[1]

    @property
    def final(self) -> bool:
        return bool(self.bhs[1] & FINAL)

    @property
    def response(self) -> int:
        """Response, or the reason of a Reject, or AsyncEvent aside."""
        return self.bhs[2]

    @property
    def status(self) -> int:
        return self.bhs[3]

    @property
    def lun(self) -> bytes:
        return self.bhs[8:16]

    @property
    def itt(self) -> int:
        return self.word(16)

    @property
    def ttt(self) -> int:
        """Of R2T, Data-In, NOP-In and Text Response."""
        return self.word(20)

    @property
    def stat_sn(self) -> int:
        return self.word(24)

    @property
    def exp_cmd_sn(self) -> int:
        return self.word(28)

    @property
    def max_cmd_sn(self) -> int:
        return self.word(32)

    @property
    def data_sn(self) -> int:
        """DataSN, R2TSN; ExpDataSN of a response."""
        return self.word(36)

    @property
    def offset(self) -> int:
        return self.word(40)

    @property
    def length(self) -> int:
        """Desired Data Transfer Length of R2T; the residual count elsewhere."""
        return self.word(44)

    @property
    def sense(self) -> tuple[int, int, int]:
        """Sense key, ASC, ASCQ of a SCSI Response, fixed or descriptor format."""
        body = self.data[2:]
        return (body[1] & 0xF, body[2], body[3]) if body[0] & 0x7E == 0x72 else (body[2] & 0xF, body[12], body[13])

    @property
    def ends_command(self) -> bool:
        """Whether it carries the status of a SCSI command."""
        return self.opcode == SCSI_RESPONSE or (self.opcode == DATA_IN and bool(self.flags & 1))

    @property
    def numbered(self) -> bool:
        """Whether its StatSN is its own: the target counts on after it (clause 4.2.2.2)."""
        if self.opcode == DATA_IN:
            return bool(self.flags & 1)
        return self.opcode != R2T and not (self.opcode == NOP_IN and self.itt == NO_TAG)

    @property
    def target_ping(self) -> bool:
        return self.opcode == NOP_IN and self.itt == NO_TAG and self.ttt != NO_TAG

    def keys(self) -> list[tuple[str, str]]:
        """The text of a Text or Login Response."""
        pairs = (item.partition("=") for item in self.data.decode().split("\0") if item)
        return [(key, value) for key, _, value in pairs]


@dataclass(frozen=True)
class Request:
    """A PDU to send; lengths and digests come in when it is put on the wire."""

    bhs: bytes
    data: bytes = b""
    ahs: bytes = b""
    break_data_digest: bool = False
    leave_out_header_digest: bool = False

    @property
    def header(self) -> bytes:
        """The BHS as it is sent."""
        return self.bhs[:4] + bytes([len(self.ahs) // 4]) + len(self.data).to_bytes(3, "big") + self.bhs[8:]

    @property
    def itt(self) -> int:
        return int.from_bytes(self.bhs[16:20], "big")

    @property
    def cmd_sn(self) -> int:
        return int.from_bytes(self.bhs[24:28], "big")

    def encode(self, *, header_digest: bool = False, data_digest: bool = False) -> bytes:
        head = self.header + self.ahs
        if header_digest and not self.leave_out_header_digest:
            head += crc32c(head)
        padded = self.data + bytes(-len(self.data) % 4)
        digest = crc32c(padded) if data_digest and self.data else b""
        if self.break_data_digest:
            digest = bytes(each ^ 0xFF for each in digest)
        return head + padded + digest


def request(opcode: int, flags: int, lun: bytes, words: dict[int, int], data: bytes = b"", ahs: bytes = b"") -> Request:
    """Any PDU: opcode byte, flags byte, LUN field, and 32-bit fields by their offset."""
    bhs = bytearray(48)
    bhs[0], bhs[1] = opcode, flags
    bhs[8:16] = lun
    for offset, value in words.items():
        struct.pack_into(">I", bhs, offset, value & 0xFFFFFFFF)
    return Request(bytes(bhs), data, ahs)


def text_of(pairs: dict[str, str] | list[tuple[str, str]]) -> bytes:
    """Keys as they are sent."""
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return b"".join(f"{key}={value}\0".encode() for key, value in items)


__all__ = [
    "ABORT_TASK",
    "ABORT_TASK_SET",
    "ASYNC",
    "CHECK_CONDITION",
    "CLOSE_CONNECTION",
    "CLOSE_SESSION",
    "COLD_RESET",
    "DATA_DIGEST_ERROR",
    "DATA_IN",
    "DATA_OUT",
    "FINAL",
    "FOR_RECOVERY",
    "GOOD",
    "IMMEDIATE",
    "INQUIRY",
    "INVALID_DATA_ACK",
    "INVALID_FIELD",
    "LOGICAL_UNIT_RESET",
    "LOGIN",
    "LOGIN_RESPONSE",
    "LOGOUT",
    "LOGOUT_RESPONSE",
    "LUN_0",
    "NEGOTIATION_RESET",
    "NOP_IN",
    "NOP_OUT",
    "NO_TAG",
    "PROTOCOL_ERROR",
    "R2T",
    "READ_CAPACITY",
    "REJECT",
    "SCSI_COMMAND",
    "SCSI_RESPONSE",
    "SNACK",
    "SNACK_DATA_ACK",
    "SNACK_DATA_R2T",
    "SNACK_R_DATA",
    "SNACK_STATUS",
    "TASK_MANAGEMENT",
    "TASK_MANAGEMENT_RESPONSE",
    "TASK_REASSIGN",
    "TEST_UNIT_READY",
    "TEXT",
    "TEXT_RESPONSE",
    "WARM_RESET",
    "Pdu",
    "Request",
    "read10",
    "request",
    "serial_less",
    "text_of",
    "write10",
]
