"""VN2VN mode (FC-BB-6): how a VN_Port gets its address, and how two of them log in. Tables and times only."""

from __future__ import annotations

import enum

from tcm_fcoe.protocol.state_table import Step, Table

PROBE_WAIT = 0.1
"""Seconds from a probe to the next; and the most that a first probe waits."""
ANNOUNCE_WAIT = 0.4
"""Seconds from the second probe to the claim, from claim to beacon, from the first beacon to the second."""
COME_UP_WAIT = 0.2
"""Seconds more from another's claim to our beacon: it has no use for one that comes before it is up."""
BEACON_PERIOD = 8.0
BEACON_FUZZ = 0.1
"""Seconds, at most, that beacons are later than that."""
BEACON_LOST = 2.5 * BEACON_PERIOD
"""A VN_Port that has not been heard of for so long is gone."""
PROBE_TRIES = 10
"""Addresses tried at once; then one every :data:`PROBE_BACKOFF`."""
PROBE_BACKOFF = 10.0
FLOGI_TRIES = 3
"""FLOGIs without an answer, after each of the neighbour's beacons."""


class AddressState(enum.Enum):
    """Of one local VN_Port: has it an address?"""

    START = "start"
    """An address has been chosen."""
    PROBE_1 = "probe 1"
    PROBE_2 = "probe 2"
    CLAIM = "claim"
    """The address is ours."""
    UP = "up"
    """Beacons are sent: others may log in."""


class AddressEvent(enum.Enum):
    """What decides about the address. Of two VN_Ports that want one, the greater port name gets it."""

    TIMER = "timer"
    PROBED_BY_LESSER = "probe request of a lesser name for our address"
    PROBED_BY_GREATER = "probe request of a greater name, or of a recorded address"
    REFUSED = "probe reply"
    CLAIMED_BY_LESSER = "claim or beacon of a lesser name for our address"
    CLAIMED_BY_GREATER = "claim or beacon of a greater name"


_S, _E = AddressState, AddressEvent

ADDRESS: Table[AddressState, AddressEvent] = {
    (_S.START, _E.TIMER): Step(_S.PROBE_1, "send_probe"),
    (_S.PROBE_1, _E.TIMER): Step(_S.PROBE_2, "send_probe"),
    (_S.PROBE_2, _E.TIMER): Step(_S.CLAIM, "claim"),
    (_S.CLAIM, _E.TIMER): Step(_S.UP, "come_up"),
    (_S.UP, _E.TIMER): Step(_S.UP, "send_beacon"),
    (_S.START, _E.PROBED_BY_LESSER): Step(_S.START, "choose_another"),
    (_S.PROBE_1, _E.PROBED_BY_LESSER): Step(_S.PROBE_1, "send_probe_reply"),
    (_S.PROBE_2, _E.PROBED_BY_LESSER): Step(_S.PROBE_2, "send_probe_reply"),
    (_S.CLAIM, _E.PROBED_BY_LESSER): Step(_S.CLAIM, "send_probe_reply"),
    (_S.UP, _E.PROBED_BY_LESSER): Step(_S.UP, "send_probe_reply"),
    (_S.START, _E.PROBED_BY_GREATER): Step(_S.START, "choose_another"),
    (_S.PROBE_1, _E.PROBED_BY_GREATER): Step(_S.START, "choose_another"),
    (_S.PROBE_2, _E.PROBED_BY_GREATER): Step(_S.START, "choose_another"),
    (_S.CLAIM, _E.PROBED_BY_GREATER): Step(_S.CLAIM, "send_probe_reply"),
    (_S.UP, _E.PROBED_BY_GREATER): Step(_S.UP, "send_probe_reply"),
    (_S.START, _E.REFUSED): Step(_S.START, "choose_another"),
    (_S.PROBE_1, _E.REFUSED): Step(_S.START, "choose_another"),
    (_S.PROBE_2, _E.REFUSED): Step(_S.START, "choose_another"),
    (_S.CLAIM, _E.REFUSED): Step(_S.START, "give_up_address"),
    (_S.UP, _E.REFUSED): Step(_S.UP, "send_claim"),
    (_S.START, _E.CLAIMED_BY_LESSER): Step(_S.START, "choose_another"),
    (_S.PROBE_1, _E.CLAIMED_BY_LESSER): Step(_S.START, "choose_another"),
    (_S.PROBE_2, _E.CLAIMED_BY_LESSER): Step(_S.START, "choose_another"),
    (_S.CLAIM, _E.CLAIMED_BY_LESSER): Step(_S.CLAIM, "send_claim"),
    (_S.UP, _E.CLAIMED_BY_LESSER): Step(_S.UP, "send_claim"),
    (_S.START, _E.CLAIMED_BY_GREATER): Step(_S.START, "choose_another"),
    (_S.PROBE_1, _E.CLAIMED_BY_GREATER): Step(_S.START, "choose_another"),
    (_S.PROBE_2, _E.CLAIMED_BY_GREATER): Step(_S.START, "choose_another"),
    (_S.CLAIM, _E.CLAIMED_BY_GREATER): Step(_S.START, "give_up_address"),
    (_S.UP, _E.CLAIMED_BY_GREATER): Step(_S.START, "give_up_address"),
}
"""FC-BB-6, VN2VN initialization: getting and keeping an address."""


class LinkState(enum.Enum):
    """Of the virtual link between a local VN_Port and a neighbour."""

    KNOWN = "known"
    """The neighbour has claimed its address."""
    FLOGI = "FLOGI"
    """We have sent FLOGI."""
    UP = "up"
    """One has accepted the other's FLOGI: PLOGI may follow."""


class LinkEvent(enum.Enum):
    """What happens to it."""

    BEACON = "beacon"
    FLOGI = "FLOGI from the neighbour"
    ACCEPTED = "LS_ACC"
    REFUSED = "LS_RJT"
    TIMER = "no answer yet"
    GAVE_UP = "no answer to several"
    LOGO = "LOGO from the neighbour"
    LOGGED_OUT = "LOGO from us"
    LOST = "no beacons, or another address"


_L, _F = LinkState, LinkEvent

LINK: Table[LinkState, LinkEvent] = {
    (_L.KNOWN, _F.BEACON): Step(_L.FLOGI, "send_flogi"),
    (_L.KNOWN, _F.FLOGI): Step(_L.UP, "accept"),
    (_L.KNOWN, _F.LOGO): Step(_L.KNOWN, "accept_logo"),
    (_L.FLOGI, _F.FLOGI): Step(_L.UP, "accept"),
    (_L.FLOGI, _F.ACCEPTED): Step(_L.UP, "bring_up"),
    (_L.FLOGI, _F.REFUSED): Step(_L.KNOWN),
    (_L.FLOGI, _F.TIMER): Step(_L.FLOGI, "send_flogi"),
    (_L.FLOGI, _F.GAVE_UP): Step(_L.KNOWN),
    (_L.FLOGI, _F.LOGO): Step(_L.FLOGI, "accept_logo"),
    (_L.FLOGI, _F.LOST): Step(_L.KNOWN),
    (_L.UP, _F.FLOGI): Step(_L.UP, "accept_again"),
    (_L.UP, _F.LOGO): Step(_L.KNOWN, "accept_logo_and_bring_down"),
    (_L.UP, _F.LOGGED_OUT): Step(_L.KNOWN),
    (_L.UP, _F.LOST): Step(_L.KNOWN, "bring_down"),
}
"""FC-BB-6, VN2VN login: both may send FLOGI, and each accepts the other's; the greater port name sends PLOGI then."""
