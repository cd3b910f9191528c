"""FCP-4 clause 10: the mode pages that are FCP's own, and what MODE SELECT of them changes."""

from __future__ import annotations

import pytest
from support.fcp_session import DPO, LUN_0, FcpInitiator, FcpSite, fcp_initiator, fcp_site, outcome, read10, write10
from support.scsi import make_target, pattern
from tcm_fcoe.protocol.fcp import InformationUnit, Response, ResponseCode, ServiceParameters, TransferReady
from tcm_loopback.commands import ApplicationClient

from tcm.scsi.sense import Status
from tcm.target.task_management import TaskManagementFunction

pytestmark = pytest.mark.anyio
INITIATOR = int(ServiceParameters.INITIATOR_FUNCTION | ServiceParameters.READ_FCP_XFER_RDY_DISABLED)
FIRST_BURST = INITIATOR | ServiceParameters.WRITE_FCP_XFER_RDY_DISABLED
LUN_1 = b"\0\1" + bytes(6)
CURRENT, CHANGEABLE, DEFAULT, SAVED = 0x00, 0x40, 0x80, 0xC0
DISCONNECT_RECONNECT = bytes.fromhex("020e 00000000 00000000 0200 0000 0000")
"""MAXIMUM BURST SIZE 512 times 512 bytes: 256 KiB."""


def sense_mode(i: FcpInitiator, page: int, control: int = CURRENT, *, subpage: int = 0, lun: bytes = LUN_0) -> bytes:
    """The pages, without header and block descriptor."""
    cdb = bytes((0x5A, 0x08, control | page, subpage, 0, 0, 0, 0x10, 0, 0))
    response, data = i.outcome(i.command(cdb, read=4096, lun=lun))
    assert response.status == 0, response.sense.hex()
    return data[8:]


def refusal(i: FcpInitiator, page: int, control: int) -> bytes:
    response, _ = i.outcome(i.command(bytes((0x5A, 0x08, control | page, 0, 0, 0, 0, 0x10, 0, 0)), read=4096))
    assert response.status == Status.CHECK_CONDITION
    return response.sense[2:3] + response.sense[12:14]


def select_mode(i: FcpInitiator, page: bytes, *, lun: bytes = LUN_0) -> Response:
    data = bytes(8) + page
    cdb = bytes((0x55, 0x10, 0, 0, 0, 0, 0)) + len(data).to_bytes(2) + b"\0"
    return i.give(i.command(cdb, write=len(data), lun=lun), data)


def bursts(maximum: int, first: int = 0) -> bytes:
    return DISCONNECT_RECONNECT[:10] + maximum.to_bytes(2) + bytes(2) + first.to_bytes(2)


def asked_for(i: FcpInitiator, ox_id: int, data: bytes) -> list[tuple[int, int]]:
    """The bursts of a write: their offsets and lengths. It ends in GOOD."""
    found = []
    while True:
        (frame,) = i.received()
        if frame.r_ctl == InformationUnit.FCP_RSP:
            assert Response.unpack(frame.payload) == Response()
            return found
        ready = TransferReady.unpack(frame.payload)
        found.append((ready.data_offset, ready.burst_length))
        end = ready.data_offset + ready.burst_length
        i.data(ox_id, frame.rx_id, data[ready.data_offset : end], ready.data_offset, seq_id=frame.seq_id)


async def test_mode_sense_disconnect_reconnect() -> None:
    """FCP-4 10.2: the two burst sizes, in units of 512 bytes, can be changed."""
    async with fcp_initiator() as i:
        assert sense_mode(i, 0x02) == sense_mode(i, 0x02, DEFAULT) == DISCONNECT_RECONNECT
        assert sense_mode(i, 0x02, CHANGEABLE) == bytes.fromhex("020e 0000000000000000 ffff 0000 ffff")
        assert refusal(i, 0x02, SAVED) == bytes((5, 0x39, 0))
    async with fcp_initiator(burst_length=65536 + 100) as i:
        assert sense_mode(i, 0x02)[10:12] == (128).to_bytes(2)


