"""What was acknowledged as durable is there after a crash, and a disk that fills up is an error of one command."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from support.daemon import Daemon, running
from support.programs import small_disk
from support.raw_iscsi import Initiator, connect

pytestmark = pytest.mark.interop

BLOCKS = 8
"""Of each write."""
SLOTS = 2048


def block(slot: int, generation: int) -> bytes:
    return (b"%016d%016d" % (slot, generation)) * (BLOCKS * 512 // 32)


class Writer(threading.Thread):
    """Writes slots over and over; remembers what was acknowledged as durable, slot by slot."""

    def __init__(self, daemon: Daemon, first: int, *, fua: bool) -> None:
        super().__init__()
        self.session = connect(daemon.url, name=f"iqn.2025-01.test:writer{first}")
        self.slots = range(first, SLOTS, 4)
        self.fua = fua
        self.durable: dict[int, int] = {}
        self.sent: dict[int, int] = {}
        self.bad: list[object] = []

    def run(self) -> None:
        try:
            for generation in range(1, 10_000):
                fresh: dict[int, int] = {}
                for slot in self.slots:
                    self.sent[slot] = generation
                    outcome = self.session.write(slot * BLOCKS, block(slot, generation), fua=self.fua)
                    if outcome.status:
                        self.bad.append(outcome)
                        return
                    fresh[slot] = generation
                    if self.fua:
                        self.durable[slot] = generation
                    elif len(fresh) == 32:
                        if self.session.synchronize_cache().status:
                            self.bad.append("SYNCHRONIZE CACHE")
                            return
                        self.durable |= fresh
                        fresh.clear()
        except OSError:
            pass  # the target was killed
        finally:
            self.session.close()


@pytest.mark.parametrize("protection", [0, 1, 3])
def test_kill_during_writes(tmp_path: Path, protection: int) -> None:
    """kill -9 while four sessions write with FUA or SYNCHRONIZE CACHE; twice, on the same state.

    With protection information, a write that was on its way may be half there: then it is a guard error, not old or new data.
    """
    lun = f"fileio:path={tmp_path / 'lun0.img'},size=64M" + (f",pi_prot_type={protection}" if protection else "")
    with running(tmp_path, "--lun", lun) as daemon:
        for _ in range(2):
            writers = [Writer(daemon, number, fua=number % 2 == 0) for number in range(4)]
            for writer in writers:
                writer.start()
            time.sleep(1.5)
            daemon.kill()
            for writer in writers:
                writer.join()
                assert not writer.bad, writer.bad
                assert len(writer.durable) > 20, "hardly anything was acknowledged"
            daemon.restart()
            with connect(daemon.url) as session:
                torn = 0
                for writer in writers:
                    for slot, generation in writer.durable.items():
                        outcome = session.read(slot * BLOCKS, BLOCKS)
                        if outcome.status and protection and writer.sent[slot] > generation:
                            assert outcome.asc == (0x10, 1), outcome
                            torn += 1
                            continue
                        data = outcome.data
                        later = [block(slot, each) for each in range(generation, writer.sent[slot] + 1)]
                        assert data in later, f"slot {slot}: generation {generation} was durable, found {data[:32]!r}"
                assert torn <= len(writers), "more than one write each was on its way"


def test_same_identity_after_restart(tmp_path: Path) -> None:
    """Serial number and designators survive: multipath and file systems depend on them."""
    with running(tmp_path, "--lun", "fileio:path=" + str(tmp_path / "lun0.img") + ",size=8M") as daemon:
        seen = []
        for _ in range(2):
            with connect(daemon.url) as session:
                pages = [session.command(bytes([0x12, 1, page, 0, 255, 0]), read=255).data for page in (0x80, 0x83)]
            seen.append(pages)
            daemon.stop()
            daemon.restart()
        assert seen[0] == seen[1]


def test_disk_full(tmp_path: Path) -> None:
    """DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT (SBC-4 4.7.3.6); reads and other units go on; room helps."""
    with small_disk(tmp_path / "disk", 8) as disk:
        luns = ("--lun", f"0=fileio:path={disk / 'lun0.img'},size=64M", "--lun", f"1=fileio:path={tmp_path / 'b.img'},size=8M")
        with (
            running(tmp_path / "run", *luns, urls=2) as daemon,
            connect(daemon.url) as session,
            Initiator(daemon.url.host, daemon.url.port) as other,
        ):
            other.login(daemon.url.target, name="iqn.2025-01.test:other").ready(1)
            written = fill(session)
            assert 4 <= written <= 8, f"{written} MiB fitted into 8"
            assert session.read(0, 2048).data == megabyte(0)
            assert session.write(0, megabyte(99)).status == 0, "what has room already can be written again"
            assert session.synchronize_cache().status == 0
            assert other.write(0, megabyte(1), 1).status == 0
            assert other.read(0, 2048, 1).data == megabyte(1)
            # UNMAP makes room for others
            assert unmap(session, 0, 4 * 2048).status == 0
            assert session.write(20 * 2048, megabyte(20)).status == 0
            assert session.read(20 * 2048, 2048).data == megabyte(20)
            assert session.read(0, 2048).data == bytes(1 << 20)
            daemon.assert_quiet()


def megabyte(number: int) -> bytes:
    return bytes([number + 1]) * (1 << 20)


def fill(session: Initiator) -> int:
    """Write until it is refused; MiB written."""
    for number in range(64):
        outcome = session.write(number * 2048, megabyte(number))
        if outcome.status:
            assert (outcome.status, outcome.sense_key, outcome.asc) == (2, 7, (0x27, 0x07)), outcome
            return number
    raise AssertionError("64 MiB fitted into 8")


def unmap(session: Initiator, lba: int, blocks: int):
    descriptor = lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(4)
    data = (22).to_bytes(2, "big") + (16).to_bytes(2, "big") + bytes(4) + descriptor
    return session.command(bytes([0x42, 0, 0, 0, 0, 0, 0, 0, len(data), 0]), write=data)


def test_file_held_by_another(tmp_path: Path) -> None:
    """Two daemons on one file would corrupt it: the second one refuses, and says so in one line with exit code 2 or 1."""
    lun = f"fileio:path={tmp_path / 'lun0.img'},size=8M"
    with running(tmp_path / "first", "--lun", lun):
        second = Daemon(tmp_path / "second", "--lun", lun)
        with pytest.raises(AssertionError, match=r"ended with [12]"):
            second.start()
        assert "lun0.img" in second.log()
        assert "Traceback" not in second.log()
    assert os.path.getsize(tmp_path / "lun0.img") == 8 << 20
