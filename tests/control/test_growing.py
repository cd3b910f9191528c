"""A disk becomes larger while it is served, by ``apply`` or ``control``: everybody hears of it, nobody is interrupted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.controlled import BLOCK, Ctl, controlled
from support.raw_iscsi import connect

MIB = 1 << 20
CHANGED = (6, (0x2A, 0x09))


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with controlled(tmp_path, "--lun", f"fileio:path={tmp_path}/disk.img,size=4M") as made:
        yield made


def grown(ctl: Ctl, folder: Path, size: int, **more: Any) -> str:
    config = ctl.export(folder)
    (storage_object,) = config["storage_objects"]
    storage_object.update(size=size, **more)
    path = folder / "grown.json"
    path.write_text(json.dumps(config))
    return str(path)


@contextmanager
def told(ctl: Ctl) -> Iterator[None]:
    """One initiator that writes all the time and one that does nothing hear of the new capacity, once, and of nothing else."""
    ended = threading.Event()
    heard, others = [], []
    writing, idle = (connect(ctl.daemon.url, name=f"iqn.2025-01.test:{name}").ready() for name in ("writing", "idle"))

    def write() -> None:
        count = 0
        while not ended.is_set():
            count += 1
            outcome = writing.write(count % 1000 * 8, bytes([count % 251]) * (8 * BLOCK))
            if outcome.status:
                (heard if (outcome.sense_key, outcome.asc) == CHANGED else others).append(outcome)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
        outcome = idle.command(bytes(6))
        assert (outcome.sense_key, outcome.asc) == CHANGED
        assert idle.command(bytes(6)).status == 0
    finally:
        ended.set()
        thread.join(30)
        last = writing.command(bytes(6))
        heard.extend([last] if last.status else [])
        writing.close()
        idle.close()
    assert others == []
    assert len(heard) == 1


def capacity(ctl: Ctl) -> int:
    with connect(ctl.daemon.url) as initiator:
        blocks, block = initiator.capacity()
    return blocks * block


def test_by_apply_under_load(ctl, tmp_path):
    path = grown(ctl, tmp_path, 8 * MIB)
    with told(ctl):
        (operation,) = ctl.json("apply", path)
        assert operation["value"] == f"fd_dev_size={8 * MIB}"
    assert capacity(ctl) == 8 * MIB
    assert (tmp_path / "disk.img").stat().st_size == 8 * MIB
    assert ctl.export(tmp_path)["storage_objects"][0]["size"] == 8 * MIB
    assert ctl.run("diff", path) == "nothing to change\n"


def test_by_the_tree_under_load(ctl):
    (name,) = ctl.json("ls", "core/fileio_0")["children"].keys() - {"hba_info", "hba_mode"}
    device = f"core/fileio_0/{name}"
    with told(ctl):
        ctl.run("set", f"{device}/control", f"fd_dev_size={8 * MIB}")
    for value, said in (
        (f"fd_dev_size={4 * MIB}", "data would be lost; write as many or more"),
        (f"fd_dev_size={8 * MIB + 100}", "write a multiple of 512"),
        (f"fd_dev_size={16 * MIB},fd_buffered_io=0", "only its size can grow"),
        ("fd_dev_name=/elsewhere", "only its size can grow"),
    ):
        assert said in ctl.run("set", f"{device}/control", value, code=1)
    assert capacity(ctl) == 8 * MIB


def test_what_is_opened_anew_has_its_new_size(ctl, tmp_path):
    path = grown(ctl, tmp_path, 8 * MIB, write_back=False)
    refused = ctl.run("apply", path, code=1)
    assert "no write cache to flush" in refused
    assert "nothing was changed" in refused
    assert capacity(ctl) == 4 * MIB
    config = json.loads(Path(path).read_text())
    config["storage_objects"][0]["attributes"]["emulate_write_cache"] = 0
    Path(path).write_text(json.dumps(config))
    ctl.run("apply", path)
    assert capacity(ctl) == 8 * MIB
    assert ctl.export(tmp_path)["storage_objects"][0]["write_back"] is False


def test_it_comes_last_since_it_cannot_be_taken_back(ctl, tmp_path):
    path = grown(ctl, tmp_path, 8 * MIB)
    config = json.loads(Path(path).read_text())
    config["targets"][0]["tpgs"][0]["portals"].append({"ip_address": "192.0.2.1", "port": 3260})
    Path(path).write_text(json.dumps(config))
    assert "nothing was changed" in ctl.run("apply", path, code=1)
    assert capacity(ctl) == 4 * MIB


def test_a_ram_disk_does_not_grow(tmp_path):
    with controlled(tmp_path, "--lun", "ramdisk:size=4M") as ctl:
        (name,) = ctl.json("ls", "core/rd_mcp_0")["children"].keys() - {"hba_info", "hba_mode"}
        assert "make another one" in ctl.run("set", f"core/rd_mcp_0/{name}/control", "rd_pages=4096", code=1)
        assert capacity(ctl) == 4 * MIB
