"""A small blocking iSCSI initiator for tests (RFC 7143), written apart from the target's code so that the two can disagree.

It does one thing at a time and hides nothing: any PDU can be sent, any PDU that arrives can be looked at.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from support.pdus import (
    DATA_IN,
    LOGIN_RESPONSE,
    LOGOUT_RESPONSE,
    NO_TAG,
    NOP_IN,
    R2T,
    SCSI_RESPONSE,
    TASK_MANAGEMENT_RESPONSE,
    TEXT_RESPONSE,
    Pdu,
    Request,
    data_out,
    extended_cdb,
    keys_of,
    login_request,
    logout,
    lun_field,
    nop_out,
    scsi_command,
    sense_codes,
    take_pdu,
    task_management,
    text_of,
    text_request,
)

from tcm.scsi import cdb as cdbs

INITIATOR = "iqn.2025-01.test.raw:initiator"


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
        return sense_codes(self.sense)[0]

    @property
    def asc(self) -> tuple[int, int]:
        """ASC and ASCQ."""
        return sense_codes(self.sense)[1:]


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
    timeout: float = 30
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
        request = Request(bytes(bhs), data, ahs)
        return request.encode(header_digest=self.header_digest, data_digest=self.data_digest)

    def send_request(self, request: Request) -> None:
        self.send(request.bhs, request.data, request.ahs)

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
        length = int.from_bytes(bhs[5:8], "big")
        digests = 4 * self.header_digest + 4 * (self.data_digest and bool(length))
        whole = bytearray(bhs + self.read_exactly(bhs[4] * 4 + length + -length % 4 + digests))
        pdu = take_pdu(whole, header_digest=self.header_digest, data_digest=self.data_digest)
        assert pdu is not None
        assert not whole
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
        self.send_request(nop_out(NO_TAG, self.cmd_sn, self.exp_stat_sn, ttt=pdu.ttt, data=pdu.data, lun=pdu.lun))

    def next_tag(self) -> int:
        self.tag += 1
        return self.tag

    # login

    def login_pdu(self, keys: dict[str, str], stages: tuple[int, int], transit: bool = True) -> tuple[bytearray, bytes]:
        """Header and text of a Login Request."""
        following = stages[1] if transit else None
        made = login_request(
            text_of(keys), stages[0], following, self.tag, self.cmd_sn, self.exp_stat_sn, isid=self.isid, tsih=self.tsih
        )
        return bytearray(made.bhs), made.data

    def login_step(self, keys: dict[str, str], stages: tuple[int, int], transit: bool = True) -> dict[str, str]:
        """One login request and its answer; keys of the answer are also kept in ``self.keys``."""
        self.send(*self.login_pdu(keys, stages, transit))
        pdu = self.receive()
        assert pdu.opcode == LOGIN_RESPONSE, f"opcode {pdu.opcode:#x} in answer to a login request"
        if pdu.bhs[36] != 0:
            raise LoginFailed(pdu.bhs[36], pdu.bhs[37])
        self.tsih = int.from_bytes(pdu.bhs[14:16], "big")
        answer = keys_of(pdu.data)
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
        made = scsi_command(
            cdb,
            self.next_tag(),
            self.cmd_sn,
            self.exp_stat_sn,
            read=read,
            write=write,
            final=final,
            attribute=attribute,
            lun=lun_field(lun),
        )
        self.cmd_sn = (self.cmd_sn + 1) & 0xFFFFFFFF
        return bytearray(made.bhs)

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
                self.data_out(tag, pdu.ttt, pdu.offset, pdu.length, write, lun)
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
            how = {"exp_stat_sn": self.exp_stat_sn, "data_sn": datasn, "final": not length, "lun": lun_field(lun)}
            self.send_request(data_out(tag, ttt, offset, part, **how))
            offset, datasn = offset + len(part), datasn + 1

    def command(self, cdb: bytes, lun: int = 0, *, read: int = 0, write: bytes = b"") -> Outcome:
        return self.finish(self.start(cdb, lun, read=read, write=write), write, lun)

    def task_management(self, function: int, lun: int = 0, tag: int = NO_TAG, ref_cmd_sn: int = 0) -> int:
        """The response code."""
        itt = self.next_tag()
        how = {"referenced": tag, "ref_cmd_sn": ref_cmd_sn, "lun": lun_field(lun)}
        self.send_request(task_management(function, itt, self.cmd_sn, self.exp_stat_sn, **how))
        return self.wait_for(TASK_MANAGEMENT_RESPONSE, itt).response

    def ping(self, data: bytes = b"ping") -> bytes:
        """NOP-Out; the echoed data."""
        itt = self.next_tag()
        self.send_request(nop_out(itt, self.cmd_sn, self.exp_stat_sn, data=data))
        return self.wait_for(NOP_IN, itt).data

    def text(self, keys: dict[str, str]) -> dict[str, str]:
        """A text request without continuation; keys that occur twice keep their last value."""
        itt = self.next_tag()
        made = text_request(text_of(keys), itt, self.cmd_sn, self.exp_stat_sn)
        self.cmd_sn += 1
        self.send_request(made)
        return keys_of(self.wait_for(TEXT_RESPONSE, itt).data)

    def logout(self) -> int:
        itt = self.next_tag()
        self.send_request(logout(0, itt, self.cmd_sn, self.exp_stat_sn))
        return self.wait_for(LOGOUT_RESPONSE, itt).response

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
        return self.command(cdbs.read_16(lba, blocks), lun, read=blocks * block_size)

    def write(self, lba: int, data: bytes, lun: int = 0, block_size: int = 512, *, fua: bool = False) -> Outcome:
        return self.command(cdbs.write_16(lba, len(data) // block_size, fua=fua), lun, write=data)

    def synchronize_cache(self, lun: int = 0) -> Outcome:
        return self.command(cdbs.synchronize_cache(16), lun)

    def capacity(self, lun: int = 0) -> tuple[int, int]:
        """Blocks, and bytes of one."""
        outcome = self.command(cdbs.read_capacity16(), lun, read=32)
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
