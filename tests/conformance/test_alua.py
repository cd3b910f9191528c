"""Asymmetric logical unit access: what each state admits, delays, changes, and who is told (SPC-4 5.16.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
import pytest
from support.memory import GatedMemory
from support.ports import TwoPorts, report_groups, two_ports
from support.scsi import pattern
from tcm_loopback.commands import ApplicationClient, check
from tcm_loopback.transport import CommandAborted

from tcm.scsi import cdb
from tcm.scsi.asymmetric_access import AccessState
from tcm.scsi.check_condition import (
    AccessStateTransition,
    CheckCondition,
    LogicalUnitOffline,
    TargetPortInStandbyState,
    TargetPortInUnavailableState,
)
from tcm.scsi.command import VARIABLE_LENGTH, Command
from tcm.scsi.command_table import COMMANDS
from tcm.scsi.sense import SenseKey, Status
from tcm.target.access_transition import set_access_state, set_offline
from tcm.target.logical_unit_group import LogicalUnitGroups
from tcm.target.task_management import TaskManagementFunction as Function
from tcm.target.unit_attention import ASYMMETRIC_ACCESS_STATE_CHANGED

pytestmark = pytest.mark.anyio
State = AccessState

WHY: dict[AccessState, type[CheckCondition]] = {
    State.STANDBY: TargetPortInStandbyState,
    State.UNAVAILABLE: TargetPortInUnavailableState,
    State.OFFLINE: LogicalUnitOffline,
    State.TRANSITIONING: AccessStateTransition,
}

TRANSITIONING = {"INQUIRY", "REPORT LUNS", "REPORT TARGET PORT GROUPS", "REQUEST SENSE", "READ BUFFER", "WRITE BUFFER"}
UNAVAILABLE = TRANSITIONING | {"SET TARGET PORT GROUPS"}
STANDBY = UNAVAILABLE | {
    "LOG SELECT", "LOG SENSE", "MODE SELECT", "MODE SENSE", "RECEIVE DIAGNOSTIC RESULTS", "SEND DIAGNOSTIC",
    "PERSISTENT RESERVE IN", "PERSISTENT RESERVE OUT",
}  # fmt: skip
"""SPC-4 5.16.2.4.4, 5.16.2.4.5 and 5.16.2.5, written down a second time."""
MORE_IN_STANDBY = {
    "READ CAPACITY", "REPORT SUPPORTED OPERATION CODES", "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    "REPORT IDENTIFYING INFORMATION", "REPORT TIMESTAMP", "SECURITY PROTOCOL IN", "REPORT REFERRALS",
}  # fmt: skip
"""What the standard leaves to us."""

EXPECTED: dict[AccessState, set[str]] = {
    State.STANDBY: STANDBY | MORE_IN_STANDBY,
    State.UNAVAILABLE: UNAVAILABLE,
    State.OFFLINE: UNAVAILABLE,
    State.TRANSITIONING: TRANSITIONING,
}


@pytest.fixture
async def ways() -> AsyncIterator[TwoPorts]:
    async with two_ports() as made:
        yield made


def plain(command: Command) -> bytes:
    """The command with every field zero."""
    line = bytearray(command.length)
    line[0] = command.operation_code
    if command.operation_code == VARIABLE_LENGTH:
        line[7] = command.length - 8
        line[8:10] = (command.service_action or 0).to_bytes(2, "big")
    elif command.service_action is not None:
        line[1] = command.service_action
    return bytes(line)


@pytest.mark.parametrize("state", list(EXPECTED))
async def test_alua_admitted_commands(ways: TwoPorts, state: AccessState) -> None:
    """SPC-4 5.16.2.4, 5.16.2.5: every command of the table; what the state does not admit is NOT READY and does nothing."""
    await ways.put(state)
    one, two = ways.clients
    why = WHY[state]
    await one.write(10, 0, pattern(4096))
    for command in COMMANDS:
        if command.feature is not None and command.feature not in ways.unit.features:
            continue
        stem = command.name.partition(" (")[0].partition(",")[0]
        result = await two.execute(plain(command), bytes(512), read_length=512, expect=None)
        refused = result.sense is not None and (result.sense.key, result.sense.asc, result.sense.ascq) == (
            why.key,
            why.asc,
            why.ascq,
        )
        assert refused is (stem not in EXPECTED[state]), command.name
        if refused:
            assert result.data_in == b""
    assert (await one.read(10, 0, 8)).data_in == pattern(4096)


@pytest.mark.parametrize("state", [State.ACTIVE_OPTIMIZED, State.ACTIVE_NON_OPTIMIZED, State.LOGICAL_BLOCK_DEPENDENT])
async def test_alua_active(ways: TwoPorts, state: AccessState) -> None:
    """SPC-4 5.16.2.4.2, 5.16.2.4.3: commands are executed as ever, also those that the express lane would take."""
    await ways.put(state)
    for client in ways.clients:
        for express in (False, True):
            client.initiator.express = express
            await client.write(10, 8, pattern(512, 2))
            assert (await client.read(10, 8, 1)).data_in == pattern(512, 2)
            await client.test_unit_ready()


@pytest.mark.parametrize("state", list(WHY))
async def test_alua_express(ways: TwoPorts, state: AccessState) -> None:
    """SPC-4 5.16.2.4: the express lane is closed while the state refuses reads and writes, for that port only."""
    one, two = ways.clients
    one.initiator.express = two.initiator.express = True
    assert (await two.read(10, 0, 1)).express
    await ways.put(state)
    await two.read(10, 0, 1, expect=WHY[state])
    await two.write(10, 0, pattern(512), expect=WHY[state])
    assert (await one.write(10, 0, pattern(512, 3))).express
    if state is State.TRANSITIONING:
        ways.groups[1].state = State.ACTIVE_OPTIMIZED
        ways.unit.update_express()
    else:
        await ways.put(State.ACTIVE_OPTIMIZED)
    assert (await two.read(10, 0, 1)).data_in == pattern(512, 3)
    assert (await two.read(10, 0, 1)).express


async def test_alua_unavailable_inquiry(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.4.5: peripheral qualifier 001b through a port that is unavailable or offline, 000b through others."""
    one, two = ways.clients
    for state in AccessState:
        await ways.put(state)
        away = state in {State.UNAVAILABLE, State.OFFLINE}
        for page in (None, 0x00, 0x83):
            assert (await two.inquiry(page))[0] == (0x20 if away else 0x00)
            assert (await one.inquiry(page))[0] == 0x00


