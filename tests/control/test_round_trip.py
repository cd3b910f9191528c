"""What can be set is kept: each attribute of the tree gets another value, and has it after ``restore`` and after a restart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.controlled import Ctl, controlled
from support.programs import free_port

from tcm.control.client import Client, Refused

IQN = "iqn.2003-01.org.example:round-trip"
TPG = f"iscsi/{IQN}/tpgt_1"
ACL = f"{TPG}/acls/iqn.1994-05.com.redhat:me"
LOOP = "loopback/naa.5001405000000001"
VALUES = (
    *("1", "0", "2", "3", "8", "16", "20", "64", "100", "512", "4096", "8192", "65536", "Yes", "No", "CRC32C", "None"),
    *("0x00abcd", "10.0.0.0/8", "iqn.1994-05.com.redhat:*", "10.1.2.3:3260", "pair", "far", "offline"),
)
"""To be tried one after another."""
FIRST = (
    ("core/fileio_5/written-back/tcm_filters", "log\ndelay:read=1\n"),
    ("core/alua/lu_gps/pair/lu_gp_id", "7"),
    ("core/fileio_0/file/alua/far/tg_pt_gp_id", "5"),
    ("core/rd_mcp_1/ram/wwn/vpd_unit_serial", "a serial that is no UUID"),
    ("core/rd_mcp_1/ram/attrib/block_size", "4096"),
    ("core/fileio_0/file/lba_map", "2048 1\n0 2047 0:O 5:A\n"),
)
GIVEN_ONCE = (
    r"dbroot|.*/(control|enable|tcm_filters|tg_pt_gp_id|lu_gp_id|vpd_unit_serial|block_size|lba_map)|"
    r".*/(res_aptpl_metadata|hba_mode)"
)
HAS_ONE_VALUE = r".*/((alua|pgr)_support|(submit|complete)_type|emulate_(dpo|fua_read|rest_reord)|cmd_completion_affinity)"
NOT_HERE = r".*/(iser|cxgbit|IFMark(er|Int)|OFMark(er|Int)|pi_prot_\w+|nexus|cpus_allowed_list|alua_tg_pt_offline)"
"""What the storage objects, the fabrics or the machine of this test have only one value for."""
NOT_KEPT = r".*/(hba_info|address|members|info)"
"""What follows from other things."""


class Site:
    def __init__(self, ctl: Ctl) -> None:
        self.client = Client(ctl.control)

    def make(self, path: str) -> None:
        names = path.split("/")
        for length in range(1, len(names) + 1):
            with suppress(Refused):  # what is there; if anything else is missing, it shows at once
                self.client.call("make", path="/".join(names[:length]))

    def write(self, path: str, value: str) -> None:
        self.client.call("write", path=path, value=value)

    def takes(self, path: str, value: str) -> bool:
        try:
            self.write(path, value)
        except Refused:
            return False
        return True

    def attributes(self) -> dict[str, tuple[int, str | None]]:
        """Path to mode and value; HBAs without their numbers, links without their names."""
        listing = self.client.call("list", path="", depth=-1, values=True, statistics=False)
        return dict(self._walk(listing, ""))

    def _walk(self, node: dict[str, Any], path: str) -> Iterator[tuple[str, tuple[int, str | None]]]:
        for name, child in node.get("children", {}).items():
            below = f"{path}/{name}".lstrip("/")
            if child["kind"] == "group":
                yield from self._walk(child, below)
            elif child["kind"] == "attribute":
                yield below, (child["mode"], child.get("value"))

    def change(self, pattern: str) -> set[str]:
        """Every writable attribute there that takes another value has one afterwards; the paths of those that do not."""
        left = set()
        for path, (mode, before) in self.attributes().items():
            if mode & 0o200 and re.match(pattern, path) and not re.fullmatch(GIVEN_ONCE, path):
                for value in VALUES:
                    if value != (before or "").strip() and self.takes(path, value) and self.read(path) != before:
                        break
                else:
                    left.add(path)
        return left

    def read(self, path: str) -> str | None:
        try:
            value: str = self.client.call("read", path=path)["value"]
        except Refused:
            return None
        return value

    def kept(self) -> dict[str, str | None]:
        return {
            re.sub(r"^core/(\w+?)_\d+/", r"core/\1/", path): value
            for path, (_, value) in self.attributes().items()
            if not re.fullmatch(NOT_KEPT, path)
        }


def changed(now: dict[str, str | None], before: dict[str, str | None]) -> dict[str, tuple[str | None, str | None]]:
    return {path: (before.get(path), now.get(path)) for path in now | before if before.get(path) != now.get(path)}


def build(site: Site, folder: Path) -> None:
    for device, control in (
        ("core/fileio_0/file", f"fd_dev_name={folder}/file.img,fd_dev_size=67108864"),
        ("core/fileio_5/written-back", f"fd_dev_name={folder}/back.img,fd_dev_size=67108864,fd_buffered_io=1"),
        ("core/rd_mcp_1/ram", "rd_pages=4096"),
        ("core/rd_mcp_1/nothing", "rd_pages=4096,rd_nullio=1"),
        ("core/null_0/null", "size=1M"),
    ):
        site.make(device)
        site.write(f"{device}/control", control)
        if device.endswith("written-back"):
            site.write(*FIRST[0])
        site.write(f"{device}/enable", "1")
    for path in ("core/alua/lu_gps/pair", "core/fileio_0/file/alua/far", f"{TPG}/np/127.0.0.1:{free_port()}"):
        site.make(path)
    for path in (f"{TPG}/lun/lun_0", f"{TPG}/lun/lun_300", f"{ACL}/lun_3", f"{ACL}-2", f"iscsi/{IQN}/tpgt_2/lun/lun_0"):
        site.make(path)
    site.make(f"{LOOP}/tpgt_3/lun/lun_2")
    for path, value in FIRST[1:]:
        site.write(path, value)


def link(site: Site) -> None:
    for path, target in (
        (f"{TPG}/lun/lun_0", "core/fileio_0/file"),
        (f"{TPG}/lun/lun_300", "core/rd_mcp_1/ram"),
        (f"iscsi/{IQN}/tpgt_2/lun/lun_0", "core/fileio_5/written-back"),
        (f"{LOOP}/tpgt_3/lun/lun_2", "core/fileio_0/file"),
        (f"{ACL}/lun_3", f"{TPG}/lun/lun_300"),
    ):
        site.client.call("link", path=f"{path}/l", target=target)


def test_every_attribute_is_kept(tmp_path: Path) -> None:
    arguments = ("--fabric", "loopback:nexus=")
    file = tmp_path / "state" / "saveconfig.json"
    with controlled(tmp_path, *arguments, "--empty", urls=0, target=None, portals=()) as ctl:
        ctl.wait_for_socket()
        site = Site(ctl)
        build(site, tmp_path)
        left = site.change(r"core/")
        link(site)
        left |= site.change(r"(iscsi|loopback)/")
        site.write(f"{TPG}/rtpi", "77")
        site.write(f"{TPG}/enable", "1")
        unexplained = {path for path in left if not re.fullmatch(f"{HAS_ONE_VALUE}|{NOT_HERE}", path)}
        # no cache, one group, and the state that the group is in
        some = {"emulate_write_cache", "alua_tg_pt_gp", "alua_support_active_nonoptimized"}
        assert {path.rpartition("/")[2] for path in unexplained} <= some, unexplained
        before = site.kept()
        assert len(before) > 600
        ctl.run("save")
        ctl.run("clear", "--confirm")
        assert "not taken" not in ctl.run("restore")
        assert changed(site.kept(), before) == {}
        assert ctl.run("diff", str(file)) == "nothing to change\n"
        site.client.close()
    with controlled(tmp_path, *arguments, "--config", str(file), urls=0, target=None, portals=()) as ctl:
        ctl.wait_for_socket()
        site = Site(ctl)
        assert changed(site.kept(), before) == {}
        assert ctl.run("diff", str(file)) == "nothing to change\n"
        site.client.close()
