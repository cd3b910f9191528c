"""The FCP target without an N_Port: commands, data both ways, limits (FCP-4)."""

from __future__ import annotations

from collections import Counter

import pytest
from support.fcp_session import DPO, LINUX, TEST_UNIT_READY, fcp_initiator, fcp_site, read10, unpack, write10, write16
from support.scsi import pattern
from tcm_fcoe.protocol.fcp import InformationUnit, Response
from tcm_fcoe.protocol.fcp_answered import GENERATION
from tcm_fcoe.protocol.fcp_memory import PORT_LIMIT, RESERVE
from tcm_fcoe.protocol.fcp_target import RETAIN_SECONDS

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("bits", [0, DPO], ids=["express", "general"])
@pytest.mark.parametrize("blocks", [1, 4, 5, 8, 128, 129, 1000])
async def test_write_and_read_back(bits: int, blocks: int) -> None:
    data = pattern(blocks * 512)
    async with fcp_initiator(burst_length=65536) as i:
        i.write(16, data, bits)
        assert i.read(16, blocks, bits) == data
        counters = i.site.target.counters
        assert (counters.express_reads, counters.express_writes) == ((1, 1) if not bits else (0, 0))
        assert counters.data_in_bytes == counters.data_out_bytes == len(data)
        assert not i.nexus.exchanges
        assert (i.nexus.data_in.used, i.nexus.data_out.used) == (0, 0)


async def test_write_16() -> None:
    async with fcp_initiator() as i:
        data = pattern(4096)
        assert i.give(i.command(write16(8, 8), write=4096), data) == Response()
        assert i.read(8, 8) == data


async def test_frames_of_a_read_are_made_as_the_link_takes_them() -> None:
    async with fcp_initiator() as i:
        data = pattern(1 << 20)
        i.write(0, data)
        ox_id = i.command(read10(0, 2048), read=1 << 20)
        assert 0 < len(i.site.outbox) < 600 < (1 << 20) // 2112 * 2
        response, read = i.outcome(ox_id)
        assert (response, read) == (Response(), data)


async def test_inquiry_and_residual() -> None:
    async with fcp_initiator() as i:
        response, data = i.outcome(i.command(bytes((0x12, 0, 0, 0, 36, 0)), read=96))
        assert len(data) == 36
        assert (response.status, response.residual, response.overflow) == (0, 60, False)
        response, data = i.outcome(i.command(read10(0, 2), read=512))
        assert (len(data), response.residual, response.overflow) == (512, 512, True)
        ox_id = i.command(write10(0, 2), write=512)
        response = i.give(ox_id, pattern(512))
        assert (response.status, response.residual, response.overflow) == (0, 512, True)


async def test_data_out_in_any_order() -> None:
    data = pattern(16384)
    async with fcp_initiator() as i:
        for bits, order in (
            (0, [7, 6, 5, 4, 3, 2, 1, 0]),
            (DPO, [1, 0, 3, 2, 7, 5, 6, 4]),
            (0, [0, 1, 1, 0, 2, 3, 5, 4, 6, 7]),
        ):
            ox_id = i.command(write10(0, 32, bits), write=16384)
            (ready,) = i.received()
            i.data(ox_id, ready.rx_id, data, order=order)
            assert i.outcome(ox_id)[0] == Response()
            assert i.read(0, 32) == data
        assert i.site.target.counters.duplicate_frames == 2


async def test_data_out_whose_sequence_count_begins_anew() -> None:
    """SEQ_CNT goes on from sequence to sequence, and from FFFFh to 0 (FC-FS-3 9.9), also if frames come out of order."""
    data = pattern(16384)
    async with fcp_initiator() as i:
        for bits, order in ((0, [0, 2, 3, 4, 5, 6, 7, 1]), (DPO, [7, 0, 1, 2, 3, 4, 5, 6]), (0, [0, 1, 2, 3, 4, 5, 7, 6])):
            ox_id = i.command(write10(0, 32, bits), write=16384)
            (ready,) = i.received()
            i.data(ox_id, ready.rx_id, data, order=order, first_count=0xFFFD)
            assert i.outcome(ox_id)[0] == Response()


async def test_command_that_comes_twice() -> None:
    async with fcp_initiator() as i:
        for cdb in (read10(0, 8), read10(0, 8, DPO)):
            i.command(cdb, read=4096, ox_id=77)
            i.command(cdb, read=4096, ox_id=77)
            assert len(i.outcome(77)[1]) == 4096
        i.command(write10(0, 8), write=4096, ox_id=78)
        i.command(write10(0, 8), write=4096, ox_id=78)
        assert i.give(78, pattern(4096)) == Response()
        assert i.site.target.counters.duplicate_frames == 3


