"""Whatever others put on the wire of a whole target: it is counted, whoever is logged in goes on, and memory is bounded.

Station, controller, N_Port and FCP target, over the real core: what each of them refuses by itself is in its own tests.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from support.fcoe_pair import Pair, fcoe_pair
from tcm_fcoe.initiator.tasks import FcpTask
from tcm_fcoe.protocol.els import Logo, Plain
from tcm_fcoe.protocol.els_codes import ElsCommand
from tcm_fcoe.protocol.els_login import ProcessLogin, ServicePage
from tcm_fcoe.protocol.fcoe import EOF_N, EOF_T, SOF_I3, SOF_N3, decapsulate, encapsulate
from tcm_fcoe.protocol.fcp import Command, ServiceParameters
from tcm_fcoe.protocol.frame import Frame, pack_header
from tcm_fcoe.protocol.logins import service_parameters
from tcm_fcoe.protocol.switch import AttachedPort

from tcm.scsi.cdb import read_16, write_16

pytestmark = pytest.mark.anyio
MODES = [("vn2vn", "vn2vn"), ("p2p", "p2p"), ("fabric", "fcf")]
EVERY_MODE = pytest.mark.parametrize("modes", MODES, ids="-".join)
BLOCK = 512
STRANGER = bytes.fromhex("525400000063")
NOT_ERRORS = {
    "frames_in",
    "fip_frames_in",
    "els_in",
    "els_out",
    "els_rejected",
    "plogi_in",
    "abts_in",
    "abts_rejected",
    "logo_in",
}


class Wire:
    """What the target gets besides what the initiator sends, and the initiator's I/O that has to go on."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.station = pair.target.station
        self.fcp = pair.target.fc4
        self.initiator = pair.initiator.port
        self.target = pair.target.port
        prefix = self.initiator.prefix(self.target.fc_id)
        assert prefix is not None
        self.prefix = prefix
        self.chance = random.Random(1)

    def frame(
        self, r_ctl: int, fc_type: int, payload: bytes, *, source: bytes | None = None, ox_id: int = 0x7777,
        rx_id: int = 0xFFFF, f_ctl: int = 0x290000,
        seq_id: int = 0, seq_cnt: int = 0, parameter: int = 0, sof: int = SOF_I3, eof: int = EOF_T,
    ) -> bytes:  # fmt: skip
        """In the initiator's name; from another MAC address if there is a source."""
        prefix = self.prefix if source is None else self.prefix[:6] + source + self.prefix[12:]
        header = pack_header(
            r_ctl, self.target.fc_id, self.initiator.fc_id, fc_type, f_ctl | -len(payload) & 3, seq_id, 0, seq_cnt, ox_id,
            rx_id, parameter,
        )  # fmt: skip
        return encapsulate(prefix, sof, header, payload, eof)

    def command(self, cdb: bytes, *, read: int = 0, write: int = 0, ox_id: int, **fields: object) -> bytes:
        command = Command(
            lun=bytes(8), cdb=cdb.ljust(16, b"\0"), read_data=bool(read), write_data=bool(write), data_length=read or write
        )
        return self.frame(6, 8, command.pack(), ox_id=ox_id, **fields)  # type: ignore[arg-type]

    def give(self, frames: Iterable[bytes]) -> int:
        """To the target only. How many errors were counted; what it answers is lost."""
        before = self.errors()
        kept = list(self.station.outbox)
        self.station.receive([memoryview(frame) for frame in frames], self.pair.now)
        self.station.outbox.clear()
        self.station.outbox.extend(kept)
        return self.errors() - before

    def errors(self) -> int:
        counted = {name: count for name, count in self.station.counters.as_dict().items() if name not in NOT_ERRORS}
        return sum(counted.values()) + self.fcp.counters.unexpected_frames + self.fcp.counters.invalid_commands

    async def io(self, blocks: int = 64) -> None:
        """What is written is read."""
        data = self.chance.randbytes(blocks * BLOCK)
        result = (await self.pair.execute(write_16(0, blocks), data_out=data)).result
        assert result.good, result
        task = await self.pair.execute(read_16(0, blocks), read_length=len(data))
        assert bytes(task.result.data) == data


