"""Mode ``p2p``: two N_Ports on one segment and nobody else (FC-FS-3 clause 19), without FIP, as Linux's libfc does it.

Both send FLOGI to the address of an F_Port, and each accepts the other's. Addresses are those that libfc gives: the greater
port name has 01.01.02.

Linux takes frames only at a MAC address that ends in their D_ID, and only at those that it had before it accepted a FLOGI.
So it must not get one: a port that is no initiator sends none, and gives whoever asks the address that its MAC address ends in.

FIP frames are never answered: an ENode that sees one gives up on point-to-point.

A link that goes down ends the login (FC-LS-2 clause 6.6), and so does the end of this process. A peer that has not seen it
would not ask again: it is told by a LOGO of the F_Port that it has sent FLOGI to, and that makes Linux, and us, begin anew.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from tcm_fcoe.protocol.controller import (
    E_D_TOV,
    FCP_INITIATOR,
    FCP_TARGET,
    NEVER,
    Allowance,
    Controller,
    LocalPort,
    els_reply,
    els_request,
)
from tcm_fcoe.protocol.els import Logo, Plain, Reject
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import FEATURE_F_PORT, Login
from tcm_fcoe.protocol.els_payload import ElsError
from tcm_fcoe.protocol.fcoe import EOF_T, MIN_DATA_FIELD, SOF_I3, encapsulate
from tcm_fcoe.protocol.fip import FipError, FipPdu
from tcm_fcoe.protocol.frame import FcType, Frame, RCtl
from tcm_fcoe.protocol.names import NO_FC_ID, WellKnownAddress, fabric_provided_mac, fc_id_of_mac, is_multicast, is_valid_name
from tcm_fcoe.protocol.point_to_point_peer import NO_MAC, Peer
from tcm_fcoe.protocol.state_table import Step, Table

if TYPE_CHECKING:
    import random

    from tcm_fcoe.protocol.controller import ControllerServices
    from tcm_fcoe.protocol.els_payload import Payload

LESSER, GREATER = 0x010101, 0x010102
"""Addresses, by port name."""
MAX_N_PORT_ID = 0xEFFFFF
"""Above are services (FC-FS-3 clause 11.2)."""
FLOGI_PERIOD = E_D_TOV
"""Seconds between FLOGIs that nobody answers."""
FLOGI_OX_ID = 0
"""The one that exchanges of N_Ports do not have."""
RECALL_DELAY = 1.0
"""Seconds from the link's coming up, in which a peer that has seen it too sends FLOGI of its own accord."""
RECALL_PERIOD, RECALL_TRIES = 10.0, 3
"""Seconds between LOGOs that nobody answers: Linux takes R_A_TOV for what follows from one."""
CROSSED = 2 * E_D_TOV
"""Seconds after a login in which another FLOGI is one that was under way."""
SILENT = 30.0
"""Seconds without a frame of the peer after which another N_Port may have its place."""
F_PORT = WellKnownAddress.FABRIC_LOGIN_SERVER
F_PORT_MAC = fabric_provided_mac(F_PORT)
_ETHERTYPE = b"\x89\x06"


class State(enum.Enum):
    """Of the link between the two."""

    LOGIN = "login"
    """FLOGI is sent again and again, or waited for."""
    RECALL = "recall"
    """The link is back; the peer may not know that it was gone."""
    UP = "up"
    """Both have addresses."""


class Event(enum.Enum):
    """What happens to it."""

    TIMER = "timer"
    FLOGI = "FLOGI"
    ACCEPTED = "LS_ACC"
    REFUSED = "LS_RJT"
    REMEMBERED = "link up, and there was a peer"
    STALE = "frame of the peer that there was"
    GAVE_UP = "no answer to several"
    LOGO = "LOGO of the F_Port"


LINK: Table[State, Event] = {
    (State.LOGIN, Event.TIMER): Step(State.LOGIN, "send_flogi"),
    (State.LOGIN, Event.FLOGI): Step(State.UP, "accept"),
    (State.LOGIN, Event.ACCEPTED): Step(State.UP, "bring_up"),
    (State.LOGIN, Event.REFUSED): Step(State.LOGIN, "wait"),
    (State.LOGIN, Event.REMEMBERED): Step(State.RECALL, "wait_for_flogi"),
    (State.LOGIN, Event.STALE): Step(State.RECALL, "send_logo"),
    (State.RECALL, Event.TIMER): Step(State.RECALL, "send_logo"),
    (State.RECALL, Event.FLOGI): Step(State.UP, "accept"),
    (State.RECALL, Event.ACCEPTED): Step(State.LOGIN, "forget"),
    (State.RECALL, Event.REFUSED): Step(State.LOGIN, "listen"),
    (State.RECALL, Event.GAVE_UP): Step(State.LOGIN, "listen"),
    (State.UP, Event.FLOGI): Step(State.UP, "accept_again"),
    (State.UP, Event.LOGO): Step(State.LOGIN, "log_in_again"),
}


