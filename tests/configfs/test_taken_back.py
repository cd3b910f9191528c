"""``apply`` of another configuration, refused at each of its operations in turn: the whole tree is as it was."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest
from support.lio_tree import Site, serving
from support.programs import free_port

from tcm.cli import serve
from tcm.cli.control_plane import ControlPlane, Ways
from tcm.configfs.node import TreeError
from tcm.configfs.settings import Settings

IQN = "iqn.2003-01.org.example:a"
HOST = "iqn.2003-01.org.example:i"
RAM, FILE, OTHER, NEW = (
    "/backstores/ramdisk/ram",
    "/backstores/fileio/file",
    "/backstores/ramdisk/other",
    "/backstores/fileio/new",
)
COUNTED = r".*/(statistics|fabric_statistics)/.*|.*/(rtpi|address|hba_info|info|members)"
"""What runs, and numbers that are given out."""
PORTS = [free_port() for _ in range(3)]


def portals(number: int) -> list[dict[str, Any]]:
    return [{"ip_address": "127.0.0.1", "port": PORTS[number]}]


def one(folder: Path) -> dict[str, Any]:
    """As rich as a saveconfig.json can be."""
    far = {"name": "far", "tg_pt_gp_id": 5, "alua_access_state": 1, "preferred": 1}
    acl = {
        "node_wwn": f"{HOST}1",
        "chap_userid": "u",
        "chap_password": "secretsecret2",
        "attributes": {"nopin_timeout": 9},
        "tcm_attributes": {"cmdsn_depth": 17},
        "mapped_luns": [
            {"index": 0, "tpg_lun": 0, "write_protect": True},
            {"index": 7, "tpg_lun": 3, "write_protect": False},
        ],
    }
    group = {
        "tag": 1,
        "enable": True,
        "attributes": {"generate_node_acls": 0, "login_timeout": 20, "authentication": 1},
        "parameters": {"MaxBurstLength": "524288", "FirstBurstLength": "65536"},
        "chap_userid": "u1",
        "chap_password": "secretsecret1",
        "luns": [
            {"index": 0, "storage_object": RAM, "alua_tg_pt_gp_name": "far"},
            {"index": 3, "storage_object": FILE},
        ],
        "portals": portals(0),
        "node_acls": [acl, {"node_wwn": f"{HOST}2", "tag": "grp", "mapped_luns": []}],
    }
    second = {"tag": 2, "enable": False, "luns": [{"index": 0, "storage_object": OTHER}], "portals": portals(1)}
    return {
        "storage_objects": [
            {
                "plugin": "ramdisk",
                "name": "ram",
                "size": 1 << 20,
                "wwn": "11111111-1111-1111-1111-111111111111",
                "attributes": {"emulate_tas": 0},
                "alua_tpgs": [far],
            },
            {
                "plugin": "fileio",
                "name": "file",
                "dev": f"{folder}/a.img",
                "size": 1 << 20,
                "write_back": True,
                "wwn": "22222222-2222-2222-2222-222222222222",
                "attributes": {"block_size": 4096, "emulate_caw": 0},
            },
            {"plugin": "ramdisk", "name": "other", "size": 1 << 20},
        ],
        "targets": [
            {"fabric": "iscsi", "wwn": IQN, "tpgs": [group, second]},
            {
                "fabric": "loopback",
                "wwn": "naa.5001405000000001",
                "tpgs": [{"tag": 1, "luns": [{"index": 0, "storage_object": OTHER}]}],
            },
        ],
    }


def another(folder: Path) -> dict[str, Any]:
    """Something of each kind changed, gone and new."""
    config = one(folder)
    ram, file, _ = config["storage_objects"]
    near = {"name": "near", "tg_pt_gp_id": 6, "alua_access_state": 2}
    ram.update(size=2 << 20, attributes={"emulate_tas": 1, "emulate_ua_intlck_ctrl": 1}, alua_tpgs=[near])
    file.update(write_back=False, attributes={"block_size": 512, "emulate_caw": 1})
    config["storage_objects"][2] = {"plugin": "fileio", "name": "new", "dev": f"{folder}/new.img", "size": 1 << 20}
    groups = config["targets"][0]["tpgs"]
    groups[0].update(
        attributes={"generate_node_acls": 1, "login_timeout": 25, "authentication": 0},
        parameters={"MaxBurstLength": "262144"},
        chap_userid="u9",
        chap_password="othersecret12",
        luns=[
            {"index": 1, "storage_object": RAM, "alua_tg_pt_gp_name": "near"},
            {"index": 3, "storage_object": NEW},
            {"index": 9, "storage_object": FILE},
        ],
        portals=portals(2),
        node_acls=[
            {
                "node_wwn": f"{HOST}1",
                "chap_userid": "u",
                "chap_password": "changedsecret",
                "mapped_luns": [{"index": 0, "tpg_lun": 1, "write_protect": False}],
            },
            {"node_wwn": f"{HOST}3", "mapped_luns": []},
        ],
    )
    groups[1] = {"tag": 4, "enable": True, "luns": [{"index": 0, "storage_object": NEW}], "portals": portals(1)}
    config["targets"][1] = {"fabric": "loopback", "wwn": "naa.5001405000000002", "tpgs": [{"tag": 3, "luns": []}]}
    return config


class Refusing:
    """Refuses one of the tree's operations, the first time that it comes to it."""

    def __init__(self, site: Site) -> None:
        self.countdown = -1
        for name in ("make", "remove", "write", "link", "unlink"):
            setattr(site.tree, name, self._counted(getattr(site.tree, name)))

    def _counted(self, method: Any) -> Any:
        async def counted(*arguments: Any, **named: Any) -> Any:
            self.countdown -= 1
            if self.countdown == -1:
                raise TreeError(errno.EIO, "refused by the test")
            return await method(*arguments, **named)

        return counted


def state(site: Site) -> dict[str, str | None]:
    """Everything there; HBAs without their numbers, links without their names."""
    found = {}
    for path, entry in site.entries().items():
        if not re.fullmatch(COUNTED, path):
            name = f"{path.rpartition('/')[0]}/link" if entry.mode == 0o777 else path
            found[re.sub(r"^core/(\w+?)_\d+", r"core/\1", name)] = re.sub(r"/core/(\w+?)_\d+", r"/core/\1", entry.content or "")
    return found


def differences(now: dict[str, str | None], before: dict[str, str | None]) -> dict[str, tuple[str | None, str | None]]:
    return {path: (before.get(path), now.get(path)) for path in before | now if before.get(path) != now.get(path)}


async def applied(settings: Settings, config: dict[str, Any], refusing: Refusing, count: int) -> bool:
    """Whether it came to its end before the operation that is refused."""
    refusing.countdown = count
    try:
        await settings.apply(config)
    except TreeError as error:
        if str(error) != "refused by the test; nothing was changed":
            raise
        return False
    return True


@pytest.mark.parametrize(("first", "second"), [(one, another), (another, one)])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_refused_anywhere_everything_is_as_it_was(tmp_path, first, second, anyio_backend):
    async with serving(tmp_path) as site:
        settings = serve.settings(site.tree, site.runtime, ControlPlane(Ways()))
        await settings.apply(first(tmp_path))
        before, refusing, count = state(site), Refusing(site), 0
        while not await applied(settings, second(tmp_path), refusing, count):
            assert differences(state(site), before) == {}, count
            count += 1
        assert count > 80
        assert state(site) != before
