"""CHAP, initiator side: one-way and mutual (RFC 7143 clause 12.1.3, RFC 1994)."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from tcm_iscsi.initiator.results import LoginFailed
from tcm_iscsi.protocol.chap import ALGORITHMS, MAX_CHALLENGE_LENGTH, response, secret_bytes
from tcm_iscsi.protocol.text import Pair, TextError, format_binary, parse_binary, parse_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tcm_iscsi.protocol.login_interface import Credentials


class ChapInitiator:
    """The exchange with one target.

    CHAP_A -> CHAP_A, CHAP_I, CHAP_C -> CHAP_N, CHAP_R [, CHAP_I, CHAP_C] -> nothing [or CHAP_N, CHAP_R].

    :param random_bytes: unpredictable bytes of a given length.
    """

    def __init__(self, credentials: Credentials, random_bytes: Callable[[int], bytes]) -> None:
        self._credentials = credentials
        self._random_bytes = random_bytes
        self._algorithm = 0
        self._identifier = 0
        self._challenge = b""
        self.answered = False
        """CHAP_R was sent."""
        self.done = False
        """Nothing more is expected: the target has proved itself, or need not."""

    def begin(self) -> list[Pair]:
        """The algorithms, in the order in which we want them."""
        return [("CHAP_A", ",".join(str(number) for number in self._credentials.algorithms))]

    def receive(self, keys: Mapping[str, str]) -> list[Pair]:
        """Take the CHAP keys of one response, return ours. Raises LoginFailed."""
        try:
            if not self.answered:
                return self._answer(keys)
            return self._verify(keys)
        except (TextError, KeyError) as e:
            raise LoginFailed(f"CHAP: the target's answer lacks or garbles {e}") from None

    def _answer(self, keys: Mapping[str, str]) -> list[Pair]:
        credentials = self._credentials
        algorithm = parse_number(keys["CHAP_A"])
        if algorithm not in credentials.algorithms or algorithm not in ALGORITHMS:
            raise LoginFailed(f"CHAP: the target chose algorithm {algorithm}, which was not offered")
        identifier = parse_number(keys["CHAP_I"])
        challenge = parse_binary(keys["CHAP_C"], MAX_CHALLENGE_LENGTH)
        if identifier > 0xFF:
            raise LoginFailed("CHAP: CHAP_I is more than one byte")
        proof = response(algorithm, identifier, secret_bytes(credentials.secret), challenge)
        answer = [("CHAP_N", credentials.name), ("CHAP_R", format_binary(proof))]
        self.answered = True
        if not credentials.mutual_secret:
            self.done = True
            return answer
        self._algorithm = algorithm
        self._identifier = self._random_bytes(1)[0]
        size = hashlib.new(ALGORITHMS[algorithm], usedforsecurity=False).digest_size
        self._challenge = self._random_bytes(size)
        return [*answer, ("CHAP_I", str(self._identifier)), ("CHAP_C", format_binary(self._challenge))]

    def _verify(self, keys: Mapping[str, str]) -> list[Pair]:
        credentials = self._credentials
        if self.done:
            raise LoginFailed("CHAP: keys after the end of the exchange")
        expected = response(self._algorithm, self._identifier, secret_bytes(credentials.mutual_secret), self._challenge)
        received = parse_binary(keys["CHAP_R"], MAX_CHALLENGE_LENGTH)
        name = keys["CHAP_N"]
        if not hmac.compare_digest(received, expected) or (credentials.mutual_name and name != credentials.mutual_name):
            raise LoginFailed("CHAP: the target does not know the mutual name or secret")
        self.done = True
        return []
