"""Every text key through whole logins and text requests (RFC 7143 6, 12.1, 13): a row each of values that are legal, with our
answer, and of values that are not. ``test_negotiation.py`` has the rules by themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from support.iscsi_login import FULL_FEATURE, IDENTITY, INITIATOR, OPERATIONAL, SECURITY, TARGET, Initiator, Policy
from tcm_iscsi.protocol.discovery import TextPhase
from tcm_iscsi.protocol.keys import BY_NAME, KEYS, Key, Kind, Result, Scope, Sender, Stage, Use
from tcm_iscsi.protocol.login_interface import Disposition, LoginTarget, SessionResolution
from tcm_iscsi.protocol.negotiation import COMBINE
from tcm_iscsi.protocol.parameters import ConnectionParameters, SessionParameters
from tcm_iscsi.protocol.pdu import FINAL, RESERVED_TAG, LoginStatus, RejectReason
from tcm_iscsi.protocol.text import encode

RESERVED = ("Reject", "Irrelevant", "NotUnderstood")
TEXT_253 = "x" * 253
NUMBERS = ("", "-1", "+1", "01", "1.0", "0x", "0xg", "1 ", "1e3", "Yes", "1,2", "99999999999999999999999")
"""No numerical-values (6.1), whatever the range."""
BOOLEANS = ("", "yes", "YES", "no", "true", "0", "1", "Yes,No", "Yes ", "Maybe")
LISTS = ("", ",", "None,", ",None", "None,,CRC32C", "None,None", "No ne", "None;CRC32C", TEXT_253 + "xyz")


@dataclass(frozen=True)
class Row:
    legal: dict[str, str | None] = field(default_factory=dict)
    """Offers or declarations, with what the defaults of the table answer; ``None``: nothing, as to every declaration."""
    illegal: tuple[str, ...] = ()


def number(*illegal: int, **legal: str) -> Row:
    return Row({value.removeprefix("v"): answer for value, answer in legal.items()}, (*NUMBERS, *map(str, illegal)))


DIGESTS = Row(
    {
        "None": "None",
        "CRC32C": "CRC32C",
        "CRC32C,None": "CRC32C",
        "None,CRC32C": "None",
        "Y#md5,Y-org.example.md5,CRC32C": "CRC32C",
        "MD5": "Reject",
        "none": "Reject",
    },
    LISTS,
)
NAMES = ("", "disk", "iqn.", "iqn.2001-13.com.example", "eui.1", "naa.1", "iqn.2001-04.com.example:" + TEXT_253)
ROWS: dict[str, Row] = {
    "AuthMethod": Row({"None": "None", "CHAP,None": "None", "KRB5,SRP,CHAP,None": "None", "X-a,None": "None"}),
    "HeaderDigest": DIGESTS,
    "DataDigest": DIGESTS,
    "MaxConnections": number(0, 65536, v1="1", v65535="1", v0x10="1"),
    "SendTargets": Row(),
    "TargetName": Row({TARGET: None, TARGET.upper(): None}, NAMES),
    "InitiatorName": Row({INITIATOR: None, INITIATOR.upper(): None, "eui.02004567A425678D": None}, NAMES),
    "TargetAlias": Row(),
    "InitiatorAlias": Row({"": None, "Büro, 2. Stock": None, "x" * 255: None}, ("x" * 256, "a\tb", "a\nb")),
    "TargetAddress": Row(),
    "TargetPortalGroupTag": Row(),
    "InitialR2T": Row({"Yes": "Yes", "No": "No"}, BOOLEANS),
    "ImmediateData": Row({"Yes": "Yes", "No": "No"}, BOOLEANS),
    "MaxRecvDataSegmentLength": Row(
        {"512": None, "8192": None, "16777215": None, "0xFFFFFF": None, "0X200": None}, (*NUMBERS, "511", "16777216", "0")
    ),
    "MaxBurstLength": number(511, 1 << 24, v512="512", v16777215="1048576", v0x1000="4096"),
    "FirstBurstLength": number(511, 1 << 24, v512="512", v16777215="262144"),
    "DefaultTime2Wait": number(3601, v0="2", v3600="3600"),
    "DefaultTime2Retain": number(3601, v0="0", v3600="20"),
    "MaxOutstandingR2T": number(0, 65536, v1="1", v65535="4"),
    "DataPDUInOrder": Row({"Yes": "Yes", "No": "Yes"}, BOOLEANS),
    "DataSequenceInOrder": Row({"Yes": "Yes", "No": "Yes"}, BOOLEANS),
    "ErrorRecoveryLevel": number(3, v0="0", v1="0", v2="0"),
    "SessionType": Row({"Normal": None}, ("", "normal", "Discover", "Normal,Discovery")),
    "TaskReporting": Row(
        {
            "RFC3720": "RFC3720",
            "ResponseFence": "ResponseFence",
            "FastAbort": "FastAbort",
            "FastAbort,ResponseFence,RFC3720": "FastAbort",
            "Later,ResponseFence": "ResponseFence",
            "Later": "Reject",
        },
        LISTS,
    ),
    "iSCSIProtocolLevel": number(32, v0="0", v1="1", v2="2", v31="2"),
    "IFMarker": Row({"Yes": "No", "No": "No"}, BOOLEANS),
    "OFMarker": Row({"Yes": "No", "No": "No"}, BOOLEANS),
    "IFMarkInt": Row({"1~65535": "Reject", "2048~4096": "Reject"}, ("", "1", "0~1", "1~65536", "2~1", "1~", "Yes")),
    "OFMarkInt": Row({"1~65535": "Reject", "2048~4096": "Reject"}, ("", "1", "0~1", "1~65536", "2~1", "1~", "Yes")),
}
OURS = [key for key in KEYS if Sender.INITIATOR in key.senders]
LEGAL = [(BY_NAME[name], value, answer) for name, row in ROWS.items() for value, answer in row.legal.items()]
ILLEGAL = [(BY_NAME[name], value) for name, row in ROWS.items() for value in row.illegal]
OFFERED = [key for key in KEYS if key.result is not Result.DECLARATIVE]


def sample(key: Key) -> str:
    """A legal value."""
    return next(iter(ROWS[key.name].legal), "Normal")


def login(key: Key, value: str, *, stage: Stage | None = None, initiator: Initiator | None = None) -> tuple[Initiator, object]:
    """A whole login with one more pair in it, in its stage or another; and the answer to it."""
    initiator = initiator or Initiator()
    security = (stage or min(key.stages & {Stage.SECURITY, Stage.OPERATIONAL}, key=list(Stage).index)) is Stage.SECURITY
    pair = {key.name: value}
    first = initiator.exchange(SECURITY, OPERATIONAL, IDENTITY | (pair if security else {}))
    answers = dict(first.keys)
    if initiator.event is None:
        answers |= initiator.exchange(OPERATIONAL, FULL_FEATURE, {} if security else pair).keys
    return initiator, answers.get(key.name)


def test_every_key_has_a_row() -> None:
    """What the target sends, and SendTargets, has no values of an initiator at login."""
    assert list(ROWS) == [key.name for key in KEYS]
    assert {name for name, row in ROWS.items() if not row.legal} == {
        "SendTargets",
        "TargetAlias",
        "TargetAddress",
        "TargetPortalGroupTag",
    }
    assert all(
        row.illegal or key.kind in (Kind.TEXT, Kind.NUMBER, Kind.LIST) for key, row in zip(KEYS, ROWS.values(), strict=True)
    )


@pytest.mark.parametrize(
    ("key", "value", "answer"), LEGAL, ids=lambda x: getattr(x, "name", x) and str(getattr(x, "name", x))[:24]
)
def test_legal_value(key: Key, value: str, answer: str | None) -> None:
    """13: offers are answered by the key's result function, declarations not at all; what was agreed holds after login."""
    initiator, got = login(key, value)
    if key.name != "MaxRecvDataSegmentLength":  # ours is a declaration of its own
        assert got == answer
    event = initiator.completed()
    if key.field and answer is not None:
        holder: object = event.session_parameters if key.scope is Scope.SESSION else event.connection_parameters
        defaults: object = SessionParameters() if key.scope is Scope.SESSION else ConnectionParameters()
        held = getattr(holder, key.field)
        if answer == "Reject":
            assert held == getattr(defaults, key.field)
        elif key.kind is Kind.LIST:
            assert held == (answer == "CRC32C" if key.name.endswith("Digest") else answer)
        else:
            assert held == key.parse(answer)
    if key.name == "MaxRecvDataSegmentLength":
        assert event.connection_parameters.initiator_max_recv_data_segment_length == int(value, 0)


