"""The FCF (FC-BB-5 clause 7.9): what happens to a VN_Port's virtual link. Table and times only."""

from __future__ import annotations

import enum

from tcm_fcoe.protocol.state_table import Step, Table

FKA_ADV_PERIOD = 8.0
"""Seconds between advertisements, and between an ENode's keep-alives."""
ADVERTISEMENT_FUZZ = 0.1
"""Seconds, at most, that advertisements are later than that."""
VN_KEEP_ALIVE_PERIOD = 90.0
"""Seconds between a VN_Port's keep-alives."""
MISSED = 2.5
"""Periods without keep-alives after which a virtual link is cleared."""


class VirtualLinkState(enum.Enum):
    """Of a VN_Port, named by port name and ENode."""

    LOGGED_OUT = "logged out"
    LOGGED_IN = "logged in"


class VirtualLinkEvent(enum.Enum):
    """What happens to it."""

    LOGIN = "FLOGI or FDISC"
    LOGO = "LOGO"
    KEEP_ALIVE = "keep-alive"
    SILENT = "no keep-alives"
    STOPPED = "the FCF stops"


_S, _E = VirtualLinkState, VirtualLinkEvent

VIRTUAL_LINK: Table[VirtualLinkState, VirtualLinkEvent] = {
    (_S.LOGGED_OUT, _E.LOGIN): Step(_S.LOGGED_IN, "accept"),
    (_S.LOGGED_OUT, _E.LOGO): Step(_S.LOGGED_OUT, "refuse_logo"),
    (_S.LOGGED_OUT, _E.KEEP_ALIVE): Step(_S.LOGGED_OUT, "clear_stranger"),
    (_S.LOGGED_IN, _E.LOGIN): Step(_S.LOGGED_IN, "accept_again"),
    (_S.LOGGED_IN, _E.LOGO): Step(_S.LOGGED_OUT, "accept_logo"),
    (_S.LOGGED_IN, _E.KEEP_ALIVE): Step(_S.LOGGED_IN, "note"),
    (_S.LOGGED_IN, _E.SILENT): Step(_S.LOGGED_OUT, "clear"),
    (_S.LOGGED_IN, _E.STOPPED): Step(_S.LOGGED_OUT, "clear"),
}
"""FC-BB-5 clause 7.9: instantiation, maintenance and de-instantiation of virtual links."""
