"""The FCoE controller of one interface, or of one VLAN of it (FC-BB-5 clause 7.3): what all modes have in common.

A controller finds its counterparts by FIP, makes and ends virtual links, and knows for each local N_Port whether it has an
address, which remote ports it can reach, and by which MAC addresses. Frames and the time come in, frames go out through
:class:`ControllerServices`; what it says of ports goes the same way.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Protocol

from tcm_fcoe.protocol import fip
from tcm_fcoe.protocol.ct_names import FEATURE_INITIATOR, FEATURE_TARGET
from tcm_fcoe.protocol.els_login import CLASS_SEQUENTIAL_DELIVERY, CLASS_VALID, ClassParameters, Login
from tcm_fcoe.protocol.fcoe import EOF_T, MAX_DATA_FIELD, MIN_PDU_LENGTH, SOF_I3, FcoeError
from tcm_fcoe.protocol.fip import FipError, FipPdu, Pdu
from tcm_fcoe.protocol.frame import F_CTL_REPLY, F_CTL_REQUEST, NO_EXCHANGE, FcType, Frame, RCtl, fill, pack_header

if TYPE_CHECKING:
    import random

    from tcm_fcoe.protocol.els_payload import Payload

COUNTERS = (
    "fip_malformed",
    "fip_version",
    "fip_unsupported",
    "fip_unknown_descriptor",
    "fip_unexpected_descriptor",
    "fip_duplicate_descriptor",
    "fip_missing_descriptor",
    "fip_not_for_us",
    "fip_spoofed",
    "fip_conflict",
    "fip_table_full",
    "fip_rate_limited",
    "fip_unexpected",
    "fip_logins_refused",
    "virtual_link_failures",
    "missed_keep_alives",
    "missed_advertisements",
    "fcoe_not_for_us",
    "fcoe_spoofed",
    "fcoe_no_route",
    "fcoe_unexpected",
)
"""What :meth:`ControllerServices.count` is told."""

REPORTED = frozenset(("fip_conflict", "fip_table_full"))
"""Statistics that are worth a line when they go up."""
REPORTS, REPORT_RATE = 8, 0.1
"""Lines at once; then so many a second."""

E_D_TOV = 2.0
"""Seconds; the default of FC-FS-3 clause 18, until a fabric says another."""
R_A_TOV = 10.0
FCP_INITIATOR, FCP_TARGET = 0x20, 0x10
"""Of the FCP service parameter page of PRLI (FCP-4 6.3)."""
BB_CREDIT = 10
HISTORY = 32
STRANGERS_BURST, STRANGERS_RATE = 2048, 1024
"""FIP frames at once, and a second, of all who have no virtual link: each costs as much as many commands."""


class Fc4Parameters(Protocol):
    """What a controller asks of the FC-4 of a port."""

    service_parameters: int
    """FCP PRLI page flags."""


class LocalPort(Protocol):
    """What a controller asks of a local N_Port (:class:`tcm_fcoe.protocol.n_port.NPort`)."""

    port_name: bytes
    node_name: bytes

    @property
    def fc4(self) -> Fc4Parameters:
        """FCP."""


class ControllerServices(Protocol):
    """Who owns the controller: the station."""

    def transmit(self, frame: bytes) -> None:
        """Send a whole Ethernet frame, without a tag: the owner inserts that of its VLAN."""

    def transmit_untagged(self, frame: bytes) -> None:
        """The same, outside of the VLAN: FIP VLAN discovery."""

    def interface_errors(self) -> tuple[int, int, int, int]:
        """Of the Ethernet link: failures, symbol errors, errored blocks, frame check errors."""

    def count(self, counter: str) -> None:
        """Add one to a statistic."""

    def port_up(
        self, port: LocalPort, fc_id: int, *, fabric: bool, e_d_tov: float, r_a_tov: float, receive_size: int, now: float
    ) -> None:
        """The port has an address.

        :param fabric: there are well-known addresses: a directory server, a fabric controller.
        :param e_d_tov: seconds, like ``r_a_tov``.
        :param receive_size: bytes of the data field that the way to others carries.
        """

    def port_down(self, port: LocalPort, reason: str, now: float) -> None:
        """The port's address is gone, and with it all its remote ports."""

    def remote_up(self, port: LocalPort, fc_id: int, port_name: bytes, node_name: bytes, now: float) -> None:
        """The port can reach a remote port, and neither is logged in with the other any more if they were."""

    def remote_down(self, port: LocalPort, fc_id: int, reason: str, now: float) -> None:
        """It can no longer."""

    def routes_changed(self, port: LocalPort) -> None:
        """What :meth:`Controller.route` said of any address may have changed."""

    def report(self, text: str) -> None:
        """Something that whoever runs the station should know, in a line."""

    def vlan_found(self, vlan: int) -> None:
        """FIP VLAN discovery has found the VLAN that frames go to from now on; 0: none."""

    def received(self, port: LocalPort, frame: Frame, now: float) -> None:
        """A frame that came in FIP, or from a service of this station."""


