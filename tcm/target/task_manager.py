"""The task manager: carries task management functions out (SAM-5 clause 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.target import copy_manager
from tcm.target.router import abort
from tcm.target.task_management import TaskManagementFunction, TaskManagementRequest, TaskManagementResponse
from tcm.target.unit_attention import (
    BUS_DEVICE_RESET_FUNCTION_OCCURRED,
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR,
    I_T_NEXUS_LOSS_OCCURRED,
    POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED,
    UnitAttention,
)
from tcm.target.unsubmitted import take_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus, ITNexus
    from tcm.target.task import Task

_Function = TaskManagementFunction
_Response = TaskManagementResponse


def manage(nexus: ITNexus, request: TaskManagementRequest) -> None:
    """Carry a request out; the fabric is told once every aborted task has ended."""
    of_target = _OF_TARGET.get(request.function)
    if of_target is not None:
        of_target(nexus, request)
        return
    itl = nexus.find_lun(request.lun)
    if itl is None:
        _respond(nexus, request, _Response.LUN_DOES_NOT_EXIST)
    else:
        _OF_LOGICAL_UNIT[request.function](itl, request)


def _respond(nexus: ITNexus, request: TaskManagementRequest, response: TaskManagementResponse) -> None:
    request.response = response
    if not nexus.lost:
        nexus.services.task_management_executed(request)


def _complete(nexus: ITNexus, request: TaskManagementRequest) -> Callable[[], None]:
    return lambda: _respond(nexus, request, _Response.FUNCTION_COMPLETE)


def _query(nexus: ITNexus, request: TaskManagementRequest, *, found: bool) -> None:
    _respond(nexus, request, _Response.FUNCTION_SUCCEEDED if found else _Response.FUNCTION_COMPLETE)


def _without_status(_: Task) -> bool:
    return False


def _with_tas(nexus: ITNexus, units: list[LogicalUnit]) -> Callable[[Task], bool]:
    """Who gets TASK ABORTED status: the tasks of other I_T nexuses, where TAS is one now (SAM-5 5.6.4)."""
    telling = {lu for lu in units if lu.mode_parameters.task_aborted_status}
    return lambda task: task.nexus is not nexus and task.logical_unit in telling


def _task(itl: ITLNexus, tag: int) -> Task | None:
    task = itl.nexus.tasks.get(tag)
    return task if task is not None and task.itl is itl else None


# Functions of one logical unit


def _abort_task(itl: ITLNexus, request: TaskManagementRequest) -> None:
    task = _task(itl, request.tag)
    if task is None:
        itl.logical_unit.aborts_without_task += 1
        _respond(itl.nexus, request, _Response.TASK_DOES_NOT_EXIST)
    else:
        itl.logical_unit.aborts_complete += 1
        abort((task,), respond=_without_status, then=_complete(itl.nexus, request))


def _abort_task_set(itl: ITLNexus, request: TaskManagementRequest) -> None:
    tasks = (*itl.logical_unit.tasks_of(itl), *take_over((itl,)))
    abort(tasks, respond=_without_status, then=_complete(itl.nexus, request))


def _clear_task_set(itl: ITLNexus, request: TaskManagementRequest) -> None:
    lu = itl.logical_unit
    tasks = (*lu.task_set, *take_over(lu.itl_nexuses))
    if not lu.mode_parameters.task_aborted_status:
        for other in {task.itl for task in tasks if task.itl is not None and task.nexus is not itl.nexus}:
            other.establish_attention(COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)
    abort(tasks, respond=_with_tas(itl.nexus, [lu]), then=_complete(itl.nexus, request))


def _logical_unit_reset(itl: ITLNexus, request: TaskManagementRequest) -> None:
    _reset([itl.logical_unit], BUS_DEVICE_RESET_FUNCTION_OCCURRED, itl.nexus, request)


def _clear_aca(itl: ITLNexus, request: TaskManagementRequest) -> None:
    """NORMACA is zero: there is no ACA condition to clear (SAM-5 7.4)."""
    _respond(itl.nexus, request, _Response.NOT_SUPPORTED)


def _query_task(itl: ITLNexus, request: TaskManagementRequest) -> None:
    _query(itl.nexus, request, found=_task(itl, request.tag) is not None)


def _query_task_set(itl: ITLNexus, request: TaskManagementRequest) -> None:
    _query(itl.nexus, request, found=bool(itl.logical_unit.tasks_of(itl)))


def _query_asynchronous_event(itl: ITLNexus, request: TaskManagementRequest) -> None:
    """The additional response information says which condition is next (SAM-5 table 53): UADE DEPTH, sense key, ASC, ASCQ."""
    attention = itl.attentions.first()
    if attention is not None:
        depth = 0b01 if len(itl.attentions) == 1 else 0b10
        request.additional = bytes((depth << 4 | attention.sense().key, attention.asc, attention.ascq))
    _query(itl.nexus, request, found=attention is not None)


# Functions of the I_T nexus and of the whole target


def _i_t_nexus_reset(nexus: ITNexus, request: TaskManagementRequest) -> None:
    for itl in tuple(nexus.luns.values()):
        itl.logical_unit.nexus_loss(itl)
        itl.establish_attention(I_T_NEXUS_LOSS_OCCURRED)
    take_over(nexus.luns.values())
    abort(tuple(nexus.tasks.values()), respond=_without_status, then=_complete(nexus, request))


def _target_warm_reset(nexus: ITNexus, request: TaskManagementRequest) -> None:
    nexus.target_portal_group.target.resets += 1
    _reset(_logical_units(nexus), BUS_DEVICE_RESET_FUNCTION_OCCURRED, nexus, request)


def _target_cold_reset(nexus: ITNexus, request: TaskManagementRequest) -> None:
    """The fabric ends its sessions afterwards, if its standard wants that (RFC 7143 11.5.1)."""
    nexus.target_portal_group.target.resets += 1
    _reset(_logical_units(nexus), POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED, nexus, request)


def _logical_units(nexus: ITNexus) -> list[LogicalUnit]:
    """All logical units of the target device that the nexus can reach; others are not its to reset."""
    return list({itl.logical_unit: None for itl in nexus.luns.values()})


def _reset(units: list[LogicalUnit], attention: UnitAttention, nexus: ITNexus, request: TaskManagementRequest) -> None:
    """Reset and abort all tasks at once; answer when the last has ended. Who comes meanwhile meets the unit attention."""
    respond = _with_tas(nexus, units)
    copies = [operation for lu in units for operation in lu.reset(attention)]
    complete = _complete(nexus, request)
    tasks = [task for lu in units for task in (*lu.task_set, *take_over(lu.itl_nexuses))]
    abort(tasks, respond=respond, then=lambda: copy_manager.when_ended(copies, complete))


_OF_LOGICAL_UNIT: dict[TaskManagementFunction, Callable[[ITLNexus, TaskManagementRequest], None]] = {
    _Function.ABORT_TASK: _abort_task,
    _Function.ABORT_TASK_SET: _abort_task_set,
    _Function.CLEAR_ACA: _clear_aca,
    _Function.CLEAR_TASK_SET: _clear_task_set,
    _Function.LOGICAL_UNIT_RESET: _logical_unit_reset,
    _Function.QUERY_TASK: _query_task,
    _Function.QUERY_TASK_SET: _query_task_set,
    _Function.QUERY_ASYNCHRONOUS_EVENT: _query_asynchronous_event,
}
_OF_TARGET: dict[TaskManagementFunction, Callable[[ITNexus, TaskManagementRequest], None]] = {
    _Function.I_T_NEXUS_RESET: _i_t_nexus_reset,
    _Function.TARGET_WARM_RESET: _target_warm_reset,
    _Function.TARGET_COLD_RESET: _target_cold_reset,
}
