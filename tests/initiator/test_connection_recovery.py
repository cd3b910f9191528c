"""Error recovery level 2 of the initiator: connections that break (RFC 7143 7.1.5, 7.2.2, 11.5, 11.14). The target is real."""

from __future__ import annotations

from typing import Any

import pytest
from support.initiator_pair import BLOCK, DIGESTS, SMALL, SOLICITED, Chance, Pair, Seen, exercise, paired, word
from support.initiator_stories import Once
from support.memory import GatedMemory
from tcm_iscsi.initiator import (
    ConnectionLost,
    ConnectionUp,
    Faults,
    FaultyWire,
    Logout,
    Nop,
    Recovery,
    ScsiTask,
    SessionFailed,
    TaskLost,
    TaskManagement,
    Text,
    read_16,
    write_16,
)
from tcm_iscsi.protocol.pdu import LogoutReason, Opcode, TaskManagementFunctionCode

pytestmark = pytest.mark.anyio

REASSIGN = TaskManagementFunctionCode.TASK_REASSIGN


@pytest.fixture
def seen() -> Seen:
    return Seen()


def reassignments(seen: Seen) -> list[bytes]:
    return [bhs for bhs in seen.of("out", Opcode.TASK_MANAGEMENT_REQUEST) if bhs[1] & 0x7F == REASSIGN]


CUTS = [
    (direction, opcode, nth)
    for direction, opcode in (
        ("in", Opcode.DATA_IN),
        ("in", Opcode.SCSI_RESPONSE),
        ("in", Opcode.R2T),
        ("out", Opcode.SCSI_COMMAND),
        ("out", Opcode.DATA_OUT),
    )
    for nth in (1, 6, 15)
]


@pytest.mark.parametrize("by_logout", [False, True])
@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("where", CUTS, ids=lambda w: f"{w[0]} {w[1].name} {w[2]}")
async def test_a_cut_connection_comes_back_with_its_tasks(where: tuple[Any, ...], connections: int, by_logout: bool) -> None:
    """Every command ends well, whichever PDU was the last; by reinstatement, or by a Logout for recovery on another one."""
    direction, opcode, nth = where
    rule = Once("cut", direction, opcode, nth=nth)
    keys = {**DIGESTS, **SMALL, **(SOLICITED if opcode in (Opcode.R2T, Opcode.DATA_OUT) else {})}
    recovery = Recovery(progress_timeout=1.0, connection_timeout=10.0, by_logout=by_logout)
    async with paired(level=2, connections=connections, faults=Faults(choose=rule), recovery=recovery, **keys) as pair:
        await exercise(pair, count=16, blocks=24)
        assert rule.done == 1
        assert pair.session.ended is None
        assert any(isinstance(event, ConnectionLost) for event in pair.events)
        await pair.advance(3)
        assert len(pair.session.connections) == (connections - 1 if by_logout and connections > 1 else connections)
        assert not pair.session.recovery.lost
        assert not pair.session.requests


async def held_up(pair: Pair, memory: GatedMemory, count: int = 4) -> list[ScsiTask]:
    """Reads that the target has and does not answer."""
    memory.shut()
    tasks = [pair.start(ScsiTask(read_16(8 * n, 8), read_length=8 * BLOCK)) for n in range(count)]
    await pair.settle()
    return tasks


async def test_tasks_that_the_target_works_on_are_reassigned(seen: Seen) -> None:
    """11.5: TASK REASSIGN, immediate, for each; LUN and RefCmdSN reserved; nothing is sent a second time as a command."""
    memory = GatedMemory(1 << 20)
    async with paired(level=2, observer=seen, backstore=memory) as pair:
        data = Chance(3).bytes(32 * BLOCK)
        await pair.write(0, data)
        tasks = await held_up(pair, memory)
        seen.pdus.clear()
        pair.lines[0].end()
        await pair.until(lambda: bool(pair.lines))
        memory.release()
        await pair.until(lambda: all(task.finished for task in tasks))
        assert [bytes(task.buffer) for task in tasks] == [data[n * 8 * BLOCK :][: 8 * BLOCK] for n in range(4)]
        requests = reassignments(seen)
        assert {word(bhs, 20) for bhs in requests} == {task.itt for task in tasks}
        assert all((bhs[0], bhs[8:16]) == (0x42, bytes(8)) for bhs in requests)
        assert not seen.of("out", Opcode.SCSI_COMMAND)
        assert all(task.result.retries == 1 for task in tasks)


