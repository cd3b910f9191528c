"""The iSNS client of the fabric: its connection to the server, and the ports that take notifications.

Nothing here ever ends the fabric: a server that is away, or talks nonsense, is a line in the log and another attempt.
"""

from __future__ import annotations

import ipaddress
import logging
import random
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute

from tcm_iscsi.addresses import machine_addresses
from tcm_iscsi.isns_records import portals_of, registration
from tcm_iscsi.protocol.isns_client import IsnsClient
from tcm_iscsi.protocol.isns_events import Deregistered, Event, Refused, Registered, RegistrationLost, State
from tcm_iscsi.protocol.isns_messages import Scn
from tcm_iscsi.protocol.isns_notifications import HeartbeatReceived, NotificationConnection, StateChanged
from tcm_iscsi.protocol.isns_pdu import IsnsError, Status, status_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.abc import SocketStream, TaskGroup

    from tcm_iscsi.sessions import PortalBinding

log = logging.getLogger("tcm.iscsi.isns")

CONNECT_SECONDS = 10.0
SEND_SECONDS = 10.0
TROUBLE_SECONDS = 10.0
"""Between attempts that end in an error of our own."""
LEAVE_SECONDS = 3.0
"""For how long a stop waits for the deregistration."""
LOOK_SECONDS = 30.0
"""After which an address that the machine got or lost is noticed."""
MAX_CONNECTIONS = 128
"""To the notification ports, all together; then the longest idle one is closed."""
IDLE_SECONDS = 600.0
"""For how long a connection to a notification port may say nothing."""
MESSAGE_SECONDS = 10.0
"""For how long it may leave a message unfinished."""

_HINTS = {
    Status.INVALID_REGISTRATION: "; another entity may have registered one of our targets or portals",
    Status.SOURCE_UNAUTHORIZED: "; its policy does not allow us to",
    Status.ESI_NOT_AVAILABLE: "; going on without status inquiries",
    Status.REGISTRATION_FEATURE_NOT_SUPPORTED: "; going on without portal group tags",
    Status.SCN_REGISTRATION_REJECTED: "; going on without notifications",
}


