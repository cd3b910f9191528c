"""FCP's error recovery under a rain of faults. The long version is ``tools/fcoe-fault-soak``."""

from __future__ import annotations

import pytest
from support.fcoe_fault_soak import run

pytestmark = pytest.mark.soak


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["vn2vn", "fcf", "p2p"])
def test_every_frame_may_be_lost(mode: str) -> None:
    """FCP-4 clause 12: nothing is lost, and nothing that changes the medium is done twice, whatever happens to frames."""
    tally = run(30, 1, 0.01, mode)
    assert tally.commands.total() > 1000
    assert {name.split()[1] for name in tally.faults} == {"drop", "duplicate", "reorder", "corrupt"}
    assert min(tally.counters[name] for name in ("recs", "srrs", "aborts")) > 10
