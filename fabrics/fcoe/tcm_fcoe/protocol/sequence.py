"""Sequences of several frames put together (FC-FS-3 clause 12): of ELS and CT, whose data nobody wants in pieces.

Frames may come in any order within a sequence, since VLANs with several paths do that; the first is known by SOFi3, the last by
End_Sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_fcoe.protocol.fcoe import EOF_T, SOF_I3
from tcm_fcoe.protocol.frame import F_CTL_END_SEQUENCE, F_CTL_EXCHANGE_RESPONDER, F_CTL_RELATIVE_OFFSET, Frame

if TYPE_CHECKING:
    from tcm_fcoe.protocol.counters import Counters
    from tcm_fcoe.protocol.limits import Limits
    from tcm_fcoe.protocol.timers import Timer, Timers

Key = tuple[int, int, int, bool]
"""S_ID, OX_ID, SEQ_ID, and whether the sender is the responder of the exchange."""


class _Sequence:
    __slots__ = ("first", "frames", "last", "length", "timer")

    def __init__(self) -> None:
        self.frames: dict[int, tuple[int | None, bytes]] = {}
        """Relative offset (if there is one) and data, by SEQ_CNT."""
        self.first = -1
        self.last = -1
        self.length = 0
        self.timer: Timer | None = None


class Sequences:
    """Those of one N_Port that are not complete.

    :param e_d_tov: seconds without a frame after which one is given up (the class 3 policy: discard a single sequence).
    """

    def __init__(self, timers: Timers, counters: Counters, limits: Limits, e_d_tov: float = 2.0) -> None:
        self._timers = timers
        self.counters = counters
        self._limits = limits
        self.e_d_tov = e_d_tov
        self.longer: dict[int, float] = {}
        """That of ports with which it is longer, by S_ID."""
        self._open: dict[Key, _Sequence] = {}
        self._per_port: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def receive(self, frame: Frame, now: float) -> bytes | None:
        """The data of the sequence, if the frame completes one."""
        ends = bool(frame.f_ctl & F_CTL_END_SEQUENCE)
        if ends != (frame.eof == EOF_T):
            self.counters.bad_eof += 1
            return None
        key = (frame.s_id, frame.ox_id, frame.seq_id, bool(frame.f_ctl & F_CTL_EXCHANGE_RESPONDER))
        sequence = self._open.get(key)
        begins = frame.sof == SOF_I3
        if begins and ends:
            if sequence is not None:  # SEQ_ID is used again: the older one is never completed
                self._discard(key)
            return bytes(frame.payload)
        if sequence is None:
            sequence = self._begin(key, begins=begins)
            if sequence is None:
                return None
        elif sequence.timer is not None:
            sequence.timer.cancel()
        return self._add(key, sequence, frame, begins, ends, now)

    def _begin(self, key: Key, *, begins: bool) -> _Sequence | None:
        if not begins:
            self.counters.unknown_sequence += 1
            return None
        held = self._per_port.get(key[0], 0)
        if len(self._open) >= self._limits.sequences or held >= self._limits.sequences_per_port:
            self.counters.sequences_refused += 1
            return None
        self._per_port[key[0]] = held + 1
        sequence = self._open[key] = _Sequence()
        return sequence

    def _add(self, key: Key, sequence: _Sequence, frame: Frame, begins: bool, ends: bool, now: float) -> bytes | None:
        sequence.length += len(frame.payload)
        if sequence.length > self._limits.sequence_length or len(sequence.frames) * 16 > self._limits.sequence_length:
            self.counters.sequences_too_long += 1
            self._discard(key)
            return None
        if frame.seq_cnt in sequence.frames or (begins and sequence.first >= 0) or (ends and sequence.last >= 0):
            self.counters.sequences_wrong += 1
            self._discard(key)
            return None
        offset = frame.parameter if frame.f_ctl & F_CTL_RELATIVE_OFFSET else None
        sequence.frames[frame.seq_cnt] = offset, bytes(frame.payload)
        if begins:
            sequence.first = frame.seq_cnt
        if ends:
            sequence.last = frame.seq_cnt
        if sequence.first < 0 or sequence.last < 0 or len(sequence.frames) != (sequence.last - sequence.first & 0xFFFF) + 1:
            sequence.timer = self._timers.set(
                now + self.longer.get(key[0], self.e_d_tov), lambda _now: self._time_out(key, sequence)
            )
            return None
        self._discard(key)
        return self._join(sequence)

    def _join(self, sequence: _Sequence) -> bytes | None:
        """In the order of SEQ_CNT, which may pass FFFFh."""
        data = bytearray()
        base = None
        for index in range(len(sequence.frames)):
            found = sequence.frames.get(sequence.first + index & 0xFFFF)
            if found is None:
                self.counters.sequences_wrong += 1
                return None
            offset, payload = found
            if offset is not None:
                base = offset - len(data) if base is None else base
                if offset != base + len(data):
                    self.counters.sequences_wrong += 1
                    return None
            data += payload
        return bytes(data)

    def _time_out(self, key: Key, sequence: _Sequence) -> None:
        if self._open.get(key) is sequence:
            self.counters.sequences_timed_out += 1
            self._discard(key)

    def _discard(self, key: Key) -> None:
        sequence = self._open.pop(key)
        if sequence.timer is not None:
            sequence.timer.cancel()
        if self._per_port[key[0]] == 1:
            del self._per_port[key[0]]
        else:
            self._per_port[key[0]] -= 1

    def abort(self, s_id: int, ox_id: int) -> bool:
        """Give up what an originator has begun to send in one exchange; whether there was anything."""
        keys = [key for key in self._open if key[0] == s_id and key[1] == ox_id and not key[3]]
        for key in keys:
            self._discard(key)
        return bool(keys)

    def forget(self, s_id: int | None = None) -> None:
        """Give up what a port has begun to send; all that there is for ``None``."""
        for key in [key for key in self._open if s_id is None or key[0] == s_id]:
            self._discard(key)
