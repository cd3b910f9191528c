"""The loopback fabric itself: ports, names, life cycle."""

from __future__ import annotations

import anyio
import pytest
from support.scsi import FIRST, SECOND, make_lu, make_target, target
from tcm_loopback import plugin
from tcm_loopback.attributes import LoopbackOptions, check_name, default_name
from tcm_loopback.commands import ApplicationClient, UnexpectedOutcome, check
from tcm_loopback.fabric import LoopbackFabric, TransportStatus
from tcm_loopback.initiator import TransportDisrupted
from tcm_loopback.transport import Result

from tcm.failure import ConfigError
from tcm.plugin_types import API_VERSION
from tcm.scsi.check_condition import InvalidFieldInCdb, LbaOutOfRange
from tcm.scsi.sense import Sense, SenseKey, Status
from tcm.target.portal_group import NexusRefused


@pytest.mark.parametrize(
    "written",
    ["naa.5001405abcdef012", "NAA.5001405ABCDEF012", "0x5001405abcdef012", "50:01:40:5a:bc:de:f0:12", "5001-405a-bcde-f012"],
)
def test_name_spellings(written: str) -> None:
    assert check_name(written) == "naa.5001405abcdef012"


@pytest.mark.parametrize(
    "written", ["", "naa.", "iqn.2003-01.org:x", "naa.5001", "naa.9001405abcdef012", "naa.5001405abcdef01g"]
)
def test_name_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="naa"):
        check_name(written)


def test_default_name_is_a_name() -> None:
    name = default_name("host", "0123456789ab")
    assert check_name(name) == name == "naa.50014053456789ab"


def test_descriptor() -> None:
    (fabric,) = plugin.tcm_fabrics()
    assert (fabric.name, fabric.api_version, fabric.uses_portals) == ("loopback", API_VERSION, False)
    assert fabric.check_config is not None
    fabric.check_config(LoopbackOptions())
    fabric.check_config(LoopbackOptions(nexus=""))
    with pytest.raises(ConfigError):
        fabric.check_config(LoopbackOptions(nexus="nobody"))


def test_check_says_what_came() -> None:
    error = Result(
        status=Status.CHECK_CONDITION,
        sense=Sense(key=SenseKey.ILLEGAL_REQUEST, asc=0x24),
        data_in=b"",
        residual=0,
        overflow=False,
    )
    assert check(error, InvalidFieldInCdb) is error
    assert check(error, Status.CHECK_CONDITION) is error
    assert check(error, None) is error
    for expect in (Status.GOOD, LbaOutOfRange):
        with pytest.raises(UnexpectedOutcome, match="ILLEGAL_REQUEST 24h/00h"):
            check(error, expect)
    with pytest.raises(UnexpectedOutcome, match="got GOOD"):
        check(Result(status=Status.GOOD), InvalidFieldInCdb)


@pytest.mark.anyio
async def test_fabric_life_cycle() -> None:
    """run logs the configured initiator in, endpoints name every LUN, drain loses the nexuses."""
    async with make_lu() as unit:
        group = make_target(unit).target_portal_group
        fabric = LoopbackFabric([group.target], LoopbackOptions(nexus=SECOND))
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda *, task_status: fabric.run(task_status=task_status))
            assert [endpoint.url for endpoint in fabric.endpoints()] == [f"loopback://{group.target.name}/1/0"]
            (session,) = fabric.sessions()
            assert SECOND in session
            client = ApplicationClient(fabric.port().connect(FIRST))
            await client.identify()
            await client.read(10, 0, 1)
            assert len(fabric.sessions()) == 2
            await fabric.drain()
            assert not fabric.sessions()
            assert not group.nexuses
            with pytest.raises(TransportDisrupted):
                await client.test_unit_ready()
            tasks.cancel_scope.cancel()
        assert list(fabric.targets()) == [group.target]


@pytest.mark.anyio
async def test_transport_status() -> None:
    """LIO's transport_status: offline disrupts, online lets the initiator back in."""
    async with target(None) as port:
        client = ApplicationClient(port.connect())
        await client.identify()
        port.transport_status = TransportStatus.OFFLINE
        assert port.transport_status is TransportStatus.OFFLINE
        with pytest.raises(TransportDisrupted):
            await client.test_unit_ready()
        with pytest.raises(TransportDisrupted):
            client.initiator.reconnect()
        with pytest.raises(TransportDisrupted):
            port.connect(SECOND)
        port.transport_status = TransportStatus.ONLINE
        client.initiator.reconnect()
        await client.identify()


@pytest.mark.anyio
async def test_refused_without_acl() -> None:
    """An initiator that the portal group does not admit gets no nexus."""
    async with make_lu() as unit:
        port = make_target(unit)
        group = port.target_portal_group
        group.access = type(group.access)(generate_node_acls=False)
        with pytest.raises(NexusRefused):
            port.connect(FIRST)
        assert not port.initiators
