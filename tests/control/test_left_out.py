"""``--keep-going``: what is missing at the start is left out, said, kept in what is saved, and served once it is there."""

from __future__ import annotations

import json
import socket
import struct
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.controlled import Ctl, Load, controlled
from support.daemon import wait_until
from support.programs import free_port
from support.raw_iscsi import Initiator
from support.tcm_process import TcmProcess

from tcm.scsi import cdb

IQN = "iqn.2003-01.org.example:left-out"
TPG = f"iscsi/{IQN}/tpgt_1"
INITIATOR = "iqn.2026-01.org.test:h"
NOWHERE = "192.0.2.77"
"""No machine has it (RFC 5737)."""
MEBIBYTE = 1 << 20


class Site:
    """Two disks in files, the second of which is away, a LUN of each, and a portal that this machine has not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.here, self.away = folder / "here.img", folder / "away.img"
        self.here.write_bytes(bytes(MEBIBYTE))
        self.port = free_port()
        self.file = folder / "saveconfig.json"
        disks = [{"plugin": "fileio", "name": each.stem, "dev": str(each), "size": MEBIBYTE} for each in (self.here, self.away)]
        disks[1] |= {"wwn": "11111111-2222-4333-8444-555555555555", "attributes": {"emulate_tpu": 1}}
        mapped = [{"index": 3, "tpg_lun": 1, "write_protect": True}, {"index": 4, "tpg_lun": 0}]
        group = {
            "tag": 1,
            "attributes": {"generate_node_acls": 1, "authentication": 0, "cache_dynamic_acls": 1, "demo_mode_write_protect": 0},
            "luns": [
                {"index": number, "storage_object": f"/backstores/fileio/{each['name']}"} for number, each in enumerate(disks)
            ],
            "portals": [{"ip_address": each, "port": self.port} for each in ("127.0.0.1", NOWHERE)],
            "node_acls": [{"node_wwn": INITIATOR, "mapped_luns": mapped}],
        }
        extras = {"/backstores/fileio/away": {"tcm_identity": {"product_id": "AWAY"}}}
        targets = [{"fabric": "iscsi", "wwn": IQN, "tpgs": [group]}]
        self.config: dict[str, Any] = {"storage_objects": disks, "tcm_storage_objects": extras, "targets": targets}
        self.write()

    def write(self) -> None:
        self.file.write_text(json.dumps(self.config))

    def put_back(self) -> None:
        self.away.write_bytes(b"\1" * MEBIBYTE)

    def serving(self, *arguments: str, urls: int = 1) -> Any:
        own = ("--config", str(self.file), "--keep-going", *arguments)
        return controlled(self.folder, *own, urls=urls, target=None, portals=())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def names(ctl: Ctl) -> list[str]:
    return [each["name"] for each in ctl.json("left-out")]


def luns_of(ctl: Ctl, initiator: str = "iqn.2026-01.org.test:anybody") -> list[int]:
    """As it is told by REPORT LUNS."""
    url = ctl.daemon.url
    with Initiator(url.host, url.port) as port:
        outcome = port.login(url.target, name=initiator).command(cdb.report_luns(), read=4096)
    assert outcome.status == 0, outcome
    (length,) = struct.unpack_from(">I", outcome.data)
    return [int.from_bytes(outcome.data[at : at + 2], "big") & 0x3FFF for at in range(8, 8 + length, 8)]


def reduced(config: dict[str, Any]) -> dict[str, Any]:
    """What a storage object and the places that lead to it say, without what a file may leave out."""
    (target,) = config["targets"]
    (group,) = target["tpgs"]
    return {
        "disks": {each["name"]: (each["dev"], each["size"]) for each in config["storage_objects"]},
        "luns": {each["index"]: each["storage_object"] for each in group["luns"]},
        "mapped": {each["index"]: each["tpg_lun"] for acl in group["node_acls"] for each in acl["mapped_luns"]},
        "portals": {each["ip_address"] for each in group["portals"]},
        "away": config["tcm_storage_objects"]["/backstores/fileio/away"]["tcm_identity"]["product_id"],
    }


def test_without_it_nothing_is_served(site: Site) -> None:
    with TcmProcess(site.folder, "--config", str(site.file), "--state-dir", str(site.folder / "state")) as tcm:
        assert tcm.exit_code() == 2
        assert f"--portal {NOWHERE}:{site.port}: this machine has no such address" in tcm.err


def test_what_is_missing_is_said_everywhere_and_kept(site: Site) -> None:
    metrics = free_port()
    with site.serving("--metrics", f"127.0.0.1:{metrics}") as ctl:
        disk, portal = ctl.json("left-out")
        assert (disk["kind"], disk["name"]) == ("storage object", "/backstores/fileio/away")
        assert disk["reason"] == f"{site.away} is not there; mount or attach it, or put it back"
        assert disk["where"] == [f"LUN 1 of {IQN} tpg 1", f"LUN 3 of initiator {INITIATOR}"]
        assert (portal["kind"], portal["name"]) == ("portal", f"{NOWHERE}:{site.port}")
        assert "this machine has no such address" in portal["reason"]
        assert portal["where"] == [f"{IQN} tpg 1"]
        for each in (disk, portal):
            (line,) = [line for line in ctl.daemon.log().splitlines() if f"{each['kind']} {each['name']} is left out" in line]
            assert each["reason"] in line
            assert ("tried again every few seconds" if each is portal else "tcm-ctl left-out --retry") in line
            assert f"{each['name']}  {each['reason']}" in ctl.run("ls")
            assert f"{each['name']}  {each['reason']}" in ctl.run("left-out")
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as answer:
            text = answer.read().decode()
        assert 'tcm_left_out{kind="storage object",name="/backstores/fileio/away"} 1.0' in text
        assert f'tcm_left_out{{kind="portal",name="{NOWHERE}:{site.port}"}} 1.0' in text
        assert not site.away.exists(), "an empty disk in its place would be another one"
        assert luns_of(ctl) == [0]
        assert luns_of(ctl, INITIATOR) == [4]
        ctl.run("save")
        assert reduced(json.loads(site.file.read_text())) == reduced(site.config)
    # and again, of what was saved
    with site.serving() as ctl:
        assert names(ctl) == ["/backstores/fileio/away", f"{NOWHERE}:{site.port}"]
        site.put_back()
        ctl.run("left-out", "--retry")
        assert names(ctl) == [f"{NOWHERE}:{site.port}"]
        assert luns_of(ctl) == [0, 1]


def test_nobody_sees_another_disk_by_that_number(site: Site) -> None:
    with site.serving() as ctl:
        ctl.run("create", "-p", "core/rd_mcp_9/other", "control=rd_pages=256", "enable=1")
        ctl.run("create", f"{TPG}/lun/lun_1")
        said = ctl.run("link", f"{TPG}/lun/lun_1/l", "core/rd_mcp_9/other", code=1)
        assert "LUN 1 is /backstores/fileio/away, which is left out" in said
        ctl.run("create", f"{TPG}/acls/{INITIATOR}/lun_3")
        said = ctl.run("link", f"{TPG}/acls/{INITIATOR}/lun_3/l", f"{TPG}/lun/lun_0", code=1)
        assert f"LUN 3 of {INITIATOR} is /backstores/fileio/away, which is left out" in said
        # other numbers are free
        ctl.run("create", f"{TPG}/lun/lun_2")
        ctl.run("link", f"{TPG}/lun/lun_2/l", "core/rd_mcp_9/other")
        assert luns_of(ctl) == [0, 2]
        # until somebody gives it up
        assert "not left out" in ctl.run("left-out", "--forget", "/backstores/fileio/awya", code=1)
        ctl.run("left-out", "--forget", "/backstores/fileio/away")
        ctl.run("link", f"{TPG}/lun/lun_1/l", "core/rd_mcp_9/other")
        assert "away" not in [each["name"] for each in ctl.export(site.folder)["storage_objects"]]


def test_the_same_file_brings_it_without_disturbing_the_rest(site: Site) -> None:
    with site.serving() as ctl, Load(ctl.daemon.url):
        group = site.config["targets"][0]["tpgs"][0]
        group["portals"].pop()
        wanted = [each["path"] for each in ctl.json("diff", str(site.file), code=1)]
        assert {f"{TPG}/lun/lun_1", f"{TPG}/acls/{INITIATOR}/lun_3"} <= {*wanted}
        assert not [path for path in wanted if "here" in path or "lun_0" in path]
        # still away: the rest of the file holds, and that is said
        group["attributes"]["login_timeout"] = 20
        site.write()
        revision = ctl.json("version")["revision"]
        done = ctl.json("apply", "--dry-run", str(site.file))
        assert done == ctl.json("restore", "--dry-run")
        assert ctl.json("version")["revision"] == revision
        assert ctl.json("apply", str(site.file)) == done
        assert [each["path"] for each in done] == [f"{TPG}/attrib/login_timeout", "/backstores/fileio/away"]
        assert done[1]["action"] == "leave out"
        assert "is not there" in done[1]["not_taken"]
        assert "nothing to change" in ctl.run("apply", str(site.file))
        assert f"left out: {site.away} is not there" in ctl.run("apply", str(site.file))
        assert names(ctl) == ["/backstores/fileio/away"]
        assert "login_timeout=20" in ctl.run("get", f"{TPG}/attrib", "login_timeout")
        # of another disk nobody has known that it is away
        more = {"plugin": "fileio", "name": "typo", "dev": str(site.folder / "typo" / "x.img"), "size": MEBIBYTE}
        site.config["storage_objects"].append(more)
        site.write()
        assert "there is no directory" in ctl.run("apply", str(site.file), code=1)
        site.config["storage_objects"].pop()
        site.write()
        assert names(ctl) == ["/backstores/fileio/away"]
        site.put_back()
        ctl.run("apply", str(site.file))
        assert names(ctl) == []
        assert ctl.run("diff", str(site.file)) == "nothing to change\n"
        assert luns_of(ctl) == [0, 1]
        assert luns_of(ctl, INITIATOR) == [3, 4]


def test_a_file_without_it_gives_it_up(site: Site) -> None:
    with site.serving() as ctl:
        group = site.config["targets"][0]["tpgs"][0]
        group["luns"].pop()
        group["portals"].pop()
        group["node_acls"][0]["mapped_luns"].pop(0)
        site.config["storage_objects"].pop()
        del site.config["tcm_storage_objects"]
        site.write()
        ctl.run("apply", str(site.file))
        assert names(ctl) == []
        ctl.run("create", f"{TPG}/lun/lun_1")
        ctl.run("link", f"{TPG}/lun/lun_1/l", "core/fileio_0/here")


def test_a_target_that_is_removed_takes_its_own_along(site: Site) -> None:
    with site.serving() as ctl:
        ctl.run("delete", "-r", f"iscsi/{IQN}")
        assert names(ctl) == ["/backstores/fileio/away"]
        assert ctl.json("left-out")[0]["where"] == []
        ctl.run("clear", "--confirm")
        assert names(ctl) == []


def test_made_by_hand_it_is_not_left_out_any_more(site: Site) -> None:
    """As targetcli's restoreconfig does."""
    with site.serving() as ctl:
        site.put_back()
        ctl.run("create", "-p", "core/fileio_7/away", f"control=fd_dev_name={site.away},fd_dev_size={MEBIBYTE}", "enable=1")
        ctl.run("create", f"{TPG}/lun/lun_1")
        ctl.run("link", f"{TPG}/lun/lun_1/l", "core/fileio_7/away")
        assert names(ctl) == [f"{NOWHERE}:{site.port}"]
        assert luns_of(ctl) == [0, 1]


