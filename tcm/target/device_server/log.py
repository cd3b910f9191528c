"""LOG SENSE and LOG SELECT (SPC-5 6.11, 6.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.scsi.check_condition import InvalidFieldInCdb, ParameterListLengthError
from tcm.scsi.log_pages import (
    ALL_SUBPAGES,
    APPLICATION_CLIENT,
    GENERAL_USAGE_LENGTH,
    SUPPORTED_PAGES,
    Key,
    PageControl,
    page,
    supported_pages,
    supported_subpages,
)
from tcm.scsi.log_select import parse_log_select
from tcm.target.device_server.data_in import give, no_data_out
from tcm.target.device_server.handler import Handler
from tcm.target.log_page_table import listed_pages, pages_of
from tcm.target.unit_attention import LOG_PARAMETERS_CHANGED

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task

_PCR, _SP = 0x02, 0x01


def _log_sense(task: Task) -> Coroutine[Any, Any, None] | None:
    lu = task.logical_unit
    assert lu is not None
    key = (task.cdb[2] & 0x3F, task.cdb[3])
    definition = pages_of(lu).get(key)
    if definition is not None and definition.provisioning:
        return _log_sense_provisioning(task, lu)
    return _give_page(task, lu)


async def _log_sense_provisioning(task: Task, lu: LogicalUnit) -> None:
    await lu.provisioning.refresh()
    saving = _give_page(task, lu)
    if saving is not None:
        await saving


def _give_page(task: Task, lu: LogicalUnit) -> Coroutine[Any, Any, None] | None:
    cdb = task.cdb
    data = _page(lu, (cdb[2] & 0x3F, cdb[3]), PageControl(cdb[2] >> 6), cdb[5] << 8 | cdb[6])
    _check_save(lu, cdb)
    give(task, data, cdb[7] << 8 | cdb[8])
    return lu.log_parameters.save({}) if cdb[1] & _SP else None


def _page(lu: LogicalUnit, key: Key, control: PageControl, pointer: int) -> bytes:
    """A page from the parameter that ``pointer`` names on. Raises INVALID FIELD IN CDB."""
    pages = pages_of(lu)
    definition = pages.get(key)
    if definition is not None:
        parameters = definition.parameters(lu)
        if pointer > parameters[-1].code:
            raise InvalidFieldInCdb.at(5)
        body = b"".join(parameter.pack(control) for parameter in parameters if parameter.code >= pointer)
        return page(key, body, saves=definition.savable and lu.log_parameters.savable)
    keys = listed_pages(pages)
    if key not in keys:
        raise InvalidFieldInCdb.at(3) if any(key[0] == code for code, _ in keys) else InvalidFieldInCdb.at(2, 5)
    if pointer:
        raise InvalidFieldInCdb.at(5)
    return supported_pages(keys) if key == SUPPORTED_PAGES else supported_subpages(keys, key[0])


def _check_save(lu: LogicalUnit, cdb: bytes) -> None:
    if cdb[1] & _SP and not lu.log_parameters.savable:
        raise InvalidFieldInCdb.at(1, 0)


def _prepare_log_select(task: Task) -> int:
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    length = cdb[7] << 8 | cdb[8]
    _check_save(lu, cdb)
    if length:
        if cdb[1] & _PCR:
            raise InvalidFieldInCdb.at(1, 1)
        if cdb[2] & 0x3F:
            raise InvalidFieldInCdb.at(2, 5)
        if cdb[3]:
            raise InvalidFieldInCdb.at(3)
    task.parameters = length
    return length


def _log_select(task: Task) -> Coroutine[Any, Any, None] | None:
    itl = task.itl
    assert itl is not None
    cdb = task.cdb
    if not task.parameters:
        return _reset(itl, cdb)
    data = bytes(task.data_out[: task.data_out_wanted])
    if len(data) < task.parameters:
        raise ParameterListLengthError
    lu = itl.logical_unit
    settable = {
        key: {parameter.code: parameter for parameter in definition.parameters(lu)} for key, definition in pages_of(lu).items()
    }
    values: dict[int, bytes] = {}
    save = False
    for wanted in parse_log_select(data, settable):
        values |= wanted.values
        save = save or wanted.saves
    return _apply(itl, values, [], save=bool(cdb[1] & _SP) and save)


def _reset(itl: ITLNexus, cdb: bytes) -> Coroutine[Any, Any, None] | None:
    """No parameter list: the CDB says of which pages the parameters go back to their defaults, and whether that is saved."""
    lu = itl.logical_unit
    pages = pages_of(lu)
    keys = _selected(pages, (cdb[2] & 0x3F, cdb[3]))
    save, every = bool(cdb[1] & _SP), bool(cdb[1] & _PCR)
    if save and not any(pages[key].savable for key in keys):
        raise InvalidFieldInCdb.at(1, 0)
    counters = [key for key in keys if pages[key].counts] if every or cdb[2] >> 6 == PageControl.DEFAULT_CUMULATIVE else []
    values: dict[int, bytes] = {}
    if every and APPLICATION_CLIENT in keys:
        values = dict.fromkeys(lu.log_parameters.application, bytes(GENERAL_USAGE_LENGTH))
    return _apply(itl, values, counters, save=save)


def _selected(pages: Iterable[Key], key: Key) -> list[Key]:
    """The pages that PAGE CODE and SUBPAGE CODE of LOG SELECT name. Raises INVALID FIELD IN CDB if there are none."""
    code, subpage = key
    if key == SUPPORTED_PAGES:
        return list(pages)
    found = [known for known in pages if known[0] == code]
    if not found:
        raise InvalidFieldInCdb.at(2, 5)
    if subpage != ALL_SUBPAGES:
        found = [known for known in found if known == key]
    if not found:
        raise InvalidFieldInCdb.at(3)
    return found


def _apply(itl: ITLNexus, values: Mapping[int, bytes], counters: list[Key], *, save: bool) -> Coroutine[Any, Any, None] | None:
    """Set general usage parameters and reset the counters of pages; if something is to be saved, nothing changes before."""
    if save:
        return _save_and_change(itl, values, counters)
    _change(itl, values, counters)
    return None


async def _save_and_change(itl: ITLNexus, values: Mapping[int, bytes], counters: list[Key]) -> None:
    await itl.logical_unit.log_parameters.save(values)
    _change(itl, values, counters)


def _change(itl: ITLNexus, values: Mapping[int, bytes], counters: list[Key]) -> None:
    lu = itl.logical_unit
    changed = lu.log_parameters.set(values)
    lu.log_parameters.reset_counters(counters)
    if changed or counters:
        lu.establish_attention(LOG_PARAMETERS_CHANGED, except_for=itl)


HANDLERS = {
    "log_sense": Handler(no_data_out, _log_sense),
    "log_select": Handler(_prepare_log_select, _log_select),
}
