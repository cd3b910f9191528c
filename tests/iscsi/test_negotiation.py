"""Negotiation: RFC 7143 6.2, for every row of the key table."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcm_iscsi.attributes import TpgParameters
from tcm_iscsi.protocol.keys import BY_NAME, KEYS, Key, Kind, Result, Sender, Stage, Use
from tcm_iscsi.protocol.negotiation import COMBINE, NegotiationError, Negotiator
from tcm_iscsi.protocol.parameters import SessionParameters
from tcm_iscsi.protocol.pdu import RejectReason

NEGOTIABLE = [key for key in KEYS if key.result in COMBINE and Stage.OPERATIONAL in key.stages]
OFFERS = {Kind.BOOLEAN: ["Yes", "No"], Kind.NUMBER: [], Kind.LIST: []}


def one(name: str, value: str, stage: Stage = Stage.OPERATIONAL, **options: object) -> tuple[Negotiator, str | None]:
    """The answer to a single pair."""
    negotiator = Negotiator(**options)  # type: ignore[arg-type]
    answers = dict(negotiator.receive([(name, value)], stage))
    assert set(answers) <= {name}
    return negotiator, answers.get(name)


@pytest.mark.parametrize("key", [key for key in NEGOTIABLE if key.kind is Kind.BOOLEAN], ids=lambda key: key.name)
@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_boolean_keys(key: Key, ours: bool, theirs: bool) -> None:
    """RFC 7143 6.2.2: AND and OR."""
    expected = ours and theirs if key.result is Result.AND else ours or theirs
    word = {True: "Yes", False: "No"}
    negotiator, answer = one(key.name, word[theirs], offers={key.name: word[ours]})
    assert answer == word[expected]
    assert getattr(negotiator.session_parameters(), key.field) is expected


@pytest.mark.parametrize("key", [key for key in NEGOTIABLE if key.kind is Kind.NUMBER], ids=lambda key: key.name)
@pytest.mark.parametrize("spelling", [str, hex])
def test_number_keys(key: Key, spelling: type) -> None:
    """RFC 7143 6.2.2: minimum and maximum, over the whole range."""
    points = sorted({key.minimum, key.minimum + 1, min(key.maximum, 65536), key.maximum})
    for ours in points:
        for theirs in points:
            expected = (max if key.result is Result.MAXIMUM else min)(ours, theirs)
            if key.name == "FirstBurstLength":
                expected = min(expected, 262144)
            negotiator, answer = one(key.name, spelling(theirs), offers={key.name: str(ours)})
            assert answer == str(expected)
            assert getattr(negotiator.session_parameters(), key.field) == expected


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "answer"),
    [
        ("HeaderDigest", "None,CRC32C", "CRC32C,None", "CRC32C"),
        ("HeaderDigest", "None,CRC32C", "None,CRC32C", "None"),
        ("HeaderDigest", "CRC32C,None", "None,CRC32C", "None"),
        ("HeaderDigest", "CRC32C", "None,CRC32C", "CRC32C"),
        ("HeaderDigest", "CRC32C", "None", "Reject"),
        ("HeaderDigest", "None", "CRC32C", "Reject"),
        ("DataDigest", "None,CRC32C", "X-com.example.md5,CRC32C", "CRC32C"),
        ("DataDigest", "None,CRC32C", "X-com.example.md5", "Reject"),
        ("TaskReporting", "RFC3720,ResponseFence", "FastAbort,ResponseFence,RFC3720", "ResponseFence"),
        ("TaskReporting", "RFC3720", "RFC3720,ResponseFence", "RFC3720"),
    ],
)
def test_list_keys(name: str, ours: str, theirs: str, answer: str) -> None:
    """RFC 7143 6.2.1: the first of the originator's list that the responder supports, whatever the responder's order."""
    negotiator, got = one(name, theirs, offers={name: ours})
    assert got == answer
    connection = negotiator.connection_parameters()
    if name == "HeaderDigest":
        assert connection.header_digest == (answer == "CRC32C")
        assert not connection.data_digest
    if name == "DataDigest":
        assert connection.data_digest == (answer == "CRC32C")


@pytest.mark.parametrize("key", NEGOTIABLE, ids=lambda key: key.name)
def test_illegal_values_are_rejected(key: Key) -> None:
    """RFC 7143 6.2: Reject, and the default stays."""
    wrong = {Kind.BOOLEAN: "Perhaps", Kind.NUMBER: str(key.maximum + 1), Kind.LIST: "None,,None"}[key.kind]
    negotiator, answer = one(key.name, wrong)
    assert answer == "Reject"
    assert negotiator.session_parameters() == SessionParameters()


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_reserved_words_answer_nothing(key: Key) -> None:
    """Reject, Irrelevant and NotUnderstood are answers; nobody asked."""
    for word in ("Reject", "Irrelevant", "NotUnderstood"):
        for stage in Stage:
            with pytest.raises(NegotiationError, match=key.name):
                one(key.name, word, stage)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
@pytest.mark.parametrize("stage", Stage)
def test_stages(key: Key, stage: Stage) -> None:
    """RFC 7143 13: a key outside of its stage, or from the wrong side, is a protocol error."""
    value = {
        Kind.BOOLEAN: "No",
        Kind.NUMBER: str(key.maximum),
        Kind.RANGE: "1~2",
        Kind.LIST: "None" if "None" in key.values else "RFC3720",
        Kind.NAME: "iqn.2001-04.com.example",
        Kind.TEXT: "Normal",
    }[key.kind]
    if stage in key.stages and Sender.INITIATOR in key.senders:
        one(key.name, value, stage)
    else:
        with pytest.raises(NegotiationError, match=key.name) as caught:
            one(key.name, value, stage)
        assert caught.value.reject_reason is RejectReason.PROTOCOL_ERROR


@pytest.mark.parametrize("key", [key for key in KEYS if Sender.INITIATOR in key.senders], ids=lambda key: key.name)
def test_repeated_key(key: Key) -> None:
    """RFC 7143 6.2: not twice in one negotiation."""
    stage = next(iter(key.stages))
    value = {Kind.BOOLEAN: "No", Kind.NUMBER: str(key.maximum), Kind.RANGE: "1~2", Kind.LIST: "None"}.get(key.kind, "Normal")
    negotiator = Negotiator()
    negotiator.receive([(key.name, value)], stage)
    other = value + "x" if key.identifies or key.name == "InitiatorAlias" else value
    with pytest.raises(NegotiationError, match="twice"):
        negotiator.receive([(key.name, other)], stage)


@pytest.mark.parametrize("name", ["InitiatorName", "InitiatorAlias", "TargetName", "SessionType"])
def test_identity_repeated(name: str) -> None:
    """libiscsi says who it is in each stage: the same words again are no new negotiation, during login."""
    negotiator = Negotiator()
    assert negotiator.receive([(name, "Normal")], Stage.SECURITY) == []
    assert negotiator.receive([(name, "Normal")], Stage.OPERATIONAL) == []
    with pytest.raises(NegotiationError, match="twice"):
        negotiator.receive([(name, "Discovery")], Stage.OPERATIONAL)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_inquiry(key: Key) -> None:
    """key=? tells a value and settles nothing."""
    negotiator = Negotiator()
    ((_, answer),) = negotiator.receive([(key.name, "?")], Stage.OPERATIONAL)
    assert answer == "Reject" or key.parse(answer) is not None
    assert negotiator.session_parameters() == SessionParameters()
    negotiator.receive([(key.name, "?")], Stage.OPERATIONAL)


@pytest.mark.parametrize("name", ["X-com.example.k", "X#NodeArchitecture", "Y-com.example.d", "Z-a", "CHAP_A", "Anything"])
@pytest.mark.parametrize("stage", Stage)
def test_unknown_keys(name: str, stage: Stage) -> None:
    """RFC 7143 6.2: NotUnderstood, in every stage, whatever the value."""
    for value in ("", "1", "x" * 300, "?"):
        assert one(name, value, stage)[1] == "NotUnderstood"
    with pytest.raises(NegotiationError):
        one(name, "NotUnderstood", stage)


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("IFMarker", "No", "No"),
        ("IFMarker", "Yes", "No"),
        ("OFMarker", "No", "No"),
        ("OFMarker", "Yes", "No"),
        ("IFMarker", "2048", "Reject"),
        ("IFMarkInt", "2048~8192", "Reject"),
        ("OFMarkInt", "2048~8192", "Reject"),
        ("OFMarkInt", "many", "Reject"),
    ],
)
def test_markers(name: str, value: str, answer: str) -> None:
    """RFC 7143 13.25: obsolete keys are answered, never NotUnderstood."""
    assert one(name, value)[1] == answer


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_discovery_session(key: Key) -> None:
    """RFC 7143 13: Irrelevant where the row says so; in full feature phase all of them are (4.3)."""
    if Sender.INITIATOR not in key.senders:
        return
    if Stage.OPERATIONAL in key.stages:
        value = {Kind.BOOLEAN: "No", Kind.NUMBER: str(key.maximum), Kind.RANGE: "1~2", Kind.LIST: "None"}.get(
            key.kind, "Normal"
        )
        answer = one(key.name, value, discovery=True)[1]
        assert (answer == "Irrelevant") == key.irrelevant_in_discovery
    assert one(key.name, "1024", Stage.FULL_FEATURE, discovery=True)[1] == "Irrelevant"


@pytest.mark.parametrize("key", [key for key in KEYS if key.use is Use.LEADING_ONLY], ids=lambda key: key.name)
def test_leading_only(key: Key) -> None:
    """RFC 7143 13: LO keys are not negotiated by a connection that joins a session."""
    negotiator, answer = one(key.name, "Normal" if key.kind is Kind.TEXT else "1", leading=False)
    assert answer == (None if key.identifies else "Reject")
    session = SessionParameters(max_burst_length=777, initial_r2t=False)
    assert negotiator.session_parameters(session) == session


@pytest.mark.parametrize(
    ("pairs", "answers", "first_burst_length"),
    [
        ("FirstBurstLength=65536 MaxBurstLength=4096", "4096 4096", 4096),
        ("MaxBurstLength=4096 FirstBurstLength=65536", "4096 4096", 4096),
        ("FirstBurstLength=1048576", "262144", 262144),
        ("InitialR2T=Yes ImmediateData=No FirstBurstLength=4096", "Yes No Irrelevant", 65536),
        ("FirstBurstLength=4096 InitialR2T=Yes ImmediateData=No", "Irrelevant Yes No", 65536),
        ("ImmediateData=No InitialR2T=No FirstBurstLength=4096", "No No 4096", 4096),
        ("ImmediateData=No FirstBurstLength=4096", "No Irrelevant", 65536),
    ],
)
def test_first_burst_length(pairs: str, answers: str, first_burst_length: int) -> None:
    """RFC 7143 13.14: not above MaxBurstLength; irrelevant if nothing unsolicited may be sent. The order does not matter."""
    negotiator = Negotiator()
    offered = [tuple(pair.split("=")) for pair in pairs.split()]
    got = negotiator.receive(offered, Stage.OPERATIONAL)  # type: ignore[arg-type]
    assert got == [(name, answer) for (name, _), answer in zip(offered, answers.split(), strict=True)]
    assert negotiator.session_parameters().first_burst_length == first_burst_length


def test_declarations() -> None:
    """RFC 7143 6.2: declared once, not answered; ours holds only when we have sent it."""
    negotiator = Negotiator({"MaxRecvDataSegmentLength": "65536"})
    assert negotiator.receive([("MaxRecvDataSegmentLength", "4096"), ("InitiatorAlias", "me")], Stage.OPERATIONAL) == []
    assert negotiator.connection_parameters().initiator_max_recv_data_segment_length == 4096
    assert negotiator.connection_parameters().max_recv_data_segment_length == 8192
    assert negotiator.declare() == [("MaxRecvDataSegmentLength", "65536")]
    assert negotiator.declare() == []
    assert negotiator.connection_parameters().max_recv_data_segment_length == 65536


@pytest.mark.parametrize("value", ["511", "16777216", "", "x", "0"])
def test_illegal_declarations(value: str) -> None:
    """A declaration has no answer to put Reject in: the negotiation fails."""
    with pytest.raises(NegotiationError) as caught:
        one("MaxRecvDataSegmentLength", value)
    assert caught.value.reject_reason is RejectReason.NEGOTIATION_RESET


def test_own_offers_are_checked() -> None:
    """What the configuration says goes through the same table."""
    with pytest.raises(ValueError, match="MaxBurstLength"):
        Negotiator({"MaxBurstLength": "1"})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([key.name for key in NEGOTIABLE]),
            st.sampled_from(["Yes", "No", "0", "1", "512", "4096", "16777215", "None", "CRC32C,None", "RFC3720", "junk", "?"]),
        ),
        unique_by=lambda pair: pair[0],
    )
)
def test_any_offers(pairs: list[tuple[str, str]]) -> None:
    """Invariant: one answer to each offer, in order, legal for its key; what it says is what becomes active."""
    negotiator = Negotiator(TpgParameters().offers())
    answers = negotiator.receive(pairs, Stage.OPERATIONAL)
    assert [name for name, _ in answers] == [name for name, _ in pairs]
    for name, answer in answers:
        if answer not in ("Reject", "Irrelevant") and (name, "?") not in pairs:
            key = BY_NAME[name]
            parsed = key.parse(answer)
            assert negotiator.active[name] == (parsed[0] if key.kind is Kind.LIST else parsed)
    parameters = negotiator.session_parameters()
    if any(name == "FirstBurstLength" for name in negotiator.active):
        assert parameters.first_burst_length <= parameters.max_burst_length