async def in_the_middle(wire: Wire, attack: Callable[[], None]) -> None:
    """The attack comes while half of a WRITE's data is on its way: the write ends well, in the same login."""
    pair = wire.pair
    (nexus,) = wire.fcp.nexuses.values()
    data = wire.chance.randbytes(512 * BLOCK)
    task = FcpTask(write_16(0, 512), data_out=data)
    pair.fcp.submit(pair.nexus, task, pair.now)
    await pair.run(
        lambda: task.finished or any(0 < each.data_out.filled < len(data) for each in nexus.exchanges.values() if each.data_out)
    )
    assert not task.finished
    attack()
    await pair.run(lambda: task.finished)
    assert task.result.good
    read = await pair.execute(read_16(0, 512), read_length=len(data))
    assert bytes(read.result.data) == data
    assert list(wire.fcp.nexuses.values()) == [nexus]


def good_frames(wire: Wire) -> list[bytes]:
    return [
        wire.command(write_16(0, 8), write=4096, ox_id=0x7001),
        wire.command(bytes(6), ox_id=0x7002),
        wire.frame(1, 8, bytes(97), f_ctl=0x090008, ox_id=0x7001),
        wire.frame(0x22, 1, Logo(wire.initiator.fc_id, wire.initiator.port_name).pack()),
        wire.frame(0x81, 0, b"", f_ctl=0x090000),
    ]


@EVERY_MODE
async def test_cut_at_every_byte(modes):
    async with fcoe_pair(modes=modes) as pair:
        wire = Wire(pair)
        for frame in good_frames(wire):
            cuts = [frame[:length] for length in range(len(frame))]
            assert wire.give(cuts) == len(cuts)
            assert wire.give(frame + bytes(extra) for extra in range(1, 8)) == 7
        await wire.io()


@EVERY_MODE
async def test_any_byte_wrong(modes):
    """From SOF on: CRC, SOF, EOF; each is counted, and nothing of it is believed."""
    async with fcoe_pair(modes=modes) as pair:
        wire = Wire(pair)
        for frame in good_frames(wire):
            end = len(frame) - 3  # reserved bytes
            wrong = [frame[:at] + bytes((frame[at] ^ 1 << bit,)) + frame[at + 1 :] for at in range(27, end) for bit in range(8)]
            assert wire.give(wrong) == len(wrong)
        delimiters = [
            wire.command(bytes(6), ox_id=0x7002)[:27] + bytes((sof,)) + wire.command(bytes(6), ox_id=0x7002)[28:]
            for sof in range(256)
            if sof not in (SOF_I3, SOF_N3)
        ]
        assert wire.give(delimiters) == len(delimiters)
        await wire.io()


@EVERY_MODE
async def test_every_r_ctl_and_type(modes):
    """65,536 frames in the name of the initiator that are of no use."""
    async with fcoe_pair(modes=modes) as pair:
        wire = Wire(pair)
        (nexus,) = wire.fcp.nexuses.values()
        for r_ctl in range(256):
            wire.give(wire.frame(r_ctl, fc_type, bytes(8), f_ctl=0x090000) for fc_type in range(256))
        assert wire.station.counters.unknown_type + wire.station.counters.unsupported_headers > 65000
        await wire.io()
        assert list(wire.fcp.nexuses.values()) == [nexus]
        assert not nexus.exchanges


def spoofed(wire: Wire, source: bytes) -> list[bytes]:
    """In the initiator's name from elsewhere: data, an abort, a reset, and every kind of logout."""
    (exchange,) = next(iter(wire.fcp.nexuses.values())).exchanges.values()
    ids = {"ox_id": exchange.ox_id, "rx_id": exchange.rx_id, "source": source}
    page = ServicePage(flags=0)
    return [
        wire.frame(1, 8, bytes(2048), f_ctl=0x090008, seq_id=exchange.data_out.seq_id, **ids),
        wire.frame(0x81, 0, b"", f_ctl=0x090000, **ids),
        wire.frame(6, 8, Command(lun=bytes(8), cdb=bytes(16), management=0x20).pack(), source=source),
        wire.frame(0x22, 1, Logo(wire.initiator.fc_id, wire.initiator.port_name).pack(), source=source),
        wire.frame(0x22, 1, ProcessLogin(ElsCommand.PRLO, (page,)).pack(), source=source),
        wire.frame(0x22, 1, ProcessLogin(ElsCommand.PRLI, (page,)).pack(), source=source),
        wire.frame(0x22, 1, Plain(ElsCommand.RTV).pack(), source=source),
    ]


@EVERY_MODE
async def test_spoofed_mac(modes):
    async with fcoe_pair(modes=modes) as pair:
        wire = Wire(pair)

        def attack() -> None:
            frames = spoofed(wire, STRANGER)
            before = wire.station.counters.fcoe_spoofed
            wire.give(frames)
            assert wire.station.counters.fcoe_spoofed - before == len(frames)

        await in_the_middle(wire, attack)


