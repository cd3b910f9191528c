"""Every basic header segment as a construct definition (RFC 7143 clause 11; RFC 7144 where named).

For tests, logs and tools: one definition per opcode, to read beside the standard's figures. The PDUs that carry I/O have
faster codecs in :mod:`tcm_iscsi.protocol.pdu`, and a test compares the two.
"""

from __future__ import annotations

from typing import Any

from construct import (  # type: ignore[import-untyped]  # it ships no types
    Bit,
    BitsInteger,
    BitStruct,
    Bytes,
    Const,
    Construct,
    Container,
    Flag,
    Int8ub,
    Int16ub,
    Int24ub,
    Int32ub,
    Padding,
    Struct,
)

from tcm_iscsi.protocol.pdu import BHS_LENGTH, OPCODE_MASK, Buffer, Opcode

_LENGTHS = ("total_ahs_length" / Int8ub, "data_segment_length" / Int24ub)
_LUN = "lun" / Bytes(8)
_ITT = "initiator_task_tag" / Int32ub
_TTT = "target_transfer_tag" / Int32ub
_COMMAND_NUMBERS = ("cmd_sn" / Int32ub, "exp_stat_sn" / Int32ub)
_STATUS_NUMBERS = ("stat_sn" / Int32ub, "exp_cmd_sn" / Int32ub, "max_cmd_sn" / Int32ub)
_ALWAYS_FINAL = "final" / Const(b"\x80")
_TEXT_FLAGS = BitStruct("final" / Flag, "continued" / Flag, Padding(6))
_LOGIN_FLAGS = BitStruct(
    "transit" / Flag,
    "continued" / Flag,
    Padding(2),
    "current_stage" / BitsInteger(2),
    "next_stage" / BitsInteger(2),
)


def _opcode(opcode: Opcode) -> Any:
    """Byte 0: the I bit is settable in requests."""
    return "basic" / BitStruct(Padding(1), "immediate" / Flag, "opcode" / Const(int(opcode), BitsInteger(6)))


_NOP = (Padding(2), *_LENGTHS, _LUN, _ITT, _TTT)

