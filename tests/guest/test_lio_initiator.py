"""The initiator against LIO in a guest: the stories that our own target goes through as well, so that the two are not only
tested against each other. Those that LIO (Linux 6.1) does not survive are left out: docs/initiator.md says which, and why.
"""

from __future__ import annotations

import re
import shlex
import socket
import sys
from pathlib import Path

import pytest
from support.guest import Guest
from support.initiator_stories import STORIES

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
"""One task is reassigned: that works, but what LIO has of it later may end its kernel, so that each has a guest of its own."""
BOOTS = 5
TOGETHER = [name for name in STORIES if name not in ALONE and not any(re.match(pattern, name) for pattern in LEFT_OUT)]


def tell(directory: Path, names: tuple[str, ...] | list[str]) -> str:
    """What came of each story, a line each, in one boot."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
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
    assert log.exists(), guest.output[-4000:]
    return log.read_text()


def ended_well(told: str, name: str) -> bool:
    return re.search(rf"^ok +[0-9.]+ s  {re.escape(name)}$", told, re.MULTILINE) is not None


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """LIO does not always survive what it mostly survives: what did not end well is told again in another guest."""
    told = ""
    for _ in range(BOOTS):
        names = [name for name in TOGETHER if not ended_well(told, name)]
        if names:
            told += tell(tmp_path_factory.mktemp("lio"), names)
    return told


@pytest.mark.parametrize("name", TOGETHER)
def test_story(told: str, name: str) -> None:
    assert ended_well(told, name), told


@pytest.mark.parametrize("name", ALONE)
def test_task_reassignment(tmp_path: Path, name: str) -> None:
    """A guest that says nothing of it has died of it; what ended badly is not told again."""
    told = ""
    for boot in range(BOOTS):
        if not told:
            (tmp_path / str(boot)).mkdir()
            told = tell(tmp_path / str(boot), (name,))
    assert ended_well(told, name), told
