"""Asymmetric access states as text in LIO's form, and under which keys they are kept (lio-configfs 3.5: ``<dbroot>/alua``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tcm.scsi.asymmetric_access import AccessState, AccessStatus
from tcm.target.store import key as store_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.lun import Lun
    from tcm.target.target_port_group import TargetPortGroup

T = TypeVar("T")

_KEPT = {state.value: state for state in AccessState if state is not AccessState.TRANSITIONING}

FABRICS = {"iscsi": "iSCSI", "fcoe": "fc"}
"""Our fabrics' names in LIO's spelling, where they differ."""


def group_text(group: TargetPortGroup, state: AccessState, status: AccessStatus) -> str:
    """``alua/tpgs_<unit serial>/<group>``."""
    return f"tg_pt_gp_id={group.identifier}\nalua_access_state=0x{state:02x}\nalua_access_status=0x{status:02x}\n"


def lun_text(*, offline: bool, status: AccessStatus) -> str:
    """``alua/<fabric>/<wwn>+<tag>/lun_<number>``."""
    return f"alua_tg_pt_offline={offline:d}\nalua_tg_pt_status=0x{status:02x}\n"


def parse_group_text(text: str) -> tuple[int, AccessState, AccessStatus]:
    """Identifier, state and status. Raises ``ValueError``, which says in which line."""
    values = _values(text, ("tg_pt_gp_id", "alua_access_state", "alua_access_status"))
    state = _one_of(values, "alua_access_state", _KEPT)
    return values["tg_pt_gp_id"][1], state, _status(values, "alua_access_status")


def parse_lun_text(text: str) -> tuple[bool, AccessStatus]:
    """Whether the LUN is offline, and the status. Raises ``ValueError``, which says in which line."""
    values = _values(text, ("alua_tg_pt_offline", "alua_tg_pt_status"))
    return _one_of(values, "alua_tg_pt_offline", {0: False, 1: True}), _status(values, "alua_tg_pt_status")


def unit_prefix(unit: LogicalUnit) -> str:
    """What the keys of all groups of a unit begin with."""
    return store_key("alua", f"tpgs_{unit.serial}") + "/"


def group_key(group: TargetPortGroup) -> str:
    """Where a group's primary state is kept."""
    return unit_prefix(group.logical_unit) + store_key(group.name)


def lun_key(lun: Lun) -> str:
    """Where a LUN's secondary state is kept."""
    port = lun.port
    fabric = FABRICS.get(port.target.fabric_name, port.target.fabric_name)
    return store_key("alua", fabric, f"{port.target.name}+{port.tag}", f"lun_{lun.number}")


_Values = dict[str, tuple[int, int]]
"""Line number and value by key."""


def _values(text: str, keys: tuple[str, ...]) -> _Values:
    found: _Values = {}
    for number, line in enumerate(text.splitlines(), 1):
        key, separator, value = line.partition("=")
        try:
            if not separator or key not in keys or key in found:
                raise ValueError
            found[key] = number, int(value, 0)
        except ValueError:
            raise ValueError(f"line {number}: {line!r} is not understood") from None
    for key in keys:
        if key not in found:
            raise ValueError(f"line {len(found) + 1}: {key} is missing")
    return found


def _one_of(values: _Values, key: str, known: Mapping[int, T]) -> T:
    number, value = values[key]
    if value not in known:
        raise ValueError(f"line {number}: {key}={value}")
    return known[value]


def _status(values: _Values, key: str) -> AccessStatus:
    return _one_of(values, key, {each.value: each for each in AccessStatus})
