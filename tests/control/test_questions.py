"""What ``diff`` answers by its exit code, and ``restore --dry-run``: questions, which change nothing."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from support.controlled import controlled
from support.daemon import TARGET
from support.large_config import copy_of
from support.toy_process import CTL

TPG = f"iscsi/{TARGET}/tpgt_1"


@pytest.fixture
def ctl(tmp_path):
    with controlled(tmp_path, "--lun", "ramdisk:size=4M") as made:
        yield made


def put(folder, config, name="wanted.json"):
    path = folder / name
    path.write_text(json.dumps(config))
    return str(path)


def test_diff_tells_by_its_exit_code(ctl, tmp_path):
    """0: equal, 1: different, 2: refused or failed, as diff(1): a script never takes a failure for a difference."""
    config = ctl.export(tmp_path)
    different, refused = copy_of(config), copy_of(config)
    different["targets"][0]["tpgs"][0]["attributes"]["login_timeout"] = 9
    refused["targets"][0]["tpgs"][0]["attributes"]["login_timeout"] = -9
    assert ctl.run("diff", put(tmp_path, config)) == "nothing to change\n"
    assert ctl.json("diff", put(tmp_path, config)) == []
    assert "login_timeout = 9" in ctl.run("diff", put(tmp_path, different), code=1)
    assert "login_timeout" in ctl.run("diff", put(tmp_path, refused), code=2)
    assert "login_timeout" in json.loads(ctl.run("--json", "diff", put(tmp_path, refused), code=2))["error"]["message"]
    assert "nowhere.json" in ctl.run("diff", str(tmp_path / "nowhere.json"), code=2)
    assert "FILE" in ctl.run("diff", code=2)
    assert "no tcm-run listens" in ctl.run("--control", str(tmp_path / "nobody"), "diff", put(tmp_path, config), code=2)
    pipe = f'{shlex.join(CTL)} diff {put(tmp_path, different)} | true; exit "${{PIPESTATUS[0]}}"'
    assert subprocess.run(["bash", "-c", pipe], env=ctl.environment, check=False).returncode == 1
    # the other commands keep theirs
    assert "login_timeout" in ctl.run("apply", put(tmp_path, refused), code=1)


def test_restore_shows_first_what_it_would_do(ctl, tmp_path):
    ctl.run("save")
    before = ctl.export(tmp_path)
    other = put(tmp_path, before, "saved.json")
    ctl.run("set", f"{TPG}/attrib", "login_timeout=9")
    changed = ctl.export(tmp_path)
    for arguments in ((), (other,)):
        revision = ctl.json("version")["revision"]
        shown = ctl.run("restore", "--dry-run", *arguments)
        assert "login_timeout = 15  (was 9)" in shown
        assert "to do: 0 to make, 1 to set, 0 to remove" in shown
        assert shown == ctl.run("apply", "--dry-run", other)
        (operation,) = ctl.json("restore", "--dry-run", *arguments)
        assert operation["value"] == "15"
        assert ctl.json("version")["revision"] == revision
        assert ctl.export(tmp_path) == changed
    assert "done: 0 made, 1 set" in ctl.run("restore")
    assert ctl.run("restore", "--dry-run") == "nothing to change\n"
