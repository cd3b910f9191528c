"""A saveconfig.json on disk: whole or not at all, private, with backups."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import signal
import stat
import time

import pytest

from tcm.control.saved import MAXIMUM_BACKUPS, write_config
from tcm.failure import ConfigError
from tcm.json_reader import read_json


def test_as_targetcli_writes_it(tmp_path):
    path = tmp_path / "saveconfig.json"
    before = os.umask(0)
    try:
        write_config(str(path), {"targets": [], "storage_objects": [{"b": 1, "a": 2}]})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == json.dumps({"storage_objects": [{"a": 2, "b": 1}], "targets": []}, indent=2) + "\n"
    assert os.listdir(tmp_path) == ["saveconfig.json"]


def test_backups_rotate(tmp_path):
    path = tmp_path / "saveconfig.json"
    for number in range(MAXIMUM_BACKUPS + 5):
        write_config(str(path), {"number": number})
        write_config(str(path), {"number": number})
    kept = sorted((tmp_path / "backup").iterdir())
    numbers = [json.loads(gzip.decompress(each.read_bytes()))["number"] for each in kept]
    assert numbers == [*range(4, 14)]
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in kept)
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "saveconfig.json"
    link.symlink_to(tmp_path / "real" / "file.json")
    write_config(str(link), {"a": 1})
    assert link.is_symlink()
    assert json.loads((tmp_path / "real" / "file.json").read_text()) == {"a": 1}


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "saveconfig.json"
    write_config(str(path), {"a": 1})
    with pytest.raises(TypeError):
        write_config(str(path), {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["saveconfig.json"]


def test_what_is_no_configuration_is_not_replaced(tmp_path):
    """``tcm-ctl save /dev/zero`` was read until there was no memory left, and a disk's image was replaced."""
    disk, sparse, folder, pipe = (tmp_path / name for name in ("disk.img", "sparse.img", "folder", "pipe"))
    disk.write_bytes(b"\xeb\x63\x90" + bytes(4096))
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    folder.mkdir()
    os.mkfifo(pipe)
    for path in (disk, sparse, folder, pipe, "/dev/zero", "/dev/null", f"{tmp_path}/a\0b"):
        with pytest.raises(OSError, match="write") as caught:
            write_config(str(path), {"a": 1})
        assert caught.value.filename == str(path)
    assert disk.read_bytes()[:3] == b"\xeb\x63\x90"
    assert sorted(os.listdir(tmp_path)) == ["disk.img", "folder", "pipe", "sparse.img"]


@pytest.mark.parametrize("before", ["", "\n", '{"targets": [{"wwn"', " {}"])
def test_what_is_left_of_a_configuration_is_replaced(tmp_path, before):
    path = tmp_path / "saveconfig.json"
    path.write_text(before)
    write_config(str(path), {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}


def test_what_has_no_end_is_no_configuration(tmp_path):
    sparse = tmp_path / "sparse.img"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    for path in (str(sparse), "/dev/zero"):
        with pytest.raises(ConfigError, match=r"longer than 64 MiB; write the path of a saveconfig\.json"):
            read_json(path)


def _write_for_ever(path):
    number = 0
    while True:
        number += 1
        write_config(path, {"numbers": [number] * 50_000}, backups=2)


def test_killed_at_any_moment_it_is_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "saveconfig.json"
    write_config(str(path), {"numbers": [0] * 50_000})
    context = multiprocessing.get_context("fork")
    for delay in (0.03, 0.05, 0.08, 0.11, 0.13, 0.17):
        process = context.Process(target=_write_for_ever, args=(str(path),))
        process.start()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        numbers = json.loads(path.read_text())["numbers"]
        assert len(numbers) == 50_000
        assert len({*numbers}) == 1
