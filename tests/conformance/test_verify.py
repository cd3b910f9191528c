"""VERIFY and WRITE AND VERIFY (10), (12), (16): SBC-4 5.34 to 5.36, 5.43 to 5.45."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest
from support.memory import GatedMemory
from support.scsi import one_initiator, pattern, two_initiators
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient, check

from tcm.backstore import Capabilities
from tcm.scsi import cdb
from tcm.scsi.check_condition import (
    InvalidFieldInCdb,
    InvalidFieldInCommandInformationUnit,
    LbaOutOfRange,
    MiscompareDuringVerify,
    UnrecoveredReadError,
)
from tcm.scsi.sense import Status
from tcm.target.medium import CHUNK

pytestmark = pytest.mark.anyio
LONG = pytest.mark.parametrize("length", [10, 12, 16])
HIGH = {10: 0xFFFFFFFF, 12: 0xFFFFFFFF, 16: 0xFFFFFFFFFFFFFFFF}


async def contents(disk: ApplicationClient, lba: int, blocks: int) -> bytes:
    return (await disk.read(16, lba, blocks)).data_in


def flip(data: bytes, at: int, mask: int = 0x58) -> bytes:
    return data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :]


@pytest.mark.every_backstore
@LONG
async def test_verify_simple(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.34: BYTCHK 00b asks for no data; 01b compares block by block."""
    for blocks in (1, 2, 8, 255, 256):
        for lba in (0, disk.blocks - blocks):
            data = pattern(blocks * 512, blocks)
            await disk.write(16, lba, data)
            await disk.verify(length, lba, blocks)
            await disk.verify(length, lba, blocks, data, bytchk=1)


