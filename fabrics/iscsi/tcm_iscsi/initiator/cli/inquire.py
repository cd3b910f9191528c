"""``inquire``: a logical unit in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm_iscsi.initiator.results import ScsiError

if TYPE_CHECKING:
    from tcm_iscsi.initiator.driver import InitiatorSession

DEVICE_TYPES = {0: "disk", 1: "tape", 5: "CD/DVD", 0x0C: "storage array", 0x0D: "enclosure", 0x1F: "nothing at this LUN"}
SERIAL_NUMBER = 0x80


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").strip(" \0")


async def facts(session: InitiatorSession) -> list[tuple[str, str]]:
    """Name and value of what there is to know. Raises InitiatorError."""
    standard = (await session.inquiry(length=96)).ljust(96, b"\0")
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
        page = await session.inquiry(page=SERIAL_NUMBER)
        rows.append(("serial number", _text(page[4 : 4 + int.from_bytes(page[2:4], "big")])))
    except ScsiError:
        rows.append(("serial number", "-"))
    try:
        blocks, size = await session.capacity()
        rows += [("logical blocks", str(blocks)), ("block size", str(size)), ("bytes", str(blocks * size))]
    except ScsiError as e:
        rows.append(("capacity", f"- ({e})"))
    luns = [int.from_bytes(lun[:2], "big") & 0x3FFF for lun in await session.report_luns()]
    rows.append(("LUNs of the target", ", ".join(str(lun) for lun in sorted(luns))))
    core = session.core
    connection = next(iter(core.connections.values()))
    digests = ["header"] * connection.header_digest + ["data"] * connection.data_digest
    rows += [
        ("session", f"ISID 0x{core.isid.hex()}, TSIH {core.tsih}"),
        ("error recovery level", str(core.error_recovery_level)),
        ("most connections", str(core.parameters.max_connections)),
        ("digests", " and ".join(digests) or "none"),
        ("command window", str(core.max_cmd_sn - core.cmd_sn + 1 & 0xFFFFFFFF)),
        ("first burst, burst", f"{core.parameters.first_burst_length}, {core.parameters.max_burst_length} bytes"),
        ("data segments", f"{connection.max_send} bytes out, {connection.max_recv} in"),
    ]
    return rows
