"""VN2VN mode (FC-BB-6): virtual links between local VN_Ports and neighbours, made by FLOGI and ended by LOGO, both in FIP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_fcoe.protocol import fip
from tcm_fcoe.protocol import vn2vn_tables as tables
from tcm_fcoe.protocol.controller import (
    E_D_TOV,
    NEVER,
    Allowance,
    Controller,
    els_reply,
    els_request,
    encapsulated_els,
)
from tcm_fcoe.protocol.els import Logo, Plain, Reject
from tcm_fcoe.protocol.els_codes import ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import FEATURE_CONTINUOUSLY_INCREASING_RELATIVE_OFFSET, Login
from tcm_fcoe.protocol.els_payload import ElsError
from tcm_fcoe.protocol.fip import FipError, FipPdu, Pdu
from tcm_fcoe.protocol.names import format_fc_id
from tcm_fcoe.protocol.vn2vn_neighbours import MAX_NEIGHBOURS, Neighbour, Neighbours, VirtualLink, VnPort
from tcm_fcoe.protocol.vn2vn_tables import AddressState, LinkEvent, LinkState

if TYPE_CHECKING:
    import random

    from tcm_fcoe.protocol.controller import ControllerServices, LocalPort
    from tcm_fcoe.protocol.frame import Frame

CLAIMED = (AddressState.CLAIM, AddressState.UP)
"""States of a VN_Port that has its address."""


class VirtualLinks(Controller):
    """What a VN2VN controller has of VN_Ports that know of each other."""

    def __init__(
        self, services: ControllerServices, address: bytes, *, rng: random.Random, mtu: int = 2500, vlan: int = 0
    ) -> None:
        super().__init__(services, address, rng=rng, mtu=mtu, vlan=vlan)
        self.vn_ports: dict[bytes, VnPort] = {}
        """By port name."""
        self.neighbours = Neighbours()
        self._by_mac: dict[bytes, VnPort] = {}
        self._friends: frozenset[bytes] = frozenset()
        """MAC addresses of neighbours that somebody is logged in with, for FIP and FCoE."""
        self._answers = Allowance(2 * MAX_NEIGHBOURS, MAX_NEIGHBOURS)
        self._next = NEVER

    def _allow(self, now: float) -> None:
        if not self._answers.take(now):
            raise FipError("fip_rate_limited", "more than there are answers for")

    def has_link_with(self, source: bytes) -> bool:
        """A neighbour that somebody here is logged in with."""
        return source in self._friends

    def _note_friends(self) -> None:
        found = {fc_id for vn_port in self.vn_ports.values() for fc_id in vn_port.routes}
        self._friends = frozenset(mac for each in self.neighbours if each.fc_id in found for mac in (each.enode, each.mac))

    def _arm(self, when: float) -> None:
        self._next = min(self._next, when)

    def _uninvited(self, vn_port: VnPort, source: bytes, frame: Frame, now: float) -> None:
        """A frame of who is not logged in. A neighbour that thinks it is, for we have forgotten it, is told once in E_D_TOV."""
        link = vn_port.links.get(frame.s_id)
        if link is None or link.neighbour.mac != source or link.state is LinkState.UP:
            self.services.count("fcoe_spoofed")
            return
        self.services.count("fcoe_unexpected")
        if link.told + E_D_TOV <= now:
            link.told = now
            self._send_logo(vn_port, link)

    def send_link_service(self, port: LocalPort, header: bytes, payload: bytes, now: float) -> bool:
        """LOGO goes in FIP: it ends the virtual link too."""
        vn_port = self.vn_ports.get(port.port_name)
        if vn_port is None or payload[:1] != bytes((ElsCommand.LOGO,)):
            return False
        link = vn_port.links.get(int.from_bytes(header[1:4], "big"))
        if link is None or link.state is not LinkState.UP:
            return False
        self._send_els(vn_port, link.neighbour, Pdu.VIRTUAL_LINK_REQUEST, fip.Logo(header + payload))
        vn_port.routes.pop(link.neighbour.fc_id, None)
        self._note_friends()
        self._link(vn_port, link, LinkEvent.LOGGED_OUT, now)
        self.services.routes_changed(port)
        return True

    def _receive_els(self, source: bytes, pdu: FipPdu, now: float) -> None:
        descriptor, frame = encapsulated_els(pdu)
        vn_port = next((each for each in self.vn_ports.values() if each.fc_id == frame.d_id), None)
        if vn_port is None or vn_port.state not in CLAIMED:
            raise FipError("fip_not_for_us", f"an ELS for {format_fc_id(frame.d_id)}")
        neighbour = self.neighbours.get(frame.s_id)
        if neighbour is None:
            raise FipError("fip_unexpected", f"an ELS of {format_fc_id(frame.s_id)}, who has not claimed its address")
        mac = pdu.find(fip.MacAddress)
        if source not in (neighbour.enode, neighbour.mac) or (mac and mac.address not in (neighbour.mac, neighbour.enode)):
            raise FipError("fip_spoofed", f"{source.hex(':')} speaks for {neighbour.enode.hex(':')}")
        link = vn_port.links.get(neighbour.fc_id)
        if link is None:
            link = vn_port.links[neighbour.fc_id] = VirtualLink(neighbour)
        if pdu.pdu is Pdu.VIRTUAL_LINK_REPLY:
            self._reply(vn_port, link, descriptor, frame, now)
            return
        if not link.answers.take(now):
            raise FipError("fip_rate_limited", "more logins than there are answers for")
        link.request = frame
        if isinstance(descriptor, fip.Flogi) and frame.payload[0] == ElsCommand.FLOGI:
            self._flogi(vn_port, link, frame, now)
        elif isinstance(descriptor, fip.Logo) and frame.payload[0] == ElsCommand.LOGO:
            self._link(vn_port, link, LinkEvent.LOGO, now)
        else:
            self._reject(link, type(descriptor), Reason.COMMAND_NOT_SUPPORTED, Explanation.REQUEST_NOT_SUPPORTED)

    def _flogi(self, vn_port: VnPort, link: VirtualLink, frame: Frame, now: float) -> None:
        try:
            login = Login.parse(frame.payload)
        except ElsError as e:
            self._reject(link, fip.Flogi, e.reason, e.explanation)
            return
        if login.port_name != link.neighbour.port_name:
            self._reject(link, fip.Flogi, Reason.LOGICAL_ERROR, Explanation.INVALID_PORT_NAME)
            return
        self._link(vn_port, link, LinkEvent.FLOGI, now)

    def _reply(self, vn_port: VnPort, link: VirtualLink, descriptor: fip.Encapsulated, frame: Frame, now: float) -> None:
        if not isinstance(descriptor, fip.Flogi):
            self.services.received(vn_port.port, frame, now)
            return
        if link.state is not LinkState.FLOGI or frame.ox_id != link.ox_id:
            raise FipError("fip_unexpected", "an answer to no FLOGI of ours")
        accepted = frame.payload[0] == ElsCommand.LS_ACC
        if accepted:
            try:
                accepted = Login.parse(frame.payload).port_name == link.neighbour.port_name
            except ElsError as e:
                raise FipError("fip_malformed", str(e)) from None
        if not accepted:
            self.services.count("fip_logins_refused")
        self._link(vn_port, link, LinkEvent.ACCEPTED if accepted else LinkEvent.REFUSED, now)

    # The table

    def _link(self, vn_port: VnPort, link: VirtualLink, event: LinkEvent, now: float) -> None:
        step = tables.LINK.get((link.state, event))
        if step is None:
            return
        if step.state is not link.state:
            self.log(f"{format_fc_id(link.neighbour.fc_id)}: {link.state.value}, {event.value}: {step.state.value}")
        link.state = step.state
        link.timer = NEVER
        if step.action:
            getattr(self, f"_{step.action}")(vn_port, link, now)

    # Actions on a link

    def _send_els(self, vn_port: VnPort, neighbour: Neighbour, pdu: Pdu, descriptor: fip.Encapsulated) -> None:
        descriptors = (descriptor, fip.MacAddress(vn_port.mac))
        self.services.transmit(self.fip_frame(neighbour.enode, FipPdu(pdu, descriptors)))

    def _send_logo(self, vn_port: VnPort, link: VirtualLink) -> None:
        payload = Logo(n_port_id=vn_port.fc_id, port_name=vn_port.port.port_name)
        request = els_request(link.neighbour.fc_id, vn_port.fc_id, self.next_ox_id(), payload)
        self._send_els(vn_port, link.neighbour, Pdu.VIRTUAL_LINK_REQUEST, fip.Logo(request))

    def _login(self, vn_port: VnPort, command: int) -> Login:
        features = FEATURE_CONTINUOUSLY_INCREASING_RELATIVE_OFFSET
        return self.login_payload(command, vn_port.port.port_name, vn_port.port.node_name, features=features)

    def _send_flogi(self, vn_port: VnPort, link: VirtualLink, now: float) -> None:
        link.tries += 1
        link.ox_id = self.next_ox_id()
        link.timer = now + E_D_TOV
        self._arm(link.timer)
        request = els_request(link.neighbour.fc_id, vn_port.fc_id, link.ox_id, self._login(vn_port, ElsCommand.FLOGI))
        self._send_els(vn_port, link.neighbour, Pdu.VIRTUAL_LINK_REQUEST, fip.Flogi(request))

    def _accept(self, vn_port: VnPort, link: VirtualLink, now: float) -> None:
        assert link.request is not None
        reply = els_reply(link.request, self._login(vn_port, ElsCommand.LS_ACC))
        self._send_els(vn_port, link.neighbour, Pdu.VIRTUAL_LINK_REPLY, fip.Flogi(reply))
        self._bring_up(vn_port, link, now)

    def _accept_again(self, vn_port: VnPort, link: VirtualLink, now: float) -> None:
        """FLOGI ends the login there is (FC-LS-2 clause 4.3.4)."""
        link.reason = "FLOGI again"
        self._bring_down(vn_port, link, now)
        self._accept(vn_port, link, now)

    def _bring_up(self, vn_port: VnPort, link: VirtualLink, now: float) -> None:
        link.request = None
        link.tries = 0
        neighbour = link.neighbour
        vn_port.routes[neighbour.fc_id] = neighbour.mac
        self._note_friends()
        self.services.routes_changed(vn_port.port)
        self.services.remote_up(vn_port.port, neighbour.fc_id, neighbour.port_name, neighbour.node_name, now)

    def _bring_down(self, vn_port: VnPort, link: VirtualLink, now: float) -> None:
        if vn_port.routes.pop(link.neighbour.fc_id, None) is not None:
            self._note_friends()
            self.services.remote_down(vn_port.port, link.neighbour.fc_id, link.reason, now)
            self.services.routes_changed(vn_port.port)

    def _accept_logo(self, vn_port: VnPort, link: VirtualLink, now: float) -> None:  # noqa: ARG002 - all alike
        assert link.request is not None
        reply = els_reply(link.request, Plain())
        self._send_els(vn_port, link.neighbour, Pdu.VIRTUAL_LINK_REPLY, fip.Logo(reply))
        link.request = None

    def _accept_logo_and_bring_down(self, vn_port: VnPort, link: VirtualLink, now: float) -> None:
        self._accept_logo(vn_port, link, now)
        link.reason = "LOGO"
        self._bring_down(vn_port, link, now)

    def _reject(self, link: VirtualLink, kind: type[fip.Encapsulated], reason: int, explanation: int) -> None:
        assert link.request is not None
        self.services.count("fip_logins_refused")
        reply = els_reply(link.request, Reject(reason=reason, explanation=explanation))
        pdu = FipPdu(Pdu.VIRTUAL_LINK_REPLY, (kind(reply),))
        self.services.transmit(self.fip_frame(link.neighbour.enode, pdu))
        link.request = None