@pytest.mark.parametrize(("key", "value"), ILLEGAL, ids=lambda x: getattr(x, "name", None) or repr(x)[:24])
def test_illegal_value(key: Key, value: str) -> None:
    """6.2: an offer that makes no sense is answered Reject, and the default holds; a declaration ends the login."""
    initiator, got = login(key, value)
    if key in OFFERED and not any(character < " " for character in value):
        assert got == "Reject"
        assert initiator.completed().session_parameters == SessionParameters()
        assert not initiator.completed().connection_parameters.header_digest
        return
    status = {
        "SessionType": LoginStatus.SESSION_TYPE_NOT_SUPPORTED,
        "TargetName": LoginStatus.NOT_FOUND,
    }.get(key.name, LoginStatus.INITIATOR_ERROR)
    assert initiator.failed().status is status


def test_no_common_auth_method() -> None:
    """12.1: without a method in common there is no login."""
    for value in ("CHAP", "KRB5,SRP", "none"):
        initiator, _ = login(BY_NAME["AuthMethod"], value)
        assert initiator.failed().status is LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize("word", RESERVED)
@pytest.mark.parametrize("key", [key for key in KEYS if not key.identifies], ids=lambda key: key.name)
def test_reserved_word(key: Key, word: str) -> None:
    """6.2: reserved words are answers, and nothing was offered."""
    for stage in (Stage.SECURITY, Stage.OPERATIONAL):
        initiator, _ = login(key, word, stage=stage)
        assert initiator.failed().status is LoginStatus.INITIATOR_ERROR
    answer = text_phase().request(FINAL, 1, RESERVED_TAG, encode([(key.name, word)]))
    if key.name == "SendTargets":  # any word may be asked for; there is no target of such a name
        assert answer.data == b"SendTargets=Reject\0"
    else:
        assert answer.reject is RejectReason.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "key", [key for key in OURS if sample(key) != "Normal" or key.name == "SessionType"], ids=lambda k: k.name
)
def test_repeated(key: Key) -> None:
    """6.2: twice in one text, or in two texts of a login, ends it, even with the same value; who one is may be said again."""
    stage = min(key.stages & {Stage.SECURITY, Stage.OPERATIONAL}, key=list(Stage).index)
    csg = SECURITY if stage is Stage.SECURITY else OPERATIONAL
    pair = (key.name, sample(key))
    pairs = [*IDENTITY.items(), pair] if not key.identifies else list(IDENTITY.items())
    twice = Initiator()
    twice.exchange(csg, None, [*pairs, pair])
    again = Initiator()
    again.exchange(csg, None, pairs)
    again.exchange(csg, None, [(key.name, dict(pairs)[key.name])])
    if key.identifies or key.kind is Kind.TEXT:
        assert again.event is None
    else:
        assert again.failed().status is LoginStatus.INITIATOR_ERROR
    assert twice.failed().status is LoginStatus.INITIATOR_ERROR if not key.identifies else True


