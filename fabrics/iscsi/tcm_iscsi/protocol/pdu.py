"""PDU formats (RFC 7143 clause 11, RFC 7144): numbers, flags, and the ``struct`` codecs of the PDUs that carry I/O.

Every basic header segment (BHS) is 48 bytes. The `struct` objects here take a buffer and an offset
(``SCSI_COMMAND.unpack_from(buffer, offset)``) and name their fields in the NamedTuple that follows each of them; what they and
:mod:`tcm_iscsi.protocol.layouts` (construct, all PDUs) say is compared by a test. ``lengths`` fields hold TotalAHSLength in the
top byte (in four-byte words) and DataSegmentLength (in bytes, without padding) in the other three.
"""

from __future__ import annotations

import enum
from struct import Struct
from typing import NamedTuple

Buffer = bytes | bytearray | memoryview

BHS_LENGTH = 48
DIGEST_LENGTH = 4
RESERVED_TAG = 0xFFFFFFFF
"""Initiator Task Tag or Target Transfer Tag that names no task (clause 11.2.1.8)."""
MAX_DATA_SEGMENT_LENGTH = 0xFFFFFF
IMMEDIATE = 0x40
"""I bit of byte 0 of a request (clause 11.2.1.1)."""
OPCODE_MASK = 0x3F
LUN_NONE = bytes(8)


class Opcode(enum.IntEnum):
    """Byte 0 without the I bit (clause 11.2.1.2)."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_MANAGEMENT_REQUEST = 0x02
    LOGIN_REQUEST = 0x03
    TEXT_REQUEST = 0x04
    DATA_OUT = 0x05
    LOGOUT_REQUEST = 0x06
    SNACK_REQUEST = 0x10
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_MANAGEMENT_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    R2T = 0x31
    ASYNC_MESSAGE = 0x32
    REJECT = 0x3F


# Flags of byte 1. FINAL is also the bit that is always one in PDUs that have no flags.
FINAL = 0x80
COMMAND_READ = 0x40
COMMAND_WRITE = 0x20
CONTINUE = 0x40
"""C bit of login and text PDUs."""
TRANSIT = 0x80
"""T bit of login PDUs."""
ACKNOWLEDGE = 0x40
"""A bit of Data-In (clause 11.7.2)."""
STATUS_PRESENT = 0x01
"""S bit of Data-In."""
RESIDUAL_UNDERFLOW = 0x02
"""U bit of SCSI Response and Data-In (clause 11.4.1)."""
RESIDUAL_OVERFLOW = 0x04
BIDI_RESIDUAL_UNDERFLOW = 0x08
BIDI_RESIDUAL_OVERFLOW = 0x10


class TaskManagementFunctionCode(enum.IntEnum):
    """Clause 11.5.1; 9 to 12 are of RFC 7144 and need iSCSIProtocolLevel 2."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    LOGICAL_UNIT_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    TASK_REASSIGN = 8
    QUERY_TASK = 9
    QUERY_TASK_SET = 10
    I_T_NEXUS_RESET = 11
    QUERY_ASYNCHRONOUS_EVENT = 12


class TaskManagementResponseCode(enum.IntEnum):
    """Clause 11.6.1; 7: RFC 7144."""

    FUNCTION_COMPLETE = 0
    TASK_DOES_NOT_EXIST = 1
    LUN_DOES_NOT_EXIST = 2
    TASK_STILL_ALLEGIANT = 3
    TASK_ALLEGIANCE_REASSIGNMENT_NOT_SUPPORTED = 4
    FUNCTION_NOT_SUPPORTED = 5
    FUNCTION_AUTHORIZATION_FAILED = 6
    FUNCTION_SUCCEEDED = 7
    FUNCTION_REJECTED = 255


class AsyncEvent(enum.IntEnum):
    """Clause 11.9.1."""

    SCSI_EVENT = 0
    LOGOUT_REQUESTED = 1
    CONNECTION_DROPPED = 2
    SESSION_DROPPED = 3
    NEGOTIATION_REQUESTED = 4
    TASK_TERMINATION = 5
    VENDOR_SPECIFIC = 255


