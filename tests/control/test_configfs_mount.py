"""The tree by FUSE, mounted for real: what the kernel's ConfigFS says to the same system calls."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import time

import pytest
from support.toy_process import Mounted, ToyProcess

from tcm.control.server import MAXIMUM_CLIENTS

if not os.path.exists("/dev/fuse"):
    pytest.skip("no /dev/fuse: load the module fuse", allow_module_level=True)
if shutil.which("fusermount3") is None:
    pytest.skip("not installed: fuse3, libfuse3-3", allow_module_level=True)
if importlib.util.find_spec("mfusepy") is None:
    pytest.skip("not installed: pip install 'tcm-target[fuse]'", allow_module_level=True)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    with ToyProcess(tmp_path_factory.mktemp("toy")) as process:
        yield process


@pytest.fixture(scope="module")
def target(toy):
    folder = toy.folder / "mount"
    with Mounted(toy.control, folder):
        yield folder / "target"
    assert not folder.exists(), "made by it, and gone with it"


def refused(number: int, function, *arguments):
    with pytest.raises(OSError) as error:
        function(*arguments)
    assert error.value.errno == number, error.value


def test_what_is_there(target):
    assert os.listdir(target.parent) == ["target"]
    assert {"core", "iscsi", "value", "info", "control"} <= {*os.listdir(target)}
    assert (target / "core" / "info").read_text() == "I am core\n"
    modes = {name: stat.S_IMODE((target / "core" / name).stat().st_mode) for name in ("value", "info", "control")}
    assert modes == {"value": 0o644, "info": 0o444, "control": 0o200}
    # as ConfigFS: a page, whatever is in it
    assert (target / "core" / "info").stat().st_size == 4096


def test_setting_a_value(target):
    value = target / "core" / "value"
    value.write_text("5\n")
    assert value.read_text() == "5\n"
    with value.open("a") as file:
        file.write("6")
    assert value.read_text() == "6\n"
    descriptor = os.open(value, os.O_RDWR)
    os.pwrite(descriptor, b"7", 100)
    assert os.pread(descriptor, 100, 0) == b"7\n"
    assert os.pread(descriptor, 100, 1) == b"\n"
    os.close(descriptor)


def test_groups_and_links(target):
    (target / "core" / "made").mkdir()
    link = target / "iscsi" / "alias"
    link.symlink_to(target / "core" / "made")
    assert os.readlink(link) == "../core/made"
    assert link.resolve() == target / "core" / "made"
    assert (link / "info").read_text() == "I am made\n"
    link.unlink()
    link.symlink_to("../core/made")
    assert link.resolve() == target / "core" / "made"
    link.unlink()
    link.symlink_to("/sys/kernel/config/target/core/made")
    assert link.resolve() == target / "core" / "made"
    link.unlink()
    (target / "core" / "made").rmdir()
    assert not (target / "core" / "made").exists()


def test_refusals(target):
    core = target / "core"
    refused(errno.EINVAL, (core / "value").write_text, "bad")
    refused(errno.EINVAL, (core / "value").write_text, "a\0b")
    refused(errno.EINVAL, (core / "value").write_text, "x" * 1_000_000)
    refused(errno.EINVAL, os.mkdir, core / "bad")
    refused(errno.EEXIST, os.mkdir, core / "disk")
    refused(errno.EBUSY, os.rmdir, core)
    refused(errno.EPERM, os.rmdir, target)
    refused(errno.ENOENT, os.mkdir, target.parent / "other")
    refused(errno.ENOENT, os.listdir, core / "nothing")
    refused(errno.ENOTDIR, os.listdir, core / "value")
    refused(errno.ENAMETOOLONG, os.mkdir, core / ("x" * 256))
    refused(errno.EPERM, os.unlink, core / "value")
    refused(errno.EPERM, os.rename, core / "disk", core / "other")
    refused(errno.EPERM, os.chmod, core / "value", 0o777)
    refused(errno.EPERM, os.symlink, "/tmp", core / "out")
    refused(errno.ENOENT, os.symlink, "/sys/kernel/config/target/core/nothing", core / "out")
    refused(errno.EACCES, (core / "control").read_text)
    refused(errno.EACCES, (core / "info").write_text, "1")
    refused(errno.EACCES, (core / "new").write_text, "1")
    assert not (core / "out").is_symlink()


def test_who_did_it_is_the_program_not_the_mount(toy, target):
    subprocess.run(["mkdir", target / "core" / "by-mkdir"], check=True)
    last = toy.ctl("log").stdout.splitlines()[-1]
    assert "made core/by-mkdir" in last
    assert "mkdir (pid " in last
    (target / "core" / "by-mkdir").rmdir()


def test_changes_by_others_are_seen(toy, target):
    assert toy.ctl("create", "core/other", "value=9").returncode == 0
    assert (target / "core" / "other" / "value").read_text() == "9\n"
    assert toy.ctl("set", "core/other/value", "10").returncode == 0
    assert (target / "core" / "other" / "value").read_text() == "10\n"
    assert toy.ctl("delete", "core/other").returncode == 0
    time.sleep(0.2)
    assert not (target / "core" / "other").exists()


def test_it_gives_way_on_the_control_socket_and_stays(toy):
    """Its connections are idle most of the time, and others want their places: it comes back."""
    folder = toy.folder / "idle"
    with Mounted(toy.control, folder) as mounted:
        for _ in range(3):
            with contextlib.ExitStack() as others:
                for _ in range(MAXIMUM_CLIENTS + 8):
                    others.enter_context(socket.socket(socket.AF_UNIX)).connect(toy.control)
                assert (folder / "target" / "core" / "value").read_text()
                time.sleep(0.7)  # longer than it takes to come back, in all
        assert mounted.there()
        assert mounted.process.poll() is None


def test_unmounted_from_under_it(toy):
    folder = toy.folder / "second"
    with Mounted(toy.control, folder) as mounted:
        subprocess.run(["fusermount3", "-u", "-z", folder], check=True)
        assert mounted.process.wait(20) == 0
    assert toy.ctl("get", "core/value").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(toy, number):
    folder = toy.folder / "third"
    folder.mkdir(exist_ok=True)
    with Mounted(toy.control, folder) as mounted:
        mounted.process.send_signal(number)
        assert mounted.process.wait(20) == 0
    assert not os.path.ismount(folder)
    assert os.listdir(folder) == []


def test_it_goes_with_the_target_also_when_that_is_killed(tmp_path):
    folder = tmp_path / "mount"
    with ToyProcess(tmp_path) as toy, Mounted(toy.control, folder) as mounted:
        toy.process.kill()
        mounted.process.wait(20)
        assert not folder.exists()


def test_a_mount_whose_process_died_is_replaced(toy):
    folder = toy.folder / "fourth"
    with Mounted(toy.control, folder) as mounted:
        mounted.process.kill()
        mounted.process.wait()
    with Mounted(toy.control, folder):
        assert os.listdir(folder) == ["target"]


def test_a_folder_with_something_in_it_is_left_alone(toy):
    folder = toy.folder / "full"
    folder.mkdir()
    (folder / "precious").write_text("x")
    assert "not empty" in toy.error("mount", str(folder))
