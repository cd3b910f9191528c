"""Data goes through unchanged, whatever the two sides negotiate: an initiator of our own that has no code of the target's."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Iterator

import pytest
from support.daemon import Daemon, running
from support.raw_iscsi import Initiator, connect

pytestmark = pytest.mark.interop

SIZES = (1, 2, 7, 8, 16, 17, 128, 129, 333, 1024, 2048)
"""Blocks."""


@pytest.fixture(scope="module", params=["uvloop", "asyncio", "trio"])
def daemon(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("parameters")
    luns = ("--lun", f"0=fileio:path={directory / 'lun0.img'},size=64M", "--lun", "1=ramdisk:size=64M,block-size=4096")
    with running(directory, *luns, "--event-loop", request.param, urls=2) as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("initial_r2t", "immediate", "bursts", "digests"),
    [
        ("Yes", "Yes", "default", "None"),
        ("No", "Yes", "default", "None"),
        ("No", "No", "default", "None"),
        ("Yes", "No", "default", "None"),
        ("No", "Yes", "small", "None"),
        ("Yes", "No", "small", "None"),
        ("No", "Yes", "large", "None"),
        ("No", "Yes", "small", "CRC32C"),
        ("Yes", "No", "default", "CRC32C"),
    ],
)
def test_data(daemon: Daemon, initial_r2t: str, immediate: str, bursts: str, digests: str) -> None:
    keys = {"InitialR2T": initial_r2t, "ImmediateData": immediate}
    keys |= {
        "default": {},
        "small": {
            "MaxBurstLength": "8192",
            "FirstBurstLength": "4096",
            "MaxRecvDataSegmentLength": "1024",
            "MaxOutstandingR2T": "3",
        },
        "large": {"MaxBurstLength": "16776192", "FirstBurstLength": "16776192", "MaxOutstandingR2T": "8"},
    }[bursts]
    with connect(daemon.url, digests=digests, **keys) as session:
        assert session.keys["InitialR2T"] == initial_r2t
        assert session.keys["ImmediateData"] == immediate
        assert session.header_digest == session.data_digest == (digests == "CRC32C")
        sizes = SIZES[:-3] if digests == "CRC32C" else SIZES  # (the digest is computed in Python here)
        exercise(session, 0, 512, sizes)
        exercise(session, 1, 4096, tuple(each // 8 or 1 for each in sizes))
        assert session.ping() == b"ping"
        assert session.logout() == 0


def exercise(session: Initiator, lun: int, block_size: int, sizes: tuple[int, ...]) -> None:
    session.ready(lun)
    lba = 3
    for blocks in sizes:
        data = os.urandom(blocks * block_size)
        assert session.write(lba, data, lun, block_size).status == 0
        found = session.read(lba, blocks, lun, block_size)
        assert (found.status, found.residual) == (0, 0)
        assert found.data == data, f"{blocks} blocks at {lba} of LUN {lun}"
        lba += blocks


def test_many_at_once(daemon: Daemon) -> None:
    """Eight sessions, commands overlapping in each; every one keeps to its own blocks and finds them as it left them."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            source = random.Random(number)
            with connect(daemon.url, name=f"iqn.2025-01.test:many{number}", InitialR2T=source.choice(("Yes", "No"))) as session:
                base, held = number * 16384, dict.fromkeys(range(64), bytes(512 * 64))
                assert session.write(base, bytes(64 * 64 * 512)).status == 0
                for round_number in range(12):
                    slots = source.sample(range(64), 12)
                    fresh = {slot: source.randbytes(64 * 512) for slot in slots[:6]}
                    tags = {slot: session.start(write_16(base + slot * 64), write=fresh[slot]) for slot in fresh}
                    reads = {slot: session.start(read_16(base + slot * 64), read=64 * 512) for slot in slots[6:]}
                    for slot, tag in tags.items():
                        assert session.finish(tag, fresh[slot]).status == 0
                    for slot, tag in reads.items():
                        assert session.finish(tag).data == held[slot], f"round {round_number}, slot {slot}"
                    held |= fresh
                for slot, data in held.items():
                    assert session.read(base + slot * 64, 64).data == data
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def read_16(lba: int, blocks: int = 64) -> bytes:
    return b"\x88\0" + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + b"\0\0"


def write_16(lba: int, blocks: int = 64) -> bytes:
    return b"\x8a\0" + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + b"\0\0"


def test_every_window_position(daemon: Daemon) -> None:
    """Fill the command window, again and again: MaxCmdSN never goes backwards, nothing is lost."""
    with connect(daemon.url) as session:
        highest = 0
        for _ in itertools.repeat(None, 20):
            room = (session.max_cmd_sn - session.cmd_sn + 1) & 0xFFFFFFFF
            assert 1 <= room <= 4096
            tags = [session.start(read_16(number % 128, 8), read=4096) for number in range(room)]
            for tag in tags:
                assert session.finish(tag).status == 0
            assert session.max_cmd_sn >= highest
            highest = session.max_cmd_sn
