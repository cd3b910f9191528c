"""tcm-ctl in a terminal of a given size."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path

from support.toy_process import CTL

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\x07|\x01|\x02")


class Terminal:
    """A process of tcm-ctl; what it shows is in ``shown``, without colours."""

    def __init__(self, environment: Mapping[str, str], *arguments: str, columns: int = 80, rows: int = 30) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        own = {name: value for name, value in environment.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
        self.process = subprocess.Popen(
            [*CTL, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**own, "TERM": "xterm-256color"},
            preexec_fn=_controlling_terminal,
            start_new_session=True,
        )
        os.close(theirs)
        self._ours = ours
        self._raw = b""

    @property
    def shown(self) -> str:
        return _ESCAPES.sub("", self._raw.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def until(self, text: str, seconds: float = 60, *, times: int = 1) -> None:
        """Until it shows that, so many times altogether."""
        end = time.monotonic() + seconds
        while self.shown.count(text) < times:
            assert self._read(max(end - time.monotonic(), 0)), f"no {text!r}: {self.shown}"

    def finish(self, seconds: float = 60) -> int:
        """Its exit code, once it has ended by itself."""
        end = time.monotonic() + seconds
        while self._read(max(end - time.monotonic(), 0)):
            pass
        os.close(self._ours)
        try:
            return self.process.wait(max(end - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it does not end: {self.shown}") from None

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], seconds)
        try:
            part = os.read(self._ours, 65536) if ready else b""
        except OSError:  # that is how the other end's end is told
            part = b""
        self._raw += part
        return bool(part)


def _controlling_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def screen(environment: Mapping[str, str], *arguments: str, columns: int = 80) -> str:
    """What a command shows that ends by itself, without an error."""
    terminal = Terminal(environment, *arguments, columns=columns)
    code = terminal.finish()
    assert "Traceback" not in terminal.shown
    assert code in {0, 1}, terminal.shown
    return terminal.shown


def here(folder: Path) -> dict[str, str]:
    """An environment with nothing of ours in it."""
    return {**os.environ, "XDG_STATE_HOME": str(folder), "HOME": str(folder)}
