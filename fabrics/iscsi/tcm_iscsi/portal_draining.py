"""A network portal of a portal group on its way out: no logins, and whoever came by it is asked to leave."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tcm.target.draining import GRACE

if TYPE_CHECKING:
    from tcm.target.portal_group import TargetPortalGroup
    from tcm_iscsi.protocol.full_feature import FullFeaturePhase
    from tcm_iscsi.server import Server
    from tcm_iscsi.sessions import PortalBinding


class PortalDraining:
    """See :class:`tcm.target.draining.Draining`. Commands go on: a connection's initiator decides when it leaves."""

    def __init__(self, server: Server, binding: PortalBinding, group: TargetPortalGroup) -> None:
        self._server = server
        self._binding = binding
        self._group = group
        self._patience = 0.0

    def _phases(self) -> list[FullFeaturePhase]:
        """Of connections that came by this portal, of the group's sessions."""
        found = []
        for link in self._server.links:
            connection = link.connection
            if connection is not None and connection.binding is self._binding and connection.phase is not None:
                port: Any = connection.phase.session.port
                if port is not None and port.group is self._group and not connection.phase.closing:
                    found.append(connection.phase)
        return found

    def begin(self, now: float, seconds: float) -> None:
        """Logins are refused; connections are asked to log out."""
        self._patience = now + min(GRACE, seconds / 2)
        self._binding.draining.append(self._group)
        for phase in self._phases():
            phase.request_logout(max(1, math.ceil(seconds)))

    def waits_for(self, now: float) -> str:
        """Connections with commands, or for a short while any."""
        phases = self._phases()
        busy = [phase for phase in phases if phase.session.allegiant(phase)]
        where = f"portal {self._binding.address}:{self._binding.port}"
        if busy:
            return f"{len(busy)} connection(s) with commands at {where}"
        return f"{len(phases)} connection(s) to log out at {where}" if phases and now < self._patience else ""

    def end(self) -> None:
        """Logins are taken again."""
        self._binding.draining.remove(self._group)
