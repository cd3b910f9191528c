"""Diagnostic pages (SPC-5 7.2): only the list of themselves."""

from __future__ import annotations

from tcm.scsi.check_condition import InvalidFieldInParameterList, ParameterListLengthError

SUPPORTED_DIAGNOSTIC_PAGES = 0x00
DIAGNOSTIC_PAGES: tuple[int, ...] = (SUPPORTED_DIAGNOSTIC_PAGES,)

_HEADER = 4


def supported_diagnostic_pages() -> bytes:
    """Page 00h as RECEIVE DIAGNOSTIC RESULTS returns it."""
    body = bytes(DIAGNOSTIC_PAGES)
    return bytes((SUPPORTED_DIAGNOSTIC_PAGES, 0)) + len(body).to_bytes(2, "big") + body


def parse_send_diagnostic(data: bytes) -> int:
    """The page code of SEND DIAGNOSTIC's parameter list; the page itself has nothing in it.

    :raises ParameterListLengthError: the list ends within the page.
    :raises InvalidFieldInParameterList: a page that does not exist, a reserved bit, or a length that is not zero.
    """
    if len(data) < _HEADER:
        raise ParameterListLengthError
    for byte in range(_HEADER):
        if data[byte]:
            raise InvalidFieldInParameterList.at(2 if byte == 3 else byte, 7)
    if len(data) > _HEADER:
        raise ParameterListLengthError
    return data[0]
