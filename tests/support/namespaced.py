"""What it takes to run programs for LIO on the mounted tree in a mount namespace of their own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess

import pytest

PROGRAMS = {"targetcli": "targetcli-fb", "fusermount3": "fuse3", "dbus-daemon": "dbus", "unshare": "util-linux"}


def needs_namespace() -> None:
    """Skips the module where it cannot be."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {package}", allow_module_level=True)
    if not os.path.exists("/dev/fuse") or importlib.util.find_spec("mfusepy") is None:
        pytest.skip("no /dev/fuse, or not installed: pip install 'tcm-target[fuse]'", allow_module_level=True)
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("mount namespaces are not allowed here", allow_module_level=True)
