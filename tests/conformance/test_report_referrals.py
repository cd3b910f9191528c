"""REPORT REFERRALS and the state logical block dependent: SBC-4 4.26, 5.28, 6.6.8; SPC-4 5.16.2.4.7."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.ports import TwoPorts, two_ports
from support.scsi import pattern
from support.tokens import populate_data, write_data
from tcm_loopback.commands import ApplicationClient

from tcm.scsi import cdb
from tcm.scsi.asymmetric_access import AccessState
from tcm.scsi.check_condition import (
    InspectReferralsSenseDescriptors,
    InvalidFieldInCdb,
    LbaOutOfRange,
    TargetPortInStandbyState,
    TargetPortInUnavailableState,
)
from tcm.scsi.referrals import parse_lba_map, report_referrals_data
from tcm.scsi.rod_tokens import zero_token

pytestmark = pytest.mark.anyio
MAP = "0 0\n0 99 1:O 2:O\n100 199 1:O 2:S\n200 299 1:O 2:U\n300 399 1:U 2:U\n400 4000 1:A 2:A\n"


@pytest.fixture
async def ways() -> AsyncIterator[TwoPorts]:
    async with two_ports() as made:
        made.unit.asymmetric_access.set_lba_map(parse_lba_map(MAP))
        await made.put(AccessState.LOGICAL_BLOCK_DEPENDENT)
        yield made


async def test_report_referrals_segments(ways: TwoPorts) -> None:
    """SBC-4 5.28.1: from the segment of the LBA on, or that one only; any allocation length."""
    assert ways.unit.asymmetric_access.lba_map is not None
    segments = ways.unit.asymmetric_access.lba_map.segments
    one = ways.clients[0]
    for lba, first in ((0, 0), (99, 0), (100, 1), (399, 3), (4000, 4)):
        data = (await one.execute(cdb.report_referrals(lba), read_length=4096)).data_in
        assert data == report_referrals_data(segments[first:])
        data = (await one.execute(cdb.report_referrals(lba, one_segment=True), read_length=4096)).data_in
        assert data == report_referrals_data([segments[first]])
    for length in range(len(data) + 2):
        assert (await one.execute(cdb.report_referrals(4000, length), read_length=4096)).data_in == data[:length]
    assert (await one.execute(cdb.report_referrals(4001), read_length=4096)).data_in == bytes(4)
    for lba in (4096, 1 << 63):
        await one.execute(cdb.report_referrals(lba), read_length=4096, expect=LbaOutOfRange)


async def test_report_referrals_not_supported(disk: ApplicationClient) -> None:
    """SBC-4 5.28.1: without a map there is no such command, R_SUP is zero and the page says nothing."""
    result = await disk.execute(cdb.report_referrals(), read_length=4096, expect=InvalidFieldInCdb)
    assert result.sense is not None
    assert result.sense.sense_key_specific == bytes((0xCC, 0, 1))
    assert not (await disk.inquiry(0x86))[8] & 0x10
    assert (await disk.inquiry(0xB3))[4:] == bytes(12)


async def test_inquiry_referrals() -> None:
    """SBC-4 6.6.8, SPC-5 7.7.7: R_SUP, USER DATA SEGMENT SIZE and MULTIPLIER."""
    async with two_ports() as ways:
        ways.unit.asymmetric_access.set_lba_map(parse_lba_map("8 2\n0 4087 1:O 2:U\n8 4095 1:U 2:O"))
        for client in ways.clients:
            assert (await client.inquiry(0x86))[8] & 0x10
            assert (await client.inquiry(0xB3))[4:] == bytes.fromhex("00000000 00000008 00000002")
        ways.unit.asymmetric_access.set_lba_map(None)
        assert not (await ways.clients[0].inquiry(0x86))[8] & 0x10


ACCESSES = {
    "READ (6)": lambda lba, blocks: (cdb.read(6, lba, blocks), b""),
    "READ (10)": lambda lba, blocks: (cdb.read(10, lba, blocks), b""),
    "READ (16)": lambda lba, blocks: (cdb.read(16, lba, blocks), b""),
    "WRITE (12)": lambda lba, blocks: (cdb.write(12, lba, blocks), bytes(512 * blocks)),
    "VERIFY (10)": lambda lba, blocks: (cdb.verify(10, lba, blocks), b""),
    "WRITE SAME (16)": lambda lba, blocks: (cdb.write_same(16, lba, blocks), bytes(512)),
    "COMPARE AND WRITE": lambda lba, blocks: (cdb.compare_and_write(lba, blocks), bytes(1024 * blocks)),
    "WRITE ATOMIC (16)": lambda lba, blocks: (cdb.write_atomic(lba, blocks), bytes(512 * blocks)),
    "ORWRITE (16)": lambda lba, blocks: (cdb.orwrite(lba, blocks), bytes(512 * blocks)),
    "PRE-FETCH (10)": lambda lba, blocks: (cdb.pre_fetch(10, lba, blocks), b""),
    "UNMAP": lambda lba, blocks: (cdb.unmap(40), cdb.unmap_parameters((5, 1), (lba, blocks))),
    "POPULATE TOKEN": lambda lba, blocks: (cdb.populate_token(1, 48), populate_data((5, 1), (lba, blocks))),
    "WRITE USING TOKEN": lambda lba, blocks: (cdb.write_using_token(1, 568), write_data(zero_token(), (5, 1), (lba, blocks))),
}


@pytest.mark.parametrize("name", ACCESSES)
async def test_alua_logical_block_dependent(ways: TwoPorts, name: str) -> None:
    """SPC-4 5.16.2.4.7: the blocks decide, the first of them that the port does not reach says why; nothing is done."""
    one, two = ways.clients
    await one.write(10, 90, pattern(20 * 512))
    for lba, blocks, expect in (
        (95, 6, TargetPortInStandbyState),
        (199, 2, TargetPortInStandbyState),
        (250, 1, TargetPortInUnavailableState),
        (399, 2, TargetPortInUnavailableState),
        (4000, 2, TargetPortInUnavailableState),
    ):
        line, data = ACCESSES[name](lba, blocks)
        await two.execute(line, data, read_length=512 * blocks, expect=expect)
    assert (await one.read(10, 90, 20)).data_in == pattern(20 * 512)
    for lba, blocks in ((0, 1), (89, 1), (400, 8)):
        line, data = ACCESSES[name](lba, blocks)
        result = await two.execute(line, data, read_length=512 * blocks, expect=None)
        assert result.sense is None
    line, data = ACCESSES[name](4090, 7)
    await two.execute(line, data, read_length=512 * 7, expect=LbaOutOfRange if name != "PRE-FETCH (10)" else None)


async def test_alua_logical_block_dependent_to_the_end(ways: TwoPorts) -> None:
    """SBC-4 5.52, 5.10: no blocks are all blocks to the end for WRITE SAME and PRE-FETCH, and none for READ."""
    two = ways.clients[1]
    await two.write_same(10, 50, 0, bytes(512), expect=TargetPortInStandbyState)
    await two.execute(cdb.pre_fetch(10, 50, 0), expect=TargetPortInStandbyState)
    await two.read(10, 150, 0)


async def test_alua_logical_block_dependent_referral(ways: TwoPorts) -> None:
    """SBC-4 4.26.3: with descriptor sense data: where else the blocks are; what no port reaches is just unavailable."""
    two = ways.clients[1]
    page = bytearray((await two.mode_sense(10, 0x0A, dbd=True))[8:])
    page[0] &= 0x7F
    page[2] |= 0x04
    await two.execute(cdb.mode_select(10, 8 + len(page)), bytes(8) + bytes(page))
    await ways.settle()
    result = await two.read(10, 95, 10, expect=InspectReferralsSenseDescriptors)
    data = result.sense_data
    assert data[:4] == bytes((0x72, 0x0B, 0x3F, 0x15))
    assert ways.unit.asymmetric_access.lba_map is not None
    segments = ways.unit.asymmetric_access.lba_map.segments[1:]
    assert data[8:12] == bytes((0x0B, data[7] - 2, 0, 0))
    assert data[12:] == b"".join(segment.pack() for segment in segments)
    await two.read(10, 350, 1, expect=TargetPortInUnavailableState)


async def test_alua_logical_block_dependent_not_named(ways: TwoPorts) -> None:
    """SBC-4 4.18.4: a group that a segment does not name does not reach it (LIO lets it through)."""
    ways.unit.asymmetric_access.set_lba_map(parse_lba_map("0 0\n0 4095 1:O"))
    await ways.clients[1].read(10, 0, 1, expect=TargetPortInUnavailableState)
    await ways.clients[1].test_unit_ready()
