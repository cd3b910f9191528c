"""``tpgt_N/acls/<initiator>`` and its mapped LUNs (lio-configfs 4.3.6)."""

from __future__ import annotations

import errno
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tcm.configfs import statistics
from tcm.configfs.luns import LunGroup, lun_number
from tcm.configfs.node import Group, Link, Node, TreeError
from tcm.configfs.settings_table import AUTHENTICATION, NULL, table_of
from tcm.configfs.table import FixedGroup, MadeGroup, MadeParent, ParentGroup, flag, refusals
from tcm.options import convert, options_of, parse_bool
from tcm.saveconfig_names import NODE_ACL
from tcm.statistics.lio import mapped_lun_groups
from tcm.target.draining import LunsDraining, NexusesDraining
from tcm.tree_types import NodeAclPlace, Table, TreeAttribute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tcm.configfs.luns import LunsGroup
    from tcm.fabric_statistics import LioGroup
    from tcm.live import LiveChanges
    from tcm.plugin_types import FabricType
    from tcm.target.draining import Draining
    from tcm.target.lun import MappedLun
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import TargetPortalGroup


class _MappedPlace:
    """What a mapped LUN's table is called with."""

    def __init__(self, group: TargetPortalGroup, acl: NodeAcl, index: int) -> None:
        self.group = group
        self.acl = acl
        self.index = index

    @property
    def found(self) -> MappedLun | None:
        """``None``: there is no link, although demo mode may have mapped a LUN there (LIO: the same)."""
        mapped = self.acl.mapped_luns.get(self.index)
        return None if mapped is None or mapped.dynamic else mapped

    @property
    def mapped(self) -> MappedLun:
        """Raises ``OSError`` (ENODEV) without a link."""
        mapped = self.found
        if mapped is None:
            raise OSError(errno.ENODEV, "there is no link to a LUN yet")
        return mapped


def _set_write_protect(place: _MappedPlace, text: str) -> None:
    place.group.protect_lun(place.acl, place.mapped.number, write_protect=flag(text))


MAPPED_LUN: Table = {"write_protect": TreeAttribute(lambda place: f"{place.mapped.write_protect:d}", _set_write_protect)}


class MappedLunGroup(MadeGroup):
    """``lun_K``: at most one link, to a LUN of the same portal group."""

    def __init__(self, name: str, parent: Group, place: _MappedPlace, luns: LunsGroup, live: LiveChanges) -> None:
        super().__init__(name, parent, MAPPED_LUN, place)
        self.place = place
        self._luns = luns
        self._live = live
        self.attach(statistics.StatisticsGroup("statistics", self, statistics.MAPPED_LUN, self._statistics))

    def draining(self) -> Iterable[Draining]:
        place = self.place
        return () if place.found is None else (LunsDraining.of_mapped_lun(place.group, place.acl, place.index),)

    def _statistics(self) -> tuple[LioGroup, ...]:
        return mapped_lun_groups(self.place.group, self.place.acl, self.place.mapped)

    def made(self) -> Mapping[str, Node]:
        mapped = self.place.found
        if mapped is None:
            return {}
        name = mapped.alias or "default"
        return {name: Link(name, self, f"/{self._luns.path}/lun_{mapped.lun.number}")}

    async def link(self, name: str, target: Group) -> None:
        """Show a LUN to the initiator."""
        place, where = self.place, f"{self.path}/{name}"
        if not isinstance(target, LunGroup):
            raise TreeError(errno.EINVAL, f"{where}: /{target.path} is no LUN; link to /{self._luns.path}/lun_N")
        if target.place.group is not place.group:
            raise TreeError(
                errno.EINVAL, f"{where}: /{target.path} is of another portal group; link to /{self._luns.path}/lun_N"
            )
        if place.found is not None:
            raise TreeError(errno.EEXIST, f"{where}: the mapped LUN has a link already")
        if target.place.found is None:
            raise TreeError(errno.EINVAL, f"{where}: /{target.path} leads to no device yet")
        with refusals(where):
            self._live.map_lun(place.group, place.acl, place.index, target.place.index, name)

    async def unlink(self, name: str) -> None:
        """Hide it."""
        with refusals(f"{self.path}/{name}"):
            self.place.group.unmap_lun(self.place.acl, self.place.index)


def _attribute_tables(kind: FabricType) -> tuple[Table, Table]:
    """LIO's ``attrib``, and what LIO lacks."""
    names = {field.name for field in fields(kind.acl_attributes)} - set(kind.tree.node_acl)

    def get(place: NodeAclPlace) -> Any:
        return place.acl.attributes

    def put(place: NodeAclPlace, attributes: Any, _name: str) -> None:
        place.acl.attributes = attributes

    lio = dict(table_of(kind.acl_attributes, names & set(NODE_ACL), get, put))
    for name in kind.tree.node_acl_inherits:
        lio[name] = TreeAttribute(_inherited(name), lio[name].store)
    return lio, table_of(kind.acl_attributes, names - set(NODE_ACL), get, put)


