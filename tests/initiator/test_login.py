"""The initiator's login against the target's, without a socket: CHAP, every key, redirection, and targets that break rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.iscsi_login import ISID, TARGET, Policy
from tcm_iscsi.initiator import Credentials, LoggedIn, Login, LoginFailed, Options
from tcm_iscsi.initiator.options import OFFERS
from tcm_iscsi.protocol.framer import Framer, frame
from tcm_iscsi.protocol.keys import KEYS, Kind, Sender, Stage
from tcm_iscsi.protocol.login import LoginPhase
from tcm_iscsi.protocol.login_interface import LoginCompleted, LoginError
from tcm_iscsi.protocol.parameters import SessionParameters
from tcm_iscsi.protocol.pdu import CONTINUE, LOGIN_REQUEST, LOGIN_RESPONSE, TRANSIT, LoginRequestBhs, LoginStatus, Opcode
from tcm_iscsi.protocol.text import encode, parse

ALGORITHMS = {"MD5": 5, "SHA1": 6, "SHA-256": 7, "SHA3-256": 8}


def random_bytes(length: int) -> bytes:
    random_bytes.count = getattr(random_bytes, "count", 0) + 1  # type: ignore[attr-defined]
    return bytes((random_bytes.count * 7 + n) & 0xFF for n in range(length))  # type: ignore[attr-defined]


def make(options: Options | None = None, **more: Any) -> Login:
    return Login(options or Options(target_name=TARGET), **{"isid": ISID, "cid": 3, "random_bytes": random_bytes, **more})


def log_in(
    options: Options | None = None, policy: Policy | None = None, *, chunk: int = 0, **more: Any
) -> tuple[LoggedIn, LoginCompleted]:
    """Both sides' results. Raises LoginFailed."""
    policy = policy or Policy()
    login, phase = make(options, **more), LoginPhase(policy)
    for _ in range(300):
        for data in login.data_to_send():
            for at in range(0, len(data), chunk or len(data)):
                phase.receive_data(data[at : at + (chunk or len(data))])
        for data in phase.data_to_send():
            for at in range(0, len(data), chunk or len(data)):
                login.receive_data(data[at : at + (chunk or len(data))])
        event = login.next_event()
        if isinstance(event, LoginFailed):
            raise event
        if event is not None:
            other = phase.next_event()
            assert isinstance(other, LoginCompleted)
            assert login.next_event() is None
            return event, other
    raise AssertionError("no end")


def test_both_sides_come_to_the_same() -> None:
    ours, theirs = log_in()
    assert ours.session_parameters == theirs.session_parameters
    assert (ours.tsih, ours.cid) == (0x1234, 3)
    assert ours.exp_stat_sn == theirs.stat_sn
    assert (ours.exp_cmd_sn, ours.max_cmd_sn, ours.cmd_sn) == (theirs.cmd_sn, theirs.max_cmd_sn, theirs.cmd_sn)
    assert ours.keys["TargetPortalGroupTag"] == "3"
    assert ours.keys["TargetAlias"] == "a disk"


@pytest.mark.parametrize("chunk", [1, 7, 48, 100])
def test_bytes_come_as_they_like(chunk: int) -> None:
    log_in(chunk=chunk)


EXTREMES = [
    (key.name, value)
    for key in KEYS
    if Stage.OPERATIONAL in key.stages and not key.identifies and Sender.INITIATOR in key.senders
    for value in {
        Kind.BOOLEAN: ("Yes", "No"),
        Kind.NUMBER: (str(key.minimum), str(key.maximum), hex(key.maximum)),
        Kind.LIST: (*key.values, ",".join(key.values), ",".join(reversed(key.values))),
        Kind.RANGE: (f"{key.minimum}~{key.maximum}",),
    }.get(key.kind, ("a name",))
]


@pytest.mark.parametrize(("name", "value"), EXTREMES)
def test_every_value_can_be_offered(name: str, value: str) -> None:
    """Clause 13: whatever the table allows; both sides agree on what came of it."""
    if name == "AuthMethod":
        return
    ours, theirs = log_in(Options(target_name=TARGET, keys={name: value}))
    assert ours.session_parameters == theirs.session_parameters
    assert ours.connection_parameters.header_digest == theirs.connection_parameters.header_digest
    assert ours.connection_parameters.data_digest == theirs.connection_parameters.data_digest
    mine, yours = ours.connection_parameters, theirs.connection_parameters
    assert mine.max_recv_data_segment_length == yours.initiator_max_recv_data_segment_length
    assert mine.target_max_recv_data_segment_length == yours.max_recv_data_segment_length


@pytest.mark.parametrize("name", [*OFFERS, "iSCSIProtocolLevel"])
def test_every_key_can_be_left_out(name: str) -> None:
    """The default of the standard holds then (clause 6.2)."""
    ours, theirs = log_in(Options(target_name=TARGET, keys={name: None}))
    assert name not in theirs.identity.initiator_alias
    assert ours.session_parameters == theirs.session_parameters


