"""SAM-5 5.6: whoever clears a task set, by whatever port and fabric, clears commands that an FCP target has not handed on."""

from __future__ import annotations

import anyio.lowlevel
import pytest
from support.fcp_session import DPO, TEST_UNIT_READY, FcpInitiator, FcpSite, fcp_site, read10, write10
from support.reservations import out, register
from support.scsi import make_target, pattern
from tcm_fcoe.protocol.fcp import Response, ServiceParameters
from tcm_fcoe.protocol.fcp_nexus import READ_LIMIT
from tcm_loopback.commands import ApplicationClient

from tcm.scsi.persistent_reservations import OutAction
from tcm.scsi.persistent_reservations import ReservationType as Kind
from tcm.scsi.sense import Status
from tcm.target.logical_unit import LogicalUnit
from tcm.target.task_management import TaskManagementFunction, TaskManagementResponse

pytestmark = pytest.mark.anyio
Function = TaskManagementFunction
INITIATOR = int(ServiceParameters.INITIATOR_FUNCTION | ServiceParameters.READ_FCP_XFER_RDY_DISABLED)
FIRST_BURST = INITIATOR | ServiceParameters.WRITE_FCP_XFER_RDY_DISABLED
CLEARING = [Function.LOGICAL_UNIT_RESET, Function.TARGET_WARM_RESET, Function.CLEAR_TASK_SET]
A, B = 0xA, 0xB


def unit(site: FcpSite) -> LogicalUnit:
    return site.group.luns[0].logical_unit


async def elsewhere(site: FcpSite) -> ApplicationClient:
    """Another target port, of another fabric, with the same logical unit."""
    client = ApplicationClient(make_target(unit(site)).connect("naa.5001405000000001"))
    await client.identify()
    return client


async def settle() -> None:
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


async def clear(client: ApplicationClient, function: TaskManagementFunction) -> None:
    response = await client.initiator.task_management(function)
    assert response is TaskManagementResponse.FUNCTION_COMPLETE


def nothing_is_held(i: FcpInitiator) -> None:
    assert not i.nexus.exchanges
    assert not i.nexus.collecting
    assert (i.nexus.data_in.used, i.nexus.data_out.used) == (0, 0)


@pytest.mark.parametrize("tas", [True, False])
@pytest.mark.parametrize("function", CLEARING)
async def test_writes_are_cleared_by_another_port(function: TaskManagementFunction, tas: bool) -> None:
    """SAM-5 5.6, 7.5 to 7.7: TASK ABORTED or a unit attention, once the data has come; nothing of it is written."""
    async with fcp_site() as site:
        i = site.login().ready()
        client = await elsewhere(site)
        unit(site).mode_parameters.task_aborted_status = tas
        ox_id = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        i.data(ox_id, ready.rx_id, pattern(4096), keep={0})
        await clear(client, function)
        assert not i.received()
        i.data(ox_id, ready.rx_id, pattern(4096))
        if tas:
            assert i.outcome(ox_id)[0].status == Status.TASK_ABORTED
        else:
            assert not i.received()
        nothing_is_held(i)
        quiet = tas and function is Function.CLEAR_TASK_SET
        assert i.outcome(i.command(TEST_UNIT_READY))[0].status == (Status.GOOD if quiet else Status.CHECK_CONDITION)
        assert i.read(0, 8) == bytes(4096)
        i.write(0, pattern(4096))
        assert i.read(0, 8) == pattern(4096)


@pytest.mark.parametrize("function", CLEARING)
async def test_first_bursts_are_cleared_by_another_port(function: TaskManagementFunction) -> None:
    """SAM-5 5.6: the same if no FCP_XFER_RDY has to be asked for."""
    async with fcp_site(first_burst=True) as site:
        i = site.login(parameters=FIRST_BURST).ready()
        client = await elsewhere(site)
        ox_id = i.command(write10(0, 8), write=4096)
        await clear(client, function)
        i.data(ox_id, 0xFFFF, pattern(4096))
        assert i.outcome(ox_id)[0].status == Status.TASK_ABORTED
        nothing_is_held(i)
        i.command(TEST_UNIT_READY)
        i.received()
        assert i.read(0, 8) == bytes(4096)


