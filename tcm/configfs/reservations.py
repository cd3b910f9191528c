"""``pr/`` of a device: SPC-2 and persistent reservations (lio-configfs 3.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tcm.scsi.persistent_reservations import ReservationType
from tcm.target import aptpl
from tcm.target.access_metadata import FABRICS
from tcm.tree_types import Table, TreeAttribute

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.configfs.device import Device
    from tcm.target.persistent_reservations import NexusName, Registration, State

PAGE = 4096
_NOBODY = "No SPC-3 Reservation holder"
TYPES = {
    ReservationType.WRITE_EXCLUSIVE: "Write Exclusive Access",
    ReservationType.EXCLUSIVE_ACCESS: "Exclusive Access",
    ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY: "Write Exclusive Access, Registrants Only",
    ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY: "Exclusive Access, Registrants Only",
    ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS: "Write Exclusive Access, All Registrants",
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS: "Exclusive Access, All Registrants",
}
_REQUIRED = ("initiator_node", "target_node", "sa_res_key")
_DEFAULTS = {"initiator_fabric": "iSCSI", "res_holder": "0", "tpgt": "0", "port_rtpi": "0"}


def _state(device: Device) -> State:
    return device.unit.persistent_reservations.state


def _initiator(name: NexusName) -> str:
    return f"{name.initiator},i,0x{name.isid.hex()}" if name.isid is not None else name.initiator


def _fabric(registration: Registration) -> str:
    return FABRICS.get(registration.fabric, registration.fabric)


def _holder(device: Device) -> tuple[NexusName, Registration] | None:
    """Whoever holds the persistent reservation, the first if all registrants do."""
    state = _state(device)
    return next(((name, each) for name, each in state.registrations.items() if state.holds(name)), None)


def _of_holder(show: Callable[[NexusName, Registration], str]) -> TreeAttribute:
    def show_or_nobody(device: Device) -> str:
        found = _holder(device)
        return show(*found) if found is not None else _NOBODY

    return TreeAttribute(show_or_nobody)


def _res_holder(device: Device) -> str:
    itl = device.unit.spc2_reservation.holder
    if itl is not None:
        port, group = itl.nexus.initiator_port, itl.nexus.target_portal_group
        return f"SPC-2 Reservation: {FABRICS.get(group.target.fabric_name, group.target.fabric_name)} Initiator: {port.name}"
    found = _holder(device)
    if found is None:
        return _NOBODY
    return f"SPC-3 Reservation: {_fabric(found[1])} Initiator: {_initiator(found[0])}"


def _res_type(device: Device) -> str:
    if not device.unit.attributes.emulate_pr:
        return "SPC_RESERVATIONS_DISABLED"
    return "SPC2_RESERVATIONS" if device.unit.spc2_reservation.holder is not None else "SPC3_PERSISTENT_RESERVATIONS"


def _holder_port(name: NexusName, registration: Registration) -> str:
    fabric = _fabric(registration)
    return (
        f"SPC-3 Reservation: {fabric} Target Node Endpoint: {name.target}\n"
        f"SPC-3 Reservation: Relative Port Identifier Tag: {registration.relative_port} {fabric} Portal Group Tag: {name.tag}"
        f" {fabric} Logical Unit: {registration.lun}"
    )


def _kind(device: Device) -> str:
    kind = _state(device).kind
    return f"SPC-3 Reservation Type: {TYPES[kind]}" if kind is not None else _NOBODY


def _registered(device: Device) -> str:
    """As much as a page holds."""
    state = _state(device)
    text = "SPC-3 PR Registrations:"
    for name, each in state.registrations.items():
        line = f"{_fabric(each)} Node: {_initiator(name)} Key: 0x{each.key:016x} PRgen: 0x{state.generation:08x}"
        if len(text) + len(line) + 2 > PAGE:
            return text
        text += f"\n{line}"
    return text if state.registrations else f"{text}\nNone"


async def _restore(device: Device, text: str) -> None:
    """One registration as it was kept: what LIO's tools read from ``<dbroot>/pr`` and put back."""
    device.check_enabled()
    device.check_not_exported("a registration")
    values: dict[str, str] = {}
    for pair in text.replace("\n", ",").split(","):
        if pair.strip():
            key, _, value = (part.strip() for part in pair.partition("="))
            values[key] = value
    missing = [key for key in _REQUIRED if not values.get(key)]
    if missing:
        raise ValueError(f"{', '.join(missing)}: missing")
    values = {**_DEFAULTS, **values}
    values["sa_res_key"] = str(int(values["sa_res_key"], 0))
    lines = [f"{key}={value}" for key, value in values.items()]
    restored = aptpl.from_text("\n".join(("PR_REG_START: 0", *lines, "PR_REG_END: 0")) + "\n")
    reservations = device.unit.persistent_reservations
    async with reservations.changing:
        before = reservations.state
        state = replace(before, registrations={**before.registrations, **restored.registrations}, aptpl=True)
        if restored.kind is not None:
            if before.kind is not None and (before.kind, before.holder) != (restored.kind, restored.holder):
                raise ValueError("another registration holds the reservation already")
            state = replace(state, kind=restored.kind, holder=restored.holder)
        await reservations.keep(state)
        reservations.take_effect(state, {})


RESERVATIONS: Table = {
    "res_aptpl_active": TreeAttribute(
        lambda device: f"APTPL Bit Status: {'Activated' if _state(device).aptpl else 'Disabled'}"
    ),
    "res_aptpl_metadata": TreeAttribute(lambda _device: "Ready to process PR APTPL metadata..", _restore),
    "res_holder": TreeAttribute(_res_holder),
    "res_pr_all_tgt_pts": _of_holder(lambda _name, _each: "SPC-3 Reservation: Single Target Port registration"),
    "res_pr_generation": TreeAttribute(lambda device: f"0x{_state(device).generation:08x}"),
    "res_pr_holder_tg_port": _of_holder(_holder_port),
    "res_pr_registered_i_pts": TreeAttribute(_registered),
    "res_pr_type": TreeAttribute(_kind),
    "res_type": TreeAttribute(_res_type),
}
"""With ALL_TG_PT each target port is registered by itself, so no registration is for all of them."""
