"""The target's side of login, from the first byte to full feature phase (RFC 7143 clause 6.3, states of clause 8.1).

:class:`LoginPhase` is used as :mod:`tcm_iscsi.protocol.login_interface` shows.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from tcm_iscsi.protocol import chap
from tcm_iscsi.protocol.chap import ChapTarget
from tcm_iscsi.protocol.framer import LOGIN_MAX_DATA_SEGMENT_LENGTH, Framer, FramingError, Pdu, frame
from tcm_iscsi.protocol.keys import Stage
from tcm_iscsi.protocol.login_interface import (
    Credentials,
    LoginCompleted,
    LoginError,
    LoginFailed,
    LoginIdentity,
    LoginPolicy,
    LoginTarget,
    SessionType,
)
from tcm_iscsi.protocol.names import InvalidName, normalize
from tcm_iscsi.protocol.negotiation import NegotiationError, Negotiator
from tcm_iscsi.protocol.pdu import (
    CONTINUE,
    LOGIN_REQUEST,
    LOGIN_RESPONSE,
    OPCODE_MASK,
    TRANSIT,
    Buffer,
    LoginRequestBhs,
    LoginStage,
    LoginStatus,
    Opcode,
)
from tcm_iscsi.protocol.serial import SERIAL_BITS
from tcm_iscsi.protocol.text import Pair, TextAssembler, TextError, encode

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 0x00
"""The only version there is (clause 11.12.4)."""


class State(enum.Enum):
    """States of clause 8.1.3; S4 in the two stages it has."""

    S1_FREE = "S1 FREE"
    S3_XPT_UP = "S3 XPT_UP"
    S4_IN_LOGIN_SECURITY = "S4 IN_LOGIN (security)"
    S4_IN_LOGIN_OPERATIONAL = "S4 IN_LOGIN (operational)"
    S5_LOGGED_IN = "S5 LOGGED_IN"


_SECURITY, _OPERATIONAL, _FULL_FEATURE = LoginStage
TRANSITIONS: dict[tuple[State, int, int | None], State] = {
    # (state, CSG, NSG if both sides say T): next state. What is not here is an initiator error (clause 6.3)
    (State.S3_XPT_UP, _SECURITY, None): State.S4_IN_LOGIN_SECURITY,  # T4
    (State.S3_XPT_UP, _SECURITY, _OPERATIONAL): State.S4_IN_LOGIN_OPERATIONAL,  # T4
    (State.S3_XPT_UP, _SECURITY, _FULL_FEATURE): State.S5_LOGGED_IN,  # T4, T5
    (State.S3_XPT_UP, _OPERATIONAL, None): State.S4_IN_LOGIN_OPERATIONAL,  # T4
    (State.S3_XPT_UP, _OPERATIONAL, _FULL_FEATURE): State.S5_LOGGED_IN,  # T4, T5
    (State.S4_IN_LOGIN_SECURITY, _SECURITY, None): State.S4_IN_LOGIN_SECURITY,
    (State.S4_IN_LOGIN_SECURITY, _SECURITY, _OPERATIONAL): State.S4_IN_LOGIN_OPERATIONAL,
    (State.S4_IN_LOGIN_SECURITY, _SECURITY, _FULL_FEATURE): State.S5_LOGGED_IN,  # T5
    (State.S4_IN_LOGIN_OPERATIONAL, _OPERATIONAL, None): State.S4_IN_LOGIN_OPERATIONAL,
    (State.S4_IN_LOGIN_OPERATIONAL, _OPERATIONAL, _FULL_FEATURE): State.S5_LOGGED_IN,  # T5
}  # any state to S1 FREE: T6, T7, in _fail


class Rule(NamedTuple):
    """A check of a Login Request's header: the login ends with ``status`` if ``broken``."""

    status: LoginStatus
    reason: str
    broken: Callable[[LoginRequestBhs, LoginRequestBhs], bool]
    """Of (this request, the first request)."""


_ERROR = LoginStatus.INITIATOR_ERROR
RULES: tuple[Rule, ...] = (
    Rule(LoginStatus.UNSUPPORTED_VERSION, "VersionMin is above ours", lambda now, _: now.version_min > VERSION),
    Rule(_ERROR, "T and C are both set", lambda now, _: now.flags & TRANSIT != 0 and now.flags & CONTINUE != 0),
    Rule(_ERROR, "an AHS in a Login Request", lambda now, _: now.lengths >> 24 != 0),
    Rule(_ERROR, "VersionMin or VersionMax changed", lambda now, first: now[2:4] != first[2:4]),
    Rule(_ERROR, "ISID changed", lambda now, first: now.isid != first.isid),
    Rule(_ERROR, "TSIH changed", lambda now, first: now.tsih != first.tsih),
    Rule(_ERROR, "Initiator Task Tag changed", lambda now, first: now.initiator_task_tag != first.initiator_task_tag),
    Rule(_ERROR, "CID changed", lambda now, first: now.cid != first.cid),
)


