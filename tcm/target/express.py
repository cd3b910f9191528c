"""The express lane: ordinary reads and writes that need no task.

A fabric may call these instead of submitting a task (see :class:`tcm.target.nexus.ITLNexus`). They are closures over what does
not change while the lane is open; whatever changes closes it, or goes into ``LogicalUnit.closed_lane`` for a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcm.backstore import Buffer
    from tcm.target.nexus import ExpressRead, ExpressWrite, ITLNexus


def express_read(itl: ITLNexus) -> ExpressRead:
    """The function that reads at once, or says no."""
    lu = itl.logical_unit
    capacity, shift, maximum = lu.blocks, lu.block_shift, lu.limits.maximum_transfer_length
    read_nowait = lu.backstore.read_nowait
    closed = lu.closed_lane

    def read(lba: int, blocks: int, buffers: Sequence[memoryview]) -> bool:
        if closed or lba + blocks > capacity or blocks > maximum:
            return False
        try:
            if not read_nowait(buffers, lba << shift):
                return False
        except Exception:  # noqa: BLE001  # the general path meets it again, and answers
            return False
        itl.read_cmds += 1
        itl.read_bytes += blocks << shift
        return True

    return read


def express_write(itl: ITLNexus) -> ExpressWrite:
    """The function that writes at once, or says no."""
    lu = itl.logical_unit
    capacity, shift, maximum = lu.blocks, lu.block_shift, lu.limits.maximum_transfer_length
    write_nowait = lu.backstore.write_nowait
    closed = lu.closed_lane

    def write(lba: int, blocks: int, buffers: Sequence[Buffer]) -> bool:
        if closed or lba + blocks > capacity or blocks > maximum:
            return False
        try:
            if not write_nowait(buffers, lba << shift):
                return False
        except Exception:  # noqa: BLE001  # the general path meets it again, and answers
            return False
        itl.write_cmds += 1
        itl.write_bytes += blocks << shift
        return True

    return write
