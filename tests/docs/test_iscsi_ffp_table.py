"""The full feature phase suite is complete, and so is the table of what LIO does otherwise."""

from __future__ import annotations

from collections import Counter

from parts import ffp_table as table

PLAN = {
    "1": 3, "2": 1, "3": 1, "4": 1, "5": 1, "6": 1, "7": 2, "8": 2, "9.3": 3, "10": 1, "11.2": 3, "11.3": 3, "12": 4, "13": 3,
    "14": 3, "15.1": 6, "16.3": 7, "16.4": 2, "17.1": 2, "17.2": 2, "17.3": 5, "17.4": 2, "17.7": 3, "17.8": 3, "18.1": 1,
    "18.2": 2, "19": 1,
}  # fmt: skip
"""Groups of the plan that are counted through, and how many tests each has."""
SINGLE = {"9.1", "9.2", "9.4", "9.5", "11.1", "11.4", "11.5", "15.2", "15.3", "16.1", "16.2", "16.5", "17.5", "17.6"}


def test_every_test_of_the_plan_is_there_once():
    plan = SINGLE | {f"{group}.{n}" for group, count in PLAN.items() for n in range(1, count + 1)}
    assert len(plan) == 82
    found = Counter(number for test in table.ffp_tests() for number in test.numbers)
    assert set(found) == plan
    assert set(found.values()) == {1}


def test_every_difference_is_of_a_test():
    names = {test.name for test in table.ffp_tests()}
    assert {key.partition("[")[0] for key in table.lio_differences()} <= names


def test_numbers_are_taken_apart():
    assert table.numbers("15.1.1 to 15.1.4") == ("15.1.1", "15.1.2", "15.1.3", "15.1.4")
    assert table.numbers("11.4 and 11.5") == ("11.4", "11.5")
