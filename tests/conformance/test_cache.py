"""SYNCHRONIZE CACHE (10), (16), PRE-FETCH (10), (16): SBC-4 5.29, 5.30, 5.10, 5.11; durability of writes."""

from __future__ import annotations

import anyio
import pytest
from support.memory import GatedMemory
from support.scsi import logical_unit, one_initiator, pattern
from tcm_backstores.null import NullBackstore
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import LbaOutOfRange, WriteError
from tcm.scsi.sense import Status
from tcm.target.device_server.cache import PRE_FETCH_BYTES

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("length", [10, 16])
HIGH = {10: 0xFFFFFFFF, 16: 0xFFFFFFFFFFFFFFFF}


@BOTH
async def test_synchronize_cache_flushes(length: int) -> None:
    """SBC-4 5.29: GOOD status comes after the backstore's flush, for any range."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        for lba, blocks in ((0, 0), (0, 1), (10, 20), (disk.blocks - 1, 1), (disk.blocks - 1, 0)):
            store.log.clear()
            await disk.execute(cdb.synchronize_cache(length, lba, blocks))
            assert ("flush", 0, 0) in store.log


@BOTH
async def test_synchronize_cache_immed(length: int) -> None:
    """SBC-4 5.29: IMMED is accepted."""
    async with one_initiator(GatedMemory()) as disk:
        await disk.execute(cdb.synchronize_cache(length, 0, 1, immed=True))


@BOTH
async def test_synchronize_cache_beyond_end(disk: ApplicationClient, length: int) -> None:
    """SBC-4 4.3.4."""
    for lba, blocks in ((disk.blocks, 1), (disk.blocks - 1, 2), (disk.blocks + 1, 0), (HIGH[length], 1)):
        await disk.execute(cdb.synchronize_cache(length, lba, blocks), expect=LbaOutOfRange)


@BOTH
async def test_synchronize_cache_failure(length: int) -> None:
    """SBC-4 4.15.1: a flush that fails is a WRITE ERROR, and the next one is tried again."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.failure = OSError(5, "input/output error")
        await disk.execute(cdb.synchronize_cache(length), expect=WriteError)
        store.failure = None
        await disk.execute(cdb.synchronize_cache(length))


async def test_write_cache_disabled() -> None:
    """SBC-4 6.5.6: with WCE zero every write is durable before its status."""
    store = GatedMemory()
    async with one_initiator(store, emulate_write_cache=False) as disk:
        page = await disk.mode_sense(6, 8, dbd=True)
        assert page[4 + 2] & 0x04 == 0
        store.log.clear()
        await disk.write(10, 0, pattern(512))
        operations = [entry[0] for entry in store.log]
        assert operations == ["write fua"] or operations[-1] == "flush"


async def test_write_cache_enabled() -> None:
    """SBC-4 6.5.6: with WCE set a write does not wait for the medium."""
    store = GatedMemory()
    async with one_initiator(store, emulate_write_cache=True) as disk:
        assert (await disk.mode_sense(6, 8, dbd=True))[4 + 2] & 0x04
        store.log.clear()
        await disk.write(10, 0, pattern(512))
        assert [entry[0] for entry in store.log] == ["write"]


@BOTH
async def test_pre_fetch_simple(disk: ApplicationClient, length: int) -> None:
    """SBC-4, PRE-FETCH (10) and (16) commands: CONDITION MET if all of it fits the cache; no data."""
    for blocks in (1, 2, 256):
        for lba in (0, disk.blocks - blocks):
            result = await disk.execute(cdb.pre_fetch(length, lba, blocks), expect=Status.CONDITION_MET)
            assert result.data_in == b""


@BOTH
async def test_pre_fetch_flags(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.10: IMMED and GROUP NUMBER are accepted."""
    for immed in (False, True):
        command = bytearray(cdb.pre_fetch(length, 0, 1, immed=immed))
        command[6 if length == 10 else 14] = 3
        await disk.execute(bytes(command), expect=Status.CONDITION_MET)


async def test_pre_fetch_that_does_not_fit() -> None:
    """SBC-4, PRE-FETCH (10) command: GOOD if the cache does not take all of the blocks, or there is none that is known of."""
    blocks = PRE_FETCH_BYTES // 512
    async with one_initiator(NullBackstore(4 * PRE_FETCH_BYTES)) as disk:
        for immed in (False, True):
            await disk.execute(cdb.pre_fetch(16, 0, blocks, immed=immed), expect=Status.CONDITION_MET)
            await logical_unit(disk).running.until_idle()
            await disk.execute(cdb.pre_fetch(16, 0, blocks + 1, immed=immed), expect=Status.GOOD)
            await logical_unit(disk).running.until_idle()
    async with one_initiator(GatedMemory(1 << 20)) as disk:
        await disk.execute(cdb.pre_fetch(16, 0, 1), expect=Status.GOOD)


async def test_immed_is_bounded() -> None:
    """SBC-4 5.10, 5.29: nobody waits for commands with IMMED, so however many there are, little is under way."""
    store = GatedMemory(4 << 20)
    async with one_initiator(store) as disk:
        store.shut()
        for _ in range(50):
            await disk.execute(cdb.pre_fetch(10, 0, 0, immed=True))
            await disk.execute(cdb.synchronize_cache(10, immed=True))
        await store.until_waiting(2)
        assert len(logical_unit(disk).running) == 2
        store.log.clear()
        store.release()
        with anyio.fail_after(60):
            await logical_unit(disk).running.until_idle()
        assert store.log.count(("flush", 0, 0)) == 2  # the second is for all that came while the first ran
        for command in (cdb.pre_fetch(10, 0, 1, immed=True), cdb.synchronize_cache(10, immed=True)):
            store.log.clear()
            await disk.execute(command)
            await logical_unit(disk).running.until_idle()
            assert len(store.log) == 1


@BOTH
async def test_pre_fetch_beyond_end(disk: ApplicationClient, length: int) -> None:
    """SBC-4 4.3.4."""
    for blocks in (1, 2, 256):
        for lba in (disk.blocks + 1 - blocks, disk.blocks, 1 << 31, HIGH[length]):
            await disk.execute(cdb.pre_fetch(length, lba, blocks), expect=LbaOutOfRange)


@BOTH
async def test_pre_fetch_zero_blocks(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.10: zero blocks are the rest of the medium; the LBA has to exist."""
    await disk.execute(cdb.pre_fetch(length, 0, 0), expect=Status.CONDITION_MET)
    for lba in (disk.blocks + 1, 1 << 31, HIGH[length]):
        await disk.execute(cdb.pre_fetch(length, lba, 0), expect=LbaOutOfRange)
