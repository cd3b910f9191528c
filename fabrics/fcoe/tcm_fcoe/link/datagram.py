"""A link that carries each frame in a datagram of a Unix socket, as QEMU's ``-netdev dgram`` does: no root needed."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING
from zlib import crc32

import anyio

from tcm.failure import ConfigError
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
            self.set_addresses(frozenset())
        except BaseException:
            self.sock.close()
            raise
        memory = memoryview(bytearray(BATCH * ROOM))
        self.room = [memory[at : at + ROOM] for at in range(0, BATCH * ROOM, ROOM)]
        # another socket sends: two that are connected to each other would turn away whoever takes the other's place
        self.sender: socket.socket | None = None
        self.awaited: socket.socket | None = None
        self.known: tuple[int, int, int] | None = None
        """Device, inode (numbers are used again) and time of the peer's path when ``sender`` was connected to it."""
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
                return stat.S_ISSOCK(os.lstat(self.local).st_mode)
            except OSError:
                pass
            return False

    def _look(self) -> None:
        """Whether the peer is there, and whether it is the one we know."""
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            found = os.stat(self.peer)
            sender.connect(self.peer)  # a path can outlive its socket
        except OSError:
            sender.close()
            self._down()
            return
        there = found.st_dev, found.st_ino, found.st_ctime_ns
        if self.sender is not None and there == self.known:
            sender.close()
            return
        self._down()
        self.sender, self.known, self.up = sender, there, True

    def _down(self) -> None:
        if self.sender is not None:
            if self.sender is not self.awaited:  # a socket that somebody waits for must not be closed
                self.sender.close()
            self.sender = None
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
        counters = self.counters
        limit = min(self.mtu + HEADER_LENGTH + TAG_LENGTH, MAX_FRAME_LENGTH)
        while frames:
            if self.sender is None:
                counters.discarded_frames += len(frames)
                frames.clear()
                break
            frame = frames[0]
            length = len(frame)
            if length > limit:
                counters.oversize_frames += 1
                frames.popleft()
                continue
            if length < MIN_FRAME_LENGTH:  # a network card pads; nobody does here
                frame = frame.ljust(MIN_FRAME_LENGTH, b"\0")
            try:
                counters.octets_out += self.sender.send(frame)
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
        sender = self.awaited = self.sender
        if sender is None:
            return
        try:
            with anyio.move_on_after(LOOK):  # a peer that never reads is not worth more
                await anyio.wait_writable(sender)
        finally:
            self.awaited = None
            if sender is not self.sender:
                sender.close()

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
        if self.sender is not None:
            self.sender.close()
            self.sender = None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.local), self.bound):
                os.unlink(self.local)
