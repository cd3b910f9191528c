"""UNH-IOL full feature phase test suite, tests 16.1 to 16.5 and 19.1: SCSI Response, residuals, unsolicited data, retries."""

from __future__ import annotations

import pytest
from support.ffp import DUTS, SOLICITED, DeviceUnderTest
from support.pdus import (
    ASYNC,
    CHECK_CONDITION,
    DATA_IN,
    GOOD,
    INQUIRY,
    NO_TAG,
    R2T,
    READ_CAPACITY,
    REJECT,
    SCSI_RESPONSE,
    Request,
    write10,
)
from support.scsi import pattern

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend, dut", DUTS, indirect=["dut"])]

OVERFLOW, UNDERFLOW = 4, 2


async def test_16_1_residual_underflow(dut: DeviceUnderTest) -> None:
    """Test 16.1, clause 11.4.5.1: less data than expected: U, not O, and how much is left."""
    c = await dut.connect()
    answers = await c.execute(b"\x12\0\0\x10\0\0", read=4096)
    length = sum(len(pdu.data) for pdu in answers if pdu.opcode == DATA_IN)
    assert 36 <= length < 4096
    assert (answers[-1].flags & 6, answers[-1].length) == (UNDERFLOW, 4096 - length)


async def test_16_2_residual_overflow(dut: DeviceUnderTest) -> None:
    """Test 16.2, clause 11.4.5.1: more data than expected: O, not U, and how much was left out."""
    c = await dut.connect()
    full = sum(len(pdu.data) for pdu in await c.execute(INQUIRY, read=96) if pdu.opcode == DATA_IN)
    answers = await c.execute(INQUIRY, read=4)
    assert sum(len(pdu.data) for pdu in answers if pdu.opcode == DATA_IN) == 4
    assert (answers[-1].flags & 6, answers[-1].length) == (OVERFLOW, full - 4)


@pytest.mark.parametrize("final", [False, True], ids=["F 0", "F 1"])
async def test_16_3_1_immediate_data_up_to_first_burst_length(dut: DeviceUnderTest, final: bool) -> None:
    """Test 16.3.1, clauses 4.2.5.2 and 11.3.1: immediate data as long as FirstBurstLength, the rest by R2T. The plan sends F 0;
    by the RFC F is 1 if no unsolicited Data-Out follows, and with InitialR2T=Yes none can: both are no error."""
    data = pattern(1024)
    c = await dut.connect(InitialR2T="Yes", ImmediateData="Yes", FirstBurstLength="512")
    command = c.command(write10(0, 2), write=1024, data=data[:512], final=final)
    await c.send(command)
    r2t = await c.expect(R2T, command.itt)
    assert (r2t.offset, r2t.length) == (512, 512)
    await c.send(*c.burst(r2t, data))
    assert (await c.finish(command.itt))[-1].status == GOOD
    assert await c.contents(0, 2) == data


async def unexpected(dut: DeviceUnderTest, final: bool, **keys: str) -> None:
    """1024 bytes of immediate data that must not be: CHECK CONDITION (unexpected unsolicited data) or no connection."""
    keeper = await dut.connect()
    await keeper.write(pattern(1024, 7))
    c = await dut.connect(**keys)
    command = c.command(write10(0, 2), write=1024, data=b"x" * 1024, final=final)
    await c.send(command)
    answers = await c.quiet(1)
    statuses = [pdu for pdu in answers if pdu.ends_command]
    if statuses:
        assert [(pdu.itt, pdu.status, pdu.sense) for pdu in statuses] == [(command.itt, CHECK_CONDITION, (0xB, 0x0C, 0x0C))]
    else:
        assert c.ended or ASYNC in [pdu.opcode for pdu in answers], answers
    assert await keeper.contents(0, 2) == pattern(1024, 7)


async def test_16_3_2_more_immediate_data_than_first_burst_length(dut: DeviceUnderTest) -> None:
    """Test 16.3.2, clause 11.4.7.2: immediate data longer than FirstBurstLength: unexpected unsolicited data."""
    await unexpected(dut, False, InitialR2T="Yes", ImmediateData="Yes", FirstBurstLength="512")


async def test_16_3_3_solicited_data(dut: DeviceUnderTest) -> None:
    """Test 16.3.3, clause 11.8: all the data in one PDU with F."""
    c = await dut.connect(**SOLICITED)
    command, r2t = await c.start_write(1024)
    await c.send(c.data_out(command.itt, r2t.ttt, 0, pattern(1024)))
    assert (await c.finish(command.itt))[-1].status == GOOD


async def test_16_3_4_immediate_data_although_there_is_none(dut: DeviceUnderTest) -> None:
    """Test 16.3.4, clause 11.4.7.2: immediate data with ImmediateData=No: unexpected unsolicited data."""
    await unexpected(dut, True, **SOLICITED)


