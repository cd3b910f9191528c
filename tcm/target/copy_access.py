"""Which logical units a copy manager reaches for an initiator, and what it may do there (SPC-4 6.4.5.6, 5.17.7.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcm.scsi.asymmetric_access import ADMITTED, REFUSED
from tcm.scsi.check_condition import CommandTerminated, LogicalUnitNotSupported, ReservationConflict, WriteProtected
from tcm.scsi.command import AccessStates, Feature
from tcm.target.device_designators import unit_designators
from tcm.target.segments import check_segments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcm.scsi.designators import Designator
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.nexus import ITLNexus


class ReachableUnits:
    """The logical units to which the initiator that sent a command through ``itl`` has a way, by their designators."""

    def __init__(self, itl: ITLNexus) -> None:
        self._ways: dict[Designator, list[ITLNexus]] = {}
        of_unit: dict[LogicalUnit, list[ITLNexus]] = {}  # an initiator may have hundreds of ways to each of a few units
        for each in _reachable(itl):
            of_unit.setdefault(each.logical_unit, []).append(each)
        for unit, ways in of_unit.items():
            if Feature.THIRD_PARTY_COPY in unit.features:
                for designator in unit_designators(unit):
                    self._ways.setdefault(designator, []).extend(ways)

    def find(self, designator: Designator, *, write: bool) -> ITLNexus | None:
        """The way to a unit: the nearest one through which a read or a write is admitted now; if there is none, the nearest."""
        ways = self._ways.get(designator, [])
        return next((each for each in ways if _admits(each, write=write)), ways[0] if ways else None)


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


def _admits(itl: ITLNexus, *, write: bool) -> bool:
    try:
        admit(itl, write=write)
    except CommandTerminated:
        return False
    return True


def admit(itl: ITLNexus, blocks: tuple[int, int] | None = None, *, write: bool) -> None:
    """Raises what a READ or a WRITE through ``itl`` would end with now. An I_T nexus that was lost keeps its rights.

    :param blocks: first block and number of blocks, if it matters to the port's access state which they are.
    """
    lu = itl.logical_unit
    if itl not in lu.itl_nexuses and not itl.nexus.lost:
        raise LogicalUnitNotSupported
    state = itl.exported.access_state
    if AccessStates.ACTIVE not in ADMITTED[state]:
        raise REFUSED[state]
    if blocks is not None:
        check_segments(itl, *blocks)
    if lu.reserved:
        reads, writes = lu.persistent_reservations.admits(itl.nexus)
        if lu.spc2_reservation.excludes(itl) or not (writes if write else reads):
            raise ReservationConflict
    if not lu.ready:
        lu.check_ready()
    if write and (itl.write_protect or lu.write_protected):
        raise WriteProtected
