"""Requests to the name server and its answers (FC-GS clause 5.2.5): what stands after the preamble of a CT_IU."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from construct import (  # type: ignore[import-untyped]  # it ships no types
    Adapter,
    Bytes,
    BytesInteger,
    GreedyBytes,
    GreedyRange,
    Int8ub,
    Int32ub,
    Padding,
    Prefixed,
    Struct,
)

from tcm_fcoe.protocol.ct import CtError, CtExplanation, CtIu, CtReason
from tcm_fcoe.protocol.els_payload import Block, ElsError
from tcm_fcoe.protocol.frame import FcType

if TYPE_CHECKING:
    from collections.abc import Iterable


class NameServerCommand(enum.IntEnum):
    """Command codes (FC-GS table of the name server): get, register, remove."""

    GA_NXT = 0x0100
    GPN_ID = 0x0112
    GNN_ID = 0x0113
    GCS_ID = 0x0114
    GFT_ID = 0x0117
    GSPN_ID = 0x0118
    GPT_ID = 0x011A
    GFPN_ID = 0x011C
    GFF_ID = 0x011F
    GID_PN = 0x0121
    GID_NN = 0x0131
    GSNN_NN = 0x0139
    GID_FT = 0x0171
    GPN_FT = 0x0172
    GNN_FT = 0x0173
    GID_PT = 0x01A1
    GID_FF = 0x01F1
    RPN_ID = 0x0212
    RNN_ID = 0x0213
    RCS_ID = 0x0214
    RFT_ID = 0x0217
    RSPN_ID = 0x0218
    RPT_ID = 0x021A
    RFF_ID = 0x021F
    RSNN_NN = 0x0239
    DA_ID = 0x0300


class PortType(enum.IntEnum):
    """Port type object."""

    UNIDENTIFIED = 0x00
    N_PORT = 0x01
    NL_PORT = 0x02
    NX_PORT = 0x7F
    F_PORT = 0x81


FEATURE_TARGET = 0x01
FEATURE_INITIATOR = 0x02
"""FC-4 features of FCP (FCP-4 clause 7)."""

FC4_TYPES_LENGTH = 32
FC4_FEATURES_LENGTH = 128
MAX_SYMBOLIC_NAME = 255
LAST_ENTRY = 0x80
"""Control byte of the last row of an answer with many."""

_ID = BytesInteger(3)


def fc4_types(types: Iterable[int]) -> bytes:
    """The FC-4 TYPEs object: 256 bits, word by word."""
    bits = 0
    for each in types:
        bits |= 1 << (7 - each // 32) * 32 + each % 32
    return bits.to_bytes(FC4_TYPES_LENGTH, "big")


def has_fc4_type(types: bytes, fc4: int) -> bool:
    """Whether a TYPE is in the FC-4 TYPEs object."""
    return bool(int.from_bytes(types, "big") >> (7 - fc4 // 32) * 32 + fc4 % 32 & 1)


class Request(Block):
    """What a request has after the preamble."""

    __slots__ = ()
    commands: ClassVar[tuple[NameServerCommand, ...]]


@dataclass(frozen=True, slots=True)
class ByPort(Request):
    """Asks for one object of a port, or removes the port (DA_ID)."""

    commands = (
        NameServerCommand.GA_NXT,
        NameServerCommand.GPN_ID,
        NameServerCommand.GNN_ID,
        NameServerCommand.GCS_ID,
        NameServerCommand.GFT_ID,
        NameServerCommand.GSPN_ID,
        NameServerCommand.GPT_ID,
        NameServerCommand.GFPN_ID,
        NameServerCommand.GFF_ID,
        NameServerCommand.DA_ID,
    )
    layout = Struct(Padding(1), "port_id" / _ID)
    port_id: int


@dataclass(frozen=True, slots=True)
class ByName(Request):
    """Asks for the ports of a name."""

    commands = (NameServerCommand.GID_PN, NameServerCommand.GID_NN, NameServerCommand.GSNN_NN)
    layout = Struct("name" / Bytes(8))
    name: bytes


@dataclass(frozen=True, slots=True)
class ByType(Request):
    """GID_FT, GPN_FT, GNN_FT: the ports that have registered an FC-4 TYPE."""

    commands = (NameServerCommand.GID_FT, NameServerCommand.GPN_FT, NameServerCommand.GNN_FT)
    layout = Struct(Padding(1), "domain" / Int8ub, "area" / Int8ub, "type" / Int8ub)
    type: int = FcType.FCP
    domain: int = 0
    """0: of all domains."""
    area: int = 0


@dataclass(frozen=True, slots=True)
class ByPortType(Request):
    """GID_PT."""

    commands = (NameServerCommand.GID_PT,)
    layout = Struct("port_type" / Int8ub, "domain" / Int8ub, "area" / Int8ub, Padding(1))
    port_type: int = PortType.NX_PORT
    domain: int = 0
    area: int = 0


@dataclass(frozen=True, slots=True)
class ByFeatures(Request):
    """GID_FF: the ports of an FC-4 TYPE that have all these features."""

    commands = (NameServerCommand.GID_FF,)
    layout = Struct(Padding(1), "domain" / Int8ub, "area" / Int8ub, Padding(3), "features" / Int8ub, "type" / Int8ub)
    features: int
    type: int = FcType.FCP
    domain: int = 0
    area: int = 0


@dataclass(frozen=True, slots=True)
class RegisterName(Request):
    """RPN_ID, RNN_ID."""

    commands = (NameServerCommand.RPN_ID, NameServerCommand.RNN_ID)
    layout = Struct(Padding(1), "port_id" / _ID, "name" / Bytes(8))
    port_id: int
    name: bytes


@dataclass(frozen=True, slots=True)
class RegisterClassOfService(Request):
    """RCS_ID: a bit a class."""

    commands = (NameServerCommand.RCS_ID,)
    layout = Struct(Padding(1), "port_id" / _ID, "classes" / Int32ub)
    port_id: int
    classes: int


@dataclass(frozen=True, slots=True)
class RegisterTypes(Request):
    """RFT_ID: see :func:`fc4_types`."""

    commands = (NameServerCommand.RFT_ID,)
    layout = Struct(Padding(1), "port_id" / _ID, "types" / Bytes(FC4_TYPES_LENGTH))
    port_id: int
    types: bytes


@dataclass(frozen=True, slots=True)
class RegisterFeatures(Request):
    """RFF_ID."""

    commands = (NameServerCommand.RFF_ID,)
    layout = Struct(Padding(1), "port_id" / _ID, Padding(2), "features" / Int8ub, "type" / Int8ub)
    port_id: int
    features: int
    type: int = FcType.FCP


@dataclass(frozen=True, slots=True)
class RegisterPortType(Request):
    """RPT_ID."""

    commands = (NameServerCommand.RPT_ID,)
    layout = Struct(Padding(1), "port_id" / _ID, "port_type" / Int8ub, Padding(3))
    port_id: int
    port_type: int


@dataclass(frozen=True, slots=True)
class RegisterSymbolicPortName(Request):
    """RSPN_ID."""

    commands = (NameServerCommand.RSPN_ID,)
    layout = Struct(Padding(1), "port_id" / _ID, "symbolic_name" / Prefixed(Int8ub, GreedyBytes))
    port_id: int
    symbolic_name: bytes


@dataclass(frozen=True, slots=True)
class RegisterSymbolicNodeName(Request):
    """RSNN_NN."""

    commands = (NameServerCommand.RSNN_NN,)
    layout = Struct("node_name" / Bytes(8), "symbolic_name" / Prefixed(Int8ub, GreedyBytes))
    node_name: bytes
    symbolic_name: bytes


REQUESTS: dict[int, type[Request]] = {
    command: request
    for request in (
        ByPort,
        ByName,
        ByType,
        ByPortType,
        ByFeatures,
        RegisterName,
        RegisterClassOfService,
        RegisterTypes,
        RegisterFeatures,
        RegisterPortType,
        RegisterSymbolicPortName,
        RegisterSymbolicNodeName,
    )
    for command in request.commands
}


def parse_request(iu: CtIu) -> Request:
    """What a request asks for.

    :raises CtError: no such command, or cut short.
    """
    found = REQUESTS.get(iu.code)
    if found is None:
        raise CtError(CtReason.COMMAND_NOT_SUPPORTED, CtExplanation.NONE, f"name server command {iu.code:04x}h")
    try:
        return found.parse(iu.body)
    except ElsError as error:
        raise CtError(CtReason.INVALID_IU_SIZE, CtExplanation.NONE, str(error)) from None


def request_iu(command: NameServerCommand, request: Request, *, size: int = 0) -> CtIu:
    """The IU of a request.

    :param size: the most words that the answer may have after its preamble; 0: any number.
    """
    return CtIu(command, request.pack(), size)


class _Rows(Adapter):  # type: ignore[misc]  # construct ships no types
    """Rows of a control byte, whose last is marked, and values."""

    def _decode(self, rows: Any, _context: Any, _path: Any) -> tuple[Any, ...]:
        found = []
        for row in rows:
            values = tuple(value for key, value in row.items() if key not in {"_io", "control"})
            found.append(values if len(values) > 1 else values[0])
            if row["control"] & LAST_ENTRY:
                break
        return tuple(found)

    def _encode(self, rows: Any, _context: Any, _path: Any) -> list[dict[str, Any]]:
        names = [each.name for each in self.subcon.subcon.subcons if each.name and each.name != "control"]
        return [
            {
                "control": LAST_ENTRY if index == len(rows) - 1 else 0,
                **dict(zip(names, row if len(names) > 1 else (row,), strict=True)),
            }
            for index, row in enumerate(rows)
        ]


@dataclass(frozen=True, slots=True)
class PortIds(Block):
    """Answer to GID_FT, GID_PT, GID_FF, GID_NN, and to GID_PN with one."""

    layout = Struct("ports" / _Rows(GreedyRange(Struct("control" / Int8ub, "port_id" / _ID))))
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PortsAndNames(Block):
    """Answer to GPN_FT and GNN_FT: (FC_ID, name) a row."""

    layout = Struct("ports" / _Rows(GreedyRange(Struct("control" / Int8ub, "port_id" / _ID, Padding(4), "name" / Bytes(8)))))
    ports: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class PortId(Block):
    """Answer to GID_PN."""

    layout = Struct(Padding(1), "port_id" / _ID)
    port_id: int


@dataclass(frozen=True, slots=True)
class Name(Block):
    """Answer to GPN_ID, GNN_ID, GFPN_ID."""

    layout = Struct("name" / Bytes(8))
    name: bytes


@dataclass(frozen=True, slots=True)
class Types(Block):
    """Answer to GFT_ID."""

    layout = Struct("types" / Bytes(FC4_TYPES_LENGTH))
    types: bytes


@dataclass(frozen=True, slots=True)
class Features(Block):
    """Answer to GFF_ID: four bits a TYPE."""

    layout = Struct("features" / Bytes(FC4_FEATURES_LENGTH))
    features: bytes

    def of(self, fc4: int) -> int:
        """The four bits of a TYPE."""
        word = int.from_bytes(self.features[fc4 // 8 * 4 : fc4 // 8 * 4 + 4], "big")
        return word >> fc4 % 8 * 4 & 0x0F

    @classmethod
    def made_of(cls, features: dict[int, int]) -> Features:
        """From the four bits of each TYPE."""
        words = [0] * (FC4_FEATURES_LENGTH // 4)
        for fc4, bits in features.items():
            words[fc4 // 8] |= (bits & 0x0F) << fc4 % 8 * 4
        return cls(b"".join(word.to_bytes(4, "big") for word in words))


@dataclass(frozen=True, slots=True)
class ClassOfService(Block):
    """Answer to GCS_ID."""

    layout = Struct("classes" / Int32ub)
    classes: int


@dataclass(frozen=True, slots=True)
class PortTypeObject(Block):
    """Answer to GPT_ID."""

    layout = Struct("port_type" / Int8ub, Padding(3))
    port_type: int


@dataclass(frozen=True, slots=True)
class SymbolicName(Block):
    """Answer to GSPN_ID, GSNN_NN."""

    layout = Struct("symbolic_name" / Prefixed(Int8ub, GreedyBytes))
    symbolic_name: bytes


def _symbolic(name: str) -> tuple[Any, Any]:
    """255 bytes, of which the first says how many count."""
    return f"{name}_length" / Int8ub, name / Bytes(MAX_SYMBOLIC_NAME)


@dataclass(frozen=True, slots=True)
class AllObjects(Block):
    """Answer to GA_NXT, 620 bytes: everything that is known of the next port."""

    layout = Struct(
        "port_type" / Int8ub,
        "port_id" / _ID,
        "port_name" / Bytes(8),
        *_symbolic("symbolic_port_name"),
        "node_name" / Bytes(8),
        *_symbolic("symbolic_node_name"),
        "process_associator" / Bytes(8),
        "node_ip_address" / Bytes(16),
        "classes" / Int32ub,
        "types" / Bytes(FC4_TYPES_LENGTH),
        "port_ip_address" / Bytes(16),
        "fabric_port_name" / Bytes(8),
        Padding(1),
        "hard_address" / _ID,
    )
    port_type: int
    port_id: int
    port_name: bytes
    symbolic_port_name_length: int
    symbolic_port_name: bytes
    node_name: bytes
    symbolic_node_name_length: int
    symbolic_node_name: bytes
    classes: int
    types: bytes
    fabric_port_name: bytes = bytes(8)
    process_associator: bytes = bytes(8)
    node_ip_address: bytes = bytes(16)
    port_ip_address: bytes = bytes(16)
    hard_address: int = 0


ACCEPTS: dict[int, type[Block]] = {
    **dict.fromkeys(
        (NameServerCommand.GID_FT, NameServerCommand.GID_PT, NameServerCommand.GID_FF, NameServerCommand.GID_NN), PortIds
    ),
    **dict.fromkeys((NameServerCommand.GPN_FT, NameServerCommand.GNN_FT), PortsAndNames),
    **dict.fromkeys((NameServerCommand.GPN_ID, NameServerCommand.GNN_ID, NameServerCommand.GFPN_ID), Name),
    **dict.fromkeys((NameServerCommand.GSPN_ID, NameServerCommand.GSNN_NN), SymbolicName),
    NameServerCommand.GID_PN: PortId,
    NameServerCommand.GFT_ID: Types,
    NameServerCommand.GFF_ID: Features,
    NameServerCommand.GCS_ID: ClassOfService,
    NameServerCommand.GPT_ID: PortTypeObject,
    NameServerCommand.GA_NXT: AllObjects,
}
"""What the answer to a get request has after the preamble; the answers to the others have nothing."""
