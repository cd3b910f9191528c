"""Sequence numbers as they arrive: in order or not, twice, and around the end of 32 bits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcm_iscsi.initiator.numbers import MAX_AHEAD, Numbers
from tcm_iscsi.protocol.serial import SERIAL_BITS, serial_less

START = st.sampled_from([0, 1, 0x7FFFFFF0, 0xFFFFFFF0, 0xFFFFFFFF])


@given(START, st.lists(st.integers(0, 40), max_size=80))
def test_numbers_are_a_set_with_a_beginning(start: int, steps: list[int]) -> None:
    """Against the plainest model there is."""
    numbers, model = Numbers(start), set()
    for step in steps:
        assert numbers.receive(start + step & SERIAL_BITS) == (step not in model)
        model.add(step)
        first = next(n for n in range(42) if n not in model)
        assert numbers.expected == start + first & SERIAL_BITS
        top = max(model)
        gaps = [n for n in range(top) if n not in model]
        found = [run + k & SERIAL_BITS for run, length in numbers.missing() for k in range(length)]
        assert found == [start + n & SERIAL_BITS for n in gaps]
        below = [run + k & SERIAL_BITS for run, length in numbers.missing(start + 50 & SERIAL_BITS) for k in range(length)]
        assert below == [start + n & SERIAL_BITS for n in range(50) if n not in model]


@given(START, st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_what_is_withheld_is_not_acknowledged(start: int, order: list[int], withheld: set[int]) -> None:
    numbers = Numbers(start)
    for step in order:
        numbers.receive(start + step & SERIAL_BITS, withhold=step in withheld)
    assert numbers.missing() == []
    for step in sorted(withheld):
        assert numbers.expected == start + step & SERIAL_BITS
        assert not numbers.receive(start + step & SERIAL_BITS)
        numbers.release(start + step & SERIAL_BITS)
    assert numbers.expected == start + 12 & SERIAL_BITS
    assert not numbers.ahead
    assert not numbers.withheld


def test_runs_are_as_long_as_they_can_be() -> None:
    numbers = Numbers(10)
    for number in (13, 14, 18):
        numbers.receive(number)
    assert numbers.missing() == [(10, 3), (15, 3)]
    assert numbers.missing(21) == [(10, 3), (15, 3), (19, 2)]


def test_a_jump_is_madness() -> None:
    numbers = Numbers(0)
    with pytest.raises(ValueError, match="is expected"):
        numbers.receive(MAX_AHEAD + 1)
    assert not numbers.ahead


def test_what_did_not_count_can_come_again() -> None:
    numbers = Numbers(0)
    numbers.receive(2)
    numbers.forget(2)
    assert numbers.receive(2)


@given(st.integers(0, SERIAL_BITS), st.integers(1, 0x7FFFFFFF))
def test_serial_arithmetic(a: int, distance: int) -> None:
    """RFC 1982."""
    b = a + distance & SERIAL_BITS
    assert serial_less(a, b)
    assert not serial_less(b, a)
    assert not serial_less(a, a)
