"""Target devices, portal groups, LUN maps, node ACLs, demo mode (lio-configfs 4.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.scsi import FIRST, SECOND, make_lu, make_target, pattern
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.fabric import LoopbackPort

from tcm.scsi import cdb
from tcm.scsi import lun as lun_codec
from tcm.scsi.check_condition import LogicalUnitNotSupported, WriteProtected
from tcm.scsi.sense import Status
from tcm.target import unit_attention
from tcm.target.device import TargetDevice
from tcm.target.nexus import ITNexus
from tcm.target.node_acl import Authentication
from tcm.target.port_identifiers import PortIdentifiers
from tcm.target.portal_group import NexusRefused, TargetPortalGroup

pytestmark = pytest.mark.anyio


def portal_group(**access: bool) -> TargetPortalGroup:
    group = TargetDevice("naa.50014050000000cc", "loopback").add_portal_group(1)
    group.access = replace(group.access, **access)
    return group


async def client_of(group: TargetPortalGroup, name: str = FIRST, lun: int = 0) -> ApplicationClient:
    client = ApplicationClient(LoopbackPort(group).connect(name), lun)
    await client.identify()
    return client


async def test_without_demo_mode_only_node_acls_get_in() -> None:
    async with make_lu() as unit:
        group = portal_group()
        group.add_lun(0, unit)
        assert not group.admits(FIRST)
        with pytest.raises(NexusRefused, match="no node ACL"):
            LoopbackPort(group).connect(FIRST)
        acl = group.add_node_acl(FIRST)
        assert group.admits(FIRST)
        assert group.find_node_acl(FIRST) is acl
        initiator = LoopbackPort(group).connect(FIRST)
        assert initiator.nexus is not None
        assert not initiator.nexus.luns
        assert not group.admits(SECOND)
        initiator.disconnect()
        assert group.find_node_acl(FIRST) is acl


async def test_a_disabled_portal_group_admits_nobody() -> None:
    group = portal_group(generate_node_acls=True)
    group.enabled = False
    assert not group.admits(FIRST)
    with pytest.raises(NexusRefused, match="disabled"):
        LoopbackPort(group).connect(FIRST)


@pytest.mark.parametrize("protect", [False, True])
async def test_demo_mode_write_protect(protect: bool) -> None:
    """4.3.3: LUNs of dynamic node ACLs are write protected if demo_mode_write_protect says so; explicit ones never."""
    async with make_lu() as unit:
        group = portal_group(generate_node_acls=True, demo_mode_write_protect=protect)
        group.add_lun(0, unit)
        group.map_lun(group.add_node_acl(SECOND), 0, 0)
        anybody = await client_of(group, FIRST)
        if protect:
            await anybody.write(10, 0, pattern(512), expect=WriteProtected)
            assert (await anybody.mode_sense(6, 0x3F))[2] & 0x80
        else:
            await anybody.write(10, 0, pattern(512))
        known = await client_of(group, SECOND)
        await known.write(10, 0, pattern(512))


@pytest.mark.parametrize(
    ("prod", "own", "protected"), [(False, None, False), (True, None, True), (True, False, False), (False, True, True)]
)
async def test_mapped_lun_write_protect(prod: bool, own: bool | None, protected: bool) -> None:
    """4.3.3, 4.3.6: a mapped LUN says itself whether it is write protected, or leaves it to prod_mode_write_protect."""
    async with make_lu() as unit:
        group = portal_group(prod_mode_write_protect=prod)
        group.add_lun(3, unit)
        mapped = group.map_lun(group.add_node_acl(FIRST), 0, 3, write_protect=own)
        assert mapped.write_protect is protected
        client = await client_of(group)
        await client.write(10, 0, pattern(512), **({"expect": WriteProtected} if protected else {}))
        await client.read(10, 0, 1)


async def test_mapped_luns_have_their_own_numbers() -> None:
    """4.3.6: an initiator sees its mapped LUNs, under their numbers, and no others."""
    async with make_lu(name="one") as one, make_lu(name="two") as two:
        group = portal_group()
        group.add_lun(0, one)
        group.add_lun(1, two)
        acl = group.add_node_acl(FIRST)
        group.map_lun(acl, 300, 1)
        nexus = (await client_of(group, lun=300)).initiator.nexus
        assert nexus is not None
        assert {itl.lun_number: itl.logical_unit for itl in nexus.luns.values()} == {300: two}
        with pytest.raises(ValueError, match="taken"):
            group.map_lun(acl, 300, 0)
        with pytest.raises(KeyError):
            group.map_lun(acl, 301, 9)


async def test_lun_spellings() -> None:
    """SAM-5 4.7: a LUN is found by peripheral and by flat space addressing."""
    async with make_lu() as unit:
        group = portal_group(generate_node_acls=True)
        group.add_lun(5, unit)
        client = await client_of(group, lun=5)
        for field in (bytes((0, 5)), bytes((0x40, 5))):
            await ApplicationClient(client.initiator, field + bytes(6)).test_unit_ready()
        await ApplicationClient(client.initiator, 6).test_unit_ready(expect=LogicalUnitNotSupported)


async def test_lun_numbers_are_checked() -> None:
    async with make_lu() as unit:
        group = portal_group()
        group.add_lun(0, unit)
        with pytest.raises(ValueError, match="taken by disk"):
            group.add_lun(0, unit)
        with pytest.raises(ValueError, match="-1"):
            group.add_lun(-1, unit)
        with pytest.raises(ValueError, match="portal group 1"):
            group.target.add_portal_group(1)
        with pytest.raises(KeyError):
            group.remove_lun(1)


async def test_adding_and_removing_luns_is_reported() -> None:
    """SPC-5 table 54: REPORTED LUNS DATA HAS CHANGED for every other logical unit of the nexuses that see the change."""
    async with make_lu(name="one") as one, make_lu(name="two") as two:
        group = portal_group(generate_node_acls=True)
        group.add_lun(0, one)
        client = await client_of(group)
        group.add_lun(1, two)
        await client.test_unit_ready(expect=unit_attention.REPORTED_LUNS_DATA_HAS_CHANGED)
        second = ApplicationClient(client.initiator, 1)
        await second.test_unit_ready(expect=unit_attention.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
        await second.test_unit_ready()
        group.remove_lun(1)
        await second.test_unit_ready(expect=LogicalUnitNotSupported)
        await client.test_unit_ready(expect=unit_attention.REPORTED_LUNS_DATA_HAS_CHANGED)
        assert not two.itl_nexuses


async def test_removing_a_lun_unmaps_it_everywhere() -> None:
    async with make_lu() as unit:
        group = portal_group()
        group.add_lun(0, unit)
        acl = group.add_node_acl(FIRST)
        group.map_lun(acl, 0, 0)
        group.map_lun(acl, 7, 0)
        await client_of(group)
        assert len(unit.itl_nexuses) == 2
        group.remove_lun(0)
        assert not acl.mapped_luns
        assert not unit.itl_nexuses


@pytest.mark.parametrize("cache", [False, True])
async def test_dynamic_node_acls(cache: bool) -> None:
    """4.3.3: a dynamic node ACL goes with the last nexus, unless cache_dynamic_acls is set; an explicit one stays."""
    async with make_lu() as unit:
        group = portal_group(generate_node_acls=True, cache_dynamic_acls=cache)
        group.add_lun(0, unit)
        one, two = LoopbackPort(group).connect(FIRST), LoopbackPort(group).connect(FIRST)
        acl = group.find_node_acl(FIRST)
        assert acl is not None
        assert acl.dynamic
        one.disconnect()
        assert group.find_node_acl(FIRST) is acl
        two.disconnect()
        assert (group.find_node_acl(FIRST) is acl) is cache


async def test_demo_mode_is_over() -> None:
    """Whoever is in stays in, and comes again; whoever has left is a stranger, though its node ACL is cached."""
    async with make_lu() as unit:
        group = portal_group(generate_node_acls=True, cache_dynamic_acls=True)
        group.add_lun(0, unit)
        stays, leaves = LoopbackPort(group).connect(FIRST), LoopbackPort(group).connect(SECOND)
        leaves.disconnect()
        group.access = replace(group.access, generate_node_acls=False)
        assert group.find_node_acl(SECOND) is not None
        assert (group.admits(FIRST), group.admits(SECOND)) == (True, False)
        with pytest.raises(NexusRefused, match="demo mode is off"):
            LoopbackPort(group).connect(SECOND)
        LoopbackPort(group).connect(FIRST).disconnect()
        stays.disconnect()
        assert not group.admits(FIRST)
        group.add_node_acl(SECOND)
        assert group.admits(SECOND)


async def test_a_dynamic_node_acl_becomes_explicit() -> None:
    """LIO: adding a node ACL for an initiator that is in by demo mode keeps its LUNs."""
    async with make_lu() as unit:
        group = portal_group(generate_node_acls=True)
        group.add_lun(0, unit)
        initiator = LoopbackPort(group).connect(FIRST)
        acl = group.add_node_acl(FIRST)
        assert not acl.dynamic
        assert list(acl.mapped_luns) == [0]
        initiator.disconnect()
        assert group.find_node_acl(FIRST) is acl


async def test_removing_a_node_acl_ends_its_nexuses() -> None:
    async with make_lu() as unit:
        group = portal_group()
        group.add_lun(0, unit)
        group.map_lun(group.add_node_acl(FIRST), 0, 0)
        client = await client_of(group)
        group.remove_node_acl(FIRST)
        assert client.initiator.nexus is not None
        assert client.initiator.nexus.lost
        assert not group.nexuses
        assert not unit.itl_nexuses


async def test_observers_hear_of_nexuses() -> None:
    heard: list[tuple[str, ITNexus]] = []
    group = portal_group(generate_node_acls=True)
    group.target.nexus_established = lambda nexus: heard.append(("established", nexus))
    group.target.nexus_lost = lambda nexus: heard.append(("lost", nexus))
    initiator = LoopbackPort(group).connect(FIRST)
    nexus = initiator.nexus
    assert group.nexuses == {nexus}
    initiator.disconnect()
    assert not group.nexuses
    assert heard == [("established", nexus), ("lost", nexus)]


def test_identifiers_are_unique() -> None:
    device = TargetDevice("naa.50014050000000dd", "loopback")
    groups = [device.add_portal_group(tag) for tag in (1, 2, 3)]
    assert len({group.relative_target_port_identifier for group in groups}) == 3
    assert device.portal_groups == {group.tag: group for group in groups}
    assert all(lun_codec.decode(lun_codec.encode(number)) == number for number in (0, 255, 256, 16383, 16384))


def test_secrets_do_not_show() -> None:
    authentication = Authentication("alice", "s3cret", "bob", "m0re")
    assert authentication.authenticate_target
    assert not Authentication("alice", "s3cret").authenticate_target
    assert "s3cret" not in repr(authentication)
    assert "m0re" not in repr(authentication)


@pytest.mark.parametrize("tas", [False, True])
async def test_tasks_of_a_lun_that_is_removed(tas: bool) -> None:
    """SAM-5 5.6.4: with TAS the initiator is told, and does not wait for what has no logical unit any more."""
    async with make_lu(emulate_tas=tas) as unit:
        port = make_target(unit)
        client = ApplicationClient(port.connect(FIRST))
        await client.identify()
        command = client.initiator.start(0, cdb.write(10, 0, 1), bytes(512), withheld=True)
        await command.requested.wait()
        port.target_portal_group.remove_lun(0)
        assert command.done
        assert (command.result.status if command.result else None) is (Status.TASK_ABORTED if tas else None)
        client.initiator.disconnect()


async def test_relative_target_port_identifiers_are_the_lowest_that_are_free() -> None:
    """SAM-5 4.6.5.2: two bytes, unique, not zero; LIO gives the lowest too."""
    target = TargetDevice("naa.50014050000000cd", "loopback")
    groups = [target.add_portal_group(tag) for tag in range(4)]
    numbers = [group.relative_target_port_identifier for group in groups]
    assert len({*numbers}) == 4
    target.remove_portal_group(1)
    target.remove_portal_group(2)
    again = [target.add_portal_group(tag) for tag in (7, 8)]
    assert [group.relative_target_port_identifier for group in again] == numbers[1:3]
    groups[0].identify(60_000)
    more = target.add_portal_group(9)
    assert more.relative_target_port_identifier == numbers[0]


async def test_when_all_relative_target_port_identifiers_are_taken() -> None:
    identifiers = PortIdentifiers(3)
    ports = [portal_group() for _ in range(3)]
    assert [identifiers.take(port) for port in ports] == [1, 2, 3]
    with pytest.raises(ValueError, match="all 3"):
        identifiers.take(portal_group())
    identifiers.release(ports[1], 2)
    identifiers.release(ports[1], 3)
    assert identifiers.take(portal_group()) == 2
