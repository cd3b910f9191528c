"""Task attributes and the task set: SAM-5 8.5 and 8.6; overlapped commands (5.11), TASK SET FULL (5.3.1)."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from support.memory import GatedMemory
from support.scsi import one_initiator, pattern, two_initiators
from tcm_loopback.commands import ApplicationClient, check
from tcm_loopback.transport import CommandAborted, LoopbackCommand

from tcm.scsi import cdb
from tcm.scsi.check_condition import OverlappedCommandsAttempted
from tcm.scsi.sense import SenseKey, Status
from tcm.target.task import TaskAttribute

pytestmark = pytest.mark.anyio
SIMPLE, ORDERED, HEAD, ACA = TaskAttribute.SIMPLE, TaskAttribute.ORDERED, TaskAttribute.HEAD_OF_QUEUE, TaskAttribute.ACA


def start_write(disk: ApplicationClient, lba: int, attribute: TaskAttribute = SIMPLE) -> LoopbackCommand:
    return disk.initiator.start(0, cdb.write(10, lba, 1), bytes(512), attribute=attribute)


def lbas(entries: list[tuple[str, int, int]]) -> list[int]:
    return [offset // 512 for operation, offset, _ in entries if operation.startswith("write")]


async def settle() -> None:
    """Let everything that can run, run."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def finish(store: GatedMemory, commands: list[LoopbackCommand]) -> list[int]:
    """Open the gate, one request at a time, and return the LBAs in the order of their execution."""
    store.release()
    with anyio.fail_after(60):
        for command in commands:
            check(await command.wait(), Status.GOOD)
    return lbas(store.log)


async def test_simple_tasks_run_at_once() -> None:
    """SAM-5 8.6.2: SIMPLE tasks do not wait for one another."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        commands = [start_write(disk, lba) for lba in range(8)]
        await store.until_waiting(8)
        await finish(store, commands)


@pytest.mark.parametrize("attribute", [ORDERED])
async def test_ordered_waits_for_all_older(attribute: TaskAttribute) -> None:
    """SAM-5 8.6.3: an ORDERED task waits for all older tasks, and all younger ones wait for it."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        commands = [start_write(disk, 0), start_write(disk, 1)]
        commands.append(start_write(disk, 2, attribute))
        commands += [start_write(disk, 3), start_write(disk, 4)]
        await store.until_waiting(2)
        await settle()
        assert sorted(lbas(store.waiting)) == [0, 1]
        order = await finish(store, commands)
    assert sorted(order[:2]) == [0, 1]
    assert order[2] == 2
    assert sorted(order[3:]) == [3, 4]


async def test_ordered_tasks_run_in_order() -> None:
    """SAM-5 8.6.3: ORDERED tasks run one after the other, in the order of arrival, whatever nexus they came by."""
    store = GatedMemory()
    async with two_initiators(store) as clients:
        store.shut()
        commands = [start_write(clients[lba % 2], lba, ORDERED) for lba in range(6)]
        await store.until_waiting(1)
        await settle()
        assert lbas(store.waiting) == [0]
        assert await finish(store, commands) == [0, 1, 2, 3, 4, 5]


async def test_head_of_queue_overtakes() -> None:
    """SAM-5 8.6.4: a HEAD OF QUEUE task starts at once; what is dormant waits for it."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        commands = [start_write(disk, 0), start_write(disk, 1, ORDERED), start_write(disk, 2)]
        commands.append(start_write(disk, 3, HEAD))
        await store.until_waiting(2)
        await settle()
        assert sorted(lbas(store.waiting)) == [0, 3]
        order = await finish(store, commands)
    assert sorted(order[:2]) == [0, 3]
    assert order[2:] == [1, 2]


async def test_simple_waits_for_head_of_queue() -> None:
    """SAM-5 8.6.2: a SIMPLE task does not start before an older HEAD OF QUEUE task has ended."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        commands = [start_write(disk, 0, HEAD), start_write(disk, 1)]
        await store.until_waiting(1)
        await settle()
        assert lbas(store.waiting) == [0]
        assert await finish(store, commands) == [0, 1]


async def test_ordered_waits_for_data_out() -> None:
    """SAM-5 8.6: a task whose data have not arrived is unfinished: an ORDERED task waits for it."""
    async with one_initiator() as disk:
        first = disk.initiator.start(0, cdb.write(10, 0, 1), pattern(512, 1), withheld=True)
        second = disk.initiator.start(0, cdb.write(10, 0, 1), pattern(512, 2), attribute=ORDERED)
        third = disk.initiator.start(0, cdb.read(10, 0, 1), read_length=512)
        await settle()
        assert not second.done
        assert not third.done
        first.deliver()
        with anyio.fail_after(60):
            check(await first.wait(), Status.GOOD)
            check(await second.wait(), Status.GOOD)
            assert (await third.wait()).data_in == pattern(512, 2)


