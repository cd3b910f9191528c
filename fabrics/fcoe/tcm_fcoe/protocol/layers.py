"""scapy packet classes of FCoE and FIP (FC-BB-6), the FC-2 frame (FC-FS-3), and the heads of what is in it: FCP-4 here, link
services and CT in :mod:`tcm_fcoe.protocol.link_service_layers`. For captures, tests and people; data frames go by ``struct``.

``Ether(data)`` takes a whole frame apart, 802.1Q tags included. CRC, fill bytes and lengths that are None are worked out.
"""

from __future__ import annotations

import zlib
from typing import Any, ClassVar

from scapy.fields import (
    BitEnumField,
    BitField,
    ByteEnumField,
    ByteField,
    FieldLenField,
    FlagsField,
    IntField,
    LEIntField,
    MACField,
    PacketListField,
    ShortEnumField,
    ShortField,
    StrField,
    StrFixedLenField,
    StrLenField,
    ThreeBytesField,
    XByteField,
    XLongField,
    XShortField,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw, bind_layers

from tcm_fcoe.protocol.link_service_layers import BASIC, CT_PREAMBLE, CommonTransport, link_service

FCOE, FIP_TYPE = 0x8906, 0x8914

SOF = {
    0x28: "SOFf", 0x29: "SOFi4", 0x2D: "SOFi2", 0x2E: "SOFi3", 0x31: "SOFn4", 0x35: "SOFn2", 0x36: "SOFn3", 0x39: "SOFc4",
}  # fmt: skip
"""FC-BB-6 table 21: what starts a frame."""
EOF = {0x41: "EOFn", 0x42: "EOFt", 0x44: "EOFrt", 0x46: "EOFdt", 0x49: "EOFni", 0x4E: "EOFdti", 0x4F: "EOFrti", 0x50: "EOFa"}
"""FC-BB-6 table 22: what ends it."""

FILL = 3
"""F_CTL bits 1 and 0 (FC-FS-3 9.7.2)."""
TYPES = {0x00: "BLS", 0x01: "ELS", 0x08: "FCP", 0x20: "FC-GS", 0x22: "SW_ILS", 0x28: "NVMe"}
"""FC-FS-3 table 34."""
F_CTL = [
    "fill0", "fill1", "bit2", "relative_offset", "abort0", "abort1", "continue0", "continue1",
    "unidirectional", "retransmitted", "bit10", "bit11", "ack0", "ack1", "invalidate", "reassigned",
    "initiative", "priority", "bit18", "end", "last", "first", "recipient", "responder",
]  # fmt: skip
"""FC-FS-3 table 35, from bit 0."""
INFORMATION_CATEGORIES = {
    1: "FCP_DATA", 3: "FCP_CONF", 5: "FCP_XFER_RDY", 6: "FCP_CMND", 7: "FCP_RSP",
}  # fmt: skip
"""FCP-4 table 14: the low nibble of R_CTL, with TYPE 08h."""
TASK_ATTRIBUTES = {0: "SIMPLE", 1: "HEAD OF QUEUE", 2: "ORDERED", 4: "ACA"}
TASK_MANAGEMENT = [
    "QUERY TASK SET", "ABORT TASK SET", "CLEAR TASK SET", "QUERY ASYNCHRONOUS EVENT",
    "LOGICAL UNIT RESET", "TARGET RESET", "CLEAR ACA", "TERMINATE TASK",
]  # fmt: skip
"""FCP-4 table 18, from bit 0."""
RSP_CODES = {
    0: "TASK MANAGEMENT FUNCTION COMPLETE", 1: "FCP_DATA LENGTH DIFFERENT THAN FCP_BURST_LEN", 2: "FCP_CMND FIELDS INVALID",
    3: "FCP_DATA PARAMETER MISMATCH WITH FCP_DATA_RO", 4: "TASK MANAGEMENT FUNCTION REJECTED",
    5: "TASK MANAGEMENT FUNCTION FAILED", 8: "TASK MANAGEMENT FUNCTION SUCCEEDED", 9: "INCORRECT LOGICAL UNIT NUMBER",
}  # fmt: skip
"""FCP-4 table 27."""


class FCoE(Packet):
    """FC-BB-6 7.7: version, SOF, an FC frame, its CRC, EOF. The trailer stands behind the payload on the wire."""

    name = "FCoE"
    HEAD: ClassVar[int] = 14
    TRAILER: ClassVar[int] = 8
    fields_desc: ClassVar[list[Any]] = [
        BitField("version", 0, 4),
        BitField("reserved", 0, 100),
        ByteEnumField("sof", 0x2E, SOF),
        LEIntField("crc", None),
        ByteEnumField("eof", 0x42, EOF),
        StrFixedLenField("trailer", bytes(3), 3),
    ]

    def pre_dissect(self, data: bytes) -> bytes:
        """The trailer, to where the fields expect it."""
        if len(data) < self.HEAD + self.TRAILER:
            return data
        return data[: self.HEAD] + data[-self.TRAILER :] + data[self.HEAD : -self.TRAILER]

    def post_dissect(self, data: bytes) -> bytes:
        """What was rearranged is not what building may repeat."""
        self.raw_packet_cache = None
        return data

    def post_build(self, head: bytes, payload: bytes) -> bytes:
        """And back behind it, with its CRC."""
        trailer = head[self.HEAD :]
        if self.crc is None:
            trailer = zlib.crc32(payload).to_bytes(4, "little") + trailer[4:]
        return head[: self.HEAD] + payload + trailer


class FC(Packet):
    """FC-FS-3 clause 9: the frame header. ``fill`` stands behind the payload on the wire, and F_CTL has its length."""

    name = "FC"
    HEADER: ClassVar[int] = 24
    fields_desc: ClassVar[list[Any]] = [
        XByteField("r_ctl", 0x06),
        ThreeBytesField("d_id", 0),
        XByteField("cs_ctl", 0),
        ThreeBytesField("s_id", 0),
        ByteEnumField("type", 0x08, TYPES),
        FlagsField("f_ctl", 0, 24, F_CTL),
        XByteField("seq_id", 0),
        XByteField("df_ctl", 0),
        ShortField("seq_cnt", 0),
        XShortField("ox_id", 0xFFFF),
        XShortField("rx_id", 0xFFFF),
        IntField("parameter", 0),
        StrLenField("fill", b"", length_from=lambda packet: int(packet.f_ctl) & FILL),
    ]

    def pre_dissect(self, data: bytes) -> bytes:
        """The fill bytes, to where the field expects them."""
        fill = data[11] & FILL if len(data) > self.HEADER else 0
        return data[: self.HEADER] + data[len(data) - fill :] + data[self.HEADER : len(data) - fill]

    def post_dissect(self, data: bytes) -> bytes:
        """What was rearranged is not what building may repeat."""
        self.raw_packet_cache = None
        return data

    def post_build(self, head: bytes, payload: bytes) -> bytes:
        """Fill up to a whole word, unless there are fill bytes."""
        head, fill = head[: self.HEADER], head[self.HEADER :]
        if not fill and len(payload) & FILL:
            fill = bytes(-len(payload) & FILL)
            head = head[:11] + bytes((head[11] & ~FILL | len(fill),)) + head[12:]
        return head + payload + fill

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """By R_CTL and TYPE."""
        if self.df_ctl:
            return Raw
        if self.type == 0x08 and self.r_ctl < 0x08:
            made = INFORMATION_UNITS.get(self.r_ctl, Raw)
            return made if len(payload) >= MINIMUM.get(self.r_ctl, 0) else Raw
        if self.r_ctl in (0x22, 0x23, 0x32, 0x33):
            return link_service(payload)
        if self.r_ctl in BASIC:
            return BASIC[self.r_ctl]
        if self.type == 0x20 and self.r_ctl in (0x02, 0x03) and len(payload) >= CT_PREAMBLE:
            return CommonTransport
        return Raw


class FcpCmnd(Packet):
    """FCP-4 9.1.2."""

    name = "FCP_CMND"
    fields_desc: ClassVar[list[Any]] = [
        StrFixedLenField("lun", bytes(8), 8),
        ByteField("crn", 0),
        BitField("reserved", 0, 1),
        BitField("priority", 0, 4),
        BitEnumField("attribute", 0, 3, TASK_ATTRIBUTES),
        FlagsField("task_management", 0, 8, TASK_MANAGEMENT),
        BitField("additional", 0, 6),
        BitField("rddata", 0, 1),
        BitField("wrdata", 0, 1),
        StrLenField("cdb", bytes(16), length_from=lambda packet: 16 + 4 * packet.additional),
        IntField("fcp_dl", 0),
    ]

    def extract_padding(self, data: bytes) -> tuple[bytes, bytes | None]:
        """FCP_BIDIRECTIONAL_READ_DL, if both flags are set."""
        return data, None


class FcpXferRdy(Packet):
    """FCP-4 9.2."""

    name = "FCP_XFER_RDY"
    fields_desc: ClassVar[list[Any]] = [IntField("offset", 0), IntField("burst_length", 0), IntField("reserved", 0)]


class FcpData(Packet):
    """FCP-4 9.3."""

    name = "FCP_DATA"
    fields_desc: ClassVar[list[Any]] = [StrField("data", b"")]


class FcpRsp(Packet):
    """FCP-4 9.4."""

    name = "FCP_RSP"
    fields_desc: ClassVar[list[Any]] = [
        StrFixedLenField("reserved", bytes(8), 8),
        ShortField("status_qualifier", 0),
        FlagsField("flags", 0, 8, ["rsp_len", "sns_len", "over", "under", "conf_req", "bidi_over", "bidi_under", "bidi_rsp"]),
        XByteField("status", 0),
        IntField("residual", 0),
        FieldLenField("sense_length", None, fmt="I", length_of="sense"),
        FieldLenField("response_length", None, fmt="I", length_of="response"),
        StrLenField("response", b"", length_from=lambda packet: packet.response_length if packet.flags.rsp_len else 0),
        StrLenField("sense", b"", length_from=lambda packet: packet.sense_length if packet.flags.sns_len else 0),
    ]


class FcpConf(Packet):
    """FCP-4 9.5: nothing is in it."""

    name = "FCP_CONF"


INFORMATION_UNITS: dict[int, type[Packet]] = {1: FcpData, 3: FcpConf, 5: FcpXferRdy, 6: FcpCmnd, 7: FcpRsp}
MINIMUM = {5: 12, 6: 32, 7: 24}
"""Bytes that such an information unit has at least."""

FIP_OPERATIONS = {1: "Discovery", 2: "Link Service", 3: "Control", 4: "VLAN", 5: "VN2VN"}
"""FC-BB-6 table 26."""
FIP_SUBCODES = {
    (1, 1): "Discovery Solicitation", (1, 2): "Discovery Advertisement",
    (2, 1): "request", (2, 2): "reply",
    (3, 1): "Keep Alive", (3, 2): "Clear Virtual Links",
    (4, 1): "VLAN Request", (4, 2): "VLAN Notification",
    (5, 1): "Probe Request", (5, 2): "Probe Reply", (5, 3): "Claim Notification", (5, 4): "Claim Response", (5, 5): "Beacon",
}  # fmt: skip
FIP_FLAGS = [
    "FCF", "solicited", "available", "p2p", "bit4", "bit5", "bit6", "bit7",
    "bit8", "bit9", "bit10", "bit11", "bit12", "bit13", "SPMA", "FPMA",
]  # fmt: skip
"""FC-BB-6 table 25, from bit 0. ``p2p``: of VN2VN, and of a solicitation that seeks no FCF."""


class Descriptor(Packet):
    """FC-BB-6 7.6.5: type, and length in words of all of it. This class is for types that have none of their own."""

    name = "descriptor"
    fields_desc: ClassVar[list[Any]] = [
        ByteField("descriptor", 0),
        ByteField("words", None),
        StrLenField("value", b"", length_from=lambda packet: max(0, 4 * (packet.words or 0) - 2)),
    ]

    def post_build(self, head: bytes, payload: bytes) -> bytes:
        """Its length."""
        whole = head + payload
        if self.words is None:
            whole = whole[:1] + bytes((len(whole) // 4,)) + whole[2:]
        return whole

    def extract_padding(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Descriptors stand side by side."""
        return b"", data


def _descriptor(kind: int, title: str, *fields: Any) -> type[Descriptor]:
    """The class of one type of descriptor."""
    head = [ByteField("descriptor", kind), ByteField("words", None)]
    return type(title.replace(" ", ""), (Descriptor,), {"name": title, "fields_desc": [*head, *fields], "__doc__": title})


def _link_service_descriptor(kind: int, title: str) -> type[Descriptor]:
    whole = StrLenField("frame", b"", length_from=lambda packet: max(0, 4 * (packet.words or 0) - 4))
    return _descriptor(kind, title, ShortField("reserved", 0), whole)


Priority = _descriptor(1, "Priority", ByteField("reserved", 0), ByteField("priority", 128))
MacAddress = _descriptor(2, "MAC address", MACField("mac", "00:00:00:00:00:00"))
FcMap = _descriptor(3, "FC-MAP", StrFixedLenField("reserved", bytes(3), 3), ThreeBytesField("fc_map", 0x0EFC00))
NameIdentifier = _descriptor(4, "Name Identifier", ShortField("reserved", 0), XLongField("wwn", 0))
FabricName = _descriptor(
    5, "Fabric", ShortField("vf_id", 0), ByteField("reserved", 0), ThreeBytesField("fc_map", 0x0EFC00), XLongField("wwn", 0)
)
MaxFcoeSize = _descriptor(6, "Max FCoE size", ShortField("size", 2158))
Flogi = _link_service_descriptor(7, "FLOGI")
Fdisc = _link_service_descriptor(8, "NPIV FDISC")
Logo = _link_service_descriptor(9, "Fabric LOGO")
Elp = _link_service_descriptor(10, "ELP")
VnPort = _descriptor(
    11, "VN_Port", MACField("mac", "00:00:00:00:00:00"), ByteField("reserved", 0), ThreeBytesField("fc_id", 0),
    XLongField("wwn", 0),
)  # fmt: skip
FkaAdvPeriod = _descriptor(
    12, "FKA_ADV_Period", ByteField("reserved", 0), BitField("reserved2", 0, 7), BitField("d_bit", 0, 1),
    IntField("period", 8000),
)  # fmt: skip
VendorId = _descriptor(13, "Vendor ID", ShortField("reserved", 0), StrFixedLenField("vendor", bytes(8), 8))
Vlan = _descriptor(14, "VLAN", BitField("reserved", 0, 4), BitField("vlan", 0, 12))
Fc4Attributes = _descriptor(
    15, "FC-4 Attributes", ShortField("reserved", 0), StrFixedLenField("types", bytes(32), 32),
    StrFixedLenField("features", bytes(128), 128),
)  # fmt: skip
DESCRIPTORS: dict[int, type[Descriptor]] = {
    int(each().descriptor): each
    for each in (
        Priority, MacAddress, FcMap, NameIdentifier, FabricName, MaxFcoeSize, Flogi, Fdisc, Logo, Elp, VnPort, FkaAdvPeriod,
        VendorId, Vlan, Fc4Attributes,
    )
}  # fmt: skip
"""FC-BB-6 table 29."""


def _next_descriptor(_packet: Packet, _before: list[Any], _last: Packet | None, rest: bytes) -> type[Packet] | None:
    """The class of the next one; None at the end, and at one that lies about its length."""
    if len(rest) < 4 or not 4 <= 4 * rest[1] <= len(rest):
        return None
    made = DESCRIPTORS.get(rest[0], Descriptor)
    # one that is shorter than its fields must not eat what follows
    return made if len(made()) <= 4 * rest[1] else Descriptor


class Fip(Packet):
    """FC-BB-6 7.6.4: an FCoE Initialization Protocol operation."""

    name = "FIP"
    fields_desc: ClassVar[list[Any]] = [
        BitField("version", 1, 4),
        BitField("reserved", 0, 12),
        ShortEnumField("operation", 5, FIP_OPERATIONS),
        ByteField("reserved2", 0),
        ByteField("subcode", 1),
        FieldLenField("words", None, fmt="H", length_of="descriptors", adjust=lambda _packet, length: length // 4),
        FlagsField("flags", 0, 16, FIP_FLAGS),
        PacketListField(
            "descriptors", [], next_cls_cb=_next_descriptor, length_from=lambda packet: 4 * packet.words, max_count=256
        ),
    ]


bind_layers(Ether, FCoE, type=FCOE)
bind_layers(Dot1Q, FCoE, type=FCOE)
bind_layers(Ether, Fip, type=FIP_TYPE)
bind_layers(Dot1Q, Fip, type=FIP_TYPE)
bind_layers(FCoE, FC)
