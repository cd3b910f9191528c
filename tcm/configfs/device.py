"""``core/<HBA>/<device>``: a storage object, first a mere configuration, from ``enable`` on a logical unit (lio-configfs 3)."""

from __future__ import annotations

import errno
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from tcm.backstore import Backstore
from tcm.configfs import statistics
from tcm.configfs.asymmetric_access import TargetPortGroups, lba_map_text, set_lba_map, set_logical_unit_group
from tcm.configfs.device_attributes import ATTRIBUTES
from tcm.configfs.identity import IDENTITY
from tcm.configfs.reservations import RESERVATIONS
from tcm.configfs.script import control_pairs
from tcm.configfs.table import FixedGroup, MadeGroup, flag
from tcm.configuration import MAXIMUM_TEXT, FilterConfig, StorageObject, check_serial, make_filter, make_options
from tcm.failure import ConfigError
from tcm.live import groups_of
from tcm.option_syntax import join_pairs, split_spec
from tcm.options import options_of
from tcm.saveconfig_names import PLUGINS
from tcm.statistics.lio import device_groups
from tcm.target.attributes import Identity
from tcm.tree_types import BackstoreTree, TreeAttribute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcm.configfs.node import Group
    from tcm.plugin_types import BackstoreType
    from tcm.runtime import Runtime
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.logical_unit_group import LogicalUnitGroup


class _Unconfigured(Backstore):
    """Stands where the backstore will be once the device is enabled. Nobody opens it."""

    def size(self) -> int:
        return 0

    async def open(self) -> None:
        raise OSError(errno.ENODEV, "not configured")

    async def aclose(self) -> None:
        """It was not open."""

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:  # noqa: ARG002  there is nothing to read
        raise OSError(errno.ENODEV, "not configured")


