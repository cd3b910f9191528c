"""Common Transport information units (FC-GS clause 4): the preamble, and what requests may be refused with."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from construct import (  # type: ignore[import-untyped]  # it ships no types
    BytesInteger,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Padding,
    Struct,
)

from tcm_fcoe.protocol.els_payload import Block

if TYPE_CHECKING:
    from tcm_fcoe.protocol.fcoe import Buffer

PREAMBLE_LENGTH = 16
REVISION = 0x01
DIRECTORY_SERVICE = 0xFC
"""GS_Type."""
NAME_SERVER = 0x02
"""GS_Subtype of the directory service."""
REJECT = 0x8001
ACCEPT = 0x8002


class CtReason(enum.IntEnum):
    """Reason code of a Reject CT_IU (FC-GS clause 4.4.4)."""

    NONE = 0x00
    INVALID_COMMAND_CODE = 0x01
    INVALID_VERSION_LEVEL = 0x02
    LOGICAL_ERROR = 0x03
    INVALID_IU_SIZE = 0x04
    LOGICAL_BUSY = 0x05
    PROTOCOL_ERROR = 0x07
    UNABLE_TO_PERFORM = 0x09
    COMMAND_NOT_SUPPORTED = 0x0B
    SERVER_NOT_AVAILABLE = 0x0D
    SESSION_COULD_NOT_BE_ESTABLISHED = 0x0E
    VENDOR_SPECIFIC = 0xFF


class CtExplanation(enum.IntEnum):
    """Reason code explanation of the name server (FC-GS clause 5.2.4)."""

    NONE = 0x00
    PORT_IDENTIFIER_NOT_REGISTERED = 0x01
    PORT_NAME_NOT_REGISTERED = 0x02
    NODE_NAME_NOT_REGISTERED = 0x03
    CLASS_OF_SERVICE_NOT_REGISTERED = 0x04
    IP_ADDRESS_NOT_REGISTERED = 0x05
    FC4_TYPES_NOT_REGISTERED = 0x07
    SYMBOLIC_PORT_NAME_NOT_REGISTERED = 0x08
    SYMBOLIC_NODE_NAME_NOT_REGISTERED = 0x09
    PORT_TYPE_NOT_REGISTERED = 0x0A
    FC4_FEATURES_NOT_REGISTERED = 0x0F
    ACCESS_DENIED = 0x10
    UNACCEPTABLE_PORT_IDENTIFIER = 0x11
    DATA_BASE_EMPTY = 0x12
    NO_OBJECT_IN_SCOPE = 0x13


class CtError(ValueError):
    """A request that is answered with a Reject CT_IU."""

    def __init__(self, reason: CtReason, explanation: int, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.explanation = explanation


@dataclass(frozen=True, slots=True)
class CtIu(Block):
    """A CT_IU: preamble and what follows it."""

    layout = Struct(
        "revision" / Int8ub,
        "in_id" / BytesInteger(3),
        "gs_type" / Int8ub,
        "gs_subtype" / Int8ub,
        "options" / Int8ub,
        Padding(1),
        "code" / Int16ub,
        "size" / Int16ub,
        "fragment_id" / Int8ub,
        "reason" / Int8ub,
        "explanation" / Int8ub,
        "vendor" / Int8ub,
        "body" / GreedyBytes,
    )
    code: int
    """Command, :data:`ACCEPT` or :data:`REJECT`."""
    body: bytes = b""
    size: int = 0
    """In a request: the most words that the answer may have, 0: any number; in an answer: words that did not fit."""
    reason: int = 0
    explanation: int = 0
    vendor: int = 0
    gs_type: int = DIRECTORY_SERVICE
    gs_subtype: int = NAME_SERVER
    options: int = 0
    fragment_id: int = 0
    in_id: int = 0
    revision: int = REVISION

    @property
    def accepted(self) -> bool:
        """An answer to a request that was carried out."""
        return self.code == ACCEPT


def parse_iu(data: Buffer) -> CtIu:
    """The preamble of an IU, taken apart.

    :raises CtError: cut short.
    """
    if len(data) < PREAMBLE_LENGTH:
        raise CtError(CtReason.INVALID_IU_SIZE, CtExplanation.NONE, f"a CT_IU of {len(data)} bytes")
    return CtIu.parse(data)


def check_request(iu: CtIu, gs_type: int = DIRECTORY_SERVICE, gs_subtype: int = NAME_SERVER) -> None:
    """:raises CtError: not a request to this server of this service."""
    if iu.revision != REVISION:
        raise CtError(CtReason.INVALID_VERSION_LEVEL, CtExplanation.NONE, f"CT revision {iu.revision}")
    if (iu.gs_type, iu.gs_subtype) != (gs_type, gs_subtype):
        raise CtError(
            CtReason.SERVER_NOT_AVAILABLE, CtExplanation.NONE, f"GS_Type {iu.gs_type:02x}h, subtype {iu.gs_subtype:02x}h"
        )


def accept(body: bytes = b"", *, residual: int = 0) -> CtIu:
    """An Accept CT_IU.

    :param residual: words that did not fit into the size that the request allows.
    """
    return CtIu(ACCEPT, body, residual)


def reject(reason: CtReason, explanation: int = CtExplanation.NONE) -> CtIu:
    """A Reject CT_IU."""
    return CtIu(REJECT, reason=reason, explanation=explanation)
