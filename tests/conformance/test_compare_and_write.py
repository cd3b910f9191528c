"""COMPARE AND WRITE: SBC-4 5.3."""

from __future__ import annotations

import anyio
import pytest
from support.memory import GatedMemory
from support.scsi import one_initiator, pattern, two_initiators
from tcm_loopback.commands import ApplicationClient, check

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidOpcode, LbaOutOfRange, MiscompareDuringVerify
from tcm.scsi.sense import Status

pytestmark = pytest.mark.anyio
A, B = b"A" * 512, b"B" * 512


async def contents(disk: ApplicationClient, lba: int, blocks: int) -> bytes:
    return (await disk.read(16, lba, blocks)).data_in


@pytest.mark.every_backstore
async def test_compare_and_write_simple(disk: ApplicationClient) -> None:
    """SBC-4 5.3: equal blocks are replaced, at both ends of the medium."""
    for blocks in (1, 2, 8, 255):
        for lba in (0, disk.blocks - blocks):
            old, new = pattern(blocks * 512, 1), pattern(blocks * 512, 2)
            await disk.write(16, lba, old)
            result = await disk.compare_and_write(lba, old, new)
            assert result.residual == 0
            assert await contents(disk, lba, blocks) == new


@pytest.mark.every_backstore
async def test_compare_and_write_miscompare(disk: ApplicationClient) -> None:
    """SBC-4 5.3: a difference is MISCOMPARE with the offset in INFORMATION, and nothing is written."""
    for blocks, at in ((1, 0), (1, 511), (2, 513), (255, 100_000)):
        old = pattern(blocks * 512, 1)
        await disk.write(10, 5, old)
        wrong = old[:at] + bytes((old[at] ^ 1,)) + old[at + 1 :]
        result = await disk.compare_and_write(5, wrong, pattern(blocks * 512, 2), expect=MiscompareDuringVerify)
        assert result.sense is not None
        assert result.sense.information == at
        assert await contents(disk, 5, blocks) == old


@pytest.mark.every_backstore
async def test_compare_and_write_unwritten(disk: ApplicationClient) -> None:
    """SBC-4 4.7.3: blocks never written compare as the zeroes that they read as."""
    for lba in (0, 1, 256):
        await disk.compare_and_write(lba, b"%" * 512, B, expect=MiscompareDuringVerify)
        await disk.compare_and_write(lba, bytes(512), B)
        assert await contents(disk, lba, 1) == B


async def test_compare_and_write_beyond_end(disk: ApplicationClient) -> None:
    """SBC-4 4.3.4."""
    for blocks in (1, 2, 255):
        for lba in (disk.blocks + 1 - blocks, disk.blocks, 1 << 63, (1 << 64) - 1):
            await disk.compare_and_write(lba, bytes(blocks * 512), A * blocks, expect=LbaOutOfRange)


async def test_compare_and_write_zero_blocks(disk: ApplicationClient) -> None:
    """SBC-4 5.3: zero blocks compare nothing and write nothing, but the LBA still has to exist."""
    await disk.compare_and_write(0, b"", b"")
    await disk.compare_and_write(disk.blocks + 1, b"", b"", expect=LbaOutOfRange)


async def test_compare_and_write_protect(disk: ApplicationClient) -> None:
    """SBC-4 table 96: a WRPROTECT other than zero is INVALID FIELD IN CDB."""
    for protect in range(1, 8):
        await disk.compare_and_write(0, bytes(512), A, protect=protect, expect=InvalidFieldInCdb)
    assert not any(await contents(disk, 0, 1))


async def test_compare_and_write_dpo_fua(disk: ApplicationClient) -> None:
    """SBC-4 5.3: DPO and FUA are accepted, unless DPOFUA is zero."""
    await disk.compare_and_write(0, bytes(512), A, dpo=True)
    await disk.compare_and_write(0, A, B, fua=True)
    await disk.compare_and_write(0, B, A, dpo=True, fua=True)
    async with one_initiator(emulate_fua_write=False) as other:
        await other.compare_and_write(0, bytes(512), A, dpo=True, expect=InvalidFieldInCdb)
        await other.compare_and_write(0, bytes(512), A, fua=True, expect=InvalidFieldInCdb)


async def test_compare_and_write_invalid_data_out_size(disk: ApplicationClient) -> None:
    """SBC-4 5.3: the Data-Out is twice the blocks: other sizes are refused and nothing is written."""
    for blocks in (1, 3):
        result = await disk.compare_and_write(0, bytes(1024), A + A, blocks=blocks, expect=None)
        assert result.status is Status.CHECK_CONDITION
        assert result.sense is not None
        assert result.sense.key == 5
    assert not any(await contents(disk, 0, 4))


async def test_compare_and_write_maximum_length() -> None:
    """SBC-4 6.6.4: more than MAXIMUM COMPARE AND WRITE LENGTH is INVALID FIELD IN CDB."""
    async with one_initiator(hw_max_sectors=16) as disk:
        maximum = (await disk.inquiry(0xB0))[5]
        assert maximum == 16
        await disk.compare_and_write(0, bytes(maximum * 512), A * maximum)
        blocks = maximum + 1
        await disk.compare_and_write(0, bytes(blocks * 512), A * blocks, expect=InvalidFieldInCdb)


async def test_compare_and_write_not_supported() -> None:
    """SBC-4 6.6.4: MAXIMUM COMPARE AND WRITE LENGTH zero: the command does not exist."""
    async with one_initiator(emulate_caw=False) as disk:
        assert (await disk.inquiry(0xB0))[5] == 0
        await disk.compare_and_write(0, bytes(512), A, expect=InvalidOpcode)


async def test_compare_and_write_atomic() -> None:
    """SBC-4 5.3: of several at once with the same compare data exactly one succeeds, whichever nexus it came by."""
    async with two_initiators(GatedMemory()) as clients:
        commands = [
            client.initiator.start(0, cdb.compare_and_write(3, 1), bytes(512) + bytes((i,)) * 512)
            for i, client in enumerate(clients * 8, start=1)
        ]
        with anyio.fail_after(60):
            results = [await command.wait() for command in commands]
        winners = [i for i, result in enumerate(results, start=1) if result.status is Status.GOOD]
        assert len(winners) == 1
        for i, result in enumerate(results, start=1):
            if i not in winners:
                check(result, MiscompareDuringVerify)
        assert await contents(clients[0], 3, 1) == bytes(winners) * 512


async def test_compare_and_write_excludes_overlapping_writes() -> None:
    """SBC-4 5.3: no other write comes between the comparison and the write; one elsewhere need not wait."""
    store = GatedMemory()
    async with two_initiators(store) as (one, two):
        store.shut()
        first = one.initiator.start(0, cdb.compare_and_write(0, 2), bytes(1024) + A * 2)
        await store.until_waiting(1)
        overlapping = two.initiator.start(0, cdb.write(10, 1, 1), B)
        elsewhere = two.initiator.start(0, cdb.write(10, 64, 1), B)
        await store.until_waiting(2)
        assert ("write", 512, 512) not in store.waiting
        store.release()
        for command in (first, overlapping, elsewhere):
            check(await command.wait(), Status.GOOD)
        assert await contents(one, 0, 2) == A + B
