"""The full feature phase suite (tests/conformance/test_iscsi_ffp_*.py) against LIO in a guest, in one boot.

What LIO does otherwise stands in support/ffp_lio.py and docs/iscsi-ffp.md. Those tests must fail here, so that a change of the
kernel is noticed; all others pass.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from support.ffp import LIO
from support.ffp_lio import DIFFERENCES, HARMFUL

pytestmark = [
    pytest.mark.interop,
    pytest.mark.guest,
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend, dut", [pytest.param("asyncio", LIO, id="lio")], indirect=["dut"]),
]

for path in sorted((Path(__file__).parents[1] / "conformance").glob("test_iscsi_ffp_*.py")):
    module = importlib.import_module(f"conformance.{path.stem}")
    globals().update({name: each for name, each in vars(module).items() if name.startswith("test_")})


@pytest.fixture(autouse=True)
def difference(request: pytest.FixtureRequest) -> None:
    """A recorded difference is expected to fail."""
    name, _, rest = request.node.name.partition("[")
    parameters = rest.removesuffix("lio]").removesuffix("-")
    key = next((key for key in (name, f"{name}[{parameters}]") if key in DIFFERENCES), None)
    if key is not None:
        request.applymarker(pytest.mark.xfail(reason=DIFFERENCES[key], strict=True, run=key not in HARMFUL))
