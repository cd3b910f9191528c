"""Copying the data of a ROD, which is good only as long as the ROD is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tcm.scsi.rod_token_sense import InvalidTokenOperation
from tcm.target.copier import Place, copy, write
from tcm.target.copy_access import admit
from tcm.target.device_server.blocks import check_range

if TYPE_CHECKING:
    from tcm.scsi.rod_token_commands import Range
    from tcm.target.copy_manager import CopyOperation
    from tcm.target.nexus import ITLNexus
    from tcm.target.rods import Rod


class RodCopier:
    """Copies from a ROD to ranges of a logical unit, in the name of an I_T nexus.

    ``operation.transferred`` counts what was written while the ROD was good: what is written in the step during which it ends
    may be new data.
    """

    def __init__(self, operation: CopyOperation, rod: Rod, destination: ITLNexus) -> None:
        self._operation = operation
        self._rod = rod
        self._destination = destination
        self._sound = 0
        """Bytes that had been written when the ROD was last seen to be good."""

    async def copy(self, ranges: tuple[Range, ...], offset: int) -> None:
        """Fill ``ranges``, one after the other, with the data from byte ``offset`` on, as far as there is any.

        A last block that the data does not fill is filled up with zeroes. Raises :class:`InvalidTokenOperation` if the ROD ends
        meanwhile, and what :func:`tcm.target.copier.copy` and :func:`tcm.target.copy_access.admit` raise.
        """
        unit = self._destination.logical_unit
        left = self._rod.length - offset
        try:
            for each in ranges:
                length = min(each.blocks << unit.block_shift, left)
                await self._fill(each, offset, length)
                offset += length
                left -= length
            self._rod.check()
        except InvalidTokenOperation:
            self._operation.transferred = self._sound
            raise

    async def _fill(self, each: Range, offset: int, length: int) -> None:
        operation, source = self._operation, self._rod.logical_unit
        unit, nexus = self._destination.logical_unit, self._destination.nexus
        to = each.lba << unit.block_shift
        for start, size in self._rod.pieces(offset, length):
            admitted = partial(self._admit, each)
            await copy(operation, Place(source, nexus, start), Place(unit, nexus, to), size, admit=admitted)
            to += size
        short = -to & (unit.block_size - 1)
        if short:
            await write(operation, Place(unit, nexus, to), bytes(short))

    def _admit(self, each: Range) -> None:
        self._rod.check()
        self._sound = self._operation.transferred
        admit_range(self._destination, each)


def admit_range(itl: ITLNexus, each: Range) -> None:
    """Raises what a WRITE of the range would end with now: it may have been cut off since the command began."""
    admit(itl, each, write=True)
    check_range(itl.logical_unit, *each)
