"""Error recovery under a rain of faults. The long version is ``tools/fault-soak``."""

from __future__ import annotations

import pytest
from support.fault_soak import run

pytestmark = pytest.mark.soak


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_pdu_may_be_lost(seed: int) -> None:
    """RFC 7143 clause 7: nothing is lost or done twice at error recovery level 2, whatever happens to PDUs and connections."""
    tally = run(60, seed, 0.01)
    assert tally.commands.total() > 1000
    assert {name.split()[1] for name in tally.faults} == {"cut", "drop", "corrupt_header", "corrupt_data", "delay"}
    assert tally.reconnections > 100
