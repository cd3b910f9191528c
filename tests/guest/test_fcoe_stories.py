"""Linux's FCoE initiator in a guest, and the real daemon on the same Ethernet segment: one boot for each mode."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.guest import Guest
from support.guest_segment import BridgedSegment, Hub, Segment, follow

pytestmark = [pytest.mark.interop, pytest.mark.guest]

WWPN = "20:00:52:54:00:74:63:6d"
CHAPTERS = (
    "discovery",
    "utilities",
    "filesystem",
    "verification",
    "reset",
    "persistence",
    "sharing",
    "outage",
    "reboot",
)
SIZE = 64 << 20
HARNESS = os.environ.get("TCM_FCOE_HARNESS")


@dataclass(frozen=True)
class Mode:
    """A way of working, on a kind of segment."""

    name: str
    segment: type[BridgedSegment | Hub]
    nics: int
    """Initiator ports in the guest."""
    chapters: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


# AF_PACKET takes root; the others do without
MODES = (
    Mode("vn2vn", BridgedSegment, 2, CHAPTERS),
    Mode("fcf", Hub, 2, CHAPTERS),
    Mode("p2p", Hub, 1, ("discovery", "utilities", "filesystem", "verification", "outage", "reboot")),
)
CASES = [(mode, chapter) for mode in MODES for chapter in mode.chapters]


class Target:
    """A tcm-run on the segment."""

    def __init__(self, folder: Path, segment: Segment, mode: Mode) -> None:
        self.log = folder / "tcm-run.log"
        script = str(Path(sys.executable).with_name("tcm-run"))
        arguments = ["--fabric", "fcoe", "--interface", segment.interface, "--mode", mode.name, "--wwpn", WWPN]
        arguments += ["--state-dir", str(folder / "state"), "--lun", f"fileio:path={folder / 'disk.img'},size=64M"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                segment.command(*HARNESS.split(), segment.interface, mode.name)
                if HARNESS
                else segment.command(script, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONWARNINGS": "error"},
            )

    def wait_for(self, pattern: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, self.log.read_text()):
            assert self.process.poll() is None, f"tcm-run ended with {self.process.returncode}\n{self.log.read_text()}"
            assert time.monotonic() < end, f"no {pattern!r} within {seconds} s\n{self.log.read_text()}"
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, and insist on a clean end."""
        self.process.terminate()
        assert self.process.wait(20) == 0, self.log.read_text()


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mode, Guest, Target]]:
    """The guest, once it has told every chapter in one boot."""
    mode: Mode = request.param
    folder = tmp_path_factory.mktemp(mode.name)
    with ExitStack() as stack:
        segment = stack.enter_context(mode.segment())
        target = Target(folder, segment, mode)
        stack.callback(target.process.kill)
        target.wait_for(WWPN)
        nics = [word for number in range(mode.nics) for word in ("--l2", segment.nic(number))]
        # its first port's frames, for whom it may concern: python -m tcm_fcoe.decode
        options = ("--no-user", *nics, "--pcap", str(folder / "frames.pcap"))
        guest = Guest(folder, "fcoe.guest", mode.name, WWPN, *mode.chapters, timeout=300, files=("stories",), options=options)
        stack.callback(guest.end)
        follow(segment, guest.share, lambda: guest.process.poll() is None)
        print(target.log.read_text())
        print(guest.finish())
        yield mode, guest, target
        target.stop()


@pytest.mark.parametrize("told, chapter", CASES, indirect=["told"], ids=[f"{mode}-{chapter}" for mode, chapter in CASES])
def test_chapter(told: tuple[Mode, Guest, Target], chapter: str) -> None:
    _, guest, target = told
    result = guest.share / "results" / chapter
    assert result.exists(), guest.output[-6000:]
    assert not result.read_text(), f"{guest.output[-20000:]}\n{target.log.read_text()[-6000:]}"
    assert "Traceback" not in target.log.read_text()
