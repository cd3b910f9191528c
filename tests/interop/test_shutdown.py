"""SIGTERM to the real daemon while initiators are logged in."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.daemon import running
from support.pdus import ASYNC
from support.raw_iscsi import connect

pytestmark = pytest.mark.interop

LOGOUT_REQUESTED = 1


def test_asks_for_logout(tmp_path: Path) -> None:
    """An Async Message requests the logout (RFC 7143 11.9.1); whoever obeys is not waited for any longer."""
    with running(tmp_path, "--drain-timeout", "600") as daemon:
        process = daemon.process
        assert process is not None
        with connect(daemon.url) as session, connect(daemon.url, name="iqn.2025-01.test:second") as second:
            data = os.urandom(65536)
            assert session.write(0, data).status == 0
            process.send_signal(signal.SIGTERM)
            for each in (session, second):
                message = each.receive()
                assert (message.opcode, message.bhs[36]) == (ASYNC, LOGOUT_REQUESTED)
            # what is asked before the logout is still answered
            assert session.read(0, 128).data == data
            with pytest.raises(ConnectionError):
                connect(daemon.url)
            assert session.logout() == 0
            assert second.logout() == 0
            assert process.wait(60) == 0
        daemon.process = None
        with (tmp_path / "state" / "lun0.img").open("rb") as file:
            assert file.read(65536) == data


def test_waits_no_longer_than_told(tmp_path: Path) -> None:
    with running(tmp_path, "--drain-timeout", "1") as daemon, connect(daemon.url) as session:
        daemon.stop()
        assert "initiators are still logged in after 1 s" in daemon.log()
        assert session.receive().opcode == ASYNC
        with pytest.raises(ConnectionError):
            session.receive()


def test_commands_in_progress_are_completed(tmp_path: Path) -> None:
    """A write that takes a second when the signal comes is written and answered."""
    lun = ("--lun", f"0=fileio:path={tmp_path / 'lun0.img'},size=8M", "--filter", "0=delay:write=1")
    with running(tmp_path / "run", *lun) as daemon, connect(daemon.url) as session:
        data = os.urandom(4096)
        tag = session.start(b"\x8a\0" + bytes(8) + (8).to_bytes(4, "big") + b"\0\0", write=data)
        time.sleep(0.2)
        process = daemon.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert session.finish(tag, data).status == 0
        assert session.logout() == 0
        assert process.wait(60) == 0
        daemon.process = None
    assert (tmp_path / "lun0.img").read_bytes()[:4096] == data


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    with running(tmp_path, "--drain-timeout", "600") as daemon, connect(daemon.url) as session:
        process = daemon.process
        assert process is not None
        process.send_signal(signal.SIGINT)
        assert session.receive().opcode == ASYNC
        time.sleep(1)  # a signal that reaches the process twice at one moment counts once
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1
        daemon.process = None
