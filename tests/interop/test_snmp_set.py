"""Debian's snmpset against ``tcm-run --agentx``: what managers may set takes effect in the running target, or is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.compiled_mibs import load
from support.daemon import TARGET, Daemon
from support.raw_iscsi import INITIATOR, Initiator, LoginFailed
from support.snmpd import ISCSI, SCSI, SetRefused, Snmpd, cell, wait_for
from support.tcm_process import TcmProcess

pytestmark = pytest.mark.interop
STRANGER = "iqn.2003-01.org.example:stranger"
SCSI_COLUMNS, ISCSI_COLUMNS = load("SCSI-MIB")[0], load("ISCSI-MIB")[0]


def oid(column: str, *index: int) -> str:
    found = (SCSI_COLUMNS | ISCSI_COLUMNS)[column].oid
    return ".".join(map(str, (*found, *index)))


def read(snmpd: Snmpd, column: str, *index: int) -> str:
    text = snmpd.run("snmpget", oid(column, *index)).strip()
    return text.partition(" = ")[2].partition(": ")[2].strip('"')


@pytest.fixture(scope="module")
def snmpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snmpd]:
    made = Snmpd(tmp_path_factory.mktemp("snmpd")).start()
    yield made
    made.stop()
    made.traps.close()


@pytest.fixture
def daemon(snmpd: Snmpd, tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(
        tmp_path, "--lun", "ramdisk:size=4M", "--lun", "5=ramdisk:size=8M", "--agentx", str(snmpd.socket), urls=2
    ).start()
    wait_for(made, "registered at the master agent")
    yield made
    if made.process is not None:
        made.stop()


def connect(daemon: Daemon) -> Initiator:
    return Initiator(daemon.urls[0].host, daemon.urls[0].port)


def refused(snmpd: Snmpd, *assignments: str) -> str:
    with pytest.raises(SetRefused) as caught:
        snmpd.set(*assignments)
    return str(caught.value)


def test_names_and_switches(snmpd: Snmpd, daemon: Daemon) -> None:
    assert daemon.urls
    (device,) = {name[len(SCSI_COLUMNS["scsiDeviceAlias"].oid) :] for name in snmpd.walk(oid("scsiDeviceAlias"))}
    snmpd.set(oid("scsiInstAlias", 1), "s", "the store", oid("scsiDeviceAlias", *device), "s", "Größe")
    assert read(snmpd, "scsiInstAlias", 1) == "the store"
    assert bytes.fromhex(read(snmpd, "scsiDeviceAlias", *device)).decode() == "Größe"
    snmpd.set(oid("scsiInstScsiNotificationsEnable", 1), "i", "2")
    assert read(snmpd, "scsiInstScsiNotificationsEnable", 1) == "2"
    snmpd.set(oid("scsiInstScsiNotificationsEnable", 1), "i", "1")
    snmpd.set(oid("scsiDeviceAlias", *device), "s", "")
    assert read(snmpd, "scsiDeviceAlias", *device) == ""


def test_what_is_refused(snmpd: Snmpd, daemon: Daemon) -> None:
    assert daemon.urls
    assert refused(snmpd, oid("scsiInstVendorVersion", 1), "s", "mine") == "notWritable"
    assert refused(snmpd, f"{SCSI}.9.9.9", "s", "mine") == "notWritable"
    assert refused(snmpd, oid("iscsiNodeInitialR2T", 1, 1), "i", "1") == "notWritable"
    assert refused(snmpd, oid("scsiInstAlias", 1), "i", "3") == "wrongType"
    assert refused(snmpd, oid("scsiInstAlias", 1), "s", "x" * 80) == "wrongLength"
    assert refused(snmpd, oid("scsiInstAlias", 1), "x", "ff fe") == "wrongValue"
    assert refused(snmpd, oid("scsiInstScsiNotificationsEnable", 1), "i", "3") == "wrongValue"
    assert refused(snmpd, oid("scsiInstAlias", 2), "s", "mine") == "noCreation"
    assert refused(snmpd, oid("iscsiNodeMaxBurstLength", 1, 1), "u", "100") == "wrongValue"
    assert refused(snmpd, oid("iscsiNodeStorageType", 1, 1), "i", "4") == "inconsistentValue"
    # the first is fine, the second is not: nothing happens
    before = read(snmpd, "scsiInstAlias", 1)
    assert refused(snmpd, oid("scsiInstAlias", 1), "s", "no", oid("iscsiNodeMaxConnections", 1, 1), "u", "0") == "wrongValue"
    assert read(snmpd, "scsiInstAlias", 1) == before


def test_parameters_of_a_node_hold_from_the_next_login_on(snmpd: Snmpd, daemon: Daemon) -> None:
    snmpd.set(
        oid("iscsiNodeMaxBurstLength", 1, 1), "u", "65536",
        oid("iscsiNodeFirstBurstLength", 1, 1), "u", "4096",
        oid("iscsiNodeMaxOutstandingR2T", 1, 1), "u", "3",
        oid("iscsiNodeErrorRecoveryLevel", 1, 1), "u", "1",
    )  # fmt: skip
    assert read(snmpd, "iscsiNodeFirstBurstLength", 1, 1) == "4096"
    with connect(daemon) as i:
        i.login(
            TARGET, MaxBurstLength="262144", FirstBurstLength="65536", MaxOutstandingR2T="9", ErrorRecoveryLevel="2"
        ).ready()
        walked = snmpd.walk(ISCSI)
        assert cell(walked, "ISCSI-MIB", "iscsiSsnMaxBurstLength") == ["65536"]
        assert cell(walked, "ISCSI-MIB", "iscsiSsnFirstBurstLength") == ["4096"]
        assert cell(walked, "ISCSI-MIB", "iscsiSsnMaxOutstandingR2T") == ["3"]
        assert cell(walked, "ISCSI-MIB", "iscsiSsnErrorRecoveryLevel") == ["1"]


def test_a_node_acl_and_its_luns(snmpd: Snmpd, daemon: Daemon) -> None:
    port = next(name[-2:] for name in snmpd.walk(oid("scsiTgtPortName")))
    with connect(daemon) as other:
        other.login(TARGET).ready().ready(5)
        row = (1, *port, 77)
        status = oid("scsiAuthIntrRowStatus", *row)
        assert refused(snmpd, status, "i", "4") == "inconsistentValue"
        assert refused(snmpd, status, "i", "1") == "inconsistentValue"
        assert refused(snmpd, oid("scsiAuthIntrName", *row), "s", STRANGER) == "inconsistentName"
        snmpd.set(status, "i", "5")
        assert read(snmpd, "scsiAuthIntrRowStatus", *row) == "3"
        assert "No Such Instance" in snmpd.run("snmpget", oid("scsiAuthIntrName", *row))
        # the target's own validation
        snmpd.set(oid("scsiAuthIntrName", *row), "s", "nobody")
        assert refused(snmpd, status, "i", "1") == "inconsistentValue"
        snmpd.set(oid("scsiAuthIntrName", *row), "s", STRANGER)
        assert read(snmpd, "scsiAuthIntrRowStatus", *row) == "2"
        assert refused(snmpd, status, "i", "3") == "wrongValue"
        snmpd.set(status, "i", "1")
        assert read(snmpd, "scsiAuthIntrRowStatus", *row) == "1"
        assert read(snmpd, "scsiAuthIntrName", *row) == STRANGER
        assert read(snmpd, "scsiAuthIntrLunMapIndex", *row) == "77"
        assert refused(snmpd, oid("scsiAuthIntrName", *row), "s", INITIATOR) == "inconsistentValue"
        # LUN 3 of it is the unit that others see as LUN 5
        units = {value: name[-1] for name, (_, value) in snmpd.walk(oid("scsiLuDefaultLun")).items()}
        unit = next(index for lun, index in units.items() if lun.split()[1] == "05")
        lun = (1, port[0], 77, 0, 3, 0, 0, 0, 0, 0, 0)
        assert refused(snmpd, oid("scsiLunMapLuIndex", *lun), "u", str(unit)) == "inconsistentName"
        assert (
            refused(snmpd, oid("scsiLunMapLuIndex", *lun), "u", "4711", oid("scsiLunMapRowStatus", *lun), "i", "4")
            == "inconsistentValue"
        )
        snmpd.set(oid("scsiLunMapLuIndex", *lun), "u", str(unit), oid("scsiLunMapRowStatus", *lun), "i", "4")
        with connect(daemon) as i:
            i.login(TARGET, name=STRANGER).ready(3)
            assert i.command(b"\x25" + bytes(9), lun=3, read=8).data[:4] == ((8 << 20) // 512 - 1).to_bytes(4, "big")
            assert "77" in cell(snmpd.walk(SCSI), "SCSI-MIB", "scsiAttIntrPortAuthIntrIdx")
            snmpd.set(oid("scsiLunMapRowStatus", *lun), "i", "6")
            assert i.command(bytes(6), lun=3).status == 2
        # what is not there may be destroyed
        snmpd.set(oid("scsiLunMapRowStatus", *lun), "i", "6")
        snmpd.set(oid("iscsiTgtAuthRowStatus", 1, port[0], 77), "i", "6")
        assert "No Such Instance" in snmpd.run("snmpget", oid("scsiAuthIntrName", *row))
        assert refused(snmpd, oid("iscsiTgtAuthRowStatus", 1, port[0], 77), "i", "4") == "inconsistentValue"
        # demo mode's rows are nobody's to remove
        demo = next(name for name in snmpd.walk(oid("scsiAuthIntrName")))[-3:]
        assert refused(snmpd, oid("scsiAuthIntrRowStatus", 1, *demo), "i", "6") == "inconsistentValue"
        assert other.read(0, 8).status == 0


def test_a_portal(snmpd: Snmpd, daemon: Daemon) -> None:
    row = (1, 9)
    status = oid("iscsiPortalRowStatus", *row)
    with connect(daemon) as other:
        other.login(TARGET).ready()
        snmpd.set(status, "i", "5", oid("iscsiPortalRoles", *row), "x", "80")
        assert refused(snmpd, status, "i", "1") == "inconsistentValue"
        snmpd.set(oid("iscsiPortalAddr", *row), "x", "7f 00 00 05", oid("iscsiPortalAddrType", *row), "i", "1")
        snmpd.set(status, "i", "1")
        assert read(snmpd, "iscsiTgtPortalPort", *row, 1) == "3260"
        with Initiator("127.0.0.5", 3260) as i:
            i.login(TARGET).ready()
        assert refused(snmpd, oid("iscsiPortalAddr", *row), "x", "7f 00 00 06") == "inconsistentValue"
        port = daemon.urls[0].port
        snmpd.set(oid("iscsiTgtPortalPort", *row, 1), "u", str(port))
        assert read(snmpd, "iscsiTgtPortalPort", *row, 1) == str(port)
        with Initiator("127.0.0.5", port) as i:
            i.login(TARGET).ready()
        with pytest.raises(ConnectionRefusedError):
            Initiator("127.0.0.5", 3260)
        assert refused(snmpd, oid("iscsiTgtPortalTag", *row, 1), "u", "7") == "inconsistentValue"
        snmpd.set(status, "i", "6")
        with pytest.raises(ConnectionRefusedError):
            Initiator("127.0.0.5", port)
        assert other.read(0, 8).status == 0
    # an address that is not this machine's: the commit fails, and nothing has changed
    away = (oid("iscsiPortalRoles", *row), "x", "80", oid("iscsiPortalAddr", *row), "x", "c0 00 02 01")
    assert refused(snmpd, status, "i", "4", *away) == "commitFailed"
    assert "No Such Instance" in snmpd.run("snmpget", status)


def test_indexes_and_what_is_non_volatile_outlive_the_process(snmpd: Snmpd, tmp_path: Path) -> None:
    arguments = ("--lun", "ramdisk:size=4M", "--agentx", str(snmpd.socket))
    daemon = Daemon(tmp_path, *arguments).start()
    wait_for(daemon, "registered at the master agent")
    snmpd.set(oid("scsiInstAlias", 1), "s", "lost")
    port = next(name[-2:] for name in snmpd.walk(oid("scsiTgtPortName")))
    row = (1, *port, 40)
    snmpd.set(oid("scsiAuthIntrRowStatus", *row), "i", "4", oid("scsiAuthIntrName", *row), "s", STRANGER)
    before = snmpd.walk(SCSI)
    daemon.stop()
    (state,) = tmp_path.rglob("snmp.json")
    kept = json.loads(state.read_text())
    assert kept["own"]["alias"] == ""
    # other rows that come first would have had these indexes
    daemon.start()
    wait_for(daemon, "registered at the master agent", 2)
    after = snmpd.walk(SCSI)
    lost = {name for name in before if name not in after}
    assert {name[-1] for name in lost} == {40}  # the node ACL, which nobody has saved
    assert set(after) <= set(before)
    assert read(snmpd, "scsiInstAlias", 1) == ""
    snmpd.set(oid("scsiInstStorageType", 1), "i", "3", oid("scsiInstAlias", 1), "s", "kept")
    assert refused(snmpd, oid("scsiInstStorageType", 1), "i", "5") == "wrongValue"
    snmpd.set(oid("scsiAuthIntrRowStatus", *row), "i", "4", oid("scsiAuthIntrName", *row), "s", STRANGER)
    (saved,) = tmp_path.rglob("saveconfig.json")
    assert STRANGER in saved.read_text()
    daemon.kill()
    daemon.start()
    wait_for(daemon, "registered at the master agent", 3)
    assert read(snmpd, "scsiInstAlias", 1) == "kept"
    assert read(snmpd, "scsiInstStorageType", 1) == "3"
    daemon.stop()


def test_a_damaged_file_of_indexes_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "snmp.json").write_text('{"indexes"')
    arguments = ("--fabric", "loopback", "--lun", "ramdisk:size=1M", "--agentx", str(tmp_path / "none"))
    with TcmProcess(tmp_path, *arguments, "--state-dir", str(tmp_path / "state")) as tcm:
        assert tcm.exit_code() == 2
        assert "snmp.json is damaged; restore it, or delete it" in tcm.err.splitlines()[-1]


def test_many_variables_and_bulks_without_end(snmpd: Snmpd, daemon: Daemon) -> None:
    """Through the real master agent, while an initiator reads."""
    with connect(daemon) as i:
        i.login(TARGET).ready()
        many = [text for n in range(120) for text in (oid("iscsiNodeMaxConnections", 1, 1), "u", "3")]
        assert len(many) == 360  # snmpset takes no more than 128
        snmpd.set(*many)
        assert read(snmpd, "iscsiNodeMaxConnections", 1, 1) == "3"
        rows = [text for n in range(100, 221) for text in (oid("iscsiPortalRowStatus", 1, n), "i", "5")]
        assert refused(snmpd, *rows) == "resourceUnavailable"
        for n in range(50):
            assert i.read(n, 8).status == 0
        time.sleep(1.1)  # rows are remembered for a second
        whole = snmpd.walk(ISCSI)
        for repetitions in ("1", "1000", "65535"):
            assert list(snmpd.walk(ISCSI, "snmpbulkwalk", f"-Cr{repetitions}")) == list(whole)
        assert i.read(0, 8).status == 0
    daemon.assert_quiet()


def test_a_stranger_is_kept_out_all_the_same(snmpd: Snmpd, daemon: Daemon) -> None:
    """Nothing above has opened the target."""
    assert snmpd.walk(ISCSI)
    with connect(daemon) as i, pytest.raises(LoginFailed):
        i.login("iqn.2003-01.org.example:nobody")
