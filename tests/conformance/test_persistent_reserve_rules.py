"""PERSISTENT RESERVE OUT across target ports and fabrics, and what becomes of registrations whose initiator is shut out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import pytest
from support.memory import GatedMemory
from support.reservations import (
    ALL_TG_PT,
    APTPL,
    CONFLICT,
    SPEC_I_PT,
    attention,
    generation,
    keys,
    move,
    out,
    read_in,
    register,
    reservation,
    sas,
    specified,
)
from support.scsi import FIRST, SECOND, logical_unit, make_lu, pattern, two_initiators
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.fabric import LoopbackPort
from tcm_loopback.initiator import LoopbackInitiator

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInParameterList
from tcm.scsi.persistent_reservations import InAction, OutAction
from tcm.scsi.persistent_reservations import ReservationType as Kind
from tcm.scsi.transport_id import ProtocolIdentifier, TransportId
from tcm.target.device import TargetDevice
from tcm.target.initiator_port import InitiatorPort
from tcm.target.logical_unit import LogicalUnit
from tcm.target.node_acl import AccessControl
from tcm.target.persistent_reservations import NexusName, Registration, State
from tcm.target.portal_group import TargetPortalGroup
from tcm.target.unit_attention import INQUIRY_DATA_HAS_CHANGED, REGISTRATIONS_PREEMPTED, RESERVATIONS_RELEASED
from tcm.testing import MemoryStore
from tcm.testing.memory_store import Values

pytestmark = pytest.mark.anyio
A, B, C = 0xA1, 0xB2, 0xC3
IQN = "iqn.2026-01.example:a"
ISID = bytes.fromhex("00023d000001")
OPEN = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)


@dataclass
class Ports:
    """One logical unit behind two SAS ports and an iSCSI one."""

    unit: LogicalUnit
    first: TargetPortalGroup
    second: TargetPortalGroup
    iscsi: TargetPortalGroup

    async def connect(self, group: TargetPortalGroup, name: str = FIRST) -> ApplicationClient:
        if group is self.iscsi:
            port = InitiatorPort(name, ISID, TransportId(ProtocolIdentifier.ISCSI, name, ISID).pack())
            client = ApplicationClient(LoopbackInitiator(name, lambda services: group.establish_nexus(port, services)))
        else:
            client = ApplicationClient(LoopbackPort(group).connect(name))
        await client.identify()
        return client


@pytest.fixture
async def ports() -> AsyncIterator[Ports]:
    async with make_lu() as unit:
        device, other = TargetDevice("naa.50014050000000cc", "loopback"), TargetDevice("iqn.2026-01.example:t", "iscsi")
        groups = [device.add_portal_group(1), device.add_portal_group(2), other.add_portal_group(1)]
        for group in groups:
            group.access = OPEN
            group.add_lun(0, unit)
        yield Ports(unit, *groups)
        for group in groups:
            for nexus in tuple(group.nexuses):
                nexus.lose()


async def test_persistent_reserve_out_all_tg_pt_conflict(ports: Ports) -> None:
    """SPC-4 6.16.3: as if it had come through each port: another port's other key conflicts, unless it is ignored."""
    one, two = [await ports.connect(group) for group in (ports.first, ports.second)]
    await register(two, B)
    await register(one, A, flags=ALL_TG_PT, expect=CONFLICT)
    assert await keys(one) == [B]
    await register(one, A)
    for new in (C, 0):
        await register(one, new, A, flags=ALL_TG_PT, expect=CONFLICT)
    await out(one, OutAction.REGISTER_AND_IGNORE_EXISTING_KEY, 0, C, flags=ALL_TG_PT)
    assert await keys(one) == [C, C]
    await register(one, 0, C, flags=ALL_TG_PT)
    assert (await keys(one), await generation(one)) == ([], 4)


