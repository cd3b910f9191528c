"""The Third-party Copy VPD page (SPC-4 7.8.17) and RECEIVE COPY OPERATING PARAMETERS (6.22), which say the same."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from tcm.scsi import vpd
from tcm.scsi.layout import Layout, flag, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAXIMUM_CSCDS = 64
"""CSCD descriptors in one parameter list."""
MAXIMUM_SEGMENTS = 256
"""Segment descriptors in one parameter list."""
MAXIMUM_DESCRIPTOR_LIST_LENGTH = 16 << 10
"""Bytes of both together."""
MAXIMUM_SEGMENT_LENGTH = 256 << 20
"""Bytes that one segment descriptor copies, as in LIO."""
THIS_LOGICAL_UNIT = 0xFFFF
"""CSCD descriptor ID of the logical unit that the command was sent to (SPC-4 table 148)."""
DESCRIPTOR_TYPES = (0x02, 0x0A, 0xE4)
"""Segment and CSCD descriptors that are supported, in ascending order."""


class ThirdPartyCopyDescriptor(enum.IntEnum):
    """THIRD-PARTY COPY DESCRIPTOR TYPE (SPC-4 table 645)."""

    BLOCK_DEVICE_ROD_LIMITS = 0x0000
    SUPPORTED_COMMANDS = 0x0001
    PARAMETER_DATA = 0x0004
    SUPPORTED_DESCRIPTORS = 0x0008
    SUPPORTED_CSCD_IDS = 0x000C
    ROD_TOKEN_FEATURES = 0x0106
    SUPPORTED_ROD_TYPES = 0x0108
    GENERAL_COPY_OPERATIONS = 0x8001
    HELD_DATA = 0xC001


_PARAMETER_DATA = Layout(
    28,
    (
        number("maximum_cscd_descriptor_count", 4, 5),
        number("maximum_segment_descriptor_count", 6, 7),
        number("maximum_descriptor_list_length", 8, 11),
        number("maximum_inline_data_length", 12, 15),
    ),
)

_GENERAL_COPY_OPERATIONS = Layout(
    32,
    (
        number("total_concurrent_copies", 0, 3),
        number("maximum_identified_concurrent_copies", 4, 7),
        number("maximum_segment_length", 8, 11),
        number("data_segment_granularity", 12, 12),
        number("inline_data_granularity", 13, 13),
    ),
)

_HELD_DATA = Layout(28, (number("held_data_limit", 0, 3), number("held_data_granularity", 4, 4)))

_OPERATING_PARAMETERS = Layout(
    44,
    (
        number("available_data", 0, 3),
        flag("snlid", 4, 0),
        number("maximum_cscd_descriptor_count", 8, 9),
        number("maximum_segment_descriptor_count", 10, 11),
        number("maximum_descriptor_list_length", 12, 15),
        number("maximum_segment_length", 16, 19),
        number("maximum_inline_data_length", 20, 23),
        number("held_data_limit", 24, 27),
        number("maximum_stream_device_transfer_size", 28, 31),
        number("total_concurrent_copies", 34, 35),
        number("maximum_concurrent_copies", 36, 36),
        number("data_segment_granularity", 37, 37),
        number("inline_data_granularity", 38, 38),
        number("held_data_granularity", 39, 39),
        number("implemented_descriptor_list_length", 43, 43),
    ),
)

_LIMITS = {
    "maximum_cscd_descriptor_count": MAXIMUM_CSCDS,
    "maximum_segment_descriptor_count": MAXIMUM_SEGMENTS,
    "maximum_descriptor_list_length": MAXIMUM_DESCRIPTOR_LIST_LENGTH,
}


def descriptor(kind: ThirdPartyCopyDescriptor, parameters: bytes) -> bytes:
    """A third-party copy descriptor, padded to a multiple of four bytes."""
    padded = parameters + bytes(-len(parameters) % 4)
    return kind.to_bytes(2) + len(padded).to_bytes(2) + padded


def supported_commands(service_actions: Mapping[int, Iterable[int]]) -> bytes:
    """The Supported Commands descriptor.

    :param service_actions: by operation code.
    """
    listed = b""
    for code in sorted(service_actions):
        actions = bytes(sorted(service_actions[code]))
        listed += bytes((code, len(actions))) + actions
    return descriptor(ThirdPartyCopyDescriptor.SUPPORTED_COMMANDS, bytes((len(listed),)) + listed)


def extended_copy_descriptors(concurrent_copies: int, cscd_ids: Iterable[int] = (THIS_LOGICAL_UNIT,)) -> list[bytes]:
    """What EXTENDED COPY wants: Parameter Data, Supported Descriptors, CSCD IDs, General Copy Operations, Held Data.

    :param concurrent_copies: copy operations under way at a time.
    """
    ids = b"".join(number.to_bytes(2) for number in sorted(cscd_ids))
    general = {
        "total_concurrent_copies": concurrent_copies,
        "maximum_identified_concurrent_copies": concurrent_copies,
        "maximum_segment_length": MAXIMUM_SEGMENT_LENGTH,
    }
    kind = ThirdPartyCopyDescriptor
    return [
        descriptor(kind.PARAMETER_DATA, _PARAMETER_DATA.pack(_LIMITS)),
        descriptor(kind.SUPPORTED_DESCRIPTORS, bytes((len(DESCRIPTOR_TYPES), *DESCRIPTOR_TYPES))),
        descriptor(kind.SUPPORTED_CSCD_IDS, len(ids).to_bytes(2) + ids),
        descriptor(kind.GENERAL_COPY_OPERATIONS, _GENERAL_COPY_OPERATIONS.pack(general)),
        descriptor(kind.HELD_DATA, _HELD_DATA.pack({})),
    ]


def third_party_copy_page(descriptors: Iterable[bytes]) -> bytes:
    """Page 8Fh, its descriptors in ascending order of their types."""
    ordered: list[bytes] = sorted(descriptors, key=lambda each: each[:2])
    return vpd.page(vpd.VpdPage.THIRD_PARTY_COPY, b"".join(ordered))


def operating_parameters(concurrent_copies: int) -> bytes:
    """RECEIVE COPY OPERATING PARAMETERS; list identifiers may be left out (SNLID).

    :param concurrent_copies: copy operations under way at a time, at most 255.
    """
    values = {
        **_LIMITS,
        "available_data": _OPERATING_PARAMETERS.length - 4 + len(DESCRIPTOR_TYPES),
        "snlid": 1,
        "maximum_segment_length": MAXIMUM_SEGMENT_LENGTH,
        "total_concurrent_copies": concurrent_copies,
        "maximum_concurrent_copies": concurrent_copies,
        "implemented_descriptor_list_length": len(DESCRIPTOR_TYPES),
    }
    return _OPERATING_PARAMETERS.pack(values) + bytes(DESCRIPTOR_TYPES)
