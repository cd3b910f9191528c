"""Transmission: what one connection has to send, and the socket that takes it."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from tcm_iscsi.protocol.failure import ConnectionFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_iscsi.connection import Connection
    from tcm_iscsi.server import Server

IOV_MAX = 1024
"""Buffers that one sendmsg takes (Linux's UIO_MAXIOV)."""


class Link:
    """A connection's socket, and what waits to be sent on it."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.connection: Connection | None = None
        self.hot_until = 0.0
        self.sent: anyio.Event | None = None
        """Set when the writer task has sent everything; ``None`` while there is no writer task."""

    def wake(self) -> None:
        """There is something to send, from outside of ``process`` of this connection."""
        if self.server.processing:
            self.server.woken.add(self)
        else:
            self.push()

    def attempt(self, function: Callable[..., None], *args: object) -> None:
        """Do something for this connection, called by whoever serves the others too: what it raises ends this one only."""
        try:
            function(*args)
        except ConnectionFailed as e:
            self.fail(str(e))
        except Exception as e:  # noqa: BLE001  # a bug is logged
            self.crash(e)

    def push(self) -> None:
        """Send from outside of the receiver; then end the connection if that is what it waits for, or go on."""
        self.attempt(self._push)

    def _push(self) -> None:
        if not self.flush() or self.connection is None:
            return
        if self.connection.closing:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        else:
            self.connection.resume()

    def flush(self) -> bool:
        """Send what the socket takes now; True if that was everything. Starts a writer task for the rest."""
        connection = self.connection
        if connection is None:
            return True
        if self.sent is not None:
            connection.detach()
            return False
        out = connection.out
        while out:
            try:
                sent = self.sock.sendmsg(out if len(out) <= IOV_MAX else out[:IOV_MAX])
            except BlockingIOError:
                connection.detach()
                self.sent = anyio.Event()
                self.server.group.start_soon(self.write)
                return False
            except OSError as e:
                self.fail(f"send: {e.strerror}")
                return True
            connection.sent(sent)
        return True

    async def write(self) -> None:
        """Send the rest as the peer takes it."""
        connection, event = self.connection, self.sent
        assert connection is not None and event is not None  # noqa: PT018  (flush made them)
        try:
            while connection.out:
                await anyio.wait_writable(self.sock)
                connection.sent(self.sock.sendmsg(connection.out[:IOV_MAX]))
                connection.last_received = self.server.clock()  # who takes what we send is alive
        except BlockingIOError:
            pass
        except (OSError, anyio.ClosedResourceError) as e:
            self.fail(f"send: {e}")
        except Exception as e:  # noqa: BLE001  # a bug is logged
            self.crash(e)
        finally:
            self.sent = None
            event.set()
        self.push()

    def fail(self, reason: str) -> None:
        """End the connection from outside its receiver."""
        if self.connection is not None:
            self.connection.failed(reason)
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def crash(self, error: Exception) -> None:
        """The same, because of a bug."""
        if self.connection is not None:
            self.connection.crashed(error)
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
