"""What the filters do on purpose; that they do nothing else, tests/backstores/test_contracts.py shows."""

from __future__ import annotations

import errno
import logging

import anyio
import anyio.lowlevel
import pytest
from tcm_backstores.filters import delay, error, rate
from tcm_backstores.filters.delay import DelayFilter, DelayOptions
from tcm_backstores.filters.error import ErrorFilter, ErrorOptions
from tcm_backstores.filters.log import LogFilter, LogOptions
from tcm_backstores.filters.rate import RateFilter, RateOptions
from tcm_backstores.filters.readonly import ReadonlyFilter
from tcm_backstores.plugin import tcm_backstores, tcm_filters

from tcm.backstore import BackstoreError, BackstoreErrorKind
from tcm.failure import ConfigError
from tcm.options import options_of
from tcm.testing import ModelBackstore

pytestmark = pytest.mark.anyio


def block(length: int = 512):
    return [memoryview(bytearray(length))]


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()


class TestReadonly:
    async def test_says_which_kind(self):
        filtered = ReadonlyFilter(ModelBackstore())
        with pytest.raises(BackstoreError) as caught:
            await filtered.writev([bytes(512)], 1024)
        assert caught.value.kind is BackstoreErrorKind.READ_ONLY
        assert filtered.capabilities().read_only


class TestDelay:
    def make(self, **options):
        clock, model = Clock(), ModelBackstore()
        return DelayFilter(model, DelayOptions(**options), clock.sleep), clock, model

    async def test_reads_and_writes_have_their_own(self):
        filtered, clock, _ = self.make(read=2.0, write=30.0)
        await filtered.readv(block(), 0)
        await filtered.writev([bytes(512)], 0)
        await filtered.unmap(0, 512)
        await filtered.write_zeroes(0, 512, may_unmap=True)
        await filtered.flush()
        await filtered.extents(0, 512)
        assert clock.slept == [0.002, 0.03, 0.03, 0.03]

    async def test_all_adds(self):
        filtered, clock, _ = self.make(read=2.0, all=5.0)
        await filtered.readv(block(), 0)
        await filtered.writev([bytes(512)], 0)
        await filtered.flush()
        assert clock.slept == [0.007, 0.005, 0.005]

    async def test_jitter_is_bounded_and_repeatable(self):
        def sleeps():
            return self.make(read=10.0, jitter=4.0, seed=7)

        slept = []
        for filtered, clock, _ in (sleeps(), sleeps()):
            for _ in range(50):
                await filtered.readv(block(), 0)
            slept.append(clock.slept)
        assert slept[0] == slept[1]
        assert len(set(slept[0])) > 40
        assert all(0.010 <= seconds <= 0.014 for seconds in slept[0])

    async def test_nowait_only_where_nothing_is_delayed(self):
        filtered, _, model = self.make(write=1.0)
        assert filtered.read_nowait(block(), 0)
        assert not filtered.write_nowait([bytes(512)], 0)
        assert filtered.capabilities().nowait
        assert [call[0] for call in model.calls] == ["read_nowait"]
        assert not self.make(all=1.0)[0].capabilities().nowait

    @pytest.mark.parametrize("options", [{}, {"jitter": 5.0}, {"read": -1.0}, {"read": 1.0, "jitter": -1.0}])
    async def test_bad_options(self, options):
        with pytest.raises(ConfigError, match="write "):
            delay.check_config(DelayOptions(**options))


