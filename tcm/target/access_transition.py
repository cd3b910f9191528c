"""Changes of asymmetric access states: all that one request asks for, or nothing (SPC-4 5.16.2.5).

checked -> transitioning (trans_delay_msecs) -> kept -> in force, unit attentions
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from tcm.scsi.asymmetric_access import AccessState, AccessStatus
from tcm.target.access_metadata import group_key, group_text, lun_key, lun_text
from tcm.target.unit_attention import (
    ASYMMETRIC_ACCESS_STATE_CHANGED,
    IMPLICIT_ASYMMETRIC_ACCESS_STATE_TRANSITION_FAILED,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.lun import Lun
    from tcm.target.nexus import ITLNexus
    from tcm.target.store import Store
    from tcm.target.target_port_group import TargetPortGroup

log = logging.getLogger(__name__)


class Request:
    """What is to change in one logical unit.

    :param groups: their new primary states.
    :param luns: whether they are to be offline.
    """

    def __init__(
        self,
        logical_unit: LogicalUnit,
        groups: Mapping[TargetPortGroup, AccessState] | None = None,
        luns: Mapping[Lun, bool] | None = None,
    ) -> None:
        self.logical_unit = logical_unit
        self.groups = dict(groups or {})
        self.luns = dict(luns or {})


async def set_access_state(group: TargetPortGroup, state: AccessState) -> None:
    """Change a group's primary state implicitly: for whoever manages the target device (LIO: writing ``alua_access_state``).

    *Transitioning* lasts until another state is set, and is not kept: initiators are to wait for somebody else.

    Raises ``ValueError`` if the group's attributes do not allow it, ``OSError`` if the state cannot be kept; every initiator
    has been told of the failure then, and nothing has changed.
    """
    attributes = group.attributes
    if not attributes.access_type.is_implicit:
        raise ValueError(f"target port group {group.name}: alua_access_type does not let the state change implicitly")
    if not attributes.supports(state):
        raise ValueError(f"target port group {group.name}: state {state.name} is not supported")
    if state is AccessState.LOGICAL_BLOCK_DEPENDENT and attributes.access_type.is_explicit:
        raise ValueError(f"target port group {group.name}: no logical block dependent state with explicit changes")
    await change(Request(group.logical_unit, groups={group: state}), AccessStatus.IMPLICIT)


async def set_access_status(group: TargetPortGroup, status: AccessStatus) -> None:
    """Say how a group came into its state (LIO: writing ``alua_access_status``). Raises ``OSError`` if that cannot be kept."""
    async with group.logical_unit.asymmetric_access.changing:
        await _keep({group: group.state}, {}, status)
        group.status = status


async def set_offline(lun: Lun, *, offline: bool) -> None:
    """Change a LUN's secondary state implicitly (LIO: writing ``alua_tg_pt_offline``). Raises as :func:`set_access_state`."""
    group = lun.target_port_group
    if offline and not group.attributes.supports(AccessState.OFFLINE):
        raise ValueError(f"target port group {group.name}: state OFFLINE is not supported")
    await change(Request(lun.logical_unit, luns={lun: offline}), AccessStatus.IMPLICIT)


async def change(request: Request, status: AccessStatus, by: ITLNexus | None = None) -> None:
    """Carry out a request that has been checked. Cancelled before the new states are kept, it changes nothing.

    :param by: who asked with SET TARGET PORT GROUPS, and needs no unit attention.

    Raises ``OSError`` if the new states cannot be kept: nothing has changed then.
    """
    unit = request.logical_unit
    async with unit.asymmetric_access.changing:
        groups = {group: state for group, state in _together(request).items() if group.state is not state}
        luns = {lun: offline for lun, offline in request.luns.items() if lun.offline is not offline}
        if not groups and not luns:
            return
        units = dict.fromkeys([*([unit] if luns else []), *(group.logical_unit for group in groups)])
        concerned = [*groups, *(lun.target_port_group for lun in luns)]
        try:
            with _transitioning(groups, status):
                if AccessState.TRANSITIONING not in groups.values():
                    await anyio.sleep(max(group.attributes.trans_delay_msecs for group in concerned) / 1000)
                with anyio.CancelScope(shield=True):
                    await _keep(groups, luns, status)
        except OSError as error:
            log.error("%s: asymmetric access states stay as they were: %s", unit.name, error)
            if status is AccessStatus.IMPLICIT:
                for each in units:
                    each.establish_attention(IMPLICIT_ASYMMETRIC_ACCESS_STATE_TRANSITION_FAILED)
            raise
        for group, state in groups.items():
            log.info("%s: target port group %s is %s", group.logical_unit.name, group.name, state.name)
            group.state, group.status = state, status
        for lun, offline in luns.items():
            log.info("%s: LUN %d is %s", unit.name, lun.number, "offline" if offline else "online")
            lun.offline, lun.offline_status = offline, status
        for each in units:
            each.update_express()
            each.establish_attention(ASYMMETRIC_ACCESS_STATE_CHANGED, except_for=by)


def _together(request: Request) -> dict[TargetPortGroup, AccessState]:
    """The groups of the request, and those with their identifiers in other units of the LU group (SPC-4 7.8.6.9)."""
    found = dict(request.groups)
    lu_group = request.logical_unit.asymmetric_access.logical_unit_group
    if lu_group is None or not lu_group.identifier:
        return found
    for group, state in request.groups.items():
        for unit in lu_group.members:
            peer = unit.asymmetric_access.by_identifier(group.identifier)
            if peer is not None and peer.attributes.supports(state):
                found[peer] = state
    return found


@contextmanager
def _transitioning(groups: dict[TargetPortGroup, AccessState], status: AccessStatus) -> Iterator[None]:
    """The groups are in the state *transitioning*, those that support it; afterwards as they were."""
    before = [(group, group.state, group.status) for group in groups if group.attributes.supports(AccessState.TRANSITIONING)]
    for group, _, _ in before:
        group.state, group.status = AccessState.TRANSITIONING, status
    _update(groups)
    try:
        yield
    finally:
        for group, state, old_status in before:
            group.state, group.status = state, old_status
        _update(groups)


def _update(groups: dict[TargetPortGroup, AccessState]) -> None:
    for unit in {group.logical_unit for group in groups}:
        unit.update_express()


async def _keep(groups: dict[TargetPortGroup, AccessState], luns: dict[Lun, bool], status: AccessStatus) -> None:
    """Make the new states durable, those that are kept; if one cannot be, put back what the others were. Raises ``OSError``."""
    kept = {group: state for group, state in groups.items() if group.kept and state is not AccessState.TRANSITIONING}
    texts = [(group.logical_unit, group_key(group), group_text(group, state, status)) for group, state in kept.items()]
    texts += [(lun.logical_unit, lun_key(lun), lun_text(offline=luns[lun], status=status)) for lun in luns if lun.kept]
    done: list[tuple[Store, str, str | None, str]] = []
    try:
        for unit, key, text in texts:
            store = unit.store
            assert store is not None
            before = await store.get(key)
            done.append((store, key, before.value, await store.put(key, text, before.revision)))
    except OSError:
        for store, key, value, revision in reversed(done):
            try:
                await store.put(key, value, revision)
            except OSError as error:
                log.error("%s: cannot be put back to what it was: %s", key, error)
        raise