@EVERY_MODE
async def test_sequence_that_never_ends(modes):
    """Of link services, and of data: kept within limits, and given up."""
    async with fcoe_pair(modes=modes) as pair:
        wire = Wire(pair)
        for ox_id in range(0x6000, 0x6010):
            wire.give(
                wire.frame(
                    0x22,
                    1,
                    bytes(2048),
                    f_ctl=0x200000,
                    ox_id=ox_id,
                    seq_cnt=number,
                    sof=SOF_N3 if number else SOF_I3,
                    eof=EOF_N,
                )
                for number in range(100)
            )
        assert len(wire.target.sequences) <= wire.target.limits.sequences_per_port
        assert wire.station.counters.sequences_too_long
        wire.give([wire.command(write_16(0, 8), write=4096, ox_id=0x6100)])
        (nexus,) = wire.fcp.nexuses.values()
        data_out = nexus.exchanges[0x6100].data_out
        for number in range(1000):
            wire.give([wire.frame(1, 8, bytes(4), f_ctl=8, ox_id=0x6100, parameter=4, seq_cnt=number, sof=SOF_N3, eof=EOF_N)])
        assert len(data_out.islands) == 1
        await wire.io()
        for end in (pair.initiator, pair.target):
            end.station.link_down(pair.now)
        assert not wire.fcp.data_out.used
        assert not wire.fcp.data_in.used


@EVERY_MODE
async def test_link_that_takes_nothing(modes):
    """Who asks and does not listen: what waits for the link is bounded, whatever is asked for."""
    async with fcoe_pair(modes=modes) as pair:
        wire = Wire(pair)
        for number in range(1000):
            questions = [
                *(wire.frame(6, 8, bytes(12), ox_id=0x6000 + (number * 32 + each) % 0x1000) for each in range(32)),
                wire.command(bytes((0xFF,)), ox_id=0x6000),
                wire.frame(0x22, 1, Plain(ElsCommand.RTV).pack()),
                wire.frame(0x81, 0, b"", f_ctl=0x090000),
            ]
            wire.station.receive([memoryview(frame) for frame in questions], pair.now)
            wire.fcp.resume(pair.now)
        assert len(wire.station.outbox) < 20_000
        assert wire.station.counters.congested
        wire.station.outbox.clear()
        wire.station.resume(pair.now)
        await wire.io()


async def test_switch_whose_link_takes_nothing():
    """The same for what a switch forwards, and for its services."""
    async with fcoe_pair(modes=("fabric", "fcf")) as pair:
        wire = Wire(pair)
        ids = wire.initiator.fc_id
        header = pack_header(6, ids, ids, 8, 0x290000, 0, 0, 0, 1, 0xFFFF, 0)
        to_itself = encapsulate(wire.prefix, SOF_I3, header, bytes(2048), EOF_T)
        for _ in range(400):
            wire.station.receive([memoryview(to_itself)] * 128, pair.now)
        assert len(wire.station.outbox) < 20_000
        assert wire.station.counters.congested
        wire.station.outbox.clear()
        await wire.io()


async def login_frames(pair: Pair) -> list[bytes]:
    """All that the initiator sends to log in once more."""
    frames: list[bytes] = []
    receive = pair.target.receive

    def listen(batch: Iterable[bytes | memoryview], now: float) -> None:
        batch = list(batch)
        frames.extend(map(bytes, batch))
        receive(batch, now)

    pair.target.receive = listen  # type: ignore[method-assign]
    pair.initiator.station.link_down(pair.now)
    pair.target.station.link_down(pair.now)
    pair.initiator.station.link_up(pair.now)
    pair.target.station.link_up(pair.now)
    await pair.run(lambda: bool(pair.fcp.nexuses))
    while not (await pair.execute(bytes(6))).result.good:
        pass
    pair.target.receive = receive  # type: ignore[method-assign]
    return frames


async def flogi_frame(pair: Pair) -> bytes:
    """Of them, FLOGI in FIP."""
    (flogi,) = [each for each in await login_frames(pair) if each[12:14] == b"\x89\x14" and each[16:20] == b"\0\x02\0\x01"]
    return flogi


