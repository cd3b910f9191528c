"""Parameter data of REPORT LUNS (SPC-5 6.35)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from tcm.scsi.lun import REPORT_LUNS_WELL_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable


class SelectReport(enum.IntEnum):
    """SELECT REPORT (SPC-5 table 266)."""

    ADDRESSED = 0x00
    """Logical units with simple LUNs."""
    WELL_KNOWN = 0x01
    ALL = 0x02
    ADMINISTRATIVE = 0x10
    NOT_SUBSIDIARY = 0x11
    SUBSIDIARY = 0x12


WITH_SIMPLE = frozenset({SelectReport.ADDRESSED, SelectReport.ALL, SelectReport.NOT_SUBSIDIARY})
"""No logical unit here is a conglomerate's administrative or subsidiary one."""
WITH_WELL_KNOWN = frozenset({SelectReport.WELL_KNOWN, SelectReport.ALL})


def report_luns_data(luns: Iterable[bytes], select: SelectReport) -> bytes:
    """The LUN list.

    :param luns: the LUN fields, 8 bytes each, of the logical units that the I_T nexus reaches.
    """
    found = list(luns) if select in WITH_SIMPLE else []
    if select in WITH_WELL_KNOWN:
        found.append(REPORT_LUNS_WELL_KNOWN)
    return (8 * len(found)).to_bytes(4, "big") + bytes(4) + b"".join(found)
