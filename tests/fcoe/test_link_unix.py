"""Links whose frames are datagrams of Unix sockets; no root."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from support.fcoe_links import NEIGHBOUR, change, frame, nothing_more, received, sent
from tcm_fcoe.link import Link, open_link
from tcm_fcoe.protocol.ethernet import ALL_VN2VN_ENODE_MACS, BROADCAST, ETHERTYPE_FIP, MAX_FRAME_LENGTH, insert_tag, vlan_tag

from tcm.failure import ConfigError


def link(folder: Path, ours: str, theirs: str) -> Link:
    return open_link(f"unix:{folder / ours},{folder / theirs}")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Link, Link]]:
    left = link(tmp_path, "a", "b")
    right = link(tmp_path, "b", "a")
    left._look()  # type: ignore[attr-defined]
    yield left, right
    left.close()
    right.close()


def test_frames_of_every_length_tagged_and_not(pair: tuple[Link, Link]) -> None:
    left, right = pair
    frames = [frame(right.address, length, first=length & 0xFF) for length in (60, 64, 1514, 2172, MAX_FRAME_LENGTH)]
    frames += [
        insert_tag(frame(right.address, 2172), vlan_tag(7)),
        insert_tag(frame(right.address, ethertype=ETHERTYPE_FIP), vlan_tag(0)),
    ]
    for each in frames:  # a socket holds some ten datagrams
        sent(left, each)
        assert received(right, 1) == [each]
    assert (left.counters.frames_out, right.counters.frames_in) == (7, 7)


def test_short_frames_are_padded(pair: tuple[Link, Link]) -> None:
    """As a network card does (802.3 clause 4)."""
    left, right = pair
    sent(left, frame(right.address, 42))
    assert received(right, 1) == [frame(right.address, 42).ljust(60, b"\0")]


def test_only_frames_for_us_come_in(pair: tuple[Link, Link]) -> None:
    """The guest's own chatter (ARP, IPv6) and frames to others are left out, tagged or not."""
    left, right = pair
    ours = frame(right.address, first=3)
    sent(
        left,
        frame(BROADCAST, ethertype=0x0806),
        insert_tag(frame(right.address, ethertype=0x0800), vlan_tag(2)),
        frame(NEIGHBOUR),
    )
    sent(left, frame(ALL_VN2VN_ENODE_MACS), insert_tag(frame(NEIGHBOUR), vlan_tag(2)), ours)
    assert received(right, 1) == [ours]
    right.set_addresses(frozenset({ALL_VN2VN_ENODE_MACS, NEIGHBOUR}))
    sent(left, frame(ALL_VN2VN_ENODE_MACS), frame(BROADCAST), frame(NEIGHBOUR))
    assert received(right, 2) == [frame(ALL_VN2VN_ENODE_MACS), frame(NEIGHBOUR)]
    assert nothing_more(right)


def test_promiscuous(tmp_path: Path) -> None:
    left = link(tmp_path, "a", "b")
    right = open_link(f"unix:{tmp_path / 'b'},{tmp_path / 'a'}", promiscuous=True)
    left._look()  # type: ignore[attr-defined]
    sent(left, frame(NEIGHBOUR), frame(NEIGHBOUR, ethertype=0x0800))
    assert received(right, 1) == [frame(NEIGHBOUR)]
    left.close()
    right.close()


def test_datagrams_that_are_no_frames(tmp_path: Path) -> None:
    """Of any length, also none: nothing comes of them."""
    right = link(tmp_path, "b", "a")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.connect(str(tmp_path / "b"))
        for length in (0, 1, 13, 14, 16):
            stranger.send(frame(right.address, 100)[:length])
        assert [len(each) for each in received(right, 3, seconds=0.2)] == [14, 16]
        stranger.send((frame(right.address, 200) + bytes(3000))[:2177])
        stranger.send(frame(right.address, first=2))
        assert received(right, 1) == [frame(right.address, first=2)]
    assert right.counters.oversize_frames == 1
    right.close()


