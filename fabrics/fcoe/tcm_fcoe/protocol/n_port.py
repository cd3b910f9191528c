"""One local N_Port: frames in, frames out, and what stands between FC-2 and the FC-4 (FC-FS-3, FC-LS-2).

FCP frames of ports with an image pair go straight to the FC-4; everything else is sorted by R_CTL and TYPE. Class 3 has no
answer to frames that nobody understands: they are counted and dropped.

Longer than most files because it is where all that an N_Port is made of meets.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from tcm_fcoe.protocol.basic import UNKNOWN_EXCHANGE, Abts, BasicAccept, BasicReject
from tcm_fcoe.protocol.counters import Counters
from tcm_fcoe.protocol.els_responder import Responder
from tcm_fcoe.protocol.exchange import Done, Exchanges, Request
from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, MAX_DATA_FIELD, SOF_I3, SOF_N3, encapsulate
from tcm_fcoe.protocol.frame import (
    F_CTL_END_SEQUENCE,
    F_CTL_EXCHANGE_RESPONDER,
    F_CTL_LAST_SEQUENCE,
    F_CTL_REPLY,
    F_CTL_SEQUENCE_INITIATIVE,
    FcType,
    Frame,
    RCtl,
    pack_header,
)
from tcm_fcoe.protocol.limits import DEFAULT_LIMITS, Limits
from tcm_fcoe.protocol.logins import Logins
from tcm_fcoe.protocol.management_client import HbaDescription, ManagementClient
from tcm_fcoe.protocol.name_client import NameClient
from tcm_fcoe.protocol.names import FIRST_WELL_KNOWN_ADDRESS, NO_FC_ID, colon_form, format_fc_id
from tcm_fcoe.protocol.recovery import Aborts, RecoveryQualifiers
from tcm_fcoe.protocol.sequence import Sequences
from tcm_fcoe.protocol.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.els_payload import Payload
    from tcm_fcoe.protocol.fc4 import BasicReply, Fc4, Lane
    from tcm_fcoe.protocol.fcp_frames import Rooms
    from tcm_fcoe.protocol.remote_port import RemotePort

FCP = int(FcType.FCP)
LINK_DATA = 0x08
"""R_CTL from here on is no device data."""
DEFAULT_E_D_TOV = 2.0
MAX_E_D_TOV = 60.0
"""Seconds: what a remote port may make of it."""
"""Seconds (FC-FS-3 clause 22)."""
DEFAULT_R_A_TOV = 10.0
OUTBOX_LIMIT = 8192
"""Frames in the outbox beyond which link services are not answered any more: nobody takes them anyway."""
_END_BITS = F_CTL_END_SEQUENCE | F_CTL_SEQUENCE_INITIATIVE | F_CTL_LAST_SEQUENCE
"""F_CTL bits that only the last frame of a sequence has."""


class Line(Protocol):
    """The station, to an N_Port."""

    outbox: deque[bytes]
    """Whole Ethernet frames, in order."""
    counters: Counters
    rooms: Rooms | None
    """Memory of the link in which frames may be made."""

    def prefix(self, port: NPort, d_id: int) -> bytes | None:
        """The Ethernet header of frames from the port to an address, EtherType included; ``None``: there is no way."""

    def port_name_of(self, fc_id: int) -> bytes | None:
        """The port name that an address belongs to, if that is known of itself."""

    def send_link_service(self, port: NPort, header: bytes, payload: bytes, now: float) -> bool:
        """Send a link service that is no ordinary frame: see :meth:`Controller.send_link_service`. False: it is one."""


class NPort:
    """One N_Port, or VN_Port.

    :param fc4: FCP. May be set later, before the port comes up: ``port.fc4 = ...``.
    :param receive_size: bytes that we take in a data field; what the way carries may be less.
    :param symbolic_name: what the name server shows to people.
    :param hba: what a fabric's management server is told; ``None``: nothing.
    """

    port_name: bytes
    node_name: bytes
    fc_id: int
    """0: there is none yet."""

    def __init__(
        self,
        port_name: bytes,
        node_name: bytes,
        fc4: Fc4 | None = None,
        *,
        receive_size: int = MAX_DATA_FIELD,
        symbolic_name: str = "tcm",
        hba: HbaDescription | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.port_name = port_name
        self.node_name = node_name
        self.fc_id = NO_FC_ID
        self.fabric = False
        """There are well-known addresses: a directory server, a fabric controller."""
        self.symbolic_name = symbolic_name
        self.hba = hba
        self.limits = limits
        self.own_receive_size = receive_size
        self.receive_size = receive_size
        """Of this link: what we say in PLOGI, and send at most."""
        self.e_d_tov = DEFAULT_E_D_TOV
        """Seconds, like ``r_a_tov``."""
        self.r_a_tov = DEFAULT_R_A_TOV
        self.longer_r_a_tov: dict[int, float] = {}
        """Of remote ports whose timeouts are longer than ours: :meth:`agree_timeouts`."""
        self.outbox: deque[bytes] = deque()
        self.counters = Counters()
        self.line: Line | None = None
        self._fc4 = fc4
        self._fc4_receive = fc4.receive if fc4 is not None else None
        self._seq_id = 0
        self.now = 0.0
        """When anything but FCP last happened."""
        self.timers = Timers()
        self.sequences = Sequences(self.timers, self.counters, limits)
        self.aborts = Aborts(self._send_abts, self._send_rrq, lambda: self.fc_id, self.timers, self.counters)
        self.qualifiers = RecoveryQualifiers(self.timers, limits)
        self.exchanges = Exchanges(self.send_sequence, self.timers, self.counters, limits, self.sequences, self.aborts)
        self.exchanges.longer = self.aborts.longer = self.qualifiers.longer = self.longer_r_a_tov
        self.logins = Logins(self)
        self.name_client = NameClient(self)
        self.management_client = ManagementClient(self)
        self._responder = Responder(self)
        self.remotes: dict[int, RemotePort] = self.logins.remotes
        """By FC_ID."""
        self._image_pairs = self.logins.image_pairs
        self._others: dict[tuple[int, int], Callable[[Frame, float], None]] = {
            (RCtl.EXTENDED_LINK_REQUEST, FcType.EXTENDED_LINK_SERVICE): self._receive_els,
            (RCtl.EXTENDED_LINK_REPLY, FcType.EXTENDED_LINK_SERVICE): self.exchanges.receive_reply,
            (RCtl.UNSOLICITED_CONTROL, FcType.COMMON_TRANSPORT): self._receive_ct,
            (RCtl.SOLICITED_CONTROL, FcType.COMMON_TRANSPORT): self.exchanges.receive_reply,
            (RCtl.FC4_LINK_REQUEST, FcType.FCP): self._receive_els,
            (RCtl.FC4_LINK_REPLY, FcType.FCP): self.exchanges.receive_reply,
            (RCtl.BASIC_ABTS, FcType.BASIC_LINK_SERVICE): self._receive_abts,
            (RCtl.BASIC_ACC, FcType.BASIC_LINK_SERVICE): self._receive_basic_reply,
            (RCtl.BASIC_RJT, FcType.BASIC_LINK_SERVICE): self._receive_basic_reply,
            (RCtl.BASIC_NOP, FcType.BASIC_LINK_SERVICE): self._ignore,
            (RCtl.BASIC_RMC, FcType.BASIC_LINK_SERVICE): self._ignore,
        }

    @property
    def fc4(self) -> Fc4:
        """FCP."""
        if self._fc4 is None:
            raise RuntimeError("an N_Port without FC-4")
        return self._fc4

    @fc4.setter
    def fc4(self, fc4: Fc4) -> None:
        self._fc4 = fc4
        self._fc4_receive = fc4.receive

    @property
    def rooms(self) -> Rooms | None:
        """See :class:`Line`."""
        return self.line.rooms if self.line is not None else None

    @property
    def is_up(self) -> bool:
        """It has an address."""
        return self.fc_id != NO_FC_ID

    def attach(self, line: Line) -> None:
        """Become one of a station's ports, before anything is received. Its outbox and counters are the port's from now on."""
        self.line = line
        self.outbox = line.outbox
        self.counters = line.counters
        for each in (self.sequences, self.aborts, self.exchanges):
            each.counters = line.counters

    # What the FCoE controller says

    def up(
        self,
        fc_id: int,
        *,
        fabric: bool,
        now: float,
        e_d_tov: float = DEFAULT_E_D_TOV,
        r_a_tov: float = DEFAULT_R_A_TOV,
        receive_size: int = MAX_DATA_FIELD,
    ) -> None:
        """The port has an address.

        :param fabric: there are a directory server and a fabric controller; the port registers with them.
        :param receive_size: bytes of a data field that the way to others carries.
        """
        if self.is_up:
            self.down("another address", now)
        self.fc_id = fc_id
        self.fabric = fabric
        self.e_d_tov = self.sequences.e_d_tov = e_d_tov
        self.r_a_tov = self.exchanges.r_a_tov = self.aborts.r_a_tov = self.qualifiers.r_a_tov = r_a_tov
        self.receive_size = min(self.own_receive_size, receive_size, MAX_DATA_FIELD) & ~3
        if fabric:
            self.name_client.start(now)

    def down(self, reason: str, now: float) -> None:
        """The address is gone, and everybody with it; nobody is told."""
        self.name_client.stop()
        self.management_client.stop()
        self.logins.forget_all(reason, now)
        self.exchanges.forget()
        self.aborts.forget()
        self.sequences.forget()
        self.qualifiers.forget()
        self.sequences.longer.clear()
        self.longer_r_a_tov.clear()
        self.fc_id = NO_FC_ID

    def stop(self, now: float) -> None:
        """Log out of every remote port, politely; the address goes with the FCoE controller."""
        self.name_client.stop()
        self.management_client.stop()
        for remote in list(self.remotes.values()):
            self.logins.logout(remote, now)

    def remote_up(self, fc_id: int, port_name: bytes, node_name: bytes, now: float) -> None:
        """Another port on the link, with which there is no login (any more): who has the greater port name logs in."""
        self.logins.remote_up(fc_id, port_name, node_name, now)

    def remote_down(self, fc_id: int, reason: str, now: float) -> None:
        """It cannot be reached any longer."""
        self.logins.remote_down(fc_id, reason, now)

    def agree_timeouts(self, fc_id: int, e_d_tov: float) -> float:
        """E_D_TOV between a remote port, which has said its own in PLOGI, and this one, in seconds (FC-LS-2 6.6.2).

        Without a fabric it is the greater one, and R_A_TOV twice that; a fabric says what they are for all its ports.
        """
        agreed = self.e_d_tov if self.fabric else max(self.e_d_tov, min(e_d_tov, MAX_E_D_TOV))
        if agreed > self.e_d_tov:
            self.sequences.longer[fc_id] = agreed
            self.longer_r_a_tov[fc_id] = max(self.r_a_tov, 2 * agreed)
        else:
            self.forget_timeouts(fc_id)
        return agreed

    def forget_timeouts(self, fc_id: int) -> None:
        """It is gone, or has logged in with others."""
        self.sequences.longer.pop(fc_id, None)
        self.longer_r_a_tov.pop(fc_id, None)

    def routes_changed(self) -> None:
        """The way to remote ports may be another."""
        for fc_id, remote in self.remotes.items():
            remote.prefix = self.prefix(fc_id)

    def prefix(self, d_id: int) -> bytes | None:
        """See :meth:`Line.prefix`."""
        return self.line.prefix(self, d_id) if self.line is not None else None

    # Frames in

    def receive(self, frame: Frame, now: float) -> None:
        """A frame for this port's address."""
        if frame.type == FCP and frame.r_ctl < LINK_DATA and not frame.df_ctl:
            remote = self._image_pairs.get(frame.s_id)
            if remote is not None and not (self.qualifiers.held and self._is_qualified(frame)):
                self._fc4_receive(remote, frame, now)  # type: ignore[misc]  # there is one as soon as there is an image pair
                return
        self._receive_other(frame, now)

    def lane(self, s_id: int, header: bytes) -> Lane | None:
        """How frames of FCP from a remote port, with this Ethernet header, pass :meth:`receive` for now."""
        remote = self._image_pairs.get(s_id)
        if remote is None:
            return None
        return header, self._image_pairs, remote, self.qualifiers.held, self.fc4.receive, self.fc4.short_ways

    def _is_qualified(self, frame: Frame) -> bool:
        return self.qualifiers.covers(frame)

    def _receive_other(self, frame: Frame, now: float) -> None:
        self.now = now
        if frame.df_ctl:
            self.counters.unsupported_headers += 1
            return
        receive = self._others.get((frame.r_ctl, frame.type))
        if receive is not None:
            receive(frame, now)
        elif frame.type == FCP and frame.r_ctl < LINK_DATA:
            self._receive_uninvited(frame, now)
        elif RCtl.VFT_HEADER <= frame.r_ctl <= RCtl.ENCAPSULATION_HEADER:
            self.counters.unsupported_headers += 1
        else:
            self.counters.unknown_type += 1

    def _receive_uninvited(self, frame: Frame, now: float) -> None:
        """FCP of a port that has no image pair is discarded and answered with LOGO or PRLO (FCP-4 clauses 6.2, 6.3)."""
        if frame.s_id in self._image_pairs:
            self.counters.recovery_qualifier += 1
        else:
            self.logins.uninvited(frame.s_id, now)

    def _ignore(self, frame: Frame, now: float) -> None:
        pass

    def _receive_els(self, frame: Frame, now: float) -> None:
        if frame.f_ctl & F_CTL_EXCHANGE_RESPONDER:  # only the originator of an exchange asks
            self.counters.unknown_exchange += 1
            return
        data = self.sequences.receive(frame, now)
        if data is None:
            return
        self.counters.els_in += 1
        reply = self._responder.answer(frame, data, now)
        if reply is not None:
            self.reply(frame, reply, now)

    def _receive_ct(self, frame: Frame, now: float) -> None:
        if frame.f_ctl & F_CTL_EXCHANGE_RESPONDER:
            self.counters.unknown_exchange += 1
            return
        data = self.sequences.receive(frame, now)
        if data is not None:
            self.reply(frame, self._responder.answer_ct(), now)

    def reply(self, request: Frame, payload: bytes, now: float) -> None:
        """Answer an ELS, FC-4 link service or CT request."""
        r_ctl = request.r_ctl + 1
        self.send_sequence(request.s_id, r_ctl, request.type, F_CTL_REPLY, request.ox_id, request.rx_id, payload, now)

    # ABTS

    def _receive_abts(self, frame: Frame, now: float) -> None:
        self.counters.abts_in += 1
        abts = Abts(
            frame.s_id,
            frame.ox_id,
            frame.rx_id,
            frame.seq_id,
            frame.seq_cnt,
            bool(frame.f_ctl & F_CTL_EXCHANGE_RESPONDER),
            bool(frame.parameter & 1),
        )
        if not abts.from_responder and self.sequences.abort(abts.s_id, abts.ox_id):
            answer: BasicReply | None = BasicAccept(abts.ox_id, abts.rx_id, 0, frame.seq_cnt)
        elif (remote := self._image_pairs.get(frame.s_id)) is not None:
            answer = self.fc4.abort(remote, abts, lambda late: self._answer_late(remote, abts, late), now)
        else:
            answer = UNKNOWN_EXCHANGE
        if isinstance(answer, BasicReject):
            answer = self.qualifiers.accepted(abts) or answer  # BA_ACC was lost
        if answer is not None:
            self.answer_abts(abts, answer, now)

    def _answer_late(self, remote: RemotePort, abts: Abts, answer: BasicReply) -> None:
        """The FC-4 has made an end of it, some time after it was asked."""
        if self._image_pairs.get(abts.s_id) is remote:
            self.answer_abts(abts, answer, self.now)

    def answer_abts(self, abts: Abts, answer: BasicReply, now: float) -> None:
        """BA_ACC or BA_RJT. What was aborted is not listened to until RRQ comes."""
        if isinstance(answer, BasicReject):
            self.counters.abts_rejected += 1
            r_ctl = RCtl.BASIC_RJT
        else:
            r_ctl = RCtl.BASIC_ACC
            if not abts.from_responder and not abts.sequence_only:
                self.qualifiers.establish(abts, answer.rx_id, now)
        f_ctl = F_CTL_LAST_SEQUENCE | F_CTL_END_SEQUENCE | (0 if abts.from_responder else F_CTL_EXCHANGE_RESPONDER)
        rx_id = answer.rx_id if isinstance(answer, BasicAccept) else abts.rx_id
        self._send(abts.s_id, r_ctl, 0, f_ctl, abts.seq_id, 0, abts.ox_id, rx_id, answer.pack(), SOF_I3, EOF_T)

    def _receive_basic_reply(self, frame: Frame, now: float) -> None:
        if not self.aborts.receive(frame, now):
            self.counters.unknown_exchange += 1

    def _send_abts(self, d_id: int, f_ctl: int, seq_id: int, seq_cnt: int, ox_id: int, rx_id: int, now: float) -> None:
        del now
        sof = SOF_N3 if seq_cnt else SOF_I3
        self._send(d_id, RCtl.BASIC_ABTS, 0, f_ctl, seq_id, seq_cnt, ox_id, rx_id, b"", sof, EOF_T)

    def _send_rrq(self, d_id: int, query: Payload, done: Done, now: float) -> None:
        self.exchanges.request(d_id, query.pack(), done, now, attempts=1, recover=False)

    # Frames out

    def request(
        self, d_id: int, payload: Payload, done: Done, now: float, *, attempts: int | None = None, recover: bool = True
    ) -> Request:
        """Send an ELS request; ``done(reply, now)`` gets the payload of LS_ACC or LS_RJT, or ``None``.

        For other link services, times and attempts see :meth:`tcm_fcoe.protocol.exchange.Exchanges.request`.
        """
        return self.exchanges.request(d_id, payload.pack(), done, now, attempts=attempts, recover=recover)

    def send_sequence(
        self,
        d_id: int,
        r_ctl: int,
        fc_type: int,
        f_ctl: int,
        ox_id: int,
        rx_id: int,
        payload: bytes,
        now: float,
        parameter: int = 0,
    ) -> None:
        """Send one sequence of a link service, in as many frames as it takes.

        :param f_ctl: that of its last frame, without fill bytes.
        :param parameter: the Parameter field, if it is one frame.
        """
        self._seq_id = seq_id = self._seq_id + 1 & 0xFF
        if self.line is not None and (r_ctl == RCtl.EXTENDED_LINK_REQUEST or d_id >= FIRST_WELL_KNOWN_ADDRESS):
            header = pack_header(r_ctl, d_id, self.fc_id, fc_type, f_ctl, seq_id, 0, 0, ox_id, rx_id, 0)
            if self.line.send_link_service(self, header, payload, now):
                return
        remote = self.remotes.get(d_id)
        size = remote.max_frame if remote is not None and remote.logged_in else self.receive_size
        if len(payload) <= size:
            self._send(d_id, r_ctl, fc_type, f_ctl, seq_id, 0, ox_id, rx_id, payload, SOF_I3, EOF_T, parameter)
            return
        for seq_cnt, offset in enumerate(range(0, len(payload), size)):
            last = offset + size >= len(payload)
            self._send(
                d_id,
                r_ctl,
                fc_type,
                f_ctl if last else f_ctl & ~_END_BITS,
                seq_id,
                seq_cnt,
                ox_id,
                rx_id,
                payload[offset : offset + size],
                SOF_N3 if seq_cnt else SOF_I3,
                EOF_T if last else EOF_N,
            )

    def _send(
        self,
        d_id: int,
        r_ctl: int,
        fc_type: int,
        f_ctl: int,
        seq_id: int,
        seq_cnt: int,
        ox_id: int,
        rx_id: int,
        payload: bytes,
        sof: int,
        eof: int,
        parameter: int = 0,
    ) -> None:
        remote = self.remotes.get(d_id)
        prefix = (remote.prefix if remote is not None else None) or self.prefix(d_id)
        if prefix is None:
            self.counters.fcoe_no_route += 1
            return
        if len(self.outbox) > OUTBOX_LIMIT:
            self.counters.congested += 1
            return
        f_ctl |= -len(payload) & 3
        header = pack_header(r_ctl, d_id, self.fc_id, fc_type, f_ctl, seq_id, 0, seq_cnt, ox_id, rx_id, parameter)
        self.outbox.append(encapsulate(prefix, sof, header, payload, eof))

    # Logins that others ask for

    def login(self, fc_id: int, now: float) -> None:
        """Send PLOGI to an address."""
        self.logins.login(fc_id, now)

    def logout(self, remote: RemotePort, now: float) -> None:
        """Send LOGO."""
        self.logins.logout(remote, now)

    def process_logout(self, remote: RemotePort, now: float) -> None:
        """Send PRLO: the image pair ends, the N_Ports stay logged in."""
        self.logins.process_logout(remote, now)

    # Time

    @property
    def next_timer(self) -> float:
        """When :meth:`handle_timer` is to be called; ``inf``: never."""
        when, fc4 = self.timers.next, self._fc4
        return fc4.next_timer if fc4 is not None and fc4.next_timer < when else when

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self.now = now
        self.timers.run(now)
        if self._fc4 is not None and self._fc4.next_timer <= now:
            self._fc4.handle_timer(now)

    def __repr__(self) -> str:
        return f"<NPort {colon_form(self.port_name)} {format_fc_id(self.fc_id)}>"