class TestError:
    def make(self, **options):
        error.check_config(ErrorOptions(**options))
        model = ModelBackstore()
        return ErrorFilter(model, ErrorOptions(**options)), model

    async def outcomes(self, filtered, requests):
        """Whether each request failed."""
        failed = []
        for request in requests:
            try:
                await request()
                failed.append(False)
            except (OSError, BackstoreError):
                failed.append(True)
        return failed

    async def test_errno(self):
        filtered, model = self.make(error="enospc", operation=("write",))
        with pytest.raises(OSError, match="injected") as caught:
            await filtered.writev([b"x" * 512], 0)
        assert caught.value.errno == errno.ENOSPC
        assert model.calls == []
        await filtered.readv(block(), 0)

    async def test_kind_with_offset_of_the_first_bad_byte(self):
        filtered, _ = self.make(error="medium-read", lba=10, blocks=2)
        with pytest.raises(BackstoreError) as caught:
            await filtered.readv(block(16 * 512), 0)
        assert caught.value.kind is BackstoreErrorKind.MEDIUM_READ
        assert caught.value.offset == 10 * 512

    async def test_range(self):
        filtered, _ = self.make(offset=4096, length=1024)
        failed = await self.outcomes(
            filtered, [lambda offset=offset: filtered.readv(block(), offset) for offset in (3584, 4096, 4608, 5120)]
        )
        assert failed == [False, True, True, False]

    async def test_lba_range_in_larger_blocks(self):
        filtered, _ = self.make(lba=1, blocks=1, block_size=4096)
        failed = await self.outcomes(
            filtered, [lambda offset=offset: filtered.readv(block(4096), offset) for offset in (0, 4096, 8192)]
        )
        assert failed == [False, True, False]

    async def test_each_operation_alone(self):
        for name in ("read", "write", "flush", "unmap", "write_zeroes", "extents"):
            filtered, _ = self.make(operation=(name,))
            requests = {
                "read": lambda f=filtered: f.readv(block(), 0),
                "write": lambda f=filtered: f.writev([bytes(512)], 0),
                "flush": filtered.flush,
                "unmap": lambda f=filtered: f.unmap(0, 512),
                "write_zeroes": lambda f=filtered: f.write_zeroes(0, 512, may_unmap=False),
                "extents": lambda f=filtered: f.extents(0, 512),
            }
            failed = await self.outcomes(filtered, requests.values())
            assert dict(zip(requests, failed, strict=True)) == {other: other == name for other in requests}

    async def test_one_shot_after_some(self):
        filtered, _ = self.make(after=2, count=1)
        assert await self.outcomes(filtered, [lambda: filtered.readv(block(), 0)] * 5) == [False, False, True, False, False]

    async def test_rate_is_repeatable_and_about_right(self):
        runs = []
        for _ in range(2):
            filtered, _ = self.make(rate=0.2, seed=3)
            runs.append(await self.outcomes(filtered, [lambda f=filtered: f.readv(block(), 0)] * 500))
        assert runs[0] == runs[1]
        assert 60 < sum(runs[0]) < 140

    async def test_nowait_throws_no_dice(self):
        filtered, model = self.make(count=1, operation=("read",))
        assert not filtered.read_nowait(block(), 0)
        assert filtered.write_nowait([bytes(512)], 0)
        with pytest.raises(OSError, match="injected"):
            await filtered.readv(block(), 0)
        assert filtered.read_nowait(block(), 0)  # used up: at full speed again
        assert [call[0] for call in model.calls] == ["write_nowait", "read_nowait"]

    async def test_flush_has_no_range(self):
        filtered, _ = self.make(lba=5)
        await filtered.flush()
        filtered, _ = self.make(lba=5, operation=("flush",))
        with pytest.raises(OSError, match="injected"):
            await filtered.flush()

    @pytest.mark.parametrize(
        "options",
        [
            {"error": "EWHAT"},
            {"error": "medium"},
            {"rate": 1.5},
            {"offset": 512, "lba": 1},
            {"length": 512, "blocks": 1},
            {"lba": -1},
            {"count": -1},
            {"block_size": 0},
        ],
    )
    async def test_bad_options(self, options):
        with pytest.raises(ConfigError, match="write "):
            error.check_config(ErrorOptions(**options))

    async def test_suggestion(self):
        with pytest.raises(ConfigError, match="ENOSPC"):
            error.check_config(ErrorOptions(error="ENOSPACE"))


class TestLog:
    def make(self, **options):
        ticks = iter(range(100))
        model = ModelBackstore()
        return LogFilter(model, LogOptions(**options), lambda: next(ticks) * 0.001), model

    async def test_a_line_for_each_request(self, caplog):
        caplog.set_level(logging.DEBUG, "tcm.filter.log")
        filtered, _ = self.make(label="disk0")
        await filtered.open()
        await filtered.readv(block(1024), 512)
        await filtered.writev([b"secret!!" * 64], 4096, True)
        await filtered.flush()
        await filtered.unmap(0, 512)
        await filtered.write_zeroes(0, 512, may_unmap=True)
        await filtered.extents(0, 512)
        filtered.read_nowait(block(), 0)
        filtered.write_nowait([bytes(512)], 0)
        await filtered.aclose()
        assert [record.getMessage() for record in caplog.records] == [
            "disk0 open 1000 us ok",
            "disk0 read offset=512 length=1024 1000 us ok",
            "disk0 write offset=4096 length=512 fua 1000 us ok",
            "disk0 flush 1000 us ok",
            "disk0 unmap offset=0 length=512 1000 us ok",
            "disk0 write_zeroes offset=0 length=512 may_unmap 1000 us ok",
            "disk0 extents offset=0 length=512 1000 us ok",
            "disk0 read offset=0 length=512 nowait 1000 us ok",
            "disk0 write offset=0 length=512 nowait 1000 us ok",
            "disk0 close 1000 us ok",
        ]
        assert {record.levelno for record in caplog.records} == {logging.INFO}
        assert "secret" not in caplog.text

    async def test_failures_and_level(self, caplog):
        caplog.set_level(logging.DEBUG, "tcm.filter.log")
        filtered, model = self.make(level="debug")
        model.fails = OSError(errno.EIO, "broken")
        with pytest.raises(OSError, match="broken"):
            await filtered.flush()
        assert not filtered.read_nowait(block(), 0)
        assert [record.getMessage() for record in caplog.records] == ["flush 1000 us failed: [Errno 5] broken"]
        assert caplog.records[0].levelno == logging.DEBUG

    async def test_cancelled(self, caplog):
        caplog.set_level(logging.DEBUG, "tcm.filter.log")
        inner = DelayFilter(ModelBackstore(), DelayOptions(all=10_000.0))
        with anyio.move_on_after(0.01):
            await LogFilter(inner, LogOptions()).flush()
        assert caplog.records[-1].getMessage().endswith("cancelled")


