"""RECEIVE COPY STATUS, OPERATING PARAMETERS and FAILURE DETAILS, COPY OPERATION ABORT: what is told of a list identifier."""

from __future__ import annotations

import pytest
from support.copies import FAILURE_DETAILS, LID, OPERATING_PARAMETERS, STATUS_LID1, STATUS_LID4, extended_copy, receive
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import copy_cdb
from tcm.scsi.check_condition import InvalidFieldInCdb
from tcm.scsi.copy_cdb import THIS_UNIT, block_to_block
from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
NO_LIST = 9


@pytest.mark.parametrize("lid4", LID)
async def test_receive_copy_status_of_what_has_ended(disk: ApplicationClient, lid4: bool) -> None:
    """SPC-4, RECEIVE COPY STATUS (LID1) and (LID4): completed without errors; an unknown list identifier is refused."""
    action = STATUS_LID4 if lid4 else STATUS_LID1
    await receive(disk, action, expect=InvalidFieldInCdb)
    await extended_copy(disk, [], block_to_block(THIS_UNIT, 0, THIS_UNIT, 100, 50), lid4=lid4, list_identifier=1)
    data = await receive(disk, action)
    assert int.from_bytes(data[:4]) == len(data) - 4
    assert (data[5] if lid4 else data[4]) & 0x7F == 0x01
    await receive(disk, action, NO_LIST, expect=InvalidFieldInCdb)


async def test_receive_copy_operating_parameters_allocation_length(disk: ApplicationClient) -> None:
    """SPC-4, RECEIVE COPY OPERATING PARAMETERS: all of it is there, whatever list identifiers are in use, cut as asked for."""
    full = await receive(disk, OPERATING_PARAMETERS, 0)
    assert int.from_bytes(full[:4]) == len(full) - 4
    assert len(full) >= 44
    assert full[43] == len(full) - 44
    for length in (0, 3, 4, 43, len(full) - 1):
        assert await receive(disk, OPERATING_PARAMETERS, 0, allocation_length=length) == full[:length]


async def test_receive_copy_failure_details_of_a_copy(disk: ApplicationClient) -> None:
    """SPC-4, RECEIVE COPY FAILURE DETAILS (LID1): CHECK CONDITION status and the sense data of a copy that failed."""
    beyond = block_to_block(THIS_UNIT, 0, THIS_UNIT, disk.blocks - 1, 50)
    result = await extended_copy(disk, [], beyond, list_identifier=1, expect=None)
    assert result.status is Status.CHECK_CONDITION
    data = await receive(disk, FAILURE_DETAILS)
    assert int.from_bytes(data[:4]) == len(data) - 4
    assert data[56] == Status.CHECK_CONDITION
    size = int.from_bytes(data[58:60])
    assert data[60 : 60 + size] == result.sense_data
    await receive(disk, FAILURE_DETAILS, NO_LIST, expect=InvalidFieldInCdb)


async def test_copy_operation_abort_of_nothing(disk: ApplicationClient) -> None:
    """SPC-4, COPY OPERATION ABORT: a list identifier without a copy under way is refused, with a pointer to it."""
    await extended_copy(disk, [], block_to_block(THIS_UNIT, 0, THIS_UNIT, 100, 50), lid4=True, list_identifier=1)
    for identifier in (1, NO_LIST):
        result = await disk.execute(copy_cdb.copy_operation_abort(identifier), expect=InvalidFieldInCdb)
        assert result.sense is not None
        assert result.sense.sense_key_specific is not None
        assert result.sense.sense_key_specific[1:] == b"\0\2"
