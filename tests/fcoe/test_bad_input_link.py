"""Bad input over a real link: a target as tcm-run makes it, and somebody else on the wire while an initiator works."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from support.fcoe_site import fcoe_site

pytestmark = pytest.mark.anyio
CRC_FROM = 28
"""Bytes of an untagged frame before the FC header."""
SECONDS_HELD = 1.0
"""Processor time for which the event loop is another's at most."""


def nonsense(seen: list[bytes], chance: random.Random) -> bytes:
    """An FCoE frame that went by, cut, longer, with a wrong byte, or from elsewhere; or none at all, FIP too."""
    frame = bytearray(chance.choice(seen))
    kind = chance.randrange(5)
    if kind == 0:
        return bytes(frame[: chance.randrange(len(frame))])
    if kind == 1:
        return bytes(frame) + chance.randbytes(chance.randrange(1, 500))
    if kind == 2:
        frame[chance.randrange(CRC_FROM, len(frame) - 4)] ^= chance.randrange(1, 256)
        return bytes(frame)
    if kind == 3:
        return bytes(frame[:6]) + b"\2" + chance.randbytes(5) + bytes(frame[12:])
    return bytes(frame[:12]) + chance.choice((b"\x89\x06", b"\x89\x14", b"\x81\0")) + chance.randbytes(chance.randrange(200))


@pytest.mark.parametrize("mode, theirs", [("vn2vn", "vn2vn"), ("fcf", "fabric"), ("p2p", "p2p")])
async def test_nonsense_while_others_work(tmp_path: Path, mode: str, theirs: str) -> None:
    chance = random.Random(mode)
    seen: list[bytes] = []
    async with fcoe_site(tmp_path, mode=mode) as site:
        server = site.fabric.interfaces[0]
        take = server.take

        def listen(frames: Iterable[memoryview], now: float) -> None:
            frames = list(frames)
            if len(seen) < 200:
                seen.extend(bytes(frame) for frame in frames if frame[12:14] == b"\x89\x06")
            take(frames, now)

        server.take = listen
        async with site.initiator(mode=theirs) as port:
            target = await port.target()
            data = chance.randbytes(64 << 10)
            await target.write(0, data)
            good = list(seen)
            stop = anyio.Event()
            sent = 0
            held = 0.0

            async def attack() -> None:
                nonlocal sent, held
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as wire:
                    wire.connect(f"{tmp_path}/t0")
                    while not stop.is_set():
                        for _ in range(16):
                            with suppress(BlockingIOError):
                                wire.send(nonsense(good, chance))
                                sent += 1
                        before = time.process_time()
                        await anyio.sleep(0.001)
                        held = max(held, time.process_time() - before)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(attack)
                while sent < 3000:
                    data = chance.randbytes(64 << 10)
                    await target.write(0, data)
                    assert await target.read(0, 128) == data
                stop.set()
            assert len(site.fabric.sessions()) == 1
            assert held < SECONDS_HELD
            counters = server.station.counters
            assert counters.crc_errors
            assert counters.bad_length
            if mode != "p2p":
                assert counters.fcoe_spoofed
