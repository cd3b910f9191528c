"""What managers may change of target devices, as edits of a saveconfig.json, and of what the MIB modules keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.saveconfig_names import FABRIC_NAMES
from tcm.statistics.agentx import Error
from tcm.statistics.mib_state import TRANSIENT
from tcm.statistics.mib_writing import Assign, Change, Place, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tcm.statistics.mib_state import Indexes
    from tcm.statistics.mib_writing import Document
    from tcm.target.device import TargetDevice
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import TargetPortalGroup

ALIAS = "snmp"
"""The name of the link in a mapped LUN that is made."""

# indexes


def device_index(indexes: Indexes, target: TargetDevice) -> int:
    """scsiDeviceIndex, and the index of an iSCSI node."""
    return indexes.of("device", f"{target.fabric_name} {target.name}")


def port_index(indexes: Indexes, group: TargetPortalGroup) -> int:
    """ScsiPortIndex."""
    return indexes.of("port", f"{group.target.fabric_name} {group.target.name} {group.tag}")


def unit_index(indexes: Indexes, unit: LogicalUnit) -> int:
    """ScsiLuIndex. Nobody keeps two units from having one serial."""
    return indexes.of("unit", f"{unit.serial} {unit.name}")


def acl_kind(target: TargetDevice) -> str:
    """Node ACLs have indexes of their own in each target device."""
    return f"acl {target.fabric_name} {target.name}"


def acl_name(group: TargetPortalGroup, initiator_name: str) -> str:
    """Of a node ACL, within :func:`acl_kind`."""
    return f"{group.tag} {initiator_name}"


def acl_index(indexes: Indexes, group: TargetPortalGroup, acl: NodeAcl) -> int:
    """scsiAuthIntrIndex, scsiLunMapIndex, iscsiTgtAuthIndex. What demo mode makes for anybody who comes is not kept."""
    if acl.dynamic:
        return TRANSIENT + acl.index
    return indexes.of(acl_kind(group.target), acl_name(group, acl.initiator_name))


def find_acl(indexes: Indexes, target: TargetDevice, index: int) -> tuple[TargetPortalGroup, NodeAcl] | None:
    """The node ACL of an index."""
    for group in target.portal_groups.values():
        for acl in group.node_acls.values():
            if acl_index(indexes, group, acl) == index:
                return group, acl
    return None


def claim_acl(indexes: Indexes, group: TargetPortalGroup, initiator_name: str, index: int) -> Assign:
    """The index of a node ACL that is to be made. Raises :class:`Refused` if it cannot have it."""
    kind, name = acl_kind(group.target), acl_name(group, initiator_name)
    holder = indexes.name(kind, index)
    if holder is not None and holder != name and find_acl(indexes, group.target, index) is not None:
        raise Refused(Error.INCONSISTENT_NAME, "the index is taken by a node ACL of another port of the device")
    if not 0 < index < TRANSIENT:
        raise Refused(Error.NO_CREATION, f"indexes are 1 to {TRANSIENT - 1}")
    return Assign(kind, name, index)


# places in a saveconfig.json


def target_of(document: Document, target: TargetDevice) -> Document:
    """Raises :class:`Refused` if it is not there."""
    for found in document["targets"]:
        if found["wwn"] == target.name and FABRIC_NAMES.get(found["fabric"], found["fabric"]) == target.fabric_name:
            made: Document = found
            return made
    raise Refused(Error.INCONSISTENT_NAME, f"{target.name} is not in the tree")


def group_of(document: Document, group: TargetPortalGroup) -> Document:
    """Likewise."""
    return tagged(target_of(document, group.target), group.tag)


def tagged(target: Document, tag: int) -> Document:
    """The portal group of a tag."""
    for found in target["tpgs"]:
        if found["tag"] == tag:
            made: Document = found
            return made
    raise Refused(Error.INCONSISTENT_VALUE, f"{target['wwn']} has no portal group {tag}")


def node_acl_of(document: Document, group: TargetPortalGroup, initiator_name: str) -> Document:
    """Likewise. Node ACLs of demo mode are not in the tree."""
    for found in group_of(document, group)["node_acls"]:
        if found["node_wwn"] == initiator_name:
            made: Document = found
            return made
    raise Refused(Error.INCONSISTENT_VALUE, f"{initiator_name} has no node ACL but that of demo mode")


def in_tree(change: Callable[[Document], None], *targets: TargetDevice) -> Change:
    """An edit of a saveconfig.json that has these target devices."""
    return Change(Place.TREE, change, frozenset(each.name for each in targets))


def own(change: Callable[[Document], None]) -> Change:
    """An edit of what the MIB modules keep."""
    return Change(Place.OWN, change)


def set_own(key: str, value: Any) -> Change:
    """One value of it."""
    return own(lambda document: document.__setitem__(key, value))


# node ACLs


def add_node_acl(group: TargetPortalGroup, initiator_name: str, more: Mapping[str, Any] | None = None) -> Change:
    """Without LUNs.

    :param more: what else there is to be of it.
    """

    def change(document: Document) -> None:
        acls = group_of(document, group)["node_acls"]
        if any(each["node_wwn"] == initiator_name for each in acls):
            raise Refused(Error.INCONSISTENT_VALUE, f"{initiator_name} has a node ACL already")
        acls.append({"node_wwn": initiator_name, "mapped_luns": [], **(more or {})})

    return in_tree(change, group.target)


def remove_node_acl(group: TargetPortalGroup, acl: NodeAcl) -> Change:
    """With its LUNs and sessions."""

    def change(document: Document) -> None:
        found = node_acl_of(document, group, acl.initiator_name)
        group_of(document, group)["node_acls"].remove(found)

    return in_tree(change, group.target)


def map_lun(group: TargetPortalGroup, acl: NodeAcl, number: int, lun: int) -> Change:
    """LUN ``lun`` of the portal group as ``number``; another one that is mapped there goes."""

    def change(document: Document) -> None:
        mapped = node_acl_of(document, group, acl.initiator_name)["mapped_luns"]
        found = next((each for each in mapped if each["index"] == number), None)
        if found is None:
            protect = group.access.prod_mode_write_protect
            mapped.append({"index": number, "tpg_lun": lun, "alias": ALIAS, "write_protect": protect})
        else:
            found["tpg_lun"] = lun

    return in_tree(change, group.target)


def unmap_lun(group: TargetPortalGroup, acl: NodeAcl, number: int) -> Change:
    """Hide it."""

    def change(document: Document) -> None:
        found = node_acl_of(document, group, acl.initiator_name)
        found["mapped_luns"] = [each for each in found["mapped_luns"] if each["index"] != number]

    return in_tree(change, group.target)
