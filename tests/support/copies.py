"""Copies between logical units: who is who, and EXTENDED COPY in one call."""

from __future__ import annotations

from typing import Any

from support.scsi import logical_unit
from tcm_loopback.commands import ApplicationClient, Expected
from tcm_loopback.transport import Result

from tcm.scsi import copy_cdb
from tcm.scsi.sense import Status
from tcm.target.device_designators import unit_designators

STATUS_LID1, OPERATING_PARAMETERS, FAILURE_DETAILS, STATUS_LID4 = 0, 3, 4, 5
LID = [False, True]


def cscd_of(client: ApplicationClient, **fields: Any) -> bytes:
    """The CSCD descriptor of the unit that a client talks to, by its NAA designator."""
    unit = logical_unit(client)
    return copy_cdb.cscd(unit_designators(unit)[0], block_length=unit.block_size, **fields)


def parameters(cscds: list[bytes], segments: list[bytes], *, lid4: bool = False, **fields: Any) -> bytes:
    """A parameter list. The CSCDs' IDs begin with 1 in LID4, with 0 in LID1."""
    build = copy_cdb.lid4_parameters if lid4 else copy_cdb.lid1_parameters
    return build(b"".join(cscds), b"".join(segments), **fields)


async def send(client: ApplicationClient, data: bytes, *, lid4: bool = False, expect: Expected = Status.GOOD) -> Result:
    """EXTENDED COPY with a whole parameter list."""
    return await client.execute(copy_cdb.extended_copy(len(data), lid4=lid4), data, expect=expect)


async def extended_copy(
    client: ApplicationClient,
    cscds: list[bytes],
    *segments: bytes,
    lid4: bool = False,
    expect: Expected = Status.GOOD,
    **fields: Any,
) -> Result:
    """EXTENDED COPY."""
    return await send(client, parameters(cscds, list(segments), lid4=lid4, **fields), lid4=lid4, expect=expect)


async def receive(
    client: ApplicationClient,
    service_action: int,
    list_identifier: int = 1,
    *,
    allocation_length: int = 4096,
    expect: Expected = Status.GOOD,
) -> bytes:
    """A RECEIVE COPY command: its data."""
    cdb = copy_cdb.receive_copy(service_action, list_identifier, allocation_length)
    return (await client.execute(cdb, read_length=allocation_length, expect=expect)).data_in


def clients(port: Any, name: str = "naa.5001405000000001") -> list[ApplicationClient]:
    """One initiator's application clients of LUN 0 and 1."""
    initiator = port.connect(name)
    return [ApplicationClient(initiator, lun) for lun in (0, 1)]
