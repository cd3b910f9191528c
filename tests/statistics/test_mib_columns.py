"""Each column of the three MIBs against the compiled ones: number, syntax, and that it allows its live values."""

from __future__ import annotations

import pytest
from pyasn1.error import PyAsn1Error
from support.compiled_mibs import load
from support.raw_iscsi import Initiator, LoginFailed
from support.statistics_site import Site, apart, serving

from tcm.statistics.mib import Module, Syntax, View
from tcm.statistics.mib_state import MibState
from tcm.statistics.mib_writing import Refused
from tcm.statistics.registry import Statistics
from tcm.statistics.scsi_mib import ScsiMib

RFC_7147 = {
    "iscsiInstXNodeArchitecture",
    "iscsiInstSsnTgtUnmappedErrors",
    "iscsiPortalDescr",
    "iscsiTgtLastIntrFailurePort",
    "iscsiTgtLogoutCxnClosed",
    "iscsiTgtLogoutCxnRemoved",
    "iscsiIntrLastTgtFailurePort",
    "iscsiIntrLoginAuthorizeFails",
    "iscsiSsnProtocolLevel",
    "iscsiSsnTaskReporting",
    "iscsiSsnNopReceivedPDUs",
    "iscsiSsnNopSentPDUs",
}
"""Columns that are newer than the compiled MIB, which is RFC 4544's."""
BEYOND_THE_MIB = {("iscsiCxnCid", 0)}
"""The MIB begins at 1, but 0 is a CID (RFC 7143 11.13.4), and what Linux uses."""


def modules(site: Site) -> list[Module]:
    state = MibState()
    return [ScsiMib(site.statistics, state).module(), *site.fabric.statistics().mib(state)]


@pytest.mark.anyio
async def test_every_column_is_there_with_its_number_and_syntax() -> None:
    async with serving() as site:
        for module in modules(site):
            compiled, _, _ = load(module.name)
            ours = {
                column.name: ((*table.oid, 1, column.number), column.syntax.name)
                for table in module.tables
                for column in table.columns
            }
            assert len(ours) == sum(len(table.columns) for table in module.tables)
            theirs = {name: (column.oid, column.syntax) for name, column in compiled.items()}
            assert {name: value for name, value in ours.items() if name not in RFC_7147} == theirs
            assert all(oid[: len(module.oid)] == module.oid for oid, _ in ours.values())


READ_ONLY = {
    # of initiators' tables: the compliance statements have MIN-ACCESS read-only for the first five; the others are of tables
    # that are always empty here
    *("scsiIntrDevTgtAccessMode", "scsiDscTgtDevOrPort", "scsiDscTgtName", "scsiDscTgtConfigured", "scsiDscTgtRowStatus"),
    *("iscsiIntrPortalTag", "iscsiIntrAuthRowStatus", "iscsiIntrAuthIdentity", "iscsiIntrAuthStorageType"),
    # of ways to prove oneself that there are not: those tables are always empty too
    *("ipsAuthCredSrpUserName", "ipsAuthCredSrpRowStatus", "ipsAuthCredSrpStorageType"),
    *("ipsAuthCredKerbPrincipal", "ipsAuthCredKerbRowStatus", "ipsAuthCredKerbStorageType"),
}
"""What MAX-ACCESS would let managers write, and is read-only here; docs/monitoring.md says why."""


@pytest.mark.anyio
async def test_columns_that_managers_may_write_can_be_written() -> None:
    async with serving() as site:
        for module in modules(site):
            compiled, _, _ = load(module.name)
            ours = {column.name for table in module.tables for column in table.columns if column.write is not None}
            theirs = {name for name, column in compiled.items() if column.access in {"readwrite", "readcreate"}}
            assert ours == theirs - READ_ONLY
            for table in module.tables:
                if table.creation is not None:
                    names = {column.name for column in table.columns}
                    assert {table.creation.status, *table.creation.needs} <= names


@pytest.mark.anyio
async def test_writers_take_what_the_syntax_allows_and_nothing_else() -> None:
    """Values at and beyond the borders of each, as the compiled MIBs have them."""
    narrower: set[tuple[str, int | bytes]] = set()
    async with serving() as site:
        for module in modules(site):
            compiled, _, _ = load(module.name)
            for table in module.tables:
                for column in table.columns:
                    if column.write is None or column.syntax is Syntax.OBJECT_IDENTIFIER:
                        continue
                    if column.name == "iscsiPortalRoles":
                        continue  # BITS, of as many bytes as one likes
                    sizes = (0, 1, 4, 79, 80, 255, 256, 262, 263)
                    numbers = (-1, 0, 1, 2, 3, 4, 6, 7, 511, 512, 3600, 3601, 65535, 65536, 16777215, 16777216, 1 << 32)
                    values: list[int | bytes] = [*numbers]
                    if column.syntax is Syntax.OCTET_STRING:
                        values = [bytes(b"a" * size) for size in sizes]
                    for value in values:
                        try:
                            compiled[column.name].type.clone(value)
                            allowed = True
                        except PyAsn1Error:
                            allowed = False
                        try:
                            column.write.check(value, column.name)
                            taken = True
                        except Refused:
                            taken = False
                        assert allowed or not taken, (column.name, value)
                        if allowed and not taken:
                            narrower.add((column.name, value))
        assert narrower == NARROWER


