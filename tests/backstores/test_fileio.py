"""fileio on real files: opening rules, holes, locks, full disks, lost writes, and what runs in the event loop.

Longer than most because it is all that one backstore promises.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from support.daemon import wait_until
from tcm_backstores import fallocate, files, opening
from tcm_backstores.fileio import FILEIO, FileBackstore, FileioOptions
from tcm_backstores.locks import FLOCK
from tcm_backstores.pace import REST, SLOW, Pace

from tcm.backstore import BackstoreError, BackstoreErrorKind, Support
from tcm.failure import ConfigError
from tcm.options import build

PAGE = mmap.PAGESIZE
SIZE = 1 << 20


@pytest.fixture
def opened():
    """Makes and opens; closes what is left open."""
    made = []

    def make(path, size=None, **options) -> FileBackstore:
        made.append(FileBackstore(str(path), size, **options))
        made[-1].open()
        return made[-1]

    yield make
    for backstore in made:
        backstore.close()


@pytest.fixture
def image(tmp_path):
    """A file full of data."""
    path = tmp_path / "disk.img"
    path.write_bytes(b"d" * SIZE)
    return path


def read(backstore, offset, length) -> bytes:
    data = bytearray(length)
    backstore.readv([memoryview(data)], offset)
    return bytes(data)


def evict(path) -> None:
    """Drop the file's clean pages from the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def cached(works, backstore) -> None:
    """``works()`` is true once pages 64 and 65 are in the page cache; the system may take them back at any moment."""
    for _ in range(20):
        read(backstore, 64 * PAGE, 2 * PAGE)
        if works():
            return
    pytest.fail("not done at once although it is cached")


