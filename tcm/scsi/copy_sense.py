"""Sense data of a copy operation that ends with COPY ABORTED (SPC-4 5.17.7.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tcm.scsi.check_condition import CheckCondition
from tcm.scsi.sense import Sense, SenseKey

if TYPE_CHECKING:
    from tcm.scsi.sense import Status

_FIXED = 18
_FORWARDED = 0x0C
_MAXIMUM_FORWARDED = 200
"""Bytes; sense data are at most 252."""
_FSDT = 0x80


class Forwarded(NamedTuple):
    """What the source or the destination answered to the copy manager."""

    side: int
    """SENSE DATA SOURCE: 1 the copy source, 2 the copy destination."""
    status: Status
    sense: Sense | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySense(Sense):
    """COMMAND-SPECIFIC INFORMATION is made of the segment's number, and of where in fixed format the forwarded data are."""

    segment: int
    """Number of the segment descriptor that was being processed, the first is 0."""
    forwarded: Forwarded | None = None

    def pack(self, *, descriptor: bool = False) -> bytes:
        """See :meth:`Sense.pack`. Forwarded data are in the same format."""
        information = self.segment << 32 if descriptor else self.segment  # the third and fourth bytes of the field
        plain = Sense(
            key=self.key,
            asc=self.asc,
            ascq=self.ascq,
            information=self.information,
            command_specific=information,
            sense_key_specific=self.sense_key_specific,
        )
        packed = bytearray(plain.pack(descriptor=descriptor))
        if self.forwarded is not None:
            side, status, sense = self.forwarded
            data = sense.pack(descriptor=descriptor) if sense is not None else b""
            cut = data[:_MAXIMUM_FORWARDED]
            if descriptor:
                packed += bytes((_FORWARDED, 2 + len(cut), side | (_FSDT if len(cut) < len(data) else 0), status)) + cut
                packed[7] = len(packed) - 8
            else:
                packed[7 + side] = _FIXED
                packed += bytes((status,)) + cut
                packed[7] = len(packed) - 8
        return bytes(packed)


def segment_pointer(byte: int, bit: int | None = None, *, in_segment: bool) -> bytes:
    """Sense-key specific data (SPC-4 4.5.2.4.5).

    :param in_segment: ``byte`` counts from the start of the segment descriptor, otherwise from that of the parameter list.
    """
    return bytes((0x80 | in_segment << 5 | (0 if bit is None else 0x08 | bit),)) + byte.to_bytes(2)


class CopyAborted(CheckCondition):
    """COPY ABORTED, NO ADDITIONAL SENSE INFORMATION: an error in a segment descriptor."""

    key, asc, ascq = SenseKey.COPY_ABORTED, 0x00, 0x00

    def __init__(
        self,
        segment: int = 0,
        *,
        pointer: bytes | None = None,
        residual: int | None = None,
        forwarded: Forwarded | None = None,
    ) -> None:
        super().__init__(
            sense=CopySense(
                key=self.key,
                asc=self.asc,
                ascq=self.ascq,
                information=residual,
                sense_key_specific=pointer,
                segment=segment,
                forwarded=forwarded,
            )
        )


class UnreachableCopyTarget(CopyAborted):
    """COPY ABORTED, UNREACHABLE COPY TARGET: there is no such CSCD."""

    asc, ascq = 0x08, 0x04


class ThirdPartyDeviceFailure(CopyAborted):
    """COPY ABORTED, THIRD PARTY DEVICE FAILURE: the source or the destination would not."""

    asc, ascq = 0x0D, 0x01


class IncorrectCopyTargetDeviceType(CopyAborted):
    """COPY ABORTED, INCORRECT COPY TARGET DEVICE TYPE."""

    asc, ascq = 0x0D, 0x03


class CopyFieldInvalid(CopyAborted):
    """COPY ABORTED, INVALID FIELD IN PARAMETER LIST."""

    asc, ascq = 0x26, 0x00


class UnexpectedInexactSegment(CopyAborted):
    """COPY ABORTED, UNEXPECTED INEXACT SEGMENT: no whole number of blocks."""

    asc, ascq = 0x26, 0x0A
