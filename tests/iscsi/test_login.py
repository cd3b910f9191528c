"""The login phase against a sans-IO initiator: every stage path, every status code, every way to send it.

Longer than most because it follows one state machine through all of its table.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.iscsi_login import (
    FULL_FEATURE,
    IDENTITY,
    INITIATOR,
    ISID,
    OPEN_ISCSI_KEYS,
    OPERATIONAL,
    SECURITY,
    TARGET,
    Initiator,
    Policy,
    chap_answer,
)
from tcm_iscsi.protocol.framer import Framer, frame
from tcm_iscsi.protocol.login import TRANSITIONS, LoginPhase, State
from tcm_iscsi.protocol.login_interface import (
    Credentials,
    Disposition,
    LoginCompleted,
    LoginError,
    LoginFailed,
    LoginTarget,
    SessionResolution,
    SessionType,
)
from tcm_iscsi.protocol.parameters import ConnectionParameters, SessionParameters
from tcm_iscsi.protocol.pdu import NOP_OUT, LoginStatus, Opcode

NOBODY = {**IDENTITY, "AuthMethod": "None"}
DISCOVERY = {"InitiatorName": INITIATOR, "SessionType": "Discovery", "AuthMethod": "None"}
CHAP = Credentials(name="alice", secret="initiatorsecret")
MUTUAL = Credentials(name="alice", secret="initiatorsecret", mutual_name="bob", mutual_secret="targetsecret12")

# stage paths


def test_login_both_stages() -> None:
    """RFC 7143 6.3: SecurityNegotiation, LoginOperationalNegotiation, FullFeaturePhase; appendix B.1."""
    initiator = Initiator()
    first = initiator.exchange(SECURITY, OPERATIONAL, NOBODY)
    assert first.transit
    assert first.bhs.flags & 0x0F == SECURITY << 2 | OPERATIONAL
    assert first.bhs.tsih == 0
    assert first.keys == {"TargetAlias": "a disk", "TargetPortalGroupTag": "3", "AuthMethod": "None"}
    assert initiator.event is None
    last = initiator.exchange(OPERATIONAL, FULL_FEATURE, OPEN_ISCSI_KEYS)
    assert last.bhs.flags & 0x0F == OPERATIONAL << 2 | FULL_FEATURE
    assert last.status is LoginStatus.SUCCESS
    event = initiator.completed()
    assert event.tsih == last.bhs.tsih == 0x1234
    assert event.identity.initiator_name == INITIATOR
    assert event.identity.session_type is SessionType.NORMAL
    assert (event.identity.isid, event.identity.tsih, event.identity.cid) == (ISID, 0, 7)
    assert event.target.handle == "tpg"
    assert event.disposition is Disposition.NEW_SESSION
    assert event.cmd_sn == last.bhs.exp_cmd_sn == initiator.cmd_sn
    assert event.max_cmd_sn == last.bhs.max_cmd_sn == initiator.cmd_sn + 63
    assert event.stat_sn == last.bhs.stat_sn + 1
    assert event.exp_stat_sn == last.bhs.stat_sn
    assert event.authenticated_name is None
    assert event.trailing_data == b""
    assert initiator.login.state is State.S5_LOGGED_IN
    assert event.session_parameters == SessionParameters(
        initial_r2t=False,
        max_burst_length=1048576,
        first_burst_length=262144,
        default_time2retain=0,
    )
    assert event.connection_parameters == ConnectionParameters(
        max_recv_data_segment_length=262144, initiator_max_recv_data_segment_length=262144
    )


def test_login_operational_answers() -> None:
    """RFC 7143 6.2: each offered key is answered once; what we declare comes along."""
    initiator = Initiator()
    initiator.exchange(SECURITY, OPERATIONAL, NOBODY)
    answer = initiator.exchange(OPERATIONAL, FULL_FEATURE, OPEN_ISCSI_KEYS)
    assert answer.keys == {
        "HeaderDigest": "None",
        "DataDigest": "None",
        "DefaultTime2Wait": "2",
        "DefaultTime2Retain": "0",
        "IFMarker": "No",
        "OFMarker": "No",
        "ErrorRecoveryLevel": "0",
        "InitialR2T": "No",
        "ImmediateData": "Yes",
        "MaxBurstLength": "1048576",
        "FirstBurstLength": "262144",
        "MaxOutstandingR2T": "1",
        "MaxConnections": "1",
        "DataPDUInOrder": "Yes",
        "DataSequenceInOrder": "Yes",
        "MaxRecvDataSegmentLength": "262144",
    }


@pytest.mark.parametrize(
    "path",
    [
        [(SECURITY, FULL_FEATURE)],
        [(SECURITY, None), (SECURITY, FULL_FEATURE)],
        [(SECURITY, OPERATIONAL), (OPERATIONAL, FULL_FEATURE)],
        [(SECURITY, OPERATIONAL), (OPERATIONAL, None), (OPERATIONAL, FULL_FEATURE)],
        [(SECURITY, None), (SECURITY, OPERATIONAL), (OPERATIONAL, None), (OPERATIONAL, None), (OPERATIONAL, FULL_FEATURE)],
        [(OPERATIONAL, FULL_FEATURE)],
        [(OPERATIONAL, None), (OPERATIONAL, FULL_FEATURE)],
    ],
)
def test_login_stage_paths(path: list[tuple[int, int | None]]) -> None:
    """RFC 7143 6.3: every legal way through the stages ends in full feature phase."""
    initiator = Initiator()
    keys: dict[str, str] = dict(IDENTITY)
    for csg, nsg in path:
        answer = initiator.exchange(csg, nsg, keys)
        assert answer.status is LoginStatus.SUCCESS
        assert answer.transit == (nsg is not None)
        keys = {}
    event = initiator.completed()
    assert event.session_parameters == SessionParameters()
    assert event.connection_parameters.max_recv_data_segment_length == (262144 if (OPERATIONAL, FULL_FEATURE) in path else 8192)


def test_login_transition_table_is_whole() -> None:
    """Each state but the final ones can be left, and only along rising stages."""
    for (_, csg, nsg), state in TRANSITIONS.items():
        assert nsg is None or nsg > csg
        assert state not in (State.S1_FREE, State.S3_XPT_UP)
    sources = {state for state, _, _ in TRANSITIONS}
    assert sources == {State.S3_XPT_UP, State.S4_IN_LOGIN_SECURITY, State.S4_IN_LOGIN_OPERATIONAL}


@pytest.mark.parametrize("state", [State.S3_XPT_UP, State.S4_IN_LOGIN_SECURITY, State.S4_IN_LOGIN_OPERATIONAL])
@pytest.mark.parametrize("csg", range(4))
@pytest.mark.parametrize("nsg", [None, 0, 1, 2, 3])
def test_login_every_stage_combination(state: State, csg: int, nsg: int | None) -> None:
    """RFC 7143 11.12.3: a pair of stages that is not in the table ends the login with an initiator error."""
    initiator = Initiator()
    keys = dict(IDENTITY)
    if state is not State.S3_XPT_UP:
        initiator.exchange(SECURITY if state is State.S4_IN_LOGIN_SECURITY else OPERATIONAL, None, keys)
        keys = {}
    assert initiator.login.state is state
    answer = initiator.exchange(csg, nsg, keys)
    if (state, csg, nsg) in TRANSITIONS:
        assert answer.status is LoginStatus.SUCCESS
        assert initiator.login.state is TRANSITIONS[state, csg, nsg]
    else:
        assert answer.status is LoginStatus.INITIATOR_ERROR
        assert not answer.transit
        assert isinstance(initiator.event, LoginFailed)


def test_login_nsg_without_transit_is_ignored() -> None:
    """RFC 7143 11.12.3: NSG is reserved when T is 0."""
    initiator = Initiator()
    assert initiator.exchange(SECURITY, None, NOBODY, flags=0x03).status is LoginStatus.SUCCESS


def test_login_discovery() -> None:
    """RFC 7143 4.3: a discovery session needs no TargetName; operational keys of normal sessions are Irrelevant."""
    initiator = Initiator()
    first = initiator.exchange(SECURITY, OPERATIONAL, DISCOVERY)
    assert first.keys == {"AuthMethod": "None"}
    answer = initiator.exchange(OPERATIONAL, FULL_FEATURE, {"InitialR2T": "No", "MaxRecvDataSegmentLength": "32768"})
    assert answer.keys == {"InitialR2T": "Irrelevant", "MaxRecvDataSegmentLength": "262144"}
    event = initiator.completed()
    assert event.identity.session_type is SessionType.DISCOVERY
    assert event.session_parameters == SessionParameters()
    assert "find_target" not in initiator.policy.asked


def test_login_names_are_normalised() -> None:
    """RFC 7143 4.2.7.2: names compare without regard to case."""
    initiator = Initiator()
    initiator.exchange(OPERATIONAL, FULL_FEATURE, {"InitiatorName": INITIATOR.upper(), "TargetName": TARGET.title()})
    assert initiator.completed().identity.initiator_name == INITIATOR


# ways to send it


def whole_login() -> tuple[list[bytes], bytes]:
    """The requests of a login, and what follows them."""
    initiator = Initiator()
    requests = [initiator.request(SECURITY, OPERATIONAL, NOBODY), initiator.request(OPERATIONAL, FULL_FEATURE, OPEN_ISCSI_KEYS)]
    nop = NOP_OUT.pack(0x40, 0x80, 0, bytes(8), 1, 0xFFFFFFFF, 5, 6)
    return requests, nop


def test_login_trailing_bytes() -> None:
    """What follows the last Login Request is full feature phase's."""
    requests, nop = whole_login()
    initiator = Initiator()
    answers = initiator.send(b"".join(requests) + nop + nop[:10])
    assert [answer.transit for answer in answers] == [True, True]
    assert initiator.completed().trailing_data == nop + nop[:10]


