"""What a logical unit says of itself in standard INQUIRY data and in VPD pages."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tcm.backstore import Support
from tcm.scsi import designators, rod_token_limits, third_party_copy, vpd
from tcm.scsi.command import Feature
from tcm.scsi.command_table import rows
from tcm.scsi.inquiry import (
    DeviceType,
    PeripheralQualifier,
    peripheral,
    standard_inquiry_data,
    version_descriptors,
)
from tcm.scsi.mode_pages import ALL_PAGES, ALL_SUBPAGES
from tcm.scsi.rod_token_commands import MAXIMUM_RANGES
from tcm.target import rod_tokens
from tcm.target.copy_manager import MAXIMUM_COPIES
from tcm.target.device_designators import port_designators, protocol_of, unit_designators

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus, ITNexus


def standard_data(itl: ITLNexus) -> bytes:
    """Standard INQUIRY data."""
    lu = itl.logical_unit
    groups = itl.nexus.target_portal_group.target.portal_groups.values()
    ports = sum(any(lun.logical_unit is lu for lun in group.luns.values()) for group in groups)
    return standard_inquiry_data(
        vendor=lu.identity.vendor,
        product=lu.identity.product,
        revision=lu.identity.revision,
        removable=lu.removable,
        multiple_ports=ports > 1,
        protect=lu.protection.supported,
        tpgs=itl.exported.target_port_group.attributes.access_type,
        third_party_copy=Feature.THIRD_PARTY_COPY in lu.features,
        versions=version_descriptors(protocol_of(itl.nexus)),
    )


def _device_identification(itl: ITLNexus) -> bytes:
    lu = itl.logical_unit
    lu_group = lu.asymmetric_access.logical_unit_group
    # to name the default group, as LIO does, would say that its units change state together (SPC-4 7.8.6.9)
    together = [designators.logical_unit_group(lu_group.identifier)] if lu_group is not None and lu_group.identifier else []
    found = [
        *unit_designators(lu),
        *together,
        designators.target_port_group(itl.exported.target_port_group.identifier, protocol_of(itl.nexus)),
        *port_designators(itl.nexus),
    ]
    return vpd.device_identification(found)


def _extended_inquiry_data(lu: LogicalUnit) -> bytes:
    fields: dict[str, int] = {"v_sup": lu.capabilities.flush is Support.NATIVE, "r_sup": Feature.REFERRALS in lu.features}
    if lu.protection.supported:
        fields |= {"spt": vpd.SUPPORTED_PROTECTION_TYPES, "grd_chk": 1, "app_chk": 1, "ref_chk": 1, "no_pi_chk": 1}
    return vpd.extended_inquiry_data(**fields)


def _block_device_characteristics(lu: LogicalUnit) -> bytes:
    solid = not lu.capabilities.rotational if lu.attributes.is_nonrot is None else lu.attributes.is_nonrot
    return vpd.block_device_characteristics(
        rotation_rate=vpd.RotationRate.NON_ROTATING if solid else vpd.RotationRate.NOT_REPORTED,
        block_erase=Feature.BLOCK_ERASE in lu.features,
        cryptographic_erase=Feature.CRYPTOGRAPHIC_ERASE in lu.features,
    )


def _logical_block_provisioning(lu: LogicalUnit) -> bytes:
    return vpd.logical_block_provisioning(
        provisioning=vpd.ProvisioningType.THIN if lu.provisioning.thin else vpd.ProvisioningType.FULL,
        unmap=Feature.UNMAP in lu.features,
        write_same_16=lu.provisioning.write_same_unmaps,
        write_same_10=lu.provisioning.write_same_unmaps,
        reads_zeroes=lu.provisioning.thin and lu.provisioning.unmapped_reads_zero,
        threshold_exponent=lu.provisioning.exponent,
    )


def _referrals(lu: LogicalUnit) -> bytes:
    lba_map = lu.asymmetric_access.lba_map
    if lba_map is None:
        return vpd.referrals()
    return vpd.referrals(segment_size=lba_map.segment_size, segment_multiplier=lba_map.segment_multiplier)


def _third_party_copy(lu: LogicalUnit) -> bytes:
    actions = {
        code: [row.service_action or 0 for row in rows(code) if row.feature is None or row.feature in lu.features]
        for code in THIRD_PARTY_COPY_CODES
    }
    descriptors = [
        third_party_copy.supported_commands(actions),
        *third_party_copy.extended_copy_descriptors(MAXIMUM_COPIES),
        *_rod_token_descriptors(lu),
    ]
    return third_party_copy.third_party_copy_page(descriptors)


def _rod_token_descriptors(lu: LogicalUnit) -> list[bytes]:
    return [
        rod_token_limits.block_device_rod_limits(
            maximum_ranges=MAXIMUM_RANGES,
            maximum_timeout=rod_tokens.MAXIMUM_INACTIVITY_TIMEOUT,
            default_timeout=rod_tokens.DEFAULT_INACTIVITY_TIMEOUT,
            maximum_blocks=rod_tokens.MAXIMUM_BYTES >> lu.block_shift,
            optimal_blocks=rod_tokens.OPTIMAL_BYTES >> lu.block_shift,
        ),
        rod_token_limits.rod_token_features(
            lifetime=rod_tokens.LIFETIME,
            maximum_timeout=rod_tokens.MAXIMUM_INACTIVITY_TIMEOUT,
            maximum_bytes=rod_tokens.MAXIMUM_BYTES,
            optimal_bytes=rod_tokens.OPTIMAL_BYTES,
        ),
        rod_token_limits.supported_rod_types(),
    ]


THIRD_PARTY_COPY_CODES = (0x83, 0x84)
"""Operation codes whose service actions are third-party copy commands."""
_PAGES_WITH = {vpd.VpdPage.THIRD_PARTY_COPY: Feature.THIRD_PARTY_COPY}
"""VPD pages that a logical unit without a feature does not have."""


def vpd_page(itl: ITLNexus, code: int) -> bytes | None:
    """A VPD page; ``None`` if the logical unit does not have it."""
    return VPD_PAGES[code](itl) if code in _pages_of(itl) else None


def _pages_of(itl: ITLNexus) -> list[int]:
    features = {None, *itl.logical_unit.features}
    return [
        code
        for code in VPD_PAGES
        if _PAGES_WITH.get(vpd.VpdPage(code)) in features
        and (code != vpd.VpdPage.MODE_PAGE_POLICY or itl.exported.mode_pages is not None)
    ]


def _mode_page_policy(itl: ITLNexus) -> bytes:
    """Those of the target port's protocol are per target port, all others shared, as they are where there is no such page."""
    protocol = itl.exported.mode_pages
    own = [(*key, vpd.PagePolicy.PER_TARGET_PORT) for key in (protocol.pages if protocol is not None else ())]
    return vpd.mode_page_policy([*own, (ALL_PAGES, ALL_SUBPAGES, vpd.PagePolicy.SHARED)])