async def test_mode_sense_protocol_specific_pages() -> None:
    """FCP-4 10.3, 10.4: EPDC is zero; RR_TOV is 10 s, in units of 0.1 s; nothing of them can be changed."""
    async with fcp_initiator() as i:
        assert sense_mode(i, 0x18) == bytes.fromhex("1806 00 00 00000000")
        assert sense_mode(i, 0x19) == bytes.fromhex("1906 00 00 0000 03 64")
        for page in (0x18, 0x19):
            assert sense_mode(i, page, CHANGEABLE)[2:] == bytes(6)
        response = select_mode(i, bytes.fromhex("1806 00 01 00000000"))
        assert response.sense[2:3] + response.sense[12:14] == bytes((5, 0x26, 0))


@pytest.mark.parametrize("subpage", [0, 0xFF])
async def test_mode_sense_all_pages_with_those_of_the_protocol(subpage: int) -> None:
    """SPC-4 6.11.3: in ascending order, whoever has them."""
    async with fcp_initiator() as i:
        data, codes = sense_mode(i, 0x3F, subpage=subpage), []
        while data:
            long = data[0] & 0x40
            codes.append((data[0] & 0x3F, data[1] if long else 0))
            data = data[4 + int.from_bytes(data[2:4]) :] if long else data[2 + data[1] :]
        assert codes == sorted(codes)
        assert {(2, 0), (0x18, 0), (0x19, 0), (0x0A, 0)} <= set(codes)


async def test_pages_of_the_protocol_are_not_on_other_ports() -> None:
    """SPC-4 7.5.8: what they mean is the protocol's; a port of another has none."""
    async with fcp_site() as site:
        client = await elsewhere(site)
        for page in (0x02, 0x18, 0x19):
            result = await client.initiator.execute(0, bytes((0x1A, 8, page, 0, 255, 0)), read_length=255)
            assert result.status == Status.CHECK_CONDITION
        result = await client.initiator.execute(0, bytes((0x12, 1, 0, 0, 255, 0)), read_length=255)
        assert 0x87 not in result.data_in[4:]


async def elsewhere(site: FcpSite) -> ApplicationClient:
    client = ApplicationClient(make_target(site.group.luns[0].logical_unit).connect("naa.5001405000000001"))
    await client.identify()
    return client


async def test_mode_page_policy() -> None:
    """SPC-4 7.8.8: each target port has FCP's pages for itself, all others are shared."""
    async with fcp_initiator() as i:
        pages = i.outcome(i.command(bytes((0x12, 1, 0, 0, 255, 0)), read=255))[1][4:]
        assert list(pages) == sorted(pages)
        assert 0x87 in pages
        _, data = i.outcome(i.command(bytes((0x12, 1, 0x87, 0, 255, 0)), read=255))
        assert data == bytes.fromhex("0087 0010 02000100 18000100 19000100 3fff0000")


@pytest.mark.parametrize("bits", [0, DPO], ids=["express", "general"])
async def test_maximum_burst_size_of_data_out(bits: int) -> None:
    """FCP-4 10.2: FCP_XFER_RDY asks for no more; zero is no limit."""
    data = pattern(20480)
    async with fcp_initiator(burst_length=16384) as i:
        for maximum, expected in (
            (None, [(0, 16384), (16384, 4096)]),
            (16, [(0, 8192), (8192, 8192), (16384, 4096)]),
            (0, [(0, 20480)]),
            (0xFFFF, [(0, 20480)]),
        ):
            if maximum is not None:
                assert select_mode(i, bursts(maximum)) == Response()
                assert sense_mode(i, 0x02) == bursts(maximum)
            assert asked_for(i, i.command(write10(0, 40, bits), write=20480), data) == expected
            assert i.read(0, 40) == data


