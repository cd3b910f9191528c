"""What a login agreed on: the active values, the only ones anything reads after login (RFC 7143 clause 13)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParameters:
    """Session-wide values, fixed by the leading login. Defaults are those of RFC 7143."""

    max_connections: int = 1
    initial_r2t: bool = True
    immediate_data: bool = True
    max_burst_length: int = 262144
    """Bytes of one Data-In sequence or of one solicited Data-Out sequence."""
    first_burst_length: int = 65536
    """Bytes of unsolicited data of one command, immediate data included."""
    default_time2wait: int = 2
    """Seconds."""
    default_time2retain: int = 20
    """Seconds."""
    max_outstanding_r2t: int = 1
    data_pdu_in_order: bool = True
    data_sequence_in_order: bool = True
    error_recovery_level: int = 0
    task_reporting: str = "RFC3720"
    """``RFC3720``, ``ResponseFence`` or ``FastAbort`` (clause 13.23)."""
    iscsi_protocol_level: int = 1
    """1: RFC 7143; 2: RFC 7144 as well (clause 13.24)."""


@dataclass(slots=True, kw_only=True)
class ConnectionParameters:
    """Values of one connection. Defaults are those of RFC 7143.

    Set by the login; only ``initiator_max_recv_data_segment_length`` changes later, when the initiator declares a new one.
    """

    header_digest: bool = False
    """CRC32C after every header, both ways."""
    data_digest: bool = False
    """CRC32C after every data segment that is not empty, both ways."""
    max_recv_data_segment_length: int = 8192
    """Bytes of data segment that we accept: what we declared."""
    initiator_max_recv_data_segment_length: int = 8192
    """Bytes of data segment that the initiator accepts: what it declared."""
    max_xmit_data_segment_length: int = 0xFFFFFF
    """Bytes of data segment that we send at most, whatever the initiator accepts; configured, not negotiated (LIO)."""

    @property
    def send_limit(self) -> int:
        """Bytes of data segment of the PDUs that we send."""
        return min(self.initiator_max_recv_data_segment_length, self.max_xmit_data_segment_length)
