"""What the tests of bad input share: a session that must not notice, memory that must not grow, requests to be rejected."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from support.ffp import SOLICITED, DeviceUnderTest
from support.pdu_initiator import Connection
from support.pdus import GOOD, REJECT, TASK_MANAGEMENT_RESPONSE, TASK_REASSIGN, Pdu, Request
from support.scsi import pattern

BYSTANDER = "iqn.2025-01.test.ffp:bystander"
LEVEL_1 = {**SOLICITED, "ErrorRecoveryLevel": "1", "MaxRecvDataSegmentLength": "1024"}
LEVEL_2 = {**LEVEL_1, "ErrorRecoveryLevel": "2"}
COMPLETE, NO_TASK, STILL_ALLEGIANT, REASSIGNMENT_NOT_SUPPORTED = 0, 1, 3, 4
IMMEDIATE_REJECTED = 0x06
TOO_MANY, CANNOT_INCLUDE, NO_SESSION = 0x0206, 0x0208, 0x020A
BOUND = 48 << 20
"""Bytes: the most that one connection may make the target hold in these tests, which ask for several times that."""
LOST_BOUND = 96 << 20
"""Likewise the connections that a session has lost."""
KEPT = 1000
"""Block address of the bystander's command."""


@asynccontextmanager
async def bystander(dut: DeviceUnderTest) -> AsyncIterator[Connection]:
    """Another initiator with a WRITE that waits for its data: it gets GOOD, and nothing unasked came in between."""
    c = await dut.connect(name=BYSTANDER, **SOLICITED)
    command, r2t = await c.start_write(1024, lba=KEPT)
    yield c
    assert not [pdu for pdu in await c.quiet() if not pdu.target_ping]
    await c.send(*c.burst(r2t, pattern(1024, 99)))
    assert (await c.finish(command.itt))[-1].status == GOOD
    assert await c.contents(KEPT, 2) == pattern(1024, 99)


@contextmanager
def bounded(dut: DeviceUnderTest, limit: int = BOUND) -> Iterator[None]:
    """The target does not take more than so many bytes meanwhile."""
    if dut.resident is not None:
        before = dut.resident()
        yield
        assert dut.resident() - before < limit
        return
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


async def rejected(c: Connection, pdu: Request, *reasons: int) -> Pdu:
    """A Reject with the header, and nothing else; the connection goes on."""
    await c.send(pdu)
    answers = await c.quiet(1)
    assert [each.opcode for each in answers] == [REJECT], answers
    assert answers[0].data[:48] == pdu.header
    assert answers[0].response in (reasons or (answers[0].response,))
    assert await c.is_open()
    return answers[0]


async def reassign(c: Connection, itt: int, **how: Any) -> int:
    """The response code of TASK REASSIGN."""
    pdu = c.task_management(TASK_REASSIGN, referenced=itt, **how)
    await c.send(pdu)
    return (await c.expect(TASK_MANAGEMENT_RESPONSE, pdu.itt)).response
