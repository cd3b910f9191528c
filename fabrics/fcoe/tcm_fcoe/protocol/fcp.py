"""FCP-4 information units (FCP-4 clause 9) and the service parameter page of PRLI (6.3), for both ends; by ``struct``."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from struct import Struct

TYPE_FCP = 0x08
"""TYPE of the frames of FCP's information units, and of the PRLI page (FC-FS-3, FC-LS-2)."""


class InformationUnit(enum.IntEnum):
    """R_CTL of FCP's information units (FCP-4 9.1). SRR is an FC-4 link service, with R_CTLs of its own."""

    FCP_DATA = 0x01
    FCP_CONF = 0x03
    FCP_XFER_RDY = 0x05
    FCP_CMND = 0x06
    FCP_RSP = 0x07


class ServiceParameters(enum.IntFlag):
    """Word 3 of the FCP Service Parameter page (FCP-4 6.3.2)."""

    WRITE_FCP_XFER_RDY_DISABLED = 0x001
    READ_FCP_XFER_RDY_DISABLED = 0x002
    TARGET_FUNCTION = 0x010
    INITIATOR_FUNCTION = 0x020
    DATA_OVERLAY_ALLOWED = 0x040
    CONFIRMED_COMPLETION_ALLOWED = 0x080
    RETRY = 0x100
    TASK_RETRY_IDENTIFICATION_REQUESTED = 0x200
    REC_SUPPORT = 0x400
    ENHANCED_DISCOVERY = 0x800


class TaskAttribute(enum.IntEnum):
    """TASK ATTRIBUTE (FCP-4 9.2.2.5); UNTAGGED is obsolete."""

    SIMPLE = 0
    HEAD_OF_QUEUE = 1
    ORDERED = 2
    ACA = 4
    UNTAGGED = 5


class TaskManagementFlag(enum.IntFlag):
    """TASK MANAGEMENT FLAGS, byte 10 of FCP_CMND (FCP-4 9.2.2.6); TARGET RESET is obsolete, and still sent.

    Bit 7 was TERMINATE TASK. FreeBSD's and Emulex's targets have the same values; Linux knows neither QUERY.
    """

    QUERY_TASK_SET = 0x01
    ABORT_TASK_SET = 0x02
    CLEAR_TASK_SET = 0x04
    QUERY_ASYNCHRONOUS_EVENT = 0x08
    LOGICAL_UNIT_RESET = 0x10
    TARGET_RESET = 0x20
    CLEAR_ACA = 0x40


class ResponseCode(enum.IntEnum):
    """RSP_CODE (FCP-4 9.5.13)."""

    TASK_MANAGEMENT_FUNCTION_COMPLETE = 0x00
    DATA_LENGTH_DIFFERENT_THAN_BURST_LENGTH = 0x01
    FCP_CMND_FIELDS_INVALID = 0x02
    DATA_PARAMETER_MISMATCH = 0x03
    TASK_MANAGEMENT_FUNCTION_REJECTED = 0x04
    TASK_MANAGEMENT_FUNCTION_FAILED = 0x05
    TASK_MANAGEMENT_FUNCTION_SUCCEEDED = 0x08
    TASK_MANAGEMENT_FUNCTION_INCORRECT_LUN = 0x09


WRITE_DATA = 0x01
READ_DATA = 0x02
"""WRDATA and RDDATA, beside ADDITIONAL FCP_CDB LENGTH (9.2.2.7)."""
MAXIMUM_CDB = 260
"""Bytes of the longest variable-length CDB (SPC-5 4.3.3)."""
SHORT_CDB = 16
FCP_CMND_LENGTH = 32
"""Of one with a CDB of 16 bytes or fewer."""
CDB_AT, CDB_END = 12, 28
"""Where that has it."""

RSP_LEN_VALID = 0x01
SNS_LEN_VALID = 0x02
RESID_OVER = 0x04
RESID_UNDER = 0x08
CONF_REQ = 0x10
"""Flags of FCP_RSP (9.5.3 to 9.5.8)."""

