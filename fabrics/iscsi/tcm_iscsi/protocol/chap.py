"""CHAP, target side: one-way and mutual (RFC 7143 clause 12.1.3, RFC 1994)."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from tcm_iscsi.protocol.login_interface import Credentials, LoginError
from tcm_iscsi.protocol.pdu import LoginStatus
from tcm_iscsi.protocol.text import Pair, TextError, format_binary, parse_binary, parse_list, parse_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ALGORITHMS = {5: "md5", 6: "sha1", 7: "sha256", 8: "sha3_256"}
"""CHAP_A: the IANA PPP authentication algorithms, as clause 12.1.3 lists them."""
MAX_CHALLENGE_LENGTH = 1024
"""Bytes of CHAP_C."""
KEYS = frozenset({"CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"})

_FIRST = frozenset({"CHAP_A"})
_ONE_WAY = frozenset({"CHAP_N", "CHAP_R"})
_MUTUAL = _ONE_WAY | {"CHAP_I", "CHAP_C"}


def response(algorithm: int, identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """CHAP_R: the hash over identifier, secret and challenge (RFC 1994 4.1)."""
    # usedforsecurity=False: a FIPS build of OpenSSL would refuse MD5, which every initiator has
    return hashlib.new(ALGORITHMS[algorithm], bytes((identifier,)) + secret + challenge, usedforsecurity=False).digest()


def secret_bytes(secret: str | bytes) -> bytes:
    """What is hashed."""
    return secret.encode() if isinstance(secret, str) else secret


def _failure(reason: str) -> LoginError:
    return LoginError(LoginStatus.AUTHENTICATION_FAILURE, f"CHAP: {reason}")


class ChapTarget:
    """The exchange with one initiator.

    CHAP_A -> CHAP_A, CHAP_I, CHAP_C; CHAP_N, CHAP_R [, CHAP_I, CHAP_C] -> nothing [or CHAP_N, CHAP_R].

    :param random_bytes: unpredictable bytes of a given length.
    """

    def __init__(self, credentials: Credentials, random_bytes: Callable[[int], bytes]) -> None:
        self._credentials = credentials
        self._random_bytes = random_bytes
        self._algorithm = 0
        self._identifier = 0
        self._challenge = b""
        self.authenticated_name: str | None = None
        """CHAP_N, once the initiator has proved it."""

    def receive(self, keys: Mapping[str, str]) -> list[Pair]:
        """Take the CHAP keys of one request, return ours. Raises LoginError: authentication failure, whatever the fault."""
        steps: dict[tuple[bool, frozenset[str]], Callable[[Mapping[str, str]], list[Pair]]] = {
            (False, _FIRST): self._choose_algorithm,
            (True, _ONE_WAY): self._verify,
            (True, _MUTUAL): self._verify,
        }
        step = steps.get((bool(self._challenge), frozenset(keys)))
        if step is None or self.authenticated_name is not None:
            raise _failure(f"{', '.join(sorted(keys))} out of place")
        try:
            return step(keys)
        except TextError as e:
            raise _failure(str(e)) from None

    def _choose_algorithm(self, keys: Mapping[str, str]) -> list[Pair]:
        offered = [parse_number(item) for item in parse_list(keys["CHAP_A"])]
        allowed = [number for number in self._credentials.algorithms if number in ALGORITHMS]
        chosen = next((number for number in offered if number in allowed), None)
        if chosen is None:
            raise _failure(f"none of the algorithms {keys['CHAP_A']} is allowed")
        self._algorithm = chosen
        self._identifier = self._random_bytes(1)[0]
        self._challenge = self._random_bytes(hashlib.new(ALGORITHMS[chosen], usedforsecurity=False).digest_size)
        return [("CHAP_A", str(chosen)), ("CHAP_I", str(self._identifier)), ("CHAP_C", format_binary(self._challenge))]

    def _verify(self, keys: Mapping[str, str]) -> list[Pair]:
        expected = response(self._algorithm, self._identifier, secret_bytes(self._credentials.secret), self._challenge)
        received = parse_binary(keys["CHAP_R"], MAX_CHALLENGE_LENGTH)
        # both comparisons always run: how long this takes says nothing of the name or the secret
        name_right = hmac.compare_digest(keys["CHAP_N"].encode(), self._credentials.name.encode())
        if not hmac.compare_digest(received, expected) or not name_right:
            raise _failure("wrong name or secret")
        if not self._credentials.name or not self._credentials.secret:
            # everybody knows the empty one
            raise _failure("no secret is configured")
        answer = self._answer(keys) if "CHAP_C" in keys else []
        self.authenticated_name = keys["CHAP_N"]
        return answer

    def _answer(self, keys: Mapping[str, str]) -> list[Pair]:
        """Prove the target to the initiator."""
        credentials = self._credentials
        if not credentials.mutual_secret:
            raise _failure("the initiator wants the target authenticated, and there is no mutual secret")
        identifier = parse_number(keys["CHAP_I"])
        if identifier > 0xFF:
            raise _failure("CHAP_I is more than one byte")
        challenge = parse_binary(keys["CHAP_C"], MAX_CHALLENGE_LENGTH)
        if challenge == self._challenge:
            raise _failure("the initiator sent our own challenge back (reflection)")
        proof = response(self._algorithm, identifier, secret_bytes(credentials.mutual_secret), challenge)
        return [("CHAP_N", credentials.mutual_name), ("CHAP_R", format_binary(proof))]
