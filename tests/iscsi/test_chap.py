"""CHAP, target side: RFC 7143 12.1.3, RFC 1994."""

from __future__ import annotations

import hashlib
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.iscsi_login import Policy, chap_answer
from tcm_iscsi.protocol.chap import ALGORITHMS, KEYS, MAX_CHALLENGE_LENGTH, ChapTarget, response
from tcm_iscsi.protocol.login_interface import Credentials, LoginError
from tcm_iscsi.protocol.pdu import LoginStatus
from tcm_iscsi.protocol.text import format_binary, parse_binary

SECRET, MUTUAL_SECRET = "a-very-long-secret", "another-long-secret"
ONE_WAY = Credentials(name="alice", secret=SECRET)
MUTUAL = Credentials(name="alice", secret=SECRET, mutual_name="bob", mutual_secret=MUTUAL_SECRET)
SIZES = {5: 16, 6: 20, 7: 32, 8: 32}


def challenged(credentials: Credentials = ONE_WAY, algorithms: str = "5") -> tuple[ChapTarget, dict[str, str]]:
    target = ChapTarget(credentials, Policy().random_bytes)
    return target, dict(target.receive({"CHAP_A": algorithms}))


def failure(target: ChapTarget, keys: dict[str, str]) -> LoginError:
    with pytest.raises(LoginError) as caught:
        target.receive(keys)
    assert caught.value.status is LoginStatus.AUTHENTICATION_FAILURE
    assert target.authenticated_name is None
    return caught.value


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        (5, hashlib.md5(b"\x07secret\x01\x02").hexdigest()),
        (6, hashlib.sha1(b"\x07secret\x01\x02").hexdigest()),
        (7, hashlib.sha256(b"\x07secret\x01\x02").hexdigest()),
        (8, hashlib.sha3_256(b"\x07secret\x01\x02").hexdigest()),
    ],
)
def test_response(algorithm: int, digest: str) -> None:
    """RFC 1994 4.1: hash(identifier, secret, challenge)."""
    assert response(algorithm, 7, b"secret", b"\x01\x02").hex() == digest


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_way(algorithm: int) -> None:
    """CHAP_A, then CHAP_N and CHAP_R; challenge as long as the hash."""
    target, challenge = challenged(algorithms=str(algorithm))
    assert challenge.keys() == {"CHAP_A", "CHAP_I", "CHAP_C"}
    assert challenge["CHAP_A"] == str(algorithm)
    assert 0 <= int(challenge["CHAP_I"]) <= 255
    assert len(parse_binary(challenge["CHAP_C"], 1024)) == SIZES[algorithm]
    assert target.authenticated_name is None
    assert target.receive(chap_answer(challenge, "alice", SECRET)) == []
    assert target.authenticated_name == "alice"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("length", [1, 16, MAX_CHALLENGE_LENGTH])
def test_mutual(algorithm: int, length: int) -> None:
    """The target proves itself with the mutual secret."""
    target, challenge = challenged(MUTUAL, str(algorithm))
    theirs = {"CHAP_I": "255", "CHAP_C": format_binary(bytes(range(1, 256)).ljust(length, b"x")[:length])}
    answer = dict(target.receive({**chap_answer(challenge, "alice", SECRET), **theirs}))
    assert answer == chap_answer({"CHAP_A": str(algorithm), **theirs}, "bob", MUTUAL_SECRET)
    assert target.authenticated_name == "alice"


def test_mutual_is_the_initiators_choice() -> None:
    """An initiator that does not ask for the target's proof does not get one."""
    target, challenge = challenged(MUTUAL)
    assert target.receive(chap_answer(challenge, "alice", SECRET)) == []


@pytest.mark.parametrize(
    ("offered", "allowed", "chosen"),
    [
        ("5", (8, 7, 6, 5), 5),
        ("7,5", (8, 7, 6, 5), 7),
        ("5,8", (8, 7, 6, 5), 5),
        ("5,8", (8,), 8),
        ("99,6", (5, 6), 6),
        ("0x5", (5,), 5),
    ],
)
def test_algorithm_choice(offered: str, allowed: tuple[int, ...], chosen: int) -> None:
    """The first of the initiator's list that is allowed."""
    _, challenge = challenged(Credentials(name="a", secret="b", algorithms=allowed), offered)
    assert challenge["CHAP_A"] == str(chosen)


@pytest.mark.parametrize("offered", ["", "4", "md5", "5,5", "5,", "9,10", "-5", "5;6"])
def test_algorithm_refused(offered: str) -> None:
    """Nothing in common, or no list at all."""
    failure(ChapTarget(ONE_WAY, Policy().random_bytes), {"CHAP_A": offered})


