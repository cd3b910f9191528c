"""Names and addresses of Fibre Channel (FC-FS-3 clauses 11, 15; FC-BB-5 clause 7): what is one, and how it is written.

A name is eight bytes, an FC_ID an integer of 24 bits, a MAC address six bytes. Their spellings are for people only.
"""

from __future__ import annotations

import enum
import re

NAME_LENGTH = 8
MAC_LENGTH = 6
NO_NAME = bytes(NAME_LENGTH)
NO_FC_ID = 0
"""The address of an N_Port that has not been given one."""

DEFAULT_FC_MAP = 0x0EFC00
"""Prefix of fabric-provided MAC addresses unless the FCF says another (FC-BB-5 clause 7.6)."""
VN2VN_FC_MAP = 0x0EFD00
"""Prefix of VN_Port MAC addresses in VN2VN mode (FC-BB-6)."""


class WellKnownAddress(enum.IntEnum):
    """Addresses of services that every fabric has (FC-FS-3 clause 11.2)."""

    MULTICAST_SERVER = 0xFFFFF5
    CLOCK_SYNCHRONIZATION = 0xFFFFF6
    SECURITY_KEY_DISTRIBUTION = 0xFFFFF7
    ALIAS_SERVER = 0xFFFFF8
    MANAGEMENT_SERVER = 0xFFFFFA
    TIME_SERVER = 0xFFFFFB
    DIRECTORY_SERVER = 0xFFFFFC
    FABRIC_CONTROLLER = 0xFFFFFD
    FABRIC_LOGIN_SERVER = 0xFFFFFE
    """The F_Port's: FLOGI and FDISC go there."""
    BROADCAST = 0xFFFFFF


FIRST_WELL_KNOWN_ADDRESS = 0xFFFC00
"""From here on addresses belong to domain controllers and services, never to an N_Port."""

_NAME = re.compile(r"(?:naa\.|0x)?([0-9a-f]{16})|([0-9a-f]{2}(?:[:-][0-9a-f]{2}){7})", re.IGNORECASE)
_MAC = re.compile(r"([0-9a-f]{2}(?:[:-][0-9a-f]{2}){5})", re.IGNORECASE)


class InvalidName(ValueError):
    """Not a name or an address. The message says how one looks."""


def parse_name(text: str) -> bytes:
    """A name from any of its spellings: ``20:00:52:54:00:2f:fc:00``, ``naa.20005254002ffc00``, ``0x20005254002ffc00``.

    :raises InvalidName: another shape, or all zeros, which names nobody.
    """
    found = _NAME.fullmatch(text.strip())
    if found is None:
        raise InvalidName(f"{text[:40]!r} is not a name; write eight pairs of hex digits, such as 20:00:52:54:00:2f:fc:00")
    name = bytes.fromhex(found[1] or found[2].replace(":", "").replace("-", ""))
    if name == NO_NAME:
        raise InvalidName(f"{text[:40]!r} names nobody; write a name that is not zero, such as 20:00:52:54:00:2f:fc:00")
    return name


def colon_form(name: bytes) -> str:
    """``20:00:52:54:00:2f:fc:00``; of a MAC address too."""
    return name.hex(":")


def is_valid_name(name: bytes) -> bool:
    """Whether a port may log in with it: eight bytes, not zero."""
    return len(name) == NAME_LENGTH and name != NO_NAME


def name_from_mac(mac: bytes, *, naa: int = 2, qualifier: int = 0) -> bytes:
    """A name made from a MAC address (FC-FS-3 clause 15): NAA 1 (IEEE 48-bit) or 2 (IEEE extended).

    :param naa: 1 for a node name, 2 for a port name is what Linux does.
    :param qualifier: 12 bits to tell ports of one interface apart; NAA 1 has none.
    """
    if naa not in (1, 2) or not 0 <= qualifier <= 0xFFF or (naa == 1 and qualifier):
        raise InvalidName("a name from a MAC address has NAA 1, or NAA 2 and a qualifier of 12 bits")
    return (naa << 12 | qualifier).to_bytes(2, "big") + mac


def parse_mac(text: str) -> bytes:
    """Six bytes from ``52:54:00:2f:fc:00``.

    :raises InvalidName: another shape.
    """
    found = _MAC.fullmatch(text.strip())
    if found is None:
        raise InvalidName(f"{text[:40]!r} is not a MAC address; write six pairs of hex digits, such as 52:54:00:2f:fc:00")
    return bytes.fromhex(found[1].replace(":", "").replace("-", ""))


def parse_fc_id(text: str) -> int:
    """An address from ``00.fc.00``, ``0x00fc00`` or ``00fc00``.

    :raises InvalidName: another shape.
    """
    digits = text.strip().lower().removeprefix("0x").replace(".", "").replace(":", "")
    if re.fullmatch(r"[0-9a-f]{6}", digits) is None:
        raise InvalidName(f"{text[:40]!r} is not an FC_ID; write six hex digits, such as 01.00.01")
    return int(digits, 16)


def format_fc_id(fc_id: int) -> str:
    """``00.fc.00``: domain, area, port."""
    return fc_id.to_bytes(3, "big").hex(".")


def fabric_provided_mac(fc_id: int, fc_map: int = DEFAULT_FC_MAP) -> bytes:
    """The FPMA of an N_Port: FC-MAP, then FC_ID (FC-BB-5 clause 7.6)."""
    return (fc_map << 24 | fc_id).to_bytes(MAC_LENGTH, "big")


def fc_id_of_mac(mac: bytes) -> int:
    """The FC_ID that an FPMA carries."""
    return int.from_bytes(mac[3:], "big")


def is_multicast(mac: bytes) -> bool:
    """A group address: broadcast too."""
    return bool(mac[0] & 1)
