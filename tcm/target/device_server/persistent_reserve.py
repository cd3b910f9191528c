"""PERSISTENT RESERVE IN and PERSISTENT RESERVE OUT (SPC-5 6.15, 6.16)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.persistent_reservations import (
    MAXIMUM_PARAMETER_LIST_LENGTH,
    PARAMETER_LIST_LENGTH,
    FullStatus,
    InAction,
    OutAction,
    OutParameters,
    ReservationType,
    capabilities_data,
    parse_out,
    read_full_status_data,
    read_keys_data,
    read_reservation_data,
)
from tcm.scsi.sense import (
    InternalTargetFailure,
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    ParameterListLengthError,
    PersistentReservationInformationLost,
    ReservationConflict,
)
from tcm.target.device_server.data_in import give
from tcm.target.device_server.handler import Handler
from tcm.target.persistent_reservations import NexusName, Registration, Request, change
from tcm.target.unit_attention import COMMANDS_CLEARED_BY_ANOTHER_INITIATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from tcm.scsi.transport_id import TransportId
    from tcm.target.device import TargetPortalGroup
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
_TYPES = {kind.value: kind for kind in ReservationType}
_RELATIVE_PORT = 18


def _prepare_in(task: Task) -> int:
    """While RESERVE holds the unit, these commands conflict whoever sends them (SPC-2 5.5.1)."""
    lu = task.logical_unit
    assert lu is not None
    if lu.reservation_holder is not None:
        raise ReservationConflict
    if lu.persistent_reservations.lost and task.cdb[1] & 0x1F != InAction.REPORT_CAPABILITIES:
        raise PersistentReservationInformationLost
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
        for name, each in state.registrations.items()
    ]
    return read_full_status_data(state.generation, descriptors)


def _prepare_out(task: Task) -> int:
    """What the CDB can be refused for: SCOPE, TYPE, and a list that is too short or too long."""
    lu = task.logical_unit
    assert lu is not None
    cdb = task.cdb
    action = OutAction(cdb[1] & 0x1F)
    if lu.reservation_holder is not None:
        raise ReservationConflict
    lu.persistent_reservations.check_replacement(action)
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
            reservations.check_replacement(action)
            if lu.reservation_holder is not None:
                raise ReservationConflict
            done = change(reservations.state, _request(itl, action, kind, parameters))
            try:
                if await reservations.keep(done.state):
                    break
            except OSError as error:
                raise InternalTargetFailure from error
        reservations.take_effect(done.state, done.attentions)
    if action is OutAction.PREEMPT_AND_ABORT:
        await _abort(task, itl, done.preempted)


def _request(itl: ITLNexus, action: OutAction, kind: ReservationType | None, parameters: OutParameters) -> Request:
    lu, nexus = itl.logical_unit, itl.nexus
    reservations = lu.persistent_reservations
    sender = reservations.name_of(nexus)
    others: dict[NexusName, Registration] = {}
    port, here = nexus.initiator_port, nexus.target_portal_group
    if action is OutAction.REGISTER_AND_MOVE:
        if reservations.state.holder == sender:  # otherwise it conflicts, whatever else is wrong
            others = _move_target(lu, here, parameters)
    elif action in _MAKE_APTPL:
        ports = _ports(lu, here, port.name) if parameters.all_tg_pt else [here]
        for group in ports:
            name = NexusName(sender.initiator, sender.isid, group.target.name, group.tag)
            others[name] = _registration(lu, group, port.transport_id, parameters.new_key)
        for transport_id, offset in zip(parameters.transport_ids, parameters.offsets, strict=True):
            for isid in _isids(lu, transport_id, offset):
                named = _ports(lu, here, transport_id.name) if parameters.all_tg_pt else [here]
                _check_initiator(here, transport_id, offset, admitted=any(g.admits(_name(transport_id)) for g in named))
                for group in named:
                    name = NexusName(_name(transport_id), isid, group.target.name, group.tag)
                    whole = replace(transport_id, isid=isid or transport_id.isid)
                    others.setdefault(name, _registration(lu, group, whole.pack(), parameters.new_key))
    return Request(action=action, kind=kind, parameters=parameters, sender=sender, others=others)


def _registration(lu: LogicalUnit, group: TargetPortalGroup, transport_id: bytes, key: int) -> Registration:
    return Registration(
        key=key,
        fabric=group.target.fabric_name,
        transport_id=transport_id,
        relative_port=group.relative_target_port_identifier,
        lun=next((number for number, lun in group.luns.items() if lun.logical_unit is lu), 0),
    )


def _name(transport_id: TransportId) -> str:
    """The initiator port's name as its fabric writes it."""
    return transport_id.name if transport_id.protocol is ProtocolIdentifier.ISCSI else f"naa.{transport_id.name}"


