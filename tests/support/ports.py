"""A logical unit behind two target ports, each in a target port group of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from support.scsi import FIRST, make_lu
from tcm_loopback.commands import ApplicationClient, Expected
from tcm_loopback.fabric import LoopbackPort

from tcm.backstore import Backstore, BlockingBackstore
from tcm.scsi import cdb
from tcm.scsi.asymmetric_access import AccessState
from tcm.scsi.sense import Status
from tcm.target.access_transition import set_access_state
from tcm.target.device import TargetDevice
from tcm.target.logical_unit import LogicalUnit
from tcm.target.lun import Lun
from tcm.target.node_acl import AccessControl
from tcm.target.target_port_group import GroupAttributes, TargetPortGroup

QUICK = GroupAttributes(nonop_delay_msecs=0, alua_support_lba_dependent=True)


@dataclass
class TwoPorts:
    """One initiator port's two ways to a unit: LUN 0 of port 1 in group 1, LUN 5 of port 2 in group 2."""

    unit: LogicalUnit
    luns: tuple[Lun, Lun]
    groups: tuple[TargetPortGroup, TargetPortGroup]
    clients: tuple[ApplicationClient, ApplicationClient]

    @property
    def ports(self) -> tuple[int, int]:
        """Relative target port identifiers."""
        one, two = (lun.port.relative_target_port_identifier for lun in self.luns)
        return one, two

    async def put(self, state: AccessState, index: int = 1) -> None:
        """Put a group into a state, unit attentions out of the way."""
        group = self.groups[index]
        if state is AccessState.TRANSITIONING:
            group.state = state
            self.unit.update_express()
        elif state is AccessState.LOGICAL_BLOCK_DEPENDENT:
            attributes = group.attributes
            self.unit.asymmetric_access.configure(group, replace(attributes, alua_access_type=1))
            await set_access_state(group, state)
        else:
            await set_access_state(group, state)
        await self.settle()

    async def settle(self) -> None:
        """Take the unit attentions away."""
        for client in self.clients:
            for _ in range(4):
                await client.request_sense()

    def configure(self, index: int = 1, **attributes: Any) -> None:
        """Change attributes of a group."""
        group = self.groups[index]
        self.unit.asymmetric_access.configure(group, replace(group.attributes, **attributes))


@asynccontextmanager
async def two_ports(backstore: Backstore | BlockingBackstore | None = None, **options: Any) -> AsyncIterator[TwoPorts]:
    """See :class:`TwoPorts`; ``options`` are :func:`make_lu`'s. Groups do not delay commands."""
    async with make_lu(backstore, **options) as unit:
        device = TargetDevice("naa.50014050000000ab", "loopback")
        luns, groups = [], []
        for tag, number in ((1, 0), (2, 5)):
            port = device.add_portal_group(tag)
            port.access = AccessControl(generate_node_acls=True, demo_mode_write_protect=False)
            lun = port.add_lun(number, unit)
            group = unit.asymmetric_access.add_group(f"group{tag}", tag, QUICK)
            unit.asymmetric_access.move(lun, group)
            luns.append(lun)
            groups.append(group)
        await unit.asymmetric_access.load()
        clients = [ApplicationClient(LoopbackPort(lun.port).connect(FIRST), lun.number) for lun in luns]
        ways = TwoPorts(unit, (luns[0], luns[1]), (groups[0], groups[1]), (clients[0], clients[1]))
        await ways.settle()
        try:
            yield ways
        finally:
            for client in clients:
                client.initiator.disconnect()


async def report_groups(client: ApplicationClient) -> dict[int, tuple[int, int, tuple[int, ...]]]:
    """By TARGET PORT GROUP: the access state, the status code and the ports."""
    data = (await client.execute(cdb.report_target_port_groups(), read_length=4096)).data_in
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    found, at = {}, 4
    while at < len(data):
        ports = tuple(int.from_bytes(data[at + 10 + 4 * n : at + 12 + 4 * n], "big") for n in range(data[at + 7]))
        found[int.from_bytes(data[at + 2 : at + 4], "big")] = (data[at] & 0x0F, data[at + 5], ports)
        at += 8 + 4 * len(ports)
    return found


async def set_groups(client: ApplicationClient, *changes: tuple[int, int], expect: Expected = Status.GOOD) -> Any:
    """SET TARGET PORT GROUPS of (group, state)."""
    data = cdb.target_port_groups_parameters(*changes)
    return await client.execute(cdb.set_target_port_groups(len(data)), data, expect=expect)
