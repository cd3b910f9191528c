"""The contract of :class:`tcm.target.store.Store` as tests.

::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def make(self, tmp_path):
            return lambda clock: MyStore(tmp_path, clock=clock)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from tcm.target.store import ABSENT, Entry, LeaseHeld, RevisionMismatch, Store, key

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[Callable[[], float]], Store]

KEY = "pr/aptpl_1"
TEXTS = ("", "one line\n", "two\r\nlines \u00e9 \U0001f512\n", "x" * (1 << 20))


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        """Seconds."""
        return self.now


class StoreContract:
    """Subclass it, name the class ``Test...`` and give it the fixture ``make``.

    ``make`` returns a function that makes a store, with the clock that leases go by, onto the same values each time: as after
    a restart, or (if it is ``shared``) on another node. Nothing is in it at first.
    """

    @pytest.fixture
    def clock(self) -> Clock:
        """What leases go by."""
        return Clock()

    @pytest.mark.anyio
    async def test_nothing_is_there_at_first(self, make: Make, clock: Clock) -> None:
        """A key without a value has the revision that says so."""
        assert await make(clock).get(KEY) == Entry(None, ABSENT)

    @pytest.mark.anyio
    @pytest.mark.parametrize("text", TEXTS, ids=["empty", "short", "unicode", "long"])
    async def test_a_value_comes_back(self, make: Make, clock: Clock, text: str) -> None:
        """Every character of it, with its revision, here and after a restart."""
        store = make(clock)
        revision = await store.put(KEY, text, ABSENT)
        assert revision != ABSENT
        assert await store.get(KEY) == Entry(text, revision)
        assert await make(clock).get(KEY) == Entry(text, revision)

    @pytest.mark.anyio
    async def test_a_stale_revision_is_refused(self, make: Make, clock: Clock) -> None:
        """Whoever has not seen the last value does not replace or remove it."""
        store, other = make(clock), make(clock)
        first = await store.put(KEY, "one", ABSENT)
        second = await other.put(KEY, "two", first)
        for revision in (ABSENT, first):
            for value in ("three", None):
                with pytest.raises(RevisionMismatch):
                    await store.put(KEY, value, revision)
        assert await store.get(KEY) == Entry("two", second)

    @pytest.mark.anyio
    async def test_a_value_is_removed(self, make: Make, clock: Clock) -> None:
        """It is absent then, and can be made anew."""
        store = make(clock)
        revision = await store.put(KEY, "one", ABSENT)
        assert await store.put(KEY, None, revision) == ABSENT
        assert await make(clock).get(KEY) == Entry(None, ABSENT)
        assert await store.put(KEY, None, ABSENT) == ABSENT
        await store.put(KEY, "two", ABSENT)

    @pytest.mark.anyio
    async def test_keys_do_not_meet(self, make: Make, clock: Clock) -> None:
        """Each has its own value, whatever is in its name."""
        store = make(clock)
        keys = [KEY, "pr/aptpl_2", key("pr", "a/b"), key("pr", ".."), key("pr", "."), key("pr", "a b"), "alua/tpgs_1/group"]
        assert len(set(keys)) == len(keys)
        for name in keys:
            await store.put(name, name, ABSENT)
        assert [(await store.get(name)).value for name in keys] == keys

    @pytest.mark.anyio
    async def test_one_of_many_wins(self, make: Make, clock: Clock) -> None:
        """Of writers that saw the same revision exactly one succeeds."""
        stores = [make(clock) for _ in range(8)]
        won = []

        async def write(number: int) -> None:
            try:
                await stores[number].put(KEY, str(number), ABSENT)
            except RevisionMismatch:
                return
            won.append(str(number))

        async with anyio.create_task_group() as group:
            for number in range(len(stores)):
                group.start_soon(write, number)
        assert won == [(await stores[0].get(KEY)).value]

    @pytest.mark.anyio
    async def test_changes_are_told(self, make: Make, clock: Clock) -> None:
        """To everybody who watches a beginning of the key, until they have enough; by other nodes too if it is shared."""
        store = make(clock)
        writer = make(clock) if store.shared else store
        told = anyio.Event()
        other: list[str] = []
        cancel = store.watch("pr/", lambda _: told.set())
        store.watch("alua/", other.append)
        revision = await writer.put(KEY, "one", ABSENT)
        with anyio.fail_after(10):
            await told.wait()
        assert (await store.get(KEY)).value == "one"
        cancel()
        cancel()
        told, again = anyio.Event(), anyio.Event()
        store.watch(KEY, lambda _: again.set())
        await writer.put(KEY, None, revision)
        with anyio.fail_after(10):
            await again.wait()
        assert not told.is_set()
        assert other == []

    @pytest.mark.anyio
    async def test_a_lease_is_exclusive(self, make: Make, clock: Clock) -> None:
        """Until it is given up; other names are free."""
        store, other = make(clock), make(clock)
        lease = await store.lease("a", 10)
        for each in (store, other):
            with pytest.raises(LeaseHeld):
                await each.lease("a", 10)
        await other.lease("b", 10)
        await lease.release()
        await lease.release()
        await other.lease("a", 10)

    @pytest.mark.anyio
    async def test_a_lease_runs_out(self, make: Make, clock: Clock) -> None:
        """Unless it is renewed; who has lost it cannot renew it or give away its successor."""
        store, other = make(clock), make(clock)
        lease = await store.lease("a", 10)
        clock.now += 9
        await lease.renew()
        clock.now += 9
        with pytest.raises(LeaseHeld):
            await other.lease("a", 10)
        clock.now += 1
        successor = await other.lease("a", 10)
        with pytest.raises(LeaseHeld):
            await lease.renew()
        await lease.release()
        with pytest.raises(LeaseHeld):
            await store.lease("a", 10)
        await successor.renew()
