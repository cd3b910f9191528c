"""Programs that interop tests need: found, or the test skips and names the Debian package (with ``CI=true`` it fails)."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = {
    "iscsi-ls": "libiscsi-bin",
    "iscsi-inq": "libiscsi-bin",
    "iscsi-swp": "libiscsi-bin",
    "iscsi-perf": "libiscsi-bin",
    "iscsi-readcapacity16": "libiscsi-bin",
    "iscsi-test-cu": "libiscsi-bin",
    "qemu-img": "qemu-utils qemu-block-extra",
    "qemu-io": "qemu-utils qemu-block-extra",
    "qemu-system-x86_64": "qemu-system-x86",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "cpio": "cpio",
    "mount": "mount",
    "ip": "iproute2",
    "tc": "iproute2",
    "setpriv": "util-linux",
    "isnsd": "open-isns-server",
    "isnsadm": "open-isns-utils",
    "socat": "socat",
    "snmpd": "snmpd",
    "snmpwalk": "snmp",
    "snmpbulkwalk": "snmp",
    "snmpget": "snmp",
    "snmpset": "snmp",
    "openssl": "openssl",
    "tshark": "tshark",
}
SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def unavailable(reason: str) -> None:
    """End the test: it cannot run on this machine."""
    if in_ci():
        pytest.fail(f"{reason} (CI=true: nothing may be skipped)", pytrace=False)
    pytest.skip(reason)


def program(name: str) -> str:
    """The path of a program."""
    path = shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        unavailable(f"{name} is not installed: apt-get install {PACKAGES[name]}")
    assert path is not None
    return path


def needs_root(why: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"needs root: {why}")


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """A file system that is soon full."""
    needs_root("mounts a small tmpfs")
    directory.mkdir()
    command = [program("mount"), "-t", "tmpfs", "-o", f"size={megabytes}m", "tcm-test", str(directory)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


_handed_out: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens at, nor is given by the kernel: those belong to whoever asks for any next."""
    first, last = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    others = [port for port in range(10_000, 65_000) if not first <= port <= last and port not in _handed_out]
    while True:
        port = random.SystemRandom().choice(others or [0])
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            port = int(sock.getsockname()[1])
            _handed_out.add(port)
            return port
