"""Whether a command is taken through a target port, by its asymmetric access state (SPC-4 5.16.2.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.asymmetric_access import ADMITTED, REFUSED, AccessState
from tcm.scsi.command import Extent
from tcm.target.device_server.blocks import lba_and_blocks
from tcm.target.segments import check_segments

if TYPE_CHECKING:
    from tcm.scsi.command import Command
    from tcm.target.nexus import ITLNexus

_TO_THE_END = {"pre_fetch", "write_same"}
"""Handlers to which no blocks are all blocks from the LBA on."""
_COUNT = {0x89: slice(13, 14), 0x9C: slice(12, 14)}
"""COMPARE AND WRITE and WRITE ATOMIC (16), whose number of blocks is elsewhere in the CDB."""
_OWN_RANGES = {"unmap"}
"""Handlers whose ranges are not in the CDB: they call :func:`check_segments` themselves."""


def check_access(itl: ITLNexus, command: Command, cdb: bytes) -> None:
    """Raises NOT READY with why it is not, or what :func:`check_segments` raises. Called only while ``itl.gated``."""
    state = itl.exported.access_state
    if command.access_states not in ADMITTED[state]:
        raise REFUSED[state]
    if (
        state is AccessState.LOGICAL_BLOCK_DEPENDENT
        and command.extent is not Extent.NONE
        and command.handler not in _OWN_RANGES
    ):
        lba, blocks = lba_and_blocks(cdb)
        if command.operation_code in _COUNT:
            blocks = int.from_bytes(cdb[_COUNT[command.operation_code]])
        elif not blocks and command.handler in _TO_THE_END:
            blocks = max(0, itl.logical_unit.blocks - lba)
        check_segments(itl, lba, blocks)
