"""The measuring programs of tools/: each explains itself, and those that need nothing but the code measure something."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import ROOT

HEAD = "#!/usr/bin/env python3"
PYTHON = sorted(path for path in (ROOT / "tools").iterdir() if path.is_file() and path.read_text().startswith(HEAD))


def run(*command: str) -> str:
    words = [sys.executable, "-W", "error", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("tool", PYTHON, ids=lambda path: path.name)
def test_help(tool: Path) -> None:
    assert "usage:" in run(str(tool), "--help")


@pytest.mark.parametrize("command", [("tools/hotpath",), ("-m", "support.fcoe_cost")])
def test_what_commands_cost(command: tuple[str, ...]) -> None:
    text = run(*command, "--rounds", "8")
    assert len(re.findall(r"reads?|writes?", text, re.IGNORECASE)) >= 4
    assert "inf" not in text
