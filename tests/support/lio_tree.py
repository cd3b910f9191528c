"""LIO's ConfigFS tree in tests: one over a running target, what it holds, and what a dump of LIO's holds."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from tcm_loopback.fabric import LoopbackFabric
from tcm_loopback.initiator import LoopbackInitiator

from tcm.configfs.lio import LioTree
from tcm.configfs.node import Attribute, Group, Link, TreeError
from tcm.configuration import Configuration, FabricConfig
from tcm.options import build
from tcm.plugins import PluginManager
from tcm.runtime import Runtime

IQN = "iqn.2003-01.org.example:t1"
NAA = "naa.5001405000000001"
INITIATOR = "naa.5001405000000099"
SERIAL = "b7a36fbd-94eb-4c69-8c09-ff4c53d8877a"


class Entry(NamedTuple):
    """A directory (no mode), a link (its target as content), or a file."""

    mode: int | None
    content: str | None
    """``None``: cannot be read."""


class Site:
    """A target with its tree.

    :ivar tree: the tree.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.tree = LioTree(runtime)
        self.make = self.tree.make
        self.write = self.tree.write
        self.link = self.tree.link
        self.unlink = self.tree.unlink
        self.remove = self.tree.remove
        self.read = self.tree.read

    async def make_all(self, *paths: str) -> None:
        """Directories, and those they are in."""
        for path in paths:
            names = path.split("/")
            for count in range(1, len(names) + 1):
                try:
                    self.tree.find("/".join(names[:count]))
                except TreeError:
                    await self.make("/".join(names[:count]))

    async def ramdisk(self, name: str = "ram0", *, hba: str = "rd_mcp_0", pages: int = 256) -> str:
        """A device of so many pages of 4 KiB."""
        path = f"core/{hba}/{name}"
        await self.make_all(path)
        await self.write(f"{path}/control", f"rd_pages={pages}\n")
        await self.write(f"{path}/enable", "1\n")
        return path

    async def loopback(self, device: str, lun: int = 0, tag: int = 1) -> str:
        """A loopback portal group that exports a device."""
        group = f"loopback/{NAA}/tpgt_{tag}"
        await self.make_all(f"{group}/lun/lun_{lun}")
        await self.link(f"{group}/lun/lun_{lun}/link", device)
        return group

    def connect(self, tag: int = 1) -> LoopbackInitiator:
        """An initiator of the loopback target."""
        fabric = self.runtime.fabrics["loopback"]
        assert isinstance(fabric, LoopbackFabric)
        return fabric.port(NAA, tag).connect(INITIATOR)

    def refused(self, error: Any) -> str:
        """The errno's name."""
        value: Any = error.value
        assert isinstance(value, TreeError)
        assert "\n" not in str(value)
        return value.name

    def entries(self) -> dict[str, Entry]:
        """All there is."""
        return dict(walk(self.tree.root))


@asynccontextmanager
async def serving(directory: Path, *fabrics: str) -> AsyncIterator[Site]:
    """A runtime with nothing in it, and its tree."""
    plugins = PluginManager()
    configs = tuple(FabricConfig(name=name, options=build(plugins.fabric(name).options, {}, "")) for name in fabrics)
    configuration = Configuration(fabrics=configs, storage_objects=(), targets=(), state_directory=str(directory / "state"))
    runtime = Runtime(configuration, plugins, drain_timeout=0.5)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(runtime.serve)
            try:
                yield Site(runtime)
            finally:
                runtime.stop()


def walk(group: Group) -> Iterator[tuple[str, Entry]]:
    """Paths and what is there."""
    for node in group.children().values():
        assert group.child(node.name) is not None
        if isinstance(node, Attribute):
            yield node.path, Entry(node.mode, _content(node))
        elif isinstance(node, Link):
            yield node.path, Entry(0o777, node.target)
        else:
            assert isinstance(node, Group)
            yield node.path, Entry(None, None)
            yield from walk(node)


def _content(node: Attribute) -> str | None:
    try:
        return node.read().rstrip("\n") if node.readable else None
    except TreeError:
        return None


_LINE = re.compile(
    r"(?P<path>[^ ]+?)(?:(?P<directory>/)| -> (?P<target>.*)|"
    r" \((?P<mode>\d+)\)(?:(?P<multi> =)| = (?P<content>.*)| (?P<failed>!) .*)?)"
)


def captured(path: Path) -> dict[str, Entry]:
    """What a dump of LIO's tree holds."""
    found: dict[str, Entry] = {}
    last = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        if line.startswith("    | "):
            entry = found[last]
            found[last] = entry._replace(content="\n".join(filter(None, (entry.content, line[6:]))))
            continue
        match = _LINE.fullmatch(line)
        assert match is not None, line
        last = match["path"]
        if match["directory"]:
            found[last] = Entry(None, None)
        elif match["target"]:
            found[last] = Entry(0o777, "/" + match["target"].partition("/target/")[2])
        else:
            mode = int(match["mode"], 8)
            found[last] = Entry(mode, None if match["failed"] or not mode & 0o400 else match["content"] or "")
    return found
