"""UNMAP (SBC-4 5.32) and GET LBA STATUS (5.6)."""

from __future__ import annotations

import pytest
from support.memory import GatedMemory
from support.scsi import SIZE, one_initiator, pattern
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InvalidFieldInCdb,
    InvalidFieldInParameterList,
    InvalidOpcode,
    LbaOutOfRange,
    ParameterListLengthError,
)

pytestmark = pytest.mark.anyio


async def contents(disk: ApplicationClient, lba: int, blocks: int) -> bytes:
    return (await disk.read(16, lba, blocks)).data_in


@pytest.mark.every_backstore
async def test_unmap_simple(disk: ApplicationClient) -> None:
    """SBC-4 4.7.3.3: with LBPRZ set, unmapped blocks read as zeroes, and no others do."""
    capacity = (await disk.execute(cdb.read_capacity16(), read_length=32)).data_in
    assert capacity[14] & 0xC0 == 0xC0
    await disk.write(10, 0, b"a" * 512 * 512)
    for blocks in (1, 2, 7, 8, 9, 64, 256):
        await disk.unmap((0, blocks))
        assert not any(await contents(disk, 0, blocks))
        assert await contents(disk, blocks, 512 - blocks) == b"a" * (512 - blocks) * 512


@pytest.mark.every_backstore
async def test_unmap_many_descriptors(disk: ApplicationClient) -> None:
    """SBC-4 5.32: every block descriptor is carried out."""
    await disk.write(10, 0, b"a" * 512 * 512)
    await disk.unmap(*((i, 1) for i in range(256)))
    assert await contents(disk, 0, 512) == bytes(256 * 512) + b"a" * 256 * 512
    await disk.write(10, 0, b"a" * 512 * 512)
    await disk.unmap(*((i * 16, 8) for i in range(32)))
    assert await contents(disk, 0, 512) == (bytes(8 * 512) + b"a" * 8 * 512) * 32


