"""The command that says what statistics cost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "metrics-cost"


def test_it_prints_ratios() -> None:
    """What they are depends on the machine; that both daemons were measured, and one was scraped, does not."""
    command = [sys.executable, str(TOOL), "--rounds", "2", "--seconds", "0.5", "--interval", "0.1"]
    done = subprocess.run(
        [*command, "--only", "write4k-qd32", "--luns", "3"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "LUNs: 3, scraped every 0.1 s" in done.stdout
    (row,) = re.findall(r"^write4k-qd32 (.*)$", done.stdout, re.MULTILINE)
    figures = [float(each) for each in row.split()]
    assert len(figures) == 8
    assert all(figure > 0 for figure in figures)
    assert 0.01 < figures[2] < 100
