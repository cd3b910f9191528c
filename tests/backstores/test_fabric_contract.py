"""The shipped fabric contract, on our fabrics."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import tcm_iscsi.plugin
from tcm_loopback.plugin import tcm_fabrics

from tcm.testing import FabricContract


class TestLoopback(FabricContract):
    @pytest.fixture
    def fabric_type(self):
        return tcm_fabrics()[0]

    @asynccontextmanager
    async def connect(self, fabric):
        initiator = fabric.port().connect("naa.5001405000000002")
        yield
        initiator.disconnect()


class TestIscsi(FabricContract):
    @pytest.fixture
    def fabric_type(self):
        (kind,) = tcm_iscsi.plugin.tcm_fabrics()
        return kind
