"""An FCP initiator on a real N_Port, and a target that is the test itself: its frames are made with scapy's packet classes."""

from __future__ import annotations

from collections import deque
from typing import Any

from scapy.packet import Packet
from tcm_fcoe.initiator.fcp_initiator import FcpInitiator
from tcm_fcoe.initiator.nexus import TargetNexus
from tcm_fcoe.initiator.options import Options
from tcm_fcoe.initiator.tasks import FcpTask
from tcm_fcoe.protocol import link_service_layers as services
from tcm_fcoe.protocol.counters import Counters
from tcm_fcoe.protocol.fcoe import decapsulate
from tcm_fcoe.protocol.frame import Frame
from tcm_fcoe.protocol.layers import FC, FCoE, FcpData, FcpRsp, FcpXferRdy
from tcm_fcoe.protocol.n_port import NPort

OURS, THEIRS = 0x009700, 0x00FC00
NAME, THEIR_NAME = bytes.fromhex("200052540000f597"), bytes.fromhex("20005254002ffc00")
TARGET_PARAMETERS = 0x592
"""Target, read FCP_XFER_RDY disabled, confirmed completion, RETRY, REC."""
ETHERNET = 14


class Line:
    """The station of one N_Port, whose frames the test takes."""

    def __init__(self) -> None:
        self.outbox: deque[bytes] = deque()
        self.rooms = None
        self.counters = Counters()

    def prefix(self, port: NPort, d_id: int) -> bytes | None:
        return b"\x0e\xfd\x00" + d_id.to_bytes(3, "big") + b"\x0e\xfd\x00" + port.fc_id.to_bytes(3, "big") + b"\x89\x06"

    def port_name_of(self, fc_id: int) -> bytes | None:
        return None

    def send_link_service(self, port: NPort, header: bytes, payload: bytes, now: float) -> bool:
        return False


class ByHand:
    """Logged in, with a clock that is set."""

    def __init__(self, options: Options | None = None, *, parameters: int = TARGET_PARAMETERS, max_frame: int = 2112) -> None:
        self.now = 1000.0
        self.line = Line()
        self.port = NPort(NAME, b"\x10" + NAME[1:])
        self.fcp = FcpInitiator(self.port, options)
        self.port.fc4 = self.fcp
        self.port.attach(self.line)
        self.port.up(OURS, fabric=False, now=self.now)
        self.max_frame = max_frame
        self.login(parameters)

    def login(self, parameters: int) -> None:
        class3 = services.ClassParameters(
            options=0x8800, receive_size=self.max_frame, concurrent_sequences=255, open_sequences=1
        )
        names = {"port_name": int.from_bytes(THEIR_NAME, "big"), "node_name": 0x10005254002FFC00}
        self.send(
            services.Plogi(**names, class3=class3, receive_size=self.max_frame), r_ctl=0x22, type=1, f_ctl=0x290000, ox_id=1
        )
        self.wait(0)
        accept, prli = self.take()
        assert accept.r_ctl == 0x23
        assert prli.payload[0] == 0x20
        page = services.ProcessPage(response=1, parameters=parameters)
        self.answer(prli, services.ProcessAccept(pages=[page]))

    @property
    def nexus(self) -> TargetNexus:
        return self.fcp.nexuses[THEIRS]

    # time

    def wait(self, seconds: float) -> None:
        """It passes, in small steps."""
        end = self.now + seconds
        while True:
            self.now = min(end, self.now + 0.05)
            self.fcp.handle_timer(self.now)
            self.port.timers.run(self.now)
            if self.now >= end:
                return

    # frames from the initiator

    def take(self) -> list[Frame]:
        """All that it has sent, and sends once the link has taken that."""
        frames = []
        while self.line.outbox:
            sof, fc, eof = decapsulate(memoryview(self.line.outbox.popleft())[ETHERNET:])
            frames.append(Frame.unpack(fc, sof, eof))
            if not self.line.outbox:
                self.fcp.resume(self.now)
        return frames

    def take_one(self) -> Frame:
        (frame,) = self.take()
        return frame

    # and to it

    def send(self, body: Packet | None, **header: Any) -> None:
        packet = FCoE() / FC(d_id=OURS, s_id=THEIRS, **header)
        sof, fc, eof = decapsulate(memoryview(bytes(packet / body if body is not None else packet)))
        self.port.receive(Frame.unpack(fc, sof, eof), self.now)

    def answer(self, request: Frame, body: Packet) -> None:
        """The reply to a link service."""
        self.send(body, r_ctl=request.r_ctl + 1, type=request.type, f_ctl=0x980000, ox_id=request.ox_id, rx_id=0)

    def data(self, command: Frame, offset: int, data: bytes, *, last: bool = False, **more: Any) -> None:
        header = {"r_ctl": 1, "f_ctl": 0x880008 if last else 0x800008, "ox_id": command.ox_id, "rx_id": 7, "parameter": offset}
        self.send(FcpData(data=data), **(header | more))

    def ready(self, command: Frame, offset: int, length: int, *, seq_id: int = 1, **more: Any) -> None:
        header = {"r_ctl": 5, "f_ctl": 0x890000, "ox_id": command.ox_id, "rx_id": 7, "seq_id": seq_id}
        self.send(FcpXferRdy(offset=offset, burst_length=length), **(header | more))

    def respond(self, command: Frame, *, rx_id: int = 7, **fields: Any) -> None:
        f_ctl = 0x890000 if "conf_req" in fields.get("flags", "") else 0x980000
        self.send(FcpRsp(**fields), r_ctl=7, f_ctl=f_ctl, ox_id=command.ox_id, rx_id=rx_id)

    # commands

    def start(self, cdb: bytes = bytes(6), lun: int = 0, **fields: Any) -> FcpTask:
        task = FcpTask(cdb, lun, **fields)
        self.fcp.submit(self.nexus, task, self.now)
        return task
