"""Standard INQUIRY data (SPC-5 6.7.2)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from tcm.scsi.layout import Layout, bits, flag, number
from tcm.scsi.text import left_aligned

if TYPE_CHECKING:
    from collections.abc import Sequence


class PeripheralQualifier(enum.IntEnum):
    """SPC-5 table 146."""

    CONNECTED = 0b000
    NOT_CONNECTED = 0b001
    """The target could have a logical unit there, but has none now."""
    IMPOSSIBLE = 0b011
    """No logical unit at this LUN; the type is UNKNOWN."""


class DeviceType(enum.IntEnum):
    """SPC-5 table 147; those that we have."""

    DIRECT_ACCESS_BLOCK = 0x00
    WELL_KNOWN = 0x1E
    UNKNOWN = 0x1F


class VersionDescriptor(enum.IntEnum):
    """SPC-5 table 148: the standards themselves, no version claimed."""

    SAM_5 = 0x00A0
    SPC_4 = 0x0460
    SPC_5 = 0x05C0
    SBC_3 = 0x04C0
    SBC_4 = 0x0600
    ISCSI = 0x0960
    FCP_4 = 0x0A40


class ProtocolIdentifier(enum.IntEnum):
    """SPC-5 table 450; those that have a meaning here."""

    FCP = 0x0
    SAS = 0x6
    ISCSI = 0x5
    NONE = 0xF


TRANSPORT_VERSIONS: dict[ProtocolIdentifier, VersionDescriptor] = {
    ProtocolIdentifier.ISCSI: VersionDescriptor.ISCSI,
    ProtocolIdentifier.FCP: VersionDescriptor.FCP_4,
}

VERSION_SPC_4 = 0x06
"""The VERSION field. SPC-5's 07h is unknown to initiators that check it (libiscsi's suite); SPC-5 has its descriptor."""

MAXIMUM_VERSION_DESCRIPTORS = 8

_HEAD = Layout(
    8,
    (
        bits("peripheral_qualifier", 0, 7, 5),
        bits("peripheral_device_type", 0, 4, 0),
        flag("rmb", 1, 7),
        flag("lu_cong", 1, 6),
        number("version", 2, 2),
        flag("normaca", 3, 5),
        flag("hisup", 3, 4),
        bits("response_data_format", 3, 3, 0),
        number("additional_length", 4, 4),
        flag("sccs", 5, 7),
        bits("tpgs", 5, 5, 4),
        flag("3pc", 5, 3),
        flag("protect", 5, 0),
        flag("encserv", 6, 6),
        flag("multip", 6, 4),
        flag("cmdque", 7, 1),
    ),
)


def peripheral(qualifier: PeripheralQualifier, device_type: DeviceType) -> int:
    """The first byte of standard INQUIRY data and of every VPD page."""
    return qualifier << 5 | device_type


def version_descriptors(protocol: ProtocolIdentifier | None) -> tuple[int, ...]:
    """What a direct access block device claims, behind a target port of ``protocol``."""
    transport = TRANSPORT_VERSIONS.get(protocol) if protocol is not None else None
    command_sets = (VersionDescriptor.SPC_4, VersionDescriptor.SBC_3, VersionDescriptor.SPC_5, VersionDescriptor.SBC_4)
    return (VersionDescriptor.SAM_5, *((transport,) if transport else ()), *command_sets)


def standard_inquiry_data(
    *,
    vendor: str,
    product: str,
    revision: str,
    qualifier: PeripheralQualifier = PeripheralQualifier.CONNECTED,
    device_type: DeviceType = DeviceType.DIRECT_ACCESS_BLOCK,
    removable: bool = False,
    multiple_ports: bool = False,
    tpgs: int = 0,
    third_party_copy: bool = False,
    protect: bool = False,
    versions: Sequence[int] = (),
) -> bytes:
    """96 bytes: the required 36, 20 vendor specific, and the version descriptors.

    :param tpgs: 0 to 3: how target port group asymmetric access is managed (SPC-5 table 149).
    :param versions: at most 8 version descriptors.
    """
    if len(versions) > MAXIMUM_VERSION_DESCRIPTORS:
        raise ValueError(f"{len(versions)} version descriptors; there is room for {MAXIMUM_VERSION_DESCRIPTORS}")
    descriptors = b"".join(version.to_bytes(2, "big") for version in versions).ljust(2 * MAXIMUM_VERSION_DESCRIPTORS, b"\0")
    names = left_aligned(vendor, 8) + left_aligned(product, 16) + left_aligned(revision, 4)
    tail = names + bytes(22) + descriptors + bytes(22)
    head = _HEAD.pack(
        {
            "peripheral_qualifier": qualifier,
            "peripheral_device_type": device_type,
            "rmb": removable,
            "version": VERSION_SPC_4,
            "hisup": 1,
            "response_data_format": 2,
            "additional_length": len(tail) + 3,
            "tpgs": tpgs,
            "3pc": third_party_copy,
            "protect": protect,
            "multip": multiple_ports,
            "cmdque": 1,
        }
    )
    return head + tail