async def test_express_closed_while_ordering_matters() -> None:
    """SAM-5 8.6.3: a read in the express lane does not overtake an ORDERED task."""
    async with one_initiator(express=True) as disk:
        blocker = disk.initiator.start(0, cdb.write(10, 0, 1), pattern(512, 1), withheld=True)
        ordered = disk.initiator.start(0, cdb.write(10, 0, 1), pattern(512, 2), attribute=ORDERED)
        reader = disk.initiator.start(0, cdb.read(10, 0, 1), read_length=512)
        await settle()
        assert not reader.done
        blocker.deliver()
        with anyio.fail_after(60):
            check(await ordered.wait(), Status.GOOD)
            result = await reader.wait()
        assert result.data_in == pattern(512, 2)
        assert (await disk.read(10, 0, 1)).express


async def test_aca_attribute(disk: ApplicationClient) -> None:
    """SAM-5 8.5.6: the ACA attribute without an ACA condition is refused."""
    result = await disk.execute(cdb.test_unit_ready(), attribute=ACA, expect=None)
    assert result.status is Status.CHECK_CONDITION
    assert result.sense is not None
    assert result.sense.key is SenseKey.ILLEGAL_REQUEST


async def test_untagged(disk: ApplicationClient) -> None:
    """SAM-5 8.5: an untagged task is treated as SIMPLE."""
    await disk.execute(cdb.read(10, 0, 1), read_length=512, attribute=TaskAttribute.UNTAGGED)


async def test_task_set_full() -> None:
    """SAM-5 5.3.1: beyond the queue depth a command ends with TASK SET FULL, or BUSY for one that has none in the set."""
    store = GatedMemory()
    async with two_initiators(store, queue_depth=4) as (one, two):
        store.shut()
        commands = [start_write(one, lba) for lba in range(4)]
        await store.until_waiting(4)
        await one.write(10, 9, bytes(512), expect=Status.TASK_SET_FULL)
        result = await two.write(10, 9, bytes(512), expect=None)
        assert result.status in {Status.BUSY, Status.TASK_SET_FULL}
        await finish(store, commands)
        await two.write(10, 9, bytes(512))


async def test_task_set_full_of_another() -> None:
    """SAM-5 5.3.1: one initiator that fills the set leaves another some tasks of its own: here 64 / 32."""
    store = GatedMemory()
    async with two_initiators(store, queue_depth=64) as (one, two):
        store.shut()
        commands = [start_write(one, lba) for lba in range(64)]
        await store.until_waiting(64)
        await one.write(10, 99, bytes(512), expect=Status.TASK_SET_FULL)
        commands += [start_write(two, lba) for lba in (100, 101)]
        await store.until_waiting(66)
        await two.write(10, 102, bytes(512), expect=Status.TASK_SET_FULL)
        await finish(store, commands)


async def test_overlapped_commands() -> None:
    """SAM-5 5.11: a tag that is in use: both tasks are gone, the second with OVERLAPPED COMMANDS ATTEMPTED."""
    async with one_initiator() as disk:
        first = disk.initiator.start(0, cdb.write(10, 0, 1), pattern(512), tag=77, withheld=True)
        await first.requested.wait()
        second = disk.initiator.start(0, cdb.read(10, 0, 1), read_length=512, tag=77)
        with anyio.fail_after(60):
            check(await second.wait(), OverlappedCommandsAttempted)
            with pytest.raises(CommandAborted):
                await first.wait()
        assert not any((await disk.read(10, 0, 1)).data_in)


async def test_same_tag_on_two_nexuses() -> None:
    """SAM-5 4.8.2: tags are a nexus's own."""
    store = GatedMemory()
    async with two_initiators(store) as clients:
        store.shut()
        commands = [client.initiator.start(0, cdb.write(10, lba, 1), bytes(512), tag=5) for lba, client in enumerate(clients)]
        await store.until_waiting(2)
        await finish(store, commands)


async def test_many_commands_in_flight() -> None:
    """SAM-5 8.6.2: a hundred SIMPLE writes and reads in flight each get their own result."""
    async with one_initiator() as disk:
        writes = [disk.initiator.start(0, cdb.write(10, i * 8, 8), pattern(4096, i)) for i in range(100)]
        for command in writes:
            check(await command.wait(), Status.GOOD)
        reads = [disk.initiator.start(0, cdb.read(10, i * 8, 8), read_length=4096) for i in range(100)]
        for i, command in enumerate(reads):
            assert (await command.wait()).data_in == pattern(4096, i)
