"""Command descriptor blocks, built as an initiator builds them (SPC-5, SBC-4). Pure functions; nothing is checked.

Commands that differ only in the length of their CDB are one function whose first argument is that length in bytes.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS = {6: (1, 4, 4, 5), 10: (2, 6, 7, 9), 12: (2, 6, 6, 10), 16: (2, 10, 10, 14)}
"""CDB length to where the LBA and the TRANSFER LENGTH start and end."""
_GROUP_NUMBER = {10: 6, 12: 10, 16: 14}
_BLOCK_COMMAND_16 = Struct(">BBQIxx").pack
FUA = 0x08


def block_command_32(
    action: int,
    lba: int,
    blocks: int,
    flags: int = 0,
    group: int = 0,
    *,
    reference: int = 0,
    application: int = 0,
    mask: int = 0,
) -> bytes:
    """The 32-byte form (SBC-4 5.19): a service action of 7Fh, flags in byte 10, and what the tags are expected to be.

    :param reference: EXPECTED INITIAL LOGICAL BLOCK REFERENCE TAG.
    :param application: EXPECTED LOGICAL BLOCK APPLICATION TAG.
    :param mask: LOGICAL BLOCK APPLICATION TAG MASK.
    """
    head = bytes((0x7F, 0, 0, 0, 0, 0, group, 0x18)) + action.to_bytes(2, "big") + bytes((flags, 0)) + lba.to_bytes(8, "big")
    return (
        head
        + reference.to_bytes(4, "big")
        + application.to_bytes(2, "big")
        + mask.to_bytes(2, "big")
        + blocks.to_bytes(4, "big")
    )


def block_command(
    length: int, opcode: int, lba: int, blocks: int, flags: int = 0, group: int = 0, tags: Mapping[str, int] | None = None
) -> bytes:
    """The layout that nearly all block commands share (SBC-4 5.2 ff.): flags in byte 1, LBA, length, group number.

    :param opcode: with 32 bytes the service action.
    :param tags: what :func:`block_command_32` alone has.
    """
    if length == 32:
        return block_command_32(opcode, lba, blocks, flags, group, **(tags or {}))
    cdb = bytearray(length)
    cdb[0] = opcode
    lba_start, lba_end, blocks_start, blocks_end = _FIELDS[length]
    cdb[lba_start:lba_end] = lba.to_bytes(lba_end - lba_start, "big")
    cdb[blocks_start:blocks_end] = blocks.to_bytes(blocks_end - blocks_start, "big")
    if length != 6:
        cdb[1] = flags
        cdb[_GROUP_NUMBER[length]] = group
    return bytes(cdb)


def _access_flags(protect: int, dpo: bool, fua: bool) -> int:
    return protect << 5 | dpo << 4 | fua << 3


# Block commands


def read(
    length: int, lba: int, blocks: int, *, protect: int = 0, dpo: bool = False, fua: bool = False, group: int = 0, **tags: int
) -> bytes:
    """READ (6), (10), (12), (16), (32)."""
    opcode = {6: 0x08, 10: 0x28, 12: 0xA8, 16: 0x88, 32: 0x0009}[length]
    return block_command(length, opcode, lba, blocks, _access_flags(protect, dpo, fua), group, tags)


def write(
    length: int, lba: int, blocks: int, *, protect: int = 0, dpo: bool = False, fua: bool = False, group: int = 0, **tags: int
) -> bytes:
    """WRITE (6), (10), (12), (16), (32)."""
    opcode = {6: 0x0A, 10: 0x2A, 12: 0xAA, 16: 0x8A, 32: 0x000B}[length]
    return block_command(length, opcode, lba, blocks, _access_flags(protect, dpo, fua), group, tags)


def read_16(lba: int, blocks: int, *, fua: bool = False) -> bytes:
    """READ (16), for those who send very many of them."""
    return _BLOCK_COMMAND_16(0x88, FUA if fua else 0, lba, blocks)


def write_16(lba: int, blocks: int, *, fua: bool = False) -> bytes:
    """WRITE (16), for those who send very many of them."""
    return _BLOCK_COMMAND_16(0x8A, FUA if fua else 0, lba, blocks)


def write_and_verify(
    length: int, lba: int, blocks: int, *, protect: int = 0, dpo: bool = False, bytchk: int = 0, **tags: int
) -> bytes:
    """WRITE AND VERIFY (10), (12), (16), (32)."""
    opcode = {10: 0x2E, 12: 0xAE, 16: 0x8E, 32: 0x000C}[length]
    return block_command(length, opcode, lba, blocks, protect << 5 | dpo << 4 | bytchk << 1, 0, tags)


def verify(length: int, lba: int, blocks: int, *, protect: int = 0, dpo: bool = False, bytchk: int = 0, **tags: int) -> bytes:
    """VERIFY (10), (12), (16), (32)."""
    opcode = {10: 0x2F, 12: 0xAF, 16: 0x8F, 32: 0x000A}[length]
    return block_command(length, opcode, lba, blocks, protect << 5 | dpo << 4 | bytchk << 1, 0, tags)


def write_same(
    length: int,
    lba: int,
    blocks: int,
    *,
    protect: int = 0,
    anchor: bool = False,
    unmap: bool = False,
    ndob: bool = False,
    **tags: int,
) -> bytes:
    """WRITE SAME (10), (16), (32)."""
    opcode = {10: 0x41, 16: 0x93, 32: 0x000D}[length]
    return block_command(length, opcode, lba, blocks, protect << 5 | anchor << 4 | unmap << 3 | ndob, 0, tags)


def synchronize_cache(length: int, lba: int = 0, blocks: int = 0, *, immed: bool = False) -> bytes:
    """SYNCHRONIZE CACHE (10), (16)."""
    return block_command(length, {10: 0x35, 16: 0x91}[length], lba, blocks, immed << 1)


def pre_fetch(length: int, lba: int, blocks: int, *, immed: bool = False) -> bytes:
    """PRE-FETCH (10), (16)."""
    return block_command(length, {10: 0x34, 16: 0x90}[length], lba, blocks, immed << 1)


def orwrite(lba: int, blocks: int, *, protect: int = 0, dpo: bool = False, fua: bool = False) -> bytes:
    """ORWRITE (16)."""
    return block_command(16, 0x8B, lba, blocks, _access_flags(protect, dpo, fua))


def compare_and_write(lba: int, blocks: int, *, protect: int = 0, dpo: bool = False, fua: bool = False) -> bytes:
    """COMPARE AND WRITE: its NUMBER OF LOGICAL BLOCKS is one byte."""
    cdb = bytearray(block_command(16, 0x89, lba, 0, _access_flags(protect, dpo, fua)))
    cdb[13] = blocks
    return bytes(cdb)


def write_atomic_32(lba: int, blocks: int, *, protect: int = 0, dpo: bool = False, fua: bool = False, **tags: int) -> bytes:
    """WRITE ATOMIC (32) without ATOMIC BOUNDARY."""
    return block_command_32(0x000F, lba, blocks, _access_flags(protect, dpo, fua), **tags)


def write_atomic(lba: int, blocks: int, *, boundary: int = 0, protect: int = 0, dpo: bool = False, fua: bool = False) -> bytes:
    """WRITE ATOMIC (16): ATOMIC BOUNDARY and TRANSFER LENGTH have two bytes each."""
    cdb = bytearray(block_command(16, 0x9C, lba, 0, _access_flags(protect, dpo, fua)))
    cdb[10:12] = boundary.to_bytes(2, "big")
    cdb[12:14] = blocks.to_bytes(2, "big")
    return bytes(cdb)


def unmap(parameter_list_length: int, *, anchor: bool = False, group: int = 0) -> bytes:
    """UNMAP; see :func:`unmap_parameters`."""
    return bytes((0x42, anchor, 0, 0, 0, 0, group)) + parameter_list_length.to_bytes(2, "big") + b"\0"


def unmap_parameters(*ranges: tuple[int, int]) -> bytes:
    """UNMAP's parameter list for ranges of (LBA, number of logical blocks)."""
    descriptors = b"".join(lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(4) for lba, blocks in ranges)
    return (len(descriptors) + 6).to_bytes(2, "big") + len(descriptors).to_bytes(2, "big") + bytes(4) + descriptors


