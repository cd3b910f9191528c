"""A tcm-run with its control socket, and an initiator that reads and writes without a pause and checks what it reads."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from support.daemon import Daemon, running
from support.raw_iscsi import Outcome, connect
from support.toy_process import CTL

BLOCK = 512


class Ctl:
    """tcm-ctl for one daemon."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.control = str(folder / "state" / "control.sock")
        # targetcli keeps preferences below HOME
        own = {"TCM_CONTROL": self.control, "XDG_STATE_HOME": str(folder / "xdg"), "HOME": str(folder), "COLUMNS": "200"}
        self.environment = {**os.environ, **own}

    def run(self, *arguments: str, code: int = 0, seconds: float = 120) -> str:
        done = subprocess.run(
            [*CTL, *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stdout + done.stderr

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run("--json", *arguments, code=code))

    def wait_for_socket(self) -> None:
        """Where there are no URLs to wait for."""
        end = time.monotonic() + 20
        while not os.path.exists(self.control):
            assert time.monotonic() < end, self.daemon.log()
            time.sleep(0.02)

    def export(self, folder: Path) -> dict[str, Any]:
        """What runs, as a file has it."""
        path = folder / "exported.json"
        self.run("save", str(path))
        found: dict[str, Any] = json.loads(path.read_text())
        return found


@contextmanager
def controlled(folder: Path, *arguments: str, urls: int = 1, **kwargs: Any) -> Iterator[Ctl]:
    with running(folder, *arguments, urls=urls, **kwargs) as daemon:
        yield Ctl(daemon, folder)


class Load(threading.Thread):
    """Writes and reads one LUN by one session until it is stopped; anything that goes wrong is kept."""

    def __init__(self, url: object, lun: int = 0, *, blocks: int = 8) -> None:
        super().__init__(daemon=True)
        self._initiator = connect(url).ready(lun)
        self._lun = lun
        self._blocks = blocks
        self._ended = threading.Event()
        self.count = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                lba = self._blocks * (self.count % 64)
                data = bytes([self.count % 251]) * (self._blocks * BLOCK)
                self._done(lambda lba=lba, data=data: self._initiator.write(lba, data, self._lun))
                read = self._done(lambda lba=lba: self._initiator.read(lba, self._blocks, self._lun))
                assert read.data == data
                self.count += 1
        except BaseException as error:
            self.failure = error

    def _done(self, command: Callable[[], Outcome]) -> Outcome:
        """Again after a unit attention: that LUNs come and go is told like this."""
        for _ in range(10):
            outcome = command()
            if outcome.status == 0:
                return outcome
            assert outcome.sense_key == 6, outcome
            assert outcome.asc == (0x3F, 0x0E), outcome
        raise AssertionError(f"unit attention after unit attention: {outcome}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self.join(30)
        self._initiator.close()
        if self.failure is not None:
            raise self.failure
        assert self.count > 0