@pytest.mark.anyio
async def test_the_peer_comes_late_goes_and_comes_again(tmp_path: Path) -> None:
    left = link(tmp_path, "a", "b")
    assert not left.up
    sent(left, frame(BROADCAST))
    assert left.counters.discarded_frames == 1
    for times in range(2):
        right = link(tmp_path, "b", "a")
        await change(left)
        assert (left.up, left.downs) == (True, times)
        sent(left, frame(right.address))
        assert received(right, 1) == [frame(right.address)]
        sent(right, frame(left.address))
        with anyio.fail_after(60):
            await left.wait_readable()
        assert received(left, 1) == [frame(left.address)]
        right.close()
        await change(left)
        assert (left.up, left.downs) == (False, times + 1)
    left.close()


@pytest.mark.anyio
async def test_another_peer_in_its_place(tmp_path: Path) -> None:
    """A guest that was started again: down and up, though somebody was there at every look."""
    left = link(tmp_path, "a", "b")
    first = link(tmp_path, "b", "a")
    await change(left)
    first.sock.close()  # type: ignore[attr-defined] # without taking its path away
    first.sender.close()  # type: ignore[attr-defined]
    (tmp_path / "b").unlink()
    second = link(tmp_path, "b", "a")
    await change(left)
    assert (left.up, left.downs) == (True, 1)
    sent(left, frame(second.address))
    assert received(second, 1) == [frame(second.address)]
    for each in (left, first, second):
        each.close()


def test_the_peer_dies_while_we_send(pair: tuple[Link, Link]) -> None:
    left, right = pair
    right.close()
    sent(left, frame(right.address), frame(right.address))
    assert (left.up, left.downs, left.counters.discarded_frames) == (False, 1, 2)
    assert not left.receive()


@pytest.mark.anyio
async def test_backpressure(pair: tuple[Link, Link]) -> None:
    """A peer that does not read: what the kernel does not take stays ours, in order."""
    left, right = pair
    queue = deque(frame(right.address, 2172, first=at) for at in range(200))
    wanted = list(queue)
    assert not left.send(queue)
    assert 100 < len(queue) < 200
    found: list[bytes] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                while not left.send(queue):
                    await left.wait_writable()

            tasks.start_soon(send)
            while len(found) < 200:
                await right.wait_readable()
                found += [bytes(each) for each in right.receive()]
    assert found == wanted
    assert left.counters.congestions


def test_addresses_stay_the_same_and_differ(tmp_path: Path) -> None:
    addresses = []
    for ours, theirs in (("a", "b"), ("a", "b"), ("c", "d")):
        made = link(tmp_path, ours, theirs)
        addresses.append(made.address)
        made.close()
    assert addresses[0] == addresses[1] != addresses[2]
    assert all(each[0] & 3 == 2 for each in addresses), "locally administered, unicast"
    given = open_link(f"unix:{tmp_path / 'a'},{tmp_path / 'b'}", address=NEIGHBOUR)
    assert given.address == NEIGHBOUR
    given.close()


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as refused:
        open_link(name)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", ["unix:", "unix:a", "unix:,b", "unix:a,", "unix:a,a", "unix:a,b,c"])
def test_names_that_are_wrong(name: str) -> None:
    assert f"--interface {name}: write unix:LOCAL,PEER" in refusal(name)


def test_paths_that_will_not_do(tmp_path: Path) -> None:
    assert "at most 107 bytes" in refusal(f"unix:{tmp_path / ('x' * 108)},{tmp_path / 'b'}")
    assert "its folder does not exist" in refusal(f"unix:{tmp_path / 'no' / 'a'},{tmp_path / 'b'}")
    (tmp_path / "file").write_text("mine")
    assert "something else is there" in refusal(f"unix:{tmp_path / 'file'},{tmp_path / 'b'}")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_path_in_use_and_one_left_behind(tmp_path: Path) -> None:
    """A live socket is not taken over; what a killed program has left is."""
    live = link(tmp_path, "a", "b")
    assert "something else is there" in refusal(f"unix:{tmp_path / 'a'},{tmp_path / 'b'}")
    live.sock.close()  # type: ignore[attr-defined] # as a kill leaves it
    again = link(tmp_path, "a", "b")
    live.close()
    assert (tmp_path / "a").exists()
    again.close()
    again.close()
    assert not (tmp_path / "a").exists()