def get_lba_status(lba: int, allocation_length: int = 4096, *, report_type: int = 0) -> bytes:
    """GET LBA STATUS (16)."""
    cdb = bytes((0x9E, 0x12)) + lba.to_bytes(8, "big") + allocation_length.to_bytes(4, "big")
    return cdb + bytes((report_type, 0))


def get_lba_status_32(
    lba: int, allocation_length: int = 4096, *, scan_length: int = 0, element: int = 0, report_type: int = 0
) -> bytes:
    """GET LBA STATUS (32)."""
    head = bytes((0x7F, 0, 0, 0, 0, 0, 0, 0x18, 0x00, 0x12, report_type, 0)) + lba.to_bytes(8, "big")
    return head + scan_length.to_bytes(4, "big") + element.to_bytes(4, "big") + allocation_length.to_bytes(4, "big")


def read_capacity10(lba: int = 0, *, pmi: bool = False) -> bytes:
    """READ CAPACITY (10)."""
    return bytes((0x25, 0)) + lba.to_bytes(4, "big") + bytes((0, 0, pmi, 0))


def read_capacity16(allocation_length: int = 32, lba: int = 0) -> bytes:
    """READ CAPACITY (16)."""
    return bytes((0x9E, 0x10)) + lba.to_bytes(8, "big") + allocation_length.to_bytes(4, "big") + bytes(2)


