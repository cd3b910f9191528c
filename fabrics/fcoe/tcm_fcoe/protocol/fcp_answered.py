"""What an FCP target remembers of exchanges after FCP_RSP, for REC, SRR and commands that come twice (FCP-4 clause 12)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tcm_fcoe.protocol.fcp_memory import RESERVE, Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.fcp_memory import Buffers, Pool

ANSWERED_LIMIT = 2048
"""Exchanges of one initiator that are remembered."""
ANSWERED_BYTES = 8 << 20
"""Bytes of their Data-In, which is forgotten first."""
CRN_AT = 8
"""Where FCP_CMND has the command reference number."""


class Answered(NamedTuple):
    """An exchange that has been answered."""

    rx_id: int
    length: int
    """Bytes transferred, either way (FC4VALUE of REC)."""
    response: bytes
    """The payload of FCP_RSP."""
    sequences: int
    """SEQ_ID of our next sequence."""
    at: float
    """When that was, monotonic seconds."""
    command: bytes = b""
    """The payload of its FCP_CMND."""
    borrowed: bool = False
    """Its Data-In is one of the target's buffers."""


answered_by: Callable[[tuple[int, int, bytes, int, float, bytes, bool]], Answered] = partial(tuple.__new__, Answered)
"""The same of all its fields, in a third of the time."""


class Answers:
    """Those of one initiator, by OX_ID. (Ordered, since the first key of a ``dict`` is far to seek when many have gone.)"""

    __slots__ = ("data", "exchanges", "memory")

    def __init__(self, pool: Pool) -> None:
        self.exchanges: OrderedDict[int, Answered] = OrderedDict()
        """The oldest first."""
        self.data: OrderedDict[int, Any] = OrderedDict()
        """Data-In of those of which it is kept; likewise."""
        self.memory = Memory(pool, ANSWERED_BYTES)

    def __len__(self) -> int:
        return len(self.exchanges)

    def remember(self, ox_id: int, answered: Answered, data: Any = None) -> None:
        """Within limits; another exchange of the same OX_ID is forgotten.

        :param data: its Data-In; ``None``: there is none, or it is not to be kept.
        """
        exchanges = self.exchanges
        if ox_id in exchanges:
            self.release(ox_id)
        exchanges[ox_id] = answered
        if data is not None:
            self.data[ox_id] = data
            memory, length = self.memory, len(data)
            memory.used += length
            memory.pool.used += length
            while memory.used > ANSWERED_BYTES or (memory.used > RESERVE and memory.pool.used > memory.pool.limit):
                memory.give_back(len(self.data.popitem(last=False)[1]))
        if len(exchanges) > ANSWERED_LIMIT:
            self.release(next(iter(exchanges)))

    def find(self, ox_id: int) -> Answered | None:
        """One that is remembered."""
        return self.exchanges.get(ox_id)

    def asked(self, ox_id: int, now: float) -> None:
        """Somebody asks about it: it is remembered for as long again from now on."""
        self.exchanges[ox_id] = self.exchanges.pop(ox_id)._replace(at=now)

    def has_data(self, ox_id: int, offset: int) -> bool:
        """Whether its Data-In from ``offset`` on could be sent again."""
        data = self.data.get(ox_id)
        return data is not None and offset <= len(data)

    def take_sequence(self, ox_id: int) -> Answered | None:
        """One that FCP_RSP is sent of once more, in a sequence of its own."""
        answered = self.exchanges.get(ox_id)
        if answered is not None:
            self.exchanges[ox_id] = answered._replace(sequences=answered.sequences + 1 & 0xFF)
        return answered

    def repeats(self, ox_id: int, command: bytes) -> bool:
        """An FCP_CMND with a command reference number that is that of an exchange which has been answered: it came twice.

        Without a number nobody can tell: initiators take an OX_ID again once they have FCP_RSP, also for the same command.
        """
        answered = self.exchanges.get(ox_id)
        return answered is not None and bool(command[CRN_AT]) and answered.command == command

    def release(self, ox_id: int) -> bool:
        """An ABTS, or the OX_ID is used again. False: there was no such exchange."""
        data = self.data.pop(ox_id, None)
        if data is not None:
            self.memory.give_back(len(data))
        return self.exchanges.pop(ox_id, None) is not None

    def confirm(self, ox_id: int, buffers: Buffers) -> bool:
        """FCP_CONF: nobody will ask for its data, whose buffer may be used again. False: there was no such exchange."""
        answered = self.exchanges.pop(ox_id, None)
        if answered is None:
            return False
        data = self.data.pop(ox_id, None)
        if data is not None:
            self.memory.give_back(len(data))
            if answered.borrowed:
                buffers.give_back(data)
        return True

    def forget_before(self, moment: float) -> None:
        """Those that are older."""
        exchanges = self.exchanges
        while exchanges:
            ox_id = next(iter(exchanges))
            if exchanges[ox_id].at >= moment:
                break
            self.release(ox_id)

    def clear(self) -> None:
        """All of them."""
        while self.exchanges:
            self.release(next(iter(self.exchanges)))
