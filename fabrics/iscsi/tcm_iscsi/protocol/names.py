"""iSCSI names (RFC 7143 clause 4.2.7; RFC 3722 stringprep): what is one, and how two of them compare."""

from __future__ import annotations

import functools
import re
import stringprep
from unicodedata import ucd_3_2_0  # the Unicode that RFC 3454 is written for

MAX_NAME_LENGTH = 223
"""Bytes of UTF-8 (clause 4.2.7.2)."""

_FORMATS = {
    "iqn.": (
        re.compile(r"iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[^.:][^:]*(:.+)?"),
        "iqn.YYYY-MM.reversed-domain[:text], for example iqn.2003-01.org.example:disk1",
    ),
    "eui.": (re.compile(r"eui\.[0-9a-f]{16}"), "eui. and 16 hexadecimal digits"),
    "naa.": (re.compile(r"naa\.([0-9a-f]{16}|[0-9a-f]{32})"), "naa. and 16 or 32 hexadecimal digits"),
}

PROHIBITED = (
    stringprep.in_table_c11_c12,  # spaces
    stringprep.in_table_c21_c22,  # control characters
    stringprep.in_table_c3,  # private use
    stringprep.in_table_c4,  # no characters
    stringprep.in_table_c5,  # surrogates
    stringprep.in_table_c6,  # no plain text
    stringprep.in_table_c7,  # no canonical form
    stringprep.in_table_c8,  # change of display, deprecated
    stringprep.in_table_c9,  # tags
)
"""RFC 3722 clause 6.1, by RFC 3454's tables."""
_STRICT = frozenset({*map(chr, range(0x80)), "\u3002"} - {*"-.:0123456789abcdefghijklmnopqrstuvwxyz"})
"""RFC 3722 clause 6.2: the rest of ASCII, and the ideographic full stop."""


class InvalidName(ValueError):
    """Not an iSCSI name. The message says why, and how one looks."""


@functools.lru_cache(maxsize=4096)
def normalize(name: str, *, strict: bool = False) -> str:
    """The form in which names are stored and compared (RFC 3722): mapped, NFKC, checked for what cannot be in it.

    :param strict: for names that are stored: refuse ASCII punctuation other than ``-``, ``.`` and ``:`` (RFC 3722 6.2) and
        characters that Unicode 3.2 did not have (clause 8) too. Initiators in the field use the former
        (``iqn.2008-11.org.linux-kvm:my_guest``), so what comes over the wire is not held to that.
    :raises InvalidName: not an iSCSI name.
    """
    prepared = _mapped(name) if len(name) <= MAX_NAME_LENGTH else name
    if len(prepared.encode("utf-8", "surrogatepass")) > MAX_NAME_LENGTH:
        raise InvalidName(f"an iSCSI name has at most {MAX_NAME_LENGTH} bytes")
    for character in prepared:
        wrong = any(table(character) for table in PROHIBITED)
        if wrong or (strict and (character in _STRICT or stringprep.in_table_a1(character))):
            raise InvalidName(f"{name!r}: an iSCSI name cannot contain {character!r}; use letters, digits, '-', '.' and ':'")
    _check_direction(name, prepared)
    found = _FORMATS.get(prepared[:4])
    if found is None:
        raise InvalidName(f"{name!r}: an iSCSI name begins with iqn., eui. or naa.: {_FORMATS['iqn.'][1]}")
    pattern, shape = found
    if pattern.fullmatch(prepared) is None:
        raise InvalidName(f"{name!r}: write {shape}")
    return prepared


def _mapped(name: str) -> str:
    """Tables B.1 (to nothing) and B.2 (case folding for NFKC), then NFKC (RFC 3722 clauses 4 and 5)."""
    while True:  # what Unicode 3.2 has not is folded by later rules, whose result may have to be folded once more
        kept = "".join(stringprep.map_table_b2(character) for character in name if not stringprep.in_table_b1(character))
        mapped = ucd_3_2_0.normalize("NFKC", kept)
        if mapped == name:
            return name
        name = mapped


def _check_direction(name: str, prepared: str) -> None:
    """RFC 3454 clause 6: what has characters that run from right to left has no others, and both ends are such."""
    if any(map(stringprep.in_table_d1, prepared)):
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(map(stringprep.in_table_d2, prepared)):
            raise InvalidName(f"{name!r}: letters that run from right to left cannot stand beside iqn., eui. or naa.")
