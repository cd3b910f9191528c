"""Which way a copy manager goes to a logical unit, and where it is not let in."""

from __future__ import annotations

import pytest
from support.ports import two_ports
from tcm_loopback.commands import ApplicationClient

from tcm.scsi.asymmetric_access import REFUSED, AccessState
from tcm.scsi.check_condition import CheckCondition, LogicalUnitNotSupported, WriteProtected
from tcm.target.copy_access import ReachableUnits, admit
from tcm.target.device_designators import unit_designators
from tcm.target.nexus import ITLNexus

pytestmark = pytest.mark.anyio


def itl_of(client: ApplicationClient) -> ITLNexus:
    assert client.initiator.nexus is not None
    (itl,) = client.initiator.nexus.luns.values()
    return itl


async def test_the_nearest_way_that_is_open():
    async with two_ports() as ways:
        first, second = map(itl_of, ways.clients)
        designator = unit_designators(ways.unit)[0]
        for write in (False, True):
            assert ReachableUnits(first).find(designator, write=write) is first
            assert ReachableUnits(second).find(designator, write=write) is second
        second.write_protect = True
        assert ReachableUnits(second).find(designator, write=False) is second
        assert ReachableUnits(second).find(designator, write=True) is first
        await ways.put(AccessState.STANDBY)
        assert ReachableUnits(second).find(designator, write=False) is first
        await ways.put(AccessState.STANDBY, 0)
        assert ReachableUnits(second).find(designator, write=False) is second  # no way is open: it says why


@pytest.mark.parametrize("state", [AccessState.STANDBY, AccessState.UNAVAILABLE, AccessState.TRANSITIONING])
async def test_asymmetric_access(state):
    async with two_ports() as ways:
        itl = itl_of(ways.clients[1])
        admit(itl, write=True)
        await ways.put(state)
        with pytest.raises(CheckCondition) as refused:
            admit(itl, write=False)
        assert type(refused.value) is REFUSED[state]


async def test_a_lun_that_was_taken_away():
    async with two_ports() as ways:
        itl = itl_of(ways.clients[1])
        itl.write_protect = True
        with pytest.raises(WriteProtected):
            admit(itl, write=True)
        ways.luns[1].port.remove_lun(5)
        with pytest.raises(LogicalUnitNotSupported):
            admit(itl, write=False)
