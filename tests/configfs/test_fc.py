"""The shape of ``fc/`` beside a dump of ``tcm_fc``'s, and what becomes of the fabric as it is configured."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.lio_tree import Entry, Site, captured
from tcm_fcoe.attributes import FcoeOptions
from tcm_fcoe.fabric import FcoeFabric

from tcm import saveconfig
from tcm.configfs.export import export
from tcm.configfs.node import TreeError
from tcm.configuration import Configuration, FabricConfig
from tcm.plugins import PluginManager
from tcm.runtime import Runtime

pytestmark = pytest.mark.anyio

CAPTURE = Path(__file__).parent.parent / "data" / "lio-fc-configfs.txt"
PORT, INITIATOR = "20:00:52:54:00:2f:fc:00", "20:00:52:54:00:f5:97:00"
GROUP = f"fc/{PORT}/tpgt_1"


@asynccontextmanager
async def fcoe_tree(folder: Path) -> AsyncIterator[Site]:
    """The tree of a fabric whose interface leads nowhere."""
    options = FcoeOptions(interface=(f"unix:{folder}/ours,{folder}/theirs",))
    fabrics = (FabricConfig(name="fcoe", options=options),)
    configuration = Configuration(fabrics=fabrics, storage_objects=(), targets=(), state_directory=str(folder))
    runtime = Runtime(configuration, PluginManager(), drain_timeout=0.5)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(runtime.serve)
            try:
                yield Site(runtime)
            finally:
                runtime.stop()


async def test_beside_the_dump(tmp_path):
    async with fcoe_tree(tmp_path) as site:
        device = await site.ramdisk()
        await site.make_all(f"{GROUP}/lun/lun_0", f"{GROUP}/acls/{INITIATOR}/lun_0")
        await site.link(f"{GROUP}/lun/lun_0/4c724818f8", device)
        await site.link(f"{GROUP}/acls/{INITIATOR}/lun_0/93883bd14c", f"{GROUP}/lun/lun_0")
        theirs = {f"fc/{path}": entry for path, entry in captured(CAPTURE).items()}
        ours = {path: entry for path, entry in site.entries().items() if path.startswith("fc/")}
        assert sorted(theirs.keys() - ours.keys()) == []
        more = re.compile(r"fc/hbas|.*/(rtpi|param/(default|direct)_\w+|fabric_statistics/fc_port(/\w+)?|tpgt_1/attrib/\w+)")
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


async def test_a_target_is_a_port_while_it_has_a_portal_group(tmp_path):
    async with fcoe_tree(tmp_path) as site:
        fabric = site.runtime.fabrics["fcoe"]
        assert isinstance(fabric, FcoeFabric)
        (server,) = fabric.interfaces
        await site.make_all(f"fc/{PORT}")
        assert (list(fabric.ports), server.station.ports) == ([PORT], {})
        await site.make(GROUP)
        assert [name.hex(":") for name in server.station.ports] == [PORT]
        statistics = f"fc/{PORT}/fabric_statistics/fc_port"
        assert site.read(f"{statistics}/port_state") == "Linkdown\n"
        assert site.read(f"{statistics}/node_name") == "10:00:52:54:00:2f:fc:00\n"
        await site.make_all("fc/naa.20005254002ffc01/tpgt_1")
        assert len(server.station.ports) == 2
        await site.remove(GROUP)
        await site.remove(f"fc/{PORT}")
        assert [name.hex(":") for name in server.station.ports] == ["20:00:52:54:00:2f:fc:01"]


async def test_demo_mode(tmp_path):
    async with fcoe_tree(tmp_path) as site:
        await site.make_all(GROUP)
        assert site.read(f"{GROUP}/attrib/generate_node_acls") == "0\n"
        await site.write(f"{GROUP}/attrib/generate_node_acls", "1")
        (target,) = site.runtime.targets
        assert target.portal_groups[1].admits(INITIATOR)


def exported(site: Site) -> dict[str, Any]:
    steps = export(site.tree)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


async def test_saved_and_read_again(tmp_path):
    """What is exported is fabric tcm_fc as rtslib has it, and makes the same targets, LUNs and node ACLs."""
    async with fcoe_tree(tmp_path) as site:
        device = await site.ramdisk()
        await site.make_all(f"{GROUP}/lun/lun_0", f"{GROUP}/acls/{INITIATOR}/lun_3")
        await site.link(f"{GROUP}/lun/lun_0/x", device)
        await site.link(f"{GROUP}/acls/{INITIATOR}/lun_3/y", f"{GROUP}/lun/lun_0")
        await site.write(f"{GROUP}/acls/{INITIATOR}/tag", "rack")
        document = exported(site)
    (saved,) = document["targets"]
    assert (saved["fabric"], saved["wwn"]) == ("tcm_fc", PORT)
    path = tmp_path / "saveconfig.json"
    path.write_text(json.dumps(document))
    fabrics = {"fcoe": {"interface": f"unix:{tmp_path}/ours,{tmp_path}/theirs"}}
    loaded = saveconfig.load(str(path), PluginManager(), fabrics=fabrics)
    (target,) = loaded.targets
    (group,) = target.portal_groups
    assert (target.name, target.fabric, [lun.index for lun in group.luns]) == (PORT, "fcoe", [0])
    (acl,) = group.node_acls
    assert (acl.initiator_name, acl.tag, [(each.index, each.tpg_lun) for each in acl.mapped_luns]) == (
        INITIATOR,
        "rack",
        [(3, 0)],
    )
    assert not group.access.generate_node_acls
