"""PDUs out of a byte stream (RFC 7143 clause 11.2), for the login phase and for tests.

Full feature phase frames in its receive loop; both bound the data segment by what was declared, before a byte of it is kept.
"""

from __future__ import annotations

from typing import NamedTuple

from tcm_iscsi.protocol.digest import crc32c
from tcm_iscsi.protocol.pdu import BHS_LENGTH, DIGEST_LENGTH, Buffer, padded

LOGIN_MAX_DATA_SEGMENT_LENGTH = 8192
"""Before and during login (clause 13.12: the default of MaxRecvDataSegmentLength)."""


class FramingError(Exception):
    """The stream cannot be followed any further.

    ``bhs`` is the header at fault. Either its data segment is longer than we accept (a format error, clause 7.7), or its
    header digest is wrong (clause 7.8): at error recovery level 0 both end the connection.
    """

    def __init__(self, message: str, bhs: bytes) -> None:
        super().__init__(message)
        self.bhs = bhs


class Pdu(NamedTuple):
    """One PDU as it came, without padding and digests."""

    bhs: bytes
    ahs: bytes
    data: bytes
    data_digest_valid: bool = True
    """False: the data cannot be trusted; Reject with reason Data (payload) Digest Error (clause 7.8)."""


class Framer:
    """Bytes in with :meth:`receive_data`, PDUs out with :meth:`next_pdu`.

    Holds at most one PDU more than what was passed in and not taken out again. ``header_digest``, ``data_digest`` and
    ``max_data_segment_length`` may be changed between PDUs.
    """

    __slots__ = ("_buffer", "data_digest", "header_digest", "max_data_segment_length")

    def __init__(
        self,
        *,
        max_data_segment_length: int = LOGIN_MAX_DATA_SEGMENT_LENGTH,
        header_digest: bool = False,
        data_digest: bool = False,
    ) -> None:
        self.max_data_segment_length = max_data_segment_length
        self.header_digest = header_digest
        self.data_digest = data_digest
        self._buffer = bytearray()

    def receive_data(self, data: Buffer) -> None:
        """Add bytes, copied."""
        self._buffer += data

    def next_pdu(self) -> Pdu | None:
        """The next PDU, or None if more bytes are needed. Raises FramingError."""
        buffer = self._buffer
        if len(buffer) < BHS_LENGTH:
            return None
        ahs_length = buffer[4] * 4
        data_length = int.from_bytes(buffer[5:8], "big")
        if data_length > self.max_data_segment_length:
            raise FramingError(
                f"a data segment of {data_length} bytes, more than the {self.max_data_segment_length} we accept",
                bytes(buffer[:BHS_LENGTH]),
            )
        header_end = BHS_LENGTH + ahs_length
        data_start = header_end + (DIGEST_LENGTH if self.header_digest else 0)
        data_end = data_start + padded(data_length)
        end = data_end + (DIGEST_LENGTH if self.data_digest and data_length else 0)
        if self.header_digest:
            if len(buffer) < data_start:
                return None
            if crc32c(buffer[:header_end]) != buffer[header_end:data_start]:
                raise FramingError("header digest error", bytes(buffer[:BHS_LENGTH]))
        if len(buffer) < end:
            return None
        pdu = Pdu(
            bytes(buffer[:BHS_LENGTH]),
            bytes(buffer[BHS_LENGTH:header_end]),
            bytes(buffer[data_start : data_start + data_length]),
            end == data_end or crc32c(buffer[data_start:data_end]) == buffer[data_end:end],
        )
        del buffer[:end]
        return pdu

    def trailing_data(self) -> bytes:
        """Take what is left over and has not been returned as a PDU."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data


def frame(bhs: bytes, data: Buffer = b"", *, ahs: bytes = b"", header_digest: bool = False, data_digest: bool = False) -> bytes:
    """The wire form of a PDU; the lengths in ``bhs`` are filled in here. ``ahs`` comes padded."""
    header = bhs[:4] + (len(ahs) // 4 << 24 | len(data)).to_bytes(4, "big") + bhs[8:] + ahs
    if header_digest:
        header += crc32c(header)
    if not len(data):
        return header
    segment = bytes(data).ljust(padded(len(data)), b"\0")
    return header + segment + (crc32c(segment) if data_digest else b"")
