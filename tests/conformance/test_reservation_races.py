"""Reservations under 64 concurrent initiators: one wins, and from its GOOD on the others' writes stay off the medium."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.crowd import BLOCKS, INITIATORS, crowd, delayed, together
from tcm_backstores.ramdisk import RamdiskBackstore
from tcm_loopback.commands import ApplicationClient
from tcm_loopback.transport import CommandAborted, Result

from tcm.backstore import Backstore
from tcm.scsi import cdb
from tcm.scsi.persistent_reservations import OutAction
from tcm.scsi.persistent_reservations import ReservationType as Kind
from tcm.scsi.sense import SenseKey, Status
from tcm.target.directory_store import DirectoryStore

pytestmark = pytest.mark.anyio
GOOD, CONFLICT = Status.GOOD, Status.RESERVATION_CONFLICT
APTPL = 0x01


EACH = BLOCKS // INITIATORS
"""Blocks that an initiator writes in one command."""


async def out(client: ApplicationClient, action: OutAction, key: int, new: int = 0, kind: int = 0, flags: int = 0) -> Result:
    """PERSISTENT RESERVE OUT; a unit attention that is in its way is taken first."""
    data = key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes(4) + bytes((flags, 0, 0, 0))
    while True:
        result = await client.execute(cdb.persistent_reserve_out(action, kind), data, expect=None)
        if result.sense is None or result.sense.key is not SenseKey.UNIT_ATTENTION:
            return result


class Writers:
    """Every initiator writes its own blocks all the time, a higher number each time, until it is told to stop.

    The backstore is slow half of the time, and does not know of initiators: it shows what really is on the medium.
    """

    def __init__(self, clients: list[ApplicationClient], memory: Backstore) -> None:
        self.memory = memory
        self.clients = clients
        self.tried = [0] * len(clients)
        """The highest number that was sent."""
        self.refused: list[int | None] = [None] * len(clients)
        """From this number on every write has to be refused; ``None``: writes are as they are."""
        self.stopped = False
        self.good = self.refusals = 0

    async def write(self, number: int) -> None:
        chance = random.Random(number)
        client = self.clients[number]
        while not self.stopped:
            self.tried[number] = value = self.tried[number] + 1
            forbidden = self.refused[number] is not None
            sent = client.initiator.start(
                client.lun,
                cdb.write(10, number * EACH, EACH),
                value.to_bytes(8, "big") * 64 * EACH,
                withheld=chance.random() < 0.1,
            )
            if sent.withheld and not sent.done:
                await checkpoint()
                if not sent.done:  # it may have been aborted meanwhile
                    sent.deliver()
            try:
                status = (await sent.wait()).status
            except CommandAborted:
                status = None
            self.good += status is GOOD
            self.refusals += status is CONFLICT
            if forbidden:
                assert status is not GOOD, f"write {value} of initiator {number} was sent after the reservation and is GOOD"
            await anyio.sleep(chance.choice((0, 0, 0, 0.0005)) if status is GOOD else 0.0005)  # leaves the worker threads time

    def on_medium(self) -> list[tuple[int, ...]]:
        """What is in everybody's blocks now."""
        data = bytearray(BLOCKS * 512)
        assert self.memory.read_nowait([memoryview(data)], 0)
        numbers = [int.from_bytes(data[at : at + 8], "big") for at in range(0, len(data), 512)]
        return [tuple(numbers[at : at + EACH]) for at in range(0, BLOCKS, EACH)]

    def forbid(self, *numbers: int) -> None:
        for number in numbers:
            if self.refused[number] is None:
                self.refused[number] = self.tried[number] + 1

    def check(self) -> None:
        """Nothing that was sent when it was forbidden is on the medium; and something was tried, with either outcome."""
        for number, values in enumerate(self.on_medium()):
            limit = self.refused[number]
            assert limit is None or max(values) < limit, f"a forbidden write of initiator {number} is on the medium"
        assert self.good
        assert self.refusals


@asynccontextmanager
async def writing(clients: list[ApplicationClient], memory: Backstore) -> AsyncIterator[Writers]:
    """All of them write in the background."""
    writers = Writers(clients, memory)
    async with anyio.create_task_group() as group:
        for number in range(len(clients)):
            group.start_soon(writers.write, number)
        try:
            yield writers
        finally:
            writers.stopped = True