async def test_a_reassignment_whose_response_is_lost(seen: Seen) -> None:
    """11.6.1: asked again, the target says that the task is still allegiant: to the new connection, as it should be."""
    memory = GatedMemory(1 << 20)
    lost: list[int] = []

    def rule(direction: str, bhs: bytes, _: int) -> str:
        first = direction == "in" and bhs[0] & 0x3F == Opcode.TASK_MANAGEMENT_RESPONSE and len(lost) < 4
        if first:
            lost.append(word(bhs, 16))
        return "drop" if first else "none"

    recovery = Recovery(progress_timeout=1.0, connection_timeout=10.0)
    async with paired(level=2, observer=seen, backstore=memory, faults=Faults(choose=rule), recovery=recovery) as pair:
        tasks = await held_up(pair, memory)
        pair.lines[0].end()
        await pair.until(lambda: bool(pair.lines))
        await pair.advance(20)
        assert len(lost) == 4
        assert not any(task.finished for task in tasks)
        memory.release()
        await pair.until(lambda: all(task.finished for task in tasks))
        assert all(task.error is None and task.result.good for task in tasks)


async def test_time2wait_is_kept(seen: Seen) -> None:
    """13.15: not sooner than DefaultTime2Wait, and not later than Time2Retain after it."""
    async with paired(level=2, observer=seen) as pair:
        pair.reconnect = False
        lost_at = pair.now
        pair.lines[0].end("pulled")
        await pair.settle()
        event = pair.events[-1]
        assert isinstance(event, ConnectionLost)
        assert (event.reason, event.wait_until - lost_at, event.deadline - lost_at) == ("pulled", 2, 22)
        task = pair.start(ScsiTask(bytes(6)))
        await pair.advance(21.5)
        assert not task.finished
        await pair.advance(1)
        assert isinstance(task.error, SessionFailed)
        assert "did not come back" in str(task.error)


async def test_data_goes_on_from_where_it_was(seen: Seen) -> None:
    """11.5.6: ExpDataSN; what came before is not sent again."""
    rule = Once("cut", "in", Opcode.DATA_IN, nth=6)
    async with paired(level=2, observer=seen, **SMALL) as pair:
        data = Chance(3).bytes(32 * BLOCK)
        await pair.write(0, data)
        line = pair.lines[0]
        assert line.connection is not None
        line.faults = FaultyWire(Faults(choose=rule), pair.chance, header_digest=False, data_digest=False)
        seen.pdus.clear()
        assert await pair.read(0, 32) == data
        (request,) = reassignments(seen)
        assert word(request, 36) == 5
        numbers = [word(bhs, 36) for bhs in seen.of("in", Opcode.DATA_IN)]
        assert numbers == list(range(16))


async def test_another_segment_length_starts_from_what_was_acknowledged(seen: Seen) -> None:
    """7.2.2, 11.5.6: DataSN means other bytes on a connection with another MaxRecvDataSegmentLength."""
    rule = Once("cut", "in", Opcode.DATA_IN, nth=3)
    async with paired(level=2, observer=seen, MaxRecvDataSegmentLength="1024", MaxBurstLength="65536") as pair:
        data = Chance(3).bytes(32 * BLOCK)
        await pair.write(0, data)
        line = pair.lines[0]
        line.faults = FaultyWire(Faults(choose=rule), pair.chance, header_digest=False, data_digest=False)
        pair.options.keys["MaxRecvDataSegmentLength"] = "4096"  # type: ignore[index]  # a dict it is
        seen.pdus.clear()
        assert await pair.read(0, 32) == data
        (request,) = reassignments(seen)
        assert word(request, 36) == 0
        assert word(seen.of("in", Opcode.DATA_IN)[-1], 4) & 0xFFFFFF == 4096


async def test_commands_that_never_arrived_are_retried(seen: Seen) -> None:
    """7.2.1: the same CmdSN and tag on the connection that replaces the lost one; the gap in CmdSN is filled."""
    async with paired(level=2, connections=2, observer=seen) as pair:
        line = pair.lines[0]
        line.faults = FaultyWire(Faults(drop=1.0), pair.chance, header_digest=False, data_digest=False)
        seen.pdus.clear()
        tasks = [pair.start(ScsiTask(write_16(n, 1), data_out=bytes([n]) * BLOCK)) for n in range(6)]
        await pair.settle()
        assert not any(task.finished for task in tasks if task.connection is line.connection)
        line.end()
        await pair.until(lambda: all(task.finished for task in tasks))
        assert all(task.result.good for task in tasks)
        assert await pair.read(0, 6) == b"".join(bytes([n]) * BLOCK for n in range(6))
        assert not reassignments(seen)
        sent: dict[int, list[int]] = {}
        for bhs in seen.of("out", Opcode.SCSI_COMMAND):
            sent.setdefault(word(bhs, 16), []).append(word(bhs, 24))
        assert sorted(len(numbers) for task in tasks for numbers in [sent[task.itt]]) == [1, 1, 1, 2, 2, 2]
        assert all(len(set(numbers)) == 1 for numbers in sent.values())


