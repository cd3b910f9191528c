"""One connection: login phase, then full feature phase, behind one face for the socket loop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tcm.target.latency import ExpressTimer
from tcm_iscsi.protocol.failure import ConnectionFailed, Failure
from tcm_iscsi.protocol.full_feature import FullFeaturePhase
from tcm_iscsi.protocol.login import LoginPhase
from tcm_iscsi.protocol.login_interface import LoginCompleted, LoginFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_iscsi.protocol.arena import DataInArena
    from tcm_iscsi.sessions import PortalBinding, Registry

log = logging.getLogger("tcm.iscsi")


CLOSING_SECONDS = 5.0
"""For how long a connection that is to be closed may take what is queued for it."""
COPY_LIMIT = 64 << 10
"""Bytes that are copied out of the arena rather than keep it."""


def show_address(address: tuple[Any, ...]) -> str:
    """``host:port``, IPv6 in brackets."""
    host, port = address[0].partition("%")[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Connection:
    """Bytes in, buffers out.

    :param local: the socket's own address: what discovery answers for a wildcard portal.
    :param wake: called when there is something to send that :meth:`process` did not cause.
    """

    def __init__(
        self,
        registry: Registry,
        binding: PortalBinding,
        *,
        local: tuple[Any, ...],
        peer: tuple[Any, ...],
        arena: DataInArena,
        wake: Callable[[], None],
        now: float,
    ) -> None:
        self.registry = registry
        self.binding = binding
        self.local = local
        self.peer = show_address(peer)
        self.remote = peer
        registry.counters.connections[binding.address, binding.port] += 1
        self.arena = arena
        self.wake = wake
        self.out: list[Any] = []
        self.lent: list[memoryview] = []
        """Arenas that ``out`` still points into."""
        self.now = now
        self.reason = ""
        self.policy = registry.policy(binding, local, peer)
        self.login: LoginPhase | None = LoginPhase(self.policy, deadline=now + registry.login_timeout(binding))
        self.phase: FullFeaturePhase | None = None
        self.closed = False
        self.deadline: float | None = None
        """When it is closed whatever is queued; None: it is not to be closed yet."""
        self._closing = False
        self.timer: ExpressTimer | None = None
        """Of the express lane, once there is one."""

    def __str__(self) -> str:
        if self.phase is not None:
            return f"{self.peer} {self.phase.session.identity}"
        return f"{self.peer} (login)"

    @property
    def closing(self) -> bool:
        """To be closed once everything is sent."""
        return self._closing or (self.phase is not None and self.phase.closing)

    @property
    def last_received(self) -> float:
        """When bytes last came in; on the owner's clock."""
        return self.now

    @last_received.setter
    def last_received(self, now: float) -> None:
        self.now = now
        if self.phase is not None:
            self.phase.last_received = now

    # receiving

    def process(self, buf: bytearray, view: memoryview, off: int, end: int) -> int:
        """Deal with what is in ``buf[off:end]``; see :meth:`FullFeaturePhase.process`."""
        if self.phase is not None:
            return self.phase.process(buf, view, off, end)
        login = self.login
        if login is None or off == end:
            return end
        login.receive_data(view[off:end])
        self.out.extend(login.data_to_send())
        event = login.next_event()
        if isinstance(event, LoginCompleted):
            self.logged_in(event)
            return end - len(event.trailing_data)
        if isinstance(event, LoginFailed):
            self.login_failed(event)
        return end

    def logged_in(self, event: LoginCompleted) -> None:
        """On to full feature phase."""
        session, text = self.registry.open_session(event, self.policy, self.peer)
        self.phase = phase = FullFeaturePhase(
            session,
            event.identity.cid,
            event.connection_parameters,
            stat_sn=event.stat_sn,
            arena=self.arena,
            text=text,
            wake=self.wake,
            now=self.now,
            peer=self.peer,
        )
        phase.out = self.out
        if session.port is not None:
            self.timer = ExpressTimer(session.port.nexus)
        self.login = None
        self.registry.counters.of(session.identity.target_name).accepts += 1
        log.info("%s logged in", self)

    def login_failed(self, event: LoginFailed) -> None:
        """The answer is queued; nothing follows it."""
        self._closing = True
        self.reason = event.reason
        self.registry.counters.login_refused(event, self.remote)
        log.log(
            logging.INFO if event.redirected else logging.WARNING,
            "%s: login of %s to %s %s (%s)",
            self.peer,
            event.initiator_name or "an unnamed initiator",
            event.target_name or "discovery",
            event.reason if event.redirected else f"refused: {event.reason}",
            event.status.name,
        )
        log.debug("%s: %s", self.peer, "; ".join(event.transitions))

    def payload_room(self) -> memoryview | None:
        """Where the next bytes go if a long data segment is under way."""
        phase = self.phase
        if phase is None or phase.payload is None:
            return None
        return phase.payload[phase.payload_filled :]

    def payload_received(self, count: int) -> None:
        """``count`` bytes have been put into :meth:`payload_room`."""
        if self.phase is not None:
            self.phase.payload_received(count)

    def resume(self) -> None:
        """What was queued has been sent: go on with commands that wait for room."""
        if self.phase is not None:
            self.phase.resume()

    # sending

    def sent(self, count: int) -> None:
        """The first ``count`` bytes of ``out`` are gone."""
        out = self.out
        left = sum(map(len, out)) - count
        if self.phase is not None:
            self.phase.out_size = left
        if not left:
            out.clear()
            while self.lent:
                self.arena.take_back(self.lent.pop())
            return
        done = 0
        while count >= len(out[done]):
            count -= len(out[done])
            done += 1
        del out[:done]
        if count:
            out[0] = memoryview(out[0])[count:]

    def detach(self) -> None:
        """What is still queued must outlive the next use of the arena: copy a little, keep the arena for much."""
        arena = self.arena
        memory = arena.view.obj
        out = self.out
        held = [i for i, piece in enumerate(out) if type(piece) is memoryview and piece.obj is memory]
        if sum(len(out[i]) for i in held) > COPY_LIMIT:
            self.lent.append(arena.lend())
        else:
            for i in held:
                out[i] = bytes(out[i])
        if self.phase is not None:
            self.phase.out_size = sum(map(len, out))

    def request_logout(self, seconds: int) -> None:
        """Ask the initiator to leave; one that is still logging in is sent away."""
        if self.phase is not None:
            self.phase.request_logout(seconds)
        else:
            self.failed("the target is shutting down")

    # time and end

    def handle_timer(self, now: float) -> None:
        """Login timeout, keep-alive, Data-Out that does not come, rights that were taken away. Raises ConnectionFailed."""
        if self.phase is not None:
            if self.phase.closing:
                if self.deadline is None:
                    self.deadline = now + CLOSING_SECONDS
                elif now >= self.deadline:
                    raise ConnectionFailed("the initiator does not take what is left to be sent")
                return
            port: Any = self.phase.session.port
            if port is not None and (port.nexus.lost or not port.group.enabled):
                self.phase.failure = Failure.UNMAPPED
                self.failed("the node ACL was removed" if port.nexus.lost else "the portal group was disabled")
                self.registry.counters.session_failed(self.phase.session, Failure.UNMAPPED)
                self.registry.dismiss(self.phase.session)
                return
            nopin, response = self.registry.nopin_timeouts(self.phase.session)
            self.phase.handle_timer(now, nopin, response)
            self.phase.data_out_timer.handle_timer(self.phase, now, *self.registry.data_out_timeout(self.phase.session))
        elif self.login is not None and now >= self.login.deadline:
            self.login.handle_timer(now)
            event = self.login.next_event()
            if isinstance(event, LoginFailed):
                self.login_failed(event)
            raise ConnectionFailed("login timeout")

    def failed(self, reason: str, failure: Failure | None = None) -> None:
        """The connection is to be dropped; said once in the log, with what happened just before.

        :param failure: what it counts as, unless the full feature phase knows better.
        """
        if self.phase is not None and self.phase.failure is None:
            self.phase.failure = failure
        if not self.reason:
            self.reason = reason
            log.warning("%s: connection dropped: %s", self, reason)
            if self.phase is not None and self.phase.history:
                log.info("%s: before that: %s", self, "; ".join(self.phase.history))
        self._closing = True

    def crashed(self, error: Exception) -> None:
        """The same, because of a bug: a traceback, and whoever wants to hear of it does."""
        if not self.reason:
            log.error("%s: internal error, connection dropped", self, exc_info=error)
            self.registry.unhandled(str(self), error)
        self.failed(f"internal error: {error!r}")

    def close(self) -> None:
        """The socket is gone."""
        if self.closed:
            return
        self.closed = self._closing = True
        phase = self.phase
        if phase is not None:
            session = phase.session
            usual = (
                "logged out"
                if phase.logout is not None
                else "ended by the target"
                if phase.closed
                else "closed by the initiator"
            )
            if not self.reason:  # otherwise it has been said
                log.info("%s: %s", self, usual)
            phase.close()
            self.registry.connection_closed(session, phase)
        self.login = None
        self.out.clear()
