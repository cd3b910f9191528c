"""Parameter lists of EXTENDED COPY (LID1) and (LID4) (SPC-4 6.4, 6.5)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tcm.scsi.check_condition import (
    InlineDataLengthExceeded,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    ParameterListLengthError,
    TooManySegmentDescriptors,
    TooManyTargetDescriptors,
    UnsupportedSegmentDescriptorTypeCode,
    UnsupportedTargetDescriptorTypeCode,
)
from tcm.scsi.designators import Designator
from tcm.scsi.third_party_copy import MAXIMUM_CSCDS, MAXIMUM_DESCRIPTOR_LIST_LENGTH, MAXIMUM_SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

CSCD_LENGTH = 32
IDENTIFICATION = 0xE4
BLOCK_TO_BLOCK = 0x02
BLOCK_TO_BLOCK_WITH_OFFSETS = 0x0A
MAXIMUM_DESIGNATOR = 20
FIRST_CSCD = 16
"""Where in the parameter list the CSCD with the ID 0 is; in that of LID4 it is part of the header (SPC-4 table 148)."""

_SEGMENT_LENGTHS = {BLOCK_TO_BLOCK: 0x18, BLOCK_TO_BLOCK_WITH_OFFSETS: 0x1C}
_LIST_FORMAT, _HEADER_CSCD_LENGTH, _HEADER_CSCD_TYPE = 0x01, CSCD_LENGTH, 0xFF
_G_SENSE, _IMMED = 0x02, 0x01


class ListIdUsage(enum.IntEnum):
    """LIST ID USAGE (SPC-4 tables 128 and 129)."""

    HOLD = 0b00
    DISCARD = 0b10
    NONE = 0b11
    """The list identifier is zero and means nothing."""


class _Format(NamedTuple):
    """Where a parameter list header has its fields: first byte and number of bytes."""

    header: int
    list_identifier: tuple[int, int]
    cscd_length: tuple[int, int]
    segment_length: tuple[int, int]
    inline_length: tuple[int, int]
    reserved: bytes


_LID1 = _Format(16, (0, 1), (2, 2), (8, 4), (12, 4), bytes.fromhex("00c00000ffffffff0000000000000000"))
_LID4 = _Format(
    48,
    (20, 4),
    (42, 2),
    (44, 2),
    (46, 2),
    bytes.fromhex("00c00000" + "ff" * 11 + "fc" + "00ffffff00000000" + "ff" * 18 + "000000000000"),
)
_CSCD_RESERVED = bytes.fromhex("00000000" + "f0c0ff00" + "00" * 20 + "fb000000")
_SEGMENT_RESERVED = {
    BLOCK_TO_BLOCK: bytes.fromhex("00fc0000" + "00000000" + "ffff0000" + "00" * 16),
    BLOCK_TO_BLOCK_WITH_OFFSETS: bytes.fromhex("00fc0000" + "00" * 28),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cscd:
    """An Identification Descriptor CSCD descriptor (SPC-4 6.4.5.6)."""

    offset: int
    """Where it begins in the parameter list."""
    device_type: int
    designator: Designator
    block_length: int
    """DISK BLOCK LENGTH, bytes; 0: whatever the unit has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A block device to block device segment descriptor, without or with byte offsets (SPC-4 6.4.6.4, 6.4.6.12)."""

    source: int
    """CSCD descriptor ID."""
    destination: int
    destination_count: bool
    """DC: ``count`` is in blocks of the destination."""
    count: int
    """Blocks; bytes if there are byte offsets."""
    source_lba: int
    destination_lba: int
    with_offsets: bool
    source_byte: int = 0
    destination_byte: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyParameters:
    """A parameter list."""

    list_identifier: int
    usage: ListIdUsage
    priority: int
    sequential_striped: bool
    immediate: bool
    good_sense: bool
    """G_SENSE: sense data with GOOD status."""
    cscds: dict[int, Cscd]
    """By CSCD descriptor ID."""
    first_cscd: int
    """The lowest ID that is not part of the header."""
    segments: tuple[Segment, ...]


def header_length(*, lid4: bool) -> int:
    """Bytes before the first descriptor."""
    return (_LID4 if lid4 else _LID1).header


def parse(data: bytes, *, lid4: bool) -> CopyParameters:
    """Parse a parameter list; nothing in it is looked at twice, and what follows the inline data is ignored.

    Raises ILLEGAL REQUEST with the additional sense codes of SPC-4 6.4.3 to 6.4.6, with a pointer to the field.
    """
    form = _LID4 if lid4 else _LID1
    if len(data) < form.header:
        raise ParameterListLengthError
    _check_reserved(data, form.reserved, 0)
    if lid4:
        for byte, wanted in ((0, _LIST_FORMAT), (16, _HEADER_CSCD_TYPE)):
            if data[byte] != wanted:
                raise InvalidFieldInParameterList.at(byte)
        if int.from_bytes(data[2:4]) != _HEADER_CSCD_LENGTH:
            raise InvalidFieldInParameterList.at(2)
    flags = data[15] if lid4 else 0
    usage, list_identifier = _usage(data, form, flags)
    cscd_length = _number(data, form.cscd_length)
    segment_length = _number(data, form.segment_length)
    if cscd_length + segment_length > MAXIMUM_DESCRIPTOR_LIST_LENGTH:
        raise ParameterListLengthError
    if form.header + cscd_length + segment_length > len(data):
        raise ParameterListLengthError
    if _number(data, form.inline_length):
        raise InlineDataLengthExceeded
    segments = form.header + cscd_length
    return CopyParameters(
        list_identifier=list_identifier,
        usage=usage,
        priority=data[1] & 0x07,
        sequential_striped=bool(data[1] & 0x20),
        immediate=bool(flags & _IMMED),
        good_sense=bool(flags & _G_SENSE),
        cscds=_cscds(data, form, cscd_length),
        first_cscd=(form.header - FIRST_CSCD) // CSCD_LENGTH,
        segments=tuple(_segments(data, form, segments, segments + segment_length)),
    )


def _number(data: bytes, field: tuple[int, int]) -> int:
    first, length = field
    return int.from_bytes(data[first : first + length])


def _check_reserved(data: bytes, reserved: bytes, start: int) -> None:
    for index, mask in enumerate(reserved):
        wrong = data[start + index] & mask
        if wrong:
            raise InvalidFieldInParameterList.at(start + index, wrong.bit_length() - 1)


def _usage(data: bytes, form: _Format, flags: int) -> tuple[ListIdUsage, int]:
    list_identifier = _number(data, form.list_identifier)
    code = data[1] >> 3 & 0b11
    if code not in {usage.value for usage in ListIdUsage}:
        raise InvalidFieldInParameterList.at(1, 4)
    usage = ListIdUsage(code)
    if usage is ListIdUsage.NONE and list_identifier:
        raise InvalidFieldInParameterList.at(form.list_identifier[0])
    if flags & _IMMED and (flags & _G_SENSE or usage is ListIdUsage.NONE):
        raise InvalidFieldInCdb  # the standard says so, though the CDB has no such field
    return usage, list_identifier


def _cscds(data: bytes, form: _Format, length: int) -> dict[int, Cscd]:
    if length // CSCD_LENGTH > MAXIMUM_CSCDS:
        raise TooManyTargetDescriptors
    if length % CSCD_LENGTH:
        raise InvalidFieldInParameterList.at(form.cscd_length[0])
    return {
        (offset - FIRST_CSCD) // CSCD_LENGTH: _cscd(data, offset)
        for offset in range(form.header, form.header + length, CSCD_LENGTH)
    }


def _cscd(data: bytes, offset: int) -> Cscd:
    if data[offset] != IDENTIFICATION:
        raise UnsupportedTargetDescriptorTypeCode.at(offset)
    _check_reserved(data, _CSCD_RESERVED, offset)
    length = data[offset + 7]
    if length > MAXIMUM_DESIGNATOR:
        raise InvalidFieldInParameterList.at(offset + 7)
    return Cscd(
        offset=offset,
        device_type=data[offset + 1] & 0x1F,
        designator=Designator(
            data[offset + 4] & 0x0F,
            data[offset + 5] & 0x0F,
            data[offset + 5] >> 4 & 0b11,
            bytes(data[offset + 8 : offset + 8 + length]),
        ),
        block_length=int.from_bytes(data[offset + 29 : offset + 32]),
    )


def _segments(data: bytes, form: _Format, offset: int, end: int) -> Iterator[Segment]:
    found = 0
    while offset < end:
        if found == MAXIMUM_SEGMENTS:
            raise TooManySegmentDescriptors
        wanted = _SEGMENT_LENGTHS.get(data[offset])
        if wanted is None:
            raise UnsupportedSegmentDescriptorTypeCode.at(offset)
        if offset + 4 + wanted > end:
            raise InvalidFieldInParameterList.at(form.segment_length[0])
        if int.from_bytes(data[offset + 2 : offset + 4]) != wanted:
            raise InvalidFieldInParameterList.at(offset + 2)
        _check_reserved(data, _SEGMENT_RESERVED[data[offset]], offset)
        yield _segment(data[offset : offset + 4 + wanted])
        found += 1
        offset += 4 + wanted


def _segment(data: bytes) -> Segment:
    offsets = data[0] == BLOCK_TO_BLOCK_WITH_OFFSETS
    return Segment(
        source=int.from_bytes(data[4:6]),
        destination=int.from_bytes(data[6:8]),
        destination_count=bool(data[1] & 0x02),
        count=int.from_bytes(data[8 if offsets else 10 : 12]),
        source_lba=int.from_bytes(data[12:20]),
        destination_lba=int.from_bytes(data[20:28]),
        with_offsets=offsets,
        source_byte=int.from_bytes(data[28:30]),
        destination_byte=int.from_bytes(data[30:32]),
    )
