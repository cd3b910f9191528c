"""What of an iSCSI session touches sockets and the clock (anyio): log in, receive, send, let time pass."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from tcm_iscsi.initiator.faults import Faults, FaultyWire
from tcm_iscsi.initiator.login import LoggedIn, Login
from tcm_iscsi.initiator.results import Event, LoginFailed, SessionFailed
from tcm_iscsi.initiator.session import Session
from tcm_iscsi.initiator.url import Url, parse_portal
from tcm_iscsi.initiator.wire import Wire, open_socket
from tcm_iscsi.protocol.pdu import LoginStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from tcm_iscsi.initiator.faults import Chance
    from tcm_iscsi.initiator.options import Options

FAIR_TURNS = 8
"""Batches that one connection may receive before the event loop gets its turn."""
KEPT_EVENTS = 1024
REDIRECTIONS = frozenset({LoginStatus.TARGET_MOVED_TEMPORARILY, LoginStatus.TARGET_MOVED_PERMANENTLY})


class Transport(ABC):
    """The sockets of a session and the core between them. What happens is told to :meth:`_handle`."""

    def __init__(
        self,
        group: TaskGroup,
        url: Url,
        options: Options,
        *,
        faults: Faults | None = None,
        chance: Chance | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.options = options
        self.faults = faults
        self.chance = chance
        self.clock = clock
        self.isid = options.isid or b"\x80" + os.urandom(5)
        self.core: Session
        self.wires: dict[int, Wire] = {}
        """By CID, those in full feature phase."""
        self.portals: dict[int, tuple[str, int]] = {}
        """Where each connection was made to, by CID."""
        self.on_session: Callable[[Session], None] | None = None
        """Called with every new core: the first one, and those of session recovery."""
        self.fault_counts: dict[str, int] = {}
        self._group = group
        self._wake = anyio.Event()
        self._changed: anyio.Event | None = None
        """Somebody waits for requests to be finished."""
        self._processing = False

    @abstractmethod
    def _handle(self, event: Event) -> None:
        """Something happened."""

    # login

    async def _lead(self) -> None:
        """The leading connection of a new session, wherever redirections lead."""
        portal = self.url.host, self.url.port
        for _ in range(self.options.redirects + 1):
            try:
                wire, login = await self._log_in(portal, 0)
            except LoginFailed as e:
                if e.target_address is None or e.status not in REDIRECTIONS:
                    raise
                portal = parse_portal(e.target_address)
                continue
            self.core = Session(self.options, login, now=self.clock())
            if self.on_session is not None:
                self.on_session(self.core)
            self._attach(wire, login, portal)
            return
        raise LoginFailed(f"more than {self.options.redirects} redirections")

    async def add_connection(self, portal: str | tuple[str, int] | None = None, cid: int | None = None) -> int:
        """One more connection (MC/S), by default to where the first one went; its CID. Raises InitiatorError.

        A CID that is in use reinstates that connection (RFC 7143 6.3.4).
        """
        where = parse_portal(portal) if isinstance(portal, str) else portal or self._main_portal()
        if cid is None:
            cid = next(n for n in range(65536) if n not in self.portals)
        self.portals[cid] = where
        try:
            await self._join(where, cid)
        except BaseException:
            if cid not in self.wires:
                del self.portals[cid]
            raise
        return cid

    def _main_portal(self) -> tuple[str, int]:
        return next(iter(self.portals.values()), (self.url.host, self.url.port))

    async def _join(self, portal: tuple[str, int], cid: int) -> None:
        core = self.core
        if core.ended is not None:
            raise core.ended
        lost = core.recovery.lost.get(cid)
        old = core.connections.get(cid)
        exp_stat_sn = old.statuses.expected if old is not None else lost.exp_stat_sn if lost is not None else 0
        wire, login = await self._log_in(portal, cid, core, exp_stat_sn)
        if core.ended is not None or core is not self.core:
            wire.close()
            raise SessionFailed("the session ended while a connection joined it")
        stale = self.wires.get(cid)
        self._attach(wire, login, portal)
        if stale is not None:
            stale.end_now()

    async def _log_in(
        self, portal: tuple[str, int], cid: int, core: Session | None = None, exp_stat_sn: int = 0
    ) -> tuple[Wire, LoggedIn]:
        """Connect and log in. Raises InitiatorError."""
        wire: Wire | None = None
        try:
            with anyio.fail_after(self.options.login_timeout):
                wire = Wire(await open_socket(*portal))
                wire.make_room(0)
                login = Login(
                    self.options,
                    isid=self.isid,
                    tsih=core.tsih if core is not None else 0,
                    cid=cid,
                    cmd_sn=core.cmd_sn if core is not None else None,
                    exp_stat_sn=exp_stat_sn,
                    joined=core.parameters if core is not None else None,
                    random_bytes=os.urandom,
                )
                return wire, await _exchange(wire, login)
        except BaseException as e:
            if wire is not None:
                wire.close()
            if isinstance(e, TimeoutError):
                raise LoginFailed(f"no login within {self.options.login_timeout:g} s") from None
            if isinstance(e, OSError):
                raise LoginFailed(f"the connection broke during login: {e.strerror}") from None
            raise

    def _attach(self, wire: Wire, login: LoggedIn, portal: tuple[str, int]) -> None:
        """Full feature phase."""
        parameters = login.connection_parameters
        wire.make_room(parameters.max_recv_data_segment_length)
        if self.faults is not None and self.chance is not None:
            wire.faults = FaultyWire(
                self.faults,
                self.chance,
                header_digest=parameters.header_digest,
                data_digest=parameters.data_digest,
            )
        self.core.now = self.clock()
        self.portals[login.cid] = portal
        self.wires[login.cid] = wire
        wire.connection = self.core.attach(login)
        self._group.start_soon(self._receive, wire)
        self._after()

    # moving bytes

    async def _receive(self, wire: Wire) -> None:
        """One connection, until its end."""
        connection, core = wire.connection, self.core
        assert connection is not None
        turns = 0
        reason = "the target closed the connection"
        try:
            while not connection.dead or wire.lingering:
                try:
                    count = wire.receive()
                except BlockingIOError:
                    turns = 0
                    await anyio.wait_readable(wire.sock)
                    continue
                if not count:
                    break
                now = core.now = self.clock()
                self._processing = True
                try:
                    wire.deliver(now)
                finally:
                    self._processing = False
                self._after()
                if wire.faults is not None and wire.faults.cut:
                    reason = "cut"
                    break
                turns += 1
                if turns == FAIR_TURNS:
                    turns = 0
                    await checkpoint()
        except (OSError, anyio.ClosedResourceError, anyio.BusyResourceError) as e:
            reason = f"receive: {e}"
        finally:
            core.now = self.clock()
            if core is self.core:
                core.connection_lost(connection, reason)
            self._retire(wire, connection.cid)
            self._after()

    def _retire(self, wire: Wire, cid: int) -> None:
        if wire.faults is not None:
            for name, count in wire.faults.done.items():
                self.fault_counts[name] = self.fault_counts.get(name, 0) + count
            wire.faults.done.clear()
        wire.close()
        if self.wires.get(cid) is wire:
            del self.wires[cid]

    def _flush_soon(self) -> None:
        """There is something to send: at once if nothing else is going on, else with what others are about to add."""
        if len(self.core.requests) <= 1:
            self._after()
        else:
            self._wake.set()

    async def _send_woken(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            self._after()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that changes when PDUs come."""
        while not condition():
            self._changed = self._changed or anyio.Event()
            await self._changed.wait()

    def _after(self) -> None:
        """Send what there is, and look at what happened."""
        core = self.core
        if self._changed is not None:
            self._changed.set()
            self._changed = None
        while True:
            for connection in core.take_dirty():
                wire = self.wires.get(connection.cid)
                if wire is not None and wire.connection is connection:
                    self._push(wire)
            event = core.next_event()
            if event is None:
                return
            self._handle(event)

    def _push(self, wire: Wire) -> None:
        now = self.core.now
        wire.collect(now)
        if wire.blocked:
            return
        try:
            if not wire.push():
                wire.blocked = True
                self._group.start_soon(self._write, wire)
        except OSError:
            wire.end_now()
        if wire.faults is not None and wire.faults.cut:
            wire.end_now()

    async def _write(self, wire: Wire) -> None:
        """Send the rest as the target takes it."""
        try:
            while True:
                await anyio.wait_writable(wire.sock)
                if wire.push():
                    break
        except (OSError, anyio.ClosedResourceError):
            wire.end_now()
        finally:
            wire.blocked = False

    async def _tick(self) -> None:
        """Time passes."""
        recovery = self.options.recovery
        interval = min(max(min(recovery.progress_timeout, recovery.connection_timeout) / 4, 0.01), 0.5)
        if self.faults is not None and self.faults.delay:
            interval = min(interval, self.faults.delay_seconds / 2)
        while True:
            await anyio.sleep(interval)
            core = self.core
            now = self.clock()
            core.now = now
            for wire in list(self.wires.values()):
                if wire.faults is not None and wire.faults.next_timer is not None:
                    outgoing, incoming = wire.faults.handle_timer(now)
                    if outgoing:
                        wire.queue.append(outgoing)
                        self._push(wire)
                    if incoming and wire.connection is not None:
                        wire.connection.receive_data(incoming)
                if wire.faults is not None and wire.faults.cut:
                    wire.end_now()
            core.handle_timer(now)
            self._after()


async def _exchange(wire: Wire, login: Login) -> LoggedIn:
    """Move a login's bytes until it ends. Raises LoginFailed."""
    while True:
        wire.queue += login.data_to_send()
        while not wire.push():
            await anyio.wait_writable(wire.sock)
        try:
            count = wire.receive()
        except BlockingIOError:
            await anyio.wait_readable(wire.sock)
            continue
        if not count:
            raise LoginFailed("the target closed the connection during login")
        login.receive_data(wire.view[wire.off : wire.end])
        wire.off = wire.end
        event = login.next_event()
        if isinstance(event, LoginFailed):
            raise event
        if event is not None:
            wire.off = wire.end = 0
            return event
