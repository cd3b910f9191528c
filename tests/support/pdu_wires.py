"""Targets for the PDU-level tests, and the way to them: the real target without sockets, or anything that listens on TCP."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
from support.scsi import make_lu
from tcm_iscsi.attributes import AclAttributes, TpgAttributes, TpgParameters
from tcm_iscsi.connection import Connection
from tcm_iscsi.protocol.arena import DataInArena
from tcm_iscsi.protocol.failure import ConnectionFailed
from tcm_iscsi.sessions import PortalBinding, Registry

from tcm.target.device import TargetDevice

NAME = "iqn.2003-01.org.linux-iscsi.test:{}"


class Wire(Protocol):
    """One transport connection, the initiator's end."""

    async def send(self, data: bytes) -> None:
        """All of it; whatever becomes of it."""

    async def receive(self, seconds: float) -> bytes | None:
        """Some bytes; empty once the target has closed, ``None`` if nothing came in that many seconds."""

    async def close(self) -> None:
        """Cut it."""


class Target(Protocol):
    """A device under test.

    Its portals: 0 is portal group 1 of both targets, 1 is portal group 2 of the first one.
    """

    names: tuple[str, str]
    """The iSCSI names of two targets."""
    patience: float
    """Seconds to wait for what must come."""
    silence: float
    """Seconds without a byte after which nothing more is expected."""

    async def connect(self, portal: int = 0) -> Wire: ...

    async def elapse(self, seconds: float) -> None:
        """Let time pass."""


# TCP


@dataclass
class TcpWire:
    sock: socket.socket
    closed: bool = False

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self.sock)
            except (BrokenPipeError, ConnectionResetError):
                return

    async def receive(self, seconds: float) -> bytes | None:
        with anyio.move_on_after(seconds):
            while True:
                try:
                    return self.sock.recv(1 << 18)
                except BlockingIOError:
                    await anyio.wait_readable(self.sock)
                except ConnectionResetError:
                    return b""
        return None

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            anyio.notify_closing(self.sock)
            self.sock.close()


