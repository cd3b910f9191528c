"""Where files can live."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def tmpfs():
    """A directory in memory."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("/dev/shm cannot be written")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def run(*command: str) -> str:
    """A system administrator's command; skips the test if this machine or user cannot run it."""
    if os.geteuid() != 0:
        pytest.skip(f"{command[0]} needs root")
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout.strip()


@pytest.fixture
def small_tmpfs(tmp_path):
    """A file system of 2 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", str(directory))
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.fixture
def loop_device():
    """A function that makes a block device of a file."""
    devices = []

    def attach(path) -> str:
        devices.append(run("losetup", "--find", "--show", str(path)))
        return devices[-1]

    yield attach
    for device in devices:
        subprocess.run(["losetup", "--detach", device], check=True)
