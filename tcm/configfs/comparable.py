"""A configuration without the values that another one does not name: they stay as they are, and need not be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.configfs.script import DEFAULT_TG_PT_GP
from tcm.saveconfig_names import EXTRAS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tcm.configfs.script import Json

_VALUES = ("attributes", "parameters", "tcm_attributes", "tcm_acl_attributes", "tcm_parameters", "tcm_files")
_TEXTS = frozenset({"alias", "udev_path"})
_LUN = {"alua_tg_pt_gp_name": DEFAULT_TG_PT_GP, "alua_tg_pt_offline": False, "alua_tg_pt_write_md": False}
_GROUP_KEYS = frozenset({"name", "tg_pt_gp_id"})


def comparable(config: Json, other: Json) -> dict[str, Any]:
    """``config``, which is not changed; of what ``other`` has too, only those values that it names."""
    found = dict(config)
    if "storage_objects" in config:
        found["storage_objects"] = _each(config, other, "storage_objects", ("plugin", "name"), _storage_object)
    if EXTRAS in config:
        found[EXTRAS] = _extras(config[EXTRAS], other.get(EXTRAS) or {})
    if "targets" in config:
        found["targets"] = _each(config, other, "targets", ("fabric", "wwn"), _target)
    return found


def _each(
    config: Json, other: Json, name: str, keys: tuple[str, ...], trim: Callable[[Json, Json], dict[str, Any]]
) -> list[Any]:
    there = {_key(each, keys): each for each in _items(other, name)}
    made = []
    for each in config[name]:
        counterpart = there.get(_key(each, keys))
        made.append(each if counterpart is None else trim(each, counterpart))
    return made


def _key(config: Json, keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(config.get(key) for key in keys)


def _items(config: Json, name: str) -> Iterable[Json]:
    found: Iterable[Json] = config.get(name) or ()
    return found


def _storage_object(config: Json, other: Json) -> dict[str, Any]:
    found = _values(config, other)
    if config.get("alua_tpgs"):
        groups = _each(config, other, "alua_tpgs", ("name",), _target_port_group)
        if not any(each.get("name") == DEFAULT_TG_PT_GP for each in _items(other, "alua_tpgs")):
            # it is always there
            groups = [each for each in groups if each["name"] != DEFAULT_TG_PT_GP]
        found["alua_tpgs"] = groups
    return found


def _extras(config: Json, other: Json) -> dict[str, Any]:
    found = {}
    for path, each in config.items():
        wanted = other.get(path) or {}
        identity = {key: value for key, value in each.get("tcm_identity", {}).items() if key in wanted.get("tcm_identity", {})}
        silent = {"tcm_identity", *(_TEXTS - wanted.keys())}
        rest = {key: value for key, value in each.items() if key not in silent}
        if identity or "tcm_identity" in wanted:
            rest["tcm_identity"] = identity
        if rest or path in other:
            found[path] = rest
    return found


def _target_port_group(config: Json, other: Json) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name in other or name in _GROUP_KEYS}


def _target(config: Json, other: Json) -> dict[str, Any]:
    found = _values(config, other)
    if config.get("tpgs"):
        found["tpgs"] = _each(config, other, "tpgs", ("tag",), _portal_group)
    return found


def _portal_group(config: Json, other: Json) -> dict[str, Any]:
    found = _values(config, other)
    if config.get("node_acls"):
        found["node_acls"] = _each(config, other, "node_acls", ("node_wwn",), _values)
    if config.get("luns"):
        found["luns"] = _each(config, other, "luns", ("index",), _lun)
    if "rtpi" not in other:
        found.pop("rtpi", None)
    return found


def _lun(config: Json, other: Json) -> dict[str, Any]:
    """Without what is as it is where nothing is said of it."""
    return {name: value for name, value in config.items() if name in other or name not in _LUN or _LUN[name] != value}


def _values(config: Json, other: Json) -> dict[str, Any]:
    found = dict(config)
    for name in _VALUES:
        values: Mapping[str, Any] = found.get(name) or {}
        wanted = other.get(name) or {}
        if name not in other:
            found.pop(name, None)
        elif values:
            found[name] = {key: value for key, value in values.items() if key in wanted}
    return found