async def test_an_immediate_command_that_never_arrived_is_sent_again() -> None:
    """Nothing but TASK REASSIGN tells whether it has: the target does not know it."""
    async with paired(level=2) as pair:
        line = pair.lines[0]
        line.faults = FaultyWire(Faults(drop=1.0), pair.chance, header_digest=False, data_digest=False)
        task = pair.start(ScsiTask(bytes(6), immediate=True))
        await pair.settle()
        line.end()
        await pair.until(lambda: task.finished)
        assert task.result.good


async def test_a_task_that_the_target_has_forgotten_is_reported() -> None:
    """11.6.1: Task does not exist. Whether it was done nobody knows, and the caller is told so."""
    memory = GatedMemory(1 << 20)
    async with paired(level=2, connections=2, backstore=memory) as pair:
        tasks = await held_up(pair, memory, 4)
        pair.reconnect = False
        pair.lines[0].end()
        await pair.settle()
        lost = list(pair.session.recovery.lost[0].requests)
        target = pair.lines[1].target.phase
        assert target is not None
        for task in lost:  # as if it had been restarted in between
            target.session.commands.pop(task.itt).task.context = None
        pair.reconnect = True
        await pair.until(lambda: all(request.finished for request in lost))
        assert all(isinstance(request.error, TaskLost) for request in lost)
        memory.release()
        await pair.until(lambda: all(task.finished for task in tasks))
        assert sum(task.error is None for task in tasks) == 2


@pytest.mark.parametrize("meant", [True, False])
async def test_a_rejection_is_believed_when_nothing_follows(meant: bool) -> None:
    """LIO rejects what it then does (11.6.1: 255 for 0); other targets mean it."""
    memory = GatedMemory(1 << 20)
    async with paired(level=2, backstore=memory) as pair:
        tasks = await held_up(pair, memory, 2)
        managed = pair.session.managed

        def rejected(request: TaskManagement) -> None:
            if request.function == REASSIGN:
                request.response = 255
            managed(request)

        pair.session.managed = rejected  # type: ignore[method-assign]  # as if the target had said so
        pair.lines[0].end()
        await pair.until(lambda: bool(pair.lines) and 0 in pair.session.connections)
        if not meant:
            memory.release()
        await pair.until(lambda: all(task.finished for task in tasks))
        if meant:
            assert all(isinstance(task.error, TaskLost) for task in tasks)
            memory.release()
        else:
            assert all(task.result.good for task in tasks)


async def test_pings_text_and_task_management_survive() -> None:
    """11.5.1: such tasks are not reassigned; they are asked again."""
    async with paired(level=2) as pair:
        line = pair.lines[0]
        line.faults = FaultyWire(Faults(drop=1.0), pair.chance, header_digest=False, data_digest=False)
        requests = [
            Nop(b"one"),
            Nop(b"two", immediate=False),
            TaskManagement(5, 0),
            Text([("X-org.example", "1")]),
            Text([("X-org.example", "2")], immediate=True),
        ]
        for request in requests:
            pair.session.submit(request)
        await pair.settle()
        line.end()
        await pair.until(lambda: all(request.finished for request in requests))
        assert [request.error for request in requests] == [None] * 5
        assert requests[2].response == 0  # type: ignore[union-attr]  # TaskManagement


async def test_the_probe_of_a_lost_connection_goes_with_it() -> None:
    """It asked about that connection: nobody waits for an answer on another one."""
    memory = GatedMemory(1 << 20)
    async with paired(level=2, backstore=memory) as pair:
        (task,) = await held_up(pair, memory, 1)
        line = pair.lines[0]
        line.faults = FaultyWire(Faults(drop=1.0), pair.chance, header_digest=False, data_digest=False)
        await pair.advance(1.5)
        assert any(isinstance(request, Nop) for request in pair.session.requests.values())
        line.end()
        assert list(pair.session.requests.values()) == [task]
        memory.release()
        await pair.until(lambda: task.finished)
        assert task.result.good


