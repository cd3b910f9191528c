"""The SCSI target device under one name (SAM-5 4.6)."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from tcm.target.portal_group import TargetPortalGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm.target.nexus import ITNexus

_indexes = itertools.count(1)


class TargetDevice:
    """A SCSI target device under one name of one fabric."""

    def __init__(self, name: str, fabric_name: str) -> None:
        self.name = name
        self.fabric_name = fabric_name
        self.portal_groups: dict[int, TargetPortalGroup] = {}
        self.resets = 0
        """TARGET WARM RESET and TARGET COLD RESET functions."""
        self.index = next(_indexes)
        """Unique in the process."""
        self.created = time.monotonic()
        """When that was, on the monotonic clock."""
        self.peers: list[TargetDevice] = [self]
        """All target devices of the process, to whose units third-party copies may go (set by the runtime)."""
        self.nexus_established: Callable[[ITNexus], None] | None = None
        """Told of every new nexus (set by the runtime)."""
        self.nexus_lost: Callable[[ITNexus], None] | None = None
        """Told of every lost nexus (set by the runtime)."""
        self.unhandled_error: Callable[[str, BaseException], None] | None = None
        """For the fabric to tell of what nobody expected, besides the log (set by the runtime)."""

    def add_portal_group(self, tag: int) -> TargetPortalGroup:
        """A new target portal group. Raises :class:`ValueError` if the tag is taken."""
        if tag in self.portal_groups:
            raise ValueError(f"{self.name} has a portal group {tag} already")
        group = self.portal_groups[tag] = TargetPortalGroup(self, tag)
        return group

    def remove_portal_group(self, tag: int) -> None:
        """One that nobody uses any more. Raises :class:`KeyError`."""
        self.portal_groups.pop(tag).identify(None)
