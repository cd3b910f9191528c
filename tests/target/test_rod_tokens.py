"""The ROD tokens of a process: how they are made, found and ended (SPC-5, RODs and ROD tokens)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from support.memory import GatedMemory
from support.scsi import make_lu
from tcm_backstores.fileio import FileBackstore

from tcm.filter import NOT_FORWARDED, BackstoreFilter, unaccounted
from tcm.scsi.rod_token_commands import Range
from tcm.scsi.rod_token_sense import (
    InsufficientResourcesToCreateRodToken,
    InvalidTokenOperation,
    TokenCancelled,
    TokenCorrupt,
    TokenDeleted,
    TokenExpired,
    TokenRevoked,
    TokenUnknown,
)
from tcm.scsi.rod_tokens import RodType, TokenFields, identifier_of
from tcm.target import rod_tokens
from tcm.target.logical_unit import LogicalUnit
from tcm.target.rod_tokens import LIFETIME, MAXIMUM_ENDED, MAXIMUM_TOKENS, RodTokens
from tcm.target.rods import Rod
from tcm.target.watched_backstore import WatchedBackstore

pytestmark = pytest.mark.anyio

FIELDS = TokenFields(
    rod_type=RodType.POINT_IN_TIME_CHANGE_VULNERABLE,
    identifier=0,
    creator=bytes(32),
    represented=0,
    device_data=b"",
    target=b"",
)


class Clock:
    """Time that only the test lets pass, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> RodTokens:
    return RodTokens(clock)


@pytest.fixture
async def unit(tokens: RodTokens) -> AsyncIterator[LogicalUnit]:
    async with make_lu() as unit:
        unit.rod_tokens = tokens
        yield unit


def make(unit: LogicalUnit, *ranges: tuple[int, int], timeout: int = 0) -> Rod:
    return unit.rod_tokens.create(unit, [Range(*each) for each in ranges or ((0, 8),)], FIELDS, timeout)


def ended(tokens: RodTokens, rod: Rod) -> type[InvalidTokenOperation]:
    with pytest.raises(InvalidTokenOperation) as caught:
        tokens.find(rod.token)
    assert rod.ended is type(caught.value)
    return rod.ended


async def test_a_token_is_found_again(unit, tokens):
    rod = make(unit, (8, 4), (0, 2))
    assert tokens.find(rod.token) is rod
    assert rod.length == 6 * 512
    assert tokens.management_tokens(unit) == [rod.token[:96]]
    rod.check()


async def test_tokens_differ(unit):
    one, other = make(unit), make(unit)
    assert identifier_of(one.token) != identifier_of(other.token)
    assert one.token[256:] != other.token[256:]


async def test_every_changed_bit_is_noticed(unit, tokens):
    rod = make(unit)
    for byte in range(512):
        forged = bytearray(rod.token)
        forged[byte] ^= 1 << byte % 8
        with pytest.raises(TokenUnknown if 8 <= byte < 16 else TokenCorrupt):
            tokens.find(bytes(forged))
    assert tokens.find(rod.token) is rod


async def test_a_token_of_another_process_is_unknown(unit, tokens, clock):
    before = RodTokens(clock)
    unit.rod_tokens = before
    rod = make(unit)
    before.discard(rod)
    with pytest.raises(TokenUnknown):
        tokens.find(rod.token)


async def test_inactivity(unit, tokens, clock):
    short, usual = make(unit, timeout=5), make(unit)
    clock.now += 4.9
    assert tokens.find(short.token) is short
    clock.now += 0.1
    assert ended(tokens, short) is TokenExpired
    assert tokens.find(usual.token) is usual
    clock.now += 55
    assert ended(tokens, usual) is TokenExpired
    assert tokens.management_tokens(unit) == []


async def test_use_postpones_the_end(unit, tokens, clock):
    rod = make(unit, timeout=5)
    for _ in range(3):
        with tokens.using(rod):
            clock.now += 60
            assert tokens.find(rod.token) is rod
        clock.now += 4
    clock.now += 1
    assert ended(tokens, rod) is TokenExpired


