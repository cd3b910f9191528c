"""Asymmetric access to one logical unit: its target port groups, who is in them, and its LBA map (SPC-4 5.16.2)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from tcm.target.access_metadata import group_key, lun_key, parse_group_text, parse_lun_text, unit_prefix
from tcm.target.reconfiguration import reconfigured
from tcm.target.target_port_group import (
    DEFAULT_GROUP,
    MAXIMUM_IDENTIFIER,
    MAXIMUM_NAME_LENGTH,
    GroupAttributes,
    TargetPortGroup,
)
from tcm.target.unit_attention import ASYMMETRIC_ACCESS_STATE_CHANGED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tcm.scsi.referrals import LbaMap
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.logical_unit_group import LogicalUnitGroup
    from tcm.target.lun import Lun
    from tcm.target.store import Store

log = logging.getLogger(__name__)


class AsymmetricAccess:
    """Which target ports reach the logical unit how well. States change through :mod:`tcm.target.access_transition`."""

    def __init__(self, logical_unit: LogicalUnit) -> None:
        self._logical_unit = logical_unit
        self.default = TargetPortGroup(logical_unit, DEFAULT_GROUP, 0, GroupAttributes())
        self.groups: dict[str, TargetPortGroup] = {DEFAULT_GROUP: self.default}
        self.logical_unit_group: LogicalUnitGroup | None = None
        """``None``: the default one, of a unit that nobody manages."""
        self.lba_map: LbaMap | None = None
        """Set by :meth:`set_lba_map`."""
        self._changing = anyio.Lock()
        self._unwatch: Callable[[], None] | None = None

    @property
    def changing(self) -> anyio.Lock:
        """Held while states change: one change at a time in all units that change together."""
        group = self.logical_unit_group
        return group.changing if group is not None and group.identifier else self._changing

    @property
    def explicit(self) -> bool:
        """SET TARGET PORT GROUPS is for some of the groups."""
        return any(group.attributes.access_type.is_explicit for group in self.groups.values())

    def luns(self) -> Iterator[Lun]:
        """The unit under all its numbers at all target ports."""
        for group in self.groups.values():
            yield from group.members

    def reported_groups(self) -> list[TargetPortGroup]:
        """Those that have ports, which a group has to have to be reported (SPC-4 6.37), by identifier."""
        return sorted((group for group in self.groups.values() if group.members), key=lambda group: group.identifier)

    def by_identifier(self, identifier: int) -> TargetPortGroup | None:
        """The group with that TARGET PORT GROUP."""
        return next((group for group in self.groups.values() if group.identifier == identifier), None)

    # groups

    def add_group(self, name: str, identifier: int = 0, attributes: GroupAttributes | None = None) -> TargetPortGroup:
        """A new group without ports. Raises ``ValueError``.

        :param identifier: 1 to 65535; 0 stands for the next free one.
        """
        if not 0 < len(name) <= MAXIMUM_NAME_LENGTH or "/" in name or not name.isprintable():
            raise ValueError(f"target port group name {name!r}: 1 to {MAXIMUM_NAME_LENGTH} characters, no slash")
        if name in self.groups:
            raise ValueError(f"target port group {name} is there already")
        taken = {group.identifier for group in self.groups.values()}
        if not identifier:
            identifier = next((free for free in range(1, MAXIMUM_IDENTIFIER + 1) if free not in taken), 0)
        if identifier in taken or not 0 < identifier <= MAXIMUM_IDENTIFIER:
            raise ValueError(f"target port group identifier {identifier} is taken or not one of 1 to {MAXIMUM_IDENTIFIER}")
        group = TargetPortGroup(self._logical_unit, name, identifier, attributes or GroupAttributes())
        self.groups[name] = group
        self._logical_unit.update_features()
        return group

    def remove_group(self, name: str) -> None:
        """Take a group away; its LUNs go to the default one. Raises ``KeyError``, ``ValueError`` for the default group."""
        group = self.groups[name]
        if group is self.default:
            raise ValueError(f"{DEFAULT_GROUP} cannot be removed")
        while group.members:
            self.move(group.members[0], self.default)
        del self.groups[name]
        self._logical_unit.update_features()

    def configure(self, group: TargetPortGroup, attributes: GroupAttributes) -> None:
        """Change a group's attributes; who comes through it is told if that changes INQUIRY data (TPGS)."""
        with reconfigured(self._logical_unit):
            group.attributes = attributes

    # ports

    def join(self, lun: Lun) -> None:
        """A target port begins to export the unit: it is in the default group at first, or where the same port is already."""
        lun.target_port_group = next((each.target_port_group for each in self.luns() if each.port is lun.port), self.default)
        lun.target_port_group.members.append(lun)

    def leave(self, lun: Lun) -> None:
        """A target port does not export it any more."""
        lun.target_port_group.members.remove(lun)

    def move(self, lun: Lun, group: TargetPortGroup) -> None:
        """Make a LUN's target port a member of another group of this unit, and tell initiators.

        A port is in one group only (SPC-4 5.16.2.1): another LUN of it with the same unit goes along.
        """
        before = lun.target_port_group
        if before is group:
            return
        with reconfigured(self._logical_unit):
            for each in [each for each in self.luns() if each.port is lun.port]:
                each.target_port_group.members.remove(each)
                each.target_port_group = group
                group.members.append(each)
        self._logical_unit.establish_attention(ASYMMETRIC_ACCESS_STATE_CHANGED)

    # LBA map

    def set_lba_map(self, lba_map: LbaMap | None) -> None:
        """Say which blocks are reached well through which groups; ``None``: all alike.

        As in LIO, groups support the state *logical block dependent* from then on, or not any more.
        """
        with reconfigured(self._logical_unit):
            self.lba_map = lba_map
            for group in self.groups.values():
                group.attributes = replace(group.attributes, alua_support_lba_dependent=lba_map is not None)

    # what is kept

    async def load(self) -> None:
        """Power on: states that were kept are in force again; what cannot be read is logged, and stays as configured."""
        store = self._logical_unit.store
        if store is None:
            return
        for group in self.groups.values():
            if group.kept:
                await self._load_group(store, group, starting=True)
        for lun in self.luns():
            if lun.kept:
                await self._load_lun(store, lun)

    async def _load_group(self, store: Store, group: TargetPortGroup, *, starting: bool = False) -> None:
        key = group_key(group)
        try:
            text = (await store.get(key)).value
            if text is None:
                return
            identifier, state, status = parse_group_text(text)
            if identifier != group.identifier:
                raise ValueError(f"line 1: tg_pt_gp_id={identifier}, not {group.identifier}")
        except (OSError, ValueError) as error:
            log.error("%s: %s: the state of target port group %s stays %s: %s", store, key, group.name, group.state.name, error)
            return
        if starting and state is not group.state:
            log.warning(
                "%s: target port group %s is %s, as it was last, not %s as configured: remove %s/%s to change that",
                self._logical_unit.name,
                group.name,
                state.name,
                group.state.name,
                store,
                key,
            )
        group.state, group.status = state, status

    async def _load_lun(self, store: Store, lun: Lun) -> None:
        key = lun_key(lun)
        try:
            text = (await store.get(key)).value
            if text is not None:
                lun.offline, lun.offline_status = parse_lun_text(text)
        except (OSError, ValueError) as error:
            log.error("%s: %s: the secondary state of LUN %d stays as it was: %s", store, key, lun.number, error)

    def watch(self) -> None:
        """From now on, take over what other nodes change."""
        store, unit = self._logical_unit.store, self._logical_unit
        if store is not None and self._unwatch is None:
            prefix = unit_prefix(unit)
            self._unwatch = store.watch(prefix, lambda _: unit.running.spawn_alone(self._changed(store)))

    def unwatch(self) -> None:
        """The end of :meth:`watch`."""
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    async def _changed(self, store: Store) -> None:
        """Somebody changed a group's state; if it was another node, initiators hear of it here too."""
        unit = self._logical_unit
        async with self.changing:
            for group in [group for group in self.groups.values() if group.kept]:
                before = group.state
                await self._load_group(store, group)
                if group.state is not before:
                    unit.update_express()
                    unit.establish_attention(ASYMMETRIC_ACCESS_STATE_CHANGED)
