"""Mode ``fabric``: an ENode behind an FCF (FC-BB-5 clauses 7.4, 7.9). What it does when is in :mod:`.enode_tables`.

It is longer than most files because the actions of both tables, of the ENode and of its ports, are methods of one class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_fcoe.protocol import enode_tables as tables
from tcm_fcoe.protocol import ethernet, fip
from tcm_fcoe.protocol.controller import (
    E_D_TOV,
    NEVER,
    R_A_TOV,
    Allowance,
    Controller,
    LocalPort,
    els_reply,
    els_request,
    encapsulated_els,
)
from tcm_fcoe.protocol.els import Logo, Plain, Reject, parse_reply
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import FEATURE_F_PORT, FEATURE_MULTIPLE_N_PORT_ID, FEATURE_VALID_VENDOR_VERSION, Login
from tcm_fcoe.protocol.els_payload import ElsError
from tcm_fcoe.protocol.enode_fcfs import MAX_FCFS, Fcf, VnPort, advertised, choose
from tcm_fcoe.protocol.enode_tables import FabricEvent, FabricState, LoginEvent, LoginState
from tcm_fcoe.protocol.fcoe import MIN_DATA_FIELD
from tcm_fcoe.protocol.fip import FipError, FipPdu, Flag, Pdu
from tcm_fcoe.protocol.names import (
    FIRST_WELL_KNOWN_ADDRESS,
    NO_FC_ID,
    NO_NAME,
    WellKnownAddress,
    fabric_provided_mac,
    format_fc_id,
    is_multicast,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tcm_fcoe.protocol.controller import ControllerServices
    from tcm_fcoe.protocol.frame import Frame


class ENodeController(Controller):
    """One ENode; its first port logs in with FLOGI, the others with FDISC.

    :param discover_vlan: ask for the VLAN before anything else.
    :param spma: propose the interface's own MAC address for the first port.
    """

    mode = "fabric"
    ADDRESSES = frozenset((ethernet.ALL_ENODE_MACS,))

    def __init__(
        self,
        services: ControllerServices,
        address: bytes,
        *,
        rng: random.Random,
        mtu: int = 2500,
        vlan: int = 0,
        discover_vlan: bool = False,
        spma: bool = False,
    ) -> None:
        super().__init__(services, address, rng=rng, mtu=mtu, vlan=vlan)
        self.discover_vlan = discover_vlan
        self.spma = spma
        self.state = FabricState.SOLICIT
        self.fcfs: dict[tuple[bytes, bytes], Fcf] = {}
        """By MAC address and switch name."""
        self.fcf: Fcf | None = None
        """The one that is selected."""
        self._empty_vlans: set[int] = set()
        """Those in which no FCF has answered: others come first."""
        self._complained = False
        self.vn_ports: dict[bytes, VnPort] = {}
        """By port name; the first sends FLOGI."""
        self._by_mac: dict[bytes, VnPort] = {}
        self._timer = NEVER
        self._tries = 0
        self._failures = 0
        """FLOGIs in a row that no FCF has accepted."""
        self._keep_alive = NEVER
        self._solicited = -NEVER
        self._answers = Allowance(64, 16)

    # Controller

    @property
    def next_timer(self) -> float:
        """The first of all timers."""
        return min(self._timers())

    def _timers(self) -> Iterator[float]:
        yield self._timer
        yield self._keep_alive
        for vn_port in self.vn_ports.values():
            yield min(vn_port.timer, vn_port.keep_alive)
        for fcf in self.fcfs.values():
            yield fcf.lost_at if fcf.late or fcf is not self.fcf else fcf.heard + tables.LATE * fcf.period

    def handle_timer(self, now: float) -> None:
        """Solicit, select, log in, keep alive, forget FCFs that are silent."""
        self._age(now)
        if self._timer <= now:
            self._fabric(self._next_step(), now)
        for vn_port in list(self.vn_ports.values()):
            if vn_port.timer <= now:
                if vn_port.state is LoginState.OUT:
                    self._log_in(vn_port, now)
                else:
                    gave_up = vn_port.tries >= tables.LOGIN_TRIES
                    self._login(vn_port, LoginEvent.GAVE_UP if gave_up else LoginEvent.TIMER, now)
        self._send_keep_alives(now)

    def _next_step(self) -> FabricEvent:
        """What the timer means."""
        if self.state is FabricState.VLAN and self._tries >= tables.VLAN_TRIES:
            return FabricEvent.NO_VLANS
        if self.discover_vlan and self.state is FabricState.SOLICIT and not self.fcfs and self._tries >= tables.SOLICIT_TRIES:
            return FabricEvent.NO_FCF
        return FabricEvent.TIMER

    def receive_fcoe(self, destination: bytes, source: bytes, frame: Frame, now: float) -> LocalPort | None:  # noqa: ARG002 - all alike
        """From the FCF only, to the MAC address that it has granted."""
        vn_port = self._by_mac.get(destination)
        if vn_port is None or frame.d_id != vn_port.fc_id:
            self.services.count("fcoe_not_for_us")
            return None
        if self.fcf is None or source != self.fcf.fcoe_mac:
            self.services.count("fcoe_spoofed")
            return None
        return vn_port.port

    def route(self, port: LocalPort, d_id: int) -> bytes | None:  # noqa: ARG002 - all alike
        """All goes to the FCF."""
        vn_port = self.vn_ports.get(port.port_name)
        if self.fcf is None or vn_port is None or vn_port.state is not LoginState.IN:
            return None
        return self.fcf.fcoe_mac + vn_port.mac

    def has_link_with(self, source: bytes) -> bool:
        """The FCF that is selected."""
        return self.fcf is not None and source == self.fcf.mac

    def addresses(self) -> frozenset[bytes]:
        """The group of ENodes, and what was granted."""
        return self.ADDRESSES | self._by_mac.keys()

    def fip_addresses(self) -> frozenset[bytes]:
        """The group of ENodes, and the ENode itself."""
        return self.ADDRESSES | {self.address}

    def started(self, now: float) -> None:
        """Ask for VLANs, or look for FCFs at once."""
        super().started(now)
        self.state = FabricState.VLAN if self.discover_vlan else FabricState.SOLICIT
        self._timer, self._tries = now, 0

    def ended(self, now: float) -> None:
        """Forget all FCFs."""
        super().ended(now)
        self.fcfs.clear()
        self.fcf = None
        self._timer = self._keep_alive = NEVER

    def start_port(self, port: LocalPort, now: float) -> None:
        """Log it in when there is an FCF."""
        vn_port = self.vn_ports[port.port_name] = VnPort(port)
        self._log_in(vn_port, now)

    def stop_port(self, port: LocalPort, reason: str, now: float) -> None:
        """LOGO; if it is the first, all others are logged out with it and log in again."""
        vn_port = self.vn_ports.get(port.port_name)
        if vn_port is None:
            return
        first = vn_port is self._first
        vn_port.reason = reason
        self._login(vn_port, LoginEvent.STOPPED, now)
        del self.vn_ports[port.port_name]
        if first and self.fcf is not None:
            self._lose_ports("the ENode's first port has logged out", now)
            for each in list(self.vn_ports.values()):
                self._log_in(each, now)

    def lose_port(self, port: LocalPort, reason: str, now: float) -> None:
        """Without a word."""
        vn_port = self.vn_ports.pop(port.port_name, None)
        if vn_port is not None:
            vn_port.reason = reason
            self._login(vn_port, LoginEvent.LOST, now)

    @property
    def _first(self) -> VnPort | None:
        return next(iter(self.vn_ports.values()), None)

    # FIP frames that come

    def receive_pdu(self, destination: bytes, source: bytes, pdu: FipPdu, now: float) -> None:  # noqa: ARG002 - all alike
        """Raises :class:`FipError` to drop it."""
        if pdu.pdu is Pdu.ADVERTISEMENT:
            self._advertisement(source, pdu, now)
        elif pdu.pdu is Pdu.VIRTUAL_LINK_REPLY:
            self._reply(source, pdu, now)
        elif pdu.pdu is Pdu.VIRTUAL_LINK_REQUEST:
            self._logged_out(source, pdu, now)
        elif pdu.pdu is Pdu.CLEAR_VIRTUAL_LINKS:
            self._cleared(source, pdu, now)
        elif pdu.pdu is Pdu.VLAN_NOTIFICATION and self.state is FabricState.VLAN:
            vlans = [each.vlan for each in pdu.all(fip.Vlan)]
            if not vlans or pdu.get(fip.MacAddress).address != source:
                raise FipError("fip_malformed", "a VLAN notification without a VLAN, or for another")
            self.vlan = next((each for each in vlans if each not in self._empty_vlans), vlans[0])
            self._empty_vlans.difference_update(vlans if self.vlan in self._empty_vlans else ())
            self._tries = 0
            self.services.vlan_found(self.vlan)
            self._fabric(FabricEvent.VLANS, now)
        else:
            raise FipError("fip_unexpected", f"{pdu.pdu.name.lower()} at an ENode")

    def _advertisement(self, source: bytes, pdu: FipPdu, now: float) -> None:
        fcf = advertised(source, pdu, now)
        if self.state is FabricState.VLAN:
            return
        key = (fcf.mac, fcf.switch_name)
        known = self.fcfs.get(key)
        if known is None:
            if len(self.fcfs) >= MAX_FCFS:
                of_no_use = (k for k, each in self.fcfs.items() if each is not self.fcf and (each.tried or not each.usable))
                oldest = next(of_no_use, None)
                if oldest is None:
                    raise FipError("fip_table_full", f"more than {MAX_FCFS} FCFs")
                del self.fcfs[oldest]
            self.fcfs[key] = known = fcf
        elif (known.fabric_name, known.fc_map, known.vf_id) != (fcf.fabric_name, fcf.fc_map, fcf.vf_id):
            raise FipError("fip_conflict", f"FCF {fcf.mac.hex(':')} has changed its fabric")
        known.heard, known.late = now, False
        known.period, known.no_keep_alives, known.priority = fcf.period, fcf.no_keep_alives, fcf.priority
        known.flags = fcf.flags
        known.full_size |= bool(pdu.flags & Flag.SOLICITED)
        if not known.full_size and self._solicited + tables.SELECT_DELAY <= now:
            self._solicited = now
            self._send_solicitation(known.mac)
        if known is self.fcf:
            self._schedule_keep_alives(known, now)
        if known.usable:
            self._fabric(FabricEvent.ADVERTISED, now)

    def _reply(self, source: bytes, pdu: FipPdu, now: float) -> None:
        descriptor, frame = encapsulated_els(pdu)
        fcf = self.fcf
        if fcf is None or source != fcf.mac:
            raise FipError("fip_spoofed", f"{source.hex(':')} is not the FCF")
        vn_port = next((each for each in self.vn_ports.values() if each.ox_id == frame.ox_id), None)
        if isinstance(descriptor, fip.Logo):
            return
        if vn_port is None or vn_port.state is not LoginState.SENT or type(descriptor) is not self._kind(vn_port):
            raise FipError("fip_unexpected", "an answer to no login of ours")
        try:
            login = parse_reply(ElsCommand.FLOGI, frame.payload)
        except ElsError as e:
            raise FipError("fip_malformed", str(e)) from None
        if not isinstance(login, Login):
            assert isinstance(login, Reject)
            name = vn_port.port.port_name.hex(":")
            self.report(f"the FCF refuses {name}: reason {login.reason:02x}h, explanation {login.explanation:02x}h", now)
            self.services.count("fip_logins_refused")
            self._login(vn_port, LoginEvent.REFUSED, now)
            return
        macs = [each.address for each in pdu.all(fip.MacAddress)]
        mac = macs[0] if macs else b""
        wanted = (fabric_provided_mac(frame.d_id, fcf.fc_map), self.address if self._spma(vn_port) else None)
        if not 0 < frame.d_id < FIRST_WELL_KNOWN_ADDRESS or mac not in wanted or not login.features & FEATURE_F_PORT:
            raise FipError("fip_malformed", f"FC_ID {format_fc_id(frame.d_id)} with MAC address {mac.hex(':')}")
        if (login.receive_size & 0xFFF) < MIN_DATA_FIELD or mac in self._by_mac:
            raise FipError("fip_malformed", "a login that nobody could use")
        if vn_port is self._first:
            fcf.fcoe_mac = macs[1] if len(macs) > 1 and not is_multicast(macs[1]) else fcf.mac
        vn_port.fc_id, vn_port.mac, vn_port.login = frame.d_id, mac, login
        self._login(vn_port, LoginEvent.ACCEPTED, now)

    def _logged_out(self, source: bytes, pdu: FipPdu, now: float) -> None:
        """LOGO of the F_Port: accepted if it is for a VN_Port that is logged in there, otherwise refused (FC-LS-2 4.2.5)."""
        descriptor, frame = encapsulated_els(pdu)
        if self.fcf is None or source != self.fcf.mac:
            raise FipError("fip_spoofed", f"{source.hex(':')} is not the FCF")
        is_logo = isinstance(descriptor, fip.Logo) and frame.payload[0] == ElsCommand.LOGO
        if not is_logo or frame.s_id != WellKnownAddress.FABRIC_LOGIN_SERVER:
            raise FipError("fip_unexpected", f"ELS {frame.payload[0]:02x}h of {format_fc_id(frame.s_id)} at an ENode")
        if not self._answers.take(now):
            raise FipError("fip_rate_limited", "more than there are answers for")
        vn_port = next((each for each in self._by_mac.values() if each.fc_id == frame.d_id), None)
        if vn_port is None:
            refusal = Reject(reason=Reason.UNABLE_TO_PERFORM, explanation=Explanation.N_PORT_LOGIN_REQUIRED)
            reply = FipPdu(Pdu.VIRTUAL_LINK_REPLY, (fip.Logo(els_reply(frame, refusal)),))
            self.services.transmit(self.fip_frame(source, reply))
            return
        if pdu.get(fip.MacAddress).address not in (vn_port.mac, source):
            raise FipError("fip_spoofed", "LOGO with another's MAC address")
        accept = FipPdu(Pdu.VIRTUAL_LINK_REPLY, (fip.Logo(els_reply(frame, Plain())), fip.MacAddress(vn_port.mac)))
        self.services.transmit(self.fip_frame(source, accept))
        vn_port.reason = LoginEvent.LOGGED_OUT.value
        self.report(f"the FCF has logged {vn_port.port.port_name.hex(':')} out", now)
        self._login(vn_port, LoginEvent.LOGGED_OUT, now)

    def _cleared(self, source: bytes, pdu: FipPdu, now: float) -> None:
        fcf = self.fcf
        if fcf is None or source != fcf.mac or pdu.get(fip.MacAddress).address != fcf.mac:
            raise FipError("fip_spoofed", f"Clear Virtual Links of {source.hex(':')}, which is not the FCF")
        if pdu.get(fip.NameIdentifier).name != fcf.switch_name:
            raise FipError("fip_spoofed", "Clear Virtual Links with another switch's name")
        listed = {(each.address, each.fc_id, each.port_name) for each in pdu.all(fip.VxPort)}
        ours = [each for each in self.vn_ports.values() if not listed or (each.mac, each.fc_id, each.port.port_name) in listed]
        if not ours:
            raise FipError("fip_unexpected", "Clear Virtual Links of nothing of ours")
        self.services.count("virtual_link_failures")
        if not listed or self._first in ours:
            self._fabric(FabricEvent.CLEARED, now)
            return
        for vn_port in ours:
            vn_port.reason = FabricEvent.CLEARED.value
            self._login(vn_port, LoginEvent.LOST, now)
            vn_port.timer = now + tables.SELECT_DELAY

    # The tables

    def _fabric(self, event: FabricEvent, now: float) -> None:
        step = tables.FABRIC.get((self.state, event))
        if step is None:
            return
        if step.state is not self.state:
            self.log(f"{self.state.value}, {event.value}: {step.state.value}")
        self.state = step.state
        self._timer = NEVER
        if step.action == "start_again":
            self._lose_ports(event.value, now)
        getattr(self, f"_{step.action}")(now)

    def _login(self, vn_port: VnPort, event: LoginEvent, now: float) -> None:
        step = tables.LOGIN.get((vn_port.state, event))
        if step is None:
            return
        if step.state is not vn_port.state:
            self.log(f"{vn_port.port.port_name.hex(':')}: {vn_port.state.value}, {event.value}: {step.state.value}")
        vn_port.state = step.state
        vn_port.timer = NEVER
        if step.action:
            getattr(self, f"_{step.action}")(vn_port, now)

    # Actions of the ENode

    def _request_vlans(self, now: float) -> None:
        self._tries += 1
        self._timer = now + tables.VLAN_TIMEOUT
        pdu = FipPdu(Pdu.VLAN_REQUEST, (fip.MacAddress(self.address),), Flag.FPMA)
        self.services.transmit_untagged(self.fip_frame(ethernet.ALL_FCF_MACS, pdu))

    def _solicit_untagged(self, now: float) -> None:
        """Nobody knows a VLAN: the interface's own."""
        self.vlan = self._tries = 0
        self.services.vlan_found(0)
        self._solicit(now)

    def _look_elsewhere(self, now: float) -> None:
        """The VLAN may have been a wrong one, or has no FCF any more."""
        self._empty_vlans.add(self.vlan)
        self._tries = 0
        self._request_vlans(now)

    def _solicit(self, now: float) -> None:
        self._tries = self._tries + 1 if self.state is FabricState.SOLICIT and not self.fcfs else 0
        if self._tries == tables.SOLICIT_TRIES and not self._complained:
            self._complained = True
            self.report("no FCF has answered yet; solicitations go on", now)
        self._timer = now + tables.SOLICIT_PERIOD
        self._solicited = now
        self._send_solicitation(ethernet.ALL_FCF_MACS)

    def _send_solicitation(self, destination: bytes) -> None:
        first = self._first
        node_name = first.port.node_name if first else NO_NAME
        descriptors = (fip.MacAddress(self.address), fip.NameIdentifier(node_name), fip.MaxFcoeSize(self.max_fcoe_size))
        flags = Flag.FPMA | (Flag.SPMA if self.spma else fip.NO_FLAGS)
        self.services.transmit(self.fip_frame(destination, FipPdu(Pdu.SOLICITATION, descriptors, flags)))

    def _wait(self, now: float) -> None:
        self._timer = now + tables.SELECT_DELAY

    def _select(self, now: float) -> None:
        usable = [each for each in self.fcfs.values() if each.usable]
        if not usable:
            self.state = FabricState.SOLICIT
            self._solicit(now)
            return
        self.fcf = choose(usable, self._failures)
        self._complained = False
        self._empty_vlans.clear()
        self.fcf.fcoe_mac = self.fcf.mac
        self._schedule_keep_alives(self.fcf, now)
        for vn_port in list(self.vn_ports.values()):
            self._log_in(vn_port, now)

    def _start_again(self, now: float) -> None:
        """Another FCF may be there; or the same says that it is available again."""
        if self.fcf is not None:
            self.fcf.full_size = False
        self.fcf = None
        self._keep_alive = NEVER
        self._solicit(now)

    def _lose_ports(self, reason: str, now: float) -> None:
        for vn_port in self.vn_ports.values():
            vn_port.reason = reason
            self._login(vn_port, LoginEvent.LOST, now)
            vn_port.timer = NEVER

    def _age(self, now: float) -> None:
        for key, fcf in list(self.fcfs.items()):
            if fcf.lost_at <= now:
                del self.fcfs[key]
                if fcf is self.fcf:
                    self.services.count("virtual_link_failures")
                    self._fabric(FabricEvent.LOST, now)
                elif self.state is FabricState.SELECT and not any(each.usable for each in self.fcfs.values()):
                    self._fabric(FabricEvent.LOST, now)
            elif fcf is self.fcf and not fcf.late and fcf.heard + tables.LATE * fcf.period <= now:
                fcf.late = True
                self.services.count("missed_advertisements")

    def _schedule_keep_alives(self, fcf: Fcf, now: float) -> None:
        """No later than they are due; none if the FCF wants none."""
        none = fcf.no_keep_alives
        self._keep_alive = NEVER if none else min(self._keep_alive, now + fcf.period)
        for vn_port in self._by_mac.values():
            vn_port.keep_alive = NEVER if none else min(vn_port.keep_alive, now + tables.VN_KEEP_ALIVE_PERIOD)

    def _send_keep_alives(self, now: float) -> None:
        fcf = self.fcf
        if fcf is None:
            return
        if self._keep_alive <= now:
            self._keep_alive = now + fcf.period
            pdu = FipPdu(Pdu.KEEP_ALIVE, (fip.MacAddress(self.address),))
            self.services.transmit(self.fip_frame(fcf.mac, pdu))
        for vn_port in self.vn_ports.values():
            if vn_port.keep_alive <= now:
                vn_port.keep_alive = now + tables.VN_KEEP_ALIVE_PERIOD
                identity = fip.VxPort(vn_port.mac, vn_port.fc_id, vn_port.port.port_name)
                pdu = FipPdu(Pdu.KEEP_ALIVE, (fip.MacAddress(self.address), identity))
                self.services.transmit(self.fip_frame(fcf.mac, pdu, source=vn_port.mac))

    # Actions of a port

    def _kind(self, vn_port: VnPort) -> type[fip.Encapsulated]:
        return fip.Flogi if vn_port is self._first else fip.Fdisc

    def _spma(self, vn_port: VnPort) -> bool:
        return self.spma and vn_port is self._first

    def _log_in(self, vn_port: VnPort, now: float) -> None:
        """If it can: FDISC follows FLOGI, and only where the fabric has addresses for more."""
        first = self._first
        if self.fcf is None or first is None:
            return
        if vn_port is not first:
            if first.login is None or first.state is not LoginState.IN:
                return
            if not first.login.features & FEATURE_VALID_VENDOR_VERSION:
                name = vn_port.port.port_name.hex(":")
                self.report(f"{name} stays down: the fabric gives one address to an interface (no NPIV)", now)
                return
        vn_port.tries = 0
        self._login(vn_port, LoginEvent.LOGIN, now)

    def _send(self, vn_port: VnPort, descriptor: fip.Encapsulated, mac: bytes) -> None:
        assert self.fcf is not None
        flags = Flag.FPMA | (Flag.SPMA if self._spma(vn_port) else fip.NO_FLAGS)
        flags &= self.fcf.flags | Flag.FPMA
        pdu = FipPdu(Pdu.VIRTUAL_LINK_REQUEST, (descriptor, fip.MacAddress(mac)), flags)
        self.services.transmit(self.fip_frame(self.fcf.mac, pdu))

    def _send_login(self, vn_port: VnPort, now: float) -> None:
        vn_port.tries += 1
        vn_port.ox_id = self.next_ox_id()
        vn_port.timer = now + tables.LOGIN_TIMEOUT
        kind = self._kind(vn_port)
        payload = self.login_payload(
            ElsCommand.FLOGI if kind is fip.Flogi else ElsCommand.FDISC,
            vn_port.port.port_name,
            vn_port.port.node_name,
            features=FEATURE_MULTIPLE_N_PORT_ID if kind is fip.Flogi else 0,
        )
        request = els_request(WellKnownAddress.FABRIC_LOGIN_SERVER, NO_FC_ID, vn_port.ox_id, payload)
        self._send(vn_port, kind(request), self.address if self._spma(vn_port) else bytes(6))

    def _bring_up(self, vn_port: VnPort, now: float) -> None:
        login = vn_port.login
        assert login is not None
        assert self.fcf is not None
        self._by_mac[vn_port.mac] = vn_port
        self._schedule_keep_alives(self.fcf, now)
        self.services.port_up(
            vn_port.port,
            vn_port.fc_id,
            fabric=True,
            e_d_tov=login.e_d_tov or E_D_TOV,
            r_a_tov=login.r_a_tov or R_A_TOV,
            receive_size=min(self.receive_size, login.receive_size & 0xFFF),
            now=now,
        )
        self.services.routes_changed(vn_port.port)
        if vn_port is self._first:
            self._failures = 0
            for each in list(self.vn_ports.values()):
                if each.state is LoginState.OUT:
                    self._log_in(each, now)

    def _bring_down(self, vn_port: VnPort, now: float) -> None:
        self._by_mac.pop(vn_port.mac, None)
        vn_port.keep_alive = NEVER
        vn_port.login = None
        self.services.port_down(vn_port.port, vn_port.reason, now)
        self.services.routes_changed(vn_port.port)

    def _accept_logo(self, vn_port: VnPort, now: float) -> None:
        """The virtual link is gone; those that FDISC made go with the one that FLOGI did."""
        first = vn_port is self._first
        self._bring_down(vn_port, now)
        if first:
            self._lose_ports(vn_port.reason, now)
        vn_port.timer = now + tables.SELECT_DELAY

    def _log_out(self, vn_port: VnPort, now: float) -> None:
        payload = Logo(n_port_id=vn_port.fc_id, port_name=vn_port.port.port_name)
        request = els_request(WellKnownAddress.FABRIC_LOGIN_SERVER, vn_port.fc_id, self.next_ox_id(), payload)
        self._send(vn_port, fip.Logo(request), vn_port.mac)
        self._bring_down(vn_port, now)

    def _try_later(self, vn_port: VnPort, now: float) -> None:
        """It is refused: by another FCF, if there is one that has yet to be asked, or later on."""
        others = any(each.usable and not each.tried and each is not self.fcf for each in self.fcfs.values())
        if vn_port is self._first and others:
            self._not_accepted(now)
        else:
            vn_port.timer = now + tables.REFUSED_DELAY

    def _not_accepted(self, now: float) -> None:
        assert self.fcf is not None
        self.fcf.tried, self.fcf.waiting = True, now
        self._failures += 1
        self._fabric(FabricEvent.GAVE_UP, now)

    def _give_up(self, vn_port: VnPort, now: float) -> None:
        if vn_port is self._first and self.fcf is not None:
            self.report(f"FCF {self.fcf.mac.hex(':')} does not answer FLOGI", now)
            self._not_accepted(now)
        else:
            self._try_later(vn_port, now)
