"""A small blocking iSCSI initiator for tests (RFC 7143), written apart from the target's code so that the two can disagree.

It does one thing at a time and hides nothing: any PDU can be sent, any PDU that arrives can be looked at.
Longer than most files because every PDU's fields have their names here.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

# initiator opcodes
NOP_OUT, SCSI_COMMAND, TASK_MANAGEMENT, LOGIN, TEXT, DATA_OUT, LOGOUT, SNACK = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10
# target opcodes
NOP_IN, SCSI_RESPONSE, TASK_MANAGEMENT_RESPONSE, LOGIN_RESPONSE, TEXT_RESPONSE, DATA_IN, LOGOUT_RESPONSE, R2T, ASYNC, REJECT = (
    0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3F,
)  # fmt: skip
IMMEDIATE = 0x40
FINAL = 0x80
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
INITIATOR = "iqn.2025-01.test.raw:initiator"


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


@dataclass
class Outcome:
    """What became of a SCSI command."""

    status: int
    data: bytes = b""
    sense: bytes = b""
    residual: int = 0
    overflow: bool = False
    response: int = 0

    @property
    def sense_key(self) -> int:
        return (self.sense[2] if self.sense[0] & 0x7E == 0x70 else self.sense[1]) & 0x0F if self.sense else 0

    @property
    def asc(self) -> tuple[int, int]:
        """ASC and ASCQ."""
        if not self.sense:
            return (0, 0)
        at = 12 if self.sense[0] & 0x7E == 0x70 else 2
        return (self.sense[at], self.sense[at + 1])


class LoginFailed(Exception):
    """Status-Class and Status-Detail of the target's refusal."""

    def __init__(self, status_class: int, status_detail: int) -> None:
        super().__init__(f"login failed: {status_class:02x}{status_detail:02x}")
        self.status = (status_class, status_detail)


