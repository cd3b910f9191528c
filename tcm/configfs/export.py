"""What runs, as the content of a saveconfig.json that rtslib restores too (lio-configfs 5).

rtslib refuses storage objects with keys that it does not know, so what it leaves out of them (5.5) stands in an object of its
own, ``tcm_storage_objects``, by the storage object's path; portal groups, LUNs and node ACLs may have more keys.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from tcm.configfs.asymmetric_access import ACCESS_TYPES, STATUSES
from tcm.configfs.core import CoreGroup
from tcm.configfs.device import Device, DeviceGroup
from tcm.configfs.fabrics import FabricGroup
from tcm.configfs.identity import SERIAL
from tcm.configfs.node import Attribute, Group, Link, TreeError
from tcm.configfs.node_acls import NodeAclGroup
from tcm.configfs.portal_groups import TargetPortalGroupGroup
from tcm.configfs.script import DISCOVERY_KEYS, FABRIC_DIRECTORIES, FABRICS, IDENTITY_KEYS, Json
from tcm.configfs.table import MadeGroup, TableGroup
from tcm.options import options_of
from tcm.saveconfig_names import EXTRAS, PLUGINS
from tcm.target.attributes import Identity
from tcm.target.logical_unit_group import DEFAULT_GROUP as DEFAULT_LU_GROUP

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator

    from tcm.configfs.node import Tree

_FABRICS = {directory: name for name, directory in FABRIC_DIRECTORIES.items()}
_TYPES = {text: int(number) for number, text in ACCESS_TYPES.items()}
_STATUSES = {text: int(number) for number, text in STATUSES.items()}
_OPTIONS = {"dev": "path"}
"""LIO's key of a storage object to the option of ours, where they differ."""
_CHAP = {"userid": "userid", "password": "password", "mutual_userid": "userid_mutual", "mutual_password": "password_mutual"}


def export(tree: Tree, part: Collection[str] | None = None) -> Generator[None, None, dict[str, Any]]:
    """The whole configuration is what it returns in the end; it yields in between, so that others get their turn.

    What it has said is nothing if the tree changes meanwhile.

    :param part: names of target devices: only these, with the storage objects that they lead to; ``None``: all there is.
    """
    core = tree.group("core")
    assert isinstance(core, CoreGroup)
    devices = [device for device in _devices(core) if device.device.enabled]
    fabrics = [group for group in tree.root.children().values() if isinstance(group, FabricGroup)]
    found: dict[str, Any] = {"storage_objects": [], "targets": []}
    for fabric in fabrics:
        for name, target in [*fabric.groups.items()]:
            if part is None or name in part:
                found["targets"].append(_target(fabric, name, target))
                yield
    wanted = {lun["storage_object"] for target in found["targets"] for group in target["tpgs"] for lun in group["luns"]}
    for device in devices:
        if part is None or device.device.path in wanted:
            found["storage_objects"].append(_storage_object(device))
            found.setdefault(EXTRAS, {})[device.device.path] = _extras(device)
            yield
    if own := {each.name: values for each in fabrics if (values := each.changed_attributes())}:
        found[FABRICS] = own
    found["fabric_modules"] = [module for each in fabrics if (module := _fabric_module(each)) is not None]
    if groups := _logical_unit_groups(tree):
        found["alua_lu_gps"] = groups
    return found


def _devices(core: CoreGroup) -> Iterator[DeviceGroup]:
    for hba in core.children().values():
        for each in hba.children().values() if isinstance(hba, Group) else ():
            if isinstance(each, DeviceGroup):
                yield each


def _groups(group: Group, name: str) -> list[Group]:
    """The directories in a directory of that name."""
    folder = group.child(name)
    return [each for each in folder.children().values() if isinstance(each, Group)] if isinstance(folder, Group) else []


def _text(group: Group, *names: str) -> str:
    """An attribute's value; empty if there is none, or none now."""
    node: Any = group
    for name in names:
        node = node.child(name) if isinstance(node, Group) else None
    if not isinstance(node, Attribute) or not node.readable:
        return ""
    try:
        return node.read().rstrip("\n")
    except TreeError as error:
        if error.number in {errno.ENODEV, errno.ENOENT}:
            return ""
        raise


def _settings(group: Group, name: str, *, numbers: bool = True) -> dict[str, Any]:
    """Every attribute of a folder that can be read and written."""
    folder = group.child(name)
    if not isinstance(folder, TableGroup):
        return {}
    return {each: _number(text) if numbers else text for each, text in folder.settings().items()}


