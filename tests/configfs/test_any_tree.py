"""Whatever has been made at random, half of it refused, is saved, compared, applied elsewhere and loaded: it is the same."""

from __future__ import annotations

import dataclasses
import errno
import json
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.lio_tree import Site, serving
from support.programs import free_port

from tcm import saveconfig
from tcm.configfs.export import export
from tcm.configfs.node import Attribute, Group, Link, TreeError
from tcm.configfs.settings import Settings
from tcm.plugins import PluginManager
from tcm.runtime import Runtime

STEPS = 400
PORTS = [free_port() for _ in range(4)]
IQN = "iqn.2003-01.org.example"
DEVICE = r"core/(?P<plugin>[a-z]\w*)_\d+/[^/]+"
NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"core", ("rd_mcp_0", "rd_mcp_1", "fileio_0", "fileio_1", "null_0")),
    (r"core/[a-z]\w*_\d+", ("d0", "d1", "d2")),
    (r".*/alua", ("gp1", "gp2")),
    (r"core/alua/lu_gps", ("lg1", "lg2")),
    (r"iscsi", (f"{IQN}:t1", f"{IQN}:t2")),
    (r"loopback", ("naa.5001405000000001", "naa.5001405000000002")),
    (r"(iscsi|loopback)/[^/]+", ("tpgt_1", "tpgt_2", "tpgt_3")),
    (r".*/lun", ("lun_0", "lun_1", "lun_2")),
    (r".*/np", tuple(f"127.0.0.1:{port}" for port in PORTS)),
    (r".*/acls", (f"{IQN}:i0", f"{IQN}:i1")),
    (r".*/acls/[^/]+", ("lun_0", "lun_1", "lun_7")),
)
"""What may be made in a group."""
VALUES = (
    *("0", "1", "2", "3", "5", "15", "64", "100", "512", "4096", "65536", "1048576", "-1", "NULL", "Yes", "No", "None"),
    *("CRC32C", "CHAP", "CHAP,None", "alice", "secretsecret12", "10.0.0.0/8", "gp1", "lg1", "0x00abcd", "hello", "online"),
    *("offline", "naa.5001405000000077", f"{IQN}:i1", "fd_dev_size=8388608"),
)
NOT_WRITTEN = frozenset({"dbroot", "cpus_allowed_list"})
"""Of the process; not of what is served."""


def settings_of(site: Site) -> Settings:
    return Settings(
        site.tree,
        export,
        check=lambda config: saveconfig.check(config, site.runtime.plugins),
        read=saveconfig.read,
        write=lambda *_: None,
    )


class Maker:
    """Does one thing after another to a tree."""

    def __init__(self, site: Site, folder: Path, seed: int) -> None:
        self.site = site
        self.folder = folder
        self.random = random.Random(seed)
        self.refused = 0

    def groups(self) -> list[Group]:
        found: list[Group] = []
        left = [self.site.tree.root]
        while left:
            for each in left.pop().children().values():
                if isinstance(each, Group) and each.name not in {"statistics", "fabric_statistics"}:
                    found.append(each)
                    left.append(each)
        return found

    async def step(self) -> None:
        before = self.site.tree.revision
        groups = self.groups()
        group = self.random.choice(groups)
        do: Callable[..., Any] = self.random.choices(
            (self.make, self.link, self.write, self.remove, self.unlink), (30, 15, 40, 6, 3)
        )[0]
        try:
            await do(group, groups)
        except TreeError:
            self.refused += 1
            # of an `enable` that is refused, `control` was written
            assert self.site.tree.revision == before or do == self.write

    async def make(self, group: Group, groups: list[Group]) -> None:
        places = [(each, names) for each in groups for path, names in NAMES if re.fullmatch(path, each.path)]
        where, names = self.random.choice(places)
        await self.site.make(f"{where.path}/{self.random.choice(names)}")

    async def link(self, _group: Group, groups: list[Group]) -> None:
        patterns = self.random.choice(((r".*/lun/lun_\d+", DEVICE), (r".*/acls/[^/]+/lun_\d+", r".*/lun/lun_\d+")))
        ends = [[each.path for each in groups if re.fullmatch(pattern, each.path)] for pattern in patterns]
        if all(ends):
            where, target = map(self.random.choice, ends)
            await self.site.link(f"{where}/l", target)

    async def write(self, group: Group, _groups: list[Group]) -> None:
        if (match := re.fullmatch(DEVICE, group.path)) and self.random.random() < 0.7:
            control = {"fileio": f"fd_dev_name={self.folder}/{group.name},fd_dev_size=4194304", "rd_mcp": "rd_pages=1024"}
            await self.site.write(f"{group.path}/control", control.get(match["plugin"], "size=4M"))
            await self.site.write(f"{group.path}/enable", "1")
            return
        nodes = [each for each in group.children().values() if isinstance(each, Attribute) and each.writable]
        if nodes and (node := self.random.choice(nodes)).name not in NOT_WRITTEN:
            await self.site.write(node.path, "1" if node.name == "enable" else self.random.choice(VALUES))

    async def remove(self, group: Group, _groups: list[Group]) -> None:
        if group.path not in {"iscsi", "loopback"}:
            await self.site.remove(group.path)

    async def unlink(self, group: Group, _groups: list[Group]) -> None:
        for each in group.children().values():
            if isinstance(each, Link):
                await self.site.unlink(each.path)


def comparable(config: dict[str, Any]) -> Any:
    return json.loads(json.dumps(config, sort_keys=True))


@asynccontextmanager
async def started(path: Path, state: Path) -> AsyncIterator[Site]:
    """As ``tcm-run --config``."""
    plugins = PluginManager()
    fabrics = {"iscsi": {}, "loopback": {}}
    configuration = saveconfig.load(str(path), plugins, fabrics=fabrics)
    runtime = Runtime(dataclasses.replace(configuration, state_directory=str(state)), plugins, drain_timeout=0.5)
    async with anyio.create_task_group() as tasks:
        await tasks.start(runtime.serve)
        try:
            yield Site(runtime)
        finally:
            runtime.stop()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_was_made_at_random(tmp_path, seed, anyio_backend):
    async with serving(tmp_path, "iscsi", "loopback") as site:
        maker, settings = Maker(site, tmp_path, seed), settings_of(site)
        for number in range(STEPS):
            await maker.step()
            if number % 50 == 0:
                assert await settings.diff(await settings.export()) == []
        assert STEPS // 10 < maker.refused < STEPS * 3 // 4
        made = await settings.export()
    assert made["storage_objects"]
    assert made["targets"]
    async with serving(tmp_path / "elsewhere", "iscsi", "loopback") as site:
        await settings_of(site).apply(made)
        assert comparable(await settings_of(site).export()) == comparable(made)
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(made))
    async with started(path, tmp_path / "state") as site:
        assert comparable(await settings_of(site).export()) == comparable(made)


@pytest.mark.anyio
async def test_two_devices_of_one_name_would_be_one_in_a_file(tmp_path):
    async with serving(tmp_path) as site:
        await site.ramdisk("disk", hba="rd_mcp_0")
        await site.make("core/rd_mcp_1")
        with pytest.raises(TreeError, match="another HBA of rd_mcp has one of that name") as refused:
            await site.make("core/rd_mcp_1/disk")
        assert refused.value.number == errno.EEXIST
        await site.make_all("core/fileio_0/disk")