class Controller(ABC):
    """One FCoE controller.

    :param address: the interface's own MAC address: the ENode's or FCF's.
    :param rng: chance, for back-off and temporary addresses.
    :param mtu: bytes that a frame carries after the EtherType.
    :param vlan: the VLAN it works on, 0 for none; told to who asks.
    """

    mode: ClassVar[str]
    """As it is written after ``--mode``."""

    def __init__(
        self, services: ControllerServices, address: bytes, *, rng: random.Random, mtu: int = 2500, vlan: int = 0
    ) -> None:
        self.services = services
        self.address = address
        self.rng = rng
        self.vlan = vlan
        self.receive_size = max(0, min(MAX_DATA_FIELD, mtu - MIN_PDU_LENGTH) & ~3)
        """Bytes of the greatest data field that fits the MTU."""
        self.max_fcoe_size = self.receive_size + MIN_PDU_LENGTH
        """Bytes of the greatest FCoE PDU."""
        self.ports: dict[bytes, LocalPort] = {}
        """By port name."""
        self.link_is_up = False
        self.history: deque[str] = deque(maxlen=HISTORY)
        """The last transitions, for log lines."""
        self._ox_id = 0
        self._reports = Allowance(REPORTS, REPORT_RATE)
        self._strangers = Allowance(STRANGERS_BURST, STRANGERS_RATE)

    # What the station calls

    def add_port(self, port: LocalPort, now: float) -> None:
        """Take care of a local N_Port, from now on or from the time the link comes up. No two have one name."""
        if port.port_name in self.ports:
            raise ValueError(f"port name {port.port_name.hex(':')} is in use on this interface")
        self.ports[port.port_name] = port
        if self.link_is_up:
            self.start_port(port, now)

    def remove_port(self, port: LocalPort, now: float) -> None:
        """Log it out and forget it."""
        if self.ports.pop(port.port_name, None) is not None:
            self.stop_port(port, "removed", now)

    def memory(self) -> str:
        """What another process, in this one's place, should be told by :meth:`remember`; empty: nothing."""
        return ""

    def remember(self, memory: str) -> None:  # noqa: B027 - most modes have nothing to remember
        """What the process before has kept; called before the link comes up."""

    def link_up(self, now: float) -> None:
        """The interface can carry frames."""
        if not self.link_is_up:
            self.link_is_up = True
            self.started(now)
            for port in self.ports.values():
                self.start_port(port, now)

    def link_down(self, now: float) -> None:
        """It cannot: nothing that is sent arrives."""
        if self.link_is_up:
            self.link_is_up = False
            for port in self.ports.values():
                self.lose_port(port, "link down", now)
            self.ended(now)

    def stop(self, now: float) -> None:
        """End all virtual links, politely."""
        if self.link_is_up:
            for port in reversed(list(self.ports.values())):  # others may depend on the first
                self.stop_port(port, "stopped", now)
            self.ended(now)
            self.link_is_up = False

    def receive_fip(self, destination: bytes, source: bytes, payload: memoryview, now: float) -> None:
        """What followed EtherType 8914h. Frames that are no FIP PDUs, or not for us, are counted and dropped."""
        if not self.link_is_up:
            return
        try:
            if source[0] & 1 or source == self.address or destination not in self.fip_addresses():
                raise FipError("fip_not_for_us", "a group address as source, or another's as destination")
            if not self.has_link_with(source) and not self._strangers.take(now):
                raise FipError("fip_rate_limited", "more FIP frames of strangers than there is time for")
            self.receive_pdu(destination, source, fip.decode(payload), now)
        except FipError as e:
            self.services.count(e.counter)
            if e.counter in REPORTED:
                self.report(str(e), now)

    def send_link_service(self, port: LocalPort, header: bytes, payload: bytes, now: float) -> bool:  # noqa: ARG002 - modes use it
        """Send an ELS request in FIP, or anything to a service of this station, if the mode does so; otherwise False.

        :param header: the FC frame's, of a sequence of one frame.
        :param payload: of any length, without fill bytes.
        """
        return False

    def vlan_notification(self, source: bytes, pdu: Pdu, vlans: tuple[int, ...]) -> None:
        """Answer a VLAN request."""
        descriptors = (fip.MacAddress(self.address), *map(fip.Vlan, vlans))
        self.services.transmit_untagged(self.fip_frame(source, FipPdu(pdu, descriptors)))

    # What a mode is

    @property
    @abstractmethod
    def next_timer(self) -> float:
        """When to call :meth:`handle_timer`, ``math.inf`` for never."""

    @abstractmethod
    def handle_timer(self, now: float) -> None:
        """Do what is due."""

    @abstractmethod
    def receive_pdu(self, destination: bytes, source: bytes, pdu: FipPdu, now: float) -> None:
        """A FIP PDU from another. Raises :class:`FipError` to drop it."""

    @abstractmethod
    def receive_fcoe(self, destination: bytes, source: bytes, frame: Frame, now: float) -> LocalPort | None:
        """The local port that a frame is for; None: dropped and counted, or dealt with."""

    @abstractmethod
    def route(self, port: LocalPort, d_id: int) -> bytes | None:
        """Destination and source MAC address (12 bytes) of frames from a port to an address; None: there is no way."""

    def has_link_with(self, source: bytes) -> bool:  # noqa: ARG002 - modes use it
        """Whether a MAC address is of somebody with a virtual link, whom a flood of others' FIP frames is not to disturb."""
        return False

    def port_name_of(self, fc_id: int) -> bytes | None:  # noqa: ARG002 - modes use it
        """The port name that an address belongs to, where the mode knows that of itself; PLOGI with another is refused."""
        return None

    @abstractmethod
    def addresses(self) -> frozenset[bytes]:
        """MAC addresses besides its own that the interface has to receive."""

    @abstractmethod
    def fip_addresses(self) -> frozenset[bytes]:
        """Destinations of FIP frames that are for us."""

    def started(self, now: float) -> None:  # noqa: ARG002 - modes use it
        """The link has come up; each port is started after this."""
        self.log("link up")

    def ended(self, now: float) -> None:  # noqa: ARG002 - modes use it
        """The link has gone, or the station stops; each port is down before this."""
        self.log("link down")

    @abstractmethod
    def start_port(self, port: LocalPort, now: float) -> None:
        """Get an address for a port."""

    @abstractmethod
    def stop_port(self, port: LocalPort, reason: str, now: float) -> None:
        """Log a port out."""

    @abstractmethod
    def lose_port(self, port: LocalPort, reason: str, now: float) -> None:
        """The port is down, and nobody can be told."""

    # What modes use

    def fip_frame(self, destination: bytes, pdu: FipPdu, *, source: bytes | None = None, size: int = fip.MIN_PAYLOAD) -> bytes:
        """A whole Ethernet frame.

        :param size: bytes after the EtherType, at least.
        """
        return b"".join((destination, source or self.address, fip.ETHERTYPE, fip.encode(pdu, size)))

    def next_ox_id(self) -> int:
        """For an exchange of FIP's own. They are told apart from the ports' by their descriptor, not by number."""
        self._ox_id = self._ox_id % 0xFFFE + 1
        return self._ox_id

    def login_payload(
        self, command: int, port_name: bytes, node_name: bytes, *, features: int = 0, word_2: int = 0, word_3: int = 0
    ) -> Login:
        """FLOGI or FDISC of an N_Port, or LS_ACC to one."""
        return Login(
            command=command,
            port_name=port_name,
            node_name=node_name,
            credit=BB_CREDIT,
            features=features,
            receive_size=self.receive_size,
            word_2=word_2,
            word_3=word_3,
            class_3=ClassParameters(options=CLASS_VALID | CLASS_SEQUENTIAL_DELIVERY).pack(),
        )

    def log(self, text: str) -> None:
        """Add to the history."""
        self.history.append(text)

    def report(self, text: str, now: float) -> None:
        """The same, and tell whoever runs the station; of many at once, the first few."""
        self.history.append(text)
        if self._reports.take(now):
            self.services.report(text)


