"""What a fabric tells of its portals, sessions and logins: the rows that every way of looking at them is made of.

Rows are read when somebody asks, in the event loop; what counts are plain integers of the fabric's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcm.statistics.mib import Module
    from tcm.statistics.mib_state import MibState
    from tcm.target.device import TargetDevice
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import TargetPortalGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalRow:
    """Where the fabric listens."""

    portal: str
    """``127.0.0.1:3260``."""
    connections: int
    """Now."""
    accepted: int
    """Since the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A session: the fabric's side of an I_T nexus."""

    target: str
    tag: int
    """Of the target portal group."""
    initiator: str
    isid: str
    """Hexadecimal; empty where there is none."""
    addresses: tuple[str, ...]
    """Of the initiator, one for each connection."""
    established: float
    """On the monotonic clock."""
    cmd_pdus: int
    """SCSI commands that have arrived."""
    rsp_pdus: int
    """Responses that were sent to them."""
    txdata_octets: int
    """Bytes of Data-In."""
    rxdata_octets: int
    """Bytes of Data-Out."""
    digest_errors: int = 0
    timeout_errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRow:
    """Logins to a target device, and how sessions ended, since the start."""

    target: str
    """Empty for those to none of ours, discovery included."""
    accepted: int
    refused: Mapping[str, int] = field(default_factory=dict)
    """By reason, in the words of the fabric's standard."""
    logouts: Mapping[str, int] = field(default_factory=dict)
    """By reason, likewise."""
    session_failures: Mapping[str, int] = field(default_factory=dict)
    """By reason, likewise: sessions that ended without a logout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitiatorRow:
    """An initiator device of this very process, and its only port."""

    name: str
    """As its I_T nexuses say."""
    resets: int
    """Logical unit and target resets that it has asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountsRow:
    """What a part of the fabric has counted besides all that, since the start."""

    part: str
    """Which, for people: ``eth1``, a port name."""
    counts: Mapping[str, int]
    """By name, ``lower_case_with_underscores``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LioGroup:
    """A directory of LIO's tree with statistics: the fields of a subclass are its files, in LIO's spelling.

    A value of ``None`` is one that cannot be read now (LIO: ENODEV).
    """

    GROUP: ClassVar[str]
    """Its name."""


class FabricStatistics:
    """What :meth:`tcm.fabric.Fabric.statistics` returns. Every method may be left out."""

    def portals(self) -> Sequence[PortalRow]:
        """One row a portal.

        If omitted: there are none.
        """
        return ()

    def sessions(self) -> Sequence[SessionRow]:
        """One row for each I_T nexus that there is.

        If omitted: none are shown; the core's own counters of the nexus are.
        """
        return ()

    def logins(self) -> Sequence[LoginRow]:
        """One row a target, and maybe one for what belongs to none.

        If omitted: logins are not counted.
        """
        return ()

    def initiators(self) -> Sequence[InitiatorRow]:
        """One row for each name that initiator ports of this process have.

        If omitted: they are all elsewhere.
        """
        return ()

    def counts(self) -> Sequence[CountsRow]:
        """One row for each part of the fabric that counts something of its own.

        If omitted: nothing of the kind is shown.
        """
        return ()

    def target_groups(self, target: TargetDevice) -> Sequence[LioGroup]:
        """``<wwn>/fabric_statistics/`` (lio-configfs 4.2).

        If omitted: the directory is empty.
        """
        del target
        return ()

    def node_acl_groups(self, group: TargetPortalGroup, acl: NodeAcl) -> Sequence[LioGroup]:
        """``acls/<initiator>/fabric_statistics/`` (lio-configfs 4.3.6).

        If omitted: the directory is empty.
        """
        del group, acl
        return ()

    def transport_row(self, target: TargetDevice, index: int) -> tuple[int, ...]:
        """Where a MIB module of :meth:`mib` tells of a target device: the identifier of its row, for SCSI-MIB to point to.

        :param index: of the target device in SCSI-MIB.

        If omitted: nowhere.
        """
        del target, index
        return 0, 0

    def mib(self, state: MibState) -> Sequence[Module]:
        """MIB modules of the fabric's own, for SNMP.

        :param state: the indexes that rows have.

        If omitted: there are none.
        """
        del state
        return ()
