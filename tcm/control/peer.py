"""Unix sockets: who is at the other end, and addresses of any length."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as the kernel says (``SO_PEERCRED``)."""

    pid: int
    uid: int
    gid: int
    program: str = ""

    @property
    def allowed(self) -> bool:
        """It runs as the user that we run as, or as root."""
        return self.uid in {0, os.geteuid()}

    def __str__(self) -> str:
        """For the list of changes: ``tcm-ctl (pid 7, uid 0)``."""
        return f"{self.program or 'process'} (pid {self.pid}, uid {self.uid})"


def peer_of(connection: socket.socket) -> Peer:
    """Raises :class:`OSError`."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid, gid, _program(pid))


def _program(pid: int) -> str:
    """What it calls itself, in printable characters."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            text = file.read(64).decode(errors="replace").strip()
    except OSError:
        return ""
    return "".join(character if character.isprintable() else "?" for character in text)


@contextmanager
def short_path(path: str) -> Iterator[str]:
    """An address for ``path`` of less than the 108 bytes that there are (unix(7)), valid inside of the ``with`` block.

    Raises :class:`OSError` if its folder is not there.
    """
    descriptor = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{os.path.basename(path)}"
    finally:
        os.close(descriptor)
