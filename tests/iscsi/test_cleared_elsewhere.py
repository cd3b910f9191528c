"""SAM-5 5.6: a task set that another port clears takes with it the iSCSI commands whose data is on its way."""

from __future__ import annotations

import pytest
from support.iscsi_session import connected
from support.scsi import make_target, pattern
from tcm_loopback.commands import ApplicationClient

from tcm.scsi.sense import Status
from tcm.target.task_management import TaskManagementFunction, TaskManagementResponse

pytestmark = pytest.mark.anyio
WRITE_8_BLOCKS = bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 8, 0))
CLEARING = [
    TaskManagementFunction.LOGICAL_UNIT_RESET,
    TaskManagementFunction.TARGET_WARM_RESET,
    TaskManagementFunction.CLEAR_TASK_SET,
]


@pytest.mark.parametrize("initial_r2t", [True, False], ids=["R2T", "unsolicited"])
@pytest.mark.parametrize("function", CLEARING)
async def test_writes_are_cleared_by_another_port(function: TaskManagementFunction, initial_r2t: bool) -> None:
    """RFC 7143 11.4.2: TASK ABORTED comes when the data that is on its way has; nothing of it is written."""
    async with connected(session={"initial_r2t": initial_r2t, "immediate_data": True, "first_burst_length": 4096}) as i:
        port = i.phase.session.port
        assert port is not None
        (itl,) = port.nexus.luns.values()
        client = ApplicationClient(make_target(itl.logical_unit).connect("naa.5001405000000001"))
        await client.identify()
        itl.take_attention()
        written = pattern(4096)
        asked = i.feed(i.command(WRITE_8_BLOCKS, write=4096, data=written[:512], final=initial_r2t))
        ttt = asked[0].ttt if initial_r2t else 0xFFFFFFFF
        response = await client.initiator.task_management(function)
        assert response is TaskManagementResponse.FUNCTION_COMPLETE
        (answer,) = i.feed(i.data_out(1, ttt, 512, written[512:]))
        assert answer.bhs[3] == Status.TASK_ABORTED
        itl.take_attention()
        assert b"".join(pdu.data for pdu in i.feed(i.command(b"\x28" + WRITE_8_BLOCKS[1:], read=4096))) == bytes(4096)