class LogoutReason(enum.IntEnum):
    """Clause 11.14.1."""

    CLOSE_SESSION = 0
    CLOSE_CONNECTION = 1
    REMOVE_CONNECTION_FOR_RECOVERY = 2


class LogoutResponse(enum.IntEnum):
    """Clause 11.15.1."""

    CLOSED = 0
    CID_NOT_FOUND = 1
    RECOVERY_NOT_SUPPORTED = 2
    CLEANUP_FAILED = 3


class SnackType(enum.IntEnum):
    """Clause 11.16.1."""

    DATA_OR_R2T = 0
    STATUS = 1
    DATA_ACK = 2
    R_DATA = 3


class RejectReason(enum.IntEnum):
    """Clause 11.17.1."""

    DATA_DIGEST_ERROR = 0x02
    SNACK_REJECT = 0x03
    PROTOCOL_ERROR = 0x04
    COMMAND_NOT_SUPPORTED = 0x05
    IMMEDIATE_COMMAND_REJECT = 0x06
    TASK_IN_PROGRESS = 0x07
    INVALID_DATA_ACK = 0x08
    INVALID_PDU_FIELD = 0x09
    LONG_OPERATION_REJECT = 0x0A
    NEGOTIATION_RESET = 0x0B
    WAITING_FOR_LOGOUT = 0x0C


class LoginStage(enum.IntEnum):
    """CSG and NSG (clause 11.12.3); 2 is reserved."""

    SECURITY_NEGOTIATION = 0
    LOGIN_OPERATIONAL_NEGOTIATION = 1
    FULL_FEATURE_PHASE = 3


class LoginStatus(enum.IntEnum):
    """Status-Class in the high byte, Status-Detail in the low one (clause 11.13.5)."""

    SUCCESS = 0x0000
    TARGET_MOVED_TEMPORARILY = 0x0101
    TARGET_MOVED_PERMANENTLY = 0x0102
    INITIATOR_ERROR = 0x0200
    AUTHENTICATION_FAILURE = 0x0201
    AUTHORIZATION_FAILURE = 0x0202
    NOT_FOUND = 0x0203
    TARGET_REMOVED = 0x0204
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    CANNOT_INCLUDE_IN_SESSION = 0x0208
    SESSION_TYPE_NOT_SUPPORTED = 0x0209
    SESSION_DOES_NOT_EXIST = 0x020A
    INVALID_DURING_LOGIN = 0x020B
    TARGET_ERROR = 0x0300
    SERVICE_UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302

    @property
    def status_class(self) -> int:
        """0 success, 1 redirection, 2 initiator error, 3 target error."""
        return self >> 8

    @property
    def detail(self) -> int:
        """Status-Detail."""
        return self & 0xFF


class AhsType(enum.IntEnum):
    """Additional header segments (clause 11.2.2.1)."""

    EXTENDED_CDB = 1
    BIDIRECTIONAL_READ_EXPECTED_DATA_TRANSFER_LENGTH = 2


SCSI_COMMAND = Struct(">BBBxI8sIIII16s")


class ScsiCommandBhs(NamedTuple):
    """Fields of :data:`SCSI_COMMAND` (clause 11.3; PRI in the top four bits of ``priority``)."""

    opcode: int
    flags: int
    priority: int
    lengths: int
    lun: bytes
    initiator_task_tag: int
    expected_data_transfer_length: int
    cmd_sn: int
    exp_stat_sn: int
    cdb: bytes


SCSI_RESPONSE = Struct(">BBBBIH6xIIIIIIII")


class ScsiResponseBhs(NamedTuple):
    """Fields of :data:`SCSI_RESPONSE` (clause 11.4; status qualifier: RFC 7144)."""

    opcode: int
    flags: int
    response: int
    status: int
    lengths: int
    status_qualifier: int
    initiator_task_tag: int
    snack_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    exp_data_sn: int
    bidirectional_read_residual_count: int
    residual_count: int


DATA_OUT = Struct(">BB2xI8sII4xI4xII4x")


