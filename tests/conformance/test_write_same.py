"""WRITE SAME (10), (16): SBC-4 5.48, 5.49."""

from __future__ import annotations

import pytest
from support.memory import GatedMemory
from support.scsi import SIZE, one_initiator, pattern, ramdisk
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, LbaOutOfRange
from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("length", [10, 16])
HIGH = {10: 0xFFFFFFFF, 16: 0xFFFFFFFFFFFFFFFF}
ZEROES = bytes(512)


async def contents(disk: ApplicationClient, lba: int, blocks: int) -> bytes:
    return (await disk.read(16, lba, blocks)).data_in


@pytest.mark.every_backstore
@BOTH
async def test_write_same_simple(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.48: every block of the range is the block that was sent, and no other."""
    for seed, blocks in enumerate((1, 2, 7, 8, 255, 256)):
        for lba in (1, disk.blocks - blocks):
            block = pattern(512, seed)
            before = await contents(disk, lba - 1, 1)
            await disk.write_same(length, lba, blocks, block)
            assert await contents(disk, lba, blocks) == block * blocks
            assert await contents(disk, lba - 1, 1) == before


@BOTH
async def test_write_same_huge(length: int) -> None:
    """SBC-4 5.48: more blocks than fit in one buffer of the target; the end of the range is exact."""
    size = 20 << 20
    async with one_initiator(ramdisk(size)) as disk:
        block = pattern(512)
        blocks = disk.blocks - 2
        await disk.write_same(length, 1, blocks, block)
        assert await contents(disk, 0, 2) == ZEROES + block
        for lba in (4095, 8191, 16383, 20000):
            assert await contents(disk, lba, 3) == block * 3
        assert await contents(disk, disk.blocks - 2, 2) == block + ZEROES


@BOTH
async def test_write_same_beyond_end(disk: ApplicationClient, length: int) -> None:
    """SBC-4 4.3.4."""
    for unmap in (False, True):
        for blocks in (1, 2, 256):
            for lba in (disk.blocks + 1 - blocks, disk.blocks, 1 << 31, HIGH[length]):
                await disk.write_same(length, lba, blocks, ZEROES, unmap=unmap, expect=LbaOutOfRange)


@BOTH
async def test_write_same_zero_blocks(disk: ApplicationClient, length: int) -> None:
    """SBC-4 6.6.4: with WSNZ set, NUMBER OF LOGICAL BLOCKS zero is INVALID FIELD IN CDB; else it is all the rest."""
    limits = await disk.inquiry(0xB0)
    block = pattern(512)
    if limits[4] & 1:
        await disk.write_same(length, 0, 0, block, expect=InvalidFieldInCdb)
        await disk.write_same(length, 0, 0, ZEROES, unmap=True, expect=InvalidFieldInCdb)
        assert not any(await contents(disk, 0, 8))
    else:
        await disk.write_same(length, disk.blocks - 3, 0, block)
        assert await contents(disk, disk.blocks - 4, 4) == ZEROES + block * 3
        await disk.write_same(length, disk.blocks + 1, 0, block, expect=LbaOutOfRange)


@BOTH
async def test_write_same_protect(disk: ApplicationClient, length: int) -> None:
    """SBC-4 table 96: a WRPROTECT other than zero is INVALID FIELD IN CDB."""
    for protect in range(1, 8):
        await disk.write_same(length, 0, 1, pattern(512), protect=protect, expect=InvalidFieldInCdb)


@pytest.mark.every_backstore
@BOTH
async def test_write_same_unmap(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.48: UNMAP set and a block of zeroes: the range reads as zeroes and aligned blocks are unmapped."""
    for blocks in (1, 8, 16, 256):
        for lba in (0, disk.blocks - blocks):
            await disk.write(10, lba, b"\xff" * blocks * 512)
            await disk.write_same(length, lba, blocks, ZEROES, unmap=True)
            assert not any(await contents(disk, lba, blocks))
    (first, blocks, status), *_ = await disk.get_lba_status(0)
    assert (first, status) == (0, 1)
    assert blocks >= 256


@pytest.mark.every_backstore
@BOTH
async def test_write_same_unmap_other_data(disk: ApplicationClient, length: int) -> None:
    """SBC-4 4.7.3.4.4: UNMAP set and a block that unmapped blocks would not read as: it is written."""
    block = pattern(512)
    await disk.write_same(length, 8, 16, block, unmap=True)
    assert await contents(disk, 8, 16) == block * 16
    assert (await disk.get_lba_status(8))[0][2] == 0


@pytest.mark.every_backstore
@BOTH
async def test_write_same_unmap_unaligned(disk: ApplicationClient, length: int) -> None:
    """SBC-4 4.7.3.4.4: a range that does not fill physical blocks is written, and its neighbours are untouched."""
    await disk.write(10, 0, b"\xff" * 32 * 512)
    for i in range(1, 8):
        await disk.write_same(length, i, 8 - i, ZEROES, unmap=True)
    assert await contents(disk, 0, 32) == b"\xff" * 512 + bytes(7 * 512) + b"\xff" * 24 * 512
    await disk.write_same(length, 9, 14, ZEROES, unmap=True)
    assert await contents(disk, 8, 24) == b"\xff" * 512 + bytes(14 * 512) + b"\xff" * 9 * 512


@BOTH
async def test_write_same_unmap_vpd(disk: ApplicationClient, length: int) -> None:
    """SBC-4 6.6.6: WRITE SAME with UNMAP works if LBPWS or LBPWS10 says so, and is refused if not."""
    bit = 0x20 if length == 10 else 0x40
    assert (await disk.inquiry(0xB2))[5] & bit
    assert (await disk.execute(cdb.read_capacity16(), read_length=32)).data_in[14] & 0x80
    async with one_initiator(GatedMemory(SIZE, thin=False)) as thick:
        assert not (await thick.inquiry(0xB2))[5] & bit
        await thick.write_same(length, 0, 1, ZEROES, unmap=True, expect=InvalidFieldInCdb)
        await thick.write_same(length, 0, 1, ZEROES)


@BOTH
async def test_write_same_anchor(disk: ApplicationClient, length: int) -> None:
    """SBC-4 table 98: ANCHOR without UNMAP, and ANCHOR while ANC_SUP is zero, are INVALID FIELD IN CDB."""
    assert (await disk.inquiry(0xB2))[5] & 0x02 == 0
    await disk.write_same(length, 0, 1, ZEROES, anchor=True, expect=InvalidFieldInCdb)
    await disk.write_same(length, 0, 1, ZEROES, anchor=True, unmap=True, expect=InvalidFieldInCdb)


@pytest.mark.every_backstore
async def test_write_same16_ndob(disk: ApplicationClient) -> None:
    """SBC-4 5.49: NDOB set: no Data-Out, the range becomes zeroes, with UNMAP or without."""
    for unmap in (False, True):
        await disk.write(10, 0, b"\xff" * 32 * 512)
        await disk.write_same(16, 3, 20, b"", ndob=True, unmap=unmap)
        assert await contents(disk, 0, 32) == b"\xff" * 3 * 512 + bytes(20 * 512) + b"\xff" * 9 * 512
    for i in range(1, 8):
        await disk.write_same(16, i, 8 - i, b"", ndob=True, unmap=True)


async def test_write_same10_ndob_reserved(disk: ApplicationClient) -> None:
    """SBC-4 5.48: WRITE SAME (10) has no NDOB: the bit is reserved (obsolete RELADR)."""
    await disk.write_same(10, 0, 1, ZEROES, ndob=True, expect=InvalidFieldInCdb)


@BOTH
@pytest.mark.parametrize("unmap", [False, True])
async def test_write_same_invalid_data_out_size(disk: ApplicationClient, length: int, unmap: bool) -> None:
    """SBC-4 5.48: the Data-Out is one block: another size is refused and nothing is written."""
    await disk.write(10, 0, pattern(1024))
    for size in (0, 256, 1024):
        result = await disk.write_same(length, 0, 1, bytes(size), unmap=unmap, expect=None)
        assert result.status is Status.CHECK_CONDITION
        assert result.sense is not None
        assert result.sense.key == 5
    assert await contents(disk, 0, 2) == pattern(1024)


@BOTH
async def test_write_same_maximum_length(length: int) -> None:
    """SBC-4 6.6.4: more than MAXIMUM WRITE SAME LENGTH is INVALID FIELD IN CDB."""
    async with one_initiator(max_write_same_len=100) as disk:
        limits = await disk.inquiry(0xB0)
        assert int.from_bytes(limits[36:44], "big") == 100
        await disk.write_same(length, 0, 99, pattern(512))
        await disk.write_same(length, 0, 100, pattern(512))
        await disk.write_same(length, 0, 101, pattern(512), expect=InvalidFieldInCdb)


@BOTH
async def test_write_same_zero_blocks_maximum_length(length: int) -> None:
    """SBC-4 5.48, 6.6.4: "all the rest" is refused where that is more than MAXIMUM WRITE SAME LENGTH."""
    async with one_initiator(max_write_same_len=100) as disk:
        if (await disk.inquiry(0xB0))[4] & 1:
            return
        await disk.write_same(length, 0, 0, pattern(512), expect=InvalidFieldInCdb)
        await disk.write_same(length, disk.blocks - 101, 0, pattern(512), expect=InvalidFieldInCdb)
        assert not any(await contents(disk, disk.blocks - 128, 128))
        await disk.write_same(length, disk.blocks - 100, 0, pattern(512))
        await disk.write_same(length, disk.blocks - 99, 0, pattern(512, 2))
        assert await contents(disk, disk.blocks - 101, 101) == ZEROES + pattern(512) + pattern(512, 2) * 99


@BOTH
async def test_write_same_on_a_device_without_write_zeroes(length: int) -> None:
    """SBC-4 5.48: where the medium cannot make zeroes itself, they are written."""
    store = GatedMemory(SIZE, thin=False)
    store.data[:] = b"\xff" * SIZE
    async with one_initiator(store) as disk:
        await disk.write_same(length, 10, 1000, ZEROES)
    assert store.data == b"\xff" * 10 * 512 + bytes(1000 * 512) + b"\xff" * (SIZE - 1010 * 512)