class PointToPointController(Controller):
    """One N_Port, and one other."""

    mode = "p2p"

    def __init__(
        self, services: ControllerServices, address: bytes, *, rng: random.Random, mtu: int = 2500, vlan: int = 0
    ) -> None:
        super().__init__(services, address, rng=rng, mtu=mtu, vlan=vlan)
        self.state = State.LOGIN
        self.port: LocalPort | None = None
        self.peer: Peer | None = None
        self.lost: Peer | None = None
        """Who was the peer before the link went down, or this process began."""
        self._recalls = 0
        self.listens = False
        """The port sends no FLOGI."""
        self._since = 0.0
        self._timer = NEVER
        self._answers, self._peer_answers = Allowance(64, 16), Allowance(64, 16)

    # Controller

    def memory(self) -> str:
        """The peer, if there is one."""
        return self.peer.to_text() if self.peer is not None else ""

    def remember(self, memory: str) -> None:
        """It was the peer of the process before, and may think that it is logged in."""
        if self.peer is None:
            self.lost = Peer.of_text(memory)

    @property
    def next_timer(self) -> float:
        """The next FLOGI."""
        return self._timer

    def handle_timer(self, now: float) -> None:
        """Send FLOGI until there is somebody, or LOGO to who was there."""
        if self._timer <= now:
            gave_up = self.state is State.RECALL and self._recalls >= RECALL_TRIES
            self._run(Event.GAVE_UP if gave_up else Event.TIMER, None, now)

    def add_port(self, port: LocalPort, now: float) -> None:
        """There can be one only. Raises ValueError for another."""
        if self.ports:
            raise ValueError("point-to-point mode has one port on an interface; use vn2vn mode for several")
        super().add_port(port, now)

    def receive_pdu(self, destination: bytes, source: bytes, pdu: FipPdu, now: float) -> None:  # noqa: ARG002 - all alike
        """Whatever it says."""
        raise FipError("fip_unexpected", "FIP in point-to-point mode")

    def receive_fcoe(self, destination: bytes, source: bytes, frame: Frame, now: float) -> LocalPort | None:
        """Logins are dealt with here; the rest comes from the peer."""
        peer = self.peer
        if peer is not None and frame.d_id == peer.own_fc_id and frame.s_id == peer.fc_id:
            if source in peer.macs and (destination == self.address or destination in self.addresses()):
                peer.heard = now
                if not peer.data_mac and source != peer.mac:
                    peer.data_mac = source  # from now on it is this one
                if frame.r_ctl != RCtl.EXTENDED_LINK_REPLY or frame.ox_id != FLOGI_OX_ID:
                    return self.port
                self._receive_reply(source, frame, now)
                return None
            self.services.count("fcoe_spoofed")
        elif peer is None and self.listens and self.lost is not None and self.lost.is_its(source, frame):
            self.services.count("fcoe_unexpected")
            self._run(Event.STALE, None, now)
        elif frame.type != FcType.EXTENDED_LINK_SERVICE or len(frame.payload) < 4 or self.port is None:
            self.services.count("fcoe_not_for_us")
        elif frame.r_ctl == RCtl.EXTENDED_LINK_REQUEST and frame.payload[0] == ElsCommand.LOGO and frame.s_id == F_PORT:
            self._receive_logo(source, frame, now)
        elif frame.r_ctl == RCtl.EXTENDED_LINK_REQUEST and frame.payload[0] == ElsCommand.FLOGI and frame.d_id == F_PORT:
            self._receive_flogi(source, frame, now)
        elif frame.r_ctl == RCtl.EXTENDED_LINK_REPLY and frame.ox_id == FLOGI_OX_ID:
            self._receive_reply(source, frame, now)
        else:
            self.services.count("fcoe_not_for_us")
        return None

    def route(self, port: LocalPort, d_id: int) -> bytes | None:  # noqa: ARG002 - all alike
        """To the peer."""
        return self.peer.mac + self.address if self.peer is not None and d_id == self.peer.fc_id else None

    def addresses(self) -> frozenset[bytes]:
        """The F_Port's, and the one that is made of our FC_ID."""
        own = (fabric_provided_mac(self.peer.own_fc_id),) if self.peer is not None else ()
        return frozenset((F_PORT_MAC, *own))

    def fip_addresses(self) -> frozenset[bytes]:
        """None."""
        return frozenset()

    def ended(self, now: float) -> None:
        """No FLOGIs any more."""
        super().ended(now)
        self._timer = NEVER

    def start_port(self, port: LocalPort, now: float) -> None:
        """FLOGI, at once, unless it is a target only: then an initiator asks."""
        self.port = port
        self.state = State.LOGIN
        self.listens = port.fc4.service_parameters & (FCP_INITIATOR | FCP_TARGET) == FCP_TARGET
        self._timer = NEVER if self.listens else now
        if self.listens and self.lost is not None:
            self._run(Event.REMEMBERED, None, now)

    def stop_port(self, port: LocalPort, reason: str, now: float) -> None:
        """The port has sent LOGO to its peer itself: there is no fabric to log out of."""
        self.lose_port(port, reason, now)
        self.lost = None

    def lose_port(self, port: LocalPort, reason: str, now: float) -> None:
        """Forget the peer."""
        if self.port is port:
            if self.peer is not None:
                self.peer, self.lost = None, self.peer
                self.services.port_down(port, reason, now)
                self.services.routes_changed(port)
            self.port = None
            self._timer = NEVER

    # Logins

    def _receive_flogi(self, source: bytes, frame: Frame, now: float) -> None:
        assert self.port is not None
        peer = self.peer
        answers = self._answers if peer is None or source not in peer.macs else self._peer_answers
        if not answers.take(now):
            self.services.count("fip_rate_limited")
            return
        try:
            login = Login.parse(frame.payload)
            if login.port_name == self.port.port_name:
                self.services.count("fip_conflict")
                raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME, "FLOGI with our own port name")
            no_way_back = is_multicast(source) or source == NO_MAC
            if not is_valid_name(login.port_name) or no_way_back or (login.receive_size & 0xFFF) < MIN_DATA_FIELD:
                raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_COMMON_SERVICE_PARAMETERS, "a login nobody could use")
            if peer is not None and source not in peer.macs and now < peer.heard + SILENT:
                raise ElsError(Reason.LOGICAL_BUSY, Explanation.NONE, "another N_Port is there already")
        except ElsError as e:
            self.services.count("fip_logins_refused")
            self.report(f"FLOGI of {source.hex(':')} is refused: {e}", now)
            self._send(source, els_reply(frame, Reject(reason=e.reason, explanation=e.explanation), s_id=F_PORT))
            return
        ours, theirs = (LESSER, GREATER) if login.port_name > self.port.port_name else (GREATER, LESSER)
        if self.listens and 0 < (suffix := fc_id_of_mac(source)) <= MAX_N_PORT_ID and suffix != ours:
            theirs = suffix
        size = login.receive_size & 0xFFF
        self._run(Event.FLOGI, Peer(theirs, login.port_name, login.node_name, source, size, ours, now, frame), now)

    def _receive_logo(self, source: bytes, frame: Frame, now: float) -> None:
        """The peer, as the F_Port that FLOGI was sent to, has forgotten what came of it."""
        peer = self.peer
        if peer is None or frame.d_id != peer.own_fc_id or source not in peer.macs:
            self.services.count("fcoe_not_for_us")
        elif not self._peer_answers.take(now):
            self.services.count("fip_rate_limited")
        else:
            self._send(peer.mac, els_reply(frame, Plain()))
            self._run(Event.LOGO, None, now)

    def _receive_reply(self, source: bytes, frame: Frame, now: float) -> None:
        assert self.port is not None
        if self.state is State.RECALL and (self.lost is None or frame.s_id != self.lost.fc_id or source not in self.lost.macs):
            self.services.count("fcoe_spoofed")
            return
        if frame.payload[0] != ElsCommand.LS_ACC:
            self._run(Event.REFUSED, None, now)
            return
        if self.state is State.RECALL:
            self._run(Event.ACCEPTED, None, now)
            return
        try:
            login = Login.parse(frame.payload)
        except ElsError:
            self.services.count("fcoe_unexpected")
            return
        usable = 0 < frame.d_id < F_PORT and frame.s_id not in (0, frame.d_id) and is_valid_name(login.port_name)
        if not usable or login.features & FEATURE_F_PORT or is_multicast(source) or login.port_name == self.port.port_name:
            self.log(f"{source.hex(':')}: LS_ACC of a fabric, or with addresses {frame.d_id:06x}h, {frame.s_id:06x}h")
            self.services.count("fcoe_unexpected")
            return
        size = max(login.receive_size & 0xFFF, MIN_DATA_FIELD)
        peer = Peer(frame.s_id, login.port_name, login.node_name, source, size, frame.d_id, now)
        self._run(Event.ACCEPTED, peer, now)

    def _run(self, event: Event, peer: Peer | None, now: float) -> None:
        step = LINK.get((self.state, event))
        if step is None:
            return
        if step.state is not self.state:
            self.log(f"{self.state.value}, {event.value}: {step.state.value}")
        self.state = step.state
        getattr(self, f"_{step.action}")(peer, now)

    # Actions

    def _send(self, destination: bytes, frame: bytes) -> None:
        prefix = destination + self.address + _ETHERTYPE
        self.services.transmit(encapsulate(prefix, SOF_I3, frame[:24], frame[24:], EOF_T))

    def _payload(self, command: int) -> Payload:
        assert self.port is not None
        return self.login_payload(command, self.port.port_name, self.port.node_name, word_3=round(E_D_TOV * 1000))

    def _send_flogi(self, _peer: Peer | None, now: float) -> None:
        self._timer = now + FLOGI_PERIOD
        self._send(F_PORT_MAC, els_request(F_PORT, NO_FC_ID, FLOGI_OX_ID, self._payload(ElsCommand.FLOGI)))

    def _wait(self, _peer: Peer | None, now: float) -> None:
        self._timer = now + FLOGI_PERIOD

    def _wait_for_flogi(self, _peer: Peer | None, now: float) -> None:
        self._recalls = 0
        self._timer = now + RECALL_DELAY

    def _send_logo(self, _peer: Peer | None, now: float) -> None:
        """It has sent FLOGI to the F_Port, so that it is the F_Port that ends what came of it."""
        assert self.port is not None
        assert self.lost is not None
        self._recalls += 1
        self._timer = now + RECALL_PERIOD
        self.log(f"{self.lost.port_name.hex(':')} is told that it is logged out")
        self._send(self.lost.mac, els_request(self.lost.fc_id, F_PORT, FLOGI_OX_ID, Logo(F_PORT, self.port.port_name)))

    def _forget(self, _peer: Peer | None, now: float) -> None:
        """It knows, and what it has yet to send of the login before is no reason to tell it once more."""
        self.lost = None
        self._listen(None, now)

    def _listen(self, _peer: Peer | None, now: float) -> None:  # noqa: ARG002 - all alike
        self._recalls = 0
        self._timer = NEVER

    def _reply(self, peer: Peer) -> None:
        assert peer.request is not None
        reply = els_reply(peer.request, self._payload(ElsCommand.LS_ACC), s_id=peer.own_fc_id, d_id=peer.fc_id)
        self._send(peer.mac, reply)
        peer.request = None

    def _accept(self, peer: Peer, now: float) -> None:
        self._reply(peer)
        self._bring_up(peer, now)

    def _accept_again(self, peer: Peer, now: float) -> None:
        """One that crossed ours changes nothing; else the peer has lost what it knew (FC-LS-2 clause 6.2.2)."""
        assert self.peer is not None
        if self.peer.port_name == peer.port_name and now < self._since + CROSSED:
            peer.fc_id, peer.own_fc_id = self.peer.fc_id, self.peer.own_fc_id
            self._reply(peer)
            return
        assert self.port is not None
        self.services.port_down(self.port, "FLOGI again", now)
        self._accept(peer, now)

    def _log_in_again(self, _peer: Peer | None, now: float) -> None:
        assert self.port is not None
        self.peer = None
        self.services.port_down(self.port, "the peer has logged us out", now)
        self.services.routes_changed(self.port)
        self._timer = NEVER if self.listens else now

    def _bring_up(self, peer: Peer, now: float) -> None:
        assert self.port is not None
        self.peer, self.lost = peer, None
        self._timer = NEVER
        self._since = now
        self.services.port_up(
            self.port,
            peer.own_fc_id,
            fabric=False,
            e_d_tov=E_D_TOV,
            r_a_tov=2 * E_D_TOV,
            receive_size=min(self.receive_size, peer.receive_size),
            now=now,
        )
        self.services.routes_changed(self.port)
        self.services.remote_up(self.port, peer.fc_id, peer.port_name, peer.node_name, now)
