"""A logical unit under a number: of a target port, and as one initiator sees it (SAM-5 4.7; LIO's ``lun_N``)."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcm.scsi.asymmetric_access import AccessState, AccessStatus
from tcm.scsi.mode_pages import ModePageValues
from tcm.target.access_metadata import FABRICS
from tcm.target.counters import totals
from tcm.target.logical_unit import LogicalUnit
from tcm.target.target_port_group import TargetPortGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tcm.scsi.mode_pages import Key
    from tcm.target.portal_group import TargetPortalGroup  # noqa: TC004  # that module wants this one; annotations are text

_UNRESTRICTED = frozenset({AccessState.ACTIVE_OPTIMIZED, AccessState.ACTIVE_NON_OPTIMIZED})


@dataclass(slots=True, eq=False)
class Lun:
    """A logical unit under a number of a portal group."""

    number: int
    logical_unit: LogicalUnit
    port: TargetPortalGroup
    alias: str = ""
    target_port_group: TargetPortGroup = field(init=False, repr=False)
    """The (ALUA) target port group; set and changed by :class:`AsymmetricAccess`."""
    offline: bool = False
    """The secondary access state is offline (LIO: ``alua_tg_pt_offline``)."""
    offline_status: AccessStatus = AccessStatus.NONE
    """Who brought that about (LIO: ``alua_tg_pt_status``)."""
    alua_tg_pt_write_md: bool = False
    """The secondary access state is kept through a restart."""
    draining: bool = False
    """It is about to go: new commands end in BUSY."""
    retired: Counter[str] = field(default_factory=Counter, repr=False)
    """What I_T_L nexuses that are gone have counted here."""

    _mode_pages: ModePageValues | None = field(default=None, init=False, repr=False)

    @property
    def mode_pages(self) -> ModePageValues | None:
        """Protocol-specific mode pages of the logical unit at this target port; ``None``: it has none."""
        protocol = self.port.protocol_mode_pages
        if self._mode_pages is None and protocol is not None:
            self._mode_pages = ModePageValues(protocol.pages, defaults=protocol.defaults)
        return self._mode_pages

    @property
    def changed_mode_pages(self) -> ModePageValues | None:
        """The same, if they do not have their default values."""
        values = self._mode_pages
        return values if values is not None and values.current != values.default else None

    def change_mode_pages(self, pages: Mapping[Key, bytes]) -> bool:
        """Make some of them current, and tell the fabric. Returns whether that changed anything."""
        values = self.mode_pages
        if values is None or all(values.current[key] == page for key, page in pages.items()):
            return False
        values.current = {**values.current, **pages}
        for itl in tuple(self.logical_unit.itl_nexuses):
            if itl.exported is self:
                itl.nexus.services.mode_pages_changed(itl.lun, values)
        return True

    def totals(self) -> Counter[str]:
        """All of :data:`~tcm.target.counters.COUNTERS`, of all initiators there are and were."""
        return totals(self.retired, (itl for itl in self.logical_unit.itl_nexuses if itl.exported is self))

    @property
    def access_state(self) -> AccessState:
        """How well the logical unit is reached here."""
        return AccessState.OFFLINE if self.offline else self.target_port_group.state

    @property
    def delay(self) -> float:
        """Seconds that a command waits here before it is executed."""
        return self.target_port_group.delay

    @property
    def restricted(self) -> bool:
        """Not every command is taken at once: an access state has to be asked for."""
        return bool(self.delay) or self.access_state not in _UNRESTRICTED

    @property
    def kept(self) -> bool:
        """The secondary access state is kept in the store."""
        store = self.logical_unit.store
        return store is not None and (self.alua_tg_pt_write_md or store.shared)

    @property
    def path(self) -> str:
        """``iSCSI/<name>/tpgt_1/lun_0``, as LIO writes it."""
        target = self.port.target
        return f"{FABRICS.get(target.fabric_name, target.fabric_name)}/{target.name}/tpgt_{self.port.tag}/lun_{self.number}"


@dataclass(slots=True, eq=False)
class MappedLun:
    """A portal group's LUN as one initiator sees it."""

    number: int
    lun: Lun
    write_protect: bool = False
    alias: str = ""
    """The name of LIO's link."""
    dynamic: bool = False
    """Made by demo mode, and nobody has asked for it since."""
    created: float = field(default_factory=time.monotonic, repr=False)
    """When that was, on the monotonic clock."""
    attached: int = 0
    """How many nexuses of the initiator there have been."""
    retired: Counter[str] = field(default_factory=Counter, repr=False)
    """What I_T_L nexuses that are gone have counted."""
