"""The compliance statements of the three MIBs (MODULE-COMPLIANCE): each group that is mandatory for a target is served.

They are told here as the RFCs have them; which objects are in a group is taken from the compiled MIBs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.compiled_mibs import groups, load
from support.lio_tree import NAA, serving
from support.raw_iscsi import INITIATOR
from support.statistics_site import apart
from support.statistics_site import serving as serving_iscsi

from tcm.statistics.agentx import varbind
from tcm.statistics.mib import Module, Oid, Syntax, View
from tcm.statistics.mib_state import MibState
from tcm.statistics.registry import Statistics
from tcm.statistics.snmp import Agent
from tcm.target.node_acl import Authentication

MANDATORY = {
    "SCSI-MIB": {
        "scsiDeviceGroup",
        # for what has SCSI target devices, maps LUNs to initiators, reports changes, counts, and is fast
        *("scsiTargetDeviceGroup", "scsiLunMapGroup", "scsiTgtDevLuNotificationsGroup"),
        *("scsiDeviceStatGroup", "scsiTargetDevStatsGroup", "scsiLunMapStatsGroup"),
        *("scsiTargetDevHSStatsGroup", "scsiLunMapHSStatsGroup"),
        # for what has SCSI initiator devices, which discover targets, count, and are fast: the loopback fabric
        *("scsiInitiatorDeviceGroup", "scsiDiscoveryGroup", "scsiInitiatorDevStatsGroup", "scsiDiscoveryStatsGroup"),
        *("scsiInitiatorDevHSStatsGroup", "scsiDiscoveryHSStatsGroup"),
    },
    "ISCSI-MIB": {
        *("iscsiInstanceAttributesGroup", "iscsiInstanceSsnErrorStatsGroup", "iscsiPortalAttributesGroup"),
        *("iscsiNodeAttributesGroup", "iscsiSessionAttributesGroup", "iscsiSessionPDUStatsGroup"),
        *("iscsiSessionCxnErrorStatsGroup", "iscsiConnectionAttributesGroup", "iscsiSsnFlrNotificationsGroup"),
        # Counter64, and for who cannot read it
        *("iscsiSessionOctetStatsGroup", "iscsiSessionLCOctetStatsGroup"),
        # for what has iSCSI target facilities
        *("iscsiTgtPortalAttributesGroup", "iscsiTargetAttributesGroup", "iscsiTargetLoginStatsGroup"),
        *("iscsiTargetLogoutStatsGroup", "iscsiTgtLgnNotificationsGroup", "iscsiTargetAuthGroup"),
        "iscsiNewObjectsV2",
    },
    "IPS-AUTH-MIB": {
        *("ipsAuthInstanceAttributesGroup", "ipsAuthIdentAttributesGroup"),
        # for what uses names, addresses, credentials, CHAP
        *("ipsAuthIdentNameAttributesGroup", "ipsAuthIdentAddrAttributesGroup"),
        *("ipsAuthIdentCredAttributesGroup", "ipsAuthIdentChapAttrGroup"),
    },
}
NOT_MANDATORY = {
    "SCSI-MIB": set[str](),
    # "for all iSCSI implementations that have iSCSI initiator facilities"
    "ISCSI-MIB": {
        *("iscsiIntrPortalAttributesGroup", "iscsiInitiatorAttributesGroup", "iscsiInitiatorLoginStatsGroup"),
        *("iscsiInitiatorLogoutStatsGroup", "iscsiIntrLgnNotificationsGroup", "iscsiInitiatorAuthGroup"),
    },
    # for what uses SRP, Kerberos
    "IPS-AUTH-MIB": {"ipsAuthIdentSrpAttrGroup", "ipsAuthIdentKerberosAttrGroup"},
}
NEW_IN_RFC_7147 = {
    "iscsiNewObjectsV2": {
        *("iscsiInstXNodeArchitecture", "iscsiSsnTaskReporting", "iscsiSsnProtocolLevel", "iscsiSsnNopReceivedPDUs"),
        *("iscsiSsnNopSentPDUs", "iscsiTgtLastIntrFailurePort", "iscsiPortalDescr", "iscsiInstSsnTgtUnmappedErrors"),
        *("iscsiTgtLogoutCxnClosed", "iscsiTgtLogoutCxnRemoved"),
    }
}
"""Of its groups; the compiled MIB is RFC 4544's. iscsiIntrLastTgtFailurePort is in it too, of a table for initiators."""


