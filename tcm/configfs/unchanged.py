"""Configurations without what two of them have alike: whoever changes one target of hundreds need not look at the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcm.saveconfig_names import EXTRAS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tcm.configfs.script import Json


class Unchanged:
    """Storage objects that are the same in both, and targets that are the same and have only such LUNs.

    An HBA counts as one thing with all that is in it. Nothing does if LU groups differ, which storage objects belong to.

    :param places: of the storage objects of ``now``, see :class:`tcm.configfs.script.Script`.
    """

    def __init__(self, now: Json, then: Json, places: Mapping[str, str]) -> None:
        self.storage_objects: set[str] = set()
        self.targets: set[tuple[str, str]] = set()
        if now.get("alua_lu_gps") != then.get("alua_lu_gps"):
            return
        before, after = _objects(now), _objects(then)
        same = {path for path, each in after.items() if before.get(path) == each}
        touched = {_hba(places.get(path)) for path in {*before, *after} - same}
        self.storage_objects = {path for path in same if path in places and _hba(places[path]) not in touched}
        there = {_target(each): each for each in now.get("targets", ())}
        for each in then.get("targets", ()):
            if there.get(_target(each)) == each and self._has(each):
                self.targets.add(_target(each))

    def _has(self, target: Json) -> bool:
        luns = [lun for group in target.get("tpgs", ()) for lun in group.get("luns", ())]
        return all(lun["storage_object"] in self.storage_objects for lun in luns)

    def left_out(self, config: Json) -> dict[str, Any]:
        """``config`` without them."""
        found = dict(config)
        objects, targets = config.get("storage_objects", ()), config.get("targets", ())
        found["storage_objects"] = [each for each in objects if _path(each) not in self.storage_objects]
        found["targets"] = [each for each in targets if _target(each) not in self.targets]
        return found


def _path(config: Json) -> str:
    return f"/backstores/{config['plugin']}/{config['name']}"


def _target(config: Json) -> tuple[str, str]:
    return str(config["fabric"]), str(config["wwn"])


def _hba(place: str | None) -> str:
    return place.split("/")[1] if place is not None else ""


def _objects(config: Json) -> dict[str, tuple[Any, Any]]:
    """With what rtslib does not know of them."""
    extras = config.get(EXTRAS, {})
    return {_path(each): (each, extras.get(_path(each))) for each in config.get("storage_objects", ())}
