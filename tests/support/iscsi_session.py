"""A full feature phase connection over a real target, without a socket: PDUs in, PDUs out."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from support.pdus import LUN_0, NO_TAG, Pdu, Request, data_out, logout, nop_out, scsi_command, snack, take_pdu, task_management
from support.scsi import make_lu
from tcm_iscsi.attributes import AclAttributes
from tcm_iscsi.port import Port
from tcm_iscsi.protocol.arena import DataInArena
from tcm_iscsi.protocol.faults import Faults
from tcm_iscsi.protocol.full_feature import FullFeaturePhase
from tcm_iscsi.protocol.parameters import ConnectionParameters, SessionParameters
from tcm_iscsi.protocol.session import Session, SessionIdentity
from tcm_iscsi.sessions import Registry

from tcm.target.device import TargetDevice
from tcm.target.initiator_port import InitiatorPort


@dataclass
class Initiator:
    """Builds requests, feeds them to the target's end, parses what comes back."""

    phase: FullFeaturePhase
    cmd_sn: int = 1
    received: list[Pdu] = field(default_factory=list)

    def pdu(self, bhs: bytes, data: bytes = b"") -> bytes:
        """On the wire: digests and padding as negotiated."""
        return self.encode(Request(bhs, data))

    def encode(self, request: Request) -> bytes:
        return request.encode(header_digest=self.phase.header_digest, data_digest=self.phase.data_digest)

    def next_cmd_sn(self) -> int:
        sn = self.cmd_sn
        self.cmd_sn = (sn + 1) & 0xFFFFFFFF
        return sn

    def command(
        self,
        cdb: bytes,
        *,
        itt: int = 1,
        read: int = 0,
        write: int = 0,
        data: bytes = b"",
        final: bool = True,
        immediate: bool = False,
        cmd_sn: int | None = None,
        lun: bytes = LUN_0,
        attribute: int = 1,
    ) -> bytes:
        sn = (self.cmd_sn if immediate else self.next_cmd_sn()) if cmd_sn is None else cmd_sn
        how: dict[str, Any] = {"final": final, "immediate": immediate, "attribute": attribute, "lun": lun}
        return self.encode(scsi_command(cdb, itt, sn, 0, read=read, write=write, data=data, **how))

    def data_out(
        self, itt: int, ttt: int, offset: int, data: bytes, *, data_sn: int = 0, final: bool = True, lun: bytes = LUN_0
    ) -> bytes:
        return self.encode(data_out(itt, ttt, offset, data, data_sn=data_sn, final=final, lun=lun))

    def nop_out(self, itt: int, ttt: int = NO_TAG, data: bytes = b"", *, immediate: bool = True, ack: int = 0) -> bytes:
        """NOP-Out; ``ack`` is its ExpStatSN."""
        sn = self.cmd_sn if immediate else self.next_cmd_sn()
        return self.encode(nop_out(itt, sn, ack, ttt=ttt, data=data, immediate=immediate))

    def acknowledge(self, stat_sn: int) -> list[Pdu]:
        """Everything before ``stat_sn`` has arrived."""
        return self.feed(self.nop_out(NO_TAG, ack=stat_sn))

    def task_management(
        self,
        function: int,
        *,
        itt: int = 100,
        referenced: int = NO_TAG,
        ref_cmd_sn: int = 0,
        exp_data_sn: int = 0,
        lun: bytes = LUN_0,
    ) -> bytes:
        how = {"referenced": referenced, "ref_cmd_sn": ref_cmd_sn, "exp_data_sn": exp_data_sn}
        return self.encode(task_management(function, itt, self.cmd_sn, 0, lun=lun, **how))

    def logout(self, reason: int = 0, cid: int = 0, itt: int = 101) -> bytes:
        return self.encode(logout(reason, itt, self.cmd_sn, 0, cid=cid))

    def feed(self, *pdus: bytes, chunk: int | None = None) -> list[Pdu]:
        """Hand bytes to the target, in chunks if asked; returns the PDUs that it answered at once."""
        stream = b"".join(pdus)
        step = chunk or max(len(stream), 1)
        rest = b""
        for at in range(0, len(stream), step):
            piece = stream[at : at + step]
            phase = self.phase
            if phase.payload is not None:
                room = phase.payload[phase.payload_filled :]
                count = min(len(room), len(piece))
                room[:count] = piece[:count]
                phase.payload_received(count)
                piece = piece[count:]
            buf = bytearray(rest + piece)
            off, before = 0, -1
            while off != before:
                before = off
                off = phase.process(buf, memoryview(buf), off, len(buf))
                self.collect()
                if phase.closing:
                    break
            rest = bytes(buf[off:])
        found, self.received = self.received, []
        return found

    def snack(self, kind: int, first: int = 0, count: int = 0, *, itt: int = NO_TAG, tag: int = NO_TAG, ack: int = 0) -> bytes:
        """SNACK Request; ``ack`` is its ExpStatSN."""
        return self.encode(snack(kind, first, count, ack, itt=itt, ttt=tag))

    def join(self, cid: int, **values: Any) -> Initiator:
        """Another connection of the same session."""
        phase = FullFeaturePhase(
            self.phase.session,
            cid,
            ConnectionParameters(
                **{"initiator_max_recv_data_segment_length": 65536, "max_recv_data_segment_length": 65536, **values}
            ),
            stat_sn=1,
            arena=self.phase.arena,
            text=NoText(),  # type: ignore[arg-type]
            wake=lambda: None,
            now=0.0,
        )
        return Initiator(phase, cmd_sn=self.cmd_sn)

    def fail(self) -> None:
        """The connection breaks."""
        self.phase.close()
        self.phase.session.connection_failed(self.phase)

    def collect(self) -> None:
        """Parse what the target wants to send."""
        phase = self.phase
        stream = bytearray().join(phase.out)
        phase.out.clear()
        phase.out_size = 0
        phase.arena.free = 0
        digests = {"header_digest": phase.header_digest, "data_digest": phase.data_digest}
        while (pdu := take_pdu(stream, **digests)) is not None:
            self.received.append(pdu)
        assert not stream

    def answers(self) -> list[Pdu]:
        """What has come since, outside of :meth:`feed`."""
        self.collect()
        self.phase.resume()
        self.collect()
        found, self.received = self.received, []
        return found


