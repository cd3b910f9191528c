"""EXTENDED COPY (LID1) and (LID4) that succeed: SPC-4 5.17, 6.4, 6.5."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support import copies, protection, scsi
from support.copies import LID, cscd_of, extended_copy
from support.scsi import FIRST, SECOND, SIZE, make_lu, make_target, one_initiator, pattern, target
from tcm_backstores.fileio import FileBackstore
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import copy_cdb
from tcm.scsi.check_condition import InvalidFieldInCdb, InvalidOpcode
from tcm.scsi.copy_cdb import THIS_UNIT, block_to_block, block_to_block_with_offsets
from tcm.scsi.copy_sense import UnreachableCopyTarget
from tcm.scsi.sense import SenseKey, Status
from tcm.target.device_designators import unit_designators

pytestmark = pytest.mark.anyio
Two = list[ApplicationClient]
DATA = pattern(SIZE)


@pytest.fixture(params=["ramdisk", "fileio"])
async def two(request: pytest.FixtureRequest, tmp_path) -> AsyncIterator[Two]:
    """Two units of one kind behind one I_T nexus; the first one is full."""
    stores = [FileBackstore(str(tmp_path / name), SIZE) for name in "ab"] if request.param == "fileio" else [None, None]
    async with target(*stores) as port:
        found = copies.clients(port)
        for client in found:
            await client.identify()
        await found[0].write(16, 0, DATA)
        yield found


async def contents(client: ApplicationClient, lba: int = 0, blocks: int | None = None) -> bytes:
    return (await client.read(16, lba, client.blocks if blocks is None else blocks)).data_in


@pytest.mark.parametrize("lid4", LID)
async def test_extended_copy_between_units(two: Two, lid4: bool) -> None:
    """SPC-4 6.4.6.4: the blocks of the source are at the destination, and nothing else is, whichever unit is told."""
    ids = (1, 2) if lid4 else (0, 1)
    for teller, place in ((0, 100), (1, 2000)):
        before = await contents(two[1])
        segment = block_to_block(ids[0], 8, ids[1], place, 1000)
        await extended_copy(two[teller], [cscd_of(client) for client in two], segment, lid4=lid4)
        start, end = place * 512, (place + 1000) * 512
        assert await contents(two[1]) == before[:start] + DATA[8 * 512 : 1008 * 512] + before[end:]
    assert await contents(two[0]) == DATA


@pytest.mark.parametrize("lid4", LID)
async def test_extended_copy_within_a_unit(two: Two, lid4: bool) -> None:
    """SPC-4 table 148: FFFFh is the unit that the command was sent to."""
    await extended_copy(two[0], [], block_to_block(THIS_UNIT, 0, THIS_UNIT, 3000, 1000), lid4=lid4)
    assert await contents(two[0]) == DATA[: 3000 * 512] + DATA[: 1000 * 512] + DATA[4000 * 512 :]


@pytest.mark.parametrize("distance", [-1000, -1, 0, 1, 1000])
async def test_extended_copy_overlap(two: Two, distance: int) -> None:
    """SPC-4 6.4.5.3: a block is read before it is written in the same segment, wherever the ranges overlap."""
    await extended_copy(two[0], [], block_to_block(THIS_UNIT, 1200, THIS_UNIT, 1200 + distance, 1500))
    expected = bytearray(DATA)
    expected[(1200 + distance) * 512 : (2700 + distance) * 512] = DATA[1200 * 512 : 2700 * 512]
    assert await contents(two[0]) == expected


async def test_extended_copy_many_segments(two: Two) -> None:
    """SPC-4 6.4.6: segments are processed in their order: what one writes, the next reads."""
    cscds = [cscd_of(client) for client in two]
    segments = [block_to_block(0, i, 1, 2 * i, 1) for i in range(100)] + [block_to_block(1, 0, 0, 1000, 200)]
    await extended_copy(two[0], cscds, *segments)
    found = await contents(two[0], 1000, 200)
    assert all(found[2 * i * 512 : (2 * i + 1) * 512] == DATA[i * 512 : (i + 1) * 512] for i in range(100))


async def test_extended_copy_nothing(two: Two) -> None:
    """SPC-4 6.4.1, 6.4.6.4: no parameter list, no segments, and segments of no blocks are no errors, wherever they are."""
    await two[0].execute(copy_cdb.extended_copy(0))
    await two[0].execute(copy_cdb.extended_copy(0, lid4=True))
    await extended_copy(two[0], [])
    await extended_copy(two[0], [cscd_of(two[1])])
    for lba in (0, two[0].blocks, (1 << 64) - 1):
        await extended_copy(two[0], [cscd_of(two[1])], block_to_block(THIS_UNIT, lba, 0, lba, 0))
        await extended_copy(two[0], [cscd_of(two[1])], block_to_block_with_offsets(THIS_UNIT, lba, 0, 0, lba, 0, 0))
    assert not any(await contents(two[1]))


async def test_extended_copy_designators(two: Two) -> None:
    """SPC-4 6.4.5.6: a unit is found by a designator of its Device Identification page that fits; NUL and LU ID TYPE count
    nothing; another association or code set designates something else."""
    naa, t10 = unit_designators(scsi.logical_unit(two[1]))
    assert len(t10.data) > 20
    good = bytearray(copy_cdb.cscd(naa, block_length=512))
    good[1] |= 0xE0
    good[2:4] = b"\x12\x34"
    await extended_copy(two[0], [bytes(good)], block_to_block(THIS_UNIT, 0, 0, 0, 1))
    for byte, value in ((4, 0x02), (5, 0x13), (5, 0x02), (7, 15), (23, good[23] ^ 1)):
        bad = bytearray(good)
        bad[byte] = value
        await extended_copy(two[0], [bytes(bad)], block_to_block(THIS_UNIT, 0, 0, 0, 1), expect=UnreachableCopyTarget)


async def test_extended_copy_header_bits(two: Two) -> None:
    """SPC-4 6.4.3: STR and any PRIORITY are taken; so are CAT and PAD where there is no residue."""
    cscds = [cscd_of(client, pad=True) for client in two]
    for priority in range(8):
        fields = {"priority": priority, "striped": bool(priority & 1)}
        await extended_copy(two[0], cscds, block_to_block(0, 0, 1, 0, 8, cat=True), **fields)
    assert await contents(two[1], 0, 8) == DATA[:4096]


async def test_extended_copy_g_sense(two: Two) -> None:
    """SPC-4 6.4.2: with G_SENSE, GOOD status comes with COMPLETED, EXTENDED COPY INFORMATION AVAILABLE and the number of
    segments."""
    segments = [block_to_block(THIS_UNIT, 0, THIS_UNIT, 100, 1)] * 3
    result = await extended_copy(two[0], [], *segments, lid4=True, g_sense=True)
    assert result.sense is not None
    assert (result.sense.key, result.sense.asc, result.sense.ascq) == (SenseKey.COMPLETED, 0x00, 0x20)
    assert result.sense.command_specific == 3
    assert (await extended_copy(two[0], [], *segments, lid4=True)).sense is None


@pytest.mark.parametrize("dc", [False, True])
@pytest.mark.parametrize("sizes", [(512, 4096), (4096, 512)])
async def test_extended_copy_block_sizes(sizes: tuple[int, int], dc: bool) -> None:
    """SPC-4 6.4.6.4: DC says whose blocks the number of blocks counts."""
    async with (
        make_lu(serial="00000001-2222-3333-4444-555555555555", block_size=sizes[0]) as one,
        make_lu(serial="00000002-2222-3333-4444-555555555555", block_size=sizes[1]) as other,
    ):
        port = make_target(one, other)
        first, second = copies.clients(port)
        await first.identify()
        await second.identify()
        await first.write(16, 0, DATA)
        count = 64 * 4096 // sizes[dc]
        cscds = [cscd_of(first), cscd_of(second)]
        await extended_copy(first, cscds, block_to_block(0, 8192 // sizes[0], 1, 4096 // sizes[1], count, dc=dc))
        found = await contents(second)
        assert found == bytes(4096) + DATA[8192 : 8192 + 64 * 4096] + bytes(SIZE - 65 * 4096)
        first.initiator.disconnect()


async def test_extended_copy_byte_offsets(two: Two) -> None:
    """SPC-4 6.4.6.12: bytes from within a block to within a block; the rest of the first and the last block stays."""
    await two[1].write(16, 0, pattern(SIZE, 2))
    await extended_copy(
        two[0], [cscd_of(client) for client in two], block_to_block_with_offsets(0, 3, 511, 1, 700, 100, 100_000)
    )
    expected = bytearray(pattern(SIZE, 2))
    expected[700 * 512 + 100 : 700 * 512 + 100_100] = DATA[3 * 512 + 511 : 3 * 512 + 100_511]
    assert await contents(two[1]) == expected


async def test_extended_copy_other_targets() -> None:
    """SPC-4 6.4.5.6: a unit behind another target port is reached if the initiator has a session there, and only then."""
    async with (
        make_lu(serial="00000001-2222-3333-4444-555555555555") as one,
        make_lu(serial="00000002-2222-3333-4444-555555555555") as other,
    ):
        ports = [make_target(one), make_target(other, name="naa.50014050000000bb")]
        devices = [port.target_portal_group.target for port in ports]
        for device in devices:
            device.peers = devices
        first = ApplicationClient(ports[0].connect(FIRST))
        await first.identify()
        await first.write(16, 0, DATA)
        stranger = ports[1].connect(SECOND)
        cscd = copy_cdb.cscd(unit_designators(other)[0])
        segment = block_to_block(THIS_UNIT, 0, 0, 0, 8)
        await extended_copy(first, [cscd], segment, expect=UnreachableCopyTarget)
        second = ApplicationClient(ports[1].connect(FIRST))
        await second.identify()
        await extended_copy(first, [cscd], segment)
        assert await contents(second, 0, 8) == DATA[:4096]
        second.initiator.disconnect()
        await extended_copy(first, [cscd], segment, expect=UnreachableCopyTarget)
        for initiator in (first.initiator, stranger):
            initiator.disconnect()


async def test_extended_copy_not_offered() -> None:
    """LIO's emulate_3pc=0: no commands, no 3PC bit, no VPD page, and no way in from other units."""
    async with (
        make_lu(serial="00000001-2222-3333-4444-555555555555") as one,
        make_lu(serial="00000002-2222-3333-4444-555555555555", emulate_3pc=False) as closed,
    ):
        port = make_target(one, closed)
        first, second = copies.clients(port)
        for client, offered in ((first, True), (second, False)):
            await client.identify()
            assert bool((await client.inquiry())[5] & 0x08) is offered
            assert (0x8F in (await client.inquiry(0x00))[4:]) is offered
            await client.inquiry(0x8F, expect=Status.GOOD if offered else InvalidFieldInCdb)
            await client.execute(copy_cdb.extended_copy(0), expect=Status.GOOD if offered else InvalidOpcode)
        await extended_copy(first, [cscd_of(second)], block_to_block(THIS_UNIT, 0, 0, 0, 1), expect=UnreachableCopyTarget)
        first.initiator.disconnect()