async def test_commands_that_wait_for_memory_are_cleared_by_another_port() -> None:
    """SAM-5 5.6: neither executed nor forgotten."""
    async with fcp_site() as site:
        i = site.login().ready()
        client = await elsewhere(site)
        size = 1 << 20
        reads = [i.command(read10(0, size // 512, DPO), read=size) for _ in range(2 * READ_LIMIT // size)]
        waiting = len(i.nexus.backlog)
        assert waiting
        await clear(client, Function.CLEAR_TASK_SET)
        await settle()
        assert not i.nexus.backlog
        responses = [Response.unpack(frame.payload) for frame in i.received() if frame.r_ctl == 7]
        assert len(responses) == len(reads)
        assert sum(each.status == Status.TASK_ABORTED for each in responses) >= waiting
        nothing_is_held(i)


async def test_other_logical_units_are_left_alone() -> None:
    """SAM-5 7.5: CLEAR TASK SET is of one logical unit."""
    async with fcp_site(None, None) as site:
        lun = b"\0\1" + bytes(6)
        i = site.login().ready().ready(lun)
        client = await elsewhere(site)
        ox_id = i.command(write10(0, 8), write=4096, lun=lun)
        (ready,) = i.received()
        await clear(client, Function.CLEAR_TASK_SET)
        i.data(ox_id, ready.rx_id, pattern(4096))
        assert i.outcome(ox_id)[0] == Response()


async def test_writes_of_the_preempted_are_aborted() -> None:
    """SPC-4 5.13.11.2.6: PREEMPT AND ABORT by another port; those of others go on."""
    async with fcp_site() as site:
        loser, spared = site.login().ready(), site.login(0x009800).ready()
        client = await elsewhere(site)
        await register(client, A)
        for i, key in ((loser, B), (spared, A)):
            parameters = bytes(8) + key.to_bytes(8) + bytes(8)
            ox_id = i.command(bytes((0x5F, OutAction.REGISTER, 0, 0, 0, 0, 0, 0, 24, 0)), write=24)
            assert i.give(ox_id, parameters) == Response()
        writes = {i: i.command(write10(8 * number, 8), write=4096) for number, i in enumerate((loser, spared))}
        readies = {frame.d_id: frame for frame in site.drain()}
        await out(client, OutAction.PREEMPT_AND_ABORT, A, B, Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
        for i, ox_id in writes.items():
            i.data(ox_id, readies[i.remote.fc_id].rx_id, pattern(4096))
        frames = site.drain()
        status = {frame.d_id: Response.unpack(frame.payload).status for frame in frames}
        assert status == {loser.remote.fc_id: Status.TASK_ABORTED, spared.remote.fc_id: Status.GOOD}
        assert spared.read(0, 16) == bytes(4096) + pattern(4096)


async def test_writes_to_a_lun_that_goes_are_aborted() -> None:
    """SAM-5 5.6.4: the LUN is taken away while data is on its way."""
    async with fcp_site(None, None) as site:
        lun = b"\0\1" + bytes(6)
        i = site.login().ready().ready(lun)
        ox_id = i.command(write10(0, 8), write=4096, lun=lun)
        (ready,) = i.received()
        site.group.remove_lun(1)
        i.data(ox_id, ready.rx_id, pattern(4096))
        assert i.outcome(ox_id)[0].status == Status.TASK_ABORTED
        nothing_is_held(i)


@pytest.mark.parametrize("bits", [0, DPO], ids=["ordinary", "general"])
async def test_drained_commands_end_before_the_initiator_leaves(bits: int) -> None:
    """SAM-5 5.3.1: BUSY for what comes later; a write whose data is on its way was there before."""
    async with fcp_site() as site:
        i = site.login().ready()
        nexus, core = i.nexus, i.nexus.port.nexus
        ox_id = i.command(write10(0, 8, bits), write=4096)
        (ready,) = i.received()
        core.drain()
        site.target.leave(nexus, site.now)
        assert len(core.tasks) == 1
        site.tick(1)
        assert i.outcome(i.command(read10(0, 8), read=4096))[0].status == Status.BUSY
        i.data(ox_id, ready.rx_id, pattern(4096))
        assert i.outcome(ox_id)[0] == Response()
        assert site.target.nexuses
        site.tick(1)
        assert site.endings == ["sent away"]
        assert site.login().ready().read(0, 8) == pattern(4096)


async def test_who_is_not_drained_any_more_stays() -> None:
    """The drain was given up before the last command had ended."""
    async with fcp_site() as site:
        i = site.login().ready()
        ox_id = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        i.nexus.port.nexus.drain()
        site.target.leave(i.nexus, site.now)
        site.tick(1)
        i.nexus.port.nexus.end_drain()
        i.data(ox_id, ready.rx_id, pattern(4096))
        assert i.outcome(ox_id)[0] == Response()
        site.tick(1)
        assert not site.endings
        assert not site.target.leaving
        i.write(0, pattern(4096))


async def test_reads_that_wait_for_memory_are_busy_once_it_is_drained() -> None:
    """They would be read all at once."""
    async with fcp_site() as site:
        i = site.login().ready()
        size = 1 << 20
        reads = [i.command(read10(0, size // 512, DPO), read=size) for _ in range(2 * READ_LIMIT // size)]
        waiting = len(i.nexus.backlog)
        i.nexus.port.nexus.drain()
        await settle()
        responses = [Response.unpack(frame.payload) for frame in i.received() if frame.r_ctl == 7]
        assert len(responses) == len(reads)
        assert sum(each.status == Status.BUSY for each in responses) == waiting
        nothing_is_held(i)
