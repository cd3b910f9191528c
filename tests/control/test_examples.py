"""The examples in the help of ``tcm-ctl``: every command has some, they fit 80 columns, and a shell can run them."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator

import pytest
from support.controlled import Ctl, controlled
from support.namespaced import needs_namespace
from support.programs import free_port
from support.terminal import screen
from support.toy_process import CTL

from tcm.cli.ctl import command
from tcm.cli.ctl_examples import EXAMPLES

NAMES = {
    "IQN": "iqn.2003-01.org.example:examples",
    "INITIATOR": "iqn.2025-01.test.raw:initiator",
    "--revision 40": "--revision $(tcm-ctl version --json | grep -o 'revision.*[0-9]' | grep -o '[0-9]*')",
}
MOUNTS = ("mount", "targetcli", "exec")


@pytest.fixture(scope="module")
def ctl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctl]:
    folder = tmp_path_factory.mktemp("examples")
    with controlled(folder, "--empty", urls=0, target=None, portals=()) as made:
        made.wait_for_socket()
        programs = folder / "bin"
        programs.mkdir()
        script = programs / "tcm-ctl"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(CTL)} "$@"\n')
        script.chmod(0o755)
        made.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
        yield made


def run(ctl: Ctl, text: str) -> str:
    """What a shell makes of it, somewhere with an empty folder for files."""
    folder = ctl.daemon.directory / "files"
    folder.mkdir(exist_ok=True)
    for name, meant in {**NAMES, "/srv": str(folder), "0.0.0.0:3260": f"127.0.0.1:{free_port()}"}.items():
        text = text.replace(name, meant)
    done = subprocess.run(
        ["sh", "-e", "-c", text],
        cwd=folder,
        env=ctl.environment,
        input="a secret of alice\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    assert "tcm-ctl: error" not in done.stderr
    return done.stdout


def test_every_command_has_some() -> None:
    assert EXAMPLES.keys() == command.commands.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_they_are_in_its_help(ctl: Ctl, name: str) -> None:
    lines = screen(ctl.environment, name, "--help", columns=80).splitlines()
    assert f"Usage: tcm-ctl {name} [OPTIONS]" in lines[0]
    at = lines.index("  Examples:")
    assert [line[4:] for line in lines[at + 1 :]] == EXAMPLES[name].splitlines()
    assert max(map(len, lines)) <= 80


def test_they_run_one_after_another(ctl: Ctl) -> None:
    for name, text in EXAMPLES.items():
        if name not in MOUNTS:
            run(ctl, text.replace("tcm-ctl top\n", "timeout --preserve-status -s INT 2 tcm-ctl top\n"))
        if name == "sessions":
            assert "iqn.2003-01.org.example:examples" in run(ctl, "tcm-ctl ls")
    assert "no targets" in run(ctl, "tcm-ctl ls")


def test_those_that_mount_the_tree_run(ctl: Ctl) -> None:
    needs_namespace()
    for name in ("create", "link"):
        run(ctl, EXAMPLES[name])
    for name in MOUNTS:
        text = EXAMPLES[name].replace("tcm-ctl targetcli\n", "echo ls | tcm-ctl targetcli\n")
        run(ctl, text.replace("tcm-ctl mount tree", "timeout --preserve-status 3 tcm-ctl mount tree"))
    assert "ram0" in run(ctl, "tcm-ctl ls")
