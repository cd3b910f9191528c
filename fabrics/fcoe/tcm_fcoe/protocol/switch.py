"""A fabric of one switch: addresses of its N_Ports, and the services behind well-known addresses (FC-SW, FC-GS, FC-LS).

It knows no MAC addresses: whoever owns it hands it frames of N_Ports that are attached, and sends what it wants sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from tcm_fcoe.protocol import ct
from tcm_fcoe.protocol.basic import BasicAccept
from tcm_fcoe.protocol.controller import (
    BB_CREDIT,
    E_D_TOV,
    NEVER,
    R_A_TOV,
    Allowance,
    LocalPort,
    els_reply,
    els_request,
)
from tcm_fcoe.protocol.els import (
    RNID_COMMON,
    RNID_TOPOLOGY,
    Adisc,
    Echo,
    LinkErrorStatus,
    Logo,
    NodeIdentification,
    Plain,
    Reject,
    Rscn,
    RscnFormat,
    ScrFunction,
    TimeoutValues,
    topology,
)
from tcm_fcoe.protocol.els import parse_request as parse_els
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import CLASS_SEQUENTIAL_DELIVERY, CLASS_VALID, ClassParameters, Login
from tcm_fcoe.protocol.els_payload import ElsError, Payload
from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, MIN_DATA_FIELD, SOF_I3, SOF_N3
from tcm_fcoe.protocol.fdmi_server import FdmiServer
from tcm_fcoe.protocol.frame import (
    F_CTL_END_SEQUENCE,
    F_CTL_EXCHANGE_RESPONDER,
    F_CTL_LAST_SEQUENCE,
    F_CTL_REPLY,
    NO_EXCHANGE,
    FcType,
    Frame,
    RCtl,
    fill,
    pack_header,
)
from tcm_fcoe.protocol.limits import Limits
from tcm_fcoe.protocol.name_server import NameServer
from tcm_fcoe.protocol.names import WellKnownAddress, is_valid_name
from tcm_fcoe.protocol.sequence import Sequences
from tcm_fcoe.protocol.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.counters import Counters
    from tcm_fcoe.protocol.ct import CtIu
    from tcm_fcoe.protocol.fcoe import Buffer

MAX_PORTS = 1024
"""N_Ports that are attached at once, ours included."""
REMEMBERED = 4096
"""Port names that get the address they had before."""
RSCN_DELAY = 0.1
"""Seconds from a change to the notification: changes come in groups."""
RSCN_TIMEOUT = 2 * E_D_TOV
RSCN_TRIES = 3
RSCN_PAGES = 32
"""Addresses in one notification; beyond that it says that the fabric has changed."""
SERVICES = (
    WellKnownAddress.DIRECTORY_SERVER,
    WellKnownAddress.FABRIC_CONTROLLER,
    WellKnownAddress.MANAGEMENT_SERVER,
    WellKnownAddress.FABRIC_LOGIN_SERVER,
)
REQUESTS_PER_PORT, REQUEST_BYTES = 2, 1 << 14
"""Of CT requests in several frames: registrations of HBAs have thousands of bytes."""
LIMITS = Limits(sequences=MAX_PORTS, sequences_per_port=REQUESTS_PER_PORT, sequence_length=REQUEST_BYTES)
_NO_SUCH_EXCHANGE = bytes((0, 0x03, 0x03, 0))
"""BA_RJT: logical error, invalid OX_ID-RX_ID combination. A request that is complete has been answered."""


@dataclass(slots=True, eq=False)
class AttachedPort:
    """An N_Port that is logged in with the fabric."""

    fc_id: int
    port_name: bytes
    node_name: bytes
    receive_size: int
    """Bytes of the data field that it takes from the fabric."""
    port: LocalPort | None = None
    """One of our own, plugged in without a wire."""
    enode: bytes = b""
    """MAC address for FIP."""
    mac: bytes = b""
    """MAC address for FCoE."""
    heard: float = 0.0
    """When its last keep-alive came."""
    logins: set[int] = field(default_factory=set)
    """Well-known addresses that it has sent PLOGI to."""
    notified: bool = False
    """It has registered for state changes (SCR)."""
    affected: dict[int, None] = field(default_factory=dict)
    """Addresses that it has to be told of, in order."""
    telling: Rscn | None = None
    """The notification that has no answer yet."""
    ox_id: int = 0
    tries: int = 0
    timer: float = NEVER


class SwitchServices(Protocol):
    """Who owns the switch."""

    def send(self, to: AttachedPort, header: bytes, payload: Buffer, sof: int, eof: int) -> None:
        """Send a frame of a well-known address."""

    def errors(self, of: AttachedPort) -> LinkErrorStatus:
        """Of the link of one that is attached."""

    def count(self, counter: str) -> None:
        """Add one to a statistic."""


class _Counts:
    """What goes wrong with sequences, whatever it is, is one statistic of a switch."""

    def __init__(self, services: SwitchServices) -> None:
        object.__setattr__(self, "_services", services)

    def __getattr__(self, name: str) -> int:
        return 0

    def __setattr__(self, name: str, value: int) -> None:
        self._services.count("fcoe_unexpected")  # type: ignore[attr-defined]  # set by __init__


class Switch:
    """One domain.

    :param name: the switch's and fabric's.
    :param receive_size: bytes of the data field that F_Ports take.
    :param domain: Domain_ID, from 1 to 239.
    """

    def __init__(self, services: SwitchServices, name: bytes, *, receive_size: int, domain: int = 1) -> None:
        self.services = services
        self.name = name
        self.receive_size = receive_size
        self.domain = domain
        self.ports: dict[int, AttachedPort] = {}
        """By address."""
        self.by_name: dict[bytes, AttachedPort] = {}
        self.name_server = NameServer(self._changed)
        self.fdmi = FdmiServer(self.by_name.__contains__)
        self._timers = Timers()
        self._sequences = Sequences(self._timers, cast("Counters", _Counts(services)), LIMITS, E_D_TOV)
        """Of CT requests."""
        self._addresses: dict[bytes, int] = {}
        """What a port name had, or has; the oldest first."""
        self._last = 0
        self._ox_id = 0
        self._now = 0.0
        self._complaints = Allowance(64, 16)
        self._tell_at = NEVER

    # Fabric login

    def attach(
        self,
        port_name: bytes,
        node_name: bytes,
        now: float,
        *,
        receive_size: int,
        port: LocalPort | None = None,
        features: dict[int, int] | None = None,
    ) -> AttachedPort:
        """An N_Port logs in. Raises :class:`ElsError` with what to refuse it with.

        :param features: FC-4 features of a port of our own, by type.
        """
        self._now = now
        if not is_valid_name(port_name) or not is_valid_name(node_name):
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME, "a name of zeros")
        if port_name in self.by_name:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME, f"{port_name.hex(':')} is logged in")
        if receive_size < MIN_DATA_FIELD:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.RECEIVE_DATA_FIELD_SIZE, f"a data field of {receive_size} bytes")
        if len(self.ports) >= MAX_PORTS:
            raise ElsError(Reason.UNABLE_TO_PERFORM, Explanation.INSUFFICIENT_RESOURCES, f"{MAX_PORTS} ports are logged in")
        fc_id = self._address(port_name)
        attached = AttachedPort(fc_id, port_name, node_name, min(receive_size, self.receive_size), port)
        self.ports[fc_id] = self.by_name[port_name] = attached
        self.name_server.add(fc_id, port_name, node_name, fabric_port_name=self.name, features=features)
        if features:
            self._changed(fc_id)
        return attached

    def _address(self, port_name: bytes) -> int:
        fc_id = self._addresses.pop(port_name, 0)
        while not fc_id or fc_id in self.ports:
            self._last = self._last % 0xFFFE + 1
            fc_id = self.domain << 16 | self._last
        self._addresses[port_name] = fc_id
        if len(self._addresses) > REMEMBERED:
            del self._addresses[next(iter(self._addresses))]
        return fc_id

    def detach(self, attached: AttachedPort, now: float) -> None:
        """It is logged out, or gone."""
        self._now = now
        if self.ports.pop(attached.fc_id, None) is not None:
            self.by_name.pop(attached.port_name, None)
            self.name_server.remove(attached.fc_id)
            self.fdmi.remove(attached.port_name)
            self._sequences.forget(attached.fc_id)
            self._changed(attached.fc_id)

    def clear(self) -> None:
        """Forget all ports without telling anybody."""
        self.ports.clear()
        self.by_name.clear()
        self.name_server.entries.clear()
        self.fdmi.clear()
        self._sequences.forget()
        self._tell_at = NEVER

    # Frames for well-known addresses

    def receive(self, source: AttachedPort, frame: Frame, now: float) -> None:
        """A frame of an N_Port that is attached, for a service. What is no request, or an ELS of several frames, is dropped."""
        self._now = now
        kind = (frame.r_ctl, frame.type)
        if frame.d_id not in SERVICES or frame.s_id != source.fc_id:
            self.services.count("fcoe_no_route")
        elif kind == (RCtl.EXTENDED_LINK_REPLY, FcType.EXTENDED_LINK_SERVICE):
            self._told(source, frame)
        elif kind == (RCtl.BASIC_ABTS, FcType.BASIC_LINK_SERVICE):
            if self._sequences.abort(source.fc_id, frame.ox_id):
                answer = BasicAccept(frame.ox_id, frame.rx_id, 0, frame.seq_cnt).pack()
                self._reply(source, frame, RCtl.BASIC_ACC, FcType.BASIC_LINK_SERVICE, answer)
            else:
                self._reply(source, frame, RCtl.BASIC_RJT, FcType.BASIC_LINK_SERVICE, _NO_SUCH_EXCHANGE)
        elif frame.f_ctl & F_CTL_EXCHANGE_RESPONDER or frame.df_ctl:
            self.services.count("fcoe_unexpected")
        elif kind == (RCtl.UNSOLICITED_CONTROL, FcType.COMMON_TRANSPORT):
            self._common_transport(source, frame)
        elif kind == (RCtl.EXTENDED_LINK_REQUEST, FcType.EXTENDED_LINK_SERVICE) and _is_one_frame(frame):
            self._els(source, frame)
        else:
            self.services.count("fcoe_unexpected")

    def _els(self, source: AttachedPort, frame: Frame) -> None:
        answer: Payload
        try:
            request = parse_els(frame.payload)
            handler = _ELS.get(request.command)
            if handler is None:
                raise ElsError(Reason.COMMAND_NOT_SUPPORTED, Explanation.REQUEST_NOT_SUPPORTED, "no service does that")
            answer = getattr(self, f"_{handler}")(source, frame, request)
        except ElsError as e:
            answer = Reject(reason=e.reason, explanation=e.explanation)
        self._send_whole(source, els_reply(frame, answer))

    def _plogi(self, source: AttachedPort, frame: Frame, request: Any) -> Payload:
        if frame.d_id == WellKnownAddress.FABRIC_LOGIN_SERVER:
            raise ElsError(Reason.COMMAND_NOT_SUPPORTED, Explanation.REQUEST_NOT_SUPPORTED, "FLOGI is for the F_Port")
        if request.port_name != source.port_name:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME, "it logged in with another name")
        source.logins.add(frame.d_id)
        return self._service_parameters(frame)

    def _service_parameters(self, frame: Frame) -> Login:
        return Login(
            command=ElsCommand.LS_ACC,
            port_name=self._service_name(frame.d_id),
            node_name=self.name,
            credit=BB_CREDIT,
            receive_size=self.receive_size,
            word_2=0x00FF001F,
            word_3=round(E_D_TOV * 1000),
            class_3=ClassParameters(
                options=CLASS_VALID | CLASS_SEQUENTIAL_DELIVERY,
                receive_size=self.receive_size,
                concurrent_sequences=255,
                open_sequences_per_exchange=1,
            ).pack(),
        )

    def _same_port(self, source: AttachedPort, frame: Frame, port_name: bytes) -> None:
        """Who asks has to be logged in with the service; another port than that logs it out (FC-LS-2 clause 4.3.6)."""
        if frame.d_id not in source.logins or port_name != source.port_name:
            source.logins.discard(frame.d_id)
            raise ElsError(Reason.UNABLE_TO_PERFORM, Explanation.N_PORT_LOGIN_REQUIRED, "no login with the service")

    def _pdisc(self, source: AttachedPort, frame: Frame, request: Any) -> Payload:
        self._same_port(source, frame, request.port_name)
        return self._service_parameters(frame)

    def _adisc(self, source: AttachedPort, frame: Frame, request: Any) -> Payload:
        self._same_port(source, frame, request.port_name)
        return Adisc(self._service_name(frame.d_id), self.name, frame.d_id, command=ElsCommand.LS_ACC)

    def _service_name(self, address: int) -> bytes:
        """A port name for a well-known address: the switch's, with the address in the qualifier."""
        return (0x2000 | address & 0xFFF).to_bytes(2, "big") + self.name[2:]

    def _logo(self, source: AttachedPort, frame: Frame, request: Any) -> Payload:
        if frame.d_id == WellKnownAddress.FABRIC_LOGIN_SERVER:
            return self._in_fip(source, frame, request)
        source.logins.discard(frame.d_id)
        if frame.d_id == WellKnownAddress.FABRIC_CONTROLLER:
            self._forget_registration(source)
        return Plain()

    def _scr(self, source: AttachedPort, frame: Frame, request: Any) -> Payload:
        if frame.d_id != WellKnownAddress.FABRIC_CONTROLLER:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_N_PORT_ID, "SCR is for the fabric controller")
        if request.function == ScrFunction.CLEAR:
            self._forget_registration(source)
        elif request.function in (ScrFunction.FABRIC, ScrFunction.N_PORT, ScrFunction.FULL):
            source.notified = True
        else:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.REQUEST_NOT_SUPPORTED, f"SCR function {request.function}")
        return Plain()

    def _rtv(self, _source: AttachedPort, _frame: Frame, _request: Any) -> Payload:
        return TimeoutValues(r_a_tov=round(R_A_TOV * 1000), e_d_tov=round(E_D_TOV * 1000))

    def _rls(self, source: AttachedPort, _frame: Frame, request: Any) -> Payload:
        """Of the F_Port that the source, or the N_Port that it names, is attached to."""
        of = source if not request.port_id else self.ports.get(request.port_id)
        if of is None:
            raise ElsError(Reason.UNABLE_TO_PERFORM, Explanation.INVALID_N_PORT_ID, f"RLS of {request.port_id:06x}h")
        return self.services.errors(of)

    def _rnid(self, _source: AttachedPort, frame: Frame, request: Any) -> Payload:
        name = self._service_name(frame.d_id)
        if request.data_format != RNID_TOPOLOGY:
            return NodeIdentification(name, self.name, RNID_COMMON)
        data = topology("switch", attached_nodes=len(self.ports))
        return NodeIdentification(name, self.name, RNID_TOPOLOGY, specific_length=len(data), specific=data)

    def _echo(self, _source: AttachedPort, _frame: Frame, request: Any) -> Payload:
        return Echo(data=request.data, command=ElsCommand.LS_ACC)

    def _in_fip(self, _source: AttachedPort, _frame: Frame, _request: Any) -> Payload:
        raise ElsError(Reason.FIP_ERROR, Explanation.NONE, "logins and logouts of the fabric go in FIP (FC-BB-5 clause 7.5)")

    def _common_transport(self, source: AttachedPort, frame: Frame) -> None:
        if frame.d_id not in source.logins:
            if self._complaints.take(self._now):
                self._log_out(source, frame.d_id)
            self.services.count("fcoe_unexpected")
            return
        data = self._sequences.receive(frame, self._now)
        if data is not None:
            answer = self._server(frame.d_id)(source, data)
            self._reply(source, frame, RCtl.SOLICITED_CONTROL, FcType.COMMON_TRANSPORT, answer.pack())

    def _server(self, d_id: int) -> Callable[[AttachedPort, bytes], CtIu]:
        """Who answers CT requests at an address."""
        if d_id == WellKnownAddress.MANAGEMENT_SERVER:
            return lambda source, data: self.fdmi.request(source.port_name, data)
        if d_id == WellKnownAddress.DIRECTORY_SERVER:
            return lambda source, data: self.name_server.request(source.fc_id, data)
        return lambda _source, _data: ct.reject(ct.CtReason.SERVER_NOT_AVAILABLE)

    def _log_out(self, to: AttachedPort, service: int) -> None:
        """It has not sent PLOGI (FC-LS-2 clause 6.2)."""
        logo = Logo(n_port_id=service, port_name=self._service_name(service))
        self._send_whole(to, els_request(to.fc_id, service, self._next_ox_id(), logo))

    # What is sent

    def _send_whole(self, to: AttachedPort, frame: bytes) -> None:
        self.services.send(to, frame[:24], frame[24:], SOF_I3, EOF_T)

    def _reply(self, to: AttachedPort, request: Frame, r_ctl: int, fc_type: int, payload: bytes) -> None:
        """A sequence of as many frames as the payload needs; the last of its exchange."""
        room = min(to.receive_size, self.receive_size) & ~3
        starts = range(0, max(len(payload), 1), room)
        for seq_cnt, start in enumerate(starts):
            piece = payload[start : start + room]
            last = seq_cnt == len(starts) - 1
            f_ctl = F_CTL_REPLY | fill(piece) if last else F_CTL_EXCHANGE_RESPONDER | F_CTL_LAST_SEQUENCE
            header = pack_header(
                r_ctl, request.s_id, request.d_id, fc_type, f_ctl, 0, 0, seq_cnt, request.ox_id, NO_EXCHANGE, 0
            )
            self.services.send(to, header, piece, SOF_N3 if seq_cnt else SOF_I3, EOF_T if last else EOF_N)

    # State changes

    def _next_ox_id(self) -> int:
        self._ox_id = self._ox_id % 0xFFFE + 1
        return self._ox_id

    def _changed(self, fc_id: int) -> None:
        """Tell all who have asked, but for the one that it is about."""
        for attached in self.ports.values():
            if attached.notified and attached.fc_id != fc_id:
                if len(attached.affected) <= RSCN_PAGES:  # one more says that it was too many
                    attached.affected[fc_id] = None
                if attached.telling is None and attached.timer == NEVER:
                    attached.timer = self._now + RSCN_DELAY
                    self._tell_at = min(self._tell_at, attached.timer)

    def _forget_registration(self, attached: AttachedPort) -> None:
        attached.notified = False
        attached.affected.clear()
        attached.telling, attached.timer = None, NEVER

    @property
    def next_timer(self) -> float:
        """When :meth:`handle_timer` is to be called."""
        return min(self._tell_at, self._timers.next)

    def handle_timer(self, now: float) -> None:
        """Send notifications that are due, and those again that nobody has answered; give requests up that do not end."""
        self._now = now
        self._timers.run(now)
        for attached in self.ports.values():
            if attached.timer <= now:
                self._tell(attached, now)
        self._tell_at = min((each.timer for each in self.ports.values()), default=NEVER)

    def _tell(self, attached: AttachedPort, now: float) -> None:
        if attached.telling is not None and attached.tries >= RSCN_TRIES:
            attached.telling = None
        if attached.telling is None:
            if not attached.affected:
                attached.timer = NEVER
                return
            pages = [(int(RscnFormat.PORT), fc_id) for fc_id in attached.affected]
            attached.telling = Rscn(pages=tuple(pages) if len(pages) <= RSCN_PAGES else ((int(RscnFormat.FABRIC), 0),))
            attached.affected.clear()
            attached.tries = 0
        attached.tries += 1
        attached.ox_id = self._next_ox_id()
        attached.timer = now + RSCN_TIMEOUT
        self._send_whole(
            attached, els_request(attached.fc_id, WellKnownAddress.FABRIC_CONTROLLER, attached.ox_id, attached.telling)
        )

    def _told(self, source: AttachedPort, frame: Frame) -> None:
        """An answer, LS_ACC or not: it has heard."""
        if source.telling is None or frame.ox_id != source.ox_id or frame.d_id != WellKnownAddress.FABRIC_CONTROLLER:
            self.services.count("fcoe_unexpected")
            return
        source.telling = None
        source.timer = self._now + RSCN_DELAY if source.affected else NEVER
        self._tell_at = min(self._tell_at, source.timer)


def _is_one_frame(frame: Frame) -> bool:
    """All that its originator has to say in an exchange."""
    whole = frame.sof == SOF_I3 and frame.eof == EOF_T and not frame.seq_cnt and frame.f_ctl & F_CTL_END_SEQUENCE
    return bool(whole and not frame.f_ctl & F_CTL_EXCHANGE_RESPONDER and not frame.df_ctl)


_ELS: dict[int, str] = {
    ElsCommand.PLOGI: "plogi",
    ElsCommand.PDISC: "pdisc",
    ElsCommand.ADISC: "adisc",
    ElsCommand.LOGO: "logo",
    ElsCommand.SCR: "scr",
    ElsCommand.RTV: "rtv",
    ElsCommand.RLS: "rls",
    ElsCommand.ECHO: "echo",
    ElsCommand.RNID: "rnid",
    ElsCommand.FLOGI: "in_fip",
    ElsCommand.FDISC: "in_fip",
}
"""What services do, by LS_Command code; the rest they do not support."""
