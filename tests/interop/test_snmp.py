"""``tcm-run --agentx`` under Debian's snmpd: walked with snmpwalk, its notifications received, the master agent taken away."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from support.compiled_mibs import load
from support.daemon import TARGET, Daemon
from support.large_config import large_config
from support.raw_iscsi import INITIATOR, Initiator, LoginFailed
from support.snmpd import ISCSI, SCSI, Snmpd, cell, encoded, wait_for
from support.statistics_site import serving
from support.tcm_process import TcmProcess

from tcm.fabric import Fabric
from tcm.statistics.registry import Statistics
from tcm.statistics.snmp import Agent

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def snmpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snmpd]:
    made = Snmpd(tmp_path_factory.mktemp("snmpd")).start()
    yield made
    made.stop()
    made.traps.close()


@pytest.fixture(scope="module")
def daemon(snmpd: Snmpd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    luns = ("--lun", "ramdisk:size=4M", "--lun", "5=ramdisk:size=8M")
    made = Daemon(tmp_path_factory.mktemp("agentx"), *luns, "--agentx", str(snmpd.socket), urls=2).start()
    wait_for(made, "registered at the master agent")
    yield made
    made.stop()


def login(daemon: Daemon) -> Initiator:
    url = daemon.urls[0]
    return Initiator(url.host, url.port).login(TARGET).ready().ready(5)


def test_a_walk_meets_every_column_that_has_rows(snmpd: Snmpd, daemon: Daemon) -> None:
    with login(daemon) as i:
        for n in range(20):
            assert i.read(n, 8).status == 0
        assert i.write(0, bytes(4096), lun=5).status == 0
        scsi, iscsi = snmpd.walk(SCSI), snmpd.walk(ISCSI)
        commands = i.cmd_sn - 1
    for module, walked in (("SCSI-MIB", scsi), ("ISCSI-MIB", iscsi)):
        columns = load(module)[0]
        for name, (kind, value) in walked.items():
            found = [column for column in columns.values() if name[: len(column.oid)] == column.oid]
            if found and value:
                assert found[0].syntax == kind, (found[0].name, value)
        initiator = re.compile(r"scsiIntr|scsiDsc|scsiAttTgt|iscsiIntr")
        met = {column.name for column in columns.values() if any(name[: len(column.oid)] == column.oid for name in walked)}
        assert met == {name for name in columns if not initiator.match(name)}
    assert cell(scsi, "SCSI-MIB", "scsiLuStatus") == ["2", "2"]
    assert sum(map(int, cell(scsi, "SCSI-MIB", "scsiLuInCommands"))) == commands
    assert [int(text) for text in cell(scsi, "SCSI-MIB", "scsiTgtPortHSInCommands")] == [commands]
    assert cell(scsi, "SCSI-MIB", "scsiLuDefaultLun")[1].split() == ["00", "05", *["00"] * 6]
    assert cell(scsi, "SCSI-MIB", "scsiAuthIntrName") == [INITIATOR]
    assert cell(iscsi, "ISCSI-MIB", "iscsiSsnInitiatorName") == [INITIATOR]
    assert [int(text) for text in cell(iscsi, "ISCSI-MIB", "iscsiSsnCmdPDUs")] == [commands]
    assert [int(text) for text in cell(iscsi, "ISCSI-MIB", "iscsiSsnRxDataOctets")] == [4096]
    assert cell(iscsi, "ISCSI-MIB", "iscsiNodeName") == [TARGET]
    # pointers lead to rows that are there
    for module, column, into in (
        ("SCSI-MIB", "scsiPortTransportPtr", scsi),
        ("SCSI-MIB", "scsiTransportPointer", iscsi),
        ("ISCSI-MIB", "iscsiNodeTransportType", scsi),
    ):
        for text in cell(scsi if module == "SCSI-MIB" else iscsi, module, column):
            assert tuple(map(int, text.strip(".").split("."))) in into


def test_bulk_walks_see_the_same(snmpd: Snmpd, daemon: Daemon) -> None:
    assert daemon.urls
    while cell(snmpd.walk(ISCSI), "ISCSI-MIB", "iscsiSsnInitiatorName"):
        time.sleep(0.1)  # that of the test before
    time.sleep(1.1)  # rows are remembered for a second
    for oid in (SCSI, ISCSI):
        assert list(snmpd.walk(oid)) == list(snmpd.walk(oid, "snmpbulkwalk"))
    assert "tcm" in snmpd.run("snmpget", f"{SCSI}.2.1.1.1.4.1")
    assert "No Such Instance" in snmpd.run("snmpget", f"{SCSI}.2.1.1.1.4.2")


def test_notifications_of_logins_and_sessions_that_fail(snmpd: Snmpd, daemon: Daemon) -> None:
    url = daemon.urls[0]
    time.sleep(1.5)  # the first look is what changes are told from
    with Initiator(url.host, url.port) as i, pytest.raises(LoginFailed):
        i.login(TARGET, name="iqn.2003-01.org.example:stranger,i,0x1")
    name = load("ISCSI-MIB")[1]["iscsiTgtLoginFailure"].oid
    assert encoded(load("ISCSI-MIB")[0]["iscsiTgtLastIntrFailureAddr"].oid)[2:] in snmpd.trap(name)
    login(daemon).close()
    assert INITIATOR.encode() in snmpd.trap(load("ISCSI-MIB")[1]["iscsiInstSessionFailure"].oid)


def test_a_unit_that_is_stopped_is_told_of(snmpd: Snmpd, daemon: Daemon) -> None:
    time.sleep(1.5)
    with login(daemon) as i:
        assert i.command(b"\x1b\0\0\0\0\0", lun=5).status == 0
        assert snmpd.trap(load("SCSI-MIB")[1]["scsiLuStatusChanged"].oid)
        walked = snmpd.walk(SCSI)
        assert cell(walked, "SCSI-MIB", "scsiLuStatus") == ["2", "3"]
        assert cell(walked, "SCSI-MIB", "scsiTgtDevNonAccessibleLUs") == ["1"]
        assert i.command(b"\x1b\0\0\0\x01\0", lun=5).status == 0


def test_a_walk_meets_the_initiator_of_the_loopback_fabric(snmpd: Snmpd, tmp_path: Path) -> None:
    master = Snmpd(tmp_path).start()
    luns = ("--lun", "ramdisk:size=4M", "--lun", "5=ramdisk:size=8M")
    arguments = ("--fabric", "loopback", *luns, "--agentx", str(master.socket))
    try:
        with TcmProcess(tmp_path, *arguments) as tcm:
            tcm.wait_for("registered at the master agent", in_log=True)
            walked = master.walk(SCSI)
            columns = load("SCSI-MIB")[0]
            met = {column.name for column in columns.values() if any(name[: len(column.oid)] == column.oid for name in walked)}
            assert met == set(columns)
            assert cell(walked, "SCSI-MIB", "scsiDeviceRole") == ["80 ", "@"]  # as snmpwalk shows 80h and 40h
            assert len(cell(walked, "SCSI-MIB", "scsiDscLunLun")) == 2
            assert tcm.stop() == 0
        assert snmpd.socket.exists()
    finally:
        master.stop()
        master.traps.close()


def test_a_target_of_a_thousand_luns_is_walked_while_it_serves(snmpd: Snmpd, tmp_path: Path) -> None:
    """Every row is met once, and an initiator that reads meanwhile is answered again and again."""
    config = large_config(units=1000, targets=1, port=0)
    host = config["targets"][0]["tpgs"][0]["node_acls"][0]["node_wwn"]
    path = tmp_path / "saveconfig.json"
    path.write_text(json.dumps(config))
    master = Snmpd(tmp_path).start()
    daemon = Daemon(
        tmp_path, "--config", str(path), "--agentx", str(master.socket), portals=(), target=None
    )  # fmt: skip
    try:
        daemon.start(60)
        wait_for(daemon, "registered at the master agent")
        url = daemon.urls[0]
        with Initiator(url.host, url.port) as i, ThreadPoolExecutor(1) as threads:
            i.login(url.target, name=host).ready().ready(999)
            walk = threads.submit(master.walk, SCSI, "snmpbulkwalk", "-Cr50")
            reads = 0
            while not walk.done():
                assert i.read(0, 8).status == 0
                reads += 1
            walked = walk.result()
        assert reads > 10
        for column in ("scsiLuInCommands", "scsiLuLastCreation", "scsiLunMapLuIndex"):
            assert len(cell(walked, "SCSI-MIB", column)) == 1000
        assert sum(map(int, cell(walked, "SCSI-MIB", "scsiLuInCommands"))) > 0
        daemon.assert_quiet()
        daemon.stop()
    finally:
        if daemon.process is not None:
            daemon.kill()
        master.stop()
        master.traps.close()
    assert snmpd.socket.exists()


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_a_master_agent_that_comes_and_goes(tmp_path: Path, event_loop: str) -> None:
    folder = tmp_path / "snmpd"
    folder.mkdir()
    master = Snmpd(folder)
    arguments = ("--lun", "ramdisk:size=4M", "--agentx", str(master.socket), "--event-loop", event_loop)
    daemon = Daemon(tmp_path, *arguments).start()
    try:
        wait_for(daemon, "trying again")
        assert daemon.log().count("trying again") == 1
        master.start()
        wait_for(daemon, "registered at the master agent")
        assert master.walk(ISCSI)
        master.stop()
        wait_for(daemon, "trying again", 2)
        with login_one(daemon) as i:
            assert i.read(0, 8).status == 0
        master.start()
        wait_for(daemon, "registered at the master agent", 2)
        assert master.walk(ISCSI)
        daemon.stop()
        assert not master.walk(ISCSI)
    finally:
        if daemon.process is not None:
            daemon.kill()
        master.stop()
        master.traps.close()


def login_one(daemon: Daemon) -> Initiator:
    return Initiator(daemon.urls[0].host, daemon.urls[0].port).login(TARGET).ready()


@pytest.mark.anyio
async def test_a_fabric_that_comes_later_brings_its_mib(tmp_path: Path) -> None:
    master = Snmpd(tmp_path).start()
    try:
        async with serving() as site, anyio.create_task_group() as tasks:
            fabrics: dict[str, Fabric] = {}
            agent = Agent(str(master.socket), Statistics({site.path: site.unit}, [site.target], fabrics))
            tasks.start_soon(agent.run)
            with anyio.fail_after(60):
                while not agent.connected:
                    await anyio.sleep(0.02)
                assert await to_thread.run_sync(master.walk, SCSI)
                assert not await to_thread.run_sync(master.walk, ISCSI)
                fabrics["iscsi"] = site.fabric
                while not await to_thread.run_sync(master.walk, ISCSI):
                    await anyio.sleep(0.2)
            tasks.cancel_scope.cancel()
    finally:
        master.stop()
        master.traps.close()