def _ports(lu: LogicalUnit, here: TargetPortalGroup, initiator: str) -> list[TargetPortalGroup]:
    """ALL_TG_PT: this target port, and the others of its fabric that the initiator may use."""
    fabric = here.target.fabric_name
    others = [port for port in lu.ports if port.target.fabric_name == fabric and port.admits(initiator) and port is not here]
    return [here, *sorted(others, key=lambda port: port.relative_target_port_identifier)]


def _isids(lu: LogicalUnit, transport_id: TransportId, offset: int) -> list[bytes | None]:
    """An iSCSI name without ISID stands for all the initiator's ports that are known (SPC-5 7.6.4.6)."""
    if transport_id.protocol is not ProtocolIdentifier.ISCSI or not lu.persistent_reservations.enforce_isids:
        return [None]
    if transport_id.isid is not None:
        return [transport_id.isid]
    known = {
        itl.nexus.initiator_port.isid: None for itl in lu.itl_nexuses if itl.nexus.initiator_port.name == transport_id.name
    }
    if not known:
        raise InvalidFieldInParameterList.at(offset)
    return list(known)


def _check_initiator(group: TargetPortalGroup, transport_id: TransportId, offset: int, *, admitted: bool) -> None:
    """The protocol is the target port's, and the initiator is one that may log in there."""
    iscsi = transport_id.protocol is ProtocolIdentifier.ISCSI
    text = transport_id.name
    if not text.isprintable() or " " in text:
        raise InvalidFieldInParameterList.at(offset)
    if iscsi is not (group.target.fabric_name == "iscsi") or not admitted:
        raise InvalidFieldInParameterList.at(offset)


def _move_target(lu: LogicalUnit, here: TargetPortalGroup, parameters: OutParameters) -> dict[NexusName, Registration]:
    found = [port for port in lu.ports if port.relative_target_port_identifier == parameters.relative_port]
    if not found:
        raise InvalidFieldInParameterList.at(_RELATIVE_PORT)
    group = found[0]  # it may export the unit under several LUNs
    (transport_id,), (offset,) = parameters.transport_ids, parameters.offsets
    enforced = lu.persistent_reservations.enforce_isids
    if transport_id.protocol is ProtocolIdentifier.ISCSI and enforced and transport_id.isid is None:
        raise InvalidFieldInParameterList.at(offset)
    _check_initiator(group, transport_id, offset, admitted=group.admits(_name(transport_id)))
    if group.target.fabric_name != here.target.fabric_name:
        raise InvalidFieldInParameterList.at(_RELATIVE_PORT)
    isid = transport_id.isid if enforced else None
    name = NexusName(_name(transport_id), isid, group.target.name, group.tag)
    return {name: _registration(lu, group, transport_id.pack(), parameters.new_key)}


async def _abort(task: Task, itl: ITLNexus, preempted: tuple[NexusName, ...]) -> None:
    """The preempted I_T nexuses' tasks, apart from this one; returns when the last of them has ended (SPC-5 5.14.11.2.6)."""
    from tcm.target.router import abort  # the router imports the handlers

    lu = itl.logical_unit
    reservations = lu.persistent_reservations
    names = set(preempted)
    doomed = [other for other in tuple(lu.task_set) if other is not task and reservations.name_of(other.nexus) in names]
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
