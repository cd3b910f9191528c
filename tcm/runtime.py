"""Start-up and shut-down: builds what a :class:`~tcm.configuration.Configuration` says, serves it, and ends it in order.

Start: backstores open (in parallel), target devices get their LUNs, fabrics listen. Stop: fabrics drain for a bounded time and
are cancelled, tasks end, every medium is flushed and closed. What was opened is closed however the start fails.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import anyio
from anyio import TASK_STATUS_IGNORED

from tcm.adapters import adapt
from tcm.failure import ConfigError, RuntimeFailure
from tcm.filter import BackstoreFilter, unaccounted
from tcm.left_out import LeftOut, pruned
from tcm.live import LiveChanges
from tcm.options import one_line
from tcm.probing import unfit
from tcm.reasons import reason_of
from tcm.scsi.asymmetric_access import AccessStatus
from tcm.statistics.registry import Statistics
from tcm.target.device import TargetDevice
from tcm.target.directory_store import Claimed, DirectoryStore
from tcm.target.logical_unit import LogicalUnit
from tcm.target.logical_unit_group import LogicalUnitGroups
from tcm.tree_types import PortalGroupPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from anyio.abc import TaskGroup, TaskStatus

    from tcm.backstore import Backstore
    from tcm.configuration import Configuration, FabricConfig, PortalGroupConfig, StorageObject, TargetConfig
    from tcm.fabric import Fabric
    from tcm.plugins import PluginManager
    from tcm.target.portal_group import TargetPortalGroup

T = TypeVar("T")

log = logging.getLogger(__name__)

SIZE_INTERVAL = 5.0
"""Seconds after which a medium that was resized is noticed at the latest."""
DRAIN_TIMEOUT = 5.0
"""Seconds that initiators get to log out."""


class Runtime:
    """A configuration, alive.

    :param drain_timeout: seconds to wait for initiators to leave when stopping.
    :param size_interval: seconds between two looks at the sizes of the media.
    """

    def __init__(
        self,
        configuration: Configuration,
        plugins: PluginManager,
        *,
        drain_timeout: float = DRAIN_TIMEOUT,
        size_interval: float = SIZE_INTERVAL,
    ) -> None:
        self.configuration = configuration
        self.plugins = plugins
        self.drain_timeout = drain_timeout
        self.size_interval = size_interval
        self.storage_objects: dict[str, StorageObject] = {}
        """What is configured now, by path."""
        self.logical_units: dict[str, LogicalUnit] = {}
        """By the storage object's path."""
        self.logical_unit_groups = LogicalUnitGroups()
        self.targets: list[TargetDevice] = []
        self.fabrics: dict[str, Fabric] = {}
        self.store: DirectoryStore | None = None
        """Where logical units keep what has to outlive the process."""
        self.live = LiveChanges(self)
        """Changes while it serves."""
        self._served: dict[str, list[TargetDevice]] = {}
        """By fabric; the same list that the fabric has."""
        self._scopes: dict[str, anyio.CancelScope] = {}
        """Of fabrics that run."""
        self._claims: dict[str, int] = {}
        """File descriptors that keep other processes from serving a unit's serial, by the storage object's path."""
        self._opened: set[str] = set()
        self.left_out = LeftOut(plugins)
        """What of a saved configuration cannot be served, for the time being."""
        self.statistics = Statistics(self.logical_units, self.targets, self.fabrics, self.left_out.missing)
        self._stop = anyio.Event()

    unit_tasks: TaskGroup
    """Where commands run that take their time, while it serves."""
    fabric_tasks: TaskGroup

    def stop(self) -> None:
        """Ends :meth:`serve` in good order."""
        self._stop.set()

    async def serve(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Serves until :meth:`stop`. Calls ``task_status.started()`` once initiators can log in.

        Raises :class:`tcm.failure.ConfigError` for what the configuration has wrong, :class:`RuntimeFailure` for what else
        keeps it from starting, for a fabric that fails and for a medium that cannot be flushed.
        """
        if self.configuration.saved is not None:
            await self._leave_out(self.configuration.saved)
        self._build()
        try:
            self._claim_all()
            await self._serve(task_status)
        finally:
            for path in tuple(self._claims):
                self.release(path)

    async def _serve(self, task_status: TaskStatus[None]) -> None:
        try:
            async with anyio.create_task_group() as self.unit_tasks:
                await self._open_all()
                self.unit_tasks.start_soon(self._watch_sizes)
                async with anyio.create_task_group() as self.fabric_tasks:
                    await self._start_fabrics()
                    task_status.started()
                    await self._stop.wait()
                    await self._drain()
                    self.fabric_tasks.cancel_scope.cancel()
                self.unit_tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                lost = await self._close()
            if lost and sys.exc_info()[0] is None:
                raise RuntimeFailure(f"what was written last to {', '.join(lost)} may be lost: flushing failed, see the log")

    async def _leave_out(self, saved: Mapping[str, Any]) -> None:
        """What cannot be served keeps nothing else from being served."""
        reasons = await unfit(self.configuration, self.plugins, self.make_backstore)
        self.left_out.keep(saved, reasons)
        self.configuration = pruned(self.configuration, reasons)
        for each in self.left_out.missing():
            log.warning("%s", each)

    # building

    def _build(self) -> None:
        """Makes all objects; touches no medium and no network."""
        for group in self.configuration.logical_unit_groups:
            self.logical_unit_groups.add(group.name, group.identifier)
        directory = self.configuration.state_directory
        self.store = DirectoryStore(directory) if directory is not None else None
        for each in self.configuration.storage_objects:
            self.storage_objects[each.path] = each
            try:
                self.logical_units[each.path] = self.make_unit(each)
            except ConfigError:
                raise
            except Exception as error:  # a plug-in's factory
                raise RuntimeFailure(f"cannot make {each.path} ({each.type}): {reason_of(error)}") from error
        for config in self.configuration.targets:
            self._target(config)
        self._identify_ports()
        for fabric in self.configuration.fabrics:
            self._set_attributes(fabric, self.make_fabric(fabric.name, fabric.options))

    def make_unit(self, config: StorageObject, backstore: Backstore | None = None) -> LogicalUnit:
        """A logical unit that is not open and that nothing leads to yet.

        :param backstore: what it is made of; ``None``: what the configuration says.
        """
        unit = LogicalUnit(
            config.name,
            self.make_backstore(config) if backstore is None else backstore,
            attributes=config.attributes,
            serial=config.serial,
            removable=config.removable,
            read_only=config.read_only,
            identity=config.identity,
            store=self.store,
        )
        unit.unhandled_error = self.plugins.unhandled_error
        self._fill_access(unit, config)
        return unit

    def make_fabric(self, name: str, options: Any) -> Fabric:
        """A fabric that does not run yet."""
        fabric = self.fabrics[name] = self.plugins.fabric(name).factory(self.served(name), options)
        if self.store is not None:
            fabric.keep_in(self.store)
        return fabric

    def _identify_ports(self) -> None:
        """Those that have an identifier of their own get it; who has it already, another one."""
        wanted = {
            (target.name, target.fabric, group.tag): group.relative_target_port_identifier
            for target in self.configuration.targets
            for group in target.portal_groups
            if group.relative_target_port_identifier is not None
        }
        if not wanted:
            return
        groups = [group for target in self.targets for group in target.portal_groups.values()]
        others = []
        for group in groups:
            group.identify(None)
        for group in groups:
            identifier = wanted.get((group.target.name, group.target.fabric_name, group.tag))
            if identifier is None:
                others.append(group)
            else:
                group.identify(identifier)
        for group in others:
            group.take_identifier()

    def _set_attributes(self, config: FabricConfig, fabric: Fabric) -> None:
        """What a file says of the fabric itself. What this machine cannot do is left as it is."""
        table = self.plugins.fabric(config.name).tree.attributes
        for name, text in config.attributes.items():
            store = table[name].store
            assert store is not None
            try:
                store(fabric, text)
            except (ConfigError, OSError, ValueError) as error:
                log.warning("fabric %s: %s=%s: %s; it stays as it is", config.name, name, text, one_line(error))
        table = self.plugins.fabric(config.name).tree.discovery
        for name, text in config.discovery.items():
            if name in table and (store := table[name].store) is not None:
                store(fabric, text)

    def served(self, fabric: str) -> list[TargetDevice]:
        """The target devices of a fabric."""
        return self._served.setdefault(fabric, [])

    def _fill_access(self, unit: LogicalUnit, config: StorageObject) -> None:
        """Target port groups, LU group and LBA map."""
        groups = self.logical_unit_groups
        groups.assign(unit, groups.groups[config.logical_unit_group] if config.logical_unit_group else groups.default)
        access = unit.asymmetric_access
        if config.lba_map is not None:
            # has the default group support its state, unless that says otherwise
            access.set_lba_map(config.lba_map)
        for each in config.target_port_groups:
            if each.name == access.default.name:
                group = access.default
                group.attributes = each.attributes
            else:
                group = access.add_group(each.name, each.identifier, each.attributes)
            group.state, group.status = each.state, each.status

    def make_backstore(self, config: StorageObject) -> Backstore:
        """With its filters; not open."""
        backstore = adapt(self.plugins.backstore(config.type).factory(config.options))
        for each in reversed(config.filters):
            made = self.plugins.filter(each.type).factory(backstore, each.options)
            missing = unaccounted(type(made)) if isinstance(made, BackstoreFilter) else []
            if missing:
                raise ConfigError(
                    f"filter {each.type} does not account for {', '.join(missing)}, which would bypass it; "
                    "install a version of it that was made for this tcm-target"
                )
            backstore = adapt(made)
        return backstore

    def make_target(self, name: str, fabric: str) -> TargetDevice:
        """A target device without portal groups."""
        target = TargetDevice(name, fabric)
        target.nexus_established = self.plugins.nexus_established
        target.nexus_lost = self.plugins.nexus_lost
        target.unhandled_error = self.plugins.unhandled_error
        target.peers = self.targets
        self.targets.append(target)
        self.served(fabric).append(target)
        return target

    def _target(self, config: TargetConfig) -> None:
        target = self.make_target(config.name, config.fabric)
        for each in config.portal_groups:
            self._fill(target.add_portal_group(each.tag), each)

    def _fill(self, group: TargetPortalGroup, config: PortalGroupConfig) -> None:
        group.enabled = config.enabled
        group.attributes = config.attributes
        group.parameters = config.parameters
        group.dynamic_acl_attributes = config.dynamic_acl_attributes
        group.authentication = config.authentication
        group.access = config.access
        group.portals.extend(config.portals)
        for lun in config.luns:
            unit = self.logical_units[lun.storage_object.path]
            exported = group.add_lun(lun.index, unit, lun.alias)
            if lun.target_port_group is not None:
                unit.asymmetric_access.move(exported, unit.asymmetric_access.groups[lun.target_port_group])
            exported.offline, exported.alua_tg_pt_write_md = lun.offline, lun.write_metadata
            exported.offline_status = AccessStatus(lun.offline_status)
        for each in config.node_acls:
            acl = group.add_node_acl(each.initiator_name)
            acl.attributes = each.attributes
            acl.parameters, acl.own_parameters = each.parameters, each.own_parameters
            acl.authentication = each.authentication
            acl.tag = each.tag
            depth = getattr(config.attributes, "default_cmdsn_depth", acl.cmdsn_depth)
            acl.cmdsn_depth = getattr(each.attributes, "cmdsn_depth", 0) or depth
            for mapped in each.mapped_luns:
                group.map_lun(acl, mapped.index, mapped.tpg_lun, write_protect=mapped.write_protect, alias=mapped.alias)

    # starting

    def claim(self, path: str, serial: str) -> None:
        """Two processes that serve units of the same serial would undo what the other has kept.

        Raises :class:`ConfigError`, and ``OSError`` if the state directory cannot be written.
        """
        if self.store is None:
            return
        try:
            self._claims[path] = self.store.claim(quote(serial, safe=""))
        except Claimed as error:
            raise ConfigError(
                f"{path}: {error} serves a unit of serial {serial} with the same state directory {self.store}; "
                "stop that, or write another wwn or --state-dir"
            ) from None

    def release(self, path: str) -> None:
        """The end of :meth:`claim`."""
        descriptor = self._claims.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def _claim_all(self) -> None:
        for each in self.configuration.storage_objects:
            try:
                self.claim(each.path, each.serial)
            except OSError as error:
                log.warning(
                    "%s: cannot be written (%s): whatever initiators want to be kept will be refused",
                    self.store,
                    reason_of(error),
                )
                return

    async def open_unit(self, path: str, *, opened: bool = False) -> None:
        """Make a logical unit ready for commands. Raises what :meth:`LogicalUnit.open` does."""
        unit = self.logical_units[path]
        self._opened.add(path)
        unit.start(self.unit_tasks)
        await unit.open(opened=opened)

    async def close_unit(self, path: str) -> None:
        """Flush and close it, whatever that raises."""
        self._opened.discard(path)
        await self.logical_units[path].aclose()

    async def _open_all(self) -> None:
        failures: list[tuple[StorageObject, Exception]] = []

        async def open_one(config: StorageObject) -> None:
            try:
                await self.open_unit(config.path)
            except Exception as error:
                log.debug("opening %s failed", config.path, exc_info=True)
                failures.append((config, error))

        await _all(open_one, self.configuration.storage_objects)
        for config, error in failures:
            text = f"{config.path} ({config.type}): {reason_of(error)}"
            if config is not failures[-1][0]:
                log.error("%s", text)
            elif isinstance(error, ConfigError):
                raise ConfigError(text) from error
            else:
                raise RuntimeFailure(f"cannot open {text}") from error

    async def _start_fabrics(self) -> None:
        for target in self.targets:
            self.plugins.target_configured(target)
        await _all(self.start_fabric, self.fabrics)

    async def start_fabric(self, name: str) -> None:
        """Returns when initiators can log in. Raises :class:`ConfigError`."""

        async def run(*, task_status: TaskStatus[None]) -> None:
            with anyio.CancelScope() as scope:
                self._scopes[name] = scope
                await self.fabrics[name].run(task_status=task_status)
            if not (self._stop.is_set() or scope.cancel_called):
                raise RuntimeFailure(f"fabric {name} ended by itself")

        await self.fabric_tasks.start(run)
        self._set_files(name)

    def _set_files(self, name: str) -> None:
        """Of the portal groups that are configured."""
        fabric, table = self.fabrics[name], self.plugins.fabric(name).tree.portal_group
        configs = {(each.name, group.tag): group for each in self.configuration.targets for group in each.portal_groups}
        for target in self.served(name):
            for group in target.portal_groups.values():
                config = configs.get((target.name, group.tag))
                for each, text in config.files.items() if config is not None else ():
                    store = table[each].store
                    assert store is not None
                    store(PortalGroupPlace(fabric, group), text)

    def stop_fabric(self, name: str) -> None:
        """Give up its portals, now."""
        self._scopes.pop(name).cancel()
        del self.fabrics[name]

    async def _watch_sizes(self) -> None:
        """Initiators hear of a resize, and of a threshold that was reached, without asking."""
        told: set[str] = set()
        while True:
            await anyio.sleep(self.size_interval)
            for path, unit in tuple(self.logical_units.items()):
                if unit.failed:
                    continue
                try:
                    unit.check_size()
                    await unit.provisioning.check_thresholds()
                except Exception as error:  # noqa: BLE001  # a plug-in's; the next look may find it well again
                    if path not in told:
                        log.warning("%s does not tell its size: %s", path, one_line(error))
                        told.add(path)

    # stopping

    async def _drain(self) -> None:
        async def drain_one(name: str) -> None:
            try:
                await self.fabrics[name].drain()
            except Exception:
                log.exception("fabric %s failed while draining", name)

        log.info("stopping: asking initiators to log out")
        with anyio.move_on_after(self.drain_timeout) as scope:
            await _all(drain_one, self.fabrics)
        if scope.cancelled_caught:
            log.warning("initiators are still logged in after %g s: dropping them", self.drain_timeout)

    async def _close(self) -> list[str]:
        """Flushes and closes; returns the paths of what could not be flushed."""
        lost = []

        async def close_one(path: str) -> None:
            try:
                await self.close_unit(path)
            except Exception:
                log.exception("flushing and closing %s failed", path)
                lost.append(path)

        await _all(close_one, tuple(self._opened))
        return lost


async def _all(function: Callable[[T], Coroutine[Any, Any, None]], arguments: Iterable[T]) -> None:
    """Calls it with each argument, all at the same time; returns when the last call has."""
    async with anyio.create_task_group() as group:
        for argument in arguments:
            group.start_soon(function, argument)
