"""The shipped fabric contract, on our fabrics."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import tcm_fcoe.plugin
import tcm_iscsi.plugin
from tcm_fcoe.initiator.driver import attach
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


class TestFcoe(FabricContract):
    @pytest.fixture
    def fabric_type(self, tmp_path):
        self.options = {"interface": f"unix:{tmp_path}/t,{tmp_path}/i"}
        self.link = f"unix:{tmp_path}/i,{tmp_path}/t"
        (kind,) = tcm_fcoe.plugin.tcm_fabrics()
        return kind

    @asynccontextmanager
    async def connect(self, fabric):
        async with attach(self.link, port_name=bytes.fromhex("20005254000f5970")) as port:
            target = await port.target()
            await target.test_unit_ready()
            yield