async def test_extended_copy_thin() -> None:
    """SBC-4 4.7: blocks that were never written at the source are not allocated at the destination."""
    async with target(RamdiskBackstore(SIZE), RamdiskBackstore(SIZE)) as port:
        first, second = copies.clients(port)
        await first.identify()
        await second.identify()
        await first.write(16, 800, DATA[:4096])
        await second.write(16, 0, DATA)
        await extended_copy(first, [cscd_of(second)], block_to_block(THIS_UNIT, 0, 0, 0, 4096))
        assert await contents(second) == await contents(first)
        assert await second.get_lba_status(0) == await first.get_lba_status(0) == [(0, 800, 1), (800, 8, 0), (808, 3288, 1)]


@pytest.mark.parametrize("formatted", [0, 1])
async def test_extended_copy_protected(two: Two, formatted: int) -> None:
    """SBC-4 4.21: a copy to a unit with protection information makes it; one from there checks it, and the data arrive."""
    await protection.format_unit(two[formatted], 1)
    if not formatted:
        await two[0].write(16, 0, DATA[: 1000 * 512])
    await extended_copy(two[0], [cscd_of(two[1])], block_to_block(THIS_UNIT, 0, 0, 8, 1000))
    assert await contents(two[1], 8, 1000) == DATA[: 1000 * 512]
    if formatted:
        found = await protection.protection(two[1], 8, 1000)
        assert found == protection.tuples(DATA[: 1000 * 512], 8)


