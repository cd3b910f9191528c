"""The stores: the shipped contract, and what a directory adds to it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcm.target.directory_store import DirectoryStore
from tcm.target.store import ABSENT, Entry, key
from tcm.testing import MemoryStore, StoreContract
from tcm.testing.memory_store import Values

anyio_test = pytest.mark.anyio


class TestDirectory(StoreContract):
    @pytest.fixture
    def make(self, tmp_path):
        return lambda clock: DirectoryStore(str(tmp_path / "state"), clock=clock)


class TestMemory(StoreContract):
    @pytest.fixture
    def make(self):
        values = Values()
        return lambda clock: MemoryStore(values, clock=clock)


@anyio_test
async def test_only_the_owner_reads_what_is_kept(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path / "a" / "b"))
    await store.put("pr/c", "text", ABSENT)
    for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "pr"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b" / "pr" / "c").stat().st_mode & 0o777 == 0o600
    assert {each.name for each in (tmp_path / "a" / "b").rglob("*")} == {".lock", "pr", "c"}


@anyio_test
async def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    assert await DirectoryStore(str(tmp_path / "none")).get("pr/c") == Entry(None, ABSENT)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", "/a", "a/", "../a", "a/../b", "a/./b", "a\0", ".lock", "pr/.new"])
def test_a_key_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        DirectoryStore(str(tmp_path)).path(name)


def test_any_part_makes_a_key(tmp_path: Path) -> None:
    for part in ("..", ".", "a/b", "\0", "naa.5001405", "iqn.2026-01.example:t+1"):
        path = DirectoryStore(str(tmp_path)).path(key("pr", f"aptpl_{part}"))
        assert os.path.dirname(path) == str(tmp_path / "pr")
        assert os.path.dirname(DirectoryStore(str(tmp_path)).path(key("pr", part))) == str(tmp_path / "pr")


@anyio_test
@pytest.mark.parametrize(("function", "call"), [("replace", 1), ("fsync", 1), ("fsync", 2)])
@pytest.mark.parametrize("before", [None, "before"])
async def test_a_full_disk_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int, before: str | None
) -> None:
    """Whichever step fails: the temporary file, the rename, making it durable."""
    store = DirectoryStore(str(tmp_path))
    (tmp_path / "pr").mkdir()
    revision = ABSENT if before is None else await store.put("pr/a", before, ABSENT)
    calls, real = 0, getattr(os, function)

    def fail(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space"):
        await store.put("pr/a", "after", revision)
    monkeypatch.setattr(os, function, real)
    assert await store.get("pr/a") == Entry(before, revision)
    assert [each.name for each in (tmp_path / "pr").iterdir()] == ([] if before is None else ["a"])
    await store.put("pr/a", "after", revision)


@anyio_test
async def test_what_is_no_text_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff")
    store = DirectoryStore(str(tmp_path))
    value, revision = await store.get("a")
    assert value == "\udcff"
    await store.put("a", "text", revision)


@anyio_test
async def test_a_damaged_lease_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    for content in ("", "[]", "{}", '{"holder": 1, "until": "x"}', "nonsense"):
        (tmp_path / "lease" / "a").write_text(content)
        await (await DirectoryStore(str(tmp_path)).lease("a", 10)).release()


_ADD = """
import sys, anyio
from tcm.target.directory_store import DirectoryStore
from tcm.target.store import RevisionMismatch
async def main():
    store = DirectoryStore(sys.argv[1])
    for _ in range(10):
        while True:
            value, revision = await store.get("count")
            try:
                await store.put("count", str(int(value or 0) + 1), revision)
                break
            except RevisionMismatch:
                pass
anyio.run(main)
"""


def test_processes_do_not_lose_each_others_changes(tmp_path: Path) -> None:
    """Compare-and-set holds between processes: three count to ten each."""
    processes = [subprocess.Popen([sys.executable, "-c", _ADD, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "30"