def test_login_byte_by_byte() -> None:
    """The stream may be cut anywhere."""
    requests, _ = whole_login()
    expected = Initiator()
    expected.send(b"".join(requests))
    initiator = Initiator()
    answers = [answer for byte in b"".join(requests) for answer in initiator.send(bytes((byte,)))]
    assert len(answers) == 2
    assert initiator.completed() == expected.completed()


def test_login_buffer_kinds() -> None:
    """receive_data copies: the caller's buffer may change afterwards."""
    requests, _ = whole_login()
    initiator = Initiator()
    buffer = bytearray(b"".join(requests))
    initiator.login.receive_data(memoryview(buffer)[:60])
    buffer[:60] = bytes(60)
    initiator.send(memoryview(buffer)[60:])  # type: ignore[arg-type]
    initiator.completed()


def test_login_text_over_several_requests() -> None:
    """RFC 7143 6.2: text with the C bit is answered with an empty response until it is whole."""
    initiator = Initiator()
    text = initiator.request(SECURITY, None, NOBODY)[48:].rstrip(b"\0") + b"\0"
    for at in range(0, len(text) - 9, 9):
        answer = initiator.exchange(SECURITY, None, text[at : at + 9], continued=True)
        assert (answer.data, answer.transit, answer.continued) == (b"", False, False)
    at = (len(text) - 1) // 9 * 9
    answer = initiator.exchange(SECURITY, OPERATIONAL, text[at:])
    assert answer.transit
    assert answer.keys["AuthMethod"] == "None"


