"""AF_PACKET links over a cable between two interfaces in a network namespace of the test's own (root).

Longer than most files because all that may happen to an interface is told over the same cable.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import anyio
import pytest
from support.fcoe_links import NEIGHBOUR, change, frame, nothing_more, received, sent
from support.namespaces import Namespace, namespace
from tcm_fcoe.link import Link, open_link
from tcm_fcoe.link.interface import parse_frame_check_errors
from tcm_fcoe.link.rings import RECEIVE_BLOCKS, SLOTS_PER_BLOCK, TRANSMIT_BLOCKS
from tcm_fcoe.protocol.ethernet import (
    ALL_FCF_MACS,
    ALL_VN2VN_ENODE_MACS,
    BROADCAST,
    ETHERTYPE_FIP,
    MAX_FRAME_LENGTH,
    insert_tag,
    vlan_tag,
)

LENGTHS = (60, 61, 64, 100, 1514, 2172, MAX_FRAME_LENGTH)


@dataclass
class Cable:
    """Two interfaces, ``left`` and ``right``, and a link on each."""

    ns: Namespace
    left: Link
    right: Link


@pytest.fixture
def ns() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


@pytest.fixture
def cable(ns: Namespace) -> Iterator[Cable]:
    ns.cable("left", "right")
    with ns.inside():
        left, right = open_link("left"), open_link("right")
    yield Cable(ns, left, right)
    left.close()
    right.close()


def test_frames_of_every_length(cable: Cable) -> None:
    frames = [frame(cable.right.address, length, first=length & 0xFF) for length in LENGTHS]
    sent(cable.left, *frames)
    assert received(cable.right, len(frames)) == frames
    assert nothing_more(cable.left), "it hears itself"
    assert cable.left.counters.frames_out == cable.right.counters.frames_in == len(frames)
    assert cable.left.counters.octets_out == cable.right.counters.octets_in == sum(LENGTHS)


def test_frame_check_errors_are_those_that_the_kernel_counts(cable: Cable) -> None:
    """``rx_crc_errors`` of ``rtnl_link_stats64``, of which a virtual cable has none."""
    assert cable.left.monitor.frame_check_errors(cable.left.index) == 0  # type: ignore[attr-defined]  # an AF_PACKET link
    cable.left.refresh()
    assert cable.left.counters.frame_check_errors == 0
    statistics = struct.pack("=25Q", *range(100, 125))
    name = struct.pack("=HH8s", 4 + 5, 3, b"left")
    attributes = name + struct.pack("=HH", 4 + len(statistics), 23) + statistics
    newlink = struct.pack("=IHHII", 32 + len(attributes), 16, 0, 1, 0) + bytes(16) + attributes
    assert parse_frame_check_errors(newlink) == 112
    for length in range(len(newlink)):
        assert parse_frame_check_errors(newlink[:length]) in {0, 112}
    assert parse_frame_check_errors(newlink[:4] + b"\x02\0" + newlink[6:]) == 0, "an error message"
    cable.ns.ip("link", "del", "left")
    cable.left.refresh()
    assert cable.left.counters.frame_check_errors == 0


@pytest.mark.parametrize("vlan", [0, 1, 100, 4094])
def test_tagged_frames_are_as_on_the_wire(cable: Cable, vlan: int) -> None:
    """The kernel takes the tag out on reception; the link puts it back, priority and all (802.1Q clause 9)."""
    plain = [frame(cable.right.address, length - 4, first=7) for length in LENGTHS if length > 70]
    tagged = [insert_tag(each, vlan_tag(vlan, 5)) for each in plain]
    sent(cable.left, *tagged, plain[0], tagged[0])
    assert received(cable.right, len(tagged) + 2) == [*tagged, plain[0], tagged[0]]


def test_what_else_is_on_the_wire_does_not_come_in(cable: Cable) -> None:
    """Other EtherTypes, tagged or not, and frames to others: neither wakes us."""
    ours = cable.right.address
    sent(
        cable.left,
        frame(ours, ethertype=0x0800),
        insert_tag(frame(ours, ethertype=0x86DD), vlan_tag(3)),
        frame(ours, ethertype=0x88A8),
        frame(NEIGHBOUR),
        frame(ALL_FCF_MACS, ethertype=ETHERTYPE_FIP),
        frame(BROADCAST),
        frame(ours, first=1),
    )
    assert received(cable.right, 1) == [frame(ours, first=1)]
    assert nothing_more(cable.right)
    assert cable.right.counters.frames_in == 1


def test_addresses(cable: Cable) -> None:
    """Multicast groups and addresses of ours: the hardware's filter is told, and forgets what we no longer want."""
    ours = bytes.fromhex("0efd00001234")
    frames = [
        frame(address, ethertype=ETHERTYPE_FIP) for address in (ALL_VN2VN_ENODE_MACS, ours, cable.right.address, NEIGHBOUR)
    ]
    cable.right.set_addresses(frozenset({ALL_VN2VN_ENODE_MACS, ours}))
    assert ALL_VN2VN_ENODE_MACS.hex(":") in cable.ns.ip("maddress", "show", "dev", "right")
    sent(cable.left, *frames)
    assert received(cable.right, 3) == frames[:3]
    cable.right.set_addresses(frozenset())
    assert ALL_VN2VN_ENODE_MACS.hex(":") not in cable.ns.ip("maddress", "show", "dev", "right")
    sent(cable.left, *frames)
    assert received(cable.right, 1) == [frames[2]]
    assert nothing_more(cable.right)