def features_of(port: LocalPort) -> int:
    """FC-4 features of FCP."""
    parameters = port.fc4.service_parameters
    return (FEATURE_TARGET if parameters & FCP_TARGET else 0) | (FEATURE_INITIATOR if parameters & FCP_INITIATOR else 0)


def els_request(d_id: int, s_id: int, ox_id: int, payload: Payload) -> bytes:
    """An FC frame with an ELS request, fill bytes included, as FIP encapsulates it."""
    return _els_frame(RCtl.EXTENDED_LINK_REQUEST, d_id, s_id, F_CTL_REQUEST, ox_id, payload)


def els_reply(request: Frame, payload: Payload, *, s_id: int | None = None, d_id: int | None = None) -> bytes:
    """An FC frame with LS_ACC or LS_RJT to a request, likewise."""
    to, by = request.s_id if d_id is None else d_id, request.d_id if s_id is None else s_id
    return _els_frame(RCtl.EXTENDED_LINK_REPLY, to, by, F_CTL_REPLY, request.ox_id, payload)


def _els_frame(r_ctl: int, d_id: int, s_id: int, f_ctl: int, ox_id: int, payload: Payload) -> bytes:
    data = payload.pack()
    fills = fill(data)
    els = FcType.EXTENDED_LINK_SERVICE
    return pack_header(r_ctl, d_id, s_id, els, f_ctl | fills, 0, 0, 0, ox_id, NO_EXCHANGE, 0) + data + bytes(fills)


