"""I_T nexuses: loss while tasks run, aborts that wait for writes, overlapped commands, the order of precedence."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from support.memory import GatedMemory
from support.scsi import (
    SECOND,
    ApplicationClient,
    logical_unit,
    make_lu,
    make_target,
    one_initiator,
    target,
    two_initiators,
)
from tcm_loopback.commands import check
from tcm_loopback.transport import CommandAborted, LoopbackCommand, Result

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InvalidFieldInCommandInformationUnit,
    InvalidOpcode,
    MediumNotPresent,
    OverlappedCommandsAttempted,
)
from tcm.scsi.lun import encode
from tcm.scsi.sense import Status
from tcm.target import unit_attention
from tcm.target.nexus import ITNexus
from tcm.target.task import Task, TaskAttribute, TaskState
from tcm.target.task_management import TaskManagementFunction as Function

pytestmark = pytest.mark.anyio
A, B = b"A" * 512, b"B" * 512


def nexus_of(client: ApplicationClient) -> ITNexus:
    assert client.initiator.nexus is not None
    return client.initiator.nexus


async def aborted(command: LoopbackCommand) -> None:
    with anyio.fail_after(60), pytest.raises(CommandAborted):
        await command.wait()


async def settle() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_loss_aborts_reads_and_lets_writes_finish() -> None:
    """SAM-5 6.3.4, 7.2: reads are cancelled; a write that is on its way is waited for, and its buffer stays alive."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        unit = logical_unit(disk)
        store.shut()
        read = disk.initiator.start(0, cdb.read(10, 0, 1), read_length=512)
        write = disk.initiator.start(0, cdb.write(10, 8, 1), A)
        await store.until_waiting(2)
        disk.initiator.disconnect()
        await aborted(read)
        await settle()
        assert [entry[0] for entry in store.waiting] == ["write"]
        assert len(unit.running) == 1
        store.release()
        await aborted(write)
        assert not unit.running
        assert len(unit.task_set) == 0
        assert store.data[8 * 512 : 9 * 512] == A


async def test_a_lost_write_does_not_overtake_the_next_nexus() -> None:
    """SAM-5 7.2: an aborted write touches the medium before anybody else gets there, never after."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        lost = disk.initiator.start(0, cdb.write(10, 0, 2), A * 2)
        await store.until_waiting(1)
        disk.initiator.reconnect()
        nexus = nexus_of(disk)
        nexus.luns[encode(0)].take_attention()
        overlapping = disk.initiator.start(0, cdb.write(10, 1, 1), B)
        reading = disk.initiator.start(0, cdb.read(10, 0, 1), read_length=512)
        elsewhere = disk.initiator.start(0, cdb.write(10, 4, 1), B)
        await store.until_waiting(2)
        await settle()
        assert [entry[1] for entry in store.waiting] == [0, 4 * 512]
        store.release()
        await aborted(lost)
        for command in (overlapping, elsewhere):
            check(await command.wait(), Status.GOOD)
        assert (await reading.wait()).data_in == A
        assert (await disk.read(10, 0, 2)).data_in == A + B


async def test_data_out_after_an_abort_is_ignored() -> None:
    async with one_initiator() as disk:
        command = disk.initiator.start(0, cdb.write(10, 0, 1), A, withheld=True)
        assert command.task is not None
        assert command.task.state is TaskState.AWAITING_DATA_OUT
        await disk.initiator.task_management(Function.ABORT_TASK, 0, command.task.tag)
        nexus = nexus_of(disk)
        command.task.data_out = A
        nexus.data_out_received(command.task)
        nexus.data_out_failed(command.task, InvalidFieldInCommandInformationUnit().sense)
        assert (await disk.read(10, 0, 1)).data_in == bytes(512)


async def test_the_medium_goes_before_the_data_comes() -> None:
    """SBC-4 5.1: what has not begun when the medium is ejected does not touch it afterwards."""
    async with one_initiator(removable=True) as disk:
        command = disk.initiator.start(0, cdb.write(10, 0, 1), A, withheld=True)
        await disk.start_stop_unit(loej=True)
        command.deliver()
        check(await command.wait(), MediumNotPresent)
        await disk.start_stop_unit(loej=True, start=True)
        assert (await disk.read(10, 0, 1)).data_in == bytes(512)


async def test_data_out_that_fails() -> None:
    """The fabric says why there is no data: that is the command's sense, and nothing is written."""
    async with one_initiator() as disk:
        command = disk.initiator.start(0, cdb.write(10, 0, 1), A, withheld=True)
        command.fail_data_out(InvalidFieldInCommandInformationUnit().sense)
        check(await command.wait(), InvalidFieldInCommandInformationUnit)
        assert not nexus_of(disk).tasks
        assert len(logical_unit(disk).task_set) == 0


