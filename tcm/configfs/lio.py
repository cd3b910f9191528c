"""The whole tree, ``/sys/kernel/config/target``, over a runtime that serves (lio-configfs 0)."""

from __future__ import annotations

import errno
import logging
import os
import platform
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tcm.configfs.core import CORE_VERSION, CoreGroup
from tcm.configfs.fabrics import FabricGroup
from tcm.configfs.node import Link, Tree, TreeError
from tcm.configfs.table import MadeGroup, ParentGroup, TableGroup
from tcm.live import InUse
from tcm.target.directory_store import DirectoryStore
from tcm.tree_types import TreeAttribute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tcm.configfs.node import Node
    from tcm.plugin_types import FabricType
    from tcm.runtime import Runtime
    from tcm.target.draining import Draining

log = logging.getLogger(__name__)

NO_DBROOT = "/var/target"
"""What LIO says unless told otherwise; here, that nothing is kept."""


def _version(_root: RootGroup) -> str:
    return (
        f"Target Engine Core ConfigFS Infrastructure {CORE_VERSION} on {platform.system()}/{platform.machine()}"
        f" on {platform.release()}"
    )


def _dbroot(root: RootGroup) -> str:
    store = root.runtime.store
    return store.directory if store is not None else NO_DBROOT


def _set_dbroot(root: RootGroup, text: str) -> None:
    """Where units keep what has to outlive the process."""
    if any(root.core.devices()):
        raise ValueError("dbroot cannot be changed while there are devices")
    if not os.path.isabs(text) or not os.path.isdir(text):
        raise ValueError(f"{text[:200]!r} is not a directory that exists; write its absolute path")
    if not os.access(text, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, f"{text[:200]!r} cannot be written by this process")
    root.runtime.store = DirectoryStore(text)
    log.info("what has to outlive this process is kept in %s from now on, as dbroot says", text)


class RootGroup(ParentGroup):
    """The root."""

    def __init__(self, runtime: Runtime) -> None:
        table = {"dbroot": TreeAttribute(_dbroot, _set_dbroot), "version": TreeAttribute(_version)}
        super().__init__("target", None, table, self)
        self.runtime = runtime
        self.core = self.attach(CoreGroup(self, runtime))
        self._kinds = {
            kind.tree.name or kind.name: kind for kind in map(runtime.plugins.fabric, runtime.plugins.names("fabric"))
        }
        for name, kind in self._kinds.items():
            if kind.name in runtime.fabrics:
                self.groups[name] = self._node(name, kind)

    def _node(self, name: str, kind: FabricType) -> FabricGroup:
        node = FabricGroup(name, self, kind, self.runtime.fabrics[kind.name], self.runtime.live, self.core)
        node.populate(self.runtime.served(kind.name))
        return node

    async def create(self, name: str) -> MadeGroup:
        """Run a fabric."""
        kind = self._kinds.get(name)
        if kind is None:
            raise OSError(errno.EINVAL, f"there is no such fabric; there are {', '.join(sorted(self._kinds))}")
        await self.runtime.live.add_fabric(kind)
        return self._node(name, kind)


class LioTree(Tree):
    """See the module. To be made once the runtime serves.

    Whatever else changes the runtime meanwhile is not seen, apart from values.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(RootGroup(runtime))
        self._live = runtime.live

    @asynccontextmanager
    async def drained(self, node: Node, seconds: float) -> AsyncIterator[None]:
        """See :class:`Tree`: LUNs, nexuses and portals in it."""
        try:
            async with self._live.drained([*_draining(node)], seconds):
                yield
        except InUse as error:
            raise TreeError(errno.EBUSY, f"{node.path}: {error.strerror}") from error


def _draining(node: Node) -> Iterator[Draining]:
    """What a link leads to is drained where the link is."""
    group = node.parent if isinstance(node, Link) else node
    if isinstance(group, TableGroup):
        own = tuple(group.draining())
        yield from own
        for each in group.children().values() if group is node and not own else ():
            if isinstance(each, TableGroup):
                yield from _draining(each)
