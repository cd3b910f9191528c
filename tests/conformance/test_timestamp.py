"""REPORT and SET TIMESTAMP (SPC-4 6.38, 6.46), and the clock behind them (5.2)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scsi import logical_unit, one_initiator
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInParameterList, ParameterListLengthError
from tcm.scsi.sense import Status
from tcm.scsi.timestamp import parse_set_timestamp
from tcm.target.device_clock import DeviceClock
from tcm.target.task_management import TaskManagementFunction
from tcm.target.unit_attention import TIMESTAMP_CHANGED

pytestmark = pytest.mark.anyio
BY_COMMAND, OTHERWISE = 0b010, 0b011
Pair = tuple[ApplicationClient, ApplicationClient]


class Time:
    """A host's two clocks, ns."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000_000_000_000
        self.monotonic = 5_000_000_000

    def passes(self, milliseconds: int, *, jump: int = 0) -> None:
        self.monotonic += milliseconds * 1_000_000
        self.wall += (milliseconds + jump) * 1_000_000

    def clock(self) -> DeviceClock:
        return DeviceClock(lambda: self.wall, lambda: self.monotonic)


async def report(client: ApplicationClient) -> tuple[int, int]:
    """TIMESTAMP ORIGIN and TIMESTAMP."""
    data = (await client.execute(cdb.report_timestamp(64), read_length=64)).data_in
    assert len(data) == 12
    assert data[:2] == b"\0\x0a"
    assert (data[3], data[10:]) == (0, bytes(2))
    return data[2], int.from_bytes(data[4:10], "big")


async def test_report_timestamp_is_the_hosts(disk: ApplicationClient) -> None:
    """SPC-4 5.2: milliseconds since 1970; origin 011b, by methods outside the standard, until it is set."""
    before = time.time_ns() // 1_000_000
    origin, timestamp = await report(disk)
    assert before <= timestamp <= time.time_ns() // 1_000_000
    assert origin == OTHERWISE


async def test_report_timestamp_allocation_length(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.6: the allocation length truncates."""
    for length in range(12):
        result = await disk.execute(cdb.report_timestamp(length), read_length=64)
        assert len(result.data_in) == length


async def test_set_timestamp_goes_on_from_there(disk: ApplicationClient) -> None:
    """SPC-4 5.2: origin 010b; the clock counts on, whatever the host's does; neither a reset nor a lost nexus stops it."""
    host = Time()
    logical_unit(disk).clock = host.clock()
    assert await report(disk) == (OTHERWISE, 1_700_000_000_000)
    await disk.execute(cdb.set_timestamp(), cdb.set_timestamp_parameters(1000))
    assert await report(disk) == (BY_COMMAND, 1000)
    host.passes(234, jump=-99_999)
    assert await report(disk) == (BY_COMMAND, 1234)
    await disk.initiator.task_management(TaskManagementFunction.LOGICAL_UNIT_RESET, 0)
    await disk.identify()
    assert await report(disk) == (BY_COMMAND, 1234)


async def test_set_timestamp_wraps(disk: ApplicationClient) -> None:
    """SPC-4 5.2: a timestamp has six bytes."""
    host = Time()
    logical_unit(disk).clock = host.clock()
    await disk.execute(cdb.set_timestamp(), cdb.set_timestamp_parameters((1 << 48) - 1))
    assert await report(disk) == (BY_COMMAND, (1 << 48) - 1)
    host.passes(2)
    assert await report(disk) == (BY_COMMAND, 1)


async def test_set_timestamp_without_data(pair: Pair) -> None:
    """SPC-4 6.46: a PARAMETER LIST LENGTH of zero is no error; nothing changes and nobody is told."""
    one, other = pair
    await one.execute(cdb.set_timestamp(0))
    await other.test_unit_ready()
    assert (await report(one))[0] == OTHERWISE


async def test_set_timestamp_length(disk: ApplicationClient) -> None:
    """SPC-4 6.46: any other length, in the CDB or of the data, is PARAMETER LIST LENGTH ERROR."""
    data = cdb.set_timestamp_parameters(1)
    for length in (*range(1, 12), 13, 0xFFFFFFFF):
        await disk.execute(cdb.set_timestamp(length), data, expect=ParameterListLengthError)
    for sent in range(12):
        await disk.execute(cdb.set_timestamp(), data[:sent], expect=ParameterListLengthError)
    assert (await report(disk))[0] == OTHERWISE


async def test_set_timestamp_reserved_bits(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.1: a reserved bit of the parameter list is INVALID FIELD IN PARAMETER LIST, pointing at its byte."""
    for byte in (0, 1, 2, 3, 10, 11):
        for bit in range(8):
            data = bytearray(cdb.set_timestamp_parameters(1))
            data[byte] = 1 << bit
            result = await disk.execute(cdb.set_timestamp(), data, expect=InvalidFieldInParameterList)
            assert result.sense is not None
            assert result.sense.sense_key_specific == bytes((0x80, 0, byte))
    assert (await report(disk))[0] == OTHERWISE


async def test_set_timestamp_attention(pair: Pair) -> None:
    """SPC-4 6.46: TIMESTAMP CHANGED for every I_T nexus but the one that set it."""
    one, other = pair
    await one.execute(cdb.set_timestamp(), cdb.set_timestamp_parameters(1))
    await one.test_unit_ready()
    await other.test_unit_ready(expect=TIMESTAMP_CHANGED)
    assert (await report(other))[0] == BY_COMMAND


async def test_set_timestamp_reserved(pair: Pair) -> None:
    """SPC-4 table 68: REPORT TIMESTAMP is allowed under another nexus's reservation, SET TIMESTAMP conflicts."""
    one, other = pair
    await one.reserve()
    await report(other)
    await other.execute(cdb.set_timestamp(), cdb.set_timestamp_parameters(1), expect=Status.RESERVATION_CONFLICT)


async def test_set_timestamp_mode_page(disk: ApplicationClient) -> None:
    """SPC-5 7.5.11: SCSIP says that SET TIMESTAMP is legal and takes precedence, TCMOS that the host's clock counts."""
    page = (await disk.mode_sense(6, 0x0A, 1, dbd=True))[4:]
    assert page[4] & 0x06 == 0x06


async def test_set_timestamp_is_forgotten() -> None:
    """SPC-4 5.2: at power on the clock is set by other methods again."""
    for _ in range(2):
        async with one_initiator() as disk:
            assert (await report(disk))[0] == OTHERWISE
            await disk.execute(cdb.set_timestamp(), cdb.set_timestamp_parameters(1))


@given(st.binary(min_size=12, max_size=12))
def test_set_timestamp_any_parameters(data: bytes) -> None:
    """SPC-4 6.46: a parameter list is a timestamp or refused."""
    try:
        timestamp = parse_set_timestamp(data)
    except InvalidFieldInParameterList:
        return
    assert data == cdb.set_timestamp_parameters(timestamp)
