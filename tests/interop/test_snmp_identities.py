"""IPS-AUTH-MIB (RFC 4545) under Debian's snmpd: who may log in where is set with snmpset, and no secret stands anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.compiled_mibs import load
from support.daemon import Daemon
from support.large_config import large_config
from support.raw_iscsi import Initiator, LoginFailed
from support.snmpd import IPS_AUTH, ISCSI, SCSI, SetRefused, Snmpd, cell, wait_for

pytestmark = pytest.mark.interop
ALICE = ("alice", "the secret of alice")
MUTUAL = "the secret of the target"
STRANGER = "iqn.2003-01.org.example:stranger"
AUTHENTICATION_FAILURE, AUTHORIZATION_FAILURE = (2, 1), (2, 2)
COLUMNS = load("ISCSI-MIB")[0] | load("IPS-AUTH-MIB")[0] | load("SCSI-MIB")[0]


def number(column: str, *index: int) -> str:
    return ".".join(map(str, (*COLUMNS[column].oid, *index)))


def configuration() -> dict[str, Any]:
    """Two targets that ask for CHAP; the initiator ``host0`` of the first has a user, a secret and a network."""
    config = large_config(units=2, targets=2, port=0)
    first, second = (target["tpgs"][0] for target in config["targets"])
    second["portals"] = first["portals"]
    for group in (first, second):
        group["attributes"]["authentication"] = 1
    second["node_acls"] = []
    first["node_acls"][0] |= {
        "chap_userid": ALICE[0],
        "chap_password": ALICE[1],
        "chap_mutual_userid": "target",
        "chap_mutual_password": MUTUAL,
        "tcm_attributes": {"allowed_addresses": ["127.0.0.0/8"]},
    }
    return config


HOST = configuration()["targets"][0]["tpgs"][0]["node_acls"][0]["node_wwn"]
FIRST, SECOND = (target["wwn"] for target in configuration()["targets"])


@pytest.fixture
def snmpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snmpd]:
    made = Snmpd(tmp_path_factory.mktemp("snmpd")).start()
    yield made
    made.stop()
    made.traps.close()


@pytest.fixture
def daemon(snmpd: Snmpd, tmp_path: Path) -> Iterator[Daemon]:
    path = tmp_path / "saveconfig.json"
    path.write_text(json.dumps(configuration()))
    made = Daemon(
        tmp_path, "--config", str(path), "--agentx", str(snmpd.socket), urls=2, portals=(), target=None
    ).start()  # fmt: skip
    wait_for(made, "registered at the master agent")
    yield made
    if made.process is not None:
        made.stop()


def login(daemon: Daemon, target: str, name: str, chap: tuple[str, str] | None = ALICE) -> Initiator:
    (url,) = (each for each in daemon.urls if each.target == target)
    made = Initiator(url.host, url.port)
    try:
        return made.login(target, name=name, chap=chap)
    except LoginFailed:
        made.close()
        raise


def refused(daemon: Daemon, target: str, name: str, chap: tuple[str, str] | None = ALICE) -> tuple[int, int]:
    with pytest.raises(LoginFailed) as caught:
        login(daemon, target, name, chap)
    return caught.value.status


def walk_of_all(snmpd: Snmpd) -> dict[tuple[int, ...], tuple[str, str]]:
    return snmpd.walk(SCSI) | snmpd.walk(IPS_AUTH) | snmpd.walk(ISCSI)


def nodes(snmpd: Snmpd) -> dict[str, int]:
    return {name: oid[-1] for oid, (_, name) in snmpd.walk(number("iscsiNodeName")).items()}


def make_identity(snmpd: Snmpd, index: int, name: str) -> None:
    snmpd.set(
        number("ipsAuthIdentRowStatus", 1, index), "i", "4", number("ipsAuthIdentDescription", 1, index), "s", "the backup",
        number("ipsAuthIdentNameRowStatus", 1, index, 1), "i", "4", number("ipsAuthIdentName", 1, index, 1), "s", name,
    )  # fmt: skip


def authorize(snmpd: Snmpd, node: int, index: int, identity: int) -> None:
    snmpd.set(
        number("iscsiTgtAuthRowStatus", 1, node, index), "i", "4",
        number("iscsiTgtAuthIdentity", 1, node, index), "o", number("ipsAuthIdentDescription", 1, identity),
    )  # fmt: skip


def test_a_walk_shows_who_may_log_in_and_no_secret(snmpd: Snmpd, daemon: Daemon) -> None:
    with login(daemon, FIRST, HOST):
        walked = walk_of_all(snmpd)
    columns = load("IPS-AUTH-MIB")[0]
    for name, (kind, value) in walked.items():
        found = [column for column in columns.values() if name[: len(column.oid)] == column.oid]
        assert not found or not value or found[0].syntax == kind, (found[0].name, value)
    met = {column.name for column in columns.values() if any(name[: len(column.oid)] == column.oid for name in walked)}
    assert met == {name for name in columns if not name.startswith(("ipsAuthCredSrp", "ipsAuthCredKerb"))}
    assert cell(walked, "IPS-AUTH-MIB", "ipsAuthIdentName") == [HOST]
    assert cell(walked, "IPS-AUTH-MIB", "ipsAuthCredChapUserName") == [ALICE[0]]
    # pointers lead to rows that are there
    for column in ("iscsiTgtAuthIdentity", "iscsiSsnAuthIdentity"):
        (text,) = cell(walked, "ISCSI-MIB", column)
        assert tuple(map(int, text.strip(".").split("."))) in walked
    said = " ".join(value for _, value in walked.values())
    for secret in (ALICE[1], MUTUAL):
        assert secret not in said
        assert secret.encode().hex(" ").upper() not in said
    assert list(snmpd.walk(IPS_AUTH, "snmpbulkwalk")) == [name for name in walked if name[:7] == (1, 3, 6, 1, 2, 1, 141)]


def test_an_initiator_is_let_in_elsewhere_by_what_proves_it(snmpd: Snmpd, daemon: Daemon) -> None:
    assert refused(daemon, SECOND, HOST) == AUTHORIZATION_FAILURE
    node = nodes(snmpd)[SECOND]
    authorize(snmpd, node, 40, 1)
    assert refused(daemon, SECOND, HOST, None) == AUTHENTICATION_FAILURE
    assert refused(daemon, SECOND, HOST, ("alice", "another secret")) == AUTHENTICATION_FAILURE
    with login(daemon, SECOND, HOST) as i:
        assert i.command(b"\xa0" + bytes(8) + b"\x40" + bytes(2), read=64).status == 0
        # it is shown no LUN yet: that is SCSI-MIB's
        port = next(name[-2:] for name in snmpd.walk(number("scsiTgtPortName")) if name[-2] == node)
        unit = next(name[-1] for name in snmpd.walk(number("scsiLuDefaultLun")) if name[-2] == node)
        lun = (1, port[0], 40, *bytes(8))
        snmpd.set(number("scsiLunMapRowStatus", *lun), "i", "4", number("scsiLunMapLuIndex", *lun), "u", str(unit))
        assert i.ready(0).read(0, 8).status == 0
    snmpd.set(number("iscsiTgtAuthRowStatus", 1, node, 40), "i", "6")
    assert refused(daemon, SECOND, HOST) == AUTHORIZATION_FAILURE
    login(daemon, FIRST, HOST).close()


def test_a_new_initiator_gets_a_user_and_no_secret(snmpd: Snmpd, daemon: Daemon) -> None:
    make_identity(snmpd, 7, STRANGER)
    row = (1, 7, 2)
    snmpd.set(
        number("ipsAuthCredRowStatus", *row), "i", "4",
        number("ipsAuthCredAuthMethod", *row), "o", f"{IPS_AUTH}.1.1.1.3",
        number("ipsAuthCredChapRowStatus", *row), "i", "4", number("ipsAuthCredChapUserName", *row), "s", "bob",
    )  # fmt: skip
    assert refused(daemon, FIRST, STRANGER) == AUTHORIZATION_FAILURE
    authorize(snmpd, nodes(snmpd)[FIRST], 41, 7)
    # nobody has said what proves that it is bob
    assert refused(daemon, FIRST, STRANGER, None) == AUTHENTICATION_FAILURE
    assert refused(daemon, FIRST, STRANGER, ("bob", "")) == AUTHENTICATION_FAILURE
    assert refused(daemon, FIRST, STRANGER) == AUTHENTICATION_FAILURE
    with pytest.raises(SetRefused, match="inconsistentValue"):
        snmpd.set(number("ipsAuthIdentRowStatus", 1, 7), "i", "6")
    with pytest.raises(SetRefused, match="notWritable"):
        snmpd.set(number("ipsAuthCredSrpRowStatus", *row), "i", "4")
    snmpd.set(number("iscsiTgtAuthRowStatus", 1, nodes(snmpd)[FIRST], 41), "i", "6")
    snmpd.set(number("ipsAuthIdentRowStatus", 1, 7), "i", "6")
    assert cell(snmpd.walk(IPS_AUTH), "IPS-AUTH-MIB", "ipsAuthIdentName") == [HOST]


def test_identities_and_their_indexes_outlive_the_process(snmpd: Snmpd, daemon: Daemon) -> None:
    snmpd.set(number("scsiInstStorageType", 1), "i", "3")
    make_identity(snmpd, 7, STRANGER)
    authorize(snmpd, nodes(snmpd)[SECOND], 40, 1)
    authorize(snmpd, nodes(snmpd)[SECOND], 41, 7)
    before = {name: value for name, (kind, value) in walk_of_all(snmpd).items() if kind == "OCTET_STRING" and name[6] != 139}
    daemon.kill()
    (saved,) = (path for path in daemon.directory.rglob("saveconfig.json") if STRANGER in path.read_text())
    daemon.args[daemon.args.index("--config") + 1] = str(saved)
    daemon.start()
    wait_for(daemon, "registered at the master agent", 2)
    after = {name: value for name, (kind, value) in walk_of_all(snmpd).items() if kind == "OCTET_STRING" and name[6] != 139}
    auth = {name: value for name, value in before.items() if name[6] == 141}
    assert {name: value for name, value in after.items() if name[6] == 141} == auth
    assert "the backup" in auth.values()
    (state,) = daemon.directory.rglob("snmp.json")
    assert ALICE[1] not in state.read_text()
    assert os.stat(state).st_mode & 0o077 == 0
    login(daemon, SECOND, HOST).close()
