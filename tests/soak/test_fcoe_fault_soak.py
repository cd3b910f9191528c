"""FCP's error recovery under a rain of faults. The long version is ``tools/fcoe-fault-soak``."""

from __future__ import annotations

import pytest
from support.fcoe_fault_soak import Tally, run

pytestmark = pytest.mark.soak


def all_kinds_and_many(tally: Tally) -> bool:
    """Of faults, of commands and of each way to recover."""
    kinds = {name.split()[1] for name in tally.faults}
    recovered = min(tally.counters[name] for name in ("recs", "srrs", "aborts"))
    return tally.commands.total() > 1000 and recovered > 10 and kinds == {"drop", "duplicate", "reorder", "corrupt"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["vn2vn", "fcf", "p2p"])
def test_every_frame_may_be_lost(mode: str) -> None:
    """FCP-4 clause 12: nothing is lost, and nothing that changes the medium is done twice, whatever happens to frames."""
    assert all_kinds_and_many(run(30, 1, 0.01, mode, enough=all_kinds_and_many))
