"""Exchanges of ELS and CT that an N_Port originates (FC-FS-3 clause 13): a request, and its reply or none.

A request without a reply after twice R_A_TOV is aborted (its exchange, by ABTS) and sent again in a new exchange; the OX_ID of
the old one is kept back as :mod:`tcm_fcoe.protocol.recovery` has it. A request is answered once, by its ``done``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tcm_fcoe.protocol.frame import F_CTL_EXCHANGE_RESPONDER, F_CTL_REQUEST, NO_EXCHANGE, FcType, Frame, RCtl

if TYPE_CHECKING:
    from tcm_fcoe.protocol.counters import Counters
    from tcm_fcoe.protocol.limits import Limits
    from tcm_fcoe.protocol.recovery import Aborts
    from tcm_fcoe.protocol.sequence import Sequences
    from tcm_fcoe.protocol.timers import Timer, Timers

Done = Callable[[bytes | None, float], None]
"""``done(reply, now)``: the data of the reply; ``None``: there is none, however often the request was sent."""

LINK_SERVICE_OX_IDS = range(0x0001, 0x1000)
"""OX_IDs of ELS and CT."""
FC4_OX_IDS = range(0x1000, NO_EXCHANGE)
"""OX_IDs that the FC-4 of an N_Port gives to its own exchanges."""


Send = Callable[[int, int, int, int, int, int, bytes, float, int], None]
"""Sends one sequence, in as many frames as it takes: (D_ID, R_CTL, TYPE, F_CTL, OX_ID, RX_ID, data, now, Parameter field)."""


class Request:
    """One that waits for its reply."""

    __slots__ = ("attempts", "d_id", "done", "ox_id", "parameter", "payload", "r_ctl", "recover", "timeout", "timer", "type")

    def __init__(self, d_id: int, r_ctl: int, fc_type: int, payload: bytes, done: Done, timeout: float, attempts: int) -> None:
        self.d_id = d_id
        self.r_ctl = r_ctl
        self.type = fc_type
        self.payload = payload
        self.done = done
        self.timeout = timeout
        self.attempts = attempts
        """How often it may yet be sent."""
        self.recover = True
        """Whether a timeout aborts the exchange."""
        self.parameter = 0
        """Of the frame header."""
        self.ox_id = NO_EXCHANGE
        self.timer: Timer | None = None

    @property
    def expected(self) -> int:
        """R_CTL of the reply."""
        return self.r_ctl + 1


class Exchanges:
    """Those of one N_Port."""

    def __init__(
        self, send: Send, timers: Timers, counters: Counters, limits: Limits, sequences: Sequences, aborts: Aborts
    ) -> None:
        self._send_sequence = send
        self._timers = timers
        self.counters = counters
        self._limits = limits
        self._sequences = sequences
        self._aborts = aborts
        self._open: dict[int, Request] = {}
        """By OX_ID."""
        self._next = LINK_SERVICE_OX_IDS.start
        self.r_a_tov = 10.0
        self.longer: dict[int, float] = {}
        """That of ports with which it is longer, by D_ID."""

    def __len__(self) -> int:
        return len(self._open)

    def request(
        self,
        d_id: int,
        payload: bytes,
        done: Done,
        now: float,
        *,
        r_ctl: int = RCtl.EXTENDED_LINK_REQUEST,
        fc_type: int = FcType.EXTENDED_LINK_SERVICE,
        timeout: float | None = None,
        attempts: int | None = None,
        recover: bool = True,
        parameter: int = 0,
    ) -> Request:
        """Send a request. ``done`` is called later, never from here.

        :param timeout: seconds to wait for the reply each time; twice R_A_TOV if not given.
        :param attempts: how often it is sent at most.
        :param recover: abort the exchange when there is no reply; RRQ, which ends an abort, does not.
        :param parameter: of the frame header.
        """
        request = Request(
            d_id,
            r_ctl,
            fc_type,
            payload,
            done,
            2 * self.longer.get(d_id, self.r_a_tov) if timeout is None else timeout,
            self._limits.attempts if attempts is None else attempts,
        )
        request.recover = recover
        request.parameter = parameter
        self._send(request, now)
        return request

    def _send(self, request: Request, now: float) -> None:
        request.attempts -= 1
        ox_id = self._allocate()
        request.timer = self._timers.set(now + request.timeout, lambda moment: self._time_out(request, moment))
        if ox_id is None:  # thousands of requests at once: as if it had been lost
            return
        request.ox_id = ox_id
        self._open[ox_id] = request
        if request.type == FcType.COMMON_TRANSPORT:
            self.counters.ct_out += 1
        else:
            self.counters.els_out += 1
        self._send_sequence(
            request.d_id, request.r_ctl, request.type, F_CTL_REQUEST, ox_id, NO_EXCHANGE, request.payload, now,
            request.parameter,
        )  # fmt: skip

    def _allocate(self) -> int | None:
        """The next OX_ID that is free, so that each rests as long as it can."""
        for _ in range(len(LINK_SERVICE_OX_IDS)):
            ox_id = self._next
            self._next = ox_id + 1 if ox_id + 1 in LINK_SERVICE_OX_IDS else LINK_SERVICE_OX_IDS.start
            if ox_id not in self._open and not self._aborts.holds(ox_id):
                return ox_id
        return None

    def _time_out(self, request: Request, now: float) -> None:
        self.counters.els_timed_out += 1
        if self._open.get(request.ox_id) is request:
            del self._open[request.ox_id]
            if request.recover:
                self._aborts.abort(request.d_id, request.ox_id, NO_EXCHANGE, now)
            else:
                self._aborts.rest(request.d_id, request.ox_id, now)
            request.ox_id = NO_EXCHANGE
        if request.attempts > 0:
            self.counters.els_retried += 1
            self._send(request, now)
        else:
            request.done(None, now)

    def receive_reply(self, frame: Frame, now: float) -> None:
        """A frame of a reply: R_CTL 23h, 33h, or 03h with TYPE 20h."""
        request = self._open.get(frame.ox_id)
        if (
            request is None
            or request.d_id != frame.s_id
            or frame.r_ctl != request.expected
            or frame.type != request.type
            or not frame.f_ctl & F_CTL_EXCHANGE_RESPONDER
        ):
            self.counters.unknown_exchange += 1
            return
        data = self._sequences.receive(frame, now)
        if data is not None:
            self._close(request)
            request.done(data, now)

    def _close(self, request: Request) -> None:
        if self._open.get(request.ox_id) is request:
            del self._open[request.ox_id]
        if request.timer is not None:
            request.timer.cancel()

    def is_open(self, ox_id: int) -> bool:
        """Whether a request waits in this exchange."""
        return ox_id in self._open

    def forget(self, d_id: int | None = None) -> None:
        """Wait no longer for replies of a port (of anybody for ``None``); ``done`` is not called."""
        for request in [each for each in self._open.values() if d_id is None or each.d_id == d_id]:
            self._close(request)

    def cancel(self, request: Request, now: float) -> None:
        """Wait no longer for this one, and abort its exchange; ``done`` is not called."""
        if self._open.get(request.ox_id) is request:
            self._close(request)
            self._aborts.abort(request.d_id, request.ox_id, NO_EXCHANGE, now)
        elif request.timer is not None:
            request.timer.cancel()
