"""The contract of :class:`tcm.backstore.Backstore` as tests.

::

    class TestMyBackstore(BackstoreContract):
        persistent = True

        @pytest.fixture
        def make(self, tmp_path):
            return lambda: MyBackstore(tmp_path / "disk")
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcm.adapters import adapt
from tcm.backstore import Backstore, BackstoreError, BackstoreErrorKind, BlockingBackstore, Support

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tcm.backstore import Capabilities

    Make = Callable[[], Backstore | BlockingBackstore]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("write", "write_nowait", "fua", "flush", "unmap", "zero", "zero_unmap", "read", "read_nowait", "extents")
        ),
        st.integers(0, 255),
        st.integers(1, 64),
        st.integers(1, 255),
    ),
    max_size=12,
)
"""Operation, first block, blocks, and what to write."""


def pattern(length: int, seed: int) -> bytes:
    """``length`` bytes, none of them zero, that differ from place to place (up to 251 blocks) and from seed to seed."""
    table = bytes((seed + i) % 255 + 1 for i in range(251))  # a prime, so that no block repeats the one before
    return (table * (length // 251 + 1))[:length]


async def read(backstore: Backstore, offset: int, length: int) -> bytes:
    """What :meth:`Backstore.readv` gives."""
    data = bytearray(b"\xa5" * length)
    await backstore.readv([memoryview(data)], offset)
    return bytes(data)


class BackstoreContract:
    """Subclass it, name the class ``Test...`` and give it the fixture ``make``.

    ``make`` returns a function; each of its calls makes a new, unopened object for *the same* medium, at least 256 blocks
    large. The medium's contents do not matter, and are destroyed unless ``capabilities().read_only``.
    """

    remembers: ClassVar[bool] = True
    """False: writes are discarded and everything reads as zeroes."""
    persistent: ClassVar[bool] = False
    """What is written and flushed is still there for the next object that ``make`` returns."""

    @asynccontextmanager
    async def opened(self, make: Make) -> AsyncIterator[Backstore]:
        """An adapted backstore, open."""
        backstore = adapt(make())
        try:
            await backstore.open()
            yield backstore
        finally:
            await backstore.aclose()

    @asynccontextmanager
    async def writable(self, make: Make, needs: str = "") -> AsyncIterator[tuple[Backstore, int]]:
        """The same with its block size; skips the test if it is read-only, or if capability ``needs`` is not NATIVE."""
        async with self.opened(make) as backstore:
            capabilities = backstore.capabilities()
            if capabilities.read_only:
                pytest.skip("a read-only backstore")
            if needs and getattr(capabilities, needs) is not Support.NATIVE:
                pytest.skip(f"{needs} is not native here")
            yield backstore, capabilities.block_size

    def kept(self, data: bytes) -> bytes:
        """What reads back after ``data`` was written."""
        return data if self.remembers else bytes(len(data))

    @pytest.mark.anyio
    async def test_capabilities_fit_the_methods(self, make: Make) -> None:
        """NATIVE is said only of what the class overrides; sizes are powers of two."""
        raw = make()
        base = BlockingBackstore if isinstance(raw, BlockingBackstore) else Backstore
        async with self.opened(lambda: raw) as backstore:
            said: Capabilities = backstore.capabilities()
            assert backstore.size() >= 256 * said.block_size
            assert said.block_size in (512, 1024, 2048, 4096)
            for size in (said.physical_block_size, said.unmap_granularity):
                assert size > 0
                assert size & (size - 1) == 0
            for name in ("flush", "unmap", "write_zeroes", "extents", "copy_range"):
                if getattr(said, name) is Support.NATIVE:
                    assert getattr(type(raw), name) is not getattr(base, name), f"{name} is NATIVE but not overridden"
            if said.protection is Support.NATIVE:
                for name in ("read_protection", "write_protection", "set_protection", "protection_label"):
                    assert getattr(type(raw), name) is not getattr(base, name), f"protection is NATIVE without {name}"
            if type(raw).writev is base.writev:
                assert said.read_only
            if not said.nowait:
                block = memoryview(bytearray(said.block_size))
                assert not backstore.read_nowait([block], 0)

    @pytest.mark.anyio
    async def test_close_without_open(self, make: Make) -> None:
        """``aclose`` is called when ``open`` has failed, too."""
        await adapt(make()).aclose()

    @pytest.mark.anyio
    async def test_read_into_many_buffers(self, make: Make) -> None:
        """Buffers of any lengths are filled one after the other, up to the medium's last byte."""
        async with self.opened(make) as backstore:
            block = backstore.capabilities().block_size
            end = backstore.size() // block * block
            for offset in (0, end - 4 * block):
                if not backstore.capabilities().read_only:
                    await backstore.writev([pattern(4 * block, 12)], offset)
                whole = await read(backstore, offset, 4 * block)
                parts = [bytearray(b"\xa5" * length) for length in (1, block - 1, 2 * block + 7, block - 7)]
                await backstore.readv([memoryview(part) for part in parts], offset)
                assert b"".join(parts) == whole

    @pytest.mark.anyio
    async def test_write_then_read(self, make: Make) -> None:
        """At the beginning, in the middle and at the end; the neighbours stay as they were, and so does the caller's data."""
        async with self.writable(make) as (backstore, block):
            end = backstore.size() // block * block
            for seed, offset in enumerate((0, end // 2 // block * block, end - 2 * block)):
                before = await read(backstore, max(offset - block, 0), block)
                data = bytearray(pattern(2 * block, seed))
                await backstore.writev([data], offset)
                assert data == pattern(2 * block, seed)
                assert await read(backstore, offset, 2 * block) == self.kept(bytes(data))
                if offset:
                    assert await read(backstore, offset - block, block) == before

    @pytest.mark.anyio
    async def test_write_from_many_buffers(self, make: Make) -> None:
        """bytes, bytearrays and memoryviews of any lengths are written one after the other."""
        async with self.writable(make) as (backstore, block):
            data = pattern(4 * block, 1)
            await backstore.writev([data[:1], bytearray(data[1 : block + 3]), memoryview(data)[block + 3 :]], 3 * block)
            assert await read(backstore, 3 * block, 4 * block) == self.kept(data)

    @pytest.mark.anyio
    async def test_flush(self, make: Make) -> None:
        """A flush changes no data, with and without something to flush."""
        async with self.writable(make) as (backstore, block):
            await backstore.flush()
            await backstore.writev([pattern(block, 2)], 0)
            await backstore.flush()
            assert await read(backstore, 0, block) == self.kept(pattern(block, 2))

    @pytest.mark.anyio
    async def test_fua(self, make: Make) -> None:
        """A FUA write is a write."""
        async with self.writable(make, "fua") as (backstore, block):
            await backstore.writev([pattern(block, 3)], 5 * block, True)
            assert await read(backstore, 5 * block, block) == self.kept(pattern(block, 3))

    @pytest.mark.anyio
    async def test_unmap(self, make: Make) -> None:
        """The range reads as zeroes if that is promised; its neighbours keep their data, whatever the granularity."""
        async with self.writable(make, "unmap") as (backstore, block):
            data = pattern(64 * block, 4)
            for first, count in ((8, 32), (1, 1), (63, 1), (3, 17)):
                await backstore.writev([data], 0)
                await backstore.unmap(first * block, count * block)
                found = await read(backstore, 0, len(data))
                assert found[: first * block] == self.kept(data[: first * block])
                assert found[(first + count) * block :] == self.kept(data[(first + count) * block :])
                if backstore.capabilities().unmap_zeroes:
                    assert not any(found[first * block : (first + count) * block])

    @pytest.mark.anyio
    @pytest.mark.parametrize("may_unmap", [False, True])
    async def test_write_zeroes(self, make: Make, may_unmap: bool) -> None:
        """The range reads as zeroes, and nothing else does."""
        async with self.writable(make, "write_zeroes") as (backstore, block):
            data = pattern(32 * block, 5)
            for fua in (False, True) if backstore.capabilities().fua is Support.NATIVE else (False,):
                await backstore.writev([data], 0)
                await backstore.write_zeroes(3 * block, 18 * block, may_unmap=may_unmap, fua=fua)
                expected = data[: 3 * block] + bytes(18 * block) + data[21 * block :]
                assert await read(backstore, 0, len(data)) == self.kept(expected)

    @pytest.mark.anyio
    async def test_extents(self, make: Make) -> None:
        """They begin at the offset, leave no gap, stay inside the range, and what holds data is mapped."""
        async with self.opened(make) as backstore:
            capabilities = backstore.capabilities()
            block, end = capabilities.block_size, backstore.size()
            if not capabilities.read_only:
                await backstore.writev([pattern(2 * block, 6)], 9 * block)
            for offset, length in ((0, end), (block, 64 * block), (9 * block, block), (end // block * block - block, block)):
                runs = await backstore.extents(offset, length)
                assert runs
                position = offset
                for run in runs:
                    assert run.offset == position
                    assert run.length > 0
                    position += run.length
                    if not run.mapped and capabilities.unmap_zeroes:
                        assert not any(await read(backstore, run.offset, min(run.length, 1 << 20)))
                assert position <= offset + length

    @pytest.mark.anyio
    async def test_copy_range(self, make: Make) -> None:
        """What it says it has copied is there, and what is outside the range stays."""
        async with self.writable(make, "copy_range") as (backstore, block):
            data = pattern(64 * block, 13)
            await backstore.writev([data], 0)
            done = await backstore.copy_range(backstore, 3 * block, 40 * block, 16 * block)
            assert 0 <= done <= 16 * block
            found = await read(backstore, 0, len(data))
            assert found[: 40 * block] == self.kept(data[: 40 * block])
            assert found[40 * block :][:done] == self.kept(data[3 * block :][:done])
            assert found[56 * block :] == self.kept(data[56 * block :])

    @pytest.mark.anyio
    async def test_nowait_agrees(self, make: Make) -> None:
        """What ``nowait`` reads and writes is what the other methods write and read; False changes nothing that matters."""
        async with self.writable(make) as (backstore, block):
            data = pattern(8 * block, 7)
            await backstore.writev([data], 0)
            buffer = bytearray(8 * block)
            if backstore.read_nowait([memoryview(buffer)[:block], memoryview(buffer)[block:]], 0):
                assert buffer == self.kept(data)
            fresh = pattern(8 * block, 8)
            if backstore.write_nowait([fresh[:block], memoryview(fresh)[block:]], 0):
                assert await read(backstore, 0, 8 * block) == self.kept(fresh)

    @pytest.mark.anyio
    async def test_protection(self, make: Make) -> None:
        """The area is apart from the data, and keeps what it holds when it grows; a label lasts until the next."""
        async with self.writable(make, "protection") as (backstore, block):
            await backstore.writev([pattern(4 * block, 13)], 0)
            await backstore.set_protection(256 * 8, b"")
            assert backstore.protection_label() == b""
            tuples = pattern(9 * 8, 14)
            await backstore.write_protection(tuples, 3 * 8)
            await backstore.write_protection(memoryview(tuples)[:8], 255 * 8)
            await backstore.set_protection(256 * 8, b"one")
            assert backstore.protection_label() == b"one"
            await backstore.writev([pattern(4 * block, 15)], 0)
            assert await self.protection(backstore, 3, 9) == tuples
            assert await self.protection(backstore, 255, 1) == tuples[:8]
            await backstore.set_protection(512 * 8, bytes(range(256)))
            await backstore.write_protection(b"\xff" * 8, 3 * 8, backstore.capabilities().fua is Support.NATIVE)
            await backstore.flush()
            assert await self.protection(backstore, 3, 9) == b"\xff" * 8 + tuples[8:]
            assert backstore.protection_label() == bytes(range(256))
            assert await read(backstore, 0, 4 * block) == self.kept(pattern(4 * block, 15))
            await backstore.set_protection(4 * 8, b"")
            assert await self.protection(backstore, 3, 1) == b"\xff" * 8
            assert backstore.protection_label() == b""
            await backstore.set_protection(0, b"none")
            assert backstore.protection_label() == b"none"
            await backstore.set_protection(0, b"")
            assert backstore.protection_label() == b""

    async def protection(self, backstore: Backstore, first: int, blocks: int) -> bytes:
        """Protection information of blocks."""
        found = bytearray(blocks * 8)
        await backstore.read_protection(memoryview(found), first * 8)
        return bytes(found)

    @pytest.mark.anyio
    async def test_protection_reopened(self, make: Make) -> None:
        """The area and its label are there for the next one, if it is that kind of medium; without a label there is none."""
        tuples = pattern(256 * 8, 16)
        async with self.writable(make, "protection") as (backstore, _):
            await backstore.set_protection(256 * 8, b"")
            await backstore.write_protection(tuples, 0)
            await backstore.set_protection(256 * 8, b"label")
            await backstore.flush()
        async with self.writable(make, "protection") as (backstore, _):
            if self.persistent:
                assert backstore.protection_label() == b"label"
                assert await self.protection(backstore, 0, 256) == tuples
            await backstore.set_protection(256 * 8, b"")
        async with self.writable(make, "protection") as (backstore, _):
            assert backstore.protection_label() == b""
            await backstore.set_protection(0, b"")

    @pytest.mark.anyio
    async def test_parallel(self, make: Make) -> None:
        """Requests at different offsets at the same time don't disturb each other."""
        async with self.writable(make) as (backstore, block):

            async def one(number: int) -> None:
                for seed in range(3):
                    data = pattern(2 * block, number + seed)
                    await backstore.writev([data], number * 2 * block)
                    assert await read(backstore, number * 2 * block, 2 * block) == self.kept(data)
                await backstore.flush()

            async with anyio.create_task_group() as group:
                for number in range(16):
                    group.start_soon(one, number)

    @pytest.mark.anyio
    async def test_cancelled(self, make: Make) -> None:
        """A cancelled request leaves the buffers alone afterwards, and a backstore that still works."""
        async with self.writable(make) as (backstore, block):
            data, late = pattern(4 * block, 9), bytearray(4 * block)
            await backstore.writev([data], 0)
            async with anyio.create_task_group() as group:
                group.start_soon(partial(backstore.readv, [memoryview(late)], 0))
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            now = bytes(late)
            assert await read(backstore, 0, 4 * block) == self.kept(data)
            assert late == now

    @pytest.mark.anyio
    async def test_reopen(self, make: Make) -> None:
        """What was flushed is there for the next one, if it is that kind of medium; a closed one can always be followed."""
        async with self.writable(make) as (backstore, block):
            await backstore.writev([pattern(4 * block, 10)], block)
            await backstore.flush()
        async with self.opened(make) as backstore:
            found = await read(backstore, block, 4 * block)
            if self.persistent:
                assert found == self.kept(pattern(4 * block, 10))

    @pytest.mark.anyio
    async def test_read_only_refuses_writes(self, make: Make) -> None:
        """Should a write reach a read-only backstore all the same, it says so."""
        async with self.opened(make) as backstore:
            capabilities = backstore.capabilities()
            if not capabilities.read_only:
                pytest.skip("it can be written")
            before = await read(backstore, 0, capabilities.block_size)
            assert not backstore.write_nowait([pattern(capabilities.block_size, 11)], 0)
            with pytest.raises((BackstoreError, OSError)) as caught:
                await backstore.writev([pattern(capabilities.block_size, 11)], 0)
            if isinstance(caught.value, BackstoreError):
                assert caught.value.kind is BackstoreErrorKind.READ_ONLY
            assert await read(backstore, 0, capabilities.block_size) == before

    @settings(
        deadline=None,
        max_examples=25,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(steps=STEPS)
    @pytest.mark.anyio
    async def test_model(self, make: Make, steps: list[tuple[str, int, int, int]]) -> None:
        """Any sequence of requests does what it does to a bytearray."""
        await self.check_model(make, steps)

    async def check_model(self, make: Make, steps: list[tuple[str, int, int, int]]) -> None:
        """Do ``steps`` to the backstore and to a bytearray, and compare after each."""
        async with self.writable(make) as (backstore, block):
            capabilities = backstore.capabilities()
            model = bytearray(await read(backstore, 0, 256 * block))
            for operation, first, count, seed in steps:
                start, length = first * block, min(count, 256 - first) * block
                data = pattern(length, seed)
                place = slice(start, start + length)
                if operation == "write" or (operation == "fua" and capabilities.fua is Support.NATIVE):
                    await backstore.writev([data], start, operation == "fua")
                    model[place] = self.kept(data)
                elif operation == "write_nowait":
                    if not backstore.write_nowait([data], start):
                        await backstore.writev([data], start)
                    model[place] = self.kept(data)
                elif operation == "flush":
                    await backstore.flush()
                elif operation == "unmap" and capabilities.unmap is Support.NATIVE:
                    await backstore.unmap(start, length)
                    model[place] = bytes(length) if capabilities.unmap_zeroes else await read(backstore, start, length)
                elif operation in ("zero", "zero_unmap") and capabilities.write_zeroes is Support.NATIVE:
                    await backstore.write_zeroes(start, length, may_unmap=operation == "zero_unmap")
                    model[place] = bytes(length)
                elif operation == "read_nowait":
                    buffer = bytearray(length)
                    assert not backstore.read_nowait([memoryview(buffer)], start) or buffer == model[place]
                elif operation == "extents":
                    for run in await backstore.extents(start, length):
                        if not run.mapped and capabilities.unmap_zeroes:
                            assert not any(model[run.offset : run.offset + run.length])
                assert await read(backstore, start, length) == model[place]
            assert await read(backstore, 0, 256 * block) == model
