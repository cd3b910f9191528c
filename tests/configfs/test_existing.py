"""A tree over what was configured before: the command line's, or a saveconfig.json of LIO's."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import anyio
import pytest
from support.programs import free_port
from support.tcm_process import TcmProcess

from tcm.cli.arguments import Arguments, configuration
from tcm.configfs.lio import LioTree
from tcm.configfs.node import Link
from tcm.failure import ConfigError
from tcm.plugins import PluginManager
from tcm.runtime import Runtime

DATA = Path(__file__).parent.parent / "data"


async def tree_of(arguments, use):
    plugins = PluginManager()
    runtime = Runtime(configuration(arguments, plugins), plugins, drain_timeout=0.5)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(runtime.serve)
            await use(LioTree(runtime))
            runtime.stop()


@pytest.mark.anyio
async def test_the_command_line(tmp_path):
    async def use(tree):
        assert list(tree.group("core").children()) == ["alua", "rd_mcp_0", "null_1", "fileio_2"]
        assert tree.read("core/null_1/zero/tcm_filters") == "readonly\n"
        (name,) = (name for name in tree.group("iscsi").children() if name.startswith("iqn."))
        group = f"iscsi/{name}/tpgt_1"
        links = [tree.group(f"{group}/lun/lun_{index}").children() for index in (0, 1, 5)]
        targets = [node.target for each in links for node in each.values() if isinstance(node, Link)]
        assert targets == ["/core/rd_mcp_0/lun0", "/core/null_1/zero", "/core/fileio_2/lun5"]
        (portal,) = tree.group(f"{group}/np").children()
        assert not portal.endswith(":0")
        assert tree.read(f"{group}/enable") == "1\n"
        assert tree.read(f"{group}/attrib/generate_node_acls") == "1\n"
        await tree.remove(f"{group}/np/{portal}")
        await tree.unlink(f"{group}/lun/lun_5/default")
        await tree.remove(f"{group}/lun/lun_5")
        await tree.remove("core/fileio_2/lun5")
        assert tree.read("core/alua/lu_gps/default_lu_gp/members") == "rd_mcp_0/lun0\nnull_1/zero\n"

    luns = ("ramdisk:size=1M", "null:size=1M,name=zero", f"5=fileio:path={tmp_path}/disk.img,size=1M")
    arguments = Arguments(
        fabrics=("iscsi",), portals=("127.0.0.1:0",), luns=luns, filters=("1=readonly",), state_dir=str(tmp_path / "state")
    )
    await tree_of(arguments, use)


@pytest.mark.anyio
async def test_a_saveconfig_of_lio(tmp_path):
    saved = json.loads((DATA / "lio-saveconfig.json").read_text(encoding="utf-8"))
    for each in saved["storage_objects"]:
        if "dev" in each:
            each["dev"] = str(tmp_path / "file.img")
    for target in saved["targets"]:
        for group in target["tpgs"]:
            for portal in group.get("portals", []):
                portal.update(ip_address="127.0.0.1", port=free_port())
    path = tmp_path / "saveconfig.json"
    path.write_text(json.dumps(saved), encoding="utf-8")

    async def use(tree):
        group = "iscsi/iqn.2003-01.org.linux-iscsi.lio:t1/tpgt_2"
        acl = f"{group}/acls/iqn.2025-01.test.vm:guest"
        assert tree.read(f"{acl}/auth/userid") == "alice\n"
        assert tree.find(f"{group}/lun/lun_0/cc82f03a36").target == "/core/fileio_1/file0"
        (link,) = (node for node in tree.group(f"{acl}/lun_0").children().values() if isinstance(node, Link))
        assert link.target == f"/{group}/lun/lun_0"
        assert link.name == "7167243a46"
        assert tree.read("core/fileio_1/file0/attrib/emulate_model_alias") == "1\n"
        assert tree.read("core/rd_mcp_0/ram0/wwn/product_id") == "ram0\n"

    await tree_of(Arguments(config=str(path), state_dir=str(tmp_path / "state")), use)


def test_the_process_begins_empty(tmp_path):
    with TcmProcess(tmp_path, "--fabric", "iscsi", "--empty") as tcm:
        tcm.wait_for("nothing is served yet", in_log=True)
        assert tcm.out == ""
        tcm.signal(signal.SIGTERM)
        assert tcm.exit_code() == 0


@pytest.mark.anyio
async def test_nothing_at_first(tmp_path):
    async def use(tree):
        assert list(tree.root.children()) == ["dbroot", "version", "core", "iscsi"]
        assert list(tree.group("core").children()) == ["alua"]

    async def add(tree):
        assert list(tree.root.children()) == ["dbroot", "version", "core"]
        await tree.make("loopback")

    await tree_of(Arguments(empty=True, state_dir=str(tmp_path)), add)
    await tree_of(Arguments(fabrics=("iscsi",), empty=True, state_dir=str(tmp_path)), use)
    await tree_of(Arguments(fabrics=("iscsi:isns=127.0.0.1:9",), empty=True, state_dir=str(tmp_path)), use)


@pytest.mark.parametrize(
    "more", [{"luns": ("null:size=1M",)}, {"portals": ("127.0.0.1",)}, {"config": "x"}, {"targets": ("iqn.2001-01.a:b",)}]
)
def test_empty_goes_with_nothing_that_would_be_there(tmp_path, more):
    with pytest.raises(ConfigError, match="--empty"):
        configuration(Arguments(fabrics=("iscsi",), empty=True, state_dir=str(tmp_path), **more), PluginManager())
