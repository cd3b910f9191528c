"""Redirection, allow lists and parameters of a real tcm-run, as initiators of others see them."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.daemon import TARGET, Daemon, running
from support.programs import free_port, program
from support.raw_iscsi import Initiator, LoginFailed, connect

pytestmark = pytest.mark.interop

LUN = ("--lun", "ramdisk:size=4M")
MOVED, MOVED_FOR_GOOD, DENIED = (1, 1), (1, 2), (2, 2)
LIBISCSI = "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq"


def ran(*command: str) -> str:
    done = subprocess.run(
        [program(command[0]), *command[1:]], capture_output=True, text=True, errors="replace", timeout=30, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def status(daemon: Daemon, port: int | None = None, source: str = "127.0.0.1", **how: Any) -> tuple[int, int]:
    """What a login from ``source`` comes to."""
    with Initiator(daemon.url.host, port or daemon.url.port) as initiator:
        initiator.socket.close()
        initiator.socket = socket.create_connection((daemon.url.host, port or daemon.url.port), 10, (source, 0))
        try:
            initiator.login(TARGET, **how)
        except LoginFailed as refused:
            return refused.status
        return (0, 0)


def test_redirection_is_followed(tmp_path: Path) -> None:
    """libiscsi and qemu come to the other portal; discovery shows both; who comes to the other portal stays there."""
    first, second = free_port(), free_port()
    portals = (f"127.0.0.1:{first}", f"127.0.0.1:{second}")
    rule = ("--attribute", f"redirect_temporarily=127.0.0.1:{second}")
    with running(tmp_path, *LUN, *rule, portals=portals, urls=2) as daemon:
        assert (status(daemon, first), status(daemon, second)) == (MOVED, (0, 0))
        url = f"iscsi://127.0.0.1:{first}/{TARGET}/0"
        assert "DIRECT_ACCESS" in ran("iscsi-inq", url)
        assert "virtual size: 4 MiB" in ran("qemu-img", "info", url)
        shown = ran("iscsi-ls", f"iscsi://127.0.0.1:{first}")
        assert all(f"Portal:{portal},1" in shown for portal in portals)
        name = f"login of {LIBISCSI} to {TARGET} redirected to 127.0.0.1:{second} (TARGET_MOVED"
        assert name in daemon.log()
        assert f"{LIBISCSI},i," in daemon.log().partition(name)[2], "it has not logged in afterwards"


def test_redirection_to_another_process(tmp_path: Path) -> None:
    """A target that has moved to another daemon, for some initiators."""
    with running(tmp_path / "new", *LUN) as new:
        rule = f"redirect_temporarily={new.url.portal} initiator=iqn.2007-10.com.github:*"
        with running(tmp_path / "old", *LUN, "--attribute", rule) as old:
            assert "DIRECT_ACCESS" in ran("iscsi-inq", old.url.text)
            assert "logged in" in new.log()
            assert "logged in" not in old.log()
            assert status(old) == (0, 0)


def test_permanent_redirection(tmp_path: Path) -> None:
    """libiscsi understands it and does not follow."""
    with running(tmp_path, *LUN, "--attribute", "redirect_permanently=127.0.0.9:3260") as daemon:
        assert status(daemon) == MOVED_FOR_GOOD
        done = subprocess.run([program("iscsi-inq"), daemon.url.text], capture_output=True, text=True, timeout=30, check=False)
        assert "Target moved permanently" in done.stdout + done.stderr


def test_allowed_addresses_and_initiators(tmp_path: Path) -> None:
    """Refused with 0202h and a line in the log, hidden from discovery; others are served."""
    rules = ("--attribute", "allowed_addresses=127.0.0.2", "--attribute", "allowed-addresses=127.0.1.0/24")
    names = ("--attribute", "allowed_initiators=iqn.2025-01.test.*")
    with running(tmp_path, *LUN, *rules, *names) as daemon:
        for source, answer in (("127.0.0.1", DENIED), ("127.0.0.2", (0, 0)), ("127.0.1.9", (0, 0)), ("127.0.2.1", DENIED)):
            assert status(daemon, source=source) == answer, source
        assert status(daemon, source="127.0.0.2", name="iqn.2025-02.test.raw:initiator") == DENIED
        assert "127.0.0.1 is not in allowed_addresses of the portal group" in daemon.log()
        assert "the name is not in allowed_initiators of the portal group" in daemon.log()
        assert TARGET not in ran("iscsi-ls", f"iscsi://{daemon.url.portal}")


def test_parameters_and_attributes_from_the_command_line(tmp_path: Path) -> None:
    """What is written is what initiators are offered."""
    params = ("MaxConnections=4", "ErrorRecoveryLevel=2", "MaxBurstLength=65536", "FirstBurstLength=8192", "TargetAlias=a disk")
    arguments = [word for each in params for word in ("--param", each)]
    with running(
        tmp_path, *LUN, *arguments, "--attribute", "default_cmdsn_depth=5", "--attribute", "nopin_timeout=3"
    ) as daemon:
        offers = {"MaxConnections": "8", "ErrorRecoveryLevel": "2", "MaxBurstLength": "262144", "FirstBurstLength": "65536"}
        with connect(daemon.url, **offers, TaskReporting="FastAbort,RFC3720") as session:
            agreed = {name: session.keys[name] for name in (*offers, "TargetAlias", "TaskReporting")}
            assert session.max_cmd_sn - session.cmd_sn + 1 == 5
            session.timeout = 10
            assert session.receive().opcode == 0x20, "no ping after three seconds"
    assert agreed == {
        "MaxConnections": "4",
        "ErrorRecoveryLevel": "2",
        "MaxBurstLength": "65536",
        "FirstBurstLength": "8192",
        "TargetAlias": "a disk",
        "TaskReporting": "FastAbort",
    }


def test_saveconfig_with_what_lio_lacks(tmp_path: Path) -> None:
    """``tcm_attributes``, ``tcm_parameters`` and ``tcm_acl_attributes`` of a file that targetcli takes as well."""
    mine, other = "iqn.2025-01.test.raw:initiator", "iqn.2025-01.test.raw:other"
    group = {
        "tag": 1,
        "attributes": {"authentication": 0, "generate_node_acls": 1, "demo_mode_write_protect": 0},
        "parameters": {"MaxBurstLength": "131072", "FirstBurstLength": "65536"},
        "tcm_attributes": {"allowed_addresses": ["127.0.0.1"]},
        "tcm_acl_attributes": {"nopin_timeout": 3},
        "luns": [{"index": 0, "storage_object": "/backstores/ramdisk/ram"}],
        "portals": [{"ip_address": "127.0.0.1", "port": 0}],
        "node_acls": [
            {
                "node_wwn": mine,
                "mapped_luns": [{"index": 0, "tpg_lun": 0, "write_protect": False}],
                "tcm_attributes": {"allowed_addresses": ["127.0.0.2"], "cmdsn_depth": 3},
                "tcm_parameters": {"FirstBurstLength": "4096", "DataDigest": "CRC32C"},
            }
        ],
    }
    saved = {
        "storage_objects": [{"name": "ram", "plugin": "ramdisk", "size": 4 << 20}],
        "targets": [{"fabric": "iscsi", "wwn": TARGET, "tpgs": [group]}],
    }
    file = tmp_path / "saveconfig.json"
    file.write_text(json.dumps(saved))
    with running(tmp_path, "--config", str(file), portals=(), target=None) as daemon:
        assert (status(daemon, name=mine), status(daemon, source="127.0.0.2", name=mine)) == (DENIED, (0, 0))
        assert (status(daemon, name=other), status(daemon, source="127.0.0.2", name=other)) == ((0, 0), DENIED)
        with Initiator(daemon.url.host, daemon.url.port) as session:
            session.socket.close()
            session.socket = socket.create_connection((daemon.url.host, daemon.url.port), 10, ("127.0.0.2", 0))
            session.login(TARGET, name=mine, FirstBurstLength="65536", MaxBurstLength="262144", digests="None,CRC32C").ready()
            found = {name: session.keys[name] for name in ("FirstBurstLength", "MaxBurstLength", "DataDigest")}
            assert found == {"FirstBurstLength": "4096", "MaxBurstLength": "131072", "DataDigest": "CRC32C"}
            assert session.max_cmd_sn - session.cmd_sn + 1 == 3
