"""VN2VN mode (FC-BB-6): what is known of VN_Ports, ours and others', and of the virtual links between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tcm_fcoe.protocol import fip
from tcm_fcoe.protocol.controller import FEATURE_INITIATOR, FEATURE_TARGET, NEVER, LocalPort
from tcm_fcoe.protocol.fip import FipError, FipPdu
from tcm_fcoe.protocol.frame import FcType, Frame
from tcm_fcoe.protocol.names import NO_NAME, VN2VN_FC_MAP, fabric_provided_mac, format_fc_id, is_multicast
from tcm_fcoe.protocol.vn2vn_tables import AddressState, LinkState

MAX_NEIGHBOURS = 512
"""VN_Ports that are known at once; one that is not logged in gives way to a new one."""
LAST_ADDRESS = 0xFFFE
_FC4_TYPE_LENGTH, _FC4_FEATURES_LENGTH = 32, 128


def fc4_attributes(features: int) -> fip.Fc4Attributes:
    """Of a port that does FCP and CT, as name server objects: types by words from the low bit, features four bits a type."""
    types, feats = bytearray(_FC4_TYPE_LENGTH), bytearray(_FC4_FEATURES_LENGTH)
    for each in (FcType.FCP, FcType.COMMON_TRANSPORT):
        types[each // 32 * 4 + 3 - each % 32 // 8] |= 1 << each % 8
    feats[FcType.FCP // 8 * 4 + 3 - FcType.FCP % 8 // 2] = features << FcType.FCP % 2 * 4
    return fip.Fc4Attributes(bytes(types), bytes(feats))


def fcp_features(attributes: fip.Fc4Attributes) -> int:
    """FC-4 features of FCP; 0 if it says nothing of them."""
    return attributes.features[FcType.FCP // 8 * 4 + 3 - FcType.FCP % 8 // 2] >> FcType.FCP % 2 * 4 & 0xF


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


def neighbour_of(source: bytes, pdu: FipPdu, now: float) -> Neighbour:
    """Who sent a VN2VN PDU. Raises :class:`FipError` if that is not plausible.

    :param source: the Ethernet frame's.
    """
    identity = pdu.get(fip.VxPort)
    enode = pdu.get(fip.MacAddress).address
    if not 0 < identity.fc_id <= LAST_ADDRESS or identity.port_name == NO_NAME or is_multicast(enode):
        raise FipError("fip_malformed", f"FC_ID {format_fc_id(identity.fc_id)}, port name {identity.port_name.hex(':')}")
    if identity.address != fabric_provided_mac(identity.fc_id, VN2VN_FC_MAP) or source not in (enode, identity.address):
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
    """Of FC-4 features: one is initiator, the other target; or it does not say."""
    return not theirs or bool(
        (ours & FEATURE_INITIATOR and theirs & FEATURE_TARGET) or (ours & FEATURE_TARGET and theirs & FEATURE_INITIATOR)
    )
