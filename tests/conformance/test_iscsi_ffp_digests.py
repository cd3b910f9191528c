"""UNH-IOL full feature phase test suite, tests 18.1.1 to 18.2.2: digest errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.ffp import DUTS, SOLICITED, DeviceUnderTest, not_copied
from support.pdus import CHECK_CONDITION, DATA_DIGEST_ERROR, GOOD, R2T, REJECT, write10
from support.scsi import pattern

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend, dut", DUTS, indirect=["dut"])]

IMMEDIATE_DATA = {"InitialR2T": "Yes", "ImmediateData": "Yes", "FirstBurstLength": "512"}
LEVELS = pytest.mark.parametrize("level", ["0", "1", "2"], ids="level {}".format)


@LEVELS
async def test_18_1_1_header_digest_error(dut: DeviceUnderTest, level: str) -> None:
    """Test 18.1.1, clause 7.8: a PDU without its header digest is not carried out; the target discards it or drops the
    connection."""
    keeper = await dut.connect()
    await keeper.write(pattern(512, 7))
    c = await dut.connect(**IMMEDIATE_DATA, HeaderDigest="CRC32C,None", ErrorRecoveryLevel=level)
    assert c.header_digest
    command = replace(c.command(write10(0, 1), write=512, data=b"x" * 512), leave_out_header_digest=True)
    await c.send(command)
    assert not [pdu for pdu in await c.quiet() if pdu.itt == command.itt or pdu.opcode == R2T]
    assert await keeper.contents(0, 1) == pattern(512, 7)


@LEVELS
async def test_18_2_1_data_digest_error_of_a_command(dut: DeviceUnderTest, level: str) -> None:
    """Test 18.2.1, clause 7.8: Reject, data digest error, and no R2T; the next command is carried out if the connection lives,
    which above ErrorRecoveryLevel 0 it does."""
    keeper = await dut.connect()
    await keeper.write(pattern(512, 7))
    c = await dut.connect(**IMMEDIATE_DATA, DataDigest="CRC32C,None", ErrorRecoveryLevel=level)
    assert c.data_digest
    command = c.command(write10(0, 1), write=512, data=b"x" * 512)
    await c.send(replace(command, break_data_digest=True))
    reject = await c.next()
    assert (reject.opcode, reject.response) == (REJECT, DATA_DIGEST_ERROR)
    assert not not_copied(reject, command)
    assert not [pdu for pdu in await c.quiet() if pdu.opcode == R2T]
    assert await keeper.contents(0, 1) == pattern(512, 7)
    assert not (c.ended and level != "0")
    if not c.ended:
        second, r2t = await c.start_write(512, cmd_sn=command.cmd_sn)  # the gap that the rejected one left
        await c.send(*c.burst(r2t, pattern(512)))
        assert (await c.finish(second.itt))[-1].status == GOOD
        assert await keeper.contents(0, 1) == pattern(512)


@LEVELS
async def test_18_2_2_data_digest_error_of_data_out(dut: DeviceUnderTest, level: str) -> None:
    """Test 18.2.2, clause 7.8: Reject, data digest error, at once; then either a recovery R2T, or, after the PDU with F, CHECK
    CONDITION (protocol service CRC error)."""
    c = await dut.connect(**SOLICITED, DataDigest="CRC32C,None", ErrorRecoveryLevel=level)
    assert c.data_digest
    data = pattern(1024)
    await c.write(pattern(1024, 7))
    command, r2t = await c.start_write(1024)
    broken = replace(c.data_out(command.itt, r2t.ttt, 0, data[:512], final=False), break_data_digest=True)
    await c.send(broken)
    answers = await c.quiet(1)
    assert [(pdu.opcode, pdu.response) for pdu in answers][:1] == [(REJECT, DATA_DIGEST_ERROR)]
    assert not not_copied(answers[0], broken)
    assert not [pdu for pdu in answers if pdu.ends_command]
    if c.ended:
        assert level == "0"
        return
    await c.send(c.data_out(command.itt, r2t.ttt, 512, data[512:], data_sn=1))
    c.aside.extend(answers[1:])
    done = (await c.finish(command.itt, data))[-1]
    if done.status == GOOD:
        assert await c.contents(0, 2) == data
    else:
        assert (done.status, done.sense) == (CHECK_CONDITION, (0xB, 0x47, 0x05))
        assert await c.contents(0, 2) == pattern(1024, 7)
