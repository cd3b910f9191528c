"""Frames of FCP as they are made: the same in buffers of their own and in the memory of a link, as FC-BB and FC-FS say."""

from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from tcm_fcoe.protocol.ethernet import insert_tag, vlan_tag
from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, SOF_I3, SOF_N3, decapsulate, encapsulate
from tcm_fcoe.protocol.fcp_frames import DATA_ENDS, DATA_ENDS_AND_ASKS, DATA_GOES_ON, FcpFrames
from tcm_fcoe.protocol.fcp_memory import KEPT_BUFFERS, USED_AGAIN, Buffers
from tcm_fcoe.protocol.frame import F_CTL_EXCHANGE_RESPONDER, Frame, pack_header

PLAIN = b"\x0e\xfd\x00\x00\x97\x00\x0e\xfd\x00\x00\xfc\x00\x89\x06"
TAGGED = insert_tag(PLAIN, vlan_tag(7, 3))
D_ID, S_ID = 0x009700, 0x00FC00
LENGTHS = (1, 2, 3, 4, 511, 2111, 2112, 2113, 4096, 4223, 70001)
ROOM = 2304


class Rooms:
    """A link's memory of so many rooms, which are never sent."""

    def __init__(self, count: int) -> None:
        self.memory = [bytearray(b"\xee" * ROOM) for _ in range(count)]
        self.frames: list[bytes] = []
        self.unsent = 0

    def reserve(self, waiting: deque[bytes], count: int, length: int) -> list[memoryview]:
        assert length <= ROOM
        assert count > 0
        self.frames += waiting
        waiting.clear()
        return [memoryview(each) for each in self.memory[self.unsent : self.unsent + count]]

    def commit(self, lengths: list[int]) -> None:
        count = len(lengths)
        places = self.memory[self.unsent : self.unsent + count]
        self.frames += [bytes(place[:size]) for place, size in zip(places, lengths, strict=True)]
        self.unsent += count


def frames_of(prefix: bytes | None = PLAIN, *, max_frame: int = 2112, responder: int = F_CTL_EXCHANGE_RESPONDER) -> FcpFrames:
    remote: Any = SimpleNamespace(fc_id=D_ID, prefix=prefix, max_frame=max_frame)
    return FcpFrames(remote, S_ID, responder=responder, data_ends=DATA_ENDS if responder else DATA_ENDS_AND_ASKS)


def expected(data: memoryview, start: int, *, prefix: bytes, size: int, responder: int, seq_cnt: int = 0) -> list[bytes]:
    """By the functions that every other frame passes."""
    frames = []
    for offset in range(start, len(data), size):
        piece = data[offset : offset + size]
        last = offset + size >= len(data)
        word_2 = (DATA_ENDS if responder else DATA_ENDS_AND_ASKS) if last else DATA_GOES_ON
        f_ctl = word_2 & 0xFFFFFF | responder | -len(piece) & 3
        header = pack_header(1, D_ID, S_ID, 8, f_ctl, 9, 0, seq_cnt, 0x1234, 0x5678, offset)
        frames.append(encapsulate(prefix, SOF_N3 if seq_cnt else SOF_I3, header, piece, EOF_T if last else EOF_N))
        seq_cnt += 1
    return frames


@pytest.mark.parametrize("prefix", [PLAIN, TAGGED], ids=["plain", "tagged"])
@pytest.mark.parametrize("responder", [F_CTL_EXCHANGE_RESPONDER, 0], ids=["target", "initiator"])
@pytest.mark.parametrize("length", LENGTHS)
def test_data_in_either_place(length: int, responder: int, prefix: bytes) -> None:
    data = memoryview(random.Random(length).randbytes(length))
    wanted = expected(data, 0, prefix=prefix, size=2112, responder=responder)
    for count in (0, 1, 2, 1000):  # rooms that there are: what finds none follows in buffers of its own
        rooms, outbox = Rooms(count), deque([b"before"])
        makes = frames_of(prefix, responder=responder)
        seq_cnt = makes.put_data(outbox, rooms, 0x1234, 0x5678, 9, 0, data, 0, length, length)
        assert seq_cnt == len(wanted)
        assert [*rooms.frames, *outbox] == [b"before", *wanted]
        assert rooms.unsent == min(count, len(wanted))
    outbox = deque()
    makes = frames_of(prefix, responder=responder)
    assert makes.put_data(outbox, None, 0x1234, 0x5678, 9, 0, data, 0, length, length) == len(wanted)
    assert list(outbox) == wanted


