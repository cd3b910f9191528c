"""Every shell example of the README that is marked ``<!-- test -->`` runs, and what the README says of commands is so."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^<!-- test -->\n```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

WRAPPER = """#!{python}
import re, signal, subprocess, sys

arguments = [re.sub(r":3260$", ":0", each) for each in sys.argv[1:]]
serves = "--fabric" in arguments
if serves and "--portal" not in arguments and "loopback" not in arguments:
    arguments += ["--portal", "127.0.0.1:0"]
command = [sys.executable, "-c", "from tcm.cli.run import main; main()", *arguments]
tcm = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
if serves:
    for line in tcm.stdout:
        print(line, end="")
        if "://" in line:
            tcm.send_signal(signal.SIGTERM)
            break
print(tcm.stdout.read(), end="")
sys.exit(tcm.wait(20))
"""
"""Stands for tcm-run on the path: the same arguments, any free port instead of 3260, and an end once it serves."""


def test_there_are_examples():
    assert len(EXAMPLES) >= 6
    assert all("tcm-run" in example for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.splitlines()[-1][:60] for example in EXAMPLES])
def test_example(tmp_path, example):
    binaries = tmp_path / "bin"
    binaries.mkdir()
    wrapper = binaries / "tcm-run"
    wrapper.write_text(WRAPPER.format(python=sys.executable))
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "XDG_STATE_HOME": str(tmp_path / "state")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if "--fabric" in example:
        luns = max(1, example.count("--lun"))
        assert len(re.findall(r"^(?:iscsi|loopback)://", done.stdout, re.MULTILINE)) == luns
    else:
        assert "delay" in done.stdout


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_first_commands_exist():
    """The README begins with make run, make test, and the plain pip line that does the same."""
    first = re.findall(r"^    (\S.*)$", README, re.MULTILINE)[:4]
    assert [line.split()[:2] for line in first] == [
        ["make", "run"],
        ["make", "test"],
        ["pip", "install"],
        ["tcm-run", "--fabric"],
    ]
    folders = first[2].split()[2:]
    assert all((ROOT / folder / "pyproject.toml").exists() for folder in folders)
    assert len(folders) == 5
    development = [line.split()[1] for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("-e")]
    assert sorted(development) == sorted(folders)
