"""A store in memory that several nodes of one process share: the model of an engine that real nodes share."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from tcm.target.store import ABSENT, Entry, LeaseHeld, RevisionMismatch

if TYPE_CHECKING:
    from collections.abc import Callable


class Values:
    """What all nodes see."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.watching: dict[object, tuple[str, Callable[[str], None]]] = {}
        self.leases: dict[str, tuple[object, float]] = {}
        self.revisions = itertools.count(1)


class MemoryStore:
    """A :class:`tcm.target.store.Store`: one node's way to ``values``."""

    shared = True

    def __init__(self, values: Values, *, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.values = values
        self.clock = clock
        self.failure: OSError | None = None
        """Raised by :meth:`put`."""

    async def get(self, key: str) -> Entry:
        """See :meth:`tcm.target.store.Store.get`."""
        await checkpoint()
        return self.values.entries.get(key, Entry(None, ABSENT))

    async def put(self, key: str, value: str | None, revision: str) -> str:
        """See :meth:`tcm.target.store.Store.put`."""
        await checkpoint()
        if self.failure is not None:
            raise self.failure
        entries = self.values.entries
        if entries.get(key, Entry(None, ABSENT)).revision != revision:
            raise RevisionMismatch(key)
        if value is None:
            entries.pop(key, None)
            entry = Entry(None, ABSENT)
        else:
            entry = entries[key] = Entry(value, str(next(self.values.revisions)))
        for prefix, changed in tuple(self.values.watching.values()):
            if key.startswith(prefix):
                changed(key)
        return entry.revision

    def watch(self, prefix: str, changed: Callable[[str], None]) -> Callable[[], None]:
        """See :meth:`tcm.target.store.Store.watch`."""
        token = object()
        self.values.watching[token] = prefix, changed

        def cancel() -> None:
            self.values.watching.pop(token, None)

        return cancel

    async def lease(self, name: str, seconds: float) -> MemoryLease:
        """See :meth:`tcm.target.store.Store.lease`."""
        await checkpoint()
        held = self.values.leases.get(name)
        if held is not None and held[1] > self.clock():
            raise LeaseHeld(name)
        lease = MemoryLease(self, name, seconds)
        self.values.leases[name] = lease, self.clock() + seconds
        return lease


class MemoryLease:
    """A :class:`tcm.target.store.Lease`."""

    def __init__(self, store: MemoryStore, name: str, seconds: float) -> None:
        self._store = store
        self._name = name
        self._seconds = seconds

    @property
    def _mine(self) -> bool:
        held = self._store.values.leases.get(self._name)
        return held is not None and held[0] is self

    async def renew(self) -> None:
        """See :meth:`tcm.target.store.Lease.renew`."""
        await checkpoint()
        if not self._mine:
            raise LeaseHeld(self._name)
        self._store.values.leases[self._name] = self, self._store.clock() + self._seconds

    async def release(self) -> None:
        """See :meth:`tcm.target.store.Lease.release`."""
        await checkpoint()
        if self._mine:
            del self._store.values.leases[self._name]
