"""The contract of :class:`tcm.filter.BackstoreFilter` as tests.

::

    class TestMyFilter(FilterContract):
        @pytest.fixture
        def make(self):
            return lambda inner: MyFilter(inner, MyOptions())
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest

from tcm.adapters import adapt
from tcm.backstore import Backstore, BackstoreError, Support
from tcm.filter import BackstoreFilter, unaccounted
from tcm.testing.backstore import pattern, read
from tcm.testing.model import ModelBackstore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Make = Callable[[Backstore], Backstore]

BLOCK = 512


class FilterContract:
    """Subclass it, name the class ``Test...`` and give it the fixture ``make``.

    ``make`` returns a function that puts the filter around a given backstore. Choose options with which the filter neither
    fails requests nor takes long: what it does on purpose is for your own tests.
    """

    changes_data: ClassVar[bool] = False
    """The medium holds other bytes than were written (encryption, an offset): only reading back is compared."""
    read_only: ClassVar[bool] = False
    """The filter refuses everything that would change the medium."""

    @asynccontextmanager
    async def opened(self, make: Make, inner: ModelBackstore) -> AsyncIterator[Backstore]:
        """The filter around ``inner``, open."""
        backstore = adapt(make(inner))
        try:
            await backstore.open()
            yield backstore
        finally:
            await backstore.aclose()

    def test_every_method_is_accounted_for(self, make: Make) -> None:
        """Each method is overridden, or named in ``passed_through``."""
        made = make(ModelBackstore())
        assert isinstance(made, BackstoreFilter)
        missing = unaccounted(type(made))
        assert not missing, f"override {', '.join(missing)}, or name them in {type(made).__name__}.passed_through"
        overridden = set(vars(type(made))) & made.passed_through
        assert not overridden, f"{', '.join(sorted(overridden))}: both overridden and named in passed_through"

    @pytest.mark.anyio
    async def test_opens_and_closes_once(self, make: Make) -> None:
        """``open`` and ``aclose`` reach the inner backstore once each."""
        inner = ModelBackstore()
        async with self.opened(make, inner) as backstore:
            assert inner.calls.count(("open",)) == 1
            assert backstore.size() > 0
        assert inner.calls.count(("open",)) == inner.calls.count(("aclose",)) == 1
        assert inner.calls[-1] == ("aclose",)

    @pytest.mark.anyio
    async def test_closes_without_open(self, make: Make) -> None:
        """``aclose`` is called when ``open`` has failed, too."""
        await adapt(make(ModelBackstore())).aclose()

    @pytest.mark.anyio
    async def test_data_passes(self, make: Make) -> None:
        """What is written reads back, by either way of reading; on the medium it is the same unless ``changes_data``."""
        inner = ModelBackstore()
        async with self.opened(make, inner) as backstore:
            data = pattern(8 * BLOCK, 1)
            if self.read_only:
                inner.data[4 * BLOCK : 12 * BLOCK] = data
            else:
                await backstore.writev([data[:100], memoryview(data)[100:]], 4 * BLOCK)
            assert await read(backstore, 4 * BLOCK, 8 * BLOCK) == data
            parts = [bytearray(700), bytearray(8 * BLOCK - 700)]
            await backstore.readv([memoryview(part) for part in parts], 4 * BLOCK)
            assert b"".join(parts) == data
            again = bytearray(8 * BLOCK)
            assert not backstore.read_nowait([memoryview(again)], 4 * BLOCK) or again == data
            if not self.changes_data:
                assert inner.data[4 * BLOCK : 12 * BLOCK] == data

    @pytest.mark.anyio
    async def test_nowait_writes_pass_or_wait(self, make: Make) -> None:
        """After True the data is there; after False nothing was written."""
        inner = ModelBackstore()
        async with self.opened(make, inner) as backstore:
            before = bytes(inner.data)
            if backstore.write_nowait([pattern(BLOCK, 2)], BLOCK):
                assert not self.read_only
                assert await read(backstore, BLOCK, BLOCK) == pattern(BLOCK, 2)
            else:
                assert inner.data == before

    @pytest.mark.anyio
    async def test_nowait_never_promises_more(self, make: Make) -> None:
        """If the inner backstore would block, so does the filter."""
        inner = ModelBackstore(nowait=False)
        async with self.opened(make, inner) as backstore:
            assert not backstore.capabilities().nowait
            assert not backstore.read_nowait([memoryview(bytearray(BLOCK))], 0)
            assert not backstore.write_nowait([bytes(BLOCK)], 0)

    @pytest.mark.anyio
    async def test_zeroes_and_unmap_pass(self, make: Make) -> None:
        """The ranges read as zeroes afterwards, and their neighbours keep their data."""
        if self.read_only:
            pytest.skip("refuses writes")
        async with self.opened(make, ModelBackstore()) as backstore:
            data = pattern(16 * BLOCK, 3)
            await backstore.writev([data], 0)
            await backstore.write_zeroes(2 * BLOCK, 3 * BLOCK, may_unmap=False)
            await backstore.write_zeroes(6 * BLOCK, BLOCK, may_unmap=True)
            await backstore.unmap(9 * BLOCK, 2 * BLOCK)
            found = await read(backstore, 0, 16 * BLOCK)
            zero = {2, 3, 4, 6, 9, 10} if backstore.capabilities().unmap_zeroes else {2, 3, 4, 6}
            for number in range(16):
                place = slice(number * BLOCK, (number + 1) * BLOCK)
                if number in zero:
                    assert not any(found[place])
                elif number not in (9, 10):
                    assert found[place] == data[place]

    @pytest.mark.anyio
    async def test_durability_passes(self, make: Make) -> None:
        """FUA and flush are not lost on the way."""
        if self.read_only:
            pytest.skip("refuses writes")
        inner = ModelBackstore()
        async with self.opened(make, inner) as backstore:
            await backstore.writev([bytes(BLOCK)], 0, True)
            assert any(call[0] == "writev" and call[3] for call in inner.calls) or ("flush",) in inner.calls
            inner.calls.clear()
            await backstore.write_zeroes(0, BLOCK, may_unmap=False, fua=True)
            durable = any(call[0] in ("writev", "write_zeroes") and call[-1] for call in inner.calls)
            assert durable or ("flush",) in inner.calls
            inner.calls.clear()
            await backstore.flush()
            assert ("flush",) in inner.calls

    @pytest.mark.anyio
    async def test_protection_passes(self, make: Make) -> None:
        """What is kept beside the data reads back, label included, durable when it has to be; or the filter says NONE."""
        inner = ModelBackstore()
        async with self.opened(make, inner) as backstore:
            if backstore.capabilities().protection is not Support.NATIVE:
                pytest.skip("says that there is no protection information")
            tuples = pattern(4 * 8, 4)
            if self.read_only:
                with pytest.raises((BackstoreError, OSError)):
                    await backstore.set_protection(64, b"label")
                with pytest.raises((BackstoreError, OSError)):
                    await backstore.write_protection(tuples, 0)
                assert inner.calls == [("open",)]
                inner.protection, inner.label = bytearray(8) + tuples + bytes(24), b"label"
            else:
                await backstore.set_protection(64, b"label")
                await backstore.write_protection(tuples, 8, True)
                assert inner.calls[-1] == ("write_protection", 8, 32, True) or ("flush",) in inner.calls
            found = bytearray(32)
            await backstore.read_protection(memoryview(found), 8)
            assert (bytes(found), backstore.protection_label()) == (tuples, b"label")

    @pytest.mark.anyio
    async def test_extents_cover(self, make: Make) -> None:
        """Runs begin at the offset and leave no gap."""
        async with self.opened(make, ModelBackstore()) as backstore:
            position = 2 * BLOCK
            for run in await backstore.extents(2 * BLOCK, 8 * BLOCK):
                assert run.offset == position
                assert run.length > 0
                position += run.length
            assert 2 * BLOCK < position <= 10 * BLOCK

    @pytest.mark.anyio
    async def test_read_only_refuses(self, make: Make) -> None:
        """Nothing that would change the medium reaches it."""
        if not self.read_only:
            pytest.skip("lets writes pass")
        inner = ModelBackstore()
        async with self.opened(make, inner) as backstore:
            assert backstore.capabilities().read_only
            inner.calls.clear()
            with pytest.raises((BackstoreError, OSError)):
                await backstore.writev([bytes(BLOCK)], 0)
            with pytest.raises((BackstoreError, OSError)):
                await backstore.unmap(0, BLOCK)
            with pytest.raises((BackstoreError, OSError)):
                await backstore.write_zeroes(0, BLOCK, may_unmap=False)
            assert not backstore.write_nowait([bytes(BLOCK)], 0)
            assert inner.calls == []

    @pytest.mark.anyio
    async def test_failures_pass(self, make: Make) -> None:
        """The inner backstore's errors reach the core, and nothing claims success."""
        inner = ModelBackstore(fails=OSError(5, "broken"))
        async with self.opened(make, inner) as backstore:
            with pytest.raises(OSError, match="broken"):
                await read(backstore, 0, BLOCK)
            assert not backstore.read_nowait([memoryview(bytearray(BLOCK))], 0)
            with pytest.raises(OSError, match="broken"):
                await backstore.flush()
            if not self.read_only:
                with pytest.raises(OSError, match="broken"):
                    await backstore.writev([bytes(BLOCK)], 0)
                assert not backstore.write_nowait([bytes(BLOCK)], 0)
