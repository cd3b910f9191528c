"""Taking something out of service without breaking off what is under way (SAM-5 5.3.1: BUSY for what comes meanwhile).

Each kind begins, says what it still waits for, and ends: commands are taken again, unless what was drained is gone by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tcm.target.lun import Lun
    from tcm.target.nexus import ITLNexus, ITNexus
    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import TargetPortalGroup

GRACE = 1.0
"""Seconds that an initiator without commands has to log out once it has been asked to."""


class Draining(Protocol):
    """One thing that is taken out of service."""

    def begin(self, now: float, seconds: float) -> None:
        """New commands, or logins, are refused from now on.

        :param now: seconds on the monotonic clock.
        :param seconds: how long there is.
        """

    def waits_for(self, now: float) -> str:
        """What is still under way, for people; empty: nothing any more."""

    def end(self) -> None:
        """Commands and logins are taken again."""


class LunsDraining:
    """LUNs as some initiators reach them.

    :param what: for people.
    :param itls: gives the I_T_L nexuses, those that come meanwhile too.
    :param exported: the LUN, if it is drained for all initiators.
    """

    def __init__(self, what: str, itls: Callable[[], Iterable[ITLNexus]], exported: Lun | None = None) -> None:
        self._what = what
        self._itls = itls
        self._exported = exported

    @classmethod
    def of_lun(cls, lun: Lun) -> LunsDraining:
        """A LUN of a portal group, for everybody."""
        return cls(lun.path, lambda: [itl for itl in lun.logical_unit.itl_nexuses if itl.exported is lun], lun)

    @classmethod
    def of_mapped_lun(cls, group: TargetPortalGroup, acl: NodeAcl, number: int) -> LunsDraining:
        """A LUN as one initiator has it."""

        def itls() -> list[ITLNexus]:
            own = [nexus for nexus in group.nexuses if nexus.initiator_port.name == acl.initiator_name]
            return [itl for nexus in own for itl in nexus.luns.values() if itl.lun_number == number]

        return cls(f"LUN {number} of {acl.initiator_name}", itls)

    def begin(self, now: float, seconds: float) -> None:  # noqa: ARG002  it is all the same
        """See :class:`Draining`."""
        if self._exported is not None:
            self._exported.draining = True
        for itl in self._itls():
            itl.drain()

    def waits_for(self, now: float) -> str:  # noqa: ARG002  it is all the same
        """See :class:`Draining`."""
        count = 0
        for itl in self._itls():
            itl.drain()  # those that have come meanwhile
            count += sum(task.itl is itl for task in itl.nexus.tasks.values())
        return f"{count} command(s) at {self._what}" if count else ""

    def end(self) -> None:
        """See :class:`Draining`."""
        if self._exported is not None:
            self._exported.draining = False
        for itl in self._itls():
            itl.end_drain()


class NexusesDraining:
    """The I_T nexuses of a portal group, or of one initiator there: they are asked to leave, and nobody comes.

    :param ask: asks an initiator to log out within so many seconds.
    """

    def __init__(self, group: TargetPortalGroup, ask: Callable[[ITNexus, float], None], acl: NodeAcl | None = None) -> None:
        self._group = group
        self._ask = ask
        self._acl = acl
        self._patience = 0.0
        """Until when who has no commands may still log out."""

    def _nexuses(self) -> list[ITNexus]:
        acl = self._acl
        return [nexus for nexus in self._group.nexuses if acl is None or nexus.initiator_port.name == acl.initiator_name]

    def begin(self, now: float, seconds: float) -> None:
        """See :class:`Draining`."""
        self._patience = now + min(GRACE, seconds / 2)
        (self._group if self._acl is None else self._acl).draining = True
        for nexus in self._nexuses():
            nexus.drain()
            self._ask(nexus, seconds)

    def waits_for(self, now: float) -> str:
        """See :class:`Draining`: commands, or for a short while that who has none logs out."""
        nexuses = self._nexuses()
        busy = [nexus for nexus in nexuses if nexus.tasks]
        if busy:
            names = sorted({nexus.initiator_port.name for nexus in busy})
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            return f"{sum(len(nexus.tasks) for nexus in busy)} command(s) of {', '.join(names[:3])}{more}"
        return f"{len(nexuses)} initiator(s) to log out" if nexuses and now < self._patience else ""

    def end(self) -> None:
        """See :class:`Draining`."""
        (self._group if self._acl is None else self._acl).draining = False
        for nexus in self._nexuses():
            nexus.end_drain()
