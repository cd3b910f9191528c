"""Any sequence of commands against a model of a disk: a bytearray."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from support.memory import GatedMemory
from support.protection import INITIAL, protection
from support.scsi import SECOND, make_lu, make_target, one_initiator
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.null import NullBackstore
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient, check

from tcm.backstore import Backstore, BlockingBackstore
from tcm.scsi import cdb
from tcm.scsi.check_condition import LbaOutOfRange, MiscompareDuringVerify
from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
BLOCKS = 256
STORES: dict[str, Callable[[Path], Backstore | BlockingBackstore]] = {
    "ramdisk": lambda _: RamdiskBackstore(BLOCKS * 512),
    "fileio": lambda path: FileBackstore(str(path / "disk"), BLOCKS * 512),
    "never inline": lambda _: GatedMemory(BLOCKS * 512),
}


class Model:
    """What a disk of ``BLOCKS`` blocks should hold, and the commands that change it."""

    def __init__(self, disk: ApplicationClient, seed: int) -> None:
        self.disk = disk
        self.random = random.Random(seed)
        self.data = bytearray(BLOCKS * 512)
        self.actions = [
            self.write, self.write, self.read, self.read, self.write_same, self.unmap, self.compare_and_write, self.orwrite,
            self.verify, self.write_and_verify, self.write_atomic, self.flush,
        ]  # fmt: skip

    def extent(self) -> tuple[int, int]:
        lba = self.random.randrange(BLOCKS)
        return lba, self.random.randint(1, min(24, BLOCKS - lba))

    def bytes_at(self, lba: int, blocks: int) -> bytes:
        return bytes(self.data[lba * 512 : (lba + blocks) * 512])

    def put(self, lba: int, data: bytes) -> None:
        self.data[lba * 512 : lba * 512 + len(data)] = data

    async def step(self) -> None:
        self.disk.initiator.express = self.random.random() < 0.5
        await self.random.choice(self.actions)(*self.extent())

    async def write(self, lba: int, blocks: int) -> None:
        data = self.random.randbytes(blocks * 512)
        await self.disk.write(self.random.choice((6, 10, 12, 16)), lba, data)
        self.put(lba, data)

    async def read(self, lba: int, blocks: int) -> None:
        result = await self.disk.read(self.random.choice((6, 10, 12, 16)), lba, blocks)
        assert result.data_in == self.bytes_at(lba, blocks)

    async def write_same(self, lba: int, blocks: int) -> None:
        block = self.random.choice((bytes(512), self.random.randbytes(512)))
        await self.disk.write_same(self.random.choice((10, 16)), lba, blocks, block, unmap=self.random.random() < 0.5)
        self.put(lba, block * blocks)

    async def unmap(self, lba: int, blocks: int) -> None:
        await self.disk.unmap((lba, blocks))
        self.put(lba, bytes(blocks * 512))

    async def compare_and_write(self, lba: int, blocks: int) -> None:
        compare, data = bytearray(self.bytes_at(lba, blocks)), self.random.randbytes(blocks * 512)
        if self.random.random() < 0.5:
            at = self.random.randrange(len(compare))
            compare[at] ^= 1
            result = await self.disk.compare_and_write(lba, bytes(compare), data, expect=MiscompareDuringVerify)
            assert result.sense is not None
            assert result.sense.information == at
        else:
            await self.disk.compare_and_write(lba, bytes(compare), data)
            self.put(lba, data)

    async def orwrite(self, lba: int, blocks: int) -> None:
        data = self.random.randbytes(blocks * 512)
        await self.disk.orwrite(lba, data)
        self.put(lba, bytes(a | b for a, b in zip(self.bytes_at(lba, blocks), data, strict=True)))

    async def verify(self, lba: int, blocks: int) -> None:
        await self.disk.verify(self.random.choice((10, 12, 16)), lba, blocks, self.bytes_at(lba, blocks), bytchk=1)

    async def write_and_verify(self, lba: int, blocks: int) -> None:
        data = self.random.randbytes(blocks * 512)
        await self.disk.write_and_verify(10, lba, data, bytchk=1)
        self.put(lba, data)

    async def write_atomic(self, lba: int, blocks: int) -> None:
        data = self.random.randbytes(blocks * 512)
        await self.disk.write_atomic(lba, data)
        self.put(lba, data)

    async def flush(self, lba: int, blocks: int) -> None:
        await self.disk.execute(cdb.synchronize_cache(10, lba, blocks))


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("seed", range(3))
async def test_medium_random_commands(tmp_path: Path, store: str, seed: int) -> None:
    """SBC-4 4.1: whatever commands are sent, the medium holds what they say, and LBA status never lies."""
    async with one_initiator(STORES[store](tmp_path)) as disk:
        model = Model(disk, seed)
        for _ in range(150):
            await model.step()
        disk.initiator.express = False
        assert (await disk.read(10, 0, BLOCKS)).data_in == model.data
        for lba, blocks, status in await disk.get_lba_status(0):
            if status:
                assert not any(model.bytes_at(lba, blocks)), "deallocated blocks hold data"


@pytest.mark.parametrize("store", ["ramdisk", "fileio"])
@pytest.mark.parametrize("kind", [1, 2, 3])
async def test_medium_random_commands_protected(tmp_path: Path, store: str, kind: int) -> None:
    """SBC-4 4.21: the same with protection information, which fits every block whatever was done to it."""
    async with one_initiator(STORES[store](tmp_path), pi_prot_type=kind) as disk:
        model = Model(disk, kind)
        for _ in range(150):
            await model.step()
        await disk.verify(10, 0, BLOCKS)
        assert (await disk.read(10, 0, BLOCKS)).data_in == model.data
        kept = await protection(disk, 0, BLOCKS)
        for lba, blocks, status in await disk.get_lba_status(0):
            if status:
                assert kept[lba * 8 : (lba + blocks) * 8] == INITIAL * blocks, "deallocated blocks would be checked"


@pytest.mark.parametrize("store", STORES)
async def test_medium_concurrent_counters(tmp_path: Path, store: str) -> None:
    """SBC-4 5.3: counters raised with COMPARE AND WRITE by many clients over two paths lose no step."""
    rounds, clients = 8, 6
    async with make_lu(STORES[store](tmp_path)) as unit:
        ports = [make_target(unit, name=f"naa.500140500000000{i}") for i in range(2)]
        initiators = [ports[0].connect(), ports[1].connect(SECOND)]
        disks = [ApplicationClient(initiator) for initiator in initiators]
        for disk in disks:
            await disk.identify()
        disks[0].initiator.express = True

        async def count(disk: ApplicationClient) -> None:
            done = 0
            while done < rounds:
                old = (await disk.read(10, 7, 2)).data_in
                new = (int.from_bytes(old[:8], "big") + 1).to_bytes(8, "big") * 128
                result = await disk.compare_and_write(7, old, new, expect=None)
                if result.status is Status.GOOD:
                    done += 1
                else:
                    check(result, MiscompareDuringVerify)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for i in range(clients):
                    group.start_soon(count, disks[i % 2])
        assert (await disks[1].read(10, 7, 2)).data_in == (rounds * clients).to_bytes(8, "big") * 128
        for initiator in initiators:
            initiator.disconnect()


async def test_medium_no_torn_atomic_writes() -> None:
    """SBC-4 4.28: a READ sees a WRITE ATOMIC, a COMPARE AND WRITE or a WRITE SAME whole or not at all."""

    class Slow(GatedMemory):
        """Writes byte range by byte range, letting others run in between."""

        async def writev(self, buffers, offset, fua=False):  # type: ignore[no-untyped-def]  # as the base class
            for buffer in buffers:
                for start in range(0, len(buffer), 512):
                    self.data[offset + start : offset + start + 512] = buffer[start : start + 512]
                    await anyio.lowlevel.checkpoint()
                offset += len(buffer)

    async with one_initiator(Slow(64 * 512)) as disk:
        seen = set()
        for value in range(1, 6):
            writer = disk.initiator.start(0, cdb.write_atomic(0, 8), bytes((value,)) * 4096)
            while not writer.done:
                data = (await disk.read(10, 0, 8)).data_in
                assert len(set(data)) == 1
                seen.add(data[0])
            same = disk.initiator.start(0, cdb.write_same(16, 0, 8), bytes((value | 0x80,)) * 512)
            while not same.done:
                data = (await disk.read(10, 0, 8)).data_in
                assert len(set(data)) == 1
                seen.add(data[0])
        assert seen


async def test_medium_concurrent_orwrites() -> None:
    """SBC-4 4.25: ORWRITEs of overlapping blocks that run at once lose no bit of one another."""
    async with one_initiator(GatedMemory(64 * 512)) as disk:
        commands = []
        for bit in range(32):
            mask = (1 << bit).to_bytes(4, "big") * 128
            commands.append(disk.initiator.start(0, cdb.orwrite(bit % 3, 4), mask * 4))
        with anyio.fail_after(60):
            for command in commands:
                check(await command.wait(), Status.GOOD)
        assert (await disk.read(10, 2, 2)).data_in == b"\xff" * 1024


async def test_medium_express_ends_where_the_medium_ends() -> None:
    """SBC-4 4.3.4: with a backstore that would answer beyond its end, the express lane does not ask it."""
    async with one_initiator(NullBackstore(BLOCKS * 512), express=True) as disk:
        for length in (10, 16):
            for blocks in (1, 2, 8):
                assert (await disk.read(length, BLOCKS - blocks, blocks)).express
                assert (await disk.write(length, BLOCKS - blocks, bytes(blocks * 512))).express
                await disk.read(length, BLOCKS - blocks + 1, blocks, expect=LbaOutOfRange)
                await disk.write(length, BLOCKS - blocks + 1, bytes(blocks * 512), expect=LbaOutOfRange)
