"""Structures of named bit fields, written down as the standards' tables are: name, byte, most significant bit, width.

Positions are explicit, so that a table can be read beside the standard's and a bad field can be pointed at (SPC-5 4.5.2.4.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Field:
    """An unsigned big-endian number of ``width`` bits, whose most significant bit is ``bit`` (7 to 0) of ``byte``."""

    name: str
    byte: int
    bit: int
    width: int

    def shift(self, length: int) -> int:
        """How far left of the last bit of ``length`` bytes the field ends."""
        return 8 * length - (8 * self.byte + 7 - self.bit) - self.width

    def mask(self, length: int) -> int:
        """The field's bits in a number of ``length`` bytes."""
        return ((1 << self.width) - 1) << self.shift(length)


def flag(name: str, byte: int, bit: int) -> Field:
    """One bit."""
    return Field(name, byte, bit, 1)


def bits(name: str, byte: int, most: int, least: int) -> Field:
    """Bits ``most`` to ``least`` of one byte."""
    return Field(name, byte, most, most - least + 1)


def number(name: str, first: int, last: int) -> Field:
    """Whole bytes ``first`` to ``last``."""
    return Field(name, first, 7, 8 * (last - first + 1))


class Layout:
    """A structure of a fixed length. What no field covers is reserved: zero when packed, left alone when unpacked.

    :raises ValueError: if two fields share a bit, or one lies outside.
    """

    def __init__(self, length: int, fields: Iterable[Field]) -> None:
        self.length = length
        self.fields = tuple(fields)
        self._by_name = {field.name: field for field in self.fields}
        covered = 0
        for field in self.fields:
            if field.shift(length) < 0 or covered & field.mask(length):
                raise ValueError(f"{field} lies outside or over another field")
            covered |= field.mask(length)
        self._places = [(field.name, field.shift(length), (1 << field.width) - 1) for field in self.fields]
        self._shifts = {name: (shift, most) for name, shift, most in self._places}

    def __getitem__(self, name: str) -> Field:
        return self._by_name[name]

    def pack(self, values: Mapping[str, int]) -> bytes:
        """The structure with the given values; fields that are not named are zero.

        :raises KeyError: an unknown name.
        :raises ValueError: a value that its field cannot hold.
        """
        packed = 0
        for name, value in values.items():
            shift, most = self._shifts[name]
            if not 0 <= value <= most:
                raise ValueError(f"{name}={value} does not fit {most.bit_length()} bits")
            packed |= value << shift
        return packed.to_bytes(self.length, "big")

    def unpack(self, data: bytes) -> dict[str, int]:
        """All fields of a structure that ``data`` begins with.

        :raises ValueError: ``data`` is too short.
        """
        if len(data) < self.length:
            raise ValueError(f"{len(data)} bytes where {self.length} are wanted")
        packed = int.from_bytes(data[: self.length])
        return {name: packed >> shift & most for name, shift, most in self._places}
