"""Parameter data of POPULATE TOKEN and WRITE USING TOKEN (SBC-4), and of the commands that return ROD tokens (SPC-5)."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from tcm.scsi.check_condition import (
    InvalidFieldInParameterList,
    LbaOutOfRange,
    ParameterListLengthError,
    TooManySegmentDescriptors,
)
from tcm.scsi.rod_tokens import CREATED, ROD_TOKEN_SIZE, RodType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

POPULATE_HEADER, WRITE_HEADER = 16, 536
"""Bytes before the block device range descriptors."""
RANGE_DESCRIPTOR = 16
MAXIMUM_RANGES = 128
"""MAXIMUM RANGE DESCRIPTORS."""
MAXIMUM_LIST = 2 + 0xFFFF
"""Bytes of the longest parameter list that its own length can describe; what follows is not fetched."""

_IMMED, _RTV, _DEL_TKN = 0x01, 0x02, 0x02
_POPULATE = struct.Struct(">HBxII2xH")
_WRITE = struct.Struct(f">HB5xQ{ROD_TOKEN_SIZE}s6xH")
_RANGE = struct.Struct(">QI4x")
_POPULATE_RESERVED = bytes.fromhex("0000fcff0000000000000000ffff0000")
_WRITE_RESERVED = bytes.fromhex("0000fcffffffffff") + bytes(8 + ROD_TOKEN_SIZE) + b"\xff" * 6 + bytes(2)
_RANGE_RESERVED = bytes(12) + b"\xff" * 4


class Range(NamedTuple):
    """A block device range descriptor."""

    lba: int
    blocks: int

    @property
    def end(self) -> int:
        """The LBA behind the last."""
        return self.lba + self.blocks


class PopulateToken(NamedTuple):
    """What POPULATE TOKEN's parameter list asks for."""

    immed: bool
    inactivity_timeout: int
    """Seconds; 0: the default."""
    rod_type: RodType
    """Of the token to make."""
    ranges: tuple[Range, ...]


class WriteUsingToken(NamedTuple):
    """What WRITE USING TOKEN's parameter list asks for."""

    immed: bool
    delete: bool
    offset: int
    """OFFSET INTO ROD, in logical blocks of the destination."""
    token: bytes
    ranges: tuple[Range, ...]


def check_list_length(length: int, header: int) -> None:
    """PARAMETER LIST LENGTH: none at all, or a header at least. Raises :class:`ParameterListLengthError`."""
    if 0 < length < header:
        raise ParameterListLengthError


def parse_populate_token(data: bytes | memoryview, maximum_timeout: int) -> PopulateToken:
    """The parameter list of POPULATE TOKEN.

    :param data: what has arrived of it, the header at least.
    :param maximum_timeout: MAXIMUM INACTIVITY TIMEOUT, seconds.
    :raises InvalidFieldInParameterList: with a pointer to the field.
    """
    data = _with_header(data, POPULATE_HEADER)
    _check_reserved(data, _POPULATE_RESERVED, 0)
    length, flags, timeout, rod_type, ranges_length = _POPULATE.unpack_from(data)
    if length < POPULATE_HEADER - 2 + RANGE_DESCRIPTOR:
        raise InvalidFieldInParameterList.at(0)
    if timeout > maximum_timeout:
        raise InvalidFieldInParameterList.at(4)
    asked_for = rod_type if flags & _RTV else None
    if asked_for not in CREATED:
        raise InvalidFieldInParameterList.at(8)
    if ranges_length < RANGE_DESCRIPTOR or ranges_length > length - (POPULATE_HEADER - 2):
        raise InvalidFieldInParameterList.at(14)
    ranges = _ranges(data, POPULATE_HEADER, ranges_length)
    return PopulateToken(bool(flags & _IMMED), timeout, CREATED[asked_for], ranges)


