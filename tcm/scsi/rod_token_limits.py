"""What the Third-party Copy VPD page says of ROD tokens (SPC-5 and, for the Block Device ROD Limits descriptor, SBC-4)."""

from __future__ import annotations

from tcm.scsi.layout import Layout, bits, flag, number
from tcm.scsi.rod_tokens import CREATED, TAKEN
from tcm.scsi.third_party_copy import ThirdPartyCopyDescriptor, descriptor

# without the four bytes of type and length that every third-party copy descriptor begins with
_BLOCK_DEVICE_ROD_LIMITS = Layout(
    32,
    (
        number("maximum_range_descriptors", 6, 7),
        number("maximum_inactivity_timeout", 8, 11),
        number("default_inactivity_timeout", 12, 15),
        number("maximum_token_transfer_size", 16, 23),
        number("optimal_transfer_count", 24, 31),
    ),
)
_ROD_TOKEN_FEATURES = Layout(
    44,
    (
        bits("remote_tokens", 0, 3, 0),
        number("minimum_token_lifetime", 12, 15),
        number("maximum_token_lifetime", 16, 19),
        number("maximum_token_inactivity_timeout", 20, 23),
        number("device_type_specific_features_length", 42, 43),
    ),
)
_BLOCK_ROD_FEATURES = Layout(
    48,
    (
        bits("descriptor_format", 0, 7, 5),
        bits("peripheral_device_type", 0, 4, 0),
        number("descriptor_length", 2, 3),
        number("optimal_block_rod_length_granularity", 6, 7),
        number("maximum_bytes_in_block_rod", 8, 15),
        number("optimal_bytes_in_block_rod_transfer", 16, 23),
        number("optimal_bytes_to_token_per_segment", 24, 31),
        number("optimal_bytes_from_token_per_segment", 32, 39),
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


def block_device_rod_limits(
    *, maximum_ranges: int, maximum_timeout: int, default_timeout: int, maximum_blocks: int, optimal_blocks: int
) -> bytes:
    """The Block Device ROD Limits descriptor.

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
    return descriptor(ThirdPartyCopyDescriptor.BLOCK_DEVICE_ROD_LIMITS, _BLOCK_DEVICE_ROD_LIMITS.pack(values))


def rod_token_features(*, lifetime: int, maximum_timeout: int, maximum_bytes: int, optimal_bytes: int) -> bytes:
    """The ROD Token Features descriptor, with those of block devices.

    :param lifetime: seconds, of every token.
    :param maximum_timeout: seconds of inactivity.
    :param maximum_bytes: that a token represents.
    :param optimal_bytes: that a command transfers from a token; making one transfers nothing, so that there is no limit.
    """
    block = {
        "descriptor_length": _BLOCK_ROD_FEATURES.length - 4,
        "maximum_bytes_in_block_rod": maximum_bytes,
        "optimal_bytes_in_block_rod_transfer": optimal_bytes,
        "optimal_bytes_to_token_per_segment": _UNLIMITED,
        "optimal_bytes_from_token_per_segment": optimal_bytes,
    }
    values = {
        "minimum_token_lifetime": lifetime,
        "maximum_token_lifetime": lifetime,
        "maximum_token_inactivity_timeout": maximum_timeout,
        "device_type_specific_features_length": _BLOCK_ROD_FEATURES.length,
    }
    features = _ROD_TOKEN_FEATURES.pack(values) + _BLOCK_ROD_FEATURES.pack(block)
    return descriptor(ThirdPartyCopyDescriptor.ROD_TOKEN_FEATURES, features)


def supported_rod_types() -> bytes:
    """The Supported ROD Types descriptor. A type of which others are made is neither received nor returned."""
    types = sorted({*TAKEN, *(each for each in CREATED if each is not None)})
    made = frozenset(CREATED.values())
    listed = b"".join(
        _ROD_TYPE.pack({"rod_type": each, "token_in": each in TAKEN, "token_out": each in made}) for each in types
    )
    return descriptor(ThirdPartyCopyDescriptor.SUPPORTED_ROD_TYPES, bytes(2) + len(listed).to_bytes(2) + listed)
