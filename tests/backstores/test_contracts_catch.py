"""The shipped contracts are worth something: each kind of mistake fails the test that is there for it."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import anyio
import pytest

from tcm.backstore import Extent
from tcm.filter import BackstoreFilter, methods
from tcm.testing import BackstoreContract, FilterContract, ModelBackstore

pytestmark = pytest.mark.anyio


class StopsShort(ModelBackstore):
    async def readv(self, buffers, offset):
        await super().readv(buffers[:1], offset)


class ForgetsTheSecondBuffer(ModelBackstore):
    async def writev(self, buffers, offset, fua=False):
        await super().writev(buffers[:1], offset)


class ScribblesOnTheCaller(ModelBackstore):
    async def writev(self, buffers, offset, fua=False):
        await super().writev(buffers, offset)
        if isinstance(buffers[0], bytearray):
            buffers[0][:] = bytes(len(buffers[0]))


class OffByOne(ModelBackstore):
    async def unmap(self, offset, length):
        await super().unmap(offset, length + 512)


class UnmapDoesNothing(ModelBackstore):
    async def unmap(self, offset, length):
        pass


class KeepsZeroesBack(ModelBackstore):
    async def write_zeroes(self, offset, length, *, may_unmap, fua=False):
        if may_unmap:
            await super().write_zeroes(offset, length, may_unmap=may_unmap)


class LeavesAGap(ModelBackstore):
    async def extents(self, offset, length):
        return [Extent(offset, 512, True), Extent(offset + 1024, 512, True)]


class CallsDataUnmapped(ModelBackstore):
    async def extents(self, offset, length):
        return [Extent(offset, length, False)]


class CopiesFromTheStart(ModelBackstore):
    async def copy_range(self, source, source_offset, offset, length):
        return await super().copy_range(source, 0, offset, length)


class SaysItHasCopied(ModelBackstore):
    async def copy_range(self, source, source_offset, offset, length):
        return length


class LiesAboutNowait(ModelBackstore):
    def read_nowait(self, buffers, offset):
        return True


class DropsNowaitWrites(ModelBackstore):
    def write_nowait(self, buffers, offset):
        return True


class SharesAPosition(ModelBackstore):
    async def writev(self, buffers, offset, fua=False):
        self.position = offset
        await anyio.sleep(0.001)
        await super().writev(buffers, self.position)


class FillsLate(ModelBackstore):
    async def readv(self, buffers, offset):
        try:
            await anyio.sleep(0.02)
        except BaseException:
            buffers[0][:1] = b"!"
            self.broken = True
            raise
        if getattr(self, "broken", False):
            buffers[0][:1] = b"!"
            return
        await super().readv(buffers, offset)


class OddGranularity(ModelBackstore):
    def capabilities(self):
        return replace(super().capabilities(), unmap_granularity=3000)


@pytest.mark.parametrize(
    ("backstore", "test"),
    [
        (StopsShort, "test_read_into_many_buffers"),
        (ForgetsTheSecondBuffer, "test_write_from_many_buffers"),
        (ScribblesOnTheCaller, "test_write_then_read"),
        (OffByOne, "test_unmap"),
        (UnmapDoesNothing, "test_unmap"),
        (LeavesAGap, "test_extents"),
        (CallsDataUnmapped, "test_extents"),
        (CopiesFromTheStart, "test_copy_range"),
        (SaysItHasCopied, "test_copy_range"),
        (LiesAboutNowait, "test_nowait_agrees"),
        (DropsNowaitWrites, "test_nowait_agrees"),
        (SharesAPosition, "test_parallel"),
        (FillsLate, "test_cancelled"),
        (OddGranularity, "test_capabilities_fit_the_methods"),
    ],
)
async def test_backstore_mistakes(backstore, test):
    made = backstore()
    await getattr(BackstoreContract(), test)(ModelBackstore)
    with pytest.raises((AssertionError, BaseExceptionGroup)) as caught:
        await getattr(BackstoreContract(), test)(lambda: made)
    assert isinstance(caught.value, AssertionError) or caught.group_contains(AssertionError)


async def test_zeroes_that_stay_away():
    with pytest.raises(AssertionError):
        await BackstoreContract().test_write_zeroes(KeepsZeroesBack, may_unmap=False)


async def test_data_that_does_not_persist():
    class Persistent(BackstoreContract):
        persistent = True

    with pytest.raises(AssertionError):
        await Persistent().test_reopen(ModelBackstore)


async def test_the_model_test_finds_rare_mistakes():
    class OnceInAWhile(ModelBackstore):
        async def writev(self, buffers, offset, fua=False):
            await super().writev(buffers, offset, fua)
            if offset >= 128 * 512 and sum(map(len, buffers)) > 16 * 512:
                self.data[offset] = 0

    check = BackstoreContract().check_model
    steps = [("write", 0, 64, 1), ("write", 130, 8, 1), ("write", 130, 17, 1)]
    await check(ModelBackstore, steps)
    await check(OnceInAWhile, steps[:2])
    with pytest.raises(AssertionError):
        await check(OnceInAWhile, steps)


class Passes(BackstoreFilter):
    passed_through = methods() - {"open", "aclose"}


class ForgetsToFlush(Passes):
    async def flush(self):
        pass


class ForgetsFua(Passes):
    async def writev(self, buffers, offset, fua=False):
        await self.inner.writev(buffers, offset)


class WritesAround(Passes):
    async def writev(self, buffers, offset, fua=False):
        await self.inner.writev([bytes(byte ^ 1 for byte in buffer) for buffer in buffers], offset, fua)

    async def readv(self, buffers, offset):
        await self.inner.readv(buffers, offset)
        for buffer in buffers:
            buffer[:] = bytes(byte ^ 1 for byte in buffer)


class SwallowsErrors(Passes):
    async def flush(self):
        with contextlib.suppress(OSError):
            await self.inner.flush()


class ClosesTwice(Passes):
    async def aclose(self):
        await self.inner.aclose()
        await self.inner.aclose()


class Eager(Passes):
    def read_nowait(self, buffers, offset):
        return True


class ChangesTheWayOut(Passes):
    async def readv(self, buffers, offset):
        await self.inner.readv(buffers, offset + 512)


@pytest.mark.parametrize(
    ("filter_class", "test"),
    [
        (ForgetsToFlush, "test_durability_passes"),
        (ForgetsFua, "test_durability_passes"),
        (SwallowsErrors, "test_failures_pass"),
        (ClosesTwice, "test_opens_and_closes_once"),
        (Eager, "test_nowait_never_promises_more"),
        (ChangesTheWayOut, "test_data_passes"),
        (WritesAround, "test_data_passes"),
    ],
)
async def test_filter_mistakes(filter_class, test):
    await getattr(FilterContract(), test)(Passes)
    with pytest.raises(AssertionError if filter_class is not SwallowsErrors else pytest.fail.Exception):
        await getattr(FilterContract(), test)(filter_class)


async def test_filter_that_does_not_account_for_a_method():
    class Forgetful(BackstoreFilter):
        passed_through = Passes.passed_through - {"write_zeroes"}

    class Both(BackstoreFilter):
        passed_through = Passes.passed_through

        async def flush(self):
            await self.inner.flush()

    with pytest.raises(AssertionError, match=r"override write_zeroes, or name them in Forgetful\.passed_through"):
        FilterContract().test_every_method_is_accounted_for(Forgetful)
    with pytest.raises(AssertionError, match="flush: both"):
        FilterContract().test_every_method_is_accounted_for(Both)


async def test_claiming_to_change_data_forgives_only_that():
    class Changing(FilterContract):
        changes_data = True

    with pytest.raises(AssertionError):
        # It scrambles nothing on the express way in, so what it reads by readv is not what was written.
        await Changing().test_nowait_writes_pass_or_wait(WritesAround)
