"""Parameter list of FORMAT UNIT (SBC-4 5.3.2): a header, of which an empty defect list is all that follows here."""

from __future__ import annotations

from typing import NamedTuple

from tcm.scsi.check_condition import InvalidFieldInParameterList, ParameterListLengthError
from tcm.scsi.protection import ProtectionType

SHORT_HEADER, LONG_HEADER = 4, 8
_FOV, _IMMED = 0x80, 0x02
_PROTECTION_FIELD_USAGE = 0x07
FMTPINFO_SHIFT = 6

PROTECTION_TYPES: dict[int, dict[int, ProtectionType]] = {
    0b00: {0b000: ProtectionType.NONE},
    0b10: {0b000: ProtectionType.TYPE_1},
    0b11: {0b000: ProtectionType.TYPE_2, 0b001: ProtectionType.TYPE_3},
}
"""FMTPINFO, PROTECTION FIELD USAGE (SBC-4 table 44, for SPT 111b); what is not here is illegal."""


class FormatParameters(NamedTuple):
    """What a parameter list asks for."""

    immed: bool
    protection: ProtectionType


_OPTIONS = range(6, 2, -1)
"""Bits of DPRY, DCRT, STPF and IP, which count only if FOV is set."""
_REFUSED = (3, 2, 0)
"""IP (there is no initialization pattern but zeroes), the obsolete DSP, and the vendor specific bit."""


def parse_format(data: bytes, *, long: bool, fmtpinfo: int) -> FormatParameters:
    """DPRY, DCRT and STPF may be anything: there are no defects. PROTECTION INTERVAL EXPONENT has to be zero.

    :param long: LONGLIST.
    :param fmtpinfo: one of :data:`PROTECTION_TYPES`.

    Raises :class:`CheckCondition` for a list that ends too early or has an invalid field.
    """
    if len(data) < (LONG_HEADER if long else SHORT_HEADER):
        raise ParameterListLengthError
    if data[0] & ~_PROTECTION_FIELD_USAGE:
        raise InvalidFieldInParameterList.at(0, data[0].bit_length() - 1)
    protection = PROTECTION_TYPES[fmtpinfo].get(data[0])
    if protection is None:
        raise InvalidFieldInParameterList.at(0, 2)
    flags = data[1]
    for bit in _REFUSED if flags & _FOV else sorted({*_OPTIONS, *_REFUSED}, reverse=True):
        if flags >> bit & 1:
            raise InvalidFieldInParameterList.at(1, bit)
    if long:
        for byte in (2, 3):
            if data[byte]:
                raise InvalidFieldInParameterList.at(byte, data[byte].bit_length() - 1)
    first, last = (4, 8) if long else (2, 4)
    if any(data[first:last]):
        raise InvalidFieldInParameterList.at(first)
    return FormatParameters(bool(flags & _IMMED), protection)
