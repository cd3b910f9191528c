"""The initiator and the target, in memory: every kind of command, with and without faults on the way."""

from __future__ import annotations

import random

import pytest
from support.fcoe_pair import fcoe_pair
from tcm_fcoe.initiator import fcp_initiator
from tcm_fcoe.initiator.faults import Faults
from tcm_fcoe.initiator.options import Options, Recovery
from tcm_fcoe.initiator.results import TargetLost
from tcm_fcoe.initiator.tasks import FcpTask
from tcm_fcoe.protocol.fcp import TaskManagementFlag

from tcm.scsi.cdb import read_16, write_16

pytestmark = pytest.mark.anyio
QUICK = Recovery(rec_timeout=0.3, gap_timeout=0.02, command_timeout=0)
BLOCK = 512


MODES = [("vn2vn", "vn2vn"), ("p2p", "p2p"), ("fabric", "fcf"), ("fcf", "fabric")]


@pytest.mark.parametrize("modes", MODES, ids="-".join)
async def test_every_mode(modes):
    """From a link that comes up to data both ways, and a logout."""
    data = random.Random(1).randbytes(64 * BLOCK)
    async with fcoe_pair(modes=modes) as pair:
        task = await pair.execute(bytes((0x12, 0, 0, 0, 96, 0)), read_length=96)
        assert bytes(task.result.data[8:16]) == b"LIO-ORG "
        assert (await pair.execute(write_16(7, 64), data_out=data)).result.good
        assert bytes((await pair.execute(read_16(7, 64), read_length=len(data))).result.data) == data
        assert pair.target.fc4.nexuses
        pair.initiator.station.stop(pair.now)
        await pair.run(lambda: not pair.target.fc4.nexuses)


@pytest.mark.parametrize("modes", MODES, ids="-".join)
async def test_the_link_goes_down_and_up(modes):
    """What was outstanding fails with TargetLost; the login comes back by itself."""
    async with fcoe_pair(modes=modes) as pair:
        task = FcpTask(write_16(0, 8), data_out=bytes(4096))
        pair.fcp.submit(pair.nexus, task, pair.now)
        for end in (pair.initiator, pair.target):
            end.station.link_down(pair.now)
        assert isinstance(task.error, TargetLost)
        assert not pair.fcp.nexuses
        for end in (pair.initiator, pair.target):
            end.station.link_up(pair.now)
        await pair.run(lambda: bool(pair.fcp.nexuses))
        while not (await pair.execute(bytes(6))).result.good:
            pass
        assert (await pair.execute(write_16(0, 8), data_out=bytes(4096))).result.good


