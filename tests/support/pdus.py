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
    Pdu,
    crc32c,
)

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