class IsnsService:
    """Keeps what the fabric serves registered at one iSNS server.

    :param bindings: the fabric's portals, asked for at each look; their ports are known by then.
    :param entity: the Network Entity's identifier.
    :param period: Registration Period in seconds to ask for.
    :param esi_interval: seconds between Entity Status Inquiries to ask for; 0: none.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        bindings: Callable[[], Sequence[PortalBinding]],
        *,
        entity: str,
        period: int,
        esi_interval: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = f"iSNS server [{host}]:{port}" if ":" in host else f"iSNS server {host}:{port}"
        self.client = IsnsClient(period=period, jitter=random.random)
        self._host, self._port = host, port
        self._bindings = bindings
        self._entity = entity
        self._esi_interval = esi_interval
        self._clock = clock
        self._wake = anyio.Event()
        self._left = anyio.Event()
        self._look_at = 0.0
        self._local = ""
        self._ports: dict[str, int] = {}
        """By address, the port that takes notifications there."""
        self._open: OrderedDict[anyio.CancelScope, None] = OrderedDict()
        """Connections to these ports, the longest idle first."""
        self._outage = False
        self._told: dict[tuple[str, int], float] = {}
        self._tasks: TaskGroup

    def changed(self) -> None:
        """Targets, portals or portal groups are not what they were: have the server told."""
        self._look_at = 0.0
        self._wake.set()

    async def leave(self) -> None:
        """Deregister; waits for it, but not for long."""
        self.client.stop(self._clock())
        self._wake.set()
        with anyio.move_on_after(LEAVE_SECONDS):
            await self._left.wait()

    async def run(self) -> None:
        """Until cancelled, or until :meth:`leave` is done."""
        try:
            async with anyio.create_task_group() as self._tasks:
                while self.client.state is not State.LEFT:
                    try:
                        await self._attempt()
                    except Exception:
                        log.exception("%s: internal error, trying again", self.server)
                        self.client.disconnected(self._clock())
                        await self._sleep(TROUBLE_SECONDS)  # it may have failed before it waited for anything
                self._tasks.cancel_scope.cancel()
        finally:
            self._left.set()

    # the connection to the server

    async def _attempt(self) -> None:
        """Wait until it is time, connect, and talk until either side ends it."""
        now = self._clock()
        await self._look(now)
        wait = self.client.retry_at - now if self.client.has_work else LOOK_SECONDS
        if wait > 0:
            await self._sleep(wait)
            return
        try:
            with anyio.fail_after(CONNECT_SECONDS):
                stream = await anyio.connect_tcp(self._host, self._port)
        except (OSError, TimeoutError) as e:
            self._troubled(f"cannot connect: {_reason(e) or f'no answer within {CONNECT_SECONDS:g} s'}")
            self.client.disconnected(self._clock())
            return
        async with stream:
            local: Any = stream.extra(SocketAttribute.local_address)  # noqa: S610 - it is no database
            self._local = _plain(local[0])
            await self._look(self._clock())
            self.client.connected(self._clock())
            try:
                async with anyio.create_task_group() as conversation:
                    conversation.start_soon(self._receive, stream)
                    await self._send(stream)
                    conversation.cancel_scope.cancel()
            finally:
                self._tell()
                if self.client.state is not State.LEFT:
                    self.client.disconnected(self._clock())

    async def _receive(self, stream: SocketStream) -> None:
        try:
            while True:
                self.client.receive_data(await stream.receive(), self._clock())
                self._wake.set()
        except anyio.EndOfStream:
            self.client.must_disconnect = "closed by the server"
        except (anyio.BrokenResourceError, OSError) as e:
            self.client.must_disconnect = _reason(e) or "connection broken"
        except IsnsError as e:
            self._troubled(f"connection dropped: {e}")
            self.client.must_disconnect = str(e)
        self._wake.set()

    async def _send(self, stream: SocketStream) -> None:
        """Sends what there is to send, and looks at timers, until the connection has to be closed."""
        client = self.client
        while True:
            now = self._clock()
            if now >= self._look_at:
                await self._look(now)
            timer = client.next_timer()
            if timer is not None and now >= timer:
                client.handle_timer(now)
                if client.must_disconnect:
                    self._troubled(client.must_disconnect)
            if self._outage and client.state is State.REGISTERED:
                log.info("%s: reached again", self.server)
                self._outage = False
            self._tell()
            data = client.data_to_send()
            if data:
                try:
                    with anyio.fail_after(SEND_SECONDS):
                        await stream.send(data)
                except (OSError, TimeoutError, anyio.BrokenResourceError) as e:
                    self._troubled(f"cannot send: {_reason(e) or 'it takes nothing'}")
                    return
            if client.must_disconnect:
                log.debug("%s: %s", self.server, client.must_disconnect)
                return
            if client.state is State.LEFT:
                return
            timer = client.next_timer()
            await self._sleep(min(self._look_at, timer if timer is not None else self._look_at) - self._clock())

    async def _sleep(self, seconds: float) -> None:
        """Until something happens, or the time is over."""
        with anyio.move_on_after(max(0.0, seconds)):
            await self._wake.wait()
        self._wake = anyio.Event()

    def _troubled(self, reason: str) -> None:
        """Said once, until the server is reached again."""
        log.log(
            logging.DEBUG if self._outage else logging.WARNING,
            "%s: %s; targets are served all the same, trying again",
            self.server,
            reason,
        )
        self._outage = True

    # what is registered

    async def _look(self, now: float) -> None:
        """Compare what the fabric serves with what the server was told."""
        self._look_at = now + LOOK_SECONDS
        portals = portals_of(self._bindings(), machine_addresses(), self._local)
        for address in dict.fromkeys(address for address, _ in portals):
            if address not in self._ports:
                self._ports[address] = await self._listen(address)
                if ipaddress.ip_address(address).is_loopback:
                    log.warning("%s: portal %s is registered, which only this machine can reach", self.server, address)
        self.client.update(registration(self._entity, portals, self._ports, self._esi_interval), now)

    def _tell(self) -> None:
        while (event := self.client.next_event()) is not None:
            self._log(event)

    def _log(self, event: Event) -> None:
        if isinstance(event, Registered):
            period = f"registration period {event.period} s" if event.period else "no registration period"
            log.info("%s: registered %d target(s) at %d portal(s), %s", self.server, event.nodes, event.portals, period)
        elif isinstance(event, Refused):
            hint = _HINTS.get(Status(event.status), "") if event.status in Status.__members__.values() else ""
            log.warning("%s: refused while %s: %s%s", self.server, event.state.value, status_text(event.status), hint)
        elif isinstance(event, RegistrationLost):
            log.warning("%s: no longer knows %s; registering again", self.server, _few(event.names))
        elif isinstance(event, Deregistered):
            log.info("%s: deregistered", self.server)
        elif isinstance(event, StateChanged):
            self._log_change(event)
        elif isinstance(event, HeartbeatReceived):
            log.debug("%s: heartbeat %d of %s", self.server, event.counter, event.address)
        else:
            log.debug("%s: asked for %s:%d", self.server, event.address, event.port)

    def _log_change(self, event: StateChanged) -> None:
        """Each target is told of the same change; it is said once."""
        key, now = (event.name, int(event.changes)), self._clock()
        again = now - self._told.get(key, -LOOK_SECONDS) < 1
        if len(self._told) > 1000:
            self._told.clear()
        self._told[key] = now
        words = {Scn.OBJECT_ADDED: "added", Scn.OBJECT_UPDATED: "updated", Scn.OBJECT_REMOVED: "removed"}
        what = ", ".join(word for bit, word in words.items() if event.changes & bit) or "changed"
        log.log(logging.DEBUG if again else logging.INFO, "%s: %s was %s", self.server, event.name, what)

    # notification ports

    async def _listen(self, address: str) -> int:
        """The port that takes notifications at an address; 0 if there can be none."""
        try:
            listener = await anyio.create_tcp_listener(local_host=address)
        except OSError as e:
            log.warning("%s: no notifications at %s: %s", self.server, address, _reason(e))
            return 0
        port: int = listener.extra(SocketAttribute.local_port)  # noqa: S610 - it is no database
        self._tasks.start_soon(self._serve, listener)
        return port

    async def _serve(self, listener: anyio.abc.Listener[SocketStream]) -> None:
        async with listener:
            while True:
                try:
                    await listener.serve(self._take)
                except (OSError, ExceptionGroup) as e:
                    # out of file descriptors, say
                    log.warning("%s: notifications: %s", self.server, e)
                    await anyio.sleep(1)

    async def _take(self, stream: SocketStream) -> None:
        """One connection to a notification port."""
        while len(self._open) >= MAX_CONNECTIONS:
            self._open.popitem(last=False)[0].cancel()
        with anyio.CancelScope() as scope:
            self._open[scope] = None
            try:
                async with stream:
                    await self._notifications(stream, scope)
            except (OSError, anyio.BrokenResourceError, anyio.EndOfStream, TimeoutError):
                pass
            except IsnsError as e:
                log.warning("%s: a connection for notifications was dropped: %s", self.server, e)
            except Exception:
                log.exception("%s: internal error, a connection for notifications was dropped", self.server)
            finally:
                self._open.pop(scope, None)

    async def _notifications(self, stream: SocketStream, scope: anyio.CancelScope) -> None:
        connection = NotificationConnection()
        while True:
            with anyio.fail_after(MESSAGE_SECONDS if connection.unfinished else IDLE_SECONDS):
                data = await stream.receive()
            answer, notifications = connection.receive_data(data)
            with suppress(KeyError):
                self._open.move_to_end(scope)
            for notification in notifications:
                self.client.notified(notification, self._clock())
            if notifications:
                self._wake.set()
            if answer:
                with anyio.fail_after(MESSAGE_SECONDS):
                    await stream.send(answer)


def _reason(error: BaseException) -> str:
    """In a few words; empty: it has none. anyio's own error wraps the one that says more."""
    cause = error.__cause__ or error
    if isinstance(cause, ExceptionGroup):
        cause = cause.exceptions[0]
    return (cause.strerror or str(cause)) if isinstance(cause, OSError) else str(cause)


def _plain(address: str) -> str:
    """Without zone, and an IPv4 address in IPv6 clothes as itself."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return str((parsed.ipv4_mapped if parsed.version == 6 else None) or parsed)


def _few(names: Sequence[str]) -> str:
    """Some of the names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