def encapsulated_els(pdu: FipPdu) -> tuple[fip.Encapsulated, Frame]:
    """The ELS of a virtual link request or reply. Raises :class:`FipError` if it is none."""
    descriptor = pdu.get(fip.Encapsulated)
    try:
        frame = Frame.unpack(memoryview(descriptor.frame), SOF_I3, EOF_T)
    except FcoeError as e:
        raise FipError("fip_malformed", str(e)) from None
    expected = RCtl.EXTENDED_LINK_REQUEST if pdu.pdu is Pdu.VIRTUAL_LINK_REQUEST else RCtl.EXTENDED_LINK_REPLY
    if frame.r_ctl != expected or frame.type != FcType.EXTENDED_LINK_SERVICE or len(frame.payload) < 4:
        raise FipError("fip_malformed", f"a frame of R_CTL {frame.r_ctl:02x}h, TYPE {frame.type:02x}h is no ELS")
    return descriptor, frame


class Allowance:
    """How many answers may go out: so many at once, so many a second after that.

    :param burst: answers at once.
    :param rate: answers a second.
    """

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = self._left = burst
        self._rate = rate
        self._last = 0.0

    def take(self, now: float) -> bool:
        """One more; False if there have been too many."""
        self._left = min(self._burst, self._left + max(0.0, now - self._last) * self._rate)
        self._last = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


NEVER = math.inf
