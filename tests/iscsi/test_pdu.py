"""PDU layouts: the struct codecs against the construct definitions, and both against the standard's bytes."""

from __future__ import annotations

import pytest
from construct import ConstructError
from hypothesis import given, settings
from hypothesis import strategies as st
from tcm_iscsi.protocol import pdu
from tcm_iscsi.protocol.layouts import LAYOUTS, describe
from tcm_iscsi.protocol.pdu import LoginStatus, Opcode

CODECS = {
    Opcode.SCSI_COMMAND: (pdu.SCSI_COMMAND, pdu.ScsiCommandBhs),
    Opcode.SCSI_RESPONSE: (pdu.SCSI_RESPONSE, pdu.ScsiResponseBhs),
    Opcode.DATA_OUT: (pdu.DATA_OUT, pdu.DataOutBhs),
    Opcode.DATA_IN: (pdu.DATA_IN, pdu.DataInBhs),
    Opcode.R2T: (pdu.R2T, pdu.R2TBhs),
    Opcode.NOP_OUT: (pdu.NOP_OUT, pdu.NopOutBhs),
    Opcode.NOP_IN: (pdu.NOP_IN, pdu.NopInBhs),
    Opcode.TASK_MANAGEMENT_REQUEST: (pdu.TASK_MANAGEMENT_REQUEST, pdu.TaskManagementRequestBhs),
    Opcode.TASK_MANAGEMENT_RESPONSE: (pdu.TASK_MANAGEMENT_RESPONSE, pdu.TaskManagementResponseBhs),
    Opcode.LOGIN_REQUEST: (pdu.LOGIN_REQUEST, pdu.LoginRequestBhs),
    Opcode.LOGIN_RESPONSE: (pdu.LOGIN_RESPONSE, pdu.LoginResponseBhs),
    Opcode.TEXT_REQUEST: (pdu.TEXT_REQUEST, pdu.TextRequestBhs),
    Opcode.TEXT_RESPONSE: (pdu.TEXT_RESPONSE, pdu.TextResponseBhs),
}
ALWAYS_FINAL = {
    Opcode.NOP_OUT,
    Opcode.NOP_IN,
    Opcode.R2T,
    Opcode.TASK_MANAGEMENT_RESPONSE,
    Opcode.ASYNC_MESSAGE,
    Opcode.LOGOUT_RESPONSE,
    Opcode.REJECT,
}


def test_every_opcode_has_a_layout() -> None:
    """RFC 7143 11.2: each is 48 bytes."""
    assert set(LAYOUTS) == set(Opcode)
    assert {layout.sizeof() for layout in LAYOUTS.values()} == {48}
    assert {codec.size for codec, _ in CODECS.values()} == {48}


@pytest.mark.parametrize("opcode", CODECS)
@settings(max_examples=25)
@given(data=st.data())
def test_struct_and_construct_agree(opcode: Opcode, data: st.DataObject) -> None:
    """What one packs the other reads, field by field."""
    codec, fields = CODECS[opcode]
    raw = bytearray(data.draw(st.binary(min_size=48, max_size=48)))
    raw[0] = opcode | (raw[0] & pdu.IMMEDIATE)
    raw[1] = pdu.FINAL if opcode in ALWAYS_FINAL else raw[1] | pdu.FINAL
    values = fields._make(codec.unpack_from(b"xx" + raw, 2))._asdict()
    described = describe(raw)
    total_ahs_length, data_segment_length = values["lengths"] >> 24, values["lengths"] & 0xFFFFFF
    assert (described.total_ahs_length, described.data_segment_length) == (total_ahs_length, data_segment_length)
    assert described.basic.immediate == bool(values["opcode"] & pdu.IMMEDIATE)
    for name, value in values.items():
        if name in described and name not in ("flags", "opcode", "priority"):
            assert described[name] == value, name
    # and back: padding and reserved fields are zero in what is packed
    packed = codec.pack(*values.values())
    again = describe(packed)
    assert {k: v for k, v in again.items() if k != "_io"} == {k: v for k, v in described.items() if k != "_io"}
    assert fields._make(codec.unpack(packed))._asdict() == values


