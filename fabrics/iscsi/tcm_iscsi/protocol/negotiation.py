"""Text negotiation (RFC 7143 clause 6.2), driven by the key table: ours, theirs, active."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tcm_iscsi.protocol.keys import BY_NAME, KEYS, Key, Kind, Result, Scope, Sender, Stage, Use, Value
from tcm_iscsi.protocol.parameters import ConnectionParameters, SessionParameters
from tcm_iscsi.protocol.pdu import RejectReason
from tcm_iscsi.protocol.text import Pair, TextError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

REJECT, IRRELEVANT, NOT_UNDERSTOOD, INQUIRY = "Reject", "Irrelevant", "NotUnderstood", "?"
RESERVED = frozenset({REJECT, IRRELEVANT, NOT_UNDERSTOOD})
"""Values that only an answer may have (clause 6.2)."""

COMBINE: dict[Result, Callable[[Any, Any], Value | None]] = {
    Result.AND: lambda ours, theirs: ours and theirs,
    Result.OR: lambda ours, theirs: ours or theirs,
    Result.MINIMUM: min,
    Result.MAXIMUM: max,
    Result.FIRST: lambda ours, theirs: next((item for item in theirs if item in ours), None),
}
"""The responder's result from (ours, theirs); None: nothing in common."""


class NegotiationError(Exception):
    """The initiator broke a rule: the login fails, or the text request is rejected with ``reject_reason``."""

    def __init__(self, message: str, reject_reason: RejectReason = RejectReason.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.reject_reason = reject_reason


class Negotiator:
    """One negotiation sequence: a login phase, or one text request sequence of full feature phase.

    :param offers: our values by key name, as text; raises TextError if one is not legal. Others come from the table.
    :param leading: the first connection of a session: only there session-wide keys are negotiated.
    :param discovery: a discovery session.
    """

    def __init__(self, offers: Mapping[str, str] | None = None, *, leading: bool = True, discovery: bool = False) -> None:
        self.ours: dict[str, Value] = {key.name: key.ours for key in KEYS if key.ours is not None}
        for name, value in (offers or {}).items():
            self.ours[name] = BY_NAME[name].parse(value)
        self.theirs: dict[str, Value] = {}
        self.active: dict[str, Value] = {}
        self.leading = leading
        self.discovery = discovery
        self._used: set[str] = set()
        self._awaited: set[str] = set()
        self._declared = False

    @property
    def complete(self) -> bool:
        """None of our offers waits for its answer."""
        return not self._awaited

    def receive(self, pairs: Iterable[Pair], stage: Stage) -> list[Pair]:
        """Take the initiator's declarations, offers and answers; return our answers, in its order. Raises NegotiationError."""
        pairs = list(pairs)
        # FirstBurstLength is bounded by, and irrelevant under, the results of others that may stand after it (clause 13.14)
        answers = {
            name: self._receive(name, value, stage) for name, value in sorted(pairs, key=lambda p: p[0] == "FirstBurstLength")
        }
        return [(name, answer) for name, _ in pairs if (answer := answers[name]) is not None]

    def _receive(self, name: str, value: str, stage: Stage) -> str | None:
        key = BY_NAME.get(name)
        if name in self._awaited and key is not None:
            self._answered(key, value)
            return None
        if value in RESERVED:
            raise NegotiationError(f"{name}={value} answers nothing that we offered")
        if key is None:
            return NOT_UNDERSTOOD
        if value == INQUIRY:
            current = self.active.get(name, self.ours.get(name, key.default))
            return REJECT if current is None else key.format(current)
        if name in self._used:
            if key.kind in (Kind.NAME, Kind.TEXT) and self.theirs.get(name) == value and stage is not Stage.FULL_FEATURE:
                return None  # libiscsi says who it is once a stage
            raise NegotiationError(f"{name} is negotiated twice")
        self._used.add(name)
        if Sender.INITIATOR not in key.senders:
            raise NegotiationError(f"{name} is the target's to send")
        if self.discovery and (key.irrelevant_in_discovery or stage is Stage.FULL_FEATURE):
            return IRRELEVANT
        if stage not in key.stages:
            raise NegotiationError(f"{name} cannot be used in {stage.value}")
        if key.use is Use.LEADING_ONLY and not self.leading and not key.identifies:
            return REJECT
        return self._offered(key, value)

    def _offered(self, key: Key, value: str) -> str | None:
        """An offer or a declaration that is in its place."""
        try:
            theirs = key.parse(value)
        except TextError as e:
            if key.result is Result.DECLARATIVE:
                raise NegotiationError(str(e), RejectReason.NEGOTIATION_RESET) from None
            return REJECT
        self.theirs[key.name] = theirs
        if key.result is Result.DECLARATIVE:
            self.active[key.name] = theirs
            return None
        if key.result is Result.NO:
            return "No"
        if key.result is Result.REJECT:
            return REJECT
        if key.name == "FirstBurstLength":
            if self._current("InitialR2T") and not self._current("ImmediateData"):
                return IRRELEVANT
            theirs = min(theirs, self._current("MaxBurstLength"))
        result = COMBINE[key.result](self.ours[key.name], theirs)
        if result is None:
            return REJECT
        self.active[key.name] = result
        return key.format(result)

    def _answered(self, key: Key, value: str) -> None:
        """The initiator's answer to an offer of ours: it must follow from both values."""
        self._awaited.discard(key.name)
        if value in RESERVED:
            return
        ours = self.ours[key.name]
        try:
            theirs = key.parse(value)
        except TextError as e:
            raise NegotiationError(str(e)) from None
        result = COMBINE[key.result](ours, theirs)
        legal = len(theirs) == 1 and result == theirs[0] if key.kind is Kind.LIST else result == theirs
        if not legal:
            raise NegotiationError(f"{key.name}={value} is no answer to {key.format(ours)}")
        self.theirs[key.name] = theirs
        self.active[key.name] = result

    def _current(self, name: str) -> Value:
        return self.active.get(name, BY_NAME[name].default)

    def declare(self) -> list[Pair]:
        """Our own declarations of the operational stage, once."""
        if self._declared:
            return []
        self._declared = True
        return [("MaxRecvDataSegmentLength", str(self.ours["MaxRecvDataSegmentLength"]))]

    def originate(self) -> list[Pair]:
        """Our offers of what the initiator has not brought up and whose default we do not want; then wait for the answers."""
        offers = [
            key
            for key in KEYS
            if key.result in COMBINE
            and Stage.OPERATIONAL in key.stages
            and key.name not in self._used
            and key.kind is not Kind.LIST
            and self.ours[key.name] != key.default
            and (self.leading or key.scope is Scope.CONNECTION)
            and not (self.discovery and key.irrelevant_in_discovery)
        ]
        self._used.update(key.name for key in offers)
        self._awaited.update(key.name for key in offers)
        return [(key.name, key.format(self.ours[key.name])) for key in offers]

    def session_parameters(self, joined: SessionParameters | None = None) -> SessionParameters:
        """The session's active values: negotiated here, or those of the session that the connection joined."""
        values = {BY_NAME[name].field: value for name, value in self.active.items() if BY_NAME[name].scope is Scope.SESSION}
        values.pop("", None)
        return replace(joined or SessionParameters(), **values)

    def connection_parameters(self) -> ConnectionParameters:
        """The connection's active values."""
        defaults = ConnectionParameters()
        return ConnectionParameters(
            header_digest=self.active.get("HeaderDigest") == "CRC32C",
            data_digest=self.active.get("DataDigest") == "CRC32C",
            max_recv_data_segment_length=self.ours["MaxRecvDataSegmentLength"]
            if self._declared
            else defaults.max_recv_data_segment_length,
            initiator_max_recv_data_segment_length=self.active.get(
                "MaxRecvDataSegmentLength", defaults.initiator_max_recv_data_segment_length
            ),
        )
