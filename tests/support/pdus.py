"""iSCSI PDUs for tests (RFC 7143 clause 11): any PDU can be built, wrong ones too, and any PDU can be looked at.

Written apart from the target's code so that the two can disagree.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

# initiator opcodes
NOP_OUT, SCSI_COMMAND, TASK_MANAGEMENT, LOGIN, TEXT, DATA_OUT, LOGOUT, SNACK = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10
# target opcodes
NOP_IN, SCSI_RESPONSE, TASK_MANAGEMENT_RESPONSE, LOGIN_RESPONSE, TEXT_RESPONSE, DATA_IN, LOGOUT_RESPONSE, R2T, ASYNC, REJECT = (
    0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3F,
)  # fmt: skip
IMMEDIATE = 0x40
FINAL, CONTINUE = 0x80, 0x40
READ, WRITE = 0x40, 0x20
"""Flags of a SCSI Command."""
NO_TAG = 0xFFFFFFFF
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
GOOD, CHECK_CONDITION = 0x00, 0x02
ABORT_TASK, ABORT_TASK_SET, LOGICAL_UNIT_RESET, WARM_RESET, COLD_RESET, TASK_REASSIGN = 1, 2, 5, 6, 7, 8
CLOSE_SESSION, CLOSE_CONNECTION, FOR_RECOVERY = 0, 1, 2
SNACK_DATA_R2T, SNACK_STATUS, SNACK_DATA_ACK, SNACK_R_DATA = 0, 1, 2, 3
DATA_DIGEST_ERROR, PROTOCOL_ERROR, INVALID_DATA_ACK, INVALID_FIELD, NEGOTIATION_RESET = 0x02, 0x04, 0x08, 0x09, 0x0B
TEST_UNIT_READY = bytes(6)
INQUIRY = b"\x12\0\0\0\x60\0"
READ_CAPACITY = b"\x25".ljust(10, b"\0")


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


def crc32c(*parts: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for part in parts:
        for byte in part:
            crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def lun_field(lun: int) -> bytes:
    return struct.pack(">H6x", lun if lun < 256 else 0x4000 | lun)


def extended_cdb(cdb: bytes) -> bytes:
    """The AHS with what of a CDB does not fit the header (RFC 7143 11.2.2.3); empty if all of it does."""
    rest = cdb[16:]
    return struct.pack(">HBB", len(rest) + 1, 1, 0) + rest + bytes(-len(rest) % 4) if rest else b""


def read10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def serial_less(a: int, b: int) -> bool:
    """RFC 1982: a < b."""
    return a != b and (b - a) & 0xFFFFFFFF < 0x80000000


def sense_codes(sense: bytes) -> tuple[int, int, int]:
    """Sense key, ASC, ASCQ, fixed or descriptor format; zeros without sense data."""
    if not sense:
        return (0, 0, 0)
    return (sense[1] & 0xF, sense[2], sense[3]) if sense[0] & 0x7E == 0x72 else (sense[2] & 0xF, sense[12], sense[13])


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
        return sense_codes(self.data[2:])

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


def request(
    opcode: int,
    flags: int,
    lun: bytes,
    words: dict[int, int],
    data: bytes = b"",
    ahs: bytes = b"",
    *,
    immediate: bool = False,
) -> Request:
    """Any PDU: opcode byte, flags byte, LUN field, and 32-bit fields by their offset."""
    bhs = bytearray(48)
    bhs[0], bhs[1] = opcode | (IMMEDIATE if immediate else 0), flags
    bhs[8:16] = lun
    for offset, value in words.items():
        struct.pack_into(">I", bhs, offset, value & 0xFFFFFFFF)
    return Request(bytes(bhs), data, ahs)


def text_of(pairs: dict[str, str] | list[tuple[str, str]]) -> bytes:
    """Keys as they are sent."""
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return b"".join(f"{key}={value}\0".encode() for key, value in items)


def keys_of(text: bytes) -> dict[str, str]:
    """The same, read; of keys that occur twice the last value."""
    return dict(item.split("=", 1) for item in text.decode().split("\0") if "=" in item)


# requests by their kind; numbers and tags are the caller's


def scsi_command(
    cdb: bytes,
    itt: int,
    cmd_sn: int,
    exp_stat_sn: int,
    *,
    read: int = 0,
    write: int = 0,
    data: bytes = b"",
    final: bool = True,
    immediate: bool = False,
    attribute: int = 1,
    lun: bytes = LUN_0,
) -> Request:
    """SCSI Command, with what of the CDB does not fit the header in an AHS."""
    flags = (FINAL if final else 0) | (READ if read else 0) | (WRITE if write else 0) | attribute
    words = {16: itt, 20: read or write, 24: cmd_sn, 28: exp_stat_sn}
    made = request(SCSI_COMMAND, flags, lun, words, data, extended_cdb(cdb), immediate=immediate)
    return replace(made, bhs=made.bhs[:32] + cdb[:16].ljust(16, b"\0"))


def data_out(
    itt: int,
    ttt: int,
    offset: int,
    data: bytes,
    *,
    exp_stat_sn: int = 0,
    data_sn: int = 0,
    final: bool = True,
    lun: bytes = LUN_0,
) -> Request:
    """Data-Out."""
    words = {16: itt, 20: ttt, 28: exp_stat_sn, 36: data_sn, 40: offset}
    return request(DATA_OUT, FINAL if final else 0, lun, words, data)


def task_management(
    function: int,
    itt: int,
    cmd_sn: int,
    exp_stat_sn: int,
    *,
    referenced: int = NO_TAG,
    ref_cmd_sn: int = 0,
    exp_data_sn: int = 0,
    immediate: bool = True,
    lun: bytes = LUN_0,
) -> Request:
    """Task Management Function Request."""
    words = {16: itt, 20: referenced, 24: cmd_sn, 28: exp_stat_sn, 32: ref_cmd_sn, 36: exp_data_sn}
    return request(TASK_MANAGEMENT, FINAL | function, lun, words, immediate=immediate)


def nop_out(
    itt: int,
    cmd_sn: int,
    exp_stat_sn: int,
    *,
    ttt: int = NO_TAG,
    data: bytes = b"",
    immediate: bool = True,
    lun: bytes = LUN_0,
) -> Request:
    """NOP-Out."""
    return request(NOP_OUT, FINAL, lun, {16: itt, 20: ttt, 24: cmd_sn, 28: exp_stat_sn}, data, immediate=immediate)


def text_request(
    text: bytes, itt: int, cmd_sn: int, exp_stat_sn: int, *, ttt: int = NO_TAG, final: bool = True, more: bool = False
) -> Request:
    """Text Request. ``more``: the C bit."""
    flags = (FINAL if final else 0) | (CONTINUE if more else 0)
    return request(TEXT, flags, LUN_0, {16: itt, 20: ttt, 24: cmd_sn, 28: exp_stat_sn}, text)


def login_request(
    text: bytes,
    stage: int,
    following: int | None,
    itt: int,
    cmd_sn: int,
    exp_stat_sn: int,
    *,
    isid: bytes,
    tsih: int = 0,
    cid: int = 0,
) -> Request:
    """Login Request. ``following`` None: T is 0."""
    flags = stage << 2 | (FINAL | following if following is not None else 0)
    words = {16: itt, 20: cid << 16, 24: cmd_sn, 28: exp_stat_sn}
    return request(LOGIN, flags, isid + tsih.to_bytes(2, "big"), words, text, immediate=True)


def logout(reason: int, itt: int, cmd_sn: int, exp_stat_sn: int, *, cid: int = 0) -> Request:
    """Logout Request."""
    return request(LOGOUT, FINAL | reason, LUN_0, {16: itt, 20: cid << 16, 24: cmd_sn, 28: exp_stat_sn}, immediate=True)


def snack(
    kind: int, begin: int, length: int, exp_stat_sn: int, *, itt: int = NO_TAG, ttt: int = NO_TAG, lun: bytes = LUN_0
) -> Request:
    """SNACK Request: type, BegRun, RunLength; see clause 11.16 for which tags a type wants."""
    return request(SNACK, FINAL | kind, lun, {16: itt, 20: ttt, 28: exp_stat_sn, 40: begin, 44: length})


# what comes


def take_pdu(buffer: bytearray, *, header_digest: bool = False, data_digest: bool = False) -> Pdu | None:
    """The first PDU of a stream, taken out of it; ``None`` until all of it is there. AssertionError for a wrong digest."""
    if len(buffer) < 48:
        return None
    start = 48 + buffer[4] * 4 + (4 if header_digest else 0)
    length = int.from_bytes(buffer[5:8], "big")
    padded = start + length + -length % 4
    end = padded + (4 if data_digest and length else 0)
    if len(buffer) < end:
        return None
    if header_digest:
        assert buffer[start - 4 : start] == crc32c(bytes(buffer[: start - 4])), "the target's header digest is wrong"
    if data_digest and length:
        assert buffer[padded:end] == crc32c(bytes(buffer[start:padded])), "the target's data digest is wrong"
    pdu = Pdu(bytes(buffer[:48]), bytes(buffer[start : start + length]))
    del buffer[:end]
    return pdu