def test_login_response_over_several_pdus() -> None:
    """RFC 7143 6.2: our text beyond 8192 bytes goes out with the C bit, a piece for each empty request."""
    initiator = Initiator()
    initiator.exchange(SECURITY, OPERATIONAL, NOBODY)
    unknown = {f"X-com.example.key{i:04}{'y' * 40}": "1" for i in range(200)}
    text = initiator.request(OPERATIONAL, None, unknown)[48:].rstrip(b"\0") + b"\0"
    assert initiator.exchange(OPERATIONAL, None, text[:8192], continued=True).data == b""
    answer = initiator.exchange(OPERATIONAL, FULL_FEATURE, text[8192:])
    data = answer.data
    pieces = 1
    while answer.continued:
        assert len(answer.data) == 8192
        assert initiator.event is None
        answer = initiator.exchange(OPERATIONAL, FULL_FEATURE)
        data += answer.data
        pieces += 1
    assert pieces > 1
    assert data.count(b"=NotUnderstood\0") == 200
    assert answer.transit
    initiator.completed()


def test_login_response_piece_needs_empty_request() -> None:
    """RFC 7143 6.2: text in answer to a response with the C bit is an initiator error."""
    initiator = Initiator()
    unknown = {f"X-{i:03}": "" for i in range(600)}
    assert initiator.exchange(OPERATIONAL, None, {**IDENTITY, **unknown}).continued
    assert initiator.exchange(OPERATIONAL, None, {"InitialR2T": "No"}).status is LoginStatus.INITIATOR_ERROR


# authentication


def authenticate(initiator: Initiator, name: str = "alice", secret: str = "initiatorsecret", **more: str) -> None:
    answer = initiator.exchange(SECURITY, OPERATIONAL, {**IDENTITY, "AuthMethod": "CHAP,None"})
    assert answer.keys["AuthMethod"] == "CHAP"
    assert not answer.transit
    challenge = initiator.exchange(SECURITY, None, {"CHAP_A": "7,5"})
    assert not challenge.transit
    initiator.last = initiator.exchange(  # type: ignore[attr-defined]
        SECURITY, OPERATIONAL, {**chap_answer(challenge.keys, name, secret), **more}
    )


