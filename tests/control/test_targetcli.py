"""Unmodified Debian targetcli and rtslib drive a running tcm-run, through the mount, in a namespace of their own."""

from __future__ import annotations

import os
import stat
import subprocess
import time

import pytest
from support.controlled import Ctl, Load, controlled
from support.namespaced import needs_namespace
from support.raw_iscsi import LoginFailed, connect
from support.tcm_process import TcmProcess

pytestmark = pytest.mark.interop

needs_namespace()

TARGET = "iqn.2003-01.org.linux-iscsi.test:targetcli"
HOST = "iqn.2025-01.test.raw:initiator"
TPG = f"/iscsi/{TARGET}/tpg1"


@pytest.fixture
def ctl(tmp_path):
    with controlled(tmp_path, "--lun", "ramdisk:size=4M") as made:
        yield made


def targetcli(ctl, *arguments, code=0):
    shown = ctl.run("targetcli", *arguments, code=code)
    assert "Traceback" not in shown
    return shown


def test_everything_is_made_and_removed_under_load(ctl, tmp_path):
    image = tmp_path / "disk.img"
    with Load(ctl.daemon.url):
        targetcli(ctl, "/backstores/ramdisk", "create", "name=ram", "size=8M")
        targetcli(ctl, "/backstores/fileio", "create", "name=file", f"file_or_dev={image}", "size=16M")
        targetcli(ctl, "/iscsi", "set", "global", "auto_add_default_portal=false", "auto_add_mapped_luns=false")
        targetcli(ctl, "/iscsi", "create", TARGET)
        targetcli(ctl, f"{TPG}/luns", "create", "/backstores/ramdisk/ram")
        targetcli(ctl, f"{TPG}/luns", "create", "/backstores/fileio/file")
        targetcli(ctl, f"{TPG}/acls", "create", HOST)
        targetcli(ctl, f"{TPG}/acls/{HOST}", "create", "1", "0")
        targetcli(ctl, f"{TPG}/acls/{HOST}", "set", "auth", "userid=alice", "password=initiatorsecret")
        targetcli(ctl, TPG, "set", "attribute", "authentication=1", "login_timeout=20")
        targetcli(ctl, TPG, "set", "parameter", "MaxBurstLength=524288")
        targetcli(ctl, "/backstores/ramdisk/ram", "set", "attribute", "emulate_caw=0")
        shown = targetcli(ctl, "ls")
    for text in ("ram", "16.0MiB", TARGET, "mapped_lun1", "[lun0 ramdisk/ram (rw)]"):
        assert text in shown
    assert image.stat().st_size == 16 << 20
    found = ctl.export(tmp_path)
    group = next(each for each in found["targets"] if each["wwn"] == TARGET)["tpgs"][0]
    assert group["attributes"]["login_timeout"] == 20
    assert group["parameters"]["MaxBurstLength"] == "524288"
    (acl,) = group["node_acls"]
    assert (acl["chap_userid"], acl["chap_password"]) == ("alice", "initiatorsecret")
    (mapped,) = acl["mapped_luns"]
    assert len(mapped.pop("alias")) == 10
    assert mapped == {"index": 1, "tpg_lun": 0, "write_protect": False}
    assert "initiatorsecret" not in ctl.daemon.log()
    assert "targetcli (pid " in ctl.run("log")
    targetcli(ctl, "/iscsi", "delete", TARGET)
    targetcli(ctl, "/backstores/ramdisk", "delete", "ram")
    targetcli(ctl, "/backstores/fileio", "delete", "file")
    assert TARGET not in targetcli(ctl, "ls")


def test_what_is_in_use_is_refused(ctl):
    lun = ctl.export(ctl.daemon.directory)["storage_objects"][0]["name"]
    before = ctl.export(ctl.daemon.directory)
    with Load(ctl.daemon.url):
        for attribute in ("block_size=4096", "emulate_tas=2"):
            assert "Cannot set attribute" in targetcli(ctl, f"/backstores/ramdisk/{lun}", "set", "attribute", attribute, code=1)
    assert ctl.export(ctl.daemon.directory) == before


