"""Asymmetric access in the tree: ``alua/<group>`` of a device, its LBA map, and ``core/alua/lu_gps`` (lio-configfs 1, 3.5)."""

from __future__ import annotations

import errno
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from tcm.configfs.table import MadeGroup, ParentGroup, number
from tcm.options import parse_bool
from tcm.scsi.asymmetric_access import AccessState, AccessStatus, AccessType
from tcm.scsi.referrals import parse_lba_map
from tcm.target.access_transition import set_access_state, set_access_status
from tcm.target.logical_unit_group import DEFAULT_GROUP as DEFAULT_LU_GROUP
from tcm.target.logical_unit_group import LogicalUnitGroup
from tcm.target.target_port_group import (
    DEFAULT_GROUP,
    MAXIMUM_IDENTIFIER,
    MAXIMUM_NAME_LENGTH,
    GroupAttributes,
    TargetPortGroup,
)
from tcm.tree_types import Table, TreeAttribute

if TYPE_CHECKING:
    from tcm.configfs.device import Device
    from tcm.configfs.node import Group
    from tcm.runtime import Runtime

NULL = "NULL"
ACCESS_TYPES = {
    AccessType.NONE: "None",
    AccessType.IMPLICIT: "Implicit",
    AccessType.EXPLICIT: "Explicit",
    AccessType.BOTH: "Implicit and Explicit",
}
STATUSES = {
    AccessStatus.NONE: "None",
    AccessStatus.EXPLICIT: "Altered by Explicit STPG",
    AccessStatus.IMPLICIT: "Altered by Implicit ALUA",
}
STATES = {
    AccessState.ACTIVE_OPTIMIZED: "Active/Optimized",
    AccessState.ACTIVE_NON_OPTIMIZED: "Active/NonOptimized",
    AccessState.STANDBY: "Standby",
    AccessState.UNAVAILABLE: "Unavailable",
    AccessState.LOGICAL_BLOCK_DEPENDENT: "LBA Dependent",
    AccessState.OFFLINE: "Offline",
    AccessState.TRANSITIONING: "Transitioning",
}
_LETTERS = {
    AccessState.ACTIVE_OPTIMIZED: "O",
    AccessState.ACTIVE_NON_OPTIMIZED: "A",
    AccessState.STANDBY: "S",
    AccessState.UNAVAILABLE: "U",
}


# target port groups


class GroupPlace:
    """A target port group of a device: what its table is called with.

    One that was made has no identifier at first, and no LUN can be in it then.
    """

    def __init__(self, device: Device, name: str) -> None:
        self.device = device
        self.name = name
        self._attributes = GroupAttributes()

    @property
    def group(self) -> TargetPortGroup | None:
        """``None``: it has no identifier yet."""
        return self.device.unit.asymmetric_access.groups.get(self.name)

    @property
    def attributes(self) -> GroupAttributes:
        """In force, or to be once there is an identifier."""
        group = self.group
        return self._attributes if group is None else group.attributes

    def configure(self, **changes: Any) -> None:
        """Change attributes; initiators hear of what concerns them."""
        group, attributes = self.group, replace(self.attributes, **changes)
        if group is None:
            self._attributes = attributes
        elif not attributes.supports(group.state):
            raise ValueError(f"the group is in that state; write another alua_access_state than {group.state:d} first")
        else:
            self.device.unit.asymmetric_access.configure(group, attributes)

    def identify(self, text: str) -> None:
        """``tg_pt_gp_id``, once; 0 takes the next free one."""
        if self.group is not None:
            raise ValueError(f"the identifier is {self.group.identifier} already; it can be set once")
        identifier = number(text, 0, MAXIMUM_IDENTIFIER)
        self.device.unit.asymmetric_access.add_group(self.name, identifier, self._attributes)

    async def set_state(self, text: str) -> None:
        """``alua_access_state``: an implicit transition."""
        group = self.group
        if group is None:
            raise ValueError("write tg_pt_gp_id first")
        self.device.check_enabled()
        value = number(text, 0, 15)
        if value not in STATES:
            raise ValueError(f"{text!r} is no access state; write one of {', '.join(f'{state:d}' for state in STATES)}")
        await set_access_state(group, AccessState(value))

    async def set_status(self, text: str) -> None:
        """``alua_access_status``."""
        if self.group is None:
            raise ValueError("write tg_pt_gp_id first")
        await set_access_status(self.group, AccessStatus(number(text, 0, 2)))

    def members(self) -> str:
        """A line for each LUN."""
        return "\n".join(self.group.member_names()) if self.group is not None else ""


def _attribute(name: str, *, boolean: bool) -> TreeAttribute:
    def store(place: GroupPlace, text: str) -> None:
        place.configure(**{name: parse_bool(text) if boolean else number(text, 0, 0xFFFFFFFF)})

    return TreeAttribute(lambda place: f"{getattr(place.attributes, name):d}", store)


def _set_access_type(place: GroupPlace, text: str) -> None:
    place.configure(alua_access_type=number(text, 0, 3))


def _state(place: GroupPlace) -> str:
    return f"{place.group.state:d}" if place.group is not None else "0"


def _status(place: GroupPlace) -> str:
    return STATUSES[place.group.status] if place.group is not None else STATUSES[AccessStatus.NONE]


_ATTRIBUTES = {field.name: _attribute(field.name, boolean=isinstance(field.default, bool)) for field in fields(GroupAttributes)}
TARGET_PORT_GROUP: Table = dict(
    sorted(
        {
            **_ATTRIBUTES,
            "alua_access_state": TreeAttribute(_state, GroupPlace.set_state),
            "alua_access_status": TreeAttribute(_status, GroupPlace.set_status),
            "alua_access_type": TreeAttribute(lambda place: ACCESS_TYPES[place.attributes.access_type], _set_access_type),
            "members": TreeAttribute(GroupPlace.members),
            "tg_pt_gp_id": TreeAttribute(
                lambda place: str(place.group.identifier) if place.group is not None else "", GroupPlace.identify
            ),
        }.items()
    )
)