@pytest.mark.parametrize("stage", [Stage.SECURITY, Stage.OPERATIONAL])
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_out_of_stage_at_login(key: Key, stage: Stage) -> None:
    """13: a key of another stage, or of the target, ends the login."""
    if key.identifies or (stage in key.stages and key in OURS):
        return
    initiator, _ = login(key, sample(key), stage=stage)
    assert initiator.failed().status is LoginStatus.INITIATOR_ERROR
    assert key.name in initiator.failed().reason


def text_phase(discovery: bool = False) -> TextPhase:
    return TextPhase(list, ConnectionParameters(), target_name=None if discovery else TARGET)


@pytest.mark.parametrize("key", [key for key in KEYS if key.name != "SendTargets"], ids=lambda key: key.name)
def test_full_feature_phase(key: Key) -> None:
    """13: only ALL and FFPO keys; others are rejected, and the sequence with all of it is forgotten."""
    phase = text_phase()
    answer = phase.request(FINAL, 1, RESERVED_TAG, encode([("InitiatorAlias", "me"), (key.name, sample(key))]))
    if Stage.FULL_FEATURE in key.stages and key in OURS and key.name != "InitiatorAlias":
        assert (answer.reject, answer.data) == (None, b"")
        if key.name == "MaxRecvDataSegmentLength":
            assert answer.initiator_max_recv_data_segment_length == int(sample(key))
    else:
        assert answer.reject is RejectReason.PROTOCOL_ERROR
        assert answer.initiator_max_recv_data_segment_length is None
    again = phase.request(FINAL, 2, RESERVED_TAG, encode([("InitiatorAlias", "me")]))
    assert again.reject is None


def test_renegotiation_in_full_feature_phase() -> None:
    """6.4: MaxRecvDataSegmentLength may be declared anew, once a sequence; illegal values reset the negotiation."""
    phase = text_phase()
    for length in (4096, 512):
        answer = phase.request(FINAL, 1, RESERVED_TAG, encode([("MaxRecvDataSegmentLength", str(length))]))
        assert answer.initiator_max_recv_data_segment_length == length
    first = phase.request(0, 1, RESERVED_TAG, encode([("MaxRecvDataSegmentLength", "1024")]))
    assert first.reject is None
    second = phase.request(FINAL, 1, first.ttt, encode([("MaxRecvDataSegmentLength", "1024")]))
    assert second.reject is RejectReason.PROTOCOL_ERROR
    for value in ROWS["MaxRecvDataSegmentLength"].illegal:
        answer = phase.request(FINAL, 1, RESERVED_TAG, encode([("MaxRecvDataSegmentLength", value)]))
        assert answer.reject is RejectReason.NEGOTIATION_RESET


