"""Error recovery level 1 of the initiator: lost and damaged PDUs, one by one (RFC 7143 7.1, 7.8, 11.16). The target is real."""

from __future__ import annotations

from typing import Any

import pytest
from support.initiator_pair import BLOCK, DIGESTS, SMALL, SOLICITED, Chance, Pair, Seen, exercise, paired, word
from support.initiator_stories import Once
from support.memory import GatedMemory
from tcm_iscsi.initiator import (
    Faults,
    FaultyWire,
    Nop,
    Recovery,
    RejectReceived,
    RequestFailed,
    ScsiTask,
    SessionFailed,
    TaskManagement,
    Text,
    read_16,
    write_16,
)
from tcm_iscsi.initiator.connection import MAX_UNACKNOWLEDGED
from tcm_iscsi.protocol.pdu import Opcode, SnackType

pytestmark = pytest.mark.anyio

DATA, STATUS, DATA_ACK, R_DATA = SnackType.DATA_OR_R2T, SnackType.STATUS, SnackType.DATA_ACK, SnackType.R_DATA


def snacks(seen: Seen, kind: SnackType) -> list[tuple[int, int]]:
    """BegRun and RunLength of those of a type."""
    return [(word(bhs, 40), word(bhs, 44)) for bhs in seen.of("out", Opcode.SNACK_REQUEST) if bhs[1] & 0xF == kind]


ACCIDENTS = [
    (fault, direction, opcode, nth, times)
    for direction, opcode, faults in (
        ("in", Opcode.DATA_IN, ("drop", "corrupt_data", "corrupt_header", "duplicate")),
        ("in", Opcode.SCSI_RESPONSE, ("drop", "corrupt_header", "duplicate")),
        ("in", Opcode.R2T, ("drop", "corrupt_header", "duplicate")),
        ("out", Opcode.SCSI_COMMAND, ("drop", "corrupt_data", "duplicate")),
        ("out", Opcode.DATA_OUT, ("drop", "corrupt_data", "duplicate")),
    )
    for fault in faults
    for nth, times in ((1, 1), (7, 3))
    if not (fault == "corrupt_header" and times > 1)
]


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("accident", ACCIDENTS, ids=lambda a: f"{a[0]} {a[1]} {a[2].name} {a[3]}")
async def test_an_accident_is_repaired_inside_the_connection(accident: tuple[Any, ...], connections: int) -> None:
    """Every byte is there in the end, the session is the same, and no connection was lost."""
    fault, direction, opcode, nth, times = accident
    rule = Once(fault, direction, opcode, nth=nth, times=times)
    keys = {**DIGESTS, **SMALL, **(SOLICITED if opcode in (Opcode.R2T, Opcode.DATA_OUT) else {})}
    async with paired(level=1, connections=connections, faults=Faults(choose=rule), **keys) as pair:
        await exercise(pair, count=16, blocks=24)
        assert rule.done == times
        assert pair.session.ended is None
        assert len(pair.session.connections) == connections
        assert not pair.session.requests
        for connection in pair.session.connections.values():
            assert not connection.statuses.ahead
            assert not connection.statuses.withheld


async def stored(pair: Pair, blocks: int) -> bytes:
    data = Chance(5).bytes(blocks * BLOCK)
    await pair.write(0, data)
    return data


@pytest.fixture
def seen() -> Seen:
    return Seen()


async def test_only_what_is_missing_is_asked_for(seen: Seen) -> None:
    """11.16.6, 11.16.7: one run for each gap, as soon as it shows."""
    lost = {3, 4, 9}

    def choose(direction: str, bhs: bytes, _: int) -> str | None:
        number = word(bhs, 36)
        if direction == "in" and bhs[0] == Opcode.DATA_IN and number in lost:
            lost.discard(number)
            return "drop"
        return None

    async with paired(level=1, observer=seen, MaxRecvDataSegmentLength="1024", MaxBurstLength="16384") as pair:
        data = await stored(pair, 24)
        add_faults(pair, Faults(choose=choose))
        assert await pair.read(0, 24) == data
        assert snacks(seen, DATA) == [(3, 2), (9, 1)]
        assert not snacks(seen, STATUS)


def add_faults(pair: Pair, faults: Faults) -> None:
    for line in pair.lines.values():
        connection = line.connection
        assert connection is not None
        line.faults = FaultyWire(
            faults, pair.chance, header_digest=connection.header_digest, data_digest=connection.data_digest
        )


