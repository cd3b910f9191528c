"""COPY OPERATION ABORT: SPC-4 5.17.4.7, 6.3."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from support.copies import FAILURE_DETAILS, STATUS_LID1, STATUS_LID4, extended_copy, receive
from support.memory import GatedMemory
from support.scsi import SECOND, SIZE, target
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.fabric import LoopbackPort

from tcm.scsi import copy_cdb
from tcm.scsi.check_condition import CommandsClearedByDeviceServer, InvalidFieldInCdb
from tcm.scsi.copy_cdb import THIS_UNIT, block_to_block
from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
SEGMENT = block_to_block(THIS_UNIT, 0, THIS_UNIT, 1000, 500)


@pytest.fixture
async def store() -> GatedMemory:
    return GatedMemory(SIZE)


@pytest.fixture
async def port(store: GatedMemory) -> AsyncIterator[LoopbackPort]:
    async with target(store) as made:
        yield made


@pytest.fixture
async def disk(port: LoopbackPort) -> ApplicationClient:
    client = ApplicationClient(port.connect())
    await client.identify()
    return client


async def abort(disk: ApplicationClient, ended: anyio.Event) -> None:
    await disk.execute(copy_cdb.copy_operation_abort(1))
    ended.set()


@pytest.mark.parametrize("background", [False, True])
async def test_copy_operation_abort(store: GatedMemory, disk: ApplicationClient, background: bool) -> None:
    """SPC-4 5.17.4.7: GOOD when nothing is written any more; the copy's own command ends with COPY ABORTED, COMMANDS CLEARED BY
    DEVICE SERVER; RECEIVE COPY STATUS (LID4) tells that it was terminated."""
    store.shut()
    ended = anyio.Event()

    async def copy() -> None:
        expect = Status.GOOD if background else CommandsClearedByDeviceServer
        await extended_copy(disk, [], SEGMENT, SEGMENT, lid4=True, immed=background, expect=expect)

    async with anyio.create_task_group() as group:
        group.start_soon(copy)
        await store.until_waiting(1)
        assert store.waiting[0][0] == "read"
        store.release()
        store.shut()
        await anyio.wait_all_tasks_blocked()
        assert store.waiting[0][0] == "write"
        group.start_soon(abort, disk, ended)
        await anyio.wait_all_tasks_blocked()
        assert not ended.is_set()
        store.release()
        await ended.wait()
        written = list(store.log)
    assert store.log == written
    data = await receive(disk, STATUS_LID4, 1)
    assert data[5] == 0x60
    assert data[12] == Status.TASK_ABORTED
    assert data[13:15] == bytes(2)
    assert (await receive(disk, STATUS_LID1, 1))[4] == 0x02
    assert (await receive(disk, FAILURE_DETAILS, 1))[56] == Status.CHECK_CONDITION


async def test_copy_operation_abort_waiting(store: GatedMemory, disk: ApplicationClient) -> None:
    """SPC-4 5.17.4.7: a read that is under way is not waited for."""
    store.shut()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: extended_copy(disk, [], SEGMENT, expect=CommandsClearedByDeviceServer))
        await store.until_waiting(1)
        await disk.execute(copy_cdb.copy_operation_abort(1))
    assert not store.log


async def test_copy_operation_abort_unknown(port: LoopbackPort, store: GatedMemory, disk: ApplicationClient) -> None:
    """SPC-4 6.3: no such copy operation under way on the I_T nexus is INVALID FIELD IN CDB."""
    other = ApplicationClient(port.connect(SECOND))
    await other.identify()
    await disk.execute(copy_cdb.copy_operation_abort(1), expect=InvalidFieldInCdb)
    store.shut()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: extended_copy(disk, [], SEGMENT))
        await store.until_waiting(1)
        await other.execute(copy_cdb.copy_operation_abort(1), expect=InvalidFieldInCdb)
        await disk.execute(copy_cdb.copy_operation_abort(0x101), expect=InvalidFieldInCdb)
        store.release()
    await disk.execute(copy_cdb.copy_operation_abort(1), expect=InvalidFieldInCdb)
