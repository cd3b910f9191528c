"""Initiator ports whose nexus with a logical unit was lost: they are told when they come back (SAM-5 6.3.4)."""

from __future__ import annotations

LOST_PORTS_KEPT = 1024
"""Of a logical unit; the one that was lost first is forgotten first."""

Port = tuple[object, ...]


class LostPorts:
    """Those of one logical unit."""

    def __init__(self) -> None:
        self._ports: dict[Port, None] = {}

    def remember(self, port: Port) -> None:
        """Its nexus was lost."""
        self._ports.pop(port, None)
        self._ports[port] = None
        if len(self._ports) > LOST_PORTS_KEPT:
            del self._ports[next(iter(self._ports))]

    def take(self, port: Port) -> bool:
        """It is back; returns whether it was among them."""
        return self._ports.pop(port, port) is None

    def __len__(self) -> int:
        return len(self._ports)

    def __contains__(self, port: Port) -> bool:
        return port in self._ports
