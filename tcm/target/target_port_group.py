"""Target port groups: target ports that have the same access to a logical unit (SPC-4 5.16.2.1; LIO's ``alua/<group>``)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tcm.failure import ConfigError
from tcm.scsi.asymmetric_access import (
    SUPPORT_BITS,
    AccessState,
    AccessStatus,
    AccessType,
    GroupDescriptor,
)

if TYPE_CHECKING:
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.lun import Lun

DEFAULT_GROUP = "default_tg_pt_gp"
"""The group, with identifier 0, of every LUN that no other group was chosen for."""
MAXIMUM_IDENTIFIER = 0xFFFF
MAXIMUM_NAME_LENGTH = 255

_LIMITS = {"alua_access_type": 3, "nonop_delay_msecs": 10_000, "trans_delay_msecs": 30_000, "implicit_trans_secs": 255}
SUPPORT_ATTRIBUTES = {
    AccessState.TRANSITIONING: "alua_support_transitioning",
    AccessState.OFFLINE: "alua_support_offline",
    AccessState.LOGICAL_BLOCK_DEPENDENT: "alua_support_lba_dependent",
    AccessState.UNAVAILABLE: "alua_support_unavailable",
    AccessState.STANDBY: "alua_support_standby",
    AccessState.ACTIVE_NON_OPTIMIZED: "alua_support_active_nonoptimized",
    AccessState.ACTIVE_OPTIMIZED: "alua_support_active_optimized",
}
"""What says that a group may be in a state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAttributes:
    """LIO's attributes of a target port group, its names (lio-configfs 3.5), apart from state and status.

    Raises :class:`tcm.failure.ConfigError` for values that cannot be.
    """

    alua_access_type: int = AccessType.BOTH
    """:class:`AccessType`: who may change the state."""
    alua_support_transitioning: bool = True
    """The state is *transitioning* while it changes; otherwise the old one lasts until the new one."""
    alua_support_offline: bool = True
    alua_support_lba_dependent: bool = False
    alua_support_unavailable: bool = True
    alua_support_standby: bool = True
    alua_support_active_nonoptimized: bool = True
    alua_support_active_optimized: bool = True
    alua_write_metadata: bool = False
    """The state is kept through a restart."""
    nonop_delay_msecs: int = 100
    """Milliseconds that a command waits in the state active/non-optimized; at most 10,000."""
    trans_delay_msecs: int = 0
    """Milliseconds that a change of state takes; at most 30,000."""
    implicit_trans_secs: int = 0
    """IMPLICIT TRANSITION TIME, seconds, at most 255: only told, in the extended header."""
    preferred: bool = False
    """PREF."""

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise ConfigError(f"{name} {value} is out of range; write 0 to {limit}")

    @property
    def access_type(self) -> AccessType:
        """Who may change the state."""
        return AccessType(self.alua_access_type)

    def supports(self, state: AccessState) -> bool:
        """Whether the group may be in that state."""
        return bool(getattr(self, SUPPORT_ATTRIBUTES[state]))

    @property
    def supported(self) -> int:
        """T_SUP to AO_SUP."""
        return sum(bit for state, bit in SUPPORT_BITS.items() if self.supports(state))


ATTRIBUTES = tuple(field.name for field in fields(GroupAttributes))


class TargetPortGroup:
    """A target port group of one logical unit. Made by :meth:`AsymmetricAccess.add_group`.

    :param identifier: TARGET PORT GROUP, unique within the logical unit.
    """

    def __init__(self, logical_unit: LogicalUnit, name: str, identifier: int, attributes: GroupAttributes) -> None:
        self.logical_unit = logical_unit
        self.name = name
        self.identifier = identifier
        self.attributes = attributes
        self.state = AccessState.ACTIVE_OPTIMIZED
        """The primary state of every port in the group."""
        self.status = AccessStatus.NONE
        self.members: list[Lun] = []

    @property
    def kept(self) -> bool:
        """The state is kept in the store: configured so, or other nodes have to know it, or initiators alone change it.

        In the last case it has to outlive power on (SPC-4 5.16.2.9).
        """
        store, attributes = self.logical_unit.store, self.attributes
        if store is None:
            return False
        return attributes.alua_write_metadata or attributes.access_type is AccessType.EXPLICIT or store.shared

    @property
    def delay(self) -> float:
        """Seconds that a command waits before it is executed."""
        return self.attributes.nonop_delay_msecs / 1000 if self.state is AccessState.ACTIVE_NON_OPTIMIZED else 0.0

    def descriptor(self) -> GroupDescriptor:
        """The group as REPORT TARGET PORT GROUPS reports it."""
        return GroupDescriptor(
            identifier=self.identifier,
            state=self.state,
            supported=self.attributes.supported,
            status=self.status,
            preferred=self.attributes.preferred,
            ports=port_identifiers(self.members),
        )

    def member_names(self) -> list[str]:
        """LIO's ``members``: a line for each LUN."""
        return [lun.path for lun in self.members]


def port_identifiers(luns: list[Lun]) -> tuple[int, ...]:
    """Relative target port identifiers of the target ports that LUNs belong to, each once, ascending."""
    return tuple(sorted({lun.port.relative_target_port_identifier for lun in luns}))
