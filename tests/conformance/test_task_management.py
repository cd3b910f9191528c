"""Task management functions: SAM-5 clause 7; unit attentions and TASK ABORTED status that follow (5.14, 5.3.1)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from support.memory import GatedMemory
from support.scsi import SECOND, logical_unit, one_initiator, pattern, target, two_initiators
from tcm_loopback.commands import ApplicationClient, check
from tcm_loopback.transport import CommandAborted, LoopbackCommand

from tcm.scsi import cdb
from tcm.scsi.sense import Status
from tcm.target import unit_attention
from tcm.target.task_management import TaskManagementFunction as Function
from tcm.target.task_management import TaskManagementResponse as Response

pytestmark = pytest.mark.anyio
RESETS = (Function.LOGICAL_UNIT_RESET, Function.TARGET_WARM_RESET, Function.TARGET_COLD_RESET)


async def aborted(command: LoopbackCommand) -> None:
    with anyio.fail_after(60), pytest.raises(CommandAborted):
        await command.wait()


@asynccontextmanager
async def withheld(disk: ApplicationClient, lba: int = 0) -> AsyncIterator[LoopbackCommand]:
    """A WRITE that waits for its Data-Out."""
    command = disk.initiator.start(0, cdb.write(10, lba, 1), pattern(512), withheld=True)
    await command.requested.wait()
    yield command


def tag(command: LoopbackCommand) -> int:
    assert command.task is not None
    return command.task.tag


async def test_abort_task(disk: ApplicationClient) -> None:
    """SAM-5 7.2: the task is gone without a response, and nothing of it is written."""
    async with withheld(disk) as command, withheld(disk, 1) as other:
        assert await disk.initiator.task_management(Function.ABORT_TASK, 0, tag(command)) is Response.FUNCTION_COMPLETE
        await aborted(command)
        command.deliver()
        assert other.deliver() == 0
        check(await other.wait(), Status.GOOD)
    assert (await disk.read(10, 0, 2)).data_in == bytes(512) + pattern(512)


async def test_abort_task_in_the_backstore() -> None:
    """SAM-5 7.2: a read that is under way is cancelled; the response comes after it has ended."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        command = disk.initiator.start(0, cdb.read(10, 0, 1), read_length=512)
        await store.until_waiting(1)
        with anyio.fail_after(60):
            await disk.initiator.task_management(Function.ABORT_TASK, 0, tag(command))
        await aborted(command)
        assert not store.waiting


async def test_abort_task_before_it_runs() -> None:
    """SAM-5 7.2: a task aborted in the moment after its arrival never reaches the backstore."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.log.clear()
        command = disk.initiator.start(0, cdb.write(10, 0, 1), pattern(512))
        with anyio.fail_after(60):
            await disk.initiator.task_management(Function.ABORT_TASK, 0, tag(command))
        await aborted(command)
        await disk.test_unit_ready()
        assert not store.log


async def test_abort_task_unknown(disk: ApplicationClient) -> None:
    """SAM-5 7.2: a task that is not there: FUNCTION COMPLETE to SAM, "task does not exist" to transports that can say so."""
    response = await disk.initiator.task_management(Function.ABORT_TASK, 0, 4711)
    assert response in {Response.TASK_DOES_NOT_EXIST, Response.FUNCTION_COMPLETE}


async def test_abort_task_of_another_nexus() -> None:
    """SAM-5 7.2: a tag of another nexus is not this one's."""
    async with two_initiators() as (one, two), withheld(one) as command:
        await two.initiator.task_management(Function.ABORT_TASK, 0, tag(command))
        command.deliver()
        check(await command.wait(), Status.GOOD)


async def test_abort_task_dormant() -> None:
    """SAM-5 7.2: a dormant task can be aborted; what waited for it goes on."""
    from tcm.target.task import TaskAttribute

    async with one_initiator() as disk, withheld(disk) as first:
        ordered = disk.initiator.start(0, cdb.write(10, 1, 1), pattern(512), attribute=TaskAttribute.ORDERED)
        behind = disk.initiator.start(0, cdb.write(10, 2, 1), pattern(512))
        await disk.initiator.task_management(Function.ABORT_TASK, 0, tag(ordered))
        await aborted(ordered)
        with anyio.fail_after(60):
            check(await behind.wait(), Status.GOOD)
        first.deliver()
        check(await first.wait(), Status.GOOD)


async def test_abort_task_set() -> None:
    """SAM-5 7.3: all tasks of this nexus, none of another."""
    async with two_initiators() as (one, two), withheld(one) as a, withheld(one) as b, withheld(two) as c:
        assert await one.initiator.task_management(Function.ABORT_TASK_SET) is Response.FUNCTION_COMPLETE
        await aborted(a)
        await aborted(b)
        c.deliver()
        check(await c.wait(), Status.GOOD)
        await one.test_unit_ready()
        await two.test_unit_ready()


