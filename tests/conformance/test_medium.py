"""START STOP UNIT (SBC-4 5.28), PREVENT ALLOW MEDIUM REMOVAL (5.12), a unit without its medium, a read-only unit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest
from support.memory import GatedMemory
from support.scsi import FIRST, SECOND, make_lu, make_target, one_initiator, pattern
from tcm_loopback.commands import ApplicationClient, check

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InitializingCommandRequired,
    InvalidFieldInCdb,
    MediumNotPresent,
    MediumRemovalPrevented,
    WriteProtected,
)
from tcm.scsi.sense import Status
from tcm.target import unit_attention
from tcm.target.task_management import TaskManagementFunction

pytestmark = pytest.mark.anyio
Pair = tuple[ApplicationClient, ApplicationClient]
BLOCK = pattern(512)

WRITES = {
    "WRITE (6)": (cdb.write(6, 0, 1), BLOCK),
    "WRITE (10)": (cdb.write(10, 0, 1), BLOCK),
    "WRITE (12)": (cdb.write(12, 0, 1), BLOCK),
    "WRITE (16)": (cdb.write(16, 0, 1), BLOCK),
    "WRITE AND VERIFY (10)": (cdb.write_and_verify(10, 0, 1, bytchk=1), BLOCK),
    "WRITE AND VERIFY (12)": (cdb.write_and_verify(12, 0, 1, bytchk=1), BLOCK),
    "WRITE AND VERIFY (16)": (cdb.write_and_verify(16, 0, 1, bytchk=1), BLOCK),
    "WRITE ATOMIC (16)": (cdb.write_atomic(0, 1), BLOCK),
    "ORWRITE (16)": (cdb.orwrite(0, 1), BLOCK),
    "COMPARE AND WRITE": (cdb.compare_and_write(0, 1), bytes(512) + BLOCK),
    "WRITE SAME (10)": (cdb.write_same(10, 0, 1), BLOCK),
    "WRITE SAME (10) unmap": (cdb.write_same(10, 0, 1, unmap=True), b""),
    "WRITE SAME (16)": (cdb.write_same(16, 0, 1), BLOCK),
    "WRITE SAME (16) unmap": (cdb.write_same(16, 0, 1, unmap=True, ndob=True), b""),
    "UNMAP": (cdb.unmap(24), cdb.unmap_parameters((0, 8))),
}
OTHERS = {
    "TEST UNIT READY": (cdb.test_unit_ready(), 0),
    "READ (6)": (cdb.read(6, 0, 1), 512),
    "READ (10)": (cdb.read(10, 0, 1), 512),
    "READ (12)": (cdb.read(12, 0, 1), 512),
    "READ (16)": (cdb.read(16, 0, 1), 512),
    "VERIFY (10)": (cdb.verify(10, 0, 1), 0),
    "VERIFY (12)": (cdb.verify(12, 0, 1), 0),
    "VERIFY (16)": (cdb.verify(16, 0, 1), 0),
    "PRE-FETCH (10)": (cdb.pre_fetch(10, 0, 1, immed=True), 0),
    "PRE-FETCH (16)": (cdb.pre_fetch(16, 0, 1, immed=True), 0),
    "SYNCHRONIZE CACHE (10)": (cdb.synchronize_cache(10, 0, 1), 0),
    "SYNCHRONIZE CACHE (16)": (cdb.synchronize_cache(16, 0, 1), 0),
    "READ CAPACITY (10)": (cdb.read_capacity10(), 8),
    "READ CAPACITY (16)": (cdb.read_capacity16(), 32),
    "GET LBA STATUS": (cdb.get_lba_status(0, 24), 24),
}
NO_MEDIUM_NEEDED = {
    "INQUIRY": (cdb.inquiry(None, 96), 96),
    "REPORT LUNS": (cdb.report_luns(), 4096),
    "REQUEST SENSE": (cdb.request_sense(), 252),
    "MODE SENSE (6)": (cdb.mode_sense(6, 0x3F), 252),
    "LOG SENSE": (cdb.log_sense(0), 4096),
    "REPORT SUPPORTED OPERATION CODES": (cdb.report_supported_operation_codes(), 65536),
}


@pytest.mark.parametrize("immed", [False, True])
async def test_start_stop_unit_eject(removable: ApplicationClient, immed: bool) -> None:
    """SBC-4 5.28: LOEJ without START ejects, with START loads; the data are still there."""
    await removable.write(10, 0, BLOCK)
    await removable.start_stop_unit(loej=True, immed=immed)
    await removable.test_unit_ready(expect=MediumNotPresent)
    await removable.start_stop_unit(loej=True, immed=immed)
    await removable.start_stop_unit(loej=True, start=True, immed=immed)
    await removable.identify()
    assert (await removable.read(10, 0, 1)).data_in == BLOCK


@pytest.mark.parametrize("no_flush", [False, True])
async def test_start_stop_unit_without_loej(removable: ApplicationClient, no_flush: bool) -> None:
    """SBC-4 5.28: without LOEJ nothing is ejected; a removable unit that is stopped starts again by itself."""
    for immed in (False, True):
        await removable.start_stop_unit(immed=immed, no_flush=no_flush)
        await removable.test_unit_ready()
        await removable.start_stop_unit(start=True, immed=immed, no_flush=no_flush)
        await removable.test_unit_ready()


async def test_start_stop_unit_power_condition(removable: ApplicationClient) -> None:
    """SBC-4 5.28: with a POWER CONDITION, START and LOEJ are ignored: nothing is ejected."""
    for condition in range(1, 16):
        await removable.start_stop_unit(immed=True, power_condition=condition, loej=True)
        await removable.test_unit_ready()


async def test_start_stop_unit_not_removable(disk: ApplicationClient) -> None:
    """SBC-4 5.28: what cannot be ejected is not: LOEJ is refused."""
    await disk.start_stop_unit(loej=True, expect=InvalidFieldInCdb)
    await disk.test_unit_ready()


async def test_start_stop_unit_stop(disk: ApplicationClient) -> None:
    """SBC-4 5.28, 5.1: a stopped unit accesses no medium, in either lane, until START."""
    await disk.write(10, 0, BLOCK)
    await disk.start_stop_unit()
    await disk.test_unit_ready(expect=InitializingCommandRequired)
    disk.initiator.express = True
    await disk.read(10, 0, 1, expect=InitializingCommandRequired)
    await disk.write(10, 0, bytes(512), expect=InitializingCommandRequired)
    await disk.inquiry()
    await disk.mode_sense(6, 0x3F)
    await disk.start_stop_unit(start=True)
    result = await disk.read(10, 0, 1)
    assert result.data_in == BLOCK
    assert result.express


async def test_start_stop_unit_flushes() -> None:
    """SBC-4 5.28: stopping without NO_FLUSH makes the cache durable, before the status or (IMMED) after it."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        await disk.start_stop_unit(no_flush=True)
        assert ("flush", 0, 0) not in store.log
        await disk.start_stop_unit(start=True)
        await disk.start_stop_unit()
        assert ("flush", 0, 0) in store.log
        await disk.start_stop_unit(start=True)
        store.log.clear()
        await disk.start_stop_unit(immed=True)
        with anyio.fail_after(60):
            while not store.log:
                await anyio.lowlevel.checkpoint()
        assert store.log == [("flush", 0, 0)]


