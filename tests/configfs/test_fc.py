"""The shape of ``fc/`` beside a dump of ``tcm_fc``'s, with a fabric that nobody can reach in place of FCoE."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest
from support.lio_tree import Entry, Site, captured
from tcm_fcoe.tree import TREE

from tcm.backstore import ConfigError
from tcm.configfs.node import TreeError
from tcm.configuration import Configuration
from tcm.fabric import Fabric
from tcm.hookspecs import hookimpl
from tcm.plugin_types import API_VERSION, FabricType
from tcm.plugins import PluginManager
from tcm.runtime import Runtime

CAPTURE = Path(__file__).parent.parent / "data" / "lio-fc-configfs.txt"
PORT, INITIATOR = "20:00:52:54:00:2f:fc:00", "20:00:52:54:00:f5:97:00"
GROUP = f"fc/{PORT}/tpgt_1"


class Unreachable(Fabric):
    def __init__(self, targets, _options):
        self._targets = targets

    async def run(self, *, task_status):
        task_status.started()
        await anyio.sleep_forever()

    def endpoints(self):
        return ()

    async def drain(self):
        pass


def check_name(name):
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){7}", name):
        raise ConfigError(f"{name[:40]!r} is not a port name")
    return name


class Plugin:
    @hookimpl
    def tcm_fabrics(self):
        return [
            FabricType(
                name="unreachable",
                api_version=API_VERSION,
                factory=Unreachable,
                check_name=check_name,
                default_name=lambda _host, _unique: PORT,
                tree=TREE,
            )
        ]


@pytest.mark.anyio
async def test_beside_the_dump(tmp_path):
    plugins = PluginManager()
    plugins.register(Plugin(), "unreachable")
    configuration = Configuration(fabrics=(), storage_objects=(), targets=(), state_directory=str(tmp_path))
    runtime = Runtime(configuration, plugins, drain_timeout=0.5)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            await tasks.start(runtime.serve)
            site = Site(runtime)
            device = await site.ramdisk()
            await site.make_all(f"{GROUP}/lun/lun_0", f"{GROUP}/acls/{INITIATOR}/lun_0")
            await site.link(f"{GROUP}/lun/lun_0/4c724818f8", device)
            await site.link(f"{GROUP}/acls/{INITIATOR}/lun_0/93883bd14c", f"{GROUP}/lun/lun_0")
            theirs = {f"fc/{path}": entry for path, entry in captured(CAPTURE).items()}
            ours = {path: entry for path, entry in site.entries().items() if path.startswith("fc/")}
            assert sorted(theirs.keys() - ours.keys()) == []
            more = re.compile(r".*/(rtpi|param/(default|direct)_\w+)")
            assert [path for path in sorted(ours.keys() - theirs.keys()) if not more.fullmatch(path)] == []
            assert {path for path in theirs if theirs[path].mode != ours[path].mode} == set()
            assert ours[f"{GROUP}/acls/{INITIATOR}/node_name"] == Entry(0o644, "00:00:00:00:00:00:00:00")
            assert ours[f"{GROUP}/acls/{INITIATOR}/port_name"] == Entry(0o644, INITIATOR)
            for path, text in (("port_name", PORT), ("node_name", PORT), ("port_name", "x"), ("tag", "x" * 64)):
                with pytest.raises(TreeError) as error:
                    await site.write(f"{GROUP}/acls/{INITIATOR}/{path}", text)
                assert site.refused(error) == "EINVAL"
            await site.write(f"{GROUP}/acls/{INITIATOR}/tag", "rack")
            assert site.read(f"{GROUP}/acls/{INITIATOR}/tag") == "rack\n"
            for path in (f"fc/{PORT}/tpgt_2", f"fc/{PORT}/tpgt_0", "fc/nonsense", f"{GROUP}/acls/nonsense"):
                with pytest.raises(TreeError) as error:
                    await site.make(path)
                assert site.refused(error) == "EINVAL"
            runtime.stop()
