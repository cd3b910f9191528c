"""FCP-4 clause 4.9, table 4: what a task management function or a logout of one initiator clears, and of whom."""

from __future__ import annotations

import anyio.lowlevel
import pytest
from support.fcp_session import DPO, INITIATOR_ID, TEST_UNIT_READY, FcpInitiator, fcp_site, read10, unpack, write10
from support.memory import GatedMemory
from support.scsi import pattern
from tcm_fcoe.protocol.basic import Abts, BasicAccept
from tcm_fcoe.protocol.fc4 import BasicReply
from tcm_fcoe.protocol.fcp import InformationUnit, Response, TaskManagementFlag

from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
OTHER = 0x009800
LUN_1 = b"\0\1" + bytes(6)


def manage(i: FcpInitiator, flag: TaskManagementFlag, ox_id: int = 0x500) -> None:
    i.command(b"", ox_id=ox_id, management=flag)


async def settle() -> None:
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("bits", [0, DPO], ids=["ordinary", "general"])
@pytest.mark.parametrize(
    "flag, status",
    [
        (TaskManagementFlag.LOGICAL_UNIT_RESET, Status.CHECK_CONDITION),
        (TaskManagementFlag.TARGET_RESET, Status.CHECK_CONDITION),
        (TaskManagementFlag.CLEAR_TASK_SET, Status.GOOD),
    ],
)
async def test_writes_of_others_are_cleared_whose_data_is_on_its_way(flag, status, bits):
    """FCP-4 4.9: TAS is one: each gets TASK ABORTED, and nothing is written; resets leave a unit attention."""
    async with fcp_site() as site:
        one, two = site.login().ready(), site.login(OTHER).ready()
        writes = [two.command(write10(8 * number, 8, bits), write=4096) for number in range(3)]
        readies = two.received()
        two.data(writes[0], readies[0].rx_id, pattern(4096), keep={0})
        manage(one, flag)
        await settle()
        (response,) = one.received()
        assert Response.unpack(response.payload).code == 0
        for ox_id, ready in zip(writes, readies, strict=True):
            two.data(ox_id, ready.rx_id, pattern(4096))
            assert two.outcome(ox_id)[0].status == Status.TASK_ABORTED
        assert not two.nexus.exchanges
        assert not site.target.data_out.used
        assert two.outcome(two.command(TEST_UNIT_READY))[0].status == status
        assert two.read(0, 24) == bytes(24 * 512)


async def test_abort_task_set_leaves_others_alone():
    """FCP-4 4.9: ABORT TASK SET clears the commands of the one who asks, in one logical unit."""
    async with fcp_site() as site:
        one, two = site.login().ready(), site.login(OTHER).ready()
        ox_id = two.command(write10(0, 8), write=4096)
        manage(one, TaskManagementFlag.ABORT_TASK_SET)
        await settle()
        site.target.resume(site.now)
        ready, _ = [unpack(frame) for frame in site.outbox]
        site.outbox.clear()
        two.data(ox_id, ready.rx_id, pattern(4096))
        assert two.outcome(ox_id)[0] == Response()


async def test_logical_unit_reset_leaves_other_units_alone():
    """FCP-4 4.9: LOGICAL UNIT RESET clears one logical unit; commands for others go on."""
    async with fcp_site(None, None) as site:
        one, two = site.login().ready().ready(LUN_1), site.login(OTHER).ready().ready(LUN_1)
        ox_id = two.command(write10(0, 8), write=4096, lun=LUN_1)
        (ready,) = two.received()
        manage(one, TaskManagementFlag.LOGICAL_UNIT_RESET)
        await settle()
        assert one.received()
        two.data(ox_id, ready.rx_id, pattern(4096))
        assert two.outcome(ox_id)[0] == Response()


async def test_abts_is_not_answered_in_the_next_login():
    """FCP-4 4.9: its exchange ended with the login; the OX_ID may be another command's by now."""
    store = GatedMemory()
    async with fcp_site(store) as site:
        one = site.login().ready()
        store.shut()
        ox_id = one.command(read10(0, 8, DPO), read=4096)
        await store.until_waiting(1)
        answers: list[BasicReply] = []
        abts = Abts(INITIATOR_ID, ox_id, 0xFFFF, 0, 0, from_responder=False)
        assert site.target.abort(one.remote, abts, answers.append, site.now) is None
        site.target.end(INITIATOR_ID)
        again = site.login()
        store.release()
        await settle()
        assert answers == []
        assert again.outcome(again.command(TEST_UNIT_READY, ox_id=ox_id))[0].status == 2


async def test_abts_is_answered_when_the_core_has_let_go():
    """FCP-4 12.3: BA_ACC to ABTS comes once the command can do nothing more."""
    store = GatedMemory()
    async with fcp_site(store) as site:
        one = site.login().ready()
        store.shut()
        ox_id = one.command(read10(0, 8, DPO), read=4096)
        await store.until_waiting(1)
        answers: list[BasicReply] = []
        abts = Abts(INITIATOR_ID, ox_id, 0xFFFF, 0, 0, from_responder=False)
        answer = site.target.abort(one.remote, abts, answers.append, site.now)
        store.release()
        await settle()
        (accepted,) = [each for each in (answer, *answers) if each is not None]
        assert isinstance(accepted, BasicAccept)
        assert not [frame for frame in one.received() if frame.r_ctl == InformationUnit.FCP_RSP]


@pytest.mark.parametrize("released_first", [False, True])
async def test_nothing_is_held_for_a_login_that_ended(released_first):
    """FCP-4 4.9: commands that the core has, commands that wait for data, answers that the link has not taken."""
    store = GatedMemory()
    async with fcp_site(store) as site:
        one = site.login().ready()
        store.shut()
        for number in range(4):
            one.command(read10(8 * number, 8, DPO), read=4096)
            one.command(write10(8 * number, 8, DPO), write=4096)
            one.command(write10(8 * number, 8), write=4096)
        await store.until_waiting(4)
        if released_first:
            store.release()
            await settle()
        nexus = one.nexus
        site.target.end(INITIATOR_ID)
        store.release()
        await settle()
        target = site.target
        assert not nexus.exchanges
        assert (target.open_exchanges, target.data_in.used, target.data_out.used, target.kept.used) == (0, 0, 0, 0)
        site.outbox.clear()
        target.resume(site.now)
        assert not [frame for frame in site.drain() if frame.r_ctl != InformationUnit.FCP_DATA]