class NoText:
    """No text negotiation in these tests."""

    def request(self, *_: Any) -> Any:
        raise AssertionError("no Text Request is expected")


@asynccontextmanager
async def connected(
    backstore: Any = None,
    *,
    header_digest: bool = False,
    data_digest: bool = False,
    initiator_max_recv_data_segment_length: int = 65536,
    max_recv_data_segment_length: int = 65536,
    depth: int = 16,
    level: int = 1,
    session: dict[str, Any] | None = None,
    faults: dict[str, bool] | None = None,
    settled: bool = True,
    **attributes: Any,
) -> AsyncIterator[Initiator]:
    """An initiator logged in to a target with one logical unit; its first unit attention is out of the way if ``settled``."""
    async with make_lu(backstore, **attributes) as unit:
        device = TargetDevice("iqn.2003-01.org.example:t", "iscsi")
        group = device.add_portal_group(1)
        group.enabled = True
        group.access = type(group.access)(generate_node_acls=True, demo_mode_write_protect=False)
        group.add_lun(0, unit)
        port = Port(group, Registry([device]))
        port.level = level
        identity = SessionIdentity("iqn.2003-01.org.example:i", b"\x80\0\0\0\0\1", 1, device.name, 1)
        values = SessionParameters(
            **{"initial_r2t": False, "max_burst_length": 65536, "first_burst_length": 16384, **(session or {})}
        )
        made = Session(identity, values, port, exp_cmd_sn=1, depth=depth)
        made.faults = Faults.chosen(values, AclAttributes(**(faults or {})), random.Random(7).shuffle)
        port.nexus = group.establish_nexus(InitiatorPort(identity.initiator_name, identity.isid, b"", "test"), made)
        phase = FullFeaturePhase(
            made,
            0,
            ConnectionParameters(
                header_digest=header_digest,
                data_digest=data_digest,
                max_recv_data_segment_length=max_recv_data_segment_length,
                initiator_max_recv_data_segment_length=initiator_max_recv_data_segment_length,
            ),
            stat_sn=1,
            arena=DataInArena(1 << 20),
            text=NoText(),  # type: ignore[arg-type]
            wake=lambda: None,
            now=0.0,
        )
        initiator = Initiator(phase)
        if settled:
            initiator.feed(initiator.command(bytes(6), itt=0xFFFF))
        try:
            yield initiator
        finally:
            port.nexus.lose()
