"""READ (6), (10), (12), (16): SBC-4 5.15 to 5.18."""

from __future__ import annotations

import pytest
from support.scsi import logical_unit, one_initiator, pattern
from tcm_backstores.null import NullBackstore
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, LbaOutOfRange
from tcm.scsi.sense import FieldPointer, Status

pytestmark = pytest.mark.anyio
ALL = pytest.mark.parametrize("length", [6, 10, 12, 16])
LONG = pytest.mark.parametrize("length", [10, 12, 16])
HIGH = {6: 0x1FFFFF, 10: 0xFFFFFFFF, 12: 0xFFFFFFFF, 16: 0xFFFFFFFFFFFFFFFF}


@pytest.mark.every_backstore
@ALL
async def test_read_simple(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.16: the blocks asked for, at the start and at the end of the medium, of every kind of length."""
    data = pattern(disk.blocks * 512)
    for lba in range(0, disk.blocks, 1024):
        await disk.write(10, lba, data[lba * 512 : (lba + 1024) * 512])
    for blocks in (1, 2, 7, 8, 127, 255):
        for lba in (0, 3, disk.blocks - blocks):
            result = await disk.read(length, lba, blocks)
            assert result.data_in == data[lba * 512 : (lba + blocks) * 512]
            assert result.residual == 0


@pytest.mark.every_backstore
async def test_read6_length_zero_is_256_blocks(disk: ApplicationClient) -> None:
    """SBC-4 5.15: a TRANSFER LENGTH of zero means 256 logical blocks."""
    data = pattern(256 * 512)
    await disk.write(10, 0, data)
    result = await disk.read(6, 0, 0)
    assert result.data_in == data


async def test_read6_wide_address(disk: ApplicationClient) -> None:
    """SBC-4 5.15: the LBA of READ (6) has 21 bits; 20:16 stand in byte 1."""
    await disk.execute(bytes((0x08, 0x01, 0, 0, 1, 0)), read_length=512, expect=LbaOutOfRange)
    async with one_initiator(NullBackstore(1 << 30)) as large:
        await large.read(6, 0x1FFFFF, 1)


@ALL
async def test_read_beyond_end(disk: ApplicationClient, length: int) -> None:
    """SBC-4 4.3.4: LBA plus length beyond the capacity is LOGICAL BLOCK ADDRESS OUT OF RANGE."""
    for blocks in (1, 2, 128, 255):
        await disk.read(length, disk.blocks + 1 - blocks, blocks, expect=LbaOutOfRange)
        await disk.read(length, disk.blocks, blocks, expect=LbaOutOfRange)
        await disk.read(length, HIGH[length], blocks, expect=LbaOutOfRange)
        await disk.read(length, (HIGH[length] >> 1) + 1, blocks, expect=LbaOutOfRange)
        if blocks > 1:
            await disk.read(length, disk.blocks - 1, blocks, expect=LbaOutOfRange)


@LONG
async def test_read_zero_blocks(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.16: a TRANSFER LENGTH of zero reads nothing and is no error, but the LBA still has to exist."""
    result = await disk.read(length, 0, 0)
    assert result.data_in == b""
    await disk.read(length, disk.blocks - 1, 0)
    await disk.read(length, disk.blocks + 1, 0, expect=LbaOutOfRange)
    await disk.read(length, 1 << 31, 0, expect=LbaOutOfRange)
    await disk.read(length, HIGH[length], 0, expect=LbaOutOfRange)


@LONG
async def test_read_protect(disk: ApplicationClient, length: int) -> None:
    """SBC-4 table 51: without protection information a RDPROTECT other than zero is INVALID FIELD IN CDB."""
    for protect in range(1, 8):
        result = await disk.read(length, 0, 1, protect=protect, expect=InvalidFieldInCdb)
        assert result.sense is not None
        specific = result.sense.sense_key_specific
        assert specific is not None
        assert specific[0] & 0xC0 == 0xC0
        assert specific[1:] == FieldPointer(in_cdb=True, byte=1).sense_key_specific()[1:]


@LONG
async def test_read_dpo_fua(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.16: DPO and FUA are accepted, since DPOFUA is set in the mode parameter header."""
    header = await disk.mode_sense(6, 0x3F)
    assert header[2] & 0x10
    await disk.write(10, 5, pattern(512))
    for dpo, fua in ((True, False), (False, True), (True, True)):
        assert (await disk.read(length, 5, 1, dpo=dpo, fua=fua)).data_in == pattern(512)


@LONG
async def test_read_dpo_fua_not_supported(length: int) -> None:
    """SBC-4 6.5.1: with DPOFUA zero, DPO and FUA are INVALID FIELD IN CDB."""
    async with one_initiator(emulate_fua_write=False) as disk:
        assert not (await disk.mode_sense(6, 0x3F))[2] & 0x10
        await disk.read(length, 0, 1, fua=True, expect=InvalidFieldInCdb)
        await disk.read(length, 0, 1, dpo=True, expect=InvalidFieldInCdb)
        await disk.read(length, 0, 1)


@LONG
async def test_read_group_number(disk: ApplicationClient, length: int) -> None:
    """SBC-4 4.21: any GROUP NUMBER may be given."""
    await disk.read(length, 0, 1, group=3)


@LONG
async def test_read_maximum_transfer_length(length: int) -> None:
    """SBC-4 6.6.4: a TRANSFER LENGTH beyond MAXIMUM TRANSFER LENGTH is INVALID FIELD IN CDB."""
    async with one_initiator(hw_max_sectors=64) as disk:
        await disk.read(length, 0, 64)
        await disk.read(length, 0, 65, expect=InvalidFieldInCdb)


@pytest.mark.every_backstore
@ALL
async def test_read_residual_overflow(disk: ApplicationClient, length: int) -> None:
    """SAM-5 5.4.2, RFC 7143 11.4.5: what the buffer has no room for is a residual overflow."""
    data = pattern(1024)
    await disk.write(10, 0, data)
    for buffer in (0, 200, 512, 1000):
        result = await disk.read(length, 0, 2, read_length=buffer)
        assert (result.data_in, result.residual, result.overflow) == (data[:buffer], 1024 - buffer, True)


@pytest.mark.every_backstore
@ALL
async def test_read_residual_underflow(disk: ApplicationClient, length: int) -> None:
    """RFC 7143 11.4.5: a buffer larger than the data is a residual underflow."""
    data = pattern(512)
    await disk.write(10, 0, data)
    result = await disk.read(length, 0, 1, read_length=10000)
    assert (result.data_in, result.residual, result.overflow) == (data, 10000 - 512, False)


async def test_read_residual_of_a_failed_command(disk: ApplicationClient) -> None:
    """RFC 7143 11.4.5.1: a command that fails moves nothing; its whole buffer is the underflow."""
    result = await disk.read(10, disk.blocks, 2, expect=LbaOutOfRange)
    assert (result.data_in, result.residual, result.overflow) == (b"", 1024, False)


async def test_read_express() -> None:
    """SBC-4 5.16: the express lane reads the same bytes, and refuses what it may not decide."""
    async with one_initiator(express=True) as disk:
        data = pattern(8 * 512)
        await disk.write(10, 8, data)
        for length in (10, 16):
            result = await disk.read(length, 8, 8)
            assert result.express
            assert result.data_in == data
        assert not (await disk.read(10, 8, 8, fua=True)).express
        assert not (await disk.read(10, 8, 8, read_length=512)).express
        result = await disk.read(10, disk.blocks, 1, expect=LbaOutOfRange)
        assert not result.express


@pytest.mark.every_backstore
async def test_read_counters(disk: ApplicationClient) -> None:
    """SAM-5 4.5.3: the I_T_L nexus counts commands and bytes, whichever lane they take."""
    nexus = disk.initiator.nexus
    assert nexus is not None
    (itl,) = nexus.luns.values()
    before = (itl.num_cmds, itl.read_bytes, itl.write_bytes)
    await disk.read(10, 0, 4)
    disk.initiator.express = True
    await disk.read(10, 0, 4)
    await disk.write(10, 0, bytes(512))
    assert (itl.num_cmds, itl.read_bytes, itl.write_bytes) == (before[0] + 3, before[1] + 4096, before[2] + 512)


async def test_read_after_growth(disk: ApplicationClient) -> None:
    """SBC-4 4.3.4: the last block is the one READ CAPACITY reports, not the one after."""
    assert disk.blocks == logical_unit(disk).blocks
    await disk.read(16, disk.blocks - 1, 1)
    await disk.execute(cdb.read(16, disk.blocks, 1), read_length=512, expect=LbaOutOfRange)
    await disk.test_unit_ready(expect=Status.GOOD)