class TestOpening:
    def test_creates_a_sparse_private_file(self, tmp_path, opened):
        path = tmp_path / "new.img"
        backstore = opened(path, 8 << 30)
        status = path.stat()
        assert backstore.size() == status.st_size == 8 << 30
        assert status.st_blocks * 512 < 1 << 20
        assert status.st_mode & 0o777 == 0o600

    def test_uses_the_size_that_is_there(self, image, opened):
        assert opened(image).size() == SIZE

    def test_same_size_is_no_mismatch(self, image, opened):
        assert opened(image, SIZE).size() == SIZE
        assert image.read_bytes() == b"d" * SIZE

    def test_an_empty_file_counts_as_new(self, tmp_path, opened):
        (tmp_path / "empty").touch()
        assert opened(tmp_path / "empty", SIZE).size() == SIZE

    @pytest.mark.parametrize(
        ("size", "says"), [(2 * SIZE, "write size=1M .*truncate -s 2M"), (SIZE // 2, "write size=1M or leave")]
    )
    def test_size_mismatch_says_what_to_write(self, image, size, says):
        for attempt in (lambda: opening.check(str(image), size), FileBackstore(str(image), size).open):
            with pytest.raises(ConfigError, match=says):
                attempt()
        assert image.stat().st_size == SIZE

    @pytest.mark.parametrize("path", ["/dev/no-such-disk", "/dev/../dev/mapper/no-such-volume"])
    @pytest.mark.parametrize("size", [None, SIZE])
    def test_a_device_that_is_not_there_is_not_made(self, path, size):
        """It would be a file in memory, and initiators would find zeros on their disk."""
        for attempt in (lambda: opening.check(path, size), FileBackstore(path, size).open):
            with pytest.raises(ConfigError, match="there is no such device; attach it"):
                attempt()
        assert not os.path.exists(path)

    @pytest.mark.parametrize(
        ("path", "size", "says"),
        [
            ("missing.img", None, "write size=1G"),
            ("no/such/directory/x.img", SIZE, "there is no directory"),
            (".", SIZE, "neither a file nor a block device"),
            ("fifo", SIZE, "neither a file nor a block device"),
            ("empty", None, "is empty"),
            ("tiny", None, "less than one block"),
            ("missing.img", 1000, "multiple of 512"),
            ("missing.img", 0, "multiple of 512"),
            ("loop", None, "symbolic links"),
        ],
    )
    def test_refusals(self, tmp_path, path, size, says):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "empty").touch()
        (tmp_path / "tiny").write_bytes(b"x")
        (tmp_path / "loop").symlink_to("loop")
        backstore = FileBackstore(str(tmp_path / path), size)
        with pytest.raises(ConfigError, match=says) as caught:
            backstore.open()
        backstore.close()
        assert "\n" not in str(caught.value)
        if "missing" not in path:
            assert path.rpartition("/")[2] in str(caught.value) or path == "."
        assert not (tmp_path / "missing.img").exists()

    def test_impossible_size_is_a_configuration_error(self, tmp_path):
        """In another process because the limit is for the whole of it."""
        code = (
            "import resource, sys; from tcm_backstores.fileio import FileBackstore\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, resource.RLIM_INFINITY))\n"
            "try: FileBackstore(sys.argv[1], 1 << 30).open()\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=True)
        assert result.stdout.startswith("ConfigError")
        assert "cannot become 1G large (File too large); write a smaller size" in result.stdout

    def test_largest_file_there_can_be(self, tmpfs, opened):
        assert opened(tmpfs / "huge", (1 << 63) - PAGE).capabilities().unmap is Support.NATIVE

    def test_descriptor_is_not_inherited(self, image, opened):
        assert not os.get_inheritable(opened(image)._fd)

    def test_close_frees_and_may_be_repeated(self, image, opened):
        first = opened(image)
        first.close()
        first.close()
        assert opened(image).size() == SIZE

    def test_failed_open_leaks_nothing(self, image, opened):
        opened(image)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(ConfigError):
                FileBackstore(str(image)).open()
        assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
    def test_unwritable_file_is_read_only(self, image, opened):
        image.chmod(0o400)
        assert opened(image).capabilities().read_only

    def test_immutable_directory_entry_is_read_only(self, image, tmp_path):
        """As another user, in another process, because root may write everything."""
        if os.geteuid() != 0:
            pytest.skip("becomes another user")
        image.chmod(0o644)
        for directory in image.parents:  # let nobody reach the file
            if directory.stat().st_mode & 0o001 == 0 and str(directory).startswith("/tmp/"):
                directory.chmod(directory.stat().st_mode | 0o011)
        code = (
            "import os, sys; from tcm_backstores.fileio import FileBackstore; os.setgid(65534); os.setuid(65534)\n"
            "b = FileBackstore(sys.argv[1]); b.open(); print(b.capabilities().read_only, b.capabilities().unmap.name)\n"
            "b.readv([memoryview(bytearray(512))], 0)\n"
            "c = FileBackstore(sys.argv[1]); c.open(); c.close(); print('shared')\n"
            "try: b.writev([bytes(512)], 0)\n"
            "except OSError as error: print(type(error).__name__)"
        )
        result = subprocess.run([sys.executable, "-c", code, str(image)], capture_output=True, text=True, check=True)
        assert result.stdout.split() == ["True", "NONE", "shared", "OSError"]
        assert "read-only" in result.stderr

    def test_options(self, tmp_path):
        options = build(FileioOptions, {"path": str(tmp_path / "x"), "size": "64M", "write-back": "no"}, "")
        FILEIO.check_config(options)
        assert FILEIO.factory(options).size
        assert not (tmp_path / "x").exists()
        with pytest.raises(ConfigError, match="write size="):
            FILEIO.check_config(build(FileioOptions, {"path": str(tmp_path / "x")}, ""))

    def test_saveconfig(self):
        saved = {"name": "d", "plugin": "fileio", "dev": "/a", "size": 1024, "write_back": False, "aio": False, "wwn": "w"}
        assert FILEIO.from_saveconfig(saved) == {"path": "/a", "size": 1024, "write_back": False, "aio": False}
        assert FILEIO.from_saveconfig({"dev": "/dev/sdx", "size": 0}) == {"path": "/dev/sdx"}


class TestLocks:
    HOLD = (
        "import sys; from tcm_backstores.fileio import FileBackstore\n"
        "b = FileBackstore(sys.argv[1]); b.open(); print('held', flush=True); sys.stdin.read()"
    )

    def test_second_lun_of_this_process(self, image, opened):
        opened(image)
        with pytest.raises(ConfigError, match=r"disk\.img is in use by another LUN of this process"):
            opened(image)

    def test_by_another_name(self, image, tmp_path, opened):
        opened(image)
        os.link(image, tmp_path / "other.img")
        with pytest.raises(ConfigError, match=r"other\.img is in use"):
            opened(tmp_path / "other.img")

    def test_other_process_is_named(self, image, opened):
        with subprocess.Popen(
            [sys.executable, "-c", self.HOLD, str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(ConfigError, match=rf"disk\.img is in use by process {process.pid} \(\w"):
                opened(image)
            process.kill()
            process.wait()
            opened(image)  # the lock died with it

    @pytest.mark.parametrize("kind", ["flock", "ofd"])
    def test_either_lock_is_respected(self, image, opened, kind):
        """util-linux and other targets look at flock(2), QEMU at open-file-description locks."""
        with open(image, "r+b") as other:
            if kind == "flock":
                fcntl.flock(other, fcntl.LOCK_EX)
            else:
                fcntl.fcntl(other, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, 0, 100, 1, 0))
            with pytest.raises(ConfigError, match="in use"):
                opened(image)
        backstore = opened(image)
        with open(image, "r+b") as other:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with pytest.raises(BlockingIOError):
                fcntl.fcntl(other, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, 0, 100, 1, 0))
        assert backstore.size() == SIZE


class TestHoles:
    def test_new_file_is_one_hole(self, tmp_path, opened):
        backstore = opened(tmp_path / "new", SIZE)
        assert [run.mapped for run in backstore.extents(0, SIZE)] == [False]
        backstore.writev([b"x" * PAGE], 16 * PAGE)
        assert [(run.offset, run.length, run.mapped) for run in backstore.extents(0, SIZE)] == [
            (0, 16 * PAGE, False),
            (16 * PAGE, PAGE, True),
            (17 * PAGE, SIZE - 17 * PAGE, False),
        ]
        assert [(run.offset, run.length) for run in backstore.extents(16 * PAGE + 512, 512)] == [(16 * PAGE + 512, 512)]

    def test_unmap_gives_space_back(self, image, opened):
        backstore = opened(image)
        backstore.flush()
        before = image.stat().st_blocks
        backstore.unmap(64 * PAGE, 128 * PAGE)
        assert image.stat().st_blocks * 512 <= before * 512 - 128 * PAGE
        assert image.stat().st_size == SIZE
        assert read(backstore, 63 * PAGE, 3 * PAGE) == b"d" * PAGE + bytes(2 * PAGE)

    def test_zeroes_without_unmap_stay_allocated(self, image, opened):
        backstore = opened(image)
        backstore.flush()
        before = image.stat().st_blocks
        backstore.write_zeroes(64 * PAGE, 128 * PAGE, may_unmap=False)
        backstore.flush()
        assert image.stat().st_blocks >= before
        assert not any(read(backstore, 64 * PAGE, 128 * PAGE))

    def test_zero_range_refused_is_written_instead(self, tmpfs, opened):
        """tmpfs has no FALLOC_FL_ZERO_RANGE."""
        path = tmpfs / "disk"
        path.write_bytes(b"d" * SIZE)
        backstore = opened(path)
        before = path.stat().st_blocks
        assert not fallocate.zero_range(backstore._fd, 0, PAGE)
        backstore.write_zeroes(512, SIZE - 1024, may_unmap=False)
        assert read(backstore, 0, SIZE) == b"d" * 512 + bytes(SIZE - 1024) + b"d" * 512
        assert path.stat().st_blocks == before

    def test_fallocate_failures_are_raised(self, image):
        with open(image, "rb") as file, pytest.raises(OSError, match="descriptor") as caught:
            fallocate.punch_hole(file.fileno(), 0, PAGE)
        assert caught.value.errno == errno.EBADF

    def test_extents_are_bounded(self, tmp_path, opened, monkeypatch):
        monkeypatch.setattr(files, "MAX_EXTENTS", 4)
        backstore = opened(tmp_path / "new", SIZE)
        for page in range(0, 32, 2):
            backstore.writev([b"x" * PAGE], page * PAGE)
        runs = backstore.extents(0, SIZE)
        assert len(runs) == 4
        assert runs[-1].offset + runs[-1].length == 4 * PAGE


class TestWholeTransfers:
    def test_more_buffers_than_one_call_takes(self, image, opened):
        backstore = opened(image)
        pieces = [bytes([number % 251 + 1]) * 512 for number in range(1500)]
        backstore.writev(pieces, 0)
        parts = [bytearray(512) for _ in pieces]
        assert not backstore.read_nowait([memoryview(part) for part in parts], 0)
        backstore.readv([memoryview(part) for part in parts], 0)
        assert parts == pieces

    def test_partial_reads_and_writes_go_on(self):
        """A pipe-like descriptor that takes a little at a time does not exist for pwrite: shorten the calls themselves."""
        rest = files._rest([b"abc", b"", bytearray(b"defg"), memoryview(b"hi")], 5)
        assert b"".join(rest) == b"fghi"
        assert files._rest([b"abc"], 3) == []

    def test_file_that_was_cut(self, image, opened):
        backstore = opened(image)
        os.truncate(image, SIZE // 2)
        with pytest.raises(BackstoreError) as caught:
            read(backstore, SIZE // 2 - 512, 1024)
        assert caught.value.kind is BackstoreErrorKind.RESIZED
        assert caught.value.offset == SIZE // 2
        assert not backstore.read_nowait([memoryview(bytearray(1024))], SIZE // 2 - 512)

    def test_file_that_was_cut_is_not_made_longer(self, image, opened):
        backstore = opened(image)
        os.truncate(image, SIZE // 2)
        beyond = SIZE // 2 - 512
        assert not backstore.write_nowait([bytes(1024)], beyond)
        for change in (
            lambda: backstore.writev([bytes(1024)], beyond),
            lambda: backstore.writev([bytes(1024)], beyond, True),
            lambda: backstore.write_zeroes(beyond, 1024, may_unmap=False),
            lambda: backstore.unmap(beyond, 1024),
        ):
            with pytest.raises(BackstoreError) as caught:
                change()
            assert (caught.value.kind, caught.value.offset) == (BackstoreErrorKind.RESIZED, SIZE // 2)
        assert os.stat(image).st_size == SIZE // 2
        backstore.writev([bytes(512)], beyond)

    def test_file_size_limit_is_an_error_not_a_signal(self, tmp_path):
        """EFBIG; in another process because the limit is for the whole of it."""
        code = (
            "import resource, sys; from tcm_backstores.fileio import FileBackstore\n"
            "b = FileBackstore(sys.argv[1], 1 << 20); b.open()\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, resource.RLIM_INFINITY))\n"
            "b.writev([b'x' * 4096], 0)\n"
            "print(b.write_nowait([b'x' * 4096], 1 << 19))\n"
            "for fua in (False, True):\n"
            "    try: b.writev([b'x' * 4096], 1 << 19, fua)\n"
            "    except OSError as error: print(error.errno)\n"
            "print(b.write_nowait([b'x' * 4096], 0))"
        )
        result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=True)
        assert result.stdout.split() == ["False", str(errno.EFBIG), str(errno.EFBIG), "True"]
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1 << 19


class TestFullDisk:
    def test_no_space_and_then_space(self, small_tmpfs, opened):
        """ENOSPC from each kind of write; nothing is lost, and unmap makes room again."""
        backstore = opened(small_tmpfs / "disk", 16 << 20)
        with pytest.raises(OSError, match="No space") as caught:
            backstore.writev([b"x" * (4 << 20)], 0)
        assert caught.value.errno == errno.ENOSPC
        assert not backstore.write_nowait([b"y" * PAGE], 8 << 20)
        with pytest.raises(OSError, match="No space"):
            backstore.writev([b"y" * PAGE], 8 << 20, True)
        backstore.flush()  # a full disk refuses before anything is lost
        backstore.unmap(0, 16 << 20)
        assert backstore.write_nowait([b"y" * PAGE], 8 << 20)
        assert read(backstore, 8 << 20, PAGE) == b"y" * PAGE


class TestLostWrites:
    """A failed fdatasync is reported once by the kernel; it must not be forgotten by us."""

    def make(self, opened, image, **options):
        outcomes = []

        def fdatasync(fd: int) -> None:
            if outcomes:
                raise outcomes.pop(0)
            os.fdatasync(fd)

        return opened(image, fdatasync=fdatasync, **options), outcomes

    def test_flush_fails_for_ever_after(self, image, opened):
        backstore, outcomes = self.make(opened, image)
        backstore.writev([b"x" * 512], 0)
        backstore.flush()
        outcomes.append(OSError(errno.EIO, "lost"))
        with pytest.raises(OSError, match="lost"):
            backstore.flush()
        for durable in (
            backstore.flush,
            lambda: backstore.writev([b"x" * 512], 0, True),
            lambda: backstore.write_zeroes(0, 512, may_unmap=False, fua=True),
        ):
            with pytest.raises(OSError, match=r"disk\.img: writes were lost .*opened anew") as caught:
                durable()
            assert caught.value.errno == errno.EIO
        backstore.writev([b"x" * 512], 0)
        backstore.close()
        opened(image).flush()

    def test_waiting_flushes_share_one_or_its_failure(self, image, opened):
        started, go, calls = threading.Event(), threading.Event(), []

        def fdatasync(_fd: int) -> None:
            calls.append(None)
            started.set()
            assert go.wait(60)

        backstore = opened(image, fdatasync=fdatasync)
        threads = [threading.Thread(target=backstore.flush)]
        threads[0].start()
        assert started.wait(60)
        threads += [threading.Thread(target=backstore.flush) for _ in range(6)]
        for thread in threads[1:]:
            thread.start()
        # until each has seen what runs, and queues: who comes later is owed another call
        wait_until(
            lambda: all("before" in sys._current_frames()[thread.ident].f_locals for thread in threads[1:]), 60, "a queue"
        )
        go.set()
        for thread in threads:
            thread.join(60)
        assert len(calls) == 2  # the one that ran, which need not cover what came later, and one for all of those

    def test_real_device(self, small_tmpfs, loop_device, opened):
        """A loop device on a full file system: the write is taken by the cache, and lost when it is written back."""
        backing = small_tmpfs / "backing"
        backing.touch()
        os.truncate(backing, 16 << 20)
        backstore = opened(loop_device(backing))
        backstore.writev([b"x" * (8 << 20)], 0)
        with pytest.raises(OSError, match=r"error|space"):
            backstore.flush()
        with pytest.raises(OSError, match="opened anew"):
            backstore.flush()
        with pytest.raises(OSError, match="opened anew"):
            backstore.writev([b"x" * 512], 0, True)
        backstore.close()


class TestBlockDevice:
    def test_everything(self, tmp_path, loop_device, opened):
        backing = tmp_path / "backing"
        backing.write_bytes(b"b" * (4 << 20))
        device = loop_device(backing)
        backstore = opened(device)
        assert backstore.size() == 4 << 20
        said = backstore.capabilities()
        assert (said.block_size, said.extents, said.read_only) == (512, Support.EMULATE, False)
        data = os.urandom(2 * PAGE)
        if not backstore.write_nowait([data], PAGE):  # the first attempt finds out that RWF_NOWAIT is not known
            assert backstore.write_nowait([data], PAGE)
        assert read(backstore, PAGE, 2 * PAGE) == data
        backstore.writev([data[:512]], 0, True)
        with backing.open("rb") as file:  # FUA has gone through the device's cache, while the device is open
            assert file.read(512) == data[:512]
            backstore.flush()
            file.seek(PAGE)
            assert file.read(2 * PAGE) == data
        backstore.write_zeroes(4 * PAGE, PAGE, may_unmap=False)
        backstore.unmap(8 * PAGE, PAGE)
        assert read(backstore, 3 * PAGE, 6 * PAGE) == b"b" * PAGE + bytes(PAGE) + b"b" * 3 * PAGE + bytes(PAGE)
        assert [run.mapped for run in backstore.extents(0, PAGE)] == [True]
        with pytest.raises(ConfigError, match="in use"):
            opened(device)
        backstore.close()
        with pytest.raises(ConfigError, match="leave size out"):
            opened(device, 1 << 20)
        opened(device, 4 << 20)


class TestInTheEventLoop:
    def test_cached_reads_only(self, image, opened):
        backstore = opened(image)
        evict(image)
        buffer = memoryview(bytearray(PAGE))
        if backstore.read_nowait([buffer], 64 * PAGE):
            pytest.skip("this file system does not drop its cache")
        cached(lambda: backstore.read_nowait([buffer], 64 * PAGE), backstore)
        assert bytes(buffer) == b"d" * PAGE

    def test_aligned_writes_need_no_read(self, image, opened):
        backstore = opened(image)
        backstore._write_flags = 0
        evict(image)
        assert backstore.write_nowait([b"x" * PAGE], 64 * PAGE)
        assert read(backstore, 64 * PAGE, PAGE) == b"x" * PAGE

    @pytest.mark.parametrize(("start", "end"), [(512, PAGE), (0, 512), (512, 1024), (512, PAGE + 512)])
    def test_partial_pages_only_if_cached(self, image, opened, start, end):
        backstore = opened(image)
        backstore._write_flags = 0
        evict(image)
        if backstore.read_nowait([memoryview(bytearray(1))], 64 * PAGE):
            pytest.skip("this file system does not drop its cache")
        data = b"x" * (end - start)
        assert not backstore.write_nowait([data], 64 * PAGE + start)
        cached(lambda: backstore.write_nowait([data], 64 * PAGE + start), backstore)
        assert read(backstore, 64 * PAGE + start, len(data)) == data

    def test_large_writes_go_to_a_thread(self, image, opened):
        backstore = opened(image)
        backstore._write_flags = 0
        assert not backstore.write_nowait([bytes(SIZE + PAGE)], 0)
        assert image.stat().st_size == SIZE

    def test_not_while_a_thread_holds_the_inode(self, image, opened):
        backstore = opened(image)
        backstore._write_flags = 0
        with backstore._holding_the_inode():
            assert not backstore.write_nowait([b"x" * PAGE], 0)
            assert backstore.read_nowait([memoryview(bytearray(PAGE))], 0)
        assert backstore.write_nowait([b"x" * PAGE], 0)

    def test_write_through_never(self, image, opened):
        backstore = opened(image, write_back=False)
        assert not backstore.write_nowait([b"x" * PAGE], 0)
        assert backstore.capabilities().flush is Support.EMULATE

    def test_write_through_is_durable_at_once(self, tmp_path, loop_device, opened):
        backing = tmp_path / "backing"
        backing.write_bytes(bytes(SIZE))
        backstore = opened(loop_device(backing), write_back=False)
        backstore.writev([b"x" * PAGE], PAGE)
        assert backing.read_bytes()[PAGE : 2 * PAGE] == b"x" * PAGE
        backstore.close()

    def test_slow_disk_keeps_writes_out_for_a_while(self, image, opened):
        now = [0.0]
        step = [0.0]

        def clock() -> float:
            now[0] += step[0]
            return now[0]

        backstore = opened(image, clock=clock)
        backstore._write_flags = 0
        assert backstore.write_nowait([b"x" * PAGE], 0)
        step[0] = SLOW * 2
        assert backstore.write_nowait([b"x" * PAGE], 0)
        step[0] = 0.0
        assert not backstore.write_nowait([b"x" * PAGE], 0)
        now[0] += SLOW * 2 * REST
        assert backstore.write_nowait([b"x" * PAGE], 0)

    def test_file_systems_without_nowait_writes_are_learnt(self, image, opened):
        backstore = opened(image)
        assert backstore.write_nowait([b"x" * PAGE], 0)

    def test_writes_in_threads_do_not_keep_others_out_of_the_event_loop(self, image, opened):
        """Once some writes went to threads, a queue that never runs empty must find its way back."""
        backstore = opened(image)
        with threading_write(backstore):
            assert backstore.write_nowait([b"x" * PAGE], PAGE)


@contextmanager
def threading_write(backstore):
    """A thread that writes without end."""
    stop = threading.Event()

    def work():
        while not stop.is_set():
            backstore.writev([b"y" * PAGE], 0)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class TestPace:
    def test_pause_is_in_proportion(self):
        pace = Pace()
        for took in (SLOW * 2, 0.1, 1.0):
            pace.took(1000.0, 1000.0 + took)
            assert pace.resume == pytest.approx(1000.0 + took * (1 + REST))

    def test_quick_ones_change_nothing(self):
        pace = Pace()
        pace.took(5.0, 5.0 + SLOW / 2)
        assert pace.resume == 0


WRITER = """
import sys
from tcm_backstores.fileio import FileBackstore
backstore = FileBackstore(sys.argv[1], 4 << 20)
backstore.open()
unflushed = []
for number in range(1, 1 << 30):
    block = number % 1024
    data = number.to_bytes(8, "big") * 512
    if number % 3 == 0:
        backstore.writev([data], block * 4096, True)
        print(number, flush=True)
    else:
        if not backstore.write_nowait([data], block * 4096):
            backstore.writev([data], block * 4096)
        unflushed.append(number)
    if number % 16 == 0:
        backstore.flush()
        print(*unflushed, flush=True)
        unflushed.clear()
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    """Every write that was acknowledged as durable, by FUA or by a flush after it, is there or has been overwritten since."""
    path = tmp_path / "disk.img"
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            acknowledged: dict[int, int] = {}
            deadline = time.monotonic() + 120
            while len(acknowledged) < 150 and time.monotonic() < deadline:
                for number in map(int, process.stdout.readline().split()):
                    acknowledged[number % 1024] = max(number, acknowledged.get(number % 1024, 0))
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:  # what was said before it died counts too
                if line.endswith("\n"):
                    for number in map(int, line.split()):
                        acknowledged[number % 1024] = max(number, acknowledged.get(number % 1024, 0))
        assert len(acknowledged) >= 100
        backstore = FileBackstore(str(path), 4 << 20)
        backstore.open()
        for block, number in acknowledged.items():
            found = read(backstore, block * 4096, 4096)
            assert found == found[:8] * 512, f"block {block} is torn"
            assert int.from_bytes(found[:8], "big") >= number
        backstore.close()
