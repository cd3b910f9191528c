"""ABTS and what follows it (FC-FS-3 clauses 16.3.2, 22): exchanges that we abort, and those that others do.

What is aborted gets a recovery qualifier: frames of it may be under way for R_A_TOV more, so its OX_ID is not used again
before, and what arrives meanwhile is dropped. The originator ends it by RRQ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tcm_fcoe.protocol.basic import Abts, BasicAccept, BasicReject
from tcm_fcoe.protocol.els import ExchangeQuery
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.frame import (
    F_CTL_END_SEQUENCE,
    F_CTL_EXCHANGE_RESPONDER,
    F_CTL_SEQUENCE_INITIATIVE,
    NO_EXCHANGE,
    Frame,
    RCtl,
)

if TYPE_CHECKING:
    from tcm_fcoe.protocol.counters import Counters
    from tcm_fcoe.protocol.limits import Limits
    from tcm_fcoe.protocol.timers import Timer, Timers

Answered = Callable[[BasicAccept | BasicReject | None, float], None]
"""``answered(reply, now)``; ``None``: nobody has answered, so the remote port has to be logged out (FC-FS-3 clause 22.2)."""
Released = Callable[[float], None]
"""The OX_ID may be used again."""


class _Abort:
    __slots__ = ("answered", "attempts", "d_id", "ox_id", "released", "rx_id", "seq_cnt", "seq_id", "timer")

    def __init__(
        self, d_id: int, ox_id: int, rx_id: int, seq_id: int, seq_cnt: int, answered: Answered | None, released: Released | None
    ) -> None:
        self.d_id = d_id
        self.ox_id = ox_id
        self.rx_id = rx_id
        self.seq_id = seq_id
        self.seq_cnt = seq_cnt
        self.answered = answered
        self.released = released
        self.attempts = 2
        self.timer: Timer | None = None


class Aborts:
    """Exchanges that we have originated and abort.

    :param send: sends ABTS: (D_ID, F_CTL, SEQ_ID, SEQ_CNT, OX_ID, RX_ID, now).
    :param rrq: sends RRQ, and calls back when it is done: (D_ID, payload, done, now).
    """

    def __init__(
        self,
        send: Callable[[int, int, int, int, int, int, float], None],
        rrq: Callable[[int, ExchangeQuery, Callable[[bytes | None, float], None], float], None],
        s_id: Callable[[], int],
        timers: Timers,
        counters: Counters,
    ) -> None:
        self._send_abts = send
        self._send_rrq = rrq
        self._s_id = s_id
        self._timers = timers
        self.counters = counters
        self._open: dict[int, _Abort] = {}
        """By OX_ID, until the OX_ID is free."""
        self.r_a_tov = 10.0
        self.longer: dict[int, float] = {}
        """That of ports with which it is longer, by address."""

    def __len__(self) -> int:
        return len(self._open)

    def holds(self, ox_id: int) -> bool:
        """Whether an OX_ID is not free yet."""
        return ox_id in self._open

    def abort(
        self,
        d_id: int,
        ox_id: int,
        rx_id: int,
        now: float,
        *,
        seq_id: int = 0,
        seq_cnt: int = 0,
        answered: Answered | None = None,
        released: Released | None = None,
    ) -> None:
        """Abort an exchange that we have originated (FC-FS-3 16.3.2); ABTS is sent twice if need be.

        :param seq_id: of the last sequence that we sent in it; ``seq_cnt`` is one more than its last frame's.
        :param answered: is called with BA_ACC, BA_RJT, or ``None`` when there was neither within four times R_A_TOV.
        :param released: is called when the OX_ID may be used again.
        """
        if ox_id in self._open:
            return
        abort = self._open[ox_id] = _Abort(d_id, ox_id, rx_id, seq_id, seq_cnt, answered, released)
        self._send(abort, now)

    def rest(self, d_id: int, ox_id: int, now: float) -> None:
        """Keep an OX_ID back for twice R_A_TOV, without a word to anybody."""
        abort = self._open[ox_id] = _Abort(d_id, ox_id, NO_EXCHANGE, 0, 0, None, None)
        abort.attempts = -1
        abort.timer = self._timers.set(
            now + 2 * self.longer.get(abort.d_id, self.r_a_tov), lambda moment: self._release(abort, moment)
        )

    def _send(self, abort: _Abort, now: float) -> None:
        abort.attempts -= 1
        self.counters.abts_out += 1
        self._send_abts(
            abort.d_id,
            F_CTL_END_SEQUENCE | F_CTL_SEQUENCE_INITIATIVE,
            abort.seq_id,
            abort.seq_cnt,
            abort.ox_id,
            abort.rx_id,
            now,
        )
        abort.timer = self._timers.set(
            now + 2 * self.longer.get(abort.d_id, self.r_a_tov), lambda moment: self._time_out(abort, moment)
        )

    def _time_out(self, abort: _Abort, now: float) -> None:
        if abort.attempts > 0:
            self._send(abort, now)
        else:  # so long after the last frame none of it is under way
            self._release(abort, now)
            if abort.answered is not None:
                abort.answered(None, now)

    def receive(self, frame: Frame, now: float) -> bool:
        """BA_ACC or BA_RJT; False: to nothing that was asked."""
        abort = self._open.get(frame.ox_id)
        if (
            abort is None
            or abort.d_id != frame.s_id
            or abort.attempts < 0
            or not frame.f_ctl & F_CTL_EXCHANGE_RESPONDER
            or (abort.rx_id not in {NO_EXCHANGE, frame.rx_id} and frame.rx_id != NO_EXCHANGE)
        ):
            return False
        reply: BasicAccept | BasicReject | None
        if frame.r_ctl == RCtl.BASIC_ACC:
            reply = BasicAccept.parse(frame.payload)
            if reply is None or reply.ox_id != abort.ox_id:
                return False
            abort.rx_id = reply.rx_id
        else:
            reply = BasicReject.parse(frame.payload)
            if reply is None:
                return False
        abort.attempts = -1
        if abort.timer is not None:
            abort.timer.cancel()
        then = self._reinstate if isinstance(reply, BasicAccept) else self._release
        abort.timer = self._timers.set(now + self.longer.get(abort.d_id, self.r_a_tov), lambda moment: then(abort, moment))
        if abort.answered is not None:
            answered, abort.answered = abort.answered, None
            answered(reply, now)
        return True

    def _reinstate(self, abort: _Abort, now: float) -> None:
        query = ExchangeQuery(self._s_id(), abort.ox_id, abort.rx_id, ElsCommand.RRQ)
        self._send_rrq(abort.d_id, query, lambda _reply, moment: self._release(abort, moment), now)

    def _release(self, abort: _Abort, now: float) -> None:
        if self._open.get(abort.ox_id) is abort:
            del self._open[abort.ox_id]
            if abort.released is not None:
                abort.released(now)

    def forget(self, d_id: int | None = None) -> None:
        """After a logout OX_IDs are free; ``answered`` and ``released`` are not called."""
        for abort in [each for each in self._open.values() if d_id is None or each.d_id == d_id]:
            if abort.timer is not None:
                abort.timer.cancel()
            del self._open[abort.ox_id]


class RecoveryQualifiers:
    """Exchanges that others have originated and aborted."""

    def __init__(self, timers: Timers, limits: Limits) -> None:
        self._timers = timers
        self._limits = limits
        self.held: dict[tuple[int, int], tuple[int, Timer]] = {}
        """RX_ID by S_ID and OX_ID."""
        self.r_a_tov = 10.0
        self.longer: dict[int, float] = {}
        """That of ports with which it is longer, by address."""

    def __len__(self) -> int:
        return len(self.held)

    def establish(self, abts: Abts, rx_id: int, now: float) -> None:
        """Of an exchange whose ABTS is accepted; it ends by RRQ, or after twice R_A_TOV."""
        key = abts.s_id, abts.ox_id
        if (known := self.held.pop(key, None)) is not None:
            known[1].cancel()
        elif len(self.held) >= self._limits.recovery_qualifiers:
            oldest = next(iter(self.held))
            self.held.pop(oldest)[1].cancel()
        patience = 2 * self.longer.get(abts.s_id, self.r_a_tov)
        self.held[key] = rx_id, self._timers.set(now + patience, lambda _now: self._end(key))

    def accepted(self, abts: Abts) -> BasicAccept | None:
        """The same answer to an ABTS that comes once more; ``None``: there is no qualifier."""
        held = self.held.get((abts.s_id, abts.ox_id))
        if held is None or abts.from_responder or abts.rx_id not in {held[0], NO_EXCHANGE}:
            return None
        return BasicAccept(abts.ox_id, held[0])

    def covers(self, frame: Frame) -> bool:
        """Whether a frame is of such an exchange."""
        return (frame.s_id, frame.ox_id) in self.held and not frame.f_ctl & F_CTL_EXCHANGE_RESPONDER

    def reinstate(self, s_id: int, query: ExchangeQuery) -> bool:
        """RRQ; False: there is no such qualifier."""
        found = self.held.get((s_id, query.ox_id))
        if found is None or (found[0] != query.rx_id and NO_EXCHANGE not in {found[0], query.rx_id}):
            return False
        found[1].cancel()
        self._end((s_id, query.ox_id))
        return True

    def _end(self, key: tuple[int, int]) -> None:
        self.held.pop(key, None)

    def forget(self, s_id: int | None = None) -> None:
        """A logout ends them."""
        for key in [key for key in self.held if s_id is None or key[0] == s_id]:
            self.held.pop(key)[1].cancel()
