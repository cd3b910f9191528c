"""Log pages (SPC-5 7.3).

Left out because nothing here could fill them in truthfully: Temperature (0Dh: there is no sensor), Background Scan (15h: none
runs, and the power-on time in it is that of the device's whole life) and General Statistics and Performance (19h: nobody
measures how long commands take).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Key = tuple[int, int]
"""Page code and subpage code."""

SUPPORTED_PAGES: Key = (0x00, 0x00)
SUPPORTED_PAGES_AND_SUBPAGES: Key = (0x00, 0xFF)
APPLICATION_CLIENT: Key = (0x0F, 0x00)

LOG_PAGES: tuple[Key, ...] = (SUPPORTED_PAGES, SUPPORTED_PAGES_AND_SUBPAGES, APPLICATION_CLIENT)
"""What there is, ascending."""

GENERAL_USAGE_PARAMETERS = 64
"""Parameter codes 0000h to 003Fh: those that a logical unit with the Application Client page has to have (SPC-5 7.3.4)."""
GENERAL_USAGE_LENGTH = 0xFC

_SUBPAGE_FORMAT = 0x40
_DISABLE_SAVE = 0x80


class PageControl(enum.IntEnum):
    """PC of LOG SENSE (SPC-5 table 176)."""

    THRESHOLD = 0
    CUMULATIVE = 1
    DEFAULT_THRESHOLD = 2
    DEFAULT_CUMULATIVE = 3


class ParameterFormat(enum.IntEnum):
    """FORMAT AND LINKING (SPC-5 table 376)."""

    BOUNDED_COUNTER = 0b00
    ASCII_LIST = 0b01
    UNBOUNDED_COUNTER = 0b10
    BINARY_LIST = 0b11


def page(key: Key, body: bytes, *, saves: bool = False) -> bytes:
    """A page; its parameters are not saved (DS) unless ``saves``."""
    code, subpage = key
    first = code | (_SUBPAGE_FORMAT if subpage else 0) | (0 if saves or not code else _DISABLE_SAVE)
    return bytes((first, subpage)) + len(body).to_bytes(2, "big") + body


def parameter(code: int, form: ParameterFormat, value: bytes) -> bytes:
    """A log parameter."""
    return code.to_bytes(2, "big") + bytes((form, len(value))) + value


def parse_parameters(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Code, control byte and value of each parameter of a page. Raises ``ValueError`` if the page is cut short."""
    if len(data) < 4 or len(data) != 4 + int.from_bytes(data[2:4]):
        raise ValueError("a log page is cut short")
    offset = 4
    while offset < len(data):
        end = offset + 4 + (data[offset + 3] if offset + 3 < len(data) else 0)
        if end > len(data):
            raise ValueError("a log parameter is cut short")
        yield int.from_bytes(data[offset : offset + 2]), data[offset + 2], bytes(data[offset + 4 : end])
        offset = end


def supported_pages(keys: Iterable[Key] = LOG_PAGES) -> bytes:
    """Page 00h."""
    return page(SUPPORTED_PAGES, bytes(sorted({code for code, _ in keys})))


def supported_pages_and_subpages(keys: Iterable[Key] = LOG_PAGES) -> bytes:
    """Page 00h, subpage FFh."""
    return page(SUPPORTED_PAGES_AND_SUBPAGES, b"".join(bytes(key) for key in sorted(keys)))


def application_client(first: int = 0) -> bytes:
    """Page 0Fh from parameter ``first`` on. Application clients have stored nothing: there is no LOG SELECT yet."""
    empty = bytes(GENERAL_USAGE_LENGTH)
    codes = range(first, GENERAL_USAGE_PARAMETERS)
    return page(APPLICATION_CLIENT, b"".join(parameter(code, ParameterFormat.BINARY_LIST, empty) for code in codes))
