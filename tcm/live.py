"""Changes of what a :class:`tcm.runtime.Runtime` serves, while it does: each takes effect at once, or changes nothing.

What is refused because something is in use is :class:`InUse`; what cannot be is :class:`tcm.failure.ConfigError`.
"""

from __future__ import annotations

import errno
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from tcm.configuration import TargetPortGroupConfig, access_of, portal_text
from tcm.failure import ConfigError, RuntimeFailure
from tcm.options import build

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from tcm.configuration import StorageObject
    from tcm.fabric import Fabric
    from tcm.plugin_types import FabricType
    from tcm.runtime import Runtime
    from tcm.target.device import TargetDevice
    from tcm.target.draining import Draining
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import NetworkPortal, TargetPortalGroup

log = logging.getLogger(__name__)


_DRAIN_INTERVAL = 0.02
"""Seconds between two looks at what is under way."""


class InUse(OSError):
    """Something is in use, and so cannot be removed or changed."""

    def __init__(self, text: str, number: int = errno.EBUSY) -> None:
        super().__init__(number, text)


class LiveChanges:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._serials: dict[str, str] | None = None
        """Who had each unit serial last: a path."""
        self._drains = False

    @asynccontextmanager
    async def drained(self, things: Sequence[Draining], seconds: float) -> AsyncIterator[None]:
        """Inside, nothing of them is under way, and nothing begins: they can be removed. What is still there then goes on.

        Raises :class:`InUse` if something is under way after ``seconds``; all is as before then.
        """
        if self._drains:
            raise InUse("something is being drained already; try again when that is done")
        begun: list[Draining] = []
        end = anyio.current_time() + seconds
        self._drains = True
        try:
            for each in things:
                begun.append(each)
                each.begin(anyio.current_time(), seconds)
            while waits := [text for each in things if (text := each.waits_for(anyio.current_time()))]:
                if anyio.current_time() >= end:
                    more = f" and {len(waits) - 3} more" if len(waits) > 3 else ""
                    raise InUse(
                        f"after {seconds:g} s there are still {'; '.join(waits[:3])}{more}; nothing was removed, and commands"
                        " are taken again"
                    )
                await anyio.sleep(_DRAIN_INTERVAL)
            yield
        finally:
            for each in reversed(begun):
                each.end()
            self._drains = False

    # logical units

    async def add_unit(self, config: StorageObject) -> LogicalUnit:
        """Open one more. Raises :class:`ConfigError`, ``OSError``, :class:`tcm.failure.RuntimeFailure`."""
        runtime, path = self._runtime, config.path
        if path in runtime.logical_units:
            raise InUse(f"{path} is there already", errno.EEXIST)
        self._check_serial(path, config.serial)
        unit = runtime.make_unit(config)
        self._claim(path, config.serial)
        runtime.logical_units[path] = unit
        runtime.storage_objects[path] = config
        try:
            with anyio.CancelScope(shield=True):
                await runtime.open_unit(path)
        except Exception:
            await self._forget(path)
            raise
        runtime.left_out.forget(path)
        return unit

    async def replace_unit(self, config: StorageObject) -> LogicalUnit:
        """The same medium as another logical unit, whose configuration may differ in anything but path and backstore.

        For what cannot change under initiators: nobody may export it. Raises as :meth:`add_unit`.
        """
        runtime, path = self._runtime, config.path
        before, old = runtime.storage_objects[path], runtime.logical_units[path]
        self.check_unused(old)
        if config.serial != before.serial:
            self._check_serial(path, config.serial)
        before = replace(before, target_port_groups=groups_of(old))
        config = replace(config, target_port_groups=groups_of(old))
        with anyio.CancelScope(shield=True):
            try:
                await old.aclose(leave_open=True)
                self._release_and_claim(path, before.serial, config.serial)
                unit = await self._take_over(config, old)
            except Exception:
                self._release_and_claim(path, config.serial, before.serial)
                await self._take_over(before, old)
                raise
        return unit

    async def _take_over(self, config: StorageObject, old: LogicalUnit) -> LogicalUnit:
        runtime, path = self._runtime, config.path
        group = old.asymmetric_access.logical_unit_group
        unit = runtime.make_unit(replace(config, logical_unit_group=None), old.backstore)
        if group is not None:
            if old in group.members:
                group.members.remove(old)
            runtime.logical_unit_groups.assign(unit, group)
        unit.asymmetric_access.lba_map = old.asymmetric_access.lba_map
        unit.succeed(old)
        runtime.logical_units[path], runtime.storage_objects[path] = unit, config
        await runtime.open_unit(path, opened=True)
        return unit

    async def remove_unit(self, path: str) -> None:
        """Flush, close, forget. Raises :class:`InUse` while it is exported.

        Raises :class:`tcm.failure.RuntimeFailure` if it cannot be flushed; it is gone nevertheless.
        """
        unit = self._runtime.logical_units[path]
        self.check_unused(unit)
        try:
            await self._forget(path)
        except Exception as error:
            log.exception("flushing and closing %s failed", path)
            raise RuntimeFailure(f"what was written last to {unit.name} may be lost: flushing failed, see the log") from error

    async def _forget(self, path: str) -> None:
        runtime = self._runtime
        with anyio.CancelScope(shield=True):
            try:
                await runtime.close_unit(path)
            finally:
                unit = runtime.logical_units.pop(path)
                group = unit.asymmetric_access.logical_unit_group
                if group is not None and unit in group.members:
                    group.members.remove(unit)
                serial = runtime.storage_objects.pop(path).serial
                if self._serials is not None and self._serials.get(serial) == path:
                    del self._serials[serial]
                runtime.release(path)

    @staticmethod
    def check_unused(unit: LogicalUnit) -> None:
        """Raises :class:`InUse` while a target port exports it."""
        if unit.ports:
            where = ", ".join(lun.path for lun in unit.asymmetric_access.luns())
            raise InUse(f"{unit.name} is exported as {where}")

    def _check_serial(self, path: str, serial: str) -> None:
        objects = self._runtime.storage_objects
        if self._serials is None:
            self._serials = {config.serial: other for other, config in objects.items()}
        other = self._serials.get(serial, path)
        if other != path and other in objects and objects[other].serial == serial:
            raise ConfigError(f"{other} has the unit serial {serial} already; write another one")
        self._serials[serial] = path

    def _claim(self, path: str, serial: str) -> None:
        try:
            self._runtime.claim(path, serial)
        except OSError as error:
            log.warning("%s: %s: whatever initiators want to be kept will be refused", self._runtime.store, error)

    def _release_and_claim(self, path: str, before: str, after: str) -> None:
        if before != after:
            self._runtime.release(path)
            self._claim(path, after)

    # fabrics and targets

    def fabric_of(self, target: TargetDevice) -> Fabric:
        """The running fabric of a target device."""
        return self._runtime.fabrics[target.fabric_name]

    def reload(self) -> list[Callable[[], None]]:
        """What fabrics have in files, read again; each of the results puts it in force. Raises :class:`ConfigError`."""
        found = []
        for name, fabric in self._runtime.fabrics.items():
            try:
                renewal = fabric.reload()
            except ConfigError as error:
                raise ConfigError(f"fabric {name}: {error}") from error
            if renewal is not None:
                found.append(renewal)
        return found

    def configured_attributes(self, fabric: str) -> Mapping[str, str]:
        """What the configuration said of the fabric itself."""
        return next((each.attributes for each in self._runtime.configuration.fabrics if each.name == fabric), {})

    async def add_fabric(self, kind: FabricType) -> Fabric:
        """Run one more, with the options' defaults. Raises :class:`ConfigError`."""
        options = build(kind.options, {}, f"{kind.name}: ")
        fabric = self._runtime.make_fabric(kind.name, options)
        try:
            await self._runtime.start_fabric(kind.name)
        except BaseException:
            del self._runtime.fabrics[kind.name]
            raise
        return fabric

    async def remove_fabric(self, name: str) -> None:
        """End one. Raises :class:`InUse` while it has targets."""
        if self._runtime.served(name):
            raise InUse(f"fabric {name} has targets")
        self._runtime.stop_fabric(name)

    def add_target(self, name: str, fabric: str) -> TargetDevice:
        """A target device without portal groups."""
        target = self._runtime.make_target(name, fabric)
        self._runtime.plugins.target_configured(target)
        self._runtime.fabrics[fabric].target_added(target)
        return target

    def remove_target(self, target: TargetDevice) -> None:
        """Raises :class:`InUse` while it has portal groups."""
        if target.portal_groups:
            raise InUse(f"{target.name} has portal groups", errno.ENOTEMPTY)
        self._runtime.targets.remove(target)
        self._runtime.served(target.fabric_name).remove(target)
        self._runtime.left_out.forget_place(target.fabric_name, target.name)
        self.fabric_of(target).target_removed(target)

    # portal groups

    def add_portal_group(self, target: TargetDevice, tag: int) -> TargetPortalGroup:
        """A portal group without LUNs and portals; off, if its fabric switches portal groups on."""
        kind = self._runtime.plugins.fabric(target.fabric_name)
        group = target.add_portal_group(tag)
        group.enabled = not kind.tree.enable
        group.attributes = kind.tpg_attributes()
        group.parameters = kind.tpg_parameters()
        group.access = access_of(group.attributes)
        self.fabric_of(target).portal_group_added(group)
        return group

    async def remove_portal_group(self, group: TargetPortalGroup) -> None:
        """With its nexuses. Raises :class:`InUse` while it has LUNs, portals or explicit node ACLs."""
        explicit = [acl for acl in group.node_acls.values() if not acl.dynamic]
        for what, there in (("LUNs", group.luns), ("portals", group.portals), ("node ACLs", explicit)):
            if there:
                raise InUse(f"portal group {group.tag} of {group.target.name} has {what}", errno.ENOTEMPTY)
        group.enabled = False
        self.drop_nexuses(group)
        group.target.remove_portal_group(group.tag)
        self._runtime.left_out.forget_place(group.target.fabric_name, group.target.name, group.tag)
        self.fabric_of(group.target).portal_group_removed(group)

    def enable_portal_group(self, group: TargetPortalGroup, *, enabled: bool) -> None:
        """Switch it on or off; off, its nexuses are dropped."""
        if group.enabled is enabled:
            return
        group.enabled = enabled
        self.fabric_of(group.target).portal_group_enabled(group)
        if not enabled:
            self.drop_nexuses(group)

    def drop_nexuses(self, group: TargetPortalGroup, initiator: str | None = None) -> None:
        """End an initiator's sessions there (``None``: everybody's)."""
        fabric = self.fabric_of(group.target)
        for nexus in [nexus for nexus in group.nexuses if initiator in {None, nexus.initiator_port.name}]:
            fabric.drop(nexus)

    def set_attribute(self, group: TargetPortalGroup, attributes: Any) -> None:
        """Other ``attrib/`` of a portal group; who is logged in stays so."""
        before = group.access
        group.attributes = attributes
        group.access = access_of(attributes)
        if group.access.generate_node_acls and not before.generate_node_acls:
            self.fabric_of(group.target).demo_mode_entered(group)

    def set_relative_identifier(self, group: TargetPortalGroup, identifier: int) -> None:
        """Another RELATIVE TARGET PORT IDENTIFIER, of a group that is off."""
        if group.enabled and self._runtime.plugins.fabric(group.target.fabric_name).tree.enable:
            raise ConfigError(f"portal group {group.tag} of {group.target.name} is enabled; disable it first")
        if not 0 < identifier <= 0xFFFF:
            raise ConfigError(f"{identifier}: write a number from 1 to 65535")
        for target in self._runtime.targets:
            for other in target.portal_groups.values():
                if other is not group and other.relative_target_port_identifier == identifier:
                    raise ConfigError(f"{identifier} is {target.name}, portal group {other.tag}; write another number")
        group.identify(identifier)

    def set_parameters(self, group: TargetPortalGroup, parameters: Any) -> None:
        """Other ``param/`` of a portal group, and of node ACLs but for their own. Raises :class:`ConfigError`."""
        changed = [
            (acl, self._with_own(acl, parameters, acl.own_parameters)) for acl in group.node_acls.values() if acl.own_parameters
        ]
        group.parameters = parameters
        for acl, made in changed:
            acl.parameters = made
        self.fabric_of(group.target).parameters_changed(group)

    def set_own_parameters(self, group: TargetPortalGroup, acl: NodeAcl, own: Mapping[str, Any]) -> None:
        """What is not the portal group's of a node ACL's ``param/``. Raises :class:`ConfigError`."""
        acl.parameters = self._with_own(acl, group.parameters, own) if own else None
        acl.own_parameters = dict(own)
        self.fabric_of(group.target).parameters_changed(group)

    @staticmethod
    def _with_own(acl: NodeAcl, parameters: Any, own: Mapping[str, Any]) -> Any:
        try:
            return replace(parameters, **own)
        except ConfigError as error:
            raise ConfigError(f"node ACL {acl.initiator_name}, with its own {', '.join(own)}: {error}") from error

    def set_dynamic_acl_attributes(self, group: TargetPortalGroup, attributes: Any) -> None:
        """Other ``attrib/`` of node ACLs that demo mode makes, and has made."""
        group.dynamic_acl_attributes = attributes
        for acl in group.node_acls.values():
            if acl.dynamic:
                acl.attributes = attributes

    # network portals

    async def add_portal(self, group: TargetPortalGroup, portal: NetworkPortal) -> NetworkPortal:
        """Listen there too. Raises :class:`InUse` if another group of the same target does."""
        for other in group.target.portal_groups.values():
            if portal in other.portals:
                raise InUse(f"{portal_text(portal)} is a portal of group {other.tag} of the same target", errno.EEXIST)
        bound = await self.fabric_of(group.target).add_portal(group, portal)
        group.portals.append(bound)
        self._runtime.left_out.served(group, bound)
        return bound

    # LUNs

    def add_lun(self, group: TargetPortalGroup, number: int, unit: LogicalUnit, alias: str) -> None:
        """Export a unit. Raises ``OSError`` (EBUSY) if the number is kept for another, ``ValueError`` if it is taken."""
        self._runtime.left_out.check_lun(group, number)
        group.add_lun(number, unit, alias)

    def map_lun(self, group: TargetPortalGroup, acl: NodeAcl, number: int, lun_number: int, alias: str) -> None:
        """Show a LUN to an initiator. Raises as :meth:`add_lun`."""
        self._runtime.left_out.check_mapped_lun(group, acl, number)
        group.map_lun(acl, number, lun_number, alias=alias)

    async def remove_portal(self, group: TargetPortalGroup, portal: NetworkPortal) -> None:
        """Do not listen there any more, unless for another target."""
        group.portals.remove(portal)
        await self.fabric_of(group.target).remove_portal(group, portal)

    # node ACLs

    def add_node_acl(self, group: TargetPortalGroup, name: str) -> NodeAcl:
        """A node ACL; an initiator that demo mode has let in keeps its LUNs and its sessions."""
        kind = self._runtime.plugins.fabric(group.target.fabric_name)
        acl = group.add_node_acl(name)
        acl.attributes = kind.acl_attributes()
        acl.cmdsn_depth = getattr(group.attributes, "default_cmdsn_depth", acl.cmdsn_depth)
        self.fabric_of(group.target).node_acl_added(group, acl)
        return acl

    def remove_node_acl(self, group: TargetPortalGroup, acl: NodeAcl) -> None:
        """With the initiator's sessions there."""
        self.drop_nexuses(group, acl.initiator_name)
        if group.node_acls.get(acl.initiator_name) is acl:
            group.remove_node_acl(acl.initiator_name)
            target = group.target
            self._runtime.left_out.forget_place(target.fabric_name, target.name, group.tag, acl.initiator_name)


def groups_of(unit: LogicalUnit) -> tuple[TargetPortGroupConfig, ...]:
    """The target port groups of a unit as a configuration."""
    return tuple(
        TargetPortGroupConfig(
            name=group.name,
            identifier=group.identifier,
            attributes=group.attributes,
            state=group.state,
            status=group.status,
        )
        for group in unit.asymmetric_access.groups.values()
    )