@pytest.mark.parametrize("blocks", [1, 4, 5, 33, 256, 1024])
async def test_what_is_written_is_read(blocks):
    data = random.Random(blocks).randbytes(blocks * BLOCK)
    async with fcoe_pair(target={"burst_length": 65536}) as pair:
        assert (await pair.execute(write_16(3, blocks), data_out=data)).result.good
        task = await pair.execute(read_16(3, blocks), read_length=len(data))
        assert bytes(task.result.data) == data
        assert pair.fcp.counters.recs == 0
        bursts = -(-len(data) // 65536)
        assert pair.fcp.counters.transfer_readies == bursts


async def test_first_burst():
    data = random.Random(0).randbytes(64 * BLOCK)
    async with fcoe_pair(options=Options(first_burst=8192), target={"first_burst": True}) as pair:
        for length in (1, 16, 64):
            assert (await pair.execute(write_16(0, length), data_out=data[: length * BLOCK])).result.good
        assert pair.fcp.counters.transfer_readies == 1
        task = await pair.execute(read_16(0, 64), read_length=len(data))
        assert bytes(task.result.data) == data


async def test_check_condition_and_residual():
    async with fcoe_pair() as pair:
        task = await pair.execute(read_16(1 << 40, 1), read_length=BLOCK)
        assert (task.result.status, task.result.sense_key, task.result.asc) == (2, 5, (0x21, 0))
        task = await pair.execute(bytes((0x12, 0, 0, 2, 0, 0)), read_length=512)
        assert task.result.underflow
        assert len(task.result.data) == 512 - task.result.residual
        task = await pair.execute(read_16(0, 2), read_length=BLOCK)
        assert (task.result.overflow, task.result.residual) == (True, BLOCK)


async def test_task_management():
    async with fcoe_pair() as pair:
        for flag, code in (
            (TaskManagementFlag.LOGICAL_UNIT_RESET, 0),
            (TaskManagementFlag.ABORT_TASK_SET, 0),
            (TaskManagementFlag.CLEAR_TASK_SET, 0),
            (TaskManagementFlag.QUERY_TASK_SET, 0),
        ):
            task = await pair.execute(b"", management=flag)
            assert task.code == code, flag
        task = await pair.execute(b"", 9, management=TaskManagementFlag.LOGICAL_UNIT_RESET)
        assert task.code == 9
        assert (await pair.execute(bytes(6))).result.asc == (0x29, 3)


async def test_a_write_that_is_reset_away():
    """Its data never comes; LOGICAL UNIT RESET ends it, and its exchange is aborted."""
    async with fcoe_pair() as pair:
        lost = pair.paths[pair.initiator]
        lost.faults = Faults(choose=lambda frame, _: "drop" if frame[28] == 1 else "none")
        task = FcpTask(write_16(0, 8), data_out=bytes(4096))
        pair.fcp.submit(pair.nexus, task, pair.now)
        await pair.run(lambda: task.written > 0)
        reset = await pair.execute(b"", management=TaskManagementFlag.LOGICAL_UNIT_RESET)
        assert reset.code == 0
        await pair.run(lambda: task.finished)
        assert "LOGICAL UNIT RESET" in str(task.error)


def losing(kind: int, numbers: set[int], fault: str = "drop"):
    """A fault for these frames of one R_CTL, counted from 0."""
    seen = -1

    def choose(frame: bytes, _number: int) -> str | None:
        nonlocal seen
        if frame[28] != kind or frame[36] != 8:
            return "none"
        seen += 1
        return fault if seen in numbers else "none"

    return Faults(choose=choose)


@pytest.mark.parametrize("fault", ["drop", "corrupt", "duplicate", "reorder"])
@pytest.mark.parametrize(
    "sender, kind, numbers",
    [
        ("initiator", 6, {0}), ("initiator", 1, {0}), ("initiator", 1, {3}), ("initiator", 1, {31}), ("initiator", 1, {2, 9}),
        ("initiator", 3, {0}), ("target", 5, {0}), ("target", 5, {1}), ("target", 7, {0}), ("target", 7, {1}),
        ("target", 1, {0}), ("target", 1, {4}), ("target", 1, {31}), ("target", 1, {3, 7, 11}),
    ],
)  # fmt: skip
async def test_any_one_frame_may_be_lost(fault, sender, kind, numbers):
    """Each information unit in turn; both commands are done, once, and hold what they must."""
    data = random.Random(7).randbytes(128 * BLOCK)
    async with fcoe_pair(options=Options(recovery=QUICK), target={"burst_length": 32768}) as pair:
        pair.paths[getattr(pair, sender)].faults = losing(kind, numbers, fault)
        target = pair.target.fc4.counters
        before, carried_out = pair.fcp.counters.commands, target.commands
        write = await pair.execute(write_16(0, 128), data_out=data)
        assert write.result.good
        read = await pair.execute(read_16(0, 128), read_length=len(data))
        assert bytes(read.result.data) == data
        retried = write.retries + read.retries
        assert pair.fcp.counters.commands - before == 2 + retried
        assert target.commands - carried_out == 2
        if fault in ("drop", "corrupt") and kind != 3:
            assert pair.fcp.counters.recs + pair.fcp.counters.srrs > 0


@pytest.mark.parametrize("modes", MODES, ids="-".join)
@pytest.mark.parametrize("seed", range(2))
async def test_everything_at_once(seed, modes):
    """5% of each fault, many commands in flight: each is done once, and every byte is right."""
    options = Options(recovery=QUICK)
    async with fcoe_pair(modes=modes, options=options, target={"burst_length": 16384}, seed=seed) as pair:
        pair.misbehave(Faults.all(0.05))
        workers = [Worker(pair, number, random.Random(f"{seed}/{number}"), commands=12) for number in range(24)]
        for worker in workers:
            worker.step()
        await pair.run(lambda: all(worker.finished for worker in workers), 3600)
        assert [worker.finished for worker in workers if worker.finished != "done"] == []


async def test_ox_ids_that_are_used_again_soon(monkeypatch):
    """The target still remembers the exchange before when FCP_CMND of the next is lost: it must not be taken for that."""
    monkeypatch.setattr(fcp_initiator, "FC4_OX_IDS", range(0x1000, 0x1080))
    async with fcoe_pair(options=Options(recovery=QUICK), target={"burst_length": 16384}) as pair:
        pair.misbehave(Faults.all(0.02))
        workers = [Worker(pair, number, random.Random(number), commands=40) for number in range(12)]
        for worker in workers:
            worker.step()
        await pair.run(lambda: all(worker.finished for worker in workers), 36000)
        assert [worker.finished for worker in workers if worker.finished != "done"] == []
        assert pair.fcp.counters.retries > 3


class Worker:
    """One command after the other on blocks of its own."""

    REGION = 128

    def __init__(self, pair, number, chance, commands):
        self.pair, self.chance, self.left = pair, chance, commands
        self.start = number * self.REGION
        self.expected = bytearray(self.REGION * BLOCK)
        self.finished = ""

    def step(self):
        if not self.left:
            self.finished = "done"
            return
        self.left -= 1
        size = self.chance.choice((1, 8, 17, 64))
        at = self.chance.randrange(self.REGION - size)
        if self.chance.random() < 0.5:
            data = self.chance.randbytes(size * BLOCK)
            self.expected[at * BLOCK : (at + size) * BLOCK] = data
            task = FcpTask(write_16(self.start + at, size), data_out=data, done=self.written)
        else:
            self.place = slice(at * BLOCK, (at + size) * BLOCK)
            task = FcpTask(read_16(self.start + at, size), read_length=size * BLOCK, done=self.read)
        self.pair.fcp.submit(self.pair.nexus, task, self.pair.now)

    def written(self, task):
        if task.error or not task.result.good:
            self.finished = f"{task.error or task.result.describe_sense()}"
            return
        self.step()

    def read(self, task):
        if task.error or not task.result.good or bytes(task.result.data) != self.expected[self.place]:
            self.finished = f"{task.error or task.result.describe_sense()} or other bytes"
            return
        self.step()
