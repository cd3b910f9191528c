"""States and credentials in a whole configuration: what only initiators change, what wants each other, what is half done."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from support.controlled import controlled
from support.daemon import TARGET, Daemon
from support.large_config import copy_of
from support.raw_iscsi import connect

TPG = f"iscsi/{TARGET}/tpgt_1"


@pytest.fixture
def ctl(tmp_path):
    with controlled(tmp_path, "--lun", "ramdisk:size=4M", "--lun", "ramdisk:size=2M", urls=2) as made:
        yield made


def put(folder: Any, config: Any, name: str = "wanted.json") -> str:
    path = folder / name
    path.write_text(json.dumps(config))
    return str(path)


def test_states_that_only_initiators_change(ctl, tmp_path):
    """They are restored with a storage object that is made new; in one that runs they stay, and nothing is refused for them."""
    group = "core/rd_mcp_0/lun0/alua/far"
    ctl.run("create", group, "tg_pt_gp_id=5", "alua_access_state=2", "alua_access_status=1", "alua_access_type=2")
    before = ctl.export(tmp_path)
    (far,) = [each for each in before["storage_objects"][0]["alua_tpgs"] if each["name"] == "far"]
    assert (far["alua_access_type"], far["alua_access_state"], far["alua_access_status"]) == (2, 2, 1)
    wanted = copy_of(before)
    wanted["targets"][0]["tpgs"][0]["attributes"]["login_timeout"] = 20
    (far,) = [each for each in wanted["storage_objects"][0]["alua_tpgs"] if each["name"] == "far"]
    far["alua_access_state"] = 0
    done = ctl.run("apply", put(tmp_path, wanted))
    assert f"~ {group}/alua_access_state = 0  (was 2)\n  not taken: " in done
    assert "1 of it not taken" in done
    assert ctl.run("get", f"{group}/alua_access_state") == "2\n"
    assert ctl.run("get", f"{TPG}/attrib/login_timeout") == "20\n"
    ctl.run("clear", "--confirm")
    assert "not taken" not in ctl.run("apply", put(tmp_path, before))
    assert ctl.export(tmp_path) == before


def test_what_a_group_supports_and_is_in_in_any_order(ctl, tmp_path):
    """A state that it is in cannot be taken away from it; both may change in one file."""
    group = "core/rd_mcp_0/lun0/alua/default_tg_pt_gp"
    assert "write another alua_access_state than 0 first" in ctl.run(
        "set", f"{group}/alua_support_active_optimized", "0", code=1
    )
    before = ctl.export(tmp_path)
    for state, support in ((2, {"standby": 1, "active_optimized": 0}), (0, {"standby": 0, "active_optimized": 1})):
        wanted = copy_of(before)
        values = wanted["storage_objects"][0]["alua_tpgs"][0]
        values |= {"alua_access_state": state} | {f"alua_support_{name}": value for name, value in support.items()}
        ctl.run("apply", put(tmp_path, wanted))
        assert ctl.run("get", f"{group}/alua_access_state") == f"{state}\n"
        for name, value in support.items():
            assert ctl.run("get", f"{group}/alua_support_{name}") == f"{value}\n"


def test_a_file_that_has_grown_since_it_was_saved(tmp_path):
    """Enlarged while it is served, not saved since, restarted: it is served as large as it is; cut off it is refused."""
    image = tmp_path / "disk.img"
    with controlled(tmp_path, "--lun", f"fileio:path={image},size=4M") as ctl:
        ctl.run("save")
        saved = tmp_path / "state" / "saveconfig.json"
        os.truncate(image, 8 << 20)
        with connect(ctl.daemon.url) as initiator:
            assert initiator.capacity() == (16384, 512)
        assert ctl.run("diff", str(saved)) == "nothing to change\n"
        assert ctl.run("apply", str(saved)) == "nothing to change\n"
    with controlled(tmp_path, "--config", str(saved), target=None, portals=()) as ctl:
        with connect(ctl.daemon.url) as initiator:
            assert initiator.capacity() == (16384, 512)
        assert f"{image} has grown from 4194304 to 8388608 bytes since it was saved; all of it is served" in ctl.daemon.log()
        assert ctl.export(tmp_path)["storage_objects"][0]["size"] == 8 << 20
    os.truncate(image, 2 << 20)
    with pytest.raises(AssertionError, match="has 2097152 bytes, not 4194304; write size=2M or leave size out, or enlarge it"):
        Daemon(tmp_path, "--config", str(saved), target=None, portals=()).start()


def test_what_was_saved_half_way_is_loaded(ctl, tmp_path):
    """A user without a secret, a serial that is no UUID: what could be set must not keep a target from starting again."""
    acl = f"{TPG}/acls/iqn.1994-05.com.redhat:half"
    ctl.run("create", "-p", "core/rd_mcp_7/cluster", "control=rd_pages=256", "enable=1")
    ctl.run("set", "core/rd_mcp_7/cluster/wwn/vpd_unit_serial", "a70f7c2e")
    ctl.run("create", acl)
    ctl.run("set", f"{acl}/auth/userid", "alice")
    saved = put(tmp_path, ctl.export(tmp_path), "half.json")
    assert ctl.run("diff", saved) == "nothing to change\n"
    ctl.run("clear", "--confirm")
    ctl.run("restore", saved)
    assert ctl.run("get", "core/rd_mcp_2/cluster/wwn/vpd_unit_serial") == "T10 VPD Unit Serial Number: a70f7c2e\n"
    assert ctl.run("get", f"{acl}/auth/userid") == "alice\n"
    assert "CHAP user 'alice' has no secret; give one; until then nobody gets in by it" in ctl.daemon.log()


def test_free_texts_are_taken_back_too(ctl, tmp_path):
    """What a file says of them replaces nothing that the configuration before has: the text that they begin with comes back."""
    wanted = ctl.export(tmp_path)
    path = "/backstores/ramdisk/lun0"
    wanted["tcm_storage_objects"][path] |= {"alias": "a disk", "udev_path": "/dev/somewhere"}
    ctl.run("apply", put(tmp_path, wanted))
    device = "core/rd_mcp_0/lun0"
    assert ctl.json("get", device, "alias", "udev_path") == {"alias": "a disk", "udev_path": "/dev/somewhere"}
    assert ctl.export(tmp_path)["tcm_storage_objects"][path] == wanted["tcm_storage_objects"][path]
    # a file that does not name them leaves them alone
    silent = copy_of(wanted)
    del silent["tcm_storage_objects"][path]["alias"], silent["tcm_storage_objects"][path]["udev_path"]
    assert ctl.run("diff", put(tmp_path, silent)) == "nothing to change\n"
    # taken back: the portal's address is nowhere
    ctl.run("set", device, "alias=", "udev_path=")
    wanted["targets"][0]["tpgs"][0]["portals"].append({"ip_address": "192.0.2.7", "port": 3260})
    assert "nothing was changed" in ctl.run("apply", put(tmp_path, wanted), code=1)
    assert ctl.json("get", device, "alias", "udev_path") == {"alias": "", "udev_path": ""}
    wanted["tcm_storage_objects"][path]["alias"] = "x" * 512
    assert "write at most 511" in ctl.run("apply", put(tmp_path, wanted), code=1)