@pytest.mark.every_backstore
async def test_unmap_zero_blocks(disk: ApplicationClient) -> None:
    """SBC-4 5.32: zero blocks in a descriptor, even at the end of the medium, and no descriptors are no errors."""
    await disk.write(10, 0, pattern(4096))
    for lba in (0, 1, 255, disk.blocks):
        await disk.unmap((lba, 0))
    await disk.unmap()
    await disk.unmap(*((i // 2, 0) for i in range(256)))
    await disk.execute(cdb.unmap(0))
    assert await contents(disk, 0, 8) == pattern(4096)


@pytest.mark.every_backstore
async def test_unmap_overlap(disk: ApplicationClient) -> None:
    """SBC-4 5.32: descriptors may overlap."""
    await disk.write(10, 0, b"a" * 64 * 512)
    await disk.unmap((0, 16), (8, 16), (0, 16))
    assert await contents(disk, 0, 64) == bytes(24 * 512) + b"a" * 40 * 512


async def test_unmap_beyond_end(disk: ApplicationClient) -> None:
    """SBC-4 5.32: a descriptor out of range is LOGICAL BLOCK ADDRESS OUT OF RANGE."""
    await disk.write(10, 0, pattern(4096))
    for descriptor in ((disk.blocks, 1), (disk.blocks - 1, 2), (1 << 63, 1), ((1 << 64) - 1, 1), (0, disk.blocks + 1)):
        await disk.unmap(descriptor, expect=LbaOutOfRange)
        await disk.unmap((0, 8), descriptor, expect=LbaOutOfRange)
    assert await contents(disk, 0, 8) == pattern(4096)


async def test_unmap_limits() -> None:
    """SBC-4 5.32: more descriptors or blocks than Block Limits allows is INVALID FIELD IN PARAMETER LIST."""
    async with one_initiator(max_unmap_lba_count=100, max_unmap_block_desc_count=4) as disk:
        limits = await disk.inquiry(0xB0)
        assert int.from_bytes(limits[20:24], "big") == 100
        assert int.from_bytes(limits[24:28], "big") == 4
        await disk.unmap((0, 100))
        await disk.unmap((0, 101), expect=InvalidFieldInParameterList)
        await disk.unmap((0, 50), (50, 51), expect=InvalidFieldInParameterList)
        await disk.unmap(*((i, 1) for i in range(4)))
        await disk.unmap(*((i, 1) for i in range(5)), expect=InvalidFieldInParameterList)


async def test_unmap_limits_are_sane(disk: ApplicationClient) -> None:
    """SBC-4 6.6.4: with LBPU set the limits are not zero, and either unlimited or what one command can do."""
    limits = await disk.inquiry(0xB0)
    for field in (limits[20:24], limits[24:28]):
        value = int.from_bytes(field, "big")
        assert value == 0xFFFFFFFF or 8 <= value <= 1 << 20


async def test_unmap_parameter_list_length(disk: ApplicationClient) -> None:
    """SBC-4 5.32: 1 to 7 bytes cannot hold a header; a descriptor that is cut off is not carried out."""
    await disk.write(10, 0, pattern(4096))
    parameters = cdb.unmap_parameters((0, 8))
    for length in range(1, 8):
        await disk.execute(cdb.unmap(length), parameters[:length], expect=ParameterListLengthError)
    for length in (8, 20):
        await disk.execute(cdb.unmap(length), parameters[:length], expect=None)
    assert await contents(disk, 0, 8) == pattern(4096)
    await disk.execute(cdb.unmap(24), parameters)
    assert not any(await contents(disk, 0, 8))


async def test_unmap_residuals(disk: ApplicationClient) -> None:
    """RFC 7143 11.4.5: fewer bytes than PARAMETER LIST LENGTH: no descriptor is carried out; more: they are not looked at."""
    await disk.write(10, 0, pattern(64 * 512))
    parameters = cdb.unmap_parameters((0, 8), (16, 8))
    result = await disk.execute(cdb.unmap(len(parameters)), parameters[:30], expect=ParameterListLengthError)
    assert (result.residual, result.overflow) == (10, True)
    assert (await contents(disk, 0, 64)) == pattern(64 * 512)
    result = await disk.execute(cdb.unmap(len(parameters)), parameters + bytes(100))
    assert (result.residual, result.overflow) == (100, False)
    assert not any(await contents(disk, 16, 8))


async def test_unmap_anchor(disk: ApplicationClient) -> None:
    """SBC-4 5.32: ANCHOR while ANC_SUP is zero is INVALID FIELD IN CDB."""
    assert (await disk.inquiry(0xB2))[5] & 0x02 == 0
    await disk.unmap((0, 8), anchor=True, expect=InvalidFieldInCdb)


async def test_unmap_vpd(disk: ApplicationClient) -> None:
    """SBC-4 6.6.6: LBPU and LBPME if UNMAP works; without them it is not there, and its limits are zero."""
    assert (await disk.inquiry(0xB2))[5] & 0x80
    async with one_initiator(GatedMemory(SIZE, thin=False)) as thick:
        assert not (await thick.inquiry(0xB2))[5] & 0x80
        assert not (await thick.execute(cdb.read_capacity16(), read_length=32)).data_in[14] & 0x80
        limits = await thick.inquiry(0xB0)
        assert limits[20:28] == bytes(8)
        await thick.unmap((0, 8), expect=InvalidOpcode)


@pytest.mark.every_backstore
async def test_get_lba_status_simple(disk: ApplicationClient) -> None:
    """SBC-4 5.6: the first descriptor starts at the LBA asked for."""
    for lba in (0, 1, 255, 256, disk.blocks - 256, disk.blocks - 1):
        descriptors = await disk.get_lba_status(lba, allocation_length=24)
        assert len(descriptors) == 1
        assert descriptors[0][0] == lba
        assert descriptors[0][1] >= 1


@pytest.mark.every_backstore
async def test_get_lba_status_unmapped(disk: ApplicationClient) -> None:
    """SBC-4 5.6: descriptors are contiguous, mapped (0) and deallocated (1) alternate, and cover the medium."""
    await disk.write(10, 0, b"a" * 256 * 512)
    for lba in range(8, 249, 16):
        await disk.unmap((lba, 8))
    descriptors = await disk.get_lba_status(0)
    assert descriptors[:32] == [(i * 8, 8, i & 1) for i in range(31)] + [(248, disk.blocks - 248, 1)]
    assert (await disk.get_lba_status(12))[0] == (12, 4, 1)
    assert (await disk.get_lba_status(19))[0] == (19, 5, 0)


async def test_get_lba_status_beyond_end(disk: ApplicationClient) -> None:
    """SBC-4 5.6: an LBA out of range."""
    for lba in (disk.blocks, disk.blocks + 1, 1 << 63, (1 << 64) - 1):
        await disk.execute(cdb.get_lba_status(lba, 24), read_length=24, expect=LbaOutOfRange)


@pytest.mark.every_backstore
async def test_get_lba_status_parameter_data(disk: ApplicationClient) -> None:
    """SBC-4 5.6.2: PARAMETER DATA LENGTH counts all that there is; the allocation length only truncates."""
    await disk.write(10, 0, b"a" * 8 * 512)
    full = (await disk.execute(cdb.get_lba_status(0, 4096), read_length=4096)).data_in
    assert len(full) == 8 + 2 * 16
    assert int.from_bytes(full[:4], "big") == len(full) - 4
    for length in (0, 4, 8, 24, 30):
        result = await disk.execute(cdb.get_lba_status(0, length), read_length=length)
        assert len(result.data_in) <= length
        assert not result.overflow
        assert result.data_in[8:] == full[8 : len(result.data_in)]


async def test_get_lba_status_thick() -> None:
    """SBC-4 5.6: a fully provisioned unit reports everything as mapped."""
    async with one_initiator(GatedMemory(SIZE, thin=False)) as disk:
        assert await disk.get_lba_status(0) == [(0, disk.blocks, 0)]