@pytest.mark.parametrize(
    ("opcode", "flags", "names"),
    [
        (Opcode.SCSI_COMMAND, pdu.FINAL, {"final"}),
        (Opcode.SCSI_COMMAND, pdu.COMMAND_READ, {"read"}),
        (Opcode.SCSI_COMMAND, pdu.COMMAND_WRITE, {"write"}),
        (Opcode.DATA_IN, pdu.FINAL, {"final"}),
        (Opcode.DATA_IN, pdu.ACKNOWLEDGE, {"acknowledge"}),
        (Opcode.DATA_IN, pdu.STATUS_PRESENT, {"status_present"}),
        (Opcode.DATA_IN, pdu.RESIDUAL_UNDERFLOW, {"underflow"}),
        (Opcode.DATA_IN, pdu.RESIDUAL_OVERFLOW, {"overflow"}),
        (Opcode.SCSI_RESPONSE, pdu.FINAL | pdu.RESIDUAL_UNDERFLOW, {"final", "underflow"}),
        (Opcode.SCSI_RESPONSE, pdu.FINAL | pdu.RESIDUAL_OVERFLOW, {"final", "overflow"}),
        (Opcode.SCSI_RESPONSE, pdu.FINAL | pdu.BIDI_RESIDUAL_UNDERFLOW, {"final", "bidirectional_underflow"}),
        (Opcode.SCSI_RESPONSE, pdu.FINAL | pdu.BIDI_RESIDUAL_OVERFLOW, {"final", "bidirectional_overflow"}),
        (Opcode.TEXT_REQUEST, pdu.FINAL, {"final"}),
        (Opcode.TEXT_REQUEST, pdu.CONTINUE, {"continued"}),
        (Opcode.LOGIN_REQUEST, pdu.TRANSIT, {"transit"}),
        (Opcode.LOGIN_REQUEST, pdu.CONTINUE, {"continued"}),
    ],
)
def test_flag_names(opcode: Opcode, flags: int, names: set[str]) -> None:
    """The named bits of byte 1 are the layouts' flags of those names."""
    described = describe(bytes((opcode, flags)) + bytes(46))
    assert {name for name, value in described.flags.items() if value and name != "_io"} == names


def test_login_stages_in_flags() -> None:
    """RFC 7143 11.12: CSG bits 3-2, NSG bits 1-0."""
    described = describe(bytes((0x43, 0x87)) + bytes(46))
    assert (described.flags.current_stage, described.flags.next_stage) == (1, 3)
    assert described.basic.immediate


@pytest.mark.parametrize(
    ("bhs", "field", "value"),
    [
        ("0180000000000000" + "00" * 40, "cdb", bytes(16)),
        ("0100900000000000" + "00" * 40, "priority", 9),
        ("2180000200000000" + "00" * 36 + "00000004", "residual_count", 4),
        ("2280070000000000" + "0a0b0c0000000000" + "00" * 32, "additional_response_information", b"\x0a\x0b\x0c"),
        ("2180000000000000" + "1234" + "00" * 38, "status_qualifier", 0x1234),
        ("0682" + "00" * 18 + "0007" + "00" * 26, "cid", 7),
        ("2680" + "00" * 38 + "00020014" + "00" * 4, "time2retain", 20),
        ("1081" + "00" * 38 + "0000000500000006", "run_length", 6),
        ("3f80040000000000" + "00" * 8 + "ffffffff" + "00" * 28, "reason", 4),
        ("3280" + "00" * 14 + "ffffffff" + "00" * 16 + "01000003" + "00" * 8, "async_event", 1),
        ("2387000000000000" + "00" * 28 + "0201" + "00" * 10, "status", 0x0201),
    ],
)
def test_layout_offsets(bhs: str, field: str, value: object) -> None:
    """Fields where RFC 7143 clause 11 and RFC 7144 draw them."""
    described = describe(bytes.fromhex(bhs))
    found = described[field]
    assert (found.priority if field == "priority" else found) == value


def test_describe_refuses() -> None:
    """Unknown opcodes, short headers, and constants that are not what they must be."""
    with pytest.raises(ValueError, match=r"0x1c|28"):
        describe(bytes((0x1C,)) + bytes(47))
    with pytest.raises(ValueError, match="48"):
        describe(bytes(47))
    with pytest.raises(ConstructError):
        describe(bytes((Opcode.REJECT, 0)) + bytes(46))


@settings(max_examples=60)
@given(st.binary(min_size=48, max_size=60))
def test_describe_any_bytes(bhs: bytes) -> None:
    """Invariant: fields, ValueError or ConstructError."""
    try:
        described = describe(bhs)
    except (ValueError, ConstructError):
        return
    assert described.basic.opcode == bhs[0] & pdu.OPCODE_MASK


def test_login_status_parts() -> None:
    """RFC 7143 11.13.5: class and detail."""
    assert (LoginStatus.AUTHENTICATION_FAILURE.status_class, LoginStatus.AUTHENTICATION_FAILURE.detail) == (2, 1)
    assert LoginStatus.INVALID_DURING_LOGIN == 0x020B
    assert {status.status_class for status in LoginStatus} == {0, 1, 2, 3}


@pytest.mark.parametrize("length", range(9))
def test_padding(length: int) -> None:
    """RFC 7143 11.1: segments end on four bytes."""
    assert length + len(pdu.PAD[length & 3]) == pdu.padded(length)
    assert pdu.padded(length) % 4 == 0