async def test_alua_request_sense(ways: TwoPorts) -> None:
    """SPC-4 6.39: the parameter data of REQUEST SENSE say why the unit is not accessible."""
    for state, why in WHY.items():
        await ways.put(state)
        data = await ways.clients[1].request_sense()
        assert (data[2], data[12], data[13]) == (SenseKey.NOT_READY, why.asc, why.ascq)
        assert (await ways.clients[0].request_sense())[2] == SenseKey.NO_SENSE


async def test_alua_secondary_offline(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.4.6: a LUN goes offline and comes back, whatever its group's state; the others do not notice."""
    one, two = ways.clients
    await set_offline(ways.luns[1], offline=True)
    for client in ways.clients:
        await client.test_unit_ready(expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
    await two.read(10, 0, 1, expect=LogicalUnitOffline)
    await one.read(10, 0, 1)
    await ways.put(State.STANDBY)
    await two.test_unit_ready(expect=LogicalUnitOffline)
    await set_offline(ways.luns[1], offline=False)
    await ways.settle()
    await two.test_unit_ready(expect=TargetPortInStandbyState)
    assert (ways.luns[1].offline_status, ways.groups[1].status) == (2, 2)


async def test_alua_implicit(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.5: after an implicit change every I_T nexus is told, before anything else."""
    await set_access_state(ways.groups[1], State.STANDBY)
    for client in ways.clients:
        await client.read(10, 0, 1, expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
    await set_access_state(ways.groups[1], State.STANDBY)
    await ways.clients[0].read(10, 0, 1)
    await ways.clients[1].read(10, 0, 1, expect=TargetPortInStandbyState)


@pytest.mark.parametrize(
    ("attributes", "state"),
    [
        ({"alua_access_type": 0}, State.STANDBY),
        ({"alua_access_type": 2}, State.STANDBY),
        ({"alua_support_standby": False}, State.STANDBY),
        ({"alua_support_offline": False}, State.OFFLINE),
        ({"alua_support_transitioning": False}, State.TRANSITIONING),
        ({}, State.LOGICAL_BLOCK_DEPENDENT),
    ],
)
async def test_alua_implicit_refused(ways: TwoPorts, attributes: dict[str, int], state: AccessState) -> None:
    """SPC-4 5.16.2.7, LIO's rules: the type is implicit, the state supported; nobody is told."""
    ways.configure(1, **attributes)
    await ways.settle()
    with pytest.raises(ValueError, match="target port group group2: "):
        await set_access_state(ways.groups[1], state)
    for client in ways.clients:
        await client.test_unit_ready()


async def test_alua_transition_delay(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.5: for trans_delay_msecs the group is transitioning; nobody else waits, a second change does."""
    one, two = ways.clients
    ways.configure(1, trans_delay_msecs=40)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(set_access_state, ways.groups[1], State.UNAVAILABLE)
        tasks.start_soon(set_access_state, ways.groups[1], State.STANDBY)
        await anyio.lowlevel.checkpoint()
        while ways.groups[1].state is not State.TRANSITIONING:
            await anyio.lowlevel.checkpoint()
        assert {group: found[0] for group, found in (await report_groups(two)).items()} == {1: 0x0, 2: 0xF}
        await two.read(10, 0, 1, expect=AccessStateTransition)
        await one.read(10, 0, 1)
        await two.execute(cdb.set_target_port_groups(0), expect=AccessStateTransition)
    assert ways.groups[1].state in {State.STANDBY, State.UNAVAILABLE}


async def test_alua_transition_set(ways: TwoPorts) -> None:
    """LIO's alua_access_state 15: the group is transitioning until another is set; initiators cannot end that."""
    one, two = ways.clients
    ways.configure(1, trans_delay_msecs=30_000)
    await set_access_state(ways.groups[1], State.TRANSITIONING)
    for client in ways.clients:
        await client.test_unit_ready(expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
    assert {group: found[0] for group, found in (await report_groups(two)).items()} == {1: 0x0, 2: 0xF}
    await two.read(10, 0, 1, expect=AccessStateTransition)
    await two.execute(cdb.set_target_port_groups(0), expect=AccessStateTransition)
    await one.read(10, 0, 1)
    ways.configure(1, trans_delay_msecs=0)
    await set_access_state(ways.groups[1], State.STANDBY)
    await ways.settle()
    await two.read(10, 0, 1, expect=TargetPortInStandbyState)


async def test_alua_transition_without_t_sup(ways: TwoPorts) -> None:
    """SPC-4 table 306: T_SUP zero: the state is never transitioning; the old one lasts until the new one."""
    ways.configure(1, trans_delay_msecs=20, alua_support_transitioning=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(set_access_state, ways.groups[1], State.STANDBY)
        await anyio.lowlevel.checkpoint()
        seen = {ways.groups[1].state}
        await ways.clients[1].read(10, 0, 1)
    assert seen == {State.ACTIVE_OPTIMIZED}
    assert ways.groups[1].state is State.STANDBY


async def test_alua_transition_cancelled(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.5: a change that is given up while it waits leaves everything as it was."""
    ways.configure(1, trans_delay_msecs=30_000)
    with anyio.move_on_after(0.01):
        await set_access_state(ways.groups[1], State.STANDBY)
    assert (ways.groups[1].state, ways.groups[1].status) == (State.ACTIVE_OPTIMIZED, 0)
    for client in ways.clients:
        await client.test_unit_ready()


async def test_alua_non_optimized_delay(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.4.3, LIO's nonop_delay_msecs: commands wait as long at that port, in order, and at no other."""
    ways.configure(1, nonop_delay_msecs=60)
    await ways.put(State.ACTIVE_NON_OPTIMIZED)
    one, two = ways.clients
    two.initiator.express = True
    started = anyio.current_time()
    late = two.initiator.start(two.lun, cdb.write(10, 0, 1), pattern(512))
    await one.write(10, 0, pattern(512, 2))
    check(await late.wait(), Status.GOOD)
    assert anyio.current_time() - started >= 0.06
    assert (await one.read(10, 0, 1)).data_in == pattern(512)
    assert not (await two.read(10, 0, 1)).express


async def test_alua_non_optimized_delay_abort(ways: TwoPorts) -> None:
    """SAM-5 7.2: a command that waits can be aborted at once; a unit attention meanwhile is reported by it."""
    ways.configure(1, nonop_delay_msecs=10_000)
    await ways.put(State.ACTIVE_NON_OPTIMIZED)
    two = ways.clients[1]
    command = two.initiator.start(two.lun, cdb.write(10, 0, 1), pattern(512))
    assert command.task is not None
    with anyio.fail_after(60):
        await two.initiator.task_management(Function.ABORT_TASK, two.lun, command.task.tag)
        with pytest.raises(CommandAborted):
            await command.wait()
    assert (await ways.clients[0].read(10, 0, 1)).data_in == bytes(512)
    ways.configure(1, nonop_delay_msecs=20)
    held = two.initiator.start(two.lun, cdb.read(10, 0, 1), read_length=512)
    ways.unit.establish_attention(ASYMMETRIC_ACCESS_STATE_CHANGED)
    check(await held.wait(), ASYMMETRIC_ACCESS_STATE_CHANGED)


async def test_alua_data_out_comes_late() -> None:
    """SPC-4 5.16.2.5: a write whose data come after the change is not carried out."""
    async with two_ports(GatedMemory()) as ways:
        two = ways.clients[1]
        command = two.initiator.start(two.lun, cdb.write(10, 0, 1), pattern(512), withheld=True)
        await set_access_state(ways.groups[1], State.STANDBY)
        command.deliver()
        check(await command.wait(), TargetPortInStandbyState)
        await ways.settle()
        assert (await ways.clients[0].read(10, 0, 1)).data_in == bytes(512)


async def test_alua_logical_unit_groups() -> None:
    """SPC-4 7.8.6.9: the same target port group of all units of an LU group changes with it, and all are told."""
    groups = LogicalUnitGroups()
    async with two_ports() as first, two_ports(serial="22222222-2222-3333-4444-555555555555") as second:
        pair = groups.add("pair")
        for ways in (first, second):
            groups.assign(ways.unit, pair)
        await set_access_state(first.groups[1], State.STANDBY)
        for ways in (first, second):
            for client in ways.clients:
                await client.test_unit_ready(expect=ASYMMETRIC_ACCESS_STATE_CHANGED)
            assert [group.state for group in ways.groups] == [State.ACTIVE_OPTIMIZED, State.STANDBY]
        groups.assign(second.unit, groups.default)
        await set_access_state(first.groups[1], State.UNAVAILABLE)
        assert second.groups[1].state is State.STANDBY


async def test_alua_identifiers(ways: TwoPorts) -> None:
    """LIO's rules: names and identifiers are unique and in range, zero is the next free one, the default stays."""
    access = ways.unit.asymmetric_access
    assert access.add_group("third").identifier == 3
    assert access.add_group("last", 0xFFFF).identifier == 0xFFFF
    for name, identifier in (("third", 5), ("new", 3), ("new", 0x10000), ("", 5), ("a/b", 5), ("x" * 256, 5)):
        with pytest.raises(ValueError, match="target port group"):
            access.add_group(name, identifier)
    with pytest.raises(ValueError, match="cannot be removed"):
        access.remove_group("default_tg_pt_gp")
    groups = LogicalUnitGroups()
    assert groups.add("a").identifier == 1
    for name, identifier in (("a", 2), ("b", 1), ("", 2), ("b", 0x10000)):
        with pytest.raises(ValueError, match="LU group"):
            groups.add(name, identifier)
    with pytest.raises(ValueError, match="cannot be removed"):
        groups.remove("default_lu_gp")


async def test_alua_one_port_one_group(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.1: a target port with the unit under two LUNs is in one group with both."""
    extra = ways.luns[1].port.add_lun(9, ways.unit)
    access = ways.unit.asymmetric_access
    assert extra.target_port_group is ways.groups[1]
    access.move(extra, ways.groups[0])
    assert {lun.target_port_group for lun in access.luns()} == {ways.groups[0]}
    ways.luns[1].port.remove_lun(9)
    assert len(list(access.luns())) == 2
    assert ways.groups[0].member_names() == [
        f"loopback/naa.50014050000000ab/tpgt_{tag}/lun_{lun}" for tag, lun in ((1, 0), (2, 5))
    ]


def test_alua_attributes() -> None:
    """LIO's limits."""
    from tcm.failure import ConfigError
    from tcm.target.target_port_group import GroupAttributes

    for name, limit in (("nonop_delay_msecs", 10_000), ("trans_delay_msecs", 30_000), ("implicit_trans_secs", 255)):
        replace(GroupAttributes(), **{name: limit})
        for wrong in (-1, limit + 1):
            with pytest.raises(ConfigError, match=f"{name} {wrong} is out of range; write 0 to {limit}"):
                replace(GroupAttributes(), **{name: wrong})


async def test_alua_nexus_made_later(ways: TwoPorts) -> None:
    """SPC-4 5.16.2.4: an I_T nexus that comes while the port is in standby finds it so."""
    await ways.put(State.STANDBY)
    two = ways.clients[1]
    two.initiator.reconnect()
    late = ApplicationClient(two.initiator, two.lun)
    await ways.settle()
    await late.read(10, 0, 1, expect=TargetPortInStandbyState)