@pytest.mark.parametrize("identity", [IDENTITY, DISCOVERY])
def test_login_chap_one_way(identity: dict[str, str]) -> None:
    """RFC 7143 12.1.3, for normal and discovery sessions."""
    initiator = Initiator(Policy(chap=CHAP))
    assert initiator.exchange(SECURITY, None, {**identity, "AuthMethod": "CHAP,None"}).keys["AuthMethod"] == "CHAP"
    challenge = initiator.exchange(SECURITY, None, {"CHAP_A": "7,5"}).keys
    assert challenge["CHAP_A"] == "7"
    answer = initiator.exchange(SECURITY, OPERATIONAL, chap_answer(challenge, "alice", "initiatorsecret"))
    assert answer.transit
    assert answer.keys == {}
    initiator.exchange(OPERATIONAL, FULL_FEATURE)
    assert initiator.completed().authenticated_name == "alice"


def test_login_chap_mutual() -> None:
    """RFC 7143 12.1.3: the initiator sends a challenge of its own with its response."""
    initiator = Initiator(Policy(chap=MUTUAL))
    authenticate(initiator, CHAP_I="9", CHAP_C="0x00112233445566778899aabbccddeeff")
    answer = initiator.last  # type: ignore[attr-defined]
    assert answer.transit
    ours = {"CHAP_A": "7", "CHAP_I": "9", "CHAP_C": "0x00112233445566778899aabbccddeeff"}
    assert answer.keys == chap_answer(ours, "bob", "targetsecret12")


@pytest.mark.parametrize(
    ("name", "secret"), [("alice", "wrong"), ("bob", "initiatorsecret"), ("Alice", "initiatorsecret"), ("alice", "")]
)
def test_login_chap_wrong(name: str, secret: str) -> None:
    """Status 0201, and neither secret nor response in the log's words."""
    initiator = Initiator(Policy(chap=CHAP))
    authenticate(initiator, name, secret)
    assert initiator.last.status is LoginStatus.AUTHENTICATION_FAILURE  # type: ignore[attr-defined]
    assert initiator.last.keys == {}  # type: ignore[attr-defined]
    assert "secret" not in repr(initiator.failed()).replace("wrong name or secret", "")


@pytest.mark.parametrize(
    "requests",
    [
        [(OPERATIONAL, FULL_FEATURE, {})],
        [(OPERATIONAL, None, {})],
        [(SECURITY, OPERATIONAL, {})],
        [(SECURITY, FULL_FEATURE, {})],
        [(SECURITY, OPERATIONAL, {"AuthMethod": "None"})],
        [(SECURITY, None, {"AuthMethod": "KRB5,SRP"})],
        [(SECURITY, None, {"AuthMethod": "CHAP", "CHAP_A": "5"})],
        [(SECURITY, None, {"CHAP_A": "5"})],
        [(SECURITY, None, {"AuthMethod": "CHAP"}), (SECURITY, None, {"CHAP_A": "1,2"})],
        [(SECURITY, None, {"AuthMethod": "CHAP"}), (SECURITY, None, {"CHAP_N": "alice", "CHAP_R": "0x00"})],
        [(SECURITY, None, {"AuthMethod": "CHAP"}), (SECURITY, None, {"CHAP_A": "5"}), (SECURITY, None, {"CHAP_A": "5"})],
        [(SECURITY, None, {"AuthMethod": "CHAP"}), (SECURITY, None, {"CHAP_A": "5"}), (SECURITY, None, {"CHAP_N": "alice"})],
    ],
)
def test_login_chap_cannot_be_skipped(requests: list[tuple[int, int | None, dict[str, str]]]) -> None:
    """Without proof no way leads out of the security stage: status 0201."""
    initiator = Initiator(Policy(chap=CHAP))
    identity = IDENTITY
    for number, (csg, nsg, keys) in enumerate(requests):
        answer = initiator.exchange(csg, nsg, {**identity, **keys})
        identity = {}
        if number < len(requests) - 1:
            assert answer.status is LoginStatus.SUCCESS
    assert answer.status is LoginStatus.AUTHENTICATION_FAILURE
    assert initiator.failed().status is LoginStatus.AUTHENTICATION_FAILURE


def test_login_unfinished_chap_holds_the_stage() -> None:
    """RFC 7143 6.3: the target answers T=0 as long as it is not ready."""
    initiator = Initiator(Policy(chap=CHAP))
    assert not initiator.exchange(SECURITY, OPERATIONAL, {**IDENTITY, "AuthMethod": "CHAP"}).transit
    assert not initiator.exchange(SECURITY, FULL_FEATURE, {"CHAP_A": "8"}).transit
    assert not initiator.exchange(SECURITY, OPERATIONAL).transit
    assert initiator.login.state is State.S4_IN_LOGIN_SECURITY


