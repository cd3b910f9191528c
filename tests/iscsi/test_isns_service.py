"""The fabric at an iSNS server over real TCP, on both event loops; and what is told of which portal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from anyio.abc import Listener, SocketAttribute, SocketStream
from support.isns_server import IsnsServer
from support.scsi import make_lu, ramdisk
from tcm_iscsi.attributes import TpgAttributes, TpgParameters
from tcm_iscsi.fabric import IscsiFabric, IscsiOptions
from tcm_iscsi.isns_records import MAX_WILDCARD_ADDRESSES, portals_of, real_addresses, registration
from tcm_iscsi.protocol.isns_attributes import Tag
from tcm_iscsi.protocol.isns_messages import Node, Portal
from tcm_iscsi.sessions import PortalBinding

from tcm.target.device import TargetDevice
from tcm.target.node_acl import AccessControl
from tcm.target.portal_group import NetworkPortal, TargetPortalGroup

ONE, TWO = "iqn.2003-01.org.example:one", "iqn.2003-01.org.example:two"


def make_group(name: str, tag: int = 1, alias: str = "") -> TargetPortalGroup:
    group = TargetDevice(name, "iscsi").add_portal_group(tag)
    group.access = AccessControl(generate_node_acls=True)
    group.attributes = TpgAttributes()
    group.parameters = TpgParameters(TargetAlias=alias) if alias else TpgParameters()
    return group


class Serving:
    """A fabric with one target, and the server that it is registered at."""

    def __init__(self, fabric: IscsiFabric, group: TargetPortalGroup, model: IsnsServer) -> None:
        self.fabric, self.group, self.model = fabric, group, model

    async def until(self, *names: str) -> None:
        """The server knows these targets."""
        with anyio.fail_after(60):
            while {name for entity in self.model.entities.values() for name in entity.nodes} != set(names):
                await anyio.sleep(0.01)


@asynccontextmanager
async def serving(*, drop_first: bool = False) -> AsyncIterator[Serving]:
    model, connections = IsnsServer(), 0

    async def answer(stream: SocketStream) -> None:
        nonlocal connections
        connections += 1
        model.connect()
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while data := model.receive(await stream.receive()):
                    if drop_first and connections == 1:
                        return
                    await stream.send(data)

    async def serve(listener: Listener[SocketStream]) -> None:
        async with listener:
            await listener.serve(answer)

    async with make_lu(ramdisk(1 << 20)) as unit, anyio.create_task_group() as tasks:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        tasks.start_soon(serve, listener)
        group = make_group(ONE)
        group.portals.append(NetworkPortal("127.0.0.1", 0))
        group.add_lun(0, unit)
        port = listener.extra(SocketAttribute.local_port)
        fabric = IscsiFabric([group.target], IscsiOptions(isns=f"127.0.0.1:{port}", isns_esi=60))
        await tasks.start(lambda task_status: fabric.run(task_status=task_status))
        try:
            yield Serving(fabric, group, model)
        finally:
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_changes_are_registered_when_the_fabric_is_told() -> None:
    """:meth:`IscsiFabric.registrations_changed`: a group that is disabled and enabled, and a target and a portal that come."""
    async with serving() as s:
        await s.until(ONE)
        binding = s.fabric.registry.bindings[0]
        (portal,) = s.model.entities[ONE].portals.values()
        assert portal[Tag.ESI_INTERVAL] == 60
        assert portal[Tag.ESI_PORT] == portal[Tag.SCN_PORT] not in (0, binding.port)
        s.group.enabled = False
        s.fabric.registrations_changed()
        await s.until()
        s.group.enabled = True
        s.fabric.registrations_changed()
        await s.until(ONE)
        binding.groups.append(make_group(TWO, 9))
        s.fabric.registrations_changed()
        await s.until(ONE, TWO)
        assert s.model.entities[ONE].groups[TWO, ("127.0.0.1", binding.port)] == 9
        s.fabric.registry.bindings.append(PortalBinding("127.0.0.2", 3333, [s.group]))
        s.fabric.registrations_changed()
        with anyio.fail_after(60):
            while len(s.model.entities[ONE].portals) < 2:
                await anyio.sleep(0.01)
        assert s.model.entities[ONE].groups[TWO, ("127.0.0.2", 3333)] is None
        await s.fabric.drain()
        assert s.model.entities == {}


@pytest.mark.anyio
async def test_a_connection_that_is_lost_in_the_middle() -> None:
    async with serving(drop_first=True) as s:
        await s.until(ONE)
        await s.fabric.drain()
        assert s.model.entities == {}


def bindings(*addresses: str, port: int = 3260) -> list[PortalBinding]:
    return [PortalBinding(address, port) for address in addresses]


MACHINE = ["192.0.2.7", "198.51.100.7", "2001:db8::7"]


@pytest.mark.parametrize(
    ("addresses", "machine", "local", "expected"),
    [
        (("192.0.2.1",), MACHINE, "", ["192.0.2.1"]),
        (("0.0.0.0",), MACHINE, "127.0.0.1", ["192.0.2.7", "198.51.100.7"]),
        (("::",), MACHINE, "127.0.0.1", MACHINE),
        (("::", "0.0.0.0"), MACHINE, "127.0.0.1", ["2001:db8::7"]),
        (("0.0.0.0",), [], "127.0.0.1", ["127.0.0.1"]),
        (("0.0.0.0",), ["2001:db8::7"], "::1", []),
        (("::",), [], "::1", ["::1"]),
        (("::",), [], "", []),
        (("fe80::1%eth0",), MACHINE, "", []),
        (("169.254.0.1",), MACHINE, "", []),
        (("0.0.0.0",), [f"192.0.2.{n}" for n in range(99)], "", [f"192.0.2.{n}" for n in range(MAX_WILDCARD_ADDRESSES)]),
    ],
)
def test_real_addresses(addresses: tuple[str, ...], machine: list[str], local: str, expected: list[str]) -> None:
    """A wildcard stands for the machine's addresses, of both families where the socket takes both."""
    bound = bindings(*addresses)
    assert real_addresses(bound[0], bound, machine, local) == expected


def test_registration_of_portals_and_groups() -> None:
    """Each portal with the tag of each target's group there; what is disabled or reached nowhere is left out."""
    one, two, off = make_group(ONE, 1, alias="disk"), make_group(TWO, 7), make_group(TWO, 8)
    off.enabled = False
    bound = bindings("192.0.2.1", "::", "192.0.2.3")
    bound[0].groups += [one, two]
    bound[1].groups += [off, one]
    bound[2].groups += [off]
    portals = portals_of(bound, ["2001:db8::7"], "")
    made = registration("entity", portals, {"192.0.2.1": 7000}, 60)
    assert made is not None
    first, second = ("192.0.2.1", 3260), ("2001:db8::7", 3260)
    assert made.portals == (Portal(*first, 60, 7000, 7000), Portal(*second))
    assert made.nodes == (
        Node(ONE, "disk", ((first, 1), (second, 1))),
        Node(TWO, str(two.parameters.TargetAlias), ((first, 7), (second, None))),
    )
    assert registration("entity", {}, {}, 0) is None


def test_a_long_alias_is_cut_at_a_character() -> None:
    group = make_group(ONE, alias="ü" * 127)
    made = registration("entity", {("192.0.2.1", 3260): {ONE: group}}, {}, 0)
    assert made is not None
    assert made.nodes[0].alias == "ü" * 126
