"""A station: the FCoE controller of an interface and the N_Ports behind it. Ethernet frames and time in, Ethernet frames out.

Targets and initiators both are stations. Who owns one gives it what the link received, calls :meth:`Station.handle_timer` when
:attr:`Station.next_timer` has come, sends what is in :attr:`Station.outbox`, and calls :meth:`Station.resume` when the link has
taken it.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

from fastcrc.crc32 import iso_hdlc as crc32

from tcm_fcoe.protocol.counters import Counters
from tcm_fcoe.protocol.enode import ENodeController
from tcm_fcoe.protocol.ethernet import (
    DEFAULT_PRIORITY,
    ETHERTYPE_FCOE,
    ETHERTYPE_FIP,
    ETHERTYPE_VLAN,
    FULL_MTU,
    HEADER_LENGTH,
    TAG_LENGTH,
    insert_tag,
    split,
    vlan_tag,
)
from tcm_fcoe.protocol.fcf import FcfController
from tcm_fcoe.protocol.fcoe import (
    EOF_N,
    EOF_T,
    FC_HEADER_LENGTH,
    MAX_DATA_FIELD,
    SOF_I3,
    SOF_N3,
    TRAILER_LENGTH,
    FcoeError,
    decapsulate,
)
from tcm_fcoe.protocol.fcoe import HEADER_LENGTH as FCOE_HEADER_LENGTH
from tcm_fcoe.protocol.frame import F_CTL_FILL_MASK, Frame
from tcm_fcoe.protocol.n_port import FCP, LINK_DATA
from tcm_fcoe.protocol.names import MAC_LENGTH
from tcm_fcoe.protocol.point_to_point import PointToPointController
from tcm_fcoe.protocol.vn2vn import Vn2vnController

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from tcm_fcoe.protocol.controller import Controller, LocalPort
    from tcm_fcoe.protocol.fc4 import Lane
    from tcm_fcoe.protocol.fcp_frames import Rooms
    from tcm_fcoe.protocol.n_port import NPort

CONTROLLERS: dict[str, type[Controller]] = {
    kind.mode: kind for kind in (Vn2vnController, ENodeController, FcfController, PointToPointController)
}
"""By mode."""

_ETHERNET = Struct(">6s6sH")
_UNTAGGED = Struct(">14sB12xBIIIBBHHHI")
"""Ethernet, FCoE and FC header, as :mod:`tcm_fcoe.protocol.fcoe` and ``frame`` have them; a test says so."""
_TAGGED = Struct(">18sB12xBIIIBBHHHI")
EOF_LENGTH = 4
"""Of the trailer: EOF, and what is reserved; before it is the CRC."""
CRC_RESIDUE = 0x2144DF1C
"""CRC of any frame and its CRC (ISO 3309: of the CRC-32 with this polynomial, as it is inverted and sent)."""
_FCOE = ETHERTYPE_FCOE.to_bytes(2, "big")
CONGESTION = 16384
"""Frames in the outbox beyond which those that come are lost: the link takes nothing, and each would ask for more."""
_FIP_VLAN = b"\0\x04"
"""FIP operation of VLAN discovery, which is never tagged."""


class Listener(Protocol):
    """Who wants to know what becomes of a station's ports."""

    def notice(self, station: Station, text: str) -> None:
        """Something on its segment is not as it should be."""

    def port_up(self, port: NPort) -> None:
        """It has an address: :attr:`NPort.fc_id`."""

    def port_down(self, port: NPort, reason: str) -> None:
        """It has none any more."""


