"""A Linux guest with open-iscsi, the kernel's own initiator, against the real daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from support.daemon import Daemon, Url, running, wait_until
from support.programs import program

pytestmark = [pytest.mark.interop, pytest.mark.guest]

HERE = Path(__file__).parent
SECRET = "sixteen-byte-key"
MUTUAL_SECRET = "target-own-secret"


def vmrun() -> str:
    """The guest runner, beside the checkout or where ``TCM_SHARED`` says."""
    shared = Path(os.environ.get("TCM_SHARED") or HERE.parents[2] / "shared")
    runner = shared / "vm" / "vmrun"
    if not runner.exists():
        pytest.skip(f"no guest runner at {runner}: set TCM_SHARED to the folder that has vm/vmrun")
    for needed in ("qemu-system-x86_64", "cpio", "mkfs.ext4"):
        program(needed)
    return str(runner)


class Guest:
    """A run of one job in a guest, with a folder that both sides see."""

    def __init__(self, directory: Path, job: str, *args: str, timeout: float) -> None:
        self.share = directory / "share"
        self.share.mkdir()
        shutil.copy(HERE / "login.sh", self.share)
        command = [vmrun(), "--timeout", str(timeout), "--share", str(self.share), str(HERE / job), *args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        self.output = ""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self.output += line

    def finish(self) -> str:
        code = self.process.wait()
        self.reader.join()
        assert code == 0, f"exit code {code}\n{self.output[-6000:]}"
        return self.output

    def end(self) -> None:
        """vmrun ends its guest when it is told to stop."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self.reader.join()


def portal(url: Url) -> str:
    """The host's loopback as the guest sees it."""
    return f"10.0.2.2:{url.port}"


def lun(directory: Path) -> tuple[str, str]:
    return "--lun", f"fileio:path={directory / 'lun0.img'},size=400M"


def run(tmp_path: Path, daemon: Daemon, *more: str) -> str:
    url = daemon.url
    guest = Guest(tmp_path, "filesystems.guest", portal(url), url.target, str(url.lun), *more, timeout=400)
    try:
        output = guest.finish()
    finally:
        guest.end()
    for words in ("ext4: trimmed", "xfs: trimmed", "fio: random writes verified"):
        assert words in output
    assert output.rstrip().endswith("done")
    return output


def test_filesystems(tmp_path: Path) -> None:
    with running(tmp_path / "run", *lun(tmp_path)) as daemon:
        output = run(tmp_path, daemon)
        assert "HeaderDigest: None" in output
        # trimmed: what was given back no longer takes room on the host
        assert (tmp_path / "lun0.img").stat().st_blocks * 512 < 350 << 20


def test_filesystems_chap_and_digests(tmp_path: Path) -> None:
    secrets = {"TCM_CHAP_SECRET": SECRET, "TCM_CHAP_MUTUAL_SECRET": MUTUAL_SECRET}
    chap = ("--chap", "alice", "--chap-mutual", "bob")
    with running(tmp_path / "run", *lun(tmp_path), *chap, env=secrets) as daemon:
        output = run(tmp_path, daemon, "chap", "alice", SECRET, "bob", MUTUAL_SECRET, "digests")
        assert "HeaderDigest: CRC32C" in output
        assert "DataDigest: CRC32C" in output


def test_outages(tmp_path: Path) -> None:
    """The target goes away and comes back during I/O, once by SIGTERM and once by kill -9: no error, nothing lost."""
    with running(tmp_path / "run", *lun(tmp_path)) as daemon:
        url = daemon.url
        guest = Guest(tmp_path, "outage.guest", portal(url), url.target, str(url.lun), "2", timeout=500)
        try:
            wait_until(lambda: (guest.share / "writing").exists() or guest.process.poll() is not None, 120, "fio writes", 0.2)
            for end in (daemon.stop, daemon.kill):
                end()
                time.sleep(3)
                daemon.restart()
                time.sleep(8)
            (guest.share / "outages-over").touch()
            output = guest.finish()
        finally:
            guest.end()
        assert output.rstrip().endswith("done")