def test_login_chap_offered_but_not_wanted() -> None:
    """Without credentials configured an initiator that insists on CHAP cannot log in; one that allows None can."""
    initiator = Initiator()
    assert initiator.exchange(SECURITY, OPERATIONAL, {**IDENTITY, "AuthMethod": "CHAP,None"}).keys["AuthMethod"] == "None"
    assert initiator.exchange(OPERATIONAL, FULL_FEATURE).transit
    initiator = Initiator()
    assert initiator.exchange(SECURITY, OPERATIONAL, {**IDENTITY, "AuthMethod": "CHAP"}).status is (
        LoginStatus.AUTHENTICATION_FAILURE
    )


# every failure


@pytest.mark.parametrize(
    ("keys", "fields", "status"),
    [
        ({}, {}, LoginStatus.MISSING_PARAMETER),
        ({"TargetName": TARGET}, {}, LoginStatus.MISSING_PARAMETER),
        ({"InitiatorName": INITIATOR}, {}, LoginStatus.MISSING_PARAMETER),
        ({"InitiatorName": INITIATOR, "SessionType": "Normal"}, {}, LoginStatus.MISSING_PARAMETER),
        ({**IDENTITY, "InitiatorName": "me"}, {}, LoginStatus.INITIATOR_ERROR),
        ({**IDENTITY, "InitiatorName": ""}, {}, LoginStatus.INITIATOR_ERROR),
        ({**IDENTITY, "InitiatorName": "iqn.2001-13.com.example:x"}, {}, LoginStatus.INITIATOR_ERROR),
        ({**IDENTITY, "TargetName": "iqn.2001-04.com.example:other"}, {}, LoginStatus.NOT_FOUND),
        ({**IDENTITY, "TargetName": "nonsense"}, {}, LoginStatus.NOT_FOUND),
        ({**IDENTITY, "SessionType": "Boot"}, {}, LoginStatus.SESSION_TYPE_NOT_SUPPORTED),
        ({**IDENTITY, "SessionType": "discovery"}, {}, LoginStatus.SESSION_TYPE_NOT_SUPPORTED),
        (IDENTITY, {"version_min": 1, "version_max": 1}, LoginStatus.UNSUPPORTED_VERSION),
        (IDENTITY, {"version_max": 9}, LoginStatus.SUCCESS),
        (IDENTITY, {"flags": 0xC1}, LoginStatus.INITIATOR_ERROR),
        ({**IDENTITY, "HeaderDigest": "None"}, {}, LoginStatus.INITIATOR_ERROR),
        ({**IDENTITY, "SendTargets": "All"}, {}, LoginStatus.INITIATOR_ERROR),
        ({**IDENTITY, "TargetAlias": "mine"}, {}, LoginStatus.INITIATOR_ERROR),
        ({**IDENTITY, "TargetPortalGroupTag": "1"}, {}, LoginStatus.INITIATOR_ERROR),
        ({**IDENTITY, "MaxRecvDataSegmentLength": "511"}, {}, LoginStatus.INITIATOR_ERROR),
        ({**IDENTITY, "MaxBurstLength": "NotUnderstood"}, {}, LoginStatus.INITIATOR_ERROR),
        ([*IDENTITY.items(), ("SessionType", "Normal")], {}, LoginStatus.INITIATOR_ERROR),
        (b"InitiatorName", {}, LoginStatus.INITIATOR_ERROR),
        (b"InitiatorName\0", {}, LoginStatus.INITIATOR_ERROR),
        (b"InitiatorName=\xff\xfe\0", {}, LoginStatus.INITIATOR_ERROR),
        (b"=\0", {}, LoginStatus.INITIATOR_ERROR),
        (b"\0", {}, LoginStatus.INITIATOR_ERROR),
        (b"K" * 64 + b"=1\0", {}, LoginStatus.INITIATOR_ERROR),
    ],
)
def test_login_refused_first_request(keys: object, fields: dict[str, int], status: LoginStatus) -> None:
    """RFC 7143 11.13.5: the status says what was wrong with the first request."""
    initiator = Initiator()
    answer = initiator.exchange(SECURITY, OPERATIONAL, keys, **fields)
    assert answer.status is status
    if status is LoginStatus.SUCCESS:
        return
    assert not answer.transit
    assert answer.bhs.tsih == 0
    failed = initiator.failed()
    assert failed.status is status
    assert failed.reason
    assert "\n" not in failed.reason
    assert "S1 FREE" in failed.transitions[-1]
    assert initiator.login.state is State.S1_FREE


