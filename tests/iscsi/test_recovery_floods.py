"""Recovery at its limits: what a peer can make the target hold or compute at error recovery level 1 and 2."""

from __future__ import annotations

import struct
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.iscsi_session import Initiator, connected
from support.scsi import pattern, ramdisk
from tcm_iscsi.protocol.data_out import ISLANDS_LIMIT, RETIRED_LIMIT, Sequence
from tcm_iscsi.protocol.failure import ConnectionFailed
from tcm_iscsi.protocol.pdu import RESERVED_TAG
from tcm_iscsi.protocol.unacknowledged import KEPT_BYTES, KEPT_RESPONSES

pytestmark = pytest.mark.anyio


def read10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


async def seconds_of_a_read(sequences: int) -> float:
    """What a READ of so many sequences costs the target, with a DataACK for each."""
    async with connected(
        ramdisk(4 << 20),
        session={"error_recovery_level": 1, "max_burst_length": 512},
        initiator_max_recv_data_segment_length=512,
    ) as i:
        before = time.thread_time()
        answers = i.feed(i.command(read10(0, sequences), itt=5, read=sequences * 512))
        asked = [a for a in answers if a.flags & 0x40]
        assert len(asked) == sequences - 1
        assert not i.feed(*(i.snack(2, a.word(36) + 1, itt=5, tag=a.word(20)) for a in asked))
        return time.thread_time() - before


async def test_a_read_of_many_sequences_takes_no_longer_for_each() -> None:
    """A bit and DataACK: nothing is looked for among all the tags or PDUs of a command, while everybody waits."""
    few = min([await seconds_of_a_read(1024) for _ in range(3)])
    many = min([await seconds_of_a_read(4096) for _ in range(3)])
    assert many < 9 * few


def flood(i: Initiator, pdu: bytes, count: int) -> bool:
    """The same again and again, every answer taken and none acknowledged; whether the connection is dropped."""
    try:
        for _ in range(count):
            i.feed(pdu)
    except ConnectionFailed:
        return True
    return False


@pytest.mark.parametrize("kind", ["snack", "opcode", "digest", "command"])
async def test_rejects_that_nobody_acknowledges_are_bounded(kind: str) -> None:
    """4.2.2.2: a Reject is kept like any response; requests that are rejected need not wait for room."""
    async with connected(session={"error_recovery_level": 1}, data_digest=kind == "digest") as i:
        kept = i.phase.unacknowledged
        assert kept is not None
        dropped = False
        for _ in range(5 * KEPT_RESPONSES):
            match kind:
                case "snack":
                    pdu = i.snack(0, 1, 1, itt=77)
                case "opcode":
                    pdu = i.pdu(b"\x5c".ljust(48, b"\0"))
                case "digest":
                    pdu = i.nop_out(RESERVED_TAG, data=b"abcd")[:-1] + b"?"
                case _:
                    pdu = i.command(read10(0, 1), itt=RESERVED_TAG, read=512)
            if dropped := flood(i, pdu, 1):
                break
        assert dropped
        assert len(kept.responses) <= 2 * KEPT_RESPONSES + 8


@given(st.integers(0, 8), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=30))
def test_what_is_missing_of_a_sequence(start: int, pdus: list[tuple[int, int]]) -> None:
    """Whatever order, overlap and repetition data comes in."""
    sequence = Sequence(start, 40)
    there = set(range(start))
    for at, length in pdus:
        end = min(at + length, 40)
        sequence.add(at, end)
        there.update(range(at, end))
        assert {n for first, after in sequence.missing() for n in range(first, after)} == set(range(40)) - there
        gaps = sequence.missing()
        assert all(before[1] < behind[0] for before, behind in pairwise(gaps))


async def test_data_out_in_ever_more_pieces() -> None:
    """Every other byte: the pieces are bounded, and so is what each costs; the command fails in the end."""
    async with connected(session={"error_recovery_level": 1, "initial_r2t": True, "immediate_data": False}) as i:
        (r2t,) = i.feed(i.command(write10(0, 128), itt=5, write=65536))
        ttt = r2t.word(20)
        assert not i.feed(*(i.data_out(5, ttt, 2 * n + 1, b"x", data_sn=n, final=False) for n in range(ISLANDS_LIMIT + 99)))
        data_out = i.phase.session.commands[5].data_out
        assert data_out is not None
        assert len(data_out.sequences[ttt].islands) == ISLANDS_LIMIT
        (answer,) = i.feed(i.data_out(5, ttt, 0, b"x", data_sn=ISLANDS_LIMIT + 99))
        assert (answer.status, answer.sense) == (2, (0xB, 0x0C, 0x0D))


