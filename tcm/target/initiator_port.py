"""The initiator port at the other end of an I_T nexus (SAM-5 4.6.4)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InitiatorPort:
    """Who is at the other end."""

    name: str
    """Initiator port name as the fabric writes it, without ISID."""
    isid: bytes | None = None
    """iSCSI: 6 bytes, part of the port's name."""
    transport_id: bytes = b""
    """TransportID (SPC-5 7.6.4)."""
    address: str = ""
    """Where it is, for people."""