def test_the_target_may_offer_what_was_not_brought_up() -> None:
    """6.2: either side may originate; ours is the default then."""
    policy = Policy(our_offers={"MaxBurstLength": "65536", "ErrorRecoveryLevel": "2", "MaxOutstandingR2T": "9"})
    policy.target = replace(policy.target, login_keys_workaround=False)
    left_out: dict[str, str | None] = dict.fromkeys(OFFERS)
    ours, theirs = log_in(Options(target_name=TARGET, keys=left_out), policy)
    assert ours.session_parameters == theirs.session_parameters
    assert ours.session_parameters.max_burst_length == 65536
    assert ours.session_parameters.error_recovery_level == 0  # min(0, 2): 0 is our default


def test_a_joining_connection_negotiates_for_itself_only() -> None:
    """13.2 and others, LO: session-wide keys belong to the leading login."""
    joined = SessionParameters(max_connections=4, error_recovery_level=2)
    login = make(tsih=0x1234, joined=joined, exp_stat_sn=77, cmd_sn=500)
    framer = Framer()
    for data in login.data_to_send():
        framer.receive_data(data)
    pdu = framer.next_pdu()
    assert pdu is not None
    keys = dict(parse(pdu.data))
    assert "MaxConnections" not in keys
    assert "ErrorRecoveryLevel" not in keys
    assert "HeaderDigest" in keys
    bhs = LoginRequestBhs._make(LOGIN_REQUEST.unpack(pdu.bhs))
    assert (bhs.tsih, bhs.cid, bhs.cmd_sn, bhs.exp_stat_sn) == (0x1234, 3, 500, 77)


def test_long_text_goes_in_pieces() -> None:
    """6.2: the C bit, our way."""
    keys: dict[str, str | None] = {f"X-org.example.{n:03}": "v" * 200 for n in range(100)}
    ours, _ = log_in(Options(target_name=TARGET, keys=keys))
    assert ours.keys["X-org.example.050"] == "NotUnderstood"


def test_a_discovery_session_offers_what_it_needs() -> None:
    """13: keys that are irrelevant in it are left out."""
    ours, theirs = log_in(Options())
    assert theirs.identity.session_type.value == "Discovery"
    assert "MaxBurstLength" not in ours.keys


# CHAP

ALICE = Credentials(name="alice", secret="initiatorsecret", mutual_name="bob", mutual_secret="targetsecret12")


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_chap(algorithm: int, mutual: bool) -> None:
    """12.1.3: with each algorithm; one way, and both ways."""
    mine = replace(ALICE, algorithms=(algorithm,), mutual_secret=ALICE.mutual_secret if mutual else b"")
    _, theirs = log_in(Options(target_name=TARGET, chap=mine), Policy(chap=ALICE))
    assert theirs.authenticated_name == "alice"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"secret": "wrong secret 1"}, "authentication failure"),
        ({"name": "mallory"}, "authentication failure"),
        ({"mutual_secret": "wrong secret 2"}, "does not know the mutual name or secret"),
        ({"mutual_name": "carol"}, "does not know the mutual name or secret"),
        ({"algorithms": (99,)}, "authentication failure"),
    ],
)
def test_chap_fails_as_it_must(change: dict[str, Any], why: str) -> None:
    with pytest.raises(LoginFailed, match=why) as caught:
        log_in(Options(target_name=TARGET, chap=replace(ALICE, **change)), Policy(chap=ALICE))
    for secret in ("initiatorsecret", "targetsecret12", "wrong secret"):
        assert secret not in str(caught.value)
        assert secret not in repr(Options(chap=replace(ALICE, **change)))


def test_the_target_must_prove_itself_if_it_is_asked_to() -> None:
    """A target that leaves CHAP out is not believed."""
    with pytest.raises(LoginFailed):
        log_in(Options(target_name=TARGET, chap=ALICE), Policy(chap=None))


def test_security_stage_without_a_secret() -> None:
    log_in(Options(target_name=TARGET, security_stage=True))


def test_a_target_that_wants_chap_says_so() -> None:
    for stage in (True, False):
        with pytest.raises(LoginFailed) as caught:
            log_in(Options(target_name=TARGET, security_stage=stage), Policy(chap=ALICE))
        assert caught.value.status == LoginStatus.AUTHENTICATION_FAILURE


# refusals


def test_redirection_carries_the_address() -> None:
    policy = Policy(
        refuse={"find_target": LoginError(LoginStatus.TARGET_MOVED_TEMPORARILY, "moved", target_address="192.0.2.9:3261,1")}
    )
    with pytest.raises(LoginFailed) as caught:
        log_in(policy=policy)
    assert (caught.value.status, caught.value.target_address) == (LoginStatus.TARGET_MOVED_TEMPORARILY, "192.0.2.9:3261,1")


