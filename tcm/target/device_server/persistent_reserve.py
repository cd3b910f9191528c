"""PERSISTENT RESERVE IN and PERSISTENT RESERVE OUT (SPC-5 6.15, 6.16)."""

from __future__ import annotations

import errno
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import anyio

from tcm.scsi.check_condition import (
    InsufficientRegistrationResources,
    InternalTargetFailure,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    ParameterListLengthError,
    ReservationConflict,
)
from tcm.scsi.persistent_reservations import (
    MAXIMUM_PARAMETER_LIST_LENGTH,
    MAXIMUM_SHOWN,
    PARAMETER_LIST_LENGTH,
    FullStatus,
    OutAction,
    OutParameters,
    ReservationType,
    capabilities_data,
    full_status_length,
    parse_out,
    read_full_status_data,
    read_keys_data,
    read_reservation_data,
)
from tcm.target.device_server.data_in import give
from tcm.target.device_server.handler import Handler
from tcm.target.persistent_reservations import NexusName, Request, change
from tcm.target.registrants import registrants
from tcm.target.unit_attention import COMMANDS_CLEARED_BY_ANOTHER_INITIATOR
from tcm.target.unsubmitted import take_over

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus
    from tcm.target.task import Task

_IGNORE_TYPE = {
    OutAction.REGISTER,
    OutAction.REGISTER_AND_IGNORE_EXISTING_KEY,
    OutAction.REGISTER_AND_MOVE,
    OutAction.CLEAR,
}
_MAKE_APTPL = {
    # service action: the byte of its parameter list that has APTPL
    OutAction.REGISTER: 20,
    OutAction.REGISTER_AND_IGNORE_EXISTING_KEY: 20,
    OutAction.REGISTER_AND_MOVE: 17,
    OutAction.REPLACE_LOST_RESERVATION: 20,
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_TYPES = {kind.value: kind for kind in ReservationType}


def _prepare_in(task: Task) -> int:
    """While RESERVE holds the unit, these commands conflict whoever sends them (SPC-2 5.5.1)."""
    lu = task.logical_unit
    assert lu is not None
    if lu.spc2_reservation.holder is not None:
        raise ReservationConflict
    return 0


def _answer(build: Callable[[LogicalUnit], bytes]) -> Handler:
    def execute(task: Task) -> None:
        lu = task.logical_unit
        assert lu is not None
        give(task, build(lu), task.cdb[7] << 8 | task.cdb[8])

    return Handler(_prepare_in, execute)


def _keys(lu: LogicalUnit) -> bytes:
    state = lu.persistent_reservations.state
    return read_keys_data(state.generation, (each.key for each in state.registrations.values()))


def _reservation(lu: LogicalUnit) -> bytes:
    state = lu.persistent_reservations.state
    return read_reservation_data(state.generation, state.reservation)


def _capabilities(lu: LogicalUnit) -> bytes:
    reservations = lu.persistent_reservations
    return capabilities_data(persistent=reservations.store is not None, active=reservations.state.aptpl)


def _full_status(lu: LogicalUnit) -> bytes:
    state = lu.persistent_reservations.state
    ports = {(port.target.name, port.tag): port.relative_target_port_identifier for port in lu.ports}
    descriptors = [
        FullStatus(
            key=each.key,
            kind=state.kind if state.holds(name) else None,
            relative_port=ports.get((name.target, name.tag), each.relative_port),
            transport_id=each.transport_id,
        )
        for name, each in islice(state.registrations.items(), MAXIMUM_SHOWN)
    ]
    length = sum(full_status_length(each.transport_id) for each in state.registrations.values())
    return read_full_status_data(state.generation, length, descriptors)


def _prepare_out(task: Task) -> int:
    """What the CDB can be refused for: SCOPE, TYPE, and a list that is too short or too long."""
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    action = OutAction(cdb[1] & 0x1F)
    if lu.spc2_reservation.holder is not None:
        raise ReservationConflict
    lu.persistent_reservations.check_replacement(action, task.nexus)
    kind: ReservationType | None = None
    if action not in _IGNORE_TYPE:
        if cdb[2] >> 4:
            raise InvalidFieldInCdb.at(2, 7)
        kind = _TYPES.get(cdb[2] & 0x0F)
        if kind is None:
            raise InvalidFieldInCdb.at(2, 3)
    length = int.from_bytes(cdb[5:9])
    if not PARAMETER_LIST_LENGTH <= length <= MAXIMUM_PARAMETER_LIST_LENGTH or task.write_length < length:
        raise ParameterListLengthError
    task.parameters = action, kind
    return length


def _out(task: Task) -> Coroutine[Any, Any, None] | None:
    itl = task.itl
    assert itl is not None
    lu = itl.logical_unit
    reservations = lu.persistent_reservations
    action, kind = task.parameters
    parameters = parse_out(action, bytes(task.data_out[: task.data_out_wanted]))
    if parameters.aptpl and action in _MAKE_APTPL and reservations.store is None:
        raise InvalidFieldInParameterList.at(_MAKE_APTPL[action], 0)
    if reservations.keeps_all:
        parameters = replace(parameters, aptpl=True)
    kept = reservations.store is not None and (reservations.state.aptpl or parameters.aptpl or reservations.lost)
    if kept or reservations.changing.locked():
        return _out_later(itl, task, action, kind, parameters)
    done = change(reservations.state, _request(itl, action, kind, parameters))
    reservations.take_effect(done.state, done.attentions)
    if action is OutAction.PREEMPT_AND_ABORT:
        return _abort(task, itl, done.preempted)
    return None


async def _out_later(
    itl: ITLNexus, task: Task, action: OutAction, kind: ReservationType | None, parameters: OutParameters
) -> None:
    """One change at a time; it takes effect when it is kept, on top of what other nodes have changed meanwhile."""
    lu = itl.logical_unit
    reservations = lu.persistent_reservations
    async with reservations.changing:
        while True:
            reservations.check_replacement(action, task.nexus)
            if lu.spc2_reservation.holder is not None:
                raise ReservationConflict
            done = change(reservations.state, _request(itl, action, kind, parameters))
            try:
                if done.state is reservations.state or await reservations.keep(done.state):
                    break
            except OSError as error:
                full = error.errno in _NO_ROOM and action in _MAKE_APTPL
                raise (InsufficientRegistrationResources if full else InternalTargetFailure) from error
        reservations.take_effect(done.state, done.attentions)
    if action is OutAction.PREEMPT_AND_ABORT:
        await _abort(task, itl, done.preempted)


def _request(itl: ITLNexus, action: OutAction, kind: ReservationType | None, parameters: OutParameters) -> Request:
    return Request(
        action=action,
        kind=kind,
        parameters=parameters,
        sender=itl.logical_unit.persistent_reservations.name_of(itl.nexus),
        others=lambda: registrants(itl, action, parameters),
    )


async def _abort(task: Task, itl: ITLNexus, preempted: tuple[NexusName, ...]) -> None:
    """The preempted I_T nexuses' tasks, apart from this one, and what they prevented (SPC-4 5.13.11.2.6).

    Returns when the last of the tasks has ended.
    """
    from tcm.target.router import abort  # the router imports the handlers

    lu = itl.logical_unit
    reservations = lu.persistent_reservations
    names = set(preempted)
    lu.prevented -= {each for each in lu.prevented if reservations.name_of(each.nexus) in names}
    unsubmitted = take_over(other for other in lu.itl_nexuses if reservations.name_of(other.nexus) in names)
    doomed = [other for other in lu.task_set if other is not task and reservations.name_of(other.nexus) in names]
    doomed += unsubmitted
    tells = lu.mode_parameters.task_aborted_status
    if not tells:
        for other in {each.itl for each in doomed if each.itl is not None and each.nexus is not itl.nexus}:
            other.establish_attention(COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)
    ended = anyio.Event()
    abort(doomed, respond=lambda each: tells and each.nexus is not itl.nexus, then=ended.set)
    await ended.wait()
    await lu.copies.abort(lambda nexus: reservations.name_of(nexus) in names)


HANDLERS = {
    "prin_read_keys": _answer(_keys),
    "prin_read_reservation": _answer(_reservation),
    "prin_report_capabilities": _answer(_capabilities),
    "prin_read_full_status": _answer(_full_status),
    "persistent_reserve_out": Handler(_prepare_out, _out),
}
