"""Log pages and log parameters as they go over the wire (SPC-5 7.3)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Key = tuple[int, int]
"""Page code and subpage code."""

SUPPORTED_PAGES: Key = (0x00, 0x00)
SUPPORTED_PAGES_AND_SUBPAGES: Key = (0x00, 0xFF)
WRITE_ERRORS: Key = (0x02, 0x00)
READ_ERRORS: Key = (0x03, 0x00)
VERIFY_ERRORS: Key = (0x05, 0x00)
NON_MEDIUM_ERRORS: Key = (0x06, 0x00)
LOGICAL_BLOCK_PROVISIONING: Key = (0x0C, 0x00)
APPLICATION_CLIENT: Key = (0x0F, 0x00)
SELF_TEST_RESULTS: Key = (0x10, 0x00)
GENERAL_STATISTICS: Key = (0x19, 0x00)
GROUPS = range(1, 0x20)
"""GROUP NUMBER and subpage code of the Group Statistics and Performance pages."""
INFORMATIONAL_EXCEPTIONS: Key = (0x2F, 0x00)

ALL_SUBPAGES = 0xFF
PAGE_HEADER = PARAMETER_HEADER = 4
"""Bytes."""
GENERAL_USAGE_PARAMETERS = 64
"""Parameter codes 0000h to 003Fh: those that a logical unit with the Application Client page has to have."""
GENERAL_USAGE_LENGTH = 0xFC

_SUBPAGE_FORMAT = 0x40
_DISABLE_SAVE = 0x80
_TARGET_SAVE_DISABLE = 0x20


class PageControl(enum.IntEnum):
    """PC of LOG SENSE and LOG SELECT (SPC-5 6.10, 6.11)."""

    THRESHOLD = 0
    CUMULATIVE = 1
    DEFAULT_THRESHOLD = 2
    DEFAULT_CUMULATIVE = 3


class ParameterFormat(enum.IntEnum):
    """FORMAT AND LINKING."""

    BOUNDED_COUNTER = 0b00
    ASCII_LIST = 0b01
    UNBOUNDED_COUNTER = 0b10
    BINARY_LIST = 0b11


COUNTERS = frozenset({ParameterFormat.BOUNDED_COUNTER, ParameterFormat.UNBOUNDED_COUNTER})


class Change(enum.Enum):
    """What LOG SELECT may do to a parameter: the keywords of the standard's tables (SPC-5 7.3.2.3)."""

    ALWAYS = "reset or set"
    RESET_ONLY = "reset"
    NEVER = "neither"


@dataclass(frozen=True, slots=True)
class LogParameter:
    """A log parameter and its current value."""

    code: int
    form: ParameterFormat
    value: bytes
    change: Change = Change.RESET_ONLY

    def pack(self, control: PageControl = PageControl.CUMULATIVE) -> bytes:
        """With the value that PC asks for; lists have one only. A threshold that nobody can reach is all ones."""
        value = self.value
        if self.form in COUNTERS and control is not PageControl.CUMULATIVE:
            value = (b"\0" if control is PageControl.DEFAULT_CUMULATIVE else b"\xff") * len(value)
        return parameter(self.code, self.form, value)


def counter(code: int, value: int, length: int, *, bounded: bool = True) -> LogParameter:
    """A saturating data counter of ``length`` bytes."""
    form = ParameterFormat.BOUNDED_COUNTER if bounded else ParameterFormat.UNBOUNDED_COUNTER
    return LogParameter(code, form, saturated(value, length))


def saturated(value: int, length: int) -> bytes:
    """``value`` in ``length`` bytes, or as much as they hold."""
    return min(value, (1 << 8 * length) - 1).to_bytes(length, "big")


def page(key: Key, body: bytes, *, saves: bool = False) -> bytes:
    """A page; its parameters are not saved (DS) unless ``saves``."""
    code, subpage = key
    first = code | (_SUBPAGE_FORMAT if subpage else 0) | (0 if saves or not code else _DISABLE_SAVE)
    return bytes((first, subpage)) + len(body).to_bytes(2, "big") + body


def parameter(code: int, form: ParameterFormat, value: bytes) -> bytes:
    """A log parameter. TSD is one: nothing is saved unless SP asks for it."""
    return code.to_bytes(2, "big") + bytes((_TARGET_SAVE_DISABLE | form, len(value))) + value


def parse_parameters(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Code, control byte and value of each parameter of a page. Raises ``ValueError`` if the page is cut short."""
    if len(data) < PAGE_HEADER or len(data) != PAGE_HEADER + int.from_bytes(data[2:4]):
        raise ValueError("a log page is cut short")
    offset = PAGE_HEADER
    while offset < len(data):
        end = offset + PARAMETER_HEADER + (data[offset + 3] if offset + 3 < len(data) else 0)
        if end > len(data):
            raise ValueError("a log parameter is cut short")
        yield int.from_bytes(data[offset : offset + 2]), data[offset + 2], bytes(data[offset + 4 : end])
        offset = end


def supported_pages(keys: Iterable[Key]) -> bytes:
    """Page 00h."""
    return page(SUPPORTED_PAGES, bytes(sorted({code for code, _ in keys})))


def supported_subpages(keys: Iterable[Key], code: int = 0) -> bytes:
    """Subpage FFh: of page 00h all pages with their subpages, of any other page its own."""
    listed = sorted(key for key in keys if not code or key[0] == code)
    return page((code, ALL_SUBPAGES), b"".join(bytes(key) for key in listed))
