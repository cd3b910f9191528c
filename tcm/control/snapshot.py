"""Sessions and logical units at one moment, as JSON: what ``tcm-ctl sessions`` and ``top`` show."""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tcm.target.counters import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.statistics.registry import Statistics
    from tcm.target.device import TargetDevice
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus, ITNexus


def statistics(registry: Statistics) -> dict[str, Any]:
    """All rows of the registry, by their names there."""
    found: dict[str, Any] = _plain(registry.snapshot())
    return found


def _plain(value: Any) -> Any:
    """Rows as JSON has them."""
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return value.name
    return value


def sessions(targets: Iterable[TargetDevice]) -> list[dict[str, Any]]:
    """Every I_T nexus, with its LUNs."""
    return [
        _session(target, tag, nexus)
        for target in targets
        for tag, group in target.portal_groups.items()
        for nexus in sorted(group.nexuses, key=lambda each: each.initiator_port.name)
    ]


def _session(target: TargetDevice, tag: int, nexus: ITNexus) -> dict[str, Any]:
    port = nexus.initiator_port
    acl = nexus.target_portal_group.node_acls.get(port.name)
    return {
        "fabric": target.fabric_name,
        "target": target.name,
        "tag": tag,
        "initiator": port.name,
        "isid": port.isid.hex() if port.isid else None,
        "address": port.address,
        "dynamic": acl is None or acl.dynamic,
        "queue": len(nexus.tasks),
        "luns": [_lun(itl) for itl in sorted(nexus.luns.values(), key=lambda each: each.lun_number)],
    }


def _lun(itl: ITLNexus) -> dict[str, Any]:
    counted = {name: getattr(itl, name) for name in COUNTERS}
    return {"lun": itl.lun_number, "unit": itl.logical_unit.name, "write_protect": itl.write_protect, **counted}


def units(logical_units: Mapping[str, LogicalUnit]) -> dict[str, Any]:
    """Every logical unit's counters since the start, its queue, its latencies where they are measured, and the ``time``.

    ``latency``: histograms whose bucket ``n`` counts what took less than ``2 ** n`` microseconds and not less than half of it.
    """
    return {"time": time.monotonic(), "units": {path: _unit(unit) for path, unit in logical_units.items()}}


def _unit(unit: LogicalUnit) -> dict[str, Any]:
    found: dict[str, Any] = {name: unit.total(name) for name in COUNTERS}
    latency = getattr(unit, "latency", None)
    if latency is not None:
        found["latency"] = {
            name: list(getattr(latency, name).buckets) for name in ("read", "write", "other", "express_read", "express_write")
        }
    return {"name": unit.name, "size": unit.blocks * unit.block_size, "queue": len(unit.task_set), **found}
