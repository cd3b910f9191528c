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

    If omitted: it provides none.
    """
    return ()


@hookspec
def tcm_backstores() -> Iterable[BackstoreType]:
    """The backstores this plug-in provides.

    If omitted: it provides none.
    """
    return ()


@hookspec
def tcm_filters() -> Iterable[FilterType]:
    """The filters this plug-in provides.

    If omitted: it provides none.
    """
    return ()


@hookspec
def tcm_target_configured(target: TargetDevice) -> None:
    """A target device has all its portal groups and LUNs and is about to be served.

    If omitted: nothing happens.
    """


@hookspec
def tcm_nexus_established(nexus: ITNexus) -> None:
    """An initiator has logged in.

    If omitted: nothing happens.
    """


@hookspec
def tcm_nexus_lost(nexus: ITNexus) -> None:
    """An initiator's nexus is gone, and its tasks with it.

    If omitted: nothing happens.
    """


@hookspec
def tcm_unhandled_error(where: str, error: BaseException) -> None:
    """Something failed that nobody expected; the initiator was told INTERNAL TARGET FAILURE, or its connection was dropped.

    If omitted: it is in the log all the same.
    """