async def test_command_of_the_next_batch_is_no_duplicate() -> None:
    """The link has taken the response, but not all that waits: an initiator that has it may use the OX_ID again at once."""
    async with fcp_initiator() as i:
        for cdb in (read10(0, 1), read10(0, 1, DPO)):
            responses = 0
            for _ in range(3):
                i.command(cdb, read=512, ox_id=77)
                responses += [unpack(frame).r_ctl for frame in i.site.outbox].count(InformationUnit.FCP_RSP)
                i.site.outbox.clear()  # without ``resume``
                i.site.now += 1e-6
            assert responses == 3
        assert i.site.target.counters.duplicate_frames == 0


async def test_ox_id_may_be_used_again() -> None:
    async with fcp_initiator() as i:
        for _ in range(3):
            i.command(TEST_UNIT_READY, ox_id=5)
            assert i.outcome(5)[0] == Response()


@pytest.mark.parametrize("cdb", [read10(0, 8), read10(0, 8, DPO)], ids=["express", "general"])
async def test_a_command_without_an_ox_id(cdb: bytes) -> None:
    """FC-FS: an OX_ID of FFFFh is of no exchange, so that nobody could be answered."""
    async with fcp_initiator() as i:
        counters = i.site.target.counters
        commands = counters.commands
        i.command(cdb, read=4096, ox_id=0xFFFF)
        assert not i.received()
        assert (counters.unexpected_frames, counters.commands) == (1, commands)


async def test_data_for_nobody() -> None:
    async with fcp_initiator() as i:
        i.data(99, 0, pattern(2048))
        ox_id = i.command(write10(0, 8), write=4096)
        (ready,) = i.received()
        i.data(ox_id, ready.rx_id + 1, pattern(4096))
        assert not i.received()
        assert i.site.target.counters.unexpected_frames == 3
        i.data(ox_id, ready.rx_id, pattern(4096))
        assert i.outcome(ox_id)[0] == Response()
        i.data(ox_id, ready.rx_id, pattern(4096))
        i.send(InformationUnit.FCP_RSP, bytes(24), 1)
        assert not i.received()
        assert i.site.target.counters.unexpected_frames == 6


async def test_reads_of_many_initiators_on_a_link_that_takes_nothing() -> None:
    """Express or not: Data-In that waits is bounded for the port, not only for each initiator."""
    async with fcp_site() as site:
        initiators = [site.login(0x010000 + number) for number in range(24)]
        for initiator in initiators:
            initiator.ready()
        for initiator in initiators:
            for _ in range(12):
                initiator.command(read10(0, 2048), read=1 << 20)
        waiting = sum(len(each.data_in) for each in site.target.sending)
        assert waiting == site.target.data_in.used <= PORT_LIMIT + 24 * (1 << 20)
        frames = Counter(frame.d_id for frame in site.drain() if frame.r_ctl == InformationUnit.FCP_RSP)
        assert set(frames.values()) == {12}
        assert not site.target.data_in.used


async def test_exchanges_are_counted() -> None:
    """What the limit of the port is compared with."""
    async with fcp_site() as site:
        one, two = site.login().ready(), site.login(0x010203).ready()
        for initiator in (one, two):
            for bits in (0, DPO):
                initiator.command(write10(0, 8, bits), write=4096)
        assert site.target.open_exchanges == 4
        site.target.end(one.remote.fc_id)
        assert site.target.open_exchanges == 2
        two.command(b"", management=0x10)
        site.drain()
        assert site.target.open_exchanges == 0


async def test_the_express_lane_is_timed() -> None:
    """From the batch that a READ, or the last data of a WRITE, was in until its answer was sent."""
    async with fcp_initiator() as i:
        (itl,) = i.nexus.luns.values()
        latency = itl.logical_unit.latency
        i.write(0, pattern(4096))
        i.read(0, 8)
        for n in range(32):
            i.command(read10(n, 1), read=512)
        i.site.now += 0.001
        assert len(i.received()) == 64
        i.read(0, 8, DPO)  # a task, timed as such
        assert (latency.express_read.count, latency.express_write.count) == (33, 1)
        assert latency.express_read.microseconds == pytest.approx(32_000, rel=0.01)
        assert (latency.read.count, latency.write.count) == (1, 0)


async def test_short_reads_are_remembered_within_bounds() -> None:
    """Two generations; the older is dropped as a whole, and sooner if all initiators of the port hold too much."""
    async with fcp_initiator(parameters=LINUX) as i:
        answered, kept = i.nexus.answered, i.site.target.kept

        def octets() -> int:
            return 4096 * (len(answered.old) + len(answered.young))

        for _ in range(3 * GENERATION):
            i.read(0, 8)
        assert len(answered.old) == GENERATION
        assert len(answered.young) < GENERATION
        assert answered.memory.used == kept.used >= octets()
        kept.used += PORT_LIMIT  # of others
        for _ in range(2 * GENERATION):
            i.read(0, 8)
        assert 0 < octets() <= answered.memory.used <= RESERVE
        kept.used -= PORT_LIMIT
        i.site.tick(RETAIN_SECONDS + 1)
        assert (len(answered), answered.memory.used, kept.used) == (0, 0, 0)
