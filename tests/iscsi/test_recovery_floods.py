"""Recovery at its limits: what a peer can make the target hold or compute at error recovery level 1 and 2."""

from __future__ import annotations

import struct
import time

import pytest
from support.iscsi_session import Initiator, connected
from support.scsi import ramdisk
from tcm_iscsi.protocol.full_feature import ConnectionFailed
from tcm_iscsi.protocol.pdu import RESERVED_TAG
from tcm_iscsi.protocol.unacknowledged import KEPT_RESPONSES

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
