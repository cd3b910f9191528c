"""Targets over TCP for the full feature phase suite: tcm-run, and LIO in a guest. Both serve what tests/guest/lio.guest
describes."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.daemon import running, wait_until
from support.ffp import PINGED
from support.guest import Guest
from support.programs import free_port


@dataclass(frozen=True)
class Served:
    """Where a target listens; see :class:`support.pdu_wires.Target`."""

    ports: tuple[int, int]
    """Of portal 0 and 1."""
    names: tuple[str, str]
    resident: Callable[[], int] | None = None
    silence: float = 0.1


NAME = "iqn.2003-01.org.linux-iscsi.{}:{}"
LIO_NAMES = (NAME.format("lio", "t1"), NAME.format("lio", "t2"))
ATTRIBUTES = {
    "authentication": 0,
    "generate_node_acls": 1,
    "cache_dynamic_acls": 1,
    "demo_mode_write_protect": 0,
    "default_cmdsn_depth": 16,
    "default_erl": 2,
}
PARAMETERS = {
    "ErrorRecoveryLevel": "2",
    "MaxConnections": "4",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxOutstandingR2T": "4",
    "MaxRecvDataSegmentLength": "65536",
    "DefaultTime2Wait": "0",
    "DefaultTime2Retain": "20",
}


@contextmanager
def serving_tcm_run(directory: Path) -> Iterator[Served]:
    """tcm-run with a saveconfig.json of its own."""
    ports = free_port(), free_port()
    names = (NAME.format("tcm", "t1"), NAME.format("tcm", "t2"))
    units = ("one", "two")

    pinged = {
        "node_wwn": PINGED,
        "attributes": {"nopin_timeout": 3, "nopin_response_timeout": 3, "authentication": 0},
        "mapped_luns": [{"index": 0, "tpg_lun": 0, "write_protect": False}],
    }

    def group(tag: int, unit: str) -> dict[str, object]:
        return {
            "tag": tag,
            "enable": True,
            "attributes": ATTRIBUTES,
            "parameters": PARAMETERS,
            "luns": [{"index": 0, "storage_object": f"/backstores/ramdisk/{unit}"}],
            "node_acls": [pinged],
            "portals": [{"ip_address": "127.0.0.1", "port": ports[tag - 1]}],
        }

    saved = {
        "fabric_modules": [],
        "storage_objects": [
            {"plugin": "ramdisk", "name": unit, "size": 64 << 20, "wwn": str(uuid.UUID(int=n + 1)), "attributes": {}}
            for n, unit in enumerate(units)
        ],
        "targets": [
            {"fabric": "iscsi", "wwn": names[0], "tpgs": [group(1, "one"), group(2, "one")]},
            {"fabric": "iscsi", "wwn": names[1], "tpgs": [group(1, "two")]},
        ],
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "saveconfig.json"
    path.write_text(json.dumps(saved))
    with running(directory, "--config", str(path), urls=3, portals=(), target=None) as daemon:
        yield Served(ports, names, daemon.rss)


class Lio:
    """LIO in a guest, its ports forwarded. Its kernel does not survive all that the suite does: then it is started anew."""

    BOOTS = 4

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = free_port(), free_port()
        self.boots = 0
        self.guest = self._boot()

    def _boot(self) -> Guest:
        assert self.boots < self.BOOTS, self.guest.report()
        self.boots += 1
        directory = self.directory / str(self.boots)
        directory.mkdir()
        forward = [option for n, port in enumerate(self.ports) for option in ("--fwd", f"{port}:{3260 + n}")]
        guest = Guest(directory, "lio.guest", timeout=900, files=(), options=tuple(forward))
        wait_until(lambda: (guest.share / "ready").exists() or guest.process.poll() is not None, 400, "LIO listens", 0.2)
        assert guest.process.poll() is None, guest.report()
        return guest

    def __call__(self) -> Served:
        """It listens."""
        if self.guest.process.poll() is not None:
            self.guest.end()
            print(self.guest.report())
            self.guest = self._boot()
        return Served(self.ports, LIO_NAMES, silence=0.4)

    def died(self) -> str:
        """What is to be said of a guest whose kernel has died, if it has; it may take the runner a moment to notice."""
        self.guest.wait(10)
        return self.guest.report() if self.guest.died else ""

    def finish(self) -> None:
        """The end of the suite: the guest says what its kernel has complained of."""
        if self.guest.process.poll() is None:
            (self.guest.share / "over").touch()
            self.guest.finish()


@contextmanager
def serving_lio(directory: Path) -> Iterator[Callable[[], Served]]:
    """LIO in a guest; or one that runs already, at the two ports of ``TCM_LIO_PORTS`` (for whoever writes tests).

    What it yields is asked before each test.
    """
    known = os.environ.get("TCM_LIO_PORTS")
    if known:
        first, second = (int(port) for port in known.split(","))
        yield lambda: Served((first, second), LIO_NAMES, silence=0.4)
        return
    lio = Lio(directory)
    try:
        yield lio
        lio.finish()
    finally:
        lio.guest.end()
