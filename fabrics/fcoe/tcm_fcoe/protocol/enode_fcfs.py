"""Mode ``fabric``: what an ENode knows of FCFs and of its own N_Ports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcm_fcoe.protocol import enode_tables as tables
from tcm_fcoe.protocol import fip
from tcm_fcoe.protocol.controller import NEVER, LocalPort
from tcm_fcoe.protocol.els_login import Login
from tcm_fcoe.protocol.enode_tables import LoginState
from tcm_fcoe.protocol.fip import FipError, FipPdu, Flag
from tcm_fcoe.protocol.names import NO_NAME, is_multicast

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FCFS = 16
"""FCFs that are known at once; one that cannot be used, or has not accepted FLOGI, gives way."""
_ADDRESSING = Flag.FPMA | Flag.SPMA


@dataclass(slots=True, eq=False)
class Fcf:
    """An FCF that advertises itself."""

    mac: bytes
    switch_name: bytes
    fabric_name: bytes
    vf_id: int
    fc_map: int
    priority: int
    flags: Flag
    period: float
    """Seconds between advertisements."""
    no_keep_alives: bool
    heard: float
    """When its last advertisement came."""
    full_size: bool = False
    """It has answered a solicitation: frames of full size arrive."""
    late: bool = False
    tried: bool = False
    """It has not accepted FLOGI."""
    waiting: float = 0.0
    """Since when: it was heard first then, or did not accept FLOGI."""
    fcoe_mac: bytes = b""
    """Where FCoE frames go, if not to ``mac``."""

    @property
    def usable(self) -> bool:
        """It takes logins of ours."""
        return self.full_size and bool(self.flags & Flag.AVAILABLE) and bool(self.flags & _ADDRESSING)

    @property
    def lost_at(self) -> float:
        """When it is gone if nothing is heard of it."""
        return self.heard + tables.LOST * self.period


@dataclass(slots=True, eq=False)
class VnPort:
    """A local N_Port and its login."""

    port: LocalPort
    state: LoginState = LoginState.OUT
    timer: float = NEVER
    tries: int = 0
    ox_id: int = 0
    fc_id: int = 0
    mac: bytes = b""
    login: Login | None = None
    """The fabric's answer."""
    reason: str = ""
    """Why it ends."""
    keep_alive: float = NEVER
    """When the next goes out."""


def advertised(source: bytes, pdu: FipPdu, now: float) -> Fcf:
    """What an advertisement says. Raises :class:`FipError` if it is not plausible."""
    mac, name, fabric = pdu.get(fip.MacAddress).address, pdu.get(fip.NameIdentifier).name, pdu.get(fip.Fabric)
    if mac != source or is_multicast(mac):
        raise FipError("fip_spoofed", f"{source.hex(':')} speaks for {mac.hex(':')}")
    if not pdu.flags & Flag.FCF or name == NO_NAME or not fabric.fc_map or fabric.fc_map & 0x10000:
        raise FipError("fip_malformed", f"an advertisement with FC-MAP {fabric.fc_map:06x}h, switch name {name.hex(':')}")
    fka = pdu.get(fip.FkaAdvPeriod)
    period = min(max(fka.period / 1000, tables.MIN_PERIOD), tables.MAX_PERIOD)
    return Fcf(
        mac,
        name,
        fabric.name,
        fabric.vf_id,
        fabric.fc_map,
        pdu.get(fip.Priority).priority,
        pdu.flags,
        period,
        fka.no_keep_alives,
        now,
        waiting=now,
    )


def choose(usable: Sequence[Fcf], failures: int) -> Fcf:
    """The FCF to send FLOGI to (FC-BB-5 clause 7.9.2): the least priority value, of those that have not failed to accept one.

    After one that has, every other turn is that of who has waited the longest, whatever its priority: so it comes within twice
    :data:`MAX_FCFS` turns however many better ones there seem to be.

    :param failures: FLOGIs in a row that were not accepted.
    """
    if failures % 2:
        return min(usable, key=lambda each: (each.waiting, each.priority, each.mac))
    if all(each.tried for each in usable):
        for each in usable:
            each.tried = False
    return min((each for each in usable if not each.tried), key=lambda each: (each.priority, each.mac))
