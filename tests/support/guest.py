"""A Linux guest under QEMU that runs one job, and what both sides share."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from support.daemon import Url
from support.programs import program

HERE = Path(__file__).parents[1] / "guest"
DIED = 125
"""The runner's exit code for a guest that was gone before its job ended."""


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
    """A run of one job in a guest, with a folder that both sides see.

    :param directory: gets the folder ``share``.
    :param job: a script of ``tests/guest``.
    :param files: further files and folders of ``tests/guest`` that the job needs, to be copied into ``share``.
    :param options: more options of the runner.
    """

    def __init__(
        self,
        directory: Path,
        job: str,
        *args: str,
        timeout: float,
        files: tuple[str, ...] = ("login.sh",),
        options: tuple[str, ...] = (),
    ) -> None:
        self.share = directory / "share"
        self.share.mkdir()
        for name in files:
            source = HERE / name
            if source.is_dir():
                shutil.copytree(source, self.share / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.share)
        command = [vmrun(), "--timeout", str(timeout), "--share", str(self.share), *options, str(HERE / job), *args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        self.output = ""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self.output += line

    @property
    def died(self) -> bool:
        """Its kernel panicked, as the console says that the runner shows then."""
        if self.process.returncode != DIED:
            return False
        self.reader.join()
        return "Kernel panic" in self.output

    def report(self) -> str:
        """How it ended and what it said last, also to its console and in the kernel log that a job keeps in ``share``."""
        logs = "".join(
            f"--- {path.name}, its last lines:\n{''.join(path.read_text(errors='replace').splitlines(keepends=True)[-80:])}"
            for path in sorted(self.share.glob("*dmesg*.txt"))
        )
        return f"{logs}--- the guest ended with exit code {self.process.returncode}, and said:\n{self.output[-6000:]}"

    def wait(self, seconds: float) -> None:
        """For its end, but no longer than that."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def finish(self) -> str:
        code = self.process.wait()
        self.reader.join()
        assert code == 0, self.report()
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
