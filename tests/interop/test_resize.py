"""A file that is resized beside running I/O, through the real tcm-run: SBC-4 4.10, SPC-5 (CAPACITY DATA HAS CHANGED)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from support.daemon import Daemon, running
from support.raw_iscsi import Initiator, Outcome, connect

pytestmark = pytest.mark.interop

SIZE = 8 << 20
BLOCKS = 8
"""Of each write."""
READ_CAPACITY = bytes((0x9E, 0x10)) + bytes(11) + bytes((32, 0, 0))
CHANGED, OUT_OF_RANGE = (6, (0x2A, 0x09)), (5, (0x21, 0x00))


def attention(session: Initiator) -> tuple[int, tuple[int, int]]:
    outcome = session.command(bytes(6))
    return outcome.sense_key, outcome.asc


class Writer(threading.Thread):
    """Writes all over the disk as it was first, and goes on whatever it is told, until :meth:`stop`."""

    def __init__(self, daemon: Daemon, number: int) -> None:
        super().__init__()
        self.session = connect(daemon.url, name=f"iqn.2025-01.test:writer{number}").ready()
        self.number = number
        self.told: list[tuple[int, tuple[int, int]]] = []
        self.refused: list[int] = []
        self.done = 0
        self._stopping = threading.Event()
        self.changed = threading.Event()

    def run(self) -> None:
        generation = 0
        while not self._stopping.is_set():
            generation += 1
            lba = (generation * 2 + self.number) * 1237 * BLOCKS % (SIZE // 512)
            outcome = self.session.write(lba, bytes([generation % 255 + 1]) * (BLOCKS * 512))
            self.done += not outcome.status
            if outcome.status:
                self._note(lba, outcome)

    def _note(self, lba: int, outcome: Outcome) -> None:
        sense = (outcome.sense_key, outcome.asc)
        if sense == OUT_OF_RANGE:
            self.refused.append(lba)
        else:
            self.told.append(sense)
            self.changed.set()

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)
        self.session.close()
        assert not self.is_alive()


def test_shrunk_and_grown_under_writes(tmp_path: Path) -> None:
    """Everybody hears of each resize, nothing beyond a new end is written, and the file keeps the length it was given."""
    image = tmp_path / "disk.img"
    with running(tmp_path / "run", "--lun", f"0=fileio:path={image},size={SIZE}") as daemon, connect(daemon.url) as session:
        writers = [Writer(daemon, number) for number in range(2)]
        for writer in writers:
            writer.start()
        try:
            session.ready()
            for size in (SIZE // 2, SIZE // 4):
                for writer in writers:
                    writer.changed.clear()
                os.truncate(image, size)
                for writer in writers:
                    assert writer.changed.wait(15)  # noticed by the first write beyond the end
                assert attention(session) == CHANGED
                assert session.capacity()[0] == size // 512
                assert image.stat().st_size == size
            for writer in writers:
                writer.changed.clear()
            refused = [len(writer.refused) for writer in writers]
            os.truncate(image, SIZE)
            session.command(READ_CAPACITY, read=32)  # whoever asks makes the target look
            session.ready()
            assert session.capacity()[0] == SIZE // 512
        finally:
            for writer in writers:
                writer.stop()
        for writer, before in zip(writers, refused, strict=True):
            assert writer.told
            assert set(writer.told) == {CHANGED}
            assert writer.done
            assert all(lba * 512 >= SIZE // 4 - BLOCKS * 512 for lba in writer.refused)
            assert before
        assert image.stat().st_size == SIZE
        last = b"z" * 4096
        assert session.write(SIZE // 512 - 8, last).status == 0
        assert session.read(SIZE // 512 - 8, 8).data == last
    assert image.stat().st_size == SIZE
