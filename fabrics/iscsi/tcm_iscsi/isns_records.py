"""What an iSNS server is told of the fabric: the targets, and the portals at which each of them is reached."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from tcm_iscsi.addresses import WILDCARDS
from tcm_iscsi.protocol.isns_messages import Node, Portal, PortalKey, Registration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tcm.target.portal_group import TargetPortalGroup
    from tcm_iscsi.sessions import PortalBinding

MAX_WILDCARD_ADDRESSES = 32
"""Addresses that are registered for one portal that listens at all of them."""


def real_addresses(binding: PortalBinding, bindings: Sequence[PortalBinding], machine: Sequence[str], local: str) -> list[str]:
    """The addresses at which a portal is reached.

    :param machine: the machine's addresses; empty: not known, then ``local`` stands for them.
    :param local: an address of ours that the iSNS server can reach, or empty.
    """
    if binding.address not in WILDCARDS:
        # other machines cannot know on which link an address of link scope is
        return [] if ipaddress.ip_address(binding.address).is_link_local else [binding.address]
    families = {4} if binding.address == "0.0.0.0" else {6}
    if binding.address == "::" and not any(b.address == "0.0.0.0" and b.port == binding.port for b in bindings):
        families.add(4)  # as the server binds it
    known = [each for each in machine if ipaddress.ip_address(each).version in families]
    if not known and local and ipaddress.ip_address(local).version in families:
        known = [local]
    return known[:MAX_WILDCARD_ADDRESSES]


def portals_of(
    bindings: Sequence[PortalBinding], machine: Sequence[str], local: str
) -> dict[PortalKey, dict[str, TargetPortalGroup]]:
    """By real address and port, the enabled portal group of each target there, by the target's name."""
    found: dict[PortalKey, dict[str, TargetPortalGroup]] = {}
    for binding in bindings:
        if binding.tls:
            continue  # iSNS has no way to say that it wants a tunnel
        groups: dict[str, TargetPortalGroup] = {}
        for group in binding.groups:
            if group.enabled:
                groups.setdefault(group.target.name, group)
        if groups:
            for address in real_addresses(binding, bindings, machine, local):
                found.setdefault((address, binding.port), groups)
    return found


def registration(
    entity: str,
    portals: Mapping[PortalKey, Mapping[str, TargetPortalGroup]],
    notification_ports: Mapping[str, int],
    esi_interval: int,
) -> Registration | None:
    """What is to be registered; None: nothing is reached anywhere.

    :param notification_ports: by address, the TCP port that takes notifications and status inquiries.
    :param esi_interval: seconds between status inquiries; 0: none.
    """
    if not portals:
        return None
    names: dict[str, TargetPortalGroup] = {}
    for groups in portals.values():
        for name, group in groups.items():
            names.setdefault(name, group)
    records = []
    for address, port in portals:
        notified = notification_ports.get(address, 0)
        inquired = notified if esi_interval else 0
        records.append(Portal(address, port, esi_interval if inquired else 0, inquired, notified))
    nodes = [
        Node(
            name,
            _alias(group),
            tuple((key, groups[name].tag if name in groups else None) for key, groups in portals.items()),
        )
        for name, group in names.items()
    ]
    return Registration(entity, tuple(records), tuple(nodes))


def _alias(group: TargetPortalGroup) -> str:
    """TargetAlias, as far as it fits (RFC 4171 6.4.3)."""
    alias = str(getattr(group.parameters, "TargetAlias", "") or "").replace("\0", "")
    return alias.encode()[:252].decode(errors="ignore")
