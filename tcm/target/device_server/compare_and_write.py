"""COMPARE AND WRITE (SBC-4 5.3): atomic to every other command, any number of blocks up to the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.target.device_server.blocks import check_fua, check_range
from tcm.target.device_server.compare import check_equal
from tcm.target.device_server.handler import Handler
from tcm.target.device_server.read_write import Access

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.task import Task

BLOCKS_BYTE = 13


def _prepare(task: Task) -> int:
    """The Data-Out is the compare instance and then the write instance, as long as each other."""
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    fua = check_fua(lu, cdb)
    lba, blocks = int.from_bytes(cdb[2:10]), cdb[BLOCKS_BYTE]
    check_range(lu, lba, blocks)
    if blocks > lu.limits.maximum_compare_and_write_length:
        raise InvalidFieldInCdb.at(BLOCKS_BYTE)
    wanted = 2 * blocks << lu.block_shift
    if task.write_length != wanted:
        # the field is one byte: 256 blocks arrive as none, with the data of 256 (libiscsi's suite does that)
        raise InvalidFieldInCdb.at(BLOCKS_BYTE)
    task.parameters = Access(lba, blocks, fua)
    return wanted


def _compare_and_write(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    access: Access = task.parameters
    return _compare_then_write(task, lu, access) if access.blocks else None


async def _compare_then_write(task: Task, lu: LogicalUnit, access: Access) -> None:
    size = access.blocks << lu.block_shift
    data = memoryview(task.data_out)
    async with lu.extents.lock(task, access.lba, access.blocks, exclusive=True):
        current = bytearray(size)
        await lu.medium.read([memoryview(current)], access.lba)
        check_equal(current, data[:size])
        await lu.medium.write([data[size : 2 * size]], access.lba, fua=access.fua)


HANDLERS = {"compare_and_write": Handler(_prepare, _compare_and_write)}