_CMND = Struct(">8sBBBB")
_DL = Struct(">I")
_XFER_RDY = Struct(">II4x")
_RSP = Struct(">8xHBBIII")
_RSP_INFO = Struct(">3sB4x")

# FCP_CMND of 32 bytes with a READ or WRITE (10) or (16): LUN, CRN left out, attribute, task management flags, direction,
# operation code, byte 1, LBA, ..., FCP_DL
COMMAND_10 = Struct(">8sxBBBBBIBHB6xI").unpack_from
COMMAND_16 = Struct(">8sxBBBBBQIBBI").unpack_from
# the same for the express lane: LUN, CRN to direction, operation code and byte 1, LBA, ..., FCP_DL
EXPRESS_10 = Struct(">8sIHIBHB6xI").unpack_from
EXPRESS_16 = Struct(">8sIHQIHI").unpack_from
TRANSFER_READY_LENGTH = _XFER_RDY.size
unpack_ready = _XFER_RDY.unpack
"""Of a payload that has that length."""
pack_transfer_ready = _XFER_RDY.pack
"""FCP_XFER_RDY of a relative offset and a burst length."""
GOOD_RESPONSE = bytes(_RSP.size)
"""FCP_RSP of GOOD without a residual, sense data or FCP_CONF_REQ."""
GOOD_RESPONSE_CONF = _RSP.pack(0, CONF_REQ, 0, 0, 0, 0)


