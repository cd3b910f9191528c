"""Protection information (SBC-4 4.21): eight bytes beside each logical block, what is in them and which checks they get.

One protection information interval a block: PROTECTION INTERVAL EXPONENT is zero.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from fastcrc.crc16 import t10_dif

from tcm.scsi.check_condition import (
    CheckCondition,
    LogicalBlockApplicationTagCheckFailed,
    LogicalBlockGuardCheckFailed,
    LogicalBlockReferenceTagCheckFailed,
)
from tcm.scsi.command_table import COMMANDS, lookup
from tcm.scsi.sense import Sense, SenseKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.scsi.command import Command

    Buffer = bytes | bytearray | memoryview

LENGTH = 8
"""Bytes of a block's protection information: guard, application tag, reference tag."""
UNCHECKED_APPLICATION = 0xFFFF
"""An application tag that keeps the block from being checked (types 1 and 2)."""
UNCHECKED_REFERENCE = 0xFFFFFFFF
"""The reference tag that type 3 wants beside it; also what stands for an unknown one."""
INITIAL = b"\xff" * LENGTH
"""What FORMAT UNIT writes, and what deallocated blocks have."""

_FIELDS = struct.Struct(">HHI")
_REFERENCES = 1 << 32
_PROTECT_BITS = 0xE0
PROTECT_SHIFT = 5


class ProtectionType(enum.IntEnum):
    """SBC-4 4.21.2."""

    NONE = 0
    TYPE_1 = 1
    TYPE_2 = 2
    TYPE_3 = 3


class Checks(NamedTuple):
    """Which fields are checked, or compared."""

    guard: bool
    application: bool
    reference: bool


NO_CHECKS = Checks(False, False, False)
CHECKS: dict[int, Checks] = {
    0b000: Checks(True, True, True),
    0b001: Checks(True, True, True),
    0b010: Checks(False, True, True),
    0b011: NO_CHECKS,
    0b100: Checks(True, False, False),
    0b101: Checks(True, True, True),
}
"""RDPROTECT, ORPROTECT, VRPROTECT with BYTCHK 00b, WRPROTECT (but for 000b, which sends none): tables 67, 68, 79, 125, 127, 133
of SBC-4. The codes that are not here are reserved."""
COMPARED: dict[int, Checks] = {
    0b000: NO_CHECKS,
    0b001: Checks(True, True, True),
    0b010: Checks(False, True, True),
    0b011: Checks(True, True, True),
    0b100: Checks(True, True, True),
    0b101: Checks(True, True, False),
}
"""VRPROTECT with BYTCHK 01b or 11b: what is compared with the medium (SBC-4 table 128)."""


class Tags(NamedTuple):
    """What a command knows of the tags that it will meet; ``None``: nothing."""

    reference: int | None
    """Of the first block; it counts on from there."""
    application: int | None = None
    mask: int = 0
    """Bits of the application tag that count."""


def generate(kind: ProtectionType, guards: Iterable[int], lba: int, count: int, application: int) -> bytes:
    """Protection information for blocks that came without (SBC-4 table 133, code 000b).

    :param guards: of each of the ``count`` blocks, or more; see :func:`guards_of`.
    :param application: the application tag of all of them.
    """
    references = consecutive(lba, count) if kind is ProtectionType.TYPE_1 else repeat(UNCHECKED_REFERENCE, count)
    return b"".join(map(_FIELDS.pack, guards, repeat(application), references))


def guards_of(data: Buffer, block_size: int) -> list[int]:
    """LOGICAL BLOCK GUARD of each block (SBC-4 4.21.4)."""
    view = memoryview(data)
    return [t10_dif(view[start : start + block_size]) for start in range(0, len(view), block_size)]


def consecutive(first: int, count: int) -> Iterable[int]:
    """Reference tags from that of ``first`` on: after FFFFFFFFh comes zero (SBC-4 table 25)."""
    first %= _REFERENCES
    if first + count <= _REFERENCES:
        return range(first, first + count)
    return [number % _REFERENCES for number in range(first, first + count)]


def replicate(kind: ProtectionType, protection: bytes, count: int, first: int = 0) -> bytes:
    """What WRITE SAME makes of the one block's protection information (SBC-4 5.52); so does VERIFY with BYTCHK 11b.

    :param first: blocks of the command before the ``count`` that this is for.
    """
    guard, application, reference = _FIELDS.unpack(protection)
    if protection == INITIAL or kind is ProtectionType.TYPE_3:
        return protection * count
    return b"".join(map(_FIELDS.pack, repeat(guard), repeat(application), consecutive(reference + first, count)))


