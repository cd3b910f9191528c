"""Payloads of port and process login (FC-LS-2 clauses 4.3.4, 4.3.7, 4.3.17, 6): service parameters of ports and of FC-4s."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
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

from tcm_fcoe.protocol.els_codes import Explanation, Reason
from tcm_fcoe.protocol.els_payload import COMMAND, HEAD, Block, ElsError, Payload
from tcm_fcoe.protocol.frame import FcType

if TYPE_CHECKING:
    from tcm_fcoe.protocol.fcoe import Buffer

# Common features (FC-LS-2 table 150): word 1, bits 31 to 16.
FEATURE_CONTINUOUSLY_INCREASING_RELATIVE_OFFSET = 0x8000
"""In FLOGI: a request for Clean Address, in LS_ACC to it: the address is clean."""
FEATURE_CLEAN_ADDRESS = 0x8000
FEATURE_RANDOM_RELATIVE_OFFSET = 0x4000
"""In FLOGI by an N_Port: it supports several N_Port_IDs (FDISC)."""
FEATURE_MULTIPLE_N_PORT_ID = 0x8000
FEATURE_VALID_VENDOR_VERSION = 0x2000
FEATURE_F_PORT = 0x1000
"""N_Port (0) or F_Port (1) sends it."""
FEATURE_ALTERNATE_CREDIT = 0x0800
FEATURE_E_D_TOV_NANOSECONDS = 0x0400
FEATURE_MULTICAST = 0x0200
FEATURE_BROADCAST = 0x0100
FEATURE_QUERY_BUFFER_CONDITIONS = 0x0040
FEATURE_SECURITY = 0x0020
FEATURE_PAYLOAD_256 = 0x0001
"""The payload has 256 bytes, not 116."""

CLASS_VALID = 0x8000
"""Service options of a class: it is supported."""
CLASS_SEQUENTIAL_DELIVERY = 0x0800

_CLASS_LAYOUT = Struct(
    "options" / Int16ub,
    "initiator_control" / Int16ub,
    "recipient_control" / Int16ub,
    "receive_size" / Int16ub,
    "concurrent_sequences" / Int16ub,
    "end_to_end_credit" / Int16ub,
    Padding(1),
    "open_sequences_per_exchange" / Int8ub,
    Padding(2),
)


@dataclass(frozen=True, slots=True)
class ClassParameters(Block):
    """Service parameters of one class (FC-LS-2 clause 6.6.5), 16 bytes."""

    layout = _CLASS_LAYOUT
    options: int = 0
    initiator_control: int = 0
    recipient_control: int = 0
    receive_size: int = 0
    concurrent_sequences: int = 0
    end_to_end_credit: int = 0
    open_sequences_per_exchange: int = 0

    @property
    def valid(self) -> bool:
        """The class is supported."""
        return bool(self.options & CLASS_VALID)


@dataclass(frozen=True, slots=True)
class Login(Payload):
    """FLOGI, FDISC, PLOGI, PDISC, and LS_ACC to them (FC-LS-2 clause 6.6).

    ``word_2`` and ``word_3`` are, of an N_Port in PLOGI: concurrent sequences and relative offset by category, E_D_TOV; of an
    F_Port: R_A_TOV, E_D_TOV. Times are in milliseconds, unless FEATURE_E_D_TOV_NANOSECONDS is set.
    """

    layout = Struct(
        *HEAD,
        "version" / Int16ub,
        "credit" / Int16ub,
        "features" / Int16ub,
        "receive_size" / Int16ub,
        "word_2" / Int32ub,
        "word_3" / Int32ub,
        "port_name" / Bytes(8),
        "node_name" / Bytes(8),
        "class_1" / Bytes(16),
        "class_2" / Bytes(16),
        "class_3" / Bytes(16),
        "class_4" / Bytes(16),
        "vendor_version" / Bytes(16),
        "extension" / GreedyBytes,
    )
    command: int
    port_name: bytes
    """In LS_ACC to FLOGI: the F_Port's."""
    node_name: bytes
    """In LS_ACC to FLOGI by a fabric: the fabric's."""
    version: int = 0x2020
    """Highest and lowest version: FC-PH-3 and later say 20h."""
    credit: int = 0
    """Buffer-to-buffer credit; FCoE has no use for it."""
    features: int = 0
    receive_size: int = 0
    """Receive data field size in the low 12 bits, BB_SC_N in the high four."""
    word_2: int = 0
    word_3: int = 0
    class_1: bytes = bytes(16)
    class_2: bytes = bytes(16)
    class_3: bytes = bytes(16)
    class_4: bytes = bytes(16)
    """Auxiliary parameters in FC-LS-2."""
    vendor_version: bytes = bytes(16)
    extension: bytes = b""
    """What a payload of 256 bytes has more: services availability, login extension, clock synchronization."""

    @property
    def class_3_parameters(self) -> ClassParameters:
        """Class 3, taken apart."""
        return ClassParameters.parse(self.class_3)

    @property
    def data_field_size(self) -> int:
        """Bytes that the sender can receive in a frame, of class 3 if it says so there."""
        common = self.receive_size & 0xFFF
        own = self.class_3_parameters.receive_size & 0xFFF
        return min(common, own) if own else common

    @property
    def e_d_tov(self) -> float:
        """Seconds."""
        return self.word_3 / (1e9 if self.features & FEATURE_E_D_TOV_NANOSECONDS else 1e3)

    @property
    def r_a_tov(self) -> float:
        """Seconds; in LS_ACC to FLOGI."""
        return self.word_2 / 1e3


