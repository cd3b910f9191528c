"""The initiator's session against the real target, without a socket and without a clock (RFC 7143 4.2, 11)."""

from __future__ import annotations

import itertools

import pytest
from support.initiator_pair import BLOCK, PARAMETERS, Chance, Pair, Seen, exercise, paired, word
from support.iscsi_login import TARGET
from support.iscsi_site import Site
from support.memory import GatedMemory
from support.scsi import make_lu
from tcm_iscsi.initiator import (
    AsyncMessage,
    ConnectionLost,
    ConnectionUp,
    Logout,
    Nop,
    Options,
    Rejected,
    RejectReceived,
    ScsiTask,
    SessionEnded,
    SessionFailed,
    TaskAborted,
    TaskManagement,
    Text,
    read_16,
    write_16,
)
from tcm_iscsi.protocol.pdu import NOP_OUT, OPCODE_MASK, LogoutReason, Opcode

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("connections", [1, 3])
async def test_writes_are_read_back_over_all_connections(level: int, connections: int) -> None:
    async with paired(level=level, connections=connections) as pair:
        await exercise(pair)
        assert [type(event) for event in pair.events] == [ConnectionUp] * connections
        assert pair.session.snacks == 0
        assert not pair.session.requests


KEYS: tuple[dict[str, str], ...] = (
    {"InitialR2T": "Yes", "ImmediateData": "No", "MaxBurstLength": "512"},
    {"InitialR2T": "Yes", "ImmediateData": "Yes", "MaxBurstLength": "4096", "FirstBurstLength": "512"},
    {"InitialR2T": "No", "ImmediateData": "No", "FirstBurstLength": "2048", "MaxBurstLength": "2048"},
    {"InitialR2T": "No", "ImmediateData": "Yes", "FirstBurstLength": "16384", "MaxOutstandingR2T": "1"},
    {"MaxRecvDataSegmentLength": "512", "HeaderDigest": "CRC32C"},
    {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C"},
    {"DataDigest": "CRC32C", "DataPDUInOrder": "No", "DataSequenceInOrder": "No"},
)


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: ",".join(f"{k}={v}" for k, v in keys.items()))
async def test_data_goes_as_it_was_negotiated(keys: dict[str, str]) -> None:
    """13.10, 13.11, 13.13, 13.14, 13.17: what may go with the command, what follows unasked, what waits for an R2T."""
    seen = Seen()
    async with paired(level=1, observer=seen, parameters={"MaxRecvDataSegmentLength": 4096}, **keys) as pair:
        await exercise(pair, count=12)
        p = pair.session.parameters
        for _, direction, bhs, data in seen.pdus:
            opcode = bhs[0] & OPCODE_MASK
            if direction == "out":
                assert len(data) <= 4096
            if (direction, opcode) == ("out", Opcode.SCSI_COMMAND) and bhs[1] & 0x20:
                whole = word(bhs, 20)
                assert len(data) == (min(whole, p.first_burst_length, 4096) if p.immediate_data else 0)
                more = not p.initial_r2t and min(whole, p.first_burst_length) > len(data)
                assert bool(bhs[1] & 0x80) != more  # F: no unsolicited Data-Out follows (11.3.1)
        asked: dict[int, int] = {bhs_ttt: word(bhs, 44) for bhs in seen.of("in", Opcode.R2T) for bhs_ttt in [word(bhs, 20)]}
        sent: dict[int, int] = {}
        for _, direction, bhs, data in seen.pdus:
            if direction == "out" and bhs[0] & OPCODE_MASK == Opcode.DATA_OUT and word(bhs, 20) != 0xFFFFFFFF:
                sent[word(bhs, 20)] = sent.get(word(bhs, 20), 0) + len(data)
        assert sent == asked
        assert all(length <= p.max_burst_length for length in asked.values())


async def test_data_out_backwards_where_order_does_not_matter() -> None:
    """13.18: DataPDUInOrder=No."""
    seen = Seen()
    async with paired(
        parameters={"MaxRecvDataSegmentLength": 512, "DataPDUInOrder": False},
        observer=seen,
        DataPDUInOrder="No",
        InitialR2T="Yes",
    ) as pair:
        object.__setattr__(pair.options, "data_out_reversed", True)
        await exercise(pair, count=6)
        offsets = [word(bhs, 40) for bhs in seen.of("out", Opcode.DATA_OUT)]
        assert any(a > b for a, b in itertools.pairwise(offsets))


