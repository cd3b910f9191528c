"""Mode ``fabric``: an ENode finds an FCF, and its N_Ports log in there (FC-BB-5 clauses 7.9, 7.10). Tables and times only."""

from __future__ import annotations

import enum

from tcm_fcoe.protocol.controller import E_D_TOV
from tcm_fcoe.protocol.state_table import Step, Table

VLAN_TIMEOUT = 1.0
"""Seconds to wait for VLAN notifications."""
VLAN_TRIES = 3
"""Then the interface's own VLAN is tried."""
SOLICIT_PERIOD = 4.0
"""Seconds between solicitations while there is no FCF."""
SOLICIT_TRIES = 3
"""Solicitations without an answer after which whoever runs the station is told, and VLANs are asked for again."""
SELECT_DELAY = 0.5
"""Seconds to wait for a better FCF after the first."""
LOGIN_TIMEOUT = E_D_TOV
LOGIN_TRIES = 3
REFUSED_DELAY = 10.0
"""Seconds from a refusal to the next try."""
VN_KEEP_ALIVE_PERIOD = 90.0
LATE, LOST = 1.5, 2.5
"""Periods without advertisements after which one is counted as missed; after which the FCF is gone."""
MIN_PERIOD, MAX_PERIOD = 0.25, 90.0
"""Seconds that an FCF may name as its period (FC-BB-5 table of timers); one beyond is taken as the nearer of these."""


class FabricState(enum.Enum):
    """Of the ENode: has it an FCF?"""

    VLAN = "VLAN"
    """Asking for VLANs that carry FCoE."""
    SOLICIT = "solicit"
    """Looking for FCFs."""
    SELECT = "select"
    """There is one; a better one may follow."""
    FABRIC = "fabric"
    """One has been selected: N_Ports log in."""


class FabricEvent(enum.Enum):
    """What happens to it."""

    TIMER = "timer"
    VLANS = "VLAN notification"
    NO_VLANS = "no VLAN notification"
    NO_FCF = "no FCF in the VLAN"
    ADVERTISED = "advertisement of an FCF that can be used"
    LOST = "no advertisements of the FCF"
    CLEARED = "Clear Virtual Links"
    GAVE_UP = "FLOGI is not accepted"


_S, _E = FabricState, FabricEvent

FABRIC: Table[FabricState, FabricEvent] = {
    (_S.VLAN, _E.TIMER): Step(_S.VLAN, "request_vlans"),
    (_S.VLAN, _E.VLANS): Step(_S.SOLICIT, "solicit"),
    (_S.VLAN, _E.NO_VLANS): Step(_S.SOLICIT, "solicit_untagged"),
    (_S.SOLICIT, _E.NO_FCF): Step(_S.VLAN, "look_elsewhere"),
    (_S.SOLICIT, _E.TIMER): Step(_S.SOLICIT, "solicit"),
    (_S.SOLICIT, _E.ADVERTISED): Step(_S.SELECT, "wait"),
    (_S.SELECT, _E.TIMER): Step(_S.FABRIC, "select"),
    (_S.SELECT, _E.LOST): Step(_S.SOLICIT, "solicit"),
    (_S.FABRIC, _E.LOST): Step(_S.SOLICIT, "start_again"),
    (_S.FABRIC, _E.CLEARED): Step(_S.SOLICIT, "start_again"),
    (_S.FABRIC, _E.GAVE_UP): Step(_S.SOLICIT, "start_again"),
}
"""FC-BB-5 clause 7.9.2: FCF discovery and selection."""


class LoginState(enum.Enum):
    """Of a local N_Port."""

    OUT = "logged out"
    SENT = "FLOGI or FDISC sent"
    IN = "logged in"


class LoginEvent(enum.Enum):
    """What happens to it."""

    LOGIN = "an FCF is there"
    TIMER = "no answer yet"
    GAVE_UP = "no answer to several"
    ACCEPTED = "LS_ACC"
    REFUSED = "LS_RJT"
    LOGGED_OUT = "LOGO from the FCF"
    LOST = "the virtual link is gone"
    STOPPED = "the port stops"


_L, _F = LoginState, LoginEvent

LOGIN: Table[LoginState, LoginEvent] = {
    (_L.OUT, _F.LOGIN): Step(_L.SENT, "send_login"),
    (_L.SENT, _F.TIMER): Step(_L.SENT, "send_login"),
    (_L.SENT, _F.GAVE_UP): Step(_L.OUT, "give_up"),
    (_L.SENT, _F.ACCEPTED): Step(_L.IN, "bring_up"),
    (_L.SENT, _F.REFUSED): Step(_L.OUT, "try_later"),
    (_L.SENT, _F.LOST): Step(_L.OUT),
    (_L.SENT, _F.STOPPED): Step(_L.OUT),
    (_L.IN, _F.LOGGED_OUT): Step(_L.OUT, "accept_logo"),
    (_L.IN, _F.LOST): Step(_L.OUT, "bring_down"),
    (_L.IN, _F.STOPPED): Step(_L.OUT, "log_out"),
}
"""FC-BB-5 clause 7.9.3: virtual link instantiation. The first port sends FLOGI, the others FDISC once it is logged in."""
