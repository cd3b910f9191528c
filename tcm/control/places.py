"""Who may be connected to the control socket: so many, of whom the one that is idle for longest gives way to the next.

Calls that may wait cannot have all places, so somebody can always get in, to look at what they wait for.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator


class Place:
    """One client's.

    :param now: seconds.
    """

    __slots__ = ("busy", "gone", "last", "scope", "sending")

    def __init__(self, now: float) -> None:
        self.scope = anyio.CancelScope()
        """What is done for the client: cancelled when it has to go."""
        self.last = now
        """When it last said something, or took a part of an answer."""
        self.busy = False
        """A call is under way: it is not broken off."""
        self.sending = False
        """A part of an answer may have been sent: nothing else can be."""
        self.gone = False
        """It has to go: nothing more is done for it."""


class Places:
    """All of them.

    :param limit: clients.
    :param changes: those among them that may have a call under way that waits.
    """

    def __init__(self, limit: int, changes: int) -> None:
        self.limit = limit
        self.changes = changes
        self._taken: set[Place] = set()
        self._changing = 0

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, now: float) -> Place | None:
        """A place; somebody else's if all are taken. ``None`` if everybody has a call under way."""
        if sum(not each.gone for each in self._taken) >= self.limit:
            idle = [each for each in self._taken if not each.busy and not each.gone]
            if not idle:
                return None
            # who does not take an answer goes only if everybody else is busy
            victim = min(idle, key=lambda each: (each.sending, each.last))
            victim.gone = True
            victim.scope.cancel()
        place = Place(now)
        self._taken.add(place)
        return place

    def give_back(self, place: Place) -> None:
        """The client is gone."""
        self._taken.discard(place)

    @contextmanager
    def changing(self) -> Iterator[bool]:
        """Around a call that may wait: whether it may be made."""
        if self._changing >= self.changes:
            yield False
            return
        self._changing += 1
        try:
            yield True
        finally:
            self._changing -= 1