async def test_the_end_of_the_data_is_asked_for_to_the_end(seen: Seen) -> None:
    """11.16.7: RunLength 0 means everything from BegRun on; the status has shown that PDUs before it are missing."""
    rule = Once("drop", "in", Opcode.DATA_IN, flags=0x80)
    async with paired(level=1, observer=seen, **SMALL) as pair:
        data = await stored(pair, 8)
        add_faults(pair, Faults(choose=rule))
        assert await pair.read(0, 8) == data
        assert rule.done == 1
        assert snacks(seen, DATA) == [(3, 0)]


async def test_a_status_is_not_acknowledged_before_its_data_is_there(seen: Seen) -> None:
    """11.16.1: a SNACK for a command must precede the acknowledgement of its status."""
    rule = Once("drop", "in", Opcode.DATA_IN)
    rule.done = 1
    async with paired(level=1, observer=seen, **SMALL) as pair:
        data = await stored(pair, 8)
        connection = pair.session.connections[0]
        acknowledged = connection.statuses.expected
        add_faults(pair, Faults(choose=rule))
        rule.done = rule.seen = 0
        assert await pair.read(0, 8) == data
        for bhs in seen.of("out", Opcode.SNACK_REQUEST):
            if bhs[1] & 0xF == DATA:
                assert word(bhs, 28) == acknowledged
        assert connection.statuses.expected == acknowledged + 1


async def test_data_ack_waits_for_the_holes(seen: Seen) -> None:
    """11.16.2: the A bit is answered once everything before it has come."""
    rule = Once("drop", "in", Opcode.DATA_IN, nth=2)
    async with paired(level=1, observer=seen, **SMALL) as pair:
        data = await stored(pair, 32)
        seen.pdus.clear()
        add_faults(pair, Faults(choose=rule))
        assert await pair.read(0, 32) == data
        acknowledged = [beg_run for beg_run, _ in snacks(seen, DATA_ACK)]
        assert acknowledged
        assert acknowledged == sorted(acknowledged)
        held = 0
        for _, way, bhs, _ in seen.pdus:
            if way == "in" and bhs[0] == Opcode.DATA_IN:
                held += 1
            elif way == "out" and bhs[0] == Opcode.SNACK_REQUEST and bhs[1] & 0xF == DATA_ACK:
                assert word(bhs, 40) <= held


async def test_a_lost_request_for_retransmission_is_made_again(seen: Seen) -> None:
    """The SNACK itself is lost, three times: time brings it back."""
    drop_data = Once("drop", "in", Opcode.DATA_IN, nth=2)
    drop_snack = Once("drop", "out", Opcode.SNACK_REQUEST, times=3)

    def choose(*pdu: Any) -> str | None:
        return drop_data(*pdu) or drop_snack(*pdu)

    async with paired(level=1, observer=seen, MaxRecvDataSegmentLength="1024") as pair:
        data = await stored(pair, 8)
        add_faults(pair, Faults(choose=choose))
        began = pair.now
        assert await pair.read(0, 8) == data
        assert drop_snack.done == 3
        assert 3 <= pair.now - began <= 8


async def test_no_new_commands_behind_a_missing_status(seen: Seen) -> None:
    """4.2.2.2: the target keeps all that is not acknowledged; while ExpStatSN stands still, nothing is added without end."""
    drop_status = Once("drop", "in", Opcode.SCSI_RESPONSE)
    drop_snack = Once("drop", "out", Opcode.SNACK_REQUEST)

    def choose(*pdu: Any) -> str | None:
        return drop_status(*pdu) or drop_snack(*pdu)

    async with paired(level=1, observer=seen) as pair:
        connection = pair.session.connections[0]
        add_faults(pair, Faults(choose=choose))
        seen.pdus.clear()
        window = (pair.session.max_cmd_sn - pair.session.cmd_sn & 0xFFFFFFFF) + 1
        tasks = [pair.start(ScsiTask(write_16(0, 1), data_out=b"7" * BLOCK)) for _ in range(3 * window + 100)]
        await pair.settle()
        assert drop_status.done == drop_snack.done == 1
        assert MAX_UNACKNOWLEDGED <= len(connection.statuses.ahead) < MAX_UNACKNOWLEDGED + window
        await pair.advance(2)
        assert all(task.finished and task.result.good for task in tasks)
        assert len(seen.of("out", Opcode.SCSI_COMMAND)) == len(tasks)