def test_a_sequence_in_turns_and_from_the_middle() -> None:
    """SEQ_CNT and SOF go on; a sequence that begins at an offset begins with SOFi3."""
    data = memoryview(random.Random(1).randbytes(10_000))
    for rooms in (None, Rooms(100)):
        outbox: deque[bytes] = deque()
        makes = frames_of(max_frame=1000)
        seq_cnt = makes.put_data(outbox, rooms, 0x1234, 0x5678, 9, 0, data, 2000, 5000, 10_000)
        assert seq_cnt == 3
        assert makes.put_data(outbox, rooms, 0x1234, 0x5678, 9, seq_cnt, data, 5000, 10_000, 10_000) == 8
        made = list(outbox) if rooms is None else rooms.frames
        assert made == expected(data, 2000, prefix=PLAIN, size=1000, responder=F_CTL_EXCHANGE_RESPONDER)


@pytest.mark.parametrize("length", [0, 12, 24, 25, 27, 60])
def test_an_information_unit_of_one_frame(length: int) -> None:
    payload, outbox = bytes(range(length)), deque[bytes]()
    makes = frames_of()
    makes.put(outbox, 0x07 << 24 | D_ID, 0x08980000, 3, 0x1234, 0x5678, payload)
    header = pack_header(7, D_ID, S_ID, 8, 0x980000 | -length & 3, 3, 0, 0, 0x1234, 0x5678, 0)
    assert list(outbox) == [encapsulate(PLAIN, SOF_I3, header, payload, EOF_T)]
    sof, fc, eof = decapsulate(memoryview(outbox[0])[14:])
    assert bytes(Frame.unpack(fc, sof, eof).payload) == payload


def test_the_way_may_change_and_go() -> None:
    makes, outbox, data = frames_of(), deque[bytes](), memoryview(bytes(8))
    makes.put(outbox, 0, 0, 0, 0, 0, b"")
    makes.remote.prefix = TAGGED
    makes.put(outbox, 0, 0, 0, 0, 0, b"")
    makes.put_data(outbox, None, 0, 0, 0, 0, data, 0, 8, 8)
    assert [each[:14] == PLAIN for each in outbox] == [True, False, False]
    assert all(each[:18] == TAGGED for each in list(outbox)[1:])
    outbox.clear()
    makes.remote.prefix = None
    makes.put(outbox, 0, 0, 0, 0, 0, b"")
    rooms = Rooms(4)
    assert makes.put_data(outbox, rooms, 0, 0, 0, 5, data, 0, 8, 8) == 5
    assert not outbox
    assert not rooms.unsent


def test_buffers_are_used_again_within_bounds() -> None:
    buffers = Buffers()
    first = buffers.take(USED_AGAIN)
    assert len(first) == USED_AGAIN
    buffers.give_back(first)
    assert buffers.take(USED_AGAIN + 1) is not first
    assert buffers.take(USED_AGAIN) is first
    assert buffers.take(USED_AGAIN) is not first
    buffers.give_back(memoryview(bytearray(USED_AGAIN - 1)))
    buffers.give_back(memoryview(bytearray(KEPT_BUFFERS + 1)))
    assert buffers.kept == 0
    for length in range(USED_AGAIN, USED_AGAIN + 1000):
        buffers.give_back(memoryview(bytearray(length)))
        assert buffers.kept == sum(len(each) for free in buffers.free.values() for each in free) <= KEPT_BUFFERS
    assert buffers.kept > KEPT_BUFFERS // 4