def with_guards(protection: Buffer, guards: Iterable[int]) -> bytes:
    """The same tags with other guards; blocks that are not to be checked stay so."""
    found = _FIELDS.iter_unpack(protection)
    return b"".join(_FIELDS.pack(guard, *tags) for guard, (_, *tags) in zip(guards, found, strict=True))


def _unchecked(kind: ProtectionType, application: int, reference: int) -> bool:
    """The tags that say: check nothing (SBC-4 4.21.3)."""
    return application == UNCHECKED_APPLICATION and (kind is not ProtectionType.TYPE_3 or reference == UNCHECKED_REFERENCE)


def check(
    kind: ProtectionType, data: Buffer, protection: Buffer, block_size: int, lba: int, checks: Checks, tags: Tags
) -> None:
    """Raises ABORTED COMMAND with the first check that fails; INFORMATION is the block's LBA.

    :param data: whole blocks, the first of which is ``lba``.
    :param protection: eight bytes for each of them.
    """
    if checks == NO_CHECKS:
        return
    view = memoryview(data)
    for index, (guard, application, reference) in enumerate(_FIELDS.iter_unpack(protection)):
        if _unchecked(kind, application, reference):
            continue
        start = index * block_size
        if checks.guard and t10_dif(view[start : start + block_size]) != guard:
            raise LogicalBlockGuardCheckFailed(information=lba + index)
        if checks.application and tags.application is not None and (application ^ tags.application) & tags.mask:
            raise LogicalBlockApplicationTagCheckFailed(information=lba + index)
        if checks.reference and tags.reference is not None and reference != (tags.reference + index) % _REFERENCES:
            raise LogicalBlockReferenceTagCheckFailed(information=lba + index)


_ASCQS = (
    LogicalBlockGuardCheckFailed.ascq,
    LogicalBlockApplicationTagCheckFailed.ascq,
    LogicalBlockReferenceTagCheckFailed.ascq,
)
_OFFSETS = (0, 2, 4)


def compare(kind: ProtectionType, medium: Buffer, sent: Buffer, checks: Checks, *, first: int, step: int) -> None:
    """Raises MISCOMPARE with the first field that differs; INFORMATION is its offset in the Data-Out.

    :param first: offset of the first block's protection information in the Data-Out.
    :param step: from there to the next one's; 0 if one was sent for all.
    """
    if checks == NO_CHECKS or medium == sent:
        return
    pairs = zip(_FIELDS.iter_unpack(medium), _FIELDS.iter_unpack(sent), strict=True)
    for index, (here, there) in enumerate(pairs):
        if here == there or _unchecked(kind, here[1], here[2]):
            continue
        for field, checked in enumerate(checks):
            if checked and here[field] != there[field]:
                information = first + index * step + _OFFSETS[field]
                asc = LogicalBlockGuardCheckFailed.asc
                sense = Sense(key=SenseKey.MISCOMPARE, asc=asc, ascq=_ASCQS[field], information=information)
                raise CheckCondition(sense=sense)


def interleave(data: Buffer, protection: Buffer, block_size: int) -> bytes:
    """Logical blocks as they are transferred: each followed by its protection information (SBC-4 table 22)."""
    data, protection = memoryview(data), memoryview(protection)
    return b"".join(
        piece
        for index in range(len(protection) // LENGTH)
        for piece in (
            data[index * block_size : (index + 1) * block_size],
            protection[index * LENGTH : (index + 1) * LENGTH],
        )
    )


def separate(transferred: Buffer, block_size: int) -> tuple[bytes, bytes]:
    """The inverse of :func:`interleave`: data, protection information."""
    view, step = memoryview(transferred), block_size + LENGTH
    starts = range(0, len(view), step)
    data = b"".join(view[start : start + block_size] for start in starts)
    return data, b"".join(view[start + block_size : start + step] for start in starts)


WITH_PROTECT_FIELD = frozenset(
    {"read", "verify", "write", "write_and_verify", "write_atomic", "orwrite", "compare_and_write", "write_same"}
)
"""Handlers of the commands that have a RDPROTECT, VRPROTECT, WRPROTECT or ORPROTECT field, unless they are 6 bytes long."""

PROTECTED_COMMANDS: dict[str, Command] = {
    command.name: replace(command, usage=bytes((command.usage[0], command.usage[1] | _PROTECT_BITS)) + command.usage[2:])
    for command in COMMANDS
    if command.handler in WITH_PROTECT_FIELD and 6 < command.length < 32
}
"""Rows of the command table with the bits of that field, by name; those of 32 bytes have them anyway."""


def lookup_protected(cdb: bytes) -> Command:
    """:func:`tcm.scsi.command_table.lookup` for a unit with protection information."""
    command = lookup(cdb)
    return PROTECTED_COMMANDS.get(command.name, command)
