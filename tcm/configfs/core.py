"""``core/``: HBAs and their devices, and the LU groups (lio-configfs 1 and 2)."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from tcm.configfs.asymmetric_access import LogicalUnitGroupTree
from tcm.configfs.device import Device, DeviceGroup, check_name
from tcm.configfs.table import FixedGroup, MadeGroup, MadeParent, ParentGroup
from tcm.tree_types import BackstoreTree, Table, TreeAttribute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm.configfs.node import Group
    from tcm.plugin_types import BackstoreType
    from tcm.runtime import Runtime
    from tcm.target.logical_unit import LogicalUnit

CORE_VERSION = "v5.0"
"""The generation of LIO's core whose tree this is."""
_HBA = re.compile(r"(?P<plugin>[a-z][a-z0-9_]*)_(?P<number>[0-9]{1,9})")


def trees(runtime: Runtime) -> dict[str, tuple[BackstoreType, BackstoreTree]]:
    """What an HBA may be of, by plugin name."""
    found: dict[str, tuple[BackstoreType, BackstoreTree]] = {}
    for kind in runtime.plugins.backstores():
        for tree in kind.trees or (BackstoreTree(plugin=kind.name),):
            found[tree.plugin] = kind, tree
    return found


class _Hba:
    """What an HBA's table is called with."""

    def __init__(self, runtime: Runtime, kind: BackstoreType, tree: BackstoreTree, index: int) -> None:
        self.runtime = runtime
        self.kind = kind
        self.tree = tree
        self.index = index

    def info(self) -> str:
        """One line."""
        return f"HBA Index: {self.index} plugin: {self.tree.plugin} version: {CORE_VERSION}"

    def set_mode(self, text: str) -> None:
        """Only pass-through has modes."""
        if text != "0":
            raise OSError(errno.EINVAL, f"hba_mode: plugin {self.tree.plugin} has one mode; write 0")


HBA: Table = {"hba_info": TreeAttribute(_Hba.info), "hba_mode": TreeAttribute(lambda _hba: "0", _Hba.set_mode)}


class HbaGroup(MadeParent):
    """``core/<HBA>``."""

    def __init__(self, name: str, parent: Group, hba: _Hba) -> None:
        super().__init__(name, parent, HBA, hba)
        self.hba = hba

    async def create(self, name: str) -> MadeGroup:
        check_name(name)
        return self.add(name, self._path(name))

    def _path(self, name: str) -> str:
        """rtslib's: a saveconfig.json tells devices apart by it."""
        tree = self.hba.tree
        path = f"/backstores/{tree.saveconfig or tree.plugin}/{name}"
        if path in self.core().paths or path in self.hba.runtime.storage_objects:
            raise OSError(errno.EEXIST, f"another HBA of {tree.plugin} has one of that name, and no file tells them apart")
        return path

    def core(self) -> CoreGroup:
        """Where it is."""
        assert isinstance(self.parent, CoreGroup)
        return self.parent

    def add(self, name: str, path: str) -> DeviceGroup:
        """The directory of a device that there is, or is going to be."""
        hba = self.hba
        self.core().paths.add(path)
        return DeviceGroup(self, Device(hba.runtime, hba.kind, hba.tree, name, path, hba.index))

    async def remove(self, name: str) -> None:
        node = self.groups.get(name)
        await super().remove(name)
        if isinstance(node, DeviceGroup):
            self.core().paths.discard(node.device.path)


class CoreGroup(ParentGroup):
    """``core/``."""

    def __init__(self, parent: Group, runtime: Runtime) -> None:
        super().__init__("core", parent)
        self._runtime = runtime
        self._next_index = 1
        self.paths: set[str] = set()
        """Of storage objects, enabled or not."""
        self._places: dict[str, DeviceGroup] = {}
        """By name, where a device was found last."""
        self._populate()
        alua = self.attach(FixedGroup("alua", self))
        alua.attach(LogicalUnitGroupTree(alua, runtime, self.devices))

    def _populate(self) -> None:
        """What the runtime has already, an HBA for each storage object as rtslib makes it."""
        known = trees(self._runtime)
        plugins = {tree.saveconfig or tree.plugin: tree.plugin for _, tree in known.values()}
        for number, (path, config) in enumerate(self._runtime.storage_objects.items()):
            plugin = plugins.get(path.split("/")[2], "")
            if not plugin or known[plugin][0].name != config.type:
                plugin = next(name for name, (kind, _) in known.items() if kind.name == config.type)
            hba = self._add(f"{plugin}_{number}", plugin)
            device = hba.add(config.name, path)
            device.device.alias = config.alias
            device.device.udev_path = device.device.dev if config.udev_path is None else config.udev_path
            named = config.identity.product == config.name[:16]
            device.device.model_alias = named if config.model_alias is None else config.model_alias
            hba.groups[config.name] = device

    def _add(self, name: str, plugin: str) -> HbaGroup:
        kind, tree = trees(self._runtime)[plugin]
        hba = HbaGroup(name, self, _Hba(self._runtime, kind, tree, self._next_index))
        self._next_index += 1
        self.groups[name] = hba
        return hba

    def devices(self) -> Iterator[tuple[str, Device]]:
        """All there are, as ``<HBA>/<device>``."""
        for hba in self.groups.values():
            if isinstance(hba, HbaGroup):
                for each in hba.groups.values():
                    assert isinstance(each, DeviceGroup)
                    yield f"{hba.name}/{each.name}", each.device

    def device_of(self, unit: LogicalUnit) -> DeviceGroup | None:
        """The directory of a logical unit."""
        where = self._places.get(unit.name)
        if where is not None and where.device.unit is unit:
            return where
        for hba in self.groups.values():
            for each in hba.groups.values() if isinstance(hba, HbaGroup) else ():
                if isinstance(each, DeviceGroup) and each.device.unit is unit:
                    self._places[unit.name] = each
                    return each
        return None

    async def create(self, name: str) -> MadeGroup:
        match = _HBA.fullmatch(name)
        known = trees(self._runtime)
        if match is None or match["plugin"] not in known:
            raise ValueError(f"write a plugin and a number, such as fileio_0; plugins are {', '.join(sorted(known))}")
        return self._add(name, match["plugin"])
