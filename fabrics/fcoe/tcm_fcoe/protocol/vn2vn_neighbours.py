"""VN2VN mode (FC-BB-6): what is known of VN_Ports, ours and others', and of the virtual links between them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcm_fcoe.protocol import fip
from tcm_fcoe.protocol.controller import NEVER, Allowance, LocalPort
from tcm_fcoe.protocol.ct_names import FEATURE_INITIATOR, FEATURE_TARGET, Features, fc4_types
from tcm_fcoe.protocol.fip import FipError, FipPdu, Pdu
from tcm_fcoe.protocol.frame import FcType, Frame
from tcm_fcoe.protocol.names import NO_NAME, VN2VN_FC_MAP, fabric_provided_mac, format_fc_id, is_multicast
from tcm_fcoe.protocol.vn2vn_tables import AddressState, LinkState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_NEIGHBOURS = 512
"""VN_Ports that are known at once; one that is not logged in gives way to a new one."""
LAST_ADDRESS = 0xFFFE
TOO_MANY = "too many neighbours"


def fc4_attributes(features: int) -> fip.Fc4Attributes:
    """Of a port that does FCP, with these features, and CT."""
    return fip.Fc4Attributes(
        fc4_types((FcType.FCP, FcType.COMMON_TRANSPORT)), Features.made_of({FcType.FCP: features}).features
    )


def fcp_features(attributes: fip.Fc4Attributes) -> int:
    """FC-4 features of FCP; 0 if it says nothing of them."""
    return Features(attributes.features).of(FcType.FCP)


@dataclass(slots=True, eq=False)
class Neighbour:
    """A VN_Port of another ENode."""

    fc_id: int
    port_name: bytes
    node_name: bytes
    enode: bytes
    """MAC address for FIP."""
    mac: bytes
    """MAC address for FCoE."""
    max_fcoe_size: int
    features: int
    heard: float
    """When its last claim or beacon came."""


@dataclass(slots=True, eq=False)
class VirtualLink:
    """Between a local VN_Port and a neighbour."""

    neighbour: Neighbour
    state: LinkState = LinkState.KNOWN
    timer: float = NEVER
    tries: int = 0
    ox_id: int = 0
    request: Frame | None = None
    """What is being answered."""
    reason: str = ""
    """Why it ends."""
    answers: Allowance = field(default_factory=lambda: Allowance(16, 4))
    """The neighbour's own, so that others' storms are not its loss."""
    told: float = -NEVER
    """When the neighbour was told that there is no login."""


@dataclass(slots=True, eq=False)
class VnPort:
    """A local N_Port and its address."""

    port: LocalPort
    fc_id: int = 0
    mac: bytes = b""
    state: AddressState = AddressState.START
    timer: float = NEVER
    tries: int = 0
    claimed: float = -NEVER
    """When the last claim went out."""
    asker: bytes = b""
    """ENode that a probe reply goes to."""
    links: dict[int, VirtualLink] = field(default_factory=dict)
    """By the neighbour's address."""
    routes: dict[int, bytes] = field(default_factory=dict)
    """MAC addresses of neighbours that are logged in, by address."""