@pytest.mark.parametrize(
    "key", [key for key in OURS if Stage.OPERATIONAL in key.stages and not key.identifies], ids=lambda k: k.name
)
def test_joining_connection(key: Key) -> None:
    """13: leading-only keys are rejected on a connection that joins a session, whose values stay; others are negotiated."""
    session = SessionParameters(
        max_connections=4, initial_r2t=False, max_burst_length=777777, error_recovery_level=2, task_reporting="FastAbort"
    )
    resolution = SessionResolution(
        disposition=Disposition.ADD_CONNECTION, session="it", parameters=session, exp_cmd_sn=5, max_cmd_sn=9
    )
    initiator, got = login(key, sample(key), initiator=Initiator(Policy(resolution=resolution), tsih=0x77))
    event = initiator.completed()
    assert event.session_parameters == session
    if key.use is Use.LEADING_ONLY:
        assert got == "Reject"
    elif key.result in COMBINE:
        assert got == ROWS[key.name].legal[sample(key)]


@pytest.mark.parametrize(
    "key", [key for key in OURS if Stage.OPERATIONAL in key.stages and not key.identifies], ids=lambda k: k.name
)
def test_discovery_session(key: Key) -> None:
    """13, 4.3: what says so of itself is Irrelevant; the rest is negotiated as ever."""
    initiator = Initiator()
    initiator.exchange(SECURITY, OPERATIONAL, {"InitiatorName": INITIATOR, "SessionType": "Discovery"})
    answer = initiator.exchange(OPERATIONAL, FULL_FEATURE, {key.name: sample(key)})
    if key.irrelevant_in_discovery:
        assert answer.keys[key.name] == "Irrelevant"
        assert initiator.completed().session_parameters == SessionParameters()
    elif key.result in COMBINE:
        assert answer.keys[key.name] == ROWS[key.name].legal[sample(key)]
    assert initiator.completed()


@pytest.mark.parametrize("key", OURS, ids=lambda key: key.name)
def test_irrelevant_in_discovery_is_what_the_clauses_say(key: Key) -> None:
    """13.2, 13.10 to 13.19, 13.23, 13.24: "Irrelevant when: SessionType=Discovery"."""
    said = {"MaxConnections", "InitialR2T", "ImmediateData", "MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T"}
    said |= {"DataPDUInOrder", "DataSequenceInOrder", "TaskReporting", "iSCSIProtocolLevel"}
    assert key.irrelevant_in_discovery == (key.name in said)


@pytest.mark.parametrize(
    "name", ["X-org.example.key", "X#Key", "Y-org.example.digest", "Z-org.example.auth", "Y#a", "Z#a", "FooBar"]
)
def test_unknown_key(name: str) -> None:
    """6.2: NotUnderstood, at login in either stage and in full feature phase; the login goes on."""
    initiator = Initiator()
    first = initiator.exchange(SECURITY, OPERATIONAL, {**IDENTITY, name: "1"})
    second = initiator.exchange(OPERATIONAL, FULL_FEATURE, {name + "2": "?"})
    assert (first.keys[name], second.keys[name + "2"]) == ("NotUnderstood", "NotUnderstood")
    initiator.completed()
    assert text_phase().request(FINAL, 1, RESERVED_TAG, encode([(name, "1")])).data == encode([(name, "NotUnderstood")])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key in OFFERED
        if key.result in COMBINE and key.use is not Use.SECURITY
        for value in (*RESERVED, "junk!")
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_answer_to_our_offer(key: Key, value: str) -> None:
    """6.2: our offer may be answered by a reserved word, and the default holds; by nothing else that is not its result."""
    target = LoginTarget(handle="tpg", name=TARGET, login_keys_workaround=False)
    ours = {"MaxConnections": "4", "DataPDUInOrder": "No", "DataSequenceInOrder": "No", "ErrorRecoveryLevel": "2"}
    ours |= {"ImmediateData": "No", "DefaultTime2Wait": "5", "DefaultTime2Retain": "60"}
    initiator = Initiator(Policy(target=target, our_offers=ours))
    offers = initiator.exchange(OPERATIONAL, FULL_FEATURE, IDENTITY).keys
    if key.kind is Kind.LIST:
        assert key.name not in offers  # the initiator's order is to decide
        return
    answers = {name: offer for name, offer in offers.items() if name in BY_NAME and BY_NAME[name].result in COMBINE}
    answer = initiator.exchange(OPERATIONAL, FULL_FEATURE, {**answers, key.name: value})
    if value in RESERVED:
        assert answer.transit
        held = getattr(initiator.completed().session_parameters, key.field)
        assert held == getattr(SessionParameters(), key.field) == key.default
    else:
        assert initiator.failed().status is LoginStatus.INITIATOR_ERROR
