"""The fuzz targets for a fixed time: TCM_FUZZ_SECONDS, 60 in CI, 3 elsewhere; a new seed each run, printed on failure."""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path
from types import ModuleType

import anyio
import pytest

SECONDS = float(os.environ.get("TCM_FUZZ_SECONDS", "60" if os.environ.get("CI") else "3"))


def target(name: str) -> ModuleType:
    """A file beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.soak
def test_fuzz_connection() -> None:
    """See the invariant in fuzz_connection.py."""
    seed = random.SystemRandom().getrandbits(32)
    assert anyio.run(target("fuzz_connection").fuzz, SECONDS, seed) > SECONDS


@pytest.mark.soak
def test_fuzz_fcoe() -> None:
    """See the invariant in fuzz_fcoe.py."""
    assert target("fuzz_fcoe").fuzz(SECONDS, random.SystemRandom().getrandbits(32)) > SECONDS


@pytest.mark.soak
def test_fuzz_agentx() -> None:
    """See the invariant in fuzz_agentx.py."""
    assert target("fuzz_agentx").fuzz(SECONDS, random.SystemRandom().getrandbits(32)) > SECONDS
