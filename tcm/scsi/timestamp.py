"""Data of REPORT and SET TIMESTAMP (SPC-4 6.38, 6.46)."""

from __future__ import annotations

import enum

from tcm.scsi.check_condition import InvalidFieldInParameterList

PARAMETER_LIST_LENGTH = 12
"""Bytes of SET TIMESTAMP's parameter list."""
MODULUS = 1 << 48
"""A timestamp counts milliseconds in six bytes."""

_TIMESTAMP = slice(4, 10)
_RESERVED = (0, 1, 2, 3, 10, 11)


class TimestampOrigin(enum.IntEnum):
    """TIMESTAMP ORIGIN (SPC-4 table 57)."""

    SET_TIMESTAMP = 0b010
    OTHER = 0b011
    """By methods outside the standard: the host's clock."""


def timestamp_data(timestamp: int, origin: TimestampOrigin) -> bytes:
    """REPORT TIMESTAMP parameter data.

    :param timestamp: milliseconds since 1970-01-01 00:00 UT.
    """
    return bytes((0, 10, origin, 0)) + (timestamp % MODULUS).to_bytes(6, "big") + bytes(2)


def parse_set_timestamp(data: bytes) -> int:
    """The timestamp of a whole parameter list, milliseconds.

    :raises InvalidFieldInParameterList: a reserved byte is not zero.
    """
    for byte in _RESERVED:
        if data[byte]:
            raise InvalidFieldInParameterList.at(byte)
    return int.from_bytes(data[_TIMESTAMP])
