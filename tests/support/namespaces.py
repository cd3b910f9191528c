"""Network namespaces with a cable between two interfaces, made for one test (root)."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.programs import needs_root, program

CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def _enter(fd: int) -> None:
    if _LIBC.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """One network namespace. What is opened :meth:`inside` stays there."""

    def __init__(self) -> None:
        self.name = f"tcm-{os.getpid()}-{next(_numbers)}"
        made = subprocess.run([program("ip"), "netns", "add", self.name], capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no network namespaces here: {made.stderr.strip()}")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)
            os.close(there)

    def ip(self, *words: str) -> str:
        """``ip`` in the namespace."""
        command = [program("ip"), "-n", self.name, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def tc(self, *words: str) -> None:
        """``tc`` in the namespace."""
        subprocess.run([program("tc"), "-n", self.name, *words], check=True)

    def command(self, *words: str) -> list[str]:
        """What runs a program there."""
        return [program("ip"), "netns", "exec", self.name, *words]

    def cable(self, *names: str, mtu: int = 2500) -> None:
        """A pair of interfaces that are the ends of one cable, both up."""
        one, other = names
        self.ip("link", "add", one, "mtu", str(mtu), "type", "veth", "peer", "name", other, "mtu", str(mtu))
        for name in names:
            # what the kernel would say there by itself (IPv6) has no place in a test
            self.ip("link", "set", name, "addrgenmode", "none")
            self.ip("link", "set", name, "up")
        while any("state UP" not in self.ip("link", "show", name) for name in names):
            time.sleep(0.01)

    def remove(self) -> None:
        subprocess.run([program("ip"), "netns", "del", self.name], check=True)


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A new one, for root; the test skips otherwise."""
    needs_root("makes a network namespace")
    made = Namespace()
    try:
        yield made
    finally:
        made.remove()
