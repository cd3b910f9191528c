"""``attrib/`` of a device: :class:`DeviceAttributes` under LIO's names, each as it is in force (lio-configfs 3.2)."""

from __future__ import annotations

import errno
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from tcm.backstore import Support
from tcm.configfs.script import UNEXPORTED
from tcm.configfs.table import number
from tcm.options import options_of, parse_bool
from tcm.target.attributes import MAXIMUM_QUEUE_DEPTH, DeviceAttributes, UnmapLimits, unmap_limits
from tcm.target.persistent_reservations import without_isids
from tcm.target.reconfiguration import reconfigured
from tcm.target.unit_attention import MODE_PARAMETERS_CHANGED
from tcm.tree_types import Table, TreeAttribute

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.configfs.device import Device
    from tcm.target.logical_unit import LogicalUnit

EFFECTIVE: dict[str, Callable[[LogicalUnit], int]] = {
    "block_size": lambda lu: lu.block_size,
    "emulate_tpu": lambda lu: lu.provisioning.thin and lu.attributes.unmap,
    "emulate_tpws": lambda lu: lu.provisioning.write_same_unmaps,
    "emulate_write_cache": lambda lu: lu.medium.write_cache,
    "is_nonrot": lambda lu: not lu.capabilities.rotational if lu.attributes.is_nonrot is None else lu.attributes.is_nonrot,
    # limits are what they are while UNMAP is switched off, too: they have to be there when it is switched on
    "max_unmap_block_desc_count": lambda lu: _unmap_limits(lu).descriptors,
    "max_unmap_lba_count": lambda lu: _unmap_limits(lu).lba_count,
    "max_write_same_len": lambda lu: _chosen(lu.attributes.max_write_same_len, lu.limits.maximum_write_same_length),
    "optimal_sectors": lambda lu: lu.limits.optimal_transfer_length,
    "pi_prot_format": lambda _lu: 0,
    "pi_prot_type": lambda lu: lu.protection.kind,
    "pi_prot_verify": lambda lu: lu.attributes.pi_prot_verify is not False and bool(lu.protection.kind),
    "unmap_granularity": lambda lu: _unmap_limits(lu).granularity,
    "unmap_zeroes_data": lambda lu: lu.provisioning.unmapped_reads_zero,
}
"""What an attribute is that the backstore has a say in; any other is what was set."""

_BEGINNING = frozenset(
    {"block_size", "emulate_tas", "emulate_ua_intlck_ctrl", "pi_prot_format", "pi_prot_type", "pi_prot_verify"}
)
"""The unit takes these up at its beginning only."""
_OPTIONS = options_of(DeviceAttributes)
RAM_DISK_SECTORS = 0xFFFFFFF8
"""What LIO's RAM disk has for a limit, and so in every file that targetcli saves of one: as much as there is."""


