"""scapy packet classes of link services: basic and extended ones (FC-FS-3, FC-LS-2), FCP's own (FCP-4), and CT (FC-GS-6).

An LS_ACC looks like what it answers: :func:`accept_of` says how, for whoever knows the request.
"""

from __future__ import annotations

from typing import Any, ClassVar

from scapy.fields import (
    BitField,
    ByteEnumField,
    ByteField,
    FlagsField,
    IntField,
    PacketField,
    PacketListField,
    ShortEnumField,
    ShortField,
    StrField,
    StrFixedLenField,
    ThreeBytesField,
    XByteField,
    XLongField,
    XShortField,
)
from scapy.packet import Packet

LS_RJT, LS_ACC = 0x01, 0x02
COMMANDS = {
    0x01: "LS_RJT", 0x02: "LS_ACC", 0x03: "PLOGI", 0x04: "FLOGI", 0x05: "LOGO", 0x06: "ABTX", 0x07: "RCS", 0x08: "RES",
    0x09: "RSS", 0x0A: "RSI", 0x0B: "ESTS", 0x0C: "ESTC", 0x0D: "ADVC", 0x0E: "RTV", 0x0F: "RLS", 0x10: "ECHO", 0x11: "TEST",
    0x12: "RRQ", 0x13: "REC", 0x14: "SRR", 0x20: "PRLI", 0x21: "PRLO", 0x22: "SCN", 0x23: "TPLS", 0x24: "TPRLO",
    0x40: "GAID", 0x50: "PDISC", 0x51: "FDISC", 0x52: "ADISC", 0x53: "RNC", 0x54: "FARP-REQ", 0x55: "FARP-REPLY",
    0x56: "RPS", 0x57: "RPL", 0x58: "RPBC", 0x60: "FAN", 0x61: "RSCN", 0x62: "SCR", 0x63: "RNFT", 0x68: "CSR", 0x69: "CSU",
    0x70: "LINIT", 0x72: "LSTS", 0x78: "RNID", 0x79: "RLIR", 0x7A: "LIRR", 0x7B: "SRL", 0x7C: "SBRP", 0x7D: "RPSC",
    0x7E: "QSA", 0x7F: "EVFP", 0x80: "LKA", 0x90: "AUTH_ELS",
}  # fmt: skip
"""FC-LS-2 table 3."""
REASONS = {
    0x01: "invalid LS command code", 0x03: "logical error", 0x05: "logical busy", 0x07: "protocol error",
    0x09: "unable to perform command request", 0x0B: "command not supported", 0x0E: "command already in progress",
    0x20: "FIP error", 0xFF: "vendor specific error",
}  # fmt: skip
"""FC-LS-2 table 8."""
EXPLANATIONS = {
    0x00: "no additional explanation", 0x01: "service parameter error: options",
    0x03: "service parameter error: initiator control", 0x05: "service parameter error: recipient control",
    0x07: "service parameter error: receive data field size", 0x09: "service parameter error: concurrent sequences",
    0x0B: "service parameter error: credit", 0x0D: "invalid N_Port or F_Port name", 0x0E: "invalid node or fabric name",
    0x0F: "invalid common service parameters", 0x11: "invalid association header", 0x13: "association header required",
    0x15: "invalid originator S_ID", 0x17: "invalid OX_ID-RX_ID combination", 0x19: "command (request) already in progress",
    0x1E: "N_Port login required", 0x1F: "invalid N_Port_ID", 0x29: "insufficient resources to support login",
    0x2A: "unable to supply requested data", 0x2C: "request not supported", 0x2D: "invalid payload length",
    0x40: "invalid attachment", 0x43: "N_Port_Name not valid",
}  # fmt: skip
"""FC-LS-2 table 9."""
PRLI_FLAGS = [
    "wr_xfer_rdy_disabled", "rd_xfer_rdy_disabled", "bit2", "bit3", "target", "initiator", "data_overlay", "conf",
    "retry", "task_retry_id", "rec", "enhanced_discovery",
]  # fmt: skip
"""FCP-4 table 10, from bit 0."""
ACCEPTED = {
    1: "request executed", 2: "no resources", 3: "initialization not complete", 4: "page does not exist",
    5: "predefined image", 6: "only conditionally", 7: "multiple page", 8: "parameters invalid",
}  # fmt: skip
"""FC-LS-2 table 94: what a PRLI's accept says of a page."""
BA_REASONS = {
    0x01: "invalid command code", 0x03: "logical error", 0x05: "logical busy", 0x07: "protocol error",
    0x09: "unable to perform command request", 0xFF: "vendor specific error",
}  # fmt: skip
"""FC-FS-3 table 62."""
BA_EXPLANATIONS = {
    0x00: "no additional explanation", 0x03: "invalid OX_ID-RX_ID combination",
    0x05: "sequence aborted, no sequence information provided",
}  # fmt: skip

