"""What a saved configuration has and what cannot be served, for the time being: kept as it was saved, with its LUN numbers.

A part of a saveconfig.json that is left out is a saveconfig.json itself: its storage objects, and of the targets the LUNs,
mapped LUNs and portals. Configurations here have been checked (:func:`tcm.saveconfig.check`).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tcm.configuration import make_portal, portal_text
from tcm.saveconfig_names import EXTRAS, FABRIC_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from tcm.configuration import Configuration, TargetConfig
    from tcm.plugins import PluginManager
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import NetworkPortal, TargetPortalGroup

Json = Mapping[str, Any]

log = logging.getLogger(__name__)

_CHANGEABLE = frozenset({"attributes", "alua_tpgs", "wwn"})
"""Of a storage object: what does not say which medium it is."""
_NOTHING: Json = {"luns": (), "portals": (), "node_acls": ()}
_AGAIN = {
    "storage object": "tcm-ctl left-out --retry serves it once it is there",
    "portal": "it is tried again every few seconds",
}


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that is left out."""

    kind: str
    """``storage object`` or ``portal``."""
    name: str
    """``/backstores/fileio/disk0``, ``192.0.2.1:3260``."""
    reason: str
    """One line: what is wrong, what to do."""
    where: tuple[str, ...]
    """LUNs, mapped LUNs and portal groups that go without it."""

    def __str__(self) -> str:
        missed = f" ({', '.join(self.where)})" if self.where else ""
        return f"{self.kind} {self.name} is left out{missed}: {self.reason}; {_AGAIN[self.kind]}"


