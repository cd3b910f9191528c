"""START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL (SBC-4 5.15, 5.28)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import InvalidFieldInCdb, MediumRemovalPrevented
from tcm.target.device_server.handler import Handler

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task

IMMED = 0x01
START, LOEJ, NO_FLUSH = 0x01, 0x02, 0x04
PREVENT = 0x01


def _prepare_start_stop_unit(task: Task) -> int:
    """START and LOEJ are ignored if there is a POWER CONDITION."""
    lu = task.logical_unit
    assert lu is not None
    flags = task.cdb[4]
    if flags >> 4:
        return 0
    if flags & LOEJ:
        if not lu.removable:
            raise InvalidFieldInCdb.at(4, 1)
        ejects = not flags & START
        if lu.prevented and ejects is lu.medium_loaded:
            raise MediumRemovalPrevented
    return 0


def _start_stop_unit(task: Task) -> Coroutine[Any, Any, None] | None:
    """No power condition but active and stopped exists here: the others are accepted and change nothing."""
    lu, itl = task.logical_unit, task.itl
    assert lu is not None
    assert itl is not None
    flags = task.cdb[4]
    if flags >> 4:
        return None
    flush = not flags & (START | NO_FLUSH) and lu.medium.has_cache and lu.ready and not lu.read_only
    if flush and not task.cdb[1] & IMMED:
        return _flush_and_switch(lu, itl, flags)
    if flush:
        lu.medium.flush_soon(lu.running.spawn_alone)
    _switch(lu, itl, flags)
    return None


async def _flush_and_switch(lu: LogicalUnit, itl: ITLNexus, flags: int) -> None:
    async with lu.emptied_cache():
        if flags & LOEJ and lu.prevented:
            raise MediumRemovalPrevented
        _switch(lu, itl, flags)


def _switch(lu: LogicalUnit, itl: ITLNexus, flags: int) -> None:
    """A unit with a removable medium has no stopped condition: it is ejected instead, as CD and floppy drives are."""
    start = bool(flags & START)
    if flags & LOEJ:
        lu.set_medium_loaded(start, by=itl)
    elif not lu.removable:
        lu.set_started(start)


def _prepare_prevent_allow(task: Task) -> int:
    """PREVENT 10b and 11b are obsolete (SBC-4 table 57)."""
    if task.cdb[4] > PREVENT:
        raise InvalidFieldInCdb.at(4, 1)
    return 0


def _prevent_allow(task: Task) -> None:
    lu, itl = task.logical_unit, task.itl
    assert lu is not None
    assert itl is not None
    if task.cdb[4] & PREVENT:
        lu.prevented.add(itl)
    else:
        lu.prevented.discard(itl)


HANDLERS = {
    "start_stop_unit": Handler(_prepare_start_stop_unit, _start_stop_unit),
    "prevent_allow_medium_removal": Handler(_prepare_prevent_allow, _prevent_allow),
}