@pytest.mark.parametrize("fickle", [True, False])
async def test_reserve_one_of_64_wins(fickle: bool) -> None:
    """SPC-2 7.21: of 64 RESERVEs one is GOOD and the others conflict, as do their writes from then on, until RELEASE."""
    memory = RamdiskBackstore(BLOCKS * 512)
    async with crowd(delayed(memory, fickle=fickle)) as clients:
        for seed in range(3):
            winners: list[int] = []
            async with writing(clients, memory) as writers:
                for _ in range(5):
                    await checkpoint()

                async def race(number: int, seed: int = seed, winners: list[int] = winners, writers: Writers = writers) -> None:
                    for _ in range(random.Random(f"{seed} {number}").randrange(5)):
                        await checkpoint()
                    result = await clients[number].reserve(expect=None)
                    if result.status is GOOD:
                        winners.append(number)
                        writers.forbid(*(other for other in range(INITIATORS) if other != number))
                    else:
                        assert result.status is CONFLICT

                await together(race, INITIATORS)
                assert len(winners) == 1
                for _ in range(30):
                    await checkpoint()
            writers.check()
            await clients[winners[0]].release()


@pytest.mark.parametrize("kind", [Kind.EXCLUSIVE_ACCESS, Kind.WRITE_EXCLUSIVE], ids=lambda kind: kind.name)
@pytest.mark.parametrize("flags", [0, APTPL], ids=["volatile", "aptpl"])
async def test_persistent_reserve_out_reserve_one_of_64_wins(tmp_path: Path, kind: Kind, flags: int) -> None:
    """SPC-5 5.14.9: of 64 registered initiators one gets the reservation; no write sent after its GOOD is executed."""
    winners: list[int] = []
    kept = DirectoryStore(str(tmp_path))
    memory = RamdiskBackstore(BLOCKS * 512)
    async with crowd(delayed(memory, fickle=True), store=kept) as clients:

        async def register(number: int) -> None:
            assert (await out(clients[number], OutAction.REGISTER, 0, number + 1)).status is GOOD

        await together(register, INITIATORS)
        assert (await out(clients[0], OutAction.REGISTER, 1, 1, flags=flags)).status is GOOD  # what the last one says counts
        async with writing(clients, memory) as writers:

            async def race(number: int) -> None:
                status = (await out(clients[number], OutAction.RESERVE, number + 1, kind=kind)).status
                if status is GOOD:
                    winners.append(number)
                    writers.forbid(*(other for other in range(INITIATORS) if other != number))
                assert status in {GOOD, CONFLICT}

            await together(race, INITIATORS)
            for _ in range(30):
                await checkpoint()
        assert len(winners) == 1
        writers.check()
    if flags:
        (file,) = (tmp_path / "pr").glob("aptpl_*")
        text = file.read_text()
        assert text.count("PR_REG_START") == INITIATORS
        assert text.count("res_holder=1") == 1


@pytest.mark.parametrize("kind", [Kind.EXCLUSIVE_ACCESS, Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY], ids=lambda kind: kind.name)
@pytest.mark.parametrize("flags", [0, APTPL], ids=["volatile", "aptpl"])
async def test_persistent_reserve_out_preempt_and_abort_one_of_64_wins(tmp_path: Path, kind: Kind, flags: int) -> None:
    """SPC-5 5.14.11.2.6: all preempt the holder at once, one does; what the loser had on its way is over at the GOOD.

    Four times, each time the winner of the time before is the victim, while everybody writes.
    """
    kept = DirectoryStore(str(tmp_path))
    memory = RamdiskBackstore(BLOCKS * 512)
    async with crowd(delayed(memory, fickle=True), store=kept) as clients:
        for number in range(INITIATORS):
            last = flags if number == INITIATORS - 1 else 0
            assert (await out(clients[number], OutAction.REGISTER, 0, number + 1, flags=last)).status is GOOD
        holder = 0
        assert (await out(clients[holder], OutAction.RESERVE, 1, kind=kind)).status is GOOD
        at_preemption: dict[int, tuple[int, ...]] = {}
        async with writing(clients, memory) as writers:
            for _ in range(4):
                winners: list[int] = []
                victim = holder

                async def race(number: int, victim: int = victim, winners: list[int] = winners) -> None:
                    if number == victim or number in at_preemption:
                        return
                    status = (await out(clients[number], OutAction.PREEMPT_AND_ABORT, number + 1, victim + 1, kind)).status
                    if status is GOOD:
                        winners.append(number)
                        writers.forbid(victim)
                        at_preemption[victim] = writers.on_medium()[victim]
                    assert status in {GOOD, CONFLICT}

                await together(race, INITIATORS)
                assert len(winners) == 1
                holder = winners[0]
                if kind is Kind.EXCLUSIVE_ACCESS:
                    writers.refused[holder] = None
        writers.check()
        final = writers.on_medium()
        assert {number: final[number] for number in at_preemption} == at_preemption
