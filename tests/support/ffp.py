"""What the full feature phase suite is run against, and its first moves."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from support.pdu_initiator import INITIATOR, Connection, Session
from support.pdus import DATA_IN, Pdu, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.pdu_wires import Target

SANS_IO, PIECES, TCM_RUN, LIO = "sans-io", "pieces", "tcm-run", "lio"
DUTS = [
    pytest.param("asyncio", SANS_IO, id="asyncio"),
    pytest.param("trio", PIECES, id="trio"),
    pytest.param("asyncio", TCM_RUN, id="tcm-run", marks=pytest.mark.interop),
]
"""The real target without sockets, fed whole and in pieces, and ``tcm-run`` over TCP. LIO has its own file in tests/guest."""
PINGED = "iqn.2025-01.test.ffp:pinged"
"""An initiator that targets over TCP ping after three seconds, not after fifteen."""
SOLICITED = {"InitialR2T": "Yes", "ImmediateData": "No"}
"""Data-Out only for R2T."""


@dataclass
class DeviceUnderTest:
    """A target, and the sessions that a test opens with it."""

    target: Target
    kind: str
    resident: Callable[[], int] | None = None
    """Bytes of memory of the target's process, if it has one of its own that we can see."""
    sessions: list[Session] = field(default_factory=list)

    def session(
        self,
        *,
        name: str = INITIATOR,
        discovery: bool = False,
        portal: int = 0,
        target_name: str | None = None,
        **keys: str | None,
    ) -> Session:
        """Not yet logged in."""
        session = Session(self.target, keys, name, discovery=discovery, portal=portal, target_name=target_name)
        self.sessions.append(session)
        return session

    async def connect(self, *, settle: bool = True, **how: Any) -> Connection:
        """A session with one connection, as the procedures of the suite begin."""
        connection = await self.session(**how).connect(0)
        if settle and not how.get("discovery"):
            await connection.settle()
        return connection

    async def pair(self, **how: Any) -> tuple[Connection, Connection]:
        """A session with two connections, CID 0 and 1, both of them used."""
        session = self.session(**how)
        first = await session.connect(0)
        second = await session.connect(1)
        for connection in (first, second):
            await connection.settle()
        return first, second

    async def aclose(self) -> None:
        for session in self.sessions:
            with suppress(Exception):
                await session.leave()


def segments(answers: list[Pdu]) -> list[int]:
    """DataSegmentLength of every Data-In."""
    return [len(pdu.data) for pdu in answers if pdu.opcode == DATA_IN]


def differing(again: Pdu, first: Pdu, *ranges: tuple[int, int]) -> list[int]:
    """Which bytes of the header make a PDU no replica of another, apart from those of the ranges; 48 for its data."""
    allowed = {n for start, end in ranges for n in range(start, end)}
    found = [n for n in range(48) if again.bhs[n] != first.bhs[n] and n not in allowed]
    return found + [48] * (again.data != first.data)


def not_copied(reject: Pdu, request: Request) -> list[int]:
    """Which bytes of the rejected header a Reject does not repeat (clause 11.17)."""
    return [n for n in range(48) if reject.data[n : n + 1] != request.header[n : n + 1]]


CURRENT = (28, 36)
"""ExpCmdSN and MaxCmdSN: a replica has the current ones (clause 11.16)."""
STAT_SN = (24, 28)