CT_COMMANDS = {
    0x0100: "GA_NXT", 0x0101: "GID_A", 0x0112: "GPN_ID", 0x0113: "GNN_ID", 0x0114: "GCS_ID", 0x0117: "GFT_ID",
    0x0118: "GSPN_ID", 0x011A: "GPT_ID", 0x011C: "GFPN_ID", 0x011D: "GHA_ID", 0x011F: "GFF_ID", 0x0121: "GID_PN",
    0x0131: "GID_NN", 0x0139: "GSNN_NN", 0x0171: "GID_FT", 0x0172: "GPN_FT", 0x0173: "GNN_FT", 0x01A1: "GID_PT",
    0x01F1: "GID_FF", 0x0212: "RPN_ID", 0x0213: "RNN_ID", 0x0214: "RCS_ID", 0x0217: "RFT_ID", 0x0218: "RSPN_ID",
    0x021A: "RPT_ID", 0x021F: "RFF_ID", 0x0239: "RSNN_NN", 0x0300: "DA_ID", 0x8001: "CT reject", 0x8002: "CT accept",
}  # fmt: skip
"""FC-GS-6 tables 28 and 9."""
MANAGEMENT, HBAS = 0xFA, 0x10
"""GS_Type and GS_Subtype of the HBA management server."""
FDMI_COMMANDS = {
    0x0100: "GRHL", 0x0101: "GHAT", 0x0102: "GRPL", 0x0110: "GPAT", 0x0200: "RHBA", 0x0201: "RHAT", 0x0210: "RPRT",
    0x0211: "RPA", 0x0300: "DHBA", 0x0301: "DHAT", 0x0310: "DPRT", 0x0311: "DPA", 0x8001: "CT reject", 0x8002: "CT accept",
}  # fmt: skip
"""FC-GS-6 6.7: those that it has."""
CT_REASONS = {
    1: "invalid command code", 2: "invalid version level", 3: "logical error", 4: "invalid CT_IU size", 5: "logical busy",
    7: "protocol error", 9: "unable to perform command request", 0xB: "command not supported",
}  # fmt: skip
"""FC-GS-6 table 10."""


CT_PREAMBLE = 16
"""Bytes."""
CLASS_OPTIONS = [*(f"bit{each}" for each in range(11)), "sequential", "stacked1", "stacked2", "mix", "valid"]
"""FC-LS-2 table 132, from bit 0."""


class ClassParameters(Packet):
    """FC-LS-2 6.6.5: service parameters of one class of service."""

    name = "class parameters"
    fields_desc: ClassVar[list[Any]] = [
        FlagsField("options", 0, 16, CLASS_OPTIONS),
        XShortField("initiator_control", 0),
        XShortField("recipient_control", 0),
        ShortField("receive_size", 0),
        ShortField("concurrent_sequences", 0),
        ShortField("end_to_end_credit", 0),
        ShortField("open_sequences", 0),
        ShortField("reserved", 0),
    ]

    def extract_padding(self, data: bytes) -> tuple[bytes, bytes | None]:
        """They stand side by side."""
        return b"", data


class Els(Packet):
    """An ELS of which only the head is taken apart."""

    name = "ELS"
    fields_desc: ClassVar[list[Any]] = [
        ByteEnumField("code", 0, COMMANDS),
        StrFixedLenField("zeros", bytes(3), 3),
        StrField("body", b""),
    ]


def _els(command: int, title: str, *fields: Any) -> type[Packet]:
    """The class of one ELS: four bytes of command word, and its fields."""
    head = [ByteEnumField("code", command, COMMANDS), StrFixedLenField("zeros", bytes(3), 3)]
    return type(title, (Packet,), {"name": title, "fields_desc": [*head, *fields], "__doc__": title})


