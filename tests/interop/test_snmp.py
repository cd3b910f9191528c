"""``tcm-run --agentx`` under Debian's snmpd: walked with snmpwalk, its notifications received, the master agent taken away."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.compiled_mibs import load
from support.daemon import TARGET, Daemon
from support.programs import program
from support.raw_iscsi import INITIATOR, Initiator, LoginFailed

pytestmark = pytest.mark.interop
SCSI, ISCSI = "1.3.6.1.2.1.139", "1.3.6.1.2.1.142"
TYPES = {
    "INTEGER": "INTEGER",
    "Gauge32": "GAUGE_32",
    "Counter32": "COUNTER_32",
    "Counter64": "COUNTER_64",
    "Timeticks": "TIME_TICKS",
    "OID": "OBJECT_IDENTIFIER",
    "STRING": "OCTET_STRING",
    "Hex-STRING": "OCTET_STRING",
}
_LINE = re.compile(r"\.(?P<oid>[\d.]+) = (?:(?P<type>[\w-]+): ?)?(?P<value>.*)", re.DOTALL)


class Snmpd:
    """A master agent of our own: its own configuration, port and folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.traps = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.traps.bind(("127.0.0.1", 0))
        self.traps.settimeout(15)
        self.socket = folder / "agentx"
        (folder / "snmpd.conf").write_text(
            f"agentaddress udp:127.0.0.1:{self.port}\nrocommunity public 127.0.0.1\nmaster agentx\nagentXSocket {self.socket}\n"
            f"trap2sink 127.0.0.1:{self.traps.getsockname()[1]} public\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Snmpd:
        with (self.folder / "snmpd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program("snmpd"), "-f", "-Lo", "-C", "-c", str(self.folder / "snmpd.conf"), "-p", str(self.folder / "pid")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "SNMP_PERSISTENT_DIR": str(self.folder / "state")},
            )  # fmt: skip
        end = time.monotonic() + 10
        while not self.socket.exists():
            assert self.process.poll() is None, (self.folder / "snmpd.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
        self.socket.unlink(missing_ok=True)

    def run(self, name: str, oid: str, *more: str) -> str:
        command = [program(name), "-v2c", "-c", "public", "-On", "-r", "2", "-t", "5", f"127.0.0.1:{self.port}", oid, *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def walk(self, oid: str, name: str = "snmpwalk") -> dict[tuple[int, ...], tuple[str, str]]:
        """Identifier to type and value."""
        found = {}
        for line in re.split(r"\n(?=\.)", self.run(name, oid).strip()):
            match = _LINE.fullmatch(line)
            assert match is not None, line
            if "No Such" in match["value"] or "No more" in match["value"]:
                continue
            found[tuple(map(int, match["oid"].split(".")))] = TYPES[match["type"] or "STRING"], match["value"].strip('"')
        return found

    def trap(self, oid: tuple[int, ...]) -> bytes:
        """The next notification of this kind, as it came."""
        wanted = encoded(oid)
        while True:
            datagram = self.traps.recv(65536)
            if wanted in datagram:
                return datagram


def encoded(oid: tuple[int, ...]) -> bytes:
    """In BER."""
    content = bytearray((oid[0] * 40 + oid[1],))
    for number in oid[2:]:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return bytes((6, len(content))) + bytes(content)


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


def wait_for(daemon: Daemon, text: str, times: int = 1, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while daemon.log().count(text) < times:
        assert time.monotonic() < end, daemon.log()
        time.sleep(0.05)


def login(daemon: Daemon) -> Initiator:
    url = daemon.urls[0]
    return Initiator(url.host, url.port).login(TARGET).ready().ready(5)


def cell(walked: dict[tuple[int, ...], tuple[str, str]], module: str, column: str) -> list[str]:
    """The values of a column, by row."""
    oid = load(module)[0][column].oid
    return [value for name, (_, value) in sorted(walked.items()) if name[: len(oid)] == oid]


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
    for oid in (SCSI, ISCSI):
        assert list(snmpd.walk(oid)) == list(snmpd.walk(oid, "snmpbulkwalk"))
    assert "tcm" in snmpd.run("snmpget", f"{SCSI}.2.1.1.1.4.1")
    assert "No Such Instance" in snmpd.run("snmpget", f"{SCSI}.2.1.1.1.4.2")


def test_nothing_can_be_set(snmpd: Snmpd, daemon: Daemon) -> None:
    assert daemon.urls
    with pytest.raises(subprocess.CalledProcessError):
        snmpd.run("snmpset", f"{SCSI}.2.1.1.1.2.1", "s", "mine")


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


def test_a_master_agent_that_comes_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / "snmpd"
    folder.mkdir()
    master = Snmpd(folder)
    daemon = Daemon(tmp_path, "--lun", "ramdisk:size=4M", "--agentx", str(master.socket)).start()
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
