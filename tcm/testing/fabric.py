"""The contract of :class:`tcm.fabric.Fabric` and its descriptor as tests.

::

    class TestMyFabric(FabricContract):
        @pytest.fixture
        def fabric_type(self):
            return MY_FABRIC

        async def connect(self, fabric):
            async with my_initiator(fabric.endpoints()[0].url):
                yield
"""

from __future__ import annotations

import dataclasses
import socket
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import pytest

from tcm.fabric import Fabric
from tcm.fabric_statistics import CountsRow, LioGroup, LoginRow, PortalRow, SessionRow
from tcm.failure import ConfigError
from tcm.options import NAME, build, options_of
from tcm.plugin_types import API_VERSION, FabricType
from tcm.target.device import TargetDevice
from tcm.target.logical_unit import LogicalUnit
from tcm.target.node_acl import AccessControl
from tcm.target.portal_group import NetworkPortal
from tcm.testing.model import ModelBackstore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from anyio.abc import TaskStatus


PROMPTLY = 10.0
"""Seconds in which everything here has to happen."""


class Running:
    """A fabric that runs, and how to end it."""

    def __init__(self, fabric: Fabric, target: TargetDevice | None) -> None:
        self.fabric = fabric
        self._target = target
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    @property
    def target(self) -> TargetDevice:
        """The one that it began with."""
        assert self._target is not None
        return self._target

    async def serve(self, *, task_status: TaskStatus[None]) -> None:
        """Runs it."""
        with self._scope:
            await self.fabric.run(task_status=task_status)
        assert self._scope.cancelled_caught, "run() returned by itself, or swallowed its cancellation"
        self._ended.set()

    async def stop(self) -> None:
        """Cancels it, and returns when it has ended."""
        self._scope.cancel()
        await self._ended.wait()


