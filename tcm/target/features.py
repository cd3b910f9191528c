"""Which of the commands that not every logical unit has this one offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.filter import erases_key
from tcm.scsi.command import Feature
from tcm.scsi.protection import ProtectionType

if TYPE_CHECKING:
    from tcm.target.logical_unit import LogicalUnit


def features_of(lu: LogicalUnit) -> frozenset[Feature]:
    """What an open logical unit offers: its configuration, its backstore and its access states decide."""
    attributes = lu.attributes
    offered = {
        Feature.UNMAP: lu.provisioned and attributes.emulate_tpu is not False,
        Feature.COMPARE_AND_WRITE: attributes.emulate_caw,
        Feature.ATOMIC_WRITE: True,
        Feature.BLOCK_ERASE: lu.provisioned,
        Feature.CRYPTOGRAPHIC_ERASE: erases_key(lu.backstore),
        Feature.RESERVE: attributes.emulate_pr,
        Feature.REPORT_SUPPORTED: attributes.emulate_rsoc,
        Feature.THIRD_PARTY_COPY: attributes.emulate_3pc,
        Feature.IDENTIFYING_INFORMATION: lu.store is not None,
        Feature.TYPE_2_PROTECTION: lu.protection.kind is ProtectionType.TYPE_2,
        Feature.EXPLICIT_ACCESS: lu.asymmetric_access.explicit,
        Feature.REFERRALS: lu.asymmetric_access.lba_map is not None,
    }
    return frozenset(feature for feature, there in offered.items() if there)
