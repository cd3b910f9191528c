"""What the login phase and its owner say to each other: the questions it asks, and the one event that ends it.

Usage, in the owner's receive loop (the owner has the socket and the clock)::

    login = LoginPhase(policy, deadline=now + login_timeout)
    login.receive_data(data)                 # any buffer; copied
    for buffer in login.data_to_send(): ...  # list of buffers, in order; call after every receive_data and handle_timer
    event = login.next_event()               # None, LoginCompleted or LoginFailed: exactly one of them, once
    login.handle_timer(now)                  # at login.deadline

After LoginFailed the owner sends what ``data_to_send`` still holds and closes the connection.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tcm_iscsi.protocol.parameters import ConnectionParameters, SessionParameters
from tcm_iscsi.protocol.pdu import LoginStatus

if TYPE_CHECKING:
    from collections.abc import Mapping


class SessionType(enum.Enum):
    """Values of the SessionType key (RFC 7143 13.21)."""

    DISCOVERY = "Discovery"
    NORMAL = "Normal"


class LoginError(Exception):
    """The login ends with this status.

    :param reason: for the log; never holds a secret.
    :param target_address: ``address[:port]`` of a redirection (status 0101 or 0102), sent as TargetAddress; without
        portal group tag (RFC 7143 13.8).
    """

    def __init__(self, status: LoginStatus, reason: str, *, target_address: str | None = None) -> None:
        super().__init__(f"{status.name} ({status:04x}h): {reason}")
        self.status = status
        self.reason = reason
        self.target_address = target_address


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginTarget:
    """The target portal group that a normal session logs in to, or discovery itself (``handle`` None)."""

    handle: Any
    """The owner's own (its target portal group); handed back in :class:`LoginCompleted`."""
    name: str = ""
    alias: str = ""
    """TargetAlias; empty: not sent."""
    portal_group_tag: int = 1
    command_window: int = 64
    """Commands the initiator may have outstanding: MaxCmdSN = ExpCmdSN + command_window - 1 at the end of a leading login."""
    login_keys_workaround: bool = True
    """LIO's attribute. Yes: never offer a key that the initiator has not brought up, because some (PXE ROMs) do not answer; its
    default holds then. No: offer what we want otherwise, and stay in the stage until it is answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """CHAP names and secrets (RFC 7143 12.1.3)."""

    name: str
    """CHAP_N that the initiator must send."""
    secret: str | bytes = field(repr=False)
    mutual_name: str = ""
    """CHAP_N that the target answers with when the initiator authenticates it."""
    mutual_secret: str | bytes = field(default=b"", repr=False)
    """Empty: an initiator that wants to authenticate the target is refused."""
    algorithms: tuple[int, ...] = (8, 7, 6, 5)
    """CHAP_A values we take: 5 MD5, 6 SHA1, 7 SHA-256, 8 SHA3-256. The initiator's order decides between them."""
    required: bool = True
    """False: AuthMethod=None will do, and the initiator's order decides between it and CHAP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginIdentity:
    """Who logs in, and how: the I_T nexus and the session and connection within it (RFC 7143 4.4.3.1)."""

    initiator_name: str
    """Normalised (:func:`tcm_iscsi.protocol.names.normalize`)."""
    initiator_alias: str
    isid: bytes
    """Six bytes."""
    tsih: int
    """0: a new session."""
    cid: int
    session_type: SessionType


class Disposition(enum.Enum):
    """What a login does to the sessions there are (RFC 7143 6.3.1 and the ISID/TSIH table)."""

    NEW_SESSION = "new session"
    """TSIH 0, and no session of this initiator name, ISID and portal group."""
    SESSION_REINSTATEMENT = "session reinstatement"
    """TSIH 0, and there is such a session: at LoginCompleted the owner ends it before it makes the new one (clause 6.3.5)."""
    ADD_CONNECTION = "add connection"
    """TSIH of a session, CID new in it."""
    CONNECTION_REINSTATEMENT = "connection reinstatement"
    """TSIH of a session, CID of one of its connections: the owner ends the old connection first (clause 6.3.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResolution:
    """The owner's answer to :meth:`LoginPolicy.resolve_session`."""

    disposition: Disposition
    session: Any = None
    """The owner's session object, for anything but a new session; handed back in :class:`LoginCompleted`."""
    parameters: SessionParameters | None = None
    """The active values of the session that a connection joins; None for a new session (reinstatement included)."""
    exp_cmd_sn: int | None = None
    """Of the session that a connection joins."""
    max_cmd_sn: int | None = None


class LoginPolicy(Protocol):
    """What the login phase asks its owner. Synchronous; each raises :class:`LoginError` to end the login with that status."""

    def find_target(self, target_name: str, identity: LoginIdentity) -> LoginTarget:
        """The target portal group for a normal session that arrived at this portal.

        ``target_name`` is normalised. Raises NOT_FOUND, TARGET_REMOVED, SERVICE_UNAVAILABLE (group disabled).
        """

    def discovery_target(self, identity: LoginIdentity) -> LoginTarget:
        """What a discovery session talks to (``handle`` is usually None). Raises SESSION_TYPE_NOT_SUPPORTED."""

    def admit(self, target: LoginTarget, identity: LoginIdentity) -> None:
        """Raises AUTHORIZATION_FAILURE if nothing lets this initiator in, or a redirection. Asked before authentication."""

    def credentials(self, target: LoginTarget, identity: LoginIdentity) -> Credentials | None:
        """The secrets this initiator must, or may, prove; None: there is no CHAP."""

    def offers(self, target: LoginTarget, identity: LoginIdentity) -> Mapping[str, str]:
        """Our values of negotiable keys, by key name; others come from :mod:`tcm_iscsi.protocol.keys`."""

    def resolve_session(self, target: LoginTarget, identity: LoginIdentity) -> SessionResolution:
        """What this login does to the sessions there are. Asked after authentication and just before the end of the login.

        Raises SESSION_DOES_NOT_EXIST, CANNOT_INCLUDE_IN_SESSION (another initiator's, type or group), TOO_MANY_CONNECTIONS.
        """

    def allocate_tsih(self, target: LoginTarget, identity: LoginIdentity) -> int:
        """A session handle from 1 to 65535 for a new session. Raises OUT_OF_RESOURCES. Asked last, just before success."""

    def random_bytes(self, length: int) -> bytes:
        """Unpredictable bytes, for the CHAP challenge and the first StatSN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginCompleted:
    """The connection is in full feature phase."""

    identity: LoginIdentity
    target: LoginTarget
    disposition: Disposition
    session: Any
    """Of :class:`SessionResolution`."""
    tsih: int
    """Of the session, never 0 (:attr:`LoginIdentity.tsih` is what the initiator sent)."""
    session_parameters: SessionParameters
    connection_parameters: ConnectionParameters
    cmd_sn: int
    """The first CmdSN that the session expects: ExpCmdSN (leading login)."""
    max_cmd_sn: int
    """What the last Login Response said."""
    stat_sn: int
    """The next StatSN to use on this connection."""
    exp_stat_sn: int
    """What the initiator had acknowledged when it sent the last Login Request."""
    authenticated_name: str | None
    """CHAP_N, if the initiator was authenticated."""
    trailing_data: bytes
    """What arrived after the last Login Request: full feature phase PDUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginFailed:
    """The login is over and the connection must be closed, once what there is to send has been sent."""

    status: LoginStatus
    reason: str
    """For the log, one line, no secrets."""
    initiator_name: str
    """Empty if not known yet."""
    target_name: str
    transitions: tuple[str, ...]
    """The last 32 steps, oldest first."""

    @property
    def redirected(self) -> bool:
        """The initiator was told to go elsewhere (Status-Class 1)."""
        return self.status >> 8 == 1
