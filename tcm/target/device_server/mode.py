"""MODE SENSE and MODE SELECT (SPC-5 6.12 to 6.15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import InvalidFieldInCdb, ParameterListLengthError, SavingParametersNotSupported
from tcm.scsi.mode_data import block_descriptor, mode_sense_data, parse_mode_select
from tcm.scsi.mode_pages import (
    ALL_PAGES,
    ALL_SUBPAGES,
    CACHING,
    CONTROL,
    INFORMATIONAL_EXCEPTIONS,
    Key,
    ModePageView,
    PageControl,
)
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler
from tcm.target.unit_attention import MODE_PARAMETERS_CHANGED

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task

MODE_SENSE_10 = 0x5A
MODE_SELECT_10 = 0x55

_WHILE_SANITIZING = frozenset({CACHING, CONTROL, INFORMATIONAL_EXCEPTIONS})
"""The pages that can be asked for meanwhile (SBC-4 4.11.2), those of them that we have."""

_LLBAA, _DBD = 0x10, 0x08
_PF, _SP = 0x10, 0x01


def _mode_sense(task: Task) -> None:
    itl = task.itl
    assert itl is not None
    lu = itl.logical_unit
    cdb = task.cdb
    ten = cdb[0] == MODE_SENSE_10
    values = _values(itl)
    control = PageControl(cdb[2] >> 6)
    keys = _selected(values, cdb[2] & 0x3F, cdb[3])
    if lu.eraser.sanitizing and not _WHILE_SANITIZING.issuperset(keys):
        lu.eraser.check(None)
    own = lu.mode_parameters.values
    if control is PageControl.SAVED and not (own.savable and any(values.sets[key] is own for key in keys)):
        raise SavingParametersNotSupported
    descriptor = b""
    if not cdb[1] & _DBD:
        blocks = lu.blocks if lu.medium_loaded else 0
        descriptor = block_descriptor(blocks, lu.block_size, long=bool(cdb[1] & _LLBAA))
    data = mode_sense_data(
        [values.page(key, control) for key in keys],
        ten=ten,
        write_protected=itl.write_protect or lu.write_protected,
        dpofua=lu.fua,
        descriptor=descriptor,
    )
    give(task, data, cdb[7] << 8 | cdb[8] if ten else cdb[4])


def _values(itl: ITLNexus) -> ModePageView:
    """The logical unit's pages, and those of the target port's protocol."""
    own, protocol = itl.logical_unit.mode_parameters.values, itl.exported.mode_pages
    return ModePageView(own) if protocol is None else ModePageView(own, protocol)


def _selected(values: ModePageView, code: int, subpage: int) -> list[Key]:
    """The pages that PAGE CODE and SUBPAGE CODE ask for, ascending (SPC-5 table 184)."""
    if code == ALL_PAGES:
        if subpage not in {0, ALL_SUBPAGES}:
            raise InvalidFieldInCdb.at(3)
        return [key for key in values.pages if subpage or not key[1]]
    found = [key for key in values.pages if key[0] == code]
    if not found:
        raise InvalidFieldInCdb.at(2, 5)
    if subpage == ALL_SUBPAGES:
        return found
    if (code, subpage) not in values.pages:
        raise InvalidFieldInCdb.at(3)
    return [(code, subpage)]


def _prepare_mode_select(task: Task) -> int:
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    length = cdb[7] << 8 | cdb[8] if cdb[0] == MODE_SELECT_10 else cdb[4]
    if length and not cdb[1] & _PF:
        raise InvalidFieldInCdb.at(1, 4)
    if cdb[1] & _SP and not lu.mode_parameters.values.savable:
        raise InvalidFieldInCdb.at(1, 0)
    task.parameters = length
    return length


def _mode_select(task: Task) -> Coroutine[Any, Any, None] | None:
    itl = task.itl
    assert itl is not None
    lu = itl.logical_unit
    cdb = task.cdb
    data = bytes(task.data_out[: task.data_out_wanted])
    if len(data) < task.parameters:
        raise ParameterListLengthError
    values = _values(itl)
    ten = cdb[0] == MODE_SELECT_10
    pages = parse_mode_select(data, values, ten=ten, blocks=lu.blocks, block_size=lu.block_size)
    save = bool(cdb[1] & _SP)
    flush = _empties_cache(lu, pages)
    if save or flush:
        return _change_later(itl, pages, flush=flush, save=save)
    _change(itl, pages)
    return None


def _empties_cache(lu: LogicalUnit, pages: dict[Key, bytes]) -> bool:
    """Whether what is in the write cache has to reach the medium first: WCE or SWP is about to say so (SBC-4 6.5.5, 4.12)."""
    now, definitions = lu.mode_parameters, lu.mode_parameters.values.pages
    caching = pages.get(CACHING)
    control = pages.get(CONTROL)
    stops = caching is not None and now.write_cache and not definitions[CACHING].layout.unpack(caching)["wce"]
    protects = control is not None and not now.software_write_protect and definitions[CONTROL].layout.unpack(control)["swp"]
    return bool(stops or protects) and not (lu.failed or lu.read_only)  # stopped: NO_FLUSH may have left something


def _change(itl: ITLNexus, pages: dict[Key, bytes]) -> None:
    lu, exported = itl.logical_unit, itl.exported
    own = lu.mode_parameters.values.pages
    if lu.mode_parameters.change({key: page for key, page in pages.items() if key in own}):
        lu.establish_attention(MODE_PARAMETERS_CHANGED, except_for=itl)
    if exported.change_mode_pages({key: page for key, page in pages.items() if key not in own}):
        for other in tuple(lu.itl_nexuses):
            if other.exported is exported and other is not itl:
                other.establish_attention(MODE_PARAMETERS_CHANGED)


async def _change_later(itl: ITLNexus, pages: dict[Key, bytes], *, flush: bool, save: bool) -> None:
    lu = itl.logical_unit
    if flush:
        async with lu.emptied_cache():
            _change(itl, pages)
    else:
        _change(itl, pages)
    if save:
        await lu.mode_parameters.save()


HANDLERS = {
    "mode_sense": Handler(no_data_out, _mode_sense),
    "mode_select": Handler(_prepare_mode_select, _mode_select),
}