class FabricContract:
    """Subclass it, name the class ``Test...`` and give it the fixture ``fabric_type``: the descriptor of your plug-in.

    Override :meth:`connect` to have sessions tested too.
    """

    options: ClassVar[Mapping[str, object]] = {}
    """Option values to make the fabric with, as the command line gives them; a fixture may set ``self.options``."""

    @asynccontextmanager
    async def connect(self, fabric: Fabric) -> AsyncIterator[None]:  # noqa: ARG002  for those who override it
        """Log an initiator in to ``fabric``, which runs, for as long as the context lasts or the target keeps it."""
        yield

    def _needs_connect(self) -> None:
        if type(self).connect is FabricContract.connect:
            pytest.skip("connect() is not overridden")

    def target(self, kind: FabricType, unit: LogicalUnit) -> TargetDevice:
        """A target device with ``unit`` as LUN 0, open to every initiator."""
        target = TargetDevice(kind.check_name(kind.default_name("host", "0123456789ab")), kind.name)
        group = target.add_portal_group(1)
        group.attributes = kind.tpg_attributes()
        group.parameters = kind.tpg_parameters()
        group.access = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
        if kind.uses_portals:
            group.portals.append(NetworkPortal("127.0.0.1", 0))
        group.add_lun(0, unit)
        return target

    @asynccontextmanager
    async def running(self, kind: FabricType) -> AsyncIterator[Running]:
        """A fabric that serves one target; it is cancelled at the end, and has to end then."""
        with anyio.fail_after(PROMPTLY):
            async with anyio.create_task_group() as tasks:
                unit = LogicalUnit("disk", ModelBackstore(), serial=str(uuid.UUID(int=1)))
                unit.start(tasks)
                await unit.open()
                target = self.target(kind, unit)
                running = Running(kind.factory([target], build(kind.options, self.options, "")), target)
                await tasks.start(running.serve)
                yield running
                await running.stop()
                assert not target.portal_groups[1].nexuses, "nexuses outlive the fabric"
                await unit.aclose()

    def test_descriptor(self, fabric_type: FabricType) -> None:
        """Name, version and the four dataclasses are as the plug-in manager wants them."""
        assert isinstance(fabric_type, FabricType)
        assert NAME.fullmatch(fabric_type.name)
        assert 1 <= fabric_type.api_version <= API_VERSION
        for kind in (fabric_type.options, fabric_type.tpg_attributes, fabric_type.tpg_parameters, fabric_type.acl_attributes):
            assert dataclasses.is_dataclass(kind)
        for group in (fabric_type.tpg_attributes, fabric_type.tpg_parameters, fabric_type.acl_attributes):
            group()
        for option in options_of(fabric_type.options).values():
            assert option.help, f"option {option.name} has no help"

    def test_options(self, fabric_type: FabricType) -> None:
        """The option values of this test are good ones."""
        made: Any = build(fabric_type.options, self.options, "")
        if fabric_type.check_config is not None:
            fabric_type.check_config(made)

    def test_names(self, fabric_type: FabricType) -> None:
        """The default name is stable, differs by installation, and is in normal form; what is no name at all is refused."""
        name = fabric_type.default_name("host", "0123456789ab")
        assert name == fabric_type.default_name("host", "0123456789ab")
        assert name != fabric_type.default_name("host", "ba9876543210")
        normal = fabric_type.check_name(name)
        assert fabric_type.check_name(normal) == normal
        for bad in ("", " ", "a\0b", "x" * 5000):
            with pytest.raises(ConfigError):
                fabric_type.check_name(bad)

    @pytest.mark.anyio
    async def test_runs_until_cancelled(self, fabric_type: FabricType) -> None:
        """``run`` reports that it has started, serves until cancelled, and ends cleanly then."""
        async with self.running(fabric_type) as running:
            assert list(running.fabric.targets()) in ([], [running.target])

    @pytest.mark.anyio
    async def test_endpoints(self, fabric_type: FabricType) -> None:
        """Once it runs, each LUN has an endpoint with a URL; portal 0 has become a real port."""
        async with self.running(fabric_type) as running:
            endpoints = running.fabric.endpoints()
            assert endpoints
            for endpoint in endpoints:
                scheme, separator, rest = endpoint.url.partition("://")
                assert scheme
                assert separator
                assert rest
                assert ":0/" not in rest

    @pytest.mark.anyio
    async def test_drain_ends(self, fabric_type: FabricType) -> None:
        """With nobody logged in there is nothing to wait for."""
        async with self.running(fabric_type) as running:
            await running.fabric.drain()

    @pytest.mark.anyio
    async def test_runs_again(self, fabric_type: FabricType) -> None:
        """Nothing is left behind that would hinder the next one."""
        for _ in range(2):
            async with self.running(fabric_type) as running:
                assert running.fabric.endpoints()

    @pytest.mark.anyio
    async def test_session(self, fabric_type: FabricType) -> None:
        """A login is a nexus and a line in ``sessions``."""
        self._needs_connect()
        async with self.running(fabric_type) as running:
            if type(running.fabric).add_portal is Fabric.add_portal:
                return
            group = running.target.portal_groups[1]
            before = len(group.nexuses)
            async with self.connect(running.fabric):
                assert len(group.nexuses) == before + 1
                assert all("\n" not in line for line in running.fabric.sessions())
                self._check_statistics(running.fabric)

    @staticmethod
    def _check_statistics(fabric: Fabric) -> None:
        """What it counts, if it does, are rows of their types; those of sessions name the initiators that there are."""
        found = fabric.statistics()
        if found is None:
            return
        assert all(isinstance(row, PortalRow) for row in found.portals())
        assert all(isinstance(row, LoginRow) for row in found.logins())
        assert all(isinstance(row, CountsRow) and row.part for row in found.counts())
        names = {
            nexus.initiator_port.name
            for target in fabric.targets()
            for g in target.portal_groups.values()
            for nexus in g.nexuses
        }
        for row in found.sessions():
            assert isinstance(row, SessionRow)
            assert row.initiator in names
        for target in fabric.targets():
            groups = found.target_groups(target)
            assert all(isinstance(each, LioGroup) for each in groups)
            assert len({each.GROUP for each in groups}) == len(groups), "two directories of one name"

    @pytest.mark.anyio
    async def test_cancelled_with_a_session(self, fabric_type: FabricType) -> None:
        """A session does not keep ``run`` from ending, and its nexus goes with it."""
        self._needs_connect()
        async with self.running(fabric_type) as running, self.connect(running.fabric):
            assert running.target.portal_groups[1].nexuses
            await running.stop()
            assert not running.target.portal_groups[1].nexuses

    @pytest.mark.anyio
    async def test_port_taken(self, fabric_type: FabricType) -> None:
        """A portal that cannot be had is a :class:`ConfigError` that names it, before ``run`` has started."""
        if not fabric_type.uses_portals:
            pytest.skip("has no portals")
        unit = LogicalUnit("disk", ModelBackstore(), serial=str(uuid.UUID(int=1)))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            target = self.target(fabric_type, unit)
            target.portal_groups[1].portals[:] = [NetworkPortal("127.0.0.1", port)]
            fabric = fabric_type.factory([target], build(fabric_type.options, self.options, ""))
            caught: list[ConfigError] = []
            with anyio.fail_after(PROMPTLY):
                async with anyio.create_task_group() as serving:
                    try:
                        await serving.start(fabric.run)
                    except ConfigError as error:
                        caught.append(error)
                    serving.cancel_scope.cancel()
        assert caught, "it started on a port that is taken"
        assert str(port) in str(caught[0])

    @pytest.mark.anyio
    async def test_a_nexus_is_dropped(self, fabric_type: FabricType) -> None:
        """``drop`` ends a session; the fabric goes on."""
        self._needs_connect()
        async with self.running(fabric_type) as running:
            group = running.target.portal_groups[1]
            async with self.connect(running.fabric):
                for nexus in tuple(group.nexuses):
                    running.fabric.drop(nexus)
                    assert nexus.lost
                assert not group.nexuses
            async with self.connect(running.fabric):
                assert group.nexuses

    @pytest.mark.anyio
    async def test_targets_and_portal_groups_come_and_go(self, fabric_type: FabricType) -> None:
        """The fabric serves what is there, and what was there before is not disturbed."""
        with anyio.fail_after(PROMPTLY):
            async with anyio.create_task_group() as tasks:
                targets: list[TargetDevice] = []
                running = Running(fabric_type.factory(targets, build(fabric_type.options, self.options, "")), None)
                await tasks.start(running.serve)
                fabric = running.fabric
                assert not fabric.endpoints()
                unit = LogicalUnit("disk", ModelBackstore(), serial=str(uuid.UUID(int=1)))
                unit.start(tasks)
                await unit.open()
                target = TargetDevice(
                    fabric_type.check_name(fabric_type.default_name("host", "0123456789ab")), fabric_type.name
                )
                targets.append(target)
                fabric.target_added(target)
                group = target.add_portal_group(1)
                group.attributes, group.parameters = fabric_type.tpg_attributes(), fabric_type.tpg_parameters()
                fabric.portal_group_added(group)
                group.add_lun(0, unit)
                fabric.node_acl_added(group, group.add_node_acl(target.name))
                fabric.demo_mode_entered(group)
                if fabric_type.uses_portals and type(fabric).add_portal is not Fabric.add_portal:
                    group.portals.append(await fabric.add_portal(group, NetworkPortal("127.0.0.1", 0)))
                assert len(fabric.endpoints()) == (1 if group.portals or not fabric_type.uses_portals else 0)
                for portal in tuple(group.portals):
                    group.portals.remove(portal)
                    await fabric.remove_portal(group, portal)
                group.enabled = False
                fabric.portal_group_enabled(group)
                fabric.parameters_changed(group)
                for portal in tuple(group.portals):
                    draining = fabric.drain_portal(group, portal)
                    if draining is not None:
                        draining.begin(0.0, 1.0)
                        assert draining.waits_for(10.0) == ""
                        draining.end()
                renewal = fabric.reload()
                assert renewal is None or callable(renewal)
                group.remove_lun(0)
                target.remove_portal_group(1)
                fabric.portal_group_removed(group)
                targets.remove(target)
                fabric.target_removed(target)
                assert not fabric.endpoints()
                await running.stop()
                await unit.aclose()

    @pytest.mark.anyio
    async def test_portals_come_and_go(self, fabric_type: FabricType) -> None:
        """One that cannot be had is refused and changes nothing; nobody listens at one that was removed."""
        if not fabric_type.uses_portals:
            pytest.skip("has no portals")
        async with self.running(fabric_type) as running:
            if type(running.fabric).add_portal is Fabric.add_portal:
                return
            group = running.target.portal_groups[1]
            before = len(running.fabric.endpoints())
            portal = await running.fabric.add_portal(group, NetworkPortal("127.0.0.1", 0))
            assert portal.port
            assert len(running.fabric.endpoints()) == before + 1
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                with pytest.raises(ConfigError) as caught:
                    await running.fabric.add_portal(group, NetworkPortal("127.0.0.1", taken.getsockname()[1]))
            assert isinstance(caught.value.__cause__, OSError)
            await running.fabric.remove_portal(group, portal)
            assert len(running.fabric.endpoints()) == before
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind((portal.address, portal.port))