def _number(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _logical_unit_groups(tree: Tree) -> list[dict[str, Any]]:
    return [
        {"name": each.name, "lu_gp_id": int(_text(each, "lu_gp_id"))}
        for each in _groups(tree.group("core/alua"), "lu_gps")
        if each.name != DEFAULT_LU_GROUP and _text(each, "lu_gp_id")
    ]


# storage objects


def _storage_object(group: DeviceGroup) -> dict[str, Any]:
    device = group.device
    plugin = device.tree.saveconfig or device.tree.plugin
    found: dict[str, Any] = {
        "name": group.name,
        "plugin": plugin,
        "attributes": _settings(group, "attrib"),
        "alua_tpgs": [
            _target_port_group(each, mapped=bool(_text(group, "lba_map")))
            for each in _groups(group, "alua")
            if _text(each, "tg_pt_gp_id")
        ],
        "wwn": _text(group, "wwn", "vpd_unit_serial").removeprefix(SERIAL),
    }
    if plugin not in PLUGINS:
        # LIO has no such thing: our own options, under their own names
        return {**found, **_options(device.config.options)}
    for key, rule in PLUGINS[plugin].items():
        value = _lio_key(device, key)
        if value is not None and (value or rule.required or key in {"write_back", "aio"}):
            found[key] = value
    return found


def _lio_key(device: Device, key: str) -> Any:
    if key == "size":
        return device.unit.blocks << device.unit.block_shift
    if key == "readonly":
        return device.config.read_only
    return getattr(device.config.options, _OPTIONS.get(key, key), None)


def _options(options: Any) -> dict[str, Any]:
    """Those that are not as they would be anyway."""
    values = {each.name: (getattr(options, each.name), each.default) for each in options_of(type(options)).values()}
    return {name: _json(value) for name, (value, default) in values.items() if value is not None and value != default}


def _json(value: Any) -> Any:
    return [str(each) for each in value] if isinstance(value, tuple) else value


def _own(group: Group, attributes: Any) -> dict[str, Any]:
    """``tcm_attrib``, each as a file has it."""
    folder = group.child("tcm_attrib")
    names = folder.children() if isinstance(folder, Group) else ()
    return {name: _json(value) for name in names if (value := getattr(attributes, name)) is not None}


def _target_port_group(group: Group, *, mapped: bool) -> dict[str, Any]:
    """``mapped``: the storage object has an LBA map."""
    found: dict[str, Any] = {"name": group.name}
    assert isinstance(group, TableGroup)
    for name, text in group.settings().items():
        known = {"alua_access_type": _TYPES, "alua_access_status": _STATUSES}.get(name)
        found[name] = known[text] if known is not None else _number(text)
    # rtslib makes no group that has this key; it follows from the map, unless somebody has set it otherwise
    if found.get("alua_support_lba_dependent") == int(mapped):
        del found["alua_support_lba_dependent"]
    return found


def _extras(group: DeviceGroup) -> dict[str, Any]:
    """What rtslib does not store."""
    device, config = group.device, group.device.config
    plugin = device.tree.saveconfig or device.tree.plugin
    found: dict[str, Any] = {}
    if config.removable:
        found["removable"] = True
    if config.read_only and plugin != "block":
        found["read_only"] = True
    if config.filters:
        found["tcm_filters"] = [{"type": each.type, **_options(each.options)} for each in config.filters]
    if device.alias:
        found["alias"] = device.alias
    if device.udev_path != device.dev:
        found["udev_path"] = device.udev_path
    unit_group = device.unit.asymmetric_access.logical_unit_group
    if unit_group is not None and unit_group.name != DEFAULT_LU_GROUP:
        found["alua_lu_gp"] = unit_group.name
    if lba_map := _text(group, "lba_map"):
        found["lba_map"] = lba_map.splitlines()
    # always: what a device made in the tree is called by default is not what one of a file is called
    identity = {name: text for name in IDENTITY_KEYS if (text := _text(group, "wwn", name))}
    if identity.get("company_id") == f"0x{Identity().company_id:06x}":
        del identity["company_id"]
    return {**found, "tcm_identity": identity}


# fabrics


def _fabric_module(group: FabricGroup) -> dict[str, Any] | None:
    """Only if there is something to say."""
    found: dict[str, Any] = {"name": _FABRICS.get(group.name, group.name)}
    for name, key in DISCOVERY_KEYS.items():
        if text := _text(group, "discovery_auth", name):
            found[key] = text
    enforced = _text(group, "discovery_auth", "enforce_discovery_auth") == "1"
    return {**found, "discovery_enable_auth": enforced} if enforced or len(found) > 1 else None


def _target(fabric: FabricGroup, name: str, target: MadeGroup) -> dict[str, Any]:
    groups = [each for each in target.children().values() if isinstance(each, TargetPortalGroupGroup)]
    return {
        "fabric": _FABRICS.get(fabric.name, fabric.name),
        "wwn": name,
        "parameters": _settings(target, "param", numbers=False),
        "tpgs": [_portal_group(each) for each in groups],
    }


def _portal_group(group: TargetPortalGroupGroup) -> dict[str, Any]:
    found: dict[str, Any] = {
        "tag": group.group.tag,
        "rtpi": group.group.relative_target_port_identifier,
        "enable": _text(group, "enable") != "0",
        "attributes": _settings(group, "attrib"),
        "parameters": _settings(group, "param", numbers=False),
        "luns": [lun for each in _groups(group, "lun") if (lun := _lun(each)) is not None],
        "portals": [_portal(each) for each in _groups(group, "np")],
        "node_acls": [_node_acl(each) for each in _groups(group, "acls") if isinstance(each, NodeAclGroup)],
        **_chap(group),
    }
    if own := _own(group, group.group.attributes):
        found["tcm_attributes"] = own
    if files := {name: _text(group, name) for name in group.kind.tree.portal_group_saved}:
        found["tcm_files"] = files
    dynamic = group.group.dynamic_acl_attributes
    if dynamic is not None and dynamic != type(dynamic)():
        found["tcm_acl_attributes"] = _settings(group, "tcm_acl_attrib")
    return found


def _lun(group: Group) -> dict[str, Any] | None:
    link = _link(group)
    if link is None:
        return None
    found: dict[str, Any] = {
        "index": int(group.name.removeprefix("lun_")),
        "alias": link.name,
        "storage_object": _storage_object_path(group, link),
        "alua_tg_pt_gp_name": _text(group, "alua_tg_pt_gp").partition("\n")[0].rpartition(": ")[2],
    }
    for name in ("alua_tg_pt_offline", "alua_tg_pt_write_md"):
        if _text(group, name) == "1":
            found[name] = True
    if (status := int(_text(group, "alua_tg_pt_status"))) != 0:
        found["alua_tg_pt_status"] = status
    return found


def _link(group: Group) -> Link | None:
    return next((each for each in group.children().values() if isinstance(each, Link)), None)


def _storage_object_path(group: Group, link: Link) -> str:
    root = group
    while root.parent is not None:
        root = root.parent
    _, core, hba, device = link.target.split("/")
    node: Any = root.child(core)
    for name in (hba, device):
        node = node.child(name)
    assert isinstance(node, DeviceGroup)
    return node.device.path


def _portal(group: Group) -> dict[str, Any]:
    address, _, port = group.name.rpartition(":")
    return {"ip_address": address.strip("[]"), "port": int(port), "iser": False, "offload": False}


def _node_acl(group: NodeAclGroup) -> dict[str, Any]:
    found: dict[str, Any] = {
        "node_wwn": group.name,
        "attributes": _settings(group, "attrib"),
        "mapped_luns": [mapped for each in group.groups.values() if (mapped := _mapped_lun(each)) is not None],
        **_chap(group),
    }
    if tag := _text(group, "tag"):
        found["tag"] = tag
    own = _own(group, group.place.acl.attributes)
    if depth := _text(group, "cmdsn_depth"):
        own["cmdsn_depth"] = int(depth)
    if own:
        found["tcm_attributes"] = own
    if group.place.acl.own_parameters:
        found["tcm_parameters"] = {name: _text(group, "tcm_param", name) for name in sorted(group.place.acl.own_parameters)}
    return found


def _mapped_lun(group: Group) -> dict[str, Any] | None:
    link = _link(group)
    if link is None:
        return None
    return {
        "index": int(group.name.removeprefix("lun_")),
        "alias": link.name,
        "tpg_lun": int(link.target.rpartition("_")[2]),
        "write_protect": _text(group, "write_protect") == "1",
    }


def _chap(group: Group) -> Json:
    return {f"chap_{key}": text for key, name in _CHAP.items() if (text := _text(group, "auth", name))}
