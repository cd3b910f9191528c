"""LBA maps: LIO's text, the segments of a range, and the data that tell of them (SBC-4 4.18.4, 4.26)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi.asymmetric_access import AccessState
from tcm.scsi.referrals import (
    MAXIMUM_SEGMENTS,
    lba_map_text,
    parse_lba_map,
    referral_sense_descriptor,
    report_referrals_data,
)

PLAIN = "0 0\n0 99 1:O 2:A\n100 4095 1:S 2:O\n"
STRIPED = "8 2\n0 4087 1:O 2:U\n8 4095 1:U 2:O\n"


@pytest.mark.parametrize("text", [PLAIN, STRIPED])
def test_text_comes_back(text):
    assert lba_map_text(parse_lba_map(text)) == text


def test_descriptors():
    """SBC-4 tables 18, 19 and 107."""
    segments = parse_lba_map(PLAIN).segments
    data = report_referrals_data(segments)
    first = bytes.fromhex("00000002 0000000000000000 0000000000000063 00000001 01000002")
    second = bytes.fromhex("00000002 0000000000000064 0000000000000fff 02000001 00000002")
    assert data == bytes((0, 0, 0, 56)) + first + second
    assert referral_sense_descriptor(segments) == bytes((0x0B, 58, 0, 0)) + first + second


def test_sense_descriptor_holds_whole_segments_only():
    """SBC-4 4.26.3: NOT_ALL_R says that there are more; 252 bytes of sense data are enough."""
    lines = "\n".join(f"{n} {n} 1:O 2:A" for n in range(20))
    descriptor = referral_sense_descriptor(parse_lba_map(f"0 0\n{lines}").segments)
    assert descriptor[2] == 1
    assert (len(descriptor) - 4) % 28 == 0
    assert descriptor[1] == len(descriptor) - 2
    assert 200 < len(descriptor) <= 244


@given(st.integers(0, 5000), st.integers(1, 200), st.sampled_from([PLAIN, STRIPED]))
def test_pieces_are_what_each_block_says(lba, blocks, text):
    lba_map = parse_lba_map(text)

    def line(block: int) -> int | None:
        if block > 4095:
            return None
        return block // 8 % 2 if lba_map.segment_size else int(block >= 100)

    expected: dict[int | None, int] = {}
    for block in range(lba, lba + blocks):
        expected.setdefault(line(block), block)
    found: dict[int | None, int] = {}
    for block, segment in lba_map.pieces(lba, blocks):
        found.setdefault(None if segment is None else lba_map.segments.index(segment), block)
    assert found == expected


def test_a_range_of_any_length_takes_one_turn():
    assert len(list(parse_lba_map(STRIPED).pieces(3, 1 << 62))) <= 4


BAD = {
    "": "line 1: segment size and multiplier",
    "0\n0 9 1:O": "line 1: segment size and multiplier are wanted",
    "0 0": "1 to 1024 lines",
    "8 0\n0 9 1:O": "line 1: segment size and multiplier are both zero or both not",
    "-1 0\n0 9 1:O": "line 1: '-1' is not a number",
    "0 0\n0 9": "line 2: first LBA, last LBA and at least one group:state are wanted",
    "0 0\n0 x 1:O": "line 2: 'x' is not a number",
    "0 0\n0 99999999999999999999 1:O": "line 2: '99999999999999999999' is not a number",
    "0 0\n9 0 1:O": "line 2: the last LBA 0 is before the first",
    "0 0\n0 9 1:X": "line 2: '1:X': each group once",
    "0 0\n0 9 1:O 1:A": "line 2: '1:A': each group once",
    "0 0\n0 9 70000:O": "line 2: '70000:O': each group once",
    "0 0\n0 9 1:O\n10 19 1:O 2:A": "line 3: every line names as many groups",
    "0 0\n1 9 1:O": "line 2: its first LBA is not 0: there is a gap or an overlap",
    "0 0\n0 9 1:O\n9 19 1:O": "line 3: its first LBA is not 10: there is a gap or an overlap",
    "8 2\n0 99 1:O\n4 99 1:A": "line 3: its first LBA is not 8",
    "8 3\n0 99 1:O\n8 99 1:A": "there are 2 lines, not 3 as the segment multiplier says",
    "0 0\n" + "\n".join(f"{n} {n} 1:O" for n in range(MAXIMUM_SEGMENTS + 1)): "1 to 1024 lines",
    "0 0\n" + "\n".join(f"{n} {n} " + " ".join(f"{g}:O" for g in range(1, 255)) for n in range(70)): "too many groups",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_wrong_is_one_line(text):
    with pytest.raises(ValueError, match="line") as caught:
        parse_lba_map(text)
    assert BAD[text] in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="019 :OAx\n-", max_size=60))
def test_any_text_is_parsed_or_refused(text):
    try:
        lba_map = parse_lba_map(text)
    except ValueError:
        return
    assert parse_lba_map(lba_map_text(lba_map)).segments[0].states == lba_map.segments[0].states
    assert all(isinstance(state, AccessState) for each in lba_map.segments for state in each.states.values())
