"""Vital product data pages (SPC-5 7.7, SBC-4 6.6)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from tcm.scsi import designators
from tcm.scsi.inquiry import DeviceType, PeripheralQualifier, peripheral
from tcm.scsi.layout import Layout, bits, flag, number
from tcm.scsi.text import left_aligned

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONNECTED_DISK = peripheral(PeripheralQualifier.CONNECTED, DeviceType.DIRECT_ACCESS_BLOCK)


class VpdPage(enum.IntEnum):
    """PAGE CODE."""

    SUPPORTED_PAGES = 0x00
    UNIT_SERIAL_NUMBER = 0x80
    DEVICE_IDENTIFICATION = 0x83
    EXTENDED_INQUIRY_DATA = 0x86
    MODE_PAGE_POLICY = 0x87
    THIRD_PARTY_COPY = 0x8F
    BLOCK_LIMITS = 0xB0
    BLOCK_DEVICE_CHARACTERISTICS = 0xB1
    LOGICAL_BLOCK_PROVISIONING = 0xB2
    REFERRALS = 0xB3


class ProvisioningType(enum.IntEnum):
    """SBC-4 table 271."""

    FULL = 0
    RESOURCE = 1
    THIN = 2


class PagePolicy(enum.IntEnum):
    """MODE PAGE POLICY (SPC-5, Mode Page Policy VPD page)."""

    SHARED = 0b00
    PER_TARGET_PORT = 0b01
    PER_I_T_NEXUS = 0b11


SUPPORTED_PROTECTION_TYPES = 0b111
"""SPT: types 1, 2 and 3 (SPC-5, Extended INQUIRY Data VPD page)."""


class RotationRate(enum.IntEnum):
    """MEDIUM ROTATION RATE values that are no rate (SBC-4 table 259)."""

    NOT_REPORTED = 0
    NON_ROTATING = 1


# Bytes 0 to 3 are the page's header; the tables count from there, as the standards do.
_EXTENDED_INQUIRY = Layout(
    64,
    (
        bits("activate_microcode", 4, 7, 6),
        bits("spt", 4, 5, 3),
        flag("grd_chk", 4, 2),
        flag("app_chk", 4, 1),
        flag("ref_chk", 4, 0),
        flag("uask_sup", 5, 5),
        flag("group_sup", 5, 4),
        flag("prior_sup", 5, 3),
        flag("headsup", 5, 2),
        flag("ordsup", 5, 1),
        flag("simpsup", 5, 0),
        flag("wu_sup", 6, 3),
        flag("crd_sup", 6, 2),
        flag("nv_sup", 6, 1),
        flag("v_sup", 6, 0),
        flag("no_pi_chk", 7, 5),
        flag("p_i_i_sup", 7, 4),
        flag("luiclr", 7, 0),
        flag("r_sup", 8, 4),
        flag("cbcs", 8, 0),
        bits("multi_i_t_nexus_microcode_download", 9, 3, 0),
        number("extended_self_test_completion_minutes", 10, 11),
        flag("poa_sup", 12, 7),
        flag("hra_sup", 12, 6),
        flag("vsa_sup", 12, 5),
        number("maximum_supported_sense_data_length", 13, 13),
    ),
)

_BLOCK_LIMITS = Layout(
    64,
    (
        flag("wsnz", 4, 0),
        number("maximum_compare_and_write_length", 5, 5),
        number("optimal_transfer_length_granularity", 6, 7),
        number("maximum_transfer_length", 8, 11),
        number("optimal_transfer_length", 12, 15),
        number("maximum_prefetch_length", 16, 19),
        number("maximum_unmap_lba_count", 20, 23),
        number("maximum_unmap_block_descriptor_count", 24, 27),
        number("optimal_unmap_granularity", 28, 31),
        flag("ugavalid", 32, 7),
        bits("unmap_granularity_alignment_high", 32, 6, 0),
        number("unmap_granularity_alignment_low", 33, 35),
        number("maximum_write_same_length", 36, 43),
        number("maximum_atomic_transfer_length", 44, 47),
        number("atomic_alignment", 48, 51),
        number("atomic_transfer_length_granularity", 52, 55),
        number("maximum_atomic_transfer_length_with_atomic_boundary", 56, 59),
        number("maximum_atomic_boundary_size", 60, 63),
    ),
)

_BLOCK_DEVICE_CHARACTERISTICS = Layout(
    64,
    (
        number("medium_rotation_rate", 4, 5),
        number("product_type", 6, 6),
        bits("wabereq", 7, 7, 6),
        bits("wacereq", 7, 5, 4),
        bits("nominal_form_factor", 7, 3, 0),
        bits("zoned", 8, 5, 4),
        flag("fuab", 8, 1),
        flag("vbuls", 8, 0),
    ),
)

_LOGICAL_BLOCK_PROVISIONING = Layout(
    8,
    (
        number("threshold_exponent", 4, 4),
        flag("lbpu", 5, 7),
        flag("lbpws", 5, 6),
        flag("lbpws10", 5, 5),
        bits("lbprz", 5, 4, 2),
        flag("anc_sup", 5, 1),
        flag("dp", 5, 0),
        bits("minimum_percentage", 6, 7, 3),
        bits("provisioning_type", 6, 2, 0),
        number("threshold_percentage", 7, 7),
    ),
)

_REFERRALS = Layout(16, (number("user_data_segment_size", 8, 11), number("user_data_segment_multiplier", 12, 15)))


def page(code: int, body: bytes, first: int = CONNECTED_DISK) -> bytes:
    """A page: peripheral qualifier and type, page code, page length and ``body``."""
    return bytes((first, code)) + len(body).to_bytes(2, "big") + body


def _laid_out(code: int, layout: Layout, values: Mapping[str, int]) -> bytes:
    return page(code, layout.pack(values)[4:])


def supported_pages(codes: Iterable[int], first: int = CONNECTED_DISK) -> bytes:
    """Page 00h; it names itself, and all in ascending order (SPC-5 7.7.18)."""
    return page(VpdPage.SUPPORTED_PAGES, bytes(sorted({VpdPage.SUPPORTED_PAGES, *codes})), first)


def unit_serial_number(serial: str) -> bytes:
    """Page 80h."""
    return page(VpdPage.UNIT_SERIAL_NUMBER, left_aligned(serial, len(serial)))


def mode_page_policy(policies: Iterable[tuple[int, int, PagePolicy]]) -> bytes:
    """Page 87h: page code, subpage code and policy; 3Fh and FFh stand for all pages that are not there themselves."""
    return page(VpdPage.MODE_PAGE_POLICY, b"".join(bytes((code, subpage, policy, 0)) for code, subpage, policy in policies))


def device_identification(found: Iterable[designators.Designator], first: int = CONNECTED_DISK) -> bytes:
    """Page 83h."""
    return page(VpdPage.DEVICE_IDENTIFICATION, designators.pack(found), first)


def extended_inquiry_data(**fields: int) -> bytes:
    """Page 86h; all three task attributes are supported, LUICLR is one (SPC-4 7.8.7); other fields are zero unless given."""
    values = {"headsup": 1, "ordsup": 1, "simpsup": 1, "luiclr": 1, **fields}
    return _laid_out(VpdPage.EXTENDED_INQUIRY_DATA, _EXTENDED_INQUIRY, values)


def block_limits(
    *,
    maximum_transfer_length: int = 0,
    optimal_transfer_length: int = 0,
    optimal_transfer_length_granularity: int = 0,
    maximum_prefetch_length: int = 0,
    maximum_unmap_lba_count: int = 0,
    maximum_unmap_block_descriptor_count: int = 0,
    optimal_unmap_granularity: int = 0,
    unmap_granularity_alignment: int | None = None,
    maximum_write_same_length: int = 0,
    write_same_non_zero: bool = False,
    maximum_compare_and_write_length: int = 0,
    maximum_atomic_transfer_length: int = 0,
    atomic_alignment: int = 0,
    atomic_transfer_length_granularity: int = 0,
    maximum_atomic_transfer_length_with_atomic_boundary: int = 0,
    maximum_atomic_boundary_size: int = 0,
) -> bytes:
    """Page B0h. All in logical blocks.

    Too large a value is reported as the largest that fits: these are limits, and zero would say that there is none.

    :param unmap_granularity_alignment: ``None``: UGAVALID is zero.
    """
    alignment = unmap_granularity_alignment or 0
    values = {
        "wsnz": int(write_same_non_zero),
        "maximum_compare_and_write_length": maximum_compare_and_write_length,
        "optimal_transfer_length_granularity": optimal_transfer_length_granularity,
        "maximum_transfer_length": maximum_transfer_length,
        "optimal_transfer_length": optimal_transfer_length,
        "maximum_prefetch_length": maximum_prefetch_length,
        "maximum_unmap_lba_count": maximum_unmap_lba_count,
        "maximum_unmap_block_descriptor_count": maximum_unmap_block_descriptor_count,
        "optimal_unmap_granularity": optimal_unmap_granularity,
        "ugavalid": int(unmap_granularity_alignment is not None),
        "unmap_granularity_alignment_high": alignment >> 24,
        "unmap_granularity_alignment_low": alignment & 0xFFFFFF,
        "maximum_write_same_length": maximum_write_same_length,
        "maximum_atomic_transfer_length": maximum_atomic_transfer_length,
        "atomic_alignment": atomic_alignment,
        "atomic_transfer_length_granularity": atomic_transfer_length_granularity,
        "maximum_atomic_transfer_length_with_atomic_boundary": maximum_atomic_transfer_length_with_atomic_boundary,
        "maximum_atomic_boundary_size": maximum_atomic_boundary_size,
    }
    fitting = {name: min(value, (1 << _BLOCK_LIMITS[name].width) - 1) for name, value in values.items()}
    return _laid_out(VpdPage.BLOCK_LIMITS, _BLOCK_LIMITS, fitting)


def block_device_characteristics(
    *, rotation_rate: int = RotationRate.NOT_REPORTED, block_erase: bool = False, cryptographic_erase: bool = False
) -> bytes:
    """Page B1h. VBULS is set: VERIFY compares unmapped blocks with the zeroes they read as.

    :param rotation_rate: revolutions per minute, or a :class:`RotationRate`.
    :param block_erase: there is SANITIZE BLOCK ERASE; reading afterwards is no error (WABEREQ 01b).
    :param cryptographic_erase: likewise (WACEREQ 01b).
    """
    values = {
        "medium_rotation_rate": rotation_rate,
        "wabereq": int(block_erase),
        "wacereq": int(cryptographic_erase),
        "vbuls": 1,
    }
    return _laid_out(VpdPage.BLOCK_DEVICE_CHARACTERISTICS, _BLOCK_DEVICE_CHARACTERISTICS, values)


def logical_block_provisioning(
    *,
    provisioning: ProvisioningType = ProvisioningType.FULL,
    unmap: bool = False,
    write_same_16: bool = False,
    write_same_10: bool = False,
    reads_zeroes: bool = False,
    anchor: bool = False,
    threshold_exponent: int = 0,
) -> bytes:
    """Page B2h, without a provisioning group descriptor.

    :param threshold_exponent: of the logical blocks in a threshold set, to the base of two; zero: no thresholds are supported.
    """
    values = {
        "threshold_exponent": threshold_exponent,
        "lbpu": unmap,
        "lbpws": write_same_16,
        "lbpws10": write_same_10,
        "lbprz": reads_zeroes,
        "anc_sup": anchor,
        "provisioning_type": provisioning,
    }
    return _laid_out(VpdPage.LOGICAL_BLOCK_PROVISIONING, _LOGICAL_BLOCK_PROVISIONING, values)


def referrals(*, segment_size: int = 0, segment_multiplier: int = 0) -> bytes:
    """Page B3h. Zeroes, with R_SUP zero in page 86h: there is one user data segment and REPORT REFERRALS is not needed.

    :param segment_size: logical blocks in each user data segment.
    :param segment_multiplier: distance between segments of one kind, in segments.
    """
    values = {"user_data_segment_size": segment_size, "user_data_segment_multiplier": segment_multiplier}
    return _laid_out(VpdPage.REFERRALS, _REFERRALS, values)
