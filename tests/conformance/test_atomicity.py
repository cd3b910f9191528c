"""Atomicity under 64 concurrent initiators: COMPARE AND WRITE, ORWRITE, WRITE ATOMIC; ABORT TASK catches some of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.crowd import BLOCKS, INITIATORS, STORES, History, aborted, crowd, together, write_command
from support.protection import format_unit, tuples
from support.protection import together as together_with
from tcm_loopback.commands import check

from tcm.scsi import cdb
from tcm.scsi.check_condition import MiscompareDuringVerify
from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
EVERY_STORE = pytest.mark.parametrize("store", ["ramdisk", "fileio", "delayed fileio", "fickle ramdisk"])
SLOTS = INITIATORS * 8
"""Bytes of a counter block: one number for each initiator."""


@EVERY_STORE
async def test_compare_and_write_loses_no_increment(tmp_path: Path, store: str) -> None:
    """SBC-4 5.3: each of 64 initiators raises its number in shared blocks, in retry loops; every number comes out exact.

    The blocks are written in pairs of equal ones, and no READ sees a pair that differs.
    """
    rounds, extents = 3, 8
    counted = [[0] * extents for _ in range(INITIATORS)]

    async with crowd(STORES[store](tmp_path)) as clients:

        async def one(number: int) -> None:
            chance = random.Random(f"{store} {number}")
            client, own = clients[number], slice(8 * number, 8 * number + 8)

            async def current(lba: int) -> bytes:
                data = (await client.read(10, lba, 2)).data_in
                assert data[:SLOTS] == data[SLOTS:], "half of a COMPARE AND WRITE is on the medium"
                return data[:SLOTS]

            async def count(extent: int) -> None:
                lba = 5 * extent
                while True:
                    old = await current(lba)
                    assert int.from_bytes(old[own], "big") == counted[number][extent]
                    new = bytearray(old)
                    new[own] = (counted[number][extent] + 1).to_bytes(8, "big")
                    command, data = cdb.compare_and_write(lba, 2), old * 2 + bytes(new) * 2
                    if chance.random() < 0.1:
                        result = await aborted(client, command, data, chance)
                    else:
                        result = await client.execute(command, data, expect=None)
                    if result is None:  # it happened or it did not, but nobody else changes this number
                        done = int.from_bytes((await current(lba))[own], "big") - counted[number][extent]
                        assert done in {0, 1}
                    else:
                        done = result.status is Status.GOOD
                        if not done:
                            check(result, MiscompareDuringVerify)
                    if done:
                        counted[number][extent] += 1
                        return

            for _ in range(rounds):
                await count(chance.randrange(extents))

        await together(one, INITIATORS)
        for extent in range(extents):
            data = (await clients[0].read(10, 5 * extent, 2)).data_in
            assert [int.from_bytes(data[i : i + 8], "big") for i in range(0, 2 * SLOTS, 8)] == 2 * [
                each[extent] for each in counted
            ]
        assert sum(map(sum, counted)) == rounds * INITIATORS


@EVERY_STORE
async def test_orwrite_loses_no_bit(tmp_path: Path, store: str) -> None:
    """SBC-4 4.25, 5.10: the bits of 64 writers in overlapping blocks all arrive, each command's in all its blocks or none."""
    rounds = 4
    extents: dict[int, tuple[int, int]] = {}
    completed: set[int] = set()

    def bits_of(block: bytes) -> set[int]:
        value = int.from_bytes(block, "little")
        return {bit for bit in range(rounds * INITIATORS) if value >> bit & 1}

    def consistent(data: bytes, must: set[int]) -> None:
        seen = [bits_of(data[i : i + 512]) for i in range(0, len(data), 512)]
        for bit in set().union(*seen) | must:
            lba, blocks = extents[bit]
            assert [bit in each for each in seen] == [lba <= at < lba + blocks for at in range(len(seen))]

    async with crowd(STORES[store](tmp_path)) as clients:

        async def one(number: int) -> None:
            chance = random.Random(f"{store} {number}")
            for bit in range(number * rounds, (number + 1) * rounds):
                lba = chance.randrange(12)
                extents[bit] = lba, blocks = lba, chance.randint(1, 4)
                command, data = cdb.orwrite(lba, blocks), (1 << bit).to_bytes(512, "little") * blocks
                if chance.random() < 0.2:
                    done = await aborted(clients[number], command, data, chance) is not None
                else:
                    await clients[number].execute(command, data)
                    done = True
                if done:
                    completed.add(bit)
                if chance.random() < 0.3:
                    before = set(completed)
                    consistent((await clients[number].read(10, 0, 16)).data_in, before)

        await together(one, INITIATORS)
        consistent((await clients[0].read(10, 0, 16)).data_in, completed)
        assert len(completed) > rounds * INITIATORS // 2


@EVERY_STORE
async def test_write_atomic_is_never_torn(tmp_path: Path, store: str) -> None:
    """SBC-4 4.28, 5.48: overlapping atomic writes of 64 initiators are read whole or not at all, by both lanes.

    Single blocks are written between them, in the express lane too. What an ABORT TASK has ended does not come later.
    """
    history = History()
    span = 40

    async with crowd(STORES[store](tmp_path)) as clients:

        async def one(number: int) -> None:
            chance = random.Random(f"{store} {number}")
            client = clients[number]
            for _ in range(6):
                first, blocks = chance.randrange(span), chance.choice((1, 1, 2, 5, 9, 16))
                if chance.random() < 0.5:
                    history.check(first, (await client.read(chance.choice((10, 16)), first, blocks)).data_in)
                    continue
                stamp = history.begin(first, blocks)
                command = write_command(chance, stamp)
                if chance.random() < 0.2:
                    await aborted(client, command, stamp.data, chance)
                else:
                    await client.execute(command, stamp.data)
                history.end(stamp)

        await together(one, INITIATORS)
        history.check(0, (await clients[0].read(10, 0, BLOCKS)).data_in)
    assert len(history.stamps) > 2 * INITIATORS


@pytest.mark.parametrize("store", ["fickle ramdisk", "fickle fileio"])
async def test_protection_information_goes_with_its_blocks(tmp_path: Path, store: str) -> None:
    """SBC-4, Protection information model: 64 initiators write over one another, with WRPROTECT and without: whoever reads
    with RDPROTECT finds each block with the guard of the write that it is of."""
    async with crowd(STORES[store](tmp_path)) as clients:
        await format_unit(clients[0], 1)
        for client in clients:
            await client.identify()

        async def one(number: int) -> None:
            chance = random.Random(f"{store} {number}")
            client = clients[number]
            for _ in range(6):
                lba, blocks = chance.randrange(16), chance.randint(1, 6)
                if chance.random() < 0.5:
                    await client.read(10, lba, blocks, protect=chance.choice((0, 1, 3)), read_length=blocks * 520)
                    continue
                data = chance.randbytes(blocks * 512)
                if chance.random() < 0.5:
                    await client.write(10, lba, data)
                else:
                    sent = together_with(data, tuples(data, lba))
                    await client.execute(cdb.write(10, lba, blocks, protect=1), sent)

        await together(one, INITIATORS)
        await clients[0].read(10, 0, 24, protect=1, read_length=24 * 520)