PAGE_LENGTH = 16
PRLI_ORIGINATOR_ASSOCIATOR_VALID = 0x8000
PRLI_RESPONDER_ASSOCIATOR_VALID = 0x4000
PRLI_ESTABLISH_IMAGE_PAIR = 0x2000
PRLI_RESPONSE_SHIFT = 8


class PrliResponse(enum.IntEnum):
    """Response code of a page of LS_ACC to PRLI or PRLO (FC-LS-2 tables 85, 91)."""

    EXECUTED = 1
    NO_RESOURCES = 2
    INITIALIZATION_NOT_COMPLETE = 3
    NO_SUCH_IMAGE = 4
    NOT_POSSIBLE = 5
    PRECEDENCE = 6
    MULTIPLE_PAGES = 7
    INVALID_PARAMETERS = 8


@dataclass(frozen=True, slots=True)
class ServicePage:
    """A service parameter page of PRLI, or a logout parameter page of PRLO."""

    type: int = FcType.FCP
    type_extension: int = 0
    flags: int = PRLI_ESTABLISH_IMAGE_PAIR
    originator_associator: int = 0
    responder_associator: int = 0
    parameters: int = 0
    """Of FCP: FCP-4 table 9. Reserved in PRLO."""

    @property
    def response(self) -> int:
        """Response code, in LS_ACC."""
        return self.flags >> PRLI_RESPONSE_SHIFT & 0x0F


class _Pages(Adapter):  # type: ignore[misc]  # construct ships no types
    def _decode(self, rows: Any, _context: Any, _path: Any) -> tuple[ServicePage, ...]:
        return tuple(ServicePage(**{each.name: row[each.name] for each in fields(ServicePage)}) for row in rows)

    def _encode(self, pages: tuple[ServicePage, ...], _context: Any, _path: Any) -> list[dict[str, int]]:
        return [{each.name: getattr(page, each.name) for each in fields(ServicePage)} for page in pages]


@dataclass(frozen=True, slots=True)
class ProcessLogin(Payload):
    """PRLI, PRLO and LS_ACC to them (FC-LS-2 clauses 4.3.17, 4.3.18): pages of 16 bytes."""

    layout = Struct(
        COMMAND,
        "page_length" / Int8ub,
        "payload_length" / Int16ub,
        "pages"
        / _Pages(
            GreedyRange(
                Struct(
                    "type" / Int8ub,
                    "type_extension" / Int8ub,
                    "flags" / Int16ub,
                    "originator_associator" / Int32ub,
                    "responder_associator" / Int32ub,
                    "parameters" / Int32ub,
                )
            )
        ),
    )
    command: int
    pages: tuple[ServicePage, ...]
    page_length: int = PAGE_LENGTH
    payload_length: int = 0
    """0: as many bytes as the pages need."""

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """:raises ElsError: no page, pages of another length, or a payload length that lies."""
        length = int.from_bytes(data[2:4], "big")
        if len(data) < 4 + PAGE_LENGTH or data[1] != PAGE_LENGTH or length % PAGE_LENGTH != 4 or not 4 < length <= len(data):
            raise ElsError(
                Reason.PROTOCOL_ERROR,
                Explanation.INVALID_PAYLOAD_LENGTH,
                f"{cls.__name__} of {length} bytes in {len(data)}, with pages of {data[1] if len(data) > 1 else 0}",
            )
        return super(ProcessLogin, cls).parse(data[:length])

    def pack(self) -> bytes:
        """The bytes; lengths are those of the pages."""
        built: bytes = self.layout.build(
            {
                "command": self.command,
                "page_length": PAGE_LENGTH,
                "payload_length": 4 + PAGE_LENGTH * len(self.pages),
                "pages": self.pages,
            }
        )
        return built