class TestRate:
    def make(self, **options):
        rate.check_config(RateOptions(**options))
        clock, model = Clock(), ModelBackstore()
        return RateFilter(model, RateOptions(**options), clock, clock.sleep), clock, model

    async def elapsed(self, clock, request, times):
        start = clock.now
        for _ in range(times):
            await request()
        return clock.now - start

    async def test_iops(self):
        filtered, clock, _ = self.make(iops=100.0, burst=0.0)
        assert await self.elapsed(clock, lambda: filtered.readv(block(), 0), 51) == pytest.approx(0.5)
        assert await self.elapsed(clock, lambda: filtered.writev([bytes(512)], 0), 50) == pytest.approx(0.5)

    async def test_burst_then_steady(self):
        filtered, clock, _ = self.make(iops=100.0, burst=0.2)
        assert await self.elapsed(clock, lambda: filtered.readv(block(), 0), 20) == 0
        assert await self.elapsed(clock, lambda: filtered.readv(block(), 0), 10) == pytest.approx(0.1)
        clock.now += 1000
        assert await self.elapsed(clock, lambda: filtered.readv(block(), 0), 20) == 0
        assert clock.slept[-1] > 0
        assert await self.elapsed(clock, lambda: filtered.readv(block(), 0), 1) == pytest.approx(0.01)

    async def test_bandwidth_with_requests_larger_than_the_bucket(self):
        filtered, clock, _ = self.make(bandwidth=1 << 20, burst=0.01)
        spent = await self.elapsed(clock, lambda: filtered.readv(block(1 << 17), 0), 17)
        assert spent == pytest.approx(16 / 8, rel=0.1)

    async def test_directions_have_their_own(self):
        filtered, clock, model = self.make(read_iops=10.0, burst=0.0)
        assert await self.elapsed(clock, lambda: filtered.writev([bytes(512)], 0), 100) == 0
        assert filtered.write_nowait([bytes(512)], 0)
        assert not filtered.read_nowait(block(), 0)
        assert await self.elapsed(clock, lambda: filtered.readv(block(), 0), 11) == pytest.approx(1.0)
        assert filtered.capabilities().nowait
        assert "read_nowait" not in [call[0] for call in model.calls]

    async def test_both_limits_hold(self):
        filtered, clock, _ = self.make(write_iops=1000.0, write_bandwidth=51200, burst=0.0)
        assert await self.elapsed(clock, lambda: filtered.writev([bytes(512)], 0), 101) == pytest.approx(1.0, rel=0.01)
        assert await self.elapsed(clock, lambda: filtered.unmap(0, 512), 100) == pytest.approx(0.1, rel=0.01)
        assert await self.elapsed(clock, filtered.flush, 100) == 0

    async def test_first_come_first_served(self):
        filtered, _, model = self.make(iops=10.0, burst=0.0)
        async with anyio.create_task_group() as group:
            for number in range(8):
                length = 64 * 512 if number == 3 else 512  # size buys no place in the queue
                group.start_soon(filtered.readv, block(length), number * 512)
                await anyio.wait_all_tasks_blocked()
        assert [call[1] for call in model.calls] == [number * 512 for number in range(8)]

    async def test_who_gives_up_takes_nothing(self):
        model = ModelBackstore()
        filtered = RateFilter(model, RateOptions(iops=20.0, burst=0.0))
        await filtered.readv(block(), 0)
        with anyio.move_on_after(0.005):
            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(filtered.readv, block(), 0)
        with anyio.fail_after(60):
            await filtered.readv(block(), 512)
        assert model.calls[-1] == ("readv", 512, 512)

    @pytest.mark.parametrize("options", [{}, {"iops": 0.0}, {"bandwidth": 0}, {"iops": 5.0, "burst": -1.0}])
    async def test_bad_options(self, options):
        with pytest.raises(ConfigError, match="write "):
            rate.check_config(RateOptions(**options))


async def test_every_option_has_help_and_every_type_a_description():
    for kind in (*tcm_backstores(), *tcm_filters()):
        assert kind.description
        for option in options_of(kind.options).values():
            assert option.help, f"{kind.name}: {option.name}"
