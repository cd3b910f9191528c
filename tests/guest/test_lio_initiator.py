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
    # TASK REASSIGN: the kernel loses or frees tasks that wait for it, and panics
    "ERL 2: cut",
    "ERL 2: header digest",
    "ERL 2: one",
    "ERL 2: reassignment",
    "ERL 2: reinstatement",
    "ERL 2: recovery logout",
    "storm$",
    # Text Requests other than SendTargets end the connection
    "negotiation in full feature phase",
    "ERL 1: R-Data",
)
TOLD = [name for name in STORIES if not any(re.match(pattern, name) for pattern in LEFT_OUT)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What came of each story, a line each, in one boot."""
    directory = tmp_path_factory.mktemp("lio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    log = directory / "stories.txt"
    only = "^(" + "|".join(re.escape(name) for name in TOLD) + ")$"
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
        guest.finish()
    finally:
        guest.end()
    return log.read_text()


@pytest.mark.parametrize("name", TOLD)
def test_story(told: str, name: str) -> None:
    (outcome,) = re.findall(rf"^(ok|FAILED) +[0-9.]+ s  {re.escape(name)}(?:$|: | \()", told, re.MULTILINE)
    assert outcome == "ok", told
