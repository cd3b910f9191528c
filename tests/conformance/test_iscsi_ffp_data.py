"""UNH-IOL full feature phase test suite, tests 7.1 to 10.1: unsolicited data, transfer tags, Data-In, R2T."""

from __future__ import annotations

import pytest
from support.ffp import DUTS, SOLICITED, DeviceUnderTest, segments
from support.pdu_initiator import Connection
from support.pdus import (
    ASYNC,
    CHECK_CONDITION,
    DATA_IN,
    GOOD,
    LUN_0,
    NO_TAG,
    R2T,
    REJECT,
    SCSI_RESPONSE,
    Pdu,
    read10,
    write10,
)
from support.scsi import pattern

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend, dut", DUTS, indirect=["dut"])]

LEVEL_1 = {"ErrorRecoveryLevel": "1"}


async def told_or_dropped(c: Connection, itt: int, sense: tuple[int, int, int]) -> None:
    """The command ended in CHECK CONDITION with that sense data, or the target has left; a Reject or a request to log out may
    come first."""
    answers = await c.quiet(1)
    statuses = [pdu for pdu in answers if pdu.ends_command]
    assert {pdu.opcode for pdu in answers} <= {REJECT, ASYNC, SCSI_RESPONSE}, answers
    if statuses:
        (status,) = statuses
        assert (status.itt, status.status, status.sense) == (itt, CHECK_CONDITION, sense)
        assert await c.is_open() or c.ended
    else:
        assert c.ended, f"neither CHECK CONDITION nor a closed connection, but {answers}"


async def test_7_1_more_solicited_data_than_asked_for(dut: DeviceUnderTest) -> None:
    """Test 7.1, clause 11.4.7.2: more data than the R2T desired ends in CHECK CONDITION (incorrect amount of data) or the end
    of the connection; nothing of it is written."""
    keeper = await dut.connect()
    await keeper.write(pattern(2048, 7))
    c = await dut.connect(**SOLICITED, **LEVEL_1)
    command, r2t = await c.start_write(1024)
    await c.send(c.data_out(command.itt, r2t.ttt, 0, b"x" * (r2t.length + 512)))
    await told_or_dropped(c, command.itt, (0xB, 0x0C, 0x0D))
    assert await keeper.contents(0, 4) == pattern(2048, 7)


@pytest.mark.parametrize("pdus", [1, 3])
async def test_7_2_more_unsolicited_data_than_first_burst_length(dut: DeviceUnderTest, pdus: int) -> None:
    """Test 7.2, clauses 4.2.5.2 and 11.4.7.2: more unsolicited data than FirstBurstLength, in one PDU or in several, ends in
    CHECK CONDITION (incorrect amount of data), or the end of the connection."""
    keeper = await dut.connect()
    await keeper.write(pattern(2048, 7))
    c = await dut.connect(InitialR2T="No", ImmediateData="No", FirstBurstLength="512", **LEVEL_1)
    command = c.command(write10(0, 4), write=2048, final=False)
    size = 1536 // pdus
    await c.send(
        command,
        *[c.data_out(command.itt, NO_TAG, n * size, b"x" * size, data_sn=n, final=n == pdus - 1) for n in range(pdus)],
    )
    await told_or_dropped(c, command.itt, (0xB, 0x0C, 0x0D))
    assert await keeper.contents(0, 4) == pattern(2048, 7)


async def test_8_1_target_transfer_tag_of_r2t(dut: DeviceUnderTest) -> None:
    """Test 8.1, clause 11.8.5: R2T has a TTT that is not the reserved one, and the LUN of its command. InitialR2T=No alone
    would not bring an R2T for a short write: F of the command says that no unsolicited data follows."""
    c = await dut.connect(InitialR2T="No", ImmediateData="No", **LEVEL_1)
    command, r2t = await c.start_write(1024)
    assert r2t.ttt != NO_TAG
    assert r2t.lun == LUN_0
    await c.send(*c.burst(r2t, pattern(1024)))
    assert (await c.finish(command.itt))[-1].status == GOOD


@pytest.mark.parametrize("blocks", [1, 64])
async def test_8_2_target_transfer_tag_of_data_in(dut: DeviceUnderTest, blocks: int) -> None:
    """Test 8.2, clause 11.7.4: with the A bit Data-In has a TTT and the LUN of its command; without, both are reserved."""
    c = await dut.connect(InitialR2T="No", ImmediateData="No", MaxBurstLength="8192", **LEVEL_1)
    for pdu in await c.read(0, blocks):
        if pdu.opcode == DATA_IN and pdu.flags & 0x40:
            assert pdu.ttt != NO_TAG
            assert pdu.lun == LUN_0
        elif pdu.opcode == DATA_IN:
            assert (pdu.ttt, pdu.lun) == (NO_TAG, bytes(8))


