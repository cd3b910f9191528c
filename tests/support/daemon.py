"""The real ``tcm-run`` as a process of its own, for tests: start, URLs, memory, stop and kill, always by its process id."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

TARGET = "iqn.2003-01.org.linux-iscsi.test:interop"
_URL = re.compile(r"iscsi://(?P<host>\[[^]]+\]|[^:/\s]+):(?P<port>\d+)/(?P<target>[^/\s]+)/(?P<lun>\d+)")


@dataclass(frozen=True)
class Url:
    """An address that tcm-run printed."""

    text: str
    host: str
    port: int
    target: str
    lun: int

    @property
    def portal(self) -> str:
        return self.text.split("/")[2]

    def with_user(self, user: str, secret: str) -> str:
        """The URL as libiscsi takes it with CHAP."""
        return self.text.replace("iscsi://", f"iscsi://{user}%{secret}@", 1)


def parse_url(line: str) -> Url | None:
    """The URL of a line that consists of one, as tcm-run prints them; ``None`` for any other line."""
    found = _URL.fullmatch(line.strip().split(" ")[0]) if line.strip() else None
    if found is None:
        return None
    return Url(found[0], found["host"].strip("[]"), int(found["port"]), found["target"], int(found["lun"]))


class Daemon:
    """One tcm-run. ``args`` follow ``--fabric iscsi --state-dir ... --target ... --portal 127.0.0.1:0``.

    :param urls: how many different URLs to wait for.
    :param fabric: with its options: ``iscsi:poll=0``.
    """

    def __init__(
        self,
        directory: Path,
        *args: str,
        urls: int = 1,
        portals: Sequence[str] = ("127.0.0.1:0",),
        target: str | None = TARGET,
        env: Mapping[str, str] | None = None,
        fabric: str = "iscsi",
    ) -> None:
        self.directory = directory
        self.log_path = directory / "tcm-run.log"
        self.expected = urls
        self.env = {**os.environ, "PYTHONWARNINGS": "error", **(env or {})}
        self.args = ["--fabric", fabric, "--state-dir", str(directory / "state")]
        if target is not None:
            self.args += ["--target", target]
        for portal in portals:
            self.args += ["--portal", portal]
        self.args += args
        self.urls: list[Url] = []
        self.output: list[str] = []
        self.seconds_to_listening = 0.0
        self.process: subprocess.Popen[str] | None = None

    parse = staticmethod(parse_url)
    """The URL of a line of its output."""

    # life cycle

    def start(self, timeout: float = 60) -> Daemon:
        """Start and wait until it has printed its URLs."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.urls.clear()
        self.output.clear()
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        begin = time.monotonic()
        with self.log_path.open("ab") as log:
            process = self.process = subprocess.Popen(
                [self.executable(), *self.args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.env,
                start_new_session=True,
            )
        threading.Thread(target=self._follow, args=(process, lines), daemon=True).start()
        while len(self.urls) < self.expected:
            try:
                line = lines.get(timeout=max(0.0, begin + timeout - time.monotonic()))
            except queue.Empty:
                self.kill()
                raise AssertionError(f"no {self.expected} URLs within {timeout} s: {self.output}\n{self.log()}") from None
            if line is None:
                code = process.wait()
                raise AssertionError(f"tcm-run ended with {code}: {self.output}\n{self.log()}")
            url = self.parse(line)
            if url is not None and url not in self.urls:
                self.seconds_to_listening = self.seconds_to_listening or time.monotonic() - begin
                self.urls.append(url)
        return self

    @staticmethod
    def executable() -> str:
        """The tcm-run of the environment that runs the tests."""
        script = Path(sys.executable).with_name("tcm-run")
        assert script.exists(), f"{script} is missing: install the distributions into this environment first"
        return str(script)

    def _follow(self, process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.output.append(line.rstrip("\n"))
                lines.put(line)
        lines.put(None)

    def stop(self, timeout: float = 60) -> None:
        """SIGTERM, and insist on a clean end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"tcm-run was still there {timeout} s after SIGTERM\n{self.log()}") from None
        self.process = None
        assert code == 0, f"tcm-run ended with {code} after SIGTERM\n{self.log()}"

    def kill(self) -> None:
        """kill -9, as a crash."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> Daemon:
        """Start again with the same state, on the same port where there is one portal."""
        if self.urls:
            ports = iter([str(port) for port in dict.fromkeys(url.port for url in self.urls)])
            self.args = [arg.removesuffix(":0") + ":" + next(ports) if arg.endswith(":0") else arg for arg in self.args]
        return self.start()

    # what it is like

    @property
    def url(self) -> Url:
        """The first URL."""
        return self.urls[0]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def rss(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024  # type: ignore[index]

    def processor_seconds(self) -> float:
        """What it has used of the processor so far: can be bounded on a busy machine too, where elapsed time cannot."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def file_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def assert_quiet(self) -> None:
        """No traceback and no unawaited anything in the log."""
        assert self.alive(), f"tcm-run is gone\n{self.log()}"
        for word in ("Traceback", "ResourceWarning", "never awaited", "never retrieved"):
            assert word not in self.log(), self.log()[-4000:]


DaemonT = TypeVar("DaemonT", bound=Daemon)


def running(directory: Path, *args: str, **kwargs: object) -> AbstractContextManager[Daemon]:
    """A daemon for the length of a ``with`` block; a clean block ends with a clean stop."""
    return started(Daemon(directory, *args, **kwargs))  # type: ignore[arg-type]


@contextmanager
def started(daemon: DaemonT) -> Iterator[DaemonT]:
    """This daemon, likewise."""
    try:
        daemon.start()
        yield daemon
        if daemon.alive():
            daemon.assert_quiet()
            daemon.stop()
    finally:
        daemon.kill()


def wait_until(condition: object, timeout: float, what: str, interval: float = 0.05) -> None:
    """Ask again and again; fail with ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(interval)
