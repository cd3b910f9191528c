"""The login side of the iSCSI fabric as a whole: the real registry and portal groups; logins with bytes, or over TCP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio import to_thread
from support import iscsi_login, raw_iscsi
from support.iscsi_login import FULL_FEATURE, IDENTITY, INITIATOR, OPEN_ISCSI_KEYS, OPERATIONAL, SECURITY, TARGET
from support.scsi import make_lu
from tcm_iscsi.attributes import AclAttributes, TpgAttributes, TpgParameters
from tcm_iscsi.fabric import IscsiFabric, IscsiOptions
from tcm_iscsi.protocol.login_interface import LoginCompleted
from tcm_iscsi.protocol.parameters import SessionParameters
from tcm_iscsi.protocol.pdu import LoginStatus
from tcm_iscsi.sessions import PortalBinding, Registry

from tcm.target.device import TargetDevice
from tcm.target.node_acl import AccessControl, Authentication, NodeAcl
from tcm.target.portal_group import NetworkPortal, TargetPortalGroup

T = TypeVar("T")
HERE = ("192.0.2.1", 3260)
THERE = ("198.51.100.7", 40000)
ACCESS = ("generate_node_acls", "cache_dynamic_acls", "demo_mode_write_protect", "prod_mode_write_protect")


def configure(group: TargetPortalGroup, attributes: dict[str, Any] | None, parameters: dict[str, Any] | None) -> None:
    """As the runtime does it; open to everybody unless ``attributes`` say otherwise."""
    everything = {"authentication": False, "generate_node_acls": True, "demo_mode_write_protect": False, **(attributes or {})}
    group.attributes = TpgAttributes(**everything)
    group.parameters = TpgParameters(**(parameters or {}))
    group.access = AccessControl(**{name: getattr(group.attributes, name) for name in ACCESS})


class Site:
    """One target with one portal group at 192.0.2.1:3260, without a socket and without LUNs."""

    def __init__(self, parameters: dict[str, Any] | None = None, **attributes: Any) -> None:
        self.target = TargetDevice(TARGET, "iscsi")
        self.group = self.add_group(1, attributes, parameters)
        self.binding = PortalBinding(*HERE, [self.group])
        self.registry = Registry([self.target])
        self.registry.bindings.append(self.binding)

    def add_group(self, tag: int, attributes: Any = None, parameters: Any = None) -> TargetPortalGroup:
        group = self.target.add_portal_group(tag)
        configure(group, attributes, parameters)
        return group

    def acl(self, name: str = INITIATOR, parameters: TpgParameters | None = None, **attributes: Any) -> NodeAcl:
        """A node ACL, by default that of the initiator of :mod:`support.iscsi_login`."""
        acl = self.group.add_node_acl(name)
        acl.attributes, acl.parameters = AclAttributes(**attributes), parameters
        acl.cmdsn_depth = acl.attributes.cmdsn_depth or self.group.attributes.default_cmdsn_depth
        return acl

    def chap(self, userid: str = "alice", password: str = "initiatorsecret") -> Site:
        self.group.authentication = Authentication(userid, password)
        return self

    def initiator(self, *, local: tuple[Any, ...] = HERE, peer: tuple[Any, ...] = THERE) -> iscsi_login.Initiator:
        """A connection of it."""
        return iscsi_login.Initiator(self.registry.policy(self.binding, local, peer))

    def log_in(self, name: str = INITIATOR, *, local: Any = HERE, peer: Any = THERE, **keys: str) -> LoginCompleted:
        """What the login agreed on."""
        initiator = self.initiator(local=local, peer=peer)
        assert initiator.exchange(SECURITY, OPERATIONAL, IDENTITY | {"InitiatorName": name, "AuthMethod": "None"}).transit
        initiator.exchange(OPERATIONAL, FULL_FEATURE, {**OPEN_ISCSI_KEYS, **keys})
        return initiator.completed()

    def parameters(self, **keys: str) -> SessionParameters:
        """The session's."""
        return self.log_in(**keys).session_parameters

    def answer(
        self, name: str = INITIATOR, *, auth: str = "None", local: Any = HERE, peer: Any = THERE, tsih: int = 0
    ) -> iscsi_login.Answer:
        """The answer to the first Login Request."""
        initiator = self.initiator(local=local, peer=peer)
        initiator.tsih = tsih
        return initiator.exchange(SECURITY, OPERATIONAL, IDENTITY | {"InitiatorName": name, "AuthMethod": auth})

    def status(self, name: str = INITIATOR, **how: Any) -> LoginStatus:
        return self.answer(name, **how).status

    def seen(self, name: str = INITIATOR, peer: str = THERE[0]) -> list[int]:
        """Tags of the portal groups that SendTargets shows."""
        policy = self.registry.policy(self.binding, HERE, (peer, 1))
        return [portal.portal_group_tag for record in policy.records(name) for portal in record.portals]


class Served:
    """A running fabric with one target of one RAM disk."""

    def __init__(self, fabric: IscsiFabric, group: TargetPortalGroup) -> None:
        self.fabric = fabric
        self.group = group

    def connect(self, **options: Any) -> raw_iscsi.Initiator:
        """To be called in a thread."""
        return raw_iscsi.Initiator("127.0.0.1", self.fabric.registry.bindings[0].port, **options)

    def login(self, **options: Any) -> raw_iscsi.Initiator:
        return self.connect().login(TARGET, **options).ready()


async def apart(work: Callable[..., T], *args: Any) -> T:
    """Run blocking initiator code beside the target."""
    with anyio.fail_after(60):
        return await to_thread.run_sync(partial(work, *args), abandon_on_cancel=True)


@asynccontextmanager
async def served(acl: dict[str, Any] | None = None, **attributes: Any) -> AsyncIterator[Served]:
    """Over TCP on a free port.

    :param acl: attributes of a node ACL for raw_iscsi's initiator, with LUN 0.
    """
    async with make_lu() as unit:
        group = TargetDevice(TARGET, "iscsi").add_portal_group(1)
        configure(group, attributes, None)
        group.portals.append(NetworkPortal("127.0.0.1", 0))
        group.add_lun(0, unit)
        if acl is not None:
            node = group.add_node_acl(raw_iscsi.INITIATOR)
            node.attributes = AclAttributes(**acl)
            group.map_lun(node, 0, 0)
        fabric = IscsiFabric([group.target], IscsiOptions(poll=0))
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda task_status: fabric.run(task_status=task_status))
            try:
                yield Served(fabric, group)
            finally:
                tasks.cancel_scope.cancel()
