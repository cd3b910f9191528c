"""The fuzz target for a fixed time: TCM_FUZZ_SECONDS, 60 in CI, 3 elsewhere; a new seed each run, printed on failure."""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path

import anyio
import pytest

SECONDS = float(os.environ.get("TCM_FUZZ_SECONDS", "60" if os.environ.get("CI") else "3"))


@pytest.mark.soak
def test_fuzz_connection() -> None:
    """See the invariant in fuzz_connection.py."""
    spec = importlib.util.spec_from_file_location("fuzz_connection", Path(__file__).with_name("fuzz_connection.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    seed = random.SystemRandom().getrandbits(32)
    assert anyio.run(module.fuzz, SECONDS, seed) > SECONDS
