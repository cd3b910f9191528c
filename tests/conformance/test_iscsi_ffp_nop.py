"""UNH-IOL full feature phase test suite, tests 15.1.1 to 15.3: NOP-In."""

from __future__ import annotations

import pytest
from support.ffp import DUTS, PIECES, PINGED, SANS_IO, SOLICITED, DeviceUnderTest
from support.pdus import GOOD, NO_TAG, NOP_IN, R2T, TEST_UNIT_READY, Pdu, write10
from support.scsi import pattern

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend, dut", DUTS, indirect=["dut"])]


@pytest.mark.parametrize(
    ("length", "immediate"),
    [(0, True), (0, False), (500, False), (500, True)],
    ids=["15.1.1", "15.1.2", "15.1.3", "15.1.4"],
)
async def test_15_1_1_to_15_1_4_ping(dut: DeviceUnderTest, length: int, immediate: bool) -> None:
    """Tests 15.1.1 to 15.1.4, clauses 11.18 and 11.19: NOP-In with the same tag and data, TTT reserved; its StatSN counts."""
    c = await dut.connect(MaxRecvDataSegmentLength="512")
    ping = c.nop_out(pattern(length), immediate=immediate)
    echo = await c.ask(ping)
    assert (echo.opcode, echo.itt, echo.ttt, echo.data) == (NOP_IN, ping.itt, NO_TAG, pattern(length))
    assert echo.lun == bytes(8)
    answer = (await c.execute(TEST_UNIT_READY))[-1]
    assert (answer.status, answer.stat_sn) == (GOOD, echo.stat_sn + 1)


@pytest.mark.parametrize("immediate", [True, False], ids=["15.1.5", "15.1.6"])
async def test_15_1_5_and_15_1_6_long_ping(dut: DeviceUnderTest, immediate: bool) -> None:
    """Tests 15.1.5 and 15.1.6, clause 11.18: as much data as the target takes comes back up to what the initiator takes."""
    c = await dut.connect(MaxRecvDataSegmentLength="512")
    length = c.session.target_max_segment
    assert length > 512
    ping = c.nop_out(pattern(length), immediate=immediate)
    echo = await c.ask(ping)
    assert (echo.opcode, echo.itt, echo.ttt, echo.data) == (NOP_IN, ping.itt, NO_TAG, pattern(length)[:512])
    answer = (await c.execute(TEST_UNIT_READY))[-1]
    assert (answer.status, answer.stat_sn) == (GOOD, echo.stat_sn + 1)


async def test_15_2_ping_of_the_target(dut: DeviceUnderTest) -> None:
    """Test 15.2, clause 11.19: ITT reserved, a TTT, no data, StatSN not advanced; the answer takes no CmdSN and has no
    answer."""
    c = await dut.connect(name=PINGED)
    c.answering = False
    await dut.target.elapse(16 if dut.kind in (SANS_IO, PIECES) else 1)
    ping = await c.next(20)
    assert (ping.opcode, ping.itt, ping.data) == (NOP_IN, NO_TAG, b"")
    assert ping.ttt != NO_TAG
    await c.send(c.nop_out(itt=NO_TAG, ttt=ping.ttt))
    answer = (await c.execute(TEST_UNIT_READY))[-1]
    assert (answer.status, answer.stat_sn) == (GOOD, ping.stat_sn)
    assert answer.exp_cmd_sn == ping.exp_cmd_sn + 1


async def test_15_3_closed_window_opens(dut: DeviceUnderTest) -> None:
    """Test 15.3, clauses 4.2.2.1 and 11.19: the window that as many commands have closed opens when they end. A target may tell
    it by a NOP-In of its own (ITT and TTT reserved, no data, StatSN not advanced). The plan fills the window with READs, which
    a fast target has ended by then; here they are WRITEs that wait for their data."""
    c = await dut.connect(**SOLICITED)
    session = c.session
    commands = []
    while session.cmd_sn != (session.max_cmd_sn + 1) & 0xFFFFFFFF:
        assert len(commands) < 1024
        commands.append(c.command(write10(0, 2), write=1024))
        await c.send(commands[-1])
        if len(commands) % 8 == 0 or session.cmd_sn == (session.max_cmd_sn + 1) & 0xFFFFFFFF:
            c.aside.append(await c.expect(R2T, commands[-1].itt))
    r2ts = [await c.expect(R2T, command.itt) for command in commands]
    assert r2ts[-1].max_cmd_sn == r2ts[-1].exp_cmd_sn - 1
    told: list[Pdu] = []
    for command, r2t in zip(commands, r2ts, strict=True):
        await c.send(*c.burst(r2t, pattern(1024)))
        told += await c.finish(command.itt)
        assert told[-1].status == GOOD
    for pdu in (*c.aside, *await c.quiet()):
        assert (pdu.opcode, pdu.itt, pdu.ttt, pdu.data) == (NOP_IN, NO_TAG, NO_TAG, b"")
        assert pdu.stat_sn == told[-1].stat_sn + 1
    c.aside.clear()
    assert (session.max_cmd_sn - session.exp_cmd_sn) & 0xFFFFFFFF == len(commands) - 1
    assert (await c.execute(TEST_UNIT_READY))[-1].status == GOOD