class Station:
    """One.

    :param mode: a key of :data:`CONTROLLERS`.
    :param address: MAC address of the interface.
    :param mtu: bytes that a frame of the interface carries after its EtherType.
    :param rng: chance, for back-off and temporary addresses.
    :param vlan: 1 to 4094: all frames but those of VLAN discovery are tagged with it.
    :param tag_priority: priority code point of the tags.
    :param options: what a controller of the mode takes besides.
    """

    def __init__(
        self,
        mode: str,
        address: bytes,
        mtu: int = FULL_MTU,
        *,
        rng: random.Random,
        vlan: int | None = None,
        tag_priority: int = DEFAULT_PRIORITY,
        listener: Listener | None = None,
        **options: Any,
    ) -> None:
        self.mode = mode
        self.address = address
        self.outbox: deque[bytes] = deque()
        """Whole Ethernet frames, in order."""
        self.rooms: Rooms | None = None
        """Memory of the link in which frames may be made; set before the link comes up, by who sends them."""
        self.counters = Counters()
        self.ports: dict[bytes, NPort] = {}
        """By port name."""
        self.listener = listener
        self._tag_priority = tag_priority
        self._addresses: frozenset[bytes] | None = None
        self._set_vlan(vlan)
        self.controller = CONTROLLERS[mode](self, address, rng=rng, mtu=mtu, vlan=vlan or 0, **options)

    # Ports and the link

    def add_port(self, port: NPort, now: float) -> None:
        """Take a port in, before anything of it is up.

        :raises ValueError: its name is in use here.
        """
        if port.port_name in self.ports:
            raise ValueError(f"port name {port.port_name.hex(':')} is in use on this interface")
        self.ports[port.port_name] = port
        port.attach(self)
        self.controller.add_port(port, now)

    def remove_port(self, port: NPort, now: float) -> None:
        """Log it out everywhere, and forget it."""
        if self.ports.get(port.port_name) is port:
            port.stop(now)
            self.controller.remove_port(port, now)
            port.down("removed", now)
            del self.ports[port.port_name]

    def link_up(self, now: float) -> None:
        """The interface can carry frames."""
        self.controller.link_up(now)

    def link_down(self, now: float) -> None:
        """It cannot; what was to be sent is lost."""
        self.counters.link_failures += 1
        self.controller.link_down(now)
        self.outbox.clear()

    def stop(self, now: float) -> None:
        """Log out of everything; the outbox has to be sent yet."""
        for port in self.ports.values():
            port.stop(now)
        self.controller.stop(now)

    def take_addresses(self) -> frozenset[bytes] | None:
        """MAC addresses that the interface has to receive besides its own, if they are others than at the last call."""
        addresses = self.controller.addresses()
        if addresses == self._addresses:
            return None
        self._addresses = addresses
        return addresses

    # Frames in

    def receive(self, frames: Iterable[memoryview], now: float) -> None:
        """What the link has received: a batch of whole Ethernet frames with their tags.

        Frames of FCP that follow another with the same addresses, and nothing else between them, do not pass the controller and
        the N_Port again: those could only say the same.
        """
        if len(self.outbox) > CONGESTION:
            self.counters.congested += sum(1 for _ in frames)
            return
        receive_fcoe, unpack, types = self.controller.receive_fcoe, self._unpack, self._types
        header_length = 2 * MAC_LENGTH + len(types)
        data_offset = header_length + FCOE_HEADER_LENGTH + FC_HEADER_LENGTH
        fc_offset = data_offset - FC_HEADER_LENGTH
        shortest = data_offset + TRAILER_LENGTH
        longest = shortest + MAX_DATA_FIELD
        lanes: dict[int, Lane] = {}
        lane_s_id = lane_d_id = -1
        passed = 0
        try:
            for ethernet in frames:
                length = len(ethernet)
                if length < shortest or length > longest or length & 3:
                    lanes.clear()
                    lane_s_id = -1
                    self._receive(ethernet, now)
                    continue
                (header, version, sof, word_0, word_1, word_2, seq_id, df_ctl, seq_cnt, ox_id, rx_id, parameter) = unpack(
                    ethernet
                )
                last = length - EOF_LENGTH
                eof = ethernet[last]
                end = length - TRAILER_LENGTH - (word_2 & F_CTL_FILL_MASK)
                if (
                    version > 0x0F
                    or (sof != SOF_I3 and sof != SOF_N3)  # noqa: PLR1714 - half the time
                    or (eof != EOF_T and eof != EOF_N)  # noqa: PLR1714 - half the time
                    or end < data_offset
                    or crc32(ethernet[fc_offset:last]) != CRC_RESIDUE
                ):
                    lanes.clear()
                    lane_s_id = -1
                    self._receive(ethernet, now)
                    continue
                r_ctl, d_id = word_0 >> 24, word_0 & 0xFFFFFF
                is_fcp = word_2 >> 24 == FCP and r_ctl < LINK_DATA and not df_ctl
                known = False
                if is_fcp:
                    if word_1 != lane_s_id or d_id != lane_d_id:
                        lane = lanes.get(word_1 << 24 | d_id)
                        if lane is not None:
                            lane_header, image_pairs, remote, qualifiers, deliver, short_ways = lane
                            lane_s_id, lane_d_id = word_1, d_id
                    if (
                        word_1 == lane_s_id
                        and d_id == lane_d_id
                        and header == lane_header
                        and image_pairs.get(word_1) is remote
                        and not qualifiers
                    ):
                        known = True
                        passed += 1
                        short, f_ctl = short_ways.get(r_ctl), word_2 & 0xFFFFFF
                        if short is not None and short(
                            remote, ethernet[data_offset:end], sof, f_ctl, seq_id, seq_cnt, ox_id, rx_id, parameter, now
                        ):
                            continue
                frame = Frame()
                frame.r_ctl = r_ctl
                frame.d_id = d_id
                frame.cs_ctl = word_1 >> 24
                frame.s_id = word_1 & 0xFFFFFF
                frame.type = word_2 >> 24
                frame.f_ctl = word_2 & 0xFFFFFF
                frame.seq_id = seq_id
                frame.df_ctl = df_ctl
                frame.seq_cnt = seq_cnt
                frame.ox_id = ox_id
                frame.rx_id = rx_id
                frame.parameter = parameter
                frame.payload = ethernet[data_offset:end]
                frame.sof = sof
                frame.eof = eof
                if known:
                    deliver(remote, frame, now)
                    continue
                if header[2 * MAC_LENGTH :] != types:
                    lanes.clear()
                    lane_s_id = -1
                    self._receive(ethernet, now)
                    continue
                passed += 1
                port: NPort | None = receive_fcoe(  # type: ignore[assignment]  # a controller has no ports but ours
                    header[:MAC_LENGTH], header[MAC_LENGTH : 2 * MAC_LENGTH], frame, now
                )
                if port is not None:
                    port.receive(frame, now)
                lane_s_id = -1
                lane = port.lane(word_1, header) if port is not None and is_fcp else None
                if lane is not None:
                    lanes[word_1 << 24 | d_id] = lane
                else:
                    lanes.clear()
        finally:
            self.counters.frames_in += passed

    def _receive(self, ethernet: memoryview, now: float) -> None:
        """Any frame: the way of those that :meth:`receive` does not take apart itself, and of errors."""
        if len(ethernet) < HEADER_LENGTH:
            self.counters.short_frames += 1
            return
        destination, source, ether_type = _ETHERNET.unpack_from(ethernet)
        try:
            if ether_type == ETHERTYPE_VLAN:
                pdu = self._untag(destination, source, ethernet, now)
            elif ether_type == ETHERTYPE_FCOE and self.vlan is None:
                pdu = ethernet[HEADER_LENGTH:]
            else:
                pdu = None
                self._receive_untagged(destination, source, ether_type, ethernet[HEADER_LENGTH:], now)
            if pdu is None:
                return
            self.counters.frames_in += 1
            sof, fc, eof = decapsulate(pdu)
            frame = Frame.unpack(fc, sof, eof)
            port = self.controller.receive_fcoe(destination, source, frame, now)
            if port is not None:
                port.receive(frame, now)  # type: ignore[attr-defined]  # ours
        except FcoeError as error:
            self.count(error.counter)

    def _untag(self, destination: bytes, source: bytes, ethernet: memoryview, now: float) -> memoryview | None:
        """The FCoE PDU of a tagged frame; whatever else has one is dealt with here."""
        vlan, ether_type, _start = split(ethernet)
        if vlan != (self.vlan or 0):
            self.counters.other_vlans += 1
            return None
        payload = ethernet[HEADER_LENGTH + TAG_LENGTH :]
        if ether_type == ETHERTYPE_FCOE:
            if self.vlan is not None:
                self._types = bytes(ethernet[2 * MAC_LENGTH : HEADER_LENGTH + TAG_LENGTH])
            return payload
        if ether_type == ETHERTYPE_FIP:
            self.counters.fip_frames_in += 1
            self.controller.receive_fip(destination, source, payload, now)
        else:
            self.counters.other_ether_types += 1
        return None

    def _receive_untagged(self, destination: bytes, source: bytes, ether_type: int, payload: memoryview, now: float) -> None:
        if ether_type not in (ETHERTYPE_FIP, ETHERTYPE_FCOE):
            self.counters.other_ether_types += 1
        elif self.vlan is not None and (ether_type == ETHERTYPE_FCOE or payload[2:4] != _FIP_VLAN):
            self.counters.other_vlans += 1
        else:
            self.counters.fip_frames_in += 1
            self.controller.receive_fip(destination, source, payload, now)

    # Time

    @property
    def next_timer(self) -> float:
        """When :meth:`handle_timer` is to be called, in seconds on the clock of ``now``; ``inf``: never."""
        found = self.controller.next_timer
        for port in self.ports.values():
            when = port.next_timer
            if when < found:  # noqa: PLR1730 - asked after every batch: half the time of min()
                found = when
        return found

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self.controller.next_timer <= now:
            self.controller.handle_timer(now)
        for port in list(self.ports.values()):
            if port.next_timer <= now:
                port.handle_timer(now)

    def resume(self, now: float) -> None:
        """The link has taken what was in the outbox: the FC-4s go on with the data that they have held back."""
        for port in self.ports.values():
            port.fc4.resume(now)

    # What N_Ports ask for

    def prefix(self, port: NPort, d_id: int) -> bytes | None:
        """The Ethernet header towards an address, tag and EtherType included; ``None``: there is no way."""
        route = self.controller.route(port, d_id)
        return route + self._tag + _FCOE if route is not None else None

    def port_name_of(self, fc_id: int) -> bytes | None:
        """See :meth:`Controller.port_name_of`."""
        return self.controller.port_name_of(fc_id)

    def send_link_service(self, port: NPort, header: bytes, payload: bytes, now: float) -> bool:
        """See :meth:`Controller.send_link_service`."""
        return self.controller.send_link_service(port, header, payload, now)

    # What the controller asks for (:class:`tcm_fcoe.protocol.controller.ControllerServices`)

    def transmit(self, frame: bytes) -> None:
        """A whole Ethernet frame without a tag."""
        self.outbox.append(insert_tag(frame, self._tag) if self._tag else frame)

    def transmit_untagged(self, frame: bytes) -> None:
        """One that stays without."""
        self.outbox.append(frame)

    def report(self, text: str) -> None:
        """What whoever runs the station should know."""
        if self.listener is not None:
            self.listener.notice(self, text)

    def vlan_found(self, vlan: int) -> None:
        """All frames but those of VLAN discovery go to this VLAN from now on; 0: to none."""
        self._set_vlan(vlan)

    def _set_vlan(self, vlan: int | None) -> None:
        self.vlan = vlan or None
        self._tag = vlan_tag(vlan, self._tag_priority) if vlan else b""
        self._unpack = (_TAGGED if vlan else _UNTAGGED).unpack_from
        self._types = self._tag + _FCOE
        """Tag and EtherType of the frames that :meth:`receive` takes apart itself; others may set another priority than we."""

    def interface_errors(self) -> tuple[int, int, int, int]:
        """See :class:`ControllerServices`."""
        counters = self.counters
        return counters.link_failures, counters.symbol_errors, counters.errored_blocks, counters.frame_check_errors

    def count(self, counter: str) -> None:
        """Add one to a counter."""
        setattr(self.counters, counter, getattr(self.counters, counter) + 1)

    def port_up(
        self, port: LocalPort, fc_id: int, *, fabric: bool, e_d_tov: float, r_a_tov: float, receive_size: int, now: float
    ) -> None:
        """The port has an address."""
        own = self.ports[port.port_name]
        own.up(fc_id, fabric=fabric, now=now, e_d_tov=e_d_tov, r_a_tov=r_a_tov, receive_size=receive_size)
        if self.listener is not None:
            self.listener.port_up(own)

    def port_down(self, port: LocalPort, reason: str, now: float) -> None:
        """It has none any more."""
        own = self.ports[port.port_name]
        own.down(reason, now)
        if self.listener is not None:
            self.listener.port_down(own, reason)

    def remote_up(self, port: LocalPort, fc_id: int, port_name: bytes, node_name: bytes, now: float) -> None:
        """A remote port can be reached."""
        self.ports[port.port_name].remote_up(fc_id, port_name, node_name, now)

    def remote_down(self, port: LocalPort, fc_id: int, reason: str, now: float) -> None:
        """It cannot any more."""
        self.ports[port.port_name].remote_down(fc_id, reason, now)

    def routes_changed(self, port: LocalPort) -> None:
        """The way to somebody is another."""
        self.ports[port.port_name].routes_changed()

    def received(self, port: LocalPort, frame: Frame, now: float) -> None:
        """A reply that came in FIP."""
        self.ports[port.port_name].receive(frame, now)
