"""One N_Port at a line of its own: frames go in by their bytes and come out by them, and logins in a call."""

from __future__ import annotations

from collections import deque

from support.fcoe_stations import INITIATOR, TARGET, NotingFc4
from tcm_fcoe.protocol.counters import Counters
from tcm_fcoe.protocol.els import Reject
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.els_login import CLASS_VALID, ClassParameters, Login, PrliResponse, ProcessLogin, ServicePage
from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3, decapsulate, encapsulate
from tcm_fcoe.protocol.frame import F_CTL_REPLY, F_CTL_REQUEST, NO_EXCHANGE, FcType, Frame, RCtl, pack_header
from tcm_fcoe.protocol.limits import Limits
from tcm_fcoe.protocol.n_port import NPort

OWN, OTHER = 0x010001, 0x010002
NAME, NODE = bytes.fromhex("2000525400000101"), bytes.fromhex("1000525400000101")
LESSER, GREATER = bytes.fromhex("2000525400000001"), bytes.fromhex("2000525400000f01")
THEIR_NODE = bytes.fromhex("1000525400000001")
CLASS_3 = ClassParameters(options=CLASS_VALID, receive_size=2048).pack()


class Wire:
    """A line for one N_Port alone: everything goes to one MAC address, and what comes out is taken apart."""

    def __init__(self, port: NPort) -> None:
        self.outbox: deque[bytes] = deque()
        self.rooms = None
        self.counters = Counters()
        self.port = port
        self.reachable = True
        self.now = 100.0
        port.attach(self)

    def prefix(self, port: NPort, d_id: int) -> bytes | None:
        return (
            b"\x0e\xfd\0" + d_id.to_bytes(3, "big") + b"\x0e\xfd\0" + port.fc_id.to_bytes(3, "big") + b"\x89\x06"
            if self.reachable
            else None
        )

    def port_name_of(self, fc_id: int) -> bytes | None:
        return None

    def send_link_service(self, port: NPort, header: bytes, payload: bytes, now: float) -> bool:
        return False

    def take(self) -> list[Frame]:
        """What the port has sent."""
        found = []
        while self.outbox:
            sof, fc, eof = decapsulate(memoryview(self.outbox.popleft())[14:])
            found.append(Frame.unpack(fc, sof, eof))
        return found

    def give(
        self,
        s_id: int,
        payload: bytes,
        *,
        r_ctl: int = RCtl.EXTENDED_LINK_REQUEST,
        fc_type: int = FcType.EXTENDED_LINK_SERVICE,
        f_ctl: int = F_CTL_REQUEST,
        ox_id: int = 1,
        rx_id: int = NO_EXCHANGE,
        seq_id: int = 0,
        seq_cnt: int = 0,
        parameter: int = 0,
        df_ctl: int = 0,
        sof: int = SOF_I3,
        eof: int = EOF_T,
    ) -> None:
        """A frame for the port, by way of its bytes."""
        f_ctl |= -len(payload) & 3
        header = pack_header(r_ctl, self.port.fc_id, s_id, fc_type, f_ctl, seq_id, df_ctl, seq_cnt, ox_id, rx_id, parameter)
        ethernet = encapsulate(bytes(14), sof, header, payload, eof)
        got_sof, fc, got_eof = decapsulate(memoryview(ethernet)[14:])
        self.port.receive(Frame.unpack(fc, got_sof, got_eof), self.now)

    def ask(self, s_id: int, payload: bytes, **options: int) -> bytes:
        """Give a request; the payload of the one frame that answers it."""
        self.give(s_id, payload, **options)
        (reply,) = self.take()
        assert reply.d_id == s_id
        assert reply.s_id == self.port.fc_id
        assert reply.ox_id == options.get("ox_id", 1)
        return bytes(reply.payload)

    def pass_time(self, seconds: float) -> None:
        """Let timers run."""
        end = self.now + seconds
        while (when := self.port.next_timer) <= end:
            self.now = max(self.now, when)
            self.port.handle_timer(self.now)
        self.now = end


def a_port(parameters: int = TARGET, *, fabric: bool = False, limits: Limits | None = None) -> tuple[Wire, NPort, NotingFc4]:
    fc4 = NotingFc4(parameters)
    port = NPort(NAME, NODE, fc4, limits=limits or Limits())
    wire = Wire(port)
    port.up(OWN, fabric=fabric, now=wire.now, e_d_tov=2.0, r_a_tov=10.0)
    return wire, port, fc4


def plogi(name: bytes = LESSER, **changes: object) -> Login:
    values = {"node_name": THEIR_NODE, "receive_size": 2112, "word_3": 2000, "class_3": CLASS_3, **changes}
    return Login(ElsCommand.PLOGI, name, **values)  # type: ignore[arg-type]


def prli(parameters: int = INITIATOR) -> ProcessLogin:
    return ProcessLogin(ElsCommand.PRLI, (ServicePage(parameters=parameters),))


def log_in(wire: Wire, s_id: int = OTHER, name: bytes = LESSER) -> None:
    assert Login.parse(wire.ask(s_id, plogi(name).pack())).command == ElsCommand.LS_ACC


def pair(wire: Wire, s_id: int = OTHER, name: bytes = LESSER) -> None:
    log_in(wire, s_id, name)
    (page,) = ProcessLogin.parse(wire.ask(s_id, prli().pack())).pages
    assert page.response == PrliResponse.EXECUTED


def accept(wire: Wire, request, payload: bytes) -> None:
    """Answer a request that the port has sent."""
    wire.give(request.d_id, payload, r_ctl=request.r_ctl + 1, fc_type=request.type, f_ctl=F_CTL_REPLY, ox_id=request.ox_id)


def rejection(payload: bytes) -> tuple[int, int]:
    found = Reject.parse(payload)
    assert found.command == ElsCommand.LS_RJT
    return found.reason, found.explanation