def test_many_addresses(cable: Cable) -> None:
    """As an FCF with many N_Ports has them: past what the filter holds all pass, which is no harm."""
    ours = [b"\x0e\xfc\x00" + number.to_bytes(3, "big") for number in range(600)]
    for count in (512 - 1, 600):
        cable.right.set_addresses(frozenset(ours[:count]))
        frames = [frame(ours[at]) for at in (0, count // 2, count - 1)]
        sent(cable.left, *frames)
        assert received(cable.right, 3) == frames


def test_promiscuous_only_when_asked(ns: Namespace) -> None:
    ns.cable("left", "right")
    with ns.inside():
        left = open_link("left")
        right = open_link("right")
        right.set_addresses(frozenset({ALL_FCF_MACS}))
        assert "promiscuity 0" in ns.ip("-d", "link", "show", "right")
        curious = open_link("right", promiscuous=True)
    assert "promiscuity 1" in ns.ip("-d", "link", "show", "right")
    anybody = frame(bytes.fromhex("0efc00abcdef"))
    sent(left, anybody)
    assert received(curious, 1) == [anybody]
    assert nothing_more(right)
    for each in (left, right, curious):
        each.close()
    assert "promiscuity 0" in ns.ip("-d", "link", "show", "right")


def test_batches_around_the_ring(cable: Cable) -> None:
    """Three times around, in batches that end anywhere; every frame once, in order."""
    count = 3 * RECEIVE_BLOCKS * SLOTS_PER_BLOCK
    found = 0
    for begin in range(0, count, 149):
        frames = [frame(cable.right.address, 60 + (begin + at) % 300, first=at) for at in range(149)]
        sent(cable.left, *frames)
        assert received(cable.right, 149) == frames
        found += 149
    assert cable.right.counters.frames_in == found
    cable.right.refresh()
    assert cable.right.counters.kernel_drops == 0


def test_more_than_the_ring_holds_is_counted(cable: Cable) -> None:
    """Nobody reads: what no longer fits is lost, and the kernel's count of it is ours."""
    room = RECEIVE_BLOCKS * SLOTS_PER_BLOCK
    sent(cable.left, *(frame(cable.right.address, first=at & 0xFF) for at in range(room + 50)))
    found = received(cable.right, room + 1, seconds=1)
    cable.right.refresh()
    assert len(found) + cable.right.counters.kernel_drops == room + 50
    assert 0 < cable.right.counters.kernel_drops <= 51
    sent(cable.left, frame(cable.right.address, first=9))
    assert received(cable.right, 1) == [frame(cable.right.address, first=9)], "and it goes on"


def test_frames_that_do_not_fit(cable: Cable) -> None:
    """Longer than any FCoE frame, or than the interface's MTU: dropped and counted, those behind go out."""
    last = frame(cable.right.address, first=5)
    sent(cable.left, frame(cable.right.address, 2172) + bytes(200), last)
    assert received(cable.right, 1) == [last]
    assert cable.left.counters.oversize_frames == 1
    with cable.ns.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("left", 0))
        raw.send(frame(cable.right.address, 2172) + bytes(200))
    sent(cable.left, last)
    assert received(cable.right, 1) == [last]
    assert cable.right.counters.oversize_frames == 1


@pytest.mark.anyio
async def test_waiting_for_frames(cable: Cable) -> None:
    """Asleep until a frame comes, and after it asleep again."""
    for first in range(3):
        with anyio.move_on_after(0.1) as idle:
            await cable.right.wait_readable()
        assert idle.cancelled_caught, "nothing had come"
        sent(cable.left, frame(cable.right.address, first=first))
        with anyio.fail_after(60):
            await cable.right.wait_readable()
        assert received(cable.right, 1) == [frame(cable.right.address, first=first)]


@pytest.mark.anyio
async def test_backpressure(ns: Namespace) -> None:
    """A queue that drains slowly takes what it can; nothing that was taken is lost, and the rest stays ours."""
    ns.cable("left", "right")
    ns.tc("qdisc", "add", "dev", "left", "root", "tbf", "rate", "20mbit", "burst", "8k", "limit", "30000")
    with ns.inside():
        left, right = open_link("left"), open_link("right")
    count = 3 * TRANSMIT_BLOCKS * SLOTS_PER_BLOCK
    queue = deque(frame(right.address, 1000, first=at & 0xFF) for at in range(count))
    wanted = list(queue)
    found: list[bytes] = []
    with anyio.fail_after(90):
        while not left.send(queue):
            await left.wait_writable()
            found += [bytes(each) for each in right.receive()]
        found += received(right, count - len(found))
    assert found == wanted
    assert left.counters.congestions
    left.close()
    right.close()


@pytest.mark.anyio
async def test_a_frame_that_the_other_end_of_the_cable_does_not_take(cable: Cable) -> None:
    """Its MTU has become smaller: the kernel gives such a frame back each time. Those behind it must not wait for ever."""
    cable.ns.ip("link", "set", "right", "mtu", "1500")
    small = [frame(cable.right.address, length) for length in (60, 1000, 1514)]
    waiting = deque([frame(cable.right.address, 2000), small[0], frame(cable.right.address, 2176), *small[1:]])
    with anyio.fail_after(60):
        while not cable.left.send(waiting):
            await cable.left.wait_writable()
    assert received(cable.right, len(small)) == small
    assert nothing_more(cable.right)
    assert cable.left.counters.discarded_frames == 2
    sent(cable.left, small[0])
    assert received(cable.right, 1) == small[:1]


@pytest.mark.anyio
async def test_link_down_and_up(cable: Cable) -> None:
    """The other end goes: down on both sides. Frames are discarded meanwhile and none of them comes late."""
    late = frame(cable.right.address, first=1)
    cable.ns.ip("link", "set", "right", "down")
    await change(cable.left)
    await change(cable.right)
    assert (cable.left.up, cable.right.up) == (False, False)
    sent(cable.left, late)
    assert cable.left.counters.discarded_frames == 1
    assert not cable.right.receive()
    cable.ns.ip("link", "set", "right", "up")
    await change(cable.left)
    await change(cable.right)
    assert (cable.left.up, cable.right.up, cable.left.downs) == (True, True, 1)
    sent(cable.left, frame(cable.right.address))
    assert received(cable.right, 1) == [frame(cable.right.address)]
    with anyio.move_on_after(0.2) as idle:
        await cable.right.wait_readable()
        await cable.right.wait_readable()
    assert idle.cancelled_caught, "the error of the past is not read again and again"


@pytest.mark.anyio
async def test_sending_before_the_news(cable: Cable) -> None:
    """The kernel refuses before the monitor has been asked: the link goes down, what was queued is discarded."""
    cable.ns.ip("link", "set", "left", "down")
    queue = deque([frame(cable.right.address)] * 3)
    assert cable.left.send(queue)
    assert (cable.left.up, cable.left.downs, len(queue), cable.left.counters.discarded_frames) == (False, 1, 0, 3)
    await change(cable.left)
    cable.ns.ip("link", "set", "left", "up")
    while not cable.left.up:
        await change(cable.left)
    assert cable.left.downs == 1
    assert nothing_more(cable.right)


@pytest.mark.anyio
async def test_a_short_outage_is_noticed(cable: Cable) -> None:
    """Up again before anybody looked: still one more time down."""
    cable.ns.ip("link", "set", "right", "down")
    cable.ns.ip("link", "set", "right", "up")
    await change(cable.left)
    while not cable.left.up:  # the kernel may tell of both later
        await change(cable.left)
    assert cable.left.downs == 1


@pytest.mark.anyio
async def test_the_interface_disappears_and_comes_back(cable: Cable) -> None:
    """No crash, no frame: an interface of the same name later takes its place, with its own address and our groups."""
    cable.right.set_addresses(frozenset({ALL_VN2VN_ENODE_MACS}))
    before = cable.right.address
    cable.ns.ip("link", "del", "left")
    await change(cable.left)
    await change(cable.right)
    assert (cable.left.up, cable.right.up) == (False, False)
    sent(cable.right, frame(BROADCAST))
    assert not cable.right.receive()
    cable.ns.cable("left", "right")
    for link in (cable.left, cable.right):
        while not link.up:
            await change(link)
    assert cable.right.address != before
    sent(cable.left, frame(cable.right.address), frame(ALL_VN2VN_ENODE_MACS), frame(before))
    assert received(cable.right, 2) == [frame(cable.right.address), frame(ALL_VN2VN_ENODE_MACS)]
    assert nothing_more(cable.right)
    assert ALL_VN2VN_ENODE_MACS.hex(":") in cable.ns.ip("maddress", "show", "dev", "right")


@pytest.mark.anyio
async def test_mtu_and_address_change(cable: Cable) -> None:
    cable.ns.ip("link", "set", "left", "mtu", "1500")
    await change(cable.left)
    assert cable.left.mtu == 1500
    cable.ns.ip("link", "set", "left", "address", "52:54:00:00:00:99")
    await change(cable.left)
    assert cable.left.address == bytes.fromhex("525400000099")
    sent(cable.right, frame(cable.left.address))
    assert received(cable.left, 1) == [frame(cable.left.address)]


@pytest.mark.anyio
async def test_mtu_that_carries_no_frames(cable: Cable) -> None:
    """Made so small while it runs: the link is down, and says why; made large again it is up."""
    cable.ns.ip("link", "set", "left", "mtu", "200")
    await change(cable.left)
    assert (cable.left.up, cable.left.downs, cable.left.mtu) == (False, 1, 200)
    assert cable.left.notices[0].startswith("--interface left: MTU 200 carries no FC frame")
    cable.ns.ip("link", "set", "left", "mtu", "1500")
    await change(cable.left)
    assert (cable.left.up, cable.left.downs) == (True, 1)
    assert "MTU 1500 is too small for full FC frames" in cable.left.notices[0]
    cable.ns.ip("link", "set", "left", "mtu", "2500")
    await change(cable.left)
    assert cable.left.notices == ()


@pytest.mark.anyio
async def test_sender_and_receiver_at_full_speed(cable: Cable) -> None:
    """20,000 full frames, numbered, between two tasks of one event loop."""
    count = 20_000
    made = frame(cable.right.address, 2172)
    queue: deque[bytes] = deque()

    async def send() -> None:
        number = 0
        while number < count:
            queue.extend(made[:16] + struct.pack(">I", number + at) + made[20:] for at in range(50))
            number += 50
            while not cable.left.send(queue):
                await cable.left.wait_writable()
            await anyio.lowlevel.checkpoint()

    expected = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        with anyio.fail_after(30):
            while expected < count:
                frames = cable.right.receive()
                for each in frames:
                    assert (len(each), struct.unpack_from(">I", each, 16)[0]) == (2172, expected)
                    expected += 1
                if not frames:
                    await cable.right.wait_readable()


def test_frames_made_in_the_ring(cable: Cable) -> None:
    """Behind those that wait, in order, more often than there are slots; the longest as the shortest."""
    rooms = cable.left.rooms
    assert rooms is not None
    slots = TRANSMIT_BLOCKS * SLOTS_PER_BLOCK
    number = 0
    for count in (1, 5, 64, 3, 100, 100, 100):
        waiting = deque([frame(cable.right.address, 61, first=number & 0xFF)])
        places = rooms.reserve(waiting, count, MAX_FRAME_LENGTH)
        assert len(places) == count
        assert not waiting
        made = [frame(cable.right.address, MAX_FRAME_LENGTH, first=number + n & 0xFF) for n in range(1, count)]
        made.append(frame(cable.right.address, 60, first=number + count & 0xFF))
        for place, each in zip(places, made, strict=True):
            place[: len(each)] = each
        rooms.commit([MAX_FRAME_LENGTH] * (count - 1) + [60])
        assert rooms.unsent == count + 1
        assert cable.left.send(waiting)
        assert rooms.unsent == 0
        assert received(cable.right, count + 1) == [frame(cable.right.address, 61, first=number & 0xFF), *made]
        number += count
    assert cable.left.counters.frames_out == number + 7
    assert len(rooms.reserve(deque(), 2 * slots, 100)) == slots
    assert not rooms.reserve(deque(), 1, MAX_FRAME_LENGTH + 1)


@pytest.mark.anyio
async def test_no_frames_are_made_for_a_link_that_is_down(cable: Cable) -> None:
    rooms = cable.left.rooms
    assert rooms is not None
    (place,) = rooms.reserve(deque(), 1, 100)
    place[:100] = frame(cable.right.address)
    rooms.commit([100])
    cable.ns.ip("link", "set", "right", "down")
    await change(cable.left)
    assert not cable.left.up
    assert not rooms.reserve(deque(), 1, 100)
    assert cable.left.send(deque())
    assert rooms.unsent == 0
    assert cable.left.counters.discarded_frames == 1
    cable.ns.ip("link", "set", "right", "up")
    await change(cable.left)
    assert len(rooms.reserve(deque(), 1, 100)) == 1
    sent(cable.left, frame(cable.right.address, first=9))
    assert received(cable.right, 1) == [frame(cable.right.address, first=9)]
