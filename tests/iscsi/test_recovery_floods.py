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
