"""The parameter list of LOG SELECT (SPC-5 6.10, 7.3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tcm.scsi.check_condition import InvalidFieldInParameterList, ParameterListLengthError
from tcm.scsi.log_pages import PAGE_HEADER, PARAMETER_HEADER, Change, Key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tcm.scsi.log_pages import LogParameter

_DS, _SPF, _PAGE_CODE = 0x80, 0x40, 0x3F
_FORM = 0x03
_THRESHOLD_BITS = 0x1C
"""ETC and TMC: zero in parameters without thresholds. DU is ignored in lists, TSD may be either, bit 6 is obsolete."""


class LogPageList(NamedTuple):
    """What an application client wants of one page."""

    key: Key
    saves: bool
    """DS is zero: what is set is to be saved, if SP says so."""
    values: dict[int, bytes]
    """By parameter code."""


def parse_log_select(data: bytes, pages: Mapping[Key, Mapping[int, LogParameter]]) -> list[LogPageList]:
    """The pages of a list, which may set only parameters that can be set.

    :param pages: what there is, by page and parameter code.

    Raises PARAMETER LIST LENGTH ERROR for a list that ends inside a page, INVALID FIELD IN PARAMETER LIST for all else.
    """
    found: list[LogPageList] = []
    offset = 0
    while offset < len(data):
        header = data[offset : offset + PAGE_HEADER]
        if len(header) < PAGE_HEADER:
            raise ParameterListLengthError
        key = (header[0] & _PAGE_CODE, header[1])
        if bool(header[0] & _SPF) is not bool(header[1]):
            raise InvalidFieldInParameterList.at(offset, 6)
        if key not in pages or (found and key <= found[-1].key):
            raise InvalidFieldInParameterList.at(offset, 5)
        end = offset + PAGE_HEADER + int.from_bytes(header[2:4])
        if end > len(data):
            raise ParameterListLengthError
        values = dict(_parameters(data, offset, end, pages[key]))
        found.append(LogPageList(key, not header[0] & _DS, values))
        offset = end
    return found


def _parameters(data: bytes, first: int, end: int, known: Mapping[int, LogParameter]) -> Iterator[tuple[int, bytes]]:
    """The parameters of the page that begins at ``first``."""
    last, at = -1, first + PAGE_HEADER
    while at < end:
        value = at + PARAMETER_HEADER
        if value > end or value + data[at + 3] > end:
            raise InvalidFieldInParameterList.at(first + 2)
        code, control, length = int.from_bytes(data[at : at + 2]), data[at + 2], data[at + 3]
        there = known.get(code)
        if there is None or there.change is not Change.ALWAYS or code <= last:
            raise InvalidFieldInParameterList.at(at)
        if control & _FORM != there.form:
            raise InvalidFieldInParameterList.at(at + 2, 1)
        if control & _THRESHOLD_BITS:
            raise InvalidFieldInParameterList.at(at + 2, 4)
        if length != len(there.value):
            raise InvalidFieldInParameterList.at(at + 3)
        yield code, data[value : value + length]
        last, at = code, value + length