VPD_PAGES: dict[int, Callable[[ITLNexus], bytes]] = {
    vpd.VpdPage.SUPPORTED_PAGES: lambda itl: vpd.supported_pages(_pages_of(itl)),
    vpd.VpdPage.UNIT_SERIAL_NUMBER: lambda itl: vpd.unit_serial_number(itl.logical_unit.serial),
    vpd.VpdPage.DEVICE_IDENTIFICATION: _device_identification,
    vpd.VpdPage.EXTENDED_INQUIRY_DATA: lambda itl: _extended_inquiry_data(itl.logical_unit),
    vpd.VpdPage.MODE_PAGE_POLICY: _mode_page_policy,
    vpd.VpdPage.THIRD_PARTY_COPY: lambda itl: _third_party_copy(itl.logical_unit),
    vpd.VpdPage.BLOCK_LIMITS: lambda itl: vpd.block_limits(**asdict(itl.logical_unit.limits)),
    vpd.VpdPage.BLOCK_DEVICE_CHARACTERISTICS: lambda itl: _block_device_characteristics(itl.logical_unit),
    vpd.VpdPage.LOGICAL_BLOCK_PROVISIONING: lambda itl: _logical_block_provisioning(itl.logical_unit),
    vpd.VpdPage.REFERRALS: lambda itl: _referrals(itl.logical_unit),
}


def inquiry_data(itl: ITLNexus) -> tuple[bytes, ...]:
    """All that INQUIRY can say to an I_T nexus."""
    return standard_data(itl), *(builder(itl) for builder in VPD_PAGES.values())


_WELL_KNOWN = peripheral(PeripheralQualifier.CONNECTED, DeviceType.WELL_KNOWN)

WELL_KNOWN_VPD_PAGES: dict[int, Callable[[ITNexus], bytes]] = {
    vpd.VpdPage.SUPPORTED_PAGES: lambda _: vpd.supported_pages(WELL_KNOWN_VPD_PAGES, _WELL_KNOWN),
    vpd.VpdPage.DEVICE_IDENTIFICATION: lambda nexus: vpd.device_identification(port_designators(nexus), _WELL_KNOWN),
}
"""A well-known logical unit has no designators of its own, but its target's (SPC-5 7.7.6.1)."""