async def test_16_3_5_unsolicited_data(dut: DeviceUnderTest) -> None:
    """Test 16.3.5, clause 4.2.5.2: all the data unsolicited, as long as FirstBurstLength. The command has F 0, since Data-Out
    follows."""
    c = await dut.connect(InitialR2T="No", ImmediateData="No", FirstBurstLength="1024")
    command = c.command(write10(0, 2), write=1024, final=False)
    await c.send(command, c.data_out(command.itt, NO_TAG, 0, pattern(1024)))
    answers = await c.finish(command.itt)
    assert [(pdu.opcode, pdu.status) for pdu in answers] == [(SCSI_RESPONSE, GOOD)]
    assert await c.contents(0, 2) == pattern(1024)


async def test_16_3_6_incorrect_amount_of_data(dut: DeviceUnderTest) -> None:
    """Test 16.3.6, clause 11.4.7.2: unsolicited data that ends early: incorrect amount of data, or no connection; nothing is
    written."""
    keeper = await dut.connect()
    await keeper.write(pattern(1024, 7))
    c = await dut.connect(InitialR2T="No", ImmediateData="No", DataSequenceInOrder="Yes")
    command = c.command(write10(0, 2), write=1024, final=False)
    await c.send(command, c.data_out(command.itt, NO_TAG, 0, b"x" * 512))
    statuses = [pdu for pdu in await c.quiet(1) if pdu.ends_command]
    if statuses or not c.ended:
        assert [(pdu.status, pdu.sense) for pdu in statuses] == [(CHECK_CONDITION, (0xB, 0x0C, 0x0D))]
    assert await keeper.contents(0, 2) == pattern(1024, 7)


async def test_16_3_7_bad_operation_code(dut: DeviceUnderTest) -> None:
    """Test 16.3.7, clauses 11.4.2 and 11.4.7.2: an operation code of no command: CHECK CONDITION, ILLEGAL REQUEST."""
    c = await dut.connect(InitialR2T="No", DataSequenceInOrder="Yes")
    (answer,) = await c.execute(b"\xd7" + bytes(5))
    assert (answer.opcode, answer.status, answer.sense) == (SCSI_RESPONSE, CHECK_CONDITION, (5, 0x20, 0))


async def retry(dut: DeviceUnderTest, sent: int) -> None:
    """The same WRITE again once ``sent`` bytes of its data have gone out."""
    data = pattern(1024)
    c = await dut.connect(**SOLICITED)
    command: Request
    command, r2t = await c.start_write(1024)
    if sent:
        await c.send(c.data_out(command.itt, r2t.ttt, 0, data[:sent], final=False))
    await c.send(command)
    assert not await c.quiet()
    await c.send(c.data_out(command.itt, r2t.ttt, sent, data[sent:], data_sn=1 if sent else 0))
    answers = await c.finish(command.itt)
    assert [(pdu.opcode, pdu.status) for pdu in answers] == [(SCSI_RESPONSE, GOOD)]
    assert not await c.quiet()
    assert await c.contents(0, 2) == data


async def test_16_4_1_retry_with_data_under_way(dut: DeviceUnderTest) -> None:
    """Test 16.4.1, clause 7.2.1: a command in progress that comes again, after some of its data, is silently discarded."""
    await retry(dut, 512)


async def test_16_4_2_retry(dut: DeviceUnderTest) -> None:
    """Test 16.4.2, clause 7.2.1: a command in progress that comes again before any of its data is silently discarded."""
    await retry(dut, 0)


async def test_16_5_error_while_data_is_expected(dut: DeviceUnderTest) -> None:
    """Test 16.5, clauses 11.4.2 and 11.17.1: Data-Out of no task may be rejected; the command has no response before the last
    of its data. The plan leaves a gap of 512 bytes there; whether that is filled before F decides between GOOD and an error."""
    c = await dut.connect(**SOLICITED)
    data = pattern(2048)
    command, r2t = await c.start_write(2048)
    assert r2t.length == 2048
    await c.send(c.data_out(command.itt + 1, r2t.ttt, 0, b"x" * 512, final=False))
    rejects = await c.quiet()
    assert [pdu.opcode for pdu in rejects] in ([], [REJECT])
    for n in range(3):
        await c.send(c.data_out(command.itt, r2t.ttt, n * 512, data[n * 512 :][:512], data_sn=n, final=False))
        assert not await c.quiet()
    await c.send(c.data_out(command.itt, r2t.ttt, 1536, data[1536:], data_sn=3))
    assert (await c.finish(command.itt))[-1].status == GOOD
    assert await c.contents(0, 4) == data


async def test_19_1_expected_data_transfer_length_0(dut: DeviceUnderTest) -> None:
    """Test 19.1, clauses 11.3.4 and 11.4.5.1: READ CAPACITY with an Expected Data Transfer Length of 0 sends no data and says
    what was left out."""
    c = await dut.connect(**SOLICITED, MaxRecvDataSegmentLength="1024")
    answers = await c.execute(READ_CAPACITY)
    assert [(pdu.opcode, pdu.status, pdu.data) for pdu in answers] == [(SCSI_RESPONSE, GOOD, b"")]
    assert (answers[0].flags & 6, answers[0].length) == (OVERFLOW, 8)
