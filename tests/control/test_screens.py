"""What an administrator sees in a terminal of 80 columns: whole names, numbers in their columns, and never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from support.controlled import Load, controlled
from support.raw_iscsi import connect
from support.terminal import Terminal, screen
from support.toy_process import CTL

HOSTS = tuple(f"iqn.1994-05.com.redhat:rack-{number}-with-a-long-name-of-a-host" for number in (1, 2))
ACL = "iqn.2004-10.com.ubuntu:01:8f3a5c7d9e1b"
SECRET = "a-secret-nobody-sees"


@pytest.fixture(scope="module")
def ctl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screens")
    files = [folder / "a.img", folder / "b.img"]
    luns = [word for path in files for word in ("--lun", f"fileio:path={path},size=4M")]
    with controlled(folder, *luns, "--lun", "ramdisk:size=4M", urls=3) as made:
        acl = f"iscsi/{made.daemon.url.target}/tpgt_1/acls/{ACL}"
        made.run("create", acl)
        made.run("set", f"{acl}/auth", "userid=alice", f"password={SECRET}")
        made.run(
            "create", "-p", "core/rd_mcp_9/a-long-name-of-a-disk-that-nobody-has-exported", "control=rd_pages=256", "enable=1"
        )
        initiators = [connect(made.daemon.url, name=name) for name in HOSTS]
        yield made
        for each in initiators:
            each.close()


@pytest.fixture
def changed(ctl, tmp_path):
    """A file with another value, another ACL, and one storage object less."""
    config = ctl.export(tmp_path)
    group = config["targets"][0]["tpgs"][0]
    group["attributes"]["login_timeout"] = 20
    mapped = [{"index": 0, "tpg_lun": 2, "write_protect": True}]
    group["node_acls"].append({"node_wwn": HOSTS[0], "chap_userid": "bob", "chap_password": SECRET, "mapped_luns": mapped})
    config["storage_objects"] = [each for each in config["storage_objects"] if not each["name"].startswith("a-long")]
    config["tcm_storage_objects"] = {path: each for path, each in config["tcm_storage_objects"].items() if "a-long" not in path}
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(config))
    return str(path)


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_nothing_is_wider_than_the_terminal(ctl, columns):
    with Load(ctl.daemon.url):
        for arguments in (("ls",), ("sessions",), ("top", "--count", "2", "--interval", "0.2"), ("--help",), ("log",)):
            shown = screen(ctl.environment, *arguments, columns=columns)
            too_wide = [line for line in shown.split("\n") if len(line) > columns]
            # a line of the log is a path, which is left whole for whoever copies it
            assert too_wide == [] or arguments == ("log",), arguments
            assert SECRET not in shown


def test_sessions_have_whole_names(ctl):
    for columns in (80, 100, 250):
        shown = screen(ctl.environment, "sessions", columns=columns)
        for name in (*HOSTS, ctl.daemon.url.target, "0=lun0 1=lun1 2=lun2"):
            assert name in shown, f"{columns}: {shown}"
    # and there is a table where it fits
    assert shown.startswith("initiator")
    assert len(shown.strip().splitlines()) == 3


def test_the_overview_tells_where_the_data_are(ctl):
    shown = screen(ctl.environment, "ls", columns=160)
    assert str(ctl.daemon.directory / "a.img") in shown
    assert "not exported" in shown
    assert f"initiator {HOSTS[0]}  1 session, no ACL" in shown


def test_the_live_view_cuts_what_names_have_in_common(ctl):
    with Load(ctl.daemon.url):
        shown = screen(ctl.environment, "top", "--count", "1", "--interval", "0.3", columns=80)
    lines = shown.strip().split("\n")
    last = len(lines) - 1 - next(at for at, line in enumerate(reversed(lines)) if " LUNs, " in line)
    frame = lines[last:]
    assert " IOPS, " in frame[0]
    assert frame[1].split() == ["LUN", "r/s", "w/s", "read/s", "write/s", "p50", "p99", "p99.9", "queue"]
    # the busiest first, and columns of numbers that are aligned
    assert frame[2].startswith("fileio/lun0 ")
    assert len({len(line.rstrip()) for line in frame[1:6]}) == 1
    for number in (1, 2):
        assert any(f"rack-{number}-with" in line or line.split()[1].startswith("…") for line in frame[7:])
    assert any(line.split()[1].endswith("-of-a-host") for line in frame if "…" in line)


@pytest.mark.parametrize("command", [("diff",), ("apply", "--dry-run")])
def test_a_plan_has_what_is_common_above_it(ctl, changed, command):
    shown = screen(ctl.environment, command[0], changed, *command[1:], columns=100)
    lines = shown.strip().split("\n")
    group = f"iscsi/{ctl.daemon.url.target}/tpgt_1"
    assert lines[-1] == "to do: 3 to make, 6 to set, 2 to remove"
    assert lines.count(group) == 1
    assert "  ~ attrib/login_timeout = 20  (was 15)" in lines
    assert f"  + acls/{HOSTS[0]}" in lines
    assert f"  ~ acls/{HOSTS[0]}/auth/password = ***" in lines
    assert SECRET not in shown
    # for grep, whole paths
    piped = ctl.run(command[0], changed, *command[1:], code=1 if command == ("diff",) else 0)
    assert f"~ {group}/attrib/login_timeout = 20  (was 15)" in piped.splitlines()


def test_what_is_in_use_is_told_by_whom(ctl):
    target = ctl.daemon.url.target
    lun = f"iscsi/{target}/tpgt_1/lun/lun_2"
    ctl.run("create", f"iscsi/{target}/tpgt_1/acls/{ACL}/lun_9")
    ctl.run("link", f"iscsi/{target}/tpgt_1/acls/{ACL}/lun_9/l", lun)
    device = ctl.json("ls", lun, "--depth", "1")["children"]
    (link,) = (each["target"].strip("/") for each in device.values() if each["kind"] == "link")
    said = ctl.run("delete", link, code=1)
    assert f"{link}: in use as iSCSI/{target}/tpgt_1/lun_2; remove the link there first" in said
    said = ctl.run("delete", lun, code=1)
    assert f"{lun}: in use as acls/{ACL}/lun_9; remove the link there first" in said
    ctl.run("delete", "-r", f"iscsi/{target}/tpgt_1/acls/{ACL}/lun_9")


def test_what_is_another_number_afterwards_is_told(ctl):
    attributes = "core/rd_mcp_9/a-long-name-of-a-disk-that-nobody-has-exported/attrib"
    shown = screen(ctl.environment, "set", attributes, "emulate_dpo=0", "emulate_caw=0", columns=200)
    assert shown.strip() == f"tcm-ctl: note: {attributes}/emulate_dpo: 0 was taken, and it is 1"
    assert screen(ctl.environment, "set", f"{attributes}/emulate_caw", "1", columns=80) == ""


def test_every_storage_object_has_its_size(ctl):
    ctl.run("create", "-p", "core/null_5/nothing", "control=size=3M", "enable=1")
    shown = screen(ctl.environment, "ls", columns=80)
    assert "null_5/nothing  3 MiB  not exported" in shown
    assert "fileio_0/lun0  4 MiB" in shown
    ctl.run("delete", "-r", "core/null_5")


def test_there_is_nothing_to_restore(tmp_path):
    with controlled(tmp_path, "--lun", "ramdisk:size=1M") as ctl:
        for command in ("restore", "reload"):
            said = ctl.run(command, code=1)
            assert said == f"tcm-ctl: error: reload: {tmp_path}/state/saveconfig.json is not there; save makes it\n"
        ctl.run("save")
        assert ctl.run("restore") == "nothing to change\n"


def test_an_error_is_a_line(ctl):
    for arguments, said in (
        (("set", f"iscsi/{ctl.daemon.url.target}/tpgt_1/attrib", "login_timeout=1000"), "write a number from 5 to 30"),
        (("delete", "core/fileio_0"), "remove that first"),
        (("lss",), "did you mean ls"),
        (("ls", "core/nothing"), "'nothing' is not in /core"),
    ):
        terminal = Terminal(ctl.environment, *arguments, columns=80)
        assert terminal.finish() in {1, 2}
        assert terminal.shown.startswith("tcm-ctl: error: ")
        assert said in terminal.shown
        assert terminal.shown.count("\n") == 1


@pytest.mark.parametrize("command", [("top",), ("top", "--json", "--count", "1000"), ("top", "--count", "1000")])
def test_ctrl_c(ctl, command):
    terminal = Terminal(ctl.environment, *command)
    if "--json" not in command:
        terminal.until("IOPS")
    else:
        terminal.until('"units"')
    terminal.press(b"\x03")
    assert terminal.finish() == 0
    assert "Traceback" not in terminal.shown
    assert "Error" not in terminal.shown


def test_ctrl_c_before_it_has_begun(ctl):
    """While the interpreter starts there is nobody to catch it but us."""
    process = subprocess.Popen(
        [*CTL, "top"],
        env=ctl.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    # before main there is only Python's own way to end
    assert process.returncode in {0, 1, -signal.SIGINT}
    assert "tcm/cli/ctl" not in said


@pytest.mark.parametrize("command", [("ls", "/", "--depth", "-1"), ("get", "core"), ("statistics",), ("--help",), ("top",)])
def test_nobody_reads_on(ctl, command):
    """``tcm-ctl ls | head -1``."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [*CTL, *command], env=ctl.environment, stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    os.close(read)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert "BrokenPipe" not in said