async def test_clear_task_set_tas() -> None:
    """SAM-5 7.5, 5.6.4: TAS one: the other nexus's tasks end with TASK ABORTED status, and no unit attention."""
    async with two_initiators() as (one, two), withheld(one) as a, withheld(two) as b:
        assert await one.initiator.task_management(Function.CLEAR_TASK_SET) is Response.FUNCTION_COMPLETE
        await aborted(a)
        with anyio.fail_after(60):
            check(await b.wait(), Status.TASK_ABORTED)
        await one.test_unit_ready()
        await two.test_unit_ready()


async def test_clear_task_set_without_tas() -> None:
    """SAM-5 7.5, 5.6.4: TAS zero: no response, and COMMANDS CLEARED BY ANOTHER INITIATOR for those that lost tasks."""
    async with two_initiators(emulate_tas=False) as (one, two), withheld(one) as a, withheld(two) as b:
        await one.initiator.task_management(Function.CLEAR_TASK_SET)
        await aborted(a)
        await aborted(b)
        await two.test_unit_ready(expect=unit_attention.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)
        await two.test_unit_ready()
        await one.test_unit_ready()


@pytest.mark.parametrize("function", RESETS)
@pytest.mark.parametrize("tas", [False, True])
async def test_reset(function: Function, tas: bool) -> None:
    """SAM-5 7.7, 6.3.3: all tasks are aborted, all nexuses get a reset unit attention, the other nexus's tasks by TAS."""
    async with two_initiators(emulate_tas=tas) as (one, two), withheld(one) as a, withheld(two) as b:
        assert await one.initiator.task_management(function) is Response.FUNCTION_COMPLETE
        await aborted(a)
        if tas:
            with anyio.fail_after(60):
                check(await b.wait(), Status.TASK_ABORTED)
        else:
            await aborted(b)
        for client in (one, two):
            result = await client.test_unit_ready(expect=None)
            assert result.sense is not None
            assert (result.sense.key, result.sense.asc) == (6, 0x29)
            await client.test_unit_ready()
        assert not any((await one.read(10, 0, 1)).data_in)


async def test_reset_waits_for_a_write_under_way() -> None:
    """SAM-5 7.2, 7.7: the response comes after a write that cannot be stopped has ended; nothing is written afterwards."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        command = disk.initiator.start(0, cdb.write(10, 0, 1), pattern(512))
        await store.until_waiting(1)
        done = anyio.Event()

        async def reset() -> None:
            await disk.initiator.task_management(Function.LOGICAL_UNIT_RESET)
            done.set()

        async with anyio.create_task_group() as group:
            group.start_soon(reset)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert store.waiting
            assert not done.is_set()
            store.release()
            with anyio.fail_after(60):
                await done.wait()
        await aborted(command)
        entries = len(store.log)
        await disk.identify()
        assert store.log[:entries] == store.log


@pytest.mark.parametrize("tas", [False, True])
async def test_reset_of_a_write_that_fails(tas: bool) -> None:
    """SAM-5 5.6.4: how the task ends was settled when it was aborted: not by the failure of the write that was under way."""
    store = GatedMemory()
    async with two_initiators(store, emulate_tas=tas) as (one, two):
        store.shut()
        command = two.initiator.start(0, cdb.write(10, 0, 1), pattern(512))
        await store.until_waiting(1)
        async with anyio.create_task_group() as group:
            group.start_soon(one.initiator.task_management, Function.LOGICAL_UNIT_RESET)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            store.failure = OSError(5, "input/output error")
            store.release()
        if tas:
            with anyio.fail_after(60):
                result = check(await command.wait(), Status.TASK_ABORTED)
            assert result.sense is None
        else:
            await aborted(command)


async def test_logical_unit_reset_is_one_units() -> None:
    """SAM-5 7.7: other logical units notice nothing; a target reset concerns all."""
    async with target(None, None) as port:
        initiator = port.connect()
        zero, one = (ApplicationClient(initiator, lun) for lun in (0, 1))
        for unit in (zero, one):
            await unit.identify()
        await initiator.task_management(Function.LOGICAL_UNIT_RESET, 1)
        await zero.test_unit_ready()
        await one.test_unit_ready(expect=unit_attention.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
        await initiator.task_management(Function.TARGET_WARM_RESET)
        for unit in (zero, one):
            result = await unit.test_unit_ready(expect=None)
            assert result.status is Status.CHECK_CONDITION


async def test_i_t_nexus_reset() -> None:
    """SAM-5 7.6: this nexus's tasks are aborted, its reservation released, I_T NEXUS LOSS OCCURRED; others go on."""
    async with two_initiators() as (one, two), withheld(two) as other:
        await one.reserve()
        async with withheld(one) as mine:
            assert await one.initiator.task_management(Function.I_T_NEXUS_RESET) is Response.FUNCTION_COMPLETE
            await aborted(mine)
        other.deliver()
        check(await other.wait(), Status.GOOD)
        await two.reserve()
        await two.release()
        await one.test_unit_ready(expect=unit_attention.I_T_NEXUS_LOSS_OCCURRED)