async def test_medium_changed_for_others(removable_pair: Pair) -> None:
    """SPC-5 table 54: a medium that was loaded is a unit attention for the other nexuses."""
    one, two = removable_pair
    await one.start_stop_unit(loej=True)
    await two.test_unit_ready(expect=MediumNotPresent)
    await one.start_stop_unit(loej=True, start=True)
    await two.test_unit_ready(expect=unit_attention.MEDIUM_CHANGED)
    await two.test_unit_ready()


async def test_prevent_allow_medium_removal_eject(removable: ApplicationClient) -> None:
    """SBC-4 5.12: while prevented, neither eject nor load; allowed again, both."""
    await removable.prevent_allow_medium_removal(1)
    await removable.start_stop_unit(loej=True, expect=MediumRemovalPrevented)
    await removable.test_unit_ready()
    await removable.prevent_allow_medium_removal(0)
    await removable.start_stop_unit(loej=True)
    await removable.test_unit_ready(expect=MediumNotPresent)
    await removable.prevent_allow_medium_removal(1)
    await removable.start_stop_unit(loej=True, start=True, expect=MediumRemovalPrevented)
    await removable.prevent_allow_medium_removal(0)
    await removable.start_stop_unit(loej=True, start=True)
    await removable.identify()
    await removable.test_unit_ready()


async def test_prevent_allow_medium_removal_simple(disk: ApplicationClient, removable: ApplicationClient) -> None:
    """SBC-4 5.12: 0 and 1 are accepted on a removable unit, repeated or not; obsolete values are refused or accepted whole."""
    for prevent in (1, 1, 0, 0):
        await removable.prevent_allow_medium_removal(prevent)
    await disk.prevent_allow_medium_removal(0, expect=None)
    await disk.test_unit_ready()


async def test_prevent_allow_medium_removal_two_nexuses(removable_pair: Pair) -> None:
    """SBC-4 5.12: removal is prevented for everybody until every nexus that prevented it allows it."""
    one, two = removable_pair
    await one.prevent_allow_medium_removal(1)
    await two.prevent_allow_medium_removal(1)
    await two.start_stop_unit(loej=True, expect=MediumRemovalPrevented)
    await two.prevent_allow_medium_removal(0)
    await two.start_stop_unit(loej=True, expect=MediumRemovalPrevented)
    await one.prevent_allow_medium_removal(0)
    await two.start_stop_unit(loej=True)


def reset(function: TaskManagementFunction) -> Callable[[ApplicationClient], Awaitable[None]]:
    async def do(client: ApplicationClient) -> None:
        await client.initiator.task_management(function)
        if client.initiator.nexus is None or client.initiator.nexus.lost:
            client.initiator.reconnect()

    return do


async def lose_nexus(client: ApplicationClient) -> None:
    client.initiator.reconnect()


