"""Fixtures of the PDU-level tests; a conftest that imports them has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
from anyio import to_thread
from support.ffp import PIECES, SANS_IO, TCM_RUN, DeviceUnderTest
from support.ffp_servers import Served, serving_lio, serving_tcm_run
from support.pdu_wires import TcpTarget, sans_io_target

IN_A_GUEST = pytest.StashKey[Callable[[], Served]]()
"""Of a test: the LIO that it is about."""
PIECE = 997
"""Bytes that reach the target at a time; a header is cut by every twentieth or so."""


@pytest.fixture(scope="module")
def tcm_run_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """tcm-run as the full feature phase suite wants a target."""
    with serving_tcm_run(tmp_path_factory.mktemp("tcm-run")) as found:
        yield found


@pytest.fixture(scope="module")
def lio_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Served]]:
    """LIO in a guest, likewise; to be asked before each test."""
    with serving_lio(tmp_path_factory.mktemp("lio")) as found:
        yield found


@pytest.fixture
async def dut(request: pytest.FixtureRequest) -> AsyncIterator[DeviceUnderTest]:
    """What a PDU-level test is about; all its sessions are ended after it."""
    async with AsyncExitStack() as stack:
        if request.param in (SANS_IO, PIECES):
            piece = PIECE if request.param == PIECES else 0
            device = DeviceUnderTest(await stack.enter_async_context(sans_io_target(piece)), request.param)
        else:
            if request.param == TCM_RUN:
                served: Served = request.getfixturevalue("tcm_run_target")
            else:
                lio = request.node.stash[IN_A_GUEST] = request.getfixturevalue("lio_target")
                served = await to_thread.run_sync(lio)
            patience = 30.0 if request.node.get_closest_marker("xfail") is None else 6.0
            target = TcpTarget(served.ports, served.names, patience, silence=served.silence)
            stack.push_async_callback(target.aclose)
            device = DeviceUnderTest(target, request.param, served.resident)
        stack.push_async_callback(device.aclose)
        yield device
