"""The eight-byte LUN field (SAM-5 4.7): a single-level structure for simple LUNs, and the well-known REPORT LUNS LUN."""

from __future__ import annotations

REPORT_LUNS_WELL_KNOWN = b"\xc1\x01\x00\x00\x00\x00\x00\x00"
"""The REPORT LUNS well-known logical unit (SAM-5 4.7.7.5.1, SPC-5 8.2)."""

PERIPHERAL_MAXIMUM = 0xFF
FLAT_MAXIMUM = 0x3FFF
MAXIMUM = 0xFFFFFF
"""The largest LUN that can be written down: extended flat space with a 24-bit field."""

_ZEROES_6 = bytes(6)


def encode(lun: int) -> bytes:
    """The LUN field for ``lun``: peripheral device addressing below 256, flat space up to 16383, extended flat space beyond.

    :raises ValueError: if ``lun`` is negative or more than 24 bits long.
    """
    if 0 <= lun <= PERIPHERAL_MAXIMUM:
        return bytes((0, lun)) + _ZEROES_6
    if PERIPHERAL_MAXIMUM < lun <= FLAT_MAXIMUM:
        return (0x4000 | lun).to_bytes(2, "big") + _ZEROES_6
    if FLAT_MAXIMUM < lun <= MAXIMUM:
        return b"\xd2" + lun.to_bytes(3, "big") + bytes(4)
    raise ValueError(f"LUN {lun} is not between 0 and {MAXIMUM}")


def decode(field: bytes) -> int | None:
    """The LUN that a field of 8 bytes stands for, or ``None`` for what is not a simple LUN (well-known, hierarchical).

    Flat space addressing of a LUN below 256 is the same LUN as peripheral device addressing of it (SAM-5 4.7.5.1 leaves that
    to the target; initiators that only know the flat form then find their logical units).
    """
    if len(field) != 8:
        return None
    first = field[0]
    if first == 0x00 or first >> 6 == 0b01:
        return None if any(field[2:]) else (first & 0x3F) << 8 | field[1]
    if first == 0xD2:
        return None if any(field[4:]) else int.from_bytes(field[1:4], "big")
    return None
