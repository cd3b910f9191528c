"""What LIO's ConfigFS tree has for ``tcm_loop`` (lio-configfs 4.3)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from tcm.failure import ConfigError
from tcm.tree_types import FabricTree, TreeAttribute
from tcm_loopback.attributes import check_name
from tcm_loopback.fabric import LoopbackPort, TransportStatus

if TYPE_CHECKING:
    from tcm.tree_types import PortalGroupPlace

_DISCONNECT = "NULL"


def _port(place: PortalGroupPlace) -> LoopbackPort:
    fabric: Any = place.fabric
    port: LoopbackPort = fabric.port(place.group.target.name, place.group.tag)
    return port


def _nexus(place: PortalGroupPlace) -> str:
    for initiator in _port(place).initiators:
        if initiator.nexus is not None:
            return initiator.name
    raise OSError(errno.ENODEV, "there is no I_T nexus")


def _set_nexus(place: PortalGroupPlace, text: str) -> None:
    port = _port(place)
    connected = [initiator for initiator in port.initiators if initiator.nexus is not None]
    if text == _DISCONNECT:
        if not connected:
            raise OSError(errno.ENODEV, "there is no I_T nexus")
        if place.group.luns:
            raise OSError(errno.EPERM, "the portal group has LUNs; remove them first")
        for initiator in connected:
            initiator.disconnect()
            port.initiators.remove(initiator)
        return
    name = check_name(text)
    if connected:
        raise OSError(errno.EEXIST, f"{connected[0].name} has the I_T nexus; write {_DISCONNECT} first")
    port.connect(name)


def _set_transport_status(place: PortalGroupPlace, text: str) -> None:
    try:
        _port(place).transport_status = TransportStatus(text)
    except ValueError:
        raise ConfigError(f"transport_status={text}: write online or offline") from None


TREE = FabricTree(
    attributes={"version": TreeAttribute(lambda _fabric: "tcm loopback fabric")},
    tags=range(32),
    enable=False,
    node_acls=False,
    portal_group={
        "address": TreeAttribute(lambda place: _port(place).address),
        "nexus": TreeAttribute(_nexus, _set_nexus),
        "transport_status": TreeAttribute(lambda place: _port(place).transport_status.value, _set_transport_status),
    },
    portal_group_saved={"transport_status": tuple(each.value for each in TransportStatus)},
)