@pytest.mark.every_backstore
@LONG
async def test_verify_mismatch(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.34: a difference is MISCOMPARE; INFORMATION is the offset of the first byte that differs."""
    for blocks, at in ((1, 0), (1, 511), (2, 512), (8, 3000), (256, 130000)):
        data = pattern(blocks * 512, blocks)
        await disk.write(10, 3, data)
        for mask in (0x01, 0x80, 0xFF):
            result = await disk.verify(length, 3, blocks, flip(data, at, mask), bytchk=1, expect=MiscompareDuringVerify)
            assert result.sense is not None
            assert result.sense.information == at


@LONG
async def test_verify_mismatch_no_compare(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.34: with BYTCHK 00b Data-Out is not looked at."""
    result = await disk.verify(length, 0, 2, b"\xff" * 1024, bytchk=0)
    assert (result.residual, result.overflow) == (1024, False)


@pytest.mark.every_backstore
@LONG
async def test_verify_bytchk_3(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.34: BYTCHK 11b compares every block with the one that is sent."""
    block = pattern(512)
    await disk.write(10, 8, block * 16)
    await disk.verify(length, 8, 16, block, bytchk=3)
    await disk.write(10, 20, flip(block, 100))
    result = await disk.verify(length, 8, 16, block, bytchk=3, expect=MiscompareDuringVerify)
    assert result.sense is not None
    assert result.sense.information == 12 * 512 + 100


@LONG
async def test_verify_bytchk_2(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.34: BYTCHK 10b is reserved."""
    await disk.verify(length, 0, 1, pattern(512), bytchk=2, expect=InvalidFieldInCdb)


@LONG
async def test_verify_residuals(disk: ApplicationClient, length: int) -> None:
    """RFC 7143 11.4.5: what came is compared; the rest is the overflow, and more than the CDB asks for the underflow."""
    data = pattern(1024)
    await disk.write(10, 0, data)
    result = await disk.verify(length, 0, 2, data[:512], bytchk=1)
    assert (result.residual, result.overflow) == (512, True)
    result = await disk.verify(length, 0, 2, flip(data, 3)[:512], bytchk=1, expect=MiscompareDuringVerify)
    assert (result.residual, result.overflow) == (512, True)
    result = await disk.verify(length, 0, 1, data[:512] + bytes(512), bytchk=1)
    assert (result.residual, result.overflow) == (512, False)
    result = await disk.verify(length, 0, 2, data[:700], bytchk=1, expect=None)
    assert (result.residual, result.overflow) == (324, True)


@LONG
async def test_verify_beyond_end(disk: ApplicationClient, length: int) -> None:
    """SBC-4 4.3.4, whatever BYTCHK is."""
    for bytchk in (0, 1):
        for blocks in (1, 2, 256):
            data = pattern(blocks * 512) if bytchk else b""
            for lba in (disk.blocks + 1 - blocks, disk.blocks, 1 << 31, HIGH[length]):
                await disk.verify(length, lba, blocks, data, bytchk=bytchk, expect=LbaOutOfRange)


@LONG
async def test_verify_zero_blocks(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.34: a VERIFICATION LENGTH of zero is no error, but the LBA still has to exist."""
    await disk.verify(length, 0, 0)
    for bytchk in (0, 1):
        for lba in (disk.blocks + 1, 1 << 31, HIGH[length]):
            await disk.verify(length, lba, 0, bytchk=bytchk, expect=LbaOutOfRange)


@LONG
async def test_verify_protect_and_dpo(disk: ApplicationClient, length: int) -> None:
    """SBC-4 table 83: a VRPROTECT other than zero is INVALID FIELD IN CDB; DPO is accepted, unless DPOFUA is zero."""
    for protect in range(1, 8):
        await disk.verify(length, 0, 1, protect=protect, expect=InvalidFieldInCdb)
    await disk.verify(length, 0, 1, dpo=True)
    async with one_initiator(emulate_fua_write=False) as other:
        await other.verify(length, 0, 1, dpo=True, expect=InvalidFieldInCdb)


@LONG
async def test_verify_reads_the_medium(length: int) -> None:
    """SBC-4 5.34: BYTCHK 00b reads from the medium: what cannot be read fails."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        await disk.verify(length, 4, 8)
        assert ("read", 4 * 512, 8 * 512) in store.log
        store.failure = OSError(5, "input/output error")
        await disk.verify(length, 4, 8, expect=UnrecoveredReadError)


@pytest.mark.every_backstore
@LONG
async def test_write_and_verify_simple(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.43: the blocks are written and read back, with and without BYTCHK."""
    for seed, (blocks, bytchk) in enumerate(((1, 0), (1, 1), (8, 0), (8, 1), (256, 0), (256, 1))):
        for lba in (0, disk.blocks - blocks):
            data = pattern(blocks * 512, seed)
            await disk.write_and_verify(length, lba, data, bytchk=bytchk)
            assert await contents(disk, lba, blocks) == data


@LONG
@pytest.mark.parametrize("bytchk", [0, 1])
async def test_write_and_verify_reads_back(length: int, bytchk: int) -> None:
    """SBC-4 5.43: the verification reads the medium after the write."""
    store = GatedMemory()
    async with one_initiator(store) as disk:
        store.log.clear()
        await disk.write_and_verify(length, 4, pattern(2 * 512), bytchk=bytchk)
    operations = [operation.split()[0] for operation, _, _ in store.log if operation != "flush"]
    assert operations == ["write", "read"]


class Corrupting(GatedMemory):
    """Writes the first byte wrong."""

    async def writev(self, buffers, offset, fua=False):  # type: ignore[no-untyped-def]  # as the base class
        await super().writev(buffers, offset, fua)
        self.data[offset] ^= 1


@LONG
async def test_write_and_verify_miscompare(length: int) -> None:
    """SBC-4 5.43: BYTCHK 01b notices that the medium holds something else; 00b does not compare."""
    async with one_initiator(Corrupting()) as disk:
        result = await disk.write_and_verify(length, 0, pattern(1024), bytchk=1, expect=MiscompareDuringVerify)
        assert result.sense is not None
        assert result.sense.information == 0
        await disk.write_and_verify(length, 0, pattern(1024), bytchk=0)


@LONG
async def test_write_and_verify_beyond_end(disk: ApplicationClient, length: int) -> None:
    """SBC-4 4.3.4."""
    for blocks in (1, 2, 256):
        for lba in (disk.blocks + 1 - blocks, disk.blocks, 1 << 31, HIGH[length]):
            await disk.write_and_verify(length, lba, pattern(blocks * 512), bytchk=1, expect=LbaOutOfRange)
    assert not any(await contents(disk, disk.blocks - 256, 256))


@LONG
async def test_write_and_verify_zero_blocks(disk: ApplicationClient, length: int) -> None:
    """SBC-4 5.43: zero blocks are no error, but the LBA still has to exist."""
    await disk.write_and_verify(length, 0, b"")
    for lba in (disk.blocks + 1, 1 << 31, HIGH[length]):
        await disk.write_and_verify(length, lba, b"", expect=LbaOutOfRange)


@LONG
async def test_write_and_verify_protect_and_flags(disk: ApplicationClient, length: int) -> None:
    """SBC-4 table 96: WRPROTECT is refused; DPO accepted unless DPOFUA is zero; BYTCHK 10b and 11b are refused."""
    for protect in range(1, 8):
        await disk.write_and_verify(length, 0, pattern(512), protect=protect, expect=InvalidFieldInCdb)
    await disk.write_and_verify(length, 0, pattern(512), dpo=True)
    for bytchk in (2, 3):
        await disk.write_and_verify(length, 0, pattern(512), bytchk=bytchk, expect=InvalidFieldInCdb)
    async with one_initiator(emulate_fua_write=False) as other:
        await other.write_and_verify(length, 0, pattern(512), dpo=True, expect=InvalidFieldInCdb)


@pytest.mark.every_backstore
@LONG
async def test_write_and_verify_residuals(disk: ApplicationClient, length: int) -> None:
    """RFC 7143 11.4.5: as for WRITE."""
    await disk.write(10, 0, b"a" * 10240)
    for data, blocks, residual, overflow in (
        (b"", 1, 512, True),
        (b"b" * 10000, 1, 10000 - 512, False),
        (b"c" * 1024, 1, 512, False),
        (b"d" * 512, 2, 512, True),
    ):
        result = await disk.write_and_verify(length, 0, data, blocks, bytchk=1)
        assert (result.residual, result.overflow) == (residual, overflow)
        assert (await contents(disk, 0, 20))[512:] == b"a" * (10240 - 512)
        if data:
            assert await contents(disk, 0, 1) == data[:512]
    result = await disk.write_and_verify(length, 0, b"e" * 200, 1, bytchk=1, expect=None)
    assert (result.residual, result.overflow) == (312, True)
    if result.status is not Status.GOOD:
        check(result, InvalidFieldInCommandInformationUnit)
        assert await contents(disk, 0, 1) == b"d" * 512


class HeldUp(RamdiskBackstore):
    """Keeps long reads, from the second on, until ``go`` is set."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.go, self.holds, self._long = anyio.Event(), anyio.Event(), 0

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), nowait=False)

    async def readv(self, buffers: Sequence[memoryview], offset: int) -> None:
        if sum(map(len, buffers)) == CHUNK:
            self._long += 1
            if self._long > 1:
                self.holds.set()
                await self.go.wait()
        await super().readv(buffers, offset)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("bytchk", [0, 3])
async def test_verify_keeps_nobody_waiting(kind: int, bytchk: int) -> None:
    """SBC-4 5.36: while all of a medium is verified, which may take hours, others' commands that are atomic go on."""
    store = HeldUp(4 << 20)
    async with two_initiators(store, pi_prot_type=kind) as (one, two):
        data = bytes(512) if bytchk else b""
        slow = one.initiator.start(0, cdb.verify(16, 0, one.blocks, bytchk=bytchk), data)
        with anyio.fail_after(60):
            await store.holds.wait()
            await two.compare_and_write(one.blocks - 1, bytes(512), pattern(512))
            await two.compare_and_write(one.blocks - 1, pattern(512), bytes(512))
            assert not slow.done
            store.go.set()
            assert (await slow.wait()).status is Status.GOOD
