"""WRITE USING TOKEN (SBC-4)."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import CheckCondition, CommandTerminated, InvalidFieldInParameterList
from tcm.scsi.rod_token_commands import (
    RANGE_DESCRIPTOR,
    WRITE_HEADER,
    parse_write_using_token,
)
from tcm.scsi.rod_token_sense import CopyTargetDeviceDataUnderrun, InvalidTokenOperation, NothingTransferred
from tcm.scsi.rod_tokens import RodType, check_header
from tcm.target.copier import CopyFailed, Place, zero
from tcm.target.device_server.handler import Handler
from tcm.target.device_server.receive_copy import WRITE_USING_TOKEN
from tcm.target.device_server.rod_copier import RodCopier, admit_range
from tcm.target.device_server.rod_tokens import check_token_ranges, originate, prepare_list

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.scsi.rod_token_commands import WriteUsingToken
    from tcm.target.copy_manager import CopyOperation
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus
    from tcm.target.rods import Rod
    from tcm.target.task import Task

log = logging.getLogger(__name__)

_OFFSET_INTO_ROD = 8


def _write_using_token(task: Task) -> Coroutine[Any, Any, None] | None:
    lu, itl = task.logical_unit, task.itl
    assert lu is not None
    assert itl is not None
    data = memoryview(task.data_out)[: task.data_out_wanted]
    if not data:
        return None
    asked = parse_write_using_token(data)
    check_token_ranges(itl, asked.ranges, WRITE_HEADER)
    rod = None
    if check_header(asked.token) != RodType.BLOCK_DEVICE_ZERO:
        rod = lu.rod_tokens.find(asked.token)
        _check_use(lu, rod, asked)
    return originate(task, WRITE_USING_TOKEN, partial(_write, itl, rod, asked), immed=asked.immed)


def _check_use(lu: LogicalUnit, rod: Rod, asked: WriteUsingToken) -> None:
    if asked.offset << lu.block_shift >= rod.length:
        raise InvalidFieldInParameterList.at(_OFFSET_INTO_ROD)
    if rod.logical_unit is not lu:
        return
    for index, each in enumerate(asked.ranges):
        # writing there would end the ROD while it is being read
        if each.blocks and rod.overlaps(each.lba, each.end):
            raise InvalidFieldInParameterList.at(WRITE_HEADER + index * RANGE_DESCRIPTOR)


async def _write(itl: ITLNexus, rod: Rod | None, asked: WriteUsingToken, operation: CopyOperation) -> None:
    lu = itl.logical_unit
    try:
        if rod is None:
            await _write_zeroes(itl, asked, operation)
        else:
            await _write_data(itl, rod, asked, operation)
    except (CopyFailed, CommandTerminated) as error:
        if isinstance(error, InvalidTokenOperation) and not operation.transferred:
            raise
        log.warning("%s: WRITE USING TOKEN ends early: %s", lu.name, error)
        raise _underrun(operation, lu) from error
    if operation.transferred < sum(each.blocks for each in asked.ranges) << lu.block_shift:
        raise _underrun(operation, lu)


async def _write_zeroes(itl: ITLNexus, asked: WriteUsingToken, operation: CopyOperation) -> None:
    lu = itl.logical_unit
    for each in asked.ranges:
        if each.blocks:
            place = Place(lu, itl.nexus, each.lba << lu.block_shift)
            await zero(operation, place, each.blocks << lu.block_shift, admit=partial(admit_range, itl, each))


async def _write_data(itl: ITLNexus, rod: Rod, asked: WriteUsingToken, operation: CopyOperation) -> None:
    lu = itl.logical_unit
    try:
        with lu.rod_tokens.using(rod):
            await RodCopier(operation, rod, itl).copy(asked.ranges, asked.offset << lu.block_shift)
    finally:
        if asked.delete:
            lu.rod_tokens.delete(rod)


def _underrun(operation: CopyOperation, lu: LogicalUnit) -> CheckCondition:
    """What ends a WRITE USING TOKEN that has written less than it was asked to (SBC-4, command completion)."""
    count = operation.transferred >> lu.block_shift
    return (CopyTargetDeviceDataUnderrun if count else NothingTransferred)(information=count)


HANDLERS = {"write_using_token": Handler(prepare_list(WRITE_HEADER), _write_using_token)}
