"""Who may log in from where, and who is sent to another portal: the rules of portal groups and node ACLs, as they are written.

A rule is read when the configuration is (:class:`tcm.failure.ConfigError` says what is wrong), and again, from a cache, when
somebody logs in.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcm.failure import ConfigError
from tcm_iscsi.protocol.login_interface import LoginError
from tcm_iscsi.protocol.names import InvalidName, normalize
from tcm_iscsi.protocol.pdu import LoginStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tcm.target.node_acl import NodeAcl
    from tcm.target.portal_group import TargetPortalGroup

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ISCSI_PORT = 3260
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_PORTAL = re.compile(r"(?:\[(?P<v6>[^]]*)\]|(?P<host>[^\s\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")
_REDIRECTIONS = (
    ("redirect_permanently", LoginStatus.TARGET_MOVED_PERMANENTLY),
    ("redirect_temporarily", LoginStatus.TARGET_MOVED_TEMPORARILY),
)
_HOW = (
    "write ADDR:PORT, then if you like portal=ADDR:PORT (where the login arrives), initiator=PATTERN and address=NETWORK, "
    "with spaces between them"
)


def address_of(text: str) -> Address | None:
    """An IP address without its zone, an IPv4 address in IPv6 clothes as itself; ``None`` for anything else."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


# addresses


@functools.lru_cache(maxsize=1024)
def network(text: str) -> Network:
    """``10.0.0.0/8``, ``2001:db8::/32``, or one address. Raises ConfigError."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(f"{text!r} is not a network; write one such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7") from None
    if "/" in text and ipaddress.ip_address(text.partition("/")[0]) != found.network_address:
        raise ConfigError(f"{text!r} has bits beyond its prefix; write {found}")
    mapped = address_of(str(found.network_address))
    if isinstance(found, ipaddress.IPv6Network) and isinstance(mapped, ipaddress.IPv4Address) and found.prefixlen >= 96:
        return ipaddress.IPv4Network((mapped, found.prefixlen - 96))
    return found


def within(address: str, networks: Iterable[str]) -> bool:
    """Whether the address is in one of the networks. An address that is none is in no network."""
    found = address_of(address)
    return found is not None and any(found in network(text) for text in networks)


# names


@functools.lru_cache(maxsize=1024)
def name_pattern(text: str) -> re.Pattern[str]:
    """An iSCSI name, or one with ``*`` for any characters and ``?`` for one. Raises ConfigError."""
    if not re.search(r"[*?]", text):
        try:
            return re.compile(re.escape(normalize(text)))
        except InvalidName as e:
            raise ConfigError(f"{e}; or a pattern with * and ?") from None
    wildcards = {"*": ".*", "?": "."}
    return re.compile("".join(wildcards.get(character) or re.escape(character) for character in text.lower()))


def named(initiator_name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns fits the (normalised) name."""
    return any(name_pattern(text).fullmatch(initiator_name) for text in patterns)


# redirection


@dataclass(frozen=True, slots=True)
class Redirection:
    """A rule that sends logins to another portal."""

    destination: tuple[str, int]
    """Address in its normal form, or host name; port."""
    portal: tuple[str, int | None] | None = None
    """Only logins that arrive at this address (and port)."""
    initiators: str | None = None
    """Only logins of initiators of this name or pattern."""
    addresses: str | None = None
    """Only logins that come from this network."""

    @property
    def target_address(self) -> str:
        """TargetAddress of the Login Response: no portal group tag (RFC 7143 13.8)."""
        host, port = self.destination
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def concerns(self, initiator_name: str, peer: str) -> bool:
        """Whether it is for this initiator, wherever it arrives."""
        return (self.initiators is None or named(initiator_name, (self.initiators,))) and (
            self.addresses is None or within(peer, (self.addresses,))
        )


