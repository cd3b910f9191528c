"""LIO's trace as the oracle: its initiator's side is replayed, and every frame of ours is LIO's, or the table says why not."""

from __future__ import annotations

import zlib
from collections import defaultdict

import pytest
from support.fcoe_capture import captured
from support.fcoe_golden import Difference, Replay, differences, is_targets, lio, replayed
from support.fcoe_lio_differences import NOT_SEEN, ROWS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def replay():
    async with replayed() as done:
        yield done


def found(replay: Replay) -> dict[Difference, list[int]]:
    numbers = defaultdict(list)
    for number, difference in differences(dict(replay.book.said), lio()):
        numbers[difference].append(number)
    return dict(numbers)


async def test_every_frame_is_lios(replay: Replay) -> None:
    """But for what stands in the table, and everything in the table is true."""
    all_of_them = found(replay)
    unexplained = {
        difference: numbers
        for difference, numbers in all_of_them.items()
        if not any(match.fits(difference) for row in ROWS for match in row.matches)
    }
    assert not unexplained
    for row in ROWS:
        for match in row.matches:
            assert any(match.fits(difference) for difference in all_of_them), (row.where, match)


async def test_all_of_it_was_compared(replay: Replay) -> None:
    """Every frame of LIO's is in a conversation, and so is every one of ours; data are the same, byte for byte."""
    theirs = lio()
    assert sum(map(len, theirs.values())) == sum(map(is_targets, captured()))
    ours = dict(replay.book.said)
    reads = [conversation for conversation in theirs if conversation[0] == "READ (10)"]
    assert len(reads) == 56
    assert "READ (10)" not in {difference[0] for difference in found(replay)}
    for conversation in reads:
        mine, others = ([bytes(each.frame.payload) for each in frames[conversation][:-1]] for frames in (ours, theirs))
        assert mine == others
    assert {conversation[0] for conversation in ours} >= {
        "PLOGI", "PRLI", "RTV", "WRITE (10)", "LOGICAL UNIT RESET", "FIP Virtual link reply (LS_ACC)",
    }  # fmt: skip
    # all that was given to us was understood; what answered LIO's own PRLI and RTV was not given
    assert replay.skipped == [18, 22]
    counters = replay.station.counters.as_dict()
    assert {name for name, count in counters.items() if count} == {
        "frames_in", "fip_frames_in", "els_in", "plogi_in", "prli_in",
    }  # fmt: skip


async def test_a_difference_is_found(replay: Replay) -> None:
    """One bit of one frame of ours that is otherwise."""
    before = found(replay)
    conversation = next(each for each in replay.book.said if each[0] == "WRITE (10)")
    ready = replay.book.said[conversation][0]
    at = 14 + 14 + 24 + 7  # BURST_LEN of FCP_XFER_RDY
    changed = bytearray(ready.ethernet)
    changed[at] ^= 1
    changed[-8:-4] = zlib.crc32(changed[28:-8]).to_bytes(4, "little")
    replay.book.said[conversation][0] = type(ready)(bytes(changed), ready.number)
    new = found(replay).keys() - before.keys()
    assert new == {("WRITE (10)", "FCP_XFER_RDY payload 4-7", "00004001", "00004000")}
    assert not any(match.fits(difference) for difference in new for row in ROWS for match in row.matches)


def test_the_table_has_reasons() -> None:
    for row in (*ROWS, *NOT_SEEN):
        assert all((row.where, row.lio, row.tcm, row.why))
        assert not any("|" in text for text in row[:4])