@pytest.mark.parametrize("bits", [0, DPO], ids=["express", "general"])
async def test_maximum_burst_size_of_data_in(bits: int) -> None:
    """FCP-4 10.2: no FCP_DATA IU is larger; each is a sequence."""
    data = pattern(600 << 10)
    async with fcp_initiator() as i:
        i.write(0, data)
        for maximum, blocks, expected in (
            (512, 1200, [256 << 10, 256 << 10, 88 << 10]),
            (16, 40, [8192, 8192, 4096]),
            (16, 16, [8192]),
            (1, 3, [512, 512, 512]),
            (0, 1200, [600 << 10]),
        ):
            assert select_mode(i, bursts(maximum)) == Response()
            frames = sent(i, i.command(read10(0, blocks, bits), read=blocks * 512))
            assert outcome(frames, frames[0].ox_id) == (Response(), data[: blocks * 512])
            lengths: dict[int, int] = {}
            for frame in frames[:-1]:
                lengths[frame.seq_id] = lengths.get(frame.seq_id, 0) + len(frame.payload)
            assert list(lengths.values()) == expected
            assert len(lengths) == len(expected)


def sent(i: FcpInitiator, ox_id: int) -> list:
    frames = i.received()
    assert {frame.ox_id for frame in frames} == {ox_id}
    return frames


@pytest.mark.parametrize("bits", [0, DPO], ids=["ordinary", "general"])
async def test_first_burst_size(bits: int) -> None:
    """FCP-4 10.2: so much comes unasked; for the rest there is FCP_XFER_RDY, and more than that is too much."""
    data = pattern(16384)
    async with fcp_site(first_burst=True) as site:
        i = site.login(parameters=FIRST_BURST).ready()
        page = bytes(8) + bursts(16, 8)
        i.data(i.command(bytes((0x55, 0x10, 0, 0, 0, 0, 0, 0, len(page), 0)), write=len(page)), 0xFFFF, page)
        assert len(i.received()) == 1
        ox_id = i.command(write10(0, 32, bits), write=16384)
        i.data(ox_id, 0xFFFF, data[:4096])
        assert asked_for(i, ox_id, data) == [(4096, 8192), (12288, 4096)]
        assert i.read(0, 32) == data
        ox_id = i.command(write10(0, 32, bits), write=16384)
        i.data(ox_id, 0xFFFF, data[:8192])
        response, _ = i.outcome(ox_id)
        assert response.code == ResponseCode.DATA_LENGTH_DIFFERENT_THAN_BURST_LENGTH


async def test_mode_select_is_of_one_logical_unit_and_port() -> None:
    """SPC-4 5.8: others who come by that port hear of it; other ports and logical units do not."""
    async with fcp_site(None, None) as site:
        i, other = site.login().ready().ready(LUN_1), site.login(0x009800).ready().ready(LUN_1)
        client = await elsewhere(site)
        assert select_mode(i, bursts(16)) == Response()
        assert sense_mode(i, 0x02, lun=LUN_1) == DISCONNECT_RECONNECT
        assert select_mode(i, bursts(16)) == Response()
        response, _ = other.outcome(other.command(bytes(6)))
        assert response.sense[2:3] + response.sense[12:14] == bytes((6, 0x2A, 1))
        assert other.outcome(other.command(bytes(6)))[0] == Response()
        assert other.outcome(other.command(bytes(6), lun=LUN_1))[0] == Response()
        await client.test_unit_ready()
        assert asked_for(other, other.command(write10(0, 40), write=20480), pattern(20480))[0] == (0, 8192)
        assert asked_for(other, other.command(write10(0, 40), write=20480, lun=LUN_1), pattern(20480)) == [(0, 20480)]
        third = site.login(0x009900).ready()
        assert asked_for(third, third.command(write10(0, 40), write=20480), pattern(20480))[0] == (0, 8192)
        await client.initiator.task_management(TaskManagementFunction.LOGICAL_UNIT_RESET)
        i.command(bytes(6))
        i.received()
        assert sense_mode(i, 0x02) == DISCONNECT_RECONNECT
        assert asked_for(i, i.command(write10(0, 40), write=20480), pattern(20480)) == [(0, 20480)]