@pytest.mark.parametrize(
    "fields",
    [
        {"isid": bytes(6)},
        {"tsih": 1},
        {"cid": 8},
        {"itt": 5},
        {"version_max": 1},
        {"flags": 0xC7},
        {"flags": 0x83},
        {"lengths": 1 << 24},
    ],
)
def test_login_refused_later_request(fields: dict[str, int]) -> None:
    """RFC 7143 11.12: what identifies the login stays the same in all its requests."""
    initiator = Initiator()
    initiator.exchange(SECURITY, OPERATIONAL, NOBODY)
    data = initiator.request(OPERATIONAL, FULL_FEATURE, **fields)
    if "lengths" in fields:
        data += bytes(4)
    initiator.login.receive_data(data)
    assert initiator.login.data_to_send()
    failed = initiator.login.next_event()
    assert isinstance(failed, LoginFailed)
    assert failed.status is LoginStatus.INITIATOR_ERROR


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ("find_target", LoginStatus.NOT_FOUND),
        ("find_target", LoginStatus.TARGET_REMOVED),
        ("find_target", LoginStatus.SERVICE_UNAVAILABLE),
        ("admit", LoginStatus.AUTHORIZATION_FAILURE),
        ("credentials", LoginStatus.TARGET_ERROR),
        ("resolve_session", LoginStatus.SESSION_DOES_NOT_EXIST),
        ("resolve_session", LoginStatus.CANNOT_INCLUDE_IN_SESSION),
        ("resolve_session", LoginStatus.TOO_MANY_CONNECTIONS),
        ("allocate_tsih", LoginStatus.OUT_OF_RESOURCES),
    ],
)
def test_login_refused_by_policy(question: str, status: LoginStatus) -> None:
    """Each of the owner's refusals arrives as it is."""
    initiator = Initiator(Policy(refuse={question: LoginError(status, "because")}))
    answer = initiator.exchange(SECURITY, FULL_FEATURE, NOBODY)
    assert answer.status is status
    assert initiator.failed() == LoginFailed(
        status=status,
        reason="because",
        initiator_name=INITIATOR,
        target_name=TARGET,
        transitions=initiator.failed().transitions,
    )


def test_login_refused_discovery() -> None:
    """Status 0209 where discovery is switched off."""
    refusal = LoginError(LoginStatus.SESSION_TYPE_NOT_SUPPORTED, "no discovery here")
    initiator = Initiator(Policy(refuse={"discovery_target": refusal}))
    assert initiator.exchange(SECURITY, OPERATIONAL, DISCOVERY).status is LoginStatus.SESSION_TYPE_NOT_SUPPORTED


@pytest.mark.parametrize("status", [LoginStatus.TARGET_MOVED_TEMPORARILY, LoginStatus.TARGET_MOVED_PERMANENTLY])
def test_login_redirected(status: LoginStatus) -> None:
    """RFC 7143 11.13.5: a redirection carries TargetAddress."""
    refusal = LoginError(status, "moved", target_address="192.0.2.1:3260,1")
    initiator = Initiator(Policy(refuse={"find_target": refusal}))
    answer = initiator.exchange(SECURITY, OPERATIONAL, NOBODY)
    assert answer.status is status
    assert answer.keys == {"TargetAddress": "192.0.2.1:3260,1"}


def test_login_other_pdu_first() -> None:
    """RFC 7143 6.3: the connection of one who begins with anything but a Login Request is dropped without a word."""
    for data in (
        NOP_OUT.pack(0x40, 0x80, 0, bytes(8), 1, 0xFFFFFFFF, 5, 6),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + bytes(9000),
    ):
        initiator = Initiator()
        assert initiator.send(data) == []
        assert initiator.failed().status in (LoginStatus.INVALID_DURING_LOGIN, LoginStatus.INITIATOR_ERROR)


def test_login_other_pdu_later() -> None:
    """RFC 7143 6.3, 11.13.5: status 020B for another request during login."""
    initiator = Initiator()
    initiator.exchange(SECURITY, OPERATIONAL, NOBODY)
    (answer,) = initiator.send(NOP_OUT.pack(0x40, 0x80, 0, bytes(8), 1, 0xFFFFFFFF, 5, 6))
    assert answer.status is LoginStatus.INVALID_DURING_LOGIN


def test_login_negotiated_twice() -> None:
    """RFC 7143 6.2: a key is negotiated once."""
    initiator = Initiator()
    initiator.exchange(OPERATIONAL, None, {**IDENTITY, "InitialR2T": "No"})
    assert initiator.exchange(OPERATIONAL, FULL_FEATURE, {"InitialR2T": "No"}).status is LoginStatus.INITIATOR_ERROR


def test_login_long_segment() -> None:
    """RFC 7143 13.12: 8192 bytes is what may come during login; more is refused before it has come."""
    initiator = Initiator()
    (answer,) = initiator.send(initiator.request(SECURITY, OPERATIONAL, b"", lengths=8193))
    assert answer.status is LoginStatus.INITIATOR_ERROR