@functools.lru_cache(maxsize=1024)
def redirection(text: str) -> Redirection:
    """``ADDR[:PORT] [portal=ADDR[:PORT]] [initiator=PATTERN] [address=NETWORK]``. Raises ConfigError."""
    words = text.split()
    if not words:
        raise ConfigError(f"an empty redirection; {_HOW}")
    if "," in words[0]:
        raise ConfigError(f"{words[0]!r}: a redirection names no portal group tag (RFC 7143 13.8); leave it out")
    host, port = _portal(words[0])
    if address_of(host) is None and _HOST_NAME.fullmatch(host) is None:
        raise ConfigError(f"{words[0]!r} is not an address and a port; {_HOW}")
    conditions: dict[str, str] = {}
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key not in ("portal", "initiator", "address") or not value or key in conditions:
            raise ConfigError(f"{word!r} is no condition, or the second of its kind; {_HOW}")
        conditions[key] = value
    portal = _portal(conditions["portal"]) if "portal" in conditions else None
    if portal is not None and address_of(portal[0]) is None:
        raise ConfigError(f"portal={conditions['portal']}: not an IP address; write that of a portal of this machine")
    if "initiator" in conditions:
        name_pattern(conditions["initiator"])
    if "address" in conditions:
        network(conditions["address"])
    return Redirection((host, port or ISCSI_PORT), portal, conditions.get("initiator"), conditions.get("address"))


def _portal(text: str) -> tuple[str, int | None]:
    found = _PORTAL.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    wrong = found is None or (found["v6"] is not None and address_of(found["v6"]) is None)
    if found is None or wrong or (port is not None and not 0 < port < 65536):
        raise ConfigError(f"{text!r} is not a portal; write ADDR:PORT such as 192.0.2.7:3260 or [2001:db8::7]:3260")
    return _normal(found["v6"] or found["host"]), port


def _normal(host: str) -> str:
    address = address_of(host)
    return host if address is None else str(address)


# what a login asks


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a connection came in, and from where it comes."""

    local: tuple[str, int]
    """The socket's own address, in normal form, and port."""
    peer: str
    """The other's address."""

    @classmethod
    def of(cls, local: tuple[Any, ...], peer: tuple[Any, ...]) -> Arrival:
        """Of what a socket says of itself; empty tuples: nothing is known."""
        return cls((_normal(local[0]), local[1]) if len(local) > 1 else ("", 0), _normal(peer[0]) if peer else "")


def refusal(group: TargetPortalGroup, initiator_name: str, peer: str) -> str | None:
    """Why the allow lists keep this initiator out, for the log; ``None`` if they do not."""
    attributes, acl = group.attributes, explicit_acl(group, initiator_name)
    own = getattr(acl.attributes, "allowed_addresses", ()) if acl is not None else ()
    addresses = own or attributes.allowed_addresses
    if addresses and not within(peer, addresses):
        return f"{peer or 'an unknown address'} is not in allowed_addresses of the {'node ACL' if own else 'portal group'}"
    if acl is None and attributes.allowed_initiators and not named(initiator_name, attributes.allowed_initiators):
        return "the name is not in allowed_initiators of the portal group"
    return None


def redirect(group: TargetPortalGroup, initiator_name: str, arrival: Arrival) -> None:
    """Raises LoginError with the new address if a rule of the group sends this login elsewhere.

    Whoever comes to where one of its rules would send him has arrived: nobody is sent round in a circle.
    """
    rules = [
        (status, rule)
        for name, status in _REDIRECTIONS
        for rule in map(redirection, getattr(group.attributes, name))
        if rule.concerns(initiator_name, arrival.peer)
    ]
    if any(rule.destination == arrival.local for _, rule in rules):
        return
    for status, rule in rules:
        if rule.portal is None or rule.portal in (arrival.local, (arrival.local[0], None)):
            raise LoginError(status, f"redirected to {rule.target_address}", target_address=rule.target_address)


def explicit_acl(group: TargetPortalGroup, initiator_name: str) -> NodeAcl | None:
    """The node ACL that was configured for an initiator; none that demo mode made."""
    acl = group.find_node_acl(initiator_name)
    return acl if acl is not None and not acl.dynamic else None


def parameters_of(group: TargetPortalGroup, initiator_name: str) -> Any:
    """``param/`` as it is for an initiator: its node ACL's own, else the portal group's."""
    acl = explicit_acl(group, initiator_name)
    return acl.parameters if acl is not None and acl.parameters is not None else group.parameters


def offers_to(group: TargetPortalGroup, initiator_name: str) -> dict[str, str]:
    """Our values of the negotiable keys, for LoginPolicy.offers."""
    acl = explicit_acl(group, initiator_name)
    own = getattr(acl.attributes, "default_erl", -1) if acl is not None else -1
    parameters = parameters_of(group, initiator_name)
    level = max(parameters.ErrorRecoveryLevel, own if own >= 0 else group.attributes.default_erl)
    return {**parameters.offers(), "ErrorRecoveryLevel": str(level)}
