"""IPS-AUTH-MIB (RFC 4545) in a running target: identities are node ACLs by their names, and their proofs are CHAP users."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from support.compiled_mibs import load
from support.raw_iscsi import INITIATOR as RAW
from support.sets_site import FINE, GROUP, INITIATOR, SECRET, Site, Value, site
from support.statistics_site import apart
from support.statistics_site import serving as serving_iscsi
from tcm_iscsi.ips_auth_writing import MAXIMUM_ADDRESSES, MAXIMUM_IDENTITIES

from tcm.statistics.agentx import Error, VarBind, varbind
from tcm.statistics.mib import Oid, Syntax, View
from tcm.statistics.mib_state import NON_VOLATILE, TRANSIENT, MibState, no_identity
from tcm.target.node_acl import Authentication

CHAP = (*load("IPS-AUTH-MIB")[0]["ipsAuthCredAuthMethod"].oid[:8], 1, 1, 3)
OTHER = "iqn.2003-01.org.example:t2"
STRANGER = "iqn.2003-01.org.example:stranger"
ACL = f"{GROUP}/acls/{INITIATOR}"


def pointer(identity: int) -> Oid:
    return (*load("IPS-AUTH-MIB")[0]["ipsAuthIdentDescription"].oid, 1, identity)


def named(identity: int, name: str) -> list[tuple[str, Oid, Value]]:
    """A SET that makes an identity, with its name."""
    return [
        ("ipsAuthIdentNameRowStatus", (1, identity, 1), 4),
        ("ipsAuthIdentName", (1, identity, 1), name.encode()),
        ("ipsAuthIdentRowStatus", (1, identity), 4),
        ("ipsAuthIdentDescription", (1, identity), b"the backup"),
    ]


def user(identity: int, name: str, index: int = 5) -> list[tuple[str, Oid, Value]]:
    """A SET that gives it a CHAP user, in the wrong order."""
    return [
        ("ipsAuthCredChapUserName", (1, identity, index), name.encode()),
        ("ipsAuthCredChapRowStatus", (1, identity, index), 4),
        ("ipsAuthCredRowStatus", (1, identity, index), 4),
        ("ipsAuthCredAuthMethod", (1, identity, index), CHAP),
    ]


def from_network(identity: int, start: bytes, end: bytes, index: int = 3) -> list[tuple[str, Oid, Value]]:
    """A SET that says where it may come from."""
    row = (1, identity, index)
    return [
        ("ipsAuthIdentAddrType", row, 1 if len(start) == 4 else 2),
        ("ipsAuthIdentAddrStart", row, start),
        ("ipsAuthIdentAddrEnd", row, end),
        ("ipsAuthIdentAddrRowStatus", row, 4),
    ]


def authorize(node: int, index: int, identity: int) -> list[tuple[str, Oid, Value]]:
    row = (1, node, index)
    return [("iscsiTgtAuthRowStatus", row, 4), ("iscsiTgtAuthIdentity", row, pointer(identity))]


async def second_target(s: Site) -> int:
    """Its node index."""
    await s.tree.make_all(f"iscsi/{OTHER}/tpgt_1")
    return next(index[-1] for index, name in s.rows("iscsiNodeName").items() if name == OTHER.encode())


def secrets_in(view: View, now: float, *secrets: str) -> list[Oid]:
    """Instances whose bytes on the wire have one of them."""
    found, at = [], (1, 3)
    while (step := view.next(at, (), now)) is not None:
        at, syntax, value = step
        bind = varbind(at, Syntax.GAUGE_32, 0) if syntax is Syntax.TIME_TICKS else varbind(at, syntax, value)  # type: ignore[arg-type]  # no time
        assert isinstance(bind, VarBind)
        if any(secret.encode() in bind.data for secret in secrets):
            found.append(at)
    return found


@pytest.mark.anyio
async def test_a_node_acl_is_an_identity(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.tree.write(f"{ACL}/tcm_attrib/allowed_addresses", "10.0.0.0/8\n2001:db8::7\n")
        assert s.rows("ipsAuthInstDescr") == {(1,): b""}
        assert s.rows("ipsAuthIdentDescription") == {(1, 1): b""}
        assert s.rows("ipsAuthIdentName") == {(1, 1, 1): INITIATOR.encode()}
        assert s.rows("ipsAuthIdentAddrType") == {(1, 1, 1): 1, (1, 1, 2): 2}
        assert s.get("ipsAuthIdentAddrStart", (1, 1, 1)) == bytes((10, 0, 0, 0))
        assert s.get("ipsAuthIdentAddrEnd", (1, 1, 1)) == bytes((10, 255, 255, 255))
        assert s.get("ipsAuthIdentAddrStart", (1, 1, 2)) == s.get("ipsAuthIdentAddrEnd", (1, 1, 2)) != b""
        assert s.rows("ipsAuthCredAuthMethod") == {(1, 1, 1): CHAP}
        assert s.rows("ipsAuthCredChapUserName") == {(1, 1, 1): b"user"}
        assert s.rows("iscsiTgtAuthIdentity") == {(1, 1, 1): pointer(1)}
        assert s.get("ipsAuthIdentDescription", pointer(1)[-2:]) is not None
        assert secrets_in(s.view, s.now, SECRET) == []
        # the same initiator at another target is no other identity
        await s.tree.make_all(f"iscsi/{OTHER}/tpgt_1/acls/{INITIATOR}")
        assert s.rows("iscsiTgtAuthIdentity") == {(1, 1, 1): pointer(1), (1, 2, 1): pointer(1)}
        # who has no user of its own proves itself by the portal group's
        await s.tree.write(f"iscsi/{OTHER}/tpgt_1/auth/userid", "everybody\n")
        users = s.rows("ipsAuthCredChapUserName")
        assert sorted(users.values()) == [b"everybody", b"user"]
        (shared,) = (index for index, name in users.items() if name == b"everybody")
        assert shared[-1] > TRANSIENT
        assert await s.set(("ipsAuthCredChapUserName", shared, b"me")) == (Error.INCONSISTENT_VALUE, 1)
        assert await s.set(("ipsAuthCredRowStatus", shared, 6)) == (Error.INCONSISTENT_VALUE, 1)
        assert await s.set(("ipsAuthCredChapRowStatus", shared, 6)) == (Error.INCONSISTENT_VALUE, 1)


@pytest.mark.anyio
async def test_an_identity_is_made_and_authorized(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        node = await second_target(s)
        before = await s.export()
        assert await s.set(*named(9, STRANGER)) == FINE
        assert await s.set(*user(9, "me"), *from_network(9, b"\x0a\1\0\0", b"\x0a\1\xff\xff")) == FINE
        assert await s.export() == before  # nobody may do anything yet
        assert s.rows("ipsAuthIdentDescription")[1, 9] == b"the backup"
        assert s.get("ipsAuthIdentName", (1, 9, 1)) == STRANGER.encode()
        assert s.get("ipsAuthCredChapUserName", (1, 9, 5)) == b"me"
        assert s.get("ipsAuthIdentAddrEnd", (1, 9, 3)) == b"\x0a\1\xff\xff"
        answer = await s.test(*authorize(node, 30, 9))
        assert answer == FINE
        assert await s.setter.commit(1) == FINE
        acl = f"iscsi/{OTHER}/tpgt_1/acls/{STRANGER}"
        assert s.tree.read(f"{acl}/auth/userid") == "me\n"
        assert s.tree.read(f"{acl}/auth/password") == ""  # nobody has said it: nobody gets in by it
        assert s.tree.read(f"{acl}/tcm_attrib/allowed_addresses") == "10.1.0.0/16\n"
        # everything has the indexes it had
        for name, index, value in (
            ("iscsiTgtAuthIdentity", (1, node, 30), pointer(9)),
            ("ipsAuthCredChapUserName", (1, 9, 5), b"me"),
            ("ipsAuthIdentAddrStart", (1, 9, 3), b"\x0a\1\0\0"),
            ("ipsAuthIdentName", (1, 9, 1), STRANGER.encode()),
        ):
            assert s.get(name, index) == value
        assert await s.setter.undo(1) == FINE
        assert await s.export() == before
        assert s.get("ipsAuthCredChapUserName", (1, 9, 5)) == b"me"
        assert s.get("ipsAuthIdentAddrStart", (1, 9, 3)) == b"\x0a\1\0\0"
        assert await s.set(*authorize(node, 30, 9)) == FINE
        # while it is authorized it stays
        for wanted in (("ipsAuthIdentRowStatus", (1, 9), 6), ("ipsAuthIdentNameRowStatus", (1, 9, 1), 6)):
            assert await s.set(wanted) == (Error.INCONSISTENT_VALUE, 1)
        assert await s.set(("iscsiTgtAuthRowStatus", (1, node, 30), 6)) == FINE
        assert await s.export() == before
        assert s.get("ipsAuthIdentName", (1, 9, 1)) == STRANGER.encode()
        assert await s.set(("ipsAuthIdentNameRowStatus", (1, 9, 1), 6)) == FINE
        assert s.rows("ipsAuthIdentDescription")[1, 9] == b"the backup"
        assert await s.set(("ipsAuthIdentRowStatus", (1, 9), 6)) == FINE
        assert set(s.rows("ipsAuthIdentDescription")) == {(1, 1)}


@pytest.mark.anyio
async def test_what_proves_an_identity_goes_with_it_to_another_target(tmp_path: Path) -> None:
    """Its secret too, which no manager has seen."""
    async with site(tmp_path) as s:
        node = await second_target(s)
        await s.tree.write(f"{ACL}/tcm_attrib/allowed_addresses", "10.0.0.0/8\n")
        assert await s.set(*authorize(node, 30, 1)) == FINE
        acl = f"iscsi/{OTHER}/tpgt_1/acls/{INITIATOR}"
        assert s.tree.read(f"{acl}/auth/password") == f"{SECRET}\n"
        assert s.tree.read(f"{acl}/auth/userid") == "user\n"
        assert s.tree.read(f"{acl}/tcm_attrib/allowed_addresses") == "10.0.0.0/8\n"
        assert s.rows("ipsAuthCredChapUserName") == {(1, 1, 1): b"user"}
        assert secrets_in(s.view, s.now, SECRET) == []
        # what is set of it is set at both
        assert await s.set(("ipsAuthCredChapUserName", (1, 1, 1), b"other")) == FINE
        assert s.tree.read(f"{acl}/auth/userid") == s.tree.read(f"{ACL}/auth/userid") == "other\n"
        assert s.tree.read(f"{ACL}/auth/password") == f"{SECRET}\n"
        assert s.rows("ipsAuthCredChapUserName") == {(1, 1, 1): b"other"}
        assert await s.set(*from_network(1, b"\xc0\0\2\7", b"\xc0\0\2\7", 8)) == FINE
        assert s.tree.read(f"{acl}/tcm_attrib/allowed_addresses") == "10.0.0.0/8\n192.0.2.7/32\n"
        assert s.get("ipsAuthIdentAddrStart", (1, 1, 8)) == b"\xc0\0\2\7"
        assert await s.set(("ipsAuthIdentAddrRowStatus", (1, 1, 1), 6)) == FINE
        assert s.tree.read(f"{ACL}/tcm_attrib/allowed_addresses") == "192.0.2.7/32\n"
        # the credential without its row of CHAP wants a user, and nobody's secret is left
        assert await s.set(("ipsAuthCredChapRowStatus", (1, 1, 1), 6)) == FINE
        assert s.tree.read(f"{acl}/auth/password") == s.tree.read(f"{ACL}/auth/userid") == ""
        assert s.rows("ipsAuthCredAuthMethod") == {(1, 1, 1): CHAP}
        assert s.rows("ipsAuthCredChapUserName") == {}
        assert await s.set(("ipsAuthCredChapRowStatus", (1, 1, 1), 4), ("ipsAuthCredChapUserName", (1, 1, 1), b"third")) == FINE
        assert s.tree.read(f"{acl}/auth/userid") == "third\n"
        assert s.rows("ipsAuthCredChapUserName") == {(1, 1, 1): b"third"}
        assert await s.set(("ipsAuthCredRowStatus", (1, 1, 1), 6)) == FINE
        assert s.rows("ipsAuthCredAuthMethod") == {}
        assert s.tree.read(f"{acl}/auth/userid") == ""
        # different proofs at different targets: which of them would it be?
        await s.tree.write(f"{acl}/auth/userid", "fourth\n")
        assert await s.set(*user(1, "fifth")) == (Error.INCONSISTENT_NAME, 3)
        third = "iqn.2003-01.org.example:t3"
        await s.tree.make_all(f"iscsi/{third}/tpgt_1")
        (last,) = (index[-1] for index, name in s.rows("iscsiNodeName").items() if name == third.encode())
        assert await s.set(*authorize(last, 1, 1)) == (Error.INCONSISTENT_VALUE, 2)


@pytest.mark.anyio
async def test_an_identity_gets_another_name(tmp_path: Path) -> None:
    """With everything that its node ACLs have, at their indexes."""
    async with site(tmp_path) as s:
        (auth,) = s.rows("iscsiTgtAuthIdentity")
        unit = next(index[-1] for index, lun in s.rows("scsiLuDefaultLun").items() if lun[1] == 4)
        lun = (1, auth[1], auth[-1], 0, 9, 0, 0, 0, 0, 0, 0)
        assert await s.set(("scsiLunMapRowStatus", lun, 4), ("scsiLunMapLuIndex", lun, unit)) == FINE
        assert await s.set(("ipsAuthIdentDescription", (1, 1), b"the mail server")) == FINE
        assert await s.set(("ipsAuthIdentName", (1, 1, 1), INITIATOR.upper().encode())) == (Error.INCONSISTENT_VALUE, 1)
        assert await s.set(("ipsAuthIdentName", (1, 1, 1), b"nobody")) == (Error.INCONSISTENT_VALUE, 1)
        assert await s.set(("ipsAuthIdentName", (1, 1, 1), STRANGER.encode())) == FINE
        assert s.tree.read(f"{GROUP}/acls/{STRANGER}/auth/password") == f"{SECRET}\n"
        assert s.rows("iscsiTgtAuthIdentity") == {auth: pointer(1)}
        assert s.get("scsiLunMapLuIndex", lun) == unit
        assert s.rows("ipsAuthCredChapUserName") == {(1, 1, 1): b"user"}
        assert s.rows("ipsAuthIdentDescription") == {(1, 1): b"the mail server"}
        # a name that another has
        assert await s.set(*named(2, INITIATOR)) == FINE
        assert await s.set(("ipsAuthIdentName", (1, 2, 1), STRANGER.encode())) == (Error.INCONSISTENT_VALUE, 1)
        assert (await s.set(*named(3, STRANGER)))[0] is Error.INCONSISTENT_VALUE
        assert (await s.set(*named(3, RAW), *named(4, RAW)))[0] is Error.INCONSISTENT_VALUE


@pytest.mark.anyio
async def test_identities_outlive_the_process_where_all_that_is_set_does(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        assert await s.set(("scsiInstStorageType", (1,), NON_VOLATILE)) == FINE
        assert await s.set(("ipsAuthInstDescr", (1,), b"who is who")) == FINE
        assert await s.set(*named(9, STRANGER), *user(9, "me")) == FINE
        assert SECRET not in (tmp_path / "snmp.json").read_text()
        s.state = MibState(str(tmp_path))
        s.connect()
        assert s.get("ipsAuthInstDescr", (1,)) == b"who is who"
        assert s.get("ipsAuthCredChapUserName", (1, 9, 5)) == b"me"
        # an index that has been made for one is not given to another
        await s.tree.make_all(f"{GROUP}/acls/{RAW}")
        assert s.rows("ipsAuthIdentName") == {
            (1, 1, 1): INITIATOR.encode(),
            (1, 9, 1): STRANGER.encode(),
            (1, 10, 1): RAW.encode(),
        }


@pytest.mark.anyio
async def test_indexes_of_what_is_undone_are_nobodys(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        assert await s.set(("ipsAuthIdentRowStatus", (1, 9), 4), ("ipsAuthIdentDescription", (1, 9), b"")) == FINE
        assert await s.test(*named(9, STRANGER)[:2]) == FINE
        assert await s.setter.commit(1) == FINE
        assert s.get("ipsAuthIdentName", (1, 9, 1)) == STRANGER.encode()
        assert await s.setter.undo(1) == FINE
        await s.tree.make_all(f"{GROUP}/acls/{STRANGER}")
        assert s.rows("ipsAuthIdentName") == {(1, 1, 1): INITIATOR.encode(), (1, 10, 1): STRANGER.encode()}
        assert set(s.rows("ipsAuthIdentDescription")) == {(1, 1), (1, 9), (1, 10)}
        # and of a name that is taken back
        assert await s.test(("ipsAuthIdentName", (1, 1, 1), RAW.encode())) == FINE
        assert await s.setter.commit(1) == FINE
        assert s.rows("ipsAuthCredChapUserName") == {(1, 1, 1): b"user"}
        assert await s.setter.undo(1) == FINE
        assert s.rows("ipsAuthIdentName") == {(1, 1, 1): INITIATOR.encode(), (1, 10, 1): STRANGER.encode()}
        assert s.rows("ipsAuthCredChapUserName") == {(1, 1, 1): b"user"}
        assert set(s.rows("iscsiTgtAuthIdentity").values()) == {pointer(1), pointer(10)}


@pytest.mark.anyio
async def test_a_secret_that_was_nobodys_does_not_prove_a_new_user(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.tree.write(f"{ACL}/auth/userid", "NULL\n")
        assert s.tree.read(f"{ACL}/auth/password") == f"{SECRET}\n"
        assert s.rows("ipsAuthCredChapUserName") == {}
        assert await s.set(*user(1, "me")) == FINE
        assert s.tree.read(f"{ACL}/auth/userid") == "me\n"
        assert s.tree.read(f"{ACL}/auth/password") == ""


REFUSED: tuple[tuple[list[tuple[str, Oid, Any]], tuple[Error, int]], ...] = (
    (named(1, STRANGER), (Error.INCONSISTENT_VALUE, 3)),  # there is one
    (named(9, "iqn.x"), (Error.INCONSISTENT_VALUE, 2)),
    (named(9, "iqn.2003-01.org.example:a b"), (Error.INCONSISTENT_VALUE, 2)),
    ([("ipsAuthIdentRowStatus", (1, 9), 4)], (Error.INCONSISTENT_VALUE, 1)),
    ([("ipsAuthIdentRowStatus", (2, 9), 4), ("ipsAuthIdentDescription", (2, 9), b"")], (Error.NO_CREATION, 1)),
    ([("ipsAuthIdentRowStatus", (1, TRANSIENT), 4), ("ipsAuthIdentDescription", (1, TRANSIENT), b"")], (Error.NO_CREATION, 1)),
    ([*named(9, STRANGER), ("ipsAuthIdentStorageType", (1, 9), 3)], (Error.INCONSISTENT_VALUE, 5)),
    (named(9, STRANGER)[:2], (Error.INCONSISTENT_NAME, 1)),  # of nobody
    ([("ipsAuthIdentNameRowStatus", (1, 1, 2), 4), ("ipsAuthIdentName", (1, 1, 2), STRANGER.encode())],
     (Error.INCONSISTENT_NAME, 1)),  # a second name
    (user(9, "me"), (Error.INCONSISTENT_NAME, 3)),
    (user(1, "me")[:2], (Error.INCONSISTENT_NAME, 2)),
    (user(1, "me"), (Error.INCONSISTENT_NAME, 3)),  # it has one
    ([("ipsAuthCredChapUserName", (1, 1, 1), b"")], (Error.WRONG_LENGTH, 1)),
    ([("ipsAuthCredAuthMethod", (1, 1, 1), (*CHAP[:-1], 2))], (Error.INCONSISTENT_VALUE, 1)),
    ([("ipsAuthCredAuthMethod", (1, 1, 8), (*CHAP[:-1], 2)), ("ipsAuthCredRowStatus", (1, 1, 8), 4)],
     (Error.INCONSISTENT_VALUE, 1)),
    (from_network(9, b"\x0a\0\0\0", b"\x0a\xff\xff\xff"), (Error.INCONSISTENT_NAME, 4)),
    (from_network(1, b"\x0a\0\0\1", b"\x0a\0\0\4"), (Error.INCONSISTENT_VALUE, 3)),  # no prefix
    (from_network(1, b"\x0a\0\0\4", b"\x0a\0\0\1"), (Error.INCONSISTENT_VALUE, 3)),
    (from_network(1, b"\x0a\0\0\4", b"\x0a\0\0"), (Error.INCONSISTENT_VALUE, 2)),
    (authorize(1, 2, 9), (Error.INCONSISTENT_VALUE, 2)),
    (authorize(1, 2, 1), (Error.INCONSISTENT_VALUE, 1)),  # it is, already
    (authorize(9, 2, 1), (Error.NO_CREATION, 1)),
    ([("iscsiTgtAuthRowStatus", (1, 1, 2), 4), ("iscsiTgtAuthIdentity", (1, 1, 2), (0, 0))], (Error.INCONSISTENT_VALUE, 2)),
    ([("ipsAuthCredSrpRowStatus", (1, 1, 1), 4)], (Error.NOT_WRITABLE, 1)),
    ([("ipsAuthCredKerbPrincipal", (1, 1, 1), b"me")], (Error.NOT_WRITABLE, 1)),
)  # fmt: skip


@pytest.mark.anyio
async def test_what_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        before, own = await s.export(), dict(s.state.own)
        for wanted, answer in REFUSED:
            assert await s.set(*wanted) == answer, wanted
        assert (await s.export(), s.state.own) == (before, own)


@pytest.mark.anyio
async def test_what_is_kept_beside_the_tree_is_bounded(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        assert await s.set(*named(9, STRANGER)) == FINE
        for n in range(MAXIMUM_ADDRESSES + 1):
            answer = await s.set(*from_network(9, bytes((10, n, 0, 0)), bytes((10, n, 255, 255)), n + 1))
            assert (answer == FINE) == (n < MAXIMUM_ADDRESSES)
        assert answer[0] is Error.RESOURCE_UNAVAILABLE
        assert (await s.set(*from_network(9, b"\x0a\0\0\0", b"\x0a\0\xff\xff", 1000)))[0] is Error.INCONSISTENT_VALUE
        s.state.own["identities"] |= {str(number): no_identity() for number in range(10, 10 + MAXIMUM_IDENTITIES)}
        assert (await s.set(*named(2000, RAW)))[0] is Error.RESOURCE_UNAVAILABLE


@pytest.mark.anyio
async def test_who_has_come_by_demo_mode() -> None:
    """Its identity lasts as long as it is there, at an index that nobody gets afterwards."""
    group_user = Authentication("everybody", "a secret of fourteen", "", "")
    async with serving_iscsi(authentication=group_user) as site:
        state = MibState()
        auth, iscsi = site.fabric.statistics().mib(state)
        view = View([auth, iscsi])
        columns = load("IPS-AUTH-MIB")[0] | load("ISCSI-MIB")[0]

        def column(name: str, now: float) -> dict[Oid, Any]:
            found, at = {}, columns[name].oid
            while (step := view.next(at, (), now)) is not None and step[0][: len(columns[name].oid)] == columns[name].oid:
                at = step[0]
                found[at[len(columns[name].oid) :]] = step[2]
            return found

        def work() -> None:
            seen = []
            for now in (0.0, 1e6):
                with site.connect() as i:
                    i.login(site.name, chap=("everybody", "a secret of fourteen")).ready()
                    ((index, name),) = column("ipsAuthIdentName", now).items()
                    assert name == RAW.encode()
                    assert index[1] >= TRANSIENT
                    seen.append(index)
                    assert list(column("iscsiTgtAuthIdentity", now).values()) == [pointer(index[1])]
                    ((credential, user_name),) = column("ipsAuthCredChapUserName", now).items()
                    assert user_name == b"everybody"
                    # the session says by what it got in
                    (proof,) = column("iscsiSsnAuthIdentity", now).values()
                    assert proof == (*columns["ipsAuthCredAuthMethod"].oid, *credential)
                    assert secrets_in(view, now, "a secret of fourteen") == []
                    i.logout()
                end = time.monotonic() + 20
                while column("ipsAuthIdentName", now := now + 2):
                    assert time.monotonic() < end
                    time.sleep(0.02)
            assert seen[0] != seen[1]

        await apart(work)