async def test_refused_by_the_fabric() -> None:
    async with one_initiator() as disk:
        nexus = nexus_of(disk)
        command = LoopbackCommand()
        nexus.refuse(Task(nexus, bytes(8), 99, bytes(16), context=command), InvalidFieldInCommandInformationUnit().sense)
        check(await command.wait(), InvalidFieldInCommandInformationUnit)
        assert not nexus.tasks


async def test_the_fabric_aborts_some() -> None:
    """A connection is gone, but not the nexus: its tasks end without a response, the others go on."""
    async with one_initiator() as disk:
        nexus = nexus_of(disk)
        commands = [disk.initiator.start(0, cdb.write(10, lba, 1), A, withheld=True) for lba in range(2)]
        assert commands[0].task is not None
        nexus.abort([commands[0].task])
        await aborted(commands[0])
        commands[1].deliver()
        check(await commands[1].wait(), Status.GOOD)


async def test_a_tag_that_is_taken_again_while_overlapped_commands_wait() -> None:
    """SAM-5 5.11: two wait for the end of the first; the second's end brings one more with the same tag, which goes its way."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        start = disk.initiator.start
        start(0, cdb.write(10, 0, 1), bytes(512), tag=7)
        await store.until_waiting(1)
        second, third = (start(0, cdb.read(10, 0, 1), read_length=512, tag=7) for _ in range(2))
        fourth: list[LoopbackCommand] = []
        finish = second.finish

        def finish_and_go_on(result: Result | None) -> None:
            finish(result)
            store.shut()
            fourth.append(start(0, cdb.read(10, 0, 1), read_length=512, tag=7))

        second.finish = finish_and_go_on  # type: ignore[method-assign]
        store.release()
        with anyio.fail_after(60):
            for command in (second, third):
                check(await command.wait(), OverlappedCommandsAttempted)
            await store.until_waiting(1)
            store.release()
            check(await fourth[0].wait(), Status.GOOD)
        assert not nexus_of(disk).tasks


async def test_overlapped_commands_abort_all_of_the_nexus() -> None:
    """SAM-5 5.11: a tag in use: every task of the I_T_L nexus is aborted, the offender told, other nexuses left alone."""
    async with two_initiators() as (one, two):
        mine = [one.initiator.start(0, cdb.write(10, lba, 1), A, withheld=True, tag=10 + lba) for lba in range(3)]
        other = two.initiator.start(0, cdb.write(10, 5, 1), A, withheld=True, tag=10)
        offender = one.initiator.start(0, cdb.read(10, 0, 1), read_length=512, tag=11)
        check(await offender.wait(), OverlappedCommandsAttempted)
        for command in mine:
            await aborted(command)
        other.deliver()
        check(await other.wait(), Status.GOOD)
        assert not nexus_of(one).tasks
        await one.test_unit_ready()


async def test_an_overlapped_command_waits_for_the_write_it_aborts() -> None:
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.shut()
        write = disk.initiator.start(0, cdb.write(10, 0, 1), A, tag=7)
        await store.until_waiting(1)
        offender = disk.initiator.start(0, cdb.read(10, 0, 1), read_length=512, tag=7)
        third = disk.initiator.start(0, cdb.read(10, 0, 1), read_length=512, tag=7)
        await settle()
        assert not offender.done
        store.release()
        await aborted(write)
        for command in (offender, third):
            with anyio.fail_after(60):
                check(await command.wait(), OverlappedCommandsAttempted)
        assert not nexus_of(disk).tasks


async def test_first_attention_of_a_nexus() -> None:
    """SAM-5 6.3.1, 6.3.4: an initiator port that is new hears of power on, one that was lost of the I_T nexus loss."""
    async with target(None) as port:
        client = ApplicationClient(port.connect())
        await client.test_unit_ready(expect=unit_attention.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
        client.initiator.reconnect()
        await client.test_unit_ready(expect=unit_attention.I_T_NEXUS_LOSS_OCCURRED)
        await client.test_unit_ready()
        other = ApplicationClient(port.connect(SECOND))
        await other.test_unit_ready(expect=unit_attention.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)


async def test_status_precedence() -> None:
    """SAM-5 5.3.3: reset unit attentions, RESERVATION CONFLICT, other unit attentions, then what is wrong with the command."""
    async with two_initiators() as (one, two):
        unit, itl = logical_unit(one), nexus_of(two).luns[encode(0)]
        await one.reserve()
        itl.establish_attention(unit_attention.MODE_PARAMETERS_CHANGED)
        itl.establish_attention(unit_attention.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
        unknown = b"\xff" + bytes(15)
        await two.execute(unknown, expect=unit_attention.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
        await two.execute(unknown, expect=Status.RESERVATION_CONFLICT)
        await one.release()
        await two.execute(unknown, expect=unit_attention.MODE_PARAMETERS_CHANGED)
        await two.execute(unknown, expect=InvalidOpcode)
        assert not unit.reserved


async def test_unit_attentions_wait_for_the_enabled_state() -> None:
    """SAM-5 5.14.2: what is established while a task is dormant is told when it would start."""
    async with one_initiator() as disk:
        first = disk.initiator.start(0, cdb.write(10, 0, 1), A, withheld=True)
        dormant = disk.initiator.start(0, cdb.write(10, 1, 1), A, attribute=TaskAttribute.ORDERED)
        nexus_of(disk).luns[encode(0)].establish_attention(unit_attention.MODE_PARAMETERS_CHANGED)
        first.deliver()
        check(await first.wait(), Status.GOOD)
        check(await dormant.wait(), unit_attention.MODE_PARAMETERS_CHANGED)


async def test_a_lost_nexus_is_not_called_back() -> None:
    """Task management whose answer is still due when the nexus is lost is not answered, and TASK ABORTED becomes nothing."""
    store = GatedMemory()
    async with two_initiators(store) as (one, two):
        store.shut()
        write = two.initiator.start(0, cdb.write(10, 0, 1), A)
        await store.until_waiting(1)
        nexus = nexus_of(one)
        answered: list[object] = []
        nexus.services.task_management_executed = answered.append  # type: ignore[method-assign]
        one.initiator._manage(Function.CLEAR_TASK_SET, bytes(8), 0)
        assert not answered
        one.initiator.disconnect()
        two.initiator.disconnect()
        store.release()
        await aborted(write)
        await settle()
        assert not answered
        nexus.lose()


async def test_reset_holds_at_once_and_answers_when_the_write_has_ended() -> None:
    """SAM-5 7.7: from the reset on, commands meet its unit attention, though its response still waits for a write."""
    store = GatedMemory()
    async with two_initiators(store) as (one, two):
        store.shut()
        write = two.initiator.start(0, cdb.write(10, 0, 1), A)
        await store.until_waiting(1)
        async with anyio.create_task_group() as group:
            group.start_soon(one.initiator.task_management, Function.LOGICAL_UNIT_RESET)
            await settle()
            await two.test_unit_ready(expect=unit_attention.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
            assert not write.done
            store.release()
        check(await write.wait(), Status.TASK_ABORTED)


async def test_two_portal_groups_reach_one_logical_unit() -> None:
    """SAM-5 4.6.5: each target port is another I_T nexus, with its own unit attentions and reservation."""
    async with make_lu() as unit:
        ports = [make_target(unit, name=f"naa.500140500000010{i}") for i in range(2)]
        clients = [ApplicationClient(port.connect()) for port in ports]
        for client in clients:
            await client.identify()
        await clients[0].reserve()
        await clients[1].test_unit_ready(expect=Status.RESERVATION_CONFLICT)
        clients[0].initiator.disconnect()
        await clients[1].test_unit_ready()


async def test_submit_after_loss_is_aborted() -> None:
    async with one_initiator() as disk:
        nexus = nexus_of(disk)
        disk.initiator.disconnect()
        command = LoopbackCommand()
        nexus.submit(Task(nexus, bytes(8), 1, bytes(16), context=command))
        await aborted(command)
        assert not nexus.tasks


async def test_a_callback_that_raises_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """A fabric's mistake in one nexus is logged; the unit goes on for everybody."""
    store = GatedMemory()
    async with two_initiators(store) as (one, two):
        errors: list[tuple[str, BaseException]] = []
        logical_unit(one).unhandled_error = lambda where, error: errors.append((where, error))

        def fail(_: Task) -> None:
            raise ValueError("broken fabric")

        services = nexus_of(one).services
        services.send_command_complete = fail  # type: ignore[method-assign]
        one.initiator.start(0, cdb.write(10, 0, 1), A)
        await settle()
        await two.write(10, 0, B)
        assert [str(error) for _, error in errors] == ["broken fabric"]
        assert "broken fabric" in caplog.text
        del services.send_command_complete  # type: ignore[attr-defined]
