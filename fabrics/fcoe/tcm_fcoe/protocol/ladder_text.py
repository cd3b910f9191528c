"""What the rows of a ladder say of FIP descriptors, link services, CT and FCP information units: tables and short texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import CommandTerminated
from tcm.scsi.command_table import lookup
from tcm.scsi.sense import SenseKey, Status
from tcm_fcoe.protocol.fcp import CONF_REQ, RESID_OVER, RESID_UNDER, RSP_LEN_VALID, SNS_LEN_VALID
from tcm_fcoe.protocol.frame import F_CTL_RELATIVE_OFFSET
from tcm_fcoe.protocol.layers import RSP_CODES
from tcm_fcoe.protocol.link_service_layers import (
    ACCEPTED,
    BA_EXPLANATIONS,
    BA_REASONS,
    CT_COMMANDS,
    CT_REASONS,
    EXPLANATIONS,
    FDMI_COMMANDS,
    HBAS,
    MANAGEMENT,
    REASONS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from scapy.packet import Packet

WELL_KNOWN = {
    0xFFFFFA: "management", 0xFFFFFB: "time", 0xFFFFFC: "directory", 0xFFFFFD: "fabric controller", 0xFFFFFE: "F_Port",
    0xFFFFFF: "broadcast",
}  # fmt: skip
"""FC-FS-3 table 27: addresses of services."""
GROUPS = {
    "01:10:18:01:00:00": "ALL-FCoE-MACs", "01:10:18:01:00:01": "ALL-ENode-MACs", "01:10:18:01:00:02": "ALL-FCF-MACs",
    "01:10:18:01:00:04": "ALL-VN2VN-ENode-MACs", "01:10:18:01:00:05": "ALL-PT2PT-ENode-MACs",
}  # fmt: skip
"""FC-BB-6 table 24."""
CONTROL_NAMES = {
    0x80: "NOP", 0x86: "PRMT", 0xC0: "ACK_1", 0xC1: "ACK_0", 0xC2: "P_RJT", 0xC3: "F_RJT", 0xC4: "P_BSY", 0xC5: "F_BSY",
    0xC6: "F_BSY", 0xC7: "LCR",
}  # fmt: skip
"""FC-FS-3 table 26: R_CTL of what has no payload that is looked at."""


def name_text(name: int) -> str:
    """``20:00:52:54:00:2f:fc:00``."""
    return name.to_bytes(8, "big").hex(":")


def fc_id_text(fc_id: int) -> str:
    """``01.0a.00``."""
    return fc_id.to_bytes(3, "big").hex(".")


def address(fc_id: int) -> str:
    """The same, or what it is well known as."""
    return WELL_KNOWN.get(fc_id) or fc_id_text(fc_id)


def group_name(mac: str) -> str:
    """Of a multicast address of FC-BB-6; empty: it is none."""
    return GROUPS.get(mac, "")


# FIP


DESCRIPTOR_TEXTS: dict[int, Callable[[Any], str]] = {
    1: lambda each: f"priority {each.priority}",
    2: lambda each: f"MAC {each.mac}",
    3: lambda each: f"FC-MAP {each.fc_map:06x}",
    4: lambda each: f"name {name_text(each.wwn)}",
    5: lambda each: f"fabric {name_text(each.wwn)}, FC-MAP {each.fc_map:06x}",
    6: lambda each: f"frames of up to {each.size} bytes",
    11: lambda each: f"VN_Port {fc_id_text(each.fc_id)} {name_text(each.wwn)}",
    12: lambda each: f"keep alive every {each.period} ms" if not each.d_bit else "no keep alives",
    13: lambda each: f"vendor {each.vendor.hex()}",
    14: lambda each: f"VLAN {each.vlan}",
    15: lambda _: "",
}
"""By descriptor type."""


def descriptor_text(descriptor: Any) -> str:
    """One FIP descriptor."""
    if hasattr(descriptor, "value"):
        return f"descriptor {descriptor.descriptor} of {4 * int(descriptor.words)} bytes"
    return DESCRIPTOR_TEXTS[int(descriptor.descriptor)](descriptor)


# link services


def _login(els: Any) -> str:
    return (
        f"port {name_text(els.port_name)}, node {name_text(els.node_name)}, "
        f"{els.class3.receive_size or els.receive_size} bytes a frame"
    )


def _pages(els: Any) -> str:
    texts = []
    for page in els.pages:
        text = str(page.parameters).replace("+", " ") if page.type == 8 else f"TYPE {page.type:02x}h"
        if els.code == 2 and page.response != 1:
            text += f" ({ACCEPTED.get(page.response, 'no response code')})"
        texts.append(text)
    return ", ".join(texts)


def _exchange(els: Any) -> str:
    return f"{fc_id_text(els.s_id)} exchange {els.ox_id:04x}/{els.rx_id:04x}"


def _rejected(els: Any) -> str:
    reason = REASONS.get(els.reason) or f"reason {els.reason:02x}h"
    explanation = EXPLANATIONS.get(els.explanation) or f"explanation {els.explanation:02x}h"
    return f"{reason}: {explanation}"


def _basic_reject(els: Any) -> str:
    reason = BA_REASONS.get(els.reason) or f"reason {els.reason:02x}h"
    return f"{reason}: {BA_EXPLANATIONS.get(els.explanation) or f'explanation {els.explanation:02x}h'}"


def _rec_accept(els: Any) -> str:
    whose = "responder" if els.status.initiative else "originator"
    return f"exchange {els.ox_id:04x}/{els.rx_id:04x}, {els.transferred} bytes transferred, " + (
        "complete" if els.status.complete else f"open, initiative with the {whose}"
    )


ELS_TEXTS: dict[str, Callable[[Any], str]] = {
    "class3": _login,
    "pages": lambda els: _pages(els) if els.name != "RSCN" else ", ".join(fc_id_text(each.fc_id) for each in els.pages),
    "hard_address": lambda els: f"port {name_text(els.port_name)}, node {name_text(els.node_name)}, {fc_id_text(els.fc_id)}",
    "transferred": _rec_accept,
    "s_id": _exchange,
    "offset": lambda els: f"exchange {els.ox_id:04x}/{els.rx_id:04x}, R_CTL {els.r_ctl:02x}h from offset {els.offset}",
    "function": lambda els: f"function {els.function}",
    "e_d_tov": lambda els: f"R_A_TOV {els.r_a_tov} ms, E_D_TOV {els.e_d_tov} ms",
    "seq_id_valid": lambda els: f"SEQ_CNT {els.low_seq_cnt} to {els.high_seq_cnt}",
    "port_name": lambda els: f"{fc_id_text(els.fc_id)}, port {name_text(els.port_name)}",
}
"""By a field that only such an ELS has; the first that is there decides."""


def els_text(els: Packet) -> str:
    """What stands in an extended or basic link service."""
    fields = {each.name for each in els.fields_desc}
    if "reason" in fields:
        return _basic_reject(els) if els.name == "BA_RJT" else _rejected(els)
    for name, text in ELS_TEXTS.items():
        if name in fields:
            return text(els)
    return ""


def ct_text(ct: Any, request: int) -> tuple[str, str, bool]:
    """Name, detail, and whether it is a refusal, of a CT_IU."""
    commands = FDMI_COMMANDS if (ct.service, ct.subtype) == (MANAGEMENT, HBAS) else CT_COMMANDS
    name = commands.get(int(ct.code), f"CT {ct.code:04x}h")
    if request:
        name = f"{name} ({commands.get(request, f'{request:04x}h')})"
    if ct.code == 0x8001:
        reason = CT_REASONS.get(ct.reason) or f"reason {ct.reason:02x}h"
        return name, f"{reason}, explanation {ct.explanation:02x}h", True
    return name, f"{len(ct.payload)} bytes", False


# FCP

LBA_FIELDS: dict[int, tuple[slice, slice]] = {
    **dict.fromkeys((0x28, 0x2A, 0x2E, 0x2F, 0x34, 0x35, 0x41), (slice(2, 6), slice(7, 9))),
    **dict.fromkeys((0xA8, 0xAA, 0xAE, 0xAF), (slice(2, 6), slice(6, 10))),
    **dict.fromkeys((0x88, 0x8A, 0x8E, 0x8F, 0x90, 0x91, 0x93), (slice(2, 10), slice(10, 14))),
    0x89: (slice(2, 10), slice(13, 14)),
    0x9C: (slice(2, 10), slice(12, 14)),
    0x7F: (slice(12, 20), slice(28, 32)),
}
"""LOGICAL BLOCK ADDRESS and TRANSFER LENGTH (SBC-4 clause 5) by operation code."""


def lun_text(lun: bytes) -> str:
    """A number where single level addressing says one (SAM-5 4.7), else the eight bytes."""
    first = int.from_bytes(lun[:2], "big")
    if not any(lun[2:]) and first >> 14 in (0, 1):
        return str(first & 0x3FFF)
    return lun.hex()


def command_name(cdb: bytes) -> str:
    """By the command table; an operation code that it does not have in hexadecimal."""
    try:
        return lookup(cdb).name
    except CommandTerminated:
        return f"operation code {cdb[0]:02X}h" if cdb else "no CDB"


def cdb_text(cdb: bytes) -> str:
    """LBA and length, or what else tells such a command from others."""
    code = cdb[0]
    if code in (0x08, 0x0A):
        return f"LBA {int.from_bytes(cdb[1:4], 'big') & 0x1FFFFF}, {cdb[4] or 256} blocks"
    if code in LBA_FIELDS:
        lba, blocks = (int.from_bytes(cdb[each], "big") for each in LBA_FIELDS[code])
        return f"LBA {lba}, {blocks} blocks"
    if code == 0x12 and cdb[1] & 1:
        return f"VPD page {cdb[2]:02X}h"
    if code in (0x1A, 0x5A):
        return f"page {cdb[2] & 0x3F:02X}h"
    if code == 0x4D:
        return f"page {cdb[2] & 0x3F:02X}h"
    return ""


def _command(_fc: Any, body: Any, _name: str) -> tuple[str, str]:
    if body.task_management:
        name = str(body.task_management).replace("+", ", ")
        return name, f"LUN {lun_text(body.lun)} {name}"
    name = command_name(body.cdb)
    ways = "".join((" in" * bool(body.rddata), " out" * bool(body.wrdata)))
    parts = [f"LUN {lun_text(body.lun)} {name}", cdb_text(body.cdb), f"{body.fcp_dl} bytes{ways}" if ways else ""]
    if body.attribute:
        parts.append({1: "HEAD OF QUEUE", 2: "ORDERED", 4: "ACA"}.get(body.attribute, f"attribute {body.attribute}"))
    return name, ", ".join(filter(None, parts))


def _data(fc: Any, body: Any, _name: str) -> tuple[str, str]:
    where = f"offset {fc.parameter}, " if int(fc.f_ctl) & F_CTL_RELATIVE_OFFSET else ""
    return "", f"{where}{len(body.data)} bytes"


def _transfer_ready(_fc: Any, body: Any, _name: str) -> tuple[str, str]:
    return "", f"offset {body.offset}, {body.burst_length} bytes"


def sense_text(sense: bytes) -> str:
    """Key and additional sense code, of both formats (SPC-5 4.5)."""
    fixed = sense[:1] and sense[0] & 0x7E == 0x70
    at = 12 if fixed else 2
    if len(sense) < at + 2:
        return "sense data cut short"
    key = SenseKey._value2member_map_.get(sense[2 if fixed else 1] & 0x0F)
    name = key.name.replace("_", " ") if isinstance(key, SenseKey) else "reserved sense key"
    return f"{name} {sense[at]:02X}h/{sense[at + 1]:02X}h"


def _response(_fc: Any, body: Any, name: str) -> tuple[str, str]:
    status = Status._value2member_map_.get(int(body.status))
    parts = [status.name.replace("_", " ") if isinstance(status, Status) else f"status {body.status:02x}h"]
    failed = bool(body.status)
    flags = int(body.flags)
    if flags & RSP_LEN_VALID and len(body.response) >= 4:
        code = body.response[3]
        parts[0] = RSP_CODES.get(code) or f"RSP_CODE {code:02x}h"
        failed = code not in (0, 8)
    if flags & SNS_LEN_VALID:
        parts.append(sense_text(body.sense))
    if flags & (RESID_UNDER | RESID_OVER):
        parts.append(f"{'underflow' if flags & RESID_UNDER else 'overflow'} {body.residual} bytes")
    if flags & CONF_REQ:
        parts.append("FCP_CONF wanted")
    if name:
        parts.insert(0, name)
    return "failed" if failed else "", ", ".join(parts)


FCP_TEXTS: dict[int, Callable[[Any, Any, str], tuple[str, str]]] = {
    1: _data, 3: lambda _fc, _body, name: ("", name), 5: _transfer_ready, 6: _command, 7: _response,
}  # fmt: skip
"""By R_CTL."""


def fcp_text(fc: Any, body: Any, name: str) -> tuple[str, str]:
    """The command's name (of an FCP_CMND) or ``failed`` (of an FCP_RSP), and the detail; ``name``: that of the command."""
    return FCP_TEXTS[int(fc.r_ctl)](fc, body, name)
