"""Mode ``fcf``: what an FCF knows of ENodes, and of what they ask."""

from __future__ import annotations

from dataclasses import dataclass, field

from tcm_fcoe.protocol import fip
from tcm_fcoe.protocol.controller import Allowance
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.fip import FipError, FipPdu, Flag, Pdu
from tcm_fcoe.protocol.frame import Frame
from tcm_fcoe.protocol.switch import AttachedPort

COMMANDS: dict[type[fip.Encapsulated], ElsCommand] = {
    fip.Flogi: ElsCommand.FLOGI,
    fip.Fdisc: ElsCommand.FDISC,
    fip.Logo: ElsCommand.LOGO,
}
"""The ELS in virtual link requests, by descriptor."""
RECEIVE = {
    Pdu.VLAN_REQUEST: "vlan_request",
    Pdu.SOLICITATION: "solicitation",
    Pdu.KEEP_ALIVE: "keep_alive",
    Pdu.VIRTUAL_LINK_REQUEST: "virtual_link_request",
}
"""What an FCF takes from ENodes."""


@dataclass(slots=True, eq=False)
class ENode:
    """An ENode that has VN_Ports logged in."""

    mac: bytes
    heard: float
    """When its last keep-alive, or login, came."""
    ports: dict[bytes, AttachedPort] = field(default_factory=dict)
    """By port name; the first of them sent FLOGI."""
    answers: Allowance = field(default_factory=lambda: Allowance(512, 64))
    """Its own, so that others' storms are not its loss."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the actions of the table need to know of an event."""

    enode: bytes
    port_name: bytes
    attached: AttachedPort | None = None
    frame: Frame | None = None
    descriptor: type[fip.Encapsulated] = fip.Flogi
    flags: Flag = fip.NO_FLAGS
    proposed: bytes = bytes(6)
    """MAC address that the ENode would like."""
    identity: fip.VxPort | None = None
    """Of a keep-alive."""
    reason: str = ""


def check_source(source: bytes, pdu: FipPdu) -> None:
    """The ENode itself speaks. Raises :class:`FipError`."""
    mac = pdu.get(fip.MacAddress).address
    if mac != source:
        raise FipError("fip_spoofed", f"{source.hex(':')} speaks for {mac.hex(':')}")
