"""Rings of frames that the kernel and we share (packet_mmap): one each way, on one AF_PACKET socket.

TPACKET_V2, not V3: version 3 hands over blocks when they are full or a timer of at least a millisecond has run out, and a
command that waits for a timer is slow. In version 2 each frame can be seen as soon as it is there.
"""

from __future__ import annotations

import mmap
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

BLOCK = 1 << 16
SLOTS_PER_BLOCK = BLOCK // ROOM
RECEIVE_BLOCKS = 128
"""Some 3,600 frames, 8 MiB: class 3 has no other credit than room here."""
TRANSMIT_BLOCKS = 8

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


def _offsets(first: int, blocks: int) -> list[int]:
    return [(first + block) * BLOCK + slot * ROOM for block in range(blocks) for slot in range(SLOTS_PER_BLOCK)]


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
        self.view = memoryview(self.memory)
        self.words = self.view.cast("I")
        self.incoming = [(at // 4, self.view[at + FRAME_IN : at + ROOM]) for at in _offsets(0, RECEIVE_BLOCKS)]
        self.outgoing = [(at // 4, self.view[at + FRAME_OUT : at + ROOM]) for at in _offsets(RECEIVE_BLOCKS, TRANSMIT_BLOCKS)]
        self._outgoing_twice = self.outgoing * 2
        self._reserved: list[tuple[int, memoryview]] = []
        self.limit = 0
        """Bytes that a frame may have; 0: the link is down."""
        self.first = self.next = 0
        """Slots from ``first`` up to ``next`` are ours until the next batch."""
        self.free = 0
        """Where the next frame goes out."""
        self.unsent = 0
        """Frames in slots that the kernel has not looked at."""

    def release(self) -> None:
        """The last batch is done with."""
        words, incoming = self.words, self.incoming
        for each in range(self.first, self.next):
            words[incoming[each][0]] = 0
        self.first = self.next = 0 if self.next == len(incoming) else self.next

    def receive(self) -> list[memoryview]:
        """The next batch; the one before is released."""
        if self.first != self.next:
            self.release()
        words, incoming = self.words, self.incoming
        place = self.next
        end = min(place + BATCH, len(incoming))
        frames: list[memoryview] = []
        octets = 0
        while place < end:
            word, room = incoming[place]
            status = words[word]
            if not status & FOR_USER:
                break
            length = words[word + LENGTH]
            if status != FOR_USER:
                if status & LOSING:
                    self.refresh()
                if status & VLAN_VALID:
                    room = self._with_tag(word, status)
                    length += TAG_LENGTH
            place += 1
            if length > MAX_FRAME_LENGTH:
                self.counters.oversize_frames += 1
                continue
            octets += length
            frames.append(room[:length])
        self.next = place
        if frames:
            self.counters.frames_in += len(frames)
            self.counters.octets_in += octets
        return frames

    def _with_tag(self, word: int, status: int) -> memoryview:
        """Put the tag back that the kernel took out; there is room for it before the frame."""
        begin = word * 4 + FRAME_IN - TAG_LENGTH
        tci, ethertype = _STRIPPED.unpack_from(self.view, word * 4 + TAG)
        view = self.view
        view[begin : begin + 12] = bytes(view[begin + TAG_LENGTH : begin + TAG_LENGTH + 12])
        _TAG.pack_into(view, begin + 12, ethertype if status & VLAN_TPID_VALID else ETHERTYPE_VLAN, tci)
        return view[begin : word * 4 + ROOM]

    def reserve(self, waiting: deque[bytes], count: int, length: int) -> list[memoryview]:
        """Slots for the next frames: see :class:`tcm_fcoe.protocol.fcp_frames.Rooms`."""
        if length > self.limit:
            return []
        if waiting:
            self.fill(waiting)
            if waiting:
                return []
        words, place = self.words, self.free
        slots = self._outgoing_twice[place : place + min(count, len(self.outgoing))]
        rooms = []
        for word, room in slots:
            if words[word]:
                break
            rooms.append(room)
        self._reserved = slots
        return rooms

    def commit(self, count: int, length: int, last: int) -> None:
        """The first of them are filled: see :class:`tcm_fcoe.protocol.fcp_frames.Rooms`."""
        words, slots = self.words, self._reserved
        for word, _ in slots[: count - 1]:
            words[word + LENGTH] = length
            words[word] = SEND_REQUEST
        word = slots[count - 1][0]
        words[word + LENGTH] = last
        words[word] = SEND_REQUEST
        self.free = (self.free + count) % len(self.outgoing)
        self.unsent += count
        counters = self.counters
        counters.frames_out += count
        counters.octets_out += length * (count - 1) + last

    def fill(self, frames: deque[bytes]) -> None:
        """Put frames into free slots."""
        words, outgoing, limit = self.words, self.outgoing, self.limit
        place, slots = self.free, len(self.outgoing)
        count = octets = 0
        while frames:
            word, room = outgoing[place]
            if words[word]:
                break
            frame = frames.popleft()
            length = len(frame)
            if length > limit:
                self.counters.oversize_frames += 1
                continue
            room[:length] = frame
            words[word + LENGTH] = length
            words[word] = SEND_REQUEST
            count += 1
            octets += length
            place += 1
            if place == slots:
                place = 0
        self.free = place
        if count:
            self.unsent += count
            self.counters.frames_out += count
            self.counters.octets_out += octets

    @property
    def full(self) -> bool:
        """The kernel still has the slot that is next."""
        return bool(self.words[self.outgoing[self.free][0]])

    def forget_unsent(self) -> int:
        """Take back what the kernel has not looked at.

        :return: how many frames.
        """
        words, outgoing = self.words, self.outgoing
        count = 0
        while words[outgoing[self.free - 1][0]] == SEND_REQUEST:
            self.free = (self.free or len(outgoing)) - 1
            words[outgoing[self.free][0]] = 0
            count += 1
        self.unsent = 0
        return count

    @property
    def oldest(self) -> int:
        """The slot of the frame that the kernel takes next, of those that wait."""
        words, outgoing = self.words, self.outgoing
        place = self.free
        for _ in outgoing:
            if words[outgoing[place - 1][0]] != SEND_REQUEST:
                break
            place = (place or len(outgoing)) - 1
        return place

    def drop_oldest(self) -> int:
        """The kernel gives that frame back each time: it is lost, and those behind it that are as long; shorter ones stay.

        :return: how many are lost.
        """
        words, place = self.words, self.oldest
        waiting: list[bytes] = []
        for word, room in self._outgoing_twice[place : place + len(self.outgoing)]:
            if words[word] != SEND_REQUEST:
                break
            waiting.append(bytes(room[: words[word + LENGTH]]))
        self.forget_unsent()
        longest = len(waiting[0]) if waiting else 0
        for frame in waiting:
            if len(frame) < longest:
                word, room = self.outgoing[self.free]
                room[: len(frame)] = frame
                words[word + LENGTH] = len(frame)
                words[word] = SEND_REQUEST
                self.free = (self.free + 1) % len(self.outgoing)
                self.unsent += 1
        return len(waiting) - self.unsent

    def refresh(self) -> None:
        """Ask for what was dropped since the last time."""
        self.counters.kernel_drops += _STATISTICS.unpack(self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))[
            1
        ]

    def close(self) -> None:
        """The kernel keeps the socket as long as its memory is mapped: nobody should hold a frame any more."""
        for _, room in (*self.incoming, *self.outgoing):
            room.release()
        self.words.release()
        self.view.release()
        with suppress(BufferError):
            self.memory.close()
