"""Remote ports as a local N_Port sees them: port and process login, and the table of what happens to them (FC-LS-2 clause 6).

Both sides may send PLOGI and PRLI, at once too. Of two PLOGIs that cross, that of the greater port name counts; two PRLIs that
cross both do, since each says what its sender can.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any

from tcm_fcoe.protocol.controller import Allowance
from tcm_fcoe.protocol.fcoe import MIN_DATA_FIELD
from tcm_fcoe.protocol.names import NO_NAME, colon_form, format_fc_id
from tcm_fcoe.protocol.state_table import Step

if TYPE_CHECKING:
    from tcm_fcoe.protocol.els import Reject
    from tcm_fcoe.protocol.els_login import Login
    from tcm_fcoe.protocol.exchange import Request
    from tcm_fcoe.protocol.timers import Timer

HISTORY = 32
LOGIN_BURST, LOGIN_RATE = 16, 8
"""Logins at once, and a second, that are looked at of a port that has had an image pair."""


class State(enum.Enum):
    """Of a remote port."""

    IDLE = "not logged in"
    """Until the other side sends PLOGI, or there is a reason for ours."""
    PLOGI = "PLOGI sent"
    WAIT = "PLOGI failed"
    """It is sent again after E_D_TOV."""
    LOGGED_IN = "logged in"
    PRLI = "logged in, PRLI sent"
    READY = "image pair"


LOGGED_IN = frozenset((State.LOGGED_IN, State.PRLI, State.READY))
"""After PLOGI."""


class Event(enum.Enum):
    """What happens to one."""

    LOGIN = "login wanted"
    PLOGI_RECEIVED = "PLOGI received"
    """One that is accepted."""
    PLOGI_ACCEPTED = "LS_ACC to PLOGI"
    PLOGI_FAILED = "LS_RJT to PLOGI, or none"
    RETRY = "E_D_TOV has passed"
    GIVE_UP = "attempts used up"
    PROCESS_LOGIN = "image pair wanted"
    PRLI_RECEIVED = "PRLI received"
    PRLI_ACCEPTED = "LS_ACC to PRLI"
    PRLI_FAILED = "LS_RJT to PRLI, or none"
    PRLO_RECEIVED = "PRLO received"
    PROCESS_LOGOUT = "PRLO sent"
    LOGO_RECEIVED = "LOGO received"
    LOGOUT = "LOGO sent"


TABLE: dict[tuple[State, Event], Step[State]] = {
    (State.IDLE, Event.LOGIN): Step(State.PLOGI, "send_plogi"),
    (State.IDLE, Event.PLOGI_RECEIVED): Step(State.LOGGED_IN, "logged_in"),
    (State.IDLE, Event.RETRY): Step(State.PLOGI, "send_plogi"),
    (State.IDLE, Event.LOGOUT): Step(State.IDLE, "rest"),
    (State.PLOGI, Event.PLOGI_ACCEPTED): Step(State.LOGGED_IN, "logged_in"),
    (State.PLOGI, Event.PLOGI_RECEIVED): Step(State.LOGGED_IN, "logged_in"),  # the one that counts: ours is void
    (State.PLOGI, Event.PLOGI_FAILED): Step(State.WAIT, "wait"),
    (State.PLOGI, Event.LOGOUT): Step(State.IDLE, "send_logo"),
    (State.WAIT, Event.RETRY): Step(State.PLOGI, "send_plogi"),
    (State.WAIT, Event.LOGIN): Step(State.PLOGI, "send_plogi"),
    (State.WAIT, Event.GIVE_UP): Step(State.IDLE, "forget_idle"),
    (State.WAIT, Event.PLOGI_RECEIVED): Step(State.LOGGED_IN, "logged_in"),
    (State.WAIT, Event.LOGOUT): Step(State.IDLE, "rest"),
    (State.LOGGED_IN, Event.PLOGI_RECEIVED): Step(State.LOGGED_IN, "logged_in"),
    (State.LOGGED_IN, Event.PROCESS_LOGIN): Step(State.PRLI, "send_prli"),
    (State.LOGGED_IN, Event.RETRY): Step(State.PRLI, "send_prli"),
    (State.LOGGED_IN, Event.PRLI_RECEIVED): Step(State.READY, "pair"),
    (State.LOGGED_IN, Event.PRLO_RECEIVED): Step(State.LOGGED_IN, ""),
    (State.LOGGED_IN, Event.LOGO_RECEIVED): Step(State.IDLE, "logged_out"),
    (State.LOGGED_IN, Event.LOGOUT): Step(State.IDLE, "send_logo"),
    (State.PRLI, Event.PRLI_ACCEPTED): Step(State.READY, "pair"),
    (State.PRLI, Event.PRLI_RECEIVED): Step(State.READY, "pair"),
    (State.PRLI, Event.PRLI_FAILED): Step(State.LOGGED_IN, "wait"),
    (State.PRLI, Event.PRLO_RECEIVED): Step(State.LOGGED_IN, "unpair"),
    (State.PRLI, Event.PLOGI_RECEIVED): Step(State.LOGGED_IN, "logged_in"),
    (State.PRLI, Event.LOGO_RECEIVED): Step(State.IDLE, "logged_out"),
    (State.PRLI, Event.LOGOUT): Step(State.IDLE, "send_logo"),
    (State.READY, Event.PRLI_ACCEPTED): Step(State.READY, "pair"),  # ours, after theirs
    (State.READY, Event.PRLI_RECEIVED): Step(State.READY, "pair"),
    (State.READY, Event.PRLO_RECEIVED): Step(State.LOGGED_IN, "unpair"),
    (State.READY, Event.PROCESS_LOGOUT): Step(State.LOGGED_IN, "send_prlo"),
    (State.READY, Event.PLOGI_RECEIVED): Step(State.LOGGED_IN, "logged_in"),
    (State.READY, Event.LOGO_RECEIVED): Step(State.IDLE, "logged_out"),
    (State.READY, Event.LOGOUT): Step(State.IDLE, "send_logo"),
}
"""What is not in it changes nothing."""


class RemotePort:
    """One, by its FC_ID; another port that gets the same FC_ID is another."""

    __slots__ = (
        "admitted",
        "allowance",
        "attempts",
        "context",
        "e_d_tov",
        "fc_id",
        "history",
        "login",
        "max_frame",
        "node_name",
        "on_link",
        "parameters",
        "port_name",
        "prefix",
        "prli_received",
        "refused",
        "rejection",
        "requests",
        "response",
        "since",
        "state",
        "timer",
    )

    def __init__(self, fc_id: int, port_name: bytes = NO_NAME, node_name: bytes = NO_NAME) -> None:
        self.fc_id = fc_id
        self.port_name = port_name
        """Zero until it is known."""
        self.node_name = node_name
        self.state = State.IDLE
        self.prefix: bytes | None = None
        """The Ethernet header towards it, EtherType included; ``None``: there is no way."""
        self.max_frame = MIN_DATA_FIELD
        """Bytes of a data field that both sides and the way between them take."""
        self.parameters = 0
        """FCP service parameters from its PRLI, or its LS_ACC to ours."""
        self.login: Login | None = None
        """Its service parameters."""
        self.e_d_tov = 0.0
        """Seconds: what holds between it and us."""
        self.on_link = False
        """The FCoE controller speaks for it, and says when it is gone."""
        self.prli_received = False
        self.allowance = Allowance(LOGIN_BURST, LOGIN_RATE)
        """For its logins once it is admitted."""
        self.admitted = False
        """It has had an image pair."""
        self.attempts = 0
        """Since there was last an answer, or a long wait."""
        self.refused = False
        """What was sent last has been refused for good."""
        self.rejection: Reject | None = None
        """LS_RJT to our last PLOGI."""
        self.timer: Timer | None = None
        self.requests: list[Request] = []
        """PLOGI or PRLI that waits for its reply."""
        self.response = 0
        """Of the FC-4 to the last process login: an :class:`tcm_fcoe.protocol.els_login.PrliResponse`."""
        self.since = 0.0
        """When it became known, or logged in."""
        self.context: Any = None
        """The FC-4's own."""
        self.history: deque[tuple[State, Event, State | None]] = deque(maxlen=HISTORY)
        """(State, event, new state); the new state is ``None`` if the table has nothing for the pair."""

    @property
    def logged_in(self) -> bool:
        """PLOGI has been done."""
        return self.state in LOGGED_IN

    @property
    def ready(self) -> bool:
        """PRLI has been done: FCP may be spoken."""
        return self.state is State.READY

    def enter(self, event: Event) -> str | None:
        """Take an event: the action that it asks for; ``None`` if the table has none for this state."""
        step = TABLE.get((self.state, event))
        self.history.append((self.state, event, step.state if step else None))
        if step is None:
            return None
        self.state = step.state
        return step.action

    def story(self) -> str:
        """The last transitions, for the log line of a lost one."""
        return "; ".join(f"{state.name} {event.value}: {new.name if new else 'ignored'}" for state, event, new in self.history)

    def __repr__(self) -> str:
        return f"<RemotePort {format_fc_id(self.fc_id)} {colon_form(self.port_name)}, {self.state.value}>"
