"""Mode pages that are FCP's own (FCP-4 clause 10): Disconnect-Reconnect, FCP Logical Unit Control, FCP Port Control."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tcm.scsi.layout import Layout, bits, flag, number
from tcm.scsi.mode_pages import Key, ModePage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tcm.scsi.mode_pages import ModePageValues

DISCONNECT_RECONNECT: Key = (0x02, 0x00)
LOGICAL_UNIT_CONTROL: Key = (0x18, 0x00)
PORT_CONTROL: Key = (0x19, 0x00)

BURST_UNIT = 512
"""Bytes that burst sizes are counted in."""
LARGEST = 0xFFFF
TENTHS = 0b011
"""RR_TOV UNITS: 0.1 s."""

DISCONNECT_RECONNECT_PAGE = ModePage(
    DISCONNECT_RECONNECT,
    "Disconnect-Reconnect",
    Layout(
        16,
        (
            number("buffer_full_ratio", 2, 2),
            number("buffer_empty_ratio", 3, 3),
            number("bus_inactivity_limit", 4, 5),
            number("disconnect_time_limit", 6, 7),
            number("connect_time_limit", 8, 9),
            number("maximum_burst_size", 10, 11),
            flag("emdp", 12, 7),
            flag("faa", 12, 6),
            flag("fab", 12, 5),
            flag("fac", 12, 4),
            number("first_burst_size", 14, 15),
        ),
    ),
    changeable=frozenset({"maximum_burst_size", "first_burst_size"}),
)
"""FCP-4 10.2. There are no interconnect tenancies in class 3, which most of it is about; EMDP: data goes in order."""

LOGICAL_UNIT_CONTROL_PAGE = ModePage(
    LOGICAL_UNIT_CONTROL,
    "FCP Logical Unit Control",
    Layout(8, (bits("protocol_identifier", 2, 3, 0), flag("epdc", 3, 0))),
)
"""FCP-4 10.3. PROTOCOL IDENTIFIER 0h is FCP. EPDC: commands are taken in whatever order they come, whatever their numbers."""

PORT_CONTROL_PAGE = ModePage(
    PORT_CONTROL,
    "FCP Port Control",
    Layout(
        8,
        (
            bits("protocol_identifier", 2, 3, 0),
            flag("dtfd", 3, 7),
            flag("plpb", 3, 6),
            flag("ddis", 3, 5),
            flag("dlm", 3, 4),
            flag("rha", 3, 3),
            flag("alwi", 3, 2),
            flag("dtipe", 3, 1),
            flag("dtoli", 3, 0),
            bits("rr_tov_units", 6, 2, 0),
            number("rr_tov", 7, 7),
        ),
    ),
)
"""FCP-4 10.4. All but RR_TOV is about arbitrated loops."""

PAGES = (DISCONNECT_RECONNECT_PAGE, LOGICAL_UNIT_CONTROL_PAGE, PORT_CONTROL_PAGE)


def defaults(burst_length: int, rr_tov: float) -> dict[Key, dict[str, int]]:
    """What they say unless MODE SELECT changes it.

    :param burst_length: bytes.
    :param rr_tov: seconds.
    """
    return {
        DISCONNECT_RECONNECT: {"maximum_burst_size": min(burst_length // BURST_UNIT, LARGEST)},
        PORT_CONTROL: {"rr_tov_units": TENTHS, "rr_tov": min(round(rr_tov * 10), 0xFF)},
    }


class BurstSizes(NamedTuple):
    """What holds for data of one logical unit."""

    maximum: int
    """Bytes of a burst, either way; 0: as many as there are."""
    first: int
    """Bytes that may come without FCP_XFER_RDY; 0: as many as there are."""

    @classmethod
    def of(cls, values: ModePageValues) -> BurstSizes:
        """As the Disconnect-Reconnect page has them."""
        page: Mapping[str, int] = DISCONNECT_RECONNECT_PAGE.layout.unpack(values.current[DISCONNECT_RECONNECT])
        return cls(page["maximum_burst_size"] * BURST_UNIT, page["first_burst_size"] * BURST_UNIT)