async def test_data_comes_in_any_order() -> None:
    """13.18, 13.19: DataPDUInOrder=No and DataSequenceInOrder=No; DataSN counts on, offsets jump (11.7.5)."""
    seen = Seen()
    disorder = {"random_datain_pdu_offsets": True, "random_datain_seq_offsets": True, "random_r2t_offsets": True}
    keys = {"DataPDUInOrder": "No", "DataSequenceInOrder": "No", "InitialR2T": "Yes", "ImmediateData": "No"}
    small = {"MaxRecvDataSegmentLength": "512", "MaxBurstLength": "2048", "MaxOutstandingR2T": "4"}
    allowed = {"DataPDUInOrder": False, "DataSequenceInOrder": False}
    for level in (0, 1):
        async with paired(level=level, observer=seen, acl=disorder, parameters=allowed, **keys, **small) as pair:
            parameters = pair.session.parameters
            assert not parameters.data_pdu_in_order
            assert not parameters.data_sequence_in_order
            await exercise(pair, count=10)
            assert pair.session.snacks == 0
    for opcode, at in ((Opcode.DATA_IN, 40), (Opcode.R2T, 40)):
        offsets: dict[int, list[int]] = {}
        for bhs in seen.of("in", opcode):
            offsets.setdefault(word(bhs, 16), []).append(word(bhs, at))
        assert any(found != sorted(found) for found in offsets.values()), opcode


async def test_commands_wait_for_the_window() -> None:
    """4.2.2.1: no CmdSN above MaxCmdSN is sent; all are served in the end."""
    async with paired() as pair:
        tasks = [pair.start(ScsiTask(bytes(6))) for _ in range(200)]
        session = pair.session
        assert (session.max_cmd_sn - session.cmd_sn + 1) & 0xFFFFFFFF == 0
        assert len(session.waiting) == 200 - 64
        await pair.until(lambda: all(task.finished for task in tasks))
        assert all(task.result.good for task in tasks)


async def test_cmd_sn_and_stat_sn_wrap() -> None:
    """4.2.2: serial number arithmetic."""
    site = Site(PARAMETERS)
    async with make_lu() as unit:
        site.group.enabled = True
        site.group.add_lun(0, unit)
        pair = Pair(site, Options(target_name=TARGET, cmd_sn=0xFFFFFFF0), None, Chance(1))
        connection = pair.add(0)
        target = pair.lines[0].target.phase
        assert target is not None
        target.stat_sn = connection.statuses.expected = 0xFFFFFFF8
        for _ in range(40):
            assert (await pair.run(ScsiTask(bytes(6)))).error is None
        assert pair.session.cmd_sn == 0xFFFFFFF0 + 40 & 0xFFFFFFFF
        assert connection.statuses.expected == 0xFFFFFFF8 + 40 & 0xFFFFFFFF
        pair.lines[0].target.close()


async def test_residuals_and_sense() -> None:
    """11.4.5: underflow, overflow; 11.4.7.2: sense data without its length field."""
    async with paired() as pair:
        short = await pair.run(ScsiTask(bytes((0x12, 0, 0, 0, 36, 0)), read_length=100))
        assert (short.result.underflow, short.result.residual) == (True, 64)
        long = await pair.run(ScsiTask(read_16(0, 2), read_length=BLOCK))
        assert (long.result.overflow, long.result.residual) == (True, BLOCK)
        bad = await pair.run(ScsiTask(read_16(1 << 40, 1), read_length=BLOCK))
        assert (bad.result.status, bad.result.sense_key, bad.result.asc) == (2, 5, (0x21, 0))
        assert bad.result.describe_sense() == "ILLEGAL REQUEST (5h), ASC 21h/00h"
        assert not bad.result.good


async def test_pings_both_ways() -> None:
    """11.18, 11.19: NOP-Out is echoed; the target's NOP-In is answered with its tag and data."""
    seen = Seen()
    async with paired(observer=seen) as pair:
        for immediate in (True, False):
            nop = Nop(b"are you there", immediate=immediate)
            pair.session.submit(nop)
            await pair.until(lambda nop=nop: nop.finished)
            assert nop.answer == b"are you there"
        before = len(seen.of("out", Opcode.NOP_OUT))
        phase = pair.lines[0].target.phase
        assert phase is not None
        pair.now += 20
        phase.handle_timer(pair.now, 15, 30)
        await pair.settle()
        answer = seen.of("out", Opcode.NOP_OUT)[before]
        assert (word(answer, 16), answer[0]) == (0xFFFFFFFF, 0x40)
        assert word(answer, 20) != 0xFFFFFFFF
        assert not phase.ping


