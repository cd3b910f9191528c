"""Which of the commands that not every logical unit has this one offers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tcm.backstore import Support
from tcm.filter import erases_key
from tcm.scsi.command import Feature
from tcm.scsi.protection import ProtectionType

if TYPE_CHECKING:
    from tcm.target.logical_unit import LogicalUnit


def features_of(lu: LogicalUnit) -> frozenset[Feature]:
    """What a logical unit offers: its configuration, what it knows of its backstore, and its access states decide."""
    attributes = lu.attributes
    return _offered(
        (
            lu.provisioning.thin and attributes.unmap,
            attributes.emulate_caw,
            True,
            lu.provisioning.thin,
            lu.capabilities.cryptographic_erase is Support.NATIVE and erases_key(lu.backstore),
            attributes.emulate_pr,
            attributes.emulate_rsoc,
            attributes.emulate_3pc,
            lu.store is not None,
            lu.protection.kind is ProtectionType.TYPE_2,
            lu.asymmetric_access.explicit,
            lu.asymmetric_access.lba_map is not None,
        )
    )


_FEATURES = (
    Feature.UNMAP,
    Feature.COMPARE_AND_WRITE,
    Feature.ATOMIC_WRITE,
    Feature.BLOCK_ERASE,
    Feature.CRYPTOGRAPHIC_ERASE,
    Feature.RESERVE,
    Feature.REPORT_SUPPORTED,
    Feature.THIRD_PARTY_COPY,
    Feature.IDENTIFYING_INFORMATION,
    Feature.TYPE_2_PROTECTION,
    Feature.EXPLICIT_ACCESS,
    Feature.REFERRALS,
)
"""In the order in which :func:`features_of` finds them out."""


@functools.lru_cache(maxsize=256)
def _offered(there: tuple[bool, ...]) -> frozenset[Feature]:
    """Most logical units offer the same."""
    return frozenset(feature for feature, offered in zip(_FEATURES, there, strict=True) if offered)
