"""Comparing what is on the medium with what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.check_condition import MiscompareDuringVerify

if TYPE_CHECKING:
    from tcm.backstore import Buffer


def check_equal(medium: Buffer, sent: Buffer, offset: int = 0) -> None:
    """Raises MISCOMPARE DURING VERIFY OPERATION; INFORMATION is ``offset`` plus that of the first byte that differs."""
    difference = first_difference(medium, sent)
    if difference is not None:
        raise MiscompareDuringVerify(information=offset + difference)


def first_difference(medium: Buffer, sent: Buffer) -> int | None:
    """The first byte that differs; ``None`` if none does."""
    if medium == sent:
        return None
    different = int.from_bytes(medium, "little") ^ int.from_bytes(sent, "little")
    return ((different & -different).bit_length() - 1) // 8
