"""Every hook a plug-in may implement. Hooks are synchronous, run at start-up or on rare events, and return descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.plugin_types import BackstoreType, FabricType, FilterType
    from tcm.target.device import TargetDevice
    from tcm.target.nexus import ITNexus

hookspec = pluggy.HookspecMarker("tcm")
hookimpl = pluggy.HookimplMarker("tcm")


@hookspec
def tcm_fabrics() -> Iterable[FabricType]:
    """The fabrics this plug-in provides.

    ::

        import anyio

        from tcm.fabric import Endpoint, Fabric
        from tcm.hookspecs import hookimpl
        from tcm.plugin_types import FabricType


        class Nowhere(Fabric):
            def __init__(self, targets, options):
                pass

            async def run(self, *, task_status):
                task_status.started()
                await anyio.sleep_forever()

            def endpoints(self):
                return [Endpoint("nowhere://0")]

            async def drain(self):
                pass


        @hookimpl
        def tcm_fabrics():
            names = {"check_name": str.lower, "default_name": lambda host, unique: f"nowhere.{unique}"}
            return [FabricType(name="nowhere", api_version=1, factory=Nowhere, **names)]

    If omitted: it provides none.
    """
    return ()


@hookspec
def tcm_backstores() -> Iterable[BackstoreType]:
    """The backstores this plug-in provides.

    ::

        from tcm.hookspecs import hookimpl
        from tcm.plugin_types import BackstoreType
        from tcm.testing import ModelBackstore


        @hookimpl
        def tcm_backstores():
            return [BackstoreType(name="model", api_version=1, factory=lambda options: ModelBackstore())]

    If omitted: it provides none.
    """
    return ()


@hookspec
def tcm_filters() -> Iterable[FilterType]:
    """The filters this plug-in provides.

    ::

        from tcm.filter import BackstoreFilter, methods
        from tcm.hookspecs import hookimpl
        from tcm.plugin_types import FilterType


        class Transparent(BackstoreFilter):
            passed_through = methods()


        @hookimpl
        def tcm_filters():
            return [FilterType(name="transparent", api_version=1, factory=lambda inner, options: Transparent(inner))]

    If omitted: it provides none.
    """
    return ()


@hookspec
def tcm_target_configured(target: TargetDevice) -> None:
    """A target device has all its portal groups and LUNs and is about to be served.

    ::

        from tcm.hookspecs import hookimpl


        @hookimpl
        def tcm_target_configured(target):
            print(target.name, [sorted(group.luns) for group in target.portal_groups.values()])

    If omitted: nothing happens.
    """


@hookspec
def tcm_nexus_established(nexus: ITNexus) -> None:
    """An initiator has logged in.

    ::

        from tcm.hookspecs import hookimpl


        @hookimpl
        def tcm_nexus_established(nexus):
            print(nexus.initiator_port.name, "came to", nexus.target_portal_group.target.name)

    If omitted: nothing happens.
    """


@hookspec
def tcm_nexus_lost(nexus: ITNexus) -> None:
    """An initiator's nexus is gone, and its tasks with it. ``nexus.luns`` is empty by now.

    ::

        from tcm.hookspecs import hookimpl


        @hookimpl
        def tcm_nexus_lost(nexus):
            print(nexus.initiator_port.name, "left", nexus.target_portal_group.target.name)

    If omitted: nothing happens.
    """


@hookspec
def tcm_unhandled_error(where: str, error: BaseException) -> None:
    """Something failed that nobody expected; the initiator was told INTERNAL TARGET FAILURE, or its connection was dropped.

    ::

        from tcm.hookspecs import hookimpl


        @hookimpl
        def tcm_unhandled_error(where, error):
            print(f"{where}: {error!r}")

    If omitted: it is in the log all the same.
    """
