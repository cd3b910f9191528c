"""The tree by FUSE, mounted for real: what the kernel's ConfigFS says to the same system calls."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import mmap
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

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
    refused(errno.EPERM, os.symlink, "/tmp", core / "out")
    refused(errno.ENOENT, os.symlink, "/sys/kernel/config/target/core/nothing", core / "out")
    refused(errno.EACCES, (core / "control").read_text)
    refused(errno.EACCES, (core / "info").write_text, "1")
    refused(errno.EACCES, (core / "new").write_text, "1")
    assert not (core / "out").is_symlink()


def test_what_else_the_kernel_refuses(target):
    core = target / "core"
    refused(errno.EACCES, os.mknod, core / "file", stat.S_IFREG | 0o600)
    for kind in (stat.S_IFIFO, stat.S_IFSOCK):
        refused(errno.EPERM, os.mknod, core / "other", kind | 0o600)
    refused(errno.EPERM, os.link, core / "value", core / "hard")
    refused(errno.ENOTSUP, os.setxattr, core / "value", "user.x", b"1")
    refused(errno.ENODEV, mapped, core / "value", mmap.MAP_SHARED)
    # bytes that are no UTF-8 are the name of nothing, and no name for anything
    name = os.fsencode(core) + b"/\xff\xfe"
    refused(errno.ENOENT, os.stat, name)
    refused(errno.ENOENT, os.rmdir, name)
    refused(errno.EINVAL, os.mkdir, name)
    for text in ("/", "../" * 1000, "/nowhere", str(target.parent), f"{target}/../..", "loop"):
        with pytest.raises(OSError) as error:
            os.symlink(text, core / "loop")
        assert error.value.errno in {errno.EPERM, errno.ENOENT, errno.EINVAL}, text
    assert not (core / "loop").is_symlink()
    said = os.statvfs(target)
    assert (said.f_bsize, said.f_namemax) == (4096, 255)


def mapped(path, kind):
    with path.open("r+b") as file:
        mmap.mmap(file.fileno(), 4096, kind).close()


def test_a_link_that_leads_here_from_outside_stops_nobody(toy, target):
    """Who makes a link is not looked at through the mount itself: so many at once would wait for each other."""
    outside = toy.folder / "outside"
    outside.symlink_to(target / "core" / "disk")

    def attempt(number):
        refused(errno.EPERM, os.symlink, outside, target / "iscsi" / f"l{number}")

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(attempt, range(200)))
    assert (target / "core" / "value").read_text()


def test_who_reads_in_pieces_reads_one_value(target):
    value = target / "core" / "value"
    value.write_text("old")
    descriptor = os.open(value, os.O_RDONLY)
    other = os.open(value, os.O_RDONLY)
    assert os.read(descriptor, 1) == b"o"
    value.write_text("new")
    assert os.read(descriptor, 100) == b"ld\n"
    assert os.pread(descriptor, 100, 0) == b"new\n"
    assert os.read(other, 100) == b"new\n"
    os.close(descriptor)
    os.close(other)
    value.write_text("0")


def test_an_open_file_whose_directory_is_removed(target):
    made = target / "core" / "gone"
    made.mkdir()
    descriptor = os.open(made / "value", os.O_RDWR)
    folder = os.open(made, os.O_RDONLY)
    made.rmdir()
    time.sleep(0.2)
    refused(errno.ENOENT, os.pread, descriptor, 100, 0)
    made.mkdir()
    # one of the same name is another one
    refused(errno.ENOENT, os.pread, descriptor, 100, 0)
    refused(errno.ENOENT, os.pwrite, descriptor, b"1", 0)
    assert (made / "value").read_text() == "0\n"
    os.close(descriptor)
    os.close(folder)
    made.rmdir()


def test_thousands_of_handles_and_many_at_once(toy, target):
    """Handles cost next to nothing, and those who change, read and list at once meet no error but the tree's own."""
    value = target / "core" / "value"
    handles = [os.open(value, os.O_RDWR) for _ in range(3000)]
    for number, each in enumerate(handles[:100]):
        assert os.write(each, f"{number}".encode()) > 0
    for each in handles:
        os.close(each)
    end = time.monotonic() + 3

    def change(number):
        made = target / "core" / f"many{number}"
        while time.monotonic() < end:
            made.mkdir()
            (made / "value").write_text("1")
            os.listdir(made)
            made.rmdir()

    def look(number):
        while time.monotonic() < end:
            assert value.read_text().strip().isdigit()
            value.write_text(f"{number}")

    def walk(_number):
        while time.monotonic() < end:
            assert len([*os.walk(target)]) > 3

    with ThreadPoolExecutor(40) as pool:
        done = [pool.submit(work, number) for number in range(12) for work in (change, look, walk)]
        for each in done:
            each.result()
    assert toy.ctl("get", "core/value").returncode == 0
    value.write_text("0")


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def test_modes_are_kept_as_long_as_what_they_are_of(target):
    """configfs_setattr of fs/configfs/inode.c."""
    core = target / "core"
    (core / "kept").mkdir()
    value = core / "kept" / "value"
    value.chmod(0o600)
    (core / "kept").chmod(0o2750)
    assert (mode(value), mode(core / "kept")) == (0o600, 0o2750)
    value.write_text("3")
    # not even root opens what has no such bit; a bit more makes nothing readable
    value.chmod(0o444)
    refused(errno.EACCES, value.write_text, "4")
    value.chmod(0o200)
    refused(errno.EACCES, value.read_text)
    (core / "kept" / "control").chmod(0o666)
    refused(errno.EACCES, (core / "kept" / "control").read_text)
    value.chmod(0o644)
    assert value.read_text() == "3\n"
    (core / "kept").rmdir()
    (core / "kept").mkdir()
    assert (mode(value), mode(core / "kept")) == (0o644, 0o755)
    (core / "kept").rmdir()
    os.symlink("../core/disk", target / "iscsi" / "kept")
    assert mode(target / "iscsi" / "kept") == 0o777
    os.unlink(target / "iscsi" / "kept")
    refused(errno.EPERM, os.chmod, target.parent, 0o700)
    refused(errno.ENOENT, os.chmod, core / "nothing", 0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_what_another_user_is_given(toy, target):
    """A part of the tree for somebody who is not root: the kernel lets that user in, and nobody else."""
    for folder in (toy.folder, *toy.folder.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    (target / "core" / "theirs").mkdir()
    theirs = target / "core" / "theirs"
    for each in (theirs, theirs / "value"):
        os.chown(each, 65534, -1)
    assert (theirs.stat().st_uid, theirs.stat().st_gid) == (65534, os.getegid())
    (theirs / "value").chmod(0o600)
    code = f"""
import os, sys
os.setgroups([])
os.setresgid(*[int(sys.argv[1])] * 3)
os.setresuid(*[int(sys.argv[1])] * 3)
try:
    open("{theirs}/value", "w").write("8")
    os.mkdir("{theirs}/inner")
    os.chmod("{theirs}/value", 0o640)
    os.rmdir("{theirs}/inner")
except PermissionError:
    sys.exit(13)
try:
    os.chown("{theirs}/value", 65533, -1)
except PermissionError:
    sys.exit(0)
"""
    for user, exit_code in ((65534, 0), (65533, 13)):
        assert subprocess.run([sys.executable, "-c", code, str(user)], check=False).returncode == exit_code
    assert (theirs / "value").read_text() == "8\n"
    assert mode(theirs / "value") == 0o640
    assert toy.ctl("get", "core/theirs/value").stdout == "8\n"
    theirs.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_what_other_users_may(toy, target):
    """They look, as in ConfigFS, and change nothing."""
    for folder in (toy.folder, *toy.folder.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    core = target / "core"
    code = f"""
import os
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
assert open("{core}/value").read() == "0\\n"
assert "disk" in os.listdir("{core}")
for call in (
    lambda: open("{core}/value", "w"), lambda: open("{core}/control", "w"), lambda: os.mkdir("{core}/x"),
    lambda: os.rmdir("{core}/disk"), lambda: os.symlink("{core}/disk", "{target}/iscsi/x"),
    lambda: os.truncate("{core}/value", 0),
    lambda: os.unlink("{core}/value"), lambda: os.rename("{core}/value", "{core}/x"),
):
    try:
        call()
    except PermissionError as error:
        assert error.errno == 13, error
    else:
        raise AssertionError(call)
"""
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_unmounted_under_load(toy):
    """Whoever has it open may go on; others find nothing there. Nobody waits for ever."""
    folder = toy.folder / "under-load"
    with Mounted(toy.control, folder) as mounted:
        value = folder / "target" / "core" / "value"
        descriptor = os.open(value, os.O_RDWR)
        end = time.monotonic() + 2

        def look(_number):
            while time.monotonic() < end:
                try:
                    assert value.read_text()
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno != errno.ENOTCONN:
                        raise

        with ThreadPoolExecutor(20) as pool:
            done = [pool.submit(look, number) for number in range(20)]
            time.sleep(0.5)
            subprocess.run(["fusermount3", "-u", "-z", folder], check=True)
            for each in done:
                each.result(30)
        assert os.pread(descriptor, 100, 0) == b"0\n"
        os.close(descriptor)
        assert mounted.process.wait(60) == 0


def test_the_target_is_killed_while_files_are_open(tmp_path):
    folder = tmp_path / "mount"
    with ToyProcess(tmp_path) as toy, Mounted(toy.control, folder) as mounted:
        descriptor = os.open(folder / "target" / "core" / "value", os.O_RDWR)
        toy.process.kill()
        refused(errno.ENOTCONN, os.pread, descriptor, 100, 0)
        refused(errno.ENOTCONN, os.write, descriptor, b"1")
        # it does not stay because somebody has forgotten to close one
        assert mounted.process.wait(60) == 0
        assert not folder.exists()
        refused(errno.ENOTCONN, os.close, descriptor)


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
        assert mounted.process.wait(60) == 0
    assert toy.ctl("get", "core/value").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(toy, number):
    folder = toy.folder / "third"
    folder.mkdir(exist_ok=True)
    with Mounted(toy.control, folder) as mounted:
        mounted.process.send_signal(number)
        assert mounted.process.wait(60) == 0
    assert not os.path.ismount(folder)
    assert os.listdir(folder) == []


def test_it_goes_with_the_target_also_when_that_is_killed(tmp_path):
    folder = tmp_path / "mount"
    with ToyProcess(tmp_path) as toy, Mounted(toy.control, folder) as mounted:
        toy.process.kill()
        mounted.process.wait(60)
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
