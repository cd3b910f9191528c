"""How much one N_Port keeps on behalf of others. What is beyond is refused or dropped, and counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds; each is enforced where what it bounds is kept."""

    remote_ports: int = 1024
    """Remote ports that are known or logged in."""
    sequences: int = 64
    """Sequences of ELS and CT of which frames are missing."""
    sequences_per_port: int = 8
    sequence_length: int = 1 << 16
    """Bytes of one of them."""
    recovery_qualifiers: int = 8192
    """Exchanges that were aborted less than twice R_A_TOV ago."""
    attempts: int = 3
    """How often a request is sent before it has failed."""


DEFAULT_LIMITS = Limits()