async def test_a_lost_command_is_sent_again_as_it_was(seen: Seen) -> None:
    """7.2.1: with its CmdSN and Initiator Task Tag, and only after the target has said that it has not come (ExpCmdSN)."""
    rule = Once("drop", "out", Opcode.SCSI_COMMAND)
    async with paired(level=1, observer=seen) as pair:
        add_faults(pair, Faults(choose=rule))
        seen.pdus.clear()
        task = await pair.run(ScsiTask(write_16(0, 1), data_out=b"7" * BLOCK))
        assert task.result.good
        assert task.result.retries == 1
        first, second = seen.of("out", Opcode.SCSI_COMMAND)
        assert first[:28] == second[:28]
        assert first[32:] == second[32:]
        assert len(seen.of("out", Opcode.NOP_OUT)) >= 1


async def test_a_slow_command_is_left_alone(seen: Seen) -> None:
    """No answer for long, nothing lost: pings, and not a single SNACK or second command."""
    memory = GatedMemory(1 << 20)
    async with paired(level=1, observer=seen, backstore=memory) as pair:
        memory.shut()
        task = pair.start(ScsiTask(read_16(0, 1), read_length=BLOCK))
        await pair.advance(8)
        assert not task.finished
        assert len(seen.of("out", Opcode.NOP_OUT)) >= 4
        assert not seen.of("out", Opcode.SNACK_REQUEST)
        memory.release()
        await pair.until(lambda: task.finished)
        assert task.result.retries == 0


async def test_r_data_snack_after_a_smaller_limit(seen: Seen) -> None:
    """11.16.3: what was lost comes in PDUs of the new size, and the response with our SNACK Tag ends the command."""
    rule = Once("drop", "in", Opcode.DATA_IN, nth=2)
    async with paired(level=1, observer=seen, MaxRecvDataSegmentLength="4096", MaxBurstLength="65536") as pair:
        data = await stored(pair, 64)
        add_faults(pair, Faults(choose=rule))
        pair.session.automatic = False
        task = pair.start(ScsiTask(read_16(0, 64), read_length=64 * BLOCK))
        await pair.settle()
        assert not task.finished
        text = Text([("MaxRecvDataSegmentLength", "512")])
        pair.session.submit(text)
        await pair.until(lambda: text.finished)
        pair.session.connections[0].max_recv = 512
        pair.session.automatic = True
        seen.pdus.clear()
        await pair.until(lambda: task.finished)
        assert task.error is None, task.error
        assert bytes(task.buffer) == data
        assert snacks(seen, R_DATA)
        assert not snacks(seen, DATA)
        response = seen.of("in", Opcode.SCSI_RESPONSE)[-1]
        assert word(response, 20) == task.snack_tag != 0
        assert all(word(bhs, 4) & 0xFFFFFF <= 512 for bhs in seen.of("in", Opcode.DATA_IN))
        assert not pair.session.connections[0].statuses.ahead


async def test_nothing_is_recovered_unless_it_is_allowed(seen: Seen) -> None:
    """Recovery(automatic=False): on demand only."""
    rule = Once("drop", "in", Opcode.DATA_IN, nth=2)
    async with paired(level=1, observer=seen, MaxRecvDataSegmentLength="1024", recovery=Recovery(automatic=False)) as pair:
        data = await stored(pair, 8)
        add_faults(pair, Faults(choose=rule))
        task = pair.start(ScsiTask(read_16(0, 8), read_length=8 * BLOCK))
        await pair.advance(10)
        assert not task.finished
        assert not seen.of("out", Opcode.SNACK_REQUEST)
        assert task.numbers.missing(task.end) == [(1, 1)]
        connection = task.connection
        assert connection is not None
        connection.snack(DATA, task.itt, 1, 1)
        await pair.until(lambda: task.finished)
        assert bytes(task.buffer) == data


async def test_a_refused_snack_ends_the_task_only() -> None:
    """11.16.1: what was acknowledged is not sent again. The task fails, the session goes on."""
    async with paired(level=1, MaxRecvDataSegmentLength="1024") as pair:
        await stored(pair, 8)
        add_faults(pair, Faults(choose=Once("drop", "in", Opcode.DATA_IN, nth=2, times=1000)))
        task = pair.start(ScsiTask(read_16(0, 8), read_length=8 * BLOCK))
        await pair.settle()
        assert not task.finished
        # the target is told that it need not keep anything: the next SNACK asks for what is gone
        phase = pair.lines[0].target.phase
        assert phase is not None
        connection = pair.session.connections[0]
        held = connection.statuses.expected
        connection.statuses.expected = phase.stat_sn
        pair.session.submit(Nop())
        await pair.settle()
        connection.statuses.expected = held
        await pair.until(lambda: task.finished)
        assert isinstance(task.error, RequestFailed)
        assert any(isinstance(event, RejectReceived) for event in pair.events)
        pair.lines[0].faults = None
        ready = await pair.run(ScsiTask(bytes(6)))
        assert ready.result.good


