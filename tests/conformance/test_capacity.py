"""READ CAPACITY (10), (16) (SBC-4 5.19, 5.20), READ DEFECT DATA (10), (12) (5.21, 5.22), block sizes, large disks."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.memory import GatedMemory
from support.scsi import SIZE, one_initiator, pattern, ramdisk, two_initiators
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.null import NullBackstore
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, LbaOutOfRange
from tcm.target.unit_attention import CAPACITY_DATA_HAS_CHANGED

pytestmark = pytest.mark.anyio


async def test_read_capacity10_simple(disk: ApplicationClient) -> None:
    """SBC-4 5.19: the LBA of the last block and the block length."""
    data = (await disk.execute(cdb.read_capacity10(), read_length=8)).data_in
    assert data == (SIZE // 512 - 1).to_bytes(4, "big") + (512).to_bytes(4, "big")


async def test_read_capacity10_pmi(disk: ApplicationClient) -> None:
    """SBC-4 5.19: PMI and LOGICAL BLOCK ADDRESS are obsolete; an LBA without PMI is refused or ignored, not misread."""
    result = await disk.execute(cdb.read_capacity10(5), read_length=8, expect=None)
    assert result.data_in in {b"", (SIZE // 512 - 1).to_bytes(4, "big") + (512).to_bytes(4, "big")}


async def test_read_capacity16_simple(disk: ApplicationClient) -> None:
    """SBC-4 5.20.2: last LBA, block length, no protection, physical block exponent, LBPME and LBPRZ; reserved bytes zero."""
    data = (await disk.execute(cdb.read_capacity16(), read_length=32)).data_in
    assert len(data) == 32
    assert data[:12] == (SIZE // 512 - 1).to_bytes(8, "big") + (512).to_bytes(4, "big")
    assert data[12] == 0
    assert data[13] & 0x0F == 3
    assert data[14] & 0xC0 == 0xC0
    assert data[15:] == bytes(17)


async def test_read_capacity16_allocation_length(disk: ApplicationClient) -> None:
    """SPC-5 4.2.5.6: the allocation length truncates and is no error, zero included."""
    full = (await disk.execute(cdb.read_capacity16(), read_length=32)).data_in
    for length in (*range(17), 31, 32):
        result = await disk.execute(cdb.read_capacity16(length), read_length=length)
        assert result.data_in == full[:length]
        assert result.residual == 0
    result = await disk.execute(cdb.read_capacity16(255), read_length=255)
    assert (result.data_in, result.residual, result.overflow) == (full, 223, False)


async def test_read_capacity16_protection(disk: ApplicationClient) -> None:
    """SBC-4 5.20.2: PROT_EN, P_TYPE and P_I_EXPONENT are zero until the medium is formatted with protection information."""
    data = (await disk.execute(cdb.read_capacity16(), read_length=32)).data_in
    assert data[12] == 0
    assert data[13] & 0xF0 == 0


@pytest.mark.parametrize("plist", [False, True])
@pytest.mark.parametrize("glist", [False, True])
async def test_read_defect_data10_simple(disk: ApplicationClient, plist: bool, glist: bool) -> None:
    """SBC-4 5.21: an empty list, in the format and of the kinds asked for."""
    command = cdb.read_defect_data10(32, plist=plist, glist=glist, list_format=0)
    data = (await disk.execute(command, read_length=32)).data_in
    assert data == bytes((0, plist << 4 | glist << 3, 0, 0))


@pytest.mark.parametrize("plist", [False, True])
@pytest.mark.parametrize("glist", [False, True])
async def test_read_defect_data12_simple(disk: ApplicationClient, plist: bool, glist: bool) -> None:
    """SBC-4 5.22: an empty list, in the format and of the kinds asked for."""
    command = cdb.read_defect_data12(32, plist=plist, glist=glist, list_format=0)
    data = (await disk.execute(command, read_length=32)).data_in
    assert len(data) == 8
    assert data[:2] == bytes((0, plist << 4 | glist << 3))
    assert data[4:] == bytes(4)


@pytest.mark.parametrize("block_size", [512, 1024, 2048, 4096])
async def test_block_size(block_size: int) -> None:
    """SBC-4 4.3.2: every command counts in blocks of the size that READ CAPACITY reports."""
    async with one_initiator(block_size=block_size) as disk:
        assert (disk.block_size, disk.blocks) == (block_size, SIZE // block_size)
        data = (await disk.execute(cdb.read_capacity16(), read_length=32)).data_in
        assert block_size << (data[13] & 0xF) == 4096
        assert (await disk.mode_sense(6, 0x3F))[9:12] == block_size.to_bytes(3, "big")
        content = pattern(16 * block_size)
        for lba in (0, disk.blocks - 16):
            await disk.write(10, lba, content)
            assert (await disk.read(16, lba, 16)).data_in == content
            assert (await disk.read(10, lba + 5, 1)).data_in == content[5 * block_size : 6 * block_size]
        await disk.read(10, disk.blocks, 1, expect=LbaOutOfRange)
        await disk.verify(10, 0, 16, content, bytchk=1)
        block = pattern(block_size, 2)
        await disk.write_same(16, 3, 5, block)
        await disk.compare_and_write(4, block, bytes(block_size))
        assert (await disk.read(10, 3, 2)).data_in == block + bytes(block_size)
        await disk.unmap((0, 16))
        assert not any((await disk.read(10, 0, 16)).data_in)
        limits = await disk.inquiry(0xB0)
        assert int.from_bytes(limits[28:32], "big") == 4096 // block_size
        disk.initiator.express = True
        assert (await disk.write(10, 8, content)).express
        assert (await disk.read(16, 8, 16)).express


async def test_large_disk() -> None:
    """SBC-4 5.19: beyond 2 TiB READ CAPACITY (10) saturates and 16-byte CDBs reach every block."""
    blocks = (5 << 40) // 512
    async with one_initiator(NullBackstore(5 << 40)) as disk:
        assert disk.blocks == blocks
        data = (await disk.execute(cdb.read_capacity10(), read_length=8)).data_in
        assert data == b"\xff\xff\xff\xff" + (512).to_bytes(4, "big")
        await disk.read(10, 0xFFFFFFFF, 1)
        await disk.read(12, 0xFFFFFFFF, 2)
        await disk.read(16, blocks - 1, 1)
        await disk.read(16, blocks, 1, expect=LbaOutOfRange)
        await disk.write(16, blocks - 8, bytes(4096))
        header = await disk.mode_sense(10, 0x3F, llbaa=True)
        assert header[4] & 1
        assert header[8:16] == blocks.to_bytes(8, "big")
        assert header[20:24] == (512).to_bytes(4, "big")
        short = await disk.mode_sense(6, 0x3F)
        assert short[4:8] == b"\xff\xff\xff\xff"


@pytest.mark.parametrize("express", [False, True])
async def test_large_disk_sparse_file(tmp_path: Path, express: bool) -> None:
    """SBC-4 4.3.4: data beyond 2 TiB is where it was put, and GET LBA STATUS knows it."""
    blocks = (3 << 40) // 512
    store = FileBackstore(str(tmp_path / "large"), 3 << 40)
    async with one_initiator(store, express=express) as disk:
        data = pattern(64 * 512)
        for lba in ((1 << 32) - 32, (1 << 32) + 64, blocks - 64):
            await disk.write(16, lba, data)
        for lba in ((1 << 32) - 32, (1 << 32) + 64, blocks - 64):
            assert (await disk.read(16, lba, 64)).data_in == data
        (_, length, status), *_ = await disk.get_lba_status(0)
        assert status == 1
        assert length > 1 << 20
        assert (await disk.get_lba_status((1 << 32) + 64))[0][2] == 0
        await disk.unmap(((1 << 32) + 64, 64))
        assert not any((await disk.read(16, (1 << 32) + 64, 64)).data_in)


async def test_exactly_2_tib() -> None:
    """SBC-4 5.19: FFFFFFFFh only says "too large" if the last LBA is beyond it."""
    async with one_initiator(NullBackstore(512 << 32)) as disk:
        data = (await disk.execute(cdb.read_capacity10(), read_length=8)).data_in
        assert data[:4] == b"\xff\xff\xff\xff"
        assert disk.blocks == 1 << 32
    async with one_initiator(NullBackstore((512 << 32) - 512)) as disk:
        data = (await disk.execute(cdb.read_capacity10(), read_length=8)).data_in
        assert data[:4] == b"\xff\xff\xff\xfe"


async def test_size_not_a_multiple_of_the_block_size() -> None:
    """SBC-4 4.3.2: what does not fill a block is not there."""
    async with one_initiator(ramdisk(SIZE + 512), block_size=4096) as disk:
        assert disk.blocks == SIZE // 4096
        await disk.read(10, disk.blocks, 1, expect=LbaOutOfRange)


async def test_read_capacity16_thick() -> None:
    """SBC-4 5.20.2: LBPME is zero for a fully provisioned unit."""
    async with one_initiator(GatedMemory(thin=False)) as disk:
        assert (await disk.execute(cdb.read_capacity16(), read_length=32)).data_in[14:16] == bytes(2)


async def test_read_capacity16_reserved_address(disk: ApplicationClient) -> None:
    """SBC-4 5.20: LOGICAL BLOCK ADDRESS is obsolete: refused or ignored, not misread."""
    result = await disk.execute(cdb.read_capacity16(32, lba=3), read_length=32, expect=None)
    if result.sense:
        assert (result.sense.asc, result.sense.ascq) == (InvalidFieldInCdb.asc, InvalidFieldInCdb.ascq)
    else:
        assert result.data_in[:8] == (disk.blocks - 1).to_bytes(8, "big")


@pytest.mark.parametrize("length", [10, 16])
async def test_read_capacity_resized(length: int) -> None:
    """SBC-4 4.10, SPC-5 table 54: a resize is in the next READ CAPACITY, and every nexus hears of it."""
    store = GatedMemory(1 << 20)
    command = cdb.read_capacity10() if length == 10 else cdb.read_capacity16()
    end = 4 if length == 10 else 8
    async with two_initiators(store) as clients:
        for size in (2 << 20, 1 << 19):
            store.data[:] = bytes(size)
            data = (await clients[0].execute(command, read_length=32)).data_in
            assert int.from_bytes(data[:end], "big") == size // 512 - 1
            for client in clients:
                await client.test_unit_ready(expect=CAPACITY_DATA_HAS_CHANGED)
                await client.read(10, size // 512 - 1, 1)
                await client.write(10, size // 512, bytes(512), expect=LbaOutOfRange)
        assert len(store.data) == 1 << 19
