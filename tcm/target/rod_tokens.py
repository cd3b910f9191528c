"""The ROD tokens of this process: made, found again, and ended (SPC-5, RODs and ROD tokens).

A ROD is ranges of a logical unit and the promise that they still hold what they held: a point in time copy that is change
vulnerable. While a unit has any, it tells of every change of its medium beforehand, and writes keep off the express lane; a
change in a ROD's ranges ends its token. Nothing is copied until a token is used, and nothing outlives the process, whose
secret every token is sealed with.
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tcm.scsi.rod_token_sense import (
    InsufficientResourcesToCreateRodToken,
    InvalidTokenOperation,
    TokenCancelled,
    TokenCorrupt,
    TokenDeleted,
    TokenExpired,
    TokenRevoked,
    TokenUnknown,
)
from tcm.scsi.rod_tokens import EXTENDED_DATA_SIZE, MANAGEMENT_TOKEN_SIZE, identifier_of
from tcm.target.rods import Rod, WatchedRods

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tcm.scsi.rod_token_commands import Range
    from tcm.scsi.rod_tokens import TokenFields
    from tcm.target.logical_unit import LogicalUnit

DEFAULT_INACTIVITY_TIMEOUT = 60
MAXIMUM_INACTIVITY_TIMEOUT = 600
LIFETIME = 3600
"""Seconds after which a token is over, however much it is used."""
MAXIMUM_TOKENS = 4096
"""Tokens that are valid at once, in all."""
MAXIMUM_UNIT_RANGES = 16384
"""Ranges of one logical unit that valid tokens represent."""
MAXIMUM_ENDED = 16384
"""Tokens whose end is remembered, to say what became of them."""
MAXIMUM_BYTES = 4 << 30
"""Bytes that one token represents, and that one command writes."""
OPTIMAL_BYTES = 64 << 20
"""Bytes that one command writes without keeping others waiting."""

_SEAL = 32


class RodTokens:
    """All of them.

    :param clock: seconds since whenever, never going back.
    :param random: gives that many unpredictable bytes.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, random: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._clock = clock
        self._random = random
        self._secret = random(_SEAL)
        # not to be mistaken for those of the process before, which began elsewhere
        self._next_identifier = int.from_bytes(random(6)) << 16
        self._rods: dict[int, Rod] = {}
        self._ended: dict[int, type[InvalidTokenOperation]] = {}
        self._of: dict[LogicalUnit, WatchedRods] = {}
        self._next_expiry = math.inf

    def create(self, logical_unit: LogicalUnit, ranges: Sequence[Range], fields: TokenFields, timeout: int) -> Rod:
        """A ROD of what the ranges hold when this returns, apart from writes that are under way.

        :param fields: what the token says; the identifier is put in here.
        :param timeout: INACTIVITY TIMEOUT, seconds; 0: the default.
        :raises InsufficientResourcesToCreateRodToken: there are as many as there may be.
        """
        now = self._expire()
        own = self._of.get(logical_unit)
        if len(self._rods) >= MAXIMUM_TOKENS or (own is not None and own.ranges + len(ranges) > MAXIMUM_UNIT_RANGES):
            raise InsufficientResourcesToCreateRodToken
        self._next_identifier += 1
        sealed = replace(fields, identifier=self._next_identifier).pack(self._random(EXTENDED_DATA_SIZE - _SEAL))
        rod = Rod(
            logical_unit,
            ranges,
            sealed + self._seal(sealed),
            timeout=timeout or DEFAULT_INACTIVITY_TIMEOUT,
            until=now + LIFETIME,
        )
        self._rods[rod.identifier] = rod
        self._touch(rod, now)
        if own is None:
            own = self._of[logical_unit] = WatchedRods()
            logical_unit.medium.watch(partial(self._changing, logical_unit))
            logical_unit.update_express()
        own.add(rod)
        return rod

    def find(self, token: bytes) -> Rod:
        """The ROD of a token that has come back. Raises :class:`InvalidTokenOperation`."""
        self._expire()
        identifier = identifier_of(token)
        rod, ended = self._rods.get(identifier), self._ended.get(identifier)
        if not hmac.compare_digest(self._seal(token[:-_SEAL]), token[-_SEAL:]):
            raise TokenUnknown if rod is None and ended is None else TokenCorrupt
        if rod is None:
            raise ended or TokenUnknown
        return rod

    @contextmanager
    def using(self, rod: Rod) -> Iterator[None]:
        """It does not expire within the ``with`` block, and its inactivity begins after it."""
        rod.users += 1
        try:
            yield
        finally:
            rod.users -= 1
            if rod.ended is None:
                self._touch(rod, self._clock())

    def management_tokens(self, logical_unit: LogicalUnit) -> list[bytes]:
        """ROD management tokens of all that are valid and represent data of a logical unit."""
        self._expire()
        return [rod.token[:MANAGEMENT_TOKEN_SIZE] for rod in self._of.get(logical_unit, ())]

    # how tokens end

    def delete(self, rod: Rod) -> None:
        """An application client has no more use for it."""
        self._end(rod, TokenDeleted)

    def discard(self, rod: Rod) -> None:
        """Nobody will ever get to know the token."""
        self._end(rod, TokenCancelled)

    def cancel(self, logical_unit: LogicalUnit) -> None:
        """The unit's data, or some of it, is not what it was."""
        for rod in self._of.get(logical_unit, ()):
            self._end(rod, TokenCancelled)

    def revoke(self, logical_unit: LogicalUnit) -> None:
        """The unit goes away."""
        for rod in self._of.get(logical_unit, ()):
            self._end(rod, TokenRevoked)

    def _changing(self, logical_unit: LogicalUnit, offset: int, length: int) -> None:
        """Bytes of the unit are about to change; and if all has expired, the express lane may be open again."""
        self._expire()
        own = self._of.get(logical_unit)
        if own is not None:
            first, end = offset >> logical_unit.block_shift, -(-(offset + length) >> logical_unit.block_shift)
            for rod in own.touched(first, end):
                self._end(rod, TokenCancelled)

    def _expire(self) -> float:
        """End what has been idle or has lived too long. Returns what time it is."""
        now = self._clock()
        if now >= self._next_expiry:
            for rod in [each for each in self._rods.values() if each.expires <= now and not each.users]:
                self._end(rod, TokenExpired)
            self._next_expiry = min((each.expires for each in self._rods.values() if not each.users), default=math.inf)
        return now

    def _touch(self, rod: Rod, now: float) -> None:
        rod.expires = min(rod.until, now + rod.timeout)
        self._next_expiry = min(self._next_expiry, rod.expires)

    def _end(self, rod: Rod, why: type[InvalidTokenOperation]) -> None:
        if rod.ended is not None:
            return
        rod.ended = why
        del self._rods[rod.identifier]
        self._ended[rod.identifier] = why
        if len(self._ended) > MAXIMUM_ENDED:
            del self._ended[next(iter(self._ended))]
        unit = rod.logical_unit
        own = self._of[unit]
        own.remove(rod)
        if not own:
            del self._of[unit]
            unit.medium.watch(None)
            unit.update_express()

    def _seal(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, data, "sha256")


ROD_TOKENS = RodTokens()
"""Those of logical units that are given no others: a token is good on every logical unit and port of the process."""
