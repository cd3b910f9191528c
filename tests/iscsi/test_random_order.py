"""LIO's random_* attributes of a node ACL: Data-In and R2Ts out of order, as far as that was agreed (RFC 7143 13.18, 13.19)."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from support.iscsi_session import Initiator, connected
from support.pdus import Pdu
from support.scsi import pattern

pytestmark = pytest.mark.anyio

ANY_ORDER: dict[str, Any] = {"data_pdu_in_order": False, "data_sequence_in_order": False, "max_burst_length": 4096}
SIZE = 16384


def cdb(operation: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", operation, 0, 0, 0, blocks, 0)


def store(i: Initiator, data: bytes) -> None:
    (answer,) = i.feed(i.command(cdb(0x2A, len(data) // 512), itt=90, write=len(data), data=data))
    assert answer.status == 0


def offsets(pdus: list[Pdu]) -> list[int]:
    return [pdu.word(40) for pdu in pdus]


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize(
    ("fault", "pdus", "sequences"),
    [("random_datain_pdu_offsets", True, False), ("random_datain_seq_offsets", False, True), ("", False, False)],
)
async def test_data_in(fault: str, pdus: bool, sequences: bool, level: int) -> None:
    """The bytes are all there; DataSN counts in the order of sending; F is on the last PDU sent of each sequence."""
    limits = {**ANY_ORDER, "error_recovery_level": level}
    faults = {fault: True} if fault else None
    async with connected(session=limits, faults=faults, initiator_max_recv_data_segment_length=1024) as i:
        data = pattern(SIZE)
        store(i, data)
        answers = [a for a in i.feed(i.command(cdb(0x28, SIZE // 512), itt=1, read=SIZE)) if a.opcode == 0x25]
        found = bytearray(SIZE)
        for a in answers:
            found[a.word(40) : a.word(40) + len(a.data)] = a.data
        assert found == data
        assert [a.word(36) for a in answers] == list(range(16))
        assert [bool(a.flags & 0x80) for a in answers] == [False, False, False, True] * 4
        runs = [offsets(answers[n : n + 4]) for n in range(0, 16, 4)]
        assert any(run != sorted(run) for run in runs) is pdus
        assert ([min(run) for run in runs] != [0, 4096, 8192, 12288]) is sequences
        assert all(max(run) - min(run) == 3072 for run in runs)


async def test_data_in_again_is_the_same() -> None:
    """11.16: a SNACK brings the PDU with that DataSN, whatever order it went in."""
    limits = {**ANY_ORDER, "error_recovery_level": 1}
    faults = {"random_datain_pdu_offsets": True, "random_datain_seq_offsets": True}
    async with connected(session=limits, faults=faults, initiator_max_recv_data_segment_length=1024) as i:
        store(i, pattern(SIZE))
        answers = i.feed(i.command(cdb(0x28, SIZE // 512), itt=1, read=SIZE))
        again = i.feed(i.snack(0, 5, 3, itt=1))
        assert [(a.word(40), a.data) for a in again] == [(a.word(40), a.data) for a in answers[5:8]]


@pytest.mark.parametrize("allowed", [True, False])
async def test_r2ts(allowed: bool) -> None:
    """R2Ts in any order, each for its own part; in order unless DataSequenceInOrder=No was agreed."""
    limits = {**ANY_ORDER, "data_sequence_in_order": not allowed, "initial_r2t": True, "immediate_data": False}
    async with connected(session={**limits, "max_outstanding_r2t": 8}, faults={"random_r2t_offsets": True}) as i:
        data = pattern(SIZE)
        r2ts = i.feed(i.command(cdb(0x2A, SIZE // 512), itt=1, write=SIZE))
        assert sorted(offsets(r2ts)) == [0, 4096, 8192, 12288]
        assert (offsets(r2ts) != sorted(offsets(r2ts))) is allowed
        assert [r2t.word(36) for r2t in r2ts] == [0, 1, 2, 3]
        answers: list[Pdu] = []
        for r2t in r2ts:
            at = r2t.word(40)
            answers += i.feed(i.data_out(1, r2t.word(20), at, data[at : at + 4096]))
        assert [a.status for a in answers] == [0]
        back = i.feed(i.command(cdb(0x28, SIZE // 512), itt=2, read=SIZE))
        assert b"".join(a.data for a in back) == data
