"""Whatever managers do to identities, in whatever order: pointers lead to rows, names are unique, no secret comes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.compiled_mibs import load
from support.sets_site import COLUMNS, FINE, GROUP, INITIATOR, SECRET, Site, Value, site

from tcm.statistics.agentx import Error
from tcm.statistics.mib import Oid, Syntax

NAMES = (INITIATOR, "iqn.2003-01.org.example:a", "iqn.2003-01.org.example:b", "nobody")
IDENTITIES, PLACES = st.sampled_from([1, 2, 3, 9]), st.sampled_from([1, 2])
STATUSES = st.sampled_from([1, 4, 5, 6])
CHAP = (*load("IPS-AUTH-MIB")[0]["ipsAuthCredAuthMethod"].oid[:8], 1, 1, 3)
POINTER = (*load("IPS-AUTH-MIB")[0]["ipsAuthIdentDescription"].oid, 1)
Wanted = tuple[str, Oid, Value]


def row(table: str, status: str, places: int, **values: Any) -> Any:
    """SETs of a row: its status, or some of its columns, or both."""
    index = st.tuples(st.just(1), IDENTITIES, *[PLACES] * places)
    columns = st.fixed_dictionaries({}, optional={f"{table}{name}": value for name, value in values.items()})
    made = st.fixed_dictionaries({f"{table}{name}": value for name, value in values.items()})

    def assemble(index: Oid, given: dict[str, Value], wanted: int | None) -> list[Wanted]:
        found: list[Wanted] = [(name, index, value) for name, value in given.items()]
        return found + ([(status, index, wanted)] if wanted is not None else [])

    return st.builds(assemble, index, made, st.just(4)) | st.builds(assemble, index, columns, STATUSES | st.none())


def named(identity: int, name: str) -> list[Wanted]:
    return [
        ("ipsAuthIdentRowStatus", (1, identity), 4),
        ("ipsAuthIdentDescription", (1, identity), b"x"),
        ("ipsAuthIdentNameRowStatus", (1, identity, 1), 4),
        ("ipsAuthIdentName", (1, identity, 1), name.encode()),
    ]


def with_user(identity: int, place: int, user: bytes) -> list[Wanted]:
    row = (1, identity, place)
    return [
        ("ipsAuthCredRowStatus", row, 4),
        ("ipsAuthCredAuthMethod", row, CHAP),
        ("ipsAuthCredChapRowStatus", row, 4),
        ("ipsAuthCredChapUserName", row, user),
    ]


def authorized(node: int, index: int, identity: int) -> list[Wanted]:
    row = (1, node, index)
    return [("iscsiTgtAuthRowStatus", row, 4), ("iscsiTgtAuthIdentity", row, (*POINTER, identity))]


def removed(status: str, index: Oid) -> list[Wanted]:
    return [(status, index, 6)]


STATUS_COLUMNS = ("ipsAuthIdentName", "ipsAuthIdentAddr", "ipsAuthCred", "ipsAuthCredChap", "iscsiTgtAuth")
SETS = st.one_of(
    # what managers would do
    st.builds(named, IDENTITIES, st.sampled_from(NAMES[:3])),
    st.builds(with_user, IDENTITIES, PLACES, st.sampled_from([b"user", b"other"])),
    st.builds(authorized, PLACES, PLACES, IDENTITIES),
    st.builds(
        removed, st.sampled_from([f"{name}RowStatus" for name in STATUS_COLUMNS]), st.tuples(st.just(1), IDENTITIES, PLACES)
    ),
    st.builds(removed, st.just("ipsAuthIdentRowStatus"), st.tuples(st.just(1), IDENTITIES)),
    # and anything else
    row("ipsAuthIdent", "ipsAuthIdentRowStatus", 0, Description=st.sampled_from([b"", b"x"])),
    row("ipsAuthIdent", "ipsAuthIdentNameRowStatus", 1, Name=st.sampled_from([name.encode() for name in NAMES])),
    row(
        "ipsAuthIdentAddr", "ipsAuthIdentAddrRowStatus", 1,
        Type=st.just(1), Start=st.sampled_from([b"\x0a\0\0\0", b"\x0a\0\0\1"]), End=st.just(b"\x0a\0\0\xff"),
    ),
    row("ipsAuthCred", "ipsAuthCredRowStatus", 1, AuthMethod=st.just(CHAP)),
    row("ipsAuthCredChap", "ipsAuthCredChapRowStatus", 1, UserName=st.sampled_from([b"user", b"other", b""])),
    row("iscsiTgtAuth", "iscsiTgtAuthRowStatus", 1, Identity=IDENTITIES.map(lambda number: (*POINTER, number))),
    st.builds(
        lambda index, name: [("scsiAuthIntrRowStatus", (1, 1, 1, index), 4), ("scsiAuthIntrName", (1, 1, 1, index), name)],
        PLACES, st.sampled_from([name.encode() for name in NAMES]),
    ),
)  # fmt: skip


async def sound(s: Site) -> None:
    """What holds of all rows."""
    identities = s.rows("ipsAuthIdentRowStatus")
    names = {
        index: name for index, name in s.rows("ipsAuthIdentName").items() if s.get("ipsAuthIdentNameRowStatus", index) == 1
    }
    assert len(set(names.values())) == len(names)
    assert {index[:2] for index in names} <= {index for index, status in identities.items() if status == 1}
    acls = {
        each["node_wwn"].encode()
        for target in (await s.export())["targets"]
        for group in target["tpgs"]
        for each in group["node_acls"]
    }
    assert acls <= set(names.values())
    for index, pointer in s.rows("iscsiTgtAuthIdentity").items():
        assert s.get("iscsiTgtAuthRowStatus", index) != 1 or s.get("ipsAuthIdentRowStatus", pointer[-2:]) == 1
    for name in ("ipsAuthIdentAddrRowStatus", "ipsAuthCredRowStatus"):
        assert {index[:2] for index, status in s.rows(name).items() if status == 1} <= set(identities)
    users = {index for index, status in s.rows("ipsAuthCredChapRowStatus").items() if status == 1}
    assert users <= set(s.rows("ipsAuthCredRowStatus"))
    at: Oid = (1, 3)
    while (step := s.view.next(at, (), s.now)) is not None:
        at, syntax, value = step
        assert syntax is not Syntax.OCTET_STRING or SECRET.encode() not in value  # type: ignore[operator]  # of bytes


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(st.tuples(st.lists(SETS, min_size=1, max_size=2), st.sampled_from([True, True, False])), max_size=20))
def test_identities_whatever_is_done_to_them(steps: Any, tmp_path: Path) -> None:
    async def run() -> None:
        directory = tmp_path / os.urandom(8).hex()
        directory.mkdir()
        async with site(directory) as s:
            await s.tree.make_all(f"{GROUP.replace(':t1', ':t2')}")
            for number, (parts, keep) in enumerate(steps):
                wanted = [each for part in parts for each in part]
                if not wanted:
                    continue
                assert all(name in COLUMNS for name, _, _ in wanted)
                before, own = await s.export(), s.state.own
                answer = await s.test(*wanted, transaction=number)
                assert answer[0] is not Error.GEN_ERR
                if answer != FINE:
                    continue
                assert await s.setter.commit(number) == FINE
                await sound(s)
                if keep:
                    s.setter.cleanup(number)
                else:
                    assert await s.setter.undo(number) == FINE
                    assert (await s.export(), s.state.own) == (before, own)
                    await sound(s)

    anyio.run(run)
