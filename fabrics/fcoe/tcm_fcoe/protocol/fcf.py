"""Mode ``fcf``: the station is the FCoE forwarder (FC-BB-5 clauses 7.4, 7.9), and with :class:`Switch` the fabric behind it.

ENodes find it by solicitations and advertisements, log in by FIP, and keep their virtual links by keep-alives. Our own N_Ports
are plugged in directly, and use its services as others do (:mod:`.fcf_local`). Frames go to and from VN_Ports by way of the
FCF's MAC address only, as class 3 has it: what cannot be delivered is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm_fcoe.protocol import ethernet, fip
from tcm_fcoe.protocol import fcf_tables as tables
from tcm_fcoe.protocol.controller import (
    BB_CREDIT,
    E_D_TOV,
    NEVER,
    R_A_TOV,
    Allowance,
    Controller,
    LocalPort,
    els_reply,
    encapsulated_els,
    features_of,
)
from tcm_fcoe.protocol.els import Plain, Reject
from tcm_fcoe.protocol.els import parse_request as parse_els
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import (
    CLASS_SEQUENTIAL_DELIVERY,
    CLASS_VALID,
    FEATURE_F_PORT,
    FEATURE_MULTIPLE_N_PORT_ID,
    FEATURE_VALID_VENDOR_VERSION,
    ClassParameters,
    Login,
)
from tcm_fcoe.protocol.els_payload import ElsError, Payload
from tcm_fcoe.protocol.fcf_enodes import COMMANDS, RECEIVE, Attempt, ENode, check_source
from tcm_fcoe.protocol.fcf_errors import VirtualLinkErrors
from tcm_fcoe.protocol.fcf_local import LocalFrames
from tcm_fcoe.protocol.fcf_tables import VirtualLinkEvent, VirtualLinkState
from tcm_fcoe.protocol.fcoe import encapsulate
from tcm_fcoe.protocol.fip import FipError, FipPdu, Flag, Pdu
from tcm_fcoe.protocol.frame import FcType, Frame
from tcm_fcoe.protocol.names import (
    DEFAULT_FC_MAP,
    NO_FC_ID,
    WellKnownAddress,
    fabric_provided_mac,
    fc_id_of_mac,
    format_fc_id,
    is_multicast,
    name_from_mac,
)
from tcm_fcoe.protocol.switch import AttachedPort, Switch

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tcm_fcoe.protocol.controller import ControllerServices
    from tcm_fcoe.protocol.els import LinkErrorStatus
    from tcm_fcoe.protocol.fcoe import Buffer

FCOE_ETHERTYPE = b"\x89\x06"
SWITCH_QUALIFIER, F_PORT_QUALIFIER = 0xFFF, 0xFFE
NO_MAC = bytes(6)
FEATURE_NPIV_GRANTED = FEATURE_VALID_VENDOR_VERSION
"""In LS_ACC to FLOGI: the fabric gives several addresses to one port (FC-LS-2 table 150)."""

MAX_PORTS_PER_ENODE = 256
"""N_Ports of one ENode that are logged in at once: a quarter of what there is room for."""


class FcfController(Controller):
    """One FCF-MAC.

    :param fc_map: FC-MAP of the fabric.
    :param priority: for ENodes that see several FCFs; the least is preferred.
    :param spma: grant server-provided MAC addresses to ENodes that take no others.
    """

    mode = "fcf"
    ADDRESSES = frozenset((ethernet.ALL_FCF_MACS,))

    def __init__(
        self,
        services: ControllerServices,
        address: bytes,
        *,
        rng: random.Random,
        mtu: int = 2500,
        vlan: int = 0,
        fc_map: int = DEFAULT_FC_MAP,
        priority: int = 128,
        spma: bool = True,
        domain: int = 1,
    ) -> None:
        super().__init__(services, address, rng=rng, mtu=mtu, vlan=vlan)
        self.fc_map = fc_map
        self.priority = priority
        self.spma = spma
        self.name = name_from_mac(address, qualifier=SWITCH_QUALIFIER)
        """Of switch and fabric."""
        self.switch = Switch(self, self.name, receive_size=self.receive_size, domain=domain)
        self._attached = self.switch.ports
        self._local = LocalFrames(self.switch)
        self.enodes: dict[bytes, ENode] = {}
        """By MAC address."""
        self._errors = VirtualLinkErrors()
        self._advertise_at = NEVER
        self._sweep_at = NEVER
        self._answers = Allowance(2048, 1024)
        """For who is not logged in."""

    # Controller

    @property
    def next_timer(self) -> float:
        """The next advertisement, the next silent ENode, the next notification, or what ports of ours have yet to be told."""
        return min(self._advertise_at, self._sweep_at, self.switch.next_timer, self._local.next_timer)

    def handle_timer(self, now: float) -> None:
        """Advertise, clear virtual links that are not kept alive, notify of changes."""
        if self._advertise_at <= now:
            self._advertise(ethernet.ALL_ENODE_MACS)
            self._advertise_at = now + tables.FKA_ADV_PERIOD + self.rng.random() * tables.ADVERTISEMENT_FUZZ
        if self._sweep_at <= now:
            self._sweep(now)
        if self.switch.next_timer <= now:
            self.switch.handle_timer(now)
        self._local.deliver(self.services.received, now)

    def send_link_service(self, port: LocalPort, header: bytes, payload: bytes, now: float) -> bool:
        """To a service of the fabric."""
        return self._local.take(port, header, payload, now)

    def receive_fcoe(self, destination: bytes, source: bytes, frame: Frame, now: float) -> LocalPort | None:
        """For a port of ours, for a service of the fabric, or for another VN_Port."""
        attached = self._attached.get(frame.s_id)
        if destination != self.address:
            self.services.count("fcoe_not_for_us")
            return None
        if attached is None or attached.mac != source:
            self.services.count("fcoe_spoofed")
            return None
        to = self._attached.get(frame.d_id)
        if to is None:
            self.switch.receive(attached, frame, now)
            return None
        if to.port is None:
            packed = frame.pack()
            prefix = to.mac + self.address + FCOE_ETHERTYPE
            self.services.transmit(encapsulate(prefix, frame.sof, packed[:24], packed[24:], frame.eof))
        return to.port

    def route(self, port: LocalPort, d_id: int) -> bytes | None:  # noqa: ARG002 - all alike
        """To a VN_Port that is logged in."""
        to = self.switch.ports.get(d_id)
        return to.mac + self.address if to is not None and to.port is None else None

    def has_link_with(self, source: bytes) -> bool:
        """An ENode, or the VN_Port of one."""
        if source in self.enodes:
            return True
        attached = self._attached.get(fc_id_of_mac(source))
        return attached is not None and attached.mac == source

    def port_name_of(self, fc_id: int) -> bytes | None:
        """That of its FLOGI or FDISC."""
        attached = self.switch.ports.get(fc_id)
        return attached.port_name if attached is not None else None

    def addresses(self) -> frozenset[bytes]:
        """The group of FCFs."""
        return self.ADDRESSES

    def fip_addresses(self) -> frozenset[bytes]:
        """The group of FCFs, and the FCF-MAC."""
        return self.ADDRESSES | {self.address}

    def started(self, now: float) -> None:
        """The first advertisement goes out at once."""
        super().started(now)
        self._advertise_at = now

    def ended(self, now: float) -> None:
        """Without a word, or with Clear Virtual Links when each port has been stopped."""
        super().ended(now)
        for enode in self.enodes.values():
            for port_name in enode.ports:
                self._errors.failed(port_name)
        self.enodes.clear()
        self.switch.clear()
        self._local.clear()
        self._advertise_at = self._sweep_at = NEVER

    def stop(self, now: float) -> None:
        """Clear all virtual links, and say that there are to be none any more."""
        if self.link_is_up:
            for enode in list(self.enodes.values()):
                self._clear_enode(enode, VirtualLinkEvent.STOPPED, "the FCF stops", now)
            self._advertise(ethernet.ALL_ENODE_MACS, available=False)
        super().stop(now)

    def start_port(self, port: LocalPort, now: float) -> None:
        """Plug in a port of ours; who has its name gives way. Raises ValueError if there is no room for it."""
        other = self.switch.by_name.get(port.port_name)
        if other is not None:
            self.report(f"{other.enode.hex(':')} has port name {port.port_name.hex(':')}, which is ours: it is logged out", now)
            login = Attempt(other.enode, other.port_name, other, reason="its name is another's")
            self._link(login, VirtualLinkEvent.STOPPED, now)
        try:
            attached = self.switch.attach(
                port.port_name,
                port.node_name,
                now,
                receive_size=self.receive_size,
                port=port,
                features={int(FcType.FCP): features_of(port)},
            )
        except ElsError as e:
            raise ValueError(f"port name {port.port_name.hex(':')}: {e}") from None
        self.services.port_up(
            port, attached.fc_id, fabric=True, e_d_tov=E_D_TOV, r_a_tov=R_A_TOV, receive_size=self.receive_size, now=now
        )

    def stop_port(self, port: LocalPort, reason: str, now: float) -> None:
        """Unplug it; who has registered for state changes is told."""
        self.lose_port(port, reason, now)

    def lose_port(self, port: LocalPort, reason: str, now: float) -> None:
        """Unplug it."""
        attached = self.switch.by_name.get(port.port_name)
        if attached is not None and attached.port is port:
            self.switch.detach(attached, now)
            self.services.port_down(port, reason, now)

    # The switch's

    def send(self, to: AttachedPort, header: bytes, payload: Buffer, sof: int, eof: int) -> None:
        """A frame of a service."""
        if to.port is None:
            self.services.transmit(encapsulate(to.mac + self.address + FCOE_ETHERTYPE, sof, header, payload, eof))
        else:
            self._local.send(to, header, payload, sof, eof)

    def errors(self, of: AttachedPort) -> LinkErrorStatus:
        """FC-BB-5 clause 7.10: of the interface, and of the virtual link; ports of our own have none."""
        return self._errors.status(of.port_name, self.services.interface_errors())

    def count(self, counter: str) -> None:
        """Add one to a statistic."""
        self.services.count(counter)

    # FIP frames that come

    def receive_pdu(self, destination: bytes, source: bytes, pdu: FipPdu, now: float) -> None:  # noqa: ARG002 - all alike
        """Raises :class:`FipError` to drop it."""
        handler = RECEIVE.get(pdu.pdu)
        if handler is None or pdu.flags & Flag.FCF:
            raise FipError("fip_unexpected", f"{pdu.pdu.name.lower()} at an FCF")
        enode = self.enodes.get(source)
        answers = self._answers if enode is None else enode.answers
        if pdu.pdu is not Pdu.KEEP_ALIVE and not answers.take(now):
            raise FipError("fip_rate_limited", "more than there are answers for")
        getattr(self, f"_receive_{handler}")(source, pdu, now)

    def _receive_vlan_request(self, source: bytes, pdu: FipPdu, now: float) -> None:  # noqa: ARG002 - all alike
        check_source(source, pdu)
        self.vlan_notification(source, Pdu.VLAN_NOTIFICATION, (self.vlan,))

    def _receive_solicitation(self, source: bytes, pdu: FipPdu, now: float) -> None:  # noqa: ARG002 - all alike
        check_source(source, pdu)
        if not self._addressing(pdu.flags):
            raise FipError("fip_unexpected", "an ENode that takes no MAC address of ours")
        size = min(pdu.get(fip.MaxFcoeSize).size, self.max_fcoe_size)
        self._advertise(source, size=size, solicited=True)

    def _addressing(self, flags: Flag) -> Flag:
        """Which of FPMA and SPMA both sides take."""
        ours = Flag.FPMA | Flag.SPMA if self.spma else Flag.FPMA
        return flags & ours

    def _advertise(self, destination: bytes, *, size: int = 0, solicited: bool = False, available: bool = True) -> None:
        flags = Flag.FCF | self._addressing(Flag.FPMA | Flag.SPMA)
        flags |= (Flag.AVAILABLE if available else fip.NO_FLAGS) | (Flag.SOLICITED if solicited else fip.NO_FLAGS)
        descriptors = (
            fip.Priority(self.priority),
            fip.MacAddress(self.address),
            fip.NameIdentifier(self.name),
            fip.Fabric(0, self.fc_map, self.name),
            fip.FkaAdvPeriod(round(tables.FKA_ADV_PERIOD * 1000)),
        )
        pdu = FipPdu(Pdu.ADVERTISEMENT, descriptors, flags)
        self.services.transmit(self.fip_frame(destination, pdu, size=max(size, fip.MIN_PAYLOAD)))

    def _receive_keep_alive(self, source: bytes, pdu: FipPdu, now: float) -> None:
        mac, identity = pdu.get(fip.MacAddress).address, pdu.find(fip.VxPort)
        enode = self.enodes.get(mac)
        if identity is None:
            check_source(source, pdu)
            if enode is None:
                self._link(Attempt(mac, b""), VirtualLinkEvent.KEEP_ALIVE, now)
            else:
                enode.heard = now
            return
        if source != identity.address:
            raise FipError("fip_spoofed", f"{source.hex(':')} speaks for {identity.address.hex(':')}")
        attached = enode.ports.get(identity.port_name) if enode else None
        if attached is not None and (attached.mac, attached.fc_id) != (identity.address, identity.fc_id):
            raise FipError("fip_spoofed", f"a keep-alive of {format_fc_id(attached.fc_id)} with other addresses")
        self._link(Attempt(mac, identity.port_name, attached, identity=identity), VirtualLinkEvent.KEEP_ALIVE, now)

    def _receive_virtual_link_request(self, source: bytes, pdu: FipPdu, now: float) -> None:
        descriptor, frame = encapsulated_els(pdu)
        kind = type(descriptor)
        if frame.payload[0] != COMMANDS.get(kind) or frame.d_id != WellKnownAddress.FABRIC_LOGIN_SERVER:
            raise FipError("fip_unexpected", f"ELS {frame.payload[0]:02x}h to {format_fc_id(frame.d_id)} as {kind.__name__}")
        if is_multicast(source):
            raise FipError("fip_spoofed", "a group address as source")
        enode = self.enodes.get(source)
        try:
            request: Any = parse_els(frame.payload)
            attached = enode.ports.get(request.port_name) if enode else None
            login = Attempt(
                source, request.port_name, attached, frame, kind, self._addressing(pdu.flags), pdu.get(fip.MacAddress).address
            )
            if kind is fip.Logo:
                if attached is not None and login.proposed not in (attached.mac, source, NO_MAC):
                    raise FipError("fip_spoofed", f"LOGO of {attached.mac.hex(':')} that speaks for {login.proposed.hex(':')}")
                if attached is not None and frame.s_id not in (attached.fc_id, NO_FC_ID):
                    raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_N_PORT_ID, "LOGO with another's address")
                self._link(login, VirtualLinkEvent.LOGO, now)
                return
            self._check_login(login, enode)
            if kind is fip.Flogi and enode is not None:
                self._log_out_others(enode, login, now)
            self._link(login, VirtualLinkEvent.LOGIN, now)
        except ElsError as e:
            self.services.count("fip_logins_refused")
            self.report(f"a login of {source.hex(':')} is refused: {e}", now)
            reply = els_reply(frame, Reject(reason=e.reason, explanation=e.explanation))
            self.services.transmit(self.fip_frame(source, FipPdu(Pdu.VIRTUAL_LINK_REPLY, (kind(reply),))))

    def _check_login(self, login: Attempt, enode: ENode | None) -> None:
        """Raises :class:`ElsError`."""
        assert login.frame is not None
        if login.frame.s_id != NO_FC_ID:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.INVALID_ORIGINATOR_S_ID, "FLOGI or FDISC with an address already")
        if login.descriptor is fip.Fdisc and enode is None:
            raise ElsError(Reason.LOGICAL_ERROR, Explanation.N_PORT_LOGIN_REQUIRED, "FDISC before FLOGI")
        if enode is not None and login.attached is None and len(enode.ports) >= MAX_PORTS_PER_ENODE:
            explanation = Explanation.INSUFFICIENT_RESOURCES
            raise ElsError(Reason.UNABLE_TO_PERFORM, explanation, f"{MAX_PORTS_PER_ENODE} ports of it are logged in")
        if not login.flags & Flag.FPMA:
            mac = login.proposed
            if not login.flags & Flag.SPMA:
                raise ElsError(Reason.FIP_ERROR, Explanation.NONE, "an ENode that takes no MAC address of ours")
            if not any(mac) or is_multicast(mac) or mac == self.address or self._mac_in_use(mac, login.enode):
                raise ElsError(Reason.FIP_ERROR, Explanation.NONE, f"{mac.hex(':')} is no MAC address to have")

    def _mac_in_use(self, mac: bytes, enode: bytes) -> bool:
        """Somebody else's, for FCoE or FIP, or an FPMA of this fabric."""
        taken = any(mac in (each.mac, each.enode) and each.enode != enode for each in self.switch.ports.values())
        return taken or int.from_bytes(mac[:3], "big") == self.fc_map

    def _log_out_others(self, enode: ENode, login: Attempt, now: float) -> None:
        """FLOGI ends all that the ENode had (FC-LS-2 clause 6.2.2)."""
        for attached in list(enode.ports.values()):
            if attached.port_name != login.port_name:
                self._remove(attached, "FLOGI again", now)

    # The table

    def _link(self, login: Attempt, event: VirtualLinkEvent, now: float) -> None:
        state = VirtualLinkState.LOGGED_OUT if login.attached is None else VirtualLinkState.LOGGED_IN
        step = tables.VIRTUAL_LINK.get((state, event))
        if step is None:
            return
        if step.state is not state:
            self.log(f"{login.port_name.hex(':')}: {state.value}, {event.value}: {step.state.value}")
        getattr(self, f"_{step.action}")(login, now)

    def _accept(self, login: Attempt, now: float, enode: ENode | None = None) -> None:
        """Raises :class:`ElsError` if the switch has no room for it."""
        assert login.frame is not None
        request = Login.parse(login.frame.payload)
        attached = self.switch.attach(request.port_name, request.node_name, now, receive_size=request.receive_size & 0xFFF)
        attached.enode, attached.heard = login.enode, now
        fpma = bool(login.flags & Flag.FPMA)
        attached.mac = fabric_provided_mac(attached.fc_id, self.fc_map) if fpma else login.proposed
        enode = self.enodes.setdefault(login.enode, enode or ENode(login.enode, now))
        enode.heard = now
        enode.ports[attached.port_name] = attached
        self._sweep_at = min(self._sweep_at, now + tables.MISSED * tables.FKA_ADV_PERIOD)
        npiv = FEATURE_NPIV_GRANTED if request.features & FEATURE_MULTIPLE_N_PORT_ID else 0
        accept = Login(
            command=ElsCommand.LS_ACC,
            port_name=name_from_mac(self.address, qualifier=F_PORT_QUALIFIER),
            node_name=self.name,
            credit=BB_CREDIT,
            features=FEATURE_F_PORT | npiv,
            receive_size=self.receive_size,
            word_2=round(R_A_TOV * 1000),
            word_3=round(E_D_TOV * 1000),
            class_3=ClassParameters(options=CLASS_VALID | CLASS_SEQUENTIAL_DELIVERY).pack(),
        )
        self._reply(login, accept, Flag.FPMA if fpma else Flag.SPMA, attached.mac, attached.fc_id)

    def _accept_again(self, login: Attempt, now: float) -> None:
        """A login ends the one there is; the address stays."""
        assert login.attached is not None
        enode = self.enodes[login.enode]
        self._errors.failed(login.port_name)
        self._remove(login.attached, f"{login.descriptor.__name__.upper()} again", now)
        self._accept(login, now, enode)

    def _accept_logo(self, login: Attempt, now: float) -> None:
        assert login.attached is not None
        attached, enode = login.attached, self.enodes.get(login.enode)
        self._reply(login, Plain(), fip.NO_FLAGS, attached.mac, attached.fc_id)
        if enode is not None and next(iter(enode.ports.values())) is attached:
            for each in list(enode.ports.values()):  # the VF_Port goes with the VN_Port that logged in first
                self._remove(each, "LOGO", now)
        else:
            self._remove(attached, "LOGO", now)

    def _refuse_logo(self, login: Attempt, now: float) -> None:  # noqa: ARG002 - all alike
        raise ElsError(Reason.LOGICAL_ERROR, Explanation.N_PORT_LOGIN_REQUIRED, "LOGO without a login")

    def _reply(self, login: Attempt, payload: Payload, flags: Flag, mac: bytes, fc_id: int) -> None:
        assert login.frame is not None
        reply = els_reply(login.frame, payload, d_id=fc_id)
        descriptors = (login.descriptor(reply), fip.MacAddress(mac))
        self.services.transmit(self.fip_frame(login.enode, FipPdu(Pdu.VIRTUAL_LINK_REPLY, descriptors, flags)))

    def _note(self, login: Attempt, now: float) -> None:
        assert login.attached is not None
        login.attached.heard = now

    def _clear_stranger(self, login: Attempt, now: float) -> None:
        """It thinks that it is logged in: let it log in again."""
        if not self._answers.take(now):
            raise FipError("fip_rate_limited", "more than there are answers for")
        self._clear_virtual_links(login.enode, (login.identity,) if login.identity else ())

    def _clear(self, login: Attempt, now: float) -> None:
        assert login.attached is not None
        attached = login.attached
        self._clear_virtual_links(attached.enode, (fip.VxPort(attached.mac, attached.fc_id, attached.port_name),))
        self._remove(attached, login.reason, now)

    def _clear_virtual_links(self, enode: bytes, ports: tuple[fip.VxPort, ...]) -> None:
        descriptors = (fip.MacAddress(self.address), fip.NameIdentifier(self.name), *ports)
        self.services.transmit(self.fip_frame(enode, FipPdu(Pdu.CLEAR_VIRTUAL_LINKS, descriptors, Flag.FCF)))

    def _clear_enode(self, enode: ENode, event: VirtualLinkEvent, reason: str, now: float) -> None:
        for attached in list(enode.ports.values()):
            self._link(Attempt(enode.mac, attached.port_name, attached, reason=reason), event, now)

    def _remove(self, attached: AttachedPort, reason: str, now: float) -> None:
        self.switch.detach(attached, now)
        enode = self.enodes.get(attached.enode)
        if enode is not None:
            enode.ports.pop(attached.port_name, None)
            if not enode.ports:
                del self.enodes[attached.enode]
        for port in self.ports.values():
            self.services.remote_down(port, attached.fc_id, reason, now)
            self.services.routes_changed(port)

    # Keep-alives

    def _deadlines(self, enode: ENode) -> Iterator[tuple[float, AttachedPort | None]]:
        yield enode.heard + tables.MISSED * tables.FKA_ADV_PERIOD, None
        for attached in enode.ports.values():
            yield attached.heard + tables.MISSED * tables.VN_KEEP_ALIVE_PERIOD, attached

    def _sweep(self, now: float) -> None:
        """Clear virtual links of whoever is silent."""
        for enode in list(self.enodes.values()):
            for deadline, attached in list(self._deadlines(enode)):
                if deadline > now:
                    continue
                self.services.count("missed_keep_alives")
                self.services.count("virtual_link_failures")
                for port_name in enode.ports if attached is None else (attached.port_name,):
                    self._errors.failed(port_name, silent=True)
                if attached is None:
                    self._clear_enode(enode, VirtualLinkEvent.SILENT, "no keep-alives of the ENode", now)
                    break
                login = Attempt(enode.mac, attached.port_name, attached, reason="no keep-alives")
                self._link(login, VirtualLinkEvent.SILENT, now)
        self._sweep_at = min(
            (deadline for enode in self.enodes.values() for deadline, _ in self._deadlines(enode)), default=NEVER
        )
