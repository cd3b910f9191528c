"""The UNH-IOL full feature phase test suite for iSCSI targets 0.1 (2003), tests 1.1 to 6.1: numbering, retry, allegiance.

Every test of ``test_iscsi_ffp_*`` bears the number of its test in that plan. The clauses are those of RFC 7143, which replaced
the draft that the plan cites; where they differ the RFC is followed, and the docstring says so.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from support.ffp import DUTS, SOLICITED, DeviceUnderTest, not_copied
from support.pdu_initiator import Connection
from support.pdus import DATA_DIGEST_ERROR, DATA_IN, GOOD, R2T, REJECT, Pdu, read10, serial_less, write10
from support.scsi import pattern

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend, dut", DUTS, indirect=["dut"])]

WRITES = {**SOLICITED, "MaxRecvDataSegmentLength": "1024"}


async def ten_writes(c: Connection) -> list[Pdu]:
    sent = []
    for n in range(10):
        sent += await c.write(pattern(1024, n), lba=2 * n)
        assert sent[-1].status == GOOD
    return sent


async def test_1_1_max_cmd_sn(dut: DeviceUnderTest) -> None:
    """Test 1.1, clause 4.2.2.1: MaxCmdSN is never less than ExpCmdSN - 1, and neither ever goes back."""
    c = await dut.connect(settle=False, **WRITES)
    sent = [*await c.settle(), *await ten_writes(c)]
    for pdu in sent:
        assert not serial_less(pdu.max_cmd_sn, pdu.exp_cmd_sn - 1 & 0xFFFFFFFF)
    for before, pdu in pairwise(sent):
        assert not serial_less(pdu.max_cmd_sn, before.max_cmd_sn)
        assert not serial_less(pdu.exp_cmd_sn, before.exp_cmd_sn)


@pytest.mark.parametrize("side", ["beyond MaxCmdSN", "before ExpCmdSN"])
async def test_1_2_cmd_sn_outside_the_window(dut: DeviceUnderTest, side: str) -> None:
    """Test 1.2, clause 4.2.2.1: a command outside of ExpCmdSN to MaxCmdSN is silently ignored, and those after it are not."""
    c = await dut.connect(**WRITES)
    for n in range(10):
        if n == 6:
            session = c.session
            sn = session.max_cmd_sn + 1 if side == "beyond MaxCmdSN" else session.exp_cmd_sn - 20
            await c.send(c.command(write10(0, 2), write=1024, cmd_sn=sn & 0xFFFFFFFF))
        assert (await c.write(pattern(1024, n)))[-1].status == GOOD
    assert not await c.quiet()
    assert await c.contents(0, 2) == pattern(1024, 9)


async def test_1_3_cmd_sn_used_before(dut: DeviceUnderTest) -> None:
    """Test 1.3, clause 4.2.2.1: a command with a CmdSN that was used before is silently ignored."""
    c = await dut.connect(**WRITES)
    for n in range(10):
        if n == 6:
            await c.send(c.command(write10(0, 2), write=1024, cmd_sn=c.session.cmd_sn - 1))
        assert (await c.write(pattern(1024, n)))[-1].status == GOOD
    assert not await c.quiet()


async def test_2_1_stat_sn(dut: DeviceUnderTest) -> None:
    """Test 2.1, clause 4.2.2.2: StatSN goes up by one with each response, from the Login Response on."""
    session = dut.session(**WRITES)
    c = await session.connect(0)
    first = c.exp_stat_sn
    sent = [*await c.settle(), *await ten_writes(c)]
    numbered = [pdu.stat_sn for pdu in sent if pdu.numbered]
    assert numbered == [first + n & 0xFFFFFFFF for n in range(len(numbered))]
    assert len(numbered) >= 13


async def test_3_1_data_sn(dut: DeviceUnderTest) -> None:
    """Test 3.1, clause 11.7.5: DataSN begins with 0 in every command and goes up by one."""
    c = await dut.connect(**WRITES)
    commands = [c.command(read10(0, 8), read=4096) for _ in range(3)]
    assert len({command.itt for command in commands}) == 3
    await c.send(*commands)
    for command in commands:
        data = [pdu for pdu in await c.finish(command.itt) if pdu.opcode == DATA_IN]
        assert [pdu.data_sn for pdu in data if pdu.data] == [0, 1, 2, 3]


async def test_4_1_r2t_sn(dut: DeviceUnderTest) -> None:
    """Test 4.1, clause 11.8.3: R2TSN begins with 0 in every command and goes up by one."""
    c = await dut.connect(**WRITES, MaxBurstLength="1024")
    for _ in range(3):
        sent = await c.write(pattern(4096))
        assert [pdu.data_sn for pdu in sent if pdu.opcode == R2T] == [0, 1, 2, 3]
        assert sent[-1].status == GOOD


@pytest.mark.parametrize("level", ["1", "2"])
async def test_5_1_command_retry(dut: DeviceUnderTest, level: str) -> None:
    """Test 5.1, clauses 7.2.1 and 7.8: a command with a data digest error is rejected and its CmdSN stays free; the same PDU
    again, now whole, fills the gap and is carried out."""
    c = await dut.connect(ImmediateData="Yes", ErrorRecoveryLevel=level, DataDigest="CRC32C")
    data = pattern(1024)
    command = c.command(write10(0, 2), write=1024, data=data)
    reject = await c.ask(replace(command, break_data_digest=True))
    assert (reject.opcode, reject.response) == (REJECT, DATA_DIGEST_ERROR)
    assert not not_copied(reject, command)
    assert reject.exp_cmd_sn == command.cmd_sn
    await c.send(command)
    answers = await c.finish(command.itt, data)
    assert answers[-1].status == GOOD
    assert answers[-1].exp_cmd_sn == command.cmd_sn + 1
    assert await c.contents(0, 2) == data


async def test_6_1_connection_allegiance(dut: DeviceUnderTest) -> None:
    """Test 6.1, clause 4.2.5.1: R2T, Data-In and status come on the connection of their command."""
    pair = await dut.pair(**WRITES)
    writes = [await c.start_write(1024, lba=2 * n) for n, c in enumerate(pair)]
    reads = [c.command(read10(8, 8), read=4096) for c in pair]
    for c, read in zip(pair, reads, strict=True):
        await c.send(read)
    for n, c in enumerate(pair):
        assert (await c.finish(reads[n].itt))[-1].status == GOOD
        command, r2t = writes[n]
        await c.send(*c.burst(r2t, pattern(1024, n)))
        assert (await c.finish(command.itt))[-1].status == GOOD
    for n, c in enumerate(pair):
        assert not await c.quiet()
        assert await c.contents(2 * n, 2) == pattern(1024, n)
