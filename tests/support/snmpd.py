"""Debian's snmpd as a master agent of a test's own, and its programs to ask it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from support.compiled_mibs import load
from support.daemon import Daemon
from support.programs import program

SCSI, IPS_AUTH, ISCSI = "1.3.6.1.2.1.139", "1.3.6.1.2.1.141", "1.3.6.1.2.1.142"
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


class SetRefused(Exception):
    """The message is the error's name in snmpset's words."""


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
            f"agentaddress udp:127.0.0.1:{self.port}\nrwcommunity public 127.0.0.1\nmaster agentx\nagentXSocket {self.socket}\n"
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
        self.process.wait(60)
        self.socket.unlink(missing_ok=True)

    def run(self, name: str, oid: str, *options: str) -> str:
        command = [program(name), "-v2c", "-c", "public", "-On", "-r", "2", "-t", "5", *options, f"127.0.0.1:{self.port}", oid]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (done.stdout[-500:], done.stderr)
        return done.stdout

    def walk(self, oid: str, name: str = "snmpwalk", *options: str) -> dict[tuple[int, ...], tuple[str, str]]:
        """Identifier to type and value."""
        found = {}
        for line in re.split(r"\n(?=\.)", self.run(name, oid, *options).strip()):
            match = _LINE.fullmatch(line)
            assert match is not None, line
            if "No Such" in match["value"] or "No more" in match["value"]:
                continue
            found[tuple(map(int, match["oid"].split(".")))] = TYPES[match["type"] or "STRING"], match["value"].strip('"')
        return found

    def set(self, *assignments: str) -> None:
        """``oid type value`` again and again. Raises :class:`SetRefused`."""
        command = [program("snmpset"), "-v2c", "-c", "public", "-On", "-r", "0", "-t", "20", f"127.0.0.1:{self.port}"]
        done = subprocess.run([*command, *assignments], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            found = re.search(r"Reason: (\w+)", done.stderr)
            raise SetRefused(found[1] if found else done.stderr)

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


def wait_for(daemon: Daemon, text: str, times: int = 1, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while daemon.log().count(text) < times:
        assert time.monotonic() < end, daemon.log()
        time.sleep(0.05)


def cell(walked: dict[tuple[int, ...], tuple[str, str]], module: str, column: str) -> list[str]:
    """The values of a column, by row."""
    oid = load(module)[0][column].oid
    return [value for name, (_, value) in sorted(walked.items()) if name[: len(oid)] == oid]
