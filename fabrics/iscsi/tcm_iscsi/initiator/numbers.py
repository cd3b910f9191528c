"""Sequence numbers that arrive: StatSN of a connection, DataSN and R2TSN of a task (RFC 7143 4.2.2)."""

from __future__ import annotations

from tcm_iscsi.protocol.serial import HALF, SERIAL_BITS

MAX_AHEAD = 65536
"""Numbers that may come out of order before the peer is held to be mad."""
NONE: set[int] = set()
"""What nothing is ever added to: most tasks never need a set of their own."""


class Numbers:
    """Which numbers have come, and up to which one everything can be acknowledged.

    ``expected`` is the first that has not come, or is withheld: what ExpStatSN and ExpDataSN are set to.
    """

    __slots__ = ("ahead", "expected", "withheld")

    def __init__(self, expected: int = 0) -> None:
        self.expected = expected
        self.ahead: set[int] = NONE
        """Numbers from ``expected`` on that have come."""
        self.withheld: set[int] = NONE
        """Those of them that must not be acknowledged yet (a status whose data is not complete: RFC 7143 11.16.1)."""

    def receive(self, number: int, *, withhold: bool = False) -> bool:
        """A number has come; False: it is a duplicate. Raises ValueError for one that is far out of sequence."""
        distance = (number - self.expected) & SERIAL_BITS
        if distance >= HALF or number in self.ahead:
            return False
        if distance > MAX_AHEAD:
            msg = f"number {number:#x} comes when {self.expected:#x} is expected"
            raise ValueError(msg)
        if self.ahead is NONE:
            self.ahead = set()
        self.ahead.add(number)
        if withhold:
            if self.withheld is NONE:
                self.withheld = set()
            self.withheld.add(number)
        self._advance()
        return True

    def release(self, number: int) -> None:
        """What was withheld can be acknowledged."""
        self.withheld.discard(number)
        self._advance()

    def forget(self, number: int) -> None:
        """As if a number that is ahead had not come."""
        self.withheld.discard(number)
        self.ahead.discard(number)

    def _advance(self) -> None:
        while self.expected in self.ahead and self.expected not in self.withheld:
            self.ahead.discard(self.expected)
            self.expected = self.expected + 1 & SERIAL_BITS

    def missing(self, end: int | None = None) -> list[tuple[int, int]]:
        """Runs (first, length) of numbers below the highest that has come, or below ``end``, that have not."""
        expected, ahead = self.expected, self.ahead
        if end is None:
            last = max(((number - expected) & SERIAL_BITS for number in ahead), default=0)
        else:
            last = (end - expected) & SERIAL_BITS
            if last > MAX_AHEAD:
                return []
        runs: list[tuple[int, int]] = []
        length = 0
        for step in range(last + 1):
            number = expected + step & SERIAL_BITS
            if step < last and number not in ahead:
                length += 1
            elif length:
                runs.append((number - length & SERIAL_BITS, length))
                length = 0
        return runs
