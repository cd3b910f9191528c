"""Mode parameter lists: built for MODE SENSE, taken apart for MODE SELECT (SPC-5 7.5, SBC-4 6.5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import InvalidFieldInParameterList, ParameterListLengthError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.scsi.mode_pages import Key, ModePage, ModePageValues, ModePageView

WRITE_PROTECTED = 0x80
DPOFUA = 0x10
"""Bits of the DEVICE-SPECIFIC PARAMETER field (SBC-4 table 230). MODE SELECT ignores both."""

SHORT_DESCRIPTOR_LENGTH = 8
LONG_DESCRIPTOR_LENGTH = 16
_MAXIMUM_SHORT = 0xFFFFFFFF
_MAXIMUM_LONG = 0xFFFFFFFFFFFFFFFF


def block_descriptor(blocks: int, block_size: int, *, long: bool) -> bytes:
    """The short LBA descriptor, its count all ones if it does not fit; or the long LBA one."""
    if long:
        return blocks.to_bytes(8, "big") + bytes(4) + block_size.to_bytes(4, "big")
    return min(blocks, _MAXIMUM_SHORT).to_bytes(4, "big") + block_size.to_bytes(4, "big")


def mode_sense_data(
    pages: Iterable[bytes],
    *,
    ten: bool,
    write_protected: bool,
    dpofua: bool,
    descriptor: bytes = b"",
) -> bytes:
    """The whole mode parameter list, not truncated; of MODE SENSE (10) if ``ten``, else of MODE SENSE (6)."""
    body = descriptor + b"".join(pages)
    specific = (WRITE_PROTECTED if write_protected else 0) | (DPOFUA if dpofua else 0)
    if ten:
        long = len(descriptor) == LONG_DESCRIPTOR_LENGTH
        header = bytes((0, specific, long, 0)) + len(descriptor).to_bytes(2, "big")
        return (len(header) + len(body)).to_bytes(2, "big") + header + body
    return bytes((min(3 + len(body), 0xFF), 0, specific, len(descriptor))) + body


def parse_mode_select(
    data: bytes, values: ModePageValues | ModePageView, *, ten: bool, blocks: int, block_size: int
) -> dict[Key, bytes]:
    """The pages that a MODE SELECT parameter list sets, with their new contents; nothing is changed yet.

    :param data: the parameter list; an empty one changes nothing.
    :param blocks: the capacity, which block descriptors may name but not change.
    :raises ParameterListLengthError: the list ends within its header, block descriptor or a page.
    :raises InvalidFieldInParameterList: with a pointer, for a reserved bit, a page or subpage that does not exist, a wrong page
        length, or a value that cannot be set.
    """
    if not data:
        return {}
    offset = _check_header(data, ten=ten, blocks=blocks, block_size=block_size)
    changed: dict[Key, bytes] = {}
    while offset < len(data):
        page = _find_page(data, offset, values)
        end = offset + page.layout.length
        if end > len(data):
            raise ParameterListLengthError
        new = bytes(data[offset:end])
        _check_page(page, new, changed.get(page.key, values.current[page.key]), values.mask[page.key], offset)
        changed[page.key] = new
        offset = end
    return changed


def _check_header(data: bytes, *, ten: bool, blocks: int, block_size: int) -> int:
    """Check header and block descriptor; returns the offset of the first page."""
    header = 8 if ten else 4
    if len(data) < header:
        raise ParameterListLengthError
    # MODE DATA LENGTH and MEDIUM TYPE (none is defined for a disk) are reserved here
    reserved = (0xFF, 0xFF, 0xFF, 0x6F, 0xFE, 0xFF) if ten else (0xFF, 0xFF, 0x6F)
    for index, mask in enumerate(reserved):
        wrong = data[index] & mask
        if wrong:
            raise InvalidFieldInParameterList.at(index, 7 if mask == 0xFF else wrong.bit_length() - 1)
    long = ten and bool(data[4] & 1)
    length = int.from_bytes(data[6:8]) if ten else data[3]
    if not length:
        return header
    if length != (LONG_DESCRIPTOR_LENGTH if long else SHORT_DESCRIPTOR_LENGTH):
        raise InvalidFieldInParameterList.at(6 if ten else 3, 7)
    end = header + length
    if len(data) < end:
        raise ParameterListLengthError
    _check_descriptor(data[header:end], header, long=long, blocks=blocks, block_size=block_size)
    return end


def _check_descriptor(descriptor: bytes, offset: int, *, long: bool, blocks: int, block_size: int) -> None:
    """Capacity and block size may be repeated, not changed (zero and all ones: as it is; SBC-4 6.5.2)."""
    width, maximum = (8, _MAXIMUM_LONG) if long else (4, _MAXIMUM_SHORT)
    count = int.from_bytes(descriptor[:width])
    if count not in {0, maximum, min(blocks, maximum)}:
        raise InvalidFieldInParameterList.at(offset, 7)
    if int.from_bytes(descriptor[width:]) != block_size:
        field = 12 if long else 5
        reserved = next((index for index in range(width, field) if descriptor[index]), field)
        raise InvalidFieldInParameterList.at(offset + reserved, 7)


def _find_page(data: bytes, offset: int, values: ModePageValues | ModePageView) -> ModePage:
    """The page whose header stands at ``offset``."""
    first = data[offset]
    if first & 0x80:
        raise InvalidFieldInParameterList.at(offset, 7)
    subpages = bool(first & 0x40)
    header = 4 if subpages else 2
    if offset + header > len(data):
        raise ParameterListLengthError
    code = first & 0x3F
    key = (code, data[offset + 1] if subpages else 0)
    page = values.pages.get(key)
    if page is None or subpages is not bool(key[1]):
        if subpages and any(known == code for known, _ in values.pages):
            raise InvalidFieldInParameterList.at(offset + 1, 7)
        raise InvalidFieldInParameterList.at(offset, 5)
    if data[offset : offset + header] != page.header:
        raise InvalidFieldInParameterList.at(offset + header // 2, 7)
    return page


def _check_page(page: ModePage, new: bytes, current: bytes, mask: bytes, offset: int) -> None:
    """Only what may be changed is changed, and only to what is allowed."""
    wrong = (int.from_bytes(new) ^ int.from_bytes(current)) & ~int.from_bytes(mask[len(page.header) :])
    if wrong:
        highest = wrong.bit_length() - 1
        field = page.field_at(highest)
        byte, bit = divmod(8 * len(new) - 1 - highest, 8)
        where = (byte, 7 - bit) if field is None else (field.byte, field.bit)
        raise InvalidFieldInParameterList.at(offset + where[0], where[1])
    fields = page.layout.unpack(new)
    for name, allowed in page.allowed.items():
        if fields[name] not in allowed:
            raise InvalidFieldInParameterList.at(offset + page.layout[name].byte, page.layout[name].bit)
