"""Which logical units a copy manager reaches for an initiator, and what it may do there (SPC-4 6.4.5.6, 5.17.7.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.command import Feature
from tcm.scsi.sense import LogicalUnitNotSupported, ReservationConflict, WriteProtected
from tcm.target.device_server.identification import unit_designators

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm.scsi.designators import Designator
    from tcm.target.nexus import ITLNexus


def find_unit(itl: ITLNexus, designator: Designator, *, write: bool) -> ITLNexus | None:
    """The I_T_L nexus by which the initiator that sent a command through ``itl`` reaches the unit with a designator.

    :param write: one that may write is preferred.
    """
    found = [each for each in _reachable(itl) if designator in unit_designators(each.logical_unit)]
    offered = [each for each in found if Feature.THIRD_PARTY_COPY in each.logical_unit.features]
    if write:
        offered.sort(key=lambda each: each.protected)  # stable: the nearest comes first
    return offered[0] if offered else None


def _reachable(itl: ITLNexus) -> Iterator[ITLNexus]:
    """By the same I_T_L nexus, the same I_T nexus, and the initiator's sessions with other target ports of the process."""
    nexus = itl.nexus
    yield itl
    yield from nexus.luns.values()
    target = nexus.target_portal_group.target
    others = [
        other
        for peer in target.peers
        if peer.fabric_name == target.fabric_name
        for group in peer.portal_groups.values()
        for other in group.nexuses
        if other is not nexus and other.initiator_port.name == nexus.initiator_port.name
    ]
    for other in sorted(others, key=lambda each: each.identifier):
        yield from other.luns.values()


def admit(itl: ITLNexus, *, write: bool) -> None:
    """Raises what a READ or a WRITE through ``itl`` would end with now. An I_T nexus that was lost keeps its rights."""
    lu = itl.logical_unit
    if itl not in lu.itl_nexuses and not itl.nexus.lost:
        raise LogicalUnitNotSupported
    if lu.reserved:
        reads, writes = lu.persistent_reservations.admits(itl.nexus)
        if lu.reservation_holder not in {None, itl} or not (writes if write else reads):
            raise ReservationConflict
    if not lu.ready:
        lu.check_ready()
    if write and (itl.write_protect or lu.write_protected):
        raise WriteProtected