async def test_persistent_reserve_out_all_tg_pt_fabric(ports: Ports) -> None:
    """SPC-4 6.16.3: every target port that the initiator port's protocol can reach; each registration told with its port."""
    one = await ports.connect(ports.first)
    await register(one, A, flags=ALL_TG_PT | SPEC_I_PT, more=specified(sas(SECOND)))
    data = await read_in(one, InAction.READ_FULL_STATUS)
    found = {(data[at + 18 : at + 20], data[at + 24 : at + 48]) for at in range(8, len(data), 48)}
    numbers = [each.relative_target_port_identifier.to_bytes(2, "big") for each in (ports.first, ports.second)]
    assert found == {(number, sas(name)) for number in numbers for name in (FIRST, SECOND)}


async def test_persistent_reserve_out_register_and_move_ports(ports: Ports) -> None:
    """SPC-4 5.13.8: to another target port, of another fabric too; not to the initiator port itself, through whatever port."""
    one, two = await ports.connect(ports.first), await ports.connect(ports.second, SECOND)
    far = await ports.connect(ports.iscsi, IQN)
    iscsi = TransportId(ProtocolIdentifier.ISCSI, IQN, ISID)
    fibre_channel = TransportId(ProtocolIdentifier.FCP, "5001405000000002").pack()
    here, there, beyond = (each.relative_target_port_identifier for each in (ports.first, ports.second, ports.iscsi))
    await register(one, A)
    await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
    await register(two, C)
    before = ports.unit.persistent_reservations.state
    refused = {"expect": InvalidFieldInParameterList}
    for port, name in (
        (here, sas(FIRST)),
        (there, sas(FIRST)),
        (there, iscsi.pack()),
        (there, fibre_channel),
        (beyond, sas(SECOND)),
    ):
        await move(one, A, B, port, name, **refused)
    await move(one, A, B, beyond, TransportId(ProtocolIdentifier.ISCSI, IQN).pack(), **refused)
    assert ports.unit.persistent_reservations.state is before
    await move(one, A, B, there, sas(SECOND))
    assert (await keys(one), await reservation(one)) == ([A, B], (B, Kind.WRITE_EXCLUSIVE))
    await two.write(10, 0, pattern(512))
    await move(two, B, C, beyond, iscsi.pack(), flags=2)
    assert (await keys(one), await reservation(one)) == ([A, C], (C, Kind.WRITE_EXCLUSIVE))
    await far.write(10, 0, pattern(512))
    for client in (one, two):
        await client.write(10, 0, pattern(512), expect=CONFLICT)
        await attention(client, None)


async def test_persistent_reserve_out_preempt_and_abort_everybody() -> None:
    """SPC-4 5.13.11.2.6: key zero and an all registrants reservation: all commands but the PERSISTENT RESERVE OUT itself."""
    memory = GatedMemory()
    async with two_initiators(memory, emulate_tas=True) as (one, two):
        await register(one, A)
        await register(two, B)
        await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS)
        memory.shut()
        doomed = [each.initiator.start(0, cdb.write(10, 8 * at, 1), pattern(512)) for at, each in enumerate((one, two))]
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: out(one, OutAction.PREEMPT_AND_ABORT, A, 0, Kind.EXCLUSIVE_ACCESS))
            await anyio.wait_all_tasks_blocked()
            memory.release()
        assert [each.task.state.name for each in doomed if each.task is not None] == ["ABORTED", "ABORTED"]
        await two.test_unit_ready(expect=REGISTRATIONS_PREEMPTED)
        assert await keys(one) == [A]


async def test_persistent_reserve_out_preempt_and_abort_prevent() -> None:
    """SPC-4 5.13.11.2.6: what the preempted nexus has prevented is allowed again; PREEMPT does not do that."""
    async with two_initiators(removable=True) as (one, two):
        await register(one, A)
        for action, prevented in ((OutAction.PREEMPT, 1), (OutAction.PREEMPT_AND_ABORT, 0)):
            await register(two, B)
            await two.execute(cdb.prevent_allow_medium_removal(1))
            await out(one, action, A, B, Kind.WRITE_EXCLUSIVE)
            assert len(logical_unit(one).prevented) == prevented
            await two.test_unit_ready(expect=REGISTRATIONS_PREEMPTED)


