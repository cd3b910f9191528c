"""Bad input to every file of a tree that is in use: an errno and a line, and nothing has changed."""

from __future__ import annotations

import pytest
from support.lio_tree import IQN, NAA, Site, serving, walk
from support.programs import free_port
from tcm_loopback.commands import ApplicationClient

from tcm.configfs.node import Attribute, Group, Link, TreeError

pytestmark = pytest.mark.anyio
NONSENSE = ("x" * (1 << 20), "a\0b", "\udcff", "☃", "-1", "99999999999999999999", "1.5", "\n\n", "%n%s", "../../etc")
NAMES = ("..", ".", "", "a/../../b", "x" * 300, "a\0", "\x1b[2J", "☃", "lun_99999", "tpgt_99999", "iqn...", "naa.zz")


async def everything(site: Site):
    """A device, an iSCSI and a loopback target that export it."""
    device = await site.ramdisk()
    await site.make_all(f"{device}/alua/near", "core/alua/lu_gps/pair", "core/rd_mcp_0/raw")
    await site.write(f"{device}/alua/near/tg_pt_gp_id", "1")
    await site.write("core/alua/lu_gps/pair/lu_gp_id", "1")
    group = f"iscsi/{IQN}/tpgt_1"
    await site.make_all(f"{group}/lun/lun_0", f"{group}/acls/{IQN}/lun_0", f"{group}/np/127.0.0.1:{free_port()}")
    await site.link(f"{group}/lun/lun_0/link", device)
    await site.link(f"{group}/acls/{IQN}/lun_0/link", f"{group}/lun/lun_0")
    await site.loopback(device)
    await site.write(f"loopback/{NAA}/tpgt_1/nexus", NAA)


def nodes(group: Group):
    for node in group.children().values():
        yield node
        if isinstance(node, Group):
            yield from nodes(node)


async def refusal(operation) -> TreeError | None:
    """Why it was refused, in one line; ``None``: it was not."""
    try:
        await operation
    except TreeError as error:
        return error
    return None


async def test_nonsense_in_every_file(tmp_path):
    """What is refused changes nothing; what is taken, a text, is not longer than a page."""
    async with serving(tmp_path, "loopback") as site:
        await everything(site)
        client = ApplicationClient(site.connect())
        await client.identify()
        files = [node for node in nodes(site.tree.root) if isinstance(node, Attribute) and node.writable]
        assert len(files) > 150
        for file in files:
            for text in NONSENSE:
                before = dict(walk(file.parent))
                error = await refusal(site.write(file.path, text))
                if error is None:
                    assert len(text) <= 4096
                    continue
                assert "\n" not in str(error)
                assert len(str(error)) < 1000
                after = dict(walk(file.parent))
                assert {path for path in after if after[path] != before[path]} == set(), (file.path, text)
        await client.read(10, 0, 1, expect=None)


async def test_names_in_every_directory(tmp_path):
    """Only some directories take some names; ``..`` and its like none."""
    allowed = {"EPERM", "EINVAL", "EEXIST", "ENOENT", "ENOTDIR", "ENAMETOOLONG", "ENOSYS"}
    async with serving(tmp_path, "loopback") as site:
        await everything(site)
        groups = [site.tree.root, *(node for node in nodes(site.tree.root) if isinstance(node, Group))]
        for group in groups:
            before = list(group.children())
            for name in NAMES:
                error = await refusal(site.make(f"{group.path}/{name}"))
                if error is None:  # devices and groups may be called many things
                    assert group.name in {"alua", "lu_gps", "rd_mcp_0"}
                    assert name in {"☃", "lun_99999", "tpgt_99999", "iqn...", "naa.zz"}
                    await site.remove(f"{group.path}/{name}")
                else:
                    assert error.name in allowed, (group.path, name)
            assert list(group.children()) == before


async def test_links_everywhere(tmp_path):
    """A link to each directory in each directory: only the two kinds of LUNs take one, and theirs are there already."""
    async with serving(tmp_path, "loopback") as site:
        await everything(site)
        groups = [node for node in nodes(site.tree.root) if isinstance(node, Group)]
        some = [group for group in groups if "/statistics" not in group.path]
        for group in some:
            for target in some:
                with pytest.raises(TreeError) as error:
                    await site.link(f"{group.path}/to", target.path)
                assert site.refused(error) in {"EPERM", "EINVAL", "EEXIST", "ENODEV"}


async def test_rmdir_of_everything_in_any_order(tmp_path):
    """What is in use is refused; in the end all that was made can be removed, and the fabrics end."""
    async with serving(tmp_path, "loopback") as site:
        await everything(site)
        while True:
            progress = False
            for node in list(nodes(site.tree.root)):
                if isinstance(node, Attribute):
                    continue
                error = await refusal(site.unlink(node.path) if isinstance(node, Link) else site.remove(node.path))
                progress = progress or error is None
                assert error is None or error.name in {"EBUSY", "ENOTEMPTY", "EPERM", "ENOENT"}, (node.path, str(error))
            if not progress:
                break
        assert sorted(site.entries()) == [
            "core", "core/alua", "core/alua/lu_gps", "core/alua/lu_gps/default_lu_gp",
            "core/alua/lu_gps/default_lu_gp/lu_gp_id", "core/alua/lu_gps/default_lu_gp/members", "dbroot", "version",
        ]  # fmt: skip
        assert not site.runtime.fabrics
        assert not site.runtime.logical_units
        assert not site.runtime.targets
