"""``--help``, ``--version``, ``--list-plugins`` and ``--dump-plugin``."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pty
import subprocess
import sys

import pytest
from support.distributions import MINIMAL, make_distribution

COMMAND = [sys.executable, "-c", "from tcm.cli.run import main; main()"]


def test_version(tcm_run):
    result = tcm_run("--version")
    assert result.code == 0
    assert result.out.startswith(f"tcm-run {importlib.metadata.version('tcm-target')} (plug-in API 1, Python 3.")
    assert result.err == ""


def test_help_has_examples_and_environment(tcm_run):
    result = tcm_run("--help")
    assert result.code == 0
    for text in ("Examples:", "tcm-run --fabric iscsi\n", "Environment:", "TCM_CHAP_SECRET", "Exit codes: 0", "--event-loop"):
        assert text in result.out
    assert all(len(line) <= 110 for line in result.out.splitlines())


def test_list_plugins(tcm_run):
    result = tcm_run("--list-plugins")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "DISTRIBUTION", "VERSION", "API", "STATE"]
    rows = [line.split(maxsplit=5) for line in lines[1:]]
    version = importlib.metadata.version("tcm-target-backstores")
    assert ["fileio", "backstore", "tcm-target-backstores", version, "1", "ok"] in rows
    assert ["iscsi", "fabric", "tcm-target-iscsi", importlib.metadata.version("tcm-target-iscsi"), "1", "ok"] in rows
    assert ["delay", "filter", "tcm-target-backstores", version, "1", "ok"] in rows


def test_dump_plugin_shows_every_option(tcm_run):
    result = tcm_run("--dump-plugin", "fileio")
    assert result.code == 0
    assert result.out.startswith("fileio: backstore of tcm-target-backstores ")
    keys = {line.split()[0] for line in result.out.splitlines() if line.startswith("  ")}
    assert {"path", "size", "removable", "read-only", "block-size", "emulate-tpu"} <= keys
    assert "--lun [N=]fileio[:key=value,...]" in result.out
    path = next(line.split() for line in result.out.splitlines() if line.startswith("  path "))
    assert path[:3] == ["path", "path", "required"]
    device = result.out.partition("LIO's device attributes:\n")[2].splitlines()
    column = device[0].index("MEANING")
    assert len(device) > 15
    assert all(line[column:].strip() for line in device), "an attribute without a docstring"


@pytest.mark.parametrize("columns", [30, 80, 400])
def test_dump_plugin_fits_a_terminal(columns):
    """Nothing of the options is lost, and no line is longer than the terminal; a table only where there is room for it."""
    out = on_terminal(columns, "--dump-plugin", "error")
    lines = out.splitlines()
    assert max(map(len, lines)) <= max(columns, 40)
    assert ("KEY" in out) == (columns == 400)
    words = " ".join(out.replace(" | ", "|").split())
    for text in (
        "operation",
        "write_protection",
        "(repeatable)",
        "the part of the matching requests that fails, 0 to 1",
        "EIO",
    ):
        assert text in words


def on_terminal(columns: int, *arguments: str) -> str:
    """What ``tcm-run`` shows on one."""
    ours, its = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns)}
    with subprocess.Popen([*COMMAND, *arguments], stdout=its, env=environment) as process:
        os.close(its)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: its end is closed
            while piece := os.read(ours, 65536):
                seen += piece
    os.close(ours)
    assert process.returncode == 0
    return seen.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("option", ["--list-plugins", "--help", "--version"])
def test_nobody_reads_on(option):
    """Whoever pipes it into head wants no complaint."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, option]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""


def test_dump_of_a_fabric_and_a_filter(tcm_run):
    assert "--fabric loopback[:key=value,...]" in tcm_run("--dump-plugin", "loopback").out
    assert "--filter N=delay[:key=value,...]" in tcm_run("--dump-plugin", "delay").out


def test_a_broken_plugin_is_a_warning_and_a_row(tmp_path):
    """A whole process: nothing of this one's imports may help."""
    make_distribution(tmp_path, "broken-thing", "import nothing_of_that_name", version="0.3", entry_point="thing")
    make_distribution(tmp_path, "good-thing", MINIMAL.format(name="good", api_version=1))
    done = subprocess.run(
        [sys.executable, "-c", "from tcm.cli.run import main; main()", "--list-plugins"],
        env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert len(done.stderr.splitlines()) == 1
    assert "plug-in 'thing' of broken-thing 0.3 cannot be imported (ModuleNotFoundError" in done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert rows["good"].split()[-1] == "ok"
    assert "cannot be imported" in rows["thing"]
    assert rows["thing"].split()[1:5] == ["plug-in", "broken-thing", "0.3", "-"]