def _login(command: int, title: str) -> type[Packet]:
    """FC-LS-2 6.6: FLOGI, PLOGI and their like, 116 bytes. Word 2 is R_A_TOV in FLOGI's accept."""
    classes = [PacketField(f"class{each}", ClassParameters(), ClassParameters) for each in range(1, 5)]
    return _els(
        command, title, XShortField("version", 0x2020), ShortField("bb_credit", 10), XShortField("features", 0x8800),
        BitField("bb_sc_n", 0, 4), BitField("receive_size", 2112, 12), IntField("r_a_tov", 0), IntField("e_d_tov", 2000),
        XLongField("port_name", 0), XLongField("node_name", 0), *classes, StrFixedLenField("vendor_version", bytes(16), 16),
    )  # fmt: skip


def _page_field(command: int, title: str) -> type[Packet]:
    """PRLI, PRLO: a head of its own kind, and pages."""
    return type(
        title,
        (Packet,),
        {
            "name": title,
            "__doc__": title,
            "fields_desc": [
                ByteEnumField("code", command, COMMANDS),
                ByteField("page_length", 16),
                ShortField("payload_length", 20),
                PacketListField("pages", [], ProcessPage, length_from=lambda packet: max(0, packet.payload_length - 4)),
            ],
        },
    )


class ProcessPage(Packet):
    """FC-LS-2 6.8: a service parameter page, FCP's (FCP-4 6.3)."""

    name = "page"
    fields_desc: ClassVar[list[Any]] = [
        XByteField("type", 8),
        XByteField("extension", 0),
        BitField("originator_valid", 0, 1),
        BitField("responder_valid", 0, 1),
        BitField("image_pair", 1, 1),
        BitField("reserved", 0, 1),
        BitField("response", 0, 4),
        ByteField("reserved2", 0),
        IntField("originator", 0),
        IntField("responder", 0),
        FlagsField("parameters", 0, 32, [*PRLI_FLAGS, *(f"bit{each}" for each in range(12, 32))]),
    ]

    def extract_padding(self, data: bytes) -> tuple[bytes, bytes | None]:
        """They stand side by side."""
        return b"", data


def _exchange(command: int, title: str) -> type[Packet]:
    """RRQ, REC: an exchange by its originator and both its identifiers."""
    return _els(
        command, title, ByteField("reserved", 0), ThreeBytesField("s_id", 0), XShortField("ox_id", 0xFFFF),
        XShortField("rx_id", 0xFFFF),
    )  # fmt: skip


Plogi, Flogi, Pdisc, Fdisc = (_login(*each) for each in ((3, "PLOGI"), (4, "FLOGI"), (0x50, "PDISC"), (0x51, "FDISC")))
LoginAccept = _login(LS_ACC, "LS_ACC")
Prli, Prlo, ProcessAccept = (_page_field(*each) for each in ((0x20, "PRLI"), (0x21, "PRLO"), (LS_ACC, "LS_ACC")))
Logo = _els(5, "LOGO", ByteField("reserved", 0), ThreeBytesField("fc_id", 0), XLongField("port_name", 0))
_ADDRESS = (
    ByteField("reserved", 0), ThreeBytesField("hard_address", 0), XLongField("port_name", 0), XLongField("node_name", 0),
    ByteField("reserved2", 0), ThreeBytesField("fc_id", 0),
)  # fmt: skip
Adisc, AdiscAccept = _els(0x52, "ADISC", *_ADDRESS), _els(LS_ACC, "LS_ACC", *_ADDRESS)
Rtv = _els(0x0E, "RTV")
RtvAccept = _els(LS_ACC, "LS_ACC", IntField("r_a_tov", 10000), IntField("e_d_tov", 2000), IntField("qualifier", 0))
Rrq, Rec = _exchange(0x12, "RRQ"), _exchange(0x13, "REC")
RecAccept = _els(
    LS_ACC, "LS_ACC", XShortField("ox_id", 0), XShortField("rx_id", 0), ByteField("reserved", 0),
    ThreeBytesField("originator", 0), ByteField("reserved2", 0), ThreeBytesField("responder", 0), IntField("transferred", 0),
    FlagsField("status", 0, 32, [*(f"bit{each}" for each in range(29)), "complete", "initiative", "responder"]),
)  # fmt: skip
Srr = _els(
    0x14, "SRR", XShortField("ox_id", 0), XShortField("rx_id", 0), IntField("offset", 0), XByteField("r_ctl", 1),
    StrFixedLenField("reserved", bytes(3), 3),
)  # fmt: skip
Scr = _els(0x62, "SCR", StrFixedLenField("reserved", bytes(3), 3), ByteField("function", 3))
Rls = _els(0x0F, "RLS", ByteField("reserved", 0), ThreeBytesField("fc_id", 0))
LsRjt = _els(
    LS_RJT, "LS_RJT", ByteField("reserved", 0), ByteEnumField("reason", 0, REASONS),
    ByteEnumField("explanation", 0, EXPLANATIONS), XByteField("vendor", 0),
)  # fmt: skip


