"""``tcm-run`` in this process: for everything that ends before it serves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tcm.cli.run import run_command


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a bad usage or configuration gets."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("tcm-run: error: ")
        assert self.code == 2
        assert self.out == ""
        return lines[0].removeprefix("tcm-run: error: ")


@pytest.fixture
def tcm_run(capfd, tmp_path, monkeypatch) -> Callable[..., Result]:
    """Runs it with a state directory of its own; logging is as it was afterwards."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        try:
            code = run_command([str(each) for each in arguments])
        finally:
            root.handlers[:], root.level = before
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run
