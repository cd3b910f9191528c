"""The FCP target of one N_Port in memory, frames in and frames out, over the real core: no N_Port, no link."""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anyio
from support.scsi import make_lu
from tcm_fcoe.port import Port
from tcm_fcoe.protocol import mode_pages
from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, SOF_I3, SOF_N3, decapsulate
from tcm_fcoe.protocol.fcp import Command, InformationUnit, Response, ServiceParameters, TransferReady
from tcm_fcoe.protocol.fcp_nexus import FcpNexus
from tcm_fcoe.protocol.fcp_target import RETAIN_SECONDS, FcpTarget
from tcm_fcoe.protocol.frame import Frame, pack_header

from tcm.backstore import Backstore, BlockingBackstore
from tcm.fabric import ProtocolModePages
from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.transport_id import TransportId
from tcm.target.device import TargetDevice
from tcm.target.initiator_port import InitiatorPort
from tcm.target.portal_group import NexusRefused, TargetPortalGroup

TARGET_ID, INITIATOR_ID = 0x00FC00, 0x009700
LUN_0 = bytes(8)
FLAGS = ServiceParameters
INITIATOR = int(FLAGS.INITIATOR_FUNCTION | FLAGS.READ_FCP_XFER_RDY_DISABLED)
LINUX = 0x1A2
"""What libfc says in PRLI: RETRY, confirmed completion, initiator."""
MAX_FRAME = 2112
ETHERNET = 14


def remote_port(fc_id: int = INITIATOR_ID, max_frame: int = MAX_FRAME) -> Any:
    prefix = b"\x0e\xfd\x00" + fc_id.to_bytes(3) + b"\x0e\xfd\x00" + TARGET_ID.to_bytes(3) + b"\x89\x06"
    return SimpleNamespace(
        fc_id=fc_id,
        prefix=prefix,
        max_frame=max_frame,
        port_name=b"\x20\x00" + fc_id.to_bytes(6),
        node_name=b"\x10" + bytes(7),
        e_d_tov=0.0,
    )


def unpack(ethernet: bytes) -> Frame:
    sof, fc, eof = decapsulate(memoryview(ethernet)[ETHERNET:])
    return Frame.unpack(fc, sof, eof)


def read10(lba: int, blocks: int, bits: int = 0) -> bytes:
    return struct.pack(">BBIBHB", 0x28, bits, lba, 0, blocks, 0)


def write10(lba: int, blocks: int, bits: int = 0) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, bits, lba, 0, blocks, 0)


def write16(lba: int, blocks: int, bits: int = 0) -> bytes:
    return struct.pack(">BBQIBB", 0x8A, bits, lba, blocks, 0, 0)


DPO = 0x10
"""Sends a READ or WRITE the general way."""
TEST_UNIT_READY = bytes(6)


class FcpSite:
    """A target port with logical units. It is the services of the FCP target, too."""

    def __init__(self, group: TargetPortalGroup, **options: Any) -> None:
        self.group = group
        self.outbox: deque[bytes] = deque()
        self.n_port: Any = SimpleNamespace(fc_id=TARGET_ID, outbox=self.outbox, rooms=None, e_d_tov=2.0, r_a_tov=10.0)
        self.target = FcpTarget(self.n_port, self, **options)
        pages = mode_pages.defaults(self.target.burst_sizes.maximum, RETAIN_SECONDS)
        group.protocol_mode_pages = ProtocolModePages(mode_pages.PAGES, pages)
        self.woken = 0
        self.endings: list[str] = []
        self.now = 100.0

    def establish(self, remote: Any, nexus: FcpNexus) -> Port | None:
        name = f"naa.{remote.port_name.hex()}"
        transport_id = TransportId(ProtocolIdentifier.FCP, remote.port_name.hex()).pack()
        port = Port(self.group)
        try:
            port.nexus = self.group.establish_nexus(InitiatorPort(name, None, transport_id), nexus)
        except NexusRefused:
            return None
        return port

    def ended(self, nexus: FcpNexus, reason: str) -> None:
        self.endings.append(reason)

    def wake(self) -> None:
        self.woken += 1

    def send_away(self, nexus: FcpNexus, now: float) -> None:
        self.target.end(nexus.d_id, "sent away")

    def look_after(self, now: float) -> bool:
        return False

    def login(self, fc_id: int = INITIATOR_ID, parameters: int = INITIATOR, max_frame: int = MAX_FRAME) -> FcpInitiator:
        remote = remote_port(fc_id, max_frame)
        assert self.target.process_login(remote, parameters, self.now)
        return FcpInitiator(self, remote)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.target.handle_timer(self.now)

    def drain(self) -> list[Frame]:
        """The link takes all there is, as often as there is more."""
        frames = []
        while self.outbox:
            frames.append(unpack(self.outbox.popleft()))
            if not self.outbox:
                self.target.resume(self.now)
        self.target.resume(self.now)
        assert not self.outbox
        return frames