class DataOutBhs(NamedTuple):
    """Fields of :data:`DATA_OUT` (clause 11.7)."""

    opcode: int
    flags: int
    lengths: int
    lun: bytes
    initiator_task_tag: int
    target_transfer_tag: int
    exp_stat_sn: int
    data_sn: int
    buffer_offset: int


DATA_IN = Struct(">BBxBI8sIIIIIIII")


class DataInBhs(NamedTuple):
    """Fields of :data:`DATA_IN` (clause 11.7)."""

    opcode: int
    flags: int
    status: int
    lengths: int
    lun: bytes
    initiator_task_tag: int
    target_transfer_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    data_sn: int
    buffer_offset: int
    residual_count: int


R2T = Struct(">BB2xI8sIIIIIIII")


class R2TBhs(NamedTuple):
    """Fields of :data:`R2T` (clause 11.8)."""

    opcode: int
    flags: int
    lengths: int
    lun: bytes
    initiator_task_tag: int
    target_transfer_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    r2t_sn: int
    buffer_offset: int
    desired_data_transfer_length: int


NOP_OUT = Struct(">BB2xI8sIIII16x")


class NopOutBhs(NamedTuple):
    """Fields of :data:`NOP_OUT` (clause 11.18)."""

    opcode: int
    flags: int
    lengths: int
    lun: bytes
    initiator_task_tag: int
    target_transfer_tag: int
    cmd_sn: int
    exp_stat_sn: int


NOP_IN = Struct(">BB2xI8sIIIII12x")


class NopInBhs(NamedTuple):
    """Fields of :data:`NOP_IN` (clause 11.19)."""

    opcode: int
    flags: int
    lengths: int
    lun: bytes
    initiator_task_tag: int
    target_transfer_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int


TASK_MANAGEMENT_REQUEST = Struct(">BB2xI8sIIIIII8x")


class TaskManagementRequestBhs(NamedTuple):
    """Fields of :data:`TASK_MANAGEMENT_REQUEST` (clause 11.5). The function is ``flags & 0x7F``."""

    opcode: int
    flags: int
    lengths: int
    lun: bytes
    initiator_task_tag: int
    referenced_task_tag: int
    cmd_sn: int
    exp_stat_sn: int
    ref_cmd_sn: int
    exp_data_sn: int


TASK_MANAGEMENT_RESPONSE = Struct(">BBBxI3s5xI4xIII12x")


class TaskManagementResponseBhs(NamedTuple):
    """Fields of :data:`TASK_MANAGEMENT_RESPONSE` (clause 11.6; additional response information: RFC 7144)."""

    opcode: int
    flags: int
    response: int
    lengths: int
    additional_response_information: bytes
    initiator_task_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int


LOGIN_REQUEST = Struct(">BBBBI6sHIH2xII16x")


class LoginRequestBhs(NamedTuple):
    """Fields of :data:`LOGIN_REQUEST` (clause 11.12)."""

    opcode: int
    flags: int
    version_max: int
    version_min: int
    lengths: int
    isid: bytes
    tsih: int
    initiator_task_tag: int
    cid: int
    cmd_sn: int
    exp_stat_sn: int


LOGIN_RESPONSE = Struct(">BBBBI6sHI4xIIIH10x")


class LoginResponseBhs(NamedTuple):
    """Fields of :data:`LOGIN_RESPONSE` (clause 11.13); ``status`` is a :class:`LoginStatus`."""

    opcode: int
    flags: int
    version_max: int
    version_active: int
    lengths: int
    isid: bytes
    tsih: int
    initiator_task_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    status: int


TEXT_REQUEST = NOP_OUT
"""Clause 11.10: the same layout as NOP-Out; F and C are in ``flags``."""
TextRequestBhs = NopOutBhs
TEXT_RESPONSE = NOP_IN
"""Clause 11.11: the same layout as NOP-In; F and C are in ``flags``."""
TextResponseBhs = NopInBhs

PAD = (b"", b"\0\0\0", b"\0\0", b"\0")
"""``PAD[length & 3]``: what fills a segment up to a multiple of four bytes (clause 11.1)."""


def padded(length: int) -> int:
    """``length`` rounded up to a multiple of four."""
    return (length + 3) & ~3
