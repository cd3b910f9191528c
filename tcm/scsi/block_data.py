"""Parameter data of block commands (SBC-4 clause 5): built and parsed, nothing else."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tcm.scsi.check_condition import ParameterListLengthError

if TYPE_CHECKING:
    from collections.abc import Sequence

_READ_CAPACITY_16 = struct.Struct(">QIBBBB16x")
_LBA_STATUS = struct.Struct(">QIB3x")
_UNMAP_DESCRIPTOR = struct.Struct(">QI4x")

MAPPED, DEALLOCATED = 0, 1
"""PROVISIONING STATUS (SBC-4 table 66)."""
MAXIMUM_STATUS_BLOCKS = 0xFFFFFFFF
"""The largest NUMBER OF LOGICAL BLOCKS of an LBA status descriptor."""
LBA_STATUS_HEADER, LBA_STATUS_DESCRIPTOR = 8, 16
UNMAP_HEADER, UNMAP_DESCRIPTOR = 8, 16


def read_capacity_10_data(blocks: int, block_size: int) -> bytes:
    """SBC-4 5.19.2; FFFFFFFFh stands for "ask READ CAPACITY (16)"."""
    return struct.pack(">II", min(blocks - 1, 0xFFFFFFFF), block_size)


def read_capacity_16_data(
    blocks: int,
    block_size: int,
    *,
    physical_block_exponent: int,
    provisioned: bool,
    reads_zero: bool,
    lowest_aligned: int = 0,
    protection: int = 0,
) -> bytes:
    """SBC-4 5.20.2, 32 bytes.

    :param provisioned: LBPME.
    :param reads_zero: LBPRZ.
    :param lowest_aligned: LOWEST ALIGNED LOGICAL BLOCK ADDRESS, 14 bits.
    :param protection: protection type, 1 to 3; 0 without protection information (P_TYPE and PROT_EN).
    """
    enabled = (protection - 1) << 1 | 1 if protection else 0
    provisioning = provisioned << 7 | reads_zero << 6 | lowest_aligned >> 8
    return _READ_CAPACITY_16.pack(blocks - 1, block_size, enabled, physical_block_exponent, provisioning, lowest_aligned & 0xFF)


def lba_status_data(descriptors: Sequence[tuple[int, int, int]]) -> bytes:
    """SBC-4 5.6.2.

    :param descriptors: LBA, number of blocks (32 bits), provisioning status.
    """
    body = b"".join(_LBA_STATUS.pack(*descriptor) for descriptor in descriptors)
    return (len(body) + 4).to_bytes(4) + bytes(4) + body


def parse_unmap_list(data: bytes | bytearray | memoryview) -> list[tuple[int, int]]:
    """The (LBA, number of blocks) of UNMAP's parameter list (SBC-4 5.32.2); a descriptor that is cut off is left out.

    Raises PARAMETER LIST LENGTH ERROR if there is not even a header, or if the descriptors are longer than the whole list says
    it is.
    """
    if not data:
        return []
    if len(data) < UNMAP_HEADER:
        raise ParameterListLengthError
    data_length, descriptors_length = struct.unpack_from(">HH", data)
    if descriptors_length > max(data_length - 6, 0):
        raise ParameterListLengthError
    count = min(descriptors_length, len(data) - UNMAP_HEADER) // UNMAP_DESCRIPTOR
    return list(_UNMAP_DESCRIPTOR.iter_unpack(memoryview(data)[UNMAP_HEADER : UNMAP_HEADER + count * UNMAP_DESCRIPTOR]))


def defect_list_header(*, kinds_and_format: int, long: bool) -> bytes:
    """An empty defect list: READ DEFECT DATA (10) (SBC-4 5.21.2, 4 bytes) or, if ``long``, (12) (5.22.2, 8 bytes).

    :param kinds_and_format: PLISTV, GLISTV and DEFECT LIST FORMAT, as asked for.
    """
    return bytes((0, kinds_and_format)) + bytes(6 if long else 2)
