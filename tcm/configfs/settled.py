"""What a configuration wants of storage objects' attributes and has already, or cannot have: no reason to change anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.configfs.device import DeviceGroup
from tcm.configfs.device_attributes import OTHERS, check, option_value
from tcm.configfs.node import TreeError
from tcm.configfs.script import SOFT, Json, text_of
from tcm.failure import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tcm.configfs.device import Device
    from tcm.configfs.node import Tree


def settle(tree: Tree, places: Mapping[str, str], current: Json, desired: Json) -> None:
    """Makes ``current`` say what ``desired`` does where writing that would change nothing.

    Attributes show what is in force, which what was written may be limited by: a limit that the backend has, an UNMAP that it
    does not offer.
    """
    wanted = {f"/backstores/{each['plugin']}/{each['name']}": each for each in desired.get("storage_objects", ())}
    for each in current.get("storage_objects", ()):
        path = f"/backstores/{each['plugin']}/{each['name']}"
        if _has_grown(each, wanted.get(path, {})):
            each["size"] = wanted[path]["size"]
        attributes: dict[str, Any] = each["attributes"]
        other = wanted.get(path, {}).get("attributes", {})
        differ = {name: value for name, value in other.items() if text_of(value) != text_of(attributes.get(name))}
        device = _device(tree, places.get(path)) if differ else None
        if device is not None:
            attributes.update({name: value for name, value in differ.items() if is_settled(device, name, text_of(value))})


def before_growth(current: Json, desired: Json) -> Json:
    """``desired`` as it can be checked now: a file that is to become larger while it is served has the size that it has."""
    there = {each["name"]: each for each in current.get("storage_objects", ()) if each["plugin"] == "fileio"}
    objects = desired.get("storage_objects")
    if not isinstance(objects, list):
        return desired
    made = []
    for each in objects:
        is_file = isinstance(each, dict) and each.get("plugin") == "fileio"
        now = there.get(each.get("name")) if is_file else None
        grows = now is not None and _has_grown(each, now)
        made.append({**each, "size": now["size"]} if now is not None and grows else each)
    return {**desired, "storage_objects": made}


def _has_grown(current: Json, desired: Json) -> bool:
    """A file that was enlarged while it was served stays as large as it is."""
    if current["plugin"] != "fileio" or current.get("dev") != desired.get("dev"):
        return False
    size, wanted = current.get("size"), desired.get("size")
    return isinstance(size, int) and isinstance(wanted, int) and 0 < wanted < size


def _device(tree: Tree, place: str | None) -> Device | None:
    try:
        node = tree.find(place) if place is not None else None
    except TreeError:
        return None
    return node.device if isinstance(node, DeviceGroup) and node.device.enabled else None


def is_settled(device: Device, name: str, text: str) -> bool:
    """Whether writing it would change nothing: it was written, whatever came of it, or it cannot be had and nobody minds."""
    if name in OTHERS:
        return name in SOFT
    try:
        value = option_value(name, text)
        if getattr(device.config.attributes, name) == value:
            return True
    except (ValueError, AttributeError):
        return False
    if name not in SOFT:
        return False
    try:
        check(device, name, value)
    except (ConfigError, ValueError, OSError):
        return True
    return False
