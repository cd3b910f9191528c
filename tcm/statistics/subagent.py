"""The sub-agent's end of an AgentX connection (RFC 2741 clause 7), sans-IO: bytes in, bytes out, the time as an argument."""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

from tcm.statistics import agentx
from tcm.statistics.agentx import UNANSWERED, AgentXError, CloseReason, Error, ParseError, Pdu, PduType, VarBind
from tcm.statistics.mib import Oid, Pieces, Syntax, finish

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.statistics.mib import Notification, Value, View

DESCRIPTION = "tcm SCSI target"
ANSWER_SECONDS = 5
"""How long the master may wait for an answer of ours, and we for one of its."""
PING_SECONDS = 15.0
"""Between two questions whether the master is still there."""
MAXIMUM_BINDS = 200
"""Of one answer to GetBulk; a master asks for the rest. Initiators wait while they are looked for."""
MAXIMUM_SETS = 64
"""Steps of SETs that wait; a master sends the next one when it has heard of the last."""
SNMP_TRAP_OID: Oid = (1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0)


_ELSEWHERE: dict[int, int] = {
    PduType.GET: agentx.NO_SUCH_OBJECT,
    PduType.GET_NEXT: agentx.END_OF_MIB_VIEW,
    PduType.GET_BULK: agentx.END_OF_MIB_VIEW,
    PduType.TEST_SET: agentx.NULL,
}
"""What there is in other contexts than the default one."""


class State(enum.Enum):
    """Where a connection is."""

    OPENING = "opening"
    REGISTERING = "registering"
    RUNNING = "running"
    CLOSED = "closed"


