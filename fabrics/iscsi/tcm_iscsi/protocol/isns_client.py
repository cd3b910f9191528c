"""An iSNS client that keeps a registration at one server, without a socket (RFC 4171 clauses 5.6.5, 6.2.6, 6.3.4).

What the server holds is compared with what it should hold, and the difference is sent, one request at a time: so a change of
one target disturbs nobody who uses another, and it makes no difference why the two differ.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcm_iscsi.protocol import isns_messages as messages
from tcm_iscsi.protocol.isns_attributes import Attribute, Tag
from tcm_iscsi.protocol.isns_events import Deregistered, Event, Refused, Registered, RegistrationLost, State
from tcm_iscsi.protocol.isns_messages import Node, Portal, PortalKey, Registration, Response, Scn
from tcm_iscsi.protocol.isns_notifications import Notification, StateChanged, handle
from tcm_iscsi.protocol.isns_pdu import NO_FLAGS, RESPONSE, Flag, Function, IsnsError, Message, MessageReader, Status, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ANSWER_SECONDS = 10.0
"""For how long an answer is waited for."""
SHORTEST_RETRY = 1.0
LONGEST_RETRY = 60.0
"""Seconds between two attempts to connect, or to register what was refused; they double from the one to the other."""
SHORTEST_REFRESH = 1.0
"""Seconds between two looks at what the server holds, whoever asks for them."""
MESSAGE_GOAL = 8000
"""Bytes of a request and its answer: the RFC allows megabytes, open-isns drops connections for more than 8 KiB."""
ENTITY_ROOM, PORTAL_ROOM, NODE_ROOM, GROUP_ROOM = 1024, 112, 96, 96
"""Bytes that an entity, a portal, a node and a group take, at most and besides names."""
SUBSCRIPTION = Scn.INITIATOR_AND_SELF_ONLY | Scn.OBJECT_REMOVED | Scn.OBJECT_ADDED | Scn.OBJECT_UPDATED


@dataclass(frozen=True, slots=True)
class _Request:
    transaction_id: int
    function: Function
    state: State
    deadline: float
    registration: Registration | None = None
    """What a DevAttrReg registers."""
    names: tuple[str, ...] = ()
    """Nodes that the request is about."""
    portals: tuple[PortalKey, ...] = ()
    """Portals that the request is about."""


class IsnsClient:
    """Bytes in, bytes and events out; time is an argument in seconds of any clock that only goes forward.

    :param period: Registration Period to ask for, in seconds.
    :param jitter: a number from 0 to 1 at each call, so that not all clients of a server that was away come back together.
    """

    def __init__(self, *, period: int, jitter: Callable[[], float]) -> None:
        self.period = period
        self.state = State.DOWN
        self.retry_at = 0.0
        """When to connect, while there is no connection."""
        self.must_disconnect = ""
        """Why the connection has to be closed; empty: it has not."""
        self.history: deque[str] = deque(maxlen=32)
        """The last states."""
        self._jitter = jitter
        self._wanted: Registration | None = None
        self._entity = ""
        """The entity that the server may hold."""
        self._nodes: dict[str, Node] = {}
        self._portals: dict[PortalKey, Portal] = {}
        """What the server has acknowledged."""
        self._doubtful_nodes: dict[str, None] = {}
        self._doubtful_portals: dict[PortalKey, None] = {}
        """Keys of what was sent and not withdrawn: what the server may hold, acknowledged or not."""
        self._subscribed: set[str] = set()
        self._unverified: deque[str] = deque()
        self._absent: list[str] = []
        self._replace = True
        """The next registration takes the place of what an earlier process may have left behind."""
        self._esi = self._groups = True
        """The server takes them."""
        self._settled = False
        """REGISTERED has been told."""
        self._stopping = False
        self._reconnects = False
        """One more connection may be tried to deregister."""
        self._request: _Request | None = None
        self._transaction_id = 0
        self._reader = MessageReader()
        self._out = bytearray()
        self._events: deque[Event] = deque()
        self._retry = 0.0
        self._refresh_at = 0.0
        self._verified_at = 0.0

    # what the owner does

    def update(self, wanted: Registration | None, now: float) -> None:
        """What is to be registered from now on; None: nothing. The entity identifier stays the same for good."""
        if wanted != self._wanted and self.state is State.REFUSED:
            self._retry = 0.0  # what was refused may be right now
        self._wanted = wanted
        self._advance(now)

    def stop(self, now: float) -> None:
        """Deregister, if there is something to deregister; the state is LEFT then. At most one more connection is tried."""
        self._stopping = True
        self._reconnects = self.state is not State.DOWN
        if self.state is State.DOWN:
            self.retry_at = now
            if not self._doubtful_nodes:
                self._enter(State.LEFT)
        self._advance(now)

    def connected(self, now: float) -> None:
        """There is a connection. What was registered over an earlier one is verified first."""
        self._reader = MessageReader()
        self._out.clear()
        self._request = None
        self.must_disconnect = ""
        self._unverified = deque(self._nodes)
        self._enter(State.REGISTERED)
        self._advance(now)

    def disconnected(self, now: float) -> None:
        """The connection is gone, or could not be had; try again at :attr:`retry_at`."""
        self._request = None
        self._out.clear()
        if self.state is State.LEFT:
            return
        if self._stopping:
            # the one that broke may have been dead for long without anybody noticing
            self._enter(State.DOWN if self._reconnects and self._doubtful_nodes else State.LEFT)
            self._reconnects = False
            self.retry_at = now
            return
        self._enter(State.DOWN)
        self.retry_at = now + self._next_retry()

    def receive_data(self, data: bytes, now: float) -> None:
        """Bytes of the server. Raises :class:`IsnsError` if the connection has to be closed."""
        self._reader.receive_data(data)
        for message in self._reader.messages():
            if message.is_response:
                self._response(message, now)
                continue
            answer, notifications = handle(message)
            if answer is not None:
                self._out += encode(answer)
            for notification in notifications:
                self.notified(notification, now)
        self._advance(now)

    def notified(self, notification: Notification, now: float) -> None:
        """Something that the server said of itself, over this connection or another one."""
        self._events.append(notification)
        if (
            isinstance(notification, StateChanged)
            and notification.changes & Scn.OBJECT_REMOVED
            and self._wanted is not None
            and any(node.name == notification.name for node in self._wanted.nodes)
        ):
            # somebody has removed one of our targets, or says so: look, but not more often than that
            self._refresh_at = min(self._refresh_at, max(now, self._verified_at + SHORTEST_REFRESH))

    def handle_timer(self, now: float) -> None:
        """To be called at :meth:`next_timer`."""
        request = self._request
        if request is not None:
            if now >= request.deadline:
                self.must_disconnect = f"no answer within {ANSWER_SECONDS:g} s while {request.state.value}"
            return
        if self.state is State.REGISTERED and now >= self._refresh_at:
            self._unverified = deque(self._nodes)
            self._verified_at = now
            if not self._nodes:
                self._refresh_at = now + self.refresh_interval
        if self.state is State.REFUSED and now >= self.retry_at:
            self._enter(State.REGISTERED)
        self._advance(now)

    def next_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called; None: not before something else happens."""
        if self._request is not None:
            return self._request.deadline
        return {State.REGISTERED: self._refresh_at, State.REFUSED: self.retry_at}.get(self.state)

    def data_to_send(self) -> bytes:
        """Takes what is to be sent."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def next_event(self) -> Event | None:
        """Takes the oldest event."""
        return self._events.popleft() if self._events else None

    @property
    def has_work(self) -> bool:
        """There is something to register or to withdraw, for which a connection is needed."""
        return bool(self._doubtful_nodes) or (self._wanted is not None and bool(self._wanted.nodes))

    @property
    def refresh_interval(self) -> float:
        """Seconds between two messages: three within a registration period (clause 6.2.6)."""
        return max(SHORTEST_REFRESH, self.period / 3)

    # one request after the other

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self.history.append(f"{self.state.name} -> {state.name}")
            self.state = state

    def _next_retry(self) -> float:
        self._retry = min(max(SHORTEST_RETRY, self._retry * 2), LONGEST_RETRY)
        return self._retry * (0.5 + self._jitter() / 2)

    def _advance(self, now: float) -> None:
        """The next request, if there is one to make."""
        if self._request is not None or self.state in (State.DOWN, State.LEFT):
            return
        if self._stopping:
            if not self._leave(now):
                self._enter(State.LEFT)
            return
        if self.state is State.REFUSED and self._retry:
            return
        if any(step(now) for step in (self._verify, self._register, self._withdraw, self._subscribe)):
            return
        self._enter(State.REGISTERED)
        self._retry = 0.0
        if not self._settled:
            self._settled = True
            if self._nodes:
                self._events.append(Registered(len(self._nodes), len(self._portals), self.period))
            self._verified_at = now
            self._refresh_at = now + self.refresh_interval
        elif self._refresh_at <= now:
            self._refresh_at = now + self.refresh_interval

    def _send(
        self,
        now: float,
        state: State,
        function: Function,
        payload: bytes,
        flags: Flag = NO_FLAGS,
        *,
        registration: Registration | None = None,
        names: tuple[str, ...] = (),
        portals: tuple[PortalKey, ...] = (),
    ) -> bool:
        self._transaction_id = number = self._transaction_id % 0xFFFF + 1
        self._out += encode(Message(function, number, payload, flags | Flag.CLIENT))
        self._request = _Request(number, function, state, now + ANSWER_SECONDS, registration, names, portals)
        self._enter(state)
        return True

    def _source(self) -> str:
        """A node of the entity: one that stays, if there is one."""
        wanted = [node.name for node in self._wanted.nodes] if self._wanted is not None else []
        return next((name for name in wanted if name in self._nodes), None) or next(iter(self._nodes), None) or wanted[0]

    def _leave(self, now: float) -> bool:
        if not self._doubtful_nodes:
            return False
        identifier = Attribute(Tag.ENTITY_IDENTIFIER, self._entity)
        source = next(iter(self._nodes), None) or next(iter(self._doubtful_nodes))
        return self._send(now, State.LEAVING, Function.DEV_DEREG, messages.deregister(source, [identifier]))

    def _verify(self, now: float) -> bool:
        """Asks for a target's own attributes, which also refreshes the registration (clause 6.2.6).

        Each target asks for itself: it sees itself, in whatever discovery domains it is.
        """
        while self._unverified:
            name = self._unverified.popleft()
            if name in self._nodes:
                key = [Attribute(Tag.ISCSI_NAME, name)]
                wanted = (Tag.ISCSI_NAME, Tag.PORTAL_IP_ADDRESS, Tag.PORTAL_PORT)
                payload = messages.query(name, key, wanted)
                return self._send(now, State.VERIFYING, Function.DEV_ATTR_QRY, payload, names=(name,))
        if self._absent:
            if not self._nodes:
                self._portals.clear()  # the server has forgotten all
            self._events.append(RegistrationLost(tuple(self._absent)))
            self._absent.clear()
            self._settled = False
        return False

    def _register(self, now: float) -> bool:
        """As much of what is missing as fits in a message."""
        wanted = self._wanted
        if wanted is None or not wanted.nodes:
            return False
        missing = [portal for portal in map(self._capable, wanted.portals) if self._portals.get(portal.key) != portal]
        room = MESSAGE_GOAL - ENTITY_ROOM
        portals = missing[: room // PORTAL_ROOM]
        room -= PORTAL_ROOM * len(portals)
        nodes = self._missing_nodes(wanted, room) if len(portals) == len(missing) else []
        if not portals and not nodes:
            return False
        if not nodes and not self._nodes:
            # an entity is made with a portal or a node, and the source has to be a node of it (clauses 5.6.1, 5.6.5.1)
            nodes = [replace(wanted.nodes[0], groups=())]
        self._entity = wanted.entity_identifier
        source = self._source()
        self._doubtful_nodes.update(dict.fromkeys(node.name for node in nodes))
        self._doubtful_portals.update(dict.fromkeys(portal.key for portal in portals))
        self._settled = False
        registration = Registration(wanted.entity_identifier, tuple(portals), tuple(nodes))
        payload = messages.register(source, registration, self.period)
        flags = Flag.REPLACE if self._replace else NO_FLAGS
        return self._send(now, State.REGISTERING, Function.DEV_ATTR_REG, payload, flags, registration=registration)

    def _missing_nodes(self, wanted: Registration, room: int) -> list[Node]:
        """Those that are not registered as wanted, with the groups that are not; no more than fit in ``room`` bytes."""
        found: list[Node] = []
        for node in wanted.nodes:
            held = self._nodes.get(node.name)
            known = set(held.groups) if held is not None else set()
            groups = [group for group in node.groups if group not in known] if self._groups else []
            if held is not None and held.alias == node.alias and not groups:
                continue
            size = len(node.name.encode())
            room -= 2 * size + 2 * len(node.alias.encode()) + NODE_ROOM
            fit = room // (size + GROUP_ROOM)  # the answer repeats the name for each group
            if fit < bool(groups) and found:
                break
            found.append(replace(node, groups=tuple(groups[: max(fit, 1)])))
            room -= len(found[-1].groups) * (size + GROUP_ROOM)
        return found

    def _capable(self, portal: Portal) -> Portal:
        return portal if self._esi else replace(portal, esi_interval=0, esi_port=0)

    def _withdraw(self, now: float) -> bool:
        """What the server may hold and should not."""
        wanted = self._wanted
        if wanted is None or not wanted.nodes:
            return self._leave(now)
        wanted_names, wanted_keys = {node.name for node in wanted.nodes}, {portal.key for portal in wanted.portals}
        gone_keys = [key for key in self._doubtful_portals if key not in wanted_keys][: MESSAGE_GOAL // 2 // PORTAL_ROOM]
        gone_names = [name for name in self._doubtful_nodes if name not in wanted_names][: MESSAGE_GOAL // 2 // 240]
        objects = [attribute for key in gone_keys for attribute in messages.portal_key(key)]
        objects += [Attribute(Tag.ISCSI_NAME, name) for name in gone_names]
        if not objects:
            return False
        self._settled = False
        payload = messages.deregister(self._source(), objects)
        return self._send(
            now, State.WITHDRAWING, Function.DEV_DEREG, payload, names=tuple(gone_names), portals=tuple(gone_keys)
        )

    def _subscribe(self, now: float) -> bool:
        """Every target by itself: one node a message (clause 5.6.5.5)."""
        if not any(portal.scn_port for portal in self._portals.values()):
            return False
        for name in self._nodes:
            if name not in self._subscribed:
                payload = messages.subscribe(name, SUBSCRIPTION)
                return self._send(now, State.SUBSCRIBING, Function.SCN_REG, payload, names=(name,))
        return False

    # answers

    def _response(self, message: Message, now: float) -> None:
        request = self._request
        if request is None or message.transaction_id != request.transaction_id:
            return  # came too late
        if message.function != request.function | RESPONSE:
            raise IsnsError(f"function {message.function:04x}h answers function {request.function:04x}h")
        response = messages.parse_response(message.payload)
        self._request = None
        _ANSWERS[request.state](self, request, response, now)

    def _verified(self, request: _Request, response: Response, _now: float) -> None:
        (name,) = request.names
        held = self._nodes[name]
        found = messages.objects(response.operating)
        portals = {(each.get(Tag.PORTAL_IP_ADDRESS), each.get(Tag.PORTAL_PORT)) for each in found}
        missing = [key for key, tag in held.groups if tag is not None and key not in portals]
        if any(each.get(Tag.ISCSI_NAME) == name for each in found) and not missing:
            return
        del self._nodes[name]
        self._subscribed.discard(name)
        self._absent.append(name)
        self._forget_portals(missing)

    def _was_registered(self, request: _Request, response: Response, now: float) -> None:
        registration = request.registration
        assert registration is not None
        if response.status == Status.ESI_NOT_AVAILABLE and self._esi:
            self._esi = False
            self._events.append(Refused(request.state, response.status))
            return
        if response.status == Status.REGISTRATION_FEATURE_NOT_SUPPORTED and self._groups:
            self._groups = False
            self._events.append(Refused(request.state, response.status))
            return
        if response.status:
            self._refused(request, response, now)
            return
        self._replace = False
        period = response.first(Tag.REGISTRATION_PERIOD)
        if isinstance(period, int) and period:
            self.period = period
        for portal in registration.portals:
            self._portals[portal.key] = portal
        for node in registration.nodes:
            before = self._nodes.get(node.name)
            said = dict(before.groups) if before is not None else {}
            said.update(node.groups)
            self._nodes[node.name] = replace(node, groups=tuple(said.items()))

    def _was_withdrawn(self, request: _Request, response: Response, now: float) -> None:
        if response.status:
            self._refused(request, response, now)
            return
        for name in request.names:
            self._doubtful_nodes.pop(name, None)
            self._nodes.pop(name, None)
            self._subscribed.discard(name)
        for key in request.portals:
            self._doubtful_portals.pop(key, None)
        self._forget_portals(request.portals)

    def _was_subscribed(self, request: _Request, response: Response, _now: float) -> None:
        # without notifications the registration is as good; the next look at it finds what they would have said
        self._subscribed.update(request.names)
        if response.status:
            self._events.append(Refused(request.state, response.status))

    def _has_left(self, request: _Request, response: Response, now: float) -> None:
        if response.status and not self._stopping:
            self._refused(request, response, now)
            return
        self._events.append(Refused(request.state, response.status) if response.status else Deregistered())
        self._forget()
        if self._stopping:
            self._enter(State.LEFT)

    def _refused(self, request: _Request, response: Response, now: float) -> None:
        """The server may hold something else than we think: all is said again, after a while."""
        self._events.append(Refused(request.state, response.status))
        self._nodes.clear()
        self._portals.clear()
        self._subscribed.clear()
        self._unverified.clear()
        self._settled = False
        self._enter(State.REFUSED)
        self.retry_at = now + self._next_retry()

    def _forget_portals(self, keys: Sequence[PortalKey]) -> None:
        """And their groups: a portal that comes back has none of them."""
        for key in keys:
            self._portals.pop(key, None)
        for name, node in self._nodes.items():
            self._nodes[name] = replace(node, groups=tuple(group for group in node.groups if group[0] not in keys))

    def _forget(self) -> None:
        for held in (self._nodes, self._portals, self._doubtful_nodes, self._doubtful_portals):
            held.clear()
        self._subscribed.clear()
        self._unverified.clear()


_ANSWERS: dict[State, Callable[[IsnsClient, _Request, Response, float], None]] = {
    State.VERIFYING: IsnsClient._verified,
    State.REGISTERING: IsnsClient._was_registered,
    State.WITHDRAWING: IsnsClient._was_withdrawn,
    State.SUBSCRIBING: IsnsClient._was_subscribed,
    State.LEAVING: IsnsClient._has_left,
}
