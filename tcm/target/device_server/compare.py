"""Comparing what is on the medium with what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.sense import MiscompareDuringVerify

if TYPE_CHECKING:
    from tcm.backstore import Buffer


def check_equal(medium: Buffer, sent: Buffer, offset: int = 0) -> None:
    """Raises MISCOMPARE DURING VERIFY OPERATION; INFORMATION is ``offset`` plus that of the first byte that differs."""
    if medium == sent:
        return
    different = int.from_bytes(medium, "little") ^ int.from_bytes(sent, "little")
    raise MiscompareDuringVerify(information=offset + ((different & -different).bit_length() - 1) // 8)
