"""iSCSI names (RFC 7143 clause 4.2.7; RFC 3722 stringprep): what is one, and how two of them compare."""

from __future__ import annotations

import re
import unicodedata

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
_STRICT_PUNCTUATION = "-.:"


class InvalidName(ValueError):
    """Not an iSCSI name. The message says why, and how one looks."""


def normalize(name: str, *, strict: bool = False) -> str:
    """The form in which names are stored and compared: NFKC, lower case (RFC 3722 3, 4).

    :param strict: refuse ASCII punctuation other than ``-``, ``.`` and ``:`` too (RFC 3722 6.2). Initiators in the field use
        it (``iqn.2008-11.org.linux-kvm:my_guest``), so what comes over the wire is not held to that.
    :raises InvalidName: not an iSCSI name.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).lower())
    if len(folded.encode("utf-8", "surrogatepass")) > MAX_NAME_LENGTH:
        raise InvalidName(f"an iSCSI name has at most {MAX_NAME_LENGTH} bytes")
    for character in folded:
        category = unicodedata.category(character)
        wrong = category[0] in "CZ" or (strict and category[0] in "PS" and character not in _STRICT_PUNCTUATION)
        if wrong:
            raise InvalidName(f"{name!r}: an iSCSI name cannot contain {character!r}; use letters, digits, '-', '.' and ':'")
    found = _FORMATS.get(folded[:4])
    if found is None:
        raise InvalidName(f"{name!r}: an iSCSI name begins with iqn., eui. or naa.: {_FORMATS['iqn.'][1]}")
    pattern, shape = found
    if pattern.fullmatch(folded) is None:
        raise InvalidName(f"{name!r}: write {shape}")
    return folded


def is_valid(name: str) -> bool:
    """Whether :func:`normalize` takes it."""
    try:
        normalize(name)
    except InvalidName:
        return False
    return True
