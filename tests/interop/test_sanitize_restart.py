"""SANITIZE goes on after kill -9 of the real tcm-run, and nobody gets at the medium before it is done (SBC-4 4.11)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.raw_iscsi import Initiator, connect

pytestmark = pytest.mark.interop

SIZE = 32 << 20
SECRET = b"the plain text! " * 256
PATTERN = b"\xa5\x5a\x0f\xf0"
SANITIZE_IN_PROGRESS = (2, (0x04, 0x1B))
OVERWRITE_IMMED = bytes((0x48, 0x81, 0, 0, 0, 0, 0, 0, 4 + len(PATTERN), 0))
CRYPTOGRAPHIC_ERASE_IMMED = bytes((0x48, 0x83, 0, 0, 0, 0, 0, 0, 0, 0))
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


def test_cryptographic_erase_goes_on_after_kill(tmp_path: Path) -> None:
    """What kill -9 has interrupted is done by the next process, before anybody gets at the medium (SBC-4 4.11)."""
    image, key = tmp_path / "disk.img", tmp_path / "key"
    lun = ("--lun", f"0=fileio:path={image},size=16M", "--filter")
    encrypt = f"0=encrypt:key-file={key}"
    daemon = Daemon(tmp_path / "run", *lun, "0=delay:write=700", "--filter", encrypt).start()
    try:
        first = key.read_bytes()
        with connect(daemon.url) as session:
            assert session.write(0, SECRET).status == 0
            assert session.read(0, 8).data == SECRET
        daemon.stop()
        stored = image.read_bytes()
        assert SECRET[:16] not in stored

        daemon.start()
        with connect(daemon.url) as session:
            assert session.read(0, 8).data == SECRET
            assert session.command(CRYPTOGRAPHIC_ERASE_IMMED).status == 0
            assert until_told(session) == SANITIZE_IN_PROGRESS
        daemon.kill()
        assert key.read_bytes() == first, "the delay is over before the test got here"

        daemon.start()
        with login(daemon) as session:
            assert until_told(session) == SANITIZE_IN_PROGRESS
            end = time.monotonic() + 30
            while until_told(session) == SANITIZE_IN_PROGRESS:
                assert time.monotonic() < end
                time.sleep(0.05)
            session.ready()
            noise = session.read(0, 8).data
            assert SECRET[:16] not in noise
            assert len(set(noise)) == 256
            assert not any(session.read(1000, 8).data)
            assert session.write(8, SECRET).status == 0
        second = key.read_bytes()
        assert second != first
        daemon.kill()

        daemon.start()
        with connect(daemon.url) as session:
            assert session.read(8, 8).data == SECRET
            assert session.read(0, 8).data == noise
        assert key.read_bytes() == second
        daemon.stop()
    finally:
        daemon.kill()
    assert image.read_bytes()[: len(SECRET)] == stored[: len(SECRET)]
    assert SECRET[:16] not in image.read_bytes()