def test_login_ten_megabytes_of_text() -> None:
    """Text without end over the C bit ends the login at 64 KiB, and nothing of it stays in memory."""
    initiator = Initiator()
    request = initiator.request(SECURITY, None, b"X" * 8192, continued=True)
    sent = 0
    while initiator.event is None:
        answers = initiator.send(request)
        sent += 8192
        assert sent <= 10 << 20
    assert sent <= 65536 + 8192
    assert answers[-1].status is LoginStatus.INITIATOR_ERROR
    initiator.login.receive_data(bytes(10 << 20))
    assert initiator.login.data_to_send() == []


def test_login_timeout() -> None:
    """T6, T7 of RFC 7143 8.1.4: time is an argument."""
    initiator = Initiator(deadline=15.0)
    initiator.exchange(SECURITY, None, NOBODY)
    initiator.login.handle_timer(14.9)
    assert initiator.login.next_event() is None
    initiator.login.handle_timer(15.0)
    failed = initiator.login.next_event()
    assert isinstance(failed, LoginFailed)
    assert failed.reason == "login timeout"
    assert initiator.login.data_to_send() == []
    initiator.login.handle_timer(99.0)
    assert initiator.login.next_event() is None


def test_login_history_is_bounded() -> None:
    """The last 32 steps."""
    initiator = Initiator()
    initiator.exchange(SECURITY, None, NOBODY)
    for _ in range(50):
        initiator.exchange(SECURITY, None)
    assert len(initiator.login.transitions) == 32
    assert initiator.login.transitions[-1] == ("S4 IN_LOGIN (security) -> S4 IN_LOGIN (security): T0 C0 CSG0 NSG0")


# sessions and connections


def test_login_session_reinstatement() -> None:
    """RFC 7143 6.3.5: TSIH 0 for a session that exists; the owner learns which, and a new TSIH is given."""
    resolution = SessionResolution(disposition=Disposition.SESSION_REINSTATEMENT, session="the old one")
    initiator = Initiator(Policy(resolution=resolution))
    event = initiator.log_in()
    assert event.disposition is Disposition.SESSION_REINSTATEMENT
    assert event.session == "the old one"
    assert event.tsih == 0x1234


def test_login_adds_a_connection() -> None:
    """RFC 7143 6.3.1, 13: session-wide keys are the leading login's only; CmdSN continues; the TSIH stays."""
    session = SessionParameters(initial_r2t=False, max_burst_length=4096, max_connections=4)
    resolution = SessionResolution(
        disposition=Disposition.ADD_CONNECTION, session="it", parameters=session, exp_cmd_sn=500, max_cmd_sn=510
    )
    initiator = Initiator(Policy(resolution=resolution), tsih=0x77)
    assert initiator.exchange(SECURITY, OPERATIONAL, NOBODY).bhs.tsih == 0x77
    answer = initiator.exchange(
        OPERATIONAL, FULL_FEATURE, {"HeaderDigest": "CRC32C", "MaxBurstLength": "65536", "MaxRecvDataSegmentLength": "4096"}
    )
    assert answer.keys == {"HeaderDigest": "CRC32C", "MaxBurstLength": "Reject", "MaxRecvDataSegmentLength": "262144"}
    event = initiator.completed()
    assert event.session_parameters == session
    assert event.connection_parameters.header_digest
    assert event.connection_parameters.initiator_max_recv_data_segment_length == 4096
    assert (event.tsih, event.cmd_sn, event.max_cmd_sn) == (0x77, 500, 510)
    assert (answer.bhs.tsih, answer.bhs.exp_cmd_sn, answer.bhs.max_cmd_sn) == (0x77, 500, 510)
    assert "allocate_tsih" not in initiator.policy.asked


def test_login_unwanted_connection_is_refused_early() -> None:
    """The owner is asked when security is done, not only at the end; never before the initiator is known."""
    policy = Policy(refuse={"resolve_session": LoginError(LoginStatus.SESSION_DOES_NOT_EXIST, "gone")}, chap=CHAP)
    initiator = Initiator(policy, tsih=9)
    initiator.exchange(SECURITY, None, {**IDENTITY, "AuthMethod": "CHAP"})
    challenge = initiator.exchange(SECURITY, None, {"CHAP_A": "5"}).keys
    assert "resolve_session" not in policy.asked
    answer = initiator.exchange(SECURITY, OPERATIONAL, chap_answer(challenge, "alice", "initiatorsecret"))
    assert answer.status is LoginStatus.SESSION_DOES_NOT_EXIST


# the target's own offers


