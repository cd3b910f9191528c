"""The queue of unit attention conditions: SAM-5 5.14."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi.sense import SenseKey
from tcm.target import unit_attention as ua
from tcm.target.unit_attention import MAXIMUM_PENDING, AttentionQueue, UnitAttention

ALL = [value for value in vars(ua).values() if isinstance(value, UnitAttention)]
RESETS = [attention for attention in ALL if attention.is_reset]


def drain(queue: AttentionQueue) -> list[UnitAttention]:
    found = []
    while (attention := queue.first()) is not None:
        found.append(attention)
        assert queue.clear(attention)
    return found


def test_first_in_first_out() -> None:
    """SAM-5 5.14.1: conditions of one level are reported in the order in which they came about, each once."""
    queue = AttentionQueue()
    assert not queue
    assert queue.establish(ua.MODE_PARAMETERS_CHANGED)
    assert queue.establish(ua.CAPACITY_DATA_HAS_CHANGED)
    assert not queue.establish(ua.MODE_PARAMETERS_CHANGED)
    assert len(queue) == 2
    assert drain(queue) == [ua.MODE_PARAMETERS_CHANGED, ua.CAPACITY_DATA_HAS_CHANGED]
    assert not queue.clear(ua.MODE_PARAMETERS_CHANGED)


def test_reset_precedence() -> None:
    """SAM-5 table 46: a reset comes first and replaces lower resets; a lower one after it is not established."""
    queue = AttentionQueue()
    queue.establish(ua.MEDIUM_CHANGED)
    queue.establish(ua.I_T_NEXUS_LOSS_OCCURRED)
    assert queue.establish(ua.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    assert not queue.establish(ua.I_T_NEXUS_LOSS_OCCURRED)
    assert queue.establish(ua.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
    assert not queue.establish(ua.SCSI_BUS_RESET_OCCURRED)
    assert drain(queue) == [ua.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED, ua.MEDIUM_CHANGED]


@given(st.lists(st.sampled_from(ALL), max_size=60))
def test_invariants(established: list[UnitAttention]) -> None:
    """At most one reset, in front; no duplicates; bounded; the highest reset that came is the one that is told."""
    queue = AttentionQueue()
    for attention in established:
        queue.establish(attention)
    pending = drain(queue)
    assert len(pending) == len(set(pending)) <= MAXIMUM_PENDING
    assert not any(attention.is_reset for attention in pending[1:])
    resets = [attention.precedence for attention in established if attention.is_reset]
    if resets:
        assert pending[0].precedence == min(resets)


def test_overflow_forgets_the_oldest_that_is_no_reset() -> None:
    """SAM-5 5.14.1 allows a queue to overflow; a reset is not what is lost."""
    queue = AttentionQueue()
    queue.establish(ua.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    others = [UnitAttention(0x80, code, f"vendor specific {code}") for code in range(MAXIMUM_PENDING + 3)]
    for attention in others:
        queue.establish(attention)
    assert drain(queue) == [ua.BUS_DEVICE_RESET_FUNCTION_OCCURRED, *others[4:]]


def test_sense() -> None:
    """SPC-5 table 54: UNIT ATTENTION with the condition's codes, no two conditions alike."""
    assert len({(attention.asc, attention.ascq) for attention in ALL}) == len(ALL)
    sense = ua.REPORTED_LUNS_DATA_HAS_CHANGED.check_condition().sense
    assert (sense.key, sense.asc, sense.ascq) == (SenseKey.UNIT_ATTENTION, 0x3F, 0x0E)
    assert len(RESETS) == 6
