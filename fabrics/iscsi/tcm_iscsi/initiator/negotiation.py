"""The initiator's side of text negotiation (RFC 7143 clause 6.2): offers, answers, active values; driven by the key table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tcm_iscsi.initiator.options import OFFERS
from tcm_iscsi.protocol.keys import BY_NAME, Key, Kind, Result, Scope, Sender, Stage, Use, Value
from tcm_iscsi.protocol.negotiation import COMBINE, NOT_UNDERSTOOD, REJECT, RESERVED, NegotiationError
from tcm_iscsi.protocol.parameters import SessionParameters
from tcm_iscsi.protocol.text import Pair, TextError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tcm_iscsi.initiator.options import Options

LEGAL: dict[Result, Callable[[Any, Any], bool]] = {
    Result.AND: lambda ours, answer: ours or not answer,
    Result.OR: lambda ours, answer: answer or not ours,
    Result.MINIMUM: lambda ours, answer: answer <= ours,
    Result.MAXIMUM: lambda ours, answer: answer >= ours,
    Result.FIRST: lambda ours, answer: len(answer) == 1 and answer[0] in ours,
    Result.NO: lambda _ours, answer: not answer,
}
"""Whether an answer can follow from what we offered, whatever the target's own value is."""

DECIDES = {Result.AND: False, Result.OR: True}
"""The Boolean offer that decides the result alone."""


@dataclass(slots=True, kw_only=True)
class ConnectionParameters:
    """Values of one connection. Defaults are those of RFC 7143."""

    header_digest: bool = False
    """CRC32C after every header, both ways."""
    data_digest: bool = False
    """CRC32C after every data segment that is not empty, both ways."""
    max_recv_data_segment_length: int = 8192
    """Bytes of data segment that we accept: what we declared."""
    target_max_recv_data_segment_length: int = 8192
    """Bytes of data segment that the target accepts: what it declared."""


class Offers:
    """One login's operational negotiation.

    :param leading: the first connection of a session: only there session-wide keys are offered.
    """

    def __init__(self, options: Options, *, leading: bool = True) -> None:
        self.options = options
        self.leading = leading
        self.discovery = not options.target_name
        self.offered: dict[str, str] = {}
        self.awaited: set[str] = set()
        """Offers without an answer yet."""
        self.answers: dict[str, str] = {}
        """Everything that the target has said, as text."""
        self.active: dict[str, Value] = {}
        self.target_max_recv_data_segment_length = 8192
        self._declared = 8192

    def offer(self) -> list[Pair]:
        """Our offers and declarations for the operational stage."""
        names = dict.fromkeys([*OFFERS, *self.options.keys])
        pairs = []
        for name in names:
            value = self.options.offer(name)
            key = BY_NAME.get(name)
            if value is None or (key is not None and not self._in_place(key)):
                continue
            pairs.append((name, value))
            self.offered[name] = value
            if key is None or key.result is not Result.DECLARATIVE:
                self.awaited.add(name)
            elif name == "MaxRecvDataSegmentLength":
                self._declared = key.parse(value)
        return pairs

    def _in_place(self, key: Key) -> bool:
        if Stage.OPERATIONAL not in key.stages or key.identifies or Sender.INITIATOR not in key.senders:
            return False
        if not self.leading and (key.use is Use.LEADING_ONLY or key.scope is Scope.SESSION):
            return False
        return not (self.discovery and key.irrelevant_in_discovery)

    def receive(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Take the target's answers, declarations and offers; return our answers. Raises NegotiationError."""
        answers = []
        for name, value in pairs:
            key = BY_NAME.get(name)
            self.answers[name] = value
            if name in self.awaited:
                self.awaited.discard(name)
                if key is not None:
                    self._answered(key, value)
            elif key is None:
                answers.append((name, NOT_UNDERSTOOD))
            elif key.result is Result.DECLARATIVE:
                self._declaration(key, value)
            elif name in self.offered:
                raise NegotiationError(f"{name} is answered twice")
            else:
                answers.append((name, self._their_offer(key, value)))
        return answers

    def _answered(self, key: Key, value: str) -> None:
        if value in RESERVED:
            return  # the default holds
        try:
            answer, ours = key.parse(value), key.parse(self.offered[key.name])
        except TextError as e:
            raise NegotiationError(str(e)) from None
        if not LEGAL[key.result](ours, answer):
            raise NegotiationError(f"{key.name}={value} is no answer to {self.offered[key.name]}")
        self.active[key.name] = answer[0] if key.kind is Kind.LIST else answer

    def _declaration(self, key: Key, value: str) -> None:
        # others say nothing to us; LIO declares SessionType to connections that join
        if key.name == "MaxRecvDataSegmentLength":
            try:
                self.target_max_recv_data_segment_length = key.parse(value)
            except TextError as e:
                raise NegotiationError(str(e)) from None

    def _their_offer(self, key: Key, value: str) -> str:
        """The target brings a key up that we have not."""
        if value in RESERVED or not self._in_place(key):
            raise NegotiationError(f"{key.name}={value} out of place")
        try:
            theirs = key.parse(value)
        except TextError:
            return REJECT
        if key.result is Result.NO:
            return "No"
        if key.result not in COMBINE:
            return REJECT
        default = key.default if key.kind is not Kind.LIST else (key.default,)
        result = COMBINE[key.result](default, theirs)
        if result is None:
            return REJECT
        self.active[key.name] = result
        return key.format(result)

    def settle(self) -> None:
        """The login is over. A Boolean whose result our offer has decided needs no answer (clause 6.2.2)."""
        for name in self.awaited & BY_NAME.keys():
            key = BY_NAME[name]
            decides = DECIDES.get(key.result)
            if decides is not None and key.parse(self.offered[name]) is decides:
                self.active[name] = decides

    def session_parameters(self, joined: SessionParameters | None) -> SessionParameters:
        """The session's active values: negotiated here, or those of the session that the connection joined."""
        if joined is not None:
            return joined
        values = {BY_NAME[name].field: value for name, value in self.active.items() if BY_NAME[name].scope is Scope.SESSION}
        values.pop("", None)
        return replace(SessionParameters(), **values)

    def connection_parameters(self) -> ConnectionParameters:
        """The connection's active values."""
        return ConnectionParameters(
            header_digest=self.active.get("HeaderDigest") == "CRC32C",
            data_digest=self.active.get("DataDigest") == "CRC32C",
            max_recv_data_segment_length=self._declared,
            target_max_recv_data_segment_length=self.target_max_recv_data_segment_length,
        )