def read_defect_data10(allocation_length: int = 4, *, plist: bool = False, glist: bool = False, list_format: int = 0) -> bytes:
    """READ DEFECT DATA (10)."""
    return bytes((0x37, 0, plist << 4 | glist << 3 | list_format, 0, 0, 0, 0)) + allocation_length.to_bytes(2, "big") + b"\0"


def read_defect_data12(
    allocation_length: int = 8,
    *,
    plist: bool = False,
    glist: bool = False,
    list_format: int = 0,
    index: int = 0,
) -> bytes:
    """READ DEFECT DATA (12)."""
    cdb = bytes((0xB7, plist << 4 | glist << 3 | list_format)) + index.to_bytes(4, "big")
    return cdb + allocation_length.to_bytes(4, "big") + bytes(2)


def start_stop_unit(
    *, start: bool = False, loej: bool = False, no_flush: bool = False, immed: bool = False, power_condition: int = 0
) -> bytes:
    """START STOP UNIT."""
    return bytes((0x1B, immed, 0, 0, power_condition << 4 | no_flush << 2 | loej << 1 | start, 0))


def prevent_allow_medium_removal(prevent: int) -> bytes:
    """PREVENT ALLOW MEDIUM REMOVAL."""
    return bytes((0x1E, 0, 0, 0, prevent, 0))


def sanitize(
    action: int, parameter_list_length: int = 0, *, immed: bool = False, ause: bool = False, znr: bool = False
) -> bytes:
    """SANITIZE: 1 OVERWRITE, 2 BLOCK ERASE, 3 CRYPTOGRAPHIC ERASE, 31 EXIT FAILURE MODE."""
    flags = immed << 7 | znr << 6 | ause << 5 | action
    return bytes((0x48, flags, 0, 0, 0, 0, 0)) + parameter_list_length.to_bytes(2, "big") + b"\0"


def overwrite_parameters(pattern: bytes, count: int = 1, *, invert: bool = False, test: int = 0) -> bytes:
    """Parameter list of SANITIZE OVERWRITE."""
    return bytes((invert << 7 | test << 5 | count, 0)) + len(pattern).to_bytes(2, "big") + pattern


def format_unit(
    *,
    fmtpinfo: int = 0,
    longlist: bool = False,
    fmtdata: bool = False,
    cmplst: bool = False,
    defect_list_format: int = 0,
    ffmt: int = 0,
) -> bytes:
    """FORMAT UNIT."""
    return bytes((0x04, fmtpinfo << 6 | longlist << 5 | fmtdata << 4 | cmplst << 3 | defect_list_format, 0, 0, ffmt, 0))


# Primary commands


def test_unit_ready() -> bytes:
    """TEST UNIT READY."""
    return bytes(6)


def request_sense(allocation_length: int = 252, *, desc: bool = False) -> bytes:
    """REQUEST SENSE."""
    return bytes((0x03, desc, 0, 0, allocation_length, 0))


def inquiry(page: int | None = None, allocation_length: int = 4096, *, evpd: bool | None = None) -> bytes:
    """INQUIRY: standard data, or a VPD page."""
    has_page = page is not None if evpd is None else evpd
    return bytes((0x12, has_page, page or 0)) + allocation_length.to_bytes(2, "big") + b"\0"


def report_luns(select_report: int = 0, allocation_length: int = 4096) -> bytes:
    """REPORT LUNS."""
    return bytes((0xA0, 0, select_report, 0, 0, 0)) + allocation_length.to_bytes(4, "big") + bytes(2)


def mode_sense(
    length: int,
    page: int,
    subpage: int = 0,
    *,
    control: int = 0,
    dbd: bool = False,
    llbaa: bool = False,
    allocation_length: int = 252,
) -> bytes:
    """MODE SENSE (6), (10). ``control`` is PC: 0 current, 1 changeable, 2 default, 3 saved."""
    if length == 6:
        return bytes((0x1A, dbd << 3, control << 6 | page, subpage, allocation_length, 0))
    return (
        bytes((0x5A, llbaa << 4 | dbd << 3, control << 6 | page, subpage, 0, 0, 0))
        + allocation_length.to_bytes(2, "big")
        + b"\0"
    )


