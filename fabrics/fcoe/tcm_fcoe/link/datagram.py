"""A link that carries each frame in a datagram of a Unix socket, as QEMU's ``-netdev dgram`` does: no root needed."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING
from zlib import crc32

import anyio

from tcm.backstore import ConfigError
from tcm_fcoe.link.base import BATCH, ROOM, Link, mtu_notices
from tcm_fcoe.link.socket_filter import attach, program
from tcm_fcoe.protocol.ethernet import HEADER_LENGTH, MAX_FRAME_LENGTH, MIN_FRAME_LENGTH, TAG_LENGTH

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

PREFIX = "unix:"
MTU = 2500
MAX_PATH_LENGTH = 107
SEND_BUFFER = 1 << 20
LOOK = 0.25
"""Seconds between looks for the peer while it is not there, and at whether it still is."""


def stand_in_address(path: str) -> bytes:
    """A locally administered MAC address that is the same each time for the same path."""
    return b"\x02\xfc" + crc32(os.path.abspath(path).encode()).to_bytes(4, "big")


class DatagramLink(Link):
    """Frames are received at the socket LOCAL and sent to the socket PEER; the link is up while somebody is bound there.

    :param address: our MAC address, if :func:`stand_in_address` will not do.
    :raises ConfigError: no two paths, or LOCAL cannot be bound.
    """

    def __init__(self, name: str, *, address: bytes | None = None, mtu: int = MTU, promiscuous: bool = False) -> None:
        super().__init__(name)
        option = f"--interface {name}"
        self.local, comma, self.peer = name.removeprefix(PREFIX).partition(",")
        if not comma or not self.local or not self.peer or self.local == self.peer or "," in self.peer:
            raise ConfigError(f"{option}: write unix:LOCAL,PEER with the paths of two sockets, ours first")
        for path in (self.local, self.peer):
            if len(os.fsencode(path)) > MAX_PATH_LENGTH:
                raise ConfigError(
                    f"{option}: a socket's path has at most {MAX_PATH_LENGTH} bytes; put them in a folder with a shorter name"
                )
        self.mtu = mtu
        self.notices = mtu_notices(option, mtu, "a higher MTU costs nothing here")
        self.address = address or stand_in_address(self.local)
        self.promiscuous = promiscuous
        self.bound: os.stat_result
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._bind(option)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self.set_addresses(frozenset())
        except BaseException:
            self.sock.close()
            raise
        memory = memoryview(bytearray(BATCH * ROOM))
        self.room = [memory[at : at + ROOM] for at in range(0, BATCH * ROOM, ROOM)]
        self.connected_to: tuple[int, int] | None = None
        self._look()
        self.told = (self.up, self.downs)

    def _bind(self, option: str) -> None:
        try:
            try:
                self.sock.bind(self.local)
            except OSError as e:
                if e.errno != errno.EADDRINUSE or not self._left_behind():
                    raise
                os.unlink(self.local)
                self.sock.bind(self.local)
            self.bound = os.stat(self.local)
        except OSError as e:
            why = {
                errno.EADDRINUSE: "something else is there; stop the program that uses it, or write another path",
                errno.ENOENT: "its folder does not exist; make it first",
                errno.EACCES: "no permission to make a socket there; write a path in a folder of your own",
            }.get(e.errno or 0, e.strerror or str(e))
            raise ConfigError(f"{option}: {self.local}: {why}") from e

    def _left_behind(self) -> bool:
        """Whether nobody is bound to the socket at our path any more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(self.local)
            except ConnectionRefusedError:
                return os.path.exists(self.local)
            except OSError:
                pass
            return False

    def _look(self) -> None:
        """Whether the peer is there, and whether it is the one we know."""
        try:
            found = os.stat(self.peer)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.connect(self.peer)  # a path can outlive its socket
            there = found.st_dev, found.st_ino
        except OSError:
            self._down()
            return
        if self.up and there != self.connected_to:
            self._down()
        if not self.up:
            try:
                self.sock.connect(self.peer)
            except OSError:
                return
            self.connected_to, self.up = there, True

    def _down(self) -> None:
        if self.up:
            self.up = False
            self.downs += 1

    def set_addresses(self, addresses: frozenset[bytes]) -> None:
        attach(self.sock, program(None if self.promiscuous else addresses | {self.address}))

    def fileno(self) -> int:
        return self.sock.fileno()

    def receive(self) -> Sequence[memoryview]:
        recv_into, counters = self.sock.recv_into, self.counters
        frames: list[memoryview] = []
        for room in self.room:
            try:
                length = recv_into(room)
            except BlockingIOError:
                break
            except OSError:  # the peer went away; the next look tells
                break
            if length > MAX_FRAME_LENGTH:
                counters.oversize_frames += 1
                continue
            counters.frames_in += 1
            counters.octets_in += length
            frames.append(room[:length])
        return frames

    def send(self, frames: deque[bytes]) -> bool:
        send, counters = self.sock.send, self.counters
        limit = min(self.mtu + HEADER_LENGTH + TAG_LENGTH, MAX_FRAME_LENGTH)
        while frames:
            if not self.up:
                counters.discarded_frames += len(frames)
                frames.clear()
                return True
            frame = frames[0]
            if len(frame) > limit:
                counters.oversize_frames += 1
                frames.popleft()
                continue
            try:
                # a network card pads; nobody does here
                counters.octets_out += send(frame if len(frame) >= MIN_FRAME_LENGTH else frame.ljust(MIN_FRAME_LENGTH, b"\0"))
            except BlockingIOError:
                counters.congestions += 1
                return False
            except OSError:
                self._down()
                continue
            counters.frames_out += 1
            frames.popleft()
        return True

    async def wait_readable(self) -> None:
        await anyio.wait_readable(self.sock)

    async def wait_writable(self) -> None:
        with anyio.move_on_after(LOOK):  # a peer that never reads is not worth more
            await anyio.wait_writable(self.sock)

    async def wait_change(self) -> None:
        while (self.up, self.downs) == self.told:
            await anyio.sleep(LOOK)
            self._look()
        self.told = self.up, self.downs

    def refresh(self) -> None:
        """Nothing is dropped: whoever sends has to wait."""

    def close(self) -> None:
        if self.sock.fileno() < 0:
            return
        self.sock.close()
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.local), self.bound):
                os.unlink(self.local)