class TargetPortGroupNode(MadeGroup):
    """``alua/<group>``."""

    def __init__(self, parent: Group, place: GroupPlace) -> None:
        super().__init__(place.name, parent, TARGET_PORT_GROUP, place)
        self._place = place

    async def destroy(self) -> None:
        """Its LUNs go to the default group."""
        if self._place.group is not None:
            self._place.device.unit.asymmetric_access.remove_group(self.name)


class TargetPortGroups(ParentGroup):
    """``alua`` of a device."""

    def __init__(self, name: str, parent: Group, device: Device) -> None:
        super().__init__(name, parent)
        self._device = device
        # a device that is not enabled yet has only the default group
        for group in device.unit.asymmetric_access.groups if device.enabled else (DEFAULT_GROUP,):
            node = TargetPortGroupNode(self, GroupPlace(device, group))
            if group == DEFAULT_GROUP:
                self.defaults[group] = node
            else:
                self.groups[group] = node

    async def create(self, name: str) -> MadeGroup:
        if len(name) > MAXIMUM_NAME_LENGTH:
            raise OSError(errno.ENAMETOOLONG, f"write at most {MAXIMUM_NAME_LENGTH} characters")
        return TargetPortGroupNode(self, GroupPlace(self._device, name))


# LBA map


def lba_map_text(device: Device) -> str:
    """LIO's lines."""
    lba_map = device.unit.asymmetric_access.lba_map
    if lba_map is None:
        return ""
    lines = [f"{lba_map.segment_size} {lba_map.segment_multiplier}"]
    for segment in lba_map.segments:
        states = " ".join(f"{group}:{_LETTERS[state]}" for group, state in segment.states.items())
        lines.append(f"{segment.first} {segment.last} {states}")
    return "\n".join(lines)


def set_lba_map(device: Device, text: str) -> None:
    """Nothing takes the map away."""
    device.check_not_exported("the LBA map")
    lba_map = parse_lba_map(text) if text else None
    access = device.unit.asymmetric_access
    if lba_map is not None:
        for identifier in sorted({group for segment in lba_map.segments for group in segment.states}):
            if access.by_identifier(identifier) is None:
                raise ValueError(f"there is no target port group with the identifier {identifier}")
    access.set_lba_map(lba_map)


# logical unit groups


def set_logical_unit_group(device: Device, text: str) -> None:
    """``alua_lu_gp``: a group's name, or NULL for the default one."""
    groups = device.runtime.logical_unit_groups
    name = DEFAULT_LU_GROUP if text == NULL else text
    if name not in groups.groups:
        raise OSError(errno.ENODEV, f"there is no LU group {name[:60]!r}; make core/alua/lu_gps/{name[:60]} and give it an id")
    groups.assign(device.unit, groups.groups[name])


class _LogicalUnitGroupPlace:
    """One that was made has no identifier at first, and no unit can be in it then."""

    def __init__(self, tree: LogicalUnitGroupTree, name: str) -> None:
        self._tree = tree
        self.name = name

    @property
    def group(self) -> LogicalUnitGroup | None:
        """``None``: it has no identifier yet."""
        return self._tree.runtime.logical_unit_groups.groups.get(self.name)

    def identify(self, text: str) -> None:
        """``lu_gp_id``, once; 0 takes the next free one."""
        if self.group is not None:
            raise ValueError(f"the identifier is {self.group.identifier} already; it can be set once")
        self._tree.runtime.logical_unit_groups.add(self.name, number(text, 0, MAXIMUM_IDENTIFIER))

    def members(self) -> str:
        """``<HBA>/<device>``, a line for each."""
        return "\n".join(self._tree.member_names(self.name))


LOGICAL_UNIT_GROUP: Table = {
    "lu_gp_id": TreeAttribute(
        lambda place: str(place.group.identifier) if place.group is not None else "", _LogicalUnitGroupPlace.identify
    ),
    "members": TreeAttribute(_LogicalUnitGroupPlace.members),
}


class LogicalUnitGroupNode(MadeGroup):
    """``core/alua/lu_gps/<group>``."""

    def __init__(self, parent: LogicalUnitGroupTree, name: str) -> None:
        super().__init__(name, parent, LOGICAL_UNIT_GROUP, _LogicalUnitGroupPlace(parent, name))
        self._runtime = parent.runtime

    async def destroy(self) -> None:
        """Its units go to the default group."""
        if self.name in self._runtime.logical_unit_groups.groups:
            self._runtime.logical_unit_groups.remove(self.name)


class LogicalUnitGroupTree(ParentGroup):
    """``core/alua/lu_gps``.

    :param devices: all there are, as ``<HBA>/<device>`` and what it is.
    """

    def __init__(self, parent: Group, runtime: Runtime, devices: Any) -> None:
        super().__init__("lu_gps", parent)
        self.runtime = runtime
        self._devices = devices
        for name in runtime.logical_unit_groups.groups:
            node = LogicalUnitGroupNode(self, name)
            if name == DEFAULT_LU_GROUP:
                self.defaults[name] = node
            else:
                self.groups[name] = node

    async def create(self, name: str) -> MadeGroup:
        return LogicalUnitGroupNode(self, name)

    def member_names(self, name: str) -> list[str]:
        """The devices in a group."""
        group = self.runtime.logical_unit_groups.groups.get(name)
        return [where for where, device in self._devices() if group is not None and device.logical_unit_group is group]
