"""SAM-5 status codes and SPC-5 sense data (clause 4.5)."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Status(enum.IntEnum):
    """SAM-5 5.3.1, table 33."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


class SenseKey(enum.IntEnum):
    """SPC-5 4.5.8, table 48."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


MAXIMUM_FIELD_POINTER = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPointer:
    """Which field is wrong (SPC-5 4.5.2.4.2)."""

    in_cdb: bool
    """True: byte counts from the start of the CDB; False: from the start of the parameter data."""
    byte: int
    bit: int | None = None
    """The most significant bit of the field; ``None`` when the whole byte is meant."""

    def sense_key_specific(self) -> bytes | None:
        """The three bytes of the sense-key specific field, SKSV set; ``None`` for a byte that FIELD POINTER cannot say."""
        if self.byte > MAXIMUM_FIELD_POINTER:
            return None
        first = 0x80 | (0x40 if self.in_cdb else 0) | (0 if self.bit is None else 0x08 | self.bit)
        return bytes((first,)) + self.byte.to_bytes(2, "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sense:
    """Sense data, whatever its format."""

    key: SenseKey
    asc: int = 0
    ascq: int = 0
    information: int | None = None
    """INFORMATION field (an LBA, an offset, ...); VALID is set if present."""
    command_specific: int | None = None
    sense_key_specific: bytes | None = None
    """Three bytes, SKSV included."""
    deferred: bool = False
    descriptors: bytes = b""
    """Further sense data descriptors, which the fixed format has no room for."""

    def pack(self, *, descriptor: bool = False) -> bytes:
        """Sense data in fixed (18 bytes) or descriptor format.

        :param descriptor: D_SENSE of the Control mode page, or DESC of REQUEST SENSE. An INFORMATION that does not fit
            the fixed format's 32 bits is left out there, VALID zero (SPC-5 4.5.3).
        """
        if descriptor:
            body = b""
            if self.information is not None:
                body += b"\x00\x0a\x80\x00" + self.information.to_bytes(8, "big")
            if self.command_specific is not None:
                body += b"\x01\x0a\x00\x00" + self.command_specific.to_bytes(8, "big")
            if self.sense_key_specific is not None:
                body += b"\x02\x06\x00\x00" + self.sense_key_specific + b"\x00"
            body += self.descriptors
            code = 0x73 if self.deferred else 0x72
            return bytes((code, self.key, self.asc, self.ascq, 0, 0, 0, len(body))) + body
        fixed = bytearray(18)
        fixed[0] = 0x71 if self.deferred else 0x70
        fixed[2] = self.key
        fixed[7] = 10
        if self.information is not None and self.information < 1 << 32:
            fixed[0] |= 0x80
            fixed[3:7] = self.information.to_bytes(4, "big")
        if self.command_specific is not None and self.command_specific < 1 << 32:
            fixed[8:12] = self.command_specific.to_bytes(4, "big")
        fixed[12], fixed[13] = self.asc, self.ascq
        if self.sense_key_specific is not None:
            fixed[15:18] = self.sense_key_specific
        return bytes(fixed)

    def __str__(self) -> str:
        return f"{self.key.name} {self.asc:02x}h/{self.ascq:02x}h"


def sense_codes(data: bytes) -> tuple[int, int, int]:
    """Sense key, ASC and ASCQ of sense data in either format; zeros for what is not there (SPC-5 4.5.2.1, 4.5.3)."""
    fixed = data[:1] and data[0] & 0x7E == 0x70
    key, asc = (2, 12) if fixed else (1, 2)
    codes = (data[asc], data[asc + 1]) if len(data) > asc + 1 else (0, 0)
    return (data[key] & 0x0F if len(data) > 2 else 0, *codes)