def test_the_target_goes_meanwhile(tmp_path):
    with controlled(tmp_path, "--lun", "ramdisk:size=1M") as ctl:
        live = Terminal(ctl.environment, "top", "--interval", "0.2")
        shell = Terminal(ctl.environment)
        live.until("IOPS")
        shell.until("tcm:/>")
        ctl.daemon.kill()
        assert live.finish() == 1
        assert "does it still run?" in live.shown or "no tcm-run listens there" in live.shown
        shell.press(b"ls\n")
        shell.until("no tcm-run listens there")
        shell.press(b"exit\n")
        assert shell.finish() == 0
        for each in (live, shell):
            assert "Traceback" not in each.shown
        # and it says so to the next one
        terminal = Terminal(ctl.environment, "ls")
        assert terminal.finish() == 1
        assert "no tcm-run listens there" in terminal.shown


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes another user")
def test_another_user(tmp_path):
    tmp_path.chmod(0o755)
    with controlled(tmp_path, "--lun", "ramdisk:size=1M") as ctl:
        for folder in (tmp_path / "state", *(each for each in tmp_path.parents if each.name.startswith("pytest"))):
            folder.chmod(0o755)
        # the interpreter itself may be somewhere that only root sees
        imports = "import os, tcm.cli.run, tcm.cli.ctl_output, tcm.control.client; from tcm.cli.ctl import main"
        code = f"{imports}; os.setuid(65534); main()"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, "ls"],
            env=ctl.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done
        assert "belongs to another user than 65534" in done.stderr
        assert len(done.stderr.splitlines()) == 1
