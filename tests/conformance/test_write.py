"""WRITE (6), (10), (12), (16), WRITE ATOMIC (16) and ORWRITE (16): SBC-4 5.39 to 5.42, 5.47, 5.14."""

from __future__ import annotations

import pytest
from support.memory import GatedMemory
from support.scsi import one_initiator, pattern
from tcm_loopback.commands import ApplicationClient, check
from tcm_loopback.transport import Result

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidFieldInCommandInformationUnit, LbaOutOfRange
from tcm.scsi.sense import Sense, SenseKey, Status

pytestmark = pytest.mark.anyio
ALL = pytest.mark.parametrize("length", [6, 10, 12, 16])
LONG = pytest.mark.parametrize("length", [10, 12, 16])
HIGH = {6: 0x1FFFFF, 10: 0xFFFFFFFF, 12: 0xFFFFFFFF, 16: 0xFFFFFFFFFFFFFFFF}


async def contents(disk: ApplicationClient, lba: int, blocks: int) -> bytes:
    return (await disk.read(16, lba, blocks)).data_in


@pytest.mark.every_backstore
@ALL
async def test_write_simple(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.40: the blocks are what was written, and their neighbours what they were."""
    for seed, blocks in enumerate((1, 2, 7, 8, 127, 255)):
        for lba in (0, 3, disk.blocks - blocks):
            around = max(0, lba - 1)
            before = await contents(disk, around, 1)
            data = pattern(blocks * 512, seed)
            result = await disk.write(length, lba, data)
            assert result.residual == 0
            assert await contents(disk, lba, blocks) == data
            if around < lba:
                assert await contents(disk, around, 1) == before


async def test_write6_length_zero_is_256_blocks(disk: ApplicationClient) -> None:
    """SBC-4 5.39: a TRANSFER LENGTH of zero means 256 logical blocks."""
    data = pattern(256 * 512)
    await disk.write(6, 0, data, blocks=0)
    assert await contents(disk, 0, 256) == data


@pytest.mark.every_backstore
@ALL
async def test_write_beyond_end(disk: ApplicationClient, length: int) -> None:
    """SBC-4 4.3.4: out of range, and nothing is written, not even the blocks that exist."""
    for blocks in (1, 2, 128, 255):
        data = pattern(blocks * 512)
        for lba in (disk.blocks + 1 - blocks, disk.blocks, HIGH[length], (HIGH[length] >> 1) + 1):
            result = await disk.write(length, lba, data, expect=LbaOutOfRange)
            assert (result.residual, result.overflow) == (len(data), False)
        if blocks > 1:
            await disk.write(length, disk.blocks - 1, data, expect=LbaOutOfRange)
    assert not any(await contents(disk, disk.blocks - 256, 256))


@LONG
async def test_write_zero_blocks(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.40: a TRANSFER LENGTH of zero writes nothing and is no error, but the LBA still has to exist."""
    await disk.write(length, 0, b"")
    await disk.write(length, disk.blocks + 1, b"", expect=LbaOutOfRange)
    await disk.write(length, 1 << 31, b"", expect=LbaOutOfRange)
    await disk.write(length, HIGH[length], b"", expect=LbaOutOfRange)


@LONG
async def test_write_protect(disk: ApplicationClient, length: int) -> None:
    """SBC-4 table 96: without protection information a WRPROTECT other than zero is INVALID FIELD IN CDB."""
    for protect in range(1, 8):
        await disk.write(length, 0, pattern(512), protect=protect, expect=InvalidFieldInCdb)
        assert not any(await contents(disk, 0, 1))


@LONG
async def test_write_dpo_fua(length: int) -> None:
    """SBC-4 5.40: FUA reaches the medium as such, DPO changes nothing."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        await disk.write(length, 0, pattern(512), dpo=True)
        await disk.write(length, 1, pattern(512), fua=True)
        await disk.write(length, 2, pattern(512), dpo=True, fua=True)
    assert [operation for operation, _, _ in store.log if operation != "flush"] == ["write", "write fua", "write fua"]


@LONG
async def test_write_dpo_fua_not_supported(length: int) -> None:
    """SBC-4 6.5.1: with DPOFUA zero, DPO and FUA are INVALID FIELD IN CDB."""
    async with one_initiator(emulate_fua_write=False) as disk:
        await disk.write(length, 0, pattern(512), fua=True, expect=InvalidFieldInCdb)
        await disk.write(length, 0, pattern(512), dpo=True, expect=InvalidFieldInCdb)
        assert not any(await contents(disk, 0, 1))


@LONG
async def test_write_maximum_transfer_length(length: int) -> None:
    """SBC-4 6.6.4: a TRANSFER LENGTH beyond MAXIMUM TRANSFER LENGTH is INVALID FIELD IN CDB."""
    async with one_initiator(hw_max_sectors=64) as disk:
        await disk.write(length, 0, pattern(64 * 512))
        await disk.write(length, 0, pattern(65 * 512, 2), expect=InvalidFieldInCdb)
        assert await contents(disk, 0, 64) == pattern(64 * 512)


@pytest.mark.every_backstore
@ALL
async def test_write_residual_overflow_whole_blocks(disk: ApplicationClient, length: int) -> None:
    """FCP-4 9.4.2, RFC 7143 11.4.5: less data than the CDB asks for: what came is written, the rest is the overflow."""
    await disk.write(10, 0, b"a" * 1024)
    result = await disk.write(length, 0, b"b" * 512, blocks=2)
    assert (result.residual, result.overflow) == (512, True)
    assert await contents(disk, 0, 2) == b"b" * 512 + b"a" * 512
    result = await disk.write(length, 0, b"", blocks=1)
    assert (result.residual, result.overflow) == (512, True)
    assert await contents(disk, 0, 2) == b"b" * 512 + b"a" * 512


@ALL
@pytest.mark.parametrize("offered", [200, 700])
async def test_write_residual_overflow_part_of_a_block(disk: ApplicationClient, length: int, offered: int) -> None:
    """FCP-4 9.4.2 b): data that ends inside a block: all of it is written, or the command is refused and nothing is."""
    await disk.write(10, 0, b"a" * 1024)
    result = await disk.write(length, 0, b"b" * offered, blocks=2, expect=None)
    assert (result.residual, result.overflow) == (1024 - offered, True)
    if result.status is Status.GOOD:
        assert await contents(disk, 0, 2) == b"b" * offered + b"a" * (1024 - offered)
    else:
        check(result, InvalidFieldInCommandInformationUnit)
        assert await contents(disk, 0, 2) == b"a" * 1024


@pytest.mark.every_backstore
@ALL
async def test_write_residual_underflow(disk: ApplicationClient, length: int) -> None:
    """RFC 7143 11.4.5: more data than the CDB asks for: only what it asks for is written, the rest is the underflow."""
    await disk.write(10, 0, b"a" * 10240)
    for offered in (1024, 10000):
        result = await disk.write(length, 0, b"b" * offered, blocks=1)
        assert (result.residual, result.overflow) == (offered - 512, False)
        assert await contents(disk, 0, 20) == b"b" * 512 + b"a" * (10240 - 512)


async def start_withheld(disk: ApplicationClient, data: bytes, blocks: int | None = None) -> Result:
    command = disk.initiator.start(0, cdb.write(10, 0, blocks or len(data) // 512), data, withheld=True)
    await command.requested.wait()
    assert command.deliver(300) == min(len(data), (blocks or 99) * 512) - 300
    assert not command.done
    assert command.deliver(0) > 0
    assert command.deliver() == 0
    return await command.wait()


@pytest.mark.every_backstore
async def test_write_data_out_in_pieces(disk: ApplicationClient) -> None:
    """SAM-5 5.4.3.3: the target asks for the Data-Out, and the command goes on when all of it is there."""
    data = pattern(4 * 512)
    check(await start_withheld(disk, data), Status.GOOD)
    assert await contents(disk, 0, 4) == data


async def test_write_data_out_asks_for_no_more_than_it_needs(disk: ApplicationClient) -> None:
    """SAM-5 5.4.3.3: the target asks for as much as the CDB says, and no more than the initiator has."""
    data = pattern(4 * 512)
    result = await start_withheld(disk, data, blocks=2)
    assert (result.status, result.residual, result.overflow) == (Status.GOOD, 1024, False)
    assert await contents(disk, 0, 4) == data[:1024] + bytes(1024)
    result = await start_withheld(disk, data[:1024], blocks=4)
    assert (result.status, result.residual, result.overflow) == (Status.GOOD, 1024, True)


async def test_write_data_out_not_asked_for_when_refused(disk: ApplicationClient) -> None:
    """SBC-4 4.3.4: an error that shows in the CDB is reported before any data is moved."""
    command = disk.initiator.start(0, cdb.write(10, disk.blocks, 1), pattern(512), withheld=True)
    check(await command.wait(), LbaOutOfRange)
    assert not command.requested.is_set()


async def test_write_data_out_fails(disk: ApplicationClient) -> None:
    """SAM-5 5.4.3.3: if the transport cannot deliver, the command ends with the sense that it gives."""
    sense = Sense(key=SenseKey.ABORTED_COMMAND, asc=0x4B, ascq=0x00)
    command = disk.initiator.start(0, cdb.write(10, 0, 1), pattern(512), withheld=True)
    await command.requested.wait()
    command.fail_data_out(sense)
    result = await command.wait()
    assert (result.status, result.sense) == (Status.CHECK_CONDITION, sense)
    assert not any(await contents(disk, 0, 1))


async def test_write_express() -> None:
    """SBC-4 5.40: the express lane writes the same bytes, and refuses what it may not decide."""
    async with one_initiator(express=True) as disk:
        for length in (10, 16):
            data = pattern(8 * 512, length)
            assert (await disk.write(length, 8, data)).express
            assert await contents(disk, 8, 8) == data
        assert not (await disk.write(10, 8, data, fua=True)).express
        assert not (await disk.write(10, 8, data, blocks=4)).express
        assert not (await disk.write(10, disk.blocks, data, expect=LbaOutOfRange)).express


# WRITE ATOMIC (16)


@pytest.mark.every_backstore
async def test_write_atomic_simple(disk: ApplicationClient) -> None:
    """SBC-4 5.47: the blocks are what was written, at both ends of the medium."""
    for blocks in (1, 2, 8, 256):
        for lba in (0, disk.blocks - blocks):
            data = pattern(blocks * 512, blocks)
            await disk.write_atomic(lba, data)
            assert await contents(disk, lba, blocks) == data


async def test_write_atomic_beyond_end(disk: ApplicationClient) -> None:
    """SBC-4 4.3.4."""
    for blocks in (1, 2, 256):
        for lba in (disk.blocks + 1 - blocks, disk.blocks, 1 << 63, (1 << 64) - 1):
            await disk.write_atomic(lba, pattern(blocks * 512), expect=LbaOutOfRange)


async def test_write_atomic_zero_blocks(disk: ApplicationClient) -> None:
    """SBC-4 5.47: a TRANSFER LENGTH of zero is no error, but the LBA still has to exist."""
    await disk.write_atomic(0, b"")
    for lba in (disk.blocks + 1, 1 << 63, (1 << 64) - 1):
        await disk.write_atomic(lba, b"", expect=LbaOutOfRange)


async def test_write_atomic_protect_and_flags(disk: ApplicationClient) -> None:
    """SBC-4 table 96: WRPROTECT is refused; DPO and FUA are accepted."""
    for protect in range(1, 8):
        await disk.write_atomic(0, pattern(512), protect=protect, expect=InvalidFieldInCdb)
    for dpo, fua in ((True, False), (False, True), (True, True)):
        await disk.write_atomic(0, pattern(512), dpo=dpo, fua=fua)
    async with one_initiator(emulate_fua_write=False) as other:
        await other.write_atomic(0, pattern(512), dpo=True, expect=InvalidFieldInCdb)
        await other.write_atomic(0, pattern(512), fua=True, expect=InvalidFieldInCdb)


async def test_write_atomic_vpd(disk: ApplicationClient) -> None:
    """SBC-4 6.6.4: MAXIMUM ATOMIC TRANSFER LENGTH is not zero, not beyond MAXIMUM TRANSFER LENGTH, and kept."""
    limits = await disk.inquiry(0xB0)
    maximum, maximum_atomic = int.from_bytes(limits[8:12], "big"), int.from_bytes(limits[44:48], "big")
    assert 0 < maximum_atomic <= maximum
    async with one_initiator(hw_max_sectors=16) as small:
        limits = await small.inquiry(0xB0)
        assert int.from_bytes(limits[44:48], "big") == 16
        await small.write_atomic(0, pattern(16 * 512))
        await small.write_atomic(0, pattern(17 * 512), expect=InvalidFieldInCdb)


async def test_write_atomic_boundary(disk: ApplicationClient) -> None:
    """SBC-4 5.47: an ATOMIC BOUNDARY is refused while MAXIMUM ATOMIC BOUNDARY SIZE is zero."""
    limits = await disk.inquiry(0xB0)
    assert int.from_bytes(limits[60:64], "big") == 0
    await disk.write_atomic(0, pattern(1024), boundary=1, expect=InvalidFieldInCdb)


async def test_write_atomic_short_data_out(disk: ApplicationClient) -> None:
    """SBC-4 4.28: less than the whole transfer is not written at all."""
    result = await disk.write_atomic(0, pattern(512), blocks=2, expect=None)
    assert result.status is not Status.GOOD
    assert not any(await contents(disk, 0, 2))


# ORWRITE (16)


@pytest.mark.every_backstore
async def test_orwrite_simple(disk: ApplicationClient) -> None:
    """SBC-4 5.14: the result is the OR of what was there and what was sent."""
    for blocks in (1, 2, 8, 255):
        for lba in (0, disk.blocks - blocks):
            await disk.write(16, lba, bytes(blocks * 512))
            await disk.orwrite(lba, b"\xa5" * blocks * 512)
            assert await contents(disk, lba, blocks) == b"\xa5" * blocks * 512
            await disk.orwrite(lba, b"\x5a" * blocks * 512)
            assert await contents(disk, lba, blocks) == b"\xff" * blocks * 512


@pytest.mark.every_backstore
async def test_orwrite_bits(disk: ApplicationClient) -> None:
    """SBC-4 4.25: bit by bit, of arbitrary data."""
    old, new = pattern(4096, 1), pattern(4096, 2)
    await disk.write(10, 7, old)
    await disk.orwrite(7, new)
    assert await contents(disk, 7, 8) == bytes(a | b for a, b in zip(old, new, strict=True))


async def test_orwrite_beyond_end(disk: ApplicationClient) -> None:
    """SBC-4 4.3.4."""
    for blocks in (1, 2, 255):
        for lba in (disk.blocks + 1 - blocks, disk.blocks, 1 << 63, (1 << 64) - 1):
            await disk.orwrite(lba, b"\xff" * blocks * 512, expect=LbaOutOfRange)
    assert not any(await contents(disk, disk.blocks - 256, 256))


async def test_orwrite_zero_blocks(disk: ApplicationClient) -> None:
    """SBC-4 5.14: a TRANSFER LENGTH of zero is no error, but the LBA still has to exist."""
    await disk.orwrite(0, b"")
    for lba in (disk.blocks + 1, 1 << 63, (1 << 64) - 1):
        await disk.orwrite(lba, b"", expect=LbaOutOfRange)


async def test_orwrite_protect(disk: ApplicationClient) -> None:
    """SBC-4 table 44: an ORPROTECT other than zero is INVALID FIELD IN CDB."""
    for protect in range(1, 8):
        await disk.orwrite(0, b"\xff" * 512, protect=protect, expect=InvalidFieldInCdb)


async def test_orwrite_dpo_fua(disk: ApplicationClient) -> None:
    """SBC-4 5.14."""
    for dpo, fua in ((True, False), (False, True), (True, True)):
        await disk.orwrite(0, b"\x01" * 512, dpo=dpo, fua=fua)
    assert await contents(disk, 0, 1) == b"\x01" * 512


async def test_orwrite_residuals(disk: ApplicationClient) -> None:
    """RFC 7143 11.4.5: the blocks that came are ORed; more than the CDB asks for is an underflow."""
    result = await disk.orwrite(0, b"\x0f" * 1024, blocks=1)
    assert (result.residual, result.overflow) == (512, False)
    result = await disk.orwrite(0, b"\xf0" * 512, blocks=2)
    assert (result.residual, result.overflow) == (512, True)
    assert await contents(disk, 0, 2) == b"\xff" * 512 + bytes(512)
