"""Stories of sg3_utils, fio and multipath, told by a Linux guest: two nodes on two target portal groups of the real daemon."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.daemon import TARGET, running
from support.guest import Guest
from support.relay import Relay

pytestmark = [pytest.mark.interop, pytest.mark.guest]

STORIES = ("reservations", "fencing", "utilities", "copying", "protection", "referrals", "multipath", "comparison")
"""Modules of ``stories``, in this order; each has the logical unit of its name."""
SERIALS = {name: f"{index + 1:08x}-94eb-4c69-8c09-ff4c53d8870a" for index, name in enumerate(STORIES)}
GROUPS = {1: ("left", 0), 2: ("right", 1)}
"""Target port groups of ``multipath`` and ``referrals``: for each portal group, name and access state to begin with."""
CONFORMANCE = Path(__file__).parents[2] / "docs" / "conformance.md"


def saveconfig(directory: Path) -> Path:
    """One target with two portal groups that have the same logical units: a thin one a story."""
    objects: list[dict[str, Any]] = [
        {
            "plugin": "fileio",
            "name": name,
            "dev": str(directory / f"{name}.img"),
            "size": 64 << 20,
            "write_back": True,
            "wwn": SERIALS[name],
            "attributes": {"emulate_tpu": 1, "emulate_tpws": 1},
        }
        for name in STORIES
    ]
    for each in objects:
        if each["name"] == "multipath":
            each["alua_tpgs"] = [
                {"name": name, "tg_pt_gp_id": tag, "alua_access_state": state, "nonop_delay_msecs": 0, "trans_delay_msecs": 200}
                for tag, (name, state) in GROUPS.items()
            ]
        if each["name"] == "referrals":
            each["lba_map"] = ["0 0", "0 65535 1:O 2:A", "65536 131071 1:A 2:O"]
            each["alua_tpgs"] = [
                {
                    "name": name,
                    "tg_pt_gp_id": tag,
                    "alua_access_state": 4,
                    "alua_access_type": 1,
                    "alua_support_lba_dependent": 1,
                }
                for tag, (name, _) in GROUPS.items()
            ]
    groups = [
        {
            "tag": tag,
            "enable": True,
            "attributes": {"authentication": 0, "generate_node_acls": 1, "cache_dynamic_acls": 1, "demo_mode_write_protect": 0},
            "portals": [{"ip_address": "127.0.0.1", "port": 0}],
            "luns": [
                {"index": index, "storage_object": f"/backstores/fileio/{name}"}
                | ({"alua_tg_pt_gp_name": GROUPS[tag][0]} if name in {"multipath", "referrals"} else {})
                for index, name in enumerate(STORIES)
            ],
        }
        for tag in GROUPS
    ]
    path = directory / "saveconfig.json"
    path.write_text(json.dumps({"storage_objects": objects, "targets": [{"fabric": "iscsi", "wwn": TARGET, "tpgs": groups}]}))
    return path


def follow(guest: Guest, relay: Relay) -> None:
    """Cut the relay and mend it as the guest wishes, until the guest has ended."""
    cut = guest.share / "cut"
    while guest.process.poll() is None:
        with ExitStack() as open_relay:
            open_relay.enter_context(relay)
            while not cut.exists() and guest.process.poll() is None:
                guest.wait(0.1)
        while cut.exists() and guest.process.poll() is None:
            guest.wait(0.1)
        relay = Relay(*relay.to, listen=relay.port)
    relay.listener.close()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest, once it has told all of them in one boot."""
    directory = tmp_path_factory.mktemp("stories")
    config = str(saveconfig(directory))
    with running(directory / "run", "--config", config, urls=2 * len(STORIES), portals=(), target=None) as daemon:
        ports = list(dict.fromkeys(url.port for url in daemon.urls))
        relay = Relay("127.0.0.1", ports[0])
        guest = Guest(directory, "scsi.guest", *STORIES, timeout=900, files=("stories",))
        try:
            cluster = {
                "target": TARGET,
                "portals": [f"10.0.2.2:{port}" for port in ports],
                "relayed": f"10.0.2.2:{relay.port}",
                "luns": {name: index for index, name in enumerate(STORIES)},
                "serials": SERIALS,
            }
            (guest.share / "cluster.json").write_text(json.dumps(cluster))
            follow(guest, relay)
            print(guest.finish())
            yield guest
        finally:
            guest.end()


@pytest.mark.parametrize("story", STORIES)
def test_story(told: Guest, story: str) -> None:
    result = told.share / "results" / story
    assert result.exists(), told.report()
    assert not result.read_text(), f"{told.output[-20000:]}\n{result.read_text()}"


def explained() -> set[str]:
    """Questions in the table of docs/conformance.md: what stands between backquotes in its first column."""
    part = CONFORMANCE.read_text().partition("\n## Beside LIO\n")[2].partition("\n## ")[0]
    return {
        name for row in part.splitlines() if row.startswith("| `") for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])
    }


def test_differences_are_explained(told: Guest) -> None:
    """Whatever LIO answers otherwise has a row that says why; a row is about a question that is asked."""
    found = json.loads((told.share / "differences.json").read_text())
    unexplained = {name: pair for name, pair in found["differences"].items() if name not in explained()}
    assert not unexplained, json.dumps(unexplained, indent=1)
    assert explained() <= set(found["asked"])
    assert found["asked"], "nothing was asked"