@dataclass
class TcpTarget:
    """Whatever listens at ``ports`` of this host."""

    ports: tuple[int, ...]
    names: tuple[str, str]
    patience: float = 30.0
    silence: float = 0.4
    wires: list[TcpWire] = field(default_factory=list)

    async def connect(self, portal: int = 0) -> Wire:
        sock = socket.create_connection(("127.0.0.1", self.ports[portal]), self.patience)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = TcpWire(sock)
        self.wires.append(wire)
        return wire

    async def elapse(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def aclose(self) -> None:
        for wire in self.wires:
            await wire.close()


# without sockets


class SansIoWire:
    """A :class:`Connection` of the target, driven as ``tcm_iscsi.server`` drives it."""

    def __init__(self, target: SansIoTarget, portal: int) -> None:
        self.target = target
        self.inbox = bytearray()
        self.ended = False
        self.arrived = anyio.Event()
        self.rest = b""
        self.connection = Connection(
            target.registry,
            target.registry.bindings[portal],
            local=("192.0.2.1", 3260 + portal),
            peer=("192.0.2.9", 40000 + len(target.wires)),
            arena=target.arena,
            wake=self.wake,
            now=target.now,
        )

    # the target's end

    def wake(self) -> None:
        if self.target.processing:
            self.target.woken.append(self)
        else:
            self.push()

    def push(self) -> None:
        self.collect()
        if self.connection.closing:
            self.target.group.start_soon(self.end)
        else:
            self.guarded(self.connection.resume)
            self.collect()

    def collect(self) -> None:
        """What it has to send is sent."""
        pieces = [bytes(piece) for piece in self.connection.out]
        size = sum(map(len, pieces))
        if size:
            self.inbox += b"".join(pieces)
            self.connection.sent(size)
            self.arrived.set()
            self.arrived = anyio.Event()

    async def end(self) -> None:
        """It closes the socket."""
        self.collect()
        self.connection.close()
        self.ended = True
        self.arrived.set()
        self.target.after()

    def guarded(self, call: Any, *args: Any) -> Any:
        """Run target code that may drop the connection."""
        try:
            return call(*args)
        except ConnectionFailed as e:
            self.connection.failed(str(e))
            return None

    def feed(self, data: bytes) -> None:
        connection, target = self.connection, self.target
        payload = connection.payload_room()
        if payload is not None:
            taken = min(len(payload), len(data))
            payload[:taken] = data[:taken]
            connection.payload_received(taken)
            data = data[taken:]
        buf = bytearray(self.rest + data)
        off, before = 0, -1
        while off != before and not connection.closing:
            before = off
            target.processing = True
            result = self.guarded(connection.process, buf, memoryview(buf), off, len(buf))
            target.processing = False
            off = before if result is None else result
            self.collect()
            target.after()
            if not connection.closing:
                self.guarded(connection.resume)
                self.collect()
        self.rest = bytes(buf[off:])

    # the initiator's end

    async def send(self, data: bytes) -> None:
        if self.ended:
            return
        self.connection.last_received = self.target.now
        piece = self.target.piece or len(data)
        for at in range(0, len(data), piece):
            self.feed(data[at : at + piece])
            if self.connection.closing:
                await self.end()
                break
        await anyio.lowlevel.checkpoint()

    async def receive(self, seconds: float) -> bytes | None:
        if not self.inbox and not self.ended:
            with anyio.move_on_after(seconds):
                await self.arrived.wait()
        if self.inbox:
            found, self.inbox = bytes(self.inbox), bytearray()
            return found
        return b"" if self.ended else None

    async def close(self) -> None:
        if not self.ended:
            await self.end()


class SansIoTarget:
    """The real registry, connections and core; two targets with a 2 MiB ramdisk each. Time passes when a test says so."""

    names = (NAME.format("t1"), NAME.format("t2"))
    patience = 2.0
    silence = 0.02

    def __init__(self, registry: Registry, group: Any, piece: int) -> None:
        self.registry = registry
        self.piece = piece
        self.group = group
        self.arena = DataInArena(1 << 20)
        self.now = 1000.0
        self.processing = False
        self.woken: list[SansIoWire] = []
        self.wires: list[SansIoWire] = []

    async def connect(self, portal: int = 0) -> Wire:
        wire = SansIoWire(self, portal)
        self.wires.append(wire)
        return wire

    def after(self) -> None:
        """What one connection has caused on others."""
        self.arena.free = 0
        while self.woken:
            self.woken.pop().push()

    async def elapse(self, seconds: float) -> None:
        """Second by second, as the server's timer."""
        while seconds > 0:
            step = min(seconds, 1.0)
            seconds -= step
            self.now += step
            for wire in self.wires:
                if not wire.ended:
                    wire.guarded(wire.connection.handle_timer, self.now)
                    wire.collect()
                    if wire.connection.closing:
                        await wire.end()
            self.registry.handle_timer(self.now)
            self.after()
            await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        for wire in self.wires:
            await wire.close()


ATTRIBUTES = TpgAttributes(
    authentication=False,
    generate_node_acls=True,
    cache_dynamic_acls=True,
    demo_mode_write_protect=False,
    default_cmdsn_depth=16,
    default_erl=2,
)
PARAMETERS = TpgParameters(
    ErrorRecoveryLevel=2,
    MaxConnections=4,
    MaxRecvDataSegmentLength=65536,
    DefaultTime2Wait=0,
)
"""The initiator decides."""


@asynccontextmanager
async def sans_io_target(piece: int = 0) -> AsyncIterator[SansIoTarget]:
    """``piece``: so many bytes at a time reach the target, instead of all that were sent at once."""
    async with make_lu(name="one") as one, make_lu(name="two", serial="2" * 8) as two, anyio.create_task_group() as tasks:
        devices = [TargetDevice(name, "iscsi") for name in SansIoTarget.names]
        bindings = [PortalBinding("192.0.2.1", 3260), PortalBinding("192.0.2.1", 3261)]
        for device, tag, unit in ((devices[0], 1, one), (devices[0], 2, one), (devices[1], 1, two)):
            group = device.add_portal_group(tag)
            group.enabled = True
            group.attributes = ATTRIBUTES
            group.parameters = PARAMETERS
            group.access = type(group.access)(generate_node_acls=True, demo_mode_write_protect=False)
            group.add_lun(0, unit)
            bindings[tag - 1].groups.append(group)
        registry = Registry(devices)
        registry.bindings = bindings
        target = SansIoTarget(registry, tasks, piece)
        try:
            yield target
        finally:
            await target.aclose()
            tasks.cancel_scope.cancel()


__all__ = ["AclAttributes", "SansIoTarget", "Target", "TcpTarget", "Wire", "sans_io_target"]