def _auth_method(credentials: Credentials | None) -> str:
    """What we take of AuthMethod."""
    if credentials is None:
        return "None"
    return "CHAP" if credentials.required else "CHAP,None"


class LoginPhase:
    """One connection's login, target side.

    :param policy: the owner's decisions.
    :param deadline: when to give up, on the owner's clock.
    """

    def __init__(self, policy: LoginPolicy, *, deadline: float = math.inf) -> None:
        self.deadline = deadline
        self.state = State.S3_XPT_UP
        self.transitions: deque[str] = deque(maxlen=32)
        """The last steps, for the log."""
        self._policy = policy
        self._framer = Framer()
        self._assembler = TextAssembler()
        self._send: list[bytes] = []
        self._event: LoginCompleted | LoginFailed | None = None
        self._finished = False
        self._first: LoginRequestBhs | None = None
        self._last: LoginRequestBhs | None = None
        self._response = memoryview(b"")
        """Text of ours that has not been sent yet."""
        self._stat_sn = int.from_bytes(policy.random_bytes(4), "big")
        self._names = ["", ""]
        """Initiator and target, for the log, as soon as they are known."""
        # set by _identify
        self._identity: LoginIdentity | None = None
        self._target = LoginTarget(handle=None)
        self._credentials: Credentials | None = None
        self._negotiator = Negotiator()
        self._chap: ChapTarget | None = None

    # the owner's side

    def receive_data(self, data: Buffer) -> None:
        """Take bytes from the initiator. Those after the last Login Request come back in LoginCompleted."""
        self._framer.receive_data(data)
        while not self._finished:
            try:
                pdu = self._framer.next_pdu()
                if pdu is None:
                    return
                self._request(pdu)
            except FramingError as e:
                if e.bhs[0] & OPCODE_MASK == Opcode.LOGIN_REQUEST:
                    self._last = LoginRequestBhs._make(LOGIN_REQUEST.unpack(e.bhs))
                    self._fail(LoginError(LoginStatus.INITIATOR_ERROR, str(e)))
                else:
                    reason = f"this is no iSCSI login: it begins with {e.bhs[:8].hex(' ')}"
                    self._fail(LoginError(LoginStatus.INITIATOR_ERROR, reason))
            except (TextError, NegotiationError) as e:
                self._fail(LoginError(LoginStatus.INITIATOR_ERROR, str(e)))
            except LoginError as e:
                self._fail(e)

    def data_to_send(self) -> list[bytes]:
        """Buffers to send, in order; each is returned once."""
        out, self._send = self._send, []
        return out

    def next_event(self) -> LoginCompleted | LoginFailed | None:
        """How it ended, once; None before and after."""
        event, self._event = self._event, None
        return event

    def handle_timer(self, now: float) -> None:
        """Give up if ``now`` has reached the deadline (T6, T7); the initiator is not answered."""
        if now >= self.deadline and not self._finished:
            self._last = None
            self._fail(LoginError(LoginStatus.INITIATOR_ERROR, "login timeout"))

    # one request

    def _request(self, pdu: Pdu) -> None:
        request = LoginRequestBhs._make(LOGIN_REQUEST.unpack(pdu.bhs))
        if request.opcode & OPCODE_MASK != Opcode.LOGIN_REQUEST:
            raise LoginError(LoginStatus.INVALID_DURING_LOGIN, f"opcode {request.opcode & OPCODE_MASK:02x}h during login")
        self._last = request
        first = self._first = self._first or request
        for rule in RULES:
            if rule.broken(request, first):
                raise LoginError(rule.status, rule.reason)
        stage, next_stage = request.flags >> 2 & 3, request.flags & 3 if request.flags & TRANSIT else None
        if (self.state, stage, next_stage) not in TRANSITIONS:
            raise LoginError(_ERROR, f"CSG {stage} and NSG {next_stage} (None: T is 0) in state {self.state.value}")
        if self._response:
            if pdu.data or request.flags & CONTINUE:
                raise LoginError(_ERROR, "text where only an empty request can follow (clause 6.2)")
        else:
            self._assembler.add(pdu.data)
            if request.flags & CONTINUE:
                self._step(request, None)
                self._answer(request, b"", stage << 2)
                return
            pairs = self._assembler.take()
            self._response = memoryview(encode(self._process(stage, pairs)))
        self._respond(request, stage, next_stage)

    def _respond(self, request: LoginRequestBhs, stage: int, next_stage: int | None) -> None:
        """The next piece of our text, and the transition, if it is the last piece and both sides are ready."""
        piece = bytes(self._response[:LOGIN_MAX_DATA_SEGMENT_LENGTH])
        self._response = self._response[LOGIN_MAX_DATA_SEGMENT_LENGTH:]
        if self._response:
            self._step(request, None)
            self._answer(request, piece, CONTINUE | stage << 2)
            return
        if next_stage is not None and not self._ready(stage):
            next_stage = None
        self._step(request, next_stage)
        if self.state is State.S5_LOGGED_IN:
            self._complete(request, piece)
            return
        if next_stage is not None:
            self._policy.resolve_session(self._target, self._identified())  # a login that cannot end well ends early
        transit = TRANSIT | next_stage if next_stage is not None else 0
        self._answer(request, piece, transit | stage << 2)

    def _ready(self, stage: int) -> bool:
        """Whether we have nothing left to do in this stage."""
        if stage == LoginStage.LOGIN_OPERATIONAL_NEGOTIATION:
            return self._negotiator.complete
        if self._chap is not None:
            return self._chap.authenticated_name is not None
        if self._credentials is not None and self._credentials.required:
            raise LoginError(
                LoginStatus.AUTHENTICATION_FAILURE, "the initiator leaves security negotiation without AuthMethod=CHAP"
            )
        return True

    # what the text says

    def _process(self, stage: int, pairs: list[Pair]) -> list[Pair]:
        """Our answers to a whole logical text."""
        answers = self._identify(dict(pairs)) if self._identity is None else []
        if stage == LoginStage.SECURITY_NEGOTIATION:
            return answers + self._secure(pairs)
        if self._chap is None and self._credentials is not None and self._credentials.required:
            raise LoginError(
                LoginStatus.AUTHENTICATION_FAILURE, "the initiator offers no CHAP; give it the user and the secret"
            )
        negotiator = self._negotiator
        answers += negotiator.receive(pairs, Stage.OPERATIONAL) + negotiator.declare()
        if not self._target.login_keys_workaround:
            answers += negotiator.originate()
        return answers

    def _identify(self, keys: dict[str, str]) -> list[Pair]:
        """The first request: who, what kind of session, to which target (clause 6.3.1)."""
        first = self._first_request()
        if "InitiatorName" not in keys:
            raise LoginError(LoginStatus.MISSING_PARAMETER, "no InitiatorName in the first Login Request")
        try:
            name = self._names[0] = normalize(keys["InitiatorName"])
        except InvalidName as e:
            raise LoginError(_ERROR, f"InitiatorName: {e}") from None
        try:
            session_type = SessionType(keys.get("SessionType", "Normal"))
        except ValueError:
            raise LoginError(LoginStatus.SESSION_TYPE_NOT_SUPPORTED, "SessionType is neither Normal nor Discovery") from None
        identity = self._identity = LoginIdentity(
            initiator_name=name,
            initiator_alias=keys.get("InitiatorAlias", ""),
            isid=first.isid,
            tsih=first.tsih,
            cid=first.cid,
            session_type=session_type,
        )
        policy = self._policy
        if session_type is SessionType.NORMAL:
            if "TargetName" not in keys:
                raise LoginError(LoginStatus.MISSING_PARAMETER, "no TargetName in the first Login Request of a normal session")
            try:
                self._names[1] = normalize(keys["TargetName"])
            except InvalidName as e:
                raise LoginError(LoginStatus.NOT_FOUND, f"TargetName: {e}") from None
            target = policy.find_target(self._names[1], identity)
        else:
            target = policy.discovery_target(identity)
        self._target = target
        policy.admit(target, identity)
        self._credentials = policy.credentials(target, identity)
        offers = {**policy.offers(target, identity), "AuthMethod": _auth_method(self._credentials)}
        discovery = session_type is SessionType.DISCOVERY
        self._negotiator = Negotiator(offers, leading=first.tsih == 0, discovery=discovery)
        if discovery:
            return []
        alias = [("TargetAlias", target.alias)] if target.alias else []
        return [*alias, ("TargetPortalGroupTag", str(target.portal_group_tag))]

    def _secure(self, pairs: list[Pair]) -> list[Pair]:
        """Text of the security stage: AuthMethod, then CHAP."""
        proof = {name: value for name, value in pairs if name in chap.KEYS}
        others = [pair for pair in pairs if pair[0] not in chap.KEYS]
        answers = self._negotiator.receive(others, Stage.SECURITY)
        if proof:
            if self._chap is None:
                raise LoginError(LoginStatus.AUTHENTICATION_FAILURE, "CHAP keys before AuthMethod=CHAP was agreed")
            return answers + self._chap.receive(proof)
        if any(name == "AuthMethod" for name, _ in others):
            method = self._negotiator.active.get("AuthMethod")
            if method is None:
                raise LoginError(LoginStatus.AUTHENTICATION_FAILURE, "no AuthMethod in common")
            if self._credentials is not None and method == "CHAP":
                self._chap = ChapTarget(self._credentials, self._policy.random_bytes)
        return answers

    # how it ends

    def _complete(self, request: LoginRequestBhs, piece: bytes) -> None:
        """Full feature phase (T5)."""
        policy, target, identity = self._policy, self._target, self._identified()
        resolution = policy.resolve_session(target, identity)
        tsih = identity.tsih or policy.allocate_tsih(target, identity)
        exp_cmd_sn, max_cmd_sn = resolution.exp_cmd_sn, resolution.max_cmd_sn
        if exp_cmd_sn is None or max_cmd_sn is None:
            exp_cmd_sn = self._first_request().cmd_sn
            max_cmd_sn = exp_cmd_sn + target.command_window - 1 & SERIAL_BITS
        first_stat_sn = self._stat_sn
        self._answer(
            request,
            piece,
            TRANSIT | request.flags & 0x0F,
            tsih=tsih,
            window=(exp_cmd_sn, max_cmd_sn),
        )
        self._finished = True
        self._event = LoginCompleted(
            identity=identity,
            target=target,
            disposition=resolution.disposition,
            session=resolution.session,
            tsih=tsih,
            session_parameters=self._negotiator.session_parameters(resolution.parameters),
            connection_parameters=self._negotiator.connection_parameters(),
            cmd_sn=exp_cmd_sn,
            max_cmd_sn=max_cmd_sn,
            stat_sn=self._stat_sn,
            # the first request of a connection has no ExpStatSN of it yet (clause 11.12.9)
            exp_stat_sn=first_stat_sn if request is self._first else request.exp_stat_sn,
            authenticated_name=self._chap.authenticated_name if self._chap else None,
            trailing_data=self._framer.trailing_data(),
        )

    def _fail(self, error: LoginError) -> None:
        """The login is over (T6, T7). Whoever has not sent a single Login Request gets no answer (clause 6.3)."""
        self.transitions.append(f"{self.state.value} -> {State.S1_FREE.value}: {error.reason}")
        self.state = State.S1_FREE
        request = self._last
        if request is not None:
            pairs = [("TargetAddress", error.target_address)] if error.target_address else []
            self._answer(request, encode(pairs), request.flags & 0x0C, status=error.status)
        self._finished = True
        self._framer.trailing_data()
        self._assembler.clear()
        self._response = memoryview(b"")
        self._event = LoginFailed(
            status=error.status,
            reason=error.reason,
            initiator_name=self._names[0],
            target_name=self._names[1],
            transitions=tuple(self.transitions),
        )

    def _answer(
        self,
        request: LoginRequestBhs,
        text: bytes,
        flags: int,
        *,
        status: LoginStatus = LoginStatus.SUCCESS,
        tsih: int | None = None,
        window: tuple[int, int] | None = None,
    ) -> None:
        """Queue a Login Response."""
        exp_cmd_sn, max_cmd_sn = window or (request.cmd_sn, request.cmd_sn)
        bhs = LOGIN_RESPONSE.pack(
            Opcode.LOGIN_RESPONSE,
            flags,
            VERSION,
            VERSION,
            0,
            request.isid,
            request.tsih if tsih is None else tsih,
            request.initiator_task_tag,
            self._stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            status,
        )
        self._stat_sn = self._stat_sn + 1 & SERIAL_BITS
        self._send.append(frame(bhs, text))

    def _step(self, request: LoginRequestBhs, next_stage: int | None) -> None:
        """Make the transition, and remember it."""
        before = self.state
        self.state = TRANSITIONS[before, request.flags >> 2 & 3, next_stage]
        bits = f"T{request.flags >> 7} C{request.flags >> 6 & 1} CSG{request.flags >> 2 & 3} NSG{request.flags & 3}"
        self.transitions.append(f"{before.value} -> {self.state.value}: {bits}")

    def _first_request(self) -> LoginRequestBhs:
        assert self._first is not None
        return self._first

    def _identified(self) -> LoginIdentity:
        assert self._identity is not None
        return self._identity
