"""The Makefile and its tools: what is missing is said, with the fix."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def project(tmp_path) -> Path:
    """The parts of the project that ``make`` looks at."""
    for name in ("Makefile", "tools", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def make(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTHON"))}
    return subprocess.run(
        ["make", *arguments], cwd=project, env={**clean, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def interpreter(project: Path, script: str) -> str:
    path = project / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("target", ["run", "test"])
def test_no_venv_module(project, target):
    python = interpreter(project, f'case "$*" in *venv*) exit 1;; esac\nexec {sys.executable} "$@"')
    done = make(project, target, PYTHON=python)
    assert done.returncode != 0
    assert f"error: {python} has no venv module" in done.stderr
    assert "fix: apt-get install python3-venv" in done.stderr


def test_an_old_python(project):
    python = interpreter(project, 'case "$*" in *version_info*) exit 1;; esac')
    done = make(project, "run", PYTHON=python)
    assert done.returncode != 0
    assert "error: Python 3.11 or newer is needed" in done.stderr
    assert "fix: " in done.stderr


def test_an_environment_that_is_there_is_used_and_bad_arguments_are_explained(project):
    """Stands in an environment of this one's packages, so that nothing is downloaded."""
    binaries = project / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (binaries / "tcm-run").write_text(f'#!/bin/sh\nexec {sys.executable} -c "from tcm.cli.run import main; main()" "$@"\n')
    for each in binaries.iterdir():
        each.chmod(0o755)
    (project / ".venv" / "installed-requirements").touch()
    done = make(project, "run", "ARGS=--lun nope", XDG_STATE_HOME=str(project))
    assert "environment: .venv is up to date" in done.stdout
    assert "running: .venv/bin/tcm-run --fabric iscsi --lun nope" in done.stdout
    assert done.returncode != 0
    assert "tcm-run: error: --lun 0=nope: there is no backstore 'nope'" in done.stderr
    assert 'make run ARGS="--portal 127.0.0.1:3261"' in done.stderr


def test_help_is_the_default(project):
    done = make(project)
    assert done.returncode == 0
    for target in ("run", "test", "lint", "bench", "clean"):
        assert f"make {target}" in done.stdout


def test_clean_leaves_the_sources(project):
    (project / ".venv").mkdir()
    (project / ".mypy_cache").mkdir()
    done = make(project, "clean")
    assert done.returncode == 0
    assert not (project / ".venv").exists()
    assert not (project / ".mypy_cache").exists()
    assert (project / "tools" / "environment").exists()


@pytest.mark.parametrize("script", ["tools/environment", "tools/bench", ".ci/run"])
def test_scripts_are_shell_and_stop_at_the_first_error(script):
    path = ROOT / script
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
