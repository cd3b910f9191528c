"""Serial numbers of 32 bits, which wrap around (RFC 1982; RFC 7143 4.2.2)."""

from __future__ import annotations

SERIAL_BITS = 0xFFFFFFFF
HALF = 0x80000000
"""From here on a difference is one backwards."""


def serial_less(a: int, b: int) -> bool:
    """RFC 1982 comparison of two 32-bit serial numbers: a < b."""
    return a != b and (b - a) & SERIAL_BITS < HALF
