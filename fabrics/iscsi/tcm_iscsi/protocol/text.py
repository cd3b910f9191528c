"""Text of login and text PDUs: ``key=value`` pairs and the formats of values (RFC 7143 clause 6.1)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from tcm_iscsi.protocol.pdu import Buffer

MAX_KEY_LENGTH = 63
"""Characters of a key name."""
MAX_VALUE_LENGTH = 255
"""Bytes of a value, unless its key says otherwise."""
MAX_TEXT_LENGTH = 65536
"""Bytes of one logical text, all PDUs with the C bit included: our bound; the RFC has none."""
MAX_PAIRS = 1024
"""Pairs of one logical text: our bound, so that the answer is bounded too."""

Pair = tuple[str, str]

# a capital letter first, says clause 6.1; and clause 13.24 has iSCSIProtocolLevel
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9.\-+@_#]*")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")
_HEXADECIMAL = re.compile(r"0[xX]([0-9a-fA-F]+)")
_BASE64 = re.compile(r"0[bB]([A-Za-z0-9+/]*={0,2})")
# clause 6.1 has no # in a text-value, but clause 13.1 has it in names of digests (Y#...)
_TEXT_VALUE = re.compile(r"[A-Za-z0-9.\-+@_/\[\]:#]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class TextError(ValueError):
    """Text that is not what clause 6.1 describes. The message never holds a value: it may be a secret."""


def parse(data: Buffer, repeatable: Container[str] = ()) -> list[Pair]:
    """The pairs of a logical text, in order.

    :param repeatable: keys that may occur more than once (TargetName and TargetAddress in a SendTargets response).
    :raises TextError: a pair without NUL at its end, without ``=``, with an empty or malformed key, a value that is not UTF-8
        or holds control characters, a key that occurs twice, or more than :data:`MAX_PAIRS` pairs.
    """
    raw = bytes(data)
    if not raw:
        return []
    if raw[-1] != 0:
        raise TextError("the last key=value pair does not end in NUL")
    if raw.count(0) > MAX_PAIRS:
        raise TextError(f"more than {MAX_PAIRS} key=value pairs")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise TextError("text that is not UTF-8") from None
    pairs: list[Pair] = []
    seen: set[str] = set()
    for item in text[:-1].split("\0"):
        key, equals, value = item.partition("=")
        if not equals:
            raise TextError("a key=value pair without '='" if item else "an empty key=value pair")
        if len(key) > MAX_KEY_LENGTH:
            raise TextError(f"a key longer than {MAX_KEY_LENGTH} characters")
        if _KEY.fullmatch(key) is None:
            raise TextError("a key must begin with a letter, then letters, digits, '.', '-', '+', '@', '_' or '#'")
        if key in seen and key not in repeatable:
            raise TextError(f"{key} is given twice")
        if _CONTROL.search(value):
            raise TextError(f"{key}: control characters")
        seen.add(key)
        pairs.append((key, value))
    return pairs


def encode(pairs: Iterable[Pair]) -> bytes:
    """The inverse of :func:`parse`."""
    return "".join(f"{key}={value}\0" for key, value in pairs).encode()


class TextAssembler:
    """Puts a logical text together out of the data segments of PDUs with the C bit (clause 6.2)."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def empty(self) -> bool:
        """No part waits for the rest."""
        return not self._parts

    def add(self, data: Buffer) -> None:
        """One more data segment. Raises TextError, and holds on to nothing, if it grows over :data:`MAX_TEXT_LENGTH`."""
        self._size += len(data)
        if self._size > MAX_TEXT_LENGTH:
            self.clear()
            raise TextError(f"more than {MAX_TEXT_LENGTH} bytes of text")
        self._parts.append(bytes(data))

    def take(self) -> list[Pair]:
        """The pairs, once the C bit is clear. Raises TextError."""
        data = b"".join(self._parts)
        self.clear()
        return parse(data)

    def clear(self) -> None:
        """Forget what has come."""
        self._parts.clear()
        self._size = 0


def parse_boolean(value: str) -> bool:
    """``Yes`` or ``No``, nothing else."""
    if value not in ("Yes", "No"):
        raise TextError("not Yes or No")
    return value == "Yes"


def format_boolean(value: bool) -> str:
    """The inverse of :func:`parse_boolean`."""
    return "Yes" if value else "No"


def parse_number(value: str) -> int:
    """A numerical-value: a decimal constant without leading zeros, or a hexadecimal one; below 2**64."""
    hexadecimal = _HEXADECIMAL.fullmatch(value)
    if hexadecimal and len(value) <= MAX_VALUE_LENGTH:
        number = int(hexadecimal[1], 16)
    elif _DECIMAL.fullmatch(value):
        number = int(value)
    else:
        raise TextError("not a decimal or hexadecimal number")
    if number >= 1 << 64:
        raise TextError("a number of more than 64 bits")
    return number


def parse_range(value: str) -> tuple[int, int]:
    """A numeric-range: ``low~high``, low not above high."""
    low, tilde, high = value.partition("~")
    if not tilde:
        raise TextError("not a range low~high")
    first, last = parse_number(low), parse_number(high)
    if first > last:
        raise TextError("a range whose first number is above its last")
    return first, last


def parse_list(value: str) -> list[str]:
    """A list-of-values: text-values between commas, each once."""
    values = value.split(",")
    if any(_TEXT_VALUE.fullmatch(item) is None for item in values):
        raise TextError("an empty or malformed item in a list of values")
    if len(set(values)) != len(values):
        raise TextError("an item that occurs twice in a list of values")
    return values


def parse_binary(value: str, maximum: int) -> bytes:
    """A large-binary-value: ``0x`` and pairs of hexadecimal digits, or ``0b`` and Base64; 1 to ``maximum`` bytes."""
    if len(value) > 2 * maximum + 2:
        raise TextError(f"a binary value of more than {maximum} bytes")
    hexadecimal, base = _HEXADECIMAL.fullmatch(value), _BASE64.fullmatch(value)
    try:
        if hexadecimal:
            data = bytes.fromhex(hexadecimal[1])
        elif base:
            data = base64.b64decode(base[1], validate=True)
        else:
            raise TextError("not a binary value: neither 0x nor 0b")
    except (ValueError, binascii.Error) as e:
        if isinstance(e, TextError):
            raise
        raise TextError("a binary value with a wrong number of digits") from None
    if not 0 < len(data) <= maximum:
        raise TextError(f"a binary value that is empty or of more than {maximum} bytes")
    return data


def format_binary(data: bytes) -> str:
    """The hexadecimal form of :func:`parse_binary`."""
    return "0x" + data.hex()
