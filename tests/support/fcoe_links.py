"""Frames for tests of links, and what has come of them."""

from __future__ import annotations

import time
from collections import deque

import anyio
from tcm_fcoe.link import Link
from tcm_fcoe.protocol.ethernet import ETHERTYPE_FCOE

FILLING = bytes(range(256)) * 9
NEIGHBOUR = bytes.fromhex("0efd00000102")


def frame(destination: bytes, length: int = 100, tag: bytes = b"", ethertype: int = ETHERTYPE_FCOE, first: int = 0) -> bytes:
    """A frame of so many bytes, with contents that differ by ``first``."""
    header = destination + NEIGHBOUR + tag + ethertype.to_bytes(2, "big")
    return (header + bytes((first,)) + FILLING)[:length]


def received(link: Link, count: int, seconds: float = 60) -> list[bytes]:
    """What comes until there are so many, or nothing for a while; without an event loop."""
    found: list[bytes] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found += [bytes(each) for each in link.receive()]
    return found


def nothing_more(link: Link) -> bool:
    time.sleep(0.05)
    return not link.receive()


def sent(link: Link, *frames: bytes) -> None:
    """All of them, whatever the kernel's room."""
    queue = deque(frames)
    while not link.send(queue):
        time.sleep(0.001)


async def change(link: Link, seconds: float = 60) -> None:
    with anyio.fail_after(seconds):
        await link.wait_change()
