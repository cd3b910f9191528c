"""Standard INQUIRY data and VPD pages, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcm.scsi import vpd
from tcm.scsi.inquiry import (
    DeviceType,
    PeripheralQualifier,
    ProtocolIdentifier,
    standard_inquiry_data,
    version_descriptors,
)


def test_standard_data_of_an_iscsi_disk():
    """SPC-5 6.7.2; the version descriptors are LIO's (captured from a 6.12 kernel), and SPC-5 and SBC-4."""
    data = standard_inquiry_data(
        vendor="LIO-ORG", product="file0", revision="4.0", versions=version_descriptors(ProtocolIdentifier.ISCSI)
    )
    assert len(data) == 96
    assert data[:8].hex(" ") == "00 00 06 12 5b 00 00 02"
    assert data[8:36] == b"LIO-ORG file0           4.0 "
    assert data[36:58] == bytes(22)
    assert data[58:74].hex(" ", 2) == "00a0 0960 0460 04c0 05c0 0600 0000 0000"
    assert data[74:] == bytes(22)


@pytest.mark.parametrize(
    "option, byte, value",
    [
        ({"removable": True}, 1, 0x80),
        ({"tpgs": 3}, 5, 0x30),
        ({"third_party_copy": True}, 5, 0x08),
        ({"protect": True}, 5, 0x01),
        ({"multiple_ports": True}, 6, 0x10),
        ({"qualifier": PeripheralQualifier.IMPOSSIBLE, "device_type": DeviceType.UNKNOWN}, 0, 0x7F),
        ({"device_type": DeviceType.WELL_KNOWN}, 0, 0x1E),
    ],
)
def test_standard_data_options(option, byte, value):
    assert standard_inquiry_data(vendor="V", product="P", revision="R", **option)[byte] == value


@given(st.text(), st.text(), st.text())
def test_names_are_ascii_of_the_right_length(vendor, product, revision):
    """SPC-5 4.3.1: only graphic codes and spaces."""
    data = standard_inquiry_data(vendor=vendor, product=product, revision=revision)
    assert len(data) == data[4] + 5
    assert all(0x20 <= byte <= 0x7E for byte in data[8:36])


def test_too_many_version_descriptors():
    with pytest.raises(ValueError, match="room for 8"):
        standard_inquiry_data(vendor="", product="", revision="", versions=range(1, 10))


def test_supported_pages_are_ascending_and_include_themselves():
    assert vpd.supported_pages([0xB0, 0x83, 0x80]).hex(" ") == "00 00 00 04 00 80 83 b0"


def test_unit_serial_number():
    assert vpd.unit_serial_number("ab-12") == b"\x00\x80\x00\x05ab-12"


def test_extended_inquiry_data():
    data = vpd.extended_inquiry_data(v_sup=1)
    assert len(data) == 64
    assert data[:8].hex(" ") == "00 86 00 3c 00 07 01 01"
    assert not any(data[8:])


def test_block_limits():
    """SBC-4 table 253: every field a different number."""
    data = vpd.block_limits(
        write_same_non_zero=True,
        maximum_compare_and_write_length=0x05,
        optimal_transfer_length_granularity=0x0607,
        maximum_transfer_length=0x08090A0B,
        optimal_transfer_length=0x0C0D0E0F,
        maximum_prefetch_length=0x10111213,
        maximum_unmap_lba_count=0x14151617,
        maximum_unmap_block_descriptor_count=0x18191A1B,
        optimal_unmap_granularity=0x1C1D1E1F,
        unmap_granularity_alignment=0x20212223,
        maximum_write_same_length=0x2425262728292A2B,
        maximum_atomic_transfer_length=0x2C2D2E2F,
        atomic_alignment=0x30313233,
        atomic_transfer_length_granularity=0x34353637,
        maximum_atomic_transfer_length_with_atomic_boundary=0x38393A3B,
        maximum_atomic_boundary_size=0x3C3D3E3F,
    )
    expected = bytearray(range(64))
    expected[:5] = b"\x00\xb0\x00\x3c\x01"
    expected[32] |= 0x80
    assert data == expected


@given(st.integers(0, 1 << 80))
def test_block_limits_too_large_become_the_largest(limit):
    data = vpd.block_limits(maximum_transfer_length=limit, maximum_compare_and_write_length=limit)
    assert data[5] == min(limit, 0xFF)
    assert int.from_bytes(data[8:12]) == min(limit, 0xFFFFFFFF)


def test_block_device_characteristics():
    data = vpd.block_device_characteristics(rotation_rate=vpd.RotationRate.NON_ROTATING)
    assert data[:9].hex(" ") == "00 b1 00 3c 00 01 00 00 01"
    assert not any(data[9:])
    assert vpd.block_device_characteristics(rotation_rate=7200)[4:6] == (7200).to_bytes(2, "big")


def test_logical_block_provisioning():
    assert vpd.logical_block_provisioning().hex(" ") == "00 b2 00 04 00 00 00 00"
    thin = vpd.logical_block_provisioning(
        provisioning=vpd.ProvisioningType.THIN, unmap=True, write_same_16=True, write_same_10=True, reads_zeroes=True
    )
    assert thin.hex(" ") == "00 b2 00 04 00 e4 02 00"
    assert vpd.logical_block_provisioning(anchor=True)[5] == 0x02


def test_referrals():
    assert (
        vpd.referrals(segment_size=0x1234, segment_multiplier=2).hex(" ") == "00 b3 00 0c 00 00 00 00 00 00 12 34 00 00 00 02"
    )