async def test_9_1_status_in_data_in(dut: DeviceUnderTest) -> None:
    """Test 9.1, clause 11.7.3: S only together with F, and only for a status that is no exception."""
    c = await dut.connect(MaxRecvDataSegmentLength="512")
    for pdu in await c.read(0, 4):
        if pdu.opcode == DATA_IN and pdu.flags & 1:
            assert pdu.final
            assert pdu.status == GOOD
    failed = await c.execute(read10(1 << 30, 4), read=2048)
    assert [(pdu.opcode, pdu.status) for pdu in failed] == [(SCSI_RESPONSE, CHECK_CONDITION)]


async def test_9_2_f_bit_of_data_in(dut: DeviceUnderTest) -> None:
    """Test 9.2, clause 11.7.1: the last Data-In of a sequence has F, and a sequence is no longer than MaxBurstLength."""
    c = await dut.connect(MaxRecvDataSegmentLength="512", MaxBurstLength="1024")
    data = [pdu for pdu in await c.read(0, 4) if pdu.opcode == DATA_IN]
    assert data[-1].final
    lengths = [0]
    for pdu in data:
        lengths[-1] += len(pdu.data)
        if pdu.final:
            lengths.append(0)
    assert max(lengths) <= 1024
    assert sum(lengths) == 2048


async def test_9_3_1_data_segment_length_of_data_in(dut: DeviceUnderTest) -> None:
    """Test 9.3.1, clauses 11.7.7 and 13.12: no segment is longer than the initiator's MaxRecvDataSegmentLength."""
    c = await dut.connect(MaxRecvDataSegmentLength="512")
    found = segments(await c.read(0, 64))
    assert max(found) <= 512
    assert sum(found) == 64 * 512


async def test_9_3_2_empty_data_out(dut: DeviceUnderTest) -> None:
    """Test 9.3.2, clause 11.7.7: a Data-Out without data is no error; it counts in DataSN."""
    c = await dut.connect(**SOLICITED)
    command, r2t = await c.start_write(1024)
    await c.send(
        c.data_out(command.itt, r2t.ttt, 0, b"", final=False),
        c.data_out(command.itt, r2t.ttt, 0, pattern(1024), data_sn=1),
    )
    assert (await c.finish(command.itt))[-1].status == GOOD
    assert await c.contents(0, 2) == pattern(1024)


async def test_9_3_3_data_segments_fill_words(dut: DeviceUnderTest) -> None:
    """Test 9.3.3, clause 11.7.7: every data segment but the last of a sequence is a whole number of words. The plan wants it of
    any READ; INQUIRY data of an odd length shows the exception."""
    c = await dut.connect(**SOLICITED, MaxRecvDataSegmentLength="1024")
    for answers in (await c.read(0, 7), await c.execute(b"\x12\0\0\0\x05\0", read=5)):
        for pdu in answers:
            assert pdu.opcode != DATA_IN or pdu.final or len(pdu.data) % 4 == 0


async def test_9_4_data_sn(dut: DeviceUnderTest) -> None:
    """Test 9.4, clause 11.7.5: DataSN counts the Data-In of the command, across its sequences."""
    c = await dut.connect(**SOLICITED, MaxRecvDataSegmentLength="512", MaxBurstLength="1024")
    data = [pdu for pdu in await c.read(0, 8) if pdu.opcode == DATA_IN and pdu.data]
    assert [pdu.data_sn for pdu in data] == list(range(8))


async def test_9_5_buffer_offset_of_data_in(dut: DeviceUnderTest) -> None:
    """Test 9.5, clause 11.7.6: with DataPDUInOrder and DataSequenceInOrder offsets go up without gaps."""
    c = await dut.connect(
        **SOLICITED, MaxRecvDataSegmentLength="512", DataPDUInOrder="Yes", DataSequenceInOrder="Yes", MaxBurstLength="1024"
    )
    data = [pdu for pdu in await c.read(0, 6) if pdu.opcode == DATA_IN and pdu.data]
    assert [pdu.offset for pdu in data] == [sum(len(before.data) for before in data[:n]) for n in range(len(data))]
    assert sum(segments(data)) == 3072


async def test_10_1_r2t(dut: DeviceUnderTest) -> None:
    """Test 10.1, clause 11.8: contiguous ranges within MaxBurstLength, R2TSN from 0, a TTT, StatSN set and not advanced. The
    plan declares MaxBurstLength and FirstBurstLength of 512."""
    c = await dut.connect(
        **SOLICITED, MaxRecvDataSegmentLength="1024", MaxBurstLength="512", FirstBurstLength="512", MaxOutstandingR2T="2"
    )
    data = pattern(2048)
    command = c.command(write10(0, 4), write=2048, itt=0xA2A2A2A2)
    await c.send(command)
    sent: list[Pdu] = await c.finish(command.itt, data)
    r2ts, done = [pdu for pdu in sent if pdu.opcode == R2T], sent[-1]
    at = 0
    for n, r2t in enumerate(r2ts):
        assert (r2t.itt, r2t.data_sn, r2t.offset) == (0xA2A2A2A2, n, at)
        assert 0 < r2t.length <= 512
        assert r2t.ttt != NO_TAG
        assert not r2t.data
        assert r2t.stat_sn == done.stat_sn
        at += r2t.length
    assert at == 2048
    assert done.status == GOOD
    assert await c.contents(0, 4) == data