@pytest.mark.parametrize("status", [s for s in LoginStatus if s.status_class > 1])
def test_refusals_keep_their_status(status: LoginStatus) -> None:
    with pytest.raises(LoginFailed) as caught:
        log_in(policy=Policy(refuse={"find_target": LoginError(status, "because")}))
    assert caught.value.status == status


# targets that break the rules


class BadTarget:
    """Answers a login with whatever it is told to."""

    def __init__(self, options: Options | None = None) -> None:
        self.login = make(options)
        self.framer = Framer()
        self.stat_sn = 5

    def requests(self) -> list[tuple[LoginRequestBhs, dict[str, str]]]:
        for data in self.login.data_to_send():
            self.framer.receive_data(data)
        found = []
        while (pdu := self.framer.next_pdu()) is not None:
            found.append((LoginRequestBhs._make(LOGIN_REQUEST.unpack(pdu.bhs)), dict(parse(pdu.data))))
        return found

    def answer(self, keys: dict[str, str] | bytes = b"", **fields: Any) -> LoggedIn | LoginFailed | None:
        (request, _), *_ = self.requests()
        text = keys if isinstance(keys, bytes) else encode(keys.items())
        values = {
            "opcode": Opcode.LOGIN_RESPONSE,
            "flags": request.flags & 0x8F,
            "version_max": 0,
            "version_active": 0,
            "lengths": 0,
            "isid": request.isid,
            "tsih": 7,
            "itt": request.initiator_task_tag,
            "stat_sn": self.stat_sn,
            "exp_cmd_sn": 1,
            "max_cmd_sn": 1,
            "status": 0,
        } | fields
        self.stat_sn += 1
        self.login.receive_data(frame(LOGIN_RESPONSE.pack(*values.values()), text))
        return self.login.next_event()


GOOD = {"MaxBurstLength": "65536", "MaxRecvDataSegmentLength": "4096"}


def test_a_short_answer_is_enough() -> None:
    """6.2: what is not answered has its default, and Booleans that our offer decides have that (6.2.2)."""
    options = Options(target_name=TARGET, keys={"ImmediateData": "No", "InitialR2T": "Yes", "MaxConnections": "9"})
    event = BadTarget(options).answer(GOOD)
    assert isinstance(event, LoggedIn)
    p = event.session_parameters
    assert (p.max_burst_length, p.immediate_data, p.initial_r2t, p.max_connections) == (65536, False, True, 1)
    assert event.connection_parameters.target_max_recv_data_segment_length == 4096


@pytest.mark.parametrize(
    ("keys", "fields"),
    [
        ({"MaxBurstLength": "16777215"}, {}),  # more than was offered
        ({"ErrorRecoveryLevel": "2"}, {}),
        ({"HeaderDigest": "CRC32C"}, {}),  # not among ours
        ({"HeaderDigest": "None,CRC32C"}, {}),
        ({"DefaultTime2Wait": "7000"}, {}),
        ({"DefaultTime2Retain": "soon"}, {}),
        ({"MaxRecvDataSegmentLength": "1"}, {}),
        (b"MaxBurstLength=1", {}),  # no NUL at the end
        (b"MaxBurstLength=512\0MaxBurstLength=512\0", {}),
        (GOOD, {"tsih": 0}),
        (GOOD, {"itt": 0x12345678}),
        (GOOD, {"flags": TRANSIT | 0 << 2 | 3}),  # another stage
        (GOOD, {"flags": TRANSIT | 1 << 2 | 1}),
        (GOOD, {"flags": TRANSIT | CONTINUE | 1 << 2 | 3}),
        (GOOD, {"opcode": Opcode.NOP_IN}),
        ({"X-unasked": "Yes"}, {}),  # an offer that is not waited for
        (GOOD, {"status": 0x0F0F}),
    ],
)
def test_what_breaks_the_rules_ends_the_login(keys: Any, fields: dict[str, Any]) -> None:
    event = BadTarget().answer(keys, **fields)
    assert isinstance(event, LoginFailed)
    assert "\n" not in str(event)


def test_declarations_that_are_not_the_targets_to_make_are_passed_over() -> None:
    """LIO says SessionType=Normal to connections that join a session."""
    assert isinstance(BadTarget().answer({"SessionType": "Normal", **GOOD}), LoggedIn)


def test_a_login_without_end_is_ended() -> None:
    target = BadTarget()
    event = None
    for _ in range(200):
        event = target.answer(b"", flags=1 << 2)
        if event is not None:
            break
    assert isinstance(event, LoginFailed)
    assert "end" in str(event)


def test_a_gap_in_stat_sn_ends_the_login() -> None:
    target = BadTarget()
    assert target.answer(b"", flags=1 << 2) is None
    assert isinstance(target.answer(GOOD, stat_sn=99), LoginFailed)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="MaxBurstLength"):
        Options(keys={"MaxBurstLength": "1"})
    with pytest.raises(ValueError, match="six bytes"):
        Options(isid=b"123")
