"""iscsi-ls, iscsi-inq, iscsi-swp and iscsi-readcapacity16 of libiscsi, over IPv4 and IPv6, with and without CHAP."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.daemon import TARGET, Daemon, Url, running
from support.programs import program
from support.raw_iscsi import connect

pytestmark = pytest.mark.interop

SECRET = "sixteen-byte-key"
MUTUAL_SECRET = "target's-own-key"


def tool(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(command[0]), *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",  # it prints designators as they are
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def said(*command: str, **environment: str) -> str:
    done = tool(*command, **environment)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}: {done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("tools")
    luns = ("--lun", f"0=fileio:path={directory / 'lun0.img'},size=32M", "--lun", "5=ramdisk:size=16M,block-size=4096")
    with running(directory, *luns, urls=4, portals=("127.0.0.1:0", "[::1]:0")) as daemon:
        yield daemon


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["ipv4", "ipv6"])
def url(daemon: Daemon, request: pytest.FixtureRequest) -> Url:
    return next(url for url in daemon.urls if url.host == request.param and url.lun == 0)


def test_ls(url: Url) -> None:
    output = said("iscsi-ls", "--show-luns", f"iscsi://{url.portal}")
    assert f"Target:{TARGET} Portal:" in output
    portals = [line.split("Portal:")[1] for line in output.splitlines() if "Portal:" in line]
    assert any(portal.startswith(url.portal + ",1") for portal in portals), output
    assert "Lun:0" in output
    assert "Lun:5" in output
    assert output.count("DIRECT_ACCESS") >= 2, output


def test_inquiry(url: Url) -> None:
    output = said("iscsi-inq", url.text)
    assert "DIRECT_ACCESS" in output
    assert "Vendor:LIO-ORG" in output


@pytest.mark.parametrize("page", [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2])
def test_vital_product_data(url: Url, page: int) -> None:
    output = said("iscsi-inq", "--evpd=1", f"--pagecode={page}", url.text)
    assert output.strip(), f"page {page:02x}h: nothing said"
    if page == 0x00:
        assert "0x83" in output
        assert "0xb0" in output.lower()


def test_read_capacity(daemon: Daemon) -> None:
    first = said("iscsi-readcapacity16", daemon.urls[0].text)
    assert str(32 << 20 >> 9) in first or str((32 << 20 >> 9) - 1) in first, first
    with connect(next(url for url in daemon.urls if url.lun == 5)) as session:
        assert session.capacity(5) == ((16 << 20) // 4096, 4096)


def test_perf(daemon: Daemon) -> None:
    """Random reads, 32 in flight, for a second; the figure is the machine's business."""
    output = said("iscsi-perf", "-r", "-m", "32", "-b", "8", "-t", "1", daemon.url.text)
    assert "iops" in output.lower(), output


def test_software_write_protect(url: Url) -> None:
    with connect(url) as session:
        assert session.write(0, bytes(512)).status == 0
        said("iscsi-swp", "--swp=on", url.text)
        session.ready()
        refused = session.write(0, bytes(512))
        assert (refused.status, refused.sense_key, refused.asc[0]) == (2, 7, 0x27)
        said("iscsi-swp", "--swp=off", url.text)
        session.ready()
        assert session.write(0, bytes(512)).status == 0


def test_no_such_lun_or_target(url: Url) -> None:
    assert tool("iscsi-inq", url.text.removesuffix("/0") + "/77").returncode != 0
    other = tool("iscsi-inq", url.text.replace(TARGET, "iqn.2025-01.test:nobody"))
    assert other.returncode != 0
    assert "target not found" in other.stdout.lower().replace("_", " "), other.stdout


def test_chap(tmp_path: Path) -> None:
    secrets = {"TCM_CHAP_SECRET": SECRET, "TCM_CHAP_MUTUAL_SECRET": MUTUAL_SECRET}
    arguments = ("--lun", "ramdisk:size=16M", "--chap", "alice", "--chap-mutual", "bob")
    with running(tmp_path, *arguments, env=secrets) as daemon:
        assert "LIO-ORG" in said("iscsi-inq", daemon.url.with_user("alice", SECRET))
        known = {"LIBISCSI_CHAP_USERNAME": "alice", "LIBISCSI_CHAP_PASSWORD": SECRET}
        assert "LIO-ORG" in said("iscsi-inq", daemon.url.text, **known)
        target = {"LIBISCSI_CHAP_TARGET_USERNAME": "bob", "LIBISCSI_CHAP_TARGET_PASSWORD": MUTUAL_SECRET}
        assert "LIO-ORG" in said("iscsi-inq", daemon.url.text, **known, **target)
        assert TARGET in said("iscsi-ls", f"iscsi://{daemon.url.portal}")
        for url, environment in (
            (daemon.url.text, {}),
            (daemon.url.with_user("alice", "wrong-secret-123"), {}),
            (daemon.url.with_user("mallory", SECRET), {}),
            (daemon.url.text, {**known, **target, "LIBISCSI_CHAP_TARGET_PASSWORD": "another-secret-1"}),
        ):
            assert tool("iscsi-inq", url, **environment).returncode != 0, (url, environment)
        assert SECRET not in daemon.log()
