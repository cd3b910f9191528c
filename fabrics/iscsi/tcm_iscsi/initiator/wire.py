"""A connection's socket: what waits to be sent on it, and what was received. Only this file touches the network."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from tcm_iscsi.initiator.results import InitiatorError

if TYPE_CHECKING:
    from tcm_iscsi.initiator.connection import Connection
    from tcm_iscsi.initiator.faults import FaultyWire

IOV_MAX = 1024
"""Buffers that one sendmsg takes (Linux's UIO_MAXIOV)."""
ROOM = 256 << 10
"""Bytes that are received at once, beyond the rest of a PDU."""


async def open_socket(host: str, port: int) -> socket.socket:
    """A connected socket that does not block. Raises InitiatorError."""
    failure = "there is no such host"
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as e:
        raise InitiatorError(f"cannot reach {host}: {e.strerror or failure}") from None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        try:
            code = sock.connect_ex(address)
            if code == errno.EINPROGRESS:
                await anyio.wait_writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            failure = errno.errorcode.get(code, str(code)) if code not in _WORDS else _WORDS[code]
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise InitiatorError(f"cannot connect to {host} port {port}: {failure}")


_WORDS = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.ETIMEDOUT: "no answer",
    errno.EHOSTUNREACH: "no route to it",
    errno.ENETUNREACH: "no route to it",
}


class Wire:
    """One socket. ``connection`` is None while it logs in."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.connection: Connection | None = None
        self.faults: FaultyWire | None = None
        self.queue: list[Any] = []
        """What has been taken from the connection and not been sent."""
        self.blocked = False
        """A writer waits for the socket to take more."""
        self.closed = False
        self.lingering = False
        """Logged out: only the target's close is waited for."""
        self.buffer = bytearray(0)
        self.view = memoryview(self.buffer)
        self.off = self.end = 0

    def make_room(self, max_recv: int) -> None:
        """A buffer that any PDU fits into."""
        self.buffer = bytearray(max_recv + 2048 + ROOM)
        self.view = memoryview(self.buffer)

    def make_room_again(self, max_recv: int) -> None:
        """A larger buffer, with what is in the old one."""
        kept = bytes(self.view[self.off : self.end])
        self.make_room(max_recv)
        self.off, self.end = 0, len(kept)
        self.view[: len(kept)] = kept

    def receive(self) -> int:
        """Take what is there; the number of bytes, 0 at the end. Raises BlockingIOError."""
        if self.off == self.end:
            self.off = self.end = 0
        elif len(self.buffer) - self.end < ROOM:
            size = self.end - self.off
            self.view[:size] = self.view[self.off : self.end]
            self.off, self.end = 0, size
        count = self.sock.recv_into(self.view[self.end :])
        self.end += count
        return count

    def deliver(self, now: float) -> None:
        """Hand what was received to the connection."""
        connection = self.connection
        assert connection is not None
        if self.faults is None:
            self.off = connection.process(self.buffer, self.view, self.off, self.end)
        else:
            data = self.faults.incoming(self.view[self.off : self.end], now)
            self.off = self.end
            if data:
                connection.receive_data(data)

    def collect(self, now: float) -> None:
        """Take what the connection wants sent."""
        connection = self.connection
        if connection is None:
            return
        out = connection.take()
        if self.faults is not None and out:
            data = self.faults.outgoing(b"".join(out), now)
            out = [data] if data else []
        self.queue = self.queue + out if self.queue else out

    def push(self) -> bool:
        """Send as much as the socket takes; False: not all. Raises OSError."""
        queue = self.queue
        while queue:
            try:
                sent = self.sock.sendmsg(queue if len(queue) <= IOV_MAX else queue[:IOV_MAX])
            except BlockingIOError:
                return False
            done = 0
            while done < len(queue) and sent >= len(queue[done]):
                sent -= len(queue[done])
                done += 1
            del queue[:done]
            if sent:
                queue[0] = memoryview(queue[0])[sent:]
        return True

    def end_now(self) -> None:
        """Whoever waits for the socket finds it at its end."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back."""
        if not self.closed:
            self.closed = True
            anyio.notify_closing(self.sock)
            self.sock.close()
