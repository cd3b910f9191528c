"""States of the iSNS client, and what it tells its owner."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tcm_iscsi.protocol.isns_notifications import Notification


class State(enum.Enum):
    """What the client does."""

    DOWN = "no connection"
    VERIFYING = "asking what the server holds"
    REGISTERING = "registering"
    WITHDRAWING = "deregistering what is no longer there"
    SUBSCRIBING = "asking for state change notifications"
    REGISTERED = "registered"
    REFUSED = "waiting, after a refusal"
    LEAVING = "deregistering the entity"
    LEFT = "deregistered"


@dataclass(frozen=True, slots=True)
class Registered:
    """All that should be registered is, after something was not."""

    nodes: int
    portals: int
    period: int
    """Registration Period in seconds, as the server has it; 0: none."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The server did not do what was asked."""

    state: State
    """What was asked."""
    status: int


@dataclass(frozen=True, slots=True)
class RegistrationLost:
    """The server no longer holds these targets; they are registered again."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deregistered:
    """The server has forgotten the entity, as we wanted."""


Event = Registered | Refused | RegistrationLost | Deregistered | Notification
