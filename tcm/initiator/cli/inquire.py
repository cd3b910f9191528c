"""``inquire``: a logical unit in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.initiator.results import ScsiError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.initiator.commands import Commands

DEVICE_TYPES = {0: "disk", 1: "tape", 5: "CD/DVD", 0x0C: "storage array", 0x0D: "enclosure", 0x1F: "nothing at this LUN"}
NOTHING = 0x1F
SERIAL_NUMBER = 0x80


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").strip(" \0")


async def facts(unit: Commands, more: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Name and value of what there is to know. Raises InitiatorError.

    :param more: what the transport knows of it.
    """
    standard = (await unit.inquiry(length=96)).ljust(96, b"\0")
    kind = standard[0] & 0x1F
    rows = [
        ("device type", DEVICE_TYPES.get(kind, f"{kind:#04x}")),
        ("vendor", _text(standard[8:16])),
        ("product", _text(standard[16:32])),
        ("revision", _text(standard[32:36])),
    ]
    if kind == NOTHING:
        return rows
    try:
        page = await unit.inquiry(page=SERIAL_NUMBER)
        rows.append(("serial number", _text(page[4 : 4 + int.from_bytes(page[2:4], "big")])))
    except ScsiError:
        rows.append(("serial number", "-"))
    try:
        blocks, size = await unit.capacity()
        rows += [("logical blocks", str(blocks)), ("block size", str(size)), ("bytes", str(blocks * size))]
    except ScsiError as e:
        rows.append(("capacity", f"- ({e})"))
    luns = ", ".join(str(lun) for lun in await unit.lun_numbers())
    return [*rows, ("LUNs of the target", luns), *more]
