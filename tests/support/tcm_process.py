"""``tcm-run`` as a real process with any arguments, for tests of the command itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self


class TcmProcess:
    """A running tcm-run.

    :param folder: for its state, its output (``out``) and its log (``err``).
    :param path: a folder with more distributions, see :mod:`support.distributions`.
    """

    def __init__(self, folder: Path, *arguments: str, path: Path | None = None, **environment: str) -> None:
        self.out_file = folder / "out"
        self.err_file = folder / "err"
        environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": str(path or ""), **environment}
        with self.out_file.open("wb") as out, self.err_file.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", "from tcm.cli.run import main; main()", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def out(self) -> str:
        return self.out_file.read_text()

    @property
    def err(self) -> str:
        return self.err_file.read_text()

    def wait_for(self, text: str, seconds: float = 60, *, in_log: bool = False) -> None:
        """Until ``text`` has been printed (or logged)."""
        end = time.monotonic() + seconds
        while text not in (self.err if in_log else self.out):
            assert self.process.poll() is None, f"tcm-run ended with {self.process.returncode}: {self.err}"
            assert time.monotonic() < end, f"no {text!r} within {seconds} s: {self.out}{self.err}"
            time.sleep(0.02)

    def serving(self) -> TcmProcess:
        """Waits until it has printed where."""
        self.wait_for("://")
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self, seconds: float = 60) -> int:
        """Waits for its end."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.exit_code()
