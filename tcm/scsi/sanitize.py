"""Parameter list of SANITIZE OVERWRITE (SBC-4 5.30.2)."""

from __future__ import annotations

from typing import NamedTuple

from tcm.scsi.check_condition import InvalidFieldInParameterList, ParameterListLengthError

HEADER = 4
_INVERT, _TEST, _COUNT = 0x80, 0x60, 0x1F


class OverwriteParameters(NamedTuple):
    """What to write, and how often."""

    passes: int
    """OVERWRITE COUNT, 1 to 31."""
    invert: bool
    """Every second pass writes the complement, the last one never."""
    block: bytes
    """One logical block of the initialization pattern."""


def parse_overwrite(data: bytes, block_size: int) -> OverwriteParameters:
    """Raises :class:`CheckCondition` for a list that ends too early or has an invalid field."""
    if len(data) < HEADER:
        raise ParameterListLengthError
    first = data[0]
    if first & _TEST:
        raise InvalidFieldInParameterList.at(0, 6)
    if not first & _COUNT:
        raise InvalidFieldInParameterList.at(0, 4)
    if data[1]:
        raise InvalidFieldInParameterList.at(1)
    length = int.from_bytes(data[2:4])
    if not 0 < length <= block_size:
        raise InvalidFieldInParameterList.at(2)
    pattern = data[HEADER : HEADER + length]
    if len(pattern) < length:
        raise ParameterListLengthError
    block = (pattern * -(-block_size // length))[:block_size]
    return OverwriteParameters(first & _COUNT, bool(first & _INVERT), block)
