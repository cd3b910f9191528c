"""Error recovery under a rain of faults. The long version is ``tools/fault-soak``."""

from __future__ import annotations

import pytest
from support.fault_soak import Tally, run

pytestmark = pytest.mark.soak


def all_kinds_and_many(tally: Tally) -> bool:
    """Of faults, of commands and of connections that came back."""
    kinds = {name.split()[1] for name in tally.faults}
    everything = {"cut", "drop", "corrupt_header", "corrupt_data", "delay"}
    return tally.commands.total() > 1000 and tally.reconnections > 100 and kinds == everything


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_pdu_may_be_lost(seed: int) -> None:
    """RFC 7143 clause 7: nothing is lost or done twice at error recovery level 2, whatever happens to PDUs and connections."""
    assert all_kinds_and_many(run(60, seed, 0.01, enough=all_kinds_and_many))