LAYOUTS: dict[Opcode, Construct[Any, Any]] = {
    Opcode.NOP_OUT: Struct(_opcode(Opcode.NOP_OUT), _ALWAYS_FINAL, *_NOP, *_COMMAND_NUMBERS, Padding(16)),
    Opcode.NOP_IN: Struct(_opcode(Opcode.NOP_IN), _ALWAYS_FINAL, *_NOP, *_STATUS_NUMBERS, Padding(12)),
    Opcode.SCSI_COMMAND: Struct(
        _opcode(Opcode.SCSI_COMMAND),
        "flags" / BitStruct("final" / Flag, "read" / Flag, "write" / Flag, Padding(2), "attribute" / BitsInteger(3)),
        "priority" / BitStruct("priority" / BitsInteger(4), Padding(4)),  # RFC 7144
        Padding(1),
        *_LENGTHS,
        _LUN,
        _ITT,
        "expected_data_transfer_length" / Int32ub,
        *_COMMAND_NUMBERS,
        "cdb" / Bytes(16),
    ),
    Opcode.SCSI_RESPONSE: Struct(
        _opcode(Opcode.SCSI_RESPONSE),
        "flags"
        / BitStruct(
            "final" / Const(1, Bit),
            Padding(2),
            "bidirectional_overflow" / Flag,
            "bidirectional_underflow" / Flag,
            "overflow" / Flag,
            "underflow" / Flag,
            Padding(1),
        ),
        "response" / Int8ub,
        "status" / Int8ub,
        *_LENGTHS,
        "status_qualifier" / Int16ub,  # RFC 7144
        Padding(6),
        _ITT,
        "snack_tag" / Int32ub,
        *_STATUS_NUMBERS,
        "exp_data_sn" / Int32ub,
        "bidirectional_read_residual_count" / Int32ub,
        "residual_count" / Int32ub,
    ),
    Opcode.TASK_MANAGEMENT_REQUEST: Struct(
        _opcode(Opcode.TASK_MANAGEMENT_REQUEST),
        "flags" / BitStruct("final" / Const(1, Bit), "function" / BitsInteger(7)),
        Padding(2),
        *_LENGTHS,
        _LUN,
        _ITT,
        "referenced_task_tag" / Int32ub,
        *_COMMAND_NUMBERS,
        "ref_cmd_sn" / Int32ub,
        "exp_data_sn" / Int32ub,
        Padding(8),
    ),
    Opcode.TASK_MANAGEMENT_RESPONSE: Struct(
        _opcode(Opcode.TASK_MANAGEMENT_RESPONSE),
        _ALWAYS_FINAL,
        "response" / Int8ub,
        Padding(1),
        *_LENGTHS,
        "additional_response_information" / Bytes(3),  # RFC 7144
        Padding(5),
        _ITT,
        Padding(4),
        *_STATUS_NUMBERS,
        Padding(12),
    ),
    Opcode.DATA_OUT: Struct(
        _opcode(Opcode.DATA_OUT),
        "flags" / BitStruct("final" / Flag, Padding(7)),
        Padding(2),
        *_LENGTHS,
        _LUN,
        _ITT,
        _TTT,
        Padding(4),
        "exp_stat_sn" / Int32ub,
        Padding(4),
        "data_sn" / Int32ub,
        "buffer_offset" / Int32ub,
        Padding(4),
    ),
    Opcode.DATA_IN: Struct(
        _opcode(Opcode.DATA_IN),
        "flags"
        / BitStruct(
            "final" / Flag,
            "acknowledge" / Flag,
            Padding(3),
            "overflow" / Flag,
            "underflow" / Flag,
            "status_present" / Flag,
        ),
        Padding(1),
        "status" / Int8ub,
        *_LENGTHS,
        _LUN,
        _ITT,
        _TTT,
        *_STATUS_NUMBERS,
        "data_sn" / Int32ub,
        "buffer_offset" / Int32ub,
        "residual_count" / Int32ub,
    ),
    Opcode.R2T: Struct(
        _opcode(Opcode.R2T),
        _ALWAYS_FINAL,
        Padding(2),
        *_LENGTHS,
        _LUN,
        _ITT,
        _TTT,
        *_STATUS_NUMBERS,
        "r2t_sn" / Int32ub,
        "buffer_offset" / Int32ub,
        "desired_data_transfer_length" / Int32ub,
    ),
    Opcode.ASYNC_MESSAGE: Struct(
        _opcode(Opcode.ASYNC_MESSAGE),
        _ALWAYS_FINAL,
        Padding(2),
        *_LENGTHS,
        _LUN,
        "reserved_tag" / Const(0xFFFFFFFF, Int32ub),
        Padding(4),
        *_STATUS_NUMBERS,
        "async_event" / Int8ub,
        "async_vcode" / Int8ub,
        "parameter1" / Int16ub,
        "parameter2" / Int16ub,
        "parameter3" / Int16ub,
        Padding(4),
    ),
    Opcode.TEXT_REQUEST: Struct(_opcode(Opcode.TEXT_REQUEST), "flags" / _TEXT_FLAGS, *_NOP, *_COMMAND_NUMBERS, Padding(16)),
    Opcode.TEXT_RESPONSE: Struct(_opcode(Opcode.TEXT_RESPONSE), "flags" / _TEXT_FLAGS, *_NOP, *_STATUS_NUMBERS, Padding(12)),
    Opcode.LOGIN_REQUEST: Struct(
        _opcode(Opcode.LOGIN_REQUEST),
        "flags" / _LOGIN_FLAGS,
        "version_max" / Int8ub,
        "version_min" / Int8ub,
        *_LENGTHS,
        "isid" / Bytes(6),
        "tsih" / Int16ub,
        _ITT,
        "cid" / Int16ub,
        Padding(2),
        *_COMMAND_NUMBERS,
        Padding(16),
    ),
    Opcode.LOGIN_RESPONSE: Struct(
        _opcode(Opcode.LOGIN_RESPONSE),
        "flags" / _LOGIN_FLAGS,
        "version_max" / Int8ub,
        "version_active" / Int8ub,
        *_LENGTHS,
        "isid" / Bytes(6),
        "tsih" / Int16ub,
        _ITT,
        Padding(4),
        *_STATUS_NUMBERS,
        "status" / Int16ub,
        Padding(10),
    ),
    Opcode.LOGOUT_REQUEST: Struct(
        _opcode(Opcode.LOGOUT_REQUEST),
        "flags" / BitStruct("final" / Const(1, Bit), "reason" / BitsInteger(7)),
        Padding(2),
        *_LENGTHS,
        Padding(8),
        _ITT,
        "cid" / Int16ub,
        Padding(2),
        *_COMMAND_NUMBERS,
        Padding(16),
    ),
    Opcode.LOGOUT_RESPONSE: Struct(
        _opcode(Opcode.LOGOUT_RESPONSE),
        _ALWAYS_FINAL,
        "response" / Int8ub,
        Padding(1),
        *_LENGTHS,
        Padding(8),
        _ITT,
        Padding(4),
        *_STATUS_NUMBERS,
        Padding(4),
        "time2wait" / Int16ub,
        "time2retain" / Int16ub,
        Padding(4),
    ),
    Opcode.SNACK_REQUEST: Struct(
        _opcode(Opcode.SNACK_REQUEST),
        "flags" / BitStruct("final" / Const(1, Bit), Padding(3), "type" / BitsInteger(4)),
        Padding(2),
        *_LENGTHS,
        _LUN,
        _ITT,
        _TTT,
        Padding(4),
        "exp_stat_sn" / Int32ub,
        Padding(8),
        "beg_run" / Int32ub,
        "run_length" / Int32ub,
    ),
    Opcode.REJECT: Struct(
        _opcode(Opcode.REJECT),
        _ALWAYS_FINAL,
        "reason" / Int8ub,
        Padding(1),
        *_LENGTHS,
        Padding(8),
        "reserved_tag" / Const(0xFFFFFFFF, Int32ub),
        Padding(4),
        *_STATUS_NUMBERS,
        "data_sn" / Int32ub,
        Padding(8),
    ),
}
"""Every one is 48 bytes long."""


def describe(bhs: Buffer) -> Container[Any]:
    """The fields of a header, by its opcode.

    Raises ValueError for an opcode that does not exist, :class:`construct.ConstructError` for a header that its layout forbids.
    """
    if len(bhs) < BHS_LENGTH:
        raise ValueError(f"a basic header segment has {BHS_LENGTH} bytes")
    fields: Container[Any] = LAYOUTS[Opcode(bhs[0] & OPCODE_MASK)].parse(bytes(bhs[:BHS_LENGTH]))
    return fields
