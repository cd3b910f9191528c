"""Sockets: accept, receive, process, timers. Only this file and ``link.py`` touch the network."""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from tcm.failure import ConfigError
from tcm.reasons import why_not_bound
from tcm_iscsi.connection import Connection
from tcm_iscsi.link import Link
from tcm_iscsi.logins import LoginQueue
from tcm_iscsi.protocol.arena import DataInArena
from tcm_iscsi.protocol.failure import ConnectionFailed, Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from tcm_iscsi.sessions import PortalBinding, Registry
    from tcm_iscsi.tls import TlsFront

log = logging.getLogger("tcm.iscsi")

RECEIVE_BUFFER = 512 << 10
ARENA = 1 << 20
TICK = 1.0
"""Seconds between looks at the timers."""
TURN = 0.005
"""Seconds that one connection may go on before the event loop gets its turn."""
ACCEPTED_AT_ONCE = 64
"""Connections taken one after another before the event loop gets its turn: those that gave way to them close then."""
SPINS = 24
"""Tries to receive before the event loop gets its turn, when no other connection is busy."""


class Server:
    """All portals and connections of the fabric.

    :param poll: seconds to keep polling a socket after the last PDU before sleeping; on a virtual machine a sleeping thread's
        wake-up costs more than a command. 0 to sleep at once.
    :param clock: monotonic seconds.
    """

    def __init__(self, registry: Registry, *, poll: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = registry
        self.poll = poll if len(os.sched_getaffinity(0)) > 1 else 0.0
        self.clock = clock
        self.buffer = bytearray(RECEIVE_BUFFER)
        self.view = memoryview(self.buffer)
        self.arena = DataInArena(ARENA)
        self.links: set[Link] = set()
        self.logins: LoginQueue[Link] = LoginQueue(
            lambda link: link.connection is not None and link.connection.login is not None
        )
        self.hot: set[Link] = set()
        self.woken: set[Link] = set()
        self.processing = False
        self.listeners: list[tuple[socket.socket, PortalBinding]] = []
        self.acceptors: TaskGroup | None = None
        """While it accepts connections."""
        self.scopes: dict[socket.socket, anyio.CancelScope] = {}
        """Of acceptors."""
        self.accepting: anyio.CancelScope | None = None
        self.left: anyio.Event | None = None
        """Set when a connection has ended, while draining."""
        self.tls: TlsFront | None = None
        """Serves the portals that want TLS."""
        self.group: TaskGroup

    def bind(self, binding: PortalBinding) -> None:
        """Listen at a portal; its real port is stored in the binding. Raises ConfigError if that cannot be."""
        address, port = binding.address, binding.port
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # [::] takes IPv4 too, unless a portal of its own does
                shared = address == "::" and not any(b.address == "0.0.0.0" and b.port == port for _, b in self.listeners)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not shared)
            sock.bind((address, port))
            sock.listen(1024)
        except (OSError, OverflowError) as e:
            sock.close()
            shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            msg = f"--portal {shown}: {why_not_bound(e)}"
            raise ConfigError(msg) from e
        binding.port = sock.getsockname()[1]
        self.listeners.append((sock, binding))

    async def run(self, started: Callable[[], None]) -> None:
        """Accept and serve until cancelled."""
        try:
            async with anyio.create_task_group() as self.group:
                self.group.start_soon(self.tick)
                started()
                with anyio.CancelScope() as self.accepting:
                    async with anyio.create_task_group() as self.acceptors:
                        for sock, binding in self.listeners:
                            self.acceptors.start_soon(self.accept, sock, binding)
                        self.acceptors.start_soon(anyio.sleep_forever)  # there may be portals later
                self.acceptors = None
                self.close_listeners()
        finally:
            self.close_listeners()

    def listen(self, binding: PortalBinding) -> None:
        """One more portal while it serves; see :meth:`bind`."""
        self.bind(binding)
        if self.acceptors is not None:
            self.acceptors.start_soon(self.accept, *self.listeners[-1])

    def unbind(self, binding: PortalBinding) -> None:
        """Nobody is accepted there any more; who is connected stays."""
        for listener in [each for each in self.listeners if each[1] is binding]:
            self.listeners.remove(listener)
            sock = listener[0]
            scope = self.scopes.pop(sock, None)
            if scope is not None:
                scope.cancel()
            anyio.notify_closing(sock)
            sock.close()

    def close_listeners(self) -> None:
        """Give the portals back; nobody accepts on them any more."""
        for sock, _ in self.listeners:
            sock.close()
        self.listeners.clear()

    async def accept(self, listener: socket.socket, binding: PortalBinding) -> None:
        """Take connections of one portal, until :meth:`unbind`."""
        with anyio.CancelScope() as scope:
            self.scopes[listener] = scope
            await self._accept(listener, binding)

    async def _accept(self, listener: socket.socket, binding: PortalBinding) -> None:
        accepted = 0
        while listener.fileno() >= 0:
            if accepted == ACCEPTED_AT_ONCE:  # a flood must keep nobody waiting
                accepted = 0
                await checkpoint()
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                accepted = 0
                with suppress(anyio.ClosedResourceError):
                    await anyio.wait_readable(listener)
                continue
            except OSError as e:
                # out of file descriptors or memory: others may leave
                log.warning("accept: %s", e.strerror)
                await anyio.sleep(0.1)
                continue
            accepted += 1
            try:
                self.welcome(sock, binding)
            except Exception as e:
                log.exception("accept: internal error, connection dropped")
                self.registry.unhandled("accept", e)
                sock.close()

    def welcome(self, sock: socket.socket, binding: PortalBinding) -> None:
        """What comes first is first in line, whatever order tasks begin in."""
        if binding.tls and self.tls is not None:
            handshake = self.tls.admit(sock)
            if handshake is not None:
                self.group.start_soon(self.tls.serve, handshake, binding)
        else:
            link = self.admit(sock, binding)
            if link is not None:
                self.group.start_soon(self.serve, link)

    async def tick(self) -> None:
        """Look at every connection's timers."""
        while True:
            await anyio.sleep(TICK)
            now = self.clock()
            for link in list(self.links):
                if link.connection is not None:
                    link.attempt(link.connection.handle_timer, now)
            self.registry.handle_timer(now)

    def admit(self, sock: socket.socket, binding: PortalBinding) -> Link | None:
        """A connection has come, for :meth:`serve`; another may have to make room. None: it is gone again."""
        link = Link(self, sock)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            local, peer = sock.getsockname(), sock.getpeername()
        except OSError as e:
            log.debug("accept: %s", e.strerror)
            sock.close()
            return None
        link.connection = Connection(
            self.registry, binding, local=local, peer=peer, arena=self.arena, wake=link.wake, now=self.clock()
        )
        self.links.add(link)
        crowded_out = self.logins.enter(link, peer[0])
        if crowded_out is not None:
            crowded_out.fail("too many connections have not logged in, and this is the oldest of its address")
        return link

    async def take(self, sock: socket.socket, binding: PortalBinding) -> None:
        """One connection that somebody else has accepted and prepared."""
        link = self.admit(sock, binding)
        if link is not None:
            await self.serve(link)

    async def serve(self, link: Link) -> None:
        """One connection, until it is closed."""
        sock, connection = link.sock, link.connection
        assert connection is not None
        try:
            try:
                await self.receive(link, connection)
            except ConnectionFailed as e:
                connection.failed(str(e), Failure.FORMAT)
                link.flush()
            except OSError as e:
                connection.failed(e.strerror or str(e))
            except Exception as e:  # noqa: BLE001  # a bug is logged
                connection.crashed(e)
            finally:
                self.processing = False
                connection.close()
                self.arena.free = 0
                self.flush_woken()
        finally:
            anyio.notify_closing(sock)
            sock.close()
            self.links.discard(link)
            self.logins.leave(link)
            self.hot.discard(link)
            if self.left is not None:
                self.left.set()

    async def receive(self, link: Link, connection: Connection) -> None:
        """Bytes in, answers out, until either side ends it."""
        sock, buf, view = link.sock, self.buffer, self.view
        recv_into, clock, poll = sock.recv_into, self.clock, self.poll
        rest = b""
        spins = 0
        now = began = clock()
        while True:
            if now - began > TURN:  # a peer that always has something to say must not keep the others waiting
                await checkpoint()
                now = began = clock()
            payload = connection.payload_room()
            try:
                if payload is not None:
                    count = sock.recvmsg_into((payload, view))[0]
                elif rest:
                    count = recv_into(view[len(rest) :])
                else:
                    count = recv_into(buf)
            except BlockingIOError:
                if not poll:
                    await anyio.wait_readable(sock)
                    began = now = clock()
                    continue
                spins += 1
                if spins < SPINS and len(self.hot) == 1 and link in self.hot:
                    continue
                spins = 0
                if clock() < link.hot_until:
                    await checkpoint()
                else:
                    self.hot.discard(link)
                    await anyio.wait_readable(sock)
                began = now = clock()
                continue
            if not count:
                return
            if connection.closing:
                await self.finish(link)
                return
            now = clock()
            connection.last_received = now
            timer = connection.timer
            if poll:
                link.hot_until = now + poll
                self.hot.add(link)
            off = 0
            self.processing = True
            if timer is not None:
                timer.begin()
            if payload is not None:
                taken = min(count, len(payload))
                connection.payload_received(taken)
                end = count - taken
            else:
                end = len(rest) + count
                if rest:
                    buf[: len(rest)] = rest
            while True:
                before = off
                off = connection.process(buf, view, off, end)
                self.processing = False
                complete = not connection.out or link.flush()
                self.arena.free = 0
                if timer is not None:
                    timer.finish(clock() - now)
                if self.woken:
                    self.flush_woken()
                if connection.closing:
                    await self.finish(link)
                    return
                if complete:
                    connection.resume()
                else:
                    rest = bytes(view[off:end])
                    while link.sent is not None and not connection.closing:
                        await link.sent.wait()
                    buf[: len(rest)] = rest
                    off, end, before = 0, len(rest), -1
                if end - off < 48 or off == before:
                    break
                self.processing = True
                if timer is not None:
                    timer.begin()
            rest = bytes(view[off:end]) if off < end else b""

    async def finish(self, link: Link) -> None:
        """Send what is queued, within reason, before the socket closes."""
        with anyio.move_on_after(2):
            while link.sent is not None:
                await link.sent.wait()
        with suppress(OSError):
            link.sock.shutdown(socket.SHUT_WR)

    def flush_woken(self) -> None:
        """Send for connections that got something while another one was being processed."""
        while self.woken:
            self.woken.pop().push()

    async def drain(self, seconds: int) -> None:
        """Stop accepting, ask every initiator to log out, wait until all have."""
        if self.accepting is not None:
            self.accepting.cancel()
        for link in list(self.links):
            if link.connection is not None:
                link.attempt(link.connection.request_logout, seconds)
                link.push()
        self.left = anyio.Event()
        while self.links:
            await self.left.wait()
            self.left = anyio.Event()

    def describe(self) -> list[Any]:
        """The connections, for people."""
        return [link.connection for link in self.links if link.connection is not None]