class FcpError(Exception):
    """An information unit that cannot be: its text is for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """FCP_CMND (FCP-4 9.2)."""

    lun: bytes
    """8 bytes."""
    cdb: bytes
    """16 bytes, or 20 to 260 in steps of four: as long as the field."""
    attribute: int = TaskAttribute.SIMPLE
    priority: int = 0
    management: int = 0
    """:class:`TaskManagementFlag`; if any is set there is no command."""
    reference_number: int = 0
    """CRN; 0: none."""
    read_data: bool = False
    write_data: bool = False
    data_length: int = 0
    """FCP_DL, bytes."""
    bidirectional_read_length: int = 0
    """FCP_BIDIRECTIONAL_READ_DL, bytes, if both directions are asked for."""

    @classmethod
    def unpack(cls, payload: bytes | memoryview) -> Command:
        """Raises :class:`FcpError` for a payload shorter than it says. What follows it is let pass."""
        if len(payload) < FCP_CMND_LENGTH:
            raise FcpError(f"FCP_CMND of {len(payload)} bytes")
        lun, reference_number, attribute, management, direction = _CMND.unpack_from(payload)
        # with a task management flag the field is reserved (9.2.2.7)
        end = 28 if management else 28 + (direction & 0xFC)
        both = direction & (READ_DATA | WRITE_DATA) == READ_DATA | WRITE_DATA
        if len(payload) < end + (8 if both and not management else 4):
            raise FcpError(f"FCP_CMND of {len(payload)} bytes with an ADDITIONAL FCP_CDB LENGTH of {end - 28}")
        return cls(
            lun=lun,
            cdb=bytes(payload[12:end]),
            attribute=attribute & 0x07,
            priority=attribute >> 3 & 0x0F,
            management=management,
            reference_number=reference_number,
            read_data=bool(direction & READ_DATA),
            write_data=bool(direction & WRITE_DATA),
            data_length=_DL.unpack_from(payload, end)[0],
            bidirectional_read_length=_DL.unpack_from(payload, end + 4)[0] if both and not management else 0,
        )

    def pack(self) -> bytes:
        """The payload. Raises ``ValueError`` for a CDB of more than 260 bytes."""
        if len(self.cdb) > MAXIMUM_CDB:
            raise ValueError(f"a CDB of {len(self.cdb)} bytes")
        cdb = self.cdb.ljust(max(SHORT_CDB, len(self.cdb) + 3 & ~3), b"\0")
        direction = len(cdb) - SHORT_CDB & 0xFC | (READ_DATA if self.read_data else 0) | (WRITE_DATA if self.write_data else 0)
        header = _CMND.pack(self.lun, self.reference_number, self.priority << 3 | self.attribute, self.management, direction)
        both = self.read_data and self.write_data
        return header + cdb + _DL.pack(self.data_length) + (_DL.pack(self.bidirectional_read_length) if both else b"")


def unpack_transfer_ready(payload: bytes | memoryview) -> tuple[int, int]:
    """Relative offset and burst length of FCP_XFER_RDY, without an object. Raises :class:`FcpError`."""
    if len(payload) < _XFER_RDY.size:
        raise FcpError(f"FCP_XFER_RDY of {len(payload)} bytes")
    offset, length = _XFER_RDY.unpack_from(payload)
    return offset, length


@dataclass(frozen=True, slots=True)
class TransferReady:
    """FCP_XFER_RDY (FCP-4 9.3)."""

    data_offset: int
    """FCP_DATA_RO: relative offset of the first byte asked for."""
    burst_length: int
    """FCP_BURST_LEN, bytes."""

    @classmethod
    def unpack(cls, payload: bytes | memoryview) -> TransferReady:
        """Raises :class:`FcpError`."""
        return cls(*unpack_transfer_ready(payload))

    def pack(self) -> bytes:
        """The payload, 12 bytes."""
        return _XFER_RDY.pack(self.data_offset, self.burst_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """FCP_RSP (FCP-4 9.5)."""

    status: int = 0
    """SCSI STATUS CODE."""
    status_qualifier: int = 0
    residual: int = 0
    """FCP_RESID, bytes; which way, ``overflow`` says."""
    overflow: bool = False
    confirm: bool = False
    """FCP_CONF_REQ."""
    sense: bytes = b""
    code: int | None = None
    """RSP_CODE; ``None``: there is no FCP_RSP_INFO."""
    additional: bytes = bytes(3)
    """ADDITIONAL RESPONSE INFORMATION of a task management function."""

    @classmethod
    def unpack(cls, payload: bytes | memoryview) -> Response:
        """Raises :class:`FcpError` for a payload shorter than it says."""
        if len(payload) < _RSP.size:
            raise FcpError(f"FCP_RSP of {len(payload)} bytes")
        qualifier, flags, status, residual, sense_length, info_length = _RSP.unpack_from(payload)
        info_length = info_length if flags & RSP_LEN_VALID else 0
        sense_length = sense_length if flags & SNS_LEN_VALID else 0
        sense_at = _RSP.size + info_length
        if len(payload) < sense_at + sense_length or info_length not in {0, 4, 8}:
            raise FcpError(f"FCP_RSP of {len(payload)} bytes, {info_length} of FCP_RSP_INFO and {sense_length} of sense data")
        return cls(
            status=status,
            status_qualifier=qualifier,
            residual=residual if flags & (RESID_OVER | RESID_UNDER) else 0,
            overflow=bool(flags & RESID_OVER),
            confirm=bool(flags & CONF_REQ),
            sense=bytes(payload[sense_at : sense_at + sense_length]),
            code=payload[_RSP.size + 3] if info_length else None,
            additional=bytes(payload[_RSP.size : _RSP.size + 3]) if info_length else bytes(3),
        )

    def pack(self) -> bytes:
        """The payload."""
        info = b"" if self.code is None else _RSP_INFO.pack(self.additional, self.code)
        flags = (RSP_LEN_VALID if info else 0) | (SNS_LEN_VALID if self.sense else 0) | (CONF_REQ if self.confirm else 0)
        if self.residual:
            flags |= RESID_OVER if self.overflow else RESID_UNDER
        return (
            _RSP.pack(self.status_qualifier, flags, self.status, self.residual, len(self.sense), len(info)) + info + self.sense
        )
