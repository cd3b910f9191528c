"""The machine's own IP addresses as the kernel lists them (rtnetlink), which wildcard portals stand for; and others' names."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import struct
from typing import TYPE_CHECKING

from tcm.failure import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("tcm.iscsi")

WILDCARDS = frozenset(("0.0.0.0", "::"))

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?")
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_SCOPE_LINK = 253
_TEMPORARY, _UNUSABLE = 0x01, 0x08 | 0x20 | 0x40
"""IFA_F_TEMPORARY; IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE."""
_MESSAGE, _ADDRESS, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBI"), struct.Struct("=HH")


def parse_server(text: str, place: str, default_port: int) -> tuple[str, int]:
    """``HOST``, ``HOST:PORT``, ``[V6]`` or ``[V6]:PORT`` as host and port. Raises :class:`ConfigError`.

    The host is not looked up: it may come to be known later.
    """
    wanted = f"write HOST or HOST:PORT, for example isns.example.org:{default_port} or [fd00::1]:{default_port}"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or not _is_address(host):
            raise ConfigError(f"{place}: {text!r} is not a server; {wanted}")
        port = rest[1:] if rest else str(default_port)
    elif text.count(":") > 1:
        raise ConfigError(f"{place}: {text!r}: an IPv6 address stands in brackets; {wanted}")
    else:
        host, colon, port = text.partition(":")
        port = port if colon else str(default_port)
        dotted = host.replace(".", "").isdigit()  # no host is named by numbers alone
        if not _HOST.fullmatch(host) or (dotted and not _is_address(host)):
            raise ConfigError(f"{place}: {host!r} is not a host; {wanted}")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ConfigError(f"{place}: {port!r} is not a port; write 1 to 65535")
    return host, int(port)


def parse_portal(text: str, place: str) -> tuple[str, int]:
    """``ADDR:PORT`` or ``[V6]:PORT`` as address and port, as the core writes them. Raises :class:`ConfigError`."""
    address, colon, port = text.rpartition(":")
    address = "127.0.0.1" if address == "localhost" else address
    bracketed = address.startswith("[") and address.endswith("]")
    plain = address[1:-1] if bracketed else address
    if not colon or not _is_address(plain) or (":" in plain) != bracketed or not port.isascii() or not port.isdigit():
        raise ConfigError(f"{place}: {text!r} is not a portal; write ADDR:PORT as in --portal, for example 0.0.0.0:3261")
    return str(ipaddress.ip_address(plain)), int(port)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def machine_addresses() -> list[str]:
    """Addresses that other machines may reach: none of the loopback interface, none that hold on one link only.

    IPv4 first; empty if the kernel does not say.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
            netlink.settimeout(1)
            request = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            netlink.send(_MESSAGE.pack(_MESSAGE.size + len(request), _RTM_GETADDR, _REQUEST_DUMP, 1, 0) + request)
            found = list(_answers(netlink))
    except OSError as e:
        log.debug("the kernel does not list its addresses: %s", e)
        return []
    unique = dict.fromkeys(found)
    return sorted(unique, key=lambda address: ":" in address)


def _answers(netlink: socket.socket) -> Iterator[str]:
    while True:
        data = netlink.recv(1 << 17)
        position = 0
        while position + _MESSAGE.size <= len(data):
            length, kind, *_ = _MESSAGE.unpack_from(data, position)
            if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < _MESSAGE.size:
                return
            if kind == _RTM_NEWADDR:
                address = _usable(data[position + _MESSAGE.size : position + length])
                if address is not None:
                    yield address
            position += (length + 3) & ~3
        if not data:
            return


def _usable(message: bytes) -> str | None:
    family, _, flags, scope, _ = _ADDRESS.unpack_from(message)
    if scope >= _SCOPE_LINK or flags & _UNUSABLE or (family == socket.AF_INET6 and flags & _TEMPORARY):
        return None
    values: dict[int, bytes] = {}
    position = _ADDRESS.size
    while position + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, position)
        if length < _ATTRIBUTE.size:
            break
        values[kind] = message[position + _ATTRIBUTE.size : position + length]
        position += (length + 3) & ~3
    # the local address of a point-to-point link is not IFA_ADDRESS, which is its peer's
    packed = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
    if packed is None or len(packed) not in (4, 16):
        return None
    return str(ipaddress.ip_address(packed))
