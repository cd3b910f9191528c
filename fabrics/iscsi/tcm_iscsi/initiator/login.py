"""The initiator's side of login, sans-IO (RFC 7143 clause 6.3).

Usage, in the owner's receive loop::

    login = Login(options, isid=isid, cid=0, random_bytes=os.urandom)
    for buffer in login.data_to_send(): ...   # after making it and after every receive_data
    login.receive_data(data)
    event = login.next_event()                # None, LoggedIn or LoginFailed: exactly one of them, once
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcm_iscsi.initiator.chap import ChapInitiator
from tcm_iscsi.initiator.negotiation import ConnectionParameters, Offers
from tcm_iscsi.initiator.results import LoginFailed
from tcm_iscsi.protocol import chap
from tcm_iscsi.protocol.framer import LOGIN_MAX_DATA_SEGMENT_LENGTH, Framer, FramingError, Pdu, frame
from tcm_iscsi.protocol.negotiation import NegotiationError
from tcm_iscsi.protocol.parameters import SessionParameters
from tcm_iscsi.protocol.pdu import (
    CONTINUE,
    IMMEDIATE,
    LOGIN_REQUEST,
    LOGIN_RESPONSE,
    OPCODE_MASK,
    TRANSIT,
    Buffer,
    LoginResponseBhs,
    LoginStage,
    LoginStatus,
    Opcode,
)
from tcm_iscsi.protocol.serial import SERIAL_BITS
from tcm_iscsi.protocol.text import Pair, TextAssembler, TextError, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcm_iscsi.initiator.options import Options

MAX_EXCHANGES = 128
"""Requests of one login: a target that never comes to an end is left."""
_SECURITY, _OPERATIONAL, _FULL_FEATURE = LoginStage


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """The connection is in full feature phase."""

    tsih: int
    cid: int
    isid: bytes
    session_parameters: SessionParameters
    connection_parameters: ConnectionParameters
    exp_stat_sn: int
    """The next StatSN of this connection."""
    cmd_sn: int
    """What the Login Requests carried."""
    exp_cmd_sn: int
    max_cmd_sn: int
    keys: dict[str, str] = field(default_factory=dict)
    """What the target said, as text: answers, TargetPortalGroupTag, TargetAlias."""
    trailing_data: bytes = b""
    """What came after the last Login Response: full feature phase PDUs."""


class Login:
    """One connection's login, initiator side.

    :param tsih: 0 for a new session, otherwise of the session that the connection joins, with ``joined`` its parameters.
    :param exp_stat_sn: of the connection with this CID that is reinstated, otherwise 0 (clause 11.12.9).
    :param random_bytes: unpredictable bytes of a given length.
    """

    def __init__(
        self,
        options: Options,
        *,
        isid: bytes,
        cid: int,
        random_bytes: Callable[[int], bytes],
        tsih: int = 0,
        cmd_sn: int | None = None,
        exp_stat_sn: int = 0,
        joined: SessionParameters | None = None,
    ) -> None:
        self.options = options
        self.isid, self.tsih, self.cid = isid, tsih, cid
        self.cmd_sn = options.cmd_sn if cmd_sn is None else cmd_sn
        self.joined = joined
        self.offers = Offers(options, leading=not tsih)
        self._chap = ChapInitiator(options.chap, random_bytes) if options.chap is not None else None
        security = options.security_stage if options.security_stage is not None else options.chap is not None
        self._stage = _SECURITY if security else _OPERATIONAL
        self._itt = int.from_bytes(random_bytes(4), "big") & 0x7FFFFFFF
        self._exp_stat_sn = exp_stat_sn
        self._first = True
        self._framer = Framer()
        self._assembler = TextAssembler()
        self._send: list[bytes] = []
        self._event: LoggedIn | LoginFailed | None = None
        self._finished = False
        self._text = memoryview(b"")
        """Text of ours that has not been sent yet."""
        self._next: LoginStage | None = None
        """The stage that we want once all of our text is sent."""
        self._exchanges = 0
        self._begin()

    # the owner's side

    def data_to_send(self) -> list[bytes]:
        """Buffers to send, in order; each is returned once."""
        out, self._send = self._send, []
        return out

    def next_event(self) -> LoggedIn | LoginFailed | None:
        """How it ended, once; None before and after."""
        event, self._event = self._event, None
        return event

    def receive_data(self, data: Buffer) -> None:
        """Take bytes from the target."""
        self._framer.receive_data(data)
        while not self._finished:
            try:
                pdu = self._framer.next_pdu()
                if pdu is None:
                    return
                self._response(pdu)
            except (FramingError, TextError, NegotiationError) as e:
                self._fail(LoginFailed(f"the target breaks the rules of login: {e}"))
            except LoginFailed as e:
                self._fail(e)

    # requests

    def _begin(self) -> None:
        options = self.options
        who = [("InitiatorName", options.initiator_name)]
        if options.initiator_alias:
            who.append(("InitiatorAlias", options.initiator_alias))
        if options.target_name:
            who += [("TargetName", options.target_name), ("SessionType", "Normal")]
        else:
            who.append(("SessionType", "Discovery"))
        if self._stage is _SECURITY:
            method = options.keys.get("AuthMethod") or ("CHAP" if self._chap is not None else "None")
            # nothing is left to say in the stage if no method needs an exchange
            self._say([*who, ("AuthMethod", method)], None if "CHAP" in method else _OPERATIONAL)
        else:
            self._say(who + self.offers.offer(), _FULL_FEATURE)

    def _say(self, pairs: list[Pair], next_stage: LoginStage | None) -> None:
        """Begin a text of ours; ``next_stage``: the transition that we want with it."""
        self._text = memoryview(encode(pairs))
        self._next = next_stage
        self._request()

    def _request(self) -> None:
        """The next piece of our text."""
        self._exchanges += 1
        if self._exchanges > MAX_EXCHANGES:
            raise LoginFailed("the login does not come to an end")
        piece = bytes(self._text[:LOGIN_MAX_DATA_SEGMENT_LENGTH])
        self._text = self._text[LOGIN_MAX_DATA_SEGMENT_LENGTH:]
        flags = self._stage << 2
        if self._text:
            flags |= CONTINUE
        elif self._next is not None:
            flags |= TRANSIT | self._next
        bhs = LOGIN_REQUEST.pack(
            IMMEDIATE | Opcode.LOGIN_REQUEST,
            flags,
            0,
            0,
            0,
            self.isid,
            self.tsih,
            self._itt,
            self.cid,
            self.cmd_sn,
            self._exp_stat_sn,
        )
        self._send.append(frame(bhs, piece))

    # responses

    def _response(self, pdu: Pdu) -> None:
        bhs = LoginResponseBhs._make(LOGIN_RESPONSE.unpack(pdu.bhs))
        if bhs.opcode & OPCODE_MASK != Opcode.LOGIN_RESPONSE:
            raise LoginFailed(
                f"opcode {bhs.opcode & OPCODE_MASK:#04x} during login: this is no iSCSI target, or not a sound one"
            )
        self._assembler.add(pdu.data)
        if bhs.status:
            self._refused(bhs)
        if bhs.initiator_task_tag != self._itt:
            raise LoginFailed("a Login Response with another Initiator Task Tag")
        if not self._first and bhs.stat_sn != self._exp_stat_sn:
            raise LoginFailed("a StatSN that does not follow the one before")
        self._first = False
        self._exp_stat_sn = bhs.stat_sn + 1 & SERIAL_BITS
        if bhs.flags & CONTINUE:
            if self._text or bhs.flags & TRANSIT:
                raise LoginFailed("the target sets the C bit where it cannot")
            self._next = None
            self._request()
            return
        pairs = self._assembler.take()
        if self._text:
            if pairs:
                raise LoginFailed("text where only an empty response can follow")
            self._request()
            return
        if bhs.flags >> 2 & 3 != self._stage:
            raise LoginFailed("a Login Response of another stage")
        transit = bhs.flags & 3 if bhs.flags & TRANSIT else None
        if transit is not None and (self._next is None or transit > self._next or transit <= self._stage):
            raise LoginFailed("the target goes to a stage that it was not asked to")
        if self._stage is _SECURITY:
            self._secure(pairs, transit)
        else:
            self._operate(pairs, transit, bhs)

    def _secure(self, pairs: list[Pair], transit: int | None) -> None:
        proof = {name: value for name, value in pairs if name in chap.KEYS}
        others = dict(pair for pair in pairs if pair[0] not in chap.KEYS)
        self.offers.answers.update(others)
        exchange = self._chap
        method = others.get("AuthMethod")
        answer: list[Pair] = []
        if method is not None:
            if method == "CHAP" and exchange is not None:
                answer = exchange.begin()
            elif method != "None":
                raise LoginFailed(f"the target wants AuthMethod={method}, which was not offered")
            elif exchange is not None and self.options.chap is not None and self.options.chap.mutual_secret:
                raise LoginFailed("the target does not want to prove itself: it chose AuthMethod=None")
        elif proof:
            if exchange is None:
                raise LoginFailed("the target asks for CHAP, and there is no secret for it")
            answer = exchange.receive(proof)
        if transit is not None:
            if self._chap is not None and self._chap.answered and not self._chap.done:
                raise LoginFailed("CHAP: the target has not proved itself")
            self._stage = LoginStage(transit)
            self._say(self.offers.offer(), _FULL_FEATURE)
            return
        ready = not answer or (exchange is not None and exchange.answered)
        self._say(answer, _OPERATIONAL if ready else None)

    def _operate(self, pairs: list[Pair], transit: int | None, bhs: LoginResponseBhs) -> None:
        answers = self.offers.receive(pairs)
        if transit != _FULL_FEATURE:
            self._say(answers, _FULL_FEATURE)
            return
        if answers:
            raise LoginFailed("the target ends the login while it waits for an answer")
        if not bhs.tsih:
            raise LoginFailed("the target gave the session no TSIH")
        self._finished = True
        self.offers.settle()
        self._event = LoggedIn(
            tsih=bhs.tsih,
            cid=self.cid,
            isid=self.isid,
            session_parameters=self.offers.session_parameters(self.joined),
            connection_parameters=self.offers.connection_parameters(),
            exp_stat_sn=self._exp_stat_sn,
            cmd_sn=self.cmd_sn,
            exp_cmd_sn=bhs.exp_cmd_sn,
            max_cmd_sn=bhs.max_cmd_sn,
            keys=dict(self.offers.answers),
            trailing_data=self._framer.trailing_data(),
        )

    def _refused(self, bhs: LoginResponseBhs) -> None:
        try:
            text = dict(self._assembler.take())
        except TextError:
            text = {}
        try:
            status: LoginStatus | int = LoginStatus(bhs.status)
            name = LoginStatus(bhs.status).name.replace("_", " ").lower()
        except ValueError:
            status, name = bhs.status, "an unknown status"
        if status == LoginStatus.AUTHENTICATION_FAILURE and self._chap is None:
            name += ", no CHAP user and secret were given"
        raise LoginFailed(f"the target refuses the login: {name} ({bhs.status:04x}h)", status, text.get("TargetAddress"))

    def _fail(self, error: LoginFailed) -> None:
        self._finished = True
        self._event = error
