"""Links: what carries Ethernet frames. Only this package touches the network."""

from __future__ import annotations

from tcm_fcoe.link.base import Link, LinkCounters
from tcm_fcoe.link.datagram import PREFIX, DatagramLink
from tcm_fcoe.link.packet import PacketLink

__all__ = ["Link", "LinkCounters", "open_link"]


def open_link(name: str, *, promiscuous: bool = False, address: bytes | None = None) -> Link:
    """The link that ``--interface`` names: a network interface, or ``unix:LOCAL,PEER``, one frame a datagram.

    :param promiscuous: frames to any address come in.
    :param address: MAC address of a ``unix:`` link; an interface has its own.
    :raises ConfigError: it cannot be used; one line says why and what to do.
    """
    if name.startswith(PREFIX):
        return DatagramLink(name, address=address, promiscuous=promiscuous)
    return PacketLink(name, promiscuous=promiscuous)