async def test_task_management_ends_the_tasks_that_it_names() -> None:
    """11.5.1: no response comes after that of the function."""
    memory = GatedMemory(1 << 20)
    async with paired(backstore=memory) as pair:
        memory.shut()
        tasks = [pair.start(ScsiTask(read_16(n, 1), read_length=BLOCK)) for n in range(4)]
        await pair.settle()
        assert not any(task.finished for task in tasks)
        abort = TaskManagement(1, 0, referenced=tasks[0].itt, ref_cmd_sn=tasks[0].cmd_sn)
        pair.session.submit(abort, tasks[0].connection)
        await pair.until(lambda: abort.finished)
        assert abort.response == 0
        assert isinstance(tasks[0].error, TaskAborted)
        reset = TaskManagement(5, 0)
        pair.session.submit(reset)
        await pair.until(lambda: reset.finished)
        assert reset.response == 0
        assert all(isinstance(task.error, TaskAborted) for task in tasks)
        memory.release()
        # the unit attention of the reset, then all is as before
        first = await pair.run(ScsiTask(bytes(6)))
        assert first.result.sense_key == 6
        await exercise(pair, count=4)


async def test_text_negotiation_in_full_feature_phase() -> None:
    """13.12: MaxRecvDataSegmentLength may be declared again; unknown keys are answered."""
    async with paired(level=1) as pair:
        text = Text([("MaxRecvDataSegmentLength", "1024"), ("X-org.example.unheard", "of")])
        pair.session.submit(text)
        await pair.until(lambda: text.finished)
        assert text.error is None, text.error
        assert ("X-org.example.unheard", "NotUnderstood") in text.answers
        pair.session.connections[0].max_recv = 1024
        await exercise(pair, count=6)


async def test_connections_are_added_and_removed() -> None:
    """4.2.5.1, 11.14: on itself, and by another one."""
    async with paired(level=2, connections=3) as pair:
        await exercise(pair, count=12)
        pair.session.close_connection(1)
        await pair.settle()
        pair.session.close_connection(2, via=pair.session.connections[0])
        await pair.settle()
        assert sorted(pair.session.connections) == [0]
        pair.add(7)
        assert sorted(pair.session.connections) == [0, 7]
        await exercise(pair, count=12)


@pytest.mark.parametrize("via", [0, 1])
async def test_the_end_of_a_connection_may_come_before_the_logout_response(via: int) -> None:
    """They travel on different connections, and a target may close before it answers: the session goes on."""
    async with paired(connections=2) as pair:
        done: list[Logout] = []
        pair.session.close_connection(1, via=pair.session.connections[via], done=done.append)
        pair.session.connection_lost(pair.session.connections[1], "end of file")
        await pair.settle()
        assert [request.response for request in done] == [0]
        assert sorted(pair.session.connections) == [0]
        assert pair.session.ended is None
        await exercise(pair, count=4)


async def test_commands_spread_over_the_connections() -> None:
    seen = Seen()
    async with paired(connections=4, observer=seen) as pair:
        seen.pdus.clear()
        tasks = [pair.start(ScsiTask(bytes(6))) for _ in range(40)]
        await pair.until(lambda: all(task.finished for task in tasks))
        commands = [cid for cid, way, bhs, _ in seen.pdus if way == "out" and bhs[0] == Opcode.SCSI_COMMAND]
        assert {commands.count(cid) for cid in range(4)} == {10}


async def test_logout_ends_everything() -> None:
    """11.14: the session's Logout; what is submitted later fails at once."""
    async with paired(connections=2) as pair:
        done: list[Logout] = []
        pair.session.log_out(done=done.append)
        await pair.settle()
        assert [(request.reason, request.response) for request in done] == [(LogoutReason.CLOSE_SESSION, 0)]
        assert isinstance(pair.events[-1], SessionEnded)
        assert pair.events[-1].reason == ""
        late = pair.start(ScsiTask(bytes(6)))
        assert isinstance(late.error, SessionFailed)