class Neighbours:
    """All that are known, by address and by name."""

    def __init__(self) -> None:
        self._by_fc_id: OrderedDict[int, Neighbour] = OrderedDict()
        """Whose claim or beacon came longest ago first."""
        self._by_name: dict[bytes, Neighbour] = {}

    def __len__(self) -> int:
        return len(self._by_fc_id)

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(self._by_fc_id.values())

    def __contains__(self, fc_id: int) -> bool:
        return fc_id in self._by_fc_id

    def get(self, fc_id: int) -> Neighbour | None:
        """The one that has the address."""
        return self._by_fc_id.get(fc_id)

    def add(self, neighbour: Neighbour) -> None:
        """One that :meth:`admit` has no objection to, when those who give way have been removed."""
        self._by_fc_id[neighbour.fc_id] = self._by_name[neighbour.port_name] = neighbour

    def remove(self, neighbour: Neighbour) -> None:
        """It may be gone already."""
        self._by_fc_id.pop(neighbour.fc_id, None)
        self._by_name.pop(neighbour.port_name, None)

    def hear(self, neighbour: Neighbour, now: float) -> None:
        """Its claim or beacon has come."""
        neighbour.heard = now
        self._by_fc_id.move_to_end(neighbour.fc_id)

    def clear(self) -> None:
        """Remove all."""
        self._by_fc_id.clear()
        self._by_name.clear()

    def check(self, other: Neighbour) -> None:
        """Raises :class:`FipError` for one that has the name of another, whose beacons come."""
        known = self._by_name.get(other.port_name)
        if known is not None and known.enode != other.enode:
            raise FipError("fip_conflict", f"{other.enode.hex(':')} has the port name of {known.enode.hex(':')}")

    def admit(self, new: Neighbour, in_use: Callable[[], set[int]]) -> list[tuple[Neighbour, str]] | None:
        """Who gives way to a neighbour that has claimed its address, and why; None: it is known, and what it says is noted.

        Of two with one address the greater port name stays; beyond the limit the one that has been silent longest goes.

        :param in_use: addresses of those that somebody is logged in with.
        """
        leaving: list[tuple[Neighbour, str]] = []
        for known in (self._by_fc_id.get(new.fc_id), self._by_name.get(new.port_name)):
            if known is None or any(known is each for each, _ in leaving):
                continue
            same = known.port_name == new.port_name and known.enode == new.enode
            if same and known.fc_id == new.fc_id:
                known.node_name, known.max_fcoe_size, known.features = new.node_name, new.max_fcoe_size, new.features
                self.hear(known, new.heard)
                return None
            if not same and known.port_name >= new.port_name:
                raise FipError("fip_conflict", f"{new.enode.hex(':')} claims what {known.enode.hex(':')} has")
            leaving.append((known, "its address has changed"))
        if not leaving and len(self) >= MAX_NEIGHBOURS:
            used = in_use()
            idle = next((each for each in self if each.fc_id not in used), None)
            if idle is None:
                raise FipError("fip_table_full", f"{MAX_NEIGHBOURS} neighbours are logged in")
            leaving.append((idle, TOO_MANY))
        return leaving


def neighbour_of(source: bytes, pdu: FipPdu, now: float) -> Neighbour:
    """Who sent a VN2VN PDU. Raises :class:`FipError` if that is not plausible.

    :param source: the Ethernet frame's.
    """
    identity = pdu.get(fip.VxPort)
    enode = pdu.get(fip.MacAddress).address
    if not 0 < identity.fc_id <= LAST_ADDRESS or identity.port_name == NO_NAME or is_multicast(enode):
        raise FipError("fip_malformed", f"FC_ID {format_fc_id(identity.fc_id)}, port name {identity.port_name.hex(':')}")
    sources = (enode, identity.address) if pdu.pdu is Pdu.BEACON else (enode,)
    if identity.address != fabric_provided_mac(identity.fc_id, VN2VN_FC_MAP) or source not in sources:
        raise FipError("fip_spoofed", f"{source.hex(':')} speaks for {enode.hex(':')}, {identity.address.hex(':')}")
    attributes, size = pdu.find(fip.Fc4Attributes), pdu.find(fip.MaxFcoeSize)
    return Neighbour(
        identity.fc_id,
        identity.port_name,
        pdu.get(fip.NameIdentifier).name,
        enode,
        identity.address,
        size.size if size else 0,
        fcp_features(attributes) if attributes else 0,
        now,
    )


def concern_each_other(ours: int, theirs: int) -> bool:
    """Of FC-4 features: one is initiator, the other target; or one of them does not say, or does no FCP."""
    return not (ours and theirs) or bool(
        (ours & FEATURE_INITIATOR and theirs & FEATURE_TARGET) or (ours & FEATURE_TARGET and theirs & FEATURE_INITIATOR)
    )
