"""What block commands have in common: the fields of their CDBs, the checks of an LBA range (SBC-4 4.7, 5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidFieldInCommandInformationUnit, LbaOutOfRange
from tcm.scsi.command import VARIABLE_LENGTH

if TYPE_CHECKING:
    from tcm.backstore import Buffer
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

_LENGTH_FIELD = {0: 4, 1: 7, 2: 7, 3: 28, 5: 6, 4: 10}
"""Group code (CDB bytes 6, 10, 10, 32, 12, 16) to the first byte of the transfer length."""

FUA = 0x08
DPO = 0x10


def lba_and_blocks(cdb: bytes) -> tuple[int, int]:
    """LOGICAL BLOCK ADDRESS and TRANSFER LENGTH (or its like) of a CDB of any length, as they stand."""
    group = cdb[0] >> 5
    if group == 4:
        return int.from_bytes(cdb[2:10]), int.from_bytes(cdb[10:14])
    if group in {1, 2}:
        return int.from_bytes(cdb[2:6]), cdb[7] << 8 | cdb[8]
    if group == 5:
        return int.from_bytes(cdb[2:6]), int.from_bytes(cdb[6:10])
    if group == 3:
        return int.from_bytes(cdb[12:20]), int.from_bytes(cdb[28:32])
    return (cdb[1] & 0x1F) << 16 | cdb[2] << 8 | cdb[3], cdb[4] or 256


def length_field(cdb: bytes) -> int:
    """The byte where the transfer length starts, for a field pointer."""
    return _LENGTH_FIELD[cdb[0] >> 5]


def check_range(lu: LogicalUnit, lba: int, blocks: int) -> None:
    """Raises LOGICAL BLOCK ADDRESS OUT OF RANGE; INFORMATION is the first block beyond the medium (SBC-4 4.18.1).

    An LBA that is the capacity itself is out of range even if no blocks are asked for (SBC-4 5.8).
    """
    capacity = lu.blocks
    if lba + blocks > capacity or lba >= capacity:
        raise LbaOutOfRange(information=max(lba, capacity))


def check_length(cdb: bytes, blocks: int, maximum: int) -> None:
    """Raises INVALID FIELD IN CDB if more than ``maximum`` blocks are asked for (SBC-4 6.6.4)."""
    if blocks > maximum:
        raise InvalidFieldInCdb.at(length_field(cdb))


def flags_byte(cdb: Buffer) -> int:
    """Where DPO, FUA, BYTCHK and the protect field of a CDB that is longer than 6 bytes are."""
    return 10 if cdb[0] == VARIABLE_LENGTH else 1


def check_fua(lu: LogicalUnit, cdb: bytes) -> bool:
    """FUA of a CDB that has it; FUA and DPO are refused by a unit that says DPOFUA zero."""
    byte = flags_byte(cdb)
    flags = cdb[byte]
    if flags & (FUA | DPO) and not lu.fua:
        raise InvalidFieldInCdb.at(byte, 4 if flags & DPO else 3)
    return bool(flags & FUA)


def check_data_out(task: Task, wanted: int) -> int:
    """``wanted``, if the initiator gives exactly that many bytes: for commands that other data would make another command.

    Raises INVALID FIELD IN COMMAND INFORMATION UNIT.
    """
    if task.write_length != wanted:
        _refuse(task, wanted)
    return wanted


def check_whole_blocks(task: Task, wanted: int, block_size: int) -> int:
    """``wanted``, unless the initiator gives less and the end of it lies inside a block (FCP-4 9.4.2 b).

    Raises INVALID FIELD IN COMMAND INFORMATION UNIT.
    """
    if task.write_length < wanted and task.write_length % block_size:
        _refuse(task, wanted)
    return wanted


def _refuse(task: Task, wanted: int) -> None:
    """The residual is what it would have been, though nothing is transferred."""
    task.overflow = wanted > task.write_length
    task.residual = abs(wanted - task.write_length)
    raise InvalidFieldInCommandInformationUnit


def check_dpo(lu: LogicalUnit, cdb: bytes) -> None:
    """Refuse DPO if the unit says DPOFUA zero."""
    byte = flags_byte(cdb)
    if cdb[byte] & DPO and not lu.fua:
        raise InvalidFieldInCdb.at(byte, 4)