def mode_select(length: int, parameter_list_length: int, *, pf: bool = True, sp: bool = False, rtd: bool = False) -> bytes:
    """MODE SELECT (6), (10)."""
    flags = pf << 4 | rtd << 1 | sp
    if length == 6:
        return bytes((0x15, flags, 0, 0, parameter_list_length, 0))
    return bytes((0x55, flags, 0, 0, 0, 0, 0)) + parameter_list_length.to_bytes(2, "big") + b"\0"


def log_sense(
    page: int, subpage: int = 0, *, control: int = 1, allocation_length: int = 4096, pointer: int = 0, sp: bool = False
) -> bytes:
    """LOG SENSE. ``control`` is PC: 1 is cumulative values."""
    cdb = bytes((0x4D, sp, control << 6 | page, subpage, 0)) + pointer.to_bytes(2, "big")
    return cdb + allocation_length.to_bytes(2, "big") + b"\0"


def log_select(
    parameter_list_length: int = 0, *, pcr: bool = False, sp: bool = False, control: int = 1, page: int = 0, subpage: int = 0
) -> bytes:
    """LOG SELECT. ``control`` is PC."""
    cdb = bytes((0x4C, pcr << 1 | sp, control << 6 | page, subpage, 0, 0, 0))
    return cdb + parameter_list_length.to_bytes(2, "big") + b"\0"


def report_supported_operation_codes(
    options: int = 0, opcode: int = 0, service_action: int = 0, *, rctd: bool = False, allocation_length: int = 65536
) -> bytes:
    """REPORT SUPPORTED OPERATION CODES."""
    cdb = bytes((0xA3, 0x0C, rctd << 7 | options, opcode)) + service_action.to_bytes(2, "big")
    return cdb + allocation_length.to_bytes(4, "big") + bytes(2)


def report_supported_task_management_functions(*, repd: bool = False, allocation_length: int = 16) -> bytes:
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS."""
    return bytes((0xA3, 0x0D, repd << 7, 0, 0, 0)) + allocation_length.to_bytes(4, "big") + bytes(2)


def reserve(length: int = 6, *, flags: int = 0) -> bytes:
    """RESERVE (6), (10) (SPC-2)."""
    return bytes((0x16 if length == 6 else 0x56, flags)) + bytes(length - 2)


def release(length: int = 6, *, flags: int = 0) -> bytes:
    """RELEASE (6), (10) (SPC-2)."""
    return bytes((0x17 if length == 6 else 0x57, flags)) + bytes(length - 2)


def send_diagnostic(
    parameter_list_length: int = 0,
    *,
    self_test: bool = False,
    pf: bool = False,
    code: int = 0,
    devoffl: bool = False,
    unitoffl: bool = False,
) -> bytes:
    """SEND DIAGNOSTIC."""
    flags = code << 5 | pf << 4 | self_test << 2 | devoffl << 1 | unitoffl
    return bytes((0x1D, flags, 0)) + parameter_list_length.to_bytes(2, "big") + b"\0"


def receive_diagnostic_results(page: int | None = None, allocation_length: int = 4096) -> bytes:
    """RECEIVE DIAGNOSTIC RESULTS."""
    return bytes((0x1C, page is not None, page or 0)) + allocation_length.to_bytes(2, "big") + b"\0"


def report_identifying_information(kind: int = 0, allocation_length: int = 4096) -> bytes:
    """REPORT IDENTIFYING INFORMATION."""
    return bytes((0xA3, 0x05, 0, 0, 0, 0)) + allocation_length.to_bytes(4, "big") + bytes((kind << 1, 0))


def set_identifying_information(parameter_list_length: int, kind: int = 0) -> bytes:
    """SET IDENTIFYING INFORMATION."""
    return bytes((0xA4, 0x06, 0, 0, 0, 0)) + parameter_list_length.to_bytes(4, "big") + bytes((kind << 1, 0))


def report_timestamp(allocation_length: int = 12) -> bytes:
    """REPORT TIMESTAMP."""
    return bytes((0xA3, 0x0F, 0, 0, 0, 0)) + allocation_length.to_bytes(4, "big") + bytes(2)


def set_timestamp(parameter_list_length: int = 12) -> bytes:
    """SET TIMESTAMP; see :func:`set_timestamp_parameters`."""
    return bytes((0xA4, 0x0F, 0, 0, 0, 0)) + parameter_list_length.to_bytes(4, "big") + bytes(2)


def set_timestamp_parameters(timestamp: int) -> bytes:
    """SET TIMESTAMP's parameter list, of milliseconds since 1970."""
    return bytes(4) + timestamp.to_bytes(6, "big") + bytes(2)


