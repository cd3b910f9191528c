"""Whatever initiators send, the FCP target stays up, within its limits, and owes nobody anything once they have left."""

from __future__ import annotations

import random

import anyio
import anyio.lowlevel
import pytest
from support.fcp_session import INITIATOR_ID, LINUX, FcpInitiator, FcpSite, fcp_site, read10, write10, write16
from support.memory import GatedMemory
from tcm_fcoe.protocol.basic import Abts
from tcm_fcoe.protocol.els import Srr
from tcm_fcoe.protocol.fcp import Command, InformationUnit
from tcm_fcoe.protocol.frame import Frame

pytestmark = pytest.mark.anyio

R_CTLS = [int(each) for each in InformationUnit] + [0, 2, 4, 8]
OX_IDS = (*range(40), 0xFFFF)


def cdb(chance: random.Random) -> bytes:
    blocks = chance.choice((0, 1, 8, 128, 2048))
    bits = chance.choice((0, 0, 0x10, 0x08, 0xFF))
    return chance.choice(
        (
            bytes(6),
            bytes((0x12, 0, 0, 0, 255, 0)),
            read10(chance.choice((0, 5, 0xFFFFFFFF)), blocks, bits),
            write10(chance.choice((0, 5, 0xFFFFFFFF)), blocks, bits),
            write16(chance.choice((0, 5, 1 << 63)), blocks, bits),
            bytes((0x41, 0, 0, 0, 0, 0, 0, 0, 16, 0)),
            chance.randbytes(16),
        )
    ).ljust(16, b"\0")


def ordinary(chance: random.Random) -> Command:
    """A READ or WRITE as initiators send them most of the time."""
    blocks, lba = chance.choice((1, 8, 8, 128, 2048)), chance.randrange(1000)
    bits = chance.choice((0, 0, 0x10))
    write = chance.random() < 0.5
    make = chance.choice((write10, write16)) if write else read10
    return Command(
        lun=chance.choice((bytes(8), b"\0\x01" + bytes(6))),
        cdb=make(lba, blocks, bits).ljust(16, b"\0"),
        attribute=chance.choice((0,) * 9 + (2,)),
        read_data=not write,
        write_data=write,
        data_length=blocks * 512,
    )


def strange(chance: random.Random) -> Command:
    """Any of the fields may be anything."""
    return Command(
        lun=chance.choice((bytes(8), bytes(8), b"\0\x01" + bytes(6), b"\0\x09" + bytes(6))),
        cdb=cdb(chance),
        attribute=chance.choice((0, 0, 0, 1, 2, 4, 7)),
        priority=chance.choice((0, 3)),
        management=chance.choice((0,) * 20 + (1, 2, 4, 8, 16, 32, 64, 128, 3)),
        read_data=chance.random() < 0.5,
        write_data=chance.random() < 0.5,
        data_length=chance.choice((0, 512, 4096, 65536, 1 << 20, 0xFFFFFE00)),
    )


def information_unit(chance: random.Random) -> tuple[int, bytes]:
    kind = chance.random()
    if kind < 0.05:
        return chance.choice(R_CTLS), chance.randbytes(chance.randrange(64))
    if kind < 0.75:
        return InformationUnit.FCP_CMND, (ordinary if chance.random() < 0.8 else strange)(chance).pack()
    return InformationUnit.FCP_DATA, chance.randbytes(chance.choice((0, 4, 512, 2048, 2112)))


class Player:
    """One initiator that plays at random, now and then by the rules."""

    def __init__(self, initiator: FcpInitiator, chance: random.Random) -> None:
        self.initiator = initiator
        self.chance = chance
        self.asked: list[Frame] = []

    def play(self) -> None:
        chance, i = self.chance, self.initiator
        target, now = i.site.target, i.site.now
        move = chance.random()
        if move < 0.04:
            target.rec(i.remote, chance.choice(OX_IDS), chance.choice((0, 1, 0xFFFF)))
        elif move < 0.08:
            r_ctl = chance.choice((1, 5, 7, 6))
            target.srr(i.remote, Srr(chance.choice(OX_IDS), 0xFFFF, chance.choice((0, 512, 1 << 31)), r_ctl).pack(), now)
        elif move < 0.1:
            abts = Abts(
                i.remote.fc_id, chance.choice(OX_IDS), 0xFFFF, 0, 0, from_responder=False, sequence_only=chance.random() < 0.3
            )
            target.abort(i.remote, abts, lambda _: None, now)
        elif move < 0.4 and self.asked:
            ready = self.asked.pop(chance.randrange(len(self.asked)))
            offset, length = int.from_bytes(ready.payload[:4]), int.from_bytes(ready.payload[4:8])
            i.data(ready.ox_id, ready.rx_id, bytes(length), offset, seq_id=chance.randrange(256))
        else:
            r_ctl, payload = information_unit(chance)
            payload = payload.ljust(len(payload) + 3 & ~3, b"\0")
            i.send(
                r_ctl,
                payload,
                chance.choice(OX_IDS),
                rx_id=chance.choice((0xFFFF, 0xFFFF, chance.randrange(64))),
                f_ctl=0x290000
                if r_ctl == InformationUnit.FCP_CMND
                else chance.choice((0x090008, 0x000008, 0x080008, 0x890000)),
                seq_id=chance.randrange(3),
                seq_cnt=chance.randrange(3),
                offset=chance.choice((0, 0, 2048, 2112, 4096, 1 << 31)),
                first=chance.random() < 0.5,
            )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [{}, {"first_burst": True, "burst_length": 4096}], ids=["", "first burst"])
async def test_random_frames(seed: int, options: dict[str, int]) -> None:
    chance = random.Random(seed)
    memory = GatedMemory(1 << 20)
    async with fcp_site(None, memory, **options) as site:
        players = [Player(site.login(INITIATOR_ID + n, LINUX | (n & 1)), chance) for n in range(3)]
        for step in range(1500):
            chance.choice(players).play()
            if step % 50 == 0:
                await pause(site, players, memory, chance)
            for each in players:
                assert each.initiator.nexus.data_out.used <= (8 << 20) + (1 << 20)
                assert len(each.initiator.nexus.exchanges) <= len(OX_IDS)
        memory.release()
        for each in players:
            site.target.process_logout(each.initiator.remote, "LOGO", site.now)
        await anyio.sleep(0.05)
        target = site.target
        assert (target.data_out.used, target.data_in.used, target.kept.used) == (0, 0, 0)
        assert not target.waiting
        counters = target.counters
        assert min(counters.express_reads, counters.transfer_readies, counters.aborts, counters.stalled_transfers) > 0
        i = site.login()
        site.drain()
        i.ready()
        data = chance.randbytes(4096)
        i.write(0, data)
        assert i.read(0, 8) == data


async def pause(site: FcpSite, players: list[Player], memory: GatedMemory, chance: random.Random) -> None:
    """The link takes what there is, the core goes on, time passes, an initiator logs in anew."""
    for frame in site.drain():
        for each in players:
            if frame.d_id == each.initiator.remote.fc_id and frame.r_ctl == InformationUnit.FCP_XFER_RDY:
                each.asked.append(frame)
    memory.release()
    if chance.random() < 0.5:
        memory.shut()
    await anyio.lowlevel.checkpoint()
    site.tick(chance.choice((0.0, 0.0, 3.0, 200.0)))
    if chance.random() < 0.1:
        player = chance.choice(players)
        assert site.target.process_login(player.initiator.remote, LINUX, site.now)
        player.asked.clear()
