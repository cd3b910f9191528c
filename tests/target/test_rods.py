"""Which tokens a change concerns, and what tokens promise after any history of changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scsi import pattern
from support.tokens import Bench, bench, populate_data, write_data
from tcm_backstores.ramdisk import RamdiskBackstore

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInParameterList
from tcm.scsi.rod_token_commands import Range
from tcm.scsi.rod_token_sense import TokenCancelled
from tcm.scsi.rod_tokens import zero_token
from tcm.scsi.sense import SenseKey, Status
from tcm.target.rods import Rod, WatchedRods

BLOCKS = 64
UNIT: Any = SimpleNamespace(block_shift=9)


def apart(ranges: list[tuple[int, int]]) -> bool:
    """Whether no two of them have a block in common."""
    blocks = [lba + each for lba, count in ranges for each in range(count)]
    return len(blocks) == len(set(blocks))


def some_ranges() -> st.SearchStrategy[list[tuple[int, int]]]:
    one = st.tuples(st.integers(0, BLOCKS - 9), st.integers(1, 8))
    return st.lists(one, min_size=1, max_size=3).filter(apart)


def rod(number: int, ranges: list[tuple[int, int]]) -> Rod:
    token = bytes(8) + number.to_bytes(8) + bytes(496)
    return Rod(UNIT, [Range(*each) for each in ranges], token, timeout=1, until=1)


@settings(deadline=None)
@given(st.lists(some_ranges(), max_size=12), st.data())
def test_touched_against_a_model(tokens: list[list[tuple[int, int]]], data: st.DataObject) -> None:
    watched = WatchedRods()
    rods = [rod(number, ranges) for number, ranges in enumerate(tokens)]
    for each in rods:
        watched.add(each)
    for each in data.draw(st.permutations(rods)):
        first = data.draw(st.integers(0, BLOCKS))
        end = first + data.draw(st.integers(1, 20))
        wanted = [other.identifier for other in rods if other.overlaps(first, end)]
        assert sorted(other.identifier for other in watched.touched(first, end)) == wanted
        watched.remove(each)
        rods.remove(each)
    assert not watched
    assert not watched.ranges
    assert watched.touched(0, BLOCKS) == []


@settings(deadline=None)
@given(some_ranges(), st.integers(0, 40 * 512), st.integers(0, 40 * 512))
def test_pieces_against_a_model(ranges: list[tuple[int, int]], offset: int, length: int) -> None:
    medium = pattern(BLOCKS * 512)
    data = b"".join(medium[lba * 512 : (lba + count) * 512] for lba, count in ranges)
    pieces = rod(1, ranges).pieces(offset, length)
    assert b"".join(medium[at : at + size] for at, size in pieces) == data[offset : offset + length]


LISTS = st.one_of(
    st.builds(populate_data, st.tuples(st.integers(0, 80), st.integers(0, 80)), flags=st.integers(0, 3)),
    st.builds(write_data, st.just(zero_token()), st.tuples(st.integers(0, 80), st.integers(0, 80)), flags=st.integers(0, 3)),
)


SENT = st.tuples(st.booleans(), LISTS, st.integers(0, 600), st.binary(max_size=6), st.integers(0, 600))
"""POPULATE TOKEN or WRITE USING TOKEN; a list, where it is overwritten and by what, and how much of it is missing."""


@settings(max_examples=40, deadline=None)
@given(lists=st.lists(SENT, max_size=8))
def test_lists_of_any_bytes(lists: list[tuple[bool, bytes, int, bytes, int]]) -> None:
    """Whatever is sent is carried out or refused; nothing else happens."""

    async def run() -> None:
        async with bench(RamdiskBackstore(BLOCKS * 512), RamdiskBackstore(BLOCKS * 512)) as units:
            for populate, sent, at, other, cut in lists:
                data = (sent[:at] + other + sent[at + len(other) :])[: len(sent) - cut % 40 if cut > 300 else None]
                send = units.source.send_populate if populate else units.source.send_write
                sense = (await send(data, expect=None)).sense
                assert sense is None or sense.key in {SenseKey.ILLEGAL_REQUEST, SenseKey.COPY_ABORTED}
                await units.source.execute(cdb.receive_rod_token_information(1 + populate), read_length=4096, expect=None)

    anyio.run(run)


class Model:
    """What the two units hold, and what every token stands for while it is good."""

    def __init__(self) -> None:
        self.units = [bytearray(BLOCKS * 512), bytearray(BLOCKS * 512)]
        self.tokens: list[tuple[bytes, int, list[tuple[int, int]], bytes]] = []
        """Token, unit, ranges, data."""
        self.cancelled: set[bytes] = set()

    def data(self, unit: int, ranges: list[tuple[int, int]]) -> bytes:
        return b"".join(self.units[unit][lba * 512 : (lba + count) * 512] for lba, count in ranges)

    def change(self, unit: int, lba: int, data: bytes) -> None:
        self.units[unit][lba * 512 : lba * 512 + len(data)] = data
        end = lba + len(data) // 512
        for token, of, ranges, _ in self.tokens:
            if of == unit and any(first < end and lba < first + count for first, count in ranges):
                self.cancelled.add(token)


UNITS = st.integers(0, 1)
STEPS = st.one_of(
    st.tuples(st.just("write"), UNITS, st.integers(0, BLOCKS - 4), st.integers(1, 4)),
    st.tuples(st.just("unmap"), UNITS, st.integers(0, BLOCKS - 8), st.integers(1, 8)),
    st.tuples(st.just("populate"), UNITS, some_ranges()),
    st.tuples(st.just("copy"), UNITS, some_ranges(), st.integers(0, 20)),
)


async def take(step: tuple[Any, ...], number: int, model: Model, units: Bench) -> None:
    kind, unit, *rest = step
    client = units[unit]
    if kind == "write":
        lba, count = rest
        await client.write(10, lba, pattern(count * 512, number))
        model.change(unit, lba, pattern(count * 512, number))
    elif kind == "unmap":
        lba, count = rest
        await client.unmap((lba, count))
        model.change(unit, lba, bytes(count * 512))
    elif kind == "populate":
        (ranges,) = rest
        model.tokens.append((await client.populate(*ranges), unit, ranges, model.data(unit, ranges)))
    elif model.tokens:
        ranges, chosen = rest
        token, of, represented, data = model.tokens[chosen % len(model.tokens)]
        blocks = [lba + each for lba, count in represented for each in range(count)]
        onto_itself = of == unit and any(lba <= each < lba + count for each in blocks for lba, count in ranges)
        wanted = min(len(data), sum(count for _, count in ranges) * 512)
        expect: Any = Status.GOOD if wanted == sum(count for _, count in ranges) * 512 else Status.CHECK_CONDITION
        if token in model.cancelled:
            expect = TokenCancelled
        elif onto_itself:
            expect = InvalidFieldInParameterList
        await client.write_token(token, *ranges, expect=expect)
        if isinstance(expect, Status):
            for lba, count in ranges:
                piece, data = data[: count * 512], data[count * 512 :]
                if piece:
                    model.change(unit, lba, piece)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
def test_tokens_against_a_model(backend: str, steps: list[tuple[Any, ...]]) -> None:
    """A token gives the data that was there when it was made, or is refused; and it is refused only after a change of it."""

    async def run() -> None:
        async with bench(RamdiskBackstore(BLOCKS * 512), RamdiskBackstore(BLOCKS * 512), express=True) as units:
            model = Model()
            for number, step in enumerate(steps):
                await take(step, number, model, units)
            for unit in (0, 1):
                assert await units[unit].contents(0, BLOCKS) == model.units[unit]

    anyio.run(run, backend=backend)
