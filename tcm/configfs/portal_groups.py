"""``<fabric>/<wwn>/tpgt_N`` and its network portals (lio-configfs 4.3)."""

from __future__ import annotations

import errno
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tcm.configfs.luns import LunsGroup
from tcm.configfs.node_acls import NodeAclsGroup, NodeAclTables
from tcm.configfs.settings_table import AUTHENTICATION, table_of
from tcm.configfs.table import FixedGroup, MadeGroup, ParentGroup, flag, number
from tcm.configuration import parse_portal, portal_text
from tcm.saveconfig_names import TARGET_PORTAL_GROUP
from tcm.target.draining import NexusesDraining
from tcm.tree_types import PortalGroupPlace, PortalPlace, Table, TreeAttribute

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.configfs.core import CoreGroup
    from tcm.configfs.node import Group
    from tcm.live import LiveChanges
    from tcm.plugin_types import FabricType
    from tcm.target.draining import Draining
    from tcm.target.portal_group import NetworkPortal, TargetPortalGroup

_NAME = re.compile(r"tpgt_([0-9]{1,9})")


def tag_of(name: str, tags: range) -> int:
    """Of ``tpgt_N``. Raises ``ValueError``."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError("write tpgt_ and a number, such as tpgt_1")
    return number(match[1], tags.start, tags.stop - 1)


# network portals


class NetworkPortalGroup(MadeGroup):
    """``np/<address>:<port>``."""

    def __init__(self, name: str, parent: PortalsGroup, place: PortalPlace) -> None:
        super().__init__(name, parent, parent.kind.tree.portal, place)
        self._place = place
        self._live = parent.live

    def draining(self) -> Iterable[Draining]:
        draining = self._place.fabric.drain_portal(self._place.group, self._place.portal)
        return () if draining is None else (draining,)

    async def destroy(self) -> None:
        """Nobody listens there any more; sessions that are there stay."""
        await self._live.remove_portal(self._place.group, self._place.portal)


class PortalsGroup(ParentGroup):
    """``np``."""

    def __init__(self, parent: Group, kind: FabricType, live: LiveChanges, group: TargetPortalGroup) -> None:
        super().__init__("np", parent)
        self.kind = kind
        self.live = live
        self._group = group
        for portal in group.portals:
            name = portal_text(portal)
            self.groups[name] = self._node(name, portal)

    def _node(self, name: str, portal: NetworkPortal) -> NetworkPortalGroup:
        return NetworkPortalGroup(name, self, PortalPlace(self.live.fabric_of(self._group.target), self._group, portal))

    async def create(self, name: str) -> MadeGroup:
        if not self.kind.uses_portals:
            raise OSError(errno.ENOSYS, f"fabric {self.kind.name} has no network portals")
        portal = parse_portal(name, "portal", 0)
        if not portal.port:
            raise ValueError("write an address and a port from 1 to 65535, such as 127.0.0.1:3260 or [::]:3260")
        return self._node(name, await self.live.add_portal(self._group, portal))


# target portal groups


def _base_table(kind: FabricType, live: LiveChanges) -> Table:
    """The files of the directory itself."""

    def enable(place: PortalGroupPlace, text: str) -> None:
        live.enable_portal_group(place.group, enabled=flag(text))

    def identify(place: PortalGroupPlace, text: str) -> None:
        live.set_relative_identifier(place.group, number(text, 1, 0xFFFF))

    table: dict[str, TreeAttribute] = dict(kind.tree.portal_group)
    if kind.tree.enable:
        table["enable"] = TreeAttribute(lambda place: f"{place.group.enabled:d}", enable)
    table["rtpi"] = TreeAttribute(lambda place: str(place.group.relative_target_port_identifier), identify)
    return dict(sorted(table.items()))


def _attribute_tables(kind: FabricType, live: LiveChanges) -> tuple[Table, Table]:
    """LIO's ``attrib``, and what LIO lacks."""
    names = {field.name for field in fields(kind.tpg_attributes)}

    def put(group: TargetPortalGroup, attributes: Any, name: str) -> None:
        live.set_attribute(group, attributes)
        if kind.tree.attribute_stored is not None:
            kind.tree.attribute_stored(group, name)
            live.set_parameters(group, group.parameters)

    def get(group: TargetPortalGroup) -> Any:
        return group.attributes

    lio = table_of(kind.tpg_attributes, names & set(TARGET_PORTAL_GROUP), get, put)
    return lio, table_of(kind.tpg_attributes, names - set(TARGET_PORTAL_GROUP), get, put)


def _parameter_table(kind: FabricType, live: LiveChanges) -> Table:
    def put(group: TargetPortalGroup, parameters: Any, _name: str) -> None:
        live.set_parameters(group, parameters)

    names = [field.name for field in fields(kind.tpg_parameters)]
    return table_of(kind.tpg_parameters, names, lambda group: group.parameters, put, yes_no=True)


def _dynamic_acl_table(kind: FabricType, live: LiveChanges) -> Table:
    """What holds for those that demo mode lets in; LIO has its defaults for them."""

    def get(group: TargetPortalGroup) -> Any:
        return kind.acl_attributes() if group.dynamic_acl_attributes is None else group.dynamic_acl_attributes

    def put(group: TargetPortalGroup, attributes: Any, _name: str) -> None:
        live.set_dynamic_acl_attributes(group, attributes)

    return table_of(kind.acl_attributes, kind.tree.dynamic_acl_attributes, get, put)


class PortalGroupTables:
    """The tables that all portal groups of a fabric have."""

    def __init__(self, kind: FabricType, live: LiveChanges) -> None:
        self.base = _base_table(kind, live)
        self.attributes, self.own_attributes = _attribute_tables(kind, live)
        self.parameters = _parameter_table(kind, live)
        self.dynamic_acl_attributes = _dynamic_acl_table(kind, live)
        self.node_acls = NodeAclTables(kind, live)


class TargetPortalGroupGroup(MadeGroup):
    """``tpgt_N``."""

    def __init__(
        self,
        name: str,
        parent: Group,
        kind: FabricType,
        tables: PortalGroupTables,
        live: LiveChanges,
        core: CoreGroup,
        group: TargetPortalGroup,
    ) -> None:
        super().__init__(name, parent, tables.base, PortalGroupPlace(live.fabric_of(group.target), group))
        self.group = group
        self.kind = kind
        self._live = live
        luns = LunsGroup(self, group, core)
        self.attach(NodeAclsGroup(self, kind, tables.node_acls, live, luns, group))
        self.attach(FixedGroup("attrib", self, tables.attributes, group))
        self.attach(FixedGroup("auth", self, AUTHENTICATION if kind.tree.authentication else None, group))
        self.attach(luns)
        self.attach(PortalsGroup(self, kind, live, group))
        self.attach(FixedGroup("param", self, tables.parameters, group))
        if tables.dynamic_acl_attributes:
            self.attach(FixedGroup("tcm_acl_attrib", self, tables.dynamic_acl_attributes, group))
        if tables.own_attributes:
            self.attach(FixedGroup("tcm_attrib", self, tables.own_attributes, group))

    def draining(self) -> Iterable[Draining]:
        return (NexusesDraining(self.group, self._live.fabric_of(self.group.target).request_logout),)

    async def destroy(self) -> None:
        """With its sessions."""
        await self._live.remove_portal_group(self.group)
