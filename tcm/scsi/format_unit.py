"""Parameter list of FORMAT UNIT (SBC-4 5.3.2): a header, of which an empty defect list is all that follows here."""

from __future__ import annotations

from tcm.scsi.sense import InvalidFieldInParameterList, ParameterListLengthError

SHORT_HEADER, LONG_HEADER = 4, 8
_FOV, _IMMED = 0x80, 0x02
_OPTIONS = range(6, 2, -1)
"""Bits of DPRY, DCRT, STPF and IP, which count only if FOV is set."""
_REFUSED = (3, 2, 0)
"""IP (there is no initialization pattern but zeroes), the obsolete DSP, and the vendor specific bit."""


def parse_format(data: bytes, *, long: bool) -> bool:
    """IMMED. DPRY, DCRT and STPF may be anything: there are no defects.

    :param long: LONGLIST.

    Raises :class:`CheckCondition` for a list that ends too early or has an invalid field.
    """
    if len(data) < (LONG_HEADER if long else SHORT_HEADER):
        raise ParameterListLengthError
    if data[0]:
        raise InvalidFieldInParameterList.at(0, data[0].bit_length() - 1)
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
    return bool(flags & _IMMED)
