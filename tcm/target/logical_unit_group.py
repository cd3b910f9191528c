"""Logical unit groups: units whose target port groups change state together (SPC-4 5.16.2.1; LIO's ``core/alua/lu_gps``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from tcm.target.logical_unit import LogicalUnit

DEFAULT_GROUP = "default_lu_gp"
"""The group, with identifier 0, that every unit begins in: its units have nothing in common."""
MAXIMUM_IDENTIFIER = 0xFFFF


class LogicalUnitGroup:
    """A group. Made by :meth:`LogicalUnitGroups.add`."""

    def __init__(self, name: str, identifier: int) -> None:
        self.name = name
        self.identifier = identifier
        self.members: list[LogicalUnit] = []
        self.changing = anyio.Lock()
        """Held while target port groups of its units change state."""


class LogicalUnitGroups:
    """All there are: names and identifiers are unique among them."""

    def __init__(self) -> None:
        self.default = LogicalUnitGroup(DEFAULT_GROUP, 0)
        self.groups: dict[str, LogicalUnitGroup] = {DEFAULT_GROUP: self.default}

    def add(self, name: str, identifier: int = 0) -> LogicalUnitGroup:
        """A new group; identifier 0 stands for the next free one. Raises ``ValueError`` if one is taken."""
        if not name or name in self.groups:
            raise ValueError(f"LU group {name!r} is there already" if name else "an LU group needs a name")
        taken = {group.identifier for group in self.groups.values()}
        if not identifier:
            identifier = next((free for free in range(1, MAXIMUM_IDENTIFIER + 1) if free not in taken), 0)
        if identifier in taken or not 0 < identifier <= MAXIMUM_IDENTIFIER:
            raise ValueError(f"LU group identifier {identifier} is taken or not one of 1 to {MAXIMUM_IDENTIFIER}")
        group = self.groups[name] = LogicalUnitGroup(name, identifier)
        return group

    def remove(self, name: str) -> None:
        """Take a group away; its units go to the default one. Raises ``KeyError``, ``ValueError`` for the default."""
        group = self.groups[name]
        if group is self.default:
            raise ValueError(f"{DEFAULT_GROUP} cannot be removed")
        del self.groups[name]
        for unit in tuple(group.members):
            self.assign(unit, self.default)

    def assign(self, unit: LogicalUnit, group: LogicalUnitGroup) -> None:
        """Make a unit a member of a group, and of no other."""
        before = unit.asymmetric_access.logical_unit_group
        if before is not None and unit in before.members:
            before.members.remove(unit)
        group.members.append(unit)
        unit.asymmetric_access.logical_unit_group = group
