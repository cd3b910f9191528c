"""REPORT TARGET PORT GROUPS, and what INQUIRY says of target port groups: SPC-4 5.16.2.3, 6.37, 7.8.6."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.ports import TwoPorts, report_groups, two_ports
from support.scsi import logical_unit
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb, designators
from tcm.scsi.asymmetric_access import AccessState
from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.designators import DesignatorType
from tcm.target.access_transition import set_offline
from tcm.target.logical_unit_group import LogicalUnitGroups
from tcm.target.unit_attention import ASYMMETRIC_ACCESS_STATE_CHANGED, INQUIRY_DATA_HAS_CHANGED

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ways() -> AsyncIterator[TwoPorts]:
    async with two_ports() as made:
        yield made


async def designated(client: ApplicationClient, kind: DesignatorType) -> list[int]:
    """The numbers of the Device Identification page's designators of a type."""
    found = designators.parse((await client.inquiry(0x83))[4:])
    return [int.from_bytes(each.data, "big") for each in found if each.type == kind]


async def test_report_target_port_groups_default(disk: ApplicationClient) -> None:
    """SPC-4 6.37: LIO's default group, identifier 0: active/optimized, all states but one supported, one port."""
    (lun,) = logical_unit(disk).asymmetric_access.luns()
    port = lun.port.relative_target_port_identifier.to_bytes(2, "big")
    data = (await disk.execute(cdb.report_target_port_groups(), read_length=4096)).data_in
    assert data == bytes.fromhex("0000000c 00cf0000 00000001 0000") + port
    assert (await disk.inquiry())[5] >> 4 & 0b11 == 0b11


async def test_report_target_port_groups_extended(ways: TwoPorts) -> None:
    """SPC-4 table 305: the same descriptors behind a header with FORMAT TYPE and the port's IMPLICIT TRANSITION TIME."""
    ways.configure(1, implicit_trans_secs=7, preferred=True)
    plain = (await ways.clients[0].execute(cdb.report_target_port_groups(), read_length=4096)).data_in
    for client, seconds in zip(ways.clients, (0, 7), strict=True):
        data = (await client.execute(cdb.report_target_port_groups(data_format=1), read_length=4096)).data_in
        assert data == (len(plain)).to_bytes(4, "big") + bytes((0x10, seconds, 0, 0)) + plain[4:]
    assert [plain[4], plain[16]] == [0x00, 0x80]


@pytest.mark.parametrize("data_format", range(2, 8))
async def test_report_target_port_groups_format(disk: ApplicationClient, data_format: int) -> None:
    """SPC-4 table 303: other formats are reserved."""
    result = await disk.execute(cdb.report_target_port_groups(data_format=data_format), expect=InvalidFieldInCdb)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0xCF, 0, 1))


async def test_report_target_port_groups_allocation_length(ways: TwoPorts) -> None:
    """SPC-4 4.2.5.6: any allocation length cuts the data, whose length field stays."""
    client = ways.clients[0]
    data = (await client.execute(cdb.report_target_port_groups(), read_length=4096)).data_in
    for length in range(len(data) + 2):
        result = await client.execute(cdb.report_target_port_groups(length), read_length=4096)
        assert result.data_in == data[:length]


async def test_report_target_port_groups_states(ways: TwoPorts) -> None:
    """SPC-4 table 307: every state, by either port; the status code says who changed it."""
    one, two = ways.ports
    for state in AccessState:
        await ways.put(state)
        status = ways.groups[1].status
        for client in ways.clients:
            assert await report_groups(client) == {1: (0, 0, (one,)), 2: (state, status, (two,))}


async def test_report_target_port_groups_support(ways: TwoPorts) -> None:
    """SPC-4 table 306: T_SUP, O_SUP, LBD_SUP, U_SUP, S_SUP, AN_SUP and AO_SUP."""
    bits = {
        "transitioning": 0x80, "offline": 0x40, "lba_dependent": 0x10, "unavailable": 0x08, "standby": 0x04,
        "active_nonoptimized": 0x02, "active_optimized": 0x01,
    }  # fmt: skip
    for name, bit in bits.items():
        ways.configure(0, **{f"alua_support_{each}": each != name for each in bits})
        data = (await ways.clients[0].execute(cdb.report_target_port_groups(), read_length=4096)).data_in
        assert data[5] == 0xDF & ~bit


async def test_report_target_port_groups_without_ports(ways: TwoPorts) -> None:
    """SPC-4 6.37: every group that is reported has a port at least."""
    ways.unit.asymmetric_access.add_group("empty", 9)
    ways.unit.asymmetric_access.move(ways.luns[1], ways.groups[0])
    await ways.settle()
    assert await report_groups(ways.clients[0]) == {1: (0, 0, tuple(sorted(ways.ports)))}


async def test_report_target_port_groups_offline(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.10: a port that is offline is in its primary group and in the secondary one."""
    await set_offline(ways.luns[1], offline=True)
    await ways.settle()
    one, two = ways.ports
    assert await report_groups(ways.clients[0]) == {1: (0, 0, (one,)), 2: (0, 0, (two,)), 0xFFFF: (0xE, 2, (two,))}
    await set_offline(ways.luns[1], offline=False)
    await ways.settle()
    assert await report_groups(ways.clients[1]) == {1: (0, 0, (one,)), 2: (0, 0, (two,))}


async def test_inquiry_tpgs(ways: TwoPorts) -> None:
    """SPC-4 6.6.2: TPGS is the access type of the port's group; who comes through it hears of a change."""
    one, two = ways.clients
    for kind in (0, 1, 2, 3):
        ways.configure(1, alua_access_type=kind)
        if kind != 3:
            await two.test_unit_ready(expect=INQUIRY_DATA_HAS_CHANGED)
        await two.request_sense()
        assert (await one.inquiry())[5] >> 4 & 3 == 3
        assert (await two.inquiry())[5] >> 4 & 3 == kind
        await one.test_unit_ready()


async def test_inquiry_device_identification_groups(ways: TwoPorts) -> None:
    """SPC-4 7.8.6.7 to 7.8.6.9: the relative port, its target port group, and the logical unit group."""
    for client, port, group in zip(ways.clients, ways.ports, (1, 2), strict=True):
        assert await designated(client, DesignatorType.RELATIVE_TARGET_PORT) == [port]
        assert await designated(client, DesignatorType.TARGET_PORT_GROUP) == [group]
        assert await designated(client, DesignatorType.LOGICAL_UNIT_GROUP) == [], "its states change alone"
    groups = LogicalUnitGroups()
    groups.assign(ways.unit, groups.add("pair", 7))
    assert await designated(ways.clients[0], DesignatorType.LOGICAL_UNIT_GROUP) == [7]
    groups.remove("pair")
    assert await designated(ways.clients[0], DesignatorType.LOGICAL_UNIT_GROUP) == []


async def test_inquiry_a_port_moves(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.1: a port that changes its group says so, and every I_T nexus hears of it."""
    one, two = ways.clients
    ways.groups[0].state = AccessState.STANDBY
    ways.unit.asymmetric_access.move(ways.luns[1], ways.groups[0])
    await one.test_unit_ready(expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
    await two.test_unit_ready(expect=INQUIRY_DATA_HAS_CHANGED)
    await two.test_unit_ready(expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
    assert await designated(two, DesignatorType.TARGET_PORT_GROUP) == [1]
    ways.unit.asymmetric_access.remove_group("group1")
    await ways.settle()
    assert await designated(two, DesignatorType.TARGET_PORT_GROUP) == [0]
    assert set(await report_groups(one)) == {0}