async def test_query_task(disk: ApplicationClient) -> None:
    """SAM-5 7.8: FUNCTION SUCCEEDED if the task is there, FUNCTION COMPLETE if not; the task is not touched."""
    async with withheld(disk) as command:
        assert await disk.initiator.task_management(Function.QUERY_TASK, 0, tag(command)) is Response.FUNCTION_SUCCEEDED
        command.deliver()
        check(await command.wait(), Status.GOOD)
        assert await disk.initiator.task_management(Function.QUERY_TASK, 0, tag(command)) is Response.FUNCTION_COMPLETE


async def test_query_task_set() -> None:
    """SAM-5 7.9: whether this nexus has a task in the set."""
    async with two_initiators() as (one, two), withheld(one) as command:
        assert await one.initiator.task_management(Function.QUERY_TASK_SET) is Response.FUNCTION_SUCCEEDED
        assert await two.initiator.task_management(Function.QUERY_TASK_SET) is Response.FUNCTION_COMPLETE
        command.deliver()
        check(await command.wait(), Status.GOOD)
        assert await one.initiator.task_management(Function.QUERY_TASK_SET) is Response.FUNCTION_COMPLETE


async def test_query_asynchronous_event(disk: ApplicationClient) -> None:
    """SAM-5 7.10: FUNCTION SUCCEEDED with the condition that is next; it stays pending."""
    response, additional = await disk.initiator.task_management_request(Function.QUERY_ASYNCHRONOUS_EVENT)
    assert (response, additional) == (Response.FUNCTION_COMPLETE, bytes(3))
    await disk.initiator.task_management(Function.LOGICAL_UNIT_RESET)
    response, additional = await disk.initiator.task_management_request(Function.QUERY_ASYNCHRONOUS_EVENT)
    assert response is Response.FUNCTION_SUCCEEDED
    assert additional == bytes((0x16, 0x29, 0x03)), "UADE DEPTH one, UNIT ATTENTION"
    logical_unit(disk).establish_attention(unit_attention.INQUIRY_DATA_HAS_CHANGED)
    _, additional = await disk.initiator.task_management_request(Function.QUERY_ASYNCHRONOUS_EVENT)
    assert additional == bytes((0x26, 0x29, 0x03)), "UADE DEPTH more than one"
    await disk.test_unit_ready(expect=unit_attention.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    await disk.test_unit_ready(expect=unit_attention.INQUIRY_DATA_HAS_CHANGED)


async def test_clear_aca(disk: ApplicationClient) -> None:
    """SAM-5 7.4: NORMACA is zero: the function is not supported."""
    response = await disk.initiator.task_management(Function.CLEAR_ACA)
    assert response in {Response.NOT_SUPPORTED, Response.FUNCTION_REJECTED}


@pytest.mark.parametrize(
    "function", [Function.ABORT_TASK, Function.ABORT_TASK_SET, Function.CLEAR_TASK_SET, Function.LOGICAL_UNIT_RESET]
)
async def test_task_management_incorrect_lun(disk: ApplicationClient, function: Function) -> None:
    """SAM-5 7.1: INCORRECT LOGICAL UNIT NUMBER."""
    assert await disk.initiator.task_management(function, 9) is Response.LUN_DOES_NOT_EXIST


async def test_nexus_loss_aborts() -> None:
    """SAM-5 6.3.4: with the nexus its tasks go, without a response; another's go on; the loss is told when it returns."""
    async with target(None) as port:
        one, two = ApplicationClient(port.connect()), ApplicationClient(port.connect(SECOND))
        await one.identify()
        await two.identify()
        async with withheld(one) as mine, withheld(two, 1) as other:
            one.initiator.disconnect()
            await aborted(mine)
            other.deliver()
            check(await other.wait(), Status.GOOD)
        assert not any((await two.read(10, 0, 1)).data_in)
        one.initiator.reconnect()
        await one.test_unit_ready(expect=unit_attention.I_T_NEXUS_LOSS_OCCURRED)
        await one.test_unit_ready()


async def test_cancelled_wait_aborts_the_task() -> None:
    """The loopback's own rule: an application client that stops waiting has its task aborted."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        with anyio.move_on_after(0.05):
            await disk.read(10, 0, 1)
        with anyio.fail_after(60):
            while store.waiting:
                await anyio.lowlevel.checkpoint()
        store.release()
        await disk.read(10, 0, 1)
