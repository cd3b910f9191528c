"""ROD tokens: 512 bytes that stand for data (SPC-5, ROD token format and Generic ROD tokens)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from tcm.scsi.designators import Association, CodeSet, Designator, DesignatorType, scsi_name_string
from tcm.scsi.layout import Layout, bits, number
from tcm.scsi.rod_token_sense import InvalidTokenLength, UnsupportedTokenType

if TYPE_CHECKING:
    from tcm.scsi.inquiry import ProtocolIdentifier

ROD_TOKEN_SIZE = 512
"""Bytes of a token, header included."""
MANAGEMENT_TOKEN_SIZE = 96
"""Bytes of a ROD management token: header and body."""
ROD_TOKEN_LENGTH = ROD_TOKEN_SIZE - 8
DEVICE_DATA_SIZE = 32
TARGET_DESCRIPTOR_SIZE = 128
EXTENDED_DATA_SIZE = 256
"""Bytes of EXTENDED ROD TOKEN DATA: what makes a token impossible to guess."""
_IDENTIFICATION_DESCRIPTOR = 0xE4
"""DESCRIPTOR TYPE CODE of an Identification Descriptor CSCD descriptor."""
_NAA_LOCALLY_ASSIGNED = 0x3


class RodType(enum.IntEnum):
    """ROD TYPE (SPC-5, ROD types; SBC-4 for the last)."""

    ACCESS_UPON_REFERENCE = 0x00010000
    POINT_IN_TIME_DEFAULT = 0x00800000
    POINT_IN_TIME_CHANGE_VULNERABLE = 0x00800001
    POINT_IN_TIME_PERSISTENT = 0x00800002
    POINT_IN_TIME_ANY = 0x0080FFFF
    BLOCK_DEVICE_ZERO = 0xFFFF0001


CREATED = {
    None: RodType.POINT_IN_TIME_CHANGE_VULNERABLE,
    RodType.POINT_IN_TIME_DEFAULT: RodType.POINT_IN_TIME_DEFAULT,
    RodType.POINT_IN_TIME_CHANGE_VULNERABLE: RodType.POINT_IN_TIME_CHANGE_VULNERABLE,
    RodType.POINT_IN_TIME_ANY: RodType.POINT_IN_TIME_CHANGE_VULNERABLE,
}
"""The ROD type that is made for each that may be asked for (``None``: RTV is zero)."""
TAKEN = frozenset(CREATED.values()) | {RodType.BLOCK_DEVICE_ZERO}
"""Types of the tokens that WRITE USING TOKEN takes."""

_TOKEN = Layout(
    ROD_TOKEN_SIZE - EXTENDED_DATA_SIZE,
    (
        number("rod_type", 0, 3),
        number("rod_token_length", 6, 7),
        number("copy_manager_rod_token_identifier", 8, 15),
        number("creator_logical_unit_descriptor", 16, 47),
        number("number_of_bytes_represented", 48, 63),
        number("device_type_specific_data", 96, 127),
        number("target_device_descriptor", 128, 255),
    ),
)
_CSCD = Layout(
    32,
    (
        number("descriptor_type_code", 0, 0),
        bits("lu_id_type", 1, 7, 6),
        bits("peripheral_device_type", 1, 4, 0),
        number("relative_initiator_port_identifier", 2, 3),
        number("designation_descriptor", 4, 27),
        number("disk_block_length", 29, 31),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFields:
    """What stands in a generic ROD token before its extended data."""

    rod_type: int
    identifier: int
    """COPY MANAGER ROD TOKEN IDENTIFIER: 64 bits, never the same twice."""
    creator: bytes
    """CREATOR LOGICAL UNIT DESCRIPTOR, of :func:`creator_descriptor`."""
    represented: int
    """NUMBER OF BYTES REPRESENTED."""
    device_data: bytes
    """Device type specific data: bytes 8 to 31 of the READ CAPACITY (16) data, or fewer."""
    target: bytes
    """TARGET DEVICE DESCRIPTOR, at most 128 bytes."""

    def pack(self, extended: bytes) -> bytes:
        """The token.

        :param extended: EXTENDED ROD TOKEN DATA, 256 bytes.
        """
        return self.unextended() + extended

    def unextended(self) -> bytes:
        """All but the extended data: 256 bytes."""
        return _TOKEN.pack(
            {
                "rod_type": self.rod_type,
                "rod_token_length": ROD_TOKEN_LENGTH,
                "copy_manager_rod_token_identifier": self.identifier,
                "creator_logical_unit_descriptor": int.from_bytes(self.creator),
                "number_of_bytes_represented": self.represented,
                "device_type_specific_data": int.from_bytes(self.device_data.ljust(DEVICE_DATA_SIZE, b"\0")),
                "target_device_descriptor": int.from_bytes(self.target.ljust(TARGET_DESCRIPTOR_SIZE, b"\0")),
            }
        )


def creator_descriptor(designator: Designator, block_size: int) -> bytes:
    """An Identification Descriptor CSCD descriptor of a disk (SPC-5), 32 bytes.

    :param designator: EUI-64 or NAA, at most 20 bytes.
    """
    return _CSCD.pack(
        {
            "descriptor_type_code": _IDENTIFICATION_DESCRIPTOR,
            "designation_descriptor": int.from_bytes(designator.pack().ljust(24, b"\0")),
            "disk_block_length": block_size,
        }
    )


def target_descriptor(name: str, protocol: ProtocolIdentifier | None = None) -> bytes:
    """TARGET DEVICE DESCRIPTOR: the SCSI target device's name; of one too long for the field, an NAA made of a hash of it."""
    try:
        packed = scsi_name_string(name, Association.TARGET_DEVICE, protocol).pack()
    except ValueError:
        packed = b""
    if 0 < len(packed) <= TARGET_DESCRIPTOR_SIZE:
        return packed
    locally_assigned = _NAA_LOCALLY_ASSIGNED << 60 | int.from_bytes(sha256(name.encode()).digest()[:8]) >> 4
    naa = Designator(CodeSet.BINARY, DesignatorType.NAA, Association.TARGET_DEVICE, locally_assigned.to_bytes(8), protocol)
    return naa.pack()


def check_header(token: bytes) -> int:
    """The ROD TYPE of a token that has been received.

    :raises InvalidTokenLength: ROD TOKEN LENGTH is not 01F8h.
    :raises UnsupportedTokenType: the type is none that is taken.
    """
    fields = _TOKEN.unpack(token)
    if fields["rod_token_length"] != ROD_TOKEN_LENGTH:
        raise InvalidTokenLength
    if fields["rod_type"] not in TAKEN:
        raise UnsupportedTokenType
    return fields["rod_type"]


def identifier_of(token: bytes) -> int:
    """COPY MANAGER ROD TOKEN IDENTIFIER."""
    return int.from_bytes(token[8:16])


def zero_token() -> bytes:
    """The block device zero ROD token (SBC-4)."""
    return RodType.BLOCK_DEVICE_ZERO.to_bytes(4) + bytes(2) + ROD_TOKEN_LENGTH.to_bytes(2) + bytes(ROD_TOKEN_LENGTH)
