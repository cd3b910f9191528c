"""A running iSCSI fabric with a target of one RAM disk, and the registry that reads what it counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio import to_thread
from support.raw_iscsi import INITIATOR, Initiator
from support.scsi import make_lu, ramdisk
from tcm_iscsi.attributes import AclAttributes, TpgAttributes, TpgParameters
from tcm_iscsi.fabric import IscsiFabric, IscsiOptions

from tcm.statistics.registry import Statistics
from tcm.target.device import TargetDevice
from tcm.target.node_acl import AccessControl, Authentication
from tcm.target.portal_group import NetworkPortal

NAME = "iqn.2003-01.org.example:t"
PATH = "/backstores/ramdisk/disk"
SIZE = 1 << 20
T = TypeVar("T")


class Site:
    """Everything at hand."""

    def __init__(self, fabric: IscsiFabric, target: TargetDevice, statistics: Statistics) -> None:
        self.fabric = fabric
        self.target = target
        self.group = target.portal_groups[1]
        self.unit = self.group.luns[0].logical_unit
        self.statistics = statistics
        self.name = NAME
        self.path = PATH

    def connect(self, **options: Any) -> Initiator:
        """To be called in a thread, like what follows."""
        return Initiator("127.0.0.1", self.fabric.registry.bindings[0].port, **options)

    def login(self, **options: Any) -> Initiator:
        return self.connect().login(NAME, **options).ready()

    async def until_left(self) -> None:
        """All connections are gone."""
        with anyio.fail_after(60):
            while self.fabric.sessions() or self.group.nexuses:
                await anyio.sleep(0.01)


async def apart(work: Callable[..., T], *args: Any) -> T:
    """Run blocking initiator code beside the target."""
    with anyio.fail_after(60):
        return await to_thread.run_sync(partial(work, *args), abandon_on_cancel=True)


@asynccontextmanager
async def serving(
    *, parameters: dict[str, Any] | None = None, authentication: Authentication | None = None, acl: bool = False
) -> AsyncIterator[Site]:
    """:param acl: the initiator of the tests has a node ACL with LUN 0, and nobody else gets in."""
    async with make_lu(ramdisk(SIZE)) as unit:
        target = TargetDevice(NAME, "iscsi")
        group = target.add_portal_group(1)
        group.attributes = TpgAttributes(
            authentication=authentication is not None, generate_node_acls=not acl, demo_mode_write_protect=False
        )
        group.access = AccessControl(generate_node_acls=not acl, demo_mode_write_protect=False)
        group.authentication = authentication or Authentication()
        group.parameters = TpgParameters(**{"InitialR2T": "No", "ImmediateData": "Yes", **(parameters or {})})
        group.portals.append(NetworkPortal("127.0.0.1", 0))
        group.add_lun(0, unit)
        if acl:
            made = group.add_node_acl(INITIATOR)
            made.attributes = AclAttributes()
            group.map_lun(made, 0, 0)
        fabric = IscsiFabric([target], IscsiOptions())
        async with anyio.create_task_group() as tasks:
            await tasks.start(partial(_run, fabric))
            yield Site(fabric, target, Statistics({PATH: unit}, [target], {"iscsi": fabric}))
            tasks.cancel_scope.cancel()


async def _run(fabric: IscsiFabric, *, task_status: Any) -> None:
    await fabric.run(task_status=task_status)