def test_an_address_that_comes_later_is_served_by_itself(site: Site) -> None:
    """Somebody else listens there first: in a process of its own nobody can give a machine an address."""
    site.put_back()
    site.config["targets"][0]["tpgs"][0]["portals"][1]["ip_address"] = "127.0.0.2"
    site.write()
    with socket.create_server(("127.0.0.2", site.port)) as other, site.serving() as ctl:
        (portal,) = ctl.json("left-out")
        assert "the port is taken" in portal["reason"]
        other.close()
        wait_until(lambda: names(ctl) == [], 60, "a portal that is left out is tried again")
        with Initiator("127.0.0.2", site.port) as port:
            port.login(IQN).ready()
        assert f"{TPG}/np/127.0.0.2:{site.port} was left out and is served now" in ctl.daemon.log()
        assert ctl.run("diff", str(site.file)) == "nothing to change\n"


@pytest.mark.parametrize("arguments", [("--keep-going", "--empty"), ("--keep-going", "--lun", "ramdisk:size=1M")])
def test_it_wants_a_file_to_keep_it_in(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with TcmProcess(tmp_path, "--fabric", "iscsi", "--state-dir", str(tmp_path / "state"), *arguments) as tcm:
        assert tcm.exit_code() == 2
        assert "--keep-going: what is left out is kept in the file of --config" in tcm.err
