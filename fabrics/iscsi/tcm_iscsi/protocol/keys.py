"""The text keys: one row each (RFC 7143 clause 13, AuthMethod of clause 12.1; RFC 7144).

:mod:`tcm_iscsi.protocol.negotiation` reads this table and nothing else, and the tests iterate over it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcm_iscsi.protocol import text
from tcm_iscsi.protocol.pdu import MAX_DATA_SEGMENT_LENGTH
from tcm_iscsi.protocol.text import TextError

if TYPE_CHECKING:
    from collections.abc import Callable

Value = Any
"""A key's value in Python: bool, int, str, tuple of str."""


class Kind(enum.Enum):
    """Format of a key's value (clause 6.1)."""

    BOOLEAN = "boolean-value"
    NUMBER = "numerical-value"
    RANGE = "numeric-range"
    LIST = "list-of-values"
    NAME = "iSCSI-name-value"
    TEXT = "iSCSI-local-name-value"


class Result(enum.Enum):
    """How the responder's answer follows from both values (clauses 6.2.1 and 6.2.2)."""

    AND = "AND"
    OR = "OR"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    FIRST = "first of the originator's list that the responder supports"
    DECLARATIVE = "declared, no answer"
    NO = "always answered No"
    REJECT = "always answered Reject"


class Scope(enum.Enum):
    """What a value holds for."""

    SESSION = "session-wide"
    CONNECTION = "connection-only"


class Use(enum.Enum):
    """When a key may be used (clause 13)."""

    SECURITY = "security negotiation"
    LEADING_ONLY = "LO"
    INITIALIZE_ONLY = "IO"
    FULL_FEATURE_PHASE_ONLY = "FFPO"
    ALL = "ALL"


class Stage(enum.Enum):
    """Where text is exchanged."""

    SECURITY = "SecurityNegotiation"
    OPERATIONAL = "LoginOperationalNegotiation"
    FULL_FEATURE = "FullFeaturePhase"


class Sender(enum.Flag):
    """Who may declare or offer a key."""

    INITIATOR = enum.auto()
    TARGET = enum.auto()
    BOTH = INITIATOR | TARGET


_LOGIN = frozenset({Stage.SECURITY, Stage.OPERATIONAL})
_OPERATIONAL = frozenset({Stage.OPERATIONAL})