async def test_extended_copy_vpd() -> None:
    """SPC-4 7.8.17: descriptors in ascending order, each a multiple of four bytes; the commands are those of the table."""
    async with one_initiator() as disk:
        page = await disk.inquiry(0x8F)
        assert page[:2] == b"\x00\x8f"
        assert len(page) == 4 + int.from_bytes(page[2:4])
        found: dict[int, bytes] = {}
        offset = 4
        while offset < len(page):
            length = int.from_bytes(page[offset + 2 : offset + 4])
            assert length % 4 == 0
            found[int.from_bytes(page[offset : offset + 2])] = page[offset + 4 : offset + 4 + length]
            offset += 4 + length
        assert list(found) == sorted(found)
        assert {0x0001, 0x0004, 0x0008, 0x000C, 0x8001} <= set(found)
        commands = found[0x0001]
        assert commands[1] == 0x83
        assert {0x00, 0x01, 0x1C} <= set(commands[3 : 3 + commands[2]])
        received = commands[3 + commands[2] :]
        assert received[0] == 0x84
        assert {0x00, 0x03, 0x04, 0x05} <= set(received[2 : 2 + received[1]])
        assert found[0x0008][1 : 1 + found[0x0008][0]] == b"\x02\x0a\xe4"
        assert found[0x000C][2:4] == b"\xff\xff"