def read_buffer(mode: int, allocation_length: int = 4096, *, offset: int = 0, buffer_id: int = 0, specific: int = 0) -> bytes:
    """READ BUFFER (10)."""
    start = bytes((0x3C, specific << 5 | mode, buffer_id))
    return start + offset.to_bytes(3, "big") + allocation_length.to_bytes(3, "big") + b"\0"


def write_buffer(mode: int, parameter_list_length: int, *, offset: int = 0, buffer_id: int = 0, specific: int = 0) -> bytes:
    """WRITE BUFFER."""
    start = bytes((0x3B, specific << 5 | mode, buffer_id))
    return start + offset.to_bytes(3, "big") + parameter_list_length.to_bytes(3, "big") + b"\0"


def security_protocol_in(protocol: int = 0, specific: int = 0, allocation_length: int = 512, *, inc_512: bool = False) -> bytes:
    """SECURITY PROTOCOL IN."""
    start = bytes((0xA2, protocol)) + specific.to_bytes(2, "big") + bytes((inc_512 << 7, 0))
    return start + allocation_length.to_bytes(4, "big") + bytes(2)


def persistent_reserve_in(action: int, allocation_length: int = 65535) -> bytes:
    """PERSISTENT RESERVE IN (SPC-5 6.15)."""
    return bytes((0x5E, action)) + bytes(5) + allocation_length.to_bytes(2, "big") + b"\0"


def persistent_reserve_out(action: int, kind: int = 0, length: int = 24, *, scope: int = 0) -> bytes:
    """PERSISTENT RESERVE OUT (SPC-5 6.16)."""
    return bytes((0x5F, action, scope << 4 | kind, 0, 0)) + length.to_bytes(4, "big") + b"\0"


def report_target_port_groups(allocation_length: int = 4096, *, data_format: int = 0) -> bytes:
    """REPORT TARGET PORT GROUPS. ``data_format`` 1 asks for the extended header."""
    start = bytes((0xA3, data_format << 5 | 0x0A, 0, 0, 0, 0))
    return start + allocation_length.to_bytes(4, "big") + bytes(2)


def set_target_port_groups(parameter_list_length: int) -> bytes:
    """SET TARGET PORT GROUPS; see :func:`target_port_groups_parameters`."""
    return bytes((0xA4, 0x0A, 0, 0, 0, 0)) + parameter_list_length.to_bytes(4, "big") + bytes(2)


def target_port_groups_parameters(*changes: tuple[int, int]) -> bytes:
    """SET TARGET PORT GROUPS's parameter list, of pairs: target port group (or target port, for state 14) and access state."""
    return bytes(4) + b"".join(bytes((state, 0)) + identifier.to_bytes(2, "big") for identifier, state in changes)


def report_referrals(lba: int = 0, allocation_length: int = 4096, *, one_segment: bool = False) -> bytes:
    """REPORT REFERRALS."""
    cdb = bytes((0x9E, 0x13)) + lba.to_bytes(8, "big") + allocation_length.to_bytes(4, "big")
    return cdb + bytes((one_segment, 0))


def populate_token(list_identifier: int, parameter_list_length: int) -> bytes:
    """POPULATE TOKEN (SBC-4)."""
    return bytes((0x83, 0x10)) + bytes(4) + list_identifier.to_bytes(4) + parameter_list_length.to_bytes(4) + bytes(2)


def write_using_token(list_identifier: int, parameter_list_length: int) -> bytes:
    """WRITE USING TOKEN (SBC-4)."""
    return bytes((0x83, 0x11)) + bytes(4) + list_identifier.to_bytes(4) + parameter_list_length.to_bytes(4) + bytes(2)


def receive_rod_token_information(list_identifier: int, allocation_length: int = 4096) -> bytes:
    """RECEIVE ROD TOKEN INFORMATION (SPC-5)."""
    return bytes((0x84, 0x07)) + list_identifier.to_bytes(4) + bytes(4) + allocation_length.to_bytes(4) + bytes(2)


def report_all_rod_tokens(allocation_length: int = 1 << 20) -> bytes:
    """REPORT ALL ROD TOKENS (SPC-5)."""
    return bytes((0x84, 0x08)) + bytes(8) + allocation_length.to_bytes(4) + bytes(2)
