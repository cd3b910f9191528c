"""What is counted is what has happened: by the initiator's own account, on the express lane and on the general path."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest
from support.raw_iscsi import INITIATOR, LoginFailed
from support.scsi import make_lu, ramdisk
from support.statistics_site import NAME, SIZE, Site, apart, serving
from tcm_iscsi.protocol.failure import Failure
from tcm_iscsi.protocol.pdu import LoginStatus, LogoutReason

from tcm.scsi import cdb
from tcm.target.latency import BUCKETS, Latency
from tcm.target.node_acl import Authentication

pytestmark = pytest.mark.anyio
TEST_UNIT_READY = bytes(6)


def work(site: Site, reads: int, writes: int, others: int) -> int:
    """Ordinary commands; how many there were, those of the login included."""
    with site.login() as i:
        before = i.cmd_sn
        for n in range(reads):
            assert i.command(cdb.read(10, n, 8), read=4096).status == 0
        for n in range(writes):
            assert i.command(cdb.write(10, n, 8), write=bytes(4096)).status == 0
        for _ in range(others):
            assert i.command(TEST_UNIT_READY).status == 0
        assert i.cmd_sn - before == reads + writes + others
        commands = i.cmd_sn - 1
        i.logout()
        return commands


async def test_commands_are_counted_wherever_somebody_looks():
    async with serving(acl=True) as site:
        commands = await apart(work, site, 20, 10, 5)
        await site.until_left()
        mapped = site.group.node_acls[INITIATOR].mapped_luns[0]
        for counted in (site.unit.totals(), site.group.luns[0].totals(), mapped.retired):
            assert counted["read_cmds"] == 20
            assert counted["write_cmds"] == 10
            assert counted["other_cmds"] == commands - 30
            assert counted["write_bytes"] == 10 * 4096
            assert counted["read_bytes"] - counted["parameter_bytes_in"] == 20 * 4096
            assert counted["task_cmds"] <= commands
        assert counted["task_cmds"] == commands - 30, "reads and writes of the RAM disk take the express lane"
        latency = site.unit.latency
        assert latency.other.count == commands - 30
        assert latency.read.count == latency.write.count == 0


async def test_a_session_counts_pdus_of_both_ways_of_going_through():
    async with serving() as site:

        def look() -> tuple[int, int, int]:
            with site.login() as i:
                for n in range(30):
                    i.command(cdb.read(10, n, 1), read=512)
                i.command(cdb.read(10, 1 << 20, 1), read=512)  # beyond the end
                i.command(cdb.write(10, 0, 8), write=bytes(4096))
                (row,) = site.statistics.snapshot().sessions["iscsi"]
                assert row.cmd_pdus == row.rsp_pdus == i.cmd_sn - 1
                assert (row.target, row.tag, row.initiator, len(row.addresses)) == (NAME, 1, INITIATOR, 1)
                assert row.rxdata_octets == 4096
                assert row.txdata_octets >= 30 * 512
                return row.cmd_pdus, row.rsp_pdus, i.cmd_sn

        await apart(look)
        await site.until_left()
        assert site.statistics.snapshot().sessions["iscsi"] == []


async def test_each_command_of_the_express_lane_is_timed():
    async with serving() as site:
        await apart(work, site, 300, 100, 0)
        latency = site.unit.latency
        assert (latency.express_read.count, latency.express_write.count) == (300, 100)
        assert 0 < latency.express_read.microseconds < 5_000_000
        assert latency.read.count == latency.write.count == 0


async def test_those_of_one_batch_have_its_time():
    async with serving() as site:

        def many() -> None:
            with site.login() as i:
                for _ in range(5):
                    tags = [i.start(cdb.read(10, n, 8), read=4096) for n in range(32)]
                    for tag in tags:
                        assert i.finish(tag).status == 0

        await apart(many)
        assert site.unit.latency.express_read.count == 160


async def test_those_of_several_units_are_told_apart():
    """A session may turn to another unit at any time; after a few commands that is seen."""
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(serving())
        units = [site.unit]
        for number in range(1, 12):
            more = make_lu(ramdisk(SIZE), name=f"disk{number}", serial=f"serial-{number}")
            units.append(await stack.enter_async_context(more))
            site.group.add_lun(number, units[-1])

        def turns(luns: range, times: int) -> None:
            with site.login() as i:
                for lun in range(12):
                    i.ready(lun)
                for _ in range(times):
                    for lun in luns:
                        assert i.command(cdb.read(10, lun, 8), lun, read=4096).status == 0

        await apart(turns, range(4), 100)
        counts = [unit.latency.express_read.count for unit in units]
        assert all(100 - 12 <= count <= 100 for count in counts[:4]), counts
        assert counts[4:] == [0] * 8
        await apart(turns, range(5, 6), 100)
        assert 100 - 12 <= units[5].latency.express_read.count <= 100
        # more than it can watch: some of each
        await apart(turns, range(12), 100)
        assert all(unit.latency.express_read.count > 0 for unit in units)


async def test_what_takes_the_general_path_is_timed_each_time():
    async with serving() as site:

        def slowly() -> None:
            with site.login() as i:
                for n in range(12):
                    i.command(b"\x28\x10" + cdb.read(10, n, 1)[2:], read=512)  # DPO

        await apart(slowly)
        read = site.unit.latency.read
        assert read.count == 12
        assert len(read.buckets) == BUCKETS
        assert read.microseconds > 0


def test_a_bucket_holds_what_is_below_its_power_of_two():
    latency = Latency()
    for microseconds in (0, 1, 3, 3, 900, 5_000_000):
        latency.note(microseconds)
    assert latency.microseconds == 5_000_907
    assert {n: count for n, count in enumerate(latency.buckets) if count} == {0: 1, 1: 1, 2: 2, 10: 1, 23: 1}


async def test_logins_and_logouts_by_reason():
    async with serving(authentication=Authentication("alice", "a secret of alice")) as site:

        def come_and_go() -> None:
            with site.connect() as i:
                i.login(NAME, chap=("alice", "a secret of alice")).ready()
                i.logout()
            for target, user, secret, status in (
                (NAME, "alice", "not that", (2, 1)),
                (NAME, "mallory", "a secret of alice", (2, 1)),
                ("iqn.2003-01.org.example:nobody", "alice", "x", (2, 3)),
            ):
                with site.connect() as i, pytest.raises(LoginFailed) as caught:
                    i.login(target, chap=(user, secret))
                assert caught.value.status == status

        await apart(come_and_go)
        await site.until_left()
        counters = site.fabric.registry.counters.of(NAME)
        assert counters.accepts == 1
        assert counters.refused == {LoginStatus.AUTHENTICATION_FAILURE: 2}
        assert counters.logouts == {LogoutReason.CLOSE_SESSION: 1}
        assert counters.login_failure is not None
        assert (counters.login_failure.initiator_name, counters.login_failure.address) == (INITIATOR, "127.0.0.1")
        by_target = {row.target: row for row in site.statistics.snapshot().logins["iscsi"]}
        assert by_target[NAME].refused == {"authentication_failure": 2}
        assert by_target[""].refused == {"not_found": 1}
        groups = site.statistics.target(site.target)
        assert groups["iscsi_login_stats"]["accepts"] == "1"
        assert groups["iscsi_login_stats"]["authenticate_fails"] == "2"
        assert groups["iscsi_tgt_attr"]["login_fails"] == "2"
        assert groups["iscsi_tgt_attr"]["last_fail_type"] == "5"
        assert groups["iscsi_tgt_attr"]["fail_intr_addr"] == "127.0.0.1"
        assert groups["iscsi_logout_stats"] == {
            "inst": str(site.target.index),
            "indx": "1",
            "normal_logouts": "1",
            "abnormal_logouts": "0",
        }


async def test_a_name_that_is_no_targets_costs_no_memory():
    async with serving() as site:
        counters = site.fabric.registry.counters
        for n in range(100):
            counters.of(f"iqn.2003-01.org.example:{n}").accepts += 1
        assert counters.discovery.accepts == 100
        assert counters._counters == {}


async def test_sessions_that_fail_are_counted_by_what_they_fail_of():
    async with serving(parameters={"HeaderDigest": "CRC32C,None", "DataDigest": "CRC32C,None"}) as site:

        def wrong_digest() -> None:
            with site.login(digests="CRC32C") as i:
                i.socket.sendall(bytes(i.command_pdu(TEST_UNIT_READY)) + b"none")
                assert i.socket.recv(1) == b""

        def wrong_format() -> None:
            with site.login() as i:
                i.socket.sendall(bytes(5) + b"\xff\xff\xff" + bytes(40))
                while i.socket.recv(4096):
                    pass

        def gone() -> None:
            site.login().close()

        for each in (wrong_digest, wrong_format, gone):
            await apart(each)
            await site.until_left()
        counters = site.fabric.registry.counters.of(NAME)
        assert counters.session_failures == {Failure.DIGEST: 1, Failure.FORMAT: 1, None: 1}
        groups = site.statistics.target(site.target)
        assert groups["iscsi_instance"]["fail_sess"] == "3"
        assert groups["iscsi_instance"]["fail_rem_name"] == INITIATOR
        errors = groups["iscsi_sess_err"]
        assert (errors["digest_errors"], errors["cxn_errors"], errors["format_errors"]) == ("1", "0", "1")


async def test_a_session_whose_node_acl_is_removed():
    async with serving(acl=True) as site:

        def until_dropped() -> None:
            with site.login() as i:
                anyio.from_thread.run_sync(site.group.remove_node_acl, INITIATOR)
                while i.socket.recv(4096):
                    pass

        await apart(until_dropped)
        await site.until_left()
        counters = site.fabric.registry.counters.of(NAME)
        assert counters.session_failures == {Failure.UNMAPPED: 1}
        assert counters.session_failure is not None
        assert counters.session_failure.initiator_name == INITIATOR


async def test_aborts_resets_and_attachments():
    async with serving(acl=True) as site:

        def manage() -> None:
            with site.login() as i:
                assert i.task_management(1, tag=77, ref_cmd_sn=0) in {0, 1, 255}
                i.task_management(5)
                i.logout()

        await apart(manage)
        await site.until_left()
        await apart(lambda: site.login().close())
        await site.until_left()
        device = site.statistics.device(site.unit)
        assert device["scsi_tgt_dev"]["aborts_no_task"] == "1"
        assert device["scsi_tgt_dev"]["aborts_complete"] == "0"
        assert device["scsi_tgt_dev"]["resets"] == device["scsi_lu"]["resets"] == "1"
        acl = site.group.node_acls[INITIATOR]
        assert acl.attached == 2
        texts = site.statistics.mapped_lun(site.group, acl, acl.mapped_luns[0])
        assert texts["scsi_auth_intr"]["att_count"] == "2"
        assert site.unit.blocks << site.unit.block_shift == SIZE
