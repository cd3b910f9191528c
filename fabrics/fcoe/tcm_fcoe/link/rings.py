"""Rings of frames that the kernel and we share (packet_mmap): one each way, on one AF_PACKET socket.

TPACKET_V2, not V3: version 3 hands over blocks when they are full or a timer of at least a millisecond has run out, and a
command that waits for a timer is slow. In version 2 each frame can be seen as soon as it is there.

All slots are equally far from each other, also across blocks, so that one view with a step has the status words of all of them:
those of a batch are read, and written, at once.
"""

from __future__ import annotations

import mmap
from array import array
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING

from tcm_fcoe.link.base import BATCH, ROOM
from tcm_fcoe.protocol.ethernet import ETHERTYPE_VLAN, MAX_FRAME_LENGTH, TAG_LENGTH

if TYPE_CHECKING:
    import socket
    from collections import deque

    from tcm_fcoe.link.base import LinkCounters

SOL_PACKET = 263
PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, PACKET_RESERVE, PACKET_TX_RING, PACKET_LOSS = 5, 6, 10, 12, 13, 14
TPACKET_V2 = 1
FOR_USER, LOSING, VLAN_VALID, VLAN_TPID_VALID = 0x1, 0x4, 0x10, 0x40
SEND_REQUEST = 1

