"""Persistent reservations of the real tcm-run, over iSCSI, through kill -9, a full disk and a damaged file."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from support.daemon import Daemon, running
from support.programs import small_disk
from support.raw_iscsi import Initiator

pytestmark = pytest.mark.interop

REGISTER, RESERVE, CLEAR, IGNORE, REPLACE_LOST = 0, 1, 3, 6, 8
READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)
WRITE_EXCLUSIVE = 1
APTPL = 1
GOOD, CHECK_CONDITION, CONFLICT = 0, 2, 0x18
HOLDER, OTHER = "iqn.2025-01.test:holder", "iqn.2025-01.test:other"
ISIDS = {HOLDER: bytes.fromhex("80aabbcc0001"), OTHER: bytes.fromhex("80aabbcc0002")}
KEY = 0x1122334455667788


def initiator(daemon: Daemon, name: str) -> Initiator:
    """The same initiator port each time; its unit attentions are pending."""
    session = Initiator(daemon.url.host, daemon.url.port)
    session.isid = ISIDS[name]
    return session.login(daemon.url.target, name=name)


def out(session: Initiator, action: int, key: int = 0, new: int = 0, kind: int = 0, *, flags: int = APTPL):
    data = key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes(4) + bytes((flags, 0, 0, 0))
    return session.command(bytes((0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0)), write=data)


def read_in(session: Initiator, action: int):
    return session.command(bytes((0x5E, action, 0, 0, 0, 0, 0, 16, 0, 0)), read=4096)


def keys(session: Initiator) -> list[int]:
    outcome = read_in(session, READ_KEYS)
    assert outcome.status == GOOD, outcome
    return [int.from_bytes(outcome.data[at : at + 8], "big") for at in range(8, len(outcome.data), 8)]


def lun(tmp_path: Path) -> tuple[str, str]:
    return "--lun", f"fileio:path={tmp_path / 'lun0.img'},size=8M"


def test_reservation_after_kill(tmp_path: Path) -> None:
    """APTPL (SPC-4 5.13.5.1): key, holder, type and what conflicts are the same after kill -9, as often as it happens."""
    with running(tmp_path, *lun(tmp_path)) as daemon:
        with initiator(daemon, HOLDER).ready() as holder, initiator(daemon, OTHER).ready() as other:
            assert out(holder, REGISTER, 0, KEY).status == GOOD
            assert out(holder, RESERVE, KEY, kind=WRITE_EXCLUSIVE).status == GOOD
            assert holder.write(0, b"\1" * 512).status == GOOD
            assert other.write(0, b"\2" * 512).status == CONFLICT
            before = read_in(holder, READ_FULL_STATUS).data
        for _ in range(2):
            daemon.kill()
            daemon.restart()
            with initiator(daemon, HOLDER).ready() as holder, initiator(daemon, OTHER).ready() as other:
                assert keys(other) == [KEY]
                assert read_in(other, READ_RESERVATION).data[8:] == KEY.to_bytes(8, "big") + bytes(5) + b"\1\0\0"
                assert read_in(other, READ_FULL_STATUS).data[4:] == before[4:], "PRGENERATION starts at zero"
                assert read_in(other, REPORT_CAPABILITIES).data[2:4] == bytes.fromhex("9dc1"), "PTPL_C, PTPL_A"
                assert other.write(0, b"\2" * 512).status == CONFLICT
                assert other.read(0, 1).data == b"\1" * 512
                assert holder.write(0, b"\1" * 512).status == GOOD
        with initiator(daemon, HOLDER).ready() as holder:
            assert out(holder, CLEAR, KEY).status == GOOD
        daemon.kill()
        daemon.restart()
        with initiator(daemon, OTHER).ready() as other:
            assert keys(other) == []
            assert other.write(0, b"\2" * 512).status == GOOD


def test_without_aptpl_nothing_outlives(tmp_path: Path) -> None:
    """SPC-4 5.13.11.2.1: the last APTPL is zero: a power cycle releases and unregisters."""
    with running(tmp_path, *lun(tmp_path)) as daemon:
        with initiator(daemon, HOLDER).ready() as holder:
            assert out(holder, REGISTER, 0, KEY).status == GOOD
            assert out(holder, RESERVE, KEY, kind=WRITE_EXCLUSIVE).status == GOOD
            assert out(holder, IGNORE, 0, KEY, flags=0).status == GOOD
        daemon.kill()
        daemon.restart()
        with initiator(daemon, OTHER).ready() as other:
            assert keys(other) == []
            assert other.write(0, bytes(512)).status == GOOD


def test_kill_while_registering(tmp_path: Path) -> None:
    """kill -9 in the middle of key after key: what GOOD was sent for is there, or the key whose answer was lost."""
    with running(tmp_path, *lun(tmp_path)) as daemon:
        key = 0
        for _ in range(3):
            session = initiator(daemon, HOLDER).ready()
            known = [key]

            def register(session: Initiator = session, known: list[int] = known) -> None:
                try:
                    while out(session, REGISTER, known[-1], known[-1] + 1).status == GOOD:
                        known.append(known[-1] + 1)
                except OSError:
                    pass  # the target was killed
                finally:
                    session.close()

            thread = threading.Thread(target=register)
            thread.start()
            time.sleep(0.5)
            daemon.kill()
            thread.join()
            assert len(known) > 5, "hardly anything was acknowledged"
            daemon.restart()
            with initiator(daemon, OTHER).ready() as other:
                (key,) = keys(other)
            assert key in {known[-1], known[-1] + 1}


def test_damaged_file(tmp_path: Path) -> None:
    """SPC-4 5.13.5.3.2: the log names the line; nothing is executed before REPLACE LOST RESERVATION, which lasts."""
    with running(tmp_path, *lun(tmp_path)) as daemon:
        with initiator(daemon, HOLDER).ready() as holder:
            assert out(holder, REGISTER, 0, KEY).status == GOOD
        daemon.kill()
        (path,) = (tmp_path / "state" / "pr").iterdir()
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[:3], "sa_res_key=nonsense\n", *lines[3:]]))
        daemon.restart()
        assert "persistent reservations are lost: line 6: " in daemon.log()
        with initiator(daemon, OTHER) as other:
            other.command(bytes((3, 0, 0, 0, 18, 0)), read=18)  # REQUEST SENSE takes the unit attention
            for outcome in (other.command(bytes(6)), other.read(0, 1), read_in(other, READ_KEYS)):
                assert (outcome.status, outcome.sense_key, outcome.asc) == (CHECK_CONDITION, 7, (0x44, 0x01)), outcome
            assert out(other, REPLACE_LOST, 0, KEY, WRITE_EXCLUSIVE).status == GOOD
        daemon.kill()
        daemon.restart()
        with initiator(daemon, HOLDER).ready() as holder:
            assert keys(holder) == [KEY]
            assert holder.write(0, bytes(512)).status == CONFLICT


def test_full_state_directory(tmp_path: Path) -> None:
    """SPC-4 5.13.7: a registration that the disk has no room for is refused; what was kept stays; room helps."""
    with small_disk(tmp_path / "disk", 1) as disk:
        daemon = Daemon(tmp_path / "run", *lun(tmp_path))
        daemon.args[daemon.args.index("--state-dir") + 1] = str(disk / "state")
        try:
            daemon.start()
            with initiator(daemon, HOLDER).ready() as holder, initiator(daemon, OTHER).ready() as other:
                assert out(holder, REGISTER, 0, KEY).status == GOOD
                filler = disk / "filler"
                with filler.open("wb", buffering=0) as file:
                    while file.tell() < 2 << 20:
                        try:
                            file.write(bytes(4096))
                        except OSError:
                            break
                outcome = out(other, REGISTER, 0, 1)
                assert (outcome.status, outcome.sense_key, outcome.asc) == (CHECK_CONDITION, 5, (0x55, 0x04)), outcome
                assert keys(other) == [KEY]
                filler.unlink()
                assert out(other, REGISTER, 0, 1).status == GOOD
                assert keys(other) == [KEY, 1]
            daemon.assert_quiet()
            daemon.kill()
            daemon.restart()
            with initiator(daemon, OTHER).ready() as other:
                assert keys(other) == [KEY, 1]
            daemon.stop()
        finally:
            daemon.kill()