def renamed(wire: Wire, frame: bytes, number: int) -> bytes:
    """The same frame of another port: MAC addresses, names and FC_ID are its own."""
    mac, fc_id = wire.initiator.port_name[2:], wire.initiator.fc_id.to_bytes(3)
    other = b"\x52\x54\x07" + number.to_bytes(3)
    other_id = fc_id[:1] + number.to_bytes(2)

    def replaced(data: bytes) -> bytes:
        return data.replace(mac, other).replace(b"\x0e\xfd\0" + fc_id, b"\x0e\xfd\0" + other_id)

    if frame[12:14] == b"\x89\x14":
        name = wire.initiator.port_name[:3]
        return replaced(frame).replace(b"\0" + fc_id + name, b"\0" + other_id + name)
    sof, fc, eof = decapsulate(memoryview(frame)[14:])
    fc = Frame.unpack(fc, sof, eof).pack()
    header = fc[:5] + (other_id if fc[5:8] == fc_id else fc[5:8]) + fc[8:24]
    return encapsulate(replaced(frame[:14]), sof, header, replaced(fc[24:]), eof)


@EVERY_MODE
async def test_storm_of_logins_from_hundreds_of_names(modes):
    """All that an initiator sends to log in, 600 times over under other names: the one that is there does not notice."""
    async with fcoe_pair(modes=modes) as pair:
        wire = Wire(pair)
        frames = await login_frames(pair)
        wire = Wire(pair)
        (nexus,) = wire.fcp.nexuses.values()
        slowest = 0.0
        tracemalloc.start()
        for number in range(0x100, 0x100 + 600):
            batch = [renamed(wire, frame, number) for frame in frames]
            began = time.process_time()
            wire.give(batch)
            slowest = max(slowest, time.process_time() - began)
            pair.now += 0.001
            if number % 256 == 0:
                await wire.io()
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert wire.fcp.nexuses[wire.initiator.fc_id] is nexus
        assert len(wire.target.remotes) <= wire.target.limits.remote_ports
        assert held < 32 << 20, (held, peak)
        assert slowest < 0.5
        await in_the_middle_of_many(wire)


async def in_the_middle_of_many(wire: Wire) -> None:
    """Time goes on: who has logged in and says nothing is forgotten, the initiator is not."""
    nexus = wire.fcp.nexuses[wire.initiator.fc_id]
    end = wire.pair.now + 40
    while wire.pair.now < end:
        await wire.io(1)
        wire.pair.advance()
    assert wire.fcp.nexuses[wire.initiator.fc_id] is nexus


async def test_storm_of_plogi_and_prli():
    """1,000 N_Ports that the switch has let in log in and out of the target, as fast as they can."""
    async with fcoe_pair(modes=("fabric", "fcf")) as pair:
        flogi = await flogi_frame(pair)
        wire = Wire(pair)
        switch = wire.station.controller.switch  # type: ignore[attr-defined]
        nexus = wire.fcp.nexuses[wire.initiator.fc_id]
        for number in range(0x100, 0x100 + 1000):
            wire.give([renamed(wire, flogi, number)])
            pair.now += 0.015
            wire.station.handle_timer(pair.now)
        strangers = [each for each in switch.ports.values() if each.port is None and each.fc_id != wire.initiator.fc_id]
        assert len(strangers) > 500
        for _ in range(2):
            for each in strangers:
                login = service_parameters(wire.initiator, ElsCommand.PLOGI)
                prli = ProcessLogin(ElsCommand.PRLI, (ServicePage(parameters=int(ServiceParameters.INITIATOR_FUNCTION)),))
                wire.give(
                    stranger_frame(wire, each, payload)
                    for payload in (replace(login, port_name=each.port_name).pack(), prli.pack())
                )
                pair.now += 0.001
            await wire.io(1)
        assert wire.station.counters.logins_put_off > len(strangers)
        assert wire.fcp.nexuses[wire.initiator.fc_id] is nexus
        assert len(wire.fcp.nexuses) <= wire.target.limits.remote_ports
        await wire.io()


def stranger_frame(wire: Wire, stranger: AttachedPort, payload: bytes) -> bytes:
    header = pack_header(0x22, wire.target.fc_id, stranger.fc_id, 1, 0x290000 | -len(payload) & 3, 0, 0, 0, 9, 0xFFFF, 0)
    return encapsulate(wire.prefix[:6] + stranger.mac + wire.prefix[12:], SOF_I3, header, payload, EOF_T)


async def test_ten_thousand_open_exchanges():
    """WRITEs whose FCP_XFER_RDY is never answered: beyond the limit they are refused, and given up in the end."""
    async with fcoe_pair() as pair:
        wire = Wire(pair)
        (nexus,) = wire.fcp.nexuses.values()
        tracemalloc.start()
        wire.give(wire.command(write_16(0, 128), write=65536, ox_id=ox_id) for ox_id in range(0x6000, 0x6000 + 10_000))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(nexus.exchanges) <= 1024
        assert wire.fcp.counters.refused_commands >= 10_000 - 1024
        assert held < 16 << 20
        end = pair.now + 1000
        while nexus.exchanges and pair.now < end:
            pair.now += 1
            wire.station.handle_timer(pair.now)
            wire.station.outbox.clear()
        assert not nexus.exchanges
        assert not wire.fcp.data_out.used