def parse_write_using_token(data: bytes | memoryview) -> WriteUsingToken:
    """The parameter list of WRITE USING TOKEN; the token is not looked at.

    :param data: what has arrived of it, the header at least.
    :raises InvalidFieldInParameterList: with a pointer to the field.
    """
    data = _with_header(data, WRITE_HEADER)
    _check_reserved(data, _WRITE_RESERVED, 0)
    length, flags, offset, token, ranges_length = _WRITE.unpack_from(data)
    if length < WRITE_HEADER - 2 + RANGE_DESCRIPTOR or length != ranges_length + WRITE_HEADER - 2:
        raise InvalidFieldInParameterList.at(0)
    ranges = _ranges(data, WRITE_HEADER, ranges_length)
    return WriteUsingToken(bool(flags & _IMMED), bool(flags & _DEL_TKN), offset, token, ranges)


def check_ranges(ranges: Sequence[Range], first: int, *, capacity: int, maximum: int) -> None:
    """Ranges lie on the medium, do not overlap, and are not too much in all.

    :param first: where the range descriptors begin in the parameter list.
    :param capacity: logical blocks of the medium.
    :param maximum: MAXIMUM TOKEN TRANSFER SIZE, logical blocks.
    :raises LbaOutOfRange: INFORMATION is the first block beyond the medium.
    :raises InvalidFieldInParameterList: with a pointer to the range that is wrong.
    """
    for each in ranges:
        if each.blocks and each.end > capacity:
            raise LbaOutOfRange(information=max(each.lba, capacity))
    total = 0
    for index, each in enumerate(ranges):
        total += each.blocks
        if total > maximum:
            raise InvalidFieldInParameterList.at(first + index * RANGE_DESCRIPTOR + 8)
    in_order = sorted((each, index) for index, each in enumerate(ranges) if each.blocks)
    for (before, one), (after, other) in pairwise(in_order):
        if before.end > after.lba:
            raise InvalidFieldInParameterList.at(first + max(one, other) * RANGE_DESCRIPTOR)


def _with_header(data: bytes | memoryview, header: int) -> bytes:
    if len(data) < header:
        raise ParameterListLengthError
    return bytes(data)


def _ranges(data: bytes, first: int, length: int) -> tuple[Range, ...]:
    """The complete descriptors; one that is cut off, by its own length or by the list's, is ignored (SBC-4)."""
    count = min(length, len(data) - first) // RANGE_DESCRIPTOR
    if count > MAXIMUM_RANGES:
        raise TooManySegmentDescriptors
    for start in range(first, first + count * RANGE_DESCRIPTOR, RANGE_DESCRIPTOR):
        _check_reserved(data[start:], _RANGE_RESERVED, start)
    whole = memoryview(data)[first : first + count * RANGE_DESCRIPTOR]
    return tuple(Range(*found) for found in _RANGE.iter_unpack(whole))


def _check_reserved(data: bytes, reserved: bytes, at: int) -> None:
    wrong = int.from_bytes(data[: len(reserved)]) & int.from_bytes(reserved)
    if wrong:
        byte, bit = divmod(8 * len(reserved) - wrong.bit_length(), 8)
        raise InvalidFieldInParameterList.at(at + byte, 7 - bit)


def rod_token_descriptors(tokens: Iterable[bytes]) -> bytes:
    """ROD token descriptors and their length: what RECEIVE ROD TOKEN INFORMATION returns beyond RECEIVE COPY STATUS (LID4).

    :param tokens: those that the copy operation has made; none unless it has completed without errors.
    """
    descriptors = b"".join(bytes(2) + token for token in tokens)
    return len(descriptors).to_bytes(4) + descriptors


def report_all_rod_tokens_data(tokens: Iterable[bytes]) -> bytes:
    """REPORT ALL ROD TOKENS.

    :param tokens: ROD management tokens, 96 bytes each.
    """
    body = bytes(4) + b"".join(tokens)
    return len(body).to_bytes(4) + body
