"""``inquire``: a logical unit in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.lun import decode
from tcm_fcoe.initiator.results import ScsiError
from tcm_fcoe.protocol.fcp import ServiceParameters
from tcm_fcoe.protocol.names import colon_form, format_fc_id

if TYPE_CHECKING:
    from tcm_fcoe.initiator.driver import Target

DEVICE_TYPES = {0: "disk", 1: "tape", 5: "CD/DVD", 0x0C: "storage array", 0x0D: "enclosure", 0x1F: "nothing at this LUN"}
SERIAL_NUMBER = 0x80
_AGREED = {
    ServiceParameters.CONFIRMED_COMPLETION_ALLOWED: "confirmed completion",
    ServiceParameters.RETRY: "sequence level recovery",
    ServiceParameters.WRITE_FCP_XFER_RDY_DISABLED: "first burst",
}


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").strip(" \0")


async def facts(target: Target) -> list[tuple[str, str]]:
    """Name and value of what there is to know. Raises InitiatorError."""
    standard = (await target.inquiry(length=96)).ljust(96, b"\0")
    kind = standard[0] & 0x1F
    rows = [
        ("device type", DEVICE_TYPES.get(kind, f"{kind:#04x}")),
        ("vendor", _text(standard[8:16])),
        ("product", _text(standard[16:32])),
        ("revision", _text(standard[32:36])),
    ]
    if kind == 0x1F:
        return rows
    try:
        page = await target.inquiry(page=SERIAL_NUMBER)
        rows.append(("serial number", _text(page[4 : 4 + int.from_bytes(page[2:4], "big")])))
    except ScsiError:
        rows.append(("serial number", "-"))
    try:
        blocks, size = await target.capacity()
        rows += [("logical blocks", str(blocks)), ("block size", str(size)), ("bytes", str(blocks * size))]
    except ScsiError as e:
        rows.append(("capacity", f"- ({e})"))
    luns = [decode(lun) for lun in await target.report_luns()]
    rows.append(("LUNs of the target", ", ".join(str(lun) for lun in sorted(each for each in luns if each is not None))))
    port, nexus = target.initiator, target.nexus
    agreed = [text for flag, text in _AGREED.items() if nexus.agreed & flag]
    rows += [
        ("target", f"{colon_form(target.port_name)}, node {colon_form(target.node_name)}, {format_fc_id(nexus.d_id)}"),
        ("initiator", f"{colon_form(port.port.port_name)}, {format_fc_id(port.port.fc_id)}"),
        ("interface", f"{port.link.name}, {colon_form(port.link.address)}, mode {port.mode}"),
        ("agreed", ", ".join(agreed) or "nothing beyond what everybody must do"),
        ("frames", f"{nexus.max_payload} bytes out, {port.port.receive_size} in"),
    ]
    return rows
