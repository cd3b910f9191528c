"""Copying the data of a ROD, which is good only as long as the ROD is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.rod_token_sense import InvalidTokenOperation
from tcm.target.copier import Place, copy
from tcm.target.medium import CHUNK

if TYPE_CHECKING:
    from tcm.scsi.rod_token_commands import Range
    from tcm.target.copy_manager import CopyOperation
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITNexus
    from tcm.target.rod_tokens import Rod


class RodCopier:
    """Copies from a ROD to ranges of a logical unit, in the name of an I_T nexus.

    ``operation.transferred`` counts what was written while the ROD was good: what is written in the step during which it ends
    may be new data.
    """

    def __init__(self, operation: CopyOperation, rod: Rod, destination: LogicalUnit, nexus: ITNexus) -> None:
        self._operation = operation
        self._rod = rod
        self._destination = destination
        self._nexus = nexus
        self._sound = 0
        """Bytes that had been written when the ROD was last seen to be good."""

    async def copy(self, ranges: tuple[Range, ...], offset: int) -> None:
        """Fill ``ranges``, one after the other, with the data from byte ``offset`` on, as far as there is any.

        A last block that the data does not fill is filled up with zeroes. Raises :class:`InvalidTokenOperation` if the ROD ends
        meanwhile, and what :func:`tcm.target.copier.copy` raises.
        """
        unit, rod = self._destination, self._rod
        end = offset + (rod.length - offset + unit.block_size - 1 & -unit.block_size)
        try:
            for each in ranges:
                length = min(each.blocks << unit.block_shift, end - offset)
                if length:
                    place = Place(unit, self._nexus, each.lba << unit.block_shift)
                    await self._fill(place, offset, length)
                    offset += length
            self._admit()
        except InvalidTokenOperation:
            self._operation.transferred = self._sound
            raise

    def _admit(self) -> None:
        self._rod.check()
        self._sound = self._operation.transferred

    async def _fill(self, place: Place, offset: int, length: int) -> None:
        source = self._rod.logical_unit
        if source.block_size != place.logical_unit.block_size:
            await self._gather(place, offset, length)
            return
        for start, size in self._rod.pieces(offset, length):
            await copy(self._operation, Place(source, self._nexus, start), place, size, admit=self._admit)
            place = place._replace(offset=place.offset + size)

    async def _gather(self, place: Place, offset: int, length: int) -> None:
        """Between units of different block sizes: a block of one may be made of pieces of several of the other."""
        operation, source, unit = self._operation, self._rod.logical_unit, place.logical_unit
        with operation.touching(source, self._nexus), operation.touching(unit, self._nexus):
            for start in range(0, length, CHUNK):
                self._admit()
                size = min(CHUNK, length - start)
                data = bytearray(size)
                filled = 0
                for at, run in self._rod.pieces(offset + start, size):
                    data[filled : filled + run] = await self._read(at, run)
                    filled += run
                lba, blocks = place.span(start, size)
                async with unit.extents.lock(operation, lba, blocks, exclusive=True):
                    await unit.medium.write_uncommitted([data], lba)
                    await unit.medium.settle()
                operation.steps += 1
                operation.transferred += size
                await unit.breathe()

    async def _read(self, offset: int, length: int) -> memoryview:
        """Bytes of the source, wherever they begin and end."""
        unit = self._rod.logical_unit
        first = offset >> unit.block_shift
        blocks = (offset + length + unit.block_size - 1 >> unit.block_shift) - first
        buffer = memoryview(bytearray(blocks << unit.block_shift))
        async with unit.extents.lock(self._operation, first, blocks, exclusive=False):
            await unit.medium.read([buffer], first)
        skipped = offset - (first << unit.block_shift)
        return buffer[skipped : skipped + length]
