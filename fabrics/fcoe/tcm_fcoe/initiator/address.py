"""``fcoe://INTERFACE/WWPN/LUN``: how a target, or one of its logical units, is written."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tcm_fcoe.protocol.names import InvalidName, colon_form, parse_name

SYNTAX = "fcoe://INTERFACE[/WWPN[/LUN]]"
EXAMPLE = "fcoe://eth1/20:00:52:54:00:2f:fc:00/0"
_NAME = r"(?:naa\.|0x)?[0-9a-fA-F]{16}|[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){7}"
_SHAPE = re.compile(rf"fcoe://(?P<interface>.+?)(?:/(?P<target>{_NAME})(?:/(?P<lun>\d+))?)?/?")
MAXIMUM_LUN = 0x3FFF


class InvalidAddress(ValueError):
    """Not such an address. The message says how one looks."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address. Without ``target``: the only one there is, or all of them."""

    interface: str
    """A network interface, or ``unix:LOCAL,PEER``."""
    target: bytes | None = None
    """Port name."""
    lun: int = 0

    def __str__(self) -> str:
        text = f"fcoe://{self.interface}"
        return text if self.target is None else f"{text}/{colon_form(self.target)}/{self.lun}"


def parse_address(text: str) -> Address:
    """Read one. Raises InvalidAddress."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise InvalidAddress(f"{text[:80]!r} is no FCoE address: write {SYNTAX}, such as {EXAMPLE}")
    try:
        target = parse_name(found["target"]) if found["target"] else None
    except InvalidName as e:
        raise InvalidAddress(str(e)) from None
    lun = int(found["lun"] or 0)
    if lun > MAXIMUM_LUN:
        raise InvalidAddress(f"{text[:80]!r}: a LUN is a number from 0 to {MAXIMUM_LUN}")
    interface = found["interface"]
    if not interface.startswith("unix:") and "/" in interface:
        raise InvalidAddress(
            f"{text[:80]!r} is no FCoE address: what follows the interface is a WWPN and a LUN, such as {EXAMPLE}"
        )
    return Address(interface, target, lun)
