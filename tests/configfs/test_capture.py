"""The tree beside LIO's: the steps of a configuration dumped from LIO, then every path, mode and value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.lio_tree import SERIAL, Site, captured, serving
from support.programs import free_port

CAPTURE = Path(__file__).parent.parent / "data" / "lio-configfs-tree.txt"
TARGET = "iscsi/iqn.2003-01.org.linux-iscsi.lio:t1"
GUEST = f"{TARGET}/tpgt_2/acls/iqn.2025-01.test.vm:guest"
RAM_SERIAL = "df6cd573-9850-4ba1-8ff5-2fb627716b87"

MORE = (
    # Linux 6.1 has none of these, 7.2 does
    r"core/\w+/\w+/attrib/(atomic_\w+|complete_type|emulate_rsoc|submit_type)",
    r"core/\w+/\w+/wwn/pd_text_id_info",
    r"\w+/[^/]+/param/(default|direct)_\w+",
    r"\w+/[^/]+/tpgt_\d+/rtpi",
    # LIO has them only where they were asked for when it was built
    r".*/acls/[^/]+/attrib/random_\w+",
    # ours
    r"core/\w+/\w+/tcm_filters",
    r".*/tcm_(attrib|acl_attrib|param)(/\w+)?",
)
"""What we have and the dump has not."""

DIFFERENT = {
    r"version|iscsi/lio_version|loopback/version": "says what it is",
    r"dbroot": "another directory",
    r"core/\w+/\w+/info": "checked below; the largest transfer is our own",
    r"core/\w+/\w+/udev_path": "free text",
    r"core/\w+/\w+/attrib/hw_max_sectors": "8 MiB; LIO's RAM disk has no limit",
    r"core/\w+/\w+/attrib/optimal_sectors": "the same",
    r"core/\w+/\w+/attrib/queue_depth": "256, which one iSCSI session may have outstanding",
    r"core/\w+/\w+/attrib/hw_queue_depth": "no hardware limits it",
    r"core/\w+/\w+/attrib/emulate_tp(u|ws)": "on from the start where the backstore unmaps",
    r"core/\w+/\w+/attrib/(max_unmap|unmap)_\w+": "what follows from it",
    r"core/\w+/\w+/attrib/max_write_same_len": "65535, as much as WRITE SAME (10) can ask for",
    r"core/\w+/\w+/attrib/is_nonrot": "a file is taken for what lies below it",
    r".*/statistics/.*/(inst|indx|dev|role|creation_time|port|port_auth_indx|name|att_count)": "numbers as they were given out",
    r".*/fabric_statistics/.*/(inst|node|indx|fail_intr_addr|description|vendor|version)": "the same, and what it is",
    r".*/fabric_statistics/iscsi_instance/(max_ver|min_ver|disc_time)": "counted, not always zero",
    r".*/np/[^/]+(/.*)?": "other ports",
    r".*/tpgt_\d+/param/(InitialR2T|MaxRecv\w+|MaxBurstLength|FirstBurstLength|MaxOutstandingR2T)": "for throughput",
    r".*/tpgt_\d+/param/TargetAlias": "another target",
    r".*/wwn/(product_id|revision)": "checked below",
    r"iscsi/cpus_allowed_list": "this machine's",
}
"""Values that may differ, and why."""


def matches(path: str, patterns) -> bool:
    return any(re.fullmatch(pattern, path) for pattern in patterns)


async def build(site: Site, directory: Path) -> None:
    """What was done to LIO before the dump."""
    write, make, link = site.write, site.make, site.link
    file, ram = "core/fileio_0/file0", "core/rd_mcp_1/ram0"
    await site.make_all(file, ram)
    await write(f"{file}/control", f"fd_dev_name={directory}/file0.img,fd_dev_size=1073741824,fd_buffered_io=1\n")
    await write(f"{ram}/control", "rd_pages=65536\n")
    for device, serial in ((file, SERIAL), (ram, RAM_SERIAL)):
        await write(f"{device}/enable", "1\n")
        await write(f"{device}/wwn/vpd_unit_serial", f"{serial}\n")
        await write(f"{device}/attrib/emulate_model_alias", "1\n")
    one, two = f"{TARGET}/tpgt_1", f"{TARGET}/tpgt_2"
    await site.make_all(one, two)
    for name, value in (
        ("authentication", 0),
        ("cache_dynamic_acls", 1),
        ("demo_mode_write_protect", 0),
        ("generate_node_acls", 1),
    ):
        await write(f"{one}/attrib/{name}", f"{value}\n")
    await write(f"{two}/attrib/authentication", "1\n")
    for group, lun, alias, device in (
        (one, 0, "dba179e2dd", file),
        (one, 1, "115b6de434", ram),
        (two, 0, "cc82f03a36", file),
    ):
        await make(f"{group}/lun/lun_{lun}")
        await link(f"{group}/lun/lun_{lun}/{alias}", device)
    await make(f"{one}/np/127.0.0.1:{free_port()}")
    await make(f"{two}/np/127.0.0.1:{free_port()}")
    await make(GUEST)
    await make(f"{GUEST}/lun_0")
    await link(f"{GUEST}/lun_0/7167243a46", f"{two}/lun/lun_0")
    await write(f"{GUEST}/lun_0/write_protect", "0\n")
    for name, value in (
        ("userid", "alice"),
        ("password", "initiatorsecret"),
        ("userid_mutual", "bob"),
        ("password_mutual", "targetsecret12"),
    ):
        await write(f"{GUEST}/auth/{name}", f"{value}\n")
    await write(f"{one}/enable", "1\n")
    await write(f"{two}/enable", "1\n")
    await site.make_all("loopback/naa.5001405000000001/tpgt_1")
    await write("loopback/naa.5001405000000001/tpgt_1/nexus", "naa.5001405f88ed274e")


@pytest.mark.anyio
async def test_every_path_mode_and_value(tmp_path):
    async with serving(tmp_path) as site:
        await build(site, tmp_path)
        ours, theirs = site.entries(), captured(CAPTURE)
        everywhere = {path for path in ours.keys() | theirs.keys() if "/np/" not in path}
        missing = sorted(path for path in everywhere if path not in ours)
        assert missing == []
        unexplained = sorted(path for path in everywhere if path not in theirs and not matches(path, MORE))
        assert unexplained == []
        both = sorted(everywhere & ours.keys() & theirs.keys())
        assert len(both) > 450
        assert {path for path in ours if "/np/" in path and ours[path].mode} == {
            f"{path}/{name}" for path in ours for name in ("cxgbit", "iser") if re.search("/np/[^/]+$", path)
        }
        assert {path: (ours[path].mode, theirs[path].mode) for path in both if ours[path].mode != theirs[path].mode} == {}
        values = {
            path: (ours[path].content, theirs[path].content)
            for path in both
            # the dump is without spaces at the end
            if (ours[path].content or "").rstrip() != (theirs[path].content or "")
        }
        assert {path: value for path, value in values.items() if not matches(path, DIFFERENT)} == {}
        for pattern in DIFFERENT:
            assert any(re.fullmatch(pattern, path) for path in ours), f"{pattern} explains nothing"
        assert ours["core/fileio_0/file0/wwn/product_id"].content == "file0"
        assert ours["core/fileio_0/file0/wwn/revision"].content == "4.0"


@pytest.mark.anyio
async def test_info_is_what_rtslib_parses(tmp_path):
    async with serving(tmp_path) as site:
        await build(site, tmp_path)
        info = site.read("core/fileio_0/file0/info")
        first, second = info.splitlines()
        assert re.fullmatch(r"Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 16384", first)
        assert second == (
            f"        TCM FILEIO ID: 0        File: {tmp_path}/file0.img  Size: 1073741824  Mode: Buffered-WCE Async: 0"
        )
        assert "PAGES/PAGE_SIZE: 65536*4096" in site.read("core/rd_mcp_1/ram0/info")