class FcpInitiator:
    """What one initiator sends, and what comes for it."""

    def __init__(self, site: FcpSite, remote: Any) -> None:
        self.site = site
        self.remote = remote
        self._ox_ids = itertools.count(1)

    @property
    def nexus(self) -> FcpNexus:
        return self.site.target.nexuses[self.remote.fc_id]

    # frames

    def send(self, r_ctl: int, payload: bytes, ox_id: int, **fields: Any) -> None:
        frame = Frame.unpack(memoryview(self.header(r_ctl, ox_id, **fields) + payload), *self.delimiters(**fields))
        self.site.target.receive(self.remote, frame, self.site.now)

    def header(
        self, r_ctl: int, ox_id: int, *, rx_id: int = 0xFFFF, f_ctl: int = 0x290000, seq_id: int = 0, seq_cnt: int = 0,
        offset: int = 0, first: bool = True, last: bool = True,
    ) -> bytes:  # fmt: skip
        del first, last
        return pack_header(r_ctl, TARGET_ID, self.remote.fc_id, 8, f_ctl, seq_id, 0, seq_cnt, ox_id, rx_id, offset)

    @staticmethod
    def delimiters(*, first: bool = True, last: bool = True, **_: Any) -> tuple[int, int]:
        return SOF_I3 if first else SOF_N3, EOF_T if last else EOF_N

    def command(
        self, cdb: bytes, *, read: int | None = None, write: int | None = None, ox_id: int | None = None, lun: bytes = LUN_0,
        **fields: Any,
    ) -> int:  # fmt: skip
        """FCP_CMND. Returns its OX_ID."""
        ox_id = next(self._ox_ids) if ox_id is None else ox_id
        command = Command(
            lun=lun,
            cdb=cdb.ljust(16, b"\0"),
            read_data=read is not None,
            write_data=write is not None,
            data_length=read or write or 0,
            **fields,
        )
        self.send(InformationUnit.FCP_CMND, command.pack(), ox_id)
        return ox_id

    def data(
        self, ox_id: int, rx_id: int, data: bytes, offset: int = 0, *, size: int = 2048, order: list[int] | None = None,
        keep: set[int] | None = None, seq_id: int = 1, first_count: int = 0,
    ) -> None:  # fmt: skip
        """FCP_DATA of one sequence. ``order`` and ``keep`` are of frames, by number; ``first_count`` is the first SEQ_CNT."""
        starts = list(range(0, len(data), size)) or [0]
        for number in order or range(len(starts)):
            if keep is not None and number not in keep:
                continue
            start, last = starts[number], number == len(starts) - 1
            piece = data[start : start + size]
            self.send(
                InformationUnit.FCP_DATA,
                piece + bytes(-len(piece) & 3),
                ox_id,
                rx_id=rx_id,
                f_ctl=(0x090008 if last else 0x000008) | -len(piece) & 3,
                seq_id=seq_id,
                seq_cnt=first_count + number & 0xFFFF,
                offset=offset + start,
                first=number == 0,
                last=last,
            )

    def received(self) -> list[Frame]:
        return [frame for frame in self.site.drain() if frame.d_id == self.remote.fc_id]

    @property
    def good(self) -> Response:
        """GOOD, without a residual, to anything but a READ."""
        return Response(confirm=self.nexus.retries and self.nexus.confirms)

    # whole commands

    def outcome(self, ox_id: int) -> tuple[Response, bytes]:
        """FCP_RSP and Data-In of one command; nothing else has come."""
        return outcome(self.received(), ox_id)

    def ready(self, lun: bytes = LUN_0) -> FcpInitiator:
        """Takes the unit attention."""
        response, _ = self.outcome(self.command(TEST_UNIT_READY, lun=lun))
        assert response.status == 2
        assert response.sense[2] == 6
        return self

    def read(self, lba: int, blocks: int, bits: int = 0) -> bytes:
        response, data = self.outcome(self.command(read10(lba, blocks, bits), read=blocks * 512))
        assert response == Response()
        return data

    def write(self, lba: int, data: bytes, bits: int = 0) -> None:
        """With FCP_DATA as FCP_XFER_RDY asks for it."""
        ox_id = self.command(write10(lba, len(data) // 512, bits), write=len(data))
        assert self.give(ox_id, data) == self.good

    def give(self, ox_id: int, data: bytes) -> Response:
        """All FCP_DATA that is asked for; the FCP_RSP in the end."""
        while True:
            (frame,) = self.received()
            assert frame.ox_id == ox_id
            if frame.r_ctl == InformationUnit.FCP_RSP:
                return Response.unpack(frame.payload)
            assert (frame.r_ctl, frame.f_ctl) == (InformationUnit.FCP_XFER_RDY, 0x890000)
            ready = TransferReady.unpack(frame.payload)
            burst = data[ready.data_offset : ready.data_offset + ready.burst_length]
            self.data(ox_id, frame.rx_id, burst, ready.data_offset, seq_id=frame.seq_id)

    async def response(self, ox_id: int) -> tuple[Response, bytes]:
        """The same as :meth:`outcome`, for a command that takes its time."""
        frames: list[Frame] = []
        with anyio.fail_after(60):
            while not any(frame.r_ctl == InformationUnit.FCP_RSP and frame.ox_id == ox_id for frame in frames):
                await anyio.sleep(0.001)
                frames += self.received()
        return outcome([frame for frame in frames if frame.ox_id == ox_id], ox_id)


def outcome(frames: list[Frame], ox_id: int) -> tuple[Response, bytes]:
    """What the frames of one exchange say, in order: FCP_DATA, a sequence for each burst, then FCP_RSP."""
    *data, last = frames
    assert {frame.ox_id for frame in frames} == {ox_id}
    assert {frame.rx_id for frame in frames} == {last.rx_id}
    offset = data[0].parameter if data else 0
    number = 0
    for index, frame in enumerate(data):
        follows = index and frame.seq_id == data[index - 1].seq_id
        number = number + 1 if follows else 0
        ends = index == len(data) - 1 or data[index + 1].seq_id != frame.seq_id
        assert (frame.r_ctl, frame.type, frame.seq_cnt, frame.parameter) == (InformationUnit.FCP_DATA, 8, number, offset)
        assert frame.f_ctl & ~3 == (0x880008 if ends else 0x800008)
        assert (frame.sof, frame.eof) == (SOF_N3 if number else SOF_I3, EOF_T if ends else EOF_N)
        offset += len(frame.payload)
    assert last.r_ctl == InformationUnit.FCP_RSP
    response = Response.unpack(last.payload)
    assert last.f_ctl & ~3 == (0x890000 if response.confirm else 0x980000)
    assert (last.sof, last.eof, last.seq_cnt) == (SOF_I3, EOF_T, 0)
    assert last.seq_id not in {frame.seq_id for frame in data}
    return response, b"".join(bytes(frame.payload) for frame in data)


@asynccontextmanager
async def fcp_site(*backstores: Backstore | BlockingBackstore | None, **options: Any) -> AsyncIterator[FcpSite]:
    """A target port with a logical unit for each backstore (None: a 2 MiB ramdisk); one, unless told otherwise."""
    device = TargetDevice("20:00:52:54:00:2f:fc:00", "fcoe")
    group = device.add_portal_group(1)
    group.access = replace(group.access, generate_node_acls=True, demo_mode_write_protect=False)
    async with AsyncExitStack() as stack:
        for number, backstore in enumerate(backstores or (None,)):
            serial = f"{number:08x}-2222-3333-4444-555555555555"
            group.add_lun(number, await stack.enter_async_context(make_lu(backstore, name=f"disk{number}", serial=serial)))
        site = FcpSite(group, **options)
        try:
            yield site
        finally:
            for fc_id in list(site.target.nexuses):
                site.target.end(fc_id)


@asynccontextmanager
async def fcp_initiator(
    *backstores: Backstore | BlockingBackstore | None, parameters: int = INITIATOR, **options: Any
) -> AsyncIterator[FcpInitiator]:
    """One initiator, its unit attention out of the way."""
    async with fcp_site(*backstores, **options) as site:
        yield site.login(parameters=parameters).ready()
