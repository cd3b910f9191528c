"""The path that misbehaves, and the ranges of a transfer that is put together behind it."""

from __future__ import annotations

import random
from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fcoe_capture import captured
from tcm_fcoe.initiator.faults import Faults, FaultyPath
from tcm_fcoe.initiator.pieces import Pieces
from tcm_fcoe.protocol.fcoe import FcoeError, decapsulate

FRAMES = [each.ethernet for each in captured()]


def path(seed: int = 1, **chances: object) -> FaultyPath:
    return FaultyPath(Faults(**chances), random.Random(seed))  # type: ignore[arg-type]


def test_without_faults_everything_passes_as_it_is():
    faulty = path()
    assert [*faulty.take(FRAMES, 0.0)] == FRAMES
    assert not faulty.done
    assert not faulty.faults
    assert Faults(drop=0.1)
    assert Faults(choose=lambda *_: None)


def test_drops_are_as_many_as_the_chance_says():
    faulty = path(drop=0.1)
    left = faulty.take(FRAMES, 0.0)
    assert len(FRAMES) - len(left) == faulty.done["drop"]
    assert 40 < faulty.done["drop"] < 140


def test_the_same_seed_brings_the_same_faults():
    chances = {"drop": 0.05, "duplicate": 0.05, "reorder": 0.05, "corrupt": 0.05}
    assert path(7, **chances).take(FRAMES, 0.0) == path(7, **chances).take(FRAMES, 0.0)
    assert path(7, **chances).take(FRAMES, 0.0) != path(8, **chances).take(FRAMES, 0.0)


def test_duplicates_stand_side_by_side():
    faulty = path(duplicate=1.0)
    assert faulty.take([b"a" * 60, b"b" * 60], 0.0) == [b"a" * 60, b"a" * 60, b"b" * 60, b"b" * 60]


def test_a_frame_lets_the_next_one_pass():
    names = iter(("reorder", "none", "none"))
    faulty = path(choose=lambda *_: next(names))
    assert faulty.take([b"a", b"b", b"c"], 0.0) == [b"b", b"a", b"c"]
    assert faulty.next_timer == inf


def test_a_frame_that_is_held_goes_on_in_the_end():
    faulty = path(choose=lambda *_: "reorder", hold_seconds=0.5)
    assert faulty.take([b"a"], 10.0) == []
    assert faulty.next_timer == 10.5
    assert faulty.handle_timer(10.4) == []
    assert faulty.handle_timer(10.5) == [b"a"]
    assert faulty.next_timer == inf
    assert faulty.take([b"b", b"c"], 11.0) == [b"b"]


def test_held_frames_follow_whatever_comes_next():
    for fault, expected in (("duplicate", [b"b" * 60, b"b" * 60, b"a" * 60]), ("drop", [])):
        names = iter(("reorder", fault))
        faulty = path(choose=lambda *_, names=names: next(names))
        assert faulty.take([b"a" * 60, b"b" * 60], 0.0) == expected


def test_damage_is_one_bit_and_the_crc_shows_it():
    faulty = path(corrupt=1.0)
    noticed = Counter()
    for frame, damaged in zip(FRAMES, faulty.take(FRAMES, 0.0), strict=True):
        if frame[12:14] == b"\x89\x14":
            assert damaged == frame, "FIP has no CRC"
            continue
        wrong = [a ^ b for a, b in zip(frame, damaged, strict=True)]
        assert sum(each.bit_count() for each in wrong) == 1
        assert not any(wrong[:14])
        try:
            decapsulate(memoryview(damaged)[14:])
        except FcoeError as e:
            noticed[e.counter] += 1
        else:  # a reserved bit, which nobody has to look at
            assert wrong.index(next(filter(None, wrong))) < 27 or any(wrong[-3:])
    assert noticed["crc_errors"] > 700


def test_tagged_frames_are_damaged_behind_the_tag():
    frame = FRAMES[22][:12] + b"\x81\x00\x00\x65" + FRAMES[22][12:]
    for seed in range(50):
        (damaged,) = path(seed, corrupt=1.0).take([frame], 0.0)
        assert damaged[:18] == frame[:18]
        assert damaged != frame


def test_a_rule_decides_before_chance():
    faulty = path(drop=1.0, choose=lambda frame, number: "none" if number % 2 else None)
    assert faulty.take([b"a", b"b", b"c"], 0.0) == [b"a", b"c"]


def test_there_is_no_such_fault():
    with pytest.raises(ValueError, match="use one of drop, duplicate, reorder, corrupt"):
        path(choose=lambda *_: "explode").take([b"a"], 0.0)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=30))
def test_pieces_are_a_set_of_bytes(adds):
    pieces, model = Pieces(), set()
    for start, length in adds:
        new = set(range(start, start + length))
        assert pieces.add(start, start + length) == bool(new - model)
        model |= new
        assert [byte for begin, end in pieces.ranges for byte in range(begin, end)] == sorted(model)
        assert all(before[1] < after[0] for before, after in zip(pieces.ranges, pieces.ranges[1:], strict=False))
        expected = next(byte for byte in range(100) if byte not in model)
        assert pieces.contiguous() == expected