async def test_lifetime(unit, tokens, clock):
    rod = make(unit, timeout=600)
    for _ in range(LIFETIME // 300 - 1):
        clock.now += 300
        with tokens.using(rod):
            pass
    clock.now += 299
    assert tokens.find(rod.token) is rod
    clock.now += 1
    assert ended(tokens, rod) is TokenExpired


@pytest.mark.parametrize(
    "lba, blocks, hit",
    [(0, 8, False), (0, 9, True), (8, 1, True), (15, 1, True), (16, 16, False), (16, 17, True), (10, 100, True),
     (33, 1, True), (34, 100, False), (0, 4096, True)],
)  # fmt: skip
async def test_overlap(unit, lba, blocks, hit):
    rod = make(unit, (32, 2), (8, 8))
    assert rod.overlaps(lba, lba + blocks) is hit


@pytest.mark.parametrize("how", ["write", "uncommitted", "zeroes", "unmap"])
async def test_a_change_cancels(unit, tokens, how):
    rod, elsewhere = make(unit, (8, 8)), make(unit, (64, 8))

    async def change(lba: int) -> None:
        medium = unit.medium
        if how == "write":
            await medium.write([b"x" * 512], lba)
        elif how == "uncommitted":
            await medium.write_uncommitted([b"x" * 512], lba)
        elif how == "zeroes":
            await medium.write_zeroes(lba, 1, may_unmap=False)
        else:
            await medium.unmap(lba, 1)

    await change(7)
    await change(16)
    rod.check()
    await change(15)
    assert ended(tokens, rod) is TokenCancelled
    elsewhere.check()
    await change(64)
    assert ended(tokens, elsewhere) is TokenCancelled


async def test_a_blocking_write_cancels_when_it_begins(tokens):
    memory = GatedMemory()
    async with make_lu(memory) as unit, anyio.create_task_group() as tasks:
        unit.rod_tokens = tokens
        memory.shut()
        rod = make(unit)
        tasks.start_soon(unit.medium.write, [b"x" * 512], 0)
        await memory.until_waiting(1)
        assert ended(tokens, rod) is TokenCancelled
        memory.release()


async def test_deleted_revoked_cancelled(unit, tokens):
    rod = make(unit)
    tokens.delete(rod)
    tokens.delete(rod)
    assert ended(tokens, rod) is TokenDeleted
    one, other = make(unit), make(unit)
    tokens.cancel(unit)
    assert ended(tokens, one) is ended(tokens, other) is TokenCancelled
    rod = make(unit)
    tokens.revoke(unit)
    assert ended(tokens, rod) is TokenRevoked


async def test_a_unit_that_closes(tokens):
    async with make_lu() as unit:
        unit.rod_tokens = tokens
        rod = make(unit)
    assert ended(tokens, rod) is TokenRevoked


async def test_a_medium_that_is_ejected(tokens):
    async with make_lu(removable=True) as unit:
        unit.rod_tokens = tokens
        rod = make(unit)
        unit.set_started(False)
        rod.check()
        unit.set_medium_loaded(False)
        assert ended(tokens, rod) is TokenCancelled


async def test_a_resize(unit, tokens, monkeypatch):
    rod = make(unit)
    unit.check_size()
    rod.check()
    monkeypatch.setattr(unit.backstore, "size", lambda: 1 << 20)
    unit.check_size()
    assert ended(tokens, rod) is TokenCancelled


async def test_as_many_as_there_may_be(unit, tokens, clock, monkeypatch):
    monkeypatch.setattr(rod_tokens, "MAXIMUM_TOKENS", 32)
    rods = [make(unit, timeout=9) for _ in range(32)]
    with pytest.raises(InsufficientResourcesToCreateRodToken):
        make(unit)
    assert tokens.find(rods[0].token) is rods[0]
    clock.now += 9
    make(unit)
    assert ended(tokens, rods[-1]) is TokenExpired


async def test_as_many_ranges_as_there_may_be(unit, tokens, monkeypatch):
    monkeypatch.setattr(rod_tokens, "MAXIMUM_UNIT_RANGES", 4)
    rod = make(unit, (0, 1), (2, 1), (4, 1))
    with pytest.raises(InsufficientResourcesToCreateRodToken):
        make(unit, (6, 1), (8, 1))
    make(unit, (6, 1))
    tokens.delete(rod)
    make(unit, (0, 1), (2, 1), (4, 1))


async def test_what_became_of_a_token_is_forgotten_in_the_end(unit, tokens, monkeypatch):
    monkeypatch.setattr(rod_tokens, "MAXIMUM_ENDED", 4)
    first = make(unit)
    tokens.delete(first)
    for _ in range(4):
        tokens.delete(make(unit))
    with pytest.raises(TokenUnknown):
        tokens.find(first.token)
    assert MAXIMUM_ENDED > MAXIMUM_TOKENS


def test_every_way_to_change_a_medium_is_watched():
    assert unaccounted(WatchedBackstore) == []
    assert {name for name in NOT_FORWARDED if getattr(WatchedBackstore, name) is getattr(BackstoreFilter, name)} == set()


async def test_files_copy_among_themselves_while_they_are_watched(tokens, tmp_path):
    stores = [FileBackstore(str(tmp_path / name), 1 << 20) for name in "ab"]
    async with make_lu(stores[0]) as source, make_lu(stores[1], name="other") as other:
        source.rod_tokens = other.rod_tokens = tokens
        await source.medium.write([b"x" * 4096], 0)
        ours, theirs = make(source), make(other)
        assert await other.medium.copy_range(source.medium, 0, 0, 4096) == 4096
        ours.check()
        assert ended(tokens, theirs) is TokenCancelled


async def test_the_medium_is_watched_only_while_there_are_tokens(unit, tokens, clock):
    assert unit.medium.inline_writes
    one, other = make(unit), make(unit, timeout=5)
    assert not unit.medium.inline_writes
    tokens.delete(one)
    assert not unit.medium.inline_writes
    clock.now += 5
    await unit.medium.write([b"x" * 512], 100)  # the write that notices
    assert ended(tokens, other) is TokenExpired
    assert unit.medium.inline_writes
