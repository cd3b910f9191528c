"""The toy tree in a process of its own, and tcm-ctl talking to it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

CTL = [sys.executable, "-W", "error", "-c", "from tcm.cli.ctl import main; main()"]


class ToyProcess:
    """Serves until the ``with`` block ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control = str(folder / "control.sock")
        self.environment = {
            **os.environ,
            "TCM_CONTROL": self.control,
            "XDG_STATE_HOME": str(folder / "state"),
            "TERM": "xterm",
        }

    def __enter__(self) -> Self:
        script = Path(__file__).with_name("toy_server.py")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", script, self.control], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def ctl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """tcm-ctl to its end."""
        return subprocess.run(
            [*CTL, *arguments], capture_output=True, text=True, env=self.environment, input=stdin or "", timeout=60, check=False
        )

    def error(self, *arguments: str, code: int = 1) -> str:
        """The one line of error that it gives."""
        done = self.ctl(*arguments)
        assert done.returncode == code, (done.returncode, done.stderr)
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert done.stdout == ""
        assert lines[0].startswith("tcm-ctl: error: ")
        return lines[0].removeprefix("tcm-ctl: error: ")


class Mounted:
    """``tcm-ctl mount`` for the length of a ``with`` block."""

    def __init__(self, control: str, folder: Path) -> None:
        self.control = control
        self.folder = folder

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [*CTL, "--control", self.control, "mount", str(self.folder)],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        end = time.monotonic() + 20
        while not self.there():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.02)
        return self

    def there(self) -> bool:
        try:
            return os.listdir(self.folder) == ["target"]
        except OSError:
            return False

    def __exit__(self, *_exception: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=60)
