"""Invariant: whatever bytes a master agent sends, cut however, the sub-agent raises nothing but AgentXError (and then has said
Close), answers in whole PDUs of bounded length, and holds no more than one PDU that has not ended.

Run it by itself for as long as you like:  python tests/fuzz/fuzz_agentx.py SECONDS [SEED]
"""

from __future__ import annotations

import random
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tcm.statistics import agentx
from tcm.statistics.agentx import HEADER_LENGTH, AgentXError, PduType
from tcm.statistics.mib import Column, Module, Oid, Syntax, Table, View
from tcm.statistics.subagent import MAXIMUM_BINDS, MAXIMUM_SETS, State, SubAgent

BASE: Oid = (1, 3, 6, 1, 2, 1, 4711)
ROWS = [((number,), number) for number in range(1, 200)]
VALUES = {
    Syntax.INTEGER: -1,
    Syntax.OCTET_STRING: b"x" * 255,
    Syntax.OBJECT_IDENTIFIER: (1, 3, 6, 1, 2),
    Syntax.COUNTER_64: 1 << 63,
    Syntax.TIME_TICKS: 3.5,
    Syntax.GAUGE_32: 1 << 40,
}
COLUMNS = tuple(
    Column(number, f"c{number}", kind, lambda row, value=value: value if row % 3 else None)  # type: ignore[misc]  # a default
    for number, (kind, value) in enumerate(VALUES.items(), 2)
)
MODULE = Module("FUZZ-MIB", BASE, (Table("table", (*BASE, 1), lambda: ROWS, COLUMNS),))
MAXIMUM_ANSWER = 400 * MAXIMUM_BINDS
SESSION = 7


class Master:
    """Says what no master would."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.order = rng.choice("><")

    def oid(self) -> bytes:
        rng = self.rng
        oid = rng.choice(((), BASE, (*BASE, 1, 1, rng.randrange(9), rng.randrange(210)), (1, 3), (2, 5)))
        oid += tuple(rng.getrandbits(32) for _ in range(rng.choice((0, 0, 0, 1, 3))))
        return struct.pack(f"{self.order}BBBB{len(oid)}I", len(oid), 0, rng.getrandbits(1), 0, *oid)

    def value(self) -> bytes:
        kind = self.rng.choice((2, 4, 5, 6, 64, 65, 66, 67, 68, 70, 128, 130, 0, 999))
        size = self.rng.choice((0, 1, 4, 300))
        content = self.rng.randbytes(8 if kind == 70 else 4)
        if kind in {4, 64, 68}:
            content = struct.pack(f"{self.order}I", size) + self.rng.randbytes(size + -size % 4)
        elif kind == 6:
            content = self.oid()
        elif kind in {5, 128, 130}:
            content = b""
        return struct.pack(f"{self.order}HH", kind, 0) + self.oid() + content

    def pdu(self) -> bytes:
        rng = self.rng
        kind = rng.choice((*PduType, *PduType, PduType.GET_BULK, PduType.TEST_SET, 0, 99))
        flags = (0x10 if self.order == ">" else 0) | rng.choice((0, 0, 0, 0x08, 0x07, 0xE0))
        payload = struct.pack(f"{self.order}I", 4) + b"ctx\0" if flags & 0x08 else b""
        count = rng.choice((0, 1, 1, 3, 40))
        if kind in {PduType.GET, PduType.GET_NEXT, PduType.GET_BULK}:
            payload += struct.pack(f"{self.order}HH", rng.choice((0, 1, 65535)), rng.choice((0, 3, 65535))) * (kind == 7)
            payload += b"".join(self.oid() + self.oid() for _ in range(count))
        elif kind == PduType.TEST_SET:
            payload += b"".join(self.value() for _ in range(count))
        elif kind == PduType.RESPONSE:
            payload = struct.pack(f"{self.order}IHH", 100, rng.choice((0, 0, 257, 263)), 0)
        else:
            payload += bytes(4 * rng.randrange(4))
        session, packet = rng.choice((SESSION, SESSION, SESSION, 0, 8)), rng.choice((1, 2, 3, rng.getrandbits(32)))
        head = struct.pack(f"{self.order}BBBxIIII", 1, kind, flags, session, 3, packet, len(payload))
        return self.spoiled(bytearray(head + payload))

    def spoiled(self, pdu: bytearray) -> bytes:
        """Now and then."""
        rng = self.rng
        if rng.random() < 0.3:
            for _ in range(rng.randrange(1, 4)):
                pdu[rng.randrange(len(pdu))] = rng.getrandbits(8)
        if rng.random() < 0.03:
            del pdu[rng.randrange(len(pdu)) :]
        return bytes(pdu)


def opened(now: float) -> SubAgent:
    """Registered."""
    agent = SubAgent(View([MODULE]), now)
    for packet in (1, 2):
        agent.data_to_send()
        payload = struct.pack(">IHH", 100, 0, 0)
        agent.receive_data(agentx.pack(PduType.RESPONSE, payload, session=SESSION, packet=packet), now)
    assert agent.state is State.RUNNING
    return agent


def check(data: bytes) -> int:
    """How many PDUs that is; each must be whole."""
    count = 0
    while data:
        length = agentx.length_of(data[:HEADER_LENGTH])
        assert len(data) >= length
        assert length <= MAXIMUM_ANSWER
        assert agentx.unpack(data[:length]).type in {PduType.RESPONSE, PduType.CLOSE, PduType.PING, PduType.REGISTER}
        data = data[length:]
        count += 1
    return count


def fuzz(seconds: float, seed: int) -> int:
    """How many PDUs were sent. Raises for what breaks the invariant, with the seed in the message."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    sent = 0
    try:
        while time.monotonic() < end or not sent:
            now = 100.0
            master, agent = Master(rng), opened(now)
            try:
                for _ in range(30):
                    now += rng.choice((0.0, 0.1, 2.0))
                    burst = [master.pdu() for _ in range(rng.randrange(1, 4))]
                    sent += len(burst)
                    data = b"".join(burst)
                    cut = rng.randrange(len(data) + 1)
                    for piece in (data[:cut], data[cut:]):
                        agent.receive_data(piece, now)
                    while agent.sets:
                        assert len(agent.sets) <= MAXIMUM_SETS
                        pdu = agent.sets.popleft()
                        assert pdu.session == SESSION
                        agent.answer_set(pdu, agentx.Error.NO_ERROR, 0)
                    check(b"".join(agent.data_to_send()))
                    agent.handle_timer(now)
                    assert len(agent._received) < HEADER_LENGTH + agentx.MAXIMUM_PAYLOAD
            except AgentXError:
                agent.close()
                check(b"".join(agent.data_to_send()))
                assert agent.state is State.CLOSED
    except Exception as error:
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    return sent


if __name__ == "__main__":
    given = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().getrandbits(32)
    print(f"seed {given}: {fuzz(float(sys.argv[1]), given)} PDUs")  # a program