@pytest.mark.parametrize("way", ["node ACL", "mapped LUN", "LUN"])
async def test_persistent_reserve_shut_out(way: str) -> None:
    """SPC-4 5.13.11.2.3: who may not come any more is unregistered (LIO too), in what is kept as well; its holder releases."""
    values = Values()
    async with make_lu(store=MemoryStore(values)) as unit:
        device = TargetDevice("naa.50014050000000cc", "loopback")
        groups = [device.add_portal_group(tag) for tag in (1, 2)]
        for group in groups:
            group.access = OPEN
            group.add_lun(0, unit)
            acl = group.add_node_acl(FIRST)
            group.map_lun(acl, 0, 0)
        one, two = [ApplicationClient(LoopbackPort(group).connect(FIRST)) for group in groups]
        for client in (one, two):
            await client.identify()
        await register(one, A, flags=APTPL)
        await register(two, B, flags=APTPL)
        await out(one, OutAction.RESERVE, A, kind=Kind.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY)
        one.initiator.disconnect()
        assert len(unit.persistent_reservations.state.registrations) == 2
        group = groups[0]
        if way == "node ACL":
            group.remove_node_acl(FIRST)
        elif way == "mapped LUN":
            group.map_lun(group.node_acls[FIRST], 1, 0)
            group.unmap_lun(group.node_acls[FIRST], 1)  # it is there under another number
            await anyio.wait_all_tasks_blocked()
            assert len(await keys(two)) == 2
            group.unmap_lun(group.node_acls[FIRST], 0)
        else:
            group.remove_lun(0)
            await two.test_unit_ready(expect=INQUIRY_DATA_HAS_CHANGED)  # MULTIP
        await anyio.wait_all_tasks_blocked()
        await two.test_unit_ready(expect=RESERVATIONS_RELEASED)
        assert (await keys(two), await reservation(two), await generation(two)) == ([B], None, 3)
        (entry,) = values.entries.values()
        assert entry.value is not None
        assert entry.value.count("PR_REG_START") == 1
        two.initiator.disconnect()


async def test_persistent_reserve_shut_out_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """SPC-4 5.13.11.2.3: a disk that is full does not keep an initiator registered that was shut out."""
    store = MemoryStore(Values())
    async with make_lu(store=store) as unit:
        group = TargetDevice("naa.50014050000000cc", "loopback").add_portal_group(1)
        group.add_lun(0, unit)
        group.map_lun(group.add_node_acl(FIRST), 0, 0)
        client = ApplicationClient(LoopbackPort(group).connect(FIRST))
        await client.identify()
        await register(client, A)
        store.failure = OSError(28, "No space left on device")
        group.remove_node_acl(FIRST)
        await anyio.wait_all_tasks_blocked()
        assert not unit.persistent_reservations.state.registrations
        assert "stay there: [Errno 28]" in caplog.text


async def test_persistent_reserve_in_ten_thousand() -> None:
    """SPC-4 6.15.2, 6.15.5: lengths say what there is, whatever the allocation length leaves of it."""
    async with two_initiators() as (one, _):
        transport_id = TransportId(ProtocolIdentifier.ISCSI, IQN, ISID).pack()
        registrations = {
            NexusName(f"{IQN}{number}", ISID, "iqn.2026-01.example:t", 1): Registration(
                key=number + 1, fabric="iscsi", transport_id=transport_id, relative_port=7
            )
            for number in range(10_000)
        }
        logical_unit(one).persistent_reservations.state = State(registrations=registrations, generation=9)
        for action, each in ((InAction.READ_KEYS, 8), (InAction.READ_FULL_STATUS, 24 + len(transport_id))):
            whole = await read_in(one, action)
            assert whole[:8] == (9).to_bytes(4, "big") + (10_000 * each).to_bytes(4, "big")
            assert len(whole) == 65535
            for length in (0, 1, 7, 8, 9, 31, 32, 65534):
                short = await one.execute(cdb.persistent_reserve_in(action, length), read_length=65535)
                assert short.data_in == whole[:length]
