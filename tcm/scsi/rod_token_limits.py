"""What the Third-party Copy VPD page says of ROD tokens (SPC-5 and, for the Block Device ROD Limits descriptor, SBC-4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.layout import Layout, bits, flag, number
from tcm.scsi.rod_tokens import CREATED, TAKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK_DEVICE_ROD_LIMITS = Layout(
    36,
    (
        number("descriptor_type", 0, 1),
        number("descriptor_length", 2, 3),
        number("maximum_range_descriptors", 10, 11),
        number("maximum_inactivity_timeout", 12, 15),
        number("default_inactivity_timeout", 16, 19),
        number("maximum_token_transfer_size", 20, 27),
        number("optimal_transfer_count", 28, 35),
    ),
)
_ROD_TOKEN_FEATURES = Layout(
    96,
    (
        number("descriptor_type", 0, 1),
        number("descriptor_length", 2, 3),
        bits("remote_tokens", 4, 3, 0),
        number("minimum_token_lifetime", 16, 19),
        number("maximum_token_lifetime", 20, 23),
        number("maximum_token_inactivity_timeout", 24, 27),
        number("device_type_specific_features_length", 46, 47),
        # the one block ROD device type specific features descriptor, 48 bytes
        bits("descriptor_format", 48, 7, 5),
        bits("peripheral_device_type", 48, 4, 0),
        number("features_descriptor_length", 50, 51),
        number("optimal_block_rod_length_granularity", 54, 55),
        number("maximum_bytes_in_block_rod", 56, 63),
        number("optimal_bytes_in_block_rod_transfer", 64, 71),
        number("optimal_bytes_to_token_per_segment", 72, 79),
        number("optimal_bytes_from_token_per_segment", 80, 87),
    ),
)
_ROD_TYPE = Layout(
    64,
    (
        number("rod_type", 0, 3),
        flag("ecpy_int", 4, 7),
        flag("token_in", 4, 1),
        flag("token_out", 4, 0),
        number("preference_indicator", 6, 7),
    ),
)
_UNLIMITED = (1 << 64) - 1


def _descriptor(kind: int, layout: Layout, values: Mapping[str, int]) -> bytes:
    return layout.pack({"descriptor_type": kind, "descriptor_length": layout.length - 4, **values})


def block_device_rod_limits(
    *, maximum_ranges: int, maximum_timeout: int, default_timeout: int, maximum_blocks: int, optimal_blocks: int
) -> bytes:
    """The Block Device ROD Limits descriptor, 0000h.

    :param maximum_ranges: block device range descriptors in a command.
    :param maximum_timeout: seconds of inactivity, likewise ``default_timeout``.
    :param maximum_blocks: logical blocks that a command populates or writes, likewise ``optimal_blocks``.
    """
    values = {
        "maximum_range_descriptors": maximum_ranges,
        "maximum_inactivity_timeout": maximum_timeout,
        "default_inactivity_timeout": default_timeout,
        "maximum_token_transfer_size": maximum_blocks,
        "optimal_transfer_count": optimal_blocks,
    }
    return _descriptor(0x0000, _BLOCK_DEVICE_ROD_LIMITS, values)


def rod_token_features(*, lifetime: int, maximum_timeout: int, maximum_bytes: int, optimal_bytes: int) -> bytes:
    """The ROD Token Features descriptor, 0106h, with the block device's features.

    :param lifetime: seconds, of every token.
    :param maximum_timeout: seconds of inactivity.
    :param maximum_bytes: that a token represents.
    :param optimal_bytes: that a command transfers from a token; making one transfers nothing, so that there is no limit.
    """
    values = {
        "minimum_token_lifetime": lifetime,
        "maximum_token_lifetime": lifetime,
        "maximum_token_inactivity_timeout": maximum_timeout,
        "device_type_specific_features_length": 48,
        "features_descriptor_length": 44,
        "maximum_bytes_in_block_rod": maximum_bytes,
        "optimal_bytes_in_block_rod_transfer": optimal_bytes,
        "optimal_bytes_to_token_per_segment": _UNLIMITED,
        "optimal_bytes_from_token_per_segment": optimal_bytes,
    }
    return _descriptor(0x0106, _ROD_TOKEN_FEATURES, values)


def supported_rod_types() -> bytes:
    """The Supported ROD Types descriptor, 0108h."""
    types = sorted({*TAKEN, *(each for each in CREATED if each is not None)})
    made = frozenset(CREATED.values())
    descriptors = b"".join(
        _ROD_TYPE.pack({"rod_type": each, "token_in": each in TAKEN, "token_out": each in made}) for each in types
    )
    body = bytes(2) + len(descriptors).to_bytes(2) + descriptors
    return b"\x01\x08" + len(body).to_bytes(2) + body
