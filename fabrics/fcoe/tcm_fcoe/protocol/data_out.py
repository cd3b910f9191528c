"""FCP_DATA of one command to the target: bursts, each a sequence of the initiator's (FCP-4 9.3, 9.4).

Frames are placed by relative offset, in whatever order they come. A burst is over once its last frame (END_SEQUENCE) and all
bytes are there. Frames that stay away are the initiator's to miss: it asks with REC and SRR, or aborts the exchange.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from tcm_fcoe.protocol.fcoe import SOF_I3
from tcm_fcoe.protocol.fcp import ResponseCode
from tcm_fcoe.protocol.frame import F_CTL_END_SEQUENCE, F_CTL_RELATIVE_OFFSET

if TYPE_CHECKING:
    from tcm_fcoe.protocol.frame import Frame

ISLANDS_LIMIT = 512
"""Pieces of one burst that wait for what is missing between them; what would make another is dropped, as if lost."""


class DataOut:
    """What has come of a command's data.

    :param size: bytes that there may be: FCP_DL, or what the core wants of it.
    :param view: where they are put; made if not given.
    :param unsolicited: bytes of a first burst that comes without FCP_XFER_RDY, at most; 0: all of it is asked for.
    """

    filled = 0
    """All bytes before are there."""
    burst_start = 0
    burst_end = 0
    unsolicited = False
    """It is the first burst, whose length the initiator chooses."""
    active = False
    """A burst is on its way: the initiator holds the sequence initiative."""
    ended = False
    """Its last frame has come."""
    seq_id = -1
    frames = 0
    """Different ones of this sequence."""
    first_count = -1
    """SEQ_CNT of its first one; -1: has not come."""
    last_count = -1
    """Of its last one."""
    void = -1
    """SEQ_ID of a sequence that was given up: its frames may still come."""
    since = 0.0
    """When a frame of it came last, or it was asked for; monotonic seconds."""
    inquired = 0.0
    """When REC or SRR came last: the initiator is at it."""

    def __init__(self, size: int, *, view: memoryview | None = None, unsolicited: int = 0) -> None:
        self.view = memoryview(bytearray(size)) if view is None else view
        self.islands: list[tuple[int, int]] = []
        """What is there beyond ``filled``: disjoint, in order, not touching."""
        if unsolicited:
            self.burst_end = min(size, unsolicited)
            self.unsolicited = self.active = True

    def begin(self, offset: int, length: int, now: float) -> None:
        """A burst is asked for."""
        self.filled = self.burst_start = offset
        self.burst_end = offset + length
        if self.islands:
            self.islands.clear()
        self.unsolicited = False
        self.active, self.since = True, now
        if self.seq_id >= 0:
            self.restart()

    def give_up(self, offset: int) -> None:
        """The burst is asked for once more, from ``offset`` on."""
        self.filled = offset
        self.void = self.seq_id

    def restart(self) -> None:
        """Nothing of the sequence has come yet."""
        self.ended = False
        self.seq_id = self.first_count = self.last_count = -1
        self.frames = 0

    def receive(self, frame: Frame, now: float) -> ResponseCode | bool | None:
        """A frame of FCP_DATA.

        True: the burst is over, and has all been there is of it. False: it goes on. None: the frame was dropped, being one that
        has come before. A code: the data is not what was asked for (9.4).
        """
        payload = frame.payload
        f_ctl = frame.f_ctl
        offset = frame.parameter if f_ctl & F_CTL_RELATIVE_OFFSET else self.filled
        if frame.seq_id != self.seq_id:
            # frames of an earlier sequence that were late or came twice
            if offset < self.burst_start or frame.seq_id == self.void:
                return None
            if self.seq_id >= 0:
                self.filled = self.burst_start
                self.islands.clear()
                self.restart()
            self.seq_id = frame.seq_id
        end = offset + len(payload)
        if end > self.burst_end:
            return (
                ResponseCode.DATA_PARAMETER_MISMATCH
                if offset > self.burst_end
                else ResponseCode.DATA_LENGTH_DIFFERENT_THAN_BURST_LENGTH
            )
        if offset < self.burst_start:
            return ResponseCode.DATA_PARAMETER_MISMATCH
        self.since = now
        if offset == self.filled and not self.islands:
            self.view[offset:end] = payload
            self.filled = end
        elif not self._add(offset, end):
            return None
        else:
            self.view[offset:end] = payload
        self.frames += 1
        if frame.sof == SOF_I3:
            self.first_count = frame.seq_cnt
        if f_ctl & F_CTL_END_SEQUENCE:
            self.ended = True
            self.last_count = frame.seq_cnt
        elif not self.ended:
            return False
        if self.filled == self.burst_end:
            self.active = False
            return True
        if self.first_count < 0 or self.frames <= (self.last_count - self.first_count & 0xFFFF):
            return False
        # all frames are there: so many bytes it was
        if not self.unsolicited or self.islands:
            return ResponseCode.DATA_LENGTH_DIFFERENT_THAN_BURST_LENGTH
        self.active = False
        return True

    def _add(self, start: int, end: int) -> bool:
        """Bytes ``start`` to ``end`` are there; False: they all were, or cannot be kept."""
        islands = self.islands
        if end <= self.filled:
            return False
        first = bisect_left(islands, start, key=lambda island: island[1])
        after = bisect_right(islands, end, key=lambda island: island[0])
        if first < after:
            if islands[first][0] <= start and end <= islands[first][1]:
                return False
            start, end = min(start, islands[first][0]), max(end, islands[after - 1][1])
        elif len(islands) >= ISLANDS_LIMIT:
            return False
        islands[first:after] = [(start, end)]
        if islands[0][0] <= self.filled:
            self.filled = max(self.filled, islands.pop(0)[1])
        return True
