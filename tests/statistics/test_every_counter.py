"""Every file of LIO's ``statistics/`` and ``fabric_statistics/`` says who something is, or it moves when it should.

Each story does one thing to a tcm-run that is looked at by its control socket before and after; what it moves, and by how
much, is a line of :data:`STORIES`. What no story may move is in :data:`IDENTITIES`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from support.controlled import Ctl, controlled
from support.daemon import TARGET
from support.pdus import CLOSE_CONNECTION, LOGOUT_RESPONSE, REJECT, logout
from support.programs import free_port
from support.raw_iscsi import INITIATOR, Initiator, LoginFailed

from tcm.control.client import Client
from tcm.scsi import cdb

MIB = 1 << 20
SLOW = 1
"""A LUN of one command at a time, whose reads take long."""
STRANGER = "iqn.2025-01.test.raw:stranger"

IDENTITIES = {
    "scsi_dev": {"inst", "indx", "role"},
    "scsi_transport": {"inst", "indx", "device", "dev_name", "proto_id"},
    "scsi_tgt_dev": {"inst", "indx", "num_lus"},
    "scsi_lu": {"inst", "dev", "indx", "lun", "lu_name", "vend", "prod", "rev", "dev_type", "state_bit", "creation_time"},
    "scsi_port": {"inst", "dev", "indx", "role"},
    "scsi_tgt_port": {"inst", "dev", "indx", "name", "port_index"},
    "scsi_auth_intr": {
        *("inst", "dev", "port", "indx", "dev_or_port", "intr_name", "map_indx", "creation_time", "row_status"),
    },
    "scsi_att_intr_port": {"inst", "dev", "port", "port_auth_indx"},
    "iscsi_instance": {"inst", "min_ver", "max_ver", "nodes", "disc_time", "description", "vendor", "version"},
    "iscsi_sess_err": {"inst"},
    "iscsi_tgt_attr": {"inst", "indx"},
    "iscsi_login_stats": {"inst", "indx"},
    "iscsi_logout_stats": {"inst", "indx"},
    "iscsi_sess_stats": {"inst"},
}
"""Directory to files that say who or what it is."""


class Site:
    """A target with an initiator that has a node ACL."""

    def __init__(self, ctl: Ctl) -> None:
        self.ctl = ctl
        self.client = Client(ctl.control)
        self.url = ctl.daemon.urls[0]
        self.group = f"iscsi/{self.url.target}/tpgt_1"
        self.acl = f"{self.group}/acls/{INITIATOR}"

    def write(self, path: str, value: str) -> None:
        self.client.call("write", path=path, value=value)

    @contextmanager
    def with_value(self, path: str, value: str, afterwards: str) -> Iterator[None]:
        self.write(path, value)
        try:
            yield
        finally:
            self.write(path, afterwards)

    def look(self) -> dict[str, str | None]:
        """``lun0:scsi_lu/num_cmds`` and the like."""
        found: dict[str, str | None] = {}
        listing = self.client.call("list", path="", depth=-1, values=True, statistics=True)
        self._gather(listing, "", found)
        return found

    def _gather(self, node: dict[str, Any], path: str, found: dict[str, str | None]) -> None:
        for name, child in node.get("children", {}).items():
            below = f"{path}/{name}"
            if child["kind"] == "group":
                self._gather(child, below, found)
            elif child["kind"] == "attribute" and "statistics/" in below:
                owner, _, rest = below.replace("fabric_statistics/", "statistics/").rpartition("/statistics/")
                value = child.get("value")
                found[f"{owner.rpartition('/')[2]}:{rest}"] = None if value is None else value.strip()

    def connect(self, **options: Any) -> Initiator:
        return Initiator(self.url.host, self.url.port, **options)

    def login(self, **keys: str) -> Initiator:
        initiator = self.connect().login(self.url.target, **keys)
        for lun in (0, SLOW):
            initiator.ready(lun)
        return initiator

    def until(self, name: str, value: str) -> None:
        """What ends beside us has ended."""
        until = time.monotonic() + 20
        while self.look()[name] != value:
            assert time.monotonic() < until, (name, self.look()[name], value)
            time.sleep(0.02)

    def until_left(self) -> None:
        self.until(f"{self.url.target}:iscsi_instance/sessions", "0")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    slow = f"{SLOW}=ramdisk:size=1M,queue-depth=1"
    luns = ("--lun", "ramdisk:size=64M", "--lun", slow, "--filter", f"{SLOW}=delay:read=1500")
    with controlled(tmp_path_factory.mktemp("counters"), *luns, "--param", "ErrorRecoveryLevel=2", urls=2) as ctl:
        made = Site(ctl)
        ctl.run("create", made.acl)
        for lun in (0, SLOW):
            ctl.run("create", f"{made.acl}/lun_{lun}")
            ctl.run("link", f"{made.acl}/lun_{lun}/l", f"{made.group}/lun/lun_{lun}")
        for name, value in (("dataout_timeout", 2), ("dataout_timeout_retries", 1)):
            made.write(f"{made.acl}/attrib/{name}", f"{value}")
        yield made
        made.client.close()


def refuse(site: Site, target: str | None, status: tuple[int, int], **options: Any) -> None:
    with site.connect() as i, pytest.raises(LoginFailed) as caught:
        i.login(target, **options)
    assert caught.value.status == status


def until_dropped(i: Initiator) -> None:
    while i.socket.recv(4096):
        pass


# stories: each is done with a session of the initiator that is there before the first look, if it takes one


def reads_and_writes(site: Site, i: Initiator) -> None:
    for n in range(3):
        assert i.command(cdb.read(10, n, 2048), read=MIB).status == 0
    for n in range(2):
        assert i.command(cdb.write(10, n, 2048), write=bytes(MIB)).status == 0
    assert i.command(bytes(6)).status == 0


def a_session_begins(site: Site) -> None:
    initiator = site.login()
    initiator.logout()
    initiator.close()
    site.until_left()


def a_session_ends(site: Site, i: Initiator) -> None:
    assert i.logout() == 0
    i.close()
    site.until_left()


def a_connection_is_logged_out(site: Site, i: Initiator) -> None:
    i.send_request(logout(CLOSE_CONNECTION, i.next_tag(), i.cmd_sn, i.exp_stat_sn))
    assert i.wait_for(LOGOUT_RESPONSE, i.tag).response == 0
    i.close()
    site.until_left()


def a_connection_breaks(site: Site, i: Initiator) -> None:
    i.close()
    site.until_left()


def a_wrong_secret(site: Site) -> None:
    auth = f"{site.group}/auth"
    site.write(f"{auth}/userid", "alice")
    site.write(f"{auth}/password", "a secret of alice")
    with site.with_value(f"{site.group}/attrib/authentication", "1", "0"):
        refuse(site, site.url.target, (2, 1), name=STRANGER, chap=("alice", "not that"))


def nobody_we_know(site: Site) -> None:
    with site.with_value(f"{site.group}/attrib/generate_node_acls", "0", "1"):
        refuse(site, site.url.target, (2, 2), name=STRANGER)


def a_stage_that_there_is_not(site: Site) -> None:
    with site.connect() as i:
        i.login_step({"InitiatorName": STRANGER, "TargetName": site.url.target, "AuthMethod": "None"}, (0, 1))
        with pytest.raises(LoginFailed) as caught:
            i.login_step({}, (2, 3))
    assert caught.value.status == (2, 0)


def a_session_that_is_not_there(site: Site) -> None:
    with site.connect() as i:
        i.tsih = 4711
        with pytest.raises(LoginFailed) as caught:
            i.login(site.url.target, name=STRANGER)
    assert caught.value.status == (2, 10)


def sent_elsewhere(site: Site) -> None:
    with site.with_value(f"{site.group}/tcm_attrib/redirect_temporarily", "127.0.0.1:9", ""):
        refuse(site, site.url.target, (1, 1), name=STRANGER)


def aborts(site: Site, i: Initiator) -> None:
    tag = i.start(cdb.read(10, 0, 1), SLOW, read=512)
    assert i.task_management(1, SLOW, tag, i.cmd_sn - 1) == 0
    i.task_management(1, 0, 4711, i.cmd_sn - 1)


def a_reset(site: Site, i: Initiator) -> None:
    assert i.task_management(5) == 0


def too_many_commands(site: Site, i: Initiator) -> None:
    first = i.start(cdb.read(10, 0, 1), SLOW, read=512)
    assert i.command(cdb.read(10, 1, 1), SLOW, read=512).status == 0x28
    with site.connect().login(site.url.target, name=STRANGER) as other:
        while (outcome := other.command(cdb.read(10, 1, 1), SLOW, read=512)).status == 2:
            assert outcome.sense_key == 6
        assert outcome.status == 8
        other.logout()
    i.finish(first, lun=SLOW)


def a_wrong_header_digest(site: Site, i: Initiator) -> None:
    i.socket.sendall(bytes(i.command_pdu(bytes(6))) + b"none")
    until_dropped(i)
    site.until_left()


def a_wrong_data_digest(site: Site, i: Initiator) -> None:
    bhs = i.command_pdu(cdb.write(10, 0, 1), write=512)
    bhs[5:8] = (512).to_bytes(3, "big")
    sent = i.encode(bhs, bytes(512))
    i.socket.sendall(sent[:-4] + b"none")
    assert i.receive().opcode == REJECT
    i.cmd_sn -= 1
    assert i.command(bytes(6)).status == 0


def what_is_no_pdu(site: Site, i: Initiator) -> None:
    i.socket.sendall(bytes(5) + b"\xff\xff\xff" + bytes(40))
    until_dropped(i)
    site.until_left()


def data_that_never_come(site: Site, i: Initiator) -> None:
    i.send(i.command_pdu(cdb.write(10, 0, 8), write=4096))
    until_dropped(i)
    site.until_left()


def data_that_never_come_and_the_session_stays(site: Site, i: Initiator) -> None:
    i.send(i.command_pdu(cdb.write(10, 0, 8), write=4096))
    until_dropped(i)


def a_medium_that_stands_still(site: Site, i: Initiator) -> None:
    assert i.command(bytes((0x1B, 0, 0, 0, 0, 0))).status == 0


def a_portal_more(site: Site) -> None:
    site.client.call("make", path=f"{site.group}/np/[::1]:{free_port()}")


def a_stranger_from_ipv6(site: Site) -> None:
    port = next(name for name in site.client.call("list", path=f"{site.group}/np")["children"] if name.startswith("[::1]"))
    with (
        site.with_value(f"{site.group}/attrib/generate_node_acls", "0", "1"),
        Initiator("::1", int(port.rpartition(":")[2])) as i,
        pytest.raises(LoginFailed),
    ):
        i.login(site.url.target, name=f"{STRANGER}:2")


def a_lun_is_taken_away(site: Site) -> None:
    for place in (site.acl, f"{site.group}/lun"):
        site.client.call("remove", path=f"{place}/lun_{SLOW}", recursive=True)


class Story(NamedTuple):
    tell: Callable[..., None]
    session: dict[str, str] | None
    """Keys of the session that it takes; ``None``: it takes none."""
    moves: dict[str, int | None]
    """File to by how much; ``None``: to something else."""


def on_lun(lun: int, commands: int, *, read: int = 0, written: int = 0) -> dict[str, int | None]:
    """What commands move of a LUN, and by how much; MiB that were read and written."""
    found = {f"lun{lun}:scsi_lu/{name}": commands for name in ("num_cmds", "hs_num_cmds")}
    found |= {f"lun_{lun}:scsi_tgt_port/{name}": commands for name in ("in_cmds", "hs_in_cmds")}
    found |= {f"lun_{lun}:scsi_auth_intr/{name}": commands for name in ("num_cmds", "hs_num_cmds")}
    for group in (f"lun{lun}:scsi_lu", f"lun_{lun}:scsi_tgt_port", f"lun_{lun}:scsi_auth_intr"):
        found |= {f"{group}/read_mbytes": read, f"{group}/write_mbytes": written}
    return {name: count for name, count in found.items() if count}


def of_session(commands: int, responses: int, *, read: int = 0, written: int = 0) -> dict[str, int | None]:
    """The same of a session; bytes."""
    found = {"cmd_pdus": commands, "rsp_pdus": responses, "txdata_octs": read, "rxdata_octs": written}
    return {f"{INITIATOR}:iscsi_sess_stats/{name}": count for name, count in found.items() if count}


def of_target(**moves: int | None) -> dict[str, int | None]:
    """``login_stats__accepts=1``."""
    return {f"{TARGET}:iscsi_{name.replace('__', '/')}": count for name, count in moves.items()}


LEFT: dict[str, int | None] = {
    **of_target(instance__sessions=-1),
    **dict.fromkeys(
        f"{INITIATOR}:iscsi_sess_stats/{name}"
        for name in (
            *("node", "indx", "cmd_pdus", "rsp_pdus", "txdata_octs", "rxdata_octs"),
            *("conn_digest_errors", "conn_timeout_errors"),
        )
    ),
    **dict.fromkeys(f"lun_{lun}:scsi_att_intr_port/{name}" for lun in (0, SLOW) for name in ("indx", "port_ident")),
}
"""A session that has gone takes along what was its own."""
FAILED = of_target(instance__fail_sess=1)
REFUSED = of_target(tgt_attr__login_fails=1, tgt_attr__last_fail_time=None, tgt_attr__last_fail_type=None)

STORIES = (
    # before others end without a logout
    Story(a_connection_breaks, {}, {**LEFT, **FAILED, **of_target(instance__fail_rem_name=None)}),
    Story(a_session_begins, None, {
        **of_target(login_stats__accepts=1, logout_stats__normal_logouts=1),
        **on_lun(0, 2), **on_lun(SLOW, 2),
        **{f"lun_{lun}:scsi_auth_intr/att_count": 1 for lun in (0, SLOW)},
    }),
    Story(reads_and_writes, {}, {**on_lun(0, 6, read=3, written=2), **of_session(6, 6, read=3 * MIB, written=2 * MIB)}),
    Story(a_session_ends, {}, {**LEFT, **of_target(logout_stats__normal_logouts=1)}),
    Story(a_connection_is_logged_out, {}, {**LEFT, **of_target(logout_stats__abnormal_logouts=1)}),
    Story(a_wrong_secret, None, {
        **REFUSED,
        **of_target(login_stats__authenticate_fails=1, tgt_attr__fail_intr_name=None, tgt_attr__fail_intr_addr=None),
    }),
    Story(nobody_we_know, None, {**REFUSED, **of_target(login_stats__authorize_fails=1)}),
    Story(a_stage_that_there_is_not, None, {**REFUSED, **of_target(login_stats__negotiate_fails=1)}),
    Story(a_session_that_is_not_there, None, {**REFUSED, **of_target(login_stats__other_fails=1)}),
    Story(sent_elsewhere, None, of_target(login_stats__redirects=1)),
    Story(aborts, {}, {
        **of_session(1, 0), **on_lun(SLOW, 1),
        "lun1:scsi_tgt_dev/aborts_complete": 1, "lun0:scsi_tgt_dev/aborts_no_task": 1,
    }),
    Story(a_reset, {}, {"lun0:scsi_tgt_dev/resets": 1, "lun0:scsi_lu/resets": 1}),
    Story(too_many_commands, {}, {
        **of_session(2, 2, read=512), **on_lun(SLOW, 2),
        # a stranger's among them, who gets BUSY
        **{f"lun1:scsi_lu/{name}": 3 for name in ("num_cmds", "hs_num_cmds")},
        **{f"lun_1:scsi_tgt_port/{name}": 3 for name in ("in_cmds", "hs_in_cmds")},
        "lun1:scsi_lu/full_stat": 1,
        # a port's, under each of its LUNs
        "lun_0:scsi_port/busy_count": 1, "lun_1:scsi_port/busy_count": 1,
        **of_target(login_stats__accepts=1, logout_stats__normal_logouts=1),
    }),
    Story(a_wrong_header_digest, {"digests": "CRC32C"}, {
        **LEFT, **FAILED, **of_target(instance__fail_type=None, sess_err__digest_errors=1),
    }),
    Story(a_wrong_data_digest, {"digests": "CRC32C", "ErrorRecoveryLevel": "1"}, {
        **on_lun(0, 1), **of_session(1, 1), f"{INITIATOR}:iscsi_sess_stats/conn_digest_errors": 1,
    }),
    Story(what_is_no_pdu, {}, {**LEFT, **FAILED, **of_target(instance__fail_type=None, sess_err__format_errors=1)}),
    Story(data_that_never_come, {}, {
        **LEFT, **FAILED, **on_lun(0, 1), **of_target(instance__fail_type=None, sess_err__cxn_errors=1),
    }),
    Story(data_that_never_come_and_the_session_stays, {"ErrorRecoveryLevel": "2", "DefaultTime2Retain": "2"}, {
        **of_session(1, 0), f"{INITIATOR}:iscsi_sess_stats/conn_timeout_errors": 1,
    }),
    Story(a_medium_that_stands_still, {}, {**of_session(1, 1), **on_lun(0, 1), "lun0:scsi_tgt_dev/non_access_lus": 1}),
    Story(a_portal_more, None, of_target(instance__portals=1)),
    Story(a_stranger_from_ipv6, None, {
        **REFUSED,
        **of_target(login_stats__authorize_fails=1, tgt_attr__fail_intr_name=None),
        **of_target(tgt_attr__fail_intr_addr=None, tgt_attr__fail_intr_addr_type=None),
    }),
    Story(a_lun_is_taken_away, None, {
        "lun1:scsi_dev/ports": -1, "lun1:scsi_lu/status": None, "lun1:scsi_tgt_dev/status": None,
    }),
)  # fmt: skip


def test_every_file_moves_when_it_should_and_else_not(site: Site) -> None:
    moved: set[str] = set()
    shown: set[str] = set()
    for story in STORIES:
        initiator = site.login(**story.session) if story.session is not None else None
        before = site.look()
        story.tell(site, *([initiator] if initiator is not None else []))
        after = site.look()
        if initiator is not None:
            initiator.close()
            site.until_left()
        shown |= {name.rpartition(":")[2] for name in before}
        there = before.keys() & after.keys()
        moves = {name: (before[name], after[name]) for name in there if before[name] != after[name]}
        # whose LUN has gone has no counters
        expected = {name: by for name, by in story.moves.items() if name in there}
        assert expected.keys() >= story.moves.keys() - {name for name in before if name not in after}
        assert moves.keys() == expected.keys(), (story.tell.__name__, moves.keys() ^ expected.keys())
        for name, by in expected.items():
            if by is not None:
                old, new = moves[name]
                assert int(new or 0) - int(old or 0) == by, (story.tell.__name__, name, old, new)
        moved |= {name.rpartition(":")[2] for name in moves}
    still = {f"{group}/{name}" for group, names in IDENTITIES.items() for name in names}
    assert shown - moved - still == set(), "these never move"
    assert moved & still == set()
