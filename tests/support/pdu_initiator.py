"""An initiator for tests that speaks PDUs and nothing else: sessions of several connections, over any wire.

It keeps the numbers (CmdSN of the session, StatSN of each connection) and does what an initiator must: it answers pings and
acknowledges data when asked. Everything can be overridden, and nothing that arrives is lost.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio
from support import pdus
from support.pdus import (
    DATA_IN,
    FINAL,
    INQUIRY,
    LOGIN_RESPONSE,
    LUN_0,
    NO_TAG,
    NOP_IN,
    R2T,
    READ_CAPACITY,
    REJECT,
    SNACK_DATA_ACK,
    TEST_UNIT_READY,
    Pdu,
    Request,
    read10,
    serial_less,
    take_pdu,
    text_of,
    write10,
)

if TYPE_CHECKING:
    from support.pdu_wires import Target, Wire

INITIATOR = "iqn.2025-01.test.ffp:initiator"
KEYS = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "MaxConnections": "4",
    "InitialR2T": "Yes",
    "ImmediateData": "No",
    "MaxRecvDataSegmentLength": "65536",
    "MaxBurstLength": "65536",
    "FirstBurstLength": "16384",
    "DefaultTime2Wait": "0",
    "DefaultTime2Retain": "20",
    "MaxOutstandingR2T": "1",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "ErrorRecoveryLevel": "0",
}
"""What is negotiated unless a test says otherwise."""
CONNECTION_KEYS = ("HeaderDigest", "DataDigest", "MaxRecvDataSegmentLength")
"""What a connection that joins a session negotiates (clause 13)."""


class LoginRefused(Exception):
    """``status``: Status-Class and Status-Detail."""

    def __init__(self, status: int) -> None:
        super().__init__(f"login refused: {status:04x}")
        self.status = status


class Silence(Exception):
    """Nothing came in time."""


class Closed(Exception):
    """The target has closed the connection."""


@dataclass(eq=False)
class Session:
    """The initiator's end of one session.

    :param keys: of the login; see :data:`KEYS`. ``None`` leaves a key out.
    """

    target: Target
    keys: dict[str, str | None] = field(default_factory=dict)
    name: str = INITIATOR
    isid: bytes = field(default_factory=lambda: b"\x80" + os.urandom(5))
    discovery: bool = False
    target_name: str | None = None
    portal: int = 0
    tsih: int = 0
    cmd_sn: int = 1
    exp_cmd_sn: int = 1
    """The highest ExpCmdSN that any PDU brought."""
    max_cmd_sn: int = 0
    connections: list[Connection] = field(default_factory=list)
    agreed: dict[str, str] = field(default_factory=dict)
    tags: Any = field(default_factory=lambda: itertools.count(0x1001))

    @property
    def target_max_segment(self) -> int:
        """MaxRecvDataSegmentLength that the target declared."""
        return int(self.agreed.get("MaxRecvDataSegmentLength", "8192"))

    def number(self) -> int:
        """The next CmdSN, taken."""
        sn = self.cmd_sn
        self.cmd_sn = (sn + 1) & 0xFFFFFFFF
        return sn

    async def connect(self, cid: int | None = None, **keys: str | None) -> Connection:
        """Another connection, logged in; the first one makes the session."""
        connection = await self.open(len(self.connections) if cid is None else cid)
        await connection.login(**keys)
        return connection

    async def open(self, cid: int, portal: int | None = None) -> Connection:
        """A connection that has yet to log in."""
        wire = await self.target.connect(self.portal if portal is None else portal)
        return Connection(self, wire, cid)

    def learn(self, pdu: Pdu) -> None:
        if serial_less(self.exp_cmd_sn, pdu.exp_cmd_sn):
            self.exp_cmd_sn = pdu.exp_cmd_sn
        if serial_less(self.max_cmd_sn, pdu.max_cmd_sn):
            self.max_cmd_sn = pdu.max_cmd_sn

    async def leave(self) -> None:
        """Log out if anything of the session is left."""
        living = next((connection for connection in self.connections if not connection.ended), None)
        if living is not None:
            with suppress(Closed, AssertionError), anyio.move_on_after(2):
                await living.send(living.logout())
                await living.closed(1)
        for connection in self.connections:
            await connection.drop()


@dataclass(eq=False)
class Connection:
    """The initiator's end of one connection."""

    session: Session
    wire: Wire
    cid: int
    exp_stat_sn: int = 0
    acknowledging: bool = True
    """False: ExpStatSN stays where it is, as if nothing numbered had come since."""
    answering: bool = True
    """Pings of the target and A bits are answered."""
    header_digest: bool = False
    data_digest: bool = False
    buffer: bytearray = field(default_factory=bytearray)
    aside: deque[Pdu] = field(default_factory=deque)
    """What came while something else was awaited; comes first from :meth:`next`."""
    ended: bool = False
    acknowledged: int = 0

    # login

    def login_request(self, stage: int, following: int | None, text: dict[str, str] | bytes = b"", **fields: Any) -> Request:
        """``following`` None: T is 0. Fields: isid, tsih, itt, cid, cmd_sn."""
        session = self.session
        data = text if isinstance(text, bytes) else text_of(text)
        isid, tsih = fields.get("isid", session.isid), fields.get("tsih", session.tsih)
        itt, cmd_sn, cid = fields.get("itt", 1), fields.get("cmd_sn", session.cmd_sn), fields.get("cid", self.cid)
        return pdus.login_request(data, stage, following, itt, cmd_sn, self.exp_stat_sn, isid=isid, tsih=tsih, cid=cid)

    def identification(self) -> dict[str, str]:
        session = self.session
        names = {"InitiatorName": session.name, "SessionType": "Discovery" if session.discovery else "Normal"}
        if not session.discovery:
            names["TargetName"] = session.target_name or session.target.names[0]
        return {**names, "AuthMethod": "None"}

    async def login(self, **keys: str | None) -> None:
        """Both stages, without authentication. Raises :class:`LoginRefused`."""
        session = self.session
        leading = session.tsih == 0
        offered = {**KEYS, **session.keys, **keys}
        if session.discovery:
            offered = {key: KEYS[key] for key in CONNECTION_KEYS} | session.keys | keys
        elif not leading:
            offered = {key: value for key, value in offered.items() if key in CONNECTION_KEYS}
        answer = await self.login_exchange(self.login_request(0, 1, self.identification()))
        agreed = dict(answer.keys())
        more = {key: value for key, value in offered.items() if value is not None}
        while not answer.flags & FINAL or answer.flags & 3 != 3:
            answer = await self.login_exchange(self.login_request(1, 3, more))
            agreed |= dict(answer.keys())
            more = {}
        session.tsih = int.from_bytes(answer.bhs[14:16], "big")
        if leading:
            session.agreed = agreed
            for key in ("ErrorRecoveryLevel", "MaxConnections"):
                assert session.discovery or agreed[key] == offered[key], (
                    f"{key} {offered[key]} was asked for, not {agreed[key]}"
                )
            session.exp_cmd_sn, session.max_cmd_sn = answer.exp_cmd_sn, answer.max_cmd_sn
        self.header_digest = agreed.get("HeaderDigest") == "CRC32C"
        self.data_digest = agreed.get("DataDigest") == "CRC32C"
        session.connections.append(self)

    async def login_exchange(self, pdu: Request) -> Pdu:
        """One Login Request, its response. Raises :class:`LoginRefused` or :class:`Closed`."""
        await self.send(pdu)
        answer = await self.next()
        assert answer.opcode == LOGIN_RESPONSE, answer
        status = answer.word(36) >> 16
        if status:
            raise LoginRefused(status)
        self.exp_stat_sn = self.acknowledged = (answer.stat_sn + 1) & 0xFFFFFFFF
        return answer

    # building

    @property
    def status_number(self) -> int:
        """ExpStatSN as it is sent."""
        if self.acknowledging:
            self.acknowledged = self.exp_stat_sn
        return self.acknowledged

    def tag(self, itt: int | None = None) -> int:
        """This Initiator Task Tag, or a new one."""
        return next(self.session.tags) if itt is None else itt

    def sequence(self, immediate: bool, cmd_sn: int | None) -> int:
        """This CmdSN, or the next one, which an immediate request does not take."""
        if cmd_sn is not None:
            return cmd_sn
        return self.session.cmd_sn if immediate else self.session.number()

    def command(
        self,
        cdb: bytes,
        *,
        itt: int | None = None,
        read: int = 0,
        write: int = 0,
        data: bytes = b"",
        final: bool = True,
        immediate: bool = False,
        cmd_sn: int | None = None,
        lun: bytes = LUN_0,
    ) -> Request:
        """A SCSI Command; an immediate one takes no CmdSN."""
        tag, sn = self.tag(itt), self.sequence(immediate, cmd_sn)
        return pdus.scsi_command(
            cdb, tag, sn, self.status_number, read=read, write=write, data=data, final=final, immediate=immediate, lun=lun
        )

    def data_out(
        self, itt: int, ttt: int, offset: int, data: bytes, *, data_sn: int = 0, final: bool = True, lun: bytes = LUN_0
    ) -> Request:
        lun = lun if ttt != NO_TAG else LUN_0
        return pdus.data_out(itt, ttt, offset, data, exp_stat_sn=self.status_number, data_sn=data_sn, final=final, lun=lun)

    def burst(self, r2t: Pdu, data: bytes) -> list[Request]:
        """The Data-Out that one R2T asks for, out of the whole command's ``data``."""
        step = self.session.target_max_segment
        ends = range(r2t.offset, r2t.offset + r2t.length, step)
        last = r2t.offset + r2t.length
        return [
            self.data_out(r2t.itt, r2t.ttt, at, data[at : min(at + step, last)], data_sn=n, final=at + step >= last)
            for n, at in enumerate(ends)
        ]

    def nop_out(
        self, data: bytes = b"", *, itt: int | None = None, ttt: int = NO_TAG, immediate: bool = True, cmd_sn: int | None = None
    ) -> Request:
        tag, sn = self.tag(itt), self.sequence(immediate, cmd_sn)
        return pdus.nop_out(tag, sn, self.status_number, ttt=ttt, data=data, immediate=immediate)

    def task_management(
        self,
        function: int,
        *,
        referenced: int = NO_TAG,
        ref_cmd_sn: int = 0,
        exp_data_sn: int = 0,
        immediate: bool = True,
        cmd_sn: int | None = None,
        lun: bytes = LUN_0,
    ) -> Request:
        return pdus.task_management(
            function,
            self.tag(),
            self.sequence(immediate, cmd_sn),
            self.status_number,
            referenced=referenced,
            ref_cmd_sn=ref_cmd_sn,
            exp_data_sn=exp_data_sn,
            immediate=immediate,
            lun=lun,
        )

    def logout(self, reason: int = 0, cid: int = 0) -> Request:
        return pdus.logout(reason, self.tag(), self.session.cmd_sn, self.status_number, cid=cid)

    def snack(self, kind: int, begin: int, length: int, *, itt: int = NO_TAG, ttt: int = NO_TAG, lun: bytes = LUN_0) -> Request:
        """Type, BegRun, RunLength; see clause 11.16 for which tags a type wants."""
        return pdus.snack(kind, begin, length, self.status_number, itt=itt, ttt=ttt, lun=lun)

    def text(
        self,
        pairs: dict[str, str] | list[tuple[str, str]] | bytes = b"",
        *,
        itt: int | None = None,
        ttt: int = NO_TAG,
        final: bool = True,
        more: bool = False,
    ) -> Request:
        """``more``: the C bit. Bytes are sent as they are."""
        data = pairs if isinstance(pairs, bytes) else text_of(pairs)
        sn = self.session.number()
        return pdus.text_request(data, self.tag(itt), sn, self.status_number, ttt=ttt, final=final, more=more)

    # sending and receiving

    async def send(self, *pdus: Request) -> None:
        """In one piece."""
        digests = {"header_digest": self.header_digest, "data_digest": self.data_digest}
        await self.wire.send(b"".join(pdu.encode(**digests) for pdu in pdus))

    async def next(self, seconds: float | None = None) -> Pdu:
        """The next PDU. Raises :class:`Silence` or :class:`Closed`."""
        while True:
            pdu = self.aside.popleft() if self.aside else await self.arrival(seconds)
            if not (self.answering and pdu.target_ping):
                return pdu

    async def arrival(self, seconds: float | None = None) -> Pdu:
        """As :meth:`next`, of what has yet to be read; does what it asks for at once."""
        digests = {"header_digest": self.header_digest, "data_digest": self.data_digest}
        while (pdu := take_pdu(self.buffer, **digests)) is None:
            data = await self.wire.receive(self.session.target.patience if seconds is None else seconds)
            if data is None:
                raise Silence
            if not data:
                self.ended = True
                raise Closed
            self.buffer += data
        if pdu.opcode != LOGIN_RESPONSE:
            self.session.learn(pdu)
            if pdu.numbered and not serial_less(pdu.stat_sn, self.exp_stat_sn):
                self.exp_stat_sn = (pdu.stat_sn + 1) & 0xFFFFFFFF
            if self.answering and pdu.target_ping:
                await self.send(replace(self.nop_out(itt=NO_TAG, ttt=pdu.ttt), data=b""))
            if self.answering and pdu.opcode == DATA_IN and pdu.flags & 0x40 and not pdu.flags & 1:
                await self.send(self.snack(SNACK_DATA_ACK, pdu.data_sn + 1, 0, ttt=pdu.ttt, lun=pdu.lun))
        return pdu

    async def ask(self, *pdus: Request) -> Pdu:
        """Send; the next PDU."""
        await self.send(*pdus)
        return await self.next()

    async def expect(self, opcode: int, itt: int | None = None) -> Pdu:
        """The first PDU of this kind (and tag); others wait in ``aside``."""
        skipped: list[Pdu] = []
        try:
            while True:
                pdu = await self.next()
                if pdu.opcode == opcode and itt in (None, pdu.itt):
                    return pdu
                skipped.append(pdu)
        except Silence:
            raise AssertionError(f"no opcode {opcode:#x}, but {skipped}") from None
        finally:
            self.aside.extendleft(reversed(skipped))

    async def quiet(self, expecting: int = 0) -> list[Pdu]:
        """Everything that comes until nothing more does; for that many PDUs it waits longer."""
        found: list[Pdu] = []
        try:
            while True:
                found.append(await self.next(None if len(found) < expecting else self.session.target.silence))
        except (Silence, Closed):
            return found

    async def closed(self, seconds: float | None = None) -> list[Pdu]:
        """Everything that comes until the target closes the connection, which it must."""
        found: list[Pdu] = []
        try:
            while True:
                found.append(await self.next(seconds))
        except Closed:
            return found
        except Silence:
            raise AssertionError(f"the target did not close the connection, but sent {found}") from None

    async def is_open(self) -> bool:
        """Whether a ping comes back; what else comes waits in ``aside``."""
        ping = self.nop_out(b"open?")
        try:
            await self.send(ping)
            return (await self.expect(NOP_IN, ping.itt)).data == b"open?"
        except (Closed, OSError):
            return False

    async def drop(self) -> None:
        """Cut the connection without a word."""
        self.ended = True
        await self.wire.close()

    # whole commands

    async def finish(self, itt: int, data: bytes = b"") -> list[Pdu]:
        """All PDUs of a task until its status; R2Ts are served out of ``data``."""
        found: list[Pdu] = []
        others: list[Pdu] = []
        while not found or not found[-1].ends_command:
            try:
                pdu = await self.next()
            except Silence:
                raise AssertionError(f"no status for task {itt:#x}, but {found}, and for others {others}") from None
            if pdu.itt != itt:
                others.append(pdu)
                assert pdu.opcode != REJECT, f"{pdu} instead of a status for task {itt:#x}"
                continue
            found.append(pdu)
            assert len(found) < 4096, f"no end of PDUs for task {itt:#x}; the last one is {pdu}"
            if pdu.opcode == R2T:
                await self.send(*self.burst(pdu, data))
        self.aside.extend(others)
        return found

    async def execute(self, cdb: bytes, **how: Any) -> list[Pdu]:
        """A command without Data-Out, from beginning to end."""
        command = self.command(cdb, **how)
        await self.send(command)
        return await self.finish(command.itt)

    async def read(self, lba: int = 0, blocks: int = 4, **how: Any) -> list[Pdu]:
        return await self.execute(read10(lba, blocks), read=blocks * 512, **how)

    async def contents(self, lba: int = 0, blocks: int = 4) -> bytes:
        """What a READ returns."""
        return b"".join(pdu.data for pdu in await self.read(lba, blocks) if pdu.opcode == DATA_IN)

    async def start_write(self, length: int = 1024, lba: int = 0, **how: Any) -> tuple[Request, Pdu]:
        """A WRITE without data, and its first R2T."""
        command = self.command(write10(lba, length // 512), write=length, **how)
        await self.send(command)
        return command, await self.expect(R2T, command.itt)

    async def write(self, data: bytes, lba: int = 0, **how: Any) -> list[Pdu]:
        """A WRITE whose data is solicited, from beginning to end."""
        command = self.command(write10(lba, len(data) // 512), write=len(data), **how)
        await self.send(command)
        return await self.finish(command.itt, data)

    async def settle(self) -> list[Pdu]:
        """INQUIRY, TEST UNIT READY (until GOOD) and READ CAPACITY, as the suite's procedures begin; everything that came."""
        sent = await self.execute(INQUIRY, read=96)
        for _ in range(8):
            sent += await self.execute(TEST_UNIT_READY)
            if sent[-1].status == 0:
                break
        sent += await self.execute(READ_CAPACITY, read=8)
        assert sent[-1].status == 0, sent
        return sent