ENDS = {
    "nexus loss": lose_nexus,
    "LOGICAL UNIT RESET": reset(TaskManagementFunction.LOGICAL_UNIT_RESET),
    "TARGET WARM RESET": reset(TaskManagementFunction.TARGET_WARM_RESET),
    "TARGET COLD RESET": reset(TaskManagementFunction.TARGET_COLD_RESET),
}


@pytest.mark.parametrize("end", ENDS)
async def test_prevent_allow_medium_removal_ends(removable: ApplicationClient, end: str) -> None:
    """SBC-4 5.12: nexus loss and every reset end the prevention."""
    await removable.prevent_allow_medium_removal(1)
    await removable.start_stop_unit(loej=True, expect=MediumRemovalPrevented)
    await ENDS[end](removable)
    await removable.identify()
    await removable.start_stop_unit(loej=True)
    await removable.test_unit_ready(expect=MediumNotPresent)


@pytest.mark.parametrize("name", [*WRITES, *OTHERS])
async def test_no_medium(removable: ApplicationClient, name: str) -> None:
    """SBC-4 5.1: what needs the medium ends in MEDIUM NOT PRESENT when it is ejected."""
    await removable.start_stop_unit(loej=True)
    if name in WRITES:
        await removable.execute(*WRITES[name], expect=MediumNotPresent)
    else:
        command, length = OTHERS[name]
        await removable.execute(command, read_length=length, expect=MediumNotPresent)


@pytest.mark.parametrize("name", NO_MEDIUM_NEEDED)
async def test_no_medium_needed(removable: ApplicationClient, name: str) -> None:
    """SPC-5 4.2.4: what says something of the unit works without a medium."""
    await removable.start_stop_unit(loej=True)
    command, length = NO_MEDIUM_NEEDED[name]
    await removable.execute(command, read_length=length)


async def test_no_medium_express(removable: ApplicationClient) -> None:
    """SBC-4 5.1: the express lane is closed while the medium is out."""
    removable.initiator.express = True
    assert (await removable.read(10, 0, 1)).express
    await removable.start_stop_unit(loej=True)
    await removable.read(10, 0, 1, expect=MediumNotPresent)


@pytest.mark.parametrize("name", WRITES)
async def test_read_only(read_only: ApplicationClient, name: str) -> None:
    """SBC-4 4.16: every command that writes ends in WRITE PROTECTED, before anything else is found wrong with its data."""
    await read_only.execute(*WRITES[name], expect=WriteProtected)


@pytest.mark.parametrize("name", OTHERS)
async def test_read_only_others(read_only: ApplicationClient, name: str) -> None:
    """SBC-4 4.16: everything else works."""
    command, length = OTHERS[name]
    result = await read_only.execute(command, read_length=length, expect=None)
    assert result.status in {Status.GOOD, Status.CONDITION_MET}


async def test_read_only_backstore() -> None:
    """SBC-4 4.16: a backstore that cannot be written makes a write protected unit, in either lane."""
    async with one_initiator(GatedMemory(read_only=True), express=True) as disk:
        await disk.write(10, 0, BLOCK, expect=WriteProtected)
        assert (await disk.mode_sense(6, 0x3F))[2] & 0x80


@pytest.mark.parametrize("write_protect", [False, True])
async def test_read_only_mapped_lun(write_protect: bool) -> None:
    """LIO's write_protect of a mapped LUN: one unit, read-only for one initiator and writable for another."""
    async with make_lu() as unit:
        port = make_target(unit)
        group = port.target_portal_group
        group.map_lun(group.add_node_acl(SECOND), 0, 0, write_protect=write_protect)
        mapped, other = (ApplicationClient(port.connect(name, express=True)) for name in (SECOND, FIRST))
        await mapped.identify()
        await other.identify()
        assert (await other.write(10, 0, BLOCK)).express
        if write_protect:
            await mapped.write(10, 0, bytes(512), expect=WriteProtected)
            assert (await mapped.read(10, 0, 1)).data_in == BLOCK
        else:
            await mapped.write(10, 0, bytes(512))
        assert bool((await mapped.mode_sense(6, 0x3F))[2] & 0x80) is write_protect
        assert not (await other.mode_sense(6, 0x3F))[2] & 0x80
        mapped.initiator.disconnect()
        other.initiator.disconnect()


async def test_eject_leaves_nothing_in_the_cache() -> None:
    """SBC-4 5.28: what is written while the cache is being emptied is durable, too, before the medium can be taken out."""
    store = GatedMemory()
    async with one_initiator(store, removable=True) as disk:
        store.shut()
        eject = disk.initiator.start(0, cdb.start_stop_unit(loej=True))
        await store.until_waiting(1)
        late = disk.initiator.start(0, cdb.write(10, 0, 1), bytes(512))
        await store.until_waiting(2)
        assert ("write fua", 0, 512) in store.waiting
        store.release()
        check(await eject.wait(), Status.GOOD)
        check(await late.wait(), Status.GOOD)
        await disk.start_stop_unit(loej=True, start=True)
        await disk.write(10, 0, bytes(512))
        assert store.log[-1] == ("write", 0, 512)
