"""One value of a logical unit in the store."""

from __future__ import annotations

import anyio
import pytest
from support.scsi import make_lu

from tcm.target.kept import Kept
from tcm.testing import MemoryStore
from tcm.testing.memory_store import Values

pytestmark = pytest.mark.anyio


async def test_without_a_store_nothing_is_kept() -> None:
    async with make_lu() as unit:
        kept = Kept(unit, "kind")
        assert not kept
        await kept.save("text")
        assert await kept.load() is None


async def test_the_last_node_wins() -> None:
    values = Values()
    async with make_lu(store=MemoryStore(values)) as unit, make_lu(store=MemoryStore(values)) as other:
        one, two = Kept(unit, "kind"), Kept(other, "kind")
        for text in ("a", None, "b"):
            await one.save(text)
            assert await two.load() == text
            await two.save("c")
            assert await one.load() == "c"
        await one.save("d")
        await two.save("e")
        assert await one.load() == "e"


async def test_many_save_one_after_the_other() -> None:
    async with make_lu(store=MemoryStore(Values())) as unit:
        kept = Kept(unit, "kind")
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(kept.save, str(number))
        assert await kept.load() in map(str, range(8))
        await kept.save(None)
        assert await kept.load() is None
