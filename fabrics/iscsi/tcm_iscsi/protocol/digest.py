"""CRC32C header and data digests (RFC 7143 clauses 11.1.1, 13.1 and appendix A.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastcrc.crc32 import iscsi

if TYPE_CHECKING:
    from tcm_iscsi.protocol.pdu import Buffer


def crc32c(buffer: Buffer, *more: Buffer) -> bytes:
    """The four digest bytes as they stand on the wire after the buffers: least significant byte first (appendix A.4).

    A data digest covers the segment's padding too; a header digest covers the BHS and all AHSs.
    """
    crc = iscsi(buffer)
    for buffer in more:  # noqa: PLR1704  (one running sum)
        crc = iscsi(buffer, crc)
    return crc.to_bytes(4, "little")