class LeftOut:
    """See the module."""

    def __init__(self, plugins: PluginManager) -> None:
        self._plugins = plugins
        self.state: tuple[dict[str, Any], dict[str, str]] = {}, {}
        """The part that is left out, and why, by name. Replaced as a whole, never changed."""

    @property
    def config(self) -> dict[str, Any]:
        """The part, as the content of a saveconfig.json."""
        return self.state[0]

    @property
    def reasons(self) -> dict[str, str]:
        """By name, as of :class:`Missing`."""
        return self.state[1]

    def keep(self, config: Json, reasons: Mapping[str, str]) -> None:
        """From now on these names of ``config`` are what is left out."""
        part = self._part(config, reasons) if reasons else {}
        there = {path_of(each) for each in part.get("storage_objects", ())}
        there |= {portal_of(each) for _, group in groups_of(part) for each in group["portals"]}
        self.state = part, {name: reason for name, reason in reasons.items() if name in there}

    def forget(self, name: str) -> bool:
        """It is not left out any more; whether it was."""
        if name not in self.reasons:
            return False
        self.keep(self.config, {each: reason for each, reason in self.reasons.items() if each != name})
        return True

    def served(self, group: TargetPortalGroup, portal: NetworkPortal) -> None:
        """A portal is there now."""
        name = portal_text(portal)
        if name in self.reasons:
            portals = [each for each in self._group(group)["portals"] if portal_of(each) != name]
            self._replace(group.target.fabric_name, group.target.name, group.tag, {"portals": portals})

    def forget_place(self, fabric: str, target: str, tag: int | None = None, initiator: str | None = None) -> None:
        """A target, portal group or node ACL is gone, and what it would have had."""
        if initiator is None:
            self._replace(fabric, target, tag, None)
        elif tag is not None:
            there = (group for each, group in groups_of(self.config) if (*_key(each), group["tag"]) == (fabric, target, tag))
            for group in there:
                acls = [acl for acl in group["node_acls"] if acl["node_wwn"] != initiator]
                self._replace(fabric, target, tag, {"node_acls": acls})

    def _replace(self, fabric: str, target: str, tag: int | None, values: Json | None) -> None:
        """Other values of a portal group; ``None``: without it, or without all groups of the target."""
        if not self.reasons:
            return
        targets = []
        for each in self.config["targets"]:
            groups = each["tpgs"]
            if _key(each) == (fabric, target):
                others = [group for group in groups if tag is not None and group["tag"] != tag]
                changed = [{**group, **values} for group in groups if group["tag"] == tag] if values is not None else []
                groups = [*others, *changed]
            targets.append({**each, "tpgs": groups})
        self.keep({**self.config, "targets": targets}, self.reasons)

    def missing(self) -> list[Missing]:
        """All of it, for people."""
        where: dict[str, list[str]] = {}
        for target, group in groups_of(self.config):
            place = f"{target['wwn']} tpg {group['tag']}"
            luns = {lun["index"]: lun["storage_object"] for lun in group["luns"]}
            for index, path in luns.items():
                where.setdefault(path, []).append(f"LUN {index} of {place}")
            for acl in group["node_acls"]:
                for each in acl["mapped_luns"]:
                    where.setdefault(luns[each["tpg_lun"]], []).append(f"LUN {each['index']} of initiator {acl['node_wwn']}")
            for each in group["portals"]:
                where.setdefault(portal_of(each), []).append(place)
        return [
            Missing("storage object" if name.startswith("/") else "portal", name, reason, tuple(where.get(name, ())))
            for name, reason in self.reasons.items()
        ]

    # what others must not take

    def check_lun(self, group: TargetPortalGroup, number: int) -> None:
        """Raises ``OSError`` (EBUSY) if initiators know another disk by that number."""
        for lun in self._group(group)["luns"]:
            if lun["index"] == number:
                raise _taken(f"LUN {number}", lun["storage_object"])

    def check_mapped_lun(self, group: TargetPortalGroup, acl: NodeAcl, number: int) -> None:
        """Likewise, of one initiator."""
        there = self._group(group)
        for each in there["node_acls"]:
            for mapped in each["mapped_luns"] if each["node_wwn"] == acl.initiator_name else ():
                if mapped["index"] == number:
                    path = next(lun["storage_object"] for lun in there["luns"] if lun["index"] == mapped["tpg_lun"])
                    raise _taken(f"LUN {number} of {acl.initiator_name}", path)

    def _group(self, group: TargetPortalGroup) -> Json:
        key = group.target.fabric_name, group.target.name, group.tag
        return next((each for target, each in groups_of(self.config) if (*_key(target), each["tag"]) == key), _NOTHING)

    # configurations

    def unchanged(self, config: Json) -> set[str]:
        """Names of what is left out that a configuration wants, and of the same medium."""
        if not self.reasons:
            return set()
        known = {path_of(each): _medium(each, self.config) for each in self.config["storage_objects"]}
        wanted = {path_of(each): _medium(each, config) for each in config.get("storage_objects", ())}
        names = {path for path, medium in wanted.items() if known.get(path) == medium}
        portals = {portal_of(each) for _, group in groups_of(config) for each in group.get("portals", ())}
        return names | (portals & self.reasons.keys())

    def merged(self, config: Json) -> dict[str, Any]:
        """What runs, as the content of a saveconfig.json, with what is left out of it."""
        if not self.reasons:
            return dict(config)
        found = dict(config)
        there = {path_of(each) for each in config.get("storage_objects", ())}
        more = [each for each in self.config["storage_objects"] if path_of(each) not in there]
        found["storage_objects"] = [*config.get("storage_objects", ()), *more]
        units = {group["name"] for group in config.get("alua_lu_gps", ())}
        extras = {path: _in_groups(each, units) for path, each in self.config[EXTRAS].items() if path not in there}
        if extras:
            found[EXTRAS] = {**config.get(EXTRAS, {}), **extras}
        ours = {(*_key(target), group["tag"]): group for target, group in groups_of(self.config)}
        found["targets"] = [
            {**target, "tpgs": [_joined(each, ours.get((*_key(target), each["tag"]))) for each in target["tpgs"]]}
            for target in config.get("targets", ())
        ]
        return found

    def _part(self, config: Json, names: Collection[str]) -> dict[str, Any]:
        """With the names as fabrics have them."""
        part: dict[str, Any] = {
            "storage_objects": [each for each in config.get("storage_objects", ()) if path_of(each) in names],
            EXTRAS: {path: each for path, each in config.get(EXTRAS, {}).items() if path in names},
            "targets": [],
        }
        for target in config.get("targets", ()):
            fabric = FABRIC_NAMES.get(target["fabric"], target["fabric"])
            check_name = self._plugins.fabric(fabric).check_name
            groups = [_part_of_group(group, names, check_name) for group in target.get("tpgs", ())]
            groups = [group for group in groups if group["luns"] or group["portals"]]
            if groups:
                part["targets"].append({"fabric": target["fabric"], "wwn": check_name(target["wwn"]), "tpgs": groups})
        return part


def without(config: Json, names: Collection[str]) -> dict[str, Any]:
    """A configuration without these storage objects, what leads to them, and these portals."""
    if not names:
        return dict(config)
    found = dict(config)
    found["storage_objects"] = [each for each in config.get("storage_objects", ()) if path_of(each) not in names]
    if EXTRAS in config:
        found[EXTRAS] = {path: each for path, each in config[EXTRAS].items() if path not in names}
    found["targets"] = [
        {**target, "tpgs": [_group_without(group, names) for group in target.get("tpgs", ())]}
        for target in config.get("targets", ())
    ]
    return found


