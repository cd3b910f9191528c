"""User data segments of a unit in the state *logical block dependent*: which blocks a target port reaches (SBC-4 4.26.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.asymmetric_access import REFUSED, AccessState
from tcm.scsi.check_condition import InspectReferralsSenseDescriptors
from tcm.scsi.referrals import referral_sense_descriptor
from tcm.scsi.sense import Sense

if TYPE_CHECKING:
    from tcm.scsi.referrals import LbaMap, UserDataSegment
    from tcm.target.nexus import ITLNexus

_ACTIVE = frozenset({AccessState.ACTIVE_OPTIMIZED, AccessState.ACTIVE_NON_OPTIMIZED})


def check_segments(itl: ITLNexus, lba: int, blocks: int) -> None:
    """Refuse a range of which the target port does not reach all, if its group is in that state.

    Raises NOT READY for the state of the first block that it does not reach; if descriptor sense data are wanted and another
    group reaches it, ABORTED COMMAND with the user data segments from there on.
    """
    exported = itl.exported
    lu = itl.logical_unit
    lba_map = lu.asymmetric_access.lba_map
    if lba_map is None or exported.access_state is not AccessState.LOGICAL_BLOCK_DEPENDENT or lba + blocks > lu.blocks:
        return
    group = exported.target_port_group.identifier
    for at, segment in lba_map.pieces(lba, blocks):
        state = AccessState.UNAVAILABLE if segment is None else segment.states.get(group, AccessState.UNAVAILABLE)
        if state not in _ACTIVE:
            if lu.mode_parameters.descriptor_sense and segment is not None and not _ACTIVE.isdisjoint(segment.states.values()):
                raise _referral(lba_map, at, lu.blocks - at)
            raise REFUSED[state]


def _referral(lba_map: LbaMap, lba: int, blocks: int) -> InspectReferralsSenseDescriptors:
    sense = InspectReferralsSenseDescriptors
    descriptor = referral_sense_descriptor(segments_from(lba_map, lba, blocks))
    return sense(sense=Sense(key=sense.key, asc=sense.asc, ascq=sense.ascq, descriptors=descriptor))


def segments_from(lba_map: LbaMap, lba: int, blocks: int) -> list[UserDataSegment]:
    """The lines of a range, each once, in the order in which they come."""
    return list(dict.fromkeys(segment for _, segment in lba_map.pieces(lba, blocks) if segment is not None))
