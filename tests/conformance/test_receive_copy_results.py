"""RECEIVE COPY STATUS, OPERATING PARAMETERS and FAILURE DETAILS: SPC-4 5.17.4, 6.22 to 6.25."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from support import copies
from support.copies import (
    FAILURE_DETAILS,
    LID,
    OPERATING_PARAMETERS,
    STATUS_LID1,
    STATUS_LID4,
    cscd_of,
    extended_copy,
    parameters,
    receive,
    send,
)
from support.memory import GatedMemory
from support.scsi import SECOND, SIZE, logical_unit, pattern, target
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.fabric import LoopbackPort

from tcm.scsi import cdb, copy_cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, OperationInProgress
from tcm.scsi.copy_cdb import THIS_UNIT, block_to_block
from tcm.scsi.copy_sense import CopyAborted
from tcm.scsi.persistent_reservations import OutAction, ReservationType
from tcm.scsi.sense import SenseKey, Status
from tcm.target.copy_manager import MAXIMUM_COPIES

pytestmark = pytest.mark.anyio
FINE = block_to_block(THIS_UNIT, 0, THIS_UNIT, 1000, 500)
BAD = block_to_block(THIS_UNIT, 0, THIS_UNIT, 1 << 40, 500)
OPERATION_RUNS, COMPLETED, FAILED = 0x00, 0x01, 0x02


@pytest.fixture
async def port() -> AsyncIterator[LoopbackPort]:
    async with target(GatedMemory(SIZE)) as made:
        yield made


@pytest.fixture
async def disk(port: LoopbackPort) -> ApplicationClient:
    client = ApplicationClient(port.connect())
    await client.identify()
    return client


def gate(client: ApplicationClient) -> GatedMemory:
    store = logical_unit(client).backstore
    assert isinstance(store, GatedMemory)
    return store


async def test_receive_copy_status_lid1(disk: ApplicationClient) -> None:
    """SPC-4 6.25: status, segments and bytes of a copy operation; told once after it has ended."""
    await receive(disk, STATUS_LID1, 1, expect=InvalidFieldInCdb)
    await extended_copy(disk, [], FINE, FINE)
    data = await receive(disk, STATUS_LID1, 1)
    assert data == bytes((0, 0, 0, 8, COMPLETED, 0, 2, 0)) + (2 * 500 * 512).to_bytes(4)
    await receive(disk, STATUS_LID1, 1, expect=InvalidFieldInCdb)
    await extended_copy(disk, [], FINE, BAD, expect=CopyAborted)
    assert await receive(disk, STATUS_LID1, 1, allocation_length=7) == bytes((0, 0, 0, 8, FAILED, 0, 2))
    await receive(disk, STATUS_LID1, 1, expect=InvalidFieldInCdb)


@pytest.mark.parametrize("lid4", LID)
async def test_receive_copy_status_lid4(disk: ApplicationClient, lid4: bool) -> None:
    """SPC-4 6.24: the same and more, as often as one likes, of either EXTENDED COPY."""
    await extended_copy(disk, [], FINE, lid4=lid4, list_identifier=0xFD)
    for _ in range(2):
        data = await receive(disk, STATUS_LID4, 0xFD)
        assert int.from_bytes(data[:4]) == len(data) - 4 == 28
        assert data[4:6] == bytes((lid4, 0x01))
        assert data[8:16] == bytes((0xFF, 0xFF, 0xFF, 0xFE, Status.GOOD, 0, 0, 0))
        assert int.from_bytes(data[16:24]) == 500 * 512
        assert int.from_bytes(data[24:26]) == 1
    await extended_copy(disk, [], FINE, BAD, lid4=lid4, list_identifier=0xFD, expect=CopyAborted)
    data = await receive(disk, STATUS_LID4, 0xFD)
    assert int.from_bytes(data[:4]) == len(data) - 4
    assert data[5] == 0x02
    assert data[12] == Status.CHECK_CONDITION
    assert (data[13], data[14]) == (20, 18)
    assert data[32 + 2] == SenseKey.COPY_ABORTED
    assert len(data) == 52


async def test_receive_copy_status_in_progress(disk: ApplicationClient) -> None:
    """SPC-4 6.24, 6.25: status is there while the operation is under way."""
    store = gate(disk)
    store.shut()
    async with anyio.create_task_group() as group:
        group.start_soon(extended_copy, disk, [], FINE)
        await store.until_waiting(1)
        for _ in range(2):
            assert (await receive(disk, STATUS_LID1, 1))[4] == OPERATION_RUNS
        data = await receive(disk, STATUS_LID4, 1)
        assert data[5] == 0x11
        assert data[12:16] == bytes(4)
        assert int.from_bytes(data[8:12]) < 0xFFFFFFFE
        await receive(disk, FAILURE_DETAILS, 1, expect=InvalidFieldInCdb)
        store.release()
    assert (await receive(disk, STATUS_LID1, 1))[4] == COMPLETED


async def test_receive_copy_failure_details(disk: ApplicationClient) -> None:
    """SPC-4 6.23: the sense data of a failure, until all of it has been told, or none of it is wanted."""
    await receive(disk, FAILURE_DETAILS, 1, expect=InvalidFieldInCdb)
    result = await extended_copy(disk, [], BAD, expect=CopyAborted)
    first = await receive(disk, FAILURE_DETAILS, 1, allocation_length=20)
    assert int.from_bytes(first) == int.from_bytes((74).to_bytes(4) + bytes(16))
    data = await receive(disk, FAILURE_DETAILS, 1)
    assert data[:20] == first
    assert data[56:60] == bytes((Status.CHECK_CONDITION, 0, 0, 18))
    assert data[60:] == result.sense_data
    assert await receive(disk, FAILURE_DETAILS, 1) == bytes(4)
    await extended_copy(disk, [], BAD, expect=CopyAborted)
    await receive(disk, FAILURE_DETAILS, 1, allocation_length=0)
    assert await receive(disk, FAILURE_DETAILS, 1) == bytes(4)
    await extended_copy(disk, [], FINE)
    assert await receive(disk, FAILURE_DETAILS, 1) == bytes(4)


async def test_receive_copy_operating_parameters(disk: ApplicationClient) -> None:
    """SPC-4 6.22: the limits, the same as in the Third-party Copy VPD page."""
    data = await receive(disk, OPERATING_PARAMETERS, 0)
    assert int.from_bytes(data[:4]) == len(data) - 4
    assert data[4] == 0x01
    assert data[20:24] == data[24:28] == bytes(4)
    assert int.from_bytes(data[34:36]) == data[36] == MAXIMUM_COPIES
    assert data[44:] == bytes((0x02, 0x0A, 0xE4))
    assert data[43] == 3
    page = await disk.inquiry(0x8F)
    assert data[8:16] in page
    assert data[16:20] in page


async def test_receive_copy_list_identifiers(port: LoopbackPort, disk: ApplicationClient) -> None:
    """SPC-4 5.17.4.2: a list identifier that is in use is OPERATION IN PROGRESS; others, and other I_T nexuses, are free."""
    other = ApplicationClient(port.connect(SECOND))
    await other.identify()
    store = gate(disk)
    store.shut()
    async with anyio.create_task_group() as group:
        group.start_soon(extended_copy, disk, [], FINE)
        await store.until_waiting(1)
        await extended_copy(disk, [], FINE, expect=OperationInProgress)
        await extended_copy(disk, [], FINE, lid4=True, expect=OperationInProgress)
        await receive(other, STATUS_LID4, 1, expect=InvalidFieldInCdb)
        for identifier in (2, 0x1_0000):
            group.start_soon(lambda each=identifier: extended_copy(disk, [], FINE, lid4=True, list_identifier=each))
        group.start_soon(extended_copy, other, [], FINE)
        await anyio.wait_all_tasks_blocked()
        assert (await receive(other, STATUS_LID4, 1))[5] == 0x11
        store.release()
    for identifier in (1, 2, 0x1_0000):
        assert (await receive(disk, STATUS_LID4, identifier))[5] == 0x01


async def test_receive_copy_without_list_identifier(disk: ApplicationClient) -> None:
    """SPC-4 table 129: with LIST ID USAGE 11b nothing is kept, and any number may run at once; with 10b it may be."""
    store = gate(disk)
    store.shut()
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(lambda: extended_copy(disk, [], FINE, usage=3, list_identifier=0))
        await anyio.wait_all_tasks_blocked()
        await receive(disk, STATUS_LID4, 0, expect=InvalidFieldInCdb)
        store.release()
    await receive(disk, STATUS_LID4, 0, expect=InvalidFieldInCdb)
    await extended_copy(disk, [], FINE, usage=2)
    assert (await receive(disk, STATUS_LID4, 1))[5] == 0x01


async def test_receive_copy_too_many(disk: ApplicationClient) -> None:
    """SPC-4 6.22: one copy more than TOTAL CONCURRENT COPIES ends with BUSY status."""
    store = gate(disk)
    store.shut()
    data = parameters([], [FINE], usage=3, list_identifier=0)
    async with anyio.create_task_group() as group:
        for _ in range(MAXIMUM_COPIES):
            group.start_soon(send, disk, data)
        await anyio.wait_all_tasks_blocked()
        await send(disk, data, expect=Status.BUSY)
        store.release()
    await send(disk, data)


async def test_receive_copy_nexus_loss(port: LoopbackPort, disk: ApplicationClient) -> None:
    """SPC-4 6.24: after I_T nexus loss nothing is known."""
    await extended_copy(disk, [], FINE)
    disk.initiator.reconnect()
    await disk.identify()
    for action in (STATUS_LID1, STATUS_LID4, FAILURE_DETAILS):
        await receive(disk, action, 1, expect=InvalidFieldInCdb)


async def test_receive_copy_reserved(port: LoopbackPort, disk: ApplicationClient) -> None:
    """SPC-4 table 65: results may be received whoever holds a persistent reservation; copies may not be originated."""
    await extended_copy(disk, [], FINE)
    other = ApplicationClient(port.connect(SECOND))
    await other.identify()
    for action, key, new in ((OutAction.REGISTER, 0, 1), (OutAction.RESERVE, 1, 0)):
        data = key.to_bytes(8) + new.to_bytes(8) + bytes(8)
        await other.execute(cdb.persistent_reserve_out(action, ReservationType.EXCLUSIVE_ACCESS), data)
    for action in (STATUS_LID4, OPERATING_PARAMETERS, FAILURE_DETAILS, STATUS_LID1):
        await receive(disk, action, 0 if action == OPERATING_PARAMETERS else 1)
    await extended_copy(disk, [], FINE, expect=Status.RESERVATION_CONFLICT)
    await disk.execute(copy_cdb.copy_operation_abort(1), expect=Status.RESERVATION_CONFLICT)


async def test_receive_copy_large_counts(disk: ApplicationClient) -> None:
    """SPC-4 table 251: more bytes than RECEIVE COPY STATUS (LID1) has room for are told in mebibytes."""
    await extended_copy(disk, [], FINE)
    operation = logical_unit(disk).copies.find(disk.initiator.nexus, 1)
    assert operation is not None
    operation.transferred = 5 << 32
    assert (await receive(disk, STATUS_LID4, 1))[15:24] == bytes((0,)) + (5 << 32).to_bytes(8)
    assert (await receive(disk, STATUS_LID1, 1))[7:12] == bytes((0x02,)) + (5 << 12).to_bytes(4)


async def test_receive_copy_other_units(port: LoopbackPort) -> None:
    """SPC-4 5.17.2: each logical unit has a copy manager of its own."""
    async with target(None, None) as made:
        first, second = copies.clients(made)
        for client in (first, second):
            await client.identify()
        await first.write(16, 0, pattern(4096))
        await extended_copy(first, [cscd_of(second)], block_to_block(THIS_UNIT, 0, 0, 0, 8))
        await receive(second, STATUS_LID4, 1, expect=InvalidFieldInCdb)
        assert (await receive(first, STATUS_LID4, 1))[5] == 0x01
