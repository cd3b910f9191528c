"""SANITIZE goes on after kill -9 of the real tcm-run, and nobody gets at the medium before it is done (SBC-4 4.11)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.raw_iscsi import Initiator, connect

pytestmark = pytest.mark.interop

SIZE = 32 << 20
PATTERN = b"\xa5\x5a\x0f\xf0"
SANITIZE_IN_PROGRESS = (2, (0x04, 0x1B))
OVERWRITE_IMMED = bytes((0x48, 0x81, 0, 0, 0, 0, 0, 0, 4 + len(PATTERN), 0))
REQUEST_SENSE = bytes((0x03, 0, 0, 0, 252, 0))


def until_told(session: Initiator) -> tuple[int, tuple[int, int]]:
    """Sense key and additional sense code of a READ, unit attentions aside; zeroes if it succeeds."""
    for _ in range(8):
        outcome = session.read(0, 8)
        if outcome.status == 0 or outcome.sense_key != 6:
            break
    return outcome.sense_key, outcome.asc


def login(daemon: Daemon) -> Initiator:
    """Unlike :func:`connect`, for a unit that is not ready."""
    session = Initiator(daemon.url.host, daemon.url.port)
    session.login(daemon.url.target)
    return session


def progress(session: Initiator) -> int:
    sense = session.command(REQUEST_SENSE, read=252).data
    assert (sense[2] & 0x0F, (sense[12], sense[13])) == SANITIZE_IN_PROGRESS
    assert sense[15] & 0x80
    return int.from_bytes(sense[16:18], "big")


def test_goes_on_after_kill(tmp_path: Path) -> None:
    """It is written down before GOOD status goes out; the next process refuses the medium from its first command on."""
    image = tmp_path / "disk.img"
    arguments = ("--lun", f"0=fileio:path={image},size={SIZE}", "--filter", "0=delay:write=60")
    daemon = Daemon(tmp_path / "run", *arguments).start()
    try:
        with connect(daemon.url) as session:
            assert session.write(0, b"secret!!" * 512).status == 0
            parameters = bytes((1, 0, 0, len(PATTERN))) + PATTERN
            assert session.command(OVERWRITE_IMMED, write=parameters).status == 0
            first = progress(session)
            while progress(session) == first:
                time.sleep(0.02)
        daemon.kill()
        daemon.start()
        with login(daemon) as session:
            assert until_told(session) == SANITIZE_IN_PROGRESS
            progress(session)
            end = time.monotonic() + 30
            while until_told(session) == SANITIZE_IN_PROGRESS:
                assert time.monotonic() < end
                time.sleep(0.05)
            session.ready()
            assert session.read(0, 8).data == PATTERN * 1024
        daemon.stop()
    finally:
        daemon.kill()
    assert image.read_bytes() == PATTERN * (SIZE // len(PATTERN))
