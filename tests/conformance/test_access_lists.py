"""SET TARGET PORT GROUPS and REPORT REFERRALS: lists that are refused change nothing; what is not configured is not offered."""

from __future__ import annotations

import pytest
from support.ports import report_groups
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.asymmetric_access import AccessState
from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidFieldInParameterList, ParameterListLengthError

pytestmark = pytest.mark.anyio
NON_OPTIMIZED = AccessState.ACTIVE_NON_OPTIMIZED.value


async def test_set_target_port_groups_is_all_or_nothing(disk: ApplicationClient) -> None:
    """SPC-4 6.45: a descriptor of a group that is not there is refused, with a pointer, and so is the one before it; a list
    that is not all there is PARAMETER LIST LENGTH ERROR; a length that is no number of descriptors INVALID FIELD IN CDB."""
    before = await report_groups(disk)
    data = cdb.target_port_groups_parameters((0, NON_OPTIMIZED), (99, NON_OPTIMIZED))
    result = await disk.execute(cdb.set_target_port_groups(len(data)), data, expect=InvalidFieldInParameterList)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0x80, 0, 10))
    for length in range(8):
        await disk.execute(cdb.set_target_port_groups(8), data[:length], expect=ParameterListLengthError)
        if length % 4:
            await disk.execute(cdb.set_target_port_groups(length), data[:length], expect=InvalidFieldInCdb)
        assert await report_groups(disk) == before
    await disk.execute(cdb.set_target_port_groups(8), data[:8])
    assert await report_groups(disk) != before


async def test_report_referrals_without_a_map(disk: ApplicationClient) -> None:
    """SBC-4, REPORT REFERRALS: a unit without referrals does not have the service action, and says so in VPD page 86h."""
    result = await disk.execute(cdb.report_referrals(), read_length=64, expect=InvalidFieldInCdb)
    assert result.sense is not None
    assert result.sense.sense_key_specific == b"\xcc\0\1"
    assert not (await disk.inquiry(0x86))[8] & 0x10
