"""A configuration without the values that another one does not name: they stay as they are, and need not be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tcm.configfs.script import Json

_VALUES = ("attributes", "parameters", "tcm_attributes", "tcm_acl_attributes", "tcm_parameters")
_GROUP_KEYS = frozenset({"name", "tg_pt_gp_id"})


def comparable(config: Json, other: Json) -> dict[str, Any]:
    """``config``, which is not changed; of what ``other`` has too, only those values that it names."""
    found = dict(config)
    if "storage_objects" in config:
        found["storage_objects"] = _each(config, other, "storage_objects", ("plugin", "name"), _storage_object)
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
        found["alua_tpgs"] = _each(config, other, "alua_tpgs", ("name",), _target_port_group)
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
    return found


def _values(config: Json, other: Json) -> dict[str, Any]:
    found = dict(config)
    for name in _VALUES:
        values: Mapping[str, Any] = found.get(name) or {}
        wanted = other.get(name) or {}
        if values:
            found[name] = {key: value for key, value in values.items() if key in wanted}
    return found
