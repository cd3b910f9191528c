"""``<fabric>`` and ``<fabric>/<wwn>`` (lio-configfs 4.1 and 4.2)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from tcm.configfs import statistics
from tcm.configfs.portal_groups import PortalGroupTables, TargetPortalGroupGroup, tag_of
from tcm.configfs.table import FixedGroup, MadeGroup, MadeParent, number
from tcm.tree_types import Table, TreeAttribute

if TYPE_CHECKING:
    from tcm.configfs.core import CoreGroup
    from tcm.configfs.node import Group
    from tcm.fabric import Fabric
    from tcm.fabric_statistics import LioGroup
    from tcm.live import LiveChanges
    from tcm.plugin_types import FabricType
    from tcm.target.device import TargetDevice

_SAME_PROCESSOR = "-1"


def _set_affinity(_target: TargetDevice, text: str) -> None:
    if text not in {_SAME_PROCESSOR, "-2"}:
        number(text, 0, 1 << 16)
        raise OSError(errno.EOPNOTSUPP, "commands complete on the processor that they were submitted on; write -1")


TARGET_PARAMETERS: Table = {
    "cmd_completion_affinity": TreeAttribute(lambda _target: _SAME_PROCESSOR, _set_affinity),
    "default_complete_type": TreeAttribute(lambda _target: "1"),
    "default_submit_type": TreeAttribute(lambda _target: "1"),
    "direct_complete_supported": TreeAttribute(lambda _target: "1"),
    "direct_submit_supported": TreeAttribute(lambda _target: "1"),
}
"""Commands are submitted and completed in the event loop, the context that they arrive in: LIO calls that direct.

The submitting processor and the current one are the same here."""


class TargetGroup(MadeParent):
    """``<wwn>``."""

    def __init__(self, name: str, parent: FabricGroup, target: TargetDevice) -> None:
        super().__init__(name, parent)
        self.target = target
        self._fabric = parent
        tree = parent.kind.tree
        self.attach(statistics.StatisticsGroup("fabric_statistics", self, tree.target_statistics, self._statistics))
        self.attach(FixedGroup("param", self, TARGET_PARAMETERS, target))
        for tag in target.portal_groups:
            self.groups[f"tpgt_{tag}"] = self._node(f"tpgt_{tag}", tag)

    def _statistics(self) -> tuple[LioGroup, ...]:
        counted = self._fabric.fabric.statistics()
        return tuple(counted.target_groups(self.target)) if counted is not None else ()

    def _node(self, name: str, tag: int) -> TargetPortalGroupGroup:
        fabric = self._fabric
        group = self.target.portal_groups[tag]
        return TargetPortalGroupGroup(name, self, fabric.kind, fabric.tables, fabric.live, fabric.core, group)

    async def create(self, name: str) -> MadeGroup:
        tag = tag_of(name, self._fabric.kind.tree.tags)
        if tag in self.target.portal_groups:
            raise OSError(errno.EEXIST, "the portal group is there already")
        self._fabric.live.add_portal_group(self.target, tag)
        return self._node(name, tag)

    async def destroy(self) -> None:
        self._fabric.live.remove_target(self.target)


class FabricGroup(MadeParent):
    """``<fabric>``, running."""

    def __init__(self, name: str, parent: Group, kind: FabricType, fabric: Fabric, live: LiveChanges, core: CoreGroup) -> None:
        super().__init__(name, parent, kind.tree.attributes, fabric)
        self.kind = kind
        self.fabric = fabric
        self.live = live
        self.core = core
        self.tables = PortalGroupTables(kind, live)
        self.attach(FixedGroup("discovery_auth", self, kind.tree.discovery, fabric))
        self._found = self._attributes()

    def _attributes(self) -> dict[str, str]:
        return {
            name: each.show(self.fabric)
            for name, each in self.table.items()
            if each.show is not None and each.store is not None
        }

    def changed_attributes(self) -> dict[str, str]:
        """Files of the directory that can be written and are not as they were found, or as a configuration has them."""
        said = self.live.configured_attributes(self.kind.name)
        return {name: text for name, text in self._attributes().items() if name in said or text != self._found[name]}

    def populate(self, targets: list[TargetDevice]) -> None:
        """What the runtime has already."""
        for target in targets:
            self.groups[target.name] = TargetGroup(target.name, self, target)

    async def create(self, name: str) -> MadeGroup:
        wwn = self.kind.check_name(name)
        if any(isinstance(each, TargetGroup) and each.target.name == wwn for each in self.groups.values()):
            raise OSError(errno.EEXIST, f"{wwn} is there already")
        return TargetGroup(name, self, self.live.add_target(wwn, self.kind.name))

    async def destroy(self) -> None:
        await self.live.remove_fabric(self.kind.name)
