"""Extended Link Services (FC-LS-2 clause 4): the payloads but those of logins, and which payload a request or reply has.

A class a payload; request and LS_ACC share one where the standard's tables are alike, and tell themselves apart by ``command``.
Bytes after what a table has are taken and ignored, since later standards append to payloads.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from construct import (  # type: ignore[import-untyped]  # it ships no types
    Adapter,
    Bytes,
    GreedyBytes,
    GreedyRange,
    Int8ub,
    Int16ub,
    Int32ub,
    Padding,
    Struct,
)

from tcm_fcoe.protocol.els_codes import KNOWN_COMMANDS, ElsCommand, Explanation, Reason
from tcm_fcoe.protocol.els_login import Login, ProcessLogin
from tcm_fcoe.protocol.els_payload import ADDRESS, COMMAND, HEAD, ElsError, Payload, address

if TYPE_CHECKING:
    from tcm_fcoe.protocol.fcoe import Buffer


class _Rows(Adapter):  # type: ignore[misc]  # construct ships no types
    """Rows of one shape, as a tuple of tuples."""

    def _decode(self, rows: Any, _context: Any, _path: Any) -> tuple[Any, ...]:
        return tuple(tuple(value for key, value in row.items() if not key.startswith("_")) for row in rows)

    def _encode(self, rows: Any, _context: Any, _path: Any) -> list[dict[str, Any]]:
        names = [each.name for each in self.subcon.subcon.subcons if each.name]
        return [dict(zip(names, row, strict=True)) for row in rows]


@dataclass(frozen=True, slots=True)
class Plain(Payload):
    """A payload of the command code only: RTV, and the LS_ACC of LOGO, RRQ, SRR, RSCN, SCR."""

    layout = Struct(*HEAD)
    command: int = ElsCommand.LS_ACC


@dataclass(frozen=True, slots=True)
class Reject(Payload):
    """LS_RJT (FC-LS-2 clause 4.4.4)."""

    layout = Struct(*HEAD, Padding(1), "reason" / Int8ub, "explanation" / Int8ub, "vendor" / Int8ub)
    code = ElsCommand.LS_RJT
    reason: int
    explanation: int = Explanation.NONE
    vendor: int = 0
    command: int = ElsCommand.LS_RJT


@dataclass(frozen=True, slots=True)
class Logo(Payload):
    """LOGO (FC-LS-2 clause 4.3.5)."""

    layout = Struct(*HEAD, *address("n_port_id"), "port_name" / Bytes(8))
    code = ElsCommand.LOGO
    n_port_id: int
    port_name: bytes
    command: int = ElsCommand.LOGO


RTV_NANOSECONDS = 0x04000000
"""Timeout qualifier: E_D_TOV is in nanoseconds."""
RTV_SHORT_R_T_TOV = 0x00080000


@dataclass(frozen=True, slots=True)
class TimeoutValues(Payload):
    """LS_ACC to RTV (FC-LS-2 clause 4.3.8); milliseconds."""

    layout = Struct(*HEAD, "r_a_tov" / Int32ub, "e_d_tov" / Int32ub, "qualifier" / Int32ub)
    r_a_tov: int
    e_d_tov: int
    qualifier: int = 0
    command: int = ElsCommand.LS_ACC


@dataclass(frozen=True, slots=True)
class Rls(Payload):
    """Read Link Error Status Block (FC-LS-2 clause 4.3.12)."""

    layout = Struct(*HEAD, *address("port_id"))
    code = ElsCommand.RLS
    port_id: int = 0
    """0: the port that the request goes to."""
    command: int = ElsCommand.RLS


@dataclass(frozen=True, slots=True)
class LinkErrorStatus(Payload):
    """LS_ACC to RLS, with the counters that FC-BB-5 clause 7.10 has for FCoE instead of those of an optical link."""

    layout = Struct(
        *HEAD,
        "link_failures" / Int32ub,
        "virtual_link_failures" / Int32ub,
        "missed_keep_alives" / Int32ub,
        "symbol_errors" / Int32ub,
        "errored_blocks" / Int32ub,
        "frame_check_errors" / Int32ub,
    )
    link_failures: int = 0
    virtual_link_failures: int = 0
    missed_keep_alives: int = 0
    symbol_errors: int = 0
    errored_blocks: int = 0
    frame_check_errors: int = 0
    command: int = ElsCommand.LS_ACC


@dataclass(frozen=True, slots=True)
class Echo(Payload):
    """ECHO, TEST, LS_ACC to ECHO: what was sent comes back (FC-LS-2 clauses 4.3.9, 4.3.10)."""

    layout = Struct(*HEAD, "data" / GreedyBytes)
    code = ElsCommand.ECHO
    data: bytes
    command: int = ElsCommand.ECHO


@dataclass(frozen=True, slots=True)
class ExchangeQuery(Payload):
    """RRQ and REC: an exchange by its originator (FC-LS-2 clauses 4.3.13, 4.3.21)."""

    layout = Struct(*HEAD, *address("originator"), "ox_id" / Int16ub, "rx_id" / Int16ub)
    originator: int
    ox_id: int
    rx_id: int
    command: int


E_STAT_RESPONDER = 0x80000000
"""The responder of the exchange sends the block."""
E_STAT_SEQUENCE_INITIATIVE = 0x40000000
"""Who sends the block holds the sequence initiative."""
E_STAT_COMPLETE = 0x20000000
E_STAT_ENDED_ABNORMALLY = 0x10000000
E_STAT_RECOVERY_QUALIFIER = 0x04000000
"""A recovery qualifier is active."""


@dataclass(frozen=True, slots=True)
class ExchangeStatus(Payload):
    """LS_ACC to REC (FC-LS-2 table 48; what ``fc4_value`` counts is FCP-4's: bytes transferred)."""

    layout = Struct(
        *HEAD,
        "ox_id" / Int16ub,
        "rx_id" / Int16ub,
        *address("originator"),
        *address("responder"),
        "fc4_value" / Int32ub,
        "status" / Int32ub,
    )
    ox_id: int
    rx_id: int
    originator: int
    responder: int
    fc4_value: int
    status: int
    command: int = ElsCommand.LS_ACC


@dataclass(frozen=True, slots=True)
class Srr(Payload):
    """Sequence Retransmission Request (FCP-4 clause 10.5): an FC-4 link service, R_CTL 32h."""

    layout = Struct(*HEAD, "ox_id" / Int16ub, "rx_id" / Int16ub, "relative_offset" / Int32ub, "r_ctl" / Int8ub, Padding(3))
    code = ElsCommand.SRR
    ox_id: int
    rx_id: int
    relative_offset: int
    r_ctl: int
    """Which information unit to send again: 01h data, 05h FCP_XFER_RDY, 07h FCP_RSP."""
    command: int = ElsCommand.SRR


class RscnFormat(enum.IntEnum):
    """Address format of an affected N_Port_ID page."""

    PORT = 0
    AREA = 1
    DOMAIN = 2
    FABRIC = 3


RSCN_MASKS = {RscnFormat.PORT: 0xFFFFFF, RscnFormat.AREA: 0xFFFF00, RscnFormat.DOMAIN: 0xFF0000, RscnFormat.FABRIC: 0}
"""The bits of an address that a page's format compares."""


@dataclass(frozen=True, slots=True)
class Rscn(Payload):
    """Registered State Change Notification (FC-LS-2 clause 4.3.25): (format and event qualifier, address) a page."""

    layout = Struct(
        COMMAND,
        "page_length" / Int8ub,
        "payload_length" / Int16ub,
        "pages" / _Rows(GreedyRange(Struct("format" / Int8ub, "address" / ADDRESS))),
    )
    code = ElsCommand.RSCN
    pages: tuple[tuple[int, int], ...]
    command: int = ElsCommand.RSCN
    page_length: int = 4
    payload_length: int = 0

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """:raises ElsError: pages of another length than 4, or a payload length that lies."""
        length = int.from_bytes(data[2:4], "big")
        if len(data) < 4 or data[1] != 4 or length & 3 or not 4 <= length <= len(data):
            raise ElsError(Reason.PROTOCOL_ERROR, Explanation.INVALID_PAYLOAD_LENGTH, f"RSCN of {length} bytes in {len(data)}")
        return super(Rscn, cls).parse(data[:length])

    def pack(self) -> bytes:
        """The bytes; lengths are those of the pages."""
        built: bytes = self.layout.build(
            {"command": self.command, "page_length": 4, "payload_length": 4 + 4 * len(self.pages), "pages": self.pages}
        )
        return built

    def affects(self, fc_id: int) -> bool:
        """Whether one of the pages speaks of this address."""
        return any((fc_id ^ address) & RSCN_MASKS[RscnFormat(kind & 3)] == 0 for kind, address in self.pages)


class ScrFunction(enum.IntEnum):
    """Registration function of SCR."""

    FABRIC = 1
    N_PORT = 2
    FULL = 3
    CLEAR = 0xFF


@dataclass(frozen=True, slots=True)
class Scr(Payload):
    """State Change Registration (FC-LS-2 clause 4.3.26)."""

    layout = Struct(*HEAD, Padding(3), "function" / Int8ub)
    code = ElsCommand.SCR
    function: int = ScrFunction.FULL
    command: int = ElsCommand.SCR


@dataclass(frozen=True, slots=True)
class Adisc(Payload):
    """ADISC and LS_ACC to it (FC-LS-2 clause 4.3.16)."""

    layout = Struct(*HEAD, *address("hard_address"), "port_name" / Bytes(8), "node_name" / Bytes(8), *address("n_port_id"))
    code = ElsCommand.ADISC
    port_name: bytes
    node_name: bytes
    n_port_id: int
    hard_address: int = 0
    command: int = ElsCommand.ADISC


RNID_COMMON = 0x00
RNID_TOPOLOGY = 0xDF


@dataclass(frozen=True, slots=True)
class Rnid(Payload):
    """Request Node Identification Data (FC-LS-2 clause 4.3.23)."""

    layout = Struct(COMMAND, Padding(3), "data_format" / Int8ub, Padding(3))
    code = ElsCommand.RNID
    data_format: int = RNID_COMMON
    command: int = ElsCommand.RNID


@dataclass(frozen=True, slots=True)
class NodeIdentification(Payload):
    """LS_ACC to RNID: port and node name, then data of the format asked for."""

    layout = Struct(
        *HEAD,
        "data_format" / Int8ub,
        "common_length" / Int8ub,
        Padding(1),
        "specific_length" / Int8ub,
        "port_name" / Bytes(8),
        "node_name" / Bytes(8),
        "specific" / GreedyBytes,
    )
    port_name: bytes
    node_name: bytes
    data_format: int = RNID_COMMON
    common_length: int = 16
    specific_length: int = 0
    specific: bytes = b""
    command: int = ElsCommand.LS_ACC


RNID_UNIT_TYPES = {"switch": 0x04, "storage": 0x09, "host": 0x0A}
"""Associated type: switch, storage device, host (FC-LS-2 table 58)."""

TOPOLOGY = Struct(
    "vendor" / Bytes(16),
    "associated_type" / Int32ub,
    "physical_port" / Int32ub,
    "attached_nodes" / Int32ub,
    "management" / Int8ub,
    "ip_version" / Int8ub,
    "port" / Int16ub,
    "ip_address" / Bytes(16),
    Padding(2),
    "flags" / Int16ub,
)
"""General topology discovery, format DFh (FC-LS-2 table 57), 52 bytes."""


def topology(kind: str, *, attached_nodes: int = 0) -> bytes:
    """Ours; ``kind`` is one of :data:`RNID_UNIT_TYPES`."""
    built: bytes = TOPOLOGY.build(
        {
            "vendor": b"tcm".ljust(16, b"\0"),
            "associated_type": RNID_UNIT_TYPES[kind],
            "physical_port": 0,
            "attached_nodes": attached_nodes,
            "management": 0,
            "ip_version": 0,
            "port": 0,
            "ip_address": bytes(16),
            "flags": 0,
        }
    )
    return built


REQUESTS: dict[int, type[Payload]] = {
    ElsCommand.FLOGI: Login,
    ElsCommand.FDISC: Login,
    ElsCommand.PLOGI: Login,
    ElsCommand.PDISC: Login,
    ElsCommand.LOGO: Logo,
    ElsCommand.RTV: Plain,
    ElsCommand.RLS: Rls,
    ElsCommand.ECHO: Echo,
    ElsCommand.TEST: Echo,
    ElsCommand.RRQ: ExchangeQuery,
    ElsCommand.REC: ExchangeQuery,
    ElsCommand.SRR: Srr,
    ElsCommand.PRLI: ProcessLogin,
    ElsCommand.PRLO: ProcessLogin,
    ElsCommand.ADISC: Adisc,
    ElsCommand.RSCN: Rscn,
    ElsCommand.SCR: Scr,
    ElsCommand.RNID: Rnid,
}
"""The payload of each request that we know."""

ACCEPTS: dict[int, type[Payload]] = {
    **dict.fromkeys((ElsCommand.FLOGI, ElsCommand.FDISC, ElsCommand.PLOGI, ElsCommand.PDISC), Login),
    ElsCommand.RTV: TimeoutValues,
    ElsCommand.RLS: LinkErrorStatus,
    ElsCommand.ECHO: Echo,
    ElsCommand.REC: ExchangeStatus,
    **dict.fromkeys((ElsCommand.PRLI, ElsCommand.PRLO), ProcessLogin),
    ElsCommand.ADISC: Adisc,
    ElsCommand.RNID: NodeIdentification,
}
"""The payload of LS_ACC by the request that it answers; :class:`Plain` of the others."""


def parse_request(data: Buffer) -> Payload:
    """What a request says.

    :raises ElsError: with what to put into LS_RJT: no such command, one that we do not do, or a payload that it cannot have.
    """
    if len(data) < 4:
        raise ElsError(Reason.PROTOCOL_ERROR, Explanation.INVALID_PAYLOAD_LENGTH, f"an ELS of {len(data)} bytes")
    found = REQUESTS.get(data[0])
    if found is not None:
        return found.parse(data)
    if data[0] in KNOWN_COMMANDS and data[0] not in (ElsCommand.LS_ACC, ElsCommand.LS_RJT):
        raise ElsError(
            Reason.COMMAND_NOT_SUPPORTED, Explanation.REQUEST_NOT_SUPPORTED, f"{ElsCommand(data[0]).name} is not supported"
        )
    raise ElsError(Reason.INVALID_COMMAND_CODE, Explanation.NONE, f"ELS {data[0]:02x}h is no request")


def parse_reply(request: int, data: Buffer) -> Payload:
    """LS_ACC or LS_RJT to a request.

    :param request: the LS_Command code that was sent.
    :raises ElsError: neither, or cut short.
    """
    if len(data) >= 4 and data[0] == ElsCommand.LS_ACC:
        return ACCEPTS.get(request, Plain).parse(data)
    if len(data) >= 4 and data[0] == ElsCommand.LS_RJT:
        return Reject.parse(data)
    raise ElsError(Reason.PROTOCOL_ERROR, Explanation.NONE, f"{bytes(data[:4]).hex()} answers no ELS")
