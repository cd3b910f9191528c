"""TEST UNIT READY (SPC-5 6.47), REQUEST SENSE (6.39), sense data formats (4.5)."""

from __future__ import annotations

import pytest
from support.scsi import SECOND, one_initiator, target
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.sense import SenseKey, Status
from tcm.target import unit_attention

pytestmark = pytest.mark.anyio


async def test_test_unit_ready_simple(disk: ApplicationClient) -> None:
    """SPC-5 6.47: GOOD, and no data either way."""
    result = await disk.test_unit_ready()
    assert (result.data_in, result.residual, result.overflow) == (b"", 0, False)
    result = await disk.execute(cdb.test_unit_ready(), read_length=100)
    assert (result.data_in, result.residual, result.overflow) == (b"", 100, False)
    result = await disk.execute(cdb.test_unit_ready(), bytes(100))
    assert (result.data_in, result.residual, result.overflow) == (b"", 100, False)


async def test_request_sense_none(disk: ApplicationClient) -> None:
    """SPC-5 6.39: nothing to report: NO SENSE, in the format that DESC asks for, with GOOD status."""
    fixed = await disk.request_sense()
    assert len(fixed) == 18
    assert (fixed[0], fixed[2], fixed[7], fixed[12], fixed[13]) == (0x70, SenseKey.NO_SENSE, 10, 0, 0)
    descriptor = await disk.request_sense(desc=True)
    assert descriptor == bytes((0x72, SenseKey.NO_SENSE, 0, 0, 0, 0, 0, 0))


async def test_request_sense_allocation_length(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.6: truncated, zero included."""
    full = await disk.request_sense()
    for length in (0, 1, 8, 17, 18, 252):
        result = await disk.execute(cdb.request_sense(length), read_length=length)
        assert result.data_in == full[:length]


@pytest.mark.parametrize("desc", [False, True])
async def test_request_sense_unit_attention(desc: bool) -> None:
    """SPC-5 6.39, SAM-5 5.14: a pending unit attention is returned as data with GOOD status, and is cleared by it."""
    async with target(None) as port:
        disk = ApplicationClient(port.connect())
        data = await disk.request_sense(desc=desc)
        key, asc = (data[1], data[2]) if desc else (data[2], data[12])
        assert (key & 0xF, asc) == (SenseKey.UNIT_ATTENTION, 0x29)
        await disk.test_unit_ready()


async def test_request_sense_medium_not_present(removable: ApplicationClient) -> None:
    """SPC-5 6.39: the state that TEST UNIT READY would report."""
    await removable.start_stop_unit(loej=True)
    data = await removable.request_sense()
    assert (data[2] & 0xF, data[12]) == (SenseKey.NOT_READY, 0x3A)


async def test_request_sense_is_not_autosense(disk: ApplicationClient) -> None:
    """SAM-5 5.13: sense data went with the status; the next REQUEST SENSE has none of it."""
    await disk.mode_sense(6, 0x3E, expect=InvalidFieldInCdb)
    data = await disk.request_sense()
    assert data[2] & 0xF == SenseKey.NO_SENSE


async def test_sense_field_pointer(disk: ApplicationClient) -> None:
    """SPC-5 4.5.2.4.2: INVALID FIELD IN CDB points at the byte, and at the bit, that is wrong."""
    result = await disk.execute(bytes((0x00, 0x00, 0x10, 0, 0, 0)), expect=InvalidFieldInCdb)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0x80 | 0x40 | 0x08 | 4, 0, 2))
    fixed = result.sense.pack()
    assert fixed[15:18] == bytes((0xCC, 0, 2))


async def test_power_on_unit_attention() -> None:
    """SAM-5 5.14: the first command of a new I_T nexus gets a power-on condition; INQUIRY and REPORT LUNS don't."""
    async with target(None) as port:
        for name in ("naa.5001405000000001", SECOND):
            disk = ApplicationClient(port.connect(name))
            await disk.inquiry()
            await disk.report_luns()
            result = await disk.test_unit_ready(expect=None)
            assert result.status is Status.CHECK_CONDITION
            assert result.sense is not None
            assert (result.sense.key, result.sense.asc) == (SenseKey.UNIT_ATTENTION, 0x29)
            await disk.test_unit_ready()


async def test_unit_attention_before_express() -> None:
    """SAM-5 5.14: a read in the express lane does not get past a pending condition."""
    async with target(None) as port:
        disk = ApplicationClient(port.connect(express=True))
        result = await disk.read(10, 0, 1, expect=None)
        assert result.status is Status.CHECK_CONDITION
        assert not result.express
        assert (await disk.read(10, 0, 1)).express


@pytest.mark.parametrize("interlock", [0, 1])
async def test_unit_attention_interlock(interlock: int) -> None:
    """SPC-5 7.5.10: UA_INTLCK_CTRL 10b: the condition stays until REQUEST SENSE takes it."""
    async with target(None, emulate_ua_intlck_ctrl=interlock) as port:
        disk = ApplicationClient(port.connect())
        first = await disk.test_unit_ready(expect=None)
        assert first.status is Status.CHECK_CONDITION
        second = await disk.test_unit_ready(expect=None)
        assert second.status is (Status.CHECK_CONDITION if interlock else Status.GOOD)
        if interlock:
            assert (await disk.request_sense())[2] & 0xF == SenseKey.UNIT_ATTENTION
            await disk.test_unit_ready()


async def test_unit_attention_interlock_previous_conflict() -> None:
    """SPC-5 7.5.10: UA_INTLCK_CTRL 11b: a RESERVATION CONFLICT establishes PREVIOUS RESERVATION CONFLICT STATUS."""
    async with target(None, emulate_ua_intlck_ctrl=2) as port:
        one, two = ApplicationClient(port.connect()), ApplicationClient(port.connect(SECOND))
        await one.request_sense()
        await two.request_sense()
        await one.reserve()
        await two.read(10, 0, 1, expect=Status.RESERVATION_CONFLICT)
        await one.release()
        await two.test_unit_ready(expect=unit_attention.PREVIOUS_RESERVATION_CONFLICT_STATUS)


async def test_asynchronous_event() -> None:
    """SAM-5 5.14: the fabric hears of a condition when it is established."""
    async with one_initiator() as disk:
        before = len(disk.initiator.transport.events)
        nexus = disk.initiator.nexus
        assert nexus is not None
        (itl,) = nexus.luns.values()
        itl.establish_attention(unit_attention.INQUIRY_DATA_HAS_CHANGED)
        assert disk.initiator.transport.events[before:] == [(bytes(8), unit_attention.INQUIRY_DATA_HAS_CHANGED)]
        await disk.test_unit_ready(expect=unit_attention.INQUIRY_DATA_HAS_CHANGED)
