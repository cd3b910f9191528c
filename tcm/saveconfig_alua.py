"""What a saveconfig.json says of asymmetric access: ``alua_tpgs`` and its like (lio-configfs 3.5, 4.3.1, 5.1, 5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tcm.configuration import LogicalUnitGroupConfig, TargetPortGroupConfig, check_entry, check_unique
from tcm.failure import ConfigError
from tcm.options import build
from tcm.scsi.asymmetric_access import AccessState, AccessStatus
from tcm.scsi.referrals import parse_lba_map
from tcm.target.logical_unit_group import DEFAULT_GROUP as DEFAULT_LU_GROUP
from tcm.target.target_port_group import (
    ATTRIBUTES,
    DEFAULT_GROUP,
    MAXIMUM_IDENTIFIER,
    SUPPORT_ATTRIBUTES,
    GroupAttributes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tcm.configuration import LunConfig, StorageObject
    from tcm.json_reader import Node
    from tcm.scsi.referrals import LbaMap

T = TypeVar("T")

_STATES = {state.value: state for state in AccessState}
_STATUSES = {status.value: status for status in AccessStatus}


def target_port_groups(node: Node) -> tuple[TargetPortGroupConfig, ...]:
    """A storage object's ``alua_tpgs``. The default group may be among them: LIO saves it, and does not read it back."""
    place = f"{node.path}.alua_tpgs"
    groups = tuple(_target_port_group(each, mapped="lba_map" in node.value) for each in node.items("alua_tpgs"))
    check_unique(((f"{place}[{index}].name", group.name) for index, group in enumerate(groups)), "target port group")
    check_unique(((f"{place}[{index}].tg_pt_gp_id", group.identifier) for index, group in enumerate(groups)), "identifier")
    return groups


def _target_port_group(node: Node, *, mapped: bool) -> TargetPortGroupConfig:
    node.keys({"name", "tg_pt_gp_id", "alua_access_state", "alua_access_status", *ATTRIBUTES})
    name = node.text("name", required=True)
    check_entry(name, f"{node.path}.name", "ao")
    default = name == DEFAULT_GROUP
    least, most = (0, 0) if default else (1, MAXIMUM_IDENTIFIER)
    identifier = node.integer("tg_pt_gp_id", required=not default, minimum=least, maximum=most)
    values = {"alua_support_lba_dependent": mapped} | {key: node.value[key] for key in ATTRIBUTES if key in node.value}
    attributes = build(GroupAttributes, values, f"{node.path}.")
    state = _one_of(node, "alua_access_state", _STATES)
    if state is AccessState.LOGICAL_BLOCK_DEPENDENT:
        if not mapped or attributes.access_type.is_explicit:
            raise ConfigError(
                f"{node.path}.alua_access_state: 4 wants an lba_map and alua_access_type 0 or 1; write them, or 0"
            )
    elif not attributes.supports(state):
        support = SUPPORT_ATTRIBUTES[state]
        raise ConfigError(f"{node.path}.alua_access_state: {state.value} wants {support} 1; write that, or another state")
    return TargetPortGroupConfig(
        name=name,
        identifier=identifier,
        attributes=attributes,
        state=state,
        status=_one_of(node, "alua_access_status", _STATUSES),
    )


def _one_of(node: Node, key: str, known: dict[int, T]) -> T:
    value = node.integer(key)
    if value not in known:
        raise ConfigError(f"{node.path}.{key}: {value} is none; write one of {', '.join(map(str, known))}")
    return known[value]


def lun_group(node: Node, storage_object: StorageObject) -> str | None:
    """A LUN's ``alua_tg_pt_gp_name``."""
    name = node.text("alua_tg_pt_gp_name") or DEFAULT_GROUP
    known = dict.fromkeys([DEFAULT_GROUP, *(group.name for group in storage_object.target_port_groups)])
    if name not in known:
        raise ConfigError(
            f"{node.path}.alua_tg_pt_gp_name: {name!r} is not in alua_tpgs of {storage_object.path}; "
            f"write one of: {', '.join(known)}"
        )
    return None if name == DEFAULT_GROUP else name


def check_one_group(node: Node, luns: Sequence[LunConfig]) -> None:
    """A target port is in one target port group of a unit (SPC-4 5.16.2.1), under however many LUNs it exports it."""
    chosen: dict[str, str | None] = {}
    for index, lun in enumerate(luns):
        path = lun.storage_object.path
        if chosen.setdefault(path, lun.target_port_group) != lun.target_port_group:
            raise ConfigError(
                f"{node.path}.luns[{index}].alua_tg_pt_gp_name: another LUN of this portal group has {path} in "
                f"{chosen[path] or DEFAULT_GROUP}; write the same name"
            )


def lba_map(node: Node, groups: Iterable[TargetPortGroupConfig]) -> LbaMap | None:
    """A storage object's ``lba_map``: the lines that LIO's control file takes. ``groups``: those that it may name."""
    if "lba_map" not in node.value:
        return None
    lines = [each.value for each in node.items("lba_map")]
    place = f"{node.path}.lba_map"
    if not all(isinstance(line, str) for line in lines):
        raise ConfigError(f'{place}: not a list of strings; write for example ["0 0", "0 1023 1:O 2:A"]')
    try:
        made = parse_lba_map("\n".join(lines))
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None
    known = {0, *(group.identifier for group in groups)}
    for index, segment in enumerate(made.segments, 1):
        for identifier in segment.states.keys() - known:
            raise ConfigError(
                f"{place}[{index}]: no target port group of alua_tpgs has tg_pt_gp_id {identifier}; "
                f"write one of: {', '.join(map(str, sorted(known)))}"
            )
    return made


def logical_unit_groups(root: Node) -> tuple[LogicalUnitGroupConfig, ...]:
    """The ``alua_lu_gps`` of the file: ``name`` and ``lu_gp_id``."""
    groups = []
    for node in root.items("alua_lu_gps"):
        node.keys({"name", "lu_gp_id"})
        name = node.text("name", required=True)
        if name == DEFAULT_LU_GROUP:
            raise ConfigError(f"{node.path}.name: {name!r}: write another name")
        check_entry(name, f"{node.path}.name", "pair")
        identifier = node.integer("lu_gp_id", required=True, minimum=1, maximum=MAXIMUM_IDENTIFIER)
        groups.append(LogicalUnitGroupConfig(name=name, identifier=identifier))
    check_unique(((f"alua_lu_gps[{index}].name", group.name) for index, group in enumerate(groups)), "LU group")
    check_unique(((f"alua_lu_gps[{index}].lu_gp_id", group.identifier) for index, group in enumerate(groups)), "identifier")
    return tuple(groups)