@EVERY_MODE
async def test_fip_of_any_descriptors(modes):
    """What goes over the wire in FIP, with each of its lengths and bytes changed: of length 0, past the end, doubled, cut."""
    async with fcoe_pair(modes=modes) as pair:
        fips = {frame for frame in await login_frames(pair) if frame[12:14] == b"\x89\x14"}
        wire = Wire(pair)
        nexus = wire.fcp.nexuses[wire.initiator.fc_id]
        for frame in sorted(renamed(wire, each, 0x1234) for each in fips):
            wire.give(frame[:length] for length in range(14, len(frame)))
            wire.give(
                frame[:at] + bytes((value,)) + frame[at + 1 :]
                for at in range(14, min(len(frame), 200)) for value in (0, 1, 2, 0x7F, 0xFF)
            )  # fmt: skip
            wire.give([frame + frame[24:], frame[:24] + frame[24:] * 20])
        assert wire.fcp.nexuses[wire.initiator.fc_id] is nexus
        await wire.io()


@EVERY_MODE
async def test_farewells_in_somebodys_name(modes):
    """What the initiator sends to log out, FIP too, from another MAC address; then what it sends itself."""
    async with fcoe_pair(modes=modes) as pair:
        wire = Wire(pair)
        nexus = wire.fcp.nexuses[wire.initiator.fc_id]
        pair.initiator.station.stop(pair.now)
        farewells = list(pair.initiator.station.outbox)
        assert farewells
        spoofed = [frame[:6] + STRANGER + frame[12:] for frame in farewells]
        assert wire.give(spoofed) == len(spoofed)
        assert list(wire.fcp.nexuses.values()) == [nexus]
        await pair.run(lambda: not wire.fcp.nexuses)


@EVERY_MODE
async def test_initiator_that_vanishes(modes):
    """In the middle of a WRITE and a READ: another finds the port as it should be; what was held is given back."""
    async with fcoe_pair(modes=modes) as pair:
        wire = Wire(pair)
        wire.give(
            [
                wire.command(write_16(0, 512), write=512 * BLOCK, ox_id=0x6000),
                wire.command(read_16(0, 2048), read=2048 * BLOCK, ox_id=0x6001),
            ]
        )
        assert wire.fcp.data_out.used
        pair.initiator.station.link_down(pair.now)
        end = pair.now + 300
        while wire.fcp.open_exchanges and pair.now < end:
            pair.now = max(pair.now + 0.01, wire.station.next_timer)
            wire.station.handle_timer(pair.now)
            wire.station.outbox.clear()
            wire.station.resume(pair.now)
        assert (wire.fcp.open_exchanges, wire.fcp.data_out.used, wire.fcp.data_in.used) == (0, 0, 0)
        pair.initiator.station.link_up(pair.now)
        await pair.run(lambda: bool(pair.fcp.nexuses))
        told = (await pair.execute(bytes(6))).result
        assert told.sense_key == 6
        await wire.io()


async def test_plogi_in_anothers_name():
    """Who has logged in with the switch as itself does not get in with the name of an initiator."""
    async with fcoe_pair(modes=("fabric", "fcf")) as pair:
        flogi = await flogi_frame(pair)
        wire = Wire(pair)
        wire.give([renamed(wire, flogi, 0x100)])
        switch = wire.station.controller.switch  # type: ignore[attr-defined]
        (stranger,) = [each for each in switch.ports.values() if each.port is None and each.fc_id != wire.initiator.fc_id]
        plogi = service_parameters(wire.initiator, ElsCommand.PLOGI).pack()
        nexus = wire.fcp.nexuses[wire.initiator.fc_id]
        wire.give([stranger_frame(wire, stranger, plogi)])
        assert wire.station.counters.plogi_refused == 1
        assert list(wire.fcp.nexuses.values()) == [nexus]
        await wire.io()
        pair.initiator.station.stop(pair.now)
        await pair.run(lambda: not wire.fcp.nexuses)
        wire.give([stranger_frame(wire, stranger, plogi)])
        assert wire.station.counters.plogi_refused == 2
        assert stranger.fc_id not in wire.target.remotes