def pruned(configuration: Configuration, names: Collection[str]) -> Configuration:
    """The same of what has been read."""
    return replace(
        configuration,
        storage_objects=tuple(each for each in configuration.storage_objects if each.path not in names),
        targets=tuple(_pruned_target(each, names) for each in configuration.targets),
    )


def path_of(config: Json) -> str:
    """Of a storage object."""
    return f"/backstores/{config['plugin']}/{config['name']}"


def portal_of(config: Json) -> str:
    """What a portal is called: ``[::1]:3260``."""
    address = str(config["ip_address"]).removeprefix("[").removesuffix("]")
    portal: NetworkPortal = make_portal(address, config.get("port", 3260), "portal")
    return portal_text(portal)


def groups_of(config: Json) -> Iterator[tuple[Json, Json]]:
    """Targets and their portal groups."""
    for target in config.get("targets", ()):
        for group in target.get("tpgs", ()):
            yield target, group


def _key(target: Json) -> tuple[str, str]:
    fabric: str = target["fabric"]
    return FABRIC_NAMES.get(fabric, fabric), target["wwn"]


def _medium(config: Json, whole: Json) -> tuple[Json, Any]:
    own = {name: value for name, value in config.items() if name not in _CHANGEABLE}
    return own, whole.get(EXTRAS, {}).get(path_of(config), {}).get("tcm_filters")


def _taken(what: str, path: str) -> OSError:
    return OSError(
        errno.EBUSY,
        f"{what} is {path}, which is left out: initiators would take another disk for it; tcm-ctl left-out says why, and"
        f" tcm-ctl left-out --forget {path} gives it up",
    )


def _in_groups(extras: Json, groups: Collection[str]) -> dict[str, Any]:
    """Not in an LU group that somebody has removed since."""
    return {name: each for name, each in extras.items() if name != "alua_lu_gp" or each in groups}


def _joined(group: Json, ours: Json | None) -> dict[str, Any]:
    """A portal group that is there, and what it would have besides."""
    if ours is None:
        return dict(group)
    found = dict(group)
    for name, key in (("luns", lambda lun: lun["index"]), ("portals", portal_of)):
        found[name] = _added(group.get(name, ()), ours[name], key)
    numbers = {lun["index"] for lun in found["luns"]}
    mapped = {acl["node_wwn"]: [m for m in acl["mapped_luns"] if m["tpg_lun"] in numbers] for acl in ours["node_acls"]}
    found["node_acls"] = [
        {**acl, "mapped_luns": _added(acl.get("mapped_luns", ()), mapped.get(acl["node_wwn"], ()), lambda lun: lun["index"])}
        for acl in group.get("node_acls", ())
    ]
    return found


def _added(there: Collection[Json], more: Collection[Json], key: Callable[[Json], object]) -> list[Json]:
    taken = {key(each) for each in there}
    return [*there, *(each for each in more if key(each) not in taken)]


def _part_of_group(group: Json, names: Collection[str], check_name: Callable[[str], str]) -> dict[str, Any]:
    luns = [lun for lun in group.get("luns", ()) if lun["storage_object"] in names]
    numbers = {lun["index"] for lun in luns}
    acls = []
    for acl in group.get("node_acls", ()):
        mapped = [each for each in acl.get("mapped_luns", ()) if each["tpg_lun"] in numbers]
        if mapped:
            acls.append({"node_wwn": check_name(acl["node_wwn"]), "mapped_luns": mapped})
    portals = [each for each in group.get("portals", ()) if portal_of(each) in names]
    return {"tag": group.get("tag", 1), "luns": luns, "portals": portals, "node_acls": acls}


def _group_without(group: Json, names: Collection[str]) -> dict[str, Any]:
    found = dict(group)
    found["luns"] = [lun for lun in group.get("luns", ()) if lun["storage_object"] not in names]
    numbers = {lun["index"] for lun in found["luns"]}
    found["portals"] = [each for each in group.get("portals", ()) if portal_of(each) not in names]
    found["node_acls"] = [
        {**acl, "mapped_luns": [each for each in acl.get("mapped_luns", ()) if each["tpg_lun"] in numbers]}
        for acl in group.get("node_acls", ())
    ]
    return found


def _pruned_target(target: TargetConfig, names: Collection[str]) -> TargetConfig:
    groups = []
    for group in target.portal_groups:
        luns = tuple(lun for lun in group.luns if lun.storage_object.path not in names)
        numbers = {lun.index for lun in luns}
        acls = tuple(
            replace(acl, mapped_luns=tuple(each for each in acl.mapped_luns if each.tpg_lun in numbers))
            for acl in group.node_acls
        )
        portals = tuple(each for each in group.portals if portal_text(each) not in names)
        groups.append(replace(group, luns=luns, node_acls=acls, portals=portals))
    return replace(target, portal_groups=tuple(groups))