@dataclass
class Initiator:
    """One connection that is a session."""

    host: str
    port: int
    timeout: float = 10
    header_digest: bool = False
    data_digest: bool = False
    cmd_sn: int = 1
    exp_stat_sn: int = 0
    max_cmd_sn: int = 0
    tag: int = 0
    tsih: int = 0
    keys: dict[str, str] = field(default_factory=dict)
    """What the target answered at login."""
    max_send: int = 8192
    max_recv: int = 1 << 20
    unexpected: list[Pdu] = field(default_factory=list)
    """PDUs that arrived while another was awaited."""

    def __post_init__(self) -> None:
        self.socket = socket.create_connection((self.host, self.port), self.timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.isid = b"\x80" + os.urandom(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    # PDUs

    def encode(self, bhs: bytes | bytearray, data: bytes = b"", ahs: bytes = b"") -> bytes:
        """A whole PDU: lengths filled in, padded, digests when they are on."""
        header = bytearray(bhs)
        header[4] = len(ahs) // 4
        header[5:8] = len(data).to_bytes(3, "big")
        head = bytes(header) + ahs
        padded = data + bytes(-len(data) % 4)
        head += crc32c(head) if self.header_digest else b""
        return head + padded + (crc32c(padded) if self.data_digest and data else b"")

    def send(self, bhs: bytes | bytearray, data: bytes = b"", ahs: bytes = b"") -> None:
        self.socket.sendall(self.encode(bhs, data, ahs))

    def read_exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            if not part:
                raise ConnectionError("the target closed the connection")
            parts += part
        return bytes(parts)

    def receive(self) -> Pdu:
        bhs = self.read_exactly(48)
        ahs = self.read_exactly(bhs[4] * 4)
        if self.header_digest:
            assert self.read_exactly(4) == crc32c(bhs, ahs), "header digest of the target is wrong"
        length = int.from_bytes(bhs[5:8], "big")
        padded = self.read_exactly(length + -length % 4)
        if self.data_digest and length:
            assert self.read_exactly(4) == crc32c(padded), "data digest of the target is wrong"
        pdu = Pdu(bhs, padded[:length])
        if pdu.opcode != R2T and not (pdu.opcode == DATA_IN and not pdu.flags & 0x01):
            self.exp_stat_sn = max(self.exp_stat_sn, (pdu.word(24) + 1) & 0xFFFFFFFF)
        self.max_cmd_sn = pdu.word(32)
        return pdu

    def wait_for(self, opcode: int, itt: int) -> Pdu:
        """The next PDU of this kind and tag. Pings are answered, the rest is kept in ``unexpected``."""
        for index, pdu in enumerate(self.unexpected):
            if pdu.opcode == opcode and pdu.itt == itt:
                return self.unexpected.pop(index)
        while True:
            pdu = self.receive()
            if pdu.opcode == opcode and pdu.itt == itt:
                return pdu
            self.put_aside(pdu)

    def put_aside(self, pdu: Pdu) -> None:
        if pdu.opcode == NOP_IN and pdu.word(20) != NO_TAG:
            self.answer_ping(pdu)
        else:
            self.unexpected.append(pdu)

    def answer_ping(self, pdu: Pdu) -> None:
        bhs = bytearray(48)
        bhs[0], bhs[1] = NOP_OUT | IMMEDIATE, 0x80
        bhs[8:16] = pdu.bhs[8:16]
        struct.pack_into(">IIII", bhs, 16, NO_TAG, pdu.word(20), self.cmd_sn, self.exp_stat_sn)
        self.send(bhs, pdu.data)

    def next_tag(self) -> int:
        self.tag += 1
        return self.tag

    # login

    def login_pdu(self, keys: dict[str, str], stages: tuple[int, int], transit: bool = True) -> tuple[bytearray, bytes]:
        bhs = bytearray(48)
        bhs[0] = LOGIN | IMMEDIATE
        bhs[1] = (0x80 if transit else 0) | stages[0] << 2 | (stages[1] if transit else 0)
        bhs[8:14] = self.isid
        struct.pack_into(">HIHHII", bhs, 14, self.tsih, self.tag, 0, 0, self.cmd_sn, self.exp_stat_sn)
        return bhs, b"".join(f"{key}={value}\0".encode() for key, value in keys.items())

    def login_step(self, keys: dict[str, str], stages: tuple[int, int], transit: bool = True) -> dict[str, str]:
        """One login request and its answer; keys of the answer are also kept in ``self.keys``."""
        self.send(*self.login_pdu(keys, stages, transit))
        pdu = self.receive()
        assert pdu.opcode == LOGIN_RESPONSE, f"opcode {pdu.opcode:#x} in answer to a login request"
        if pdu.bhs[36] != 0:
            raise LoginFailed(pdu.bhs[36], pdu.bhs[37])
        self.tsih = int.from_bytes(pdu.bhs[14:16], "big")
        answer = dict(item.split("=", 1) for item in pdu.data.decode().split("\0") if "=" in item)
        self.keys.update(answer)
        return answer

    def login(
        self,
        target: str | None,
        *,
        name: str = INITIATOR,
        digests: str = "None",
        chap: tuple[str, str] | None = None,
        **keys: str,
    ) -> Initiator:
        """Log in to a target (``None``: a discovery session), with CHAP if told so."""
        self.max_recv = int(keys.get("MaxRecvDataSegmentLength", self.max_recv))
        first = {"InitiatorName": name}
        first |= {"SessionType": "Discovery"} if target is None else {"SessionType": "Normal", "TargetName": target}
        first["AuthMethod"] = "CHAP" if chap else "None"
        self.login_step(first, (0, 1), transit=chap is None)
        if chap:
            challenge = self.login_step({"CHAP_A": "5"}, (0, 1), transit=False)
            identifier = int(challenge["CHAP_I"])
            response = hashlib.md5(bytes([identifier]) + chap[1].encode() + bytes.fromhex(challenge["CHAP_C"][2:]))
            self.login_step({"CHAP_N": chap[0], "CHAP_R": "0x" + response.hexdigest()}, (0, 1))
        offer = {"HeaderDigest": digests, "DataDigest": digests, "MaxRecvDataSegmentLength": str(self.max_recv)}
        self.login_step(offer | keys, (1, 3))
        self.header_digest = self.keys.get("HeaderDigest") == "CRC32C"
        self.data_digest = self.keys.get("DataDigest") == "CRC32C"
        self.max_send = int(self.keys.get("MaxRecvDataSegmentLength", 8192))
        return self

    # full feature phase

    def command_pdu(
        self, cdb: bytes, lun: int = 0, *, read: int = 0, write: int = 0, final: bool = True, attribute: int = 1
    ) -> bytearray:
        """A SCSI Command header with the next task tag; CmdSN advances."""
        bhs = bytearray(48)
        bhs[0] = SCSI_COMMAND
        bhs[1] = (0x80 if final else 0) | (0x40 if read else 0) | (0x20 if write else 0) | attribute
        bhs[8:16] = lun_field(lun)
        struct.pack_into(">IIII", bhs, 16, self.next_tag(), read or write, self.cmd_sn, self.exp_stat_sn)
        bhs[32 : 32 + min(len(cdb), 16)] = cdb[:16]
        self.cmd_sn = (self.cmd_sn + 1) & 0xFFFFFFFF
        return bhs

    def start(self, cdb: bytes, lun: int = 0, *, read: int = 0, write: bytes = b"") -> int:
        """Send a command with all the data that may go unasked, immediate and unsolicited; the tag."""
        agreed = self.keys.get("FirstBurstLength", "65536")
        first_burst = 0 if agreed == "Irrelevant" else min(int(agreed), len(write))
        immediate = min(self.max_send, first_burst) if self.keys.get("ImmediateData", "Yes") == "Yes" else 0
        unsolicited = first_burst if self.keys.get("InitialR2T", "Yes") == "No" else immediate
        bhs = self.command_pdu(cdb, lun, read=read, write=len(write), final=unsolicited <= immediate)
        self.send(bhs, write[:immediate], extended_cdb(cdb))
        if unsolicited > immediate:
            self.data_out(self.tag, NO_TAG, immediate, unsolicited - immediate, write, lun)
        return self.tag

    def finish(self, tag: int, write: bytes = b"", lun: int = 0) -> Outcome:
        """Serve a command's R2Ts and gather its Data-In until its status is here."""
        gathered = bytearray()
        while True:
            pdu = next((each for each in self.unexpected if each.itt == tag), None)
            if pdu is not None:
                self.unexpected.remove(pdu)
            else:
                pdu = self.receive()
            if pdu.itt != tag:
                self.put_aside(pdu)
            elif pdu.opcode == R2T:
                self.data_out(tag, pdu.word(20), pdu.word(40), pdu.word(44), write, lun)
            elif pdu.opcode == DATA_IN:
                offset = pdu.word(40)
                gathered[offset : offset + len(pdu.data)] = pdu.data
                if pdu.flags & 0x01:
                    return Outcome(pdu.bhs[3], bytes(gathered), b"", pdu.word(44), bool(pdu.flags & 0x04))
            elif pdu.opcode == SCSI_RESPONSE:
                sense = pdu.data[2:] if pdu.data else b""
                return Outcome(pdu.bhs[3], bytes(gathered), sense, pdu.word(44), bool(pdu.flags & 0x04), pdu.bhs[2])
            else:
                raise AssertionError(f"opcode {pdu.opcode:#x} for task {tag}: {pdu.bhs.hex()}")

    def data_out(self, tag: int, ttt: int, offset: int, length: int, write: bytes, lun: int = 0) -> None:
        """One sequence of Data-Out PDUs: the answer to an R2T, or unsolicited."""
        datasn = 0
        while length:
            part = write[offset : offset + min(length, self.max_send)]
            assert part, "the target asks for data beyond the command's"
            length -= len(part)
            bhs = bytearray(48)
            bhs[0], bhs[1] = DATA_OUT, 0 if length else 0x80
            bhs[8:16] = lun_field(lun)
            struct.pack_into(">II4xI4xII", bhs, 16, tag, ttt, self.exp_stat_sn, datasn, offset)
            self.send(bhs, part)
            offset, datasn = offset + len(part), datasn + 1

    def command(self, cdb: bytes, lun: int = 0, *, read: int = 0, write: bytes = b"") -> Outcome:
        return self.finish(self.start(cdb, lun, read=read, write=write), write, lun)

    def task_management(self, function: int, lun: int = 0, tag: int = NO_TAG, ref_cmd_sn: int = 0) -> int:
        """The response code."""
        bhs = bytearray(48)
        bhs[0], bhs[1] = TASK_MANAGEMENT | IMMEDIATE, 0x80 | function
        bhs[8:16] = lun_field(lun)
        itt = self.next_tag()
        struct.pack_into(">IIIII", bhs, 16, itt, tag, self.cmd_sn, self.exp_stat_sn, ref_cmd_sn)
        self.send(bhs)
        return self.wait_for(TASK_MANAGEMENT_RESPONSE, itt).bhs[2]

    def ping(self, data: bytes = b"ping") -> bytes:
        """NOP-Out; the echoed data."""
        bhs = bytearray(48)
        bhs[0], bhs[1] = NOP_OUT | IMMEDIATE, 0x80
        itt = self.next_tag()
        struct.pack_into(">IIII", bhs, 16, itt, NO_TAG, self.cmd_sn, self.exp_stat_sn)
        self.send(bhs, data)
        return self.wait_for(NOP_IN, itt).data

    def text(self, keys: dict[str, str]) -> dict[str, str]:
        """A text request without continuation; keys that occur twice keep their last value."""
        bhs = bytearray(48)
        bhs[0], bhs[1] = TEXT, 0x80
        itt = self.next_tag()
        struct.pack_into(">IIII", bhs, 16, itt, NO_TAG, self.cmd_sn, self.exp_stat_sn)
        self.cmd_sn += 1
        self.send(bhs, b"".join(f"{key}={value}\0".encode() for key, value in keys.items()))
        answer = self.wait_for(TEXT_RESPONSE, itt).data
        return dict(item.split("=", 1) for item in answer.decode().split("\0") if "=" in item)

    def logout(self) -> int:
        bhs = bytearray(48)
        bhs[0], bhs[1] = LOGOUT | IMMEDIATE, 0x80
        itt = self.next_tag()
        struct.pack_into(">IIII", bhs, 16, itt, 0, self.cmd_sn, self.exp_stat_sn)
        self.send(bhs)
        return self.wait_for(LOGOUT_RESPONSE, itt).bhs[2]

    # commands

    def ready(self, lun: int = 0, tries: int = 8) -> Initiator:
        """TEST UNIT READY until the unit attentions are through."""
        for _ in range(tries):
            outcome = self.command(bytes(6), lun)
            if outcome.status == 0:
                return self
            assert outcome.sense_key == 6, outcome
        raise AssertionError(f"unit attention after unit attention: {outcome}")

    def read(self, lba: int, blocks: int, lun: int = 0, block_size: int = 512) -> Outcome:
        return self.command(struct.pack(">BBQIxx", 0x88, 0, lba, blocks), lun, read=blocks * block_size)

    def write(self, lba: int, data: bytes, lun: int = 0, block_size: int = 512, *, fua: bool = False) -> Outcome:
        return self.command(struct.pack(">BBQIxx", 0x8A, 8 if fua else 0, lba, len(data) // block_size), lun, write=data)

    def synchronize_cache(self, lun: int = 0) -> Outcome:
        return self.command(struct.pack(">BBQIxx", 0x91, 0, 0, 0), lun)

    def capacity(self, lun: int = 0) -> tuple[int, int]:
        """Blocks, and bytes of one."""
        outcome = self.command(struct.pack(">BBQIxx", 0x9E, 0x10, 0, 32), lun, read=32)
        assert outcome.status == 0, outcome
        last, size = struct.unpack(">QI", outcome.data[:12])
        return last + 1, size


def connect(url: object, **keys: object) -> Initiator:
    """A session with the target of a :class:`support.daemon.Url`, unit attentions cleared."""
    initiator = Initiator(url.host, url.port)  # type: ignore[attr-defined]
    try:
        initiator.login(url.target, **keys)  # type: ignore[attr-defined, arg-type]
        return initiator.ready(url.lun)  # type: ignore[attr-defined]
    except BaseException:
        initiator.close()
        raise


def close_all(initiators: Iterable[Initiator]) -> None:
    for initiator in initiators:
        initiator.close()
