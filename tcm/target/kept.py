"""One value of a logical unit in the store that is simply replaced: whoever saves last has saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from tcm.target.store import ABSENT, RevisionMismatch, key

if TYPE_CHECKING:
    from tcm.target.logical_unit import LogicalUnit
    from tcm.target.store import Store


class Kept:
    """Text that outlives the process, if the logical unit has a store. False if it has none.

    :param kind: what it is, the first part of its key; the unit serial number is the second.
    """

    def __init__(self, logical_unit: LogicalUnit, kind: str) -> None:
        self._logical_unit = logical_unit
        self.key = key(kind, logical_unit.serial)
        self._revision = ABSENT
        self._saving = anyio.Lock()

    def __bool__(self) -> bool:
        return self._logical_unit.store is not None

    def __str__(self) -> str:
        return f"{self._logical_unit.store}: {self.key}"

    async def load(self) -> str | None:
        """What was saved last, ``None`` if nothing was. Raises ``OSError``."""
        if self._logical_unit.store is None:
            return None
        text, self._revision = await self._logical_unit.store.get(self.key)
        return text

    async def save(self, text: str | None) -> None:
        """Durable when this returns; ``None`` removes it. Nothing happens without a store. Raises ``OSError``.

        Not cancelled in between: what is saved has been said to be.
        """
        store = self._logical_unit.store
        if store is None:
            return
        async with self._saving:  # each with the revision that the one before has made
            with anyio.CancelScope(shield=True):
                await self._put(store, text)

    async def _put(self, store: Store, text: str | None) -> None:
        while True:
            try:
                self._revision = await store.put(self.key, text, self._revision)
            except RevisionMismatch:  # another node has saved, or what was there could not be read
                self._revision = (await store.get(self.key)).revision
            else:
                return