def _parameter_table(kind: FabricType, live: LiveChanges) -> Table:
    """``param/`` of the portal group as it is for this initiator alone: empty where it is the same."""
    options = options_of(kind.tpg_parameters)

    def attribute(name: str) -> TreeAttribute:
        def show(place: NodeAclPlace) -> str:
            value = place.acl.own_parameters.get(name, "")
            return ("Yes" if value else "No") if isinstance(value, bool) else str(value)

        def store(place: NodeAclPlace, text: str) -> None:
            own = {key: value for key, value in place.acl.own_parameters.items() if key != name}
            if text not in {NULL, ""}:
                own[name] = parse_bool(text) if options[name].type is bool else convert(options[name], text, name)
            live.set_own_parameters(place.group, place.acl, own)

        return TreeAttribute(show, store)

    return {name: attribute(name) for name in sorted(options)}


def _inherited(name: str) -> Any:
    def show(place: NodeAclPlace) -> str:
        value = getattr(place.acl.attributes, name)
        return str(getattr(place.group.attributes, name) if value < 0 else value)

    return show


class NodeAclTables:
    """The tables that all node ACLs of a fabric have."""

    def __init__(self, kind: FabricType, live: LiveChanges) -> None:
        self.attributes = _attribute_tables(kind)
        self.parameters = _parameter_table(kind, live)


class NodeAclGroup(MadeParent):
    """``acls/<initiator>``."""

    def __init__(self, name: str, parent: NodeAclsGroup, place: NodeAclPlace) -> None:
        tree = parent.kind.tree
        super().__init__(name, parent, tree.node_acl, place)
        self.place = place
        self._luns = parent.luns
        self._live = parent.live
        lio, ours = parent.attribute_tables
        self.attach(FixedGroup("attrib", self, lio, place))
        self.attach(FixedGroup("auth", self, AUTHENTICATION if tree.authentication else None, place.acl))
        self.attach(statistics.StatisticsGroup("fabric_statistics", self, tree.node_acl_statistics, self._statistics))
        self.attach(FixedGroup("param", self, tree.node_acl_parameters, place))
        if ours:
            self.attach(FixedGroup("tcm_attrib", self, ours, place))
        if parent.parameter_table:
            self.attach(FixedGroup("tcm_param", self, parent.parameter_table, place))
        for number, mapped in place.acl.mapped_luns.items():
            if not mapped.dynamic:
                self.groups[f"lun_{number}"] = self._mapped(f"lun_{number}", number)

    def _statistics(self) -> tuple[LioGroup, ...]:
        counted = self.place.fabric.statistics()
        return tuple(counted.node_acl_groups(self.place.group, self.place.acl)) if counted is not None else ()

    def _mapped(self, name: str, index: int) -> MappedLunGroup:
        return MappedLunGroup(name, self, _MappedPlace(self.place.group, self.place.acl, index), self._luns, self._live)

    async def create(self, name: str) -> MadeGroup:
        index = lun_number(name)
        if any(isinstance(each, MappedLunGroup) and each.place.index == index for each in self.groups.values()):
            raise OSError(errno.EEXIST, "the mapped LUN is there already")
        return self._mapped(name, index)

    def draining(self) -> Iterable[Draining]:
        return (NexusesDraining(self.place.group, self.place.fabric.request_logout, self.place.acl),)

    async def destroy(self) -> None:
        """With the initiator's sessions."""
        self._live.remove_node_acl(self.place.group, self.place.acl)


class NodeAclsGroup(ParentGroup):
    """``acls``: explicit ones; those that demo mode makes are not shown, as in LIO."""

    def __init__(
        self,
        parent: Group,
        kind: FabricType,
        tables: NodeAclTables,
        live: LiveChanges,
        luns: LunsGroup,
        group: TargetPortalGroup,
    ) -> None:
        super().__init__("acls", parent)
        self.kind = kind
        self.live = live
        self.luns = luns
        self._group = group
        self.attribute_tables = tables.attributes
        self.parameter_table = tables.parameters
        for acl in group.node_acls.values():
            if not acl.dynamic:
                self.groups[acl.initiator_name] = self._node(acl.initiator_name, acl)

    def _node(self, name: str, acl: NodeAcl) -> NodeAclGroup:
        if acl.attributes is None:
            acl.attributes = self.kind.acl_attributes()
        return NodeAclGroup(name, self, NodeAclPlace(self.live.fabric_of(self._group.target), self._group, acl))

    async def create(self, name: str) -> MadeGroup:
        if not self.kind.tree.node_acls:
            raise OSError(errno.ENOSYS, f"fabric {self.kind.name} has no node ACLs")
        initiator = self.kind.check_name(name)
        acl = self._group.find_node_acl(initiator)
        if acl is not None and not acl.dynamic:
            raise OSError(errno.EEXIST, f"{initiator} has a node ACL already")
        return self._node(name, self.live.add_node_acl(self._group, initiator))
