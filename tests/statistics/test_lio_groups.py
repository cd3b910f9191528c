"""The directories and files of LIO's ``statistics/`` and ``fabric_statistics/``, as a kernel showed them."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from support.raw_iscsi import INITIATOR
from support.statistics_site import NAME, apart, serving

from tcm.scsi import cdb
from tcm.statistics.registry import Statistics
from tcm.target.device import TargetDevice

pytestmark = pytest.mark.anyio
DUMP = Path(__file__).parent.parent / "data/lio-statistics.txt"
_LINE = re.compile(
    r"(?P<path>\S+)/(?:fabric_)?statistics/(?P<group>\w+)/(?P<file>\w+) (?:\(\d+\) = (?P<value>.*)|\(\d+\) ! .*)"
)


def lio() -> dict[str, dict[str, str | None]]:
    """Group to file to the first value that LIO showed."""
    found: dict[str, dict[str, str | None]] = defaultdict(dict)
    for line in DUMP.read_text().splitlines():
        match = _LINE.fullmatch(line)
        assert match is not None, line
        found[match["group"]].setdefault(match["file"], match["value"])
    return found


async def test_groups_and_files_are_lios():
    expected = lio()
    assert len(expected) == 14
    async with serving(acl=True) as site:
        acl = site.group.node_acls[INITIATOR]
        s = site.statistics
        shown = {
            **s.device(site.unit),
            **s.lun(site.group.luns[0]),
            **s.target(site.target),
            **s.node_acl(site.group, acl),
            **s.mapped_lun(site.group, acl, acl.mapped_luns[0]),
        }
        assert {group: set(files) for group, files in shown.items()} == {group: set(files) for group, files in expected.items()}
        # without a session some cannot be read, and others are empty: the same ones
        for group, files in expected.items():
            for file, value in files.items():
                assert (shown[group][file] is None) == (value is None), (group, file)
                if group == "iscsi_sess_stats":
                    assert (shown[group][file] == "") == (value == ""), file


async def test_values_with_a_session():
    async with serving(acl=True) as site:
        acl = site.group.node_acls[INITIATOR]

        def work() -> dict[str, dict[str, str | None]]:
            with site.login() as i:
                for n in range(4):
                    i.command(cdb.read(10, 0, 2048), read=1 << 20)
                    i.command(cdb.write(10, n, 8), write=bytes(4096))
                s = site.statistics
                return {
                    **s.device(site.unit),
                    **s.lun(site.group.luns[0]),
                    **s.node_acl(site.group, acl),
                    **s.mapped_lun(site.group, acl, acl.mapped_luns[0]),
                    **s.target(site.target),
                    "": {"commands": str(i.cmd_sn - 1)},
                }

        shown = await apart(work)
        commands = shown[""]["commands"]
        assert shown["scsi_lu"]["num_cmds"] == shown["scsi_lu"]["hs_num_cmds"] == commands
        assert shown["scsi_lu"]["read_mbytes"] == "4"
        assert shown["scsi_lu"]["status"] == "available"
        assert shown["scsi_lu"]["lu_name"] == site.unit.serial
        assert shown["scsi_tgt_dev"]["status"] == "activated"
        assert shown["scsi_dev"]["ports"] == "1"
        rtpi = site.group.relative_target_port_identifier
        assert shown["scsi_tgt_port"]["name"] == f"iSCSIPort#{rtpi}"
        assert shown["scsi_tgt_port"]["port_index"] == f"{NAME}+t+1"
        assert shown["scsi_tgt_port"]["in_cmds"] == commands
        assert shown["scsi_tgt_port"]["read_mbytes"] == "4"
        assert shown["scsi_transport"]["device"] == "scsiTransportiSCSI"
        assert shown["scsi_transport"]["dev_name"] == f"{NAME}+{site.unit.serial}"
        assert shown["scsi_transport"]["proto_id"] == "5"
        assert shown["scsi_auth_intr"]["intr_name"] == INITIATOR
        assert shown["scsi_auth_intr"]["num_cmds"] == commands
        assert shown["scsi_auth_intr"]["row_status"] == "Ready"
        assert (shown["scsi_att_intr_port"]["port_ident"] or "").startswith(f"{INITIATOR}+i+")
        assert shown["iscsi_sess_stats"]["cmd_pdus"] == shown["iscsi_sess_stats"]["rsp_pdus"] == commands
        assert shown["iscsi_sess_stats"]["rxdata_octs"] == str(4 * 4096)
        assert shown["iscsi_instance"]["sessions"] == "1"
        assert shown["iscsi_instance"]["portals"] == "1"


async def test_a_unit_that_nobody_exports():
    async with serving() as site:
        site.group.remove_lun(0)
        device = site.statistics.device(site.unit)
        assert device["scsi_lu"]["status"] == "notavailable"
        assert device["scsi_tgt_dev"]["status"] == "deactivated"
        assert device["scsi_dev"]["ports"] == "0"


async def test_a_fabric_that_counts_nothing():
    target = TargetDevice("naa.5001405000000001", "other")
    statistics = Statistics({}, [target], {})
    group = target.add_portal_group(1)
    assert statistics.target(target) == {}
    assert statistics.node_acl(group, group.add_node_acl("naa.5001405000000002")) == {}
    assert statistics.snapshot().logins == {}
