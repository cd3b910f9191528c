"""Basic Link Services (FC-FS-3 clause 16): ABTS, and BA_ACC or BA_RJT in answer to it."""

from __future__ import annotations

import enum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tcm_fcoe.protocol.fcoe import Buffer

_ACCEPT = Struct(">BBxxHHHH")
_REJECT = Struct(">xBBB")

ABTS_EXCHANGE = 0
ABTS_SEQUENCE = 1
"""Bit 0 of the parameter field of ABTS: only the sequence that SEQ_ID names is aborted, not the exchange (FC-FS-3 16.3.2.2)."""


class BasicReason(enum.IntEnum):
    """BA_RJT reason code (FC-FS-3 table 88)."""

    INVALID_COMMAND_CODE = 0x01
    LOGICAL_ERROR = 0x03
    LOGICAL_BUSY = 0x05
    PROTOCOL_ERROR = 0x07
    UNABLE_TO_PERFORM = 0x09
    VENDOR_SPECIFIC = 0xFF


class BasicExplanation(enum.IntEnum):
    """BA_RJT reason explanation (FC-FS-3 table 89)."""

    NONE = 0x00
    INVALID_OX_ID_RX_ID = 0x03
    SEQUENCE_ABORTED = 0x05
    """And no information on sequences is given."""


class BasicAccept(NamedTuple):
    """Payload of BA_ACC to ABTS, 12 bytes. What lies from ``low_seq_cnt`` to ``high_seq_cnt`` has a recovery qualifier."""

    ox_id: int
    rx_id: int
    low_seq_cnt: int = 0
    high_seq_cnt: int = 0xFFFF
    seq_id_valid: bool = False
    """``last_seq_id`` is the last sequence that was delivered."""
    last_seq_id: int = 0

    def pack(self) -> bytes:
        """The bytes."""
        return _ACCEPT.pack(
            0x80 if self.seq_id_valid else 0, self.last_seq_id, self.ox_id, self.rx_id, self.low_seq_cnt, self.high_seq_cnt
        )

    @classmethod
    def parse(cls, data: Buffer) -> BasicAccept | None:
        """``None``: cut short."""
        if len(data) < _ACCEPT.size:
            return None
        valid, seq_id, ox_id, rx_id, low, high = _ACCEPT.unpack_from(data)
        return cls(ox_id, rx_id, low, high, bool(valid & 0x80), seq_id)


class BasicReject(NamedTuple):
    """Payload of BA_RJT, four bytes."""

    reason: int
    explanation: int = BasicExplanation.NONE
    vendor: int = 0

    def pack(self) -> bytes:
        """The bytes."""
        return _REJECT.pack(self.reason, self.explanation, self.vendor)

    @classmethod
    def parse(cls, data: Buffer) -> BasicReject | None:
        """``None``: cut short."""
        return cls(*_REJECT.unpack_from(data)) if len(data) >= _REJECT.size else None


UNKNOWN_EXCHANGE = BasicReject(BasicReason.LOGICAL_ERROR, BasicExplanation.INVALID_OX_ID_RX_ID)


class Abts(NamedTuple):
    """An ABTS that was received: what has to be kept of it to answer it later."""

    s_id: int
    ox_id: int
    rx_id: int
    seq_id: int
    seq_cnt: int
    from_responder: bool
    """The sender is the responder of the exchange: OX_ID is one of ours."""
    sequence_only: bool = False
    """Parameter bit 0: not the exchange."""

    @property
    def key(self) -> tuple[int, int, int]:
        """S_ID, OX_ID, RX_ID."""
        return self.s_id, self.ox_id, self.rx_id
