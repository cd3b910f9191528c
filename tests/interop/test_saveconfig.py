"""A saveconfig.json that LIO wrote, served by tcm-run: portal groups, node ACLs, mapped LUNs, demo mode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, Url, running
from support.raw_iscsi import Initiator, LoginFailed, connect

pytestmark = pytest.mark.interop

SAVED = Path(__file__).parents[1] / "data" / "lio-saveconfig.json"
GUEST = "iqn.2025-01.test.vm:guest"
READER = "iqn.2025-01.test:reader"
ALICE = ("alice", "initiatorsecret")
AUTHORIZATION_FAILURE, AUTHENTICATION_FAILURE = (2, 2), (2, 1)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """LIO's file with our paths and free ports, and one more initiator, who may only read, a LUN of another number."""
    directory = tmp_path_factory.mktemp("saved")
    saved = json.loads(SAVED.read_text())
    for each in saved["storage_objects"]:
        if each["plugin"] == "fileio":
            each["dev"] = str(directory / "file0.img")
        each["size"] = 16 << 20
    saved["targets"] = [target for target in saved["targets"] if target["fabric"] == "iscsi"]
    for group in saved["targets"][0]["tpgs"]:
        for portal in group["portals"]:
            portal.update(ip_address="127.0.0.1", port=0)
        if group["node_acls"]:
            reader = {"node_wwn": READER, "attributes": {"authentication": 0}}
            group["node_acls"].append(reader | {"mapped_luns": [{"index": 7, "tpg_lun": 0, "write_protect": True}]})
    path = directory / "saveconfig.json"
    path.write_text(json.dumps(saved))
    with running(directory, "--config", str(path), urls=3, portals=(), target=None) as daemon:
        yield daemon


def portal(daemon: Daemon, luns: int) -> Url:
    """The portal group that has so many LUNs."""
    ports = [url.port for url in daemon.urls]
    return next(url for url in daemon.urls if ports.count(url.port) == luns)


@pytest.fixture
def closed(daemon: Daemon) -> Url:
    """Node ACLs and CHAP."""
    return portal(daemon, 1)


@pytest.fixture
def demo(daemon: Daemon) -> Url:
    """Everybody gets in."""
    return portal(daemon, 2)


def refused(url: Url, **how: object) -> tuple[int, int]:
    with Initiator(url.host, url.port) as session, pytest.raises(LoginFailed) as failure:
        session.login(url.target, **how)  # type: ignore[arg-type]
    return failure.value.status


def test_acl_with_chap(closed: Url) -> None:
    with connect(closed, name=GUEST, chap=ALICE) as session:
        assert session.write(0, b"g" * 512).status == 0
    assert refused(closed, name=GUEST, chap=("alice", "another-secret")) == AUTHENTICATION_FAILURE
    assert refused(closed, name=GUEST) == AUTHENTICATION_FAILURE


def test_nobody_else(closed: Url) -> None:
    assert refused(closed, name="iqn.2025-01.test:stranger", chap=ALICE) in {AUTHORIZATION_FAILURE, AUTHENTICATION_FAILURE}


def test_mapped_lun(closed: Url) -> None:
    """The reader's LUN 7 is the group's LUN 0, write protected for this initiator only."""
    with Initiator(closed.host, closed.port) as session:
        session.login(closed.target, name=READER).ready(7)
        assert session.read(0, 1, 7).status == 0
        outcome = session.write(0, bytes(512), 7)
        assert (outcome.status, outcome.sense_key, outcome.asc[0]) == (2, 7, 0x27)
        luns = session.command(b"\xa0" + bytes(5) + (256).to_bytes(4, "big") + bytes(2), read=256).data
        assert luns == (8).to_bytes(4, "big") + bytes(4) + b"\0\7" + bytes(6)
        outcome = session.command(bytes(6), 0)
        assert (outcome.status, outcome.sense_key, outcome.asc) == (2, 5, (0x25, 0))


def test_demo_mode(demo: Url) -> None:
    for name in ("iqn.2025-01.test:somebody", "eui.0123456789ABCDEF", "naa.52004567BA64678D"):
        with connect(demo, name=name) as session:
            assert session.write(8, b"d" * 512, 1).status in {0, 2}
            assert session.ready(1).write(8, b"d" * 512, 1).status == 0


def test_one_unit_behind_two_groups(closed: Url, demo: Url) -> None:
    """What goes in through one portal group comes out of the other, and the unit says the same of itself."""
    with connect(closed, name=GUEST, chap=ALICE) as one, connect(demo) as two:
        one.write(16, b"x" * 512)
        assert two.read(16, 1).data == b"x" * 512
        serials = [each.command(bytes([0x12, 1, 0x80, 0, 255, 0]), read=255).data for each in (one, two)]
        assert serials[0] == serials[1]