STAGES: dict[Use, frozenset[Stage]] = {
    Use.SECURITY: frozenset({Stage.SECURITY}),
    Use.LEADING_ONLY: _OPERATIONAL,
    Use.INITIALIZE_ONLY: _OPERATIONAL,
    Use.FULL_FEATURE_PHASE_ONLY: frozenset({Stage.FULL_FEATURE}),
    Use.ALL: frozenset(Stage),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One row."""

    name: str
    clause: str
    kind: Kind
    result: Result
    scope: Scope
    use: Use
    senders: Sender
    default: Value = None
    """The value without negotiation; None: there is none."""
    ours: Value = None
    """What we offer or accept where the configuration says nothing."""
    minimum: int = 0
    maximum: int = 0
    values: tuple[str, ...] = ()
    """For lists: what the standard names."""
    field: str = ""
    """Attribute of SessionParameters or ConnectionParameters that the result goes to."""
    identifies: bool = False
    """Part of the login's first request, in whichever stage that is (clause 6.3.1)."""
    irrelevant_in_discovery: bool = False

    @property
    def stages(self) -> frozenset[Stage]:
        """Where the initiator may send it."""
        return _LOGIN if self.identifies else STAGES[self.use]

    def parse(self, value: str) -> Value:
        """The value in Python. Raises TextError: wrong format or out of range."""
        if len(value.encode()) > text.MAX_VALUE_LENGTH:
            raise TextError(f"{self.name}: more than {text.MAX_VALUE_LENGTH} bytes")
        try:
            parsed = _PARSERS[self.kind](value)
        except TextError as e:
            raise TextError(f"{self.name}: {e}") from None
        numbers = parsed if self.kind is Kind.RANGE else (parsed,) if self.kind is Kind.NUMBER else ()
        if any(not self.minimum <= number <= self.maximum for number in numbers):
            raise TextError(f"{self.name}: outside of {self.minimum} to {self.maximum}")
        if self.kind is Kind.TEXT and self.values and parsed not in self.values:
            raise TextError(f"{self.name}: not one of {', '.join(self.values)}")
        return parsed

    def format(self, value: Value) -> str:
        """The inverse of :meth:`parse`."""
        if self.kind is Kind.BOOLEAN:
            return text.format_boolean(value)
        if self.kind is Kind.LIST and not isinstance(value, str):
            return ",".join(value)
        if self.kind is Kind.RANGE:
            return f"{value[0]}~{value[1]}"
        return str(value)


_PARSERS: dict[Kind, Callable[[str], Value]] = {
    Kind.BOOLEAN: text.parse_boolean,
    Kind.NUMBER: text.parse_number,
    Kind.RANGE: text.parse_range,
    Kind.LIST: lambda value: tuple(text.parse_list(value)),
    Kind.NAME: str,
    Kind.TEXT: str,
}

_B, _I, _T = Sender.BOTH, Sender.INITIATOR, Sender.TARGET
_SESSION, _CONNECTION = Scope.SESSION, Scope.CONNECTION
_LO, _IO, _FFPO, _ALL = Use.LEADING_ONLY, Use.INITIALIZE_ONLY, Use.FULL_FEATURE_PHASE_ONLY, Use.ALL
_DIGESTS = ("CRC32C", "None")
_TASK_REPORTING = ("RFC3720", "ResponseFence", "FastAbort")

# fmt: off
KEYS: tuple[Key, ...] = (
    Key(name="AuthMethod", clause="12.1", kind=Kind.LIST, result=Result.FIRST, scope=_CONNECTION, use=Use.SECURITY, senders=_B,
        default=("None",), ours=("None",), values=("KRB5", "SRP", "CHAP", "None")),
    Key(name="HeaderDigest", clause="13.1", kind=Kind.LIST, result=Result.FIRST, scope=_CONNECTION, use=_IO, senders=_B,
        default="None", ours=("None", "CRC32C"), values=_DIGESTS, field="header_digest"),
    Key(name="DataDigest", clause="13.1", kind=Kind.LIST, result=Result.FIRST, scope=_CONNECTION, use=_IO, senders=_B,
        default="None", ours=("None", "CRC32C"), values=_DIGESTS, field="data_digest"),
    Key(name="MaxConnections", clause="13.2", kind=Kind.NUMBER, result=Result.MINIMUM, scope=_SESSION, use=_LO, senders=_B,
        default=1, ours=1, minimum=1, maximum=65535, field="max_connections", irrelevant_in_discovery=True),
    Key(name="SendTargets", clause="13.3", kind=Kind.TEXT, result=Result.DECLARATIVE, scope=_SESSION, use=_FFPO, senders=_I),
    Key(name="TargetName", clause="13.4", kind=Kind.NAME, result=Result.DECLARATIVE, scope=_SESSION, use=_IO, senders=_B,
        identifies=True),
    Key(name="InitiatorName", clause="13.5", kind=Kind.NAME, result=Result.DECLARATIVE, scope=_SESSION, use=_IO, senders=_I,
        identifies=True),
    Key(name="TargetAlias", clause="13.6", kind=Kind.TEXT, result=Result.DECLARATIVE, scope=_SESSION, use=_ALL, senders=_T),
    Key(name="InitiatorAlias", clause="13.7", kind=Kind.TEXT, result=Result.DECLARATIVE, scope=_SESSION, use=_ALL, senders=_I),
    Key(name="TargetAddress", clause="13.8", kind=Kind.TEXT, result=Result.DECLARATIVE, scope=_SESSION, use=_ALL, senders=_T),
    Key(name="TargetPortalGroupTag", clause="13.9", kind=Kind.NUMBER, result=Result.DECLARATIVE, scope=_SESSION, use=_IO,
        senders=_T, minimum=0, maximum=65535),
    Key(name="InitialR2T", clause="13.10", kind=Kind.BOOLEAN, result=Result.OR, scope=_SESSION, use=_LO, senders=_B,
        default=True, ours=False, field="initial_r2t", irrelevant_in_discovery=True),
    Key(name="ImmediateData", clause="13.11", kind=Kind.BOOLEAN, result=Result.AND, scope=_SESSION, use=_LO, senders=_B,
        default=True, ours=True, field="immediate_data", irrelevant_in_discovery=True),
    Key(name="MaxRecvDataSegmentLength", clause="13.12", kind=Kind.NUMBER, result=Result.DECLARATIVE, scope=_CONNECTION,
        use=_ALL, senders=_B, default=8192, ours=262144, minimum=512, maximum=MAX_DATA_SEGMENT_LENGTH,
        field="initiator_max_recv_data_segment_length"),
    Key(name="MaxBurstLength", clause="13.13", kind=Kind.NUMBER, result=Result.MINIMUM, scope=_SESSION, use=_LO, senders=_B,
        default=262144, ours=1048576, minimum=512, maximum=MAX_DATA_SEGMENT_LENGTH, field="max_burst_length",
        irrelevant_in_discovery=True),
    Key(name="FirstBurstLength", clause="13.14", kind=Kind.NUMBER, result=Result.MINIMUM, scope=_SESSION, use=_LO, senders=_B,
        default=65536, ours=262144, minimum=512, maximum=MAX_DATA_SEGMENT_LENGTH, field="first_burst_length",
        irrelevant_in_discovery=True),
    Key(name="DefaultTime2Wait", clause="13.15", kind=Kind.NUMBER, result=Result.MAXIMUM, scope=_SESSION, use=_LO, senders=_B,
        default=2, ours=2, minimum=0, maximum=3600, field="default_time2wait"),
    Key(name="DefaultTime2Retain", clause="13.16", kind=Kind.NUMBER, result=Result.MINIMUM, scope=_SESSION, use=_LO,
        senders=_B, default=20, ours=20, minimum=0, maximum=3600, field="default_time2retain"),
    Key(name="MaxOutstandingR2T", clause="13.17", kind=Kind.NUMBER, result=Result.MINIMUM, scope=_SESSION, use=_LO, senders=_B,
        default=1, ours=4, minimum=1, maximum=65535, field="max_outstanding_r2t", irrelevant_in_discovery=True),
    Key(name="DataPDUInOrder", clause="13.18", kind=Kind.BOOLEAN, result=Result.OR, scope=_SESSION, use=_LO, senders=_B,
        default=True, ours=True, field="data_pdu_in_order", irrelevant_in_discovery=True),
    Key(name="DataSequenceInOrder", clause="13.19", kind=Kind.BOOLEAN, result=Result.OR, scope=_SESSION, use=_LO, senders=_B,
        default=True, ours=True, field="data_sequence_in_order", irrelevant_in_discovery=True),
    Key(name="ErrorRecoveryLevel", clause="13.20", kind=Kind.NUMBER, result=Result.MINIMUM, scope=_SESSION, use=_LO,
        senders=_B, default=0, ours=0, minimum=0, maximum=2, field="error_recovery_level"),
    Key(name="SessionType", clause="13.21", kind=Kind.TEXT, result=Result.DECLARATIVE, scope=_SESSION, use=_LO, senders=_I,
        default="Normal", values=("Discovery", "Normal"), identifies=True),
    Key(name="TaskReporting", clause="13.23", kind=Kind.LIST, result=Result.FIRST, scope=_SESSION, use=_LO, senders=_B,
        default="RFC3720", ours=_TASK_REPORTING, values=_TASK_REPORTING, field="task_reporting", irrelevant_in_discovery=True),
    Key(name="iSCSIProtocolLevel", clause="13.24", kind=Kind.NUMBER, result=Result.MINIMUM, scope=_SESSION, use=_LO,
        senders=_B, default=1, ours=2, minimum=0, maximum=31, field="iscsi_protocol_level", irrelevant_in_discovery=True),
    # Obsolete (clause 13.25): a responder must not say NotUnderstood.
    Key(name="IFMarker", clause="13.25", kind=Kind.BOOLEAN, result=Result.NO, scope=_CONNECTION, use=_IO, senders=_B,
        default=False),
    Key(name="OFMarker", clause="13.25", kind=Kind.BOOLEAN, result=Result.NO, scope=_CONNECTION, use=_IO, senders=_B,
        default=False),
    Key(name="IFMarkInt", clause="13.25", kind=Kind.RANGE, result=Result.REJECT, scope=_CONNECTION, use=_IO, senders=_B,
        minimum=1, maximum=65535),
    Key(name="OFMarkInt", clause="13.25", kind=Kind.RANGE, result=Result.REJECT, scope=_CONNECTION, use=_IO, senders=_B,
        minimum=1, maximum=65535),
)
# fmt: on

BY_NAME: dict[str, Key] = {key.name: key for key in KEYS}