class Device:
    """What the tables of a storage object are called with.

    :param path: of the storage object, in the runtime.
    :param inst: the HBA's number, for the statistics.
    """

    def __init__(self, runtime: Runtime, kind: BackstoreType, tree: BackstoreTree, name: str, path: str, inst: int) -> None:
        self.runtime = runtime
        self.kind = kind
        self.tree = tree
        self.name = name
        self.path = path
        self.inst = inst
        self.alias = ""
        self.udev_path = ""
        self.model_alias = False
        self.values: dict[str, Any] = {}
        """Options that ``control`` has said so far."""
        self.filters: tuple[FilterConfig, ...] = ()
        product = tree.product or tree.plugin.upper()
        identity = Identity(product=product[:16], revision="4.0")
        self._config = StorageObject(path=path, name=name, type=kind.name, options=None, serial="", identity=identity)
        self._stand_in: LogicalUnit | None = None
        """Made when somebody wants to know something of it, or set it."""

    def _placeholder(self, config: StorageObject) -> LogicalUnit:
        """Takes attributes and target port groups, and keeps nothing."""
        unit = self.runtime.make_unit(config, _Unconfigured())
        unit.store = None
        return unit

    @property
    def enabled(self) -> bool:
        """It is a logical unit that can be exported."""
        return self.path in self.runtime.logical_units

    @property
    def config(self) -> StorageObject:
        """What is configured."""
        return self.runtime.storage_objects.get(self.path, self._config)

    @property
    def dev(self) -> str:
        """What a saveconfig.json calls so: the medium's path; empty if it has none."""
        has_one = "dev" in PLUGINS.get(self.tree.saveconfig or self.tree.plugin, {})
        return str(getattr(self.config.options, "path", "")) if has_one else ""

    @property
    def unit(self) -> LogicalUnit:
        """What is served; before it is enabled, something that cannot be opened."""
        unit = self.runtime.logical_units.get(self.path) or self._stand_in
        if unit is None:
            unit = self._stand_in = self._placeholder(self._config)
        return unit

    @property
    def logical_unit_group(self) -> LogicalUnitGroup | None:
        """Where it is a member."""
        if self.enabled or self._stand_in is not None:
            return self.unit.asymmetric_access.logical_unit_group
        return self.runtime.logical_unit_groups.default

    @property
    def exported(self) -> bool:
        """A target port exports it."""
        return self.ports > 0

    @property
    def ports(self) -> int:
        """How many LUNs lead here."""
        return len(self.unit.ports) if self.enabled else 0

    def check_not_exported(self, what: str) -> None:
        """Raises ``ValueError``: LIO's EINVAL."""
        if self.exported:
            raise ValueError(f"{what} cannot be changed while the device is exported as {', '.join(self.exports)}")

    @property
    def exports(self) -> list[str]:
        """The LUNs that lead here, as :attr:`tcm.target.lun.Lun.path`."""
        return [lun.path for lun in self.unit.asymmetric_access.luns()] if self.enabled else []

    def check_enabled(self) -> None:
        """Raises ``OSError`` (ENODEV) before ``enable``."""
        if not self.enabled:
            raise OSError(errno.ENODEV, "the device is not enabled; write 1 to its enable first")

    def configure(self, **changes: Any) -> None:
        """Change the configuration without more ado; the caller has changed the unit."""
        config = replace(self.config, **changes)
        if self.enabled:
            self.runtime.storage_objects[self.path] = config
        else:
            self._config = config

    async def rebuild(self, **changes: Any) -> None:
        """Another configuration, for what the unit takes up only at its beginning. Nobody may export it."""
        config = replace(self.config, **changes)
        if self.enabled:
            await self.runtime.live.replace_unit(config)
        else:
            self._config = config
            old = self._stand_in
            if old is not None:
                self._stand_in = self._placeholder(replace(config, target_port_groups=groups_of(old)))
                self._move_to(self._stand_in, old)

    def _move_to(self, unit: LogicalUnit, old: LogicalUnit) -> None:
        """LBA map and LU group membership."""
        unit.asymmetric_access.lba_map = old.asymmetric_access.lba_map
        group = old.asymmetric_access.logical_unit_group
        if group is not None:
            if old in group.members:
                group.members.remove(old)
            self.runtime.logical_unit_groups.assign(unit, group)

    def forget(self) -> None:
        """It is removed before it was enabled."""
        unit, self._stand_in = self._stand_in, None
        group = unit.asymmetric_access.logical_unit_group if unit is not None else None
        if group is not None and unit in group.members:
            group.members.remove(unit)

    # control, enable

    async def control(self, text: str) -> None:
        """``key=value`` pairs. Takes all of them, or none; once the device is enabled only a greater size."""
        if self.enabled:
            await self._grow(self._pairs(text))
        else:
            self.values |= self._pairs(text)

    def _pairs(self, text: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for pair in control_pairs(text):
            key, equals, value = pair.partition("=")
            if not pair.strip():
                continue
            if not equals:
                keys = ", ".join(self._keys())
                raise ValueError(f"{pair[:60]!r} is not key=value; keys are {keys} (and a comma in a value is \\,)")
            found |= self._control(key.strip(), value)
        return found

    async def _grow(self, values: dict[str, Any]) -> None:
        if self.tree.grow is None or set(values) != {"size"}:
            raise ValueError(f"the device is enabled; {'only its size can grow; ' if self.tree.grow else ''}make another one")
        size = values["size"]
        if size % self.unit.block_size:
            raise ValueError(f"{size} bytes are no whole blocks; write a multiple of {self.unit.block_size}")
        await to_thread.run_sync(self.tree.grow, self.config.options, size)
        self.configure(options=replace(self.config.options, size=size))
        self.unit.check_size()

    def _keys(self) -> list[str]:
        options = () if self.tree.controls else options_of(self.kind.options)
        return sorted({*self.tree.controls, *options, "read_only", "removable"})

    def _control(self, key: str, value: str) -> dict[str, Any]:
        if key not in self._keys():
            raise ValueError(f"{key[:60]!r} is unknown; keys are {', '.join(self._keys())}")
        if key in self.tree.controls:
            try:
                return dict(self.tree.controls[key](value))
            except ValueError as error:
                raise ValueError(f"{key}={value[:60]}: {error}") from None
        return {key: flag(value) if key in {"read_only", "removable"} else value}

    async def enable(self, text: str) -> None:
        """Open the backstore and make a logical unit of it."""
        if text != "1":
            raise ValueError("only 1 can be written; remove the directory to disable the device")
        if self.enabled:
            raise OSError(errno.EEXIST, "the device is enabled already")
        values = {**self.tree.defaults, **self.values}
        read_only, removable = (bool(values.pop(key, False)) for key in ("read_only", "removable"))
        known = options_of(self.kind.options)
        defaults = {key: value for key, value in values.items() if key in known}
        options = make_options(self.kind, defaults, "control: ")
        config = replace(
            self._config,
            options=options,
            filters=self.filters,
            serial=self._config.serial or str(uuid.uuid4()),
            target_port_groups=groups_of(self._stand_in) if self._stand_in is not None else (),
            read_only=read_only,
            removable=removable,
        )
        unit = await self.runtime.live.add_unit(config)
        if self._stand_in is not None:
            self._move_to(unit, self._stand_in)
            self._stand_in = None

    async def set_serial(self, serial: str) -> None:
        """Another identity."""
        self.check_not_exported("the unit serial")
        if check_serial(serial) != self.config.serial:
            await self.rebuild(serial=serial)

    def info(self) -> str:
        """The text that rtslib takes its facts from."""
        unit = self.unit
        status = "ACTIVATED" if self.exported else "DEACTIVATED"
        depth, limit = 0, unit.limits.maximum_transfer_length
        first = f"Status: {status}  Max Queue Depth: {depth}  SectorSize: {unit.block_size}  HwMaxSectors: {limit}"
        if not self.enabled:
            return first
        options = self.config.options
        if self.tree.info is not None:
            return f"{first}\n{self.tree.info(options, unit.blocks << unit.block_shift, unit.read_only)}"
        shown = {each.key: str(getattr(options, each.name)) for each in options_of(type(options)).values() if not each.secret}
        return f"{first}\n        {self.kind.name}: {join_pairs(shown)}"

    # filters

    def show_filters(self) -> str:
        """A line for each, outermost first."""
        lines = []
        for each in self.config.filters if self.enabled else self.filters:
            known = options_of(type(each.options)).values()
            values = {
                option.key: str(getattr(each.options, option.name))
                for option in known
                if not option.secret and getattr(each.options, option.name) not in {None, option.default}
            }
            lines.append(f"{each.type}:{join_pairs(values)}" if values else each.type)
        return "\n".join(lines)

    def set_filters(self, text: str) -> None:
        """The same, before the device is enabled."""
        if self.enabled:
            raise ValueError("the device is enabled; filters are chosen before")
        made = []
        for line in text.splitlines():
            name, values = split_spec(line.strip(), "tcm_filters")
            made.append(make_filter(self.runtime.plugins, name, values, f"tcm_filters: {name}", f"tcm_filters: {name}: "))
        self.filters = tuple(made)


def _text(name: str) -> TreeAttribute:
    def store(device: Device, text: str) -> None:
        if len(text) > MAXIMUM_TEXT:
            raise ValueError(f"write at most {MAXIMUM_TEXT} characters")
        setattr(device, name, text)

    return TreeAttribute(lambda device: str(getattr(device, name)), store, exact=True)


def _group_text(device: Device) -> str:
    group = device.unit.asymmetric_access.logical_unit_group
    return f"LU Group Alias: {group.name}\nLU Group ID: {group.identifier}" if group is not None else ""


DEVICE = {
    "alias": _text("alias"),
    "alua_lu_gp": TreeAttribute(_group_text, set_logical_unit_group),
    "control": TreeAttribute(None, Device.control, exact=True),
    "enable": TreeAttribute(lambda device: f"{device.enabled:d}", Device.enable),
    "info": TreeAttribute(Device.info),
    "lba_map": TreeAttribute(lba_map_text, set_lba_map),
    "tcm_filters": TreeAttribute(Device.show_filters, Device.set_filters),
    "udev_path": _text("udev_path"),
}


class DeviceGroup(MadeGroup):
    """The directory."""

    def __init__(self, parent: Group, device: Device) -> None:
        super().__init__(device.name, parent, DEVICE, device)
        self.device = device
        self.attach(FixedGroup("action", self))
        self.attach(TargetPortGroups("alua", self, device))
        self.attach(FixedGroup("attrib", self, ATTRIBUTES, device))
        self.attach(FixedGroup("pr", self, RESERVATIONS, device))
        self.attach(
            statistics.StatisticsGroup("statistics", self, statistics.DEVICE, lambda: device_groups(device.unit, device.inst))
        )
        self.attach(FixedGroup("wwn", self, IDENTITY, device))

    @property
    def links(self) -> Sequence[str]:
        """LUNs."""
        return self.device.exports

    async def destroy(self) -> None:
        if self.device.enabled:
            await self.device.runtime.live.remove_unit(self.device.path)
        else:
            self.device.forget()


def check_name(name: str) -> None:
    """Raises :class:`ConfigError` for what cannot be a storage object's name."""
    if not name or any(character in name for character in "/ \t\n"):
        raise ConfigError(f"{name!r}: no slash, space, tab or newline; write for example disk0")
