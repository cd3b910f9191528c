"""What an FCP target remembers of exchanges after FCP_RSP, for REC, SRR and commands that come twice (FCP-4 clause 12).

Short READs of the express lane are by far the most, and hardly one is ever asked about. They are remembered in two generations:
when the young one is full, the old one is dropped as a whole. Somebody who asks about one makes it one of the others.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from tcm_fcoe.protocol.fcp import GOOD_RESPONSE
from tcm_fcoe.protocol.fcp_memory import RESERVE, Memory
from tcm_fcoe.protocol.frame import NO_EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_fcoe.protocol.fcp_memory import Buffers, Pool

ANSWERED_LIMIT = 2048
"""Exchanges of one initiator that are remembered until FCP_CONF."""
UNCONFIRMED_LIMIT = 512
"""Of those without FCP_CONF_REQ, beside them: GOOD READs, which the initiator may have done again."""
FORGOTTEN_AT_ONCE = 64
"""Of those, once there are too many: one by one costs more than the READ."""
GENERATION = UNCONFIRMED_LIMIT // 2
"""Short READs in each of the two generations."""
CHARGE = 64 << 10
"""Bytes of their data that are charged at a time."""
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


ShortRead = tuple[int, memoryview, float, bytes, int]
"""RX_ID, Data-In, when it was answered, the payload of its FCP_CMND, and the number of the batch that it was in."""


class Answers:
    """Those of one initiator, by OX_ID. (Ordered, since the first key of a ``dict`` is far to seek when many have gone.)"""

    __slots__ = (
        "_charged", "_old_charged", "_used", "buffers", "data", "exchanges", "memory", "old", "unconfirmed", "young",
    )  # fmt: skip

    def __init__(self, pool: Pool, buffers: Buffers) -> None:
        self.buffers = buffers
        self.exchanges: OrderedDict[int, Answered] = OrderedDict()
        """Those that FCP_CONF is to come for, the oldest first. Until then the OX_ID is not used again."""
        self.unconfirmed: OrderedDict[int, Answered] = OrderedDict()
        """Those without FCP_CONF_REQ; likewise. Only with their RX_ID can they be told from the next exchange of the OX_ID."""
        self.data: OrderedDict[int, Any] = OrderedDict()
        """Data-In of those of which it is kept; likewise."""
        self.memory = Memory(pool, ANSWERED_BYTES)
        self.young: dict[int, ShortRead] = {}
        """Short READs of the express lane, all of which ended with GOOD."""
        self.old: dict[int, ShortRead] = {}
        self._used = self._charged = self._old_charged = 0
        """Bytes of Data-In of the young ones, what has been charged for them, and for the old ones."""

    def __len__(self) -> int:
        return len(self.exchanges) + len(self.unconfirmed) + len(self.young) + len(self.old)

    def remember_read(self, ox_id: int, rx_id: int, data: memoryview, now: float, command: bytes, batch: int) -> None:
        """A short READ of the express lane, of an OX_ID of which nothing is remembered."""
        young = self.young
        young[ox_id] = rx_id, data, now, command, batch
        self._used = used = self._used + len(data)
        if used > self._charged or len(young) >= GENERATION:
            self._charge()

    def _charge(self) -> None:
        """Memory for more short READs; without any, the older ones are forgotten."""
        memory = self.memory
        used = memory.used + CHARGE
        full = len(self.young) >= GENERATION
        if full or used > ANSWERED_BYTES or (used > RESERVE and memory.pool.used + CHARGE > memory.pool.limit):
            self._age()
        if self._used > self._charged:
            if memory.used + CHARGE > RESERVE and memory.pool.used + CHARGE > memory.pool.limit:
                self._age()  # others have taken all of it: what has not been charged is not kept
                self._age()
                return
            memory.take(CHARGE)
            self._charged += CHARGE

    def _age(self) -> None:
        """The young ones are old, and the old ones forgotten."""
        self.memory.give_back(self._old_charged)
        self.old, self._old_charged = self.young, self._charged
        self.young, self._used, self._charged = {}, 0, 0

    def _promote(self, ox_id: int) -> None:
        """Somebody asks: a short READ is one like others from now on."""
        read = self.young.pop(ox_id, None) or self.old.pop(ox_id, None)
        if read is not None:
            rx_id, data, at, command, _ = read
            self.remember(ox_id, Answered(rx_id, len(data), GOOD_RESPONSE, 3, at, command), data, confirmed=False)

    def _forget_short_before(self, moment: float) -> None:
        self.old = {ox_id: read for ox_id, read in self.old.items() if read[2] >= moment}
        self.young = {ox_id: read for ox_id, read in self.young.items() if read[2] >= moment}
        if not self.old:
            self.memory.give_back(self._old_charged)
            self._old_charged = 0
        if not self.young:
            self.memory.give_back(self._charged)
            self._used = self._charged = 0

    def remember(self, ox_id: int, answered: Answered, data: Any = None, *, confirmed: bool = True) -> None:
        """Within limits; another exchange of the same OX_ID is forgotten.

        :param data: its Data-In; ``None``: there is none, or it is not to be kept.
        :param confirmed: FCP_CONF is to come.
        """
        if self.is_known(ox_id):
            self.release(ox_id)
        kept, limit = (self.exchanges, ANSWERED_LIMIT) if confirmed else (self.unconfirmed, UNCONFIRMED_LIMIT)
        kept[ox_id] = answered
        if data is not None:
            self.data[ox_id] = data
            memory, length = self.memory, len(data)
            memory.used += length
            memory.pool.used += length
            while memory.used > ANSWERED_BYTES or (memory.used > RESERVE and memory.pool.used > memory.pool.limit):
                if self.unconfirmed:
                    self._forget_reads(1)
                else:
                    memory.give_back(len(self.data.popitem(last=False)[1]))
        if len(kept) > limit:
            if confirmed:
                self.release(next(iter(kept)))
            else:
                self._forget_reads(FORGOTTEN_AT_ONCE)

    def is_known(self, ox_id: int) -> bool:
        """Whether anything of the OX_ID is remembered."""
        return ox_id in self.young or ox_id in self.old or ox_id in self.unconfirmed or ox_id in self.exchanges

    def _forget_reads(self, count: int) -> None:
        """The oldest of those that are not confirmed."""
        take, pop, buffers, octets = self.unconfirmed.popitem, self.data.pop, self.buffers, 0
        for _ in range(min(count, len(self.unconfirmed))):
            ox_id, answered = take(last=False)
            data = pop(ox_id, None)
            if data is not None:
                octets += len(data)
                if answered.borrowed:
                    buffers.give_back(data)
        self.memory.give_back(octets)

    def find(self, ox_id: int, rx_id: int) -> Answered | None:
        """One that is remembered; with an RX_ID of FFFFh one that FCP_CONF is to come for."""
        self._promote(ox_id)
        answered = self.exchanges.get(ox_id)
        if answered is not None:
            return answered if rx_id in (answered.rx_id, NO_EXCHANGE) else None
        answered = self.unconfirmed.get(ox_id)
        return answered if answered is not None and answered.rx_id == rx_id else None

    def get(self, ox_id: int) -> Answered | None:
        """The same, whatever its RX_ID."""
        self._promote(ox_id)
        return self.exchanges.get(ox_id) or self.unconfirmed.get(ox_id)

    def asked(self, ox_id: int, now: float) -> None:
        """Somebody asks about it: it is remembered for as long again from now on."""
        kept = self._where(ox_id)
        kept[ox_id] = kept.pop(ox_id)._replace(at=now)

    def has_data(self, ox_id: int, offset: int) -> bool:
        """Whether its Data-In from ``offset`` on could be sent again."""
        data = self.data.get(ox_id)
        return data is not None and offset <= len(data)

    def take_sequence(self, ox_id: int) -> Answered | None:
        """One that FCP_RSP is sent of once more, in a sequence of its own."""
        answered = self.get(ox_id)
        if answered is not None:
            self._where(ox_id)[ox_id] = answered._replace(sequences=answered.sequences + 1 & 0xFF)
        return answered

    def repeats(self, ox_id: int, command: bytes, batch: int) -> bool:
        """An FCP_CMND that is that of an exchange which has been answered: it came twice.

        Either it has a command reference number, or was answered in this ``batch``, which nobody can know yet. Otherwise nobody
        can tell: initiators take an OX_ID again once they have FCP_RSP, also for the same command.
        """
        read = self.young.get(ox_id) or self.old.get(ox_id)
        numbered = len(command) > CRN_AT and command[CRN_AT]
        if read is not None:
            return read[3] == command and (bool(numbered) or read[4] == batch)
        if not numbered:
            return False
        answered = self.get(ox_id)
        return answered is not None and answered.command == command

    def release(self, ox_id: int) -> bool:
        """FCP_CONF, an ABTS, or the OX_ID is used again: nobody will ask for its data. False: there was no such exchange."""
        if self.young.pop(ox_id, None) or self.old.pop(ox_id, None):
            return True
        answered = self.exchanges.pop(ox_id, None) or self.unconfirmed.pop(ox_id, None)
        data = self.data.pop(ox_id, None)
        if data is not None:
            self.memory.give_back(len(data))
            if answered is not None and answered.borrowed:
                self.buffers.give_back(data)
        return answered is not None

    def take(self, ox_id: int) -> None:
        """The same, but its data is still in use."""
        data = self.data.pop(ox_id, None)
        if data is not None:
            self.memory.give_back(len(data))
        self.release(ox_id)

    def forget_before(self, moment: float) -> None:
        """Those that are older."""
        if self._charged or self._old_charged:
            self._forget_short_before(moment)
        for kept in (self.exchanges, self.unconfirmed):
            while kept:
                ox_id = next(iter(kept))
                if kept[ox_id].at >= moment:
                    break
                self.release(ox_id)

    def clear(self) -> None:
        """All of them."""
        self.forget_before(inf)

    def _where(self, ox_id: int) -> OrderedDict[int, Answered]:
        return self.exchanges if ox_id in self.exchanges else self.unconfirmed