async def test_below_level_2_a_lost_connection_ends_the_session() -> None:
    """7.1.4.4: session recovery is all there is; whatever is outstanding fails."""
    for level in (0, 1):
        async with paired(level=level, connections=2) as pair:
            task = ScsiTask(bytes(6))
            pair.start(task)
            pair.lines[0].end("the cable")
            await pair.settle()
            assert isinstance(task.error, SessionFailed)
            assert "the cable" in str(task.error)
            assert pair.events[-1] == SessionEnded(reason="connection 0 failed: the cable")


async def test_a_reject_ends_the_request() -> None:
    """11.17: with its reason; other requests go on."""
    async with paired(level=1) as pair:
        task = ScsiTask(bytes((0x12, 0, 0, 0, 36, 0)), read_length=36, data_out=b"x" * 512)  # bidirectional: refused
        await pair.run(task)
        assert isinstance(task.error, Rejected)
        assert any(isinstance(event, RejectReceived) for event in pair.events)
        await exercise(pair, count=4)


async def test_raw_pdus_go_out_as_they_are() -> None:
    """For tests of targets: anything can be sent."""
    seen = Seen()
    async with paired(level=1, observer=seen) as pair:
        connection = pair.session.connections[0]
        bhs = bytearray(NOP_OUT.pack(0x40, 0x80, 0, bytes(8), 0x77777777, 0xFFFFFFFF, pair.session.cmd_sn, 0))
        pair.session.send_raw(connection, bytes(bhs), b"raw data")
        await pair.settle()
        answer = [data for _, way, bhs, data in seen.pdus if way == "in" and word(bhs, 16) == 0x77777777]
        assert answer == [b"raw data"]
        await exercise(pair, count=4)


async def test_the_target_asks_for_logout() -> None:
    """11.9.1: told as an event, with its times."""
    async with paired() as pair:
        pair.lines[0].target.request_logout(7)
        await pair.settle()
        message = pair.events[-1]
        assert isinstance(message, AsyncMessage)
        assert (message.event, message.parameters[2]) == (1, 7)


async def test_async_messages_that_end_something() -> None:
    """11.9.1: a dropped connection, ended tasks, a dropped session."""
    memory = GatedMemory(1 << 20)
    async with paired(level=2, connections=3, backstore=memory) as pair:
        pair.reconnect = False
        phase = pair.lines[0].target.phase
        assert phase is not None
        phase.async_message(2, 1, 3, 30)  # CID 1, Time2Wait 3, Time2Retain 30
        await pair.settle()
        lost = next(event for event in pair.events if isinstance(event, ConnectionLost))
        assert (lost.cid, lost.wait_until - pair.now, lost.deadline - pair.now) == (1, 3, 33)
        assert sorted(pair.session.connections) == [0, 2]
        memory.shut()
        task = pair.start(ScsiTask(read_16(0, 1), read_length=BLOCK))
        await pair.settle()
        phase.async_message(5)
        await pair.settle()
        assert isinstance(task.error, TaskAborted)
        memory.release()
        phase.async_message(3, 0, 2, 20)
        await pair.settle()
        assert isinstance(pair.session.ended, SessionFailed)


async def test_bytes_may_come_one_by_one() -> None:
    async with paired(HeaderDigest="CRC32C", DataDigest="CRC32C") as pair:
        line = pair.lines[0]
        connection = line.connection
        assert connection is not None
        whole = connection.receive_data

        def dribble(data: bytes) -> None:
            for at in range(len(data)):
                whole(data[at : at + 1])

        connection.receive_data = dribble  # type: ignore[method-assign,assignment]
        await exercise(pair, count=4, blocks=8)


async def test_immediate_commands_use_no_number() -> None:
    """4.2.2.1: an immediate command carries CmdSN and does not advance it."""
    async with paired() as pair:
        before = pair.session.cmd_sn
        task = await pair.run(ScsiTask(bytes(6), immediate=True))
        assert task.result.good
        assert pair.session.cmd_sn == before
        assert task.cmd_sn == before


async def test_long_cdbs_travel_in_an_ahs() -> None:
    """11.2.2.3: a CDB of 32 bytes; the target that does not know it says so."""
    async with paired() as pair:
        task = await pair.run(ScsiTask(bytes((0x7F,)) + bytes(6) + bytes((24, 0xFF, 0xFF)) + bytes(22)))
        assert (task.result.status, task.result.sense_key) == (2, 5)
        write = await pair.run(ScsiTask(write_16(0, 1), data_out=bytes(BLOCK)))
        assert write.result.good
