"""Ethernet segments with guests on them and one place for us: a bridge of the kernel's (root), or a hub of Unix sockets."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from support.namespaces import Namespace

LARGEST = 65536
PATIENCE = 0.5
"""Seconds that a hub waits for a port that does not read."""


class Segment(Protocol):
    """Somewhere to plug in guests and one interface of ours."""

    interface: str
    """What ``--interface`` names."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    def nic(self, number: int) -> str:
        """What ``vmrun --l2`` takes for a guest's NIC."""
        ...

    def connect(self) -> None:
        """Plug in guests' NICs that have been made since."""
        ...

    def command(self, *words: str) -> list[str]:
        """What runs a program where the interface is."""
        ...

    def cut(self) -> None:
        """Pull our plug."""
        ...

    def mend(self) -> None: ...


class BridgedSegment:
    """A namespace with a bridge; our interface is ``tcm0``, whose cable goes to the bridge."""

    interface = "tcm0"

    def __enter__(self) -> Self:
        self.ns = Namespace()
        self.ns.cable("tcm0", "port0")
        self.ns.ip("link", "add", "segment", "type", "bridge", "mcast_snooping", "0")
        self.ns.ip("link", "set", "segment", "mtu", "2500", "addrgenmode", "none", "up")
        self.ns.ip("link", "set", "port0", "master", "segment")
        self.waiting: list[str] = []
        return self

    def __exit__(self, *_exception: object) -> None:
        self.ns.remove()

    def nic(self, number: int) -> str:
        self.waiting.append(f"guest{number}")
        return f"tap:{self.ns.name}/guest{number}"

    def connect(self) -> None:
        there = self.ns.ip("-br", "link")
        for name in [each for each in self.waiting if f"{each} " in there]:
            self.ns.ip("link", "set", name, "master", "segment")
            self.waiting.remove(name)

    def command(self, *words: str) -> list[str]:
        return self.ns.command(*words)

    def cut(self) -> None:
        self.ns.ip("link", "set", "port0", "down")

    def mend(self) -> None:
        self.ns.ip("link", "set", "port0", "up")


class Hub:
    """A segment of Unix sockets, without root: a frame goes where its destination was last seen, or else to all other ports."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hub"))
        self.lock = threading.Lock()
        self.ports: dict[int, socket.socket] = {}
        self.places: dict[bytes, int] = {}
        """Ports, by the MAC addresses behind them."""
        self.selector = selectors.DefaultSelector()
        self.stopped = False
        self.thread = threading.Thread(target=self._forward)
        self.interface = f"unix:{self.folder / 'end0'},{self.folder / 'port0'}"

    def __enter__(self) -> Self:
        self._open(0)
        self.thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stopped = True
        self.thread.join()
        for number in list(self.ports):
            self._close(number)
        self.selector.close()
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def _open(self, number: int) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(self.folder / f"port{number}"))
        sock.settimeout(PATIENCE)
        with self.lock:
            self.ports[number] = sock
            self.selector.register(sock, selectors.EVENT_READ, number)

    def _close(self, number: int) -> None:
        with self.lock:
            sock = self.ports.pop(number)
            self.places = {address: place for address, place in self.places.items() if place != number}
            self.selector.unregister(sock)
        sock.close()
        os.unlink(self.folder / f"port{number}")

    def _forward(self) -> None:
        while not self.stopped:
            for key, _ in self.selector.select(0.1):
                with self.lock:
                    if self.ports.get(key.data) is not key.fileobj:
                        continue
                    frame = self.ports[key.data].recv(LARGEST)
                    self.places[frame[6:12]] = key.data
                    place = self.places.get(frame[:6])
                    for number, sock in self.ports.items():
                        if number != key.data and (place is None or place == number):
                            with contextlib.suppress(OSError):
                                sock.sendto(frame, str(self.folder / f"end{number}"))

    def nic(self, number: int) -> str:
        self._open(number + 1)
        return f"unix:{self.folder / f'end{number + 1}'},{self.folder / f'port{number + 1}'}"

    def connect(self) -> None:
        """They are."""

    def command(self, *words: str) -> list[str]:
        return list(words)

    def cut(self) -> None:
        self._close(0)

    def mend(self) -> None:
        self._open(0)


def follow(segment: Segment, share: Path, running: object, crash: Callable[[], None]) -> None:
    """What the guest wishes: our plug is out as long as there is a file ``cut`` in ``share``; a file ``kill`` is answered with
    ``crash``, and removed once that is done."""
    out = False
    while running():  # type: ignore[operator]
        segment.connect()
        if (share / "kill").exists():
            crash()
            (share / "kill").unlink()
        if (share / "cut").exists() != out:
            out = not out
            if out:
                segment.cut()
            else:
                segment.mend()
        time.sleep(0.1)
    if out:
        segment.mend()
