"""SETs in their four steps (RFC 2741 7.2.4) in a running target: what is committed holds, what is undone is as before."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.programs import free_port
from support.sets_site import COLUMNS, FINE, GROUP, INITIATOR, IQN, Value, site
from tcm_iscsi import mib_writing

from tcm.failure import ConfigError
from tcm.statistics.agentx import Error, Wanted
from tcm.statistics.mib import Oid
from tcm.statistics.mib_state import NON_VOLATILE, VOLATILE, Indexes, MibState
from tcm.statistics.mib_writing import MAXIMUM_PENDING, PENDING_SECONDS
from tcm.statistics.sets import MAXIMUM_PLANS


@pytest.mark.anyio
async def test_a_test_changes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        before, own = await s.export(), dict(s.state.own)
        (acl,) = s.rows("scsiAuthIntrName")
        answer = await s.test(
            ("scsiInstAlias", (1,), b"name"),
            ("iscsiNodeMaxConnections", (1, 1), 7),
            ("scsiAuthIntrRowStatus", acl, 6),
            ("iscsiPortalRowStatus", (1, 3), 5),
        )
        assert answer == FINE
        s.setter.cleanup(1)
        assert await s.setter.commit(1) == (Error.COMMIT_FAILED, 0)
        assert (await s.export(), s.state.own) == (before, own)
        assert s.get("iscsiPortalRowStatus", (1, 3)) is None


@pytest.mark.anyio
async def test_what_is_committed_can_be_undone(tmp_path: Path) -> None:
    """With the secrets, LUNs and rows that are being made."""
    async with site(tmp_path) as s:
        (acl,) = s.rows("scsiAuthIntrName")
        unit = next(index[-1] for index, lun in s.rows("scsiLuDefaultLun").items() if lun[1] == 4)
        lun = (1, acl[1], acl[-1], 0, 9, 0, 0, 0, 0, 0, 0)
        assert await s.set(("scsiLunMapRowStatus", lun, 4), ("scsiLunMapLuIndex", lun, unit)) == FINE
        assert s.get("scsiLunMapLuIndex", lun) == unit
        assert await s.set(("iscsiPortalRowStatus", (1, 3), 5)) == FINE
        before, own = await s.export(), dict(s.state.own)
        answer = await s.test(
            ("scsiInstAlias", (1,), b"name"),
            ("iscsiNodeMaxConnections", (1, 1), 7),
            ("scsiAuthIntrRowStatus", acl, 6),
            ("iscsiPortalAddr", (1, 3), b"\x7f\0\0\1"),
        )
        assert answer == FINE
        assert await s.setter.commit(1) == FINE
        assert s.tree.read(f"{GROUP}/param/MaxConnections") == "7\n"
        assert s.tree.read(f"iscsi/{IQN}/tpgt_2/param/MaxConnections") == "7\n"
        assert s.rows("scsiAuthIntrName") == {}
        assert s.get("scsiInstAlias", (1,)) == b"name"
        assert s.get("iscsiPortalAddr", (1, 3)) == b"\x7f\0\0\1"
        assert await s.setter.undo(1) == FINE
        assert (await s.export(), s.state.own) == (before, own)
        assert s.get("iscsiPortalAddr", (1, 3)) is None
        assert s.get("iscsiPortalRowStatus", (1, 3)) == 3
        assert s.rows("scsiAuthIntrName") == {acl: INITIATOR.encode()}
        assert await s.setter.undo(1) == FINE  # there is nothing any more


@pytest.mark.anyio
async def test_a_lost_race_fails_the_commit(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        assert await s.test(("iscsiNodeMaxConnections", (1, 1), 7)) == FINE
        await s.tree.write(f"{GROUP}/param/MaxOutstandingR2T", "3\n")
        assert await s.setter.commit(1) == (Error.COMMIT_FAILED, 1)
        assert s.tree.read(f"{GROUP}/param/MaxConnections") == "1\n"


@pytest.mark.anyio
async def test_what_cannot_be_kept_is_not_set(tmp_path: Path) -> None:
    """nonVolatile is a promise."""
    async with site(tmp_path) as s:
        assert await s.set(("scsiInstStorageType", (1,), NON_VOLATILE), ("scsiInstAlias", (1,), b"one")) == FINE
        assert json.loads((tmp_path / "snmp.json").read_text())["own"]["alias"] == "one"
        assert await s.set(("iscsiNodeMaxConnections", (1, 1), 7)) == FINE
        assert '"MaxConnections": "7"' in (tmp_path / "saveconfig.json").read_text()
        path, s.state.path = s.state.path, str(tmp_path / "gone" / "snmp.json")
        assert await s.set(("scsiInstAlias", (1,), b"two")) == (Error.COMMIT_FAILED, 1)
        assert s.get("scsiInstAlias", (1,)) == b"one"
        s.state.path = path
        s.configurator.path = str(tmp_path / "gone" / "saveconfig.json")
        assert (await s.set(("iscsiNodeMaxConnections", (1, 1), 8)))[0] is Error.COMMIT_FAILED
        assert s.tree.read(f"{GROUP}/param/MaxConnections") == "7\n"


@pytest.mark.anyio
async def test_without_a_tree_only_our_own_can_be_set(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        s.configurator = None
        assert await s.set(("scsiInstAlias", (1,), b"one")) == FINE
        assert await s.set(("iscsiNodeMaxConnections", (1, 1), 7)) == (Error.RESOURCE_UNAVAILABLE, 1)
        s.state.path = None
        assert await s.set(("scsiInstStorageType", (1,), NON_VOLATILE)) == (Error.INCONSISTENT_VALUE, 1)


@pytest.mark.anyio
async def test_rows_that_nobody_goes_on_making_are_forgotten(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        for number in range(MAXIMUM_PENDING):
            assert await s.set(("iscsiPortalRowStatus", (1, 100 + number), 5)) == FINE
        assert await s.set(("iscsiPortalRowStatus", (1, 99), 5)) == (Error.RESOURCE_UNAVAILABLE, 1)
        assert len(s.rows("iscsiPortalRowStatus")) == MAXIMUM_PENDING
        s.now += PENDING_SECONDS + 1
        assert await s.set(("iscsiPortalRowStatus", (1, 99), 5)) == FINE
        assert list(s.rows("iscsiPortalRowStatus")) == [(1, 99)]
        assert await s.set(("iscsiPortalRowStatus", (1, 99), 6)) == FINE
        assert s.rows("iscsiPortalRowStatus") == {}


@pytest.mark.anyio
async def test_which_variable_is_wrong(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        good: tuple[str, Oid, Value] = ("scsiInstAlias", (1,), b"name")
        (port,) = {index[:3] for index in s.rows("scsiAuthIntrName")}
        row = (*port, 50)
        create: tuple[str, Oid, Value] = ("scsiAuthIntrRowStatus", row, 4)
        for wanted, answer in (
            ((good, good, ("scsiInstAlias", (1,), b"other")), (Error.INCONSISTENT_VALUE, 3)),
            ((good, create), (Error.INCONSISTENT_VALUE, 2)),
            ((create, ("scsiAuthIntrName", row, b"\xc3\xa4")), (Error.WRONG_VALUE, 2)),
            ((good, create, ("scsiAuthIntrName", row, b"nobody")), (Error.INCONSISTENT_VALUE, 2)),
            ((create, ("scsiAuthIntrName", row, b""), good), (Error.INCONSISTENT_VALUE, 1)),
            ((("scsiAuthIntrDevOrPort", row, 2), create, ("scsiAuthIntrName", row, b"iqn.2003-01.x:y")),
             (Error.INCONSISTENT_VALUE, 1)),
            ((("scsiAuthIntrLunMapIndex", row, 0), create, ("scsiAuthIntrName", row, b"iqn.2003-01.x:y")),
             (Error.INCONSISTENT_VALUE, 1)),
            ((good, create, ("scsiAuthIntrName", row, INITIATOR.encode())), (Error.INCONSISTENT_VALUE, 2)),
            ((("scsiAuthIntrRowStatus", (1, 1, 0, 9), 4), ("scsiAuthIntrName", (1, 1, 0, 9), b"iqn.2003-01.x:y")),
             (Error.NO_CREATION, 1)),
            ((("scsiAuthIntrRowStatus", (1,), 4), ("scsiAuthIntrName", (1,), b"iqn.2003-01.x:y")), (Error.NO_CREATION, 1)),
            ((("scsiAuthIntrRowStatus", (*port, 1 << 31), 4), ("scsiAuthIntrName", (*port, 1 << 31), b"iqn.2003-01.x:y")),
             (Error.NO_CREATION, 1)),
            ((("scsiLunMapRowStatus", (1, 1, 1, *[300] * 8), 4), ("scsiLunMapLuIndex", (1, 1, 1, *[300] * 8), 1)),
             (Error.NO_CREATION, 1)),
            ((("iscsiTgtPortalTag", (1, 1, 1), 3),), (Error.NO_CREATION, 1)),
        ):  # fmt: skip
            assert await s.set(*wanted) == answer, wanted
        assert s.get("scsiInstAlias", (1,)) == b""
        assert len(s.rows("scsiAuthIntrName")) == 1


@pytest.mark.anyio
async def test_a_portal_moves_to_another_portal_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(mib_writing, "PORT", port)  # somebody else may have the usual one
    async with site(tmp_path) as s:
        values: list[tuple[str, Oid, Value]] = [
            ("iscsiPortalRowStatus", (1, 8), 4),
            ("iscsiPortalRoles", (1, 8), b"\x80"),
            ("iscsiPortalAddr", (1, 8), b"\x7f\x01\x02\x03"),
        ]
        assert await s.set(*values, ("iscsiPortalPrimaryHdrDigest", (1, 8), 2)) == (Error.INCONSISTENT_VALUE, 4)
        assert await s.set(*values, ("iscsiPortalAddrType", (1, 8), 2)) == (Error.INCONSISTENT_VALUE, 3)
        assert await s.set(*values) == FINE
        assert s.rows("iscsiTgtPortalTag") == {(1, 8, 1): 1}
        assert await s.set(("iscsiTgtPortalTag", (1, 8, 1), 2), ("iscsiPortalStorageType", (1, 8), VOLATILE)) == FINE
        assert s.rows("iscsiTgtPortalTag") == {(1, 8, 1): 2}
        assert s.tree.tree.find(f"iscsi/{IQN}/tpgt_2/np/127.1.2.3:{port}")
        # another one at the same address and port
        again = [(name, (1, 9), value) for name, _, value in values]
        assert (await s.set(*again))[0] is Error.INCONSISTENT_VALUE
        assert await s.set(("iscsiPortalRowStatus", (1, 8), 6)) == FINE
        assert s.rows("iscsiPortalRowStatus") == {}
        # an index that nothing has any more may be had again
        values[2] = ("iscsiPortalAddr", (1, 8), b"\x7f\x01\x02\x04")
        assert await s.set(*values) == FINE
        assert s.get("iscsiPortalAddr", (1, 8)) == b"\x7f\x01\x02\x04"


@pytest.mark.anyio
async def test_only_what_a_set_is_about_is_looked_at(tmp_path: Path) -> None:
    """A configuration may be large; what others do in the rest of it meanwhile still fails the commit."""
    async with site(tmp_path) as s:
        other = "iqn.2003-01.org.example:t2"
        await s.tree.make_all(f"iscsi/{other}/tpgt_1/lun/lun_0")
        await s.tree.link(f"iscsi/{other}/tpgt_1/lun/lun_0/link", await s.tree.ramdisk("ram9"))
        part = await s.configurator.export({other})
        assert [target["wwn"] for target in part["targets"]] == [other]
        assert [each["name"] for each in part["storage_objects"]] == ["ram9"]
        assert await s.configurator.diff(part, {other}) == []
        whole = await s.export()
        assert [target["wwn"] for target in whole["targets"]] == [IQN, other]
        assert await s.test(("iscsiNodeMaxConnections", (1, 2), 7)) == FINE
        (plan,) = s.setter._plans.values()
        assert plan.part == {other}
        assert await s.setter.commit(1) == FINE
        assert s.tree.read(f"iscsi/{other}/tpgt_1/param/MaxConnections") == "7\n"
        assert await s.setter.undo(1) == FINE
        assert await s.export() == whole


@pytest.mark.anyio
async def test_tests_without_an_end_are_bounded(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        for transaction in range(3 * MAXIMUM_PLANS):
            assert await s.test(("scsiInstAlias", (1,), b"x"), transaction=transaction) == FINE
        assert len(s.setter._plans) == MAXIMUM_PLANS
        assert await s.setter.commit(0) == (Error.COMMIT_FAILED, 0)
        assert await s.setter.commit(3 * MAXIMUM_PLANS - 1) == FINE


@pytest.mark.anyio
async def test_a_set_of_a_thousand_variables(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        wanted: list[tuple[str, Oid, Value]] = [("iscsiPortalRowStatus", (1, number), 5) for number in range(1, 1001)]
        assert await s.test(*wanted[:MAXIMUM_PENDING]) == FINE
        assert (await s.set(*wanted))[0] is Error.RESOURCE_UNAVAILABLE
        assert s.rows("iscsiPortalRowStatus") == {}
        assert await s.set(*[("iscsiNodeMaxConnections", (1, 1), 9)] * 1000) == FINE


NAMES = [name for name, column in COLUMNS.items() if column.access in {"readwrite", "readcreate"}]
SMALL = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8, 80, 1 << 30, 0xFFFFFFFF, 1 << 40])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(NAMES),
                st.lists(SMALL, max_size=12).map(tuple) | st.just((1, 1, 1, 9)) | st.just((1, 1)) | st.just((1, 9)),
                SMALL | st.binary(max_size=300) | st.just(()),
                st.sampled_from([2, 4, 5, 6, 65, 66, 67, 70, 99]),
            ),
            min_size=1,
            max_size=6,
        ),
        max_size=12,
    )
)
def test_anything_may_be_set(steps: Any, tmp_path: Path) -> None:
    """Whatever is asked for, there is an answer, and what is undone is as before."""

    async def run() -> None:
        directory = tmp_path / os.urandom(8).hex()
        directory.mkdir()
        async with site(directory) as s:
            before, own = await s.export(), json.dumps(s.state.own)
            for number, step in enumerate(steps):
                binds = [Wanted((*COLUMNS[name].oid, *index), kind, value) for name, index, value, kind in step]
                answer = await s.setter.test(number, binds, s.now)
                assert answer == FINE or (answer[0] is not Error.GEN_ERR and 1 <= answer[1] <= len(binds)), answer
                if answer == FINE:
                    committed = await s.setter.commit(number)
                    assert committed[0] in {Error.NO_ERROR, Error.COMMIT_FAILED}
                    assert await s.setter.undo(number) == FINE
                    assert await s.export() == before
                    assert json.dumps(s.state.own) == own

    anyio.run(run)


# what is kept


def test_indexes_are_given_once() -> None:
    indexes = Indexes()
    assert [indexes.of("unit", name) for name in ("a", "b", "a")] == [1, 2, 1]
    assert indexes.of("port", "a") == 1
    indexes.assign("unit", "c", 9)
    assert indexes.of("unit", "d") == 10
    with pytest.raises(ValueError, match="taken"):
        indexes.assign("unit", "e", 9)
    indexes.assign("unit", "a", 3)
    assert indexes.of("unit", "a") == 3
    assert indexes.name("unit", 1) is None
    again = Indexes.from_json(json.loads(json.dumps(indexes.to_json())))
    assert [again.of("unit", name) for name in "abcde"] == [3, 2, 9, 10, 11]


def test_indexes_of_what_is_gone_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcm.statistics.mib_state.MAXIMUM_INDEXES", 10)
    old = Indexes()
    for number in range(10):
        old.of("unit", str(number))
    indexes = Indexes.from_json(old.to_json())
    assert indexes.of("unit", "3") == 4
    assert indexes.of("unit", "new") == 11
    assert indexes.given["unit"] == {"3": 4, "new": 11}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "null", '{"indexes": 7, "own": 7}',
     '{"indexes": {"given": {"unit": {"a": "b"}}, "next": {}}, "own": {}}',
     '{"indexes": {"given": {"unit": {"a": 1, "b": 1}}, "next": {}}, "own": {}}',
     '{"indexes": {"given": {}, "next": {}}, "own": {"alias": 7}}', "[" * 100_000, "\x00"],
)  # fmt: skip
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "snmp.json").write_text(text)
    with pytest.raises(ConfigError, match=r"snmp\.json is damaged; restore it, or delete it"):
        MibState(str(tmp_path))
    assert (tmp_path / "snmp.json").read_text() == text


@pytest.mark.anyio
async def test_units_of_one_serial_have_rows_of_their_own(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        serial = "b7a36fbd-94eb-4c69-8c09-ff4c53d8877a"
        for unit in s.tree.runtime.logical_units.values():
            unit.serial = serial
        assert len(s.rows("scsiLuDefaultLun")) == 2
