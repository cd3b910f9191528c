"""``wwn/`` of a device: who it says it is (lio-configfs 3.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tcm.configfs.table import number
from tcm.scsi.identifying_information import MAXIMUM_LENGTH, InformationType
from tcm.target.reconfiguration import reconfigured
from tcm.tree_types import Table, TreeAttribute

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.configfs.device import Device

_OUI = (1 << 24) - 1
SERIAL = "T10 VPD Unit Serial Number: "


def _set(device: Device, attribute: str, **changes: Any) -> None:
    device.check_not_exported(attribute)
    identity = replace(device.config.identity, **changes)
    with reconfigured(device.unit):
        device.unit.identity = identity
    device.configure(identity=identity)


def _text(attribute: str, name: str) -> TreeAttribute:
    def store(device: Device, text: str) -> None:
        if not text:
            raise ValueError(f"{attribute}: write at least one character")
        _set(device, attribute, **{name: text})

    return TreeAttribute(lambda device: str(getattr(device.config.identity, name)), store)


def _set_company(device: Device, text: str) -> None:
    _set(device, "company_id", company_id=number(text, 0, _OUI))


def _information(device: Device) -> str:
    text = device.unit.identifying_information.get(InformationType.TEXT)
    return text.rstrip(b"\0").decode(errors="replace")


async def _set_information(device: Device, text: str) -> None:
    device.check_enabled()
    device.check_not_exported("pd_text_id_info")
    data = text.encode()
    if len(data) >= MAXIMUM_LENGTH[InformationType.TEXT]:
        raise ValueError(f"write at most {MAXIMUM_LENGTH[InformationType.TEXT] - 1} bytes")
    await device.unit.identifying_information.set(InformationType.TEXT, data + b"\0" if data else b"")


def _serial(device: Device) -> str:
    return f"{SERIAL}{device.config.serial}"


_nothing: Callable[[Device], str] = lambda _device: ""  # noqa: E731  four times the same
IDENTITY: Table = {
    "company_id": TreeAttribute(lambda device: f"0x{device.config.identity.company_id:06x}", _set_company),
    "pd_text_id_info": TreeAttribute(_information, _set_information),
    "product_id": _text("product_id", "product"),
    "revision": _text("revision", "revision"),
    "vendor_id": _text("vendor_id", "vendor"),
    "vpd_assoc_logical_unit": TreeAttribute(_nothing),
    "vpd_assoc_scsi_target_device": TreeAttribute(_nothing),
    "vpd_assoc_target_port": TreeAttribute(_nothing),
    "vpd_protocol_identifier": TreeAttribute(_nothing),
    "vpd_unit_serial": TreeAttribute(_serial, lambda device, text: device.set_serial(text.removeprefix(SERIAL))),
}
"""The four of VPD page 83h tell what a SCSI device behind pass-through says; for any other they are empty in LIO too."""
