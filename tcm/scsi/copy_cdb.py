"""Third-party copy commands and their parameter lists, built as an initiator builds them (SPC-4). Nothing is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcm.scsi.designators import Designator

THIS_UNIT = 0xFFFF


def extended_copy(parameter_list_length: int, *, lid4: bool = False) -> bytes:
    """EXTENDED COPY (LID1), (LID4)."""
    return bytes((0x83, lid4, *bytes(8))) + parameter_list_length.to_bytes(4) + bytes(2)


def copy_operation_abort(list_identifier: int) -> bytes:
    """COPY OPERATION ABORT."""
    return bytes((0x83, 0x1C)) + list_identifier.to_bytes(4) + bytes(10)


def receive_copy(service_action: int, list_identifier: int = 0, allocation_length: int = 4096) -> bytes:
    """RECEIVE COPY STATUS, OPERATING PARAMETERS and FAILURE DETAILS; from service action 5 on list identifiers have 32 bits."""
    field = list_identifier.to_bytes(4) if service_action >= 5 else bytes((list_identifier, 0, 0, 0))
    return bytes((0x84, service_action)) + field + bytes(4) + allocation_length.to_bytes(4) + bytes(2)


def cscd(designator: Designator, *, device_type: int = 0, block_length: int = 0, pad: bool = False) -> bytes:
    """Identification Descriptor CSCD descriptor."""
    packed = designator.pack()
    return bytes((0xE4, device_type, 0, 0)) + packed.ljust(24, b"\0") + bytes((pad << 2,)) + block_length.to_bytes(3)


def block_to_block(
    source: int, source_lba: int, destination: int, destination_lba: int, blocks: int, *, dc: bool = False, cat: bool = False
) -> bytes:
    """Block device to block device segment descriptor."""
    return (
        bytes((0x02, dc << 1 | cat, 0, 0x18))
        + source.to_bytes(2)
        + destination.to_bytes(2)
        + bytes(2)
        + blocks.to_bytes(2)
        + source_lba.to_bytes(8)
        + destination_lba.to_bytes(8)
    )


def block_to_block_with_offsets(
    source: int, source_lba: int, source_byte: int, destination: int, destination_lba: int, destination_byte: int, count: int
) -> bytes:
    """Block device with offset to block device with offset segment descriptor; ``count`` is in bytes."""
    return (
        bytes((0x0A, 0, 0, 0x1C))
        + source.to_bytes(2)
        + destination.to_bytes(2)
        + count.to_bytes(4)
        + source_lba.to_bytes(8)
        + destination_lba.to_bytes(8)
        + source_byte.to_bytes(2)
        + destination_byte.to_bytes(2)
    )


def lid1_parameters(
    cscds: bytes, segments: bytes, *, list_identifier: int = 1, usage: int = 0, priority: int = 1, striped: bool = False
) -> bytes:
    """Parameter list of EXTENDED COPY (LID1)."""
    flags = striped << 5 | usage << 3 | priority
    lengths = len(cscds).to_bytes(2) + bytes(4) + len(segments).to_bytes(4) + bytes(4)
    return bytes((list_identifier, flags)) + lengths + cscds + segments


def lid4_parameters(
    cscds: bytes,
    segments: bytes,
    *,
    list_identifier: int = 1,
    usage: int = 0,
    priority: int = 1,
    immed: bool = False,
    g_sense: bool = False,
) -> bytes:
    """Parameter list of EXTENDED COPY (LID4); the first CSCD descriptor has the ID 1."""
    head = bytes((0x01, usage << 3 | priority, 0x00, 0x20)) + bytes(11) + bytes((g_sense << 1 | immed, 0xFF, 0, 0, 0))
    lengths = len(cscds).to_bytes(2) + len(segments).to_bytes(2) + bytes(2)
    return head + list_identifier.to_bytes(4) + bytes(18) + lengths + cscds + segments
