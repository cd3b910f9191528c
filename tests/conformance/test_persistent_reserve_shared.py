"""Persistent reservations of one logical unit that two nodes serve: each has its own target port, both one store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import pytest
from support import reservations
from support.reservations import CONFLICT, keys
from support.scsi import FIRST, SECOND, logical_unit, make_lu, make_target, pattern
from tcm_loopback.commands import ApplicationClient, Expected

from tcm.scsi import cdb
from tcm.scsi.check_condition import InternalTargetFailure, PersistentReservationInformationLost
from tcm.scsi.persistent_reservations import InAction, OutAction, ReservationType
from tcm.scsi.sense import Status
from tcm.target.store import Entry
from tcm.target.unit_attention import REGISTRATIONS_PREEMPTED, RESERVATIONS_PREEMPTED, RESERVATIONS_RELEASED
from tcm.testing import MemoryStore
from tcm.testing.memory_store import Values

pytestmark = pytest.mark.anyio
A, B, C = 0xA1, 0xB2, 0xC3
Kind = ReservationType
Nodes = tuple[ApplicationClient, ApplicationClient, ApplicationClient]


@pytest.fixture
def values() -> Values:
    return Values()


@pytest.fixture
async def nodes(values: Values) -> AsyncIterator[Nodes]:
    """Two initiators of one node, one of the other."""
    async with AsyncExitStack() as stack:
        clients = []
        for number, names in enumerate(((FIRST, SECOND), (FIRST,))):
            unit = await stack.enter_async_context(make_lu(store=MemoryStore(values)))
            port = make_target(unit, name=f"naa.50014050000000a{number}")
            clients += [ApplicationClient(port.connect(name)) for name in names]
        for client in clients:
            await client.identify()
        yield clients[0], clients[1], clients[2]
        for client in clients:
            client.initiator.disconnect()


async def out(
    client: ApplicationClient, action: OutAction, key: int = 0, new: int = 0, kind: int = 0, **more: Expected
) -> None:
    await reservations.out(client, action, key, new, kind, **more)
    await anyio.wait_all_tasks_blocked()  # the other node has heard of it


async def test_persistent_reserve_shared_register(nodes: Nodes) -> None:
    """SPC-5 5.14.7: who is registered anywhere is registered everywhere; PRGENERATION goes on."""
    one, two, far = nodes
    await out(one, OutAction.REGISTER, 0, A)
    await out(far, OutAction.REGISTER, 0, C)
    await out(two, OutAction.REGISTER, 0, B)
    for client in nodes:
        assert await keys(client) == [A, C, B]
        assert logical_unit(client).persistent_reservations.state.generation == 3
    await far.test_unit_ready()
    await far.execute(cdb.persistent_reserve_in(InAction.READ_FULL_STATUS), read_length=255)


async def test_persistent_reserve_shared_reserve(nodes: Nodes) -> None:
    """SPC-5 5.14.9, table 66: a reservation made on one node is in the other's way, on the express lane too."""
    one, _, far = nodes
    for client in nodes:
        client.initiator.express = True
    await out(one, OutAction.REGISTER, 0, A)
    await out(far, OutAction.REGISTER, 0, C)
    assert (await far.write(10, 0, pattern(512))).express
    await out(one, OutAction.RESERVE, A, kind=Kind.EXCLUSIVE_ACCESS)
    await far.write(10, 0, pattern(512), expect=CONFLICT)
    await far.read(10, 0, 1, expect=CONFLICT)
    await out(far, OutAction.RESERVE, C, kind=Kind.EXCLUSIVE_ACCESS, expect=CONFLICT)
    await out(one, OutAction.RELEASE, A, kind=Kind.EXCLUSIVE_ACCESS)
    assert (await far.write(10, 0, pattern(512))).express


async def test_persistent_reserve_shared_attentions(nodes: Nodes) -> None:
    """SPC-5 5.14.11: those who lose something by another node's doing hear of it, the others do not."""
    one, two, far = nodes
    for client, key in zip(nodes, (A, B, C), strict=True):
        await out(client, OutAction.REGISTER, 0, key)
    await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    await out(one, OutAction.RELEASE, A, kind=Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    for client in (two, far):
        await client.test_unit_ready(expect=RESERVATIONS_RELEASED)
    await out(one, OutAction.RESERVE, A, kind=Kind.WRITE_EXCLUSIVE)
    await out(far, OutAction.PREEMPT, C, A, kind=Kind.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY)
    await one.test_unit_ready(expect=REGISTRATIONS_PREEMPTED)
    await two.test_unit_ready(expect=RESERVATIONS_RELEASED)
    await one.write(10, 0, pattern(512), expect=CONFLICT)
    await two.write(10, 0, pattern(512))
    await out(far, OutAction.CLEAR, C)
    await two.test_unit_ready(expect=RESERVATIONS_PREEMPTED)
    for client in nodes:
        await client.test_unit_ready()
        assert await keys(client) == []


async def test_persistent_reserve_shared_race(nodes: Nodes) -> None:
    """SPC-5 5.14.9: of two nodes that reserve at the same time one succeeds; what both register is there."""
    one, _, far = nodes
    async with anyio.create_task_group() as group:
        for client, key in zip(nodes, (A, B, C), strict=True):
            group.start_soon(out, client, OutAction.REGISTER, 0, key)
    assert sorted(await keys(one)) == sorted(await keys(far)) == [A, B, C]
    results = []

    async def reserve(client: ApplicationClient, key: int) -> None:
        data = key.to_bytes(8, "big") + bytes(16)
        line = cdb.persistent_reserve_out(OutAction.RESERVE, Kind.EXCLUSIVE_ACCESS)
        results.append((await client.execute(line, data, expect=None)).status)

    async with anyio.create_task_group() as group:
        for client, key in zip(nodes, (A, B, C), strict=True):
            group.start_soon(reserve, client, key)
    assert sorted(results) == [Status.GOOD, CONFLICT, CONFLICT]


async def test_persistent_reserve_shared_out_of_reach(nodes: Nodes) -> None:
    """SPC-5 5.14.5: what cannot be kept takes effect nowhere."""
    one, _, far = nodes
    store = logical_unit(one).store
    assert isinstance(store, MemoryStore)
    store.failure = OSError("gone")
    await out(one, OutAction.REGISTER, 0, A, expect=InternalTargetFailure)
    store.failure = None
    assert await keys(one) == await keys(far) == []


async def test_persistent_reserve_shared_damaged(nodes: Nodes, values: Values, caplog: pytest.LogCaptureFixture) -> None:
    """SPC-5 5.14.11.5: what another node has left cannot be read; its replacement is everybody's."""
    one, _, far = nodes
    await out(one, OutAction.REGISTER, 0, A)
    (name,) = values.entries
    values.entries[name] = Entry("nonsense\n", "other")
    for _, changed in values.watching.values():
        changed(name)
    await anyio.wait_all_tasks_blocked()
    assert "persistent reservations are lost: line 1: " in caplog.text
    for client in (one, far):
        await client.read(10, 0, 1, expect=PersistentReservationInformationLost)
    await out(one, OutAction.REPLACE_LOST_RESERVATION, 0, B, kind=Kind.WRITE_EXCLUSIVE)
    await far.read(10, 0, 1)
    await far.write(10, 0, pattern(512), expect=CONFLICT)