def _chosen(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _unmap_limits(lu: LogicalUnit) -> UnmapLimits:
    return unmap_limits(lu.attributes, lu.capabilities, lu.block_size)


def option_value(name: str, text: str) -> Any:
    """Of a field of :class:`DeviceAttributes`. Raises ``ValueError``."""
    return parse_bool(text) if _OPTIONS[name].type is bool else number(text, 0, 0xFFFFFFFF)


def _store(name: str) -> Callable[[Device, str], Any]:
    async def store(device: Device, text: str) -> None:
        value = option_value(name, text)
        if name in UNEXPORTED:
            device.check_not_exported(name)
        check(device, name, value)
        attributes = replace(device.config.attributes, **{name: value})
        if name in _BEGINNING:
            if int(_show(name)(device)) == int(value):
                return
            await device.rebuild(attributes=attributes)
            if name == "pi_prot_format":  # done, and not to be done again
                device.configure(attributes=replace(attributes, pi_prot_format=False))
                device.unit.attributes = device.config.attributes
            return
        unit = device.unit
        before = unit.attributes
        try:
            with reconfigured(unit):
                unit.attributes = attributes
            await _follow(device, name, value)
        except BaseException:
            unit.attributes = before
            raise
        device.configure(attributes=attributes)

    return store


def check(device: Device, name: str, value: Any) -> None:
    """Refuses what could not take effect. Raises ``ValueError``, ``OSError``."""
    unit = device.unit
    if name in {"emulate_tpu", "emulate_tpws", "unmap_zeroes_data"} and value and device.enabled:
        native = unit.capabilities.unmap is Support.NATIVE
        if not native or (name == "unmap_zeroes_data" and not unit.capabilities.unmap_zeroes):
            raise ValueError(f"{name}: the backstore cannot do that; write 0")
    if name == "emulate_tpu" and value and device.enabled and not unit.attributes.unmap_sizes:
        raise ValueError("emulate_tpu: no UNMAP could be made; write max_unmap_lba_count and max_unmap_block_desc_count first")
    if name == "emulate_write_cache" and value and device.enabled and unit.capabilities.flush is not Support.NATIVE:
        raise ValueError("emulate_write_cache: the backstore has no write cache to flush; write 0")
    if name == "optimal_sectors" and device.enabled and unit.limits.maximum_transfer_length < value != RAM_DISK_SECTORS:
        raise ValueError(f"optimal_sectors: write at most hw_max_sectors, {unit.limits.maximum_transfer_length}")
    if name == "enforce_pr_isids" and unit.persistent_reservations.state.registrations:
        raise OSError(errno.EBUSY, "enforce_pr_isids: there are registrations, which it would make others' of")
    if name in {"pi_prot_type", "pi_prot_format"} and value and device.enabled and not unit.protection.supported:
        raise ValueError(f"{name}: the backstore has no place for protection information; write 0")


async def _follow(device: Device, name: str, value: Any) -> None:
    """What an attribute means to a unit that runs, beside INQUIRY data and limits."""
    unit = device.unit
    if name == "emulate_write_cache" and device.enabled:
        if unit.mode_parameters.configure_write_cache(enabled=value):
            unit.establish_attention(MODE_PARAMETERS_CHANGED)
            if not value and not unit.read_only:
                await unit.medium.flush()
    elif name == "enforce_pr_isids":
        reservations = unit.persistent_reservations
        reservations.enforce_isids = value
        if not value:
            reservations.state = without_isids(reservations.state)


def _show(name: str) -> Callable[[Device], str]:
    effective = EFFECTIVE.get(name)

    def show(device: Device) -> str:
        unit = device.unit
        value = getattr(unit.attributes, name) if effective is None else effective(unit)
        return f"{int(value or 0)}"

    return show


# what is not in the dataclass


def _set_model_alias(device: Device, text: str) -> None:
    """PRODUCT IDENTIFICATION is the device's name."""
    device.check_not_exported("emulate_model_alias")
    device.model_alias = parse_bool(text)
    product = device.name if device.model_alias else device.tree.product or device.tree.plugin.upper()
    identity = replace(device.config.identity, product=product[:16])
    device.unit.identity = identity
    device.configure(identity=identity)


def _only(value: int, why: str) -> TreeAttribute:
    """One that LIO has, and that here, as there or not, can only have one value."""

    def store(_device: Device, text: str) -> None:
        if number(text, 0, 0xFFFFFFFF) != value:
            raise ValueError(f"{why}; write {value}")

    return TreeAttribute(lambda _device: str(value), store)


def _ignored(value: int) -> TreeAttribute:
    """One that LIO takes and ignores."""

    def store(_device: Device, text: str) -> None:
        parse_bool(text)

    return TreeAttribute(lambda _device: str(value), store)


def _limit(name: str) -> TreeAttribute:
    return TreeAttribute(lambda device: str(getattr(device.unit.limits, name)))


OTHERS: Table = {
    "alua_support": _only(1, "asymmetric access is the target's own business"),
    "atomic_alignment": _limit("atomic_alignment"),
    "atomic_granularity": _limit("atomic_transfer_length_granularity"),
    "atomic_max_boundary": _limit("maximum_atomic_boundary_size"),
    "atomic_max_len": _limit("maximum_atomic_transfer_length"),
    "atomic_max_with_boundary": _limit("maximum_atomic_transfer_length_with_atomic_boundary"),
    "complete_type": _only(0, "commands complete where the event loop is"),
    "emulate_dpo": _ignored(1),
    "emulate_fua_read": _ignored(1),
    "emulate_model_alias": TreeAttribute(lambda device: f"{device.model_alias:d}", _set_model_alias),
    "emulate_rest_reord": _only(0, "restricted reordering is all there is, as in LIO"),
    "hw_block_size": TreeAttribute(lambda device: str(device.unit.capabilities.block_size)),
    "hw_max_sectors": _limit("maximum_transfer_length"),
    "hw_pi_prot_type": TreeAttribute(lambda _device: "0"),
    "hw_queue_depth": TreeAttribute(lambda _device: str(MAXIMUM_QUEUE_DEPTH)),
    "pgr_support": _only(1, "persistent reservations are the target's own business"),
    "submit_type": _only(0, "commands are submitted where the event loop is"),
}
"""``hw_pi_prot_type`` is 0, as it is for every backend of LIO whose protection information the core deals with."""

ATTRIBUTES: Table = dict(
    sorted(
        {
            **{field.name: TreeAttribute(_show(field.name), _store(field.name)) for field in fields(DeviceAttributes)},
            **OTHERS,
        }.items()
    )
)