class AffectedPort(Packet):
    """FC-LS-2 6.2.23: one page of an RSCN."""

    name = "affected"
    fields_desc: ClassVar[list[Any]] = [
        BitField("reserved", 0, 2),
        BitField("event", 0, 4),
        BitField("format", 0, 2),
        ThreeBytesField("fc_id", 0),
    ]

    def extract_padding(self, data: bytes) -> tuple[bytes, bytes | None]:
        """They stand side by side."""
        return b"", data


class Rscn(Packet):
    """FC-LS-2 6.2.23: who is affected by a change."""

    name = "RSCN"
    fields_desc: ClassVar[list[Any]] = [
        ByteEnumField("code", 0x61, COMMANDS),
        ByteField("page_length", 4),
        ShortField("payload_length", 8),
        PacketListField("pages", [], AffectedPort, length_from=lambda packet: max(0, packet.payload_length - 4)),
    ]


REQUESTS: dict[int, type[Packet]] = {
    LS_RJT: LsRjt, 0x03: Plogi, 0x04: Flogi, 0x05: Logo, 0x0E: Rtv, 0x0F: Rls, 0x12: Rrq, 0x13: Rec, 0x14: Srr, 0x20: Prli,
    0x21: Prlo, 0x50: Pdisc, 0x51: Fdisc, 0x52: Adisc, 0x61: Rscn, 0x62: Scr,
}  # fmt: skip
ACCEPTS: dict[int, type[Packet]] = {
    0x03: LoginAccept, 0x04: LoginAccept, 0x50: LoginAccept, 0x51: LoginAccept, 0x0E: RtvAccept, 0x13: RecAccept,
    0x20: ProcessAccept, 0x21: ProcessAccept, 0x52: AdiscAccept,
}  # fmt: skip


def _made(kind: type[Packet], payload: bytes) -> type[Packet]:
    return kind if len(payload) >= len(kind()) else Els


def link_service(payload: bytes) -> type[Packet]:
    """The class of an ELS by its command code; its head alone if it is cut short, or its kind is not known."""
    return _made(REQUESTS.get(payload[0], Els), payload) if payload else Els


def accept_of(request: int, payload: bytes) -> Packet:
    """An LS_ACC's payload, as the answer to this command."""
    return _made(ACCEPTS.get(request, Els), payload)(payload)


class BaAcc(Packet):
    """FC-FS-3 16.3.3."""

    name = "BA_ACC"
    fields_desc: ClassVar[list[Any]] = [
        XByteField("seq_id_valid", 0),
        XByteField("seq_id", 0),
        ShortField("reserved", 0),
        XShortField("ox_id", 0),
        XShortField("rx_id", 0),
        ShortField("low_seq_cnt", 0),
        ShortField("high_seq_cnt", 0xFFFF),
    ]


class BaRjt(Packet):
    """FC-FS-3 16.3.4."""

    name = "BA_RJT"
    fields_desc: ClassVar[list[Any]] = [
        ByteField("reserved", 0),
        ByteEnumField("reason", 0, BA_REASONS),
        ByteEnumField("explanation", 0, BA_EXPLANATIONS),
        XByteField("vendor", 0),
    ]


class Abts(Packet):
    """FC-FS-3 16.3.2: nothing is in it."""

    name = "ABTS"


BASIC: dict[int, type[Packet]] = {0x81: Abts, 0x84: BaAcc, 0x85: BaRjt}
"""By R_CTL."""
BASIC_NAMES = {0x81: "ABTS", 0x84: "BA_ACC", 0x85: "BA_RJT"}


class CommonTransport(Packet):
    """FC-GS-6 4.3: the CT_IU preamble."""

    name = "CT"
    fields_desc: ClassVar[list[Any]] = [
        ByteField("revision", 1),
        ThreeBytesField("in_id", 0),
        XByteField("service", 0xFC),
        XByteField("subtype", 2),
        XByteField("options", 0),
        ByteField("reserved", 0),
        ShortEnumField("code", 0, CT_COMMANDS),
        ShortField("maximum_size", 0),
        ByteField("fragment", 0),
        ByteEnumField("reason", 0, CT_REASONS),
        XByteField("explanation", 0),
        XByteField("vendor", 0),
    ]
