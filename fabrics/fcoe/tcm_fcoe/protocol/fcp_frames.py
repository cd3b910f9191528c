"""FCP information units to one remote port, as whole Ethernet frames (FCP-4 9; FC-BB-5 7.7): the hot path's way out.

What stays the same from frame to frame is packed once. Frames of data are made in the link's own memory where there is some
(:class:`Rooms`), otherwise in buffers of their own; either way the data is copied once, and a CRC is one pass over it.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Protocol

from fastcrc.crc32 import iso_hdlc as crc32

from tcm_fcoe.protocol.fcoe import (
    EOF_N,
    EOF_T,
    FC_HEADER_LENGTH,
    FCOE_HEADERS,
    HEADER_LENGTH,
    MAX_DATA_FIELD,
    SOF_I3,
    SOF_N3,
    TRAILER_LENGTH,
)
from tcm_fcoe.protocol.fcp import GOOD_RESPONSE, TYPE_FCP, InformationUnit
from tcm_fcoe.protocol.frame import (
    F_CTL_END_SEQUENCE,
    F_CTL_RELATIVE_OFFSET,
    F_CTL_REPLY,
    F_CTL_SEQUENCE_INITIATIVE,
    HEADER,
)

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from tcm_fcoe.protocol.remote_port import RemotePort

_pack = HEADER.pack
IDS_AT = 16
"""Where an FC header has OX_ID and RX_ID."""
_trailer = Struct("<IB3x").pack
_trailer_into = Struct("<IB3x").pack_into
_FILL = (b"", b"\0", b"\0\0", b"\0\0\0")
_words = Struct(">III").pack
_HEADERS = {length: Struct(f">{length}sBBHHHI").pack_into for length in (26 + HEADER_LENGTH, 30 + HEADER_LENGTH)}
"""Ethernet (perhaps tagged), FCoE and FC header, by the length of what comes before SEQ_ID."""
_HEADS = {length: Struct(f">{length}sHHI").pack_into for length in (14 + HEADER_LENGTH + IDS_AT, 18 + HEADER_LENGTH + IDS_AT)}
"""The same, up to OX_ID in one piece."""
_WITH_GOOD = {
    length: Struct(f">{length}sHHI{len(GOOD_RESPONSE)}s").pack_into
    for length in (14 + HEADER_LENGTH + IDS_AT, 18 + HEADER_LENGTH + IDS_AT)
}
"""The same, and FCP_RSP with GOOD."""
_head_end = Struct(">IIIBBH").pack
"""The end of that piece."""
_GOOD_LENGTH = FC_HEADER_LENGTH + len(GOOD_RESPONSE)
DATA_SEQUENCE, RESPONSE_SEQUENCE = 1, 2
"""SEQ_IDs of a short READ."""
ROOMS_LIMIT = 64
"""Frames in a link's memory before they are sent, beyond which no FCP_DATA is made: the other side may begin with these."""
DATA_GOES_ON = TYPE_FCP << 24 | F_CTL_RELATIVE_OFFSET
DATA_ENDS = DATA_GOES_ON | F_CTL_END_SEQUENCE
DATA_ENDS_AND_ASKS = DATA_ENDS | F_CTL_SEQUENCE_INITIATIVE
"""TYPE and F_CTL of FCP_DATA; an initiator's last frame of a burst hands the sequence initiative over."""


RESPONSE = TYPE_FCP << 24 | F_CTL_REPLY
"""TYPE and F_CTL of FCP_RSP that ends the exchange."""

_Plan = tuple[list[tuple[bytes, int, slice, slice, slice, int, int]], list[int]]
"""FCP_DATA of so many bytes, for each frame: what comes before OX_ID, relative offset, where its data is in the room and in all
of it, what the CRC is of, where it is, and EOF. And the lengths of these frames and of FCP_RSP."""


class Rooms(Protocol):
    """Memory of a link, into which frames are written where they are sent from."""

    unsent: int
    """Frames in it that the link has not been told to send."""

    def reserve(self, waiting: deque[bytes], count: int, length: int) -> Sequence[memoryview]:
        """Rooms for the next frames, behind those that are ``waiting``, which are taken.

        :param count: frames, at most.
        :param length: bytes of the longest of them.
        :return: maybe fewer, none if the link takes no more now.
        """

    def commit(self, lengths: list[int]) -> None:
        """The first rooms of the last :meth:`reserve` have been filled, with so many bytes each."""


