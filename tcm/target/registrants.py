"""Which I_T nexuses a PERSISTENT RESERVE OUT command registers (SPC-4 5.13.7, 5.13.8): with SPEC_I_PT and ALL_TG_PT many."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tcm.scsi.check_condition import InsufficientRegistrationResources, InvalidFieldInParameterList
from tcm.scsi.inquiry import ProtocolIdentifier
from tcm.scsi.persistent_reservations import OutAction
from tcm.target import persistent_reservations
from tcm.target.aptpl import protocol_of
from tcm.target.persistent_reservations import NexusName, Registration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.scsi.persistent_reservations import OutParameters
    from tcm.scsi.transport_id import TransportId
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus
    from tcm.target.portal_group import TargetPortalGroup

_RELATIVE_PORT = 18

Registrants = dict[NexusName, Registration]


def registrants(itl: ITLNexus, action: OutAction, parameters: OutParameters) -> Registrants:
    """The I_T nexuses, each with the registration that the command would give it. Raises ``CheckCondition``."""
    if action is OutAction.REGISTER_AND_MOVE:
        return _destination(itl, parameters)
    lu, nexus = itl.logical_unit, itl.nexus
    port, here = nexus.initiator_port, nexus.target_portal_group
    sender = lu.persistent_reservations.name_of(nexus)
    everywhere = parameters.all_tg_pt and action is not OutAction.REPLACE_LOST_RESERVATION
    found: Registrants = {}
    ports = _ports(lu, here) if everywhere else {here: _lun(lu, here)}
    for group, lun in ports.items():
        if group is not here and not group.admits(port.name):
            continue
        name = NexusName(sender.initiator, sender.isid, group.target.name, group.tag)
        found[name] = _registration(group, lun, port.transport_id, parameters.new_key)
    if parameters.spec_i_pt:
        _add_specified(itl, parameters, found)
    return found


def _add_specified(itl: ITLNexus, parameters: OutParameters, found: Registrants) -> None:
    """SPEC_I_PT: all of them, or none if one is registered already, may not come here, or there are too many."""
    lu, here = itl.logical_unit, itl.nexus.target_portal_group
    registered = lu.persistent_reservations.state.registrations
    known = _known_isids(lu)
    ports = _ports(lu, here) if parameters.all_tg_pt else {here: _lun(lu, here)}
    for transport_id, offset in zip(parameters.transport_ids, parameters.offsets, strict=True):
        initiator = _initiator(here, transport_id, offset)
        ways = [(group, lun) for group, lun in ports.items() if group is here or group.admits(initiator)]
        if not any(group.admits(initiator) for group, _ in ways):
            raise InvalidFieldInParameterList.at(offset)
        for isid in _isids(lu, transport_id, known.get(initiator, ()), offset):
            for group, lun in ways:
                name = NexusName(initiator, isid, group.target.name, group.tag)
                if name in registered:
                    raise InvalidFieldInParameterList.at(offset)
                whole = replace(transport_id, isid=isid or transport_id.isid)
                found.setdefault(name, _registration(group, lun, whole.pack(), parameters.new_key))
        if len(found) > persistent_reservations.MAXIMUM_REGISTRATIONS:
            raise InsufficientRegistrationResources


def _destination(itl: ITLNexus, parameters: OutParameters) -> Registrants:
    """REGISTER AND MOVE: through another target port too, of whatever fabric."""
    lu = itl.logical_unit
    group = next((port for port in lu.ports if port.relative_target_port_identifier == parameters.relative_port), None)
    if group is None:
        raise InvalidFieldInParameterList.at(_RELATIVE_PORT)
    (transport_id,), (offset,) = parameters.transport_ids, parameters.offsets
    initiator = _initiator(group, transport_id, offset)
    enforced = lu.persistent_reservations.enforce_isids
    nameless = transport_id.protocol is ProtocolIdentifier.ISCSI and enforced and transport_id.isid is None
    if nameless or not group.admits(initiator):
        raise InvalidFieldInParameterList.at(offset)
    name = NexusName(initiator, transport_id.isid if enforced else None, group.target.name, group.tag)
    return {name: _registration(group, _lun(lu, group), transport_id.pack(), parameters.new_key)}


def _registration(group: TargetPortalGroup, lun: int, transport_id: bytes, key: int) -> Registration:
    return Registration(
        key=key,
        fabric=group.target.fabric_name,
        transport_id=transport_id,
        relative_port=group.relative_target_port_identifier,
        lun=lun,
    )


def _lun(lu: LogicalUnit, group: TargetPortalGroup) -> int:
    """The number under which a target port exports the unit."""
    return next((number for number, lun in group.luns.items() if lun.logical_unit is lu), 0)


def _initiator(group: TargetPortalGroup, transport_id: TransportId, offset: int) -> str:
    """The initiator port's name as the fabric writes it. Raises ``InvalidFieldInParameterList`` for another protocol's."""
    text = transport_id.name
    if transport_id.protocol is not protocol_of(group.target.fabric_name) or not text.isprintable() or " " in text:
        raise InvalidFieldInParameterList.at(offset)
    return transport_id.port_name


def _ports(lu: LogicalUnit, here: TargetPortalGroup) -> dict[TargetPortalGroup, int]:
    """ALL_TG_PT: this target port, and the others of its fabric; and under which LUN they export the unit."""
    fabric = here.target.fabric_name
    others = {port for port in lu.ports if port.target.fabric_name == fabric} - {here}
    ports = [here, *sorted(others, key=lambda port: port.relative_target_port_identifier)]
    return {port: _lun(lu, port) for port in ports}


def _known_isids(lu: LogicalUnit) -> dict[str, dict[bytes | None, None]]:
    known: dict[str, dict[bytes | None, None]] = {}
    for itl in lu.itl_nexuses:
        port = itl.nexus.initiator_port
        known.setdefault(port.name, {})[port.isid] = None
    return known


def _isids(lu: LogicalUnit, transport_id: TransportId, known: Iterable[bytes | None], offset: int) -> list[bytes | None]:
    """An iSCSI name without ISID stands for all the initiator's ports that are known (SPC-4 7.6.4.6)."""
    if transport_id.protocol is not ProtocolIdentifier.ISCSI or not lu.persistent_reservations.enforce_isids:
        return [None]
    isids: list[bytes | None] = list(known) if transport_id.isid is None else [transport_id.isid]
    if not isids:
        raise InvalidFieldInParameterList.at(offset)
    return isids
