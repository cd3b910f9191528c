"""Stories of sg3_utils, fio and multipath, told by a Linux guest: two nodes on two target portal groups of the real daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import TARGET, running
from support.guest import Guest

pytestmark = [pytest.mark.interop, pytest.mark.guest]

STORIES = ("reservations", "fencing")
"""Modules of ``stories``, in this order; each has the logical unit of its name."""


def saveconfig(directory: Path) -> Path:
    """One target with two portal groups that have the same logical units: a thin one a story."""
    objects = [
        {
            "plugin": "fileio",
            "name": name,
            "dev": str(directory / f"{name}.img"),
            "size": 64 << 20,
            "write_back": True,
            "wwn": f"{index + 1:08x}-94eb-4c69-8c09-ff4c53d8870a",
            "attributes": {"emulate_tpu": 1, "emulate_tpws": 1},
        }
        for index, name in enumerate(STORIES)
    ]
    group = {
        "enable": True,
        "attributes": {"authentication": 0, "generate_node_acls": 1, "cache_dynamic_acls": 1, "demo_mode_write_protect": 0},
        "portals": [{"ip_address": "127.0.0.1", "port": 0}],
        "luns": [{"index": index, "storage_object": f"/backstores/fileio/{name}"} for index, name in enumerate(STORIES)],
    }
    target = {"fabric": "iscsi", "wwn": TARGET, "tpgs": [group | {"tag": tag} for tag in (1, 2)]}
    path = directory / "saveconfig.json"
    path.write_text(json.dumps({"storage_objects": objects, "targets": [target]}))
    return path


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest, once it has told all of them in one boot."""
    directory = tmp_path_factory.mktemp("stories")
    config = str(saveconfig(directory))
    with running(directory / "run", "--config", config, urls=2 * len(STORIES), portals=(), target=None) as daemon:
        ports = list(dict.fromkeys(url.port for url in daemon.urls))
        guest = Guest(directory, "scsi.guest", *STORIES, timeout=500, files=("stories",))
        try:
            cluster = {
                "target": TARGET,
                "portals": [f"10.0.2.2:{port}" for port in ports],
                "luns": {name: index for index, name in enumerate(STORIES)},
            }
            (guest.share / "cluster.json").write_text(json.dumps(cluster))
            guest.finish()
            yield guest
        finally:
            guest.end()


@pytest.mark.parametrize("story", STORIES)
def test_story(told: Guest, story: str) -> None:
    result = told.share / "results" / story
    assert result.exists(), told.output[-6000:]
    assert not result.read_text(), told.output[-20000:]