def test_saved_cleared_and_restored(ctl, tmp_path):
    before = ctl.export(tmp_path)
    path = tmp_path / "saved-by-targetcli.json"
    targetcli(ctl, "saveconfig", str(path))
    # what targetcli saves is what we save, in its own words
    assert ctl.run("diff", str(path)) == "nothing to change\n"
    targetcli(ctl, "clearconfig", "confirm=True")
    assert ctl.export(tmp_path)["targets"] == []
    with pytest.raises((ConnectionError, LoginFailed)):
        connect(ctl.daemon.url)
    targetcli(ctl, "restoreconfig", str(path))
    after = ctl.export(tmp_path)
    assert after["targets"] == before["targets"]
    assert after["storage_objects"] == before["storage_objects"]
    with Load(ctl.daemon.url):
        assert ctl.run("diff", str(path)) == "nothing to change\n"
    # and it restores what we save
    ours = tmp_path / "saved-by-us.json"
    ctl.run("save", str(ours))
    assert "skipped" not in targetcli(ctl, "restoreconfig", str(ours), "clear_existing=True")
    assert ctl.run("diff", str(path)) == "nothing to change\n"


def test_what_it_saves_to_stays_as_it_is(ctl, tmp_path):
    """It would have made the folder one that nobody can look into, /tmp as well."""
    folder = tmp_path / "of-somebody"
    folder.mkdir()
    folder.chmod(0o1777)
    targetcli(ctl, "saveconfig", str(folder / "saved.json"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE((folder / "saved.json").stat().st_mode) == 0o600
    before = stat.S_IMODE(os.stat("/tmp").st_mode)
    script = "import os, sys; [os.chmod(each, 0o600) for each in sys.argv[1:]]"
    ctl.run("exec", "/usr/bin/python3", "-c", script, "/tmp", str(folder), str(folder / "saved.json"))
    assert stat.S_IMODE(os.stat("/tmp").st_mode) == before
    ctl.run("exec", "/usr/bin/python3", "-c", "import os, sys; os.chmod(sys.argv[1], 0o640)", str(folder / "saved.json"))
    assert stat.S_IMODE((folder / "saved.json").stat().st_mode) == 0o640


def test_where_it_saves_is_ours_wherever_that_is(ctl, tmp_path):
    """Debian's rtslib saves elsewhere than others; neither folder is touched, or made if it is not there."""
    folders = ("/etc/target", "/etc/rtslib-fb-target")
    before = [sorted(os.listdir(each)) if os.path.isdir(each) else None for each in folders]
    for folder in folders:
        ctl.run("exec", "sh", "-c", f"echo {folder} > {folder}/left; test -r /etc/passwd")
        saved = next(tmp_path.rglob("targetcli/left"))
        assert saved.read_text() == f"{folder}\n"
    ctl.run("exec", "sh", "-c", "! echo > /etc/left-by-a-test" if before[0] is None else "true")
    targetcli(ctl, "saveconfig")
    assert (saved.parent / "saveconfig.json").exists()
    assert stat.S_IMODE(saved.parent.stat().st_mode) == 0o700
    assert [sorted(os.listdir(each)) if os.path.isdir(each) else None for each in folders] == before


def test_an_acl_for_whom_demo_mode_has_let_in(ctl, tmp_path):
    """Mapped LUNs are made as well, as they are for anybody else: targetcli does so unless it is told not to."""
    acl = f"/iscsi/{ctl.daemon.url.target}/tpg1/acls"
    with Load(ctl.daemon.url) as load:
        targetcli(ctl, "/iscsi", "set", "global", "auto_add_mapped_luns=true")
        shown = targetcli(ctl, acl, "create", HOST)
        assert "Created mapped LUN 0" in shown
        assert "mapped_lun0" in targetcli(ctl, f"{acl}/{HOST}", "ls")
        assert [each["initiator"] for each in ctl.json("sessions")] == [HOST]
        count = load.count
        while load.count < count + 10:
            time.sleep(0.01)
    (made,) = ctl.export(tmp_path)["targets"][0]["tpgs"][0]["node_acls"]
    assert [(each["index"], each["tpg_lun"]) for each in made["mapped_luns"]] == [(0, 0)]


def test_sessions(ctl):
    targetcli(ctl, f"/iscsi/{ctl.daemon.url.target}/tpg1/acls", "create", HOST)
    with Load(ctl.daemon.url):
        assert "session-state: LOGGED_IN" in targetcli(ctl, "sessions", "list")
    assert "no open sessions" in targetcli(ctl, "sessions", "list")


def test_a_rtslib_program(ctl):
    script = "import rtslib_fb as r; root = r.RTSRoot(); print([each.wwn for each in root.targets])"
    assert ctl.daemon.url.target in ctl.run("exec", "/usr/bin/python3", "-c", script)


@pytest.fixture(scope="module")
def current(tmp_path_factory):
    """targetcli as the package index has it, beside Debian's D-Bus and udev for Python."""
    folder = tmp_path_factory.mktemp("targetcli")
    packages = ("targetcli==3.0.2", "rtslib-fb==2.2.4", "configshell-fb==2.0.3")
    for command in (
        ["/usr/bin/python3", "-m", "venv", "--system-site-packages", folder],
        [folder / "bin" / "pip", "install", "-q", "--no-deps", *packages],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"not installed: {', '.join(packages)} ({done.stderr.splitlines()[-1:]})")
    return str(folder / "bin" / "targetcli")


def test_the_current_targetcli_of_the_package_index(ctl, tmp_path, current):
    def run(*arguments):
        return ctl.run("exec", current, *arguments)

    run("/backstores/ramdisk", "create", "name=ram", "size=8M")
    run("/iscsi", "set", "global", "auto_add_default_portal=false")
    run("/iscsi", "create", TARGET)
    run(f"{TPG}/luns", "create", "/backstores/ramdisk/ram")
    run(f"{TPG}/acls", "create", HOST)
    assert "[lun0 ramdisk/ram (rw)]" in run("ls")
    path = str(tmp_path / "saved.json")
    run("saveconfig", path)
    assert ctl.run("diff", path) == "nothing to change\n"
    run("clearconfig", "confirm=True")
    assert ctl.export(tmp_path)["storage_objects"] == []
    run("restoreconfig", path)
    assert ctl.run("diff", path) == "nothing to change\n"


def test_its_exit_code_is_ours(ctl):
    assert "wrong.path" in ctl.run("exec", "sh", "-c", "echo wrong.path; exit 3", code=3)
    assert ctl.run("exec", "sh", "-c", "mount | grep -c /sys/kernel/config").strip() == "1"
    assert subprocess.run(["mountpoint", "-q", "/sys/kernel/config"], check=False).returncode, "in its own namespace only"


def test_mounted_by_tcm_run_itself(tmp_path):
    folder = tmp_path / "configfs"
    arguments = (
        "--fabric",
        "iscsi",
        "--portal",
        "127.0.0.1:0",
        "--lun",
        "ramdisk:size=1M",
        "--state-dir",
        str(tmp_path / "state"),
    )
    with TcmProcess(tmp_path, *arguments, "--configfs", str(folder)) as tcm:
        tcm.serving()
        assert sorted(os.listdir(folder / "target")) == ["core", "dbroot", "iscsi", "version"]
        auth = folder / "target" / "iscsi" / "discovery_auth"
        modes = {name: stat.S_IMODE((auth / name).stat().st_mode) for name in ("userid", "password", "password_mutual")}
        assert modes == {"userid": 0o644, "password": 0o600, "password_mutual": 0o600}
        ctl = Ctl(None, tmp_path)
        (folder / "target" / "core" / "fileio_7").mkdir()
        assert "core/fileio_7" in ctl.run("log")
        # somebody unmounts it: everything else goes on
        subprocess.run(["fusermount3", "-u", "-z", folder], check=True)
        tcm.wait_for("is not mounted any more", in_log=True)
        assert ctl.json("version")["revision"] == 1
        assert tcm.stop() == 0
    with TcmProcess(tmp_path, *arguments, "--configfs", str(folder)) as tcm:
        tcm.serving()
        assert tcm.stop() == 0
        assert not folder.exists()
        assert "Traceback" not in tcm.err


def test_a_mount_point_that_is_none_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "typo" / "configfs", tmp_path / "file" / "configfs"):
        with TcmProcess(tmp_path, "--fabric", "loopback", "--lun", "ramdisk:size=1M", "--configfs", str(path)) as tcm:
            assert tcm.exit_code() == 2
            assert "tcm-run: error: --configfs: " in tcm.err
    assert not (tmp_path / "typo").exists()


def test_a_control_socket_that_cannot_be_is_one_line(tmp_path):
    for path in (str(tmp_path), "/proc/nowhere/s", str(tmp_path / "typo" / "control.sock"), str(tmp_path / "err" / "s")):
        with TcmProcess(tmp_path, "--fabric", "loopback", "--lun", "ramdisk:size=1M", "--control", path) as tcm:
            assert tcm.exit_code() == 2
            assert len(tcm.err.splitlines()) == 1
            assert f"--control: {path}" in tcm.err
    assert not (tmp_path / "typo").exists()


def test_the_control_socket_may_be_in_a_state_directory_that_is_new(tmp_path):
    path = tmp_path / "new" / "my.sock"
    arguments = ("--fabric", "loopback", "--empty", "--state-dir", str(tmp_path / "new"), "--control", str(path))
    with TcmProcess(tmp_path, *arguments) as tcm:
        tcm.wait_for("nothing is served yet", in_log=True)
        assert path.is_socket()
        assert tcm.stop() == 0