async def test_many_gaps_are_asked_for_in_few_r2ts() -> None:
    """And what they are is remembered for a while only."""
    async with connected(
        session={"error_recovery_level": 1, "initial_r2t": True, "immediate_data": False, "max_outstanding_r2t": 8}
    ) as i:
        data = pattern(65536)
        (r2t,) = i.feed(i.command(write10(0, 128), itt=5, write=65536))
        ttt = r2t.word(20)
        pieces = [(n, at) for n, at in enumerate(range(256, 65536, 512))]
        r2ts = i.feed(*(i.data_out(5, ttt, at, data[at : at + 256], data_sn=n + 1, final=at > 65000) for n, at in pieces))
        asked = []
        while r2ts[0].opcode == 0x31:
            asked += [(a.word(40), a.word(44)) for a in r2ts]
            r2ts = i.feed(*(i.data_out(5, a.word(20), a.word(40), data[a.word(40) :][: a.word(44)]) for a in r2ts))
        assert asked[:-1] == [(at, 256) for at in range(0, 63 * 512, 512)]
        assert asked[-1] == (63 * 512, 65536 - 256 - 63 * 512)
        assert r2ts[0].status == 0
        answers = i.feed(i.command(b"\x28" + write10(0, 128)[1:], itt=6, read=65536))
        assert b"".join(a.data for a in answers) == data


async def test_ended_sequences_are_forgotten_in_time() -> None:
    """A WRITE in many sequences: late data is dropped for the newest of those that have ended."""
    session = {"error_recovery_level": 1, "initial_r2t": True, "immediate_data": False, "max_burst_length": 512}
    async with connected(ramdisk(4 << 20), session=session) as i:
        r2ts = i.feed(i.command(write10(0, RETIRED_LIMIT + 9), itt=5, write=(RETIRED_LIMIT + 9) * 512))
        tags = []
        for _ in range(RETIRED_LIMIT + 8):
            tags.append(r2ts[0].word(20))
            r2ts = i.feed(i.data_out(5, tags[-1], r2ts[0].word(40), bytes(512)))
        data_out = i.phase.session.commands[5].data_out
        assert data_out is not None
        assert len(data_out.retired) == RETIRED_LIMIT
        assert not i.feed(i.data_out(5, tags[-1], 0, bytes(512)))
        with pytest.raises(ConnectionFailed):
            i.feed(i.data_out(5, tags[0], 0, bytes(512)))


async def test_functions_behind_a_fence_are_bounded() -> None:
    """4.2.2.3.3: a response that waits for the acknowledgement of others is a function in progress."""
    async with connected(session={"max_connections": 2, "task_reporting": "ResponseFence"}) as i:
        session = i.phase.session
        j = i.join(1)
        i.feed(i.command(bytes(6), itt=1))
        j.cmd_sn = i.cmd_sn
        rejected = [a for n in range(5 * session.depth) for a in j.feed(j.task_management(2, itt=n)) if a.opcode == 0x3F]
        assert len(rejected) == 4 * session.depth
        assert len(session.fences) == session.depth
        i.acknowledge(i.phase.stat_sn)
        assert len([a for a in j.answers() if a.opcode == 0x22]) == session.depth
        assert not session.managing


async def test_reassignments_wait_for_room_like_commands() -> None:
    """7.2.2: what several lost connections kept may be more than one keeps; its initiator acknowledges as it receives."""
    session = {"error_recovery_level": 2, "max_connections": 4, "default_time2wait": 2, "default_time2retain": 20}
    async with connected(ramdisk(4 << 20), session=session) as i:
        lost = [i, i.join(1), i.join(2)]
        k = i.join(3)
        tags = iter(range(1, 100))
        for j in lost:
            for _ in range(4):
                j.cmd_sn = i.phase.session.exp_cmd_sn
                j.feed(j.command(read10(0, 8192), itt=next(tags), read=4 << 20))
            j.fail()
            assert k.feed(k.logout(2, j.phase.cid))[-1].bhs[2] == 0
        kept = k.phase.unacknowledged
        assert kept is not None
        answers = k.feed(*(k.task_management(8, itt=1000 + n, referenced=n) for n in range(1, 13)))
        for _ in range(9):
            assert kept.size <= KEPT_BYTES + (5 << 20)
            (ping,) = [a for a in answers[-1:] if a.opcode == 0x20] or [None]
            if ping is None:
                break
            seen = [a.itt for a in answers if a.opcode == 0x21]
            assert len(seen) >= 1
            answers += k.feed(k.nop_out(RESERVED_TAG, ttt=ping.word(20), ack=ping.stat_sn))
        assert [a.bhs[2] for a in answers if a.opcode == 0x22] == [0] * 12
        assert sorted(a.itt for a in answers if a.opcode == 0x21) == list(range(1, 13))
        assert sum(len(a.data) for a in answers if a.opcode == 0x25) == 12 * (4 << 20)


async def test_reassignments_that_wait_are_bounded() -> None:
    """They are immediate requests: those beyond the bound are rejected, and Rejects are bounded too."""
    session = {"error_recovery_level": 2, "max_connections": 4, "default_time2wait": 2, "default_time2retain": 20}
    async with connected(session=session) as i:
        dropped = any(flood(i, i.task_management(8, referenced=1), 1) for _ in range(8 * KEPT_RESPONSES))
        assert dropped
        assert len(i.phase.reassignments) <= KEPT_RESPONSES