def members(module: str) -> dict[str, set[str]]:
    return groups(module) | (NEW_IN_RFC_7147 if module == "ISCSI-MIB" else {})


@pytest.mark.parametrize("module", list(MANDATORY))
def test_every_group_is_accounted_for(module: str) -> None:
    assert MANDATORY[module] | NOT_MANDATORY[module] == set(members(module))
    assert not MANDATORY[module] & NOT_MANDATORY[module]


def served(modules: list[Module], now: float) -> set[str]:
    """Columns that have an instance, and notifications that are watched for."""
    view = View(modules)
    names = {
        (*table.oid, 1, column.number): column.name for module in modules for table in module.tables for column in table.columns
    }
    found, at = set[str](), (1, 3)
    while (step := view.next(at, (), now)) is not None:
        at = step[0]
        found.add(next(names[at[:length]] for length in range(len(at), 0, -1) if at[:length] in names))
    return found | {each.name for module in modules for each in module.notifications}


@pytest.mark.anyio
async def test_the_groups_are_served(tmp_path: Path) -> None:
    """Each of their objects has a value, where there is what it is about."""
    proof = Authentication("user", "a secret of twelve", "", "")
    async with serving_iscsi(acl=True) as site, serving(tmp_path, "loopback") as tree:
        acl = site.group.node_acls[INITIATOR]
        acl.authentication = proof
        acl.attributes = type(acl.attributes)(allowed_addresses=("127.0.0.0/8",))
        await tree.loopback(await tree.ramdisk())
        assert tree.connect()
        loopback = tree.runtime.statistics
        statistics = Statistics(
            site.statistics.units, [site.target, *loopback.targets], {**site.statistics.fabrics, **loopback.fabrics}
        )
        assert any(target.name == NAA for target in statistics.targets)

        def work() -> set[str]:
            with site.login(), site.connect().login(None):
                return served(Agent("/nowhere", statistics, MibState()).modules(), 0.0)

        there = await apart(work)
        for module, names in MANDATORY.items():
            for group in sorted(names):
                assert members(module)[group] <= there, group


@pytest.mark.anyio
async def test_counters_go_up_or_say_since_when(tmp_path: Path) -> None:
    """RFC 2578 7.1.6: what is counted of an instance does not become less when a target goes; it began with the process."""
    gone = "iqn.2003-01.org.example:gone"
    async with serving(tmp_path, "iscsi") as tree:
        await tree.make_all(f"iscsi/{gone}/tpgt_1")
        registry = tree.runtime.fabrics["iscsi"].registry  # type: ignore[attr-defined]  # it is that fabric
        registry.counters.of(gone).session_failures[None] += 3
        modules = Agent("/nowhere", tree.runtime.statistics, MibState()).modules()
        view, columns = View(modules), load("ISCSI-MIB")[0]

        def read(name: str, now: float) -> tuple[Syntax, object]:
            found = view.get((*columns[name].oid, 1), now)
            assert found is not None
            return found

        assert read("iscsiInstSsnFailures", 0.0)[1] == 3
        await tree.remove(f"iscsi/{gone}/tpgt_1")
        await tree.remove(f"iscsi/{gone}")
        assert not registry.targets
        assert read("iscsiInstSsnFailures", 9.0)[1] == 3
        kind, began = read("iscsiInstDiscontinuityTime", 9.0)
        assert kind is Syntax.TIME_TICKS
        assert began == registry.counters.began


@pytest.mark.parametrize(
    ("syntax", "value", "data"),
    [
        (Syntax.COUNTER_32, (1 << 32) + 5, b"\0\0\0\5"),
        (Syntax.COUNTER_64, (1 << 64) + 5, bytes(7) + b"\5"),
        (Syntax.GAUGE_32, (1 << 32) + 5, b"\xff" * 4),
    ],
)
def test_counters_wrap_and_gauges_stay(syntax: Syntax, value: int, data: bytes) -> None:
    """RFC 2578 7.1.6, 7.1.7, 7.1.10."""
    oid: Oid = (1, 3)
    assert varbind(oid, syntax, value).data == data