class FcpFrames:
    """What makes them.

    :param responder: F_CTL_EXCHANGE_RESPONDER, or 0.
    :param data_ends: TYPE and F_CTL of the last frame of a sequence of FCP_DATA.
    """

    __slots__ = (
        "_ends", "_first", "_first_on", "_goes_on", "_good", "_good_into", "_head_into", "_header_into", "_next",
        "_next_on", "_plans", "_prefix", "_s_id", "_word_data", "max_payload", "remote",
    )  # fmt: skip

    def __init__(self, remote: RemotePort, s_id: int, *, responder: int, data_ends: int) -> None:
        self.remote = remote
        self._s_id = s_id
        self._word_data = InformationUnit.FCP_DATA << 24 | remote.fc_id
        self._goes_on = DATA_GOES_ON | responder
        self._ends = data_ends | responder
        self.max_payload = min(remote.max_frame, MAX_DATA_FIELD) & ~3
        """Bytes of a frame's data field."""
        self._prefix: bytes | None = None
        self._first = self._next = self._good = b""
        self._plans: dict[int, _Plan] = {}
        """Of short READs, by their length."""

    def _set_prefix(self, prefix: bytes) -> None:
        """Another way to the remote port."""
        self._prefix = prefix
        self._first, self._next = prefix + FCOE_HEADERS[SOF_I3], prefix + FCOE_HEADERS[SOF_N3]
        self._first_on, self._next_on = self._head(self._first, self._goes_on), self._head(self._next, self._goes_on)
        self._header_into = _HEADERS[len(self._first_on)]
        self._head_into = _HEADS[len(self._first) + IDS_AT]
        self._good_into = _WITH_GOOD[len(self._first) + IDS_AT]
        word_response = InformationUnit.FCP_RSP << 24 | self.remote.fc_id
        self._good = self._first + _head_end(word_response, self._s_id, RESPONSE, RESPONSE_SEQUENCE, 0, 0)
        self._plans.clear()

    def _head(self, before: bytes, word_2: int) -> bytes:
        """What comes before SEQ_ID in FCP_DATA."""
        return before + _words(self._word_data, self._s_id, word_2)

    def _plan(self, length: int) -> _Plan:
        """How a READ of so many bytes, a multiple of four, is answered."""
        size, fc = self.max_payload, len(self._first)
        before = fc + FC_HEADER_LENGTH + TRAILER_LENGTH
        frames, lengths = [], []
        for count, offset in enumerate(range(0, length, size)):
            after = min(offset + size, length)
            word_2, eof = (self._goes_on, EOF_N) if after < length else (self._ends, EOF_T)
            head = _head_end(self._word_data, self._s_id, word_2, DATA_SEQUENCE, 0, count)
            full = fc + FC_HEADER_LENGTH + after - offset
            frames.append(
                (
                    (self._next if count else self._first) + head,
                    offset,
                    slice(fc + FC_HEADER_LENGTH, full),
                    slice(offset, after),
                    slice(fc, full),
                    full,
                    eof,
                )
            )
            lengths.append(before + after - offset)
        plan = self._plans[length] = frames, [*lengths, before + len(GOOD_RESPONSE)]
        return plan

    def put_read(self, outbox: deque[bytes], rooms: Rooms | None, ox_id: int, rx_id: int, data: memoryview) -> None:
        """A READ whole: FCP_DATA in one sequence, and FCP_RSP with GOOD. ``data`` is a multiple of four bytes."""
        if self.remote.prefix is not self._prefix:
            if self.remote.prefix is None:
                return
            self._set_prefix(self.remote.prefix)
        length = len(data)
        if rooms is not None:
            frames, lengths = self._plans.get(length) or self._plan(length)
            places = rooms.reserve(outbox, len(lengths), max(lengths[0], lengths[-1]))
            if len(places) == len(lengths):
                head_into = self._head_into
                for room, (head, offset, in_room, in_data, in_crc, full, eof) in zip(places, frames, strict=False):
                    head_into(room, 0, head, ox_id, rx_id, offset)
                    room[in_room] = data[in_data]
                    _trailer_into(room, full, crc32(room[in_crc]), eof)
                room, fc = places[-1], len(self._first)
                full = fc + _GOOD_LENGTH
                self._good_into(room, 0, self._good, ox_id, rx_id, 0, GOOD_RESPONSE)
                _trailer_into(room, full, crc32(room[fc:full]), EOF_T)
                rooms.commit(lengths)
                return
        self.put_data(outbox, rooms, ox_id, rx_id, DATA_SEQUENCE, 0, data, 0, length, length)
        word_response = InformationUnit.FCP_RSP << 24 | self.remote.fc_id
        self.put(outbox, word_response, RESPONSE, RESPONSE_SEQUENCE, ox_id, rx_id, GOOD_RESPONSE)

    def put(self, outbox: deque[bytes], word_0: int, word_2: int, seq_id: int, ox_id: int, rx_id: int, payload: bytes) -> None:
        """An information unit of one frame; none if there is no way.

        :param word_0: R_CTL and D_ID.
        :param word_2: TYPE and F_CTL.
        """
        prefix = self.remote.prefix
        if prefix is not self._prefix:
            if prefix is None:
                return
            self._set_prefix(prefix)
        if fill := -len(payload) & 3:
            payload += _FILL[fill]
        frame = _pack(word_0, self._s_id, word_2 | fill, seq_id, 0, 0, ox_id, rx_id, 0) + payload
        outbox.append(self._first + frame + _trailer(crc32(frame), EOF_T))

    def put_data(
        self,
        outbox: deque[bytes],
        rooms: Rooms | None,
        ox_id: int,
        rx_id: int,
        seq_id: int,
        seq_cnt: int,
        view: memoryview,
        offset: int,
        stop: int,
        end: int,
    ) -> int:
        """FCP_DATA of ``view[offset:stop]``, of a sequence that ends with ``end``; SEQ_CNT of the next frame.

        :param stop: whole frames after ``offset``, or ``end``.
        :param rooms: where frames are made, if the link has such.
        """
        prefix = self.remote.prefix
        if prefix is not self._prefix:
            if prefix is None:
                return seq_cnt
            self._set_prefix(prefix)
        size = self.max_payload
        if rooms is not None:
            count = (stop - offset + size - 1) // size
            fc = len(self._first)
            data_at = fc + FC_HEADER_LENGTH
            places = rooms.reserve(outbox, count, data_at + size + TRAILER_LENGTH)
            if places:
                header_into = self._header_into
                head, goes_on = self._first_on if seq_cnt == 0 else self._next_on, self._next_on
                full = last = data_at + size
                in_room, in_crc = slice(data_at, full), slice(fc, full)
                for room in places:
                    after = offset + size
                    if after < end:
                        header_into(room, 0, head, seq_id, 0, seq_cnt & 0xFFFF, ox_id, rx_id, offset)
                        room[in_room] = view[offset:after]
                        _trailer_into(room, full, crc32(room[in_crc]), EOF_N)
                        head = goes_on
                    else:
                        fill = offset - end & 3
                        head = self._head(self._next if seq_cnt else self._first, self._ends | fill)
                        header_into(room, 0, head, seq_id, 0, seq_cnt & 0xFFFF, ox_id, rx_id, offset)
                        last = data_at + end - offset
                        room[data_at:last] = view[offset:end]
                        if fill:
                            room[last : last + fill] = _FILL[fill]
                            last += fill
                        _trailer_into(room, last, crc32(room[fc:last]), EOF_T)
                    seq_cnt += 1
                    offset = after
                lengths = [full + TRAILER_LENGTH] * len(places)
                lengths[-1] = last + TRAILER_LENGTH
                rooms.commit(lengths)
        if offset < stop:
            return self._append_data(outbox, ox_id, rx_id, seq_id, seq_cnt, view, offset, stop, end)
        return seq_cnt

    def _append_data(
        self,
        outbox: deque[bytes],
        ox_id: int,
        rx_id: int,
        seq_id: int,
        seq_cnt: int,
        view: memoryview,
        offset: int,
        stop: int,
        end: int,
    ) -> int:
        """The same, in buffers of their own."""
        append, join = outbox.append, b"".join
        size, word_0, s_id, goes_on = self.max_payload, self._word_data, self._s_id, self._goes_on
        head = self._next if seq_cnt else self._first
        while offset < stop:
            after = offset + size
            if after < end:
                header = _pack(word_0, s_id, goes_on, seq_id, 0, seq_cnt & 0xFFFF, ox_id, rx_id, offset)
                data = view[offset:after]
                append(join((head, header, data, _trailer(crc32(data, crc32(header)), EOF_N))))
                head = self._next
            else:
                fill = offset - end & 3
                header = _pack(word_0, s_id, self._ends | fill, seq_id, 0, seq_cnt & 0xFFFF, ox_id, rx_id, offset)
                data, more = view[offset:end], _FILL[fill]
                append(join((head, header, data, more, _trailer(crc32(more, crc32(data, crc32(header))), EOF_T))))
            seq_cnt += 1
            offset = after
        return seq_cnt