class SubAgent:
    """One connection to a master agent.

    :param view: what it answers from; each module is registered as a whole.
    :param now: seconds, on the clock that :attr:`~tcm.statistics.mib.Syntax.TIME_TICKS` columns use.
    """

    def __init__(self, view: View, now: float) -> None:
        self.view = view
        self.state = State.OPENING
        self.session = 0
        self.origin = now
        """When the master's sysUpTime was zero."""
        self.sets: deque[Pdu] = deque()
        """TestSet, CommitSet, UndoSet and CleanupSet that have arrived, for :meth:`answer_set`."""
        self._received = bytearray()
        self._out: list[bytes] = []
        self._packet = 0
        self._awaited: dict[int, str] = {}
        """Packet to what it asked for; the answer is on its way."""
        self._asked = now
        """When the last of them was sent."""
        self._heard = now
        self._send(PduType.OPEN, agentx.open_payload((), DESCRIPTION, ANSWER_SECONDS), "open")

    # both ways

    def data_to_send(self) -> list[bytes]:
        """What there is to send, once."""
        out, self._out = self._out, []
        return out

    def receive_data(self, data: bytes, now: float) -> None:
        """Bytes from the master. Raises :class:`AgentXError`: drop the connection, after sending what there is."""
        finish(self.receive_in_pieces(data, now))

    def receive_in_pieces(self, data: bytes, now: float) -> Pieces[None]:
        """The same: to look for what is asked for may take a while, in which initiators want to be served."""
        self._received += data
        try:
            while len(self._received) >= agentx.HEADER_LENGTH:
                length = agentx.length_of(bytes(self._received[: agentx.HEADER_LENGTH]))
                if len(self._received) < length:
                    return
                data = bytes(self._received[:length])
                del self._received[:length]
                self._heard = now
                try:
                    pdu = agentx.unpack(data)
                except ParseError:
                    self._refuse(agentx.head_of(data), Error.PARSE_ERROR)
                else:
                    yield from self._take(pdu, now)
        except AgentXError:
            self.close(CloseReason.PARSE_ERROR)
            raise

    def handle_timer(self, now: float) -> None:
        """Ping a master that is silent. Raises :class:`AgentXError` if it does not answer."""
        if self._awaited:
            if now - self._asked >= ANSWER_SECONDS:
                asked = next(iter(self._awaited.values()))
                raise AgentXError(f"no answer to {asked} for {now - self._asked:.0f} s")
        elif self.state is State.RUNNING and now - self._heard >= PING_SECONDS:
            self._asked = now
            self._send(PduType.PING, b"", "ping")

    def close(self, reason: CloseReason = CloseReason.SHUTDOWN) -> None:
        """Say that we go."""
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._send(PduType.CLOSE, agentx.close_payload(reason))

    def notify(self, notification: Notification, index: Oid, row: object) -> None:
        """Tell of a row; its objects go with it (clause 6.2.10). Nothing happens before we are registered."""
        if self.state is not State.RUNNING:
            return
        columns = {column.name: column for column in notification.table.columns}
        binds = [agentx.varbind(SNMP_TRAP_OID, Syntax.OBJECT_IDENTIFIER, notification.oid)]
        for name in notification.objects:
            column, value = columns[name], columns[name].read(row)
            if value is not None:
                binds.append(self._bind(notification.table.instance(name, index), column.syntax, value))
        self._send(PduType.NOTIFY, agentx.pack_varbinds(binds), "notify")

    def _send(self, kind: PduType, payload: bytes, asks: str | None = None) -> None:
        self._packet += 1
        if asks is not None:
            self._awaited[self._packet] = asks
        self._out.append(agentx.pack(kind, payload, session=self.session, packet=self._packet))

    def _bind(self, name: Oid, syntax: Syntax, value: Value) -> VarBind:
        if syntax is Syntax.TIME_TICKS:
            assert not isinstance(value, (bytes, tuple))
            value = int(max(0.0, value - self.origin) * 100)
        assert not isinstance(value, float)
        return agentx.varbind(name, syntax, value)

    # what the master says

    def _take(self, pdu: Pdu, now: float) -> Pieces[None]:
        if pdu.type == PduType.RESPONSE:
            self._answered(pdu, now)
        elif pdu.session != self.session or self.state is State.OPENING:
            self._refuse(pdu, Error.NOT_OPEN)
        elif pdu.type == PduType.CLOSE:
            self.state = State.CLOSED
            raise AgentXError(f"the master agent closed the session, reason {pdu.reason}")
        elif pdu.too_many:
            error = Error.RESOURCE_UNAVAILABLE if pdu.type == PduType.TEST_SET else Error.GEN_ERR
            self._out.append(agentx.response(pdu, error=error, index=agentx.MAXIMUM_RANGES))
        elif pdu.context and pdu.type in _ELSEWHERE:
            self._answer_elsewhere(pdu)
        elif pdu.type == PduType.GET:
            yield from self._answer(pdu, [self._get(each.start, now) for each in pdu.ranges])
        elif pdu.type == PduType.GET_NEXT:
            yield from self._answer(pdu, [self._next(each, now) for each in pdu.ranges])
        elif pdu.type == PduType.GET_BULK:
            found = yield from self._bulk(pdu, now)
            self._out.append(agentx.response(pdu, found))
        elif pdu.type in {PduType.TEST_SET, PduType.COMMIT_SET, PduType.UNDO_SET, PduType.CLEANUP_SET}:
            if len(self.sets) >= MAXIMUM_SETS:
                raise AgentXError(f"{MAXIMUM_SETS} steps of SETs that nobody waits for")
            self.sets.append(pdu)
        else:
            self._refuse(pdu, Error.PARSE_ERROR)

    def _answer_elsewhere(self, pdu: Pdu) -> None:
        """In a context that we have registered nothing in."""
        if pdu.type == PduType.TEST_SET:
            self._out.append(agentx.response(pdu, error=Error.NOT_WRITABLE, index=1))
        else:
            self._out.append(agentx.response(pdu, [VarBind(each.start, _ELSEWHERE[pdu.type]) for each in pdu.ranges]))

    def _refuse(self, pdu: Pdu, error: Error) -> None:
        """A Response is never answered, and there is none to Close and CleanupSet (clauses 7.2.2, 7.2.4.4)."""
        if pdu.type not in UNANSWERED:
            self._out.append(agentx.response(pdu, error=error))

    def answer_set(self, pdu: Pdu, error: Error, index: int) -> None:
        """To one of :attr:`sets`; nothing for what has no answer (clause 7.2.4.4)."""
        if pdu.type != PduType.CLEANUP_SET and self.state is not State.CLOSED:
            self._out.append(agentx.response(pdu, error=error, index=index))

    def _answered(self, pdu: Pdu, now: float) -> None:
        asked = self._awaited.pop(pdu.packet, None)
        if asked is None:
            return  # to a Close, or to nothing of ours
        if pdu.error and asked.startswith(("open", "register")):
            why = agentx.REFUSALS.get(pdu.error, f"error {pdu.error}")
            raise AgentXError(f"the master agent refuses to {asked}: {why}")
        if pdu.error == Error.NOT_OPEN:  # it has been restarted, or has given us up
            raise AgentXError("the master agent does not know this session")
        if asked == "open":
            self.session = pdu.session
            self.origin = now - pdu.uptime / 100
            self.state = State.REGISTERING
            self._asked = now
            for module in self.view.modules:
                self._send(PduType.REGISTER, agentx.register_payload(module.oid), f"register {module.name}")
        if self.state is State.REGISTERING and not self._awaited:
            self.state = State.RUNNING

    def _answer(self, pdu: Pdu, wanted: Iterable[Pieces[VarBind]]) -> Pieces[None]:
        binds = yield from _all(wanted)
        self._out.append(agentx.response(pdu, binds))

    def _get(self, oid: Oid, now: float) -> Pieces[VarBind]:
        found = yield from self.view.get_in_pieces(oid, now)
        if found is not None:
            return self._bind(oid, *found)
        return VarBind(oid, agentx.NO_SUCH_INSTANCE if self.view.has_object(oid) else agentx.NO_SUCH_OBJECT)

    def _next(self, wanted: agentx.SearchRange, now: float) -> Pieces[VarBind]:
        found = yield from self.view.next_in_pieces(wanted.start, wanted.end, now, include=wanted.include)
        return VarBind(wanted.start, agentx.END_OF_MIB_VIEW) if found is None else self._bind(*found)

    def _bulk(self, pdu: Pdu, now: float) -> Pieces[list[VarBind]]:
        """Clause 7.2.3.3: the first few once, the others again and again, fewer times if there are too many."""
        once = pdu.ranges[: pdu.non_repeaters]
        binds = yield from _all(self._next(each, now) for each in once)
        ranges = list(pdu.ranges[len(once) :])
        for _ in range(min(pdu.max_repetitions, max(1, MAXIMUM_BINDS // len(ranges))) if ranges else 0):
            found = yield from _all(self._next(each, now) for each in ranges)
            binds += found
            if all(bind.type == agentx.END_OF_MIB_VIEW for bind in found):
                break
            ranges = [agentx.SearchRange(bind.name, each.end) for bind, each in zip(found, ranges, strict=True)]
        return binds


def _all(wanted: Iterable[Pieces[VarBind]]) -> Pieces[list[VarBind]]:
    """One after the other."""
    found = []
    for each in wanted:
        found.append((yield from each))
        yield
    return found
