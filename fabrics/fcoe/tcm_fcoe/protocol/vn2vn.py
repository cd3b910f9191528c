"""VN2VN mode (FC-BB-6): VN_Ports of one Ethernet segment find each other and log in without a switch.

Linux's libfcoe is the usual peer: times, order and contents of our frames are as it expects them. What a VN_Port does is in
:mod:`tcm_fcoe.protocol.vn2vn_tables`; here are the actions, and the neighbours that are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_fcoe.protocol import ethernet, fip
from tcm_fcoe.protocol import vn2vn_tables as tables
from tcm_fcoe.protocol.controller import E_D_TOV, NEVER, features_of
from tcm_fcoe.protocol.fip import FipError, FipPdu, Flag, Pdu
from tcm_fcoe.protocol.names import VN2VN_FC_MAP, fabric_provided_mac, format_fc_id
from tcm_fcoe.protocol.vn2vn_links import CLAIMED, VirtualLinks
from tcm_fcoe.protocol.vn2vn_neighbours import (
    LAST_ADDRESS,
    TOO_MANY,
    Neighbour,
    VirtualLink,
    VnPort,
    concern_each_other,
    fc4_attributes,
    neighbour_of,
)
from tcm_fcoe.protocol.vn2vn_tables import AddressEvent, AddressState, LinkEvent, LinkState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm_fcoe.protocol.controller import LocalPort
    from tcm_fcoe.protocol.frame import Frame

_ADDRESS_PDUS = frozenset((Pdu.PROBE_REQUEST, Pdu.PROBE_REPLY, Pdu.CLAIM_NOTIFICATION, Pdu.CLAIM_RESPONSE, Pdu.BEACON))

_FOR_EVERYBODY = frozenset((Pdu.CLAIM_NOTIFICATION, Pdu.BEACON))
"""Those that go to a group only: whose address or name it is must be able to object."""


class Vn2vnController(VirtualLinks):
    """VN_Ports on one segment; several of them may be here."""

    mode = "vn2vn"
    ADDRESSES = frozenset((ethernet.ALL_VN2VN_ENODE_MACS, ethernet.ALL_P2P_ENODE_MACS))

    @property
    def next_timer(self) -> float:
        """No later than the first of all timers."""
        return self._next

    def handle_timer(self, now: float) -> None:
        """Probe, claim, send beacons, repeat FLOGIs, forget neighbours that are silent."""
        if now < self._next:
            return
        for neighbour in [each for each in self.neighbours if each.heard + tables.BEACON_LOST <= now]:
            self.services.count("virtual_link_failures")
            self._forget(neighbour, "no beacons", now)
        for vn_port in list(self.vn_ports.values()):
            if vn_port.timer <= now:
                self._address(vn_port, AddressEvent.TIMER, now)
            for link in [each for each in vn_port.links.values() if each.timer <= now]:
                gave_up = link.tries >= tables.FLOGI_TRIES
                self._link(vn_port, link, LinkEvent.GAVE_UP if gave_up else LinkEvent.TIMER, now)
        self._next = min(self._timers(), default=NEVER)

    def _timers(self) -> Iterator[float]:
        for vn_port in self.vn_ports.values():
            yield vn_port.timer
            for link in vn_port.links.values():
                yield link.timer
        for neighbour in self.neighbours:
            yield neighbour.heard + tables.BEACON_LOST

    def receive_fcoe(self, destination: bytes, source: bytes, frame: Frame, now: float) -> LocalPort | None:
        """Only from who is logged in, by its own MAC address."""
        vn_port = self._by_mac.get(destination)
        if vn_port is None or frame.d_id != vn_port.fc_id:
            self.services.count("fcoe_not_for_us")
            return None
        if vn_port.routes.get(frame.s_id) != source:
            self._uninvited(vn_port, source, frame, now)
            return None
        return vn_port.port

    def route(self, port: LocalPort, d_id: int) -> bytes | None:
        """To a neighbour that is logged in."""
        vn_port = self.vn_ports.get(port.port_name)
        if vn_port is None or (mac := vn_port.routes.get(d_id)) is None:
            return None
        return mac + vn_port.mac

    def addresses(self) -> frozenset[bytes]:
        """The groups, and the VN_Ports' own."""
        return self.ADDRESSES | self._by_mac.keys()

    def fip_addresses(self) -> frozenset[bytes]:
        """The groups and the ENode itself."""
        return self.ADDRESSES | {self.address}

    def ended(self, now: float) -> None:
        """Forget all neighbours."""
        super().ended(now)
        self.neighbours.clear()
        self._next = NEVER

    def start_port(self, port: LocalPort, now: float) -> None:
        """Probe for an address: the low 16 bits of the port name, to begin with."""
        vn_port = VnPort(port)
        self.vn_ports[port.port_name] = vn_port
        self._choose(vn_port, now)

    def stop_port(self, port: LocalPort, reason: str, now: float) -> None:
        """LOGO to all that are logged in."""
        vn_port = self.vn_ports.get(port.port_name)
        if vn_port is not None:
            for link in vn_port.links.values():
                if link.state is LinkState.UP:
                    self._send_logo(vn_port, link)
            self.lose_port(port, reason, now)

    def lose_port(self, port: LocalPort, reason: str, now: float) -> None:
        """Without a word."""
        vn_port = self.vn_ports.pop(port.port_name, None)
        if vn_port is not None:
            self._down(vn_port, reason, now)

    # FIP frames that come

    def receive_pdu(self, destination: bytes, source: bytes, pdu: FipPdu, now: float) -> None:
        """Raises :class:`FipError` to drop it."""
        if pdu.pdu in _ADDRESS_PDUS:
            if pdu.pdu in _FOR_EVERYBODY and destination == self.address:
                raise FipError("fip_unexpected", "a claim or beacon that others do not hear")
            self._receive_address_pdu(source, pdu, now)
        elif pdu.pdu in (Pdu.VIRTUAL_LINK_REQUEST, Pdu.VIRTUAL_LINK_REPLY):
            self._receive_els(source, pdu, now)
        elif pdu.pdu is Pdu.VLAN_REQUEST:
            if pdu.get(fip.MacAddress).address != source:
                raise FipError("fip_spoofed", "a VLAN request for another")
            self._allow(now)
            self.vlan_notification(source, Pdu.VN2VN_VLAN_NOTIFICATION, (self.vlan,))
        else:
            raise FipError("fip_unexpected", f"{pdu.pdu.name.lower()} in VN2VN mode")

    def _receive_address_pdu(self, source: bytes, pdu: FipPdu, now: float) -> None:
        other = neighbour_of(source, pdu, now)
        if other.enode == self.address:
            raise FipError("fip_spoofed", f"{source.hex(':')} speaks for us")
        if other.port_name in self.ports:
            for vn_port in list(self.vn_ports.values()):
                if vn_port.fc_id == other.fc_id:  # who was first keeps the address, and says so
                    self._conflict(vn_port, other, pdu, now)
            raise FipError("fip_conflict", f"{other.enode.hex(':')} has port name {other.port_name.hex(':')}, which is ours")
        self.neighbours.check(other)
        if pdu.flags & Flag.REC_P2P and pdu.pdu in (Pdu.CLAIM_NOTIFICATION, Pdu.BEACON):
            # it thinks that it is alone with one other; a probe tells it that it is not
            for vn_port in self.vn_ports.values():
                if vn_port.state in CLAIMED and vn_port.claimed + tables.ANNOUNCE_WAIT <= now:
                    vn_port.claimed = now
                    self._send_address_pdu(vn_port, Pdu.PROBE_REQUEST)
            return
        for vn_port in list(self.vn_ports.values()):
            if vn_port.fc_id == other.fc_id:
                self._conflict(vn_port, other, pdu, now)
        if any(vn_port.fc_id == other.fc_id for vn_port in self.vn_ports.values()):
            return
        if pdu.pdu is Pdu.BEACON:
            self._beacon(other, now)
        elif pdu.pdu in (Pdu.CLAIM_NOTIFICATION, Pdu.CLAIM_RESPONSE):
            known = self.neighbours.get(other.fc_id)
            if pdu.pdu is Pdu.CLAIM_RESPONSE and known is not None and known.port_name != other.port_name:
                raise FipError("fip_conflict", f"{other.enode.hex(':')} answers with the address of {known.enode.hex(':')}")
            claimed = [vn_port for vn_port in self.vn_ports.values() if vn_port.state in CLAIMED]
            was_known = other.fc_id in self.neighbours
            if claimed:
                self._add(other, claimed, now)
            if pdu.pdu is Pdu.CLAIM_NOTIFICATION:
                for vn_port in claimed:
                    self._allow(now)
                    size = min(other.max_fcoe_size, self.max_fcoe_size)
                    self._send_address_pdu(vn_port, Pdu.CLAIM_RESPONSE, other.enode, size)
                    if was_known:  # its link was down, and it waits for our beacon to log in again
                        vn_port.timer = min(vn_port.timer, now + tables.ANNOUNCE_WAIT + tables.COME_UP_WAIT)
                        self._arm(vn_port.timer)

    def _conflict(self, vn_port: VnPort, other: Neighbour, pdu: FipPdu, now: float) -> None:
        """Somebody else uses or wants our address."""
        greater = (other.port_name, other.enode) > (vn_port.port.port_name, self.address)
        vn_port.asker = other.enode
        if pdu.pdu is Pdu.PROBE_REQUEST:
            recorded = bool(pdu.flags & Flag.REC_P2P)
            event = AddressEvent.PROBED_BY_GREATER if greater or recorded else AddressEvent.PROBED_BY_LESSER
        elif pdu.pdu in (Pdu.PROBE_REPLY, Pdu.CLAIM_RESPONSE):
            event = AddressEvent.REFUSED
        else:
            event = AddressEvent.CLAIMED_BY_GREATER if greater else AddressEvent.CLAIMED_BY_LESSER
        self._allow(now)
        self._address(vn_port, event, now)

    def _add(self, new: Neighbour, claimed: list[VnPort], now: float) -> None:
        """A neighbour has claimed its address."""
        leaving = self.neighbours.admit(new, lambda: {fc_id for each in self.vn_ports.values() for fc_id in each.routes})
        if leaving is None:
            return
        for neighbour, reason in leaving:
            self._forget(neighbour, reason, now)
        self.neighbours.add(new)
        for vn_port in claimed:
            vn_port.links[new.fc_id] = VirtualLink(new)
        self._arm(now + tables.BEACON_LOST)

    def _forget(self, neighbour: Neighbour, reason: str, now: float) -> None:
        self.neighbours.remove(neighbour)
        if reason == TOO_MANY:
            self.services.count("fip_table_full")
        self.log(f"{format_fc_id(neighbour.fc_id)}: {reason}")
        for vn_port in self.vn_ports.values():
            link = vn_port.links.pop(neighbour.fc_id, None)
            if link is not None:
                link.reason = reason
                self._link(vn_port, link, LinkEvent.LOST, now)

    def _beacon(self, other: Neighbour, now: float) -> None:
        known = self.neighbours.get(other.fc_id)
        if known is None or (known.port_name, known.enode) != (other.port_name, other.enode):
            if known is not None:
                raise FipError("fip_conflict", f"{other.enode.hex(':')} uses the address of {known.enode.hex(':')}")
            for vn_port in self.vn_ports.values():
                # its claim was missed: ours makes it answer
                if vn_port.state is AddressState.UP and vn_port.claimed + tables.ANNOUNCE_WAIT <= now:
                    self._send_claim(vn_port, now)
            return
        self.neighbours.hear(known, now)
        for vn_port in self.vn_ports.values():
            if vn_port.state is AddressState.UP:
                link = vn_port.links.get(known.fc_id)
                if link is None:
                    link = vn_port.links[known.fc_id] = VirtualLink(known)
                if concern_each_other(features_of(vn_port.port), known.features):
                    link.tries = 0
                    self._link(vn_port, link, LinkEvent.BEACON, now)

    def _address(self, vn_port: VnPort, event: AddressEvent, now: float) -> None:
        step = tables.ADDRESS.get((vn_port.state, event))
        if step is None:
            return
        if step.state is not vn_port.state:
            self.log(f"{format_fc_id(vn_port.fc_id)}: {vn_port.state.value}, {event.value}: {step.state.value}")
        vn_port.state = step.state
        if step.action:
            getattr(self, f"_{step.action}")(vn_port, now)

    # Actions on the address

    def _choose(self, vn_port: VnPort, now: float) -> None:
        """An address to try, and when."""
        own = {each.fc_id for each in self.vn_ports.values() if each is not vn_port}
        fc_id = int.from_bytes(vn_port.port.port_name[-2:], "big")
        while vn_port.tries or fc_id in own or not 0 < fc_id <= LAST_ADDRESS:
            fc_id = self.rng.randint(1, LAST_ADDRESS)
            if fc_id not in own and fc_id not in self.neighbours:
                break
        vn_port.fc_id = fc_id
        vn_port.mac = fabric_provided_mac(fc_id, VN2VN_FC_MAP)
        if vn_port.tries < tables.PROBE_TRIES:
            vn_port.tries += 1
            vn_port.timer = now + self.rng.random() * tables.PROBE_WAIT
        else:
            vn_port.timer = now + tables.PROBE_BACKOFF
        self._arm(vn_port.timer)

    def _choose_another(self, vn_port: VnPort, now: float) -> None:
        self.services.count("fip_conflict")
        self.report(f"{vn_port.asker.hex(':')} has, or wants, FC_ID {format_fc_id(vn_port.fc_id)}: another is tried", now)
        self._choose(vn_port, now)

    def _give_up_address(self, vn_port: VnPort, now: float) -> None:
        self._down(vn_port, "address conflict", now)
        vn_port.tries = max(1, vn_port.tries)  # a random one this time
        self._choose_another(vn_port, now)

    def _down(self, vn_port: VnPort, reason: str, now: float) -> None:
        was_up = self._by_mac.pop(vn_port.mac, None) is not None
        vn_port.links.clear()
        vn_port.routes.clear()
        self._note_friends()
        if was_up:
            self.services.port_down(vn_port.port, reason, now)
            self.services.routes_changed(vn_port.port)

    def _send_probe(self, vn_port: VnPort, now: float) -> None:
        self._send_address_pdu(vn_port, Pdu.PROBE_REQUEST)
        vn_port.timer = now + (tables.PROBE_WAIT if vn_port.state is AddressState.PROBE_1 else tables.ANNOUNCE_WAIT)
        self._arm(vn_port.timer)

    def _send_probe_reply(self, vn_port: VnPort, now: float) -> None:  # noqa: ARG002 - all alike
        self._send_address_pdu(vn_port, Pdu.PROBE_REPLY, vn_port.asker)

    def _claim(self, vn_port: VnPort, now: float) -> None:
        self._by_mac[vn_port.mac] = vn_port
        for neighbour in self.neighbours:
            vn_port.links[neighbour.fc_id] = VirtualLink(neighbour)
        self.services.port_up(
            vn_port.port,
            vn_port.fc_id,
            fabric=False,
            e_d_tov=E_D_TOV,
            r_a_tov=2 * E_D_TOV,
            receive_size=self.receive_size,
            now=now,
        )
        self._send_claim(vn_port, now)
        vn_port.timer = now + tables.ANNOUNCE_WAIT
        self._arm(vn_port.timer)

    def _send_claim(self, vn_port: VnPort, now: float) -> None:
        vn_port.claimed = now
        self._send_address_pdu(vn_port, Pdu.CLAIM_NOTIFICATION)

    def _come_up(self, vn_port: VnPort, now: float) -> None:
        vn_port.tries = 0
        self._send_address_pdu(vn_port, Pdu.BEACON)
        vn_port.timer = now + tables.ANNOUNCE_WAIT
        self._arm(vn_port.timer)

    def _send_beacon(self, vn_port: VnPort, now: float) -> None:
        self._send_address_pdu(vn_port, Pdu.BEACON)
        vn_port.timer = now + tables.BEACON_PERIOD + self.rng.random() * tables.BEACON_FUZZ
        self._arm(vn_port.timer)

    def _send_address_pdu(
        self, vn_port: VnPort, pdu: Pdu, destination: bytes = ethernet.ALL_VN2VN_ENODE_MACS, size: int = fip.MIN_PAYLOAD
    ) -> None:
        descriptors: list[fip.Descriptor] = [
            fip.MacAddress(self.address),
            fip.NameIdentifier(vn_port.port.node_name),
            fip.VxPort(vn_port.mac, vn_port.fc_id, vn_port.port.port_name),
        ]
        if pdu in (Pdu.CLAIM_NOTIFICATION, Pdu.CLAIM_RESPONSE):
            descriptors += [fc4_attributes(features_of(vn_port.port)), fip.MaxFcoeSize(self.max_fcoe_size)]
        source = vn_port.mac if pdu is Pdu.BEACON else None
        self.services.transmit(self.fip_frame(destination, FipPdu(pdu, tuple(descriptors)), source=source, size=size))