STATUSES = (
    *("scsiAuthIntrRowStatus", "scsiLunMapRowStatus", "iscsiPortalRowStatus", "iscsiTgtAuthRowStatus"),
    *("ipsAuthIdentRowStatus", "ipsAuthIdentNameRowStatus", "ipsAuthIdentAddrRowStatus"),
    *("ipsAuthCredRowStatus", "ipsAuthCredChapRowStatus"),
)
NARROWER = {
    # nobody sets notReady, 0 is a name of pysnmp's, and RFC 7147's compliance statement has 0 to 2
    *((name, value) for name in STATUSES for value in (0, 3)),
    *(("iscsiNodeErrorRecoveryLevel", value) for value in (3, 4, 6, 7)),
    # there are no markers
    ("iscsiPortalRecvMarker", 1),
    # addresses of IP; and a CHAP user has a name
    *(("ipsAuthIdentAddrType", value) for value in (0, 3, 4, 6, 7, 65535)),
    ("ipsAuthCredChapUserName", b""),
}


@pytest.mark.anyio
async def test_notifications_carry_their_objects() -> None:
    async with serving() as site:
        for module in modules(site):
            _, compiled, _ = load(module.name)
            ours = {
                each.name: (each.oid, [name for name in each.objects if name not in RFC_7147]) for each in module.notifications
            }
            theirs = {name: (each.oid, list(each.objects)) for name, each in compiled.items()}
            assert ours == theirs
            for each in module.notifications:
                names = {column.name for column in each.table.columns}
                assert {each.watched, *each.objects} <= names


@pytest.mark.anyio
async def test_values_are_such_as_the_columns_allow() -> None:
    async with serving(acl=True, parameters={"MaxConnections": 4, "TargetAlias": "a disk"}) as site:

        def check() -> int:
            with pytest.raises(LoginFailed), site.connect() as i:
                i.login(site.name, name="iqn.2003-01.org.example:stranger")
            with site.login() as i, site.connect().login(None) as discovery:
                assert isinstance(discovery, Initiator)
                i.read(0, 8)
                i.ping()
                found = sum(values(module) for module in modules(site))
                i.logout()
                return found

        def values(module: Module) -> int:
            compiled, _, indexes = load(module.name)
            count = 0
            for table in module.tables:
                for index, row in table.rows():
                    assert len(index) >= indexes[table.name]
                    for column in table.columns:
                        value = column.read(row)
                        count += 1
                        if column.name in compiled and (column.name, value) not in BEYOND_THE_MIB:
                            known = value if column.syntax is not Syntax.TIME_TICKS else 0
                            try:
                                compiled[column.name].type.clone(known)
                            except PyAsn1Error as error:
                                raise AssertionError(f"{column.name} = {value!r}: {error}") from None
                        assert isinstance(value, (float, int) if column.syntax is Syntax.TIME_TICKS else (int, bytes, tuple))
            return count

        assert await apart(check) > 180


@pytest.mark.anyio
async def test_every_table_with_rows_has_been_looked_at_by_a_walk() -> None:
    """GetNext from the beginning meets every instance once, in order, and Get agrees."""
    async with serving() as site:

        def walk() -> None:
            with site.login():
                view = View(modules(site))
                oids = []
                at = (1, 3)
                while (found := view.next(at, (), 0.0)) is not None:
                    at, syntax, value = found
                    oids.append(at)
                    again = view.get(at, 0.0)
                    assert again is not None, at
                    assert again[0] is syntax
                    assert type(again[1]) is type(value)
                expected = sorted(
                    (*table.oid, 1, column.number, *index)
                    for module in view.modules
                    for table in module.tables
                    for index, _ in table.rows()
                    for column in table.columns
                )
                assert oids == expected

        await apart(walk)


@pytest.mark.anyio
async def test_next_of_names_that_are_not_there() -> None:
    async with serving() as site:
        (scsi, auth, iscsi) = modules(site)
        view = View([iscsi, scsi])
        first = view.next((), (), 0.0)
        assert first is not None
        assert first[0] == (*scsi.oid, 2, 1, 1, 1, 2, 1)
        assert view.next(first[0], (), 0.0, include=True) == first
        assert view.next(first[0], first[0], 0.0) is None
        assert view.next((*scsi.oid, 9), (), 0.0)[0][: len(iscsi.oid)] == iscsi.oid  # type: ignore[index]
        assert view.next((*iscsi.oid, 9), (), 0.0) is None
        assert view.next((2,), (), 0.0) is None
        assert View([iscsi, auth]).next((*auth.oid, 9), (), 0.0)[0][: len(iscsi.oid)] == iscsi.oid  # type: ignore[index]
        assert view.get((*scsi.oid, 2, 1, 1, 1, 2), 0.0) is None
        assert view.get((*scsi.oid, 2, 1, 1, 1, 2, 2), 0.0) is None
        assert view.has_object((*scsi.oid, 2, 1, 1, 1, 2, 2))
        assert not view.has_object((*scsi.oid, 2, 1, 1, 1, 1, 1))
        assert not view.has_object((1, 3, 6))
        # between two columns, and in a table without rows
        assert view.next((*scsi.oid, 2, 1, 1, 1, 2, 7), (), 0.0)[0] == (*scsi.oid, 2, 1, 1, 1, 3, 1)  # type: ignore[index]
        assert view.next((*scsi.oid, 2, 2), (), 0.0)[0][: len(scsi.oid) + 2] == (*scsi.oid, 2, 3)  # type: ignore[index]


@pytest.mark.anyio
async def test_a_loopback_target_is_a_device_too() -> None:
    async with serving() as site:
        site.target.fabric_name = "loopback"
        module = ScsiMib(Statistics({}, [site.target], {}), MibState()).module()
        transport = next(table for table in module.tables if table.name == "scsiTransportTable")
        ((_, row),) = transport.rows()
        values = {column.name: column.read(row) for column in transport.columns}
        assert values["scsiTransportType"][-1] == 7
        assert values["scsiTransportPointer"] == (0, 0)
