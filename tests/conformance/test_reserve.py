"""RESERVE and RELEASE (6), (10): SPC-2 7.21 to 7.24, with SBC-4's and SPC-2's tables of what conflicts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from support.scsi import one_initiator, pattern
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidOpcode
from tcm.scsi.sense import Status
from tcm.target.task_management import TaskManagementFunction

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("length", [6, 10])
Pair = tuple[ApplicationClient, ApplicationClient]
CONFLICT = Status.RESERVATION_CONFLICT


@BOTH
async def test_reserve_simple(disk: ApplicationClient, length: int) -> None:
    """SPC-2 7.22: reserve, reserve again, release, release again."""
    await disk.reserve(length)
    await disk.reserve(length)
    await disk.read(10, 0, 1)
    await disk.write(10, 0, pattern(512))
    await disk.release(length)
    await disk.release(length)


@BOTH
async def test_reserve_two_initiators(pair: Pair, length: int) -> None:
    """SPC-2 7.22: the other nexus conflicts; its RELEASE is GOOD and releases nothing."""
    one, two = pair
    await one.reserve(length)
    await one.reserve(length)
    await two.reserve(6, expect=CONFLICT)
    await two.reserve(10, expect=CONFLICT)
    await two.release(length)
    await one.mode_sense(6, 0x3F)
    await two.mode_sense(6, 0x3F, expect=CONFLICT)
    await two.reserve(length, expect=CONFLICT)
    await one.release(16 - length)
    await two.reserve(length)
    await one.test_unit_ready(expect=CONFLICT)
    await two.release(length)
    await one.test_unit_ready()


@BOTH
async def test_release_by_others(pair: Pair, length: int) -> None:
    """SPC-2 7.17, 7.18: RELEASE of who does not hold the reservation is GOOD and releases nothing, with either CDB."""
    one, two = pair
    await two.release(length)
    await one.reserve(length)
    for each in (6, 10):
        await two.release(each)
        await two.test_unit_ready(expect=CONFLICT)
    await one.release(length)
    await two.test_unit_ready()
    await two.execute(cdb.release(length, flags=0x10), expect=InvalidFieldInCdb)


CONFLICTING = {
    "TEST UNIT READY": cdb.test_unit_ready(),
    "READ (6)": cdb.read(6, 0, 1),
    "READ (10)": cdb.read(10, 0, 1),
    "READ (16)": cdb.read(16, 0, 1),
    "WRITE (10)": cdb.write(10, 0, 1),
    "WRITE (16)": cdb.write(16, 0, 1),
    "VERIFY (10)": cdb.verify(10, 0, 1),
    "WRITE SAME (16)": cdb.write_same(16, 0, 1),
    "UNMAP": cdb.unmap(24),
    "COMPARE AND WRITE": cdb.compare_and_write(0, 1),
    "SYNCHRONIZE CACHE (10)": cdb.synchronize_cache(10),
    "MODE SENSE (10)": cdb.mode_sense(10, 0x3F),
    "MODE SELECT (6)": cdb.mode_select(6, 0),
    "START STOP UNIT, stop": cdb.start_stop_unit(),
    "PREVENT": cdb.prevent_allow_medium_removal(1),
    "SEND DIAGNOSTIC": cdb.send_diagnostic(self_test=True),
}
ALLOWED = {
    "INQUIRY": cdb.inquiry(),
    "REPORT LUNS": cdb.report_luns(),
    "REQUEST SENSE": cdb.request_sense(),
    "LOG SENSE": cdb.log_sense(0),
    "READ CAPACITY (10)": cdb.read_capacity10(),
    "READ CAPACITY (16)": cdb.read_capacity16(),
    "START STOP UNIT, start": cdb.start_stop_unit(start=True),
    "RELEASE (6)": cdb.release(6),
    "RELEASE (10)": cdb.release(10),
    "REPORT SUPPORTED OPERATION CODES": cdb.report_supported_operation_codes(),
}


@pytest.mark.parametrize("name", CONFLICTING)
async def test_reserve_conflicting(pair: Pair, name: str) -> None:
    """SPC-2 table 9, SBC-4 table 13: RESERVATION CONFLICT, no sense data, nothing done."""
    one, two = pair
    await one.reserve()
    result = await two.execute(CONFLICTING[name], bytes(1024), expect=CONFLICT)
    assert result.sense is None


@pytest.mark.parametrize("name", ALLOWED)
async def test_reserve_allowed(pair: Pair, name: str) -> None:
    """SPC-2 table 9, SBC-4 table 13: allowed whoever holds the reservation."""
    one, two = pair
    await one.reserve()
    await two.execute(ALLOWED[name], read_length=65536)


async def test_reserve_express(pair: Pair) -> None:
    """SPC-2 7.22: the express lane is closed to the others, open to the holder, and opens again with the release."""
    one, two = pair
    one.initiator.express = two.initiator.express = True
    assert (await two.read(10, 0, 1)).express
    await one.reserve()
    await two.read(10, 0, 1, expect=CONFLICT)
    await two.write(10, 0, pattern(512), expect=CONFLICT)
    assert (await one.read(10, 0, 1)).express
    await one.release()
    assert (await two.write(10, 0, pattern(512))).express


async def logout(client: ApplicationClient) -> None:
    client.initiator.disconnect()


def reset(function: TaskManagementFunction) -> Callable[[ApplicationClient], Awaitable[None]]:
    async def do(client: ApplicationClient) -> None:
        await client.initiator.task_management(function)

    return do


ENDS = {
    "nexus loss": logout,
    "I_T NEXUS RESET": reset(TaskManagementFunction.I_T_NEXUS_RESET),
    "LOGICAL UNIT RESET": reset(TaskManagementFunction.LOGICAL_UNIT_RESET),
    "TARGET WARM RESET": reset(TaskManagementFunction.TARGET_WARM_RESET),
    "TARGET COLD RESET": reset(TaskManagementFunction.TARGET_COLD_RESET),
}


@pytest.mark.parametrize("end", ENDS)
async def test_reserve_ends(pair: Pair, end: str) -> None:
    """SPC-2 7.22.1: nexus loss and resets release it."""
    one, two = pair
    await one.reserve()
    await two.test_unit_ready(expect=CONFLICT)
    await ENDS[end](one)
    if two.initiator.nexus is None or two.initiator.nexus.lost:
        two.initiator.reconnect()
    await two.identify()
    await two.reserve()


@BOTH
async def test_reserve_third_party(disk: ApplicationClient, length: int) -> None:
    """SPC-2 7.21.2: third-party and extent reservations are refused."""
    for flags in (0x10, 0x01):
        await disk.execute(cdb.reserve(length, flags=flags), expect=InvalidFieldInCdb)
        await disk.execute(cdb.release(length, flags=flags), expect=InvalidFieldInCdb)


async def test_reserve_not_supported() -> None:
    """LIO's emulate_pr=0: reservations are not there."""
    async with one_initiator(emulate_pr=False) as disk:
        await disk.reserve(6, expect=InvalidOpcode)
        await disk.release(10, expect=InvalidOpcode)