BLOCK = 63 * mmap.PAGESIZE
"""Bytes: whole pages and whole slots, and all but a 64th of what the kernel has in one piece."""
SLOTS_PER_BLOCK = BLOCK // ROOM
RECEIVE_BLOCKS = max(1, 3584 // SLOTS_PER_BLOCK)
"""Some 3,600 frames, 8 MiB: class 3 has no other credit than room here."""
TRANSMIT_BLOCKS = max(1, 224 // SLOTS_PER_BLOCK)
STEP = ROOM // 4
"""From slot to slot, in words of 32 bits."""
LOOK = 16
"""Slots whose status is looked at at a time."""

# struct tpacket2_hdr: status, length on the wire, length here, offsets, time (two words), tag, EtherType of the tag
LENGTH = 1
"""In words of 32 bits."""
TAG = 24
"""In bytes."""
HEADER = 52
"""struct tpacket2_hdr, aligned, and struct sockaddr_ll."""
FRAME_IN = 80 + TAG_LENGTH - 14
"""Where a frame is in its slot: the network header is 16 bytes after the header, aligned to 16, and after what we reserve."""
FRAME_OUT = 32

_GEOMETRY = Struct("IIII")
_STATISTICS = Struct("II")
_STRIPPED = Struct("=HH")
_TAG = Struct(">HH")


def _geometry(blocks: int) -> bytes:
    return _GEOMETRY.pack(BLOCK, blocks, ROOM, blocks * SLOTS_PER_BLOCK)


class Rings:
    """Both rings of one socket, which is not bound yet.

    :raises OSError: no memory for them, or a kernel without them.
    """

    def __init__(self, sock: socket.socket, counters: LinkCounters) -> None:
        self.sock = sock
        self.counters = counters
        for option, value in ((PACKET_VERSION, TPACKET_V2), (PACKET_RESERVE, TAG_LENGTH), (PACKET_LOSS, 1)):
            sock.setsockopt(SOL_PACKET, option, value)
        sock.setsockopt(SOL_PACKET, PACKET_RX_RING, _geometry(RECEIVE_BLOCKS))
        sock.setsockopt(SOL_PACKET, PACKET_TX_RING, _geometry(TRANSMIT_BLOCKS))
        self.memory = mmap.mmap(sock.fileno(), (RECEIVE_BLOCKS + TRANSMIT_BLOCKS) * BLOCK)
        self.view = view = memoryview(self.memory)
        self.words = words = view.cast("I")
        begin, end = RECEIVE_BLOCKS * BLOCK, len(view)
        self.incoming = [view[at + FRAME_IN : at + ROOM] for at in range(0, begin, ROOM)]
        self.outgoing = [view[at + FRAME_OUT : at + ROOM] for at in range(begin, end, ROOM)]
        self._statuses_in, self._lengths_in = words[: begin // 4 : STEP], words[LENGTH : begin // 4 : STEP]
        self._statuses_out, self._lengths_out = words[begin // 4 :: STEP], words[begin // 4 + LENGTH :: STEP]
        self._zeros = memoryview(array("I", bytes(4 * BATCH)))
        self._requests = memoryview(array("I", (SEND_REQUEST,)) * len(self.outgoing))
        self._outgoing_twice = self.outgoing * 2
        self.limit = 0
        """Bytes that a frame may have; 0: the link is down."""
        self.first = self.next = 0
        """Slots from ``first`` up to ``next`` are ours until the next batch."""
        self.free = 0
        """Where the next frame goes out."""
        self._room = 0
        """Slots from there on, perhaps past the end of the ring, of which we know that they are free."""
        self._made: list[int] = []
        """Lengths of the frames right before ``free`` that the kernel may not look at yet."""
        self.unsent = 0
        """Frames in slots that the kernel has not looked at."""

    def release(self) -> None:
        """The last batch is done with."""
        first, after = self.first, self.next
        self._statuses_in[first:after] = self._zeros[: after - first]
        self.first = self.next = 0 if after == len(self.incoming) else after

    def receive(self) -> list[memoryview]:
        """The next batch; the one before is released."""
        if self.first != self.next:
            self.release()
        place, statuses = self.next, self._statuses_in
        if not statuses[place] & FOR_USER:
            return []
        found: list[int] = []
        end = min(place + BATCH, len(statuses))
        while place < end:
            some = statuses[place : min(place + LOOK, end)].tolist()
            if 0 in some:
                found += some[: some.index(0)]
                break
            found += some
            place += LOOK
        place = self.next
        self.next = place = place + len(found)
        lengths = self._lengths_in[self.first : place].tolist()
        rooms = self.incoming[self.first : place]
        if found.count(FOR_USER) == len(found) and max(lengths) <= MAX_FRAME_LENGTH:
            frames = [room[:length] for room, length in zip(rooms, lengths, strict=True)]
        else:
            frames = self._unusual(found, lengths)
        counters = self.counters
        counters.frames_in += len(frames)
        counters.octets_in += sum(map(len, frames)) if len(frames) < len(lengths) else sum(lengths)
        return frames

    def _unusual(self, statuses: list[int], lengths: list[int]) -> list[memoryview]:
        """A batch with frames that are too long, had a tag, or came behind others that were lost."""
        frames = []
        if any(status & LOSING for status in statuses):
            self.refresh()
        for slot, (status, length) in enumerate(zip(statuses, lengths, strict=True), self.first):
            tagged = bool(status & VLAN_VALID)
            if length + TAG_LENGTH * tagged > MAX_FRAME_LENGTH:
                self.counters.oversize_frames += 1
            elif tagged:
                frames.append(self._with_tag(slot * ROOM, status)[: length + TAG_LENGTH])
            else:
                frames.append(self.incoming[slot][:length])
        return frames

    def _with_tag(self, slot: int, status: int) -> memoryview:
        """Put the tag back that the kernel took out; there is room for it before the frame."""
        begin = slot + FRAME_IN - TAG_LENGTH
        tci, ethertype = _STRIPPED.unpack_from(self.view, slot + TAG)
        view = self.view
        view[begin : begin + 12] = bytes(view[begin + TAG_LENGTH : begin + TAG_LENGTH + 12])
        _TAG.pack_into(view, begin + 12, ethertype if status & VLAN_TPID_VALID else ETHERTYPE_VLAN, tci)
        return view[begin : slot + ROOM]

    def _look(self) -> int:
        """How many slots are free from :attr:`free` on."""
        free, slots = self.free, len(self.outgoing)
        statuses = self._statuses_out.tolist()
        room = 0
        # what has been made is ours still, and says nothing
        for at in range(free, free + slots - len(self._made)):
            if statuses[at - slots if at >= slots else at]:
                break
            room += 1
        self._room = room
        return room

    def reserve(self, waiting: deque[bytes], count: int, length: int) -> list[memoryview]:
        """Slots for the next frames: see :class:`tcm_fcoe.protocol.fcp_frames.Rooms`."""
        if length > self.limit:
            return []
        if waiting:
            self.fill(waiting)
            if waiting:
                return []
        if count > self._room and count > self._look():
            count = self._room
        free = self.free
        return self._outgoing_twice[free : free + count]

    def commit(self, lengths: list[int]) -> None:
        """The first of them are filled: see :class:`tcm_fcoe.protocol.fcp_frames.Rooms`."""
        count = len(lengths)
        self._made += lengths
        self._room -= count
        self.unsent += count
        self.free = free = self.free + count
        if free >= len(self.outgoing):
            self.free = free - len(self.outgoing)

    def fill(self, frames: deque[bytes]) -> None:
        """Put frames into free slots."""
        outgoing, limit = self._outgoing_twice, self.limit
        made: list[int] = []
        place = self.free
        room = self._room if self._room >= len(frames) else self._look()
        while frames and len(made) < room:
            frame = frames.popleft()
            length = len(frame)
            if length > limit:
                self.counters.oversize_frames += 1
                continue
            outgoing[place][:length] = frame
            made.append(length)
            place += 1
        self.commit(made)

    def request(self) -> None:
        """All frames that have been made are for the kernel from now on."""
        lengths = self._made
        count = len(lengths)
        if not count:
            return
        counters = self.counters
        counters.frames_out += count
        counters.octets_out += sum(lengths)
        words = memoryview(array("I", lengths))
        slots = len(self.outgoing)
        begin = self.free - count
        if begin < 0:  # the last of them are at the beginning of the ring
            self._lengths_out[slots + begin :] = words[:-begin]
            self._statuses_out[slots + begin :] = self._requests[:-begin]
            words, count, begin = words[-begin:], count + begin, 0
        self._lengths_out[begin : begin + count] = words
        self._statuses_out[begin : begin + count] = self._requests[:count]
        self._made = []

    @property
    def full(self) -> bool:
        """The kernel still has the slot that is next."""
        return not (self._room or self._look())

    def forget_unsent(self) -> int:
        """Take back what the kernel has not looked at.

        :return: how many frames.
        """
        statuses = self._statuses_out
        count = len(self._made)
        self.free = (self.free - count) % len(statuses)
        self._made = []
        while statuses[self.free - 1] == SEND_REQUEST:
            self.free = (self.free or len(statuses)) - 1
            statuses[self.free] = 0
            count += 1
        self.unsent = self._room = 0
        return count

    @property
    def oldest(self) -> int:
        """The slot of the frame that the kernel takes next, of those that wait."""
        statuses = self._statuses_out
        place = (self.free - len(self._made)) % len(statuses)
        for _ in statuses:
            if statuses[place - 1] != SEND_REQUEST:
                break
            place = (place or len(statuses)) - 1
        return place

    def drop_oldest(self) -> int:
        """The kernel gives that frame back each time: it is lost, and those behind it that are as long; shorter ones stay.

        :return: how many are lost.
        """
        self.request()
        statuses, lengths, slots = self._statuses_out, self._lengths_out, len(self.outgoing)
        place = self.oldest
        waiting: list[bytes] = []
        while len(waiting) < slots and statuses[place] == SEND_REQUEST:
            waiting.append(bytes(self.outgoing[place][: lengths[place]]))
            place = (place + 1) % slots
        self.forget_unsent()
        longest = len(waiting[0]) if waiting else 0
        for frame in waiting:
            if len(frame) < longest:
                self.outgoing[self.free][: len(frame)] = frame
                lengths[self.free] = len(frame)
                statuses[self.free] = SEND_REQUEST
                self.free = (self.free + 1) % slots
                self.unsent += 1
        return len(waiting) - self.unsent

    def refresh(self) -> None:
        """Ask for what was dropped since the last time."""
        self.counters.kernel_drops += _STATISTICS.unpack(self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))[
            1
        ]

    def close(self) -> None:
        """The kernel keeps the socket as long as its memory is mapped: nobody should hold a frame any more."""
        for each in (*self.incoming, *self.outgoing):
            each.release()
        for each in (self._statuses_in, self._lengths_in, self._statuses_out, self._lengths_out, self.words):
            each.release()
        self.view.release()
        with suppress(BufferError):
            self.memory.close()
