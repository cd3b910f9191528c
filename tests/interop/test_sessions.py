"""What the daemon costs: memory idle and per session, time to start."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from support.daemon import running
from support.programs import unavailable
from support.raw_iscsi import Initiator, close_all, connect

pytestmark = pytest.mark.interop

SESSIONS = 1000
KIB = 1 << 10
MIB = 1 << 20


def test_idle_memory(tmp_path: Path) -> None:
    """Aim: under 60 MB with one LUN."""
    with running(tmp_path) as daemon:
        with connect(daemon.url) as session:
            session.logout()
        rss = daemon.rss()
        print(f"\nidle daemon with one LUN: {rss / 1e6:.1f} MB")
        assert rss < 60e6


def test_start_to_listening(tmp_path: Path) -> None:
    """Aim: under 0.5 s; bounded by processor time, for which others do not count."""
    times, used = [], []
    for number in range(3):
        with running(tmp_path / str(number)) as daemon:
            times.append(daemon.seconds_to_listening)
            used.append(daemon.processor_seconds())
    print("\nstart to listening: " + ", ".join(f"{seconds:.2f} s" for seconds in times))
    assert min(used) < 1.5


def test_thousand_sessions(tmp_path: Path) -> None:
    """Aim: under 64 KiB each, logged in and having done I/O; all are served; none left behind."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * SESSIONS + 100:
        unavailable(f"needs {2 * SESSIONS + 100} open files, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096) if hard > 0 else 4096), hard))
    with running(tmp_path, "--lun", "ramdisk:size=64M") as daemon:
        warm = [log_in(daemon.url.host, daemon.url.port, daemon.url.target, number) for number in range(20)]
        before = daemon.rss()
        descriptors = daemon.file_descriptors()
        sessions = []
        try:
            sessions += (
                log_in(daemon.url.host, daemon.url.port, daemon.url.target, 100 + number) for number in range(SESSIONS)
            )
            per_session = (daemon.rss() - before) / SESSIONS
            print(f"\n{SESSIONS} sessions: {per_session / KIB:.1f} KiB each, {daemon.rss() / 1e6:.1f} MB in all")
            for session in sessions:
                assert session.read(0, 8).status == 0
            busy = (daemon.rss() - before) / SESSIONS
            print(f"after each has read again: {busy / KIB:.1f} KiB each")
            for session in sessions[: SESSIONS // 2]:
                assert session.logout() == 0
        finally:
            close_all(sessions)
            close_all(warm)
        with connect(daemon.url) as last:
            assert last.read(0, 8).status == 0
        assert daemon.file_descriptors() <= descriptors
        assert busy < 64 * KIB


def log_in(host: str, port: int, target: str, number: int) -> Initiator:
    session = Initiator(host, port)
    session.login(target, name=f"iqn.2025-01.test.many:{number}").ready()
    assert session.write(number * 8, bytes([number & 0xFF]) * 4096).status == 0
    return session
