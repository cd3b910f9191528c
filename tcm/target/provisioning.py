"""Thin provisioning of a logical unit: whether, how much storage it has taken and can still have, thresholds (SBC-4 4.7.3)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from tcm.backstore import BackstoreError, Support
from tcm.scsi.mode_pages import LOGICAL_BLOCK_PROVISIONING
from tcm.target.unit_attention import threshold_reached

if TYPE_CHECKING:
    from tcm.backstore import Allocation
    from tcm.target.logical_unit import LogicalUnit

log = logging.getLogger(__name__)

AVAILABLE, USED = 0x01, 0x02
"""THRESHOLD RESOURCE, and parameter codes of the Logical Block Provisioning log page."""
DESCRIPTORS = {AVAILABLE: 16, USED: 24}
"""Byte offset of each one's threshold descriptor in the Logical Block Provisioning mode page."""
_SET_SIZE = 20
"""A threshold set is 1 MiB, or more if the medium has too many of those, as a power of two."""
_COUNTS = 1 << 32


class Resources(NamedTuple):
    """In threshold sets."""

    available: int
    used: int
    shared: bool
    """Other logical units may take from what is available."""


class Provisioning:
    """One logical unit's resources."""

    def __init__(self, logical_unit: LogicalUnit) -> None:
        self._logical_unit = logical_unit
        self.known = False
        """The backstore tells how much it has: there are a log page, a mode page and thresholds."""
        self.exponent = 0
        """THRESHOLD EXPONENT: a threshold set is two to the power of this many logical blocks; zero: no thresholds."""
        self.resources = Resources(0, 0, shared=True)
        """As of the last look."""
        self._reached: set[tuple[int, int]] = set()
        """Resources and counts of thresholds that everybody has been told of."""

    @property
    def thin(self) -> bool:
        """LBPME: the backstore unmaps, and unmapping is not switched off altogether."""
        attributes = self._logical_unit.attributes
        unmaps = self._logical_unit.capabilities.unmap is Support.NATIVE
        return unmaps and (attributes.unmap or attributes.emulate_tpws is not False)

    @property
    def write_same_unmaps(self) -> bool:
        """LBPWS: WRITE SAME may unmap."""
        return self.thin and self._logical_unit.attributes.emulate_tpws is not False

    @property
    def unmapped_reads_zero(self) -> bool:
        """LBPRZ."""
        chosen = self._logical_unit.attributes.unmap_zeroes_data
        unmap_zeroes = self._logical_unit.capabilities.unmap_zeroes
        return unmap_zeroes if chosen is None else chosen and unmap_zeroes

    async def load(self) -> None:
        """Ask the backstore whether it can tell."""
        lu = self._logical_unit
        try:
            self.known = self.thin and await lu.backstore.allocation() is not None
        except (OSError, BackstoreError) as error:
            log.warning("%s: how much storage there is cannot be told: %s", lu.name, error)
        if self.known:
            self.exponent = max(1, _SET_SIZE - lu.block_shift)
            while lu.blocks >> self.exponent >= _COUNTS:
                self.exponent += 1

    async def refresh(self) -> Resources:
        """Look again. Raises what the backstore raises."""
        allocation = await self._logical_unit.backstore.allocation()
        if allocation is not None:
            self.resources = self._in_sets(allocation)
        return self.resources

    def _in_sets(self, allocation: Allocation) -> Resources:
        shift = self.exponent + self._logical_unit.block_shift
        used = allocation.used + (1 << shift) - 1 >> shift
        return Resources(min(allocation.available >> shift, _COUNTS - 1), min(used, _COUNTS - 1), allocation.shared)

    async def check_thresholds(self) -> None:
        """Tell every I_T nexus of a threshold that has been reached, once until it is a set away from it again."""
        enabled = self._enabled() if self.known else {}
        self._reached &= set(enabled.items())
        if not enabled:
            return
        now = await self.refresh()
        for threshold in enabled.items():
            resource, count = threshold
            left = now.available - count if resource == AVAILABLE else count - now.used
            if left <= 0 and threshold not in self._reached:
                self._reached.add(threshold)
                self._logical_unit.establish_attention(threshold_reached(DESCRIPTORS[resource]))
            elif left > 1:
                self._reached.discard(threshold)

    def _enabled(self) -> dict[int, int]:
        """Counts of the thresholds that are enabled, by resource."""
        values = self._logical_unit.mode_parameters.values
        names = {AVAILABLE: "available", USED: "used"}
        return {
            resource: values.get(LOGICAL_BLOCK_PROVISIONING, f"{name}_count")
            for resource, name in names.items()
            if values.get(LOGICAL_BLOCK_PROVISIONING, f"{name}_enabled")
        }
