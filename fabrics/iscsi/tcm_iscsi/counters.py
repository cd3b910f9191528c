"""What the fabric counts of logins, logouts and failures: by target device, in the terms of ISCSI-MIB (RFC 7147) and of LIO."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tcm_iscsi.protocol.failure import Failure
from tcm_iscsi.protocol.pdu import LoginStatus, LogoutReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcm.target.device import TargetDevice
    from tcm_iscsi.protocol.login_interface import LoginFailed
    from tcm_iscsi.protocol.session import Session

_KINDS = {
    LoginStatus.INITIATOR_ERROR: "negotiate",
    LoginStatus.AUTHENTICATION_FAILURE: "authenticate",
    LoginStatus.AUTHORIZATION_FAILURE: "authorize",
}


def kind_of(status: LoginStatus) -> str:
    """LIO's counter for a refused login: ``redirect``, ``authorize``, ``authenticate``, ``negotiate``, ``other``."""
    return "redirect" if status.status_class == 1 else _KINDS.get(status, "other")


@dataclass(slots=True)
class LoginFailure:
    """The last login that was refused."""

    status: LoginStatus
    initiator_name: str
    """Empty if it had not told."""
    address: str
    """Where it came from."""
    port: int
    time: float
    """On the monotonic clock."""


@dataclass(slots=True)
class SessionFailure:
    """The last session that failed."""

    failure: Failure | None
    """``None``: the connection broke, which is nobody's fault."""
    initiator_name: str
    time: float
    """On the monotonic clock."""


@dataclass(slots=True)
class TargetCounters:
    """Of one target device."""

    accepts: int = 0
    """Logins that led to full feature phase, those of further connections included."""
    refused: Counter[LoginStatus] = field(default_factory=Counter)
    """And those that did not, redirections included."""
    login_failure: LoginFailure | None = None
    """Redirections are none."""
    logouts: Counter[LogoutReason] = field(default_factory=Counter)
    """Logout Requests."""
    session_failures: Counter[Failure | None] = field(default_factory=Counter)
    session_failure: SessionFailure | None = None

    def refusals(self, kind: str) -> int:
        """How many refused logins are of this kind (see :func:`kind_of`)."""
        return sum(count for status, count in self.refused.items() if kind_of(status) == kind)

    @property
    def failures(self) -> int:
        """Logins that failed: all refused ones but redirections."""
        return self.refused.total() - self.refusals("redirect")


class Counters:
    """Of all targets.

    :param targets: those there are; logins to others are counted for none.
    """

    def __init__(self, targets: Sequence[TargetDevice]) -> None:
        self._targets = targets
        self._counters: dict[str, TargetCounters] = {}
        self.discovery = TargetCounters()
        """Discovery sessions, and logins that named no target of ours."""
        self.began = time.monotonic()
        """When nothing had been counted yet."""
        self.connections: Counter[tuple[str, int]] = Counter()
        """Connections taken, by the portal's address and port."""

    def of(self, target_name: str) -> TargetCounters:
        """Those of a target device; for a name that is none of ours, :attr:`discovery`."""
        found = self._counters.get(target_name)
        if found is None:
            if not any(target.name == target_name for target in self._targets):
                return self.discovery
            found = self._counters[target_name] = TargetCounters()
        return found

    def all(self) -> list[TargetCounters]:
        """Those of target devices that there are or have been: what they sum up to never becomes less."""
        return list(self._counters.values())

    def login_refused(self, event: LoginFailed, peer: tuple[Any, ...]) -> None:
        """A login has failed, or was sent elsewhere.

        :param peer: as the socket has it.
        """
        counters = self.of(event.target_name)
        counters.refused[event.status] += 1
        if not event.redirected:
            counters.login_failure = LoginFailure(
                event.status, event.initiator_name, peer[0].partition("%")[0], peer[1], time.monotonic()
            )

    def session_failed(self, session: Session, failure: Failure | None) -> None:
        """A session has ended without a logout."""
        counters = self.of(session.identity.target_name)
        counters.session_failures[failure] += 1
        counters.session_failure = SessionFailure(failure, session.identity.initiator_name, time.monotonic())


@dataclass(frozen=True, slots=True)
class SessionCounts:
    """Of one normal session. Commands on the express lane are those of the nexus that had no task."""

    cmd_pdus: int
    rsp_pdus: int
    txdata_octets: int
    rxdata_octets: int

    @classmethod
    def of(cls, session: Session) -> SessionCounts:
        """Now."""
        port = session.port
        counted: Counter[str] | dict[str, int] = port.nexus.totals() if port is not None else {}
        get = counted.get
        express = get("read_cmds", 0) + get("write_cmds", 0) + get("other_cmds", 0) - get("task_cmds", 0)
        return cls(session.cmd_pdus + express, session.rsp_pdus + express, get("read_bytes", 0), get("write_bytes", 0))