@pytest.mark.parametrize(
    "change",
    [
        {"CHAP_N": "bob"},
        {"CHAP_N": "alice "},
        {"CHAP_N": ""},
        {"CHAP_R": "0x00"},
        {"CHAP_R": ""},
        {"CHAP_R": "12345"},
        {"CHAP_R": "0x" + "00" * 16},
        {"CHAP_R": "0x" + "00" * 2000},
        {"CHAP_R": "0x0"},
    ],
)
def test_wrong_proof(change: dict[str, str]) -> None:
    """Wrong name, wrong response, not a response."""
    target, challenge = challenged()
    failure(target, {**chap_answer(challenge, "alice", SECRET), **change})


@pytest.mark.parametrize(
    "theirs",
    [
        {"CHAP_I": "256", "CHAP_C": "0x01"},
        {"CHAP_I": "x", "CHAP_C": "0x01"},
        {"CHAP_I": "1", "CHAP_C": ""},
        {"CHAP_I": "1", "CHAP_C": "0x" + "00" * (MAX_CHALLENGE_LENGTH + 1)},
        {"CHAP_I": "1"},
        {"CHAP_C": "0x01"},
    ],
)
def test_mutual_malformed(theirs: dict[str, str]) -> None:
    """A right proof with a wrong challenge authenticates nobody."""
    target, challenge = challenged(MUTUAL)
    failure(target, {**chap_answer(challenge, "alice", SECRET), **theirs})


@pytest.mark.parametrize(("name", "secret"), [("alice", ""), ("", "")])
def test_no_secret_is_none(name: str, secret: str) -> None:
    """A name whose secret has not been given yet: what everybody can compute proves nothing."""
    target, challenge = challenged(Credentials(name=name, secret=secret))
    failure(target, chap_answer(challenge, name, secret))


def test_mutual_without_secret() -> None:
    """An initiator that wants a proof we cannot give is not left in the dark."""
    target, challenge = challenged(ONE_WAY)
    failure(target, {**chap_answer(challenge, "alice", SECRET), "CHAP_I": "1", "CHAP_C": "0x0102"})


@pytest.mark.parametrize("identifier", ["1", None])
def test_reflection(identifier: str | None) -> None:
    """RFC 7143 12.1.3: our own challenge must not come back, in whichever encoding."""
    for encode in (str, lambda text: "0X" + text[2:].upper()):
        target, challenge = challenged(MUTUAL)
        keys = chap_answer(challenge, "alice", SECRET)
        ours = {"CHAP_I": identifier or challenge["CHAP_I"], "CHAP_C": encode(challenge["CHAP_C"])}
        assert "reflection" in failure(target, {**keys, **ours}).reason


@pytest.mark.parametrize(
    "keys", [{"CHAP_N": "a", "CHAP_R": "0x01"}, {"CHAP_A": "5", "CHAP_N": "a"}, {"CHAP_I": "1", "CHAP_C": "0x01"}]
)
def test_out_of_order(keys: dict[str, str]) -> None:
    """CHAP_A comes first, alone."""
    failure(ChapTarget(ONE_WAY, Policy().random_bytes), keys)


def test_no_second_try() -> None:
    """One challenge, one proof."""
    target, challenge = challenged()
    failure(target, {"CHAP_A": "5"})
    target, challenge = challenged()
    target.receive(chap_answer(challenge, "alice", SECRET))
    with pytest.raises(LoginError):
        target.receive(chap_answer(challenge, "alice", SECRET))


def test_challenges_differ() -> None:
    """Each exchange draws its own identifier and challenge."""
    random_bytes = Policy().random_bytes
    drawn = {dict(ChapTarget(ONE_WAY, random_bytes).receive({"CHAP_A": "7"}))["CHAP_C"] for _ in range(20)}
    assert len(drawn) == 20


def test_secrets_stay_secret() -> None:
    """Neither repr nor traceback shows a secret or a response."""
    assert SECRET not in repr(MUTUAL)
    assert MUTUAL_SECRET not in repr(MUTUAL)
    target, challenge = challenged(MUTUAL)
    proof = chap_answer(challenge, "alice", "wrong")
    try:
        target.receive(proof)
    except LoginError as e:
        shown = "".join(traceback.format_exception(e)) + repr(e) + repr(target)
    assert SECRET not in shown
    assert MUTUAL_SECRET not in shown
    assert proof["CHAP_R"] not in shown
    assert e_response(challenge) not in shown


def e_response(challenge: dict[str, str]) -> str:
    return chap_answer(challenge, "alice", SECRET)["CHAP_R"]


@given(
    st.lists(
        st.dictionaries(st.sampled_from(sorted(KEYS)), st.text(max_size=20) | st.sampled_from(["5", "0x01", "alice"])),
        max_size=4,
    )
)
def test_any_keys(requests: list[dict[str, str]]) -> None:
    """Invariant: without the secret nobody is authenticated, and nothing but LoginError is raised."""
    target = ChapTarget(MUTUAL, Policy().random_bytes)
    for keys in requests:
        try:
            target.receive(keys)
        except LoginError:
            break
    assert target.authenticated_name is None
