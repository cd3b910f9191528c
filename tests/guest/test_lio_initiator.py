"""The initiator against LIO in a guest: the stories that our own target goes through as well, so that the two are not only
tested against each other. Those that LIO (Linux 6.1) does not survive are left out: docs/initiator.md says which, and why.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.guest import Guest
from support.initiator_stories import STORIES
from support.programs import free_port

pytestmark = [pytest.mark.interop, pytest.mark.guest]

TARGET = "iqn.2003-01.org.linux-iscsi.lio:t1"
LEFT_OUT = (
    # many tasks reassigned at once, or after a Logout: the kernel frees some of them twice, and panics
    "ERL 2: cut",
    "ERL 2: one .* by logout",
    "ERL 2: header digest",
    "ERL 2: reassignment",
    "ERL 2: reinstatement",
    "ERL 2: recovery logout",
    # many SNACKs: it runs out of what it has kept of the Data-In, and warns of its own reference counts
    "storm",
    # the acknowledgement of the Reject frees the command that it is about, which goes on: no response, or no connection
    "ERL 1: data digest error in solicited Data-Out",
    # the guest's kernel has no SHA-3
    "LIO: CHAP SHA3",
    # Text Requests other than SendTargets end the connection
    "negotiation in full feature phase",
    "ERL 1: R-Data",
)
ALONE = ("ERL 2: one read moves", "ERL 2: one write moves")
"""One task is reassigned: that works, but LIO's kernel may die of it later; they have guests of their own."""
BOOTS = 5
TOGETHER = [name for name in STORIES if name not in ALONE and not any(re.match(pattern, name) for pattern in LEFT_OUT)]


COMPLAINT = re.compile(r"BUG|Oops|WARNING:|general protection|refcount_t|blocked for more than")
"""What a kernel says that has harmed itself, and may end, or never answer again."""


@dataclass(frozen=True)
class Boot:
    """What came of stories in one boot."""

    lines: str
    """One of each story that was ended, and tracebacks."""
    harmed: bool
    """LIO's kernel has died, or has complained of itself: what ended badly may be its own fault."""
    report: str
    """How the guest ended."""

    def well(self, name: str) -> bool:
        return re.search(rf"^ok +[0-9.]+ s  {re.escape(name)}$", self.lines, re.MULTILINE) is not None

    def ended(self, name: str) -> bool:
        return self.well(name) or re.search(rf"^FAILED +[0-9.]+ s  {re.escape(name)}: ", self.lines, re.MULTILINE) is not None


class Told(list[Boot]):
    """What came of stories in all boots that they took."""

    def well(self, name: str) -> bool:
        return any(boot.well(name) for boot in self)

    def why(self) -> str:
        """The last boot's words come last, where the end of a long log shows them."""
        return "\n".join(f"=== boot {number}\n{boot.report}\n{boot.lines[-8000:]}" for number, boot in enumerate(self, 1))


def tell(directory: Path, names: tuple[str, ...] | list[str]) -> Boot:
    """The stories, in one boot."""
    port = free_port()
    log = directory / "stories.txt"
    only = "^(" + "|".join(re.escape(name) for name in names) + ")$"
    url = f"iscsi://127.0.0.1:{port}/{TARGET}/0"
    stories = shlex.join([sys.executable, "-m", "support.initiator_stories", "--limit", "60", "--only", only, url])
    command = f"cd {shlex.quote(str(Path(__file__).parents[1]))}; {stories} >{shlex.quote(str(log))} 2>&1; true"
    guest = Guest(
        directory,
        "lio_recovery.guest",
        timeout=900,
        files=(),
        options=("--mem", "2560", "--fwd", f"{port}:3260", "--while", command),
    )
    try:
        guest.wait(900)
    finally:
        guest.end()
    kernel = guest.share / "lio-dmesg-all.txt"
    complained = kernel.exists() and COMPLAINT.search(kernel.read_text(errors="replace")) is not None
    return Boot(log.read_text() if log.exists() else "", guest.died or complained, guest.report())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """LIO's kernel does not always survive what it mostly does: then what did not end well is told again in another guest."""
    told = Told()
    while len(told) < BOOTS and (not told or told[-1].harmed):
        names = [name for name in TOGETHER if not told.well(name)]
        if not names:
            break
        told.append(tell(tmp_path_factory.mktemp("lio"), names))
    return told


@pytest.mark.parametrize("name", TOGETHER)
def test_story(told: Told, name: str) -> None:
    assert told.well(name), told.why()


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Told again only if LIO's kernel has died of it, which the panic says; what ended badly is not."""
    told = Told()
    while len(told) < BOOTS and (not told or told[-1].harmed):
        names = [name for name in ALONE if not any(boot.ended(name) for boot in told)]
        if not names:
            break
        told.append(tell(tmp_path_factory.mktemp("lio"), names))
    return told


@pytest.mark.parametrize("name", ALONE)
def test_task_reassignment(moved: Told, name: str) -> None:
    assert moved.well(name), moved.why()
