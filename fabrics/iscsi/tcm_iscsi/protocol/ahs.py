"""Additional header segments (RFC 7143 clause 11.2.2): extended CDB, and read length of a bidirectional command."""

from __future__ import annotations

from typing import NamedTuple

from tcm_iscsi.protocol.pdu import AhsType, Buffer, padded

MAX_CDB_LENGTH = 260
"""SPC-5 4.2.3: a variable length CDB ends at 260 bytes."""


class AhsError(ValueError):
    """AHSs that are not what clause 11.2.2 describes: Reject with reason Invalid PDU field."""


class AdditionalHeaders(NamedTuple):
    """What the AHSs of a SCSI Command say."""

    extended_cdb: bytes = b""
    """Bytes of the CDB after the sixteenth, without padding."""
    bidirectional_read_length: int | None = None
    """Bidirectional Read Expected Data Transfer Length."""


def parse_ahs(data: Buffer) -> AdditionalHeaders:
    """The AHSs after the BHS of a SCSI Command.

    :param data: TotalAHSLength * 4 bytes.
    :raises AhsError: an AHS that runs over the end, an unknown type, one twice, a length its type cannot have.
    """
    raw = bytes(data)
    extended_cdb: bytes | None = None
    read_length: int | None = None
    at = 0
    while at < len(raw):
        if len(raw) - at < 4:
            raise AhsError("an AHS is cut off in its header")
        # AHSLength counts from AHS-Specific, the byte after AHSType, on (clause 11.2.2)
        length, kind = int.from_bytes(raw[at : at + 2], "big"), raw[at + 2]
        content = raw[at + 4 : at + 3 + length]
        end = at + padded(3 + length)
        if length < 1 or end > len(raw):
            raise AhsError("AHSLength runs over TotalAHSLength")
        if kind == AhsType.EXTENDED_CDB and extended_cdb is None:
            if not 0 < len(content) <= MAX_CDB_LENGTH - 16:
                raise AhsError(f"an extended CDB of {16 + len(content)} bytes")
            extended_cdb = content
        elif kind == AhsType.BIDIRECTIONAL_READ_EXPECTED_DATA_TRANSFER_LENGTH and read_length is None:
            if length != 5:
                raise AhsError("a bidirectional read length AHS whose AHSLength is not 5")
            read_length = int.from_bytes(content, "big")
        else:
            raise AhsError(f"AHS type {kind} is unknown or given twice")
        at = end
    return AdditionalHeaders(extended_cdb or b"", read_length)


def encode_ahs(headers: AdditionalHeaders) -> bytes:
    """The inverse of :func:`parse_ahs`, padded."""
    out = b""
    if headers.extended_cdb:
        length = 1 + len(headers.extended_cdb)
        segment = length.to_bytes(2, "big") + bytes((AhsType.EXTENDED_CDB, 0)) + headers.extended_cdb
        out += segment.ljust(padded(len(segment)), b"\0")
    if headers.bidirectional_read_length is not None:
        kind = AhsType.BIDIRECTIONAL_READ_EXPECTED_DATA_TRANSFER_LENGTH
        out += b"\0\x05" + bytes((kind, 0)) + headers.bidirectional_read_length.to_bytes(4, "big")
    return out