async def test_a_connection_given_up_over_a_lost_ping_leaves_no_other_ping() -> None:
    """The ping that is lost makes it ask for the command once more, which was enough: nothing is sent where nobody is."""
    recovery = Recovery(progress_timeout=1.0, connection_timeout=60.0, attempts=1)
    async with paired(level=2, recovery=recovery) as pair:
        line = pair.lines[0]
        line.faults = FaultyWire(Faults(drop=1.0), pair.chance, header_digest=False, data_digest=False)
        pair.reconnect = False
        task = pair.start(ScsiTask(bytes(6)))
        await pair.until(lambda: bool(pair.session.recovery.lost))
        assert list(pair.session.requests.values()) == [task]
        pair.reconnect = True
        await pair.until(lambda: task.finished)
        assert task.result.good


async def test_recovery_on_demand_by_logout(seen: Seen) -> None:
    """11.14: a connection that is alive is removed for recovery; its tasks go on on another one after Time2Wait."""
    memory = GatedMemory(1 << 20)
    async with paired(level=2, connections=2, backstore=memory, observer=seen) as pair:
        tasks = await held_up(pair, memory, 4)
        done: list[Logout] = []
        pair.session.close_connection(
            0, LogoutReason.REMOVE_CONNECTION_FOR_RECOVERY, via=pair.session.connections[1], done=done.append
        )
        await pair.settle()
        assert [(request.response, request.time2wait, request.time2retain) for request in done] == [(0, 2, 20)]
        assert not reassignments(seen)
        pair.reconnect = False
        await pair.advance(2.5)
        assert len(reassignments(seen)) == 2
        memory.release()
        await pair.until(lambda: all(task.finished for task in tasks))
        assert all(task.result.good for task in tasks)


async def test_the_connection_that_logs_another_one_out_breaks_too() -> None:
    """The Logout for recovery is sent again, on what is left."""
    memory = GatedMemory(1 << 20)
    recovery = Recovery(progress_timeout=1.0, connection_timeout=10.0, by_logout=True)
    async with paired(level=2, connections=3, backstore=memory, recovery=recovery) as pair:
        tasks = await held_up(pair, memory, 6)
        pair.lines[0].end()
        for cid in (1, 2):
            pair.lines[cid].faults = FaultyWire(Faults(drop=1.0), pair.chance, header_digest=False, data_digest=False)
        await pair.advance(2.5)
        sender = next(r.connection for r in pair.session.requests.values() if isinstance(r, Logout))
        assert sender is not None
        pair.lines[sender.cid].end()
        pair.lines[3 - sender.cid].faults = None
        memory.release()
        await pair.until(lambda: all(task.finished for task in tasks))
        assert all(task.error is None and task.result.good for task in tasks)


async def test_a_connection_that_breaks_again_and_again() -> None:
    """What was reassigned is reassigned once more."""
    memory = GatedMemory(1 << 20)
    async with paired(level=2, backstore=memory) as pair:
        tasks = await held_up(pair, memory, 4)
        for _ in range(5):
            pair.lines[0].end()
            await pair.until(lambda: 0 in pair.session.connections)
        memory.release()
        await pair.until(lambda: all(task.finished for task in tasks))
        assert all(task.result.good for task in tasks)
        assert sum(isinstance(event, ConnectionUp) for event in pair.events) == 6
        assert {task.result.retries for task in tasks} == {5}


async def test_a_login_with_a_cid_in_use_replaces_the_connection() -> None:
    """6.3.4: connection reinstatement, without anybody having seen the old one end."""
    memory = GatedMemory(1 << 20)
    async with paired(level=2, connections=2, backstore=memory) as pair:
        tasks = await held_up(pair, memory, 4)
        old = pair.lines[1]
        pair.add(1)
        old.cut = True
        await pair.settle()
        memory.release()
        await pair.until(lambda: all(task.finished for task in tasks))
        assert all(task.result.good for task in tasks)
        assert sorted(pair.session.connections) == [0, 1]


@pytest.mark.parametrize("seed", range(8))
async def test_storm(seed: int) -> None:
    """Every PDU dropped, damaged or late with one chance in fifty, and many connections cut; every byte is compared."""
    faults = Faults.all(0.02, cut=0.005, delay_seconds=0.3)
    async with paired(
        level=2, connections=1 + seed % 4, faults=faults, seed=seed, parameters={"DefaultTime2Wait": 0}, **DIGESTS, **SMALL
    ) as pair:
        for _ in range(2):
            await exercise(pair, count=40, blocks=40)
        assert pair.session.ended is None
        await pair.advance(4)
        pair.faults = None
        for connection in pair.session.connections.values():
            assert not connection.statuses.withheld
        assert not [task for task in pair.session.scsi_tasks() if not task.finished]