def test_login_own_offers_wait_for_answers() -> None:
    """login_keys_workaround=0: what we want and the initiator has not brought up is offered, and must be answered."""
    target = LoginTarget(handle="tpg", name=TARGET, login_keys_workaround=False)
    initiator = Initiator(Policy(target=target))
    answer = initiator.exchange(OPERATIONAL, FULL_FEATURE, {**IDENTITY, "MaxBurstLength": "65536"})
    assert not answer.transit
    assert answer.keys == {
        "TargetPortalGroupTag": "1",
        "MaxBurstLength": "65536",
        "MaxRecvDataSegmentLength": "262144",
        "InitialR2T": "No",
        "FirstBurstLength": "262144",
        "MaxOutstandingR2T": "4",
        "iSCSIProtocolLevel": "2",
    }
    assert not initiator.exchange(OPERATIONAL, FULL_FEATURE, {"InitialR2T": "No"}).transit
    answer = initiator.exchange(
        OPERATIONAL,
        FULL_FEATURE,
        {"FirstBurstLength": "32768", "MaxOutstandingR2T": "2", "iSCSIProtocolLevel": "NotUnderstood"},
    )
    assert answer.transit
    assert answer.keys == {}
    assert initiator.completed().session_parameters == SessionParameters(
        initial_r2t=False, max_burst_length=65536, first_burst_length=32768, max_outstanding_r2t=2
    )


@pytest.mark.parametrize("wrong", [{"MaxOutstandingR2T": "5"}, {"InitialR2T": "Maybe"}, {"FirstBurstLength": "0x800000"}])
def test_login_own_offers_wrong_answer(wrong: dict[str, str]) -> None:
    """RFC 7143 6.2.2: the result must follow from both values."""
    target = LoginTarget(handle="tpg", name=TARGET, login_keys_workaround=False)
    initiator = Initiator(Policy(target=target))
    initiator.exchange(OPERATIONAL, FULL_FEATURE, IDENTITY)
    assert initiator.exchange(OPERATIONAL, FULL_FEATURE, wrong).status is LoginStatus.INITIATOR_ERROR


def test_login_serial_numbers_wrap() -> None:
    """RFC 7143 4.2.2: serial numbers are 32 bits."""
    initiator = Initiator()
    initiator.cmd_sn = 0xFFFFFFF0
    assert initiator.log_in().max_cmd_sn == 0x2F


# anything


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_login_any_bytes(chunks: list[bytes]) -> None:
    """Invariant: whatever arrives, there is at most one event, every answer is a whole Login Response, nothing is raised."""
    login = LoginPhase(Policy())
    events = []
    framer = Framer()
    for chunk in chunks:
        login.receive_data(chunk)
        for buffer in login.data_to_send():
            framer.receive_data(buffer)
        events.append(login.next_event())
    assert sum(event is not None for event in events) <= 1
    while (pdu := framer.next_pdu()) is not None:
        assert pdu.bhs[0] == Opcode.LOGIN_RESPONSE
    assert framer.trailing_data() == b""


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 255),
            st.dictionaries(
                st.sampled_from([*IDENTITY, *OPEN_ISCSI_KEYS, "AuthMethod", "CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "X-a"]),
                st.sampled_from(["Yes", "No", "None", "CHAP", "5", "0", "65536", "0x10", TARGET, INITIATOR, "Reject", "?", ""]),
                max_size=6,
            ),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_login_any_requests(requests: list[tuple[int, dict[str, str]]], chap: bool) -> None:
    """Invariant: no sequence of requests gets past CHAP without the secret."""
    initiator = Initiator(Policy(chap=CHAP if chap else None))
    for number, (flags, keys) in enumerate(requests):
        initiator.send(initiator.request(0, None, {**(IDENTITY if number == 0 else {}), **keys}, flags=flags))
        if initiator.event is not None:
            break
    if chap:
        assert not isinstance(initiator.event, LoginCompleted)


def test_frame_builds_what_the_framer_reads() -> None:
    """The two ends of one format."""
    initiator = Initiator()
    bhs = initiator.request(SECURITY, None, lengths=0)
    framer = Framer()
    framer.receive_data(frame(bhs, b"abcde"))
    pdu = framer.next_pdu()
    assert pdu is not None
    assert pdu.data == b"abcde"


def test_what_is_no_iscsi_is_called_that() -> None:
    """An HTTP probe at the portal: the log says what came, not that its segment is long."""
    login = LoginPhase(Policy(), deadline=15.0)
    login.receive_data(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:3260\r\nUser-Agent: probe/1.0\r\n\r\n")
    event = login.next_event()
    assert isinstance(event, LoginFailed)
    assert event.reason == "this is no iSCSI login: it begins with 47 45 54 20 2f 20 48 54"
