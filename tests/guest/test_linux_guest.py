"""A Linux guest with open-iscsi, the kernel's own initiator, against the real daemon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.daemon import Daemon, running, wait_until
from support.guest import Guest, portal
from support.programs import free_port

pytestmark = [pytest.mark.interop, pytest.mark.guest]

SECRET = "sixteen-byte-key"
MUTUAL_SECRET = "target-own-secret"


def lun(directory: Path) -> tuple[str, str]:
    return "--lun", f"fileio:path={directory / 'lun0.img'},size=400M"


def run(tmp_path: Path, daemon: Daemon, *more: str) -> str:
    url = daemon.url
    guest = Guest(tmp_path, "filesystems.guest", portal(url), url.target, str(url.lun), *more, timeout=1500)
    try:
        output = guest.finish()
    finally:
        guest.end()
    for words in ("ext4: trimmed", "xfs: trimmed", "fio: random writes verified"):
        assert words in output
    assert output.rstrip().endswith("done")
    return output


def test_filesystems(tmp_path: Path) -> None:
    with running(tmp_path / "run", *lun(tmp_path)) as daemon:
        output = run(tmp_path, daemon)
        assert "HeaderDigest: None" in output
        # trimmed: what was given back no longer takes room on the host
        assert (tmp_path / "lun0.img").stat().st_blocks * 512 < 350 << 20


def test_filesystems_chap_and_digests(tmp_path: Path) -> None:
    secrets = {"TCM_CHAP_SECRET": SECRET, "TCM_CHAP_MUTUAL_SECRET": MUTUAL_SECRET}
    chap = ("--chap", "alice", "--chap-mutual", "bob")
    with running(tmp_path / "run", *lun(tmp_path), *chap, env=secrets) as daemon:
        output = run(tmp_path, daemon, "chap", "alice", SECRET, "bob", MUTUAL_SECRET, "digests")
        assert "HeaderDigest: CRC32C" in output
        assert "DataDigest: CRC32C" in output


OUTAGE_SECONDS = 3
"""How long nobody listens: the guest meets refused connections, and tries again."""
BETWEEN_SECONDS = 3
"""Of I/O on the new connection, so that the next outage has commands to interrupt."""


def come_back(daemon: Daemon, guest: Guest, before: int) -> None:
    """Wait until the guest has logged in again: without a connection it would not notice the next outage."""
    wait_until(
        lambda: daemon.log().count(" logged in") > before or guest.process.poll() is not None, 300, "the guest is back", 0.2
    )


def test_outages(tmp_path: Path) -> None:
    """The target goes away during I/O, once by SIGTERM and once by kill -9, and then the link: no error, nothing lost."""
    with running(tmp_path / "run", *lun(tmp_path)) as daemon:
        url = daemon.url
        guest = Guest(tmp_path, "outage.guest", portal(url), url.target, str(url.lun), timeout=1500)
        try:
            wait_until(lambda: (guest.share / "writing").exists() or guest.process.poll() is not None, 900, "fio writes", 0.2)
            for end in (daemon.stop, daemon.kill):
                end()
                time.sleep(OUTAGE_SECONDS)
                before = daemon.log().count(" logged in")
                daemon.restart()
                come_back(daemon, guest, before)
                time.sleep(BETWEEN_SECONDS)
            (guest.share / "outages-over").touch()
            output = guest.finish()
        finally:
            guest.end()
        assert output.rstrip().endswith("done")


def test_redirection(tmp_path: Path) -> None:
    """open-iscsi follows both kinds of redirection (RFC 7143 11.13.5). It knows the target's portals as 10.0.2.2."""
    ports = [free_port() for _ in range(3)]
    there, temporary, permanent = (f"127.0.0.1:{port}" for port in ports)
    rules = [f"redirect_temporarily=10.0.2.2:{ports[0]} portal={temporary}"]
    rules.append(f"redirect_permanently=10.0.2.2:{ports[0]} portal={permanent}")
    arguments = [word for rule in rules for word in ("--attribute", rule)]
    with running(tmp_path / "run", *lun(tmp_path), *arguments, portals=(there, temporary, permanent), urls=3) as daemon:
        urls = {url.port: url for url in daemon.urls}
        there, *others = (portal(urls[port]) for port in ports)
        guest = Guest(tmp_path, "redirect.guest", there, daemon.url.target, "0", *others, timeout=600)
        try:
            output = guest.finish()
        finally:
            guest.end()
        assert output.rstrip().endswith("done")
        assert daemon.log().count("redirected to 10.0.2.2") >= 2