async def test_level_0_does_not_go_on_after_a_gap() -> None:
    """7.1.5: what level 0 can do about a lost PDU is to end the session."""
    for direction, opcode in (("in", Opcode.DATA_IN), ("in", Opcode.SCSI_RESPONSE)):
        rule = Once("drop", direction, opcode, nth=2)
        async with paired(level=0, faults=Faults(choose=rule), MaxRecvDataSegmentLength="1024") as pair:
            tasks = [pair.start(ScsiTask(write_16(n, 1), data_out=bytes(BLOCK))) for n in range(3)]
            tasks.append(pair.start(ScsiTask(read_16(0, 16), read_length=16 * BLOCK)))
            await pair.until(lambda tasks=tasks: all(task.finished for task in tasks))
            assert isinstance(tasks[-1].error, SessionFailed)
            assert "missing" in str(tasks[-1].error)
    for fault in ("corrupt_data", "corrupt_header"):
        rule = Once(fault, "in", Opcode.DATA_IN)
        async with paired(level=0, faults=Faults(choose=rule), **DIGESTS) as pair:
            task = await pair.run(ScsiTask(read_16(0, 1), read_length=BLOCK))
            assert isinstance(task.error, SessionFailed)
            assert "digest error" in str(task.error)


async def test_a_silent_target_is_left() -> None:
    """Every ping is lost: after connection_timeout the connection is gone."""
    recovery = Recovery(progress_timeout=1.0, connection_timeout=6.0)
    for level in (0, 1):
        async with paired(level=level, recovery=recovery) as pair:
            add_faults(pair, Faults(drop=1.0))
            began = pair.now
            task = await pair.run(ScsiTask(bytes(6)))
            assert isinstance(task.error, SessionFailed)
            assert "nothing has come" in str(task.error)
            assert 6 <= pair.now - began < 9


async def test_a_task_that_takes_too_long_is_aborted() -> None:
    """task_timeout: ABORT TASK, and the caller is told."""
    memory = GatedMemory(1 << 20)
    recovery = Recovery(progress_timeout=1.0, connection_timeout=6.0, task_timeout=5.0)
    async with paired(level=1, recovery=recovery, backstore=memory) as pair:
        memory.shut()
        task = await pair.run(ScsiTask(read_16(0, 1), read_length=BLOCK))
        assert isinstance(task.error, RequestFailed)
        memory.release()
        assert (await pair.run(ScsiTask(bytes(6)))).result.good


@pytest.mark.parametrize(("direction", "opcode"), [("out", Opcode.NOP_OUT), ("in", Opcode.NOP_IN)])
@pytest.mark.parametrize("immediate", [True, False])
async def test_a_lost_ping_is_sent_again(direction: str, opcode: Opcode, immediate: bool) -> None:
    """Ours, and the answer to it: whoever waits for it is told in the end."""
    rule = Once("drop", direction, opcode)
    async with paired(level=1, faults=Faults(choose=rule)) as pair:
        ping = Nop(b"are you there", immediate=immediate)
        pair.session.submit(ping)
        await pair.until(lambda: ping.finished)
        assert rule.done == 1
        assert ping.error is None
        assert ping.answer == b"are you there"
        assert pair.session.ended is None


async def test_lost_task_management_is_asked_for_again() -> None:
    """An immediate request has no number that shows that it is lost: it is made again under another tag."""
    rule = Once("drop", "out", Opcode.TASK_MANAGEMENT_REQUEST)
    async with paired(level=1, faults=Faults(choose=rule)) as pair:
        reset = TaskManagement(5, 0)
        pair.session.submit(reset)
        await pair.until(lambda: reset.finished)
        assert (rule.done, reset.response, reset.retries) == (1, 0, 1)


@pytest.mark.parametrize("seed", range(6))
async def test_many_accidents_at_once(seed: int) -> None:
    """Drops, digest errors, duplicates and delays, all at the same time."""
    faults = Faults(drop=0.02, corrupt_data=0.02, duplicate=0.02, delay=0.02, delay_seconds=0.3)
    async with paired(level=1, connections=1 + seed % 3, faults=faults, seed=seed, **DIGESTS, **SMALL) as pair:
        await exercise(pair, count=40, blocks=40)
        assert pair.session.ended is None
